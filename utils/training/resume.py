"""中断与续练：每分钟存一次进度；内核停了、机器关了，下次从存下的那一步接着练。

进度存在 Trainer 的工作文件夹里，一次训练一个子文件夹，名字由设置算出；练完就删。设置（模型、数据、目标、学习率、步数……）有一点不同，
就不是同一次训练，不会混在一起。
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from utils.training.collators import describe
from utils.training.history import History

SETTINGS, HISTORY = "settings.json", "history.json"
ARGUMENTS = {"max_steps": "步数", "per_device_train_batch_size": "每批篇数", "learning_rate": "学习率", "warmup_steps": "升温步数",
             "lr_scheduler_type": "学习率的走势", "weight_decay": "权重衰减", "optim": "优化器", "bf16": "bf16", "seed": "随机种子"}
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
         "hidden_dropout_prob", "is_decoder", "d_model", "num_layers")
START = "_course_start"                                   # 记在模型上：它开始训练时的指纹


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _weights(model: nn.Module) -> str:
    return _digest([f"{p.detach().float().abs().sum().item():.5g}" for p in model.parameters()])


def training_settings(model: nn.Module, encoded: Dataset, args: TrainingArguments, collate: Callable) -> dict[str, str]:
    """一次训练的全部设置，名字 → 值（字符串）；两次训练的设置相同，才能接着练。

    参数：
        model: 将要训练的模型；它的起点权重也算在设置里。
        encoded: 训练数据。
        args: Trainer 的设置。
        collate: 整理函数；目标（MLM、CLM……）和它的设置（遮盖率）都在里面。
    """
    rows = [encoded[i]["input_ids"] for i in {0, len(encoded) // 2, len(encoded) - 1}] if len(encoded) else []
    started = getattr(model, START, None) or _weights(model)
    config = getattr(model, "config", None)                # 自己写的 nn.Module 没有 config，靠起点的权重区分
    sizes = {key: getattr(config, key) for key in SIZES if hasattr(config, key)}
    return {"模型": type(model).__name__, "模型的大小": str(sizes), "起点的权重": started, "数据": f"{len(encoded)} 篇 {_digest(rows)}",
            "目标": describe(collate), **{name: str(getattr(args, key)) for key, name in ARGUMENTS.items()}}


def complete_checkpoints(folder: Path) -> list[Path]:
    """folder（一次训练的子文件夹）里存完整的检查点，按步数。曲线是最后写的，有它才算存完；写到一半时进程没了，不算。"""
    whole = [p.parent for p in folder.glob(f"checkpoint-*/{HISTORY}") if (p.parent / "trainer_state.json").exists()]
    return sorted(whole, key=lambda p: int(p.name.rpartition("-")[2]))


def find_progress(folder: Path, settings: dict[str, str]) -> tuple[Path, str | None, str]:
    """找有没有可以接着练的进度。

    参数：
        folder: Trainer 的工作文件夹。
        settings: training_settings 的结果。
    返回：
        （这次训练的子文件夹，上次的检查点或 None，给学习者看的一句话，没什么可说时是空串）。
    """
    mine = folder / f"run-{_digest(settings)}"
    saved = complete_checkpoints(mine)
    if saved:
        step = saved[-1].name.rpartition("-")[2]
        return mine, str(saved[-1]), f"上次练到第 {step} 步时停了，从那里接着练。想从头来，请先删掉 {mine.name} 文件夹，或写 resume=False。"
    others = [path for path in sorted(folder.glob("run-*")) if (path / SETTINGS).exists() and path != mine]
    notes = []
    for path in others:
        theirs = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        changed = [f"{name} {theirs.get(name)} → {value}" for name, value in settings.items() if theirs.get(name) != value]
        notes.append(f"{path.name} 里有一次没练完的训练，设置与这次不同（{'；'.join(changed[:3])}），不能接着练，这次从头开始。")
    return mine, None, "\n".join(notes[-1:])


class ProgressSaver(TrainerCallback):
    """隔一段时间存一次进度；连同损失曲线一起存，续练时曲线也接得上。

    参数：
        history: 正在记录的 History。
        settings: training_settings 的结果。
        every: 一个进程时，隔多少秒。
        steps: 几个进程一起练时，隔多少步。
    """

    def __init__(self, history: History, settings: dict[str, str], every: float = 45.0, steps: int = 200):
        self.history, self.settings, self.every, self.steps = history, settings, every, steps
        self.before = history.seconds
        self.saved = self.started = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = self.started = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:                           # 几个进程的钟不一样，要在同一步存，只能数步数
            due = state.global_step % self.steps == 0
        else:
            due = time.monotonic() - self.saved >= self.every
        if due and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        self.saved = time.monotonic()
        self.history.seconds = self.before + self.saved - self.started
        if args.world_size > 1:
            torch.distributed.barrier()                   # 等每个进程都写完自己的那几个文件
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        (folder / SETTINGS).write_text(json.dumps(self.settings, ensure_ascii=False, indent=1), encoding="utf-8")
        (folder / f"checkpoint-{state.global_step}" / HISTORY).write_text(json.dumps(asdict(self.history)), encoding="utf-8")


def load_history(checkpoint: str, history: History) -> None:
    """把存下的损失曲线读回 history；没有存下时原样不动。"""
    path = Path(checkpoint) / HISTORY
    if path.exists():
        for name, value in json.loads(path.read_text(encoding="utf-8")).items():
            setattr(history, name, value)
        history.interrupted = False


def forget(folder: Path, model: nn.Module, first: bool = True) -> None:
    """练完了：抹掉模型上的记号；first（第一个进程）删掉进度。"""
    if first:
        shutil.rmtree(folder, ignore_errors=True)
    vars(model).pop(START, None)
