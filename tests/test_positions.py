"""utils.models.positions：与公式的循环、与 Llama 的 RoPE、与 04 手写的相等；RoPE 只看相对位置。"""

import math

import pytest
import torch
from notebook_source import handmade
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from utils.models.positions import rotate, sinusoidal_positions


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sinusoidal_equals_the_formula_and_far_positions_stay_exact():
    table = sinusoidal_positions(3000, 8)
    for t in (0, 1, 7, 2999):
        for n in range(4):
            omega = 10000 ** (-2 * n / 8)
            assert table[t, 2 * n].item() == pytest.approx(math.sin(omega * t), abs=1e-6)
            assert table[t, 2 * n + 1].item() == pytest.approx(math.cos(omega * t), abs=1e-6)
    assert table.dtype == torch.float32


def test_rope_depends_on_relative_position_only_and_keeps_lengths():
    q, k = rows(16, seed=1), rows(16, seed=2)
    scores = rotate(q.expand(20, 16)) @ rotate(k.expand(20, 16)).T
    for shift in range(-19, 20):
        line = scores.diagonal(shift)
        torch.testing.assert_close(line, line[:1].expand_as(line), atol=1e-10, rtol=0)
    assert len({round(scores.diagonal(d)[0].item(), 6) for d in range(-19, 20)}) == 39   # 相对位置不同，点积也不同
    x = rows(2, 3, 5, 8)
    torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(rotate(x)[..., 0, :], x[..., 0, :])


def test_rope_at_given_positions_is_a_slice_of_the_whole():
    x = rows(1, 1, 9, 8)
    torch.testing.assert_close(rotate(x[..., 4:7, :], torch.arange(4, 7)), rotate(x)[..., 4:7, :])


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rope_equals_llama_up_to_the_order_of_dimensions(base):
    x, D = rows(2, 4, 11, 16).float(), 16
    order = torch.cat([torch.arange(0, D, 2), torch.arange(1, D, 2)])
    angle = torch.arange(11)[:, None] * base ** (-torch.arange(0, D, 2) / D)
    angle = torch.cat([angle, angle], -1)[None]
    expected, _ = apply_rotary_pos_emb(x[..., order], x[..., order], angle.cos(), angle.sin())
    torch.testing.assert_close(rotate(x, base=base)[..., order], expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_rope():
    assert torch.autograd.gradcheck(rotate, (rows(2, 3, 4).requires_grad_(),))


@pytest.mark.parametrize("call", [lambda: sinusoidal_positions(4, 7), lambda: rotate(rows(3, 5)), lambda: rotate(rows(3, 0))])
def test_odd_widths_are_refused(call):
    with pytest.raises(ValueError, match="正偶数"):
        call()


def test_wrong_number_of_positions_is_refused():
    with pytest.raises(ValueError, match="有 3 个词元"):
        rotate(rows(3, 4), torch.arange(4))


def test_the_notebook_agrees():
    hand = handmade("transformer", "sinusoidal_loop", "sinusoidal_positions", "rotate", torch=torch, math=math)
    torch.testing.assert_close(hand["sinusoidal_positions"](40, 12), sinusoidal_positions(40, 12))
    torch.testing.assert_close(hand["sinusoidal_loop"](40, 12), sinusoidal_positions(40, 12))
    x = rows(2, 4, 9, 6)
    torch.testing.assert_close(hand["rotate"](x), rotate(x))
