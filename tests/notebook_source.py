"""从 notebooks/src 里取出手写的类和函数，与 utils 的那一份比。"""

import ast
from pathlib import Path

import jupytext

SOURCES = Path(__file__).resolve().parent.parent / "notebooks" / "src"


def handmade(name: str, *wanted: str, **given) -> dict:
    """执行一本 notebook 里名为 wanted 的类、函数、表（同名的取第一个），返回它们所在的名字空间。

    参数：name：源文件名，不带 .py；wanted：要取的名字；**given：这些定义用到的名字（torch、nn……）。
    异常：KeyError：notebook 里没有。
    """
    found: dict[str, ast.stmt] = {}
    for cell in jupytext.read(SOURCES / f"{name}.py", fmt="py:percent").cells:
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
            names = [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else [
                t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
            for n in names:
                found.setdefault(n, node)
    space = dict(given)
    for n in wanted:
        exec(compile(ast.Module([found[n]], []), f"{name}.py", "exec"), space)
    return space


def source_lines(name: str, *wanted: str) -> int:
    """这些定义在 notebook 里一共几行（不数空行）。"""
    total = 0
    for cell in jupytext.read(SOURCES / f"{name}.py", fmt="py:percent").cells:
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
            label = getattr(node, "name", None) or next((t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)), None)
            if label in wanted:
                total += sum(bool(line.strip()) for line in ast.get_source_segment(cell.source, node).splitlines())
    return total
