"""词表：语法里每个空该填哪些词、各有多大概率。

词表文件 data/news/lexicon/名字.txt：一行一个词；`@zipf q` 表示第 r 个词（r 从 0 起）的权重是 1/(r+q)，不写就是等概率；
`@compound {甲}{乙}` 表示由别的词表拼成；词后面可以带属性，例如 `枇杷 量=个`，文中用 `{crop.量}` 取用。`@type 地点` 说明这些词
是哪一类事实；`@new` 之后的词是留出来的新名字，只在 test_new_names 里出现。
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, product
from pathlib import Path
from random import Random

TYPES = ("人物", "地点", "机构", "队伍", "作品", "日期", "数量", "事物")      # 词表可以声明的事实类型，不写是事物
DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class GrammarError(ValueError):
    """词表或模式文件写错了；消息说明哪个文件、哪个模式、错在哪里。"""


class Lexicon:
    """一张词表：词、概率、属性。

    参数：
        name: 词表名。
        entries: [（词，权重，属性字典）]。
        new: 同样写法的新名字，平时抽不到；`renewed()` 之后换成只抽它们。
        kind: 这些词是哪一类事实，见 TYPES。
    异常：
        GrammarError: 词表为空，或同一个词出现两次（那样推导就不唯一）。
    """

    written = True                                    # 词是不是一行一行写在文件里的；拼成的、自带的不是

    def __init__(self, name: str, entries: list[tuple[str, float, dict[str, str]]],
                 new: list[tuple[str, float, dict[str, str]]] = (), kind: str = "事物"):
        if not entries:
            raise GrammarError(f"词表 {name} 是空的。")
        self.name, self.kind, self.entries, self.new = name, kind, entries, new
        self.words = [word for word, _, _ in entries]
        self.attributes = {word: attrs for word, _, attrs in (*entries, *new)}
        if len(self.attributes) < len(entries) + len(new):
            counts = Counter(word for word, _, _ in (*entries, *new))
            twice = sorted(w for w in counts if counts[w] > 1)[:5]
            raise GrammarError(f"词表 {name} 里有重复的词：{'、'.join(twice)}。请删去多余的。")
        total = math.fsum(weight for _, weight, _ in entries)
        self.probability = {word: weight / total for word, weight, _ in entries}
        self.cumulative = list(accumulate(self.probability[w] for w in self.words))
        self.by_first: dict[str, list[str]] = {}
        for word in self.attributes:
            self.by_first.setdefault(word[0], []).append(word)

    def renewed(self) -> Lexicon:
        """只抽新名字的同一张词表；没有新名字时就是它自己。"""
        return Lexicon(self.name, self.new, self.entries, self.kind) if self.new else self

    def draw(self, rng: Random, excluded: set[str]) -> tuple[str, float]:
        """抽一个不在 excluded 里的词，返回 （词，log p）。"""
        if len(excluded) >= len(self.words) and excluded.issuperset(self.words):
            raise GrammarError(f"词表 {self.name} 里的词都被 except 排除了，没有可抽的。")
        while True:
            index = min(bisect_right(self.cumulative, rng.random()), len(self.words) - 1)
            if self.words[index] not in excluded:
                return self.words[index], self.log_p(self.words[index], excluded)

    def log_p(self, word: str, excluded: set[str]) -> float:
        """在排除 excluded 之后，抽到 word 的对数概率；抽不到时为 -inf。"""
        if word in excluded or word not in self.probability:
            return -math.inf
        left = 1.0 - math.fsum(self.probability.get(w, 0.0) for w in excluded)
        return math.log(self.probability[word] / left)

    def at(self, text: str, pos: int) -> Iterator[str]:
        """text 在 pos 处能对上的所有词，抽不到的新名字也算。"""
        for word in self.by_first.get(text[pos:pos + 1], ()):
            if text.startswith(word, pos):
                yield word


def positive_number(line: str, where: str) -> float:
    """指令后面的正数，例如「@zipf 3」里的 3.0；不是正数就抛出 GrammarError。"""
    try:
        value = float(line.split()[1])
    except (IndexError, ValueError):
        value = 0.0
    if value <= 0:
        raise GrammarError(f"{where}：{line.split()[0]} 后面要写一个正数：{line}")
    return value


def _read(path: Path) -> tuple[list, list, str, str]:
    """读一个词表文件，返回 （平时的词，新名字，类型，拼法）。"""
    q, kind, pattern, rows, new = None, "事物", "", [], []
    target = rows
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        directive, _, argument = line.partition(" ")
        if directive == "@zipf":
            q = positive_number(line, path.name)
        elif directive == "@type":
            kind = argument.strip()
            if kind not in TYPES:
                raise GrammarError(f"{path.name}：@type 后面要写 {'、'.join(TYPES)} 之一：{line}")
        elif directive == "@compound":
            pattern = argument.strip()
        elif line == "@new":
            target = new
        elif line.startswith("@"):
            raise GrammarError(f"{path.name}：不认识的指令 {line}。可用的有 @zipf、@type、@compound、@new。")
        elif line:
            word, *attrs = line.split()
            if not all("=" in a for a in attrs):
                raise GrammarError(f"{path.name}：属性要写成「名=值」，一行一个词：{line}")
            target.append((word, dict(a.split("=", 1) for a in attrs)))
    weighted = [[(w, 1.0 if q is None else 1.0 / (r + q), a) for r, (w, a) in enumerate(t)] for t in (rows, new)]
    return *weighted, kind, pattern


def load_lexicons(folder: Path) -> dict[str, Lexicon]:
    """读入文件夹里的全部词表；另加一张由全年 365 天组成的 date 词表。

    异常：
        GrammarError: 指令或词条写错。
    """
    dates = [(f"{m}月{d}日", 1.0, {}) for m, n in enumerate(DAYS, 1) for d in range(1, n + 1)]
    read = {"date": (dates, [], "日期", ""), **{p.stem: _read(p) for p in sorted(folder.glob("*.txt"))}}
    lexicons = {}
    for name, (entries, new, kind, pattern) in read.items():
        if pattern:
            parts = re.findall(r"\{(\w+)\}", pattern)
            missing = [p for p in parts if p not in read or read[p][3]]
            if missing:
                raise GrammarError(f"{name}.txt：@compound 里的词表 {'、'.join(missing)} 不存在，或者自己也是拼成的。")
            entries = _combine([read[p][0] for p in parts])
            new = _combine([read[p][1] or read[p][0] for p in parts]) if any(read[p][1] for p in parts) else []
        lexicons[name] = Lexicon(name, entries, new, kind)
        lexicons[name].written = not pattern and name != "date"
    return lexicons


def _combine(tables: list[list]) -> list[tuple[str, float, dict]]:
    return [("".join(w for w, _, _ in combo), math.prod(p for _, p, _ in combo), {}) for combo in product(*tables)]
