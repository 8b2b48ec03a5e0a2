"""一把锁：两个 course.py 同时安装时，后来的等先来的。"""

from __future__ import annotations

import os
import time

from tools.install import base

LOCK = os.path.join(base.ROOT, ".venv.lock")


class Lock:
    """文件锁，用在 with 里。进程一死，锁自动打开。"""

    def __enter__(self) -> Lock:
        try:
            self.file = open(LOCK, "a+")
        except OSError as error:
            raise base.Stop(f"课程文件夹不可写：{error}\n请把课程放到你自己的目录里再运行一次。") from error
        waiting = False
        while not self._take():
            if not waiting:
                print("另一个 course.py 正在安装，等它完成……", flush=True)
                waiting = True
            time.sleep(0.3)
        return self

    def _take(self) -> bool:
        try:
            if base.WINDOWS:
                import msvcrt
                self.file.seek(0)
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl
                fcntl.flock(self.file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False

    def __exit__(self, *_) -> None:
        self.file.close()
