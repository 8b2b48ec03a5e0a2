"""手写文章：装载，以及这批文章该有的样子（篇数、长短、类别、不重复）。"""

import json
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from utils.corpus.news import load_corpus
from utils.sources.articles import KEYS, load_articles, read_articles

CATEGORIES = set("天气 体育 交通 教育 农业 健康 民生 文化 科技 环境 商业 旅游".split())
STYLES = set("plain dialect rare allusion net mixed traditional emoji".split())
SHARED = 12                                                # 两篇的正文不许有这么多字（或更多）连着相同


@pytest.fixture(scope="module")
def articles():
    return read_articles()


def row(i, **changes):
    return {"id": f"x-{i}", "category": "农业", "style": "消息", "title": f"题{i}", "intro": f"导语{i}。", "body": f"正文{i}。"} | changes


def write(folder, name, rows):
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) + "\n" for r in rows]
    (folder / name).write_text("".join(lines), encoding="utf-8")


def test_loader_gives_three_parts_with_style(articles):
    corpus = load_corpus("articles")
    assert list(corpus) == ["train", "validation", "test"]
    assert all(tuple(docs.column_names) == KEYS for docs in corpus.values())
    found = sorted((r for docs in corpus.values() for r in docs), key=lambda r: r["id"])
    assert found == sorted(articles, key=lambda r: r["id"])                # 一字不改，一篇不少
    held = max(1, len(articles) // 20)
    assert len(corpus["validation"]) == len(corpus["test"]) == held
    again = load_corpus("articles")
    assert all(docs["id"] == again[split]["id"] for split, docs in corpus.items())
    assert load_corpus("articles", seed=1)["test"]["id"] != corpus["test"]["id"]
    assert sum(map(len, load_articles(n_docs=10).values())) == 10


def test_files_are_read_in_order_and_bom_and_blank_lines_do_no_harm(tmp_path):
    write(tmp_path, "b.jsonl", [row(3), "\n", row(1)])
    write(tmp_path, "a.jsonl", ["\ufeff", row(2)])
    (tmp_path / "notes.txt").write_text("不是文章", encoding="utf-8")
    assert [r["id"] for r in read_articles(tmp_path)] == ["x-2", "x-3", "x-1"]


@pytest.mark.parametrize("rows, words", [
    ([], ["还没有文章"]),
    ([row(1), '{"id": \n'], ["a.jsonl 第 2 行", "JSON"]),
    ([row(1), "[]\n"], ["第 2 行", "id、category、style、title、intro、body"]),
    ([row(1, body=" ", style=3)], ["第 1 行", "缺少", "style、body"]),
    ([row(1), row(2), row(1)], ["第 3 行", "x-1", "a.jsonl 第 1 行", "重复"]),
])
def test_errors_are_in_chinese(tmp_path, rows, words):
    write(tmp_path, "a.jsonl", rows)
    with pytest.raises(ValueError) as error:
        read_articles(tmp_path)
    assert all(word in str(error.value) for word in words)


def test_articles_take_no_options():
    with pytest.raises(ValueError, match="articles.*没有这样的选项：columns"):
        load_corpus("articles", columns={})


# ---- 这批文章该有的样子 ----
def test_enough_articles_of_twelve_categories(articles):
    assert len(articles) >= 150
    counts = Counter(a["category"] for a in articles)
    assert set(counts) == CATEGORIES and min(counts.values()) >= 6, counts
    assert len({a["id"] for a in articles}) == len(articles) == len({a["title"] for a in articles})
    assert {a["style"] for a in articles} == STYLES


def test_length(articles):
    odd = {a["id"]: len(a["intro"] + a["body"]) for a in articles if not 150 <= len(a["intro"] + a["body"]) <= 350}
    assert not odd, f"导语加正文要 150 到 350 字，这些不是：{odd}"


def test_text_is_clean(articles):
    for a in articles:
        for part in ("title", "intro", "body"):
            assert a[part] == a[part].strip() and "\ufffd" not in a[part], (a["id"], part)
            if a["style"] in ("plain", "dialect", "rare", "allusion", "traditional"):
                assert not set(a[part]) & set(",;?!"), f"{a['id']} 的 {part} 里有半角标点"


def test_no_near_duplicates(articles):
    """任意两篇，5 字片的 Jaccard 相似度都低于 0.1。"""
    def pieces(a):
        text = "".join((a["intro"] + a["body"]).split())
        return {text[i:i + 5] for i in range(len(text) - 4)}
    shingles = {a["id"]: pieces(a) for a in articles}
    near = [(x, y) for x, y in combinations(shingles, 2)
            if len(shingles[x] & shingles[y]) >= 0.1 * len(shingles[x] | shingles[y])]
    assert not near


def test_no_body_shares_a_long_string_with_another(articles):
    owners = defaultdict(set)
    for a in articles:
        body = "".join(a["body"].split())
        for i in range(len(body) - SHARED + 1):
            owners[body[i:i + SHARED]].add(a["id"])
    shared = {piece: sorted(ids) for piece, ids in owners.items() if len(ids) > 1}
    assert not shared, f"这些字在不止一篇的正文里出现：{dict(list(shared.items())[:5])}"
