"""结构化的初值：训练之前，先让几个注意力头朝着该看的地方看。

大模型在海量文字里会自己长出「看左邻」的头和「抄写」的头，小模型练几分钟长不出来，所以把起点摆好，余下的照常训练。
每个函数都就地修改模型，只改初值，不冻结任何参数。首次实现：mlm_pretraining。
来源：用结构化的初值代替随机初值的想法见 Trockman 与 Kolter（2023）；归纳头见 Olsson 等（2022）。
"""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel

SHIFTS = (-1, 1, -2, 2)                                   # 第 0 层各头看向的相对位置 δ
OWN, COPIED = "own", "copied"                             # 块的名字：自己是谁；抄来的是谁。其余的块以 δ 为名
BLOCKS = (OWN, COPIED, -1, -2, 1)                         # 从末尾排起；编码器和解码器次序相同，第 0 层才能原样接着用
FOLLOW = ((OWN, -1), (-1, -2))                            # （查询读哪块，键读哪块）：上次轮到我时，后面跟着谁
SAME = ((-1, -1), (1, 1))                                 # 左邻、右邻与我相同的位置


def prepare_heads(model: PreTrainedModel) -> PreTrainedModel:
    """把三步一次做完：set_positions、aim_heads、copy_heads（就地修改）。

    参数：
        model: BertForMaskedLM 或 BertLMHeadModel，至少 2 层。
    返回：
        同一个 model。
    异常：
        ValueError: 少于 2 层，或没有词表头。
    """
    return copy_heads(aim_heads(set_positions(model)))


def renew_top(model: PreTrainedModel, keep: int = 1) -> PreTrainedModel:
    """只留下嵌入和下面 keep 层，再往上的层和词表头的变换都换成新的随机权重，并重新摆好抄写头（就地修改）。

    换一种目标接着练时，底层认得的字和词还用得上，上层为旧目标调好的权重反而要先忘掉，不如重来。
    clm_finetuning 把它与「全部沿用」「从头开始」放在一起量过。

    参数：
        model: BertForMaskedLM 或 BertLMHeadModel，L 层。
        keep: 留下几层，1 到 L − 1。
    返回：
        同一个 model。
    异常：
        ValueError: keep 不在 1 到 L − 1 之间，或 prepare_heads 做不了。
    来源：微调前重新初始化上面几层，见 Zhang 等（2021）；首次实现：clm_finetuning。
    """
    layers = model.config.num_hidden_layers
    if not 1 <= keep < layers:
        raise ValueError(f"keep={keep} 不行：模型有 {layers} 层，留下的层数要在 1 到 {layers - 1} 之间。")
    kept = ("bert.embeddings.", "cls.predictions.bias", "cls.predictions.decoder.",
            *(f"bert.encoder.layer.{i}." for i in range(keep)))
    fresh = prepare_heads(type(model)(model.config)).state_dict()
    model.load_state_dict({name: w for name, w in fresh.items() if not name.startswith(kept)}, strict=False)
    return model


def _sizes(model: PreTrainedModel) -> tuple[int, int, list[int]]:
    """（隐藏维度 D，每个头的维度 d_h，实际用到的 δ）：看邻居的头最多占三分之二；解码器看不见右边，只用左边的。"""
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    visible = [shift for shift in SHIFTS if shift < 0 or not model.config.is_decoder]
    return width, width // heads, visible[:2 * heads // 3]


def _frequencies(count: int) -> torch.Tensor:
    """count 个角频率，从 2 起等比降到 1/2，(count,)；set_positions 与 aim_heads 必须用同一套。"""
    return 2 * 0.25 ** (torch.arange(count) / max(1, count - 1))


def set_positions(model: PreTrainedModel) -> PreTrainedModel:
    """用正弦波给 BERT 的位置嵌入当起点：只写前 d_h 维，其余维度置零，留给字。

    随机的位置嵌入里，相邻的位置毫无关系，模型要花很多步才认得出「左边那个字」；正弦波一开始就把邻近的位置排在一起。
    均方根是 initializer_range 的 3 倍，比字的嵌入强。

    参数：
        model: 带 `bert.embeddings.position_embeddings` 的模型，位置嵌入是 (T, D)。
    返回：
        同一个 model。
    来源：Vaswani 等（2017）的正弦位置编码，频率另选。
    """
    table = model.bert.embeddings.position_embeddings.weight
    _, size, _ = _sizes(model)                                                              # d_h
    angle = torch.arange(len(table))[:, None] * _frequencies(size // 2)                     # (T, d_h/2)
    waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)                      # (T, 2·(d_h/2))
    with torch.no_grad():
        table.zero_()
        table[:, :waves.shape[1]] = waves * model.config.initializer_range * 3 * math.sqrt(2)
    return model


