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
# # Transformer
#
# **这一本只回答一个问题：怎样搭成编码器和解码器？**
#
# **学习目标**
#
# 1. 写得出 Transformer 的每一块：嵌入、位置（正弦、可学的表、RoPE）、前馈、LayerNorm、残差，并且**量得出**拿掉它会怎样。
# 2. 用一百来行搭出自己的 BERT，装上 Hugging Face 的权重，输出与它相等。
# 3. 把它改成从左往右写的解码器，再加上交叉注意力（cross-attention），与 PyTorch 的解码器层相等。
# 4. 亲手练出一个编码器–解码器，把「二〇二六年三月五日」改写成「2026-03-05」，看它写每个字时在看哪里。
# 5. 会算参数和浮点运算的账，算出来的和数出来的一个不差。
#
# **先修**：[[self_attention]]（自注意力、多头、掩码）。
#
# **用时**：阅读和动手约 90 分钟；全部运行，两核 CPU 约 4 分钟（其中第 8 节约 2 分钟，第 10 节约 1 分钟），GPU 尚未实测。
#
# **这一本的符号**（写在代码行尾的形状里）
#
# | 字母 | 意思 |
# |---|---|
# | B | 一批里有几句话 |
# | T | 一句话有几个词元；有源句和目标句时，T 是目标句的 |
# | S | 源句有几个词元 |
# | C | 每个词元的向量有多少维，也叫模型宽度 |
# | H、D | 头的个数、每个头的维数，C = H × D |
# | F | 前馈层中间的宽度，常取 4C |
# | L | 层数 |
# | V | 词表大小 |

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("transformer")              # 换预设：start("transformer", preset="smoke")

# %% [markdown]
# ## 1 先看终点
#
# 编码器（encoder）读一句话，给每个词元一个带着上下文的向量；解码器（decoder）一次写一个词元，
# 一边看自己写过的，一边看编码器读到的。这一本要搭的就是下面这张图，从下往上看：

# %%
import matplotlib.pyplot as plt
from utils.views import architecture_figure

architecture_figure()
plt.show()

# %% [markdown]
# 只留左边，再接一个词表头，就是 BERT；只留右边，去掉交叉注意力，就是 GPT。三种模型用的是同一盒积木。
# [[self_attention]] 已经做好了最要紧的一块，其余的都很小。先把课程附带的小 BERT 请来：我们搭的每一块，都要和它的对上。

# %%
import math
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertForMaskedLM
from utils.models import load_checkpoint

preset = lesson.preset
model, tokenizer, source = load_checkpoint("mlm", BertForMaskedLM, prefer="shipped")
config = model.config
C, H, T_MAX, V = config.hidden_size, config.num_attention_heads, config.max_position_embeddings, config.vocab_size
print(source)
print(f"L = {config.num_hidden_layers}，C = {C}，H = {H}，F = {config.intermediate_size}，V = {V}，最多 {T_MAX} 个位置")

# %% [markdown]
# ## 2 嵌入：每个字一行
#
# 神经网络只会算数，第一步是把词元的编号换成向量。嵌入（embedding）是一张 V × C 的表，编号是 $v$ 的词元就取第 $v$ 行。
# 它其实也是矩阵乘法：把编号写成只有一个 1 的独热（one-hot）向量，再乘这张表。取一行只是算得快。
#
# $$e = \mathrm{onehot}(v)\,E,\qquad E\in\mathbb{R}^{V\times C}$$

# %%
text = "今天是个赏花的好日子。"
ids = tokenizer(text, return_tensors="pt")["input_ids"]                    # (1, T)
tokens = tokenizer.convert_ids_to_tokens(ids[0].tolist())
T = ids.size(1)
E = model.bert.embeddings.word_embeddings.weight.detach()                 # (V, C)

looked_up = E[ids]                                                        # (1, T, C)
multiplied = F.one_hot(ids, V).float() @ E                                # (1, T, V) x (V, C) -> (1, T, C)
torch.testing.assert_close(looked_up, multiplied)
print("查表与独热乘矩阵：相等，形状", tuple(looked_up.shape))

# %% [markdown]
# ## 3 位置：第几个字
#
# [[self_attention]] 的第 9 节证明了：自注意力不认得顺序。那么一个**练好的**模型有多依赖位置？拿测试集的导语做填空题，
# 三种读法各考一遍：
#
# - 照常读；
# - 字的次序打乱，但每个字**带着自己原来的位置号**；
# - 字的次序打乱，位置号按新的次序发。

# %%
from utils.corpus import load_corpus
from utils.training import mlm_collator

intros = load_corpus("bundled", n_docs=4000)["test"]["intro"][:200]
rows = [{"input_ids": i, "attention_mask": [1] * len(i)} for i in tokenizer(intros)["input_ids"]]
quiz = mlm_collator(tokenizer, 0.15, seed=lesson.seed)(rows)              # 盖住 15% 的字
places = torch.arange(quiz["input_ids"].size(1)).expand_as(quiz["input_ids"])   # (B, T)

@torch.no_grad()
def masked_accuracy(order, positions):
    shuffled = {name: tensor.gather(1, order) for name, tensor in quiz.items()}
    labels = shuffled.pop("labels")
    guess = model(**shuffled, position_ids=positions).logits.argmax(-1)   # (B, T)
    return (guess == labels)[labels != -100].float().mean().item()

# %% [markdown]
# 打乱用的次序对每一句都是随机的。位置号跟着字走，结果应当一点不变；位置号不跟着走，字还是那些字，就不好认了。

# %%
order = torch.rand(places.shape).argsort(1)                               # (B, T)
results = {"照常读": masked_accuracy(places, places), "打乱，位置号跟着字": masked_accuracy(order, order),
           "打乱，位置号重发": masked_accuracy(order, places)}
for name, accuracy in results.items():
    print(f"{name}：填空准确率 {accuracy:.1%}")
assert abs(results["照常读"] - results["打乱，位置号跟着字"]) < 0.01 < results["照常读"] - results["打乱，位置号重发"]
lesson.record("打乱次序之后填空准确率剩下", results["打乱，位置号重发"] / results["照常读"])

# %% [markdown]
# 「第几个」这件事，完全由位置号带来的那个向量决定，与字排在内存的哪里无关。位置有三种常见的做法。
#
# ### 3.1 正弦：算出来的位置
#
# Vaswani 等（2017）给每个位置 $t$ 一串不同快慢的波：
#
# $$P_{t,2n}=\sin(\omega_n t),\qquad P_{t,2n+1}=\cos(\omega_n t),\qquad \omega_n=10000^{-2n/C}$$
#
# 像钟表：秒针转得快，分得清相邻的两刻；时针转得慢，分得清上午下午。先照公式写循环，再写成张量。

# %%
def sinusoidal_loop(length, hidden):
    table = torch.zeros(length, hidden)
    for t in range(length):
        for n in range(hidden // 2):
            omega = 10000 ** (-2 * n / hidden)
            table[t, 2 * n], table[t, 2 * n + 1] = math.sin(omega * t), math.cos(omega * t)
    return table                                                          # (T, C)

def sinusoidal_positions(length, hidden):
    omega = 10000.0 ** (-torch.arange(0, hidden, 2).double() / hidden)    # (C/2,)
    angle = torch.arange(length).double()[:, None] * omega                # (T, 1) x (C/2,) -> (T, C/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()   # (T, C/2, 2) -> (T, C)

waves = sinusoidal_positions(64, 64)
torch.testing.assert_close(waves, sinusoidal_loop(64, 64))
print("循环与张量：相等")

# %% [markdown]
# 左图每一行是一个位置：左边的维变得快，右边的维变得慢。右图是两两的余弦相似度：离得近的像，
# 而且只看相差几格，每条斜线上颜色都一样。

# %%
from utils.views import positions_figure

positions_figure(waves, "正弦位置编码（64 个位置 × 64 维）")
plt.show()

# %% [markdown]
# 「只看相差几格」可以证明：$\sin\alpha\sin\beta+\cos\alpha\cos\beta=\cos(\alpha-\beta)$，所以
#
# $$P_t\cdot P_{t+\delta}=\sum_n\cos(\omega_n\delta)$$
#
# 与 $t$ 无关。量一量：每条斜线上的点积散开多少？

# %%
products = waves @ waves.T                                                # (T, T)
for shift in (1, 5, 20):
    line = products.diagonal(shift)
    formula = sum(math.cos(shift * 10000 ** (-2 * n / 64)) for n in range(32))
    print(f"相差 {shift:2d} 格：点积从 {line.min():.4f} 到 {line.max():.4f}，公式 {formula:.4f}")
    torch.testing.assert_close(line, torch.full_like(line, formula), atol=1e-4, rtol=1e-4)

# %% [markdown]
# ### 3.2 学出来的位置
#
# BERT 不算，直接给每个位置一行参数，和别的权重一起练。好处是模型自己挑；坏处是练的时候没见过的位置，永远没有人教。
# 附带的检查点练好的表是这样（它的起点就是正弦波，[[mlm_pretraining]] 会讲为什么）：

# %%
learned = model.bert.embeddings.position_embeddings.weight.detach()       # (T_MAX, C)
positions_figure(learned, "检查点里练好的位置表（前 32 维）", dims=32)
plt.show()

# %% [markdown]
# ### 3.3 旋转：RoPE
#
# 前两种都把位置**加**到字的向量上。旋转位置编码（rotary position embedding，RoPE；苏剑林等 2021）换了一招：
# 不加，而是在每一层里把查询和键**转过一个角度**。把 D 维两两配对，第 $t$ 个词元的第 $n$ 对转过 $\omega_n t$：
#
# $$\begin{pmatrix}x'_{2n}\\x'_{2n+1}\end{pmatrix}=
# \begin{pmatrix}\cos\omega_n t&-\sin\omega_n t\\\sin\omega_n t&\cos\omega_n t\end{pmatrix}
# \begin{pmatrix}x_{2n}\\x_{2n+1}\end{pmatrix}$$

# %%
def rotate(x):
    T, D = x.shape[-2:]
    omega = 10000.0 ** (-torch.arange(0, D, 2).double() / D)              # (D/2,)
    angle = torch.arange(T).double()[:, None] * omega                     # (T, D/2)
    sin, cos = angle.sin().to(x), angle.cos().to(x)
    even, odd = x[..., 0::2], x[..., 1::2]                                # (..., T, D/2) x 2
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)   # (..., T, D)

