"""notebook 的指纹：它的输出是由哪些东西算出来的。build 运行之后记下，check 拿来与现在的比，所以输出不会比代码旧。

算进去的：代码格；代码格一层层用到的课程模块，函数里才导入的也算（那个函数要有人用到）；读到的数据、附带的检查点、小部件的脚本；
它载入的模型是前面哪一本练的（notebooks/road.toml 里只有这一样算，换次序、改标题都不算）。
注释、文档字符串（docstring）、文字格、data/ 里的说明（*.md）不算：改了它们，输出还作数。代码怎样看，见 tools/notebooks/code_facts.py。
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import jupytext

from tools.notebooks.code_facts import Facts, Unit, digest, study
from utils.road import lenders, stop_of

GIVERS = ("utils/paths.py", "utils/models/checkpoints.py")  # 只写着数据在哪、怎样找检查点；用了它们给的名字，才算用了数据
DOTTED = re.compile(r"\w+(\.\w+)*(\.\w*\*)?")             # 模块的全名，末尾可以有一个 *
SHOWN = 5                                                 # 一句话里最多列几样变了的


@cache
def _codes(text: str) -> tuple[str, ...]:
    return tuple(cell.source for cell in jupytext.reads(text, fmt="py:percent").cells if cell.cell_type == "code")


def study_cells(source: Path) -> list[Facts]:
    """一本 notebook 的源（notebooks/src/题目.py）里的各格代码。"""
    return [study(code, cell=True) for code in _codes(source.read_text(encoding="utf-8"))]


def find(root: Path, folder: Path, dotted: str) -> set[Path]:
    """从 folder 起，全名是 dotted 的模块的文件，连同它外面各层包的 __init__.py；不是课程的模块就是空的。"""
    if not DOTTED.fullmatch(dotted):
        return set()
    *outer, last = dotted.split(".")
    place = folder.joinpath(*outer)
    if "*" in last:
        found = {*place.glob(f"{last}.py"), *place.glob(f"{last}/__init__.py")}
    else:
        found = {path for path in (place / f"{last}.py", place / last / "__init__.py") if path.is_file()}
    inits = {parent / "__init__.py" for path in found for parent in path.parents if parent.is_relative_to(root)}
    return found | {path for path in inits if path.is_file()}


def passed_on(folder: Path, dotted: str) -> tuple[Unit, Path] | None:
    """dotted 要是「一间屋子的门面.它转手的一个名字」，返回转手的那一段和门面的文件；不是就是 None。"""
    room, _, name = dotted.rpartition(".")
    face = folder.joinpath(*room.split("."), "__init__.py")
    facts = study(face.read_text(encoding="utf-8")) if room and DOTTED.fullmatch(dotted) and face.is_file() else None
    return (facts.units[name], face) if facts and facts.face and name in facts.units else None


def reached(root: Path, cells: Iterable[Facts]) -> dict[Path, list[Unit]]:
    """代码格一层层用到的课程模块：文件 → 用到的各段。root 是课程文件夹。

    一个函数或类，只要名字在别的用到的代码里出现过，就算用到；没有用到的，里面才导入的模块、才读的数据不算。
    从一间屋子的门面（`from utils.training import train`）取一个名字，用到的是写着它的那个模块，不是整间屋子；
    门面自己只是转手，不算在内。
    """
    used: dict[Path, list[Unit]] = {}
    waiting: dict[Path, dict[str, Unit]] = {}
    words: set[str] = set()

    def take(unit: Unit, path: Path) -> None:
        words.update(unit.words)
        for level, name in unit.modules:
            folder = path.parents[level - 1] if level else root
            for module in find(root, folder, name):
                facts = study(module.read_text(encoding="utf-8"))
                if module not in used and not facts.face:
                    used[module], waiting[module] = [], dict(facts.units)
            if through := passed_on(folder, name):
                take(*through)

    for facts in cells:
        take(facts.units[""], root)
    while ready := [(path, name) for path, units in waiting.items() for name in units if not name or name in words]:
        for path, name in ready:
            used[path].append(waiting[path].pop(name))
            take(used[path][-1], path)
    return used


def hash_files(path: Path) -> str:
    """一个文件，或一个文件夹里全部文件（名字和内容）的指纹；说明（*.md）和隐藏文件不算。"""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".md")
    shown = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    return digest(*(part for p in shown for part in (p.relative_to(path).as_posix(), p.read_bytes())))


def fingerprint(source: Path) -> dict:
    """一本 notebook 此刻的指纹，只看源，不看构建好的 .ipynb。

    参数：
        source: notebooks/src/题目.py；课程文件夹是 notebooks/ 的上一级。
    返回：
        {"code": 代码格的指纹, "files": {文件: 指纹}, "notebooks": {前面哪一本的题目: 它的指纹的指纹}}；文件是课程模块和数据，
        名字相对于课程文件夹。
    """
    root = source.resolve().parents[2]
    cells = study_cells(source)
    modules = reached(root, cells)
    files = {path: study(path.read_text(encoding="utf-8")).digest for path in modules}
    readers = [(root, facts.units[""]) for facts in cells] + [
        (path, unit) for path, units in modules.items() if path.relative_to(root).as_posix() not in GIVERS for unit in units]
    read = {path.parent / name if name.startswith("./") else root / name for path, unit in readers for name in unit.files}
    files |= {path: hash_files(path) for path in read if path.exists()}
    lent = [path for stop in lenders(source.stem, source.parent.parent) if (path := source.with_name(f"{stop.topic}.py")).exists()]
    earlier = {path.stem: digest(json.dumps(fingerprint(path), sort_keys=True)) for path in lent}
    return {"code": digest(*(facts.digest for facts in cells)),
            "files": {path.relative_to(root).as_posix(): files[path] for path in sorted(files)}, "notebooks": earlier}


def stored_fingerprint(path: Path) -> dict | None:
    """构建时记在 .ipynb 里的指纹；没有构建，或没有记，就是 None。"""
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("course", {}).get("fingerprint")


def changes(old: dict, new: dict) -> str:
    """两个指纹差在哪里，写成中文，例如 "utils/training/loop.py、它用到的 mlm_pretraining"；一样就是空串。"""
    def differing(part: str) -> list[str]:                # 两边都有的在前：多半是它变了，别的才跟着添上或去掉
        names = [name for name in old[part].keys() | new[part].keys() if old[part].get(name) != new[part].get(name)]
        return sorted(names, key=lambda name: (not (name in old[part] and name in new[part]), name))

    names = ["它的代码"] * (old["code"] != new["code"]) + differing("files") + [f"它用到的 {name}" for name in differing("notebooks")]
    return "、".join(names[:SHOWN]) + (f" 等 {len(names)} 处" if len(names) > SHOWN else "")


def outdated(path: Path, source: Path) -> str:
    """构建好的 path（.ipynb）比它的源和用到的东西旧在哪里：一句给维护者看的话；不旧就是空串。"""
    old, rebuild = stored_fingerprint(path), f"请运行 course.py build {stop_of(source).number}"
    if old is None:
        return f"输出没有指纹，{rebuild}"
    changed = changes(old, fingerprint(source))
    return f"输出比代码旧：{changed} 变了（构建之后），{rebuild}" if changed else ""
