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
# # MLM 预训练
#
# **这一本只回答一个问题：怎样预训练一个中文 BERT？**
#
# **学习目标**
#
# 1. 会用掩码语言模型（masked language model，MLM）的「80/10/10」遮盖，亲手算它的损失，并与库的结果对上。
# 2. 用 Hugging Face 的 Trainer 把一个小 BERT 从随机权重练到会填空。
# 3. 会给损失找参照：均匀猜测、一元模型。没有参照的损失，只是一个孤零零的数。
# 4. 说得出模型学会了什么：数字、标点、人名，哪一类容易，哪一类难。
#
# **先修**：[[tokenization]]（字符词元）、[[self_attention]]（自注意力）、[[objectives]]（MLM 的遮盖）。
#
# **用时**：有 bf16 指令的两核 CPU 约 7 分钟；没有 bf16 指令的 CPU，一个核心约 15 分钟（大半在训练）。GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("mlm_pretraining")          # 换预设：start("mlm_pretraining", preset="smoke")

# %% [markdown]
# 预设（preset）是一套成套的大小：模型几层、多宽，练多少步。下面这几个数决定了这一本要跑多久。
# 想改哪一项，就在上一格写哪一项，比如 `start("mlm_pretraining", mlm_steps=1000)`。

# %%
preset, device = lesson.preset, lesson.device
print(preset)

# %% [markdown]
# ## 1 语料：先看看要读什么
#
# 课程自带的语料是一批虚构的地方新闻，每篇有标题、导语和正文。它由一套写明了概率的语法生成，
# 所以「最好的模型能好到什么程度」是算得出来的，[[clm_finetuning]] 会用到这一点。

# %%
from utils.corpus import load_corpus

corpus = load_corpus("bundled", n_docs=preset.n_docs)
for doc in corpus["train"].select(range(2)):
    print(f"【{doc['category']}】{doc['title']}\n导语：{doc['intro']}\n正文：{doc['body']}\n")

# %% [markdown]
# 正文里有不少东西导语里已经写过：地名、人名、数字。一个好的填空模型应当学会回头去找。
#
# ## 2 分词器：一个字一个词元
#
# [[tokenization]] 比较过各种粒度。这里用最朴素的一种：一个字符一个词元（token），数字和标点也各算一个。
# 词表怎么来？把训练集里的字数一遍，常见的排在前面，最前面再放五个特殊词元。没收进来的字，模型只能看成 `[UNK]`。

# %%
from collections import Counter

texts = corpus["train"]["intro"][:] + corpus["train"]["body"][:]
counts = Counter(char for text in texts for char in text)
collected = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(counts, key=lambda c: (-counts[c], c))]
print(f"{len(texts)} 段文字，收集到 {len(collected)} 个词元：", " ".join(collected[:16]), "…")

# %% [markdown]
# `build_tokenizer("char", …)` 做的就是这几行，核对一下。不过我们不用这张刚收集的表。编号是模型和分词器之间的约定，
# 换一批文章，字的次序就变了，同一个编号往往成了另一个字，练好的模型也就读错了。所以全课程共用**一张**表：
# 同样的办法，从二十万篇里收集，存在 `data/vocabulary`。你练的、附带的，每个模型都用它，一个才能替另一个。

# %%
from utils.tokenization import build_tokenizer, course_tokenizer

assert build_tokenizer("char", texts).convert_ids_to_tokens(range(len(collected))) == collected
tokenizer = course_tokenizer(model_max_length=preset.max_len)
both, table = set(collected) & set(tokenizer.get_vocab()), tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
print(f"词表大小 V = {len(tokenizer)}，其中 {len(both)} 个这里也收集到了")
print(f"编号 100：刚收集的表里是「{collected[100]}」，课程的表里是「{table[100]}」")
print(tokenizer.convert_ids_to_tokens(tokenizer("今天是个好天气")["input_ids"]))

# %% [markdown]
# 每篇文档排成一条序列：`[CLS] 导语 [SEP] 正文 [SEP]`。导语和正文放在一起，模型才有机会学会前后对照。
# `encode_docs` 只是把这件事对每一篇做一遍。

# %%
from utils.training import encode_docs

encoded = {split: encode_docs(docs, tokenizer, preset.max_len) for split, docs in corpus.items()}
example = encoded["train"][0]["input_ids"]
print(f"训练集 {len(encoded['train'])} 篇，第一篇 {len(example)} 个词元")
print("".join(tokenizer.convert_ids_to_tokens(example))[:60], "…")

# %% [markdown]
# 一批里的序列要补到一样长，补的 `[PAD]` 全是白算。把长短相近的排进同一批（按长度分桶），浪费就少了。
# 先看长度怎么分布：

# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 2.6))
ax.hist(encoded["train"]["length"][:], bins=40)
_ = ax.set(title="一条序列有多长", xlabel="长度（词元）", ylabel="文档数")

# %% [markdown]
# ## 3 目标：盖住几个字，让模型猜
#
# [[objectives]] 亲手写过 BERT 的遮盖（Devlin 等，2019）：每个词元以 15% 的概率被选中，选中的里面 80% 换成 `[MASK]`，
# 10% 换成随机词元，
# 10% 保持原样。它收在 `utils.training.mask_tokens` 里。用 $m_i\in\{0,1\}$ 表示位置 $i$ 是否被选中，$\tilde{x}$ 是盖过的序列，
# 损失只算被选中的位置：
#
# $$\mathcal{L}=-\frac{1}{\sum_i m_i}\sum_i m_i\,\log p_\theta(x_i\mid \tilde{x})$$
#
# 在一篇文档上试一次。下面一行里，`□` 是 `[MASK]`，方括号里是被换掉的随机字。

# %%
import torch
from utils.training import mask_tokens

