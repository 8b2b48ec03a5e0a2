"""附带检查点的制作：文档不与验证、测试集相同，两种练法都在学，接着练从存下的权重开始。"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tools.checkpoints import make as S
from utils.corpus.news import generate
from utils.presets import PRESETS
from utils.tokenization.tokenizer import build_tokenizer

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
    usual = S.training_documents(20, 7)                                        # 换了种子，剔的还是课程自己的验证集和测试集
    known = set(zip(usual["intro"][:5], usual["body"][:5], strict=True))
    monkeypatch.setattr(S, "held_out", lambda: known)
    assert S.training_documents(20, 7)["body"][:] == usual["body"][5:]


def test_what_is_held_out_is_the_courses_own():
    docs = generate("test", 3)
    assert set(zip(docs["intro"], docs["body"], strict=True)) <= S.held_out() and len(S.held_out()) > 1900


@pytest.mark.parametrize("kind, objective, causal, measures", [
    ("mlm", None, 0, {"test_masked_nats"}), ("clm", None, 320, {"test_body_nats"}),
    ("clm", "both", 160, {"test_masked_nats", "test_body_nats"})])
def test_both_ways_learn_and_agree_on_what_they_report(kind, objective, causal, measures, docs, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(S, "HELD", 20)
    started = np.log(len(tokenizer))
    model, by_steps = S.make(kind, docs, tokenizer, PRESET, steps=40, objective=objective)
    _, by_clock = S.make(kind, docs, tokenizer, PRESET, minutes=0.15, objective=objective)
    assert by_steps.keys() == by_clock.keys() and by_steps["steps"] == 40 and by_clock["steps"] > 0
    assert by_steps["causal_docs"] == causal and by_steps["causal_docs"] + by_steps["masked_docs"] == 320
    assert model.config.is_decoder == (kind == "clm")
    for info in (by_steps, by_clock):
        assert info["device"] in ("cpu", "cuda", "mps") and info["n_docs"] == len(docs)
        assert measures == {name for name in info if name.endswith("nats")}
        assert all(info[name] < started - 0.5 for name in measures), "没有学到东西"


def test_going_on_from_weights(docs, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(S, "HELD", 20)
    model, info = S.make("clm", docs, tokenizer, PRESET, steps=20)
    folder = S.save_checkpoint(model, tokenizer, tmp_path / "half", info)
    _, further = S.make("clm", docs, tokenizer, replace(PRESET, lr=0.0), steps=1, start=folder)
    assert further["test_body_nats"] == pytest.approx(info["test_body_nats"], rel=1e-5)         # 学习率为 0，权重没有动
    assert further["before"]["steps"] == 20


def test_posed_causally_the_model_is_the_decoder(docs, tokenizer):
    model = S.prepare_heads(S.BertForMaskedLM(S.bert_config(PRESET, tokenizer))).eval()
    ids = torch.randint(5, len(tokenizer), (1, 20))
    batch = S.posed_collator(tokenizer, 0.4, "clm")([{"input_ids": ids[0].tolist()}])
    assert batch["labels"][0, :19].tolist() == ids[0, 1:].tolist() and (batch["labels"][0, 19:] == -100).all()
    with torch.no_grad():
        posed = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :20]
        decoder = S.as_decoder(model)(ids).logits
    torch.testing.assert_close(posed, decoder, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", [{}, {"steps": 3, "minutes": 1}])
def test_one_way_of_saying_how_long(how, docs, tokenizer):
    with pytest.raises(ValueError, match="恰好给一个"):
        S.make("mlm", docs, tokenizer, PRESET, **how)


def run_main(monkeypatch, tmp_path, *arguments):
    """跑命令行入口，只看它要做多大的模型；不生成，不训练。"""
    made = []
    monkeypatch.setattr("sys.argv", ["shipped", *arguments])
    monkeypatch.setattr(S, "training_documents", lambda n, seed, processes: generate("train", 5))
    monkeypatch.setattr(S, "make", lambda kind, docs, tokenizer, preset, *rest, **how: made.append((kind, preset)) or (None, {}))
    monkeypatch.setattr(S, "save_checkpoint", lambda *rest, **how: tmp_path)
    S.main()
    return [(kind, preset.layers, preset.hidden, preset.heads, preset.lr) for kind, preset in made]


def test_size_on_the_command_line(monkeypatch, tmp_path):
    usual = PRESETS["cpu"]
    assert run_main(monkeypatch, tmp_path) == [(kind, 4, usual.hidden, usual.heads, usual.lr) for kind in S.KINDS]
    assert run_main(monkeypatch, tmp_path, "clm", "--layers", "6", "--hidden", "256", "--lr", "0.002") == [("clm", 6, 256, 8, 0.002)]


@pytest.mark.parametrize("arguments, said", [
    (["--hidden", "200"], "32 的倍数"), (["--layers", "6", "--start", "somewhere"], "已经定了大小")])
def test_sizes_that_cannot_be(arguments, said, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_main(monkeypatch, tmp_path, "clm", *arguments)
    assert said in capsys.readouterr().err