x = torch.randn(2, H, 10, 32)                                             # (B, H, T, D)
torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))        # 转动不改变长短
torch.testing.assert_close(rotate(x)[..., 0, :], x[..., 0, :])            # 第 0 个位置不转
print("旋转之后长度不变，第 0 个位置不动")

# %% [markdown]
# 为什么要转？查询在位置 $i$、键在位置 $j$，各转各的，点积里角度相减，只剩下 $j-i$：
#
# $$(R_i q)\cdot(R_j k)=q\cdot R_{j-i}\,k$$
#
# 拿同一个 $q$、同一个 $k$ 放到每一对位置上，把 900 个点积按 $j-i$ 画出来。如果真的只看相对位置，同一个横坐标上的点应当叠成一个。

# %%
from utils.views import rope_figure

q, k = torch.randn(2, 1, 16).double().expand(2, 30, 16)                   # 每个位置放的都一样：(T, D) x 2
turned = rotate(q) @ rotate(k).T                                          # (T, T)
offset = torch.arange(30)[None, :] - torch.arange(30)[:, None]            # j - i: (T, T)
arrows = rotate(torch.tensor([1.0, 0.0]).expand(6, 2))                    # (6, 2)
rope_figure(arrows, {"转过": (offset.flatten(), turned.flatten()), "没转": (offset.flatten(), (q @ k.T).flatten())})
plt.show()

spread = max((turned.diagonal(d).max() - turned.diagonal(d).min()).item() for d in range(-29, 30))
print(f"相对位置相同的点积，最多差 {spread:.1e}")
assert spread < 1e-9

# %% [markdown]
# 和库比一比。Hugging Face 的 Llama 也用 RoPE，只是把第 $n$ 维和第 $n+D/2$ 维配成一对。按它的次序重排，就该相等：

# %%
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

D = 32
reorder = torch.cat([torch.arange(0, D, 2), torch.arange(1, D, 2)])       # 偶数维在前，奇数维在后
angle = torch.arange(10)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)   # (T, D/2)
angle = torch.cat([angle, angle], dim=-1)[None]                           # (1, T, D)
theirs, _ = apply_rotary_pos_emb(x[..., reorder], x[..., reorder], angle.cos(), angle.sin())
torch.testing.assert_close(rotate(x)[..., reorder], theirs, atol=1e-5, rtol=1e-5)
print("与 Llama 的 RoPE 相等（维的次序不同）")

# %% [markdown]
# 三种位置，哪种学得快？第 8 节一起量。
#
# ## 4 前馈：每个词元自己想一想
#
# 注意力负责在词元**之间**搬运信息；搬来之后，每个词元要自己消化。前馈网络（feed-forward network，FFN）就是两个线性层夹一个非线性：
#
# $$\mathrm{FFN}(x)=\phi(xW_1+b_1)\,W_2+b_2$$
#
# 先变宽（C → F，常取 F = 4C），再变回来。$\phi$ 原来用 ReLU，BERT 换成了 GELU（Hendrycks、Gimpel 2016），
# 它是 ReLU 的圆滑版，$\Phi$ 是标准正态的分布函数：
#
# $$\mathrm{GELU}(x)=x\,\Phi(x)=\frac{x}{2}\left(1+\mathrm{erf}\frac{x}{\sqrt2}\right)$$

# %%
class FeedForward(nn.Module):
    def __init__(self, hidden, inner, activation=F.gelu):
        super().__init__()
        self.up, self.down, self.activation = nn.Linear(hidden, inner), nn.Linear(inner, hidden), activation

    def forward(self, x):
        return self.down(self.activation(self.up(x)))                     # (B, T, C) -> (B, T, F) -> (B, T, C)

grid = torch.linspace(-4, 4, 81)
torch.testing.assert_close(grid / 2 * (1 + torch.erf(grid / math.sqrt(2))), F.gelu(grid))
print("GELU 的公式与 F.gelu：相等")

# %% [markdown]
# 装上检查点第 0 层的权重，和库里的前馈比；再验证「各算各的」：一次算整句，和一个词元一个词元地算，结果相同。

# %%
hf_layer = model.bert.encoder.layer[0]
ffn = FeedForward(C, config.intermediate_size)
ffn.up.load_state_dict(hf_layer.intermediate.dense.state_dict())
ffn.down.load_state_dict(hf_layer.output.dense.state_dict())

h = torch.randn(1, T, C)                                                  # (1, T, C)
with torch.no_grad():
    torch.testing.assert_close(ffn(h), hf_layer.output.dense(hf_layer.intermediate(h)))
    one_by_one = torch.stack([ffn(h[0, t]) for t in range(T)])            # (T, C)
    torch.testing.assert_close(ffn(h)[0], one_by_one, atol=1e-5, rtol=1e-5)
shares = [sum(p.numel() for p in m.parameters()) for m in (ffn, hf_layer)]
print(f"与库相等；前馈占这一层参数的 {shares[0] / shares[1]:.0%}")

# %% [markdown]
# ## 5 归一化与残差：让很多层叠得起来
#
# **层归一化**（LayerNorm；Ba 等 2016）把每个词元的向量拉回固定的尺度：减去自己的均值，除以自己的标准差，再乘上、加上两个可学的向量：
#
# $$\mathrm{LN}(x)=\gamma\odot\frac{x-\mu}{\sqrt{\sigma^2+\epsilon}}+\beta,\qquad
# \mu=\frac1C\sum_c x_c,\quad\sigma^2=\frac1C\sum_c(x_c-\mu)^2$$
#
# 均值和方差只在**这一个词元**的 C 维里算，和同一批的别的句子无关。方差除以 C，不是 C − 1。

# %%
def layer_norm(x, gamma, beta, eps):
    mu = x.mean(-1, keepdim=True)                                         # (B, T, 1)
    variance = ((x - mu) ** 2).mean(-1, keepdim=True)                     # (B, T, 1)
    return gamma * (x - mu) / (variance + eps).sqrt() + beta              # (B, T, C)

norm = hf_layer.output.LayerNorm
with torch.no_grad():
    torch.testing.assert_close(layer_norm(h, norm.weight, norm.bias, norm.eps), norm(h))
print("手写与 nn.LayerNorm：相等")

# %% [markdown]
# **残差**（residual；He 等 2015）让子层只算「要改多少」，改动加到原来的向量上：$x+f(x)$。
# 输入有一条不经过任何运算的直路通到输出，梯度也沿这条路直直地回来。
#
# 归一化放在哪里，有两种次序：
#
# - **Post-LN**（原论文、BERT）：$\mathrm{LN}(x+f(x))$，直路上也隔着归一化。
# - **Pre-LN**（GPT-2 起大多如此）：$x+f(\mathrm{LN}(x))$，直路完全畅通，最后要再补一个 LN。

# %%
from utils.views import block_figure

block_figure(["post", "pre"])
plt.show()

# %% [markdown]
# 写成代码只有一行，两种次序一个开关。`sublayer` 是注意力或前馈，后面的编码器和解码器都用它来套：

