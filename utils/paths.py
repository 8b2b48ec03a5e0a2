"""TODO"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


DATA = ROOT / "data"


SHIPPED = DATA / "checkpoints"
