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
# # 背景
#
# **这一本只回答一个问题：大模型遇到汉字，难在哪？**
#
# 讲大模型的文章很多，断言也很多：「中文数据少」「中文结构复杂」「汉字太粗」「GPT 是编码器加解码器」。哪些是真的，哪些只对一半，
# 哪些根本就错了？这一本的规矩是：**能量的就当场量，不能量的就写明是哪篇论文说的。**
#
# **学习目标**
#
# 1. 看懂一张图：七年里模型怎样变大，三种结构各占哪一段。
# 2. 说出汉字的三个难处（数据、语言、粒度），每一个都拿得出自己量的数。
# 3. 会从模型自己的注意力权重里读出掩码（mask，谁不许看谁），分清编码器、解码器、编码器–解码器。
# 4. 说清预训练和微调的差别，数得出「冻结」之后还剩多少参数在练。
# 5. 认得出教程里常见的十几个错误，并且知道怎样用几行代码去验。
#
# **先修**：[[start]]（词元、参数、softmax、注意力这几个词在那里见过）。这里只求看个大概，细节后面各本都会拆开讲。
#
# **用时**：阅读约 40 分钟；全部运行，两核 CPU 约 1 分钟，GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("background")               # 换预设：start("background", preset="smoke")

# %% [markdown]
# ## 1 大模型从哪里来
#
# 2017 年的 Transformer（[[transformer]] 会从零搭一个）有两半：**编码器（encoder）** 读原文，**解码器（decoder）** 写译文。
# 一年之后它被拆成了两支：BERT 只要编码器，
# GPT 只要解码器。再往后的故事，下面一张图就讲完了。纵轴是对数刻度：每上一格，参数多十倍。
# 最底下那条虚线是随课程附带的小模型。

# %%
from transformers import BertForMaskedLM, BertLMHeadModel
from utils.models import load_checkpoint
from utils.views import LANDMARKS, draw_landscape, landmark_table

mlm, tokenizer, _ = load_checkpoint("mlm", BertForMaskedLM, preset=lesson.preset, prefer="shipped")
_ = draw_landscape({"这门课附带的模型": mlm.num_parameters()})

# %% [markdown]
# 图上每一个点的出处都在下面这张表里。只收论文自己写明参数的模型；同一篇论文有好几个大小的，取最大的一个。

# %%
from IPython.display import Markdown, display

display(Markdown(landmark_table()))
largest = max(LANDMARKS, key=lambda m: m.parameters)
lesson.record(f"表中最大的模型（{largest.name}）是附带模型的几倍", largest.parameters / mlm.num_parameters(), "倍")

# %% [markdown]
# 读图有三点要留意：
#
# - **2020 年以后，最大的都是解码器。** 编码器没有消失，检索、分类、打标签仍用它，只是不再往大里做。
# - **参数不是越多越好。** Chinchilla 只有 PaLM 的八分之一上下，却用了更多的数据；Hoffmann 等（2022）的结论是，
#   同样的计算量，参数和数据要一起加，大约每个参数配 20 个词元。第 2 节马上用到它，[[scale_up]] 会自己量一遍。
# - **我们的模型小了几个数量级**，但部件一样不少。所以这门课里量到的「道理」能搬走，量到的「成绩」搬不走。
#
# ## 2 难处之一：数据
#
# 先量一量手头有多少字。课程自带的语料是一套语法现场生成的虚构新闻，要多少有多少；另有一百多篇手写的自然文章，那是真正的中文。

# %%
from utils.corpus import load_corpus

corpus = load_corpus("bundled", n_docs=min(lesson.preset.n_docs, 4000))
news = [row["intro"] + row["body"] for row in corpus["train"].select(range(1000))]
articles = [row["intro"] + row["body"] for part in load_corpus("articles").values() for row in part]
written = sum(map(len, articles))
print(f"手写文章：{len(articles)} 篇，{written:,} 字。照「每个参数 20 个词元」，够练 {written / 20:,.0f} 个参数。")
print(f"附带的模型有 {mlm.num_parameters():,} 个参数，照这条规矩要 {20 * mlm.num_parameters():,} 个字。")

# %% [markdown]
# 一个人写一百多篇文章要好几个星期，够练的参数却只有几千个：真数据就是这么贵。再看「多一点数据，值多少」。
# 用最简单的模型，只看前一个字的二元模型（bigram，[[tokenization]] 会手写），在手写文章上越学越多，
# 考同样的 30 篇。考分叫**损失（loss）**：模型给正确的那个字多大的概率，取对数，反个号，再对所有的字取平均。
# 猜得越准，损失越低；每次都猜中是 0。用自然对数算，单位叫**奈特（nat）**，[[tokenization]] 会细讲。

# %%
import random
import numpy as np
from utils.tokenization import bigram_nats

shuffled = random.Random(lesson.seed).sample(articles, len(articles))
letters = {c: i for i, c in enumerate(sorted({c for text in articles for c in text}))}
rows = [[letters[c] for c in text] for text in shuffled]
held, rest = rows[:30], rows[30:]
sizes = [4, 8, 16, 32, 64, len(rest)]
nats = [bigram_nats(rest[:n], held, len(letters)) for n in sizes]
seen = [len({i for row in rest[:n] for i in row}) for n in sizes]

# %% [markdown]
# 左图是损失（越低越好），右图是「考卷上的字，有多少从没学过」。横轴都是对数刻度。

# %%
import matplotlib.pyplot as plt

known = [{i for row in rest[:n] for i in row} for n in sizes]
unseen = [np.mean([i not in k for row in held for i in row]) for k in known]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3))
left.plot(sizes, nats, marker="o")
left.set(xscale="log", title="数据越多，损失越低", xlabel="学了多少篇（篇）", ylabel="损失（奈特/字）")
right.plot(sizes, [100 * u for u in unseen], marker="o", color="#D55E00")
right.set(xscale="log", title="数据越多，生字越少", xlabel="学了多少篇（篇）", ylabel="没学过的字（%）", ylim=(0, None))
lesson.record(f"学完 {sizes[-1]} 篇，考卷上仍没学过的字", 100 * unseen[-1], "%")
assert nats[-1] < nats[0] and unseen[-1] < unseen[0]