ids = torch.tensor([example])                                             # (1, T)
special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
generator = torch.Generator().manual_seed(lesson.seed)
masked, labels = mask_tokens(ids, special, len(tokenizer), tokenizer.mask_token_id, generator)
shown = ["□" if m == tokenizer.mask_token_id else t if m == i else f"【{t}】" for i, m, t in
         zip(ids[0], masked[0], tokenizer.convert_ids_to_tokens(masked[0]), strict=True)]
print("".join(shown))

# %% [markdown]
# 训练时用库里现成的 `DataCollatorForLanguageModeling`，[[objectives]] 核对过，它与手写的频率相同：

# %%
from transformers import DataCollatorForLanguageModeling

library = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=lesson.seed)
batch = library([{"input_ids": example}])
print(f"{batch['input_ids'].shape[1]} 个词元里，{int((batch['labels'] != -100).sum())} 个要猜")

# %% [markdown]
# ## 4 模型：随机权重的 BERT
#
# 类名要选对：做 MLM 用 `BertForMaskedLM`。网上不少教程误用了 `BertLMHeadModel`，它会在内部把标签错开一位，
# 于是「盖住的字」被当成「下一个字」来学。第 9 节会把这个错误照做一遍，量给你看。

# %%
from transformers import BertForMaskedLM
from utils.training import bert_config

config = bert_config(preset, tokenizer)
model = BertForMaskedLM(config).to(device)
print(f"{config.num_hidden_layers} 层 × {config.hidden_size} 维 × {config.num_attention_heads} 头，"
      f"参数 {sum(p.numel() for p in model.parameters()) / 1e6:.2f} 百万")

# %% [markdown]
# 随机的权重什么都得从头摸索，两核 CPU 等不起。大模型在海量文字里会自己长出一些有用的注意力头：有的专看左邻，有的专管抄写。
# 我们把这几个头的起点摆好，其余照旧随机，之后一起训练（想法见 Trockman 与 Kolter，2023）。一共三步。
#
# **第一步，位置。** 随机的位置嵌入里，第 5 格和第 6 格毫无关系，模型要练很久才认得出「左边那个字」。
# 用正弦波当起点（Vaswani 等，2017；频率另选），相邻的位置一开始就相近。只写一个头那么多维（$d_h$，
# 就是 [[self_attention]] 里的 D），其余留给字：
#
# $$P_{t,2n}=\sin\omega_n t,\qquad P_{t,2n+1}=\cos\omega_n t,\qquad \omega_n=2\cdot 4^{-n/(N-1)},\quad n=0,\dots,N-1,\quad N=d_h/2$$

# %%
T, N = config.max_position_embeddings, config.hidden_size // config.num_attention_heads // 2
omega = 2 * 4.0 ** (-torch.arange(N) / (N - 1))                           # (N,)
angle = torch.arange(T)[:, None] * omega                                  # (T, N)
waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)        # (T, d_h)
waves *= config.initializer_range * 3 * 2 ** 0.5                          # 均方根是字嵌入的 3 倍

# %% [markdown]
# 这几行收在 `set_positions` 里。用上它，再确认两者相等：

# %%
from utils.models import set_positions

set_positions(model)
torch.testing.assert_close(model.bert.embeddings.position_embeddings.weight[:, :2 * N].detach().cpu(), waves)

# %% [markdown]
# **第二步，看邻居的头。** 填空最要紧的线索就在左邻右舍。让第 0 层某个头的键照抄位置编码，查询把它转过 $\omega_n\delta$，
# 点积里就多出一项，在 $j=i+\delta$ 处最大：
#
# $$q_i\cdot k_j\ \propto\ \sum_n\cos\big(\omega_n(i+\delta-j)\big)$$
#
# `aim_heads` 做的就是这件事。量一量：还没训练，这几个头最看重的是不是 $i+\delta$？

# %%
from utils.analysis import get_attentions
from utils.models import aim_heads

aim_heads(model)
weights = get_attentions(model, tokenizer, corpus["validation"][0]["intro"]).weights       # (L, H, T, T)
i = torch.arange(2, weights.shape[-1] - 2)
for head, shift in enumerate((-1, 1)):
    hit = (weights[0, head].argmax(-1)[i] == i + shift).float().mean()
    print(f"层 0 · 头 {head}：{hit:.0%} 的位置最看重{'左' if shift < 0 else '右'}边那个字；随机的头只有 "
          f"{(weights[0, -1].argmax(-1)[i] == i + shift).float().mean():.0%}")

# %% [markdown]
# **第三步，抄写头。** 正文里的地名、人名、数字，导语里多半写过。要填「青□市」，就该去找前文里左右邻居也是「青」「市」的地方，
# 看那里是什么字，抄过来。第 0 层已经把邻居搬到了手边，第 1 层的头只要拿「我的左邻」去配「你的左邻」：这正是
# Olsson 等（2022）在大模型里找到的归纳头（induction head）的做法。
#
# `copy_heads` 让第 1 层的头往这个方向偏一点。测法很简单：把一串不重复的字写两遍，看第二遍的每个字，
# 分给第一遍里同一个字的权重是多少。均匀地看，每个位置只有 $1/T$。

# %%
from utils.models import copy_heads

def copy_score(model, n=40):
    once = "".join(tokenizer.convert_ids_to_tokens(list(range(200, 200 + n))))
    weights = get_attentions(model, tokenizer, once + once).weights       # (L, H, T, T)
    i = torch.arange(n + 2, 2 * n)                                        # 第二遍，去掉两头
    return weights[1][:, i, i - n].mean(dim=-1)                           # (H,)

T = 2 * 40 + 2                                                            # 两遍，外加 [CLS] 和 [SEP]
before_copy = copy_score(model)
start_score = copy_score(copy_heads(model))
print(f"均匀地看：{1 / T:.3f}")
print("没有抄写头：", [f"{x:.3f}" for x in before_copy.tolist()])
print("摆好抄写头：", [f"{x:.3f}" for x in start_score.tolist()])

