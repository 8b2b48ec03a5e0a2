"""generation 的练习。"""

from __future__ import annotations

import random

import torch

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.inputs import integers, normal
from utils.generation.decoding import no_repeat_ngram, sample_next, top_p_filter

# ---------------------------------------------------------------- 1 核


def _distributions(rng: random.Random) -> list[tuple]:
    """界限总在两个累计值的正中间，不会差之毫厘。头四个是定好的，几种误解在上面各不相同。"""
    flat = torch.tensor([0.22, 0.28, 0.2, 0.3])
    cases = [(torch.tensor([0.04, 0.06, 0.1, 0.15, 0.25, 0.4]), 0.7), (torch.tensor([0.02, 0.9, 0.05, 0.03]), 0.5),
             (flat, 0.75), (flat, 0.2)]
    for V in (5, 8, 12):
        p = (normal(rng, V, scale=1.5) + 0.1 * torch.arange(V)).softmax(-1)
        sums = [0.0, *p.sort(descending=True).values.cumsum(0).tolist()]
        k = rng.randint(1, V - 2)
        cases.append((p, (sums[k] + sums[k + 1]) / 2))
    return cases


def _kept_by_library(p, limit):
    return top_p_filter(p.log()[None], limit)[0].isfinite().nonzero()[:, 0].tolist()


def _first(extra=0, ordered=True):
    """从大到小累加，直到够 limit；extra：再多（少）留几个；ordered=False：按编号的次序累加。"""
    def nucleus(p, limit):
        order = p.sort(descending=True).indices.tolist() if ordered else list(range(len(p)))
        total, n = 0.0, 0
        while total < limit and n < len(p):
            total, n = total + float(p[order[n]]), n + 1
        return sorted(order[:max(n + extra, 0)])

    return nucleus


def _above(threshold):
    return lambda p, limit: [i for i, x in enumerate(p.tolist()) if x >= threshold(p, limit)]


nucleus = Function(
    "generation.nucleus",
    reference=_kept_by_library, cases=_distributions,
    ask="把最短的反例从大到小排好，一个一个加，写下每一步的和。加到哪一个才够？",
    mistakes=(
        Mistake("少留了一个", _first(-1), "它在累计概率还没有达到 p 的时候就停了，跨过去的那一个没有留下。",
                "留下的这些，概率加起来够 p 了吗？要是第一名自己就超过 p，你还剩几个？"),
        Mistake("多留了一个", _first(1), "累计概率已经够了，它又多留了一个。", "「刚达到 p 的最少几个」，去掉你留下的最后一个，还够不够？"),
        Mistake("没有排序", _first(ordered=False), "它按编号的先后累加，排在前面的小概率也留下了。", "要用最少的几个凑够 p，应当先拿谁？"),
        Mistake("当成了单个的门槛", _above(lambda p, limit: limit), "它只留自己的概率就不小于 p 的词元。",
                "p 管的是一个词元的概率，还是留下的这些加起来的概率？"),
        Mistake("当成了 min-p", _above(lambda p, limit: limit * float(p.max())), "它留的是不小于「第一名 × p」的，那是 min-p。",
                "min-p 只和第一名比。top-p 问的是「凑够多少」，二者在很平的分布上一样吗？"),
        Mistake("用了 1 − p", lambda p, limit: _first()(p, 1 - limit), "它凑够的是 1 − p。", "p = 0.9 时，留下的该占九成还是一成？"),
        Mistake("只留了第一名", lambda p, limit: [int(p.argmax())], "它只留概率最大的一个，那是贪心。",
                "第一名自己够 p 吗？不够的时候呢？"),
        Mistake("返回的是名次", lambda p, limit: list(range(len(_first()(p, limit)))),
                "个数对，可是它给的是排序以后的名次，不是词元的编号。",
                "排在第一名的，编号是几？排序的时候，编号跟着走了吗？"),
        Mistake("从小的加起", lambda p, limit: sorted(
            p.argsort().tolist()[:int((p.sort().values.cumsum(0) < limit).sum()) + 1]), "它从概率最小的加起。",
            "要用最少的几个凑够 p，应当先拿谁？大的还是小的？"),
    ),
)


# ---------------------------------------------------------------- 2 禁止重复


def _histories(rng: random.Random) -> list[tuple]:
    cases = [([5, 6, 5, 7, 5], 2), ([5, 6, 7, 8, 5, 6, 9, 5, 6], 3), ([4, 4], 3), ([3, 7, 7], 2), ([9, 3, 9, 4, 9], 2)]
    return cases + [([rng.randint(3, 6) for _ in range(rng.randint(8, 16))], n) for n in (2, 2, 3)]


