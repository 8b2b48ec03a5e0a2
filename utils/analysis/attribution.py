"""归因（attribution）：模型猜出这个字，是因为看了哪些字？四种说法，和一个动手的检验。

说法：某一层的注意力、各层平均的注意力、注意力滚动（rollout）、梯度 × 输入。检验：把每个字真的遮住，看答案的对数概率掉多少（occlusion）。
首次使用：attention_visualization。
来源：Abnar 与 Zuidema（2020，rollout）；Shrikumar 等（2017，梯度 × 输入）；Zeiler 与 Fergus（2014，遮挡）；
注意力算不算解释，见 Jain 与 Wallace（2019）、Wiegreffe 与 Pinter（2019）。
形状里的字母：L 层数，H 头数，T 词元数，C 模型宽度。
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import nn

from utils.analysis.reading import eager_attention
from utils.analysis.roles import fact_spans
from utils.tokenization.tokenizer import IGNORE, encode_pair
from utils.training.losses import logits_at_targets

METHODS = ("末层注意力", "平均注意力", "rollout", "梯度 × 输入")


def rollout(weights: torch.Tensor, residual: float = 0.5) -> torch.Tensor:
    """注意力滚动：各头取平均，掺进残差，再把各层连乘起来。

    参数：weights: (L, H, T, T)，每行之和是 1，第 0 层在前；residual：残差占多少，0 到 1。
    返回：(T, T)，[i, j] 是顶层位置 i 的信息有多少来自输入 j；每行之和是 1。
    错误：ValueError：形状不对，或 residual 不在 0 到 1 之间。来源：Abnar 与 Zuidema（2020）。
    """
    if weights.dim() != 4 or weights.size(-1) != weights.size(-2):
        raise ValueError(f"weights 应当是 (L, H, T, T)，收到的形状是 {tuple(weights.shape)}。")
    if not 0 <= residual <= 1:
        raise ValueError(f"residual={residual} 不行：它是残差占的份额，要在 0 到 1 之间。")
    flow = eye = torch.eye(weights.size(-1))                               # (T, T)
    for layer in weights:
        flow = ((1 - residual) * layer.mean(0) + residual * eye) @ flow
    return flow


def gradient_x_input(model: nn.Module, ids: torch.Tensor, position: int, target: int) -> torch.Tensor:
    """梯度 × 输入：log p(target) 对每个词元的词嵌入求梯度，再与词嵌入作点积。

    参数：ids: (T,) 词元编号；position：在哪个位置预测；target：答案的编号。
    返回：(T,)，有正有负；是 log p 的一阶估计：把这个词嵌入缩到 0，log p 大约减少这么多。模型的参数和梯度不变。
    """
    embedding = model.get_input_embeddings()(ids[None].to(model.device)).detach().requires_grad_()         # (1, T, C)
    training = model.training
    model.eval()
    with torch.enable_grad():
        log_p = model(inputs_embeds=embedding).logits[0, position].log_softmax(-1)[target]
        gradient, = torch.autograd.grad(log_p, embedding)                  # 只对输入求导，不碰参数的 .grad
    model.train(training)
    return (gradient * embedding.detach()).sum(-1)[0].float().cpu()


@torch.no_grad()
def log_probability(model: nn.Module, ids: torch.Tensor, position: int, target: int, batch_size: int = 64) -> torch.Tensor:
    """ids: (N, T)，返回每一行在 position 处给 target 的对数概率 (N,)，奈特。"""
    parts = []
    for rows in ids.to(model.device).split(batch_size):
        labels = torch.full_like(rows, IGNORE)
        labels[:, position] = target                                       # 词表头很贵，只在这一个位置算
        logits, _ = logits_at_targets(model, {"input_ids": rows}, labels, shift=False)                     # (N, V)
        parts.append(logits.float().log_softmax(-1)[:, target].cpu())
    return torch.cat(parts)


def occlusion(model: nn.Module, ids: torch.Tensor, position: int, target: int, mask_id: int) -> torch.Tensor:
    """遮挡：每次把一个词元换成 [MASK]，答案的对数概率掉了多少（奈特）。

    参数：ids: (T,)；position, target：同 gradient_x_input；mask_id：[MASK] 的编号。
    返回：(T,)，正数表示这个词元帮了忙。已经是 [MASK] 的位置是 0。
    """
    rows = ids.repeat(len(ids), 1)                                         # (T, T)
    rows.fill_diagonal_(mask_id)
    scores = log_probability(model, torch.cat([ids[None], rows]), position, target)
    return scores[0] - scores[1:]


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """斯皮尔曼等级相关（rank correlation），−1 到 1；有一边全相等时没有定义，是 NaN。a、b: (N,)。错误：ValueError：长短不一。"""
    if a.shape != b.shape or a.dim() != 1:
        raise ValueError(f"两边要一样长，收到的形状是 {tuple(a.shape)} 和 {tuple(b.shape)}。")
    if (a == a[0]).all() or (b == b[0]).all():                             # scipy 这时除了给 NaN 还会警告
        return math.nan
    return float(stats.spearmanr(a.numpy(), b.numpy()).statistic)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """（平均，95% 区间的半宽），按 t 分布；NaN 不算，一个数也没有时平均是 NaN，不足两个数时半宽是 NaN。"""
    x = np.array([v for v in values if not math.isnan(v)], dtype=float)
    if len(x) < 2:
        return (float(x[0]) if len(x) else math.nan), math.nan
    return float(x.mean()), float(stats.t.ppf(0.975, len(x) - 1) * stats.sem(x))


@dataclass(frozen=True)
class Question:
    """一道填空题：ids (T,)，position 处已经是 [MASK]；answer 是答案的编号；others (K,) 是参加比较的位置（其余的字）。"""

    ids: torch.Tensor
    position: int
    answer: int
    others: torch.Tensor


def fact_questions(docs: Sequence[dict], tokenizer, max_len: int, n: int) -> list[Question]:
    """在正文里盖住一个字来提问，它属于导语也写了的事实；每篇至多一道，盖事实中间的那个字，答案要在词表里。

    参数：docs：有 intro、body、facts；n：要几道（不够就有几道给几道）。错误：ValueError：一道也出不了。
    """
    found = []
    for doc in docs:
        spans = fact_spans(doc["intro"], doc["body"], doc["facts"])
        if not spans or len(found) >= n:
            continue
        fact, _, in_body = spans[len(found) % len(spans)]                  # 轮着取，各类事实都有
        ids = torch.tensor(encode_pair(tokenizer, doc["intro"], doc["body"], max_len)["input_ids"])
        position = len(doc["intro"]) + 2 + in_body[0] + len(fact["value"]) // 2
        answer = int(ids[position])
        if answer in tokenizer.all_special_ids:                            # 不认识的字，没法考
            continue
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        ids[position] = tokenizer.mask_token_id
        special[position] = True
        found.append(Question(ids, position, answer, (~special).nonzero()[:, 0]))
    if not found:
        raise ValueError("这些文档里没有导语和正文都写了的事实，出不了题：请多给几篇。")
    return found


def attribute(model: nn.Module, question: Question, mask_id: int) -> dict[str, torch.Tensor]:
    """一道题的全部归因，各 (T,)：METHODS 里的四种，和「遮挡」。梯度 × 输入取绝对值（比的是影响大小，遮挡也取绝对值后再比）。"""
    q = question
    with eager_attention(model):
        layers = model(input_ids=q.ids[None].to(model.device), output_attentions=True).attentions
        weights = torch.cat([w.float().cpu() for w in layers])             # (L, H, T, T)
        effect = occlusion(model, q.ids, q.position, q.answer, mask_id)
    scores = (weights[-1].mean(0)[q.position], weights.mean((0, 1))[q.position], rollout(weights)[q.position],
              gradient_x_input(model, q.ids, q.position, q.answer).abs())
    return dict(zip(METHODS, scores, strict=True)) | {"遮挡": effect}


def compare_attributions(model: nn.Module, questions: Sequence[Question], mask_id: int, k: int = 5,
                         seed: int = 0) -> dict[str, dict[str, list[float]]]:
    """每种归因和遮挡比：等级相关；再把它说最要紧的 k 个字一起遮住，看答案掉多少。

    参数：questions：fact_questions 的结果；k：一起遮住几个字；seed：对照组（随便遮 k 个）的种子。
    返回：{方法：{"相关"：每题与「遮挡效果的绝对值」的等级相关，"掉了"：每题遮住前 k 个之后 log p 掉多少奈特}}；
        「遮挡」自己和「随机」只有「掉了」可看，前者的「相关」恒为 1，后者是真的拿随机数去算。
    错误：ValueError：k 不是正整数，或比题里的字还多。
    """
    generator = torch.Generator().manual_seed(seed)
    table = {name: {"相关": [], "掉了": []} for name in (*METHODS, "遮挡", "随机")}
    for q in questions:
        if not 1 <= k <= len(q.others):
            raise ValueError(f"k={k} 不行：这道题有 {len(q.others)} 个字可以遮，k 要在 1 到 {len(q.others)} 之间。")
        scores = attribute(model, q, mask_id) | {"随机": torch.rand(len(q.ids), generator=generator)}
        effect = scores["遮挡"][q.others].abs()
        rows = [q.ids]
        for name in table:
            values = scores[name][q.others]
            table[name]["相关"].append(spearman(values.abs(), effect))
            rows.append(q.ids.clone())
            rows[-1][q.others[values.topk(k).indices]] = mask_id           # 遮挡按有正负的效果排：先遮帮忙最多的
        training = model.training
        model.eval()
        log_p = log_probability(model, torch.stack(rows), q.position, q.answer)
        model.train(training)
        for name, drop in zip(table, (log_p[0] - log_p[1:]).tolist(), strict=True):
            table[name]["掉了"].append(drop)
    return table
