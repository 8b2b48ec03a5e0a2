"""按时间训练：给每种做法同样多的秒数，公平地比。

按步数比，每步算得多的做法占便宜；按时间比，快慢都算在内。学习率也随时间走，到时限正好降到 0，谁都不会停在半路上。
首次使用：attention_visualization；tools/benchmarks/pretraining.py 用的也是它。

「时间」不一定是秒：给 clock 换一只表，就按别的东西来比。tokenization 换上的是电表（FlopsMeter），按浮点运算数训练。
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from datasets import Dataset
from transformers import BertLMHeadModel, PreTrainedModel, TrainerCallback, TrainingArguments

from utils.training.loop import quiet_trainer
from utils.training.losses import targets_only

ENDLESS = 10**7                                           # 步数不设限，由时限来停


class Deadline(TrainerCallback):
    """到时限就停；学习率先升温，再随时间（不是步数）线性降到 0。

    参数：
        seconds: 时限（秒），从第一步开始算。
        lr: 最高的学习率。
        warmup: 升温占时限的比例。
        clock: 看表的函数；不写就是真的时钟。换成别的，seconds 的单位也跟着换。
    """

    def __init__(self, seconds: float, lr: float, warmup: float = 0.1, clock: Callable[[], float] | None = None):
        self.seconds, self.lr, self.warmup, self.started = seconds, lr, warmup, 0.0
        self.clock = clock or (lambda: time.perf_counter())

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = self.clock()

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        done = min(1.0, (self.clock() - self.started) / self.seconds)
        share = done / self.warmup if done < self.warmup else (1 - done) / (1 - self.warmup)
        for group in optimizer.param_groups:
            group["lr"] = self.lr * share

    def on_step_end(self, args, state, control, **kwargs):
        if self.clock() - self.started >= self.seconds:
            control.should_training_stop = True


def train_for(seconds: float, model: PreTrainedModel, encoded: Dataset, collate: Callable, args: TrainingArguments,
              warmup: float = 0.1, lean: bool = True, clock: Callable[[], float] | None = None) -> int:
    """用 Trainer 训练 seconds 秒（就地更新），返回练了多少步。不画曲线，不存进度，不做评估。

    参数：
        seconds: 时限（秒）。
        model, encoded, collate: 同 utils.training.train。
        args: 最高学习率、每批篇数等取自这里；步数和学习率的走法由时限决定。
        warmup: 升温占时限的比例。
        lean: True 表示词表头只在有标签的位置算（targets_only）。
        clock: 看表的函数，见 Deadline。
    异常：
        ValueError: seconds 不是正数。
    """
    if seconds <= 0:
        raise ValueError(f"seconds={seconds} 不行：时限要是正数。")
    args = replace(args, max_steps=ENDLESS, lr_scheduler_type="constant", warmup_steps=0, save_strategy="no",
                   logging_steps=ENDLESS)
    trainer = quiet_trainer(model, encoded, collate, args, [Deadline(seconds, args.learning_rate, warmup, clock)])
    with targets_only(model, shift=isinstance(model, BertLMHeadModel)) if lean else nullcontext():
        trainer.train()
    model.eval()
    return trainer.state.global_step
