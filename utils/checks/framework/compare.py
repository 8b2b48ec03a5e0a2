"""比较两个值、复制输入、把值写成给人看的字。检查练习时用；只是铺路石（plumbing）。"""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

import numpy as np
import torch

MAX_SHOWN = 24                                            # 张量、列表最多写出这么多个元素
MAX_TEXT = 300


@dataclass(frozen=True)
class Difference:
    """两个值第一处不同：kind 是 "类型"、"形状"、"dtype"、"设备"、"长度"、"值" 之一，text 是一句话。"""

    kind: str
    text: str


def _number(value: Any) -> bool:
    """普通的数：int、float、numpy 标量、只有一个元素的 0 维张量；bool 不算。"""
    if isinstance(value, torch.Tensor):
        return value.dim() == 0 and value.dtype != torch.bool
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _truth(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dim() == 0 and value.dtype == torch.bool
    return isinstance(value, bool | np.bool_)


def type_name(value: Any) -> str:
    """类型的名字，例如「张量」「列表」「int」「函数」。"""
    names = {torch.Tensor: "张量", list: "列表 list", tuple: "元组 tuple", dict: "字典 dict", set: "集合 set", str: "字符串 str",
             bytes: "字节串 bytes", type(None): "None", np.ndarray: "numpy 数组", GeneratorType: "生成器（函数里写的是 yield 吗）"}
    for kind, name in names.items():
        if isinstance(value, kind):
            return name
    return "函数" if callable(value) else type(value).__name__


def _tensors(expected: torch.Tensor, actual: torch.Tensor, rtol: float, atol: float) -> Difference | None:
    if expected.shape != actual.shape:
        return Difference("形状", f"形状应当是 {tuple(expected.shape)}，得到的是 {tuple(actual.shape)}")
    if expected.dtype != actual.dtype:
        return Difference("dtype", f"dtype 应当是 {expected.dtype}，得到的是 {actual.dtype}")
    if expected.device.type != actual.device.type:
        return Difference("设备", f"张量应当在 {expected.device.type} 上，得到的在 {actual.device.type} 上")
    a, b = expected.detach(), actual.detach()
    close = torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True) if a.is_floating_point() else a == b
    return None if bool(close.all()) else Difference("值", "数值不同")


def difference(expected: Any, actual: Any, rtol: float = 1e-4, atol: float = 1e-5) -> Difference | None:
    """expected 与 actual 第一处不同在哪里；相同则 None。

    张量要形状、dtype、设备、数值都相同；0 维张量与普通的数、列表与元组、numpy 数组与同样内容的列表不作区分。

    参数：
        expected, actual: 要比的两个值；可以是数、布尔、字符串、字节串、张量、None，以及它们组成的列表、元组、字典、集合。
        rtol, atol: 相对与绝对容差（浮点数）。
    """
    if isinstance(expected, torch.Tensor) and expected.dim() > 0:
        if not isinstance(actual, torch.Tensor):
            return Difference("类型", f"应当是张量，得到的是{type_name(actual)}")
        return _tensors(expected, actual, rtol, atol)
    if isinstance(expected, np.ndarray | np.generic):
        expected = expected.tolist()
    if isinstance(actual, np.ndarray | np.generic):
        actual = actual.tolist()
    if _truth(expected) or _truth(actual):
        if not (_truth(expected) and _truth(actual)):
            return Difference("类型", f"应当是{type_name(expected)}，得到的是{type_name(actual)}")
        return None if bool(expected) == bool(actual) else Difference("值", "真假相反")
    if _number(expected):
        if not _number(actual):
            shape = f"（形状 {tuple(actual.shape)}）" if isinstance(actual, torch.Tensor) else ""
            return Difference("类型", f"应当是一个数，得到的是{type_name(actual)}{shape}")
        a, b = float(expected), float(actual)
        same = a == b or math.isclose(a, b, rel_tol=rtol, abs_tol=atol) or math.isnan(a) and math.isnan(b)
        return None if same else Difference("值", "数值不同")
    return _containers(expected, actual, rtol, atol)


