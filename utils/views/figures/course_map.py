"""课程地图：十一本 notebook 的一条路，画成一张图。`python -m tools.notebooks.course_map` 把它写到 notebooks/figures/。

哪些已经有、哪些还没有，看 notebooks/ 里的文件，不用手改；练习做对了几道，看 utils/checks/framework/ledger.py 记的进度。
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from utils.display.plotting import COLORS
from utils.paths import ROOT
from utils.road import ROAD, Stop

SOURCES = ROOT / "notebooks" / "src"
PICTURE = ROOT / "notebooks" / "figures" / "course_map.png"


ROWS = (("一", "从汉字到注意力", COLORS[0]), ("二", "搭起模型，开始预训练", COLORS[2]),
        ("三", "让它写，再走远", COLORS[1]))
PER_ROW = 4
INK, PAPER, GREY, ROADBED, DONE = "#222222", "#FFFDF7", "#8A8A8A", "#E4DFD3", "#1A7F37"
GAP_X, GAP_Y, SIDE = 2.4, 2.4, 0.74                # 站与站的横、纵间距，印章的边长（图上的单位）


def existing_notebooks() -> frozenset[str]:
    """已经有的 notebook 的名字：notebooks/src 里有源，或 notebooks/ 里有 .ipynb（学生版没有源）。"""
    return frozenset(stop.name for stop in ROAD
                     if (SOURCES / f"{stop.name}.py").exists() or (SOURCES.parent / f"{stop.name}.ipynb").exists())


def place(index: int) -> tuple[float, float]:
    """第 index 站（从 0 数起）在图上的 (x, y)：一行四站，来回折返。"""
    row, column = divmod(index, PER_ROW)
    return GAP_X * (column if row % 2 == 0 else PER_ROW - 1 - column), -GAP_Y * row


def road_line(points: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """整条路的中线：直路，加上行末的两个半圆弯。返回横坐标与纵坐标，形状都是 (N,)。"""
    xs, ys, radius, end = [], [], GAP_Y / 2, GAP_X * (PER_ROW - 1)
    for row in range(len(ROWS)):
        first, last = (0.0, end) if row % 2 == 0 else (end, 0.0)
        xs += [first, last]
        ys += [-GAP_Y * row] * 2
        if row < len(ROWS) - 1:
            angle = np.linspace(np.pi / 2, -np.pi / 2, points)
            side = 1 if row % 2 == 0 else -1
            xs += list(last + side * (0.62 + 0.55 * radius * np.cos(angle)))
            ys += list(-GAP_Y * row - radius + radius * np.sin(angle))
    return np.array(xs), np.array(ys)


def _seal(ax: Axes, x: float, y: float, stop: Stop, color: str, ready: bool) -> None:
    box = FancyBboxPatch((x - SIDE / 2, y - SIDE / 2), SIDE, SIDE, boxstyle="round,pad=0,rounding_size=0.14",
                         facecolor=color if ready else PAPER, edgecolor=color if ready else GREY,
                         linewidth=1.8, linestyle="-" if ready else (0, (3, 2)), zorder=4)
    ax.add_patch(box)
    ax.text(x, y + 0.035, stop.seal, color="white" if ready else GREY, fontsize=24, ha="center",
            va="center_baseline", zorder=5)
    ax.text(x, y + SIDE / 2 + 0.1, f"{stop.number} {stop.title}", color=color if ready else "#5E5E5E",
            fontsize=13, ha="center", va="bottom", zorder=5)
    ax.text(x, y - SIDE / 2 - 0.1, "\n".join(stop.lines), color=INK if ready else "#5E5E5E", fontsize=12,
            ha="center", va="top", linespacing=1.25, zorder=5)


def _badge(ax: Axes, x: float, y: float, done: int, total: int) -> None:
    """印章右边：练习做对了几道；全做对了就是一个勾。"""
    x, y, full = x + SIDE / 2 + 0.06, y + 0.13, done == total
    ax.add_patch(plt.Circle((x, y), 0.21, facecolor=DONE if full else PAPER, edgecolor=DONE if done else GREY, linewidth=1.6, zorder=6))
    ax.text(x, y, "✓" if full else f"{done}/{total}", color="white" if full else DONE if done else "#5E5E5E",
            fontsize=13 if full else 8.5, ha="center", va="center_baseline", zorder=7)


def _goal(ax: Axes, x: float, y: float) -> None:
    ax.add_patch(plt.Circle((x, y), 0.52, facecolor=PAPER, edgecolor=COLORS[5], linewidth=2.5, zorder=4))
    ax.text(x, y + 0.035, "你", color=COLORS[1], fontsize=27, ha="center", va="center_baseline", zorder=5)
    ax.text(x, y + 0.6, "终点", color=COLORS[1], fontsize=13, ha="center", va="bottom")
    ax.text(x, y - 0.6, "亲手练出一个\n会写汉字的模型", color=INK, fontsize=12, ha="center", va="top",
            linespacing=1.25)


def draw_map(ready: Collection[str] | None = None, progress: Mapping[str, tuple[int, int]] | None = None) -> Figure:
    """画课程地图。

    参数：
        ready: 已经有的 notebook 的名字；None 表示看 notebooks/ 里的文件。
        progress: {notebook 的名字：（做对的练习，全部练习）}，画在印章的右边；None 表示不画。见 utils.checks.progress.course_progress。
    返回：
        matplotlib 图，宽 9 英寸。
    异常：
        ValueError: ready 里有路上没有的名字。
    """
    ready = existing_notebooks() if ready is None else frozenset(ready)
    unknown = sorted(ready - {stop.name for stop in ROAD})
    if unknown:
        raise ValueError(f"地图上没有这些 notebook:{'、'.join(unknown)}。")
    figure, ax = plt.subplots(figsize=(9, 6.6), facecolor=PAPER)
    xs, ys = road_line()
    ax.plot(xs, ys, color=ROADBED, linewidth=20, solid_capstyle="round", solid_joinstyle="round", zorder=1)
    ax.plot(xs, ys, color="white", linewidth=1.6, linestyle=(0, (6, 5)), zorder=2)
    for row, (order, title, color) in enumerate(ROWS):
        middles = GAP_X * (np.arange(PER_ROW - 1) + 0.5)
        ax.plot(middles, [-GAP_Y * row] * len(middles), linestyle="", marker=">" if row % 2 == 0 else "<",
                markersize=9, color="#A89F88", zorder=3)
        ax.text(GAP_X * 1.5, -GAP_Y * row + 0.92, f"{order} · {title}", color=color, fontsize=12,
                ha="center", va="bottom")
    for index, stop in enumerate(ROAD):
        _seal(ax, *place(index), stop, ROWS[index // PER_ROW][2], stop.name in ready)
        if progress and stop.name in progress:
            _badge(ax, *place(index), *progress[stop.name])
    _goal(ax, *place(len(ROAD)))
    ax.set_title("课程地图：一本 notebook，一个问题", fontsize=16, color=INK, pad=10)
    if len(ready) < len(ROAD):
        ax.text(GAP_X * 1.5, -GAP_Y * 2 - 1.4, "实心的印章：现在就能学    虚线的印章：即将写好，可以先跳过",
                fontsize=12, color="#5E5E5E", ha="center", va="center")
    ax.set(xlim=(-1.5, GAP_X * 3 + 1.5), ylim=(-GAP_Y * 2 - 1.6, 1.3), aspect="equal")
    ax.axis("off")
    return figure


def fingerprint(ready: Collection[str] | None = None) -> str:
    """地图上写了什么（JSON）：存进 PNG，测试据此看图是不是旧了。"""
    ready = existing_notebooks() if ready is None else ready
    return json.dumps([[s.name, s.title, s.question, s.name in ready] for s in ROAD], ensure_ascii=True)
