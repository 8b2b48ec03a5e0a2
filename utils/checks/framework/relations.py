"""不像任何一种已知的误解时，再看一眼：答案与应得的结果之间，有没有一种说得清的关系。只是铺路石（plumbing）。

只说「你的结果是应得的什么」，例如相反数、转置、几倍；怎样改，留给学习者想。
"""

from __future__ import annotations

import dis
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.checks.framework.compare import show


class Relation(NamedTuple):
    """一种关系：name 是短名，hint 说答案做了什么，ask 是引导的问题。"""

    name: str
    hint: str
    ask: str


def numbers(value: Any) -> torch.Tensor | None:
    """数、张量、数组、数的（嵌套）列表 → float64 张量；别的东西是 None。"""
    try:
        if isinstance(value, torch.Tensor):
            return value.detach().to("cpu", torch.float64)             # meta 张量没有数，会报错
        if isinstance(value, str | bytes | dict | set) or value is None:
            return None
        array = np.array(value.tolist() if isinstance(value, np.ndarray) else value)
        return torch.from_numpy(array.astype(np.float64)) if array.dtype.kind in "biuf" else None
    except Exception:                                     # noqa: BLE001 长短不齐的列表、古怪的对象
        return None


def unused(function: Callable, names: Sequence[str]) -> list[str]:
    """答案里从来没有用到的参数。names 是题目里参数的名字，按位置对应；看不出来就是空的。"""
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & 0x0C:              # *args、**kwargs：说不清
        return []
    used = set(code.co_cellvars)
    for step in dis.get_instructions(code):
        if step.opname.startswith(("LOAD", "DELETE", "STORE_FAST_LOAD")):
            used |= set(step.argval) if isinstance(step.argval, tuple) else {step.argval}
    own = code.co_varnames[:code.co_argcount]
    return [name for name, mine in zip(names, own, strict=False) if mine not in used]


def where_different(expected: Any, actual: Any, rtol: float, atol: float) -> str:
    """几个数里错了几个，第一个错在哪里。比不了的、只有一个数的，是空的。"""
    a, b = numbers(expected), numbers(actual)
    if a is None or b is None or a.shape != b.shape or a.numel() < 2:
        return ""
    wrong = ~torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    at = tuple(wrong.nonzero()[0].tolist()) if bool(wrong.any()) else None
    if at is None:
        return ""
    place = "、".join(map(str, at))
    return f"{a.numel()} 个数里错了 {int(wrong.sum())} 个。第一个在下标 [{place}]：应当是 {a[at].item():.6g}，你的是 {b[at].item():.6g}"


def find(pairs: Sequence[tuple[Any, Any, tuple]], function: Callable, names: Sequence[str],
         rtol: float, atol: float) -> Relation | None:
    """pairs 是每个输入的（应得的，得到的，参数）。返回第一种在全部输入上都成立的关系；没有就是 None。"""
    values = [(numbers(e), numbers(a)) for e, a, _ in pairs]
    if any(e is None or a is None or e.shape != a.shape for e, a in values):
        return _unused(function, names)
    tries = (_not_a_number, _unchanged, _opposite, _moved, _shifted, _times, _mapped)
    for attempt in tries:
        if relation := attempt(pairs, values, rtol, atol):
            return relation
    return _unused(function, names) or _scaled_each(pairs, values, rtol, atol) or _sums(pairs, values, rtol, atol)


def _all(values, rtol, atol, turn: Callable) -> bool:
    """turn(应得的) 在每个输入上都等于得到的。"""
    return all(e.shape == (t := turn(e)).shape and torch.allclose(t, a, rtol=rtol, atol=atol) for e, a in values)


def _unused(function, names) -> Relation | None:
    if found := unused(function, names):
        return Relation("参数没有用上", f"你的函数从来没有用到参数 {'、'.join(found)}。", "题目为什么要把它给你？它该在哪一步起作用？")
    return None


