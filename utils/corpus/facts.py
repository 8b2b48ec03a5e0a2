"""事实核对：一段正文有没有守住导语里的事实？

先用语法读懂导语，得到它的模式和各项事实；再把正文按同一模式读一遍，这一回每处空都可以填任何值，
看填进去的与导语是否一致。正文不合模式时（模型写走了样），退一步，只看导语里的事实有没有写出来，
用哪一种允许的写法都行（utils/corpus/surface.py）。导语不是这套语法写的时，再退一步：认出其中的日期、数量和词表里的专名，当作事实。
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from utils.corpus.grammar import always_mentioned
from utils.corpus.lexicon import Lexicon
from utils.corpus.news import news_grammar
from utils.corpus.surface import DATE, surface_forms, written_at
from utils.corpus.templates import Schema, evaluate

MAX_READINGS = 200


@dataclass(frozen=True)
class FactReport:
    """核对的结果。

    属性：
        kept: 守住的事实 [（变量，值）]。
        contradicted: 写错的事实 [（变量，应为，写成）]。
        missing: 该提而没提的事实 [（变量，值）]。
        well_formed: 正文是否合乎语法里的一个模式。
        intro_known: 导语是不是这套语法写的；不是的话，事实是从字面上认出来的，well_formed 恒为假。
    """

    kept: list[tuple[str, str]]
    contradicted: list[tuple[str, str, str]]
    missing: list[tuple[str, str]]
    well_formed: bool
    intro_known: bool = True

    @property
    def faithful(self) -> bool:
        """写完了（合乎模式），没有写错，也没有遗漏。"""
        return self.well_formed and not self.contradicted and not self.missing


def check_facts(intro: str, body: str) -> FactReport:
    """核对正文与导语的事实。

    参数：
        intro: 导语；自带语料的写法（含 test_new_names 的）核对得最细，别的文字只按字面核对。
        body: 正文，任何文字都可以。
    返回：
        FactReport。
    """
    for grammar in (news_grammar(), news_grammar(new_names=True)):
        readings = grammar.parse(intro)
        if readings:
            schema, values, _, _ = readings[0]
            due = always_mentioned(schema.parts["body"]) & set(values)
            reports = [_compare(schema, values, due, reading)
                       for reading in islice(grammar.mentions(schema, body), MAX_READINGS)]
            return min(reports, key=_faults) if reports else _loose(schema, values, due, body)
    return _literal(intro, body)


def _faults(report: FactReport) -> tuple[int, int]:
    return len(report.contradicted), len(report.missing)


def _compare(schema: Schema, values: dict[str, str], due: set[str], reading: list) -> FactReport:
    known, wrong, seen = dict(values), [], set()
    for name, attribute, surface in reading:
        variable = schema.variables[name]
        if attribute is None and name not in known:
            if variable.kind == "derived" and set(re.findall(r"[a-z_]\w*", variable.spec)) <= set(known):
                known[name] = str(evaluate(variable.spec, known))
            else:
                known[name] = surface                  # 正文里新出现的事实：第一次怎么写都算数
        if attribute is None:
            expected = known[name]
        else:
            lexicon = news_grammar().lexicon_of(schema, name)
            expected = lexicon.attributes[known[name]][attribute] if name in known else surface
        if surface != expected:
            wrong.append((name, expected, surface))
        seen.add(name)
    bad = {name for name, _, _ in wrong}
    return FactReport([(n, values[n]) for n in values if n in seen - bad], wrong,
                      [(n, values[n]) for n in sorted(due - seen)], True)


def _loose(schema: Schema, values: dict[str, str], due: set[str], body: str) -> FactReport:
    grammar = news_grammar()

    def present(name: str) -> bool:
        return any(written_at(form, body) for form in grammar.forms_of(schema, name, values[name]))

    def rivals(name: str) -> list[str]:
        lexicon = grammar.lexicon_of(schema, name)
        if schema.variables[name].kind != "lex" or lexicon is None:
            return []
        found = [w for w in lexicon.attributes if len(w) > 1 and w in body and w not in values.values()]
        others = [n for n in schema.variables if n not in values and grammar.lexicon_of(schema, n) is lexicon]
        return found if len(found) > len(others) else []         # 正文自己新引入的同类事实，不算写错

    kept = [(n, values[n]) for n in values if present(n)]
    wrong = [(n, values[n], rivals(n)[0]) for n in sorted(due) if not present(n) and rivals(n)]
    lost = {n for n, _, _ in wrong} | {n for n, _ in kept}
    return FactReport(kept, wrong, [(n, values[n]) for n in sorted(due - lost)], False)


NUMBER = re.compile(r"(\d+(?:\.\d+)?)([^\d.，。！？；：“”《》（）、\s])")      # 数和它后面的一个字（单位）
PROPER = ("人物", "地点", "机构", "队伍", "作品")


@lru_cache(maxsize=1)
def _proper_names() -> dict[str, Lexicon]:
    """词表里的全部专名（两个字以上）各属于哪张词表，长的在前。"""
    tables = [table for table in news_grammar().lexicons.values() if table.kind in PROPER]
    names = {word: table for table in tables for word in table.attributes if len(word) > 1}
    return dict(sorted(names.items(), key=lambda item: -len(item[0])))


def literal_facts(text: str) -> list[tuple[str, str, str]]:
    """从任意一段文字里认出事实：日期、数量（连同后面的一个字）和词表里的专名。

    返回：
        [（类型，值，数量的单位或空串）]，按出现的先后，不重复。
    """
    found: dict[tuple[str, str, str], int] = {}
    covered = [False] * len(text)

    def take(start: int, end: int, fact: tuple[str, str, str]) -> None:
        if not any(covered[start:end]):
            covered[start:end] = [True] * (end - start)
            found.setdefault(fact, start)

    for date in DATE.finditer(text):
        take(*date.span(), ("日期", date[0], ""))
    for name, table in _proper_names().items():
        for start in written_at(name, text):
            take(start, start + len(name), (table.kind, name, ""))
    for number in NUMBER.finditer(text):
        take(*number.span(1), ("数量", number[1], number[2]))
    return sorted(found, key=found.get)


def _literal(intro: str, body: str) -> FactReport:
    kept, wrong, missing = [], [], []
    given = literal_facts(intro)
    written = [fact for fact in literal_facts(body) if fact not in given]
    for kind, value, unit in given:
        rivals = [v for k, v, u in written if k == kind and u == unit]
        if any(written_at(form, body) for form in surface_forms(value, kind)):
            kept.append((kind, value))
        elif rivals and kind != "人物":                # 正文可以有新的人物，不算写错
            wrong.append((kind, value, rivals[0]))
        else:
            missing.append((kind, value))
    return FactReport(kept, wrong, missing, False, False)
