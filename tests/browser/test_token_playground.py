"""分词游乐场：真的 JupyterLab 与 Notebook 7、真的浏览器、断网。打字就重切，悬停和键盘都看得到说明，学习者的文字不会变成网页。"""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

sys.path.insert(0, str(Path(__file__).parent))

import lab  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")

CODE = '''import sys; sys.path.insert(0, "..")
from utils.views.figures.tokens import count_tokens, token_playground
from utils.tokenization import GRANULARITIES, build_tokenizer
texts = ["今天是个好天气，杭州队战胜了上海队。今天杭州的天气好。"] * 4
tokenizers = {name: build_tokenizer(name, texts) for name in GRANULARITIES}
token_playground(tokenizers, "今天", count_tokens(tokenizers, texts))'''


@pytest.fixture(scope="module", params=["lab", "notebook"])
def opened(request, tmp_path_factory):
    if reason := lab.why_not(request.param):
        pytest.skip(f"跳过浏览器测试：{reason}")
    book = new_notebook(cells=[new_code_cell(CODE)])
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = tmp_path_factory.mktemp("notebook") / "playground.ipynb"
    nbformat.write(book, path)
    with lab.lab([path], app=request.param, OMP_NUM_THREADS="1") as opened:
        opened.open(path.name)
        if request.param == "notebook":                                   # Notebook 7 自己的错，与小部件无关
            opened.page.wait_for_timeout(3000)
            opened.errors.clear()
        opened.run_all()
        opened.page.wait_for_selector(".course-tok")
        yield opened


def field(opened):
    return opened.page.locator(".widget-text input")


def boxes(opened, row: int):
    return opened.page.locator('.widget-html div[role="group"]').nth(row).locator(".course-tok")


def wait_for_text(opened, text: str) -> None:
    opened.page.wait_for_function("text => document.querySelector('.widget-html').textContent.includes(text)", arg=text, timeout=60_000)


def tip(opened) -> str:
    """键盘焦点所在的方块弹出的说明；没有就是空串。"""
    return opened.page.evaluate("() => getComputedStyle(document.activeElement, '::after').content")


def test_typing_cuts_again_in_every_row(opened):
    field(opened).fill("今天龘")
    opened.page.wait_for_function("() => document.querySelectorAll('.widget-html .course-tok').length > 20")
    assert boxes(opened, 0).count() == 9 and boxes(opened, 2).all_inner_texts()[2].startswith("[UNK]")
    assert opened.page.locator('.widget-html div[role="group"]').count() == 8


def test_hover_and_keyboard_show_id_bytes_and_count(opened):
    field(opened).fill("今天")
    wait_for_text(opened, "2 个字符，6 个字节")
    title = boxes(opened, 2).nth(0).get_attribute("title")
    assert "编号" in title and "E4 BB 8A" in title and "训练文本里出现 8 次" in title
    field(opened).focus()
    assert "编号" not in tip(opened)
    opened.page.keyboard.press("Tab")                                     # 从文本框走到第一个方块，再走一个
    assert "字节 E4（1 个）" in tip(opened)
    opened.page.keyboard.press("Tab")
    assert "字节 BB（1 个）" in tip(opened)
    colors = {boxes(opened, 0).nth(i).evaluate("e => getComputedStyle(e).backgroundColor") for i in range(3)}
    assert len(colors) == 3                                               # 相邻的方块颜色不同
    opened.page.keyboard.press("Shift+Tab")
    opened.page.keyboard.press("Shift+Tab")
    opened.page.keyboard.press("End")                                     # 回到文本框时文字是全选的
    opened.page.keyboard.type("队")                                        # 接着打字
    wait_for_text(opened, "3 个字符，9 个字节")


def test_markup_stays_text(opened):
    field(opened).fill("<img src=x onerror=\"document.title='坏了'\"><b>")
    opened.page.wait_for_function("() => document.querySelectorAll('.widget-html .course-tok').length > 100")
    assert opened.page.locator(".widget-html img").count() == 0
    assert opened.page.title() != "坏了"


def test_offline_and_without_errors(opened):
    assert opened.external == [] and opened.errors == [] and opened.cell_errors() == []
