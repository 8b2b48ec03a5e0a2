"""把 utils 的各间屋子和它们之间的导入画成 docs/architecture.png：`python -m tools.architecture`。

屋子的次序和中文名取自 docs/architecture.md，箭头和行数取自代码；只有各间屋子左右放在哪里（COLUMNS），是手排的。
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve
from PIL import Image

from tools.imports import labels, order, room_arrows, rooms
from utils.display.fonts import FAMILY
from utils.display.plotting import COLORS, use_chinese_font
from utils.paths import ROOT

PICTURE = "docs/architecture.png"
INK, PAPER, GREY, FLOOR = "#222222", "#FFFFFF", "#666666", "#FAF6EC"
BLUE, ORANGE, GREEN, PINK = COLORS[:4]
KINDS = {"底座": (GREY, "paths road presets display environment machine"), "文字": (GREEN, "tokenization sources corpus"),
         "模型": (BLUE, "models training generation scaling train"), "看与练": (ORANGE, "analysis views checks")}
COLUMNS = {"paths": 2.6, "road": 6.75, "presets": 1.15, "display": 3.1, "environment": 1.52, "machine": 0.0, "sources": 3.6, "corpus": 3.6,
           "tokenization": 5.15, "models": 2.65, "generation": 4.75, "training": 2.3, "checks": 5.55, "train": 0.2, "scaling": 1.72,
           "analysis": 3.24, "views": 4.5}
WIDE, HIGH, STOREY = 1.36, 0.7, 1.28                       # 一间屋子的宽和高，一层楼的高（图上的单位）
LEFT, RIGHT, TOOLS = -0.95, 7.7, 9.1                      # utils 的左右两边，tools 的中线


def thinned(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """去掉能从别的箭头推出来的：a→b→c 都在，a→c 就不画。arrows 里没有圈。"""
    below: dict[str, set[str]] = {}

    def reach(room: str) -> set[str]:
        if room not in below:
            direct = {used for user, used in arrows if user == room}
            below[room] = direct.union(*map(reach, direct))
        return below[room]

    return {(user, used) for user, used in arrows
            if not any(used in reach(other) for one, other in arrows if one == user and other != used)}


def storeys(names: list[str], arrows: set[tuple[str, str]]) -> dict[str, int]:
    """每间屋子在第几层：比它用到的都高；用到别人、也有人用的，尽量贴近用它的。names 从低到高。"""
    level: dict[str, int] = {}
    for room in names:
        level[room] = 1 + max((level[used] for user, used in arrows if user == room), default=-1)
    for room in reversed(names):
        users = [level[user] for user, used in arrows if used == room]
        if users and level[room]:
            level[room] = min(users) - 1
    return level


def lines(files: list[Path]) -> int:
    """几个文件一共几行。"""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def facts(root: Path) -> dict:
    """图上画的事：屋子之间的导入，各间屋子的行数。"""
    return {"arrows": sorted(map(list, room_arrows(root))), "tools": sorted(labels(root, "tools")),
            "lines": {room: lines(files) for room, files in rooms(root).items()}}


def outdated(root: Path) -> bool:
    """图是不是旧了：导入不同了，或有一间屋子的行数变了两成（不到一百行的变化不算）。"""
    old, new = json.loads(Image.open(root / PICTURE).text["Description"]), facts(root)
    same = all(old[part] == new[part] for part in ("arrows", "tools")) and old["lines"].keys() == new["lines"].keys()
    return not same or any(abs(now - old["lines"][room]) > max(100, old["lines"][room] / 5) for room, now in new["lines"].items())


def _box(ax: Axes, x: float, y: float, width: float, height: float, color: str, fill: str = PAPER, depth: int = 3) -> None:
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.1",
                                edgecolor=color, facecolor=fill, linewidth=1.6, zorder=depth))


def _say(ax: Axes, x: float, y: float, text: str, size: float, color: str = INK) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=color, zorder=4)


def _room(ax: Axes, x: float, y: float, name: str, label: str, count: int, color: str) -> None:
    _box(ax, x, y, WIDE, HIGH, color)
    _say(ax, x, y + 0.16, label, 13, color)
    _say(ax, x, y - 0.17, f"{name} · {count} 行", 8.5)


Arrow = tuple[str, str]
Places = dict[str, tuple[float, float]]


def _spread(x: float, arrows: list[Arrow]) -> dict[Arrow, float]:
    """同一条边上的几支箭头，从左到右排开。"""
    return {arrow: x + 0.24 * (at - (len(arrows) - 1) / 2) for at, arrow in enumerate(arrows)}


def routes(place: Places, arrows: set[Arrow]) -> dict[Arrow, tuple[float, float, bool]]:
    """每支箭头怎样走：（从底边的哪里出发，到屋顶的哪里，是不是先直下、到了楼上再拐弯）。

    先直下会撞上屋子的，就先在出发的楼下拐弯，再直下。同在一边的，先拐弯的里面，高处来的靠近这一边的里侧，就不相交。
    """
    leave: dict[Arrow, float] = {}
    arrive: dict[Arrow, float] = {}
    for room, (x, _) in place.items():
        leave |= _spread(x, sorted((one for one in arrows if one[0] == room), key=lambda one: place[one[1]]))

    def late(arrow: Arrow) -> bool:
        high, low = place[arrow[0]][1], place[arrow[1]][1]
        return not any(abs(leave[arrow] - x) < WIDE / 2 + 0.06 and low < y < high for x, y in place.values())

    def turn(arrow: Arrow) -> tuple[bool, float, float]:
        (x, y), (x1, y1) = place[arrow[0]], place[arrow[1]]
        right = x > x1
        return right, 0 if late(arrow) else (y1 - y if right else y - y1), x

    for room, (x, _) in place.items():
        arrive |= _spread(x, sorted((one for one in arrows if one[1] == room), key=turn))
    return {arrow: (leave[arrow], arrive[arrow], late(arrow)) for arrow in sorted(arrows)}


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], late: bool, width: float, color: str) -> None:
    (x0, y0), (x1, y1) = start, end
    gap = STOREY - HIGH
    upper, lower = (y1 + gap, y1) if late else (y0, y0 - gap)
    middle = (upper + lower) / 2
    points = [(x0, y0), (x0, upper), (x0, middle), (x1, middle), (x1, lower), (x1, y1 + 0.03)]
    curve = Curve(points, [Curve.MOVETO, Curve.LINETO, *[Curve.CURVE4] * 3, Curve.LINETO])
    ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=color, linewidth=width, alpha=0.5, zorder=1, capstyle="butt"))
    head = FancyArrowPatch((x1, y1 + 0.1), (x1, y1 - 0.01), arrowstyle="-|>", mutation_scale=9 + width, color=color, linewidth=0, zorder=2)
    ax.add_patch(head)


def draw(root: Path = ROOT) -> Figure:
    """画出整张图。"""
    names, counts, label = [room for row in order(root) for room in row], room_arrows(root), labels(root)
    level, shown = storeys(names, set(counts)), thinned(set(counts))
    place = {room: (COLUMNS.get(room, 3.0), level[room] * STOREY) for room in names}
    color = {room: color for color, members in KINDS.values() for room in members.split()}
    top, middle = max(level.values()) * STOREY, (LEFT + RIGHT) / 2
    figure, ax = plt.subplots(figsize=(11.6, 12.2))
    ax.set(xlim=(LEFT - 0.15, TOOLS + 1.15), ylim=(-0.95, top + 2.35), aspect="equal")
    ax.axis("off")
    _box(ax, middle, top / 2 + 0.08, RIGHT - LEFT, top + 1.6, "#D8CFB8", FLOOR, depth=0)
    ax.text(LEFT + 0.25, top + 0.5, "utils/", fontsize=15, color=INK, va="center")
    for (user, used), (leave, arrive, late) in routes(place, shown).items():
        start, end = (leave, place[user][1] - HIGH / 2), (arrive, place[used][1] + HIGH / 2)
        _arrow(ax, start, end, late, 1.0 + 0.28 * min(counts[user, used], 14), color.get(user, INK))
    for room, (x, y) in place.items():
        _room(ax, x, y, room, label.get(room, room), lines(rooms(root)[room]), color.get(room, INK))
    _box(ax, middle, top + 1.95, RIGHT - LEFT, 0.66, INK)
    _say(ax, middle, top + 1.95, "notebooks/src/　每本只写 from utils.屋子 import 名字", 13)
    _wide_arrow(ax, (middle, top + 1.6), (middle, top + 0.92), INK)
    _beside(ax, root, top)
    return figure


def _wide_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    style = "simple,head_width=14,head_length=9,tail_width=5"
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle=style, color=color, linewidth=0, zorder=2))


def _beside(ax: Axes, root: Path, top: float) -> None:
    """右边：tools 的各间屋子，和颜色的图例。"""
    names, inside = labels(root, "tools"), rooms(root, "tools")
    height = 0.86 * len(names) + 0.95
    centre = top + 2.28 - height / 2
    _box(ax, TOOLS, centre, WIDE + 0.5, height, PINK, FLOOR)
    ax.text(TOOLS - WIDE / 2, centre + height / 2 - 0.38, "tools/", fontsize=15, color=INK, va="center", zorder=4)
    for at, (name, label) in enumerate(names.items()):
        _room(ax, TOOLS, centre + height / 2 - 1.12 - at * 0.86, name, label, lines(inside[name]), PINK)
    _wide_arrow(ax, (TOOLS - WIDE / 2 - 0.25, centre), (RIGHT + 0.03, centre), PINK)
    _say(ax, TOOLS, centre - height / 2 - 0.3, "tools 用 utils，", 10.5)
    _say(ax, TOOLS, centre - height / 2 - 0.58, "utils 从不用 tools", 10.5)
    for at, (kind, (color, _)) in enumerate(KINDS.items()):
        _box(ax, TOOLS - 0.55, 0.9 - at * 0.42, 0.34, 0.24, color, PAPER)
        ax.text(TOOLS - 0.25, 0.9 - at * 0.42, kind, fontsize=11, va="center", color=color)


def write_picture(root: Path = ROOT) -> Path:
    """把图写成 docs/architecture.png（一律用课程自带的字体），返回它的路径。"""
    use_chinese_font()
    with plt.rc_context({"font.family": [FAMILY, "DejaVu Sans"]}):
        figure = draw(root)
        figure.savefig(root / PICTURE, dpi=130, facecolor=PAPER, metadata={"Description": json.dumps(facts(root)), "Software": None})
    plt.close(figure)
    return root / PICTURE


if __name__ == "__main__":
    print(f"已写好 {write_picture().relative_to(ROOT)}")
