"""tools.checkpoints.copy_layer、tools.checkpoints.copy_training：新层起点几乎不改变写出来的分布，各项损失等于照定义算的，冻住的不动，练了确实在学。"""

import json
from copy import deepcopy
from functools import partial
from itertools import count, islice
from random import Random

import pytest
import torch
import torch.nn.functional as F
from transformers import BertLMHeadModel

from tools.checkpoints import copy_layer as C
from tools.checkpoints import copy_training as T
from utils.analysis import practice
from utils.analysis.practice import documents, exercise
from utils.analysis.reading import eager_attention
from utils.corpus.news import news_grammar
from utils.generation.writing import generate
from utils.models.checkpoints import load_folder, save_checkpoint
from utils.paths import SHIPPED
from utils.presets import PRESETS
from utils.training.batches import bert_config
from utils.training.processes import launch, torchrun

GRAMMAR, CPU = news_grammar(), torch.device("cpu")


@pytest.fixture(scope="module")
def shipped():
    """附带的 clm，拿掉插进去的那一层；分词器。"""
    model, tokenizer = load_folder(SHIPPED / "clm", BertLMHeadModel)
    inserted = json.loads((SHIPPED / "clm" / "course.json").read_text(encoding="utf-8"))["copy_layer"]
    plain = BertLMHeadModel(type(model.config)(**(model.config.to_dict() | {"num_hidden_layers": model.config.num_hidden_layers - 1})))
    del model.bert.encoder.layer[inserted]
    plain.load_state_dict(model.state_dict())
    plain.loss_type = "ForCausalLM"
    return plain.eval(), tokenizer


@pytest.fixture(scope="module")
def exercises(shipped):
    return [exercise(GRAMMAR, d, shipped[1].get_vocab()) for d in islice(documents(GRAMMAR, Random(2), 256), 8)]


@pytest.fixture()
def grown(shipped, exercises):
    torch.manual_seed(0)
    return C.grow(shipped[0], whole(exercises).ids, 0, 1)


