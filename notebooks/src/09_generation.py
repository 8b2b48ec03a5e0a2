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
# # 09 生成
#
# **这一本只回答一个问题：怎样把概率变成文章？**
#
# 08 里练好的模型，其实一个字也不会「写」。你给它一段文字，它只会告诉你：下一个位置上，
# 词表里每个字的概率各是多少。
# 从这张概率表到一篇文章，中间还隔着许多选择：选最可能的字，还是碰碰运气？运气碰到什么程度？什么时候停？
#
# **学习目标**
#
# 1. 会用链式法则算一篇文章的概率，知道每个字贡献了多少「意外」。
# 2. 亲手写出贪心、温度、top-k、top-p、束搜索和重复惩罚，并与 transformers 逐项比对相等。
# 3. 说得清 KV 缓存（KV cache）为什么不改变结果，又为什么快，快多少。
# 4. 会挑尺子：多样、相似、重复、忠实，各量出了什么，又漏了什么。
#
# **先修**：03（自注意力）、08（从导语写正文）。
#
# **用时**：两核 CPU 约 1 分钟，GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("09_generation")               # 换预设：start("09_generation", preset="smoke")

# %% [markdown]
# 先把 08 的模型请来。你自己练过，就用你的；没有练过，就用课程附带的。下面会说明用的是哪一个。
# 写作时一步只算一个字，计算量小得很，多个 CPU 线程反而要互相等待，所以只用一个线程。

# %%
import torch
from transformers import BertLMHeadModel
from utils.checkpoints import load_checkpoint

model, tokenizer, source = load_checkpoint("clm", BertLMHeadModel, preset=lesson.preset, is_decoder=True)
model = model.to(lesson.device)
model.loss_type = "ForCausalLM"                # 第 1 节要用它算损失；不写明，库会先警告再猜
torch.set_num_threads(1)
print(source)

# %% [markdown]
# 再准备一批模型没见过的导语。测试集与训练集出自同一套语法，但用的是另一串随机数。
# `smoke` 预设只为检查代码能不能跑，所以篇数少。

# %%
from utils.corpus import load_corpus

smoke = lesson.preset.name == "smoke"
corpus = load_corpus("bundled", n_docs=min(lesson.preset.n_docs, 4000))
test = corpus["test"]
n_held, n_curve = (8, 6) if smoke else (48, 32)
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
# 这就是 08 里的「下限」。

# %%
total = surprise.sum().item()
print(f"模型：{total:.1f} 奈特；语法的真值：{test['nats_body'][0]:.1f} 奈特；每字 {surprise.mean():.3f} 奈特")
labels = ids.clone()
labels[:, :start_at] = -100                                           # 与 08 相同：导语不算损失
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
# 高的柱子是「岔路口」：语法在那里真的做了选择，谁也猜不准。低的柱子是「直道」：词语的后半截、套话，
# 以及导语里已经写明、只要照抄就行的事实。**怎样在岔路口选字，就是这一本的全部内容。**
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
# 先找一个真正的岔路口：贪心写的这一篇里，熵（entropy）最大的那一步。

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
# ## 4 长尾：为什么还要 top-k 和 top-p
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
# 一步里微不足道的小尾巴，乘上步数就不再微不足道；而一旦写错一个字，后面的字都要以它为前提，很难拉回来。
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
# 两者都与库相等。画出每一步各留下几个字，差别一目了然。

# %%
kept_k = top_k(logits, 5).isfinite().sum(-1)
kept_p = top_p(logits, 0.95).isfinite().sum(-1)
fig, ax = plt.subplots(figsize=(9, 2.6))
positions = range(1, len(logits) + 1)
ax.step(positions, kept_k, where="mid", label="top-k,k = 5")
ax.step(positions, kept_p, where="mid", label="top-p,p = 0.95")
ax.set(title="每一步留下几个候选", xlabel="第几步", ylabel="候选数（个）", yscale="log")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# top-p 在直道上只留一个，在岔路口自动放宽。
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
assert observed[expected == 0].sum() == 0
rare = expected < 5
groups_o = torch.cat([observed[~rare], observed[rare].sum()[None]]).double()
groups_e = torch.cat([expected[~rare], expected[rare].sum()[None].clamp_min(1e-9)])
chi2 = ((groups_o - groups_e) ** 2 / groups_e).sum().item()
freedom = len(groups_o) - 1 - int(groups_e[-1] < 1e-6)
limit = torch.distributions.Chi2(max(freedom, 1)).sample((100_000,)).quantile(0.9999).item()
print(f"χ² = {chi2:.1f}，自由度 {freedom}，万分之一的界限约 {limit:.1f}")
assert chi2 <= limit