def _not_a_number(pairs, values, rtol, atol) -> Relation | None:
    if any(bool((a.isnan() & ~e.isnan()).any()) for e, a in values):
        return Relation("出现了 NaN", "结果里有 NaN（不是一个数）。",
                        "0 除以 0、0 乘无穷大、对负数开方或取对数、整行都是负无穷再做 softmax，都会这样。你的代码里会碰上哪一种？")
    if any(bool((a.isinf() & ~e.isinf()).any()) for e, a in values):
        return Relation("出现了无穷大", "结果里有无穷大。",
                        "除以 0、对 0 取对数、填进去的负无穷没有消掉，都会这样。你的代码里会碰上哪一种？")
    return None


def _unchanged(pairs, values, rtol, atol) -> Relation | None:
    for place in range(len(pairs[0][2])):
        inputs = [numbers(args[place]) for _, _, args in pairs]
        if all(x is not None and x.dim() and x.shape == a.shape and torch.equal(x, a) for x, (_, a) in zip(inputs, values, strict=True)):
            return Relation("原样还了回去", f"返回的就是传进来的第 {place + 1} 个参数，一个数也没有变。", "题目要你对它做什么？")
    return None


def _opposite(pairs, values, rtol, atol) -> Relation | None:
    if all(_is_truth(e) for e, _, _ in pairs) and _all(values, 0, 0, lambda e: 1 - e):
        return Relation("真假相反", "每一处的真假都正好反了。", "题目里「真」表示什么？你的条件说的是它，还是它的反面？")
    if _all(values, rtol, atol, torch.neg):
        return Relation("正负号反了", "你的结果正好是应得的相反数。", "公式里有没有负号？谁减谁？")
    return None


def _is_truth(value) -> bool:
    return isinstance(value, bool) or isinstance(value, torch.Tensor) and value.dtype == torch.bool


def _moved(pairs, values, rtol, atol) -> Relation | None:
    if all(e.dim() > 1 for e, _ in values) and _all(values, rtol, atol, lambda e: e.transpose(-1, -2)):
        return Relation("行列颠倒", "数都在，可是行和列正好换了位置。", "第 i 行第 j 列，该是谁对谁？")
    depth = min(e.dim() for e, _ in values)
    for dim in range(-1, -depth - 1, -1):
        if _all(values, rtol, atol, lambda e, dim=dim: e.flip(dim)):
            return Relation("次序倒了", "数都在，可是前后正好倒了过来。", "第 0 个该是谁？")
    if depth and _all([(e.flatten().sort().values, a.flatten().sort().values) for e, a in values], rtol, atol, lambda e: e):
        return Relation("次序不对", "数都对，次序（或摆放的位置）不对。", "题目规定的次序是什么？拿最小的反例，一个一个对一对位置。")
    return None


def _shifted(pairs, values, rtol, atol) -> Relation | None:
    gaps = torch.cat([(a - e).flatten() for e, a in values])
    if len(gaps) > 1 and abs(one := round(float(gaps.median()))) == 1 and torch.allclose(gaps, torch.full_like(gaps, one), atol=atol):
        return Relation("总是差一", f"你的每个数都比应得的{'大' if one > 0 else '小'} 1。",
                        "从 0 数起，还是从 1 数起？两端算不算在内？")
    return None


def _ratios(e, a, atol) -> torch.Tensor | None:
    """逐个相除；应得 0 的地方，得到的也要是 0。"""
    at = e.abs() > atol
    if not bool(at.any()) or bool((a[~at].abs() > 10 * atol).any()):
        return None
    return (a[at] / e[at]).flatten()


