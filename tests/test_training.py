"""训练：标签与填充、评估与库的损失相等、几十步就见效、能打断、因果掩码看不见未来。"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import BertForMaskedLM, BertLMHeadModel

from utils.corpus.news import generate
from utils.presets import PRESETS, set_seed
from utils.tokenization.tokenizer import build_tokenizer
from utils.training import batches as B
from utils.training import loop as T
from utils.training import losses as L

TINY = replace(PRESETS["smoke"], layers=1, hidden=32, heads=2, batch_size=8, lr=1e-2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def docs():
    return generate("train", 64)


@pytest.fixture(scope="module")
def tokenizer(docs):
    return build_tokenizer("char", docs["intro"][:] + docs["body"][:])


@pytest.fixture(scope="module")
def encoded(docs, tokenizer):
    return B.encode_docs(docs, tokenizer, 256)


def decoder(tokenizer, seed=0, **changes):
    set_seed(seed)
    return BertLMHeadModel(B.bert_config(TINY, tokenizer, is_decoder=True, loss_type="ForCausalLM", **changes)).eval()


def encoder(tokenizer, seed=0):
    set_seed(seed)
    return BertForMaskedLM(B.bert_config(TINY, tokenizer)).eval()


def test_config_follows_the_preset(tokenizer):
    config = B.bert_config(PRESETS["gpu"], tokenizer, is_decoder=True)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (6, 768, 12)
    assert (config.intermediate_size, config.max_position_embeddings) == (3072, 512)
    assert config.vocab_size == len(tokenizer) and config.pad_token_id == 0 and config.is_decoder
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1


# ---- 编码与整理
def test_encode_docs_hides_the_prompt(docs, encoded, tokenizer):
    for doc, row in zip(docs, encoded, strict=True):
        ids, labels = row["input_ids"], row["labels"]
        prompt = len(doc["intro"]) + 2                                 # [CLS] 导语 [SEP]
        assert row["length"] == len(ids) == len(labels) == prompt + len(doc["body"]) + 1
        assert labels[:prompt] == [-100] * prompt and labels[prompt:] == ids[prompt:]
        assert row["attention_mask"] == [1] * len(ids) and ids[-1] == tokenizer.sep_token_id
        assert "".join(tokenizer.convert_ids_to_tokens(ids[prompt:-1])) == doc["body"]


def test_encode_docs_refuses_what_does_not_fit(docs, tokenizer):
    with pytest.raises(ValueError, match="max_len=40"):
        B.encode_docs(docs, tokenizer, 40)


def test_clm_collator_pads(encoded, tokenizer):
    rows = list(encoded.select(range(6)))
    batch = B.clm_collator(tokenizer)(rows)
    longest = -(-max(r["length"] for r in rows) // 8) * 8              # 补到 8 的倍数
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert {tuple(v.shape) for v in batch.values()} == {(6, longest)}
    assert len({r["length"] for r in rows}) > 1
    for i, row in enumerate(rows):
        n = row["length"]
        assert batch["input_ids"][i].tolist() == row["input_ids"] + [tokenizer.pad_token_id] * (longest - n)
        assert batch["labels"][i].tolist() == row["labels"] + [-100] * (longest - n)
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (longest - n)


def test_padding_never_outgrows_the_positions(docs):
    """最长只有 100 个位置的模型，不能为了凑 8 的倍数补到 104。"""
    short = build_tokenizer("char", docs["intro"][:] + docs["body"][:], model_max_length=100)
    row = {"input_ids": [5] * 100, "attention_mask": [1] * 100, "labels": [5] * 100}
    for collate in (B.mlm_collator(short, seed=1), B.clm_collator(short)):
        assert collate([row, row])["input_ids"].shape == (2, 100)


def test_mlm_collator_shares(encoded, tokenizer):
    collate = B.mlm_collator(tokenizer, seed=1)
    chosen = masked = kept = total = 0
    for start in [*range(0, 64, 16)] * 4:
        rows = list(encoded.select(range(start, start + 16)))
        batch = collate(rows)
        original = B.clm_collator(tokenizer)(rows)["input_ids"]
        at = batch["labels"] != -100
        special = original < 5
        assert not (at & special).any()                                # 特殊词元与填充从不被选中
        assert (batch["labels"][at] == original[at]).all() and (batch["input_ids"][~at] == original[~at]).all()
        total += (~special).sum().item()
        chosen += at.sum().item()
        masked += (batch["input_ids"][at] == tokenizer.mask_token_id).sum().item()
        kept += (batch["input_ids"][at] == original[at]).sum().item()
    assert total > 20000
    assert chosen / total == pytest.approx(0.15, abs=0.01)
    assert masked / chosen == pytest.approx(0.8, abs=0.03)
    assert kept / chosen == pytest.approx(0.1, abs=0.025)
    more = B.mlm_collator(tokenizer, 0.4, seed=1)(list(encoded))["labels"] != -100
    assert more.sum().item() / (total / 4) == pytest.approx(0.4, abs=0.02)


def test_fixed_batches_are_repeatable(encoded, tokenizer):
    first, again = (B.fixed_batches(encoded, B.mlm_collator(tokenizer, seed=5), 20, 8) for _ in range(2))
    assert [len(b["input_ids"]) for b in first] == [8, 8, 4]
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, again, strict=True))
    assert sum(len(b["labels"]) for b in B.fixed_batches(encoded, B.clm_collator(tokenizer), 999)) == 64


# ---- 评估
@torch.no_grad()
def by_hand(model, batches, shift):
    losses, hits = [], []
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # (B, T, V)
        for i, labels in enumerate(batch["labels"]):
            for t in range(len(labels)):
                if labels[t] != -100:
                    p = F.log_softmax(logits[i, t - shift], dim=-1)
                    losses.append(-p[labels[t]].item())
                    hits.append(p.argmax().item() == labels[t].item())
    return sum(losses) / len(losses), sum(hits) / len(hits)


@pytest.mark.parametrize("shift", [True, False])
def test_evaluate_equals_a_loop_and_the_library(shift, encoded, tokenizer):
    model = decoder(tokenizer) if shift else encoder(tokenizer)
    collate = B.clm_collator(tokenizer) if shift else B.mlm_collator(tokenizer, seed=3)
    batches = B.fixed_batches(encoded, collate, 7, 4)
    loss, accuracy = L.evaluate(model, batches, shift)
    assert (loss, accuracy) == pytest.approx(by_hand(model, batches, shift), rel=1e-5)
    with torch.no_grad():
        for batch in batches:                                          # 单独一批时，与库算的损失相等
            assert L.evaluate(model, [batch], shift)[0] == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    whole = L.evaluate(model, B.fixed_batches(encoded, B.clm_collator(tokenizer), 7, 7), shift)
    if shift:
        assert whole == pytest.approx((loss, accuracy), rel=1e-5)      # 怎样分批都一样：按词元加权


def test_evaluate_restores_the_mode(encoded, tokenizer):
    model = decoder(tokenizer, hidden_dropout_prob=0.5)
    batches = B.fixed_batches(encoded, B.clm_collator(tokenizer), 4, 4)
    for mode in (True, False):
        model.train(mode)
        assert L.evaluate(model, batches, True) == L.evaluate(model, batches, True)   # 评估时不随机丢弃
        assert model.training is mode


# ---- 训练
def run(model, encoded, tokenizer, folder, steps=30, every=None, evaluations=5):
    collate = B.clm_collator(tokenizer)
    held = B.fixed_batches(encoded, collate, 16, 16)
    args = T.training_arguments(folder, steps, TINY, CPU, seed=1)
    return T.train(model, encoded, collate, args, every or (lambda m: L.evaluate(m, held, True)),
                   evaluations=evaluations), held


def test_training_arguments(tmp_path):
    args = T.training_arguments(tmp_path, 200, TINY, CPU, seed=3)
    assert (args.max_steps, args.per_device_train_batch_size, args.learning_rate) == (200, 8, 1e-2)
    assert args.warmup_steps == 20 and args.seed == args.data_seed == 3 and args.use_cpu and not args.bf16
    assert T.training_arguments(tmp_path, 200, replace(TINY, bf16=True), CPU, seed=3).bf16
    assert list(args.report_to or []) == [] and args.save_strategy == "no" and args.logging_steps == 4


def test_bf16_learns_the_same_and_leaves_float32(encoded, tokenizer, tmp_path):
    collate = B.clm_collator(tokenizer)
    held = B.fixed_batches(encoded, collate, 16, 16)
    loss, weights = {}, {}
    for bf16 in (False, True):
        model = decoder(tokenizer)
        before = model.config._attn_implementation
        args = T.training_arguments(tmp_path, 30, replace(TINY, bf16=bf16), CPU, seed=1)
        T.train(model, encoded, collate, args, lambda m: L.evaluate(m, held, True))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.config._attn_implementation == before
        loss[bf16], weights[bf16] = L.evaluate(model, held, True)[0], model.get_input_embeddings().weight.detach().clone()
    assert loss[True] == pytest.approx(loss[False], rel=0.02)
    assert not torch.equal(weights[True], weights[False])                   # 比权重：两次的损失可以碰巧一样，有的 CPU 上就是


def test_train_learns_and_keeps_a_history(encoded, tokenizer, tmp_path, capsys):
    model = decoder(tokenizer)
    history, held = run(model, encoded, tokenizer, tmp_path)
    assert history.eval_steps == [0, 6, 12, 18, 24, 30] and history.steps == list(range(1, 31))
    assert len(history.train_loss) == 30
    assert len(history.eval_loss) == len(history.eval_accuracy) == 6
    assert history.eval_loss[-1] < history.eval_loss[0] - 1 and history.eval_accuracy[-1] > history.eval_accuracy[0]
    assert history.train_loss[0] == pytest.approx(history.eval_loss[0], abs=0.2)      # 两者同一个单位
    assert L.evaluate(model, held, True)[0] == pytest.approx(history.eval_loss[-1])   # 就地更新
    assert not history.interrupted and history.seconds > 0 and not model.training
    out = capsys.readouterr()
    assert "30/30" in out.err and "{'loss'" not in out.out
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt"))


def test_the_same_seed_trains_the_same_model(encoded, tokenizer, tmp_path):
    first, second = decoder(tokenizer), decoder(tokenizer)
    assert run(first, encoded, tokenizer, tmp_path, 4)[0].train_loss == \
        run(second, encoded, tokenizer, tmp_path, 4)[0].train_loss
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_interrupt_keeps_what_was_learned(encoded, tokenizer, tmp_path, capsys):
    model, calls = decoder(tokenizer), []
    before = model.state_dict()["bert.embeddings.word_embeddings.weight"].clone()

    def stop_at_the_third(m):
        calls.append(m)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1.0, 0.5

    history, _ = run(model, encoded, tokenizer, tmp_path, 20, stop_at_the_third, evaluations=4)
    assert history.interrupted and history.eval_steps == [0, 5] and history.eval_loss == [1.0, 1.0]
    assert 5 <= len(history.train_loss) == len(history.steps) <= 10 and history.seconds > 0
    assert "第 10 步停下" in capsys.readouterr().out and not model.training
    assert not torch.equal(model.state_dict()["bert.embeddings.word_embeddings.weight"], before)


# ---- 因果
def test_the_future_never_changes_the_past(tokenizer):
    ids = torch.randint(5, len(tokenizer), (2, 40), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 25:] = (changed[:, 25:] - 4) % (len(tokenizer) - 5) + 5
    assert (changed[:, 25:] != ids[:, 25:]).all()
    with torch.no_grad():
        model = decoder(tokenizer)
        assert torch.equal(model(ids).logits[:, :25], model(changed).logits[:, :25])
        assert not torch.equal(model(ids).logits[:, 25:], model(changed).logits[:, 25:])
        model = encoder(tokenizer)                                     # 编码器两边都看，当然会变
        assert not torch.equal(model(ids).logits[:, :25], model(changed).logits[:, :25])


@pytest.mark.parametrize("shift", [True, False])
def test_targets_only_is_the_same_loss_and_gradient(shift, encoded, tokenizer):
    model = decoder(tokenizer) if shift else encoder(tokenizer)
    collate = B.clm_collator(tokenizer) if shift else B.mlm_collator(tokenizer, seed=1)
    batch = collate(list(encoded.select(range(6))))
    model(**batch).loss.backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    expected, logits = model(**batch).loss, model(input_ids=batch["input_ids"]).logits
    model.zero_grad()
    with L.targets_only(model, shift):
        loss = model(**batch).loss
        loss.backward()
        torch.testing.assert_close(model(input_ids=batch["input_ids"]).logits, logits)     # 没给标签时一切照旧
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, whole[name], rtol=1e-4, atol=1e-6)
    assert "forward" not in vars(model)                                                    # 用完就复原


def test_targets_only_counts_only_the_targets(encoded, tokenizer, monkeypatch):
    """词表头真的只在有标签的位置算；训练时个数补到 128 的倍数，形状少，CPU 不必每步重新编译矩阵乘法。"""
    model, seen = encoder(tokenizer), []
    model.cls.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[:-1].numel()))
    batch = B.mlm_collator(tokenizer, seed=1)(list(encoded.select(range(6))))
    with L.targets_only(model, shift=False):
        model(**batch)
    L.evaluate(model, [batch], shift=False)
    n = int((batch["labels"] != -100).sum())
    assert seen == [-(-n // 128) * 128, n] and n % 128 and batch["input_ids"].numel() > 2 * seen[0]


def test_targets_only_leaves_other_models_alone():
    model = torch.nn.Linear(2, 2)
    with L.targets_only(model, shift=False):
        assert model(torch.ones(1, 2)).shape == (1, 2) and "forward" not in vars(model)


def test_an_error_inside_restores_the_model(encoded, tokenizer):
    model = encoder(tokenizer)
    with pytest.raises(RuntimeError, match="出错"), L.targets_only(model, shift=False):
        raise RuntimeError("出错")
    assert "forward" not in vars(model)


def test_training_uses_the_loss_of_the_class(encoded, tokenizer, tmp_path):
    """BertLMHeadModel 不写 is_decoder 时，库的损失照样错开一位；训练不能悄悄改正它，06 要靠它看见这个错误。"""
    set_seed(0)
    model = BertLMHeadModel(B.bert_config(TINY, tokenizer))
    model.loss_type = "ForCausalLM"
    batch = B.clm_collator(tokenizer)(list(encoded.select(range(4))))
    expected = model(**batch).loss.item()
    with L.targets_only(model, shift=True):
        assert model(**batch).loss.item() == pytest.approx(expected, rel=1e-5)
    history = run(model, encoded, tokenizer, tmp_path, steps=3)[0]
    assert history.train_loss[0] == pytest.approx(expected, rel=0.1)