def _containers(expected: Any, actual: Any, rtol: float, atol: float) -> Difference | None:
    kinds = ((str, str), (bytes, bytes), (Mapping, Mapping), (Set, Set), (Sequence, Sequence))
    for kind, wanted in kinds:
        if isinstance(expected, kind):
            texts = isinstance(actual, str | bytes) and kind is Sequence
            if not isinstance(actual, wanted) or texts:
                return Difference("类型", f"应当是{type_name(expected)}，得到的是{type_name(actual)}")
            break
    else:
        return None if type(expected) is type(actual) and expected == actual else Difference(
            "类型" if type(expected) is not type(actual) else "值", f"应当是{type_name(expected)}，得到的是{type_name(actual)}")
    if isinstance(expected, str | bytes | Set):
        return None if expected == actual else Difference("值", "内容不同")
    if isinstance(expected, Mapping):
        if expected.keys() != actual.keys():
            return Difference("值", "字典的键不同")
        pairs = [(f"键 {key!r} 处", expected[key], actual[key]) for key in expected]
    else:
        if len(expected) != len(actual):
            return Difference("长度", f"长度应当是 {len(expected)}，得到的是 {len(actual)}")
        pairs = [(f"第 {i} 个（从 0 数起）", a, b) for i, (a, b) in enumerate(zip(expected, actual, strict=True))]
    for where, a, b in pairs:
        found = difference(a, b, rtol, atol)
        if found:
            return Difference(found.kind, f"{where}：{found.text}")
    return None


def snapshot(value: Any) -> Any:
    """深复制一份，答案怎样改它都不影响原件。"""
    return copy.deepcopy(value)


def size(value: Any) -> int:
    """一个输入有多大：元素的个数。挑最小的反例时用。"""
    if isinstance(value, torch.Tensor | np.ndarray):
        return max(1, int(np.prod(value.shape)))
    if isinstance(value, str | bytes):
        return max(1, len(value))
    if isinstance(value, Mapping):
        return 1 + sum(size(v) for v in value.values())
    if isinstance(value, Sequence | Set):
        return 1 + sum(size(v) for v in value)
    return 1


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "……"


def show(value: Any) -> str:
    """把一个值写成给人看的字：张量写出形状和内容，太长就只写开头。显示不了的也不会报错。"""
    try:
        return _show(value)
    except Exception as error:                            # noqa: BLE001 学习者的对象，__repr__ 也可能是坏的
        return f"<{type(value).__name__}，显示不出来：{type(error).__name__}>"


def _show(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        if value.device.type == "meta":
            return f"meta 张量，形状 {tuple(value.shape)}"
        if value.dim() == 0:
            return f"{value.item():.6g}" if value.is_floating_point() else str(value.item())
        kind = "" if value.dtype in (torch.float32, torch.int64, torch.bool) else f"，{value.dtype}"
        head = f"张量 {'×'.join(map(str, value.shape))}{kind}"
        if value.numel() <= MAX_SHOWN:
            return f"{head} {_nested(value.detach().tolist())}"
        return f"{head}，开头是 {_nested(value.detach().flatten()[:6].tolist())[:-1]}, ……]"
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    if isinstance(value, list | tuple) and len(value) > MAX_SHOWN:
        return f"{type_name(value)}，长 {len(value)}，开头是 {_clip(_nested(list(value[:6]))[:-1])}, ……]"
    if isinstance(value, torch.nn.Module):
        return f"模型 {type(value).__name__}"
    if callable(value):
        return f"{type_name(value)} {getattr(value, '__name__', '')}".strip()
    return _clip(_nested(value))


def _nested(value: Any) -> str:
    if isinstance(value, bool):
        return "真" if value else "假"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_nested, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_nested, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, torch.Tensor | np.ndarray):
        return _show(torch.as_tensor(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_nested(v)}" for k, v in value.items()) + "}"
    return repr(value)
