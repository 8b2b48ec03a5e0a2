"""utils.generation：与 transformers 相等，缓存、分批不改变结果。"""

import math
from collections import Counter

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from utils.generation import decoding as D
from utils.generation import writer as W
from utils.generation import writing as G
from utils.generation.kv_cache import CachedDecoder, UncachedDecoder
from utils.tokenization.tokenizer import build_tokenizer

TEXT = "今天是个大晴天，鹤鸣市最低气温8摄氏度。昼夜温差达9度，老人和孩子要注意添衣！银滩队以3比2获胜"
INTROS = ["今天是个大晴天。", "鹤鸣市气温8度。", "银滩队以3比2获胜，老人和孩子", "天", "昼夜温差大！"]
POSITIONS = 60


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """模型极小，多线程只会互相等待。"""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("char", [TEXT])


def make_model(tokenizer, seed=0, is_decoder=True, cls=BertLMHeadModel):
    """随机的小模型：logits 差距拉大，并让 [SEP] 不时胜出，好让各行长短不一。"""
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=64, max_position_embeddings=POSITIONS, is_decoder=is_decoder,
                        initializer_range=0.4)
    model = cls(config).eval()
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.sep_token_id] = 2.0
    return model


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer)


def library(model, tokenizer, intro, **options):
    """transformers 自己的 generate，返回新写的文字（不含 [SEP]）。"""
    ids = torch.tensor([G.encode_prompt(tokenizer, intro, "")])
    banned = tokenizer.convert_tokens_to_ids(list(W.NEVER))
    out = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=tokenizer.sep_token_id,
                         pad_token_id=0, suppress_tokens=banned, **options)
    return tokenizer.decode(out[0, ids.size(1):], skip_special_tokens=True)


# ---- 改造分布
@pytest.mark.parametrize("k", [1, 3, 7, 1000])
def test_top_k_equals_library(k):
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(k))
    logits[0, :10] = logits[0, 10]                                   # 并列
    torch.testing.assert_close(D.top_k_filter(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.9, 1.0])
def test_top_p_equals_library(p):
    logits = 3 * torch.randn(4, 50, generator=torch.Generator().manual_seed(int(100 * p)))
    logits[1] = 0.0                                                  # 均匀分布
    logits[2, 5:] = -math.inf
    torch.testing.assert_close(D.top_p_filter(logits, p), TopPLogitsWarper(p)(None, logits))


@pytest.mark.parametrize("m", [0.0, 0.05, 0.5, 1.0])
def test_min_p_equals_library(m):
    logits = 3 * torch.randn(4, 50, generator=torch.Generator().manual_seed(int(100 * m)))
    logits[1] = 0.0
    logits[2, 5:] = -math.inf
    torch.testing.assert_close(D.min_p_filter(logits, m), MinPLogitsWarper(m)(None, logits))


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_no_repeat_ngram_equals_library_and_a_plain_loop(n):
    generator = torch.Generator().manual_seed(n)
    ids, logits = torch.randint(4, (5, 30), generator=generator), torch.randn(5, 4, generator=generator)
    banned = D.no_repeat_ngram(logits, ids, n)
    torch.testing.assert_close(banned, NoRepeatNGramLogitsProcessor(n)(ids, logits.clone()))
    for row, written in enumerate(ids.tolist()):
        seen = {tuple(written[i: i + n]) for i in range(len(written) - n + 1)}
        for token in range(4):
            assert banned[row, token].isinf() == ((*written[len(written) - n + 1:], token) in seen)


def test_repetition_penalty_equals_library():
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 2, 2, 7], [0, 0, 0, 0], [19, 3, 4, 5]])
    seen = torch.zeros(3, 20, dtype=torch.bool).scatter(1, ids, True)
    torch.testing.assert_close(D.repetition_penalty(logits, seen, 1.7),
                               RepetitionPenaltyLogitsProcessor(1.7)(ids, logits.clone()))


def test_filters_leave_their_input_alone():
    logits = torch.randn(2, 9)
    before = logits.clone()
    D.top_k_filter(logits, 2), D.top_p_filter(logits, 0.2), D.apply_temperature(logits, 0.5)
    D.min_p_filter(logits, 0.9), D.no_repeat_ngram(logits, torch.zeros(2, 3, dtype=torch.long), 1)
    D.repetition_penalty(logits, torch.ones(2, 9, dtype=torch.bool), 2.0)
    assert torch.equal(logits, before)


