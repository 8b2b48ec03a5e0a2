"""utils.models.attention：与 PyTorch、Hugging Face 的实现相等，掩码不漏，错误说得清楚。"""

import math

import pytest
import torch
import torch.nn.functional as F
from notebook_source import handmade
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from utils.analysis import reading
from utils.models import attention as A

SENTENCE = "今天是个好日子"


def char_tokenizer() -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {token: i for i, token in enumerate(names + sorted(set(SENTENCE + "晴雨队赢了")))}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]",
                                   cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def tiny_bert(layers: int = 2, heads: int = 4, hidden: int = 32, **options) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(
        vocab_size=40, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=2 * hidden, max_position_embeddings=24, initializer_range=0.3, **options))


@pytest.fixture(scope="module")
def tokenizer():
    return char_tokenizer()


def qkv(*shape: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) for _ in range(3))


@pytest.mark.parametrize("mask", [None, "causal", "random"])
def test_equals_torch_sdpa(mask):
    q, k, v = qkv(2, 3, 7, 5)
    if mask == "causal":
        mask = A.causal_mask(7)
    elif mask == "random":
        mask = torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(1)) > 0.5
    output, weights = A.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(output, F.scaled_dot_product_attention(q, k, v, mask), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights @ v, output)


def test_a_fully_masked_row_gives_zero_and_finite_gradients():
    q, k, v = (x.requires_grad_() for x in qkv(4, 6))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    output, weights = A.scaled_dot_product_attention(q, k, v, mask)
    assert weights[2].eq(0).all() and output[2].eq(0).all()
    torch.testing.assert_close(weights.sum(-1), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    output.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_an_integer_mask_is_refused():
    q, k, v = qkv(4, 6)
    with pytest.raises(TypeError, match="布尔"):
        A.scaled_dot_product_attention(q, k, v, torch.ones(4, 4, dtype=torch.long))


def test_gradients_are_right():
    q, k, v = (x.double().requires_grad_() for x in qkv(1, 4, 3))
    assert torch.autograd.gradcheck(
        lambda *x: A.scaled_dot_product_attention(*x, A.causal_mask(4))[0], (q, k, v))


def test_masks_have_the_documented_shapes_and_values():
    assert A.causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    mask = A.padding_mask(torch.tensor([[1, 1, 0]]))
    assert mask.shape == (1, 1, 1, 3) and mask.flatten().tolist() == [True, True, False]
    with pytest.raises(ValueError, match="B, T"):
        A.padding_mask(torch.ones(3))


def test_causal_attention_leaks_nothing_from_the_future():
    layer = A.MultiHeadSelfAttention(32, 4).eval()
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(3))
    changed = x.clone()
    changed[:, 5:] += 10.0
    before, after = (layer(y, A.causal_mask(9))[0] for y in (x, changed))
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    open_before, open_after = (layer(y)[0] for y in (x, changed))
    assert not torch.allclose(open_before[:, :5], open_after[:, :5])  # 没有掩码就会漏


def test_padding_does_not_change_the_real_tokens():
    layer = A.MultiHeadSelfAttention(32, 4).eval()
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(4))
    padded = torch.cat([x, torch.full((1, 3, 32), 7.0)], dim=1)
    attention_mask = torch.tensor([[1] * 6 + [0] * 3])
    output, weights = layer(padded, A.padding_mask(attention_mask))
    torch.testing.assert_close(output[:, :6], layer(x)[0], atol=1e-5, rtol=1e-5)
    assert weights[..., 6:].eq(0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_equals_torch_multihead_attention(bias):
    own = A.MultiHeadSelfAttention(32, 4, bias=bias).eval()
    theirs = nn.MultiheadAttention(32, 4, bias=bias, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([own.query.weight, own.key.weight, own.value.weight]))
        theirs.out_proj.weight.copy_(own.output.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([own.query.bias, own.key.bias, own.value.bias]))
            theirs.out_proj.bias.copy_(own.output.bias)
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(5))
    expected, expected_weights = theirs(x, x, x, average_attn_weights=False, attn_mask=~A.causal_mask(7))
    output, weights = own(x, A.causal_mask(7))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-5, rtol=1e-5)


