"""这台机器有多快：实测几步训练，估计 mlm_pretraining、clm_finetuning 两本里的训练要多久。只是铺路石；在 start 里使用。"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from utils.corpus.news import generate
from utils.presets import Preset
from utils.training.batches import bert_config, encode_docs, mlm_collator

EVALUATIONS = 11                                          # 训练途中评估几次（见 utils.training.train）
FORWARD = 1 / 3                                           # 只算前向，约是一步训练（前向加反向）的三分之一


@dataclass(frozen=True)
class Speed:
    """实测的训练速度。

    属性：
        steps: 量了几步。
        tokens_per_second: 每秒训练多少词元（含填充）。
        step_seconds: 预设里一整步（一批 batch_size 篇）约多少秒。
        share: 测量期间，本程序占到的 CPU 时间 ÷ （经过的时间 × 线程数）；明显小于 1，说明别的程序也在用 CPU。
    """

    steps: int
    tokens_per_second: float
    step_seconds: float
    share: float = 1.0

    def minutes(self, steps: int, preset: Preset) -> float:
        """训练 steps 步、途中评估 11 次，估计多少分钟。"""
        evaluation = EVALUATIONS * preset.eval_docs / preset.batch_size * FORWARD
        return (steps + evaluation) * self.step_seconds / 60


def measure_speed(preset: Preset, tokenizer: PreTrainedTokenizerFast, device: torch.device,
                  budget: float = 5.0, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """用真的语料、真的模型大小练几步，量速度。模型是临时的，用完就扔；不影响全局的随机数。

    参数：
        preset: 模型大小与批大小取自这里。
        tokenizer: 字级分词器。
        device: 设备。
        budget: 量到用了这么多秒就停（至少量两步，最多 1,000 步）。
        clock: 计时的函数，返回秒；测试时可以换掉。
    返回：
        Speed。慢机器上每步只取半批或更少，再按词元数折算。
    异常：
        ValueError: budget 不是正数。
    """
    if budget <= 0:
        raise ValueError(f"budget 要是正的秒数，收到的是 {budget}。")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        torch.manual_seed(0)
        docs = encode_docs(generate("train", max(64, preset.batch_size)), tokenizer, preset.max_len)
        model = BertForMaskedLM(bert_config(preset, tokenizer)).to(device).train()
        if device.type == "cpu":
            model.set_attn_implementation("eager")            # 与 utils.training.train 相同
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type != "mps")
        rows = sorted(docs, key=lambda row: row["length"])
        collate = mlm_collator(tokenizer, seed=0)

        def step(n: int, part: float) -> tuple[int, float]:
            at = round(part * (len(rows) - n))                # 长度相近的 n 篇放在一批，与训练时的分桶相同
            batch = {k: v.to(device) for k, v in collate(rows[at:at + n]).items()}
            began = clock()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" or preset.bf16):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()                                       # 等 GPU 算完再看表
            return batch["input_ids"].numel(), clock() - began

        step(2, 0.5)                                          # 第一步总是慢，不算
        _, small = step(2, 0.5)
        size = min(preset.batch_size, max(2, int(2 * budget / 3 / max(small, 1e-6))))
        tokens, seconds, count, cpu = 0, 0.0, 0, time.process_time()
        while count < 2 or (seconds < budget and count < 1000):
            n, used = step(size, (count * 0.618) % 1)         # 长短文档轮着来
            tokens, seconds, count = tokens + n, seconds + used, count + 1
        cpu = time.process_time() - cpu
    rate = tokens / max(seconds, 1e-9)
    share = min(1.0, cpu / max(seconds, 1e-9) / torch.get_num_threads()) if device.type == "cpu" else 1.0
    per_batch = fmean(row["length"] for row in rows) * preset.batch_size
    return Speed(count, rate, per_batch / rate, share)


def race(runs: dict[str, Callable[[], object]], rounds: int = 5, clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """几种做法轮流跑，各跑 rounds 次，返回每次的秒数；开始前各热身一次。轮流跑，机器忽快忽慢时谁也不占便宜。

    参数：runs: 名字 → 要跑的函数；rounds: 几轮；clock: 计时的函数，返回秒。
    异常：ValueError: rounds 不是正整数，或者一种做法也没有。
    首次使用：generation。
    """
    if rounds < 1 or not runs:
        raise ValueError("至少要有一种做法，跑一轮。")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            began = clock()
            run()
            seconds[name].append(clock() - began)
    return seconds


def minutes_text(minutes: float) -> str:
    """写给人看的时间：「约 20 秒」「约 3.5 分钟」「约 2 小时」。"""
    if not math.isfinite(minutes) or minutes < 0:
        raise ValueError(f"时间要是非负的有限数，收到的是 {minutes}。")
    if minutes < 1:
        return f"约 {max(1, round(minutes * 60))} 秒"
    return f"约 {minutes:.1f} 分钟" if minutes < 60 else f"约 {minutes / 60:.1f} 小时"
