"""utils.models.transformer：与 PyTorch、Hugging Face、04 手写的相等；因果掩码一点不漏；梯度正确。"""

import pytest
import torch
import torch.nn.functional as F
from notebook_source import handmade
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from utils.models import attention as A
from utils.models import transformer as X
from utils.models.positions import rotate

BLOCKS = ("FeedForward", "Block", "MultiHeadAttention", "EncoderBlock", "DecoderBlock")


def rows(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def block(cls, seed=0, **options):
    torch.manual_seed(seed)
    made = cls(32, 4, 50, **options).eval()
    for name, p in made.named_parameters():
        if "norm" in name:
            nn.init.normal_(p)                                             # 不然 LayerNorm 的增益全是 1，装错了也看不出来
    return made


@pytest.fixture(scope="module")
def notebook():
    return handmade("transformer", *BLOCKS, nn=nn, F=F, torch=torch, **{
        n: getattr(A, n) for n in ("MultiHeadSelfAttention", "causal_mask", "padding_mask", "scaled_dot_product_attention")})


def test_attention_without_the_new_parts_is_the_one_of_03():
    old, x = A.MultiHeadSelfAttention(32, 4), rows(2, 7, 32)
    new = X.MultiHeadAttention(32, 4)
    new.load_state_dict(old.state_dict())
    for mask in (None, A.causal_mask(7)):
        for mine, theirs in zip(new(x, mask), old(x, mask), strict=True):
            assert torch.equal(mine, theirs)


def test_cross_attention_equals_torch():
    own, theirs = X.MultiHeadAttention(32, 4).eval(), nn.MultiheadAttention(32, 4, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([own.query.weight, own.key.weight, own.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([own.query.bias, own.key.bias, own.value.bias]))
    theirs.out_proj.load_state_dict(own.output.state_dict())
    x, memory, real = rows(2, 5, 32), rows(2, 8, 32, seed=1), torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    expected, weights = theirs(x, memory, memory, key_padding_mask=~real.bool(), average_attn_weights=False)
    output, own_weights = own(x, A.padding_mask(real), memory)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own_weights, weights, atol=1e-5, rtol=1e-5)


def test_rope_in_the_attention_makes_it_blind_to_where_the_sentence_starts():
    layer, x = X.MultiHeadAttention(32, 4).eval().double(), rows(1, 6, 32, dtype=torch.float64)
    here = layer(x, turn=rotate)[0]
    late = layer(x, turn=lambda y: rotate(y, torch.arange(40, 46)))[0]
    torch.testing.assert_close(here, late, atol=1e-10, rtol=0)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert (layer(x[:, order], turn=rotate)[0] - here[:, order]).abs().max() > 1e-3       # 不再排列等变


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", [F.relu, F.gelu])
def test_encoder_block_equals_torch(pre_norm, activation):
    own = block(X.EncoderBlock, activation=activation, eps=1e-5, pre_norm=pre_norm)
    theirs = nn.TransformerEncoderLayer(32, 4, 50, activation=activation, batch_first=True, norm_first=pre_norm).eval()
    attention = own.attention
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key.bias, attention.value.bias]))
    for mine, other in ((attention.output, theirs.self_attn.out_proj), (own.ffn.up, theirs.linear1), (own.ffn.down, theirs.linear2),
                        (own.norm1, theirs.norm1), (own.norm2, theirs.norm2)):
        other.load_state_dict(mine.state_dict())
    x = rows(2, 7, 32)
    torch.testing.assert_close(own(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_encoder_block_equals_a_hugging_face_layer():
    torch.manual_seed(0)
    layer = BertForMaskedLM(BertConfig(vocab_size=9, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=50,
                                       initializer_range=0.3)).eval().bert.encoder.layer[0]
    own = X.EncoderBlock(32, 4, 50)
    own.attention.load_state_dict(A.MultiHeadSelfAttention.from_bert_layer(layer.attention).state_dict())
    for mine, theirs in ((own.norm1, layer.attention.output.LayerNorm), (own.ffn.up, layer.intermediate.dense),
                         (own.ffn.down, layer.output.dense), (own.norm2, layer.output.LayerNorm)):
        mine.load_state_dict(theirs.state_dict())
    x = rows(2, 7, 32)
    torch.testing.assert_close(own(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation, eps", [("relu", 1e-5), ("gelu", 1e-3)])
def test_decoder_block_equals_torch(norm_first, activation, eps):
    torch.manual_seed(3)
    theirs = nn.TransformerDecoderLayer(32, 4, 50, activation=activation, layer_norm_eps=eps, batch_first=True,
                                        norm_first=norm_first).eval()
    for name, p in theirs.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.normal_(p)
    own = X.DecoderBlock.from_torch_layer(theirs)
    assert not own.training
    x, memory = rows(2, 7, 32), rows(2, 9, 32, seed=1)
    real = torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    expected = theirs(x, memory, tgt_mask=~A.causal_mask(7), memory_key_padding_mask=~real.bool())
    output, weights = own(x, memory, A.padding_mask(real))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert weights.shape == (2, 4, 7, 9) and weights[1, ..., 4:].eq(0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))


def test_decoder_block_refuses_other_layers():
    with pytest.raises(TypeError, match="Linear"):
        X.DecoderBlock.from_torch_layer(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="bias=False"):
        X.DecoderBlock.from_torch_layer(nn.TransformerDecoderLayer(8, 2, 8, bias=False))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_decoder_block_leaks_nothing_and_reads_the_whole_memory(pre_norm):
    own, x, memory = block(X.DecoderBlock, pre_norm=pre_norm), rows(2, 9, 32), rows(2, 5, 32, seed=1)
    changed, other = x.clone(), memory.clone()
    changed[:, 5:] += 10.0
    other[:, 4] += 10.0
    before, after, elsewhere = own(x, memory)[0], own(changed, memory)[0], own(x, other)[0]
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.allclose(before[:, 5:], after[:, 5:])
    assert (before - elsewhere).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("pre_norm", [False, True])
def test_encoder_block_leaks_nothing_under_a_causal_mask(pre_norm):
    own, x = block(X.EncoderBlock, pre_norm=pre_norm), rows(2, 9, 32)
    changed = x.clone()
    changed[:, 5:] += 10.0
    for turn in (None, rotate):
        before, after = (own(y, A.causal_mask(9), turn) for y in (x, changed))
        assert torch.equal(before[:, :5], after[:, :5]) and not torch.allclose(before[:, 5:], after[:, 5:])
    assert not torch.allclose(own(x)[:, :5], own(changed)[:, :5])          # 没有掩码就会漏


@pytest.mark.parametrize("pre_norm", [False, True])
def test_gradients_are_right(pre_norm):
    torch.manual_seed(0)
    encoder = X.EncoderBlock(4, 2, 6, eps=1e-3, pre_norm=pre_norm).double()
    decoder = X.DecoderBlock(4, 2, 6, eps=1e-3, pre_norm=pre_norm).double()
    x, memory = (rows(1, 3, 4, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2))
    assert torch.autograd.gradcheck(lambda y: encoder(y, A.causal_mask(3), rotate), (x,))
    assert torch.autograd.gradcheck(lambda y, m: decoder(y, m)[0], (x, memory))
    weights = tuple(decoder.parameters())
    assert torch.autograd.gradcheck(lambda *w: torch.func.functional_call(
        decoder, dict(zip(dict(decoder.named_parameters()), w, strict=True)), (x, memory))[0], weights)


@pytest.mark.parametrize("name", ["EncoderBlock", "DecoderBlock"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_notebook_agrees(notebook, name, pre_norm):
    packaged = block(getattr(X, name), pre_norm=pre_norm)
    hand = notebook[name](32, 4, 50, pre_norm=pre_norm).eval()
    hand.load_state_dict(packaged.state_dict())                            # 参数的名字也一样
    x, memory = rows(2, 7, 32), rows(2, 9, 32, seed=1)
    real = A.padding_mask(torch.tensor([[1] * 9, [1] * 4 + [0] * 5]))
    if name == "DecoderBlock":
        for mine, theirs in zip(packaged(x, memory, real), hand(x, memory, real), strict=True):
            assert torch.equal(mine, theirs)
    else:
        for mask, turn in ((None, None), (A.causal_mask(7), rotate)):
            assert torch.equal(packaged(x, mask, turn), hand(x, mask, turn))
