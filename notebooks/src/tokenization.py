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
# # 分词
#
# **这一本只回答一个问题：一个汉字该切成什么？**
#
# 模型只认得编号。把文字变成编号的第一步，是把它切成一个个**词元（token）**。英文有空格，
# 切起来有个现成的起点；中文没有空格，于是一开始就要做选择：切成字节、切成字、切成子词，还是切成词？
#
# 很多教程直接告诉你「汉字切得太粗」或者「中文要用词」。这一本不下这样的断言，而是**量**：
# 同一批文字、同一把尺子、同样多的计算，每一种切法各得多少分。
#
# **学习目标**
#
# 1. 说清字符、码点（code point）、UTF-8 字节三者的关系，并能手算一个汉字的 UTF-8 编码。
# 2. 手写 BPE 与 WordPiece 的训练和编码、Unigram 的最优切分，结果与 `tokenizers` 库一致。
# 3. 用产出率、长度、未知率、嵌入参数、注意力的开销、编码速度比较八种粒度，并看出换一种文字时谁会吃亏。
# 4. 说清为什么「每词元损失」不能跨粒度比较，会算每字比特数（bits per character，BPC），
#    并会读一个「同样多的计算」的实验：谁领先，领先得可不可靠。
#
# **先修**：[[start]]、[[background]]（嵌入、损失这两个词在那里讲过）；会用 Python 的列表、字典和循环。
# 知道「概率取对数」即可，训练部分不要求懂 Transformer。
#
# **用时**：阅读约 80 分钟；全部运行，没有 bf16 指令的 CPU，一个核心约 6 分钟，有的快得多；GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("tokenization")                     # 换预设：start("tokenization", preset="smoke")

# %% [markdown]
# ## 1 同一句话，四种切法
#
# 先看最直观的。下面这句话有几个「单位」？取决于你问的是谁：硬盘说是字节，眼睛说是字，嘴巴说是词。

# %%
from utils.tokenization import jieba_words

sentence = "今天是个好天气。"
print("字节", len(sentence.encode("utf-8")), [f"{b:02X}" for b in sentence.encode("utf-8")])
print("字  ", len(sentence), list(sentence))
print("词  ", len(jieba_words(sentence)), jieba_words(sentence))

# %% [markdown]
# 从上到下，单位越来越大，个数越来越少。**子词（subword）** 夹在字与词之间：常见的字组并成一个单位，
# 少见的拆开。它由语料训练得来，所以我们先把语料读进来。课程自带的语料是程序生成的地方新闻，
# 每篇有导语（intro）和正文（body），好处是**每段文字的精确概率是已知的**，
# 后面会用它画出任何模型都越不过的下限。

# %%
from utils.corpus import load_corpus

