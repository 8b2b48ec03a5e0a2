"""制作课程附带的检查点：`python -m utils.shipped`，或只做其中一个，例如 `python -m utils.shipped mlm`。

两个检查点大小相同，起点都是 prepare_heads，只差目标：mlm 填空；clm 接龙，导语也计损失，所以它既会从导语写正文，也会接着
「今天是个」写导语。练多久有两种说法：`--steps` 用 Trainer，练到第几步都能停下再续；`--minutes` 用 clocked 里那个精简的循环，
数据全在设备上，适合 GPU，不能续。
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import BertForMaskedLM, BertLMHeadModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from utils.checkpoints import KINDS, save_checkpoint
from utils.corpus import floor, generate
from utils.environment import PRESETS, SHIPPED, Preset, fast_bf16, outputs_dir, pick_device, set_seed
from utils.initialization import prepare_heads
from utils.objectives import IGNORE
from utils.tokenization import build_tokenizer
from utils.training import (
    LENGTHS,
    bert_config,
    clm_collator,
    encode_docs,
    evaluate,
    fixed_batches,
    logits_at_targets,
    mlm_collator,
    train,
    training_arguments,
)

SHARD = 4000                                             # 一次生成多少篇；每一份用自己的随机种子
HELD = 500                                               # 成绩在多少篇测试文档上量
MEGA = 32                                                # 在这么多批的文档里按长度排序，再切成批
LARGER = {"layers": 4, "batch_size": 16}                 # 比预设 cpu 大一档：多一层，每步多一倍的文档
STEPS = {"mlm": 16000, "clm": 16000}                     # 两核 CPU 上，每个不到一小时


def training_documents(n_docs: int, seed: int, processes: int = 1) -> Dataset:
    """训练用的文档，一份一份用不同的种子生成；与验证集、测试集相同的文档剔掉。

    参数：
        n_docs: 篇数，往上取到 SHARD 的倍数。
        seed: 随机种子；第 k 份用 seed + k，所以第一份就是 load_corpus 训练集的开头。
        processes: 几个进程一起生成；结果与进程数无关。
    返回：
        Dataset，列：intro、body。
    """
    held = {pair for split in ("validation", "test") for docs in [generate(split, 1000, seed)]
            for pair in zip(docs["intro"], docs["body"], strict=True)}

    def write(shard: dict) -> dict:
        docs = generate("train", SHARD, shard["seed"][0])
        kept = [pair for pair in zip(docs["intro"], docs["body"], strict=True) if pair not in held]
        return {"intro": [i for i, _ in kept], "body": [b for _, b in kept]}

    shards = Dataset.from_dict({"seed": list(range(seed, seed - n_docs // -SHARD))})
    return shards.map(write, batched=True, batch_size=1, num_proc=processes if processes > 1 else None, remove_columns=["seed"])


def encode_all(docs: Dataset, tokenizer: PreTrainedTokenizerFast, max_len: int, processes: int = 1) -> Dataset:
    """encode_docs（导语也计损失），几个进程一起做；列与它的相同。"""
    return docs.map(lambda rows: encode_docs(rows, tokenizer, max_len, learn_intro=True)[:], batched=True, batch_size=SHARD,
                    num_proc=processes if processes > 1 else None, remove_columns=docs.column_names)


def length_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """一轮（epoch）的批：打乱，每 MEGA 批一组按长度排好，切成批，再把批打乱；凑不满一批的零头不要。

    参数：
        lengths: (N,)，每篇的词元数。
        batch_size: B。
        rng: 随机数。
    返回：
        若干个 (B,) 的下标数组。
    """
    order = rng.permutation(len(lengths))[:len(lengths) // batch_size * batch_size]
    batches = []
    for start in range(0, len(order), MEGA * batch_size):
        group = order[start:start + MEGA * batch_size]
        group = group[np.argsort(lengths[group], kind="stable")]
        batches += [group[i:i + batch_size] for i in range(0, len(group), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def clocked(model: PreTrainedModel, encoded: Dataset, tokenizer: PreTrainedTokenizerFast, preset: Preset, minutes: float,
            seed: int) -> int:
    """精简的训练循环（就地更新），返回练了多少步：全部词元先搬到设备上，遮盖也在设备上做，CPU 不用等。

    目标、优化器、裁剪与 utils.training.train 相同；学习率按时间走（先升温 6%，再线性降到 0）。

    参数：
        model: BertForMaskedLM（填空）或 BertLMHeadModel（接龙），已在设备上。
        encoded: encode_all 的结果。
        tokenizer: 分词器。
        preset: 批、学习率、盖住的比例。
        minutes: 练几分钟。
        seed: 随机种子。
    """
    device, causal = model.device, isinstance(model, BertLMHeadModel)
    lengths, width = np.array(encoded["length"]), preset.max_len
    table = torch.zeros(len(encoded), width, dtype=torch.int16)
    for i, ids in enumerate(encoded["input_ids"]):
        table[i, :len(ids)] = torch.tensor(ids, dtype=torch.int16)
    table, rng, steps = table.to(device), np.random.default_rng(seed), 0
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
                                  lr=preset.lr, fused=device.type != "mps")
    began = time.perf_counter()
    while True:
        for batch in length_batches(lengths, preset.batch_size, rng):
            done = (time.perf_counter() - began) / (60 * minutes)
            if done >= 1:
                model.eval()
                return steps
            for group in optimizer.param_groups:
                group["lr"] = preset.lr * min(done / 0.06, (1 - done) / 0.94)
            size = min(width, -(-int(lengths[batch].max()) // LENGTHS) * LENGTHS)
            ids = table[torch.from_numpy(batch).to(device), :size].long()                                   # (B, T)
            real = ids != tokenizer.pad_token_id
            inputs, labels = (ids, ids.masked_fill(~real, IGNORE)) if causal else hide(ids, tokenizer, preset.mask_rate)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" or preset.bf16):
                logits, gold = logits_at_targets(model, {"input_ids": inputs, "attention_mask": real.long()}, labels, causal)
                loss = F.cross_entropy(logits.float(), gold)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            steps += 1


def hide(ids: torch.Tensor, tokenizer: PreTrainedTokenizerFast, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """在设备上遮盖：每个普通词元以 rate 的概率被选中，选中的 80% 换成 [MASK]、10% 换成随机词元、10% 不变。

    参数：
        ids: (B, T)。
    返回：
        （输入 (B, T)，标签 (B, T)，没选中的是 −100）。
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids, device=ids.device))
    chosen = (torch.rand(ids.shape, device=ids.device) < rate) & ~special
    luck = torch.rand(ids.shape, device=ids.device)
    noise = torch.randint(len(tokenizer.all_special_ids), len(tokenizer), ids.shape, device=ids.device)
    shown = torch.where(luck < 0.8, tokenizer.mask_token_id, torch.where(luck < 0.9, noise, ids))
    return torch.where(chosen, shown, ids), ids.masked_fill(~chosen, IGNORE)


