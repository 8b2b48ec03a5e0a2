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
# # CLM 微调
#
# **这一本只回答一个问题：怎样教一个会填空的模型从导语写出正文？**
#
# **学习目标**
#
# 1. 把 MLM 检查点变成因果解码器（causal decoder）：换注意力掩码和标签；会用「改动未来」的办法检查它有没有偷看。
# 2. 说清「一条序列、提示不计损失」的标签怎么做，亲手算一遍损失，再看一个流传很广的错误配方错在哪里。
# 3. 量出预训练值多少、该练哪些参数：从头、只留底层、全部、冻结底层、LoRA，带着种子的起伏。
# 4. 量出微调忘了什么、记住了什么：填空的本事、导语、背下来的原文。
# 5. 把损失放在一元、二元模型和语料下限之间评判，再用事实核对看它写得真不真。
#
# **先修**：[[self_attention]]（因果掩码）、[[mlm_pretraining]]（MLM 预训练）。
#
# **用时**：没有 bf16 指令的 CPU，一个核心约 14 分钟（大半在训练），有的快一倍；GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("clm_finetuning")           # 换预设：start("clm_finetuning", preset="smoke")

# %% [markdown]
# 先取来 [[mlm_pretraining]] 的检查点。你跑过 [[mlm_pretraining]]，用的就是你自己的；没跑过，就用课程附带的。下面会说明是哪一种。
# （第 6、7 节的对照一律用附带的，到时候会再说。）

# %%
import torch
from transformers import BertForMaskedLM, BertLMHeadModel
from utils.models import find_checkpoint, load_checkpoint

preset, device = lesson.preset, lesson.device
mlm, tokenizer, source = load_checkpoint("mlm", BertForMaskedLM, preset=preset)
print(source)

# %% [markdown]
# ## 1 同一副权重，两种用法
#
# `BertForMaskedLM` 左右都看，猜被盖住的字，这是填空；因果语言模型（causal language model，CLM）只看左边，猜下一个字，这是接龙：
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
# 于是写得一塌糊涂（[[background]] 的 7.4 节真的练过）。最可靠的检查不是看损失，而是**改动未来，看过去的 logits 动不动**。
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
# 一个精确的 0。这就是 [[self_attention]] 里因果掩码的含义：未来怎么变，过去都不知道。
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
# $$\mathcal{L}=-\frac{1}{|\mathcal{T}|}\sum_{t+1\in\mathcal{T}}\log p_\theta(x_{t+1}\mid x_{\le t})$$
#
# $\mathcal{T}$ 是正文和末尾的 `[SEP]` 所在的位置。

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
# 很多教程这样写：`input_ids = tokenizer(导语, 补到固定长度)`，`labels = tokenizer(正文, 补到固定长度)`，`is_decoder` 也不写。
# 一句报错都没有，损失还降得很快。照着它练一小会儿，看看究竟学到了什么：

# %%
from datasets import Dataset
from utils.training import adapt

LENGTH = preset.max_len
tokenizer_settings = dict(padding="max_length", truncation=True, max_length=LENGTH)

def faulty_rows(docs):
    rows = tokenizer(docs["intro"][:], **tokenizer_settings)
    return Dataset.from_dict({"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"],
                              "labels": tokenizer(docs["body"][:], **tokenizer_settings)["input_ids"],
                              "length": [LENGTH] * len(docs)})

faulty_train, faulty_test = faulty_rows(corpus["train"].select(range(1000))), faulty_rows(corpus["validation"].select(range(32)))

# %% [markdown]
# 先数一数标签里有多少是填充，再练：

# %%
def tensors(rows):
    return {k: torch.tensor(rows[k][:]) for k in ("input_ids", "attention_mask", "labels")}               # 都是 (B, T)

def collate(rows):
    return {k: torch.tensor([row[k] for row in rows]) for k in ("input_ids", "attention_mask", "labels")}

share = (tensors(faulty_train)["labels"] == tokenizer.pad_token_id).float().mean().item()
lesson.record("错误配方里 [PAD] 占标签的比例", share)
faulty, _, _ = load_checkpoint("mlm", BertLMHeadModel, preset=preset)
adapt(faulty.to(device), faulty_train, collate, 8 if preset.name == "smoke" else 50, preset, lesson.outputs / "trainer", lesson.seed)
print(f"{share:.0%} 的标签是 [PAD]：只要学会永远输出 [PAD]，就已经「学会」了这么多。")

# %% [markdown]
# 现在问它三个问题：损失有多少是 `[PAD]` 送的？换成别人的导语，损失变不变？让它写，写出来的是什么？

# %%
@torch.no_grad()
def faulty_nats(rows):
    """（全部标签的平均损失，只算真词元的平均损失，输出里 [PAD] 的比例）。"""
    batch = {k: v.to(device) for k, v in tensors(rows).items()}
    labels = batch.pop("labels")[:, 1:]                                   # (B, T-1)
    logits = faulty(**batch).logits[:, :-1]                               # (B, T-1, V)
    nats = -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]  # (B, T-1)
    real = labels != tokenizer.pad_token_id
    return nats.mean().item(), nats[real].mean().item(), (logits.argmax(-1) == tokenizer.pad_token_id).float().mean().item()

everything, real_only, pads = faulty_nats(faulty_test)
shifted = faulty_test.remove_columns(["input_ids", "attention_mask"]).to_dict()
others = faulty_test[1:]["input_ids"] + faulty_test[:1]["input_ids"], faulty_test[1:]["attention_mask"] + faulty_test[:1]["attention_mask"]
wrong_intro = Dataset.from_dict(shifted | {"input_ids": others[0], "attention_mask": others[1]})
_, with_wrong_intro, _ = faulty_nats(wrong_intro)

# %% [markdown]
# 最后让它贪心地写：给导语，每次取概率最大的字接上去。

