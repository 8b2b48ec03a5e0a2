"""transformer 的练习。"""

from __future__ import annotations

import random

import torch

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.inputs import integers, normal
from utils.models.attention import causal_mask, padding_mask
from utils.models.cost import block_parameters
from utils.models.positions import rotate
from utils.tokenization.tokenizer import IGNORE

# ---------------------------------------------------------------- 1 RMSNorm


def _states(rng: random.Random) -> list[tuple]:
    cases = []
    for shape, eps in [((1, 1, 4), 0.5), ((1, 3, 6), 0.1), ((2, 5, 8), 0.02)]:
        cases.append((3 * normal(rng, *shape) + 1.5, 1 + 0.5 * normal(rng, shape[-1]), eps))
    return cases


def _rms(dims=(-1,), centred=False, mean=True, inside=True, gain=True):
    def rms_norm(x, gamma, eps):
        y = x - x.mean(-1, keepdim=True) if centred else x
        square = (y ** 2).mean(dims, keepdim=True) if mean else (y ** 2).sum(dims, keepdim=True)
        y = y / (square + eps).sqrt() if inside else y / (square.sqrt() + eps)
        return y * gamma if gain else y

    return rms_norm


rms_norm = Function(
    "transformer.rms_norm",
    reference=_rms(), cases=_states,
    ask="拿 T = 1 的那个输入，用手算出均方：几个数的平方，加起来除以几？再加 eps，开方。",
    mistakes=(
        Mistake("减了均值", _rms(centred=True), "它先减去了均值：这是没有 β 的 LayerNorm。", "公式里的 x，减过什么没有？"),
        Mistake("没有取平均", _rms(mean=False), "它用的是平方和：向量越宽，除得越多。", "RMS 里的 M 是哪个词的缩写？"),
        Mistake("eps 加在了根号外面", _rms(inside=False), "它先开方再加 eps。", "公式里的 ε，在根号的里面还是外面？"),
        Mistake("整句话一起算", _rms(dims=(-2, -1)), "它把一句话的所有词元放在一起求均方，词元之间就互相影响了。",
                "后面的词元变了，前面的词元归一化的结果该不该变？"),
        Mistake("忘了 gamma", _rms(gain=False), "它没有乘 gamma。", "每一维该放大多少，是谁说了算？"),
        Mistake("没有开方", lambda x, gamma, eps: gamma * x / (x.pow(2).mean(-1, keepdim=True) + eps), "它除以的是均方，没有开方。",
                "x 放大 10 倍，RMSNorm 的结果应当几乎不变。你的呢？"),
        Mistake("先平均再平方", lambda x, gamma, eps: gamma * x / (x.mean(-1, keepdim=True).pow(2) + eps).sqrt(), "它先求平均，再平方。",
                "一正一负的两个数，平均是 0；它们的均方也是 0 吗？"),
    ),
)


# ---------------------------------------------------------------- 2 只转一个词元


def _one_token(rng: random.Random) -> list[tuple]:
    return [(normal(rng, D), t) for D, t in [(4, 1), (6, 3), (8, rng.randint(4, 9)), (16, rng.randint(10, 40))]]


