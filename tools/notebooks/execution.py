"""在本解释器的内核里执行一本 notebook，并量它的用时和内存。"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tqdm import tqdm

from tools.notebooks.links import read_cells
from utils.road import stop_of

CELL_TIMEOUT = 3600          # 秒；环境变量 COURSE_CELL_TIMEOUT 可改


@dataclass(frozen=True)
class Failure:
    """出错的单元。cell 从 1 数起（连文字单元一起数），0 表示不在某一格；line 是它的第一行代码。"""

    cell: int
    line: str
    error: str
    message: str

    def __str__(self) -> str:
        where = f"第 {self.cell} 格「{self.line}」：" if self.cell else ""
        return f"{where}{self.error}: {self.message}"


@dataclass(frozen=True)
class Result:
    """一本 notebook 的运行结果：用时（秒）、内核进程树的峰值内存（MB）、出错的单元（没有则 None）。"""

    name: str
    seconds: float
    peak_mb: float
    failure: Failure | None
    notebook: nbformat.NotebookNode = field(repr=False)
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return self.failure is None and not self.interrupted


class ThisPython(KernelSpecManager):
    """总是用当前解释器作内核，不管这台机器上还登记了哪些内核。"""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


class Client(NotebookClient):
    """记得自己运行到哪一格的 NotebookClient。"""

    current = 0

    def create_kernel_manager(self):
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = ThisPython()
        return manager

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        self.current = cell_index
        return await super().async_execute_cell(cell, cell_index, *args, **kwargs)


def tree_mb(process: psutil.Process) -> float:
    """进程和它全部子进程占用的内存（MB）。"""
    total = 0
    try:
        for p in [process, *process.children(recursive=True)]:
            try:
                total += p.memory_info().rss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total / 1e6


def first_line(source: str) -> str:
    """一格代码里第一行不是注释的代码，太长就截短。"""
    lines = [x.strip() for x in source.splitlines() if x.strip() and not x.strip().startswith("#")]
    return (lines or [""])[0][:60]


def find_failure(nb: nbformat.NotebookNode, current: int, error: BaseException) -> Failure:
    """从异常和输出里找出是哪一格、什么错。"""
    if isinstance(error, CellTimeoutError):
        name, message = "超时", f"这一格超过了 {cell_timeout()} 秒"
    elif isinstance(error, DeadKernelError):
        name, message = "内核退出", "运行这一格时 Python 进程没了，多半是内存不够"
    else:
        name, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    source = nb.cells[current].source if nb.cells else ""
    message = (str(message).strip().splitlines() or [""])[0][:300]
    return Failure(current + 1, first_line(source), name, message)


def cell_timeout() -> int:
    return int(os.environ.get("COURSE_CELL_TIMEOUT") or CELL_TIMEOUT)


def execute(source: Path, preset: str | None = None, records: Path | None = None, bar: bool = True) -> Result:
    """运行一本 notebook。

    参数：
        source: notebooks/src/题目.py；工作目录是它上一级的 notebooks/。
        preset: 预设名；None 表示由 notebook 自己选。
        records: lesson.record 的记录写到这个 jsonl 文件；None 表示不写。
        bar: 是否显示进度条。
    返回：
        Result；出错也返回（见 failure），按 Ctrl-C 则 interrupted 为 True。
    """
    nb, name = nbformat.v4.new_notebook(cells=read_cells(source)), stop_of(source).name
    env = dict(os.environ, PYTHONUTF8="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    for variable in ("COURSE_RECORDS", "MPLBACKEND"):
        env.pop(variable, None)
    if preset:
        env["COURSE_PRESET"] = preset
    if records:
        env["COURSE_RECORDS"] = str(records)
    steps = sum(c.cell_type == "code" for c in nb.cells)
    progress = tqdm(total=steps, desc=name, unit="格", leave=False, disable=None if bar else True)

    def advance(cell, cell_index):
        progress.update(cell.cell_type == "code")

    client = Client(nb, timeout=cell_timeout(), kernel_name="python3", store_widget_state=False,
                    on_cell_executed=lambda cell, cell_index, execute_reply: advance(cell, cell_index))
    errors: list[BaseException] = []

    def work():
        try:
            client.execute(cwd=str(source.parent.parent), env=env)
        except BaseException as error:      # noqa: BLE001 线程里的任何异常都要带回主线程
            errors.append(error)

    began, peak, interrupted = time.perf_counter(), 0.0, False
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            peak = max(peak, kernel_mb(client))
    except KeyboardInterrupt:
        interrupted = True
        kill_kernel(client)
        thread.join(20)
    finally:
        progress.close()
    seconds = time.perf_counter() - began
    failure = None if interrupted or not errors else find_failure(nb, client.current, errors[0])
    return Result(name, seconds, peak, failure, nb, interrupted)


def kernel_process(client: Client) -> psutil.Process | None:
    """client 的内核进程；还没启动或已结束则 None。"""
    pid = getattr(getattr(client.km, "provisioner", None), "pid", None)
    try:
        return psutil.Process(pid) if pid else None
    except psutil.Error:
        return None


def kernel_mb(client: Client) -> float:
    process = kernel_process(client)
    return tree_mb(process) if process else 0.0


def kill_kernel(client: Client) -> None:
    """结束内核和它的子进程。"""
    process = kernel_process(client)
    for p in [*process.children(recursive=True), process] if process else []:
        try:
            p.kill()
        except psutil.Error:
            continue
