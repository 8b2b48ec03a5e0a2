"""transformer 的图：一层里数据怎样流、编码器–解码器的全貌、位置、消融曲线、交叉注意力。只是画图，不含模型知识。"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from utils.display.fonts import printable
from utils.display.plotting import COLORS, heatmap

INK, SIZE, STEP = "#222222", 13, 0.88                      # 墨色；投影也看得清的字号；方框的间距
FILLS = {"注意力": "#CFE3F3", "前馈": "#CDEBDD", "归一化": "#F6E3B8", "嵌入": "#F3D9E8", "词表头": "#E3E3E3"}
KINDS = {"post": ("编码器的一层（Post-LN）", ("多头自注意力", "前馈"), False),
         "pre": ("编码器的一层（Pre-LN）", ("多头自注意力", "前馈"), True),
         "decoder": ("解码器的一层（Post-LN）", ("因果自注意力", "交叉注意力", "前馈"), False)}


def _fill(name: str) -> str:
    return next((color for key, color in FILLS.items() if key in name), FILLS["归一化"])


def _box(ax: Axes, x: float, y: float, name: str, width: float = 2.3, height: float = 0.56, size: float = SIZE) -> None:
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.1",
                                facecolor=_fill(name), edgecolor=INK, linewidth=1.2, zorder=3))
    ax.text(x, y, name, ha="center", va="center_baseline", fontsize=size, color=INK, zorder=4)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=color, linewidth=1.4,
                                 shrinkA=0, shrinkB=0, zorder=2))


def _residual(ax: Axes, x: float, low: float, high: float) -> None:
    """从主路上 low 处绕到 high 处的加号。"""
    side = x + 1.55
    ax.plot([x, side, side], [low, low, high], color=COLORS[1], linewidth=2, zorder=2)
    _arrow(ax, (side, high), (x + 0.19, high), COLORS[1])


def _plus(ax: Axes, x: float, y: float) -> None:
    ax.add_patch(plt.Circle((x, y), 0.19, facecolor="white", edgecolor=COLORS[1], linewidth=2, zorder=3))
    ax.plot([x - 0.1, x + 0.1], [y, y], color=COLORS[1], linewidth=2, zorder=4)
    ax.plot([x, x], [y - 0.1, y + 0.1], color=COLORS[1], linewidth=2, zorder=4)


def _layer(ax: Axes, kind: str, step: float = STEP) -> None:
    title, sublayers, pre = KINDS[kind]
    y, x = 0.0, 0.0
    ax.text(x, y - 0.12, "输入 (B, T, C)", ha="center", va="top", fontsize=SIZE)
    for name in sublayers:
        start, branch = y, y + (step / 2 if y else 0.28)
        for part in (("LayerNorm", name) if pre else (name,)):
            y += step
            _box(ax, x, y, part)
        if "交叉" in name:
            _arrow(ax, (x - 1.95, y), (x - 1.15, y), COLORS[0])
            ax.text(x - 2.0, y, "编码器\n的输出", ha="right", va="center", fontsize=SIZE, color=COLORS[0])
        y += step
        _plus(ax, x, y)
        _residual(ax, x, branch, y)
        ax.plot([x, x], [start, y], color=INK, linewidth=1.4, zorder=1)
        if not pre:
            y += step
            _box(ax, x, y, "LayerNorm")
            ax.plot([x, x], [y - step, y], color=INK, linewidth=1.4, zorder=1)
    _arrow(ax, (x, y), (x, y + 0.85))
    ax.text(x, y + 0.92, "输出 (B, T, C)", ha="center", va="bottom", fontsize=SIZE)
    ax.set_title(title, fontsize=SIZE + 1)
    left = -3.1 if kind == "decoder" else -1.7
    ax.set(xlim=(left, 1.8), ylim=(-0.6, y + 1.4), aspect="equal")
    ax.axis("off")


def block_figure(kinds: Sequence[str] = ("post", "pre")) -> Figure:
    """一层里数据怎样流：方框是运算，橙色的弯路是残差，⊕ 是相加；从下往上看。

    参数：kinds:"post"（编码器，Post-LN）、"pre"（编码器，Pre-LN）、"decoder"（解码器）中的一个或几个。
    返回：matplotlib 图。错误：ValueError：没有这种图。
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"没有这种图：{'、'.join(unknown)}。可以画的有 {'、'.join(KINDS)}。")
    ratios = [4.9 if kind == "decoder" else 3.5 for kind in kinds]
    tallest = max(1 + len(KINDS[kind][1]) * 3 * STEP for kind in kinds)
    figure, axes = plt.subplots(1, len(kinds), figsize=(sum(ratios) * 1.05 + 0.2, tallest * 1.05), width_ratios=ratios, squeeze=False)
    for ax, kind in zip(axes[0], kinds, strict=True):
        _layer(ax, kind)
    return figure