corpus = load_corpus("bundled", n_docs=lesson.preset.n_docs, seed=2026)
train = [row["intro"] + row["body"] for row in corpus["train"].select(range(min(3000, lesson.preset.n_docs // 4)))]
held = [row["intro"] + row["body"] for row in corpus["validation"].select(range(100))]
print(len(train), "篇训练，", len(held), "篇留出。一篇的开头：", train[0][:50], "…")

# %% [markdown]
# 只在自己的语料上量是不够的：生成的新闻用字少、句式整齐。课程另附 160 篇手写的报道，题材、语气、用字都不同，
# 从不参与训练，专门用来看**领域迁移（domain shift）**：换一种文字，各种切法还灵不灵。再备几句更不规矩的，
# 后面拿来做例子。

# %%
articles = [row["intro"] + row["body"] for part in load_corpus("articles").values() for row in part]
natural = [
    "外婆把晒干的陈皮收进瓦罐，说等我冬天咳嗽的时候再打开。",
    "凌晨三点的便利店里，只有冰柜嗡嗡作响，店员趴在收银台上打盹。",
    "iPhone 16 的 NPU 跑这个 7B 模型，每秒大概能出 12.5 个 token。",
    "鳜鱼、鲥鱼、鲈鱼摆了一案板，鱼贩子抡起刀背，噼里啪啦敲晕一条。",
    "這封信是用繁體字寫的，落款日期卻是去年。",
    "笑死，这波操作属实把我整不会了😂",
]
print(len(articles), "篇手写报道，", sum(map(len, articles)), "个字符；", len(natural), "句例子")

# %% [markdown]
# 先看看它们的样子：哪些字常用（字频随名次怎样下降），文章多长，各类别有多少篇。

# %%
from utils.views import corpus_figure, rank_frequency

_ = corpus_figure(corpus["train"], {"手写报道": articles})

# %% [markdown]
# 左图的虚线是**齐普夫定律（Zipf's law）**：第 $r$ 名的词，次数与 $1/r$ 成正比。词大致服从它，单字却不：前几百名降得慢，
# 后面陡然下坠，因为常用的字要参加许多词。在双对数图上拟合第 10 到 300 名的斜率，看看与 −1 差多少：

# %%
import numpy as np

for name, texts in {"自带语料": train, "手写报道": articles}.items():
    rank, share = rank_frequency(texts)
    slope = np.polyfit(np.log(rank[9:300]), np.log(share[9:300]), 1)[0]
    half = int((share.cumsum() < 0.5).sum()) + 1
    lesson.record(f"字频的斜率（{name}，第 10 到 300 名）", slope, "齐普夫定律是 −1")
    print(f"{name}：{len(rank)} 个不同的汉字，前 {half} 个就占了全部文字的一半")
    assert -1 < slope < -0.3

# %% [markdown]
# 自带的语料虽是语法生成的，字频的走势与自然文章相近。这条长尾就是分词的难处：少数字反复出现，多数字难得一见。
#
# ## 2 从字到字节：Unicode 与 UTF-8
#
# Unicode 给世界上每个字符一个编号，叫**码点**，写作 `U+` 加十六进制。Python 的 `ord` 就是查这个编号。

# %%
for char in "A今龘𠮷😀":
    print(f"{char}  码点 U+{ord(char):04X}  UTF-8 {char.encode('utf-8').hex(' ').upper()}")

# %% [markdown]
# 码点只是编号，写进文件还要变成字节。UTF-8 按码点的大小用 1 到 4 个字节，开头几位说明总共几个字节，
# 后面的每个字节以 `10` 开头，剩下的 `x` 位从高到低填码点的二进制：
#
# | 码点范围 | 字节 1 | 字节 2 | 字节 3 | 字节 4 |
# |---|---|---|---|---|
# | U+0000 – U+007F | 0xxxxxxx | | | |
# | U+0080 – U+07FF | 110xxxxx | 10xxxxxx | | |
# | U+0800 – U+FFFF | 1110xxxx | 10xxxxxx | 10xxxxxx | |
# | U+10000 – U+10FFFF | 11110xxx | 10xxxxxx | 10xxxxxx | 10xxxxxx |
#
# 常用汉字在 U+4E00 到 U+9FFF，落在第三行，所以是 3 个字节。照表写成代码，从低位往高位，每次取 6 位：

# %%
def utf8_by_hand(char):
    code = ord(char)
    if code < 0x80:
        return bytes([code])
    length = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    tail = []
    for _ in range(length - 1):
        tail.append(0b10000000 | code & 0b111111)      # 10xxxxxx：取最低的 6 位
        code >>= 6
    head = (0xFF << (8 - length) & 0xFF) | code        # length 个 1，一个 0，再加剩下的高位
    return bytes([head, *reversed(tail)])

# %% [markdown]
# 与 Python 自带的编码比一比。不只比几个例子：留出集、手写报道和例句里的每个字符都要相等。

# %%
chars = sorted(set("".join(held + articles + natural)) | set("Aé今龘𠮷😀"))
assert all(utf8_by_hand(char) == char.encode("utf-8") for char in chars)
print(len(chars), "个不同的字符，手算与库完全一致")

# %% [markdown]
# 两个容易踩的坑。第一，你**看见**的一个字不一定是一个码点：一个家庭 emoji 由几个人用「零宽连接符」粘成，
# 带声调的字母可以是字母加声调两个码点。第二，一个汉字的字节**切断了就不再是字**，
# 字节级模型如果只生成了半个汉字，解码就会出现「�」。

# %%
for text in ("👨‍👩‍👧", "e\u0301", "今"):
    print(repr(text), "码点", len(text), "字节", len(text.encode("utf-8")))
print("截断一个字节：", "今天".encode()[:-1].decode("utf-8", errors="replace"))

# %% [markdown]
# ## 3 手写 BPE
#
# **BPE（byte pair encoding）** 的训练只有一句话：数一数相邻的两个单位谁最常在一起，把它们并成一个新单位，
# 重复。先从语料里取出连续的汉字串（标点和数字是天然的边界），每一串先拆成单字，并数它出现几次。

# %%
import re
from collections import Counter
from itertools import pairwise                         # 相邻的两个：（甲，乙），（乙，丙），…

runs = [run for text in train[:200] for run in re.findall("[一-龥]+", text)]
words = Counter(tuple(run) for run in runs)            # {（单字，单字，…）：次数}
print(len(runs), "串汉字，不同的有", len(words), "串。例如", words.most_common(2))

# %% [markdown]
# 第一步，数相邻的对。一串文字出现了几次，它里面的每一对就加几次。

# %%
def count_pairs(words):
    pairs = Counter()
    for units, times in words.items():
        for pair in pairwise(units):
            pairs[pair] += times
    return pairs

print(count_pairs(words).most_common(5))

# %% [markdown]
# 第二步，合并：从左到右扫一遍，遇到这一对就换成新单位，再从它后面接着扫。

# %%
def merge_pair(units, pair, new):
    merged, i = [], 0
    while i < len(units):
        found = units[i : i + 2] == pair
        merged.append(new if found else units[i])
        i += 2 if found else 1
    return tuple(merged)

print(merge_pair(("今", "天", "是", "今", "天"), ("今", "天"), "今天"))

# %% [markdown]
# 第三步，重复，直到词表有 `size` 个单位。次数相同时先并谁？任何规则都可以，但要与库相同才能逐条比较：
# `tokenizers` 先比左边单位的编号，再比右边的；新单位的编号接在后面。两个单位怎样粘成新单位，由 `glue` 决定：
# BPE 直接相连，下一节的 WordPiece 要多一个步骤。

# %%
def train_pieces(words, start, size, glue):
    number, merges = {unit: i for i, unit in enumerate(start)}, []
    while len(number) < size:
        pairs = count_pairs(words)
        best = min(pairs, key=lambda p: (-pairs[p], number[p[0]], number[p[1]]))
        new = glue(*best)
        merges.append(best)
        number.setdefault(new, len(number))            # 两条规则可能拼出同一个单位，编号只发一次
        merged = Counter()
        for units, times in words.items():
            merged[merge_pair(units, best, new)] += times
        words = merged
    return merges, list(number)

# %% [markdown]
# 起点是全部单字，按码点排队。并 100 个新单位看看：

# %%
alphabet = sorted({char for run in runs for char in run})
merges, pieces = train_pieces(words, alphabet, len(alphabet) + 100, lambda a, b: a + b)
print("前 12 次合并：", " ".join("+".join(pair) for pair in merges[:12]))
print("后 12 次合并：", " ".join("+".join(pair) for pair in merges[-12:]))

# %% [markdown]
# 先并出来的是常见的两字组合，后来两个多字单位又并成更长的短语。注意没有任何人告诉它什么是「词」，只有次数。
#
# 现在让 `tokenizers` 在同一批汉字串上训练，合并规则与词表都必须**逐条相同**：

# %%
import json
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

library = Tokenizer(models.BPE())
library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
library.train_from_iterator(runs, trainers.BpeTrainer(vocab_size=len(pieces), show_progress=False))
library_merges = [tuple(pair) for pair in json.loads(library.to_str())["model"]["merges"]]
assert merges == library_merges
assert pieces == sorted(library.get_vocab(), key=library.get_vocab().get)
print(len(merges), "条合并规则、", len(pieces), "项词表，与手写的逐条相同")

# %% [markdown]
# 编码一段新文字时，规则按**学到的先后**使用：在相邻的对里找排名最靠前的那一条，合并，再找，直到没有规则可用。

# %%
def encode_bpe(text, rank):
    units = tuple(text)
    while True:
        usable = [pair for pair in pairwise(units) if pair in rank]
        if not usable:
            return list(units)
        best = min(usable, key=rank.get)
        units = merge_pair(units, best, "".join(best))

# %% [markdown]
# 在留出的文字上与库比较。只比单字都在词表里的串，因为这个小 BPE 还没有处理生字的办法。

# %%
rank = {pair: i for i, pair in enumerate(merges)}
held_runs = [run for text in held for run in re.findall("[一-龥]+", text) if set(run) <= set(alphabet)]
for run in held_runs:
    assert encode_bpe(run, rank) == library.encode(run).tokens
print(len(held_runs), "串留出文字，编码与库相同。例如：", " / ".join(encode_bpe(max(held_runs, key=len), rank)))

# %% [markdown]
# **生字怎么办？** 有两条路。一条是 GPT-2 的**字节级 BPE（byte-level BPE）**：起点不是字而是 256 个字节，
# 什么文字都能拼出来。训练一点不用改，只是换了起点。（库把每个字节写成一个看得见的符号，例如空格写成 `Ġ`，
# 所以下面看到的是符号。）

# %%
from utils.tokenization import bytes_to_symbols

splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)          # 先按 GPT-2 的正则切开，再换成字节符号
chunks = Counter(tuple(piece) for text in train[:60] for piece, _ in splitter.pre_tokenize_str(text))
byte_merges, _ = train_pieces(chunks, sorted(bytes_to_symbols()), 256 + 40, lambda a, b: a + b)
scratch = Tokenizer(models.BPE())
scratch.pre_tokenizer = splitter
scratch.train_from_iterator(train[:60], trainers.BpeTrainer(
    vocab_size=296, initial_alphabet=bytes_to_symbols(), show_progress=False))
assert byte_merges == [tuple(pair) for pair in json.loads(scratch.to_str())["model"]["merges"]]

# %% [markdown]
# 最早的合并是什么？把符号换回字节看看：

# %%
byte_of = {symbol: i for i, symbol in enumerate(bytes_to_symbols())}
for pair in byte_merges[:3] + byte_merges[-3:]:
    data = bytes(byte_of[symbol] for symbol in "".join(pair))
    print(data.hex(" ").upper().ljust(12), "→", data.decode("utf-8", errors="replace"))

# %% [markdown]
# 它先学的不是词，而是常用汉字共有的开头几个字节，随后才拼出整个字。这就是字节级词表看上去像「乱码」的原因：
# 许多词元只是半个字。
#
# 另一条路是**字节回退（byte fallback）**：平时用字，遇到词表外的字才拆成 UTF-8 字节。
# 本课程的 `bpe`、`unigram`、`word` 用的是后者。
#
# ## 4 WordPiece：同样的训练，另一种编码
#
# BERT 用的 **WordPiece** 给不在词首的片段前面加 `##`，以区分「词首的 天」和「词中的 ##天」。
# 一个少有人提的细节：`tokenizers` 的 WordPiece **训练器**内部就是 BPE（按次数合并），并不是论文里按似然增益
# 合并的那个版本。既然如此，上面的 `train_pieces` 就能用：单位换成带 `##` 的，粘的时候去掉右边的 `##`。

# %%
def wordpiece_units(run):
    return (run[0], *("##" + char for char in run[1:]))

starts = Counter(wordpiece_units(run) for run in runs)
tails = sorted({unit for units in starts for unit in units[1:]})     # ##字 先登记，再是词首的字：与下面的库同一个次序
first = ["[UNK]", *tails, *alphabet]
_, wordpieces = train_pieces(starts, first, len(first) + 100, lambda a, b: a + b.removeprefix("##"))
print("学到的片段：", wordpieces[-8:])

# %% [markdown]
# 与库的训练器比：同样的起点、同样的大小，词表应当逐项相同，编号也相同。

# %%
wp_library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
wp_library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
wp_library.train_from_iterator(runs, trainers.WordPieceTrainer(
    vocab_size=len(wordpieces), special_tokens=["[UNK]", *tails], show_progress=False))
wp_vocab = wp_library.get_vocab()
assert wordpieces == sorted(wp_vocab, key=wp_vocab.get)
print(len(wordpieces), "项词表，与手写的逐项相同")

# %% [markdown]
# 真正不同的是编码。WordPiece 不看合并的先后，只看词表：从左边开始，取词表里**最长**的一段，再从断点继续。
# 只要有一处匹配不上，整段变成 `[UNK]`。

# %%
def encode_wordpiece(text, vocab):
    pieces, start = [], 0
    while start < len(text):
        prefix = "##" if start else ""
        ends = [e for e in range(len(text), start, -1) if prefix + text[start:e] in vocab]
        if not ends:
            return ["[UNK]"]
        pieces.append(prefix + text[start : ends[0]])
        start = ends[0]
    return pieces

# %% [markdown]
# 在刚训练的小词表上比一遍，连同切不动的那些串：

# %%
some_runs = [run for text in held + articles[:40] + natural for run in re.findall("[一-龥]+", text)]
for run in some_runs:
    assert encode_wordpiece(run, wp_vocab) == wp_library.encode(run).tokens
unknown = [run for run in some_runs if encode_wordpiece(run, wp_vocab) == ["[UNK]"]]
print(len(some_runs), "串，全部相同；其中", len(unknown), "串变成 [UNK]，例如", unknown[:3])

# %% [markdown]
# 整个小句只因为一两个生字就全部丢失。所以 WordPiece 用在中文上时，通常先把每个汉字隔开，这是第 6 节要说的。
#
# 现在训练全部八种分词器。`build_tokenizer` 返回的是真正的 Hugging Face 分词器，可以保存、加载、
# 交给 Trainer。四种子词和词用**同样大的词表**，比较才公平：词收下最常见的那些，放不下的拆成字。
# 字节、字与 BERT 的词表由它们自己决定。

# %%
import time
from utils.tokenization import GRANULARITIES, GRANULARITY_NAMES, build_tokenizer

n_chars = len(set("".join(train)))
sizes = dict.fromkeys(["byte_bpe", "wordpiece", "bpe", "unigram", "word"], 2 * n_chars + 1000)
tokenizers = {}
for name in GRANULARITIES:
    begin = time.perf_counter()
    tokenizers[name] = build_tokenizer(name, train, sizes.get(name), model_max_length=1024)
    seconds = time.perf_counter() - begin
    print(f"{GRANULARITY_NAMES[name]}：词表 {len(tokenizers[name])}，训练 {seconds:.1f} 秒")

# %% [markdown]
# ## 5 Unigram：概率最大的切法
#
# **Unigram** 给词表里每个片段 $x$ 一个概率 $p(x)$，一种切法 $x_1 \dots x_m$ 的得分是各片段概率的积，
# 编码就是找得分最高的切法：
#
# $$\hat{x} = \arg\max_{x_1 \cdots x_m = \text{文字}} \sum_{i=1}^{m} \log p(x_i)$$
#
# 切法的数目随长度指数增长，但不必一一列举。设 $b_j$ 是前 $j$ 个字的最高得分，
# 则 $b_j = \max_{i<j}\,[\,b_i + \log p(\text{第 } i \text{ 到 } j \text{ 字})\,]$，从左到右算一遍就行，
# 这就是 **Viterbi 算法**。

# %%
def encode_unigram(text, score):
    best = [(0.0, 0)] + [(-1e9, 0)] * len(text)        # 每项是 b_j 和最后一段的起点
    for j in range(1, len(text) + 1):
        options = [(best[i][0] + score[text[i:j]], i) for i in range(j) if text[i:j] in score]
        best[j] = max(options, default=best[j])
    pieces, j = [], len(text)
    while j:
        i = best[j][1]
        pieces.insert(0, text[i:j])
        j = i
    return pieces, best[-1][0]

# %% [markdown]
# 词级分词器用的也是它：把 jieba 从训练文本里切出的词、加上所有单字，连同对数频率装进 Unigram。
# jieba 自己同样是「按词频找概率最大的路径」，只不过用自带的大词典，再用一个小模型（HMM）去猜新词。
# 得分相同的切法可能不止一种，所以下面比的是得分。

# %%
score = dict(map(tuple, json.loads(tokenizers["word"].backend_tokenizer.to_str())["model"]["vocab"]))
for run in held_runs:
    pieces, by_hand = encode_unigram(run, score)
    by_library = sum(score[piece] for piece in tokenizers["word"].tokenize(run))
    assert abs(by_hand - by_library) < 1e-6
print("最优得分与库相同。例如：", " / ".join(encode_unigram(max(held_runs, key=len), score)[0]))

# %% [markdown]
# ## 6 bert-base-chinese 是怎么切的
#
# 中文 BERT（Devlin 等，2019）虽然名为 WordPiece，实际上是一个**字模型**：它先做一步预处理，
# 在每个汉字两边加空格，WordPiece 便只会看到单字。这一步由 `BertNormalizer` 完成，不必下载模型也能看：

# %%
from tokenizers.normalizers import BertNormalizer

normalizer, bert_split = BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
for text in ("中文BERT在2018年发布。", "𠮷野家", "\U0002CEB1字", "ＡＢＣ１２３"):
    print(repr(text), "→", [piece for piece, _ in bert_split.pre_tokenize_str(normalizer.normalize_str(text))])

# %% [markdown]
# 汉字个个分开，拉丁字母和数字各自成串。第三行是扩展 F 区的字（U+2CEB1）：这套规则写得早，只认到扩展 E 区，
# 更晚收入 Unicode 的字不会被隔开。
#
# `tokenizers["bert"]` 就是按这套规则、在我们的语料上训练出来的。给 Hugging Face 自己的 `BertTokenizer`
# 同一份词表，编号应当处处相同；再数一数词表里有没有多字的汉字词元：

# %%
from transformers import BertTokenizer

theirs = BertTokenizer(vocab=tokenizers["bert"].get_vocab(), do_lower_case=False)
for text in held + articles + natural:
    assert theirs(text)["input_ids"] == tokenizers["bert"](text)["input_ids"]
several = [token for token in tokenizers["bert"].get_vocab() if len(re.findall("[一-龥]", token)) > 1]
print("与 BertTokenizer 相同；多字的汉字词元有", len(several), "个")

# %% [markdown]
# 由 bert-base-chinese 公开的 `vocab.txt` 还可以查到几件事：词表 21,128 项，其中单个汉字 7,322 个，
# 带 `##` 的汉字又是一份。既然每个汉字都被隔开，那一份 `##` 汉字永远用不上，占了词表的约三分之一。
# 词表里没有多字的词，没有大写字母，也没有中文的弯引号 “ ” 和省略号 …，这些会变成 `[UNK]`。
# 此外 `decode` 会在字与字之间加空格。
#
# 本课程的 `char` 分词器不做任何规范化：大小写、全角半角、空格都原样保留，词表里有的字，解码一字不差。
#
# ## 7 词：有时连人也要想一想
#
# 中文的词没有明写的边界，同一串字可以有几种切法，要靠上下文甚至常识才能定。下面是十四个常被拿来讨论的例子，
# 各写出两种读法，用 `/` 标出词界。先自己想想，哪一种是你第一眼看到的？

# %%
readings = [
    ("乒乓球拍/卖/完/了", "乒乓球/拍卖/完/了"), ("研究/生命/的/起源", "研究生/命/的/起源"),
    ("南京市/长江大桥", "南京/市长/江大桥"), ("白天鹅/在/湖里/游泳", "白天/鹅/在/湖里/游泳"),
    ("结婚/的/和/尚未/结婚/的", "结婚/的/和尚/未/结婚/的"), ("他/说/的/确实/在理", "他/说/的确/实在/理"),
    ("这个/门把手/坏/了", "这个/门/把/手/坏/了"), ("请/把/手/拿开", "请/把手/拿开"),
    ("美国/会/通过/法案", "美/国会/通过/法案"), ("学生会/组织/活动", "学生/会/组织/活动"),
    ("他/将来/上海", "他/将/来/上海"), ("有/意见/分歧", "有意/见/分歧"),
    ("从/马上/下来", "从/马/上/下来"), ("从小/学/电脑", "从/小学/电脑"),
]
for first, second in readings:
    assert first.replace("/", "") == second.replace("/", "")

# %% [markdown]
# 怎样判断一种切法「选了哪种读法」？两种读法共有的词界分不出高下，只看各自独有的。一种读法还读得出来，
# 当且仅当它独有的词界**都是词元的边界**：词元把词界盖住了，后面的模型就再也看不到这种读法。
# 于是每种粒度对每一句只有四种结局：
#
# - **未定**：两种读法都还在，把决定留给模型；
# - **甲** 或 **乙**：只剩一种，决定已经做了，错了也无法挽回；
# - **皆非**：两种读法独有的词界都被盖住，或者整段成了 `[UNK]`。
#
# 边界按字节算，这样半个字的词元也处理得对：

# %%
from itertools import accumulate
from utils.views import token_pieces
from utils.tokenization import jieba_words

def boundaries(parts):                                  # 每一段结束在第几个字节
    return set(accumulate(len(part) for part in parts))

def outcome(parts, first, second):
    cuts = boundaries(parts)
    a, b = (boundaries(word.encode() for word in reading.split("/")) for reading in (first, second))
    fits = a - b <= cuts, b - a <= cuts                 # 独有的词界都在不在
    return {(True, True): "未定", (True, False): "甲", (False, True): "乙", (False, False): "皆非"}[fits]

# %% [markdown]
# 每一句、每一种粒度都判一遍，jieba 也算一家（它用自带的大词典，不看我们的语料）。
# 第一行的意思是：用 jieba 的切法，「乒乓球拍卖完了」只剩下哪一种读法。

# %%
from utils.display import show_table

columns = {"jieba": lambda text: [word.encode() for word in jieba_words(text)]}
for name in GRANULARITIES:
    columns[name] = lambda text, tok=tokenizers[name]: [piece.data for piece in token_pieces(tok, text)]
outcomes = {name: [outcome(cut(a.replace("/", "")), a, b) for a, b in readings] for name, cut in columns.items()}
show_table(["读法甲 ｜ 读法乙", *columns], [[f"{a} ｜ {b}", *(outcomes[name][i] for name in columns)]
                                     for i, (a, b) in enumerate(readings)], "谁替你做了决定")

# %% [markdown]
# 数一数每一列。字节与字永远「未定」，这不是测出来的，而是必然的：任何词界都是字的边界。写成断言：

# %%
for name in ("byte", "char", "bert"):
    assert set(outcomes[name]) == {"未定"}
for name, column in outcomes.items():
    print(f"{name:10}", "，".join(f"{kind} {column.count(kind)} 句" for kind in ("未定", "甲", "乙", "皆非")))
print("jieba 的切法：", "；".join(" / ".join(jieba_words(a.replace("/", ""))) for a, _ in readings[:6]))

# %% [markdown]
# 看 jieba 那一行：它必须当场选一个，没有「未定」的余地（两种读法的词界一粗一细时例外）。训练出来的子词有不少「未定」，
# 但原因并不光彩：我们的语料是地方新闻，不大写「乒乓」「国会」，这些字没被并起来。语料越大、词表越大，
# 子词也会像词一样提前做决定。看几句它们实际的样子：

# %%
for first, _ in readings[:3]:
    for name in ("byte_bpe", "wordpiece", "bpe", "unigram", "word"):
        shown = [piece.label for piece in token_pieces(tokenizers[name], first.replace("/", ""))]
        print(f"{name:10}", " / ".join(shown))

# %% [markdown]
# 像 `E4` 这样的十六进制是一个字节：训练语料里没有的字退回到了字节。`[UNK]` 是整段丢失。这正是下一个问题。
#
# ## 8 生词、生僻字、emoji、拉丁字母和数字
#
# 让八种分词器面对十种不那么规矩的文字。表里每格是**词元个数**；后面跟 `✗` 的，表示解码后与原文不同，
# 有信息丢失。

# %%
hard = {"生词": "绝绝子", "生僻字": "饕餮龘靐", "扩展B区": "𠮷𠀀", "emoji": "😂👨‍👩‍👧", "拉丁": "ChatGPT",
        "数字": "3.14159", "混排": "第5G时代A股", "繁体": "憂鬱的臺灣烏龜", "全角": "ＡＢＣ１２３",
        "空白": " a\n\tb "}
plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}

def back(name, text):
    ids = tokenizers[name](text, **plain)["input_ids"]
    return len(ids), tokenizers[name].decode(ids)

rows = []
for label, text in hard.items():
    cells = [back(name, text) for name in GRANULARITIES]
    rows.append([label, repr(text)[1:-1], len(text), *(f"{n}{'' if again == text else ' ✗'}" for n, again in cells)])
show_table(["种类", "文字", "字符", *GRANULARITIES], rows, "词元个数；✗ 是有损")

# %% [markdown]
# 规律很清楚：有字节垫底的五种（`byte`、`byte_bpe`、`bpe`、`unigram`、`word`）从不丢失信息，
# 代价是生字要花三四个词元；`char`、`bert` 与 `wordpiece` 遇到没见过的字就丢。把这条规律写成断言，
# 再看丢了的变成什么样：

# %%
from utils.tokenization import LOSSLESS

assert all(back(name, text)[1] == text for name in LOSSLESS for text in hard.values())
for name in ("char", "bert", "wordpiece"):
    lost = {text: back(name, text)[1] for text in hard.values() if back(name, text)[1] != text}
    print(f"{name}：{len(lost)} 种有损，例如", "；".join(f"{a!r} → {b!r}" for a, b in list(lost.items())[-3:]))
    assert lost

# %% [markdown]
# `bert` 还有一种丢法，没有生字也会丢。看上一张表的「绝绝子」和「3.14159」：`char` 一个字也没丢，`bert` 却打了 ✗，
# 因为它的 `decode` 在词元之间一律加空格，换行和制表符也找不回来。这不影响它理解文字，却使它不适合拿来**写**文字。
#
# 无损还有一层意思：特殊词元的写法出现在普通文字里（语料里真有人写 `[SEP]`），也要能当普通文字编进去：

# %%
for name in LOSSLESS:
    text = "他写了一个[SEP]，又写了<0xE4>。"
    ids = tokenizers[name](text, **plain)["input_ids"]
    assert tokenizers[name].sep_token_id not in ids and tokenizers[name].decode(ids) == text

# %% [markdown]
# ### 游乐场
#
# 换成你自己的句子试试。下面的文本框随输随切；鼠标停在方块上（或者用 Tab 键走到它），
# 会显示编号、它的 UTF-8 字节，以及它在训练文本里出现过多少次。方块里的小字是编号。
# 这个框只在运行着的 notebook 里能用，不联网。

# %%
from utils.views import count_tokens, draw_tokens, token_playground

text = "拍卖完了，饕😀"
counts = count_tokens(tokenizers, train)
token_playground(tokenizers, text, counts)

# %% [markdown]
# 同一内容的静态图，给在网页上读的你（字体里没有的字写成码点）：

# %%
figure = draw_tokens(tokenizers, text)

# %% [markdown]
# ## 9 六把尺子
#
# 现在量。对每种粒度、每批文字，量这些数：
#
# - **词元产出率（fertility）**，下文简称产出率：平均每个字符要几个词元。越小，序列越短。
# - **长度**：平均每篇文档的词元数。
# - **未知率**：落进 `[UNK]` 的字符占多少。用字符数而不是词元数来算，因为 WordPiece 的一个 `[UNK]` 可能吞掉一整句。
# - **嵌入参数**：词表大小 × 隐藏维度。词表越大，模型的第一层（和最后一层）越贵。
# - **算力**：读一篇 1000 字的文章，一次前向要多少浮点运算，其中注意力占多少。
# - **编码速度**：每秒编多少 MB 的文字。
#
# 前三个直接数：

# %%
def measure(tokenizer, texts):
    tokens = lost = 0
    for text in texts:
        encoded = tokenizer(text, return_offsets_mapping=True, **plain)
        tokens += len(encoded["input_ids"])
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        lost += sum(stop - begin for i, (begin, stop) in spans if i == tokenizer.unk_token_id)
    chars = sum(map(len, texts))
    return {"产出率": tokens / chars, "长度": tokens / len(texts), "未知率": lost / chars}

# %% [markdown]
# 三批文字：训练过的、同一来源但没训练过的（留出）、手写的报道。前两批看不出毛病的，第三批会露出来。

# %%
sources = {"训练": train[:300], "留出": held, "手写": articles}
table = {name: {label: measure(tokenizers[name], texts) for label, texts in sources.items()} for name in GRANULARITIES}

# %% [markdown]
# 算力要推一下。一个 Transformer 有 $L$ 层，隐藏维度（向量的宽）$H$，前馈层宽 $4H$，词表大小 $V$。这些部件做什么，
# [[self_attention]]
# 和 [[transformer]] 才讲，这里只要知道每个部件是多大的矩阵。（从 [[self_attention]] 起，$H$ 是头数，宽度改写作 $C$。）
# 矩阵乘法里，一个 $m \times k$ 乘 $k \times n$ 要 $2mkn$ 次浮点运算（乘一次、加一次）。读 $B$ 条长 $T$ 的序列：
#
# - 四个投影（Q、K、V 和输出）各 $2H^2$，前馈两层各 $2 \cdot 4H^2$，合起来每个词元每层 $24H^2$；
# - 注意力的两次乘法（$QK^\top$ 与权重乘 $V$），每层 $4HT^2$：**长度的平方**；
# - 词表头先过一个 $H \times H$，再乘 $H \times V$；只在要预测的 $N$ 个位置算。
#
# $$F_{\text{前向}} = \underbrace{24LH^2 \cdot BT}_{\text{各层的矩阵}} + \underbrace{4LH \cdot BT^2}_{\text{注意力}}
#   + \underbrace{2(H^2 + HV)\,N}_{\text{词表头}}$$

# %%
def forward_flops(L, H, V, B, T, N):
    return 24 * L * H**2 * B * T, 4 * L * H * B * T**2, 2 * (H**2 + H * V) * N

# %% [markdown]
# 公式对不对，让 torch 数一遍。`FlopCounterMode` 会记下每一次矩阵乘法；随便造个小模型，前向一次：

# %%
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertLMHeadModel

config = BertConfig(vocab_size=1000, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
                    intermediate_size=4 * 48, is_decoder=True, attn_implementation="eager")
with torch.no_grad(), FlopCounterMode(display=False) as counter:
    BertLMHeadModel(config)(input_ids=torch.randint(1000, (2, 70)))
by_hand = sum(forward_flops(3, 48, 1000, 2, 70, 2 * 70))
print(f"手算 {by_hand:,.0f}，torch 数到 {counter.get_total_flops():,}")
assert abs(by_hand / counter.get_total_flops() - 1) < 1e-3

# %% [markdown]
# 编码速度用的是 `encode_texts`，第 10 节再细说。六个数放进一张表，算力按 BERT-base 的形状（12 层，768 维）算：

# %%
from utils.tokenization import encode_texts

megabytes = sum(len(text.encode()) for text in train) / 1e6
for name in GRANULARITIES:
    begin = time.process_time()                         # 本进程的 CPU 时间，别的程序不算在内
    encode_texts(tokenizers[name], train)
    seconds = time.process_time() - begin
    T, V = round(1000 * table[name]["手写"]["产出率"]), len(tokenizers[name])
    table[name] |= {"速度": megabytes / seconds, "词表": V, "嵌入": V * 768 / 1e6,
                    "算力": [part / 1e9 for part in forward_flops(12, 768, V, 1, T, T)]}

# %% [markdown]
# 斜线隔开的三个数依次是训练、留出、手写。手写报道本来就写得长些，所以长度要与产出率一起看；速度随机器而变，看相对的快慢就好。

# %%
def three(name, key, form):
    return " / ".join(form.format(table[name][label][key]) for label in sources)

header = ["粒度", "词表", "产出率（词元/字符）", "长度（词元/篇）", "未知率", "嵌入（百万）", "千字算力（十亿次）", "注意力占", "MB/秒"]
show_table(header, [[GRANULARITY_NAMES[n], len(tokenizers[n]), three(n, "产出率", "{:.2f}"), three(n, "长度", "{:.0f}"),
                     three(n, "未知率", "{:.2%}"), f"{table[n]['嵌入']:.1f}", f"{sum(table[n]['算力']):,.0f}",
                     f"{table[n]['算力'][1] / sum(table[n]['算力']):.0%}", f"{table[n]['速度']:.1f}"]
                    for n in GRANULARITIES], "六把尺子：训练 / 留出 / 手写")

# %% [markdown]
# 同一张表画成图。左上越低越省，看三根柱子之间的差距：差距大，说明这种切法是专门为训练语料量身定做的，
# 换个领域就不省了。

# %%
import matplotlib.pyplot as plt

labels = [GRANULARITY_NAMES[name].replace(" ", "\n").replace("（", "\n（") for name in GRANULARITIES]
position = np.arange(len(GRANULARITIES))
figure, axes = plt.subplots(2, 3, figsize=(10, 4.6))
for ax, key, scale, unit in zip(axes.flat, ("产出率", "长度", "未知率"), (1, 1, 100), ("词元 / 字符", "词元 / 篇", "字符（%）")):
    for k, label in enumerate(sources):
        ax.bar(position + (k - 1) * 0.27, [scale * table[n][label][key] for n in GRANULARITIES], 0.26, label=label)
    ax.set(title=key, ylabel=unit)
axes[0, 0].legend(frameon=False)
for ax, key, unit in ((axes[1, 0], "嵌入", "百万个参数"), (axes[1, 2], "速度", "MB / 秒")):
    ax.bar(position, [table[n][key] for n in GRANULARITIES], color="#555555")
    ax.set(title={"嵌入": "嵌入参数（隐藏维度 768）", "速度": "编码速度"}[key], ylabel=unit)
bottom = np.zeros(len(GRANULARITIES))
for part, label in enumerate(("各层的矩阵", "注意力", "词表头")):
    height = np.array([table[n]["算力"][part] for n in GRANULARITIES])
    axes[1, 1].bar(position, height, bottom=bottom, label=label)
    bottom += height
axes[1, 1].set(title="读千字报道的算力（BERT-base）", ylabel="十亿次浮点运算")
axes[1, 1].legend(frameon=False, fontsize=8)
for ax in axes.flat:
    ax.set_xticks(position, labels, fontsize=5.5)

# %% [markdown]
# WordPiece 在手写报道上「省」是假象：整句变成一个 `[UNK]` 当然短，看右上的未知率就明白了。
# 把「专门定做」也量出来：从留出换到手写，产出率涨了几成？

# %%
for name in GRANULARITIES:
    held_rate, wild_rate = table[name]["留出"]["产出率"], table[name]["手写"]["产出率"]
    print(f"{GRANULARITY_NAMES[name]}：{held_rate:.2f} → {wild_rate:.2f}（{wild_rate / held_rate - 1:+.0%}）")
for name in ("byte", "char", "bpe", "word"):
    lesson.record(f"产出率 {name}（留出）", table[name]["留出"]["产出率"], "词元/字符")
    lesson.record(f"产出率 {name}（手写）", table[name]["手写"]["产出率"], "词元/字符")

# %% [markdown]
# ### 词表收得全吗：Zipf 与 Heaps
#
# 词级的未知率是 0，因为生词被拆成了字甚至字节。它真正的代价是**生词率**，根子在词的分布。两条经验定律：
#
# - 第 1 节见过的**齐普夫定律**：第 $r$ 名的次数约与 $1/r$ 成正比，所以多数词型（type，不同的词）极少见；
# - **希普斯定律（Heaps' law）**：读了 $n$ 个字符，见过的不同单位约有 $K n^{\beta}$ 个。$\beta$ 越接近 0，词表越收得全；
#   越接近 1，读到哪里都有新的。
#
# 左图画各粒度词元的频率，右图一边读训练文本，一边数见过多少种单位。词在这里用 jieba 直接切，不设词表的上限。

# %%
def growth(units_of, texts):
    seen, chars, curve = set(), 0, []
    for text in texts:
        seen.update(units_of(text))
        chars += len(text)
        curve.append((chars, len(seen)))
    return np.array(curve).T                            # (2, 篇数)：读过的字符，见过的种类

kinds = {"字（训练）": (list, train[:1500]), "字（手写）": (list, articles),
         "词（训练）": (jieba_words, train[:1500]), "词（手写）": (jieba_words, articles)}
curves = {label: growth(units_of, texts) for label, (units_of, texts) in kinds.items()}

# %% [markdown]
# 画出来，并在双对数图上拟合 $\beta$（取后一半的点）：

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
for i, name in enumerate(GRANULARITIES):
    times = np.array(sorted(counts[name].values(), reverse=True))
    left.loglog(np.arange(1, len(times) + 1), times / times.sum(), "-" if i < 7 else "--", label=GRANULARITY_NAMES[name], linewidth=1.2)
left.loglog([10, 3000], [3e-2, 1e-4], ":", color="black", label="比例 ∝ 1/名次")
left.set(title="词元的频率与名次（训练）", xlabel="名次", ylabel="占全部词元的比例")
beta = {}
for label, (chars, types) in curves.items():
    half = len(chars) // 2
    beta[label] = np.polyfit(np.log(chars[half:]), np.log(types[half:]), 1)[0]
    right.loglog(chars, types, label=f"{label} β={beta[label]:.2f}", linestyle="-" if "训练" in label else "--")
right.set(title="见过的种类随篇幅增长", xlabel="读过的字符", ylabel="见过的不同单位")
for ax in (left, right):
    ax.legend(frameon=False, fontsize=7.5)

# %% [markdown]
# 字的曲线弯下来了：再读下去，新字越来越少。词的曲线一路往上，在自然的文字里尤其陡。再数两个数：
# 词表里的词元，有多少在别处真用得上；jieba 切出的多字词，有多少不在词表里。

# %%
word_vocab = tokenizers["word"].get_vocab()

def unseen_words(texts):
    found = [word for text in texts for word in jieba_words(text) if len(word) > 1]
    return sum(word not in word_vocab for word in found) / len(found)

for name in GRANULARITIES:
    used = {i for ids in encode_texts(tokenizers[name], articles, special=False) for i in ids}
    print(f"{GRANULARITY_NAMES[name]}：词表 {len(tokenizers[name])}，训练时用到 {len(counts[name])}，手写报道里用到 {len(used)}")
types = Counter(word for text in train[:1000] for word in jieba_words(text) if len(word) > 1)
print(f"训练文本的 {len(types)} 个多字词型里，只出现一次的占 {sum(n == 1 for n in types.values()) / len(types):.1%}")
print(f"多字词里的生词：留出 {unseen_words(held):.1%}，手写 {unseen_words(articles):.1%}")

# %% [markdown]
# 把要紧的记下来。断言的意思是：换了领域，词的生词率一定比同领域高；词的种类比字的种类涨得快。

# %%
for label, value in beta.items():
    lesson.record(f"Heaps β {label}", value)
lesson.record("词级生词率（留出）", 100 * unseen_words(held), "%")
lesson.record("词级生词率（手写）", 100 * unseen_words(articles), "%")
assert unseen_words(articles) > unseen_words(held)
assert beta["词（手写）"] > beta["字（手写）"] and beta["词（训练）"] > beta["字（训练）"]

# %% [markdown]
# ### 词表开多大
#
# 三种子词各在一串词表大小上训练，量留出与手写的产出率。起点是最小的词表（每个字、每个字节都要有位置），
# 横轴是在它之上多给了多少个位置。

# %%
small = train[:1000]
base = {"wordpiece": 5 + len({c for t in small for c in t}) * 2, "bpe": 261 + len({c for t in small for c in t})}
base["unigram"] = base["bpe"]
extras = (200, 800) if lesson.preset.name == "smoke" else (250, 500, 1000, 2000, 4000)
by_size = {}
for name in ("wordpiece", "bpe", "unigram"):
    for extra in extras:
        tokenizer = build_tokenizer(name, small, base[name] + extra)
        by_size[name, extra] = [measure(tokenizer, texts)["产出率"] for texts in (held, articles)]

# %% [markdown]
# 实线是留出，虚线是手写。WordPiece 的虚线要打折看：它有一部分「省」是丢出来的。

# %%
figure, ax = plt.subplots(figsize=(6.6, 2.6))
for name, color in zip(("wordpiece", "bpe", "unigram"), ("#0072B2", "#D55E00", "#009E73")):
    for k, style in enumerate(("-", "--")):
        ax.plot(extras, [by_size[name, extra][k] for extra in extras], style, color=color, marker="o", markersize=4,
                label=f"{GRANULARITY_NAMES[name]}，{('留出', '手写')[k]}")
ax.set(title="词表越大，越省；换了文字，省得少", xlabel="最小词表之外再给多少个位置", ylabel="产出率（词元/字符）", ylim=(0, None))
ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
gain = {k: by_size["bpe", extras[0]][k] - by_size["bpe", extras[-1]][k] for k in (0, 1)}
print(f"BPE 的词表从 +{extras[0]} 到 +{extras[-1]}，产出率在留出上降了 {gain[0]:.3f}，在手写上降了 {gain[1]:.3f}")

# %% [markdown]
# 留出的线一直往下走，手写的线降得慢：合并出来的长片段多是这批新闻特有的。词表要在**将来要用的文字**上训练，
# 也不是越大越好：每多一个位置，嵌入与词表头就多 $H$ 个参数。
#
# ## 10 编码要多久
#
# 预训练之前要把全部语料编一遍，所以速度要紧。凑一批新闻（至多 4,000 篇，约 2 MB），比四种做法：
#
# - **纯 Python**：字级就是查字典，BPE 用上面手写的 `encode_bpe`（太慢，只编一小部分，折算成每秒多少 MB）；
# - **库**：`tokenizers` 自己的 `encode_batch_fast`；
# - **我们的** `encode_texts`：`build_tokenizer` 的分词器配的快速通道；
# - **transformers 的调用** `tokenizer(texts)`：另造两份列表（`attention_mask` 与 `token_type_ids`）。

# %%
docs = corpus["train"].select(range(min(4000, len(corpus["train"]))))
pile = [a + b + c for a, b, c in zip(docs["title"], docs["intro"], docs["body"], strict=True)]
pile_mb = sum(len(text.encode()) for text in pile) / 1e6
print(f"{len(pile)} 篇，{pile_mb:.1f} MB")

# %% [markdown]
# 后三种并排计时：每次取 500 篇，三种做法轮着先后来，把各自的秒数加起来，这样机器忽快忽慢对谁都一样。
# 用的是进程自己的 CPU 时间，别的程序占着机器也不算进来；都只用一个线程。

# %%
import gc

def rates(tokenizer, texts):
    ways = {"库": lambda part: [e.ids for e in tokenizer.backend_tokenizer.encode_batch_fast(part)],
            "encode_texts": lambda part: encode_texts(tokenizer, part),
            "tokenizer(texts)": lambda part: tokenizer(part, split_special_tokens=True, verbose=False)["input_ids"]}
    spent, order = dict.fromkeys(ways, 0.0), list(ways)
    gc.collect()
    gc.disable()                                        # 与 timeit 一样：垃圾回收落到谁头上全凭运气，计时的时候关掉
    for k in range(0, len(texts), 500):
        results = []
        for way in order[k // 500 % 3:] + order[:k // 500 % 3]:
            begin = time.process_time()
            results.append(ways[way](texts[k : k + 500]))
            spent[way] += time.process_time() - begin
        assert results[0] == results[1] == results[2]
    gc.enable()
    return spent

# %% [markdown]
# 手写的 BPE 要先按库的规矩切块，再逐块合并；这里只编得动一小批：

# %%
bpe_state = json.loads(tokenizers["bpe"].backend_tokenizer.to_str())["model"]
bpe_rank = {tuple(pair): i for i, pair in enumerate(bpe_state["merges"])}
char_vocab, bpe_split = tokenizers["char"].get_vocab(), tokenizers["bpe"].backend_tokenizer.pre_tokenizer
sample = pile[: len(pile) // 20]
slow = {"char": lambda text: [char_vocab.get(char, 1) for char in text],
        "bpe": lambda text: [unit for piece, _ in bpe_split.pre_tokenize_str(text) for unit in encode_bpe(piece, bpe_rank)]}
rows, overhead, slower = [], {}, {}
for name, by_loop in slow.items():
    part = pile if name == "char" else sample
    begin = time.process_time()
    loop = [by_loop(text) for text in part]
    loop_rate = sum(len(text.encode()) for text in part) / 1e6 / (time.process_time() - begin)
    spent = rates(tokenizers[name], pile)
    overhead[name] = spent["encode_texts"] / spent["库"] - 1
    slower[name] = pile_mb / spent["库"] / loop_rate
    rows.append([GRANULARITY_NAMES[name], f"{loop_rate:.2f}", *(f"{pile_mb / s:.1f}" for s in spent.values()), f"{overhead[name]:+.1%}"])
show_table(["MB/秒", "纯 Python", "库", "encode_texts", "tokenizer(texts)", "encode_texts 比库慢"], rows)

# %% [markdown]
# 手写的结果也要对：那一小批的编码与库逐个词元相同（生字处除外，手写的没有字节回退）。外壳的开销应当在一成以内。

# %%
for text in sample[:50]:
    by_hand = slow["bpe"](text)
    by_library = tokenizers["bpe"].tokenize(text)
    assert by_hand == by_library or any(token.startswith("<0x") for token in by_library)
for name, extra in overhead.items():
    lesson.record(f"encode_texts 比库慢（{name}）", 100 * extra, "%")
    verdict = "在一成以内" if extra < 0.1 else "超过了一成，再量一次看看"
    print(f"{GRANULARITY_NAMES[name]}：外壳的开销{verdict}；库的速度是纯 Python 的 {slower[name]:.1f} 倍")

# %% [markdown]
# 字级的活只是查字典，纯 Python 不见得输，库的好处在别处：同一个接口、偏移量、能存能读。一旦要合并，差别就大了：
# 手写的每合并一次都要把所有相邻的对重看一遍，库用优先队列，还记得切过的块。
#
# ## 11 公平的单位：每字比特数
#
# 现在要比谁的**模型**更好。语言模型的损失通常报「每词元多少奈特（nat）」，
# 即 $-\ln p(\text{下一个词元} \mid \text{上文})$ 的平均。跨粒度能比吗？设一段文字有 $C$ 个字符，
# 被切成 $N$ 个词元，模型给整段文字的概率是
#
# $$p(\text{文字}) = \prod_{i=1}^{N} p(x_i \mid x_{<i}),
# \qquad \text{总损失}\; S = -\sum_{i=1}^{N} \ln p(x_i \mid x_{<i}).$$
#
# 每词元损失是 $S/N$。切得越细，$N$ 越大，同样的 $S$ 摊到每个词元头上就越少——不是模型变好了，是分母变大了。
# 字符数 $C$ 与切法无关，所以除以它，再把奈特换成比特（除以 $\ln 2$）：
#
# $$\text{BPC} = \frac{S}{C \ln 2}.$$
#
# 它有个直观的意思：用这个模型压缩这段文字，平均每个字要花几个比特。这句话要成立，切法必须能还原原文，
# 所以 `bert` 不参加（它丢了空白），而 `[UNK]` 不能白占便宜：把生字都叫 `[UNK]`，预测它很容易，可是文字已经丢了。
# 要还原它，就得把丢掉的字一个个**拼出来**：在全部 1,114,112 个码点里均匀地猜，每个字付 $\log_2 1{,}114{,}112 \approx 20$ 比特。
# WordPiece 的一个 `[UNK]` 不知道有几个字，还要再付一个「拼完了」的记号。

# %%
def spelling_nats(name, tokenizer, texts):
    """把 [UNK] 丢掉的字补交上，返回奈特数。"""
    encoded = tokenizer(texts, return_offsets_mapping=True, **plain)
    lost = [stop - begin for ids, spans in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            for i, (begin, stop) in zip(ids, spans, strict=True) if i == tokenizer.unk_token_id]
    stop_marks = len(lost) if name == "wordpiece" else 0
    return (sum(lost) + stop_marks) * np.log(0x110000 + (name == "wordpiece"))

contenders = [name for name in GRANULARITIES if name != "bert"]
for name in ("char", "wordpiece", "bpe"):
    bits = spelling_nats(name, tokenizers[name], held) / np.log(2) / sum(map(len, held))
    print(f"{GRANULARITY_NAMES[name]}：留出文字上，拼生字平均每个字符要补交 {bits:.4f} 比特")

# %% [markdown]
# 用最简单的模型试试：**一元模型（unigram）**，只数每个词元有多常见，不看上文。

# %%
from utils.tokenization import bits_per_char, count_targets, unigram_nats

unigram = {}
for name in contenders:
    ids, targets = encode_texts(tokenizers[name], train), encode_texts(tokenizers[name], held)
    nats = unigram_nats(ids, targets, len(tokenizers[name]))      # 奈特/词元
    total = nats * count_targets(targets) + spelling_nats(name, tokenizers[name], held)
    unigram[name] = nats, bits_per_char(total, sum(map(len, held)))
show_table(["一元模型", "每词元损失（奈特）", "每词元困惑度", "BPC（比特/字符）"],
           [[GRANULARITY_NAMES[n], f"{nats:.2f}", f"{np.exp(nats):,.0f}", f"{bpc:.2f}"] for n, (nats, bpc) in unigram.items()])

# %% [markdown]
# 字节、字、词三者的顺序正好**相反**：按每词元损失，字节最「好」、词最「差」；按每字比特数，字节最差、
# 词最好。对全部七种粒度，可以算两种排名的秩相关系数（Spearman）：1 是完全一致，−1 是完全相反。

# %%
assert unigram["byte"][0] < unigram["char"][0] < unigram["word"][0]
assert unigram["byte"][1] > unigram["char"][1] > unigram["word"][1]
ranks = np.array(list(unigram.values())).argsort(axis=0).argsort(axis=0)      # (7, 2)
print(f"两种排名的秩相关系数：{np.corrcoef(ranks.T)[0, 1]:.2f}")
lesson.record("一元模型 BPC char", unigram["char"][1], "比特/字符")
lesson.record("一元模型 BPC word", unigram["word"][1], "比特/字符")

# %% [markdown]
# 所以看到两篇文章比较困惑度（perplexity），先问：词表一样吗？不一样，数字就没法直接比。（严格地说，
# 一段文字可以有多种切法，我们只算了分词器选中的那一种，所以得到的 BPC 是真值的上界；
# 对这里的比较没有妨碍。）
#
# 但别急着说「词最好」。一元模型不看上文，单位越大，它一次就「看」得越多，当然占便宜。
# 会看上文的模型还需要大单位吗？要训练了才知道。
#
# ## 12 实验：同样的模型，同样多的计算
#
# 让七个同样的小 Transformer 分别读七种粒度，预测下一个词元。什么叫「同样多的计算」？有三种定法，各有道理：
#
# | 定法 | 好处 | 坏处 |
# |---|---|---|
# | 同样多的文字 | 最省心 | 字节每个字要算三步，多花的计算没有算进去 |
# | 同样多的秒数 | 真正的花费，什么都算在内 | 随机器、随忙闲而变，换一台机器名次就可能变，重跑对不上 |
# | 同样多的浮点运算（FLOPs） | 与机器无关，重跑走的步数一模一样 | 只数矩阵乘法：不算更新大词表的访存，也不算机器做小矩阵的低效 |
#
# 这里选**浮点运算**，因为要的是别人也能重现的结论；同时把秒数记下来，让你看到它漏掉了什么。一步训练里，反向约是前向的
# 两倍，所以是第 9 节那个公式的 3 倍，词表头 $HV$ 那一项也在里面：字节的序列长，词的词表大，各有各的开销，都从同一笔预算里扣。
#
# 文字用体育类的导语：短，同类，几秒钟就学得到东西。七种分词器在**这批导语**上重新训练，子词与词同样大。

# %%
def sports(part, column):
    return [value for value, category in zip(corpus[part][column], corpus[part]["category"], strict=True) if category == "体育"]

intros = {part: sports(part, "intro") for part in ("train", "validation")}
intros["手写"] = [row["intro"] for part in load_corpus("articles").values() for row in part if len(row["intro"].encode()) < 480]
n_types = len(set("".join(intros["train"])))
lm_tokenizers = {name: build_tokenizer(name, intros["train"], None if name in ("byte", "char") else 2 * n_types + 600,
                                       model_max_length=512) for name in contenders}
print({part: (len(texts), sum(map(len, texts))) for part, texts in intros.items()}, "（篇，字符）")

# %% [markdown]
# 每条导语编成 `[CLS] … [SEP]`，第一个位置没有标签，`[SEP]`（「到此为止」）要预测，七种粒度一视同仁。

# %%
from datasets import Dataset

def to_rows(name, texts):
    return Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100, *ids[1:]], "length": len(ids)}
                              for ids in encode_texts(lm_tokenizers[name], texts)])

