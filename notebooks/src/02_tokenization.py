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
# # 02 一个汉字该切成什么？
#
# 模型只认得编号。把文字变成编号的第一步，是把它切成一个个**词元（token）**。英文有空格，
# 切起来有个现成的起点；中文没有空格，于是一开始就要做选择：切成字节、切成字、切成子词，还是切成词？
#
# 很多教程直接告诉你「汉字切得太粗」或者「中文要用词」。这本 notebook 不下这样的断言，而是**量**：
# 同一批文字、同一把尺子、同样多的计算，每一种切法各得多少分。
#
# **学习目标**
#
# 1. 说清字符、码点（code point）、UTF-8 字节三者的关系，并能手算一个汉字的 UTF-8 编码。
# 2. 手写 BPE 的训练与编码、WordPiece 的最长匹配、Unigram 的最优切分，结果与 `tokenizers` 库一致。
# 3. 用词元产出率、长度、未知率、嵌入参数四个量比较七种粒度。
# 4. 说清为什么「每词元损失」不能跨粒度比较，并会算每字比特数（bits per character，BPC）。
#
# **先修** 00_start；会用 Python 的列表、字典和循环。知道「概率取对数」即可，训练部分不要求懂 Transformer。
#
# **时间** 阅读约 60 分钟；全部运行，两核 CPU 约 1.5 分钟，GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("02_tokenization")                     # 换预设：start("02_tokenization", preset="smoke")

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

corpus = load_corpus("bundled", n_docs=min(lesson.preset.n_docs, 8000), seed=2026)
train = [row["intro"] + row["body"] for row in corpus["train"].select(range(min(3000, len(corpus["train"]))))]
held = [row["intro"] + row["body"] for row in corpus["validation"].select(range(100))]
print(len(train), "篇训练，", len(held), "篇留出。一篇的开头：", train[0][:50], "…")

# %% [markdown]
# 只在自己的语料上量是不够的：生成的新闻用字少、句式整齐。下面是为这门课手写的几句自然语言，题材、语气、
# 用字都不同。它们从不参与训练，专门用来看**领域迁移（domain shift）**：换一种文字，各种切法还灵不灵。

# %%
natural = [
    "外婆把晒干的陈皮收进瓦罐，说等我冬天咳嗽的时候再打开。",
    "凌晨三点的便利店里，只有冰柜嗡嗡作响，店员趴在收银台上打盹。",
    "量子纠缠并不能用来传递信息，这一点常常被科普文章弄混。",
    "他一边剥毛豆一边嘟囔：这雨下了四天，麦子怕是要发芽了。",
    "iPhone 16 的 NPU 跑这个 7B 模型，每秒大概能出 12.5 个 token。",
    "鳜鱼、鲥鱼、鲈鱼摆了一案板，鱼贩子抡起刀背，噼里啪啦敲晕一条。",
    "老师傅眯着眼看了看刃口，说：「再磨两下，差不多就行。」",
    "這封信是用繁體字寫的，落款日期卻是去年。",
    "笑死，这波操作属实把我整不会了😂",
    "根据第四十二条第二款，承租人逾期支付租金的，应当承担违约责任。",
]
print(len(natural), "句，", sum(map(len, natural)), "个字符")

# %% [markdown]
# 还有一份更长的自然文章：课程附带的 160 篇手写报道，也从不参与训练。把三样东西画出来：哪些字常用（字频随名次怎样下降），
# 文章多长，各类别有多少篇。

# %%
from utils.corpus_figures import corpus_figure, rank_frequency

articles = [row["intro"] + row["body"] for part in load_corpus("articles").values() for row in part]
_ = corpus_figure(corpus["train"], {"手写文章": articles})

# %% [markdown]
# 左图的虚线是**齐普夫定律（Zipf's law）**：第 r 名的词，次数与 1/r 成正比。词大致服从它，单字却不：前几百名降得慢，
# 后面陡然下坠，因为常用的字要参加许多词。在双对数图上拟合第 10 到 300 名的斜率，看看与 −1 差多少：

# %%
import numpy as np

for name, texts in {"自带语料": train, "手写文章": articles}.items():
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
# 与 Python 自带的编码比一比。不只比几个例子：留出集和手写句子里的每个字符都要相等。

# %%
chars = sorted(set("".join(held + natural)) | set("Aé今龘𠮷😀"))
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
# 第二步，合并：从左到右扫一遍，遇到这一对就粘起来。

# %%
def merge_pair(units, pair):
    merged = []
    for unit in units:
        if merged and (merged[-1], unit) == pair:
            merged[-1] += unit
        else:
            merged.append(unit)
    return tuple(merged)

print(merge_pair(("今", "天", "是", "今", "天"), ("今", "天")))

