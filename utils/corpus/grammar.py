"""生成语法：从词表和模板生成新闻，并给出每篇的精确概率。

一篇文档由一次「推导」得到：先选模式（schema），再依次写导语（intro）、正文（body）、标题（title）。遇到 `[甲|乙]` 就选一支，
遇到 `{变量}` 就在它第一次出现时抽一个值，以后照抄。每一步选择的概率都写明了，所以 −log p（文档） 等于各步 −log p 之和。
只要同一段文字只有一种推导，这个和就是文档的精确信息量，也就是任何模型的平均损失都越不过的下限（entropy floor）。
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from utils.corpus.lexicon import GrammarError, Lexicon, load_lexicons
from utils.corpus.surface import surface_forms
from utils.corpus.templates import PARTS, Schema, Variable, evaluate, load_schemas

DIGITS = re.compile(r"0|[1-9][0-9]*")


@dataclass(frozen=True)
class Derivation:
    """一篇文档及其推导。

    属性：
        schema: 模式。
        texts: {"intro": …，"body": …，"title": …}。
        log_p: 各段的对数概率（奈特）；选模式的概率算在 intro 里。
        values: 变量的值。
        seen: 各段里出现过的变量。
    """

    schema: Schema
    texts: dict[str, str]
    log_p: dict[str, float]
    values: dict[str, str]
    seen: dict[str, set[str]]


class Grammar:
    """整套新闻语法：能生成（sample）、能解析（parse）、能核对（mentions）。

    参数：
        folder: 含 lexicon/ 与 schemas/ 的文件夹。
        new_names: 为真时，凡留有新名字（@new）的词表都只抽新名字。
    异常：
        GrammarError: 文件写错。
    """

    def __init__(self, folder: Path, new_names: bool = False):
        lexicons = load_lexicons(folder / "lexicon")
        self.lexicons = {name: table.renewed() for name, table in lexicons.items()} if new_names else lexicons
        self.schemas = load_schemas(folder / "schemas", self.lexicons)
        self.cumulative = list(accumulate(math.exp(s.log_p) for s in self.schemas))

    # ---- 生成
    def sample(self, rng: Random, schema: Schema | None = None) -> Derivation:
        """抽一篇文档。schema 为 None 时按权重选一个模式。"""
        if schema is None:
            schema = self.schemas[min(bisect_right(self.cumulative, rng.random()), len(self.schemas) - 1)]
        values: dict[str, str] = {}
        texts, log_p, seen = {}, {}, {}
        for part in PARTS:
            pieces: list[str] = []
            seen[part] = set()
            score = self._emit(schema, schema.parts[part], values, pieces, seen[part], rng)
            texts[part], log_p[part] = "".join(pieces), score + (schema.log_p if part == "intro" else 0.0)
        return Derivation(schema, texts, log_p, values, seen)

    def _emit(self, schema, nodes, values, pieces, seen, rng) -> float:
        score = 0.0
        for node in nodes:
            if node[0] == "text":
                pieces.append(node[1])
            elif node[0] == "choice":
                u = rng.random()
                branch = next((b for b in node[1] if u < b[1]), node[1][-1])
                score += math.log(branch[0]) + self._emit(schema, branch[2], values, pieces, seen, rng)
            else:
                _, name, attribute = node
                if name not in values:
                    score += self._draw(schema, name, attribute, values, rng)
                seen.add(name)
                pieces.append(self.surface(schema, name, attribute, values[name]))
        return score

    def _draw(self, schema, name, attribute, values, rng) -> float:
        variable = schema.variables[name]
        if attribute:
            raise GrammarError(f"{schema.category}/{schema.name}：先写 {{{name}}} 再用它的属性 {attribute}，否则推导不唯一。")
        try:
            if variable.kind == "derived":
                values[name] = str(evaluate(variable.spec, values))
                return 0.0
            if variable.kind == "int":
                choices = range(*self.bounds(variable, values))
                if not choices:
                    raise GrammarError(f"{schema.category}/{schema.name}：整数 {name} 的范围是空的：{choices}")
                values[name] = str(choices[int(rng.random() * len(choices))])
                return -math.log(len(choices))
            lexicon = self.lexicon_of(schema, name)
            values[name], log_p = lexicon.draw(rng, {values[v] for v in variable.excluded})
            return log_p
        except KeyError as missing:
            raise GrammarError(f"{schema.category}/{schema.name}：抽 {name} 时，它依靠的 {missing} 还没有在文中出现。") from None

    @staticmethod
    def bounds(variable: Variable, values: dict[str, str]) -> tuple[int, int, int]:
        """整数变量能取的数，写成 range 的三个参数；values 是已知的变量，缺了范围所依靠的就抛出 KeyError。"""
        low, high, step = (evaluate(e, values) for e in variable.spec)
        return low, high + 1, step

    def surface(self, schema: Schema, name: str, attribute: str | None, value: str) -> str:
        """变量取这个值时写出来的字：attribute 是 None 就是值本身，否则是它的那个属性；没有这个属性就抛出 GrammarError。"""
        if attribute is None:
            return value
        lexicon = self.lexicon_of(schema, name)
        if lexicon is None or attribute not in lexicon.attributes[value]:
            raise GrammarError(f"{schema.category}/{schema.name}：{name} 的值「{value}」没有属性 {attribute}。")
        return lexicon.attributes[value][attribute]

    def lexicon_of(self, schema: Schema, name: str) -> Lexicon | None:
        """变量取值的词表；整数和算出来的变量没有词表，返回 None。"""
        variable = schema.variables[name]
        if variable.kind == "pick":
            return variable.spec
        return self.lexicons[variable.spec] if variable.kind == "lex" else None

    def kind_of(self, schema: Schema, name: str) -> str:
        """变量是哪一类事实：词表声明的类型；整数和算出来的是「数量」，就地列出的是「说法」。"""
        kind = schema.variables[name].kind
        return self.lexicons[schema.variables[name].spec].kind if kind == "lex" else "说法" if kind == "pick" else "数量"

    def forms_of(self, schema: Schema, name: str, value: str) -> list[str]:
        """变量取这个值时允许的全部写法，见 utils/corpus/surface.py。"""
        lexicon = self.lexicon_of(schema, name)
        aliases = lexicon.attributes.get(value, {}).get("又") if lexicon else None
        return surface_forms(value, self.kind_of(schema, name), aliases)

    # ---- 解析：生成的逆运算
    def parse(self, intro: str, body: str | None = None) -> list[tuple[Schema, dict[str, str], float, float]]:
        """找出一段文字的全部推导。

        返回：
            [（模式，变量的值，导语的 log p, 正文的 log p）]；空列表表示这套语法写不出它，多于一项表示有歧义。
        """
        found = []
        for schema in self.schemas:
            for end, values, score in self._match(schema, schema.parts["intro"], intro, 0, {}):
                if end != len(intro):
                    continue
                if body is None:
                    found.append((schema, values, score + schema.log_p, 0.0))
                    continue
                for stop, filled, more in self._match(schema, schema.parts["body"], body, 0, values):
                    if stop == len(body):
                        found.append((schema, filled, score + schema.log_p, more))
        return found

    def _match(self, schema, nodes, text, pos, values, score=0.0) -> Iterator[tuple[int, dict, float]]:
        if not nodes:
            yield pos, values, score
            return
        node, rest = nodes[0], nodes[1:]
        if node[0] == "text":
            if text.startswith(node[1], pos):
                yield from self._match(schema, rest, text, pos + len(node[1]), values, score)
        elif node[0] == "choice":
            for p, _, branch in node[1]:
                yield from self._match(schema, branch + rest, text, pos, values, score + math.log(p))
        else:
            for end, filled, log_p in self._match_slot(schema, node, text, pos, values):
                yield from self._match(schema, rest, text, end, filled, score + log_p)

    def _match_slot(self, schema, node, text, pos, values) -> Iterator[tuple[int, dict, float]]:
        _, name, attribute = node
        variable = schema.variables[name]
        if name in values or variable.kind == "derived":
            filled = values if name in values else values | {name: str(evaluate(variable.spec, values))}
            surface = self.surface(schema, name, attribute, filled[name])
            if text.startswith(surface, pos):
                yield pos + len(surface), filled, 0.0
        elif variable.kind == "int":
            choices = range(*self.bounds(variable, values))
            digits = DIGITS.match(text, pos)
            for end in range(pos + 1, digits.end() + 1) if digits else ():
                if int(text[pos:end]) in choices:
                    yield end, values | {name: text[pos:end]}, -math.log(len(choices))
        else:
            lexicon, excluded = self.lexicon_of(schema, name), {values[v] for v in variable.excluded}
            for word in lexicon.at(text, pos):
                if word in lexicon.probability and word not in excluded:
                    yield pos + len(word), values | {name: word}, lexicon.log_p(word, excluded)

    # ---- 核对：正文按模式解析，但每处变量都可以是任何值
    def mentions(self, schema: Schema, body: str) -> Iterator[list[tuple[str, str | None, str]]]:
        """把正文当作这个模式写的，列出每一处变量写成了什么；一种读法给一个列表 [（变量，属性，写成的文字）]。"""
        for end, found in self._free(schema, schema.parts["body"], body, 0, []):
            if end == len(body):
                yield found

    def _free(self, schema, nodes, text, pos, found):
        if not nodes:
            yield pos, found
            return
        node, rest = nodes[0], nodes[1:]
        if node[0] == "text":
            if text.startswith(node[1], pos):
                yield from self._free(schema, rest, text, pos + len(node[1]), found)
        elif node[0] == "choice":
            for _, _, branch in node[1]:
                yield from self._free(schema, branch + rest, text, pos, found)
        else:
            _, name, attribute = node
            lexicon = self.lexicon_of(schema, name)
            if lexicon is None:
                digits = DIGITS.match(text, pos)
                surfaces = [text[pos:end] for end in range(digits.end(), pos, -1)] if digits else []
            elif attribute is None:
                surfaces = list(lexicon.at(text, pos))
            else:
                options = {a[attribute] for a in lexicon.attributes.values()}
                surfaces = [s for s in sorted(options) if text.startswith(s, pos)]
            for surface in surfaces:
                yield from self._free(schema, rest, text, pos + len(surface), [*found, (name, attribute, surface)])


def always_mentioned(nodes: list[tuple]) -> set[str]:
    """不管选哪一支，都一定会出现的变量。"""
    names: set[str] = set()
    for node in nodes:
        if node[0] == "slot":
            names.add(node[1])
        elif node[0] == "choice":
            names |= set.intersection(*(always_mentioned(branch) for _, _, branch in node[1]))
    return names