# %% [markdown]
# 摆好的头比均匀的看得准，离「只看同一处」（权重是 1）还远；会不会真的抄，要看训练，练完我们再量一次。
# 三步合起来就是 `prepare_heads`，下面重新建一个模型，一次做完。

# %%
from utils.models import prepare_heads

torch.manual_seed(lesson.seed)
model = prepare_heads(BertForMaskedLM(config)).to(device)

# %% [markdown]
# 损失也自己算一遍。模型给出 logits $(B, T, V)$，在被选中的位置取 $\log\operatorname{softmax}$，挑出正确答案那一项，取负号求平均：

# %%
batch = {k: v.to(device) for k, v in dict(library([{"input_ids": example}])).items()}
with torch.no_grad():
    output = model.eval()(**batch)
log_p = output.logits.log_softmax(dim=-1)                                 # (B, T, V)
at = batch["labels"] != -100                                              # (B, T)
loss = -log_p[at].gather(-1, batch["labels"][at][:, None]).mean()         # 标量
torch.testing.assert_close(loss, output.loss)
print(f"手写 {loss:.4f}，库 {output.loss:.4f}")

# %% [markdown]
# ## 5 先立参照，再谈好坏
#
# 损失 5.0 好不好？要看和谁比。三条便宜的参照，都不用神经网络：
#
# - **均匀猜测**：每个字概率都是 $1/V$，损失 $\ln V$。
# - **一元模型**（unigram）：不看上下文，只按训练集里的字频猜。
# - **左右邻居**：只看左边一个字 $a$、右边一个字 $b$，用计数来猜，$p(x\mid a,b)\propto p(x)\,p(a\mid x)\,p(b\mid x)$，见过的三字组合再加权。
#
# 低于一元模型，才算看了上下文；低于「左右邻居」，才算看得比两个字更远。后一条很不好过：它把训练集里见过的三字组合全背下来了。

# %%
from utils.tokenization import uniform_nats, unigram_nats

baselines = {"均匀猜测": uniform_nats(len(tokenizer)),
             "一元模型": unigram_nats(encoded["train"]["input_ids"][:], encoded["validation"]["input_ids"][:],
                                      len(tokenizer))}
for name, nats in baselines.items():
    print(f"{name}：{nats:.3f} 奈特/词元")

# %% [markdown]
# 评估用固定的一批：同样的文档、同样的遮盖，训练前后的数才可比。「左右邻居」也在这一批上算。
# 随机权重的模型什么也不知道，该离均匀猜测不远，看看是不是：

# %%
from utils.tokenization import neighbour_nats
from utils.training import evaluate, fixed_batches, mlm_collator

held = fixed_batches(encoded["validation"], mlm_collator(tokenizer, seed=lesson.seed), preset.eval_docs)
given, gold = ([row for batch in held for row in batch[key].tolist()] for key in ("input_ids", "labels"))
baselines["左右邻居"], neighbour_accuracy = neighbour_nats(encoded["train"]["input_ids"][:], given, gold, len(tokenizer),
                                                        tokenizer.mask_token_id)
before = evaluate(model, held, shift=False)
print(f"左右邻居：损失 {baselines['左右邻居']:.3f} 奈特/词元，准确率 {neighbour_accuracy:.1%}")
print(f"训练前的模型：损失 {before[0]:.3f} 奈特/词元，准确率 {before[1]:.1%}")

# %% [markdown]
# ## 6 训练
#
# 训练交给 Hugging Face 的 Trainer。下面每一项都值得知道为什么：
#
# - `train_sampling_strategy="group_by_length"`：按长度分桶，少算填充。
# - `learning_rate`、`warmup_steps`、`linear`：先用一成的步数升温，再线性降到 0。小模型受得起较大的学习率。
# - `optim="adamw_torch_fused"`：AdamW 的一次更新合成一次调用，更快。
# - `max_grad_norm=1.0`：梯度太大时按比例缩小，防止一步走飞。

# %%
from transformers import TrainingArguments