# %% [markdown]
# 两条线都还没有走平：再多一倍，还会再好。这就是「数据难」的样子。论文里的数可以对照着看：
#
# | 说法 | 数字 | 出处 |
# |---|---|---|
# | GPT-3 的训练文字里，英文占多少 | 93%（按词数） | Brown 等（2020） |
# | BERT（英文）用了多少词 | 33 亿 | Devlin 等（2019） |
# | 中文 BERT：只用维基；再加别的文字 | 4 亿词；54 亿词 | Cui 等（2021） |
# | 同一个中文 BERT，考 CMRC 2018 阅读理解：原来、整词掩码（whole word masking）、再加数据 | 70.0、70.5、71.4 | Cui 等（2021） |
#
# 最后一行值得多看一眼：换一个巧妙的训练目标（填空时整个词一起盖，[[objectives]] 会讲）得 0.5 分，多给数据得 0.9 分。
#
# 还有一件事容易忘：数据不只要多，还要**不重复**。网页里大量文字是互相抄的；怎样清洗、查重，[[scale_up]] 会做一遍。
#
# ## 3 难处之二：语言
#
# 常听人说「中文的词形变化复杂」。正相反：汉语几乎没有词形变化，没有单复数、时态、格，语言学上叫**孤立语**。
# 中文真正的难处是另外两样：**词与词之间没有空格**，**字的个数多**。先看第一样。

# %%
import jieba
from utils.tokenization import jieba_words

jieba_words("热身")                            # 第一次会读词典
for sentence in ("乒乓球拍卖完了", "结婚的和尚未结婚的", "他从马上下来"):
    every = " / ".join(w for w in jieba.lcut(sentence, cut_all=True) if w)
    print(f"{sentence}\n  词典里查得到的词：{every}\n  jieba 的选择：　　{' / '.join(jieba_words(sentence))}")

# %% [markdown]
# 同一串字，里面藏着好几个互相重叠的词，选哪一种切法要看意思。这样的歧义有多常见？拿手写文章里的句子数一数：
# 词典里有没有两个词，互相咬住、谁也不包含谁（「球拍」和「拍卖」；连「今天下雨」里也藏着「天下」）。

# %%
import re

def overlaps(sentence):
    starts = jieba.get_DAG(sentence)                            # 每个位置起，词典里的词各到哪里为止
    words = [(i, j) for i, ends in starts.items() for j in ends if j > i]
    return any(a[0] < b[0] <= a[1] < b[1] for a in words for b in words)

assert overlaps("乒乓球拍卖完了") and overlaps("今天下雨") and not overlaps("他在喝茶")
sentences = [s for text in articles for s in re.findall(r"[\u4e00-\u9fff]{6,}", text)][:1500]
share = np.mean([overlaps(s) for s in sentences])
lesson.record("有交叉歧义的句段（6 个汉字以上）", 100 * share, "%")

# %% [markdown]
# 再看第二样：字多。把所有字按次数排队，要覆盖 50%、90%、99% 的文字，各要多少个不同的字？
# 英文只有 26 个字母，加上大小写和标点也不到一百个。

# %%
from utils.views import rank_frequency

for name, texts in {"自带新闻": news, "手写文章": articles}.items():
    rank, share = rank_frequency(texts)
    need = [int((share.cumsum() < part).sum()) + 1 for part in (0.5, 0.9, 0.99)]
    once = int((share == share[-1]).sum())
    print(f"{name}：{len(rank)} 个不同的汉字；覆盖 50%、90%、99% 各要 {need} 个；只出现最少次数的有 {once} 个")

# %% [markdown]
# 一半的文字只用一百来个字，剩下的一半却要上千个：少数字反复出现，多数字难得一见。词就更厉害了。
# 数一数手写文章的词：只出现一次的，占全部词种的多少？

# %%
from collections import Counter

counts = Counter(w for text in articles for w in jieba_words(text) if re.fullmatch(r"[\u4e00-\u9fff]+", w))
once = sum(n == 1 for n in counts.values()) / len(counts)
lesson.record("只出现一次的词种（手写文章）", 100 * once, "%")
print(f"{len(counts):,} 种词。Li 等（2019）在宾州中文树库（CTB）上数到 48.7%。")
assert 0.4 < once < 0.9

# %% [markdown]
# 树库比我们的文章大得多，所以它的比例低一些，可仍有近一半的词种只出现一次：模型只见过一面，学不会。
# Li 等（2019）据此比较了四项任务，按字切的模型都不比按词切的差。
#
# ## 4 难处之三：粒度
#
# 「汉字比英文单词粗」，常见的教程这么说。粗细是比出来的。把同样的手写文章切成字节、字、词，看一个单位平均多大、
# 词表多大、没学过的单位占多少（拿前一半学，后一半考）：

# %%
half = len(shuffled) // 2
learn, exam = shuffled[:half], shuffled[half:]
chars = sum(map(len, exam))
cuts = {"字节": lambda t: list(t.encode("utf-8")), "字": list, "词": jieba_words}
table = {}
for name, cut in cuts.items():
    vocabulary = {u for text in learn for u in cut(text)}
    units = [u for text in exam for u in cut(text)]
    table[name] = (chars / len(units), len(vocabulary), 100 * np.mean([u not in vocabulary for u in units]))
    print(f"{name:　<2} 每个单位 {table[name][0]:.2f} 字，词表 {table[name][1]:>6,}，没学过的单位 {table[name][2]:.1f}%")

