"""检查 notebook:.ipynb 与 .py 一致，输出不比代码、数据旧，也干净，写法合乎规矩；并由 .ipynb 里的记录写出 RESULTS.md。"""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from statistics import median

import nbformat
from nbformat import NotebookNode

from tools.notebooks import colab as bootstrap
from tools.notebooks import pages
from tools.notebooks.exercises import BadExercise, find_exercises, tag
from tools.notebooks.fingerprint import outdated
from tools.notebooks.links import read_cells, unknown
from utils.road import Stop, road, stop_of

# 其余 300：tokenization 的静态方块图要给全八种粒度，transformer 有十一张图，generation 也有八张
SIZE_KB = {"tokenization": 400, "transformer": 400, "attention_visualization": 500, "generation": 320}
START = 'import sys; sys.path.insert(0, "..")'
HARD_CAP = 40                  # 一格代码最多几行
ABSOLUTE = re.compile(r"(?<![\w.:/~-])(/home/|/Users/|/root\b|/tmp/|/private/|/content/|/mnt/)"
                      r"|\b[A-Za-z]:\\\\?(Users|Temp|Windows)\b")
TAG = re.compile(r"<\s*(script|img|link|iframe|source|video|audio|embed|object|image|use)\b[^>]*?"
                 r"\b(?:src|href|xlink:href|data)\s*=\s*[\"']?\s*((?:https?:)?//[^\s\"'>]+)", re.I)
CSS = re.compile(r"(?:@import\s+|url\()\s*[\"']?\s*((?:https?:)?//[^\s\"')]+)", re.I)


def size_limit(topic: str) -> int:
    """一本 .ipynb 的大小上限（KB）。"""
    return SIZE_KB.get(topic, 300)


def source_files(folder: Path) -> list[Path]:
    """folder/src 里全部 notebook 的源文件，按路的次序。"""
    return [path for stop in road(folder) if (path := folder / "src" / f"{stop.topic}.py").exists()]


def check(folder: Path) -> list[str]:
    """检查 folder(notebooks/)里的全部 notebook，返回问题清单；空表示都好。"""
    stops = road(folder)
    topics, names = {stop.topic for stop in stops}, {stop.name for stop in stops}
    problems = [f"src/{path.name}：road.toml 里没有它" for path in sorted((folder / "src").glob("*.py")) if path.stem not in topics]
    problems += [f"road.toml：src 里没有 {stop.topic}.py" for stop in stops if not (folder / "src" / f"{stop.topic}.py").exists()]
    for path in sorted(folder.glob("*.ipynb")):
        if path.stem not in names:
            old = path.stem.partition("_")[2] in topics
            problems.append(f"{path.name}：{'编号旧了，请运行 python -m tools.notebooks refresh' if old else 'notebooks/src 里没有它的源'}")
    for source in source_files(folder):
        stop, cells = stop_of(source), read_cells(source)
        problems += [f"{source.name}:{p}" for p in lint(cells, stop.topic) + wrong_next(cells, stop, stops)]
        path = folder / f"{stop.name}.ipynb"
        if not path.exists():
            problems.append(f"{path.name}：还没有构建，请运行 course.py build {stop.number}")
            continue
        problems += [f"{path.name}:{p}" for p in check_built(path, cells)]
        if old := outdated(path, source):
            problems.append(f"{path.name}：{old}")
    results = folder / "RESULTS.md"
    if stops and (not results.exists() or results.read_text(encoding="utf-8") != render_results(folder)):
        problems.append("RESULTS.md：与各 notebook 里的记录不一致，请运行 python -m tools.notebooks results")
    return problems + pages.outdated(folder)


def check_built(path: Path, cells: list[NotebookNode]) -> list[str]:
    """一本 .ipynb 的问题：与源 cells 是否一致，输出是否干净，大小是否合适。"""
    raw = path.read_bytes()
    problems = [] if len(raw) <= size_limit(path.stem[3:]) * 1000 else [f"太大：{len(raw) / 1000:.0f} KB"]
    if b"\r" in raw:
        problems.append("换行应当是 LF")
    try:
        nb = nbformat.from_dict(json.loads(raw.decode("utf-8")))
        nbformat.validate(nb)
    except (ValueError, nbformat.ValidationError) as error:
        return [*problems, f"不是合法的 notebook:{str(error).splitlines()[0]}"]
    at = [i for i, cell in enumerate(nb.cells) if bootstrap.is_bootstrap(cell)]
    if at != [bootstrap.AT] or "".join(nb.cells[at[0]].source) != bootstrap.cell_source():
        problems.append("没有引导单元，或者它旧了，请运行 python -m tools.notebooks refresh")
    if [(c.cell_type, c.source) for c in cells] != [(c.cell_type, "".join(c.source)) for c in bootstrap.without(nb.cells)]:
        problems.append("与 .py 的源不一致，请运行 course.py build " + path.stem[:2])
    if "widgets" in nb.metadata:
        problems.append("metadata 里有 widgets")
    for number, cell in enumerate(nb.cells, 1):
        if cell.cell_type == "code":
            problems += [f"第 {number} 格：{p}" for p in check_outputs(cell, path.resolve().parent.parent)]
    return problems


