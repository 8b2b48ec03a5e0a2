"""训练的经过：一步步的损失，一次次的评估。"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PreTrainedModel, TrainerCallback


@dataclass
class History:
    """训练的经过。

    属性：
        steps, train_loss: 每次记录时的步数与训练损失（奈特/目标词元）。
        eval_steps, eval_loss, eval_accuracy: 每次评估时的步数、留出集损失与准确率。
        seconds: 训练用时（秒，含评估）。
        interrupted: 是否被中途打断。
    """

    steps: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    eval_steps: list[int] = field(default_factory=list)
    eval_loss: list[float] = field(default_factory=list)
    eval_accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False


class HistoryCallback(TrainerCallback):
    """把训练损失与评估结果记进 History。

    参数：
        history: 写到哪里。
        evaluate_fn: 给一个模型，返回 （损失，准确率）。
        every: 每多少步评估一次；第 0 步和最后一步总会评估。
    """

    def __init__(self, history: History, evaluate_fn: Callable[[PreTrainedModel], tuple[float, float]], every: int):
        self.history, self.evaluate_fn, self.every = history, evaluate_fn, every

    def _evaluate(self, step: int, model: PreTrainedModel) -> None:
        loss, accuracy = self.evaluate_fn(model)
        self.history.eval_steps.append(step)
        self.history.eval_loss.append(loss)
        self.history.eval_accuracy.append(accuracy)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if not self.history.eval_steps:                   # 续练时曲线已经读回来了
            self._evaluate(0, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._evaluate(state.global_step, model)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.history.steps.append(state.global_step)
            self.history.train_loss.append(float(logs["loss"]))
