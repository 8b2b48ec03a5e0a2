"""注意力图与步进图，真的浏览器、断网，不经过 Jupyter：画出来的每个数、每条线、每个颜色都和 Python 的一样，每个键都管用。"""

import csv
import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import lab  # noqa: E402
import stage  # noqa: E402
from test_attention import SENTENCE, tiny_bert  # noqa: E402
from test_widgets import HOSTILE  # noqa: E402

from utils.analysis.reading import Attentions, HeadVectors, attention_steps  # noqa: E402
from utils.tokenization.tokenizer import build_tokenizer  # noqa: E402
from utils.views.widgets.attention import AttentionWidget, to_uint8  # noqa: E402
from utils.views.widgets.stepper import AttentionStepper  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")
L, H, NAMES = 3, 4, ["[CLS]", "=1+1", "今", "天", "晴", "[SEP]"]
T = len(NAMES)


def attentions(seed: int, names=NAMES, layers: int = L, heads: int = H) -> Attentions:
    """每一格都不一样的权重，恰好是 255 分之几：网页上的数应当和 Python 的分毫不差。"""
    torch.manual_seed(seed)
    weights = torch.softmax(2.5 * torch.randn(layers, heads, len(names), len(names)), -1)
    return Attentions(list(names), (weights * 255).round() / 255)


browser, scene = stage.pages(1200, 900)


def put(scene, **state) -> None:
    """像在图上选的一样，把属性设成这些值。"""
    for name, value in state.items():
        scene.page.evaluate("([name, value]) => { stageModel.set(name, value); stageModel.save_changes(); }", [name, value])
    scene.settle()


def numbers(root, row: int = 0) -> list[float]:
    return [float(x) for x in root.locator(".hz-table").nth(row).locator("tbody td:last-child").all_text_contents()]


def canvas(root, selector: str, number: int = 0) -> np.ndarray:
    """画布的亮度，(T, T)。"""
    rgba = root.locator(selector).nth(number).evaluate(
        "canvas => [canvas.width, ...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]")
    return np.array(rgba[1:]).reshape(rgba[0], rgba[0], 4)[..., :3] @ [0.2126, 0.7152, 0.0722]


def darker_is_larger(light: np.ndarray, weights) -> None:
    levels = to_uint8(weights)
    by_level = sorted(zip(levels, light.ravel(), strict=True))
    assert all(a[1] >= b[1] for a, b in zip(by_level, by_level[1:], strict=False)) and by_level[0][1] - by_level[-1][1] > 100


def xs(root, selector: str, name: str) -> list[float]:
    return [float(x) for x in root.locator(selector).evaluate_all("(all, name) => all.map(x => x.getAttribute(name))", name)]


def lines(root) -> set[tuple[int, int]]:
    """画出来的连线：（谁在看，看向谁）。"""
    rows, found = xs(root, ".hz-picture .hz-query", "y"), set()
    for d in root.locator(".hz-picture .hz-line").evaluate_all("all => all.map(x => x.getAttribute('d'))"):
        for start, end in re.findall(r"M[\d.]+ ([\d.]+)C.*?([\d.]+)(?=M|$)", d):
            found.add((rows.index(float(start)), rows.index(float(end))))
    return found


# ---------------------------------------------------------------- 注意力图