# %% [markdown]
# 次序一眼就看得出：**字节最细，词最粗，汉字站在中间**。粗的单位序列短，可词表大、生词多；细的单位没有生词，可序列长。
# 词表还要花参数：模型要给每个单位备一串数，叫它的**嵌入（embedding）**。词表有 $V$ 个单位、模型宽 $C$，就是 $V\times C$ 个数。
# 按附带模型的宽度算一算：

# %%
C = mlm.config.hidden_size
body = sum(p.numel() for name, p in mlm.bert.encoder.named_parameters())
for name, row in table.items():
    V = 256 if name == "字节" else row[1]
    print(f"{name:　<2} 嵌入 {V * C:>9,} 个参数，是各层参数总和的 {V * C / body:.2f} 倍")
lesson.record("字的长度 ÷ 词的长度（每个单位多少字）", table["字"][0] / table["词"][0])
assert table["字节"][0] < table["字"][0] < table["词"][0] and table["字节"][2] <= table["字"][2] < table["词"][2]

# %% [markdown]
# 论文里的数：Petrov 等（2023）比较各种语言，同样的内容，有的语言要多用 15 倍的词元；Xue 等（2022）的 ByT5 按字节切，成绩不差，
# 还更耐错别字；Si 等（2023）把字拆成笔画再合并，序列更短。没有哪一种全赢，[[tokenization]] 会把七种切法放在同样的计算量下比。
#
# ## 5 三种结构，从模型自己身上看
#
# 不画示意图。拿三个真的小模型来：BERT（编码器）、GPT-2（解码器）、T5（编码器–解码器），随机权重就够，因为
# **谁能看见谁，是结构决定的，不用训练。** 三个模型同样的宽度、头数，各给四层（T5 编码器、解码器各两层）：

# %%
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

V, special = len(tokenizer), dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.sep_token_id)
torch.manual_seed(lesson.seed)
eager = dict(attn_implementation="eager")     # 只有这种实现会把注意力权重交出来
models = {
    "编码器（BERT）": BertModel(BertConfig(vocab_size=V, hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
                                     intermediate_size=256, **eager)),
    "解码器（GPT-2）": GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=64, n_layer=4, n_head=4, n_positions=256, bos_token_id=2,
                                                **eager, **special)),
    "编码器–解码器（T5）": T5ForConditionalGeneration(T5Config(vocab_size=V, d_model=64, d_kv=16, d_ff=256, num_layers=2, num_heads=4,
                                                 decoder_start_token_id=tokenizer.pad_token_id, **eager, **special)),
}
bert, gpt, t5 = (model.eval() for model in models.values())

# %% [markdown]
# 喂一句话进去，把每一层、每个头的注意力权重都取出来。softmax 之后，只要没有被掩码挡住，权重就一定大于 0；
# 所以**在所有层、所有头里都恰好等于 0 的格子，就是掩码**：

# %%
ids = tokenizer("今天是个好日子", return_tensors="pt", add_special_tokens=False)["input_ids"]       # (1, T)
answer = tokenizer("瓜熟了", return_tensors="pt", add_special_tokens=False)["input_ids"]              # (1, S)

def visible(weights):
    return (torch.stack(list(weights)).amax(dim=(0, 1, 2)) > 0).float()                            # (L, B, H, T, T) -> (T, T)

with torch.no_grad():
    seq = t5(input_ids=ids, decoder_input_ids=answer, output_attentions=True)
    seen = {"BERT：看自己": visible(bert(ids, output_attentions=True).attentions),
            "GPT-2：看自己": visible(gpt(ids, output_attentions=True).attentions),
            "T5 编码器：看自己": visible(seq.encoder_attentions),
            "T5 解码器：看自己": visible(seq.decoder_attentions),
            "T5 解码器：看编码器": visible(seq.cross_attentions)}

# %% [markdown]
# 行是「正在看的位置」，列是「被看的位置」，深色是看得见。

# %%
from utils.display import heatmap

source, target = (tokenizer.convert_ids_to_tokens(row[0].tolist()) for row in (ids, answer))
fig, axes = plt.subplots(1, 5, figsize=(12, 3.0))
for ax, (name, matrix) in zip(axes, seen.items(), strict=True):
    S, T = matrix.shape
    heatmap(matrix, (source if T == len(source) else target), (source if S == len(source) else target), name, ax=ax, vmin=0, vmax=1)
    ax.set_aspect("equal")
axes[0].set(ylabel="谁在看", xlabel="看谁")
causal = torch.ones(ids.shape[1], ids.shape[1]).tril()
assert seen["BERT：看自己"].all() and torch.equal(seen["GPT-2：看自己"], causal) and seen["T5 解码器：看编码器"].all()
assert torch.equal(seen["T5 解码器：看自己"], torch.ones(3, 3).tril()) and seen["T5 编码器：看自己"].all()

# %% [markdown]
# 一张图把三种结构说完了：
#
# - **编码器**：人人看得见人人。适合「读懂」：填空、分类、检索。
# - **解码器**：只看得见自己和左边，一个下三角。适合「接着写」，因为写的时候右边还不存在。
# - **编码器–解码器**：编码器那一半看全文；解码器看自己是下三角，另外还能看编码器的全部，这一份注意力叫**交叉注意力（cross-attention）**。
#   适合「读一段，写一段」：翻译、摘要。
#
# 输出也不同。同样一句 7 个字，各给出什么形状的东西（T5 另外还要写 3 个字）？参数又花在哪里？

# %%
with torch.no_grad():
    shapes = {"编码器（BERT）": bert(ids).last_hidden_state.shape, "解码器（GPT-2）": gpt(ids).logits.shape,
              "编码器–解码器（T5）": seq.logits.shape}
