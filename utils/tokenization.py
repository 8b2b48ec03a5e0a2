"""一句中文的七种切法：同一个接口，七种粒度，都是真正的 ``PreTrainedTokenizerFast``。

首次实现：02_tokenization（那里先用手写的循环做一遍，再用这里的函数）。
"""

import json
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # 编号固定为 0..4
GRANULARITY_NAMES = {
    "byte": "UTF-8 字节",
    "byte_bpe": "字节级 BPE",
    "char": "字",
    "wordpiece": "WordPiece 子词",
    "bpe": "BPE 子词",
    "unigram": "Unigram 子词",
    "word": "词（jieba）",
}
GRANULARITIES = tuple(GRANULARITY_NAMES)
DEFAULT_MERGES = 2000  # 不写 vocab_size 时，子词词表 = 最小词表 + 这么多个多字词元

# 子词不跨越标点：一串字母（汉字也是字母）、一串数字、或者单独一个别的字符（标点、空格、换行、emoji）
_CHUNK = r"[\p{L}\p{M}]+|\p{N}+|[^\p{L}\p{M}\p{N}]"
_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))  # tokenizers 规定的字节回退写法


def build_tokenizer(
    granularity: str, texts: Iterable[str], vocab_size: int | None = None, *, model_max_length: int = 256
) -> PreTrainedTokenizerFast:
    """在 ``texts`` 上训练一个指定粒度的分词器。

    参数：
        granularity: ``GRANULARITIES`` 里的一个名字。
        texts: 训练文本，字符串的列表或任何可迭代对象；空串会被跳过。
        vocab_size: 词表大小（个），含 5 个特殊词元。``char`` 与 ``word`` 不写时收下全部字或词；其余粒度
            不写时为「最小词表 + 2000」。``byte`` 恒为 261。训练文本太少时，实际词表可以比它小。
        model_max_length: 截断长度（个词元），``truncation=True`` 时生效。应当等于模型的位置数。

    返回：
        ``PreTrainedTokenizerFast``。``[PAD] [UNK] [CLS] [SEP] [MASK]`` 的编号是 0..4；一段文字编成
        ``[CLS] A [SEP]``，两段编成 ``[CLS] A [SEP] B [SEP]``，``token_type_ids`` 全是 0（要区分两段，
        用 ``encoding.sequence_ids``）。没有任何规范化：大小写、全角半角、繁简都原样保留。

    七种粒度，以及 ``decode`` 能不能把原文一字不差地还回来：
        byte: 一个 UTF-8 字节一个词元。任意文字都可还原。
        byte_bpe: 在字节上训练的 BPE（GPT-2 的做法）。任意文字都可还原。
        char: 一个 Unicode 字符一个词元，数字、字母、标点、空格也各算一个；按词频排序，词频相同按码点。
            训练文本里没有的字变成 ``[UNK]``，这个字丢失；其余可还原。
        wordpiece: WordPiece，接续的片段写作 ``##``。有损：一段连续的文字里只要有一个字不在词表里（或者
            这一段超过 100 个字符），整段变成一个 ``[UNK]``。
        bpe: 在字上训练的 BPE；不认识的字退回到 UTF-8 字节（byte fallback）。任意文字都可还原。
        unigram: Unigram 语言模型子词（SentencePiece 的做法），同样有字节回退。任意文字都可还原。
        word: 词。先用 jieba 切训练文本、数词频，再把「词 + 所有单字」的对数频率装进 Unigram 模型，编码时取
            概率最大的切法。与 jieba 的差别：jieba 用自带的词典和它的词频，这里用训练文本里的词和词频；
            jieba 会用 HMM 猜新词，这里的生词拆成单字，没见过的字再拆成字节。好处是它能存成
            tokenizer.json、不依赖 jieba 就能加载。任意文字都可还原。

    特殊词元的写法出现在普通文字里时：默认按 Hugging Face 的习惯，``[MASK]`` 这样的五个字符串会被认成特殊
    词元（完形填空正需要它）。要把它们当作普通文字，调用时加 ``split_special_tokens=True``；``encode_pair``
    总是这样做，所以语料里的 ``[SEP]`` 不会弄乱结构。``decode(..., skip_special_tokens=True)`` 会去掉
    包括 ``[UNK]`` 在内的五个特殊词元。

    错误：
        ValueError: 粒度不认识、语料为空、``vocab_size`` 装不下最小词表。
        TypeError: ``texts`` 是单个字符串，或里面有不是字符串的东西。
    """
    if granularity not in GRANULARITY_NAMES:
        options = "、".join(f"{key}({name})" for key, name in GRANULARITY_NAMES.items())
        raise ValueError(f"不认识的粒度 {granularity!r}。可以用的有：{options}")
    texts = _check_texts(texts)
    backend = _BUILDERS[granularity](texts, vocab_size)
    cls_id, sep_id = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[("[CLS]", cls_id), ("[SEP]", sep_id)],
    )
    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask,
        model_max_length=model_max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def encode_pair(tokenizer, intro: str, body: str, max_len: int) -> dict:
    """把导语和正文编成 ``[CLS] 导语 [SEP] 正文 [SEP]``，不截断、不填充。

    参数：
        tokenizer: ``build_tokenizer`` 的返回值。
        intro, body: 导语与正文；其中的 ``[SEP]`` 之类只当普通文字。
        max_len: 允许的最大长度（个词元）。

    返回：
        字典：``input_ids``、``attention_mask``（全 1）、``token_type_ids``（全 0），都是长度 T 的列表；
        ``prompt_len`` 是 ``[CLS] 导语 [SEP]`` 的词元数，损失只算它之后的位置。

    错误：
        ValueError: 有一段是空的，或者放不进 ``max_len``。
    """
    for name, text in (("导语 intro", intro), ("正文 body", body)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name}是空的（得到 {text!r}）；两段都要有文字。")
    plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    left = tokenizer(intro, **plain)["input_ids"]
    right = tokenizer(body, **plain)["input_ids"]
    total = len(left) + len(right) + 3
    if total > max_len:
        raise ValueError(
            f"导语 {len(left)} 个词元，正文 {len(right)} 个词元，加上 [CLS] 和两个 [SEP] 共 {total} 个，"
            f"放不进 max_len={max_len}。请缩短文本或加大 max_len。"
        )
    cls_id, sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = [cls_id, *left, sep_id, *right, sep_id]
    return {
        "input_ids": ids,
        "attention_mask": [1] * total,
        "token_type_ids": [0] * total,
        "prompt_len": len(left) + 2,
    }


