"""把课程地图写成 notebooks/figures/course_map.png：`python -m tools.notebooks.course_map`。"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import matplotlib.pyplot as plt

from utils.display.fonts import FAMILY
from utils.display.plotting import use_chinese_font
from utils.paths import NOTEBOOKS, ROOT
from utils.views.figures.course_map import PAPER, PICTURE, draw_map, fingerprint


def write_map(path: Path = PICTURE, ready: Collection[str] | None = None, folder: Path = NOTEBOOKS) -> Path:
    """把地图写成 PNG（一律用课程自带的字体，各台机器写出的图相同），返回 path。"""
    path.parent.mkdir(parents=True, exist_ok=True)
    use_chinese_font()
    with plt.rc_context({"font.family": [FAMILY, "DejaVu Sans"]}):
        figure = draw_map(ready, folder=folder)
        about = {"Description": fingerprint(ready, folder), "Software": None}
        figure.savefig(path, dpi=150, facecolor=PAPER, metadata=about)
    plt.close(figure)
    return path


if __name__ == "__main__":
    print(f"已写好 {write_map().relative_to(ROOT)}")
