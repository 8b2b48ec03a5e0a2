"""小操场：一个文本框，写一句话按回车，就用给定的函数画图。图是 PNG，错误和函数打印的话（例如哪个字不在词表里）写在框下。"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from html import escape

from ipywidgets import HTML, Image, Layout, Text, VBox
from matplotlib.figure import Figure

from utils.display.plotting import figure_png
from utils.display.web_fonts import CLASS
from utils.views.widgets.parts import ChineseFont, drawn

MAX_CHARS = 400


def figure_playground(draw: Callable[[str], Figure], text: str, description: str) -> VBox:
    """文本框、错误信息和图。写在单元格最后一行就会显示。首次使用：mlm_pretraining。

    参数：draw：文字 -> Figure；文字不合适时抛出 ValueError，说明会显示在框下，它打印的话也是；text：一开始的文字；description：框前的字。
    返回：VBox，children 依次是文本框、错误信息（HTML，内容已转义）、图片、字体。
    写得太长、有半个字符、或者 draw 出了别的错，都只在框下说明，图保持原样。
    """
    box = Text(value=text, continuous_update=False, description=description, layout=Layout(width="90%"))
    picture, message, font = Image(format="png"), HTML(), ChineseFont(description)

    def refresh(change=None) -> None:
        said, printed = "", io.StringIO()                                 # 回调里打印的话没有单元格可去，不接住就丢了
        try:
            if len(box.value) > MAX_CHARS:
                raise ValueError(f"这句话有 {len(box.value)} 个字符，这里最多 {MAX_CHARS} 个：请写短一些。")
            box.value.encode()
            with redirect_stdout(printed):
                picture.value = figure_png(draw(box.value))
        except UnicodeError:
            said = "句子里有半个字符（不成对的代理码），不是合法的文字：请删掉它再试。"
        except ValueError as problem:
            said = str(problem)
        except Exception as problem:  # 别的错也要让人看见，否则网页上只是没有反应
            said = f"画不出来（{type(problem).__name__}）：{problem}"
        lines = [drawn(line) for line in f"{printed.getvalue()}\n{said}".splitlines() if line]
        font.carry_font(description, box.value, *lines)
        message.value = "<br>".join(map(escape, lines))

    box.observe(refresh, "value")
    refresh()
    whole = VBox([box, message, picture, font])
    whole.add_class(CLASS)
    return whole
