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
# # 出发
#
# **这一本只回答一个问题：我的机器能跑吗？**
#
# 欢迎。你大概用过会聊天、会写文章的大模型，也许还好奇过：它凭什么知道下一个字该写什么？
# 这门课不从远处介绍它，而是带你从一段汉字开始，亲手把它造一遍：切开文字，算注意力，预训练（pre-training），微调（fine-tuning），
# 最后让它写出一篇完整的新闻。模型很小，小到你手边这台没有 GPU 的笔记本电脑就练得动；
# 可该有的部件一件不少，和大模型用的是同一套道理。
#
# 二十分钟之后，你会看过三样东西：一个小模型接着「今天是个」往下写，每次写得都不一样；
# 两个被盖住的字，模型看一眼后文就去猜，换掉后文，它的猜测也跟着换；还有一张你可以点、可以改的图，
# 看得见它看的是哪里。看不懂里面的计算没有关系，那正是后面十本要讲的。现在只管往下走，
# 看到好奇的地方就动手改一改：**这里没有什么是改得坏的。**
#
# **学习目标**
#
# 1. 确认这台机器准备好了；有缺的，知道怎么补。
# 2. 知道自己用的是哪个预设，重的 notebook 大约要跑多久。
# 3. 亲眼看到模型续写、填空，并改一处、看一处变化。
# 4. 会用这门课的练习，知道下一本去哪里。
#
# **先修**：会一点 Python 就够。不需要学过神经网络。
#
# **用时**：阅读和动手约 20 分钟；全部运行，两核 CPU 不到半分钟，GPU 尚未实测。

# %% [markdown]
# ## 怎样用这个页面
#
# 这是一个 Jupyter notebook：文字和代码排成一格一格。点一下某个代码格，按 **Shift + Enter**，它就运行，
# 结果出现在下面，光标跳到下一格。也可以用菜单 Run → Run All Cells（运行全部单元格）一次跑完。
# 按错了、跑乱了，用 Kernel → Restart Kernel…（重启内核）从头来：格子里写的字都在，只是变量清空了，要再运行一遍。
#
# 每一本的第一格都是下面这一格（再往上、标题下面的那一格只在 Colab 上有用，别处不用管它）。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("start")                    # 换预设：start("start", preset="smoke")

# %% [markdown]
# 上面打印出一行字，就说明 Python、PyTorch 和中文字体都找到了。
#
# ## 1 检查机器
#
# 下面逐项看一遍。✅ 是通过；⚠️ 是提醒，不处理也能往下走；❌ 要先处理，右边写着怎么办。
# 要运行命令的，在终端（Windows 上叫命令提示符）里进到课程文件夹，再照着敲。

# %%
from utils.machine import check_machine

report = check_machine()
report

# %% [markdown]
# 「空闲内存」和「磁盘」看的是此刻，随时会变。处理完 ❌ 的那一项，重新运行上面一格就行。

# %%
print("都好了，出发！" if report.ready else "有 ❌ 的项目：请先照右边的办法处理，再运行一次上面的检查。")

# %% [markdown]
# ## 2 你的预设：同一份代码，三种大小
#
# 同样的 notebook，在笔记本电脑和 GPU 上应当跑不同大小的模型。**预设**（preset）就是一套成套的大小：
# 几层、多宽、练多少步。没有 NVIDIA GPU 时自动用 `cpu`，有就用 `gpu`；
# `smoke` 小到几秒跑完，给测试和赶时间的课堂用。
#
# 模型的大小，习惯上用参数（parameter）的个数来说：参数就是训练时要调的那些数。

# %%
import os
import torch
from transformers import BertForMaskedLM, BertLMHeadModel
from utils.models import load_checkpoint
from utils.presets import PRESETS
from utils.training import bert_config

