"""自己的 BERT：三种嵌入 → L 层编码器 → 词表头，能装上 Hugging Face 的权重。首次实现：transformer。

形状里的字母：B 批大小，T 词元数，C 模型宽度，V 词表大小。没有 dropout：它只在训练时起作用，这里只求算得相等。
"""

from __future__ import annotations

import re

import torch
from torch import nn
from transformers import BertConfig, PreTrainedModel
from transformers.activations import ACT2FN

from utils.models.attention import causal_mask, padding_mask
from utils.models.transformer import EncoderBlock

RENAMES = (  # Hugging Face 的名字（正则）→ 这里的名字，依次替换
    (r"^bert\.embeddings\.(word|position|token_type)_embeddings\.", r"embeddings.\1."),
    (r"^bert\.embeddings\.LayerNorm\.", "embeddings.norm."),
    (r"^bert\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense\.", "attention.output."),
    (r"attention\.output\.LayerNorm\.", "norm1."),
    (r"intermediate\.dense\.", "ffn.up."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.ffn.down."),
    (r"^(blocks\.\d+)\.output\.LayerNorm\.", r"\1.norm2."),
    (r"^cls\.predictions\.transform\.dense\.", "head.transform."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "head.norm."),
    (r"^cls\.predictions\.decoder\.", "head.decoder."),
)


class BertEmbeddings(nn.Module):
    """字、位置、段三种嵌入相加，再归一化。参数：config：BertConfig。首次实现：transformer。"""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """词元编号 (B, T)、段号 (B, T)（None 就是全 0）-> (B, T, C)。错误：ValueError：词元比位置多。"""
        T, most = input_ids.size(1), self.position.num_embeddings
        if T > most:
            raise ValueError(f"这一批有 {T} 个词元，而模型只有 {most} 个位置：请截短一些。")
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        places = torch.arange(T, device=input_ids.device)  # (T,)
        return self.norm(self.word(input_ids) + self.token_type(types) + self.position(places))  # (B, T, C)


class VocabularyHead(nn.Module):
    """词表头：再变换一次，然后给词表里每个词元打分。参数：config：BertConfig。首次实现：transformer。"""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.transform, self.activation = nn.Linear(config.hidden_size, config.hidden_size), ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.norm(self.activation(self.transform(x))))  # (B, T, C) -> (B, T, V)


class Bert(nn.Module):
    """BERT。首次实现：transformer。

    参数：config：Hugging Face 的 BertConfig，只读其中的大小、激活函数、eps、是否共享词表头、是否因果。
    属性：causal:config.is_decoder；True 时每个词元只看自己和左边，就成了从左往右写的语言模型。
    来源：Devlin et al. 2019。
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.causal = config.is_decoder
        self.embeddings = BertEmbeddings(config)
        self.blocks = nn.ModuleList(
            EncoderBlock(config.hidden_size, config.num_attention_heads, config.intermediate_size,
                         ACT2FN[config.hidden_act], config.layer_norm_eps)
            for _ in range(config.num_hidden_layers))
        self.head = VocabularyHead(config)
        if config.tie_word_embeddings:
            self.head.decoder.weight = self.embeddings.word.weight

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None,
               token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """词元编号 (B, T) -> 最后一层的向量 (B, T, C)。attention_mask: (B, T)，1 是真词元，0 是 [PAD]。"""
        mask = None if attention_mask is None else padding_mask(attention_mask)  # (B, 1, 1, T)
        if self.causal:
            past = causal_mask(input_ids.size(1), input_ids.device)  # (T, T)
            mask = past if mask is None else past & mask  # (B, 1, T, T)
        x = self.embeddings(input_ids, token_type_ids)  # (B, T, C)
        for block in self.blocks:
            x = block(x, mask)  # (B, T, C)
        return x

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None,
                token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """参数同 encode。返回 logits (B, T, V)。"""
        return self.head(self.encode(input_ids, attention_mask, token_type_ids))

    @classmethod
    def from_hugging_face(cls, model: PreTrainedModel) -> Bert:
        """照 BertForMaskedLM 或 BertLMHeadModel 的大小建模型，并复制它的权重。

        错误：TypeError：别的模型；ValueError：带交叉注意力的模型。
        """
        if not hasattr(model, "bert") or not hasattr(model, "cls"):
            raise TypeError(f"只认得 BertForMaskedLM 和 BertLMHeadModel，收到的是 {type(model).__name__}。")
        new = cls(model.config).load_hugging_face(model.state_dict())
        return new.to(model.device, model.dtype).train(model.training)

    def load_hugging_face(self, weights: dict[str, torch.Tensor]) -> Bert:
        """载入 BertForMaskedLM 或 BertLMHeadModel 的 state dict，也可以是 safetensors 文件里读出的。返回自己。

        文件里若省掉了共享的词表头，就用字嵌入补上。错误：ValueError：缺了或多了权重，或形状不对。
        """
        renamed = {}
        for name, weight in weights.items():
            for pattern, new in RENAMES:
                name = re.sub(pattern, new, name)
            renamed[name] = weight
        bias = renamed.pop("cls.predictions.bias", None)  # 共享时它就是 decoder 的偏置；不共享时库根本不用它
        if self.head.decoder.weight is self.embeddings.word.weight:
            renamed.setdefault("head.decoder.weight", renamed.get("embeddings.word.weight"))
            renamed.setdefault("head.decoder.bias", bias)
        try:
            self.load_state_dict(renamed)
        except (RuntimeError, AttributeError) as error:
            raise ValueError("这些权重装不进这个模型：config 里的大小与权重不符，或者不是 BertForMaskedLM、"
                             f"BertLMHeadModel 的权重。PyTorch 说：{error}") from error
        return self
