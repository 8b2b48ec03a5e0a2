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
# # 生成
#
# **这一本只回答一个问题：怎样把概率变成文章？**
#
# [[clm_finetuning]] 里练好的模型，其实一个字也不会「写」。你给它一段文字，它只会告诉你：下一个位置上，
# 词表里每个字的概率各是多少。
# 从这张概率表到一篇文章，中间还隔着许多选择：选最可能的字，还是碰碰运气？运气碰到什么程度？什么时候停？
#
# **学习目标**
#
# 1. 会用链式法则算一篇文章的概率，知道每个字贡献了多少「意外」。
# 2. 亲手写出贪心、温度、top-k、top-p、min-p、束搜索、重复惩罚和禁止重复的 n 元组，并与 transformers 逐项比对：
#    不随机的逐字相等，随机的频率相符。
# 3. 说得清 KV 缓存（KV cache）为什么不改变结果，又为什么快，快多少；成批写时为什么要左填充。
# 4. 会挑尺子：损失、多样、相似、重复、新颖、忠实，各量出了什么，又漏了什么。
#
# **先修**：[[self_attention]]（自注意力）、[[clm_finetuning]]（从导语写正文）。
#
# **用时**：两核 CPU 约 2 分钟，GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("generation")               # 换预设：start("generation", preset="smoke")

# %% [markdown]
# 先把 [[clm_finetuning]] 的模型请来。你自己练过，就用你的；没有练过，就用课程附带的。下面会说明用的是哪一个。
# 自己练过，却想用附带的：给 `load_checkpoint` 加上 `prefer="shipped"`。自己练的多半弱得多，名字常抄错，后面有些数会难看，
# 道理是一样的：凡是读数的话，都对着你自己打印出来的数看。第 10 节和第 14 节的写作台用附带的。
# 写作时一步只算一个字，计算量小得很，多个 CPU 线程反而要互相等待，所以只用一个线程（第 8 节计时的时候再放开）。

# %%
import torch
from transformers import BertLMHeadModel
from utils.models import load_checkpoint

model, tokenizer, source = load_checkpoint("clm", BertLMHeadModel, preset=lesson.preset, is_decoder=True)
model = model.to(lesson.device)
model.loss_type = "ForCausalLM"                # 第 1 节要用它算损失；不写明，库会先警告再猜
threads = torch.get_num_threads()
torch.set_num_threads(1)
print(source)

# %% [markdown]
# 再准备一批模型没见过的导语。测试集与训练集出自同一套语法，但用的是另一串随机数。
# `smoke` 预设只为检查代码能不能跑，所以篇数少。

# %%
from utils.corpus import load_corpus

smoke = lesson.preset.name == "smoke"
corpus = load_corpus("bundled", n_docs=lesson.preset.n_docs)
test = corpus["test"]
n_held, n_curve = (8, 6) if smoke else (96, 64)
intros, bodies = test["intro"][:n_held], test["body"][:n_held]
print(intros[0], "\n→", bodies[0])

# %% [markdown]
# ## 1 链式法则：一篇文章的概率
#
# 语言模型从左往右写。整篇正文 $x_1,\dots,x_T$ 的概率，等于每一步概率的连乘；取对数，就成了连加：
#
# $$P(x_1,\dots,x_T\mid c)=\prod_{t=1}^{T}P(x_t\mid c,x_{<t}),\qquad
# -\log P=\sum_{t=1}^{T}-\log P(x_t\mid c,x_{<t})$$
#
# 其中 $c$ 是导语。模型读一遍 `[CLS] 导语 [SEP] 正文 [SEP]`，位置 $t-1$ 上的 logits 就是对第 $t$ 个字的预测，
# 所以取概率时要错开一位。

# %%
from utils.tokenization import encode_pair

pair = encode_pair(tokenizer, intros[0], bodies[0], model.config.max_position_embeddings)
ids = torch.tensor([pair["input_ids"]], device=lesson.device)         # (1, T)
start_at = pair["prompt_len"]
with torch.no_grad():
    log_p = model(input_ids=ids).logits.log_softmax(-1)               # (1, T, V)
surprise = -log_p[0, start_at - 1:-1].gather(1, ids[0, start_at:, None])[:, 0].cpu()   # 每个字的 -log P
print("前 8 个字：", [(tokenizer.decode(i), f"P={p:.3f}") for i, p in
                   zip(ids[0, start_at:start_at + 8].tolist(), (-surprise).exp().tolist())])

# %% [markdown]
# 把这些 $-\log P$ 加起来，就是整篇正文的信息量。语料是由语法生成的，每篇真正的信息量算得出来
# （`nats_body` 一列）。对单独一篇，模型的值可以偏大也可以偏小；对许多篇求平均，它不会低于真值，
# 这就是 [[clm_finetuning]] 里的「下限」。

# %%
total = surprise.sum().item()
print(f"模型：{total:.1f} 奈特；语法的真值：{test['nats_body'][0]:.1f} 奈特；每字 {surprise.mean():.3f} 奈特")
labels = ids.clone()
labels[:, :start_at] = -100                                           # 与 [[clm_finetuning]] 相同：导语不算损失
with torch.no_grad():
    loss = model(input_ids=ids, labels=labels).loss.cpu()             # 库算的平均损失
torch.testing.assert_close(surprise.mean(), loss, atol=1e-4, rtol=1e-4)

# %% [markdown]
# 手算的平均值与库给出的损失相等。再画出来看：哪些字让模型意外？

# %%
import matplotlib.pyplot as plt

shown = min(44, len(surprise))
names = [tokenizer.decode(i) if i != tokenizer.sep_token_id else "完" for i in ids[0, start_at:].tolist()]
fig, ax = plt.subplots(figsize=(9, 2.8))
ax.bar(range(shown), surprise[:shown])
ax.set_xticks(range(shown), names[:shown], fontsize=9)
ax.set(title="正文里每个字有多意外（前几十个字）", xlabel="正文的字", ylabel="−log P（奈特）")
plt.show()

# %% [markdown]
# 高的柱子，有的是「岔路口」：语法在那里真的做了选择，谁也猜不准；有的只是模型没学会，比如导语里写着、照抄就行的字
# （模型越弱，这样的越多）。低的柱子是「直道」：词语的后半截、套话，以及它抄得准的事实。
# **怎样在岔路口选字，就是这一本的全部内容。**
#
# ## 2 贪心：总选最可能的字
#
# 最省事的办法是贪心（greedy）：每一步都选概率最大的字。
#
# $$x_t=\arg\max_{v}P(v\mid c,x_{<t})$$
#
# 写成循环只有几行：读一遍，选一个，接上去，再读一遍，直到选中 `[SEP]`。

# %%
from utils.generation import encode_prompt

def greedy(prompt, steps):
    ids = torch.tensor([prompt], device=lesson.device)                # (1, T)
    for _ in range(steps):
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, -1]               # (1, V)
        ids = torch.cat([ids, logits.argmax(-1)[:, None]], dim=1)     # (1, T+1)
        if ids[0, -1] == tokenizer.sep_token_id:
            break
    return ids[0, len(prompt):].tolist()

# %% [markdown]
# 提示是 `[CLS] 导语 [SEP]`。末尾的 `[SEP]` 只说明「导语到此为止」，不会让循环停下；
# 让循环停下的，是模型自己写出的下一个 `[SEP]`。

# %%
steps = 60 if smoke else 150
prompt = encode_prompt(tokenizer, intros[0], "")
mine = greedy(prompt, steps)
print(tokenizer.decode(mine))

# %% [markdown]
# 现在与 transformers 的 `generate` 比，要逐字相等。有两个参数一定要自己传：`eos_token_id`（写到哪个词元算完）和
# `pad_token_id`。BERT 的配置里没有「结束」这个概念，不传的话它永远不会停。

# %%
options = dict(eos_token_id=tokenizer.sep_token_id, pad_token_id=tokenizer.pad_token_id)
prompt_ids = torch.tensor([prompt], device=lesson.device)
with torch.no_grad():
    theirs = model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids), do_sample=False,
                            max_new_tokens=steps, **options)
assert theirs[0, len(prompt):].tolist() == mine
print("逐字相等，共", len(mine), "个词元")

