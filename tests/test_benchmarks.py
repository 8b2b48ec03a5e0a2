"""基准：二分查找给出的倍数对不对，挑学习率挑得对不对，整条命令走得通。"""

import json
from dataclasses import replace

import pytest

from tools.benchmarks import pretraining as B


class Pretend(B.Bench):
    """不真的训练：损失由 speed（每秒学多少）和学习率离 best_lr 多远决定。"""

    calls: list = []

    def run(self, recipe, seconds, seed):
        self.calls.append((recipe, seconds))
        distance = abs(recipe.lr - 1e-3) / 1e-3 + abs(recipe.batch_size - 16) / 16
        return {"seconds": seconds, "loss": 10 / (1 + seconds) + distance, "accuracy": 0.0, "steps": int(seconds)}


@pytest.fixture
def bench(tmp_path):
    Pretend.calls = []
    return Pretend(None, None, None, [], tmp_path)


GOOD = B.Recipe(lr=1e-3, batch_size=16)


@pytest.mark.parametrize(("target", "times"), [(10 / 11, 1), (10 / 21, 2), (10 / 20, 2), (10 / 61, 6), (0.2, 5), (10 / 16, 1.5)])
def test_until_finds_the_smallest_multiple(bench, target, times):
    found = bench.until(GOOD, target + 1e-12, 10, 0, limit=6)
    assert found["reached"] and found["times"] == times
    assert len(bench.calls) <= 3 and all(s in [10 * x for x in B.LADDER] for _, s in bench.calls)
    assert found["tried"][times]["loss"] <= target + 1e-9


def test_until_says_when_it_is_never_reached(bench):
    found = bench.until(GOOD, 0.01, 10, 0, limit=6)
    assert not found["reached"] and found["times"] == 6
    assert found["tried"][6]["loss"] > 0.01                            # 说「给了 6 倍也练不到」，真的给过


def test_tune_picks_the_best(bench):
    recipe, tried = bench.tune(B.Recipe(warmup=0.1), 5, 0)
    assert (recipe.lr, recipe.batch_size, recipe.warmup) == (1e-3, 16, 0.1)
    assert len(tried) == len({(t["batch_size"], t["lr"]) for t in tried}) == 5        # 不重复试


def test_the_tutorial_recipe_is_the_library_default(tmp_path):
    """「教程的写法」说的是 Trainer 的默认设置：与库核对。"""
    default = B.TrainingArguments(output_dir=str(tmp_path))
    assert (B.Recipe().batch_size, B.Recipe().lr) == (default.per_device_train_batch_size, default.learning_rate)
    assert default.lr_scheduler_type == "linear" and default.warmup_steps == 0 and B.Recipe().optim is None


def test_the_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(B.PRESETS, "smoke", replace(B.PRESETS["smoke"], layers=2, hidden=32, heads=4, eval_docs=8))
    out = tmp_path / "result.json"
    result = B.main(["--preset", "smoke", "--docs", "100", "--seconds", "0.3", "--limit", "1", "--seeds", "2", "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8"))["target"] == result["target"]
    assert set(result["others"]) == {"选好的", "教程的写法"} and len(result["engine"]["runs"]) == 2
    assert {"按长度分桶", "只算被盖住的位置", "摆好的头"} <= set(result["without"])
    assert all(r["steps"] >= 1 for r in result["without"].values()) and "engine" in capsys.readouterr().out
