"""一句中文的八种切法：同一个接口，八种粒度，都是真正的 ``PreTrainedTokenizerFast``。

首次实现：tokenization（那里先用手写的循环做一遍，再用这里的函数）。词表怎样训练见 utils/tokenization/vocabularies.py。
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from utils.paths import DATA
from utils.tokenization.vocabularies import BUILDERS, SPECIAL_TOKENS

IGNORE = -100                                             # 这个标签不计损失，库的损失函数都认它
GRANULARITY_NAMES = {
    "byte": "UTF-8 字节",
    "byte_bpe": "字节级 BPE",
    "char": "字",
    "bert": "BERT 的切法",
    "wordpiece": "WordPiece 子词",
    "bpe": "BPE 子词",
    "unigram": "Unigram 子词",
    "word": "词（jieba）",
}
GRANULARITIES = tuple(GRANULARITY_NAMES)
LOSSLESS = ("byte", "byte_bpe", "bpe", "unigram", "word")  # 任意文字都能一字不差地还原


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

    八种粒度，以及 ``decode`` 能不能把原文一字不差地还回来：
        byte: 一个 UTF-8 字节一个词元。任意文字都可还原。
        byte_bpe: 在字节上训练的 BPE（GPT-2 的做法）。任意文字都可还原。
        char: 一个 Unicode 字符一个词元，数字、字母、标点、空格也各算一个；按词频排序，词频相同按码点。
            训练文本里没有的字变成 ``[UNK]``，这个字丢失；其余可还原。
        bert: bert-base-chinese 的切法：每个汉字隔开，其余按空白和标点分开，再在每一段里做 WordPiece。所以汉字都是单字，
            拉丁字母和数字是子词。有损：生字变 ``[UNK]``，空白和控制符的写法丢失，``decode`` 在词元之间一律加空格。
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
        ValueError: 粒度不认识、语料为空、``vocab_size`` 装不下最小词表、文字里有不成对的代理码（半个字符）。
        TypeError: ``texts`` 是单个字符串，或里面有不是字符串的东西。
    """
    if granularity not in GRANULARITY_NAMES:
        options = "、".join(f"{key}({name})" for key, name in GRANULARITY_NAMES.items())
        raise ValueError(f"不认识的粒度 {granularity!r}。可以用的有：{options}")
    texts = _check_texts(texts)
    backend = BUILDERS[granularity](texts, vocab_size)
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
    return next(encode_all_pairs(tokenizer, [intro], [body], max_len))


def encode_all_pairs(tokenizer, intros: Sequence[str], bodies: Sequence[str], max_len: int) -> Iterator[dict]:
    """许多对导语和正文，逐对给出 ``encode_pair`` 的字典；一次编好，所以快得多。参数和错误同 ``encode_pair``。"""
    for intro, body in zip(intros, bodies, strict=True):
        for name, text in (("导语 intro", intro), ("正文 body", body)):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name}是空的（得到 {text!r}）；两段都要有文字。")
    cls_id, sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    for left, right in zip(encode_texts(tokenizer, intros, special=False), encode_texts(tokenizer, bodies, special=False), strict=True):
        total = len(left) + len(right) + 3
        if total > max_len:
            raise ValueError(
                f"导语 {len(left)} 个词元，正文 {len(right)} 个词元，加上 [CLS] 和两个 [SEP] 共 {total} 个，"
                f"放不进 max_len={max_len}。请缩短文本或加大 max_len。"
            )
        yield {
            "input_ids": [cls_id, *left, sep_id, *right, sep_id],
            "attention_mask": [1] * total,
            "token_type_ids": [0] * total,
            "prompt_len": len(left) + 2,
        }


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """把许多段文字一次编成编号：不截断、不填充，文字里的 ``[SEP]`` 之类只当普通文字。

    与 ``tokenizer(texts, split_special_tokens=True)["input_ids"]`` 的结果相同，但不另造 attention_mask 和 token_type_ids，
    也不记偏移量，所以几乎与 ``tokenizers`` 自己一样快（tokenization 第 10 节并排量过）。

    参数：
        tokenizer: ``build_tokenizer`` 的返回值，或别的 ``PreTrainedTokenizerFast``。
        texts: 字符串的列表。
        special: 是否加上 ``[CLS]`` 与 ``[SEP]``。
    返回：
        编号的列表的列表，与 texts 一一对应。
    错误：
        ValueError: 有一段含不成对的代理码（半个字符）。
        TypeError: texts 是单个字符串，或里面有不是字符串的东西。
    """
    if isinstance(texts, str):
        raise TypeError("texts 应当是字符串的列表；只有一段文字时写成 [文字]。")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    before, backend.encode_special_tokens = backend.encode_special_tokens, True
    try:
        return [encoded.ids for encoded in backend.encode_batch_fast(texts, add_special_tokens=special)]
    except TypeError:
        for text in texts:
            _check_text(text)
        raise
    finally:
        backend.encode_special_tokens = before


