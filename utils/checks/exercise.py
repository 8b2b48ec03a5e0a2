"""会诊断的练习：用新抽的随机输入和边角输入考答案；不对时，看它与哪一种常见误解的表现一样，就给出那一种的提示。

三种练习：Function 写一个函数，Value 填一个值（预测、实验的结果），Choice 选一个或几个选项。只是铺路石（plumbing）。
"""

from __future__ import annotations

import dis
import inspect
import linecache
import os
import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from utils.checks.compare import Difference, difference, show, size, snapshot, type_name
from utils.checks.ledger import record
from utils.checks.limits import TimeUp, run_limited
from utils.checks.verdict import OPEN, PASS, WRONG, CheckFailed, Verdict

SECONDS = 20.0                                            # 一次检查里，答案最多运行这么久


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


@dataclass(frozen=True)
class Outcome:
    """一次调用的结果：返回值 value，或者异常 error。"""

    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Trial:
    """一个输入上的一次考：args 是输入，expected 是参照的结果，actual 是答案的结果，changed 是被答案改动了的参数的名字。"""

    args: tuple
    expected: Outcome
    actual: Outcome
    changed: str | None = None


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
        key: "编号.名字"，例如 "05.clm_loss"；名字就是模块里的变量名，也是 check.名字(…) 的名字。
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


def _is_stub(function: Callable) -> bool:
    """函数体里除了说明和「...」什么也没有。"""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    quiet = {"RESUME", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "NOP", "POP_TOP", "CACHE"}
    constants = [c for c in code.co_consts if c is not None and c is not Ellipsis and c != function.__doc__]
    return not constants and all(i.opname in quiet for i in dis.get_instructions(code))


