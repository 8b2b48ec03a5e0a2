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
# # 自注意力
#
# **这一本只回答一个问题：注意力到底在算什么？**
#
# **学习目标**
#
# 1. 从一句真实的新闻出发，用循环、矩阵、批、多头四种写法算出同一个自注意力（self-attention）。
# 2. 说得清查询（query）、键（key）、值（value）各管什么，以及为什么要除以 $\sqrt{d_k}$。
# 3. 会写填充掩码和因果掩码，并能**证明**因果掩码一点都不漏。
# 4. 确认自己写的和 PyTorch、Hugging Face 的实现相等。
#
# **先修**：[[tokenization]]（句子怎样变成词元）；会用 PyTorch 张量做矩阵乘法。
#
# **用时**：阅读和动手约 60 分钟；全部运行，CPU 约 20 秒，GPU 相同（这一本的计算很小，都在 CPU 上做）。
#
# **这一本的符号**（写在代码行尾的形状里）
#
# | 字母 | 意思 |
# |---|---|
# | B | 一批里有几句话（batch） |
# | T | 一句话有几个词元（token） |
# | C | 每个词元的向量有多少维，也叫模型宽度 |
# | H | 头（head）的个数 |
# | D | 每个头的维数，C = H × D，论文里记作 $d_k$ |

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("self_attention")           # 换预设：start("self_attention", preset="smoke")

# %% [markdown]
# ## 1 一句真话，一个练过的模型
#
# 讲注意力的文章常常从一堆随机数开始。随机数算得出结果，却看不出道理。
# 我们用语料里的一句真话，和一个已经做过填空练习的小 BERT（怎么练出来的，[[mlm_pretraining]] 会讲）。

# %%
import math
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertForMaskedLM
from utils.models import load_checkpoint

model, tokenizer, source = load_checkpoint("mlm", BertForMaskedLM, prefer="shipped")
print(source)

# %% [markdown]
# 句子取自测试集，模型练习时没有见过它。为了图好看，挑一句 18 个字左右的。
# 分词器把一个汉字切成一个词元，再在两头加上 `[CLS]` 和 `[SEP]`。

# %%
from utils.corpus import load_corpus

bodies = load_corpus("bundled", n_docs=400)["test"]["body"]
sentences = [part + "。" for body in bodies for part in body.split("。")]
sentences = [part for part in sentences if "“" not in part and "”" not in part]      # 不要引语
text = min(sentences, key=lambda s: abs(len(s) - 18))
inputs = tokenizer(text, return_tensors="pt")                    # input_ids: (1, T)
tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
T = len(tokens)
print(f"{text}\nT = {T}：{' '.join(tokens)}")

# %% [markdown]
# 每个词元先变成一个 C 维向量。这里取模型第 0 层的输入，也就是嵌入层的输出：
# 此时的向量已经带上了字义和位置。**层和头的编号都从 0 起，和 Python 一致。**

# %%
LAYER = 0
with torch.no_grad():
    states = model(**inputs, output_hidden_states=True).hidden_states
x = states[LAYER][0]                                             # (T, C)
C = x.size(-1)
print("x 的形状", tuple(x.shape))

# %% [markdown]
# ## 2 最朴素的想法：像谁，就多听谁的
#
# 「球」这个字单独看，不知道是足球还是地球；看一眼左右的字，就知道了。
# 注意力（attention）做的就是这件事：**让每个词元按相关的程度，把别的词元的信息加到自己身上。**
#
# 一共三步。第一步，算相似度（similarity）。两个向量方向越一致，点积越大：
#
# $$s_{ij} = x_i \cdot x_j = \sum_{c=1}^{C} x_{ic}\,x_{jc}$$
#
# 先盯住一个词元 $i$，用循环老老实实地算。

# %%
i = 4
scores = []
for j in range(T):
    scores.append(sum(x[i, c].item() * x[j, c].item() for c in range(C)))
print(f"「{tokens[i]}」与前几个词元的点积", [f"{tokens[j]} {scores[j]:.1f}" for j in range(6)])

# %% [markdown]
# 第二步，把分数变成权重。softmax 让每个权重都为正、加起来等于 1，分数越大权重越大：
#
# $$w_{ij} = \frac{e^{s_{ij}}}{\sum_{j'} e^{s_{ij'}}}$$
#
# 指数会涨得很快，所以先减去最大的分数。分子分母同除一个数，结果不变，却不会溢出。

# %%
def softmax(values):
    largest = max(values)
    exps = [math.exp(v - largest) for v in values]
    return [e / sum(exps) for e in exps]

weights = softmax(scores)
torch.testing.assert_close(torch.tensor(weights), torch.tensor(scores).softmax(-1), atol=1e-5, rtol=1e-4)
print(f"权重之和 {sum(weights):.6f}；「{tokens[i]}」给自己的权重 {weights[i]:.4f}")

# %% [markdown]
# 第三步，按权重把大家的向量加起来，得到词元 $i$ 的新向量：
#
# $$y_i = \sum_{j} w_{ij}\, x_j$$

# %%
y_i = torch.zeros(C)
for j in range(T):
    y_i += weights[j] * x[j]                                     # (C,)
print("新向量与旧向量最多差", f"{(y_i - x[i]).abs().max():.4f}")