# %%
class Block(nn.Module):
    pre_norm = False

    def wrap(self, x, norm, sublayer):
        return x + sublayer(norm(x)) if self.pre_norm else norm(x + sublayer(x))   # (B, T, C) -> (B, T, C)

# %% [markdown]
# ## 6 编码器的一层
#
# 注意力用 [[self_attention]] 做好的 `MultiHeadSelfAttention`，只添两样本领：`turn` 可以转动查询和键（RoPE）；
# `memory` 让键和值来自另一句话（第 9 节的交叉注意力才用得上）。参数一个不多，一个不少。

# %%
from utils.models import MultiHeadSelfAttention, causal_mask, padding_mask, scaled_dot_product_attention

class MultiHeadAttention(MultiHeadSelfAttention):
    def forward(self, x, mask=None, memory=None, turn=None):
        source = x if memory is None else memory                          # 新：键和值从哪里来
        q = self.split_heads(self.query(x))                               # (B, H, T, D)
        k, v = self.split_heads(self.key(source)), self.split_heads(self.value(source))   # (B, H, S, D) x 2
        if turn is not None:
            q, k = turn(q), turn(k)                                       # 新：RoPE
        mixed, weights = scaled_dot_product_attention(q, k, v, mask)      # (B, H, T, D), (B, H, T, S)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights     # (B, T, C), (B, H, T, S)

# %% [markdown]
# 编码器的一层 = 注意力 + 前馈，各套一次残差和归一化：

# %%
class EncoderBlock(Block):
    def __init__(self, hidden, heads, inner, activation=F.gelu, eps=1e-12, pre_norm=False):
        super().__init__()
        self.attention, self.ffn = MultiHeadAttention(hidden, heads), FeedForward(hidden, inner, activation)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)
        self.pre_norm = pre_norm

    def forward(self, x, mask=None, turn=None):
        x = self.wrap(x, self.norm1, lambda y: self.attention(y, mask, turn=turn)[0])   # (B, T, C)
        return self.wrap(x, self.norm2, self.ffn)                         # (B, T, C)

# %% [markdown]
# 残差到底帮了什么？叠 24 层，**还没训练**，从最后一层的输出往回传梯度，看每一层的输入收到多大的梯度。
# 随机权重抽一次，曲线一个样，所以抽九次。再写一个没有残差的版本来比：

# %%
class NoResidual(EncoderBlock):
    def wrap(self, x, norm, sublayer):
        return norm(sublayer(x))

def gradient_by_layer(block, seed, depth=24, hidden=64, **options):
    torch.manual_seed(seed)
    blocks = [block(hidden, 4, 4 * hidden, **options) for _ in range(depth)]
    states = [torch.randn(1, 16, hidden, requires_grad=True)]             # (1, T, C)
    for b in blocks:
        states.append(b(states[-1]))
    gradients = torch.autograd.grad((states[-1] * torch.randn(1, 16, hidden)).sum(), states)
    return [g.norm().item() for g in gradients]                           # depth + 1 个：每一层的输入，和最后的输出

designs = {"Post-LN": (EncoderBlock, {}), "Pre-LN": (EncoderBlock, dict(pre_norm=True)), "没有残差": (NoResidual, {})}
flow = {name: torch.tensor([gradient_by_layer(block, lesson.seed + n, **options) for n in range(9)])
        for name, (block, options) in designs.items()}                    # 每种 (9, depth + 1)

# %% [markdown]
# 从右往左看，右边是最上面一层。线是九次的中位数，阴影是九次里的最小到最大；纵轴是对数坐标，每一大格差 10 倍。
# 看没有残差的那一条，往下走几层掉了多少，阴影有多宽；再看有残差的两种平不平。
# Pre-LN 与 Post-LN 的差别要看各层**参数**的梯度和学习率：Xiong 等（2020）发现 Post-LN 离不开升温（warm-up），Pre-LN 可以不要。

# %%
from utils.display import COLORS

figure, ax = plt.subplots(figsize=(8, 3.8))
for (name, norms), color in zip(flow.items(), COLORS):
    shares = norms / norms[:, -1:]                                        # 最上面一层算 1
    ax.fill_between(range(shares.size(1)), shares.min(0).values, shares.max(0).values, color=color, alpha=0.15, linewidth=0)
    ax.plot(shares.median(0).values, "o-", markersize=4, color=color, label=name)
ax.set(yscale="log", title="梯度传到每一层还剩多少（随机权重，24 层，各抽九次）", xlabel="第几层的输入", ylabel="与最上面一层之比")
ax.legend(frameon=False)
plt.show()
halfway = {name: (norms[:, 12] / norms[:, -1]).median().item() for name, norms in flow.items()}
print("往下走 12 层，梯度剩下（九次的中位数）：", {name: f"{ratio:.2f}" for name, ratio in halfway.items()})
assert halfway["没有残差"] < halfway["Post-LN"] < halfway["Pre-LN"]
lesson.record("没有残差，往下走 12 层，梯度剩下", halfway["没有残差"])

# %% [markdown]
# ## 7 自己的 BERT
#
# 积木齐了。BERT 有三种嵌入：字、位置、段（token type，分辨是第一句还是第二句），相加之后归一化。
# 大小都从 Hugging Face 的 `config` 里读，这样任何尺寸的 BERT 都装得下。

# %%
class BertEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids, token_type_ids=None):
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        places = torch.arange(input_ids.size(1))                          # (T,)
        return self.norm(self.word(input_ids) + self.token_type(types) + self.position(places))   # (B, T, C)

# %% [markdown]
# 词表头（head）把每个词元的向量变成 V 个分数（logits）。BERT 在打分之前再变换一次。
# 激活函数（activation function）的名字也写在 `config` 里，`ACT2FN` 是库里的一张「名字 → 函数」的表。

# %%
from transformers.activations import ACT2FN

class VocabularyHead(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.transform, self.activation = nn.Linear(config.hidden_size, config.hidden_size), ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, x):
        return self.decoder(self.norm(self.activation(self.transform(x))))   # (B, T, C) -> (B, T, V)

# %% [markdown]
# 首尾接上 L 层编码器，就是整个模型。两处细节：
#
# - **共享词表头**（tie）：输出层的矩阵就是字嵌入那张表，省下 V × C 个参数。
# - **因果**（causal）：`config.is_decoder` 为真时加上因果掩码，同一个模型就变成从左往右写的解码器。