def _turn(sign=1, power=1.0, half=False):
    def rotate_one(x, t):
        D = x.shape[-1]
        n = torch.arange(0, D, 2, dtype=x.dtype)
        angle = sign * t * 10000.0 ** (-power * n / D)
        even, odd = (x[:D // 2], x[D // 2:]) if half else (x[0::2], x[1::2])
        first, second = even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()
        return torch.cat([first, second]) if half else torch.stack([first, second], -1).flatten()

    return rotate_one


rotate_one = Function(
    "transformer.rotate_one",
    reference=lambda x, t: rotate(x[None], torch.tensor([t]))[0], cases=_one_token, rtol=1e-4, atol=1e-5,
    ask="拿 D = 4、t = 1 的输入，写下两个角度 ω₀t、ω₁t，再把 (x₀, x₁) 照公式转一转，和你的输出比。",
    mistakes=(
        Mistake("当成了第 0 个位置", lambda x, t: x.clone(), "它没有转：位置 0 的角度是 0。",
                "手里只有一个词元，它在这一小段里是第 0 个；可是它在整句话里是第几个？"),
        Mistake("转反了方向", _turn(sign=-1), "它转过的是 −ω·t。", "旋转矩阵的第一行，减号在哪一项前面？"),
        Mistake("配错了对", _turn(half=True), "它把第 n 维和第 n + D/2 维配成一对，那是 Llama 的排法。",
                "公式里和 x₀ 一起转的，是 x₁ 还是别的？"),
        Mistake("频率快了一倍", _turn(power=2.0), "它的指数多乘了 2：−4n/D。", "`torch.arange(0, D, 2)` 给出的已经是 n 还是 2n？"),
        Mistake("频率慢了一半", _turn(power=0.5), "它的指数是 −n/D，少了一个 2。", "第 n 对的角频率是 10000 的几次方？n 从 0 数到几？"),
        Mistake("从 1 数起", lambda x, t: _turn()(x, t + 1), "它转到了位置 t + 1。", "第 0 个位置该转多少度？你的呢？"),
        Mistake("频率都一样", lambda x, t: _turn(power=0.0)(x, t), "每一对都转了同样的角度。",
                "若各对都一样快，转过一整圈以后，还分得清远近吗？公式里 n 出现在哪里？"),
        Mistake("指数的正负反了", _turn(power=-1.0), "越往后的一对转得越快：10000 的指数成了正的。",
                "第 0 对和最后一对，公式里哪一对转得慢？"),
        Mistake("没有交错放回", lambda x, t: _turn()(x, t).view(-1, 2).T.flatten(),
                "转得对，可是它把各对的第一个数放在前半、第二个数放在后半。",
                "转完以后，(x₀, x₁) 该放回哪两个位置？"),
    ),
)


# ---------------------------------------------------------------- 3 解码器的掩码


def _padded(rng: random.Random) -> list[tuple]:
    cases = []
    for B, T in [(1, 3), (2, 5), (3, 8)]:
        real = torch.ones(B, T, dtype=torch.long)
        real[0, T - 1 - rng.randint(0, T - 3):] = 0                        # 至少留两个真词元，至少补一个
        cases.append((real,))
    left = torch.ones(2, 5, dtype=torch.long)
    left[1, :rng.randint(1, 3)] = 0                                        # 也有补在左边的
    return [*cases, (left,)]


def _both(attention_mask):
    return padding_mask(attention_mask) & causal_mask(attention_mask.size(1))


decoder_mask = Function(
    "transformer.decoder_mask",
    reference=_both, cases=_padded,
    ask="拿 T = 3、最后一个是填充的那一句，把 3 × 3 的掩码写在纸上：第 1 行能看哪几格？第 2 列谁能看？",
    mistakes=(
        Mistake("只有因果", lambda m: causal_mask(m.size(1)).expand(m.size(0), 1, -1, -1).clone(), "它没有遮住填充。",
                "排在最后的几个 [PAD]，因果掩码遮得住吗？谁会看到它们？"),
        Mistake("只有填充", lambda m: padding_mask(m).expand(-1, 1, m.size(1), -1).clone(), "它看得见未来。", "第 0 个词元能看第 1 个吗？"),
        Mistake("用了「或」", lambda m: padding_mask(m) | causal_mask(m.size(1)), "两个条件满足一个就放行了。",
                "要看得见一个位置，它得既是真词元，又不在未来。这是「且」还是「或」？"),
        Mistake("遮了行，没遮列", lambda m: m.bool()[:, None, :, None] & causal_mask(m.size(1)),
                "它遮住的是「填充看别人」，没遮「别人看填充」。", "最后一维是看的一方，还是被看的一方？"),
        Mistake("方向反了", lambda m: padding_mask(m) & causal_mask(m.size(1)).T, "它只让看自己和右边。",
                "`tril` 和 `triu`，哪一个留下左下角？"),
        Mistake("填充的行也清空了", lambda m: _both(m) & m.bool()[:, None, :, None], "填充自己的那几行，它也全遮住了。",
                "题目的条件是「第 i 个可以看第 j 个」。它管的是 j 在哪里、是不是填充；提到 i 是不是填充了吗？"),
        Mistake("自己也遮了", lambda m: padding_mask(m) & causal_mask(m.size(1)).tril(-1), "对角线也是假：词元看不见自己。",
                "一个词元能不能看自己？"),
    ),
)


# ---------------------------------------------------------------- 4 错开一位


def _labels(rng: random.Random) -> list[tuple]:
    cases = []
    for B, T in [(1, 3), (2, 5), (3, 7)]:
        labels = integers(rng, 90, B, T, low=10)
        labels[0, T - 1:] = IGNORE                                         # 至少有一个填充
        labels[-1, T // 2 + 1:] = IGNORE
        cases.append((labels, 2, 0))
    return cases


def _shifted(labels, begin, pad, filled=True, rolled=False):
    first = labels[:, -1:] if rolled else torch.full_like(labels[:, :1], begin)
    out = torch.cat([first, labels[:, :-1]], dim=1)
    return out.masked_fill(out == IGNORE, pad) if filled else out


def _left(labels, begin, pad):
    out = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], begin)], dim=1)
    return out.masked_fill(out == IGNORE, pad)