def aim_heads(model: PreTrainedModel, gain: float = 1.5) -> PreTrainedModel:
    """让第 0 层的前几个头一开始就看向邻居（SHIFTS）。须在 set_positions 之后用。

    位置 t 的正弦波是一串 (sin ω_n t, cos ω_n t)。键矩阵照抄它们，查询矩阵先把它们转过角度 ω_n·δ，
    于是 q_i·k_j 里多出一项正比于 Σ_n cos(ω_n (i + δ − j))，它在 j = i + δ 处最大。

    参数：
        model: 带 `bert.encoder` 的模型。
        gain: 写进查询、键矩阵的幅度；越大越专注。
    返回：
        同一个 model。
    """
    attention = model.bert.encoder.layer[0].attention.self
    _, size, shifts = _sizes(model)
    omega = _frequencies(size // 2).to(attention.query.weight.device)                       # (d_h/2,)
    with torch.no_grad():
        for head, shift in enumerate(shifts):
            rows = slice(head * size, head * size + 2 * len(omega))
            sin, cos = torch.sin(omega * shift), torch.cos(omega * shift)
            turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], 1)   # (d_h/2, 2, 2)
            attention.query.weight[rows, :2 * len(omega)] += gain * torch.block_diag(*turn)
            attention.key.weight[rows, :2 * len(omega)] += gain * torch.eye(2 * len(omega), device=omega.device)
    return model


def copy_heads(model: PreTrainedModel, gain: float = 2.0) -> PreTrainedModel:
    """让第 1 层的几个头一开始就会抄写（归纳头）。须在 aim_heads 之后用。

    「这个字前面出现过，那时它后面跟着什么，这回多半也跟着什么」：导语里的人名、数字要抄进正文，靠的就是这样的头。
    隐藏维度的前 d_h 维归位置，从末尾起切成几块，每块 b 维：自己、抄来的，以及配对要用的每个 δ 一块。
    第 0 层看向 δ 的头，把邻居的「自己」搬进 δ 块；第 1 层的头拿查询的一块去配键的一块，搬来对方的「自己」，
    写进「抄来的」；词表头再把它读出来。
    编码器用 SAME 和 FOLLOW 四对：填空靠前者，后者留给以后的 CLM。解码器只用 FOLLOW。
    原来的随机部分留着：这些头只是朝该看的地方偏了一些，看得准不准，由训练决定。

    参数：
        model: BertForMaskedLM 或 BertLMHeadModel，至少 2 层，隐藏维度 D。
        gain: 写进查询、键矩阵的幅度；越大越专注。
    返回：
        同一个 model。
    异常：
        ValueError: 少于 2 层，或没有词表头。
    """
    if not hasattr(model, "cls") or model.config.num_hidden_layers < 2:
        raise ValueError("抄写头要用两层注意力和词表头：请给至少 2 层的 BertForMaskedLM 或 BertLMHeadModel。")
    first, second = (layer.attention for layer in model.bert.encoder.layer[:2])
    width, head_size, shifts = _sizes(model)
    pairs = FOLLOW if model.config.is_decoder else SAME + FOLLOW
    used = {name for pair in pairs for name in pair} & {OWN, *shifts}
    names = [name for name in BLOCKS if name == COPIED or name in used]
    size = min(head_size, (width - head_size) // len(names))                                # b
    block = {name: slice(width - (n + 1) * size, width - n * size) for n, name in enumerate(names)}
    eye = torch.eye(size, device=first.self.query.weight.device)                            # (b, b)

    def rows(head: int) -> slice:
        return slice(head * head_size, head * head_size + size)

    with torch.no_grad():
        for head, shift in enumerate(shifts):
            if shift in block:
                first.self.value.weight[rows(head), block[OWN]] += eye
                first.output.dense.weight[block[shift], rows(head)] += eye
        for head, (query, key) in enumerate(pair for pair in pairs if block.keys() >= set(pair)):
            second.self.query.weight[rows(head), block[query]] += gain * eye
            second.self.key.weight[rows(head), block[key]] += gain * eye
            second.self.value.weight[rows(head), block[OWN]] += eye
            second.output.dense.weight[block[COPIED], rows(head)] += eye
        model.cls.predictions.transform.dense.weight[block[OWN], block[COPIED]] += eye
    return model