# %%
class Bert(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.causal = config.is_decoder
        self.embeddings = BertEmbeddings(config)
        self.blocks = nn.ModuleList(
            EncoderBlock(config.hidden_size, config.num_attention_heads, config.intermediate_size,
                         ACT2FN[config.hidden_act], config.layer_norm_eps)
            for _ in range(config.num_hidden_layers))
        self.head = VocabularyHead(config)
        if config.tie_word_embeddings:
            self.head.decoder.weight = self.embeddings.word.weight

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        mask = None if attention_mask is None else padding_mask(attention_mask)   # (B, 1, 1, T)
        if self.causal:
            past = causal_mask(input_ids.size(1))                         # (T, T)
            mask = past if mask is None else past & mask                  # (B, 1, T, T)
        x = self.embeddings(input_ids, token_type_ids)                    # (B, T, C)
        for block in self.blocks:
            x = block(x, mask)                                            # (B, T, C)
        return self.head(x)                                               # (B, T, V)

# %% [markdown]
# ### 装上别人的权重
#
# 权重文件就是一张「名字 → 张量」的表（state dict）。运算相同，只是名字不同，所以先写一张改名的规则。
# 左边是 Hugging Face 的名字（正则表达式），右边是我们的：

# %%
import re

RENAMES = [
    (r"^bert\.embeddings\.(word|position|token_type)_embeddings\.", r"embeddings.\1."),
    (r"^bert\.embeddings\.LayerNorm\.", "embeddings.norm."),
    (r"^bert\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense\.", "attention.output."),
    (r"attention\.output\.LayerNorm\.", "norm1."),
    (r"intermediate\.dense\.", "ffn.up."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.ffn.down."),
    (r"^(blocks\.\d+)\.output\.LayerNorm\.", r"\1.norm2."),
    (r"^cls\.predictions\.transform\.dense\.", "head.transform."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "head.norm."),
    (r"^cls\.predictions\.decoder\.", "head.decoder."),
]

# %% [markdown]
# `load_state_dict` 默认是严格的：多一个、少一个、形状差一点都报错。所以它一声不吭，就说明我们的模型和 BERT 的零件一一对应。

# %%
def load_hugging_face(own, weights):
    renamed = {}
    for name, weight in weights.items():
        for pattern, new in RENAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = weight
    renamed.pop("cls.predictions.bias")                                   # 与 head.decoder.bias 是同一个
    own.load_state_dict(renamed)
    return own.eval()

own = load_hugging_face(Bert(config), model.state_dict())
count = sum(p.numel() for p in own.parameters())
assert count == sum(p.numel() for p in model.parameters())
print(f"装上了，{count} 个参数，与库的模型一样多")

# %% [markdown]
# 输出也相等吗？一批两句，长短不一，带填充。先看原样（float32）的差：

# %%
batch = tokenizer(["今天是个赏花的好日子。", "全市气温下降。"], padding=True, return_tensors="pt")
real = batch["attention_mask"].bool()                                     # 只比真词元：(B, T)
with torch.no_grad():
    mine, theirs = own(batch["input_ids"], batch["attention_mask"])[real], model(**batch).logits[real]   # (N, V) x 2
print(f"logits 最大 {theirs.abs().max():.1f}，float32 下最多差 {(mine - theirs).abs().max():.1e}")

# %% [markdown]
# float32 只有约 7 位有效数字，几十那么大的数，舍入误差就有十万分之几，而且两边加法的次序不同。
# 想知道**算法**是否相同，就换成双精度（float64，约 16 位）再比：差别若来自舍入，会缩小上亿倍；若来自算法，一点不会变小。

# %%
with torch.no_grad():
    mine, theirs = own.double()(batch["input_ids"], batch["attention_mask"])[real], model.double()(**batch).logits[real]
own.float(), model.float()
torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
lesson.record("自己的 BERT 与 Hugging Face 的 logits 最大差（float64）", (mine - theirs).abs().max())
assert (mine - theirs).abs().max() < 1e-10

# %% [markdown]
# 一个检查点相等，也许是碰巧。随机造几个大小、激活函数、`eps` 都不一样的 BERT，共享和不共享词表头的都有，逐个比：

# %%
from transformers import BertConfig

for layers, hidden, heads, inner, act, eps, tie in ((1, 24, 2, 50, "relu", 1e-5, True), (3, 36, 3, 64, "gelu_new", 1e-12, False),
                                                    (2, 40, 5, 160, "silu", 1e-3, True)):
    random_config = BertConfig(vocab_size=97, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                               intermediate_size=inner, hidden_act=act, layer_norm_eps=eps, tie_word_embeddings=tie,
                               max_position_embeddings=33, type_vocab_size=3, initializer_range=0.2)
    theirs = BertForMaskedLM(random_config).eval()
    copied = load_hugging_face(Bert(random_config), theirs.state_dict())
    ids97, types = torch.randint(97, (2, 20)), torch.randint(3, (2, 20))  # (B, T) x 2
    with torch.no_grad():
        gap = (copied(ids97, token_type_ids=types) - theirs(ids97, token_type_ids=types).logits).abs().max()
    print(f"{layers} 层 × {hidden} 维 × {heads} 头，F = {inner}，{act}，eps = {eps:g}，共享 = {tie}：最多差 {gap:.1e}")
    assert gap < 1e-5

# %% [markdown]
# 现在它会做库里的模型会做的一切。让它填个空：

# %%
cloze = "今天是个赏[MASK]的好日子。"
ids = tokenizer(cloze, return_tensors="pt")["input_ids"]                   # (1, T)
with torch.no_grad():
    p = own(ids)[0, ids[0] == tokenizer.mask_token_id].softmax(-1)        # (1, V)
best = p.topk(3)
print(cloze, [f"{tokenizer.convert_ids_to_tokens(i.item())} {w:.2f}" for w, i in zip(best.values[0], best.indices[0])])

# %% [markdown]
# ### 换一个开关，就会写字
#
# 因果模式要和库里的 `BertLMHeadModel(is_decoder=True)` 相等。用课程附带的、会写正文的那个检查点，照样在双精度下比：

# %%
from transformers import BertLMHeadModel

writer, writer_tokenizer, source = load_checkpoint("clm", BertLMHeadModel, prefer="shipped", is_decoder=True)
print(source)
own_writer = load_hugging_face(Bert(writer.config), writer.state_dict())
batch = writer_tokenizer(["今天是个赏花的好日子，", "全市"], padding=True, return_tensors="pt")
real = batch["attention_mask"].bool()
with torch.no_grad():
    mine = own_writer.double()(batch["input_ids"], batch["attention_mask"])[real]
    theirs = writer.double()(**batch).logits[real]
torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
own_writer.float(), writer.float()
print(f"与 BertLMHeadModel 相等，最多差 {(mine - theirs).abs().max():.1e}")

# %% [markdown]
# 漏不漏？照 [[self_attention]] 的办法查：换掉后半句，前半句的 logits 应当**一个比特都不变**。对照组是双向的 BERT，它变了。

# %%
ids = writer_tokenizer("今天是个赏花的好日子，月湾市丹枫岭景区", return_tensors="pt")["input_ids"]
half, changed = ids.size(1) // 2, ids.clone()
changed[:, half:] = torch.randint(5, 500, changed[:, half:].shape)        # 后半句换成别的字

with torch.no_grad():
    assert torch.equal(own_writer(ids)[:, :half], own_writer(changed)[:, :half])
    leak = (own(ids)[:, :half] - own(changed)[:, :half]).abs().max().item()
print(f"因果：完全不变；双向：最多变了 {leak:.1f}")
assert leak > 1e-2

# %% [markdown]
# 于是就能一个字一个字地写：每次取最后一个位置概率最大的字，接到后面再来（贪心，greedy；[[generation]] 会讲更好的办法）。

# %%
ids = writer_tokenizer("今天是个", return_tensors="pt")["input_ids"][:, :-1]   # 去掉末尾的 [SEP]
with torch.no_grad():
    while ids.size(1) < 60 and ids[0, -1] != writer_tokenizer.sep_token_id:
        ids = torch.cat([ids, own_writer(ids)[:, -1:].argmax(-1)], dim=1)  # (1, T) -> (1, T+1)
print("".join(writer_tokenizer.convert_ids_to_tokens(ids[0].tolist())))

# %% [markdown]
# 这些类从此住在 `utils.models.transformer` 和 `utils.models.bert` 里，只有那一份。确认它和上面手写的是同一个东西：

# %%
from utils.models import Bert as PackagedBert

packaged = PackagedBert.from_hugging_face(model)
ids = tokenizer(text, return_tensors="pt")["input_ids"]
with torch.no_grad():
    assert torch.equal(packaged(ids), own(ids))
assert list(packaged.state_dict()) == list(own.state_dict())
print("utils.models.bert 与本章手写的：名字、输出都相等")

# %% [markdown]
# ## 8 消融：拿掉一样会怎样
#
# 每一块都有道理，可是哪一块真的要紧？**消融**（ablation）就是每次只拿掉一样，别的都不动，各练一遍来比。
# 任务是填空（MLM），语料只取体育类的导语，模型是 4 层 × 64 维的小编码器。嵌入、位置、前馈、归一化、残差都做成开关；
# 嵌入没法真的拿掉，就让它停在随机的起点，不许练：

# %%
class Nothing(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)

class TinyMLM(nn.Module):
    def __init__(self, vocab, hidden=64, layers=4, block=EncoderBlock, positions="learned", pre_norm=False, ffn=True, norm=True,
                 embedding=True):
        super().__init__()
        table = {"learned": 0.1 * torch.randn(64, hidden), "sin": 0.1 * sinusoidal_positions(64, hidden)}
        self.word, self.turn = nn.Embedding(vocab, hidden), rotate if positions == "rope" else None
        nn.init.normal_(self.word.weight, std=0.1).requires_grad_(embedding)
        self.places = nn.Parameter(table.get(positions, torch.zeros(64, hidden)), requires_grad=positions == "learned")
        self.blocks = nn.ModuleList(block(hidden, 4, 4 * hidden, pre_norm=pre_norm) for _ in range(layers))
        self.first = nn.Identity() if pre_norm else nn.LayerNorm(hidden)  # BERT 在嵌入之后就归一化一次
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, vocab)
        for b in self.blocks:
            b.ffn = b.ffn if ffn else Nothing()
            b.norm1, b.norm2 = (b.norm1, b.norm2) if norm else (nn.Identity(), nn.Identity())
        self.first, self.norm = (self.first, self.norm) if norm else (nn.Identity(), nn.Identity())

# %% [markdown]
# 前向和 BERT 一样，只是词表头只在要猜的位置算（省时间）。返回 `loss`，Hugging Face 的 Trainer 就能训练它。

# %%
class AblationMLM(TinyMLM):
    def forward(self, input_ids, attention_mask, labels):
        x = self.first(self.word(input_ids) + self.places[:input_ids.size(1)])   # (B, T, C)
        mask = padding_mask(attention_mask)                               # (B, 1, 1, T)
        for block in self.blocks:
            x = block(x, mask, self.turn)                                 # (B, T, C)
        at = labels != -100                                               # (B, T)
        logits = self.head(self.norm(x[at]))                              # (N, V)，N 是要猜的个数
        return {"loss": F.cross_entropy(logits, labels[at]), "logits": logits}

# %% [markdown]
# 九种做法。「完整」是 BERT 的样子：Post-LN，可学的位置。每种各练同样多的步，换不同的种子；种子放在外层循环。

# %%
from datasets import Dataset
from utils.tokenization import build_tokenizer, unigram_nats

variants = {"完整（Post-LN）": {}, "换成 Pre-LN": dict(pre_norm=True), "换成正弦位置": dict(positions="sin"),
            "换成 RoPE": dict(positions="rope"), "嵌入不练": dict(embedding=False), "没有位置": dict(positions=None),
            "没有前馈": dict(ffn=False), "没有 LayerNorm": dict(norm=False), "没有残差": dict(block=NoResidual)}
steps, seeds = {"smoke": (6, 1), "cpu": (220, 2)}.get(preset.name, (600, 3))

docs = load_corpus("bundled", n_docs=preset.n_docs).filter(lambda c: c == "体育", input_columns="category")
small_tokenizer = build_tokenizer("char", docs["train"]["intro"][:], model_max_length=64)
sports = {split: Dataset.from_list([{"input_ids": i, "attention_mask": [1] * len(i), "length": len(i)}
                                    for i in small_tokenizer(docs[split]["intro"][:])["input_ids"]])
          for split in ("train", "validation")}
unigram = unigram_nats(sports["train"]["input_ids"][:], sports["validation"]["input_ids"][:], len(small_tokenizer))
print(f"{len(sports['train'])} 条导语，词表 {len(small_tokenizer)}，一元模型 {unigram:.2f} 奈特/词元")

# %% [markdown]
# 训练用 [[mlm_pretraining]] 会细讲的 `train`（Trainer 的薄包装），`quiet=True` 是不画进度。考卷是固定的一批，遮盖也固定。

# %%
from dataclasses import replace
from utils.training import train, training_arguments

exam = mlm_collator(small_tokenizer, 0.15, seed=lesson.seed)(list(sports["validation"])[:200])
exam = {name: tensor.to(lesson.device) for name, tensor in exam.items()}

@torch.no_grad()
def grade(student):
    student.eval()
    output = student(**exam)
    guess, gold = output["logits"].argmax(-1), exam["labels"][exam["labels"] != -100]
    student.train()
    return output["loss"].item(), (guess == gold).float().mean().item()

small = replace(preset, batch_size=16, lr=3e-3)
runs = {name: [] for name in variants}
for seed in range(seeds):
    for name, options in variants.items():
        torch.manual_seed(seed)
        student = AblationMLM(len(small_tokenizer), **options).to(lesson.device)
        args = training_arguments(lesson.outputs / "ablation", steps, small, lesson.device, seed)
        runs[name].append(train(student, sports["train"], mlm_collator(small_tokenizer, 0.4, seed), args, grade,
                                evaluations=6, resume=False, quiet=True))

# %% [markdown]
# 细线是各个种子，粗线是平均。虚线是只会猜字频的一元模型：压在它上面下不来的，等于没学会看上下文。

# %%
from utils.views import ablation_figure

ablation_figure({name: [(h.eval_steps, h.eval_loss) for h in histories] for name, histories in runs.items()},
                (f"一元模型 {unigram:.2f}", unigram))
plt.show()

# %% [markdown]
# 差别要和种子的起伏比：同一种做法换个种子也会差一点，比这还小的差别不算数。下面由程序来判。

# %%
final = {name: [h.eval_loss[-1] for h in histories] for name, histories in runs.items()}
mean = {name: sum(values) / len(values) for name, values in final.items()}
base = "完整（Post-LN）"
for name, values in final.items():
    gap = mean[name] - mean[base]
    spread = max(max(v) - min(v) for v in (values, final[base]))
    verdict = "" if name == base else f"；比完整的{'高' if gap > 0 else '低'} {abs(gap):.3f}，" + (
        "差别可信" if abs(gap) > spread else f"种子的起伏有 {spread:.3f}，分不出高下")
    print(f"{name}：损失 {mean[name]:.3f}（{min(values):.3f} 到 {max(values):.3f}）{verdict}")
for name in ("嵌入不练", "没有位置", "没有前馈", "没有 LayerNorm", "没有残差"):
    lesson.record(f"消融：{name}，损失比完整的高", mean[name] - mean[base], "奈特/词元")

# %% [markdown]
# 怎样读这张表（高多少、可不可信，看上面打印的）：
#
# - **三种位置**：看「换成正弦位置」「换成 RoPE」两行。RoPE 不用学就分得清相对远近，可学的表要先把每一行练出来；这是短跑里的名次。
# - **没有残差**：和第 6 节的梯度图对上了。只有四层，损失就停在一元模型附近。
# - **没有位置**：一句话成了一袋字，只能靠「句子里有哪些字」来猜。
# - **嵌入不练**：字的向量停在随机的起点，用法相近的字挨不到一起（[[mlm_pretraining]] 会量），上面的层只好绕着它学。
# - **没有前馈**：参数也少了一大半，所以差多差少都不全是「结构」的功劳；想公平，要拿参数一样多的来比（见练习 7）。
# - **没有 LayerNorm**：四层的小模型、有升温的学习率，缺了它也练得动，短跑里甚至不一定慢；
#   层数一多、学习率一大，它才显出分量。**一样东西有没有用，要问在多深、多久的时候。**
#
# 也要记得这张表的边界：一个小任务、几百步、几个种子。换成大模型、长训练，谁先谁后可能不同。

# %%
assert preset.name == "smoke" or min(mean["没有残差"], mean["没有位置"]) > mean[base] + 0.3

# %% [markdown]
# ## 9 解码器：一边写，一边看
#
# 编码器–解码器用在「读一句、写另一句」的事情上。解码器的一层比编码器多一个**交叉注意力**：
# 查询来自正在写的句子，键和值来自编码器的输出（记忆，memory）。写每个字时，都回头问一遍原文：我该看哪里？
#
# $$\mathrm{Cross}(X,M)=\mathrm{softmax}\!\left(\frac{(XW^Q)(MW^K)^\top}{\sqrt D}\right)MW^V$$

# %%
block_figure(["decoder"])
plt.show()

# %% [markdown]
# 写成代码，就是三个子层各套一次。自注意力用因果掩码；交叉注意力不用，因为原文早就读完了，从头到尾都可以看。

# %%
class DecoderBlock(Block):
    def __init__(self, hidden, heads, inner, activation=F.gelu, eps=1e-12, pre_norm=False):
        super().__init__()
        self.attention, self.cross = MultiHeadAttention(hidden, heads), MultiHeadAttention(hidden, heads)
        self.ffn = FeedForward(hidden, inner, activation)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(hidden, eps) for _ in range(3))
        self.pre_norm = pre_norm

    def forward(self, x, memory, memory_mask=None):
        seen = []                                                         # 交叉注意力的权重，画图用
        def cross(y):
            output, weights = self.cross(y, memory_mask, memory)          # (B, T, C), (B, H, T, S)
            seen.append(weights)
            return output
        past = causal_mask(x.size(1))                                     # (T, T)
        x = self.wrap(x, self.norm1, lambda y: self.attention(y, past)[0])   # (B, T, C)
        x = self.wrap(x, self.norm2, cross)                               # (B, T, C)
        return self.wrap(x, self.norm3, self.ffn), seen[0]                # (B, T, C), (B, H, T, S)