args = TrainingArguments(
    output_dir=str(lesson.outputs / "trainer"), max_steps=preset.mlm_steps,
    per_device_train_batch_size=preset.batch_size, learning_rate=preset.lr, lr_scheduler_type="linear",
    warmup_steps=max(1, preset.mlm_steps // 10), weight_decay=0.01, max_grad_norm=1.0,
    optim="adamw_torch" if device.type == "mps" else "adamw_torch_fused",
    train_sampling_strategy="group_by_length", length_column_name="length", remove_unused_columns=False,
    bf16=device.type == "cuda" or preset.bf16, use_cpu=device.type == "cpu", seed=lesson.seed, data_seed=lesson.seed,
    logging_steps=max(1, preset.mlm_steps // 50), save_strategy="no", report_to="none", disable_tqdm=True,
    dataloader_pin_memory=device.type == "cuda")

# %% [markdown]
# 以后的 notebook 不再重抄这一段，直接用 `utils.training.training_arguments`。先确认两者一字不差：

# %%
from utils.training import training_arguments

packaged = training_arguments(lesson.outputs / "trainer", preset.mlm_steps, preset, device, lesson.seed)
different = {k for k, v in args.to_dict().items() if packaged.to_dict()[k] != v}
assert not different, f"这些设置不一样：{different}"

# %% [markdown]
# 开始训练。进度条下面的曲线会随着评估更新；想提前停，按工具栏上的停止按钮，已经学到的不会丢。
#
# `train` 只做三件事：建 `Trainer(model=…, args=…, train_dataset=…, data_collator=…)`，挂上记录损失、画进度和存进度的回调
# （callback），调用 `trainer.train()`。进度每隔不到一分钟存一次，停了再运行这一格，就接着练。
#
# 还有两处省时间的地方，损失和梯度一点不变（utils/training/losses.py 的 `targets_only`）：词表头又宽又贵（C × V），只在有标签的位置算；
# 这些位置的个数、序列的长度都补到整倍数，矩阵的形状少了，CPU 就不必每一步都重新准备乘法。
# 每一处各值多少，`python -m tools.benchmarks.pretraining` 在你的机器上量给你看。
#
# 训练时遮盖率用 `preset.mask_rate`，比 BERT 的 15% 高：同样一条序列，目标多一倍不止，小模型在短时间里多半学得更快
# （第 10 节说怎样自己量；Wettig 等，2023 也发现 15% 不是必须的）。评估仍按 15%，好与别人的数比较。

# %%
from utils.training import train

history = train(model, encoded["train"], mlm_collator(tokenizer, preset.mask_rate), args,
                lambda m: evaluate(m, held, shift=False), baselines)
if history.interrupted:
    print("训练被打断，下面的数字是打断时的水平。")

# %% [markdown]
# 曲线常有一段「平台」：损失先掉到一元模型附近停住，过一会儿才继续往下走。停住的那一段，模型只学会了字频；
# 再往下走，才是学会了看上下文。看看你这一条有没有平台，停了多久。

# %%
from utils.display import loss_curve

ax = loss_curve({"训练": (history.steps, history.train_loss), "验证": (history.eval_steps, history.eval_loss)},
                baselines, "MLM 预训练：被盖住的字，平均多少奈特")

# %% [markdown]
# 记下最后的结果。准确率的参照是「总猜最常见的那个词元」。

# %%
loss, accuracy = evaluate(model, held, shift=False)
gold = torch.cat([b["labels"][b["labels"] != -100] for b in held])
commonest = Counter(gold.tolist()).most_common(1)[0][1] / len(gold)
print(f"总猜最常见的词元：准确率 {commonest:.1%}")
lesson.record("MLM 验证损失", loss, "奈特/词元")
lesson.record("MLM 一元模型基线", baselines["一元模型"], "奈特/词元")
lesson.record("MLM 左右邻居基线", baselines["左右邻居"], "奈特/词元")
lesson.record("MLM 验证准确率", accuracy)
lesson.record("左右邻居的准确率", neighbour_accuracy)
assert loss < baselines["一元模型"] - (0.3 if preset.name == "smoke" else 1.5), "没有明显胜过一元模型：学习没有发生"
assert accuracy > (1.1 if preset.name == "smoke" else 2) * commonest
print(f"比「左右邻居」：损失{'低' if loss < baselines['左右邻居'] else '高'} {abs(loss - baselines['左右邻居']):.2f} 奈特")
assert preset.name == "smoke" or accuracy > 0.8 * neighbour_accuracy

# %% [markdown]
# ## 7 填空游戏
#
# 现在来用它。填空的函数只有几行：编码，找到 `[MASK]` 的位置，取 softmax，排序。

# %%
from utils.tokenization import name_unknown

def fill(text, k=6):
    name_unknown(tokenizer, text)             # 词表里没有的字，先说出来
    inputs = tokenizer(text, return_tensors="pt", truncation=True).to(device)
    with torch.no_grad():
        probabilities = model(**inputs).logits.softmax(dim=-1)[0]         # (T, V)
    places = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    return [[(tokenizer.convert_ids_to_tokens(int(i)), p.item()) for p, i in
             zip(*probabilities[place].topk(k), strict=True)] for place in places]

for guesses in fill("今天是个好[MASK]子。"):
    print("  ".join(f"{token} {p:.1%}" for token, p in guesses))

# %% [markdown]
# 库里也有现成的 `pipeline("fill-mask")`。两者应当给出同样的字、同样的概率：

# %%
from transformers import pipeline

oracle = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=6)("今天是个好[MASK]子。")
mine = fill("今天是个好[MASK]子。")[0]
assert [token for token, _ in mine] == [guess["token_str"] for guess in oracle]
torch.testing.assert_close([p for _, p in mine], [guess["score"] for guess in oracle], atol=1e-5, rtol=1e-4)

# %% [markdown]
# 画出来更清楚。取一篇它没见过的文档，盖住正文里的几个字：有的靠固定搭配就能猜，有的得回头看导语。

# %%
def draw(text, k=6):
    rows = fill(text, k)[:6]                                              # 再多就画不下了
    if not rows:
        raise ValueError("这句话里没有 [MASK]。请把要猜的字换成 [MASK]。")
    fig, axes = plt.subplots(1, len(rows), figsize=(min(9, 2.4 * len(rows) + 0.6), 2.6), squeeze=False)
    for n, (ax, guesses) in enumerate(zip(axes[0], rows, strict=True), 1):
        tokens, values = zip(*guesses[::-1], strict=True)
        ax.barh(range(k), values)
        ax.set_yticks(range(k), tokens)
        ax.set(title=f"第 {n} 处", xlim=(0, 1), xlabel="概率")
    return fig

doc = corpus["validation"][0]
pieces = list(doc["intro"] + "[SEP]" + doc["body"])
where = [i for i in range(len(doc["intro"]) + 8, len(pieces), 17)][:4]
question = "".join("[MASK]" if i in where else c for i, c in enumerate(pieces))
print(question)
_ = draw(question)

# %% [markdown]
# 轮到你了。在框里写一句话，把想让模型猜的字换成 `[MASK]`，按回车。
# （在网页上看这本 notebook 时没有输入框，上面那张图就是它的样子。）图画好以后变成 PNG，放进一个图片控件；写错了，错误说明显示在框下。

# %%
from utils.views import figure_playground

figure_playground(draw, "今天是个[MASK][MASK]的日子。", "填空：")

# %% [markdown]
# ## 8 它学会了什么？按词元的种类看
#
# 一个总的准确率会骗人：好猜的和难猜的混在一起，就看不清了。语料知道每个字是什么：哪些字属于一个专名（人、地、机构、队伍、
# 作品），哪些属于别的事实（数量、日期、事物），其余再分成标点、虚词和普通字。事实又分两种：导语和正文都写到的，盖住一处，看另一处就知道；
# 只写了一处的，只能猜。

# %%
import json
import re
import unicodedata
from utils.corpus import PROPER

def kinds_of(doc):
    """`[CLS] 导语 [SEP] 正文 [SEP]` 每个位置的种类。"""
    kinds = []
    for part in ("intro", "body"):
        row = ["标点" if unicodedata.category(c)[0] == "P" else "虚词" if c in "的了在和与是也都把被从对为着就还将已让" else "普通字"
               for c in doc[part]]
        for fact in json.loads(doc["facts"]):
            known = "写了两处" if {"intro", "body"} <= set(fact["in"]) else "只有一处"
            for found in re.finditer(re.escape(fact["value"]), doc[part]):
                row[found.start():found.end()] = [f"{'专名' if fact['type'] in PROPER else '其他事实'}·{known}"] * len(fact["value"])
        kinds += [None, *row]
    return [*kinds, None]

# %% [markdown]
# 按种类数一数：被盖住的里面，猜对了几成。除了验证集，再考一套 `test_new_names`：句式相同，专名全是训练时没见过的。

# %%
exams = {"旧名字": (corpus["validation"], held),
         "新名字": (corpus["test_new_names"], fixed_batches(encoded["test_new_names"], mlm_collator(tokenizer, seed=lesson.seed),
                                                        preset.eval_docs))}

@torch.no_grad()
def by_kind(model, docs, batches):
    right, total, n = Counter(), Counter(), 0
    for batch in batches:
        guess = model(**{k: v.to(device) for k, v in batch.items() if k != "labels"}).logits.argmax(-1).cpu()     # (B, T)
        for label, row in zip(batch["labels"].tolist(), guess.tolist(), strict=True):
            for kind, y, g in zip(kinds_of(docs[n]), label, row, strict=False):
                if y != -100 and kind:
                    right[kind] += g == y
                    total[kind] += 1
            n += 1
    return {kind: (right[kind] / total[kind], total[kind]) for kind in total}

# %% [markdown]
# 训练前的模型重新建一个（同样的种子），和训练后的比：

# %%
torch.manual_seed(lesson.seed)
untrained = prepare_heads(BertForMaskedLM(config)).to(device).eval()
scores = {"训练前": by_kind(untrained, *exams["旧名字"]), "训练后": by_kind(model, *exams["旧名字"]),
          "训练后·新名字": by_kind(model, *exams["新名字"])}
print(f"{'种类':　<12}{'训练前':　>8}{'训练后':　>8}{'训练后·新名字':　>10}")
for kind in sorted(scores["训练后"], key=lambda k: scores["训练后"][k][0]):
    cells = [f"{scores[name][kind][0]:.1%}（{scores[name][kind][1]} 个）" if kind in scores[name] else "无" for name in scores]
    print(f"{kind:　<12}{'  '.join(cells)}")

# %% [markdown]
# 画出来。误差线是 95% 的二项区间半宽 $1.96\sqrt{p(1-p)/n}$：样本越少，越不该把小差别当真。

# %%
names = sorted(scores["训练后"], key=lambda k: scores["训练后"][k][0])
fig, ax = plt.subplots(figsize=(7.5, 3.6))
for n, (title, table) in enumerate(scores.items()):
    p = [table.get(name, (0, 1))[0] for name in names]
    error = [1.96 * (q * (1 - q) / table.get(name, (0, 1))[1]) ** 0.5 for q, name in zip(p, names, strict=True)]
    ax.barh([i + 0.27 * (n - 1) for i in range(len(names))], p, height=0.25, xerr=error, label=title, capsize=2)
ax.set_yticks(range(len(names)), names)
ax.legend(loc="lower right", facecolor="white", edgecolor="none")
_ = ax.set(title="被盖住的词元，猜对的比例", xlabel="准确率", xlim=(0, 1))

# %% [markdown]
# 名字见没见过，差多少？把专名单独记下来：要是写了两处的新名字也猜得对，它靠的就是照着另一处抄，而不是背。

# %%
for exam, title in (("训练后", "见过的名字"), ("训练后·新名字", "没见过的名字")):
    for kind in ("专名·写了两处", "专名·只有一处"):
        if kind in scores[exam]:
            lesson.record(f"{title}的准确率（{kind}）", scores[exam][kind][0])
copied, fresh = (scores["训练后·新名字"][kind][0] for kind in ("专名·写了两处", "专名·只有一处"))
assert preset.name == "smoke" or copied > fresh

# %% [markdown]
# 第 4 节摆好的抄写头，学会抄写了吗？同样的字写两遍，再量一次：第二遍的字，分给第一遍同一处的权重。

# %%
after_score = copy_score(model)
print("训练前：", [f"{x:.3f}" for x in start_score.tolist()])
print("训练后：", [f"{x:.3f}" for x in after_score.tolist()])
lesson.record("最强的抄写头分给上一遍同一处的权重（训练前）", start_score.max())
lesson.record("最强的抄写头分给上一遍同一处的权重（训练后）", after_score.max())
assert after_score.max() > 3 / T, "抄写头没有学会抄写"

# %% [markdown]
# 均匀地看只有 $1/T$。这一串字从来没有在语料里这样连着出现过，所以比 $1/T$ 高出许多的头，会的不是哪几个词，而是「抄」这个动作。
# 可别把功劳都记给训练：没练的时候它们就已经高了，起点是我们摆的。训练添了多少，还是反而磨掉了一些，比一比上面两行。
# [[attention_visualization]] 会把「摆好的」和「练出来的」分开算。
#
# ## 9 一个错误的配方：用 BertLMHeadModel 做 MLM
#
# 把模型类换成 `BertLMHeadModel`，其余照旧。它不报错（只提醒一句「add `is_decoder=True`」，下面先把提醒关掉），损失也会下降。
# 可是它在内部把标签错开了一位：位置 $i$ 的输出被要求说出 $i+1$ 处盖住的字，而 $i$ 自己的字明明看得见。
#
# 对的、错的各练一个，步数、数据、次序都一样。为了快，从这里到第 10 节只用体育类的导语，模型缩到 2 层 × 128 维，
# 练起来用 `utils.training.adapt`：与 `train` 相同，只是不画曲线、不存进度。每条另记下每个词元属于第几个词，第 10 节要用。

# %%
from dataclasses import replace
from utils.training import masking_collator, word_index

def with_words(text):
    """一条导语的编号，和每个词元属于第几个词（特殊词元是 −1）。"""
    ids = tokenizer(text)["input_ids"]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "length": len(ids), "words": [-1, *word_index(text), -1]}

