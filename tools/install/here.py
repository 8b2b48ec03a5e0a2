"""--here：就用当前的 Python，不建 .venv(conda、Colab)。"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from importlib import metadata

from tools.install import base
from tools.install.packages import bounds, canonical, missing
from tools.install.run_pip import pip_install


def installed() -> dict[str, str]:
    """当前解释器里装了哪些包：{包名：版本}。"""
    have = {}
    for dist in metadata.distributions():
        name = dist.metadata["Name"]
        if name:
            have.setdefault(canonical(name), dist.version)
    return have


def on_colab() -> bool:
    """是不是在 Colab 上。"""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except (ImportError, ValueError):
        return False


def set_up_here() -> str:
    """用当前解释器，返回它的路径：Colab 上只补缺的（已有的 torch、numpy 等一律不动），别处缺了就说清楚。"""
    have = installed()
    lacking = missing(have, bounds())
    if not lacking:
        return sys.executable
    if not on_colab():
        raise base.Stop(f"当前的 Python 里缺少（或太旧）:{'、'.join(lacking)}\n请先安装：\n"
                        f"    {sys.executable} -m pip install -r requirements.txt -c constraints.txt\n"
                        "conda 用户：conda env create -f environment.yml，再激活它。\n"
                        "或者去掉 --here，让课程自己建 .venv。")
    print(f"Colab：补装 {'、'.join(lacking)}；已有的包都不动。", flush=True)
    folder = tempfile.mkdtemp(prefix="course-")
    try:
        requirements, constraints = _colab_files(folder, have, lacking)
        pip_install(sys.executable, ["-r", requirements, "-c", constraints], dict(os.environ))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sys.executable


def _colab_files(folder: str, have: dict[str, str], lacking: list[str]) -> list[str]:
    """写出 Colab 用的依赖和约束：缺的按测试过的版本装，已有的钉在现在的版本上。返回两个文件的路径。"""
    keep = {name: version for name, version in have.items() if name not in lacking}
    pins = []
    for line in base.read(os.path.join(base.ROOT, "constraints.txt")).splitlines():
        name = canonical(re.split(r"[=; ]", line, maxsplit=1)[0])
        if line.strip() and not line.startswith("#") and name not in keep and name not in ("torch", "numpy"):
            pins.append(line)
    pins += [f"{name}=={keep[name]}" for name in ("torch", "numpy") if name in keep]
    wanted = [f"{name}>={bounds()[name]}" for name in lacking]
    paths = [os.path.join(folder, name) for name in ("requirements.txt", "constraints.txt")]
    for path, lines in zip(paths, (wanted, pins), strict=True):
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    return paths
