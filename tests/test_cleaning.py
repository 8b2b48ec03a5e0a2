"""清洗：每一步的正例与反例、幂等，以及整个数据集的报告。查重的算法在 test_dedup.py。"""

import random
import re
import string
import unicodedata
from functools import partial
from pathlib import Path

import pytest
from datasets import Dataset, Features, Value

from utils.corpus.news import generate
from utils.display import tables as text_table
from utils.sources import characters
from utils.sources.characters import normalize_width, reveal, squeeze_space, strip_invisible, to_simplified
from utils.sources.cleaning import DEFAULT_STEPS, LABELS, clean, is_chinese, length_ok
from utils.sources.dedup import exact_duplicates, near_duplicates

REWRITES = (normalize_width, strip_invisible, to_simplified, squeeze_space, partial(squeeze_space, join_han=True))
ZWJ, EMOJI_STYLE = "\u200d", "\ufe0f"


# ---------------------------------------------------------------- 全角与半角


@pytest.mark.parametrize("before, after", [
    ("ＡＢＣ公司２０２４年增长５０％", "ABC公司2024年增长50%"),
    ("ｘ＋ｙ＝１，＃标签＠某人，￥３．５／斤", "x+y=1，#标签@某人，¥3.5/斤"),
    ("＂＇＆＊－＜＞＼＾＿｀｜￠￡￢￤￦", "\"'&*-<>\\^_`|¢£¬¦₩"),
    ("全角　空格", "全角 空格"),
    ("｡｢半角｣､ｶﾀｶﾅ･ｶﾞ", "。「半角」、カタカナ・ガ"),
    ("⼀⽇千⾥", "一日千里"),                                            # 部首块
    ("\uf9b5子，\ufa10", "例子，塚"),                                    # 兼容汉字
    ("︵竖排︶︐︽书名︾︒小号﹐逗号﹗", "（竖排），《书名》。小号，逗号！"),
    ("ha\u0300n zi\u0300", "h\u00e0n z\u00ec"),                          # 分开写的声调
])
def test_width_is_unified(before, after):
    assert normalize_width(before) == after


def test_every_full_width_letter_and_digit():
    half = string.ascii_letters + string.digits
    assert normalize_width("".join(chr(ord(c) + 0xFEE0) for c in half)) == half


@pytest.mark.parametrize("text", [
    "中文标点，全角的：不动；对吗？对！（是）、《书》“引号”～〔注〕［1］", "省略号……与破折号——",
    "①②③ ㈠ ㊣", "一百㎡，3㎏", "㈱", "½ 杯", "10² 米", "2024年12月", "㍿", "ﬁ", "ABC abc 123 ,.:;?!",
])
def test_width_leaves_alone(text):
    assert normalize_width(text) == text


def test_why_not_plain_nfkc():
    """直接 NFKC 确实会弄坏这些；万一哪天不会了，说明书里的例子就要改。"""
    broken = {"…": "...", "：": ":", "，": ",", "①": "1", "㎡": "m2", "㈱": "(株)", "½": "1⁄2", "10²": "102"}
    for text, nfkc in broken.items():
        assert unicodedata.normalize("NFKC", text) == nfkc and normalize_width(text) == text


# ---------------------------------------------------------------- 看不见的字符


@pytest.mark.parametrize("code", [
    0x00, 0x08, 0x1B, 0x7F, 0x9F, 0xAD, 0x034F, 0x061C, 0x115F, 0x180B, 0x180E, 0x200B, 0x200C, 0x200D, 0x200E, 0x202E, 0x2060,
    0x2069, 0x3164, 0xE000, 0xF8FF, 0xD800, 0xFDD0, 0xFE00, 0xFE0F, 0xFEFF, 0xFFA0, 0xFFF9, 0xFFFE, 0xE0041, 0xE0100, 0xF0000, 0x10FFFF,
])
def test_invisible_goes(code):
    assert strip_invisible(f"汉{chr(code)}字") == "汉字"


@pytest.mark.parametrize("text", ["汉字，abc 123", "第一段\n第二段", "解码出错\ufffd了", "é à ü", "한국어", "かな"])
def test_visible_stays(text):
    assert strip_invisible(text) == text


