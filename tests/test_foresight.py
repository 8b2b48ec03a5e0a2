"""下一个字的真分布：与链式法则、与抽样相符，写不出的正文说得清楚。"""

import math
from collections import Counter
from random import Random

import pytest

from utils.corpus.grammar import Grammar
from utils.corpus.news import generate, news_grammar
from utils.corpus.next_character import END, Ahead

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


def test_half_a_body_and_a_wrong_one_are_followed_as_far_as_they_go(derivations):
    for d in derivations[::10]:
        known, body, p = {name: d.values[name] for name in d.seen["intro"]}, d.texts["body"], of(d).probabilities()
        for cut in (0, 1, len(body) // 2, len(body)):
            for text in (body[:cut], body[:cut] + "※" + body[cut:]):
                found = Ahead(GRAMMAR, d.schema, known, text, whole=False).probabilities()
                assert len(found) == cut + 1 and all(a == pytest.approx(b) for a, b in zip(found, p, strict=False)), (text, cut)
        with pytest.raises(ValueError, match="写不出"):
            Ahead(GRAMMAR, d.schema, known, body[:-1])


def test_a_repeated_name_is_wrong_but_not_the_end(tmp_path):
    """该是另一个人，写成了同名：那个字不在该写的里面，后面接着考。"""
    grammar = small(tmp_path, "{q}来了，[{q}|{p}]说")
    known = {"p": "王伟", "n": "9"}
    p = Ahead(grammar, grammar.schemas[0], known, "王伟来了，王伟说", whole=False).probabilities()
    right = Ahead(grammar, grammar.schemas[0], known, "王芳来了，王芳说").probabilities()
    assert p[:2] == right[:2] == [pytest.approx({"王": 2 / 3, "李": 1 / 3}), pytest.approx({"芳": 1 / 2, "来": 1 / 2})]
    assert p[2:] == [{c: 1.0} for c in "来了，王伟说"] + [{END: 1.0}]
    with pytest.raises(ValueError, match="写不出"):
        Ahead(grammar, grammar.schemas[0], known, "王伟来了，王伟说")


def test_a_repeated_name_gives_way_to_another_reading(tmp_path):
    """同样的字，另有不重名的写法，就照那一种算。"""
    grammar = small(tmp_path, "[{q}来了，{p}说|王伟来了，你说]")
    p = Ahead(grammar, grammar.schemas[0], {"p": "王伟", "n": "9"}, "王伟来了，", whole=False).probabilities()
    assert p[-1]["你"] == pytest.approx(1) and p[-1]["王"] < 1e-6


def test_inside_a_repeated_name_nothing_is_asked(tmp_path):
    """重名的那个字写下之后，名字里剩下的字怎么写都重名：那里是空的，后面的位置不错开。"""
    grammar = small(tmp_path, "{q}来了")
    p = Ahead(grammar, grammar.schemas[0], {"p": "李芳", "n": "9"}, "李芳来了", whole=False).probabilities()
    assert p == [{"王": 1.0}, {}, {"来": 1.0}, {"了": 1.0}, {END: 1.0}]
