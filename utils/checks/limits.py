"""限时运行一个函数：死循环也停得下来。用的是向线程投递异常，所以在主线程、Windows、Jupyter 内核里都行。只是铺路石（plumbing）。"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_AGAIN = 0.2                                              # 秒：异常若被吞掉，隔这么久再投一次


class TimeUp(BaseException):
    """时间到了。不是 Exception 的子类，所以答案里的 `except Exception` 拦不住它。"""


def _deliver(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


def run_limited(function: Callable[[], T], seconds: float) -> T:
    """在当前线程里运行 function；超过 seconds 秒就从里面把它打断。

    打断发生在两条 Python 字节码之间：Python 写的死循环都停得下来；停在一次 C 调用里面的（例如 time.sleep），要等那次调用返回。

    参数：
        function: 不带参数的函数。
        seconds: 最多多少秒。
    返回：
        function 的返回值。
    异常：
        TimeUp: 时间到了。function 自己的异常原样传出。
    """
    me, finished, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def watch() -> None:
        wait = seconds
        while not finished.wait(wait):
            with lock:
                if not finished.is_set():
                    _deliver(me, TimeUp)
            wait = _AGAIN

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return function()
    finally:
        with lock:
            finished.set()
            _deliver(me, None)                            # 刚好同时到点的那一个，收回来
