"""GPU 上的精简训练循环：数据、遮盖、掩码全在设备上，一步训练录成一张 CUDA 图，重放时 CPU 几乎不用管。

小模型在大 GPU 上，时间大半花在一个一个地发出几百个小核函数上；录成图，一次发出，就省掉了。三种目标都用同一个 BERT：
mlm 左右都看，猜盖住的；clm 只看左边，猜下一个；both 一半文档当前者、一半当后者（UniLM，Dong 等，2019），所以一副权重两种用法都行。
制作附带的检查点用（tools/checkpoints/make.py）。
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from utils.presets import Preset
from utils.tokenization.tokenizer import IGNORE
from utils.training.finetuning import prefix_mask

OBJECTIVES = ("mlm", "clm", "both")
MEGA = 32                                                # 在这么多批的文档里按长度排序，再切成批
WIDTHS = 16                                              # 一批的长度补到它的倍数；一种长度录一张图
WARMUP = 0.06                                            # 学习率升温占多少时间
LOOK = 50                                                # 每隔多少步等 GPU 一次，看看损失，对对钟


def token_table(encoded: Dataset, width: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """把词元排成一张表：（(N, width) int16，补 pad；(N,) 各篇的长度）。

    参数：
        encoded: 有 input_ids 一列，每篇不超过 width 个词元，编号放得进 int16。
    """
    column = encoded.with_format("arrow")["input_ids"]
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in chunks])
    lengths = np.array(encoded["length"][:])
    table = np.full((len(lengths), width), pad, dtype=np.int16)
    table[np.arange(width) < lengths[:, None]] = flat
    return table, lengths


def length_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """一轮（epoch）的批：打乱，每 MEGA 批一组按长度排好，切成批，再把批打乱；凑不满一批的零头不要。

    参数：
        lengths: (N,)，每篇的词元数。
        batch_size: B。
        rng: 随机数。
    返回：
        (批数, B) 的下标，一行一批；一批之内的次序也打乱了。
    """
    order = rng.permutation(len(lengths))[:len(lengths) // batch_size * batch_size]
    for start in range(0, len(order), MEGA * batch_size):
        group = order[start:start + MEGA * batch_size]
        order[start:start + len(group)] = group[np.argsort(lengths[group], kind="stable")]
    return rng.permuted(rng.permutation(order.reshape(-1, batch_size)), axis=1)


def hide(ids: torch.Tensor, tokenizer: PreTrainedTokenizerFast, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """在设备上遮盖：每个普通词元以 rate 的概率被选中，选中的 80% 换成 [MASK]、10% 换成随机词元、10% 不变。

    参数：
        ids: (B, T)。
    返回：
        （输入 (B, T)，标签 (B, T)，没选中的是 −100）。
    """
    special = ids < len(tokenizer.all_special_ids)                        # 特殊词元排在词表的最前面
    chosen = (torch.rand(ids.shape, device=ids.device) < rate) & ~special
    luck = torch.rand(ids.shape, device=ids.device)
    noise = torch.randint(len(tokenizer.all_special_ids), len(tokenizer), ids.shape, device=ids.device)
    shown = torch.where(luck < 0.8, tokenizer.mask_token_id, torch.where(luck < 0.9, noise, ids))
    return torch.where(chosen, shown, ids), ids.masked_fill(~chosen, IGNORE)


def pose(ids: torch.Tensor, tokenizer: PreTrainedTokenizerFast, rate: float,
         objective: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """把一批文档变成题目。标签与输入对齐（不再错位）：接龙的那些行，位置 t 的标签就是第 t+1 个词元。

    参数：
        ids: (B, T)，补了 [PAD]。
        rate: 填空的行盖住多少。
        objective: "mlm"、"clm"，或 "both"（前一半接龙，后一半填空）。
    返回：
        （输入 (B, T)，标签 (B, T)，掩码 (B, 1, T, T)，看得见是 True）。
    """
    B, T = ids.shape
    causal = {"mlm": 0, "clm": B, "both": B // 2}[objective]
    real = ids != tokenizer.pad_token_id
    following = F.pad(ids[:causal, 1:], (0, 1), value=tokenizer.pad_token_id)
    following = following.masked_fill(following == tokenizer.pad_token_id, IGNORE)
    shown, hidden = hide(ids[causal:], tokenizer, rate)
    prompt = torch.where(torch.arange(B, device=ids.device) < causal, 0, T)                           # 填空：整条都互相看得见
    return torch.cat([ids[:causal], shown]), torch.cat([following, hidden]), prefix_mask(prompt, real) == 0


class Graphs:
    """把 step(ids) 按形状录成 CUDA 图，以后同样形状的就重放；不在 GPU 上时，直接调用 step。

    参数：
        step: 一步训练，ids (B, T) → 损失（标量）；里面不能有要等 GPU 的操作。
    """

    def __init__(self, step: Callable[[torch.Tensor], torch.Tensor]):
        self.step, self.recorded = step, {}

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        if ids.device.type != "cuda":
            return self.step(ids)
        if ids.shape not in self.recorded:
            fixed, side = ids.clone(), torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):                        # 录之前先真的做几遍，让各个库把该分配的都分配好
                    self.step(fixed)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = self.step(fixed)
            self.recorded[ids.shape] = graph, fixed, loss
        graph, fixed, loss = self.recorded[ids.shape]
        fixed.copy_(ids)
        graph.replay()
        return loss


def clocked(model: PreTrainedModel, table: np.ndarray, lengths: np.ndarray, tokenizer: PreTrainedTokenizerFast, preset: Preset,
            minutes: float, seed: int, objective: str) -> int:
    """按时间训练（就地更新），返回练了多少步。优化器、裁剪与 utils.training.train 相同；学习率先升温，再随时间线性降到 0。

    参数：
        model: BertForMaskedLM 或 BertLMHeadModel，已在设备上；掩码由 objective 定，与它是哪一个类无关。
        table, lengths: token_table 的结果。
        tokenizer: 分词器。
        preset: 批、学习率、盖住的比例。
        minutes: 练几分钟；第一批录图的时间也算在内。
        seed: 随机种子。
        objective: "mlm"、"clm" 或 "both"。
    异常：
        ValueError: objective 不认识，或文档不够一批。
        FloatingPointError: 损失不再是数，训练发散了。
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective={objective!r} 不认识，只能是 {'、'.join(OBJECTIVES)}。")
    if len(lengths) < preset.batch_size:
        raise ValueError(f"只有 {len(lengths)} 篇文档，不够一批（{preset.batch_size} 篇）。")
    device, half = model.device, model.device.type == "cuda" or preset.bf16
    corpus, rng, steps = torch.from_numpy(table).to(device), np.random.default_rng(seed), 0
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    rate = torch.zeros((), device=device)                                 # 学习率放在设备上，图重放时读到的是新的值
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], lr=rate,
                                  fused=True, capturable=device.type == "cuda")

    def step(ids: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        inputs, labels, visible = pose(ids, tokenizer, preset.mask_rate, objective)
        with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            states = model.bert(inputs, attention_mask=visible, use_cache=False).last_hidden_state      # (B, T, D)
            loss = F.cross_entropy(model.cls(states).float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    run, began = Graphs(step), time.perf_counter()
    while True:
        batches = length_batches(lengths, preset.batch_size, rng)
        widths = np.minimum(table.shape[1], -(-lengths[batches].max(1) // WIDTHS) * WIDTHS)
        rows = torch.from_numpy(batches).to(device)
        for batch, width in zip(rows, widths.tolist(), strict=True):
            done = (time.perf_counter() - began) / (60 * minutes)
            if done >= 1:
                return steps
            rate.fill_(preset.lr * min(done / WARMUP, (1 - done) / (1 - WARMUP)))
            loss = run(corpus[batch, :width].long())                      # (B, T)
            steps += 1
            if steps % LOOK == 0 and not np.isfinite(loss.item()):
                raise FloatingPointError(f"第 {steps} 步的损失是 {loss.item()}：训练发散了。请把学习率（现在 {preset.lr}）减半再来。")
