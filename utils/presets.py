"""预设：模型多大、数据多少、练多少步；以及选设备、定随机种子、查版本。"""

from __future__ import annotations

import os
import platform
import random
import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from utils.paths import outputs


@dataclass(frozen=True)
class Preset:
    """一套成套的大小：模型多大、数据多少、练多少步。

    属性：
        name: 预设名。
        n_docs: 语料的文档数（训练、验证、测试合计）。
        layers, hidden, heads: 层数 L、隐藏维度 d_model、注意力头数 H。
        max_len: 最多能放下的词元数（位置嵌入的行数）。
        batch_size: 一个小批（batch）里有多少篇文档。
        lr: 学习率的峰值。
        mlm_steps, clm_steps: 预训练与微调的步数。
        eval_docs: 每次评估用多少篇留出文档。
        init_std: 随机初始权重的标准差。
        mask_rate: MLM 训练时每个词元被选中的概率。
        dropout: 训练时随机丢弃的比例。
        bf16: 在 CPU 上训练时，矩阵乘法是否用 bf16（GPU 总是用）；权重和损失仍是 float32。
    """

    name: str
    n_docs: int
    layers: int
    hidden: int
    heads: int
    max_len: int
    batch_size: int
    lr: float
    mlm_steps: int
    clm_steps: int
    eval_docs: int
    init_std: float
    mask_rate: float = 0.4
    dropout: float = 0.0
    bf16: bool = False


PRESETS = {
    "smoke": Preset("smoke", 2000, 2, 64, 4, 256, 8, 4e-3, 300, 120, 60, 0.1),
    "cpu": Preset("cpu", 20000, 3, 192, 6, 256, 8, 3e-3, 1800, 900, 200, 0.04),
    "gpu": Preset("gpu", 20000, 6, 768, 12, 512, 128, 3e-4, 3000, 2000, 500, 0.02, dropout=0.1),
}


def pick_device() -> torch.device:
    """选设备：有 NVIDIA GPU 用 cuda，其次苹果芯片的 mps，都没有就用 cpu；环境变量 COURSE_DEVICE=cpu 时一律用 cpu。"""
    if os.environ.get("COURSE_DEVICE") == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_preset(name: str | None = None) -> Preset:
    """按名字取预设；不给名字时先看环境变量 COURSE_PRESET，再看有没有 GPU。

    参数：
        name: "smoke"、"cpu"、"gpu" 之一，或 None。
    返回：
        Preset。
    异常：
        ValueError: 名字不在三者之中。
    """
    name = name or os.environ.get("COURSE_PRESET") or ("gpu" if torch.cuda.is_available() else "cpu")
    if name not in PRESETS:
        raise ValueError(f"没有名为「{name}」的预设。可用的有：{'、'.join(PRESETS)}。")
    return PRESETS[name]


@lru_cache(maxsize=1)
def fast_bf16() -> bool:
    """这块 CPU 做 bf16 的矩阵乘法，是否比 float32 快一半以上：当场各量几次，取最快的一次来比。

    新近的服务器 CPU 有 bf16 指令（AVX512-BF16、AMX），快好几倍；没有这种指令的 CPU 反而更慢。
    """
    def fastest(dtype: torch.dtype) -> float:
        a, b = torch.ones(1024, 192, dtype=dtype), torch.ones(192, 768, dtype=dtype)
        seconds = []
        for _ in range(20):
            began = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    return fastest(torch.float32) > 1.5 * fastest(torch.bfloat16)


def outputs_dir(preset: Preset) -> Path:
    """一套预设的产物放在哪里：outputs/<预设名>/。"""
    return outputs() / preset.name


def set_seed(seed: int) -> None:
    """把 random、numpy、torch 的随机种子一起定下来。"""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def versions() -> dict[str, str]:
    """测量时要一并记下的版本号。"""
    packages = ("torch", "transformers", "tokenizers", "datasets", "accelerate")
    return {"python": platform.python_version()} | {p: version(p).split("+")[0] for p in packages}
