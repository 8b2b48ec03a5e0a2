"""utils.generation.novelty：后缀数组与穷举相等，抄段与见过的句子手算得出；语料一大也要快。"""

import time

import pytest
import torch

from utils.corpus import news as corpus
from utils.generation import novelty as N

TRAIN = ["今天是个大晴天，市民出门晒太阳。", "银滩队以三比二获胜，球迷欢呼。散场后，他们唱着歌回家！"]


def random_texts(letters: str, length: int, n: int, seed: int = 0) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    return ["".join(letters[i] for i in torch.randint(len(letters), (length,), generator=generator)) for _ in range(n)]


@pytest.mark.parametrize("text", ["", "晴", "晴晴晴晴晴晴", "今天是个大晴天", "ab\x00\U0001f600b\u4e00a", *random_texts("甲乙", 70, 3)])
def test_suffix_array_equals_sorting(text):
    order = N.suffix_array(text).tolist()
    assert order == sorted(range(len(text)), key=lambda i: [ord(c) for c in text[i:]])


def test_longest_copied_span():
    index = N.CopyIndex(TRAIN)
    assert index.longest_copied_span("昨天银滩队以三比二落败") == "银滩队以三比二"
    assert index.longest_copied_span("xyz") == "" == index.longest_copied_span("")
    assert index.longest_copied_span("今天") == "今天"                # 短的也查得到
    assert index.longest_copied_span(TRAIN[0]) == TRAIN[0]
    assert index.longest_copied_span("晒太阳。银滩队") in ("晒太阳。", "银滩队")        # 不会跨过两篇
    assert index.longest_copied_span("晒太阳。\n银滩队") in ("晒太阳。", "银滩队")
    assert index.copied_share(["今天是个大晴天，", "xyz"]) == pytest.approx(0.5)


def test_longest_copied_span_against_brute_force():
    texts = random_texts("甲乙丙", 30, 12)
    index = N.CopyIndex(texts[:8])
    for text in texts[8:]:
        spans = {text[i:j] for i in range(30) for j in range(i + 1, 31)}
        longest = max(len(s) for s in spans if any(s in source for source in texts[:8]))
        assert len(index.longest_copied_span(text)) == longest


def test_sentences():
    assert N.split_sentences("他说：“走吧。”天黑了！然后呢；完") == ["他说：“走吧。”", "天黑了！", "然后呢；", "完"]
    assert N.split_sentences(" \n。") == []
    index = N.CopyIndex(TRAIN)
    assert index.seen_sentences(["银滩队以三比二获胜，球迷欢呼。新的一句。", "今天是个大晴天，市民出门晒太阳。"]) == pytest.approx(2 / 3)
    assert index.seen_sentences(TRAIN) == 1 and index.seen_sentences(["", "。"]) == 0
    assert index.seen_sentences(["球迷欢呼。"]) == 0                  # 半句不算见过


def test_train_is_all_copied_and_held_out_text_is_not():
    train, test = (corpus.generate(split, 60)["body"][:] for split in ("train", "test"))
    index = N.CopyIndex(train)
    assert index.copied_share(train) == index.seen_sentences(train) == 1
    assert 0 < index.copied_share(test) < 0.6 and index.seen_sentences(test) < 0.3


def test_it_stays_fast_on_a_large_corpus():
    """二十万字：建索引与查五十篇，都远比逐篇 `in` 快；界限放得很宽，只防复杂度变坏。"""
    texts = random_texts("天地人和春夏秋冬", 200, 1000) + ["今天" * 500]
    began = time.process_time()
    index = N.CopyIndex(texts)
    built = time.process_time() - began
    index.copied_share(random_texts("天地人和春夏秋冬", 200, 50, seed=1))
    assert built < 10 and time.process_time() - began - built < 5


def test_errors_in_chinese():
    with pytest.raises(ValueError, match="训练集是空的"):
        N.CopyIndex([])
    index = N.CopyIndex(["今天"])
    for metric in (index.copied_share, index.seen_sentences):
        with pytest.raises(TypeError, match="列表"):
            metric("今天")
        with pytest.raises(ValueError, match="一篇文章也没有"):
            metric([])