def _ban(used=0, only_last=False, place=-1):
    """used：比 n-1 多看几个；only_last：只认最近的一次；place：禁的是 n 元组里的第几个。"""
    def banned_next(ids, n):
        n += used
        last = ids[len(ids) - n + 1:]
        found = [ids[i:i + n] for i in range(len(ids) - n + 1) if ids[i:i + n - 1] == last]
        return sorted({gram[place] for gram in (found[-1:] if only_last else found)})

    return banned_next


def _banned_by_library(ids, n):
    return no_repeat_ngram(torch.zeros(1, 20), torch.tensor([ids]), n)[0].isinf().nonzero()[:, 0].tolist()


banned_next = Function(
    "generation.banned_next",
    reference=_banned_by_library, cases=_histories,
    ask="写下最短反例里的全部 n 元组，再写下「刚写的几个 + 候选」。哪些候选会让两边出现同一个？",
    mistakes=(
        Mistake("看了 n 个", _ban(used=1), "它拿刚写的 n 个去比，禁的其实是 n+1 元组。", "n 元组里，最后一个是候选自己。前面还有几个？"),
        Mistake("只认最近一次", _ban(only_last=True), "前面出现过好几次，它只禁了其中一次后面的字。",
                "刚写的几个在前面出现过两次、后面各接了不同的字，该禁几个？"),
        Mistake("禁错了位置", _ban(place=0), "它禁的是 n 元组的第一个字。", "n 元组的前 n-1 个已经写下了。现在要决定的是第几个？"),
        Mistake("见过就禁", lambda ids, n: sorted(set(ids)), "凡是出现过的词元它都禁了，那是 n = 1。",
                "n = 2 时，一个字出现过，就一定不许再写吗？"),
        Mistake("漏了最后一个", lambda ids, n: sorted(
            {ids[i + n - 1] for i in range(len(ids) - n) if ids[i:i + n - 1] == ids[len(ids) - n + 1:]}),
                "最末尾的那个 n 元组没有算进去。", "「哈哈」写下以后，n = 2 时还能再写「哈」吗？循环走到最后一个 n 元组了没有？"),
        Mistake("有重复的编号", lambda ids,
                n: sorted(ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i:i + n - 1] == ids[len(ids) - n + 1:]),
                "同一个编号列了不止一次。", "题目要的列表里，可以有重复的吗？"),
        Mistake("只管两个字", lambda ids, n: _ban()(ids, 2), "不管 n 是几，它都按 n = 2 禁。", "n = 3 时，要比的是刚写的几个？"),
    ),
)


# ---------------------------------------------------------------- 3 束搜索的长度


def _finished(rng: random.Random) -> list[tuple]:
    cases = [([-4.0, -6.0, -9.0], [4, 12, 20], alpha) for alpha in (1.0, 0.7, 0.5)]
    for alpha in (0.6, 1.5):
        lengths = rng.sample(range(3, 40), 4)
        cases.append(([-round(rng.uniform(0.3, 0.6) * n, 3) for n in lengths], lengths, alpha))
    return cases


def _best(score, pick=max):
    def best_finished(totals, lengths, alpha):
        scores = [score(s, n, alpha) for s, n in zip(totals, lengths, strict=True)]
        best = pick(range(len(scores)), key=scores.__getitem__)
        return best, scores[best]

    return best_finished


