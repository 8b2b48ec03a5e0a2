"""制作课程附带的检查点：`python -m tools.checkpoints.make`，或只做其中一个，例如 `python -m tools.checkpoints.make mlm`。

两个检查点起点都是 prepare_heads，只差目标：mlm 填空；clm 接龙，导语也计损失，所以它既会从导语写正文，也会接着
「今天是个」写导语。`--objective both` 一半文档接龙、一半填空（UniLM，Dong 等，2019）；`--start` 从已有的检查点接着练，几段可以首尾相接。
练多久有两种说法：`--steps` 用 Trainer，练到第几步都能停下再续；`--minutes` 用 gpu_loop.py 里那个精简的循环，数据全在设备上，
适合 GPU，不能续。clm 最后还要插进一层，专帮照抄：tools/checkpoints/copy_training.py。
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets
from transformers import BertForMaskedLM, BertLMHeadModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from tools.checkpoints.gpu_loop import OBJECTIVES, clocked, pose, token_table
from utils.corpus.news import floor, generate, held_out
from utils.models.checkpoints import KINDS, load_folder, save_checkpoint
from utils.models.initialization import prepare_heads
from utils.paths import DATA, SHIPPED
from utils.presets import PRESETS, Preset, fast_bf16, outputs_dir, pick_device, set_seed
from utils.tokenization.tokenizer import build_tokenizer, course_tokenizer
from utils.training.batches import LENGTHS, bert_config, clm_collator, encode_docs, fixed_batches, mlm_collator
from utils.training.collators import Collator
from utils.training.finetuning import HIDDEN, as_decoder, as_masked_lm
from utils.training.loop import train, training_arguments
from utils.training.losses import evaluate

SHARD = 4000                                             # 一次生成多少篇；每一份用自己的随机种子
HELD = 500                                               # 成绩在多少篇测试文档上量
LARGER = {"layers": 4, "batch_size": 16}                 # 比预设 cpu 大一档：多一层，每步多一倍的文档
HEAD = PRESETS["cpu"].hidden // PRESETS["cpu"].heads     # 一个头几维
VOCABULARY_DOCS = 200000                                 # 课程的字表由这么多篇收集而来
STEPS = {"mlm": 16000, "clm": 16000}                     # 两核 CPU 上，每个不到一小时


def shared_out(work: Callable, items: Iterable, processes: int) -> list:
    """[work(item) for item in items]，几个进程分着做，次序不变。"""
    if processes <= 1:
        return [work(item) for item in items]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(work, items))


def training_shard(seed: int) -> Dataset:
    """一份训练文档：SHARD 篇，去掉 held_out 里有的；列：intro、body。"""
    docs, held = generate("train", SHARD, seed).select_columns(["intro", "body"]), held_out()
    keep = [i for i, pair in enumerate(zip(docs["intro"], docs["body"], strict=True)) if pair not in held]
    return docs.select(keep).flatten_indices()


def training_documents(n_docs: int, seed: int, processes: int = 1) -> Dataset:
    """训练用的文档，一份一份用不同的种子生成；与验证集、测试集相同的文档剔掉。

    参数：
        n_docs: 篇数，往上取到 SHARD 的倍数。
        seed: 随机种子；第 k 份用 seed + k，所以第一份就是 load_corpus 训练集的开头。
        processes: 几个进程一起生成；结果与进程数无关。
    返回：
        Dataset，列：intro、body。
    """
    seeds = range(seed, seed - n_docs // -SHARD)
    return concatenate_datasets(shared_out(training_shard, seeds, processes))


def encode_all(docs: Dataset, tokenizer: PreTrainedTokenizerFast, max_len: int, processes: int = 1) -> Dataset:
    """encode_docs（导语也计损失），几个进程一起做；列与它的相同。"""
    parts = (docs.select(range(i, min(i + SHARD, len(docs)))).flatten_indices() for i in range(0, len(docs), SHARD))
    encode = partial(encode_docs, tokenizer=tokenizer, max_len=max_len, learn_intro=True)
    return concatenate_datasets(shared_out(encode, parts, processes))


def posed_collator(tokenizer: PreTrainedTokenizerFast, rate: float, objective: str) -> Collator:
    """给 Trainer 用的整理函数：pose 出的题目，attention_mask 是加在分数上的 (B, 1, T, T)。参数同 pose。"""
    def collate(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        ids = tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, pad_to_multiple_of=LENGTHS, return_tensors="pt")["input_ids"]
        inputs, labels, visible = pose(ids, tokenizer, rate, objective)
        return {"input_ids": inputs, "labels": labels, "attention_mask": torch.where(visible, 0.0, HIDDEN)}

    return Collator(collate, tokenizer, objective, 遮盖率=rate)


def score(objective: str, model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, preset: Preset) -> dict:
    """量成绩，都在测试集上：填空量遮盖处，接龙量正文；两样都练的，两样都量。"""
    docs, result = generate("test", HELD), {}
    rows = encode_docs(docs, tokenizer, preset.max_len)
    if objective != "clm":
        nats, accuracy = evaluate(model, fixed_batches(rows, mlm_collator(tokenizer, seed=0), HELD), shift=False)
        result |= {"test_masked_nats": nats, "test_masked_accuracy": accuracy}
    if objective != "mlm":
        nats, _ = evaluate(as_decoder(model), fixed_batches(rows, clm_collator(tokenizer), HELD), shift=True)
        limit = floor(docs, "body")["nats_per_token"]
        result |= {"test_body_nats": nats, "test_body_floor": limit, "ratio_to_floor": nats / limit}
    return result


def make(kind: str, docs: Dataset, tokenizer: PreTrainedTokenizerFast, preset: Preset, seed: int = 2026, steps: int | None = None,
         minutes: float | None = None, processes: int = 1, start: Path | None = None,
         objective: str | None = None) -> tuple[PreTrainedModel, dict]:
    """练出一个附带的检查点。

    参数：
        kind: "mlm" 或 "clm"。
        docs: training_documents 的结果。
        tokenizer: 分词器。
        preset: 大小、批、学习率。
        seed: 随机种子。
        steps, minutes: 练多久，给一个。
        processes: 几个进程编码。
        start: 从这个文件夹里的权重出发；None 表示从随机权重出发（用 prepare_heads 摆好）。
        objective: gpu_loop 的 OBJECTIVES 之一；None 表示与 kind 同名的那种。
    返回：
        （模型，写进 course.json 的说明）。
    异常：
        ValueError: steps 和 minutes 没有恰好给一个。
    """
    if (steps is None) == (minutes is None):
        raise ValueError("steps 和 minutes 要恰好给一个：练多少步，或者练多少分钟。")
    set_seed(seed)
    device, objective = pick_device(), objective or kind
    if start is None:
        model, before = prepare_heads(BertForMaskedLM(bert_config(preset, tokenizer))), None
    else:
        model = as_masked_lm(load_folder(start, BertLMHeadModel)[0])
        before = json.loads((start / "course.json").read_text(encoding="utf-8"))
    model = model.to(device).train()
    encoded = encode_all(docs, tokenizer, preset.max_len, processes)
    if minutes is not None:
        table, lengths = token_table(encoded, preset.max_len, tokenizer.pad_token_id)
        steps = clocked(model, table, lengths, tokenizer, preset, minutes, seed, objective)
    else:
        args = training_arguments(outputs_dir(preset) / f"build-{kind}", steps, preset, device, seed)
        train(model, encoded, posed_collator(tokenizer, preset.mask_rate, objective), args,
              lambda m: tuple(score(objective, m, tokenizer, preset).values())[:2])
    info = describe(objective, preset, len(docs), steps, seed, device) | score(objective, model.eval(), tokenizer, preset)
    return as_decoder(model) if kind == "clm" else model, info | ({"before": before} if before else {})


def describe(objective: str, preset: Preset, n_docs: int, steps: int, seed: int, device: torch.device) -> dict:
    """写进 course.json 的经过：causal_docs、masked_docs 是接龙、填空各练了多少篇次（只算这一段，之前的几段在 before 里）。"""
    causal = {"mlm": 0, "clm": preset.batch_size, "both": preset.batch_size // 2}[objective] * steps
    return {"objective": objective, "lr": preset.lr, "steps": steps, "documents_per_step": preset.batch_size, "causal_docs": causal,
            "masked_docs": preset.batch_size * steps - causal, "n_docs": n_docs, "seed": seed, "device": device.type}


def write_vocabulary(processes: int) -> None:
    """由 VOCABULARY_DOCS 篇训练文档收集字表，写进 data/vocabulary。换了字表，全部检查点都要重练。"""
    docs = training_documents(VOCABULARY_DOCS, 2026, processes)
    build_tokenizer("char", docs["intro"][:] + docs["body"][:]).save_pretrained(DATA / "vocabulary")


def main() -> None:
    """命令行入口。"""
    parser = argparse.ArgumentParser(prog="python -m tools.checkpoints.make", description="制作课程附带的检查点")
    parser.add_argument("kinds", nargs="*", help=f"{'、'.join(KINDS)}；不写就是都做")
    parser.add_argument("--steps", type=int, help="练多少步")
    parser.add_argument("--minutes", type=float, help="练多少分钟（不能续练）")
    parser.add_argument("--docs", type=int, default=200000)
    parser.add_argument("--batch-size", type=int, default=LARGER["batch_size"])
    parser.add_argument("--lr", type=float, default=PRESETS["cpu"].lr)
    parser.add_argument("--layers", type=int, help=f"几层，不写是 {LARGER['layers']}；接着练时由出发的权重定")
    parser.add_argument("--hidden", type=int, help=f"几维，不写是 {PRESETS['cpu'].hidden}；每 {HEAD} 维一个头")
    parser.add_argument("--start", type=Path, help="从哪个检查点的权重出发；不写就从随机权重出发")
    parser.add_argument("--objective", choices=OBJECTIVES, help="练什么；不写就与检查点同名")
    parser.add_argument("--seed", type=int, default=2026, help="文档和训练的随机种子；接着练时换一个，就换一批文档")
    parser.add_argument("--vocabulary", action="store_true", help="重做 data/vocabulary 的字表，不练模型")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="几个进程生成和编码")
    options = parser.parse_args()
    if options.vocabulary:
        return write_vocabulary(options.processes)
    kinds = options.kinds or list(KINDS)
    if set(kinds) - set(KINDS):
        parser.error(f"只能做 {'、'.join(KINDS)}。")
    if options.start and (options.layers or options.hidden):
        parser.error("--start 的权重已经定了大小，不要再写 --layers 或 --hidden。")
    if options.hidden and options.hidden % HEAD:
        parser.error(f"--hidden 要是 {HEAD} 的倍数（每 {HEAD} 维一个头），得到的是 {options.hidden}。")
    disable_progress_bar()
    hidden = options.hidden or PRESETS["cpu"].hidden
    preset = replace(PRESETS["cpu"], bf16=fast_bf16(), batch_size=options.batch_size, lr=options.lr,
                     layers=options.layers or LARGER["layers"], hidden=hidden, heads=hidden // HEAD)
    docs = training_documents(options.docs, options.seed, options.processes)
    if options.start:
        _, tokenizer = load_folder(options.start, BertLMHeadModel)
    else:
        tokenizer = course_tokenizer(preset.max_len)
    for kind in kinds:
        steps = None if options.minutes else options.steps or STEPS[kind]
        model, info = make(kind, docs, tokenizer, preset, options.seed, steps=steps, minutes=options.minutes, processes=options.processes,
                           start=options.start, objective=options.objective)
        save_checkpoint(model, tokenizer, SHIPPED / kind, info, half=True)
        print(json.dumps({kind: info}, ensure_ascii=False))


if __name__ == "__main__":
    main()
