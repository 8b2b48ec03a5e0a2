"""分词器：编号、模板、往返、存取、与 Hugging Face 各部件的配合。"""

import gc
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from utils.tokenization.tokenizer import (
    GRANULARITIES,
    GRANULARITY_NAMES,
    LOSSLESS,
    SPECIAL_TOKENS,
    build_tokenizer,
    encode_pair,
    encode_texts,
)
from utils.tokenization.vocabularies import bytes_to_symbols, jieba_words

TEXTS = [
    "今天是个好天气,杭州队在主场以3比2战胜了上海队。",
    "今天是个好日子,上海队在客场以1比0战胜了杭州队。",
    "研究生命的起源,是2026年的重要课题;NBA开赛,气温3.5度!",
    "Hello world,杭州的天气真好。\n第二段:上海的天气也好。",
] * 3
ODD = [
    "𠮷野家的😀与👨‍👩‍👧,ABC １２３\t\r\n é ##abc [UN] ▁Ġ  尾",
    "[SEP]我[MASK]<0x41>##[PAD]",
    "<0xE4><0xB8>",
    "龘龘龘",
    "  两头有空格  ",
    "ॐ\u200d\x00\ufeff\u3000",
    "".join(map(chr, [0x10FFFF, 0xFFFD, 0xE000, 0x0301, 0x0301, 0x41])),
    "今天" * 300,
]
EXACT = [name for name in GRANULARITIES if name != "bert"]     # 训练过的文字能一字不差地还原
PLAIN = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}


@pytest.fixture(scope="module")
def tokenizers():
    return {name: build_tokenizer(name, TEXTS) for name in GRANULARITIES}


def spelling(tokenizer):
    return tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize("name", GRANULARITIES)
