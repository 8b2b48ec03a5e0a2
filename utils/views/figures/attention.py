"""注意力的静态图：放在每张交互图旁边，不运行 notebook 也看得到，也能印在纸上。"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from utils.analysis.reading import Attentions, HeadVectors, attention_steps
from utils.display.fonts import printable
from utils.display.plotting import COLORS, heatmap

INK, PICK = COLORS[0], COLORS[1]
GRID_SIDE, GRID_TOKENS = 16, 64  # 缩略图一边最多几格、每格最多几个词元：再多就看不清了


def _plain(ax: Axes) -> None:
    for text in (*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts):
        text.set_parse_math(False)  # 句子里的 $ 是美元，不是公式


def _lines(ax: Axes, weights: np.ndarray, names: Sequence[str], token: int | None, size: float) -> None:
    T = len(names)
    for i, j in np.argwhere(weights >= (0.03 if token is None else 0.004)):
        if token is None or i == token:
            w = float(weights[i, j])
            curve = Path([(0.0, i), (0.5, i), (0.5, j), (1.0, j)], [Path.MOVETO] + [Path.CURVE4] * 3)
            ax.add_patch(PathPatch(curve, fill=False, edgecolor=INK, alpha=float(np.sqrt(w)),
                                   linewidth=0.5 + (2.5 if token is None else 4) * w))
    for i, name in enumerate(names):
        ax.text(-0.04, i, name, ha="right", va="center", fontsize=size, color=PICK if i == token else "black")
        ax.text(1.04, i, name, ha="left", va="center", fontsize=size)
    ax.set(xlim=(-0.3, 1.3), ylim=(T - 0.4, -0.6))
    ax.axis("off")


def attention_figure(attentions: Attentions, layer: int = 0, head: int = 0,
                     token: int | None = None) -> Figure:
    """一个头的注意力：左边连线（谁看向谁），右边矩阵（行是看的一方，列是被看的一方）。

    参数：attentions: get_attentions 的结果；layer, head：从 0 数起；token：只画这个词元的连线，None 画全部。
    返回：matplotlib 图。错误：IndexError：没有这一层、这个头或这个词元。
    """
    if not (0 <= layer < attentions.layers and 0 <= head < attentions.heads):
        raise IndexError(f"没有层 {layer} · 头 {head}：共 {attentions.layers} 层 × {attentions.heads} 头。")
    names, weights = [printable(name) for name in attentions.tokens], attentions.weights[layer, head].numpy()
    T = len(names)
    if token is not None and not 0 <= token < T:
        raise IndexError(f"没有词元 {token}：这句话只有 {T} 个词元。")
    size = 12 if T <= 24 else 9 if T <= 36 else 6.5
    height = min(9.5, 1.6 + 0.22 * max(T, 10))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, height), width_ratios=[2, 3])
    _lines(left, weights, names, token, size)
    left.set_title("谁在看 → 看向谁" if token is None else f"「{names[token]}」看向谁", parse_math=False)
    heatmap(weights, names, names, f"层 {layer} · 头 {head} 的权重（每行之和是 1）", ax=right,
            xlabel="看向谁（键）", ylabel="谁在看（查询）", vmin=0)
    right.tick_params(labelsize=size)
    for label, name in zip(right.get_xticklabels(), names, strict=True):
        label.set_rotation(90 if len(name) > 2 or T > 24 else 0)         # 单个的字横着写，好认
    figure.colorbar(right.images[0], ax=right, label="权重", fraction=0.046, pad=0.02)
    if token is not None:
        right.add_patch(plt.Rectangle((-0.5, token - 0.5), T, 1, fill=False, edgecolor=PICK, linewidth=1.8))
    for ax in (left, right):
        _plain(ax)
    return figure


def comparison_figure(first: Attentions, second: Attentions, names: Sequence[str], layer: int = 0, head: int = 0,
                      token: int | None = None) -> Figure:
    """两张注意力矩阵并排，同一层、同一个头、同一把颜色标尺。首次使用：attention_visualization。

    参数：first, second：两个 Attentions；names：两个名字；layer, head：从 0 数起，超出时停在最后一个；
        token：框出这个词元的一行，None 不框。
    返回：matplotlib 图。
    """
    sides = [(side, min(layer, side.layers - 1), min(head, side.heads - 1)) for side in (first, second)]
    matrices = [side.weights[at, h].numpy() for side, at, h in sides]
    top = max(float(matrix.max()) for matrix in matrices)
    longest = max(len(matrix) for matrix in matrices)
    size = 11 if longest <= 18 else 9 if longest <= 30 else 6
    figure, axes = plt.subplots(1, 2, figsize=(10, min(8.0, 2.2 + 0.17 * max(longest, 10))))
    for ax, (side, at, h), matrix, name in zip(axes, sides, matrices, names, strict=True):
        labels = [printable(label) for label in side.tokens]
        heatmap(matrix, labels, labels, f"{printable(name)}：层 {at} · 头 {h}", ax=ax, xlabel="看向谁（键）",
                ylabel="谁在看（查询）", vmin=0, vmax=top)
        ax.tick_params(labelsize=size)
        ax.tick_params(axis="x", rotation=0 if len(labels) <= 12 else 90)
        if token is not None and token < len(labels):
            ax.add_patch(plt.Rectangle((-0.5, token - 0.5), len(labels), 1, fill=False, edgecolor=PICK, linewidth=1.8))
        for label in (ax.title, *ax.get_xticklabels(), *ax.get_yticklabels()):
            label.set_parse_math(False)  # 句子里的 $ 是美元，不是公式
    figure.colorbar(axes[1].images[0], ax=list(axes), label="权重（两张图同一标尺）", fraction=0.03, pad=0.02)
    return figure


def stepper_figure(vectors: HeadVectors, token: int = 0) -> Figure:
    """一个词元的五步：q·k、÷√d、掩码、softmax、按权重加总 v。

    参数：vectors：一个头的 q、k、v;token：哪个词元（从 0 数起）。返回：matplotlib 图。
    """
    names, T = [printable(name) for name in vectors.tokens], len(vectors.tokens)
    numbers = {name: x.numpy() for name, x in attention_steps(vectors).items()}
    size = 12 if T <= 26 else 7
    height = min(9.5, 1.5 + 0.23 * max(T, 10))
    figure, axes = plt.subplots(1, 5, figsize=(9, height), width_ratios=[2, 2, 2, 2, 3], sharey=True)
    allowed = np.isfinite(numbers["masked"][token])
    titles = ["① q·k", f"② ÷ √{vectors.q.size(-1)}", "③ 掩码", "④ softmax", "⑤ 权重 × v"]
    for ax, title, key in zip(axes, titles, ("scores", "scaled", "masked", "weights"), strict=False):
        values = np.where(np.isfinite(numbers[key][token]), numbers[key][token], 0.0)
        ax.barh(range(T), values, color=[INK if x >= 0 else PICK for x in values], height=0.7)
        ax.axvline(0, color="#555555", linewidth=0.8)
        ax.set_title(title, fontsize=13)
        ax.tick_params(labelsize=size)
        for j in np.flatnonzero(~allowed) if key == "masked" else ():
            ax.text(0, j, " −∞", va="center", fontsize=size, color="#555555")
    mixed = numbers["weights"][token][:, None] * numbers["v"]  # (T, D)
    most = float(np.abs(mixed).max()) or 1.0
    axes[4].imshow(mixed, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    axes[4].set_title(titles[4], fontsize=13)
    axes[4].set_xlabel("维（竖着加起来就是新向量）", fontsize=size)
    axes[4].tick_params(labelsize=size)
    axes[0].set_yticks(range(T), names)
    axes[0].set_ylim(T - 0.5, -0.5)
    axes[0].get_yticklabels()[token].set_color(PICK)
    figure.suptitle(f"「{names[token]}」的一步步：分数怎样变成权重", parse_math=False)
    _plain(axes[0])
    return figure


def spread(total: int, count: int) -> list[int]:
    """从 0 到 total-1 里均匀地挑 count 个，含首尾；只挑一个时取 0。"""
    count = min(total, count)
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def chosen(indices: Sequence[int], total: int, what: str) -> list[int]:
    """检查选中的层或头：不重复，都在 0 到 total-1 之间。错误：ValueError:what 说明选的是什么（「层」或「头」）。"""
    picked = [int(i) for i in indices]
    if not picked or len(set(picked)) < len(picked) or any(not 0 <= i < total for i in picked):
        raise ValueError(f"选的{what}是 {picked}：请在 0 到 {total - 1} 之间选，至少一个，不要重复。")
    return picked


def attention_grid(attentions: Attentions, layers: Sequence[int] | None = None,
                   heads: Sequence[int] | None = None) -> Figure:
    """所有层、所有头的缩略图：一行一层，一列一头；每一格里行是看的一方，列是被看的一方。

    参数：
        attentions: get_attentions 的结果。
        layers, heads：画哪些层、哪些头（从 0 数起），None 是全画；一张图最多 16 × 16 格、每格 64 个词元。
    返回：matplotlib 图。各格共用一把颜色尺；颜色按权重的平方根变深，小的权重才看得见。
        全画而放不下时，均匀地挑 16 层、16 头，画前 64 个词元，没画的写在图下。
    错误：ValueError：没有这一层或这个头，或者指定的超过了 16 个。首次使用：attention_visualization。
    """
    rows, row_note = _grid_axis(layers, attentions.layers, "层")
    columns, column_note = _grid_axis(heads, attentions.heads, "头")
    T = len(attentions.tokens)
    n, gap = min(T, GRID_TOKENS), max(1, min(T, GRID_TOKENS) // 12)
    step = n + gap
    mosaic = np.full((len(rows) * step - gap, len(columns) * step - gap), np.nan)
    for r, i in enumerate(rows):
        for c, j in enumerate(columns):
            mosaic[r * step:r * step + n, c * step:c * step + n] = attentions.weights[i, j, :n, :n].numpy()
    notes = [row_note, column_note, f"这句话有 {T} 个词元，只画前 {n} 个。" if n < T else ""]
    notes = [note for note in notes if note]
    cell = min(1.5, 8.0 / len(columns))  # 英寸
    size = (max(4.2, cell * len(columns) + 1.5), cell * len(rows) + 1.2 + 0.2 * len(notes))
    figure, ax = plt.subplots(figsize=size)
    picture = ax.imshow(mosaic, cmap="Blues", norm=PowerNorm(0.5, 0, max(float(np.nanmax(mosaic)), 1e-9)))
    ax.set_facecolor("#C8C8C8")  # 格与格之间的灰缝：权重为 0 的格子是白的，也看得见边
    ax.set_xticks([c * step + (n - 1) / 2 for c in range(len(columns))], [f"头 {j}" for j in columns])
    ax.set_yticks([r * step + (n - 1) / 2 for r in range(len(rows))], [f"层 {i}" for i in rows])
    ax.tick_params(length=0, labelsize=10 if cell >= 0.6 else 8, labelrotation=0 if cell >= 0.5 else 45)
    ax.xaxis.tick_top()
    ax.spines[:].set_visible(False)
    ax.set_title("每一层、每一个头的注意力")
    ax.set_xlabel("\n".join(["每格：行是谁在看，列是看向谁", *notes]), fontsize=10)
    figure.colorbar(picture, ax=ax, label="权重", fraction=0.046, pad=0.02)
    return figure


def _grid_axis(asked: Sequence[int] | None, total: int, what: str) -> tuple[list[int], str]:
    """一边画哪些，以及没画全时的说明。"""
    if asked is None:
        picked = spread(total, GRID_SIDE)
        unit, name = ("层", "layers") if what == "层" else ("个头", "heads")
        note = f"模型有 {total} {unit}，只画 {len(picked)} {unit}：用 {name}= 可以另选。"
        return picked, note if len(picked) < total else ""
    if len(picked := chosen(asked, total, what)) > GRID_SIDE:
        raise ValueError(f"一张图最多画 {GRID_SIDE} {'层' if what == '层' else '个头'}，选了 {len(picked)}：请分成几张画。")
    return picked, ""