def architecture_figure() -> Figure:
    """编码器–解码器的全貌：左边读，右边写，中间由交叉注意力接起来；从下往上看。"""
    figure, ax = plt.subplots(figsize=(9, 5.4))
    rows = (("字嵌入 + 位置", 1.0), ("自注意力", 2.0), ("前馈", 2.75))
    for x, parts in ((0.0, rows), (5.2, (*rows[:1], ("因果自注意力", 2.0), ("交叉注意力", 2.75), ("前馈", 3.5), ("词表头", 4.85)))):
        for name, y in parts:
            _box(ax, x, y, name)
        for (_, low), (_, high) in zip(parts, parts[1:], strict=False):
            _arrow(ax, (x, low + 0.28), (x, high - 0.28))
        top = 3.5 if x else 2.75
        ax.add_patch(FancyBboxPatch((x - 1.45, 1.6), 2.9, top - 1.2, boxstyle="round,pad=0,rounding_size=0.12", fill=False,
                                    edgecolor=COLORS[6], linestyle=(0, (4, 3)), linewidth=1.3))
        ax.text(x + (1.6 if x else -1.6), (top + 2) / 2, "× L", ha="left" if x else "right", va="center", fontsize=SIZE + 2)
        _arrow(ax, (x, 0.3), (x, 0.72))
    _box(ax, 0.0, 3.85, "记忆 (B, S, C)")
    _arrow(ax, (0.0, 3.03), (0.0, 3.57))
    ax.plot([1.15, 2.6, 2.6], [3.85, 3.85, 2.75], color=COLORS[0], linewidth=2)
    _arrow(ax, (2.6, 2.75), (4.05, 2.75), COLORS[0])
    ax.text(2.45, 3.3, "键和值", ha="right", va="center", fontsize=SIZE, color=COLORS[0])
    _arrow(ax, (5.2, 5.13), (5.2, 5.6))
    for x, y, text in ((0.0, 0.2, "三月五日"), (5.2, 0.2, "[CLS] 0 3 -"), (5.2, 5.68, "0 3 - 0")):
        ax.text(x, y, text, ha="center", va="bottom" if y > 5 else "top", fontsize=SIZE)
    ax.text(0.0, 4.35, "编码器：读", ha="center", fontsize=SIZE + 2, color=COLORS[0])
    ax.text(7.0, 4.75, "解码器：写，\n一次写一个", ha="left", va="center", fontsize=SIZE + 2, color=COLORS[1])
    ax.set(xlim=(-2.3, 9.2), ylim=(-0.3, 6.1), aspect="equal")
    ax.axis("off")
    return figure


