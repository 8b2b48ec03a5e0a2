"""结构化的初值：位置照公式；还没训练，看邻居的头看着邻居，抄写头看着上次跟在后面的字。"""

from __future__ import annotations

import pytest
import torch
from transformers import BertForMaskedLM, BertLMHeadModel

from utils.corpus.news import generate
from utils.models import initialization as I
from utils.presets import choose_preset
from utils.tokenization.tokenizer import build_tokenizer
from utils.training.batches import bert_config

N = 40                                                    # 一遍多少个不重复的字


@pytest.fixture(scope="module")
def tokenizer():
    docs = generate("train", 100)
    return build_tokenizer("char", docs["intro"][:] + docs["body"][:])


def model_of(kind, tokenizer, preset, **changes):
    torch.manual_seed(0)
    return kind(bert_config(choose_preset(preset), tokenizer, attn_implementation="eager", **changes)).eval()


def encoder(tokenizer, preset="cpu"):
    return model_of(BertForMaskedLM, tokenizer, preset)


def decoder(tokenizer, preset="cpu"):
    return model_of(BertLMHeadModel, tokenizer, preset, is_decoder=True)


@torch.no_grad()
def twice(model, tokenizer):
    """一串不重复的字写两遍：各层的注意力 [(H, 2N, 2N)]。"""
    once = torch.randperm(len(tokenizer) - 5, generator=torch.Generator().manual_seed(1))[:N] + 5
    return [w[0] for w in model(torch.cat([once, once])[None], output_attentions=True).attentions]


def share(weights, shift, at=slice(4, 2 * N - 4)):
    """有多少位置 i 最看重 i + shift。"""
    i = torch.arange(2 * N)[at]
    return (weights.argmax(-1)[i] == i + shift).float().mean().item()


def test_positions_by_formula(tokenizer):
    model = I.set_positions(model_of(BertForMaskedLM, tokenizer, "cpu"))
    table = model.bert.embeddings.position_embeddings.weight                                 # (T, D)
    scale = 3 * 2 ** 0.5 * model.config.initializer_range
    for t, n, omega in ((0, 0, 2.0), (7, 0, 2.0), (255, 15, 0.5), (3, 5, 2 * 0.25 ** (1 / 3))):
        angle = torch.tensor(t * omega)
        torch.testing.assert_close(table[t, 2 * n], scale * angle.sin(), atol=1e-5, rtol=0)
        torch.testing.assert_close(table[t, 2 * n + 1], scale * angle.cos(), atol=1e-5, rtol=0)
    assert table.requires_grad and (table[:, 32:] == 0).all()


@pytest.mark.parametrize("preset, used", [("smoke", 2), ("cpu", 4), ("gpu", 4)])
def test_aimed_heads_look_at_their_neighbours(tokenizer, preset, used):
    model = encoder(tokenizer, preset)
    assert max(share(w, s) for w in twice(model, tokenizer)[0] for s in I.SHIFTS) < 0.3      # 随机的头
    weights = twice(I.aim_heads(I.set_positions(model)), tokenizer)[0]                       # (H, 2N, 2N)
    for head, shift in enumerate(I.SHIFTS[:used]):
        assert share(weights[head], shift) > 0.8, shift
    if used < len(weights):
        assert max(share(weights[used], s) for s in I.SHIFTS) < 0.4                          # 没有对准的头


def test_a_decoder_aims_only_to_the_left(tokenizer):
    weights = twice(I.aim_heads(I.set_positions(decoder(tokenizer))), tokenizer)[0]
    assert [share(weights[h], s) > 0.8 for h, s in ((0, -1), (1, -2), (2, 0))] == [True, True, False]


def mean_weight(weights, shift):
    """第二遍里，每个位置 i 分给 i + shift 的权重，取平均。"""
    i = torch.arange(N + 2, 2 * N - 2)
    return weights[i, i + shift].mean().item()


