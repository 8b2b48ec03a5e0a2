"""填一个值、选几个选项的练习：预测、实验的结果、解释一幅图。不会显示正确的值。只是铺路石（plumbing）。"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.checks.framework.base import Exercise, Mistake, Undone
from utils.checks.framework.compare import difference, show, type_name
from utils.checks.framework.verdict import PASS, WRONG, Verdict


@dataclass(frozen=True)
class Value(Exercise):
    """填一个值：运行之前的预测、实验的结果、找一个例子。给出 expected（或算出它的函数），或者给出 accept。

    不会显示正确的值。

    属性：
        expected: 正确的值，或不带参数、算出它的函数。
        accept: accept(答案) → 对不对；有它就不看 expected。
        form: 答案应当是什么样，例如 "一个数"；类型不对时会说。
        check_form: 检查样子的函数，返回真假；None 时与 expected 的类型比。
        rtol, atol: 容差。
    """

    expected: Any = field(kw_only=True, default=None)
    accept: Callable[[Any], bool] | None = field(kw_only=True, default=None)
    form: str = field(kw_only=True, default="一个数")
    check_form: Callable[[Any], bool] | None = field(kw_only=True, default=None)
    rtol: float = field(kw_only=True, default=1e-2)
    atol: float = field(kw_only=True, default=1e-9)

    def judge(self, answer: Any, seed: int) -> Verdict:
        if answer is None or answer is Ellipsis or isinstance(answer, Sequence) and any(a is Ellipsis for a in answer):
            raise Undone
        if isinstance(answer, dict) and any(a is Ellipsis for a in answer.values()):
            raise Undone
        mine = (("你的答案", show(answer)),)
        expected = self.expected() if callable(self.expected) else self.expected
        try:
            formed = self.check_form(answer) if self.check_form else self.accept or _same_form(expected, answer)
            right = bool(formed) and (self.accept(answer) if self.accept else not difference(expected, answer, self.rtol, self.atol))
        except Exception as error:                        # noqa: BLE001 样子古怪的答案
            hint = f"读不懂这个答案（{type(error).__name__}: {error}）。应当是{self.form}。"
            return Verdict(self.key, WRONG, "类型", hint, self.ask, mine)
        if right:
            return Verdict(self.key, PASS)
        for mistake in self.mistakes:
            if self._is(mistake, answer):
                return self._wrong(mistake, mine)
        if not formed:
            return Verdict(self.key, WRONG, "类型", f"答案应当是{self.form}，交上来的是{type_name(answer)}。", self.ask, mine)
        return Verdict(self.key, WRONG, "其他", "还不对，而且不像我们见过的哪一种错。", self.ask, mine)

    def _is(self, mistake: Mistake, answer: Any) -> bool:
        try:
            return bool(mistake.sign(answer)) if mistake.sign else not difference(mistake.wrong, answer, self.rtol, self.atol)
        except Exception:                                 # noqa: BLE001 sign 遇到样子古怪的答案：那就不是它
            return False


def _same_form(expected: Any, answer: Any) -> bool:
    found = difference(expected, answer)
    return found is None or found.kind not in ("类型", "形状", "长度", "dtype")


@dataclass(frozen=True)
class Choice(Exercise):
    """选择题：解释一幅图、判断一个说法。答案是一个或几个字母，例如 "B" 或 "AC"。每个误解的 wrong 是错选的字母。

    属性：
        right: 正确的字母。
        options: 全部字母，例如 "ABCD"。
    """

    right: str = field(kw_only=True)
    options: str = field(kw_only=True, default="ABCD")

    def judge(self, answer: Any, seed: int) -> Verdict:
        if answer is None or answer is Ellipsis or isinstance(answer, str) and answer.strip() in ("", "..."):
            raise Undone
        if isinstance(answer, list | tuple | set):
            answer = "".join(map(str, answer))
        letters = "".join(sorted({c for c in str(answer).upper() if c.isalnum()}))
        if not letters or not isinstance(answer, str) or not set(letters) <= set(self.options):
            many = "，可以不止一个" if len(self.right) > 1 else ""
            return Verdict(self.key, WRONG, "类型", f"答案应当是 {self.options[0]} 到 {self.options[-1]} 里的字母{many}。", "",
                           (("你的答案", show(answer)),))
        if letters == "".join(sorted(self.right)):
            return Verdict(self.key, PASS)
        for mistake in self.mistakes:
            if mistake.sign(letters) if mistake.sign else "".join(sorted(mistake.wrong)) == letters:
                return self._wrong(mistake, (("你选的", letters),))
        return Verdict(self.key, WRONG, "其他", "还不对。", self.ask, (("你选的", letters),))
