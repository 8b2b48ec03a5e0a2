"""在一个名字空间里运行一道练习的答案和它的检查：测试拿参考答案来跑，批改拿学生的答案来跑。只是铺路石（plumbing）。"""

from __future__ import annotations

import importlib
import linecache
from typing import Any

from utils.checks.framework import Exercise, trace
from utils.checks.framework.verdict import WRONG, Verdict


def load_module(topic: str):
    """题目 "objectives" → utils.checks.objectives。"""
    return importlib.import_module(f"utils.checks.{topic}")


def exercises(module) -> dict[str, Exercise]:
    """一个练习模块里的全部练习：名字 → 练习。"""
    return {name: value for name, value in vars(module).items() if isinstance(value, Exercise)}


def execute(code: str, names: dict[str, Any], title: str) -> None:
    """在 names 里运行一段代码；报错时看得见是哪一行。"""
    filename = f"<{title}>"
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    exec(compile(code, filename, "exec"), names)          # noqa: S102 运行学习者的代码正是目的


def namespace(parts: list[str], module, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """答案要用的名字：在 names（None 表示空的）里依次运行 cells.definitions 给的各段；有一段不能运行就跳过它。check 总是 module。"""
    names = {"__name__": "__main__"} if names is None else names
    for number, part in enumerate(parts):
        try:
            execute(part, names, f"定义 {number}")
        except Exception:                                 # noqa: BLE001 用到了没有运行的格子里的名字，或学生写错的草稿
            continue
    names["check"] = module
    return names


def run_answer(code: str, check: str, names: dict[str, Any], key: str) -> Verdict:
    """运行一段答案，再运行它的检查。

    参数：
        code: 答案的代码，代替留空的那一格。
        check: 检查的一格，例如 "check.clm_loss(my_clm_loss)"。
        names: namespace 给的名字空间；会被改动。
        key: 哪道题，例如 "objectives.clm_loss"。
    返回：
        Verdict；答案本身就运行不了，也是「还不对」。
    """
    check_module = names.get("check")
    try:
        execute(code, names, f"练习 {key}")
        names["check"] = check_module                     # 答案若自己定义了一个 check，不算数
        return eval(compile(check, "<检查>", "eval"), names)                   # noqa: S307 同上
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:                        # noqa: BLE001
        return Verdict(key, WRONG, "异常", f"这一格本身运行不了，{type(error).__name__}：{error}", "先让这一格单独运行通过。",
                       (("报错的地方", trace(error)),))
