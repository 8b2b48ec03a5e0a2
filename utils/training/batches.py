"""把语料变成批（batch）：文档编成词元，整理函数（collator）补齐、遮盖。首次实现：mlm_pretraining、clm_finetuning。"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
)

from utils.presets import Preset
from utils.tokenization.tokenizer import IGNORE, encode_all_pairs, vocabulary_id
from utils.training.collators import Batches, Collator

LENGTHS = 8                                               # 序列长度补到它的倍数：形状一少，CPU 上的 bf16 就快得多，见 targets_only


def bert_config(preset: Preset, tokenizer: PreTrainedTokenizerFast, **changes) -> BertConfig:
    """按预设配置一个 BERT:L 层、隐藏维度 d_model、H 个头，前馈层宽 4 × d_model。

    参数：
        preset: 大小取自这里。
        tokenizer: 词表大小、字表的指纹和 [PAD] 的编号取自这里。
        **changes: 直接交给 BertConfig 的改动，例如 is_decoder=True。
    返回：
        BertConfig。
    """
    settings = dict(
        vocab_size=len(tokenizer), hidden_size=preset.hidden, num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads, intermediate_size=4 * preset.hidden,
        max_position_embeddings=preset.max_len, hidden_dropout_prob=preset.dropout, initializer_range=preset.init_std,
        attention_probs_dropout_prob=preset.dropout, pad_token_id=tokenizer.pad_token_id, vocabulary_id=vocabulary_id(tokenizer),
    )
    return BertConfig(**(settings | changes))


def encode_docs(docs: Dataset, tokenizer: PreTrainedTokenizerFast, max_len: int, learn_intro: bool = False) -> Dataset:
    """把文档编成 `[CLS] 导语 [SEP] 正文 [SEP]`。

    参数：
        docs: 有 intro、body 两列的 Dataset。
        tokenizer: 分词器。
        max_len: 一条最多多少词元。
        learn_intro: True 表示导语也有标签（从头写整篇）；False 表示导语只是提示，不计损失。
    返回：
        Dataset，列：input_ids（长 T）、attention_mask、labels、length。learn_intro 为 False 时，
        labels 把 `[CLS] 导语 [SEP]` 记作 −100，只留正文。
    异常：
        ValueError: 有文档放不进 max_len（由 encode_all_pairs 抛出）。
    """
    rows = []
    for row in encode_all_pairs(tokenizer, docs["intro"][:], docs["body"][:], max_len):
        ids, prompt = row["input_ids"], 1 if learn_intro else row["prompt_len"]
        rows.append({"input_ids": ids, "attention_mask": row["attention_mask"],
                     "labels": [IGNORE] * prompt + ids[prompt:], "length": len(ids)})
    return Dataset.from_list(rows)


def _length_multiple(tokenizer: PreTrainedTokenizerFast) -> int | None:
    return LENGTHS if tokenizer.model_max_length % LENGTHS == 0 else None            # 补过了头，位置嵌入不够用


def mlm_collator(tokenizer: PreTrainedTokenizerFast, probability: float = 0.15, seed: int | None = None) -> Collator:
    """MLM 的整理函数（collator）：随机盖住词元，被盖住的位置才有标签。80/10/10 由库完成。

    参数：
        tokenizer: 分词器。
        probability: 每个词元被选中的概率。
        seed: 随机种子；None 表示跟着全局种子。
    """
    inner = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=probability, seed=seed,
                                            pad_to_multiple_of=_length_multiple(tokenizer))

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        return dict(inner([{"input_ids": r["input_ids"], "attention_mask": r["attention_mask"]} for r in rows]))

    return Collator(collate, tokenizer, "MLM", 遮盖率=probability, 种子=seed)


def clm_collator(tokenizer: PreTrainedTokenizerFast) -> Collator:
    """CLM 的整理函数：input_ids 补 [PAD],labels 补 −100，所以填充不算进损失。"""
    inner = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE, padding=True,
                                   pad_to_multiple_of=_length_multiple(tokenizer))

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        keep = ("input_ids", "attention_mask", "labels")
        return dict(inner([{k: r[k] for k in keep} for r in rows]))

    return Collator(collate, tokenizer, "CLM")


def fixed_batches(encoded: Dataset, collate: Callable, n_docs: int, batch_size: int = 32) -> Batches:
    """取前 n_docs 篇，排成固定的批，评估时反复用同一批（MLM 的遮盖也固定下来），结果才可比。"""
    rows = list(encoded.select(range(min(n_docs, len(encoded)))))
    return Batches([collate(rows[i:i + batch_size]) for i in range(0, len(rows), batch_size)], collate)