# %% [markdown]
# ### 什么时候停
#
# 模型不知道什么叫「写完了」，它只是在某一步把最大的概率给了 `[SEP]`；停下来，是循环替它做的。停下的理由有三种：
# 写出了 `[SEP]`；写够了 `max_new_tokens`；位置编号用完了。
# 先看不管第一种会怎样：`generate` 少传一个 `eos_token_id`，前面一字不差，写完了却还往下写。

# %%
with torch.no_grad():
    endless = model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids), do_sample=False,
                             max_new_tokens=len(mine) + 20, pad_token_id=tokenizer.pad_token_id)
endless = endless[0, len(prompt):].tolist()
assert endless[:len(mine)] == mine
print("写完之后又写了：", tokenizer.decode(endless[len(mine):]))

# %% [markdown]
# 反过来，也可以不许它早停：`min_new_tokens` 个词元之前把 `[SEP]` 的 logit 设成 $-\infty$。
# 后两种停法课程的 `generate` 都管，放不下时说得清楚，不会写到一半才出错。这个函数就是上面的循环，
# 再加上后面几节要讲的东西。

# %%
from utils.generation import generate

print(generate(model, tokenizer, intros[:1], max_new_tokens=6))
assert generate(model, tokenizer, intros[:1], max_new_tokens=steps)[0] == tokenizer.decode(mine, skip_special_tokens=True)
try:
    generate(model, tokenizer, intros[:1], max_new_tokens=10_000)
except ValueError as problem:
    print(problem)

# %% [markdown]
# 贪心没有随机性：同一条导语，永远写出同一篇。对天气预报这也许够了；可要是请它写一百篇，它就给你一百篇一模一样的。
#
# ## 3 温度：把分布变尖或变平
#
# 换一个思路：按概率抽签。抽之前先用温度（temperature）$\tau$ 调一调分布：
#
# $$q_i=\frac{\exp(z_i/\tau)}{\sum_j\exp(z_j/\tau)}$$
#
# $z$ 是 logits。$\tau=1$ 是模型原来的分布；$\tau\to 0$ 时只剩最大的那个，变回贪心；$\tau$ 越大越平，
# 直到人人有份。
# 先找一个岔路口：贪心写的这一篇里，熵（entropy）最大、模型最拿不准的那一步。

# %%
written = torch.tensor([prompt + mine], device=lesson.device)
with torch.no_grad():
    logits = model(input_ids=written).logits[0, len(prompt) - 1:-1].cpu()       # (T, V)：每一步的 logits
p = logits.softmax(-1)
entropy = -(p * p.clamp_min(1e-12).log()).sum(-1)                               # (T,)
fork = int(entropy.argmax())
print(f"第 {fork + 1} 步的熵最大：{entropy[fork]:.2f} 奈特。前文是：…{tokenizer.decode(mine[:fork])[-16:]}")

# %% [markdown]
# 在这一步上试几个温度。先确认手写的除法与库的 `TemperatureLogitsWarper` 相等，再画图。

# %%
from transformers import TemperatureLogitsWarper

for tau in (0.3, 0.7, 1.5):
    torch.testing.assert_close(logits / tau, TemperatureLogitsWarper(tau)(None, logits))
top = logits[fork].topk(10).indices
candidates = ["完" if i == tokenizer.sep_token_id else tokenizer.decode(i) for i in top.tolist()]
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6), sharey=True)
for ax, tau in zip(axes, (0.3, 0.7, 1.0, 2.0)):
    ax.bar(candidates, (logits[fork] / tau).softmax(-1)[top])
    ax.set(title=f"τ = {tau}", xlabel="候选字")
axes[0].set_ylabel("概率")
plt.show()

# %% [markdown]
# 字的名次从不改变，变的只是差距。τ 越小，越接近贪心；τ 越大，这十个字合起来占的份额越少，
# 剩下的都流到词表的长尾里去了。
#
# ## 4 长尾：为什么还要 top-k、top-p 和 min-p
#
# 长尾里的每个字概率都小得可怜，可是它们数量多。一步走错的机会不大，写一百步呢？下面量一量：
# 每一步「抽到前 10 名以外」的概率是多少，整篇至少抽中一次的概率又是多少。
#
# $$P(\text{至少一次})=1-\prod_{t}(1-\text{tail}_t)$$

# %%
def tail_risk(tau, keep=10):
    tail = 1 - (logits / tau).softmax(-1).topk(keep).values.sum(-1)             # (T,)
    return tail.mean().item(), 1 - (1 - tail.clamp(0, 1)).prod().item()

for tau in (0.7, 1.0, 1.3):
    per_step, per_text = tail_risk(tau)
    print(f"τ = {tau}：平均每步 {per_step:.2%}，这一篇（{len(logits)} 步）至少一次 {per_text:.1%}")

# %% [markdown]
# 一步里不起眼的小尾巴，乘上步数就不再不起眼。10 名以外不全是错字（岔路口上，合理的人名就不止 10 个），可是最离谱的字都在那里
# （弱的模型，前 10 名里也有错字，那是剪尾巴治不了的）；而一旦写错一个字，后面的字都要以它为前提，很难拉回来。
# 所以抽签之前先把尾巴剪掉。
#
# **top-k**（Fan 等，2018）：只留 logit 最大的 $k$ 个，其余设成 $-\infty$，softmax 之后就是 0。

# %%
from transformers import TopKLogitsWarper

def top_k(logits, k):
    least = logits.topk(k).values[..., -1:]                                     # (T, 1)：第 k 名的分数
    return logits.masked_fill(logits < least, float("-inf"))

torch.testing.assert_close(top_k(logits, 5), TopKLogitsWarper(5)(None, logits))

# %% [markdown]
# top-k 的毛病是 $k$ 不会看场合：直道上只有一个字合理，它也要凑够 $k$ 个；岔路口有三十个字合理，它也只给 $k$ 个。
#
# **top-p**，也叫核采样（nucleus sampling；Holtzman 等，2020）：按概率从大到小排，留下累计概率刚达到 $p$ 的最少几个。
# 换个说法：从小到大累加，合计不超过 $1-p$ 的那一截尾巴剪掉。

# %%
from transformers import TopPLogitsWarper

def top_p(logits, p):
    ordered, index = logits.sort(dim=-1)                                        # 从小到大
    tail = ordered.softmax(-1).cumsum(-1) <= 1 - p                              # (T, V)
    tail[..., -1] = False                                                       # 第一名总要留下
    remove = torch.zeros_like(tail).scatter(-1, index, tail)                    # 放回原来的次序
    return logits.masked_fill(remove, float("-inf"))

torch.testing.assert_close(top_p(logits, 0.9), TopPLogitsWarper(0.9)(None, logits))

# %% [markdown]
# **min-p**（Nguyen 等，2025）换了一个看场合的办法：门槛是「第一名的概率 × $m$」，不到门槛的剪掉。
# 第一名很有把握时门槛高，谁也没把握时门槛低。

# %%
from transformers import MinPLogitsWarper

def min_p(logits, m):
    p = logits.softmax(-1)                                                      # (T, V)
    return logits.masked_fill(p < m * p.amax(-1, keepdim=True), float("-inf"))

torch.testing.assert_close(min_p(logits, 0.1), MinPLogitsWarper(0.1)(None, logits))

# %% [markdown]
# 三者都与库相等。画出每一步各留下几个字，差别一目了然。

# %%
kept = {"top-k，k = 5": top_k(logits, 5), "top-p，p = 0.95": top_p(logits, 0.95), "min-p，m = 0.1": min_p(logits, 0.1)}
fig, ax = plt.subplots(figsize=(9, 2.6))
for name, filtered in kept.items():
    ax.step(range(1, len(logits) + 1), filtered.isfinite().sum(-1), where="mid", label=name)
ax.set(title="每一步留下几个候选", xlabel="第几步", ylabel="候选数（个）", yscale="log")
ax.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22))
plt.show()

# %% [markdown]
# top-k 永远是五个；top-p 和 min-p 看场合：越有把握，留得越少，在岔路口自动放宽。温度一高，分布变平，这两个各放宽多少？

# %%
for tau in (1.0, 1.5, 2.0):
    many = {"top-p": top_p(logits / tau, 0.95), "min-p": min_p(logits / tau, 0.1)}
    print(f"τ = {tau}：" + "，".join(f"{name} 平均留下 {x.isfinite().sum(-1).float().mean():.1f} 个" for name, x in many.items()))