best_finished = Function(
    "generation.best_finished",
    reference=_best(lambda s, n, alpha: s / n ** alpha), cases=_finished, rtol=1e-5,
    ask="取 α = 1，折算后的分数就是平均每个词元的对数概率。用最短的反例手算一遍，对得上吗？",
    mistakes=(
        Mistake("没有折算", _best(lambda s, n, alpha: s), "它直接比总对数概率，α 没有用上。",
                "每多写一个字，总对数概率只会变小。这样比，谁总是吃亏？"),
        Mistake("乘成了长度", _best(lambda s, n, alpha: s * n ** alpha), "它把分数乘以长度的 α 次方，长文章被罚得更重。",
                "对数概率是负数。乘以一个大于 1 的数，是变大还是变小？"),
        Mistake("α 当成了系数", _best(lambda s, n, alpha: s / (alpha * n)), "它除以 α × 长度，α 成了一个公共的系数，排名与 α 无关。",
                "公式里的 α 写在什么位置？α = 0 时应当回到「不折算」，你的回得去吗？"),
        Mistake("挑了最小的", _best(lambda s, n, alpha: s / n ** alpha, min), "它挑出了折算后分数最低的一篇。",
                "−0.5 和 −1.5，哪一个概率大？"),
        Mistake("分数没有折算", lambda totals, lengths, alpha: (
            (i := _best(lambda s, n, alpha: s / n ** alpha)(totals, lengths, alpha)[0]), totals[i]), "挑对了，可是返回的是没有折算的总分。",
                "题目要的第二个数是什么？"),
        Mistake("减去了罚分", _best(lambda s, n, alpha: s - alpha * n), "它从总分里减去 α × 长度，长的更吃亏。",
                "惩罚的目的，是让长文章与短文章能公平地比。你的让谁吃亏？"),
        Mistake("忘了 α", _best(lambda s, n, alpha: s / n), "它除以的总是长度本身，α 没有起作用。",
                "α = 0 时应当回到「不折算」，你的回得去吗？"),
        Mistake("挑了最长的", lambda totals, lengths, alpha: (
            (i := lengths.index(max(lengths))), totals[i] / lengths[i] ** alpha), "它总是挑最长的一篇。",
            "长度惩罚是让长的不吃亏，还是让长的必胜？"),
    ),
)


# ---------------------------------------------------------------- 4 左填充的位置


def _masks(rng: random.Random) -> list[tuple]:
    cases = [(torch.tensor([[0, 0, 1, 1, 1]]),)]
    for B, T in [(2, 6), (4, 9)]:
        pads = [rng.randint(1, T - 3) for _ in range(B - 1)] + [0]
        cases.append(((torch.arange(T) >= torch.tensor(pads)[:, None]).long(),))
    return cases


left_positions = Function(
    "generation.left_positions",
    reference=lambda mask: (mask.cumsum(1) - 1).clamp(min=0), cases=_masks,
    ask="短的那一行单独算时，[CLS] 的位置编号是几？左边补了 [PAD] 以后，它的编号该不该变？",
    mistakes=(
        Mistake("没管填充", lambda mask: torch.arange(mask.size(1)).expand_as(mask).clone(),
                "它把 [PAD] 也数进去了，真词元的编号整体往后挪。",
                "模型练的时候，[CLS] 总在第几位？第 9 节里「位置没改」的那一行差了多少？"),
        Mistake("从 1 数起", lambda mask: mask.cumsum(1) * mask, "第一个真词元的编号成了 1。", "单独算的时候，[CLS] 的编号是 0 还是 1？"),
        Mistake("填充成了 −1", lambda mask: mask.cumsum(1) - 1, "真词元对了，[PAD] 的编号却是 −1，查位置嵌入会出错。",
                "位置嵌入有第 −1 行吗？题目说填充的位置记几？"),
        Mistake("从右往左数", lambda mask: mask.flip(1).cumsum(1).flip(1).sub(1) * mask, "它从右边数起，最后一个词元的编号是 0。",
                "接着往下写的那个字，编号应当比最后一个词元大还是小？"),
        Mistake("当成了右填充", lambda mask: torch.arange(mask.size(1)) * mask,
                "真词元的编号是它在这一行里的第几格，前面的 [PAD] 也数了进去。",
                "这一行的 [CLS] 前面有几个 [PAD]？它自己该是第几个？"),
        Mistake("填充记成了 1", lambda mask: (mask.cumsum(1) - 1).masked_fill(mask == 0, 1), "填充的位置记成了 1。",
                "题目说填充的位置记几？"),
        Mistake("整批用同一行", lambda mask: (mask.cumsum(1) - 1).clamp(min=0)[:1].expand_as(mask), "每一行都用了第 0 行的编号。",
                "各行补的 [PAD] 一样多吗？"),
        Mistake("沿着批数", lambda mask: (mask.cumsum(0) - 1).clamp(min=0), "它是一行一行往下数的。",
                "位置编号跟着一句话往右走，还是跟着一批往下走？"),
    ),
)


# ---------------------------------------------------------------- 5 缓存省下多少


