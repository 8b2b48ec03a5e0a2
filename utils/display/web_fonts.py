"""网页里的中文字体：没有中文字体的机器，断网时小部件和 bertviz 的框里也不出方框。

办法：先用系统自己的字体；系统里没有的字，用随页面送去的一小份字体，只含页面上写着的那些字（一个汉字约 0.1 KB）。
整份字体（data/fonts/，1.6 MB，来源与许可证见 utils.display.fonts）太大，不能跟着每张图走。

怎样用：小部件继承 utils.views.widgets.parts.CourseWidget，ipywidgets 的盒子里放一个 ChineseFont，静态的 HTML 用 font_style，
整个网页用 font_script。一个页面里可以有许多份，各管各的字，互不覆盖；要添新的字，再添一份就行。
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache, lru_cache

from utils.display.fonts import FAMILY, FONT_FILE

SYSTEM = ("system-ui", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC",
          "WenQuanYi Micro Hei")
STACK = ",".join([*(f"'{name}'" if " " in name else name for name in SYSTEM), FAMILY, "sans-serif"])
CLASS = "course-font"


def font_face(text: str) -> str:
    """一条 @font-face 规则，字体就写在规则里，只含 text 里出现的字。首次使用：self_attention。

    参数：text：页面上会出现的文字，多写无妨：重复的字、ASCII、字体里没有的字都不算。
    返回：CSS；没有要带的字就是空串。全是 ASCII，没有引号、尖括号和外部地址，可以直接写进 <style> 或 SVG。
    错误：FileNotFoundError：找不到 data/fonts/ 里的字体文件。
    """
    data, ranges = _parts(text)
    rule = f"font-family:{FAMILY};src:url(data:font/woff;base64,{data}) format(woff);unicode-range:{ranges}"
    return f"@font-face{{{rule}}}" if data else ""


def font_script(text: str) -> str:
    """一段 JavaScript，作用同 font_face，放在网页开头；字体马上就能用，不像 CSS 里的要等一会儿。参数、错误同 font_face。"""
    data, ranges = _parts(text)
    face = f'new FontFace("{FAMILY}",Uint8Array.from(atob("{data}"),c=>c.charCodeAt(0)),{{unicodeRange:"{ranges}"}})'
    return f"document.fonts.add({face})" if data else ""


def font_style(text: str) -> str:
    """一个 <style>：除了 font_face(text)，还让类名是 CLASS 的元素（连同里面的一切）都用 STACK。

    给静态的 HTML 输出用：元素写 class="course-font"。小部件用 utils.views.widgets.parts。参数、错误同 font_face。
    """
    return f"<style>{font_face(text)}.{CLASS},.{CLASS} *{{font-family:{STACK}}}</style>"


def _parts(text: str) -> tuple[str, str]:
    """（字体的 base64，unicode-range 的值），只含 text 里的非 ASCII 字；一个也没有就都是空串。"""
    return _encoded("".join(sorted({char for char in text if ord(char) > 0x7F})))


@lru_cache(maxsize=64)
def _encoded(chars: str) -> tuple[str, str]:
    codes = [ord(char) for char in chars if ord(char) in _source()[1]]
    if not codes:
        return "", ""
    return base64.b64encode(subset_font(codes)).decode("ascii"), ",".join(f"U+{code:X}" for code in codes)


@cache
def _source():
    """(打开的字体，{码点：字形名}，字形集)。只打开一次，字形用到才读。"""
    from fontTools.ttLib import TTFont  # 用到才导入

    if not FONT_FILE.exists():
        raise FileNotFoundError(f"找不到中文字体文件 {FONT_FILE.name}：它应当在 {FONT_FILE.parent}，请重新下载课程。")
    font = TTFont(FONT_FILE, lazy=True)
    return font, font.getBestCmap(), font.getGlyphSet()


@cache
def _outline(glyph: str):
    """一个字形的轮廓（去掉子程序，自成一体）与宽度。"""
    from fontTools.pens.t2CharStringPen import T2CharStringPen

    shape = _source()[2][glyph]
    pen = T2CharStringPen(shape.width, None)
    shape.draw(pen)
    return pen.getCharString(), shape.width


def subset_font(codes: Sequence[int]) -> bytes:
    """只含这些码点的字体（WOFF，字身尺寸同原字体）。参数：codes：码点，字体里都要有，否则 KeyError。"""
    from fontTools.fontBuilder import FontBuilder

    font, cmap, _ = _source()
    names = {code: f"u{code:X}" for code in codes}
    shapes = {".notdef": _outline(".notdef"), **{name: _outline(cmap[code]) for code, name in names.items()}}
    made, head, hhea, os2 = FontBuilder(font["head"].unitsPerEm, isTTF=False), font["head"], font["hhea"], font["OS/2"]
    made.font["head"].xMin, made.font["head"].yMin = head.xMin, head.yMin
    made.font["head"].xMax, made.font["head"].yMax = head.xMax, head.yMax
    made.setupGlyphOrder(list(shapes))
    made.setupCharacterMap(names)
    made.setupCFF(FAMILY, {"FullName": FAMILY}, {name: shape for name, (shape, _) in shapes.items()}, {})
    made.setupHorizontalMetrics({name: (width, 0) for name, (_, width) in shapes.items()})
    made.setupHorizontalHeader(ascent=hhea.ascent, descent=hhea.descent)
    made.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    made.setupOS2(sTypoAscender=os2.sTypoAscender, sTypoDescender=os2.sTypoDescender,
                  usWinAscent=os2.usWinAscent, usWinDescent=os2.usWinDescent)
    made.setupPost(keepGlyphNames=False)
    made.font.flavor = "woff"
    file = io.BytesIO()
    made.font.save(file)
    return file.getvalue()
