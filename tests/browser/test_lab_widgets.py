"""真的 JupyterLab 与 Notebook 7、真的浏览器、断网：全部运行之后，小部件都画得出、点得动、改得了句子、存得下来。"""

import csv
import io
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import lab  # noqa: E402
import stage  # noqa: E402
import tiny  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")


def forget_own_errors(opened, app: str) -> None:
    """Notebook 7 打开任何 notebook 时都会报一个自己的错（读设置的 schema），与小部件无关：运行之前忘掉。"""
    if app == "notebook":
        opened.page.wait_for_timeout(3000)
        opened.errors.clear()


@pytest.fixture(scope="module", params=["lab", "notebook"])
def opened(request, tmp_path_factory):
    if reason := lab.why_not(request.param):
        pytest.skip(f"跳过浏览器测试：{reason}")
    notebook = tiny.write(tmp_path_factory.mktemp("notebook") / "tiny.ipynb")
    with lab.lab([notebook], app=request.param, OMP_NUM_THREADS="1") as opened:
        opened.open(notebook.name)
        forget_own_errors(opened, request.param)
        opened.run_all()
        yield opened


def scrolled(opened, number: int):
    part = opened.page.locator(".hz-attention").nth(number)
    part.scroll_into_view_if_needed(timeout=60_000)
    return part


@pytest.fixture()
def attention(opened):
    return scrolled(opened, 0)


@pytest.fixture()
def compared(opened):
    return scrolled(opened, 1)


@pytest.fixture()
def large(opened):
    return scrolled(opened, 2)


@pytest.fixture()
def stepper(opened):
    part = opened.page.locator(".hz-stepper")
    part.scroll_into_view_if_needed(timeout=60_000)
    return part


def picture(part):
    return part.locator(".hz-picture")


def lines(part) -> int:
    """画了多少条连线：权重相同的几条是同一个元素里的几段。"""
    return sum(d.count("M") for d in part.locator(".hz-picture .hz-line").evaluate_all("all => all.map(x => x.getAttribute('d'))"))


def cells(part) -> tuple[int, int]:
    """矩阵画布的大小，一格一个像素。"""
    return tuple(part.locator(".hz-cells").evaluate("canvas => [canvas.width, canvas.height]"))


def pixels(part, selector: str = ".hz-cells", number: int = 0) -> list[int]:
    """一张画布的像素（红、绿、蓝、不透明度）。"""
    return part.locator(selector).nth(number).evaluate(
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)")


def luminance(rgba: list[int]) -> list[float]:
    return [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in zip(rgba[::4], rgba[1::4], rgba[2::4], strict=True)]


def saved(opened, part, kind: str):
    with opened.page.expect_download() as found:
        part.locator(f'[data-export="{kind}"]').click()
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def show(opened, part, view: str) -> None:
    part.locator(f'[data-view="{view}"]').click()
    wait(opened, lambda: part.locator(".hz-cells").count() == (part.locator(".hz-panel").count() if view == "matrix" else 0))


def status(part) -> str:
    return part.locator(".hz-status").inner_text()


def wait(opened, what) -> None:
    for _ in range(300):
        if what():
            return
        opened.page.wait_for_timeout(100)
    raise AssertionError("等了 30 秒，图没有变")


def test_run_all_draws_both_and_their_static_pictures(opened, attention, stepper):
    assert opened.cell_errors() == []
    assert opened.page.locator(".jp-OutputArea-output img").count() == 3
    assert opened.page.locator(".hz-attention").count() == 3
    assert picture(attention).locator("svg").count() == 1 and lines(attention) > 20
    assert attention.locator(".hz-thumb canvas").count() == 3 * 4
    assert picture(stepper).locator("svg").count() == 1


def test_hover_shows_one_token_and_leaving_shows_all(opened, attention):
    everything, before = lines(attention), status(attention)
    box = picture(attention).bounding_box()
    opened.page.mouse.move(box["x"] + 60, box["y"] + 60)
    wait(opened, lambda: "[CLS]" in status(attention) and status(attention) != before)
    assert 0 < lines(attention) < everything
    opened.page.mouse.move(5, 5)
    wait(opened, lambda: lines(attention) == everything)


def test_click_keeps_the_token_and_the_numbers_add_up_to_one(opened, attention):
    box = picture(attention).bounding_box()
    opened.page.mouse.click(box["x"] + 60, box["y"] + 60)
    opened.page.mouse.move(5, 5)
    wait(opened, lambda: attention.locator(".hz-query.hz-picked").count() == 1)
    numbers = attention.locator(".hz-table tbody tr td:last-child").all_text_contents()
    assert abs(sum(map(float, numbers)) - 1) < 0.03 and len(numbers) == 21