coded = {(name, part): to_rows(name, texts) for name in contenders for part, texts in intros.items()}
assert max(max(rows["length"]) for rows in coded.values()) <= 512

# %% [markdown]
# 模型是两层的 `BertLMHeadModel`，`is_decoder=True` 让每个位置只能看见左边（[[self_attention]] 会讲为什么）。每批 4 条，学习率、
# 初值的标准差，七种粒度全都一样。

# %%
from dataclasses import replace
from utils.training import bert_config, clm_collator, evaluate, fixed_batches, training_arguments

shape = replace(lesson.preset, layers=2, hidden=64, heads=4, max_len=512, batch_size=4, lr=6e-3, init_std=0.04)
BUDGET = {"smoke": 4e9, "cpu": 6e10}.get(lesson.preset.name, 2e12)         # 一次训练的浮点运算数
seeds = (0, 1, 2)

def fresh_model(name, seed):
    torch.manual_seed(seed)
    config = bert_config(shape, lm_tokenizers[name], is_decoder=True, attn_implementation="eager")
    model = BertLMHeadModel(config).to(lesson.device)
    model.loss_type = "ForCausalLM"                      # 库认不出这个类用哪种损失；写明它，就不会有警告
    return model

# %% [markdown]
# BPC 的算法：总损失（奈特）加上拼生字的补交，除以字符数和 $\ln 2$。分母是字符数，对谁都一样。