def test_every_control_and_format_character_of_the_bmp_goes():
    left = [f"U+{i:04X}" for i in range(0x10000) if unicodedata.category(chr(i)) in ("Cc", "Cf", "Co", "Cs")
            and strip_invisible(f"汉{chr(i)}字") not in ("汉字", "汉\n字", "汉 字")]
    visible = {"U+0600", "U+0601", "U+0602", "U+0603", "U+0604", "U+0605", "U+06DD", "U+070F", "U+0890", "U+0891", "U+08E2"}
    assert set(left) <= visible                            # 剩下的只有阿拉伯文、叙利亚文里看得见的记号


def test_line_breaks_and_tabs():
    assert strip_invisible("甲\r\n乙\r丙\x0b丁\x0c戊\x85己\u2028庚\u2029辛\t壬") == "甲\n乙\n丙\n丁\n戊\n己\n庚\n辛 壬"


@pytest.mark.parametrize("emoji", [
    ZWJ.join("👨👩👧"), f"👩🏽{ZWJ}💻", f"❤{EMOJI_STYLE}{ZWJ}🔥", f"🏳{EMOJI_STYLE}{ZWJ}🌈", f"1{EMOJI_STYLE}\u20e3", "©\ufe0e", "🇨🇳",
    "🏴" + "".join(chr(0xE0000 + ord(c)) for c in "gbeng") + "\U000e007f",
])
def test_emoji_are_not_taken_apart(emoji):
    text = f"汉{emoji}字{emoji}{emoji}"
    assert strip_invisible(text) == text


def test_joiners_outside_emoji_go():
    assert strip_invisible(f"汉{ZWJ}字👨{ZWJ}字{ZWJ}👩") == "汉字👨字👩"
    assert strip_invisible("🏴\U000e0068\U000e0069") == "🏴"           # 没有结束符的标签不是旗


# ---------------------------------------------------------------- 繁体转简体


@pytest.mark.parametrize("before, after", [
    ("乾隆年間，氣候乾燥", "乾隆年间，气候干燥"), ("乾坤與乾淨", "乾坤与干净"), ("乾縣的餅乾", "乾县的饼干"),
    ("頭髮與發展", "头发与发展"), ("理髮師發現了", "理发师发现了"), ("皇后在後面", "皇后在后面"), ("幹部與樹幹", "干部与树干"),
    ("北京公里，裡面三里", "北京公里，里面三里"), ("天台上看臺灣", "天台上看台湾"), ("答覆與恢復與複雜", "答复与恢复与复杂"),
    ("這部著作很著名", "这部著作很著名"), ("著名學者編著的專著", "著名学者编著的专著"), ("他著有《紅樓夢》研究", "他著有《红楼梦》研究"),
    ("看著書，聽著歌，沿著路走", "看着书，听着歌，沿着路走"), ("執著而沈著", "执着而沉着"), ("藉著機會，憑藉實力", "借着机会，凭借实力"),
    ("慰藉與狼藉這兩個詞", "慰藉与狼藉这两个词"), ("他們討論著這本論著", "他们讨论着这本论著"), ("討論著作的價值", "讨论著作的价值"),
    ("老師看著作業，指著名單", "老师看着作业，指着名单"),
    ("土著居民顯著增加", "土著居民显著增加"), ("於是他走了", "于是他走了"), ("瞭望塔下瞭解情況", "瞭望塔下了解情况"),
])
def test_traditional_to_simplified(before, after):
    assert to_simplified(before) == after


@pytest.mark.parametrize("text", [
    "乾隆皇帝", "著名的著作", "陕西乾县的王乾", "乾清宫", "宫商角徵羽", "芸薹属", "毕昇发明活字印刷", "是么", "瞭望塔", "慰藉", "苧烯",
    "头发的发展", "坏人破坏了系统", "看著", "English only", "", "①……：㎡", "\x00汉\x00",
])
def test_simplified_is_left_alone(text):
    assert to_simplified(text) == text


def test_known_limit_of_names():
    assert to_simplified("徐乾學") == "徐干学"                           # 说明书里写明的错；若改对了，也请改说明书


def test_lone_surrogate_is_explained():
    with pytest.raises(ValueError, match="strip_invisible"):
        to_simplified("漢\ud800")


# ---------------------------------------------------------------- 空白


@pytest.mark.parametrize("before, after", [
    ("  首尾 \n", "首尾"), ("a \u00a0\u2003  b", "a b"), ("用 BERT 模型", "用 BERT 模型"), ("用BERT模型", "用BERT模型"),
    ("句号。 逗号 ， 括号（ 内 ）", "句号。逗号，括号（内）"), ("一段 \n\n 　 二段", "一段\n二段"), ("“a” — “b” …", "“a” — “b” …"),
    ("某市初雪 某镇积雪", "某市初雪 某镇积雪"),
])
def test_squeeze_space(before, after):
    assert squeeze_space(before) == after


