"""最小对立对（minimal pairs）：两句话只差一处，一句对，一句不对；模型更喜欢哪一句？哪些头在看那一处的搭配？

句子在 data/minimal_pairs.tsv，为这门课程编写。同一类里的字两两对换（条、本各当一次对的、一次错的），所以只按字频选，
期望就是一半对一半错。首次使用：attention_visualization。
来源：最小对立对的考法见 Warstadt 等（2020，BLiMP），汉语的见 Xiang 等（2021，CLiMP）；伪对数似然见 Salazar 等（2020）。
形状里的字母：P 对数，L 层数，H 头数，T 词元数。
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from utils.analysis.reading import get_attentions
from utils.paths import DATA
from utils.tokenization.tokenizer import IGNORE, check_vocabulary, unknown_characters, unknown_note
from utils.training.losses import logits_at_targets

PAIRS = DATA / "minimal_pairs.tsv"
MARKS = re.compile(r"[{}\[\]]")


@dataclass(frozen=True)
class Pair:
    """一对句子。

    属性：
        kind: 种类；good、bad: 对的与不对的句子，长短相同，只差关键处。
        critical: （起，止），关键处在句中的字的区间；partner: 与它搭配的地方的区间，两句相同。
    """

    kind: str
    good: str
    bad: str
    critical: tuple[int, int]
    partner: tuple[int, int]


def parse_pair(kind: str, marked: str, wrong: str) -> Pair:
    """读一行：marked 里 {…} 是关键处，[…] 是搭配处，wrong 是关键处错的写法。

    错误：ValueError：标记不是各一个，或 wrong 与关键处不等长、或完全相同。
    """
    spans, plain = {}, MARKS.sub("", marked)
    for name, pattern in (("critical", r"\{([^{}\[\]]+)\}"), ("partner", r"\[([^{}\[\]]+)\]")):
        found = list(re.finditer(pattern, marked))
        if len(found) != 1 or len(MARKS.findall(marked)) != 4:
            raise ValueError(f"「{marked}」要有一处 {{关键处}} 和一处 [搭配处]。")
        start = found[0].start(1) - len(MARKS.findall(marked[:found[0].start(1)]))
        spans[name] = (start, start + len(found[0][1]))
    begin, end = spans["critical"]
    if len(wrong) != end - begin or wrong == plain[begin:end]:
        raise ValueError(f"「{marked}」的错误写法「{wrong}」要与关键处等长，而且不同。")
    return Pair(kind, plain, plain[:begin] + wrong + plain[end:], spans["critical"], spans["partner"])


def load_pairs(path: Path = PAIRS) -> list[Pair]:
    """读最小对立对的表（TSV：种类、句子、错的；# 开头的行是说明，第一行是表头）。

    错误：FileNotFoundError：没有这个文件；ValueError：某一行不对，说明里有行号。
    """
    if not path.exists():
        raise FileNotFoundError(f"找不到 {path.name}：请用 git checkout data/minimal_pairs.tsv 恢复。")
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split("\t")
        if not line.strip() or line.startswith("#") or cells[0] == "种类":
            continue
        try:
            pairs.append(parse_pair(*cells))
        except (TypeError, ValueError) as problem:
            raise ValueError(f"{path.name} 第 {number} 行：{problem if len(cells) == 3 else '要有三列，用制表符隔开。'}") from None
    return pairs


def known_pairs(pairs: Sequence[Pair], tokenizer) -> tuple[list[Pair], list[tuple[Pair, str]]]:
    """只留下每个字都在词表里的对。返回：（留下的，[（去掉的，它的生字）]）。"""
    strange = ["".join(unknown_characters(tokenizer, pair.good, pair.bad)) for pair in pairs]
    return ([p for p, s in zip(pairs, strange, strict=True) if not s],
            [(p, s) for p, s in zip(pairs, strange, strict=True) if s])


@torch.no_grad()
def pseudo_log_likelihood(model: nn.Module, tokenizer, sentences: Sequence[str], batch_size: int = 128) -> torch.Tensor:
    """伪对数似然（pseudo-log-likelihood）：每次盖住一个字，log p(这个字 | 其余的字)，整句加起来。

    参数：model：BertForMaskedLM；sentences：句子的列表。返回：(N,)，奈特；只在同样长的句子之间比才有意义。
    错误：ValueError：没有句子，句子里有不在词表里的字，或模型与分词器不是一对。来源：Salazar 等（2020）。
    """
    check_vocabulary(model, tokenizer)
    if not sentences:
        raise ValueError("一句话也没有：请至少给一句。")
    rows, answers, where, owner = [], [], [], []
    for n, sentence in enumerate(sentences):
        ids = tokenizer(sentence)["input_ids"]
        if tokenizer.unk_token_id in ids:
            raise ValueError(f"「{sentence}」里有模型不认识的字，算出的分数没有意义：{unknown_note(tokenizer, sentence)}"
                             "请先用 known_pairs 挑一挑。")
        for at in range(1, len(ids) - 1):                                  # 首尾是 [CLS]、[SEP]
            rows.append([*ids[:at], tokenizer.mask_token_id, *ids[at + 1:]])
            answers.append(ids[at])
            where.append(at)
            owner.append(n)
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))           # 长短相近的放一批
    total, training = torch.zeros(len(sentences), dtype=torch.float64), model.training
    model.eval()
    for begin in range(0, len(order), batch_size):
        chosen = order[begin: begin + batch_size]
        batch = tokenizer.pad({"input_ids": [rows[n] for n in chosen]}, return_tensors="pt").to(model.device)
        labels = torch.full_like(batch["input_ids"], IGNORE)               # (B, T)；词表头很贵，只在盖住的位置算
        labels[torch.arange(len(chosen)), [where[n] for n in chosen]] = torch.tensor([answers[n] for n in chosen], device=model.device)
        logits, gold = logits_at_targets(model, batch, labels, shift=False)                                # (B, V), (B,)
        log_p = -F.cross_entropy(logits.float(), gold, reduction="none")                                   # (B,)
        total.index_add_(0, torch.tensor([owner[n] for n in chosen]), log_p.double().cpu())
    model.train(training)
    return total


def margins(model: nn.Module, tokenizer, pairs: Sequence[Pair]) -> torch.Tensor:
    """(P,)：对的一句的伪对数似然，减去不对的一句的（奈特）。大于 0 就是选对了。"""
    scores = pseudo_log_likelihood(model, tokenizer, [p.good for p in pairs] + [p.bad for p in pairs])
    return scores[:len(pairs)] - scores[len(pairs):]


def frequency_margins(pairs: Sequence[Pair], counts: Mapping[str, int]) -> torch.Tensor:
    """(P,)：只看字频的参照，关键处各字的 log(次数 + 1) 之和，对的减去不对的。counts：字 → 训练集里的次数。"""
    def score(text: str) -> float:
        return sum(math.log(counts.get(c, 0) + 1) for c in text)
    return torch.tensor([score(p.good[slice(*p.critical)]) - score(p.bad[slice(*p.critical)]) for p in pairs])


def wilson(right: float, total: int) -> tuple[float, float, float]:
    """（比例，95% 区间的下端，上端）：威尔逊区间，样本少时也可靠。错误：ValueError：total 不是正数。"""
    if total < 1:
        raise ValueError("一道题也没有，算不出正确率。")
    p, z = right / total, 1.96
    middle, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return p, (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def accuracy(values: torch.Tensor) -> tuple[float, float, float]:
    """margins 的正确率与 95% 区间；恰好为 0 的算半对。"""
    return wilson(float((values > 0).sum()) + 0.5 * float((values == 0).sum()), len(values))


def partner_attention(model: nn.Module, tokenizer, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """关键处的字分给搭配处的权重（关键处有几个字就取平均）。

    返回：（good (P, L, H)，bad (P, L, H)，uniform (P,)）：读对的一句时、读不对的一句时，以及均匀地看时。
    两句的位置全都相同，所以 good 与 bad 的差别只能来自字，不会来自位置。
    """
    def one(sentence: str, pair: Pair) -> torch.Tensor:
        weights = get_attentions(model, tokenizer, sentence).weights       # (L, H, T, T)，第 0 个词元是 [CLS]
        (a, b), (c, d) = pair.critical, pair.partner
        return weights[:, :, 1 + a: 1 + b, 1 + c: 1 + d].sum(-1).mean(-1)  # (L, H)

    good, bad = (torch.stack([one(getattr(p, side), p) for p in pairs]) for side in ("good", "bad"))
    return good, bad, torch.tensor([(p.partner[1] - p.partner[0]) / (len(p.good) + 2) for p in pairs])


def held_out_head(good: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """挑「最看搭配」的头而不作弊：用一半的对挑，在另一半上量，两半互换再来一次。

    直接报告全部头里的最大值会偏高：头多了，总有一个碰巧高。
    参数：good: (P, L, H)；uniform: (P,)。返回：（每一对上，由另一半挑出的头的权重 − 均匀值 (P,)，两次挑中的头）。
    错误：ValueError：不到 4 对。
    """
    if len(good) < 4:
        raise ValueError(f"只有 {len(good)} 对，分不成两半：至少要 4 对。")
    excess = good - uniform[:, None, None]                                 # (P, L, H)
    half = torch.arange(len(good)) % 4 < 2                                 # 相邻两对字互换，分在同一半
    values, heads = torch.zeros(len(good)), []
    for part in (half, ~half):
        layer, head = divmod(int(excess[~part].mean(0).flatten().argmax()), good.size(2))
        values[part] = excess[part, layer, head]
        heads.append((layer, head))
    return values, heads
