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
# # 预训练目标
#
# **这一本只回答一个问题：预训练在学什么？**
#
# **学习目标**
#
# 1. 亲手写出五种预训练目标：因果语言模型（CLM）、掩码语言模型（MLM）、整词掩码、下一句预测（NSP）、T5 的片段还原。
# 2. 每种目标的损失都从公式算出来，与 Hugging Face 的库对上。
# 3. 看得出一个目标「能看到什么、要猜什么、一篇文章给多少道题」，并用模型自己的梯度画出来。
# 4. 知道两个坑：库里的整词掩码用在中文上会失灵；NSP 有捷径可走。
#
# **先修**：[[tokenization]]（字符词元）、[[self_attention]]（自注意力与掩码）。
#
# **用时**：没有 bf16 指令的 CPU，一个核心约 5 分钟（五个小模型，各练几十秒），有的快得多；GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("objectives")               # 换预设：start("objectives", preset="smoke")

# %% [markdown]
# 这一本不追求练得好，只想看清五道题各是什么样。模型取得很小，每个只练一小会儿；大小和学习率因此不跟预设走：

# %%
from dataclasses import replace
import torch

device = lesson.device
preset = replace(lesson.preset, layers=2, hidden=min(lesson.preset.hidden, 128), heads=4, batch_size=8, lr=3e-3, init_std=0.04)
generator = torch.Generator().manual_seed(lesson.seed)
print(f"{preset.layers} 层 × {preset.hidden} 维，每批 {preset.batch_size} 篇")

# %% [markdown]
# ## 1 同一段话，五道题
#
# 预训练没有人工标注，题目是拿文章自己出的：遮住一部分，让模型猜回来。遮哪里、许看哪里，就是不同的**目标（objective）**。
# 先把语料和分词器准备好。分词器是全课程共用的那一个，一个字符一个词元，与课程附带的、会填空的模型一起载入；
# 另加 20 个**哨兵（sentinel）**词元，T5 要用。

# %%
from transformers import BertForPreTraining, logging
from utils.models import load_checkpoint
from utils.corpus import load_corpus

corpus = load_corpus("bundled", n_docs=min(preset.n_docs, 6000))
train_docs, held_docs = corpus["train"], corpus["validation"].select(range(min(preset.eval_docs, len(corpus["validation"]))))
logging.set_verbosity_error()                 # 判断「下一句」的头是全新的，库会列表提醒，这里先关掉
pretrained, tokenizer, report = load_checkpoint("mlm", BertForPreTraining, prefer="shipped")
logging.set_verbosity_warning()
tokenizer.add_special_tokens({"extra_special_tokens": [f"<{i}>" for i in range(20)]})
sentinels = tokenizer.convert_tokens_to_ids([f"<{i}>" for i in range(20)])
V = len(tokenizer)
pretrained.resize_token_embeddings(V, mean_resizing=False)
print(f"{len(train_docs)} 篇，词表 V = {V}")

# %% [markdown]
# 这一本的符号：B 是一批里的篇数，T 是一篇的词元数，V 是词表大小。拿一句话当例子：

# %%
sentence = held_docs[0]["intro"]
ids = torch.tensor([tokenizer(sentence)["input_ids"]])                    # (1, T)
print(sentence)
print(ids.shape, tokenizer.convert_ids_to_tokens(ids[0, :8].tolist()))

# %% [markdown]
# ## 2 CLM：猜下一个字
#
# **因果语言模型（causal language model，CLM）** 是 GPT 的题目：看着左边，猜下一个。标签就是文章自己，错开一位：
#
# $$\mathcal{L}_{\text{CLM}}=-\frac{1}{T-1}\sum_{t=1}^{T-1}\log p_\theta(x_{t+1}\mid x_{\le t})$$

# %%
def clm_loss(logits, ids):
    log_p = logits[:, :-1].log_softmax(-1)                                # (B, T-1, V)：位置 t 预测 t+1
    return -log_p.gather(-1, ids[:, 1:, None]).mean()                     # 标量

# %% [markdown]
# 与库对一对。库的 `labels` 不用自己错位，模型里面会错；`is_decoder=True` 让它只看左边（[[clm_finetuning]] 会看到漏写它的后果）。

# %%
from transformers import BertLMHeadModel
from utils.training import bert_config

def small(model_class, **changes):
    torch.manual_seed(lesson.seed)
    return model_class(bert_config(preset, tokenizer, **changes)).eval()

gpt = small(BertLMHeadModel, is_decoder=True)
gpt.loss_type = "ForCausalLM"                 # 库认不出这个类用哪种损失；写明它，就不会有警告
with torch.no_grad():
    output = gpt(input_ids=ids, labels=ids)
torch.testing.assert_close(clm_loss(output.logits, ids), output.loss)
print(f"手写 {clm_loss(output.logits, ids):.4f}，库 {output.loss:.4f}；ln V = {torch.tensor(V).log():.4f}")

# %% [markdown]
# 随机权重的损失就在 $\ln V$ 附近：它什么也不知道，等于在 V 个词元里瞎猜。
#
# ## 3 MLM：完形填空
#
# **掩码语言模型（masked language model，MLM）** 是 BERT 的题目（Devlin 等，2019）：每个词元以 15% 的概率被选中，选中的里面
# 80% 换成 `[MASK]`，10% 换成随机词元，10% 保持原样。为什么不全换成 `[MASK]`？因为真正用模型的时候没有 `[MASK]`；
# 留下一些真字和错字，模型就不敢只在看见 `[MASK]` 时才动脑筋。
#
# 先写「换」这一步。标签里没选中的记作 −100，交叉熵会跳过它：