shift_right = Function(
    "transformer.shift_right",
    reference=_shifted, cases=_labels,
    ask="拿最短的那一句：要预测 labels 的第 0 个词元时，解码器手里已经有了什么？第 1 个呢？",
    mistakes=(
        Mistake("没有错位", lambda labels, begin, pad: labels.masked_fill(labels == IGNORE, pad),
                "它把答案原样交给了解码器：要预测的字，就是刚读进去的那个。",
                "位置 t 的输出要预测 labels[t]。那么输入的第 t 个，最晚可以是谁？"),
        Mistake("错反了方向", _left, "它往左移：位置 t 的输入是 labels[t + 1]，答案提前泄露了。", "写第一个字之前，手里有没有第二个字？"),
        Mistake("−100 还在里面", lambda labels, begin, pad: _shifted(labels, begin, pad, filled=False),
                "它把 −100 当成词元编号交给了嵌入层，那里没有第 −100 行。", "−100 是给损失看的记号。交给嵌入层的编号，可以是哪些数？"),
        Mistake("从末尾转了回来", lambda labels, begin, pad: _shifted(labels, begin, pad, rolled=True),
                "它用 `roll`，第 0 个是从句尾转回来的。", "写第一个字之前，解码器读到的应当是哪个记号？"),
        Mistake("−100 换成了 begin", lambda labels, begin, pad: _shifted(labels, begin, begin), "它把 −100 换成了开头的记号。",
                "句尾的填充，该用哪一个编号？"),
        Mistake("错了两位", lambda labels, begin, pad: _shifted(_shifted(labels, begin, pad), begin, pad), "它往右移了两位。",
                "要预测 labels[1] 时，解码器应当已经看到 labels[0] 了吗？"),
        Mistake("盖掉了第一个", lambda labels, begin, pad: torch.cat([torch.full_like(labels[:, :1], begin), labels.masked_fill(
            labels == IGNORE, pad)[:, 1:]], 1), "它没有移位，只把第 0 个换成了 begin。",
            "labels[0] 在解码器的输入里还找得到吗？它该在第几个？"),
    ),
)


# ---------------------------------------------------------------- 5 编码器–解码器的参数


def _count(V, C, L, crosses=2, tied=False, ends=True, encoder=True):
    decoder = block_parameters(C, 4 * C, cross=crosses == 2)
    return (V * C + L * (block_parameters(C, 4 * C) * encoder + decoder) + (4 * C if ends else 0) + (V if tied else C * V + V))