# %% [markdown]
# 这就是注意力的骨架：**点积、softmax、加权和**。不过先看一眼上面两个输出：
# 「给自己的权重」有多大？新向量和旧向量差多少？别急，第 4 节会回来解决它。

# %% [markdown]
# ## 3 从循环到矩阵
#
# 上面只算了一个词元。全部 T 个词元要 $T \times T \times C$ 次乘法，正好是一次矩阵乘法：
#
# $$S = XX^\top,\qquad W = \mathrm{softmax}(S),\qquad Y = WX$$
#
# softmax 沿着最后一维，也就是**每一行**各算各的：第 $i$ 行是词元 $i$ 怎样分配自己的注意力。

# %%
S = x @ x.T                                                      # (T, C) x (C, T) -> (T, T)
W = S.softmax(dim=-1)                                            # (T, T)
Y = W @ x                                                        # (T, T) x (T, C) -> (T, C)

torch.testing.assert_close(S[i], torch.tensor(scores), atol=1e-3, rtol=1e-4)
torch.testing.assert_close(W[i], torch.tensor(weights), atol=1e-4, rtol=1e-3)
torch.testing.assert_close(Y[i], y_i, atol=1e-3, rtol=1e-3)
print("循环与矩阵：相等")

# %% [markdown]
# ## 4 查询、键、值：问的、答的、给的
#
# 直接拿 $x$ 和 $x$ 比，有三个毛病：
#
# - **自己最像自己。** 权重几乎都落在对角线上，等于什么都没看。
# - **只能是对称的。** $x_i \cdot x_j = x_j \cdot x_i$。可是「我需要你」和「你需要我」本来就是两回事。
# - **拿什么比，就只能给什么。** 用来匹配的特征，未必是值得传递的内容。
#
# 办法是给每个词元配三个向量，由三个可以学的矩阵从 $x$ 算出来：
#
# $$q_i = x_i W^Q + b^Q,\qquad k_i = x_i W^K + b^K,\qquad v_i = x_i W^V + b^V$$
#
# | 向量 | 问的是 | 打个比方：去图书馆 |
# |---|---|---|
# | 查询（query）$q$ | 我在找什么 | 你手里的书单 |
# | 键（key）$k$ | 我是什么，谁该来找我 | 书脊上的标签 |
# | 值（value）$v$ | 找到我之后，我给你什么 | 书里的内容 |
#
# 这些矩阵不用我们编：模型里有练好的。一层有 H 个头，每个头各有一套，下面先取其中一个头。
# 取哪个头都行；为了图好看，让程序挑一个看别人看得最集中的（对角线是看自己，不算）。

# %%
from utils.analysis import get_attentions

found = get_attentions(model, tokenizer, text)                   # found.weights: (L, H, T, T)
inner = found.weights[LAYER, :, 1:-1, 1:-1]                      # 去掉 [CLS] 和 [SEP]: (H, T-2, T-2)
others = inner * (1 - torch.eye(T - 2))                          # 对角线清零
HEAD = others.amax(-1).mean(-1).argmax().item()
H = found.heads
D = C // H
print(f"层 {LAYER} 有 {H} 个头，每个头 {D} 维；先看头 {HEAD}")

# %% [markdown]
# 练好的 $W^Q$ 把所有头的列拼在一起存放。属于头 $h$ 的，是第 $hD$ 到 $(h+1)D$ 维。
# （`nn.Linear` 存的是 $W$ 的转置，所以切的是行。）

# %%
attention = model.bert.encoder.layer[LAYER].attention.self
rows = slice(HEAD * D, (HEAD + 1) * D)

def project(linear):
    return x @ linear.weight[rows].T + linear.bias[rows]         # (T, C) x (C, D) -> (T, D)

with torch.no_grad():
    q, k, v = project(attention.query), project(attention.key), project(attention.value)
print("q、k、v 的形状", tuple(q.shape), tuple(k.shape), tuple(v.shape))

# %% [markdown]
# 把 $X$ 换成 $Q$、$K$、$V$，再给分数除以 $\sqrt{D}$（为什么要除，下一节量给你看）：
#
# $$\mathrm{Attention}(Q,K,V) = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{D}}\right)V$$
#
# 这就是 Vaswani 等人 2017 年论文里的式（1）。

# %%
S_qk = q @ k.T / math.sqrt(D)                                    # (T, D) x (D, T) -> (T, T)
W_qk = S_qk.softmax(dim=-1)                                      # (T, T)
y = W_qk @ v                                                     # (T, T) x (T, D) -> (T, D)

torch.testing.assert_close(W_qk, found.weights[LAYER, HEAD], atol=1e-5, rtol=1e-5)
print("和模型自己算出来的权重相等")

# %% [markdown]
# 前两个毛病治好了没有？量一量：对角线上的平均权重，以及分数矩阵离对称有多远。

# %%
def asymmetry(s):
    return ((s - s.T).abs().mean() / s.abs().mean()).item()

for name, s, w in (("x 与 x", S, W), ("q 与 k", S_qk, W_qk)):
    offset = (w.argmax(-1) - torch.arange(T)).mode().values
    print(f"{name}：对角线平均权重 {w.diagonal().mean():.3f}，不对称程度 {asymmetry(s):.3f}，最常看的相对位置 {offset:+d}")
