"""从下一个字的分布里挑字：温度、top-k、top-p、min-p、重复惩罚、禁止重复的 n 元组、抽样，以及「怎样挑」的一张设置单。

首次实现：generation。
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


# ---- 改造分布：都是 (B, V) -> (B, V) 的纯函数，不改动传入的张量
def apply_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """温度（temperature）：logits / τ。τ < 1 更尖，τ > 1 更平。

    参数：logits: (B, V)；temperature: τ > 0。返回：（B, V）。
    异常：ValueError: τ 不是正的有限数。
    首次实现：generation。
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"温度 temperature 必须是正数，得到 {temperature}。"
                         "想总是选最可能的字，请用贪心（不设温度）。")
    return logits / temperature


def top_k_filter(logits: torch.Tensor, k: int) -> torch.Tensor:
    """top-k：只留 logit 最大的 k 个，其余变成 −∞；与第 k 名并列的都留下。

    参数：logits: (B, V)；k: 正整数，超过 V 时等于不限。返回：（B, V）。
    异常：ValueError: k < 1。
    来源：Fan 等（2018）；首次实现：generation。
    """
    if k < 1 or k != int(k):
        raise ValueError(f"top_k 必须是正整数，得到 {k}。")
    least = logits.topk(min(int(k), logits.size(-1)), dim=-1).values[..., -1:]     # (B, 1)
    return logits.masked_fill(logits < least, -math.inf)


