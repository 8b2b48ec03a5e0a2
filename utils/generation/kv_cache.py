"""带 KV 缓存（KV cache）的逐字前向：模型已经读过的字，不再重读。

首次实现：generation（那里先用一层的 q、k、v 把道理讲清楚，再用这里的完整版）。
权重全部取自 ``BertLMHeadModel``，这里只是换一种算的次序，所以结果与整段重算相等。
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


class CachedDecoder:
    """一批左填充的提示，加上每一层算好的键（key）和值（value）。

    符号：B 是行数，H 头数，D 每头维度，T 提示长度，M 缓存能放下的总长度，V 词表大小。

    参数：
        model: ``is_decoder=True`` 的 ``BertLMHeadModel``，须在 eval 状态。
        ids: (B, T) 词元编号，短的在左边用 [PAD] 补齐。
        real: (B, T) 布尔，True 是真的词元，False 是填充。
        room: 之后最多再追加多少个词元。
    属性：
        logits: (B, V)，下一个词元的 logits。
    """

    def __init__(self, model, ids: torch.Tensor, real: torch.Tensor, room: int):
        self.model, config = model, model.config
        self.layers = model.bert.encoder.layer
        self.heads, batch = config.num_attention_heads, ids.size(0)
        width = config.hidden_size // self.heads
        shape = (batch, self.heads, ids.size(1) + room, width)                    # (B, H, M, D)
        like = model.bert.embeddings.word_embeddings.weight
        self.keys = [like.new_empty(shape) for _ in self.layers]
        self.values = [like.new_empty(shape) for _ in self.layers]
        # q、k、v 三个投影并成一次矩阵乘法
        attentions = [layer.attention.self for layer in self.layers]
        self.projections = [(torch.cat([a.query.weight, a.key.weight, a.value.weight]),
                             torch.cat([a.query.bias, a.key.bias, a.value.bias])) for a in attentions]
        self.length = 0
        self.visible = torch.cat([real, real.new_ones(batch, room)], dim=1)       # (B, M)
        self.padded = not bool(real.all())
        self.next_position = real.sum(1, keepdim=True)                            # (B, 1)
        positions = (real.long().cumsum(1) - 1).clamp(min=0)                      # (B, T)
        future = torch.ones(ids.size(1), ids.size(1), dtype=torch.bool, device=ids.device).tril()
        mask = future & real[:, None, None, :]                                    # (B, 1, T, T)
        # 填充的位置谁也看不见，让它看自己，免得 softmax 对空集求平均
        mask = mask | torch.eye(ids.size(1), dtype=torch.bool, device=ids.device)
        self.logits = self._forward(ids, positions, mask)

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """每行追加一个词元，返回下一个词元的 logits。

        参数：tokens: (B,)。返回：（B, V）。
        """
        mask = self.visible[:, None, None, : self.length + 1] if self.padded else None    # (B, 1, 1, t)
        self.logits = self._forward(tokens[:, None], self.next_position, mask)
        self.next_position = self.next_position + 1
        return self.logits

    def select(self, rows: torch.Tensor) -> None:
        """只留下（或重排）这些行：有的行写完了，或者束搜索换了祖先。参数：rows: (B',) 行号。"""
        for store in (self.keys, self.values):
            for i, cache in enumerate(store):
                kept = cache.new_empty(rows.numel(), *cache.shape[1:])
                kept[:, :, : self.length] = cache[rows, :, : self.length]
                store[i] = kept
        self.visible, self.next_position = self.visible[rows], self.next_position[rows]
        self.logits = self.logits[rows]

    def _forward(self, ids, positions, mask) -> torch.Tensor:
        begin, end = self.length, self.length + ids.size(1)
        x = self.model.bert.embeddings(input_ids=ids, position_ids=positions)             # (B, T, H*D)
        for i, layer in enumerate(self.layers):
            weight, bias = self.projections[i]
            qkv = F.linear(x, weight, bias).view(*ids.shape, 3, self.heads, -1)           # (B, T, 3, H, D)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)                                          # 各 (B, H, T, D)
            self.keys[i][:, :, begin:end] = k
            self.values[i][:, :, begin:end] = v
            seen = F.scaled_dot_product_attention(
                q, self.keys[i][:, :, :end], self.values[i][:, :, :end], attn_mask=mask)  # (B, H, T, D)
            x = layer.attention.output(seen.transpose(1, 2).reshape(x.shape), x)
            x = layer.output(layer.intermediate(x), x)
        self.length = end
        return self.model.cls(x[:, -1])                                                   # (B, V)


class UncachedDecoder:
    """与 CachedDecoder 同样的接口，但每一步都把整段重算一遍：慢，用来核对和比较。"""

    def __init__(self, model, ids: torch.Tensor, real: torch.Tensor, room: int):
        self.model, self.ids, self.real = model, ids, real
        self.logits = self._forward()

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """每行追加一个词元 (B,)，返回 (B, V)。"""
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.real = torch.cat([self.real, self.real.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._forward()
        return self.logits

    def select(self, rows: torch.Tensor) -> None:
        """只留下（或重排）这些行。"""
        self.ids, self.real, self.logits = self.ids[rows], self.real[rows], self.logits[rows]

    def _forward(self) -> torch.Tensor:
        positions = (self.real.long().cumsum(1) - 1).clamp(min=0)
        return self.model(input_ids=self.ids, attention_mask=self.real.long(), position_ids=positions,
                          use_cache=False).logits[:, -1]
