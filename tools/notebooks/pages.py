"""notebook 之外的页（README、docs、data 里的说明）和术语表、课程地图里的编号，都跟着 road.toml 走。只是铺路石（plumbing）。

`python -m tools.notebooks refresh` 改写它们，check 报告旧了的。页里认得的写法：

    03_self_attention                                      换成现在的名字
    [03](self_attention.md)、[03](…/03_self_attention.ipynb)   编号和文件名都换
    docs/teacher/self_attention.md 第一行的 # 03           换编号
    <!-- road:表名 -->……<!-- /road -->                     整段由 BLOCKS 里的那一个写出
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tools.notebooks import glossary
from utils.road import Stop, road

PLACES = ("*.md", "docs/**/*.md", "data/**/*.md")
BLOCK = re.compile(r"(<!-- road:([\w-]+) -->\n).*?(<!-- /road -->)", re.S)
LINK = re.compile(r"\[\d\d\]\(([\w./-]*?)(?:\d\d_)?([a-z][a-z0-9_]*)\.(md|ipynb)\)")
NAME = re.compile(r"(?<![\w-])\d\d_([a-z][a-z0-9_]*)")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _minutes(stops: tuple[Stop, ...]) -> list[str]:
    return [f"{sum(getattr(stop, key) for stop in stops):g}" for key in ("read", "run", "practise")]


def table(stops: tuple[Stop, ...], english: bool = False) -> str:
    """README 里的表：名字、问题、几分钟；最后一行是主路的合计。"""
    head = ("notebook", "question", "reading", "running", "exercises") if english else ("notebook", "问题", "读", "运行", "练习")
    side = {"main": "", "side": " (optional)" if english else "（选读）"}
    lines = [_row(*head), _row("---", "---", "---:", "---:", "---:")]
    lines += [_row(f"[{stop.name}](notebooks/{stop.name}.ipynb)", (stop.english if english else stop.asks) + side[stop.kind],
                   *_minutes((stop,))) for stop in stops]
    main = tuple(stop for stop in stops if stop.kind == "main")
    return "\n".join([*lines, _row("", "minutes in all" if english else "合计（分钟）", *_minutes(main))])


def guide(stops: tuple[Stop, ...]) -> str:
    """教师手册的目录，两栏。"""
    cells = [(f"[{stop.number}]({stop.topic}.md)", stop.title) for stop in stops]
    half = (len(cells) + 1) // 2
    pairs = zip(cells[:half], cells[half:] + [("", "")] * (2 * half - len(cells)), strict=True)
    return "\n".join(["| 页 | notebook | 页 | notebook |", "|---|---|---|---|", *(_row(*left, *right) for left, right in pairs)])


BLOCKS: dict[str, Callable[[tuple[Stop, ...]], str]] = {
    "table": table, "table-en": lambda stops: table(stops, english=True), "guide": guide}


def renumber(text: str, stops: tuple[Stop, ...]) -> str:
    """一页里的编号换成现在的。路上没有的题目不动。异常：ValueError: 没有这样的表。"""
    names = {stop.topic: stop for stop in stops}

    def link(match: re.Match) -> str:
        stop = names.get(match[2])
        return f"[{stop.number}]({match[1]}{stop.name if match[3] == 'ipynb' else stop.topic}.{match[3]})" if stop else match[0]

    def block(match: re.Match) -> str:
        if match[2] not in BLOCKS:
            raise ValueError(f"没有「road:{match[2]}」这种表，只有：{'、'.join(BLOCKS)}")
        return f"{match[1]}{BLOCKS[match[2]](stops)}\n{match[3]}"

    text = LINK.sub(link, BLOCK.sub(block, text))
    return NAME.sub(lambda match: names[match[1]].name if match[1] in names else match[0], text)


def _written(folder: Path) -> dict[Path, str]:
    """每一页应当是什么样：{文件: 全文}。"""
    stops, root = road(folder), folder.parent
    pages = {}
    for path in sorted({path for place in PLACES for path in root.glob(place)}):
        text = renumber(path.read_text(encoding="utf-8"), stops)
        for stop in stops:
            if path == root / "docs" / "teacher" / f"{stop.topic}.md":
                text = re.sub(r"\A# \d\d ", f"# {stop.number} ", text)
        pages[path] = text
    if (folder / "terms.tsv").exists():
        pages[folder / "TERMS.md"] = glossary.render(glossary.read_terms(folder / "terms.tsv"), stops)
    return pages


def _changed(folder: Path) -> dict[Path, str]:
    return {path: text for path, text in _written(folder).items() if not path.exists() or path.read_text(encoding="utf-8") != text}


def _old_map(folder: Path) -> Path | None:
    """课程地图的文件，要是它旧了。"""
    picture = folder / "figures" / "course_map.png"
    if not picture.exists():
        return None
    from PIL import Image

    from utils.views.figures.course_map import fingerprint
    return picture if Image.open(picture).text.get("Description") != fingerprint(folder=folder) else None


def write(folder: Path) -> list[Path]:
    """改写旧了的页和地图。folder 是 notebooks/。返回改了的文件。"""
    changed = _changed(folder)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    if picture := _old_map(folder):
        from tools.notebooks.course_map import write_map
        changed[write_map(picture, folder=folder)] = ""
    return list(changed)


def outdated(folder: Path) -> list[str]:
    """旧了的页和地图，一样一句；都是新的就是空的。"""
    old = [*_changed(folder), *filter(None, [_old_map(folder)])]
    return [f"{path.relative_to(folder.parent).as_posix()}：里面的编号旧了，请运行 python -m tools.notebooks refresh" for path in old]
