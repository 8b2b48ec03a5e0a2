"""clm_finetuning 的练习。"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertLMHeadModel
from transformers.utils import logging

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.inputs import integers, normal
from utils.checks.leaky_models import MODELS
from utils.tokenization.tokenizer import IGNORE

# ---------------------------------------------------------------- 1 一行怎样排


def _documents(rng: random.Random) -> list[tuple]:
    return [([rng.randint(5, 90) for _ in range(n)], [rng.randint(5, 90) for _ in range(m)], 2, 3)
            for n, m in [(1, 2), (2, 3), (5, 9), (8, 4)]]


def _row(learn_from=0, shift=0, learn_end=True):
    """learn_from：从正文开头往后挪几个才开始记标签；shift：标签自己先错几位。"""
    def make_row(intro, body, cls, sep):
        ids, start = [cls, *intro, sep, *body, sep], len(intro) + 2 + learn_from
        labels = [IGNORE] * start + ids[start:]
        if not learn_end:
            labels[-1] = IGNORE
        return ids, (labels[shift:] + [IGNORE] * shift if shift else labels)

    return make_row


def _all_labels(intro, body, cls, sep):
    ids, _ = _row()(intro, body, cls, sep)
    return ids, list(ids)


def _only_body(intro, body, cls, sep):
    return [cls, *intro, sep], [*body, sep]


make_row = Function(
    "clm_finetuning.make_row",
    reference=_row(), cases=_documents,
    ask="把最短的反例写成两行，上面是输入，下面是标签，一格一格对齐。每一格的标签，该记还是不该记？",
    mistakes=(
        Mistake("提示也记了标签", _all_labels, "导语也有标签，模型还要学着写导语。", "用的时候，导语是你给的还是模型写的？"),
        Mistake("自己先错了一位", _row(shift=1), "标签先左移了一位，交给模型以后还会再移一位。",
                "模型内部已经把标签错开一位。再加上你这一位，位置 t 学的是第几个词元？"),
        Mistake("中间的 [SEP] 也记了", _row(learn_from=-1), "隔开导语和正文的 [SEP] 也记了标签。",
                "这个 [SEP] 是提示的末尾，还是正文的开头？用的时候由谁写？"),
        Mistake("正文第一个字没记", _row(learn_from=1), "正文的第一个词元也记成了 −100，模型没学过怎样开头。",
                "提示一共几个词元？[CLS]、导语、[SEP] 都数了吗？"),
        Mistake("没有学结尾", _row(learn_end=False), "末尾的 [SEP] 没有标签，模型学不到什么时候该停。",
                "生成时靠什么停下来？它在训练里是不是一道题？"),
        Mistake("拆成了两条序列", _only_body, "输入只有导语，标签只有正文：两条序列各走各的。",
                "模型写正文的第五个字时，看得见前四个字吗？这就是第 4 节的错误配方。"),
        Mistake("用 0 代替了 −100", lambda intro, body, cls, sep: (
            [cls, *intro, sep, *body, sep], [0] * (len(intro) + 2) + [*body, sep]), "提示的标签写成了 0，模型会去学写第 0 号词元。",
                "0 是不是一个词元的编号？库用哪一个数表示「不算」？"),
        Mistake("学反了", lambda intro, body, cls, sep: (
            [cls, *intro, sep, *body, sep], [cls, *intro, sep] + [IGNORE] * (len(body) + 1)), "有标签的是提示，正文反而不算。",
                "用的时候，哪一半是你给的，哪一半要它写？"),
        Mistake("少了结尾的 [SEP]", lambda intro, body, cls, sep: (
            [cls, *intro, sep, *body], [IGNORE] * (len(intro) + 2) + [*body]), "输入的末尾没有 [SEP]，标签里也没有。",
                "模型怎样告诉你「写完了」？训练里见过这个记号吗？"),
        Mistake("只给正文排了标签", lambda intro, body, cls, sep: ([cls, *intro, sep, *body, sep], [*body, sep]),
                "标签比输入短：提示那一段没有占位。",
                "第 t 个输入配第 t 个标签。不算的位置，该放什么？"),
    ),
)


# ---------------------------------------------------------------- 2 损失


def _batch(rng: random.Random) -> list[tuple]:
    cases = []
    for B, T, V in [(1, 4, 5), (2, 6, 7), (3, 9, 12)]:
        labels = integers(rng, V, B, T)
        labels[0, -1] = 0                                 # 编号 0 也是一个词元
        labels[:, :T // 2] = IGNORE
        if B > 1:
            labels[1:, T - 1:] = IGNORE                   # 填充
        cases.append((normal(rng, B, T, V, scale=2), labels))
    return cases


def _loss(logits, labels, shift=1, reduction="mean"):
    scores, target = (logits[:, :-shift], labels[:, shift:]) if shift else (logits, labels)
    return F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction=reduction)


body_loss = Function(
    "clm_finetuning.body_loss",
    reference=lambda logits, labels: _loss(logits, labels), cases=_batch,
    ask="数一数：错开之后，有几个位置的标签不是 −100？你平均了几项？",
    mistakes=(
        Mistake("没有错位", lambda logits, labels: _loss(logits, labels, 0), "它拿位置 t 的 logits 去对第 t 个标签，考的是照抄。",
                "位置 t 的 logits 是看过 x_t 以后给出的。它在猜谁？"),
        Mistake("错了两位", lambda logits, labels: _loss(logits, labels, 2), "它拿位置 t 的 logits 去对 t+2 的标签，隔着一个字猜。",
                "你的代码里，错位一共做了几次？"),
        Mistake("−100 也算了", lambda logits, labels: _loss(logits, labels.clamp(min=0)),
                "提示和填充的位置也算了损失，−100 被当成了第 0 个词元。", "−100 的意思是什么？这些位置该出现在平均里吗？"),
        Mistake("除以了全部位置", lambda logits, labels: _loss(logits, labels, 1, "sum") / labels[:, 1:].numel(),
                "总和只加了正文，平均时却除以了全部位置：导语越长，损失看着越小。", "分子加了几项？导语长一倍，你的损失会变吗，该变吗？"),
        Mistake("错位方向反了", lambda logits, labels: F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten()),
                "它拿位置 t 的 logits 去对第 t−1 个标签。", "从左往右写，位置 t 看过了谁，该猜谁？"),
        Mistake("没有取对数", lambda logits, labels: -logits[:, :-1][labels[:, 1:] != IGNORE].softmax(-1).gather(
            -1, labels[:, 1:][labels[:, 1:] != IGNORE][:, None]).mean(), "它平均的是概率，不是对数概率。",
            "概率从 0.01 降到 0.001，你的损失几乎不变；公式里的呢？"),
        Mistake("没有取平均", lambda logits, labels: _loss(logits, labels, 1, "sum"), "它把各个目标的损失加了起来。",
                "正文长一倍，这个数会怎样？"),
        Mistake("先按篇平均", lambda logits, labels: torch.stack([_loss(x[None], y[None]) for x, y in zip(logits, labels,
                strict=True)]).mean(),
                "它先算每一篇的平均，再把各篇平均：短的一篇和长的一篇一样重。",
                "题目说「每个目标平均」。正文只有一个字的一篇，分量该和别的一样吗？"),
        Mistake("第 0 号词元也丢了", lambda logits, labels: _loss(logits, labels.masked_fill(labels <= 0, IGNORE)),
                "它只算编号大于 0 的标签。", "哪一个数表示「不算」？0 是不是一个词元的编号？"),
        Mistake("−100 当成了倒数第几个", lambda logits, labels: _loss(logits, torch.where(labels == IGNORE, IGNORE % logits.size(-1),
                labels)),
                "负的标签被当成「从词表末尾往回数」，提示和填充也算了损失。", "负的下标不会报错。取概率之前，该先把哪些位置拿掉？"),
    ),
)


# ---------------------------------------------------------------- 3 偷看


def _models(rng: random.Random) -> list[tuple]:
    cases = []
    for forward in MODELS:
        T = rng.randint(8, 12)
        ids = integers(rng, 49, 1, T, low=1)              # 换成 0、换成 50 − x，都是真的换了
        ids[0, -1] = 49
        cases.append((forward, ids, rng.randint(2, T - 5)))
    return cases


def _peek(changed, compared):
    def sees_future(forward, ids, k):
        other = ids.clone()
        part = changed(k)
        other[:, part] = (other[:, part] + 1) % 50
        part = compared(k)
        return not torch.allclose(forward(ids)[:, part], forward(other)[:, part], atol=1e-5)

    return sees_future


def _no_copy(forward, ids, k):
    other = ids
    other[:, k + 1:] = (other[:, k + 1:] + 1) % 50
    return not torch.allclose(forward(ids)[:, :k + 1], forward(other)[:, :k + 1])


sees_future = Function(
    "clm_finetuning.sees_future",
    reference=_peek(lambda k: slice(k + 1, None), lambda k: slice(0, k + 1)), cases=_models,
    ask="「改动未来，看过去」：改的是哪些位置，比的是哪些位置？在纸上标出来。",
    mistakes=(
        Mistake("把未来也比了", _peek(lambda k: slice(k + 1, None), lambda k: slice(None)), "它连改动过的位置也比了，于是谁都「偷看」。",
                "输入改了的那些位置，logits 跟着变，算不算偷看？"),
        Mistake("改了过去", _peek(lambda k: slice(0, k + 1), lambda k: slice(0, k + 1)),
                "它改的是 k 和以前的词元，过去的 logits 当然会变。",
                "过去的 logits 本来就该看过去的词元。要查偷看，该动哪一边？"),
        Mistake("k 也改了", _peek(lambda k: slice(k, None), lambda k: slice(0, k + 1)),
                "第 k 个词元也被改了，而位置 k 的 logits 本来就看得见它。",
                "位置 k 的 logits 猜的是 k+1。它可以看哪些词元？"),
        Mistake("只改了最后一个", _peek(lambda k: slice(-1, None), lambda k: slice(0, k + 1)),
                "它只改了最后一个词元：只偷看下一个字的模型就漏网了。", "一个只偷看右边一格的模型，你的检查抓得到吗？"),
        Mistake("少比了一个", _peek(lambda k: slice(k + 1, None), lambda k: slice(0, k)),
                "它没有比位置 k：恰好在边界上偷看的模型就漏网了。",
                "位置 k 猜的正是第一个被改动的词元。最该比的是哪个位置？"),
        Mistake("只改了下一个", _peek(lambda k: slice(k + 1, k + 2), lambda k: slice(0, k + 1)),
                "它只改了第 k+1 个词元：偷看得更远的模型就漏网了。", "一个只偷看最后一个字的模型，你的检查抓得到吗？"),
        Mistake("只比了位置 k", _peek(lambda k: slice(k + 1, None), lambda k: slice(k, k + 1)),
                "它只比了位置 k：只有开头的几个位置在偷看的模型就漏网了。", "题目说「k 和以前」。以前的那些，你比了吗？"),
        Mistake("只比了最可能的字", lambda forward, ids, k: bool((forward(torch.cat([ids[:, :k + 1], (ids[:, k + 1:] + 1) % 50], 1))[
            :, :k + 1].argmax(-1) != forward(ids)[:, :k + 1].argmax(-1)).any()),
                "它比的是概率最大的字变没变：logits 只动了一点的，就漏网了。", "偷看了一点点，排第一的字也一定会变吗？该比什么？"),
        Mistake("没有复制", lambda forward, ids, k: _no_copy(forward, ids, k),
                "改过的和没改过的是同一个张量：两次送进模型的一样，谁都抓不到。", "`other = ids` 以后，改 other，ids 变不变？",
                sign=lambda trials: all(t.changed == "ids" and t.actual.value is not None and not t.actual.value for t in trials)),
        Mistake("总说没有偷看", lambda forward, ids, k: bool(k < 0), "不管什么模型，它都说没有偷看。",
                "双向的模型，每个位置都看得见未来。你的检查改动了什么，又比了什么？"),
        Mistake("总说偷看了", lambda forward, ids, k: bool(k >= 0), "不管什么模型，它都说偷看了。",
                "一个根本不看输入的模型，改什么 logits 都不变。你的检查怎么还说它偷看？"),
    ),
)


# ---------------------------------------------------------------- 4 冻结底层


def _tiny(layers: int) -> BertLMHeadModel:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        config = BertConfig(vocab_size=12, hidden_size=4, num_hidden_layers=layers, num_attention_heads=1, intermediate_size=4)
        return BertLMHeadModel(config)
    finally:
        logging.set_verbosity(before)


def _trainable(function, model, n):
    """冻结之后还能练的是哪几块。"""
    function(model, n)
    names = {name.split("layer.")[1].split(".")[0] if "layer." in name else "嵌入" if "embeddings" in name else "输出头"
             for name, p in model.named_parameters() if p.requires_grad}
    frozen = sum(not p.requires_grad for p in model.parameters())
    attributes = "；给模块添了一个叫 requires_grad 的属性" if any("requires_grad" in vars(m) for m in model.modules()) else ""
    left = "、".join(sorted(f"第 {x} 层" if x.isdigit() else x for x in names)) or "没有"
    return f"还在训练的：{left}；冻结了 {frozen} 个张量{attributes}"


def _freeze_weights(model, n):
    for part in [model.bert.embeddings, *model.bert.encoder.layer[:n]]:
        for name, p in part.named_parameters():
            p.requires_grad_("weight" not in name)


def _freeze_the_rest(model, n):
    for part in [*model.bert.encoder.layer[n:], model.cls]:
        part.requires_grad_(False)


def _freeze(embeddings=True, extra=0, top=False, as_attribute=False, whole=False, head=False):
    def freeze_bottom(model, n):
        layers = list(model.bert.encoder.layer)
        parts = [*([model.bert.embeddings] if embeddings else []), *(layers[-n:] if top else layers[:n + extra])]
        parts += [model.cls] if head else []
        for part in [model.bert] if whole else parts:
            if as_attribute:
                part.requires_grad = False
            else:
                part.requires_grad_(False)

    return freeze_bottom


freeze_bottom = Function(
    "clm_finetuning.freeze_bottom",
    reference=_freeze(), cases=lambda rng: [(_tiny(3), 1), (_tiny(4), 2)], observe=_trainable, may_change_input=True,
    ask="冻结以后，打印还在训练的参数的名字：嵌入、各层、输出头，各在不在？",
    mistakes=(
        Mistake("只给模块设了个属性", _freeze(as_attribute=True),
                "`模块.requires_grad = False` 只是给模块添了一个没人看的属性，参数一个也没冻住。",
                "优化器看的是谁的 requires_grad？模块有没有一个方法，能替它的全部参数设好？"),
        Mistake("忘了嵌入", _freeze(embeddings=False), "几层冻住了，嵌入还在训练。", "嵌入在第 0 层的下面还是上面？「底层」包不包括它？"),
        Mistake("多冻了一层", _freeze(extra=1), "它多冻了一层。", "从 0 数起，下面 n 层的编号是几到几？切片的右端算不算在内？"),
        Mistake("冻了上面几层", _freeze(top=True), "它冻住的是靠近输出的几层。", "第 0 层挨着嵌入，还是挨着输出头？"),
        Mistake("整个主体都冻住了", _freeze(whole=True), "主体全冻住了，只剩输出头在训练。", "题目里的 n 起作用了吗？上面几层还要不要学？"),
        Mistake("什么也没有冻住", lambda model, n: [part.eval() for part in (model.bert.embeddings, *model.bert.encoder.layer[:n])],
                "参数的 requires_grad 全都还是真，一个也没冻住。",
                "eval()、no_grad()、复制一份再改，各管的是什么？优化器看的是哪一个模型的 requires_grad？"),
        Mistake("少冻了一层", _freeze(extra=-1), "它少冻了一层。", "下面 n 层，编号从 0 到几？"),
        Mistake("输出头也冻住了", _freeze(head=True), "输出头也冻住了。", "题目要冻的是嵌入和下面几层。输出头在上面还是下面？"),
        Mistake("只冻了 weight", _freeze_weights, "各层的 weight 冻住了，bias 还在训练。", "一层里除了 weight，还有哪些参数？"),
        Mistake("冻反了", _freeze_the_rest, "该练的冻住了，该冻的还在训练。",
                "预训练时，最底下的学到了什么？微调时想保住它，还是想改动它？"),
    ),
)


# ---------------------------------------------------------------- 5、6、7 预测与判断


n_targets = Value(
    "clm_finetuning.n_targets", expected=91, rtol=0, form="一个整数",
    ask="把序列写成 [CLS] 导语 [SEP] 正文 [SEP]，再划掉标签是 −100 的。还剩几个？",
    mistakes=(
        Mistake("忘了结尾的 [SEP]", 90, "它只数了正文的字。", "模型还要学一件事：写完了要停。那是哪个词元？"),
        Mistake("两个 [SEP] 都数了", 92, "它把隔开导语和正文的 [SEP] 也数进去了。", "这个 [SEP] 属于提示还是属于正文？"),
        Mistake("整条都算了", 117, "它数了整条序列的词元。", "提示的标签记成了什么？它们还算不算题？"),
        Mistake("按整条错了一位", 116, "它数的是整条序列错开一位之后的位置。", "错开之后，标签是 −100 的位置还算吗？"),
    ),
)

skips = Choice(
    "clm_finetuning.skips", right="C", ask="你移了一位，模型里面又移一位。位置 t 的标签最后成了第几个词元？",
    mistakes=(
        Mistake("以为模型不再移", "A", "这一项认为自己移过了，模型就不会再移。",
                "第 3 节的输出里，是谁把标签错开了一位？它知道你已经移过吗？"),
        Mistake("以为学成了照抄", "B", "这一项认为两次错位互相抵消。", "两次移的方向相同还是相反？"),
        Mistake("以为会报错", "D", "这一项认为长度或形状会对不上。", "左移之后末尾补了一个 −100，长度变了吗？"),
    ),
)

ignores_intro = Choice(
    "clm_finetuning.ignores_intro", right="B", ask="换错导语，只动了一样东西。损失几乎没变，说明这样东西对模型有没有用？",
    mistakes=(
        Mistake("当成了稳健", "A", "这一项把「不受影响」读成了优点。", "导语说的是另一件事，正文的事实却照样猜得中，可能吗？"),
        Mistake("当成了没学会写", "C", "这一项从对照推出模型什么也没学到。", "损失比一元模型低了许多，这部分是从哪里来的？"),
        Mistake("当成了偷看", "D", "这一项认为损失低，就是看见了未来。", "偷看的检查改动的是什么？这个对照改动的又是什么？"),
    ),
)
