"""utils.views.figures.course_map：地图与 README 一致，路连得上，已有的和要来的分得清，图没有过期。"""

import json
import re
from unicodedata import normalize

import matplotlib.pyplot as plt
import numpy as np
import pytest
from notebook_source import stop_text
from PIL import Image

from tools.notebooks.course_map import write_map
from utils.display.plotting import use_chinese_font
from utils.paths import ROOT
from utils.road import road
from utils.views.figures.course_map import PER_ROW, PICTURE, draw_map, existing_notebooks, fingerprint, layout, place, road_line

use_chinese_font()
ROAD = road()
READY = {"start", "tokenization"}


def seals(figure, stops=ROAD):
    """图上的印章：汉字 → 是否实心。"""
    ax = figure.axes[0]
    boxes = [p for p in ax.patches if type(p).__name__ == "FancyBboxPatch"]
    return {stop.seal: box.get_linestyle() in ("-", "solid") for stop, box in zip(stops, boxes, strict=True)}


def test_the_road_is_the_table_in_the_readme():
    text = normalize("NFKC", (ROOT / "README.md").read_text(encoding="utf-8"))        # 全角、半角标点算一样
    rows = re.findall(r"^\| \[(\d\d_\w+)\]\(notebooks/\1\.ipynb\) \| ([^|]+?) *\|", text, re.M)
    assert [(stop.name, normalize("NFKC", stop.asks)) for stop in ROAD] == rows and rows
    assert len({stop.seal for stop in ROAD}) == len(ROAD)


@pytest.mark.parametrize("count", [3, 4, len(ROAD), 15, 20])
def test_every_stop_lies_on_the_road(count):
    """要几站有几站：每一站（连终点）都在路上，位置各不相同，路到终点为止。"""
    xs, ys = road_line(count + 1)
    assert xs.shape == ys.shape and np.hypot(np.diff(xs), np.diff(ys)).max() < 9
    for index in range(count + 1):
        x, y = place(index)
        on_row = np.isclose(ys, y)
        assert xs[on_row].min() <= x + 1e-9 and x - 1e-9 <= xs[on_row].max()
    assert len({place(i) for i in range(count + 1)}) == count + 1
    assert (xs[-1], ys[-1]) == place(count)


def test_solid_seals_are_exactly_the_ready_ones():
    figure = draw_map(READY)
    assert {seal for seal, solid in seals(figure).items() if solid} == {"始", "切"}
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert all("\n".join(stop.question) in texts and f"{stop.number} {stop.title}" in texts for stop in ROAD)
    assert any("虚线" in text for text in texts)
    everything = draw_map({stop.topic for stop in ROAD})
    assert not any("虚线" in text.get_text() for text in everything.axes[0].texts)
    plt.close("all")


def test_progress_is_drawn_beside_the_seal():
    figure = draw_map(READY, {"start": (1, 1), "tokenization": (2, 7)})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("✓") == 1 and texts.count("2/7") == 1
    assert not any("/" in text.get_text() or "✓" in text.get_text() for text in draw_map(READY).axes[0].texts)
    plt.close("all")


def test_texts_do_not_overlap_and_stay_inside():
    figure = draw_map(READY, {stop.topic: (n % 9, 8) for n, stop in enumerate(ROAD)})
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    page = figure.bbox
    for i, a in enumerate(boxes):
        assert page.x0 <= a.x0 and a.x1 <= page.x1 and page.y0 <= a.y0 and a.y1 <= page.y1
        assert not any(a.overlaps(b) for b in boxes[i + 1:])
    plt.close(figure)


def test_unknown_notebook_is_refused():
    with pytest.raises(ValueError, match="nothing"):
        draw_map({"nothing"})


def test_written_picture_says_what_it_shows(tmp_path):
    path = write_map(tmp_path / "deep" / "map.png", READY)
    rows = json.loads(Image.open(path).text["Description"])
    assert {name[3:] for name, *_, ready in rows if ready} == READY


def test_picture_in_the_repository_is_up_to_date():
    assert "start" in existing_notebooks()
    shown = Image.open(PICTURE).text["Description"]
    assert shown == fingerprint(), "地图旧了：请运行 python -m tools.notebooks.course_map"


def write_road(folder, main: int, side: int):
    rows = [stop_text(f"main{n}", seal="甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳"[n], part=f"第 {n // 4 + 1} 段",
                      question=["问题的上半句，", "下半句？"]) for n in range(main)]
    rows += [stop_text(f"side{n}", seal="东南西北中"[n], kind="side") for n in range(side)]
    (folder / "road.toml").write_text("\n".join(rows), encoding="utf-8")
    return road(folder)


@pytest.mark.parametrize("main, side", [(2, 0), (15, 0), (15, 5), (16, 1)])
def test_any_number_of_stops_fits(tmp_path, main, side):
    """十五站、二十站，连同选读：每一站都有印章，字不相叠，不出图；选读在主路和终点的下面。"""
    stops = write_road(tmp_path, main, side)
    figure = draw_map({stop.topic for stop in stops}, folder=tmp_path)
    assert len(seals(figure, stops)) == main + side
    figure.canvas.draw()
    boxes, page = [text.get_window_extent() for text in figure.axes[0].texts], figure.bbox
    for i, a in enumerate(boxes):
        assert page.x0 <= a.x0 and a.x1 <= page.x1 and page.y0 <= a.y0 and a.y1 <= page.y1
        assert not any(a.overlaps(b) for b in boxes[i + 1:])
    places, rows = layout(stops)
    assert rows == -(-(main + 1) // PER_ROW) + -(-side // PER_ROW) and len(set(places.values())) == main + side
    assert all(places[f"side{n}"][1] < place(main)[1] for n in range(side))
    assert any(text.get_text() == "选读" for text in figure.axes[0].texts) is bool(side)
    plt.close(figure)