# %%
def spoil(ids, chosen, vocab_size, mask_id, generator):
    labels = ids.masked_fill(~chosen, -100)                               # (B, T)
    dice = torch.rand(ids.shape, generator=generator)
    masked = ids.clone()
    masked[chosen & (dice < 0.8)] = mask_id                               # 80%
    swap = chosen & (dice >= 0.8) & (dice < 0.9)                          # 10%
    masked[swap] = torch.randint(vocab_size, (int(swap.sum()),), generator=generator)
    return masked, labels                                                 # 余下 10% 保持原样

# %% [markdown]
# 再写「选」这一步。特殊词元不许选：

# %%
def mask_tokens(ids, special, vocab_size, mask_id, generator, probability=0.15):
    chosen = (torch.rand(ids.shape, generator=generator) < probability) & ~special
    return spoil(ids, chosen, vocab_size, mask_id, generator)

def show(masked, labels):                     # □ 是 [MASK]，【】里是换错的字，〔〕里是选中了却没换的
    out = []
    for m, y, t in zip(masked[0], labels[0], tokenizer.convert_ids_to_tokens(masked[0].tolist()), strict=True):
        out.append("□" if m == tokenizer.mask_token_id else t if y == -100 else f"【{t}】" if m != y else f"〔{t}〕")
    return "".join(out)

special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
for _ in range(3):
    print(show(*mask_tokens(ids, special, V, tokenizer.mask_token_id, generator)))

# %% [markdown]
# 写得对不对，看频率。把手写的和库的 `DataCollatorForLanguageModeling` 各用在几百篇上，比较四个比例：

# %%
from transformers import DataCollatorForLanguageModeling

plain = {"add_special_tokens": False, "split_special_tokens": True}
flat = torch.tensor([i for body in train_docs["body"][:400] for i in tokenizer(body, **plain)["input_ids"]])[None]   # (1, N)
library = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=lesson.seed)

def shares(masked, labels):
    at = labels != -100
    is_mask, same = masked == tokenizer.mask_token_id, masked == flat
    return [at.float().mean().item(), *(x[at].float().mean().item() for x in (is_mask, ~is_mask & ~same, same))]

# %% [markdown]
# 四个比例应当都在 0.15、0.8、0.1、0.1 附近。容差取五个标准误，正常的抽样几乎不可能超出它：

# %%
by_hand = shares(*mask_tokens(flat, torch.zeros_like(flat, dtype=torch.bool), V, tokenizer.mask_token_id, generator))
batch = library([{"input_ids": flat[0]}])
by_library = shares(batch["input_ids"], batch["labels"])
N = flat.numel()
for name, a, b, p, n in zip(["选中", "[MASK]", "随机字", "原样"], by_hand, by_library, [0.15, 0.8, 0.1, 0.1],
                            [N, 0.15 * N, 0.15 * N, 0.15 * N], strict=True):
    print(f"{name:　<6} 手写 {a:.4f}   库 {b:.4f}   应为 {p}")
    assert all(abs(x - p) < 5 * (p * (1 - p) / n) ** 0.5 for x in (a, b))

# %% [markdown]
# 损失只算被选中的位置。用 $m_i\in\{0,1\}$ 表示位置 $i$ 是否被选中，$\tilde{x}$ 是盖过的序列：
#
# $$\mathcal{L}_{\text{MLM}}=-\frac{1}{\sum_i m_i}\sum_i m_i\,\log p_\theta(x_i\mid \tilde{x})$$
#
# 注意这里**不错位**：位置 $i$ 的 logits 猜的就是 $x_i$。类名要选 `BertForMaskedLM`。

# %%
from transformers import BertForMaskedLM

bert = small(BertForMaskedLM)
masked, labels = mask_tokens(ids, special, V, tokenizer.mask_token_id, generator)
with torch.no_grad():
    output = bert(input_ids=masked, labels=labels)
at = labels != -100                                                       # (1, T)
loss = -output.logits.log_softmax(-1)[at].gather(-1, labels[at][:, None]).mean()
torch.testing.assert_close(loss, output.loss)
print(f"手写 {loss:.4f}，库 {output.loss:.4f}，算了 {int(at.sum())} 个位置")

# %% [markdown]
# ## 4 整词掩码：别只盖半个词
#
# 盖住「气温」的「温」，留着「气」，这道题太容易：不看别处也猜得到。**整词掩码（whole word masking）** 以词为单位来选，
# 选中的词每个字都盖住（Cui 等，2021，用在中文 BERT 上）。中文没有空格，词要靠 jieba 切：

# %%
from utils.tokenization import jieba_words

def word_index(text):
    return [number for number, word in enumerate(jieba_words(text)) for _ in word]

print(" / ".join(jieba_words(sentence)))
print(word_index(sentence)[:12], "……")

# %% [markdown]
# 每个词掷一次骰子，词里的字同进同退。`words` 里 −1 表示特殊词元，永不选中：

# %%
def mask_words(ids, words, vocab_size, mask_id, generator, probability=0.15):
    dice = torch.rand(ids.shape[0], int(words.max()) + 1, generator=generator) < probability   # (B, 词数)
    chosen = dice.gather(1, words.clamp(min=0)) & (words >= 0)                                 # (B, T)
    return spoil(ids, chosen, vocab_size, mask_id, generator)

words = torch.tensor([[-1, *word_index(sentence), -1]])                   # (1, T)
for _ in range(3):
    print(show(*mask_words(ids, words, V, tokenizer.mask_token_id, generator)))

# %% [markdown]
# ### 坑：库里的整词掩码，用在中文上会失灵
#
# transformers 的 `DataCollatorForLanguageModeling` 也有 `whole_word_mask=True`。它怎样认出一个词？看词元在原文里的起止位置
# （offset）：紧挨着的词元算同一个词。英文词之间有空格，这没有问题；中文一整句都紧挨着，于是**一句话成了一个词**，
# 要么全不盖，要么全盖。量一量（这个选项只支持全换成 `[MASK]`，而且句子要等长，所以一句一句地喂）：