def _times(pairs, values, rtol, atol) -> Relation | None:
    found = [_ratios(e, a, atol) for e, a in values]
    if any(r is None for r in found):
        return None
    ratios = torch.cat(found)
    r = float(ratios.median())
    if len(ratios) < 2 or abs(r) < 1e-9 or not torch.allclose(ratios, torch.full_like(ratios, r), rtol=10 * rtol, atol=0):
        return None
    if any(math.isclose(r, x, rel_tol=10 * rtol) for x in (math.log(2), 1 / math.log(2))):
        return Relation("对数的底不对", f"你的结果总是应得的 {r:.4g} 倍，与应得的差一个 ln 2。",
                        "题目要的单位是奈特还是比特？你用的对数以几为底？")
    if math.isclose(r, 100, rel_tol=10 * rtol):
        return Relation("成了百分数", "你的结果总是应得的 100 倍。", "题目要的是比例，还是百分数？")
    return Relation("差一个倍数", f"你的结果总是应得的 {r:.4g} 倍，换什么输入都一样。", "哪一步多乘了、少乘了一个固定的数？")


MAPS = (("指数没有去掉", "你的结果是应得的取了 e 的指数。", "题目要的是损失（熵）本身，还是由它换算的困惑度？", torch.exp),
        ("多取了一次对数", "你的结果是应得的再取自然对数。", "题目要的是概率（个数）本身，还是它的对数？", torch.log),
        ("成了 2 的指数", "你的结果是 2 的「应得的」次方。", "题目要的是比特数本身，还是由它换算的困惑度？", torch.exp2),
        ("成了另一半", "你的结果与应得的加起来总是 1。", "你算的是这一部分占几成，还是剩下的那一部分？", lambda e: 1 - e),
        ("分子分母颠倒", "你的结果是应得的倒数。", "谁除以谁？", torch.reciprocal),
        ("多平方了一次", "你的结果是应得的平方。", "哪一步该开方，或者不该平方？", torch.square),
        ("多开了一次方", "你的结果是应得的平方根。", "哪一步不该开方，或者该平方？", torch.sqrt))


def _mapped(pairs, values, rtol, atol) -> Relation | None:
    for name, hint, ask, turn in MAPS:
        if sum(a.numel() for _, a in values) > 1 and _all(values, rtol, atol, turn):
            return Relation(name, hint, ask)
    return None


def _sums(pairs, values, rtol, atol) -> Relation | None:
    """应得的每一行加起来是 1（softmax、概率），得到的却不是。"""
    def ones(x, dim) -> bool:
        total = x.sum(dim)
        return torch.allclose(total, torch.ones_like(total), atol=1e-3)

    if not all(e.dim() > 1 and ones(e, -1) for e, _ in values) or all(ones(a, -1) for _, a in values):
        return None
    for dim, words in [(-2, "每一列"), (0, "沿最前面的一维")]:
        if all(ones(a, dim) for _, a in values):
            return Relation("沿错了维", f"你的结果里，{words}加起来是 1；应当每一行加起来是 1。",
                            "一个词元的权重分给谁？要在哪一维上加起来是 1？")
    if all(a.min() >= 0 and a.max() <= 1 and math.isclose(float(a.sum()), float(a.sum().round()), abs_tol=1e-3) for _, a in values):
        return Relation("沿错了维", "每一行加起来不是 1，要把几行的数合在一起才是整数。", "softmax 是沿哪一维、在哪些数里归一的？")
    worst = next(a for _, a in values if not ones(a, -1)).sum(-1).flatten()[:3]
    return Relation("每行之和不是 1", f"每一行加起来应当是 1，你的前几行是 {show(worst.float()).split('[')[-1].rstrip(']')}。",
                    "归一化做了没有？做完以后，又有哪一步改动了它？")


def _scaled_each(pairs, values, rtol, atol) -> Relation | None:
    """每个输入里都是同一个倍数，换一个输入倍数就变。"""
    found = [_ratios(e, a, atol) for e, a in values]
    if any(r is None or len(r) < 2 or not torch.allclose(r, r[:1].expand_as(r), rtol=10 * rtol, atol=0) for r in found):
        return None
    shown = "、".join(f"{float(r[0]):.4g}" for r in found[:4])
    return Relation("倍数随输入变", f"同一个输入里，你的每个数都是应得的同一个倍数；几个输入的倍数依次是 {shown}。",
                    "这个倍数跟着输入的哪个大小（长度、宽度、个数）走？哪一步该乘（除）以它？")