def test_equals_a_hugging_face_layer_with_its_own_weights():
    bert = tiny_bert(attn_implementation="eager").eval()
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(6))
    attention_mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    additive = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
    block = bert.bert.encoder.layer[1].attention
    expected, expected_weights = block.self(x, attention_mask=additive)
    output, weights = A.MultiHeadSelfAttention.from_bert_layer(block.self)(x, A.padding_mask(attention_mask))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-5, rtol=1e-5)
    whole = A.MultiHeadSelfAttention.from_bert_layer(block)
    output, _ = whole(x, A.padding_mask(attention_mask))
    after_norm = block.output.LayerNorm(output + x)
    torch.testing.assert_close(after_norm, block(x, additive)[0], atol=1e-5, rtol=1e-5)


def test_from_bert_layer_copies_and_refuses_other_layers():
    block = tiny_bert().bert.encoder.layer[0].attention
    own = A.MultiHeadSelfAttention.from_bert_layer(block)
    with torch.no_grad():
        own.query.weight.zero_()
    assert block.self.query.weight.abs().sum() > 0
    with pytest.raises(TypeError, match="Linear"):
        A.MultiHeadSelfAttention.from_bert_layer(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="平均"):
        A.MultiHeadSelfAttention(32, 5)


@pytest.mark.parametrize("mask", [None, "causal", "padding", "nobody"])
def test_the_notebook_agrees(mask):
    """03 手写的注意力、掩码、多头，与 utils 的一比特不差；参数的名字也一样。"""
    hand = handmade("self_attention", "attend", "causal_mask", "padding_mask", "MultiHeadSelfAttention", "one_sentence",
                    torch=torch, nn=nn, math=math)
    real = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    assert torch.equal(hand["causal_mask"](7), A.causal_mask(7))
    assert torch.equal(hand["padding_mask"](real), A.padding_mask(real))
    mask = {"causal": A.causal_mask(7), "padding": A.padding_mask(real), "nobody": torch.zeros(7, 7, dtype=torch.bool)}.get(mask)
    for mine, theirs in zip(hand["attend"](*qkv(2, 3, 7, 5), mask), A.scaled_dot_product_attention(*qkv(2, 3, 7, 5), mask), strict=True):
        assert torch.equal(mine, theirs)
    torch.manual_seed(0)
    packaged, own = A.MultiHeadSelfAttention(32, 4), hand["MultiHeadSelfAttention"](32, 4)
    own.load_state_dict(packaged.state_dict())
    x = torch.randn(2, 7, 32)
    for mine, theirs in zip(own(x, mask), packaged(x, mask), strict=True):
        assert torch.equal(mine, theirs)
    if mask is None:
        looped = packaged.output(hand["one_sentence"](x[0], 4, packaged.query, packaged.key, packaged.value))
        torch.testing.assert_close(looped, packaged(x)[0][0], atol=1e-5, rtol=1e-5)


def test_get_attentions_equals_the_model_and_restores_it(tokenizer):
    model = tiny_bert()
    model.train()
    model.bert.encoder.layer[0].eval()
    before = [module.training for module in model.modules()]
    assert model.config._attn_implementation == "sdpa"  # 默认实现，本来拿不到权重
    found = reading.get_attentions(model, tokenizer, SENTENCE)
    assert found.tokens == ["[CLS]", *SENTENCE, "[SEP]"]
    assert found.weights.shape == (2, 4, 9, 9) and (found.layers, found.heads) == (2, 4)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, 4, 9))
    assert model.config._attn_implementation == "sdpa"
    assert [module.training for module in model.modules()] == before
    eager = tiny_bert(attn_implementation="eager").eval()
    expected = eager(**tokenizer(SENTENCE, return_tensors="pt"), output_attentions=True).attentions
    torch.testing.assert_close(found.weights, torch.cat(expected).detach())


def test_get_attentions_restores_the_model_after_an_error(tokenizer, monkeypatch):
    model = tiny_bert().train()
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("坏了")))
    with pytest.raises(RuntimeError, match="坏了"):
        reading.get_attentions(model, tokenizer, SENTENCE)
    assert model.config._attn_implementation == "sdpa" and model.training


def test_get_attentions_takes_a_pair(tokenizer):
    tokens = reading.get_attentions(tiny_bert(), tokenizer, "今天", "好日子").tokens
    assert tokens == ["[CLS]", "今", "天", "[SEP]", "好", "日", "子", "[SEP]"]


