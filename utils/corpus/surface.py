"""字面写法：同一件事实，正文里可以有哪几种写法。

整数 12 也可以写成「十二」，3月5日 也可以写成「3月5号」或「三月五日」，词表里用属性 `又=` 列出的别名也算数。
"""

from __future__ import annotations

import re

NUMERALS = "零一二三四五六七八九"
DATE = re.compile(r"(\d{1,2})月(\d{1,2})日")


def chinese_number(n: int) -> str:
    """把 0 到 99,999,999 的整数写成汉字，例如 12 → 十二，20300 → 两万零三百。

    异常：
        ValueError: 超出范围。
    """
    if not 0 <= n < 10**8:
        raise ValueError(f"只会写 0 到 99999999 的整数，得到 {n}。")
    if n >= 10**4:
        head = "两" if n // 10**4 == 2 else chinese_number(n // 10**4)
        rest = n % 10**4
        return head + "万" + ("" if rest == 0 else ("零" if rest < 1000 else "") + _below_ten_thousand(rest, False))
    return NUMERALS[0] if n == 0 else _below_ten_thousand(n, True)


def _below_ten_thousand(n: int, first: bool) -> str:
    text, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // unit % 10
        if digit == 0:
            gap = bool(text)
            continue
        text += "零" if gap else ""
        gap = False
        leading = first and not text
        if unit == 10 and digit == 1 and leading:
            text += name                              # 十二，不说一十二
        else:
            text += ("两" if digit == 2 and unit >= 100 else NUMERALS[digit]) + name
    return text


def surface_forms(value: str, kind: str, aliases: str | None = None) -> list[str]:
    """一件事实允许的全部写法，第一个就是语料自己的写法。

    参数：
        value: 值，例如 "12"、"3月5日"、"青禾雄鹰队"。
        kind: 类型，"数量"、"日期" 有别的写法，其余只看别名。
        aliases: 别名，用顿号隔开。
    """
    forms = [value]
    if kind == "数量" and value.isdigit() and int(value) < 10**8:
        forms.append(chinese_number(int(value)))
        if value == "2":
            forms.append("两")
        if int(value) >= 10**4 and int(value) % 10**4 == 0:
            forms.append(f"{int(value) // 10**4}万")
    elif kind == "日期" and (found := DATE.fullmatch(value)):
        month, day = map(int, found.groups())
        forms += [f"{month}月{day}号", *(f"{chinese_number(month)}月{chinese_number(day)}{mark}" for mark in "日号")]
    return forms + (aliases.split("、") if aliases else [])


CHINESE_DIGITS = "零一二两三四五六七八九十百千万"


def written_at(form: str, text: str) -> list[int]:
    """form 在 text 里完整出现的位置：12 不算出现在 120 里，十二 不算出现在 二十二 里。"""
    for digits in ("0123456789", CHINESE_DIGITS):
        if form[0] in digits:
            after = f"(?![{digits}])" if form[-1] in digits else ""
            return [found.start() for found in re.finditer(f"(?<![{digits}]){re.escape(form)}{after}", text)]
    return [found.start() for found in re.finditer(re.escape(form), text)]