sports = {split: corpus[split].filter(lambda c: c == "体育", input_columns="category")
          .map(with_words, input_columns="intro", remove_columns=corpus[split].column_names) for split in ("train", "validation")}
row, pieces = sports["train"][0], {}
for token, n in list(zip(tokenizer.convert_ids_to_tokens(row["input_ids"]), row["words"], strict=True))[1:-1]:
    pieces[n] = pieces.get(n, "") + token
print(f"{len(sports['train'])} 条，第一条的词：", " ".join(pieces.values()))

# %% [markdown]
# 练两个：

# %%
from transformers import BertLMHeadModel, logging
from utils.training import adapt

STEPS = 20 if preset.name == "smoke" else 250
small = replace(preset, layers=2, hidden=min(preset.hidden, 128), heads=4, batch_size=16)

def masking(words, rate, seed):
    return masking_collator(tokenizer, torch.Generator().manual_seed(seed), words, rate)

def pupil(kind=BertForMaskedLM, words=False, seed=0):
    torch.manual_seed(seed)
    model = prepare_heads(kind(bert_config(small, tokenizer))).to(device)
    model.loss_type = "ForCausalLM" if kind is BertLMHeadModel else "ForMaskedLM"
    return adapt(model, sports["train"], masking(words, preset.mask_rate, seed), STEPS, small, lesson.outputs / "trainer", seed)