# %% [markdown]
# 没有超过界限，抽样是对的。`utils.generation` 里的 `sample_next` 用的是同一个办法，只是一次算一批。
#
# ## 6 束搜索：向前多看几步
#
# 贪心每步只顾眼前。束搜索（beam search）同时保留 $B$ 个总对数概率最高的半成品，每一步把它们都展开，
# 再从中挑出最好的 $B$ 个。
# 下面是十来行的手写版。为了简单，先不许它结束（`[SEP]` 的概率设成 0），只写固定的步数。

# %%
def beam_search(prompt, width, steps):
    beams, scores = [[]], torch.zeros(1)                                        # 半成品和它们的总对数概率
    for _ in range(steps):
        ids = torch.tensor([prompt + b for b in beams], device=lesson.device)   # (B, T)
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[:, -1].log_softmax(-1).cpu()    # (B, V)
        log_p[:, tokenizer.sep_token_id] = float("-inf")
        best = (log_p + scores[:, None]).flatten().topk(width)                  # 从 B*V 个里挑 B 个
        V = log_p.size(1)
        beams = [beams[i // V] + [i % V] for i in best.indices.tolist()]
        scores = best.values
    return beams[0], scores[0].item()

# %% [markdown]
# 与库比：`num_beams=4`，`min_new_tokens` 与 `max_new_tokens` 相等，就是「不许提前结束」。

# %%
far, score = beam_search(prompt, width=4, steps=16)
with torch.no_grad():
    theirs = model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids), do_sample=False,
                            num_beams=4, min_new_tokens=16, max_new_tokens=16, **options)
assert theirs[0, len(prompt):].tolist() == far
_, one = beam_search(prompt, width=1, steps=16)
print(f"束宽 4：{score:.3f}；束宽 1（就是贪心）：{one:.3f}（总对数概率，奈特）\n{tokenizer.decode(far)}")

# %% [markdown]
# 真正的束搜索还要处理「有的束先写完」：写完的要按长度折算分数再比，不然短文章总占便宜。
# `generate(..., strategy="beam")` 里是完整的版本，与 transformers 的默认规则相同。
#
# 概率最高的文章，就是最好的文章吗？量一量：同样的导语，真正文与贪心正文，在模型眼里平均每个字有多意外。

# %%
from utils.generation import generate
from utils.metrics import body_bits_per_char

greedy_bodies = generate(model, tokenizer, intros)
bpc_real = body_bits_per_char(model, tokenizer, intros, bodies)
bpc_greedy = body_bits_per_char(model, tokenizer, intros, [b or "。" for b in greedy_bodies])
print(f"真正文 {bpc_real:.3f} 比特/字；贪心写的 {bpc_greedy:.3f} 比特/字")
assert smoke or bpc_greedy < bpc_real
lesson.record("真正文的 BPC", bpc_real, "比特/字")

# %% [markdown]
# 贪心写的字，个个都在模型意料之中；人写的（这里是语法写的）却总有意外。**好文章不是概率最大的文章**，
# 这正是 Holtzman 等（2020）反对用束搜索写开放式文本的理由。翻译、摘要那种「标准答案」明确的任务，
# 束搜索仍然好用。
#
# ## 7 重复，以及惩罚它的代价
#
# 小模型用贪心写长文，容易原地打转。重复惩罚（repetition penalty；Keskar 等，2019）把出现过的字压低：
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
# 注意「出现过」也包括导语里的字。可我们的任务恰恰要求把导语里的地名、数字再写一遍！量一量惩罚的代价：
# `repetition` 是一篇之内重复的四字组的比例，`faithful` 是没写错也没遗漏事实的文章的比例。