def test_sample_frequencies_match_probabilities():
    logits = torch.tensor([[0.0, 1.0, -math.inf, 2.0, -1.0]])
    p, n = logits.softmax(-1)[0], 20_000
    u = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(D.sample_next(logits.expand(n, -1), u), minlength=5)
    assert counts[2] == 0
    chi2 = ((counts - n * p)[p > 0] ** 2 / (n * p[p > 0])).sum()
    assert chi2 < 16.27                                              # 自由度 3，显著性 0.001
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    middle = torch.tensor([[-math.inf, 0.0, -math.inf]]).expand(2, -1)
    assert D.sample_next(middle, ends).tolist() == [1, 1]            # 两端也落不到概率为 0 的词元上


# ---- 与 transformers 的 generate 逐字相等
@pytest.mark.parametrize("seed", [0, 1, 4])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_equals_library(tokenizer, seed, penalty):
    model = make_model(tokenizer, seed)
    ours = G.generate(model, tokenizer, INTROS, max_new_tokens=30, repetition_penalty=penalty)
    theirs = [library(model, tokenizer, intro, do_sample=False, max_new_tokens=30, repetition_penalty=penalty)
              for intro in INTROS]
    assert ours == theirs
    assert penalty > 1 or len({len(text) for text in ours}) > 1      # 各行长短不一，才考得到逐行停止


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("beams", [1, 3])
def test_no_repeat_ngram_in_writing_equals_library(tokenizer, n, beams):
    for seed in (0, 4):
        model = make_model(tokenizer, seed)
        how = {"strategy": "beam", "num_beams": beams} if beams > 1 else {}
        ours = G.generate(model, tokenizer, INTROS, max_new_tokens=20, no_repeat_ngram=n, **how)
        theirs = [library(model, tokenizer, intro, do_sample=False, num_beams=beams, max_new_tokens=20,
                          no_repeat_ngram_size=n) for intro in INTROS]
        assert ours == theirs != G.generate(model, tokenizer, INTROS, max_new_tokens=20, **how)


def two_sample_chi2(first: list[str], second: list[str]) -> float:
    """两批结果是不是同一个分布：卡方检验的 p 值。两批合起来不到 20 次的并成一组。"""
    counts = [Counter(texts) for texts in (first, second)]
    common = [x for x in counts[0] | counts[1] if counts[0][x] + counts[1][x] >= 20]
    table = torch.tensor([[c[x] for x in common] + [sum(c.values()) - sum(c[x] for x in common)] for c in counts]).double()
    table = table[:, table.sum(0) > 0]
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    chi2, freedom = ((table - expected) ** 2 / expected).sum(), table.size(1) - 1
    return torch.special.gammaincc(torch.tensor(freedom / 2, dtype=torch.float64), chi2 / 2).item()


@pytest.mark.parametrize("how", [{"temperature": 0.7}, {"temperature": 1.5, "top_k": 4}, {"temperature": 1.2, "top_p": 0.8},
                                 {"temperature": 1.2, "min_p": 0.1}, {"temperature": 0.7, "repetition_penalty": 2.0},
                                 {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.02}],
                         ids=lambda how: "+".join(how))
def test_sampled_texts_have_the_frequencies_of_the_library(tokenizer, how):
    model, n = make_model(tokenizer, 4), 1500
    with torch.no_grad():
        model.cls.predictions.decoder.weight *= 0.6                   # 分布放平，才有得比
    ours = G.generate(model, tokenizer, [INTROS[1]] * n, max_new_tokens=2, seed=5, batch_size=n, **how)
    ids = torch.tensor([G.encode_prompt(tokenizer, INTROS[1], "")])
    torch.manual_seed(6)
    options = {"top_k": 0, "top_p": 1.0} | how                        # 库的 top_k 默认是 50
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, num_return_sequences=n, max_new_tokens=2,
                         eos_token_id=tokenizer.sep_token_id, pad_token_id=0,
                         suppress_tokens=tokenizer.convert_tokens_to_ids(list(W.NEVER)), **options)
    theirs = tokenizer.batch_decode(out[:, ids.size(1):], skip_special_tokens=True)
    assert len(set(theirs)) > 3
    assert two_sample_chi2(ours, theirs) > 1e-4
    others = {"temperature": 1.3 * how["temperature"], "top_k": 2, "min_p": 0.6, "repetition_penalty": 1.0}
    wrong = {key: others.get(key, value) for key, value in how.items()}
    off = G.generate(model, tokenizer, [INTROS[1]] * n, max_new_tokens=2, seed=5, batch_size=n, **wrong)
    assert two_sample_chi2(off, theirs) < 1e-4                        # 参数不对，检验看得出来