def jieba_words(text: str) -> list[str]:
    """用 jieba（精确模式）切词，各词连起来等于原文。第一次调用要读词典，约一秒。"""
    return _jieba().lcut(text)


@lru_cache(maxsize=1)
def _jieba():
    with warnings.catch_warnings():  # jieba 0.42 的源码在新 Python 上会报转义和 pkg_resources 的警告
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.ERROR)
    cutter = jieba.Tokenizer()
    # 直接读词典：不在公共的临时目录里写缓存，也不去读别人可能放在那里的缓存
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    return cutter


def _check_texts(texts) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts 应当是字符串的列表；只有一段文字时写成 [文字]。")
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"texts 里应当都是字符串，却有一个 {type(text).__name__}：{text!r}")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError("语料是空的：texts 里没有一段有文字的内容，无法建立词表。")
    return texts


def _check_size(vocab_size: int | None, minimum: int, what: str) -> int:
    if vocab_size is None:
        return minimum + DEFAULT_MERGES
    if vocab_size < minimum:
        raise ValueError(f"vocab_size={vocab_size} 太小：{what}，至少要 {minimum}。")
    return vocab_size


def _by_frequency(counts: Counter) -> list[str]:
    return sorted(counts, key=lambda item: (-counts[item], item))  # 同频按码点，结果与输入顺序无关


def _alphabet(texts: list[str]) -> list[str]:
    return _by_frequency(Counter(char for text in texts for char in text))


def _number(*groups: Iterable[str]) -> dict[str, int]:
    ordered = dict.fromkeys(token for group in groups for token in group)
    return {token: i for i, token in enumerate(ordered)}


def _fallback_decoder():
    return decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])


def _build_byte(texts, vocab_size):
    symbols = bytes_to_symbols()
    vocab = _number(SPECIAL_TOKENS, symbols)
    if vocab_size is not None and vocab_size != len(vocab):
        raise ValueError(f"字节粒度的词表恒为 {len(vocab)}（5 + 256），不能是 {vocab_size}。")
    backend = Tokenizer(models.BPE(vocab, [], unk_token="[UNK]"))  # 没有合并规则的 BPE：一个符号一个词元
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def bytes_to_symbols() -> list[str]:
    """字节级分词器用来代表 256 个字节的可见字符，下标就是字节值（GPT-2 的约定）。"""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))  # 空格、控制符等看不见的字节，借用后面的码位
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def _build_byte_bpe(texts, vocab_size):
    symbols = bytes_to_symbols()
    size = _check_size(vocab_size, 5 + 256, "5 个特殊词元加 256 个字节")
    scratch = Tokenizer(models.BPE())
    scratch.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    merges, pieces = _train_bpe(scratch, texts, size - 5, symbols)
    backend = Tokenizer(models.BPE(_number(SPECIAL_TOKENS, symbols, pieces), merges, unk_token="[UNK]"))
    backend.pre_tokenizer = scratch.pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    return backend


def _train_bpe(scratch, texts, size, alphabet):
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    scratch.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(scratch.to_str())["model"]["merges"]]
    return merges, ["".join(pair) for pair in merges]


