"""把守住和写错的事实在正文里标出来：绿色带 ✓，红色带 ✗ 和应有的值，不靠颜色也看得懂。

首次使用：generation。事实的核对在 utils.corpus.facts；学习者写的字和模型写的字进入网页之前都经过转义。
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from utils.corpus.facts import FactReport, check_facts

GREEN = "color:#00664b;font-weight:700;border-bottom:2px solid #009e73"
RED = "color:#a33c00;font-weight:700;border-bottom:2px wavy #d55e00"
PAGE = "max-width:46em;line-height:1.9;"


@dataclass(frozen=True)
class Mark:
    """正文 body[start:end] 是一处事实；expected 是 None 表示守住了，否则是应有的值。"""

    start: int
    end: int
    expected: str | None


def fact_marks(body: str, report: FactReport) -> list[Mark]:
    """事实在正文的哪里，按先后排好，互不重叠。

    参数：body: 正文；report: check_facts（导语， 正文） 的结果。返回：Mark 的列表。
    局限：按值找位置。写错的值若在别处恰好又出现（例如「10 个」写错，文中还有「10 时」），那一处也会算写错。
    首次使用：generation。
    """
    wrong = {written: expected for _, expected, written in report.contradicted}
    kept = {value for _, value in report.kept} - set(wrong)
    values = [value for value in sorted(kept | set(wrong), key=len, reverse=True) if value]
    if not values:
        return []
    pattern = "|".join(rf"(?<!\d){value}(?!\d)" if value.isdigit() else re.escape(value) for value in values)
    return [Mark(*found.span(), wrong.get(found.group())) for found in re.finditer(pattern, body)]


def mark_facts(body: str, report: FactReport) -> str:
    """把正文变成转义过的 HTML，事实标好颜色与记号。参数同 fact_marks。首次使用：generation。"""
    parts, last = [], 0
    for mark in fact_marks(body, report):
        text = html.escape(body[mark.start: mark.end])
        parts.append(html.escape(body[last: mark.start]))
        if mark.expected is None:
            parts.append(f'<span style="{GREEN}">{text}</span>✓')
        else:
            parts.append(f'<span style="{RED}">{text}</span>✗<small>（应为 {html.escape(mark.expected)}）</small>')
        last = mark.end
    return "".join(parts) + html.escape(body[last:])


def verdict(report: FactReport) -> str:
    """一行结论。导语不合自带语料的写法时，只按字面核对，并照实说明。首次使用：generation。"""
    counts = len(report.kept), len(report.contradicted), len(report.missing)
    line = "守住 {} 处，写错 {} 处，遗漏 {} 处".format(*counts)
    if report.missing:
        line += "（遗漏：" + "、".join(value for _, value in report.missing) + "）"
    if report.intro_known:
        return line + ("。" if report.well_formed else "；正文不合语料的写法。")
    return f"这条导语不在自带语料的写法之内，只按字面核对：{line}。" if sum(counts) else \
        "这条导语不在自带语料的写法之内，里面也没有认得出的日期、数量和专名，没有可核对的事实。"


def article_html(intro: str, body: str) -> str:
    """一篇文章的 HTML：导语、着色的正文、一行结论。首次使用：generation。"""
    report = check_facts(intro, body)
    return (f'<div style="{PAGE}margin:0 0 14px"><div><b>导语</b> {html.escape(intro)}</div>'
            f"<div><b>正文</b> {mark_facts(body, report)}</div>"
            f"<div><small>{html.escape(verdict(report))}</small></div></div>")
