"""写一个函数的练习：用新抽的随机输入和边角输入考它；不对时，看它与哪一种误解的表现一样。只是铺路石（plumbing）。"""

from __future__ import annotations

import dis
import inspect
import io
import linecache
import os
import random
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from utils.checks.framework.base import Exercise, Mistake, Undone
from utils.checks.framework.compare import Difference, difference, show, size, snapshot, type_name
from utils.checks.framework.gloss import gloss
from utils.checks.framework.limits import TimeUp, run_limited
from utils.checks.framework.relations import find, numbers, where_different
from utils.checks.framework.verdict import PASS, WRONG, Verdict

PRINTED = 2000                                            # 答案打印的字，最多放出这么多
SECONDS = 20.0                                            # 一次检查里，答案最多运行这么久


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


class _Brief(io.TextIOBase):
    """答案打印的东西只放出开头：一次检查要调用它好几次，循环里的 print 会淹没提示。"""

    def __init__(self, stream) -> None:
        self.stream, self.left = stream, PRINTED

    def write(self, text: str) -> int:
        if self.left > 0:
            self.stream.write(text[:self.left])
            self.left -= len(text)
            if self.left <= 0:
                self.stream.write("\n……（打印得太多，后面的不显示了）\n")
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


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
            with redirect_stdout(_Brief(sys.stdout)):
                run_limited(all_cases, self.seconds)
        except TimeUp:
            args = cases[min(len(trials), len(cases) - 1)]
            return Verdict(self.key, WRONG, "超时", f"运行了 {self.seconds:g} 秒还没有结束，已经把它停下。多半是循环停不下来。",
                           "循环的条件什么时候变成假？循环里有没有哪一步让它离结束更近？", (("停在这个输入上", self._inputs(args)),))
        return self._conclude(answer, trials)

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

    def _conclude(self, answer: Callable, trials: list[Trial]) -> Verdict:
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
        return self._unnamed(answer, trials, smallest)

    def _looks_like(self, mistake: Mistake, trials: list[Trial]) -> bool:
        """这种误解在每个输入上的表现，是不是都与答案一样。"""
        return all(not self._differs(self._run(mistake.wrong, t.args)[0], t.actual) for t in trials)

    def _unnamed(self, answer: Callable, trials: list[Trial], trial: Trial) -> Verdict:
        """不像任何一种已知的误解：按异常、类型、形状……说明，再看它与应得的结果有没有说得清的关系。"""
        error, example = trial.actual.error, self._example(trial)
        if error is not None:
            plain = gloss(error)
            hint = f"运行时报错了，{type(error).__name__}：{str(error)[:300]}" + (f"\n{plain}" if plain else "")
            return Verdict(self.key, WRONG, "异常", hint, "报错说的是哪一行、哪个量？把那一行单独拿出来，用上面的输入试一试。", example)
        if trial.expected.error is not None:
            return Verdict(self.key, WRONG, "其他", f"这个输入应当报错（{type(trial.expected.error).__name__}），它却没有报错。",
                           self.ask, example)
        if trial.actual.value is None and trial.expected.value is not None:
            return Verdict(self.key, WRONG, "类型", "函数返回了 None。", "是不是漏写了 return？", example)
        found = self._differs(trial.expected, trial.actual)
        if found.kind in ("类型", "dtype", "设备"):
            said, asked = f"{found.text}。", "题目要的返回值是什么样的？你最后一步得到的又是什么样的，差一步怎样的转换？"
            if self._same_numbers(trial):
                said = "数都对，只是样子不同：" + said
            return Verdict(self.key, WRONG, found.kind, said, asked, example)
        if found.kind in ("形状", "长度"):
            return Verdict(self.key, WRONG, found.kind, f"{found.text}。", self.ask, example)
        broken = any(t.expected.error or t.actual.error for t in trials)
        pairs = [(t.expected.value, t.actual.value, t.args) for t in trials]
        relation = None if broken else find(pairs, answer, self._names(), self.rtol, self.atol)
        if relation:
            return Verdict(self.key, WRONG, relation.name, relation.hint, relation.ask, example)
        failing = sum(self._differs(t.expected, t.actual) is not None for t in trials)
        said = f"{len(trials)} 个输入里有 {failing} 个算得不对，而且不像我们见过的哪一种错。"
        return Verdict(self.key, WRONG, "其他", said, self.ask, example)

    def _same_numbers(self, trial: Trial) -> bool:
        a, b = numbers(trial.expected.value), numbers(trial.actual.value)
        return a is not None and b is not None and a.shape == b.shape and not difference(a, b, self.rtol, self.atol)

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
            if not expected.error and (where := where_different(expected.value, actual.value, self.rtol, self.atol)):
                rows.append(("哪里不同", where))
        if trial.changed:
            rows.append(("另外", f"它改动了传进来的 {trial.changed}。"))
        return tuple(rows)


def trace(error: BaseException) -> str:
    """学习者自己的那几行报错：从进入他的代码算起，去掉检查程序的部分。"""
    checks = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))                         # 这个文件夹里的，都是检查程序
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not os.path.abspath(f.filename).startswith(checks + os.sep)] or frames[-1:]
    if len(own) > 6:
        own = [*own[:3], *own[-3:]]
    lines = []
    for frame in own:
        text = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        lines.append(f"{frame.name} 第 {frame.lineno} 行：{text}")
    return "\n".join(lines + [f"{type(error).__name__}: {error}"])
