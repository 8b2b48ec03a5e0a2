"""读学生交来的作业：不信任它，只取出各道练习里学生写的那一格。只是铺路石（plumbing）。"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_MB = 60


@dataclass(frozen=True)
class Submission:
    """一份作业。answers 是 {练习的名字：学生写的代码}；others 是其余的代码格；problem 非空表示读不了。"""

    student: str
    path: Path
    notebook: str
    answers: dict[str, str]
    others: tuple[str, ...]
    problem: str = ""


def _file_name(topic: str) -> str:
    """文件名里认出是哪一本：编号_题目，编号不论（发下去以后可能换过次序）。"""
    return rf"\d\d_{topic}(?![a-z])"


def find_files(folder: Path, names: Iterable[str] = ()) -> list[tuple[str, Path]]:
    """文件夹里的全部 .ipynb：[(学生, 路径)]。

    子文件夹的名字就是学生；直接放着的，文件名里「编号_题目」（names 是各本的题目）以外的部分是学生。
    """
    found = []
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if path.is_symlink() or any(part.startswith(".") for part in parts):
            continue
        loose = re.sub("|".join(map(_file_name, names)) or "$^", "", path.stem).strip(" _-") or path.stem
        found.append((parts[0] if len(parts) > 1 else loose, path))
    return found


def _text(value) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else ""


def read_submission(student: str, path: Path, names: dict[str, list[str]]) -> Submission:
    """读一份作业。

    参数：
        student, path: find_files 给的。
        names: {notebook 的题目：[练习的名字]}。
    返回：
        Submission；坏文件也返回，problem 里说明。
    """
    def broken(problem: str, notebook: str = "") -> Submission:
        return Submission(student, path, notebook, {}, (), problem)

    try:
        if path.stat().st_size > MAX_MB * 1_000_000:
            return broken(f"文件太大（{path.stat().st_size / 1e6:.0f} MB，上限 {MAX_MB} MB），没有读")
        data = json.loads(path.read_bytes().decode("utf-8"))
        cells = [(c.get("cell_type"), _text(c.get("source")), c.get("metadata") or {}) for c in data["cells"]]
        noted = (data.get("metadata") or {}).get("course_release") or {}
        notebook = noted.get("notebook") if isinstance(noted, dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return broken(f"不是完好的 notebook（{type(error).__name__}）")
    if notebook not in names:
        notebook = next((name for name in names if re.search(_file_name(name), path.stem)), None)
    if notebook is None:
        return broken("认不出是哪一本：请保留原来的文件名")
    answers = _answers(cells, notebook, names[notebook])
    others = tuple(source for kind, source, _ in cells if kind == "code" and source not in answers.values()
                   and not re.match(r"\s*check\.", source))
    return Submission(student, path, notebook, answers, others)


def _answers(cells: list, topic: str, names: list[str]) -> dict[str, str]:
    """先按 nbgrader 的 grade_id 认，认不出再看「check.名字(」上面的那一格代码。"""
    found: dict[str, str] = {}
    before = ""
    for kind, source, metadata in cells:
        if kind != "code":
            continue
        record = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        grade_id = record.get("grade_id") if isinstance(record, dict) else None
        for name in names:
            if grade_id == f"{topic}-{name}":
                found[name] = source
            elif name not in found and re.match(rf"\s*check\.{name}\(", source):
                found[name] = before
        before = source
    return found
