"""给文章打分：损失、多样、重复、相似、守事实。每把尺子的说明里都写着它量不出什么。新不新（抄没抄）在 utils.generation.novelty。

首次实现：generation。每字比特数（BPC）的换算在 utils.tokenization.baselines.bits_per_char（首次实现：tokenization）。
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from utils.corpus.facts import FactReport, check_facts
from utils.tokenization.baselines import bits_per_char


def _ngrams(text: str, n: int) -> list[str]:
    return [text[i: i + n] for i in range(len(text) - n + 1)]


def _check(texts: Sequence[str], n: int = 1) -> None:
    if isinstance(texts, str):
        raise TypeError("这里要的是文章的列表；只有一篇时写成 [文章]。")
    if not len(texts):
        raise ValueError("一篇文章也没有，没法打分。")
    if n < 1:
        raise ValueError(f"n 元组的 n 必须是正整数，得到 {n}。")


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """distinct-n：所有文章的 n 元字组里，不同的占多少。越大越多样。

    参数：texts: 文章的列表；n: 几个字一组。返回：0 到 1；文章都短于 n 时是 0。
    量不出：乱码也很多样；总字数越多它越小，所以只能在字数相近的两批文章之间比。
    来源：Li 等（2016）；首次实现：generation。
    """
    _check(texts, n)
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """重复率：每篇之内，有多少 n 元字组在同一篇前面已经出现过；各篇平均。越大越啰嗦。

    参数：texts: 文章的列表；n: 几个字一组。返回：0 到 1。
    量不出：换个说法重复同一个意思；该重复的（人名、城市）与不该重复的它分不开，所以要和真文章的重复率比。
    首次实现：generation。
    """
    _check(texts, n)
    shares = []
    for text in texts:
        grams = _ngrams(text, n)
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return sum(shares) / len(shares)


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """chrF：与参考文章的字符 n 元组（n = 1 到 6）的 F 值，0 到 100。中文不用先分词。

    参数：texts, references: 等长的列表，一一对应。
    量不出：同一个意思的另一种写法得分低；把比分写错一个字，得分几乎不变。
    来源：Popović（2015），由 sacrebleu 计算；首次使用：generation。
    """
    from sacrebleu.metrics import CHRF

    _check_pairs(texts, references)
    return CHRF().corpus_score(list(texts), [list(references)]).score


def bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """BLEU：与参考文章的 n 元组（n = 1 到 4）的精确率，0 到 100。中文必须按字切（tokenize="zh"）。

    参数：texts, references: 等长的列表，一一对应。
    量不出：与 chrF 相同；它只看精确率，再用长度惩罚补救，对短文很不稳。
    来源：Papineni 等（2002），由 sacrebleu 计算（Post 2018）；首次使用：generation。
    """
    from sacrebleu.metrics import BLEU

    _check_pairs(texts, references)
    return BLEU(tokenize="zh").corpus_score(list(texts), [list(references)]).score


def _check_pairs(texts: Sequence[str], references: Sequence[str]) -> None:
    _check(texts)
    if len(texts) != len(references):
        raise ValueError(f"文章有 {len(texts)} 篇，参考却有 {len(references)} 篇，应当一一对应。")


@dataclass(frozen=True)
class Fidelity:
    """一批正文守事实的情况。

    属性（都是 0 到 1 的比例）：
        faithful: 没写错也没遗漏的文章；contradicted: 至少写错一处的；missing: 至少漏一处的；
        well_formed: 合乎语法模式的。n: 篇数（个）；reports: 逐篇的 FactReport。
    """

    faithful: float
    contradicted: float
    missing: float
    well_formed: float
    n: int
    reports: tuple[FactReport, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """faithful 的 95% 置信区间（Wilson 区间）：（下限， 上限）。比例接近 0 或 1、篇数少的时候也可靠。"""
        z, p, n = 1.96, self.faithful, self.n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def fidelity(intros: Sequence[str], bodies: Sequence[str]) -> Fidelity:
    """忠实度：正文有没有守住导语里的事实，由 check_facts 逐篇核对。

    参数：intros, bodies: 等长的列表；导语须是自带语料的写法。
    量不出：文笔、连贯；导语里没有的事实是不是瞎编；模式之外的写法只能粗查。千篇一律的文章也能得满分。
    首次实现：generation。
    """
    _check_pairs(bodies, intros)
    reports = tuple(check_facts(i, b) for i, b in zip(intros, bodies, strict=True))
    share = [sum(map(bool, column)) / len(reports) for column in zip(*(
        (r.faithful, r.contradicted, r.missing, r.well_formed) for r in reports), strict=True)]
    return Fidelity(*share, len(reports), reports)


def body_loss(model, tokenizer, intros: Sequence[str], bodies: Sequence[str], batch_size: int = 16) -> float:
    """损失：模型读真正文（含末尾的 [SEP]）时，平均每个词元的 −log P，单位是奈特。越小越好，不会低于语料的下限。

    参数：model: is_decoder=True 的 BertLMHeadModel；intros, bodies: 等长的列表；batch_size: 一批几篇。
    量不出：与 body_bits_per_char 相同；而且词元的大小不同，损失就不能比。
    异常：ValueError: 有一对放不进模型的位置数，或模型与分词器不是一对。
    首次实现：generation。
    """
    return _body_nats(model, tokenizer, intros, bodies, batch_size) / (sum(map(len, bodies)) + len(bodies))


def body_bits_per_char(model, tokenizer, intros: Sequence[str], bodies: Sequence[str],
                       batch_size: int = 16) -> float:
    """每字比特数（BPC）：模型给真正文（含末尾的 [SEP]）的总损失 ÷ ln 2 ÷ 字数。越小越好。

    参数与异常：同 body_loss。
    量不出：写出来的文章好不好。它量的是「真文章在模型眼里有多意外」，不看模型自己会写什么。
    首次实现：generation。
    """
    return bits_per_char(_body_nats(model, tokenizer, intros, bodies, batch_size), sum(map(len, bodies)))


@torch.inference_mode()
def _body_nats(model, tokenizer, intros: Sequence[str], bodies: Sequence[str], batch_size: int) -> float:
    """模型给全部正文（含末尾的 [SEP]）的总损失，奈特。"""
    from utils.tokenization.tokenizer import check_vocabulary, encode_pair

    check_vocabulary(model, tokenizer)
    _check_pairs(bodies, intros)
    longest, nats, training = model.config.max_position_embeddings, 0.0, model.training
    rows = [encode_pair(tokenizer, i, b, longest) for i, b in zip(intros, bodies, strict=True)]
    rows.sort(key=lambda row: len(row["input_ids"]))
    model.eval()
    for begin in range(0, len(rows), batch_size):
        batch = rows[begin: begin + batch_size]
        ids = torch.zeros(len(batch), len(batch[-1]["input_ids"]), dtype=torch.long)      # (B, T)
        labels = torch.full_like(ids, -100)
        for row, item in enumerate(batch):
            end = len(item["input_ids"])
            ids[row, :end] = torch.tensor(item["input_ids"])
            labels[row, item["prompt_len"]: end] = ids[row, item["prompt_len"]: end]
        # 右填充：因果掩码之下，真词元看不到后面的 [PAD]
        logits = model(input_ids=ids.to(model.device)).logits[:, :-1].flatten(0, 1).float()   # (B*(T-1), V)
        targets = labels[:, 1:].flatten().to(model.device)
        nats += F.cross_entropy(logits, targets, reduction="sum").item()
    model.train(training)
    return nats
