"""角色：目标集照定义、得分照手算、头关得准；回看导语：与逐字写时的权重相同。"""

from __future__ import annotations

import json

import pytest
import torch
from transformers import BertForMaskedLM, BertLMHeadModel

from utils.analysis import ablation as A
from utils.analysis import roles as R
from utils.analysis.reading import get_attentions
from utils.corpus.news import generate
from utils.models.initialization import prepare_heads
from utils.presets import choose_preset
from utils.tokenization.tokenizer import build_tokenizer
from utils.training.batches import bert_config, encode_docs, fixed_batches, mlm_collator
from utils.training.losses import evaluate

DOC = {"intro": "青禾市下雨，雨大。", "body": "在青禾市，雨停。", "facts": json.dumps(
    [{"name": "city", "value": "青禾市"}, {"name": "w", "value": "雨"}, {"name": "x", "value": "不在"}])}
#        0     1 2 3 4 5 6 7 8 9     10    11 12 13 14 15 16 17 18  19
#        [CLS] 青 禾 市 下 雨 ， 雨 大 。 [SEP] 在 青 禾 市 ， 雨 停 。 [SEP]


@pytest.fixture(scope="module")
def docs():
    return generate("train", 100)


@pytest.fixture(scope="module")
def tokenizer(docs):
    return build_tokenizer("char", [*docs["intro"][:], *docs["body"][:], DOC["intro"], DOC["body"]])


def model_of(kind, tokenizer, seed=0, **changes):
    torch.manual_seed(seed)
    return kind(bert_config(choose_preset("smoke"), tokenizer, **changes)).eval()


@pytest.fixture(scope="module")
def model(tokenizer):
    return prepare_heads(model_of(BertForMaskedLM, tokenizer))


@pytest.fixture(scope="module")
def batches(docs, tokenizer):
    return fixed_batches(encode_docs(docs, tokenizer, 256), mlm_collator(tokenizer, seed=1), 8, batch_size=4)


def targets_of(role, causal=False, tokenizer=None):
    _, targets, _ = R.role_targets(DOC, tokenizer, 256, causal)
    table = targets[list(R.ROLES).index(role)]
    return {i: row.nonzero()[:, 0].tolist() for i, row in enumerate(table) if row.any()}


CHARS = [*range(1, 10), *range(11, 19)]


@pytest.mark.parametrize("role, expected", [
    ("previous", {i: [i - 1] for i in CHARS}),
    ("next", {i: [i + 1] for i in CHARS}),
    ("entity", {12: [1], 13: [2], 14: [3]}),                               # 「雨」只有一个字，不算
    ("same", {1: [12], 2: [13], 3: [14], 5: [7, 16], 6: [15], 7: [5, 16], 9: [18], 12: [1], 13: [2], 14: [3], 15: [6],
              16: [5, 7], 18: [9]}),
    ("copy", {7: [6], 12: [2], 13: [3], 14: [4], 15: [7], 16: [8], 18: [10]}),
    ("punctuation", {i: [j for j in (6, 9, 15, 18) if j != i] for i in CHARS}),
    ("sink", {i: [0, 10, 19] for i in CHARS}),
])
def test_targets_by_definition(tokenizer, role, expected):
    assert targets_of(role, tokenizer=tokenizer) == expected


def test_a_decoder_has_no_targets_to_the_right(tokenizer):
    for role in R.ROLES:
        full, causal = (targets_of(role, c, tokenizer) for c in (False, True))
        assert causal == {i: left for i, row in full.items() if (left := [j for j in row if j <= i])}, role
    assert targets_of("next", True, tokenizer) == {} and targets_of("sink", True, tokenizer)[5] == [0]


def test_a_fact_is_found_only_where_it_is_written_in_full():
    """12 不算出现在 120 里；一个字的值不算；只写了一处的不算。"""
    facts = [{"value": v} for v in ("12", "3", "王静", "刘洋")]
    found = R.fact_spans("12人，120元，3人，王静。", "王静说12人，3人，刘洋不在。", facts)
    assert [(f["value"], a, b) for f, a, b in found] == [("12", [0], [3]), ("王静", [12], [0])]