# %% [markdown]
# top-p 数的是「凑够 95% 要几个」，尾巴变胖，它就跟着放人进来；min-p 只与第一名比，放宽得慢。
#
# ## 5 抽样：真的是按概率抽的吗
#
# 抽签的做法（逆变换抽样）：把 $[0,1)$ 按概率切成 $V$ 段，丢一个均匀随机数进去，落在哪段就选哪个字。
# 程序对不对，不能看一两次，要看频率。抽两万次，与理论概率比；用卡方统计量判断差距是不是偶然：
#
# $$\chi^2=\sum_i\frac{(O_i-E_i)^2}{E_i}$$
#
# $O_i$ 是抽中的次数，$E_i$ 是期望次数。

# %%
def sample(logits, u):
    edges = logits.double().softmax(-1).cumsum(-1)                              # (V,)：各段的右端
    return torch.searchsorted(edges, u * edges[-1], right=True)

n = 20_000
chosen = top_p(logits[fork:fork + 1], 0.95)[0]                                  # (V,)
u = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
observed = torch.bincount(sample(chosen, u), minlength=len(chosen))
expected = n * chosen.double().softmax(-1)

# %% [markdown]
# 被剪掉的字一次也不应该抽中。期望次数太少（不到 5）的字并成一组，卡方检验才可靠；
# 显著性取万分之一，程序正确时，一万次里约有一次会误报（这里种子固定，不会时好时坏）。

# %%
def chi_square(observed, expected):
    assert observed[expected == 0].sum() == 0
    rare = expected < 5
    o = torch.cat([observed[~rare], observed[rare].sum()[None]]).double()
    e = torch.cat([expected[~rare], expected[rare].sum()[None]])
    o, e = o[e > 1e-6], e[e > 1e-6]
    chi2, freedom = ((o - e) ** 2 / e).sum(), len(o) - 1
    tail = torch.special.gammaincc(torch.tensor(freedom / 2).double(), chi2 / 2)  # 纯属偶然时，χ² 这么大的概率
    return chi2.item(), freedom, tail.item() if freedom else 1.0

chi2, freedom, tail = chi_square(observed, expected)
print(f"χ² = {chi2:.1f}，自由度 {freedom}；纯属偶然时，至少这么大的概率是 {tail:.3f}")
assert tail > 1e-4

# %% [markdown]
# 抽样是对的。`utils.generation.decoding` 里的 `sample_next` 用的是同一个办法，只是一次算一批。
#
# 库的 `generate` 抽出来的，频率也与我们手写的分布相符吗？让它从「今天是个」接着抽一个字，
# 四种设置各抽几千次，用同一个检验。提示短，抽得就快。

# %%
begin = torch.tensor([encode_prompt(tokenizer, "今天是个")], device=lesson.device)      # (1, T)：[CLS] 今天是个
n = 500 if smoke else 3000

def library_draws(**how):
    with torch.no_grad():
        out = model.generate(begin, attention_mask=torch.ones_like(begin), do_sample=True, max_new_tokens=1,
                             num_return_sequences=n, **({"top_k": 0} | how), **options)
    return torch.bincount(out[:, -1].cpu(), minlength=logits.size(1))

with torch.no_grad():
    z = model(input_ids=begin).logits[:, -1].cpu()                              # (1, V)

# %% [markdown]
# 左边是交给库的参数，右边是手写的分布。（`top_k=0` 表示不用 top-k；库不写的话默认是 50，这个默认值坑过许多人。）

# %%
settings = [(dict(temperature=0.7), z / 0.7), (dict(top_k=5), top_k(z, 5)), (dict(top_p=0.8), top_p(z, 0.8)),
            (dict(temperature=1.5, min_p=0.1), min_p(z / 1.5, 0.1))]
for how, by_hand in settings:
    chi2, freedom, tail = chi_square(library_draws(**how), n * by_hand[0].double().softmax(-1))
    print(f"{how}：χ² = {chi2:.1f}，自由度 {freedom}，概率 {tail:.3f}")
    assert tail > 1e-4

# %% [markdown]
# 四种设置都相符。参数若错一点，检验看得出来吗？把 τ = 1 抽的样本，当成 τ = 0.7 的来检验：

# %%
tail = chi_square(library_draws(temperature=1.0, top_k=20), n * top_k(z / 0.7, 20)[0].double().softmax(-1))[2]
print(f"概率 {tail:.1g}：", "看得出来。" if tail < 0.01 else "这一次没看出来，抽得还不够多。")

# %% [markdown]
# ## 6 束搜索：向前多看几步
#
# 贪心每步只顾眼前。束搜索（beam search）同时保留 $W$ 个总对数概率最高的半成品（$W$ 叫束宽，代码里的 `width`），每一步把它们都展开，
# 再从中挑出最好的 $W$ 个。
#
# 麻烦在于有的束先写完。对数概率都是负数，越写越低，直接比总分，短文章总占便宜。所以写完的按长度折算：
#
# $$\text{分数}=\frac{\sum_{t=1}^{T}\log P(x_t\mid c,x_{<t})}{T^{\alpha}}$$
#
# $\alpha$ 叫长度惩罚（length penalty）：$\alpha=0$ 不折算；$\alpha$ 越大，越偏爱长文章。
# 写完的收进 `done`，只留分数最高的 $W$ 篇；没写完的里面最好的那一束，折算后也赢不了 `done` 里最差的一篇，就收工。
# 每步取 $2W$ 个候选，这样即使有 $W$ 个写完了，也还有 $W$ 个能接着写。

# %%
sep = tokenizer.sep_token_id

def beam_search(prompt, width, steps, alpha=1.0):
    beams, scores, done = [[]], torch.zeros(1), []                              # 半成品、它们的总对数概率、写完的
    for length in range(1, steps + 1):
        ids = torch.tensor([prompt + b for b in beams], device=lesson.device)   # (B, T)
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[:, -1].log_softmax(-1).cpu()    # (B, V)
        best, V = (log_p + scores[:, None]).flatten().topk(2 * width), log_p.size(1)
        grown = [(s, beams[i // V] + [i % V]) for s, i in zip(best.values.tolist(), best.indices.tolist())]
        ended = [b[-1] == sep or length == steps for _, b in grown]
        done += [(s / length ** alpha, b) for (s, b), end in zip(grown[:width], ended) if end]
        done = sorted(done, reverse=True)[:width]
        alive = [pair for pair, end in zip(grown, ended) if not end][:width]
        if not alive or len(done) == width and done[-1][0] >= alive[0][0] / length ** alpha:
            break
        beams, scores = [b for _, b in alive], torch.tensor([s for s, _ in alive])
    return done[0][1]

# %% [markdown]
# 换几个 $\alpha$，与库的 `num_beams=4` 比，都要逐字相等。顺便看看各写了多长、总对数概率多大。

# %%
def log_prob(body):
    ids = torch.tensor([prompt + body], device=lesson.device)
    with torch.no_grad():
        log_p = model(input_ids=ids).logits[0, len(prompt) - 1:-1].log_softmax(-1)      # (T, V)
    return log_p.gather(1, ids[0, len(prompt):, None]).sum().item()

print(f"贪心：{len(mine)} 个词元，总对数概率 {log_prob(mine):.2f} 奈特")
for alpha in (0.0, 1.0) if smoke else (0.0, 1.0, 2.0):
    far = beam_search(prompt, 4, steps, alpha)
    with torch.no_grad():
        theirs = model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids), do_sample=False, num_beams=4,
                                length_penalty=alpha, max_new_tokens=steps, **options)
    assert theirs[0, len(prompt):].tolist() == far
    print(f"束宽 4，α = {alpha}：{len(far)} 个词元，总对数概率 {log_prob(far):.2f} 奈特")

# %% [markdown]
# 三点留意：贪心是束宽 1；束宽大了，总对数概率多半更高，却不保证，因为它也会中途丢掉后来居上的；
# $\alpha$ 越大，越偏爱长的。
# `generate(..., strategy="beam", length_penalty=…)` 是同样的规则，加上第 8 节的缓存。
#
# 概率最高的文章，就是最好的文章吗？量一量：同样的导语，真正文与贪心正文，在模型眼里平均每个字有多意外。

# %%
from utils.generation import body_bits_per_char

greedy_bodies = generate(model, tokenizer, intros)
bpc_real = body_bits_per_char(model, tokenizer, intros, bodies)
bpc_greedy = body_bits_per_char(model, tokenizer, intros, [b or "。" for b in greedy_bodies])
print(f"真正文 {bpc_real:.3f} 比特/字；贪心写的 {bpc_greedy:.3f} 比特/字")
assert smoke or bpc_greedy < bpc_real
lesson.record("真正文的 BPC", bpc_real, "比特/字")

# %% [markdown]
# 平均起来，贪心写的比真正文更在模型意料之中；人写的（这里是语法写的）却总有意外。**好文章不是概率最大的文章**，
# 这正是 Holtzman 等（2020）反对用束搜索写开放式文本的理由。翻译、摘要那种「标准答案」明确的任务，
# 束搜索仍然好用。
#
# ## 7 重复，以及惩罚它的代价
#
# 用贪心写长文，模型容易原地打转（我们的会不会，这一节末尾量）。重复惩罚（repetition penalty；Keskar 等，2019）把出现过的字压低：
#
# $$z_i'=\begin{cases}z_i/\theta & z_i>0\\ z_i\cdot\theta & z_i\le 0\end{cases}\qquad i\text{ 已出现过},
# \ \theta>1$$

# %%
from transformers import RepetitionPenaltyLogitsProcessor

def penalize(logits, seen, theta):
    lowered = torch.where(logits > 0, logits / theta, logits * theta)
    return torch.where(seen, lowered, logits)

row = logits[fork:fork + 1]                                                     # (1, V)
history = torch.tensor([prompt + mine[:fork]])                                  # (1, T)
seen = torch.zeros_like(row, dtype=torch.bool).scatter(1, history, True)        # (1, V)
library = RepetitionPenaltyLogitsProcessor(1.3)(history, row.clone())
torch.testing.assert_close(penalize(row, seen, 1.3), library)

# %% [markdown]
# **禁止重复的 n 元组**（no-repeat n-gram；Paulus 等，2018）更干脆：凡是会凑成一个已经出现过的 $n$ 元组的字，一律不许写。

# %%
from transformers import NoRepeatNGramLogitsProcessor

def banned_tokens(ids, n):
    last = tuple(ids[len(ids) - n + 1:])                                        # 刚写的 n-1 个
    return [ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i:i + n - 1]) == last]

