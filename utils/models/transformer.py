"""Transformer 的积木：transformer 里搭起来的注意力、前馈、编码器的一层、解码器的一层，整门课只留这一份。

用它们搭成的模型：BERT 在 utils.models.bert，编码器–解码器在 utils.models.seq2seq。

约定：掩码一律是布尔张量，True 表示可以看（同 utils.models.attention）。没有 dropout：这里只求看得清楚、算得相等。
形状里的字母：B 批大小，H 头数，T 词元数，S 源句的词元数，D 每个头的维数，C 模型宽度（C = H × D），F 前馈层宽度。
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from utils.models.attention import MultiHeadSelfAttention, causal_mask, scaled_dot_product_attention

Activation = Callable[[torch.Tensor], torch.Tensor]


class MultiHeadAttention(MultiHeadSelfAttention):
    """多头注意力：比 self_attention 里的多两样，键和值可以来自另一句话，查询和键可以先旋转。首次实现：transformer。

    参数同 MultiHeadSelfAttention，参数的名字也相同。
    """

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, memory: torch.Tensor | None = None,
                turn: Activation | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """x: (B, T, C)；memory: (B, S, C)，None 就是 x 自己；turn：例如 utils.models.positions.rotate，作用于 (B, H, T, D)。

        mask：布尔，能广播到 (B, H, T, S)。返回 (B, T, C) 与权重 (B, H, T, S)。
        """
        source = x if memory is None else memory
        q = self.split_heads(self.query(x))  # (B, H, T, D)
        k, v = self.split_heads(self.key(source)), self.split_heads(self.value(source))  # (B, H, S, D) x 2
        if turn is not None:
            q, k = turn(q), turn(k)
        mixed, weights = scaled_dot_product_attention(q, k, v, mask)  # (B, H, T, D), (B, H, T, S)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights  # (B, T, C), (B, H, T, S)


class FeedForward(nn.Module):
    """前馈网络：每个词元各算各的，先变宽，过激活函数，再变回来。首次实现：transformer。

    参数：hidden：模型宽度 C；inner：中间的宽度 F，常取 4C；activation：激活函数。
    来源：Vaswani et al. 2017, 式 (2)；BERT 把 ReLU 换成了 GELU(Hendrycks and Gimpel 2016)。
    """

    def __init__(self, hidden: int, inner: int, activation: Activation = F.gelu):
        super().__init__()
        self.up, self.down, self.activation = nn.Linear(hidden, inner), nn.Linear(inner, hidden), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.activation(self.up(x)))  # (B, T, C) -> (B, T, F) -> (B, T, C)


class Block(nn.Module):
    """一层的公共部分：残差与 LayerNorm 怎样套在子层外面。

    属性：pre_norm：True 是 x + f(LN(x))(Pre-LN)，False 是 LN(x + f(x))(Post-LN，原论文与 BERT)。
    来源：Vaswani et al. 2017；Xiong et al. 2020 比较了两种次序。
    """

    pre_norm = False

    def wrap(self, x: torch.Tensor, norm: nn.Module, sublayer: Activation) -> torch.Tensor:
        """给子层套上残差和归一化：(B, T, C) -> (B, T, C)。"""
        return x + sublayer(norm(x)) if self.pre_norm else norm(x + sublayer(x))


class EncoderBlock(Block):
    """编码器的一层：自注意力，再前馈。首次实现：transformer。

    参数：
        hidden, heads, inner：模型宽度 C、头数 H、前馈层宽度 F。
        activation：激活函数；eps:LayerNorm 的小常数；pre_norm：见 Block。
    """

    def __init__(self, hidden: int, heads: int, inner: int, activation: Activation = F.gelu, eps: float = 1e-12,
                 pre_norm: bool = False):
        super().__init__()
        self.attention, self.ffn = MultiHeadAttention(hidden, heads), FeedForward(hidden, inner, activation)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)
        self.pre_norm = pre_norm

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, turn: Activation | None = None) -> torch.Tensor:
        """x: (B, T, C)；mask、turn 同 MultiHeadAttention。返回 (B, T, C)。"""
        x = self.wrap(x, self.norm1, lambda y: self.attention(y, mask, turn=turn)[0])  # (B, T, C)
        return self.wrap(x, self.norm2, self.ffn)  # (B, T, C)


class DecoderBlock(Block):
    """解码器的一层：因果自注意力，交叉注意力，前馈。首次实现：transformer。参数同 EncoderBlock。"""

    def __init__(self, hidden: int, heads: int, inner: int, activation: Activation = F.gelu, eps: float = 1e-12,
                 pre_norm: bool = False):
        super().__init__()
        self.attention, self.cross = MultiHeadAttention(hidden, heads), MultiHeadAttention(hidden, heads)
        self.ffn = FeedForward(hidden, inner, activation)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(hidden, eps) for _ in range(3))
        self.pre_norm = pre_norm

    def forward(self, x: torch.Tensor, memory: torch.Tensor,
                memory_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """x: (B, T, C)；memory: (B, S, C)，编码器的输出；memory_mask：布尔，能广播到 (B, H, T, S)。

        返回 (B, T, C) 与交叉注意力的权重 (B, H, T, S)。
        """
        seen = []

        def cross(y: torch.Tensor) -> torch.Tensor:
            output, weights = self.cross(y, memory_mask, memory)
            seen.append(weights)
            return output

        past = causal_mask(x.size(1), x.device)  # (T, T)
        x = self.wrap(x, self.norm1, lambda y: self.attention(y, past)[0])  # (B, T, C)
        x = self.wrap(x, self.norm2, cross)  # (B, T, C)
        return self.wrap(x, self.norm3, self.ffn), seen[0]  # (B, T, C), (B, H, T, S)

    @classmethod
    def from_torch_layer(cls, layer: nn.TransformerDecoderLayer) -> DecoderBlock:
        """从 nn.TransformerDecoderLayer 复制权重、激活函数、LayerNorm 的次序与小常数。

        错误：TypeError：不是这种层；ValueError：没有偏置的层。
        """
        if not isinstance(layer, nn.TransformerDecoderLayer):
            raise TypeError(f"只认得 nn.TransformerDecoderLayer，收到的是 {type(layer).__name__}。")
        if layer.linear1.bias is None:
            raise ValueError("这一层没有偏置（bias=False），这里的 DecoderBlock 都有偏置，装不上。")
        inner, hidden = layer.linear1.weight.shape
        new = cls(hidden, layer.self_attn.num_heads, inner, layer.activation, layer.norm1.eps, layer.norm_first)
        for mine, theirs in ((new.attention, layer.self_attn), (new.cross, layer.multihead_attn)):
            parts = zip(theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True)  # (3C, C) -> 三个 (C, C)
            for linear, (weight, bias) in zip((mine.query, mine.key, mine.value), parts, strict=True):
                linear.load_state_dict({"weight": weight, "bias": bias})
            mine.output.load_state_dict(theirs.out_proj.state_dict())
        for mine, theirs in ((new.ffn.up, layer.linear1), (new.ffn.down, layer.linear2), (new.norm1, layer.norm1),
                             (new.norm2, layer.norm2), (new.norm3, layer.norm3)):
            mine.load_state_dict(theirs.state_dict())
        return new.to(layer.linear1.weight.device, layer.linear1.weight.dtype).train(layer.training)
