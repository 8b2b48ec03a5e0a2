"""utils.analysis.practice：练习题与编码、真分布相符，出处处处指着同一个字；挑的是最糟的几处，不碰留出的文档。"""

from itertools import islice
from random import Random

import pytest
import torch
from datasets import Dataset
from transformers import BertLMHeadModel

from utils.analysis import practice as P
from utils.corpus.news import generate, news_grammar
from utils.corpus.next_character import END, Ahead
from utils.models.checkpoints import load_folder
from utils.paths import SHIPPED
from utils.training.batches import encode_docs

GRAMMAR = news_grammar()


@pytest.fixture(scope="module")
def tokenizer():
    return load_folder(SHIPPED / "clm", BertLMHeadModel)[1]


@pytest.fixture(scope="module")
def pairs(tokenizer):
    docs = list(islice(P.documents(GRAMMAR, Random(1), 256), 60))
    return [(d, P.exercise(GRAMMAR, d, tokenizer.get_vocab())) for d in docs]


def test_ids_are_those_of_the_course(pairs, tokenizer):
    docs = Dataset.from_list([{"intro": d.texts["intro"], "body": d.texts["body"]} for d, _ in pairs])
    rows = encode_docs(docs, tokenizer, 256)
    assert [e.ids for _, e in pairs] == rows["input_ids"][:]
    assert [e.prompt for _, e in pairs] == [next(i for i, x in enumerate(labels) if x != -100) - 1 for labels in rows["labels"]]


def test_every_character_of_the_body_is_asked_for_once(pairs, tokenizer):
    for d, e in pairs:
        known = {name: d.values[name] for name in d.seen["intro"]}
        ahead = Ahead(GRAMMAR, d.schema, known, d.texts["body"])
        p = ahead.probabilities()
        options = {}
        for at, token, weight in e.open:
            options.setdefault(at, {})[token] = weight
        assert sorted([at for at, *_ in e.certain] + list(options)) == list(range(e.prompt, len(e.ids) - 1))
        for at, token, fact in e.certain:
            assert token == e.ids[at + 1] and fact == ahead.copied[at - e.prompt] and len(p[at - e.prompt]) == 1
        for at, weights in options.items():
            here = {tokenizer.sep_token_id if c == END else tokenizer.convert_tokens_to_ids(c): x for c, x in p[at - e.prompt].items()}
            assert e.ids[at + 1] in weights and weights == pytest.approx({c: x for c, x in here.items() if x > P.RARE})


def test_sources_point_at_the_character_to_be_copied(pairs):
    facts = pointed = 0
    for _, e in pairs:
        copied = {at for at, _, fact in e.certain if fact}
        for at, found in e.sources:
            assert at in copied and found and all(x <= at and e.ids[x] == e.ids[at + 1] for x in found)
        facts, pointed = facts + len(copied), pointed + len(e.sources)
    assert 0.6 < pointed / facts < 1                         # 其余是事实的属性（花蜜的味道、谜面），要记住，没有可抄的


def test_a_body_of_its_own_is_asked_for_up_to_the_mistake(pairs, tokenizer):
    vocabulary, wrong = tokenizer.get_vocab(), 0
    for d, e in pairs:
        body = d.texts["body"]
        same = P.exercise(GRAMMAR, d, vocabulary, body)
        assert (same.ids + [vocabulary["[SEP]"]], same.certain, same.open, same.sources) == (e.ids, e.certain, e.open, e.sources)
        copies = [c for c in e.certain if c[0] in dict(e.sources)]
        if not copies:
            continue
        at, token, fact = copies[0]
        cut = at - e.prompt                               # 抄到这里抄错了
        own = P.exercise(GRAMMAR, d, vocabulary, body[:cut] + "※" + body[cut + 1:])
        assert own.ids == e.ids[:at + 1] and own.prompt == e.prompt and own.certain[-1] == (at, token, fact)
        assert own.certain == [c for c in e.certain if c[0] <= at] and own.open == [o for o in e.open if o[0] <= at]
        assert dict(own.sources).keys() <= dict(e.sources).keys()
        wrong += at in dict(own.sources)
    assert wrong > 30                                     # 抄错的那个字，出处也找得到


def test_a_lone_character_found_everywhere_has_no_source():
    copied = [None, "n", None, "m", "m"]
    assert list(P._sources("7人7人7人", "共7个77", copied, set(range(20)))) == []            # 「7」有三处；「77」前文没有
    assert list(P._sources("7人5人", "共7个75", copied, set(range(20)))) == [(6, [1])]        # 「7」一处；「75」没有
    assert list(P._sources("75人75", "共7个75", copied, {9})) == [(9, [1, 4])]                # 只问 certain 里的位置


