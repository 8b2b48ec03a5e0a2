"""运行、构建、检查 notebook：`python -m tools.notebooks run|build|refresh|check|results [哪几本 …]`。

notebooks/src/题目.py 是唯一的源（jupytext py:percent）；次序在 notebooks/road.toml；notebooks/编号_题目.ipynb 只由 build 写出。
只改了文字、注释、次序时不必重新运行：refresh 把它们和引导单元（colab.py）更新到 .ipynb 里，别处的编号也跟着换（pages.py）。
build 还在 .ipynb 里记下指纹（fingerprint.py）：代码、模块、数据变了以后，check 会要求重新 build；refresh 留着指纹，从不改它。
执行见 execution.py，清理输出见 cleaning.py，检查见 lint.py，编号与链接见 links.py。
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import nbformat

from tools.notebooks import colab as bootstrap
from tools.notebooks import pages
from tools.notebooks.cleaning import cell_id, clean
from tools.notebooks.code_facts import same_program
from tools.notebooks.execution import Failure, Result, execute
from tools.notebooks.fingerprint import changes, fingerprint, outdated
from tools.notebooks.links import read_cells
from tools.notebooks.lint import check, medians, render_results, size_limit
from utils import road
from utils.display.tables import pad, width
from utils.paths import NOTEBOOKS, ROOT, outputs
from utils.road import Stop, lenders, stop_of


def choose(words: list[str], folder: Path = NOTEBOOKS) -> list[Path]:
    """按编号（"02"、"2"）、题目或「编号_题目」挑源文件；words 为空就是全部。找不到时报 ValueError。"""
    every = (folder / "src" / f"{stop.topic}.py" for stop in road.choose(words, folder))
    return [source for source in every if words or source.exists()]


# ---------------------------------------------------------------- 表


def table(results: list[Result]) -> str:
    """运行结果的表：notebook、用时、峰值内存、结果。"""
    rows = [("notebook", "用时（秒）", "峰值内存（MB）", "结果")]
    for r in results:
        state = "ok" if r.ok else "已中断" if r.interrupted else str(r.failure)
        rows.append((r.name, f"{r.seconds:.1f}", f"{r.peak_mb:.0f}", state))
    if len(results) > 1:
        passed = f"{sum(r.ok for r in results)}/{len(results)} 通过"
        most = max(r.peak_mb for r in results)
        rows.append(("合计", f"{sum(r.seconds for r in results):.1f}", f"{most:.0f}", passed))
    widths = [max(width(row[i]) for row in rows) for i in range(3)]
    lines = []
    for a, b, c, d in rows:
        lines.append(f"{pad(a, widths[0])}  {pad(b, widths[1], True)}  {pad(c, widths[2], True)}  {d}")
    lines.insert(1, "-" * (sum(widths) + 6 + 12))
    return "\n".join(lines)


# ---------------------------------------------------------------- 命令


def save(nb: nbformat.NotebookNode, path: Path) -> None:
    """写 .ipynb:UTF-8、LF、缩进 1、不转义汉字，方便看 diff。"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(nb))


def encode(nb: nbformat.NotebookNode) -> bytes:
    return (nbformat.writes(nb, version=4, indent=1, ensure_ascii=False).rstrip("\n") + "\n").encode("utf-8")


def run(words: list[str], preset: str | None = None, folder: Path = NOTEBOOKS) -> int:
    """依次运行 notebook，执行后的副本写在 outputs/run/；一本出错接着下一本。返回退出码。"""
    results: list[Result] = []
    for source in choose(words, folder):
        if not sys.stderr.isatty():
            print(f"运行 {stop_of(source).name} ……", flush=True)
        result = execute(source, preset)
        results.append(result)
        save(result.notebook, outputs() / "run" / f"{result.name}.ipynb")
        if result.interrupted:
            break
    print(table(results) if results else "一本 notebook 也没有。")
    if results and results[-1].interrupted:
        print("已停下。上表是已经跑过的部分。")
        return 130
    good = bool(results) and all(r.ok for r in results)
    print(f"执行后的副本{'' if good else '(含完整的报错)'}在 {outputs() / 'run'}")
    return 0 if good else 1