def _build_char(texts, vocab_size):
    chars = _alphabet(texts)
    if vocab_size is not None:
        _check_size(vocab_size, 6, "5 个特殊词元之外至少要有一个字")
        chars = chars[: vocab_size - 5]
    backend = Tokenizer(models.BPE(_number(SPECIAL_TOKENS, chars), [], unk_token="[UNK]"))
    backend.decoder = decoders.Fuse()  # 直接相连，字与字之间没有空格
    return backend


def _build_wordpiece(texts, vocab_size):
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.pre_tokenizer = pre_tokenizers.Split(Regex(_CHUNK), "isolated")
    chars = _alphabet(texts)
    chunks = {chunk for text in texts for chunk, _ in scratch.pre_tokenizer.pre_tokenize_str(text)}
    tails = {char for chunk in chunks for char in chunk[1:]}
    continuing = [f"##{char}" for char in chars if char in tails]
    size = _check_size(vocab_size, 5 + len(chars) + len(continuing), "每个字要有词首和接续（##）两种写法")
    # ## 字先登记，编号才不随训练器内部的哈希次序变化；编号又决定频次相同时先合并谁
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*SPECIAL_TOKENS, *continuing], show_progress=False
    )
    scratch.train_from_iterator(texts, trainer)
    backend = Tokenizer(models.WordPiece(scratch.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    backend.pre_tokenizer = scratch.pre_tokenizer
    backend.decoder = decoders.Sequence([decoders.Replace(Regex(r"^##"), ""), decoders.Fuse()])
    return backend


def _build_bpe(texts, vocab_size):
    chars = _alphabet(texts)
    size = _check_size(vocab_size, 5 + 256 + len(chars), "要放下特殊词元、256 个回退字节和语料里的每个字")
    scratch = Tokenizer(models.BPE())
    scratch.pre_tokenizer = pre_tokenizers.Split(Regex(_CHUNK), "isolated")
    merges, pieces = _train_bpe(scratch, texts, size - 5 - 256, chars)
    vocab = _number(SPECIAL_TOKENS, _BYTE_TOKENS, chars, pieces)
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="[UNK]", byte_fallback=True))
    backend.pre_tokenizer = scratch.pre_tokenizer
    backend.decoder = _fallback_decoder()
    return backend


def _build_unigram(texts, vocab_size):
    chars = _alphabet(texts)
    minimum = 5 + 256 + len(chars)
    size = _check_size(vocab_size, minimum, "要放下特殊词元、256 个回退字节和语料里的每个字")
    scratch = Tokenizer(models.Unigram())
    scratch.pre_tokenizer = pre_tokenizers.Split(Regex(_CHUNK), "isolated")
    trainer = trainers.UnigramTrainer(
        vocab_size=size - 5 - 256 + 1, special_tokens=["[UNK]"], unk_token="[UNK]", show_progress=False
    )
    scratch.train_from_iterator(texts, trainer)
    scores = dict(map(tuple, json.loads(scratch.to_str())["model"]["vocab"]))
    scores.pop("[UNK]")
    # 训练器给没分到概率的字按哈希次序依次加 0.0001；这里抹平并四舍五入，同样的文本才得到同样的词表
    floor = min(scores.values())
    tied = floor + 1e-4 * (len(chars) + 1)
    scores = {piece: round(floor if score <= tied else score, 4) for piece, score in scores.items()}
    scores.update((char, round(floor, 4)) for char in chars if char not in scores)
    return _unigram_backend(scores, scratch.pre_tokenizer)


def _build_word(texts, vocab_size):
    chars = _alphabet(texts)
    minimum = 5 + 256 + len(chars)
    size = math.inf
    if vocab_size is not None:
        size = _check_size(vocab_size, minimum, "要放下特殊词元、256 个回退字节和语料里的每个字")
    counts = Counter(word for text in texts for word in jieba_words(text))
    words = [word for word in _by_frequency(counts) if len(word) > 1]
    words = words[: None if size == math.inf else size - minimum]
    total = sum(counts.values())
    kept = sorted([*chars, *words], key=lambda word: (-counts[word], word))
    scores = {word: math.log((counts[word] or 0.5) / total) for word in kept}
    # 把 [ 和 < 隔开，文字里的 [SEP]、<0x41> 就不会撞上词表里的特殊词元和字节
    return _unigram_backend(scores, pre_tokenizers.Split(Regex(r"[\[<]"), "isolated"))


def _unigram_backend(scores: dict[str, float], pre_tokenizer):
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    lowest = min(scores.values()) - 10.0
    vocab = [(token, 0.0) for token in SPECIAL_TOKENS]
    vocab += [(token, lowest) for token in _BYTE_TOKENS]
    backend = Tokenizer(models.Unigram(vocab + ordered, unk_id=1, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = _fallback_decoder()
    return backend


_BUILDERS = {
    "byte": _build_byte,
    "byte_bpe": _build_byte_bpe,
    "char": _build_char,
    "wordpiece": _build_wordpiece,
    "bpe": _build_bpe,
    "unigram": _build_unigram,
    "word": _build_word,
}