logging.set_verbosity_error()
right, wrong = pupil(), pupil(BertLMHeadModel)
logging.set_verbosity_warning()

# %% [markdown]
# 拿来填空，再看看答案是不是报在了左边一位：

# %%
paper = fixed_batches(sports["validation"], masking(False, 0.15, lesson.seed), preset.eval_docs)

@torch.no_grad()
def accuracy_at(model, offset):
    hits = total = 0
    for batch in paper:
        logits = model(**{k: v.to(device) for k, v in batch.items() if k != "labels"}).logits.cpu()     # (B, T, V)
        rows, at = (batch["labels"] != -100).nonzero(as_tuple=True)
        hits += (logits[rows, at + offset].argmax(-1) == batch["labels"][rows, at]).sum().item()
        total += len(at)
    return hits / total

gold = torch.cat([b["labels"][b["labels"] != -100] for b in paper])
commonest = Counter(gold.tolist()).most_common(1)[0][1] / len(gold)
correct, here, left = accuracy_at(right, 0), accuracy_at(wrong, 0), accuracy_at(wrong, -1)
print(f"对的：{correct:.1%}；错的：盖住的位置 {here:.1%}，左边一位 {left:.1%}；总猜最常见的词元：{commonest:.1%}")
lesson.record(f"BertForMaskedLM 练 {STEPS} 步后，填空的准确率", correct)
lesson.record(f"BertLMHeadModel 练 {STEPS} 步后，填空的准确率", here)
assert preset.name == "smoke" or here < correct / 2

# %% [markdown]
# 先看错的那个和「总猜最常见的词元」差多少：差不多，就是还停在「只会猜字频」的地方；再看左边一位有没有高上去。病根在于，
# 要猜的字和能看的线索差了一位，摆好的头也对不上号。最难办的是没有任何报错，训练损失照样往下掉，只看损失，会以为一切正常。
#
# ## 10 一次盖一个字，还是一个词？
#
# [[objectives]] 讲过整词掩码：选中一个词，它的每个字都要猜（Cui 等，2021）。按字盖的（第 9 节已经练了一个）
# 和按词盖的，都盖 40%，练同样的步数，各换两个种子。
#
# 考卷也有两份，文档相同，都盖 15%：一份按字盖，一份按词盖。按字盖的时候，同一个词的另一个字多半还露在外面；
# 按词盖，整个词都不见了，占不到这个便宜。

# %%
papers = {"按字考": paper,
          "按词考": fixed_batches(sports["validation"], masking(True, 0.15, lesson.seed), preset.eval_docs)}
pupils = {"按字练": [right, pupil(seed=1)], "按词练": [pupil(words=True), pupil(words=True, seed=1)]}
losses = {(name, exam): [evaluate(one, batches, shift=False)[0] for one in both]
          for name, both in pupils.items() for exam, batches in papers.items()}

# %% [markdown]
# 每种做法画两个点（两个种子），短横是平均。看差别之前，先看同一种做法的两个点自己散得多开：比这还小的差别，不算数。

# %%
from statistics import mean
from utils.display import COLORS

