"""中文字体子集：在没有中文字体的机器上，图里的汉字也不会变成方框；画不出的字符，写成看得懂的样子。

来源：Noto Sans CJK SC(Google 与 Adobe，SIL OFL 1.1)。子集改名为 CourseSansSC，许可证在 data/fonts/OFL.txt。
子集由 tools/fonts.py 重做。
"""

from __future__ import annotations

import unicodedata
from functools import cache

import matplotlib.pyplot as plt
from matplotlib import font_manager

from utils.paths import DATA

FAMILY = "CourseSansSC"
FONT_FILE = DATA / "fonts" / "CourseSansSC-Regular.otf"


def visible(token: str) -> str:
    """让看不见的字符看得见：空格写成 ␣,换行写成 ⏎,控制符与方向符写成 U+XXXX。"""
    known = {" ": "␣", "\n": "⏎", "\t": "⇥", "\u3000": "␣"}
    hidden = ("Cc", "Cf", "Co", "Cs")
    return "".join(known.get(c, f"U+{ord(c):04X}" if unicodedata.category(c) in hidden else c) for c in token)


@cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    codes: set[int] = set()
    for family in families:
        font = font_manager.get_font(font_manager.findfont(family, fallback_to_default=True))
        codes |= set(font.get_charmap())
    return frozenset(codes)


def printable(token: str) -> str:
    """matplotlib 画得出的样子：看不见的字符先 visible，字体里没有的字写成 U+XXXX。"""
    glyphs = _glyphs(tuple(plt.rcParams["font.family"]))
    return "".join(c if ord(c) in glyphs else f"U+{ord(c):04X}" for c in visible(token))