ids_now = prompt + mine[:fork]
by_hand = row.clone()
by_hand[0, banned_tokens(ids_now, 2)] = float("-inf")
torch.testing.assert_close(by_hand, NoRepeatNGramLogitsProcessor(2)(torch.tensor([ids_now]), row.clone()))
print("这一步不许写：", tokenizer.convert_ids_to_tokens(sorted(set(banned_tokens(ids_now, 2)))) or "没有")

# %% [markdown]
# 单看一步都相等。再把它们放进第 2 节的循环，整篇也要与 `generate` 逐字相等。

# %%
def greedy_with(change, prompt, steps):
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids], device=lesson.device)).logits[:, -1].cpu()     # (1, V)
        ids.append(change(logits, ids).argmax().item())
        if ids[-1] == sep:
            break
    return ids[len(prompt):]

def punish(logits, ids):
    return penalize(logits, torch.zeros_like(logits, dtype=torch.bool).scatter(1, torch.tensor([ids]), True), 1.3)

def forbid(logits, ids):
    logits[0, banned_tokens(ids, 3)] = float("-inf")
    return logits

# %% [markdown]
# 左边是手写的改法，右边是库的参数：

# %%
for name, change, how in [("重复惩罚 1.3", punish, dict(repetition_penalty=1.3)),
                          ("禁止重复的三元组", forbid, dict(no_repeat_ngram_size=3))]:
    with torch.no_grad():
        theirs = model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids), do_sample=False,
                                max_new_tokens=steps, **how, **options)
    changed = greedy_with(change, prompt, steps)
    assert theirs[0, len(prompt):].tolist() == changed
    print(f"{name}：{tokenizer.decode(changed, skip_special_tokens=True)}")

# %% [markdown]
# 注意「出现过」也包括导语里的字。可我们的任务恰恰要求把导语里的地名、数字再写一遍！量一量代价：
# `repetition` 是一篇之内重复的四字组的比例，`faithful` 是没写错也没遗漏事实的文章的比例。

# %%
from utils.generation import fidelity, repetition

few = intros[:n_curve]
cures = {"什么也不加": {}, "θ = 1.2": dict(repetition_penalty=1.2), "θ = 1.5": dict(repetition_penalty=1.5),
         "n = 4": dict(no_repeat_ngram=4), "n = 3": dict(no_repeat_ngram=3), "n = 2": dict(no_repeat_ngram=2)}
cured = {name: generate(model, tokenizer, few, **how) for name, how in cures.items()}
print(f"真正文：重复 {repetition(bodies[:n_curve]):.3f}")
for name, texts in cured.items():
    print(f"{name}：重复 {repetition(texts):.3f}，忠实 {fidelity(few, texts).faithful:.2f}")

# %% [markdown]
# 药有没有用，让代码来说：

# %%
plain, strong = (fidelity(few, cured[name]).faithful for name in ("什么也不加", "θ = 1.5"))
print("重复惩罚的代价：忠实度从", f"{plain:.2f} 变成 {strong:.2f}，", "该照抄的抄不出来了。" if strong < plain else "这一次没有伤到。")
ill = repetition(cured["什么也不加"]) > repetition(bodies[:n_curve]) + 0.02
print("不加药的时候，模型比真正文", "啰嗦得多，值得治。" if ill else "并不啰嗦，没有病可治。")

# %% [markdown]
# 导语里的城市、人名、数字也一并受罚，这是这类办法的通病：它分不清「啰嗦」和「照应」。
#
# ## 8 KV 缓存：读过的字不再读
#
# 上面的循环每写一个字，都把前文从头重算一遍。其实没有必要：因果掩码（causal mask）之下，
# 第 $t$ 个位置的键 $k_t$ 和值 $v_t$ 只取决于它和它之前的字，**后面再写什么都不会改变它们**。
# 算过一次就存起来，这就是 KV 缓存。先用模型第 0 层的真实权重看一看。

# %%
attention = model.bert.encoder.layer[0].attention.self
with torch.no_grad():
    x = model.bert.embeddings(input_ids=ids[:, :40])                            # (1, T, d_model)
    shape = (*x.shape[:2], model.config.num_attention_heads, -1)
    q, k, v = (f(x).view(shape).transpose(1, 2)                                 # 各 (1, H, T, D)
               for f in (attention.query, attention.key, attention.value))
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)   # (1, H, T, D)

# %% [markdown]
# 这是一次算完的结果。再一个字一个字地来：每步只算新字的 $q_t,k_t,v_t$，把 $k_t,v_t$ 接到缓存后面，
# 新字拿自己的 $q_t$ 去看整个缓存。
#
# $$o_t=\mathrm{softmax}\!\left(\frac{q_tK_{\le t}^{\top}}{\sqrt{D}}\right)V_{\le t}$$

# %%
K, V = k[:, :, :0], v[:, :, :0]                                                 # 空的缓存 (1, H, 0, D)
outputs = []
for t in range(x.size(1)):
    K = torch.cat([K, k[:, :, t:t + 1]], dim=2)                                 # (1, H, t+1, D)
    V = torch.cat([V, v[:, :, t:t + 1]], dim=2)
    weights = (q[:, :, t:t + 1] @ K.transpose(2, 3) / K.size(-1) ** 0.5).softmax(-1)    # (1, H, 1, t+1)
    outputs.append(weights @ V)                                                 # (1, H, 1, D)
torch.testing.assert_close(torch.cat(outputs, dim=2), whole, atol=1e-5, rtol=1e-4)

# %% [markdown]
# 一层相等，层层相等。`CachedDecoder` 把这件事对每一层都做一遍，缓存的空间事先留好，不必每步拼接；
# `UncachedDecoder` 每步从头重算。两个都写同一篇，核对每一步的 logits，顺便计时。

# %%
import time
from utils.generation import CachedDecoder, UncachedDecoder

