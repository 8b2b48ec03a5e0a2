"""查重：完全重复、近似重复，与暴力算出的 Jaccard 对照；没有误报，漏检率在说明书写的范围里。"""

import math
import random
import subprocess
import sys

import pytest

from utils.corpus.news import generate
from utils.sources import dedup
from utils.sources.dedup import choose_bands, exact_duplicates, jaccard, miss_rate, near_duplicates, shingles

ALPHABET = "的一是在不了有和人这中大为上个国我以要他"


@pytest.fixture(scope="module")
def bodies():
    docs = generate("train", 120)
    return [intro + body for intro, body in zip(docs["intro"], docs["body"], strict=True)]


def edited(text: str, edits: int, rng: random.Random) -> str:
    """随机改、删、插 edits 处。"""
    letters = list(text)
    for _ in range(edits):
        at = rng.randrange(len(letters))
        kind = rng.randrange(3)
        letters[at:at + (kind != 0)] = [] if kind == 1 else [rng.choice(ALPHABET)]
    return "".join(letters)


def pairs(bodies, max_edits, rounds):
    """（原文，改过的文字，相似度）：改动从一处到 max_edits 处，相似度由高到低都有。"""
    rng = random.Random(7)
    made = [(text, edited(text, rng.randint(1, max_edits), rng)) for _ in range(rounds) for text in bodies]
    return [(a, b, jaccard(a, b)) for a, b in made]


def brute_force(texts, threshold):
    """与 near_duplicates 同样的规则，但每一对都真的算。"""
    found, kept = {}, []
    for i, text in enumerate(texts):
        score, first = max(((jaccard(text, texts[j]), -j) for j in kept), default=(0.0, 0))
        if score >= threshold:
            found[i] = -first
        else:
            kept.append(i)
    return found


# ---------------------------------------------------------------- 相似度


def test_shingles_by_hand():
    assert shingles("一二三四五六") == {"一二三四五", "二三四五六"}
    assert shingles("一二三") == {"一二三"} and shingles("") == {""}


def test_jaccard_by_hand():
    assert jaccard("一二三四五六", "一二三四五七") == pytest.approx(1 / 3)
    assert jaccard("一二三四五", "六七八九十") == 0 and jaccard("一二 三四五", "一二三四\n五") == 1 and jaccard("", " ") == 1


# ---------------------------------------------------------------- 完全重复


def test_exact_duplicates_point_at_the_first():
    assert exact_duplicates(["甲", "乙", "甲", " 甲\n", "丙", "乙"]) == {2: 0, 3: 0, 5: 1}
    assert exact_duplicates([]) == {} and exact_duplicates(["", " "]) == {1: 0}


def test_exact_means_exact():
    assert exact_duplicates(["头发", "頭髮", "AB", "ＡＢ", "ab", "头发。"]) == {}      # 归一是清洗的事


# ---------------------------------------------------------------- 近似重复


def test_no_false_alarm_and_few_misses(bodies):
    near = pairs(bodies, 8, 15)
    found = [bool(near_duplicates([a, b], 0.8)) for a, b, _ in near]
    above = [hit for hit, (_, _, s) in zip(found, near, strict=True) if s >= 0.8]
    below = [hit for hit, (_, _, s) in zip(found, near, strict=True) if s < 0.8]
    assert len(above) > 500 and len(below) > 500
    missed = above.count(False) / len(above)
    print(f"相似度 ≥ 0.8 的 {len(above)} 对，漏检率 {missed:.2%}；< 0.8 的 {len(below)} 对，误报 {sum(below)} 对")
    assert sum(below) == 0
    assert missed <= 0.01


def test_miss_rate_is_what_the_formula_says(bodies, monkeypatch):
    """故意用很容易漏的分段，看漏掉的对数与 (1 − s^rows)^bands 之和是否相符（四个标准差之内）。"""
    bands, rows = 4, 32
    monkeypatch.setattr(dedup, "choose_bands", lambda threshold, num_perm: (bands, rows))
    near = [(a, b, s) for a, b, s in pairs(bodies, 6, 4) if s >= 0.8]
    missed = sum(not near_duplicates([a, b], 0.8) for a, b, _ in near)
    chances = [miss_rate(s, bands, rows) for _, _, s in near]
    assert 0.1 * len(near) < missed < 0.9 * len(near)
    assert missed == pytest.approx(sum(chances), abs=4 * math.sqrt(sum(p * (1 - p) for p in chances)))


