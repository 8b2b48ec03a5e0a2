"""预训练目标：掩码（MLM）、整词掩码、下一句预测（NSP）、片段还原（T5），各自怎样把文字变成输入和标签。

首次实现：objectives。CLM 的标签就是输入本身，见 utils/training/loop.py 的 encode_docs 与 clm_collator。
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from utils.tokenization.tokenizer import IGNORE
from utils.tokenization.vocabularies import jieba_words
from utils.training.collators import Collator


def spoil(ids: torch.Tensor, chosen: torch.Tensor, vocab_size: int, mask_id: int,
          generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """把选中的位置按 80/10/10 换成 [MASK]、随机词元、原样。

    参数：
        ids: 词元编号 (B, T)。
        chosen: 选中的位置，布尔 (B, T)。
        vocab_size, mask_id: 词表大小；[MASK] 的编号。
        generator: 随机数发生器。
    返回：
        （盖过的 ids, 标签），都是 (B, T)；没选中的标签是 −100。
    """
    labels = ids.masked_fill(~chosen, IGNORE)                             # (B, T)
    dice = torch.rand(ids.shape, generator=generator)
    masked = ids.clone()
    masked[chosen & (dice < 0.8)] = mask_id                               # 80%
    swap = chosen & (dice >= 0.8) & (dice < 0.9)                          # 10%
    masked[swap] = torch.randint(vocab_size, (int(swap.sum()),), generator=generator)
    return masked, labels                                                 # 余下 10% 保持原样


def mask_tokens(ids: torch.Tensor, special: torch.Tensor, vocab_size: int, mask_id: int, generator: torch.Generator,
                probability: float = 0.15) -> tuple[torch.Tensor, torch.Tensor]:
    """MLM：每个普通词元以 probability 的概率被选中，再按 80/10/10 换掉（Devlin 等，2019）。

    参数：
        ids: (B, T)。
        special: 不许选的位置（特殊词元、填充），布尔 (B, T)。
        其余同 spoil。
    返回：
        （盖过的 ids, 标签），都是 (B, T)。
    """
    chosen = (torch.rand(ids.shape, generator=generator) < probability) & ~special
    return spoil(ids, chosen, vocab_size, mask_id, generator)


def word_index(text: str) -> list[int]:
    """每个字属于第几个词（jieba 切词），例如「今天下雨」→ [0, 0, 1, 1]。标点自成一词。"""
    return [number for number, word in enumerate(jieba_words(text)) for _ in word]


def mask_words(ids: torch.Tensor, words: torch.Tensor, vocab_size: int, mask_id: int, generator: torch.Generator,
               probability: float = 0.15) -> tuple[torch.Tensor, torch.Tensor]:
    """整词掩码：选的单位是词，选中的词每个字都要猜（Cui 等，2021）。

    参数：
        ids: (B, T)。
        words: 每个位置属于第几个词 (B, T)；特殊词元与填充是 −1，永不选中。
        其余同 spoil。
    返回：
        （盖过的 ids, 标签），都是 (B, T)。
    """
    dice = torch.rand(ids.shape[0], int(words.max()) + 1, generator=generator) < probability      # (B, 词数)
    chosen = dice.gather(1, words.clamp(min=0)) & (words >= 0)                                    # (B, T)
    return spoil(ids, chosen, vocab_size, mask_id, generator)


def random_segments(total: int, parts: int, generator: torch.Generator) -> list[int]:
    """把 total 随机切成 parts 段，每段至少 1，各种切法等可能。返回各段的长度。"""
    cuts = (torch.randperm(total - 1, generator=generator)[:parts - 1] + 1).sort().values.tolist()
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


def corrupt_spans(ids: Sequence[int], sentinels: Sequence[int], end_id: int, generator: torch.Generator,
                  density: float = 0.15, mean_length: float = 3.0) -> tuple[list[int], list[int]]:
    """T5 的片段还原：挖掉几段，每段在输入里换成一个哨兵（sentinel），目标是「哨兵 原文」依次排开（Raffel 等，2020）。

    参数：
        ids: 一篇文档的词元编号，不含特殊词元，至少 2 个。
        sentinels: 哨兵词元的编号，依次使用。
        end_id: 目标末尾的结束词元。
        generator: 随机数发生器。
        density: 挖掉的比例。
        mean_length: 每段平均多长（词元）。
    返回：
        （输入，目标）。
    异常：
        ValueError: 文档太短，或哨兵不够用。
    """
    if len(ids) < 2:
        raise ValueError(f"只有 {len(ids)} 个词元，挖不出片段；至少要 2 个。")
    noise = min(max(round(len(ids) * density), 1), len(ids) - 1)
    spans = min(max(round(noise / mean_length), 1), len(ids) - noise)
    if spans > len(sentinels):
        raise ValueError(f"要挖 {spans} 段，哨兵只有 {len(sentinels)} 个。请多加几个，或者缩短文档。")
    kept = random_segments(len(ids) - noise, spans, generator)
    lost = random_segments(noise, spans, generator)
    inputs, targets, at = [], [], 0
    for sentinel, keep, lose in zip(sentinels, kept, lost, strict=False):
        inputs += [*ids[at:at + keep], sentinel]
        targets += [sentinel, *ids[at + keep:at + keep + lose]]
        at += keep + lose
    return inputs, [*targets, end_id]


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def masking_collator(tokenizer: PreTrainedTokenizerFast, generator: torch.Generator, whole_words: bool = False,
                     probability: float = 0.15) -> Collator:
    """MLM 的整理函数。行里要有 input_ids；whole_words 时还要有 words（每个词元属于第几个词，特殊词元是 −1）。"""
    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        ids = _pad([r["input_ids"] for r in rows], tokenizer.pad_token_id)                        # (B, T)
        settings = dict(vocab_size=len(tokenizer), mask_id=tokenizer.mask_token_id, generator=generator,
                        probability=probability)
        if whole_words:
            masked, labels = mask_words(ids, _pad([r["words"] for r in rows], -1), **settings)
        else:
            special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
            masked, labels = mask_tokens(ids, special, **settings)
        return {"input_ids": masked, "attention_mask": (ids != tokenizer.pad_token_id).long(), "labels": labels}

    return Collator(collate, tokenizer, "整词 MLM" if whole_words else "MLM", 遮盖率=probability)


def sentence_pairs(intros: Sequence[str], bodies: Sequence[str], generator: torch.Generator,
                   groups: Sequence[str] | None = None) -> list[tuple[str, str, int]]:
    """NSP 的句对：一半配真正的下一段（标签 0），一半配别人的（标签 1）。0 表示「是下一句」，这是 BERT 的约定。

    参数：
        intros, bodies: 等长的列表。
        generator: 随机数发生器。
        groups: 每篇的组名；给了它，别人的正文只从同一组里挑（同组只有自己时，从全体里挑）。
    返回：
        [（导语，正文，标签）]。
    异常：
        ValueError: 不足 2 篇，没有「别人」。
    """
    if len(intros) < 2:
        raise ValueError("至少要 2 篇文档，才有别人的正文可配。")
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups or ()):
        members.setdefault(group, []).append(i)
    pairs = []
    for i, intro in enumerate(intros):
        if torch.rand((), generator=generator) < 0.5:
            pairs.append((intro, bodies[i], 0))
            continue
        pool = members[groups[i]] if groups is not None and len(members[groups[i]]) > 1 else range(len(intros))
        j = int(torch.randint(len(pool) - 1, (), generator=generator))
        others = pool[j] if pool[j] < i else pool[j + 1]                  # 跳过自己
        pairs.append((intro, bodies[others], 1))
    return pairs


def pair_collator(tokenizer: PreTrainedTokenizerFast, generator: torch.Generator) -> Collator:
    """BERT 原来的任务：MLM 加 NSP。行里要有 input_ids、token_type_ids、next_sentence_label。"""
    mask = masking_collator(tokenizer, generator)

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        return mask(rows) | {"token_type_ids": _pad([r["token_type_ids"] for r in rows], 0),
                             "next_sentence_label": torch.tensor([r["next_sentence_label"] for r in rows])}

    return Collator(collate, tokenizer, "MLM + NSP", **mask.settings)


def span_collator(tokenizer: PreTrainedTokenizerFast, sentinels: Sequence[int], generator: torch.Generator) -> Collator:
    """T5 的整理函数：现挖片段；解码器的输入是目标右移一位，开头补 [PAD]。"""
    pad, special = tokenizer.pad_token_id, set(tokenizer.all_special_ids)

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        pairs = [corrupt_spans([i for i in r["input_ids"] if i not in special], sentinels, tokenizer.sep_token_id, generator)
                 for r in rows]
        ids = _pad([inputs for inputs, _ in pairs], pad)                                          # (B, T)
        return {"input_ids": ids, "attention_mask": (ids != pad).long(),
                "decoder_input_ids": _pad([[pad, *targets[:-1]] for _, targets in pairs], pad),   # (B, S)
                "labels": _pad([targets for _, targets in pairs], IGNORE)}

    return Collator(collate, tokenizer, "T5 片段还原")