mlm, tokenizer, source = load_checkpoint("mlm", BertForMaskedLM, preset=lesson.preset, prefer="shipped")
for p in (PRESETS | {lesson.preset.name: lesson.preset}).values():
    with torch.device("meta"):                # meta 设备：只算形状，不占内存
        size = BertForMaskedLM(bert_config(p, tokenizer)).num_parameters() / 1e6
    here = "  ← 你的预设" if p.name == lesson.preset.name else ""
    print(f"{p.name:<6}{p.layers} 层 × {p.hidden} 维，{size:6.2f} 百万参数，预训练 {p.mlm_steps} 步{here}")

# %% [markdown]
# 为什么是它？看下面这一行。想换，有三种办法：终端里写 `python3 course.py lab --preset smoke`；
# 设环境变量 `COURSE_PRESET`；或者在第一格里写 `start("start", preset="smoke")`。

# %%
chosen = os.environ.get("COURSE_PRESET")
why = "找到了 NVIDIA GPU" if torch.cuda.is_available() else "没有 NVIDIA GPU"
if chosen:
    why = f"环境变量 COURSE_PRESET={chosen}"
print(f"预设是 {lesson.preset.name}：{why}。设备是 {lesson.device.type}。")
if lesson.preset.bf16:
    print("这块 CPU 做 bf16 的矩阵乘法很快，所以训练用 bf16，步数加倍，用时不变。")

# %% [markdown]
# ## 3 在这台机器上，重的 notebook 要多久？
#
# 练得最久的是 [[mlm_pretraining]]（预训练）和 [[clm_finetuning]]（微调）。与其猜，不如量：拿你的预设、
# 真的语料，练 5 秒掐个表，看一步要几秒，
# 再乘以步数。一步用 $s$ 秒，练 $n$ 步，途中还要停下来考几次试（评估），折合 $n_{\text{评估}}$ 步，于是
#
# $$\text{用时}\approx\frac{(n+n_{\text{评估}})\,s}{60}\ \text{分钟}$$
#
# 评估只算答案、不改参数，一批大约只花训练一步的三分之一。

# %%
from utils.scaling import measure_speed, minutes_text

preset = lesson.preset
speed = measure_speed(preset, tokenizer, lesson.device)
print(f"量了 {speed.steps} 步，一步约 {speed.step_seconds:.2f} 秒")
free = speed.share if speed.share < 0.7 else 1.0          # 别的程序在抢处理器时，按分到的份额折算
if free < 1:
    print(f"注意：这几秒里，程序只分到 {free:.0%} 的处理器。下面的数字折算成了机器空闲时的。")
lesson.record("训练速度（机器空闲时）", speed.tokens_per_second / free, "词元/秒")

# %% [markdown]
# 词元（token）是模型眼里文字的最小单位，在这门课的模型里，一个汉字就是一个词元。
# 下面估的是两本里最长的那一次训练。

# %%
minutes = {"预训练": speed.minutes(preset.mlm_steps, preset),
           "微调": speed.minutes(preset.clm_steps, preset)}
for name, value in minutes.items():
    print(f"{name}：{minutes_text(value * free)}")
    lesson.record(f"{name}的训练用时（估计）", value * free, "分钟")

# %% [markdown]
# 这只是**估计**：只量了几秒；笔记本电脑练久了发热降频，实际会更长。它也只算了最长的那一次训练，
# 整本还有对照实验和画图，要再多一到两倍。每一本大约几分钟，README 的表里列着（两核、没有 GPU 的机器）；
# 把你的 [[mlm_pretraining]] 和表里的比一比，就知道自己的机器是快还是慢。嫌长，就先用 `smoke` 走一遍。
#
# ## 4 课程地图
#
# 一本 notebook 回答一个问题。实心的印章现在就能学；若有虚线的，那一本还在写，跳过它不影响后面：
# 每一本都能单独打开，前面练出来的模型若不在，就用随课程附带的，并会告诉你用的是哪一个。
#
# 印章右边的小圆里，是这一本的练习你做对了几道；全做对了，就变成一个勾。做过一些练习之后，回来再运行这一格看看。