def test_the_same_as_brute_force_on_a_corpus(bodies):
    rng = random.Random(3)
    texts = bodies[:60] + [edited(rng.choice(bodies[:60]), rng.randint(0, 12), rng) for _ in range(60)]
    rng.shuffle(texts)
    expected = brute_force(texts, 0.8)
    assert 8 < len(expected) < 60
    assert near_duplicates(texts, 0.8) == expected                     # 种子固定，这批文字恰好一篇不漏
    assert near_duplicates(texts, 0.8) == near_duplicates(texts, 0.8)


def test_exact_duplicates_are_near_duplicates(bodies):
    texts = bodies[:20] + bodies[:20]
    for threshold in (0.5, 0.8, 1.0):
        assert near_duplicates(texts, threshold) == exact_duplicates(texts) == {20 + i: i for i in range(20)}


def test_similar_to_a_removed_one_only_stays():
    """甲像乙，乙像丙，丙不像甲：只删乙。"""
    alphabet = "".join(chr(0x4E00 + i) for i in range(140))
    first, second, third = alphabet[:100], alphabet[8:108], alphabet[16:116]
    assert jaccard(first, second) > 0.8 and jaccard(second, third) > 0.8 and jaccard(first, third) < 0.8
    assert near_duplicates([first, second, third]) == {1: 0}


def test_the_closest_is_named():
    text = "".join(chr(0x4E00 + i) for i in range(100))
    other = "".join(chr(0x6E00 + i) for i in range(20))
    far, close = text[:80] + other, text[10:]
    assert jaccard(far, close) < 0.6 < jaccard(far, text) < jaccard(close, text)
    assert near_duplicates([far, close, text], 0.6) == {2: 1}


def test_the_first_of_equals_is_named():
    text = "".join(chr(0x4E00 + i) for i in range(100))
    head, tail = text[:90], text[10:]
    assert jaccard(head, tail) < 0.85 < jaccard(head, text) == jaccard(tail, text)
    assert near_duplicates([head, tail, text], 0.85) == {2: 0}


def test_short_and_empty_texts():
    assert near_duplicates([]) == {}
    assert near_duplicates(["", "  ", "短", "短", "短文"]) == {1: 0, 3: 2}


def test_the_bundled_corpus_has_no_near_duplicates():
    docs = generate("train", 200)
    assert near_duplicates(docs["body"]) == {} and exact_duplicates(docs["body"]) == {}


# ---------------------------------------------------------------- 分段


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("num_perm", [64, 128, 256])
def test_bands_miss_at_most_one_percent_and_are_the_widest(threshold, num_perm):
    bands, rows = choose_bands(threshold, num_perm)
    assert bands >= 2 and num_perm - rows < bands * rows <= num_perm
    assert miss_rate(threshold, bands, rows) <= 0.01
    if rows < num_perm // 2:
        assert miss_rate(threshold, num_perm // (rows + 1), rows + 1) > 0.01


def test_bands_by_hand():
    assert choose_bands(0.8, 128) == (21, 6) and choose_bands(1.0, 128) == (2, 64)
    assert choose_bands(0.01, 16) == (16, 1)                           # 怎样分都会漏，取漏得最少的
    assert miss_rate(0.8, 21, 6) == pytest.approx(0.0017, abs=5e-5) and miss_rate(1, 2, 64) == 0 and miss_rate(0, 2, 64) == 1


# ---------------------------------------------------------------- 错误


@pytest.mark.parametrize("call, words", [
    (lambda: exact_duplicates("一段文字"), "exact_duplicates.*一列文字"),
    (lambda: near_duplicates("一段文字"), "near_duplicates.*一列文字"),
    (lambda: exact_duplicates(["字", None]), "第 1 项.*NoneType"), (lambda: near_duplicates(["字", 3]), "第 1 项.*int"),
    (lambda: jaccard("字", 3), "第 1 项.*int"),
    (lambda: near_duplicates([], 0), "threshold.*得到的是 0"), (lambda: near_duplicates([], 1.1), "threshold.*1.1"),
    (lambda: near_duplicates([], True), "threshold.*True"), (lambda: near_duplicates([], "0.8"), "threshold.*'0.8'"),
    (lambda: near_duplicates([], 0.8, 8), "num_perm.*8"), (lambda: near_duplicates([], 0.8, 128.0), "num_perm.*128.0"),
])
def test_bad_calls_are_explained(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_import_is_light():
    """只清洗、不查近似重复时，不该等 scipy。"""
    code = "import sys, utils.sources.dedup; sys.exit('scipy' in sys.modules or 'datasketch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=dedup.__file__.rsplit("utils", 1)[0]).returncode == 0