# %%
from utils.metrics import fidelity, repetition

few = intros[:n_curve]
print(f"真正文：重复 {repetition(bodies[:n_curve]):.3f}")
for theta in (1.0, 1.2, 1.5):
    texts = generate(model, tokenizer, few, repetition_penalty=theta)
    print(f"θ = {theta}：重复 {repetition(texts):.3f}，忠实 {fidelity(few, texts).faithful:.2f}")

# %% [markdown]
# 对照着看上面的输出：重复压低了，忠实度呢？导语里的城市、人名、数字也一并受罚，该照抄的反而抄不出来。
# 真正文本来就重复得很少；治病的药用在没病的地方，比病还坏。
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
from utils.kv_cache import CachedDecoder, UncachedDecoder

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
timed(CachedDecoder, follow[:4])                                                # 热身
with torch.inference_mode():
    (fast, clock_fast), (slow, clock_slow) = timed(CachedDecoder, follow), timed(UncachedDecoder, follow)
torch.testing.assert_close(fast, slow, atol=1e-3, rtol=1e-3)
seconds_fast, seconds_slow = clock_fast - clock_fast[0], clock_slow - clock_slow[0]
speedup = (seconds_slow / seconds_fast)[1:]

# %% [markdown]
# 结果相等。快多少呢？不用缓存，写 $n$ 个字要算 $O(n^2)$ 个位置；用缓存只要 $O(n)$ 个。所以越长越划算。

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3))
axes[0].plot(seconds_slow[1:], label="每步重算")
axes[0].plot(seconds_fast[1:], label="KV 缓存")
axes[0].set(title="写到第 n 个字用了多久", xlabel="写了几个字（个）", ylabel="时间（秒）")
axes[0].legend(frameon=False)
axes[1].plot(range(1, length + 1), speedup)
axes[1].axhline(1, color="#555555", linestyle="--")
axes[1].set(title="快几倍", xlabel="写了几个字（个）", ylabel="时间之比（倍）", ylim=(0, None))
plt.show()

# %% [markdown]
# 快的代价是内存：每层都要存每个位置的 $k$ 和 $v$。算一算这一篇的缓存有多大，
# 顺便与 transformers 的 `generate` 比一比速度
# （同一条导语、同样的步数，各跑三遍取最快的一遍）。

# %%
def best_of(run, times=3):
    clocks = []
    for _ in range(times):
        begin = time.perf_counter(); run(); clocks.append(time.perf_counter() - begin)
    return min(clocks)

same = dict(max_new_tokens=len(mine))
ours = best_of(lambda: generate(model, tokenizer, intros[:1], **same))
library = best_of(lambda: model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids),
                                         do_sample=False, **same, **options))
cache_kib = 2 * len(model.bert.encoder.layer) * (len(prompt) + length) * model.config.hidden_size * 4 / 1024
print(f"缓存 {cache_kib:.0f} KiB；手写循环 {ours:.3f} 秒，transformers {library:.3f} 秒")
lesson.record(f"KV 缓存在 {length} 个字时的加速", speedup[-1], "倍")
lesson.record("手写循环与 transformers generate 的时间之比", ours / library, "倍")
assert smoke or speedup[-1] > 1.5

# %% [markdown]
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
# ## 10 「今天是个……」
#
# 该让它写点什么了。`complete` 从一个开头往下写：先把导语写完，过了 `[SEP]` 再写正文。
#
# 有一处要留神：08 把导语的标签记成了 −100，那样练出来的模型只学过「已知导语写正文」，从没学过怎样写导语。
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
from utils.studio import candidates_figure

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
from utils.studio import article_html

for intro, body in list(zip(intros, greedy_bodies))[:4]:
    display(HTML(article_html(intro, body)))

# %% [markdown]
# 几篇不足为凭。在全部留出导语上数一数，并给出 95% 置信区间（篇数少的时候，区间很宽）。

