"""下一个字的真分布：给定导语和前面的字，语料的语法接下来可以写哪些字，概率各多少。

语料由写明概率的语法生成，所以「正确答案」不只是文中那一个字，而是整个分布：走遍与前文相容的全部推导，把它们的概率按下一个字加起来。
各字的 −log p 之和恰好等于正文的信息量（下限）。首次使用：clm_finetuning。
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from utils.corpus.grammar import Grammar
from utils.corpus.lexicon import Lexicon
from utils.corpus.templates import Schema, Variable, evaluate

END = ""                                                  # 正文到此写完
NOTHING = 1e-12                                           # 概率比它小，就是减出来的舍入误差
REPEATED = 1e-9                                           # 重名之后接着走的写法，打这么大的折扣：另有走得通的，就轮不到它


class Ahead:
    """正文每个位置上，下一个字的分布。

    参数：
        grammar: 语法。
        schema, known: 导语的模式和其中的事实，例如 `grammar.parse(intro)[0]` 的前两项。
        body: 正文，N 个字。
        whole: 是 True，正文就得是这个模式写得出来的；是 False，也可以写到一半，或者写着写着就写错了（例如模型写的）。
            该是两个人的，写成了同名，不算写得出来；是 False 时，把它记成错，接着往下走。
    属性：
        mass: 长 N + 1；mass[i] 是 {字：权重}：前 i 个字已定，第 i 个字（从 0 数）可能是哪些，写完了记作 END；
            前 i 个字里已经写错了，或者这里怎么写都重名，就是空的。
        copied: 长 N + 1；copied[i] 是这一处有哪个已知的事实可能正在被照抄（或推算）出来，没有就是 None。
    异常：
        ValueError: whole 是 True，语法却写不出这篇正文。
    """

    def __init__(self, grammar: Grammar, schema: Schema, known: dict[str, str], body: str, whole: bool = True):
        self.grammar, self.schema, self.body, self.whole = grammar, schema, body, whole
        self.mass: list[dict[str, float]] = [{} for _ in range(len(body) + 1)]
        self.copied: list[str | None] = [None] * (len(body) + 1)
        self._walk(schema.parts["body"], 0, known, 1.0)
        if whole and END not in self.mass[-1]:
            raise ValueError(f"模式「{schema.name}」写不出这篇正文，请检查导语和正文是不是一篇的：{body}")

    def probabilities(self) -> list[dict[str, float]]:
        """归一之后的 mass：每个位置上 {字：概率}，加起来是 1；写错了、再也走不下去的地方以后不算，所以可能不到 N + 1 个。"""
        reached = max(i for i, options in enumerate(self.mass) if options)
        return [{c: m / total for c, m in options.items()} for options in self.mass[:reached + 1] for total in [sum(options.values())]]

    def _put(self, pos: int, character: str, weight: float) -> bool:
        """记下 pos 处可以写 character，返回正文是不是这样写的。"""
        options = self.mass[pos]
        options[character] = options.get(character, 0.0) + weight
        return self.body[pos:pos + 1] == character

    def _write(self, words: str, pos: int, weight: float, fact: str | None) -> int | None:
        """照字面写 words；正文一路都是这样写的，就返回写完的位置。"""
        for c in words:
            if fact:
                self.copied[pos] = fact
            if not self._put(pos, c, weight):
                return None
            pos += 1
        return pos

    def _walk(self, nodes: list[tuple], pos: int | None, values: dict[str, str], weight: float) -> None:
        for j, node in enumerate(nodes):
            if node[0] == "text":
                pos = self._write(node[1], pos, weight, None)
            elif node[0] == "choice":
                for p, _, branch in node[1]:
                    self._walk(branch + nodes[j + 1:], pos, values, weight * p)
                return
            else:
                _, name, attribute = node
                variable = self.schema.variables[name]
                if name not in values and variable.kind != "derived":
                    for end, value, p in self._draw(name, variable, pos, values, weight):
                        self._walk(nodes[j + 1:], end, values | {name: value}, p)
                    return
                if name not in values:
                    values = values | {name: str(evaluate(variable.spec, values))}
                pos = self._write(self.grammar.surface(self.schema, name, attribute, values[name]), pos, weight, name)
            if pos is None:
                return
        self._put(pos, END, weight)

    def _draw(self, name: str, variable: Variable, pos: int, values: dict[str, str], weight: float) -> Iterator[tuple[int, str, float]]:
        """新抽一个值：各种可能的字都记下，正文对得上的值一个一个交出 （写完的位置，值，权重）。"""
        if variable.kind == "int":
            (tree, probability), out = _numbers(range(*self.grammar.bounds(variable, values))), ()
        else:
            tree, probability = _words(self.grammar.lexicon_of(self.schema, name))
            out = {values[v] for v in variable.excluded} & probability.keys()
        scale, prefix, matched = weight / (1.0 - sum(probability[w] for w in out)), "", True
        while matched:
            if prefix in probability and (prefix not in out or not self.whole):
                yield pos, prefix, scale * probability[prefix] * (REPEATED if prefix in out else 1.0)
            matched = False
            for c, p in tree.get(prefix, {}).items():
                left = p - sum(probability[w] for w in out if w.startswith(prefix + c))
                if left > NOTHING:
                    matched |= self._put(pos, c, scale * left)
                elif not self.whole:
                    matched |= self.body[pos:pos + 1] == c
            prefix, pos = prefix + self.body[pos:pos + 1], pos + 1


Tree = dict[str, dict[str, float]]                        # {前缀：{下一个字：以此开头的词的概率之和}}


def _tree(probability: dict[str, float]) -> tuple[Tree, dict[str, float]]:
    tree: Tree = {}
    for word, p in probability.items():
        for i, c in enumerate(word):
            options = tree.setdefault(word[:i], {})
            options[c] = options.get(c, 0.0) + p
    return tree, probability


@cache
def _words(lexicon: Lexicon) -> tuple[Tree, dict[str, float]]:
    return _tree(lexicon.probability)


@lru_cache(maxsize=4096)
def _numbers(choices: range) -> tuple[Tree, dict[str, float]]:
    return _tree({str(n): 1.0 / len(choices) for n in choices})