fig, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True)
for ax, exam in zip(axes, papers, strict=True):
    for n, name in enumerate(pupils):
        ax.scatter([n, n], losses[name, exam], s=22, color=COLORS[n])
        ax.hlines(mean(losses[name, exam]), n - 0.25, n + 0.25, color=COLORS[6])
    ax.set_xticks(range(len(pupils)), list(pupils))
    ax.set(title=exam, xlim=(-0.6, 1.6))
_ = axes[0].set_ylabel("损失（奈特/目标词元）")

behind = {}
for exam in papers:
    by_char, by_word = losses["按字练", exam], losses["按词练", exam]
    behind[exam] = mean(by_word) - mean(by_char)
    clear = min(by_word) > max(by_char) or max(by_word) < min(by_char)
    print(f"{exam}：按字练 {mean(by_char):.3f}，按词练 {mean(by_word):.3f}，" + ("超过种子的起伏" if clear else "差别在种子的起伏之内"))
    lesson.record(f"{exam}：按词练比按字练损失高", behind[exam], "奈特/词元")
assert preset.name == "smoke" or behind["按字考"] > behind["按词考"], "换了考卷，差距应当变小"

# %% [markdown]
# 比一比「按词练比按字练损失高」的两个数。只看「按字考」的那个，会以为整词掩码就差这么多；「按词考」的那个要是小得多，就说明差出来的
# 大半是考卷的偏心：按词练的模型，从来没有练过「一个词露着半边」的题，考它没练过的，当然吃亏。
# **练什么，就会什么；用一种考卷比两种练法，先问一句考卷偏向谁。**
#
# 那为什么还有人用整词掩码？「露着半边」的题太容易，猜对它用不着懂上下文。Cui 等（2021）是在下游任务上比的：
# 微调之后，阅读理解 CMRC 2018 测试集的完全匹配（EM）从 70.0 升到 70.5。那是另一种考法，这里的几十秒说明不了它。
#
# 盖多少也可以这样比：盖得多，每条序列给的目标多，可看的上下文却少了。Wettig 等（2023）发现大模型盖到 40%，下游任务也能胜过 15%。
# 想自己量，把 `pupil` 里的 `preset.mask_rate` 换成 0.15，再考同样的两份卷子。
#
# ## 11 词向量的邻居
#
# 输入嵌入（embedding）是每个字的一个向量，训练前是随机的。练过之后，用法相近的字会挨到一起。
# 用余弦相似度 $\cos(u,v)=\dfrac{u\cdot v}{\lVert u\rVert\,\lVert v\rVert}$ 找最近的邻居：

# %%
E = torch.nn.functional.normalize(model.get_input_embeddings().weight.detach().cpu(), dim=-1)   # (V, C)

def neighbours(token, k=8):
    similarity = E @ E[tokenizer.convert_tokens_to_ids(token)]            # (V,)
    return [tokenizer.convert_ids_to_tokens(int(i)) for i in similarity.topk(k + 1).indices[1:]]

for token in "3王月。市":
    print(token, "→", " ".join(neighbours(token)))

# %% [markdown]
# 看看数字的邻居里有没有数字，姓的邻居里有没有姓。没有人告诉过模型什么是数字、什么是姓，它只是被迫猜了许多次空。
#
# 把这件事量一量：数字的近邻里，有几成是数字？若嵌入是随机的，期望只有「数字的个数 ÷ V」。

# %%
digits = [d for d in "0123456789" if d in tokenizer.get_vocab()]
share = sum(n in digits for d in digits for n in neighbours(d, 9)) / (9 * len(digits))
chance = (len(digits) - 1) / len(tokenizer)
print(f"随机嵌入的期望：{chance:.3f}")
lesson.record("数字的近邻里数字的比例", share)
assert share > 5 * chance, "数字没有聚到一起：嵌入还没有学到用法"

# %% [markdown]
# ## 12 存起来
#
# 权重存成 safetensors，分词器和它放在一起。[[clm_finetuning]] 会从这里接着练；你没跑过这一本，[[clm_finetuning]] 就用课程附带的检查点。

# %%
from utils.models import save_checkpoint

folder = save_checkpoint(model, tokenizer, lesson.outputs / "mlm",
                         {"steps": history.eval_steps[-1], "validation_nats": loss, "validation_accuracy": accuracy})
print("已存好：", "、".join(sorted(path.name for path in folder.iterdir())))

# %% [markdown]
# ## 小结
#
# - MLM：随机选 15% 的词元，80% 盖住、10% 换错、10% 不动，只在选中的位置算交叉熵。手写的和库的一致。
# - 损失要和参照比：低于一元模型，才说明学到了上下文。
# - 总准确率之下藏着很不一样的几类，要按种类分开数。专名写了两处的，可以照着另一处抄；只写一处的，只能猜。
# - 比两种做法：同样的时间，几个种子，不止一份考卷；差别大不过种子的起伏，就不下结论。
# - 嵌入没有被直接教过，用法相近的字（比如数字）却会挨到一起。
#
# **下一本**：[[attention_visualization]]，看看这个模型在看哪里；急着让它写文章，
# 直接去 [[clm_finetuning]]。
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import mlm_pretraining as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 填空的准确率**（★，5 分钟）写出被选中的位置上猜对的比例。`labels` 里没选中的位置是 −100。每一道题的分量相同。

# %% tags=["stub"]
def masked_accuracy(logits, labels):                                      # (B, T, V), (B, T)
    ...                                                                   # ← 换成你的代码，返回一个标量

# %% tags=["check"]
check.masked_accuracy(masked_accuracy)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def masked_accuracy(logits, labels):
#     at = labels != -100                                                 # (B, T)
#     return (logits.argmax(-1) == labels)[at].float().mean()
# ```
#
# 分母是题数，不是位置数，也不是篇数。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · 把损失读成人话**（★，3 分钟）某个模型的损失是 2.3 奈特/词元。平均来说，它相当于在多少个字里均匀地瞎猜？
# （这个数也叫困惑度，perplexity。）