# %%
whole = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0,
                                        seed=lesson.seed)

def masked_share(text, offsets=None):
    row = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    row = {k: row[k] for k in ("input_ids", "special_tokens_mask", "offset_mapping")}
    if offsets:
        row["offset_mapping"] = [(0, 0), *offsets, (0, 0)]
    labels = whole([row])["labels"][0]
    return (labels != -100).float().mean().item()

broken = [masked_share(text) for text in held_docs["intro"][:]]

# %% [markdown]
# 补救的办法：让它以为词与词之间有空格。第 $w$ 个词的字，起止位置都加上 $w$，相邻的词就不再紧挨着了。

# %%
def spread(text):                             # 每个字的 （起点，终点），词与词之间空出一格
    return [(i + w, i + w + 1) for i, w in enumerate(word_index(text))]

mended = [masked_share(text, spread(text)) for text in held_docs["intro"][:]]
for name, values in {"直接用": broken, "补救之后": mended}.items():
    none, most = sum(v == 0 for v in values), sum(v > 0.5 for v in values)
    print(f"{name}：{len(values)} 句里，一个字没盖的 {none} 句，盖掉一半以上的 {most} 句，平均盖 {sum(values) / len(values):.1%}")
lesson.record("库的整词掩码用在中文上，一个字没盖的句子", sum(v == 0 for v in broken) / len(broken))
assert sum(v == 0 for v in broken) > 0.5 * len(broken) > 5 * sum(v == 0 for v in mended)

# %% [markdown]
# 手写的 `mask_words` 没有这个毛病，也不要求句子等长，还保留了 80/10/10。再用频率核对：选中的比例仍是 15%，而且没有一个词只盖了一半。

# %%
texts = train_docs["body"][:300]
chosen_chars, broken_words = [], 0
for text in texts:
    row, w = torch.tensor([tokenizer(text, **plain)["input_ids"]]), torch.tensor([word_index(text)])
    picked = mask_words(row, w, V, tokenizer.mask_token_id, generator)[1][0] != -100             # (T,)
    chosen_chars.append(picked.float().mean().item())
    per_word = torch.zeros(int(w.max()) + 1).scatter_reduce(0, w[0], picked.float(), "mean", include_self=False)
    broken_words += int(((per_word > 0) & (per_word < 1)).sum())
print(f"选中 {sum(chosen_chars) / len(chosen_chars):.3f}，只盖一半的词 {broken_words} 个")
assert broken_words == 0 and abs(sum(chosen_chars) / len(chosen_chars) - 0.15) < 0.01

# %% [markdown]
# ## 5 NSP：这是不是下一段？
#
# BERT 还有第二道题，**下一句预测（next sentence prediction，NSP）**：一半的时候给真正的下一段，一半的时候给别人的，
# 让模型看着 `[CLS]` 的输出判断。两段用**段编号（token type）** 0 和 1 区分：

# %%
from utils.training import sentence_pairs   # 掷硬币、挑别人的正文；十几行，没有别的

def encode_pairs(pairs):
    rows = []
    for intro, body, label in pairs:
        a, b = (tokenizer(text, **plain)["input_ids"] for text in (intro, body))
        rows.append({"input_ids": [tokenizer.cls_token_id, *a, tokenizer.sep_token_id, *b, tokenizer.sep_token_id],
                     "token_type_ids": [0] * (len(a) + 2) + [1] * (len(b) + 1), "next_sentence_label": label})
    return rows

pairs = sentence_pairs(train_docs["intro"][:], train_docs["body"][:], generator)
for intro, body, label in pairs[:2]:
    print(f"{'别人的正文' if label else '真的下一段'}　{intro[:24]}… ｜ {body[:24]}…")

# %% [markdown]
# 总损失是两道题相加，$y$ 是标签（0 表示「是下一段」），$h_{\text{[CLS]}}$ 是 `[CLS]` 处的输出：
#
# $$\mathcal{L}=\mathcal{L}_{\text{MLM}}+\mathcal{L}_{\text{NSP}},\qquad
# \mathcal{L}_{\text{NSP}}=-\log\operatorname{softmax}(W h_{\text{[CLS]}})_{y}$$

# %%
from utils.training import pair_collator

both = small(BertForPreTraining)
batch = pair_collator(tokenizer, generator)(encode_pairs(pairs[:8]))
with torch.no_grad():
    output = both(**batch)
at, y = batch["labels"] != -100, batch["next_sentence_label"]
mlm_part = -output.prediction_logits.log_softmax(-1)[at].gather(-1, batch["labels"][at][:, None]).mean()
nsp_part = -output.seq_relationship_logits.log_softmax(-1).gather(-1, y[:, None]).mean()
torch.testing.assert_close(mlm_part + nsp_part, output.loss)
print(f"MLM {mlm_part:.4f} + NSP {nsp_part:.4f} = {mlm_part + nsp_part:.4f}，库 {output.loss:.4f}")

# %% [markdown]
# ### 坑：这道题有捷径
#
# 不用懂文章，数一数两段有多少字相同就行。下面这个「模型」没有一个参数是练出来的：正文里的汉字有几成在导语里出现过，
# 高于某个门槛就说「是」。门槛在训练集上挑，正确率在留出集上算：

# %%
def overlap(intro, body):
    chars = [c for c in body if "\u4e00" <= c <= "\u9fff" or c.isdigit()]
    return sum(c in set(intro) for c in chars) / len(chars)

