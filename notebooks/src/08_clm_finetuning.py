# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 CLM 微调
#
# **这一本只回答一个问题：怎样教一个会填空的模型从导语写出正文？**
#
# **学习目标**
#
# 1. 把 MLM 检查点变成因果解码器（causal decoder）：换注意力掩码和标签，并量出哪些权重搬得过来。
# 2. 说清「一条序列、提示不计损失」的标签怎么做，并亲手算一遍损失。
# 3. 会用「改动未来」的办法检查模型有没有偷看。
# 4. 把损失放在一元、二元模型和语料下限之间评判，再用事实核对看它写得真不真。
#
# **先修**：03（因果掩码）、06（MLM 预训练）。
#
# **用时**：两核 CPU 约 5 分钟（大半在训练），GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("08_clm_finetuning")           # 换预设：start("08_clm_finetuning", preset="smoke")

# %% [markdown]
# 先取来 06 的检查点。你跑过 06，用的就是你自己的；没跑过，就用课程附带的。下面会说明是哪一种。

# %%
import torch
from transformers import BertForMaskedLM, BertLMHeadModel
from utils.checkpoints import find_checkpoint, load_checkpoint

preset, device = lesson.preset, lesson.device
mlm, tokenizer, source = load_checkpoint("mlm", BertForMaskedLM, preset=preset)
print(source)

# %% [markdown]
# ## 1 同一副权重，两种用法
#
# `BertForMaskedLM` 左右都看，猜被盖住的字；因果语言模型（causal language model，CLM）只看左边，猜下一个字：
#
# $$p(x)=\prod_{t=1}^{T}p_\theta(x_t\mid x_{<t})$$
#
# 两者的层一模一样，差别只有两处：注意力掩码（mask），以及标签错开一位。所以检查点可以原样装进
# `BertLMHeadModel`，一个权重都不缺、也不多（装得进来的是不是都用得上，第 6 节再量）：

# %%
folder, _ = find_checkpoint("mlm", preset)
model, report = BertLMHeadModel.from_pretrained(folder, is_decoder=True, local_files_only=True,
                                                dtype=torch.float32, output_loading_info=True)