def positions_figure(table: torch.Tensor, title: str, most: int = 64, dims: int = 64) -> Figure:
    """位置编码的两张图：左边是表本身（行是位置，列是维），右边是每两个位置的余弦相似度（用全部的维算）。

    参数：table: (T, C)；title：左图的标题；most：只画前多少个位置；dims：左图只画前多少维。
    """
    rows = table[:most].float()
    unit = torch.nn.functional.normalize(rows, dim=-1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=[1.25, 1])
    largest = float(rows.abs().max())
    picture = left.imshow(rows[:, :dims], cmap="PuOr_r", vmin=-largest, vmax=largest, aspect="auto")
    figure.colorbar(picture, ax=left, fraction=0.05, pad=0.02)
    left.set(title=title, xlabel="维", ylabel="位置")
    picture = right.imshow(unit @ unit.T, cmap="PuOr_r", vmin=-1, vmax=1)
    figure.colorbar(picture, ax=right, fraction=0.05, pad=0.02)
    right.set(title="两个位置的余弦相似度", xlabel="位置", ylabel="位置")
    for ax in (left, right):
        ax.spines[:].set_visible(False)
        _larger(ax)
    return figure


def rope_figure(arrows: torch.Tensor, scores: dict[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """RoPE 的两张图：左边是同一对数在各个位置转成的箭头，右边是点积随相对位置的变化。

    参数：arrows: (T, 2)，第 t 行是位置 t 处的箭头；scores：名字 → （相对位置，点积），同一相对位置可以有多个点。
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    reach = 1.45 * float(arrows.norm(dim=-1).max())
    for t, (x, y) in enumerate(arrows.tolist()):
        _arrow(left, (0, 0), (x, y), COLORS[0])
        left.text(1.22 * x, 1.22 * y, f"t={t}", ha="center", va="center", fontsize=12)
    left.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title="同一对数，转过 t · ω", xlabel="维 2n", ylabel="维 2n+1")
    for n, (name, (offsets, values)) in enumerate(scores.items()):
        right.scatter(offsets, values, s=14, color=COLORS[n], marker="ox"[n % 2], label=name, linewidth=1)
    right.set(title="q 与 k 的点积", xlabel="相对位置（键 − 查询）", ylabel="点积")
    right.legend(frameon=False, fontsize=12)
    for ax in (left, right):
        _larger(ax)
    return figure


def ablation_figure(curves: dict[str, list[tuple[Sequence[int], Sequence[float]]]], baseline: tuple[str, float]) -> Figure:
    """消融的损失曲线：一种做法一个颜色，细线是各个种子，粗线是平均；横的虚线是基线。

    参数：curves：名字 → 每个种子的（步数，留出集损失），同一名字的步数相同；baseline：（名字，损失）。
    """
    figure, ax = plt.subplots(figsize=(9, 4.6))
    for n, (name, runs) in enumerate(curves.items()):
        color, dash = COLORS[n % len(COLORS)], "-" if n < len(COLORS) else "--"
        for x, y in runs:
            ax.plot(x, y, color=color, linewidth=0.8, alpha=0.45, linestyle=dash)
        ax.plot(runs[0][0], np.mean([y for _, y in runs], axis=0), color=color, linewidth=2.4, linestyle=dash, label=name)
    ax.axhline(baseline[1], color="#555555", linestyle=":", label=baseline[0])
    ax.set(title="拿掉一样，学得怎样", xlabel="步数", ylabel="留出集损失（奈特/目标词元）")
    ax.legend(frameon=False, fontsize=12, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _larger(ax)
    return figure


def cross_attention_figure(weights: torch.Tensor, sources: Sequence[str], targets: Sequence[str], title: str,
                           ax: Axes | None = None) -> Axes:
    """交叉注意力：行是正要写的词元（目标），列是看向的词元（源），颜色越深权重越大。

    参数：weights: (T, S)，每行之和是 1；sources：S 个源词元；targets：T 个目标词元；ax：画在哪里，None 新开一张。
    返回：画好的子图。
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(max(4.5, 0.42 * len(sources) + 1.8), max(3.2, 0.36 * len(targets) + 1.5)))
    heatmap(weights, [printable(s) for s in sources], [printable(t) for t in targets], title, ax=ax,
            xlabel="源：看向哪个字", ylabel="目标：正要写的字", vmin=0, vmax=1, size=12)
    _larger(ax)
    return ax


def _larger(ax: Axes) -> None:
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_fontsize(SIZE)
    ax.tick_params(labelsize=12)
