"""写文章的快慢：预设 cpu 的大小，写 128 个字，比每步重算快 5 倍以上，不比 transformers 慢。"""

import json
import os

import pytest
import torch

from tools.benchmarks import generation as B
from utils.presets import PRESETS
from utils.scaling.speed import race


def test_race_takes_turns_after_a_warm_up():
    order, now = [], iter(range(100))
    seconds = race({"甲": lambda: order.append("甲"), "乙": lambda: order.append("乙")}, 2, clock=lambda: next(now))
    assert order == ["甲", "乙"] * 3 and seconds == {"甲": [1, 1], "乙": [1, 1]}
    with pytest.raises(ValueError, match="至少"):
        race({}, 2)
    with pytest.raises(ValueError, match="至少"):
        race({"甲": print}, 0)


def test_the_command_runs(tmp_path, capsys):
    out = tmp_path / "result.json"
    threads = torch.get_num_threads()
    result = B.main(["--preset", "smoke", "--tokens", "8", "--rounds", "1", "--threads", "1", "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8"))["seconds"] == result["seconds"] and torch.get_num_threads() == threads
    assert "transformers" in capsys.readouterr().out


def test_cached_writing_is_three_times_faster_and_no_slower_than_the_library():
    """轮流跑、取中位数；机器忙的时候一次不作数，最多量三次。线程不比能用的核多：多了只会互相等。"""
    made, before = B.prepare(PRESETS["cpu"]), torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(2, cores))
    try:
        for _ in range(3):
            seconds = B.measure(*made, tokens=128, rounds=3)
            uncached, ours, library = (B.median(seconds[name]) for name in (B.UNCACHED, B.OURS, B.LIBRARY))
            print(f"每步重算 {uncached:.3f} 秒，课程的 {ours:.3f} 秒，transformers {library:.3f} 秒")
            if uncached >= 3 * ours and ours <= library:
                return
    finally:
        torch.set_num_threads(before)
    raise AssertionError(f"比每步重算快 {uncached / ours:.1f} 倍（至少要 3 倍），用时是 transformers 的 {ours / library:.2f}（至多 1）")
