"""utils.generation.metrics：手算得出的小例子、sacrebleu 的约定、事实核对，以及 BPC 与逐篇计算相等。"""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertLMHeadModel

from utils.corpus import news as corpus
from utils.generation import metrics as M
from utils.tokenization.tokenizer import build_tokenizer, encode_pair


def test_distinct_and_repetition_by_hand():
    assert M.distinct_n(["晴晴晴", "雨"], 1) == pytest.approx(2 / 4)
    assert M.distinct_n(["晴晴晴", "雨"], 2) == pytest.approx(1 / 2)
    assert M.distinct_n(["晴"], 2) == 0.0
    assert M.repetition(["今天今天", "今天明天"], 2) == pytest.approx((1 / 3 + 0) / 2)
    assert M.repetition(["今天", "今天"], 2) == 0.0                   # 两篇之间相同，不算一篇之内的重复
    assert M.repetition(["结果表明，" * 10], 4) > 0.8


def test_chrf_and_bleu():
    reference = ["鹤鸣市今天天气晴好，最高气温达到二十度。", "银滩队以三比二战胜了枫林队。"]
    worse = ["鹤鸣市今天有大雨，最低气温只有五度。", "两队握手言和。"]
    for metric in (M.chrf, M.bleu):
        assert metric(reference, reference) == pytest.approx(100)
        assert metric(worse, reference) < 60
    one_char = [reference[0], reference[1].replace("三", "五")]
    assert M.chrf(one_char, reference) > 80                          # 比分写错一个字，分数几乎不变
    assert M.bleu(["最高气温二十度左右。"], ["最高气温二十度上下。"]) > 30     # 不按字切的话会是 0


def test_fidelity_on_the_corpus_and_on_swapped_bodies():
    docs = corpus.generate("test", 30)
    intros, bodies = list(docs["intro"]), list(docs["body"])
    real = M.fidelity(intros, bodies)
    assert real.faithful == real.well_formed == 1 and real.contradicted == real.missing == 0 and real.n == 30
    swapped = M.fidelity(intros, bodies[1:] + bodies[:1])
    assert swapped.faithful < 0.3
    assert M.fidelity(intros, ["一句不相干的话。"] * 30).faithful < 0.3
    low, high = real.interval
    assert high == 1 and M.fidelity(intros[:4], bodies[:4]).interval[0] < low < 0.9
    half = M.Fidelity(0.5, 0, 0, 0, 100, ()).interval
    assert half == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_body_bits_per_char_equals_one_at_a_time():
    docs = corpus.generate("test", 5)
    intros, bodies = list(docs["intro"]), list(docs["body"])
    tokenizer = build_tokenizer("char", intros + bodies)
    torch.manual_seed(0)
    model = BertLMHeadModel(BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=400, is_decoder=True)).train()
    got = M.body_bits_per_char(model, tokenizer, intros, bodies, batch_size=2)
    assert model.training
    model.eval()
    nats = 0.0
    for intro, body in zip(intros, bodies, strict=True):
        item = encode_pair(tokenizer, intro, body, 400)
        ids, prompt = torch.tensor([item["input_ids"]]), item["prompt_len"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, prompt - 1: -1]
        nats += F.cross_entropy(logits, ids[0, prompt:], reduction="sum").item()
    assert got == pytest.approx(nats / math.log(2) / sum(map(len, bodies)), rel=1e-5)
    loss = M.body_loss(model, tokenizer, intros, bodies, batch_size=3)
    assert loss == pytest.approx(nats / (sum(map(len, bodies)) + len(bodies)), rel=1e-5)
    assert got == pytest.approx(math.log2(len(tokenizer)), rel=0.1)  # 没练过的模型接近均匀分布


def test_errors_in_chinese():
    with pytest.raises(TypeError, match="列表"):
        M.distinct_n("一篇文章")
    with pytest.raises(ValueError, match="一篇文章也没有"):
        M.repetition([])
    with pytest.raises(ValueError, match="正整数"):
        M.distinct_n(["文章"], 0)
    with pytest.raises(ValueError, match="一一对应"):
        M.body_loss(None, None, ["甲", "乙"], ["甲"])
    for metric in (M.chrf, M.bleu, M.fidelity):
        with pytest.raises(ValueError, match="一一对应"):
            metric(["甲", "乙"], ["甲"])