# %% [markdown]
# 上面的写法有个隐患：刚粘成的单位如果恰好又等于 `pair[0]`，会接着往右粘，这不是 BPE 的规则。
# 好在两个单位粘起来总比 `pair[0]` 长，不会相等，所以这样写是对的。
#
# 第三步，重复。次数相同时先并谁？任何规则都可以，
# 但要与库相同才能逐条比较：`tokenizers` 先比左边单位的编号，再比右边的；编号是单字按码点排队，
# 新单位接在后面。

# %%
def train_bpe(words, n_merges):
    number = {c: i for i, c in enumerate(sorted({c for units in words for c in units}))}
    merges = []
    for _ in range(n_merges):
        pairs = count_pairs(words)
        best = min(pairs, key=lambda p: (-pairs[p], number[p[0]], number[p[1]]))
        merges.append(best)
        number.setdefault("".join(best), len(number))
        merged = Counter()
        for units, times in words.items():
            merged[merge_pair(units, best)] += times
        words = merged
    return merges

merges = train_bpe(words, 100)
print("前 12 次合并：", " ".join("+".join(pair) for pair in merges[:12]))
print("后 12 次合并：", " ".join("+".join(pair) for pair in merges[-12:]))

# %% [markdown]
# 先并出来的是常见的两字组合，后来两个多字单位又并成更长的短语。注意没有任何人告诉它什么是「词」，只有次数。
#
# 现在让 `tokenizers` 在同一批汉字串上训练，合并的规则必须**逐条相同**：

# %%
import json
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

library = Tokenizer(models.BPE())
library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
alphabet = {char for run in runs for char in run}
trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + len(merges), show_progress=False)
library.train_from_iterator(runs, trainer)
library_merges = [tuple(pair) for pair in json.loads(library.to_str())["model"]["merges"]]
assert merges[: len(library_merges)] == library_merges and len(library_merges) >= 90
print(len(library_merges), "条合并规则，与手写的逐条相同")

# %% [markdown]
# （库的规则可能比 100 条略少：两条不同的合并规则有时拼出同一个单位，它按词表大小停，我们按合并次数停。）
#
# 编码一段新文字时，规则按**学到的先后**使用：在相邻的对里找排名最靠前的那一条，合并，再找，
# 直到没有规则可用。

# %%
rank = {pair: i for i, pair in enumerate(library_merges)}

def encode_bpe(text):
    units = tuple(text)
    while True:
        usable = [pair for pair in pairwise(units) if pair in rank]
        if not usable:
            return list(units)
        units = merge_pair(units, min(usable, key=rank.get))

# %% [markdown]
# 在留出的文字上与库比较。只比单字都在词表里的串，因为这个小 BPE 还没有处理生字的办法。

# %%
held_runs = [run for text in held for run in re.findall("[一-龥]+", text) if set(run) <= alphabet]
for run in held_runs:
    assert encode_bpe(run) == library.encode(run).tokens
print(len(held_runs), "串留出文字，编码与库相同。例如：", " / ".join(encode_bpe(max(held_runs, key=len))))

# %% [markdown]
# **生字怎么办？** 有两条路。一条是 GPT-2 的**字节级 BPE（byte-level BPE）**：起点不是字而是 256 个字节，
# 什么文字都能拼出来。另一条是**字节回退（byte fallback）**：平时用字，遇到词表外的字才拆成 UTF-8 字节。
# 本课程的 `bpe`、`unigram`、`word` 用的是后者。
#
# ## 4 WordPiece：最长匹配
#
# BERT 用的 **WordPiece** 编码时不看合并的先后，只看词表：从左边开始，取词表里**最长**的一段，再从断点继续。
# 不在词首的片段前面加 `##`。只要有一处匹配不上，整段变成 `[UNK]`。

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
# 现在训练全部七种分词器。`build_tokenizer` 返回的是真正的 Hugging Face 分词器，可以保存、加载、
# 交给 Trainer。四种子词和词用**同样大的词表**，比较才公平：词收下最常见的那些，放不下的拆成字。
# 字节与字的词表则由它们自己决定。

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
# 用手写的最长匹配对照库的 WordPiece，留出的文字和手写的句子都比，包括切不动、变成 `[UNK]` 的那些：

# %%
wordpiece = tokenizers["wordpiece"]
vocab = wordpiece.get_vocab()
tests = [run for text in held + natural for run in re.findall("[一-龥]+", text)]
for run in tests:
    assert encode_wordpiece(run, vocab) == wordpiece.tokenize(run)
unknown = [run for run in tests if "[UNK]" in wordpiece.tokenize(run)]
print(len(tests), "串，全部相同；其中变成 [UNK] 的：", unknown[:4])

