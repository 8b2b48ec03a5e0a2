"""一个小而真的任务：把中文写的日期、时刻、整数、百分数改写成阿拉伯数字。题目全由代码生成。

例：二〇二六年三月五日 → 2026-03-05；下午三点半 → 15:30；一千二百零三 → 1203；百分之三点五 → 3.5%。
"""

from __future__ import annotations

import calendar
import random
import zlib
from dataclasses import dataclass

DIGITS = "零一二三四五六七八九"
UNITS = ("", "十", "百", "千")
LARGEST = 10**8 - 1


@dataclass(frozen=True)
class Pair:
    """一道题。属性：kind：「日期」「时刻」「整数」「百分数」之一；source：中文写法；target：规范写法。"""

    kind: str
    source: str
    target: str


def read_number(n: int, liang: bool = False) -> str:
    """把整数读成中文：1203 → 一千二百零三，15 → 十五，20005 → 二万零五。

    参数：n:0 到 99,999,999；liang：True 时，千、万前面的「二」读作「两」。
    返回：中文写法。错误：ValueError:n 超出范围。
    """
    if not 0 <= n <= LARGEST:
        raise ValueError(f"只会读 0 到 {LARGEST} 的整数，收到的是 {n}。")
    high, low = divmod(n, 10000)
    text = ""
    if high:
        text = ("两" if liang and high == 2 else _below_ten_thousand(high, liang)) + "万"
        if 0 < low < 1000:
            text += "零"                     # 万后面的千位空着，要读一个零：二万零五
    if low or not high:
        text += _below_ten_thousand(low, liang)
    return text[1:] if text.startswith("一十") else text


def _below_ten_thousand(n: int, liang: bool) -> str:
    """0 到 9999：中间连着几个零只读一个，末尾的零不读。"""
    text, gap = "", False
    for place in (3, 2, 1, 0):
        digit = n // 10**place % 10
        if digit == 0:
            gap = bool(text)
            continue
        word = "两" if liang and digit == 2 and place == 3 else DIGITS[digit]
        text += ("零" if gap else "") + word + UNITS[place]
        gap = False
    return text or "零"


def _date(rng: random.Random) -> Pair:
    year, month = rng.randint(1950, 2049), rng.randint(1, 12)
    day = rng.randint(1, calendar.monthrange(year, month)[1])
    zero, end = rng.choice("〇零"), rng.choice("日号")
    spoken = "".join(zero if c == "0" else DIGITS[int(c)] for c in str(year))
    return Pair("日期", f"{spoken}年{read_number(month)}月{read_number(day)}{end}", f"{year}-{month:02d}-{day:02d}")


def _time(rng: random.Random) -> Pair:
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    when = "凌晨" if hour < 5 else "上午" if hour < 12 else "下午" if hour < 18 else "晚上"
    clock = hour - 12 if hour > 12 else hour
    spoken = "两" if clock == 2 else read_number(clock)
    if minute == 0:
        tail = rng.choice(("整", ""))
    elif minute == 30 and rng.random() < 0.5:
        tail = "半"
    else:
        tail = ("零" if minute < 10 else "") + read_number(minute) + "分"
    return Pair("时刻", f"{when}{spoken}点{tail}", f"{hour:02d}:{minute:02d}")


def _integer(rng: random.Random) -> Pair:
    digits = [0 if rng.random() < 0.3 else rng.randint(1, 9) for _ in range(rng.randint(1, 5))]   # 零多一些：难在零上
    n = int("".join(map(str, digits)))
    return Pair("整数", read_number(n, liang=rng.random() < 0.5), str(n))


def _percent(rng: random.Random) -> Pair:
    whole, tenth = rng.randrange(10 ** rng.randint(1, 3)), rng.randint(0, 9)
    if tenth == 0:
        return Pair("百分数", f"百分之{read_number(whole)}", f"{whole}%")
    return Pair("百分数", f"百分之{read_number(whole)}点{DIGITS[tenth]}", f"{whole}.{tenth}%")


MAKERS = {"日期": _date, "时刻": _time, "整数": _integer, "百分数": _percent}


def is_test(target: str) -> bool:
    """这个答案归测试集吗？由答案的校验和决定，约占一成；同一个答案的各种写法总在同一边，所以练习和考试不会撞题。"""
    return zlib.crc32(target.encode()) % 10 == 0


def make_pairs(split: str, count: int, seed: int = 0) -> list[Pair]:
    """随机出题，四类轮流，题目可能重复。

    参数：split:"train" 或 "test"；count：多少道；seed：随机种子。
    返回：长度 count 的列表；两个 split 的答案没有交集。错误：ValueError:split 不对，或 count 是负数。
    首次实现：transformer。
    """
    if split not in ("train", "test"):
        raise ValueError(f"split 只能是 train 或 test，收到的是 {split!r}。")
    if count < 0:
        raise ValueError(f"count 要是 0 或正数，收到的是 {count}。")
    rng, makers, pairs = random.Random(f"{split} {seed}"), list(MAKERS.values()), []
    while len(pairs) < count:
        pair = makers[len(pairs) % len(makers)](rng)
        if is_test(pair.target) == (split == "test"):
            pairs.append(pair)
    return pairs
