"""utils.views.figures.attention.attention_grid：每一格就是那一层那一头，放不下时说明白。"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from utils.analysis.reading import Attentions
from utils.display.plotting import use_chinese_font
from utils.views.figures.attention import attention_grid, chosen, spread


@pytest.fixture(scope="module", autouse=True)
def chinese_font():
    use_chinese_font()
    yield
    plt.close("all")


def made(L: int, H: int, T: int) -> Attentions:
    scores = torch.randn(L, H, T, T, generator=torch.Generator().manual_seed(0))
    return Attentions(["字"] * T, (3 * scores).softmax(-1))


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def blocks(ax, T: int) -> np.ndarray:
    """从拼图里按刻度的位置把各格取回来：(行，列，T, T)。"""
    image = np.ma.filled(ax.images[0].get_array(), np.nan)
    starts = [[int(center - (T - 1) / 2) for center in ticks] for ticks in (ax.get_yticks(), ax.get_xticks())]
    return np.array([[image[r:r + T, c:c + T] for c in starts[1]] for r in starts[0]])


@pytest.mark.parametrize("L, H, T", [(3, 4, 9), (2, 5, 24), (1, 1, 1), (12, 12, 30)])
def test_every_cell_is_its_layer_and_head(L, H, T):
    found = made(L, H, T)
    figure = attention_grid(found)
    figure.canvas.draw()
    ax = figure.axes[0]
    np.testing.assert_allclose(blocks(ax, T), found.weights.numpy(), atol=1e-6)
    assert labels(ax.yaxis) == [f"层 {i}" for i in range(L)] and labels(ax.xaxis) == [f"头 {j}" for j in range(H)]
    assert ax.get_title() == "每一层、每一个头的注意力" and "只画" not in ax.get_xlabel()


def test_chosen_layers_and_heads_in_the_order_asked():
    found = made(4, 4, 6)
    ax = attention_grid(found, layers=[3, 0], heads=[2]).axes[0]
    np.testing.assert_allclose(blocks(ax, 6), found.weights[[3, 0]][:, [2]].numpy(), atol=1e-6)
    assert labels(ax.yaxis) == ["层 3", "层 0"] and labels(ax.xaxis) == ["头 2"]


def test_one_scale_for_all_and_small_weights_still_show():
    found = Attentions(["字"] * 2, torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]], [[[0.96, 0.04], [0.0, 1.0]]]]))
    figure = attention_grid(found)
    norm = figure.axes[0].images[0].norm
    assert (norm.vmin, norm.vmax) == (0, 1) and norm(0.04) == pytest.approx(0.2)  # 颜色按平方根
    assert figure.axes[1].get_ylabel() == "权重"
    brightness = plt.get_cmap(figure.axes[0].images[0].cmap)(np.linspace(0, 1, 50))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) < 0).all()  # 只凭明暗也分得出大小，色盲和黑白打印都行


def test_what_does_not_fit_is_left_out_and_said():
    found = made(24, 20, 70)
    ax = attention_grid(found).axes[0]
    rows, columns = spread(24, 16), spread(20, 16)
    np.testing.assert_allclose(blocks(ax, 64), found.weights[rows][:, columns][..., :64, :64].numpy(), atol=1e-6)
    for words in ("24 层，只画 16 层：用 layers=", "20 个头，只画 16 个头：用 heads=", "70 个词元，只画前 64 个"):
        assert words in ax.get_xlabel()


def test_labels_never_overlap():
    for L, H in ((4, 4), (16, 16)):
        figure = attention_grid(made(L, H, 12))
        figure.canvas.draw()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
        assert all(a.x1 <= b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_wrong_choices_are_refused():
    found = made(20, 3, 4)
    for options, message in (({"layers": [20]}, "选的层是 \\[20\\].*0 到 19"), ({"heads": [-1]}, "选的头"), ({"heads": []}, "至少一个"),
                             ({"layers": [1, 1]}, "不要重复"), ({"layers": range(17)}, "最多画 16 层，选了 17")):
        with pytest.raises(ValueError, match=message):
            attention_grid(found, **options)


def test_spread_keeps_both_ends():
    assert spread(12, 4) == [0, 4, 7, 11] and spread(3, 16) == [0, 1, 2] and spread(5, 1) == [0] and spread(1, 9) == [0]
    assert all(len(set(spread(total, count))) == min(total, count) for total in range(1, 30) for count in range(1, 30))
    assert chosen(torch.tensor([2, 1]), 3, "层") == [2, 1]