# %% [markdown]
# 和 `nn.TransformerDecoderLayer` 比。它把 Q、K、V 三个矩阵叠在一起，名字也不同，先写一个复制权重的函数：

# %%
def copy_torch_layer(theirs, heads):
    C, F_ = theirs.linear1.in_features, theirs.linear1.out_features
    mine = DecoderBlock(C, heads, F_, F.relu, theirs.norm1.eps, theirs.norm_first)
    for own_part, their_part in ((mine.attention, theirs.self_attn), (mine.cross, theirs.multihead_attn)):
        for linear, weight, bias in zip((own_part.query, own_part.key, own_part.value),
                                        their_part.in_proj_weight.chunk(3), their_part.in_proj_bias.chunk(3)):
            linear.load_state_dict({"weight": weight, "bias": bias})      # (3C, C) 切成三个 (C, C)
        own_part.output.load_state_dict(their_part.out_proj.state_dict())
    for own_part, their_part in ((mine.ffn.up, theirs.linear1), (mine.ffn.down, theirs.linear2), (mine.norm1, theirs.norm1),
                                 (mine.norm2, theirs.norm2), (mine.norm3, theirs.norm3)):
        own_part.load_state_dict(their_part.state_dict())
    return mine

# %% [markdown]
# Post-LN 和 Pre-LN 两种次序都比：

