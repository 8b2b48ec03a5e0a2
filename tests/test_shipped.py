"""附带检查点的制作：文档不与验证、测试集相同，批按长度排，遮盖的比例对，两种练法都在学。"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from utils import shipped as S
from utils.corpus import generate
from utils.environment import PRESETS
from utils.tokenization import build_tokenizer

PRESET = replace(PRESETS["smoke"], max_len=256, batch_size=8)


@pytest.fixture(scope="module")
def docs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S, "SHARD", 150)
        return S.training_documents(300, 2026)


@pytest.fixture(scope="module")
def tokenizer(docs):
    return build_tokenizer("char", docs["intro"][:] + docs["body"][:], model_max_length=256)


def test_first_shard_is_the_usual_training_set(docs, monkeypatch):
    usual = generate("train", 150, 2026)
    assert docs["intro"][:150] == usual["intro"][:] and docs["body"][150:] == generate("train", 150, 2027)["body"][:]
    monkeypatch.setattr(S, "SHARD", 150)
    assert S.training_documents(300, 2026, processes=2)[:] == docs[:]


def test_held_out_documents_are_left_out(monkeypatch):
    monkeypatch.setattr(S, "SHARD", 20)
    monkeypatch.setattr(S, "generate", lambda split, n, seed: generate("train", 7 if split == "test" else n and 20, 2026)
                        if split != "validation" else generate("validation", 20, seed))
    assert S.training_documents(20, 2026)["body"][:] == generate("train", 20, 2026)["body"][7:]


def test_batches_cover_every_document_once_and_lengths_are_close():
    lengths = np.random.default_rng(0).integers(20, 250, 1003)
    batches = S.length_batches(lengths, 8, np.random.default_rng(1))
    assert len(batches) == 125 and len({i for b in batches for i in b}) == 1000
    spread = np.mean([np.ptp(lengths[b]) for b in batches])
    assert spread < 0.2 * np.ptp(lengths)                                     # 乱取的批，差得远
    firsts = [lengths[b][0] for b in batches]
    assert firsts != sorted(firsts)                                           # 批与批之间打乱了


def test_hiding_follows_80_10_10(tokenizer):
    torch.manual_seed(0)
    ids = torch.randint(5, len(tokenizer), (200, 100))
    ids[:, 0], ids[:, 60:] = tokenizer.cls_token_id, tokenizer.pad_token_id
    shown, labels = S.hide(ids, tokenizer, 0.4)
    chosen = labels != -100
    assert not chosen[:, 0].any() and not chosen[:, 60:].any() and torch.equal(shown[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])
    assert chosen[:, 1:60].float().mean().item() == pytest.approx(0.4, abs=0.02)
    now = shown[chosen]
    assert (now == tokenizer.mask_token_id).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (now == ids[chosen]).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert now.min() >= 4


@pytest.mark.parametrize("kind, measure", [("mlm", "test_masked_nats"), ("clm", "test_body_nats")])
def test_both_ways_learn_and_agree_on_what_they_report(kind, measure, docs, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(S, "HELD", 20)
    started = np.log(len(tokenizer))
    _, by_steps = S.make(kind, docs, tokenizer, PRESET, steps=40)
    _, by_clock = S.make(kind, docs, tokenizer, PRESET, minutes=0.1)
    assert by_steps.keys() == by_clock.keys() and by_steps["steps"] == 40 and by_clock["steps"] > 0
    for info in (by_steps, by_clock):
        assert info["device"] in ("cpu", "cuda", "mps") and info["n_docs"] == len(docs)
        assert info[measure] < started - 0.5, "没有学到东西"


@pytest.mark.parametrize("how", [{}, {"steps": 3, "minutes": 1}])
def test_one_way_of_saying_how_long(how, docs, tokenizer):
    with pytest.raises(ValueError, match="恰好给一个"):
        S.make("mlm", docs, tokenizer, PRESET, **how)