def test_keyboard_moves_token_head_layer_and_view_but_not_the_cells(opened, attention):
    active = "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    picture(attention).focus()
    cell = opened.page.evaluate(active)
    keys = opened.page.keyboard
    keys.press("Home")
    wait(opened, lambda: "「[CLS]」最关注" in status(attention))
    keys.press("ArrowDown")
    wait(opened, lambda: "「昨」最关注" in status(attention))
    assert opened.page.evaluate(active) == cell
    keys.press("ArrowUp")
    wait(opened, lambda: "「[CLS]」最关注" in status(attention))
    assert opened.page.evaluate(active) == cell  # 方向键没有跳到别的单元格
    keys.press("ArrowRight")
    wait(opened, lambda: "层 1 · 头 3" in status(attention))
    keys.press("PageDown")
    wait(opened, lambda: "层 2 · 头 3" in status(attention))
    assert attention.locator('.hz-thumb[aria-checked="true"]').get_attribute("aria-label") == "层 2，头 3"
    keys.press("v")
    wait(opened, lambda: attention.locator(".hz-cells").count() == 1)
    assert cells(attention) == (21, 21)
    keys.press("v")
    wait(opened, lambda: lines(attention) > 0)
    keys.press("Escape")
    wait(opened, lambda: "平均" in status(attention))
    before = opened.page.locator(".jp-Notebook .jp-Cell").count()
    keys.press("b")  # JupyterLab 里「在下面加一格」的快捷键
    opened.page.wait_for_timeout(500)
    assert opened.page.locator(".jp-Notebook .jp-Cell").count() == before


def test_thumbnails_and_selects_choose_the_head(opened, attention):
    attention.locator('.hz-thumb[data-layer="0"][data-head="1"]').click()
    wait(opened, lambda: "层 0 · 头 1" in status(attention))
    attention.locator("select").nth(1).select_option("2")
    wait(opened, lambda: "层 0 · 头 2" in status(attention))


def test_a_new_sentence_is_computed_by_the_kernel(opened, attention):
    box = attention.locator("input")
    box.fill("今天是个好日子")
    wait(opened, lambda: attention.locator(".hz-query").count() == 9)  # 不按回车，停手半秒就算
    box.fill("<script>/$")
    box.press("Enter")
    wait(opened, lambda: attention.locator(".hz-query").all_text_contents()[1:-1] == list("<script>/$"))
    assert opened.page.locator(".hz script").count() == 0


# 分词器不认得的字画成 [UNK]；只要求：画出来或说清楚，而且没有变成网页的一部分
HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"'`{{}}${1}\\\\", "今天\u202e好日子",
           "好日子😀👩‍👩‍👧🇨🇳", "今\0天", "好\ud83d日"]


@pytest.mark.parametrize("text", HOSTILE, ids=["script", "tag", "quotes", "rtl", "emoji", "nul", "half"])
def test_hostile_text_is_drawn_as_text_or_refused(opened, attention, text):
    before = attention.locator(".hz-query").all_text_contents()
    box, error = attention.locator("input"), attention.locator(".hz-error")
    box.evaluate("(box, text) => { box.value = text; box.dispatchEvent(new Event('input')); }", text)
    box.press("Enter")
    wait(opened, lambda: error.inner_text() or attention.locator(".hz-query").all_text_contents() != before)
    drawn = "".join(attention.locator(".hz-query").all_text_contents())
    assert "\u202e" not in drawn and "\0" not in drawn
    if text.startswith("<script>"):
        assert "<script>" in drawn
    assert attention.locator("script, img, iframe").count() == 0
    assert opened.errors == []


def test_a_bad_sentence_gets_a_message_and_a_good_one_clears_it(opened, attention):
    box, error = attention.locator("input"), attention.locator(".hz-error")
    for text, reason in (("好" * 200, "202 个词元"), ("好" * 10_000, "10002 个词元"), ("", "空")):
        box.fill(text)
        box.press("Enter")
        wait(opened, lambda reason=reason: reason in error.inner_text())
    box.fill("今天是个好日子")
    box.press("Enter")
    wait(opened, lambda: error.inner_text() == "" and attention.locator(".hz-query").count() == 9)


