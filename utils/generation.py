"""怎样把概率变成文章：一个字接一个字地写，成批地写，或者边写边看。

首次实现：09_generation。那里逐个手写并与 transformers 比对，这里是唯一的一份正式代码。
挑字的办法在 utils.decoding，KV 缓存在 utils.kv_cache。
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from utils.decoding import (
    Decoding,
    apply_temperature,
    repetition_penalty,
    sample_next,
    top_k_filter,
    top_p_filter,
)
from utils.kv_cache import CachedDecoder, UncachedDecoder

__all__ = ["Article", "Candidate", "Decoding", "Step", "apply_temperature", "complete", "encode_prompt",
           "generate", "repetition_penalty", "sample_next", "stream", "top_k_filter", "top_p_filter"]
NEVER = ("[PAD]", "[UNK]", "[CLS]", "[MASK]")   # 文章里永远不该出现的词元；[SEP] 是「这一段写完了」


# ---- 提示
def encode_prompt(tokenizer, intro: str, body: str | None = None) -> list[int]:
    """把提示编成词元编号。

    参数：
        tokenizer: 字符级分词器。
        intro: 导语，或者导语的开头。
        body: None 表示导语还没写完，得到 ``[CLS] 开头``；
            字符串（可以是空串）表示导语已写完，得到 ``[CLS] 导语 [SEP] 正文``。
    返回：
        编号的列表。
    异常：
        ValueError: 导语是空的。
    """
    if not isinstance(intro, str) or not intro.strip():
        raise ValueError(f"提示是空的（得到 {intro!r}）。请至少给一个字，例如「今天是个」。")
    plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    ids = [tokenizer.cls_token_id, *tokenizer(intro, **plain)["input_ids"]]
    if body is not None:
        ids += [tokenizer.sep_token_id, *(tokenizer(body, **plain)["input_ids"] if body else [])]
    return ids


def _check_model(model) -> None:
    if not (hasattr(model, "bert") and hasattr(model, "cls")):
        raise TypeError(f"这里用 BertLMHeadModel 写文章，得到的却是 {type(model).__name__}。")
    if not model.config.is_decoder:
        raise ValueError("这个模型的 is_decoder 不是 True：它看得见未来，学会的是照抄后文，不能用来逐字写作。"
                         "请用 BertLMHeadModel.from_pretrained（…，is_decoder=True） 载入为写作训练过的模型。")


def _room(model, prompts: Sequence[list[int]], max_new_tokens: int | None) -> list[int]:
    positions, longest = model.config.max_position_embeddings, max(map(len, prompts))
    if longest > positions - 2:                                                # 至少写一个字，再留一格给 [SEP]
        raise ValueError(f"提示有 {longest} 个词元，模型只有 {positions} 个位置，没有地方往下写。请缩短提示。")
    if max_new_tokens is None:
        return [positions - 1 - len(p) for p in prompts]
    if max_new_tokens < 1 or max_new_tokens != int(max_new_tokens):
        raise ValueError(f"max_new_tokens 必须是正整数，得到 {max_new_tokens}。")
    if longest + max_new_tokens > positions:
        raise ValueError(f"提示 {longest} 个词元，再写 {max_new_tokens} 个，超过了模型的 {positions} 个位置；"
                         f"max_new_tokens 最多是 {positions - longest}。")
    return [int(max_new_tokens)] * len(prompts)


@contextmanager
def _evaluating(model):
    """暂时关掉 dropout，用完恢复原状。"""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class _Writer:
    """一批正在写的文章：缓存、出现过的字、还在写的行。"""

    def __init__(self, model, tokenizer, prompts, how: Decoding, room: int, use_cache: bool):
        self.how, device, width = how, model.device, max(map(len, prompts))
        ids = torch.full((len(prompts), width), tokenizer.pad_token_id)                 # (B, T)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt):] = torch.tensor(prompt)                       # 左填充：末尾对齐
        real = torch.arange(width) >= width - torch.tensor([len(p) for p in prompts])[:, None]
        ids = ids.to(device)
        self.decoder = (CachedDecoder if use_cache else UncachedDecoder)(model, ids, real.to(device), room)
        self.banned = torch.zeros(self.decoder.logits.size(-1), dtype=torch.bool, device=device)
        self.banned[tokenizer.convert_tokens_to_ids(list(NEVER))] = True
        self.seen = None
        if how.repetition_penalty != 1:
            none = torch.zeros(self.decoder.logits.shape, dtype=torch.bool, device=device)     # (B, V)
            self.seen = none.scatter(1, ids, True)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """重复惩罚，再去掉禁用的词元。（B, V） -> (B, V)"""
        if self.seen is not None:
            logits = repetition_penalty(logits, self.seen, self.how.repetition_penalty)
        return logits.masked_fill(self.banned, -math.inf)

    def choose(self, u: torch.Tensor | None) -> torch.Tensor:
        """为每行挑一个词元，（B，）。"""
        scores = self.scores(self.decoder.logits)
        return scores.argmax(-1) if u is None else sample_next(self.how.filter(scores), u)

    def advance(self, tokens: torch.Tensor) -> None:
        """把 (B,) 接上去。"""
        if self.seen is not None:
            self.seen = self.seen.scatter(1, tokens[:, None], True)
        self.decoder.advance(tokens)

    def select(self, keep: torch.Tensor) -> None:
        """只留下（或重排）这些行。"""
        self.decoder.select(keep)
        if self.seen is not None:
            self.seen = self.seen[keep]


def _write_batch(model, tokenizer, prompts, rooms, how, u, stops, use_cache) -> list[list[int]]:
    """贪心或抽样。u: （B, 步数） 的随机数，贪心时是 None；stops: 写到第几个 [SEP] 停。返回各行新写的编号。"""
    writer = _Writer(model, tokenizer, prompts, how, max(rooms), use_cache)
    written: list[list[int]] = [[] for _ in prompts]
    stops_left, rows = [stops] * len(prompts), list(range(len(prompts)))       # rows: 批里第 i 行是第几篇
    for step in range(max(rooms)):
        tokens = writer.choose(None if u is None else u[rows, step])
        open_rows = []
        for i, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if not stops_left[row]:
                continue                                                       # 早已写完，还没移出去
            written[row].append(token)
            stops_left[row] -= token == tokenizer.sep_token_id
            if len(written[row]) >= rooms[row]:
                stops_left[row] = 0
            if stops_left[row]:
                open_rows.append(i)
        if not open_rows:
            break
        full = step + 1 >= min(rooms[row] for row in rows)                     # 有的行位置用完了，非移不可
        if full or len(open_rows) <= 0.75 * len(rows):                         # 不然攒多了才移，少复制缓存
            keep = torch.tensor(open_rows, device=tokens.device)
            writer.select(keep)
            tokens, rows = tokens[keep], [rows[i] for i in open_rows]
        writer.advance(tokens)
    return written


def _beam_search(model, tokenizer, prompt, room, how, stops, use_cache) -> list[int]:
    """束搜索：始终保留总对数概率最高的 num_beams 个半成品；规则与 transformers 的默认设置相同。"""
    width, sep = how.num_beams, tokenizer.sep_token_id
    writer = _Writer(model, tokenizer, [prompt], how, room, use_cache)
    writer.select(torch.zeros(width, dtype=torch.long, device=model.device))
    running = torch.full((width,), -1e9, device=model.device)                  # 各束的总对数概率 (width,)
    running[0] = 0.0                                                           # 一开始各束相同，只让第一束展开
    beams: list[list[int]] = [[] for _ in range(width)]
    finished: list[tuple[float, list[int]]] = []
    for step in range(room):
        log_p = writer.scores(writer.decoder.logits.log_softmax(-1)) + running[:, None]    # (width, V)
        best, index = log_p.flatten().topk(2 * width)
        parents, tokens = index // log_p.size(1), index % log_p.size(1)
        grown = [beams[p] + [t] for p, t in zip(parents.tolist(), tokens.tolist(), strict=True)]
        done = [new.count(sep) >= stops or step == room - 1 for new in grown]
        scores = [s / (step + 1) ** how.length_penalty for s in best.tolist()]
        finished += [(scores[i], grown[i]) for i in range(width) if done[i]]
        finished = sorted(finished, key=lambda pair: -pair[0])[:width]
        alive = [i for i in range(2 * width) if not done[i]][:width]
        if not alive or (len(finished) == width and finished[-1][0] >= scores[alive[0]]):
            break
        beams, running = [grown[i] for i in alive], best[alive]
        writer.select(parents[alive])
        writer.advance(tokens[alive])
    return finished[0][1]


@torch.inference_mode()
def _write(model, tokenizer, prompts, max_new_tokens, how, stops, use_cache, batch_size=64):
    _check_model(model)
    if not prompts:
        return []
    rooms = _room(model, prompts, max_new_tokens)
    with _evaluating(model):
        if how.strategy == "beam":
            return [_beam_search(model, tokenizer, p, r, how, stops, use_cache)
                    for p, r in zip(prompts, rooms, strict=True)]
        u = how.noise(len(prompts), max(rooms))
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))  # 长度相近的放一批，少填充
        written: list[list[int]] = [[] for _ in prompts]
        for begin in range(0, len(order), batch_size):
            rows = order[begin: begin + batch_size]
            batch = _write_batch(model, tokenizer, [prompts[r] for r in rows], [rooms[r] for r in rows], how,
                                 None if u is None else u[rows], stops, use_cache)
            for row, ids in zip(rows, batch, strict=True):
                written[row] = ids
        return written


# ---- 写文章
def generate(model, tokenizer, intros: Sequence[str], *, max_new_tokens: int | None = None,
             use_cache: bool = True, batch_size: int = 64, **how) -> list[str]:
    """读导语，写正文：``[CLS] 导语 [SEP]`` → 正文，写到 [SEP] 为止。

    参数：
        model: ``is_decoder=True`` 的 ``BertLMHeadModel``；tokenizer: 字符级分词器。
        intros: 导语的列表；成批计算（左填充），结果与一篇一篇写相同。
        max_new_tokens: 最多写多少个词元；None 表示写到位置只剩一格（留给 [SEP]）。
        use_cache: 是否用 KV 缓存；batch_size: 一批多少篇。
        **how: Decoding 的各项，例如 temperature=0.8, top_p=0.9, seed=1；什么都不写就是贪心。
    返回：
        正文的列表，与 intros 次序相同；不含特殊词元。
    异常：
        ValueError: 导语是空的、放不下、挑字的参数越界、模型不是 is_decoder。
        TypeError: intros 是单个字符串，或模型不是 BertLMHeadModel。
    首次实现：09_generation。
    """
    if isinstance(intros, str):
        raise TypeError("intros 应当是导语的列表；只有一条时写成 [导语]。")
    prompts = [encode_prompt(tokenizer, intro, "") for intro in intros]
    written = _write(model, tokenizer, prompts, max_new_tokens, Decoding(**how), 1, use_cache, batch_size)
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]


@dataclass(frozen=True)
class Article:
    """一篇续写的文章：intro 是导语（含给定的开头），body 是正文，finished 表示是否自己写到了结尾。"""

    intro: str
    body: str
    finished: bool

    def __str__(self) -> str:
        return f"{self.intro}\n{self.body}" if self.body else self.intro


def complete(model, tokenizer, prefix: str, *, max_new_tokens: int | None = None, use_cache: bool = True,
             **how) -> Article:
    """接着一个开头往下写：先写完导语，过了 [SEP] 再写正文。

    参数：
        prefix: 开头，例如「今天是个」；其中若有换行，换行之前是写完的导语，之后是正文的开头。
        其余同 generate。
    返回：
        Article。异常：同 generate。
    首次实现：09_generation。
    """
    intro, newline, body = prefix.partition("\n") if isinstance(prefix, str) else (prefix, "", "")
    prompt, stops = encode_prompt(tokenizer, intro, body if newline else None), 1 if newline else 2
    ids = _write(model, tokenizer, [prompt], max_new_tokens, Decoding(**how), stops, use_cache)[0]
    cut = ids.index(tokenizer.sep_token_id) if stops == 2 and tokenizer.sep_token_id in ids else len(ids)
    first, second = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids[:cut], ids[cut:]))
    finished = ids.count(tokenizer.sep_token_id) == stops
    return Article(intro, body + first, finished) if newline else Article(intro + first, second, finished)


# ---- 边写边看
@dataclass(frozen=True)
class Candidate:
    """一个候选字：text 是字，probability 是模型给的概率，chance 是改造分布之后真正被抽中的概率。"""

    text: str
    probability: float
    chance: float


@dataclass(frozen=True)
class Step:
    """写下的一个字。

    属性：
        text: 字；段落结束时是 "[SEP]"。
        part: "intro" 或 "body"。
        probability, chance: 同 Candidate。
        candidates: 当时概率最高的几个候选。
    """

    text: str
    part: str
    probability: float
    chance: float
    candidates: tuple[Candidate, ...]


def stream(model, tokenizer, prefix: str, *, max_new_tokens: int | None = None, n_candidates: int = 6,
           **how) -> Iterator[Step]:
    """与 complete 写得一样，但写一个字就交出一个 Step，带着当时的候选与概率。不支持束搜索。

    参数：
        n_candidates: 每步列出概率最高的几个候选。
        其余同 complete。
    返回：
        Step 的生成器。异常：同 generate；策略是 beam 时 ValueError。
    首次实现：09_generation。
    """
    _check_model(model)
    choices = Decoding(**how)
    if choices.strategy == "beam":
        raise ValueError("束搜索要写完才知道选哪一篇，不能边写边看。请用贪心或抽样。")
    intro, newline, body = prefix.partition("\n") if isinstance(prefix, str) else (prefix, "", "")
    prompt = encode_prompt(tokenizer, intro, body if newline else None)
    room = _room(model, [prompt], max_new_tokens)[0]
    return _stream(model, tokenizer, prompt, room, choices, "body" if newline else "intro", n_candidates)


@torch.inference_mode()
def _stream(model, tokenizer, prompt, room, how, part, n_candidates) -> Iterator[Step]:
    u = how.noise(1, room)
    with _evaluating(model):
        writer = _Writer(model, tokenizer, [prompt], how, room, True)
        for step in range(room):
            scores = writer.scores(writer.decoder.logits)                              # (1, V)
            tokens = writer.choose(None if u is None else u[:, step])
            p = writer.decoder.logits[0].float().softmax(-1)
            q = how.filter(scores)[0].float().softmax(-1)
            if u is None:
                q = torch.nn.functional.one_hot(tokens[0], len(p)).float()             # 贪心：百分之百选第一名
            top = p.masked_fill(writer.banned, -1).topk(n_candidates).indices.tolist()
            names = tokenizer.convert_ids_to_tokens(top)
            token = int(tokens)
            yield Step(tokenizer.convert_ids_to_tokens(token), part, float(p[token]), float(q[token]),
                       tuple(Candidate(n, float(p[i]), float(q[i])) for n, i in zip(names, top, strict=True)))
            if token == tokenizer.sep_token_id:
                if part == "body":
                    return
                part = "body"
            if step < room - 1:
                writer.advance(tokens)
