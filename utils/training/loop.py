"""训练：用 Hugging Face Trainer，边练边评估，停下了可以接着练。

首次实现：mlm_pretraining（Trainer 的设置）。
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from transformers import BertLMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_callback import ProgressCallback as TqdmCallback

from utils.presets import Preset
from utils.tokenization.tokenizer import check_vocabulary
from utils.training.collators import Collator
from utils.training.history import History, HistoryCallback
from utils.training.losses import eager_on_cpu, targets_only
from utils.training.processes import finish_sharding, prepare_sharding, together
from utils.training.progress import ProgressCallback
from utils.training.resume import START, ProgressSaver, find_progress, forget, load_history, training_settings


def training_arguments(folder: Path, steps: int, preset: Preset, device: torch.device, seed: int, shard: bool = False) -> TrainingArguments:
    """课程统一的 TrainingArguments：按长度分桶、fused AdamW、升温后线性降到 0。

    参数：
        folder: Trainer 的工作文件夹。
        steps: 步数。
        preset: batch_size 与学习率取自这里。
        device: 设备；cuda 总用 bf16，CPU 看 preset.bf16。
        seed: 随机种子。
        shard: 几个进程一起练时，True 用 FSDP（参数分片），False 用 DDP；见 utils/training/processes.py。
    """
    return TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=preset.batch_size,
        learning_rate=preset.lr, lr_scheduler_type="linear", warmup_steps=max(1, steps // 10),
        weight_decay=0.01, max_grad_norm=1.0, optim="adamw_torch_fused" if device.type != "mps" else "adamw_torch",
        train_sampling_strategy="group_by_length", length_column_name="length", remove_unused_columns=False,
        bf16=device.type == "cuda" or preset.bf16, use_cpu=device.type == "cpu", seed=seed, data_seed=seed,
        logging_steps=max(1, steps // 50), save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda", **together(device, shard),
    )


def quiet_trainer(model: nn.Module, encoded: Dataset, collate: Callable, args: TrainingArguments,
                  callbacks: Sequence[TrainerCallback] = ()) -> Trainer:
    """不往屏幕上写东西的 Trainer：做许多次小对照用。参数同 train。"""
    trainer = Trainer(model=model, args=args, train_dataset=encoded, data_collator=collate, callbacks=list(callbacks))
    for noisy in (PrinterCallback, TqdmCallback):
        trainer.remove_callback(noisy)
    return trainer


def train(model: nn.Module, encoded: Dataset, collate: Callable, args: TrainingArguments,
          evaluate_fn: Callable[[nn.Module], tuple[float, float]], baselines: dict[str, float] | None = None,
          evaluations: int = 10, resume: bool = True, quiet: bool = False, save_every: int = 200) -> History:
    """用 Trainer 训练模型（就地更新），一边画进度和损失曲线，一边每隔不到一分钟存一次进度。

    参数：
        model: 要训练的模型，输出里有 loss；Hugging Face 的，或自己写的 nn.Module（参数名 input_ids、attention_mask、labels）。
        encoded: encode_docs 的结果；自己的数据要有 input_ids、labels、length 这样的列。
        collate: mlm_collator、clm_collator，或自己写的整理函数。
        args: training_arguments 的结果。
        evaluate_fn: 给一个模型，返回 （留出集损失，准确率）。
        baselines: 画在曲线旁边的基线与下限，名字 → 奈特/词元。
        evaluations: 中间评估几次。
        save_every: 几个进程一起练时，每隔多少步存一次进度（一个进程时看时间，不看步数）。
        resume: 同样设置的训练上次没练完（按了停止、内核没了）时，True 表示从存下的那一步接着练，False 表示从头来。
        quiet: True 表示不显示进度和曲线（一格里要练很多个小模型时用）。
    返回：
        History。中途打断（Ctrl-C 或停止按钮）时保留已学到的，并在 History.interrupted 里注明；再运行一次就接着练。
    异常：
        ValueError: collate 用的是别的分词器。
    """
    check_vocabulary(model, collate if isinstance(collate, Collator) else None)
    history = History()
    settings = training_settings(model, encoded, args, collate)
    setattr(model, START, settings["起点的权重"])
    folder, checkpoint, note = find_progress(Path(args.output_dir), settings)
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint, note = None, ""
    if note and os.environ.get("RANK", "0") == "0":       # 几个进程时，只有第一个说话
        print(note)
    if checkpoint:
        load_history(checkpoint, history)
        logging.getLogger("transformers.trainer").setLevel(logging.ERROR)     # 共享的词表头存一份就够，不必警告「缺了」
    args = replace(args, output_dir=str(folder), save_total_limit=2)
    recorder = HistoryCallback(history, evaluate_fn, max(1, math.ceil(args.max_steps / evaluations)))
    shown = [] if quiet else [ProgressCallback(history, baselines or {})]
    trainer = Trainer(model=model, args=args, train_dataset=encoded, data_collator=collate,
                      callbacks=[recorder, *shown, ProgressSaver(history, settings, steps=save_every)])
    trainer.remove_callback(PrinterCallback)
    prepare_sharding(trainer)
    before, started = history.seconds, time.perf_counter()
    try:
        with eager_on_cpu(model, args), targets_only(model, shift=isinstance(model, BertLMHeadModel)):     # 这个类的损失总是错开一位
            trainer.train(resume_from_checkpoint=checkpoint)
        trainer.accelerator.wait_for_everyone()
        forget(folder, model, trainer.is_world_process_zero())
    except KeyboardInterrupt:
        history.interrupted = True
        trainer._save_checkpoint(model, trial=None)
        trainer.callback_handler.on_save(args, trainer.state, trainer.control)
        print(f"已在第 {trainer.state.global_step} 步停下，进度存好了。再运行一次这一格，就从这里接着练；"
              "想从头再练，重新运行建模的格子，并给 train 写上 resume=False。")
    history.seconds = before + time.perf_counter() - started
    finish_sharding(trainer)
    model.eval()
    return history
