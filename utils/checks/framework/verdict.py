"""一次检查的结果：在 notebook 里是一小块带颜色的字，在终端里是几行文字。只是铺路石（plumbing）。"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape

OPEN, PASS, WRONG = "未做", "通过", "还不对"
_MARKS = {OPEN: "○", PASS: "✓", WRONG: "✗"}
_COLORS = {OPEN: "#8a6d00", PASS: "#1a7f37", WRONG: "#cf222e"}             # 深色、浅色底上都看得清
_ANSI = {OPEN: "33", PASS: "32", WRONG: "31"}


class CheckFailed(AssertionError):
    """严格模式（环境变量 COURSE_CHECK_STRICT=1，批改用）下，没通过就抛出它。"""


@dataclass(frozen=True)
class Verdict:
    """一次检查的结果。

    属性：
        key: 哪道题，例如 "objectives.clm_loss"。
        status: "未做"、"通过"、"还不对" 之一。
        kind: 没通过的原因：误解的名字，或 "异常"、"超时"、"类型"、"形状"、"dtype"、"设备"、"长度"、"改动输入"、"其他"。
        hint: 这个答案做了什么（一两句话）。
        ask: 引导的问题。
        evidence: 证据，（标题，内容）：最小的反例、报错的那几行。
    """

    key: str
    status: str
    kind: str = ""
    hint: str = ""
    ask: str = ""
    evidence: tuple[tuple[str, str], ...] = ()

    @property
    def passed(self) -> bool:
        return self.status == PASS

    @property
    def headline(self) -> str:
        """第一行。"""
        return f"{_MARKS[self.status]} {self.status}" + (f" · {self.kind}" if self.status == WRONG else "")

    def __str__(self) -> str:
        lines = [self.headline + (f"：{self.hint}" if self.hint else "")]
        for title, body in self.evidence:
            rows = body.splitlines() or [""]
            lines += [f"  {title}", *("    " + row for row in rows)] if len(rows) > 1 else [f"  {title}　{rows[0]}"]
        return "\n".join(lines + ([f"想一想：{self.ask}"] if self.ask else []))

    def __repr__(self) -> str:
        if not getattr(sys.stdout, "isatty", lambda: False)():
            return str(self)
        first, *rest = str(self).split("\n", 1)
        return "\n".join([f"\x1b[{_ANSI[self.status]}m{first}\x1b[0m", *rest])

    def _repr_html_(self) -> str:
        rows = [f'<div style="color:{_COLORS[self.status]};font-weight:600">{escape(self.headline)}</div>']
        if self.hint:
            rows.append(f"<div>{escape(self.hint)}</div>")
        for title, body in self.evidence:
            rows.append(f'<div style="margin-top:4px">{escape(title)}</div><pre style="margin:0 0 0 1em;'
                        f'white-space:pre-wrap;background:transparent">{escape(body)}</pre>')
        if self.ask:
            rows.append(f'<div style="margin-top:4px"><b>想一想：</b>{escape(self.ask)}</div>')
        return (f'<div role="status" style="border-left:4px solid {_COLORS[self.status]};padding:2px 0 2px 10px">'
                + "".join(rows) + "</div>")
