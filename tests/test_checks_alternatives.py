# ruff: noqa: B905
"""会诊断的练习：写法不同的正确答案都通过；溜得过去的错答案一个也没有；说得清的关系和报错都说清。"""

import bisect
import itertools
import math
import re
import statistics
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.checks.framework import Function, Mistake, relations
from utils.checks.framework.gloss import gloss
from utils.checks.framework.runner import exercises, load_module
from utils.checks.framework.verdict import PASS, WRONG

TOPICS = ("tokenization", "self_attention", "transformer", "objectives", "mlm_pretraining", "attention_visualization", "clm_finetuning",
          "generation")
TASKS = {e.key: e for n in TOPICS for e in exercises(load_module(n)).values() if isinstance(e, Function)}


@pytest.fixture(autouse=True)
def own_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))


# ---------------------------------------------------------------- 换一种写法


def by_bits(data):
    codes = []
    for byte in data:
        bits = f"{byte:08b}"
        if bits.startswith("10"):
            codes[-1] += bits[2:]
        else:
            codes.append(bits[bits.index("0") + 1:] if bits[0] == "1" else bits)
    return tuple(int(bits, 2) for bits in codes)


def sorted_pairs(words):
    counts = Counter()
    for units, times in words.items():
        for pair in itertools.pairwise(units):
            counts[pair] += times
    best = None
    for pair in sorted(counts):
        best = pair if best is None or counts[pair] > counts[best] else best
    return list(best)


def recursive_match(text, vocab):
    if not text:
        return []
    size = max((n for n in range(1, len(text) + 1) if text[:n] in vocab), default=1)
    return [text[:size], *recursive_match(text[size:], vocab)]


def regular_match(text, vocab):
    return re.findall("|".join([*map(re.escape, sorted(vocab, key=len, reverse=True)), "."]), text, re.S)


def row_by_row(scores):
    out = torch.zeros_like(scores)
    for i in range(scores.size(-1)):
        out[..., i, :i + 1] = scores[..., i, :i + 1].softmax(-1)
    return out


def looped_window(T, width):
    return torch.tensor([[0 <= i - j < width for j in range(T)] for i in range(T)])


def complex_turn(x, t):
    pairs = torch.view_as_complex(x.view(-1, 2).contiguous())
    angle = t / 10000 ** (torch.arange(0, len(x), 2) / len(x))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten()


def looped_turn(x, t):
    out = x.clone()
    for n in range(0, len(x), 2):
        a = t * 10000 ** (-n / len(x))
        out[n], out[n + 1] = x[n] * math.cos(a) - x[n + 1] * math.sin(a), x[n] * math.sin(a) + x[n + 1] * math.cos(a)
    return out


def looped_mask(attention_mask):
    B, T = attention_mask.shape
    out = torch.zeros(B, 1, T, T, dtype=torch.bool)
    for b, i in itertools.product(range(B), range(T)):
        out[b, 0, i, :i + 1] = attention_mask[b, :i + 1] == 1
    return out


def looped_clm(logits, ids, mask):
    found = [-logits[b, t].log_softmax(-1)[ids[b, t + 1]].item()
             for b in range(len(ids)) for t in range(ids.size(1) - 1) if mask[b, t + 1]]
    return statistics.mean(found)


def looped_mlm(logits, labels):
    found = [-torch.log(logits[b, t].exp() / logits[b, t].exp().sum())[labels[b, t]]
             for b, t in itertools.product(*map(range, labels.shape)) if labels[b, t] != -100]
    return torch.stack(found).mean()


def body_mean(logits, labels):
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    return losses.double().sum() / (labels[:, 1:] != -100).sum()


