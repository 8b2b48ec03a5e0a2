"""下一个字的真分布：与链式法则、与抽样相符，写不出的正文说得清楚。"""

import math
from collections import Counter
from random import Random

import pytest

from utils.corpus import generate, news_grammar
from utils.foresight import END, Ahead
from utils.grammar import Grammar

GRAMMAR = news_grammar()


def of(derivation):
    known = {name: derivation.values[name] for name in derivation.seen["intro"]}
    return Ahead(GRAMMAR, derivation.schema, known, derivation.texts["body"])


@pytest.fixture(scope="module")
def derivations():
    rng = Random(11)
    return [GRAMMAR.sample(rng, schema) for schema in GRAMMAR.schemas]                     # 每个模式一篇


def test_surprisals_add_up_to_the_information_of_the_body(derivations):
    for d in derivations:
        p = of(d).probabilities()
        assert -sum(math.log(q[c]) for q, c in zip(p, [*d.texts["body"], END], strict=True)) == pytest.approx(-d.log_p["body"], abs=1e-9)
        assert all(sum(q.values()) == pytest.approx(1) and min(q.values()) > 0 for q in p)


def test_first_characters_come_as_often_as_promised(derivations):
    """用同一条导语反复抽正文，前缀相同的那些里，下一个字的频率与概率相符（最多差四个标准误）。"""
    rng, compared = Random(5), 0
    for d in derivations[::20]:
        known = {name: d.values[name] for name in d.seen["intro"]}
        p, bodies = of(d).probabilities(), []
        for _ in range(1500):
            pieces = []
            GRAMMAR._emit(d.schema, d.schema.parts["body"], dict(known), pieces, set(), rng)
            bodies.append("".join(pieces))
        for pos in range(len(d.texts["body"])):
            alike = [b for b in bodies if b.startswith(d.texts["body"][:pos])]
            if len(alike) < 100:
                break
            counts = Counter(b[pos:pos + 1] for b in alike)
            assert counts.keys() <= p[pos].keys()
            for c, q in p[pos].items():
                assert abs(counts[c] / len(alike) - q) <= 4 * math.sqrt(q * (1 - q) / len(alike)) + 1e-9, (d.texts["body"], pos, c)
            compared += len(p[pos]) > 1
    assert compared > 20


def small(tmp_path, body, variables="p = name\nq = name except p\nn = int 9 11\nm := n*2"):
    (tmp_path / "lexicon").mkdir()
    (tmp_path / "schemas").mkdir()
    (tmp_path / "lexicon" / "name.txt").write_text("王伟\n王芳\n王\n李芳\n", encoding="utf-8")
    (tmp_path / "schemas" / "a.txt").write_text(f"@category 甲\n== 乙\n{variables}\nintro: {{p}}有{{n}}个\nbody: {body}\ntitle: 丙{{p}}\n",
                                                encoding="utf-8")
    return Grammar(tmp_path, False)


def test_drawn_words_by_hand(tmp_path):
    grammar = small(tmp_path, "{q}来了")
    ahead = Ahead(grammar, grammar.schemas[0], {"p": "王伟", "n": "9"}, "王芳来了")
    p = ahead.probabilities()
    assert p[0] == pytest.approx({"王": 2 / 3, "李": 1 / 3}) and p[1] == pytest.approx({"芳": 1 / 2, "来": 1 / 2})   # 除去王伟，还剩三个
    assert p[2] == {"来": 1.0} and p[-1] == {END: 1.0} and ahead.copied == [None] * 5


def test_numbers_copies_and_sums_by_hand(tmp_path):
    grammar = small(tmp_path, "[3:{p}带了{n}个|{m}个]")
    first = Ahead(grammar, grammar.schemas[0], {"p": "王", "n": "11"}, "王带了11个")
    assert first.probabilities()[0] == pytest.approx({"王": 3 / 4, "2": 1 / 4})
    assert first.copied[0] in ("p", "m") and first.copied[1:] == [None, None, "n", "n", None, None]
    second = Ahead(grammar, grammar.schemas[0], {"p": "王", "n": "11"}, "22个")
    assert second.probabilities()[1:] == [{"2": 1.0}, {"个": 1.0}, {END: 1.0}] and second.copied[:2] == ["m", "m"]


def test_new_numbers_by_hand(tmp_path):
    grammar = small(tmp_path, "又来{k}人", "p = name\nn = int 9 11\nk = int n n+2")
    p = Ahead(grammar, grammar.schemas[0], {"p": "王", "n": "9"}, "又来10人").probabilities()          # 9、10、11
    assert p[2] == pytest.approx({"9": 1 / 3, "1": 2 / 3}) and p[3] == pytest.approx({"0": 1 / 2, "1": 1 / 2}) and p[4] == {"人": 1.0}


def test_most_characters_have_no_choice(derivations):
    single = [len(q) == 1 for d in derivations for q in of(d).mass]
    assert 0.75 < sum(single) / len(single) < 0.95


def test_a_body_of_another_intro_is_refused():
    one, other = generate("test", 2)
    schema, known, _, _ = GRAMMAR.parse(one["intro"])[0]
    with pytest.raises(ValueError, match="写不出这篇正文.*一篇的"):
        Ahead(GRAMMAR, schema, known, other["body"])