# %%
start = torch.tensor([tokenizer(corpus["validation"][0]["intro"])["input_ids"]], device=device)       # (1, T)
wrote = faulty.generate(start, max_new_tokens=20, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(start))
print(f"报出来的损失 {everything:.2f}，只算真词元 {real_only:.2f} 奈特")
print(f"配自己的导语 {real_only:.2f}，配别人的导语 {with_wrong_intro:.2f}")
print(f"它的输出里 {pads:.0%} 是 [PAD]；接着导语写：{' '.join(tokenizer.convert_ids_to_tokens(wrote[0, start.shape[1]:]))}")
lesson.record("错误配方：报出来的损失", everything, "奈特/词元")
lesson.record("错误配方：真词元的损失", real_only, "奈特/词元")
lesson.record("错误配方：配错导语后的变化", with_wrong_intro - real_only, "奈特/词元")

# %% [markdown]
# 比一比第一行的两个数：「报出来的」比「只算真词元」低多少，就有多少是 `[PAD]` 送的（真词元上的那个，第 5 节拿去和只会数字频的
# 一元模型比）。再看第二行：换成别人的导语，变了多少？病根在于：位置 $t$ 的输入是导语的字，标签是正文的字，
# 模型从来没在输入里见过正文前面写了什么，至多学到「这样的导语，正文里常有哪些字」。
# 三处要改：正文要和导语接成一条，`is_decoder=True`，填充和提示记 −100。

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
# 上面是均匀、一元、二元三条便宜的基线，下面是下限。学到了东西的模型，该落在一元模型和下限之间。

# %%
import math
from utils.tokenization import bigram_nats, uniform_nats, unigram_nats
from utils.corpus import floor

eval_docs = corpus["validation"].select(range(min(preset.eval_docs, len(corpus["validation"]))))
bodies = {split: [[i for i in row if i != -100] for row in encoded[split]["labels"]] for split in encoded}
limit = floor(eval_docs, "body")
baselines = {"均匀猜测": uniform_nats(len(tokenizer)),
             "一元模型": unigram_nats(bodies["train"], bodies["validation"][:len(eval_docs)], len(tokenizer)),
             "二元模型": bigram_nats(bodies["train"], bodies["validation"][:len(eval_docs)], len(tokenizer)),
             "语料下限": limit["nats_per_token"]}
chars = sum(map(len, eval_docs["body"]))
to_bits = (chars + len(eval_docs)) / chars / math.log(2)                  # 奈特/词元 → 比特/字：词元里多算了每篇一个 [SEP]
for name, nats in baselines.items():
    print(f"{name}：{nats:.3f} 奈特/词元，{nats * to_bits:.3f} 比特/字")
print(f"第 4 节的错误配方，真词元上 {real_only:.3f}：" + ("连一元模型都不如" if real_only > baselines["一元模型"] else "比一元模型强一点，"
      + ("远不如只看前一个字的二元模型" if real_only > baselines["二元模型"] else "也强过二元模型")))

# %% [markdown]
# ## 6 从哪里出发，练哪些参数？
#
# 权重都能装进来，不等于都用得上。MLM 在位置 $t$ 猜的是 $t$ 自己，左右都看；CLM 在位置 $t$ 猜的是 $t+1$，只看左边。
# 下面比五种做法，模型一样大，数据、步数、次序都一样：
#
# | 做法 | 从哪里出发 | 练哪些 |
# | --- | --- | --- |
# | 从头 | 随机权重，用 [[mlm_pretraining]] 的 `prepare_heads` 摆好起点 | 全部 |
# | 只留底层 | MLM 的嵌入和第 0 层，上面换成新的（Zhang 等，2021） | 全部 |
# | 全部 | MLM | 全部 |
# | 冻结底层 | MLM | 上面一半的层 |
# | LoRA | MLM | 每个矩阵旁边加一对低秩矩阵，只练它们 |
#
# 「只留底层」几行就能写出来，收在 `renew_top` 里：

# %%
from utils.models import prepare_heads, renew_top

KEPT = ("bert.embeddings.", "bert.encoder.layer.0.", "cls.predictions.bias", "cls.predictions.decoder.")

def keep_bottom(model):
    fresh = prepare_heads(BertLMHeadModel(model.config)).state_dict()
    model.load_state_dict({name: w for name, w in fresh.items() if not name.startswith(KEPT)}, strict=False)
    return model

def decoder(kind="mlm"):
    torch.manual_seed(lesson.seed)
    return load_checkpoint(kind, BertLMHeadModel, preset=preset, prefer="shipped", is_decoder=True)[0]

by_hand, packaged, old = keep_bottom(decoder()).state_dict(), renew_top(decoder()).state_dict(), decoder().state_dict()
assert all(torch.equal(by_hand[name], packaged[name]) for name in by_hand)
assert all(torch.equal(old[name], packaged[name]) for name in old if name.startswith(KEPT))

# %% [markdown]
# LoRA（Hu 等，2021）更省：原来的矩阵 $W$ 不动，旁边加一条低秩（low-rank）的小路，也就是两个细长的矩阵相乘，参数少得多。
# 只练这两个矩阵 $A$（$r\times D_{in}$）和 $B$（$D_{out}\times r$）；字母是论文的，这里的 $B$ 与一批的条数无关：
#
# $$h=Wx+\frac{\alpha}{r}BAx$$
#
# $B$ 从 0 开始，所以刚加上时什么都没变；练完可以把 $\frac{\alpha}{r}BA$ 并进 $W$。手写一个，与 `peft` 的对一对：

# %%
from utils.training import add_lora, freeze_bottom, trainable_share

class LoRALinear(torch.nn.Module):
    def __init__(self, linear, r, alpha):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / r
        self.A = torch.nn.Parameter(torch.randn(r, linear.in_features) / r)
        self.B = torch.nn.Parameter(torch.zeros(linear.out_features, r))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T    # (…, D_in) → (…, D_out)

small = add_lora(decoder(), rank=8)
theirs = small.bert.encoder.layer[0].attention.self.query                 # peft 包好的一层
mine = LoRALinear(theirs.base_layer, 8, 16)

# %% [markdown]
# 把同样的 $A$、$B$ 装进两边（$B$ 填上随机数，不然看不出差别），输出应当一样；并进 $W$ 以后，也应当一样：

