"""新不新：模型写的，有多少是从训练集里原样搬来的？

首次实现：generation。两把尺子：最长的一字不差的片段（不管多短都查得准），见过的句子占多少。
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np

END = "\n"                                        # 隔开各篇；文章里的换行一律当作空格，片段就不会跨过两篇
SENTENCE = re.compile(r"[^。！？；\n]+[。！？；]?[”’」』）]*")


def split_sentences(text: str) -> list[str]:
    """按 。！？； 切成句子，标点与收尾的引号跟着前一句；空白的不算。首次实现：generation。"""
    return [found.group().strip() for found in SENTENCE.finditer(text) if found.group().strip()]


def suffix_array(text: str) -> np.ndarray:
    """后缀数组（suffix array）：把 text 的每个后缀按字典序排好，返回各后缀的起点。

    做法是倍增（Manber 与 Myers，1993）：先按前 1 个字排名，再两个两个地合并成前 2、4、8……个字的排名。

    参数：text: 任意文字。返回：(T,) 的整数数组。
    首次实现：generation。
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    rank = np.unique(codes, return_inverse=True)[1].reshape(-1)                    # (T,)：前 1 个字的名次
    order, width = np.argsort(rank, kind="stable"), 1
    while len(codes) and rank[order[-1]] < len(codes) - 1:                         # 还有并列的名次
        later = np.zeros_like(rank)                                                # 后一半的名次；到头了算最小
        later[:-width] = rank[width:] + 1
        key = rank * (len(codes) + 1) + later
        order = np.argsort(key, kind="stable")
        ranks = np.empty_like(rank)
        ranks[order] = np.concatenate([[0], np.cumsum(np.diff(key[order]) != 0)])
        rank, width = ranks, 2 * width
    return order


def _common(a: str, b: str) -> int:
    """两段文字开头有几个字相同。"""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class CopyIndex:
    """查「这段话是不是从训练集里抄来的」：建一次索引（每百万字约一两秒），查一篇只要几毫秒。

    参数：corpus: 训练文章。
    属性：sentences: 训练集里出现过的全部句子（集合）。
    量不出：改一两个字的抄袭；套话和专名本来就会重合，所以要和没参加训练的真文章比。
    首次实现：generation。
    """

    def __init__(self, corpus: Iterable[str]):
        texts = [text.replace(END, " ") for text in dict.fromkeys(corpus)]
        if not texts:
            raise ValueError("训练集是空的，没法查抄没抄。")
        self.text = END.join(texts) + END
        self.sentences = {sentence for text in texts for sentence in split_sentences(text)}
        self.order = suffix_array(self.text)

    def longest_copied_span(self, text: str) -> str:
        """text 里与某篇训练文章一字不差的最长一段；一个字也没有重合就是空串。

        与 text[i:] 开头重合最长的后缀，在排好的后缀里一定与它相邻，所以二分查找就够了。
        """
        text, best = text.replace(END, " "), ""
        for i in range(len(text)):
            if len(text) - i <= len(best):
                break
            rest, size = text[i:], len(text) - i
            at = bisect_left(self.order, rest, key=lambda begin, size=size: self.text[begin: begin + size])
            for place in self.order[max(at - 1, 0): at + 1]:
                length = _common(rest, self.text[place: place + len(rest)])
                if length > len(best):
                    best = rest[:length]
        return best

    def copied_share(self, texts: Sequence[str]) -> float:
        """最长抄段占全文的比例，各篇平均，0 到 1；1 表示整篇照抄。异常：ValueError: 一篇也没有。"""
        self._check(texts)
        return sum(len(self.longest_copied_span(t)) / max(len(t), 1) for t in texts) / len(texts)

    def seen_sentences(self, texts: Sequence[str]) -> float:
        """所有文章的句子里，训练集出现过一字不差的同一句的占多少，0 到 1；一句也没有时是 0。

        异常：TypeError: texts 是单个字符串；ValueError: 一篇也没有。
        """
        self._check(texts)
        sentences = [sentence for text in texts for sentence in split_sentences(text)]
        return sum(sentence in self.sentences for sentence in sentences) / max(len(sentences), 1)

    @staticmethod
    def _check(texts: Sequence[str]) -> None:
        if isinstance(texts, str):
            raise TypeError("这里要的是文章的列表；只有一篇时写成 [文章]。")
        if not len(texts):
            raise ValueError("一篇文章也没有，没法打分。")