def test_left_padded_batch_equals_the_library_batch(tokenizer):
    model = make_model(tokenizer, 1)
    prompts = [G.encode_prompt(tokenizer, intro, "") for intro in INTROS]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    out = model.generate(ids, attention_mask=(ids != 0).long(), do_sample=False, max_new_tokens=20, pad_token_id=0,
                         eos_token_id=tokenizer.sep_token_id, suppress_tokens=tokenizer.convert_tokens_to_ids(list(W.NEVER)))
    theirs = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    assert G.generate(model, tokenizer, INTROS, max_new_tokens=20) == theirs


@pytest.mark.parametrize("beams,length_penalty", [(1, 1.0), (2, 1.0), (4, 0.0), (5, 1.6), (3, -1.0)])
def test_beam_search_equals_library(tokenizer, beams, length_penalty):
    for seed in (0, 1):
        model = make_model(tokenizer, seed)
        ours = G.generate(model, tokenizer, INTROS, max_new_tokens=12, strategy="beam", num_beams=beams,
                          length_penalty=length_penalty)
        theirs = [library(model, tokenizer, intro, do_sample=False, num_beams=beams, max_new_tokens=12,
                          length_penalty=length_penalty) for intro in INTROS]
        assert ours == theirs


# ---- 缓存、分批、种子
def test_cached_logits_equal_uncached(model, tokenizer):
    prompts = [G.encode_prompt(tokenizer, intro, "") for intro in INTROS]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    cached, plain = (decoder(model, ids, ids != 0, 10) for decoder in (CachedDecoder, UncachedDecoder))
    for step in range(10):
        torch.testing.assert_close(cached.logits, plain.logits, atol=2e-4, rtol=1e-4)
        tokens = plain.logits.argmax(-1)
        if step == 4:
            keep = torch.tensor([3, 0, 0, 2])
            cached.select(keep), plain.select(keep)
            tokens = tokens[keep]
        cached.advance(tokens), plain.advance(tokens)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.3, "top_k": 20, "top_p": 0.95, "seed": 7},
                                 {"repetition_penalty": 1.3}, {"strategy": "beam", "num_beams": 3}, {"no_repeat_ngram": 2},
                                 {"temperature": 2.0, "min_p": 0.05, "seed": 2}])
def test_batching_and_cache_do_not_change_the_text(model, tokenizer, how):
    together = G.generate(model, tokenizer, INTROS, max_new_tokens=25, **how)
    assert together == G.generate(model, tokenizer, INTROS, max_new_tokens=25, use_cache=False, **how)
    assert together == G.generate(model, tokenizer, INTROS, max_new_tokens=25, batch_size=2, **how)
    assert together[0] == G.generate(model, tokenizer, INTROS[:1], max_new_tokens=25, **how)[0]
    if "seed" not in how:
        assert together == [G.generate(model, tokenizer, [i], max_new_tokens=25, **how)[0] for i in INTROS]


def test_seeds(model, tokenizer):
    def write(seed):
        return G.generate(model, tokenizer, [INTROS[0]] * 3, max_new_tokens=20, temperature=2.0, seed=seed)

    assert write(1) == write(1) != write(2)
    assert len(set(write(1))) > 1                                    # 同一批里，同样的提示也各抽各的