# %%
x = torch.randn(3, small.config.hidden_size)
with torch.no_grad():
    theirs.lora_B["default"].weight.normal_()
    mine.A.copy_(theirs.lora_A["default"].weight)
    mine.B.copy_(theirs.lora_B["default"].weight)
    torch.testing.assert_close(mine(x), theirs(x))
    merged = mine.linear.weight + mine.scale * mine.B @ mine.A            # (D_out, D_in)
    torch.testing.assert_close(x @ merged.T + mine.linear.bias, theirs(x), atol=1e-4, rtol=1e-4)
for name, model in {"全部": decoder(), "冻结底层": freeze_bottom(decoder(), 2), "LoRA": add_lora(decoder())}.items():
    print(f"{name}：要练的参数占 {trainable_share(model):.1%}")

# %% [markdown]
# 开始比。每种做法在同样的 240 对导语和正文上练 30 步，换两个种子（换数据，也换次序）。
# 这里的 MLM 一律用课程附带的，免得和你自己练的长短不一。学习率各取合适的：LoRA 的要大一些。

# %%
from dataclasses import replace
from utils.training import scratch_like

WAYS = {"从头": lambda: scratch_like(decoder(), preset, tokenizer, lesson.seed), "只留底层": lambda: renew_top(decoder()),
        "全部": decoder, "冻结底层": lambda: freeze_bottom(decoder(), 2), "LoRA": lambda: add_lora(decoder())}
PAIRS, STEPS = (60, 3) if preset.name == "smoke" else (240, 30)
SEEDS, few = (0, 1), fixed_batches(encoded["validation"], clm_collator(tokenizer), 10 if preset.name == "smoke" else 60)

def tune(make, seed, lr=None):
    rows, small_batch = encoded["train"].shuffle(seed=seed).select(range(PAIRS)), replace(preset, batch_size=8)
    return adapt(make().to(device), rows, clm_collator(tokenizer), STEPS, small_batch, lesson.outputs / "trainer", seed, lr)

runs, tuned = {name: [] for name in WAYS}, {}
for seed in SEEDS:
    for name, make in WAYS.items():
        tuned[name] = tune(make, seed, 1e-2 if name == "LoRA" else None)
        runs[name].append(evaluate(tuned[name], few, shift=True)[0])

# %% [markdown]
# 每种做法两个点，是两个种子；点挨得近，差别才信得过：

# %%
import matplotlib.pyplot as plt
from statistics import mean

order = sorted(WAYS, key=lambda name: mean(runs[name]))
fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
for place, name in enumerate(order[::-1]):
    ax.plot(runs[name], [place] * len(SEEDS), "o-")
ax.axvline(baselines["一元模型"], ls="--", color="0.5", label="一元模型")
ax.set_yticks(range(len(order)), order[::-1])
ax.set(xlabel="验证损失（奈特/词元）", title=f"从哪里出发，练哪些：{PAIRS} 对，{STEPS} 步")
_ = ax.legend()

# %% [markdown]
# 排个名次。差距小于种子的起伏，就不分先后：

# %%
text = order[0]
for better, worse in zip(order, order[1:], strict=False):
    text += f"{' < ' if max(runs[better]) < min(runs[worse]) else ' ≈ '}{worse}"
print(text)
for name in order:
    lesson.record(f"{PAIRS} 对、{STEPS} 步后的验证损失（{name}）", mean(runs[name]), "奈特/词元")
lesson.record("冻结底层比全部都练多出的损失", mean(runs["冻结底层"]) - mean(runs["全部"]), "奈特/词元")
assert preset.name == "smoke" or max(runs["全部"]) < min(runs["从头"]), "预训练没有用？"

# %% [markdown]
# 怎么读这张图：预训练值多少，看「从头」与「全部」的差；该不该冻结，看「全部」与「冻结底层」的差。
#
# 常听人说微调时该「冻结底层、只练上层」。那是换题目不换看法的时候：BERT 拿去做分类，底层照旧左右都看。这里连注意力的掩码都换了，
# 每一层都得适应「只看左边」，冻住的层就可能成了包袱：看图上这两样差多少。Lee 等（2019）在分类任务上也量过：只练最上面四分之一的层，
# 大约能拿到九成的效果。他们没有换掩码。
#
# ## 7 忘了什么
#
# 学会了接龙，填空还会吗？把练过的权重装回 `BertForMaskedLM`，在同样的遮盖上再考一次。LoRA 没动原来的矩阵，拿掉它就回到从前。

# %%
from utils.training import as_masked_lm, mlm_collator

blanks = fixed_batches(encoded["validation"], mlm_collator(tokenizer, seed=0), 60)
original, _, _ = load_checkpoint("mlm", BertForMaskedLM, preset=preset, prefer="shipped")
forgotten = {"微调之前": evaluate(original.to(device), blanks, shift=False)[0]}
forgotten |= {name: evaluate(as_masked_lm(tuned[name]), blanks, shift=False)[0] for name in ("全部", "冻结底层", "LoRA")}
for name, nats in forgotten.items():
    lesson.record(f"填空的损失（{name}）", nats, "奈特/词元")
assert abs(forgotten["LoRA"] - forgotten["微调之前"]) < 1e-5

# %% [markdown]
# 损失比「微调之前」高出来的，就是忘掉的，这叫灾难性遗忘（catastrophic forgetting）：没有谁叫它忘，只是新题从不考旧题。
# 想两样都会，要么混着练，要么像 LoRA 那样另存一份小的。
#
# ## 8 另一种掩码：前缀语言模型
#
# 导语是给定的，一个字也不用猜，何必只看左边？UniLM（Dong 等，2019）的做法是：提示之内互相都看得见，正文照旧只看左边。
# 这叫前缀语言模型（prefix LM）。掩码画出来：

# %%
from utils.training import prefix_mask

fig, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
for ax, (name, prompt) in zip(axes, {"因果": 0, "前缀（提示 5 个词元）": 5}.items(), strict=True):
    mask = prefix_mask(torch.tensor([prompt]), torch.ones(1, 12).bool())                              # (1, 1, T, T)
    ax.imshow(mask[0, 0] == 0, cmap="Greys")
    ax.set(title=name, xlabel="被看的位置", ylabel="看的位置（涂黑是看得见）")

