"""训练进度：notebook 里是一行进度加一张会动的损失曲线，终端里是一行字。只是铺路石。"""

from __future__ import annotations

import sys
import time

import matplotlib.pyplot as plt
from transformers import TrainerCallback

from utils.display.plotting import loss_curve
from utils.training.history import History

TRANSIENT = {"course": "transient"}                      # 带这个标记的输出不会写进成品 notebook


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class ProgressCallback(TrainerCallback):
    """显示步数、损失、已用与还需的时间；每次评估后重画曲线。

    参数：
        history: 正在记录的 History。
        baselines: 画成水平虚线的基线与下限，名字 → 奈特/词元。
    """

    def __init__(self, history: History, baselines: dict[str, float]):
        self.history, self.baselines = history, baselines
        self.started = self.shown = 0.0
        self.line = self.figure = None
        self.drawn = self.first = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.started, self.first = time.perf_counter(), state.global_step      # 续练时从上次的步数数起
        if _in_notebook():
            from IPython.display import display

            self.line = display({"text/plain": "准备训练…"}, raw=True, display_id=True, metadata=TRANSIENT)
            self.figure = display({"text/plain": ""}, raw=True, display_id=True, metadata=TRANSIENT)

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        last = state.global_step == state.max_steps
        if not state.is_world_process_zero or now - self.shown < 0.5 and not last:
            return
        self.shown = now
        used = now - self.started
        left = used / max(1, state.global_step - self.first) * (state.max_steps - state.global_step)
        share = state.global_step / state.max_steps
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        loss = f" · 留出集损失 {self.history.eval_loss[-1]:.3f}" if self.history.eval_loss else ""
        text = f"{bar} {state.global_step}/{state.max_steps} 步{loss} · 已用 {_clock(used)} · 还需 {_clock(left)}"
        if self.line is not None:
            self.line.update({"text/plain": text}, raw=True, metadata=TRANSIENT)
            self._draw()
        else:
            print("\r" + text, end="\n" if last else "", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        if len(self.history.eval_steps) in (self.drawn, 0, 1):
            return
        self.drawn = len(self.history.eval_steps)
        ax = loss_curve({"训练": (self.history.steps, self.history.train_loss),
                         "留出集": (self.history.eval_steps, self.history.eval_loss)}, self.baselines, "训练中")
        self.figure.update(ax.figure, metadata=TRANSIENT)
        plt.close(ax.figure)
