"""八种词表怎样训练：每个函数由一批文字造出一个 ``tokenizers.Tokenizer``，模板和外壳由 utils/tokenization/tokenizer.py 加上。

首次实现：tokenization（BPE 与 WordPiece 的训练和编码、Unigram 的最优切分，都在那里先用手写的循环做一遍）。
"""

import json
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # 编号固定为 0..4
DEFAULT_MERGES = 2000  # 不写 vocab_size 时，子词词表 = 最小词表 + 这么多个多字词元

# 子词不跨越标点：一串字母（汉字也是字母）、一串数字、或者单独一个别的字符（标点、空格、换行、emoji）
_CHUNK = r"[\p{L}\p{M}]+|\p{N}+|[^\p{L}\p{M}\p{N}]"
_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))  # tokenizers 规定的字节回退写法


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
    backend = _wordpiece(texts, vocab_size, None, pre_tokenizers.Split(Regex(_CHUNK), "isolated"))
    backend.decoder = decoders.Sequence([decoders.Replace(Regex(r"^##"), ""), decoders.Fuse()])
    return backend


def _build_bert(texts, vocab_size):
    # bert-base-chinese 的预处理：去掉控制符、空白都变成空格、每个汉字两边加空格，再按空白与标点分开；大小写不动
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend = _wordpiece(texts, vocab_size, normalizer, pre_tokenizers.BertPreTokenizer())
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)  # 词元之间一律放一个空格
    return backend


def _wordpiece(texts, vocab_size, normalizer, pre_tokenizer):
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    if normalizer is not None:
        scratch.normalizer = normalizer
        texts = [normalizer.normalize_str(text) for text in texts]
    scratch.pre_tokenizer = pre_tokenizer
    chunks = Counter(chunk for text in texts for chunk, _ in pre_tokenizer.pre_tokenize_str(text))
    counts = Counter()
    for chunk, times in chunks.items():
        for char in chunk:
            counts[char] += times
    if not counts:
        raise ValueError("语料是空的：去掉控制符和空白之后，texts 里什么也没剩下。")
    chars = _by_frequency(counts)
    tails = {char for chunk in chunks for char in chunk[1:]}
    continuing = [f"##{char}" for char in chars if char in tails]
    size = _check_size(vocab_size, 5 + len(chars) + len(continuing), "每个字要有词首和接续（##）两种写法")
    # ## 字先登记，编号才不随训练器内部的哈希次序变化；编号又决定频次相同时先合并谁
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*SPECIAL_TOKENS, *continuing], show_progress=False
    )
    scratch.train_from_iterator(texts, trainer)
    backend = Tokenizer(models.WordPiece(scratch.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer
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


BUILDERS = {
    "byte": _build_byte,
    "byte_bpe": _build_byte_bpe,
    "char": _build_char,
    "bert": _build_bert,
    "wordpiece": _build_wordpiece,
    "bpe": _build_bpe,
    "unigram": _build_unigram,
    "word": _build_word,
}
