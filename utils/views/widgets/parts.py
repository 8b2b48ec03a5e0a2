"""课程各个小部件共用的零件：读脚本与样式、带上中文字体、旁边的静态图。"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import anywidget
import matplotlib.pyplot as plt
import traitlets as t
from IPython.display import display
from matplotlib.figure import Figure

from utils.display.fonts import visible
from utils.display.web_fonts import CLASS, STACK, font_face

HERE = Path(__file__).parent
MAX_SENT = 1_000_000  # 一个小部件至多送这么多字节给网页（权重、脚本、样式、字体加在一起）


@cache
def static(*names: str) -> str:
    """旁边的几个脚本或样式，依次接成一个。"""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def drawn(text: str) -> str:
    """一句话在网页上的样子：空格照旧，别的看不见的字符写成 U+XXXX、⏎。"""
    return "".join(c if c == " " else visible(c) for c in text)


class CourseWidget(anywidget.AnyWidget):
    """会画汉字的小部件：属性 font 是一段 CSS，带着页面上每个字的字形；网页那边由 common.js 的 followFont 装上。

    首次使用：self_attention。
    """

    _css = static("widgets.css")
    font = t.Unicode("").tag(sync=True)

    def carry_font(self, *texts: str) -> None:
        """让 font 含有脚本里的提示语和 texts 里的每一个字。"""
        self.font = font_face(str(self._esm) + "".join(texts))


class ChineseFont(CourseWidget):
    """看不见的小部件：让同一个盒子里 ipywidgets 的控件也有汉字可用。盒子要 add_class(utils.display.web_fonts.CLASS)，并把它放在里面。

    文字变了就再 carry_font(文字)。首次使用：tokenization。
    """

    _esm = static("common.js", "font.js")
    _css = f".{CLASS}, .{CLASS} * {{ font-family: {STACK}; }}"

    def __init__(self, *texts: str):
        super().__init__()
        self.carry_font(*texts)


def show_figure(figure: Figure) -> None:
    """显示一张图，然后关掉：notebook 不会在单元末尾再画一遍。"""
    display(figure)
    plt.close(figure)