def split_randomly(intros, bodies, generator):
    flipped = set(torch.randperm(len(intros), generator=generator)[:len(intros) // 2].tolist())
    return [[b, a, True] if n in flipped else [a, b, False] for n, (a, b) in enumerate(zip(intros, bodies, strict=True))]


def bernoulli_pairs(intros, bodies, generator):
    flips = torch.bernoulli(torch.full((len(intros),), 0.5), generator=generator)
    return [(b, a, x) if x else (a, b, x) for a, b, x in zip(intros, bodies, flips, strict=True)]


def counted_accuracy(logits, labels):
    pairs = [(int(x.argmax()), int(y)) for x, y in zip(logits.flatten(0, 1), labels.flatten(), strict=True) if y != -100]
    return sum(a == b for a, b in pairs) / len(pairs)


def counted_unigram(train, test, V):
    counts = [1] * V
    for i in train:
        counts[i] += 1
    return np.mean([math.log(sum(counts) / counts[i]) for i in test])


def torch_unigram(train, test, V):
    counts = torch.bincount(torch.tensor(train), minlength=V) + 1
    return -(counts / counts.sum()).log()[test].mean()


def split_padding(lengths, batch_size):
    row = torch.tensor(lengths)
    total = sum(x.max() * len(x) for x in row.split(batch_size))
    return (total - row.sum()) / total


def looped_padding(lengths, batch_size):
    wasted = total = 0
    for start in range(0, len(lengths), batch_size):
        batch = lengths[start:start + batch_size]
        wasted, total = wasted + sum(max(batch) - x for x in batch), total + max(batch) * len(batch)
    return wasted / total


def one_by_one(forward, ids, k):
    before = forward(ids)[0, :k + 1]
    for j in range(k + 1, ids.size(1)):
        other = ids.clone()
        other[0, j] = (other[0, j] + 7) % 50
        if not torch.allclose(forward(other)[0, :k + 1], before, atol=1e-5):
            return True
    return False


def frozen_by_name(model, n):
    for name, p in model.named_parameters():
        if name.startswith(("bert.embeddings", *(f"bert.encoder.layer.{i}." for i in range(n)))):
            p.requires_grad = False
    return model


def frozen_then_thawed(model, n):
    model.requires_grad_(False)
    for part in (model.bert.encoder.layer[n:], model.cls):
        part.requires_grad_(True)
    model.bert.embeddings.requires_grad_(False)           # 输出头的矩阵与字嵌入是同一个


def numpy_nucleus(p, limit):
    order = np.argsort(-p.numpy())
    return np.sort(order[:np.searchsorted(np.cumsum(p.numpy()[order]), limit) + 1])


def tried_one_by_one(ids, n):
    seen = {tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)}
    return sorted(x for x in set(ids) if tuple([*ids, x][-n:]) in seen)


def looped_positions(mask):
    out = torch.zeros_like(mask)
    for b, row in enumerate(mask):
        out[b, row == 1] = torch.arange(int(row.sum()))
    return out


RIGHT = {
    "tokenization.utf8_decode": [by_bits, lambda data: np.frombuffer(str(data, "utf-8").encode("utf-32-le"), dtype=np.uint32)],
    "tokenization.best_pair": [sorted_pairs, lambda words: min((-sum(n for u, n in words.items() for p in zip(u, u[1:]) if p == q), q)
                                                     for u in words for q in zip(u, u[1:]))[1]],
    "tokenization.longest_match": [recursive_match, regular_match],
    "tokenization.bits_per_character": [
        lambda nats, text, unknown: np.sum(nats) / np.log(2) / len(text) + unknown * np.log2(0x110000) / len(text),
                              lambda nats, text, unknown: (torch.tensor(nats).double().sum() + unknown * math.log(1114112))
                              / math.log(2) / len(text)],
    "self_attention.attention_scores": [lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5,
                            lambda q, k: (q / np.sqrt(q.size(3))).matmul(k.mT)],
    "self_attention.causal_weights": [row_by_row, lambda s: s.exp().tril() / s.exp().tril().sum(-1, keepdim=True),
                          lambda s: (s + torch.full(s.shape[-2:], -1e9).triu(1)).softmax(-1),
                          lambda s: s.softmax(-1).tril() / s.softmax(-1).tril().sum(-1, keepdim=True)],
    "self_attention.window_mask": [
        looped_window, lambda T, width: torch.from_numpy(np.tri(T, dtype=bool) & ~np.tri(T, k=-width, dtype=bool))],
    "self_attention.mean_entropy": [lambda w: torch.distributions.Categorical(probs=w).entropy().mean(),
                        lambda w: float(np.mean([sum(-x * math.log(x) for x in row if x) for row in w.tolist()])),
                        lambda w: -(w * w.log()).nan_to_num(0).sum(1).double().mean()],
    "self_attention.merge_heads": [lambda x: torch.cat(list(x.unbind(1)), -1),
                       lambda x: x.permute(0, 2, 1, 3).reshape(x.size(0), x.size(2), -1)],
    "transformer.rms_norm": [lambda x, gamma, eps: F.rms_norm(x, x.shape[-1:], gamma, eps),
                    lambda x, gamma, eps: x * torch.rsqrt((x * x).sum(-1, keepdim=True) / len(gamma) + eps) * gamma],
    "transformer.rotate_one": [complex_turn, looped_turn],
    "transformer.decoder_mask": [looped_mask, lambda m: (torch.ones(m.size(1), m.size(1)).tril() * m[:, None, None]) > 0],
    "transformer.shift_right": [lambda labels, begin, pad: torch.tensor([[begin,
    *(pad if x < 0 else x for x in row[:-1])] for row in labels.tolist()]),
                       lambda labels, begin, pad: F.pad(labels.where(labels >= 0, pad), (1, -1), value=begin)],
    "transformer.count_parameters": [lambda V, C, L: 2 * V * C + V + 4 * C + 28 * L * C ** 2 + 32 * L * C,
                            lambda V, C, L: V * (2 * C + 1) + 4 * C + L * (3 * (4 * C * C + 4 * C) + 2 * (8 * C * C + 5 * C) + 10 * C)],
    "objectives.padded_clm_loss": [looped_clm, lambda logits, ids, mask: F.cross_entropy(
        logits[:, :-1].transpose(1, 2), ids[:, 1:].where(mask[:, 1:] == 1, -100))],
    "objectives.mlm_loss": [looped_mlm, lambda logits, labels: F.cross_entropy(logits.view(-1, logits.size(-1)), labels.view(-1))],
    "objectives.shift_right": [lambda labels, start: F.pad(labels.where(labels != -100, start), (1, -1), value=start),
                       lambda labels, start: torch.tensor([[start,
                       *(start if x < 0 else x for x in row[:-1])] for row in labels.tolist()])],
    "objectives.order_pairs": [split_randomly, bernoulli_pairs],
    "mlm_pretraining.masked_accuracy": [
        counted_accuracy, lambda logits, labels: (logits.argmax(-1) == labels).sum() / (labels != -100).sum()],
    "mlm_pretraining.unigram_loss": [counted_unigram, torch_unigram],
    "mlm_pretraining.learning_rate": [lambda step, total, warmup, peak: np.interp(step, [0, warmup, total], [0, peak, 0]),
                         lambda step, total, warmup, peak: torch.tensor(peak * min(step / warmup, (total - step) / (total - warmup)))],
    "mlm_pretraining.padding_share": [split_padding, looped_padding],
    "attention_visualization.previous_score": [lambda w, queries: torch.stack([w[..., i, i - 1] for i in queries]).mean(0),
                          lambda w, queries: w.diagonal(-1, -2, -1)[..., [i - 1 for i in queries]].mean(-1)],
    "attention_visualization.uniform_baseline": [
        lambda goal, visible: float(np.mean([(g.sum() / v.sum()).item() for g, v in zip(goal, visible) if g.any()])),
                            lambda goal, visible: (goal.sum(1) / visible.sum(1)).sum() / goal.any(1).sum()],
    "attention_visualization.same_word": [lambda words: torch.tensor([[i != j and a == b >= 0 for j, b in enumerate(words.tolist())]
                                                 for i, a in enumerate(words.tolist())]),
                     lambda words: words.eq(words[:, None]).fill_diagonal_(False) & words.ge(0)[:, None]],
    "attention_visualization.held_out_score": [lambda scores: scores.chunk(2)[1].mean(0)[scores.chunk(2)[0].sum(0).argmax()],
                          lambda scores: max(zip(scores[:len(scores) // 2].mean(0), scores[len(scores) // 2:].mean(0)))[1].item()],
    "attention_visualization.paired_gap": [
        lambda a, b: (statistics.mean(d := [x - y for x, y in zip(a, b)]), statistics.stdev(d) / len(d) ** 0.5),
                      lambda a, b: np.array([np.subtract(a, b).mean(), np.subtract(a, b).std(ddof=1) / np.sqrt(len(a))])],
    "clm_finetuning.make_row": [lambda intro, body, cls, sep: [[cls] + intro + [sep] + body + [sep],
    [-100 for _ in range(len(intro) + 2)] + body + [sep]],
                    lambda intro, body, cls, sep: (ids := (cls, *intro, sep, *body, sep), [
                        x if t > len(intro) + 1 else -100 for t, x in enumerate(ids)])],
    "clm_finetuning.body_loss": [body_mean, lambda logits, labels: looped_mlm(logits[:, :-1], labels[:, 1:])],
    "clm_finetuning.sees_future": [one_by_one, lambda forward, ids, k: not torch.equal(
        forward(torch.cat([ids[:, :k + 1], 0 * ids[:, k + 1:]], 1))[:, :k + 1], forward(ids)[:, :k + 1])],
    "clm_finetuning.freeze_bottom": [frozen_by_name, frozen_then_thawed],
    "generation.nucleus": [numpy_nucleus, lambda p, limit: sorted(i for i in range(len(p)) if float(p[p > p[i]].double().sum()) < limit)],
    "generation.banned_next": [tried_one_by_one, lambda ids, n: sorted({b for *a,
    b in zip(*(ids[i:] for i in range(n))) if a == ids[len(ids) - n + 1:]})],
    "generation.best_finished": [lambda totals, lengths, alpha: ((s := np.divide(totals, np.power(lengths, alpha))).argmax(), s.max()),
                         lambda totals, lengths, alpha: max((x / y ** alpha, i) for i, (x, y) in enumerate(zip(totals, lengths)))[::-1]],
    "generation.left_positions": [
        looped_positions, lambda mask: (torch.arange(mask.size(1)) - (mask == 0).sum(1, keepdim=True)).clamp(min=0)],
    "generation.draw_token": [lambda p, u: bisect.bisect_right(list(itertools.accumulate(p.tolist())), u),
                      lambda p, u: (u < p.cumsum(0)).int().argmax()],
}


@pytest.mark.parametrize("key", TASKS)
def test_right_answers_written_in_another_way_pass(key):
    assert len(RIGHT[key]) >= 2, "每道写函数的题，至少两种别的写法"
    for answer in RIGHT[key]:
        for seed in range(10):
            verdict = TASKS[key](answer, seed=seed)
            assert verdict.status == PASS, str(verdict)


# ---------------------------------------------------------------- 不该溜过去的


def first_of_the_most(words):
    counts = Counter()
    for units, times in words.items():
        for pair in zip(units, units[1:]):
            counts[pair] += times
    return counts.most_common(1)[0][0]


def in_place_freeze_of_a_copy(model, n):
    import copy

    model = copy.deepcopy(model)
    for part in [model.bert.embeddings, *model.bert.encoder.layer[:n]]:
        part.requires_grad_(False)


def over_the_edge(forward, ids, k):
    other = ids.clone()
    other[:, k + 1:] += 1
    return not torch.allclose(forward(other)[:, :k + 1], forward(ids)[:, :k + 1])


@pytest.mark.parametrize("key, answer, kind", [
    ("tokenization.best_pair", first_of_the_most, "平手时取了先遇到的"),
    ("objectives.padded_clm_loss",
     lambda logits, ids, mask: F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], ignore_index=0), None),
    ("objectives.mlm_loss", lambda logits, labels: F.cross_entropy(logits[labels > 0], labels[labels > 0]), "第 0 号词元也丢了"),
    ("objectives.order_pairs", lambda intros, bodies, generator: list(zip(bodies, intros)).clear(), "类型"),
    ("objectives.order_pairs", lambda intros, bodies, generator: [(b, a, "1") if torch.rand((), generator=generator) < 0.5 else (a, b, "0")
                                                          for a, b in zip(intros, bodies)], "其他"),
    ("objectives.order_pairs", lambda intros, bodies, generator: list(zip(intros, bodies)), "参数没有用上"),
    ("clm_finetuning.body_loss",
     lambda logits, labels: F.cross_entropy(logits[:, :-1][labels[:, 1:] > 0], labels[:, 1:][labels[:, 1:] > 0]),
     "第 0 号词元也丢了"),
    ("clm_finetuning.sees_future", over_the_edge, "异常"),
    ("clm_finetuning.freeze_bottom", in_place_freeze_of_a_copy, "什么也没有冻住"),
    ("generation.best_finished", lambda totals, lengths, alpha: (0, totals[0] / lengths[0]), None),
])
def test_answers_that_are_almost_right_do_not_slip_through(key, answer, kind):
    for seed in range(10):
        verdict = TASKS[key](answer, seed=seed)
        assert verdict.status == WRONG and kind in (None, verdict.kind), str(verdict)


def test_no_hint_holds_code_to_copy():
    """提示里没有代码能直接当答案抄：不出现「return」，不出现整行的赋值。"""
    for task in TASKS.values():
        for m in task.mistakes:
            assert not re.search(r"\breturn |^\s*\w+ = .+\(", m.hint + "\n" + m.ask, re.M), (task.key, m.name)


# ---------------------------------------------------------------- 说得清的关系


def softmax_task(**changes):
    cases = lambda rng: [(torch.randn(2, 3, generator=torch.Generator().manual_seed(rng.getrandbits(31))),),              # noqa: E731
                         (torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 0.5]]),)]
    return Function("99.softmax", **dict(reference=lambda x: x.softmax(-1), cases=cases, ask="？", mistakes=()) | changes)