# %% [markdown]
# 看最后的输出：整个小句只因为一两个生字就全部丢失。所以 WordPiece 用在中文上时，通常先把每个汉字隔开，
# 这正是下一节要说的。
#
# 一个少有人提的细节：`tokenizers` 的 WordPiece **训练器**内部就是 BPE（按次数合并），
# 并不是论文里按似然增益合并的那个版本；它与 BPE 的差别只在 `##` 和编码方式。
#
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

normalizer, splitter = BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
for text in ("中文BERT在2018年发布。", "𠮷野家", "\U0002CEB1字", "ＡＢＣ１２３"):
    print(repr(text), "→", [piece for piece, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))])

# %% [markdown]
# 汉字个个分开，拉丁字母和数字各自成串。第三行是扩展 F 区的字（U+2CEB1）：这套规则写得早，只认到扩展 E 区，
# 更晚收入 Unicode 的字不会被隔开。
#
# 由 bert-base-chinese 公开的 `vocab.txt` 还可以查到几件事：词表 21,128 项，其中单个汉字 7,322 个，
# 带 `##` 的汉字又是一份。既然每个汉字都被隔开，那一份 `##` 汉字永远用不上，占了词表的约三分之一。
# 词表里没有多字的词，没有大写字母，也没有中文的弯引号 “ ” 和省略号 …，这些会变成 `[UNK]`。
# 此外 `decode` 会在字与字之间加空格。
#
# 本课程的 `char` 分词器不做任何规范化：大小写、全角半角、空格都原样保留，解码一字不差。
#
# ## 7 词：有时连人也要想一想
#
# 中文的词没有明写的边界，同一串字可以有几种切法，要靠上下文甚至常识才能定。下面是一些常被拿来讨论的例子，
# 先自己切一切，再看 jieba 怎么切。

# %%
ambiguous = ["乒乓球拍卖完了", "研究生命的起源", "南京市长江大桥", "结婚的和尚未结婚的", "他说的确实在理",
             "下雨天留客天留我不留", "这个门把手坏了", "请把手拿开", "武汉市长江大桥", "美国会通过这项法案",
             "学生会主席团开会", "发展中国家的历史"]
for text in ambiguous:
    print(" / ".join(jieba_words(text)))

# %% [markdown]
# 「乒乓球拍/卖完了」还是「乒乓球/拍卖完了」？「美国会/通过」还是「美/国会/通过」？切错一处，
# 后面的模型看到的就是另一句话，而且无法挽回。字和字节没有这个问题：它们不做这个决定，
# 把歧义留给模型用上下文去解。同样几句，看看别的粒度：

# %%
for text in ambiguous[:4]:
    for name in ("char", "bpe", "unigram", "word"):
        print(f"{name:8}", " / ".join(tokenizers[name].tokenize(text)))

# %% [markdown]
# 出现 `<0xE4>` 这样的写法，是训练语料里没有的字退回到了字节；出现 `[UNK]`，是字模型没见过这个字。
# 我们的语料是地方新闻，没有「乒乓」并不奇怪。这正是下一个问题。
#
# ## 8 生词、生僻字、emoji、拉丁字母和数字
#
# 让七种分词器面对十种不那么规矩的文字。表里每格是**词元个数**；后面跟 `✗` 的，表示解码后与原文不同，
# 有信息丢失。

# %%
hard = {"生词": "绝绝子", "生僻字": "饕餮龘靐", "扩展B区": "𠮷𠀀", "emoji": "😂👨‍👩‍👧", "拉丁": "ChatGPT",
        "数字": "3.14159", "混排": "第5G时代A股", "繁体": "憂鬱的臺灣烏龜", "全角": "ＡＢＣ１２３",
        "空白": " a\n\tb "}

