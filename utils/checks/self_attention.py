"""self_attention 的练习。"""

from __future__ import annotations

import math
import random

import torch

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.inputs import normal
from utils.models.attention import causal_mask

# ---------------------------------------------------------------- 1 该除以谁


def _heads(rng: random.Random) -> list[tuple]:
    return [(normal(rng, B, H, T, D), normal(rng, B, H, T, D)) for B, H, T, D in [(1, 2, 3, 4), (2, 3, 5, 8), (1, 4, 7, 16)]]


def _scores(divisor, flip=False):
    def attention_scores(q, k):
        product = q @ k.transpose(-2, -1)
        return (product.transpose(-2, -1) if flip else product) / divisor(q)

    return attention_scores


attention_scores = Function(
    "self_attention.attention_scores",
    reference=_scores(lambda q: math.sqrt(q.size(-1))), cases=_heads,
    ask="挑一个格子 (i, j)，用手算 q 的第 i 行与 k 的第 j 行的点积。它的标准差随哪个字母变大？",
    mistakes=(
        Mistake("没有除", _scores(lambda q: 1), "它给的是原始的点积。", "D 变大时，点积散开多少？softmax 会怎样？"),
        Mistake("除以了 D", _scores(lambda q: q.size(-1)), "它除以的是 D，不是标准差：除过了头，权重会过于平均。",
                "方差是 D，那么标准差是多少？"),
        Mistake("除以了 √C", _scores(lambda q: math.sqrt(q.size(1) * q.size(-1))), "它除以的是模型宽度 C = H × D 的平方根。",
                "一个头的点积，加了几项？是 C 项还是 D 项？"),
        Mistake("除以了 √T", _scores(lambda q: math.sqrt(q.size(-2))), "它除以的是句长的平方根。",
                "点积是对哪一维求和？句子长了，每一个点积会变大吗？"),
        Mistake("行列颠倒", _scores(lambda q: math.sqrt(q.size(-1)), flip=True), "它的第 i 行是「谁在看 i」，不是「i 在看谁」。",
                "softmax 沿最后一维做。最后一维应当是查询还是键？"),
        Mistake("多做了 softmax", lambda q, k: (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1),
                "它给的已经是权重：每行加起来是 1。",
                "题目要的是 softmax 之前还是之后的数？"),
    ),
)


# ---------------------------------------------------------------- 2 掩码放在哪里


def _logits(rng: random.Random) -> list[tuple]:
    return [(2 * normal(rng, *shape),) for shape in [(3, 3), (2, 5, 5), (2, 2, 6, 6)]]


def _square(scores):
    return causal_mask(scores.size(-1))


def _filled(value, mask=_square, dim=-1):
    return lambda scores: scores.masked_fill(~mask(scores), value).softmax(dim)


causal_weights = Function(
    "self_attention.causal_weights",
    reference=_filled(float("-inf")), cases=_logits,
    ask="看 3 × 3 的那个输入：第 0 行只剩一格可看，它的权重应当是多少？每一行加起来呢？",
    mistakes=(
        Mistake("先 softmax，后遮", lambda s: s.softmax(-1) * _square(s), "每行的权重之和不到 1：被遮住的位置已经在分母里占了份额。",
                "分母里含着未来的分数。改动未来，前面的权重会不会变？"),
        Mistake("遮住的填了 0", _filled(0.0), "它把不许看的分数换成了 0，可是 e 的 0 次方是 1。", "要让权重恰好是 0，分数该是多少？"),
        Mistake("方向反了", _filled(float("-inf"), lambda s: _square(s).T), "它让每个词元只看自己和右边。",
                "第 0 个词元能看几个？第 T − 1 个呢？"),
        Mistake("自己也遮了", lambda s: s.masked_fill(~_square(s).tril(-1), float("-inf")).softmax(-1).nan_to_num(0.0),
                "对角线也被遮住了，第 0 行谁也看不到。", "一个词元能不能看自己？"),
        Mistake("沿着列做了 softmax", _filled(float("-inf"), dim=-2), "它让每一列加起来等于 1。",
                "「一个词元怎样分配自己的注意力」，是一行还是一列？"),
        Mistake("没有遮", lambda s: s.softmax(-1), "它没有加掩码：每个词元都看得见后面。", "第 0 行该有几个不是 0 的权重？"),
        Mistake("遮反了", lambda s: s.masked_fill(_square(s), float("-inf")).softmax(-1),
                "它遮住的正是可以看的那些格子，最后一行全被遮住，成了 NaN。",
                "`masked_fill` 填的是真的格子，还是假的格子？你的掩码里，真表示什么？"),
        Mistake("遮在了 softmax 后面", lambda s: s.softmax(-1).masked_fill(~_square(s), float("-inf")),
                "它先算好了权重，再往权重里填负无穷。", "权重里该不该有负无穷？负无穷要在哪一步之前放进去，才会变成 0？"),
    ),
)