# %%
x, memory = torch.randn(2, 7, 32), torch.randn(2, 9, 32)                  # (B, T, C), (B, S, C)
future = nn.Transformer.generate_square_subsequent_mask(7)                # PyTorch 的因果掩码：不许看的是 -inf
for norm_first in (False, True):
    theirs = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first).eval()
    mine = copy_torch_layer(theirs, 4)
    with torch.no_grad():
        gap = (mine(x, memory)[0] - theirs(x, memory, tgt_mask=future)).abs().max()
    print(f"{'Pre' if norm_first else 'Post'}-LN：与 nn.TransformerDecoderLayer 最多差 {gap:.1e}")
    assert gap < 1e-5

# %% [markdown]
# 两个方向都查一查漏不漏：改**目标**的后文，前文的输出不许变；改**原文**的任何一个字，所有位置都应当跟着变。

# %%
later, other = x.clone(), memory.clone()
later[:, 4:] += 1.0
other[:, 8] += 1.0
with torch.no_grad():
    before, after, elsewhere = mine(x, memory)[0], mine(later, memory)[0], mine(x, other)[0]
assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])
assert (before - elsewhere).abs().amax(-1).min() > 0
print("目标的后文一点不漏；原文的每个字，写哪里都看得到")

# %% [markdown]
# ## 10 一个真的任务：把中文数字改写成阿拉伯数字
#
# 「二〇二六年三月五日」「两千零三」「百分之三点五」：人一看就懂，程序要统计、要排序，就得先改写成规范的样子。
# 题目由代码生成，四类轮流。**答案不同才算不同的题**：考试的答案，练习时一个也没见过。

# %%
from utils.corpus import make_pairs

pairs = {"train": make_pairs("train", 20000, lesson.seed), "test": make_pairs("test", 2000, lesson.seed)}
for pair in pairs["train"][:8]:
    print(f"{pair.kind}：{pair.source} → {pair.target}")
answers = {split: {p.target for p in rows} for split, rows in pairs.items()}
assert not answers["train"] & answers["test"]
print(f"练习有 {len(answers['train'])} 种答案，考试有 {len(answers['test'])} 种，没有重合")

# %% [markdown]
# 难在哪里？「十二」是两个字，写出来也是两个数字，但「二十」「二百零三」要补零，「下午」要加 12；
# 写第一位之前，得先读完全句，才知道它是几位数。所以编码器要能左右都看。
#
# 模型把前面的积木接起来：编码器读，`memory` 交给解码器。两边共用一张字嵌入表，正弦位置，Pre-LN。

# %%
class EncoderDecoder(nn.Module):
    def __init__(self, vocab, hidden, heads, layers, max_len=64):
        super().__init__()
        sizes = dict(hidden=hidden, heads=heads, inner=4 * hidden, pre_norm=True)
        self.word = nn.Embedding(vocab, hidden)
        self.register_buffer("places", sinusoidal_positions(max_len, hidden), persistent=False)   # (max_len, C)
        self.encoder = nn.ModuleList(EncoderBlock(**sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderBlock(**sizes) for _ in range(layers))
        self.memory_norm, self.norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)   # Pre-LN 末尾补的 LN
        self.head = nn.Linear(hidden, vocab)

    def encode(self, source, source_mask):
        x = self.word(source) + self.places[:source.size(1)]              # (B, S, C)
        for block in self.encoder:
            x = block(x, padding_mask(source_mask))                       # (B, S, C)
        return self.memory_norm(x)

    def decode(self, target, memory, source_mask):
        x, seen = self.word(target) + self.places[:target.size(1)], []    # (B, T, C)
        for block in self.decoder:
            x, weights = block(x, memory, padding_mask(source_mask))      # (B, T, C), (B, H, T, S)
            seen.append(weights)
        return self.head(self.norm(x)), torch.stack(seen)                 # (B, T, V), (L, B, H, T, S)

# %% [markdown]
# 训练时，解码器读「已经写好的」，预测「下一个」：目标句整个错开一位，前 $T-1$ 个作输入，后 $T-1$ 个作标签。
# 这叫教师强制（teacher forcing），因果掩码保证它不偷看，所以一次前向就能学完整句。
# `utils.models.seq2seq` 里那一份多了训练用的 `forward` 和写字用的 `write`。先确认网络是同一个：

# %%
from utils.models import EncoderDecoder as PackagedEncoderDecoder, encode_pairs, normalise, pair_collator

pair_tokenizer = build_tokenizer("char", [p.source + p.target for p in pairs["train"]], model_max_length=64)
sizes = dict(vocab=len(pair_tokenizer), hidden=64, heads=4, layers=2)
torch.manual_seed(lesson.seed)
translator, hand = PackagedEncoderDecoder(**sizes), EncoderDecoder(**sizes)
hand.load_state_dict(translator.state_dict())
batch = pair_collator(pair_tokenizer.pad_token_id)(encode_pairs(pairs["test"][:4], pair_tokenizer).to_list())
with torch.no_grad():
    given = batch["labels"][:, :-1].clamp_min(0)                          # 错开一位：(B, T-1)
    logits, _ = hand.decode(given, hand.encode(batch["input_ids"], batch["attention_mask"]), batch["attention_mask"])
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(loss, translator(**batch)["loss"])
print(f"两份相等；{sum(p.numel() for p in hand.parameters())} 个参数，训练前损失 {loss:.2f}")

# %% [markdown]
# 开始训练。有一处和别的 notebook 不同：**不按长度分桶**。这里源句的长短和题目的种类连在一起，按长度分桶，一批里就全是同一类题，
# 模型学了这类忘那类。改成随机抽，每一批各类都有。

# %%
translator = translator.to(lesson.device)
collate, encoded = pair_collator(pair_tokenizer.pad_token_id), encode_pairs(pairs["train"], pair_tokenizer)
held = {k: v.to(lesson.device) for k, v in collate(encode_pairs(pairs["test"][:200], pair_tokenizer).to_list()).items()}

def exact_match(student, rows):
    written = normalise(student, pair_tokenizer, [p.source for p in rows])
    return sum(w == p.target for w, p in zip(written, rows)) / len(rows)

def check(student):
    with torch.no_grad():
        return student(**held)["loss"].item(), exact_match(student, pairs["test"][:200])

steps = {"smoke": 40, "cpu": 700}.get(preset.name, 2000)
args = replace(training_arguments(lesson.outputs / "seq2seq", steps, replace(preset, batch_size=64, lr=4e-3), lesson.device,
                                  lesson.seed), train_sampling_strategy="random")
history = train(translator, encoded, collate, args, check, evaluations=8)

# %% [markdown]
# 「完全正确」要求整个答案一字不差，比逐字的准确率严得多。考试用 2000 道从没见过答案的题：

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
axes[0].plot(history.eval_steps, history.eval_loss, "o-", color=COLORS[0])
axes[0].set(title="留出集损失", xlabel="步数", ylabel="奈特/词元", yscale="log")
axes[1].plot(history.eval_steps, history.eval_accuracy, "o-", color=COLORS[2])
axes[1].set(title="完全正确的比例", xlabel="步数", ylabel="比例", ylim=(0, 1.03))
plt.show()
exact = exact_match(translator, pairs["test"])
lesson.record("改写中文数字：留出集完全正确的比例", exact)
assert preset.name == "smoke" or history.interrupted or exact > 0.99

# %% [markdown]
# 分种类看，再把错的列出来。错题比分数更能说明模型还不会什么。

# %%
written = normalise(translator, pair_tokenizer, [p.source for p in pairs["test"]])
for kind in ("日期", "时刻", "整数", "百分数"):
    right = [w == p.target for w, p in zip(written, pairs["test"]) if p.kind == kind]
    print(f"{kind}：{sum(right)}/{len(right)}")
wrong = [f"{p.source} → {w}，应为 {p.target}" for w, p in zip(written, pairs["test"]) if w != p.target]
print("\n".join(wrong[:5]) or "一道也没错")

# %% [markdown]
# 换你来。改下面的句子再运行；也试试它没学过的写法，比如「廿二」「三月初五」「1203」，看它怎样出错：
# 没见过的字会变成 `[UNK]`，它不会说「不知道」，只会硬写一个。

# %%
mine = ["二〇二六年三月五日", "一千二百零三", "下午三点半", "百分之三点五"]
for source, answer in zip(mine, normalise(translator, pair_tokenizer, mine)):
    print(f"{source} → {answer}")

# %% [markdown]
# ### 写每个字时，它在看哪里
#
# 交叉注意力的每一行，是写这个字时看向原文各个字的权重。两层各取看得最集中的那个头画出来：

# %%
from utils.views import cross_attention_figure