def cell(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return f"{len(ids)}{'' if tokenizer.decode(ids) == text else '✗'}"

print("\t".join(["文字", "字符", *GRANULARITIES]))
for label, text in hard.items():
    print("\t".join([label, str(len(text)), *(cell(tokenizers[name], text) for name in GRANULARITIES)]))

# %% [markdown]
# 规律很清楚：有字节垫底的五种（`byte`、`byte_bpe`、`bpe`、`unigram`、`word`）从不丢失信息，
# 代价是生字要花三四个词元；`char` 与 `wordpiece` 遇到没见过的字就丢。把这条规律写成断言：

# %%
safe = ["byte", "byte_bpe", "bpe", "unigram", "word"]
assert all("✗" not in cell(tokenizers[name], text) for name in safe for text in hard.values())
assert any("✗" in cell(tokenizers["char"], text) for text in hard.values())

# %% [markdown]
# ### 游乐场
#
# 换成你自己的句子试试。下面的文本框随输随切；鼠标停在方块上（或者用 Tab 键走到它），
# 会显示编号和它的 UTF-8 字节。方块里的小字是编号。这个框只在运行着的 notebook 里能用，不联网。

# %%
from utils.token_view import draw_tokens, token_playground

text = "乒乓球拍卖完了，饕餮😀 NBA"
token_playground(tokenizers, text)

# %% [markdown]
# 同一内容的静态图，给在网页上读的你（字体里没有的字写成码点）：

# %%
figure = draw_tokens(tokenizers, text)

# %% [markdown]
# ## 9 四把尺子
#
# 现在量。对每种粒度、每批文字，量四个数：
#
# - **词元产出率（fertility）**：平均每个字符要几个词元。越小，序列越短。
# - **长度**：平均每篇文档的词元数。注意力的计算量与长度的平方成正比。
# - **未知率**：落进 `[UNK]` 的字符占多少。用字符数而不是词元数来算，
#   因为 WordPiece 的一个 `[UNK]` 可能吞掉一整句。
# - **嵌入参数**：词表大小 × 隐藏维度。词表越大，模型的第一层（和最后一层）越贵。

# %%
def measure(tokenizer, texts):
    tokens = lost = 0
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens += len(encoded["input_ids"])
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        lost += sum(stop - begin for i, (begin, stop) in spans if i == tokenizer.unk_token_id)
    chars = sum(map(len, texts))
    return tokens / chars, tokens / len(texts), lost / chars

# %% [markdown]
# 三批文字：训练过的、同一来源但没训练过的（留出）、手写的自然句子。

# %%
sources = {"训练": train[:300], "留出": held, "手写": natural}
table = {}
for name in GRANULARITIES:
    table[name] = {label: measure(tokenizers[name], texts) for label, texts in sources.items()}
print("粒度\t\t词表\t产出率 训练/留出/手写\t留出长度\t未知率 留出/手写")
for name, row in table.items():
    fertility = "/".join(f"{row[label][0]:.2f}" for label in sources)
    print(f"{name:10}\t{len(tokenizers[name])}\t{fertility}\t\t{row['留出'][1]:.0f}\t\t"
          f"{row['留出'][2]:.2%}/{row['手写'][2]:.2%}")

# %% [markdown]
# 同一张表画成图。左上越低越省，看三根柱子之间的差距：差距大，说明这种切法是专门为训练语料量身定做的，
# 换个领域就不省了。

# %%
import matplotlib.pyplot as plt
import numpy as np

hidden = 768
labels = [GRANULARITY_NAMES[name].replace(" ", "\n").replace("（", "\n（") for name in GRANULARITIES]
position = np.arange(len(GRANULARITIES))
figure, axes = plt.subplots(2, 2, figsize=(9, 6.4))
for k, label in enumerate(sources):
    x = position + (k - 1) * 0.27
    axes[0, 0].bar(x, [table[n][label][0] for n in GRANULARITIES], 0.26, label=label)
    axes[1, 0].bar(x, [100 * table[n][label][2] for n in GRANULARITIES], 0.26, label=label)
axes[0, 0].set(title="词元产出率", ylabel="词元 / 字符")
axes[1, 0].set(title="未知率", ylabel="落进 [UNK] 的字符（%）")
axes[0, 1].bar(position, [table[n]["留出"][1] for n in GRANULARITIES], color="#555555")
axes[0, 1].set(title="一篇留出文档的长度", ylabel="词元")
axes[1, 1].bar(position, [len(tokenizers[n]) * hidden / 1e6 for n in GRANULARITIES], color="#555555")
axes[1, 1].set(title=f"嵌入参数（隐藏维度 {hidden}）", ylabel="百万个参数")
axes[0, 0].legend(frameon=False)
for ax in axes.flat:
    ax.set_xticks(position, labels, fontsize=7.5)

# %% [markdown]
# WordPiece 在手写句子上「省」是假象：整句变成一个 `[UNK]` 当然短，看左下的未知率就明白了。
#
# 读图时还要记住：这批训练语料是用模板生成的，多字片段反复出现，子词和词在它上面会显得特别省；
# 手写句子那一列才接近它们在真实文字上的表现。
#
# 词级的未知率是 0，因为生词被拆成了字甚至字节。它真正的代价是**生词率**：jieba 切出的多字词，
# 有多少不在词表里？根子在词的分布：大量的词型（type）在训练文本里只出现一次，词表再大也收不全。

# %%
word_vocab = tokenizers["word"].get_vocab()

def unseen_words(texts):
    found = [word for text in texts for word in jieba_words(text) if len(word) > 1]
    return sum(word not in word_vocab for word in found) / len(found)

counts = Counter(word for text in train[:1000] for word in jieba_words(text) if len(word) > 1)
once = sum(n == 1 for n in counts.values())
print(f"训练文本的 {len(counts)} 个多字词型里，只出现一次的占 {once / len(counts):.1%}")
print(f"多字词里的生词：留出 {unseen_words(held):.1%}，手写 {unseen_words(natural):.1%}")
lesson.record("词级生词率（手写句子）", 100 * unseen_words(natural), "%")
for name in ("byte", "char", "bpe", "word"):
    lesson.record(f"词元产出率 {name}（留出）", table[name]["留出"][0], "词元/字符")

# %% [markdown]
# ## 10 公平的单位：每字比特数
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
# 它有个直观的意思：用这个模型压缩这段文字，平均每个字要花几个比特。
# 用最简单的模型试试：**一元模型（unigram）**，只数每个词元有多常见。

# %%
from utils.baselines import bits_per_char, count_targets, unigram_nats

def encode_all(name, texts):
    return tokenizers[name](texts, add_special_tokens=True, split_special_tokens=True)["input_ids"]

unigram = {}
for name in GRANULARITIES:
    ids, targets = encode_all(name, train), encode_all(name, held)
    nats = unigram_nats(ids, targets, len(tokenizers[name]))      # 奈特/词元
    total = nats * count_targets(targets)
    total += table[name]["留出"][2] * sum(map(len, held)) * np.log(0x110000)  # [UNK] 丢掉的字，按均匀分布补交
    unigram[name] = nats, bits_per_char(total, sum(map(len, held)))

# %% [markdown]
# 有一行要解释：`[UNK]` 不能白占便宜。把生字都叫 `[UNK]`，预测它很容易，可是文字已经丢了。要还原它，
# 至少还得说清是哪个字，
# 这里让每个丢掉的字符再付 $\log_2 1{,}114{,}112 \approx 20$ 比特（在所有码点里均匀地猜）。

# %%
print("粒度\t\t每词元损失（奈特）\t每词元困惑度\tBPC（比特/字符）")
for name, (nats, bpc) in unigram.items():
    print(f"{name:10}\t{nats:.2f}\t\t\t{np.exp(nats):.0f}\t\t{bpc:.2f}")
assert unigram["byte"][0] < unigram["char"][0] < unigram["word"][0]
assert unigram["byte"][1] > unigram["char"][1] > unigram["word"][1]

# %% [markdown]
# 字节、字、词三者的顺序正好**相反**：按每词元损失，字节最「好」、词最「差」；按每字比特数，字节最差、
# 词最好。对全部七种粒度，可以算两种排名的秩相关系数（Spearman）：1 是完全一致，−1 是完全相反。

# %%
ranks = np.array(list(unigram.values())).argsort(axis=0).argsort(axis=0)      # (7, 2)
print(f"两种排名的秩相关系数：{np.corrcoef(ranks.T)[0, 1]:.2f}")
lesson.record("一元模型 BPC char", unigram["char"][1], "比特/字符")
lesson.record("一元模型 BPC word", unigram["word"][1], "比特/字符")

# %% [markdown]
# 画出来更明白：如果两种单位一致，这些点应当从左下走到右上，而它们从左上走到右下。

# %%
figure, ax = plt.subplots(figsize=(7.5, 3.8))
for (name, (nats, bpc)), marker in zip(unigram.items(), "osD^vPX", strict=True):
    ax.scatter(nats, bpc, s=60, marker=marker, label=GRANULARITY_NAMES[name])
ax.set(title="同一批留出文字上的一元模型：两种单位，两种排名",
       xlabel="每词元损失（奈特/词元），越左越「好」", ylabel="BPC（比特/字符），越低越好")
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# 所以看到两篇文章比较困惑度（perplexity），先问：词表一样吗？不一样，数字就没法比。（严格地说，
# 一段文字可以有多种切法，我们只算了分词器选中的那一种，所以得到的 BPC 是真值的上界；
# 对这里的比较没有妨碍。）
#
# 但别急着说「词最好」。一元模型不看上文，单位越大，它一次就「看」得越多，当然占便宜。
# 会看上文的模型还需要大单位吗？要训练了才知道。
#
# ## 11 实验：同样的模型，同样多的计算
#
# 让四个一模一样的小 Transformer 分别读字节、字、BPE、词，预测下一个词元。只用导语，短，跑得快。
# 公平的条件有好几种定法，这里选**同样多的浮点运算（FLOPs）**。一次训练用到的运算大约是
#
# $$F \approx 6\,(12 L H^2 + H V)\,N + 12\,L H \sum_{\text{序列}} T^2,$$
#
# 其中 $L$ 是层数，$H$ 隐藏维度，$V$ 词表大小，$N$ 词元总数，$T$ 一条序列的长度。系数 6 是前向 2、反向 4；
# 第一项是各个矩阵和输出层，第二项是注意力。字节的序列长，第二项和 $N$ 都大；词的词表大，$HV$ 大。
# 各有各的开销，预算用完就停。

# %%
import torch
from transformers import BertConfig, BertLMHeadModel

L, H = 2, 64 if lesson.preset.name == "smoke" else 96
BUDGET = {"smoke": 0.1e12, "cpu": 1.0e12, "gpu": 6e12}[lesson.preset.name]     # 每种粒度的 FLOPs
contenders = ("byte", "char", "bpe", "word")

def flops(batch, vocab_size):
    B, T = batch.shape
    return 6 * (12 * L * H**2 + H * vocab_size) * B * T + 12 * L * H * B * T**2

# %% [markdown]
# 数据：每条导语编成 `[CLS] … [SEP]`。一批 16 条，先在每 512 条里按长度排队再分批，少浪费在填充（padding）
# 上；填充的位置不算损失。

# %%
intros = {part: corpus[part]["intro"] for part in ("train", "validation")}
test_intros = list(intros["validation"])[:200]

def make_batches(rows, rng):
    order = rng.permutation(len(rows))
    for pool in np.array_split(order, max(1, len(order) // 512)):
        pool = sorted(pool, key=lambda i: len(rows[i]))
        chunks = [pool[i : i + 16] for i in range(0, len(pool), 16)]
        for k in rng.permutation(len(chunks)):
            part = [torch.tensor(rows[i]) for i in chunks[k]]
            yield torch.nn.utils.rnn.pad_sequence(part, batch_first=True)     # (B, T)

# %% [markdown]
# 模型是两层的 `BertLMHeadModel`，`is_decoder=True` 让每个位置只能看见左边（03 会讲为什么）。
# 损失是位置 $t$ 的输出对词元 $t+1$ 的交叉熵。

# %%
def tiny_model(vocab_size, positions):
    torch.manual_seed(lesson.seed)
    config = BertConfig(vocab_size=vocab_size, hidden_size=H, num_hidden_layers=L, num_attention_heads=4,
                        intermediate_size=4 * H, max_position_embeddings=positions, is_decoder=True,
                        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0)
    return BertLMHeadModel(config).to(lesson.device)

def total_nats(model, batch):
    batch = batch.to(lesson.device)
    logits = model(input_ids=batch, attention_mask=(batch != 0).long()).logits[:, :-1]  # (B, T - 1, V)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(),
                                             ignore_index=0, reduction="sum")

# %% [markdown]
# 留出集的 BPC：总损失除以总字符数。这里的 `[SEP]`（「到此为止」）也算在总损失里，四种粒度一视同仁；
# 生字的补交同上。

# %%
@torch.no_grad()
def held_bpc(model, name, rows):
    model.eval()
    nats = sum(total_nats(model, batch).item() for batch in make_batches(rows, np.random.default_rng(0)))
    nats += sum(row.count(1) for row in rows) * np.log(0x110000)
    return float(bits_per_char(nats, sum(map(len, test_intros))))

# %% [markdown]
# 训练循环：学习率先升后降，进度按**已用的预算**算，而不是按步数，这样便宜的一方就能多走几步。

# %%
def train_at(name):
    rows, test = encode_all(name, list(intros["train"])), encode_all(name, test_intros)
    V = len(tokenizers[name])
    model = tiny_model(V, max(map(len, rows + test)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, fused=lesson.device.type != "mps")
    rng, used, steps, curve, begin = np.random.default_rng(lesson.seed), 0.0, 0, [], time.perf_counter()
    while used < BUDGET:
        for batch in make_batches(rows, rng):
            if used >= BUDGET * (len(curve) + 1) / 6:
                curve.append((used, held_bpc(model, name, test)))
            progress = used / BUDGET
            if progress >= 1:
                break
            model.train()
            optimizer.param_groups[0]["lr"] = 8e-3 * min(progress / 0.1 + 0.02, (1 - progress) / 0.9)
            loss = total_nats(model, batch) / (batch[:, 1:] != 0).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            used, steps = used + flops(batch, V), steps + 1
    seconds = time.perf_counter() - begin
    return {"bpc": held_bpc(model, name, test), "curve": curve, "steps": steps, "seconds": seconds}

# %% [markdown]
# 开跑。四次训练的预算相同，步数和秒数不同（秒数只供参考，它还取决于机器擅长算什么）。

# %%
results = {}
for name in contenders:
    results[name] = train_at(name)
    r = results[name]
    print(f"{GRANULARITY_NAMES[name]}：{r['steps']} 步，{r['seconds']:.0f} 秒，BPC {r['bpc']:.3f}")

# %% [markdown]
# 下限从哪里来？语料是按已知概率生成的，每条导语的 $-\ln p$ 就记在 `nats_intro` 里。
# 它们的和除以 $\ln 2$ 再除以字数，就是这批文字的**精确信息量**：平均起来，没有模型能比它更低。
# 再算上各粒度的一元、二元模型作为基线。

# %%
from utils.baselines import bigram_nats

floor = bits_per_char(sum(corpus["validation"]["nats_intro"][: len(test_intros)]), sum(map(len, test_intros)))
for name in contenders:
    rows, test = encode_all(name, list(intros["train"])), encode_all(name, test_intros)
    V = len(tokenizers[name])
    scale = count_targets(test) / sum(map(len, test_intros)) / np.log(2)      # 奈特/词元 → 比特/字符
    extra = sum(row.count(1) for row in test) * np.log(0x110000) / sum(map(len, test_intros)) / np.log(2)
    results[name]["unigram"] = unigram_nats(rows, test, V) * scale + extra
    results[name]["bigram"] = bigram_nats(rows, test, V) * scale + extra
    assert floor < results[name]["bpc"] < results[name]["unigram"]             # 学到了东西，也没有越过下限

# %% [markdown]
# 最后一行断言同时检查两件事：每个模型都胜过自己的一元基线；没有一个「好得不可能」。低于下限只有一种解释：
# 算错了，或者偷看了答案。

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
for name in contenders:
    x, y = zip(*results[name]["curve"], strict=True)
    left.plot(np.array(x) / 1e12, y, marker="o", markersize=3, label=GRANULARITY_NAMES[name])
left.set(title="同样多的计算，谁学得快", xlabel="训练用掉的计算（万亿次浮点运算）",
         ylabel="留出 BPC（比特/字符）", yscale="log")
x = np.arange(len(contenders))
for k, (key, label) in enumerate([("unigram", "一元"), ("bigram", "二元"), ("bpc", "小 Transformer")]):
    bars = right.bar(x + (k - 1) * 0.27, [results[n][key] for n in contenders], 0.26, label=label,
                     color=["#BBBBBB", "#777777", "#0072B2"][k])
    right.bar_label(bars, fmt="%.2f", fontsize=7)
right.set(title="训练结束时，与基线相比", ylabel="留出 BPC（比特/字符）", yscale="log")
right.set_xticks(x, [GRANULARITY_NAMES[n] for n in contenders])
for ax in (left, right):
    ax.set_yticks([1, 2, 5, 10, 20], [1, 2, 5, 10, 20])
    ax.set_ylim(0.6, 50)
    ax.minorticks_off()
    ax.axhline(floor, color="#D55E00", linestyle="--", label=f"语料下限 {floor:.2f}")
    ax.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)

# %% [markdown]
# 把主要的数字记下来，并按 BPC 排个名：

# %%
for name in sorted(contenders, key=lambda n: results[n]["bpc"]):
    lesson.record(f"等计算量 BPC {name}", results[name]["bpc"], "比特/字符")
lesson.record("语料下限 BPC（导语）", floor, "比特/字符")
ratio = [results["char"][key] / results["word"][key] for key in ("unigram", "bpc")]
print(f"字的 BPC 是词的几倍：一元模型 {ratio[0]:.2f}，小 Transformer {ratio[1]:.2f}")
assert ratio[1] < ratio[0]

# %% [markdown]
# **能得出什么，不能得出什么。**
#
# 能说的：在这批文字、这个大小的模型、这点计算量下，排名如上。看最后一行：换成会看上文的模型，
# 字与词的差距比一元模型小得多，因为它自己会把小单位拼成大单位。单位的大小并没有变出新的信息，
# 只是决定了这份工作由词表来做，还是由模型来做。
#
# 不能说的：「某粒度永远最好」。这里每种粒度只训练了一次，差距小的名次可能换个随机种子就会颠倒；
# 语料是模板生成的，长片段反复出现，偏袒子词和词；计算量很小，每步都贵的一方（看上面的步数）走得最少，
# 也就最吃亏。公开的研究给出的图景是：
#
# - Li 等（2019）在四类中文任务上比较，字模型普遍胜过词模型，主要原因是词的数据稀疏与生词：
#   他们引用的 CTB 语料里，48.7% 的词型只出现一次。
# - Si 等（2023）把汉字转写成笔画或拼音再做子词，序列更短，对同音错字更稳健。
# - Xue 等（2022）的 ByT5 表明，只要舍得计算，字节模型能与子词模型相当，且更抗噪声。
# - Petrov 等（2023）测得，同样的内容换一种语言，词元数最多可差到 15 倍：词表替谁省，
#   取决于它拿谁的文字训练。
#
# 本课程接下来用**字**：词表小、没有切分歧义、一个位置就是一个字，看注意力时最清楚。这是为了教学方便的选择，
# 不是定论。
#
# ## 小结
#
# - 一个汉字是一个码点、（通常）三个 UTF-8 字节；字节从不丢失信息，但序列长三倍。
# - BPE 反复合并最常见的相邻对；WordPiece 编码取最长匹配；Unigram 取概率最大的切法。三者手写都不到二十行，
#   结果与库一致。
# - bert-base-chinese 名为 WordPiece，实为字模型。
# - 单位越大，序列越短，词表越大，生词越多；换一个领域，量身定做的词表就不那么省了。
# - 每词元损失随粒度变，跨粒度比较要用每字比特数，并且 `[UNK]` 要补交。
# - 粒度之争要在同样的计算量下、用同样的单位量，还要记得下限在哪里。
#
# ## 练习
#
# **1. 手算 UTF-8**（★，5 分钟）「龘」的码点是 U+9F98。不用电脑，写出它的三个字节，再用 `utf8_by_hand` 验证。
#
# <details><summary>参考答案</summary>
#
# `0x9F98` 的二进制是 `1001 111110 011000`，
# 填进 `1110xxxx 10xxxxxx 10xxxxxx` 得 `11101001 10111110 10011000`，即 `E9 BE 98`。
#
# </details>
#
# **2. 反过来解码**（★★，10 分钟）写 `utf8_decode(data)`，把一串 UTF-8 字节还原成码点的列表，
# 遇到不合法的字节抛出 `ValueError`。
#
# <details><summary>参考答案</summary>
#
# ```python
# def utf8_decode(data):
#     codes, i = [], 0
#     while i < len(data):
#         first = data[i]
#         heads = {1: first < 0x80, 2: first >> 5 == 0b110, 3: first >> 4 == 0b1110, 4: first >> 3 == 0b11110}
#         length = next((n for n, fits in heads.items() if fits), 0)
#         tail = data[i + 1 : i + length]
#         if not length or len(tail) != length - 1 or any(b >> 6 != 0b10 for b in tail):
#             raise ValueError(f"第 {i} 个字节不合法")
#         code = first if length == 1 else first & (0x7F >> length)
#         for b in tail:
#             code = code << 6 | b & 0x3F
#         codes.append(code)
#         i += length
#     return codes
#
# assert utf8_decode("A今𠮷😀".encode()) == [ord(c) for c in "A今𠮷😀"]
# ```
#
# 严格的解码器还要拒绝「过长编码」（例如用两个字节写 ASCII）和 U+D800 到 U+DFFF。
#
# </details>
#
# **3. 合并多少次才够？**（★★，15 分钟）把 BPE 的词表大小从最小值起翻倍几次，
# 画出留出集与手写句子的产出率随词表大小的变化。两条线的差距说明什么？
#
# <details><summary>参考答案</summary>
#
# ```python
# base = 261 + n_chars
# sizes_to_try = [base + extra for extra in (0, 250, 500, 1000, 2000)]
# lines = {"留出": [], "手写": []}
# for size in sizes_to_try:
#     tokenizer = build_tokenizer("bpe", train, size)
#     for label, texts in (("留出", held), ("手写", natural)):
#         lines[label].append(measure(tokenizer, texts)[0])
# for label, values in lines.items():
#     plt.plot(sizes_to_try, values, marker="o", label=label)
# plt.legend()
# ```
#
# 留出的线一直往下走，手写的线降得慢得多：合并出来的长片段是这批新闻特有的，换了领域就用不上。
# 词表要在**将来要用的文字**上训练。
#
# </details>
#
# **4. 差距真的存在吗？**（★★★，20 分钟）换三个随机种子重跑第 11 节的 `char` 和 `bpe`，
# 报告各自 BPC 的平均值与最大最小之差。名次稳定吗？
#
# <details><summary>参考答案</summary>
#
# `Lesson` 是冻结的，先用 `dataclasses.replace` 换种子：
#
# ```python
# from dataclasses import replace
# original, scores = lesson, {"char": [], "bpe": []}
# for seed in (1, 2, 3):
#     lesson = replace(original, seed=seed)
#     for name in scores:
#         scores[name].append(train_at(name)["bpc"])
# lesson = original
# print({name: (np.mean(v), np.ptp(v)) for name, v in scores.items()})
# ```
#
# 若两者均值之差小于各自的最大最小之差，就不该宣称谁胜谁负。
#
# </details>
#
# ## 延伸阅读
#
# - Sennrich, Haddow, Birch（2016），*Neural Machine Translation of Rare Words with Subword Units*：
#   把 BPE 带进自然语言处理。
# - Kudo（2018），*Subword Regularization*：Unigram 子词；Kudo, Richardson（2018），*SentencePiece*。
# - Devlin, Chang, Lee, Toutanova（2019），*BERT*：中文模型的切法见其附带的代码。
# - Radford 等（2019），*Language Models are Unsupervised Multitask Learners*：字节级 BPE。
# - Li, Meng, Sun, Han, Yuan, Li（2019），*Is Word Segmentation Necessary for Deep Learning of Chinese
#   Representations?*
# - Xue 等（2022），*ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models*。
# - Si 等（2023），*Sub-Character Tokenization for Chinese Pretrained Language Models*。
# - Petrov, La Malfa, Torr, Bibi（2023），*Language Model Tokenizers Introduce Unfairness Between
#   Languages*。
