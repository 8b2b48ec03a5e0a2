"""自注意力：self_attention 里一步步搭起来的那些东西，整门课只留这一份。

约定：掩码一律是布尔张量，True 表示「可以看」，False 表示「不许看」。
形状里的字母：B 批大小，H 头数，T 词元数，D 每个头的维数，C 模型宽度（C = H × D），L 层数。
"""

from __future__ import annotations

import math

import torch
from torch import nn


def scaled_dot_product_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """缩放点积注意力：softmax(q·kᵀ / √D)·v。首次实现：self_attention。

    参数：
        q: (..., Tq, D);k: (..., Tk, D);v: (..., Tk, Dv)。
        mask：布尔张量，能广播到 (..., Tq, Tk);True 表示可以看。None 表示全都可以看。
    返回：
        (output, weights):(..., Tq, Dv) 与 (..., Tq, Tk)。
        一整行都被遮住的词元没有可看的对象，它的权重和输出都是 0（而不是 NaN）。
    错误：
        TypeError:mask 不是布尔张量（0/1 的整数掩码含义容易弄反，所以拒绝）。
    来源：Vaswani et al. 2017, Attention Is All You Need，式 (1)。
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (..., Tq, Tk)
    if mask is None:
        weights = scores.softmax(dim=-1)
        return weights @ v, weights
    if mask.dtype != torch.bool:
        raise TypeError(f"mask 要用布尔张量（True 表示可以看），收到的是 {mask.dtype}。")
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # 整行都是 -inf 时 softmax 得 NaN，这里改回 0
    return weights @ v, weights  # (..., Tq, Dv), (..., Tq, Tk)


def causal_mask(length: int, device: torch.device | str | None = None) -> torch.Tensor:
    """因果掩码：第 i 行只有前 i+1 列是 True。返回 (T, T) 布尔张量。首次实现：self_attention。"""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def padding_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """填充掩码：分词器给的 attention_mask(1 是真词元，0 是 [PAD])变成布尔掩码。

    参数：attention_mask: (B, T)。返回 (B, 1, 1, T)，可广播到 (B, H, Tq, Tk)。
    首次实现：self_attention。
    """
    if attention_mask.dim() != 2:
        raise ValueError(f"attention_mask 应当是 (B, T)，收到的形状是 {tuple(attention_mask.shape)}。")
    return attention_mask.bool()[:, None, None, :]  # (B, 1, 1, T)


class MultiHeadSelfAttention(nn.Module):
    """多头自注意力。首次实现：self_attention。

    参数：
        hidden：模型宽度 C;heads：头数 H，必须整除 C。
        bias：各个线性层要不要偏置；project_output：要不要把各头拼接后的结果再做一次线性变换。
    错误：ValueError:heads 不能整除 hidden。
    来源：Vaswani et al. 2017, 3.2.2 节。
    """

    def __init__(self, hidden: int, heads: int, bias: bool = True, project_output: bool = True):
        super().__init__()
        if heads < 1 or hidden % heads:
            raise ValueError(f"模型宽度 {hidden} 不能平均分给 {heads} 个头。")
        self.heads, self.head_dim = heads, hidden // heads
        self.query = nn.Linear(hidden, hidden, bias=bias)
        self.key = nn.Linear(hidden, hidden, bias=bias)
        self.value = nn.Linear(hidden, hidden, bias=bias)
        self.output = nn.Linear(hidden, hidden, bias=bias) if project_output else nn.Identity()

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """把最后一维切成 H 份：(B, T, C) -> (B, H, T, D)。"""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """x: (B, T, C);mask：布尔，能广播到 (B, H, T, T)。返回 (B, T, C) 与权重 (B, H, T, T)。"""
        q, k, v = (self.split_heads(f(x)) for f in (self.query, self.key, self.value))  # (B, H, T, D) x 3
        mixed, weights = scaled_dot_product_attention(q, k, v, mask)  # (B, H, T, D), (B, H, T, T)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights  # (B, T, C), (B, H, T, T)

    @classmethod
    def from_bert_layer(cls, layer: nn.Module) -> MultiHeadSelfAttention:
        """从 Hugging Face 的 BertSelfAttention 或 BertAttention 复制权重。

        BertSelfAttention 没有输出变换；BertAttention 的输出变换取 output.dense,
        残差与 LayerNorm 不属于注意力本身，不在这里。
        错误：TypeError:layer 不是这两种层。
        """
        inner = getattr(layer, "self", layer)
        if not all(hasattr(inner, name) for name in ("query", "key", "value", "num_attention_heads")):
            raise TypeError(f"只认得 BertSelfAttention 和 BertAttention，收到的是 {type(layer).__name__}。")
        dense = layer.output.dense if inner is not layer else None
        hidden = inner.query.in_features
        new = cls(hidden, inner.num_attention_heads, inner.query.bias is not None, dense is not None)
        for name in ("query", "key", "value"):
            getattr(new, name).load_state_dict(getattr(inner, name).state_dict())
        if dense is not None:
            new.output.load_state_dict(dense.state_dict())
        return new.to(inner.query.weight.device, inner.query.weight.dtype).train(inner.training)