model.loss_type = "ForCausalLM"               # 库认不出这个类用哪种损失；写明它，就不会有警告
print({name: report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")})
assert not report["missing_keys"] and not report["unexpected_keys"]

# %% [markdown]
# ## 2 它会不会偷看？
#
# `is_decoder=True` 不能漏。漏了也能训练、能生成，一句报错都没有，但模型看得见未来：训练时的损失好得出奇，真要写作时未来并不存在，
# 于是写得一塌糊涂。最可靠的检查不是看损失，而是**改动未来，看过去的 logits 动不动**。
#
# 取一篇文档，把第 $k$ 个位置之后的词元全换掉，比较 $k$ 以前的 logits 最多变了多少。

# %%
from utils.corpus import load_corpus
from utils.training import encode_docs

corpus = load_corpus("bundled", n_docs=preset.n_docs)
encoded = {split: encode_docs(docs, tokenizer, preset.max_len) for split, docs in corpus.items()}
ids = torch.tensor(encoded["validation"][0]["input_ids"])[None]           # (1, T)
k = ids.shape[1] // 2
other = ids.clone()
other[:, k + 1:] = torch.randint(5, len(tokenizer), other[:, k + 1:].shape)

# %% [markdown]
# 同样的权重，一次漏掉 `is_decoder`，一次写上：

# %%
@torch.no_grad()
def leak(model):
    past, changed = model(input_ids=ids).logits[:, :k + 1], model(input_ids=other).logits[:, :k + 1]
    return (past - changed).abs().max().item()                            # 只比 0..k

careless, _, _ = load_checkpoint("mlm", BertLMHeadModel, preset=preset)
print(f"漏写 is_decoder：过去的 logits 最多变了 {leak(careless):.2f}")
print(f"is_decoder=True：过去的 logits 最多变了 {leak(model.eval()):.2f}")
assert leak(model) == 0 and leak(careless) > 0.1

# %% [markdown]
# 一个精确的 0。这就是 03 里因果掩码的含义：未来怎么变，过去都不知道。
#
# ## 3 标签：一条序列，提示不计损失
#
# 把导语和正文接成一条：`[CLS] 导语 [SEP] 正文 [SEP]`。输入是整条，标签（labels）也是整条，只是把 `[CLS] 导语 [SEP]` 这段
# 提示（prompt）的标签改成 −100。模型内部会把标签错开一位，所以我们自己**不要**再错。

# %%
from utils.tokenization import encode_pair

doc = corpus["train"][0]
row = encode_pair(tokenizer, doc["intro"], doc["body"], preset.max_len)
labels = [-100] * row["prompt_len"] + row["input_ids"][row["prompt_len"]:]
assert labels == encoded["train"][0]["labels"]                            # encode_docs 做的就是这件事
around = slice(row["prompt_len"] - 4, row["prompt_len"] + 4)
for token, y in zip(tokenizer.convert_ids_to_tokens(row["input_ids"][around]), labels[around], strict=True):
    print(f"输入 {token:　<4} 标签 {y if y == -100 else tokenizer.convert_ids_to_tokens(y)}")

# %% [markdown]
# 损失亲手算一遍。位置 $t$ 的 logits 预测的是 $t+1$ 的词元，所以 logits 去掉最后一个，标签去掉第一个：
#
# $$\mathcal{L}=-\frac{1}{|B|}\sum_{t+1\in B}\log p_\theta(x_{t+1}\mid x_{\le t}),\qquad B=\text{正文与末尾的 [SEP]}$$

# %%
x, y = torch.tensor([row["input_ids"]]), torch.tensor([labels])           # (1, T)
with torch.no_grad():
    output = model(input_ids=x, labels=y)
log_p = output.logits[:, :-1].log_softmax(-1)                             # (1, T-1, V)
target = y[:, 1:]                                                         # (1, T-1)
at = target != -100
loss = -log_p[at].gather(-1, target[at][:, None]).mean()
torch.testing.assert_close(loss, output.loss)
print(f"手写 {loss:.4f}，库 {output.loss:.4f}；算了 {int(at.sum())} 个目标 = 正文 {len(doc['body'])} 字 + 1 个 [SEP]")

# %% [markdown]
# ## 4 一个流传很广的错误配方
#
# 很多教程这样写：`input_ids = tokenizer(导语, 补到固定长度)`，`labels = tokenizer(正文, 补到固定长度)`。
# 两条不同的序列被硬按位置对齐，位置 $t$ 的输入是导语的字，标签却是正文的字，模型从来没在输入里见过前面写了什么；
# 补齐用的 `[PAD]` 又没有换成 −100，也被当成要学的「字」。看看标签里有多少是填充：

# %%
wrong = tokenizer(corpus["train"]["body"][:200], padding="max_length", truncation=True,
                  max_length=preset.max_len)["input_ids"]
share = sum(row.count(tokenizer.pad_token_id) for row in wrong) / sum(map(len, wrong))
lesson.record("错误配方里 [PAD] 占标签的比例", share)
print(f"补到 {preset.max_len} 时，{share:.0%} 的标签是 [PAD]：只要永远输出 [PAD]，就已经「学会」了大半。")

# %% [markdown]
# 我们的做法是 `clm_collator`：输入补 `[PAD]`，标签补 −100。在一批上确认填充一个都没算进损失：

# %%
from utils.training import clm_collator, evaluate, fixed_batches

held = fixed_batches(encoded["validation"], clm_collator(tokenizer), preset.eval_docs)
pad = held[0]["attention_mask"] == 0
print(f"第一批 {tuple(pad.shape)}，填充 {int(pad.sum())} 处")
assert (held[0]["labels"][pad] == -100).all()

# %% [markdown]
# ## 5 参照与下限
#
# 语料由写明概率的语法生成，所以「已知导语，正文还剩多少信息」是算得出来的：这就是下限（floor），再好的模型平均也越不过它。
# 上面是均匀、一元、二元三条便宜的基线，下面是下限，模型必在其间。

# %%
from utils.baselines import bigram_nats, unigram_nats, uniform_nats
from utils.corpus import floor

eval_docs = corpus["validation"].select(range(min(preset.eval_docs, len(corpus["validation"]))))
bodies = {split: [[i for i in row if i != -100] for row in encoded[split]["labels"]] for split in encoded}
limit = floor(eval_docs, "body")
baselines = {"均匀猜测": uniform_nats(len(tokenizer)),
             "一元模型": unigram_nats(bodies["train"], bodies["validation"][:len(eval_docs)], len(tokenizer)),
             "二元模型": bigram_nats(bodies["train"], bodies["validation"][:len(eval_docs)], len(tokenizer)),
             "语料下限": limit["nats_per_token"]}
for name, nats in baselines.items():
    print(f"{name}：{nats:.3f} 奈特/词元")

# %% [markdown]
# ## 6 从哪里出发？
#
# 权重都能装进来，不等于都用得上。MLM 在位置 $t$ 猜的是 $t$ 自己，左右都看；CLM 在位置 $t$ 猜的是 $t+1$，只看左边。
# 越靠上的层离输出越近，越是为旧题目量身定做的，换了题目，先得忘掉。所以不妨比三个起点：
#
# - **全部沿用**：06 的权重原样接着练；
# - **只留底层**：留下嵌入和第 0 层，上面的层换成新的随机权重（Zhang 等，2021，在微调 BERT 时也这样做过）；
# - **从头开始**：全是新的。
#
# 新的权重都用 06 的 `prepare_heads` 摆好起点，这样比的才是预训练，不是起点。「只留底层」几行就能写出来：

# %%
from utils.initialization import prepare_heads

KEPT = ("bert.embeddings.", "bert.encoder.layer.0.", "cls.predictions.bias", "cls.predictions.decoder.")

def keep_bottom(model):
    fresh = prepare_heads(BertLMHeadModel(model.config)).state_dict()
    model.load_state_dict({name: w for name, w in fresh.items() if not name.startswith(KEPT)}, strict=False)
    return model

# %% [markdown]
# 这几行收在 `renew_top` 里。同一个随机种子，两者应当一个数都不差，而留下来的那几块应当与 06 的相同：

# %%
from utils.initialization import renew_top

def from_mlm():
    torch.manual_seed(lesson.seed)
    return load_checkpoint("mlm", BertLMHeadModel, preset=preset, is_decoder=True)[0]

by_hand, packaged, old = keep_bottom(from_mlm()).state_dict(), renew_top(from_mlm()).state_dict(), mlm.state_dict()
assert all(torch.equal(by_hand[name], packaged[name]) for name in by_hand)
same = [name for name in old if torch.equal(old[name], packaged[name])]
print(f"{len(old)} 个张量里，{len(same)} 个与 06 的完全相同")
assert all(name in same for name in old if name.startswith(KEPT))

# %% [markdown]
# 三个起点，同样的数据次序，同样的步数，各练一小会儿：

# %%
from utils.training import train, training_arguments

def from_scratch():
    model = prepare_heads(BertLMHeadModel(from_mlm().config))
    model.loss_type = "ForCausalLM"
    return model

steps, runs = max(20, preset.clm_steps // 15), {}
for name, make in {"全部沿用": from_mlm, "只留底层": lambda: renew_top(from_mlm()), "从头开始": from_scratch}.items():
    args = training_arguments(lesson.outputs / "trainer", steps, preset, device, lesson.seed)
    runs[name] = train(make().to(device), encoded["train"], clm_collator(tokenizer), args,
                       lambda m: evaluate(m, held[:2], shift=True), evaluations=4)

# %% [markdown]
# 看图时记着两件事：步数很少，三条线都远没有到头；一次对照只有一个随机种子，小差别不要当真。

# %%
from utils.plotting import loss_curve

loss_curve({name: (h.eval_steps, h.eval_loss) for name, h in runs.items()}, {"一元模型": baselines["一元模型"]},
           f"同样练 {steps} 步，三个起点")
for name, h in runs.items():
    lesson.record(f"{steps} 步后的验证损失（{name}）", h.eval_loss[-1], "奈特/词元")
assert preset.name == "smoke" or runs["只留底层"].eval_loss[-1] < runs["从头开始"].eval_loss[-1]

# %% [markdown]
# 预训练学到的东西，确实搬得过来一部分：比从头开始快。搬得过来的主要在底层：每个字是什么、常和谁挨在一起。
# 「全部沿用」起步也许更快，可上层要先把旧本事忘掉；练久了谁在前面，练习 4 让你自己量。常听人说微调时该「冻结底层、只练上层」；
# 这里量到的正好提醒你：留哪些、练哪些，要看新旧两道题差在哪里，先量再说。
#
# ## 7 微调
#
# 从「只留底层」出发，练满。训练的设置与 06 相同（`training_arguments`），只换模型、标签和评估方式。

# %%
model = renew_top(from_mlm()).to(device)
args = training_arguments(lesson.outputs / "trainer", preset.clm_steps, preset, device, lesson.seed)
history = train(model, encoded["train"], clm_collator(tokenizer), args,
                lambda m: evaluate(m, held, shift=True), {k: baselines[k] for k in ("一元模型", "语料下限")})

# %% [markdown]
# 画出来。曲线离虚线还有多远，就是模型还能进步多少；它不可能穿过最下面那条线。
# 要是穿过去了，不是模型神了，而是哪里漏了答案。

# %%
ax = loss_curve({"训练": (history.steps, history.train_loss), "验证": (history.eval_steps, history.eval_loss)},
                {k: baselines[k] for k in ("一元模型", "二元模型", "语料下限")}, "微调：已知导语写正文")

# %% [markdown]
# 记下结果。「下限的几倍」是个好读的数：1.0 表示好到不能再好。

# %%
loss, accuracy = evaluate(model, held, shift=True)
lesson.record("CLM 正文验证损失", loss, "奈特/词元")
lesson.record("CLM 语料下限", limit["nats_per_token"], "奈特/词元")
lesson.record("CLM 损失 ÷ 下限", loss / limit["nats_per_token"], "倍")
assert loss > 0.97 * limit["nats_per_token"], "低于下限：一定有泄漏"
assert loss < baselines["一元模型"] - (0.1 if preset.name == "smoke" else 1.0), "没有明显胜过一元模型：学习没有发生"
assert preset.name == "smoke" or loss < 4 * limit["nats_per_token"]

# %% [markdown]
# ## 8 它真的在读导语吗？
#
# 损失低，也可能只是学会了新闻腔。做个对照：给每篇正文配上**别人的**导语，再算正文的损失。
# 如果模型真在用导语，换错导语后损失应当明显变高。

# %%
swapped = eval_docs.remove_columns("intro").add_column("intro", eval_docs["intro"][1:] + eval_docs["intro"][:1])
mismatched = fixed_batches(encode_docs(swapped, tokenizer, preset.max_len), clm_collator(tokenizer), len(swapped))
wrong_loss, _ = evaluate(model, mismatched, shift=True)
print(f"配对的导语 {loss:.3f}，换错的导语 {wrong_loss:.3f} 奈特/词元")
lesson.record("换错导语后正文损失升高", wrong_loss - loss, "奈特/词元")
assert wrong_loss > loss + (0 if preset.name == "smoke" else 0.3)

# %% [markdown]
# ## 9 让它写
#
# 生成的办法是 09 的主题，这里先用最简单的一种：每一步取概率最大的字（贪心，greedy），写到 `[SEP]` 为止。
# `generate` 在 09 里从头搭起。

# %%
from utils.facts import check_facts
from utils.generation import generate

docs = corpus["test"].select(range(40 if preset.name != "smoke" else 8))
written = generate(model, tokenizer, docs["intro"][:])
for doc, body in zip(docs.select(range(3)), written, strict=False):
    report = check_facts(doc["intro"], body)
    print(f"导语：{doc['intro']}\n模型：{body}\n守住 {len(report.kept)} 项；写错 {report.contradicted}；漏掉 {report.missing}\n")

# %% [markdown]
# 上面最后一行是事实核对：语法知道导语里有哪些事实，于是可以逐项检查正文有没有守住。
# 数一数：逐项看守住几成，逐篇看有多少篇一项不错、一项不漏。

# %%
reports = [check_facts(intro, body) for intro, body in zip(docs["intro"], written, strict=True)]
faithful = sum(r.faithful for r in reports) / len(reports)
formed = sum(r.well_formed for r in reports) / len(reports)
right = sum(len(r.kept) for r in reports)
wrong = sum(len(r.contradicted) + len(r.missing) for r in reports)
lesson.record("逐项守住的事实", right / (right + wrong), f"比例（共 {right + wrong} 项）")
lesson.record("守住全部事实的正文", faithful, f"比例（贪心，{len(reports)} 篇）")
lesson.record("合乎语法的正文", formed, f"比例（贪心，{len(reports)} 篇）")
assert preset.name == "smoke" or (right > 0.6 * (right + wrong) and faithful >= 0.05), "还没有守住导语里的事实"

# %% [markdown]
# 守住了，是抄的还是背的？再考一套：`test_new_names` 句式相同，人名、地名、队名却都是训练时一次没见过的。背书的模型会写成它见过的名字。

# %%
strangers = corpus["test_new_names"].select(range(len(docs)))
about_strangers = generate(model, tokenizer, strangers["intro"][:])
new_reports = [check_facts(i, b) for i, b in zip(strangers["intro"], about_strangers, strict=True)]
right_new = sum(len(r.kept) for r in new_reports)
wrong_new = sum(len(r.contradicted) + len(r.missing) for r in new_reports)
lesson.record("逐项守住的事实（新名字）", right_new / (right_new + wrong_new), f"比例（共 {right_new + wrong_new} 项）")
lesson.record("守住全部事实的正文（新名字）", sum(r.faithful for r in new_reports) / len(new_reports),
              f"比例（贪心，{len(new_reports)} 篇）")
for r in [r for r in new_reports if r.contradicted][:3]:
    print("；".join(f"应为「{value}」，写成「{written_as}」" for _, value, written_as in r.contradicted))

# %% [markdown]
# 出了这套语法呢？拿课程附带的手写文章来试：导语是自然的文字，题材、句式、用字它都没学过。语法读不懂这样的导语，只能按字面核对：
# 导语里的日期、数量和认得出的专名，正文里有没有写到。

# %%
real = load_corpus("articles")["train"].select(range(len(docs)))
about_real = generate(model, tokenizer, real["intro"][:])
real_reports = [check_facts(i, b) for i, b in zip(real["intro"], about_real, strict=True)]
kept, all_facts = (sum(map(f, real_reports)) for f in (lambda r: len(r.kept), lambda r: len(r.kept + r.contradicted + r.missing)))
lesson.record("写到的事实（手写文章，按字面核对）", kept / all_facts, f"比例（共 {all_facts} 项，{len(real)} 篇）")
for doc, body in zip(real.select(range(2)), about_real, strict=False):
    print(f"导语：{doc['intro']}\n模型：{body}\n")

# %% [markdown]
# 读一读就明白：它把导语往自己见过的题材上拉，写得像模像样，说的却不是一回事。在窄语料上练出来的模型，只会写窄语料里的文章；
# 要写真文章，得用真数据，用大得多的模型。
#
# 「合乎语法」和「守住事实」是两回事：前者只要学会写法，后者要学会回头抄导语里的名字和数字。
# 那么，损失比下限高出来的那一截，花在哪里？把正文的词元分成三类：导语给过的事实的第一个字、事实的其余字、其他。

# %%
import json
import re

def fact_places(doc):
    """正文里，导语已经给出的事实占哪些位置：（第一个字的位置，其余字的位置）。"""
    first, rest = set(), set()
    for fact in json.loads(doc["facts"]):
        if {"intro", "body"} <= set(fact["in"]) and len(fact["value"]) > 1:
            for found in re.finditer(re.escape(fact["value"]), doc["body"]):
                first.add(found.start())
                rest |= set(range(found.start() + 1, found.end()))
    return first - rest, rest

@torch.no_grad()
def body_nats(doc):
    row = encode_pair(tokenizer, doc["intro"], doc["body"], preset.max_len)
    ids = torch.tensor([row["input_ids"]], device=device)                 # (1, T)
    log_p = model(ids).logits[0, :-1].log_softmax(-1)                     # (T-1, V)
    return -log_p.gather(-1, ids[0, 1:, None])[row["prompt_len"] - 1:, 0].cpu()   # (正文字数 + 1,)

# %% [markdown]
# 语法里，导语给过的事实到了正文就不再有悬念：照抄即可，几乎不占下限的份额。所以花在它们身上的奈特，几乎都是超出下限的。

# %%
spent = {"事实的第一个字": [], "事实的其余字": [], "其他": []}
for doc in eval_docs:
    first, rest = fact_places(doc)
    for i, nats in enumerate(body_nats(doc).tolist()):
        spent["事实的第一个字" if i in first else "事实的其余字" if i in rest else "其他"].append(nats)

total = sum(map(sum, spent.values()))
excess = total - limit["nats_per_token"] * sum(map(len, spent.values()))
on_facts = sum(spent["事实的第一个字"]) + sum(spent["事实的其余字"])
lesson.record("超出下限的损失里，花在导语事实上的份额", on_facts / excess)

# %% [markdown]
# 画成两列：左边是一个词元平均多少奈特，右边是这一类一共占多少个词元。

# %%
import matplotlib.pyplot as plt

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.4), sharey=True, layout="constrained")
left.barh(list(spent), [sum(v) / len(v) for v in spent.values()])
left.set(title="一个词元平均多少奈特", xlabel="奈特/词元")
right.barh(list(spent), [len(v) for v in spent.values()], color="#999999")
_ = right.set(title="一共多少个词元", xlabel="词元数", xscale="log")

# %% [markdown]
# 难的是第一个字：要先想明白「这里该写谁」，才谈得上抄；起了头，后面照着导语抄就是了。
#
# 看一篇写错的（如果有），数一数错的是名字还是数字。

# %%
bad = next((i for i, r in enumerate(reports) if not r.faithful), None)
if bad is None:
    print("这一批没有写错的。")
else:
    print(f"导语：{docs[bad]['intro']}\n模型：{written[bad]}\n写错：{reports[bad].contradicted}\n漏掉：{reports[bad].missing}")

# %% [markdown]
# ## 10 存起来
#
# 09 会用它来比较各种生成的办法。

# %%
from utils.checkpoints import save_checkpoint

path = save_checkpoint(model, tokenizer, lesson.outputs / "clm",
                       {"steps": history.eval_steps[-1], "validation_nats": loss, "floor": limit["nats_per_token"]})
print("已存好：", "、".join(sorted(p.name for p in path.iterdir())))

# %% [markdown]
# ## 小结
#
# - 从 MLM 到 CLM，权重装得进去，变的是掩码（`is_decoder=True`）和标签（错开一位，由模型来错）。
# - 装得进去不等于用得上：三个起点一量，底层搬得动，上层不如重来。
# - 检查偷看：改动未来，过去的 logits 应当一点不变。
# - 一条序列，提示记 −100，填充也记 −100；两条序列硬对齐的配方学不到东西。
# - 损失放在基线和下限之间看；换错导语的对照说明模型有没有用上导语；事实核对说明它写得真不真。
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import nb08 as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 排一行**（★★，8 分钟）`intro`、`body` 是编号的列表，`cls`、`sep` 是两个特殊词元的编号。返回 `(ids, labels)` 两个一样长的列表：
# 输入是 `[CLS] 导语 [SEP] 正文 [SEP]`，标签让模型只学写正文和停下来。标签交给库里的模型，它会自己错位。

# %% tags=["stub"]
def make_row(intro, body, cls, sep):
    ...                                       # ← 换成你的代码，返回 (ids, labels)

# %% tags=["check"]
check.make_row(make_row)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def make_row(intro, body, cls, sep):
#     prompt, rest = [cls, *intro, sep], [*body, sep]
#     return prompt + rest, [-100] * len(prompt) + rest
# ```
#
# 末尾的 `[SEP]` 一定要学：生成的时候，写出它才停。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · 正文的损失**（★★，8 分钟）给一批 `logits` 和 `labels`（提示和填充都是 −100，还没有错位），返回每个目标平均的损失。
# 不要用 `cross_entropy`，从 `log_softmax` 写起。

# %% tags=["stub"]
def body_loss(logits, labels):                                            # (B, T, V), (B, T)
    ...                                                                   # ← 换成你的代码，返回一个标量

# %% tags=["check"]
check.body_loss(body_loss)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def body_loss(logits, labels):
#     target = labels[:, 1:]                                              # (B, T-1)
#     at = target != -100
#     log_p = logits[:, :-1][at].log_softmax(-1)                          # (N, V)
#     return -log_p.gather(-1, target[at][:, None]).mean()
# ```
#
# 先错位，再看哪些是 −100：两件事的次序反过来，挑出的就是另一批位置。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 抓偷看的**（★★，10 分钟）`forward(ids)` 给出 logits `(1, T, V)`，V 是 50。写一个检查：改动未来，看过去。
# `k` 和以前的 logits 若有变化，返回 `True`（它偷看了），否则返回 `False`。检查会拿因果的、双向的、只偷看一格的三种模型来考它。

# %% tags=["stub"]
def sees_future(forward, ids, k):                                         # ids: (1, T)，编号在 0 到 49 之间
    ...                                                                   # ← 换成你的代码，返回 True 或 False

# %% tags=["check"]
check.sees_future(sees_future)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def sees_future(forward, ids, k):
#     other = ids.clone()
#     other[:, k + 1:] = (other[:, k + 1:] + 1) % 50                      # 每个未来的词元都换掉
#     past, changed = forward(ids)[:, :k + 1], forward(other)[:, :k + 1]
#     return (past - changed).abs().max().item() > 1e-4
# ```
#
# 位置 k 猜的是 k+1，正是第一个被改动的词元：最容易偷看的就是这里，一定要比。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · 冻结底层**（★★，8 分钟）冻结 `model`（`BertLMHeadModel`）的嵌入 `model.bert.embeddings` 和下面 `n` 层
# （`model.bert.encoder.layer`），就地改，不用返回。通过以后用它重做第 6 节：「冻结底层、只练上层」值不值得，由你测到的数说了算。

# %% tags=["stub"]
def freeze_bottom(model, n):
    ...                                       # ← 换成你的代码

# %% tags=["check"]
check.freeze_bottom(freeze_bottom)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def freeze_bottom(model, n):
#     for part in [model.bert.embeddings, *model.bert.encoder.layer[:n]]:
#         part.requires_grad_(False)            # 带下划线的方法：把它的参数一个个设好
# ```
#
# 输出头与字嵌入是同一份权重（tied），冻住嵌入，输出头的矩阵也就冻住了，只剩它的偏置和变换还在练。
# 练同样的步数，多半会变差：MLM 时每层都习惯了左右都看，改成只看左边，底层也需要调整。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 有几道题**（★，3 分钟）一篇的导语 24 个字，正文 90 个字，排成 `[CLS] 导语 [SEP] 正文 [SEP]`。这一条序列里，算损失的目标有几个？
# 先猜，再照第 3 节的办法数一数。

# %% tags=["stub"]
my_targets = ...                              # ← 换成一个整数

# %% tags=["check"]
check.n_targets(my_targets)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_targets = 90 + 1
# ```
#
# 正文的 90 个字，外加末尾的 `[SEP]`。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 找错**（★★，5 分钟）有人先把标签左移一位，再交给模型：`labels = ids[1:] + [-100]`。练出来的模型写起文章来会怎样？
#
# - A　和正确的一样：自己移过了，模型就不移了。
# - B　学成了照抄：位置 t 输出 x_t。
# - C　隔字跳着写：位置 t 学的是 x_{t+2}。
# - D　训练时就会报错。

# %% tags=["stub"]
my_choice = ...                               # ← 换成 "A"、"B"、"C"、"D" 之一

# %% tags=["check"]
check.skips(my_choice)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_choice = "C"
# ```
#
# 模型内部又错开一位，于是位置 t 学着预测 t+2。怎样用一行打印看出来？打印 logits 在位置 t 的最大项，
# 和 x[t+1]、x[t+2] 各比一次，命中率高的是后者，就错位了。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 7 · 解释一个对照**（★★，5 分钟）有人练了一个模型，正文的损失比一元模型低很多；照第 8 节换错导语，损失几乎没有变。这说明什么？
#
# - A　模型很稳健，导语错了也写得对。
# - B　模型学会了新闻的写法，却没有用上导语。
# - C　模型什么也没学到。
# - D　模型偷看了未来。

# %% tags=["stub"]
my_reading = ...                              # ← 换成 "A"、"B"、"C"、"D" 之一

# %% tags=["check"]
check.ignores_intro(my_reading)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_reading = "B"
# ```
#
# 比一元模型低，说明学会了句式和搭配；换错导语不受影响，说明写到该抄事实的地方，它是在瞎猜。
# 只看损失分不出这两件事，所以要做对照。
#
# </details>

# %% [markdown]
# **想一想 · 预测**（★，3 分钟）如果把提示的标签也留着（不记 −100），「正文的损失」会更好还是更差？「整条的平均损失」呢？
#
# <details><summary>参考答案</summary>
#
# 整条的平均损失不能和只算正文的相比：导语里的人名、地名、数字是第一次出现，本来就难猜，会把平均值拉高。
# 正文的损失要单独评估才可比；多学导语等于多了一份训练信号，但也分走了注意力，要看你测到的数。
#
# </details>
#
# **想一想 · 追问到底**（★★，12 分钟）把第 6 节的 `steps` 改成 `preset.clm_steps // 2`，重新运行。先猜：练得久了，三条线的次序会变吗？
#
# <details><summary>参考答案</summary>
#
# 看你测到的三个数。「全部沿用」起步快，可它的上层为「猜 t 自己、左右都看」调好了，改起来未必比重新学快，练久了可能被反超。
# 步数越少、数据越少，沿用的越值钱；在我们这批语料上，数据并不缺。
#
# </details>
#
# ## 延伸阅读
#
# - Dong, Yang, Wang 等（2019）Unified Language Model Pre-training for Natural Language Understanding and Generation.
# - Rothe, Narayan, Severyn（2020）Leveraging Pre-trained Checkpoints for Sequence Generation Tasks.
# - Zhang, Wu, Katiyar 等（2021）Revisiting Few-sample BERT Fine-tuning.
# - Lee, Tang, Lin（2019）What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning.
