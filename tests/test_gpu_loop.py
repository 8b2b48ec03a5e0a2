"""GPU 上的精简循环：批按长度排，遮盖的比例对，题目出得对，三种目标都学得动；CUDA 图的部分在有 GPU 时才测。"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from tools.checkpoints import gpu_loop as G
from utils.corpus.news import generate
from utils.models.initialization import prepare_heads
from utils.presets import PRESETS, pick_device
from utils.tokenization.tokenizer import build_tokenizer
from utils.training.batches import bert_config, encode_docs

PRESET = replace(PRESETS["smoke"], max_len=256, batch_size=8)


@pytest.fixture(scope="module")
def docs():
    return generate("train", 60)


@pytest.fixture(scope="module")
def tokenizer(docs):
    return build_tokenizer("char", docs["intro"][:] + docs["body"][:], model_max_length=256)


@pytest.fixture(scope="module")
def table(docs, tokenizer):
    return G.token_table(encode_docs(docs, tokenizer, 256, learn_intro=True), 256, tokenizer.pad_token_id)


def test_table_holds_every_document(docs, tokenizer, table):
    rows, (ids, lengths) = encode_docs(docs, tokenizer, 256), table
    for row, line, length in zip(rows, ids, lengths, strict=True):
        assert line[:length].tolist() == row["input_ids"] and (line[length:] == tokenizer.pad_token_id).all()


def test_table_of_a_selection(docs, tokenizer):
    rows = encode_docs(docs, tokenizer, 256).shuffle(seed=1).select(range(20))              # 选过、打乱过的，内部存法不同
    ids, lengths = G.token_table(rows, 256, tokenizer.pad_token_id)
    assert [line[:n].tolist() for line, n in zip(ids, lengths, strict=True)] == rows["input_ids"][:]


def test_batches_cover_every_document_once_and_lengths_are_close():
    lengths = np.random.default_rng(0).integers(20, 250, 1003)
    batches = G.length_batches(lengths, 8, np.random.default_rng(1))
    assert batches.shape == (125, 8) and len(set(batches.flatten().tolist())) == 1000
    assert np.mean([np.ptp(lengths[b]) for b in batches]) < 0.2 * np.ptp(lengths)             # 乱取的批，差得远
    firsts = [lengths[b].max() for b in batches]
    assert firsts != sorted(firsts)                                                           # 批与批之间打乱了
    rising = np.mean([np.all(np.diff(lengths[b]) >= 0) for b in batches])
    assert rising < 0.2, "一批之内没有打乱：接龙的总是短的，填空的总是长的"


def test_hiding_follows_80_10_10(tokenizer):
    torch.manual_seed(0)
    ids = torch.randint(5, len(tokenizer), (200, 100))
    ids[:, 0], ids[:, 60:] = tokenizer.cls_token_id, tokenizer.pad_token_id
    shown, labels = G.hide(ids, tokenizer, 0.4)
    chosen = labels != -100
    assert not chosen[:, 0].any() and not chosen[:, 60:].any() and torch.equal(shown[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])
    assert chosen[:, 1:60].float().mean().item() == pytest.approx(0.4, abs=0.02)
    now = shown[chosen]
    assert (now == tokenizer.mask_token_id).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (now == ids[chosen]).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert now.min() >= 4


@pytest.mark.parametrize("objective, causal", [("mlm", 0), ("both", 2), ("clm", 4)])
def test_pose_shows_what_the_objective_allows(objective, causal, tokenizer):
    ids = torch.randint(5, len(tokenizer), (4, 12))
    ids[1, 9:] = ids[3, 7:] = tokenizer.pad_token_id
    inputs, labels, visible = G.pose(ids, tokenizer, 0.4, objective)
    real = ids != tokenizer.pad_token_id
    for b in range(4):
        n = int(real[b].sum())
        own = visible[b, 0, :n, :n]
        assert not visible[b, 0, :n, n:].any(), "看得见填充"
        assert torch.equal(own, torch.ones(n, n).bool() if b >= causal else torch.ones(n, n).tril().bool())
        if b < causal:
            assert torch.equal(inputs[b], ids[b]) and labels[b, :n - 1].tolist() == ids[b, 1:n].tolist()
            assert (labels[b, n - 1:] == -100).all()
        else:
            chosen = labels[b] != -100
            assert torch.equal(labels[b][chosen], ids[b][chosen]) and torch.equal(inputs[b][~chosen], ids[b][~chosen])
            assert not chosen[n:].any()


@pytest.mark.parametrize("objective", G.OBJECTIVES)
def test_every_objective_learns(objective, table, tokenizer):
    torch.manual_seed(0)
    model = prepare_heads(BertForMaskedLM(bert_config(PRESET, tokenizer))).to(pick_device())
    before = {name: w.clone() for name, w in model.state_dict().items()}

    def nats():
        torch.manual_seed(1)
        inputs, labels, visible = G.pose(torch.from_numpy(table[0][:16]).to(model.device).long(), tokenizer, 0.4, objective)
        with torch.no_grad():
            logits = model(inputs, attention_mask=torch.where(visible, 0.0, -1e9)).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()

    start = nats()
    steps = G.clocked(model, *table, tokenizer, PRESET, 0.12, 0, objective)
    assert steps > 5 and nats() < start - 0.5
    assert all(not torch.equal(w, before[name]) for name, w in model.state_dict().items() if "layer.1.attention.self.query.weight" in name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="没有 CUDA")
def test_replaying_a_graph_equals_running_the_step(tokenizer):
    def train(wrap):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.ones(len(tokenizer), 4, device="cuda"))
        optimizer = torch.optim.AdamW([weight], lr=torch.tensor(0.01, device="cuda"), fused=True, capturable=True)

        def step(ids):
            optimizer.zero_grad(set_to_none=True)
            loss = weight[ids].square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run, losses = wrap(step), []
        for n in range(8):
            losses.append(run(torch.arange(n, n + 6, device="cuda")[None]).item())
        return losses

    plain, replayed = train(lambda step: step), train(G.Graphs)
    assert replayed[-1] < replayed[0] and len(set(replayed)) == 8                              # 每次都真的走了一步，用的是新的输入
    assert plain[-1] < plain[0]


@pytest.mark.parametrize("change, words", [({"objective": "t5"}, "不认识"), ({"few": True}, "不够一批")])
def test_bad_requests(change, words, table, tokenizer):
    model = BertForMaskedLM(bert_config(PRESET, tokenizer))
    ids, lengths = (part[:3] if change.get("few") else part for part in table)
    with pytest.raises(ValueError, match=words):
        G.clocked(model, ids, lengths, tokenizer, PRESET, 0.01, 0, change.get("objective", "mlm"))


def test_divergence_is_said(table, tokenizer):
    model = BertForMaskedLM(bert_config(PRESET, tokenizer)).to(pick_device())
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FloatingPointError, match="发散"):
        patch.setattr(G, "LOOK", 1)
        G.clocked(model, *table, tokenizer, PRESET, 0.1, 0, "mlm")
