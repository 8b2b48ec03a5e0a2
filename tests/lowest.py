"""把 requirements.txt 的下限变成 `==`，用来核对「下限是真的」。

用法（在一个新的虚拟环境里）:

    python -m venv /tmp/lowest
    python tests/lowest.py > /tmp/lowest.txt
    /tmp/lowest/bin/python -m pip install -r /tmp/lowest.txt
    /tmp/lowest/bin/python -m pytest

只有直接依赖取下限，它们各自的依赖由 pip 取最新：学习者的机器上最可能出现的也是这种组合。
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"^([A-Za-z0-9_.-]+)\s*>=\s*([0-9][0-9A-Za-z.]*)\s*$")


def requirements(text: str) -> dict[str, str]:
    """返回 {包名：下限}；除了 `名字>=下限` 和注释，出现别的写法就报 ValueError。"""
    bounds = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        match = LINE.match(line)
        if match is None:
            raise ValueError(f"requirements.txt 第 {number} 行不是「名字>=下限」：{line}")
        bounds[match[1].lower().replace("_", "-")] = match[2]
    return bounds


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    for name, version in requirements((ROOT / "requirements.txt").read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