@pytest.mark.parametrize("layer, head", [(l, h) for l in range(L) for h in range(H)])  # noqa: E741
def test_every_head_shows_its_own_numbers(scene, tmp_path, layer, head):
    found = attentions(0)
    weights = found.weights[layer, head]
    root = scene.show(AttentionWidget(attentions=found, layer=layer, head=head), tmp_path)
    np.testing.assert_allclose(numbers(root), weights.mean(0), atol=6e-4)
    assert lines(root) == {(i, j) for i in range(T) for j in range(T) if weights[i, j] * 255 >= 7.5}
    assert root.locator('.hz-thumb[aria-checked="true"]').get_attribute("aria-label") == f"层 {layer}，头 {head}"
    for i in range(T):
        put(scene, token=i)
        np.testing.assert_allclose(numbers(root), weights[i], atol=6e-4)
        assert lines(root) == {(i, j) for j in range(T) if weights[i, j] * 255 >= 0.5}
        best = int(weights[i].argmax())
        summary = root.locator(".hz-status").inner_text()
        assert summary.startswith(f"层 {layer} · 头 {head}：「{NAMES[i]}」最关注 「{NAMES[best]}」{weights[i, best]:.2f}、")
        assert root.locator(".hz-live").text_content() == root.locator(".hz-picture").get_attribute("aria-label") == summary
        top = max(float(weights[i].max()), 0.25)
        np.testing.assert_allclose(xs(root, ".hz-bar", "width"), np.maximum(1, 170 * weights[i] / top), rtol=1e-5)
    put(scene, view="matrix", token=-1)
    darker_is_larger(canvas(root, ".hz-cells"), weights)
    cells = root.locator(".hz-cells").evaluate("x => [x.offsetLeft, x.offsetTop, x.offsetWidth]")
    drawn = {}
    for x, y, text in zip(xs(root, ".hz-cellnumber", "x"), xs(root, ".hz-cellnumber", "y"),
                          root.locator(".hz-cellnumber").all_text_contents(), strict=True):
        drawn[int((y - cells[1]) / cells[2] * T), int((x - cells[0]) / cells[2] * T)] = text
    assert drawn == {(i, j): f"{weights[i, j]:.2f}".removeprefix("0") for i in range(T) for j in range(T) if weights[i, j] * 255 > 2.5}


