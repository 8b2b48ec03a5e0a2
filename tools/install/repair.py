"""建 .venv，或修好它：解释器坏了、pip 没了、文件夹搬过家、软件包只剩一半。能留的都留。"""

from __future__ import annotations

import os
import re
import shutil
import sys

from tools.install import base
from tools.install.explain import explain_venv
from tools.install.stamp import moved_from


def make_venv() -> None:
    """建 .venv，或修好它：能留的都留，修不好或版本不对才清空重建。"""
    if _works():
        if moved_from():
            _move_scripts(moved_from())
        return
    version = "{}.{}".format(*sys.version_info[:2])
    print(f"建虚拟环境 .venv(Python {version})……", flush=True)
    python = base.venv_python()
    if _cfg_version() == version and base.ask_version(python) == (0, 0):
        folder = os.path.dirname(python)
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.startswith("python"):     # 断掉的链接，venv 自己不会换
                os.remove(os.path.join(folder, name))
        base.capture([sys.executable, "-m", "venv", base.VENV])
        if _works():
            return
    code, output = base.capture([sys.executable, "-m", "venv", "--clear", base.VENV])
    if code != 0 or not _works():
        raise base.Stop(explain_venv(output))


def _works() -> bool:
    """.venv 的解释器够新、能运行，也有 pip（没有就试着补上）。"""
    if not os.path.isdir(base.VENV) or base.ask_version(base.venv_python()) < base.MIN_PYTHON:
        return False
    pip = [base.venv_python(), "-m", "pip", "--version"]
    if base.capture(pip)[0] == 0:
        return True
    for name, path in base.in_site().items():
        if name == "pip" or name.startswith("pip-"):
            shutil.rmtree(path, ignore_errors=True)
    return add_pip() and base.capture(pip)[0] == 0


def add_pip() -> bool:
    """用 Python 自带的 ensurepip 装上 pip。"""
    return base.capture([base.venv_python(), "-m", "ensurepip", "--upgrade", "--default-pip"])[0] == 0


def _cfg_version() -> str:
    """pyvenv.cfg 里写的 Python 版本，例如 "3.11"；没有就返回空串。"""
    try:
        text = base.read(os.path.join(base.VENV, "pyvenv.cfg"))
    except (OSError, ValueError):
        return ""
    match = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", text, re.M)
    return match[1] if match else ""


def _move_scripts(old: str) -> None:
    """文件夹搬过家：.venv/bin 里的命令和激活脚本写着旧路径 old，改成新的。"""
    python = base.venv_python()
    same = base.ask_version(sys.executable) == base.ask_version(python)
    base.capture([sys.executable if same else python, "-m", "venv", "--without-pip", base.VENV])
    folder = os.path.dirname(python)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            data = file.read()
        header = re.match(br"#!/bin/sh\n'''exec' .*\n' '''\n|#!.*\n", data)
        if header and old.encode("utf-8") in header.group():
            with open(path, "wb") as file:
                file.write(_shebang(python).encode("utf-8") + data[header.end():])


def _shebang(python: str) -> str:
    """脚本的头一行；路径里有空格或太长时，系统不认普通写法，借 /bin/sh 转一道（pip 也这样写）。"""
    if " " in python or len(python.encode("utf-8")) > 120:
        return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"
    return f"#!{python}\n"


def heal() -> list[str]:
    """文件不全的软件包：去掉它的登记，pip 才会重新装它。返回这些包的名字。"""
    site, broken = base.site_packages(), []
    for name, path in base.in_site().items():
        if name.startswith("~"):
            shutil.rmtree(path, ignore_errors=True)
        elif name.endswith(".dist-info"):
            files = _record_files(path)
            if not files or not all(os.path.exists(os.path.join(site, f)) for f in files):
                shutil.rmtree(path, ignore_errors=True)
                broken.append(name.removesuffix(".dist-info"))
    return broken


def _record_files(info: str) -> list[str] | None:
    """一个 .dist-info 的 RECORD 里列出的、应当存在的文件（相对 site-packages）。没有 RECORD 返回 None。"""
    try:
        lines = base.read(os.path.join(info, "RECORD")).splitlines()
    except (OSError, ValueError):
        return None
    names = [line.rsplit(",", 2)[0].strip('"') for line in lines if line.strip()]
    return [n for n in names if not n.endswith(".pyc") and not n.startswith("..")]