# %%
from utils.checks import course_progress
from utils.views import draw_map

figure = draw_map(progress=course_progress())

# %% [markdown]
# 路分三段。第一段把汉字变成模型能算的东西，第二段搭起模型、让它从大量文字里自己学，
# 第三段教它写，再走向真实的数据和更大的机器。终点是你。
#
# ## 5 先尝一口：让它接着写
#
# 课程附带一个已经练好的小模型，练法就在 [[mlm_pretraining]] 和 [[clm_finetuning]] 里。它只读过一种文字：
# 这门课自带的虚构地方新闻。
# 先载入它。它只做一件事：**读前面的字，给出下一个字的概率**，写文章就是一个字一个字地问下去。
# 每次只算一个字，计算量太小，多个线程反而互相等待，所以这里只用一个线程。

# %%
torch.set_num_threads(1)
clm, _, source = load_checkpoint("clm", BertLMHeadModel, preset=preset, prefer="shipped", is_decoder=True)
print(source)

# %% [markdown]
# 开头是「今天是个」，请它写四次导语（新闻的第一段）。`seed` 是随机种子：种子不同，抽到的字就不同。

# %%
import time
from utils.generation import complete

began = time.perf_counter()
how = dict(temperature=1.0, top_p=0.95, max_new_tokens=70)
samples = [complete(clm, tokenizer, "今天是个", seed=seed, **how).intro for seed in range(4)]
seconds = time.perf_counter() - began
for text in samples:
    print("·", text)

# %% [markdown]
# 你应当看到四条不同的新闻：开头相同，后面各走各的路。它手里没有模板，
# 每一条都是一个字一个字按概率抽出来的。它写得多快？

# %%
written = sum(len(text) for text in samples)
lesson.record("续写速度", written / seconds, "字/秒")
assert len(set(samples)) > 1 and all(text.startswith("今天是个") for text in samples)

# %% [markdown]
# 像不像真的？做个小测验：下面四条里，两条来自语料，两条是模型刚刚另写的。先猜，再点开答案。

# %%
import random
from html import escape
from IPython.display import HTML, display
from utils.corpus import generate

real = [text for text in generate("test", 600)["intro"] if text.startswith("今天是个")][:2]
cards = [(text, "语料") for text in real]
cards += [(complete(clm, tokenizer, "今天是个", seed=seed, **how).intro, "模型") for seed in (100, 101)]
random.Random(lesson.seed).shuffle(cards)
for letter, (text, _) in zip("甲乙丙丁", cards, strict=True):
    print(f"{letter}　{text}")
key = "，".join(f"{letter}是{who}" for letter, (_, who) in zip("甲乙丙丁", cards, strict=True))
display(HTML(f"<details><summary>点开看答案</summary>{escape(key)}</details>"))

# %% [markdown]
# 再看一篇完整的：导语写完之后，模型接着写正文，直到它自己写出「结束」。

# %%
article = complete(clm, tokenizer, "今天是个", temperature=0.8, top_p=0.95, seed=lesson.seed)
print(article.intro, article.body, sep="\n\n")

# %% [markdown]
# 读一读：导语里的地名、数字，到了正文里对得上吗？让正文守住导语的事实，
# 是 [[clm_finetuning]] 和 [[generation]] 的中心问题，
# 那里会逐条去数。
#
# ## 6 改一处，看一处
#
# 轮到你了。下面有两处可以改，改完按 Shift + Enter，看结果怎么变。
#
# - `PREFIX`：开头。试试「2月8日晚，」「连日阴雨之后，」，或者你自己的一句话。
# - `TEMPERATURE`：温度（temperature）。调低（如 0.3），它只挑最有把握的字，几次写得越来越像；
#   调高（如 2.0），什么字都敢写。

# %%
PREFIX = "今天是个"          # ← 改这里
TEMPERATURE = 1.0            # ← 或者改这里，要大于 0