def cross_weights(source, answer):
    batch = pair_tokenizer([source, answer], padding=True, return_tensors="pt").to(lesson.device)
    S, T = batch["attention_mask"].sum(1).tolist()
    src, tgt = batch["input_ids"][:1, :S], batch["input_ids"][1:, :T]     # (1, S), (1, T)
    real = torch.ones_like(src)
    with torch.no_grad():
        _, weights = translator.decode(tgt[:, :-1], translator.encode(src, real), real)   # (L, 1, H, T-1, S)
    name = pair_tokenizer.convert_ids_to_tokens
    return weights[:, 0].cpu(), name(src[0].tolist()), name(tgt[0, 1:].tolist())   # 行名是正要写的字

weights, source_tokens, target_tokens = cross_weights("二〇二六年三月五日", "2026-03-05")
figure, axes = plt.subplots(1, 2, figsize=(9, 4.6))
for layer, ax in enumerate(axes):
    head = weights[layer].amax(-1).mean(-1).argmax().item()
    cross_attention_figure(weights[layer, head], source_tokens, target_tokens, f"层 {layer} · 头 {head}", ax=ax)
plt.show()

# %% [markdown]
# 眼见不一定为实，数一数。在考试的日期题里，写年份的第 $i$ 位时，哪个头最常把最大的权重给原文的第 $i$ 个字？

# %%
dates = [p for p in pairs["test"] if p.kind == "日期"][:100]
hits = torch.zeros(2, 4)                                                  # (L, H)
for p in dates:
    weights, _, _ = cross_weights(p.source, p.target)                     # (L, H, T-1, S)
    hits += (weights[:, :, :4].argmax(-1) == torch.arange(1, 5)).float().mean(-1) / len(dates)   # 第 0 个源词元是 [CLS]
best = divmod(hits.argmax().item(), 4)
print("各层各头对准的比例：", [[f"{x:.2f}" for x in row] for row in hits.tolist()])
print(f"最准的是层 {best[0]} · 头 {best[1]}；乱看的话约 {1 / len(source_tokens):.2f}")
lesson.record("写年份时对准原文那一位的比例（最准的头）", hits.max())

# %% [markdown]
# 没有人教它「对齐」，它只是被迫写对。不过要记得 [[self_attention]] 末尾的提醒：记忆里每个位置的向量都已经混进了左右的信息，
# 看的是「〇」那一格，拿到的不只是「〇」这个字。
#
# ## 11 算账：参数与浮点运算
#
# 大模型的钱花在两处：存参数，做乘法。两笔账都能用公式算（这一节的 $N$ 是参数的个数）。一层编码器的参数：
#
# $$N_\text{层}=\underbrace{4(C^2+C)}_{\text{注意力}}+\underbrace{2CF+F+C}_{\text{前馈}}+\underbrace{4C}_{\text{两个 LN}}$$
#
# 加上嵌入 $(V+T_\max+2)C+2C$ 和词表头 $C^2+3C+V$（与字嵌入共享，不再算 $VC$）。手算一遍，和数出来的比：

# %%
F_ = config.intermediate_size
layer_count = 4 * (C * C + C) + 2 * C * F_ + F_ + C + 4 * C
total = (V + T_MAX + 2) * C + 2 * C + config.num_hidden_layers * layer_count + C * C + 3 * C + V
assert layer_count == sum(p.numel() for p in hf_layer.parameters())
assert total == sum(p.numel() for p in own.parameters())
print(f"一层 {layer_count}，全部 {total}：与数出来的一个不差")

# %% [markdown]
# 浮点运算（FLOP）只数矩阵乘法，一次乘加算 2 次。一个 $(m,n)$ 乘 $(n,p)$ 是 $2mnp$。读一句 T 个词元，一层要
#
# $$\underbrace{2T(4C^2+2CF)}_{\text{线性层}}+\underbrace{4T^2C}_{\text{注意力：}QK^\top\text{ 与权重乘 }V}$$
#
# 词表头再加 $2T(C^2+CV)$。PyTorch 自带的 `FlopCounterMode` 会在运行时逐个运算去数，拿它来对账：

# %%
from torch.utils.flop_counter import FlopCounterMode