def timed(decoder_class, follow):
    clock, seen = [time.perf_counter()], []
    decoder = decoder_class(model, prompt_ids, prompt_ids > 0, len(follow))
    for token in follow:
        seen.append(decoder.logits)
        decoder.advance(torch.tensor([token], device=lesson.device))
        clock.append(time.perf_counter())
    return torch.cat(seen), torch.tensor(clock)                                 # (T, V), (T+1,)

# %% [markdown]
# 让两边都照着同一串字往下走，走到 128 步（`smoke` 预设 48 步）。

# %%
length = min(48 if smoke else 128, model.config.max_position_embeddings - len(prompt))
follow = (mine * length)[:length]
laps = {CachedDecoder: [], UncachedDecoder: []}
with torch.inference_mode():
    timed(CachedDecoder, follow[:4])                                            # 热身
    for _ in range(1 if smoke else 5):                                          # 轮流跑，机器忽快忽慢也公平
        seen_logits = {}
        for kind in laps:
            seen_logits[kind], clock = timed(kind, follow)
            laps[kind].append(clock - clock[0])
    torch.testing.assert_close(*seen_logits.values(), atol=1e-3, rtol=1e-3)
seconds_fast, seconds_slow = (torch.stack(x).median(0).values[1:] for x in laps.values())       # (T,)
speedup = seconds_slow / seconds_fast

# %% [markdown]
# 结果相等。快多少呢？不用缓存，写 $n$ 个字要算 $O(n^2)$ 个位置；用缓存只要 $O(n)$ 个。所以越长越划算。

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3))
axes[0].plot(range(1, length + 1), seconds_slow, label="每步重算")
axes[0].plot(range(1, length + 1), seconds_fast, label="KV 缓存")
axes[0].set(title="写到第 n 个字用了多久（中位数）", xlabel="写了几个字（个）", ylabel="时间（秒）")
axes[0].legend(frameon=False)
axes[1].plot(range(1, length + 1), speedup)
axes[1].axhline(1, color="#555555", linestyle="--")
axes[1].set(title="快几倍", xlabel="写了几个字（个）", ylabel="时间之比（倍）", ylim=(0, None))
plt.show()

# %% [markdown]
# 快的代价是内存：每层都要存每个位置的 $k$ 和 $v$。

# %%
n_layers, width = model.config.num_hidden_layers, model.config.hidden_size
cache_kib = 2 * n_layers * (len(prompt) + length) * width * 4 / 1024            # k 和 v，float32 占 4 字节
print(f"写完这一篇，缓存有 {cache_kib:.0f} KiB")
for n_chars in (length // 4, length // 2, length):
    print(f"写到第 {n_chars} 个字时，快 {speedup[n_chars - 1]:.1f} 倍")

# %% [markdown]
# 最后三家同场：每步重算的循环、课程的 `generate`、transformers 的 `generate`（开着它自己的缓存）。
# 同一条导语，都写满同样多的字，同样的线程数（这台机器的默认值），轮流跑几遍，取中位数。

# %%
from statistics import median
from utils.scaling import race

exactly = dict(max_new_tokens=length, min_new_tokens=length)

@torch.inference_mode()
def library_writes():
    return model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids), do_sample=False, use_cache=True,
                          **exactly, **options)

torch.set_num_threads(threads)
laps = race({"每步重算": lambda: generate(model, tokenizer, intros[:1], use_cache=False, **exactly),
             "课程的 generate": lambda: generate(model, tokenizer, intros[:1], **exactly),
             "transformers": library_writes}, rounds=1 if smoke else 5)
torch.set_num_threads(1)

# %% [markdown]
# 竖线是最快与最慢的一遍。

# %%
typical = {name: median(x) for name, x in laps.items()}
spread = [[typical[k] - min(x) for k, x in laps.items()], [max(x) - typical[k] for k, x in laps.items()]]
fig, ax = plt.subplots(figsize=(7, 2.4))
ax.barh(list(laps), list(typical.values()), xerr=spread, capsize=4)
ax.set(title=f"写 {length} 个字用了多久（{threads} 个线程，中位数）", xlabel="时间（秒）")
plt.show()
ours, theirs, slow = typical["课程的 generate"], typical["transformers"], typical["每步重算"]
print(f"用默认的线程数，连同停止、挑字等杂务，整个 generate：速度是每步重算的 {slow / ours:.1f} 倍，"
      f"是 transformers 的 {theirs / ours:.2f} 倍")
lesson.record(f"KV 缓存在 {length} 个字时的加速", slow / ours, "倍")
lesson.record("课程的 generate 与 transformers generate 的时间之比", ours / theirs, "倍")

# %% [markdown]
# 缓存省下的是计算；要是比 transformers 也快，快在每一步的杂务：它要照顾几百种模型、几十种设置，我们只有一种。
# 在大模型上，一步的计算量大得多，这点杂务就看不见了。
#
# ## 9 成批地写：为什么要左填充
#
# 一次写一篇太浪费，一批一起写才划算。可是导语长短不一，要用 `[PAD]` 补齐。补在哪边？
# 我们总是在末尾接新字，所以**末尾要对齐**，`[PAD]` 补在左边；位置编号也要从第一个真词元数起，`[PAD]` 不占号。
# 下面拿一长一短两条导语试三种做法，看短的那条与单独计算差多少。

# %%
two = sorted(intros, key=len)[::len(intros) - 1]                                # 最短的和最长的
short, long = (torch.tensor([encode_prompt(tokenizer, i, "")], device=lesson.device) for i in two)
gap = torch.zeros(1, long.size(1) - short.size(1), dtype=torch.long, device=lesson.device)
left, right = torch.cat([gap, short], 1), torch.cat([short, gap], 1)            # (1, T)
with torch.no_grad():
    alone = model(input_ids=short).logits[0, -1]                                # (V,)
    positions = (left.ne(0).cumsum(1) - 1).clamp(min=0)
    good = model(input_ids=left, attention_mask=left.ne(0).long(), position_ids=positions).logits[0, -1]
    shifted = model(input_ids=left, attention_mask=left.ne(0).long()).logits[0, -1]
    wrong = model(input_ids=right, attention_mask=right.ne(0).long()).logits[0, -1]

# %% [markdown]
# 三种做法与「单独算」的最大差距：

# %%
gaps = {name: (x - alone).abs().max().item() for name, x in
        [("左填充，位置从真词元数起", good), ("左填充，位置没改", shifted), ("右填充，取最后一列", wrong)]}
for name, value in gaps.items():
    print(f"{name}：{value:.2g}")
torch.testing.assert_close(good, alone, atol=1e-3, rtol=1e-3)
assert gap.numel() == 0 or min(list(gaps.values())[1:]) > 10 * gaps["左填充，位置从真词元数起"]

# %% [markdown]
# 只有第一种是对的。`utils.generation.generate` 就是这样做的：左填充、位置改正、KV 缓存、每行各停各的，
# 而且从不写出 `[PAD]`、`[CLS]`、`[MASK]`、`[UNK]`。成批写的结果应当与一篇一篇写的一样：

# %%
together = generate(model, tokenizer, intros[:6])
apart = [generate(model, tokenizer, [intro])[0] for intro in intros[:6]]
assert together == apart

# %% [markdown]
# 库也是同样的道理：交给它左填充的一批和注意力掩码，它自己改正位置。两边应当一样。

# %%
prompts = [encode_prompt(tokenizer, intro, "") for intro in intros[:6]]
wide = max(map(len, prompts))
batch = torch.tensor([[0] * (wide - len(x)) + x for x in prompts], device=lesson.device)        # (B, T)
with torch.no_grad():
    theirs = model.generate(batch, attention_mask=batch.ne(0).long(), do_sample=False,
                            max_new_tokens=model.config.max_position_embeddings - 1 - wide, **options)
for ours, row in zip(together, tokenizer.batch_decode(theirs[:, wide:], skip_special_tokens=True)):
    assert ours.startswith(row) or row == ours

# %% [markdown]
# ## 10 「今天是个……」
#
# 该让它写点什么了。`complete` 从一个开头往下写：先把导语写完，过了 `[SEP]` 再写正文。
#
# 有一处要留神：[[clm_finetuning]] 把导语的标签记成了 −100，那样练出来的模型只学过「已知导语写正文」，从没学过怎样写导语。
# 没教过的事不能指望它会，所以这一节改用课程附带的检查点，它练的时候导语也计损失。同一个开头，四种写法：

# %%
from utils.generation import complete

