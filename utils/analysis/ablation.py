"""关掉注意力头（head ablation）：把一个头的输出换成 0 或平均值，看损失高出多少。

看得多不等于用得多；关掉它，才知道模型靠不靠它。首次使用：attention_visualization。来源：Michel 等（2019）、Voita 等（2019）。
形状里的字母：B 批，L 层数，H 头数，T 词元数，C 模型宽度（C = H × 每头维数）。
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from utils.analysis.reading import eager_attention
from utils.training.losses import evaluate


def head_means(model: nn.Module, batches: Sequence[dict]) -> torch.Tensor:
    """各层各头输出的平均值，(L, C)：在 batches 的全部真词元上平均，mean 消融用它来代替头的输出。"""
    layers = model.base_model.encoder.layer
    total, count, real = [0.0] * len(layers), 0, None

    def add(n: int):
        def hook(_, args):
            total[n] = total[n] + args[0][real].sum(0)                     # (C,)
        return hook

    hooks = [layer.attention.output.dense.register_forward_pre_hook(add(n)) for n, layer in enumerate(layers)]
    try:
        with eager_attention(model):
            for batch in batches:
                inputs = {k: v.to(model.device) for k, v in batch.items() if k != "labels"}
                real = inputs["attention_mask"].bool()                     # (B, T)
                count += int(real.sum())
                model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(total) / count


@contextmanager
def without_heads(model: nn.Module, heads: Sequence[tuple[int, int]], means: torch.Tensor | None = None) -> Iterator[nn.Module]:
    """在 with 里关掉几个头：把它们的输出（拼接后、乘 W^O 之前的那一段）换成 0，或换成平均值。离开时恢复原样。

    参数：model：BERT 类模型；heads：[(层，头)]，从 0 数起；means：head_means 的结果，None 表示换成 0。
    用前向钩子（forward pre-hook）改 attention.output.dense 的输入，模型的代码和权重一点不动。
    错误：ValueError：没有这样的层或头。来源：Michel 等（2019）。首次使用：attention_visualization。
    """
    layers, H = model.base_model.encoder.layer, model.config.num_attention_heads
    for layer, head in heads:
        if not (0 <= layer < len(layers) and 0 <= head < H):
            raise ValueError(f"没有层 {layer} · 头 {head}：模型有 {len(layers)} 层、每层 {H} 个头（都从 0 数起）。")
    size = model.config.hidden_size // H
    off = torch.zeros(len(layers), H * size, dtype=torch.bool, device=model.device)                        # (L, C)
    for layer, head in heads:
        off[layer, head * size: (head + 1) * size] = True
    put = torch.zeros_like(off, dtype=torch.float32) if means is None else means.to(model.device)

    def replace(n: int):
        return lambda _, args: (torch.where(off[n], put[n].to(args[0].dtype), args[0]), *args[1:])

    hooks = [layers[n].attention.output.dense.register_forward_pre_hook(replace(n)) for n in sorted({layer for layer, _ in heads})]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def random_heads_like(heads: Sequence[tuple[int, int]], n_heads: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """在同样的层里，随机换成同样多的别的头：对照组。

    参数：heads：[(层，头)]；n_heads：每层头数 H；generator：随机数发生器。返回：[(层，头)]，与 heads 没有重复。
    错误：ValueError：某一层剩下的头不够抽。
    """
    drawn = []
    for layer in sorted({layer for layer, _ in heads}):
        used = {head for at, head in heads if at == layer}
        rest = [head for head in range(n_heads) if head not in used]
        if len(rest) < len(used):
            raise ValueError(f"第 {layer} 层只有 {n_heads} 个头，已选了 {len(used)} 个，剩下的不够抽对照：请把 k 减小。")
        drawn += [(layer, rest[n]) for n in torch.randperm(len(rest), generator=generator)[:len(used)].tolist()]
    return drawn


def ablation_cost(model: nn.Module, batches: Sequence[dict], heads: Sequence[tuple[int, int]], shift: bool = False,
                  means: torch.Tensor | None = None, full: float | None = None) -> float:
    """关掉 heads 之后，损失高出多少（奈特/目标词元）。

    参数：batches, shift：同 utils.training.evaluate；means：None 是换成 0，否则换成平均值；full：什么都不关时的损失，给了就不再算。
    """
    full = evaluate(model, batches, shift)[0] if full is None else full
    with without_heads(model, heads, means):
        return evaluate(model, batches, shift)[0] - full
