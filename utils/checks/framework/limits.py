"""限时运行一个函数：死循环也停得下来。用的是向线程投递异常，所以在主线程、Windows、Jupyter 内核里都行。只是铺路石（plumbing）。"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_AGAIN = 0.5                                              # 秒：异常若被吞掉，隔这么久再投一次


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
    me, gate, state = threading.get_ident(), threading.Lock(), {"watching": True}
    gate.acquire()

    def watch() -> None:
        wait = seconds
        while not gate.acquire(timeout=wait):
            _deliver(me, TimeUp)
            wait = _AGAIN
        state["watching"] = False

    watcher = threading.Thread(target=watch, daemon=True)
    try:
        try:
            watcher.start()
            return function()
        finally:
            _dismiss(watcher, gate, state)
    finally:                                              # 异常若恰好落在上面那个 finally 的门口，这里再来一遍
        _dismiss(watcher, gate, state)
        _deliver(me, None)                                # 投了还没到的，收回来


def _dismiss(watcher: threading.Thread, gate: threading.Lock, state: dict[str, bool]) -> None:
    """让看表的线程下班，等它真的走了再回来：此后不会再有异常投过来。这几行自己也可能被打断，所以只用不怕打断的操作。"""
    while True:
        try:
            while state["watching"] and watcher.ident is not None:         # 线程没起来的，不必等
                if gate.locked():
                    gate.release()
                time.sleep(0.0005)
            return
        except TimeUp:
            continue
