"""notebook 里提到别的 notebook，都写题目；构建时换成编号和链接，所以换了次序不用改文字。只是铺路石（plumbing）。

    [[self_attention]]          文字里成为 [03](03_self_attention.ipynb)，代码的注释里成为 03
    [[self_attention|那一本]]   文字里成为 [那一本](03_self_attention.ipynb)，代码的注释里成为 那一本

大标题（第一格的第一行）前面添上编号。注释以外的代码、行内代码、公式一概不动：`x[[i]]` 是 Python。
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Callable, Iterable
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from utils.road import Stop, road

LINK = re.compile(r"\[\[([a-z][a-z0-9_]*)(?:\|([^\]\n]+))?\]\]")
FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.M | re.S)
ASIDE = re.compile(r"(`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$)", re.S)       # 行内代码和公式
Change = Callable[[re.Match], str]


def _prose(text: str, change: Change, in_code: Change) -> str:
    """对文字里的每个记号做 change，行内代码和公式不看；代码块（折叠的答案）里只看注释，做 in_code。"""
    parts = FENCE.split(text)
    for at, part in enumerate(parts):
        if at % 2:
            head, _, body = part.partition("\n")
            parts[at] = f"{head}\n{_code(body, in_code)}"
        else:
            bits = ASIDE.split(part)
            bits[::2] = [LINK.sub(change, bit) for bit in bits[::2]]
            parts[at] = "".join(bits)
    return "".join(parts)


def _comments(text: str) -> dict[int, int]:
    """代码里的注释：第几行（从 1 数起）→ 从第几列起。读不懂的代码（IPython 的魔法命令、草稿），只认整行的注释。"""
    try:
        return {t.start[0]: t.start[1] for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT}
    except (tokenize.TokenError, SyntaxError):
        return {n: 0 for n, line in enumerate(text.splitlines(), 1) if line.lstrip().startswith("#")}


def _code(text: str, change: Change) -> str:
    """对代码的注释里的每个记号做 change。"""
    if not LINK.search(text):
        return text
    lines = text.split("\n")
    for number, column in _comments(text).items():
        line = lines[number - 1]
        lines[number - 1] = line[:column] + LINK.sub(change, line[column:])
    return "\n".join(lines)


def resolve(cells: Iterable[NotebookNode], stops: tuple[Stop, ...], topic: str = "") -> list[NotebookNode]:
    """把各格里的记号换成编号和链接（就地修改），给大标题添上编号。路上没有的题目不动，由 unknown 报告。

    参数：
        cells: 一本 notebook 的各格。
        stops: 路。
        topic: 这一本的题目；路上没有它，大标题就不添编号。
    """
    names = {stop.topic: stop for stop in stops}

    def link(match: re.Match) -> str:
        stop = names.get(match[1])
        return f"[{match[2] or stop.number}]({stop.name}.ipynb)" if stop else match[0]

    def word(match: re.Match) -> str:
        stop = names.get(match[1])
        return match[2] or stop.number if stop else match[0]

    cells = list(cells)
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _prose(cell.source, link, word)
        elif cell.cell_type == "code":
            cell.source = _code(cell.source, word)
    if cells and topic in names:
        cells[0].source = re.sub(r"\A# ", f"# {names[topic].number} ", cells[0].source)
    return cells


def unknown(cells: Iterable[NotebookNode]) -> list[str]:
    """resolve 之后还剩下的记号里的题目：路上没有的。"""
    found: list[str] = []

    def note(match: re.Match) -> str:
        found.append(match[1])
        return match[0]

    for cell in cells:
        if cell.cell_type == "markdown":
            _prose(cell.source, note, note)
        else:
            _code(cell.source, note)
    return list(dict.fromkeys(found))


def read_cells(source: Path) -> list[NotebookNode]:
    """一本的源（notebooks/src/题目.py）的全部单元，编号和链接都已写好，与构建出的 .ipynb 一致。"""
    return resolve(jupytext.read(source, fmt="py:percent").cells, road(source.parent.parent), source.stem)
