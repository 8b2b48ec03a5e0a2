"""utils.scaling.measure：公式与真的模型对得上，实测的数合情理。"""

from dataclasses import replace

import pytest
import torch
from transformers import BertForMaskedLM

from utils.models.checkpoints import load_checkpoint
from utils.presets import PRESETS
from utils.scaling.measure import count_parameters, matmul_speed, measure_step, step_flops, training_bytes
from utils.training.batches import bert_config

CPU = torch.device("cpu")
MIDDLE = replace(PRESETS["cpu"], layers=2, hidden=256, heads=4, max_len=256)


@pytest.fixture(scope="module")
def tokenizer():
    return load_checkpoint("mlm", BertForMaskedLM, prefer="shipped")[1]


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("vocab", [3000, 21128])
def test_parameters_are_exact(name, vocab, tokenizer):
    with torch.device("meta"):
        model = BertForMaskedLM(bert_config(PRESETS[name], tokenizer, vocab_size=vocab))
    parts = count_parameters(PRESETS[name], vocab)
    assert sum(parts.values()) == model.num_parameters()
    assert parts["各层"] == sum(p.numel() for p in model.bert.encoder.parameters())
    assert parts["嵌入"] == sum(p.numel() for p in model.bert.embeddings.parameters())


def test_the_gpu_preset_is_the_classical_recipe():
    gpu = PRESETS["gpu"]
    assert (gpu.layers, gpu.hidden, gpu.heads, gpu.max_len) == (6, 768, 12, 512)
    assert sum(count_parameters(gpu, 21128).values()) == pytest.approx(59.8e6, rel=0.01)


def test_flops_agree_with_the_profiler(tokenizer):
    """PyTorch 自己数的浮点运算（只数矩阵乘法），与公式相差不到一成。"""
    from torch.utils.flop_counter import FlopCounterMode

    from utils.training.losses import targets_only
    model = BertForMaskedLM(bert_config(MIDDLE, tokenizer, attn_implementation="eager"))
    ids = torch.randint(5, len(tokenizer), (2, 128))
    labels = torch.full_like(ids, -100)
    labels[:, :64] = 5                                    # 128 个目标，不用再补
    with FlopCounterMode(display=False) as counter, targets_only(model, shift=False):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
    assert counter.get_total_flops() == pytest.approx(step_flops(MIDDLE, len(tokenizer), 2, 128, 128), rel=0.1)


def test_bytes_scale_as_they_should():
    one, two = (sum(training_bytes(MIDDLE, 3000, b, 128, 10 * b).values()) for b in (1, 2))
    fixed = training_bytes(MIDDLE, 3000, 1, 128, 10)["权重、梯度、优化器"]
    assert fixed == 16 * sum(count_parameters(MIDDLE, 3000).values()) and two - fixed == pytest.approx(2 * (one - fixed))
    whole, half = (training_bytes(MIDDLE, 3000, 1, 128, 10, half=h)["激活"] for h in (False, True))
    assert whole == 2 * half
    short, long = (training_bytes(MIDDLE, 3000, 1, t, 10)["激活"] for t in (128, 256))
    assert 2 * short < long < 4 * short                   # 有一项随长度的平方长


def test_measured_memory_is_near_the_formula(tokenizer):
    expected = sum(training_bytes(MIDDLE, len(tokenizer), 8, 256, 800).values())
    state = torch.random.get_rng_state()
    real = measure_step(MIDDLE, tokenizer, CPU, 8, 256, 800, steps=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0.5 * expected < real.peak < 2 * expected, (expected / 1e6, real.peak / 1e6)
    assert 0 < real.seconds < 60


def test_matmul_speed_is_positive():
    assert 1e8 < matmul_speed(CPU, 64, seconds=0.05) < 1e15


@pytest.mark.parametrize("length, targets, steps", [(257, 10, 2), (16, 1000, 2), (16, 10, 1)])
def test_bad_sizes_are_refused(length, targets, steps, tokenizer):
    with pytest.raises(ValueError, match="最多"):
        measure_step(MIDDLE, tokenizer, CPU, 2, length, targets, steps)
