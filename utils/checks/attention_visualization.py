"""attention_visualization 的练习。"""

from __future__ import annotations

import random

import numpy as np
import torch

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.inputs import booleans, normal

# ---------------------------------------------------------------- 1 前一个字


def _weights(rng: random.Random) -> list[tuple]:
    cases = []
    for L, H, T in [(1, 1, 5), (2, 3, 6), (3, 2, 9)]:
        queries = sorted(rng.sample(range(1, T - 1), 3))
        cases.append((normal(rng, L, H, T, T).softmax(-1), queries))
    return cases


def _at(row, column, mean=True):
    def previous_score(weights, queries):
        i = torch.tensor(queries)
        picked = weights[:, :, row(i), column(i)]
        return picked.mean(-1) if mean else picked.sum(-1)

    return previous_score


def _all_queries(weights, queries):
    return weights.diagonal(-1, 2, 3).mean(-1)


previous_score = Function(
    "attention_visualization.previous_score",
    reference=_at(lambda i: i, lambda i: i - 1), cases=_weights,
    ask="拿 L = H = 1 的那个输入，把要取的几个格子在矩阵上圈出来：第几行、第几列？",
    mistakes=(
        Mistake("行列弄反了", _at(lambda i: i - 1, lambda i: i), "它取的是「前一个字看向这个字」的权重。",
                "`weights[…, i, j]` 里，哪一个下标是在看的，哪一个是被看的？"),
        Mistake("看成了后一个字", _at(lambda i: i, lambda i: i + 1), "它取的是看向后一个字的权重。", "第 i 个字的左邻，编号是多少？"),
        Mistake("看成了自己", _at(lambda i: i, lambda i: i), "它取的是对角线：每个字看自己。", "目标集里是 i 还是别的？"),
        Mistake("没有取平均", _at(lambda i: i, lambda i: i - 1, mean=False), "它把各个查询的权重加了起来，没有除以个数。",
                "查询多一倍，得分就高一倍，两篇长短不同的文档还能比吗？"),
        Mistake("没有理会 queries", _all_queries, "它把所有的字都算了进去，特殊词元也在内。", "`queries` 里为什么没有 [CLS] 和 [SEP]？"),
        Mistake("取了整块", lambda weights, queries: weights[:, :, queries][..., [i - 1 for i in queries]].mean((-1, -2)),
                "它取了这几行与这几列交出来的整块，不只是要的那几格。", "三个查询，一共该取几格？你取了几格？"),
        Mistake("除以了句长", lambda weights, queries: _at(lambda i: i, lambda i: i - 1, mean=False)(weights, queries) / weights.size(-1),
                "它除以的是 T，不是查询的个数。", "一共加了几格？"),
    ),
)


# ---------------------------------------------------------------- 2 基线


def _goals(rng: random.Random) -> list[tuple]:
    cases = []
    for T, causal in [(4, False), (6, True), (9, True), (8, False)]:
        visible = torch.ones(T, T, dtype=torch.bool)
        visible = visible.tril() if causal else visible
        goal = booleans(rng, T, T, share=0.4)
        goal[1:, 0], goal[-1, :2], goal[0], goal[2] = True, True, False, False               # 有的行没有目标
        cases.append((goal & visible, visible))
    return cases


def _baseline(goal, visible):
    at = goal.any(-1)
    return (goal.sum(-1) / visible.sum(-1))[at].mean()


def _pooled(goal, visible):
    at = goal.any(-1)
    return goal[at].sum() / visible[at].sum()


uniform_baseline = Function(
    "attention_visualization.uniform_baseline",
    reference=_baseline, cases=_goals,
    ask="挑一行，数一数：均匀地看，一格分到几分之一？目标有几格？再想清楚，哪些行参加平均。",
    mistakes=(
        Mistake("空行也平均了", lambda goal, visible: (goal.sum(-1) / visible.sum(-1)).mean(),
                "没有目标的行也参加了平均，各记 0 分，基线就偏低。",
                "得分只在目标集不空的位置上平均。基线呢？"),
        Mistake("当成全都看得见", lambda goal, visible: (goal.sum(-1) / goal.shape[-1])[goal.any(-1)].mean(),
                "它总是除以 T，可是因果的模型有的位置看不见那么多。", "第 3 个位置只看得见前面几个。均匀地看，一格是几分之一？"),
        Mistake("当成只有一个目标", lambda goal, visible: (1 / visible.sum(-1))[goal.any(-1)].mean(), "它把目标集当成只有一格。",
                "标点有七八个的时候，均匀地看，分给标点的一共是多少？"),
        Mistake("先加起来再除", _pooled, "它把各行的格子加在一起再除：看得见的多的行，分量就重。", "公式里是先除再平均，还是先加再除？"),
        Mistake("按列算了", lambda goal, visible: _baseline(goal.T, visible.T), "它把行和列弄反了，是按列算的。",
                "S(i) 里的 i，是行还是列？"),
        Mistake("没有取平均", lambda goal, visible: (goal.sum(-1) / visible.sum(-1)).sum(), "它把各行加了起来。",
                "句子长一倍，这个数会怎样？"),
    ),
)