novelist, its_tokenizer, source = load_checkpoint("clm", BertLMHeadModel, prefer="shipped", is_decoder=True)
print(source, "\n")

ways = {"贪心": {}, "τ = 0.7": dict(temperature=0.7, seed=1), "τ = 1.0，top-p 0.9": dict(top_p=0.9, seed=2),
        "τ = 1.5": dict(temperature=1.5, seed=3)}
for name, how in ways.items():
    print(f"【{name}】{complete(novelist, its_tokenizer, '今天是个', **how)}\n")

# %% [markdown]
# 开头的几步，模型在想什么？`stream` 写一个字交出一步，带着当时的候选和概率。

# %%
from itertools import islice
from utils.generation import stream
from utils.views import candidates_figure

taste = list(islice(stream(novelist, its_tokenizer, "今天是个", temperature=0.8, top_p=0.95, seed=1), 16))
candidates_figure(taste, "接着「今天是个」往下写：每一步的候选字")
plt.show()

# %% [markdown]
# ## 11 守得住事实吗
#
# 文章通顺还不够。导语说 3 比 2，正文写成 5 比 2，就是假新闻。语料里每篇的事实都有记录，所以可以逐篇核对：
# 绿字带 ✓ 的是守住的，红字带 ✗ 的是写错的。下面是几条留出的导语和贪心写出的正文。

# %%
from IPython.display import HTML, display
from utils.views import article_html

for intro, body in list(zip(intros, greedy_bodies))[:4]:
    display(HTML(article_html(intro, body)))

# %% [markdown]
# 几篇不足为凭。在全部留出导语上数一数，并给出 95% 置信区间（篇数少的时候，区间很宽）。再做一个对照：同样的正文配上**别人的**导语，
# 碰巧守住的有几成。自己练的模型弱，整篇全对的可能没有几篇；它看没看导语，就看这两个数差多少。

# %%
result, mispaired = (fidelity(intros, texts) for texts in (greedy_bodies, greedy_bodies[1:] + greedy_bodies[:1]))
low, high = result.interval
print(f"{result.n} 篇：忠实 {result.faithful:.2f}（95% 区间 {low:.2f} 到 {high:.2f}），"
      f"有写错 {result.contradicted:.2f}，有遗漏 {result.missing:.2f}，合乎写法 {result.well_formed:.2f}")
lesson.record("贪心正文的忠实度", result.faithful, "比例")

def kept(outcome):                            # 逐项算：应当守住的事实，守住了几成
    right = sum(len(r.kept) for r in outcome.reports)
    return right / max(1, right + sum(len(r.contradicted) + len(r.missing) for r in outcome.reports))

print(f"逐项守住 {kept(result):.2f}；配上别人的导语，{kept(mispaired):.2f}")
assert smoke or kept(result) > 2 * kept(mispaired), "写的正文与导语无关：模型没有学会看导语"

# %% [markdown]
# ## 12 多样与忠实，不可兼得？
#
# 常听人说：温度越高，文章越多样，也越容易写错。是不是，把这条取舍曲线画出来看。多样用 distinct-2（不同的二字组占多少）来量；
# 它与总字数有关，所以各组都截到同样多的字再比。语料里的真正文也用同样两把尺子量一遍，当作「人」的水平。

# %%
from utils.generation import distinct_n

def at_temperature(tau):
    how = {} if tau == 0 else dict(temperature=tau, seed=7)                     # τ = 0 就是贪心
    return generate(model, tokenizer, few, **how)

taus = (0, 1.0, 2.0) if smoke else (0, 0.4, 0.7, 1.0, 1.3, 1.7)
groups = {tau: at_temperature(tau) for tau in taus}
chars = max(min(sum(map(len, texts)) for texts in [*groups.values(), bodies[:n_curve]]), 10)

# %% [markdown]
# `chars` 是各组里最少的总字数（至少 10 个字），大家都截到这么多。

# %%
def diversity(texts):
    return distinct_n(["".join(texts)[:chars]], 2)

spread = [diversity(texts) for texts in groups.values()]
faith = [fidelity(few, texts) for texts in groups.values()]
human, human_faith = diversity(bodies[:n_curve]), fidelity(few, bodies[:n_curve])
for tau, d, f in zip(taus, spread, faith):
    print(f"τ = {tau}：distinct-2 {d:.3f}，忠实 {f.faithful:.2f}")
print(f"真正文：distinct-2 {human:.3f}，忠实 {human_faith.faithful:.2f}")
lesson.record("τ = 1 时的忠实度", faith[taus.index(1.0)].faithful, "比例")
lesson.record("τ = 1 时的 distinct-2（语料为参照）", spread[taus.index(1.0)] / human, "与语料之比")

# %% [markdown]
# 右边的图最要紧：往右是更多样，往上是更忠实，星号和虚线是真正文。

# %%
share = [f.faithful for f in faith]
error = [[f.faithful - f.interval[0] for f in faith], [f.interval[1] - f.faithful for f in faith]]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4))
axes[0].errorbar(taus, share, error, marker="o", capsize=3, label="忠实度")
axes[0].plot(taus, spread, marker="s", label="distinct-2")
axes[0].axhline(human_faith.faithful, color="#0072B2", ls=":", label="真正文的忠实度")
axes[0].axhline(human, color="#D55E00", ls=":", label="真正文的 distinct-2")
axes[0].set(title="随温度的变化（竖线是 95% 区间）", xlabel="温度 τ（0 是贪心）", ylabel="比例",
            ylim=(-0.05, 1.05))
axes[0].legend(fontsize=8)
axes[1].errorbar(spread, share, error, marker="o", capsize=3)
for tau, d, s in zip(taus, spread, share):
    axes[1].annotate(f"τ={tau}", (d, s), textcoords="offset points", xytext=(6, 6), fontsize=9)
axes[1].axvline(human, color="#D55E00", ls=":")
axes[1].axhline(human_faith.faithful, color="#D55E00", ls=":")
axes[1].plot(human, human_faith.faithful, "*", markersize=16, color="#D55E00")
axes[1].annotate("真正文", (human, human_faith.faithful), textcoords="offset points", xytext=(8, -14))
axes[1].set(title="多样与忠实", xlabel="distinct-2（越大越多样）", ylabel="忠实的文章（比例）",
            ylim=(-0.05, 1.05))
plt.show()

# %% [markdown]
# 哪个温度最像「人」？让代码来找：多样程度不低于真正文的九成，忠实度最高的是哪个。

# %%
able = [(f.faithful, tau) for tau, d, f in zip(taus, spread, faith) if d >= 0.9 * human]
print(f"τ = {max(able)[1]}：忠实 {max(able)[0]:.2f}（真正文 {human_faith.faithful:.2f}）" if able else
      f"没有一个温度的多样程度赶得上真正文的九成（{0.9 * human:.3f}）")

# %% [markdown]
# 真正文告诉我们，多样与忠实本来可以兼得；这个模型要是兼不得，那是它的分布还不够准，抽样又把不准的地方放大了。
#
# ### 写完核对，不行重写
#
# 模型一时改不好，用法还可以改：写完就核对，没通过的换一个种子重写，写到通过，或写满几遍为止。
# 头一遍贪心，后面几遍在 τ = 1 抽样：贪心再写多少遍都是同一篇，错也错在同一处。

# %%
from utils.corpus import check_facts

def rewrite(intros, most):
    """返回 （正文，各篇写了几遍）；写满 most 遍还通不过的，留最后一遍。"""
    texts, tries = generate(model, tokenizer, intros), [1] * len(intros)
    for seed in range(1, most):
        left = [i for i, pair in enumerate(zip(intros, texts)) if not check_facts(*pair).faithful]
        again = generate(model, tokenizer, [intros[i] for i in left], temperature=1.0, seed=seed) if left else []
        for i, body in zip(left, again):
            texts[i], tries[i] = body, tries[i] + 1
    return texts, tries

checked, tries = rewrite(intros, 3 if smoke else 8)
passed = [check_facts(*pair).faithful for pair in zip(intros, checked)]
for most in (1, 2, 4, 8):
    good = sum(ok and n <= most for ok, n in zip(passed, tries))
    print(f"最多写 {most} 遍：忠实 {good / len(passed):.2f}")
