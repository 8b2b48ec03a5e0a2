"""给练习抽随机输入的小函数，都只用传进来的 rng，所以同一个种子抽到的一样。只是铺路石（plumbing）。"""

from __future__ import annotations

import random

import torch

HAN = "的一是在了不和有大这主中人上为们地个用工时要动国产以我到他会作来分生对于学下级就年阶义发成部民可出能方进同行面说种"


def _generator(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.getrandbits(48))


def normal(rng: random.Random, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """标准正态的张量，乘以 scale。"""
    return scale * torch.randn(shape, generator=_generator(rng))


def integers(rng: random.Random, high: int, *shape: int, low: int = 0) -> torch.Tensor:
    """[low, high) 里的整数张量（int64）。"""
    return torch.randint(low, high, shape, generator=_generator(rng))


def booleans(rng: random.Random, *shape: int, share: float = 0.5) -> torch.Tensor:
    """每个元素以 share 的概率为真。"""
    return torch.rand(shape, generator=_generator(rng)) < share


def sentence(rng: random.Random, length: int, alphabet: str = HAN) -> str:
    """随机的一串字。"""
    return "".join(rng.choice(alphabet) for _ in range(length))
