"""写作台，在真的 JupyterLab 与 Notebook 7、真的浏览器里，断网：写、停、改写、键盘、读屏、怪字、出错。"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import lab  # noqa: E402
import tiny  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")


@pytest.fixture(scope="module", params=["lab", "notebook"])
def opened(request, tmp_path_factory):
    if reason := lab.why_not(request.param):
        pytest.skip(f"跳过浏览器测试：{reason}")
    notebook = tiny.write_studio(tmp_path_factory.mktemp("notebook") / "studio.ipynb")
    with lab.lab([notebook], app=request.param, OMP_NUM_THREADS="1") as opened:
        opened.open(notebook.name)
        if request.param == "notebook":                               # Notebook 7 打开时自己会报一个错，与写作台无关
            opened.page.wait_for_timeout(3000)
            opened.errors.clear()
        opened.run_all()
        yield opened


@pytest.fixture()
def studio(opened):
    part = opened.page.locator(".hz-studio")
    part.scroll_into_view_if_needed(timeout=60_000)
    return part


def wait(opened, what, seconds: float = 40) -> None:
    for _ in range(int(10 * seconds)):
        if what():
            return
        opened.page.wait_for_timeout(100)
    raise AssertionError(f"等了 {seconds} 秒，写作台没有变")


def chars(studio) -> str:
    return "".join(studio.locator(".hz-char").all_text_contents())


def spoken(studio) -> str:
    return studio.locator(".hz-live").text_content()


def running(studio) -> bool:
    return studio.locator(".hz-article").get_attribute("aria-busy") == "true"


def press_write(opened, studio, text: str | None = None) -> str:
    """换开头（可省），按「写」，等写完，返回写下的字。"""
    if text is not None:
        studio.locator("textarea").evaluate("(box, text) => { box.value = text; }", text)
    studio.locator('[data-do="write"]').click()
    wait(opened, lambda: spoken(studio).startswith(("写完了", "停下了")) or studio.locator(".hz-error").inner_text())
    return chars(studio)


SHORT = 40                                                           # 写这么多字就够看的：整篇要写十几秒


def slide(studio, name: str, value: float) -> None:
    studio.locator(f'[data-name="{name}"]').evaluate(
        "(bar, value) => { bar.value = value; bar.dispatchEvent(new Event('input')); bar.dispatchEvent(new Event('change')); }", value)


def test_it_writes_one_character_after_another_with_bars_at_each_step(opened, studio):
    assert opened.cell_errors() == [] and studio.count() == 1
    seen = set()
    studio.locator('[data-do="write"]').click()
    for _ in range(400):
        seen.add(studio.locator(".hz-char").count())
        if spoken(studio).startswith(("写完了", "停下了")):
            break
        opened.page.wait_for_timeout(30)
    total = studio.locator(".hz-char").count()
    assert total > 20 and len(seen) > 8                               # 一个字一个字出来，不是一下子
    assert studio.locator(".hz-candidate").count() == 8
    widths = studio.locator(".hz-fill").evaluate_all("all => all.map(x => parseFloat(x.style.width))")
    assert widths == sorted(widths, reverse=True) and sum(widths) <= 100.5
    assert studio.locator(".hz-written").count() == 1
    assert opened.errors == [] and opened.external == []


def test_facts_are_green_or_red_and_carry_a_sign(opened, studio):
    slide(studio, "temperature", 0)
    press_write(opened, studio)
    kept, wrong = studio.locator(".hz-kept").count() - 1, studio.locator(".hz-wrong").count() - 1    # 图例里各有一个
    assert kept + wrong >= 1
    signs = "".join(studio.locator(".hz-article .hz-sign").all_text_contents())
    assert signs.count("✓") == kept and signs.count("✗") == wrong == studio.locator(".hz-should").count()
    assert f"守住 {kept} 处" in studio.locator(".hz-verdict").inner_text() or kept != 0
    color = studio.locator(".hz-article .hz-kept").first.evaluate("x => getComputedStyle(x).color")
    assert color == "rgb(0, 102, 75)"


def test_sliders_change_what_is_written_and_the_same_seed_repeats(opened, studio):
    slide(studio, "length", SHORT)
    slide(studio, "temperature", 1.2)
    assert "1.2" in studio.locator('[data-name="temperature"]').get_attribute("aria-valuetext")
    slide(studio, "seed", 3)
    first = press_write(opened, studio)
    assert press_write(opened, studio) == first
    slide(studio, "seed", 4)
    assert press_write(opened, studio) != first
    slide(studio, "top_k", 1)
    with_one = press_write(opened, studio)
    slide(studio, "temperature", 0)
    assert press_write(opened, studio) == with_one                    # top-k = 1 就是贪心
    slide(studio, "top_k", 0)
    slide(studio, "length", 10)
    press_write(opened, studio)
    assert studio.locator(".hz-char").count() == 10 and "停下了" in spoken(studio)
    slide(studio, "length", 200)


def test_the_arrow_keys_move_a_slider(opened, studio):
    bar = studio.locator('[data-name="top_p"]')
    bar.focus()
    before = float(bar.input_value())
    opened.page.keyboard.press("ArrowLeft")
    assert float(bar.input_value()) == pytest.approx(before - 0.05)
    opened.page.keyboard.press("ArrowRight")
    assert float(bar.input_value()) == pytest.approx(before)


def test_stop_interrupts_and_going_on_finishes_the_same_article(opened, studio):
    slide(studio, "length", SHORT)
    slide(studio, "temperature", 0.8)
    slide(studio, "seed", 7)
    whole = press_write(opened, studio)
    for how in ("button", "Escape"):
        studio.locator('[data-do="write"]').click()
        wait(opened, lambda: 3 < studio.locator(".hz-char").count() < len(whole) and running(studio))
        if how == "button":
            studio.locator('[data-do="stop"]').click()
        else:
            studio.locator(".hz-article").focus()
            opened.page.keyboard.press("Escape")
        wait(opened, lambda: not running(studio))
        written = chars(studio)
        opened.page.wait_for_timeout(700)
        assert chars(studio) == written and whole.startswith(written) and len(written) < len(whole)
        assert studio.locator('[data-do="stop"]').inner_text() == "接着写"
        studio.locator('[data-do="stop"]').click()
        wait(opened, lambda: chars(studio) == whole and not running(studio))


def test_branching_with_the_keyboard_alone(opened, studio):
    slide(studio, "length", SHORT)
    before = press_write(opened, studio)
    cells = opened.page.locator(".jp-Notebook .jp-Cell").count()
    studio.locator(".hz-article").focus()
    keys = opened.page.keyboard
    keys.press("Home")
    wait(opened, lambda: spoken(studio).startswith("第 1 步"))
    for _ in range(3):
        keys.press("ArrowRight")
    wait(opened, lambda: spoken(studio).startswith("第 4 步") and "候选" in spoken(studio))
    assert studio.locator(".hz-now").get_attribute("data-step") == "3"
    keys.press("ArrowDown")
    names = studio.locator(".hz-candidate").evaluate_all("all => all.map(x => x.dataset.token)")
    want = next(i for i, name in enumerate(names) if name not in (before[3], "[SEP]"))
    for _ in range(want):
        keys.press("ArrowDown")
    label = opened.page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert names[want] in label and "模型的概率" in label and "抽中的机会" in label
    keys.press("Enter")
    wait(opened, lambda: spoken(studio).startswith(("写完了", "停下了")))
    after = chars(studio)
    assert after[:3] == before[:3] and after[3] == names[want] and len(after) > 4
    assert studio.locator(".hz-mine").get_attribute("data-step") == "3"
    assert opened.page.evaluate("document.activeElement.classList.contains('hz-article')")      # 焦点没有丢
    assert opened.page.locator(".jp-Notebook .jp-Cell").count() == cells
    keys.press("b")                                                   # JupyterLab 里「在下面加一格」的快捷键
    opened.page.wait_for_timeout(400)
    assert opened.page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_clicking_a_character_and_then_a_bar_branches(opened, studio):
    slide(studio, "length", SHORT)
    before = press_write(opened, studio)
    studio.locator('.hz-char[data-step="5"]').click()
    wait(opened, lambda: studio.locator(".hz-now").get_attribute("data-step") == "5")
    assert studio.locator(".hz-title").inner_text() == "第 6 步的候选"
    other = studio.locator(".hz-candidate:not(.hz-written)").first
    token = other.get_attribute("data-token")
    other.click()
    wait(opened, lambda: spoken(studio).startswith(("写完了", "停下了")))
    assert chars(studio)[:5] == before[:5] and chars(studio)[5:].startswith("完" if token == "[SEP]" else token)


# 画成文字，或者说清楚为什么不行；而且没有变成网页的一部分
HOSTILE = {"script": "<script>alert(1)</script>", "tag": "</textarea><img src=x onerror=alert(1)>", "quotes": "\"'`{{}}${1}\\\\",
           "rtl": "今天\u202e好日子", "emoji": "好日子😀👩‍👩‍👧🇨🇳",
           "nul": "今\0天", "half": "好\ud83d日", "long": "好" * 10_000, "empty": "  "}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_openings_are_drawn_as_text_or_refused(opened, studio, name):
    slide(studio, "length", 5)
    text = HOSTILE[name]
    studio.locator("textarea").evaluate("(box, text) => { box.value = text; }", text)
    studio.locator('[data-do="write"]').click()
    wait(opened, lambda: spoken(studio).startswith(("写完了", "停下了")) or studio.locator(".hz-error").inner_text())
    error, shown = studio.locator(".hz-error").inner_text(), studio.locator(".hz-article").inner_text()
    if name in ("long", "empty"):
        assert ("个位置" if name == "long" else "提示是空的") in error
    else:
        assert error == "" and studio.locator(".hz-char").count() == 5
        assert "\u202e" not in shown and "\0" not in shown
        if name in ("script", "tag", "quotes"):
            assert text in studio.locator(".hz-article").text_content()
    assert studio.locator("script, img, iframe, style").count() == 0
    assert opened.errors == []


def test_a_screen_reader_gets_names_values_and_the_outcome(opened, studio):
    slide(studio, "length", SHORT)
    press_write(opened, studio, "今天是个")
    tree = studio.aria_snapshot()
    for words in ("温度", "top-k", "top-p", "最多几个字", "种子", "重写", "模型的概率"):
        assert words in tree
    assert studio.locator(".hz-article").get_attribute("aria-label").startswith("今天是个")
    assert spoken(studio).startswith(("写完了", "停下了")) and studio.locator(".hz-verdict").inner_text() in spoken(studio)
    focusable = studio.locator("textarea, input, button:not(:disabled), [tabindex]").count()
    assert focusable >= 1 + 5 + 1 + 1 + 8


def test_a_second_view_and_python_see_the_same_article(opened, studio):
    """重新显示同一个写作台（例如滚走再滚回来）：写过的都在。"""
    before = press_write(opened, studio)
    assert before
    opened.page.evaluate("""() => { const view = window.jupyterapp.shell.currentWidget.content;
      view.widgets[view.widgets.length - 1].model.sharedModel.setSource('studio'); view.activeCellIndex = view.widgets.length - 1; }""")
    opened.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell').then(() => true)")
    wait(opened, lambda: opened.page.locator(".hz-studio").count() == 1 and chars(opened.page.locator(".hz-studio")) == before)
    assert opened.errors == [] and opened.external == []
