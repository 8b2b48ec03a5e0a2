"""看词元：转义、标签、静态图。"""

import html
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pytest

from utils.display.plotting import use_chinese_font
from utils.tokenization.tokenizer import GRANULARITIES, build_tokenizer
from utils.views.figures.tokens import MAX_CHARS, count_tokens, draw_tokens, token_pieces, token_playground, tokens_html

TEXTS = ["今天是个好天气，杭州队战胜了上海队。<script>alert(1)</script>\"'&"] * 4
NASTY = "今天<script>alert(1)</script><img src=x onerror='a()'>&\"' onmouseover=\"b()"


@pytest.fixture(scope="module")
def tokenizers():
    return {name: build_tokenizer(name, TEXTS) for name in GRANULARITIES}


class Tags(HTMLParser):
    """记下遇到的标签和属性名；要是有脚本混进来，就会出现在这里。"""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.classes = set(), set(), 0

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.classes += dict(attrs).get("class") == "course-tok"


def test_learner_text_is_escaped(tokenizers):
    parser = Tags()
    parser.feed(tokens_html(tokenizers, NASTY))
    assert parser.tags == {"style", "div", "b", "br", "span", "small"}
    assert parser.attributes == {"role", "aria-label", "style", "class", "tabindex", "title", "data-tip"}


def test_token_spelled_by_the_vocabulary_is_escaped():
    tok = build_tokenizer("bpe", ["x</b><script>" * 3])
    tok.add_tokens(["<script>"])
    parser = Tags()
    page = tokens_html({"<i>": tok}, "x<script>")
    parser.feed(page)
    assert not {"script", "i"} & parser.tags
    assert "&lt;script&gt;<small>" in page  # 合并成一块的也转义


def test_every_token_has_a_focusable_box(tokenizers):
    parser = Tags()
    page = tokens_html(tokenizers, "今天𠮷，a b")
    parser.feed(page)
    total = sum(len(token_pieces(tok, "今天𠮷，a b")) for tok in tokenizers.values())
    assert parser.classes == total == page.count('tabindex="0"') == page.count("title=")
    assert "background:#" in page and "border-color:#" in page
    assert "http" not in page


@pytest.mark.parametrize("name", GRANULARITIES)
def test_pieces_carry_the_bytes_of_the_text(tokenizers, name):
    text = "今天[SEP] 𠮷，é\n上海队<0x41>"
    pieces = token_pieces(tokenizers[name], text)
    whole = text if name != "bert" else "".join(text.split())              # BERT 的切法丢掉空白
    assert b"".join(piece.data for piece in pieces) == whole.encode()
    assert all(piece.id not in (0, 2, 3, 4) for piece in pieces)
    assert str(len(pieces[0].data)) in pieces[0].tip


def test_labels(tokenizers):
    labels = [piece.label for piece in token_pieces(tokenizers["byte"], "今 \nA")]
    assert labels == ["E4", "BB", "8A", "␣", "⏎", "A"]
    assert [p.label for p in token_pieces(tokenizers["char"], "今龘\u202e[UNK]")][:3] == ["今", "[UNK]龘", "[UNK]U+202E"]
    assert [p.label for p in token_pieces(tokenizers["wordpiece"], "今天龘是")] == ["[UNK]今天…"]
    assert [p.label for p in token_pieces(tokenizers["word"], "今天龘")] == ["今天", "E9", "BE", "98"]


def test_long_and_empty_text(tokenizers):
    char = {"char": tokenizers["char"]}
    page = tokens_html(char, "今" * (MAX_CHARS + 50))
    assert page.count("course-tok\"") == MAX_CHARS and f"一共 {MAX_CHARS + 50} 个" in page
    assert "0 个词元" in tokens_html(char, "")
    plt.close(draw_tokens(char, ""))


def test_playground_follows_the_text(tokenizers):
    box = token_playground({"char": tokenizers["char"]}, "今天")
    field, view, _ = box.children
    field.value = "<b>队"
    assert html.escape("<") + "<small>" in view.value and view.value.count("course-tok\"") == 4


def test_picture_has_every_token_and_no_missing_glyph(tokenizers):
    use_chinese_font()  # 缺字形的警告会变成错误
    text = "今天😀𠮷 $x$ 队"
    figure = draw_tokens({"char": tokenizers["char"], "byte": tokenizers["byte"]}, text)
    figure.canvas.draw()
    drawn = [item.get_text() for item in figure.axes[0].texts]
    assert len(drawn) == 2 + len(text) + len(text.encode())
    assert drawn[0] == "字：10 个词元" and "$" in drawn
    assert not any(item.get_parse_math() for item in figure.axes[0].texts[1:11])  # $x$ 不是公式
    plt.close(figure)
    figure = draw_tokens({"char": build_tokenizer("char", ["𪚥"])}, "𪚥")
    figure.canvas.draw()
    assert [item.get_text() for item in figure.axes[0].texts] == ["字：1 个词元", "U+2A6A5"]
    plt.close(figure)


def test_counts_appear_on_hover(tokenizers):
    """悬停时看得到次数：与直接数的相同；没出现过的是 0；没给 counts 就不写。"""
    counts = count_tokens(tokenizers, TEXTS)
    assert counts["char"][tokenizers["char"].convert_tokens_to_ids("队")] == 4 * TEXTS[0].count("队")
    assert sum(counts["byte"].values()) == sum(len(text.encode()) for text in TEXTS)
    page = tokens_html({"char": tokenizers["char"]}, "队龘", counts)
    assert page.count("训练文本里出现 8 次") == 2 and page.count("训练文本里出现 0 次") == 2     # title 与 data-tip 各一次
    assert "训练文本里" not in tokens_html({"char": tokenizers["char"]}, "队龘")
    box = token_playground({"char": tokenizers["char"]}, "今", counts)
    box.children[0].value = "队"
    assert "训练文本里出现 8 次" in box.children[1].value


def test_half_a_character_does_not_break_the_playground(tokenizers):
    page = tokens_html(tokenizers, "今\ud83d天")
    assert "EF BF BD" in page and "\ud83d" not in page
