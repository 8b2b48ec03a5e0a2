"""utils.models.bert：装上任何 BertForMaskedLM、BertLMHeadModel 的权重，logits 相等；因果模式一点不漏；与 04 手写的相等。"""

import re

import pytest
import torch
import torch.nn.functional as F
from notebook_source import handmade, source_lines
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertLMHeadModel
from transformers.activations import ACT2FN

from utils.models import attention as A
from utils.models.bert import RENAMES, Bert
from utils.models.checkpoints import find_checkpoint, load_checkpoint

SHAPES = [dict(num_hidden_layers=1, hidden_size=24, num_attention_heads=2, intermediate_size=50),
          dict(num_hidden_layers=3, hidden_size=36, num_attention_heads=9, intermediate_size=20, type_vocab_size=1),
          dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=1, intermediate_size=256, type_vocab_size=5)]
NOTEBOOK = ("FeedForward", "Block", "MultiHeadAttention", "EncoderBlock", "BertEmbeddings", "VocabularyHead", "Bert", "RENAMES",
            "load_hugging_face")


def hub_model(cls=BertForMaskedLM, seed=0, **options):
    torch.manual_seed(seed)
    settings = dict(vocab_size=61, max_position_embeddings=24, initializer_range=0.2) | SHAPES[0] | options
    model = cls(BertConfig(is_decoder=cls is BertLMHeadModel, **settings)).eval()
    for p in model.parameters():
        if p.dim() == 1:
            nn.init.normal_(p)                                             # 偏置、LayerNorm 都不是 0 和 1，装错了才看得出来
    return model


def inputs(model, length=20, seed=0):
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, length // 2:] = 0
    types = torch.randint(model.config.type_vocab_size, (2, length), generator=g)
    return {"input_ids": torch.randint(61, (2, length), generator=g), "attention_mask": mask, "token_type_ids": types}


def gap(own, theirs, batch):
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        return (own(**batch) - theirs(**batch).logits)[real].abs().max().item()


@pytest.mark.parametrize("cls", [BertForMaskedLM, BertLMHeadModel])
@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_equals_any_hugging_face_bert(cls, shape, tie):
    model = hub_model(cls, **SHAPES[shape], tie_word_embeddings=tie)
    own = Bert.from_hugging_face(model)
    batch = inputs(model)
    assert gap(own, model, batch) < 1e-5
    assert gap(own.double(), model.double(), batch) < 1e-10
    assert (own.head.decoder.weight is own.embeddings.word.weight) == tie


@pytest.mark.parametrize("act", ["gelu", "relu", "gelu_new", "silu", "tanh", "quick_gelu", "mish"])
@pytest.mark.parametrize("eps", [1e-12, 1e-2])
def test_activation_and_eps_come_from_the_config(act, eps):
    model = hub_model(hidden_act=act, layer_norm_eps=eps)
    own, batch = Bert.from_hugging_face(model), inputs(model)
    assert gap(own, model, batch) < 1e-5
    for norm in (m for m in own.modules() if isinstance(m, nn.LayerNorm)):
        norm.eps = 0.5
    assert gap(own, model, batch) > 1e-3                                   # eps 真的起作用


@pytest.mark.parametrize("kind, cls", [("mlm", BertForMaskedLM), ("clm", BertLMHeadModel)])
def test_equals_the_shipped_checkpoints(kind, cls):
    """双精度下比到 1e-5 以内；单精度下这个检查点的激活很大，只有舍入误差。"""
    model, tokenizer, _ = load_checkpoint(kind, cls, prefer="shipped", **({"is_decoder": True} if kind == "clm" else {}))
    own = Bert.from_hugging_face(model)
    assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in model.parameters())
    batch = dict(tokenizer(["今天是个赏花的好日子，月湾市晴。", "全市降温"], padding=True, return_tensors="pt"))
    assert gap(own, model, batch) < 1e-3
    assert gap(own.double(), model.double(), batch) < 1e-10