@pytest.mark.parametrize("kind, causal", [(BertForMaskedLM, False), (BertLMHeadModel, True)])
def test_scores_equal_a_loop_by_hand(docs, tokenizer, kind, causal):
    """成批、补齐算的，与一篇一篇用循环算的相同。"""
    model = model_of(kind, tokenizer, is_decoder=causal)
    chosen = [docs[i] for i in (3, 0, 7)] + [DOC]
    scores = R.score_roles(model, tokenizer, chosen, batch_size=3)
    for r, role in enumerate(R.ROLES):
        mass, uniform, count = torch.zeros(2, 4), 0.0, 0
        for doc in chosen:
            weights = get_attentions(model, tokenizer, doc["intro"], doc["body"]).weights
            targets = R.role_targets(doc, tokenizer, 256, causal)[1][r]
            for i in targets.any(-1).nonzero()[:, 0].tolist():
                mass += weights[:, :, i, targets[i]].sum(-1)
                uniform += targets[i].sum().item() / (i + 1 if causal else len(targets))
                count += 1
        if causal and role == "next":
            assert count == 0 and scores.scores[r].eq(0).all()
            continue
        torch.testing.assert_close(scores.scores[r], mass / count, atol=1e-5, rtol=1e-4, msg=role)
        assert scores.baseline[r].item() == pytest.approx(uniform / count, abs=1e-6)


def test_aimed_heads_are_found_and_random_heads_score_near_the_baseline(docs, tokenizer, model):
    chosen = docs.select(range(12))
    scores = R.score_roles(model, tokenizer, chosen)
    assert scores.best("previous") == [(0, 0)] and scores.best("next") == [(0, 1)]
    assert scores.excess[0, 0, 0] > 0.2 and scores.excess[1, 0, 1] > 0.2
    plain = R.score_roles(model_of(BertForMaskedLM, tokenizer, seed=3), tokenizer, chosen)
    assert plain.excess.abs().max() < 0.1


def test_uniform_attention_scores_exactly_the_baseline(docs, tokenizer):
    model = model_of(BertForMaskedLM, tokenizer)
    for layer in model.bert.encoder.layer:
        torch.nn.init.zeros_(layer.attention.self.query.weight)
    scores = R.score_roles(model, tokenizer, docs.select(range(6)))
    torch.testing.assert_close(scores.scores, scores.baseline[:, None, None].expand_as(scores.scores), atol=1e-5, rtol=1e-4)
    assert scores.excess.abs().max() < 1e-4


def test_error_shrinks_with_documents_and_is_zero_without_spread():
    sums = torch.tensor([1.0, 3.0, 1.0, 3.0]).view(4, 1, 1, 1)
    scores = R.RoleScores(sums, torch.ones(4, 1), torch.full((4, 1), 2))
    expected = (4 / 3 * 4 * 1.0) ** 0.5 / 8                                # 均值 1，各篇偏差 ±1（和，不是平均）
    assert scores.error.item() == pytest.approx(expected)
    again = R.RoleScores(sums.repeat(4, 1, 1, 1), torch.ones(16, 1), torch.full((16, 1), 2))
    assert again.error.item() == pytest.approx((16 / 15 * 16) ** 0.5 / 32)
    assert R.RoleScores(torch.ones(3, 1, 1, 1), torch.ones(3, 1), torch.full((3, 1), 2)).error.item() == 0


def test_best_refuses_what_does_not_exist(docs, tokenizer, model):
    scores = R.score_roles(model, tokenizer, [docs[0]])
    with pytest.raises(ValueError, match="没有叫"):
        scores.best("verb")
    with pytest.raises(ValueError, match="k 要在 1 到 8"):
        scores.best("copy", 9)
    with pytest.raises(ValueError, match="一篇文档也没有"):
        R.score_roles(model, tokenizer, [])
    with pytest.raises(ValueError, match="一个字一个词元"):
        R.role_targets(DOC, build_tokenizer("bpe", [DOC["intro"] * 9, DOC["body"] * 9]), 256)


def test_the_map_shows_every_head_and_the_baseline(docs, tokenizer, model):
    scores = R.score_roles(model, tokenizer, [docs[0], docs[1]])
    figure = R.role_figure(scores, "试验", ("previous", "sink"))
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 2 and f"{scores.baseline[0]:.1%}" in drawn[0].get_title()
    assert [t.get_text() for t in drawn[0].texts] == [f"{100 * x:.0f}" for x in scores.scores[0].flatten()]


# ---------------------------------------------------------------- 关掉头


def test_zeroing_equals_zeroing_the_output_matrix_by_hand(tokenizer, docs, batches):
    """关掉 (0, 2) 与 (1, 0)，等于把 W^O 里对应的 16 列清零；离开后一切照旧。"""
    model, other = (model_of(BertForMaskedLM, tokenizer) for _ in range(2))
    before = evaluate(model, batches, False)[0]
    with torch.no_grad():
        for layer, head in ((0, 2), (1, 0)):
            other.bert.encoder.layer[layer].attention.output.dense.weight[:, 16 * head: 16 * head + 16] = 0
    with A.without_heads(model, [(0, 2), (1, 0)]):
        torch.testing.assert_close(model(batches[0]["input_ids"]).logits, other(batches[0]["input_ids"]).logits, atol=1e-6, rtol=1e-5)
        off = evaluate(model, batches, False)[0]
    assert off != before and evaluate(model, batches, False)[0] == before
    assert A.ablation_cost(model, batches, [(0, 2), (1, 0)]) == pytest.approx(off - before)


