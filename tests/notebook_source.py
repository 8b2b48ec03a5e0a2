"""从 notebooks/src 里取出手写的类和函数，与 utils 的那一份比；给小课程写一份 road.toml。"""

import ast
import json
from pathlib import Path

from tools.notebooks.links import read_cells

SOURCES = Path(__file__).resolve().parent.parent / "notebooks" / "src"


def handmade(topic: str, *wanted: str, **given) -> dict:
    """执行一本 notebook 里名为 wanted 的类、函数、表（同名的取第一个），返回它们所在的名字空间。

    参数：topic：题目；wanted：要取的名字；**given：这些定义用到的名字（torch、nn……）。
    异常：KeyError：notebook 里没有。
    """
    found: dict[str, ast.stmt] = {}
    for cell in read_cells(SOURCES / f"{topic}.py"):
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
            names = [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else [
                t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
            for n in names:
                found.setdefault(n, node)
    space = dict(given)
    for n in wanted:
        exec(compile(ast.Module([found[n]], []), f"{topic}.py", "exec"), space)
    return space


def source_lines(topic: str, *wanted: str) -> int:
    """这些定义在 notebook 里一共几行（不数空行）。"""
    total = 0
    for cell in read_cells(SOURCES / f"{topic}.py"):
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
            label = getattr(node, "name", None) or next((t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)), None)
            if label in wanted:
                total += sum(bool(line.strip()) for line in ast.get_source_segment(cell.source, node).splitlines())
    return total


def stop_text(topic: str, **more: str) -> str:
    """小课程的 road.toml 里的一项；more 是要改、要添的，例如 makes="mlm"。"""
    row = {"topic": topic, "title": topic, "seal": "印", "question": [f"{topic} 是什么？"], "english": f"What is {topic}?",
           "read": 10, "run": 0.5, "practise": 5} | more
    return "[[notebook]]\n" + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in row.items())
