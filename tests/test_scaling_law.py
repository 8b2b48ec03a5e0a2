"""utils.scaling.law：造出来的数能拟合回原来的系数；坏输入被拒绝；附带的数据读得出来，一次小训练走得通。"""

import json
from dataclasses import replace

import numpy as np
import pytest

from utils.models.checkpoints import load_checkpoint
from utils.presets import PRESETS
from utils.scaling import law as S

TRUE = S.Law(0.26, 0.05, 0.5, 0.9, 0.8, 0.0)


def made_up(noise=0.0, law=TRUE, seed=0):
    """按已知的公式造出来的 20 次训练；noise 是 ln(ℒ − E) 上的标准差。"""
    rng = np.random.default_rng(seed)
    runs = []
    for n in (25e3, 56e3, 100e3, 224e3, 595e3):
        for docs in (2000, 4000, 8000, 16000):
            gap = (float(law(n, 157 * docs)) - law.E) * np.exp(noise * rng.normal())
            runs.append(S.Run(2, 32, 2, int(n), docs, 157 * docs, law.E + gap, 1.0, "cpu"))
    return runs


def test_the_true_coefficients_come_back():
    law = S.fit_law(made_up(), TRUE.E)
    for name in ("E", "a", "alpha", "b", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(TRUE, name), rel=0.02), name
    assert law.residual < 1e-3 and float(law(2e6, 26e6)) == pytest.approx(float(TRUE(2e6, 26e6)), rel=0.01)


def test_a_free_floor_is_found_when_the_points_come_near_it():
    near = S.Law(0.26, 0.004, 0.5, 0.02, 0.8, 0.0)
    assert S.fit_law(made_up(law=near)).E == pytest.approx(0.26, rel=0.05)


def test_an_outlier_does_not_bend_the_fit():
    runs = made_up()
    runs[7] = replace(runs[7], nats=runs[7].nats * 3)
    assert float(S.fit_law(runs, TRUE.E)(2e6, 26e6)) == pytest.approx(float(TRUE(2e6, 26e6)), rel=0.1)


def test_predictions_take_arrays():
    assert TRUE(np.array([1e5, 2e5]), 1e6).shape == (2,) and np.all(np.diff(TRUE(np.array([1e5, 2e5]), 1e6)) < 0)


@pytest.mark.parametrize("change, words", [
    (lambda runs: runs[:5], "至少要 6 次"), (lambda runs: [r for r in runs if r.parameters < 60e3], "各至少 3 种"),
    (lambda runs: [r for r in runs if r.docs < 8000], "各至少 3 种"), (lambda runs: [replace(r, nats=0.2) for r in runs], "不高于下限")])
def test_bad_input_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        S.fit_law(change(made_up()), TRUE.E)


def test_shipped_runs_are_complete():
    runs = S.read_runs()
    assert {r.parameters for r in runs} == {L * (12 * h * h + 13 * h) for L, h, _ in S.SIZES} and len({r.docs for r in runs}) >= 3
    assert all(100 < r.tokens / r.docs < 230 and r.nats > 0.2 for r in runs)
    rows = [json.loads(line) for line in S.RUNS.read_text(encoding="utf-8").splitlines()]
    assert all({"versions", "device", "seconds"} <= set(row) for row in rows)
    assert len({(r.layers, r.hidden, r.docs) for r in runs}) == len(runs)
    small = {r.docs: r.nats for r in runs if r.hidden == S.SIZES[0][1]}
    assert [small[d] for d in sorted(small)] == sorted(small.values(), reverse=True)            # 数据越多，损失越低


def test_missing_runs_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m tools.scaling_runs"):
        S.read_runs(tmp_path / "没有.jsonl")


def test_one_small_run():
    tokenizer = load_checkpoint("clm", S.BertLMHeadModel, prefer="shipped", is_decoder=True)[1]
    held, floor = S.held_out(tokenizer, 20)
    run = S.train_run((2, 32, 2), 160, tokenizer, held, PRESETS["smoke"])
    assert run.parameters == 12 * 2 * 32 * 32 + 13 * 2 * 32 and run.docs == 160 and floor < run.nats < 9
    again = S.train_run((2, 32, 2), 160, tokenizer, held, PRESETS["smoke"])
    assert again.nats == pytest.approx(run.nats, rel=1e-4) and again.tokens == run.tokens