def shortcut(fit_pairs, test_pairs):
    scores = sorted((overlap(a, b), y) for a, b, y in fit_pairs)
    cut = max((s for s, _ in scores), key=lambda s: sum((x >= s) == (y == 0) for x, y in scores))
    return sum((overlap(a, b) >= cut) == (y == 0) for a, b, y in test_pairs) / len(test_pairs)

easy = sentence_pairs(held_docs["intro"][:], held_docs["body"][:], generator)
shortcut_easy = shortcut(pairs[:600], easy)
lesson.record("NSP 的捷径：只数相同的字", shortcut_easy, "正确率")
assert shortcut_easy > 0.8

# %% [markdown]
# RoBERTa（Liu 等，2019）去掉 NSP 反而更好，ALBERT（Lan 等，2020）把它换成「两句有没有颠倒」，说的都是同一件事：
# 别人的文章换了话题，模型只学会认话题，学不到衔接。把「别人」限制在**同一类文章**里，捷径就难走一些：

# %%
hard_fit = sentence_pairs(train_docs["intro"][:600], train_docs["body"][:600], generator, train_docs["schema"][:600])
hard = sentence_pairs(held_docs["intro"][:], held_docs["body"][:], generator, held_docs["schema"][:])
shortcut_hard = shortcut(hard_fit, hard)
print(f"随便找一篇：{shortcut_easy:.1%}；只在同一种文章里找：{shortcut_hard:.1%}；瞎猜：50%")

# %% [markdown]
# ## 6 T5：挖掉几段，按顺序补回来
#
# T5（Raffel 等，2020）是编码器–解码器。它从文章里挖掉几**段**（平均 3 个词元一段，共 15%），每段在输入里换成一个哨兵；
# 解码器要写出「哨兵 原文 哨兵 原文 … 结束」。先写随机切段：把 `total` 切成 `parts` 段，各种切法等可能，办法是在缝隙里随机挑几刀。

# %%
def random_segments(total, parts, generator):
    cuts = (torch.randperm(total - 1, generator=generator)[:parts - 1] + 1).sort().values.tolist()
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]

print([random_segments(10, 3, generator) for _ in range(4)])

# %% [markdown]
# 保留的部分切成几段，挖掉的部分也切成同样多的段，交错排起来：

# %%
def corrupt_spans(ids, sentinels, end_id, generator, density=0.15, mean_length=3.0):
    noise = min(max(round(len(ids) * density), 1), len(ids) - 1)
    spans = min(max(round(noise / mean_length), 1), len(ids) - noise)
    kept, lost = random_segments(len(ids) - noise, spans, generator), random_segments(noise, spans, generator)
    inputs, targets, at = [], [], 0
    for sentinel, keep, lose in zip(sentinels, kept, lost, strict=False):
        inputs += [*ids[at:at + keep], sentinel]
        targets += [sentinel, *ids[at + keep:at + keep + lose]]
        at += keep + lose
    return inputs, [*targets, end_id]

content = ids[0, 1:-1].tolist()
inputs, targets = corrupt_spans(content, sentinels, tokenizer.sep_token_id, generator)
for name, row in {"编码器的输入": inputs, "解码器的目标": targets}.items():
    print(f"{name}　{''.join(tokenizer.convert_ids_to_tokens(row))}")

# %% [markdown]
# 两边合起来应当能还原出原文：把目标里每个哨兵后面的字，填回输入里同一个哨兵的位置。

# %%
def restore(inputs, targets):
    pieces, current = {}, None
    for i in targets[:-1]:
        if i in sentinels:
            current = i
        pieces.setdefault(current, []).append(i)
    return [j for i in inputs for j in (pieces[i][1:] if i in pieces else [i])]

for text in held_docs["body"][:50]:
    row = tokenizer(text, **plain)["input_ids"]
    assert restore(*corrupt_spans(row, sentinels, tokenizer.sep_token_id, generator)) == row
print("50 篇都还原得一字不差")

# %% [markdown]
# 损失是解码器逐个词元的交叉熵。解码器的输入是目标右移一位，开头补一个 `[PAD]`（T5 的约定）；标签就是目标，不再错位：
#
# $$\mathcal{L}_{\text{T5}}=-\frac{1}{S}\sum_{s=1}^{S}\log p_\theta(y_s\mid y_{<s},\,\tilde{x})$$

# %%
from transformers import T5Config, T5ForConditionalGeneration