assert W_qk.diagonal().mean() < W.diagonal().mean() and asymmetry(S_qk) > asymmetry(S)
lesson.record("对角线平均权重（x·x）", W.diagonal().mean())
lesson.record("对角线平均权重（q·k）", W_qk.diagonal().mean())

# %% [markdown]
# 第三个毛病呢？看「谁和谁像」：用 $x$ 比一遍，用 $k$ 比一遍，用 $v$ 比一遍，各得一张 T × T 的余弦相似度表，再看两张表的相关系数。
# 相关系数是 1，说明两种特征分不开；离 1 越远，说明用来匹配的和拿来传递的越不是一回事。

# %%
def alike(vectors):
    unit = F.normalize(vectors - vectors.mean(0), dim=-1)        # (T, D)，先减去平均，免得大家都像
    return (unit @ unit.T)[~torch.eye(T, dtype=torch.bool)]      # 去掉对角线：(T * (T-1),)

pairs = {"x 与 k": (x, k), "x 与 v": (x, v), "k 与 v": (k, v)}
correlation = {name: torch.corrcoef(torch.stack([alike(a), alike(b)]))[0, 1].item() for name, (a, b) in pairs.items()}
print("两张相似度表的相关系数：", {name: f"{r:.2f}" for name, r in correlation.items()})
lesson.record("k 与 v 的相似度表的相关系数", correlation["k 与 v"])

# %% [markdown]
# 再画出来对比。左边像一条对角线，谁都只看自己；右边的线挪开了，看的是别人：上面的「相对位置」说的就是挪到了哪里
# （+1 是右边那个字，−1 是左边那个字）。这条线这样整齐，是因为第 0 层有几个头的起点是我们替它摆好的，[[mlm_pretraining]] 会讲。
# （两张图的颜色各以自己的最大值为最深。）

# %%
from utils.display import COLORS, heatmap

figure, axes = plt.subplots(1, 2, figsize=(9, 4.8))
heatmap(W, tokens, tokens, "直接用 x：只看自己", ax=axes[0], xlabel="看向谁", ylabel="谁在看", vmin=0, vmax=1, size=12)
heatmap(W_qk, tokens, tokens, f"用 q 和 k：层 {LAYER} · 头 {HEAD}", ax=axes[1], xlabel="看向谁", vmin=0, size=12)
plt.show()

# %% [markdown]
# ## 5 为什么要除以 $\sqrt{d_k}$
#
# 设 $q$ 和 $k$ 的每一维都独立，均值 0，方差 1。点积是 $D$ 个乘积之和，
# 每个乘积的方差是 1，所以
#
# $$\mathrm{Var}(q \cdot k) = D,\qquad \mathrm{std}(q \cdot k) = \sqrt{D}$$
#
# 维数越大，分数就散得越开。先验证这个公式。

# %%
torch.manual_seed(lesson.seed)
dims = [4, 16, 64, 256, 1024]
draws = {d: (torch.randn(400, d), torch.randn(400, 32, d)) for d in dims}
raw = {d: torch.einsum("nd,nkd->nk", *draws[d]) for d in dims}   # 400 个查询，各有 32 个键：(400, 32)
for d in dims:
    print(f"D = {d:5d}：标准差 {raw[d].std():6.2f}，√D = {math.sqrt(d):6.2f}")
    assert abs(raw[d].std() / math.sqrt(d) - 1) < 0.05

# %% [markdown]
# 分数散开了又怎样？softmax 会**饱和**（saturation）：最大的那个几乎拿走全部权重，
# 而饱和的 softmax 几乎没有梯度（gradient，损失对每个数的导数；训练就是顺着它一点点改参数，没有它就不知道往哪边改）。由 softmax 的导数
#
# $$\frac{\partial w_j}{\partial s_m} = w_j(\delta_{jm} - w_m)$$
#
# 可见，当某个 $w_j \to 1$、其余趋于 0 时，这个矩阵的每一项都趋于 0：分数再怎么变，权重也不动，学不到东西。
# 下面量最大权重的平均值，和这个导数矩阵的大小（各项平方和开方）。

# %%
def saturation(scores):
    w = scores.softmax(-1)                                       # (400, 32)
    jacobian = torch.diag_embed(w) - w[:, :, None] * w[:, None, :]   # (400, 32, 32)
    return w.amax(-1).mean().item(), jacobian.flatten(1).norm(dim=1).mean().item()

plain = [saturation(raw[d]) for d in dims]
scaled = [saturation(raw[d] / math.sqrt(d)) for d in dims]
for d, (w0, g0), (w1, g1) in zip(dims, plain, scaled, strict=True):
    print(f"D = {d:5d} | 不除：最大权重 {w0:.3f} 梯度 {g0:.3f} | 除以 √D：最大权重 {w1:.3f} 梯度 {g1:.3f}")

# %% [markdown]
# 画成曲线更清楚：不除的两条线随维数一路变坏，除过的两条基本是平的。

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
for ax, which, title in ((axes[0], 0, "最大的权重（越近 1 越饱和）"), (axes[1], 1, "softmax 的梯度大小")):
    ax.plot(dims, [m[which] for m in plain], "o-", color=COLORS[1], label="不除")
    ax.plot(dims, [m[which] for m in scaled], "s--", color=COLORS[0], label="除以 √D")
    ax.set(xscale="log", title=title, xlabel="每个头的维数 D", ylim=(0, None))
    ax.set_xticks(dims, dims)
    ax.legend(frameon=False)
