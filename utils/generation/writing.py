"""怎样把概率变成文章：一个字接一个字地写，成批地写，或者边写边看。

首次实现：generation。那里逐个手写并与 transformers 比对，这里是唯一的一份正式代码。
写作的引擎在 utils.generation.writer，挑字的办法在 utils.generation.decoding，KV 缓存在 utils.generation.kv_cache。
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from utils.generation.decoding import Decoding
from utils.generation.writer import Writer, check_model, encode_prompt, evaluating, room_for, strange_characters, write
from utils.tokenization.tokenizer import name_unknown

__all__ = ["Article", "Candidate", "Decoding", "Step", "complete", "encode_prompt", "generate", "stream"]


def generate(model, tokenizer, intros: Sequence[str], *, max_new_tokens: int | None = None,
             use_cache: bool = True, batch_size: int = 64, **how) -> list[str]:
    """读导语，写正文：``[CLS] 导语 [SEP]`` → 正文，写到 [SEP] 为止。导语里有词表之外的字，先打印一句话点名。

    参数：
        model: ``is_decoder=True`` 的 ``BertLMHeadModel``；tokenizer: 字符级分词器。
        intros: 导语的列表；成批计算（左填充），结果与一篇一篇写相同。
        max_new_tokens: 最多写多少个词元；None 表示写到位置只剩一格（留给 [SEP]）。
        use_cache: 是否用 KV 缓存；batch_size: 一批多少篇。
        **how: Decoding 的各项，例如 temperature=0.8, top_p=0.9, seed=1；什么都不写就是贪心。
    返回：
        正文的列表，与 intros 次序相同；不含特殊词元。
    异常：
        ValueError: 导语是空的、放不下、挑字的参数越界、模型不是 is_decoder，或模型与分词器不是一对。
        TypeError: intros 是单个字符串，或模型不是 BertLMHeadModel。
    首次实现：generation。
    """
    if isinstance(intros, str):
        raise TypeError("intros 应当是导语的列表；只有一条时写成 [导语]。")
    prompts = [encode_prompt(tokenizer, intro, "") for intro in intros]
    name_unknown(tokenizer, *strange_characters(tokenizer, *intros))
    written = write(model, tokenizer, prompts, max_new_tokens, Decoding(**how), 1, use_cache, batch_size)
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
    """接着一个开头往下写：先写完导语，过了 [SEP] 再写正文。开头里有词表之外的字，先打印一句话点名。

    参数：
        prefix: 开头，例如「今天是个」；其中若有换行，换行之前是写完的导语，之后是正文的开头。
        其余同 generate。
    返回：
        Article。异常：同 generate。
    首次实现：generation。
    """
    intro, newline, body = prefix.partition("\n") if isinstance(prefix, str) else (prefix, "", "")
    prompt, stops = encode_prompt(tokenizer, intro, body if newline else None), 1 if newline else 2
    name_unknown(tokenizer, *strange_characters(tokenizer, intro, body))
    ids = write(model, tokenizer, [prompt], max_new_tokens, Decoding(**how), stops, use_cache)[0]
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
           skip: int = 0, **how) -> Iterator[Step]:
    """与 complete 写得一样，但写一个字就交出一个 Step，带着当时的候选与概率。不支持束搜索，也不打印。

    参数：
        n_candidates: 每步列出概率最高的几个候选；真正写下的字若不在其中，排在最后。
        skip: 随机数跳过几个。从一篇的第 n 个字之后接着写时写 n，后面的字就与没有断开时一样。
        其余同 complete。
    返回：
        Step 的生成器。异常：同 generate；策略是 beam 时 ValueError。
    首次实现：generation。
    """
    check_model(model, tokenizer)
    choices = Decoding(**how)
    if choices.strategy == "beam":
        raise ValueError("束搜索要写完才知道选哪一篇，不能边写边看。请用贪心或抽样。")
    intro, newline, body = prefix.partition("\n") if isinstance(prefix, str) else (prefix, "", "")
    prompt = encode_prompt(tokenizer, intro, body if newline else None)
    room = room_for(model, [prompt], max_new_tokens)[0]
    return _stream(model, tokenizer, prompt, room, choices, "body" if newline else "intro", n_candidates, skip)


@torch.inference_mode()
def _stream(model, tokenizer, prompt, room, how, part, n_candidates, skip) -> Iterator[Step]:
    u = how.noise(1, skip + room)                                                      # (1, 步数)
    with evaluating(model):
        writer = Writer(model, tokenizer, [prompt], how, room, True)
        for step in range(room):
            scores = writer.scores(writer.decoder.logits)                              # (1, V)
            tokens = writer.choose(None if u is None else u[:, skip + step])
            p = writer.decoder.logits[0].float().softmax(-1)
            q = how.filter(scores)[0].float().softmax(-1)
            if u is None:
                q = torch.nn.functional.one_hot(tokens[0], len(p)).float()             # 贪心：百分之百选第一名
            top = p.masked_fill(writer.banned, -1).topk(n_candidates).indices.tolist()
            token = int(tokens)
            top = top if token in top else [*top[:-1], token]
            names = tokenizer.convert_ids_to_tokens(top)
            yield Step(tokenizer.convert_ids_to_tokens(token), part, float(p[token]), float(q[token]),
                       tuple(Candidate(n, float(p[i]), float(q[i])) for n, i in zip(names, top, strict=True)))
            if token == tokenizer.sep_token_id:
                if part == "body":
                    return
                part = "body"
            if step < room - 1:
                writer.advance(tokens)
