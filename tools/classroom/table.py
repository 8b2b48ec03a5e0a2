"""批改结果的两张表：grades.csv（一行一个学生一道题）和 grades.html（学生 × 练习，点开看提示）。只是铺路石（plumbing）。"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tools.classroom.grading import Row
from utils.checks.framework.verdict import OPEN, PASS, WRONG
from utils.display.web_fonts import font_face
from utils.road import road

HEADER = ("学生", "notebook", "练习", "名字", "标题", "满分", "得分", "结果", "原因", "提示")
MARKS = {PASS: ("✓", "pass"), WRONG: ("✗", "wrong"), OPEN: ("·", "open")}
STYLE = """
body{font-family:system-ui,"Noto Sans CJK SC","Microsoft YaHei","PingFang SC",CourseSansSC,sans-serif}
body{margin:24px;color:#1f2328;background:#fff;line-height:1.6}
table{border-collapse:collapse;margin:8px 0 24px}th,td{border:1px solid #d0d7de;padding:4px 8px;text-align:left;vertical-align:top}
th{background:#f6f8fa;font-weight:600}td.pass{background:#dafbe1}td.wrong{background:#ffebe9}td.open{color:#6e7781}
td.mark{text-align:center;min-width:2.2em}summary{cursor:pointer}pre{margin:4px 0;white-space:pre-wrap;max-width:60em}
.small{color:#57606a;font-size:90%}
"""


def _cell(text: object) -> str:
    """表格软件会把 = + - @ 开头的格子当公式：前面加一个单引号。"""
    text = str(text)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def to_csv(rows: Sequence[Row], broken: Sequence[tuple[str, str, str]]) -> bytes:
    """CSV，带 BOM 的 UTF-8，表格软件直接打得开。"""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(HEADER)
    for r in rows:
        values = (r.student, r.notebook, r.number, r.name, r.title, r.points, r.points * (r.status == PASS), r.status, r.kind, r.hint)
        writer.writerow([_cell(v) for v in values])
    for student, file, problem in broken:
        writer.writerow([_cell(v) for v in (student, file, "", "", "", "", "", "读不了", problem, "")])
    return b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "replace")


def to_html(rows: Sequence[Row], broken: Sequence[tuple[str, str, str]]) -> str:
    """一页网页：每本一张「学生 × 练习」的表，再列出全班最常见的误解。没有脚本，不连外网；学生写的字都转义。"""
    parts = [f'<!doctype html><html lang="zh"><meta charset="utf-8"><title>批改结果</title><style>{STYLE}</style><h1>批改结果</h1>']
    books, order = defaultdict(list), {stop.topic: n for n, stop in enumerate(road())}
    for row in rows:
        books[row.notebook].append(row)
    for notebook, group in sorted(books.items(), key=lambda book: order.get(book[0], len(order))):
        parts.append(f"<h2>{escape(notebook)}</h2>" + _matrix(group) + _common(group))
    if broken:
        body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td><td>{escape(c)}</td></tr>" for a, b, c in broken)
        parts.append(f"<h2>没有批改的文件</h2><table><tr><th>学生</th><th>文件</th><th>原因</th></tr>{body}</table>")
    page = "".join(parts) + "</html>"
    return page.replace("<style>", f"<style>{font_face(page)}", 1)             # 没有中文字体的电脑上也不会是方框


def _matrix(group: Sequence[Row]) -> str:
    tasks = sorted({(r.number, r.name, r.title, r.points) for r in group})
    cells = {(r.student, r.name): r for r in group}
    head = "".join(f'<th title="{escape(name)}">{n} {escape(title)}<br><span class="small">{points} 分</span></th>'
                   for n, name, title, points in tasks)
    lines = [f"<tr><th>学生</th>{head}<th>得分</th></tr>"]
    for student in sorted({r.student for r in group}):
        mine = [cells[student, name] for _, name, _, _ in tasks]
        score = sum(r.points for r in mine if r.status == PASS)
        lines.append(f"<tr><td>{escape(student)}</td>{''.join(map(_mark, mine))}<td>{score}/{sum(r.points for r in mine)}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _mark(row: Row) -> str:
    mark, style = MARKS[row.status]
    if row.status != WRONG:
        return f'<td class="mark {style}" title="{row.status}">{mark}</td>'
    details = "".join(f"<div>{escape(title)}</div><pre>{escape(body)}</pre>" for title, body in row.evidence)
    return (f'<td class="{style}"><details><summary>{mark} {escape(row.kind)}</summary>{escape(row.hint)}{details}</details></td>')


def _common(group: Sequence[Row]) -> str:
    """全班在每道题上最常见的错，讲评时先讲它。"""
    counts = Counter((r.number, r.title, r.kind) for r in group if r.status == WRONG)
    if not counts:
        return ""
    body = "".join(f"<tr><td>{n} {escape(title)}</td><td>{escape(kind)}</td><td>{times} 人</td></tr>"
                   for (n, title, kind), times in sorted(counts.items(), key=lambda x: (-x[1], x[0])))
    return f"<h3>讲评：最常见的错</h3><table><tr><th>练习</th><th>错在</th><th>人数</th></tr>{body}</table>"


def write_tables(folder: Path, rows: Sequence[Row], broken: Sequence[tuple[str, str, str]]) -> tuple[Path, Path]:
    """在 folder 里写 grades.csv 和 grades.html，返回两个路径。"""
    table, page = folder / "grades.csv", folder / "grades.html"
    table.write_bytes(to_csv(rows, broken))
    page.write_bytes(to_html(rows, broken).encode("utf-8", "replace"))
    return table, page