# %% [markdown]
# 前缀掩码离 MLM 近一些：导语那一段还是左右都看。练起来是不是更好，「追问到底」里自己量。代价是每一步的缓存要分两段算，
# [[generation]] 用的 `generate` 默认不会这样做，所以下面仍用因果掩码。
#
# ## 9 微调
#
# 从**你的** MLM 出发（没有就用附带的），练满。起点用「只留底层」：第 6 节练得短，它占没占先，看那里的名次；练得久了，次序可能会变
# （练习里的「追问到底」让你自己量）。设置与 [[mlm_pretraining]] 相同（`training_arguments`），只换模型、标签和评估方式。

# %%
from utils.display import loss_curve
from utils.training import train, training_arguments

torch.manual_seed(lesson.seed)
model, _, _ = load_checkpoint("mlm", BertLMHeadModel, preset=preset, is_decoder=True)
args = training_arguments(lesson.outputs / "trainer", preset.clm_steps, preset, device, lesson.seed)
history = train(renew_top(model).to(device), encoded["train"], clm_collator(tokenizer), args,
                lambda m: evaluate(m, held, shift=True), {k: baselines[k] for k in ("一元模型", "语料下限")})

# %% [markdown]
# 画出来。验证的曲线离最下面那条虚线还有多远，就是模型还能进步多少；它不可能穿到那条线的下面去。
# 要是穿过去了，不是模型神了，而是哪里漏了答案。

# %%
ax = loss_curve({"训练": (history.steps, history.train_loss), "验证": (history.eval_steps, history.eval_loss)},
                {k: baselines[k] for k in ("一元模型", "二元模型", "语料下限")}, "微调：已知导语写正文")
right_axis = ax.secondary_yaxis("right", functions=(lambda nats: nats * to_bits, lambda bits: bits / to_bits))
_ = right_axis.set_ylabel("比特/字")

# %% [markdown]
# 记下结果。「下限的几倍」是个好读的数：1.0 表示好到不能再好。

# %%
from_mlm, _ = evaluate(model, held, shift=True)
lesson.record("CLM 正文验证损失（从 MLM 出发）", from_mlm, "奈特/词元")
lesson.record("CLM 正文验证损失（从 MLM 出发）", from_mlm * to_bits, "比特/字")
lesson.record("CLM 语料下限", limit["nats_per_token"], "奈特/词元")
lesson.record("CLM 损失 ÷ 下限（从 MLM 出发）", from_mlm / limit["nats_per_token"], "倍")
assert from_mlm > 0.97 * limit["nats_per_token"], "低于下限：一定有泄漏"
assert preset.name == "smoke" or from_mlm < baselines["一元模型"] - 1.0, "没有明显胜过一元模型：学习没有发生"

# %% [markdown]
# 这是你微调的，几分钟走到了这里：掩码换了，每一层都要重新适应。要是预训练时练的就是接龙呢？课程附带的 `clm` 正是这样练出来的，
# 导语和正文都学。它是分几段练的（每一段的命令在 `data/checkpoints/README.md`），成绩写在它自己的 `course.json` 里：

# %%
from utils.models import stages
from utils.display import show_table

WHAT = {"clm": "接龙", "both": "一半接龙，一半填空", "copy": "插进一层，专帮照抄", "above": "再练那一层和它上面的各层"}
past = stages(find_checkpoint("clm", preset, prefer="shipped")[0])[::-1]
practised = sum(stage["causal_docs"] for stage in past)
print(f"clm 一共练了 {practised:,} 篇次的接龙；上面的微调练了 {preset.clm_steps * preset.batch_size:,} 篇次")
show_table(["练什么", "接龙的篇次", "测试集损失 ÷ 下限"],
           [(WHAT[stage["objective"]], f"{stage['causal_docs']:,}", f"{stage['ratio_to_floor']:.3f}") for stage in past])

# %% [markdown]
# 后面几段比较特别：在原有的四层中间插进一层，专帮照抄，再连它上面的层一起接着练。为什么要这样，第 12 节来看。
# 现在一步都不微调，直接考：

# %%
writer = decoder("clm").to(device)
loss, _ = evaluate(writer, held, shift=True)
lesson.record("CLM 正文验证损失（附带的 clm）", loss, "奈特/词元")
lesson.record("CLM 正文验证损失（附带的 clm）", loss * to_bits, "比特/字")
lesson.record("CLM 损失 ÷ 下限（附带的 clm）", loss / limit["nats_per_token"], "倍")
assert loss > 0.97 * limit["nats_per_token"], "低于下限：一定有泄漏"

# %% [markdown]
# 附带的 `clm` 离下限还有多远，看上面的倍数；越近，留给微调的余地越小。
# 今天的大模型正是这样：先拿海量文字练接龙，再拿「提示和回答」微调一小会儿。
# 可别把功劳全算给「题目相同」：它练过的篇次也多得多（上面打印了两个数），这里没有把两件事分开量。
# 下面两个都用：你微调的叫 `model`，附带的叫 `writer`。
#
# ## 10 它真的在读导语吗？
#
# 损失低，也可能只是学会了新闻腔。做个对照：给每篇正文配上**别人的**导语，再算正文的损失。
# 如果模型真在用导语，换错导语后损失应当明显变高。

# %%
swapped = eval_docs.remove_columns("intro").add_column("intro", eval_docs["intro"][1:] + eval_docs["intro"][:1])
mismatched = fixed_batches(encode_docs(swapped, tokenizer, preset.max_len), clm_collator(tokenizer), len(swapped))
for name, who, right in (("你微调的", model, from_mlm), ("附带的 clm", writer, loss)):
    wrong_loss, _ = evaluate(who, mismatched, shift=True)
    print(f"{name}：配对的导语 {right:.3f}，换错的导语 {wrong_loss:.3f} 奈特/词元")
    lesson.record(f"换错导语后正文损失升高（{name}）", wrong_loss - right, "奈特/词元")
    assert wrong_loss > right + (0 if preset.name == "smoke" else 0.3)