for name, model in models.items():
    table = sum(p.numel() for n, p in model.named_parameters() if any(w in n for w in ("embed", "shared", "wte", "wpe")))
    crossed = sum(p.numel() for n, p in model.named_parameters() if "EncDecAttention" in n)
    total = model.num_parameters()
    print(f"{name:　<11} 输出 {tuple(shapes[name])}  参数 {total:,}：嵌入 {table:,}，交叉注意力 {crossed:,}，"
          f"其余 {total - table - crossed:,}")

# %% [markdown]
# $B$ 是一批几句话（这里是 1），$T$ 是几个词元。BERT 给每个位置一串数，也就是一个向量（形状 $(B,T,C)$），要再接一个**词表头**
# （把向量变成全词表打分的一层）才有概率；GPT-2 和 T5 直接给出打分 $(B,T,V)$。
# GPT-2、T5 的词表头和输入的嵌入用同一张表，所以词表那部分只算一份。只有 T5 有交叉注意力。
#
# 它们没有练过，输出没有意义。换成附带的、练过的两个，看看「读懂」和「接着写」各是什么样（T5 那样的模型，
# [[objectives]] 会练一个）：

# %%
from utils.generation import complete

clm, _, _ = load_checkpoint("clm", BertLMHeadModel, preset=lesson.preset, prefer="shipped", is_decoder=True)
inputs = tokenizer("今天是个[MASK][MASK]的日子，梨花村的440亩西瓜陆续成熟。", return_tensors="pt")
with torch.no_grad():
    filled = mlm(**inputs).logits[0, inputs["input_ids"][0] == tokenizer.mask_token_id].argmax(-1)
print("编码器填空：今天是个", "".join(tokenizer.convert_ids_to_tokens(filled.tolist())), "的日子", sep="")
print("解码器续写：", complete(clm, tokenizer, "今天是个", temperature=0.8, seed=lesson.seed, max_new_tokens=40).intro, sep="")

# %% [markdown]
# ## 6 预训练与微调
#
# **预训练（pre-training）**：拿大量没有标注的文字，出填空题（掩码语言模型，masked language model，MLM）
# 或续写题（因果语言模型，causal language model，CLM），从随机权重练起。贵，做一次。这两种题 [[objectives]] 会一步步写出来。
# **微调（fine-tuning）**：拿预训练好的权重，换一道具体的题，用少量有标注的例子再练一会儿。便宜，做许多次。
#
# 微调时不一定所有参数都动。**冻结（freeze）** 就是把一部分参数的 `requires_grad` 关掉。
# 给附带的编码器接上一个新的分类头，让它从导语的头二十个字认类别；数一数四种做法各练多少参数：

# %%
from transformers import BertForSequenceClassification, logging
from utils.models import find_checkpoint

folder, _ = find_checkpoint("mlm", lesson.preset, prefer="shipped")
categories = sorted(set(corpus["train"]["category"]))

def classifier(frozen=(), pretrained=True):
    torch.manual_seed(lesson.seed)
    logging.set_verbosity_error()             # 分类头是全新的，库会列表提醒，这里先关掉
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=len(categories), local_files_only=True, dtype=torch.float32)
    logging.set_verbosity_warning()
    model = model if pretrained else BertForSequenceClassification(model.config)
    for name, p in model.named_parameters():
        p.requires_grad = not name.startswith(tuple(frozen))
    return model.train()

# %% [markdown]
# `bert.` 打头的是预训练来的主体（除了 `bert.pooler`，那是新的）；`classifier` 是新的分类头。

# %%
layers = mlm.config.num_hidden_layers
lower = ["bert.embeddings", *(f"bert.encoder.layer.{i}." for i in range(layers - 1))]
plans = {"从头开始，全部练": ((), False), "预训练，全部练": ((), True), "预训练，冻结下面各层": (lower, True),
         "预训练，只练新的头": (("bert.embeddings", "bert.encoder"), True)}
counts = {}
for name, (frozen, pretrained) in plans.items():
    model = classifier(frozen, pretrained)
    counts[name] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{name:　<11} 在练的参数 {counts[name]:>9,}，占 {counts[name] / model.num_parameters():6.1%}")

# %% [markdown]
# 光数参数不够，还要看成绩。给 120 个有标注的例子，各练同样多步，考 200 个没见过的。先写训练和考试。训练的一步是：
# 取一小批例子，算损失，`backward()` 算出每个参数该往哪边改，优化器改一点；每步改多大，由**学习率（learning rate）** 定：

# %%
from torch.nn.functional import cross_entropy

def encode(docs):
    x = tokenizer([t[:20] for t in docs["intro"]], padding=True, return_tensors="pt")
    return x["input_ids"], x["attention_mask"], torch.tensor([categories.index(c) for c in docs["category"]])

def finetune(model, data, steps, batch=16, lr=1e-3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, fused=True)
    order = torch.Generator().manual_seed(lesson.seed)
    for _ in range(steps):
        at = torch.randperm(len(data[0]), generator=order)[:batch]
        loss = cross_entropy(model(data[0][at], attention_mask=data[1][at]).logits, data[2][at])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()

@torch.no_grad()
def accuracy(model, data):
    return (model(data[0], attention_mask=data[1]).logits.argmax(-1) == data[2]).float().mean().item()

# %% [markdown]
# 四种做法合适的学习率不同，只用一个就不公平。所以每种各试几个学习率，在另外 100 道题上挑最好的那个，再去考。
# 考题只有 200 道，正确率 $p$ 自己就有大约 $\pm 1.96\sqrt{p(1-p)/200}$ 的误差，一并写出来。

# %%
few, pick, test = (encode(corpus["train"].select(range(*part))) for part in ((0, 120), (1200, 1300), (1000, 1200)))
steps, rates = (25, (1e-3,)) if lesson.preset.name == "smoke" else (100, (3e-4, 1e-3, 3e-3))
scores = {}
for name, (frozen, pretrained) in plans.items():
    tried = [finetune(classifier(frozen, pretrained), few, steps, lr=rate) for rate in rates]
    scores[name] = accuracy(max(tried, key=lambda m: accuracy(m, pick)), test)
    margin = 1.96 * (scores[name] * (1 - scores[name]) / 200) ** 0.5
    print(f"{name:　<11} 正确率 {scores[name]:.1%} ± {margin:.1%}（瞎猜约 {1 / len(categories):.0%}）")
    lesson.record(f"认类别的正确率（{name}）", scores[name])

