"""objectives 的练习。参照用库和 utils/training/objectives.py，与 notebook 里折叠的参考答案各写各的。"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.inputs import booleans, integers, normal
from utils.checks.sentence_order import documents, kinds, pairs, strangers
from utils.tokenization.tokenizer import IGNORE

# ---------------------------------------------------------------- 1 一批长短不齐的 CLM


def _padded(rng: random.Random) -> list[tuple]:
    cases = []
    for B, T, V in [(1, 2, 3), (2, 4, 5), (2, 3, 4), (3, 7, 11), (4, 9, 6)]:
        lengths = torch.tensor([T, *(rng.randint(2, T - 1) for _ in range(B - 1))])           # 每行至少两个真词元
        mask = (torch.arange(T) < lengths[:, None]).long()                                    # (B, T)
        ids = integers(rng, V, B, T).masked_fill(mask == 0, rng.randrange(V))                 # 填充用的编号，真词元里也可能有
        ids[0, 1] = 0
        cases.append((normal(rng, B, T, V, scale=2), ids, mask))
    return cases


def _clm(logits, ids, mask, shift=1, ignore=True, reduction="mean"):
    labels = ids.masked_fill(mask == 0, IGNORE) if ignore else ids
    scores, labels = (logits[:, :-shift], labels[:, shift:]) if shift else (logits, labels)
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction=reduction)


def _divided_by_all(logits, ids, mask):
    return _clm(logits, ids, mask, reduction="sum") / ids[:, 1:].numel()


def _backwards(logits, ids, mask):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), ids.masked_fill(mask == 0, IGNORE)[:, :-1].flatten())


def _wrong_side(logits, ids, mask):
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")   # (B, T-1)
    return losses[mask[:, :-1] == 1].mean()


padded_clm_loss = Function(
    "objectives.padded_clm_loss",
    reference=lambda logits, ids, mask: _clm(logits, ids, mask),
    cases=_padded,
    ask="挑一行只有两个真词元的，用手数一数：应当有几个位置在算损失？你的代码算了几个？",
    mistakes=(
        Mistake("没有错位", lambda logits, ids, mask: _clm(logits, ids, mask, shift=0),
                "它拿位置 t 的 logits 去和第 t 个词元比：在考「把看见的字抄一遍」。",
                "位置 t 的 logits 已经看过了第 t 个词元。它接下来该猜的是哪一个？"),
        Mistake("错位方向反了", _backwards, "它拿位置 t 的 logits 去和前一个词元比。",
                "CLM 是从左往右写的。已经写到 t，要猜的在左边还是右边？"),
        Mistake("填充也算进了损失", lambda logits, ids, mask: _clm(logits, ids, mask, ignore=False),
                "填充的位置也被当成要猜的词元，一起平均了。", "mask 为 0 的那些位置，有人需要模型去猜它们吗？怎样让它们不进平均？"),
        Mistake("分母多数了", _divided_by_all, "填充没有计入总和，可是平均时除以的个数里仍然有它们，所以损失偏小。",
                "分子加了几项？分母应当与它相同。"),
        Mistake("掩码差了一位", _wrong_side, "它看的是「出题的位置」是不是真词元，于是每行最后一个真词元还要去猜一个填充。",
                "一道题有出题的位置和要猜的位置。哪一个是填充时，这道题就不该算？"),
        Mistake("错了两位", lambda logits, ids, mask: _clm(logits, ids, mask, shift=2),
                "它拿位置 t 的 logits 去猜 t+2 的词元，隔着一个字。",
                "你的代码里，错位一共做了几次？"),
        Mistake("先按行平均", lambda logits, ids, mask: torch.stack([_clm(*row) for row in zip(
            logits[:, None], ids[:, None], mask[:, None], strict=True)]).mean(),
            "它先算每一行的平均，再把各行平均：短的一行和长的一行一样重。",
                "一行只有一道题，另一行有六道，每道题的分量一样吗？"),
        Mistake("softmax 做了两遍", lambda logits, ids, mask: _clm(logits.softmax(-1), ids, mask),
                "它把概率当成 logits，又做了一遍 softmax。",
                "`cross_entropy` 自己做不做 softmax？"),
        Mistake("没有归一化", lambda logits, ids, mask: -logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0][mask[:, 1:] == 1].mean(),
                "它取的是 logits 本身，不是对数概率。", "logits 全都加上 100，模型的预测一点没变。你的损失变了吗？"),
        Mistake("没有取平均", lambda logits, ids, mask: _clm(logits, ids, mask, reduction="sum"), "它把各处的损失加了起来。",
                "一批大一倍，这个数会怎样？"),
    ),
)


# ---------------------------------------------------------------- 2 MLM 的损失


def _masked(rng: random.Random) -> list[tuple]:
    cases = []
    for B, T, V in [(1, 3, 4), (1, 5, 3), (2, 6, 7), (3, 9, 12)]:
        chosen = booleans(rng, B, T, share=0.3)
        chosen[:, 1], chosen[:, 2] = True, False                                              # 选中的、没选中的都有
        labels = integers(rng, V, B, T).masked_fill(~chosen, IGNORE)
        labels[0, 1] = 0 if T < 5 else 1                                                      # 编号 0 也是一个词元
        cases.append((normal(rng, B, T, V, scale=2), labels))
    return cases


def _mlm(logits, labels, reduction="mean"):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction=reduction)


mlm_loss = Function(
    "objectives.mlm_loss",
    reference=lambda logits, labels: _mlm(logits, labels),
    cases=_masked,
    ask="labels 里有几个不是 −100？你的代码平均了几项？",
    mistakes=(
        Mistake("像 CLM 那样错了一位", lambda logits, labels: _mlm(logits[:, :-1], labels[:, 1:]),
                "它拿位置 t 的 logits 去猜位置 t+1 的字，那是 CLM 的题目。",
                "被盖住的字，模型左右两边都看得见。它的答案应当写在哪个位置上？"),
        Mistake("−100 当成了第 0 号词元", lambda logits, labels: _mlm(logits, labels.clamp(min=0)),
                "没选中的位置也算了损失，标签被当成词表里的第 0 个词元。", "−100 是一个词元的编号吗？它想说的是什么？"),
        Mistake("−100 当成了倒数第几个", lambda logits, labels: _mlm(logits, labels % logits.shape[-1]),
                "负的标签被当成「从词表末尾往回数」，没选中的位置也算了损失。",
                "Python 的负下标不会报错。取概率之前，该先把哪些位置拿掉？"),
        Mistake("除以了全部位置", lambda logits, labels: _mlm(logits, labels, "sum") / labels.numel(),
                "总和只加了选中的位置，平均时却除以了全部位置，所以损失随遮盖率缩小。",
                "公式的分母是什么？遮盖率从 15% 改成 30% 时，你的损失会怎样变？"),
        Mistake("没有取平均", lambda logits, labels: _mlm(logits, labels, "sum"),
                "它把选中位置的损失加了起来。", "句子长一倍，这个数会怎样？公式里求和号前面还有什么？"),
        Mistake("第 0 号词元也丢了", lambda logits, labels: _mlm(logits, labels.masked_fill(labels <= 0, IGNORE)),
                "它只算编号大于 0 的标签，原字恰好是第 0 号的位置就漏了。", "题目用哪一个数表示「没选中」？0 是不是一个词元的编号？"),
        Mistake("softmax 做了两遍", lambda logits, labels: _mlm(logits.softmax(-1), labels), "它把概率当成 logits，又做了一遍 softmax。",
                "`cross_entropy` 自己做不做 softmax？"),
        Mistake("没有取对数", lambda logits, labels: -logits[labels != IGNORE].softmax(-1).gather(
            -1, labels[labels != IGNORE][:, None]).mean(), "它平均的是概率，不是对数概率。",
            "概率从 0.01 降到 0.001，你的损失几乎不变；公式里的呢？"),
    ),
)


# ---------------------------------------------------------------- 3、4、5 先猜再跑


spoiled_shares = Value(
    "objectives.spoiled_shares",
    expected=[0.8, 0.2, 0.0], form="三个比例的列表 [换成 [MASK], 换成随机字, 原样]", rtol=0, atol=0.011,
    ask="一次掷骰子，dice 在 0 到 1 之间均匀。把 [0, 1) 画成一条线段，标出三个判断各占哪一截。",
    mistakes=(
        Mistake("以为没有变", [0.8, 0.1, 0.1], "这是没有改动时的三个比例。",
                "dice 落在 0.9 到 1.0 之间的那些位置，改动之后走哪一条路？"),
        Mistake("加到了原样上", [0.8, 0.0, 0.2], "三个数里多出来的那一份，加到了「原样」上。",
                "`swap` 为真的位置会被换掉。`swap` 的范围变宽，被换掉的变多还是变少？"),
        Mistake("加到了 [MASK] 上", [0.9, 0.1, 0.0], "三个数里多出来的那一份，加到了 [MASK] 上。",
                "换成 [MASK] 的条件是哪一行？那一行改了吗？"),
        Mistake("比例按全部词元算了", [0.12, 0.03, 0.0], "这是占全部词元的比例。", "题目问的是「选中的里面」。三个数加起来应当是多少？"),
    ),
)

t5_lengths = Value(
    "objectives.t5_lengths",
    expected=[2, 27], form="两个整数的列表 [段数, 目标的长度]", rtol=0,
    ask="照着 corrupt_spans 的头两行，把 160、0.15、10 代进去；再数一数 targets 里有哪几种东西。",
    mistakes=(
        Mistake("还是平均 3 个一段", [8, 33], "这是 mean_length=3 时的结果。", "挖掉的总数没有变，每段变长了，段数会怎样？"),
        Mistake("拿全文去除", [16, 41], "段数是用全文的长度除以每段的长度得到的。", "要切成段的是整篇文章，还是只有挖掉的那一部分？",
                sign=lambda a: a[0] == 16),
        Mistake("少数了一个", [2, 26], "段数对了，目标的长度少数了一个。", "解码器怎样知道写完了？目标的最后一个词元是什么？"),
        Mistake("忘了哨兵", [2, 24], "目标里没有数隔开各段的东西。", "目标里每一段的前面放着什么？几段就有几个。",
                sign=lambda a: a[0] == 2 and a[1] in (24, 25)),
        Mistake("目标没有变短", [2, 33], "段数变少了，目标的长度却还是原来的。", "目标由哪几样东西组成？其中哪一样的个数跟着段数走？"),
    ),
)

half_words = Value(
    "objectives.half_words",
    expected=0.42, form="一个 0 到 1 之间的数", rtol=0, atol=0.021,
    ask="两个字各自独立地掷骰子，一共有四种结果。把每种的概率写出来，哪几种是「恰好盖住一个」？",
    mistakes=(
        Mistake("只算了一种次序", 0.21, "它只算了「前一个盖住、后一个没盖住」。", "还有别的办法恰好盖住一个吗？"),
        Mistake("至少盖住一个", 0.51, "这是「至少盖住一个」的概率，把两个都盖住的也算进去了。", "两个字都盖住时，旁边还留着半个词吗？"),
        Mistake("直接用了遮盖率", 0.3, "这是一个字被盖住的概率。", "一个词有两个字，恰好盖住一个，和某一个字被盖住，是同一件事吗？"),
        Mistake("遮盖率没有改", 0.255, "这是遮盖率 15% 时的概率。", "题目里的遮盖率是多少？"),
        Mistake("两个都盖住", 0.09, "这是两个字都被盖住的概率。", "题目问的是只剩半个词的情形，那时盖住了几个字？"),
    ),
)


# ---------------------------------------------------------------- 6 解码器的输入


def _targets(rng: random.Random) -> list[tuple]:
    cases = []
    for B, S in [(1, 2), (1, 4), (2, 5), (3, 8)]:
        labels = integers(rng, 50, B, S, low=4)
        if B > 1:
            labels[1:, S - 2:] = IGNORE                                                       # 短的几行，末尾是 −100
        cases.append((labels, rng.randint(1, 3)))
    return cases


def _moved(move, fill=True):
    """move(labels, 开头那一列) → 移过的；fill 时把 −100 换成 start。"""
    def shift_right(labels, start):
        inputs = move(labels, torch.full_like(labels[:, :1], start))
        return inputs.masked_fill(inputs == IGNORE, start) if fill else inputs

    return shift_right


def _right(labels, first):
    return torch.cat([first, labels[:, :-1]], 1)


shift_right = Function(
    "objectives.shift_right",
    reference=_moved(_right),
    cases=_targets,
    ask="解码器写第 s 个词元之前，已经看见了哪些？把第一列、第二列写出来对一对。",
    mistakes=(
        Mistake("−100 留在了输入里", _moved(_right, fill=False), "标签里的 −100 原样进了解码器的输入，而词嵌入里没有第 −100 行。",
                "−100 是说给谁听的？它出现在输入里，模型查词嵌入时会怎样？"),
        Mistake("末尾的词元转到了开头", _moved(lambda labels, _: labels.roll(1, 1), fill=False),
                "它把整行转了一圈，最后一个词元跑到了最前面。", "写第一个词元之前，解码器能看见答案的最后一个词元吗？"),
        Mistake("移反了方向", _moved(lambda labels, first: torch.cat([labels[:, 1:], first], 1)),
                "它向左移了一位：第 s 个位置的输入，是标签里的下一个词元。", "第 s 步的输入里有没有它正要猜的、甚至更后面的词元？"),
        Mistake("没有移位", _moved(lambda labels, _: labels), "输入和标签对齐在同一位：第 s 步的输入就是它要猜的词元。",
                "照抄输入就能得满分的题，模型会学到什么？"),
        Mistake("多出了一位", _moved(lambda labels, first: torch.cat([first, labels], 1)),
                "开头补了一个，末尾却没有去掉一个，输入比标签长。", "第 s 步的输入配第 s 个标签。多出来的那一步要猜什么？"),
        Mistake("错了两位", _moved(lambda labels, first: torch.cat([first, first, labels[:, :-2]], 1)), "它往右移了两位。",
                "写第 1 个词元（从 0 数起）时，第 0 个写出来了没有？"),
        Mistake("盖掉了第一个", _moved(lambda labels, first: torch.cat([first, labels[:, 1:]], 1)), "它没有移位，只把第一个换成了 start。",
                "标签的第一个词元，在解码器的输入里还找得到吗？"),
    ),
)


# ---------------------------------------------------------------- 7 句子次序预测


order_pairs = Function(
    "objectives.order_pairs",
    reference=pairs(lambda x: x < 0.5, lambda x, _: int(x < 0.5)),
    cases=documents, observe=kinds,
    ask="取两篇文档，把可能得到的题一道一道写出来：正着放的标签是几，倒着放的是几？",
    mistakes=(
        Mistake("标签反了", pairs(lambda x: x < 0.5, lambda x, _: int(x >= 0.5)), "正着放的记成了 1，倒着放的记成了 0。",
                "题目规定哪一种是 1？沿用 NSP 的约定：0 表示「是原来的次序」。"),
        Mistake("标签与次序无关", pairs(lambda x: x < 0.5, lambda _, y: int(y < 0.5)), "次序掷了一次骰子，标签又另掷了一次，两者对不上。",
                "一道题里有几件随机的事？标签应当由哪一件决定？"),
        Mistake("全部颠倒了", pairs(lambda x: True, lambda *_: 1), "每一篇都颠倒了，标签全是 1。",
                "全答 1 就能得满分的题，模型会学到什么？"),
        Mistake("写成了 NSP", strangers, "它把别人的正文配了过来，那是 NSP。", "ALBERT 的这道题里，两段话来自几篇文章？"),
        Mistake("只改了标签", lambda intros, bodies, generator: [
            (a, b, int(torch.rand((), generator=generator) < 0.5)) for a, b in zip(intros, bodies, strict=True)],
                "标签有 0 有 1，两段话却一次也没有颠倒。", "标签是 1 的那道题，前一段应当是谁？"),
        Mistake("固定的一半", lambda intros, bodies, generator: [
            (b, a, 1) if n % 2 else (a, b, 0) for n, (a, b) in enumerate(zip(intros, bodies, strict=True))],
                "每次颠倒的都是同样的那几篇，没有用到随机数。", "练很多遍，同一篇总是同一种题。模型会不会把答案背下来？"),
        Mistake("没有用 generator", lambda intros, bodies, generator: [
            (b, a, 1) if random.random() < 0.5 else (a, b, 0) for a, b in zip(intros, bodies, strict=True)],
                "骰子不是用 `generator` 掷的：同一个种子，两次得到的题不一样。", "实验要能重做。随机数该从哪里来？",
                sign=lambda trials: all("标签 0；" in str(t.actual.value) and "两次不一样" in str(t.actual.value) for t in trials)),
    ),
)


# ---------------------------------------------------------------- 8 解释一幅图


leak = Choice(
    "objectives.leak",
    right="B", options="ABCD",
    ask="分两步想：图上哪些格子会变深？看得见正要猜的字，训练损失会怎样？",
    mistakes=(
        Mistake("以为标签错位就够了", "A", "这一项认为标签错开一位，模型就看不见未来。",
                "「要猜哪个字」和「看得见哪些字」是两件事。第 7 节的图画的是哪一件？"),
        Mistake("以为看得多反而更难", "C", "这一项认为看得见右边会让损失变高。",
                "位置 t 要猜的正是 t+1 的字。看得见它的时候，最省力的做法是什么？"),
        Mistake("把损失低当成学得好", "D", "这一项看见损失低，就认为写得更好。",
                "真正写作时，下一个字还不存在。训练时靠它得的分，那时还拿得到吗？"),
    ),
)
