"""事实核对：语料自己的正文全都守住事实；改掉一处就要被发现。"""

import copy
import json
from random import Random

import pytest

from utils.corpus.facts import check_facts, literal_facts
from utils.corpus.news import generate, news_grammar


def with_mentions(rng, swap=None, by=None):
    """抽一篇文档，并记下正文里每一处变量 [（变量，属性，写成的文字）]；swap 是要改写成 by 的那一处的序号。"""
    grammar, mentions, now = copy.copy(news_grammar()), [], []
    plain_emit, plain_surface = news_grammar()._emit, news_grammar().surface

    def surface(schema, name, attribute, value):
        text = plain_surface(schema, name, attribute, value)
        if now == ["body"]:
            mentions.append((name, attribute, text))
            if swap == len(mentions) - 1:
                return by
        return text

    def emit(schema, nodes, *rest):
        for part, tree in schema.parts.items():
            if nodes is tree:
                now[:] = [part]
        return type(grammar)._emit(grammar, schema, nodes, *rest)

    grammar.surface, grammar._emit = surface, emit
    assert plain_emit.__func__ is type(grammar)._emit
    return grammar.sample(rng), mentions


def another(d, name, value, rng):
    """同一词表里的另一个词，或者另一个数。"""
    lexicon = news_grammar().lexicon_of(d.schema, name)
    if lexicon is None:
        return str(int(value) + rng.randint(1, 9))
    return rng.choice([w for w in lexicon.words if w != value])


def swapped_documents(n):
    for i in range(n):
        d, mentions = with_mentions(Random(f"换一处/{i}"))
        spots = [k for k, (name, attribute, _) in enumerate(mentions)
                 if attribute is None and name in d.seen["intro"]]
        rng = Random(i)
        spot = rng.choice(spots)
        name, _, value = mentions[spot]
        by = another(d, name, value, rng)
        changed, _ = with_mentions(Random(f"换一处/{i}"), spot, by)
        assert changed.texts["intro"] == d.texts["intro"] and changed.texts["body"] != d.texts["body"]
        yield d, changed.texts["body"], name, value, by


def test_bodies_of_the_corpus_are_faithful():
    for row in generate("test", 200):
        report = check_facts(row["intro"], row["body"])
        assert report.faithful and report.well_formed, (row, report)
        assert report.kept and all(value in row["intro"] for _, value in report.kept)


def test_one_swapped_fact_is_found():
    found, named, missed, n = 0, 0, [], 300
    for d, body, name, value, by in swapped_documents(n):
        report = check_facts(d.texts["intro"], body)
        if report.faithful:
            missed.append(f"{d.schema.category}/{d.schema.name} {name}:{value}→{by}")
        found += not report.faithful
        named += (name, value, by) in report.contradicted
    print("\n".join(["没有查出的：", *missed]))
    assert found / n >= 0.95, missed
    assert named / n >= 0.95                                           # 不但发现，而且说得出哪一项错成了什么


def test_truncated_body_misses_facts():
    missing = 0
    for row in generate("test", 100):
        report = check_facts(row["intro"], row["body"][:len(row["body"]) // 4])
        assert not report.well_formed and not report.contradicted, (row, report)
        missing += bool(report.missing) and not report.faithful
    assert missing >= 80


def test_empty_body_misses_everything_due():
    for row in generate("test", 50):
        report = check_facts(row["intro"], "")
        assert not report.faithful and report.missing and not report.kept and not report.well_formed


@pytest.mark.parametrize("body", ["好好好好好好", "今天的会议讨论了明年的计划", "<b>1</b>", "{city}"])
def test_nonsense_is_neither_well_formed_nor_faithful(body):
    for row in generate("test", 20):
        report = check_facts(row["intro"], body)
        assert not report.well_formed and not report.faithful


def test_a_body_of_another_document_is_not_faithful():
    docs = generate("test", 101)
    pairs = zip(docs["intro"][:100], docs["body"][1:], strict=True)
    assert sum(check_facts(intro, body).faithful for intro, body in pairs) <= 2


def test_numbers_are_compared_whole_in_a_loose_reading():
    row = next(r for r in generate("train", 500) if r["schema"] == "水果丰收")
    report = check_facts(row["intro"], row["body"])
    area = dict(report.kept).get("area")
    assert area
    loose = check_facts(row["intro"], f"坏了{row['body']}".replace(area, area + "0"))      # 600 不等于 6000
    assert not loose.well_formed and "area" in {name for name, _ in loose.missing}


@pytest.mark.parametrize("split", ["test", "test_new_names"])
def test_every_body_of_a_split_is_faithful(split):
    for row in generate(split, 500, seed=7):
        report = check_facts(row["intro"], row["body"])
        assert report.faithful and report.intro_known and not report.missing, row


def test_an_old_name_in_place_of_a_new_one_is_found():
    """模型最爱犯的错：见到没见过的名字，写成训练时见过的。"""
    found = 0
    for row in generate("test_new_names", 200):
        for fact in json.loads(row["facts"]):
            if fact["type"] == "人物" and {"intro", "body"} <= set(fact["in"]):
                report = check_facts(row["intro"], row["body"].replace(fact["value"], "王秀英"))
                assert (fact["name"], fact["value"], "王秀英") in report.contradicted and not report.faithful
                found += 1
    assert found >= 10


def test_other_surface_forms_count_in_a_loose_reading():
    row = next(r for r in generate("train", 2000) if r["schema"] == "水果丰收")
    area = {f["name"]: f for f in json.loads(row["facts"])}["area"]
    for form in area["forms"]:
        report = check_facts(row["intro"], f"据说今年一共种了{form}亩，收成不错")
        assert not report.well_formed and ("area", area["value"]) in report.kept


# ---- 导语不是这套语法写的
def test_literal_facts():
    text = "3月5日，青禾市第12届灯会在望江大桥边开幕，1.5万人到场，12届以来最多。"
    assert literal_facts(text) == [("日期", "3月5日", ""), ("地点", "青禾市", ""), ("数量", "12", "届"),
                                   ("地点", "望江大桥", ""), ("数量", "1.5", "万")]
    assert literal_facts("今天是个") == literal_facts("") == []


def test_any_intro_can_be_checked():
    intro = "听说青禾市要办灯会，3月5日开始，一共40盏灯。"
    report = check_facts(intro, "青禾市的灯会3月5号开始，有四十盏灯。")
    assert not report.intro_known and not report.well_formed and not report.contradicted and not report.missing
    assert report.kept == [("地点", "青禾市"), ("日期", "3月5日"), ("数量", "40")]
    report = check_facts(intro, "云泽市的灯会有30盏灯。")
    assert report.contradicted == [("地点", "青禾市", "云泽市"), ("数量", "40", "30")] and report.missing == [("日期", "3月5日")]


@pytest.mark.parametrize("intro", ["", "从前有座山", "今天是个"])
def test_an_intro_without_facts_has_nothing_to_check(intro):
    report = check_facts(intro, "随便什么")
    assert not report.intro_known and not report.faithful and not (report.kept or report.contradicted or report.missing)
