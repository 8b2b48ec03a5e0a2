"""写文章有多快：每步重算的循环、课程的 generate（KV 缓存）、transformers 的 generate，同一条提示，写满同样多的字。

    python -m tools.benchmarks.generation --tokens 128 --rounds 9 --out 结果.json

三家轮流跑，取各自的中位数；都是贪心，都不许提前停，线程数相同，写出的字要逐个相等才算数。别的程序占着处理器时，结果不作数。
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

import torch
from transformers import BertLMHeadModel

from utils.corpus.news import generate as generate_corpus
from utils.generation.writer import NEVER
from utils.generation.writing import encode_prompt, generate
from utils.presets import PRESETS, Preset, set_seed, versions
from utils.scaling.speed import race
from utils.tokenization.tokenizer import build_tokenizer
from utils.training.batches import bert_config

UNCACHED, OURS, LIBRARY = "每步重算", "课程的 generate", "transformers"


def prepare(preset: Preset) -> tuple:
    """（模型，分词器，一条导语）：权重是随机的，快慢与练没练过无关；大小按预设。"""
    docs = generate_corpus("train", 400)
    tokenizer = build_tokenizer("char", docs["intro"][:] + docs["body"][:], model_max_length=preset.max_len)
    set_seed(0)
    config = bert_config(preset, tokenizer)
    config.is_decoder = True
    return BertLMHeadModel(config).eval(), tokenizer, docs["intro"][0]


def measure(model, tokenizer, intro: str, tokens: int, rounds: int) -> dict[str, list[float]]:
    """三家各跑 rounds 次的秒数。异常：AssertionError: 写出的不一样。"""
    ids = torch.tensor([encode_prompt(tokenizer, intro, "")], device=model.device)
    exactly = {"max_new_tokens": tokens, "min_new_tokens": tokens}

    @torch.inference_mode()
    def library() -> list[str]:
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True, pad_token_id=0,
                             eos_token_id=tokenizer.sep_token_id, suppress_tokens=tokenizer.convert_tokens_to_ids(list(NEVER)), **exactly)
        return tokenizer.batch_decode(out[:, ids.size(1):], skip_special_tokens=True)

    runs = {UNCACHED: lambda: generate(model, tokenizer, [intro], use_cache=False, **exactly),
            OURS: lambda: generate(model, tokenizer, [intro], **exactly), LIBRARY: library}
    texts = [run() for run in runs.values()]
    assert texts[0] == texts[1] == texts[2], "三家写出的不一样，比快慢没有意义"
    return race(runs, rounds)


def main(arguments: list[str] | None = None) -> dict:
    """命令行入口，返回结果。"""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.generation", description="写文章有多快")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--tokens", type=int, default=128, help="写多少个词元（默认 128）")
    parser.add_argument("--rounds", type=int, default=9, help="各跑几次（默认 9）")
    parser.add_argument("--threads", type=int, help="几个线程（默认用这台机器的默认值）")
    parser.add_argument("--out", type=Path, help="结果写进这个 JSON 文件")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(options.threads or before)
        seconds = measure(*prepare(PRESETS[options.preset]), options.tokens, options.rounds)
    finally:
        torch.set_num_threads(before)
    typical = {name: median(x) for name, x in seconds.items()}
    for name, x in seconds.items():
        print(f"{name}：中位数 {typical[name]:.3f} 秒（{min(x):.3f} 到 {max(x):.3f}）")
    result = {"versions": versions(), "threads": options.threads or before, "preset": options.preset, "tokens": options.tokens,
              "seconds": seconds, "times_faster_than_uncached": typical[UNCACHED] / typical[OURS],
              "times_faster_than_transformers": typical[LIBRARY] / typical[OURS]}
    print(f"课程的 generate：速度是每步重算的 {result['times_faster_than_uncached']:.1f} 倍，"
          f"是 transformers 的 {result['times_faster_than_transformers']:.2f} 倍")
    if options.out:
        options.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
    return result


if __name__ == "__main__":
    main()