# %%
def measured_bpc(name, model, part):
    loss, _ = evaluate(model, fixed_batches(coded[name, part], clm_collator(lm_tokenizers[name]), 10**6), shift=True)
    total = loss * count_targets(coded[name, part]["input_ids"])
    total += spelling_nats(name, lm_tokenizers[name], intros[part])
    return float(bits_per_char(total, sum(map(len, intros[part]))))

# %% [markdown]
# 训练用 Hugging Face 的 Trainer，由一只「电表」喊停：`FlopsMeter` 套在整理函数（collator）外面，每来一批就按第 9 节的公式（乘 3）
# 加上它的浮点运算数；`train_for` 拿电表当时钟，学习率也随电表走，预算用完时正好降到 0。`lean=False` 是说词表头在每个位置都算。
# 先确认电表、手写的公式、torch 自己数的，三者一样：

# %%
from utils.training import FlopsMeter, train_for

model = fresh_model("char", 0)
meter = FlopsMeter(clm_collator(lm_tokenizers["char"]), model.config, lean=False)
batch = {k: v.to(lesson.device) for k, v in meter(list(coded["char", "train"].select(range(4)))).items()}
with FlopCounterMode(display=False) as counter:
    model(**batch).loss.backward()
B, T = batch["input_ids"].shape
by_hand = 3 * sum(forward_flops(2, 64, len(lm_tokenizers["char"]), B, T, B * T))
print(f"电表 {meter.used:,.0f}，手算 {by_hand:,.0f}，torch 数到 {counter.get_total_flops():,}")
assert meter.used == by_hand and abs(by_hand / counter.get_total_flops() - 1) < 1e-3