def small_t5():
    torch.manual_seed(lesson.seed)
    half = max(1, preset.layers // 2 + preset.layers % 2)                 # 编码器、解码器各这么多层
    return T5ForConditionalGeneration(T5Config(
        vocab_size=V, d_model=preset.hidden, d_kv=preset.hidden // preset.heads, d_ff=4 * preset.hidden, num_layers=half,
        num_heads=preset.heads, dropout_rate=preset.dropout, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id, decoder_start_token_id=tokenizer.pad_token_id)).eval()

t5 = small_t5()
x, y = torch.tensor([inputs]), torch.tensor([targets])                    # (1, T), (1, S)
right = torch.tensor([[tokenizer.pad_token_id, *targets[:-1]]])           # (1, S)
with torch.no_grad():
    logits, output = t5(input_ids=x, decoder_input_ids=right).logits, t5(input_ids=x, labels=y)
loss = -logits.log_softmax(-1).gather(-1, y[..., None]).mean()
torch.testing.assert_close(loss, output.loss)
print(f"手写 {loss:.4f}，库 {output.loss:.4f}")

# %% [markdown]
# ## 7 谁能看见谁？
#
# 不必相信结构图，问模型自己：如果输出 $i$ 对输入 $j$ 的梯度处处为 0，输出 $i$ 就没有看见输入 $j$。
#
# $$\text{看得见}(i,j)\iff \frac{\partial\,\text{logits}_i}{\partial\,e_j}\neq 0$$

# %%
def visible(forward, embeddings):
    embeddings = embeddings.detach().requires_grad_()                     # (1, T, C)
    outputs = forward(embeddings)                                         # (1, S, ·)
    rows = [torch.autograd.grad(outputs[0, i].sin().sum(), embeddings, retain_graph=True, allow_unused=True)[0]
            for i in range(outputs.shape[1])]
    return torch.stack([row[0].abs().sum(-1) > 0 for row in rows]).float()                        # (S, T)

e_bert, e_t5 = bert.get_input_embeddings()(ids[:, :10]), t5.get_input_embeddings()(x[:, :10])
e_out = t5.get_input_embeddings()(right[:, :8])
seen = {"BERT：都看得见": visible(lambda e: bert(inputs_embeds=e).logits, e_bert),
        "GPT：只看左边": visible(lambda e: gpt(inputs_embeds=e).logits, e_bert),
        "T5 解码器看自己": visible(lambda e: t5(inputs_embeds=e_t5, decoder_inputs_embeds=e).logits, e_out),
        "T5 解码器看输入": visible(lambda e: t5(inputs_embeds=e, decoder_inputs_embeds=e_out).logits, e_t5)}

# %% [markdown]
# 画出来：深色是看得见。BERT 与 T5 的编码器双向，GPT 与 T5 的解码器是下三角，T5 的解码器还能看见整个输入。

# %%
import matplotlib.pyplot as plt
from utils.display import heatmap

fig, axes = plt.subplots(1, 4, figsize=(11, 3.4))
for ax, (name, matrix) in zip(axes, seen.items(), strict=True):
    S, T = matrix.shape
    heatmap(matrix, [str(j) for j in range(T)], [str(i) for i in range(S)], name, ax=ax, xlabel="输入位置 j", ylabel="输出位置 i",
            vmin=0, vmax=1)
assert seen["BERT：都看得见"].all() and seen["T5 解码器看输入"].all()
assert all(torch.equal(seen[name], torch.ones_like(seen[name]).tril()) for name in ("GPT：只看左边", "T5 解码器看自己"))

# %% [markdown]
# ## 8 各练一小会儿
#
# 上面手写的几个函数收在 `utils/training/objectives.py` 里。先核对：同样的随机数，两边一字不差。

# %%
from utils.training import corrupt_spans as packaged_spans, mask_tokens as packaged_mask_tokens, mask_words as packaged_mask_words
from utils.training import masking_collator, pair_collator, span_collator, word_index as packaged_word_index

def twin():
    return torch.Generator().manual_seed(7)

settings = (V, tokenizer.mask_token_id)
for mine, packaged in zip(mask_tokens(ids, special, *settings, twin()), packaged_mask_tokens(ids, special, *settings, twin()), strict=True):
    assert torch.equal(mine, packaged)
for mine, packaged in zip(mask_words(ids, words, *settings, twin()), packaged_mask_words(ids, words, *settings, twin()), strict=True):
    assert torch.equal(mine, packaged)
assert corrupt_spans(content, sentinels, 3, twin()) == packaged_spans(content, sentinels, 3, twin())
assert word_index(sentence) == packaged_word_index(sentence)

# %% [markdown]
# 数据排成行。每篇是 `[CLS] 导语 [SEP] 正文 [SEP]`，另带上每个字属于第几个词。只练一两百步，要看得出学没学会，文章得窄一些，
# 所以除了 NSP，都只用体育一类；十几类一起练，这点时间多半只够学会字频（想验证，让下面的 `sports` 原样返回 `docs`）。
# NSP 的捷径是认话题，话题多，才看得出它走没走捷径，所以它用全部文章。

# %%
from datasets import Dataset
from utils.training import encode_docs

def with_words(docs):
    rows = list(encode_docs(docs, tokenizer, preset.max_len, learn_intro=True))
    for row, intro, body in zip(rows, docs["intro"], docs["body"], strict=True):
        first = word_index(intro)
        row["words"] = [-1, *first, -1, *(first[-1] + 1 + w for w in word_index(body)), -1]
        assert len(row["words"]) == row["length"]
    return Dataset.from_list(rows)

def sports(docs):
    return docs.filter(lambda category: category == "体育", input_columns="category")

train_rows, held_rows = with_words(sports(train_docs)), with_words(sports(corpus["validation"]))
print(f"体育类：练 {len(train_rows)} 篇，考 {len(held_rows)} 篇")
train_pairs, held_pairs, hard_pairs = (Dataset.from_list([r | {"length": len(r["input_ids"])} for r in encode_pairs(p)])
                                       for p in (pairs, easy, hard))

# %% [markdown]
# 五种目标，各配一个整理函数（collator）、一个模型和一把量损失的尺子。
# CLM 和两个 MLM 用同样的起点 `prepare_heads`（[[mlm_pretraining]] 会讲）；
# T5 从完全随机的权重起步。NSP 一对文章只有一道题，从头练，这点时间多半学不到什么（想验证，
# 把下面 `makers` 里的 `pretrained` 换成 `small(BertForPreTraining)`），所以让它从课程附带的、
# 会填空的模型出发，学习率也小些。

# %%
from utils.models import prepare_heads
from utils.training import clm_collator, evaluate, fixed_batches

def fresh(model_class, **changes):
    model = prepare_heads(small(model_class, **changes))
    model.loss_type = "ForCausalLM" if changes else None
    return model

@torch.no_grad()
def evaluate_nsp(model, batches):
    training, nats, right, count = model.training, 0.0, 0, 0
    model.eval()
    for batch in batches:
        batch = {k: v.to(model.device) for k, v in batch.items()}
        y = batch.pop("next_sentence_label")
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).seq_relationship_logits  # (B, 2)
        nats += torch.nn.functional.cross_entropy(logits, y, reduction="sum").item()
        right, count = right + (logits.argmax(-1) == y).sum().item(), count + len(y)
    model.train(training)
    return nats / count, right / count