def test_special_tokens_and_templates(tokenizers, name):
    tok = tokenizers[name]
    assert isinstance(tok, PreTrainedTokenizerFast)
    assert tok.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert [tok.pad_token_id, tok.unk_token_id, tok.cls_token_id] == [0, 1, 2]
    assert [tok.sep_token_id, tok.mask_token_id] == [3, 4]
    a, b = tok("今天", **PLAIN)["input_ids"], tok("杭州", **PLAIN)["input_ids"]
    assert tok("今天")["input_ids"] == [2, *a, 3]
    pair = tok("今天", "杭州")
    assert pair["input_ids"] == [2, *a, 3, *b, 3]
    assert pair["token_type_ids"] == [0] * len(pair["input_ids"])
    assert set(tok.get_vocab().values()) == set(range(len(tok)))
    assert tok("队[MASK]")["input_ids"][-2] == 4
    assert 4 not in tok("队[MASK]", split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("name", GRANULARITIES)
def test_truncation_works(name):
    tok = build_tokenizer(name, TEXTS, model_max_length=12)
    ids = tok(TEXTS[2] + TEXTS[0], truncation=True)["input_ids"]
    assert len(ids) == 12 and ids[0] == 2 and ids[-1] == 3


@pytest.mark.parametrize("name", EXACT)
def test_training_text_comes_back_exactly(tokenizers, name):
    tok = tokenizers[name]
    for text in TEXTS:
        ids = tok(text, **PLAIN)["input_ids"]
        assert 1 not in ids
        assert tok.decode(ids) == text
        assert tok.decode(tok(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("name", LOSSLESS)
def test_any_text_comes_back_exactly(tokenizers, name):
    tok, rng = tokenizers[name], random.Random(7)
    points = [p for p in range(1, 0x110000, 37) if not 0xD800 <= p < 0xE000]
    soup = ["".join(map(chr, rng.choices(points, k=rng.randint(1, 40)))) for _ in range(200)]
    dense = ["".join(rng.choices("今天杭州队<>[]0xE4#A \n😀é", k=30)) for _ in range(200)]
    for text in ODD + soup + dense:
        ids = tok(text, **PLAIN)["input_ids"]
        assert 1 not in ids
        assert tok.decode(ids) == text


def test_documented_losses(tokenizers):
    char = tokenizers["char"]
    assert char.tokenize("今龘 3.5") == ["今", "[UNK]", " ", "3", ".", "5"]
    assert char.decode(char("今龘天", **PLAIN)["input_ids"]) == "今[UNK]天"
    piece = tokenizers["wordpiece"]
    assert piece.tokenize("今天龘是,今天") == ["[UNK]", ",", *piece.tokenize("今天")]
    assert piece.tokenize("今天" * 51) == ["[UNK]"]
    assert piece.decode(piece("好#天##", **PLAIN)["input_ids"]).count("[UNK]") == 3


def test_bert_is_a_character_model(tokenizers):
    """汉字个个分开，词表里没有多字的汉字词元；字母和数字是子词；解码加空格，空白的写法丢失。"""
    bert = tokenizers["bert"]
    assert bert.tokenize("杭州的天气") == list("杭州的天气")
    assert not [token for token in bert.get_vocab() if sum("一" <= c <= "龥" for c in token) > 1]
    assert bert.tokenize("龘天") == ["[UNK]", "天"]
    assert bert.tokenize("Hello") == ["Hello"] and bert.tokenize("今Hello天") == ["今", "Hello", "天"]
    assert bert.decode(bert("今天\t 3.5", **PLAIN)["input_ids"]) == "今 天 3 . 5"
    assert bert.tokenize("hello") != bert.tokenize("Hello")           # 不改大小写
    with pytest.raises(ValueError, match="什么也没剩下"):
        build_tokenizer("bert", ["\x00\x01"])


def test_char_vocabulary_is_by_frequency_then_code_point():
    tok = build_tokenizer("char", ["乙乙丙甲", "甲 丙", "丁"])
    order = sorted(tok.get_vocab(), key=tok.get_vocab().get)[5:]
    assert order == sorted("丙乙甲") + sorted(" 丁")
    small = build_tokenizer("char", ["乙乙丙甲", "甲 丙", "丁"], vocab_size=6)
    assert small.tokenize("丙乙") == [order[0], "[UNK]"]


def test_byte_ids_are_the_byte_values(tokenizers):
    assert [i - 5 for i in tokenizers["byte"]("今A", **PLAIN)["input_ids"]] == list("今A".encode())
    assert len(set(bytes_to_symbols())) == 256


@pytest.mark.parametrize("name", GRANULARITIES)
def test_same_texts_same_vocabulary_in_another_process(tokenizers, name):
    code = (
        "import sys, json; from utils.tokenization import build_tokenizer\n"
        "texts = json.loads(sys.stdin.buffer.read())\n"
        f"out = build_tokenizer({name!r}, texts).backend_tokenizer.to_str()\n"
        "sys.stdout.buffer.write(out.encode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(TEXTS[::-1]).encode(),
        capture_output=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.decode() == spelling(tokenizers[name])
    assert not done.stderr


@pytest.mark.parametrize("name", GRANULARITIES)
def test_saves_and_loads(tokenizers, name, tmp_path):
    tok = tokenizers[name]
    tok.save_pretrained(tmp_path)
    BertConfig(vocab_size=len(tok)).save_pretrained(tmp_path)  # 与模型放在同一个文件夹也不变样
    for loader in (PreTrainedTokenizerFast, AutoTokenizer):
        again = loader.from_pretrained(tmp_path)
        assert spelling(again) == spelling(tok)
        assert again.model_max_length == 256 and again.mask_token_id == 4
        assert again("今天", "杭州") == tok("今天", "杭州")
        if name != "bert":
            assert again.decode(again("3.5 度", **PLAIN)["input_ids"]) == "3.5 度"


@pytest.mark.parametrize("name", GRANULARITIES)
def test_works_with_collator_and_generate(tokenizers, name):
    tok = tokenizers[name]
    collate = DataCollatorForLanguageModeling(tok, mlm_probability=0.5)
    batch = collate([tok(TEXTS[0], truncation=True), tok("今天", truncation=True)])
    assert batch["input_ids"].shape == batch["labels"].shape
    assert (batch["labels"][1, 3:][batch["attention_mask"][1, 3:] == 0] == -100).all()
    config = BertConfig(
        vocab_size=len(tok), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, is_decoder=True,
    )  # fmt: skip
    model = BertLMHeadModel(config).eval()
    prompt = torch.tensor([tok("今天")["input_ids"]])
    out = model.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=3)
    assert tok.decode(out[0], skip_special_tokens=True).startswith("今 天" if name == "bert" else "今天")


@pytest.mark.parametrize("name", GRANULARITIES)
def test_works_with_trainer(tokenizers, name, tmp_path):
    """Trainer 拿它当 processing_class：练得动，损失下降，存下的文件夹里有一模一样的分词器。"""
    tok = tokenizers[name]
    config = BertConfig(
        vocab_size=len(tok), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, is_decoder=True, loss_type="ForCausalLM",
    )  # fmt: skip
    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=4, learning_rate=0.03, use_cpu=True,
        report_to="none", disable_tqdm=True, logging_steps=1, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(
        model=BertLMHeadModel(config), args=args, train_dataset=[tok(text, truncation=True) for text in TEXTS],
        data_collator=DataCollatorForLanguageModeling(tok, mlm=False), processing_class=tok,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0] - 0.3
    trainer.save_model(str(tmp_path / "final"))
    assert spelling(AutoTokenizer.from_pretrained(tmp_path / "final")) == spelling(tok)


@pytest.mark.parametrize("name", GRANULARITIES)
def test_encode_texts_equals_the_tokenizer(tokenizers, name):
    tok, texts = tokenizers[name], TEXTS + ODD + [""]
    tok(texts[0], truncation=True, max_length=4, padding="max_length")     # 上一次调用留下的截断和填充不起作用
    for special in (True, False):
        expected = tok(texts, add_special_tokens=special, split_special_tokens=True, verbose=False)["input_ids"]
        tok(texts[0], truncation=True, max_length=4, padding="max_length")
        assert encode_texts(tok, texts, special) == expected
    assert 4 in tok("队[MASK]")["input_ids"]                               # 之后照旧认特殊词元


def test_encode_texts_costs_little(tokenizers):
    """外壳的开销：与 tokenizers 自己并排，各量九次取最快，用 CPU 时间，不算垃圾回收。"""
    texts = [TEXTS[i % 4] * (1 + i % 7) for i in range(3000)]
    for name in ("char", "bpe"):
        tok, best = tokenizers[name], {"库": math.inf, "外壳": math.inf}
        ways = {"库": lambda tok=tok: [e.ids for e in tok.backend_tokenizer.encode_batch_fast(texts)],
                "外壳": lambda tok=tok: encode_texts(tok, texts)}
        gc.collect()
        gc.disable()
        try:
            for _ in range(9):
                for way, encode in ways.items():
                    begin = time.process_time()
                    encode()
                    best[way] = min(best[way], time.process_time() - begin)
        finally:
            gc.enable()
        assert best["外壳"] < 1.25 * best["库"], best               # 平常不到一成；机器忙的时候量不准


def test_encode_texts_refuses_bad_input(tokenizers):
    tok = tokenizers["char"]
    with pytest.raises(ValueError, match="第 2 个字符是半个字符"):
        encode_texts(tok, ["今天", "今\ud83d"])
    with pytest.raises(TypeError, match="NoneType"):
        encode_texts(tok, ["今天", None])
    with pytest.raises(TypeError, match="列表"):
        encode_texts(tok, "今天")


def test_word_follows_jieba_and_spells_out_the_unknown(tokenizers):
    word = tokenizers["word"]
    assert word.tokenize("今天杭州") == ["今天", "杭州"]
    assert word.tokenize("今杭") == ["今", "杭"]
    assert word.tokenize("龘") == [f"<0x{b:02X}>" for b in "龘".encode()]
    for text in TEXTS + ODD:
        assert "".join(jieba_words(text)) == text


@pytest.mark.parametrize("name", ["byte_bpe", "wordpiece", "bpe", "unigram", "word", "char", "bert"])
def test_vocab_size_is_kept(tokenizers, name):
    size = {"byte_bpe": 300, "wordpiece": 150, "char": 30, "bert": 150}.get(name, 340)
    assert len(build_tokenizer(name, TEXTS, vocab_size=size)) <= size
    with pytest.raises(ValueError, match="太小"):
        build_tokenizer(name, TEXTS, vocab_size=5)


def test_encode_pair(tokenizers):
    tok = tokenizers["char"]
    out = encode_pair(tok, "今天[SEP]", "杭州", max_len=12)
    assert out["prompt_len"] == 1 + 2 + 5 + 1
    assert out["input_ids"][out["prompt_len"] - 1] == 3 and out["input_ids"].count(3) == 2
    assert len(out["input_ids"]) == 12 == len(out["attention_mask"]) == len(out["token_type_ids"])
    assert set(out["token_type_ids"]) == {0} and set(out["attention_mask"]) == {1}
    assert encode_pair(tok, "今天", "杭州", 7)["input_ids"] == tok("今天", "杭州")["input_ids"]
    with pytest.raises(ValueError, match="放不进 max_len=6"):
        encode_pair(tok, "今天", "杭州", 6)
    for intro, body in (("", "杭州"), ("今天", " \n")):
        with pytest.raises(ValueError, match="是空的"):
            encode_pair(tok, intro, body, 9)


def test_errors_are_in_chinese():
    with pytest.raises(ValueError, match="不认识的粒度 'chars'") as error:
        build_tokenizer("chars", TEXTS)
    assert all(name in str(error.value) for name in GRANULARITY_NAMES)
    for empty in ([], ["", "  "]):
        with pytest.raises(ValueError, match="语料是空的"):
            build_tokenizer("char", empty)
    with pytest.raises(TypeError, match="列表"):
        build_tokenizer("char", "今天")
    with pytest.raises(TypeError, match="NoneType"):
        build_tokenizer("char", ["今天", None])
    with pytest.raises(ValueError, match="半个字符"):
        build_tokenizer("char", ["今天", "\ud83d"])
    with pytest.raises(ValueError, match="恒为 261"):
        build_tokenizer("byte", TEXTS, vocab_size=100)
