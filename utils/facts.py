"""事实核对：一段正文有没有守住导语里的事实？

先用语法读懂导语，得到它的模式和各项事实；再把正文按同一模式读一遍，这一回每处空都可以填任何值，
看填进去的与导语是否一致。正文不合模式时（模型写走了样），退一步，只看导语里的事实有没有原样出现。
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from utils.corpus import news_grammar
from utils.grammar import always_mentioned
from utils.templates import Schema, evaluate

MAX_READINGS = 200


@dataclass(frozen=True)
class FactReport:
    """核对的结果。

    属性：
        kept: 守住的事实 [（变量，值）]。
        contradicted: 写错的事实 [（变量，应为，写成）]。
        missing: 该提而没提的事实 [（变量，值）]。
        well_formed: 正文是否合乎语法里的一个模式。
    """

    kept: list[tuple[str, str]]
    contradicted: list[tuple[str, str, str]]
    missing: list[tuple[str, str]]
    well_formed: bool

    @property
    def faithful(self) -> bool:
        """写完了（合乎模式），没有写错，也没有遗漏。"""
        return self.well_formed and not self.contradicted and not self.missing


def check_facts(intro: str, body: str) -> FactReport:
    """核对正文与导语的事实。

    参数：
        intro: 导语，须是自带语料的写法。
        body: 正文，任何文字都可以。
    返回：
        FactReport。
    异常：
        ValueError: 语法读不懂这个导语。
    """
    readings = news_grammar().parse(intro)
    if not readings:
        raise ValueError(f"这个导语不在自带语料的写法之内，没法核对：{intro[:40]}")
    schema, values, _, _ = readings[0]
    due = always_mentioned(schema.parts["body"]) & set(values)
    reports = [_compare(schema, values, due, reading)
               for reading in islice(news_grammar().mentions(schema, body), MAX_READINGS)]
    if reports:
        return min(reports, key=lambda r: (len(r.contradicted), len(r.missing)))
    return _loose(schema, values, due, body)


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
    def present(name: str) -> bool:
        value = values[name]
        pattern = rf"(?<!\d){value}(?!\d)" if value.isdigit() else re.escape(value)
        return re.search(pattern, body) is not None

    def rivals(name: str) -> list[str]:
        lexicon = news_grammar().lexicon_of(schema, name)
        if schema.variables[name].kind != "lex" or lexicon is None:
            return []
        return [w for w in lexicon.words if len(w) > 1 and w in body and w not in values.values()]

    kept = [(n, values[n]) for n in values if present(n)]
    wrong = [(n, values[n], rivals(n)[0]) for n in sorted(due) if not present(n) and rivals(n)]
    lost = {n for n, _, _ in wrong} | {n for n, _ in kept}
    return FactReport(kept, wrong, [(n, values[n]) for n in sorted(due - lost)], False)