axes[0].set_ylabel("权重（32 个键的平均）")
axes[1].set_ylabel("导数矩阵的范数")
plt.show()

# %% [markdown]
# 断言把结论钉住：从 D = 4 到 D = 1024，不除时梯度掉了一大半，除过之后变化不到两成。

# %%
lost_plain, lost_scaled = (1 - m[-1][1] / m[0][1] for m in (plain, scaled))
assert lost_plain > 0.5 and abs(lost_scaled) < 0.2
lesson.record("D 从 4 到 1024，softmax 梯度的损失（不除）", lost_plain)
lesson.record("D 从 4 到 1024，softmax 梯度的损失（除以 √D）", lost_scaled)

# %% [markdown]
# ## 6 掩码：有些位置不许看
#
# 两种情况要遮：
#
# - **填充**（padding）：一批句子长短不一，短的用 `[PAD]` 补齐。补出来的词元不是内容，谁也不该看它。
# - **因果**（causal）：让模型从左往右写字时，第 $i$ 个词元只能看第 $0$ 到 $i$ 个。
#   偷看了后面的答案，就什么也学不到。
#
# 做法是在 softmax **之前**把不许看的分数换成 $-\infty$。因为 $e^{-\infty}=0$，权重恰好是 0，
# 剩下的权重之和仍然是 1。本课程的掩码一律是布尔张量，`True` 表示可以看。

# %%
def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))     # (..., Tq, Tk)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)                             # (..., Tq, Tk)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)                # 整行都被遮住时，把 NaN 换成 0
    return weights @ v, weights                                  # (..., Tq, D), (..., Tq, Tk)

# %% [markdown]
# 最后那个 `if` 管一种边角情况：一整行都被遮住时，softmax 是 $0/0$，得到 NaN，
# 而 NaN 会传染整个网络。这样的词元无人可看，我们约定它的权重和输出都是 0。

# %%
nobody = torch.zeros(T, T, dtype=torch.bool)
output, weights = attend(q, k, v, nobody)
assert output.eq(0).all() and weights.eq(0).all()
print("谁都不许看：输出全是 0，没有 NaN")

# %% [markdown]
# 两种掩码各用一行就能写出来。`[PAD]` 补在末尾，所以填充掩码遮的是右边的**列**；
# 因果掩码是下三角。

# %%
def causal_mask(T):
    return torch.ones(T, T).tril().bool()                        # (T, T)

def padding_mask(attention_mask):
    return attention_mask.bool()[:, None, None, :]               # (B, T) -> (B, 1, 1, T)

short = torch.ones(1, T)
short[:, T - 4:] = 0                                             # 假装最后 4 个是 [PAD]
hidden_pad = padding_mask(short)[0, 0].expand(T, T)              # (T, T)
masks = {"不遮": torch.ones(T, T).bool(), "填充掩码": hidden_pad, "因果掩码": causal_mask(T),
         "两个都用（且）": hidden_pad & causal_mask(T)}

# %% [markdown]
# 同一句话，换四种掩码；两种可以一起用，两个条件都满足才看得见。为了看出差别，换一个最爱看右边的头。
# 被遮住的格子权重恰好是 0，其余的重新分配。颜色从 0 到 0.5，更大的一律最深。

# %%
ahead = found.weights[LAYER].triu(1).sum((-1, -2)).argmax().item()   # 看右边最多的头
part = slice(ahead * D, (ahead + 1) * D)
with torch.no_grad():
    qa, ka, va = (x @ f.weight[part].T + f.bias[part] for f in (attention.query, attention.key, attention.value))

figure, axes = plt.subplots(2, 2, figsize=(9, 9))
blank = [""] * T                                                 # 只在最左、最下写字，不重复
for n, (name, mask) in enumerate(masks.items()):
    _, weights = attend(qa, ka, va, mask)
    assert weights[~mask].eq(0).all()
    heatmap(weights, tokens if n > 1 else blank, tokens if n % 2 == 0 else blank, f"{name}（层 {LAYER} · 头 {ahead}）",
            ax=axes.flat[n], vmin=0, vmax=0.5, size=12)
figure.supxlabel("看向谁", fontsize=13)
figure.supylabel("谁在看", fontsize=13)
plt.show()

# %% [markdown]
# 怎样证明因果掩码**不漏**？把后半句换成别的内容，看前半句的输出变不变。
# 要的不是「差不多」，而是**一个比特都不差**，所以用 `torch.equal`。
# 作为对照，不用掩码时再做一遍。

# %%
half = T // 2
future = x.clone()
future[half:] = torch.randn(T - half, C)                         # 后半句换成噪声

def head_output(x, mask=None):
    q, k, v = (x @ f.weight[rows].T + f.bias[rows] for f in (attention.query, attention.key, attention.value))
    return attend(q, k, v, mask)[0][:half].detach()              # 只看前半句的输出：(half, D)

assert torch.equal(head_output(x, causal_mask(T)), head_output(future, causal_mask(T)))
leak = (head_output(x) - head_output(future)).abs().max().item()
print(f"因果掩码：前半句的输出完全不变；没有掩码：最多变了 {leak:.2f}")
assert leak > 1e-3

