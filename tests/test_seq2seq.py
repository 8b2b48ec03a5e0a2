"""utils.models.seq2seq：填充不影响结果，不漏未来，写出来的与逐步重算的相等，真的学得会；与 04 手写的相等。"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from notebook_source import handmade
from torch import nn

from utils.corpus.numerals import Pair, make_pairs
from utils.models import attention as A
from utils.models import seq2seq
from utils.models.positions import sinusoidal_positions
from utils.models.seq2seq import EncoderDecoder, encode_pairs, normalise, pair_collator
from utils.presets import PRESETS
from utils.tokenization.tokenizer import build_tokenizer
from utils.training import loop as training

PAIRS = make_pairs("train", 200)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("char", [p.source + p.target for p in PAIRS], model_max_length=64)


def small(tokenizer, seed=0, layers=2):
    torch.manual_seed(seed)
    return EncoderDecoder(len(tokenizer), 32, 4, layers).eval()


def batch_of(pairs, tokenizer):
    return pair_collator(tokenizer.pad_token_id)(encode_pairs(pairs, tokenizer).to_list())


def test_encoded_pairs_have_both_ends_and_the_collator_pads(tokenizer):
    rows = encode_pairs([Pair("整数", "十五", "15"), Pair("整数", "一百二十", "120")], tokenizer)
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert rows["length"][:] == [4, 6]
    assert all(r[0] == begin and r[-1] == end for name in ("input_ids", "labels") for r in rows[name])
    batch = pair_collator(tokenizer.pad_token_id)(rows.to_list())
    assert batch["attention_mask"].tolist() == [[1] * 4 + [0] * 2, [1] * 6]
    assert batch["input_ids"][0, 4:].eq(tokenizer.pad_token_id).all() and batch["labels"][0].tolist()[-1] == -100


def test_loss_is_the_mean_over_the_real_targets(tokenizer):
    model, batch = small(tokenizer), batch_of(PAIRS[:8], tokenizer)
    total, count = 0.0, 0
    for pair in PAIRS[:8]:                                                 # 一句一句算，没有填充
        alone = batch_of([pair], tokenizer)
        n = alone["labels"].size(1) - 1
        total, count = total + model(**alone)["loss"].item() * n, count + n
    assert model(**batch)["loss"].item() == pytest.approx(total / count, abs=1e-5)


def test_the_future_of_the_target_changes_nothing_before_it(tokenizer):
    model, batch = small(tokenizer), batch_of(PAIRS[:1], tokenizer)
    memory = model.encode(batch["input_ids"], batch["attention_mask"])
    target, changed = batch["labels"], batch["labels"].clone()
    changed[:, 4:] = (changed[:, 4:] + 5) % len(tokenizer)
    before, after = (model.decode(t, memory, batch["attention_mask"])[0] for t in (target, changed))
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])


def test_writing_equals_choosing_step_by_step(tokenizer):
    model, batch = small(tokenizer, seed=3), batch_of(PAIRS[:6], tokenizer)
    source, real, begin, end = batch["input_ids"], batch["attention_mask"], tokenizer.cls_token_id, tokenizer.sep_token_id
    together = model.write(source, real, begin, end, max_len=9)
    for row in range(6):
        n, out = int(real[row].sum()), [begin]
        for _ in range(together.size(1) - 1):
            logits, _ = model.decode(torch.tensor([out]), model.encode(source[row:row + 1, :n], real[row:row + 1, :n]),
                                     real[row:row + 1, :n])
            out.append(int(logits[0, -1].argmax()))
        assert together[row].tolist() == out


def test_writing_stops_at_the_end_mark(tokenizer, monkeypatch):
    model, end = small(tokenizer), tokenizer.sep_token_id

    def decode(target, memory, mask):
        logits = torch.zeros(len(target), target.size(1), len(tokenizer))
        logits[..., end if target.size(1) == 3 else 7] = 1
        return logits, None

    monkeypatch.setattr(model, "decode", decode)
    batch = batch_of(PAIRS[:2], tokenizer)
    assert model.write(batch["input_ids"], batch["attention_mask"], 2, end).tolist() == [[2, 7, 7, end]] * 2
    word = tokenizer.convert_ids_to_tokens(7)
    assert normalise(model, tokenizer, ["十", "二十"]) == [word * 2] * 2


def test_it_learns_in_a_few_steps_with_the_courses_trainer(tokenizer, tmp_path):
    model = small(tokenizer, layers=1)
    pairs = [Pair("整数", a + b, x + y) for a, x in zip("一二三四五", "12345", strict=True)
             for b, y in zip("六七八九", "6789", strict=True)]
    encoded, collate = encode_pairs(pairs, tokenizer), pair_collator(tokenizer.pad_token_id)
    held = collate(encoded.to_list())

    def grade(m):
        with torch.no_grad():
            written = normalise(m, tokenizer, [p.source for p in pairs])
            return m(**held)["loss"].item(), sum(w == p.target for w, p in zip(written, pairs, strict=True)) / len(pairs)

    args = training.training_arguments(tmp_path, 60, replace(PRESETS["smoke"], batch_size=20, lr=1e-2), torch.device("cpu"), 0)
    history = training.train(model, encoded, collate, args, grade, evaluations=2, quiet=True)
    assert history.eval_accuracy[0] < 0.2 and history.eval_accuracy[-1] == 1.0
    assert not model.training and not list(tmp_path.glob("run-*"))


def test_a_stopped_run_of_ones_own_module_goes_on_and_quiet_is_quiet(tokenizer, tmp_path, capsys):
    encoded, collate = encode_pairs(PAIRS[:40], tokenizer), pair_collator(tokenizer.pad_token_id)
    args = training.training_arguments(tmp_path, 12, replace(PRESETS["smoke"], batch_size=8), torch.device("cpu"), 0)
    calls = []

    def grade(m):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1.0, 0.0

    first = training.train(small(tokenizer), encoded, collate, args, grade, evaluations=4, quiet=True)
    assert first.interrupted and first.eval_steps == [0, 3] and "第 6 步停下" in capsys.readouterr().out
    second = training.train(small(tokenizer), encoded, collate, args, grade, evaluations=4, quiet=True)
    heard = capsys.readouterr()
    assert "上次练到第 6 步" in heard.out and second.eval_steps[-1] == 12 and "12/12" not in heard.err
    training.train(small(tokenizer), encoded, collate, args, grade, evaluations=4)
    assert "12/12 步" in capsys.readouterr().err


def test_bad_sentences_are_refused_in_chinese(tokenizer):
    model = small(tokenizer)
    with pytest.raises(ValueError, match="空的"):
        normalise(model, tokenizer, ["十五", " "])
    with pytest.raises(ValueError, match="最多 64 个"):
        normalise(model, tokenizer, ["一" * 70])
    assert normalise(model, tokenizer, []) == []


def test_the_notebook_agrees(tokenizer):
    given = {n: getattr(A, n) for n in ("MultiHeadSelfAttention", "causal_mask", "padding_mask", "scaled_dot_product_attention")}
    hand = handmade("transformer", "FeedForward", "Block", "MultiHeadAttention", "EncoderBlock", "DecoderBlock", "EncoderDecoder",
                    nn=nn, F=F, torch=torch, sinusoidal_positions=sinusoidal_positions, **given)
    packaged, batch = small(tokenizer), batch_of(PAIRS[:8], tokenizer)
    own = hand["EncoderDecoder"](len(tokenizer), 32, 4, 2).eval()
    own.load_state_dict(packaged.state_dict())
    source, real, target = batch["input_ids"], batch["attention_mask"], batch["labels"].clamp_min(0)
    for mine, theirs in zip(own.decode(target, own.encode(source, real), real),
                            packaged.decode(target, packaged.encode(source, real), real), strict=True):
        assert torch.equal(mine, theirs)
    assert mine.shape == (2, 8, 4, target.size(1), source.size(1))
    assert seq2seq.IGNORE == -100
