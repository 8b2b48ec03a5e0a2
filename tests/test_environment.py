"""环境：预设、产物文件夹、随机种子，以及 record 写下的那一行。"""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import environment as E
from utils import paths, presets


def test_presets_are_consistent():
    assert list(presets.PRESETS) == ["smoke", "cpu", "gpu"]
    for name, p in presets.PRESETS.items():
        assert p.name == name and p.hidden % p.heads == 0 and p.n_docs >= 100 and p.max_len >= 256
    sizes = [(p.layers, p.hidden, p.mlm_steps) for p in presets.PRESETS.values()]
    assert sizes == sorted(sizes)


def test_choose_preset(monkeypatch):
    monkeypatch.setenv("COURSE_PRESET", "gpu")
    assert E.choose_preset().name == "gpu"
    assert E.choose_preset("smoke").name == "smoke"                    # 写明的名字优先于环境变量
    monkeypatch.delenv("COURSE_PRESET")
    for cuda, name in ((True, "gpu"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert E.choose_preset().name == name
    monkeypatch.setenv("COURSE_PRESET", "huge")
    with pytest.raises(ValueError, match="huge.*smoke、cpu、gpu"):
        E.choose_preset()


@pytest.mark.parametrize("cuda, mps, kind", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_pick_device(monkeypatch, cuda, mps, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert E.pick_device().type == kind


def test_outputs_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))
    assert E.outputs_dir(presets.PRESETS["cpu"]) == tmp_path / "cpu"
    monkeypatch.delenv("COURSE_OUTPUTS")
    assert E.outputs_dir(presets.PRESETS["cpu"]) == paths.ROOT / "outputs" / "cpu"


def test_start(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))
    lesson = E.start("mlm_pretraining", preset="smoke", mlm_steps=7)
    assert lesson.preset.mlm_steps == 7 and presets.PRESETS["smoke"].mlm_steps != 7
    assert lesson.preset.layers == presets.PRESETS["smoke"].layers
    assert lesson.outputs == tmp_path / "smoke" and isinstance(lesson.outputs, Path)
    out = capsys.readouterr().out
    assert "smoke" in out and torch.__version__.split("+")[0] in out and str(paths.ROOT) not in out


@pytest.mark.parametrize("fast", [True, False])
def test_a_cpu_with_fast_bf16_does_twice_the_steps(monkeypatch, capsys, fast):
    monkeypatch.setattr(E, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(E, "fast_bf16", lambda: fast)
    usual, preset = presets.PRESETS["cpu"], E.start("clm_finetuning", preset="cpu").preset
    times = 2 if fast else 1
    assert (preset.bf16, preset.mlm_steps, preset.clm_steps) == (fast, times * usual.mlm_steps, times * usual.clm_steps)
    assert ("bf16" in capsys.readouterr().out) == fast
    assert E.start("clm_finetuning", preset="cpu", clm_steps=9).preset.clm_steps == 9   # 写明的优先
    assert E.start("clm_finetuning", preset="cpu", bf16=False).preset == usual
    assert E.start("clm_finetuning", preset="smoke").preset == presets.PRESETS["smoke"]


@pytest.mark.parametrize("seconds, fast", [((3.0, 1.0), True), ((1.0, 1.0), False), ((1.0, 5.0), False)])
def test_fast_bf16_is_measured(monkeypatch, seconds, fast):
    """假的钟：先量 float32，再量 bf16，各 20 次；每次的用时由 seconds 给出，其中一次被别的程序拖慢。"""
    spans = [s * (50 if i == 7 else 1) for s in seconds for i in range(20)]
    ticks, now = [], 0.0
    for span in spans:
        ticks += [now, now + span]
        now += span
    monkeypatch.setattr(presets.time, "perf_counter", iter(ticks).__next__)
    assert E.fast_bf16.__wrapped__() is fast


def test_start_refuses_unknown_fields():
    with pytest.raises(ValueError, match="mlm_step.*mlm_steps"):
        E.start("mlm_pretraining", preset="smoke", mlm_step=7)
    with pytest.raises(ValueError, match="tiny"):
        E.start("mlm_pretraining", preset="tiny")


def test_start_sets_the_seed():
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    E.start("x", preset="smoke")
    first = draws()
    E.start("x", preset="smoke")
    assert draws() == first
    E.set_seed(1)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_record(monkeypatch, capsys, tmp_path):
    lesson = E.Lesson("mlm_pretraining", presets.PRESETS["smoke"], torch.device("cpu"), 1, tmp_path)
    monkeypatch.delenv("COURSE_RECORDS", raising=False)
    lesson.record("留出集损失", 1.23456, "奈特/词元")
    assert "留出集损失 = 1.235 奈特/词元" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []                              # 只打印，不写文件
    target = tmp_path / "records.jsonl"
    monkeypatch.setenv("COURSE_RECORDS", str(target))
    lesson.record("留出集损失", torch.tensor(1.5), "奈特/词元")
    lesson.record("文档数", 2000)
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2 and "留出集损失" in target.read_text(encoding="utf-8")
    assert rows[0] == {
        "name": "留出集损失", "value": 1.5, "unit": "奈特/词元", "notebook": "mlm_pretraining",
        "preset": "smoke", "device": "cpu", "versions": E.versions(),
    }
    assert rows[1]["unit"] == "" and rows[1]["value"] == 2000


def test_versions():
    found = E.versions()
    assert set(found) == {"python", "torch", "transformers", "tokenizers", "datasets", "accelerate"}
    assert all(v[0].isdigit() and "+" not in v for v in found.values())


def test_another_seed_by_the_environment(monkeypatch, capsys):
    """换一个种子走一遍全程，不用改 notebook；格子里写明的种子优先。"""
    assert E.start("x", "smoke").seed == 2026
    monkeypatch.setenv("COURSE_SEED", "7")
    assert E.start("x", "smoke").seed == 7 and E.start("x", "smoke", seed=3).seed == 3
    monkeypatch.setenv("COURSE_SEED", "七")
    with pytest.raises(ValueError, match="COURSE_SEED 要是一个整数.*七"):
        E.start("x", "smoke")
