"""损失：只在有标签的位置算，按「每个目标词元多少奈特」评估。首次实现：mlm_pretraining。"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertForMaskedLM, BertLMHeadModel, PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import MaskedLMOutput

from utils.tokenization.tokenizer import IGNORE, check_vocabulary
from utils.training.processes import is_sharded

TARGETS = 128                                             # 目标的个数补到它的倍数，见 targets_only


def logits_at_targets(model: PreTrainedModel, batch: dict, labels: torch.Tensor, shift: bool, multiple: int = 1,
                      inside: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """只在有标签的位置算 logits。MLM 只有 15% 的位置有标签，词表头（D × V 的乘法和 softmax）省下的就是其余 85%。

    参数：
        model: BertForMaskedLM 或 BertLMHeadModel；别的模型照常算全部 logits 再挑。
        batch: 不含 labels 的输入。
        labels: (B, T)，−100 是没有标签。
        shift: CLM 用 True（位置 t 的 logits 预测 t+1），MLM 用 False。
        multiple: N 补到它的倍数，补的标签是 −100。
        inside: 正在模型自己的 forward 里；FSDP 把参数切开了，只有在 forward 里才凑得齐。
    返回：
        （logits (N, V), 标签 (N,)），N 是有标签的位置数。
    """
    lean = isinstance(model, BertForMaskedLM | BertLMHeadModel) and (inside or not is_sharded(model))
    states = model.bert(**batch, use_cache=False).last_hidden_state if lean else model(**batch).logits   # (B, T, D) 或 (B, T, V)
    if shift:
        states, labels = states[:, :-1], labels[:, 1:]
    at = (labels != IGNORE).flatten().nonzero()[:, 0]                                 # (N,)
    gold = labels.flatten()[at]
    extra = -len(at) % multiple
    at, gold = F.pad(at, (0, extra)), F.pad(gold, (0, extra), value=IGNORE)
    chosen = states.flatten(0, 1)[at]                                                 # (N, D) 或 (N, V)
    return model.cls(chosen) if lean else chosen, gold


@contextmanager
def targets_only(model: PreTrainedModel, shift: bool) -> Iterator[None]:
    """在 with 里，给了 labels 的 model(**batch) 只在有标签的位置算损失，值与原来的相同；没给 labels 时一切照旧。

    换的是模型自己的 forward，所以 Trainer、DDP 照常工作。不认识的模型原样不动。
    目标的个数补到 TARGETS 的倍数：CPU 上的 bf16 矩阵乘法由 oneDNN 现编译，每来一个新形状就编译一次，形状一少就快得多。
    """
    if not isinstance(model, BertForMaskedLM | BertLMHeadModel):
        yield
        return
    original, own = model.forward, vars(model).get("forward")

    def forward(input_ids=None, attention_mask=None, labels=None, **others):
        if labels is None:
            return original(input_ids=input_ids, attention_mask=attention_mask, **others)
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits, gold = logits_at_targets(model, batch, labels, shift, TARGETS, inside=True)
        return MaskedLMOutput(loss=F.cross_entropy(logits.float(), gold))

    model.forward = forward
    try:
        yield
    finally:
        vars(model).pop("forward", None)                  # 连同 accelerate 可能套上的一层，一起拿掉
        if own is not None:
            model.forward = own


@torch.no_grad()
def evaluate(model: PreTrainedModel, batches: Sequence[dict], shift: bool) -> tuple[float, float]:
    """在固定的批上算平均损失与准确率，每个目标词元的权重相同。

    参数：
        model: 输出 logits (B, T, V) 的模型。
        batches: fixed_batches 的结果。
        shift: CLM 用 True（位置 t 的 logits 预测 t+1），MLM 用 False。
    返回：
        （奈特/目标词元，准确率）。
    异常：
        ValueError: 这些批是用别的分词器编的。
    """
    check_vocabulary(model, batches if hasattr(batches, "vocabulary_id") else None)
    training, total, correct, count = model.training, 0.0, 0, 0
    model.eval()
    for batch in batches:
        batch = {k: v.to(model.device) for k, v in batch.items()}
        labels = batch.pop("labels")
        chosen, gold = logits_at_targets(model, batch, labels, shift)     # (N, V), (N,)
        chosen = chosen.float()
        total += F.cross_entropy(chosen, gold, reduction="sum").item()
        correct += (chosen.argmax(-1) == gold).sum().item()
        count += gold.numel()
    model.train(training)
    return total / count, correct / count


@contextmanager
def eager_on_cpu(model: nn.Module, args: TrainingArguments) -> Iterator[None]:
    """在 with 里，CPU 上的 Hugging Face 模型用 eager 注意力：SDPA 用 bf16 时慢得多，用 float32 时一样快。出来就换回原来的。"""
    attention = model.config._attn_implementation if isinstance(model, PreTrainedModel) else None
    if args.use_cpu and attention:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if attention:
            model.set_attn_implementation(attention)
