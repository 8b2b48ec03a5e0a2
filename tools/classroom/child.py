"""批改的子进程，从父进程这边看：断网地启动它，读它一行一行的结果，盯着时间和内存，连同它生出来的进程一起结束。只是铺路石（plumbing）。"""

from __future__ import annotations

import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

import psutil

from utils.paths import ROOT

MAX_BYTES = 4_000_000                                     # 子进程写回来的结果，最多这么多


@lru_cache(maxsize=1)
def isolation() -> tuple[str, ...]:
    """断网的命令前缀：能用 unshare 就用它（连 C 写的也断），不能就是空的，改由子进程拦套接字。"""
    for prefix in (("unshare", "-n"), ("unshare", "-r", "-n")):
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, timeout=20).returncode == 0:
                return prefix
        except (OSError, subprocess.SubprocessError):
            continue
    return ()


class Child:
    """一个批改子进程，和读它结果的线程。"""

    def __init__(self, task: dict, folder: str) -> None:
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "SYSTEMROOT", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "COURSE_PRESET")}
        env |= {"HOME": folder, "USERPROFILE": folder, "TMPDIR": folder, "TEMP": folder, "TMP": folder, "COURSE_OUTPUTS": folder,
                "HF_HOME": folder, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1",
                "PYTHONDONTWRITEBYTECODE": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [*isolation(), sys.executable, "-I", str(Path(__file__).with_name("sandbox.py")), str(ROOT)]
        own_group = {} if os.name == "nt" else {"start_new_session": True}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        env=env, cwd=folder, **own_group)
        self.rows: queue.Queue = queue.Queue()
        self.token = secrets.token_hex(16)                # 每行结果都要带上它：答案自己往管道里写的不算
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.process.stdin.write(json.dumps({**task, "token": self.token}).encode("utf-8"))
            self.process.stdin.close()
        except OSError:                                   # 没起来就退了：读到的是空
            pass

    def _read(self) -> None:
        size = 0
        for line in iter(lambda: self.process.stdout.readline(MAX_BYTES), b""):
            size += len(line)
            if size > MAX_BYTES:
                break
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and row.pop("token", None) == self.token:
                self.rows.put(row)
        self.rows.put(None)

    def memory_mb(self) -> float:
        try:
            family = [psutil.Process(self.process.pid)]
            family += family[0].children(recursive=True)
            return sum(p.memory_info().rss for p in family) / 1e6
        except psutil.Error:
            return 0.0

    def wait_row(self, seconds: float, memory_mb: float) -> tuple[dict | None, str]:
        """等下一行结果。返回 （行，""），或 （None，"结束"/"超时"/"内存"）。"""
        until = time.monotonic() + seconds
        while True:
            try:
                row = self.rows.get(timeout=0.1)
                return (row, "") if row is not None else (None, "结束")
            except queue.Empty:
                if time.monotonic() > until:
                    return None, "超时"
                if self.memory_mb() > memory_mb:
                    return None, "内存"

    def stop(self) -> None:
        """连同它生出来的进程一起结束。"""
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            family = []
        if os.name != "nt":
            try:
                os.killpg(self.process.pid, 9)
            except OSError:
                pass
        for p in family:
            try:
                p.kill()
            except psutil.Error:
                continue
        self.process.kill()
        self.process.wait(20)
