"""按时间训练：到点就停，学习率按时间走，学得到东西，别的设置照原样。"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import BertForMaskedLM, BertLMHeadModel

from utils.corpus.news import generate
from utils.presets import PRESETS, set_seed
from utils.tokenization.tokenizer import build_tokenizer
from utils.training import batches, losses, timed
from utils.training import loop as training

TINY = replace(PRESETS["smoke"], layers=1, hidden=32, heads=2, batch_size=8, lr=1e-2)


@pytest.fixture(scope="module")
def data():
    docs = generate("train", 64)
    tokenizer = build_tokenizer("char", docs["intro"][:] + docs["body"][:])
    return tokenizer, batches.encode_docs(docs, tokenizer, 256)


def arguments(folder, **changes):
    return training.training_arguments(folder, 1, replace(TINY, **changes), torch.device("cpu"), 0)


@pytest.mark.parametrize("model_class", [BertForMaskedLM, BertLMHeadModel])
def test_it_learns_and_stops_in_time(model_class, data, tmp_path):
    tokenizer, encoded = data
    set_seed(0)
    decoder = model_class is BertLMHeadModel
    model = model_class(batches.bert_config(TINY, tokenizer, **({"is_decoder": True, "loss_type": "ForCausalLM"} if decoder else {})))
    collate = batches.clm_collator(tokenizer) if decoder else batches.mlm_collator(tokenizer)
    held = batches.fixed_batches(encoded, collate, 32)
    before = losses.evaluate(model, held, shift=decoder)[0]
    began = timed.time.perf_counter()
    steps = timed.train_for(4.0, model, encoded, collate, arguments(tmp_path))
    used = timed.time.perf_counter() - began
    assert steps >= 3 and 4.0 <= used < 60                             # 另加 Trainer 的准备；机器忙时最后一步也会慢
    assert losses.evaluate(model, held, shift=decoder)[0] < before - 0.2
    assert not model.training and not list(tmp_path.iterdir())         # 什么也不存


def test_the_learning_rate_follows_the_clock(monkeypatch):
    """升温到时限的一成，再线性降到 0；过了时限就停。"""
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(timed, "time", SimpleNamespace(perf_counter=lambda: now.value))
    optimizer = SimpleNamespace(param_groups=[{"lr": 9.0}, {"lr": 9.0}])
    control = SimpleNamespace(should_training_stop=False)
    deadline = timed.Deadline(10, lr=0.4, warmup=0.1)
    deadline.on_train_begin(None, None, control)
    seen = []
    for second in (0, 0.5, 1, 5.5, 10, 12):
        now.value = 100.0 + second
        deadline.on_step_begin(None, None, control, optimizer=optimizer)
        assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"]
        seen.append(optimizer.param_groups[0]["lr"])
        deadline.on_step_end(None, None, control)
        assert control.should_training_stop is (second >= 10)
    assert seen == pytest.approx([0, 0.2, 0.4, 0.2, 0, 0])


def test_no_warmup_starts_at_the_top(monkeypatch):
    deadline = timed.Deadline(10, lr=0.4, warmup=0)
    monkeypatch.setattr(timed, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    optimizer = SimpleNamespace(param_groups=[{"lr": 9.0}])
    deadline.on_train_begin(None, None, None)
    deadline.on_step_begin(None, None, None, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.4


@pytest.mark.parametrize("seconds", [0, -3])
def test_a_bad_limit_is_refused(seconds, data, tmp_path):
    tokenizer, encoded = data
    with pytest.raises(ValueError, match="正数"):
        timed.train_for(seconds, None, encoded, batches.mlm_collator(tokenizer), arguments(tmp_path))
