"""命令行训练：与 notebook 用同样的函数，一块 CPU、一块 GPU、几个进程都是这一条命令。

    python -m utils.train mlm --preset cpu --out outputs/my-mlm
    python -m utils.train clm --from outputs/my-mlm --out outputs/my-clm
    torchrun --nproc_per_node 2 -m utils.train mlm --preset cpu --out outputs/my-mlm
    torchrun --nproc_per_node 2 -m utils.train mlm --preset cpu --shard --out outputs/my-mlm      # 参数也分片（FSDP）

几个进程时，每个进程分到 batch_size ÷ 进程数 篇，合起来每步看的篇数不变，所以学习率和步数都不用改。
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

from transformers import BertForMaskedLM, BertLMHeadModel
from transformers.utils.logging import disable_progress_bar

from utils.corpus.news import load_corpus
from utils.models.checkpoints import find_checkpoint, load_folder, save_checkpoint
from utils.models.initialization import prepare_heads, renew_top
from utils.presets import PRESETS, Preset, choose_preset, fast_bf16, pick_device, set_seed
from utils.tokenization.tokenizer import build_tokenizer, course_tokenizer, name_unknown
from utils.training.batches import bert_config, clm_collator, encode_docs, fixed_batches, mlm_collator
from utils.training.loop import train, training_arguments
from utils.training.losses import evaluate
from utils.training.processes import parameters_here, whole_weights

LOOK = 1000                                               # 接着练别的语料时，看多少篇里有没有词表里没有的字


def share_batch(preset: Preset, processes: int) -> Preset:
    """每个进程分到的那一份：batch_size ÷ processes。

    异常：
        ValueError: 除不尽。
    """
    if preset.batch_size % processes:
        raise ValueError(f"每步 {preset.batch_size} 篇分不给 {processes} 个进程。请换一个能整除的进程数，或用 --batch-size 改每步的篇数。")
    return replace(preset, batch_size=preset.batch_size // processes)


def prepare(kind: str, corpus, preset: Preset, start_from: Path | None, bundled: bool = True):
    """备好模型、分词器、整理函数。课程的语料用课程的字表；自己的语料从头练，字表从语料里收集。

    参数：
        kind: "mlm" 从随机权重开始；"clm" 从一个 MLM 检查点开始（不写 start_from 就用课程附带的）。
        corpus: load_corpus 的结果。
        preset: 大小。
        start_from: MLM 检查点的文件夹。
        bundled: 语料是不是课程自带的。
    返回：
        （模型，分词器，训练的整理函数，评估的整理函数）。
    异常：
        FileNotFoundError: start_from 不是检查点文件夹。
    """
    if kind == "mlm":
        tokenizer = course_tokenizer(preset.max_len) if bundled else build_tokenizer(
            "char", corpus["train"]["intro"][:] + corpus["train"]["body"][:], model_max_length=preset.max_len)
        model = prepare_heads(BertForMaskedLM(bert_config(preset, tokenizer)))
        return model, tokenizer, mlm_collator(tokenizer, preset.mask_rate), mlm_collator(tokenizer, seed=0)
    folder = start_from or find_checkpoint("mlm", preset)[0]
    model, tokenizer = load_folder(folder, BertLMHeadModel, is_decoder=True)
    if not bundled:
        name_unknown(tokenizer, *corpus["train"]["intro"][:LOOK], *corpus["train"]["body"][:LOOK])
    collate = clm_collator(tokenizer)
    return renew_top(model), tokenizer, collate, collate


def main(arguments: list[str] | None = None) -> dict:
    """命令行入口，返回写进 history.json 的结果。"""
    parser = argparse.ArgumentParser(prog="python -m utils.train", description="训练一个模型；torchrun 之下就是多进程训练")
    parser.add_argument("kind", choices=["mlm", "clm"])
    parser.add_argument("--out", type=Path, required=True, help="检查点与 history.json 放在哪里")
    parser.add_argument("--from", dest="start_from", type=Path, help="clm 从哪个 MLM 检查点出发")
    parser.add_argument("--data", default="bundled", help="语料：bundled、articles、files:路径、hub:名字")
    parser.add_argument("--docs", type=int, help="最多用多少篇")
    parser.add_argument("--preset", choices=sorted(PRESETS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int, help="每步一共多少篇")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--shard", action="store_true", help="几个进程时用 FSDP：参数、梯度、优化器状态各存一部分")
    parser.add_argument("--save-every", type=int, default=200, help="几个进程时，每隔多少步存一次进度")
    parser.add_argument("--fresh", action="store_true", help="不接着上次没练完的练")
    options = parser.parse_args(arguments)
    processes, first = int(os.environ.get("WORLD_SIZE", 1)), os.environ.get("RANK", "0") == "0"
    disable_progress_bar()
    set_seed(options.seed)
    device = pick_device()
    preset = choose_preset(options.preset)
    preset = replace(preset, batch_size=options.batch_size or preset.batch_size, lr=options.lr or preset.lr,
                     bf16=preset.name == "cpu" and device.type == "cpu" and fast_bf16())
    steps = options.steps or (preset.mlm_steps if options.kind == "mlm" else preset.clm_steps)
    try:
        preset = share_batch(preset, processes)
        corpus = load_corpus(options.data, n_docs=options.docs or (preset.n_docs if options.data == "bundled" else None),
                             seed=options.seed)
        model, tokenizer, collate, held_collate = prepare(options.kind, corpus, preset, options.start_from,
                                                                  options.data == "bundled")
    except (ValueError, FileNotFoundError) as problem:
        sys.exit(str(problem))
    shift = options.kind == "clm"
    encoded = encode_docs(corpus["train"], tokenizer, preset.max_len)
    held = fixed_batches(encode_docs(corpus["validation"], tokenizer, preset.max_len), held_collate, preset.eval_docs)
    args = training_arguments(options.out / "trainer", steps, preset, device, options.seed, options.shard)
    history = train(model.to(args.device), encoded, collate, args, lambda m: evaluate(m, held, shift), resume=not options.fresh,
                    save_every=options.save_every)
    weights = whole_weights(model)                        # 每个进程都要参加
    result = {"kind": options.kind, "preset": preset.name, "steps": steps, "processes": processes, "device": args.device.type,
              "documents_per_step": preset.batch_size * processes, "parameters_per_process": parameters_here(model), **asdict(history)}
    if first and not history.interrupted:
        save_checkpoint(model, tokenizer, options.out, {"steps": steps, "validation_nats": history.eval_loss[-1]}, weights=weights)
        (options.out / "history.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
        print(f"练完 {steps} 步：验证损失 {history.eval_loss[-1]:.3f} 奈特/目标词元，存在 {options.out}")
    return result


if __name__ == "__main__":
    main()