def test_loads_the_file_itself_where_the_tied_head_is_stored_once(tmp_path):
    model = hub_model()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "cls.predictions.decoder.weight" not in weights
    assert gap(Bert(model.config).load_hugging_face(weights), model, inputs(model)) < 1e-5
    folder, _ = find_checkpoint("mlm", prefer="shipped")
    shipped = load_checkpoint("mlm", BertForMaskedLM, prefer="shipped")[0]
    loaded = Bert(shipped.config).load_hugging_face(load_file(folder / "model.safetensors"))
    assert torch.equal(loaded.head.decoder.weight, shipped.cls.predictions.decoder.weight)
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match="装不进"):
        Bert(model.config).load_hugging_face(load_file(tmp_path / "empty.safetensors"))


def test_other_models_and_sizes_are_refused_in_chinese():
    model = hub_model()
    with pytest.raises(ValueError, match="装不进.*大小与权重不符"):
        Bert(model.config).load_hugging_face(hub_model(**SHAPES[1]).state_dict())
    with pytest.raises(ValueError, match="装不进"):
        Bert(model.config).load_hugging_face(BertForSequenceClassification(model.config).state_dict())
    with pytest.raises(TypeError, match="BertForSequenceClassification"):
        Bert.from_hugging_face(BertForSequenceClassification(model.config))
    with pytest.raises(ValueError, match="装不进"):
        Bert.from_hugging_face(hub_model(BertLMHeadModel, add_cross_attention=True))
    with pytest.raises(ValueError, match="24 个位置"):
        Bert(model.config)(torch.zeros(1, 25, dtype=torch.long))


def test_weights_are_copied_not_shared():
    model = hub_model()
    own = Bert.from_hugging_face(model)
    with torch.no_grad():
        own.embeddings.word.weight.zero_()
    assert model.bert.embeddings.word_embeddings.weight.abs().sum() > 0
    assert own.head.decoder.weight.eq(0).all()                             # 共享的词表头跟着变


def test_causal_mode_leaks_nothing_and_the_other_does():
    for cls, leaks in ((BertLMHeadModel, False), (BertForMaskedLM, True)):
        own = Bert.from_hugging_face(hub_model(cls, **SHAPES[2]))
        ids = inputs(hub_model(cls))["input_ids"]
        changed = ids.clone()
        changed[:, 12:] = (changed[:, 12:] + 7) % 61
        with torch.no_grad():
            before, after = own(ids), own(changed)
        assert torch.equal(before[:, :12], after[:, :12]) != leaks
        assert not torch.equal(before[:, 12:], after[:, 12:])


def test_gradients_of_the_whole_model():
    model = Bert.from_hugging_face(hub_model(hidden_size=4, num_attention_heads=2, intermediate_size=6, vocab_size=7)).double()
    ids = torch.tensor([[1, 5, 2]])
    names, weights = zip(*model.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(
        lambda *w: torch.func.functional_call(model, dict(zip(names, w, strict=True)), (ids,), tie_weights=True), weights)


@pytest.mark.parametrize("cls", [BertForMaskedLM, BertLMHeadModel])
def test_the_notebook_agrees(cls):
    hand = handmade("transformer", *NOTEBOOK, nn=nn, F=F, torch=torch, re=re, ACT2FN=ACT2FN, **{
        n: getattr(A, n) for n in ("MultiHeadSelfAttention", "causal_mask", "padding_mask", "scaled_dot_product_attention")})
    assert tuple(hand["RENAMES"]) == RENAMES
    model = hub_model(cls, **SHAPES[1])
    packaged = Bert.from_hugging_face(model)
    own = hand["load_hugging_face"](hand["Bert"](model.config), model.state_dict())
    batch = inputs(model)
    with torch.no_grad():
        assert torch.equal(own(**batch), packaged(**batch))
    assert list(own.state_dict()) == list(packaged.state_dict())


def test_the_notebooks_bert_is_about_120_lines():
    assert 80 <= source_lines("transformer", *NOTEBOOK) <= 130