for seed in range(3):
    print("·", complete(clm, tokenizer, PREFIX, temperature=TEMPERATURE, seed=seed, max_new_tokens=50).intro)

# %% [markdown]
# 为什么会这样？温度改的是「下一个字」的概率分布。看看「今天是个」后面这一个字：
# 模型给每个字一个分数，叫打分（logits）。分数 $z_i$ 先除以温度 $\tau$，再变成概率 $p_i$；
# 这种「取指数、再除以总和」的变法叫 **softmax**，以后处处要用：
#
# $$p_i=\frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}$$

# %%
import matplotlib.pyplot as plt

ids = tokenizer("今天是个", add_special_tokens=False)["input_ids"]
with torch.no_grad():
    z = clm(torch.tensor([[tokenizer.cls_token_id, *ids]])).logits[0, -1]        # (V,)
top = z.topk(8).indices
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for ax, tau in zip(axes, (0.1, 1.0, 2.0), strict=True):
    ax.bar(tokenizer.convert_ids_to_tokens(top.tolist()), (z / tau).softmax(-1)[top])
    ax.set(title=f"温度 {tau}", xlabel="下一个字（取最高的 8 个）")
_ = axes[0].set_ylabel("概率")

# %% [markdown]
# 名次不变，差距在变：温度越低，靠前的占得越多，低到接近 0，就只剩第一名；温度高，大家拉平，
# 这 8 个字的份额都小了，让给了词表里别的字，连不该出现的字也有了机会。[[generation]] 会把这件事讲透。
#
# ## 7 填空：它会看上下文
#
# 另一个附带的模型（[[mlm_pretraining]] 的产物）会填空：把想让它猜的字写成 `[MASK]`，它给出那里每个字的概率。
# 「今天是个□□的日子」，填什么好？单看这半句谁也说不准，要看后文。
# 代码行尾的 `(1, T)` 是张量的形状：1 句话，T 个词元；V 是词表里有多少个词元。

# %%
from utils.tokenization import name_unknown

OPENING = "今天是个[MASK][MASK]的日子，"

def fill(text):
    name_unknown(tokenizer, text)                                                # 词表里没有的字，先说出来
    inputs = tokenizer(text, return_tensors="pt")                                # input_ids: (1, T)
    places = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    with torch.no_grad():
        return mlm(**inputs).logits[0, places].softmax(-1)                       # (2, V)

for n, p in enumerate(fill(OPENING + "梨花村的440亩西瓜陆续成熟。"), 1):
    best = [f"{tokenizer.convert_ids_to_tokens(int(i))} {p[i]:.0%}" for i in p.topk(5).indices]
    print(f"第 {n} 个空：", "  ".join(best))

# %% [markdown]
# 两个空是同时猜的，所以要把两行合起来读。现在只换后文，前半句一字不动。下图一行是一种后文，
# 一行里颜色最深的格子，就是它给第一个空的首选。

# %%
from utils.display import heatmap

stories = {"西瓜成熟": "梨花村的440亩西瓜陆续成熟。", "大桥通车": "长虹大桥正式通车，全长800米。",
           "运动会开幕": "实验小学第8届运动会开幕。", "摆百家宴": "和平社区摆起百家宴，为老人集体祝寿。"}
first = torch.stack([fill(OPENING + story)[0] for story in stories.values()])    # (4, V)
shown = list(dict.fromkeys(first.topk(3).indices.flatten().tolist()))            # 各行的前三名，去掉重复
fig, ax = plt.subplots(figsize=(7.5, 2.9))
_ = heatmap(first[:, shown], tokenizer.convert_ids_to_tokens(shown), list(stories), "后文不同，第一个空的猜测也不同",
            ax=ax, xlabel="第一个空填什么", ylabel="后文", annotate=True, vmin=0, vmax=1)

