"""练习的进度：一行一条地记在 outputs/progress.jsonl。这个文件只在你的机器上，可以看，可以删。只是铺路石（plumbing）。

一次只追加一行，所以几本 notebook 同时写也不会互相盖掉；状态没变就不写。
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from utils.paths import outputs

PASSED, WRONG = "通过", "还不对"


def progress_file() -> Path:
    """进度文件的位置。"""
    return outputs() / "progress.jsonl"


def read_progress() -> dict[str, dict]:
    """读进度。返回 {"objectives.clm_loss": {"状态": "通过", "提示": "", "时间": "…"}}；通过过的一直算通过。读不懂的行跳过。"""
    try:
        text = progress_file().read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    state: dict[str, dict] = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            key, status = row["练习"], row["状态"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(key, str) and status in (PASSED, WRONG) and state.get(key, {}).get("状态") != PASSED:
            state[key] = {"状态": status, "提示": str(row.get("提示", "")), "时间": str(row.get("时间", ""))}
    return state


def record(key: str, passed: bool, hint: str = "") -> None:
    """记下一次检查的结果。磁盘写不了也不报错：进度丢了事小，不该打断学习。

    参数：
        key: 哪道题，例如 "objectives.clm_loss"。
        passed: 通过了没有。
        hint: 没通过时，提示的名字。
    """
    row = {"练习": key, "状态": PASSED if passed else WRONG, "提示": hint, "时间": time.strftime("%Y-%m-%d %H:%M")}
    before = read_progress().get(key)
    if before and (before["状态"] == PASSED or (before["状态"], before["提示"]) == (row["状态"], hint)):
        return
    try:
        path = progress_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.is_file() and not path.read_bytes().endswith(b"\n")       # 上次写到一半就断了：另起一行
        line = ("\n" * torn + json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
        with open(path, "ab", buffering=0) as file:       # 一行一次写入，追加在末尾
            file.write(line)
    except OSError:
        pass


