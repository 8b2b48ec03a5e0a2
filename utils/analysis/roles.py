"""注意力头的角色：一个头在看什么，按精确的定义打分；以及写正文的时候，怎样回看导语。

角色是查询 i 的一个目标集 S(i)：i 是字（不是特殊词元），S(i) 里没有 i 自己，也没有看不见的位置。得分是分给 S(i) 的权重之和，
在 S(i) 不空的 i 上取平均；基线是均匀地看，|S(i)| ÷ 看得见的位置数，在同样的 i 上取平均。
首次使用：attention_visualization。
来源：Clark 等（2019）、Voita 等（2019）按角色给头打分；抄写（归纳头）见 Olsson 等（2022）。
形状里的字母：B 批，N 文档数，R 角色数，L 层数，H 头数，T 词元数，M 正文字数。
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from utils.analysis.reading import eager_attention
from utils.corpus.surface import written_at
from utils.display.plotting import heatmap
from utils.models.attention import causal_mask
from utils.tokenization.tokenizer import check_vocabulary, encode_pair

ROLES = {"previous": "前一个字", "next": "后一个字", "entity": "导语里的同一事实", "same": "别处的同一个字",
         "copy": "抄写（上次后面的字）", "punctuation": "标点", "sink": "[CLS]、[SEP]"}


def fact_spans(intro: str, body: str, facts: str | list[dict]) -> list[tuple[dict, list[int], list[int]]]:
    """导语和正文里写法相同的事实各在哪里。

    参数：intro, body：导语与正文；facts：语料的 facts 列（JSON 或列表）。
    返回：[（事实，它在导语里的起点，它在正文里的起点）]，起点从各段的 0 数起；只有一个字的值（如「2」）太容易碰巧相同，不算。
    """
    facts = json.loads(facts) if isinstance(facts, str) else facts
    found = [(fact, written_at(fact["value"], intro), written_at(fact["value"], body))
             for fact in facts if len(fact["value"]) > 1]
    return [row for row in found if row[1] and row[2]]


def role_targets(doc: dict, tokenizer, max_len: int, causal: bool = False) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """一篇文档里每个角色的目标集。

    参数：doc：有 intro、body、facts；tokenizer：字符分词器；max_len：最多多少词元；causal：True 表示只看得见左边（解码器）。
    返回：（词元编号，长 T；targets，(R, T, T) 布尔，[r, i, j] 为真表示 j 属于 i 的目标集；visible，(T, T) 布尔，看不看得见）。
    角色：previous 是 i−1；next 是 i+1；entity：i 是正文里某事实的第 k 个字，目标是导语里同一事实的第 k 个字；same 是别处的同一个字；
        copy 是「同一个字上一次出现」的后一个位置；punctuation 是全部标点；sink 是 [CLS] 和 [SEP]。
    错误：ValueError：文档放不进 max_len，或分词器不是一字一词元。
    """
    intro, body = doc["intro"], doc["body"]
    ids = encode_pair(tokenizer, intro, body, max_len)["input_ids"]
    chars, T = [None, *intro, None, *body, None], len(ids)                 # None：特殊词元
    if len(chars) != T:
        raise ValueError("角色是按字定义的：请用一个字一个词元的分词器（build_tokenizer 的 \"char\"）。")
    is_char = torch.tensor([c is not None for c in chars])                 # (T,)
    i = torch.arange(T)
    targets = torch.zeros(len(ROLES), T, T, dtype=torch.bool)
    role = dict(zip(ROLES, targets, strict=True))
    role["previous"][i[1:], i[1:] - 1] = True
    role["next"][i[:-1], i[:-1] + 1] = True
    for fact, in_intro, in_body in fact_spans(intro, body, doc["facts"]):
        for k in range(len(fact["value"])):
            for start in in_body:
                role["entity"][len(intro) + 2 + start + k, [1 + s + k for s in in_intro]] = True
    row = torch.tensor([-1 - n if c is None else ord(c) for n, c in enumerate(chars)])
    role["same"] |= row[:, None] == row[None, :]                           # 按字比，不认识的字也分得开
    last: dict[str, int] = {}
    for n, char in enumerate(chars):
        if char is not None:
            if char in last:
                role["copy"][n, last[char] + 1] = True
            last[char] = n
    role["punctuation"][:, [n for n, c in enumerate(chars) if c and unicodedata.category(c)[0] == "P"]] = True
    role["sink"][:, ~is_char] = True
    visible = causal_mask(T) if causal else torch.ones(T, T, dtype=torch.bool)
    return ids, targets & visible & ~torch.eye(T, dtype=torch.bool) & is_char[:, None], visible


@dataclass(frozen=True)
class RoleScores:
    """角色得分。

    属性：
        sums: (N, R, L, H)，每篇里各查询分给目标集的权重之和；uniform: (N, R)，均匀地看是多少；counts: (N, R)，有几个查询。
    """

    sums: torch.Tensor
    uniform: torch.Tensor
    counts: torch.Tensor

    def _total(self) -> torch.Tensor:
        return self.counts.sum(0).clamp_min(1)                             # (R,)

    @property
    def scores(self) -> torch.Tensor:
        """(R, L, H)：平均权重，0 到 1。"""
        return self.sums.sum(0) / self._total()[:, None, None]

    @property
    def baseline(self) -> torch.Tensor:
        """(R,)：均匀地看的平均权重。"""
        return self.uniform.sum(0) / self._total()

    @property
    def error(self) -> torch.Tensor:
        """(R, L, H)：得分的标准误；同一篇里的查询彼此相关，所以按文档算（比值的 delta 法）。"""
        off = self.sums - self.scores * self.counts[:, :, None, None]      # (N, R, L, H)
        n = len(self.sums)
        return (n / max(1, n - 1) * off.square().sum(0)).sqrt() / self._total()[:, None, None]

    @property
    def excess(self) -> torch.Tensor:
        """(R, L, H)：（得分 − 基线）÷（1 − 基线）。0 是均匀地看，1 是只看目标集；各角色之间可比。"""
        base = self.baseline[:, None, None]
        return (self.scores - base) / (1 - base).clamp_min(1e-9)

    def best(self, role: str, k: int = 1) -> list[tuple[int, int]]:
        """这个角色得分最高的 k 个头 [(层，头)]，从高到低。错误：ValueError：没有这个角色，或 k 超出头数。"""
        if role not in ROLES:
            raise ValueError(f"没有叫「{role}」的角色。可以写：{'、'.join(ROLES)}。")
        table = self.scores[list(ROLES).index(role)]                       # (L, H)
        if not 1 <= k <= table.numel():
            raise ValueError(f"k={k} 不行：模型一共 {table.numel()} 个头，k 要在 1 到 {table.numel()} 之间。")
        return [divmod(n, table.size(1)) for n in table.flatten().topk(k).indices.tolist()]


def score_roles(model: nn.Module, tokenizer, docs: Sequence[dict], batch_size: int = 16) -> RoleScores:
    """给模型的每一个头在每一个角色上打分（成批、eager 注意力，模型的状态不变）。

    参数：model：BERT 类模型，config.is_decoder 为真时按因果掩码算；tokenizer：它的字符分词器；
        docs：有 intro、body、facts 的文档（Dataset 或字典的列表）；batch_size：一批几篇。
    返回：RoleScores。错误：ValueError：docs 是空的，或模型与分词器不是一对；其余同 role_targets。
    """
    check_vocabulary(model, tokenizer)
    rows = [role_targets(doc, tokenizer, model.config.max_position_embeddings, model.config.is_decoder) for doc in docs]
    if not rows:
        raise ValueError("一篇文档也没有：请至少给一篇。")
    order = sorted(range(len(rows)), key=lambda n: len(rows[n][0]))        # 长短相近的放一批，少算填充
    sums: dict[int, torch.Tensor] = {}
    with eager_attention(model):
        for begin in range(0, len(order), batch_size):
            chosen = order[begin: begin + batch_size]
            T = max(len(rows[n][0]) for n in chosen)
            ids = torch.tensor([rows[n][0] + [tokenizer.pad_token_id] * (T - len(rows[n][0])) for n in chosen])
            real = (torch.arange(T) < torch.tensor([len(rows[n][0]) for n in chosen])[:, None]).long()
            goal = torch.stack([F.pad(rows[n][1], (0, T - len(rows[n][0])) * 2) for n in chosen])          # (B, R, T, T)
            output = model(input_ids=ids.to(model.device), attention_mask=real.to(model.device), output_attentions=True)
            goal = goal.to(model.device, torch.float32)
            mass = torch.stack([torch.einsum("bhij,brij->brh", w.float(), goal) for w in output.attentions], dim=2)
            sums |= dict(zip(chosen, mass.cpu(), strict=True))             # (R, L, H)
    sizes = [(targets.sum(-1), visible.sum(-1)) for _, targets, visible in rows]                           # (R, T), (T,)
    return RoleScores(torch.stack([sums[n] for n in range(len(rows))]), torch.stack([(s / v).sum(-1) for s, v in sizes]),
                      torch.stack([(s > 0).sum(-1) for s, _ in sizes]))


def role_figure(scores: RoleScores, title: str, roles: Sequence[str] = tuple(ROLES)) -> Figure:
    """角色地图：每个角色一张小图，行是层，列是头，数字是分给目标的权重（百分数），颜色是高出基线的份额（excess）。"""
    L, H = scores.scores.shape[1:]
    columns = min(4, len(roles))
    lines = -(-len(roles) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(9, lines * (1.3 + 0.3 * L)), squeeze=False)
    for ax in axes.flat[len(roles):]:
        ax.axis("off")
    for ax, name in zip(axes.flat, roles, strict=False):
        r = list(ROLES).index(name)
        share = scores.excess[r].clamp_min(0)
        heatmap(share, range(H), range(L), f"{ROLES[name]}\n均匀地看 {scores.baseline[r]:.1%}", ax=ax, vmin=0, vmax=1)
        ax.title.set_size(10)
        ax.tick_params(labelsize=8)
        for (layer, head), value in zip(((a, b) for a in range(L) for b in range(H)), scores.scores[r].flatten(), strict=True):
            ax.text(head, layer, f"{100 * value:.0f}", ha="center", va="center", fontsize=8 if H <= 8 else 6,
                    color="white" if share[layer, head] > 0.6 else "black")
    figure.suptitle(f"{title}：分给目标的权重（%）", fontsize=12)
    figure.supxlabel("头", fontsize=10)
    figure.supylabel("层", fontsize=10)
    return figure


@dataclass(frozen=True)
class LookBack:
    """写正文时回看导语。

    属性：
        tokens: T 个词元；weights: (L, H, M, T)，第 m 行是「写第 m 个正文字」的那个位置（它左边一格）的权重，M 是正文字数。
        facts: [（值，写它的行，它在导语里的列）]。
    """

    tokens: list[str]
    weights: torch.Tensor
    facts: list[tuple[str, list[int], list[int]]]

    def mass(self) -> dict[str, torch.Tensor]:
        """每件事实 f 分给导语里 f 的字的权重，按事实平均：own，写 f 的字时；other，写别的正文字时；各 (L, H)；uniform，标量。

        三者的目标集相同，所以 own 与 other 的差别不是因为那里的字本来就受关注。没有事实时都是 NaN。
        """
        own, other, uniform = [], [], []
        start = len(self.tokens) - 1 - self.weights.size(2)                # 第 0 行看得见 start 个位置
        for _, rows, columns in self.facts:
            rest = [m for m in range(self.weights.size(2)) if m not in set(rows)]
            mass = self.weights[..., columns].sum(-1)                      # (L, H, M)
            own.append(mass[..., rows].mean(-1))
            other.append(mass[..., rest].mean(-1))
            uniform.append(sum(len(columns) / (start + m) for m in rows) / len(rows))
        nan = torch.full(self.weights.shape[:2], float("nan"))
        return {"own": torch.stack(own).mean(0) if own else nan, "other": torch.stack(other).nanmean(0) if other else nan,
                "uniform": torch.tensor(uniform).mean()}


def look_back(model: nn.Module, tokenizer, intro: str, body: str, facts: str | list[dict]) -> LookBack:
    """取出解码器写 body 的每个字时的注意力。解码器看不见右边，整段一次算出的权重与逐字写时的相同。

    参数：model：is_decoder=True 的模型；intro, body：导语和（写出来的）正文；facts：导语的事实，同 fact_spans。
    返回：LookBack。错误：ValueError：模型不是解码器，与分词器不是一对，或放不下。
    """
    check_vocabulary(model, tokenizer)
    if not model.config.is_decoder:
        raise ValueError("这里要看的是逐字写作：请用 is_decoder=True 的模型，例如 load_checkpoint(\"clm\", BertLMHeadModel)。")
    ids = encode_pair(tokenizer, intro, body, model.config.max_position_embeddings)["input_ids"]
    with eager_attention(model):
        layers = model(input_ids=torch.tensor([ids], device=model.device), output_attentions=True).attentions
    begin = len(intro) + 1                                                 # [SEP] 的位置，它写正文第 0 个字
    weights = torch.cat([w.float().cpu() for w in layers])[:, :, begin: begin + len(body)]                 # (L, H, M, T)
    spans = [(fact["value"], [s + k for s in in_body for k in range(len(fact["value"]))],
              [1 + s + k for s in in_intro for k in range(len(fact["value"]))])
             for fact, in_intro, in_body in fact_spans(intro, body, facts)]
    return LookBack(tokenizer.convert_ids_to_tokens(ids), weights, spans)
