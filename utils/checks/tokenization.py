"""tokenization 的练习。参照用标准库和 utils.tokenization.baselines，与 notebook 里折叠的参考答案各写各的。"""

from __future__ import annotations

import math
import random
from collections import Counter

from utils.checks.framework import Choice, Function, Mistake, Value
from utils.checks.framework.inputs import HAN, sentence
from utils.tokenization.baselines import bits_per_char

CODE_POINTS = 0x110000
SPELL = math.log(CODE_POINTS)                             # 均匀地猜一个码点，奈特


# ---------------------------------------------------------------- 1 UTF-8 的解码


def _texts(rng: random.Random) -> list[tuple]:
    wide = lambda low, high: chr(rng.randrange(low, high))                                    # noqa: E731
    mixed = [wide(0x41, 0x5B), wide(0xA1, 0x100), rng.choice(HAN), wide(0x20000, 0x2A000)]    # 1、2、3、4 个字节的各一个
    return [(text.encode(),) for text in ("A", rng.choice(HAN), mixed[1], mixed[3], "".join(mixed), sentence(rng, 6) + "a1" + mixed[3])]


def _decode(data: bytes, shift: int = 6, mask: int = 0x3F, keep_head: bool = False, always: int = 0) -> list[int]:
    codes, i = [], 0
    while i < len(data):
        head = data[i]
        length = 1 if head < 0x80 else always or (2 if head < 0xE0 else 3 if head < 0xF0 else 4)
        code = head if length == 1 or keep_head else head & (0x7F >> length)
        for byte in data[i + 1:i + length]:
            code = code << shift | byte & mask
        codes.append(code)
        i += length
    return codes


utf8_decode = Function(
    "tokenization.utf8_decode",
    reference=lambda data: [ord(char) for char in data.decode("utf-8")],
    cases=_texts,
    ask="挑一个三字节的汉字，把三个字节写成二进制，照第 2 节的表圈出 x 的那些位：你的代码取的是同样的位吗？",
    mistakes=(
        Mistake("一个字节当一个字", list, "它把每个字节都当成了一个码点。", "首字节开头有几个 1？那说明这个字一共占几个字节？"),
        Mistake("首字节的记号没有去掉", lambda data: _decode(data, keep_head=True),
                "首字节开头的 110、1110 或 11110 也混进了码点，数大得离谱。",
                "表里首字节的哪几位是 x？前面那几位只说明长度，该怎样抹掉？"),
        Mistake("续字节的 10 没有去掉", lambda data: _decode(data, mask=0xFF), "续字节开头的 10 也被当成了码点的一部分。",
                "每个续字节里有几位是 x？另外两位去掉了吗？"),
        Mistake("移了 8 位", lambda data: _decode(data, shift=8), "每接上一个续字节，前面的都往左移了 8 位，中间空出了两位 0。",
                "一个续字节只贡献几位？前面的该给它腾出几位？"),
        Mistake("只会三个字节", lambda data: _decode(data, always=3), "凡是非 ASCII 的都按三个字节读，遇到两个或四个字节的字就串了位。",
                "é 是两个字节，𠮷 是四个。首字节怎样告诉你一共几个？"),
    ),
)


# ---------------------------------------------------------------- 2 BPE 的一步


def _words(rng: random.Random) -> list[tuple]:
    a, b, c, d, e, f = rng.sample(HAN, 6)
    n = rng.randint(4, 9)
    p, q, r, s = sorted([(a, b), (c, d), (e, f), (f, a)])
    tie = [q, p, s, r]
    return [({(a, b): 1},),
            ({(a, b): 2 * n, (c, d, e): n - 3, (c, d, f): n - 3},),                            # 加权与不加权，结果不同
            (dict.fromkeys(tie, n),),                                                          # 四对平手，最小的排在中间
            ({(a, b, a, b, a, b): n, (c, d): 2 * n},),                                         # 一串里出现三次
            ({(c, a, b): n, (d, a, b): n, (e, f): n + 1},),                                    # 跨在奇数位上的对
            ({(a, b): n, (b, a): n - 1, (c, d): n + 1},)]                                      # 左右不能不分


def _count(words: dict, weighted: bool = True, once: bool = False, step: int = 1, last: bool = False, pick=None, order=tuple) -> tuple:
    pairs = Counter()
    for units, times in words.items():
        found = [order(units[i:i + 2]) for i in range(0, len(units) - 1, step)]
        for pair in set(found) if once else found:
            pairs[pair] += times if weighted else 1
    top = max(pairs.values())
    return (pick or (max if last else min))(pair for pair, n in pairs.items() if n == top)


