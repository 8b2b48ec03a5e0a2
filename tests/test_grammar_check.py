"""语法体检：每一种毛病都报得出来；自带的语法一个问题也没有。"""

import sys
from random import Random

import pytest
from test_grammar import write

from tools.corpus import grammar_check
from tools.corpus.grammar_check import problems, sentences
from utils.corpus.news import news_grammar

LONG = "今天的活动吸引了许多附近的居民前来参加，大家都说办得热闹，"
GOOD = f"{LONG}{{x}}也来了。{LONG}大家高兴地等到天黑才回家去。"
SCHEMA = "@category 果园\n== 甲\nx = fruit\nn = int 1 9\nintro: %s\nbody: %s\ntitle: %s\n"


def check(tmp_path, body=GOOD, intro="{x}熟了，共{n}筐。", title="{x}熟了"):
    return problems(write(tmp_path, SCHEMA % (intro, body, title), fruit="苹果\n梨"), n_docs=20)


def test_a_good_schema_has_no_problem(tmp_path):
    assert check(tmp_path) == []


@pytest.mark.parametrize("change, words", [
    ({"body": "{x}好。大家都好。"}, "正文 8 字，要在 60 到 200"),
    ({"body": GOOD * 4}, "要在 60 到 200"),
    ({"body": f"{LONG}{LONG}{{x}}也来了。"}, "正文 1 句，要在 2 到 5"),
    ({"body": GOOD + "好。" * 5}, "正文 7 句"),
    ({"intro": "{x}熟了，共{n}筐" + "，又甜又脆" * 40 + "。"}, "超过 253"),
    ({"title": "{x}" + "熟" * 40}, "标题 4"),
    ({"body": GOOD.replace("{x}", "香蕉")}, "没有提到导语里的任何一件事实"),
    ({"body": GOOD.replace("，", ",", 1)}, "半角标点"),
    ({"body": GOOD.replace("，", " ", 1)}, "有空格"),
    ({"body": GOOD.replace("，", "，，", 1)}, "标点连着写：，，"),
    ({"body": GOOD.replace("大家", "“大家", 1)}, "不成对"),
    ({"body": GOOD.replace("大家", "“，大家”", 1)}, "次序不对"),
    ({"body": GOOD[:-1]}, "没有收尾的标点"),
    ({"body": GOOD.replace("热闹", "龘闹")}, "GB 2312 之外的字，自带的字体画不出：龘"),
    ({"body": GOOD + "[|]好。"}, "有两种推导"),
    ({"body": GOOD.replace("{x}", "[{x}|香蕉]")}, "没有一件事实是导语和正文必定都提到的"),
    ({"body": "{y}" + GOOD}, "没有定义的变量"),
])
def test_each_fault_is_reported(tmp_path, change, words):
    if words == "没有定义的变量":
        with pytest.raises(ValueError, match=words):
            check(tmp_path, **change)
        return
    assert any(words in problem for problem in check(tmp_path, **change)), check(tmp_path, **change)


@pytest.mark.parametrize("text, count", [
    ("好。坏！", 2), ("他说：“好。”", 1), ("他说：“好！真好。”大家笑了。", 2), ("“好，”他说。", 1), ("他问：“真的吗？”", 1),
    ("“真好！”他说。", 2), ("好", 0)])
def test_sentences(text, count):
    assert sentences(text) == count


def test_a_schema_that_cannot_be_drawn_is_reported(tmp_path):
    grammar = write(tmp_path, SCHEMA.replace("int 1 9", "int 9 1") % ("{x}熟了，共{n}筐。", GOOD, "{x}"), fruit="苹果\n梨")
    assert any("范围是空的" in p for p in problems(grammar, n_docs=3))


CATEGORIES = sorted({s.category for s in news_grammar().schemas})


@pytest.mark.parametrize("category", CATEGORIES)
def test_news_grammar_is_clean(category):
    assert problems(news_grammar(), category) == []


@pytest.mark.parametrize("category", CATEGORIES)
def test_new_names_are_clean(category):
    """换上新名字，篇幅与标点也都合规矩。"""
    for schema in (s for s in news_grammar(new_names=True).schemas if s.category == category):
        rng = Random(f"新名字/{schema.name}")
        for _ in range(40):
            d = news_grammar(new_names=True).sample(rng, schema)
            assert grammar_check.document_problems(d) == [], d.texts


def test_command(monkeypatch, capsys, tmp_path):
    write(tmp_path, SCHEMA % ("{x}熟了，共{n}筐。", GOOD, "{x}熟了"), fruit="苹果\n梨")
    monkeypatch.setattr(sys, "argv", ["grammar_check", str(tmp_path), "--category", "果园", "--show", "2"])
    with pytest.raises(SystemExit) as end:
        grammar_check.main()
    out = capsys.readouterr().out
    assert not end.value.code and "1 个模式，0 个问题" in out and out.count("导语：") == 2
    monkeypatch.setattr(sys, "argv", ["grammar_check", str(tmp_path), "--category", "菜园"])
    with pytest.raises(SystemExit, match="没有「菜园」这个类别.*果园"):
        grammar_check.main()
    (tmp_path / "lexicon/fruit.txt").write_text("@type 水果\n梨", encoding="utf-8")
    with pytest.raises(SystemExit, match="读不了.*@type 后面要写"):
        grammar_check.main()