# %% [markdown]
# 到这里，一个头的五步都齐了。用下面的步进图走一遍：上面是静态图；下面的交互图要运行 notebook 才出现，
# 点一个词元，按 ←、→ 一步步看数字怎样变，按 ↑、↓ 换词元。

# %%
from utils.views import show_stepper

show_stepper(model, tokenizer, text, layer=LAYER, head=HEAD, token=i)

# %% [markdown]
# ## 7 多头：一次问好几个问题
#
# 一个头每次只有一组权重，只能问一个问题。可是一个词元要问的不止一个：
# 前一个字是什么？这个数字的单位在哪？这句话的主语是谁？
#
# 多头注意力（multi-head attention）把 C 维切成 H 份，每份 D 维，各算各的注意力，
# 最后拼回 C 维，再过一个线性变换把各头的结果混合起来：
#
# $$\mathrm{head}_h = \mathrm{Attention}(XW^Q_h,\,XW^K_h,\,XW^V_h),\qquad
# Y = [\mathrm{head}_1;\dots;\mathrm{head}_H]\,W^O$$
#
# 先用循环写：一句话、一个头一个头地算。

# %%
def one_sentence(x, heads, wq, wk, wv):
    D, outputs = x.size(-1) // heads, []
    for h in range(heads):
        part = slice(h * D, (h + 1) * D)
        q, k, v = wq(x)[:, part], wk(x)[:, part], wv(x)[:, part]     # (T, D) x 3
        outputs.append(attend(q, k, v)[0])                       # (T, D)
    return torch.cat(outputs, dim=-1)                            # (T, C)

with torch.no_grad():
    looped = one_sentence(x, H, attention.query, attention.key, attention.value)
print("拼起来的形状", tuple(looped.shape))

# %% [markdown]
# 再去掉两层循环（批和头）。诀窍是**换形状**：把 C 维拆成 (H, D)，再把 H 换到前面，
# 这样矩阵乘法会自动对每个（句子，头）各做一次。把它写成模块。

# %%
class MultiHeadSelfAttention(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.value, self.output = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2) # (B, T, C) -> (B, H, T, D)

    def forward(self, x, mask=None):
        q, k, v = (self.split(f(x)) for f in (self.query, self.key, self.value))   # (B, H, T, D) x 3
        mixed, weights = attend(q, k, v, mask)                   # (B, H, T, D), (B, H, T, T)
        joined = mixed.transpose(1, 2).flatten(2)                # (B, H, T, D) -> (B, T, C)
        return self.output(joined), weights                      # (B, T, C), (B, H, T, T)

# %% [markdown]
# 装上模型练好的权重，检查两件事：和循环的写法相等；一批两句、长短不一，补齐之后和一句一句算的相等。

# %%
own = MultiHeadSelfAttention(C, H).eval()
block = model.bert.encoder.layer[LAYER].attention
for name in ("query", "key", "value"):
    getattr(own, name).load_state_dict(getattr(block.self, name).state_dict())
own.output.load_state_dict(block.output.dense.state_dict())

with torch.no_grad():
    torch.testing.assert_close(own(x[None])[0][0], own.output(looped), atol=1e-5, rtol=1e-5)
print("一批的写法与循环：相等")

# %% [markdown]
# 第二件：第二句只有前 8 个词元，后面全补成噪声，再用填充掩码遮住。

# %%
batch = torch.stack([x, torch.cat([x[:8], torch.randn(T - 8, C)])])      # (2, T, C)
attention_mask = torch.ones(2, T)
attention_mask[1, 8:] = 0                                        # (B, T)
with torch.no_grad():
    together, _ = own(batch, padding_mask(attention_mask))       # (2, T, C)
    torch.testing.assert_close(together[0], own(x[None])[0][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1, :8], own(x[None, :8])[0][0], atol=1e-5, rtol=1e-5)
print("补齐之后：真词元的输出不变")

# %% [markdown]
# 头变多，参数会变多吗？不会：H 个头共用 C × C 的矩阵，只是切得更细。
# 四个线性层各有 $C^2 + C$ 个参数，一共 $4C^2 + 4C$，与 H 无关。

# %%
for heads in (1, 2, H):
    count = sum(p.numel() for p in MultiHeadSelfAttention(C, heads).parameters())
    print(f"{heads} 个头，每头 {C // heads:3d} 维：{count} 个参数")
    assert count == 4 * C * C + 4 * C

# %% [markdown]
# 同一层的各个头，看的东西往往大不一样。每张小图是一个头，颜色以它自己的最大值为最深。

