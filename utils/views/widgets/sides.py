"""注意力图的一栏或两栏：怎样读一句话，第二栏拿什么来比（第二个模型、第二句话，或算好的注意力）。"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from utils.analysis.reading import Attentions, get_attentions, merge_subwords, word_groups
from utils.display.fonts import visible
from utils.views.widgets.parts import drawn


@dataclass(frozen=True)
class Reader:
    """读一句话得到 Attentions 的办法：哪个模型、哪个分词器、合不合并子词。"""

    model: object
    tokenizer: object
    pair: str | None
    max_tokens: int
    merge: bool

    def __call__(self, text: str) -> Attentions:
        found = get_attentions(self.model, self.tokenizer, text, self.pair, self.max_tokens)
        return merge_subwords(found, word_groups(self.tokenizer, text, self.pair)) if self.merge else found


def _second(compare, first: Reader | None) -> tuple[Reader | None, str | None]:
    """compare 参数 -> (怎样读第二栏，第二栏自己的句子)；None 表示不用读或与第一栏同一句。"""
    if compare is None or isinstance(compare, Attentions):
        return None, None
    if first is None:
        raise ValueError("第一栏是算好的 attentions，没有模型：compare 也只能是算好的 Attentions。")
    if isinstance(compare, str):
        return first, compare
    if isinstance(compare, tuple) and len(compare) == 2:
        return replace(first, model=compare[0], tokenizer=compare[1]), None
    if isinstance(compare, torch.nn.Module):
        return replace(first, model=compare), None
    raise TypeError("compare 可以是第二个模型、(模型, 分词器)、第二句话，或算好的 Attentions，"
                    f"收到的是 {type(compare).__name__}。")


@dataclass(frozen=True)
class Sides:
    """一栏或两栏注意力，以及以后改了句子怎样重读。"""

    readers: tuple[Reader | None, Reader | None]
    own_text: str | None
    first: Attentions
    second: Attentions | None


def read_sides(model, tokenizer, text: str, pair: str | None, attentions: Attentions | None, max_tokens: int,
               subwords: str, compare) -> Sides:
    """按 AttentionWidget 的参数读好一栏或两栏。参数与错误同 AttentionWidget。"""
    if attentions is None and (model is None or tokenizer is None):
        raise ValueError("请给出 model 和 tokenizer，或者给出算好的 attentions。")
    if subwords not in ("keep", "merge"):
        raise ValueError(f"subwords 只能是 keep（保留子词）或 merge（合并成词），收到的是 {subwords!r}。")
    given = merge_subwords if subwords == "merge" else lambda found: found
    reader = None if attentions is not None else Reader(model, tokenizer, pair, max_tokens, subwords == "merge")
    other_reader, own_text = _second(compare, reader)
    first = reader(text) if reader else given(attentions)
    if other_reader is not None:
        second = other_reader(text if own_text is None else own_text)
    else:
        second = None if compare is None else given(compare)
    return Sides((reader, other_reader), own_text, first, second)


def unknown_notes(*sides: Attentions | None) -> str:
    """各栏里哪些字不在词表里：一样的只说一次，不一样的各占一行；都认识时是空串。"""
    return "\n".join(dict.fromkeys(drawn(side.note) for side in sides if side is not None and side.note))


def side_names(names, compare) -> list[str]:
    """两栏的名字；没有第二栏时是空列表，没有给名字时按 compare 的种类起。错误：ValueError：不是两个名字。"""
    if compare is None:
        return []
    if names is None:
        return {str: ["第一句", "第二句"], Attentions: ["左图", "右图"]}.get(type(compare), ["第一个模型", "第二个模型"])
    if isinstance(names, str) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise ValueError('names 要给两个名字，例如 ("随机", "练过的")。')
    return [visible(name) for name in names]
