"""tokenization 与 mlm_pretraining 的小操场：怪文字画得出或说得清，送给网页的不超过 1 MB，带着看得到的每个字的字体。"""

import re
import time
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest
from test_web_fonts import carried
from test_widgets import LIVE_TEXTS, sent_bytes

from utils.display.plotting import use_chinese_font
from utils.tokenization.tokenizer import GRANULARITIES, build_tokenizer
from utils.views.figures.tokens import MAX_CHARS, token_playground
from utils.views.widgets.parts import MAX_SENT
from utils.views.widgets.playground import figure_playground

IDS = ["script", "end", "quotes", "rtl", "emoji", "nul", "half", "long"]
TEXT = "今天是个好日子，杭州队战胜了上海队。"


def all_bytes(box) -> int:
    return sent_bytes(box) + sum(all_bytes(child) if hasattr(child, "children") else sent_bytes(child) for child in box.children)


def seen(box) -> str:
    """页面上看得到的文字：文本框、说明和 HTML 里的字。"""
    field, page = box.children[0], next(child for child in box.children[1:] if "HTML" in type(child).__name__)
    return field.description + field.value + re.sub("<[^>]*>", "", page.value)


def fonts_cover(box) -> None:
    shown = {char for char in seen(box) if 0x4E00 <= ord(char) < 0x9FA6}
    assert shown <= {chr(code) for code in carried(box.children[-1].font).getBestCmap()} and shown
    assert "course-font" in box._dom_classes


def bar(text: str):
    if "好" not in text:
        raise ValueError("<b>没有</b>「好」字。")
    if "除" in text:
        raise ZeroDivisionError("<i>零</i>")
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.bar([0], [len(text)])
    return figure


@pytest.fixture(scope="module", autouse=True)
def chinese_font():
    use_chinese_font()


def test_the_figure_follows_the_text_and_problems_are_told_beside_it():
    box = figure_playground(bar, "好", "填空：")
    field, message, picture, _ = box.children
    before = bytes(picture.value)
    assert before.startswith(b"\x89PNG") and message.value == ""
    field.value = "好日子"
    assert bytes(picture.value).startswith(b"\x89PNG") and picture.value != before and message.value == ""
    fonts_cover(box)
    kept = picture.value
    for text, said in (("坏", "&lt;b&gt;没有&lt;/b&gt;「好」字。"), ("好除", "画不出来（ZeroDivisionError）：&lt;i&gt;零"),
                       ("好\ud83d", "半个字符"), ("好" * 10_000, "这句话有 10000 个字符，这里最多 400 个")):
        field.value = text
        assert said in message.value and picture.value == kept
    fonts_cover(box)
    field.value = "好日子"
    assert message.value == "" and not plt.get_fignums()


@pytest.mark.parametrize("text", LIVE_TEXTS, ids=IDS)
def test_hostile_text_in_the_figure_playground(text):
    box = figure_playground(bar, "好", "填空：")
    box.children[0].value = text
    page = box.children[1].value
    assert "<" not in page and (page or text.count("好"))
    assert re.search("[一-龥]", page) or not page
    assert all_bytes(box) < MAX_SENT


@pytest.fixture(scope="module")
def tokenizers():
    return {name: build_tokenizer(name, [TEXT] * 4) for name in GRANULARITIES}


@pytest.mark.parametrize("text", LIVE_TEXTS, ids=IDS)
def test_hostile_text_in_the_token_playground(tokenizers, text):
    tags = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.add(tag) or tags.update(name for name, _ in attrs if name.startswith("on"))
    box = token_playground(tokenizers, TEXT)
    box.children[0].value = text
    parser.feed(box.children[1].value)
    assert tags <= {"style", "div", "b", "br", "span", "small", "p"}
    assert all_bytes(box) < MAX_SENT


def test_the_token_playground_is_small_quick_and_carries_its_font(tokenizers):
    box = token_playground(tokenizers, TEXT)
    fonts_cover(box)
    box.children[0].value = (TEXT + "北京晚上三比一") * 20                      # 比能画的还长
    times = []
    for n in range(5):
        began = time.perf_counter()
        box.children[0].value = f"{n}" + TEXT
        times.append(time.perf_counter() - began)
    assert sorted(times)[2] < 1.0                                            # 停手就变；这里连机器很忙的时候也算上
    box.children[0].value = "天" * MAX_CHARS
    assert all_bytes(box) < MAX_SENT
    fonts_cover(box)
