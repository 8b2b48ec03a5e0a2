"""整理函数（collator）的外壳：记得自己是哪种目标、怎样设置、用的哪张字表。

记着目标和设置，中断之后才认得出「还是不是同一次训练」（utils/training/resume.py）；记着字表，模型拿到别人的批时才报得出错。
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerFast

from utils.tokenization.tokenizer import vocabulary_id


class Collator:
    """整理函数：把几行变成一批。照常调用，另外说得出自己的目标、设置和字表。

    参数：
        function: 真正干活的函数，几行 → {名字: 张量 (B, …)}。
        tokenizer: 行里的编号属于哪个分词器。
        objective: 目标的名字，例如 "MLM"。
        **settings: 目标的设置，名字 → 值，例如 遮盖率=0.4；有一项不同，就是另一次训练。None 是没有设，不算。
    属性：
        vocabulary_id, vocabulary_size: 字表的指纹和大小，见 utils.tokenization.check_vocabulary。
    """

    def __init__(self, function: Callable, tokenizer: PreTrainedTokenizerFast, objective: str, **settings):
        self.function, self.objective = function, objective
        self.settings = {name: value for name, value in settings.items() if value is not None}
        self.vocabulary_id, self.vocabulary_size = vocabulary_id(tokenizer), len(tokenizer)

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        return self.function(rows)

    def __str__(self) -> str:
        details = "，".join(f"{name} {value}" for name, value in self.settings.items())
        return self.objective + (f"（{details}）" if details else "")


class Batches(list):
    """排好的批，记得它们是用哪张字表编的（来自 Collator；别的整理函数没有这一项）。"""

    def __init__(self, batches: Sequence[dict], collate: Callable):
        super().__init__(batches)
        if isinstance(collate, Collator):
            self.vocabulary_id, self.vocabulary_size = collate.vocabulary_id, collate.vocabulary_size


def describe(collate: Callable) -> str:
    """一个整理函数是什么目标、怎样设置：两次训练的说法相同，才算同一次。

    参数：
        collate: Collator 说得出自己；学习者自己写的函数，看它的代码、默认值和用到的外面的值。
    """
    if isinstance(collate, Collator):
        return str(collate)
    name = getattr(collate, "__qualname__", type(collate).__name__)
    return f"{name} {hashlib.sha256(repr(_trace(collate)).encode()).hexdigest()[:8]}"


def _trace(value):
    """把代码和值变成可以比较的样子；内存地址这样每次都变的东西不算。"""
    if isinstance(value, str | int | float | bytes | None):
        return value
    if isinstance(value, list | tuple):
        return [_trace(item) for item in value]
    if isinstance(value, dict):
        return [(str(key), _trace(item)) for key, item in value.items()]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, _trace(value.co_consts)]
    if isinstance(value, functools.partial):
        return [_trace(value.func), _trace(value.args), _trace(value.keywords)]
    if isinstance(value, types.MethodType):
        return [_trace(value.__func__), _trace(value.__self__)]
    if isinstance(value, types.FunctionType):
        outside = [cell.cell_contents for cell in value.__closure__ or () if cell.cell_contents is not value]
        return [value.__qualname__, _trace(value.__code__), _trace(value.__defaults__), _trace(value.__kwdefaults__), _trace(outside)]
    if isinstance(value, Collator):
        return str(value)
    if type(value).__module__ == "__main__" and callable(value):              # 自己写的类：看它的 __call__ 和各项设置
        return [type(value).__name__, _trace(type(value).__call__), _trace(vars(value))]
    return type(value).__name__
