"""歧义检查：小语法里的歧义要报出来，没有歧义的不冤枉；真正的新闻语法有一份没有歧义的证明，还有二十万篇的抽查。"""

import random

import pytest
from test_grammar import write

from tools.corpus.ambiguity import AmbiguityChecker, Trie
from utils.corpus.news import news_grammar

WORDS = "甲\n甲乙\n丙"
SCHEMA = r'''
== 甲
x = words
y = words
n = int 1 20
m = int 1 5
intro: 头{x}。
body: %s
title: 题{x}
'''


def found(tmp_path, body, more=""):
    return AmbiguityChecker(write(tmp_path, SCHEMA % body + more, words=WORDS)).problems()


@pytest.mark.parametrize("body, example", [
    (r"[|]好", "好"),                              # 两个空分支
    (r"[甲乙|甲[乙|丙]]好", "甲乙"),                # 分开走，又会合
    (r"[ab|a][c|bc]", "abc"),
    (r"{x}[乙|]好", "…乙"),                        # 一个词是另一个词的开头
    (r"[{y}|甲]好", "甲好"),
    (r"[{y}|{y}]好", "…"),
    (r"头[a|][|]好", "头好"),
    (r"{n}{m}", "…11"),                            # 两个数紧挨着
    (r"[1|]{n}", "11"),
    (r"{n}[0|]天", "…0"),
])
def test_ambiguities_are_found(tmp_path, body, example):
    [problem] = found(tmp_path, body)
    assert "甲 的 body 有歧义" in problem and f"「{example}" in problem


@pytest.mark.parametrize("body", [r"好", r"{x}乙好", r"{y}{x}", r"[a|b][c|d]", r"[甲|乙|]{n}天{m}", r"{n}.{m}", r"[ab|a][c|d]",
                                  r"[[甲|乙]丙|[甲|乙]丁]{x}"])
def test_clean_grammars_pass(tmp_path, body):
    assert found(tmp_path, body) == []


def test_two_schemas_with_one_intro_are_found(tmp_path):
    second = "== 乙\nintro: 头甲乙%s\nbody: 好\ntitle: 好\n"
    [problem] = found(tmp_path, "好", second % "。")
    assert "甲 与 tiny/乙 能写出同样的导语" in problem
    assert found(tmp_path, "好", second % "！") == []


def test_attributes_and_new_names_are_covered(tmp_path):
    schema = SCHEMA % r"{x.量}[个|]好"
    assert AmbiguityChecker(write(tmp_path, schema, words="甲 量=只\n乙 量=条")).problems() == []
    assert AmbiguityChecker(write(tmp_path, schema, words="甲 量=只\n乙 量=只个")).problems()
    assert AmbiguityChecker(write(tmp_path, SCHEMA % r"{x}[丁|]好", words="甲\n@new\n甲丁")).problems()


def test_the_proof_agrees_with_enumeration(tmp_path):
    """随机造一批小语法，把每一种推导都列出来数：有没有两种推导写成一样，与检查的结论相同。"""
    rng, verdicts = random.Random(7), []

    def template(depth):
        if depth == 0 or rng.random() < 0.4:
            return rng.choice(["a", "b", "ab", "", "{x}"])
        return "".join(f"[{template(depth - 1)}|{template(depth - 1)}]" if rng.random() < 0.6 else template(depth - 1)
                       for _ in range(2))

    def spellings(nodes):                          # 每种推导写出的文字，不看变量是否相同
        texts = [""]
        for node in nodes:
            if node[0] == "text":
                ends = [node[1]]
            elif node[0] == "choice":
                ends = [t for _, _, branch in node[1] for t in spellings(branch)]
            else:
                ends = ["a", "ab", "c"]
            texts = [t + e for t in texts for e in ends]
        return texts

    for i in range(150):
        grammar = write(tmp_path, f"== 甲\nx = words\nintro: 头\nbody: {template(3)}。\ntitle: 题\n", words="a\nab\nc")
        [schema] = grammar.schemas
        texts = spellings(schema.parts["body"])
        verdicts.append(len(set(texts)) < len(texts))
        assert (AmbiguityChecker(grammar).witness(schema, schema, "body") is not None) == verdicts[-1], i
    assert 20 < sum(verdicts) < 130                # 两种结论都够多，测试才有意义


def test_trie_knows_the_prefixes():
    trie = Trie(["甲", "甲乙", "丙"])
    assert len(trie.nodes) == 4 and sum(trie.ends) == 3 and len(trie.prefixes) == 1


def test_news_grammar_is_proved_unambiguous():
    assert AmbiguityChecker(news_grammar()).problems() == []


def test_many_documents_have_one_derivation_per_text():
    """抽二十万篇：同样的导语，同样的「导语加正文」，推导的概率必须相同；不同就是有两种推导。"""
    grammar, rng, n = news_grammar(), random.Random("百万"), 200_000
    intros, pairs, repeated = {}, {}, 0
    for _ in range(n):
        d = grammar.sample(rng)
        intro, body = d.log_p["intro"], d.log_p["body"]
        before = intros.setdefault(hash(d.texts["intro"]), intro)
        repeated += before is not intro
        assert abs(before - intro) < 1e-9, d.texts["intro"]
        assert abs(pairs.setdefault(hash((d.texts["intro"], d.texts["body"])), intro + body) - intro - body) < 1e-9, d.texts
    print(f"{n} 篇里，导语重复 {repeated} 次，导语加正文重复 {n - len(pairs)} 次")
    assert repeated >= 20                          # 撞上过，抽查才有分量