# %% [markdown]
# 先看最要紧的一条：预训练过的，同样的例子、同样的步数，比从头开始好多少？再看冻结：少练那么多参数，丢了多少分？

# %%
best = max(scores, key=scores.get)
print(f"预训练比从头开始：{scores['预训练，全部练'] - scores['从头开始，全部练']:+.1%}")
for name in ("预训练，冻结下面各层", "预训练，只练新的头"):
    print(f"「{name}」比「预训练，全部练」：{scores[name] - scores['预训练，全部练']:+.1%}")
print(f"这一次最好的是「{best}」；一次、一个种子、200 道题，差几个百分点的名次不要当真。")
assert scores["预训练，全部练"] > scores["从头开始，全部练"] + 0.1

# %% [markdown]
# Lee 等（2019）在 BERT 上量过：只微调最上面四分之一的层，就有约九成的效果；但那是「读懂」的任务。
# 从填空换到续写，连掩码都换了，[[clm_finetuning]] 量到的就不是这样。所以「微调要冻结底层」不是规矩，是要量的事。
#
# ## 7 常见错误
#
# 下面这些说法和写法，在教程里流传很广，这门课的起点就是其中一份。每一条都用几行代码验一遍。
# 这一节里有些词（残差、LayerNorm、分词器的设置）后面才讲，第一次读不必全懂；先看清单，感兴趣的跳过去看，学到那一本再回来：
#
# | 说法或写法 | 实际 | 哪一节 |
# |---|---|---|
# | GPT 是编码器–解码器 | 只有解码器 | 7.1 |
# | NSP 是「预测下一个句子的内容」 | 判断两段是否相连，一道二选一 | 7.2 |
# | 用 `BertLMHeadModel` 做 MLM | 它的标签错开一位 | 7.3 |
# | 建了 `BertLMHeadModel` 就是因果模型 | `is_decoder` 默认是 `False`，看得见未来 | 7.4 |
# | 练几分钟，损失没有低得可疑，就说明没偷看 | 抄答案也要学很多步；可靠的只有「改动未来」 | 7.4 |
# | `labels = tokenizer(正文, padding="max_length")` | 大半标签是 `[PAD]`，还都计损失 | 7.5 |
# | `truncation=True` 就会截断 | 新建的分词器没有上限，不截 | 7.6 |
# | BERT 的位置数写 514 | 那是 RoBERTa 的约定 | 7.7 |
# | 不写 `hidden_size` 就是「小模型」 | 默认 768 | 7.8 |
# | 残差在 LayerNorm 之后 | BERT 是 LN(x + 子层(x)) | 7.9 |
# | `overwrite_output_dir=True` 等 | transformers 5 里没有了 | 7.10 |
# | 练完就能 `from_pretrained(output_dir)` | 先要 `save_model` | 7.11 |
# | `loss_type=None` 的警告，关掉日志就好 | 写明 `loss_type`，它就不来了 | 7.12 |
# | 中文的词形变化复杂；汉字太粗；微调该冻结底层 | 见第 3、4、6 节的测量 | |
#
# ### 7.1 GPT 是编码器–解码器？
#
# 真的编码器–解码器一定有交叉注意力，还有两套层。看三个模型的模块名就知道：

# %%
for name, model in models.items():
    parts = {n.split(".")[-1] for n, _ in model.named_modules()}
    crossed, halves = bool(parts & {"EncDecAttention", "crossattention"}), {"encoder", "decoder"} <= parts
    print(f"{name:　<11} 有交叉注意力：{crossed}；有编码器和解码器两半：{halves}")
assert not hasattr(gpt, "encoder") and not any("crossattention" in n for n, _ in gpt.named_modules())

# %% [markdown]
# ### 7.2 NSP 预测下一个句子的内容？
#
# NSP（next sentence prediction，下一句预测）的头只输出两个数：是下一句，或者不是。它一个字也不写。
# [[objectives]] 会练它，并且发现它有捷径可走。

# %%
from transformers import BertForNextSentencePrediction

nsp = BertForNextSentencePrediction(bert.config).eval()
with torch.no_grad():
    print("NSP 的输出：", tuple(nsp(ids).logits.shape), "，也就是一对文字两个数")

# %% [markdown]
# ### 7.3 用 `BertLMHeadModel` 做 MLM？
#
# 两个类的权重一样，损失不一样。标签（label）就是标准答案；给它们同样的 MLM 标签（只有被盖住的位置有，别处写 −100，意思是不算），
# 手算两种损失，看库算的是哪一种：

# %%
from torch.nn.functional import nll_loss

labels = torch.full_like(inputs["input_ids"], -100)
masked = inputs["input_ids"] == tokenizer.mask_token_id
labels[masked] = torch.tensor(tokenizer.convert_tokens_to_ids(["丰", "收"]))
careless, _, _ = load_checkpoint("mlm", BertLMHeadModel, preset=lesson.preset, prefer="shipped", is_decoder=False)
with torch.no_grad():
    log_p = mlm(**inputs).logits[0].log_softmax(-1)                                                # (T, V)
    right, wrong = mlm(**inputs, labels=labels).loss, careless(**inputs, labels=labels).loss
at_mask, one_before = nll_loss(log_p, labels[0]), nll_loss(log_p[:-1], labels[0, 1:])
print(f"BertForMaskedLM {right:.3f} = 在被盖住的位置上手算 {at_mask:.3f}")
print(f"BertLMHeadModel {wrong:.3f} = 在它前一个位置上手算 {one_before:.3f}")
torch.testing.assert_close(right, at_mask)
torch.testing.assert_close(wrong, one_before)

