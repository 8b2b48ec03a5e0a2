"""软件包的名字和版本：要哪些，.venv 里有哪些，还缺哪些。"""

from __future__ import annotations

import os
import re

from tools.install import base


def canonical(name: str) -> str:
    """软件包的名字的标准写法：大小写、「-」「_」「.」都不分。"""
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    """版本号的前三个数，用来比大小。"""
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])


def bounds(path: str | None = None) -> dict[str, str]:
    """requirements.txt（或 path）里的 {包名：下限}。"""
    text = base.read(path or os.path.join(base.ROOT, "requirements.txt"))
    pairs = re.findall(r"^([A-Za-z0-9_.-]+)>=([0-9.]+)", text, re.M)
    return {canonical(name): bound for name, bound in pairs}


def in_venv() -> dict[str, str]:
    """.venv 里登记着的软件包：{包名：版本}。"""
    registered = [n.removesuffix(".dist-info") for n in base.in_site() if re.match(r"[^-]+-.*\.dist-info$", n)]
    pairs = [name.split("-", 1) for name in registered]
    return {canonical(name): version for name, version in pairs}


def missing(have: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """wanted（{包名：下限}）里，have（{包名：版本}）缺少或太旧的。"""
    return [name for name, bound in wanted.items() if name not in have or numbers(have[name]) < numbers(bound)]