# ---------------------------------------------------------------- 3 同一个词里的另一个字


def _words(rng: random.Random) -> list[tuple]:
    cases = [(torch.tensor([-1, 0, 0, 1, -1]),), (torch.tensor([-1, 0, 0, 0, 1, 2, 2, -1]),)]
    row, word = [-1], 0
    for length in [3, 1, rng.randint(1, 4), 2, rng.randint(3, 4)]:
        row, word = row + [word] * length, word + 1
    return [*cases, (torch.tensor([*row, -1, *(w + word for w in row[1:]), -1]),)]


def _equal(words):
    return words[:, None] == words


def _neighbours(words):
    T = len(words)
    near = torch.ones(T, T).tril(1).triu(-1).bool() & ~torch.eye(T, dtype=torch.bool)
    return _equal(words) & near & (words >= 0)


same_word = Function(
    "attention_visualization.same_word",
    reference=lambda words: _equal(words) & ~torch.eye(len(words), dtype=torch.bool) & (words >= 0), cases=_words,
    ask="拿最短的反例，把矩阵画出来，哪几格该是真的？对角线呢？特殊词元那几行呢？",
    mistakes=(
        Mistake("把自己也算上了", lambda words: _equal(words) & (words >= 0), "对角线也是真：每个字都「看自己」。",
                "题目要的是「另一个字」。第 i 行第 i 列该是什么？"),
        Mistake("特殊词元成了一个词", lambda words: _equal(words) & ~torch.eye(len(words), dtype=torch.bool),
                "[CLS] 和 [SEP] 的 −1 相等，被当成了同一个词。", "−1 是一个词的编号吗？"),
        Mistake("只认相邻的字", _neighbours, "它只认挨着的字，三个字的词，头尾就不算同一个词了。",
                "「运动会」里，「运」和「会」是不是同一个词的字？"),
        Mistake("标出了别的词", lambda words: ~_equal(words) & (words >= 0), "它标出的是不同词的字。",
                "真的格子，应当是词的编号相等还是不等？"),
        Mistake("只认后面的字", lambda words: (_equal(words) & (words >= 0)).triu(1), "它只标了后面的字，前面的没有标。",
                "「运」看「动」算，「动」看「运」算不算？"),
        Mistake("只认前面的字", lambda words: (_equal(words) & (words >= 0)).tril(-1), "它只标了前面的字，后面的没有标。",
                "「动」看「运」算，「运」看「动」算不算？"),
        Mistake("漏了第 0 个词", lambda words: _equal(words) & ~torch.eye(len(words), dtype=torch.bool) & (words > 0),
                "编号是 0 的那个词，它当成了特殊词元。", "词的编号从几数起？特殊词元的编号是几？"),
    ),
)


# ---------------------------------------------------------------- 4 挑头与量头