def test_a_screen_reader_gets_a_summary_and_the_numbers(opened, attention):
    spoken = attention.locator('.hz-live[role="status"][aria-live="polite"]')
    picture(attention).focus()
    opened.page.keyboard.press("Home")
    wait(opened, lambda: "「[CLS]」最关注" in spoken.text_content())
    values = attention.locator(".hz-table tbody td:last-child").all_text_contents()
    assert f"{max(map(float, values)):.2f}" in spoken.text_content()
    kept = spoken.text_content()
    box = picture(attention).bounding_box()
    opened.page.mouse.move(box["x"] + 60, box["y"] + 90)
    wait(opened, lambda: "「今」最关注" in status(attention))
    assert spoken.text_content() == kept  # 鼠标划过不念
    opened.page.mouse.move(5, 5)
    table = attention.locator(".hz-scroll")
    assert table.bounding_box()["width"] <= 1  # 看不见，但读得到
    assert "位置 0 的「[CLS]」" in table.aria_snapshot()
    attention.get_by_role("button", name="显示数值表").click()
    assert table.bounding_box()["width"] > 100
    attention.get_by_role("button", name="收起数值表").click()


def test_the_scale_runs_one_way_and_has_a_legend(opened, attention):
    strip = luminance(pixels(attention, ".hz-strip"))
    assert all(b <= a for a, b in zip(strip, strip[1:], strict=False)) and strip[0] - strip[-1] > 150
    assert attention.locator(".hz-ticks span").all_text_contents() == ["0", "0.05", "0.2", "0.5", "1"]
    assert "权重" in attention.get_by_role("img", name="颜色与权重").get_attribute("aria-label")


def test_the_matrix_shows_the_weights_and_moving_a_control_repaints_it(opened, attention):
    show(opened, attention, "matrix")
    picture(attention).focus()
    opened.page.keyboard.press("Home")
    before = pixels(attention)
    values = [float(x) for x in attention.locator(".hz-table tbody td:last-child").all_text_contents()]
    row = luminance(before)[:9]  # 位置 0 的一行：权重越大越暗
    assert sorted(range(9), key=row.__getitem__) == sorted(range(9), key=lambda j: -values[j])
    opened.page.keyboard.press("ArrowRight")
    wait(opened, lambda: pixels(attention) != before)
    thumb = attention.locator('.hz-thumb[aria-checked="true"]')
    assert pixels(thumb, "canvas") == pixels(attention)  # 缩略图与主图同一份数据、同一把尺
    thumb.focus()
    for key, change in (("ArrowUp", "layer"), ("ArrowLeft", "head")):
        was = pixels(attention)
        opened.page.keyboard.press(key)
        wait(opened, lambda was=was: pixels(attention) != was)
        assert opened.page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true", change
    shot = picture(attention).screenshot()
    attention.locator("select").nth(1).select_option("3")
    wait(opened, lambda: picture(attention).screenshot() != shot)


@pytest.mark.parametrize("view", ["matrix", "lines"])
def test_the_head_is_saved_as_png_svg_and_csv(opened, attention, view):
    show(opened, attention, view)
    picture(attention).focus()
    opened.page.keyboard.press("Escape")
    T = attention.locator(".hz-query").count()
    name, data = saved(opened, attention, "CSV")
    assert name.isascii() and name.startswith("attention-layer") and name.endswith(".csv")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert len(rows) == T * T
    picked = attention.locator(".hz-table caption").inner_text()
    assert "位置" not in picked  # 没有选词元：表里是平均收到的权重
    received = [sum(float(row["权重"]) for row in rows[j::T]) / T for j in range(T)]
    table = attention.locator(".hz-table tbody td:last-child").all_text_contents()
    assert received == pytest.approx(list(map(float, table)), abs=1e-3)
    assert {row["查询词元"] for row in rows} >= {"[CLS]", "今", "[SEP]"}
    name, data = saved(opened, attention, "SVG")
    drawn = ElementTree.fromstring(data)
    tags = [node.tag.split("}")[1] for node in drawn.iter()]
    assert name.endswith(".svg") and name.isascii() and b"href" not in data and data.count(b"<style") == 1
    assert b"src:url(data:font/woff;base64," in data                         # 样式里只有字体
    assert tags.count("rect") > T * T if view == "matrix" else tags.count("path") > 20
    assert "今" in {node.text for node in drawn.iter()}
    name, data = saved(opened, attention, "PNG")
    image = matplotlib.image.imread(io.BytesIO(data), format="png")
    assert name.endswith(".png") and image.shape[1] == 2 * int(drawn.get("width"))
    assert image[0, 0, :3].min() == 1 and image[..., :3].min() < 0.5  # 白底，有墨