# %% [markdown]
# 量一量后文起了多大作用：「丰」（丰收的丰）的概率，后文是西瓜成熟时，是运动会开幕时的几倍？

# %%
harvest = first[:, tokenizer.convert_tokens_to_ids("丰")]
lesson.record("「丰」的概率：后文是西瓜成熟", harvest[0])
lesson.record("「丰」的概率：后文是运动会开幕", harvest[2])
assert harvest[0] > 2 * harvest[2], "换了后文，猜测却没有变：填空模型不对劲"

# %% [markdown]
# 没有人专门教它「西瓜熟了是丰收」。它只是在新闻里做了许多次填空题，发现看了上下文才猜得准。
#
# ## 8 看见它在看哪里
#
# 模型「看上下文」用的部件叫注意力（attention）：每个词元给所有词元各分一个权重，加起来是 1，权重大就是看得多。
# 模型有好几层、每层好几个头（head），各看各的。我们从中找出一个头：第一个空最专心看后文某个字的那一个。

# %%
from utils.analysis import get_attentions

TEXT = OPENING + stories["西瓜成熟"]
found = get_attentions(mlm, tokenizer, TEXT)                                     # weights: (L, H, T, T)
blank, comma = found.tokens.index("[MASK]"), found.tokens.index("，")
later = found.weights[:, :, blank, comma + 1:-2]                                 # （L, H, 后文的字数）
layer, head, n = (int(i) for i in torch.unravel_index(later.argmax(), later.shape))
weight, token = later[layer, head, n], found.tokens[comma + 1 + n]
print(f"层 {layer} · 头 {head}：第一个空把 {weight:.0%} 的注意力给了后文里的「{token}」")

# %% [markdown]
# 下面先是一张静态图，再是一张可以动的图。在可以动的那张上：**点**左边的任意一个词元，看它的线连到哪里；
# 用 ↑ ↓ 换词元，← → 换头，或者点右边的缩略图；句子框里的字也可以改，改完图会马上重算。
# （在网页上看时只有静态图，在 JupyterLab 里运行过才会动。）

# %%
from utils.views import show_attention

show_attention(mlm, tokenizer, TEXT, layer=layer, head=head, token=blank)

# %% [markdown]
# 换几个头看看：是不是每个头都在看后文？有没有哪个头总盯着前一个字？有没有哪个头总看 `[SEP]`？
# 注意力到底在算什么，[[self_attention]] 会一步一步拆开。
#
# ## 9 练习怎么做
#
# 每一本的最后都有练习，标着难度（★ 到 ★★★）和大致的分钟数。规矩很简单：
#
# - 题目下面多半有一格留了空，把 `...` 换成你的答案，运行它，再运行紧跟着的 `check`。
# - 不对的话，`check` 会猜你是怎样想的，给出一个最小的反例，问你一个问题；它不会说出答案。
# - 参考答案折叠在题目下面，**先做再看**。另有几道「想一想」（[[background]] 和 [[scale_up]] 的练习也是这样），没有检查，
#   改一改上面的格子就好。
# - 一道也不做，「运行全部单元格」照样能跑通。
# - 做过的题记在 `outputs/progress.jsonl`，一行一条，看得懂；它只在你的机器上，删掉就是从头来。
#
# 先拿一道热身。

# %%
from utils.checks import start as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 热身**（★，1 分钟）「今天是个」这四个汉字，在这门课的模型眼里是几个词元？

# %% tags=["stub"]
my_answer = ...          # ← 把 ... 换成一个整数

# %% tags=["check"]
check.warm_up(my_answer)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_answer = 4
# ```
#
# 在这里，一个汉字就是一个词元。
#
# </details>

