"""批改：每份作业在自己的进程里运行，限时、限内存、不联网；出了什么事都只算它自己的。只是铺路石（plumbing）。"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nbformat.v4 import new_code_cell

from tools.classroom.child import Child, isolation
from tools.classroom.submissions import Submission, find_files, read_submission
from tools.notebooks.exercises import Item, definitions, find_exercises, needed
from tools.notebooks.links import read_cells
from tools.notebooks.lint import source_files
from utils.checks.framework.verdict import OPEN, PASS, WRONG
from utils.paths import ROOT

START_SECONDS = 300                                       # 子进程导入 torch 等，最多这么久


@dataclass(frozen=True)
class Limits:
    """一道题的限制：seconds 秒（从开始运行它算起），memory_mb 兆字节（导入之外再要的；父进程另按三倍盯着总量）。"""

    seconds: float = 60.0
    memory_mb: int = 2000


@dataclass(frozen=True)
class Row:
    """一个学生的一道题：status 是 "通过"、"还不对"、"未做" 之一。"""

    student: str
    notebook: str
    number: int
    name: str
    title: str
    points: int
    status: str
    kind: str = ""
    hint: str = ""
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass
class Course:
    """课程这一边的（可信的）题目：每本 notebook 的练习和定义。"""

    items: dict[str, list[Item]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, notebooks: Path = ROOT / "notebooks") -> Course:
        course = cls()
        for source in source_files(notebooks):
            cells = read_cells(source)
            items = find_exercises(cells)
            if items:
                course.items[source.stem], course.parts[source.stem] = items, definitions(cells)
        return course


STOPPED = {"超时": "运行得太久，批改时把它停下了。多半是停不下来的循环，或者一次太大的计算。",
           "内存": "要的内存太多，批改时把它停下了。",
           "结束": "运行它的进程突然退出了（崩溃，或者自己调用了退出）。",
           "改动检查": "它改动了检查程序本身，这道题不算。"}


def grade_submission(submission: Submission, course: Course, limits: Limits = Limits()) -> list[Row]:
    """批改一份作业。返回每道题一行；交来的文件里没有的题算「未做」。"""
    items = course.items[submission.notebook]
    verdicts: dict[str, dict] = {}
    todo = [item for item in items if submission.answers.get(item.name, item.stub).strip() != item.stub.strip()]
    while todo:
        before = len(todo)
        folder = tempfile.mkdtemp(prefix="grade-")
        try:
            todo = _one_process(submission, todo, course, limits, verdicts, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        assert len(todo) < before
    return [_row(submission, item, verdicts.get(item.name)) for item in items]


def _task(submission: Submission, todo: list[Item], course: Course, limits: Limits) -> dict:
    answers = [{"name": i.name, "code": submission.answers[i.name], "check": i.check} for i in todo]
    everything = "\n".join(a["code"] for a in answers)
    trusted = course.parts[submission.notebook]
    own = [p for p in _own_definitions(submission) if p not in trusted]
    wanted = [p for a in answers for p in needed(trusted, a["code"] + "\n" + "\n".join(own))]
    parts = [{"code": p, "trusted": True} for p in trusted if p in wanted]
    parts += [{"code": p, "trusted": False} for p in needed(own, everything)]
    return {"notebook": submission.notebook, "parts": parts, "answers": answers, "memory_mb": limits.memory_mb,
            "seconds": 0.8 * limits.seconds, "socket_guard": not isolation()}


def _own_definitions(submission: Submission) -> list[str]:
    try:
        return definitions([new_code_cell(source) for source in submission.others])
    except (ValueError, RecursionError):
        return []


def _one_process(submission: Submission, todo: list[Item], course: Course, limits: Limits, verdicts: dict, folder: str) -> list[Item]:
    """用一个进程批改 todo；中途倒下的那一题记下原因。返回还没有批改的题（至少少一题）。"""
    child, running, seconds = Child(_task(submission, todo, course, limits), folder), None, START_SECONDS
    names = [item.name for item in todo]
    try:
        while True:
            row, stopped = child.wait_row(seconds, 3 * limits.memory_mb)
            if row is None:
                break
            seconds = limits.seconds
            if row.get("start") in names:
                running = row["start"]
            elif row.get("name") == running and running is not None:
                verdicts[running] = {"stopped": "改动检查"} if row.get("tampered") else row
                names.remove(running)
                running = None
    finally:
        child.stop()
    if names and (running is not None or len(names) == len(todo)):
        fallen = running or names[0]                      # 一题都没开始就倒下的，算在第一题上
        verdicts[fallen] = {"stopped": stopped}
        names.remove(fallen)
    return [item for item in todo if item.name in names]


def _row(submission: Submission, item: Item, verdict: dict | None) -> Row:
    about = (submission.student, submission.notebook, item.number, item.name, item.title, item.stars)
    if verdict is None:
        return Row(*about, OPEN)
    if "stopped" in verdict:
        return Row(*about, WRONG, verdict["stopped"], STOPPED[verdict["stopped"]])
    text = {key: str(verdict.get(key, ""))[:2000] for key in ("status", "kind", "hint")}
    status = text["status"] if text["status"] in (OPEN, PASS, WRONG) else WRONG
    evidence = tuple((str(pair[0])[:100], str(pair[1])[:3000]) for pair in verdict.get("evidence") or [] if len(pair) == 2)[:6]
    return Row(*about, status, text["kind"], text["hint"] if status == WRONG else "", evidence)


def grade_folder(folder: Path, limits: Limits = Limits(), course: Course | None = None,
                 tell: Callable[[str], None] = print) -> tuple[list[Row], list[tuple[str, str, str]]]:
    """批改一个文件夹。

    参数：
        folder: 一个学生一个子文件夹，里面是交回来的 .ipynb；直接放着的文件也行，文件名里要有学生的名字。
        limits: 每道题的限制。
        course: 可信的题目；None 表示读本课程的。
        tell: 每批完一份，用它说一行。
    返回：
        （每个学生每道题一行，[（学生，文件，问题）] 读不了的）。
    异常：
        ValueError: 文件夹不在，或一本也没有。
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"没有「{folder}」这个文件夹。")
    course = course or Course.read()
    names = {notebook: [item.name for item in items] for notebook, items in course.items.items()}
    read = [read_submission(student, path, names) for student, path in find_files(folder, names)]
    if not read:
        raise ValueError(f"「{folder}」里没有 .ipynb 文件。")
    broken = [(s.student, str(s.path.relative_to(folder)), s.problem) for s in read if s.problem]
    good = _latest([s for s in read if not s.problem], folder, list(names), broken)
    rows: list[Row] = []
    with ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 2) // 2))) as pool:
        for submission, found in zip(good, pool.map(lambda s: grade_submission(s, course, limits), good), strict=True):
            rows += found
            tell(f"{submission.student}　{submission.notebook}：通过 {sum(r.status == PASS for r in found)}/{len(found)}")
    return rows, broken


def _latest(submissions: list[Submission], folder: Path, order: list[str], broken: list[tuple[str, str, str]]) -> list[Submission]:
    """同一个学生同一本交了两份，取改动时间最晚的，其余记进 broken。order 是各本的次序。"""
    chosen: dict[tuple[str, str], Submission] = {}
    for s in sorted(submissions, key=lambda s: s.path.stat().st_mtime):
        older = chosen.get((s.student, s.notebook))
        if older:
            broken.append((s.student, str(older.path.relative_to(folder)), "同一本交了不止一份，批改的是最晚的那份"))
        chosen[s.student, s.notebook] = s
    return sorted(chosen.values(), key=lambda s: (s.student, order.index(s.notebook)))
