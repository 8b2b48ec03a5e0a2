"""自带语料：确定、不重复、前缀不变、下限算得对，而且几秒就能生成。"""

import hashlib
import json
import math
import re
import sys
import time

import pytest
from datasets import Dataset

from tools.corpus import show
from utils.corpus import news as corpus
from utils.corpus.facts import PROPER
from utils.corpus.lexicon import TYPES
from utils.corpus.news import COLUMNS, floor, generate, load_corpus, news_grammar
from utils.paths import DATA

# 前 20 篇训练文档的指纹。有意改动 data/news 之后，把报错里的新值抄到这里；没改却变了，说明结果随平台而变。
PINNED = "c95d5aa3520226c5c59726e0207e9d40d77731972312c0bf0b285e88f580f9c5"


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
    assert {split: len(docs) for split, docs in small.items()} == {"train": 2700, "validation": 150, "test": 150,
                                                                   "test_new_names": 150}
    assert all(tuple(docs.column_names) == COLUMNS for docs in small.values())
    ids = [i for docs in small.values() for i in docs["id"]]
    assert len(set(ids)) == 3150 and ids[0] == "train-00000"
    assert load_corpus(n_docs=100)["test"].num_rows == 5


def test_more_documents_keep_the_first_ones(small):
    fewer = load_corpus(n_docs=400)
    for split, docs in fewer.items():
        assert fingerprint(docs) == fingerprint(small[split].select(range(len(docs))))


def test_held_out_is_capped(monkeypatch):
    asked = {}
    monkeypatch.setattr(corpus, "generate", lambda split, n, seed: asked.update({split: n}) or generate(split, 1))
    load_corpus(n_docs=60000)
    assert asked == {"train": 58000, "validation": 1000, "test": 1000, "test_new_names": 1000}


def test_no_document_appears_twice(small):
    keys = [pair for docs in small.values() for pair in zip(docs["intro"], docs["body"], strict=True)]
    assert len(set(keys)) == len(keys) == 3150                         # 各部分之间也不重复


def test_twelve_categories_and_the_running_prompt(small):
    shares = [small["train"]["category"].count(c) / 2700 for c in set(small["train"]["category"])]
    assert len(shares) >= 12 and min(shares) > 0.03
    opening = {(row["category"], row["intro"][:12]) for row in small["train"] if row["intro"].startswith("今天是个")}
    assert len(opening) >= 20 and len({category for category, _ in opening}) >= 8      # start 和 generation 要续写这四个字


def test_new_names_never_occur_in_training():
    corpus = load_corpus(n_docs=6000)
    train = "\n".join(row[part] for row in corpus["train"] for part in ("title", "intro", "body"))
    tables = [t for t in news_grammar().lexicons.values() if t.new and t.name not in ("surname", "given")]
    assert {"人物", "地点"} <= {t.kind for t in tables} and len(tables) >= 20
    fresh = {w for t in tables if t.written for w, _, _ in t.new}
    assert [w for w in fresh if w in train] == []
    used = [f["value"] for row in corpus["test_new_names"] for f in json.loads(row["facts"]) if f["type"] in PROPER]
    known = {w for t in tables for w in t.words}
    assert len(used) > 500 and not [w for w in used if w in known]
    people = {w for w in used if w in news_grammar().lexicons["person"].attributes}
    assert len(people) > 100 and not [w for w in people if w in train]
    others = [w for t in news_grammar().lexicons.values() if t.written for w in t.words]
    assert [(w, o) for w in fresh for o in others if w in o] == []                     # 也不是哪个旧词的一部分


def test_new_names_use_known_characters():
    """新名字的字训练时都见过，否则字级分词器只会给出 [UNK]，考的就不是照抄了。"""
    seen = set("".join(row[part] for row in generate("train", 10000) for part in ("title", "intro", "body")))
    names = [w for t in news_grammar().lexicons.values() if t.written for w, _, _ in t.new]
    assert len(names) > 400 and [w for w in names if set(w) - seen] == []