def test_mean_ablation_puts_the_mean_over_real_tokens(tokenizer, batches):
    model, seen = model_of(BertForMaskedLM, tokenizer), []
    means = A.head_means(model, batches)
    dense = model.bert.encoder.layer[1].attention.output.dense
    hook = dense.register_forward_hook(lambda _, args, output: seen.append(args[0].detach()))
    for batch in batches:
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    real = torch.cat([x[batch["attention_mask"].bool()] for x, batch in zip(seen, batches, strict=True)])
    torch.testing.assert_close(means[1], real.mean(0), atol=1e-5, rtol=1e-4)
    with A.without_heads(model, [(1, 3)], means):
        model(batches[0]["input_ids"])
    hook.remove()
    torch.testing.assert_close(seen[-1][..., 48:], means[1, 48:].expand_as(seen[-1][..., 48:]))
    assert not torch.allclose(seen[-1][0, 0, :48], means[1, :48])          # 别的头没有动


def test_hooks_go_away_even_after_an_error(tokenizer, model):
    with pytest.raises(KeyError):
        with A.without_heads(model, [(0, 0)]):
            raise KeyError
    assert not model.bert.encoder.layer[0].attention.output.dense._forward_pre_hooks
    with pytest.raises(ValueError, match="没有层 2"):
        with A.without_heads(model, [(2, 0)]):
            pass


def test_random_heads_come_from_the_same_layers_and_are_others():
    generator = torch.Generator().manual_seed(0)
    heads, drawn = [(0, 1), (0, 2), (3, 5)], set()
    for _ in range(50):
        other = A.random_heads_like(heads, 6, generator)
        assert sorted(layer for layer, _ in other) == [0, 0, 3] and not set(other) & set(heads) and len(set(other)) == 3
        drawn |= set(other)
    assert drawn == {(0, 0), (0, 3), (0, 4), (0, 5), *((3, h) for h in range(5))}
    with pytest.raises(ValueError, match="不够抽"):
        A.random_heads_like([(0, 0), (0, 1), (0, 2)], 4, generator)


# ---------------------------------------------------------------- 回看导语


@pytest.fixture(scope="module")
def decoder(tokenizer):
    return model_of(BertLMHeadModel, tokenizer, is_decoder=True)


def test_looking_back_equals_the_weights_while_writing(tokenizer, decoder):
    """写第 m 个字时，只有它前面的词元：单独喂那一段，最后一行就是当时的权重。"""
    look = R.look_back(decoder, tokenizer, DOC["intro"], DOC["body"], DOC["facts"])
    assert look.weights.shape == (2, 4, 8, 20)
    assert look.facts == [("青禾市", [1, 2, 3], [1, 2, 3])]
    ids = tokenizer(DOC["intro"], DOC["body"], return_tensors="pt")["input_ids"]
    decoder.set_attn_implementation("eager")
    for m in (0, 3, 7):
        with torch.no_grad():
            short = decoder(ids[:, : 11 + m], output_attentions=True).attentions                           # 到第 m 个字之前
        torch.testing.assert_close(look.weights[:, :, m, : 11 + m], torch.cat(short)[:, :, -1], atol=1e-6, rtol=1e-4)
        assert look.weights[:, :, m, 11 + m:].eq(0).all()


def test_mass_compares_the_same_targets(tokenizer, decoder):
    look = R.look_back(decoder, tokenizer, DOC["intro"], DOC["body"], DOC["facts"])
    mass, onto = look.mass(), look.weights[..., [1, 2, 3]].sum(-1)         # (L, H, M)
    torch.testing.assert_close(mass["own"], onto[..., 1:4].mean(-1))
    torch.testing.assert_close(mass["other"], onto[..., [0, 4, 5, 6, 7]].mean(-1))
    assert mass["uniform"].item() == pytest.approx(sum(3 / (11 + m) for m in (1, 2, 3)) / 3)
    none = R.look_back(decoder, tokenizer, DOC["intro"], "雨停。", "[]").mass()
    assert none["own"].isnan().all() and none["uniform"].isnan()


def test_looking_back_needs_a_decoder(tokenizer, model):
    with pytest.raises(ValueError, match="is_decoder=True"):
        R.look_back(model, tokenizer, DOC["intro"], DOC["body"], "[]")