# %% [markdown]
# 评估用固定的批；量 NSP 时不看 MLM 那一半。每种目标的参照也不同：NSP 的是掷硬币，$\ln 2$；另外四种是「只按字频猜」（一元模型）。

# %%
import math
from utils.tokenization import unigram_nats

def ruler(rows, collate, shift=False):
    batches = fixed_batches(rows, collate, len(rows))
    return batches, lambda model: evaluate(model, batches, shift=shift)

collators = {"CLM": clm_collator(tokenizer), "MLM": masking_collator(tokenizer, generator),
             "整词 MLM": masking_collator(tokenizer, generator, whole_words=True),
             "MLM+NSP": pair_collator(tokenizer, generator), "T5": span_collator(tokenizer, sentinels, generator)}
rulers = {name: ruler(held_rows, collators[name], shift=name == "CLM") for name in ("CLM", "MLM", "整词 MLM", "T5")}
nsp_batches = fixed_batches(held_pairs, collators["MLM+NSP"], len(held_pairs))
rulers["MLM+NSP"] = nsp_batches, lambda model: evaluate_nsp(model, nsp_batches)
counts = [row["input_ids"] for row in train_rows]

# %% [markdown]
# 参照也用同一把尺子来算：取每种目标的标签，看「只按训练集字频」要付多少奈特。

# %%
def reference(name):
    if name == "MLM+NSP":
        return math.log(2)
    wanted = [[i for i in row if i != -100] for batch in rulers[name][0] for row in batch["labels"].tolist()]
    if name == "T5":                          # T5 的目标里多了哨兵，字频要在同样的目标上数
        targets = [packaged_spans(row[1:-1], sentinels, tokenizer.sep_token_id, generator)[1] for row in counts]
        return unigram_nats(targets, wanted, V)
    return unigram_nats(counts, wanted, V)

baselines = {name: reference(name) for name in collators}
print({name: round(nats, 3) for name, nats in baselines.items()})

# %% [markdown]
# 开始。五个模型，每个练同样多步：

# %%
from utils.training import train, training_arguments

makers = {"CLM": lambda: fresh(BertLMHeadModel, is_decoder=True), "MLM": lambda: fresh(BertForMaskedLM),
          "整词 MLM": lambda: fresh(BertForMaskedLM), "MLM+NSP": lambda: pretrained, "T5": small_t5}
steps, models, runs = (60 if preset.name == "smoke" else 200), {}, {}
for name, make in makers.items():
    slower = replace(preset, lr=1e-3) if name == "MLM+NSP" else preset
    args = training_arguments(lesson.outputs / "trainer", steps, slower, device, lesson.seed)
    models[name] = make().to(device)
    runs[name] = train(models[name], train_pairs if name == "MLM+NSP" else train_rows, collators[name], args, rulers[name][1],
                       {"参照": baselines[name]}, evaluations=5)

# %% [markdown]
# 画在一页上。五幅图的纵轴**不能横着比**：题目不同，难度不同，连「一道题」是什么都不同。每条曲线只和自己的参照比。

# %%
fig, axes = plt.subplots(1, 5, figsize=(12, 2.9))
for ax, (name, run) in zip(axes, runs.items(), strict=True):
    ax.plot(run.eval_steps, run.eval_loss, marker="o", markersize=3)
    ax.axhline(baselines[name], color="#555555", linestyle="--")
    ax.set(title="NSP" if name == "MLM+NSP" else name, xlabel="步数", ylim=(0, None))
    ax.text(ax.get_xlim()[1], baselines[name], "参照 ", ha="right", va="bottom", fontsize=9, color="#555555")
_ = axes[0].set(ylabel="留出集损失（奈特/目标）")

# %% [markdown]
# 记下每个模型比它的参照好多少：

# %%
for name, run in runs.items():
    loss, accuracy = run.eval_loss[-1], run.eval_accuracy[-1]
    print(f"{name:　<8} {run.seconds:5.1f} 秒   损失 {loss:.3f}（参照 {baselines[name]:.3f}）   准确率 {accuracy:.1%}")
    lesson.record(f"{name} 的损失 ÷ 参照（{steps} 步）", loss / baselines[name], "倍")
    assert loss < baselines[name] * (1.3 if preset.name == "smoke" else 0.95), name

# %% [markdown]
# ## 9 两个追问
#
# **盖半个词，算不算泄题？** 拿第 3 节那种「按字盖」练出来的模型，同样盖 15%，一次按字盖，一次整词盖，看它答对多少：

# %%
half = evaluate(models["MLM"], rulers["MLM"][0], shift=False)[1]
full = evaluate(models["MLM"], rulers["整词 MLM"][0], shift=False)[1]
print(f"按字盖：{half:.1%}；整词盖：{full:.1%}")
lesson.record("同一个模型，按字盖的准确率减去整词盖的准确率", half - full)

# %% [markdown]
# 按字盖的若高出一截，这一截就是靠「旁边那半个词」得来的分。考卷只有几十篇、几百道题，只差一两个百分点，可能是碰巧；
# 差不多高，就是它练得太短，还不会用那半个词。
#
# **NSP 学会了衔接，还是学会了认话题？** 训练时的「别人」是随便找的。考它两次：一次照旧，一次只从同一种文章里找。

