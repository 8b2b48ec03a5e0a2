"""表：终端里的（汉字占两列，补空格时要算进去）和网页里的。只是铺路石（plumbing）。"""

import html
import unicodedata
from collections.abc import Iterable, Sequence


def width(text: str) -> int:
    """终端里占几列：汉字和全角标点占两列。"""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int, right: bool = False) -> str:
    """补空格到 columns 列；right 为 True 时靠右。"""
    gap = " " * max(0, columns - width(text))
    return gap + text if right else text + gap


def show_table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = ""):
    """notebook 里的一张表：第一列靠左，其余靠右；格子里的文字都转义。

    参数：
        header: 各列的名字。
        rows: 一行一行的格子，str() 之后放进去。
        caption: 表的标题。
    返回：
        IPython 的 HTML；放在一格的最后一行就会显示。
    异常：
        ValueError: 有一行的格数与 header 不同。
    """
    from IPython.display import HTML

    lines = [f"<caption>{html.escape(caption)}</caption>"] if caption else []
    for tag, cells in [("th", header), *(("td", row) for row in rows)]:
        if len(cells) != len(header):
            raise ValueError(f"这一行有 {len(cells)} 格，表头却有 {len(header)} 格：{list(cells)}")
        styled = (f'<{tag} style="text-align:{"right" if i else "left"}">{html.escape(str(cell))}</{tag}>'
                  for i, cell in enumerate(cells))
        lines.append(f"<tr>{''.join(styled)}</tr>")
    return HTML("<table>" + "\n".join(lines) + "</table>")
