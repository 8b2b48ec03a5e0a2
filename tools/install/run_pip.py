"""运行 pip：看着它的日志和磁盘，随时停得下来，失败时说清楚原因。"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

from tools.install import base
from tools.install.explain import NEED_GB, explain, need_disk


def check_disk() -> None:
    """开始之前看剩余空间；装过一部分的，需要的少一些。"""
    need = 0.5 if os.path.isdir(base.in_site().get("torch", "")) else NEED_GB
    for where, least in ((base.VENV, need), (tempfile.gettempdir(), min(need, 1.0))):
        free = _free_gb(where)
        if free < least:
            raise base.Stop(need_disk(where, free))


def _free_gb(where: str) -> float:
    return shutil.disk_usage(base.existing(where)).free / 1e9


def pip_install(python: str, arguments: list[str], env: dict[str, str], keep: Iterable[int] = ()) -> None:
    """运行 pip（进度条直接显示在终端），同时看日志和磁盘；失败就抛出 Stop。

    pip 的临时文件放在一个会被删掉的文件夹里，所以随时停得下来。keep 是要留给 pip 的文件描述符：
    本程序被强行结束而 pip 还在跑时，锁仍然是锁上的。
    """
    folder = tempfile.mkdtemp(prefix="course-")
    try:
        temp = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)
        _watch_pip(python, arguments, os.path.join(folder, "pip.log"), env | temp, keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watch_pip(python: str, arguments: list[str], log: str, env: dict[str, str], keep: Iterable[int]) -> None:
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
               "--no-warn-script-location", "--log", log, *arguments]
    env = env | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONUTF8": "1"}
    # 自成一组：Ctrl-C 只到本程序，由我们安静地停下 pip，屏幕上不会有它的一大段报错
    extra = {"creationflags": 0x200} if base.WINDOWS else {"pass_fds": tuple(keep), "start_new_session": True}
    child = subprocess.Popen(command, env=env, cwd=base.ROOT, stdin=subprocess.DEVNULL, **extra)
    lowest, told = 1e9, False
    before = _catch_termination()
    try:
        while child.poll() is None:
            time.sleep(0.2)
            lowest = min(lowest, _free_gb(base.VENV), _free_gb(tempfile.gettempdir()))
            if not told and "Retrying (" in _read_log(log, 20000):
                print("网络不太通，pip 正在重试；可以等，也可以按 Ctrl-C 停下，换镜像再来（见 README.md）。", flush=True)
                told = True
    finally:
        if child.poll() is None:
            _stop_child(child)
        for number, handler in before.items():
            signal.signal(number, handler)
    if child.returncode != 0:
        raise base.Stop("\n" + explain(complaints(_read_log(log)), lowest))


def _catch_termination() -> dict[int, signal.Handlers]:
    """关终端、被要求结束时，当作 Ctrl-C 处理，好把 pip 也停下。返回原来的处理办法。"""
    def stop(*_):
        raise KeyboardInterrupt
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return {number: signal.signal(number, stop) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}


def _read_log(path: str, tail: int = 2000000) -> str:
    """日志的最后 tail 个字节；还没有日志就返回空串。"""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - tail))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def complaints(log: str) -> str:
    """pip 的详细日志里只留警告、错误和最后几行，免得把普通的一行误认成错误。"""
    lines = log.splitlines()
    return "\n".join([line for line in lines[:-8] if re.search(r"(ERROR|WARNING|error): ", line)] + lines[-8:])


def _stop_child(child: subprocess.Popen) -> None:
    """停下子进程：先好好说，5 秒不退再强行结束。pip 的进度条会藏起光标，停下后放回来。"""
    for action in (child.terminate, child.kill):
        action()
        for _ in range(50):
            if child.poll() is not None:
                if sys.stdout.isatty() and not base.WINDOWS:
                    sys.stdout.write("\033[?25h")
                return
            time.sleep(0.1)
