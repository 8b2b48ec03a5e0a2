"""不用神经网络的基线，以及公平的单位：任何模型都应当先胜过它们。

首次实现：tokenization。

数的是什么：每条序列的第一个位置（通常是 ``[CLS]``）只当条件，不算分；从第二个位置起，每个编号都是一个目标，
``[SEP]`` 也算。所以一条长 T 的序列有 T − 1 个目标。这与因果语言模型的损失数的是同一批位置。
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np


def uniform_nats(vocab_size: int) -> float:
    """什么都不知道的模型：每个词元 ln V 奈特。"""
    if vocab_size < 1:
        raise ValueError(f"词表大小应当是正整数，得到 {vocab_size}。")
    return math.log(vocab_size)


def bits_per_char(total_nats: float, n_chars: int) -> float:
    """每字比特数（bits per character, BPC）：总损失 ÷ ln 2 ÷ 字数。

    参数：
        total_nats: 整段文字的总损失（奈特），不是平均值。
        n_chars: 这段文字的字符数（个），与粒度无关，即 ``len(text)``。
    """
    if n_chars < 1:
        raise ValueError(f"字数应当是正整数，得到 {n_chars}。")
    return total_nats / math.log(2) / n_chars


def count_targets(ids: Iterable[Sequence[int]]) -> int:
    """目标的个数：每条序列的长度减一，求和。平均损失乘上它，就是总损失。"""
    return sum(max(len(row) - 1, 0) for row in ids)


def unigram_nats(
    train_ids: Sequence[Sequence[int]], eval_ids: Sequence[Sequence[int]], vocab_size: int, alpha: float = 0.1
) -> float:
    """一元模型（unigram）的平均损失：只看每个词元有多常见，不看上文。

    p(w) = (c(w) + α) / (N + α·V),c 只数目标位置。

    参数：
        train_ids, eval_ids: 编号的列表的列表。
        vocab_size: 词表大小 V（个）。
        alpha: 加 α 平滑，须大于 0，没见过的词元才不会得到零概率。
    返回：
        平均损失，奈特/词元。
    异常：
        ValueError: 没有目标、编号越界，或 alpha ≤ 0。
    """
    _, train = _pairs(train_ids, vocab_size, "train_ids")
    _, target = _pairs(eval_ids, vocab_size, "eval_ids")
    return float(-np.log(_unigram(train, vocab_size, alpha)[target]).mean())


def bigram_nats(
    train_ids: Sequence[Sequence[int]], eval_ids: Sequence[Sequence[int]], vocab_size: int, alpha: float = 0.1
) -> float:
    """二元模型（bigram）的平均损失：只看前一个词元，并与一元模型插值。

    p(b | a) = λ · c(ab) / c(a) + (1 − λ) · p(b)；训练集里没见过的 a，直接用 p(b)。
    λ 这样定：训练集每十条留出一条，用其余九成计数，在留出的一成上用 EM 求最好的 λ；然后用全部训练集重新计数。

    参数、返回与异常同 ``unigram_nats``；另外训练集至少要有两条序列。
    """
    rows = list(train_ids)
    held, kept = rows[::10], [row for i, row in enumerate(rows) if i % 10]
    if not kept:
        raise ValueError("bigram_nats 至少要有两条训练序列：要留出一部分来定插值的权重。")
    weight = _fit_weight(*_mixture(kept, held, vocab_size, alpha))
    bigram, unigram, seen = _mixture(rows, eval_ids, vocab_size, alpha)
    weight = np.where(seen, weight, 0.0)
    return float(-np.log(weight * bigram + (1 - weight) * unigram).mean())


def neighbour_nats(
    train_ids: Sequence[Sequence[int]], inputs: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], vocab_size: int,
    mask_id: int, alpha: float = 0.1,
) -> tuple[float, float]:
    """只看左右两个邻居的填空：MLM 的基线，不用神经网络。

    朴素贝叶斯 p(x | a, b) ∝ p(x) · p(a | x) · p(b | x)，与三元计数 c(a, x, b) / c(a, ·, b) 插值，权重 λ 用 EM 在训练集的
    十分之一上定。邻居自己也被盖住时，那一边没有线索。首次实现：mlm_pretraining。

    参数：
        train_ids: 训练序列，编号的列表的列表，至少两条。
        inputs: 盖过的序列；labels: 同样形状，−100 的位置不算分。
        vocab_size, mask_id: 词表大小；[MASK] 的编号。
        alpha: 加 α 平滑。
    返回：
        （平均损失，奈特/目标；准确率）。
    异常：
        ValueError: 没有目标，或训练序列不足两条。
    """
    if len(train_ids) < 2:
        raise ValueError("neighbour_nats 至少要有两条训练序列：要留出一部分来定插值的权重。")
    spots = [(row[i - 1], row[i + 1], gold[i]) for row, gold in zip(inputs, labels, strict=True)
             for i in range(1, len(row) - 1) if gold[i] != -100]
    if not spots:
        raise ValueError("labels 里没有目标：全是 −100。")
    held = [(row[i - 1], row[i + 1], row[i]) for row in train_ids[::10][:400] for i in range(1, len(row) - 1, 7)]
    kept = [row for i, row in enumerate(train_ids) if i % 10]
    weight = 0.5
    bayes, triple, seen = _neighbours(kept, held, vocab_size, mask_id, alpha)
    gold = np.array([x for _, _, x in held])[seen]
    for _ in range(30 if seen.any() else 0):
        a, b = triple[seen, gold] * weight, bayes[seen, gold] * (1 - weight)
        weight = float((a / (a + b)).mean())
    weight = min(max(weight, 1e-6), 1 - 1e-3)
    bayes, triple, seen = _neighbours(train_ids, spots, vocab_size, mask_id, alpha)
    mixed = np.where(seen[:, None], weight * triple + (1 - weight) * bayes, bayes)           # (N, V)
    gold = np.array([x for _, _, x in spots])
    return float(-np.log(mixed[np.arange(len(gold)), gold]).mean()), float((mixed.argmax(1) == gold).mean())


def _neighbours(rows, spots, vocab_size, mask_id, alpha):
    """每个空的朴素贝叶斯分布 (N, V)、三元计数的分布 (N, V)，以及两个邻居合起来是否见过 (N,)。"""
    left, middle = _pairs(rows, vocab_size, "train_ids")
    counts = np.zeros((vocab_size, vocab_size), dtype=np.float32)                            # c(前, 后)
    np.add.at(counts, (left, middle), 1)
    single = _unigram(middle, vocab_size, alpha)                                             # p(x)
    after = (counts + alpha * single) / (counts.sum(1, keepdims=True) + alpha)               # p(后 | 前)
    before = ((counts + alpha * single[:, None]) / (counts.sum(0, keepdims=True) + alpha)).T  # p(前 | 后)，行是「后」
    a, b = (np.array(side) for side in list(zip(*spots, strict=True))[:2])
    log_p = np.where((a == mask_id)[:, None], 0, np.log(after[a] / single)) \
        + np.where((b == mask_id)[:, None], 0, np.log(before[b] / single)) + np.log(single)
    bayes = np.exp(log_p - log_p.max(1, keepdims=True))
    bayes /= bayes.sum(1, keepdims=True)
    triples = {}
    wanted = set(zip(a.tolist(), b.tolist(), strict=True))
    for row in rows:
        for i in range(1, len(row) - 1):
            key = (row[i - 1], row[i + 1])
            if key in wanted:
                triples.setdefault(key, []).append(row[i])
    triple = np.zeros_like(bayes)
    for n, key in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        if mask_id not in key and key in triples:
            triple[n] = np.bincount(triples[key], minlength=vocab_size) / len(triples[key])
    return bayes, triple, triple.sum(1) > 0


def _pairs(ids, vocab_size, name):
    """所有的（前一个，目标）编号，两个形状 (N,) 的数组。"""
    rows = [np.asarray(row, dtype=np.int64) for row in ids]
    previous = np.concatenate([row[:-1] for row in rows] or [np.empty(0, np.int64)])
    target = np.concatenate([row[1:] for row in rows] or [np.empty(0, np.int64)])
    if not len(target):
        raise ValueError(f"{name} 里没有目标：每条序列至少要有两个编号。")
    both = np.concatenate([previous, target])
    if both.min() < 0 or both.max() >= vocab_size:
        raise ValueError(f"{name} 里有编号超出词表：应当在 0 到 {vocab_size - 1} 之间。")
    return previous, target


def _unigram(target, vocab_size, alpha):
    if alpha <= 0:
        raise ValueError(f"alpha 应当大于 0，得到 {alpha}。")
    counts = np.bincount(target, minlength=vocab_size)
    return (counts + alpha) / (len(target) + alpha * vocab_size)  # (V,)


def _mixture(train_rows, eval_rows, vocab_size, alpha):
    """评估集每个目标的二元概率、一元概率，以及上文是否见过，各 (N,)。"""
    previous, target = _pairs(train_rows, vocab_size, "train_ids")
    context = np.bincount(previous, minlength=vocab_size)  # (V,)
    keys, counts = np.unique(previous * vocab_size + target, return_counts=True)
    left, right = _pairs(eval_rows, vocab_size, "eval_ids")
    query = left * vocab_size + right  # (N,)
    where = np.minimum(np.searchsorted(keys, query), len(keys) - 1)
    joint = np.where(keys[where] == query, counts[where], 0)
    bigram = joint / np.maximum(context[left], 1)
    return bigram, _unigram(target, vocab_size, alpha)[right], context[left] > 0


def _fit_weight(bigram, unigram, seen, steps=50):
    """EM:λ 的新值 = 每个目标由二元模型负责的比例的平均。"""
    bigram, unigram, weight = bigram[seen], unigram[seen], 0.5
    if not len(bigram):
        return weight
    for _ in range(steps):
        part = weight * bigram
        weight = float((part / (part + (1 - weight) * unigram)).mean())
    return min(max(weight, 1e-6), 1 - 1e-6)  # 不取到 1：没见过的词对要留一点概率