# %% [markdown]
# 开跑：整笔预算三粒种子，另用四分之一的预算各练一次，看名次会不会随计算变。种子在最外层，机器忽快忽慢时，各种粒度摊到的一样多。

# %%
def train_at(name, budget, seed):
    model = fresh_model(name, seed)
    meter = FlopsMeter(clm_collator(lm_tokenizers[name]), model.config, lean=False)
    args = training_arguments(lesson.outputs / "granularity", 1, shape, lesson.device, seed)
    begin = time.perf_counter()
    steps = train_for(budget, model, coded[name, "train"], meter, args, lean=False, clock=meter.read)
    return {"步数": steps, "秒": time.perf_counter() - begin, "参数": sum(p.numel() for p in model.parameters()),
            "BPC": measured_bpc(name, model, "validation"), "手写": measured_bpc(name, model, "手写")}

results = {(name, seed): train_at(name, BUDGET, seed) for seed in seeds for name in contenders}
quarter = {name: train_at(name, BUDGET / 4, 0)["BPC"] for name in contenders}
print(len(results) + len(quarter), "次训练，整笔预算的共", round(sum(r["秒"] for r in results.values())), "秒")

# %% [markdown]
# 下限从哪里来？语料是按已知概率生成的，每条导语的 $-\ln p$ 就记在 `nats_intro` 里；我们只取了体育类，
# 所以再减去抽到体育类的那份信息 $-\ln P(\text{体育})$。平均起来，没有模型能比它更低。
# 再算各粒度的一元、二元模型作为基线。