best_pair = Function(
    "tokenization.best_pair",
    reference=lambda words: _count(words),
    cases=_words,
    ask="拿最小的那个输入，把每一对和它的次数列成一张表：哪一对最多？平手时该取哪一对？",
    mistakes=(
        Mistake("没有乘上次数", lambda words: _count(words, weighted=False), "它把每一串文字只当作出现了一次。",
                "words 的值是这一串出现的次数。一串出现了 100 次，里面的一对该加几？"),
        Mistake("一串里只数一次", lambda words: _count(words, once=True), "同一对在一串里出现好几次，它只数了一次。",
                "「好好好好」里，（好，好）出现了几次？"),
        Mistake("两个两个地跳", lambda words: _count(words, step=2), "它把一串切成互不重叠的两个两个，跨在中间的对没有数到。",
                "（甲，乙，丙）里有几对相邻的？（乙，丙）算不算？"),
        Mistake("平手时取了最大的", lambda words: _count(words, last=True), "次数相同的几对里，它取了排在最后的一对。",
                "题目规定平手时怎么办？你用的比较，次数和先后的方向一样吗？"),
        Mistake("平手时取了先遇到的", lambda words: _count(words, pick=next), "次数相同的几对里，它取了最先数到的一对。",
                "字典里的先后，是题目规定的先后吗？换一个次序把同样的词放进去，你的结果会变吗？"),
        Mistake("不分左右", lambda words: _count(words, order=lambda pair: tuple(sorted(pair))), "它把（甲，乙）和（乙，甲）算成了同一对。",
                "合并以后得到的是「甲乙」还是「乙甲」？两种拼法是同一个词元吗？"),
    ),
)


# ---------------------------------------------------------------- 3 最长匹配


def _matches(rng: random.Random) -> list[tuple]:
    a, b, c, d, x = rng.sample(HAN, 5)
    vocab = {a, b, c, d, a + b, a + b + c, b + c + d, c + d}
    return [(a, vocab), (a + b + c + d, vocab), (x + a + b, vocab), (a + b + x + c + d, vocab), ("", vocab), (x, {a + x}),
            (a + b + c + d, {a + b, b + c + d}), (a + b + c + d, {a, a + b, a + b + c + d})]   # 更长的在后面；中间的一段词表里没有


def _match(text: str, vocab: set, longest: int | None = None, drop: bool = False) -> list[str]:
    pieces = []
    while text:
        size = next((n for n in range(min(len(text), longest or len(text)), 1, -1) if text[:n] in vocab), 1)
        if size > 1 or text[0] in vocab or not drop:
            pieces.append(text[:size])
        text = text[size:]
    return pieces


def _longest_anywhere(text: str, vocab: set) -> list[str]:
    for size in range(len(text), 1, -1):
        for i in range(len(text) - size + 1):
            if text[i:i + size] in vocab:
                return [*_longest_anywhere(text[:i], vocab), text[i:i + size], *_longest_anywhere(text[i + size:], vocab)]
    return list(text)


def _growing(text: str, vocab: set) -> list[str]:
    pieces = []
    while text:
        size = 1
        while size < len(text) and text[:size + 1] in vocab:
            size += 1
        pieces, text = [*pieces, text[:size]], text[size:]
    return pieces


def _from_the_right(text: str, vocab: set) -> list[str]:
    flipped = _match(text[::-1], {word[::-1] for word in vocab})
    return [piece[::-1] for piece in flipped[::-1]]


longest_match = Function(
    "tokenization.longest_match",
    reference=lambda text, vocab: _match(text, vocab),
    cases=_matches,
    ask="用手走一遍最小的那个输入：从第一个字开始，词表里最长的一段是哪一段？断在哪里？",
    mistakes=(
        Mistake("取了最短的", lambda text, vocab: list(text), "它总是一个字一段，多字的词一个也没用上。",
                "从同一个起点出发，词表里可能有好几段都对得上。题目要哪一段？你是从长往短试，还是从短往长试？"),
        Mistake("从右边开始", _from_the_right, "它的结果与「从最右边往左取最长」相同。",
                "题目说从左边开始。第一段的起点固定了，变的是哪一头？"),
        Mistake("最多看两个字", lambda text, vocab: _match(text, vocab, longest=2), "三个字以上的词它从来不用。",
                "词表里的词最长有几个字？你的循环最远看到哪里？"),
        Mistake("生字丢掉了", lambda text, vocab: _match(text, vocab, drop=True), "词表里没有的字，在结果里不见了。",
                "把各段连起来，还等于原文吗？没有匹配时，题目要你怎么办？"),
        Mistake("先找全句最长的", _longest_anywhere, "它先在整句里找最长的词，再切两边。",
                "题目说从左边开始。第一段切在哪里，该不该由后面的字决定？"),
        Mistake("一断就停", _growing, "它一个字一个字地加长，遇到词表里没有的一段就不再往后试。",
                "「中华」不在词表里，「中华人民」就一定不在吗？该从长往短试，还是从短往长加？"),
        Mistake("写成了 [UNK]", lambda text, vocab: [p if len(p) > 1 or p in vocab else "[UNK]" for p in _match(text, vocab)],
                "词表里没有的字，它换成了 [UNK]。", "从 [UNK] 还读得出原来的字吗？题目要求各段连起来等于什么？"),
    ),
)


# ---------------------------------------------------------------- 4 BPC