def test_join_han():
    assert squeeze_space("通 知 用 BERT\n模 型", join_han=True) == "通知用 BERT\n模型"
    assert squeeze_space("一 二 三", join_han=True) == "一二三"


# ---------------------------------------------------------------- 筛选


def test_length_counts_non_space():
    assert length_ok("一二三四 五\n六七八九十") and not length_ok("一二三四 五\n六七八九 ")
    assert length_ok("一二三", 3, 3) and not length_ok("一二三四", 3, 3) and not length_ok("一二", 3, 3)


@pytest.mark.parametrize("text", [
    "今天是个好日子。", "使用 HuggingFace Transformers 训练模型", "2024年1月1日 10:30:00 气温 -3.5℃",
    "優の良品在這條街上開業了", "繁體中文也是中文", "𠮷野家",
])
def test_chinese_is_kept(text):
    assert is_chinese(text) is True


@pytest.mark.parametrize("text", [
    "This is an English sentence.", "东京 is the capital of Japan, said the guide", "東京は日本の首都です。", "ﾆﾎﾝ語",
    "カタカナだけ", "대한민국의 수도는 서울", "", "12345 ！？", "Привет, мир",
])
def test_other_languages_are_not(text):
    assert is_chinese(text) is False


@pytest.mark.parametrize("char", "々〇㐀一龥\uf900𠮷\U00030000")
def test_every_block_of_han_counts(char):
    assert is_chinese(char)


def test_language_shares():
    assert is_chinese("一 a", min_han=0.5) and not is_chinese("一 a", min_han=0.51)
    assert is_chinese("一二三四五六七八九の", max_kana=0.1) and not is_chinese("一二三四五六七八九の", max_kana=0.09)


# ---------------------------------------------------------------- 共同的性质


@pytest.mark.parametrize("step", REWRITES)
def test_rewrites_are_idempotent(step):
    alphabet = ("漢字頭髮發展乾著藉沈於徵縣隆论看名作業《ＡＢ１％　，。：…①㎡ｶﾞﾟ⼀\uf9b5︵a1# \n\r\t🏴👨👩🏽❤"
                "\u0300\u200b\u200d\ufe0f\ufeff\x00\x85\u20e3\U000e0067\U000e007f")
    rng = random.Random(5)
    texts = ["".join(rng.choices(alphabet, k=rng.randint(1, 12))) for _ in range(20000)]
    texts += [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000 and unicodedata.category(chr(i)) != "Cn"]
    bad = [text for text in texts if step(step(text)) != step(text)]
    assert not bad, [reveal(text) for text in bad[:5]]


@pytest.mark.parametrize("step", [*REWRITES[:4], length_ok, is_chinese])
@pytest.mark.parametrize("value", [None, 3, b"bytes", ["列表"]])
def test_non_str_is_explained(step, value):
    with pytest.raises(ValueError, match=f"{step.__name__} 要的是一段文字.*{type(value).__name__}"):
        step(value)


