"""微调的几种做法：全部都练、冻结底层、LoRA，以及前缀语言模型的掩码。首次实现：clm_finetuning。"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from transformers import BertForMaskedLM, BertLMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from utils.models.initialization import prepare_heads
from utils.presets import Preset
from utils.tokenization.tokenizer import IGNORE
from utils.training.batches import bert_config, clm_collator
from utils.training.collators import Collator
from utils.training.loop import quiet_trainer, training_arguments
from utils.training.losses import eager_on_cpu, targets_only

HIDDEN = -1e9                                             # 看不见的位置在 softmax 之前加上它；bf16 也放得下


def freeze_bottom(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """冻结嵌入和下面几层（就地）。输出头与字嵌入是同一份权重，所以输出头的矩阵也冻住了。

    参数：
        model: BertLMHeadModel，L 层。
        layers: 冻结下面几层，0 到 L。
    返回：
        同一个 model。
    异常：
        ValueError: layers 不在 0 到 L 之间。
    """
    depth = len(model.bert.encoder.layer)
    if not 0 <= layers <= depth:
        raise ValueError(f"模型只有 {depth} 层，冻结不了 {layers} 层。")
    for part in [model.bert.embeddings, *model.bert.encoder.layer[:layers]]:
        part.requires_grad_(False)
    return model


def add_lora(model: PreTrainedModel, rank: int = 8, seed: int = 0) -> PreTrainedModel:
    """给每一层注意力和前馈层的矩阵各配一对低秩矩阵，只练它们（就地，由 peft 完成）：W x + (2r/r)·B A x。

    参数：
        model: BertLMHeadModel。
        rank: 秩 r。
        seed: A 的随机种子；B 从 0 开始，所以刚加上时输出不变。
    返回：
        同一个 model。
    来源：Hu 等（2021）LoRA。
    """
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "key", "value", "dense"])
    return inject_adapter_in_model(config, model)


def trainable_share(model: PreTrainedModel) -> float:
    """要练的参数占全部参数的比例。"""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained) / sum(n for n, _ in sizes)


def prefix_mask(prompt: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """前缀语言模型（prefix LM）的掩码：提示之内互相都看得见，正文只看左边。

    参数：
        prompt: (B,)，每行提示的词元数。
        real: (B, T)，真词元是 True，填充是 False。
    返回：
        (B, 1, T, T)，加在注意力分数上：看得见是 0，看不见是 HIDDEN。
    来源：UniLM（Dong 等，2019）。
    """
    at = torch.arange(real.shape[1], device=real.device)
    causal = at[None, :] <= at[:, None]                                                        # (T, T)
    both = (at < prompt[:, None])[:, :, None] & (at < prompt[:, None])[:, None, :]             # (B, T, T)
    visible = (causal | both) & (real[:, None, :] | (at[None, :] == at[:, None]))              # 填充的行至少看自己
    return torch.where(visible, 0.0, HIDDEN)[:, None]


def prefix_collator(tokenizer: PreTrainedTokenizerFast) -> Collator:
    """clm_collator，只是 attention_mask 换成前缀语言模型的 (B, 1, T, T)。提示是标签开头连着的 −100。"""
    inner = clm_collator(tokenizer)

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        batch = inner(rows)
        prompt = (batch["labels"] != IGNORE).int().argmax(-1)                                  # 第一个有标签的位置
        return batch | {"attention_mask": prefix_mask(prompt, batch["attention_mask"].bool())}

    return Collator(collate, tokenizer, "前缀 CLM")


def _rehouse(model_class: type[PreTrainedModel], model: PreTrainedModel, weights: dict[str, torch.Tensor], is_decoder: bool):
    new = model_class(type(model.config)(**(model.config.to_dict() | {"is_decoder": is_decoder})))
    new.load_state_dict(weights)
    return new.to(model.device).eval()


def as_masked_lm(model: BertLMHeadModel) -> BertForMaskedLM:
    """把解码器的权重装回 BertForMaskedLM，看它还会不会填空；加了 LoRA 的，取不带 LoRA 的原来那副。"""
    weights = {name.replace(".base_layer.", "."): w for name, w in model.state_dict().items() if ".lora_" not in name}
    return _rehouse(BertForMaskedLM, model, weights, is_decoder=False)


def as_decoder(model: BertForMaskedLM) -> BertLMHeadModel:
    """同一副权重，装进因果解码器。"""
    decoder = _rehouse(BertLMHeadModel, model, model.state_dict(), is_decoder=True)
    decoder.loss_type = "ForCausalLM"
    return decoder


def adapt(model: PreTrainedModel, encoded: Dataset, collate: Callable, steps: int, preset: Preset, folder: Path, seed: int,
          lr: float | None = None) -> PreTrainedModel:
    """安静地练 steps 步（就地）：不画曲线，不存进度，不评估。做许多次小对照用；正式的训练用 utils.training.train。

    参数：
        model, encoded, collate: 同 train。
        steps: 步数。
        preset: 批、学习率、bf16 取自这里。
        folder: Trainer 的工作文件夹。
        seed: 数据次序的随机种子。
        lr: 最高的学习率；不写就用预设的。
    返回：
        同一个 model，处于评估模式。
    """
    args = training_arguments(folder, steps, preset, model.device, seed)
    args = replace(args, logging_steps=steps, learning_rate=lr or preset.lr)
    with eager_on_cpu(model, args), targets_only(model, shift=isinstance(model, BertLMHeadModel)):
        quiet_trainer(model, encoded, collate, args).train()
    return model.eval()


def scratch_like(model: BertLMHeadModel, preset: Preset, tokenizer: PreTrainedTokenizerFast, seed: int) -> BertLMHeadModel:
    """与 model 同样大小、从随机权重开始的解码器，用 prepare_heads 摆好起点。"""
    torch.manual_seed(seed)
    config = bert_config(preset, tokenizer, is_decoder=True, num_hidden_layers=model.config.num_hidden_layers,
                         hidden_size=model.config.hidden_size, num_attention_heads=model.config.num_attention_heads,
                         intermediate_size=model.config.intermediate_size)
    fresh = prepare_heads(BertLMHeadModel(config))
    fresh.loss_type = "ForCausalLM"
    return fresh