@pytest.mark.parametrize("preset, least", [("cpu", 0.03), ("gpu", 0.2)])
def test_copy_heads_of_a_decoder_lean_to_what_followed_last_time(tokenizer, preset, least):
    aimed = twice(I.aim_heads(I.set_positions(decoder(tokenizer, preset))), tokenizer)[1]
    ready = twice(I.prepare_heads(decoder(tokenizer, preset)), tokenizer)[1]
    for head in (0, 1):
        assert mean_weight(ready[head], 1 - N) > max(least, 2 * mean_weight(aimed[head], 1 - N))


def test_copy_heads_of_an_encoder_lean_to_the_same_place(tokenizer):
    """左邻、右邻相同的位置：上一遍的同一处（自己也算，所以至多一半）。"""
    aimed = twice(I.aim_heads(I.set_positions(encoder(tokenizer))), tokenizer)[1]
    ready = twice(I.prepare_heads(encoder(tokenizer)), tokenizer)[1]
    for head in (0, 1):
        assert mean_weight(ready[head], -N) > 0.05 > 2 * mean_weight(aimed[head], -N)


def test_nothing_is_frozen_and_nothing_is_left_over(tokenizer):
    model = decoder(tokenizer)
    names = set(model.state_dict())
    assert I.prepare_heads(model) is model and set(model.state_dict()) == names
    assert all(p.requires_grad and p.isfinite().all() for p in model.parameters())


def test_needs_two_layers_and_a_vocabulary_head(tokenizer):
    with pytest.raises(ValueError, match="至少 2 层"):
        I.prepare_heads(model_of(BertForMaskedLM, tokenizer, "smoke", num_hidden_layers=1))
    with pytest.raises(ValueError, match="词表头"):
        I.copy_heads(model_of(BertForMaskedLM, tokenizer, "smoke").bert)


def test_renewing_the_top_keeps_the_bottom(tokenizer):
    """留下的原样不动；换掉的确实换了，初值与新建的相同；绑在一起的词嵌入和词表头仍然绑着。"""
    model = decoder(tokenizer)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    assert I.renew_top(model, keep=2) is model
    moved = {name for name, w in model.state_dict().items() if not torch.equal(w, before[name])}
    assert moved and all(name.startswith(("bert.encoder.layer.2.", "cls.predictions.transform.")) for name in moved)
    assert "bert.encoder.layer.2.attention.self.query.weight" in moved
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    torch.manual_seed(5)
    I.renew_top(model)
    torch.manual_seed(5)
    fresh = I.prepare_heads(BertLMHeadModel(model.config))
    for part in ("bert.encoder.layer.1.", "bert.encoder.layer.2.", "cls.predictions.transform."):
        for name, w in fresh.state_dict().items():
            if name.startswith(part):
                torch.testing.assert_close(model.state_dict()[name], w, rtol=0, atol=0)


@pytest.mark.parametrize("keep", [0, 3, -1])
def test_renewing_needs_something_to_keep_and_something_to_renew(tokenizer, keep):
    with pytest.raises(ValueError, match="1 到 2 之间"):
        I.renew_top(decoder(tokenizer), keep)


def test_layer_0_of_an_encoder_fits_under_the_copy_heads_of_a_decoder(tokenizer):
    """MLM 的底层配上 CLM 的抄写头：块的次序相同，第 1 层的头照样看得见上次跟在后面的字。"""
    below = I.prepare_heads(encoder(tokenizer)).state_dict()
    model = I.prepare_heads(decoder(tokenizer))
    layer_0 = {name: w for name, w in below.items() if "layer.0." in name or "embeddings" in name}
    model.load_state_dict(layer_0, strict=False)
    weights = twice(model, tokenizer)[1]
    aimed = twice(I.aim_heads(I.set_positions(decoder(tokenizer))), tokenizer)[1]
    for head in (0, 1):
        assert mean_weight(weights[head], 1 - N) > max(0.05, 4 * mean_weight(aimed[head], 1 - N))
