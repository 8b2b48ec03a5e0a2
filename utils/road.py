"""课程的路：notebooks/road.toml 里写着有哪些 notebook、什么次序、各用谁的模型。只是铺路石（plumbing）。"""

from __future__ import annotations

import tomllib
from pathlib import Path

KINDS = ("mlm", "clm")                                    # 同 utils.checkpoints.KINDS；那个模块要先导入 torch，这里只读一个小文件


def road(folder: Path) -> list[dict]:
    """folder（notebooks/）里的 road.toml，按次序一本一项；没有这个文件就是空的。

    返回：
        每项至少有 name；"mlm"、"clm" 是它用谁的模型（"shipped"、"own"、"both"），不用就没有；makes 是它练出并存下哪一个。
    """
    path = folder / "road.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["notebook"] if path.exists() else []


def lenders(folder: Path, name: str) -> list[str]:
    """name 那一本载入的模型，是前面哪几本练出来的：只用附带的，就一本也没有。"""
    rows = road(folder)
    at = next((i for i, row in enumerate(rows) if row["name"] == name), 0)
    wanted = [kind for kind in KINDS if rows and rows[at].get(kind) in ("own", "both")]
    return [row["name"] for row in rows[:at] if row.get("makes") in wanted]
