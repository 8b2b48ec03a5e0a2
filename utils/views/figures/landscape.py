"""大模型的来历：十几个有名的模型，各是哪一年、多少参数、什么结构、出自哪篇论文，以及一张图。

数字都取自论文自己写的，并在表里注明出处；论文没写清楚的模型不列。在 background 里使用。
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from utils.display.plotting import COLORS

KINDS = {"编码器": ("s", COLORS[0]), "解码器": ("o", COLORS[1]), "编码器–解码器": ("D", COLORS[2])}
UNITS = ((1e12, "万亿"), (1e8, "亿"), (1e4, "万"))


@dataclass(frozen=True)
class Landmark:
    """一个模型。

    属性：
        name: 名字。
        year: 论文首次公开的年份。
        parameters: 参数个数（个）；稀疏的混合专家模型是总数，不是每个词元用到的。
        kind: "编码器"、"解码器" 或 "编码器–解码器"。
        paper: 数字出自哪篇论文。
        chinese: 是否主要为中文（或中英双语）而练。
    """

    name: str
    year: int
    parameters: float
    kind: str
    paper: str
    chinese: bool = False


LANDMARKS = (
    Landmark("Transformer", 2017, 213e6, "编码器–解码器", "Vaswani 等（2017）Attention Is All You Need，表 3 的大号配置"),
    Landmark("GPT", 2018, 117e6, "解码器", "Radford 等（2018）；参数见 Radford 等（2019）表 2"),
    Landmark("BERT（大）", 2018, 340e6, "编码器", "Devlin 等（2019）BERT"),
    Landmark("GPT-2", 2019, 1.542e9, "解码器", "Radford 等（2019）Language Models are Unsupervised Multitask Learners"),
    Landmark("RoBERTa（大）", 2019, 355e6, "编码器", "Liu 等（2019）RoBERTa"),
    Landmark("T5-11B", 2019, 11e9, "编码器–解码器", "Raffel 等（2020）Exploring the Limits of Transfer Learning"),
    Landmark("GPT-3", 2020, 175e9, "解码器", "Brown 等（2020）Language Models are Few-Shot Learners"),
    Landmark("mT5（最大）", 2020, 13e9, "编码器–解码器", "Xue 等（2021）mT5"),
    Landmark("CPM", 2020, 2.6e9, "解码器", "Zhang 等（2020）CPM", True),
    Landmark("盘古-α", 2021, 200e9, "解码器", "Zeng 等（2021）PanGu-α", True),
    Landmark("Chinchilla", 2022, 70e9, "解码器", "Hoffmann 等（2022）Training Compute-Optimal Large Language Models"),
    Landmark("PaLM", 2022, 540e9, "解码器", "Chowdhery 等（2022）PaLM"),
    Landmark("LLaMA", 2023, 65.2e9, "解码器", "Touvron 等（2023）LLaMA"),
    Landmark("Qwen-14B", 2023, 14e9, "解码器", "Bai 等（2023）Qwen Technical Report", True),
    Landmark("Llama 3.1", 2024, 405e9, "解码器", "Grattafiori 等（2024）The Llama 3 Herd of Models"),
    Landmark("DeepSeek-V3", 2024, 671e9, "解码器", "DeepSeek-AI（2024）DeepSeek-V3 Technical Report；混合专家，每个词元只用 370 亿",
             True),
)


def size_text(count: float) -> str:
    """参数个数写给人看：「1,750 亿」「3.4 亿」「234 万」。

    异常：
        ValueError: count 不是正数。
    """
    if not count > 0:
        raise ValueError(f"参数个数要是正数，得到的是 {count!r}。")
    for scale, unit in UNITS:
        if count >= scale:
            value = count / scale
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{count:.0f}"


def landmark_table(landmarks: Sequence[Landmark] = LANDMARKS) -> str:
    """各模型的表（Markdown），按年份、再按参数排。"""
    rows = ["| 模型 | 年 | 参数 | 结构 | 数字的出处 |", "|---|---:|---:|---|---|"]
    for m in sorted(landmarks, key=lambda m: (m.year, m.parameters)):
        rows.append(f"| {m.name}{'（中文）' if m.chinese else ''} | {m.year} | {size_text(m.parameters)} | {m.kind} | {m.paper} |")
    return "\n".join(rows)


def draw_landscape(own: dict[str, float] | None = None, landmarks: Sequence[Landmark] = LANDMARKS) -> Axes:
    """年份对参数的散点图，纵轴是对数；中文模型描黑边。

    参数：
        own: 另画几条水平虚线作比较，名字 → 参数个数，例如这门课自己的模型。
        landmarks: 画哪些模型。
    返回：
        画好的子图。
    异常：
        ValueError: 有一个模型的结构不在三种之中。
    """
    unknown = sorted({m.kind for m in landmarks} - set(KINDS))
    if unknown:
        raise ValueError(f"不认识的结构：{'、'.join(unknown)}。只能是：{'、'.join(KINDS)}。")
    _, ax = plt.subplots(figsize=(9, 5.2))
    for kind, (marker, color) in KINDS.items():
        chosen = [m for m in landmarks if m.kind == kind]
        ax.scatter([m.year for m in chosen], [m.parameters for m in chosen], marker=marker, s=60, color=color, zorder=3, label=kind,
                   edgecolors=["black" if m.chinese else "white" for m in chosen], linewidths=1.4)
    for year in {m.year for m in landmarks}:
        _label_year(ax, [m for m in landmarks if m.year == year])
    first, last = min(m.year for m in landmarks), max(m.year for m in landmarks)
    for i, (name, count) in enumerate((own or {}).items()):
        ax.axhline(count, color="#555555", linestyle=["--", ":", "-."][i % 3])
        ax.text(first - 0.35, count * 1.15, f"{name}（{size_text(count)}）", va="bottom", fontsize=10, color="#333333")
    ax.set(yscale="log", title="大模型的七年：年份与参数", xlabel="论文公开的年份", ylabel="参数个数（个，对数刻度）",
           xlim=(first - 0.4, last + 1.1))
    ax.legend(loc=(0.66, 0.13), title="结构（黑边：中文或中英双语）", frameon=False)
    return ax


def _label_year(ax: Axes, group: list[Landmark]) -> None:
    """同一年的名字写在点的右边；太近的上下错开（至少隔 0.2 个数量级）。"""
    height = float("-inf")
    for m in sorted(group, key=lambda m: m.parameters):
        height = max(log10(m.parameters), height + 0.2)
        ax.text(m.year + 0.1, 10**height, m.name, va="center", fontsize=10, color=KINDS[m.kind][1])
