"""计算量：公式与 torch 自己数出来的一致；电表记得准；按计算量训练，走的步数只由预算决定。"""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertLMHeadModel

from utils.corpus.news import generate
from utils.presets import PRESETS, set_seed
from utils.tokenization.tokenizer import build_tokenizer
from utils.training import batches, losses, timed
from utils.training import loop as training
from utils.training.compute import FlopsMeter, forward_flops

TINY = replace(PRESETS["smoke"], layers=2, hidden=32, heads=2, batch_size=8, lr=1e-2)


@pytest.fixture(scope="module")
def data():
    docs = generate("train", 64)
    tokenizer = build_tokenizer("char", docs["intro"][:] + docs["body"][:])
    return tokenizer, batches.encode_docs(docs, tokenizer, 256)


def decoder(tokenizer, **changes):
    set_seed(0)
    model = BertLMHeadModel(batches.bert_config(replace(TINY, **changes), tokenizer, is_decoder=True, loss_type="ForCausalLM"))
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("layers, hidden, batch, length", [(1, 32, 2, 16), (2, 32, 3, 40), (3, 64, 1, 128)])
def test_formula_is_what_torch_counts(data, layers, hidden, batch, length):
    """一步训练（词表头只算有标签的位置）：torch 数到的与公式相差不到千分之一；层数、宽度、长度各变一变。"""
    tokenizer, _ = data
    model = decoder(tokenizer, layers=layers, hidden=hidden)
    ids = torch.randint(5, 50, (batch, length))
    labels = ids.clone()
    labels[:, : length // 2] = -100
    with losses.targets_only(model, shift=True), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
    targets = int((labels[:, 1:] != -100).sum())
    expected = 3 * forward_flops(model.config, batch, length, targets + -targets % losses.TARGETS)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("lean", [True, False])
def test_the_meter_is_what_torch_counts(data, lean):
    """一步真的训练，电表与 torch 数的一样：词表头只算有标签的位置，或者每个位置都算。"""
    tokenizer, encoded = data
    model = decoder(tokenizer)
    meter = FlopsMeter(batches.clm_collator(tokenizer), model.config, lean)
    batch = meter([encoded[i] for i in range(8)])
    with losses.targets_only(model, shift=True) if lean else nullcontext(), FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    assert counter.get_total_flops() == pytest.approx(meter.read(), rel=1e-3)


def test_the_meter_adds_up_every_batch(data):
    tokenizer, encoded = data
    model, collate = decoder(tokenizer), batches.clm_collator(tokenizer)
    meter = FlopsMeter(collate, model.config)
    total = 0.0
    for start in (0, 8, 16):
        rows = [encoded[i] for i in range(start, start + 8)]
        batch = meter(rows)
        assert all(torch.equal(batch[k], v) for k, v in collate(rows).items())             # 原样交出去
        targets = int((batch["labels"][:, 1:] != -100).sum())
        total += 3 * forward_flops(model.config, *batch["labels"].shape, targets + -targets % losses.TARGETS)
        assert meter.read() == meter.used == pytest.approx(total)


def test_training_by_flops_does_not_depend_on_the_clock(data, tmp_path, monkeypatch):
    """预算是浮点运算数：真的时钟怎样走都不影响；同样的种子，两次练出的权重一样；预算加倍，步数约加倍。"""
    tokenizer, encoded = data

    def run(budget, seconds):
        now = iter(range(10**9))
        monkeypatch.setattr(timed.time, "perf_counter", lambda: seconds * next(now))
        model = decoder(tokenizer)
        meter = FlopsMeter(batches.clm_collator(tokenizer), model.config)
        args = training.training_arguments(tmp_path, 1, TINY, torch.device("cpu"), 0)
        steps = timed.train_for(budget, model, encoded, meter, args, clock=meter.read)
        assert budget <= meter.used < 1.15 * budget
        return steps, model

    steps, model = run(8e9, 0.001)
    again, twin = run(8e9, 1000.0)
    assert steps == again >= 5
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert run(16e9, 0.001)[0] == pytest.approx(2 * steps, abs=2)