# %% [markdown]
# ## 11 背下来
#
# 「损失降到 0.003」常被当成功。让附带的 `clm` 只学 16 对，反复地练：训练损失能低到下限以下，那不是写得好，是背下来了。
# 怎么看出来？看两样：留出集的损失涨了没有（练之前是第 9 节的那个数）；写出来的东西，有多少与练过的正文一字不差。

# %%
tiny = encoded["train"].select(range(16))
tiny_bodies = corpus["train"]["body"][:16]
memorizer = adapt(decoder("clm").to(device), tiny, clm_collator(tokenizer), 4 if preset.name == "smoke" else 60, preset,
                  lesson.outputs / "trainer", lesson.seed, lr=1e-3)
learned = evaluate(memorizer, fixed_batches(tiny, clm_collator(tokenizer), 16), shift=True)[0]
unseen = evaluate(memorizer, few, shift=True)[0]
print(f"16 对上 {learned:.3f}，留出集 {unseen:.3f}；语料下限 {limit['nats_per_token']:.3f} 奈特/词元")
lesson.record("背书的模型：16 对上的损失", learned, "奈特/词元")
lesson.record("背书的模型：留出集损失", unseen, "奈特/词元")

# %% [markdown]
# 给它留出集的导语，看它写的正文里，最长有多少个字与那 16 篇的某一处一字不差；拿没背书的模型和真正的正文来比。

# %%
from utils.generation import CopyIndex, generate

index, probes = CopyIndex(tiny_bodies), corpus["validation"].select(range(4 if preset.name == "smoke" else 16))
texts = {"背书的模型": generate(memorizer, tokenizer, probes["intro"][:]), "没背书的模型": generate(writer, tokenizer, probes["intro"][:]),
         "真正的正文": probes["body"][:]}
spans = {name: mean(len(index.longest_copied_span(t)) for t in written) for name, written in texts.items()}
for name, length in spans.items():
    lesson.record(f"与那 16 篇一字不差的最长一段（{name}）", length, "字（各篇平均）")
example = max(texts["背书的模型"], key=lambda t: len(index.longest_copied_span(t)))
print(f"背书的模型写：{example}\n其中一字不差抄来的一段：{index.longest_copied_span(example)}")

# %% [markdown]
# 真正的正文也会与那 16 篇有几个字相同，那是套话；背书的模型超出这个长度的，多半是背来的。
# 所以看到一个低得离奇的训练损失，先问：留出集上呢？

# %% [markdown]
# ## 12 让它写
#
# 生成的办法是 [[generation]] 的主题，这里先用最简单的一种：每一步取概率最大的字（贪心，greedy），写到 `[SEP]` 为止。
# `generate` 在 [[generation]] 里从头搭起。

# %%
from utils.corpus import check_facts

docs = corpus["test"].select(range(120 if preset.name != "smoke" else 6))
authors = {"你微调的": model, "附带的 clm": writer}
written = {name: generate(author, tokenizer, docs["intro"][:]) for name, author in authors.items()}
for name, bodies_written in written.items():
    report = check_facts(docs[0]["intro"], bodies_written[0])
    print(f"导语：{docs[0]['intro']}\n{name}：{bodies_written[0]}")
    print(f"守住 {len(report.kept)} 项；写错 {report.contradicted}；漏掉 {report.missing}\n")

# %% [markdown]
# 上面最后一行是事实核对：语法知道导语里有哪些事实，于是可以逐项检查正文有没有守住。
# 数一数：逐项看守住几成，逐篇看有多少篇一项不错、一项不漏，又有多少篇合乎语法。

# %%
def audit(name, where, intros, bodies_written):
    """记下守住事实的比例，返回逐篇的核对结果。"""
    reports = [check_facts(intro, body) for intro, body in zip(intros, bodies_written, strict=True)]
    right, wrong = sum(len(r.kept) for r in reports), sum(len(r.contradicted) + len(r.missing) for r in reports)
    lesson.record(f"逐项守住的事实（{name}，{where}）", right / max(1, right + wrong), f"比例（共 {right + wrong} 项）")
    lesson.record(f"守住全部事实的正文（{name}，{where}）", mean(r.faithful for r in reports), f"比例（贪心，{len(reports)} 篇）")
    lesson.record(f"合乎语法的正文（{name}，{where}）", mean(r.well_formed for r in reports), f"比例（贪心，{len(reports)} 篇）")
    return reports

reports = {name: audit(name, "测试集", docs["intro"][:], bodies_written) for name, bodies_written in written.items()}
kept_all = {name: mean(r.faithful for r in rs) for name, rs in reports.items()}
assert preset.name == "smoke" or kept_all["附带的 clm"] >= 0.85, "没有守住事实"

# %% [markdown]
# 守住了，是抄的还是背的？拿附带的再考一套：`test_new_names` 句式相同，人名、地名、队名却都是训练时一次没见过的。
# 靠背的模型，会写成它见过的名字。

# %%
strangers = corpus["test_new_names"].select(range(len(docs)))
about_strangers = generate(writer, tokenizer, strangers["intro"][:])
new_reports = audit("附带的 clm", "新名字", strangers["intro"][:], about_strangers)
for r in [r for r in new_reports if r.contradicted][:3]:
    print("；".join(f"应为「{value}」，写成「{written_as}」" for _, value, written_as in r.contradicted))

# %% [markdown]
# 出了这套语法呢？还是附带的 `clm`，拿手写文章来试：导语是自然的文字，题材、句式、用字它都没学过。语法读不懂这样的导语，只能按字面核对：
# 导语里的日期、数量和认得出的专名，正文里有没有写到。

# %%
real = load_corpus("articles")["train"].select(range(min(len(docs), 40)))
about_real = generate(writer, tokenizer, real["intro"][:])
real_reports = [check_facts(i, b) for i, b in zip(real["intro"], about_real, strict=True)]
kept, all_facts = (sum(map(f, real_reports)) for f in (lambda r: len(r.kept), lambda r: len(r.kept + r.contradicted + r.missing)))
lesson.record("写到的事实（手写文章，按字面核对）", kept / all_facts, f"比例（共 {all_facts} 项，{len(real)} 篇）")
for doc, body in zip(real.select(range(2)), about_real, strict=False):
    print(f"导语：{doc['intro']}\n模型：{body}\n")

