"""bertviz 的 neuron 视图要的 q 与 k：用它自带的旧版 BERT 装上我们模型的权重来算。"""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN


def old_bert(model: nn.Module) -> nn.Module:
    """把一个 BERT 编码器的权重装进 bertviz 自带的旧版 BertModel（评估模式，CPU，float32）。

    参数：model：BertModel、BertForMaskedLM 等；没有池化层也行。
    返回：旧版模型；调用它得到的最后一项是每层一个字典：attn (1, H, T, T)，queries 与 keys (1, H, T, D)。
    错误：ValueError：不是 BERT，是解码器，或者权重对不上。首次使用：attention_visualization。
    """
    config = model.config
    if config.model_type != "bert":
        raise ValueError(f"neuron 视图只认得 BERT，这个模型是 {config.model_type}：请改用 view=\"head\" 或 \"model\"。")
    if config.is_decoder:
        raise ValueError("neuron 视图只能画编码器：bertviz 自带的旧版 BERT 没有因果掩码，会让解码器看到未来。"
                         "请改用 view=\"head\" 或 \"model\"。")
    from bertviz.transformers_neuron_view import BertConfig, BertModel

    activation = ACT2FN[config.hidden_act] if isinstance(config.hidden_act, str) else config.hidden_act
    old = BertModel(BertConfig(
        config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads,
        config.intermediate_size, activation, 0.0, 0.0, config.max_position_embeddings, config.type_vocab_size,
        layer_norm_eps=config.layer_norm_eps))
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.base_model.state_dict().items()}
    result = old.load_state_dict(weights, strict=False)
    wrong = [name for name in (*result.missing_keys, *result.unexpected_keys)
             if not name.startswith("pooler.") and not name.endswith(("position_ids", "token_type_ids"))]
    if wrong:  # strict=False 会默默放过对不上的权重，那样画出来的就是随机模型
        raise ValueError(f"模型的权重和 bertviz 自带的 BERT 对不上：{'、'.join(wrong[:3])}。请改用 view=\"head\" 或 \"model\"。")
    return old.eval()


def neuron_layers(model: nn.Module, inputs: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """一句话在每一层的 attn (1, H, T, T)、queries 与 keys (1, H, T, D)，都是 CPU 上的 float32。

    参数：model：BERT 编码器；inputs：encode_text 的结果（批大小 1）。错误：同 old_bert。
    """
    kinds = inputs.get("token_type_ids")  # 有的分词器不给，那时新旧两种 BERT 都当作全是 0
    with torch.no_grad():
        return old_bert(model)(inputs["input_ids"].cpu(), token_type_ids=None if kinds is None else kinds.cpu())[-1]


class Prepared:
    """bertviz 的 neuron 视图想自己切词、自己跑模型；这两样都已做好，只照它的规矩递过去。

    参数：layers：要画的各层（neuron_layers 的元素）；tokens：画前 n 个词元；second：第二段从第几个开始，或 None。
    它切词时得到的是占位的「·」，真正的词元由调用者写进结果：这样各种分词器、截短的句子都一样对待。
    """

    cls_token = sep_token = "·"

    def __init__(self, layers: list[dict[str, torch.Tensor]], tokens: int, second: int | None):
        n = tokens
        self.layers = [{"attn": layer["attn"][..., :n, :n], "queries": layer["queries"][..., :n, :],
                        "keys": layer["keys"][..., :n, :]} for layer in layers]
        # bertviz 会给第一段添首尾两个、给第二段添末尾一个特殊词元
        self.lengths = {"a": (n if second is None else second) - 2, "b": 0 if second is None else n - second - 1}

    def tokenize(self, part: str) -> list[str]:
        return ["·"] * self.lengths[part]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [0] * len(tokens)

    def eval(self) -> None:
        """已经算好，什么也不用做。"""

    def __call__(self, ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> tuple:
        return (self.layers,)
