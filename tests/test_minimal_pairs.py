"""最小对立对：表合乎规矩，打分照手算，参照真的是一半，挑头不作弊。"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from transformers import BertForMaskedLM

from utils.analysis import minimal_pairs as M
from utils.analysis.reading import get_attentions
from utils.presets import choose_preset
from utils.tokenization.tokenizer import build_tokenizer
from utils.training.batches import bert_config

ALL = M.load_pairs()
KINDS = list(dict.fromkeys(p.kind for p in ALL))


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("char", [text for p in ALL for text in (p.good, p.bad)])


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return BertForMaskedLM(bert_config(choose_preset("smoke"), tokenizer)).eval()


def test_the_table_has_four_kinds_of_at_least_twelve():
    assert len(KINDS) == 4 and min(Counter(p.kind for p in ALL).values()) >= 12
    assert len({(p.good, p.bad) for p in ALL}) == len(ALL)


def test_each_pair_differs_only_at_the_critical_place():
    for p in ALL:
        a, b = p.critical
        assert len(p.good) == len(p.bad) and p.good[:a] == p.bad[:a] and p.good[b:] == p.bad[b:]
        assert p.good[a:b] != p.bad[a:b]
        assert p.partner[1] <= a or b <= p.partner[0]                      # 两处不重叠


def test_words_are_swapped_so_frequency_alone_is_a_coin():
    """同一类里，一对词各当一次对的、一次错的；按任何字频选都对一半左右。"""
    counts = {c: 3 + 7 * n for n, c in enumerate("条本辆棵张头座件把只朵匹艘首架口幅位支盏双场块名他她它又再边面西下"
                                             "所以但是就才而且是后右小短晚秋女少越也不")}
    for kind in KINDS:
        pairs = [p for p in ALL if p.kind == kind]
        right = M.accuracy(M.frequency_margins(pairs, counts))[0]
        assert right == pytest.approx(0.5, abs=0.1), kind


def test_marks_give_the_places():
    p = M.parse_pair("甲", "河里游来一{条}[大鱼]。", "本")
    assert (p.good, p.bad) == ("河里游来一条大鱼。", "河里游来一本大鱼。")
    assert p.good[slice(*p.critical)] == "条" and p.good[slice(*p.partner)] == "大鱼"
    q = M.parse_pair("甲", "[因为]雨，{所以}停。", "但是")
    assert q.good[slice(*q.critical)] == "所以" and q.good[slice(*q.partner)] == "因为" and q.bad == "因为雨，但是停。"


@pytest.mark.parametrize("marked, wrong", [("河里一条[鱼]", "本"), ("一{条}鱼", "本"), ("一{条}[鱼]", "两本"), ("一{条}[鱼]", "条"),
                                           ("一{条}[鱼]{条}", "本"), ("一{条[鱼]}", "本")])
def test_bad_marks_are_refused(marked, wrong):
    with pytest.raises(ValueError, match="关键处"):
        M.parse_pair("甲", marked, wrong)


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "表.tsv"
    path.write_text("# 说明\n种类\t句子\t错的\n甲\t一{条}[鱼]\t本\n甲\t一条鱼\n", encoding="utf-8")
    with pytest.raises(ValueError, match="第 4 行"):
        M.load_pairs(path)
    with pytest.raises(FileNotFoundError, match="git checkout"):
        M.load_pairs(tmp_path / "没有.tsv")


def test_only_known_characters_are_kept(tokenizer):
    assert M.known_pairs(ALL, tokenizer) == (ALL, [])
    small = build_tokenizer("char", [p.good + p.bad for p in ALL if "她" not in p.good + p.bad])
    kept, dropped = M.known_pairs(ALL, small)
    assert {p for p, _ in dropped} >= {p for p in ALL if "她" in p.good + p.bad} and len(kept) + len(dropped) == len(ALL)
    assert all("她" in strange for p, strange in dropped if "她" in p.good)


def test_score_equals_one_mask_at_a_time(model, tokenizer):
    """长短不同的句子混在一批，与逐字手算的相同。"""
    sentences = ["饭不吃，水不喝。", "老人告诉记者：“路修好了。”", "又唱又跳。"]
    got = M.pseudo_log_likelihood(model, tokenizer, sentences, batch_size=7)
    for sentence, value in zip(sentences, got.tolist(), strict=True):
        ids, total = tokenizer(sentence, return_tensors="pt")["input_ids"], 0.0
        for at in range(1, ids.size(1) - 1):
            hidden = ids.clone()
            hidden[0, at] = tokenizer.mask_token_id
            with torch.no_grad():
                total += model(hidden).logits[0, at].log_softmax(-1)[ids[0, at]].item()
        assert value == pytest.approx(total, abs=1e-3)


def test_scoring_refuses_what_it_cannot_score(model, tokenizer):
    with pytest.raises(ValueError, match="不认识的字"):
        M.pseudo_log_likelihood(model, tokenizer, ["一条鱼", "龘"])
    with pytest.raises(ValueError, match="一句话也没有"):
        M.pseudo_log_likelihood(model, tokenizer, [])


def test_margins_prefer_what_the_model_was_pushed_towards(model, tokenizer):
    """把「条」的偏置调得很高，该选「条」的都选对，不该选的都选错。"""
    pairs = [p for p in ALL if "条" in p.good + p.bad]
    bias = model.cls.predictions.bias
    saved = bias.detach().clone()
    with torch.no_grad():
        bias[tokenizer.convert_tokens_to_ids("条")] += 20
    found = M.margins(model, tokenizer, pairs)
    with torch.no_grad():
        bias.copy_(saved)
    assert len(pairs) == 2 and [bool(x > 0) for x in found] == ["条" in p.good for p in pairs]


def test_accuracy_and_its_interval():
    p, low, high = M.accuracy(torch.tensor([1.0, 2.0, -1.0, 0.0]))
    assert p == 0.625
    p, low, high = M.wilson(8, 10)                                         # 教科书算例：0.490 到 0.943
    assert (round(low, 3), round(high, 3)) == (0.49, 0.943)
    assert M.wilson(10, 10)[2] <= 1 + 1e-9 and M.wilson(0, 5)[1] == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="一道题也没有"):
        M.wilson(0, 0)


def test_frequency_margins_by_hand():
    pair = M.parse_pair("甲", "一{条}[鱼]", "本")
    assert M.frequency_margins([pair], {"条": 9, "本": 4}).item() == pytest.approx(math.log(10) - math.log(5))


def test_partner_attention_reads_the_right_cells(model, tokenizer):
    pair = M.parse_pair("甲", "[因为]下雨，{所以}停课。", "但是")
    good, bad, uniform = M.partner_attention(model, tokenizer, [pair])
    weights = get_attentions(model, tokenizer, pair.good).weights
    torch.testing.assert_close(good[0], weights[:, :, 6:8, 1:3].sum(-1).mean(-1))
    assert good.shape == bad.shape == (1, 2, 4) and not torch.equal(good, bad)
    assert uniform.item() == pytest.approx(2 / 12)


def test_choosing_on_one_half_does_not_reward_luck():
    """全是噪声时，各对最大的头高出均匀许多，换一半去量就不高了；真有一个头，照样找得到。"""
    generator = torch.Generator().manual_seed(0)
    trials = [torch.rand(8, 4, 6, generator=generator) * 0.2 for _ in range(300)]                          # 各只有 8 对
    luck = sum(M.held_out_head(x, torch.full((8,), 0.1))[0].mean().item() for x in trials) / 300
    naive = sum((x.mean(0).max() - 0.1).item() for x in trials) / 300
    assert abs(luck) < 0.005 and naive > 0.03                              # 挑的和量的是同一批题，就凭空高出这么多
    noise = torch.rand(400, 4, 6, generator=generator) * 0.2
    noise[:, 2, 3] += 0.3
    values, heads = M.held_out_head(noise, torch.full((400,), 0.1))
    assert heads == [(2, 3), (2, 3)] and values.mean().item() == pytest.approx(0.3, abs=0.02)
    with pytest.raises(ValueError, match="4 对"):
        M.held_out_head(noise[:3], torch.zeros(3))
