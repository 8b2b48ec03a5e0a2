"""文章模式：把 data/news/schemas/ 里可读的模板编成语法树。写法见 data/README.md。

语法树的节点有三种：（"text", 字符串）、（"slot", 变量，属性或 None）、（"choice", [（概率，累积概率，[节点…]）, …]）。
"""

from __future__ import annotations

import ast
import math
import operator
import re
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from utils.corpus.lexicon import GrammarError, Lexicon, positive_number

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}
PARTS = ("intro", "body", "title")                    # 推导的次序


def compile_text(template: str, where: str) -> list[tuple]:
    """把带 `{变量}` 与 `[甲|乙]` 的模板编成语法树。

    异常：
        GrammarError: 括号不配对。
    """
    tokens = re.findall(r"\{[^{}]*\}|[\[\]|]|[^\[\]|{}]+|[{}]", template)
    position = 0

    def sequence(depth: int) -> list[tuple]:
        nonlocal position
        nodes: list[tuple] = []
        while position < len(tokens) and tokens[position] not in ("|", "]"):
            token = tokens[position]
            position += 1
            if token == "[":
                nodes.append(choice(depth + 1))
            elif token.startswith("{") and len(token) > 2:
                variable, _, attribute = token[1:-1].partition(".")
                nodes.append(("slot", variable, attribute or None))
            elif token in ("{", "}"):
                raise GrammarError(f"{where}：花括号不配对：{template}")
            else:
                nodes.append(("text", token))
        if depth == 0 and position < len(tokens):
            raise GrammarError(f"{where}：多出了「{tokens[position]}」：{template}")
        return nodes

    def choice(depth: int) -> tuple:
        nonlocal position
        branches = []
        while True:
            weight = 1.0
            if position < len(tokens) and (found := re.match(r"(\d+):", tokens[position])):
                weight = float(found[1])
                tokens[position] = tokens[position][found.end():]
            branches.append((weight, [n for n in sequence(depth) if n != ("text", "")]))
            if position >= len(tokens):
                raise GrammarError(f"{where}：方括号没有收口：{template}")
            position += 1
            if tokens[position - 1] == "]":
                break
        total = sum(w for w, _ in branches)
        return ("choice", [(w / total, c / total, nodes) for (w, nodes), c in
                           zip(branches, accumulate(w for w, _ in branches), strict=True)])

    return sequence(0)


@dataclass(frozen=True)
class Variable:
    """一个变量怎样得到它的值。

    属性：
        kind: "lex"（词表）、"int"（整数）、"pick"（就地列出的几项）、"derived"（由别的变量算出）。
        spec: 词表名、（下界，上界，步长） 的表达式、就地的词表，或表达式。
        excluded: 值不许与这些变量相同。
    """

    kind: str
    spec: object
    excluded: tuple[str, ...] = ()


@dataclass
class Schema:
    """一个文章模式：变量的来历，以及三段文字的语法树。"""

    category: str
    name: str
    log_p: float
    variables: dict[str, Variable]
    parts: dict[str, list[tuple]] = field(default_factory=dict)


def evaluate(expression: str, values: dict[str, str]) -> int:
    """算一个只含整数、变量和 + - * // 的表达式。变量还没有值时抛出 KeyError。"""
    def walk(node):
        if isinstance(node, ast.Expression):
            return walk(node.body)
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return int(values[node.id])
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        raise GrammarError(f"表达式只能用整数、变量和 + - * //:{expression}")
    return walk(ast.parse(expression, mode="eval"))


def load_schemas(folder: Path, lexicons: dict[str, Lexicon]) -> list[Schema]:
    """读入全部模式文件，各类别、各模式按权重归一。

    异常：
        GrammarError: 写错的行，用到的变量或词表不存在，缺了导语、正文或标题。
    """
    weighted: list[tuple[float, Schema]] = []
    for path in sorted(folder.glob("*.txt")):
        category, weight, q, blocks = path.stem, 1.0, None, []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{path.name} 第 {number} 行"
            line = line.split("#")[0].rstrip()
            if not line.strip():
                continue
            if line.startswith("@category"):
                category = line.split(maxsplit=1)[1]
            elif line.startswith("@weight"):
                weight = positive_number(line, where)
            elif line.startswith("@zipf"):
                q = positive_number(line, where)
            elif line.startswith("=="):
                name, _, share = line[2:].partition("weight=")
                blocks.append((float(share or 1), Schema(category, name.strip(), 0.0, {}), {p: "" for p in PARTS}))
            elif not blocks:
                raise GrammarError(f"{where}：模式要用「== 名字」开头。")
            elif line.partition(":")[0] in PARTS:
                part, _, text = line.partition(":")
                blocks[-1][2][part] += text.strip()
            elif line.startswith(" "):
                blocks[-1][2][part] += line.strip()
            elif "=" in line:
                name, variable = _variable(line, where, lexicons)
                blocks[-1][1].variables[name] = variable
            else:
                raise GrammarError(f"{where}：看不懂这一行：{line}")
        if q is not None:
            blocks = [(1 / (rank + q), schema, texts) for rank, (_, schema, texts) in enumerate(blocks)]
        total = sum(b[0] for b in blocks)
        for share, schema, texts in blocks:
            where = f"{path.name} 的「{schema.name}」"
            for part in PARTS:
                if not texts[part]:
                    raise GrammarError(f"{where}缺了 {part}。")
                schema.parts[part] = compile_text(texts[part], where)
            unknown = _slots(schema) - set(schema.variables)
            if unknown:
                raise GrammarError(f"{where}用了没有定义的变量：{'、'.join(sorted(unknown))}。")
            weighted.append((weight * share / total, schema))
    total = sum(w for w, _ in weighted)
    for w, schema in weighted:
        schema.log_p = math.log(w / total)
    return [schema for _, schema in weighted]


def _slots(schema: Schema) -> set[str]:
    def walk(nodes):
        for node in nodes:
            if node[0] == "slot":
                yield node[1]
            elif node[0] == "choice":
                for _, _, branch in node[1]:
                    yield from walk(branch)
    return {name for part in PARTS for name in walk(schema.parts[part])}


def _variable(line: str, where: str, lexicons: dict[str, Lexicon]) -> tuple[str, Variable]:
    if ":=" in line:
        name, _, expression = line.partition(":=")
        return name.strip(), Variable("derived", expression.strip())
    name, _, spec = (s.strip() for s in line.partition("="))
    if "|" in spec:
        items = [re.fullmatch(r"(?:(\d+):)?(\S+)", item.strip()) for item in spec.split("|")]
        if not all(items):
            raise GrammarError(f"{where}：{name} 列出的项有空的，或夹着空格。")
        return name, Variable("pick", Lexicon(name, [(m[2], float(m[1] or 1), {}) for m in items]))
    kind, *rest = spec.split()
    if kind == "int":
        if len(rest) not in (2, 3):
            raise GrammarError(f"{where}：整数写作「{name} = int 下界 上界 [步长]」，表达式里不要有空格。")
        return name, Variable("int", (*rest, "1")[:3])
    if kind not in lexicons:
        raise GrammarError(f"{where}：没有名为 {kind} 的词表。有的是：{'、'.join(sorted(lexicons))}。")
    if rest and rest[0] != "except":
        raise GrammarError(f"{where}：词表名后面只能写 except 变量…。")
    return name, Variable("lex", kind, tuple(rest[1:]))