def test_never_writes_special_tokens(tokenizer):
    model = make_model(tokenizer)
    with torch.no_grad():
        model.cls.predictions.bias[: len(tokenizer)] = 0.0
        model.cls.predictions.bias[[0, 1, 2, 4]] = 50.0              # [PAD] [UNK] [CLS] [MASK] 本来必胜
    steps = list(G.stream(model, tokenizer, "今天", max_new_tokens=20))
    assert steps and not {s.text for s in steps} & set(W.NEVER)
    assert not {c.text for s in steps for c in s.candidates} & set(W.NEVER)
    assert all(len(t) for t in G.generate(model, tokenizer, INTROS, max_new_tokens=5, temperature=5.0))


# ---- 续写与边写边看
def test_complete_goes_through_sep_into_the_body(tokenizer):
    model = make_model(tokenizer)
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.sep_token_id] += 2.0
    article = G.complete(model, tokenizer, "今天是个")
    assert article.intro.startswith("今天是个") and article.finished and "[SEP]" not in str(article)
    steps = list(G.stream(model, tokenizer, "今天是个"))
    cut = [s.text for s in steps].index("[SEP]")
    assert "今天是个" + "".join(s.text for s in steps[:cut]) == article.intro
    assert "".join(s.text for s in steps[cut + 1: -1]) == article.body and steps[-1].text == "[SEP]"
    assert {s.part for s in steps[: cut + 1]} == {"intro"} and {s.part for s in steps[cut + 1:]} <= {"body"}
    whole = G.complete(model, tokenizer, "今天是个大晴天。\n鹤鸣市")
    assert whole.intro == "今天是个大晴天。" and whole.body.startswith("鹤鸣市")


def test_stream_probabilities(model, tokenizer):
    how = {"temperature": 0.7, "top_k": 3, "seed": 3}
    steps = list(G.stream(model, tokenizer, "今天是个\n", max_new_tokens=15, n_candidates=40, **how))
    text = "".join(s.text for s in steps if s.text != "[SEP]")
    assert text == G.complete(model, tokenizer, "今天是个\n", max_new_tokens=15, **how).body
    for step in steps:
        assert sum(c.chance for c in step.candidates) == pytest.approx(1, abs=1e-5)
        assert sum(c.chance > 0 for c in step.candidates) == 3
        assert step.chance > 0 and any(c.text == step.text for c in step.candidates)
        order = [c.probability for c in step.candidates]
        assert order == sorted(order, reverse=True)


def test_stream_continues_with_the_same_random_numbers(tokenizer):
    model = make_model(tokenizer)
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.sep_token_id] = -1e4
    how = {"temperature": 1.5, "seed": 3}
    whole = [s.text for s in G.stream(model, tokenizer, "今天是个\n", max_new_tokens=30, **how)]
    assert len(whole) == 30
    head = "".join(whole[:8])
    rest = [s.text for s in G.stream(model, tokenizer, "今天是个\n" + head, max_new_tokens=22, skip=8, **how)]
    assert rest == whole[8:]
    assert rest != [s.text for s in G.stream(model, tokenizer, "今天是个\n" + head, max_new_tokens=22, **how)]


def test_the_written_token_is_always_among_the_candidates(model, tokenizer):
    steps = list(G.stream(model, tokenizer, "今天是个\n", max_new_tokens=40, n_candidates=2, temperature=5.0, seed=1))
    assert all(len(s.candidates) == 2 and s.text in [c.text for c in s.candidates] for s in steps)


def test_writing_stops_at_sep_at_the_length_and_at_the_last_position(tokenizer):
    model = make_model(tokenizer, 4)
    natural = G.generate(model, tokenizer, INTROS, max_new_tokens=40)
    assert any(len(text) < 40 for text in natural)                    # 有的自己停下
    assert G.generate(model, tokenizer, INTROS, max_new_tokens=5) == [text[:5] for text in natural]
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.sep_token_id] = 1e4      # 每一步都想停
    assert G.generate(model, tokenizer, INTROS) == [""] * len(INTROS)  # 提示末尾的 [SEP] 不算
    assert G.generate(model, tokenizer, INTROS, strategy="beam") == [""] * len(INTROS)