# %%
result = fidelity(intros, greedy_bodies)
low, high = result.interval
print(f"{result.n} 篇：忠实 {result.faithful:.2f}（95% 区间 {low:.2f} 到 {high:.2f}），"
      f"有写错 {result.contradicted:.2f}，有遗漏 {result.missing:.2f}，合乎写法 {result.well_formed:.2f}")
lesson.record("贪心正文的忠实度", result.faithful, "比例")
assert smoke or (result.well_formed >= 0.2 and result.faithful >= 0.1)

# %% [markdown]
# ## 12 多样与忠实，不可兼得？
#
# 温度越高，文章越多样，也越容易写错。把这条取舍曲线画出来。多样用 distinct-2（不同的二字组占多少）来量；
# 它与总字数有关，所以各组都截到同样多的字再比。语料本身作参照：它忠实度为 1，多样程度是「人」的水平。

# %%
from utils.metrics import distinct_n

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
human = diversity(bodies[:n_curve])
for tau, d, f in zip(taus, spread, faith):
    print(f"τ = {tau}：distinct-2 {d:.3f}，忠实 {f.faithful:.2f}")
lesson.record("τ = 1 时的忠实度", faith[taus.index(1.0)].faithful, "比例")
lesson.record("τ = 1 时的 distinct-2（语料为参照）", spread[taus.index(1.0)] / human, "与语料之比")

# %% [markdown]
# 右边的图最要紧：往右是更多样，往上是更忠实，星号是语料本身。

# %%
share = [f.faithful for f in faith]
error = [[f.faithful - f.interval[0] for f in faith], [f.interval[1] - f.faithful for f in faith]]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4))
axes[0].errorbar(taus, share, error, marker="o", capsize=3, label="忠实度")
axes[0].plot(taus, spread, marker="s", label="distinct-2")
axes[0].set(title="随温度的变化（竖线是 95% 区间）", xlabel="温度 τ（0 是贪心）", ylabel="比例",
            ylim=(-0.05, 1.05))
axes[0].legend(frameon=False)
axes[1].errorbar(spread, share, error, marker="o", capsize=3)
for tau, d, s in zip(taus, spread, share):
    axes[1].annotate(f"τ={tau}", (d, s), textcoords="offset points", xytext=(6, 6), fontsize=9)
axes[1].plot(human, 1.0, "*", markersize=16, color="#D55E00")
axes[1].annotate("语料", (human, 1.0), textcoords="offset points", xytext=(8, -12))
axes[1].set(title="多样与忠实", xlabel="distinct-2（越大越多样）", ylabel="忠实的文章（比例）",
            ylim=(-0.05, 1.05))
plt.show()

# %% [markdown]
# 语料告诉我们，多样与忠实本来可以兼得；兼不得，是因为模型的分布还不够准，抽样又把不准的地方放大了。
#
# ## 13 尺子与它的盲点
#
# 常用的尺子一起摆出来。除了模型写的，再加两种「作弊」的文章：把真正文里的一个数字改错，
# 以及把别的导语的正文拿来顶替。
# 好的尺子应当认得出它们。

# %%
import re

one_wrong = [re.sub(r"\d+", lambda m: str(int(m.group()) + 1), b, count=1) for b in bodies[:n_curve]]
contestants = {"语料（真正文）": bodies[:n_curve], "贪心": groups[0], "τ = 1 抽样": groups[1.0],
               "真正文改错一个数": one_wrong, "拿别篇的正文顶替": bodies[1:n_curve] + bodies[:1]}

# %% [markdown]
# 「抄段」是与训练集一字不差的最长片段占全文的比例。训练集这里只查一部分，所以它是下界。

# %%
from utils.metrics import CopyIndex, bleu, chrf

index = CopyIndex(corpus["train"]["body"][:2000])
reference = bodies[:n_curve]
table = {name: [distinct_n(["".join(t)[:chars]], 2), repetition(t), chrf(t, reference), bleu(t, reference),
                index.copied_share(t), fidelity(few, t).faithful] for name, t in contestants.items()}

# %% [markdown]
# 排成一张表：

# %%
from IPython.display import Markdown

