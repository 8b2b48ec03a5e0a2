"""字符：中文文字里会遇到的各类字符，以及改写它们的清洗步骤（都是 str → str）。

依据：Unicode 标准附件 UAX #15（规范化：NFC、NFKC）与 UTS #51（表情）；繁简的词典来自 OpenCC。整个数据集的清洗在
utils/sources/cleaning.py。
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from opencc import OpenCC

# ---------------------------------------------------------------- 字符类（放在正则的方括号里用）

HAN = "々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"     # 汉字：基本区、扩展区、兼容汉字
KANA = "\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9d"                # 平假名、片假名（含半角）
FULL_PUNCTUATION = "、。〃〈-】〔-〟・！（），：；？［］｛｝～"                    # 只在中文里用的标点；“”‘’…— 英文也用，不算

# 全角的字母、数字、运算与货币符号：它们的半角就是普通的 ASCII 或货币符号。中文标点 ，。：；！？（）～ 故意不在里面。
_FULL_ALNUM = "０-９Ａ-Ｚａ-ｚ"
_FULL_SIGNS = "＂-＇＊＋－-／＜-＞＠＼＾-｀｜￠-￢￤-￦\u3000"
_HALF_KANA = "\uff61-\uff9f"                                                 # 半角的 ｡｢｣､･ 与片假名，NFKC 变成全角
_RADICALS = "\u2e80-\u2fd5"                                                  # 部首块：PDF 里常把「⼀」当「一」用
_NFKC_IS_RIGHT = re.compile(f"[{_FULL_ALNUM}{_FULL_SIGNS}{_HALF_KANA}{_RADICALS}]+")
# 竖排和小号的标点。NFKC 会把其中一半变成英文标点，所以自己列出对应的全角标点。
_PUNCTUATION_FORMS = str.maketrans("︐︑︒︓︔︕︖︵︶︷︸︹︺︻︼︽︾︿﹀﹁﹂﹃﹄﹐﹑﹔﹕﹖﹗﹙﹚",
                                   "，、。：；！？（）｛｝〔〕【】《》〈〉「」『』，、；：？！（）")

# 看不见的字符。换行和制表符不在里面，另外处理。
_CONTROLS = "\x00-\x08\x0e-\x1f\x7f-\x9f"                                    # C0、C1 控制符
_ZERO_WIDTH = "\xad\u034f\u180e\u200b-\u200d\u2060-\u2064\ufeff"             # 软连字符、零宽空格、ZWJ、BOM
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"                  # 从右到左的方向控制
_FILLERS = "\u115f\u1160\u3164\uffa0"                                        # 谚文的空白占位符
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"         # 变体选择符：只换字形，同一个字会成两种词元
_TAGS = "\U000e0000-\U000e007f"                                              # 标签字符：能夹带看不见的 ASCII
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U0010ffff"                              # 私用区：各家字体的图标
_NOT_TEXT = "\ud800-\udfff\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff"            # 孤立代理、非字符；U+FFFD（�）不在里面
_INVISIBLE = _CONTROLS + _ZERO_WIDTH + _DIRECTION + _FILLERS + _SELECTORS + _TAGS + _PRIVATE + _NOT_TEXT

# 表情：一个画面可以由好几个字符组成，中间靠 ZWJ、变体选择符或标签连着。整个认出来，才不会拆散。
_PICTURE = "©®‼⁉™ℹ\u2190-\u21ff\u2300-\u23ffⓂ\u25a0-\u27bf⤴⤵\u2b00-\u2bff〰〽㊗㊙\U0001f000-\U0001faff"
_KEYCAP = "[0-9#*]\ufe0f?\u20e3"                                             # 键帽：1️⃣
_TAG_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"                   # 英格兰、苏格兰等的旗
_EMOJI_PART = f"(?:{_TAG_FLAG}|[{_PICTURE}][\ufe0e\ufe0f]?)"
_EMOJI = f"{_KEYCAP}|{_EMOJI_PART}+(?:\u200d{_EMOJI_PART}+)*"
_EMOJI_OR_INVISIBLE = re.compile(f"({_EMOJI})|[{_INVISIBLE}]")
_LINE_BREAK = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")                # 各种系统的换行、换页

_BESIDE_PUNCTUATION = re.compile(f"(?<=[{FULL_PUNCTUATION}]) | (?=[{FULL_PUNCTUATION}])")
_BETWEEN_HAN = re.compile(f"(?<=[{HAN}]) (?=[{HAN}])")

# 简体文字里也用、OpenCC 却总要改的字（乾县、宫商角徵羽、芸薹、毕昇、苧烯……）。只改动了这些字，不足以说明原文是繁体。
SHARED = frozenset("乾吒夥徵拚捱摺榘薹袷醣麴昇陞苧")
# 台湾的「著」有两种读音：读 zhù 的留下，其余是助词，写成「着」。先认助词，再认 zhù，最后剩下的都是助词。
_ZHE_PHRASES = "[讨议谈争]论著(?![作名者])|看著作业|指著名单"
_ZHU_PHRASES = "著作|著名|著者|著述|著称|著录|著书立说|著有《|著《|[名原译编论专巨遗拙所显卓昭土]著"
_ZHU_OR_ZHE = re.compile(f"{_ZHE_PHRASES}|(?P<zhu>{_ZHU_PHRASES})|[藉沈]?著")
_TO_ZHE = str.maketrans("著藉沈", "着借沉")


def require_text(text: str, who: str) -> str:
    """原样返回 text；它不是 str 时报 ValueError，who 是报错里的主语。"""
    if not isinstance(text, str):
        raise ValueError(f"{who} 要的是一段文字（str），得到的是 {type(text).__name__}。请先转成 str；空缺的请填空字符串。")
    return text


# ---------------------------------------------------------------- 清洗步骤


def normalize_width(text: str) -> str:
    """统一全角与半角：NFC 处处用，NFKC 只用在对中文合适的字符上。

    改：全角字母、数字、运算和货币符号（Ａ１％＋＝￥）和全角空格变半角；半角的 ｡､｢｣ 与片假名变全角；部首块里的「⼀」和兼容汉字
    变成普通汉字；竖排、小号的标点变成普通全角标点；分开写的声调合到字母上（a + ˋ → à）。
    不改：全角标点 ，。：；！？（）～，以及 NFKC 会弄坏的：… → ...　： → :　① → 1　㎡ → m2　㈱ → (株)　½ → 1⁄2　10² → 102。

    参数：
        text: 一段文字。
    返回：
        统一之后的文字；再做一次不变。
    异常：
        ValueError: text 不是 str。
    """
    text = _NFKC_IS_RIGHT.sub(lambda m: unicodedata.normalize("NFKC", m[0]), require_text(text, "normalize_width"))
    return unicodedata.normalize("NFC", text.translate(_PUNCTUATION_FORMS))


def strip_invisible(text: str) -> str:
    """删去看不见的字符：控制符、零宽字符、BOM、方向控制、变体选择符、标签、私用区、孤立代理。

    各种换行统一成 \\n，制表符变成空格。表情整个留下：删了 ZWJ，👨‍👩‍👧 会散成三个人。U+FFFD（�）也留下：它说明解码出过错，
    删了就看不出来了。波斯文、印度文字真的用 ZWJ 和 ZWNJ，这一步只为中文而写。

    参数：
        text: 一段文字。
    返回：
        删去之后的文字；再做一次不变。
    异常：
        ValueError: text 不是 str。
    """
    text = _LINE_BREAK.sub("\n", require_text(text, "strip_invisible")).replace("\t", " ")
    return _EMOJI_OR_INVISIBLE.sub(lambda m: m[1] or "", text)


def squeeze_space(text: str, join_han: bool = False) -> str:
    """整理空白：连续的空格并成一个，全角标点两旁的空格删去，空行删去，每段首尾的空白删去。

    参数：
        text: 一段文字。
        join_han: 是否连两个汉字之间的空格也删去。默认不删：中文标题常拿空格当标点（「某市初雪 某镇积雪18厘米」）；
            从 PDF 里取出来、字字隔开的文字才该删。汉字与英文之间的一个空格总是留下。
    返回：
        整理之后的文字；再做一次不变。
    异常：
        ValueError: text 不是 str。
    """
    text = re.sub(r"[^\S\n]+", " ", require_text(text, "squeeze_space"))
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    text = _BESIDE_PUNCTUATION.sub("", text)
    return _BETWEEN_HAN.sub("", text) if join_han else text


@lru_cache(maxsize=1)
def _converter() -> OpenCC:
    return OpenCC("t2s")                                   # 读词典要一点时间，第一次用到时才读


def to_simplified(text: str) -> str:
    """繁体转简体：按词转换（OpenCC 的 t2s），一对多的字看上下文：乾隆不变、乾燥→干燥；頭髮、發展都是「发」。

    本来就是简体的文字原样返回：单看「乾县」「王乾」，词典会把它们错改成「干县」「王干」。另外处理台湾的「著」：著作、名著不变，
    看著→看着（整段没有别的繁体字时不动）。繁体原文里人名的「乾」（徐乾學）仍会改错，要靠人看。

    参数：
        text: 一段文字。
    返回：
        简体文字；再做一次不变。
    异常：
        ValueError: text 不是 str，或含有编不成 UTF-8 的孤立代理。
    """
    try:
        simplified = _converter().convert(require_text(text, "to_simplified"))
    except UnicodeEncodeError as error:
        raise ValueError("to_simplified 遇到了孤立代理（编不成 UTF-8 的字符）。请先做 strip_invisible。") from error
    replaced = Counter(text) - Counter(simplified)
    if SHARED.issuperset(replaced):
        return text
    return _ZHU_OR_ZHE.sub(lambda m: m[0] if m["zhu"] else m[0].translate(_TO_ZHE), simplified)


# ---------------------------------------------------------------- 给人看


def reveal(text: str) -> str:
    """把看不见的字符写成 ‹U+200B› 的样子；换行写成 ↵。"""
    shown = (c if c.isprintable() and not re.match(f"[{_INVISIBLE}]", c) else f"‹U+{ord(c):04X}›" for c in text.replace("\n", "↵"))
    return "".join(shown)