@pytest.mark.parametrize("beams", [1, 3])
def test_min_new_tokens_equals_library(tokenizer, beams):
    model, how = make_model(tokenizer, 4), {"strategy": "beam", "num_beams": 3}
    how = how if beams > 1 else {}
    ours = G.generate(model, tokenizer, INTROS, max_new_tokens=20, min_new_tokens=9, **how)
    theirs = [library(model, tokenizer, intro, do_sample=False, num_beams=beams, max_new_tokens=20, min_new_tokens=9)
              for intro in INTROS]
    assert ours == theirs and min(map(len, ours)) >= 9
    assert beams > 1 or min(map(len, G.generate(model, tokenizer, INTROS, max_new_tokens=20))) < 9


def test_writes_until_positions_run_out(tokenizer):
    model = make_model(tokenizer)
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.sep_token_id] = -1e4
    texts = G.generate(model, tokenizer, INTROS)
    assert [len(t) for t in texts] == [POSITIONS - 1 - len(G.encode_prompt(tokenizer, i, "")) for i in INTROS]
    article = G.complete(model, tokenizer, "今天")
    assert not article.finished and len(article.intro) == POSITIONS - 2


def test_training_state_is_restored(model, tokenizer):
    model.train()
    G.generate(model, tokenizer, INTROS[:1], max_new_tokens=2)
    for _ in G.stream(model, tokenizer, "今天", max_new_tokens=2):
        pass
    assert model.training
    model.eval()


# ---- 说得清楚的错误
@pytest.mark.parametrize("how,message", [
    ({"temperature": 0.0}, "温度"), ({"temperature": -1.0}, "温度"), ({"temperature": math.nan}, "温度"),
    ({"top_p": 0.0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"top_k": 0}, "top_k"), ({"min_p": 1.2}, "min_p"),
    ({"min_new_tokens": -1}, "min_new_tokens"),
    ({"min_p": -0.1}, "min_p"), ({"no_repeat_ngram": 0}, "no_repeat_ngram"),
    ({"no_repeat_ngram": 1.5}, "no_repeat_ngram"), ({"strategy": "beam", "length_penalty": math.nan}, "length_penalty"),
    ({"repetition_penalty": 0.0}, "重复惩罚"), ({"strategy": "nucleus"}, "策略"),
    ({"strategy": "greedy", "top_p": 0.9}, "抽样"), ({"strategy": "beam", "num_beams": 0}, "束宽"),
    ({"max_new_tokens": 0}, "max_new_tokens"), ({"max_new_tokens": 1000}, "最多是")])
def test_bad_settings_are_refused_in_chinese(model, tokenizer, how, message):
    with pytest.raises(ValueError, match=message):
        G.generate(model, tokenizer, INTROS, **how)


def test_bad_prompts_and_models_are_refused(model, tokenizer):
    for empty in ("", "  ", None):
        with pytest.raises(ValueError, match="提示是空的"):
            G.complete(model, tokenizer, empty)
    with pytest.raises(ValueError, match="个位置"):
        G.generate(model, tokenizer, ["晴" * 100])
    assert len(G.generate(model, tokenizer, ["晴" * (POSITIONS - 4)])[0]) <= 1       # 最长的提示，只够写一个字
    with pytest.raises(ValueError, match="个位置"):
        G.generate(model, tokenizer, ["晴" * (POSITIONS - 3)])
    with pytest.raises(TypeError, match="列表"):
        G.generate(model, tokenizer, "今天")
    with pytest.raises(ValueError, match="看得见未来"):
        G.generate(make_model(tokenizer, is_decoder=False), tokenizer, INTROS)
    with pytest.raises(ValueError, match="看得见未来"):
        G.complete(make_model(tokenizer, is_decoder=False, cls=BertForMaskedLM), tokenizer, "今天")
    with pytest.raises(TypeError, match="BertLMHeadModel"):
        G.generate(torch.nn.Linear(2, 2), tokenizer, INTROS)
    with pytest.raises(ValueError, match="束搜索"):
        G.stream(model, tokenizer, "今天", strategy="beam")
    assert G.generate(model, tokenizer, []) == []


def test_text_that_looks_like_special_tokens_is_plain_text(tokenizer):
    ids = G.encode_prompt(tokenizer, "今天[SEP]", "")
    assert ids.count(tokenizer.sep_token_id) == 1
