"""练习的进度，按 notebook 汇总。只是铺路石（plumbing）。"""

from __future__ import annotations

from pathlib import Path

from utils.checks.framework.ledger import PASSED, read_progress
from utils.checks.framework.runner import exercises, load_module
from utils.road import road


def course_progress() -> dict[str, tuple[int, int]]:
    """每本有练习的 notebook：（做对几道，一共几道）。给课程地图打勾用。

    返回：
        {"objectives": (3, 8), …}。
    """
    state, found = read_progress(), {}
    for stop in road():
        if (Path(__file__).parent / f"{stop.topic}.py").exists():
            keys = [e.key for e in exercises(load_module(stop.topic)).values()]
            found[stop.topic] = sum(state.get(key, {}).get("状态") == PASSED for key in keys), len(keys)
    return found