def top_p_filter(logits: torch.Tensor, p: float) -> torch.Tensor:
    """top-p（核采样，nucleus sampling）：留下概率之和刚达到 p 的最少几个词元，其余变成 −∞。

    参数：logits: (B, V)；p: (0, 1]。返回：（B, V）。概率最大的词元总会留下。
    异常：ValueError: p 不在 (0, 1] 内。
    来源：Holtzman 等（2020）；首次实现：generation。
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p 必须在 (0, 1] 之内，得到 {p}。")
    ordered, index = logits.sort(dim=-1)                                           # 从小到大
    tail = ordered.softmax(-1).cumsum(-1) <= 1 - p                                 # 末尾一截，合计不超过 1 - p
    tail[..., -1] = False
    return logits.masked_fill(torch.zeros_like(tail).scatter(-1, index, tail), -math.inf)


def min_p_filter(logits: torch.Tensor, m: float) -> torch.Tensor:
    """min-p：只留概率不小于「最大概率 × m」的词元，其余变成 −∞。

    参数：logits: (B, V)；m: [0, 1]，0 表示不限。返回：（B, V）。概率最大的词元总会留下。
    异常：ValueError: m 不在 [0, 1] 内。
    来源：Nguyen 等（2025）；首次实现：generation。
    """
    if not 0 <= m <= 1:
        raise ValueError(f"min_p 必须在 [0, 1] 之内，得到 {m}。")
    p = logits.softmax(-1)
    return logits.masked_fill(p < m * p.amax(-1, keepdim=True), -math.inf)


def no_repeat_ngram(logits: torch.Tensor, ids: torch.Tensor, n: int) -> torch.Tensor:
    """禁止重复的 n 元组（no-repeat n-gram）：会凑成一个已经出现过的 n 元组的词元，变成 −∞。

    参数：logits: (B, V)；ids: (B, T) 已有的词元（提示里的也算）；n: 几个词元一组，正整数。
    返回：（B, V）。异常：ValueError: n 不是正整数。
    来源：Paulus 等（2018）；首次实现：generation。
    """
    if n < 1 or n != int(n):
        raise ValueError(f"no_repeat_ngram 必须是正整数，得到 {n}。")
    if ids.size(1) < n:
        return logits
    windows = ids.unfold(1, int(n), 1)                                             # (B, T-n+1, n)：全部 n 元组
    last = ids[:, ids.size(1) - n + 1:]                                            # (B, n-1)：刚写的 n-1 个
    row, place = (windows[..., :-1] == last[:, None]).all(-1).nonzero(as_tuple=True)
    logits = logits.clone()
    logits[row, windows[row, place, -1]] = -math.inf
    return logits


def repetition_penalty(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """重复惩罚：已经出现过的词元，正的 logit 除以 penalty，负的乘以 penalty。

    参数：logits: (B, V)；seen: (B, V) 布尔，True 表示出现过（提示里的也算）；penalty: > 0,1 表示不惩罚。
    返回：（B, V）。异常：ValueError: penalty 不是正数。
    来源：Keskar 等（2019）；首次实现：generation。
    """
    if not 0 < penalty < math.inf:
        raise ValueError(f"重复惩罚 repetition_penalty 必须是正数，得到 {penalty}。")
    lowered = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, lowered, logits)


def sample_next(logits: torch.Tensor, u: torch.Tensor | None = None) -> torch.Tensor:
    """按概率抽一个词元：把 [0, 1) 按概率分成 V 段，随机数 u 落在哪一段就选哪一个（逆变换抽样）。

    参数：logits: (B, V)；u: (B,) 的均匀随机数，None 时当场抽。返回：（B，） 词元编号。
    首次实现：generation。
    """
    if u is None:
        u = torch.rand(logits.size(0), dtype=torch.float64)
    # 在 CPU 上用双精度累加：结果不随设备而变（mps 也没有双精度）
    edges = logits.detach().float().cpu().double().softmax(-1).cumsum(-1)          # (B, V)
    point = u.cpu().double()[:, None] * edges[:, -1:]                              # (B, 1)
    chosen = (edges <= point).sum(-1)                                              # (B,) 概率为 0 的选不中
    return chosen.to(logits.device)


@dataclass(frozen=True)
class Decoding:
    """怎样挑字。

    属性：
        strategy: "greedy" 贪心、"sample" 抽样、"beam" 束搜索；
            None 时，设了温度、top_k、top_p、min_p 或种子就是抽样，否则是贪心。
        temperature: 温度 τ > 0；top_k: 只留前 k 个；top_p: 只留累计概率 p；min_p: 只留不小于「最大概率 × min_p」的；
            都只用于抽样，None 表示不用。
        repetition_penalty: 重复惩罚，1 表示不用；no_repeat_ngram: 不许重复几个词元的组，None 表示不用。
        min_new_tokens: 写够几个词元之前不许写 [SEP]，0 表示随时可以停。
        seed: 随机种子；同一种子、同一行号，抽到的结果不随批的大小而变。
        num_beams, length_penalty: 束宽；分数除以「长度的 length_penalty 次方」。
    异常：
        ValueError: 参数越界，或与策略矛盾。
    """

    strategy: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram: int | None = None
    min_new_tokens: int = 0
    seed: int | None = None
    num_beams: int = 4
    length_penalty: float = 1.0

    def __post_init__(self):
        sampling = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "min_p", "seed")}
        given = [name for name, value in sampling.items() if value is not None]
        if self.strategy is None:
            object.__setattr__(self, "strategy", "sample" if given else "greedy")
        if self.strategy not in ("greedy", "sample", "beam"):
            raise ValueError(f"不认识的策略「{self.strategy}」。"
                             "可用的有：greedy（贪心）、sample（抽样）、beam（束搜索）。")
        if self.strategy != "sample" and given:
            raise ValueError(f"{'、'.join(given)} 只在抽样时有用，而策略是 {self.strategy}。"
                             "请写 strategy=\"sample\"。")
        if self.strategy == "beam" and (self.num_beams < 1 or self.num_beams != int(self.num_beams)):
            raise ValueError(f"束宽 num_beams 必须是正整数，得到 {self.num_beams}。")
        if self.min_new_tokens < 0 or self.min_new_tokens != int(self.min_new_tokens):
            raise ValueError(f"min_new_tokens 必须是 0 或正整数，得到 {self.min_new_tokens}。")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"长度惩罚 length_penalty 必须是有限的数，得到 {self.length_penalty}。")
        probe = torch.zeros(1, 2)                                                  # 越界的参数现在就报错
        self.filter(self.curb(probe, probe > 0, probe.long()))

    def curb(self, logits: torch.Tensor, seen: torch.Tensor | None, ids: torch.Tensor | None) -> torch.Tensor:
        """依次做重复惩罚、禁止重复的 n 元组（次序与 transformers 相同）；参数同那两个函数。（B, V） -> (B, V)。"""
        if self.repetition_penalty != 1:
            logits = repetition_penalty(logits, seen, self.repetition_penalty)
        return logits if self.no_repeat_ngram is None else no_repeat_ngram(logits, ids, self.no_repeat_ngram)

    def filter(self, logits: torch.Tensor) -> torch.Tensor:
        """依次做温度、top-k、top-p、min-p（次序与 transformers 相同）。（B, V） -> (B, V)。"""
        if self.temperature is not None:
            logits = apply_temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k_filter(logits, self.top_k)
        if self.top_p is not None:
            logits = top_p_filter(logits, self.top_p)
        return logits if self.min_p is None else min_p_filter(logits, self.min_p)

    def noise(self, rows: int, steps: int) -> torch.Tensor | None:
        """每行一串均匀随机数 （rows, steps），行与行互不相干；不抽样时是 None。"""
        if self.strategy != "sample":
            return None
        seed = int(torch.randint(2**31, ())) if self.seed is None else self.seed
        streams = [torch.Generator().manual_seed(seed * 1_000_003 + row) for row in range(rows)]
        return torch.stack([torch.rand(steps, generator=g, dtype=torch.float64) for g in streams])