@pytest.mark.parametrize("answer, kind, words", [
    (lambda x: -x.softmax(-1), "正负号反了", "相反数"),
    (lambda x: x.softmax(-1) * 100, "成了百分数", "100"),
    (lambda x: x.softmax(-1) / math.log(2), "对数的底不对", "ln 2"),
    (lambda x: x.softmax(-1) * 3, "差一个倍数", "3 倍"),
    (lambda x: 1 - x.softmax(-1), "成了另一半", "加起来总是 1"),
    (lambda x: 1 / x.softmax(-1), "分子分母颠倒", "倒数"),
    (lambda x: x.softmax(-1).log(), "多取了一次对数", "对数"),
    (lambda x: x.softmax(-1).exp(), "指数没有去掉", "指数"),
    (lambda x: x.softmax(-1) ** 2, "多平方了一次", "平方"),
    (lambda x: x.softmax(-1) ** 0.5, "多开了一次方", "平方根"),
    (lambda x: 2 ** x.softmax(-1), "成了 2 的指数", "次方"),
    (lambda x: x.softmax(-1) + 1, "总是差一", "大 1"),
    (lambda x: x.softmax(-1).flip(-1), "次序倒了", "倒了过来"),
    (lambda x: x.softmax(-1).roll(1, -1), "次序不对", "次序"),
    (lambda x: x.softmax(0), "沿错了维", "每一列"),
    (lambda x: x.flatten().softmax(0).view_as(x), "沿错了维", "合在一起"),
    (lambda x: x.exp(), "每行之和不是 1", "每一行"),
    (lambda x: x * float("nan"), "出现了 NaN", "NaN"),
    (lambda x: x.softmax(-1) / 0, "出现了无穷大", "无穷大"),
    (lambda x: x, "原样还了回去", "第 1 个"),
    (lambda x: x.softmax(-1) * (1 + x.abs().sum()), "倍数随输入变", "依次是"),
    (lambda x: torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]), "参数没有用上", "x"),
    (lambda x: x.softmax(-1).numpy(), "类型", "数都对"),
    (lambda x: x.softmax(-1).double(), "dtype", "数都对"),
    (lambda x: (0.5 * x).softmax(-1), "其他", "2 个输入里有 2 个"),
])
def test_relations_are_named(answer, kind, words):
    for seed in range(5):
        verdict = softmax_task()(answer, seed=seed)
        assert verdict.kind == kind and words in verdict.hint, str(verdict)


