"""批改的子进程把自己关起来（Linux 的 Landlock）：只能写自己的临时文件夹，只能读课程和系统的文件，发不出信号。只是铺路石（plumbing）。

不要管理员权限，关上以后它自己和它生出来的进程都打不开。只用标准库。
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446                  # 各种处理器上都是这三个系统调用号
_READ = 1 << 0 | 1 << 2 | 1 << 3                          # 执行、读文件、列目录
_WRITE_FILE = 1 << 1


def _system_call(*arguments) -> int:
    return ctypes.CDLL(None, use_errno=True).syscall(*arguments)


def version() -> int:
    """系统里 Landlock 的版本；没有就是 0。"""
    if sys.platform != "linux":
        return 0
    try:
        return max(0, _system_call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)))
    except (OSError, AttributeError):
        return 0


def _everything(abi: int) -> int:
    """这个版本认得的全部文件操作。"""
    bits = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)
    return (1 << bits) - 1


def lock(readable: list[str], writable: list[str]) -> bool:
    """从此只能读 readable、读写 writable 之下的文件。返回真的关上了没有；没有 Landlock 的系统上什么也不做。"""
    abi = version()
    if not abi:
        return False
    handled = _everything(abi)
    attributes = (ctypes.c_uint64 * 3)(handled, 0, 0b11 if abi >= 6 else 0)                    # 0b11：不许给外面发信号
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = _system_call(_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint(0))
    if rules < 0:
        return False
    try:
        for path, allowed in [*((p, _READ) for p in readable), *((p, handled) for p in writable), (os.devnull, _READ | _WRITE_FILE)]:
            _allow(rules, path, allowed & handled)
        libc = ctypes.CDLL(None, use_errno=True)
        return libc.prctl(38, 1, 0, 0, 0) == 0 and _system_call(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0)) == 0
    finally:
        os.close(rules)


def _allow(rules: int, path: str, allowed: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:                                       # 没有这个文件夹：不必放行
        return
    try:
        if not os.path.isdir(path):
            allowed &= 1 << 0 | _WRITE_FILE | 1 << 2      # 文件没有列目录、建文件这些操作
        rule = allowed.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder, signed=True)
        _system_call(_ADD, ctypes.c_int(rules), ctypes.c_int(1), ctypes.c_char_p(rule), ctypes.c_uint(0))
    finally:
        os.close(fd)


def needed_to_read(root: str) -> list[str]:
    """批改一份作业要读的：Python 和它的包、课程的代码和数据、系统的库。课程里的 outputs 和别的文件夹不在内。"""
    own = [os.path.join(root, name) for name in ("utils", "data")]
    packages = {str(Path(p).resolve()) for p in [sys.prefix, sys.base_prefix, sys.exec_prefix,
    *sys.path] if p and Path(p).resolve() != Path(root).resolve()}
    return [*own, *sorted(packages), "/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev"]