# %%
_, easy_score = evaluate_nsp(models["MLM+NSP"], nsp_batches)
_, hard_score = evaluate_nsp(models["MLM+NSP"], fixed_batches(hard_pairs, collators["MLM+NSP"], len(hard_pairs)))
print(f"随便找的：模型 {easy_score:.1%}，捷径 {shortcut_easy:.1%}；同一种文章里找的：模型 {hard_score:.1%}，捷径 {shortcut_hard:.1%}")
lesson.record("NSP：随便找的别人", easy_score, "正确率")
lesson.record("NSP：同一种文章里的别人", hard_score, "正确率")
assert preset.name == "smoke" or hard_score < easy_score - 0.15

# %% [markdown]
# 考题只换了「别人」的来源，模型的正确率掉了多少？掉一大截，说明它学会的多半是认话题，而不是核对这一段说的是不是同一件事：
# 题目出得太容易，模型就学不到你想要的东西。（要是换之前就在 50% 上下，那是它还没学会，这一问就不成立了。）
#
# ## 10 放在一起看
#
# 一篇文章能出多少道题？数一数每处理一个词元，得到多少个要猜的目标（NSP 一对只有一道）：

# %%
print("目标　　　　每处理一个词元的题数")
for name, (batches, _) in rulers.items():
    tokens = sum(int(batch["attention_mask"].sum()) + int((batch["decoder_input_ids"] != 0).sum() if "decoder_input_ids" in batch else 0)
                 for batch in batches)
    targets = sum(len(b["next_sentence_label"]) if name == "MLM+NSP" else int((b["labels"] != -100).sum()) for b in batches)
    print(f"{'NSP' if name == 'MLM+NSP' else name:　<8} {targets / tokens:.3f}")

# %% [markdown]
# | | BERT | GPT | T5 |
# |---|---|---|---|
# | 结构 | 只有编码器 | 只有解码器 | 编码器–解码器 |
# | 猜一个字时看得见 | 左右两边 | 只有左边 | 整个输入，加上已写的部分 |
# | 题目 | 填空（外加 NSP） | 下一个字 | 按顺序补回挖掉的段 |
# | 一个词元给几道题 | 约 0.15 | 约 1 | 比 MLM 略多（看上面打印的） |
# | 练好了直接能做 | 填空、给整段一个表示 | 续写 | 输入一段、输出一段 |
#
# ## 小结
#
# - 预训练的标签来自文章自己；目标决定遮哪里、许看哪里、猜什么。
# - 五种损失都是交叉熵，差别只在「算哪些位置」和「错不错位」：CLM 错一位，MLM、T5 不错位。
# - 库的整词掩码用在中文上会失灵，因为中文的字与字之间没有空格；把词与词之间的位置隔开就好。
# - NSP 有捷径。出题时要先问：不懂文章，能不能答对？
# - 不同目标的损失不能横着比，只能和各自的参照比。
#
# **下一本**：[[mlm_pretraining]]，挑填空这道题，认真练一个中文 BERT。
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import objectives as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 一批长短不齐的 CLM**（★★，10 分钟）第 2 节的 `clm_loss` 只管一篇。一批里有长有短，短的补了填充：
# 写出只在真词元上取平均的损失。`mask` 是 (B, T)，1 是真词元，0 是填充，填充总在右边。

# %% tags=["stub"]
def padded_clm_loss(logits, ids, mask):                                   # (B, T, V), (B, T), (B, T)
    ...                                                                   # ← 换成你的代码，返回一个标量

# %% tags=["check"]
check.padded_clm_loss(padded_clm_loss)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def padded_clm_loss(logits, ids, mask):
#     log_p = logits[:, :-1].log_softmax(-1)                              # (B, T-1, V)
#     picked = log_p.gather(-1, ids[:, 1:, None])[..., 0]                 # (B, T-1)
#     keep = mask[:, 1:].float()                                          # 要猜的那一位是真词元，才算
#     return -(picked * keep).sum() / keep.sum()
# ```
#
# 看的是 `mask[:, 1:]`，不是 `mask[:, :-1]`：问的是「要猜的那一位」是不是真词元。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · MLM 的损失**（★，5 分钟）第 3 节是直接在格子里算的。把它写成函数：`labels` 里没选中的位置是 −100，
# 其余是原来的词元编号；返回选中位置上的平均损失。

# %% tags=["stub"]
def mlm_loss(logits, labels):                                             # (B, T, V), (B, T)
    ...                                                                   # ← 换成你的代码，返回一个标量

# %% tags=["check"]
check.mlm_loss(mlm_loss)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def mlm_loss(logits, labels):
#     at = labels != -100                                                 # (B, T)
#     return -logits[at].log_softmax(-1).gather(-1, labels[at][:, None]).mean()
# ```
#
# 先用 `logits[at]` 挑出选中的位置，再算 softmax：只有一成半的位置要算，又快又省内存。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 找错**（★，3 分钟）有人把 `spoil` 里的 `dice < 0.9` 写成了 `dice < 1.0`。选中的词元里，换成 `[MASK]`、
# 换成随机字、保持原样的比例会变成多少？先写下三个数，再改一改第 3 节验证。顺便想一想：模型会少学什么？

# %% tags=["stub"]
my_shares = ...                               # ← 换成 [换成 [MASK] 的, 换成随机字的, 原样的]

# %% tags=["check"]
check.spoiled_shares(my_shares)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_shares = [0.8, 0.2, 0.0]
# ```
#
# 「原样」变成 0，随机字变成 20%。模型从此知道：看见的字只要在算损失，就一定是错的或者被盖住的，于是没有理由给「原样」的字
# 留概率。真正使用时所有字都是原样，表示就会变差。频率核对那一格会当场报错。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · T5 挖几段**（★，5 分钟）一篇 160 个词元，`density=0.15`，把 `mean_length` 从 3 改成 10。`corrupt_spans` 会挖几段？
# 目标 `targets` 一共多少个词元（哨兵和结束词元都算）？先猜，再跑。

