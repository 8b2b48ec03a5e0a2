"""编码器–解码器：读进一句，写出另一句。首次实现：transformer。

形状里的字母同 utils.models.transformer：B 批大小，S 源句的词元数，T 目标句的词元数，C 模型宽度，V 词表大小，L 层数。
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn

from utils.corpus.numerals import Pair
from utils.models.attention import padding_mask
from utils.models.positions import sinusoidal_positions
from utils.models.transformer import DecoderBlock, EncoderBlock
from utils.tokenization.tokenizer import IGNORE


class EncoderDecoder(nn.Module):
    """Transformer 编码器–解码器，源和目标共用一张字嵌入表，正弦位置，Pre-LN。

    参数：vocab：词表大小 V；hidden, heads：模型宽度 C、头数 H；layers：编码器、解码器各几层；
        max_len：最长的句子有多少词元。前馈层宽 4C。
    来源：Vaswani et al. 2017, 3.1 节；Pre-LN 见 Xiong et al. 2020。
    """

    def __init__(self, vocab: int, hidden: int, heads: int, layers: int, max_len: int = 64):
        super().__init__()
        sizes = dict(hidden=hidden, heads=heads, inner=4 * hidden, pre_norm=True)
        self.word = nn.Embedding(vocab, hidden)
        self.register_buffer("places", sinusoidal_positions(max_len, hidden), persistent=False)  # (max_len, C)
        self.encoder = nn.ModuleList(EncoderBlock(**sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderBlock(**sizes) for _ in range(layers))
        self.memory_norm, self.norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, vocab)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """字嵌入加位置：(B, T) -> (B, T, C)。错误：ValueError：句子太长。"""
        if ids.size(1) > len(self.places):
            raise ValueError(f"句子有 {ids.size(1)} 个词元，最多 {len(self.places)} 个：请写短一些，或建模时把 max_len 调大。")
        return self.word(ids) + self.places[:ids.size(1)]

    def encode(self, source: torch.Tensor, source_mask: torch.Tensor) -> torch.Tensor:
        """源句 (B, S) → 记忆 (B, S, C)；source_mask: (B, S)，1 是真词元。"""
        x, mask = self.embed(source), padding_mask(source_mask)  # (B, S, C), (B, 1, 1, S)
        for block in self.encoder:
            x = block(x, mask)
        return self.memory_norm(x)

    def decode(self, target: torch.Tensor, memory: torch.Tensor,
               source_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """已写的 (B, T) 与记忆 → 下一个词元的 logits (B, T, V)，各层的交叉注意力 (L, B, H, T, S)。"""
        x, mask, seen = self.embed(target), padding_mask(source_mask), []
        for block in self.decoder:
            x, weights = block(x, memory, mask)
            seen.append(weights)
        return self.head(self.norm(x)), torch.stack(seen)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor,
                labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """训练用。labels: (B, T)，整句目标，含开头的 [CLS] 与末尾的 [SEP]，−100 是填充。

        解码器读 labels 的前 T−1 个，预测后 T−1 个。返回 loss（奈特/词元）与 logits (B, T−1, V)。
        """
        given = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE, 0)  # 填充的位置随便放一个编号：后面的看得见它，却没有标签
        logits, _ = self.decode(given, self.encode(input_ids, attention_mask), attention_mask)
        return {"loss": F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORE), "logits": logits}

    @torch.no_grad()
    def write(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, begin: int, end: int,
              max_len: int = 24) -> torch.Tensor:
        """贪心地写：每次选概率最大的词元，直到每句都写出 end 或满 max_len 个。返回 (B, ≤ max_len + 1)，以 begin 开头。"""
        memory = self.encode(input_ids, attention_mask)  # (B, S, C)，只算一次
        out = torch.full((len(input_ids), 1), begin, device=input_ids.device)  # (B, 1)
        for _ in range(max_len):
            logits, _ = self.decode(out, memory, attention_mask)  # (B, T, V)
            out = torch.cat([out, logits[:, -1].argmax(-1, keepdim=True)], dim=1)  # (B, T+1)
            if (out == end).any(1).all():
                break
        return out


def encode_pairs(pairs: Sequence[Pair], tokenizer) -> Dataset:
    """把题目编成 Dataset：input_ids 是源句，labels 是目标句，两头都有 [CLS] 与 [SEP]；length 是源句长。"""
    sources = tokenizer([p.source for p in pairs])["input_ids"]
    targets = tokenizer([p.target for p in pairs])["input_ids"]
    return Dataset.from_dict({"input_ids": sources, "labels": targets, "length": [len(s) for s in sources]})


def pair_collator(pad: int) -> Callable:
    """整理函数：源句补 pad，目标补 −100，都补到这一批里最长的。参数：pad:[PAD] 的编号。"""

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])  # (B, 最长)

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        source = padded([r["input_ids"] for r in rows], pad)  # (B, S)
        real = padded([[1] * len(r["input_ids"]) for r in rows], 0)  # (B, S)
        return {"input_ids": source, "attention_mask": real, "labels": padded([r["labels"] for r in rows], IGNORE)}

    return collate


def normalise(model: EncoderDecoder, tokenizer, sources: Sequence[str], batch_size: int = 256) -> list[str]:
    """让模型改写几句话，返回写出的文字（[SEP] 之前的部分）。

    错误：ValueError：有一句是空的。
    """
    if not all(text.strip() for text in sources):
        raise ValueError("有一句是空的：请写一点内容，例如「二〇二六年三月五日」。")
    device, begin, end = model.head.weight.device, tokenizer.cls_token_id, tokenizer.sep_token_id
    training, written = model.training, []
    model.eval()
    for at in range(0, len(sources), batch_size):
        batch = tokenizer(list(sources[at:at + batch_size]), padding=True, return_tensors="pt").to(device)
        for row in model.write(batch["input_ids"], batch["attention_mask"], begin, end).tolist():
            row = row[1:row.index(end)] if end in row else row[1:]
            written.append("".join(tokenizer.convert_ids_to_tokens(row)))
    model.train(training)
    return written
