"""计算量：训练一步要多少次浮点运算（FLOPs），以及一只边训练边累计的「电表」。

用它给几种做法同样多的计算：预算是浮点运算数，而不是秒数，所以换一台机器、机器忙不忙，走的步数都一样。
首次实现：tokenization（公式在那里推导，并与 torch 自己数出来的对过）。
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PretrainedConfig

from utils.tokenization.tokenizer import IGNORE
from utils.training.losses import TARGETS


def forward_flops(config: PretrainedConfig, batch: int, length: int, targets: int) -> float:
    """BERT 一次前向的浮点运算数；一次乘法加一次加法算 2 次。只数矩阵乘法，其余（LayerNorm、激活、softmax）不到百分之几。

    2 · [ (4H² + 2HF)·L·B·T + 2·L·H·B·T² + (H² + H·V)·N ]

    参数：
        config: 取 L 层、隐藏维度 H、前馈宽度 F、词表大小 V。
        batch, length: 批大小 B、序列长度 T（含填充：填充也要算）。
        targets: 经过词表头的位置数 N。
    返回：
        浮点运算数。
    """
    L, H, F, V = config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.vocab_size
    tokens = batch * length
    return 2.0 * (L * (4 * H * H + 2 * H * F) * tokens + 2 * L * H * tokens * length + (H * H + H * V) * targets)


class FlopsMeter:
    """套在整理函数（collator）外面的电表：每来一批，就把训练这一批的浮点运算数加到 used 上。

    反向是前向的两倍，所以一步是前向的 3 倍。
    要按计算量训练，把它同时当作整理函数和时钟：``train_for(预算, model, rows, meter, args, lean=…, clock=meter.read)``，
    两处的 lean 写成一样。Trainer 会提前取一批，所以电表总比练过的多走一批。

    参数：
        collate: 原来的整理函数，返回的字典里有 labels (B, T)。
        config: 模型的配置。
        lean: True 表示词表头只在有标签的位置算，个数补到 TARGETS 的倍数（utils.training.losses.targets_only）；False 表示每个位置都算。
    属性：
        used: 到目前为止的浮点运算数。
    """

    def __init__(self, collate: Callable, config: PretrainedConfig, lean: bool = True):
        self.collate, self.config, self.lean, self.used = collate, config, lean, 0.0

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        batch = self.collate(rows)
        labels = batch["labels"]
        targets = int((labels[:, 1:] != IGNORE).sum())
        targets = targets + -targets % TARGETS if self.lean else labels.numel()
        self.used += 3 * forward_flops(self.config, *labels.shape, targets)
        return batch

    def read(self) -> float:
        """到目前为止的浮点运算数。"""
        return self.used