lesson.record("写完核对、不行重写之后的忠实度", sum(passed) / len(passed), "比例（最多 8 遍）")
lesson.record("平均一篇写了几遍", sum(tries) / len(tries), "遍")

# %% [markdown]
# 从写一遍到写八遍，忠实的多了多少，看上面打印的。抽样有机会走到别的写法上，绕开写错的那一处；要是处处都可能写错，绕开一处又碰上一处，
# 重写多少遍也帮得有限：重写救得了偶尔的失手，救不了本来就不会（附带的模型错在哪些地方，[[clm_finetuning]] 的第 12 节列过）。
# 代价是多写几遍，还要有一个靠得住的核对器：这里的语法什么都知道，真新闻没有这样的东西。
# 还有一条要记住：用来挑的尺子和用来量的尺子是同一把，核对器看不见的毛病，挑出来的文章里照样有。
#
# ## 13 尺子与它的盲点
#
# 先量模型，再量文章。量模型的尺子是损失和每字比特数（BPC）：它读真正文时有多意外，离语料的下限还有多远
# （下限由语法算出，同样这些篇）。

# %%
from utils.corpus import floor
from utils.generation import body_loss

held = test.select(range(n_held))
loss, bpc, least = body_loss(model, tokenizer, intros, bodies), bpc_real, floor(held)
print(f"损失 {loss:.3f} 奈特/词元，下限 {least['nats_per_token']:.3f}，是它的 {loss / least['nats_per_token']:.2f} 倍")
print(f"BPC  {bpc:.3f} 比特/字，下限 {least['bits_per_char']:.3f}")

# %% [markdown]
# 再把量文章的尺子一起摆出来。除了模型写的，再加两种「作弊」的文章：把真正文里的一个数字改错，
# 以及把别的导语的正文拿来顶替。好的尺子应当认得出它们。

# %%
import re

one_wrong = [re.sub(r"\d+", lambda m: str(int(m.group()) + 1), b, count=1) for b in bodies[:n_curve]]
contestants = {"语料（真正文）": bodies[:n_curve], "贪心": groups[0], "τ = 1 抽样": groups[1.0],
               "真正文改错一个数": one_wrong, "拿别篇的正文顶替": bodies[1:n_curve] + bodies[:1]}

# %% [markdown]
# 新不新，也要量。「抄段」是与训练集一字不差的最长片段占全文的比例，「见过」是句子里有多少在训练集里一字不差地出现过。
# 训练集的字太多（下面打印），逐篇去找太慢；`CopyIndex` 先把全部后缀排好序（后缀数组，Manber 与 Myers，1993），
# 之后每找一处只要二分查找。

# %%
from utils.generation import CopyIndex

index = CopyIndex(corpus["train"]["body"])
print(f"训练集 {len(corpus['train'])} 篇，{len(index.text):,} 个字，{len(index.sentences):,} 个不同的句子")
example = index.longest_copied_span(groups[1.0][0])
print(f"τ = 1 的第一篇里，最长的抄段有 {len(example)} 个字：{example}")

# %% [markdown]
# 全部尺子，全部文章：

# %%
from utils.generation import bleu, chrf

reference = bodies[:n_curve]

def measure(texts):
    safe = [t or "。" for t in texts]
    return [body_bits_per_char(model, tokenizer, few, safe), distinct_n(["".join(texts)[:chars]], 2), repetition(texts),
            chrf(texts, reference), bleu(texts, reference), index.copied_share(texts), index.seen_sentences(texts),
            fidelity(few, texts).faithful]

table = {name: measure(texts) for name, texts in contestants.items()}

# %% [markdown]
# 排成一张表：

# %%
from IPython.display import Markdown

head = ["文章", "意外（比特/字）", "distinct-2", "重复", "chrF", "BLEU", "抄段", "见过", "忠实"]
lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
for name, values in table.items():
    cells = [f"{x:.1f}" if i in (3, 4) else f"{x:.2f}" for i, x in enumerate(values)]
    lines.append("| " + " | ".join([name, *cells]) + " |")
assert table["真正文改错一个数"][3] > 80 and table["拿别篇的正文顶替"][-1] < table["语料（真正文）"][-1]
Markdown("\n".join(lines))

# %% [markdown]
# 两个要紧的对照，由代码来读：

# %%
truth, wrong, drawn = (table[k] for k in ("语料（真正文）", "真正文改错一个数", "τ = 1 抽样"))
print(f"改错一个数：chrF 只少了 {truth[3] - wrong[3]:.1f}，忠实度少了 {truth[-1] - wrong[-1]:.2f}")
more = drawn[5] - truth[5]
print(f"抄段：τ = 1 抽样 {drawn[5]:.2f}，从没参加训练的真正文 {truth[5]:.2f}。",
      "模型多抄了一截，有背书的嫌疑。" if more > 0.1 else "没有比真正文多抄多少：重合的是套话，不是背书。")
lesson.record("τ = 1 时的抄段比例减去真正文的", more, "比例")
lesson.record("τ = 1 时见过的句子", drawn[6], "比例")

# %% [markdown]
# 「改错一个数」的文章，chrF 和 BLEU 几乎满分，忠实度却掉下来了（改到的若是导语里没有的数，核对器无从知道，不算错）。
# 「顶替」的文章篇篇通顺，distinct-2、重复、抄段、见过都看不出毛病；认得出它的，要么看导语（意外、忠实），
# 要么有参考可比（chrF、BLEU）。逐列读这张表：
#
# | 尺子 | 量什么 | 漏什么 |
# |---|---|---|
# | 损失、BPC | 真文章在模型眼里有多意外 | 模型自己写得好不好；损失还与词元的大小有关 |
# | 意外 | 这些文章在模型眼里有多意外 | 它偏爱平庸：最低的往往是贪心，不是最好的 |
# | distinct-n | 用词多不多样 | 乱码也「多样」；字数越多分越低 |
# | 重复 | 有没有原地打转 | 换个说法的重复；该重复的人名也算 |
# | chrF、BLEU | 与一篇参考像不像 | 换种写法就吃亏；改错一个数几乎不扣分 |
# | 抄段、见过 | 有没有背训练集 | 改一两个字的抄袭；套话本来就会重合，要与没参加训练的真文章比 |
# | 忠实 | 守没守住导语的事实 | 文笔；千篇一律也能满分 |
#
# BLEU 对中文必须按字切（`tokenize="zh"`），否则一整句没有空格的中文被当成一个词，分数近乎零。
# 没有哪把尺子够用。**先想清楚要什么，再挑两三把互相牵制的尺子。**
#
# ## 14 写作台
#
# 最后，亲手拉一拉滑块。在「开头」里随便写（换行之后算正文），按「写」，看它一个字一个字地冒出来。
# 每个字的底色越深，模型当时越拿不准；右边是那一步的候选，蓝条是模型的概率，橙线是调过温度、剪过尾巴之后真正抽中的机会。
# 点文章里的任何一个字，再点一个候选，就从那里改写。停下来时核对事实：绿字带 ✓ 的守住了，红字带 ✗ 的写错了。
# 全部在本机运行，不联网；每一步只占内核一瞬间，随时可以停，也不耽误运行别的格子。
#
# 不运行也看得到的静态图在这里（它用的是这一本开头载入的模型）：

# %%
from utils.views import studio_figure

opening = intros[0] + "\n"
written_steps = list(stream(model, tokenizer, opening, temperature=0.8, top_p=0.95, seed=1))
studio_figure(opening, written_steps)
plt.show()

# %% [markdown]
# 下面是能动的那个。用键盘也行：Tab 换控件，方向键调滑块；在文章上用 ← → 选字，↓ 进入候选，回车从这里改写，Esc 停。
# 用的是课程附带的检查点，所以也可以把开头换成「今天是个」，让它连导语一起写。

# %%
from utils.views import Studio

studio = Studio(novelist, its_tokenizer, opening, seed=1)
studio

