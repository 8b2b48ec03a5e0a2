"""位置：自注意力不认得顺序，这里是告诉它「第几个」的两种算法（第三种是可学的表，就是一个 nn.Embedding）。

形状里的字母：B 批大小，H 头数，T 词元数，C 模型宽度，D 每个头的维数。
"""

from __future__ import annotations

import torch


def _angles(positions: torch.Tensor, size: int, base: float) -> torch.Tensor:
    """每个位置、每一对维度的角度 t · base^(−2n/size)，(T, size/2)。"""
    if size < 2 or size % 2:
        raise ValueError(f"维数要是正偶数（两维一对，一个 sin 一个 cos），收到的是 {size}。")
    omega = base ** (-torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size)  # (size/2,)
    return positions.double()[:, None] * omega  # (T, size/2)


def sinusoidal_positions(length: int, hidden: int, base: float = 10000.0) -> torch.Tensor:
    """正弦位置编码：偶数维是 sin，奇数维是 cos，频率从 1 等比降到约 1/base。首次实现：transformer。

    参数：length：位置数 T；hidden：模型宽度 C，偶数；base：最慢的波有多慢。
    返回：(T, C)，float32，每个数在 −1 到 1 之间。
    错误：ValueError:hidden 不是正偶数。
    来源：Vaswani et al. 2017, 3.5 节。
    """
    angle = _angles(torch.arange(length), hidden, base)  # (T, C/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()  # (T, C)


def rotate(x: torch.Tensor, positions: torch.Tensor | None = None, base: float = 10000.0) -> torch.Tensor:
    """旋转位置编码（RoPE）：把第 t 个词元的每一对维度 (2n, 2n+1) 转过角度 t·ω_n。首次实现：transformer。

    对查询和键都这样转，点积就只和两者的相对位置有关；值不转。

    参数：
        x: (..., T, D)，查询或键；D 是偶数。
        positions: (T,)，每个词元的位置；None 表示 0、1、…、T−1。
        base：频率的底，同 sinusoidal_positions。
    返回：与 x 同形状，长度（范数）不变。
    错误：ValueError:D 不是正偶数，或 positions 不是 T 个。
    来源：Su et al. 2021, RoFormer。相邻两维一对；Hugging Face 的 Llama 把第 n 维和第 n + D/2 维配成一对，算法相同，维的次序不同。
    """
    T, D = x.shape[-2:]
    positions = torch.arange(T, device=x.device) if positions is None else positions
    if positions.shape != (T,):
        raise ValueError(f"有 {T} 个词元，positions 也要有 {T} 个数，收到的形状是 {tuple(positions.shape)}。")
    angle = _angles(positions, D, base)  # (T, D/2)
    sin, cos = angle.sin().to(x.dtype), angle.cos().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]  # (..., T, D/2) x 2
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)  # (..., T, D)
