"""课程的文件在哪里：别处都从这里取，不自己拼。"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
SHIPPED = DATA / "checkpoints"
NOTEBOOKS = ROOT / "notebooks"


def outputs() -> Path:
    """学习者自己的产物放在哪里：课程文件夹里的 outputs；环境变量 COURSE_OUTPUTS 可以另指一处。"""
    return Path(os.environ.get("COURSE_OUTPUTS") or ROOT / "outputs")