def test_each_thumbnail_is_its_own_head_and_a_click_opens_it(scene, tmp_path):
    found = attentions(1)
    root = scene.show(AttentionWidget(attentions=found, view="matrix"), tmp_path)
    for n in range(L * H):
        darker_is_larger(canvas(root, ".hz-thumb canvas", n), found.weights[n // H, n % H])
    for layer, head in ((2, 1), (0, 3), (1, 2)):
        root.locator(f'.hz-thumb[data-layer="{layer}"][data-head="{head}"]').click()
        scene.settle()
        assert (scene.widget.layer, scene.widget.head) == (layer, head)
        np.testing.assert_allclose(numbers(root), found.weights[layer, head].mean(0), atol=6e-4)


def test_every_key_does_what_the_hint_says(scene, tmp_path):
    widget = AttentionWidget(attentions=attentions(0), layer=1, head=1)
    root = scene.show(widget, tmp_path)
    scene.page.evaluate("() => { window.leaked = 0; document.addEventListener('keydown', () => { window.leaked += 1; }); }")
    root.locator(".hz-picture").focus()
    now = lambda: (widget.layer, widget.head, widget.token, widget.view)  # noqa: E731
    for key, expected in [("Home", (1, 1, 0, "lines")), ("ArrowDown", (1, 1, 1, "lines")), ("ArrowUp", (1, 1, 0, "lines")),
                          ("ArrowUp", (1, 1, T - 1, "lines")), ("End", (1, 1, T - 1, "lines")), ("ArrowDown", (1, 1, 0, "lines")),
                          ("ArrowRight", (1, 2, 0, "lines")), ("ArrowLeft", (1, 1, 0, "lines")), ("ArrowLeft", (1, 0, 0, "lines")),
                          ("ArrowLeft", (1, 3, 0, "lines")), ("PageDown", (2, 3, 0, "lines")), ("PageDown", (0, 3, 0, "lines")),
                          ("PageUp", (2, 3, 0, "lines")), ("v", (2, 3, 0, "matrix")), ("V", (2, 3, 0, "lines")),
                          ("Escape", (2, 3, -1, "lines"))]:
        scene.page.keyboard.press(key)
        scene.settle()
        assert now() == expected, key
    assert root.locator(".hz-status").inner_text().endswith("点选它。")
    assert root.locator(".hz-picture").get_attribute("data-lm-suppress-shortcuts") == "true"     # Notebook 7 看这个记号
    assert scene.page.evaluate("window.leaked") == 0                         # 按键不漏给 JupyterLab 的快捷键


def test_hover_tells_one_weight_and_a_click_keeps_and_drops_a_token(scene, tmp_path):
    found = attentions(2)
    root = scene.show(AttentionWidget(attentions=found, view="matrix"), tmp_path)
    box = root.locator(".hz-cells").bounding_box()
    side = box["width"] / T
    status, spoken = root.locator(".hz-status"), root.locator(".hz-live")
    before = spoken.text_content(), status.inner_text()
    for i, j in ((1, 4), (4, 1), (5, 0)):
        scene.page.mouse.move(box["x"] + (j + 0.5) * side, box["y"] + (i + 0.5) * side)
        assert status.inner_text() == f"层 0 · 头 0：「{NAMES[i]}」→「{NAMES[j]}」的权重是 {found.weights[0, 0, i, j]:.2f}"
        assert root.locator(".hz-strong").count() == 1
    assert spoken.text_content() == before[0]                                # 鼠标划过不念
    scene.page.mouse.move(5, 5)
    assert status.inner_text() == before[1]
    for token in (3, -1):
        scene.page.mouse.click(box["x"] + side / 2, box["y"] + 3.5 * side)
        scene.settle()
        assert scene.widget.token == token


ENDS = """c => { const copy = Object.assign(document.createElement('canvas'), { width: c.width, height: 1 });
  copy.getContext('2d').drawImage(c, 0, 0); return Array.from(copy.getContext('2d').getImageData(0, 0, c.width, 1).data); }"""


def test_the_scale_and_its_ticks_agree(scene, tmp_path):
    root = scene.show(AttentionWidget(attentions=attentions(0)), tmp_path)
    lefts = root.locator(".hz-ticks span").evaluate_all("all => all.map(x => [Number(x.textContent), parseFloat(x.style.left)])")
    for value, left in lefts:
        assert left == pytest.approx(100 * value ** 0.5, abs=0.01)
    ends = root.locator(".hz-strip").evaluate(ENDS)
    assert ends[:3] == [255, 255, 255] and ends[-4:-1] == [0, 58, 107]       # 0 是底色，1 是最深的蓝
    scene.page.evaluate("() => document.body.setAttribute('data-jp-theme-light', 'false')")       # 换了主题，马上跟着换
    scene.page.wait_for_timeout(100)
    ends = root.locator(".hz-strip").evaluate(ENDS)
    assert ends[-4:-1] == [232, 246, 255]


def test_what_is_saved_holds_every_weight(scene, tmp_path):
    found = attentions(3)
    root = scene.show(AttentionWidget(attentions=found, layer=1, head=2, view="matrix"), tmp_path)
    weights = found.weights[1, 2]

    def saved(kind: str) -> bytes:
        with scene.page.expect_download() as download:
            root.locator(f'[data-export="{kind}"]').click()
        return Path(download.value.path()).read_bytes()

    rows = list(csv.DictReader(io.StringIO(saved("CSV").decode("utf-8-sig"))))
    for row in rows:
        i, j = int(row["查询位置"]), int(row["键位置"])
        assert float(row["权重"]) == pytest.approx(float(weights[i, j]), abs=6e-5)
        assert (row["层"], row["头"]) == ("1", "2")
        assert [row["查询词元"], row["键词元"]] == [NAMES[n].replace("=", "'=") for n in (i, j)]  # 电子表格不会当成公式
    assert len(rows) == T * T
    drawn = ElementTree.fromstring(saved("SVG"))
    assert any(node.tag.endswith("}style") and "base64," in node.text for node in drawn)            # 带着字体
    inner = [node for node in drawn if node.tag.endswith("}svg")]
    colors = [re.findall(r"\d+", node.get("fill")) for node in inner[0] if node.tag.endswith("}rect")][:T * T]
    light = np.array(colors, float) @ [0.2126, 0.7152, 0.0722]
    darker_is_larger(light.reshape(T, T), weights)
    image = matplotlib.image.imread(io.BytesIO(saved("PNG")), format="png")
    opaque, gray = image[..., 3:].min(initial=1), image[..., :3].mean(-1)
    assert opaque == 1 and gray[0, 0] == 1 and gray.min() < 0.4 and 0.02 < (gray < 0.9).mean() < 0.9      # 白底，有墨
    assert root.locator(".hz-print").count() == 0 and "hz-print" not in root.get_attribute("class")


def test_two_columns_show_two_models_on_one_scale(scene, tmp_path):
    first, second = attentions(4), attentions(5, layers=2, heads=2)
    second.weights[:] = 1 / T                                                 # 第二栏每个都一样大，小于第一栏的最大值
    second.weights[:, :, :, 0] = 90 / 255
    root = scene.show(AttentionWidget(attentions=first, compare=second, names=("甲", "乙"), layer=2, head=3, token=1), tmp_path)
    np.testing.assert_allclose(numbers(root, 0), first.weights[2, 3, 1], atol=6e-4)
    np.testing.assert_allclose(numbers(root, 1), second.weights[1, 1, 1], atol=2e-3)
    assert root.locator(".hz-title").all_text_contents() == ["甲：层 2 · 头 3", "乙：层 1 · 头 1（这个模型只有 2 层 × 2 头）"]
    widths, values = xs(root, ".hz-bar", "width"), numbers(root, 0) + numbers(root, 1)
    top = max(values)
    assert top > 90 / 255 + 0.05
    np.testing.assert_allclose(widths, np.maximum(1, 60 * np.array(values) / top), atol=0.35)   # 两栏的条形同一个比例
    longer = attentions(6, [*NAMES[:2], "雨", "雪", "风", "雷", "云", "[SEP]"])
    root = scene.show(AttentionWidget(attentions=first, compare=longer), tmp_path)
    assert root.locator(".hz-query").all_text_contents() == [*NAMES, *longer.tokens]


@pytest.mark.parametrize("width, view", [(1246, "lines"), (1246, "matrix"), (855, "lines"), (855, "matrix")])
def test_two_columns_stand_side_by_side_even_on_a_projector(scene, tmp_path, width, view):
    """855：1024 × 768 的投影仪上，JupyterLab 留给输出的宽度。"""
    scene.page.set_viewport_size({"width": width + 16, "height": 800})
    names = ["[CLS]", *"青禾市今天下雨。", "[SEP]", *"雨停后，青禾市的街道", "[SEP]"]
    root = scene.show(AttentionWidget(attentions=attentions(0, names), compare=attentions(1, names), view=view), tmp_path)
    scene.page.wait_for_timeout(100)
    left, right = (root.locator(".hz-panel").nth(n).bounding_box() for n in (0, 1))
    assert abs(left["y"] - right["y"]) < 2 and right["x"] >= left["x"] + left["width"]
    for n in (0, 1):
        assert root.locator(".hz-picture").nth(n).evaluate("x => x.scrollWidth <= x.clientWidth + 1"), "要横着滚才看得全"


def test_a_live_sentence_waits_for_the_input_method_and_tells_what_is_wrong(scene, tmp_path):
    widget = AttentionWidget(tiny_bert(), build_tokenizer("char", [SENTENCE]), SENTENCE)
    root = scene.show(widget, tmp_path)
    box, event = root.locator("input"), "(box, [kind, text]) => { box.value = text; box.dispatchEvent(new Event(kind)); }"
    for kind in ("compositionstart", "input"):
        box.evaluate(event, [kind, "jin'tian"])
    scene.page.wait_for_timeout(800)
    assert widget.text == SENTENCE                                           # 拼音还没上屏，不送
    box.evaluate(event, ["compositionend", "今天"])
    root.locator(".hz-query").filter(has_text="天").first.wait_for()
    scene.page.wait_for_timeout(700)
    assert widget.text == "今天" and root.locator(".hz-query").count() == 4
    assert root.locator(".hz-busy").text_content() == ""
    box.fill("")
    box.press("Enter")
    root.locator(".hz-error").filter(has_text="空").wait_for()
    assert root.locator(".hz-picture.hz-stale").count() == 1                 # 旧图变淡：它不是这一句的
    box.fill("今天")
    box.press("Enter")
    root.locator(".hz-picture:not(.hz-stale)").wait_for()
    assert root.locator(".hz-error").text_content() == ""


def test_two_sentences_are_edited_apart(scene, tmp_path):
    widget = AttentionWidget(tiny_bert(), build_tokenizer("char", [SENTENCE]), SENTENCE, compare="今天")
    root = scene.show(widget, tmp_path)
    assert root.locator(".hz-sentence").all_text_contents() == ["第一句", "第二句"] and root.locator(".hz-panel").count() == 2
    first, second = ["[CLS]", *SENTENCE, "[SEP]"], ["[CLS]", *SENTENCE[:3], "[SEP]"]
    box = root.locator("input").nth(1)
    box.fill(SENTENCE[:3])
    box.press("Enter")
    root.locator(".hz-panel").nth(1).locator(".hz-query").nth(4).wait_for()
    assert [panel.locator(".hz-query").all_text_contents() for panel in root.locator(".hz-panel").all()] == [first, second]
    assert (widget.text, widget.other_text) == (SENTENCE, SENTENCE[:3])


@pytest.mark.parametrize("view", ["lines", "matrix"])
def test_hostile_tokens_in_both_views_the_table_and_the_svg_are_text(scene, tmp_path, view):
    nasty = [*HOSTILE, "</style><img src=x onerror=alert(1)>", "</svg><script>", "\"'`{{}}${1}", "好"]
    found = attentions(0, nasty, 1, 1)
    root = scene.show(AttentionWidget(attentions=found, compare=found, names=("<b>甲", "</div>乙"), view=view), tmp_path)
    for token in range(len(nasty)):
        put(scene, token=token)
    assert root.locator("script, img, iframe, b, style").count() == 0
    drawn = root.locator(".hz-query").all_text_contents()
    assert {"<script>", "$x$", "U+202E", "U+0000", "</style…", "</svg><…"} <= set(drawn) and len(drawn) == 2 * len(nasty)
    assert "</svg><script>" in root.locator(".hz-table").first.inner_text()
    with scene.page.expect_download() as download:
        root.locator('[data-export="SVG"]').click()
    tags = {node.tag.split("}")[1] for node in ElementTree.parse(download.value.path()).iter()}
    assert tags <= {"svg", "g", "rect", "text", "path", "style"}


# ---------------------------------------------------------------- 步进图

D = 6


def head_vectors(causal: bool = False, names=NAMES) -> HeadVectors:
    torch.manual_seed(7)
    mask = torch.ones(len(names), len(names), dtype=torch.bool)
    return HeadVectors(list(names), *torch.randn(3, len(names), D), mask.tril() if causal else mask)


def said(x: float, digits: int = 2) -> str:
    return "−∞" if x == -np.inf else f"{x:.{digits}f}".replace("-", "−")


def strips(root) -> dict[float, list[tuple[float, int, float]]]:
    """画出来的向量：一条的高度位置 → 从左到右每一维的（横坐标，正负号，深浅）。"""
    rows = {}
    for kind, d, level in root.locator(".hz-picture path").evaluate_all(
            "all => all.map(x => [x.getAttribute('class'), x.getAttribute('d'), Number(x.getAttribute('fill-opacity'))])"):
        for x, y, height in re.findall(r"M([\d.]+) ([\d.]+)h[\d.]+v([\d.]+)", d):
            middle = round(float(y) + float(height) / 2, 1)
            rows.setdefault(middle, []).append((float(x), -1 if kind == "hz-negative" else 1, level))
    return {y: sorted(row) for y, row in rows.items()}


def is_vector(row, values) -> None:
    assert [sign for _, sign, _ in row] == np.sign(values).tolist()
    shade = np.abs(values) / np.abs(values).max()
    np.testing.assert_allclose([level for *_, level in row], shade, atol=0.04)


@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize("token", [1, 3])
def test_every_step_shows_its_own_numbers(scene, tmp_path, causal, token):
    vectors = head_vectors(causal)
    steps = {name: x.numpy()[token] for name, x in attention_steps(vectors).items()}
    root = scene.show(AttentionStepper(vectors, token=token), tmp_path)
    order = ("scores", "scaled", "masked", "weights")
    weights, best = steps["weights"], int(steps["weights"].argmax())
    for s in range(5):
        put(scene, step=s)
        for column, name in enumerate(order[:s + 1]):
            texts = root.locator(".hz-picture .hz-number").evaluate_all(
                "all => all.map(x => [Number(x.getAttribute('x')), Number(x.getAttribute('y')), x.textContent])")
            places = sorted({x for x, _, _ in texts if column < 3}) if column < 3 else []
            drawn = [text for x, _, text in texts if x == places[column]] if column < 3 else [
                text for x, _, text in texts if x > sorted({x for x, _, _ in texts})[2]]
            assert drawn == [said(value) for value in steps[name]], (s, name)
        assert root.locator(".hz-number.hz-now").count() == (T if s < 3 else 0)
        assert root.locator(".hz-off").count() == (0 if s < 2 else sum(np.isneginf(steps["masked"])) * (1 + 3))
        if s >= 3:
            np.testing.assert_allclose(xs(root, ".hz-bar", "width"), np.maximum(0.5, 140 * weights), rtol=1e-4)
        summary = root.locator(".hz-status").inner_text()
        assert f"第 {s + 1} 步" in summary and root.locator(".hz-picture").get_attribute("aria-label") == summary
        assert root.locator('.hz-tab[aria-pressed="true"]').inner_text().startswith(str(s + 1))
    rows = strips(root)
    is_vector(rows[20.0], vectors.q[token].numpy())
    bottom = max(rows)
    is_vector(rows[bottom], steps["output"])
    table = root.locator(".hz-table tbody tr").evaluate_all("all => all.map(r => Array.from(r.cells, c => c.textContent))")
    assert table == [[NAMES[j], *(said(steps[name][j], 3) for name in order)] for j in range(T)]
    hidden = int(np.isneginf(steps["masked"]).sum())
    total = np.exp(steps["masked"][np.isfinite(steps["masked"])]).sum()
    formulas = [f"q({NAMES[token]})·k({NAMES[best]})", f"{said(steps['scores'][best])} ÷ √{D} = ",
                f"{hidden} 个不许看" if hidden else "没有要遮",
                f"= {said(np.exp(steps['masked'][best]))} ÷ {said(total)} = {said(weights[best])}",
                f"{said(weights[best])} × v({NAMES[best]})"]
    for s, formula in enumerate(formulas):
        put(scene, step=s)
        assert formula in root.locator(".hz-formula").inner_text()


def test_every_control_of_the_stepper_moves_it(scene, tmp_path):
    widget = AttentionStepper(head_vectors(), token=2)
    root = scene.show(widget, tmp_path)
    now = lambda: (widget.token, widget.step)  # noqa: E731
    back, forward = root.locator(".hz-button").all()
    for act, expected in [(forward.click, (2, 1)), (forward.click, (2, 2)), (back.click, (2, 1)),
                          (root.locator(".hz-tab").nth(3).click, (2, 3)), (lambda: root.locator("select").select_option("4"), (4, 3))]:
        act()
        scene.settle()
        assert now() == expected
    root.locator(".hz-picture").focus()
    for key, expected in [("Home", (4, 0)), ("ArrowRight", (4, 1)), ("End", (4, 4)), ("ArrowRight", (4, 4)),
                          ("ArrowLeft", (4, 3)), ("ArrowDown", (5, 3)),
                          ("ArrowDown", (0, 3)), ("ArrowUp", (5, 3)), ("ArrowUp", (4, 3)), ("Home", (4, 0)), ("End", (4, 4))]:
        scene.page.keyboard.press(key)
        scene.settle()
        assert now() == expected, key
    assert forward.is_disabled() and not back.is_disabled()
    rows = root.locator(".hz-picture .hz-token").evaluate_all(
        "all => all.slice(1, 7).map(x => x.getBoundingClientRect()).map(r => [r.x, r.y + r.height / 2])")
    for n in (3, 0):
        scene.page.mouse.click(*rows[n])
        scene.settle()
        assert widget.token == n


def test_hidden_positions_are_faded_in_the_stepper(scene, tmp_path):
    vectors = head_vectors(causal=True)
    root = scene.show(AttentionStepper(vectors, token=1, step=1), tmp_path)
    before = strips(root)
    put(scene, step=2)
    after, rows = strips(root), sorted(strips(root))
    for n, y in enumerate(rows[1:T + 1]):                                     # rows[0] 是查询 q
        faded = sum(level for *_, level in after[y]) / sum(level for *_, level in before[y])
        assert faded == pytest.approx(1) if n <= 1 else faded < 0.5
