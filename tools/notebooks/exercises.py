"""从 notebook 的源里取出练习：题目、留空的格子、检查、折叠的参考答案。测试、发布、批改都从这里取，答案只写在 notebook 里。

一道练习是相邻的四格，靠标签认：

    # %% [markdown] tags=["exercise"]     **练习 1 · 标题**（★★，10 分钟）题目……
    # %% tags=["stub"]                    留空的格子，学习者写在这里
    # %% tags=["check"]                   check.名字(答案)
    # %% [markdown] tags=["answer"]       <details>……里面的第一段 python 代码就是参考答案……</details>

只是铺路石（plumbing）。
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from nbformat import NotebookNode

TAGS = ("exercise", "stub", "check", "answer")
_TITLE = re.compile(r"\*\*练习 (\d+) · ([^*]+)\*\*（(★{1,3})，(\d+) 分钟）")
_CHECK = re.compile(r"^check\.(\w+)\(.+\)$", re.S)
_CODE = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


class BadExercise(ValueError):
    """notebook 里的练习写得不合约定。"""


@dataclass(frozen=True)
class Item:
    """notebook 里的一道练习。index 是题目那一格的下标（从 0 数起），后面三格依次是留空、检查、答案。"""

    index: int
    number: int
    title: str
    stars: int
    minutes: int
    name: str
    stub: str
    check: str
    answer: str


def tag(cell: NotebookNode) -> str | None:
    """这一格的练习标签；没有则 None。"""
    found = [t for t in cell.metadata.get("tags", []) if t in TAGS]
    return found[0] if found else None


def find_exercises(cells: list[NotebookNode]) -> list[Item]:
    """取出全部练习，按出现的次序。

    异常：
        BadExercise: 四格不全、标题或检查写得不合约定、答案里没有代码。
    """
    items = []
    for index, cell in enumerate(cells):
        kind = tag(cell)
        if kind is None:
            continue
        if kind != "exercise":
            before = [tag(c) for c in cells[max(0, index - 3):index]]
            if list(TAGS[:TAGS.index(kind)]) != before[len(before) - TAGS.index(kind):]:
                raise BadExercise(f"第 {index + 1} 格（{kind}）不在一道练习里：四格要按 {'、'.join(TAGS)} 相邻排列")
            continue
        items.append(_item(cells, index))
    numbers = [item.number for item in items]
    if numbers != list(range(1, len(items) + 1)):
        raise BadExercise(f"练习的编号应当是 1、2、3……，现在是 {numbers}")
    return items


def _item(cells: list[NotebookNode], index: int) -> Item:
    four = cells[index:index + 4]
    where = f"第 {index + 1} 格起的练习"
    if [tag(c) for c in four] != list(TAGS):
        raise BadExercise(f"{where}：后面应当依次是 stub、check、answer 三格")
    title = _TITLE.search(four[0].source)
    if not title:
        raise BadExercise(f"{where}：标题应当写成 **练习 1 · 标题**（★★，10 分钟）")
    check = _CHECK.match(four[2].source.strip())
    if not check:
        raise BadExercise(f"{where}：检查的一格应当只有 check.名字(答案)")
    answer = _CODE.search(four[3].source)
    if not answer or "<details>" not in four[3].source or "</details>" not in four[3].source:
        raise BadExercise(f"{where}：参考答案应当折叠在 <details> 里，并有一段 ```python 代码")
    return Item(index, int(title[1]), title[2].strip(), len(title[3]), int(title[4]), check[1],
                four[1].source, four[2].source.strip(), answer[1])


def definitions(cells: list[NotebookNode]) -> list[str]:
    """这些代码格里顶层的 import、函数和类的定义、字面量常数，一条一段：不训练、不读语料，答案要用的名字几秒就有。"""
    parts = []
    for cell in cells:
        if cell.cell_type != "code" or tag(cell) in ("stub", "check"):
            continue
        try:
            body = ast.parse(cell.source).body
        except SyntaxError:                               # 草稿格，或 IPython 的魔法命令
            continue
        parts += [ast.unparse(node) for node in body if _quick(node)]
    return parts


def _quick(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        try:
            ast.literal_eval(node.value)
        except ValueError:
            return False
        return all(isinstance(target, ast.Name) for target in node.targets)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def needed(parts: list[str], code: str) -> list[str]:
    """definitions 里，运行 code 用得到的那些（连同它们自己要用的），次序不变。读不懂的代码，全部都要。"""
    try:
        wanted, kept = _names(code), set()
        defines = [_names(part, ast.Store) for part in parts]
        while fresh := {i for i, names in enumerate(defines) if names & wanted} - kept:      # 先写的也会用到后写的
            kept |= fresh
            wanted = wanted.union(*(_names(parts[i]) for i in fresh))
    except (SyntaxError, ValueError, RecursionError):
        return parts
    return [parts[i] for i in sorted(kept)]


def _names(code: str, context: type = ast.expr_context) -> set[str]:
    """代码里出现的名字；context 为 ast.Store 时只要它定义的。"""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(a.asname or a.name).split(".")[0] for a in node.names}
    return found
