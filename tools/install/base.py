"""各处都要用的：课程在哪里，.venv 在哪里，怎样叫别的 Python 做事，怎样停下。"""

from __future__ import annotations

import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, ".venv")
WINDOWS = os.name == "nt"
MIN_PYTHON = (0, 0)       # 课程支持的 Python 只写在 course.py 里（旧 Python 读得懂的只有它），由它交到这两个名字上
SUPPORTED = ""            # 例如「3.11 到 3.13」


class Stop(Exception):
    """要停下来时抛出：text 是给人看的话，code 是退出码。"""

    def __init__(self, text: str, code: int = 1):
        super().__init__(text)
        self.text = text
        self.code = code


def me() -> str:
    """当前系统上怎样叫 course.py。"""
    return ("python" if WINDOWS else "python3") + " course.py"


def read(path: str) -> str:
    """一个文本文件的全文。"""
    with open(path, encoding="utf-8") as file:
        return file.read()


def existing(path: str) -> str:
    """path 本身或最近的已存在的上级。"""
    while not os.path.exists(path):
        path = os.path.dirname(path) or os.curdir
    return path


def venv_python() -> str:
    """.venv 里的解释器的路径。"""
    parts = ("Scripts", "python.exe") if WINDOWS else ("bin", "python")
    return os.path.join(VENV, *parts)


def site_packages() -> str | None:
    """.venv 的 site-packages 文件夹；没有就返回 None。"""
    if WINDOWS:
        found = os.path.join(VENV, "Lib", "site-packages")
        return found if os.path.isdir(found) else None
    lib = os.path.join(VENV, "lib")
    for name in sorted(os.listdir(lib)) if os.path.isdir(lib) else []:
        found = os.path.join(lib, name, "site-packages")
        if os.path.isdir(found):
            return found
    return None


def in_site() -> dict[str, str]:
    """site-packages 的第一层，按名字排好：{名字：路径}；没有 site-packages 就是空的。"""
    site = site_packages()
    return {name: os.path.join(site, name) for name in sorted(os.listdir(site))} if site else {}


def clean_environ() -> dict[str, str]:
    """给 .venv 用的环境变量：去掉会把别的 Python 混进来的几个。"""
    mixed = ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in mixed}


def capture(command: list[str]) -> tuple[int, str]:
    """运行一个命令，返回（退出码，输出文字）。"""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, env=clean_environ(), cwd=ROOT)
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def ask_version(python: str) -> tuple[int, int]:
    """运行一个解释器，返回（主版本，次版本）；不能运行就返回 (0, 0)。"""
    code = "import sys; print('%d %d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], env=clean_environ(), capture_output=True)
        major, minor = done.stdout.split()[:2]
        return (int(major), int(minor)) if done.returncode == 0 else (0, 0)
    except (OSError, ValueError):
        return (0, 0)
