"""歧义检查：证明同一段文字只有一种推导，语料的下限因此是精确的。

把每个模式的一段文字看成一台有限自动机：`[甲|乙]` 是分岔，空是一棵装着词表的字典树（trie）。让两个人从起点同时读同一段文字，
只要他们可以走不同的路而都走到终点，这段文字就有两种推导。能同时到达的「两人位置」是有限的，全部走一遍就是证明。
（这是自动机理论里判定歧义的乘积构造，见 Book 等 1971, "Ambiguity in graphs and expressions"。）

这里放宽了一点：不管同一个变量前后必须相同，也不管整数的范围。放宽之后还没有歧义，原来的语法就更没有；反过来，
报出来的歧义有可能只在放宽之后才有，这时换一个说法最省事。
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from utils.corpus.grammar import Grammar
from utils.corpus.templates import PARTS, Schema

END = ""                                              # 「读完了」，当作一个特殊的字
DIGIT_CHARS = "0123456789"


class Trie:
    """字典树：nodes[i] 是 {字: 子节点}，ends[i] 表示走到这里恰好是一个词；根是 0。"""

    def __init__(self, words: Iterable[str]):
        self.nodes: list[dict[str, int]] = [{}]
        self.ends = [False]
        for word in sorted(set(words)):
            node = 0
            for char in word:
                if char not in self.nodes[node]:
                    self.nodes[node][char] = len(self.nodes)
                    self.nodes.append({})
                    self.ends.append(False)
                node = self.nodes[node][char]
            self.ends[node] = True
        # 一个词是另一个词的开头：读到这里，可以停，也可以接着读
        self.prefixes = [i for i, (children, end) in enumerate(zip(self.nodes, self.ends, strict=True)) if children and end]


def _decimal_numbers() -> Trie:
    """没有多余前导零的十进制数。写成带环的树：第 2 个节点读任意多位数字。"""
    trie = Trie("0")
    trie.nodes = [{"0": 1, **dict.fromkeys("123456789", 2)}, {}, dict.fromkeys(DIGIT_CHARS, 2)]
    trie.ends, trie.prefixes = [False, True, True], [2]
    return trie


class Automaton:
    """一个模式的一段文字。状态是 （位置，字典树的节点）。

    不在空里时，第二项是 −1；−2 − i 表示在节点 i，而且必须接着读，不许就此停下。
    """

    def __init__(self, checker: AmbiguityChecker, schema: Schema, nodes: list[tuple]):
        self.epsilon: list[list[int]] = [[]]          # 位置 0 是终点
        self.text: list[tuple[str, int] | None] = [None]
        self.slot: list[tuple[Trie, int] | None] = [None]
        self.start = (self._build(checker, schema, nodes, 0), -1)
        self._moves: dict[tuple[int, int], list] = {}

    def _add(self, epsilon=(), text=None, slot=None) -> int:
        self.epsilon.append(list(epsilon))
        self.text.append(text)
        self.slot.append(slot)
        return len(self.text) - 1

    def _build(self, checker, schema, nodes, after: int) -> int:
        for node in reversed(nodes):
            if node[0] == "text":
                for char in reversed(node[1]):
                    after = self._add(text=(char, after))
            elif node[0] == "choice":
                after = self._add([self._build(checker, schema, branch, after) for _, _, branch in node[1]])
            else:
                after = self._add(slot=(checker.trie(schema, node[1], node[2]), after))
        return after

    def moves(self, state: tuple[int, int]) -> list[tuple]:
        """从 state 出发的每一步：（"字", 字，去处）、（"空", 字典树，位置，后面的位置）或 （"完",）。走法不同的重复保留。"""
        if state not in self._moves:
            found, stack = [], [state]
            while stack:
                position, node = stack.pop()
                if node != -1:
                    trie, after = self.slot[position]
                    found += [("字", char, (position, child)) for char, child in trie.nodes[max(node, -2 - node)].items()]
                    if node >= 0 and trie.ends[node]:
                        stack.append((after, -1))
                elif self.text[position]:
                    char, after = self.text[position]
                    found.append(("字", char, (after, -1)))
                elif self.slot[position]:
                    trie, after = self.slot[position]
                    found.append(("空", trie, position, after))
                elif position == 0:
                    found.append(("完",))
                else:
                    stack += [(p, -1) for p in self.epsilon[position]]
            self._moves[state] = found
        return self._moves[state]


class AmbiguityChecker:
    """检查一套语法有没有歧义。

    参数：
        grammar: 语法；词表里的新名字（@new）一并检查。
    """

    def __init__(self, grammar: Grammar):
        self.grammar = grammar
        self.tries: dict[tuple, Trie] = {}
        self.numbers = _decimal_numbers()
        self.automata = {(id(s), part): Automaton(self, s, s.parts[part]) for s in grammar.schemas for part in PARTS}

    def trie(self, schema: Schema, name: str, attribute: str | None) -> Trie:
        """一个空能填的全部文字。同样的空共用一棵树。"""
        lexicon = self.grammar.lexicon_of(schema, name)
        if lexicon is None:
            return self.numbers
        words = lexicon.attributes if attribute is None else {a[attribute] for a in lexicon.attributes.values() if attribute in a}
        return self.tries.setdefault(tuple(sorted(words)), Trie(words))

    def witness(self, first: Schema, second: Schema, part: str) -> str | None:
        """找一段有两种推导的文字。

        参数：
            first、second: 两个模式；同一个模式表示查它自己。
            part: "intro"、"body" 或 "title"。
        返回：
            一段例文，空里的词用它的第一个走法写出（只在共同的空里省作「…」）；没有歧义时返回 None。
        """
        a, b = self.automata[id(first), part], self.automata[id(second), part]
        same = a is b
        origin = {(a.start, b.start): None}
        queue = deque(origin)
        while queue:
            pair = queue.popleft()
            for char, target, together in self._joint(a, b, *pair, same and pair[0] == pair[1]):
                if char == END or (same and not together and target[0] == target[1]):
                    return self._spell(origin, pair) + ("" if char == END else char + "……")     # 分开走过，又会合了
                if target not in origin:
                    origin[target] = (pair, char)
                    queue.append(target)
        return None

    def _joint(self, a: Automaton, b: Automaton, p, q, together: bool):
        """两个人都能走的一步：（字，两人的去处，两人是否走的同一步）。together 表示眼下还在同一处。"""
        for i, x in enumerate(a.moves(p)):
            for j, y in enumerate(b.moves(q)):
                if together and j < i:
                    continue
                alone = together and i == j
                if x[0] == y[0] == "空" and x[1] is y[1]:
                    yield "…", ((x[3], -1), (y[3], -1)), alone
                    for node in x[1].prefixes:        # 一个人到这里停，另一个人接着读
                        yield "…", ((x[3], -1), (y[2], -2 - node)), False
                        if not alone:
                            yield "…", ((x[2], -2 - node), (y[3], -1)), False
                elif x[0] == y[0] == "完":
                    if not alone:
                        yield END, None, False
                else:
                    for char, there in self._letters(x):
                        for other, where in self._letters(y):
                            if char == other:
                                yield char, (there, where), alone

    @staticmethod
    def _letters(move) -> list[tuple[str, tuple[int, int]]]:
        if move[0] == "字":
            return [move[1:]]
        if move[0] == "空":
            return [(char, (move[2], child)) for char, child in move[1].nodes[0].items()]
        return []

    @staticmethod
    def _spell(origin, pair) -> str:
        text = ""
        while origin[pair]:
            pair, char = origin[pair]
            text = char + text
        return text

    def problems(self, schemas: list[Schema] | None = None) -> list[str]:
        """逐一检查：每个模式的三段各自没有歧义，任何两个模式的导语没有一段共同的文字。

        参数：
            schemas: 只查与这些模式有关的；不写就全查。
        返回：
            每处歧义一句中文；空列表就是证明。
        """
        chosen = self.grammar.schemas if schemas is None else schemas
        found = []
        for s in chosen:
            for part in PARTS:
                if (text := self.witness(s, s, part)) is not None:
                    found.append(f"{s.category}/{s.name} 的 {part} 有歧义：「{text}」有两种推导。")
        done = set()
        for s in chosen:
            done.add(id(s))
            for other in self.grammar.schemas:
                if id(other) not in done and (text := self.witness(s, other, "intro")) is not None:
                    found.append(f"{s.category}/{s.name} 与 {other.category}/{other.name} 能写出同样的导语：「{text}」。")
        return found
