"""utils.corpus.numerals：读法正确，题目与答案对得上，练习和考试不撞题。"""

import re
from datetime import date

import pytest

from utils.corpus.numerals import DIGITS, LARGEST, make_pairs, read_number

VALUES = {c: n for n, c in enumerate(DIGITS)} | {"两": 2, "〇": 0}


def parse(text: str) -> int:
    """另写的一个读数器：先按万分两段，每段里数字乘单位。"""
    if "万" in text:
        high, _, low = text.partition("万")
        return parse(high) * 10000 + (parse(low) if low else 0)
    total, digit = 0, 0
    for c in text:
        if c in "十百千":
            total += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[c]
            digit = 0
        else:
            digit = VALUES[c]
    return total + digit


@pytest.mark.parametrize("n, text", [
    (0, "零"), (10, "十"), (15, "十五"), (20, "二十"), (110, "一百一十"), (203, "二百零三"), (1203, "一千二百零三"), (2000, "二千"),
    (2002, "二千零二"), (3050, "三千零五十"), (10000, "一万"), (10010, "一万零一十"), (20005, "二万零五"), (12345, "一万二千三百四十五"),
    (100000, "十万"), (160500, "十六万零五百"), (20000000, "二千万"), (10203040, "一千零二十万三千零四十")])
def test_readings(n, text):
    assert read_number(n) == text


def test_liang_is_only_before_thousand_and_ten_thousand():
    assert read_number(2222, liang=True) == "两千二百二十二"
    assert read_number(20002, liang=True) == "两万零二"
    assert read_number(122000, liang=True) == "十二万两千"
    assert read_number(20200, liang=True) == "两万零二百"


@pytest.mark.parametrize("liang", [False, True])
def test_every_reading_parses_back(liang):
    for n in [*range(3000), *range(3000, LARGEST, 7919 * 13)]:
        text = read_number(n, liang)
        assert parse(text) == n and "零零" not in text and not (text.endswith("零") and n)


def test_out_of_range_is_refused():
    for n in (-1, LARGEST + 1):
        with pytest.raises(ValueError, match="只会读"):
            read_number(n)


def spoken_minutes(source: str) -> int:
    when, hour, tail = re.fullmatch(r"(凌晨|上午|下午|晚上)(.+)点(.*)", source).groups()
    hours = parse(hour) + (12 if when in ("下午", "晚上") and parse(hour) != 12 else 0)
    minutes = {"整": 0, "": 0, "半": 30}.get(tail)
    return 60 * hours + (parse(tail.rstrip("分")) if minutes is None else minutes)


def test_answers_follow_from_the_questions():
    for pair in make_pairs("train", 4000, seed=5) + make_pairs("test", 1000, seed=5):
        if pair.kind == "日期":
            year, month, day = re.fullmatch(r"(.{4})年(.+)月(.+)[日号]", pair.source).groups()
            number = int("".join(str(VALUES[c]) for c in year))
            assert date(number, parse(month), parse(day)).isoformat() == pair.target
        elif pair.kind == "时刻":
            minutes = spoken_minutes(pair.source)
            assert f"{minutes // 60:02d}:{minutes % 60:02d}" == pair.target
        elif pair.kind == "整数":
            assert str(parse(pair.source)) == pair.target
        else:
            whole, _, tenth = pair.source.removeprefix("百分之").partition("点")
            assert pair.target == f"{parse(whole)}{'.' + str(VALUES[tenth]) if tenth else ''}%"


def test_splits_share_no_answer_and_seeds_differ():
    train, test = make_pairs("train", 8000, seed=1), make_pairs("test", 2000, seed=1)
    assert not {p.target for p in train} & {p.target for p in test}
    assert not {p.source for p in train} & {p.source for p in test}
    assert {p.kind for p in test} == {"日期", "时刻", "整数", "百分数"}
    assert make_pairs("train", 50, seed=1) == train[:50] and make_pairs("train", 50, seed=2) != train[:50]
    assert make_pairs("train", 0) == []


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="train 或 test"):
        make_pairs("dev", 3)
    with pytest.raises(ValueError, match="正数"):
        make_pairs("train", -1)
