"""语料的图：字频与名次、篇幅、类别，三张并排，数据卡与 tokenization 用它。"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from datasets import Dataset
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.display.plotting import COLORS


def rank_frequency(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """汉字按次数从多到少排队。

    返回：
        （名次，占全部汉字的比例），长度都是不同汉字的个数；名次从 1 起。
    异常：
        ValueError: 一个汉字也没有。
    """
    counts = Counter(c for text in texts for c in text if "\u4e00" <= c <= "\u9fff")
    if not counts:
        raise ValueError("这些文字里一个汉字也没有，排不出名次。")
    share = np.array(sorted(counts.values(), reverse=True), dtype=float)
    return np.arange(1, len(share) + 1), share / share.sum()


def plot_ranks(groups: dict[str, Sequence[str]], ax: Axes) -> None:
    """字频随名次下降的双对数图；虚线是齐普夫定律的斜率 −1，从第一组的第 10 名画起。"""
    for name, texts in groups.items():
        rank, share = rank_frequency(texts)
        ax.loglog(rank, share, label=f"{name}（{len(rank)} 个字）")
        if name == next(iter(groups)):
            start = min(10, len(rank))
            ax.loglog(rank[start - 1:], share[start - 1] * start / rank[start - 1:], "--", color="#555555",
                      label="比例 ∝ 1/名次")
    ax.set(title="字频与名次", xlabel="名次", ylabel="占全部汉字的比例")
    ax.legend(fontsize=8, facecolor="white", edgecolor="none")


def corpus_figure(docs: Dataset, others: dict[str, Sequence[str]] | None = None) -> Figure:
    """一份语料的样子。

    参数：
        docs: load_corpus 的一个部分，要有 intro、body、category 三列。
        others: 字频图里另外要比的文字，名字 → 文字的列表。
    返回：
        Figure，三个子图：字频与名次，导语与正文的字数，各类别的篇数。
    异常：
        ValueError: docs 是空的。
    """
    if len(docs) == 0:
        raise ValueError("语料是空的，没有可画的。")
    intros, bodies = docs["intro"][:], docs["body"][:]
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.8))
    plot_ranks({"自带语料": [a + b for a, b in zip(intros, bodies, strict=True)], **(others or {})}, left)
    for name, texts, color in (("导语", intros, COLORS[0]), ("正文", bodies, COLORS[1])):
        lengths = [len(text) for text in texts]
        middle.hist(lengths, bins=range(0, max(lengths) + 10, 5), color=color, alpha=0.75, label=f"{name}，平均 {np.mean(lengths):.0f} 字")
    middle.set(title="篇幅", xlabel="字数", ylabel="篇数")
    middle.legend(fontsize=8, facecolor="white", edgecolor="none")
    names, counts = zip(*reversed(Counter(docs["category"]).most_common()), strict=True)
    right.barh(names, counts, color=COLORS[2])
    right.bar_label(right.containers[0], padding=2, fontsize=8)
    right.set(title="类别", xlabel="篇数", xlim=(0, max(counts) * 1.15))
    return fig
