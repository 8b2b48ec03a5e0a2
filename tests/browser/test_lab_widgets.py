"""真的 JupyterLab、真的浏览器、断网：全部运行之后，两种小部件都画得出、点得动、改得了句子。"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import lab  # noqa: E402
import tiny  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    notebook = tiny.write(tmp_path_factory.mktemp("notebook") / "tiny.ipynb")
    with lab.lab([notebook], OMP_NUM_THREADS="1") as opened:
        opened.open(notebook.name)
        opened.run_all()
        yield opened


@pytest.fixture()
def attention(opened):
    part = opened.page.locator(".hz-attention")
    part.scroll_into_view_if_needed(timeout=60_000)
    return part


@pytest.fixture()
def stepper(opened):
    part = opened.page.locator(".hz-stepper")
    part.scroll_into_view_if_needed(timeout=60_000)
    return part


def picture(part):
    return part.locator(".hz-picture")


def lines(part) -> int:
    return part.locator(".hz-picture .hz-line").count()


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
    assert opened.page.locator(".jp-OutputArea-output img").count() == 2
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
    wait(opened, lambda: attention.locator(".hz-cell").count() == 21 * 21)
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


def test_a_bad_sentence_gets_a_message_and_a_good_one_clears_it(opened, attention):
    box, error = attention.locator("input"), attention.locator(".hz-error")
    box.fill("好" * 200)
    box.press("Enter")
    wait(opened, lambda: "202 个词元" in error.inner_text())
    box.fill("")
    box.press("Enter")
    wait(opened, lambda: "空" in error.inner_text())
    box.fill("今天是个好日子")
    box.press("Enter")
    wait(opened, lambda: error.inner_text() == "" and attention.locator(".hz-query").count() == 9)


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


def test_nothing_outside_was_asked_for_and_the_console_is_clean(opened):
    assert opened.external == []
    assert opened.errors == []