def test_new_names_have_an_exact_floor():
    grammar = news_grammar(new_names=True)
    for row in generate("test_new_names", 30):
        [(schema, _, log_intro, log_body)] = grammar.parse(row["intro"], row["body"])
        assert schema.name == row["schema"]
        assert log_intro + log_body == pytest.approx(-row["nats_intro"] - row["nats_body"], abs=1e-9)


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
            assert fact["forms"][0] == fact["value"] and fact["type"] in (*TYPES, "说法")
            assert fact["in"] and all(any(w in row[part] for w in written) for part in fact["in"])


def test_floor_by_hand():
    docs = Dataset.from_dict({"intro": ["甲乙", "丙丁戊"], "body": ["天地玄黄", "宇宙"],
                              "nats_intro": [2.0, 3.0], "nats_body": [4.0, 8.0]})
    body = floor(docs, "body")
    assert body["nats_per_token"] == pytest.approx(12 / 8)             # 4 + 2 个字，再加两个 [SEP]
    assert body["bits_per_char"] == pytest.approx(12 / math.log(2) / 6)
    assert body["nats_per_doc"] == pytest.approx(6)
    assert body["ci95_per_doc"] == pytest.approx(1.96 * math.sqrt(8) / math.sqrt(2))
    assert body["ci95_bits_per_char"] == pytest.approx(1.96 * math.sqrt(32) / math.sqrt(2) / 3 / math.log(2))   # 差 4−8, 8−4
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


def test_confidence_interval_covers_the_truth():
    """把 12,000 篇切成 60 份，每份算一个区间；约 95% 的区间盖住总体的值。"""
    docs = generate("train", 12000, seed=5)
    truth = {part: floor(docs, part)["bits_per_char"] for part in ("body", "all")}
    pieces = [docs.select(range(i, i + 200)) for i in range(0, 12000, 200)]
    for part, value in truth.items():
        hits = [abs(f["bits_per_char"] - value) < f["ci95_bits_per_char"] for f in (floor(piece, part) for piece in pieces)]
        assert 0.85 <= sum(hits) / 60 <= 1


def test_a_document_costs_no_more_than_five_thousand_little_steps():
    """生成一篇的用时，不超过 5,000 步最简单的 Python（平常约 2,800 步）：并排量，取最好的一轮，机器快慢忙闲都不影响。"""
    def seconds(work):
        started = time.process_time()
        work()
        return time.process_time() - started

    generate("train", 10)
    ratios = [seconds(lambda: generate("train", 1000)) / seconds(lambda: [len(str(i)) for i in range(1_000_000)]) for _ in range(3)]
    assert min(ratios) < 5


def test_stats_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["corpus", "stats", "300"])
    show.main()
    stats = json.loads(capsys.readouterr().out)
    assert {"documents", "characters", "distinct_characters", "schemas", "lexicon", "entropy_bits_per_char",
            "body_given_intro_bits_per_char", "duplicates"} <= set(stats)
    assert stats["documents"] == 300 and stats["categories"] >= 12 and stats["schemas"] >= 150
    assert stats["lexicon"] >= 6000 and stats["duplicates"] == stats["duplicates_between_splits"] == 0
    assert stats["max_pair_chars"] + 3 <= 256


def test_show_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["corpus", "show", "2"])
    show.main()
    out = capsys.readouterr().out
    assert out.count("导语") == 4 and all(body in out for body in generate("train", 2)["body"])


def test_data_card_agrees_with_the_grammar():
    card = (DATA / "README.md").read_text(encoding="utf-8")
    [written] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", card, re.S)]
    found = show.stats(100)
    same = ("categories", "schemas", "lexicon", "lexicon_written", "lexicon_new_names", "lexicon_files")
    assert set(written) == set(found) and {k: written[k] for k in same} == {k: found[k] for k in same}
    assert written["documents"] == 60000 and written["duplicates"] == 0 and written["distinct_han"] >= 2000
    assert written["body_given_intro_bits_per_char"] == pytest.approx(found["body_given_intro_bits_per_char"], rel=0.1)
    assert set(COLUMNS) <= set(re.findall(r"`(\w+)`", card))
