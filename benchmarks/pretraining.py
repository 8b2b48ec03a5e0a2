"""预训练要多久：同一次运行里，比较教程的常见写法与这门课的写法，各用多少秒练到同样的留出集损失。

    python -m benchmarks.pretraining --seconds 60 --out 结果.json

做法：先让本课的写法（engine）练 `--seconds` 秒，记下留出集损失，作为目标。别的写法从同样的秒数开始，练不到就把时间加到 1.5 倍、2 倍、
3 倍……各自的学习率都在自己的时限末尾降到 0，谁也不吃亏。报告的是第一个练得到目标的时限。计时不含评估。
再从 engine 里一次去掉一项，看它单独值多少：同样的秒数，损失高了多少。
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import BertForMaskedLM, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils.logging import disable_progress_bar

from utils.corpus import load_corpus
from utils.environment import PRESETS, Preset, fast_bf16, pick_device, set_seed, versions
from utils.initialization import prepare_heads
from utils.tokenization import build_tokenizer
from utils.training import bert_config, encode_docs, evaluate, fixed_batches, mlm_collator, targets_only

BUDGETS = (1, 1.5, 2, 3, 4, 5, 6, 8)                      # 时限的倍数，依次试


@dataclass(frozen=True)
class Recipe:
    """一种写法。

    属性：
        batch_size, lr: 每批篇数与学习率。
        warmup: 升温占总步数的比例。
        fused: 是否用 fused AdamW。
        bucket: 是否按长度分桶；否则每篇都补到 fixed 那么长。
        targets: 词表头是否只在被盖住的位置算。
        heads: 是否摆好起点的头（prepare_heads）。
        bf16, eager: 是否用 bf16；注意力是否用 eager。
        mask_rate: 训练时盖多少。
    """

    batch_size: int = 8
    lr: float = 5e-5
    warmup: float = 0.0
    fused: bool = False
    bucket: bool = False
    targets: bool = False
    heads: bool = False
    bf16: bool = False
    eager: bool = False
    mask_rate: float = 0.15


class Deadline(TrainerCallback):
    """到时限就停，并让学习率随时间（不是步数）先升后降。"""

    def __init__(self, seconds: float, recipe: Recipe):
        self.seconds, self.recipe, self.started, self.steps = seconds, recipe, 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        done = min(1.0, (time.perf_counter() - self.started) / self.seconds)
        warmup = self.recipe.warmup
        share = done / warmup if done < warmup else (1 - done) / (1 - warmup)
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.lr * share

    def on_step_end(self, args, state, control, **kwargs):
        self.steps = state.global_step
        if time.perf_counter() - self.started >= self.seconds:
            control.should_training_stop = True


def run(recipe: Recipe, seconds: float, preset: Preset, data: dict, seed: int) -> dict:
    """按一种写法练 seconds 秒，返回留出集损失、准确率、步数。"""
    set_seed(seed)
    tokenizer, device = data["tokenizer"], pick_device()
    model = BertForMaskedLM(bert_config(preset, tokenizer))
    model = (prepare_heads(model) if recipe.heads else model).to(device)
    if recipe.eager:
        model.set_attn_implementation("eager")
    folder = tempfile.mkdtemp()
    args = TrainingArguments(
        output_dir=folder, max_steps=10**7, per_device_train_batch_size=recipe.batch_size, learning_rate=recipe.lr,
        lr_scheduler_type="constant", optim="adamw_torch_fused" if recipe.fused else "adamw_torch", seed=seed,
        train_sampling_strategy="group_by_length" if recipe.bucket else "random", length_column_name="length",
        remove_unused_columns=False, bf16=recipe.bf16, use_cpu=device.type == "cpu", save_strategy="no", report_to="none",
        disable_tqdm=True, logging_steps=10**7, dataloader_pin_memory=False)
    library = DataCollatorForLanguageModeling(tokenizer, mlm_probability=recipe.mask_rate)

    def padded(rows):                                     # 教程的写法：一律补到固定长度
        return library([{"input_ids": r["input_ids"] + [tokenizer.pad_token_id] * (preset.max_len - len(r["input_ids"])),
                         "attention_mask": r["attention_mask"] + [0] * (preset.max_len - len(r["input_ids"]))} for r in rows])

    deadline = Deadline(seconds, recipe)
    trainer = Trainer(model=model, args=args, train_dataset=data["train"], callbacks=[deadline],
                      data_collator=mlm_collator(tokenizer, recipe.mask_rate) if recipe.bucket else padded)
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    with targets_only(model, shift=False) if recipe.targets else nullcontext():
        trainer.train()
    loss, accuracy = evaluate(model, data["held"], shift=False)
    shutil.rmtree(folder, ignore_errors=True)
    return {"seconds": seconds, "loss": loss, "accuracy": accuracy, "steps": deadline.steps}


def until(recipe: Recipe, target: float, seconds: float, preset: Preset, data: dict, seed: int, limit: float) -> dict:
    """逐步放宽时限，直到练到 target；超过 limit 倍还不行就如实记下。"""
    last = {}
    for times in (b for b in BUDGETS if b <= limit):
        last = run(recipe, seconds * times, preset, data, seed) | {"times": times}
        if last["loss"] <= target:
            return last | {"reached": True}
    return last | {"reached": False}


def main() -> None:
    """命令行入口。"""
    parser = argparse.ArgumentParser(description="预训练要多久")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--docs", type=int)
    parser.add_argument("--limit", type=float, default=6, help="别的写法最多给几倍时间")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    disable_progress_bar()
    preset = PRESETS[options.preset]
    on_cpu = pick_device().type == "cpu"
    corpus = load_corpus(n_docs=options.docs or preset.n_docs)
    tokenizer = build_tokenizer("char", corpus["train"]["intro"][:] + corpus["train"]["body"][:], model_max_length=preset.max_len)
    data = {"tokenizer": tokenizer, "train": encode_docs(corpus["train"], tokenizer, preset.max_len),
            "held": fixed_batches(encode_docs(corpus["validation"], tokenizer, preset.max_len), mlm_collator(tokenizer, seed=0),
                                  preset.eval_docs)}
    engine = Recipe(preset.batch_size, preset.lr, 0.1, fused=True, bucket=True, targets=True, heads=True,
                    bf16=not on_cpu or fast_bf16(), eager=on_cpu, mask_rate=preset.mask_rate)
    recipes = {"教程的写法": Recipe(), "教程的写法，批与学习率选好": Recipe(batch_size=preset.batch_size, lr=1e-3, warmup=0.1)}
    settings = (preset, data, options.seed)
    best = run(engine, options.seconds, *settings)
    print(f"engine：{best['steps']} 步，损失 {best['loss']:.3f}，准确率 {best['accuracy']:.1%}", flush=True)
    result = {"versions": versions(), "preset": preset.name, "engine": best, "others": {}, "without": {}}
    for name, recipe in recipes.items():
        found = until(recipe, best["loss"], options.seconds, *settings, options.limit)
        result["others"][name] = found
        verdict = f"用了 {found['times']} 倍时间" if found["reached"] else f"给了 {found['times']} 倍时间也没练到"
        print(f"{name}：{verdict}（{found['steps']} 步，损失 {found['loss']:.3f}）", flush=True)
    for name, change in {"按长度分桶": {"bucket": False}, "只算被盖住的位置": {"targets": False}, "摆好的头": {"heads": False},
                         "fused AdamW": {"fused": False}, "bf16": {"bf16": False}, "eager 注意力": {"eager": False},
                         "升温": {"warmup": 0.0}, f"遮盖率 {engine.mask_rate:.0%}": {"mask_rate": 0.15}}.items():
        slimmer = replace(engine, **change)
        if slimmer == engine:
            continue
        found = run(slimmer, options.seconds, *settings)
        result["without"][name] = found
        print(f"去掉「{name}」：{found['steps']} 步（{found['steps'] / best['steps']:.2f} 倍），损失 {found['loss']:.3f}"
              f"（高了 {found['loss'] - best['loss']:+.3f}）", flush=True)
    if options.out:
        options.out.write_text(json.dumps(result, ensure_ascii=False, indent=2), encoding="utf-8")
    assert math.isfinite(best["loss"])


if __name__ == "__main__":
    main()