def _check_text(text) -> str:
    if not isinstance(text, str):
        raise TypeError(f"texts 里应当都是字符串，却有一个 {type(text).__name__}：{text!r}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"有一段文字的第 {error.start + 1} 个字符是半个字符（不成对的代理码），不是合法的文字：请删掉它再试。") from None
    return text


def _check_texts(texts) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts 应当是字符串的列表；只有一段文字时写成 [文字]。")
    texts = [text for text in map(_check_text, texts) if text.strip()]
    if not texts:
        raise ValueError("语料是空的：texts 里没有一段有文字的内容，无法建立词表。")
    return texts


# ---------------------------------------------------------------- 全课程共用的一张字表


def course_tokenizer(model_max_length: int = 256) -> PreTrainedTokenizerFast:
    """课程的分词器：一个字一个词元，字表是 data/vocabulary 里的那一张；课程的每个检查点都用它，所以可以互相替换。

    参数：
        model_max_length: 截断长度（个词元），应当等于模型的位置数。
    返回：
        ``PreTrainedTokenizerFast``，每次都是新的一个，往里添词元不影响别处。
    字表怎样得来：mlm_pretraining。
    """
    return AutoTokenizer.from_pretrained(DATA / "vocabulary", local_files_only=True, model_max_length=model_max_length)


_IDS: WeakKeyDictionary = WeakKeyDictionary()


def vocabulary_id(tokenizer) -> str:
    """字表的指纹：同样的词元、同样的编号，指纹才相同。后来用 ``add_tokens`` 添的词元不算在内。"""
    if tokenizer not in _IDS:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        table = backend.get_vocab(with_added_tokens=False) if backend is not None else tokenizer.get_vocab()
        lines = "\n".join(f"{i} {token}" for token, i in sorted(table.items(), key=lambda pair: pair[1]))
        _IDS[tokenizer] = hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return _IDS[tokenizer]


def check_vocabulary(model, tokenizer) -> None:
    """模型与分词器不是一对，就报错：编号对不上时，模型不会报错，只会把每个字都认成别的字。

    参数：
        model: 有 ``config`` 的模型；别的（例如自己写的 nn.Module）无从查起，不查。``config.vocabulary_id`` 是它的字表的指纹
            （utils.training.bert_config 写下的），没有时只比大小。
        tokenizer: 分词器；或别的记着 ``vocabulary_id`` 与 ``vocabulary_size`` 的东西，例如整理函数。
    错误：
        ValueError: 字表不同，或词元比模型的词嵌入还多。
    """
    config = getattr(model, "config", None)
    size = getattr(config, "vocab_size", None)
    if size is None or tokenizer is None:
        return
    ours, length = ((tokenizer.vocabulary_id, tokenizer.vocabulary_size) if hasattr(tokenizer, "vocabulary_id")
                    else (vocabulary_id(tokenizer), len(tokenizer)))
    theirs = getattr(config, "vocabulary_id", None)
    if length > size or theirs not in (None, ours):
        raise ValueError(f"模型和分词器不是一对：模型的词表有 {size} 个词元（指纹 {theirs or '未知'}），"
                         f"分词器有 {length} 个（指纹 {ours}）。编号对不上，算出来的全是错的。"
                         "请用 load_checkpoint 一次取出的模型和分词器。")


def unknown_characters(tokenizer, *texts: str) -> list[str]:
    """这几段文字里，分词器不认识（变成 ``[UNK]``）的字，每个一次，按出现的次序。

    参数：
        tokenizer: 快速分词器；没有 ``[UNK]`` 的，总是返回空列表。
        texts: 文字；None 跳过。
    """
    unk, found = tokenizer.unk_token_id, {}
    for text in texts if unk is not None else ():
        if not text:
            continue
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for i, (begin, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if i == unk and text[begin:end] != tokenizer.unk_token:
                found.update(dict.fromkeys(text[begin:end]))
    return list(found)


def unknown_note(tokenizer, *texts: str, most: int = 12) -> str:
    """说给学习者听的一句话：哪些字不在词表里。都认识时是空串。

    参数：
        tokenizer, texts: 同 unknown_characters。
        most: 最多点名几个字。
    """
    found = unknown_characters(tokenizer, *texts)
    if not found:
        return ""
    more = f"……共 {len(found)} 个" if len(found) > most else ""
    named, them = "".join(f"「{c}」" for c in found[:most]), "它们都" if len(found) > 1 else "它"
    return f"词表里没有{named}{more}：模型把{them}看成 [UNK]，认不出是哪个字。"


def name_unknown(tokenizer, *texts: str) -> None:
    """把 unknown_note 打印出来；都认识时什么也不打印。"""
    note = unknown_note(tokenizer, *texts)
    if note:
        print(note)
