"""看一段代码的语法树，取出与 notebook 的指纹有关的事：它是什么程序，提到哪些模块、数据、检查点。只看，不运行。铺路石（plumbing）。

怎样用这些事，见 tools/notebooks/fingerprint.py。
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from utils.road import KINDS

FINDERS = {"load_checkpoint": 3, "find_checkpoint": 2}    # 找检查点的函数 → prefer 是第几个参数（从 0 数起）
BESIDE = ("Path(__file__).parent", "Path(__file__).resolve().parent")
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Unit:
    """模块里的一段：一个函数、一个类，或其余的一切。

    属性：
        modules: 提到的模块，（往上几层，全名）；往上 0 层是绝对的名字，末尾的 * 表示「以此开头的都算」。
        files: 读的文件或文件夹，相对于课程文件夹；以 "./" 开头的相对于这个模块所在的文件夹。
        models: 找了哪些检查点，（"mlm" 或 "clm"，"shipped" 或 "own"）；从代码里看不出的，可能的都算上。
        words: 提到的名字和写着的字符串；别处的函数，名字在这里面的才算用到。
    """

    modules: frozenset[tuple[int, str]]
    files: frozenset[str]
    models: frozenset[tuple[str, str]]
    words: frozenset[str]


@dataclass(frozen=True)
class Facts:
    """一个模块或一格代码。

    属性：
        digest: 程序的指纹，不含注释和文档字符串。
        units: 名字 → 一段；"" 是一导入就运行的部分，"-m" 是 `python -m` 才运行的部分。
        face: 是不是一间屋子的门面：除了转手别处的名字和 `__all__`，什么也没有。门面的每个名字自成一段。
    """

    digest: str
    units: dict[str, Unit]
    face: bool = False


def digest(*parts: str | bytes) -> str:
    """几段内容合起来的指纹：SHA-256 的前 12 位十六进制数。"""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8") if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:12]


@cache
def study(text: str, cell: bool = False) -> Facts:
    """看一段代码。结果按内容记住，所以文件变了一定会重看。

    参数：
        text: 一个模块，或一格代码。
        cell: 是不是一格代码：总是整格都运行；开头的字符串不是文档字符串（单独一句时，会显示出来）。
    """
    try:
        tree, program = ast.parse(text), ""
    except SyntaxError:                                   # 有 IPython 的 % 命令，或正改到一半：整段按文字算
        tree, program = _without_magics(text), text
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS) or node is tree and not cell:
            node.body = node.body[ast.get_docstring(node, clean=False) is not None:]
    if not cell and _is_face(tree):
        return Facts(digest(_written(tree)), {alias.asname or alias.name: _unit([ast.ImportFrom(node.module, [alias], node.level)])
                                              for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}, True)
    parts: dict[str, list[ast.stmt]] = {"": []}
    for node in tree.body:
        parts.setdefault("" if cell else _unit_name(node), []).append(node)
    return Facts(digest(program or _written(tree)), {name: _unit(body) for name, body in parts.items()})


def _is_face(tree: ast.Module) -> bool:
    def listing(node: ast.stmt) -> bool:
        return isinstance(node, ast.Assign) and [name_of(target) for target in node.targets] == ["__all__"]
    return any(map(listing, tree.body)) and all(isinstance(node, ast.ImportFrom) or listing(node) for node in tree.body)


def same_program(old: str, new: str) -> bool:
    """两格代码是不是同一个程序：只差注释、排版和文档字符串的，运行起来一样，输出还作数。"""
    return study(old, cell=True).digest == study(new, cell=True).digest


def _without_magics(text: str) -> ast.Module:
    try:
        return ast.parse(re.sub(r"(?m)^(\s*)[%!].*", r"\1pass", text))
    except SyntaxError:
        return ast.Module([], [])


def _written(node) -> str:
    """语法树写成一行。不用 ast.dump：空的项写不写、汉字转不转义，各版本的 Python 不一样，这里要处处相同。"""
    if isinstance(node, ast.AST):
        fields = (f"{name}={_written(value)}" for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({','.join(fields)})"
    return f"[{','.join(map(_written, node))}]" if isinstance(node, list) else ascii(node)


def _unit_name(node: ast.stmt) -> str:
    """一句属于哪一段；有装饰器的，装饰器可能当场就用它，算一导入就运行。"""
    if isinstance(node, DEFINITIONS) and not node.decorator_list:
        return node.name
    return "-m" if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" else ""


def _unit(body: list[ast.stmt]) -> Unit:
    nodes = [node for statement in body for node in ast.walk(statement)]
    models = frozenset(_models(nodes))
    files = frozenset(_files(nodes)) | {f"data/checkpoints/{kind}" for kind, _ in models}
    return Unit(frozenset(_modules(nodes)), files, models, frozenset(word for node in nodes for word in _words(node)))


def text_of(node: ast.AST | None) -> str | None:
    """字符串常量的值；不是就是 None。"""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def name_of(node: ast.AST) -> str | None:
    """变量或属性的名字；不是就是 None。"""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _words(node: ast.AST) -> Iterator[str]:
    words = (node.name, node.asname) if isinstance(node, ast.alias) else (name_of(node), text_of(node))
    yield from (word for word in words if word)


def _modules(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """提到的模块：导入的，和写成字符串的（交给 importlib、`python -m`）。是不是课程的模块，这里不管。"""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
            yield from ((node.level, f"{node.module or ''}.{alias.name}".lstrip(".")) for alias in node.names)
        elif isinstance(node, ast.JoinedStr):             # f"utils.checks.nb{number}"：以此开头的都可能
            head = text_of(node.values[0]) if node.values else None
            if head and "." in head:
                yield 0, head + "*"
        elif "." in (text_of(node) or ""):
            yield 0, node.value


def _files(nodes: list[ast.AST]) -> Iterator[str]:
    """读的数据：`DATA / "名字"`、SHIPPED，放在模块旁边的文件夹，以及点名的脚本和样式（"stepper.js"，也在旁边）。"""
    for node in nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            left, right = ast.unparse(node.left), text_of(node.right)
            if left == "DATA" or left.endswith(".DATA"):
                yield f"data/{right.split('/')[0]}" if right else "data"
            elif left in BESIDE and right:
                yield f"./{right}"
        elif re.fullmatch(r"\w+\.(js|css)", text_of(node) or ""):
            yield f"./{node.value}"
        elif name_of(node) == "SHIPPED" and isinstance(node.ctx, ast.Load):
            yield from (f"data/checkpoints/{kind}" for kind in KINDS)


def _models(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """找了哪些检查点。改了名字、当作值来传的，看不出是哪一个，都算。"""
    calls = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        name = node.name if isinstance(node, ast.alias) and node.asname else name_of(node)
        if name not in FINDERS:
            continue
        call = calls.get(id(node))
        kind, source = _argument(call, 0, "kind", ""), _argument(call, FINDERS[name], "prefer", "own")
        for each in [kind] if kind in KINDS else KINDS:
            yield from ((each, one) for one in ([source] if source in ("own", "shipped") else ("own", "shipped")))


def _argument(call: ast.Call | None, at: int, name: str, default: str) -> str | None:
    """一个参数写的字符串；没写就是 default；写的不是字符串常量（或根本不是调用）就是 None。"""
    if call is None or any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return None
    given = [k.value for k in call.keywords if k.arg == name] + call.args[at:at + 1]
    return text_of(given[0]) if given else default