# %% tags=["stub"]
my_choices = ...                              # ← 换成一个数，或一个算式

# %% tags=["check"]
check.effective_choices(my_choices)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import math
#
# my_choices = math.exp(2.3)
# ```
#
# 在 $n$ 个字里均匀地猜，损失是 $\ln n$，所以 $n=e^{2.3}$，差不多十个字。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 一元模型**（★★，8 分钟）第 5 节的一元模型直接用了现成的。自己写一遍：`train`、`test` 是编号的列表，`V` 是词表大小；
# 训练集里每个字多数一次（加一平滑），返回考卷上的平均损失（奈特）。

# %% tags=["stub"]
def unigram_loss(train, test, V):
    ...                                       # ← 换成你的代码，返回一个数

# %% tags=["check"]
check.unigram_loss(unigram_loss)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import math
# from collections import Counter
#
# def unigram_loss(train, test, V):
#     counts, total = Counter(train), len(train) + V
#     return sum(-math.log((counts[i] + 1) / total) for i in test) / len(test)
# ```
#
# 词表里的 `V` 个字各多数一次，所以总数要加 `V`，概率加起来才是 1。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · 学习率怎样变**（★★，8 分钟）写出第 `step` 步的学习率：先用 `warmup` 步从 0 线性升到 `peak`，
# 再线性降到第 `total` 步的 0。（`warmup` 至少是 1，小于 `total`。）

# %% tags=["stub"]
def learning_rate(step, total, warmup, peak):
    ...                                       # ← 换成你的代码，返回一个数

# %% tags=["check"]
check.learning_rate(learning_rate)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def learning_rate(step, total, warmup, peak):
#     if step < warmup:
#         return peak * step / warmup
#     return peak * (total - step) / (total - warmup)
# ```
#
# 两段直线要在 `step = warmup` 处接得上：都等于 `peak`。库里叫 `get_linear_schedule_with_warmup`，检查就是拿它来对的。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 白算了几成**（★★，8 分钟）`lengths` 是各篇的长度，按给定的次序每 `batch_size` 篇一批（最后一批可以不满），
# 每批补到**这一批**最长的那么长。填充占算过的全部位置的几成？写好之后，拿第 2 节的长度试试：打乱的和排过序的差多少？

# %% tags=["stub"]
def padding_share(lengths, batch_size):
    ...                                       # ← 换成你的代码，返回 0 到 1 之间的数

# %% tags=["check"]
check.padding_share(padding_share)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def padding_share(lengths, batch_size):
#     batches = [lengths[i:i + batch_size] for i in range(0, len(lengths), batch_size)]
#     computed = sum(max(batch) * len(batch) for batch in batches)
#     return 1 - sum(lengths) / computed
# ```
#
# 试一试：
#
# ```python
# lengths = encoded["train"]["length"][:]
# print(padding_share(lengths, preset.batch_size), padding_share(sorted(lengths), preset.batch_size))
# ```
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 找错**（★★，5 分钟）有人漏写了 `labels[~chosen] = -100`：没选中的位置，标签就是原来的字。会怎样？
#
# - A　损失变高：要猜的位置多了好几倍，题目更难。
# - B　只是算得慢一些，学到的一样。
# - C　损失低得可疑：大多数位置照抄输入就行，填空反而学得慢。
# - D　损失变低，填空也学得更快：每条序列给的题更多。

# %% tags=["stub"]
my_choice = ...                               # ← 换成 "A"、"B"、"C"、"D" 之一

# %% tags=["check"]
check.copied(my_choice)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_choice = "C"
# ```
#
# 85% 的位置没有被盖，答案就在输入里，照抄即可。模型把力气花在照抄上，填空反而学得慢。
# 「损失低」不等于「学得好」，先问一句：它在算哪些位置？
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 7 · 解释一幅图**（★★，5 分钟）把训练的遮盖率提到 60%，验证仍按 15% 遮。画出来，训练损失的线始终在验证损失的线**上面**。这说明什么？
#
# - A　模型欠拟合，要再练久一点。
# - B　什么也说明不了：两条线的考卷不同，遮六成的本来就难。
# - C　验证集混进了训练集。
# - D　遮得越少学得越好，训练也该用 15%。

# %% tags=["stub"]
my_reading = ...                              # ← 换成 "A"、"B"、"C"、"D" 之一

# %% tags=["check"]
check.fixed_exam(my_reading)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_reading = "B"
# ```
#
# 一条序列给出的目标多了，可看的上下文却只剩四成：很多字从残缺的上下文里根本推不出来，训练损失当然高。
# 要比两种遮盖率，得让两个模型考同一张卷子，像第 10 节比两种练法那样。
#
# </details>

# %% [markdown]
# **想一想 · 改一个实验**（★★，8 分钟）只用导语、不用正文训练（`encode_docs` 之后截断到第一个 `[SEP]`），
# 「专名·写了两处」这一类的准确率会怎样？为什么？
#
# <details><summary>参考答案</summary>
#
# 只读导语的模型没见过「后文重复前文」这种结构，也就没有理由学会回头找；这一类多半会跌到和「专名·只有一处」差不多。
# 真是这样的话，能力就来自数据里的结构，不是来自模型的形状。
#
# </details>
#
# ## 延伸阅读
#
# - Devlin, Chang, Lee, Toutanova（2019）BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding.
# - Cui, Che, Liu, Qin, Yang（2021）Pre-Training with Whole Word Masking for Chinese BERT.
# - Olsson, Elhage, Nanda 等（2022）In-context Learning and Induction Heads.
# - Trockman, Kolter（2023）Mimetic Initialization of Self-Attention Layers.
# - Wettig, Gao, Zhong, Chen（2023）Should You Mask 15% in Masked Language Modeling?
