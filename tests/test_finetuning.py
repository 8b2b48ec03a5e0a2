"""微调的几种做法：冻住的不动，LoRA 从零开始、拿掉就还原，前缀掩码该看的看、不该看的一点不漏。"""

from dataclasses import replace

import pytest
import torch
from transformers import BertForMaskedLM, BertLMHeadModel

from utils.corpus.news import generate
from utils.presets import PRESETS
from utils.tokenization.tokenizer import build_tokenizer
from utils.training import finetuning as F
from utils.training.batches import bert_config, clm_collator, encode_docs, fixed_batches
from utils.training.losses import evaluate

PRESET = replace(PRESETS["smoke"], layers=3, batch_size=8)


@pytest.fixture(scope="module")
def docs():
    return generate("train", 60, 3)


@pytest.fixture(scope="module")
def tokenizer(docs):
    return build_tokenizer("char", docs["intro"][:] + docs["body"][:], model_max_length=256)


@pytest.fixture(scope="module")
def encoded(docs, tokenizer):
    return encode_docs(docs, tokenizer, 256)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    made = BertLMHeadModel(bert_config(PRESET, tokenizer, is_decoder=True)).eval()
    made.loss_type = "ForCausalLM"
    return made


@pytest.fixture
def ids(tokenizer):
    return torch.randint(5, len(tokenizer), (2, 12), generator=torch.Generator().manual_seed(1))


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_frozen_parts_do_not_move_and_the_rest_does(model, encoded, tokenizer, tmp_path):
    before = snapshot(F.freeze_bottom(model, 2))
    F.adapt(model, encoded, clm_collator(tokenizer), 3, PRESET, tmp_path, seed=0)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name in before if name.startswith(("bert.embeddings.", "bert.encoder.layer.0.", "bert.encoder.layer.1."))}
    assert frozen and not moved & frozen
    assert {name for name in before if name.startswith("bert.encoder.layer.2.") and name.endswith("weight")} <= moved
    assert 0 < F.trainable_share(model) < 0.5


@pytest.mark.parametrize("layers", [-1, 4])
def test_cannot_freeze_layers_that_do_not_exist(model, layers):
    with pytest.raises(ValueError, match="只有 3 层"):
        F.freeze_bottom(model, layers)


def test_lora_starts_at_the_old_function_and_can_be_taken_off(model, encoded, tokenizer, ids, tmp_path):
    masked = BertForMaskedLM(type(model.config)(**(model.config.to_dict() | {"is_decoder": False}))).eval()
    masked.load_state_dict(model.state_dict())
    with torch.no_grad():
        before, blanks = model(ids).logits, masked(ids).logits
        F.add_lora(model, rank=4)
        torch.testing.assert_close(model(ids).logits, before)
    old = snapshot(model)
    F.adapt(model, encoded, clm_collator(tokenizer), 3, PRESET, tmp_path, seed=0, lr=1e-2)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, old[name])}
    assert moved and all("lora_" in name for name in moved)
    assert F.trainable_share(model) < 0.3
    with torch.no_grad():
        assert not torch.allclose(model(ids).logits, before, atol=1e-3)
        torch.testing.assert_close(F.as_masked_lm(model)(ids).logits, blanks)


def test_full_tuning_changes_the_masked_model_too(model, encoded, tokenizer, ids, tmp_path):
    before = F.as_masked_lm(model)(ids).logits
    F.adapt(model, encoded, clm_collator(tokenizer), 3, PRESET, tmp_path, seed=0)
    assert not torch.allclose(F.as_masked_lm(model)(ids).logits, before, atol=1e-3)


def test_prefix_mask_cell_by_cell():
    real = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).bool()
    visible = F.prefix_mask(torch.tensor([2, 4]), real)[:, 0] == 0
    for b, prompt in enumerate((2, 4)):
        for i in range(6):
            for j in range(6):
                expected = (j <= i or (i < prompt and j < prompt)) and (bool(real[b, j]) or i == j)
                assert visible[b, i, j].item() == expected, (b, i, j)


def test_prefix_model_sees_the_whole_prompt_and_never_the_future(model, ids):
    prompt = torch.tensor([5, 5])
    mask = F.prefix_mask(prompt, torch.ones_like(ids).bool())

    def changed(at):
        other = ids.clone()
        other[:, at] = (other[:, at] + 1 - 5) % 200 + 5
        with torch.no_grad():
            return (model(ids, attention_mask=mask).logits - model(other, attention_mask=mask).logits).abs().amax((0, 2))
    assert (changed(8)[:8] == 0).all() and changed(8)[8] > 0                 # 正文的未来，一点不漏
    assert (changed(4)[:4] > 0).all()                                        # 提示之内，后面的看得见


def test_prefix_collator_finds_the_prompt(encoded, tokenizer):
    rows = [encoded[i] for i in range(4)]
    batch, plain = F.prefix_collator(tokenizer)(rows), clm_collator(tokenizer)(rows)
    assert torch.equal(batch["labels"], plain["labels"]) and torch.equal(batch["input_ids"], plain["input_ids"])
    for row, labels in zip(batch["attention_mask"][:, 0] == 0, batch["labels"], strict=True):
        prompt = int((labels != -100).nonzero()[0])
        assert row[0, :prompt].all() and not row[0, prompt:].any()           # [CLS] 看见整个提示，看不见正文


def test_adapt_learns_quietly(model, encoded, tokenizer, tmp_path, capsys):
    held = fixed_batches(encoded, clm_collator(tokenizer), 30)
    before = evaluate(model, held, shift=True)[0]
    F.adapt(model, encoded, clm_collator(tokenizer), 30, PRESET, tmp_path, seed=0)
    assert evaluate(model, held, shift=True)[0] < before - 0.5 and not model.training
    assert "步" not in capsys.readouterr().out


def test_scratch_has_the_same_size_but_other_weights(model, tokenizer):
    fresh = F.scratch_like(model, PRESETS["cpu"], tokenizer, seed=1)
    assert {n: p.shape for n, p in fresh.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert fresh.config.is_decoder
    assert not torch.equal(fresh.bert.encoder.layer[2].output.dense.weight, model.bert.encoder.layer[2].output.dense.weight)