def counted_flops(module, *inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()

T = 100
formula = config.num_hidden_layers * (2 * T * (4 * C * C + 2 * C * F_) + 4 * T * T * C) + 2 * T * (C * C + C * V)
counted = counted_flops(own, torch.zeros(1, T, dtype=torch.long))
print(f"T = {T}：公式 {formula:,}，数出来 {counted:,}")
assert formula == counted

# %% [markdown]
# 公式收在 `utils.models.cost` 里。下面的表一行一个模型：本课程的三个预设、BERT-base 和 GPT-2 small。
# 后两个太大，不必真的占内存：在 `meta` 设备上造出来的模型只有形状、没有数，照样能数参数、数运算。

# %%
from transformers import GPT2Config, GPT2LMHeadModel
from utils.presets import PRESETS
from utils.training import bert_config
from utils.models import bert_parameters, gpt2_parameters, model_flops

configs = {f"预设 {name}": bert_config(p, tokenizer) for name, p in PRESETS.items()}
configs |= {"附带的检查点": config, "BERT-base（中文）": BertConfig(vocab_size=21128), "BERT-base（英文）": BertConfig(),
            "GPT-2 small": GPT2Config()}
T, rows = 128, []
for name, c in configs.items():
    gpt = isinstance(c, GPT2Config)
    parts, flops = (gpt2_parameters if gpt else bert_parameters)(c), model_flops(c, 1, T)
    with torch.device("meta"):
        ghost = (GPT2LMHeadModel if gpt else BertForMaskedLM)._from_config(c, attn_implementation="eager").eval()
    n, f = sum(p.numel() for p in ghost.parameters()), counted_flops(ghost, torch.zeros(1, T, dtype=torch.long, device="meta"))
    assert n == sum(parts.values()) and f == sum(flops.values())
    rows.append((name, f"{n:,}", f"{parts['嵌入'] / n:.0%}", f"{f / T / 1e6:,.1f}", f"{f / T / 2 / parts['各层']:.2f}"))

# %% [markdown]
# 每一行的参数和运算，公式与数出来的都相等（上面的断言）。最后一列是「每个词元的运算 ÷（2 × 各层的参数）」：
# 常说的「前向约 $2N$ 次运算」，就是说它约等于 1；词表大、层数少的小模型，词表头占得多，就不止 1。

# %%
from utils.display import pad

head = ("模型", "参数", "嵌入占", f"百万 FLOP/词元（T = {T}）", "÷ 2N")
for row in (head, *rows):
    print(pad(row[0], 18), *(pad(cell, n, True) for cell, n in zip(row[1:], (12, 8, 27, 9))))
for name, number, *_ in rows:
    lesson.record(f"参数：{name}", int(number.replace(",", "")))

# %% [markdown]
# 两处值得停一停：小模型的参数，嵌入占了大头（所以中文的词表大小很要紧，见 [[tokenization]]）；注意力那一项带 $T^2$，
# 短句时无足轻重。
# 句子多长，它才追上线性层？令 $4T^2C=2T(4C^2+2CF)$，得 $T=2C+F$，F = 4C 时就是 **6C**。

# %%
from utils.models import attention_overtakes, block_flops

figure, ax = plt.subplots(figsize=(8, 3.6))
for (name, width), color in zip((("预设 cpu", PRESETS["cpu"].hidden), ("BERT-base", 768)), COLORS):
    lengths = [2 ** n for n in range(4, 15)]
    shares = [one["注意力"] / sum(one.values()) for one in (block_flops(1, n, width, 4 * width) for n in lengths)]
    ax.plot(lengths, shares, "o-", markersize=4, color=color, label=f"{name}，C = {width}")
    cross_at = attention_overtakes(width, 4 * width)
    assert block_flops(1, cross_at, width, 4 * width)["注意力"] == block_flops(1, cross_at, width, 4 * width)["线性层"]
    ax.axvline(cross_at, color=color, linestyle=":", label=f"T = 6C = {cross_at}")
ax.set(xscale="log", title="注意力占一层运算的几成", xlabel="词元数 T", ylabel="比例", ylim=(0, 1))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# 训练要算三份：前向一份，反向约两份（对输入、对权重各一份）。让计数器数一数：

# %%
with FlopCounterMode(display=False) as counter:
    own(torch.zeros(1, 100, dtype=torch.long)).sum().backward()
own.zero_grad()
print(f"前向加反向，是前向的 {counter.get_total_flops() / counted:.2f} 倍")

# %% [markdown]
# 所以常说训练一个词元约 $6N$ 次运算。[[scale_up]] 会用它来估算：练一个模型要多少钱。
#
# ## 小结
#
# - 嵌入是查表；位置要另外告诉模型，加正弦、加可学的表，或者把查询和键转一个角度（RoPE，点积只看相对位置）。
# - 一层 = 注意力（词元之间）+ 前馈（词元之内），各套残差和 LayerNorm。残差让梯度直达底层，没有它深了就练不动。
# - BERT = 三种嵌入 + L 层编码器 + 词表头。自己的一百来行与 Hugging Face 相等；加上因果掩码，就是会写字的解码器。
# - 编码器–解码器多一个交叉注意力：查询来自正在写的，键和值来自读到的。
# - 消融要看曲线、看种子的起伏；差别比起伏小，就不下结论。
# - 参数 ≈ 12LC² + 嵌入，前向 ≈ 每词元 2N 次运算，训练 ≈ 6N；注意力要到 T = 6C 才追上线性层。
#
# **下一本**：[[objectives]]。模型搭好了，拿什么题目来练它？
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import transformer as check

# %% [markdown] tags=["exercise"]
# **练习 1 · RMSNorm**（★，8 分钟）Llama 用的不是 LayerNorm，而是更省事的 RMSNorm（Zhang、Sennrich 2019）：
# 不减均值，也没有 $\beta$，只除以均方根（root mean square）：
#
# $$\mathrm{RMSNorm}(x)=\gamma\odot\frac{x}{\sqrt{\frac1C\sum_c x_c^2+\epsilon}}$$

# %% tags=["stub"]
def rms_norm(x, gamma, eps):                                              # (B, T, C), (C,), 一个数
    ...                                                                   # ← 换成你的代码，返回 (B, T, C)

# %% tags=["check"]
check.rms_norm(rms_norm)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def rms_norm(x, gamma, eps):
#     square = x.pow(2).mean(-1, keepdim=True)                            # (B, T, 1)
#     return gamma * x / (square + eps).sqrt()                            # (B, T, C)
# ```
#
# 每个词元只用自己的 C 个数。比 LayerNorm 少一次求均值，参数少一半。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · 只转一个词元**（★★，10 分钟）[[generation]] 会讲：写字时每一步只算**新来的那一个**词元，它在句子里是第 $t$ 个。
# 写一个 `rotate_one(x, t)`，把一个 D 维的向量转到位置 $t$，配对和频率同第 3.3 节。

# %% tags=["stub"]
def rotate_one(x, t):                                                     # (D,), 一个整数
    ...                                                                   # ← 换成你的代码，返回 (D,)

# %% tags=["check"]
check.rotate_one(rotate_one)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import torch
#
# def rotate_one(x, t):
#     angle = t * 10000.0 ** (-torch.arange(0, len(x), 2) / len(x))       # (D/2,)
#     even, odd = x[0::2], x[1::2]                                        # (D/2,) x 2
#     turned = [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()]
#     return torch.stack(turned, dim=-1).flatten()                        # (D,)
# ```
#
# 直接拿第 3.3 节的 `rotate` 去转一个词元，它会以为那是第 0 个，一点不转：这是写 KV 缓存时最常见的错。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 解码器的掩码**（★★，10 分钟）一批长短不齐的句子要从左往右写。由分词器给的 `attention_mask`（1 是真词元，0 是填充）
# 做出布尔掩码 (B, 1, T, T)：`[b, 0, i, j]` 为真，当且仅当第 $i$ 个词元可以看第 $j$ 个。

# %% tags=["stub"]
def decoder_mask(attention_mask):                                         # (B, T)
    ...                                                                   # ← 换成你的代码，返回布尔的 (B, 1, T, T)

# %% tags=["check"]
check.decoder_mask(decoder_mask)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import torch
#
# def decoder_mask(attention_mask):
#     T = attention_mask.size(1)
#     past = torch.ones(T, T).tril().bool()                               # (T, T)
#     real = attention_mask.bool()[:, None, None, :]                      # (B, 1, 1, T)
#     return past & real                                                  # (B, 1, T, T)
# ```
#
# 两个条件都要满足，所以是「且」；填充遮的是被看的一方，在最后一维。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · 错开一位**（★★，8 分钟）有的库给的 `labels` 不带开头的记号，填充是 −100。写出解码器的输入：整句往右移一位，
# 开头补 `begin`，−100 换成 `pad`，长度不变。

# %% tags=["stub"]
def shift_right(labels, begin, pad):                                      # (B, T), 一个编号, 一个编号
    ...                                                                   # ← 换成你的代码，返回 (B, T)

# %% tags=["check"]
check.shift_right(shift_right)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def shift_right(labels, begin, pad):
#     shifted = labels.roll(1, dims=1)                                    # (B, T)
#     shifted[:, 0] = begin
#     return shifted.masked_fill(shifted == -100, pad)
# ```
#
# 位置 $t$ 的输入是 `labels[t - 1]`，输出预测 `labels[t]`。忘了移，损失会很快掉到 0：它只是在抄刚读到的字。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 一个不差**（★★★，15 分钟）写出第 10 节的 `EncoderDecoder` 的参数个数，由词表大小 V、宽度 C、编码器和解码器各 L 层算出。
# 前馈宽 4C，正弦位置没有参数。

# %% tags=["stub"]
def count_parameters(V, C, L):                                            # 三个整数
    ...                                                                   # ← 换成你的代码，返回一个整数

# %% tags=["check"]
check.count_parameters(count_parameters)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def count_parameters(V, C, L):
#     attention = 4 * (C * C + C)
#     ffn = C * 4 * C + 4 * C + 4 * C * C + C
#     encoder = attention + ffn + 2 * 2 * C
#     decoder = 2 * attention + ffn + 3 * 2 * C
#     return V * C + L * (encoder + decoder) + 2 * 2 * C + C * V + V
# ```
#
# 字嵌入两边共用，只算一份；词表头没有和它共享，另算一份。末尾两个 LayerNorm 各 2C。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 句子加倍**（★，3 分钟）先猜：一句话的词元数从 T 变成 2T，一层编码器里**整句话**的浮点运算，
# 线性层变成几倍，注意力（$QK^\top$ 与权重乘 V）变成几倍？

# %% tags=["stub"]
growth = ...                                                              # ← 换成 [线性层的倍数, 注意力的倍数]

# %% tags=["check"]
check.growth(growth)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# growth = [2, 4]
# ```
#
# 线性层和词元数成正比；注意力是两两之间的事，和词元数的平方成正比。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 7 · 读消融**（★★，5 分钟）假如你用别的语料照第 8 节做了一遍，「没有前馈」的损失比「完整」的高 0.30，种子的起伏是 0.05，
# 程序判为「差别可信」。最站得住的说法是哪一个？
#
# - A. 前馈这种**结构**比注意力重要，所以去掉它损失就高。
# - B. 不论多大的模型、练多久，去掉前馈都会差这么多。
# - C. 在这个任务、这个大小、这么多步下，去掉前馈更差；其中有多少是因为参数也少了，还要另做一组参数一样多的来比。
# - D. 种子不同结果就不同，所以什么结论也不能下。

# %% tags=["stub"]
reading = ...                                                             # ← 换成 "A"、"B"、"C" 或 "D"

# %% tags=["check"]
check.reading(reading)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# reading = "C"
# ```
#
# 拿掉前馈，每层的参数从约 12C² 变成约 4C²，结构和大小一起变了。差别可信，只说明「这两个模型不一样」；
# 要说「是结构的功劳」，得让参数一样多。
#
# </details>

# %% [markdown]
# **想一想**（没有标准答案，动手做）
#
# - 第 8 节的「没有前馈」加深到 12 层，参数就和完整的差不多了。照样练两个种子，结论变不变？每一步慢了多少？
# - 给第 10 节的考试加一种没练过的写法，例如把「二十」都换成「廿」，完全正确的比例掉到多少？再把它加进练习题里重练。
#   模型只会它见过的写法；规范化这种任务，覆盖写法往往比加大模型要紧。
#
# ## 延伸阅读
#
# - Vaswani 等（2017），*Attention Is All You Need*：编码器–解码器、正弦位置、Post-LN 的出处。
# - Devlin、Chang、Lee、Toutanova（2019），*BERT*；Radford 等（2019），*Language Models are Unsupervised Multitask Learners*（GPT-2）。
# - He、Zhang、Ren、Sun（2015），*Deep Residual Learning for Image Recognition*；Ba、Kiros、Hinton（2016），*Layer Normalization*；
#   Hendrycks、Gimpel（2016），*Gaussian Error Linear Units*；Zhang、Sennrich（2019），*Root Mean Square Layer Normalization*。
# - Xiong 等（2020），*On Layer Normalization in the Transformer Architecture*：Pre-LN 与 Post-LN。
# - Su、Lu、Pan、Murtadha、Wen、Liu（2021），*RoFormer: Enhanced Transformer with Rotary Position Embedding*。
# - Kaplan 等（2020），*Scaling Laws for Neural Language Models*：6N 的由来。