# %%
rows2 = -(-H // 2)                                               # 每行 2 张，向上取整
figure, axes = plt.subplots(rows2, 2, figsize=(9, 4.4 * rows2))
for h, ax in enumerate(axes.flat[:H]):
    heatmap(found.weights[LAYER, h], tokens if h >= H - 2 else blank, tokens if h % 2 == 0 else blank,
            f"层 {LAYER} · 头 {h}", ax=ax, vmin=0, size=12)
for ax in axes.flat[H:]:
    ax.axis("off")
figure.supxlabel("看向谁", fontsize=13)
figure.supylabel("谁在看", fontsize=13)
plt.show()

# %% [markdown]
# ## 8 和库相等
#
# 自己写的算得对不对，不靠眼看，靠比。第一个对手是 PyTorch 的 `F.scaled_dot_product_attention`。
# 它把整个计算融合成一步，不把 T × T 的权重矩阵存下来（Dao 等 2022），代价是**拿不到权重**：
# 画注意力时要换成老实的写法，就是这个原因。

# %%
q4, k4, v4 = (torch.randn(2, H, T, D) for _ in range(3))         # (B, H, T, D)
for mask in (None, causal_mask(T), padding_mask(attention_mask)):
    mine, theirs = attend(q4, k4, v4, mask)[0], F.scaled_dot_product_attention(q4, k4, v4, mask)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
print("与 F.scaled_dot_product_attention 相等")

# %% [markdown]
# 第二个对手是 `nn.MultiheadAttention`。它把三个矩阵竖着叠成一个 `in_proj_weight`，
# 而且布尔掩码的意思**和我们相反**：`True` 表示不许看。用库之前先弄清这一点，能省下半天的调试。

# %%
theirs = nn.MultiheadAttention(C, H, batch_first=True).eval()
parts = (own.query, own.key, own.value)
with torch.no_grad():
    theirs.in_proj_weight.copy_(torch.cat([f.weight for f in parts]))    # (3C, C)
    theirs.in_proj_bias.copy_(torch.cat([f.bias for f in parts]))        # (3C,)
theirs.out_proj.load_state_dict(own.output.state_dict())

with torch.no_grad():
    precise, visible = batch.double(), causal_mask(T)              # 用双精度比：舍入误差极小，差别只可能出在算法上
    expected, _ = theirs.double()(precise, precise, precise, attn_mask=~visible)
    torch.testing.assert_close(own.double()(precise, visible)[0], expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(own.float()(batch, visible)[0], expected.float(), atol=1e-4, rtol=1e-4)
print("与 nn.MultiheadAttention 相等")

# %% [markdown]
# 第三个对手是这个 BERT 自己的注意力层。它的输出还要加上输入（残差）再做层归一化（LayerNorm），
# 那是 [[transformer]] 的内容，这里先借它的一用。

# %%
with torch.no_grad():
    expected = block(x[None])[0]                                 # (1, T, C)
    output, weights = own(x[None])
    torch.testing.assert_close(block.output.LayerNorm(output + x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights[0], found.weights[LAYER], atol=1e-5, rtol=1e-5)
    gap = (block.output.LayerNorm(output + x) - expected).abs().max().item()
lesson.record("与 Hugging Face 层的最大差", gap)

# %% [markdown]
# 三个都相等。从下一本起，我们直接从 `utils.models` 导入它；那里只有一份，和你刚写的是同一个东西：

# %%
from utils.models import MultiHeadSelfAttention as PackagedAttention

packaged = PackagedAttention.from_bert_layer(block)
with torch.no_grad():
    torch.testing.assert_close(packaged(batch, causal_mask(T)), own(batch, causal_mask(T)))
print("utils.models.attention 与本章手写的：相等")

# %% [markdown]
# ## 9 注意力不认得顺序
#
# 自注意力的公式里没有「第几个」。把词元打乱，输出也只是跟着打乱，每个词元自己得到的向量一点没变。
# 这叫**排列等变**（permutation equivariance）。设 $P$ 是打乱顺序的矩阵：
#
# $$\mathrm{Attention}(PX) = P\,\mathrm{Attention}(X)$$

# %%
order = torch.randperm(T)
with torch.no_grad():
    torch.testing.assert_close(own(x[None, order])[0], own(x[None])[0][:, order], atol=1e-5, rtol=1e-5)
print("先打乱再算 = 先算再打乱")

# %% [markdown]
# 后果很严重：只有字、没有位置的话，「狗咬人」和「人咬狗」里的「狗」会得到同一个向量。
# 拿句子开头的三个字试一试：正着写、倒着写，看第一个字的新向量。先不加位置向量，再加上。

# %%
@torch.no_grad()
def first_character(word, at, positions):
    ids = tokenizer(word, add_special_tokens=False, return_tensors="pt")["input_ids"]
    e = model.bert.embeddings.word_embeddings(ids)               # (1, 3, C)
    if positions:
        e = e + model.bert.embeddings.position_embeddings.weight[:3]
    return own(model.bert.embeddings.LayerNorm(e))[0][0, at]     # (C,)

word = text[:3]
for positions in (False, True):
    gap = (first_character(word, 0, positions) - first_character(word[::-1], 2, positions)).abs().max().item()
    which = "有" if positions else "没有"
    print(f"「{word}」与「{word[::-1]}」，{which}位置向量：「{word[0]}」最多差 {gap:.1e}")
    assert (gap > 1e-3) == positions

# %% [markdown]
# 所以 Transformer 必须另外告诉模型每个词元在第几位。怎么告诉，是 [[transformer]] 的第一件事。

# %% [markdown]
# ## 10 代价：长度的平方
#
# 每个词元都要看每个词元，权重矩阵有 $B \times H \times T^2$ 个数。T 翻倍，它就变成 4 倍。
# 内存由公式就能算准；时间要量。各机器快慢不同，所以只看**相对于最短长度的倍数**；
# 量的是单线程的 CPU 时间，免得同时在跑的别的程序来捣乱。

# %%
import time

@torch.no_grad()
def cpu_seconds(T, repeats=20):
    x, best = torch.randn(1, T, C), math.inf
    for _ in range(repeats):
        begin = time.process_time()
        own(x)
        best = min(best, time.process_time() - begin)
    return best                                                  # 取最快的一次，干扰最小

lengths, threads = [64, 128, 256, 512, 1024], torch.get_num_threads()
torch.set_num_threads(1)
cpu_seconds(64)                                                  # 热身
times = [cpu_seconds(n) for n in lengths]
torch.set_num_threads(threads)

# %% [markdown]
# 「权重矩阵的大小」那条线恰好每步 4 倍。时间在 T 小时涨得慢些（线性层占大头，和 T 成正比），
# T 越大，平方的那一项越占上风，线也越接近它那样陡；矩阵大到处理器的缓存放不下时，还会更陡。

# %%
figure, ax = plt.subplots(figsize=(7, 3.6))
ax.plot(lengths, [(n / 64) ** 2 for n in lengths], "--", color=COLORS[6], label="权重矩阵的大小（公式）")
ax.plot(lengths, [t / times[0] for t in times], "o-", color=COLORS[0], label="时间（实测）")
ax.plot(lengths, [n / 64 for n in lengths], ":", color=COLORS[6], label="与 T 成正比")
ax.set(xscale="log", yscale="log", title="一层自注意力的代价", xlabel="词元数 T", ylabel="T = 64 的多少倍")
ax.set_xticks(lengths, lengths)
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()
lesson.record("T 从 512 到 1024，时间的倍数", times[-1] / times[-2])

# %% [markdown]
# ## 11 亲手看一看
#
# 最后，把整个模型的注意力放到一张能动的图里。上面是静态图；下面的交互图要运行 notebook 才出现：
#
# - 在「句子」框里改字，停手半秒就重新计算；
# - 点右边的小图，或按 ←、→、PgUp、PgDn，换层换头；
# - 把鼠标移到一个词元上看它看向谁，点一下就固定住；按 V 换成矩阵。
#
# 试着找出：哪个头总看前一个字？哪个头总看 `[SEP]`？把句子里的一个数字改掉，哪些头的变化最大？

# %%
from utils.views import show_attention

show_attention(model, tokenizer, text, layer=LAYER, head=HEAD, token=i)

# %% [markdown]
# 有一点要记住：权重大，不等于「模型就是因为它才这样判断」。注意力只是信息流动的一段路，
# 后面还有值向量、残差和许多层。[[attention_visualization]] 会专门讲怎样读这种图，以及它说明不了什么。
#
# ## 小结
#
# - 注意力 = 点积（谁和谁相关）→ softmax（变成和为 1 的权重）→ 加权和（取回信息）。
# - $q$ 管「我找什么」，$k$ 管「我是什么」，$v$ 管「我给什么」。直接用 $x$ 和 $x$ 比，几乎只看得见自己。
# - 不除以 $\sqrt{d_k}$，维数一大 softmax 就饱和，梯度就消失。
# - 掩码在 softmax 之前把分数换成 $-\infty$；因果掩码漏不漏，用「改未来，看过去」来查，要求完全相等。
# - 多头是把 C 维切成 H 份各看各的，参数不变；自注意力不认得顺序，代价是长度的平方。
#
# **下一本**：[[transformer]]，给注意力配上位置、前馈和残差，搭出完整的编码器和解码器。
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import self_attention as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 该除以谁**（★，5 分钟）多头的 `q`、`k` 形状都是 (B, H, T, D)。写出除过之后的分数 (B, H, T, T)，第 $i$ 行是第 $i$ 个词元的。

# %% tags=["stub"]
def attention_scores(q, k):                                               # (B, H, T, D), (B, H, T, D)
    ...                                                                   # ← 换成你的代码，返回 (B, H, T, T)

# %% tags=["check"]
check.attention_scores(attention_scores)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import math
#
# def attention_scores(q, k):
#     return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))              # (B, H, T, T)
# ```
#
# 点积是 D 项之和，所以除以 √D；和有几个头、句子多长都无关。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · 掩码放在哪里**（★，5 分钟）给你还没做 softmax 的分数（最后两维是 T × T），返回加了因果掩码的权重。每行之和必须是 1。

# %% tags=["stub"]
def causal_weights(scores):                                               # (..., T, T)
    ...                                                                   # ← 换成你的代码，返回 (..., T, T)

# %% tags=["check"]
check.causal_weights(causal_weights)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import torch
#
# def causal_weights(scores):
#     T = scores.size(-1)
#     past = torch.ones(T, T).tril().bool()                               # (T, T)
#     return scores.masked_fill(~past, float("-inf")).softmax(dim=-1)     # (..., T, T)
# ```
#
# 先 softmax 再乘 0 是常见的错：被遮住的位置已经在分母里占了份额，剩下的权重之和不到 1；分母里又含有未来的分数，
# 未来的信息就这样漏了过来。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 滑动窗口**（★★，10 分钟）每个词元只能看自己和左边的词元，连自己在内最多 `width` 个。写出掩码 (T, T)。
# 写好之后交给第 6 节的 `attend`，它不用改：窗口固定时，有用的权重只有 T × width 个，代价不再是平方。

# %% tags=["stub"]
def window_mask(T, width):                                                # 两个整数
    ...                                                                   # ← 换成你的代码，返回布尔的 (T, T)

# %% tags=["check"]
check.window_mask(window_mask)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import torch
#
# def window_mask(T, width):
#     past = torch.ones(T, T).tril()                                      # 只看左边和自己
#     near = past.triu(-(width - 1))                                      # 往左最多 width - 1 个
#     return near.bool()                                                  # (T, T)
# ```
#
# 画出来看看：`heatmap(window_mask(T, 4).float(), tokens, tokens, "滑动窗口掩码")`。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · 权重有多集中**（★★，10 分钟）一行权重 $w$ 的熵（entropy）是 $-\sum_j w_j\ln w_j$，单位是奈特；约定 $0\ln 0=0$。
# 均匀地看，熵最大，是 $\ln T$；只看一个，熵是 0。给你 (T, T) 的权重，每行之和是 1，求各行的熵的平均值。

# %% tags=["stub"]
def mean_entropy(weights):                                                # (T, T)，有的格子恰好是 0
    ...                                                                   # ← 换成你的代码，返回一个标量

# %% tags=["check"]
check.mean_entropy(mean_entropy)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def mean_entropy(weights):
#     logs = weights.clamp_min(1e-12).log()                               # 0 换成很小的数，乘回 0 还是 0
#     return -(weights * logs).sum(-1).mean()
# ```
#
# 用它量第 5 节的事：把**练好的**这个头的分数乘以 0.25、1、4（相当于换一个除数），再看熵：
#
# ```python
# for factor in (0.25, 1, 4):
#     print(f"× {factor}：{mean_entropy((factor * S_qk).softmax(-1)):.2f} 奈特，均匀是 {math.log(T):.2f}")
# ```
#
# 乘得越小越接近均匀，乘得越大越接近「只看一个」。这个系数就是 [[generation]] 里的温度（temperature）的倒数。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 合上各头**（★★，8 分钟）各头算完，输出是 (B, H, T, D)。把它拼回 (B, T, C)：第 $h$ 个头放在第 $hD$ 到 $(h+1)D$ 维。

# %% tags=["stub"]
def merge_heads(x):                                                       # (B, H, T, D)
    ...                                                                   # ← 换成你的代码，返回 (B, T, C)

# %% tags=["check"]
check.merge_heads(merge_heads)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def merge_heads(x):
#     return x.transpose(1, 2).flatten(2)                                 # (B, H, T, D) -> (B, T, H, D) -> (B, T, C)
# ```
#
# 只 `reshape` 不换位置，形状也对，程序也不报错，数却全乱了：这是多头最难查的一种错。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 长度的代价**（★，3 分钟）先猜：T 从 512 变成 2048，权重矩阵的数变成几倍？$Q$ 的数变成几倍？

# %% tags=["stub"]
cost = ...                                                                # ← 换成 [权重矩阵的倍数, Q 的倍数]

# %% tags=["check"]
check.cost(cost)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# cost = [16, 4]
# ```
#
# 权重矩阵是 T × T，Q 是 T × D。长文本真正放不下的，是前者。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 7 · 加了因果掩码，还等变吗**（★★★，10 分钟）第 9 节说自注意力是排列等变的。加上因果掩码、不加位置向量，再打乱词元的次序：
#
# - A. 仍然等变：掩码只是把一些权重变成 0，公式没有变。
# - B. 不再等变：掩码写死了第几行能看前几列，打乱之后每个词元能看到的词元变了。
# - C. 仍然等变：没有位置向量，模型就无从知道次序。
# - D. 看权重练没练过：随机的权重等变，练过的不等变。

# %% tags=["stub"]
equivariance = ...                                                        # ← 换成 "A"、"B"、"C" 或 "D"

# %% tags=["check"]
check.equivariance(equivariance)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# equivariance = "B"
# ```
#
# 用第 9 节的办法验证：
#
# ```python
# with torch.no_grad():
#     a = own(x[None, order], causal_mask(T))[0]
#     b = own(x[None], causal_mask(T))[0][:, order]
# print((a - b).abs().max())                                              # 明显不是 0
# ```
#
# 所以解码器即使不加位置向量，也能从「我能看到几个」里间接得到一点位置信息（Haviv 等 2022）。
#
# </details>

# %% [markdown]
# ## 延伸阅读
#
# - Bahdanau、Cho、Bengio（2015），*Neural Machine Translation by Jointly Learning to Align and Translate*：
#   注意力的起点。
# - Vaswani 等（2017），*Attention Is All You Need*：式 (1) 和多头注意力的出处。
# - Clark、Khandelwal、Levy、Manning（2019），*What Does BERT Look At?*：头各自看什么。
# - Jain、Wallace（2019），*Attention is not Explanation*；Wiegreffe、Pinter（2019），
#   *Attention is not not Explanation*：权重能不能当解释。
# - Haviv、Ram、Press、Izsak、Levy（2022），
#   *Transformer Language Models without Positional Encodings Still Learn Positional Information*：见练习 7。
# - Dao、Fu、Ermon、Rudra、Ré（2022），*FlashAttention*：不存下整个权重矩阵，也能算得一模一样。