# ---------------------------------------------------------------- 3 滑动窗口


def _window(extra=0, causal=True, strict=False):
    def window_mask(T, width):
        i, j = torch.arange(T)[:, None], torch.arange(T)[None, :]
        near = (i - j < width + extra) & ((i >= j) if causal else (j - i < width + extra))
        return near & (i != j) if strict else near

    return window_mask


window_mask = Function(
    "self_attention.window_mask",
    reference=_window(), cases=lambda rng: [(5, 2), (7, 3), (rng.randint(8, 12), 4)],
    ask="把 T = 5、width = 2 的掩码画在纸上：每一行最多有几个真？",
    mistakes=(
        Mistake("宽了一格", _window(1), "每一行多看了一个：width 里应当包括自己。", "width = 2 的时候，第 4 个词元能看哪两个？"),
        Mistake("窄了一格", _window(-1), "每一行少看了一个。", "width = 1 的时候，每个词元还能看见谁？"),
        Mistake("左右都看了", _window(causal=False), "它也看得见右边。", "从左往右写的时候，右边的字写出来了吗？"),
        Mistake("没有窗口", lambda T, width: causal_mask(T), "它是普通的因果掩码，没有用到 width。", "最后一行有几个真？应当有几个？"),
        Mistake("自己不算", _window(strict=True), "对角线是假：看不见自己。", "每个词元总可以看自己吗？"),
        Mistake("从头数的窗口", lambda T, width: causal_mask(T) & (torch.arange(T) < width), "它只让人看开头的 width 个词元。",
                "窗口是固定在句首，还是跟着第 i 个词元走？"),
    ),
)


# ---------------------------------------------------------------- 4 权重有多集中


def _rows(rng: random.Random) -> list[tuple]:
    cases = [(torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]),)]
    for T in (4, 6):
        cases.append(((2 * normal(rng, T, T)).masked_fill(~causal_mask(T), float("-inf")).softmax(-1),))
    return cases


def _entropy(log=torch.log, each_row=True, everything=False, sign=-1):
    def mean_entropy(weights):
        terms = sign * weights * log(weights.clamp_min(1e-30))
        return terms.mean() if everything else terms.sum(-1).mean() if each_row else terms.sum()

    return mean_entropy


mean_entropy = Function(
    "self_attention.mean_entropy",
    reference=lambda weights: torch.special.entr(weights).sum(-1).mean(), cases=_rows, rtol=1e-4, atol=1e-5,
    ask="第一行是 [1, 0, 0]，只看一个，熵应当是多少？第二行是 [1/2, 1/4, 1/4]，用手算一遍。",
    mistakes=(
        Mistake("0 · ln 0", lambda weights: -(weights * weights.log()).sum(-1).mean(), "结果是 NaN：权重里有恰好是 0 的格子。",
                "0 乘负无穷，计算机给什么？数学上我们约定它是多少？"),
        Mistake("用了 log₂", _entropy(torch.log2), "它的单位是比特，题目要的是奈特。", "公式里写的是哪个对数？"),
        Mistake("所有格子一起平均", _entropy(everything=True), "它除以了格子的总数，应当先按行加起来。",
                "一行是一个分布。一个分布的熵，是各项的和还是平均？"),
        Mistake("没有按行平均", _entropy(each_row=False), "它把各行的熵都加了起来。", "句子长一倍，这个数会不会也大一倍？"),
        Mistake("忘了负号", _entropy(sign=1), "它是负的。", "权重不超过 1，它的对数是正是负？"),
        Mistake("没有乘权重", lambda weights: -weights.clamp_min(1e-12).log().sum(-1).mean(),
                "它只加了 ln w，没有乘 w：权重为 0 的格子成了最大的一项。",
                "公式里 ln 的前面还有什么？"),
        Mistake("沿着列求和", lambda weights: torch.special.entr(weights).sum(0).mean(), "它把每一列加了起来，再按列平均。",
                "一个分布是一行还是一列？一共有几个分布？"),
    ),
)


