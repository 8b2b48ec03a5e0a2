"""课程地图：notebooks/road.toml 里的一条路，画成一张图。`python -m tools.notebooks.course_map` 把它写到 notebooks/figures/。

主路一行四站，来回折返，要几行有几行；选读的排在下面。哪些已经有、哪些还没有，看 notebooks/ 里的文件，不用手改；
练习做对了几道，看 utils/checks/framework/ledger.py 记的进度。
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from utils.display.plotting import COLORS
from utils.paths import NOTEBOOKS
from utils.road import Stop, road

PICTURE = NOTEBOOKS / "figures" / "course_map.png"
TONES = (COLORS[0], COLORS[2], COLORS[1], COLORS[3])    # 路的各段轮流用的颜色
ORDER = "一二三四五六七八九十"
PER_ROW = 4
INK, PAPER, GREY, ROADBED, DONE = "#222222", "#FFFDF7", "#8A8A8A", "#E4DFD3", "#1A7F37"
GAP_X, GAP_Y, SIDE = 2.4, 2.4, 0.74                # 站与站的横、纵间距，印章的边长（图上的单位）


def existing_notebooks(folder: Path = NOTEBOOKS) -> frozenset[str]:
    """已经有的 notebook 的题目：notebooks/src 里有源，或 notebooks/ 里有 .ipynb（学生版没有源）。"""
    return frozenset(stop.topic for stop in road(folder)
                     if (folder / "src" / f"{stop.topic}.py").exists() or (folder / f"{stop.name}.ipynb").exists())


def rows_of(stations: int) -> int:
    """主路要几行；stations 是站数，连终点在内。"""
    return math.ceil(stations / PER_ROW)


def place(index: int) -> tuple[float, float]:
    """第 index 站（从 0 数起）在图上的 (x, y)：一行四站，来回折返。"""
    row, column = divmod(index, PER_ROW)
    return GAP_X * (column if row % 2 == 0 else PER_ROW - 1 - column), -GAP_Y * row


def road_line(stations: int, points: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """整条路的中线：直路，加上行末的半圆弯。stations 是站数，连终点在内。返回横坐标与纵坐标，形状都是 (N,)。"""
    xs, ys, radius, end = [], [], GAP_Y / 2, GAP_X * (PER_ROW - 1)
    rows = rows_of(stations)
    for row in range(rows):
        first, last = (0.0, end) if row % 2 == 0 else (end, 0.0)
        if row == rows - 1:                               # 最后一行到终点为止
            last = place(stations - 1)[0]
        xs += [first, last]
        ys += [-GAP_Y * row] * 2
        if row < rows - 1:
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
    ax.text(x, y - SIDE / 2 - 0.1, "\n".join(stop.question), color=INK if ready else "#5E5E5E", fontsize=12,
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


def part_colors(stops: Sequence[Stop]) -> dict[str, str]:
    """路的各段 → 颜色。"""
    parts = list(dict.fromkeys(stop.part for stop in stops))
    return {part: TONES[n % len(TONES)] for n, part in enumerate(parts)}


def _row_title(ax: Axes, row: int, stops: Sequence[Stop], colors: Mapping[str, str]) -> None:
    """一行上面的标题：这一行从哪一段走到哪一段。"""
    parts = [part for part in dict.fromkeys(stop.part for stop in stops) if part]
    if parts:
        ax.text(GAP_X * 1.5, -GAP_Y * row + 0.92, f"{ORDER[row] if row < len(ORDER) else row + 1} · {' → '.join(parts)}",
                color=colors[parts[0]], fontsize=12, ha="center", va="bottom")


def _main_road(ax: Axes, stops: Sequence[Stop], colors: Mapping[str, str]) -> None:
    """路面、方向、各行的标题、终点。"""
    stations = len(stops) + 1
    xs, ys = road_line(stations)
    ax.plot(xs, ys, color=ROADBED, linewidth=20, solid_capstyle="round", solid_joinstyle="round", zorder=1)
    ax.plot(xs, ys, color="white", linewidth=1.6, linestyle=(0, (6, 5)), zorder=2)
    for row in range(rows_of(stations)):
        places = [place(n)[0] for n in range(row * PER_ROW, min((row + 1) * PER_ROW, stations))]
        middles = [(a + b) / 2 for a, b in zip(places, places[1:], strict=False)]
        ax.plot(middles, [-GAP_Y * row] * len(middles), linestyle="", marker=">" if row % 2 == 0 else "<",
                markersize=9, color="#A89F88", zorder=3)
        _row_title(ax, row, stops[row * PER_ROW:(row + 1) * PER_ROW], colors)
    _goal(ax, *place(len(stops)))


def layout(stops: Sequence[Stop]) -> tuple[dict[str, tuple[float, float]], int]:
    """（题目 → 图上的位置，一共几行）：主路来回折返，选读从下一行起，都从左往右。"""
    main, side = ([stop for stop in stops if stop.kind == kind] for kind in ("main", "side"))
    places, rows = {stop.topic: place(n) for n, stop in enumerate(main)}, rows_of(len(main) + 1)
    for n, stop in enumerate(side):
        row, column = divmod(n, PER_ROW)
        places[stop.topic] = (GAP_X * column, -GAP_Y * (rows + row))
    return places, rows + math.ceil(len(side) / PER_ROW)


def draw_map(ready: Collection[str] | None = None, progress: Mapping[str, tuple[int, int]] | None = None,
             folder: Path = NOTEBOOKS) -> Figure:
    """画课程地图。

    参数：
        ready: 已经有的 notebook 的题目；None 表示看 notebooks/ 里的文件。
        progress: {notebook 的题目：（做对的练习，全部练习）}，画在印章的右边；None 表示不画。见 utils.checks.progress.course_progress。
        folder: 哪个 notebooks/ 的路。
    返回：
        matplotlib 图，宽 9 英寸。
    异常：
        ValueError: ready 里有路上没有的题目。
    """
    stops, ready = road(folder), existing_notebooks(folder) if ready is None else frozenset(ready)
    unknown = sorted(ready - {stop.topic for stop in stops})
    if unknown:
        raise ValueError(f"地图上没有这些 notebook:{'、'.join(unknown)}。")
    (places, rows), colors = layout(stops), part_colors(stops)
    main = [stop for stop in stops if stop.kind == "main"]
    bottom = -GAP_Y * (rows - 1)
    figure, ax = plt.subplots(figsize=(9, 6.6 * (2.9 - bottom) / 7.7), facecolor=PAPER)
    _main_road(ax, main, colors)
    if len(main) < len(stops):
        ax.text(GAP_X * 1.5, -GAP_Y * rows_of(len(main) + 1) + 0.92, "选读", color=INK, fontsize=12, ha="center", va="bottom")
    for stop in stops:
        _seal(ax, *places[stop.topic], stop, colors[stop.part], stop.topic in ready)
        if progress and stop.topic in progress:
            _badge(ax, *places[stop.topic], *progress[stop.topic])
    ax.set_title("课程地图：一本 notebook，一个问题", fontsize=16, color=INK, pad=10)
    if len(ready) < len(stops):
        ax.text(GAP_X * 1.5, bottom - 1.4, "实心的印章：现在就能学    虚线的印章：即将写好，可以先跳过",
                fontsize=12, color="#5E5E5E", ha="center", va="center")
    ax.set(xlim=(-1.5, GAP_X * 3 + 1.5), ylim=(bottom - 1.6, 1.3), aspect="equal")
    ax.axis("off")
    return figure


def fingerprint(ready: Collection[str] | None = None, folder: Path = NOTEBOOKS) -> str:
    """地图上写了什么（JSON）：存进 PNG，测试据此看图是不是旧了。"""
    ready = existing_notebooks(folder) if ready is None else ready
    return json.dumps([[s.name, s.title, s.seal, s.asks, s.kind, s.part, s.topic in ready] for s in road(folder)], ensure_ascii=True)
