"""规模定律（scaling law）：损失随参数个数 N 和词元数 M 怎样下降；量一批小模型，拟合，再往外推。

ℒ(N, M) = E + a / N^α + b / M^β。E 是语料的下限，别处只能和别的系数一起拟合，这里是算得出来的。首次实现：scale_up。
形式见 Hoffmann 等（2022）；`python -m tools.scaling_runs` 量出附带的 data/scaling_runs.jsonl（一个核心约两小时，停了再运行就接着量）。
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import least_squares
from transformers import BertLMHeadModel, PreTrainedTokenizerFast

from utils.corpus.news import floor, generate
from utils.models.initialization import prepare_heads
from utils.paths import DATA
from utils.presets import PRESETS, Preset, pick_device, set_seed
from utils.training.batches import bert_config, clm_collator, encode_docs, fixed_batches
from utils.training.loop import train, training_arguments
from utils.training.losses import evaluate

RUNS = DATA / "scaling_runs.jsonl"
SIZES = ((2, 32, 2), (2, 48, 3), (2, 64, 4), (2, 80, 5), (2, 96, 6), (3, 128, 8))      # （层数，维度，头数）
DOCS = (4000, 8000, 16000, 32000, 48000)                          # 各练多少篇，每篇只看一遍
HELD = 500                                                # 在多少篇测试文档上量


@dataclass(frozen=True)
class Run:
    """一次训练的结果。

    属性：
        layers, hidden, heads: 模型的大小。
        parameters: 各层的参数个数 N，不含嵌入。
        docs: 练了多少篇；tokens: 其中计损失的词元数 M。
        nats: 测试集上正文的损失（奈特/词元）。
        seconds: 用时（秒）；device: 在什么设备上。
    """

    layers: int
    hidden: int
    heads: int
    parameters: int
    docs: int
    tokens: int
    nats: float
    seconds: float
    device: str


@dataclass(frozen=True)
class Law:
    """拟合出来的规模定律，系数同模块开头的公式；N、M 以百万计。residual 是拟合残差的均方根。"""

    E: float
    a: float
    alpha: float
    b: float
    beta: float
    residual: float

    def __call__(self, parameters, tokens):
        """预测损失（奈特/词元）；N、M 可以是数，也可以是同形的数组。"""
        return self.E + self.a / (np.asarray(parameters) / 1e6)**self.alpha + self.b / (np.asarray(tokens) / 1e6)**self.beta


def layer_parameters(model: torch.nn.Module) -> int:
    """各层的参数个数，不含嵌入和词表头：规模定律里的 N。"""
    return sum(p.numel() for p in model.bert.encoder.parameters())


def fit_law(runs: Sequence[Run], E: float | None = None) -> Law:
    """拟合规模定律：让 ln(ℒ − E) 与公式的差（E 也要拟合时是 ln ℒ 的差）尽量小，用稳健的损失，几个离群的点不会带偏全局。

    参数：
        runs: 至少 6 次训练，N、M 各至少有 3 种。
        E: 已知的下限（奈特/词元）；None 表示和别的系数一起拟合。
    返回：
        Law。
    异常：
        ValueError: 训练太少、N 或 M 的种类太少，或有一次的损失不高于 E。
    """
    N, M, loss = (np.array([getattr(r, name) for r in runs], dtype=float) for name in ("parameters", "tokens", "nats"))
    if len(runs) < 6 or len(set(N)) < 3 or len({r.docs for r in runs}) < 3:
        raise ValueError("拟合规模定律至少要 6 次训练，模型大小和数据量各至少 3 种。")
    if E is not None and loss.min() <= E:
        raise ValueError(f"有一次训练的损失 {loss.min():.3f} 不高于下限 {E:.3f}，请检查两者是不是在同一批文档上量的。")

    def law(x):
        bottom = E if E is not None else loss.min() / (1 + np.exp(-x[4]))             # 拟合的 E 在 0 与最低的损失之间
        return Law(bottom, *np.exp(x[:4]), 0.0)

    def gaps(x):
        base = 0.0 if E is None else E                    # E 也要拟合时，只能比 ln ℒ：比 ln(ℒ − E) 的话，E 越小差得越少
        return np.log(np.maximum(law(x)(N, M) - base, 1e-12)) - np.log(loss - base)

    starts = [np.log([a, 0.3, b, 0.5]) for a in (0.05, 0.5) for b in (0.5, 3.0)]
    starts = starts if E is not None else [np.append(s, e) for s in starts for e in (-1.0, 1.0, 3.0)]
    best = min((least_squares(gaps, s, loss="soft_l1", f_scale=0.1) for s in starts), key=lambda r: r.cost)
    return replace(law(best.x), residual=float(np.sqrt(np.mean(gaps(best.x)**2))))


def train_run(size: tuple[int, int, int], docs: int, tokenizer: PreTrainedTokenizerFast, held: list[dict], base: Preset = PRESETS["cpu"],
              seed: int = 2026) -> Run:
    """从头练一个小模型，每篇只看一遍，返回结果。

    参数：
        size: （层数，维度，头数）。
        docs: 多少篇训练文档。
        tokenizer: 字级分词器。
        held: 量损失用的固定的批，正文才有标签。
        base: 其余的设置（每步的篇数等）取自它；小模型的学习率和初值的标准差大一些。
    """
    layers, hidden, heads = size
    set_seed(seed)
    preset = replace(base, layers=layers, hidden=hidden, heads=heads, lr=4e-3, init_std=min(0.1, 7 / hidden), batch_size=8)
    device = pick_device()
    rows = encode_docs(generate("train", docs), tokenizer, preset.max_len, learn_intro=True)
    model = prepare_heads(BertLMHeadModel(bert_config(preset, tokenizer, is_decoder=True))).to(device)
    model.loss_type = "ForCausalLM"
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(Path(folder), docs // preset.batch_size, preset, device, seed)
        history = train(model, rows, clm_collator(tokenizer), args, lambda m: (math.nan, 0.0), evaluations=1)
    nats, _ = evaluate(model, held, shift=True)           # 只在练完以后量一次
    tokens = sum(length - 1 for length in rows["length"])
    return Run(layers, hidden, heads, layer_parameters(model), docs, tokens, nats, history.seconds, device.type)


def held_out(tokenizer: PreTrainedTokenizerFast, n_docs: int = HELD) -> tuple[list[dict], float]:
    """（测试集前 n_docs 篇排成的固定的批，它们的正文的下限，奈特/词元）。"""
    docs = generate("test", n_docs)
    batches = fixed_batches(encode_docs(docs, tokenizer, PRESETS["cpu"].max_len), clm_collator(tokenizer), n_docs)
    return batches, floor(docs, "body")["nats_per_token"]


def read_runs(path: Path = RUNS) -> list[Run]:
    """读出量好的各次训练。

    异常：
        FileNotFoundError: 文件不在。
    """
    if not path.exists():
        raise FileNotFoundError(f"{path.name} 不见了。请恢复（git checkout data），或用 python -m tools.scaling_runs 重新量（约两小时）。")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Run(**{name: row[name] for name in Run.__dataclass_fields__}) for row in rows]

