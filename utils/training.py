"""训练：把语料变成批（batch），用 Hugging Face Trainer 训练，并按「每个目标词元多少奈特」评估。

首次实现：06_mlm_pretraining（MLM、Trainer 的设置）与 08_clm_finetuning（CLM 的标签）。
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import MaskedLMOutput
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_callback import ProgressCallback as TqdmCallback

from utils.collators import Batches, Collator
from utils.environment import Preset
from utils.objectives import IGNORE
from utils.processes import finish_sharding, is_sharded, prepare_sharding, together
from utils.progress import ProgressCallback
from utils.resume import START, ProgressSaver, find_progress, forget, load_history, training_settings
from utils.tokenization import check_vocabulary, encode_all_pairs, vocabulary_id

LENGTHS, TARGETS = 8, 128                                 # 序列长度、目标个数各补到它们的倍数，见 targets_only


def bert_config(preset: Preset, tokenizer: PreTrainedTokenizerFast, **changes) -> BertConfig:
    """按预设配置一个 BERT:L 层、隐藏维度 d_model、H 个头，前馈层宽 4 × d_model。

    参数：
        preset: 大小取自这里。
        tokenizer: 词表大小、字表的指纹和 [PAD] 的编号取自这里。
        **changes: 直接交给 BertConfig 的改动，例如 is_decoder=True。
    返回：
        BertConfig。
    """
    settings = dict(
        vocab_size=len(tokenizer), hidden_size=preset.hidden, num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads, intermediate_size=4 * preset.hidden,
        max_position_embeddings=preset.max_len, hidden_dropout_prob=preset.dropout, initializer_range=preset.init_std,
        attention_probs_dropout_prob=preset.dropout, pad_token_id=tokenizer.pad_token_id, vocabulary_id=vocabulary_id(tokenizer),
    )
    return BertConfig(**(settings | changes))


def encode_docs(docs: Dataset, tokenizer: PreTrainedTokenizerFast, max_len: int, learn_intro: bool = False) -> Dataset:
    """把文档编成 `[CLS] 导语 [SEP] 正文 [SEP]`。

    参数：
        docs: 有 intro、body 两列的 Dataset。
        tokenizer: 分词器。
        max_len: 一条最多多少词元。
        learn_intro: True 表示导语也有标签（从头写整篇）；False 表示导语只是提示，不计损失。
    返回：
        Dataset，列：input_ids（长 T）、attention_mask、labels、length。learn_intro 为 False 时，
        labels 把 `[CLS] 导语 [SEP]` 记作 −100，只留正文。
    异常：
        ValueError: 有文档放不进 max_len（由 encode_all_pairs 抛出）。
    """
    rows = []
    for row in encode_all_pairs(tokenizer, docs["intro"][:], docs["body"][:], max_len):
        ids, prompt = row["input_ids"], 1 if learn_intro else row["prompt_len"]
        rows.append({"input_ids": ids, "attention_mask": row["attention_mask"],
                     "labels": [IGNORE] * prompt + ids[prompt:], "length": len(ids)})
    return Dataset.from_list(rows)


def _length_multiple(tokenizer: PreTrainedTokenizerFast) -> int | None:
    return LENGTHS if tokenizer.model_max_length % LENGTHS == 0 else None            # 补过了头，位置嵌入不够用


def mlm_collator(tokenizer: PreTrainedTokenizerFast, probability: float = 0.15, seed: int | None = None) -> Collator:
    """MLM 的整理函数（collator）：随机盖住词元，被盖住的位置才有标签。80/10/10 由库完成。

    参数：
        tokenizer: 分词器。
        probability: 每个词元被选中的概率。
        seed: 随机种子；None 表示跟着全局种子。
    """
    inner = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=probability, seed=seed,
                                            pad_to_multiple_of=_length_multiple(tokenizer))

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        return dict(inner([{"input_ids": r["input_ids"], "attention_mask": r["attention_mask"]} for r in rows]))

    return Collator(collate, tokenizer, "MLM", 遮盖率=probability, 种子=seed)


def clm_collator(tokenizer: PreTrainedTokenizerFast) -> Collator:
    """CLM 的整理函数：input_ids 补 [PAD],labels 补 −100，所以填充不算进损失。"""
    inner = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE, padding=True,
                                   pad_to_multiple_of=_length_multiple(tokenizer))

    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        keep = ("input_ids", "attention_mask", "labels")
        return dict(inner([{k: r[k] for k in keep} for r in rows]))

    return Collator(collate, tokenizer, "CLM")


def fixed_batches(encoded: Dataset, collate: Callable, n_docs: int, batch_size: int = 32) -> Batches:
    """取前 n_docs 篇，排成固定的批，评估时反复用同一批（MLM 的遮盖也固定下来），结果才可比。"""
    rows = list(encoded.select(range(min(n_docs, len(encoded)))))
    return Batches([collate(rows[i:i + batch_size]) for i in range(0, len(rows), batch_size)], collate)


def logits_at_targets(model: PreTrainedModel, batch: dict, labels: torch.Tensor, shift: bool, multiple: int = 1,
                      inside: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """只在有标签的位置算 logits。MLM 只有 15% 的位置有标签，词表头（D × V 的乘法和 softmax）省下的就是其余 85%。

    参数：
        model: BertForMaskedLM 或 BertLMHeadModel；别的模型照常算全部 logits 再挑。
        batch: 不含 labels 的输入。
        labels: (B, T)，−100 是没有标签。
        shift: CLM 用 True（位置 t 的 logits 预测 t+1），MLM 用 False。
        multiple: N 补到它的倍数，补的标签是 −100。
        inside: 正在模型自己的 forward 里；FSDP 把参数切开了，只有在 forward 里才凑得齐。
    返回：
        （logits (N, V), 标签 (N,)），N 是有标签的位置数。
    """
    lean = isinstance(model, BertForMaskedLM | BertLMHeadModel) and (inside or not is_sharded(model))
    states = model.bert(**batch, use_cache=False).last_hidden_state if lean else model(**batch).logits   # (B, T, D) 或 (B, T, V)
    if shift:
        states, labels = states[:, :-1], labels[:, 1:]
    at = (labels != IGNORE).flatten().nonzero()[:, 0]                                 # (N,)
    gold = labels.flatten()[at]
    extra = -len(at) % multiple
    at, gold = F.pad(at, (0, extra)), F.pad(gold, (0, extra), value=IGNORE)
    chosen = states.flatten(0, 1)[at]                                                 # (N, D) 或 (N, V)
    return model.cls(chosen) if lean else chosen, gold


@contextmanager
def targets_only(model: PreTrainedModel, shift: bool) -> Iterator[None]:
    """在 with 里，给了 labels 的 model(**batch) 只在有标签的位置算损失，值与原来的相同；没给 labels 时一切照旧。

    换的是模型自己的 forward，所以 Trainer、DDP 照常工作。不认识的模型原样不动。
    目标的个数补到 TARGETS 的倍数：CPU 上的 bf16 矩阵乘法由 oneDNN 现编译，每来一个新形状就编译一次，形状一少就快得多。
    """
    if not isinstance(model, BertForMaskedLM | BertLMHeadModel):
        yield
        return
    original, own = model.forward, vars(model).get("forward")

    def forward(input_ids=None, attention_mask=None, labels=None, **others):
        if labels is None:
            return original(input_ids=input_ids, attention_mask=attention_mask, **others)
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits, gold = logits_at_targets(model, batch, labels, shift, TARGETS, inside=True)
        return MaskedLMOutput(loss=F.cross_entropy(logits.float(), gold))

    model.forward = forward
    try:
        yield
    finally:
        vars(model).pop("forward", None)                  # 连同 accelerate 可能套上的一层，一起拿掉
        if own is not None:
            model.forward = own


@torch.no_grad()
def evaluate(model: PreTrainedModel, batches: Sequence[dict], shift: bool) -> tuple[float, float]:
    """在固定的批上算平均损失与准确率，每个目标词元的权重相同。

    参数：
        model: 输出 logits (B, T, V) 的模型。
        batches: fixed_batches 的结果。
        shift: CLM 用 True（位置 t 的 logits 预测 t+1），MLM 用 False。
    返回：
        （奈特/目标词元，准确率）。
    异常：
        ValueError: 这些批是用别的分词器编的。
    """
    check_vocabulary(model, batches if hasattr(batches, "vocabulary_id") else None)
    training, total, correct, count = model.training, 0.0, 0, 0
    model.eval()
    for batch in batches:
        batch = {k: v.to(model.device) for k, v in batch.items()}
        labels = batch.pop("labels")
        chosen, gold = logits_at_targets(model, batch, labels, shift)     # (N, V), (N,)
        chosen = chosen.float()
        total += F.cross_entropy(chosen, gold, reduction="sum").item()
        correct += (chosen.argmax(-1) == gold).sum().item()
        count += gold.numel()
    model.train(training)
    return total / count, correct / count


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


def training_arguments(folder: Path, steps: int, preset: Preset, device: torch.device, seed: int, shard: bool = False) -> TrainingArguments:
    """课程统一的 TrainingArguments：按长度分桶、fused AdamW、升温后线性降到 0。

    参数：
        folder: Trainer 的工作文件夹。
        steps: 步数。
        preset: batch_size 与学习率取自这里。
        device: 设备；cuda 总用 bf16，CPU 看 preset.bf16。
        seed: 随机种子。
        shard: 几个进程一起练时，True 用 FSDP（参数分片），False 用 DDP；见 utils/processes.py。
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


@contextmanager
def eager_on_cpu(model: nn.Module, args: TrainingArguments) -> Iterator[None]:
    """在 with 里，CPU 上的 Hugging Face 模型用 eager 注意力：SDPA 用 bf16 时慢得多，用 float32 时一样快。出来就换回原来的。"""
    attention = model.config._attn_implementation if isinstance(model, PreTrainedModel) else None
    if args.use_cpu and attention:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if attention:
            model.set_attn_implementation(attention)


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