head = ["文章", "distinct-2", "重复", "chrF", "BLEU", "抄段", "忠实"]
lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
for name, values in table.items():
    cells = [f"{x:.1f}" if i in (2, 3) else f"{x:.2f}" for i, x in enumerate(values)]
    lines.append("| " + " | ".join([name, *cells]) + " |")
assert table["真正文改错一个数"][2] > 80 and table["拿别篇的正文顶替"][5] < table["语料（真正文）"][5]
Markdown("\n".join(lines))

# %% [markdown]
# 「改错一个数」的文章，chrF 和 BLEU 几乎满分，忠实度却掉下来了（改到的若是导语里没有的数，核对器无从知道，不算错）；
# 「顶替」的文章篇篇通顺、用词多样，只有忠实度认得出它。逐列读这张表：
#
# | 尺子 | 量什么 | 漏什么 |
# |---|---|---|
# | BPC / 损失 | 真文章在模型眼里有多意外 | 模型自己写得好不好 |
# | distinct-n | 用词多不多样 | 乱码也「多样」；字数越多分越低 |
# | 重复 | 有没有原地打转 | 换个说法的重复；该重复的人名也算 |
# | chrF、BLEU | 与一篇参考像不像 | 换种写法就吃亏；改错一个数几乎不扣分 |
# | 抄段 | 有没有背训练集 | 改一两个字的抄袭；套话本来就会重合 |
# | 忠实 | 守没守住导语的事实 | 文笔；千篇一律也能满分 |
#
# BLEU 对中文必须按字切（`tokenize="zh"`），否则一整句没有空格的中文被当成一个词，分数近乎零。
# 没有哪把尺子够用。**先想清楚要什么，再挑两三把互相牵制的尺子。**
#
# ## 14 写作台
#
# 最后，亲手拉一拉滑块。在「开头」里随便写（换行之后算正文），按「写」，看它一个字一个字地冒出来；
# 写完以后，拖「回看第几个字」看那一步的候选，选一个别的字，「从这里改写」。全部在本机运行，不联网。
#
# 不运行也看得到的静态图在这里：同一条导语，正文开头每一步的候选。

# %%
opening = list(islice(stream(model, tokenizer, intros[0] + "\n", temperature=0.8, top_p=0.95, seed=1), 16))
candidates_figure(opening, "写作台的静态图：正文开头每一步的候选字")
plt.show()

# %% [markdown]
# 下面是能动的那个。用键盘也行：Tab 换控件，方向键调滑块，空格或回车按按钮。

# %%
from utils.studio import Studio

studio = Studio(novelist, its_tokenizer, "今天是个")
studio.box

