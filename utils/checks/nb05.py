"""05_objectives 的练习。参照用库和 utils/objectives.py，与 notebook 里折叠的参考答案各写各的。"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from utils.checks.exercise import Function, Mistake
from utils.checks.inputs import integers, normal

IGNORE = -100


# ---------------------------------------------------------------- 1 CLM 的损失，要跳过填充


def _padded(rng: random.Random) -> list[tuple]:
    cases = []
    for B, T, V in [(1, 2, 3), (2, 4, 5), (2, 3, 4), (3, 7, 11), (4, 9, 6)]:
        lengths = torch.tensor([T, *(rng.randint(2, T) for _ in range(B - 1))])               # 每行至少两个真词元
        mask = (torch.arange(T) < lengths[:, None]).long()                                    # (B, T)
        cases.append((normal(rng, B, T, V, scale=2), integers(rng, V - 1, B, T, low=1) * mask, mask))
    return cases


def _clm(logits, ids, mask, shift=1, ignore=True, reduction="mean"):
    labels = ids.masked_fill(mask == 0, IGNORE) if ignore else ids
    scores, labels = (logits[:, :-shift], labels[:, shift:]) if shift else (logits, labels)
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction=reduction)


def _divided_by_all(logits, ids, mask):
    return _clm(logits, ids, mask, reduction="sum") / ids[:, 1:].numel()


def _backwards(logits, ids, mask):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), ids.masked_fill(mask == 0, IGNORE)[:, :-1].flatten())


padded_clm_loss = Function(
    "05.padded_clm_loss",
    reference=lambda logits, ids, mask: _clm(logits, ids, mask),
    cases=_padded,
    ask="挑一行只有两个真词元的，用手数一数：应当有几个位置在算损失？你的代码算了几个？",
    mistakes=(
        Mistake("没有错位", lambda logits, ids, mask: _clm(logits, ids, mask, shift=0),
                "它拿位置 t 的 logits 去和第 t 个词元比：在考「把看见的字抄一遍」。",
                "位置 t 的 logits 已经看过了第 t 个词元。它接下来该猜的是哪一个？"),
        Mistake("错位方向反了", _backwards, "它拿位置 t 的 logits 去和前一个词元比。",
                "CLM 是从左往右写的。已经写到 t，要猜的在左边还是右边？"),
        Mistake("填充也算进了损失", lambda logits, ids, mask: _clm(logits, ids, mask, ignore=False),
                "填充的位置也被当成要猜的词元，一起平均了。", "mask 为 0 的那些位置，有人需要模型去猜它们吗？怎样让它们不进平均？"),
        Mistake("分母多数了", _divided_by_all, "填充没有计入总和，可是平均时除以的个数里仍然有它们，所以损失偏小。",
                "分子加了几项？分母应当与它相同。"),
    ),
)