def score(kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, preset: Preset, seed: int) -> dict:
    """量成绩：mlm 量遮盖处，clm 量正文，都在测试集上。"""
    docs = generate("test", HELD, seed)
    collate = clm_collator(tokenizer) if kind == "clm" else mlm_collator(tokenizer, seed=seed)
    nats, accuracy = evaluate(model, fixed_batches(encode_docs(docs, tokenizer, preset.max_len), collate, HELD), kind == "clm")
    if kind == "mlm":
        return {"test_masked_nats": nats, "test_masked_accuracy": accuracy}
    limit = floor(docs, "body")["nats_per_token"]
    return {"test_body_nats": nats, "test_body_floor": limit, "ratio_to_floor": nats / limit}


def make(kind: str, docs: Dataset, tokenizer: PreTrainedTokenizerFast, preset: Preset, seed: int = 2026,
         steps: int | None = None, minutes: float | None = None, processes: int = 1) -> tuple[PreTrainedModel, dict]:
    """从随机权重练出一个附带的检查点。

    参数：
        kind: "mlm" 或 "clm"。
        docs: training_documents 的结果。
        tokenizer: 分词器。
        preset: 大小、批、学习率。
        seed: 随机种子。
        steps, minutes: 练多久，给一个。
        processes: 几个进程编码。
    返回：
        （模型，写进 course.json 的说明）。
    异常：
        ValueError: steps 和 minutes 没有恰好给一个。
    """
    if (steps is None) == (minutes is None):
        raise ValueError("steps 和 minutes 要恰好给一个：练多少步，或者练多少分钟。")
    set_seed(seed)
    causal, device = kind == "clm", pick_device()
    model_class = BertLMHeadModel if causal else BertForMaskedLM
    model = prepare_heads(model_class(bert_config(preset, tokenizer, is_decoder=causal))).to(device)
    encoded = encode_all(docs, tokenizer, preset.max_len, processes)
    if minutes is not None:
        steps = clocked(model, encoded, tokenizer, preset, minutes, seed)
    else:
        collate = clm_collator(tokenizer) if causal else mlm_collator(tokenizer, preset.mask_rate)
        args = training_arguments(outputs_dir(preset) / f"build-{kind}", steps, preset, device, seed)
        train(model, encoded, collate, args, lambda m: tuple(score(kind, m, tokenizer, preset, seed).values())[:2])
    return model, {"steps": steps, "documents_per_step": preset.batch_size, "n_docs": len(docs), "seed": seed,
                   "device": device.type, **score(kind, model, tokenizer, preset, seed)}


def main() -> None:
    """命令行入口。"""
    parser = argparse.ArgumentParser(prog="python -m utils.shipped", description="制作课程附带的检查点")
    parser.add_argument("kinds", nargs="*", help=f"{'、'.join(KINDS)}；不写就是都做")
    parser.add_argument("--steps", type=int, help="练多少步")
    parser.add_argument("--minutes", type=float, help="练多少分钟（不能续练）")
    parser.add_argument("--docs", type=int, default=200000)
    parser.add_argument("--batch-size", type=int, default=LARGER["batch_size"])
    parser.add_argument("--lr", type=float, default=PRESETS["cpu"].lr)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="几个进程生成和编码")
    options = parser.parse_args()
    kinds = options.kinds or list(KINDS)
    if set(kinds) - set(KINDS):
        parser.error(f"只能做 {'、'.join(KINDS)}。")
    disable_progress_bar()
    preset = replace(PRESETS["cpu"], bf16=fast_bf16(), **LARGER | {"batch_size": options.batch_size, "lr": options.lr})
    docs = training_documents(options.docs, 2026, options.processes)
    some = docs.select(range(min(len(docs), 200000)))
    tokenizer = build_tokenizer("char", some["intro"][:] + some["body"][:], model_max_length=preset.max_len)
    for kind in kinds:
        steps = None if options.minutes else options.steps or STEPS[kind]
        model, info = make(kind, docs, tokenizer, preset, steps=steps, minutes=options.minutes, processes=options.processes)
        save_checkpoint(model, tokenizer, SHIPPED / kind, info, half=True)
        print(json.dumps({kind: info}, ensure_ascii=False))


if __name__ == "__main__":
    main()