# %% [markdown]
# 读一读上面两篇，通不通？再看写到的事实占几成。在窄语料上练出来的模型，只会写窄语料里的文章；
# 要写真文章，得用真数据，用大得多的模型（[[scale_up]]）。
#
# 「合乎语法」和「守住事实」是两回事：前者只要学会写法，后者要学会回头抄导语里的名字和数字。
# 那么，损失花在哪里？语料的语法是已知的，所以前面的字一定，下一个字可以是哪些、概率各多少，都算得出来：
# 走遍与前文相容的全部写法就是了（`utils.corpus.next_character`）。先看一篇，〔〕里的字有得选，其余的字给定前文只有一种写法：

# %%
from utils.corpus import Ahead, END, news_grammar

grammar = news_grammar()

def outlook(doc):
    """正文（连同末尾的 [SEP]）逐字的 （哪一类，真概率的 −log，模式，正在抄的事实）。"""
    schema, known, _, _ = grammar.parse(doc["intro"])[0]                      # 导语属于哪个模式，有哪些事实
    ahead = Ahead(grammar, schema, known, doc["body"])
    for options, fact, c in zip(ahead.probabilities(), ahead.copied, [*doc["body"], END], strict=True):
        kind = "有得选" if len(options) > 1 else "事实（抄、算或背）" if fact else "只能这样写的套话"
        yield kind, -math.log(options[c]), schema.name, fact

doc = corpus["validation"][0]
marked = "".join(f"〔{c}〕" if kind == "有得选" else c for c, (kind, *_) in zip(doc["body"], outlook(doc), strict=False))
print(f"导语：{doc['intro']}\n正文：{marked.replace('〕〔', '')}")
assert abs(sum(best for _, best, *_ in outlook(doc)) - doc["nats_body"]) < 1e-9      # 各字的 −log p 之和就是这篇的信息量

# %% [markdown]
# 只有一种写法的字，下限是 0，模型在那里花的每一个奈特都是它自己的不足；有得选的字，减去真概率的 −log，剩下的才是。
# 拿一批验证文档来量，一篇一篇地读：

# %%
@torch.no_grad()
def body_nats(doc, who):
    """正文逐字的损失 (正文字数 + 1,)，和模型 who 在那里最想写的词元 (正文字数 + 1,)。"""
    row = encode_pair(tokenizer, doc["intro"], doc["body"], preset.max_len)
    ids = torch.tensor([row["input_ids"]], device=device)                 # (1, T)
    log_p = who(ids, use_cache=False).logits[0, row["prompt_len"] - 1:-1].log_softmax(-1)               # (正文字数 + 1, V)
    return -log_p.gather(-1, ids[0, row["prompt_len"]:, None])[:, 0].cpu(), log_p.argmax(-1).tolist()

probe = corpus["validation"].select(range(4 if preset.name == "smoke" else 200))
ahead = [list(outlook(doc)) for doc in probe]
places = []                                                               # 每个字一行：类别、下限、模型、模式、事实、篇、位置、最想写的
for n, doc in enumerate(probe):
    nats, wanted = body_nats(doc, writer)
    places += [(kind, best, x, schema, fact, n, i, w) for i, ((kind, best, schema, fact), x, w)
               in enumerate(zip(ahead[n], nats.tolist(), wanted, strict=True))]

# %% [markdown]
# 按类别加起来，折合到一篇：

# %%
n_read, table = len(probe), []
for kind in ("有得选", "只能这样写的套话", "事实（抄、算或背）"):
    here = [(best, x) for k, best, x, *_ in places if k == kind]
    best, ours = (sum(column) / n_read for column in zip(*here, strict=True))
    table.append((kind, f"{len(here) / n_read:.1f}", f"{best:.2f}", f"{ours:.2f}", f"{ours - best:.2f}"))
    lesson.record(f"一篇正文超出下限多少（{kind}）", ours - best, f"奈特/篇（每篇 {len(here) / n_read:.1f} 处）")
show_table(["一篇正文", "几处", "下限（奈特）", "模型（奈特）", "超出"], table, caption=f"附带的 clm，验证集 {n_read} 篇")

# %% [markdown]
# 先看「超出」那一列里谁最大：在「有得选」，是概率给得还不够准；在套话，是句式还没背熟；在事实，是抄错、算错了，或者没有把握。
# 事实的字最要紧：只有一种写法，错一个就是假新闻。
# 错在这里的，是处处都有一点马虎，还是有些地方总写不对？把「哪个模式的哪个事实」当作一处，逐处算平均：

# %%
spots = {}                                                                # {处: {第几篇: [（奈特，位置，最想写的）]}}
for kind, _, x, schema, fact, n, i, w in places:
    if kind == "事实（抄、算或背）":
        spots.setdefault((schema, fact), {}).setdefault(n, []).append((x, i, tokenizer.convert_ids_to_tokens(w)))

def missed(spot):
    """这一处抄错了（模型最想写的不是正文的字）的是哪些篇。"""
    return [n for n, found in spots[spot].items() if any(c != probe[n]["body"][i] for _, i, c in found)]

