"""分词器的性质：对任意 Unicode 文字都成立的等式，由 hypothesis 找反例。

文字取自全部码点（代理码除外：它们不是文字），再混进汉字、特殊词元的写法、看不见的字符，容易出错的地方才碰得到。
"""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from utils.tokenization.tokenizer import GRANULARITIES, LOSSLESS, build_tokenizer, encode_texts

TEXTS = [
    "今天是个好天气，杭州队在主场以3比2战胜了上海队。",
    "研究生命的起源，是2026年的重要课题;NBA开赛，气温3.5度!",
    "Hello world,杭州的天气真好。\n第二段：上海的 \t天气也好。##[<",
] * 3
ALPHABET = sorted(set("".join(TEXTS)))
PIECES = st.sampled_from([*ALPHABET, "今天", "天气", "[SEP]", "[MASK]", "[UNK]", "##", "##天", "<0xE4>", "<0x", "Ġ", "▁", " ", "  ",
                          "\n", "\r\n", "\u3000", "\x00", "\u200d", "\ufeff", "e\u0301", "龘", "𠮷", "\U0002CEB1", "👨‍👩‍👧", "\U0010FFFF"])
ANY = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.characters(exclude_categories=("Cs",))), max_size=30).map("".join),
                st.text(alphabet=ALPHABET))
PLAIN = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
many = settings(deadline=None, max_examples=200, derandomize=True, database=None)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """每种粒度一对：刚建好的，和存了再读回来的。"""
    pairs = {}
    for name in GRANULARITIES:
        built, folder = build_tokenizer(name, TEXTS), tmp_path_factory.mktemp(name)
        built.save_pretrained(folder)
        pairs[name] = built, PreTrainedTokenizerFast.from_pretrained(folder)
    return pairs


def ids_of(tok, text):
    return tok(text, **PLAIN)["input_ids"]


@pytest.mark.parametrize("name", LOSSLESS)
def test_round_trip_is_exact(tokenizers, name):
    tok, _ = tokenizers[name]

    @many
    @given(ANY)
    def check(text):
        ids = ids_of(tok, text)
        assert tok.decode(ids) == text
        assert all(5 <= i < len(tok) for i in ids)                   # 没有 [UNK]，也没有别的特殊词元
        assert tok.decode(encode_texts(tok, [text])[0], skip_special_tokens=True) == text

    check()


def test_char_loses_exactly_the_unknown_characters(tokenizers):
    tok, _ = tokenizers["char"]
    known = set(tok.get_vocab())

    @many
    @given(ANY)
    def check(text):
        ids = ids_of(tok, text)
        assert len(ids) == len(text)
        assert tok.decode(ids) == "".join(char if char in known else "[UNK]" for char in text)

    check()


def longest_match(chunk, vocab):
    """WordPiece 的定义，照着写。"""
    pieces, start = [], 0
    while start < len(chunk):
        for stop in range(len(chunk), start, -1):
            piece = ("##" if start else "") + chunk[start:stop]
            if piece in vocab:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        start = stop
    return pieces if len(chunk) <= 100 else ["[UNK]"]


def test_wordpiece_is_the_longest_match_and_loses_only_where_it_says_unk(tokenizers):
    tok, _ = tokenizers["wordpiece"]
    vocab, kind = set(tok.get_vocab()), lambda c: {"L": "L", "M": "L", "N": "N"}.get(unicodedata.category(c)[0], "")

    def chunks(text):                                                # 一串字母（含附加符号）、一串数字，别的字符各自一段
        start = 0
        for stop in range(1, len(text) + 1):
            if stop == len(text) or not kind(text[start]) or kind(text[stop]) != kind(text[start]):
                yield text[start:stop]
                start = stop

    @many
    @given(st.one_of(st.text(alphabet=ALPHABET), st.lists(PIECES, max_size=20).map("".join)))
    def check(text):
        tokens, expected = tok.convert_ids_to_tokens(ids_of(tok, text)), [p for c in chunks(text) for p in longest_match(c, vocab)]
        assert tokens == expected
        if "[UNK]" not in tokens and not re.search("##", text):
            assert tok.decode(ids_of(tok, text)) == text

    check()


def test_bert_loses_only_unknown_words_and_spacing(tokenizers):
    """汉字和标点一个一个地出来；没有 [UNK] 时，去掉空白之后与原文相同。"""
    tok, _ = tokenizers["bert"]
    letters = [char for char in ALPHABET if not char.isspace()]

    @many
    @given(st.text(alphabet=[*letters, " ", "\n", "龘"]))
    def check(text):
        tokens = tok.convert_ids_to_tokens(ids_of(tok, text))
        han = [token for token in tokens if re.search("[一-龥]", token)]
        assert all(len(token) == 1 for token in han)
        assert len(han) == len(re.findall("[一-龥]", text)) - text.count("龘")
        if "[UNK]" not in tokens:
            assert re.sub(r"\s", "", tok.decode(ids_of(tok, text))) == re.sub(r"\s", "", text)

    check()


@pytest.mark.parametrize("name", GRANULARITIES)
def test_templates_and_loading_hold_for_any_text(tokenizers, name):
    tok, again = tokenizers[name]

    @many
    @given(ANY, ANY.filter(bool))                                    # 第二段是空串时，transformers 当作没有第二段
    def check(a, b):
        left, right = ids_of(tok, a), ids_of(tok, b)
        pair = tok(a, b, split_special_tokens=True, verbose=False)
        assert pair["input_ids"] == [2, *left, 3, *right, 3]
        assert set(pair["token_type_ids"]) == {0} and set(pair["attention_mask"]) == {1}
        assert encode_texts(tok, [a, b]) == [[2, *left, 3], [2, *right, 3]]
        assert ids_of(again, a) == left and again.decode(left) == tok.decode(left)

    check()


@pytest.mark.parametrize("name", ["byte", "char"])
def test_small_units_do_not_look_around(tokenizers, name):
    """字节和字不看左右：两段连起来切，等于各自切了再连起来。合并过的单位没有这个性质。"""
    tok, _ = tokenizers[name]

    @many
    @given(ANY, ANY)
    def check(a, b):
        assert ids_of(tok, a + b) == ids_of(tok, a) + ids_of(tok, b)

    check()
    merged, _ = tokenizers["bpe"]
    assert ids_of(merged, "今天") != ids_of(merged, "今") + ids_of(merged, "天")


@pytest.mark.parametrize("name", GRANULARITIES)
def test_offsets_cover_the_text_in_order(tokenizers, name):
    """偏移量从左到右不回头；无损的粒度盖满全文。"""
    tok, _ = tokenizers[name]

    @many
    @given(ANY)
    def check(text):
        spans = tok(text, return_offsets_mapping=True, **PLAIN)["offset_mapping"]
        assert all(0 <= a <= b <= len(text) for a, b in spans)
        assert all(first[0] <= second[0] and first[1] <= second[1] for first, second in zip(spans, spans[1:], strict=False))
        if name in LOSSLESS:
            assert {i for a, b in spans for i in range(a, b)} == set(range(len(text)))

    check()
