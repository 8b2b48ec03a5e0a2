"""量一批大大小小的模型，写进 data/scaling_runs.jsonl：`python -m tools.scaling_runs`。"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

from transformers import BertLMHeadModel

from utils.models.checkpoints import load_checkpoint
from utils.presets import versions
from utils.scaling.law import DOCS, RUNS, SIZES, held_out, read_runs, train_run


def main(arguments: list[str] | None = None) -> None:
    """命令行入口：量完整的一批，一次一行写进文件；已经量过的跳过。"""
    parser = argparse.ArgumentParser(prog="python -m tools.scaling_runs", description="量一批小模型，写进 data/scaling_runs.jsonl")
    parser.add_argument("--out", type=Path, default=RUNS)
    parser.add_argument("--docs", type=int, nargs="+", default=DOCS, help="各练多少篇")
    parser.add_argument("--minutes", type=float, default=math.inf, help="过了这么多分钟就不再量下一次")
    options = parser.parse_args(arguments)
    _, tokenizer, _ = load_checkpoint("clm", BertLMHeadModel, prefer="shipped", is_decoder=True)
    held, _ = held_out(tokenizer)
    began = time.monotonic()
    done = {((r.layers, r.hidden, r.heads), r.docs) for r in read_runs(options.out)} if options.out.exists() else set()
    for docs, size in sorted(((d, s) for d in options.docs for s in SIZES), key=lambda pair: pair[0] * pair[1][1]):     # 先便宜后贵
        if (size, docs) in done:
            continue
        if time.monotonic() - began > 60 * options.minutes:
            return
        row = asdict(train_run(size, docs, tokenizer, held)) | {"versions": versions()}
        with open(options.out, "a", encoding="utf-8", newline="\n") as f:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
