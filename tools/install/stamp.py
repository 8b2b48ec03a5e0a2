"""印记：装完时写进 .venv 的一个小文件，记着装的是什么、在哪里、有哪些包。下次一看它，就知道还能不能用。"""

from __future__ import annotations

import hashlib
import json
import os
import platform

from tools.install import base

STAMP = os.path.join(base.VENV, "course-stamp.json")


def install_key(version: str) -> str:
    """安装内容的指纹：依赖、约束、Python 版本和平台，任何一样变了就重装。"""
    parts = [base.read(os.path.join(base.ROOT, name)) for name in ("requirements.txt", "constraints.txt")]
    parts += [version, platform.system(), platform.machine()]
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()


def snapshot() -> dict[str, int]:
    """site-packages 的第一层：{名字：里面有几个文件或文件夹}。__pycache__ 会自己变，不算。"""
    seen = {}
    for name, path in base.in_site().items():
        if name != "__pycache__" and not name.startswith("~"):
            inside = os.listdir(path) if os.path.isdir(path) else ["file"]
            seen[name] = len([n for n in inside if n != "__pycache__"])
    return seen


def venv_version() -> str:
    """.venv 里的 Python 版本，例如 "3.11"；不能运行就返回空串。"""
    major, minor = base.ask_version(base.venv_python())
    return f"{major}.{minor}" if major else ""


def read_stamp() -> dict:
    """上次留下的印记；没有，或者读不出来，就是空的。"""
    try:
        return json.loads(base.read(STAMP))
    except (OSError, ValueError):
        return {}


def write_stamp() -> None:
    """装完了，留下印记；写完才换上去，中途停了不留半个。"""
    stamp = {"key": install_key(venv_version()), "venv": base.VENV, "packages": snapshot()}
    with open(STAMP + ".part", "w", encoding="utf-8") as file:
        file.write(json.dumps(stamp, indent=0, sort_keys=True))
    os.replace(STAMP + ".part", STAMP)


def remove_stamp() -> None:
    """去掉印记：从现在起，到再写下它为止，.venv 都算没装完。"""
    if os.path.exists(STAMP):
        os.remove(STAMP)


def moved_from() -> str:
    """课程文件夹换了地方：.venv 原来的路径；没有换（经过符号链接也算没有换）就返回空串。"""
    old = read_stamp().get("venv", base.VENV)
    return old if os.path.realpath(old) != os.path.realpath(base.VENV) else ""


def why_not_ready() -> str:
    """.venv 可用就返回空串，否则返回要修的原因。只看，不写。"""
    if not os.path.isdir(base.VENV):
        return "第一次运行，先建好环境"
    stamp = read_stamp()
    if not stamp:
        return ".venv 还没装完，接着装"
    version = venv_version()
    if not version:
        return ".venv 里的 Python 不能运行了，重新建"
    if stamp.get("key") != install_key(version):
        return "requirements.txt、constraints.txt 或 Python 变了，更新 .venv"
    if moved_from():
        return "课程文件夹换了地方，修好 .venv"
    now = snapshot()
    lost = sorted(n for n, count in stamp.get("packages", {}).items() if now.get(n, -1) < count)
    if lost:
        return f".venv 里少了 {'、'.join(lost[:5])}，补装"
    return ""