# %% [markdown]
# ## 小结
#
# - 机器检查过了：✅ 的不用管，❌ 的照右边的办法处理；以后出了怪事，先回到这一本再跑一遍。
# - 预设决定模型多大、练多久；你已经知道 [[mlm_pretraining]] 和 [[clm_finetuning]] 在这台机器上大约要多少分钟。
# - 语言模型做的事只有一件：给出下一个（或被盖住的）字的概率。写文章，是一次次按这个概率抽字。
# - 它会看上下文，而且看得见：注意力的权重就是它看的地方。
#
# **下一本**：打开 [[background]]，看大模型遇到汉字难在哪；急着动手，就直接去
# [[tokenization]]。
# 赶时间的主线是 [[tokenization]] → [[self_attention]] → [[mlm_pretraining]] → [[clm_finetuning]] → [[generation]]；
# 只对某一个问题感兴趣，直接打开那一本也行。
# 忘了哪个词或符号的意思，查[术语与符号](TERMS.md)。
#
# ## 练习
#
# **1. 改开头（★，3 分钟）** 把第 6 节的 `PREFIX` 改成「昨天是个」，再改成「To be or not to be」。
# 先猜会怎样，再运行。模型从来没见过这样的开头，它会承认自己不会吗？
#
# <details><summary>参考答案</summary>
#
# 不会。它照样给出一个「下一个字的概率」，照样往下写，多半很快滑回它熟悉的新闻腔；
# 词表里没有的字母，在它眼里都是同一个 `[UNK]`。
# 语言模型没有「我不知道」这个选项，除非训练时教过它。这也是大模型会一本正经地编造的原因之一。
#
# </details>
#
# **2. 先预测，再测量（★★，6 分钟）** 从「今天是个」出发写 12 条、每条 12 个字，温度分别取 0.2、1.0、2.0。
# 三种温度下各有几条不重样的？先写下你的预测。
#
# <details><summary>参考答案</summary>
#
# ```python
# for tau in (0.2, 1.0, 2.0):
#     texts = [complete(clm, tokenizer, "今天是个", temperature=tau, seed=s, max_new_tokens=12).intro
#              for s in range(12)]
#     print(tau, len(set(texts)))
# ```
# 温度越低，不重样的越少；温度高时几乎条条不同，可是读一读，有几条还像话？
# 多样和通顺要一起看，[[generation]] 会讲怎样两头兼顾。
#
# </details>
#
# **3. 大一号要慢多少（★★，8 分钟）** `smoke` 的参数比 `cpu` 少得多。它每秒能多练几倍的词元？
# 和参数之比一样吗？为什么？
#
# <details><summary>参考答案</summary>
#
# ```python
# for name in ("smoke", "cpu"):
#     s = measure_speed(PRESETS[name], tokenizer, lesson.device)
#     print(name, f"{s.tokens_per_second:,.0f} 词元/秒")
# ```
# （第 5 节把线程数设成了 1，所以不要拿第 3 节的数来比，两个放在一起重新量。）
# 快的倍数通常和参数之比不一样：一部分参数在词表里，输入时查表几乎不花时间；模型小到一定程度，
# 时间主要花在一次次启动计算上，而不是计算本身。
#
# </details>
#
# ## 延伸阅读
#
# - Shannon, C. E.（1951）. *Prediction and Entropy of Printed English.*
#   让人来猜下一个字母：语言模型最早的实验。
# - Bengio, Y., Ducharme, R., Vincent, P., Jauvin, C.（2003）. *A Neural Probabilistic Language Model.*
#   JMLR. 用神经网络猜下一个词。
# - Vaswani, A. 等（2017）. *Attention Is All You Need.* NeurIPS. 注意力和 Transformer 的出处。
# - Devlin, J., Chang, M.-W., Lee, K., Toutanova, K.（2019）. *BERT: Pre-training of Deep Bidirectional
#   Transformers for Language Understanding.* NAACL. 填空式的预训练。
# - Eldan, R., Li, Y.（2023）. *TinyStories: How Small Can Language Models Be and Still Speak
#   Coherent English？* 语料简单，模型很小也能写得通顺：这门课的小模型是同样的思路。
