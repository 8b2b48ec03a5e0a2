"""08 的练习「抓偷看的」用的假模型：收 ids (1, T)，给 logits (1, T, 50)，有的偷看，有的不偷看。只是铺路石（plumbing）。"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def _hashed(ids: torch.Tensor, V: int) -> torch.Tensor:
    table = torch.sin(torch.arange(V)[:, None].float() * torch.arange(1, V + 1) * 0.7)
    return F.embedding(ids, table)                        # (1, T, V)；编号超出 0 到 V−1 就报错，与真的模型一样


def causal(ids):
    return _hashed(ids, 50).cumsum(1)


def sees_both_sides(ids):
    x = _hashed(ids, 50)
    return x + x.sum(1, keepdim=True)


def sees_one_ahead(ids):
    x = _hashed(ids, 50)
    return x.cumsum(1) + F.pad(x[:, 1:], (0, 0, 0, 1))


def sees_two_ahead(ids):
    x = _hashed(ids, 50)
    return x.cumsum(1) + F.pad(x[:, 2:], (0, 0, 0, 2))


def sees_only_the_first(ids):
    return _hashed(ids, 50)[:, :1].expand(-1, ids.shape[1], -1)


def sees_strictly_before(ids):
    x = _hashed(ids, 50)
    return x.cumsum(1) - x


def sees_the_last(ids):
    x = _hashed(ids, 50)
    return x.cumsum(1) + x[:, -1:]


def the_first_sees_all(ids):
    x = _hashed(ids, 50)
    return torch.cat([x.sum(1, keepdim=True), x.cumsum(1)[:, 1:]], 1)


def sees_a_hint(ids):
    """偷看一点点：最可能的字几乎不变。"""
    x = _hashed(ids, 50)
    return 100 * torch.eye(50)[ids] + x.cumsum(1) + 0.1 * F.pad(x[:, 1:], (0, 0, 0, 1))


def sees_nothing(ids):
    return torch.arange(ids.size(1) * 50.0).view(1, ids.size(1), 50)


MODELS = (causal, sees_both_sides, sees_one_ahead, sees_two_ahead, sees_only_the_first, sees_strictly_before, sees_the_last,
          the_first_sees_all, sees_a_hint, sees_nothing)