def test_a_known_mistake_comes_before_a_relation_and_one_wrong_input_is_located():
    known = Mistake("忘了归一", lambda x: x.exp(), "它只取了指数。", "？")
    assert softmax_task(mistakes=(known,))(lambda x: x.exp()).kind == "忘了归一"

    def one_cell(x):
        out = x.softmax(-1)
        out[1, 2] += 0.25
        return out

    verdict = softmax_task()(one_cell)
    assert "6 个数里错了 1 个。第一个在下标 [1、2]" in str(verdict)
    truth = Function("99.truth", reference=lambda n: n % 2 == 0, cases=lambda rng: [(2,), (3,)], ask="？", mistakes=())
    assert truth(lambda n: n % 2 == 1).kind == "真假相反" and truth(lambda n: False).kind == "参数没有用上"
    turned = Function("99.turned", reference=lambda x: x @ x.mT + torch.arange(3.0), ask="？", mistakes=(),
                      cases=lambda rng: [(torch.randn(3, 2),), (torch.randn(3, 4),)])
    assert turned(lambda x: (x @ x.mT + torch.arange(3.0)).T).kind == "行列颠倒"


def test_unused_parameters_are_seen_through_closures_and_not_imagined():
    def inner(a, b, c):
        return [a + x for x in range(b)]

    def closed(a, b):
        return [lambda: a for _ in range(b)]

    assert relations.unused(inner, ["甲", "乙", "丙"]) == ["丙"]
    assert relations.unused(closed, ["甲", "乙"]) == [] and relations.unused(print, ["甲"]) == []
    assert relations.unused(lambda *all: 1, ["甲"]) == []