# %% tags=["stub"]
my_lengths = ...                              # ← 换成 [段数, 目标的长度]

# %% tags=["check"]
check.t5_lengths(my_lengths)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_lengths = [2, 27]
# ```
#
# 挖掉的总数是 24，段数由 8 变成 2，哨兵也就少了，目标由 24 + 8 + 1 = 33 变成 24 + 2 + 1 = 27。题目更难：
# 一长段只能靠意思来补，不能靠左右两个字。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 盖住半个词**（★★，5 分钟）按字盖、遮盖率提到 30% 时，一个两个字的词，恰好只盖住一个字的概率是多少？
# 先算，再把第 4 节最后一格里的 `mask_words` 换成 `mask_tokens` 数一数（算出来或量出来的数都可以交）。

# %% tags=["stub"]
my_half = ...                                 # ← 换成一个 0 到 1 之间的数

# %% tags=["check"]
check.half_words(my_half)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_half = 2 * 0.3 * (1 - 0.3)
# ```
#
# 前一个盖、后一个不盖，或者反过来，各是 0.3 × 0.7。遮盖率 15% 时是 0.255。遮盖率越接近一半，剩半个词的越多，
# 整词掩码的差别也就越大。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 解码器的输入**（★★，8 分钟）第 6 节里一行一行地右移。现在给一批标签 `labels`（短的行末尾是 −100）和开头的词元 `start`，
# 写出解码器的输入：每行右移一位，开头补 `start`，输入里不许有 −100（也用 `start` 代替）。

# %% tags=["stub"]
def shift_right(labels, start):                                           # (B, S)，整数
    ...                                                                   # ← 换成你的代码，返回 (B, S)

# %% tags=["check"]
check.shift_right(shift_right)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def shift_right(labels, start):
#     inputs = torch.full_like(labels, start)                             # (B, S)
#     inputs[:, 1:] = labels[:, :-1]
#     return inputs.masked_fill(inputs == -100, start)
# ```
#
# −100 是说给损失函数听的：「这一位不算」。它不是词元，词嵌入里没有这一行，放进输入就会报错，或者（在 GPU 上）更难看懂的错。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 7 · 句子次序预测**（★★，10 分钟）写出 ALBERT 的题目：一半保持（导语，正文），标签 0；一半颠倒成（正文，导语），标签 1。
# 返回 `[(前一段, 后一段, 标签), …]`，随机数用 `generator`。写好之后用 `shortcut` 的办法考考它：数相同的字还能答对吗？

# %% tags=["stub"]
def order_pairs(intros, bodies, generator):                               # 两个等长的字符串列表
    ...                                                                   # ← 换成你的代码，返回三元组的列表

# %% tags=["check"]
check.order_pairs(order_pairs)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def order_pairs(intros, bodies, generator):
#     out = []
#     for a, b in zip(intros, bodies, strict=True):
#         flip = bool(torch.rand((), generator=generator) < 0.5)
#         out.append((b, a, 1) if flip else (a, b, 0))
#     return out
# ```
#
# 拿 `shortcut` 去考它：
#
# ```python
# print(shortcut(order_pairs(train_docs["intro"][:600], train_docs["body"][:600], generator),
#                order_pairs(held_docs["intro"][:], held_docs["body"][:], generator)))
# ```
#
# 相同的字是对称的，但 `overlap` 是按第二段来算比例：正文比导语长，颠倒之后比例会变，所以仍可能有捷径（长度也是捷径）。
# 把两段截成一样长再试一次。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 8 · 解释一幅图**（★★，5 分钟）第 7 节若把 GPT 的 `is_decoder=True` 去掉，标签仍错一位，会怎样？
#
# - A　图仍是下三角：标签错了一位，模型就看不见未来。
# - B　整幅变深；训练损失低得可疑，写作时却用不上。
# - C　整幅变深；看得多了，题目更难，训练损失变高。
# - D　整幅变深；训练损失变低，说明双向的模型写得更好。

# %% tags=["stub"]
my_choice = ...                               # ← 换成 "A"、"B"、"C"、"D" 之一

# %% tags=["check"]
check.leak(my_choice)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_choice = "B"
# ```
#
# 整幅都变深：每个位置都看得见下一个字。CLM 的标签正是下一个字，照抄就行，损失会低得可疑；可是写作时下一个字还不存在，
# 学到的本事用不上。[[background]] 的 7.4 节量过这件事。
#
# </details>

# %% [markdown]
# **想一想 · 改一个实验**（★★★，15 分钟）让「整词 MLM」和「MLM」都用**整词盖**的考卷来考（`rulers["整词 MLM"]`）。哪个更高？
# 换三个随机种子各做一遍，差别比种子之间的起伏大吗？
#
# <details><summary>参考答案</summary>
#
# 把 `lesson.seed` 换成 0、1、2，各重练两个模型，记下六个准确率，比较两组的平均与标准差。练得这么短，差别往往还没有种子的
# 起伏大，一次对照下不了结论；[[mlm_pretraining]] 的第 10 节换两个种子、用两份考卷再比一次。
#
# </details>
#
# ## 延伸阅读
#
# - Devlin, Chang, Lee, Toutanova（2019）BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding.
# - Raffel, Shazeer, Roberts 等（2020）Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer.
# - Cui, Che, Liu, Qin, Yang（2021）Pre-Training with Whole Word Masking for Chinese BERT.
# - Liu, Ott, Goyal 等（2019）RoBERTa: A Robustly Optimized BERT Pretraining Approach.
# - Lan, Chen, Goodman 等（2020）ALBERT: A Lite BERT for Self-supervised Learning of Language Representations.
