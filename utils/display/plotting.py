"""画图：中文字体、配色，以及课程里反复出现的几种图。只是铺路石，不含模型知识。"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.display.fonts import FAMILY, FONT_FILE

# Okabe 与 Ito(2008)的色盲友好配色，去掉了投影仪上看不清的黄色
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555"]
SYSTEM_FONTS = ["Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Noto Sans CJK SC", "Noto Sans SC",
                "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"]


def use_chinese_font() -> str:
    """让 matplotlib 能画汉字：优先用系统里的中文字体，没有就用课程自带的子集。

    返回：
        选中的字体名。
    异常：
        FileNotFoundError: 系统没有中文字体，课程自带的字体文件也不见了。
    """
    installed = {f.name for f in font_manager.fontManager.ttflist}
    if FAMILY not in installed and FONT_FILE.exists():
        font_manager.fontManager.addfont(FONT_FILE)
    found = [name for name in SYSTEM_FONTS if name in installed]
    if not found and not FONT_FILE.exists():
        raise FileNotFoundError(f"找不到中文字体文件 {FONT_FILE.name}。"
                                "请恢复 data/fonts 文件夹（git checkout data/fonts，或重新解压一次课程）。")
    chain = [*found[:1], *([FAMILY] if FONT_FILE.exists() else []), "DejaVu Sans"]
    plt.rcParams.update({
        "font.family": chain,                # 列在 font.family 里才会逐字回退，写在 font.sans-serif 里不会
        "axes.unicode_minus": False,
        "figure.dpi": 100,
        "figure.figsize": (7.5, 4.0),
        "axes.prop_cycle": plt.cycler(color=COLORS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        "font.size": 11,
        "figure.constrained_layout.use": True,
    })
    warnings.filterwarnings("error", message="Glyph .* missing from")    # 方框是错误，不是小事
    return chain[0]


def figure_png(figure: Figure) -> bytes:
    """把一张图变成 PNG 的字节并关掉它，可以放进图片控件。"""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return buffer.getvalue()


def heatmap(matrix, xlabels: Sequence[str], ylabels: Sequence[str], title: str, ax: Axes | None = None,
            xlabel: str = "", ylabel: str = "", annotate: bool = False, vmin: float | None = None,
            vmax: float | None = None, cmap: str = "Blues", size: float | None = None) -> Axes:
    """热图：行是 ylabels，列是 xlabels，颜色越深数值越大。

    参数：
        matrix: （行数，列数） 的数组或张量。
        xlabels, ylabels: 列名与行名。
        title, xlabel, ylabel: 标题与坐标轴名。
        ax: 画在哪个子图上；None 表示新开一张。
        annotate: 是否在格子里写数值（两位小数）。
        vmin, vmax, cmap: 颜色的范围与配色。
        size: 行名、列名和坐标轴名的字号；给了它，[CLS] 这样超过两个字的列名就竖着写，不挤到邻居。None 表示照 matplotlib 的。
    返回：
        画好的子图。
    异常：
        ValueError: 标签数与矩阵大小不符。
    """
    values = np.asarray(matrix.detach().cpu() if hasattr(matrix, "detach") else matrix, dtype=float)
    if values.shape != (len(ylabels), len(xlabels)):
        raise ValueError(f"矩阵是 {values.shape}，标签却是 {len(ylabels)} 行 {len(xlabels)} 列，请让两者一致。")
    if ax is None:
        side = min(9.0, 1.6 + 0.36 * max(values.shape))
        _, ax = plt.subplots(figsize=(side, side * 0.9))
    ax.imshow(values, cmap=cmap, vmin=vmin, vmax=vmax, aspect="auto")
    ax.set_xticks(range(len(xlabels)), list(xlabels))
    ax.set_yticks(range(len(ylabels)), list(ylabels))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if size is not None:
        ax.tick_params(labelsize=size)
        for label in (ax.xaxis.label, ax.yaxis.label):
            label.set_fontsize(size)
        for label, name in zip(ax.get_xticklabels(), xlabels, strict=True):
            label.set_rotation(90 if len(name) > 2 else 0)
    if annotate:
        low = np.nanmin(values) if vmin is None else vmin
        high = np.nanmax(values) if vmax is None else vmax
        for (i, j), v in np.ndenumerate(values):
            dark = (v - low) / (high - low + 1e-9) > 0.6
            ax.text(j, i, f"{v:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    return ax


def loss_curve(curves: dict[str, tuple[Sequence[float], Sequence[float]]], baselines: dict[str, float], title: str,
               xlabel: str = "步数", ylabel: str = "损失（奈特/词元）", ax: Axes | None = None) -> Axes:
    """损失曲线：实线是测到的，虚线是基线和下限。

    参数：
        curves: 名字 → （横坐标，损失）。
        baselines: 名字 → 水平线的高度，例如 {"一元模型": 5.5, "语料下限": 0.6}。
        title, xlabel, ylabel, ax: 同 heatmap。
    返回：
        画好的子图。
    """
    if ax is None:
        _, ax = plt.subplots()
    for name, (x, y) in curves.items():
        ax.plot(x, y, marker="o", markersize=3, label=name)
    for i, (name, y) in enumerate(baselines.items()):
        ax.axhline(y, color="#555555", linestyle=["--", ":", "-."][i % 3], label=f"{name} {y:.2f}")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    ax.legend(facecolor="white", edgecolor="none", framealpha=0.9)       # 底是白的，虚线不会穿过字
    return ax