# %%
from utils.tokenization import bigram_nats
from utils.corpus import news_grammar

p_sports = sum(np.exp(schema.log_p) for schema in news_grammar().schemas if schema.category == "体育")
chars = sum(map(len, intros["validation"]))
floor = bits_per_char(sum(sports("validation", "nats_intro")) + len(intros["validation"]) * np.log(p_sports), chars)
baseline = {}
for name in contenders:
    rows, test = coded[name, "train"]["input_ids"][:], coded[name, "validation"]["input_ids"][:]
    extra = spelling_nats(name, lm_tokenizers[name], intros["validation"])
    for label, model_nats in (("一元", unigram_nats), ("二元", bigram_nats)):
        total = model_nats(rows, test, len(lm_tokenizers[name])) * count_targets(test) + extra
        baseline[name, label] = bits_per_char(total, chars)
print(f"语料的下限 {floor:.3f} 比特/字符")
assert all(r["BPC"] > floor for r in results.values())           # 没有一个「好得不可能」：低于下限就是算错了，或者偷看了答案

# %% [markdown]
# 结果。「读了几遍」是训练时读过的文字相当于训练集的几倍；起伏是三粒种子里最大与最小之差。

# %%
def runs_of(name, key):
    return [results[name, seed][key] for seed in seeds]