# %% [markdown]
# ## 小结
#
# - 语言模型给出的是每一步的概率；文章的概率是各步的连乘，取对数就是连加。
# - 贪心和束搜索找概率大的文章，不随机，容易呆板；抽样找「像样本」的文章，温度、top-k、top-p 决定冒多大的险。
# - 手写的每一样都与 transformers 相等：贪心、束搜索、重复惩罚、禁止重复的 n 元组逐字相等；温度、top-k、top-p、min-p
#   逐数相等，抽样的频率用卡方检验相符。
# - KV 缓存不改变结果，只省去重算；越长越划算。成批写要左填充，位置从真词元数起。
# - 尺子各有盲点。对「从导语写正文」这件事，忠实度最要紧，而 chrF、BLEU 恰恰看不见它。
# - 写完核对、不行重写，忠实的文章只会多、不会少，多多少看模型；前提是有一个靠得住的核对器。
#
# **下一本**：[[scale_up]]，真数据、真大小、几张卡。
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import generation as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 核里有谁**（★★，10 分钟）top-p 留下「概率之和刚达到 p 的最少几个」。`p` 是一条概率 `(V,)`，`limit` 是 top-p 的那个 p。
# 不要用第 4 节的函数，返回留下的编号，从小到大的列表。

# %% tags=["stub"]
def nucleus(p, limit):                                                    # (V,)，0 到 1 的数
    ...                                                                   # ← 换成你的代码，返回编号的列表

# %% tags=["check"]
check.nucleus(nucleus)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def nucleus(p, limit):
#     order = p.argsort(descending=True).tolist()
#     total, kept = 0.0, []
#     for i in order:
#         if total >= limit:
#             break
#         total += float(p[i])
#         kept.append(i)
#     return sorted(kept)
# ```
#
# 先问够不够，再往里加：跨过 `limit` 的那一个也要留下，所以永远不会一个不剩。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · 下一步不许写谁**（★★，10 分钟）禁止重复的 n 元组：`ids` 是已有的编号（提示也在内），返回下一步不许写的编号，
# 从小到大、不重复的列表。
#
# 做完想一想：导语里写了「鹤鸣市」，n = 3，正文里第二次写到「鹤鸣」的时候会怎样？

# %% tags=["stub"]
def banned_next(ids, n):                                                  # 列表，正整数
    ...                                                                   # ← 换成你的代码，返回编号的列表

# %% tags=["check"]
check.banned_next(banned_next)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def banned_next(ids, n):
#     last = ids[len(ids) - n + 1:]
#     return sorted({ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i:i + n - 1] == last})
# ```
#
# 「市」会被禁掉，城市的名字第二次就写不完整了：第 7 节里加了这味药，忠实度会往下掉，就是这个缘故。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 哪一束胜出**（★★，8 分钟）几束都写完了：`totals` 是各束的总对数概率，`lengths` 是各束的词元数。按长度惩罚 `alpha` 折算，
# 返回 `(第几束, 它折算后的分数)`。

# %% tags=["stub"]
def best_finished(totals, lengths, alpha):                                # 列表，列表，数
    ...                                                                   # ← 换成你的代码，返回 (编号, 分数)

# %% tags=["check"]
check.best_finished(best_finished)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def best_finished(totals, lengths, alpha):
#     scores = [total / length ** alpha for total, length in zip(totals, lengths)]
#     best = max(range(len(scores)), key=scores.__getitem__)
#     return best, scores[best]
# ```
#
# 总对数概率是负数，除以一个大于 1 的数会变大，所以 α 越大，长文章越占便宜。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · 左填充的位置编号**（★，6 分钟）`mask` 是 `(B, T)`，1 是真词元，0 是补在左边的 [PAD]。返回位置编号 `(B, T)`：
# 从第一个真词元数起，填充的位置记 0。

# %% tags=["stub"]
def left_positions(mask):                                                 # (B, T)
    ...                                                                   # ← 换成你的代码，返回 (B, T)

# %% tags=["check"]
check.left_positions(left_positions)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def left_positions(mask):
#     return (mask.cumsum(1) - 1).clamp(min=0)
# ```
#
# 填充的位置谁也看不见，记几都不影响结果；可是编号拿去查位置嵌入，记成 −1 就会出错。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 缓存省下多少**（★，5 分钟）提示有 20 个词元，往后写 5 个字就停。不用缓存，一共送进模型多少个词元（每一步都把前文从头送一遍）？
# 用缓存呢？先猜，写成 `[不用缓存, 用缓存]`。

# %% tags=["stub"]
read_guess = ...                                                          # ← 换成 [不用缓存, 用缓存]

# %% tags=["check"]
check.read_positions(read_guess)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# read_guess = [20 + 21 + 22 + 23 + 24, 20 + 1 + 1 + 1 + 1]
# ```
#
# 读完提示，才有第一个字的概率；第 5 个字写出来就停，不必再读。写 n 个字，一个是 $O(n^2)$，一个是 $O(n)$。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 抽签**（★★，8 分钟）`p` 是一条概率 `(V,)`，`u` 是 [0, 1) 里的一个数。把 [0, 1) 按概率切成 V 段，从 0 号词元切起，每段左闭右开；
# 返回 `u` 落在几号。概率为 0 的词元永远不该选中。

# %% tags=["stub"]
def draw_token(p, u):                                                     # (V,)，0 到 1 的数
    ...                                                                   # ← 换成你的代码，返回一个整数

# %% tags=["check"]
check.draw_token(draw_token)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def draw_token(p, u):
#     right_ends = p.double().cumsum(0)                                   # (V,)
#     return int((right_ends <= u).sum())
# ```
#
# 数一数有几段的右端不超过 `u`，`u` 就在下一段里。用 `<=` 还是 `<`，差别全在端点上：用 `<` 的话，`u = 0` 会选中概率为 0 的第一段。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 7 · 谁看不见**（★，4 分钟）一篇正文别处都和参考一样，只把「3 比 2」写成了「5 比 2」。下面哪几把尺子的分数几乎不变？选出全部。
#
# - A. chrF
# - B. distinct-2
# - C. 忠实度
# - D. 重复

# %% tags=["stub"]
unchanged = ...                                                           # ← 换成字母，例如 "AC"

# %% tags=["check"]
check.blind_spot(unchanged)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# unchanged = "ABD"
# ```
#
# distinct-2 和重复只看文章自己；chrF 看参考，可一百多个字里只错一个，分数几乎不动。只有忠实度逐项核对导语的事实。
#
# </details>

# %% [markdown]
# **想一想**（没有标准答案，动手试）
#
# - 把温度调到 0.01，抽样的结果与贪心完全相同吗？先猜，再用 `generate(model, tokenizer, intros, temperature=0.01, seed=1)` 验证。
#   哪里可能不同？
# - 每条导语抽 4 篇，只留每字比特数（`body_bits_per_char`）最低的一篇（best-of-n）。忠实度比只抽一篇高吗？比贪心呢？多样程度呢？
# - 换一把尺子：只在「有事实的位置」比较，使「真正文改错一个数」得不了高分。它会冤枉什么样的好文章？
#
# ## 延伸阅读
#
# - Holtzman, A. 等（2020）. *The Curious Case of Neural Text Degeneration.* ICLR. 核采样，
#   以及「概率最大」为什么不等于「像人写的」。
# - Fan, A., Lewis, M., Dauphin, Y.（2018）. *Hierarchical Neural Story Generation.* ACL. top-k 抽样。
# - Keskar, N. S. 等（2019）. *CTRL:
#   A Conditional Transformer Language Model for Controllable Generation.* 重复惩罚。
# - Meister, C., Cotterell, R., Vieira, T.（2020）. *If Beam Search Is the Answer,
#   What Was the Question？* EMNLP. 束搜索到底在优化什么。
# - Paulus, R., Xiong, C., Socher, R.（2018）. *A Deep Reinforced Model for Abstractive Summarization.* ICLR. 禁止重复的三元组。
# - Manber, U., Myers, G.（1993）. *Suffix Arrays: A New Method for On-Line String Searches.* SIAM J. Comput. 后缀数组。
# - Nguyen, M. N. 等（2025）. *Turning Up the Heat:
#   Min-p Sampling for Creative and Coherent LLM Outputs.* ICLR. min-p。
# - Li, J. 等（2016）
#   . *A Diversity-Promoting Objective Function for Neural Conversation Models.* NAACL. distinct-n。
# - Papineni, K. 等（2002）. *BLEU.* ACL；Popović, M.（2015）. *chrF.* WMT；Post, M.（2018）
#   . *A Call for Clarity in Reporting BLEU Scores.* WMT.
# - Pope, R. 等（2023）. *Efficiently Scaling Transformer Inference.* MLSys. KV 缓存在大模型里的代价。