# %% [markdown]
# `BertLMHeadModel` 会把标签错开一位，是给续写用的。拿它做 MLM，模型学的是「提前一个位置说出被盖住的字」。做填空请用 `BertForMaskedLM`。
#
# ### 7.4 建了 `BertLMHeadModel` 就是因果模型？
#
# 改动第 $k$ 个位置之后的字，看它前面的输出动不动。真正的因果模型应当一动不动：

# %%
other = inputs["input_ids"].clone()
k = other.shape[1] // 2
other[0, k:] = torch.randint(5, V, (other.shape[1] - k,), generator=torch.Generator().manual_seed(lesson.seed))
with torch.no_grad():
    moved = {name: (m(input_ids=other).logits - m(input_ids=inputs["input_ids"]).logits)[0, :k].abs().max().item()
             for name, m in {"is_decoder=False（默认）": careless, "is_decoder=True": clm}.items()}
for name, change in moved.items():
    print(f"{name:　<22} 前 {k} 个位置的打分最多变了 {change:.4f}")
assert moved["is_decoder=True"] == 0 and moved["is_decoder=False（默认）"] > 0.1

# %% [markdown]
# 没有报错，只在建模时有一行不起眼的提醒（add `is_decoder=True.`）。它看得见答案，训练损失早晚会低得可疑，一到生成就露馅。
#
# 「早晚」是多久？拿两层的小模型从头练，句子、步数、次序都一样，只差一个 `is_decoder`：

# %%
def short_rows(split, n):
    rows = tokenizer([body[:30] for body in corpus[split]["body"][:n]])["input_ids"]
    return torch.tensor([row for row in rows if len(row) == 32])                                    # (N, 32)

learn_rows, exam_rows = short_rows("train", 2000), short_rows("validation", 100)

def practise(is_decoder, look):
    torch.manual_seed(lesson.seed)
    student = BertLMHeadModel(BertConfig(
        vocab_size=V, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, max_position_embeddings=32,
        initializer_range=0.05, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, is_decoder=is_decoder, **eager))
    student.loss_type, losses = "ForCausalLM", []
    optimizer, order = torch.optim.AdamW(student.parameters(), lr=5e-3, fused=True), torch.Generator().manual_seed(lesson.seed)
    for step in range(1, look[-1] + 1):
        x = learn_rows[torch.randint(len(learn_rows), (16,), generator=order)]                      # (B, T)
        loss = student(x, labels=x).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses += [loss.item()] if step in look else []
    return student.eval(), losses

# %% [markdown]
# 考的时候把未来抽走：每次只给前 $k$ 个词元，猜第 $k+1$ 个，真正写作时就是这样。

# %%
@torch.no_grad()
def without_future(student):
    nats = [cross_entropy(student(exam_rows[:, :k]).logits[:, -1], exam_rows[:, k]) for k in range(4, 31)]
    return torch.stack(nats).mean().item()

look, ends = (20, 40) if lesson.preset.name == "smoke" else (50, 100, 200, 400), {}
for is_decoder in (False, True):
    student, losses = practise(is_decoder, look)
    ends[is_decoder] = losses[-1], without_future(student)
    history = "，".join(f"第 {step} 步 {loss:.2f}" for step, loss in zip(look, losses, strict=True))
    print(f"is_decoder={is_decoder!s:<5}：训练损失 {history}；抽走未来再考 {ends[is_decoder][1]:.2f}")
print(f"瞎猜是 {np.log(V):.2f} 奈特/词元")
lesson.record("漏写 is_decoder：抽走未来之后损失高多少", ends[False][1] - ends[False][0], "奈特/词元")
assert lesson.preset.name == "smoke" or ends[False][0] < 0.5 < ends[True][0] and ends[False][1] > ends[True][1] + 2

# %% [markdown]
# 开头两边几乎一样：抄答案这一招，模型自己也要学一阵。所以「练了几分钟，损失没有低得可疑」证明不了它没有偷看；
# 再练下去，看得见未来的那个低得离谱，一抽走未来，就猜得一塌糊涂。可靠的检查只有一个：改动未来，看过去动不动。
# 照着这种写法微调会得到什么，[[clm_finetuning]] 会练给你看。
#
# ### 7.5 导语和正文分开切，各自补到 512？
#
# 常见写法是 `input_ids = tokenizer(导语)`，`labels = tokenizer(正文)`，都补到固定长度。数一数标签里有多少是 `[PAD]`：

# %%
bodies = corpus["train"]["body"][:200]
for limit in (256, 512):
    padded = tokenizer(bodies, padding="max_length", truncation=True, max_length=limit)["input_ids"]
    share = np.mean([i == tokenizer.pad_token_id for row in padded for i in row])
    print(f"补到 {limit}：{share:.0%} 的标签是 [PAD]。只要永远输出 [PAD]，就「对」了这么多。")
assert share > 0.5

# %% [markdown]
# 这些 [PAD] 真的计损失吗？库只跳过 −100，而 `[PAD]` 的编号是 0，照算不误。把同样的正文喂给附带的解码器，标签里的 [PAD] 先留着，
# 再换成 −100：

# %%
row = torch.tensor(tokenizer(bodies[:8], padding="max_length", truncation=True, max_length=256)["input_ids"])   # (B, T)
real = row != tokenizer.pad_token_id
with torch.no_grad():
    kept, skipped = (clm(input_ids=row, attention_mask=real.long(), labels=y) for y in (row, row.masked_fill(~real, -100)))
by_hand = nll_loss(kept.logits[:, :-1].log_softmax(-1).flatten(0, 1), row[:, 1:].flatten())
print(f"标签里留着 [PAD]：损失 {kept.loss:.3f}（每个位置都算，手算 {by_hand:.3f}）；换成 −100：{skipped.loss:.3f}")
torch.testing.assert_close(kept.loss, by_hand)