bpc = {name: float(np.mean(runs_of(name, "BPC"))) for name in contenders}
ranking = sorted(contenders, key=bpc.get)
rows = []
for name in ranking:
    steps, seconds, wild = (np.mean(runs_of(name, key)) for key in ("步数", "秒", "手写"))
    rows.append([GRANULARITY_NAMES[name], len(lm_tokenizers[name]), f"{results[name, 0]['参数'] / 1e6:.2f}", f"{steps:.0f}",
                 f"{steps * shape.batch_size / len(intros['train']):.1f}", f"{seconds:.1f}", f"{quarter[name]:.3f}", f"{bpc[name]:.3f}",
                 f"{np.ptp(runs_of(name, 'BPC')):.3f}", f"{bpc[name] / floor:.2f}", f"{wild:.1f}"])
show_table(["粒度", "词表", "参数（百万）", "步数", "读了几遍", "秒", "BPC（¼ 预算）", "BPC", "起伏", "÷ 下限", "手写的 BPC"], rows,
           f"每次训练 {BUDGET / 1e12:.3g} 万亿次浮点运算，语料的下限 {floor:.3f}")

# %% [markdown]
# 画出来：圆点是单次训练，短横是三次的平均，三角是四分之一的预算，虚线是语料的下限。右图与不用神经网络的基线比。

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6))
x = np.arange(len(ranking))
left.scatter(np.repeat(x, len(seeds)), [value for name in ranking for value in runs_of(name, "BPC")], s=16, color="#0072B2",
             label=f"{BUDGET / 1e12:.2g} 万亿次运算")
left.hlines([bpc[name] for name in ranking], x - 0.2, x + 0.2, color="#0072B2")
left.scatter(x, [quarter[name] for name in ranking], s=20, marker="^", color="#56B4E9", label="四分之一的运算")
for k, label in enumerate(("一元", "二元")):
    right.bar(x + (k - 1) * 0.27, [baseline[name, label] for name in ranking], 0.26, label=label, color=("#BBBBBB", "#777777")[k])
right.bar_label(right.bar(x + 0.27, [bpc[name] for name in ranking], 0.26, label="小 Transformer", color="#0072B2"),
                fmt="%.2f", fontsize=7)
left.set(title="同样多的计算，各到哪里", ylabel="留出 BPC（比特/字符）", yscale="log")
right.set(title="与不用神经网络的基线相比", ylabel="留出 BPC（比特/字符）", yscale="log")
for ax in (left, right):
    ax.set_xticks(x, [GRANULARITY_NAMES[n].replace(" ", "\n").replace("（", "\n（") for n in ranking], fontsize=6.5)
    ax.set_yticks([1, 2, 5, 10], [1, 2, 5, 10])
    ax.minorticks_off()
    ax.axhline(floor, color="#D55E00", linestyle="--", label=f"语料下限 {floor:.2f}")
    ax.legend(frameon=False, fontsize=8)

# %% [markdown]
# 谁领先，领先得可不可靠？由代码来说：相邻两名，前一名最差的一次仍好过后一名最好的一次，才算分得开。
# （这也不是铁证：两家若其实一样好，各跑三次恰好完全分开的机会还有 $2 / \binom{6}{3} = 1/10$。）

# %%
for better, worse in pairwise(ranking):
    apart = max(runs_of(better, "BPC")) < min(runs_of(worse, "BPC"))
    verdict = "超出了种子的起伏" if apart else "没有超出种子的起伏，不能说谁更好"
    print(f"{GRANULARITY_NAMES[better]} 比 {GRANULARITY_NAMES[worse]} 低 {bpc[worse] - bpc[better]:.3f}：{verdict}")
before = sorted(contenders, key=quarter.get)
agree = np.corrcoef([ranking.index(name) for name in before], range(len(before)))[0, 1]
moved = [GRANULARITY_NAMES[name] for i, name in enumerate(before) if ranking[i] != name]
print(f"计算加到四倍，名次的秩相关系数 {agree:.2f}；变了名次的：{'、'.join(moved) or '没有'}")

# %% [markdown]
# 名次若随计算变，就说明「哪种粒度好」与你付得起多少计算有关。再看谁从加倍的计算里得益最多，以及同样的运算各花多少秒：

# %%
for name in ranking:
    drop = 1 - (bpc[name] - floor) / (quarter[name] - floor)
    speed = BUDGET / np.mean(runs_of(name, "秒")) / 1e9
    print(f"{GRANULARITY_NAMES[name]}：计算加到四倍，离下限的差距少了 {drop:.0%}；每秒做 {speed:.0f} 个十亿次运算")
    lesson.record(f"等计算量 BPC {name}", bpc[name], "比特/字符")
    lesson.record(f"三粒种子的起伏 {name}", float(np.ptp(runs_of(name, "BPC"))), "比特/字符")
lesson.record("语料下限 BPC（体育类导语）", floor, "比特/字符")
ratio = [baseline["char", "一元"] / baseline["word", "一元"], bpc["char"] / bpc["word"]]
print(f"字的 BPC 是词的几倍：一元模型 {ratio[0]:.2f}，小 Transformer {ratio[1]:.2f}，差距{'缩小了' if ratio[1] < ratio[0] else '没有缩小'}")