@pytest.mark.parametrize("call, words", [
    (lambda: length_ok("字", -1), "min_chars"), (lambda: length_ok("字", 5, 4), "5 和 4"), (lambda: length_ok("字", 1.5), "整数"),
    (lambda: is_chinese("字", 1.2), "min_han.*1.2"), (lambda: is_chinese("字", max_kana=True), "max_kana.*True"),
])
def test_bad_options_are_explained(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_no_invisible_character_in_the_sources():
    """源码里的特殊字符都写成 \\u 的样子，读得出来；表情里的除外。"""
    for name in ("utils/sources/characters.py", "utils/sources/cleaning.py", "utils/sources/dedup.py", "tests/test_cleaning.py"):
        text = (Path(characters.__file__).parents[2] / name).read_text(encoding="utf-8")
        assert strip_invisible(text) == text, name


# ---------------------------------------------------------------- 整个数据集


@pytest.fixture
def dirty():
    long = "昨天下午，本市举行了一场足球比赛，主队以二比一获胜，观众超过三千人。"
    return Dataset.from_dict({
        "id": list("abcdefgh"),
        "title": ["Ａ队获胜", "标题", "标题", "标题", "标题", "标题", "另一个标题", "标题"],
        "body": [long, "頭髮\u200b很長的學生在看著一本書。", "太短", "All of this document is in English.",
                 "東京は日本の首都です。とても大きい。", long.replace("，", "， "), long[:-1] + "左右。",
                 "今天\x00的天气很好，适合出门散步。"],
        "n": range(8)})


def test_default_pipeline(dirty):
    out, report = clean(dirty)
    assert out["id"] == ["a", "b", "h"] and out["n"] == [0, 1, 7]
    assert out["title"][0] == "A队获胜"
    assert out["body"][1:] == ["头发很长的学生在看着一本书。", "今天的天气很好，适合出门散步。"]
    assert out.features == dirty.features and out.column_names == dirty.column_names
    counts = {s.name: (s.docs_in, s.docs_rewritten, s.docs_removed, s.chars_removed) for s in report.steps}
    assert counts == {
        "normalize_width": (8, 1, 0, 0), "strip_invisible": (8, 2, 0, 2), "to_simplified": (8, 2, 0, 0), "squeeze_space": (8, 1, 0, 3),
        "length_ok": (8, 0, 1, 2 + 2), "is_chinese": (7, 0, 2, 2 + 35 + 2 + 18), "exact_duplicates": (5, 0, 1, 2 + 34),
        "near_duplicates": (4, 0, 1, 5 + 36)}                             # 删去的字符是标题加正文
    assert (report.docs_in, report.docs_out) == (8, 3)


def test_report_prints_a_table(dirty):
    text = str(clean(dirty)[1])
    lines = text.splitlines()
    assert lines[0] == "清洗：进入 8 篇，留下 3 篇。"
    assert lines[1].split() == ["步骤", "做什么", "进入篇数", "改写篇数", "删去篇数", "少了几个字符"]
    table = lines[1:2 + len(DEFAULT_STEPS)]
    assert len({text_table.width(line) for line in table}) == 1           # 每行一样宽
    assert [line.split()[:2] for line in table[1:]] == [[f.__name__, label] for f, label in LABELS.items()]
    for example in ("统一全角半角：Ａ队获胜 → A队获胜", "删去看不见的字符：頭髮‹U+200B›很",
                    "（删去，与下标 0 的那篇重复）", "按长度筛选：太短 → （删去）"):
        assert example in text
    assert "\u200b" not in text and "\x00" not in text


def test_reveal_and_width():
    assert reveal("汉a\u3000\ufe0f\u200b\x00\n") == "汉a‹U+3000›‹U+FE0F›‹U+200B›‹U+0000›↵"
    assert text_table.width("汉，Ａa") == 7 and text_table.pad("汉", 4) == "汉  " and text_table.pad("汉", 4, right=True) == "  汉"


def test_at_most_three_examples_near_the_change():
    docs = Dataset.from_dict({"body": [f"这里是很长很长很长很长很长的开头，然后是第{i}个Ａ，后面还有很长很长很长的文字" for i in range(9)]})
    [step] = clean(docs, [normalize_width])[1].steps
    assert step.docs_rewritten == 9 and len(step.examples) == 3
    assert all("Ａ" in old and "A" in new and len(old) <= 20 for old, new in step.examples)


def test_steps_run_in_order_on_what_is_left():
    docs = Dataset.from_dict({"body": ["ＡＢ", "AB", "一二三四五"]})
    assert clean(docs, [normalize_width, exact_duplicates])[0]["body"] == ["AB", "一二三四五"]
    assert clean(docs, [exact_duplicates, normalize_width])[0]["body"] == ["AB", "AB", "一二三四五"]
    out, report = clean(docs, [partial(length_ok, min_chars=3), exact_duplicates])
    assert out["body"] == ["一二三四五"] and [s.docs_in for s in report.steps] == [3, 1]
    assert report.steps[0].name == "length_ok(min_chars=3)" and report.steps[0].label == "按长度筛选"


def test_duplicates_point_at_the_original_index():
    docs = Dataset.from_dict({"body": ["短", "一二三四五六七八九十", "一二三四五六七八九十"]})
    report = clean(docs, [partial(length_ok, min_chars=5), exact_duplicates])[1]
    assert report.steps[1].examples == [("一二三四五六七八九十", "（删去，与下标 1 的那篇重复）")]


def test_duplicate_steps_take_options():
    docs = Dataset.from_dict({"body": ["今天天气很好，适合出门散步和放风筝", "今天天气很好，适合出门散步和放鞭炮"]})
    step = partial(near_duplicates, threshold=0.5)
    out, report = clean(docs, [near_duplicates, step])
    assert len(out) == 1 and [s.docs_removed for s in report.steps] == [0, 1]
    assert report.steps[1].name == "near_duplicates(threshold=0.5)" and report.steps[1].label == "去掉近似重复"


def test_custom_steps():
    docs = Dataset.from_dict({"body": ["见 http://a.b/c 这里", "广告：快来买"]})
    out, report = clean(docs, [lambda t: re.sub(r"http\S+", "", t), lambda t: "广告" not in t])
    assert out["body"] == ["见  这里"] and [s.label for s in report.steps] == ["自定义"] * 2
    assert [(s.docs_rewritten, s.docs_removed) for s in report.steps] == [(1, 0), (0, 1)]


def test_filters_see_all_but_the_title():
    docs = Dataset.from_dict({"title": ["English title here only"] * 2, "intro": ["中文导语", "intro"], "body": ["中文正文", "body"]})
    assert clean(docs, [is_chinese])[0]["body"] == ["中文正文"]
    titles = Dataset.from_dict({"title": ["中文", "English"]})
    assert clean(titles, [is_chinese])[0]["title"] == ["中文"]
    texts = titles.rename_column("title", "text")
    assert all(clean(texts, [is_chinese], columns=c)[0]["text"] == ["中文"] for c in ("text", ["text"], ["text", "text"]))


def test_other_columns_and_types_stay():
    types = Features({"body": Value("large_string"), "note": Value("string")})
    docs = Dataset.from_dict({"body": ["Ａ", "Ｂ"], "note": ["Ａ", None]}, features=types)
    out, _ = clean(docs, [normalize_width])
    assert out["body"] == ["A", "B"] and out["note"] == ["Ａ", None] and out.features == docs.features
    assert docs["body"] == ["Ａ", "Ｂ"]                                   # 原来的数据集不变


def test_everything_may_be_removed():
    docs = Dataset.from_dict({"body": ["a", "b"], "k": [1, 2]})
    out, report = clean(docs)
    assert len(out) == 0 and out.features == docs.features and report.docs_out == 0 and "留下 0 篇" in str(report)


def test_no_steps():
    docs = Dataset.from_dict({"body": ["Ａ"]})
    out, report = clean(docs, [])
    assert out["body"] == ["Ａ"] and report.steps == [] and "进入 1 篇，留下 1 篇" in str(report)


def test_the_bundled_corpus_is_clean():
    docs = generate("train", 200)
    out, report = clean(docs)
    assert out.to_dict() == docs.to_dict() and out.features == docs.features
    assert all((s.docs_rewritten, s.docs_removed) == (0, 0) for s in report.steps)


def test_cleaning_twice_changes_nothing(dirty):
    once, _ = clean(dirty)
    twice, report = clean(once)
    assert twice.to_dict() == once.to_dict() and not any(s.docs_rewritten or s.docs_removed for s in report.steps)


BODY = Dataset.from_dict({"body": ["今天天气很好"]})


@pytest.mark.parametrize("call, words", [
    (lambda: clean({"train": BODY}), "Dataset.*dict.*corpus\\['train'\\]"),
    (lambda: clean(Dataset.from_dict({"text": ["字"]})), "title、intro、body.*「text」.*columns"),
    (lambda: clean(BODY, columns=["body", "tekst"]), "没有「tekst」.*「body」"),
    (lambda: clean(BODY, columns=[]), "没有要清洗的列.*「body」"),
    (lambda: clean(Dataset.from_dict({"body": []})), "空的"),
    (lambda: clean(Dataset.from_dict({"body": ["字", None]})), "下标 1 的 body.*NoneType"),
    (lambda: clean(Dataset.from_dict({"body": [1, 2]})), "下标 0 的 body.*int"),
    (lambda: clean(BODY, normalize_width), "一串步骤"),
    (lambda: clean(BODY, "normalize_width"), "一串步骤"),
    (lambda: clean(BODY, ["normalize_width"]), "'normalize_width'.*normalize_width、strip_invisible"),
    (lambda: clean(BODY, [partial(length_ok, min_char=3)]), "length_ok.*min_char"),
    (lambda: clean(BODY, [partial(length_ok, min_chars=-3)]), "min_chars"),
    (lambda: clean(BODY, [partial(near_duplicates, threshold=3)]), "threshold.*3"),
    (lambda: clean(BODY, [len]), "len.*str.*int"),
    (lambda: clean(BODY, [lambda t: t if t == "中文" else None]), "返回值.*NoneType"),
])
def test_bad_calls_are_explained(call, words):
    with pytest.raises(ValueError, match=words):
        call()
