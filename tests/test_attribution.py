"""归因：rollout 照手算、梯度照差分、遮挡照一个一个来；比较的两头（遮挡自己与随机）各在该在的地方。"""

from __future__ import annotations

import math

import pytest
import torch
from transformers import BertForMaskedLM

from utils.analysis import attribution as A
from utils.corpus.news import generate
from utils.presets import choose_preset
from utils.tokenization.tokenizer import build_tokenizer
from utils.training.batches import bert_config


@pytest.fixture(scope="module")
def docs():
    return generate("train", 60)


@pytest.fixture(scope="module")
def tokenizer(docs):
    return build_tokenizer("char", docs["intro"][:] + docs["body"][:])


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return BertForMaskedLM(bert_config(choose_preset("smoke"), tokenizer)).eval()


@pytest.fixture(scope="module")
def ids(tokenizer):
    ids = tokenizer("今天是个好天气，老人出门看花。", return_tensors="pt")["input_ids"][0]
    ids[5] = tokenizer.mask_token_id
    return ids


def test_rollout_by_hand():
    first = torch.tensor([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]])     # 两个头，平均是 [[.75, .25], [.25, .75]]
    second = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).expand(2, -1, -1)
    mixed1, mixed2 = torch.tensor([[0.875, 0.125], [0.125, 0.875]]), torch.full((2, 2), 0.5)
    torch.testing.assert_close(A.rollout(torch.stack([first, second])), mixed2 @ mixed1)
    torch.testing.assert_close(A.rollout(torch.stack([first, second]), residual=0), second[0] @ first.mean(0))
    torch.testing.assert_close(A.rollout(torch.stack([first, second]), residual=1), torch.eye(2))


def test_rollout_rows_sum_to_one_and_order_of_layers_matters():
    torch.manual_seed(0)
    weights = torch.randn(4, 3, 9, 9).softmax(-1)
    torch.testing.assert_close(A.rollout(weights).sum(-1), torch.ones(9))
    assert not torch.allclose(A.rollout(weights), A.rollout(weights.flip(0)), atol=1e-4)


def test_rollout_refuses_the_wrong_shape():
    with pytest.raises(ValueError, match="L, H, T, T"):
        A.rollout(torch.rand(3, 4, 5))
    with pytest.raises(ValueError, match="0 到 1"):
        A.rollout(torch.rand(1, 1, 2, 2), residual=1.5)


def test_gradient_x_input_is_the_slope_of_scaling_one_embedding(model, ids):
    """把第 j 个词嵌入乘上 1 + ε，log p 的变化率就是第 j 个数。"""
    got = A.gradient_x_input(model, ids, 5, 30)
    embedding = model.get_input_embeddings()(ids[None]).detach()

    def log_p(scale, j):
        changed = embedding.clone()
        changed[0, j] *= scale
        with torch.no_grad():
            return model(inputs_embeds=changed).logits[0, 5].double().log_softmax(-1)[30].item()

    for j in (0, 3, 5, 9):
        slope = (log_p(1.01, j) - log_p(0.99, j)) / 0.02
        assert got[j].item() == pytest.approx(slope, abs=0.02 * got.abs().max().item())
    assert all(p.grad is None for p in model.parameters())


def test_occlusion_equals_masking_one_by_one(model, ids, tokenizer):
    mask = tokenizer.mask_token_id
    got = A.occlusion(model, ids, 5, 30, mask)

    def log_p(row):
        with torch.no_grad():
            return model(row[None]).logits[0, 5].log_softmax(-1)[30]

    for j in (1, 4, 5, 10):
        hidden = ids.clone()
        hidden[j] = mask
        assert got[j].item() == pytest.approx((log_p(ids) - log_p(hidden)).item(), abs=1e-4)
    assert got[5].item() == pytest.approx(0, abs=1e-5) and got.abs().max() > 1e-3


def test_log_probability_does_not_depend_on_the_batch(model, ids):
    rows = torch.stack([ids, ids.roll(1), ids.roll(2)])
    torch.testing.assert_close(A.log_probability(model, rows, 5, 30, 2), A.log_probability(model, rows, 5, 30), atol=1e-5, rtol=1e-5)


def test_spearman_with_ties():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert A.spearman(x, x.exp()) == pytest.approx(1) and A.spearman(x, -x) == pytest.approx(-1)
    assert A.spearman(x, torch.tensor([5.0, 6.0, 7.0, 8.0, 7.0])) == pytest.approx(0.8207826817)           # 有并列名次的标准算例
    assert math.isnan(A.spearman(x, torch.ones(5))) and math.isnan(A.spearman(torch.ones(5), x))
    with pytest.raises(ValueError, match="一样长"):
        A.spearman(x, x[:3])


def test_mean_interval_ignores_nan():
    mean, half = A.mean_interval([1.0, 3.0, math.nan])
    assert mean == 2 and half == pytest.approx(12.7062, rel=1e-5)          # 自由度 1
    for n, quantile in ((5, 2.77645), (7, 2.44691), (11, 2.22814), (21, 2.08596), (61, 2.00030)):          # t 分布表
        x = torch.arange(n).double()
        assert A.mean_interval(x.tolist())[1] == pytest.approx(quantile * x.std().item() / n ** 0.5, rel=1e-5)
    assert A.mean_interval([1.0])[0] == 1 and math.isnan(A.mean_interval([1.0])[1])
    assert all(map(math.isnan, A.mean_interval([math.nan])))


def test_questions_hide_a_known_fact(docs, tokenizer):
    questions = A.fact_questions(docs, tokenizer, 256, 9)
    assert len(questions) == 9
    for q in questions:
        assert q.ids[q.position] == tokenizer.mask_token_id and (q.ids == tokenizer.mask_token_id).sum() == 1
        assert q.answer not in tokenizer.all_special_ids and q.answer in q.ids.tolist()                     # 导语里还写着
        assert q.position not in q.others and not torch.isin(q.ids[q.others], torch.tensor(tokenizer.all_special_ids)).any()
    with pytest.raises(ValueError, match="出不了题"):
        A.fact_questions([{"intro": "下雨。", "body": "天晴。", "facts": "[]"}], tokenizer, 256, 3)


def test_comparison_has_its_two_ends(docs, tokenizer, model):
    """遮挡和自己的相关是 1，随机的接近 0；遮住帮忙最多的，比随便遮掉得多；模型的状态不变。"""
    questions = A.fact_questions(docs, tokenizer, 256, 8)
    model.train()
    table = A.compare_attributions(model, questions, tokenizer.mask_token_id)
    assert model.training
    model.eval()
    assert set(table) == {*A.METHODS, "遮挡", "随机"} and all(len(v) == 8 for row in table.values() for v in row.values())
    assert table["遮挡"]["相关"] == pytest.approx([1.0] * 8)
    assert abs(sum(table["随机"]["相关"]) / 8) < 0.15
    assert sum(table["遮挡"]["掉了"]) > sum(table["随机"]["掉了"]) + 0.01
    with pytest.raises(ValueError, match="k=0"):
        A.compare_attributions(model, questions, tokenizer.mask_token_id, k=0)