@dataclass(frozen=True)
class Function(Exercise):
    """写一个函数。

    属性：
        reference: 参照（用库或 utils 里已有的函数写，不抄 notebook 里的答案）；它的参数名会写在反例里。
        cases: cases(rng) 给出一串输入，每个是一个参数元组；rng 是 random.Random。边角的、小的输入也放在里面。
        observe: observe(函数, *参数) → 拿来比较的结果；None 就是 函数(*参数)。有随机性的函数在这里换成频率之类。
        rtol, atol: 比较浮点数的容差。
        may_change_input: 允许答案改动输入。
        seconds: 全部输入加起来，答案最多运行多少秒。
    """

    reference: Callable = field(kw_only=True)
    cases: Callable[[random.Random], Sequence[tuple]] = field(kw_only=True)
    observe: Callable | None = field(kw_only=True, default=None)
    rtol: float = field(kw_only=True, default=1e-4)
    atol: float = field(kw_only=True, default=1e-5)
    may_change_input: bool = field(kw_only=True, default=False)
    seconds: float = field(kw_only=True, default=SECONDS)

    def _run(self, function: Callable, args: tuple) -> tuple[Outcome, tuple]:
        """在输入的副本上运行一次，返回结果和运行之后的副本。"""
        mine = snapshot(args)
        try:
            value = self.observe(function, *mine) if self.observe else function(*mine)
        except (KeyboardInterrupt, TimeUp):
            raise
        except BaseException as error:                    # noqa: BLE001 答案里的 exit() 也要接住
            return Outcome(error=error), mine
        return Outcome(value), mine

    def _differs(self, a: Outcome, b: Outcome) -> Difference | None:
        if a.error or b.error:
            return None if type(a.error) is type(b.error) else Difference("异常", "")
        return difference(a.value, b.value, self.rtol, self.atol)

    def _names(self) -> list[str]:
        return list(inspect.signature(self.reference).parameters)

    def _trial(self, answer: Callable, args: tuple) -> Trial:
        expected, _ = self._run(self.reference, args)
        actual, after = self._run(answer, args)
        pairs = zip(self._names(), args, after, strict=False)
        changed = next((name for name, old, new in pairs if difference(old, new, 0, 0)), None)
        return Trial(args, expected, actual, None if self.may_change_input else changed)

    def judge(self, answer: Any, seed: int) -> Verdict:
        if answer is None or answer is Ellipsis or _is_stub(answer):
            raise Undone
        if not callable(answer):
            return Verdict(self.key, WRONG, "类型", f"这里要交一个函数，交上来的是{type_name(answer)}。",
                           "是不是写成了「函数名(…)」？交函数本身，不要加括号。")
        cases = [tuple(case) for case in self.cases(random.Random(seed))]
        if not self.observe and (problem := self._arity(answer, cases[0])):
            return problem
        trials: list[Trial] = []

        def all_cases() -> None:
            for args in cases:
                trials.append(self._trial(answer, args))
                error = trials[-1].actual.error
                if trials[-1].actual.value is Ellipsis or isinstance(error, NotImplementedError):
                    raise Undone

        try:
            run_limited(all_cases, self.seconds)
        except TimeUp:
            args = cases[min(len(trials), len(cases) - 1)]
            return Verdict(self.key, WRONG, "超时", f"运行了 {self.seconds:g} 秒还没有结束，已经把它停下。多半是循环停不下来。",
                           "循环的条件什么时候变成假？循环里有没有哪一步让它离结束更近？", (("停在这个输入上", self._inputs(args)),))
        return self._conclude(trials)

    def _arity(self, answer: Callable, args: tuple) -> Verdict | None:
        try:
            inspect.signature(answer).bind(*args)
        except TypeError:
            wanted = "、".join(self._names())
            return Verdict(self.key, WRONG, "参数", f"检查时会传 {len(args)} 个参数（{wanted}），你的函数收不下。",
                           "题目里函数的第一行是怎样写的？参数的个数和次序要照它写。")
        except ValueError:                                # 有的内建函数查不到参数表
            return None
        return None

    def _conclude(self, trials: list[Trial]) -> Verdict:
        failing = [t for t in trials if self._differs(t.expected, t.actual)]
        if not failing:
            changed = next((t for t in trials if t.changed), None)
            if changed:
                hint = f"返回值是对的，可是它改动了传进来的 {changed.changed}。调用它的人还要用原来的值。"
                return Verdict(self.key, WRONG, "改动输入", hint, "哪一行在原来的对象上就地修改？怎样先得到一份新的？",
                               (("例如这个输入", self._inputs(changed.args)),))
            return Verdict(self.key, PASS, hint=f"{len(trials)} 个随机与边角的输入都对上了。")
        smallest = min(failing, key=lambda t: size(t.args))
        for mistake in self.mistakes:
            if mistake.sign(trials) if mistake.sign else self._looks_like(mistake, trials):
                return self._wrong(mistake, self._example(smallest))
        return self._unnamed(smallest)

    def _looks_like(self, mistake: Mistake, trials: list[Trial]) -> bool:
        """这种误解在每个输入上的表现，是不是都与答案一样。"""
        return all(not self._differs(self._run(mistake.wrong, t.args)[0], t.actual) for t in trials)

    def _unnamed(self, trial: Trial) -> Verdict:
        """不像任何一种已知的误解：按异常、类型、形状……说明。"""
        error, example = trial.actual.error, self._example(trial)
        if error is not None:
            hint = f"运行时报错了，{type(error).__name__}：{error}"
            return Verdict(self.key, WRONG, "异常", hint, "报错说的是哪一行、哪个量？把那一行单独拿出来，用上面的输入试一试。", example)
        if trial.expected.error is not None:
            return Verdict(self.key, WRONG, "其他", f"这个输入应当报错（{type(trial.expected.error).__name__}），它却没有报错。",
                           self.ask, example)
        if trial.actual.value is None and trial.expected.value is not None:
            return Verdict(self.key, WRONG, "类型", "函数返回了 None。", "是不是漏写了 return？", example)
        found = self._differs(trial.expected, trial.actual)
        if found.kind in ("类型", "形状", "dtype", "设备", "长度"):
            return Verdict(self.key, WRONG, found.kind, f"{found.text}。", self.ask, example)
        return Verdict(self.key, WRONG, "其他", "有的输入上算得不对，而且不像我们见过的哪一种错。", self.ask, example)

    def _inputs(self, args: tuple) -> str:
        return "\n".join(f"{name} = {show(value)}" for name, value in zip(self._names(), args, strict=False))

    def _example(self, trial: Trial) -> tuple[tuple[str, str], ...]:
        rows = [("最小的反例", self._inputs(trial.args))]
        expected, actual = trial.expected, trial.actual
        rows.append(("应当得到", f"报错 {type(expected.error).__name__}" if expected.error else show(expected.value)))
        if actual.error is not None:
            rows.append(("你的得到", f"报错 {type(actual.error).__name__}: {actual.error}"))
            rows.append(("报错的地方", trace(actual.error)))
        else:
            rows.append(("你的得到", show(actual.value)))
        if trial.changed:
            rows.append(("另外", f"它改动了传进来的 {trial.changed}。"))
        return tuple(rows)


def trace(error: BaseException) -> str:
    """学习者自己的那几行报错：从进入他的代码算起，去掉检查程序的部分。"""
    here = os.path.dirname(os.path.abspath(__file__))
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if os.path.dirname(os.path.abspath(f.filename)) != here] or frames[-1:]
    if len(own) > 6:
        own = [*own[:3], *own[-3:]]
    lines = []
    for frame in own:
        text = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        lines.append(f"{frame.name} 第 {frame.lineno} 行：{text}")
    return "\n".join(lines + [f"{type(error).__name__}: {error}"])


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