@pytest.mark.parametrize("code, words", [
    ("missing_name", "missing_name"), ("torch.zeros(2, 3) + torch.zeros(4)", "形状对不上"), ("torch.zeros(2, 3) @ torch.zeros(2, 3)",
    "形状对不上"),
    ("np.zeros(3) + np.zeros(2)", "形状对不上"), ("torch.zeros(2, 3).T.view(6)", "reshape"), ("[1][2]", "超出了范围"),
    ("torch.zeros(3)[torch.tensor(-100)]", "−100"), ("torch.tensor([True]).mean()", "浮点"), ("[1] - 1", "list 和 int"),
    ("'a'.nothing", "nothing"), ("int('3')()", "int"), ("{}['键']", "键"), ("1 / 0", "除以了 0"), ("exit()", "exit()"),
    ("F.cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2, 3).long())", "cross_entropy"), ("print.x", "没有"),
])
def test_errors_are_said_in_chinese(code, words):
    try:
        eval(code, {"torch": torch, "np": np, "F": F, "exit": lambda: (_ for _ in ()).throw(SystemExit)})
    except BaseException as error:  # noqa: BLE001
        assert words in gloss(error), f"{type(error).__name__}: {error} → {gloss(error)}"
    else:
        raise AssertionError("应当报错")
    assert gloss(ValueError("没见过的")) == ""


def test_prints_in_an_answer_are_cut(capsys):
    def chatty(x):
        for _ in range(5000):
            print("哈" * 50)
        return x.softmax(-1)

    assert softmax_task()(chatty).status == PASS
    printed = capsys.readouterr().out
    assert 1000 < len(printed) < 3000 and "打印得太多" in printed
