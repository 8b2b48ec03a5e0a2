"""utils.models.cost：公式与数出来的参数、与 FlopCounterMode 数到的运算都相等。"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, T5Config

from utils.models.bert import Bert
from utils.models.cost import attention_overtakes, bert_parameters, block_flops, block_parameters, gpt2_parameters, model_flops
from utils.models.transformer import DecoderBlock, EncoderBlock
from utils.presets import PRESETS

BERTS = [BertConfig(vocab_size=97, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=50, type_vocab_size=3,
                    max_position_embeddings=40), BertConfig(vocab_size=21128),
         *(BertConfig(vocab_size=3152, hidden_size=p.hidden, num_hidden_layers=p.layers, num_attention_heads=p.heads,
                      intermediate_size=4 * p.hidden, max_position_embeddings=p.max_len) for p in PRESETS.values())]
GPTS = [GPT2Config(vocab_size=97, n_embd=24, n_layer=3, n_head=4, n_positions=40), GPT2Config(),
        GPT2Config(vocab_size=50, n_embd=12, n_layer=1, n_head=2, n_inner=30, n_positions=33)]


def on_meta(cls, config):
    with torch.device("meta"):
        return cls._from_config(config, attn_implementation="eager").eval()


def count(model):
    return sum(p.numel() for p in model.parameters())


def flops(model, batch, length, device="meta"):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(batch, length, dtype=torch.long, device=device))
    return counter.get_total_flops()


@pytest.mark.parametrize("config", BERTS, ids=lambda c: f"{c.num_hidden_layers}x{c.hidden_size}")
def test_bert(config):
    model = on_meta(BertForMaskedLM, config)
    assert sum(bert_parameters(config).values()) == count(model)
    for batch, length in ((1, 7), (3, 32)):
        assert sum(model_flops(config, batch, length).values()) == flops(model, batch, length)


@pytest.mark.parametrize("config", GPTS, ids=lambda c: f"{c.n_layer}x{c.n_embd}")
def test_gpt2(config):
    model = on_meta(GPT2LMHeadModel, config)
    assert sum(gpt2_parameters(config).values()) == count(model)
    for batch, length in ((1, 7), (2, 32)):
        assert sum(model_flops(config, batch, length).values()) == flops(model, batch, length)


def test_gpt2_small_is_the_published_size():
    assert sum(gpt2_parameters(GPT2Config()).values()) == 124_439_808


def test_own_bert_and_its_parts():
    model = Bert(BERTS[0])
    parts = bert_parameters(BERTS[0])
    assert parts == {"嵌入": count(model.embeddings), "各层": count(model.blocks),
                     "词表头": count(model.head) - model.embeddings.word.weight.numel()}
    assert sum(model_flops(BERTS[0], 2, 9).values()) == flops(model, 2, 9, "cpu")


def test_an_untied_head_costs_one_more_table():
    untied = BertConfig(**(BERTS[0].to_dict() | {"tie_word_embeddings": False}))
    assert sum(bert_parameters(untied).values()) == count(Bert(untied)) == count(Bert(BERTS[0])) + 97 * 24


@pytest.mark.parametrize("cls, cross", [(EncoderBlock, False), (DecoderBlock, True)])
def test_block_parameters(cls, cross):
    assert block_parameters(24, 50, cross) == count(cls(24, 4, 50))


def test_attention_overtakes_exactly_there():
    for hidden, inner in ((24, 96), (24, 50)):
        at = attention_overtakes(hidden, inner)
        before, there = block_flops(2, at - 1, hidden, inner), block_flops(2, at, hidden, inner)
        assert before["注意力"] < before["线性层"] and there["注意力"] == there["线性层"]
    assert attention_overtakes(768, 3072) == 6 * 768


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="T5Config"):
        model_flops(T5Config(), 1, 4)
    with pytest.raises(ValueError, match="40 个位置"):
        model_flops(BERTS[0], 1, 41)
