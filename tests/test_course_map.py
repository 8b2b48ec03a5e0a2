"""utils.views.figures.course_map：地图与 README 一致，路连得上，已有的和要来的分得清，图没有过期。"""

import json
import re
from unicodedata import normalize

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from tools.notebooks.course_map import write_map
from utils.display.plotting import use_chinese_font
from utils.paths import ROOT
from utils.road import ROAD
from utils.views.figures.course_map import PICTURE, draw_map, existing_notebooks, fingerprint, place, road_line

use_chinese_font()
READY = {"start", "tokenization"}


def seals(figure):
    """图上的印章：汉字 → 是否实心。"""
    ax = figure.axes[0]
    boxes = [p for p in ax.patches if type(p).__name__ == "FancyBboxPatch"]
    return {stop.seal: box.get_linestyle() in ("-", "solid") for stop, box in zip(ROAD, boxes, strict=True)}


def test_the_road_is_the_table_in_the_readme():
    text = normalize("NFKC", (ROOT / "README.md").read_text(encoding="utf-8"))        # 全角、半角标点算一样
    rows = re.findall(r"^\| (\d\d_\w+) \| ([^|]+?) *\|", text, re.M)
    assert [(stop.name, normalize("NFKC", stop.question)) for stop in ROAD] == rows
    assert len({stop.seal for stop in ROAD}) == len(ROAD) == 11


def test_every_stop_lies_on_the_road():
    xs, ys = road_line()
    assert xs.shape == ys.shape and np.hypot(np.diff(xs), np.diff(ys)).max() < 9
    for index in range(len(ROAD) + 1):
        x, y = place(index)
        on_row = np.isclose(ys, y)
        assert xs[on_row].min() <= x + 1e-9 and x - 1e-9 <= xs[on_row].max()
    assert len({place(i) for i in range(12)}) == 12


def test_solid_seals_are_exactly_the_ready_ones():
    figure = draw_map(READY)
    assert {seal for seal, solid in seals(figure).items() if solid} == {"始", "切"}
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert all("\n".join(stop.lines) in texts and f"{stop.number} {stop.title}" in texts for stop in ROAD)
    assert any("虚线" in text for text in texts)
    everything = draw_map({stop.name for stop in ROAD})
    assert not any("虚线" in text.get_text() for text in everything.axes[0].texts)
    plt.close("all")


def test_progress_is_drawn_beside_the_seal():
    figure = draw_map(READY, {"start": (1, 1), "tokenization": (2, 7)})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("✓") == 1 and texts.count("2/7") == 1
    assert not any("/" in text.get_text() or "✓" in text.get_text() for text in draw_map(READY).axes[0].texts)
    plt.close("all")


def test_texts_do_not_overlap_and_stay_inside():
    figure = draw_map(READY, {stop.name: (n % 9, 8) for n, stop in enumerate(ROAD)})
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    page = figure.bbox
    for i, a in enumerate(boxes):
        assert page.x0 <= a.x0 and a.x1 <= page.x1 and page.y0 <= a.y0 and a.y1 <= page.y1
        assert not any(a.overlaps(b) for b in boxes[i + 1:])
    plt.close(figure)


def test_unknown_notebook_is_refused():
    with pytest.raises(ValueError, match="99_nothing"):
        draw_map({"99_nothing"})


def test_written_picture_says_what_it_shows(tmp_path):
    path = write_map(tmp_path / "deep" / "map.png", READY)
    rows = json.loads(Image.open(path).text["Description"])
    assert {name for name, _, _, ready in rows if ready} == READY


def test_picture_in_the_repository_is_up_to_date():
    assert "start" in existing_notebooks()
    shown = Image.open(PICTURE).text["Description"]
    assert shown == fingerprint(), "地图旧了：请运行 python -m tools.notebooks.course_map"