cost = {spot: sum(x for found in by_doc.values() for x, *_ in found) for spot, by_doc in spots.items()}
order = sorted(cost, key=cost.get, reverse=True)
worst = order[:len(order) // 10]
worst_share = sum(cost[spot] for spot in worst) / sum(cost.values())
rates = [len(missed(spot)) / len(spots[spot]) for spot in order]
print(f"共 {len(order)} 处：一次都没抄错的占 {mean(r == 0 for r in rates):.0%}，一半以上都抄错的占 {mean(r > 0.5 for r in rates):.0%}")
print(f"最差的一成（{len(worst)} 处），占了照抄损失的 {worst_share:.0%}")
lesson.record("照抄的损失集中在最差的一成位置", worst_share, "比例")

# %% [markdown]
# 最差的几处，各看一个例子：该抄什么，模型最想写的那个字是什么。

# %%
def spot_row(spot):
    n = next(iter(missed(spot) or spots[spot]))
    body, (_, i, c) = probe[n]["body"], max(spots[spot][n])
    return (" · ".join(spot), len(spots[spot]), f"{len(missed(spot)) / len(spots[spot]):.0%}", f"{cost[spot] / len(spots[spot]):.1f}",
            f"…{body[max(0, i - 8):i]}［{body[i:i + 3]}…］", c)

often = [spot for spot in order if len(spots[spot]) >= (1 if preset.name == "smoke" else 4)][:8]
show_table(["模式 · 事实", "几篇", "抄错率", "奈特/篇", "正文［该抄的］", "模型想写"], map(spot_row, often))

# %% [markdown]
# 怎么读？错得少的时候，错总会落在少数几处，所以「最差的一成占了多少」本身还不算证据；要看「抄错率」那一列：同一处考了好几篇，
# 篇篇都错，是这一处它不会；好几篇里只错一篇，才是马虎。篇篇都错的是哪些？留意推算出来的数（一共多少、还剩多少），那不是抄，要会算术；
# 还有要背出来的属性（什么花酿的蜜是什么味）。平均数会把这些情形混成一个；要改进，先得分开看。
#
# 附带的 `clm` 就是这样改进的。它原来只有四层，抄错的比现在多。要知道怎么改，先换个问法：它照抄的时候，**看**的是哪里？
# 要抄的字在前文的哪里，是知道的；所以逐层逐头地量：要写那个字的时候，有多大一份注意力落在前文的那个字上。
# 完整的模型量一遍，把后来插进去的那一层拿掉，再量一遍。

# %%
from copy import deepcopy
from itertools import islice
from random import Random
from utils.analysis import documents, eager_attention, exercise

inserted = past[-1].get("copy_layer")
assert inserted is not None, "这个 clm 没有插进去的那一层：照 data/checkpoints/README.md 再运行 tools.checkpoints.copy_training。"
shorter = deepcopy(writer)
del shorter.bert.encoder.layer[inserted]
fresh = islice(documents(grammar, Random(lesson.seed), preset.max_len), 5 if preset.name == "smoke" else 60)
practice = [exercise(grammar, document, tokenizer.get_vocab()) for document in fresh]

def on_sources(who):
    """要照抄一个字时，各层各头有多大一份注意力落在前文的那个字上 (L, H)。"""
    looks = []
    with eager_attention(who):
        for one in practice:
            ids = torch.tensor([one.ids], device=device)                                      # (1, T)
            attention = torch.cat(who(ids, output_attentions=True, use_cache=False).attentions)           # (L, H, T, T)
            looks += [attention[:, :, at, found].sum(-1).cpu() for at, found in one.sources]  # 各 (L, H)
    return torch.stack(looks).mean(0)

# %% [markdown]
# 两个模型，全部的头，各画一张表（层和头都从 0 数起）：

# %%
shares = {"拿掉插进去的那一层": on_sources(shorter), "完整": on_sources(writer)}
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for ax, (name, share) in zip(axes, shares.items(), strict=True):
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for layer, row in enumerate(share.tolist()):
        for head, x in enumerate(row):
            ax.text(head, layer, f"{x:.2f}", ha="center", va="center", color="white" if x > 0.5 else "black", fontsize=8)
    ax.set(title=name, xlabel="头", ylabel="层", xticks=range(share.shape[1]), yticks=range(share.shape[0]))
fig.colorbar(image, ax=axes, label="落在出处上的注意力")
layer, head = divmod(int(shares["完整"].argmax()), shares["完整"].shape[1])
before_it, after_it = (share.max().item() for share in shares.values())
lesson.record("照抄的头落在出处上的注意力（拿掉插进去的那一层）", before_it, "比例")
lesson.record("照抄的头落在出处上的注意力（完整）", after_it, "比例")

# %% [markdown]
# 绝大多数头不管这件事，照抄靠的是同一个头。原来它在层 1，只读过一层上下文，该抄「主讲人」还是「主持人」，往往还分不清。
# 交给上面的层行不行？它们看得懂，可是到了那里，字本身已经认不大出了：从一层的状态，用线性变换猜「这里是什么字」，量量看。

# %%
@torch.no_grad()
def readable(who):
    """各层的输入里，要抄的字还有多少认得出：岭回归到词嵌入，取最近的一个；后一半文档上的准确率。"""
    states, gold, split = [], [], 0
    for n, one in enumerate(practice):
        at = sorted({x for _, found in one.sources for x in found})
        hidden = torch.stack(who(torch.tensor([one.ids], device=device), output_hidden_states=True, use_cache=False).hidden_states)
        states.append(hidden[:, 0, at])                                                       # (L + 1, n, D)
        gold += [one.ids[x] for x in at]
        split = len(gold) if n < len(practice) // 2 else split
    states, table, gold = torch.cat(states, 1), who.get_input_embeddings().weight, torch.tensor(gold, device=device)
    states = torch.cat([states, torch.ones_like(states[..., :1])], -1)                        # (L + 1, N, D + 1)
    x, y = states[:, :split], table[gold[:split]]
    W = torch.linalg.solve(x.mT @ x + 0.1 * torch.eye(x.shape[-1], device=device), x.mT @ y)  # (L + 1, D + 1, D)
    return [(torch.cdist(p, table).argmin(-1) == gold[split:]).float().mean().item() for p in states[:, split:] @ W]

print("拿掉插进去的那一层，各层的输入里认得出的字：" + "，".join(f"{n} 层之后 {x:.0%}" for n, x in enumerate(readable(shorter))))

# %% [markdown]
# 越往上，状态越像「下一个字是什么」，越不像「这里是什么字」。所以新层要插在照抄的头下面（`tools.checkpoints.copy_layer`）：字还认得出，
# 又多读懂了一层上下文。新层的起点几乎是什么也不做；然后告诉它，要抄的字在哪里，就让那个头看哪里。这种有监督的对齐，
# 是 Garg 等（2019）给机器翻译想的办法。标准答案也换了：不用文中那一个字，用上面算的真分布，有得选的地方就没有了抽签的噪声。
# 最后一段还让它练自己写的：让它贪心地写，沿着它写的前文，处处告诉它真分布，一直到写错的那个字。照着语料练，到写的时候，
# 前文却是自己写的，走的路不一样；在自己走的路上练，是模仿学习里 DAgger（Ross 等，2011）的想法。
#
# 这一层值多少，拿掉一量就知道；再把照抄的头关掉（[[attention_visualization]] 的 `without_heads`）比一比。

# %%
from utils.analysis import without_heads

to_copy = [[i for i, (kind, *_) in enumerate(sure) if kind == "事实（抄、算或背）"] for sure in ahead]

def copying(who):
    """照抄的字一篇丢多少奈特；多大一份正文有抄错的字。"""
    results = [body_nats(doc, who) for doc in probe]
    nats = mean(x[at].sum().item() for (x, _), at in zip(results, to_copy, strict=True))
    targets = ([tokenizer.convert_tokens_to_ids(c) for c in doc["body"]] for doc in probe)
    return nats, mean(any(wanted[i] != gold[i] for i in at) for (_, wanted), gold, at in zip(results, targets, to_copy, strict=True))

trials = {"完整": copying(writer), "拿掉插进去的那一层": copying(shorter)}
with without_heads(writer, [(layer, head)]):
    trials["关掉照抄的头"] = copying(writer)
for name, (nats, wrong) in trials.items():
    lesson.record(f"照抄的字（附带的 clm，{name}）", nats, f"奈特/篇（{wrong:.0%} 的正文有抄错的字）")
assert preset.name == "smoke" or trials["完整"][0] < trials["拿掉插进去的那一层"][0] < trials["关掉照抄的头"][0], "插进去的那一层没有用？"
show_table(["附带的 clm", "照抄的字，奈特/篇", "有抄错的正文"],
           [(name, f"{nats:.2f}", f"{wrong:.0%}") for name, (nats, wrong) in trials.items()])

# %% [markdown]
# 看几篇附带的 `clm` 没守住的，数一数错的是名字、数字，还是文章写走了样。

# %%
for i in [i for i, r in enumerate(reports["附带的 clm"]) if not r.faithful][:3]:
    r = reports["附带的 clm"][i]
    print(f"导语：{docs[i]['intro']}\n模型：{written['附带的 clm'][i]}")
    print(f"写错：{r.contradicted}　漏掉：{r.missing}　合乎语法：{r.well_formed}\n")

# %% [markdown]
# ## 13 存起来
#
# 存下的是你自己微调的 `model`。[[generation]] 会用它来比较各种生成的办法；它多半比附带的弱得多，看数的时候别忘了
# （想用附带的，在那里写上 `prefer="shipped"`）。

# %%
from utils.models import save_checkpoint

path = save_checkpoint(model, tokenizer, lesson.outputs / "clm",
                       {"steps": history.eval_steps[-1], "validation_nats": from_mlm, "floor": limit["nats_per_token"]})
print("已存好：", "、".join(sorted(p.name for p in path.iterdir())))

# %% [markdown]
# ## 小结
#
# - 从 MLM 到 CLM，权重装得进去，变的是掩码（`is_decoder=True`）和标签（错开一位，由模型来错）。
#   检查偷看：改动未来，过去的 logits 应当一点不变。
# - 一条序列，提示记 −100，填充也记 −100。两条序列硬对齐的配方，报出来的损失里有 `[PAD]` 送的一截，要只算真词元才看得清。
# - 「冻结底层」不是口诀：这里换了掩码，底层也要适应。冻住它值不值，先量再说。
# - 微调会忘：新题从不考旧题。LoRA 另存一份小的，原来的一点没动。
# - 附带的 `clm` 预训练时练的就是接龙，练得又多，离下限近；从填空出发，几分钟只能走一段路。
# - 损失放在基线和下限之间看；换错导语的对照说明模型有没有用上导语；训练损失低过下限，是背下来了；
#   事实核对说明它写得真不真。
# - 平均数会把「处处有点马虎」和「少数几处总是错」混成一个。下限能拆到每一个字上，错在哪里就看得见。
# - 附带的 `clm` 照抄靠一个头。看清了是哪个头、它缺什么，改起来才有的放矢。
#
# **下一本**：[[generation]]，把概率变成文章，有哪些办法，怎样量好坏。
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import clm_finetuning as check

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
# （`model.bert.encoder.layer`），就地改，不用返回。通过以后可以用它改第 6 节：冻一层、冻三层，各是多少？

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
# **练习 7 · 解释一个对照**（★★，5 分钟）有人练了一个模型，正文的损失比一元模型低很多；照第 10 节换错导语，损失几乎没有变。这说明什么？
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
# **想一想 · 追问到底**（★★，12 分钟）把第 6 节的 `(240, 30)` 改成 `(10000, 600)`，重新运行第 6 节（机器要算半小时以上）。
# 先猜：数据多了，练得久了，名次会变吗？再把步数改回来，`tune` 和 `few` 里的 `clm_collator`
# 换成 `utils.training.finetuning` 的 `prefix_collator`：前缀掩码比因果掩码好多少？要超过种子的起伏才算数。
#
# <details><summary>参考答案</summary>
#
# 看你测到的数。「全部」沿用得最多，可它的上层为「猜 t 自己、左右都看」调好了，「只留底层」练久了可能追上来。
# 一般说来，步数越少、数据越少，沿用的越值钱；我们的语料要多少有多少，缺的只是时间。
#
# </details>
#
# ## 延伸阅读
#
# - Dong, Yang, Wang 等（2019）Unified Language Model Pre-training for Natural Language Understanding and Generation.
# - Rothe, Narayan, Severyn（2020）Leveraging Pre-trained Checkpoints for Sequence Generation Tasks.
# - Hu, Shen, Wallis 等（2021）LoRA: Low-Rank Adaptation of Large Language Models.
# - Zhang, Wu, Katiyar 等（2021）Revisiting Few-sample BERT Fine-tuning.
# - Lee, Tang, Lin（2019）What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning.
# - Garg, Peitz, Nallasamy, Paulik（2019）Jointly Learning to Align and Translate with Transformer Models.
