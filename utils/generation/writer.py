"""写作的引擎：把提示编成词元，一批一批地往下写，或者用束搜索写。

首次实现：generation。挑字的办法在 utils.generation.decoding，KV 缓存在 utils.generation.kv_cache；对外的函数在 utils.generation。
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager

import torch

from utils.generation.decoding import Decoding, sample_next
from utils.generation.kv_cache import CachedDecoder, UncachedDecoder
from utils.tokenization.tokenizer import check_vocabulary

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


def strange_characters(tokenizer, *texts: str) -> list[str]:
    """提示里不是词元的字，每个一次：一个字一个字地查，因为提示里的 ``[MASK]`` 只当普通文字。"""
    chars = list(dict.fromkeys("".join(texts)))
    return [c for c, i in zip(chars, tokenizer.convert_tokens_to_ids(chars), strict=True) if i == tokenizer.unk_token_id]


def check_model(model, tokenizer) -> None:
    """模型不是能写文章的 BertLMHeadModel，或者与分词器不是一对，就报错。"""
    if not (hasattr(model, "bert") and hasattr(model, "cls")):
        raise TypeError(f"这里用 BertLMHeadModel 写文章，得到的却是 {type(model).__name__}。")
    if not model.config.is_decoder:
        raise ValueError("这个模型的 is_decoder 不是 True：它看得见未来，学会的是照抄后文，不能用来逐字写作。"
                         "请用 BertLMHeadModel.from_pretrained（…，is_decoder=True） 载入为写作训练过的模型。")
    check_vocabulary(model, tokenizer)


def room_for(model, prompts: Sequence[list[int]], max_new_tokens: int | None) -> list[int]:
    """各行最多再写多少个词元；放不下就报错（ValueError）。"""
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
def evaluating(model):
    """暂时关掉 dropout，用完恢复原状。"""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class Writer:
    """一批正在写的文章：缓存、出现过的字、不许写的字。"""

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
        self.sep, self.written = tokenizer.sep_token_id, 0                 # written：已经写了几步
        self.seen = None                                                   # (B, V)：出现过的词元
        self.ids = None if how.no_repeat_ngram is None else ids            # (B, T)：已有的词元
        if how.repetition_penalty != 1:
            none = torch.zeros(self.decoder.logits.shape, dtype=torch.bool, device=device)
            self.seen = none.scatter(1, ids, True)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """重复惩罚、禁止重复的 n 元组，再去掉禁用的词元；没写够时也不许停。（B, V） -> (B, V)"""
        banned = self.banned
        if self.written < self.how.min_new_tokens:
            banned = banned.clone()
            banned[self.sep] = True
        return self.how.curb(logits, self.seen, self.ids).masked_fill(banned, -math.inf)

    def choose(self, u: torch.Tensor | None) -> torch.Tensor:
        """为每行挑一个词元，（B，）。"""
        scores = self.scores(self.decoder.logits)
        return scores.argmax(-1) if u is None else sample_next(self.how.filter(scores), u)

    def advance(self, tokens: torch.Tensor) -> None:
        """把 (B,) 接上去。"""
        if self.seen is not None:
            self.seen = self.seen.scatter(1, tokens[:, None], True)
        if self.ids is not None:
            self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.written += 1
        self.decoder.advance(tokens)

    def select(self, keep: torch.Tensor) -> None:
        """只留下（或重排）这些行。"""
        self.decoder.select(keep)
        if self.seen is not None:
            self.seen = self.seen[keep]
        if self.ids is not None:
            self.ids = self.ids[keep]


def _write_batch(model, tokenizer, prompts, rooms, how, u, stops, use_cache) -> list[list[int]]:
    """贪心或抽样。u: （B, 步数） 的随机数，贪心时是 None；stops: 写到第几个 [SEP] 停。返回各行新写的编号。"""
    writer = Writer(model, tokenizer, prompts, how, max(rooms), use_cache)
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
    writer = Writer(model, tokenizer, [prompt], how, room, use_cache)
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
def write(model, tokenizer, prompts: Sequence[list[int]], max_new_tokens: int | None, how: Decoding, stops: int,
          use_cache: bool, batch_size: int = 64) -> list[list[int]]:
    """写一批提示，返回各行新写的编号（含 [SEP]）。

    参数：
        prompts: 提示的编号；max_new_tokens、use_cache、batch_size: 同 utils.generation.generate。
        how: 怎样挑字；stops: 写到第几个 [SEP] 停（只写正文是 1，先写导语再写正文是 2）。
    首次实现：generation。
    """
    check_model(model, tokenizer)
    if not prompts:
        return []
    rooms = room_for(model, prompts, max_new_tokens)
    with evaluating(model):
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