def _scores(rng: random.Random) -> list[tuple]:
    """每个输入都这样安排：前半最好的头、后半最好的头、全体最好的头是三个不同的头。"""
    cases = []
    for n, H in [(6, 4), (10, 5)]:
        x = 0.02 * normal(rng, n, H).abs()
        a, b, c, d = rng.sample(range(H), 4)
        x[:n // 2, a] += 0.9
        x[n // 2:, b] += 0.9
        x[-1, b] -= 0.4                                   # 有一篇上，后半最好的头不是最好
        x[0, d] += 1.5                                    # 前半里，它有一篇特别高，平均却不高
        x[:, c] += 0.7
        cases.append((x,))
    return cases


def _pick(choose, measure):
    return lambda scores: measure(scores)[:, choose(scores).mean(0).argmax()].mean()


def _first(scores):
    return scores[:len(scores) // 2]


def _second(scores):
    return scores[len(scores) // 2:]


held_out_score = Function(
    "attention_visualization.held_out_score",
    reference=_pick(_first, _second), cases=_scores,
    ask="一共要做两件事：挑一个头，报告它的得分。各用哪一半的文档？",
    mistakes=(
        Mistake("挑和量用了同一半", _pick(_first, _first), "挑头和报告用的是同样的文档，报告的是碰巧最高的那个数。",
                "掷二十次骰子，挑点数最大的一次来报告，它能代表骰子吗？"),
        Mistake("用全部文档挑又用全部量", _pick(lambda s: s, lambda s: s), "挑头和报告都用了全部文档，没有留出来的。",
                "报告的那一半文档，挑头的时候该不该看见？"),
        Mistake("在后半重新挑了", lambda scores: _second(scores).mean(0).max(), "报告的是后半里最高的头，等于在考卷上又挑了一次。",
                "后半里最高的头，和你在前半挑中的，是同一个吗？"),
        Mistake("每篇各取最高", lambda scores: _second(scores).max(1).values.mean(), "它在每一篇上各挑一个最高的头，再取平均。",
                "一个头担任一个角色，是说它在各篇上都高，还是每篇换一个？"),
        Mistake("挑头时看见了后半", _pick(lambda s: s, _second), "它用全部文档挑头，挑的时候已经看过了后半。",
                "考试之前看过考卷，再考出来的分数算不算数？"),
        Mistake("两半用反了", _pick(_second, _first), "它用后一半挑头，在前一半上报告。", "题目说先看的是哪一半？"),
        Mistake("返回了头的编号", lambda scores: _first(scores).mean(0).argmax(), "它返回的是挑中的头的编号。",
                "题目要的是第几个头，还是它的得分？"),
        Mistake("按单篇最高的挑", lambda scores: _second(scores)[:, _first(scores).max(0).values.argmax()].mean(),
                "它挑的是在某一篇上得分最高的头，不是平均最高的。", "一个头在一篇上碰巧很高，能说明它担任这个角色吗？"),
        Mistake("没有挑头", lambda scores: _second(scores).mean(), "它把所有的头都平均了。", "你挑中的是第几个头？报告的是谁的得分？"),
    ),
)


# ---------------------------------------------------------------- 5 成对的差


def _pairs(rng: random.Random) -> list[tuple]:
    cases = []
    for n in (4, 8, 12):
        common = 3 * normal(rng, n)                       # 各个种子自己的高低，两边共有
        gaps = 0.5 + 0.3 * normal(rng, n)
        gaps[1] = -0.4                                    # 差有正有负
        cases.append(((common + gaps).tolist(), common.tolist()))
    return cases


def _error(a, b, paired=True, root=True, ddof=1):
    d = np.subtract(a, b)
    spread = d.std(ddof=ddof) if paired else np.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1))
    return float(d.mean()), float(spread / (len(d) ** 0.5 if root else 1))


paired_gap = Function(
    "attention_visualization.paired_gap",
    reference=_error, cases=_pairs,
    ask="先把每个种子的差写成一列，再对这一列求平均、求标准误。你的第二个数是从哪一列算出来的？",
    mistakes=(
        Mistake("没有成对", lambda a, b: _error(a, b, paired=False), "它把两组当成互不相干的，种子自己的高低也算进了误差。",
                "同一个种子里，两边的损失一起高、一起低。先相减，这一部分还在吗？"),
        Mistake("报成了标准差", lambda a, b: _error(a, b, root=False), "第二个数是差的标准差，种子再多也不会变小。",
                "种子从 4 个加到 400 个，平均数该更可靠，你的误差变小了吗？"),
        Mistake("除以了 n", lambda a, b: _error(a, b, ddof=0), "标准差里除以的是 n，样本少的时候偏小。",
                "平均数是从这 n 个数里算出来的，还剩几个是自由的？"),
        Mistake("减反了", lambda a, b: _error(b, a), "它算的是 b 减 a。", "「关角色头比关随机头多损失多少」，谁减谁？"),
        Mistake("取了绝对值", lambda a, b: _error(np.abs(np.subtract(a, b)), np.zeros(len(a))), "它把负的差也当成了正的。",
                "有的种子上 a 更小，说明了什么？取了绝对值还看得出来吗？"),
        Mistake("除以了 n 而不是 √n", lambda a, b: (_error(a, b)[0], _error(a, b)[1] / len(a) ** 0.5), "第二个数里，标准差除以的是 n。",
                "种子从 4 个加到 16 个，标准误该缩到几分之一？"),
        Mistake("报成了 95% 区间", lambda a, b: (_error(a, b)[0], 1.96 * _error(a, b)[1]), "第二个数多乘了 1.96，那是 95% 区间的半宽。",
                "题目要的是标准误本身，还是由它算的区间？"),
    ),
)


# ---------------------------------------------------------------- 6、7、8 判断


best_of_many = Choice(
    "attention_visualization.best_of_many", right="AC", ask="一处错在「挑」，一处错在「和谁比」。逐项想：它说的事情，题目里做了没有？",
    mistakes=(
        Mistake("只看出了挑头", "A", "只选了挑头的毛病，还有一处没有看出来。", "比均匀高两倍，会不会只是因为先行词总在差不多的距离上？"),
        Mistake("只看出了位置", "C", "只选了位置的毛病，还有一处没有看出来。", "24 个头里最高的那个，换一批题还会这么高吗？"),
        Mistake("以为头太少", "B", "选了「头太少」，或者还选了别的；头多头少不是这里的错。",
                "看的头越多，最高的那一个越容易碰巧高，还是越不容易？",
                sign=lambda letters: "B" in letters),
        Mistake("以为不能看权重", "D", "选了「注意力的权重毫无意义」；题目错的不在这里。",
                "第 4 节怎样检验一个头有没有用？那和「毫无意义」是一回事吗？",
                sign=lambda letters: "D" in letters),
    ),
)

two_ways = Choice(
    "attention_visualization.two_ways", right="B", ask="一个头的输出可以写成「平均」加「随句子而变的部分」。两种关法各抹去了什么？",
    mistakes=(
        Mistake("以为说明头不重要", "A", "这一项把「换成平均便宜」读成了头没有用。", "换成 0 的代价很大。大的这部分，是丢了什么造成的？"),
        Mistake("把两部分弄反了", "C", "这一项认为贵的是随句子而变的那部分。", "换成平均以后，随句子而变的部分还在吗？代价却很小。"),
        Mistake("以为是计算误差", "D", "这一项认为两种关法应当一样。",
                "后面的层平时收到的是平均附近的向量。突然收到 0，和收到平均，一样吗？"),
    ),
)

backup = Choice(
    "attention_visualization.backup", right="A", ask="先想极端的情形：两个头做一模一样的事，关掉一个会怎样，都关掉会怎样？",
    mistakes=(
        Mistake("当成了一条链", "B", "这一项说的是断了一环、另一环也白做，那时一起关不会比一个一个关更疼。",
                "链上的第一环断了，再断第二环，损失还会再加一份吗？c₁₂ 和 c₁+c₂ 谁大？"),
        Mistake("当成了互不相干", "C", "互不相干的两个头，一起关的代价正好是两份相加。",
                "题目里的差是正的，不是 0。多出来的代价是从哪里来的？"),
        Mistake("当成了都没用", "D", "这一项从单个关掉代价小，得出两个头都没用。", "都没用的话，一起关掉的代价应当是多少？"),
    ),
)


# ---------------------------------------------------------------- 9 几个权重


count_weights = Value(
    "attention_visualization.count_weights", expected=9600, rtol=0, form="一个整数",
    ask="写出这一摞矩阵的形状：有几个维度，各是多少？",
    mistakes=(
        Mistake("只数了一个头", 400, "它只数了一层里的一个头。", "一共有几层，每层有几个头？各有几个矩阵？"),
        Mistake("长度没有平方", 480, "它给每个词元只算了一个权重。", "一个词元要看几个词元？一行有几个数？"),
        Mistake("只数了一层", 2400, "它只数了一层的六个头。", "下一层的注意力，是照抄这一层的吗？"),
        Mistake("忘了头", 1600, "它把一层当成只有一个矩阵。", "每层有几个头？它们共用一个矩阵吗？"),
        Mistake("只算了左边", 5040, "它只数了每个词元自己和左边的。", "题里是编码器还是解码器？谁看不见右边？"),
    ),
)