def _scored(rng: random.Random) -> list[tuple]:
    cases = []
    for tokens, chars, unknown in [(3, 6, 0), (9, 4, 0), (5, 8, 2), (12, 7, 1)]:
        cases.append(([round(rng.uniform(0.5, 6), 3) for _ in range(tokens)], sentence(rng, chars), unknown))
    return cases


def _bpc(nats, text, unknown, chars=None, base=2.0, price=SPELL):
    return (sum(nats) + unknown * price) / math.log(base) / (chars or len(text))


bits_per_character = Function(
    "tokenization.bits_per_character",
    reference=lambda nats, text, unknown: bits_per_char(sum(nats) + unknown * math.log(CODE_POINTS), len(text)),
    cases=_scored,
    rtol=1e-6,
    ask="按定义写出三个数：总损失是多少奈特？补交多少？除以几个字符？你的代码里每一个都在吗？",
    mistakes=(
        Mistake("除以了词元数", lambda nats, text, unknown: _bpc(nats, text, unknown, chars=len(nats)),
                "它给的是每词元多少比特，不是每字。",
                "分母换一种切法就变了。哪一个数与切法无关？"),
        Mistake("没有换成比特", lambda nats, text, unknown: _bpc(nats, text, unknown, base=math.e), "它的单位还是奈特。",
                "一奈特等于几比特？该乘还是该除以 ln 2？"),
        Mistake("除以了字节数", lambda nats, text, unknown: _bpc(nats, text, unknown, chars=len(text.encode())),
                "分母是 UTF-8 的字节数，这是每字节比特数。", "一个汉字占几个字节？题目要的是每个什么？"),
        Mistake("生字没有补交", lambda nats, text, unknown: _bpc(nats, text, 0), "[UNK] 丢掉的字一分钱也没有付。",
                "只知道那里是 [UNK]，你还原得出原文吗？还差哪一份信息？"),
        Mistake("补交的单位不对", lambda nats, text, unknown: _bpc(nats, text, unknown, price=math.log2(CODE_POINTS)),
                "补交的那一份用的是比特，却与奈特加在了一起，随后又除以 ln 2。", "nats 是奈特。加进去之前，log₂ 1114112 该换成什么？"),
        Mistake("该除的乘了", lambda nats, text, unknown: (sum(nats) * math.log(2) + unknown * math.log2(CODE_POINTS)) / len(text),
                "换算单位时，它乘以了 ln 2。", "ln 2 约是 0.69。同一段损失，用比特写出来的数，该比用奈特写的大还是小？"),
        Mistake("先取了平均", lambda nats, text, unknown: _bpc([sum(nats) / len(nats)], text, unknown),
                "它先把损失按词元平均，又除以了字数。",
                "写出整段文字一共要多少比特？总数该除以几次？"),
        Mistake("补交的没有摊到字上", lambda nats, text, unknown: _bpc(nats, text, 0) + unknown * math.log2(CODE_POINTS),
                "补交的比特没有除以字数。", "BPC 是每个字平均多少比特。补交的那一份，是总数还是平均数？"),
    ),
)


# ---------------------------------------------------------------- 5 两个困惑度


perplexity = Choice(
    "tokenization.perplexity",
    right="B",
    options="ABCD",
    ask="把两个困惑度都换成「平均每个字几个比特」：先取 log₂，再除以每个词元几个字。",
    mistakes=(
        Mistake("只看困惑度的大小", "A", "它直接比了两个困惑度，可是一个按字平均，一个按词平均。",
                "词级模型猜一次，等于一口气猜了几个字？要让两边猜的东西一样多，该怎样换算？"),
        Mistake("以为词表不同就比不了", "C", "每词元的数的确不能直接比，但这里给的条件足够换算成与切法无关的单位。",
                "题目为什么要告诉你一个词平均 1.8 个字？用上它。"),
        Mistake("以为换算之后一样", "D", "换算成每字比特之后，两边并不相等。", "log₂ 20 是多少？log₂ 150 除以 1.8 又是多少？"),
    ),
)


# ---------------------------------------------------------------- 6 几个字节


count_bytes = Value(
    "tokenization.count_bytes", expected=12, rtol=0, form="一个整数",
    ask="逐个字符查第 2 节的表：它的码点落在哪一行，那一行占几个字节？",
    mistakes=(
        Mistake("数成了字符", 5, "它数的是字符的个数。", "一个字符在 UTF-8 里总是一个字节吗？"),
        Mistake("都按三个字节", 15, "它把每个字符都算成了三个字节。", "A 和 I 的码点不到 128，该在表的哪一行？"),
        Mistake("都按两个字节", 10, "它把每个字符都算成了两个字节，那是旧编码里汉字的长度。",
                "UTF-8 的两字节那一行，码点到哪里为止？「汉」的码点比它大还是小？"),
        Mistake("表情按三个字节", 11, "它把 😀 也算成了三个字节。", "😀 的码点是 U+1F600，四位十六进制写得下吗？"),
    ),
)