read_positions = Value(
    "generation.read_positions", expected=[sum(range(20, 25)), 20 + 4], rtol=0, form="两个整数的列表",
    ask="一步一行，写下每一步送进模型的有几个词元，再加起来。写第一个字之前要读什么？最后一个字写出来以后还要不要读？",
    mistakes=(
        Mistake("最后一个字也读了", [sum(range(20, 26)), 25], "它把写完的最后一个字也送进模型读了一遍。",
                "第 5 个字写出来就停。还需要知道第 6 个字的概率吗？", sign=lambda a: a[0] == 135 or a[1] == 25),
        Mistake("以为提示也不用读", [110, 5], "它以为有了缓存，提示就一次也不用读。", "缓存一开始是空的。提示的 k 和 v 从哪里来？",
                sign=lambda a: a[1] in (4, 5)),
        Mistake("以为每步一样长", [100, 24], "不用缓存的时候，它以为每一步读的都只有提示那么长。",
                "写第三个字的时候，前面写的两个字要不要读？", sign=lambda a: a[0] == 100),
        Mistake("以为没有差别", [24, 24], "它以为不用缓存也只读新写的字。", "没有缓存，前文的 k 和 v 到哪里去找？",
                sign=lambda a: a[0] == a[1]),
    ),
)


# ---------------------------------------------------------------- 6 抽签


def _draws(rng: random.Random) -> list[tuple]:
    quarter = torch.tensor([0.25, 0.25, 0.5])
    cases = [(quarter, 0.25), (quarter, 0.6), (quarter, 0.1), (torch.tensor([0.0, 0.5, 0.5]), 0.0)]
    for V in (4, 7):
        weights = integers(rng, 8, V, low=1)
        p = weights.double() / weights.sum()
        edge = rng.randint(0, V - 1)
        cases.append((p.float(), float(p[:edge].sum() + p[edge] / 2)))
    return cases


def _walk(p, u, strict=True):
    total = 0.0
    for i, x in enumerate(p.tolist()):
        total += x
        if u < total if strict else u <= total:
            return i
    return len(p) - 1


draw_token = Function(
    "generation.draw_token",
    reference=lambda p, u: int(sample_next(p.log()[None], torch.tensor([u], dtype=torch.float64))), cases=_draws,
    ask="画一条从 0 到 1 的线段，按概率切开，标上每段的编号。u 落在哪一段？",
    mistakes=(
        Mistake("端点算给了前一段", lambda p, u: _walk(p, u, strict=False),
                "u 恰好等于一段的右端时，它选了这一段；于是 u = 0 会选中概率为 0 的词元。",
                "每一段是左闭右开的。概率为 0 的那一段有多长，u = 0 能落进去吗？"),
        Mistake("没有累加", lambda p, u: next((i for i, x in enumerate(p.tolist()) if u < x), len(p) - 1), "它拿 u 去和单个的概率比。",
                "第二段从哪里开始、到哪里结束？它的右端就是第二个词元的概率吗？"),
        Mistake("总选最大的", lambda p, u: int(p.argmax()), "它没有用 u，每次都选概率最大的，那是贪心。", "u 变了，你的答案会变吗？"),
        Mistake("从右边切起", lambda p, u: len(p) - 1 - _walk(p.flip(0), u),
                "它从最后一个词元切起。频率也对，可是同一个 u 选出的与题目约定的不同。",
                "题目说第一段属于几号词元？"),
        Mistake("先排了序", lambda p, u: int(p.argsort(descending=True)[min(_walk(p.sort(descending=True).values, u), len(p) - 1)]),
                "它先把概率从大到小排好，再切线段。", "频率一样，可是题目说从几号词元切起？"),
        Mistake("没有理会 p", lambda p, u: int(u * len(p)), "它把 [0, 1) 平均切成 V 段，没有用上概率。",
                "概率 0.5 的词元，它那一段该有多长？"),
        Mistake("返回了概率", lambda p, u: float(p[_walk(p, u)]), "它返回的是选中的那个词元的概率。", "题目要的是编号，还是概率？"),
    ),
)


# ---------------------------------------------------------------- 7 尺子的盲点


blind_spot = Choice(
    "generation.blind_spot", right="ABD", ask="一把一把地问：它看得见导语吗？它看得见参考吗？只改一个数字，它数的东西变了几个？",
    mistakes=(
        Mistake("以为忠实度也看不见", "ABCD", "这一项说四把尺子全都看不见。", "哪一把尺子拿正文和导语的事实逐项核对？"),
        Mistake("以为 chrF 看得见", "BD", "这一项认为与参考比一比，就看得出写错的数字。",
                "第 13 节的表里，「真正文改错一个数」的 chrF 是多少？"),
        Mistake("只想到 chrF", "A", "这一项漏了只看文章自己的尺子。", "distinct-2 和重复率，看不看导语，看不看参考？"),
        Mistake("看反了", "C", "这一项选的正是看得见的那一把。", "题目问的是「几乎不变」，还是「会变」？"),
    ),
)
