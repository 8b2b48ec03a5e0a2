"""05 的练习「句子次序预测」：抽文档、看出一份答案出了哪几种题、几种做法。只是铺路石（plumbing）。"""

from __future__ import annotations

import random

import torch


def documents(rng: random.Random) -> list[tuple]:
    return [([f"导语{i}" for i in range(n)], [f"正文{i}" for i in range(n)], rng.getrandbits(32)) for n in (300, 360)]


def kinds(function, intros, bodies, seed):
    """看出了哪几种题（正着放还是倒着放、标签几），倒着放的是不是约占一半。"""
    rows, again, other = (function(list(intros), list(bodies), torch.Generator().manual_seed(s)) for s in (seed, seed, seed + 1))
    if rows is None:
        return None
    if len(rows) != len(intros):
        return f"{len(rows)} 道题"
    if short := next((row for row in rows if len(row) != 3), None):
        return f"有一道题里有 {len(short)} 样东西，应当是 3 样"
    names = {}
    for a, b, row in zip(intros, bodies, rows, strict=True):
        place = {(a, b): "正着放", (b, a): "倒着放"}.get(tuple(row[:2]), "配上了别人的")
        label = f"{float(row[2]):g}" if isinstance(row[2], int | float | torch.Tensor) else repr(row[2])
        names[f"{place}，标签 {label}"] = names.get(f"{place}，标签 {label}", 0) + 1
    flipped = sum(n for name, n in names.items() if name.startswith("倒"))
    share = "倒着放的约占一半" if abs(flipped / len(rows) - 0.5) < 0.15 else "倒着放的远不是一半"
    order = [[tuple(row[:2]) for row in x] for x in (rows, again, other)]
    seeded = "同一个种子，两次不一样" if order[0] != order[1] else "换了种子，还是一样" if order[0] == order[2] else "次序由 generator 决定"
    return "；".join([*sorted(names), share, seeded])


def pairs(flip, label):
    def order_pairs(intros, bodies, generator):
        dice = torch.rand(len(intros), 2, generator=generator)
        return [((b, a) if flip(x) else (a, b)) + (label(x, y),)
                for a, b, (x, y) in zip(intros, bodies, dice.tolist(), strict=True)]

    return order_pairs


def strangers(intros, bodies, generator):
    dice = torch.rand(len(intros), generator=generator)
    return [(a, bodies[i - 1] if x < 0.5 else bodies[i], int(x < 0.5)) for i, (a, x) in enumerate(zip(intros, dice, strict=True))]
