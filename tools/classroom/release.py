"""发布：由 notebooks/ 写出学生版（没有参考答案），和给 nbgrader 用的教师版。只是铺路石（plumbing）。"""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.notebooks import colab as bootstrap
from tools.notebooks.cleaning import cell_id
from tools.notebooks.exercises import Item, find_exercises, tag
from tools.notebooks.links import read_cells
from tools.notebooks.lint import source_files
from utils.paths import ROOT
from utils.road import stop_of

FOLDED = re.compile(r"\n*<details><summary>参考答案</summary>.*?</details>\n*", re.S)
COPIED = ("course.py", "requirements.txt", "constraints.txt", "environment.yml", "README.md", "README.en.md", "LICENSE",
          "data", "tools/__init__.py", "tools/install", "utils")     # 批改、构建用的工具不发给学生
CONFIG = '''\
"""nbgrader 的设置。在这个文件夹里运行 nbgrader generate_assignment 编号_题目、nbgrader autograde 编号_题目。"""
import os
from pathlib import Path

os.environ["COURSE_CHECK_STRICT"] = "1"       # 批改时，check 没通过就报错，nbgrader 才记 0 分
os.environ.setdefault("COURSE_PRESET", "smoke")                       # nbgrader 会把整本运行一遍，用最小的预设
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent / "student")    # 作业里 import 的 utils 在那里
c = get_config()                              # noqa: F821
c.CourseDirectory.course_id = "llm-from-zero"
c.ClearSolutions.code_stub = {"python": "..."}
c.Execute.timeout = 3600                      # 一格最多这么久（秒）；下面让出错的格子不打断后面的
c.Execute.allow_errors = True
'''
NOTE = """\
student/    发给学生：整个课程，notebooks 里没有参考答案。学生在里面运行 course.py lab，交回做过的 .ipynb。
nbgrader/   给用 nbgrader 的老师：source/ 里是带答案的教师版，不要发给学生。

收回的作业放进一个文件夹，一个学生一个子文件夹，然后在你自己的课程里运行：
    python3 course.py grade 那个文件夹
"""


def nbgrader_cell(topic: str, item: Item, kind: str) -> dict:
    """nbgrader 的单元记录。kind 是 "stub"（学生写的）、"check"（自动评分）。"""
    grade = kind == "check"
    record = {"grade": grade, "solution": not grade, "locked": grade, "task": False, "schema_version": 3,
              "grade_id": f"{topic}-{item.name}" + ("-check" if grade else "")}
    return record | ({"points": item.stars} if grade else {})


def solved(item: Item) -> str:
    """教师版的留空格：参考答案夹在 nbgrader 的记号之间，generate_assignment 会把它换回「...」。"""
    heads = [x for x in item.stub.split("\n") if x.startswith("def ")]
    lines, plain = item.answer.rstrip("\n").split("\n"), [re.sub(r"\s*#.*$", "", x) for x in heads]
    if len(heads) == 1 and plain[0] in lines:             # 写函数的题：只夹函数体，第一行照留空格里的写
        at = lines.index(plain[0])
        return "\n".join([*lines[:at], heads[0], "    ### BEGIN SOLUTION", *lines[at + 1:], "    ### END SOLUTION"])
    return "\n".join([item.stub, "### BEGIN SOLUTION", *lines, "### END SOLUTION"])


def without_answers(nb: NotebookNode, items: list[Item], topic: str) -> NotebookNode:
    """学生版：去掉参考答案，给留空格和检查格加上 nbgrader 的记录。"""
    result = copy.deepcopy(nb)
    for item in items:
        for offset, kind in ((1, "stub"), (2, "check")):
            result.cells[item.index + offset].metadata["nbgrader"] = nbgrader_cell(topic, item, kind)
    cells = []
    for cell in result.cells:
        if tag(cell) == "answer":
            continue
        if cell.cell_type == "markdown":
            cell.source = FOLDED.sub("\n\n", cell.source).strip("\n")
        cells.append(cell)
    result.cells = cells
    return result


def with_answers(nb: NotebookNode, items: list[Item], topic: str) -> NotebookNode:
    """nbgrader 的教师版（source）：留空格里写着参考答案，没有输出。"""
    result = copy.deepcopy(nb)
    for item in items:
        result.cells[item.index + 1].source = solved(item)
    for cell in result.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return without_answers(result, items, topic)


def notebook(source: Path, *others: Path) -> NotebookNode:
    """一本 notebook：notebooks/ 里（或 others 里）有与源一致的 .ipynb，带着输出，就用它；否则用源。不带 Colab 的引导单元。"""
    cells = read_cells(source)
    for built in (source.parent.parent / f"{stop_of(source).name}.ipynb", *others):
        nb = nbformat.read(built, 4) if built.exists() else None
        if nb:
            nb.cells = bootstrap.without(nb.cells)
        if nb and [(c.cell_type, c.source) for c in cells] == [(c.cell_type, c.source) for c in nb.cells]:
            return nb
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for n, cell in enumerate(nb.cells, 1):
        cell["id"] = cell_id(source.stem, n)
    return nb


def _write(nb: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.validate(nb)
    path.write_bytes((nbformat.writes(nb, version=4, indent=1, ensure_ascii=False).rstrip("\n") + "\n").encode("utf-8"))


def release(folder: Path, notebooks: Path = ROOT / "notebooks", whole: bool = True) -> list[str]:
    """写出 folder/student（学生版）与 folder/nbgrader（教师版）。

    参数：
        folder: 要写的文件夹；必须是空的或不存在。
        notebooks: 课程的 notebooks/。
        whole: 学生版里是否带上整个课程（course.py、tools、utils、data……），学生拿到就能运行。
    返回：
        每本一行，给老师看。
    异常：
        ValueError: folder 不是空的。
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"「{folder}」不是空文件夹。请换一个名字，或者先把它清空。")
    lines = []
    for source in source_files(notebooks):
        nb, topic, name = notebook(source), source.stem, stop_of(source).name
        items = find_exercises(nb.cells)
        nb.metadata.pop("jupytext", None)
        student = without_answers(nb, items, topic)
        student.metadata["course_release"] = {"notebook": topic}
        _write(bootstrap.insert(student, topic), folder / "student" / "notebooks" / f"{name}.ipynb")
        if items:
            teacher = with_answers(nb, items, topic)
            teacher.metadata["course_release"] = {"notebook": topic}
            _write(teacher, folder / "nbgrader" / "source" / name / f"{name}.ipynb")
        lines.append(f"{name}：{len(items)} 道练习，共 {sum(i.stars for i in items)} 分")
    (folder / "nbgrader").mkdir(exist_ok=True)
    (folder / "nbgrader" / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    (folder / "说明.txt").write_text(NOTE, encoding="utf-8")
    if whole:
        _copy_course(folder / "student", notebooks)
    return lines


def _copy_course(folder: Path, notebooks: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".ipynb_checkpoints", "outputs")
    for name in COPIED:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, folder / name, ignore=ignore)
        elif origin.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, folder / name)
    if (notebooks / "road.toml").exists():
        shutil.copy2(notebooks / "road.toml", folder / "notebooks" / "road.toml")
    if (notebooks / "figures").is_dir():
        shutil.copytree(notebooks / "figures", folder / "notebooks" / "figures")