count_parameters = Function(
    "transformer.count_parameters",
    reference=_count, cases=lambda rng: [(7, 4, 1), (50, 8, 2), (rng.randint(60, 90), 16, 3)],
    ask="从下往上走一遍：字嵌入、编码器每层、解码器每层、末尾的两个 LayerNorm、词表头。哪一处的数对不上？",
    mistakes=(
        Mistake("解码器只算了一个注意力", lambda V, C, L: _count(V, C, L, crosses=1), "它把解码器的一层算得和编码器的一层一样多。",
                "解码器的一层有几个注意力、几个 LayerNorm？"),
        Mistake("当成共享词表头", lambda V, C, L: _count(V, C, L, tied=True), "少了一个 V × C 的矩阵。",
                "`self.head.weight` 和 `self.word.weight` 是同一个张量吗？两个都数了没有？"),
        Mistake("漏了末尾的 LayerNorm", lambda V, C, L: _count(V, C, L, ends=False), "少了 4C 个。",
                "Pre-LN 的直路上没有归一化，最后要补什么？编码器和解码器各补了几个？"),
        Mistake("12C² 的近似", lambda V, C, L: V * C + L * 28 * C * C + C * V,
                "它只算了大头（每层 12C² 与 16C²），偏置和 LayerNorm 都没算。",
                "近似用来估算很好。这里要一个不差：每个线性层还有什么？"),
        Mistake("只有解码器", lambda V, C, L: _count(V, C, L, encoder=False), "它没有算编码器的各层。", "读原文的那一半，也有参数吗？"),
        Mistake("嵌入数了两份", lambda V, C, L: _count(V, C, L) + V * C, "多了一个 V × C。",
                "编码器和解码器各有一张字嵌入吗？看看 `self.word` 有几个。"),
        Mistake("漏了词表头的偏置", lambda V, C, L: _count(V, C, L) - V, "少了 V 个。", "词表头是 `nn.Linear`：除了矩阵，它还有什么？"),
        Mistake("解码器少一个 LayerNorm", lambda V, C, L: _count(V, C, L) - 2 * C * L, "每层少了 2C 个。",
                "解码器的一层有几条残差直路？每条前面各有什么？"),
    ),
)


# ---------------------------------------------------------------- 6 句子加倍


growth = Value(
    "transformer.growth", expected=lambda: [2, 4], form="两个数的列表", rtol=1e-6,
    ask="写出一层的两项：2T(4C² + 2CF) 与 4T²C。把 T 换成 2T，各变成原来的几倍？",
    mistakes=(
        Mistake("都是 2 倍", [2, 2], "它说注意力的运算只加倍。", "QKᵀ 有几行几列？两边都加倍，格子变成几倍？"),
        Mistake("都是 4 倍", [4, 4], "它说线性层也是平方增长。", "线性层对每个词元做同样的事，词元多一倍，事情多几倍？"),
        Mistake("反了", [4, 2], "两个数的次序反了。", "哪一项里有 T²？"),
        Mistake("算成了每个词元", [1, 2], "这是平均到每个词元的倍数。", "题目问的是整句话，还是一个词元？"),
    ),
)


# ---------------------------------------------------------------- 7 读消融


reading = Choice(
    "transformer.reading", right="C", options="ABCD",
    ask="消融一次只该动一样。拿掉前馈的时候，除了「没有前馈」，还有什么也跟着变了？",
    mistakes=(
        Mistake("直接归功于结构", "A", "它把差别全算在「有没有前馈」上。", "两个模型的参数一样多吗？数一数第 11 节的 8C² 去了哪里。"),
        Mistake("以小推大", "B", "它把四层、几百步的结果推到了任何大小。", "换成十层、练一百倍的步数，你量过吗？"),
        Mistake("什么都说不了", "D", "它说有起伏就不能下任何结论。", "起伏有多大，差别有多大？程序打印的那一句是怎样判的？"),
    ),
)