# %% [markdown]
# 更糟的是，输入里是导语的字，标签却是正文的字，两条不同的序列按位置硬凑在一起，模型从没见过正文的前文。
# 正确的做法是接成一条，提示（prompt）部分的标签写 −100，见 [[clm_finetuning]]。
#
# ### 7.6 `truncation=True` 就会截断？
#
# 截到多长，看分词器的 `model_max_length`。自己新建的分词器不写它，就是一个天文数字：

# %%
from transformers import PreTrainedTokenizerFast

fresh = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
long_text = "".join(articles[:10])
for name, t in {"新建的": fresh, "课程的": tokenizer}.items():
    kept = len(t(long_text, truncation=True)["input_ids"])
    print(f"{name} model_max_length = {t.model_max_length:.3g}：{len(long_text):,} 个字，「截断」之后 {kept:,} 个词元")
assert len(fresh(long_text, truncation=True)["input_ids"]) >= len(long_text) > kept

# %% [markdown]
# ### 7.7 BERT 的位置数写 514？
#
# RoBERTa 的位置从 `pad_token_id + 1` 数起，前两行空着，所以放 512 个词元要 514 行。BERT 从 0 数起，512 就是 512，多出的两行永远练不到：

# %%
from transformers import RobertaConfig, RobertaModel

