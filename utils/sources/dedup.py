"""查重：完全重复与近似重复。近似重复先用 MinHash 找候选，再算出真正的 Jaccard 相似度核对，所以不会误删。

只去掉空白再比较，不做别的归一：先清洗，后查重。方法：Broder 1997（片与 MinHash），Indyk 与 Motwani 1998（局部敏感哈希）。
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from utils.sources.characters import require_text

SHINGLE = 5                                                # 一片（shingle）是连续 5 个字符


def _keys(texts: Sequence[str], who: str) -> list[str]:
    if isinstance(texts, str):
        raise ValueError(f"{who} 要的是一列文字，例如 docs[\"body\"]，得到的是单独一个 str。")
    return ["".join(require_text(text, f"{who} 的第 {i} 项").split()) for i, text in enumerate(texts)]


def shingles(text: str) -> frozenset[str]:
    """一段文字里所有连续 5 个字符的集合；不足 5 个字符时，只有它自己一片。"""
    return frozenset(text[i:i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(a: str, b: str) -> float:
    """两段文字的相似度：共有的片数 ÷ 合起来的片数（去掉空白后计）。

    返回：
        0（毫无共同）到 1（片的集合相同）。
    异常：
        ValueError: a 或 b 不是 str。
    """
    a, b = map(shingles, _keys([a, b], "jaccard"))
    return len(a & b) / len(a | b)


def exact_duplicates(texts: Sequence[str]) -> dict[int, int]:
    """完全重复：去掉空白后一字不差的文字，留下第一篇，指出后面的。

    参数：
        texts: N 段文字。
    返回：
        {该删的下标: 它重复的那一篇（留下的）的下标}，从小到大。
    异常：
        ValueError: texts 是单独一个 str，或有一项不是 str。
    """
    first: dict[str, int] = {}
    found = {}
    for i, key in enumerate(_keys(texts, "exact_duplicates")):
        if key in first:
            found[i] = first[key]
        else:
            first[key] = i
    return found


def miss_rate(similarity: float, bands: int, rows: int) -> float:
    """相似度为 similarity 的一对文字，没有成为候选（被漏掉）的概率：(1 − s^rows)^bands。"""
    return (1 - similarity ** rows) ** bands


def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """把 num_perm 个哈希分成 bands 段、每段 rows 个；两篇有一段全同，就是候选。

    rows 越大，不相干的候选越少，也越快，但漏得越多。在至少分两段的前提下，取相似度恰为
    threshold 时漏掉的概率不超过 1% 的最大的 rows；一个也没有时取 1。

    返回：
        （bands，rows）。
    """
    good = [rows for rows in range(1, num_perm // 2 + 1) if miss_rate(threshold, num_perm // rows, rows) <= 0.01]
    rows = max(good, default=1)
    return num_perm // rows, rows


def near_duplicates(texts: Sequence[str], threshold: float = 0.8, num_perm: int = 128) -> dict[int, int]:
    """近似重复：相似度（见 jaccard）不低于 threshold 的，留下最先的一篇，指出后面的。

    只与已经留下的各篇比，所以「甲像乙、乙像丙」不会把不像甲的丙也连带删去。随机种子固定，每次运行结果相同。
    没有误报；漏报来自 MinHash 的随机性，相似度恰为 threshold 时不超过约 1%，更高时迅速变小（见 miss_rate）。

    参数：
        texts: N 段文字。
        threshold: 相似度的门槛，大于 0、不超过 1。
        num_perm: MinHash 的哈希个数，16 到 256。
    返回：
        {该删的下标: 与它最像的那一篇（留下的）的下标}，从小到大。
    异常：
        ValueError: 参数超出范围，texts 是单独一个 str，或有一项不是 str。
    """
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 < threshold <= 1:
        raise ValueError(f"相似度的门槛 threshold 要大于 0、不超过 1，得到的是 {threshold!r}。")
    if type(num_perm) is not int or not 16 <= num_perm <= 256:
        raise ValueError(f"num_perm 要是 16 到 256 之间的整数，得到的是 {num_perm!r}。")
    keys = _keys(texts, "near_duplicates")
    from datasketch import MinHash, MinHashLSH  # 它会导入 scipy，较慢，真的要查时才导入
    lsh = MinHashLSH(num_perm=num_perm, params=choose_bands(threshold, num_perm))
    found = {}
    for i, key in enumerate(keys):
        signature = MinHash(num_perm=num_perm, seed=1)
        signature.update_batch([piece.encode("utf-8", "surrogatepass") for piece in shingles(key)])
        score, first = max(((jaccard(key, keys[j]), -j) for j in lsh.query(signature)), default=(0.0, 0))
        if score >= threshold:
            found[i] = -first                              # 一样像时取最先的一篇
        else:
            lsh.insert(i, signature)
    return found
