"""utils.views.figures.transformer：每张图画得出来，字够大、不重叠、画的就是给的数。"""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from utils.display.plotting import use_chinese_font
from utils.models.positions import sinusoidal_positions
from utils.views.figures import transformer as figures

use_chinese_font()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(figure):
    figure.canvas.draw()
    found = [t for ax in figure.axes for t in (ax.title, *ax.texts)]       # 坐标轴都关了，刻度不算
    assert not any(ax.axison for ax in figure.axes)
    return [t for t in found if t.get_text().strip()]


def drawn_apart(figure):
    """图里的字都够大，互不重叠，都在纸内。"""
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    page = figure.bbox
    for i, (a, box) in enumerate(boxes):
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1 and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, a
        for b, other in boxes[i + 1:]:
            assert not box.overlaps(other), (a, b)
    assert min(t.get_fontsize() for t in texts(figure)) >= 12


@pytest.mark.parametrize("kinds", [["post"], ["post", "pre"], ["decoder"], ["pre", "decoder"]], ids="+".join)
def test_block_figure_shows_the_order_of_the_parts(kinds):
    figure = figures.block_figure(kinds)
    drawn_apart(figure)
    for ax, kind in zip(figure.axes, kinds, strict=True):
        upwards = [t.get_text() for t in sorted(ax.texts, key=lambda t: t.get_position()[1])]
        parts = [t for t in upwards if t in ("LayerNorm", "多头自注意力", "前馈", "因果自注意力", "交叉注意力")]
        assert parts == {"post": ["多头自注意力", "LayerNorm", "前馈", "LayerNorm"],
                         "pre": ["LayerNorm", "多头自注意力", "LayerNorm", "前馈"],
                         "decoder": ["因果自注意力", "LayerNorm", "交叉注意力", "LayerNorm", "前馈", "LayerNorm"]}[kind]
        assert sum(isinstance(p, plt.Circle) for p in ax.patches) == (3 if kind == "decoder" else 2)   # 几个残差


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="没有这种图：gpt"):
        figures.block_figure(["post", "gpt"])


def test_architecture_figure():
    figure = figures.architecture_figure()
    drawn_apart(figure)
    assert {"自注意力", "因果自注意力", "交叉注意力", "词表头", "键和值"} <= {t.get_text() for t in texts(figure)}


def test_positions_figure_draws_the_table_and_its_similarities():
    table = sinusoidal_positions(80, 16)
    figure = figures.positions_figure(table, "正弦", dims=12)
    left, right = (ax.images[0].get_array() for ax in figure.axes[:2])
    np.testing.assert_allclose(left, table[:64, :12])
    np.testing.assert_allclose(np.diag(right), 1, rtol=1e-5)
    np.testing.assert_allclose(right[0, 5], torch.nn.functional.cosine_similarity(table[0], table[5], dim=0), rtol=1e-5)
    assert min(t.get_fontsize() for ax in figure.axes[:2] for t in (ax.title, *ax.get_xticklabels())) >= 12


def test_rope_figure_puts_every_point_where_it_belongs():
    figure = figures.rope_figure(torch.eye(2), {"转过": ([-1, 0, 1], [0.5, 2.0, 0.25])})
    points = figure.axes[1].collections[0].get_offsets()
    np.testing.assert_allclose(points, [[-1, 0.5], [0, 2.0], [1, 0.25]])


def test_ablation_figure_draws_each_seed_and_the_mean():
    curves = {"甲": [([0, 1], [4.0, 2.0]), ([0, 1], [4.0, 3.0])], "乙": [([0, 1], [4.0, 4.0])]}
    ax = figures.ablation_figure(curves, ("一元模型", 3.5)).axes[0]
    bold = [line for line in ax.lines if line.get_linewidth() > 2]
    assert [list(line.get_ydata()) for line in bold] == [[4.0, 2.5], [4.0, 4.0]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["甲", "乙", "一元模型"]


def test_cross_attention_figure_has_targets_as_rows():
    weights = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8]])
    ax = figures.cross_attention_figure(weights, ["[CLS]", "三", "$"], ["3", "[SEP]"], "层 0 · 头 1")
    np.testing.assert_allclose(ax.images[0].get_array(), weights)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["3", "[SEP]"]
    assert [t.get_rotation() for t in ax.get_xticklabels()] == [90, 0, 0]
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="标签"):
        figures.cross_attention_figure(weights, ["三"], ["3", "[SEP]"], "")
