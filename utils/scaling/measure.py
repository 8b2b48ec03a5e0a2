"""训练要多少参数、多少内存、多少计算：先用公式估，再量一量。首次实现：scale_up。

符号：V 词表，P 位置数，D 隐藏维度，L 层数，H 头数，B 一步几条，T 每条几个词元。
激活的公式取自 Korthikanti 等（2022），计算量的公式取自 Kaplan 等（2020）。
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from dataclasses import dataclass

import psutil
import torch
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from utils.presets import Preset
from utils.training.batches import bert_config
from utils.training.losses import targets_only

ADAM_BYTES = 16                                           # 每个参数：权重 4 + 梯度 4 + Adam 的两个动量 8


def count_parameters(preset: Preset, vocab_size: int) -> dict[str, int]:
    """BertForMaskedLM 的参数个数，按部分：嵌入、各层、词表头（与词嵌入共用的权重不重复计）。

    嵌入 (V + P + 2)·D + 2D；每层 12D² + 13D；词表头 D² + 3D + V。
    """
    D, V = preset.hidden, vocab_size
    return {"嵌入": (V + preset.max_len + 2) * D + 2 * D, "各层": preset.layers * (12 * D * D + 13 * D), "词表头": D * D + 3 * D + V}


def step_flops(preset: Preset, vocab_size: int, batch: int, length: int, targets: int) -> float:
    """一步训练的浮点运算次数：前向 2，反向 4，合起来每个参数、每个词元 6 次，另加注意力矩阵和词表头。

    参数：
        batch, length: B 条，每条 T 个词元。
        targets: 要算 logits 的位置数（MLM 只有被选中的词元）。
    """
    D, tokens = preset.hidden, batch * length
    layers = 6 * count_parameters(preset, vocab_size)["各层"] * tokens
    attention = 12 * preset.layers * tokens * length * D
    return layers + attention + 6 * (D * D + D * vocab_size) * targets


def training_bytes(preset: Preset, vocab_size: int, batch: int, length: int, targets: int, half: bool = False,
                   attention: str = "eager") -> dict[str, float]:
    """训练时占的内存（字节），按部分。

    权重、梯度、优化器：每个参数 16 字节。激活：每层 B·T·(34·D + 5·H·T) 字节（16 位），32 位加倍；5·H·T 那一项是注意力矩阵，
    用 SDPA 这类不存整个矩阵的实现就没有它。词表头：logits 与它的梯度、softmax，各 4 字节。

    参数：
        half: 矩阵乘法是否用 bf16。
        attention: "eager" 存整个注意力矩阵，"sdpa" 不存。
        其余同 step_flops。
    """
    width = 1 if half else 2
    layer = batch * length * (34 * preset.hidden + (5 * preset.heads * length if attention == "eager" else 0))
    return {"权重、梯度、优化器": ADAM_BYTES * sum(count_parameters(preset, vocab_size).values()),
            "激活": width * preset.layers * layer, "词表头": 3 * 4.0 * targets * vocab_size}


def matmul_speed(device: torch.device, width: int, half: bool = False, seconds: float = 0.5) -> float:
    """这台设备做矩阵乘法的速度（次浮点运算/秒）：前馈层大小的乘法，反复做，取最快的一次。

    GPU 上矩阵取得高，一次连做许多个再等它算完：一个太快，量到的就全是「等」。
    """
    rows, repeats = (16384, 20) if device.type == "cuda" else (1024, 1)
    dtype = torch.bfloat16 if half else torch.float32
    a, b = torch.randn(rows, width, device=device, dtype=dtype), torch.randn(width, 4 * width, device=device, dtype=dtype)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds or best == float("inf"):
        start = time.perf_counter()
        for _ in range(repeats):
            c = a @ b
        c[0, 0].item()                                    # 等 GPU 算完
        best = min(best, (time.perf_counter() - start) / repeats)
    return 2.0 * a.numel() * b.shape[1] / best


@dataclass(frozen=True)
class StepCost:
    """实测的一步：seconds 是用时（秒，取最快的一步），peak 是内存或显存的峰值增量（字节）。"""

    seconds: float
    peak: float


def _give_back_memory() -> None:
    """让 C 库把用过的内存还给系统（只有 Linux 的 glibc 有这个函数）；不还，下一次量到的就偏小。"""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass


class _Peak:
    """with 里内存的峰值比进来时高多少（字节）：GPU 问驱动，CPU 每 5 毫秒看一次进程占的内存。"""

    def __init__(self, device: torch.device):
        self.device, self.bytes = device, 0.0

    def __enter__(self) -> _Peak:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return self
        _give_back_memory()
        self.process, self.done = psutil.Process(), threading.Event()
        self.before = self.top = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.top = max(self.top, self.process.memory_info().rss)

    def __exit__(self, *_) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated() - self.before
            return
        self.done.set()
        self.thread.join()
        self.bytes = max(self.top, self.process.memory_info().rss) - self.before


def measure_step(preset: Preset, tokenizer: PreTrainedTokenizerFast, device: torch.device, batch: int, length: int, targets: int,
                 steps: int = 3, attention: str = "eager") -> StepCost:
    """真的建一个这么大的模型，练几步，量用时和内存；模型用完就扔，全局的随机数不变。

    参数：
        preset: 模型大小取自这里；cuda 总用 bf16，CPU 看 preset.bf16。
        batch, length, targets: 同 step_flops。
        steps: 练几步；第一步总是慢，所以至少 2。
        attention: 注意力的实现，"eager" 或 "sdpa"。
    异常：
        ValueError: length 超过位置数，targets 多于词元数，或 steps 不到 2。
    """
    if length > preset.max_len or targets > batch * length or steps < 2:
        raise ValueError(f"length 最多 {preset.max_len}，targets 最多 {batch * length}，steps 至少 2；收到 {length}、{targets}、{steps}。")
    half, best = device.type == "cuda" or preset.bf16, float("inf")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []), _Peak(device) as peak:
        torch.manual_seed(0)
        model = BertForMaskedLM(bert_config(preset, tokenizer, attn_implementation=attention)).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=device.type != "mps")
        ids = torch.randint(5, len(tokenizer), (batch, length), device=device)
        labels = torch.full_like(ids, -100)
        labels.view(-1)[torch.randperm(ids.numel(), device=device)[:targets]] = 5
        for _ in range(steps):
            began = time.perf_counter()
            with targets_only(model, shift=False), torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            best = min(best, time.perf_counter() - began)
        del model, optimizer, loss
    gc.collect()
    return StepCost(best, peak.bytes)
