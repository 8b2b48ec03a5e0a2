"""练习的公共部分：常见误解、检查一个答案的流程（保住学习者的随机数状态、记进度、严格模式）。只是铺路石（plumbing）。"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from utils.checks.framework.ledger import record
from utils.checks.framework.verdict import OPEN, WRONG, CheckFailed, Verdict


class Undone(Exception):
    """答案还没有写。"""


@dataclass(frozen=True)
class Mistake:
    """一种常见的误解。

    属性：
        name: 短名，例如 "没有错位"。
        wrong: 这样误解的人会交的答案：Function 是一个函数，Value 是一个值，Choice 是字母。测试会拿它来考：必须得到这条提示。
        hint: 这个答案实际做了什么（不说正确答案）。
        ask: 引导的问题。
        sign: 认出它的办法；None 表示与 wrong 的表现相同就算。Function 的 sign 收到 list[Trial]，Value 的 sign 收到答案；返回真假。
    """

    name: str
    wrong: Any
    hint: str
    ask: str
    sign: Callable[[Any], bool] | None = None


class _FreshRandom:
    """检查前后，学习者那边的随机数状态不变。"""

    def __enter__(self):
        self.saved = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def __exit__(self, *_):
        random.setstate(self.saved[0])
        np.random.set_state(self.saved[1])
        torch.set_rng_state(self.saved[2])


@dataclass(frozen=True)
class Exercise:
    """一道练习的公共部分。

    属性：
        key: "题目.名字"，例如 "objectives.clm_loss"；名字就是模块里的变量名，也是 check.名字(…) 的名字。
        mistakes: 至少三种常见误解，排在前面的先认。
        ask: 哪一种误解都不像时，问的引导问题。
    """

    key: str
    mistakes: tuple[Mistake, ...] = field(kw_only=True)
    ask: str = field(kw_only=True)

    def judge(self, answer: Any, seed: int) -> Verdict:
        raise NotImplementedError

    def __call__(self, answer: Any, *, seed: int | None = None) -> Verdict:
        """检查一个答案，记下进度，返回结果（在 notebook 里会显示出来）。

        参数：
            answer: 学习者的答案。
            seed: 输入的随机种子；None 表示每次都换新的。
        """
        with _FreshRandom():
            try:
                verdict = self.judge(answer, random.SystemRandom().getrandbits(32) if seed is None else seed)
            except Undone:
                verdict = Verdict(self.key, OPEN, hint=f"练习 {self.key}。写好上面一格里的「...」，运行它，再运行这一格。")
        if verdict.status != OPEN:
            record(self.key, verdict.passed, verdict.kind)
        if os.environ.get("COURSE_CHECK_STRICT") == "1" and not verdict.passed:
            raise CheckFailed(str(verdict))
        return verdict

    def _wrong(self, mistake: Mistake, evidence: Sequence[tuple[str, str]] = ()) -> Verdict:
        return Verdict(self.key, WRONG, mistake.name, mistake.hint, mistake.ask, tuple(evidence))
