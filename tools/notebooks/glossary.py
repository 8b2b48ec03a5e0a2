"""术语与符号的表：只写在 notebooks/terms.tsv 一处，`python -m tools.notebooks.glossary` 由它生成 notebooks/TERMS.md。

本模块是铺路石（plumbing）：测试用它核对每个术语在它「首见」的那一本里真的带着英文出现，更早的各本不会不打招呼就用。
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tools.notebooks.links import read_cells
from utils.paths import NOTEBOOKS, ROOT
from utils.road import Stop, road

TABLE = NOTEBOOKS / "terms.tsv"
PAGE = NOTEBOOKS / "TERMS.md"
HEAD = "种类\t写法\t英文\t意思\t首见"
KINDS = ("术语", "符号")


@dataclass(frozen=True)
class Term:
    """表里的一行。

    属性：
        kind: "术语" 或 "符号"。
        name: 写法。
        english: 英文；符号没有。
        meaning: 一句话的意思。
        first: 首次讲它的 notebook 的题目，例如 "tokenization"。
    """

    kind: str
    name: str
    english: str
    meaning: str
    first: str


def read_terms(path: Path = TABLE) -> list[Term]:
    """读 terms.tsv。

    异常：
        ValueError: 表头不对，或某一行缺格、种类不对、题目不对、写法重复；说明里有行号。
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != HEAD:
        raise ValueError(f"{path.name} 的第一行应当是：{HEAD}")
    terms, seen = [], set()
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != 5 or cells[0] not in KINDS or not cells[1] or not cells[3] or not re.fullmatch(r"[a-z]\w*", cells[4]):
            raise ValueError(f"{path.name} 第 {number} 行写错了：要有五格，种类是术语或符号，首见是 notebook 的题目。")
        if cells[0] == "术语" and not cells[2]:
            raise ValueError(f"{path.name} 第 {number} 行：术语「{cells[1]}」没有写英文。")
        if (cells[0], cells[1]) in seen:
            raise ValueError(f"{path.name} 第 {number} 行：「{cells[1]}」写了两遍。")
        seen.add((cells[0], cells[1]))
        terms.append(Term(*cells))
    return terms


def prose(source: Path) -> list[str]:
    """一本 notebook 的源里，每一格文字。"""
    return [cell.source for cell in read_cells(source) if cell.cell_type == "markdown"]


def introduced(term: Term, cells: list[str]) -> bool:
    """这些文字里，有没有一处把术语和它的英文写在一起（相隔不超过 40 个字）。"""
    name, english = re.escape(term.name), re.escape(term.english)
    near = re.compile(f"{name}.{{0,40}}{english}|{english}.{{0,40}}{name}", re.I | re.S)
    return any(near.search(cell) for cell in cells)


def render(terms: list[Term], stops: tuple[Stop, ...]) -> str:
    """TERMS.md 的全文。stops 是路：首见写成编号，加上链接；术语按路的次序排。异常：ValueError: 首见的题目路上没有。"""
    order = {stop.topic: stop for stop in stops}
    if strange := sorted({term.first for term in terms} - order.keys()):
        raise ValueError(f"terms.tsv 里的首见，road.toml 里没有：{'、'.join(strange)}")

    def where(term: Term) -> str:
        return f"[{order[term.first].number}]({order[term.first].name}.ipynb)"

    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    parts = ["# 术语与符号\n", "本文件由 `python -m tools.notebooks.glossary` 根据 [terms.tsv](terms.tsv) 写出，请不要手改。"
             "「首见」是第一次讲它的那一本。\n", "## 术语\n", "| 术语 | 英文 | 意思 | 首见 |", "| --- | --- | --- | --- |"]
    chosen = sorted((t for t in terms if t.kind == "术语"), key=lambda t: order[t.first].number)
    parts += [f"| {cell(t.name)} | {cell(t.english)} | {cell(t.meaning)} | {where(t)} |" for t in chosen]
    parts += ["\n## 符号\n", "| 符号 | 意思 | 首见 |", "| --- | --- | --- |"]
    parts += [f"| {cell(t.name)} | {cell(t.meaning)} | {where(t)} |" for t in terms if t.kind == "符号"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(read_terms(), road()), encoding="utf-8", newline="\n")
    print(f"已写好 {PAGE.relative_to(ROOT)}")