small = dict(vocab_size=V, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
roberta = RobertaModel(RobertaConfig(max_position_embeddings=20, pad_token_id=1, **small))
positions = roberta.embeddings.create_position_ids_from_input_ids(ids, 1)
print("RoBERTa 的位置编号：", positions[0].tolist(), "　BERT 的：", list(range(ids.shape[1])))
assert positions[0, 0] == 2

# %% [markdown]
# ### 7.8 不写 `hidden_size` 就是小模型？
#
# `BertConfig` 没写的都取 BERT-base 的值，宽 768。六层、词表 21,128（bert-base-chinese 的词表）有多少参数？只算形状，不占内存：

# %%
with torch.device("meta"):
    default = BertLMHeadModel(BertConfig(vocab_size=21128, num_hidden_layers=6, max_position_embeddings=514, is_decoder=True))
lesson.record("常见配方的参数", default.num_parameters() / 1e6, "百万")
print(f"是附带模型的 {default.num_parameters() / mlm.num_parameters():.0f} 倍；词表一项就占 {21128 * 768 / default.num_parameters():.0%}")
assert default.config.hidden_size == 768

# %% [markdown]
# ### 7.9 残差在 LayerNorm 之后？
#
# BERT 的每个子层是 $\text{LN}(x+\text{子层}(x))$：先加残差，再归一。照公式算一遍前馈子层，与库的一层对上：

# %%
layer = mlm.bert.encoder.layer[0]
x = torch.randn(1, 5, mlm.config.hidden_size)                                                      # (1, T, D)
with torch.no_grad():
    sub = layer.output.dense(layer.intermediate(x))                                                # 前馈：D -> 4D -> D
    ours, library = layer.output.LayerNorm(x + sub), layer.feed_forward_chunk(x)
    other_order = x + layer.output.LayerNorm(sub)
torch.testing.assert_close(ours, library)
print(f"LN(x + 子层(x)) 与库相差 {(ours - library).abs().max():.1e}；x + LN(子层(x)) 相差 {(other_order - library).abs().max():.2f}")

# %% [markdown]
# ### 7.10 换了版本，参数没了
#
# transformers 5 删去了一批 `TrainingArguments` 的参数。照抄旧教程会立刻报错，这里逐个试：

# %%
from transformers import TrainingArguments

gone = {"overwrite_output_dir": True, "evaluation_strategy": "steps", "no_cuda": True, "logging_dir": "x", "warmup_ratio": 0.1,
        "group_by_length": True, "eval_strategy": "no", "use_cpu": True}
for name, value in gone.items():
    try:
        TrainingArguments(**({"output_dir": str(lesson.outputs / "try"), "use_cpu": True} | {name: value}))
        print(f"{name:<22} 还在")
    except TypeError:
        print(f"{name:<22} 没有了")

# %% [markdown]
# 常用的两个改名：`evaluation_strategy` 现在叫 `eval_strategy`，`no_cuda` 现在叫 `use_cpu`。
#
# ### 7.11 练完就能 `from_pretrained(output_dir)`？
#
# `Trainer` 自动存的是 `output_dir/checkpoint-N/`，外面那层文件夹里没有模型。真的练两步试试：

# %%
import shutil
from datasets import Dataset
from transformers import Trainer
from utils.training import mlm_collator

place = lesson.outputs / "save-demo"
rows = Dataset.from_list([{k: tokenizer(t[:30])[k] for k in ("input_ids", "attention_mask")} for t in news[:8]])
arguments = TrainingArguments(output_dir=str(place), max_steps=2, save_steps=2, per_device_train_batch_size=4, report_to="none",
                              use_cpu=lesson.device.type == "cpu", logging_strategy="no", remove_unused_columns=False)
trainer = Trainer(BertForMaskedLM(BertConfig(**small)), arguments, train_dataset=rows, data_collator=mlm_collator(tokenizer))
trainer.train()
print("练完：", sorted(p.name for p in place.iterdir()))

# %% [markdown]
# 没有 `config.json`，所以装不回来。存一次就好：

# %%
try:
    BertForMaskedLM.from_pretrained(place, local_files_only=True)
    loaded = True
except OSError as error:
    loaded = False
    print("直接装载：", type(error).__name__)
trainer.save_model()
again = BertForMaskedLM.from_pretrained(place, local_files_only=True)
print("save_model 之后：装回来了，", again.num_parameters(), "个参数")
shutil.rmtree(place)
assert not loaded

# %% [markdown]
# ### 7.12 `loss_type=None` 的警告，关掉日志就好？
#
# `BertLMHeadModel` 带着标签算损失时，库会说一句 `loss_type=None`：它认不出这个类该用哪种损失，只好用默认的。
# 默认的恰好就是续写的损失，所以结果没错；可是把日志关掉，真有要紧的话也听不见了。写明用哪一种，警告自然不来：

# %%
import io
import logging as python_logging
from transformers.utils.logging import warning_once

def complaints(loss_type):
    model, ear = BertLMHeadModel(BertConfig(is_decoder=True, **small)).eval(), io.StringIO()
    log, handler = python_logging.getLogger("transformers.modeling_utils"), python_logging.StreamHandler(ear)
    if loss_type:
        model.loss_type = loss_type
    log.addHandler(handler)
    log.propagate = False                     # 只让我们听见，不打印到页面上
    loss = model(ids, labels=ids).loss
    log.removeHandler(handler)
    log.propagate = True
    return loss.item(), ear.getvalue().strip() or "（没有警告）"

warning_once.cache_clear()                    # 这种警告每个进程只说一遍；让它从头说起
for loss_type in (None, "ForCausalLM"):
    torch.manual_seed(lesson.seed)
    print(loss_type, "→ 损失 {:.4f}，{}".format(*complaints(loss_type)))

# %% [markdown]
# ## 小结
#
# - 大模型的七年：从编码器–解码器出发，分成两支，往大里走的是解码器；参数要和数据一起长。
# - 汉字的三个难处都量得出来。数据：真文字又贵又不够，多一倍还会再好。语言：没有空格，字多，多数词难得一见；难的不是词形变化。
#   粒度：字节、字、词由细到粗，汉字在中间，各有代价。
# - 三种结构的差别就是掩码：全看得见、下三角、下三角加上看得见编码器。掩码可以从模型自己的注意力里读出来。
# - 预训练过的起点，值很多标注；冻结哪些层要看任务，先量再说。
# - 教程里的断言，多半三五行代码就能验。养成习惯：**改动未来，数一数 [PAD]，手算一遍损失。**
#
# **下一本**：[[tokenization]]，从第一步开始：一个汉字该切成什么。
#
# ## 练习
#
# **1. 读图（★，3 分钟）** 图上编码器–解码器最大的是哪一个？它之后的几年，为什么这一支没有再往上走？
# 写下你的猜想，再到 [[objectives]] 找证据。
#
# <details><summary>参考答案</summary>
#
# 图上是 mT5（130 亿）。没有定论；常见的解释是：解码器的每个词元都能当一道题（编码器–解码器只有目标那一边算损失），
# 结构简单，便于做大，而「输入一段、输出一段」也可以写成一条序列来续写。[[objectives]] 会数出每处理一个词元能得到几道题。
#
# </details>
#
# **2. 先猜再量（★，5 分钟）** 第 2 节的二元模型换成「只按字频」的一元模型（unigram），数据从 4 篇加到全部，会好得更多还是更少？
#
# <details><summary>参考答案</summary>
#
# ```python
# from utils.tokenization import unigram_nats
# print([round(unigram_nats(rest[:n], held, len(letters)), 2) for n in sizes])
# ```
# 一元模型要学的只有几千个频率，很快就学完了，后面几乎不动；二元模型要学几百万个字对，数据越多越好。模型越大，越吃数据。
#
# </details>
#
# **3. 第四种掩码（★★，8 分钟）** 「导语随便看，正文只看左边」叫前缀语言模型（prefix LM，GLM 就用类似的办法）。
# 写出 7 个字、前 3 个是导语时的掩码，画成和第 5 节一样的图。
#
# <details><summary>参考答案</summary>
#
# ```python
# prefix = torch.ones(7, 7).tril()
# prefix[:3, :3] = 1
# heatmap(prefix, source, source, "前缀语言模型", vmin=0, vmax=1)
# ```
# 左上角是一块实心的方块（编码器的样子），右下角是下三角（解码器的样子）：一套权重，两种看法。
#
# </details>
#
# **4. 冻结错了会怎样（★★，8 分钟）** 第 6 节若冻结的是最上面一层和新的头，只练嵌入和下面各层，正确率会怎样？先猜，再改 `plans` 试。
#
# <details><summary>参考答案</summary>
#
# ```python
# wrong = ["bert.pooler", "classifier", f"bert.encoder.layer.{layers - 1}."]
# model = finetune(classifier(wrong), few, steps)
# print(accuracy(model, test))
# ```
# 头是随机的，又不许动，下面各层就得学着去凑这个随机的头：往往也能学到一些，但比只练头还费力。
#
# </details>
#
# **5. 自己找一个错误（★★★，15 分钟）** 找一篇讲中文大模型的教程，挑一个断言，仿照第 7 节，用不超过 10 行代码验它。
#
# <details><summary>参考答案</summary>
#
# 没有标准答案。好的检验有三个特点：结果能证伪那个断言；用的是模型或数据自己，不是另一篇文章；换一个随机种子结论不变。
#
# </details>
#
# ## 延伸阅读
#
# - Vaswani 等（2017）Attention Is All You Need.
# - Devlin, Chang, Lee, Toutanova（2019）BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding.
# - Brown 等（2020）Language Models are Few-Shot Learners.
# - Hoffmann 等（2022）Training Compute-Optimal Large Language Models.
# - Li, Meng, Sun, Han, Yuan, Li（2019）Is Word Segmentation Necessary for Deep Learning of Chinese Representations?
# - Cui, Che, Liu, Qin, Yang（2021）Pre-Training with Whole Word Masking for Chinese BERT.
# - Petrov, La Malfa, Torr, Bibi（2023）Language Model Tokenizers Introduce Unfairness Between Languages.
# - Xue, Barua, Constant 等（2022）ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models.
# - Lee, Tang, Lin（2019）What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning.