def check_outputs(cell: NotebookNode, root: Path) -> list[str]:
    """一格代码的输出有什么问题。root 是课程文件夹，它的绝对路径不该出现。"""
    problems = ["有执行次数"] if cell.execution_count is not None else []
    for output in cell.outputs:
        if output.output_type == "error":
            problems.append(f"有错误输出 {output.ename}")
        if output.get("execution_count") is not None:
            problems.append("输出有执行次数")
        if output.get("name") == "stderr":
            problems.append("有标准错误输出")
        data = output.get("data", {"text/plain": output.get("text", "")})
        for mime, value in data.items():
            if mime.startswith("image/") and mime != "image/svg+xml":
                continue
            text = html.unescape("".join(value)) if isinstance(value, str | list) else json.dumps(value)
            found = ABSOLUTE.search(text) or re.search(re.escape(str(root)), text)
            if found:
                problems.append(f"输出里有本机路径：{text[found.start():found.start() + 40]!r}")
            external = TAG.search(text) or CSS.search(text)
            if external and mime != "text/plain":
                problems.append(f"输出引用了外部地址：{external.groups()[-1][:60]}")
    return problems


def wrong_next(cells: list[NotebookNode], stop: Stop, stops: tuple[Stop, ...]) -> list[str]:
    """「**下一本**」后面的第一个链接，应当是主路上的下一本（选读不算在内）。"""
    later = [other for other in stops if other.number > stop.number and other.kind == "main"]
    said = [match[1] for cell in cells if (match := re.search(r"\*\*下一本\*\*：.*?\]\(([\w-]+)\.ipynb\)", cell.source, re.S))]
    return [f"「下一本」写的是 {name}，路上的下一本是 {later[0].name}" for name in said if later and name != later[0].name]


def lint(cells: list[NotebookNode], topic: str) -> list[str]:
    """源的写法：大标题不写编号，第一格代码是起始单元，链接的题目路上都有，代码格不超过 40 行，两格代码之间要有文字。"""
    problems = [f"[[{word}]]：road.toml 里没有这个题目" for word in unknown(cells)]
    if cells and re.match(r"# \d\d \d\d ", cells[0].source):
        problems.append("大标题里不要写编号，构建时会添上")
    codes = [c for c in cells if c.cell_type == "code"]
    start = codes[0].source if codes else ""
    if not start.startswith(START) or f'\nlesson = start("{topic}")' not in start:
        problems.append(f'第一格代码应当是起始单元 lesson = start("{topic}")')
    for number, cell in enumerate(cells, 1):
        lines = len(cell.source.splitlines())
        if cell.cell_type == "code" and lines > HARD_CAP:
            problems.append(f"第 {number} 格有 {lines} 行代码，上限 {HARD_CAP}")
        if number > 1 and cell.cell_type == "code" == cells[number - 2].cell_type and tag(cell) != "check":
            problems.append(f"第 {number - 1} 格和第 {number} 格代码之间没有文字")
    try:
        find_exercises(cells)
    except BadExercise as error:
        problems.append(str(error))
    return problems


def medians(folder: Path) -> str:
    """每本 notebook 代码格行数的中位数与最大值，供维护者参考。"""
    lines = []
    for source in source_files(folder):
        codes = [c.source for c in read_cells(source) if c.cell_type == "code"]
        counts = [len([x for x in code.splitlines() if x.strip()]) for code in codes] or [0]
        over = sum(count > 25 for count in counts)
        lines.append(f"{source.stem}：代码 {len(codes)} 格，中位数 {median(counts):g} 行（目标 ≤ 8）,"
                     f"最长 {max(counts)} 行，超过 25 行的 {over} 格")
    return "\n".join(lines)


# ---------------------------------------------------------------- RESULTS.md


def number(value: float) -> str:
    """四位有效数字；大数用整数加千分位。"""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"


def cell_text(text: str) -> str:
    """放进表格里的字：竖线要转义。"""
    return str(text).replace("|", "\\|").replace("\n", " ")


def render_results(folder: Path) -> str:
    """由 folder/*.ipynb 的 metadata.course 写出 RESULTS.md 的全文。"""
    parts = ["# 你会看到的数字\n",
             "这里是维护者构建课程时，每本 notebook 用 `lesson.record` 记下的测量值。"
             "你的机器、预设和版本不同，数字会有出入；差得很多时，先比一比预设和版本。"
             "本文件由 `course.py build` 写出，请不要手改。\n"]
    for path in [path for stop in road(folder) if (path := folder / f"{stop.name}.ipynb").exists()]:
        course = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("course", {})
        parts.append(f"## {path.stem}\n")
        if not course.get("records"):
            parts.append("没有记录。\n")
            continue
        rows = ["| 名称 | 数值 | 单位 | 预设 | 设备 |", "| --- | ---: | --- | --- | --- |"]
        for r in course["records"]:
            rows.append(f"| {cell_text(r['name'])} | {number(r['value'])} | {cell_text(r['unit'])} "
                        f"| {r['preset']} | {r['device']} |")
        parts.append("\n".join(rows) + "\n")
        parts.append("版本：" + "，".join(f"{k} {v}" for k, v in course["versions"].items()) + "。\n")
    return "\n".join(parts)
