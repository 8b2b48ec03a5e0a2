"""mlm_pretraining 的练习。"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from transformers import get_linear_schedule_with_warmup

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.compare import difference
from utils.checks.framework.inputs import integers, normal
from utils.tokenization.tokenizer import IGNORE

# ---------------------------------------------------------------- 1 准确率


def _exam(rng: random.Random) -> list[tuple]:
    """每个输入里，各种误解算出来的准确率都不同：标签是按这个要求摆的。"""
    cases = []
    for B, T, V in [(2, 8, 9), (2, 11, 12), (3, 14, 20)]:
        logits = normal(rng, B, T, V)
        guess, at = logits.argmax(-1), torch.zeros(B, T, dtype=torch.bool)
        at[0, [2, 4, 5]] = True                           # 第一行三处，对两处
        at[1:, 3] = True                                  # 其余各行一处，都不对
        labels = torch.where(at, (guess + 1) % V, IGNORE)
        labels[0, [2, 4]] = guess[0, [2, 4]]
        cases.append((logits, labels))
    return cases


def _accuracy(logits, labels):
    at = labels != IGNORE
    return (logits.argmax(-1)[at] == labels[at]).float().mean()


def _by_row(logits, labels):
    return torch.stack([_accuracy(x, y) for x, y in zip(logits, labels, strict=True)]).mean()


masked_accuracy = Function(
    "mlm_pretraining.masked_accuracy",
    reference=_accuracy, cases=_exam,
    ask="labels 里有几个不是 −100？这些位置里猜对了几个？两个数相除，与你的结果比一比。",
    mistakes=(
        Mistake("除以了全部位置", lambda logits, labels: (logits.argmax(-1) == labels).float().mean(),
                "猜对的个数除以了全部位置，没出题的位置都算答错。", "没有被选中的位置是一道题吗？分母应当数什么？"),
        Mistake("像 CLM 那样错了一位", lambda logits, labels: _accuracy(logits[:, :-1], labels[:, 1:]),
                "它拿位置 t 的猜测去对位置 t+1 的答案。", "填空时，第 t 个空的答案写在第几个位置？"),
        Mistake("先按篇平均", _by_row, "它先算每一篇的准确率，再取平均：题少的一篇和题多的一篇一样重。",
                "一篇只有一道题、另一篇有三道，每道题的分量一样吗？"),
        Mistake("报成了错误率", lambda logits, labels: 1 - _accuracy(logits, labels), "这是答错的比例。", "全答对的时候，你的函数返回几？"),
        Mistake("没选中的当成第 0 号", lambda logits, labels: (logits.argmax(-1) == labels.clamp(min=0)).float().mean(),
                "−100 被当成了第 0 号词元，也来对答案。", "没选中的位置，有没有标准答案？"),
        Mistake("只数了个数", lambda logits, labels: (logits.argmax(-1) == labels).sum(), "它给的是答对的个数。",
                "题目要的是比例。一共有几道题？"),
        Mistake("平均了概率", lambda logits, labels: logits[labels != IGNORE].softmax(-1).gather(-1, labels[labels != IGNORE][:,
                None]).mean(),
                "它平均的是正确答案的概率。", "猜对没有，看的是概率多大，还是谁排第一？"),
    ),
)


# ---------------------------------------------------------------- 2 损失读作多少个字


effective_choices = Value(
    "mlm_pretraining.effective_choices", expected=math.exp(2.3), rtol=0.02, form="一个数",
    ask="在 n 个字里均匀地猜，损失是多少奈特？反过来解出 n。",
    mistakes=(
        Mistake("底用成了 2", 2 ** 2.3, "它把 2.3 当成比特，以 2 为底。", "奈特用的是自然对数。它的底是几？"),
        Mistake("底用成了 10", 10 ** 2.3, "它以 10 为底。", "奈特用的是哪一种对数？`math.log` 默认的底是几？"),
        Mistake("没有换算", 2.3, "它直接用了损失的数值。", "损失是 ln V 时，相当于在 V 个字里猜。损失是 2.3 时呢？"),
        Mistake("算成了概率", math.exp(-2.3), "这是正确的字平均得到的概率（几何平均）。", "概率是 1/n 时，n 是多少？"),
    ),
)


# ---------------------------------------------------------------- 3 一元模型


def _texts(rng: random.Random) -> list[tuple]:
    cases = []
    for V, n, m in [(4, 6, 5), (6, 12, 7), (9, 40, 11)]:
        train = integers(rng, V - 1, n)                   # 最后一个字训练集里没有
        test = torch.cat([integers(rng, V - 1, m - 2), torch.tensor([V - 1, 0])])
        cases.append((train.tolist(), test.tolist(), V))
    return cases


def _unigram(train, test, V, alpha=1.0, log=np.log):
    counts = np.bincount(train, minlength=V) + alpha
    with np.errstate(divide="ignore"):
        return float(-log(counts / counts.sum())[test].mean())


unigram_loss = Function(
    "mlm_pretraining.unigram_loss",
    reference=lambda train, test, V: _unigram(train, test, V), cases=_texts,
    ask="拿最短的那个输入，把训练集里每个字的次数写出来，各加 1，再除以总数。考卷里每个字的 −ln p 是多少？",
    mistakes=(
        Mistake("在考卷上数了字频", lambda train, test, V: _unigram(test, test, V), "字频是从考卷里数的：先看了答案再答题。",
                "真正考试的时候，考卷上的字频能提前知道吗？"),
        Mistake("没有加一平滑", lambda train, test, V: _unigram(train, test, V, 0.0),
                "训练集里没有的字，概率成了 0，损失成了无穷大。", "题目里「每个字多数一次」说的是什么？"),
        Mistake("单位成了比特", lambda train, test, V: _unigram(train, test, V, log=np.log2), "它用了以 2 为底的对数，单位是比特。",
                "这一本里损失的单位是奈特。两种单位差多少倍？"),
        Mistake("分母没有跟着变", lambda train, test, V: float(-np.log((np.bincount(train, minlength=V) + 1) / len(train))[test].mean()),
                "每个字的次数加了 1，总数却没有跟着变，概率加起来超过了 1。", "把所有字的概率加起来，等于 1 吗？"),
        Mistake("只把见过的算进词表", lambda train, test, V: float(-np.log(
            (np.bincount(train, minlength=V) + 1) / (len(train) + len(set(train))))[test].mean()),
                "分母里只给训练集见过的字各加了 1。", "加了 1 的一共有几个字？没见过的字加了吗？"),
        Mistake("没有取平均", lambda train, test, V: _unigram(train, test, V) * len(test), "它把考卷上每个字的损失加了起来。",
                "考卷长一倍，这个数会怎样？"),
        Mistake("字频里掺了考卷", lambda train, test, V: _unigram([*train, *test], test, V), "数字频的时候，考卷也数了进去。",
                "考试之前，考卷该不该看？"),
    ),
)


# ---------------------------------------------------------------- 4 学习率


def _schedules(rng: random.Random) -> list[tuple]:
    cases = []
    for total, warmup in [(10, 2), (20, 5), (300, 30)]:
        for step in {0, 1, warmup - 1, warmup, warmup + 1, rng.randrange(warmup, total), total // 2, total - 1, total}:
            cases.append((step, total, warmup, 3e-3))
    return cases


def _library_rate(step, total, warmup, peak):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    return peak * get_linear_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0](step)


learning_rate = Function(
    "mlm_pretraining.learning_rate",
    reference=_library_rate, cases=_schedules, atol=1e-9,
    ask="先确定三个点：第 0 步、第 warmup 步、第 total 步的学习率各是多少？再用两段直线连起来。",
    mistakes=(
        Mistake("没有升温", lambda step, total, warmup, peak: peak * (total - step) / total,
                "它从第 0 步起就往下降，没有升温的一段。", "第 0 步的学习率应当是多少？刚开始时梯度可靠吗？"),
        Mistake("升温之后不降", lambda step, total, warmup, peak: peak * min(1, step / warmup),
                "升到最高以后就不动了。", "最后一步的学习率应当是多少？"),
        Mistake("下降的起点算错了", lambda step, total, warmup, peak: peak * (step / warmup if step < warmup else (total - step) / total),
                "升温结束的那一步，学习率突然跌了一截。", "把 step = warmup 代进你的两段公式，结果一样吗？"),
        Mistake("降得太慢", lambda step, total, warmup, peak: peak * (step / warmup if step < warmup else 1 - (step - warmup) / total),
                "最后一步的学习率还没有降到 0。", "下降这一段一共走多少步？是 total 步吗？"),
        Mistake("早了一步", lambda step, total, warmup, peak: _library_rate(step + 1, total, warmup, peak),
                "第 step 步，它给的是第 step + 1 步的学习率。",
                "第 0 步应当是多少？你的是多少？", sign=lambda trials: all(
                    not difference(_library_rate(t.args[0] + 1, *t.args[1:]), t.actual.value) for t in trials if t.args[0] < t.args[1])),
        Mistake("用了余弦", lambda step, total, warmup, peak: peak * (step / warmup if step < warmup else 0.5 * (
            1 + math.cos(math.pi * (step - warmup) / (total - warmup)))), "下降的一段，它用的是余弦曲线。",
            "题目里说的是怎样降？画出来是直线还是曲线？"),
        Mistake("两段相乘", lambda step, total, warmup, peak: peak * min(1, step / warmup) * (total - step) / total,
                "它把升温和下降两条线乘在了一起，最高的一步到不了 peak。", "第 warmup 步的学习率该是多少？你的呢？"),
    ),
)


# ---------------------------------------------------------------- 5 按长度分桶


def _lengths(rng: random.Random) -> list[tuple]:
    cases = [([3, 9, 4, 10], 2), ([9, 2, 8, 3, 7], 2)]
    for n, b in [(9, 4), (30, 8)]:
        row = [rng.randint(5, 60) for _ in range(n - 2)] + [60, 4]
        cases.append((row, b))
    return cases


def _share(lengths, batch_size, order=False, bound=None, over_real=False, by_batch=False):
    row = sorted(lengths) if order else list(lengths)
    batches = [row[i:i + batch_size] for i in range(0, len(row), batch_size)]
    sizes = [(bound(row) if bound else max(b)) * len(b) for b in batches]
    if by_batch:
        return float(np.mean([1 - sum(b) / s for b, s in zip(batches, sizes, strict=True)]))
    wasted = sum(sizes) - sum(row)
    return wasted / (sum(row) if over_real else sum(sizes))


padding_share = Function(
    "mlm_pretraining.padding_share",
    reference=lambda lengths, batch_size: _share(lengths, batch_size), cases=_lengths,
    ask="拿最短的那个输入，把每一批画成一个长方形：宽是这一批最长的，高是篇数。空着的格子占几成？",
    mistakes=(
        Mistake("补到了全体最长", lambda lengths, batch_size: _share(lengths, batch_size, bound=max),
                "每一批都补到了全部文档里最长的那么长。", "一批里的张量，只要和谁一样长就行？"),
        Mistake("除以了真词元", lambda lengths, batch_size: _share(lengths, batch_size, over_real=True),
                "填充的个数除以了真词元的个数。", "题目问的是填充占「算过的全部位置」的几成，分母里有没有填充自己？"),
        Mistake("先按批平均", lambda lengths, batch_size: _share(lengths, batch_size, by_batch=True),
                "它先算每一批的比例，再取平均：小的一批和大的一批一样重。", "白算的时间是按批数的，还是按格子数的？"),
        Mistake("先排了序", lambda lengths, batch_size: _share(lengths, batch_size, order=True),
                "它先把长度排了序，量的是分过桶之后的填充。", "题目说按给定的次序排进一批。排序该由谁来做？"),
        Mistake("最后一批当成满的", lambda lengths, batch_size: 1 - sum(lengths) / sum(
            max(lengths[i:i + batch_size]) * batch_size for i in range(0, len(lengths), batch_size)), "最后不满的一批，它也按满的算。",
                "最后一批只有几篇？那个长方形有几行？"),
        Mistake("只数了个数", lambda lengths, batch_size: _share(lengths, batch_size) * sum(
            max(b) * len(b) for b in (lengths[i:i + batch_size] for i in range(0, len(lengths), batch_size))), "它给的是填充的个数。",
                "题目问的是几成。一共算过多少个位置？"),
    ),
)


# ---------------------------------------------------------------- 6、7 判断


copied = Choice(
    "mlm_pretraining.copied", right="C", ask="没有被盖住的位置，输入里写着什么？标签又是什么？",
    mistakes=(
        Mistake("以为损失会变高", "A", "这一项认为要算的位置多了，题目就更难。", "多出来的那些位置，答案藏在哪里？难吗？"),
        Mistake("以为只是算得慢", "B", "这一项认为多算的位置不影响学到的东西。", "梯度是各个位置的平均。八成半的位置在教模型做什么？"),
        Mistake("以为样本多就学得好", "D", "这一项把「要算的位置多」当成了「要学的东西多」。",
                "一个只会照抄输入的模型，这样能得多低的损失？它会填空吗？"),
    ),
)

fixed_exam = Choice(
    "mlm_pretraining.fixed_exam", right="B", ask="两个损失，是同一张考卷考出来的吗？",
    mistakes=(
        Mistake("当成了欠拟合", "A", "这一项拿训练损失和验证损失直接比，得出还没学够。",
                "一张卷子盖住六成的字，另一张盖住一成半。哪张更难？"),
        Mistake("当成了泄漏", "C", "这一项认为训练损失高于验证损失，就一定是验证集混进了训练集。",
                "同一批文档，只改遮盖率，损失会不会变？"),
        Mistake("当成了遮得越少越好", "D", "这一项从两个损失的高低，得出遮盖率该降到 15%。",
                "要比两种训练的遮盖率，该让两个模型考什么样的卷子？"),
    ),
)
