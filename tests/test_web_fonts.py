"""网页里的中文字体：送去的正是页面上的字，字形与课程的字体一模一样，写进样式里也安全。"""

import base64
import io
import re

import pytest
from fontTools.pens.areaPen import AreaPen
from fontTools.pens.boundsPen import BoundsPen
from fontTools.ttLib import TTFont

from utils.display import web_fonts as F
from utils.display.fonts import FONT_FILE
from utils.views.widgets.parts import static

SENTENCE = "昨天晚上，北京队以三比一战胜了上海队。"


def carried(css: str) -> TTFont:
    """规则里带着的字体。"""
    (data,) = re.findall(r"url\(data:font/woff;base64,([A-Za-z0-9+/=]+)\)", css)
    return TTFont(io.BytesIO(base64.b64decode(data, validate=True)))


def drawn(font: TTFont, char: str) -> tuple:
    """字形的宽度、外框和面积：不同的汉字几乎不会三样都相同。"""
    glyphs = font.getGlyphSet()
    glyph, area, bounds = glyphs[font.getBestCmap()[ord(char)]], AreaPen(glyphs), BoundsPen(glyphs)
    glyph.draw(area)
    glyph.draw(bounds)
    return glyph.width, bounds.bounds, pytest.approx(area.value)


def test_the_rule_carries_exactly_the_characters_and_their_shapes():
    css = F.font_face(SENTENCE + "ABC <b>123\n" + SENTENCE)
    font, original = carried(css), TTFont(FONT_FILE, lazy=True)
    wanted = set(SENTENCE)
    assert {chr(code) for code in font.getBestCmap()} == wanted
    ranges = re.findall(r"U\+([0-9A-F]+)", css[css.index("unicode-range:"):])
    assert {chr(int(code, 16)) for code in ranges} == wanted and len(ranges) == len(wanted)
    shapes = {char: drawn(font, char) for char in wanted}
    assert all(shapes[char] == drawn(original, char) for char in wanted)
    assert len({str(shape) for shape in shapes.values()}) == len(wanted)     # 都不一样，没有哪个是方框
    assert (font["hhea"].ascent, font["head"].unitsPerEm) == (original["hhea"].ascent, original["head"].unitsPerEm)


def test_what_the_font_lacks_or_the_system_surely_has_is_left_out():
    assert F.font_face("") == F.font_face("abc <script>") == F.font_face("😀\U00013000\ud800\u202e") == ""
    assert set(carried(F.font_face("好😀\ud83d日\0")).getBestCmap()) == {ord("好"), ord("日")}


def test_the_rule_is_safe_inside_a_style_and_small():
    css = F.font_face(static("attention.js", "common.js") + SENTENCE)
    assert css.isascii() and not re.search(r"[<>&\"'\\]|https?:", css)
    sample = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    n = len(carried(F.font_face(sample)).getBestCmap())
    assert n > 100 and len(F.font_face(sample)) < 220 * n + 1500            # 一个汉字约 0.2 KB，不是整份的 1.6 MB


def test_the_script_carries_the_same_font():
    script = F.font_script(SENTENCE)
    (data,) = re.findall(r'atob\("([A-Za-z0-9+/=]+)"\)', script)
    assert data in F.font_face(SENTENCE) and re.findall('unicodeRange:"([^"]*)"', script)[0] in F.font_face(SENTENCE)
    assert F.font_script("abc") == "" and not re.search("[<>\\n]", script.replace("=>", ""))


def test_html_gets_the_font_by_class():
    page = F.font_style(SENTENCE)
    assert page.startswith("<style>") and page.count("</style>") == 1 and F.font_face(SENTENCE) in page
    assert ".course-font,.course-font *{font-family:" + F.STACK in page
    assert "@font-face" not in F.font_style("abc") and F.STACK in F.font_style("abc")


def test_system_fonts_come_first_everywhere():
    assert F.STACK.startswith("system-ui,") and F.STACK.endswith(",CourseSansSC,sans-serif")
    families = re.findall(r"font: 14px/1\.5 ([^;]*);", static("widgets.css"))
    assert families == [F.STACK]


def test_a_missing_font_file_is_told_in_chinese(monkeypatch, tmp_path):
    monkeypatch.setattr(F, "FONT_FILE", tmp_path / "gone.otf")
    for cached in (F._source, F._encoded):
        cached.cache_clear()
    try:
        with pytest.raises(FileNotFoundError, match="找不到中文字体文件 gone.otf"):
            F.font_face("好")
    finally:
        F._source.cache_clear()