def schema_with_a_derived_number():
    return next((s, n) for s in GRAMMAR.schemas for n, v in s.variables.items() if v.kind == "derived")


def test_focus_is_on_what_costs_most():
    schema, number = schema_with_a_derived_number()
    other, third = [s for s in GRAMMAR.schemas if s is not schema and sum(v.kind != "derived" for v in s.variables.values()) >= 3][:2]
    a, b, c = [n for n, v in other.variables.items() if v.kind != "derived"][:3]
    t = next(n for n, v in third.variables.items() if v.kind != "derived")
    focus = P.Focus()
    focus.measure([{(other.name, a): 2.0, (other.name, b): 1.0}, {(other.name, a): 1.0, (other.name, c): 0.5},
                   {(schema.name, number): 9.0}, {(third.name, t): 2.9}])
    assert focus.nats[other.name, a] == 1.5 and focus.share == {(other.name, a): 0.5, (other.name, b): 0.25, (other.name, c): 0.25,
                                                                 (schema.name, number): 0.25, (third.name, t): 0.25}
    assert focus.costliest(GRAMMAR, 9) == [(other.name, a), (other.name, b), (third.name, t)]       # 一个模式两处；推算的不算
    assert focus.costliest(GRAMMAR, 1) == [(other.name, a), (other.name, b)]
    assert focus.costliest(GRAMMAR, 9, derived=True) == [(other.name, a), (other.name, b), (schema.name, number), (third.name, t)]
    focus.update([{(other.name, a): 0.0}] * 40)
    assert focus.nats[other.name, a] == pytest.approx(1.5 * 0.9 ** 40)
    assert focus.costliest(GRAMMAR, 9) == [(third.name, t), (other.name, b), (other.name, c)]


def test_documents_are_short_enough_new_and_of_the_place_asked_for(monkeypatch):
    first = list(islice(P.documents(GRAMMAR, Random(4), 256), 30))
    assert all(len(d.texts["intro"]) + len(d.texts["body"]) + 3 <= 256 for d in first)
    held = {(d.texts["intro"], d.texts["body"]) for d in first[:7]}
    monkeypatch.setattr(P, "held_out", lambda: held)
    again = list(islice(P.documents(GRAMMAR, Random(4), 256), 23))
    assert [d.texts for d in again] == [d.texts for d in first[7:]]
    short = list(islice(P.documents(GRAMMAR, Random(4), 120), 5))
    assert all(len(d.texts["intro"]) + len(d.texts["body"]) + 3 <= 120 for d in short)
    place = next((d.schema.name, name) for d in first for name in d.seen["body"] if name not in d.seen["intro"])
    chosen = list(islice(P.documents(GRAMMAR, Random(5), 256, [place]), 20))
    assert all(d.schema.name == place[0] and place[1] in d.seen["body"] for d in chosen)


def test_what_is_held_out_is_left_out_of_practice():
    docs = generate("test", 3)
    assert set(zip(docs["intro"], docs["body"], strict=True)) <= P.held_out()


def test_sampled_positions_weigh_the_same_on_average(pairs):
    exercises, rng = [e for _, e in pairs][:8], Random(3)
    text = sum(fact is None for e in exercises for _, _, fact in e.certain)
    facts = sum(fact is not None for e in exercises for _, _, fact in e.certain)
    draws = [P.collate(exercises, 0, rng, torch.device("cpu")) for _ in range(200)]
    weights = [sum(w for w, (_, place) in zip(d.certain_weight.tolist(), d.owner, strict=True) if place is None) for d in draws]
    assert sum(weights) / 200 == pytest.approx(text, rel=0.02)
    assert all(sum(place is not None for _, place in d.owner) == facts for d in draws)
    assert draws[0].prompt[:, 0].unique().tolist() == [0, 1] and len(draws[0].prompt) == sum(e.prompt for e in exercises[:2])


def test_by_place_adds_up(pairs):
    exercises = [e for _, e in pairs][:8]
    batch = P.collate(exercises, 0, Random(0), torch.device("cpu"))
    results = P.by_place(exercises, batch, torch.ones(len(batch.certain)))
    for e, result in zip(exercises, results, strict=True):
        facts = [fact for _, _, fact in e.certain if fact]
        assert result == {(e.schema, fact): facts.count(fact) for fact in facts}
