"""utils.views.figures.landscape：表和图说的是同一批数，数写得对，名字互不遮挡。"""

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from utils.display.plotting import use_chinese_font
from utils.views.figures.landscape import KINDS, LANDMARKS, draw_landscape, landmark_table, size_text

use_chinese_font()


@pytest.fixture
def ax():
    ax = draw_landscape({"附带的模型": 2.5e6})
    yield ax
    plt.close(ax.figure)


@pytest.mark.parametrize("count, text", [(175e9, "1,750 亿"), (340e6, "3.4 亿"), (2_340_000, "234 万"), (1.542e9, "15.4 亿"), (12, "12"),
                                         (1.2e12, "1.2 万亿")])
def test_sizes_are_written_the_chinese_way(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize("count", [0, -1, float("nan")])
def test_sizes_must_be_positive(count):
    with pytest.raises(ValueError, match="正数"):
        size_text(count)


def test_table_has_every_model_with_its_source():
    rows = landmark_table().splitlines()[2:]
    assert len(rows) == len(LANDMARKS) == len({m.name for m in LANDMARKS})
    for m in LANDMARKS:
        (row,) = [r for r in rows if r.startswith(f"| {m.name}（中文） |" if m.chinese else f"| {m.name} |")]
        assert f"| {m.year} | {size_text(m.parameters)} | {m.kind} | {m.paper} |" in row
    years = [int(r.split("|")[2]) for r in rows]
    assert years == sorted(years)


def test_papers_are_named_with_a_year_not_earlier_than_the_model():
    for m in LANDMARKS:
        cited = re.search(r"（(\d{4})）", m.paper)
        assert cited and 0 <= int(cited[1]) - m.year <= 1, m.name
        assert m.kind in KINDS


def test_points_on_the_figure_are_the_data(ax):
    drawn = {tuple(point) for collection in ax.collections for point in collection.get_offsets().tolist()}
    assert drawn == {(float(m.year), m.parameters) for m in LANDMARKS}
    assert [line.get_ydata()[0] for line in ax.lines] == [2.5e6]
    assert any("附带的模型（250 万）" == text.get_text() for text in ax.texts)


def test_names_do_not_overlap(ax):
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == len(LANDMARKS) + 1
    for i, a in enumerate(boxes):
        assert ax.figure.bbox.x0 <= a.x0 and a.x1 <= ax.figure.bbox.x1
        assert not any(a.overlaps(b) for b in boxes[i + 1:]), ax.texts[i].get_text()
        assert not a.overlaps(ax.get_legend().get_window_extent())


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="循环网络"):
        draw_landscape(landmarks=[replace(LANDMARKS[0], kind="循环网络")])
