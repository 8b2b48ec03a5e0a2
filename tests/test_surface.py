"""字面写法：整数与日期的汉字写法，完整出现的判断。"""

import pytest

from utils.corpus.surface import chinese_number, surface_forms, written_at


@pytest.mark.parametrize("n, text", [
    (0, "零"), (2, "二"), (10, "十"), (12, "十二"), (20, "二十"), (22, "二十二"), (100, "一百"), (101, "一百零一"), (110, "一百一十"),
    (111, "一百一十一"), (200, "两百"), (212, "两百一十二"), (1002, "一千零二"), (1020, "一千零二十"), (2000, "两千"), (10000, "一万"),
    (10010, "一万零一十"), (20300, "两万零三百"), (23000, "两万三千"), (120000, "十二万"), (100001, "十万零一"),
    (99999999, "九千九百九十九万九千九百九十九"),
])
def test_chinese_numbers(n, text):
    assert chinese_number(n) == text


@pytest.mark.parametrize("n", [-1, 10**8])
def test_chinese_numbers_out_of_range(n):
    with pytest.raises(ValueError, match="0 到 99999999"):
        chinese_number(n)


def test_chinese_numbers_are_all_different():
    assert len({chinese_number(n) for n in range(30000)}) == 30000


def test_forms():
    assert surface_forms("12", "数量") == ["12", "十二"] and surface_forms("2", "数量") == ["2", "二", "两"]
    assert surface_forms("30000", "数量") == ["30000", "三万", "3万"]
    assert surface_forms("3月15日", "日期") == ["3月15日", "3月15号", "三月十五日", "三月十五号"]
    assert surface_forms("青禾雄鹰队", "队伍", "青禾队、雄鹰队") == ["青禾雄鹰队", "青禾队", "雄鹰队"]
    assert surface_forms("12", "事物") == ["12"] and surface_forms("-3", "数量") == ["-3"]


@pytest.mark.parametrize("form, text, places", [
    ("12", "120元，12元，312", [5]), ("十二", "二十二人，十二人，十二万", [5]), ("3月5日", "13月5日，3月5日", [6]),
    ("3万", "13万，3万人", [4]), ("青禾", "青禾与青禾", [0, 3]), ("3", "3.5元", [0]), ("$1", "一共$1", [2]), ("二", "星期二，二十", [2]),
])
def test_written_at(form, text, places):
    assert written_at(form, text) == places
