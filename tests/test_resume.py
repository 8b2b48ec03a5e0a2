"""中断与续练：停了能接着练，曲线接得上；设置不同就说明不同在哪里；练完不留垃圾；进程被杀也丢不了一分钟。"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_training import CPU, TINY, decoder, docs, encoded, encoder, tokenizer  # noqa: F401
from transformers import TrainerCallback

from utils.paths import ROOT
from utils.training import batches, losses
from utils.training import loop as T
from utils.training import resume as R
from utils.training.collators import describe
from utils.training.objectives import masking_collator


class StopAt(TrainerCallback):
    """模拟学习者在某一步按下停止。"""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def run(model, encoded, tokenizer, folder, steps=30, stop=None, monkeypatch=None, **options):  # noqa: F811
    collate = batches.mlm_collator(tokenizer)
    held = batches.fixed_batches(encoded, batches.mlm_collator(tokenizer, seed=1), 16)
    args = T.training_arguments(folder, steps, TINY, CPU, seed=0)
    if stop is not None:
        plain = T.ProgressCallback.on_step_end
        monkeypatch.setattr(T.ProgressCallback, "on_step_end", StopAt(stop).on_step_end)
    history = T.train(model, encoded, collate, args, lambda m: losses.evaluate(m, held, shift=False), evaluations=5, **options)
    if stop is not None:
        monkeypatch.setattr(T.ProgressCallback, "on_step_end", plain)
    return history


def test_a_stopped_run_goes_on_where_it_was(encoded, tokenizer, tmp_path, monkeypatch, capsys):  # noqa: F811
    whole = run(encoder(tokenizer), encoded, tokenizer, tmp_path / "whole")
    first = run(encoder(tokenizer), encoded, tokenizer, tmp_path / "a", stop=17, monkeypatch=monkeypatch)
    assert first.interrupted and first.eval_steps == [0, 6, 12] and "已在第 17 步停下，进度存好了" in capsys.readouterr().out
    model = encoder(tokenizer)                                             # 新的内核，同样的起点
    second = run(model, encoded, tokenizer, tmp_path / "a")
    assert "上次练到第 17 步时停了，从那里接着练" in capsys.readouterr().out
    assert not second.interrupted and second.eval_steps == whole.eval_steps and second.eval_loss[:3] == first.eval_loss
    assert second.eval_loss[-1] == pytest.approx(whole.eval_loss[-1], abs=0.1) and second.seconds > first.seconds
    assert not list((tmp_path / "a").iterdir()) and not hasattr(model, R.START)        # 练完不留垃圾


def test_the_same_model_can_be_trained_on_after_a_stop(encoded, tokenizer, tmp_path, monkeypatch, capsys):  # noqa: F811
    model = encoder(tokenizer)
    run(model, encoded, tokenizer, tmp_path, stop=9, monkeypatch=monkeypatch)
    history = run(model, encoded, tokenizer, tmp_path)
    assert "从那里接着练" in capsys.readouterr().out and history.eval_steps[-1] == 30


def test_resume_false_starts_again(encoded, tokenizer, tmp_path, monkeypatch, capsys):  # noqa: F811
    run(encoder(tokenizer), encoded, tokenizer, tmp_path, stop=9, monkeypatch=monkeypatch)
    capsys.readouterr()
    history = run(encoder(tokenizer), encoded, tokenizer, tmp_path, resume=False)
    assert "接着练" not in capsys.readouterr().out and history.eval_steps == [0, 6, 12, 18, 24, 30]


@pytest.mark.parametrize("change, words", [
    (dict(steps=40), "步数 30 → 40"), (dict(model="other"), "起点的权重"),
    (dict(model="decoder"), "模型 BertForMaskedLM → BertLMHeadModel"),
    (dict(rows=40), "数据 64 篇")])
def test_other_settings_are_refused_with_the_reason(change, words, encoded, tokenizer, tmp_path, monkeypatch, capsys):  # noqa: F811
    run(encoder(tokenizer), encoded, tokenizer, tmp_path, stop=9, monkeypatch=monkeypatch)
    capsys.readouterr()
    model = {"other": lambda: encoder(tokenizer, seed=5), "decoder": lambda: decoder(tokenizer)}.get(
        change.get("model"), lambda: encoder(tokenizer))()
    history = run(model, encoded.select(range(change.get("rows", 64))), tokenizer, tmp_path, steps=change.get("steps", 30))
    out = capsys.readouterr().out
    assert "不能接着练，这次从头开始" in out and words in out and history.eval_steps[0] == 0
    assert len(list(tmp_path.glob("run-*"))) == 1                          # 别人的进度还在


def test_a_broken_checkpoint_is_not_used(encoded, tokenizer, tmp_path, monkeypatch, capsys):  # noqa: F811
    run(encoder(tokenizer), encoded, tokenizer, tmp_path, stop=9, monkeypatch=monkeypatch)
    [state] = tmp_path.glob("run-*/checkpoint-9/trainer_state.json")
    state.unlink()
    capsys.readouterr()
    assert run(encoder(tokenizer), encoded, tokenizer, tmp_path).eval_steps[0] == 0
    assert "接着练。" not in capsys.readouterr().out


SCRIPT = '''
import sys, torch
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from utils.training import batches, losses, resume, loop as T
from test_training import TINY, CPU, encoder
from utils.corpus import generate
from utils.tokenization import build_tokenizer
docs = generate("train", 64)
tokenizer = build_tokenizer("char", docs["intro"][:] + docs["body"][:])
encoded = batches.encode_docs(docs, tokenizer, 256)
resume.ProgressSaver.__init__.__defaults__ = (0.5, 200)
held = batches.fixed_batches(encoded, batches.mlm_collator(tokenizer, seed=1), 16)
T.train(encoder(tokenizer), encoded, batches.mlm_collator(tokenizer), T.training_arguments(Path({folder!r}), 4000, TINY, CPU, 0),
        lambda m: losses.evaluate(m, held, shift=False))
'''


@pytest.mark.skipif(os.name == "nt", reason="Windows 没有 SIGKILL")
def test_a_killed_process_loses_little(tmp_path):
    code = SCRIPT.format(root=str(ROOT), folder=str(tmp_path))

    def start():
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)

    process, end = start(), time.monotonic() + 90
    while not list(tmp_path.glob("run-*/checkpoint-*/history.json")) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = [int(p.name.rpartition("-")[2]) for p in tmp_path.glob("run-*/checkpoint-*")]
    assert steps and 0 < max(steps) < 4000
    process, seen = start(), ""
    while "接着练" not in seen and time.monotonic() < end + 60 and process.poll() is None:
        seen += process.stdout.readline()
    process.kill()
    process.wait()
    assert "从那里接着练" in seen


def test_progress_is_saved_by_the_clock(encoded, tokenizer, tmp_path, monkeypatch):  # noqa: F811
    saves = []
    monkeypatch.setattr(R.ProgressSaver.__init__, "__defaults__", (0.0, 200))
    plain = R.ProgressSaver.on_save

    def on_save(self, args, state, control, **kwargs):
        plain(self, args, state, control, **kwargs)
        saves.append(state.global_step)
        settings = json.loads((Path(args.output_dir) / R.SETTINGS).read_text(encoding="utf-8"))
        assert settings["步数"] == "6" and len(list(Path(args.output_dir).glob("checkpoint-*"))) <= 2

    monkeypatch.setattr(R.ProgressSaver, "on_save", on_save)
    run(encoder(tokenizer), encoded, tokenizer, tmp_path, steps=6)
    assert saves == [1, 2, 3, 4, 5]                                        # 最后一步不存：马上就练完了


@pytest.mark.parametrize("other", [
    lambda t: batches.mlm_collator(t, 0.2), lambda t: batches.mlm_collator(t, 0.4, seed=3), batches.clm_collator,
    lambda t: masking_collator(t, torch.Generator(), whole_words=True, probability=0.4)], ids=["遮盖率", "种子", "目标", "整词"])
def test_another_objective_is_another_run(other, encoded, tokenizer, tmp_path, monkeypatch):  # noqa: F811
    """停下之后换了目标或遮盖率，不能当作同一次接着练。"""
    model, args = encoder(tokenizer), T.training_arguments(tmp_path, 20, TINY, CPU, seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(T.ProgressCallback, "on_step_end", StopAt(9).on_step_end)
        assert T.train(model, encoded, batches.mlm_collator(tokenizer, 0.4), args, lambda m: (0.0, 0.0), evaluations=2).interrupted
    folder, checkpoint, note = R.find_progress(tmp_path, R.training_settings(model, encoded, args, other(tokenizer)))
    assert checkpoint is None and "不能接着练" in note and "目标 MLM（遮盖率 0.4） → " in note, note
    assert R.find_progress(tmp_path, R.training_settings(model, encoded, args, batches.mlm_collator(tokenizer, 0.4)))[1]


def test_ones_own_collator_is_told_by_its_code():
    """学习者自己写的整理函数没有说明，就看代码和用到的值：一样的是同一次训练，改了一个数就不是。"""
    def made(rate):
        def collate(rows):
            return {"rate": rate}
        return collate

    def other(rows):
        return {"rate": 0.4, "more": 1}

    assert describe(made(0.4)) == describe(made(0.4))
    assert len({describe(made(0.4)), describe(made(0.2)), describe(other)}) == 3
