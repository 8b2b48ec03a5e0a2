"""自带语料：确定、不重复、前缀不变、下限算得对，而且几秒就能生成。"""

import hashlib
import json
import math
import re
import sys
import time

import pytest
from datasets import Dataset

from utils import corpus
from utils.corpus import COLUMNS, floor, generate, load_corpus
from utils.environment import DATA

# 前 20 篇训练文档的指纹。有意改动 data/news 之后，把报错里的新值抄到这里；没改却变了，说明结果随平台而变。
PINNED = "126e8ea20e82034e3215f086677be0b849ef96362b6e5faba7a5bc7054e2a9e4"


def fingerprint(docs):
    rows = [{k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()} for row in docs]
    text = json.dumps(rows, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@pytest.fixture(scope="module")
def small():
    return load_corpus(n_docs=3000)


def test_the_same_seed_gives_the_same_bytes():
    assert fingerprint(generate("train", 40)) == fingerprint(generate("train", 40))
    assert fingerprint(generate("train", 40)) != fingerprint(generate("train", 40, seed=2027))


def test_first_documents_are_pinned():
    found = fingerprint(generate("train", 20))
    assert found == PINNED, f"前 20 篇变了。若是有意改动 data/news，请把 PINNED 换成 {found}"


def test_columns_and_sizes(small):
    assert {split: len(docs) for split, docs in small.items()} == {"train": 2700, "validation": 150, "test": 150}
    assert all(tuple(docs.column_names) == COLUMNS for docs in small.values())
    ids = [i for docs in small.values() for i in docs["id"]]
    assert len(set(ids)) == 3000 and ids[0] == "train-00000"
    assert load_corpus(n_docs=100)["test"].num_rows == 5


def test_more_documents_keep_the_first_ones(small):
    fewer = load_corpus(n_docs=400)
    for split, docs in fewer.items():
        assert fingerprint(docs) == fingerprint(small[split].select(range(len(docs))))


def test_held_out_is_capped(monkeypatch):
    asked = {}
    monkeypatch.setattr(corpus, "generate", lambda split, n, seed: asked.update({split: n}) or generate(split, 1))
    load_corpus(n_docs=60000)
    assert asked == {"train": 58000, "validation": 1000, "test": 1000}


def test_no_document_appears_twice(small):
    keys = [pair for docs in small.values() for pair in zip(docs["intro"], docs["body"], strict=True)]
    assert len(set(keys)) == len(keys) == 3000                         # 三个部分之间也不重复


def test_at_least_six_categories(small):
    shares = [small["train"]["category"].count(c) / 2700 for c in set(small["train"]["category"])]
    assert len(shares) >= 6 and min(shares) > 0.03
    opening = sum(intro.startswith("今天是个") for intro in small["train"]["intro"])
    assert opening >= 50                                               # 00 和 09 要续写这四个字


def test_nats_agree_with_the_parser(small):
    for row in small["test"].select(range(40)):
        [(schema, values, log_intro, log_body)] = corpus.news_grammar().parse(row["intro"], row["body"])
        assert (schema.category, schema.name) == (row["category"], row["schema"])
        assert log_intro + log_body == pytest.approx(-row["nats_intro"] - row["nats_body"], abs=1e-9)
        assert row["nats_title"] >= 0
        facts = {f["name"]: f for f in json.loads(row["facts"])}
        assert {k: f["value"] for k, f in facts.items() if set(f["in"]) & {"intro", "body"}} == values
        for fact in facts.values():                                    # 值（或它的属性，如量词）真的写在那一段里
            lexicon = corpus.news_grammar().lexicon_of(schema, fact["name"])
            written = [fact["value"], *(lexicon.attributes[fact["value"]].values() if lexicon else ())]
            assert fact["in"] and all(any(w in row[part] for w in written) for part in fact["in"])


def test_floor_by_hand():
    docs = Dataset.from_dict({"intro": ["甲乙", "丙丁戊"], "body": ["天地玄黄", "宇宙"],
                              "nats_intro": [2.0, 3.0], "nats_body": [4.0, 8.0]})
    body = floor(docs, "body")
    assert body["nats_per_token"] == pytest.approx(12 / 8)             # 4 + 2 个字，再加两个 [SEP]
    assert body["bits_per_char"] == pytest.approx(12 / math.log(2) / 6)
    assert body["nats_per_doc"] == pytest.approx(6)
    assert body["ci95_per_doc"] == pytest.approx(1.96 * math.sqrt(8) / math.sqrt(2))
    whole = floor(docs, "all")
    assert whole["nats_per_token"] == pytest.approx(17 / 15)           # 11 个字，四个 [SEP]
    assert whole["bits_per_char"] == pytest.approx(17 / math.log(2) / 11)


def test_floor_of_the_corpus_is_learnable_and_not_trivial(small):
    assert 0.2 < floor(small["train"], "body")["nats_per_token"] < 1.0
    near, far = (floor(small[s], "body") for s in ("train", "test"))
    assert abs(near["nats_per_doc"] - far["nats_per_doc"]) < 2 * (near["ci95_per_doc"] + far["ci95_per_doc"])


@pytest.mark.parametrize("call, words", [
    (lambda: load_corpus("hub"), ["不认识的语料来源", "hub", "bundled"]),
    (lambda: load_corpus("articles:x"), ["不认识的语料来源", "articles:x"]),
    (lambda: load_corpus(None), ["不认识的语料来源", "None"]),
    (lambda: load_corpus(n_docs=99), ["n_docs=99", "100"]),
    (lambda: load_corpus(n_docs=True), ["n_docs", "正整数", "True"]),
    (lambda: load_corpus(encoding="gbk"), ["bundled", "没有这样的选项：encoding"]),
    (lambda: floor(generate("test", 2), "title"), ["part", "title"]),
])
def test_errors_are_in_chinese(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words)


def test_twenty_thousand_documents_take_seconds():
    generate("train", 10)
    started = time.process_time()                                      # 处理器时间，不受别的程序影响
    generate("train", 1000)
    assert (time.process_time() - started) * 20 < 60


def test_stats_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["corpus", "stats", "300"])
    corpus.main()
    stats = json.loads(capsys.readouterr().out)
    assert set(stats) == {"documents", "characters", "distinct_characters", "categories", "schemas", "lexicon",
                          "entropy_bits_per_char", "body_given_intro_bits_per_char", "mean_intro_chars",
                          "mean_body_chars", "max_pair_chars", "duplicates"}
    assert stats["documents"] == 300 and stats["categories"] >= 6 and stats["duplicates"] == 0
    assert stats["max_pair_chars"] + 3 <= 256


def test_show_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["corpus", "show", "2"])
    corpus.main()
    out = capsys.readouterr().out
    assert out.count("导语") == 4 and all(body in out for body in generate("train", 2)["body"])


def test_data_card_agrees_with_the_grammar():
    card = (DATA / "README.md").read_text(encoding="utf-8")
    [written] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", card, re.S)]
    found = corpus.stats(100)
    same = ("categories", "schemas", "lexicon")
    assert set(written) == set(found) and {k: written[k] for k in same} == {k: found[k] for k in same}
    assert written["documents"] == 20000 and written["duplicates"] == 0
    assert written["body_given_intro_bits_per_char"] == pytest.approx(found["body_given_intro_bits_per_char"], rel=0.1)
    assert set(COLUMNS) <= set(re.findall(r"`(\w+)`", card))
