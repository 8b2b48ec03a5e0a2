"""谁导入谁：只看语法树，不运行。规矩（tests/test_architecture.py）和图（tools/architecture.py）都从这里取。"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

PAGE = Path("docs") / "architecture.md"


class Import(NamedTuple):
    """一句导入里的一项：module 是模块的全名；name 是从它那里取的名字（`import a.b` 没有，就是空串），asname 是改叫的名字。"""

    module: str
    name: str = ""
    asname: str | None = None


@cache
def parsed(text: str) -> ast.Module:
    """语法树；按内容记住。"""
    return ast.parse(text)


def tree(path: Path) -> ast.Module:
    """一个文件的语法树。"""
    return parsed(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[Import]:
    """一个文件里的全部导入，函数里才导入的也算；相对的导入（from . import …）原样写成 "."，课程里不用它。"""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", alias.asname) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import("." * node.level + (node.module or ""), alias.name, alias.asname) for alias in node.names)


def modules(root: Path, *packages: str) -> dict[str, Path]:
    """这几个顶层文件夹里的全部模块：全名 → 文件；包的全名对应它的 __init__.py。"""
    files = (path for package in packages for path in sorted((root / package).rglob("*.py")))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def arrows(root: Path, *packages: str) -> Counter[tuple[str, str]]:
    """模块 → 它导入的模块，和导入了几项。`from utils.checks import objectives` 里的 objectives 是模块，就算那个模块。"""
    known = modules(root, *packages)
    found: Counter[tuple[str, str]] = Counter()
    for module, path in known.items():
        for item in imports(path):
            whole = f"{item.module}.{item.name}"
            target = whole if whole in known else item.module
            if target in known:
                found[module, target] += 1
    return found


def rooms(root: Path, package: str = "utils") -> dict[str, list[Path]]:
    """包里最上面一层的名字：文件，或有 .py 的文件夹；名字 → 它的文件。"""
    found: dict[str, list[Path]] = {}
    for module, path in modules(root, package).items():
        if "." in module:
            found.setdefault(module.split(".")[1], []).append(path)
    return found


def room_arrows(root: Path) -> Counter[tuple[str, str]]:
    """utils 里屋子之间的导入：（用的，被用的）→ 几项；自己用自己的不算。"""
    found: Counter[tuple[str, str]] = Counter()
    for (user, used), count in arrows(root, "utils").items():
        pair = (user.split(".") + [""])[1], (used.split(".") + [""])[1]
        if pair[0] != pair[1]:
            found[pair] += count
    return found


def order(root: Path) -> list[list[str]]:
    """docs/architecture.md 里的那一行规矩，从低到高；逗号隔开的并排，互不导入。"""
    (line,) = re.findall(r"^\w+(?: ?[<,] ?\w+)+$", (root / PAGE).read_text(encoding="utf-8"), re.M)
    return [re.split(r",\s*", rank) for rank in re.split(r"\s*<\s*", line)]


def labels(root: Path, package: str = "utils") -> dict[str, str]:
    """docs/architecture.md 的表里，各间屋子的中文名：`| utils/models | 模型 | … |`。"""
    text = (root / PAGE).read_text(encoding="utf-8")
    return dict(re.findall(rf"^\| `{package}/(\w+)(?:\.py|/)` \| (\S+) \|", text, re.M))


def circles(edges) -> list[list[str]]:
    """edges（一对对的「用的，被用的」）里的圈，一圈一个列表；没有圈就是空的。"""
    graph: dict[str, set[str]] = {}
    for user, used in edges:
        graph.setdefault(user, set()).add(used)
    done: set[str] = set()
    found: list[list[str]] = []

    def walk(node: str, path: list[str]) -> None:
        if node in path:
            found.append(path[path.index(node):])
        elif node not in done:
            for target in sorted(graph.get(node, ())):
                walk(target, [*path, node])
            done.add(node)

    for node in sorted(graph):
        walk(node, [])
    return found
