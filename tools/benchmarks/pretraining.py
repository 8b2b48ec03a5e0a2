"""预训练要多久：同一次运行里，比较教程的常见写法与这门课的写法（engine），各用多少秒练到同样的留出集损失。

    python -m tools.benchmarks.pretraining --seconds 40 --out 结果.json

1. engine 练 `--seconds` 秒，换几个种子各练一次，留出集损失的中位数就是目标。
2. 「教程的写法」：Trainer 的默认设置，批 8，一律补到固定长度。
3. 「选好的」：同样的写法，批和学习率先在同样的秒数里挑过，另加升温。
   2 和 3 的时限是 engine 的几倍才练得到目标？在 LADDER 里二分查找，每次都从头练，学习率在各自的时限末尾降到 0，谁也不吃亏。
4. 从 engine 里一次去掉一项，同样的秒数，步数少了几成，损失高了多少。比种子的起伏还小的，不算数。

计时不含评估。别的程序占着处理器时，结果不作数。
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import BertForMaskedLM, DataCollatorForLanguageModeling, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from utils.corpus.news import load_corpus
from utils.models.initialization import prepare_heads
from utils.presets import PRESETS, Preset, fast_bf16, pick_device, set_seed, versions
from utils.tokenization.tokenizer import build_tokenizer
from utils.training.batches import bert_config, encode_docs, fixed_batches, mlm_collator
from utils.training.losses import evaluate
from utils.training.timed import train_for

LADDER = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)                   # 时限的倍数
RATES, BATCHES = (3e-4, 1e-3, 3e-3), (8, 16, 32)          # 「选好的」从这里挑


@dataclass(frozen=True)
class Recipe:
    """一种写法；每一项的默认值都是教程的写法。

    属性：
        batch_size, lr: 每批篇数与最高学习率（Trainer 的默认是 8 和 5e-5）。
        warmup: 升温占时限的比例。
        optim: 优化器；None 表示用 Trainer 的默认。
        bucket: 是否按长度分桶；否则随机取，每篇都补到固定长度。
        targets: 词表头是否只在被盖住的位置算。
        heads: 是否摆好起点的头（prepare_heads）。
        bf16: 是否用 bf16。
        attention: 注意力的实现；None 表示用库的默认（sdpa）。
        mask_rate: 训练时盖多少。
    """

    batch_size: int = 8
    lr: float = 5e-5
    warmup: float = 0.0
    optim: str | None = None
    bucket: bool = False
    targets: bool = False
    heads: bool = False
    bf16: bool = False
    attention: str | None = None
    mask_rate: float = 0.15


@dataclass(frozen=True)
class Bench:
    """比较的场地：大小、数据、输出文件夹。"""

    preset: Preset
    tokenizer: object
    train: object
    held: list
    folder: Path

    def run(self, recipe: Recipe, seconds: float, seed: int) -> dict:
        """按一种写法练 seconds 秒，返回留出集损失、准确率、步数。"""
        set_seed(seed)
        device, preset = pick_device(), self.preset
        model = BertForMaskedLM(bert_config(preset, self.tokenizer))
        model = (prepare_heads(model) if recipe.heads else model).to(device)
        if recipe.attention:
            model.set_attn_implementation(recipe.attention)
        chosen = {"optim": recipe.optim} if recipe.optim else {}
        args = TrainingArguments(
            output_dir=str(self.folder), per_device_train_batch_size=recipe.batch_size, learning_rate=recipe.lr, seed=seed,
            train_sampling_strategy="group_by_length" if recipe.bucket else "random", length_column_name="length",
            remove_unused_columns=False, bf16=recipe.bf16, use_cpu=device.type == "cpu", report_to="none", disable_tqdm=True,
            dataloader_pin_memory=device.type == "cuda", **chosen)
        collate = mlm_collator(self.tokenizer, recipe.mask_rate) if recipe.bucket else self.padded(recipe.mask_rate)
        steps = train_for(seconds, model, self.train, collate, args, recipe.warmup, recipe.targets)
        loss, accuracy = evaluate(model, self.held, shift=False)
        return {"seconds": seconds, "loss": loss, "accuracy": accuracy, "steps": steps}

    def padded(self, mask_rate: float):
        """教程的写法：一律补到固定长度。"""
        library = DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=mask_rate)
        length, pad = self.preset.max_len, self.tokenizer.pad_token_id

        def collate(rows):
            return library([{"input_ids": r["input_ids"] + [pad] * (length - len(r["input_ids"])),
                             "attention_mask": r["attention_mask"] + [0] * (length - len(r["input_ids"]))} for r in rows])

        return collate

    def until(self, recipe: Recipe, target: float, seconds: float, seed: int, limit: float) -> dict:
        """二分查找练到 target 的最小倍数。limit 倍也练不到时，reached 是 False，times 是试过的最大倍数。"""
        ladder, tried = [x for x in LADDER if x <= limit], {}
        low, high = 0, len(ladder)                        # 答案在 ladder[low:high]，high == len 表示练不到
        while low < high:
            middle = (low + high) // 2
            tried[ladder[middle]] = found = self.run(recipe, seconds * ladder[middle], seed)
            print(f"    {ladder[middle]} 倍时间：{found['steps']} 步，损失 {found['loss']:.3f}", flush=True)
            low, high = (low, middle) if found["loss"] <= target else (middle + 1, high)
        reached = low < len(ladder)
        return {"reached": reached, "times": ladder[low] if reached else ladder[-1], "tried": tried}

    def tune(self, recipe: Recipe, seconds: float, seed: int) -> tuple[Recipe, list[dict]]:
        """先在 RATES 里挑学习率，再在 BATCHES 里挑批，都练 seconds 秒，比留出集损失。"""
        tried = []

        def best(candidates: list[Recipe]) -> Recipe:
            losses = []
            for candidate in candidates:
                known = [t["loss"] for t in tried if (t["batch_size"], t["lr"]) == (candidate.batch_size, candidate.lr)]
                if not known:
                    found = self.run(candidate, seconds, seed)
                    tried.append({"batch_size": candidate.batch_size, "lr": candidate.lr, **found})
                    print(f"    批 {candidate.batch_size}，学习率 {candidate.lr:g}：{found['steps']} 步，损失 {found['loss']:.3f}",
                          flush=True)
                    known = [found["loss"]]
                losses.append(known[0])
            return candidates[losses.index(min(losses))]

        recipe = best([replace(recipe, lr=lr) for lr in RATES])
        return best([replace(recipe, batch_size=b) for b in BATCHES]), tried


def prepare(preset: Preset, n_docs: int, folder: Path) -> Bench:
    """备好语料、分词器和留出集。"""
    corpus = load_corpus(n_docs=n_docs)
    tokenizer = build_tokenizer("char", corpus["train"]["intro"][:] + corpus["train"]["body"][:], model_max_length=preset.max_len)
    held = fixed_batches(encode_docs(corpus["validation"], tokenizer, preset.max_len), mlm_collator(tokenizer, seed=0), preset.eval_docs)
    return Bench(preset, tokenizer, encode_docs(corpus["train"], tokenizer, preset.max_len), held, folder)


def compare(bench: Bench, seconds: float, limit: float, seeds: int) -> dict:
    """整个比较，边做边打印，返回可以写成 JSON 的结果。"""
    preset, on_cpu = bench.preset, pick_device().type == "cpu"
    engine = Recipe(preset.batch_size, preset.lr, 0.1, "adamw_torch_fused", bucket=True, targets=True, heads=True,
                    bf16=not on_cpu or fast_bf16(), attention="eager" if on_cpu else None, mask_rate=preset.mask_rate)
    runs = [bench.run(engine, seconds, seed) for seed in range(seeds)]
    losses, steps = [r["loss"] for r in runs], statistics.median(r["steps"] for r in runs)
    target, spread = statistics.median(losses), max(losses) - min(losses)
    print(f"engine（{seeds} 个种子）：{steps} 步，损失 {'、'.join(f'{x:.3f}' for x in losses)}；目标 {target:.3f}", flush=True)
    result = {"versions": versions(), "threads": torch.get_num_threads(), "preset": preset.name, "seconds": seconds,
              "engine": {"recipe": asdict(engine), "runs": runs}, "others": {}, "without": {}}
    print("选好的：先挑批和学习率", flush=True)
    tuned, tried = bench.tune(Recipe(warmup=0.1), seconds, seed=0)
    for name, recipe in {"选好的": tuned, "教程的写法": Recipe()}.items():
        print(f"{name}（批 {recipe.batch_size}，学习率 {recipe.lr:g}）：", flush=True)
        found = bench.until(recipe, target, seconds, 0, limit)
        result["others"][name] = {"recipe": asdict(recipe)} | found
        print(f"  {'练得到，要' if found['reached'] else '给了也练不到：'} {found['times']} 倍时间", flush=True)
    result["tuning"] = tried
    slower = {"按长度分桶": {"bucket": False}, "只算被盖住的位置": {"targets": False}, "摆好的头": {"heads": False},
              "fused AdamW": {"optim": "adamw_torch"}, "bf16": {"bf16": False}, "eager 注意力": {"attention": None},
              "升温": {"warmup": 0.0}, f"遮盖率 {engine.mask_rate:.0%}": {"mask_rate": 0.15}}
    for name, change in slower.items():
        slimmer = replace(engine, **change)
        if slimmer == engine:
            continue
        found = bench.run(slimmer, seconds, seed=0)
        worse = found["loss"] - target
        result["without"][name] = found | {"worse": worse, "counts": worse > spread}
        print(f"去掉「{name}」：步数是原来的 {found['steps'] / steps:.2f}，损失 {worse:+.3f}"
              f"{'' if worse > spread else '（在种子的起伏之内）'}", flush=True)
    return result | {"target": target, "spread": spread}


def main(arguments: list[str] | None = None) -> dict:
    """命令行入口，返回结果。"""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.pretraining", description="预训练要多久")
    parser.add_argument("--seconds", type=float, default=40, help="engine 练几秒（默认 40）")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--docs", type=int, help="语料多少篇（默认按预设）")
    parser.add_argument("--limit", type=float, default=6, help="别的写法最多给几倍时间（默认 6）")
    parser.add_argument("--seeds", type=int, default=3, help="engine 换几个种子（默认 3）")
    parser.add_argument("--out", type=Path, help="结果写进这个 JSON 文件")
    options = parser.parse_args(arguments)
    disable_progress_bar()
    folder, began = Path(tempfile.mkdtemp()), time.perf_counter()
    try:
        bench = prepare(PRESETS[options.preset], options.docs or PRESETS[options.preset].n_docs, folder)
        result = compare(bench, options.seconds, options.limit, options.seeds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"共用 {(time.perf_counter() - began) / 60:.0f} 分钟")
    if options.out:
        options.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
    return result


if __name__ == "__main__":
    main()