# %% [markdown]
# **能得出什么。**
#
# - 在这批文字、这个大小的模型、这点计算下，名次如上表；哪些名次分得开，上面已经逐对说了。
# - 字节吃亏在哪里，表里看得见：同样的预算，它走的步数最少，读过的文字也最少，还要先学会哪三个字节拼成一个字。
#   它缺的是计算，还是能力？看「计算加到四倍」那几行里它得益多少。
# - 看最后一行：换成会看上文的模型，字与词的差距变了多少。模型自己会把小单位拼成大单位，单位的大小没有变出新的信息，
#   只决定了这份工作由词表来做，还是由模型来做。
# - 换成手写的文字（最后一列），每一家都差得远：这些模型只读过体育导语，那里有许多它们没见过的字和词，生字怎样付账就要紧了。
#
# **不能得出什么。**
#
# - 不能说「某粒度永远最好」。语料是语法生成的，长片段反复出现，偏袒子词和词；模型只有两层；只有三粒种子，
#   只看得出大的差别。
# - 学习率、每批几条没有替每种粒度单独去调，只用了同一套；好好调过，接近的名次可能互换。
# - 「同样多的浮点运算」不等于「同样多的秒数」：看「秒」那一列，同样的运算，不同粒度花的时间并不相同
#   （注意力和大词表的矩阵，机器算起来快慢不一）。想按秒数比，把 `clock=meter.read` 去掉，预算改成秒就行。
# - BPC 衡量的是会不会预测文字，不是会不会做任务：分类、问答上的名次可以不同。
#
# **公开的研究怎么说。** 它们的文字、模型、任务都比这里大得多，数字不能与上表直接相比，方向可以对照：
#
# - Li 等（2019）在语言建模、翻译、句子匹配、文本分类四类中文任务上比较，字模型一致胜过词模型，原因是词的数据稀疏与生词：用 jieba 切 CTB，
#   615,194 个词里有 50,266 种，其中 24,458 种（48.7%）只出现一次，合起来只占全文的 4.0%。
# - Cui 等（2021）的词表仍是字，只在训练时把一个词的字一起遮住（整词掩码，whole word masking）：CMRC 2018 测试集的精确匹配从 70.0 到 70.5
#   （多次运行的平均从 68.7 到 69.1），再加数据到 71.4（70.0）。词的信息有用，但不必写进词表；数据的作用更大。
# - Si 等（2023）把汉字转写成五笔、拼音等再做子词，词表 22,675 项，在约 2.2 GB 的百科上预训练：序列短得多，
#   下游任务不相上下，按读音转写的那种对同音错字更稳健。
# - Xue 等（2022）的 ByT5 直接读字节，与子词的 mT5 相当，更抗噪声；代价在长文：XNLI 上每秒推理的条数，Large 一档
#   mT5 是 1,598，ByT5 是 168，慢 9.5 倍；在只有一个词的注音任务上，387 对 478，字节反而快。
# - Petrov 等（2023）测得，同样的内容换一种语言，词元数最多可差到 15 倍：词表替谁省，取决于它拿谁的文字训练。
#
# 本课程接下来用**字**：词表小、没有切分歧义、一个位置就是一个字，看注意力时最清楚。这是为了教学方便的选择，
# 不是定论。
#
# ## 小结
#
# - 一个汉字是一个码点、（通常）三个 UTF-8 字节；字节从不丢失信息，但序列长三倍。
# - BPE 反复合并最常见的相邻对；WordPiece 的训练（在 `tokenizers` 里）也是这样，编码却取最长匹配；Unigram 取概率最大的切法。
#   三者手写都不到二十行，结果与库一致。
# - bert-base-chinese 名为 WordPiece，实为字模型。
# - 词元一旦盖住词界，那种读法就再也读不出来了；字与字节不做这个决定。
# - 单位越大，序列越短，词表越大，生词越多；换一个领域，量身定做的词表就不那么省了。
# - 每词元损失随粒度变，跨粒度比较要用每字比特数，并且 `[UNK]` 要补交。
# - 粒度之争要在同样的计算量下、用同样的单位量，看领先是否超出种子的起伏，还要记得下限在哪里。
#
# **下一本**：[[self_attention]]。字切好了，模型怎样让一个字去看别的字？
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import tokenization as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 把字节读回码点**（★★，10 分钟）第 2 节由码点算字节，现在反过来：`data` 是一段合法的 UTF-8，
# 返回码点的列表。不许用 `decode`。例如 `b"\xe4\xbb\x8a"`（今）应当得到 `[0x4ECA]`。

# %% tags=["stub"]
def utf8_decode(data):                                                    # bytes → [码点，码点，…]
    ...                                                                   # ← 换成你的代码

# %% tags=["check"]
check.utf8_decode(utf8_decode)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def utf8_decode(data):
#     codes = []
#     for byte in data:
#         if byte >> 6 == 0b10:                                           # 续字节：前面的左移 6 位，接上低 6 位
#             codes[-1] = codes[-1] << 6 | byte & 0b111111
#         else:                                                           # 首字节：有几个 1 打头，就去掉那几个 1
#             length = 8 - (byte ^ 0xFF).bit_length()
#             codes.append(byte & (0x7F >> length))
#     return codes
# ```
#
# 续字节一看就认得出来，所以不必先算长度。严格的解码器还要拒绝「过长编码」（例如用两个字节写 ASCII）和
# U+D800 到 U+DFFF。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · BPE 的一步**（★，5 分钟）`words` 与第 3 节的一样：键是一串单位（元组），值是它出现的次数。
# 返回次数最多的那一对；次数相同时，取 Python 里比较起来最小的一对。

# %% tags=["stub"]
def best_pair(words):                                                     # {（单位，单位，…）：次数} → （左，右）
    ...                                                                   # ← 换成你的代码

# %% tags=["check"]
check.best_pair(best_pair)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def best_pair(words):
#     pairs = {}
#     for units, times in words.items():
#         for pair in zip(units, units[1:]):
#             pairs[pair] = pairs.get(pair, 0) + times
#     return min(pairs, key=lambda pair: (-pairs[pair], pair))
# ```
#
# 「次数要大、先后要小」方向相反，所以给次数加个负号，再一起取最小。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 最长匹配**（★★，8 分钟）没有 `##` 的最长匹配：从左边开始，每次取词表里最长的一段；一段也对不上时，
# 那个字自己成一段。`vocab` 是字符串的集合。各段连起来必须等于原文。

# %% tags=["stub"]
def longest_match(text, vocab):                                           # → [段，段，…]
    ...                                                                   # ← 换成你的代码

# %% tags=["check"]
check.longest_match(longest_match)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def longest_match(text, vocab):
#     pieces, start = [], 0
#     while start < len(text):
#         ends = [end for end in range(len(text), start, -1) if text[start:end] in vocab]
#         end = ends[0] if ends else start + 1
#         pieces.append(text[start:end])
#         start = end
#     return pieces
# ```
#
# 它是贪心（greedy）的：不管后面会不会因此切坏。「研究生命的起源」会先取走「研究生」，Unigram 的最优切分就是为了避免这种短视。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · 每字比特数**（★★，8 分钟）`nats` 是各个词元的损失（奈特），`text` 是原文，`unknown` 是被 `[UNK]` 吞掉的字符数，
# 每个要再付 $\log_2 1{,}114{,}112$ 比特。返回 BPC。

# %% tags=["stub"]
def bits_per_character(nats, text, unknown):                              # [奈特，…]，文字，个数 → 比特/字符
    ...                                                                   # ← 换成你的代码

# %% tags=["check"]
check.bits_per_character(bits_per_character)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# import math
#
# def bits_per_character(nats, text, unknown):
#     bits = sum(nats) / math.log(2) + unknown * math.log2(1114112)
#     return bits / len(text)
# ```
#
# 先各自换成比特，再相加，再除以字符数。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 两个困惑度**（★★，5 分钟）同一批留出文字上，模型甲按字切，每字的困惑度是 20；模型乙按词切，每词的困惑度是 150，
# 一个词平均 1.8 个字。两边都没有生字。哪个模型预测得更好？
#
# - A：甲，它的困惑度低得多
# - B：乙
# - C：比不了，词表不同
# - D：一样好

# %% tags=["stub"]
better_model = ...                                                        # ← 换成 "A"、"B"、"C" 或 "D"

# %% tags=["check"]
check.perplexity(better_model)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# better_model = "B"
# ```
#
# 甲：$\log_2 20 \approx 4.32$ 比特/字。乙：$\log_2 150 / 1.8 \approx 7.23 / 1.8 \approx 4.02$ 比特/字。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 先猜再数**（★，3 分钟）「汉字AI😀」是 5 个字符。写成 UTF-8 一共几个字节？
# 先猜一个数填上，再用 `len("汉字AI😀".encode())` 数一数。

# %% tags=["stub"]
my_bytes = ...                                                            # ← 换成一个整数

# %% tags=["check"]
check.count_bytes(my_bytes)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_bytes = 3 + 3 + 1 + 1 + 4
# ```
#
# 常用汉字三个字节，ASCII 一个字节，码点超过 U+FFFF 的（表情、生僻字）四个字节。
#
# </details>

# %% [markdown]
# **想一想**
#
# - 第 12 节按浮点运算比。把 `train_for` 的 `clock=meter.read` 去掉，预算改成 8 秒，再跑一遍：名次变了吗？哪几家得了便宜？
# - 换三种学习率（减半、不变、加倍）给领先的两家重跑，差距还在吗？
# - 拿 `encode_texts` 编你自己的一个文本文件，八种粒度各要多少词元？最省的那种，换一个领域还最省吗？

# %% [markdown]
# ## 延伸阅读
#
# - Sennrich, Haddow, Birch（2016），*Neural Machine Translation of Rare Words with Subword Units*：
#   把 BPE 带进自然语言处理。
# - Kudo（2018），*Subword Regularization*：Unigram 子词；Kudo, Richardson（2018），*SentencePiece*。
# - Devlin, Chang, Lee, Toutanova（2019），*BERT*：中文模型的切法见其附带的代码。
# - Cui, Che, Liu, Qin, Yang（2021），*Pre-Training with Whole Word Masking for Chinese BERT*。
# - Radford 等（2019），*Language Models are Unsupervised Multitask Learners*：字节级 BPE。
# - Li, Meng, Sun, Han, Yuan, Li（2019），*Is Word Segmentation Necessary for Deep Learning of Chinese
#   Representations?*
# - Xue 等（2022），*ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models*。
# - Si 等（2023），*Sub-Character Tokenization for Chinese Pretrained Language Models*。
# - Petrov, La Malfa, Torr, Bibi（2023），*Language Model Tokenizers Introduce Unfairness Between
#   Languages*。