def test_two_models_stand_side_by_side_and_move_together(opened, compared):
    titles = compared.locator(".hz-title")
    wait(opened, lambda: titles.count() == 2)
    assert titles.all_text_contents()[0] == "三层的：层 1 · 头 2"
    left, right = (compared.locator(".hz-panel").nth(i).bounding_box() for i in (0, 1))
    assert right["x"] >= left["x"] + left["width"] and abs(right["y"] - left["y"]) < 2
    show(opened, compared, "matrix")
    before = [pixels(compared, number=i) for i in (0, 1)]
    assert before[0] != before[1]
    compared.locator(".hz-thumb").first.focus()
    compared.locator("select").nth(1).select_option("3")
    wait(opened, lambda: all("头 3" in title for title in titles.all_text_contents()))
    assert all(pixels(compared, number=i) != before[i] for i in (0, 1))
    compared.locator("select").nth(0).select_option("2")  # 第二个模型只有两层：停在最后一层
    wait(opened, lambda: "层 2 · 头 3" in titles.first.inner_text())
    assert "层 1 · 头 3" in titles.nth(1).inner_text() and "只有 2 层" in titles.nth(1).inner_text()
    picture(compared).nth(1).focus()
    opened.page.keyboard.press("End")
    wait(opened, lambda: compared.locator(".hz-query.hz-picked").count() == 2)
    assert compared.locator(".hz-table").count() == 2
    name, data = saved(opened, compared, "SVG")
    assert name == "attention-compare-layer2-head3.svg" and "三层的：".encode() in data and "两层的：".encode() in data
    compared.locator("input").fill("今天是个好日子")
    wait(opened, lambda: compared.locator(".hz-query").count() == 18)  # 两个模型都重读了


REDRAW = """async (root) => {
  const thumbs = root.querySelectorAll(".hz-thumb"), times = [];
  for (let n = 0; n < 9; n++) {
    const begun = performance.now(), old = root.querySelector(".hz-picture").firstChild;
    thumbs[(n * 17 + 5) % thumbs.length].click();
    await Promise.resolve();
    root.querySelector(".hz-picture").getBoundingClientRect();
    times.push(performance.now() - begun);
    if (root.querySelector(".hz-picture").firstChild === old) throw new Error("没有重画，量到的时间不算数");
    await new Promise((done) => setTimeout(done, 60));
  }
  return times;
}"""


@pytest.mark.parametrize("view", ["lines", "matrix"])
def test_one_of_144_heads_is_redrawn_within_100_ms(opened, large, view):
    show(opened, large, view)
    assert large.locator(".hz-thumb canvas").count() == 144
    large.locator(".hz-thumb").first.click()
    before = large.locator(".hz-picture").screenshot()
    stage.within_100_ms(opened.page, f"{view}：重画一个头", lambda: large.evaluate(REDRAW))
    assert large.locator(".hz-picture").screenshot() != before


def test_the_stepper_walks_with_the_keyboard(opened, stepper):
    picture(stepper).focus()
    opened.page.keyboard.press("Home")
    wait(opened, lambda: "第 1 步" in status(stepper))
    assert picture(stepper).locator(".hz-bar").count() == 0
    formulas = [stepper.locator(".hz-formula").inner_text()]
    for number in range(2, 6):
        opened.page.keyboard.press("ArrowRight")
        wait(opened, lambda number=number: f"第 {number} 步" in status(stepper))
        formulas.append(stepper.locator(".hz-formula").inner_text())
    assert len(set(formulas)) == 5 and "√12" in formulas[1]
    assert picture(stepper).locator(".hz-bar").count() == 21
    opened.page.keyboard.press("ArrowUp")
    wait(opened, lambda: "4 " in stepper.locator("select option:checked").inner_text())
    stepper.locator(".hz-tab").nth(1).click()
    wait(opened, lambda: "第 2 步" in status(stepper))


THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })"


def test_the_dark_theme_turns_the_scale_round_and_saves_on_white(opened, attention):
    strip = lambda: luminance(pixels(attention, ".hz-strip"))  # noqa: E731
    show(opened, attention, "matrix")
    light = pixels(attention)
    opened.page.evaluate(THEME, "JupyterLab Dark")
    try:
        wait(opened, lambda: strip()[-1] > 200 and strip()[0] < 60)  # 换了主题，不用重新运行
        assert all(b >= a for a, b in zip(strip(), strip()[1:], strict=False))
        before = pixels(attention)
        assert before != light
        _, data = saved(opened, attention, "PNG")
        image = matplotlib.image.imread(io.BytesIO(data), format="png")
        assert image[0, 0, :3].min() == 1  # 存下来的图用白底
        assert pixels(attention) == before  # 屏幕上的颜色恢复了
    finally:
        opened.page.evaluate(THEME, "JupyterLab Light")
    wait(opened, lambda: pixels(attention) == light)


def test_nothing_outside_was_asked_for_and_the_console_is_clean(opened):
    assert opened.external == []
    assert opened.errors == []