def whole(exercises):
    """不抽样的一批。"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(practice, "PROMPT", 1)
        return practice.collate(exercises, 0, Random(0), CPU, text=1.0)


def log_p(model, ids):
    with torch.no_grad():
        return model(ids, attention_mask=(ids != 0).long(), use_cache=False).logits.log_softmax(-1)


def divergence(old, new, ids):
    real = ids != 0
    return F.kl_div(new[real], old[real], log_target=True, reduction="batchmean").item()


@pytest.mark.parametrize("at, limit", [(2, 0.01), (4, 0.01)])
def test_the_new_layer_starts_as_nearly_nothing(at, limit, shipped, exercises, monkeypatch):
    model, batch = shipped[0], whole(exercises)
    torch.manual_seed(0)
    grown = C.grow(model, batch.ids, 0, at)
    assert grown.config.num_hidden_layers == model.config.num_hidden_layers + 1 == len(grown.bert.encoder.layer)
    old, ids = log_p(model, batch.ids), batch.ids
    assert divergence(old, log_p(grown, ids), ids) < limit
    kept = [layer for i, layer in enumerate(grown.bert.encoder.layer) if i != at]
    for mine, theirs in zip(kept, model.bert.encoder.layer, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True))
    monkeypatch.setattr(C, "_restore_first", lambda *rest: None)                               # [CLS] 不管它，就乱了
    torch.manual_seed(0)
    careless = divergence(old, log_p(C.grow(model, ids, 0, at), ids), ids)
    assert careless > 1 if at == 2 else careless < limit                                       # 最上面没有谁再看 [CLS]


def test_layers_that_cannot_be(shipped, exercises):
    with pytest.raises(ValueError, match="第 0 层到第 4 层"):
        C.grow(shipped[0], whole(exercises).ids, 0, 5)


def test_the_copying_head_is_the_one_that_looks(shipped, exercises):
    layer, head = C.copying_head(shipped[0], exercises)
    mass = {}
    with eager_attention(shipped[0]):
        for one in exercises:
            for n, attention in enumerate(shipped[0](torch.tensor([one.ids]), output_attentions=True).attentions):
                for h in range(attention.shape[1]):
                    mass[n, h] = mass.get((n, h), 0.0) + sum(attention[0, h, at, found].sum().item() for at, found in one.sources)
    assert (layer, head) == max(mass, key=mass.get)


def test_losses_are_what_they_say(shipped, grown, exercises):
    batch = whole(exercises)
    loss, parts, nats = C.CopyLayer(grown, 1, 0, half=False)(batch)
    new, old = log_p(grown, batch.ids), log_p(shipped[0], batch.ids)
    certain = [-new[b, at, token].item() for b, e in enumerate(exercises) for at, token, _ in e.certain]
    torch.testing.assert_close(nats, torch.tensor(certain), atol=1e-3, rtol=1e-3)
    expected = {
        "certain": sum(certain),
        "open": sum(p * (torch.tensor(p).log() - new[b, at, token]).item() for b, e in enumerate(exercises) for at, token, p in e.open),
        "prompt": sum((old[b, at].exp() * (old[b, at] - new[b, at])).sum().item()
                      for b, e in enumerate(exercises) for at in range(e.prompt))}
    for name, total in expected.items():
        assert parts[name].item() == pytest.approx(total / len(exercises), rel=1e-2, abs=1e-3), name
    assert loss.item() == pytest.approx(sum(C.WEIGHTS[name] * x.item() for name, x in parts.items()), rel=1e-5)


def test_the_guided_attention_is_the_models_own(shipped, grown, exercises):
    batch = whole(exercises)
    parts = C.CopyLayer(grown, 1, 0, half=False)(batch)[1]
    found = {}
    for name, model, layer in (("new", grown, 2), ("old", shipped[0], 1)):
        with eager_attention(model):
            found[name] = model(batch.ids, output_attentions=True, use_cache=False).attentions[layer][:, 0]              # (B, T, T)
    copies = {(b, at): where for b, e in enumerate(exercises) for at, where in e.sources}
    hits = sum(-found["new"][b, at, where].sum().log().item() for (b, at), where in copies.items())
    assert parts["copy"].item() == pytest.approx(hits / len(exercises), rel=1e-3)
    moved = 0.0
    for b, e in enumerate(exercises):
        for at in range(len(e.ids)):
            if (b, at) not in copies:
                p, q = found["old"][b, at, :at + 1], found["new"][b, at, :at + 1]
                moved += (p * (p.log() - q.log())).sum().item()
    assert parts["rest"].item() == pytest.approx(moved / len(exercises), rel=1e-2, abs=1e-3)


def test_practice_moves_the_new_layer_alone_and_teaches_it(shipped, grown, exercises, monkeypatch):
    monkeypatch.setattr(T, "SURVEY", 48)
    monkeypatch.setattr(T, "SAY", 20)
    monkeypatch.setattr(T, "perf_counter", partial(next, count()))                            # 一步一秒
    before, said, batch = {k: v.clone() for k, v in grown.state_dict().items()}, [], whole(exercises)
    layer = C.CopyLayer(grown, 1, 0, half=False)
    start = layer(batch)[1]
    monkeypatch.setattr(T, "PHASES", {"identity": 0.1, "routing": 0.4, "copying": 0.3, "whole": 0.2})
    changed = []

    def say(text):
        said.append(text)
        changed.append({k for k, v in grown.state_dict().items() if not torch.equal(v, before[k])})

    steps = T.Practice(layer, shipped[1], GRAMMAR, 1e-3, 8, 5, say).run(3)
    end = layer(batch)[1]
    assert 80 < steps < 90 and end["copy"] < 0.8 * start["copy"]
    names = [text.split()[0] for text in said]
    assert sorted(set(names), key=names.index) == ["routing", "copying", "whole"] and "certain" in said[-1] and "处平均" in said[-1]
    for name, moved in zip(names, changed, strict=True):
        head = {k for k in moved if "transform" in k or k.endswith(("predictions.bias", "decoder.bias"))}
        above = {k for k in moved if any(f"layer.{n}." in k for n in (2, 3, 4))}
        assert any("layer.1.attention.self.query" in k for k in moved)
        assert all("layer.1." in k for k in moved - head - above), "下面的层和词嵌入不该动"
        assert bool(head) == (name != "routing") and bool(above) == (name == "whole")


def test_prompt_is_compared_with_the_start(grown, exercises):
    """刚插进去：导语与没有新层时比；接着练：与现在比，所以一步没练时一点不差。"""
    grown, batch = deepcopy(grown), whole(exercises)
    with torch.no_grad():
        grown.bert.encoder.layer[1].output.LayerNorm.weight.mul_(1.2)                             # 练过的样子
    prompt = {fresh: C.CopyLayer(grown, 1, 0, half=False, fresh=fresh)(batch)[1]["prompt"].item() for fresh in (True, False)}
    assert prompt[True] > 1e-2 and abs(prompt[False]) < 1e-4


def test_copying_head_of_one_layer(shipped, exercises):
    layer, head = C.copying_head(shipped[0], exercises)
    assert C.copying_head(shipped[0], exercises, only=layer) == (layer, head)
    other = (layer + 1) % shipped[0].config.num_hidden_layers
    assert C.copying_head(shipped[0], exercises, only=other)[0] == other


def test_first_step_learns_to_do_nothing(grown, exercises, shipped, monkeypatch):
    monkeypatch.setattr(T, "perf_counter", partial(next, count()))
    layer, batch = C.CopyLayer(grown, 1, 0, half=False), whole(exercises)
    start = layer.identity(batch).item()
    practice_of = T.Practice(layer, shipped[1], GRAMMAR, 1e-3, 8, 5)
    practice_of.phase("identity", 1.5, list(layer.new.parameters()), lambda some, group: (layer.identity(some), {}))
    assert layer.identity(batch).item() < 0.3 * start


def test_its_own_bodies_show_where_it_slips(shipped, grown, monkeypatch):
    """常写错的模式多抽；写错的机会按有没有守住事实来记；题目考到写错的那个字。"""
    practice_of = T.Practice(C.CopyLayer(grown, 1, 0, half=False), shipped[1], GRAMMAR, 1e-3, 8, 5)
    names = list(practice_of.slips)[:2]
    practice_of.slips.update({name: float(name in names) for name in practice_of.slips})
    intros, facts = [], T.check_facts

    def write(model, tokenizer, asked):
        intros.extend(asked)
        return generate(model, tokenizer, asked)

    monkeypatch.setattr(T, "generate", write)
    some = practice_of.own(24)
    assert {e.schema for e in some} == set(names) and len(intros) == 24
    bodies = generate(grown, shipped[1], intros)
    expected = dict.fromkeys(names, 1.0)
    for e, intro, body in zip(some, intros, bodies, strict=True):
        expected[e.schema] = T.FORGET * expected[e.schema] + (1 - T.FORGET) * (not facts(intro, body).faithful)
        text = shipped[1].convert_ids_to_tokens(e.ids[e.prompt + 1:])
        assert body.startswith("".join(text)) or "[UNK]" in text
    assert {name: practice_of.slips[name] for name in names} == pytest.approx(expected)


def test_divergence_is_said(shipped, grown):
    layer = C.CopyLayer(grown, 1, 0, half=False)
    with torch.no_grad():
        layer.new.output.dense.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="减半"):
        T.Practice(layer, shipped[1], GRAMMAR, 1e-3, 8, 5).run(1)


def test_two_processes(shipped, tmp_path):
    """两个进程练一个小模型：存下的多一层，原来的经过记在 before 里；再从它出发，不再加层，只练新层和它上面的。"""
    tokenizer = shipped[1]
    torch.manual_seed(0)
    small = BertLMHeadModel(bert_config(PRESETS["smoke"], tokenizer, is_decoder=True, max_position_embeddings=256))
    save_checkpoint(small, tokenizer, tmp_path / "start", {"objective": "clm", "causal_docs": 0})
    child = launch(torchrun(2, ["--from", tmp_path / "start", "--out", tmp_path / "one", "--minutes", "0.3", "--batch-size", "6",
                             "--survey", "60"],
                            module="tools.checkpoints.copy_training"), cpu_only=True)
    output = child.communicate(timeout=400)[0]
    assert child.returncode == 0, output[-3000:]
    info = json.loads((tmp_path / "one" / "course.json").read_text(encoding="utf-8"))
    assert info["documents_per_step"] == 12 and info["causal_docs"] == 12 * info["steps"] > 0 and info["before"]["objective"] == "clm"
    assert 0 <= info["test_faithful"] <= 1 and 0 <= info["copy_layer"] < small.config.num_hidden_layers
    one, _ = load_folder(tmp_path / "one", BertLMHeadModel)
    for n in range(info["copy_layer"]):                   # 新层下面的，一点没动（存盘时是 fp16）
        for a, b in zip(one.bert.encoder.layer[n].state_dict().values(), small.bert.encoder.layer[n].state_dict().values(), strict=True):
            torch.testing.assert_close(a, b.half().float(), atol=0, rtol=0)
    assert one.config.num_hidden_layers == small.config.num_hidden_layers + 1
    torch.testing.assert_close(one.bert.embeddings.word_embeddings.weight, small.bert.embeddings.word_embeddings.weight.half().float())
    T.main(["--from", str(tmp_path / "one"), "--out", str(tmp_path / "two"), "--minutes", "0.1", "--batch-size", "6", "--survey", "60"])
    on, at = json.loads((tmp_path / "two" / "course.json").read_text(encoding="utf-8")), info["copy_layer"]
    assert (on["objective"], on["copy_layer"], on["lr"], on["before"]) == ("above", at, pytest.approx(T.WHOLE * info["lr"]), info)
    two, _ = load_folder(tmp_path / "two", BertLMHeadModel)
    changed = [any(not torch.equal(a, b) for a, b in zip(x.state_dict().values(), y.state_dict().values(), strict=True))
               for x, y in zip(one.bert.encoder.layer, two.bert.encoder.layer, strict=True)]
    assert changed == [n >= at for n in range(len(changed))] and on["causal_docs"] > 0
    torch.testing.assert_close(two.bert.embeddings.word_embeddings.weight, one.bert.embeddings.word_embeddings.weight)