# %% [markdown]
# ## 小结
#
# - 语言模型给出的是每一步的概率；文章的概率是各步的连乘，取对数就是连加。
# - 贪心和束搜索找概率大的文章，不随机，容易呆板；抽样找「像样本」的文章，温度、top-k、top-p 决定冒多大的险。
# - 手写的每一样都与 transformers 相等：贪心与束搜索逐字相等，过滤逐数相等，抽样按频率相等。
# - KV 缓存不改变结果，只省去重算；越长越划算。成批写要左填充，位置从真词元数起。
# - 尺子各有盲点。对「从导语写正文」这件事，忠实度最要紧，而 chrF、BLEU 恰恰看不见它。
#
# ## 练习
#
# **练习 1 ★（5 分钟）** 把温度调到 0.01，抽样的结果与贪心完全相同吗？先猜，
# 再用 `generate(..., temperature=0.01, seed=1)` 验证。
#
# <details><summary>参考答案</summary>
#
# 几乎总是相同：τ = 0.01 把 logits 的差距放大一百倍，第二名只要低 0.1，概率就只剩 $e^{-10}$。
# 只有前两名的 logits 几乎打平的地方才可能不同。
#
# ```python
# cold = generate(model, tokenizer, intros, temperature=0.01, seed=1)
# print(sum(a == b for a, b in zip(cold, generate(model, tokenizer, intros))), "/", len(intros))
# ```
# </details>
#
# **练习 2 ★★（15 分钟）** min-p（Nguyen 等，2025）只留概率不小于「最大概率 × $m$」的字。写出 `min_p(logits, m)`，
# 与 `transformers.MinPLogitsWarper` 比对，再像第 4 节那样画出每一步留下几个候选。
#
# <details><summary>参考答案</summary>
#
# ```python
# from transformers import MinPLogitsWarper
#
# def min_p(logits, m):
#     p = logits.softmax(-1)
#     return logits.masked_fill(p < m * p.max(-1, keepdim=True).values, float("-inf"))
#
# torch.testing.assert_close(min_p(logits, 0.1), MinPLogitsWarper(0.1)(None, logits))
# print(min_p(logits, 0.1).isfinite().sum(-1))
# ```
# 它与 top-p 一样会看场合；温度很高时，top-p 会放进大量尾巴，min-p 的门槛跟着最大概率走，更稳。
# </details>
#
# **练习 3 ★★（15 分钟）** 「禁止重复的 n 元组」（no-repeat n-gram）规定：已经出现过的 n 元字组不许再出现。
# 写一个函数，给出当前已写的编号 `ids` 和 $n$，返回下一步被禁止的编号集合。用在我们的任务上会出什么事？
#
# <details><summary>参考答案</summary>
#
# ```python
# def banned(ids, n):
#     last = tuple(ids[len(ids) - n + 1:])
#     return {ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i:i + n - 1]) == last}
#
# print(banned([5, 6, 7, 5, 6], 3))      # {7}:5 6 7 出现过，所以 5 6 之后不许再写 7
# ```
# 导语里的城市、人名第二次就写不出来了，忠实度会垮掉。它适合写长篇的开放文本，不适合要照抄事实的任务。
# </details>
#
# **练习 4 ★★（15 分钟）** 改尺子：写一个只在「有事实的位置」比较的分数，使「真正文改错一个数」得不了高分。
#
# <details><summary>参考答案</summary>
#
# 最简单的一种：把两边的数字各自取出来，看有多少一致。
#
# ```python
# def number_accuracy(texts, references):
#     scores = []
#     for a, b in zip(texts, references):
#         a, b = re.findall(r"\d+", a), re.findall(r"\d+", b)
#         scores.append(sum(x == y for x, y in zip(a, b)) / max(len(b), 1))
#     return sum(scores) / len(scores)
#
# for name, texts in contestants.items():
#     print(name, round(number_accuracy(texts, reference), 2))
# ```
# 它认得出改错的数，却会冤枉换了说法、数字次序不同的好文章。`fidelity` 懂得语法，所以更准，也只在这份语料上能用。
# </details>
#
# **练习 5 ★★★（20 分钟）** 每条导语抽 4 篇，只留总对数概率最高的一篇（best-of-n）。忠实度比只抽一篇高吗？比贪心呢？
#
# <details><summary>参考答案</summary>
#
# ```python
# def best_of_n(intro, n=4):
#     texts = generate(model, tokenizer, [intro] * n, temperature=1.0, seed=3)
#     texts = [t for t in texts if t.strip()] or ["。"]
#     return min(texts, key=lambda t: body_bits_per_char(model, tokenizer, [intro], [t]))
#
# picked = [best_of_n(intro) for intro in few]
# print(fidelity(few, picked).faithful, diversity(picked))
# ```
# 这里按每字比特数挑，免得偏爱短文章。一般它比单抽更忠实，又比贪心多样：用计算换质量，是大模型常用的手法。
# </details>
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
# - Nguyen, M. N. 等（2025）. *Turning Up the Heat:
#   Min-p Sampling for Creative and Coherent LLM Outputs.* ICLR. min-p。
# - Li, J. 等（2016）
#   . *A Diversity-Promoting Objective Function for Neural Conversation Models.* NAACL. distinct-n。
# - Papineni, K. 等（2002）. *BLEU.* ACL；Popović, M.（2015）. *chrF.* WMT；Post, M.（2018）
#   . *A Call for Clarity in Reporting BLEU Scores.* WMT.
# - Pope, R. 等（2023）. *Efficiently Scaling Transformer Inference.* MLSys. KV 缓存在大模型里的代价。