@pytest.mark.parametrize(
    "text, message", [("", "空"), (" \n", "空"), ("好" * 23, "24 个位置"), ("好" * 10000, "10002")],
    ids=["empty", "blank", "too long", "very long"])
def test_bad_sentences_are_refused_in_chinese(tokenizer, text, message):
    with pytest.raises(ValueError, match=message):
        reading.get_attentions(tiny_bert(), tokenizer, text)


def test_cap_and_type_of_the_sentence(tokenizer):
    with pytest.raises(ValueError, match="最多画 5 个"):
        reading.get_attentions(tiny_bert(), tokenizer, SENTENCE, max_tokens=5)
    with pytest.raises(TypeError, match="字符串"):
        reading.get_attentions(tiny_bert(), tokenizer, 42)


@pytest.mark.parametrize("decoder", [False, True])
def test_head_vectors_give_the_models_own_weights(tokenizer, decoder):
    model = tiny_bert(is_decoder=decoder)
    found = reading.get_head_vectors(model, tokenizer, SENTENCE, layer=1, head=2)
    assert found.q.shape == (9, 8)
    _, weights = A.scaled_dot_product_attention(found.q, found.k, found.v, found.mask)
    expected = reading.get_attentions(model, tokenizer, SENTENCE).weights[1, 2]
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="没有第 2 层"):
        reading.get_head_vectors(model, tokenizer, SENTENCE, layer=2)


def merged_by_loop(weights: torch.Tensor, spans: list[tuple[int, int]]) -> torch.Tensor:
    """照着定义写的双重循环：列相加，行取平均。"""
    result = torch.zeros(*weights.shape[:2], len(spans), len(spans))
    for a, (top, bottom) in enumerate(spans):
        for b, (left, right) in enumerate(spans):
            for i in range(top, bottom):
                result[:, :, a, b] += weights[:, :, i, left:right].sum(-1) / (bottom - top)
    return result


def random_attentions(tokens: list[str]) -> reading.Attentions:
    generator = torch.Generator().manual_seed(0)
    return reading.Attentions(tokens, torch.randn(2, 3, len(tokens), len(tokens), generator=generator).softmax(-1))


@pytest.mark.parametrize(
    "tokens, groups, spans, words",
    [(["[CLS]", "trans", "##form", "##er", "模", "型", "[SEP]"], None,
      [(0, 1), (1, 4), (4, 5), (5, 6), (6, 7)], ["[CLS]", "transformer", "模", "型", "[SEP]"]),
     (["[CLS]", "北", "京", "队", "赢", "了", "[SEP]"], [None, 0, 0, 0, 1, 1, None],
      [(0, 1), (1, 4), (4, 6), (6, 7)], ["[CLS]", "北京队", "赢了", "[SEP]"]),
     (["##a", "##", "[SEP]", "[SEP]"], [None] * 4, [(0, 1), (1, 2), (2, 3), (3, 4)], ["##a", "##", "[SEP]", "[SEP]"])],
    ids=["wordpiece", "words", "nothing to merge"])
def test_merging_subwords_equals_a_loop_and_keeps_rows_at_one(tokens, groups, spans, words):
    found = random_attentions(tokens)
    merged = reading.merge_subwords(found, groups)
    assert merged.tokens == words
    torch.testing.assert_close(merged.weights, merged_by_loop(found.weights, spans))
    torch.testing.assert_close(merged.weights.sum(-1), torch.ones(2, 3, len(words)))


def test_merging_refuses_labels_of_another_length():
    with pytest.raises(ValueError, match="3 个词元，却收到 2 个标签"):
        reading.merge_subwords(random_attentions(["a", "b", "c"]), [0, 0])


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "trans", "##form", "##er", "模", "型"])}
    inner = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")


def test_word_groups_come_from_the_tokenizer_and_keep_the_two_texts_apart(tokenizer):
    pieces = wordpiece_tokenizer()
    assert reading.word_groups(pieces, "transformer 模") == [(0, 0)] * 3 + [(0, 1)]
    # 两段之间没有分隔的词元时，前一段的第 0 个词和后一段的第 0 个词也不能并在一起
    groups = reading.word_groups(pieces, "transformer", "transformer")
    assert reading.merge_subwords(random_attentions(["trans", "##form", "##er"] * 2), groups).tokens == ["transformer"] * 2
    assert reading.word_groups(tokenizer, "今天")[0] is None  # [CLS] 不属于任何词