# ---------------------------------------------------------------- 5 合上各头


def _mixed(rng: random.Random) -> list[tuple]:
    return [(normal(rng, B, H, T, D),) for B, H, T, D in [(1, 2, 3, 2), (2, 3, 4, 5), (2, 4, 7, 3)]]


merge_heads = Function(
    "self_attention.merge_heads",
    reference=lambda x: x.transpose(1, 2).flatten(2), cases=_mixed,
    ask="拿 B = 1、H = 2、T = 3、D = 2 的输入：第 0 个词元的 4 个数，应当来自哪两个头的哪一行？",
    mistakes=(
        Mistake("直接改了形状", lambda x: x.reshape(x.size(0), x.size(2), -1), "形状对了，数却串了行：一个词元里混进了别的词元的数。",
                "内存里 H 排在 T 的前面。不先换位置就合并，挨在一起的是哪些数？"),
        Mistake("头和维的次序反了", lambda x: x.permute(0, 2, 3, 1).flatten(2), "它把各头的第 0 维放在一起，再放第 1 维。",
                "切开的时候，第 h 个头拿走的是哪一段连续的维？合上时该放回哪里？"),
        Mistake("把句子倒了过来", lambda x: x.flip(2).transpose(1, 2).flatten(2), "词元的次序反了。", "第 0 个词元，出来还在第 0 行吗？"),
        Mistake("把头倒了过来", lambda x: x.flip(1).transpose(1, 2).flatten(2), "最后一个头排到了最前面。",
                "后面的 Wᴼ 认得哪个头在哪一段吗？"),
    ),
)


# ---------------------------------------------------------------- 6 长度的代价


cost = Value(
    "self_attention.cost", expected=lambda: [16, 4], form="两个数的列表", rtol=1e-6,
    ask="权重矩阵是 B × H × T × T。Q 是 B × H × T × D。T 变成 4 倍，各变成几倍？",
    mistakes=(
        Mistake("都是 4 倍", [4, 4], "它说权重矩阵只和 T 成正比。", "矩阵有 T 行。列数是多少？"),
        Mistake("都是 16 倍", [16, 16], "它说 Q 也按平方增长。", "每个词元一个查询，词元变成 4 倍，查询有几个？"),
        Mistake("反了", [4, 16], "两个数的次序反了。", "哪一个的形状里有两个 T？"),
        Mistake("当成了 2 倍", [4, 2], "它算的是 T 加倍。", "512 到 2048，是几倍？"),
    ),
)


# ---------------------------------------------------------------- 7 加了因果掩码，还等变吗


equivariance = Choice(
    "self_attention.equivariance", right="B", options="ABCD",
    ask="拿三个词元试一试：次序是 0、1、2 时，第 2 个词元能看谁？把它换到最前面，它又能看谁？",
    mistakes=(
        Mistake("以为照旧", "A", "它说掩码不影响等变。", "掩码是按「第几行第几列」写死的。打乱之后，行列还是原来的词元吗？"),
        Mistake("以为要靠位置向量", "C", "它说没有位置向量就一定等变。", "因果掩码本身，有没有告诉一个词元「你前面有几个」？"),
        Mistake("以为要看权重", "D", "它说练过才不等变。", "用随机的权重做一遍第 9 节的实验，结果取决于练没练过吗？"),
    ),
)
