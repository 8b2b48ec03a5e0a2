"""照抄层：找到写手身上专管照抄的那个头，在它下面插一层，替它看懂上下文。

附带的 clm 抄错的字集中在固定的几处（08 第 12 节）。照抄全靠一个头，它在层 1，只读过一层上下文，往往还分不清该抄谁；
再往上的层看得懂，可是到了那里，字本身已经认不出了（各层的状态越来越像「下一个字是什么」）。所以新层插在那个头的下面：
字还认得出，又多看懂一层。新层起点几乎是恒等映射；先教它把那个头的注意力引到该抄的字上（有监督的对齐，Garg 等，2019），
写字的本事是那个头本来就有的；然后把全部损失合在一起练，最后连上面的层一起稍稍练一会儿；标准答案是下一个字的真分布
（utils/analysis/practice.py）。怎么练见 tools/checkpoints/copy_training.py。
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertLMHeadModel

from utils.analysis.practice import Batch, Exercise
from utils.analysis.reading import eager_attention

WEIGHTS = {"certain": 1.0, "open": 1.0, "copy": 0.5, "rest": 0.3, "prompt": 2.0}      # 各项损失的权重
LAST = WEIGHTS | {"copy": 0.2, "rest": 0.05}              # 最后一步的：引路已经学会，主要看写得对不对
SAME = 60.0                                               # 只教引路的时候，新层的输出与输入要像到什么程度


def copying_head(model: BertLMHeadModel, exercises: Sequence[Exercise], only: int | None = None) -> tuple[int, int]:
    """照抄靠哪个头：要抄一个字时，注意力落在前文那个字上最多的（层，头），从 0 数起；给了 only，就只在这一层里找。"""
    total = torch.zeros(model.config.num_hidden_layers, model.config.num_attention_heads)
    with eager_attention(model):
        for one in exercises:
            attention = torch.cat(model(torch.tensor([one.ids], device=model.device), output_attentions=True).attentions)    # (L, H, T, T)
            for at, found in one.sources:
                total += attention[:, :, at, found].sum(-1).cpu()
    if only is not None:
        total[torch.arange(len(total)) != only] = -1.0
    layer, head = divmod(int(total.argmax()), model.config.num_attention_heads)
    return layer, head


def grow(model: BertLMHeadModel, ids: torch.Tensor, pad: int, at: int) -> BertLMHeadModel:
    """插进一层，起点几乎是恒等映射：写出来的分布与原来差不多。

    两个残差支路的输出压到二十分之一；LayerNorm 的缩放和平移，设成这里的输入原来的标准差和均值，标准化之后就又回到原处。
    只有 [CLS] 例外（见 _restore_first）。

    参数：
        model: L 层的解码器。
        ids: (B, T)，几篇文档，用来量这里的输入；补的是 pad。
        pad: [PAD] 的编号。
        at: 新层是第几层，从 0 数起；0 到 L。
    返回：
        L + 1 层的新模型，在 CPU 上，评估模式。
    异常：
        ValueError: at 不在 0 到 L 之间。
    """
    depth = model.config.num_hidden_layers
    if not 0 <= at <= depth:
        raise ValueError(f"模型有 {depth} 层，新层可以是第 0 层到第 {depth} 层，得到的是 {at}。")
    grown = BertLMHeadModel(type(model.config)(**(model.config.to_dict() | {"num_hidden_layers": depth + 1}))).eval()
    grown.loss_type = "ForCausalLM"
    layers = list(grown.bert.encoder.layer)
    new = layers.pop(at)
    for mine, theirs in zip([grown.bert.embeddings, *layers, grown.cls], [model.bert.embeddings, *model.bert.encoder.layer, model.cls],
                            strict=True):
        mine.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        states = model.bert(ids, attention_mask=(ids != pad).long(), use_cache=False, output_hidden_states=True).hidden_states[at]
        first, others = states[0, 0], states[:, 1:][ids[:, 1:] != pad]                        # (D,), (N, D)
        mean, spread = others.mean(), others.std(-1, unbiased=False).mean()
        for part in (new.attention.output, new.output):
            part.dense.weight.mul_(0.05)
            part.LayerNorm.weight.fill_(spread)
            part.LayerNorm.bias.fill_(mean)
        for part in (new.attention.self.query, new.attention.self.key, new.attention.self.value, new.intermediate.dense):
            nn.init.normal_(part.weight, std=0.5 * model.config.hidden_size ** -0.5 / spread.item())       # 乘出来的标准差约 0.5
        _restore_first(new, first, others, mean, spread)
    return grown


def _restore_first(new: nn.Module, first: torch.Tensor, others: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> None:
    """让新层把 [CLS] 也原样放过去。

    [CLS] 只看得见自己，所以状态总是同一个；许多头不看别处的时候就看它，它的标准差只有别人的几分之一，标准化会把它放大好几倍，
    上面的层就全乱了。办法：前馈层里留一个神经元，只认 [CLS]；认出来了，就往两维「垃圾维」里灌很大的数，一正一负，标准化之后
    别的维自然变小，小到恰好回到原来的值。垃圾维选本来就几乎不变的两维，LayerNorm 在那里只输出它们的均值。

    参数：
        new: 新层。
        first: (D,)，[CLS] 的状态；others: (N, D)，别的词元的状态。
        mean, spread: others 的均值、标准差。
    """
    center, width = others.mean(0), len(first)
    spare = (others.var(0) + 10 * (first - center) ** 2).argsort()[:2]                        # 两维垃圾维
    target = (first - mean) / spread                                                          # 标准化之后应有的值
    target[spare] = 0.0
    half, room = -target.sum() / 2, width - target.square().sum()                             # 和要是 0，平方和要是 D
    if room / 2 <= half ** 2:
        return                                                                                # 它并不小，照常标准化就好
    gap = (room / 2 - half ** 2).sqrt()
    target[spare[0]], target[spare[1]] = half + gap, half - gap
    new.output.LayerNorm.weight[spare] = 0.0
    new.output.LayerNorm.bias[spare] = center[spare]

    def before_mlp(states: torch.Tensor) -> torch.Tensor:
        return new.attention.output.LayerNorm(states + new.attention.output.dense.bias)       # 注意力支路很小，略去

    mine = new.attention(first[None, None])[0][0, 0]                                          # (D,)，只有它自己，注意力支路照实算
    closest = (F.normalize(before_mlp(others), dim=-1) @ F.normalize(mine, dim=-1)).max()     # 别的词元与它最像的有多像
    sharp = 20 / (1 - closest)
    new.intermediate.dense.weight[0] = sharp * mine / mine.square().sum()
    new.intermediate.dense.bias[0] = -sharp * (1 + closest) / 2                               # [CLS] 得 10，别的不超过 −10
    new.output.dense.weight[:, 0] = 0.0
    rest = new.output.dense(new.intermediate(mine)) + mine
    new.output.dense.weight[:, 0] = (target * spread - rest) / new.intermediate(mine)[0]


class CopyLayer(nn.Module):
    """要练的是新层和输出头里的变换；原有的层都冻住，新层上面的照样让梯度流过。

    参数：
        model: 解码器（就地更新），新层已经插好。
        at: 新层是第几层，从 0 数起；照抄的头在它上面紧挨着的一层。
        head: 照抄的头。
        half: 矩阵乘法用 bf16。
        fresh: 新层刚插进去，还没有练过；导语要写得与没有它时一样。不然，就与现在一样。
    """

    def __init__(self, model: BertLMHeadModel, at: int, head: int, half: bool, fresh: bool = True):
        super().__init__()
        self.model, self.half, self.pad = model.requires_grad_(False), half, model.config.pad_token_id
        layers = model.bert.encoder.layer
        self.new, self.above = layers[at], layers[at + 1:]
        self.before = copy.deepcopy(model).to(torch.bfloat16 if half else torch.float32)      # 出发时的样子
        self.below, self.then = self.before.bert.encoder.layer[:at], self.before.bert.encoder.layer[at + fresh:]
        self.weights = WEIGHTS
        size = self.above[0].attention.self.attention_head_size
        self.head = slice(head * size, (head + 1) * size)
        for part in (self.new, model.cls.predictions.transform):
            part.requires_grad_(True)
        model.cls.predictions.bias.requires_grad_(True)

    def thaw(self) -> None:
        """最后一步：新层上面的层也放开来练；词嵌入和下面的层仍旧冻住。"""
        self.above.requires_grad_(True)
        self.weights = LAST

    def trained(self) -> list[nn.Parameter]:
        """要练的参数。"""
        return [p for p in self.model.parameters() if p.requires_grad]

    def bottom(self, ids: torch.Tensor) -> torch.Tensor:
        """新层的输入，(B, T) → (B, T, D)。"""
        with torch.no_grad():
            return through(self.below, self.before.bert.embeddings(ids))

    def mixed(self) -> torch.autocast:
        """矩阵乘法用 bf16 的范围。"""
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.half)

    def sameness(self, ids: torch.Tensor, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """新层改动了多少：改动的平方 ÷ 原来的平方，各词元平均。[CLS] 许多头都看，算十个。"""
        weight = (ids != self.pad).float()
        weight[:, 0] = 10.0
        return ((new - old).square().sum(-1) / old.square().sum(-1) * weight).sum() / weight.sum()

    def identity(self, batch: Batch) -> torch.Tensor:
        """第一步：新层先学会什么也不做。"""
        old = self.bottom(batch.ids).float()
        return 100 * self.sameness(batch.ids, old, self.new(old))

    def routing(self, batch: Batch) -> torch.Tensor:
        """第二步：只教引路，不用过上面的层，快得多。"""
        old = self.bottom(batch.ids).float()
        with self.mixed():
            new = self.new(old)
        parts = self.attention_losses(batch, old, new.float())
        return sum(self.weights[name] * loss for name, loss in parts.items()) + SAME * self.sameness(batch.ids, old, new.float())

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """后两步：算一批的全部损失。

        返回：
            （加权之后的损失，每篇；{各项的名字：每篇的奈特数}；定了的各位置上的 −log p (N,)）。
        """
        row, column = batch.prompt.unbind(-1)
        old = self.bottom(batch.ids)                                                          # (B, T, D)
        with torch.no_grad():
            prompt = through(self.then, old[:int(row.max()) + 1])[row, column]             # (K, D)
            before = self.before.cls(prompt).float().log_softmax(-1)                          # (K, V)
        with self.mixed():
            new = self.new(old.float())
            top = through(self.above, new)                                                    # (B, T, D)
            flat = top.flatten(0, 1)                                                          # (B·T, D)
            places, which = batch.open[:, 0].unique(return_inverse=True)
            certain = F.cross_entropy(self.model.cls(flat[batch.certain[:, 0]]).float(), batch.certain[:, 1], reduction="none")   # (N,)
            choices = self.model.cls(flat[places]).float().log_softmax(-1)[which, batch.open[:, 1]]                       # (M,)
            after = self.model.cls(top[row, column]).float().log_softmax(-1)
        n = len(batch.ids)
        parts = {"certain": (certain * batch.certain_weight).sum() / n, "open": (batch.open_p * (batch.open_p.log() - choices)).sum() / n,
                 "prompt": F.kl_div(after, before, reduction="sum", log_target=True) / n}
        parts |= self.attention_losses(batch, old.float(), new.float())
        return sum(self.weights[name] * loss for name, loss in parts.items()), parts, certain

    def attention_losses(self, batch: Batch, old: torch.Tensor, new: torch.Tensor) -> dict[str, torch.Tensor]:
        """照抄的头看得对不对，每篇的奈特数。

        参数：
            old, new: (B, T, D)，新层的输入和输出。
        返回：
            copy：要抄的时候，−log（落在该看的位置上的注意力）；rest：不抄的时候，与没有新层时的注意力的 KL 散度。
        """
        log_p = self.attention(new)                                                           # (B, T, T)
        row, at = batch.asks.unbind(-1)
        hits = log_p[row, at].masked_fill(~batch.sources, float("-inf")).logsumexp(-1)        # (G,)
        other = batch.ids != self.pad
        other[row, at] = False
        with torch.no_grad():
            usual = self.attention(old)
        moved = (usual.exp() * (usual - log_p).nan_to_num(0.0)).sum(-1)[other]                # 未来的位置是 −∞ − (−∞)，算 0
        return {"copy": -hits.sum() / len(batch.ids), "rest": moved.sum() / len(batch.ids)}

    def attention(self, states: torch.Tensor) -> torch.Tensor:
        """照抄的头的注意力，取对数；states: (B, T, D)，那一层的输入。返回 (B, T, T)，看不见的是 −∞。"""
        part = self.above[0].attention.self
        query = F.linear(states, part.query.weight[self.head], part.query.bias[self.head])                    # (B, T, d)
        key = F.linear(states, part.key.weight[self.head], part.key.bias[self.head])                          # (B, T, d)
        scores = query @ key.transpose(1, 2) * part.scaling                                                   # (B, T, T)
        future = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(future, float("-inf")).log_softmax(-1)


def through(layers: nn.ModuleList, states: torch.Tensor) -> torch.Tensor:
    """依次过几层，(B, T, D) → (B, T, D)；没有给掩码，解码器的注意力自己只看左边。"""
    for layer in layers:
        states = layer(states)
    return states