def build_one(source: Path, preset: str, folder: Path) -> tuple[Result, list[str]]:
    """运行并写出一本 .ipynb。返回 （运行结果，给维护者看的话）；有错、太大，或者运行期间用到的东西变了，就不写。"""
    before = fingerprint(source)
    with tempfile.TemporaryDirectory() as temp:
        path = Path(temp) / "records.jsonl"
        result = execute(source, preset, records=path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not result.ok:
        return result, ["没有写出：运行出错"]
    changed = changes(before, fingerprint(source))
    nb, notes = clean(result.notebook, source.stem, ROOT)
    rows = [json.loads(line) for line in lines]
    course = {"preset": preset, "versions": rows[0]["versions"] if rows else {}, "records": [],
              "fingerprint": before}
    for row in rows:
        value = float(f"{row['value']:.6g}")
        course["records"].append({"name": row["name"], "value": value, "unit": row["unit"],
                                  "preset": row["preset"], "device": row["device"]})
    nb.metadata["course"] = course
    bootstrap.insert(nb, source.stem)
    nbformat.validate(nb)
    kilobytes = len(encode(nb)) / 1000
    strange = [r["name"] for r in course["records"] if not math.isfinite(r["value"])]
    refusal = None
    if changed:
        refusal = Failure(0, "", "构建期间有改动", f"{changed} 变了，不知道输出是改前还是改后的，请再构建一次")
    if kilobytes > size_limit(source.stem):
        refusal = Failure(0, "", "太大", f"{kilobytes:.0f} KB，上限 {size_limit(source.stem)} KB")
    if strange:
        refusal = Failure(0, "", "记录的不是有限的数", "、".join(strange))
    if refusal:
        return replace(result, failure=refusal), [*notes, f"没有写出：{refusal}"]
    save(nb, folder / f"{result.name}.ipynb")
    return result, [*notes, f"写出 {result.name}.ipynb，{kilobytes:.0f} KB"]


def stale_lender(source: Path, folder: Path) -> str:
    """source 要载入前面一本练出的模型，而那一本改了还没有重新构建，模型就是旧的：返回一句话；没有这样的就是空串。"""
    found = [f"{stop.name}：{said}" for stop in lenders(source.stem, folder)
             if (said := outdated(folder / f"{stop.name}.ipynb", source.with_name(f"{stop.topic}.py")))]
    return "；".join(found)


def build(words: list[str], preset: str | None = None, folder: Path = NOTEBOOKS) -> int:
    """运行、清理并写出 notebooks/*.ipynb 和 RESULTS.md。返回退出码。"""
    results = []
    chosen = choose(words, folder)
    for source in [source for source in choose([], folder) if source in chosen]:              # 按次序：后面的要载入前面练出来的模型
        name = stop_of(source).name
        if stale := stale_lender(source, folder):
            results.append(Result(name, 0, 0, Failure(0, "", "用到的 notebook 旧了", stale), nbformat.v4.new_notebook()))
            continue
        result, notes = build_one(source, preset or os.environ.get("COURSE_PRESET") or "cpu", folder)
        results.append(result)
        for note in notes:
            print(f"{name}:{note}", flush=True)
        if result.interrupted:
            break
    write_results(folder)
    print(table(results) if results else "一本 notebook 也没有。")
    return 130 if results and results[-1].interrupted else 0 if results and all(r.ok for r in results) else 1


def renumber(stop: Stop, folder: Path) -> Path:
    """这一本构建好的 .ipynb 该叫什么；次序变过、还叫着旧编号的，改过来。"""
    path = folder / f"{stop.name}.ipynb"
    for old in folder.glob(f"[0-9][0-9]_{stop.topic}.ipynb"):
        if old != path and not path.exists():
            old.rename(path)
    return path


def refresh_one(source: Path, folder: Path) -> str:
    """把源里的文字、注释和引导单元更新到已经构建好的 .ipynb；代码变了就不动它。返回给维护者看的一句话。"""
    stop = stop_of(source)
    path = renumber(stop, folder)
    if not path.exists():
        return "还没有构建"
    nb, cells = nbformat.read(path, 4), read_cells(source)
    built = bootstrap.without(nb.cells)
    kinds = [[c.cell_type for c in group] for group in (built, cells)]
    if kinds[0] != kinds[1] or not all(same_program(old.source, new.source) for old, new in zip(built, cells, strict=True)
                                       if new.cell_type == "code"):
        return f"代码或单元的次序变了，请运行 course.py build {stop.number}"
    for number, (old, new) in enumerate(zip(built, cells, strict=True), 1):
        old.source, old.id = new.source, cell_id(stop.topic, number)
    before = path.read_bytes()
    save(bootstrap.insert(nb, stop.topic), path)
    return "没有变" if path.read_bytes() == before else "已更新"


def refresh(words: list[str], folder: Path = NOTEBOOKS) -> int:
    """不运行，只更新 .ipynb 里的文字、编号和引导单元，以及别处的编号。返回退出码；有一本要重新构建就是 1。"""
    said = {stop_of(source).name: refresh_one(source, folder) for source in choose(words, folder)}
    for name, text in said.items():
        print(f"{name}：{text}")
    if not words:
        write_results(folder)
        for path in pages.write(folder):
            print(f"{path.name}：已更新")
    return 0 if set(said.values()) <= {"没有变", "已更新"} else 1


def write_results(folder: Path = NOTEBOOKS) -> None:
    """按全部 .ipynb 里的记录重写 RESULTS.md。"""
    (folder / "RESULTS.md").write_bytes(render_results(folder).encode("utf-8"))


def main(argv: list[str] | None = None) -> int:
    """命令行入口，返回退出码。"""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks",
                                     description="运行、构建、检查 notebook")
    parser.add_argument("command", choices=["run", "build", "refresh", "check", "results"])
    parser.add_argument("words", nargs="*", metavar="哪一本", help="编号或题目；不写就是全部")
    parser.add_argument("--preset", choices=["smoke", "cpu", "gpu"], help="预设")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command in ("run", "build"):
            return {"run": run, "build": build}[arguments.command](arguments.words, arguments.preset)
        if arguments.command == "refresh":
            return refresh(arguments.words)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.command == "results":
        write_results()
        return 0
    problems = check(NOTEBOOKS)
    print(medians(NOTEBOOKS))
    print("\n".join(problems) if problems else "检查通过。")
    return 1 if problems else 0
