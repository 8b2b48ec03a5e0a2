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
# # 注意力可视化
#
# **这一本只回答一个问题：模型在看哪里？**
#
# **学习目标**
#
# 1. 会用五种图看注意力：连线、网格，以及 bertviz 的头视图、模型视图、神经元视图，断网也能看。
# 2. 会给头写角色的定义，配上基线，在留出集上打分，而不是看一张图就下结论。
# 3. 会关掉（ablate）一个头，量它值多少损失；会用对照组和误差线判断差别是真是假。
# 4. 会用最小对立对考模型，也考头；知道十几道题的结论能有多可靠。
# 5. 说得出注意力图不能说明什么，并会用遮挡去检验一种「解释」。
#
# **先修**：[[self_attention]]（自注意力）、[[mlm_pretraining]]（MLM 预训练）；看第 6 节之前，
# 翻一翻 [[clm_finetuning]] 的因果解码器更好。
#
# **用时**：两核 CPU 约 2 分钟，GPU 尚未实测。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("attention_visualization")  # 换预设：start("attention_visualization", preset="smoke")

# %% [markdown]
# 这一本要反复打分，用多少文档、多少种子、多少道题，先在这里说清楚。数越大，误差线越短，等得也越久。

# %%
preset, device = lesson.preset, lesson.device
small = preset.name == "smoke"
N_DOCS, N_SEEDS, N_QUESTIONS, SECONDS = (8, 3, 3, 2) if small else (32, 8, 20, 40)

# %% [markdown]
# ## 1 请出四个模型
#
# 同一句话，让四个模型都读一遍：
#
# - **附带的**：课程附带的检查点，练得最久。
# - **刚练的**：你跑过 [[mlm_pretraining]]，就用你自己的；没跑过，当场练一小会儿。
# - **摆好头的**：一步没练，但 [[mlm_pretraining]] 第 4 节的三步（位置、看邻居的头、抄写头）都做了。
# - **纯随机的**：一步没练，什么也没摆。
#
# 为什么要两个没练过的？因为有些头是我们亲手摆的。训练后看到「有个头专看左邻」，先要问：这是学来的，还是本来就摆在那里的？

# %%
import torch
from transformers import BertForMaskedLM
from utils.models import load_checkpoint, prepare_heads
from utils.training import bert_config

shipped, tokenizer, source = load_checkpoint("mlm", BertForMaskedLM, preset=preset, prefer="shipped")
print(source)
torch.manual_seed(lesson.seed)
plain = BertForMaskedLM(shipped.config).eval()                            # 与附带的同样大小
torch.manual_seed(lesson.seed)
placed = prepare_heads(BertForMaskedLM(shipped.config)).eval()

# %% [markdown]
# 「刚练的」先找你自己的检查点。找不到，就用预设的大小，按时间练一小会儿；语料与 [[mlm_pretraining]] 相同，留出集谁都没见过。

# %%
from utils.models import find_checkpoint
from utils.corpus import load_corpus
from utils.training import encode_docs, mlm_collator, train_for, training_arguments

corpus = load_corpus("bundled", n_docs=preset.n_docs)
if find_checkpoint("mlm", preset)[0] == lesson.outputs / "mlm":
    fresh, _, source = load_checkpoint("mlm", BertForMaskedLM, preset=preset)
    print(source)
else:
    fresh = prepare_heads(BertForMaskedLM(bert_config(preset, tokenizer))).to(device)
    rows = encode_docs(corpus["train"].select(range(min(6000, len(corpus["train"])))), tokenizer, preset.max_len)
    args = training_arguments(lesson.outputs / "trainer07", 1, preset, device, lesson.seed)
    steps = train_for(SECONDS, fresh, rows, mlm_collator(tokenizer, preset.mask_rate), args)
    print(f"没找到你自己的检查点，当场练了 {SECONDS} 秒（{steps} 步）。")

# %% [markdown]
# 四个模型排成一张表。全课程共用一张词表，所以一个分词器四个模型都能用：

# %%
models = {"纯随机的": plain, "摆好头的": placed, "刚练的": fresh, "附带的": shipped}
for name, model in models.items():
    model.to(device).eval()
    print(f"{name}：{model.config.num_hidden_layers} 层 × {model.config.num_attention_heads} 头")

# %% [markdown]
# ## 2 先看图
#
# 看一句最短的「导语 + 正文」。正文里「青禾市」第二次出现，有没有头会回去找第一次？先把附带的模型各层各头排成一张网格：

# %%
from utils.views import show_attention

text, pair = "青禾市今天下雨。", "雨停后，青禾市的老人出门看花。"
show_attention(shipped, tokenizer, text, pair, view="grid")

# %% [markdown]
# 每张小图里，行是谁在看，列是看向谁。斜线是看邻居；竖条是大家都看同一处；离开对角线的短斜线，是在别处找到了同一串字。
# 再看没练过的，同一句话：

# %%
show_attention(plain, tokenizer, text, pair, view="grid")

# %% [markdown]
# 两个模型并排，能动手比。上面的静态图不运行也看得到；下面的交互图可以点词元、换层换头、换成矩阵。

# %%
show_attention(plain, tokenizer, text, pair, view="lines", compare=(shipped, tokenizer), names=["纯随机的", "附带的"])

# %% [markdown]
# 「刚练的」和「附带的」也比一比：哪些线两边都有，哪些只有一边有？

# %%
show_attention(fresh, tokenizer, text, pair, view="lines", compare=(shipped, tokenizer), names=["刚练的", "附带的"])

# %% [markdown]
# 下面三张用的是 bertviz（Vig，2019）的画法，脚本都装在页面里，不连外网。它们要运行了才看得见（一张就有半 MB，没有存进这个文件），
# 旁边的静态图留着。句子只取前一句，好看清。**头视图**把一层里各个头叠在一起，一种颜色一个头：

# %%
show_attention(shipped, tokenizer, text, view="head")

# %% [markdown]
# **模型视图**把所有的层、所有的头铺开，点一格放大：

# %%
show_attention(shipped, tokenizer, text, view="model")

# %% [markdown]
# **神经元视图**拆开一个头：查询 $q$、键 $k$ 逐维相乘，看哪几维让分数变大。[[self_attention]] 的步进图讲的就是这件事。

# %%
show_attention(shipped, tokenizer, text, view="neuron")

# %% [markdown]
# 图很好看，可是一句话、一个头，说明不了什么：人总能在一张图里看出点意思来。下面把「看出来的意思」写成定义，到留出集上去数。
#
# ## 3 给头打分：角色
#
# 一个**角色**，就是给每个查询位置 $i$ 规定一个目标集 $S(i)$。头 $h$ 的权重是 $a^{h}_{ij}$，它在这个角色上的得分，
# 是分给目标集的权重，在 $S(i)$ 不空的位置 $I$ 上取平均；基线是同样这些位置上均匀地看，$n_i$ 是 $i$ 看得见的位置数：
#
# $$s_h=\frac1{|I|}\sum_{i\in I}\sum_{j\in S(i)}a^{h}_{ij},\qquad b=\frac1{|I|}\sum_{i\in I}\frac{|S(i)|}{n_i}$$
#
# | 角色 | 目标集 $S(i)$ |
# |---|---|
# | 前一个字、后一个字 | $i-1$；$i+1$ |
# | 导语里的同一事实 | $i$ 是正文里某事实的第 $k$ 个字，目标是导语里同一事实的第 $k$ 个字 |
# | 别处的同一个字 | 与 $i$ 相同的字，不含自己 |
# | 抄写（归纳） | 「与 $i$ 相同的字上一次出现」的后一个位置 |
# | 标点 | 全部标点，不含自己 |
# | [CLS]、[SEP] | 特殊词元。许多模型拿它们当「没什么可看」的去处（sink） |
#
# 查询只取字，不取特殊词元。先用循环把「前一个字」算一遍：

# %%
from utils.analysis import get_attentions

doc = corpus["validation"][0]
weights = get_attentions(shipped, tokenizer, doc["intro"], doc["body"]).weights             # (L, H, T, T)
special = {0, len(doc["intro"]) + 1, weights.size(-1) - 1}                                  # [CLS]、两个 [SEP]
queries = [i for i in range(weights.size(-1)) if i not in special]
by_hand = sum(weights[:, :, i, i - 1] for i in queries) / len(queries)                      # (L, H)
print(f"均匀地看是 {1 / weights.size(-1):.4f}，得分最高的头是 {by_hand.max():.4f}")

# %% [markdown]
# 其余的角色收在 `utils.analysis.roles` 里，成批地算。先核对，再用：

# %%
from utils.analysis import ROLES, role_figure, score_roles

one = score_roles(shipped, tokenizer, [doc])
torch.testing.assert_close(one.scores[list(ROLES).index("previous")], by_hand, atol=1e-5, rtol=1e-4)

# %% [markdown]
# 四个模型，同样的留出文档，各打一遍分：

# %%
held_docs = corpus["validation"].select(range(N_DOCS))
scores = {name: score_roles(model, tokenizer, held_docs) for name, model in models.items()}
for name in ("纯随机的", "附带的"):
    role_figure(scores[name], name)

# %% [markdown]
# 每张小图是一个角色，行是层，列是头；数字是分给目标的权重（%），颜色是高出基线的份额 $(s-b)/(1-b)$：
# 白色是和均匀地看一样，最深的是只看目标。标点多，均匀地看也有一成，所以必须看颜色，不能只看数字。
#
# 把四个模型放在一起：每个角色只取得分最高的头。「±」是 95% 区间的半宽，按文档算，因为同一篇里的字不独立。

# %%
print(f"{'角色':　<12}{'均匀':>6}  " + "".join(f"{name:　>9}" for name in models))
for r, role in enumerate(ROLES):
    cells = []
    for s in scores.values():
        layer, head = s.best(role)[0]
        cells.append(f"{s.scores[r, layer, head]:7.1%}±{1.96 * s.error[r, layer, head]:.1%}")
    print(f"{ROLES[role]:　<12}{scores['附带的'].baseline[r]:6.1%}  " + "  ".join(cells))

# %% [markdown]
# 怎么读这张表？横着看一行：
#
# - 「纯随机的」是真正的起跑线。它也不是正好等于均匀，取最高的头本来就会偏高一点。
# - 「摆好头的」高、「附带的」也高：这一项是摆好的起点，训练把它留下或磨利了，不能算训练「发现」的。
# - 「摆好头的」低、「附带的」高：这一项是训练学出来的。
#
# 让代码按这个规矩下判断。「担任」一个角色，规定为高出基线的份额超过 0.1；起点的份额超过 0.03，就算「摆好的」：

# %%
start_scores, end_scores = scores["摆好头的"].excess, scores["附带的"].excess                # (R, L, H)
for r, role in enumerate(ROLES):
    before, after = start_scores[r].max(), end_scores[r].max()
    verdict = ("没有头担任" if after < 0.1 else "训练学出来的" if before < 0.03 else
               "摆好的起点，还在" if abs(after - before) < 0.05 else
               "摆好的起点，训练磨利了" if after > before else "摆好的起点，训练后淡了")
    print(f"{ROLES[role]:　<12}{before:6.2f} → {after:5.2f}：{verdict}")
    lesson.record(f"最高的头高出基线的份额：{ROLES[role]}", after)

# %% [markdown]
# 「抄写（归纳）」的定义是从左往右写的模型的抄法：同一个字上次出现时，**后面**跟着什么。填空的模型两边都看得见，
# 用不着这样绕，它可以直接找「左右邻居相同」的那一处，也就是「别处的同一个字」「导语里的同一事实」。
# 同样是抄，角色的定义要跟着任务走；第 6 节再到解码器上量一次。

# %%
assert scores["纯随机的"].excess.max() < 0.2, "纯随机的模型不该有角色"
assert end_scores[0].max() > 0.1 or end_scores[1].max() > 0.1, "练好的模型里没有看邻居的头"

# %% [markdown]
# ## 4 关掉一个头，值多少损失？
#
# 看得多，不等于用得多。要知道模型靠不靠一个头，就把它**关掉**（Michel 等，2019）。各头的输出拼在一起，再乘 $W^O$；
# 关掉头 $h$，就是把拼好的向量里属于它的那一段换成 0。手工的做法，是把 $W^O$ 里对应的几列清零：

# %%
import copy

layer, head = scores["附带的"].best("previous")[0]
size = shipped.config.hidden_size // shipped.config.num_attention_heads                     # 每头的维数
cut = copy.deepcopy(shipped)
cut.bert.encoder.layer[layer].attention.output.dense.weight.data[:, head * size: (head + 1) * size] = 0

# %% [markdown]
# `without_heads` 用钩子（hook）在前向的时候换，不动权重，出了 `with` 就恢复。两者应当一样：

# %%
from utils.analysis import ablation_cost, head_means, random_heads_like, without_heads

inputs = tokenizer(text, pair, return_tensors="pt").to(device)
with torch.no_grad(), without_heads(shipped, [(layer, head)]):
    torch.testing.assert_close(shipped(**inputs).logits, cut(**inputs).logits, atol=1e-4, rtol=1e-4)
print(f"关掉层 {layer} · 头 {head}：两种做法的输出相等")

# %% [markdown]
# 换成 0 有一个毛病：后面的层从没见过「这里是 0」，损失变大，也可能只是被吓着了。所以另有一种关法：换成这个头的**平均输出**，
# 只抹去它随句子而变的那部分信息。两种都做。
#
# 对照也少不了：关掉任何头都有损失，要和**同样的层里随机挑的、同样多的头**比。每个种子换一份遮盖、换一组随机的头，误差线就从这里来。

# %%
from utils.training import evaluate, fixed_batches

K = max(1, shipped.config.num_attention_heads // 3)
holders = {role: [h for h in scores["附带的"].best(role, K) if end_scores[r][h] > 0.1] for r, role in enumerate(ROLES)}
rows = encode_docs(held_docs, tokenizer, shipped.config.max_position_embeddings)
papers = [fixed_batches(rows, mlm_collator(tokenizer, seed=seed), N_DOCS) for seed in range(N_SEEDS)]
whole = [evaluate(shipped, paper, shift=False)[0] for paper in papers]
for role, heads in holders.items():
    print(f"{ROLES[role]:　<12}", "、".join(f"层 {a} · 头 {b}" for a, b in heads) or "没有头担任，不关")

# %% [markdown]
# 一个头可以兼任几个角色（看「同一个字」的多半也看「同一事实」），那几行量的就是同一个头，不要当成几份证据。
# 随机的对照里也可能抽到别的要紧的头（关「看左邻」的，对照恰好抽到「看右邻」的），误差线就会很长：这不是毛病，是实情。

# %%
H, means = shipped.config.num_attention_heads, head_means(shipped, papers[0])
costs = {}                                                                # (角色，关法) -> 各种子的损失增量
for role, heads in holders.items():
    if not heads:
        continue
    generator = torch.Generator().manual_seed(lesson.seed)
    others = [random_heads_like(heads, H, generator) for _ in range(N_SEEDS)]
    for way, chosen, put in (("换成 0", [heads] * N_SEEDS, None), ("换成平均", [heads] * N_SEEDS, means),
                             ("随机的头换成 0", others, None)):
        costs[role, way] = [ablation_cost(shipped, paper, picked, means=put, full=full)
                            for paper, picked, full in zip(papers, chosen, whole)]

# %% [markdown]
# 柱高是各种子的平均，误差线是平均的 95% 区间，按 t 分布算：种子只有几个，倍数比常用的 1.96 大。

# %%
import matplotlib.pyplot as plt
from utils.analysis import mean_interval

done = [role for role in holders if holders[role]]
fig, ax = plt.subplots(figsize=(8, 3.4))
for n, way in enumerate(("换成 0", "换成平均", "随机的头换成 0")):
    bars = [mean_interval(costs[role, way]) for role in done]
    ax.bar([x + 0.27 * (n - 1) for x in range(len(done))], [b[0] for b in bars], 0.25,
           yerr=[b[1] for b in bars], capsize=3, label=way)
ax.set_xticks(range(len(done)), [f"{ROLES[role]}\n（{len(holders[role])} 个头）" for role in done], fontsize=9)
ax.set(title="关掉担任这个角色的头，填空的损失高出多少", ylabel="奈特/目标词元")
_ = ax.legend(frameon=False)

# %% [markdown]
# 柱子高低只是一眼，判断要看**成对的差**：同一个种子里，关角色头比关随机头多损失多少。

# %%
for role in done:
    pairs = zip(costs[role, "换成 0"], costs[role, "随机的头换成 0"])
    gap, half = mean_interval([a - b for a, b in pairs])
    verdict = "比随机的头要紧" if gap > half else "还不如随机的头要紧" if gap < -half else "与随机的头分不出高下"
    verdict += "（差别不到损失的 1%，可以不计）" if abs(gap) > half and abs(gap) < 0.01 * sum(whole) / N_SEEDS else ""
    print(f"{ROLES[role]:　<12}差 {gap:+.3f} ± {half:.3f} 奈特：{verdict}")
    lesson.record(f"关掉担任「{ROLES[role]}」的头，损失高出", mean_interval(costs[role, "换成 0"])[0], "奈特/目标词元")

# %% [markdown]
# 「看得专」和「用得多」是一回事吗？把每个头都单独关一次，横轴是它最专的那个角色高出基线的份额，纵轴是关掉它的代价：

# %%
from utils.analysis import spearman

sharp = end_scores.max(0).values.flatten()                                # (L·H,)
price = torch.tensor([ablation_cost(shipped, papers[0], [divmod(n, H)], full=whole[0]) for n in range(len(sharp))])
fig, ax = plt.subplots(figsize=(6, 3.4))
ax.scatter(sharp, price, s=26)
for n in price.topk(3).indices.tolist():
    right = sharp[n] > 0.5                                                # 靠右的点，字写在左边
    ax.annotate(f"层 {n // H} · 头 {n % H}", (sharp[n], price[n]), fontsize=9, xytext=(-8 if right else 8, 0),
                textcoords="offset points", ha="right" if right else "left", va="center")
ax.set(title="一点一个头", xlabel="最专的角色，高出基线的份额", ylabel="关掉它的代价（奈特/目标词元）")
idle = int(((sharp > 0.5) & (price < price.median())).sum())
lesson.record("看得专与用得多的等级相关", spearman(sharp, price))
print(f"看得很专（份额 > 0.5），代价却低于中位数的头：{idle} 个")

# %% [markdown]
# 相关若离 1 很远，就说明一个头看得再专，模型也未必靠它。反过来，关掉一个头损失没变，也不等于它没用：
# 别的头可能顶上了它的活。消融量的是「别的都不变时，少了它差多少」，仅此而已。
#
# ## 5 最小对立对：汉语的搭配，它懂吗？
#
# 两句话只差一处，一句对，一句不对：「一条鱼」和「一本鱼」。考法是看模型给哪句的分数高。填空的模型没有整句的概率，
# 就用**伪对数似然**（pseudo-log-likelihood，Salazar 等，2020）：每次盖住一个字，再加起来：
#
# $$\mathrm{PLL}(x)=\sum_{i}\log p_\theta(x_i\mid x_{\setminus i})$$
#
# 四类题：量词与名词，他、她、它的所指，书名号与引号，对举与关联。模型只读过模板写的新闻，有的字它没见过，含生字的题只能去掉。

# %%
from utils.analysis import accuracy, frequency_margins, known_pairs, load_pairs, margins

everything = load_pairs()
pairs, dropped = known_pairs(everything, tokenizer)
print(f"{len(everything)} 对，去掉 {len(dropped)} 对，生字：{'、'.join(dict.fromkeys(c for _, s in dropped for c in s)) or '无'}")
kinds = list(dict.fromkeys(p.kind for p in pairs))
for kind in kinds:
    mine = [p for p in pairs if p.kind == kind]
    print(f"{kind}（{len(mine)} 对）：{mine[0].good} ／ {mine[0].bad}")

# %% [markdown]
# 参照有两条：瞎猜是 50%；只看字频（哪个字常见选哪个）也接近 50%，因为出题的时候把两个字对换了，「条」和「本」各对一次、错一次。

# %%
from collections import Counter

counts = Counter("".join(corpus["train"]["intro"][:]) + "".join(corpus["train"]["body"][:]))
results = {name: margins(model, tokenizer, pairs) for name, model in models.items()}
results["只看字频"] = frequency_margins(pairs, counts)
print("参加考试的：", "、".join(results))

# %% [markdown]
# 大家做的是同一张卷子，分数才可比。误差线是 95% 的威尔逊区间，题少，区间就宽：

# %%
fig, ax = plt.subplots(figsize=(8, 3.6))
for n, (name, values) in enumerate(results.items()):
    rows = [accuracy(values[[p.kind == kind for p in pairs]]) for kind in kinds]
    y = [m + 0.15 * (n - 2) for m in range(len(kinds))]
    ax.errorbar([p for p, _, _ in rows], y, xerr=[[max(0, p - a) for p, a, _ in rows], [max(0, b - p) for p, _, b in rows]],
                fmt="o", capsize=3, label=name)
ax.axvline(0.5, color="#555555", linestyle=":")
ax.set_yticks(range(len(kinds)), kinds)
ax.set(title="最小对立对：选对的比例", xlabel="正确率（虚线是瞎猜）", xlim=(0, 1))
_ = ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# 区间盖住 50% 的，不能说它会，也不能说它不会，只能说**这些题分不出来**。让代码逐条说附带的模型：

# %%
for kind in kinds:
    p, low, high = accuracy(results["附带的"][[q.kind == kind for q in pairs]])
    verdict = "高于瞎猜" if low > 0.5 else "低于瞎猜" if high < 0.5 else "与瞎猜分不开"
    print(f"{kind}：{p:.0%}（{low:.0%} 到 {high:.0%}），{verdict}")
    lesson.record(f"最小对立对的正确率：{kind}", p)
worst = results["附带的"].argsort()[:3].tolist()
print("错得最离谱的：", "；".join(f"{pairs[n].bad}（{results['附带的'][n]:.1f} 奈特）" for n in worst if results["附带的"][n] < 0))

# %% [markdown]
# 看看附带的模型错的那几句，想想是不是训练的语料里从没讲过这种事：只读新闻模板的模型，不该拿它代表「语言模型懂不懂汉语」。
#
# 再考头，还是附带的模型：关键处的字（「条」）有没有多看一眼它的搭配（「鱼」）？这里有两个坑。**一是挑头**：头多了，总有一个碰巧高。
# 所以用一半的题挑头，在另一半上量。**二是位置**：「鱼」就在「条」的右边，看右邻的头当然给它高分，跟搭配对不对毫无关系。
# 所以再读一遍错的那句「一本鱼」：位置完全相同，权重若也相同，它看的就是位置，不是搭配。

# %%
from utils.analysis import held_out_head, partner_attention

for kind in kinds:
    mine = [p for p in pairs if p.kind == kind]
    good, bad, uniform = partner_attention(shipped, tokenizer, mine)                        # (P, L, H) × 2, (P,)
    over, half = mean_interval(held_out_head(good, uniform)[0].tolist())
    change, spread = mean_interval(held_out_head(good - bad, uniform * 0)[0].tolist())
    print(f"{kind}：比均匀多看 {over:+.2f} ± {half:.2f}（{'高于均匀' if over > half else '低于均匀' if over < -half else '分不开'}）；"
          f"对的比错的多看 {change:+.3f} ± {spread:.3f}（{'看的是字' if change > spread else '分不开，可能只是位置'}）")

# %% [markdown]
# 前一个数大、后一个数分不开，就是上面说的第二个坑：只和均匀比，会把「看右邻」当成「懂搭配」。
#
# ## 6 写正文的时候，它回头看导语吗？
#
# 换上课程附带的因果解码器（[[clm_finetuning]] 讲它怎样来的）：读导语，写正文。写「事实」里的字（人名、数字、地名）时，
# 模型该回头看导语里的同一件事实。
# 注意「写第 $m$ 个字」的那个位置，是它**左边一格**：字还没写出来，是左边那一格在预测它。

# %%
from transformers import BertLMHeadModel
from utils.generation import generate

clm, _, source = load_checkpoint("clm", BertLMHeadModel, preset=preset, prefer="shipped", is_decoder=True)
clm.to(device)
intros = held_docs["intro"][:]
bodies = generate(clm, tokenizer, intros)
print(f"{source}\n导语：{intros[0]}\n正文：{bodies[0]}")

# %% [markdown]
# 解码器看不见右边，所以写完以后整段读一遍，得到的权重就是逐字写的时候的权重。对每件事实 $f$，目标都是导语里 $f$ 的字，比三种情况：
# 写 $f$ 的字时、写别的正文字时、均匀地看。目标相同，才不会把「那里本来就招人看」算进去。

# %%
from utils.analysis import look_back

@torch.no_grad()
def looks(model):
    rows = [look_back(model, tokenizer, d["intro"], b, d["facts"]) for d, b in zip(held_docs, bodies) if b]
    return [row for row in rows if row.facts]

trained_looks = looks(clm)
mass = [row.mass() for row in trained_looks]
own, other = (torch.stack([m[key] for m in mass]) for key in ("own", "other"))              # (N, L, H)
uniform = torch.stack([m["uniform"] for m in mass])                                         # (N,)
print(f"{len(mass)} 篇里，正文用到了导语的事实")

# %% [markdown]
# 还是一半文档挑头，另一半上量。没练过的解码器读同样的文字，作对照：

# %%
torch.manual_seed(lesson.seed)
random_mass = [row.mass() for row in looks(BertLMHeadModel(clm.config).to(device).eval())]
half = len(mass) // 2
L0, H0 = divmod(int((own - other)[:half].nanmean(0).flatten().argmax()), own.size(2))
shown = {"写这件事实的字时": own[half:, L0, H0], "写别的字时": other[half:, L0, H0], "均匀地看": uniform[half:],
         "没练过的模型": torch.stack([m["own"] for m in random_mass])[half:, L0, H0]}
print(f"挑中层 {L0} · 头 {H0}：分给导语里那件事实的权重")
for name, values in shown.items():
    print(f"  {name:　<9}{mean_interval(values.tolist())[0]:.3f} ± {mean_interval(values.tolist())[1]:.3f}")

# %% [markdown]
# 差多少，可不可信，也按成对的差来说：

# %%
gap, half_width = mean_interval((shown["写这件事实的字时"] - shown["写别的字时"]).tolist())
print(f"成对的差 {gap:+.3f} ± {half_width:.3f}：{'写到事实时，它确实回头看' if gap > half_width else '分不出它在回头看'}")
lesson.record("写事实的字时，最好的头分给导语里那件事实的权重", mean_interval(shown["写这件事实的字时"].tolist())[0])
lesson.record("写别的字时，分给同样那些字的权重", mean_interval(shown["写别的字时"].tolist())[0])
assert gap > 0, "写到事实时反而看得更少：模型或定义有问题"

# %% [markdown]
# 画一篇出来：行是正文的字（正在写的那个），列是导语的字。挑最短的一篇，字才看得清。橙色的框，是写事实的字时该看的地方。

# %%
from utils.display import COLORS, heatmap, printable

row = min(trained_looks, key=lambda r: r.weights.size(2) + len(r.tokens))
M, N = row.weights.size(2), len(row.tokens) - row.weights.size(2) - 3                       # 正文、导语的字数
names = [printable(token) for token in row.tokens]
fig, ax = plt.subplots(figsize=(9, min(13, 1.5 + 0.17 * M)))
heatmap(row.weights[L0, H0, :, 1: N + 1], names[1: N + 1], names[N + 2: -1], f"写正文时回看导语：层 {L0} · 头 {H0}",
        ax=ax, xlabel="导语的字", ylabel="正在写的正文字", vmin=0, vmax=1)
ax.tick_params(labelsize=7)
for _, writing, columns in row.facts:
    for m in writing:
        for column in columns:
            ax.add_patch(plt.Rectangle((column - 1.5, m - 0.5), 1, 1, fill=False, edgecolor=COLORS[1], linewidth=0.8))
plt.show()

# %% [markdown]
# 框里的深色若成一条斜线，就是在一个字一个字地抄。
#
# ## 7 注意力不能说明什么
#
# 「权重大的字，就是模型作判断的原因」：这句话对吗？Jain 与 Wallace（2019）发现，换一套很不一样的权重，输出可以几乎不变，
# 于是说「注意力不是解释」；Wiegreffe 与 Pinter（2019）反驳说，那要看你要的是哪一种解释，题目叫「注意力并非不是解释」。
# 争论的办法只有一个：拿每种说法，去和**真的动手**比。
#
# 动手的办法是**遮挡**（occlusion）：把第 $j$ 个字换成 `[MASK]`，看答案 $y$ 的对数概率掉多少：
#
# $$\Delta_j=\log p(y\mid x)-\log p(y\mid x_{\setminus j})$$
#
# 拿去和它比的说法有四种：
#
# - **末层注意力**：最后一层，各头平均，答案所在的位置那一行。
# - **平均注意力**：各层各头全部平均。
# - **rollout**（Abnar 与 Zuidema，2020）：信息一层层往上传，把各层连乘，一半给残差：$R=\prod_{l}\big(\tfrac12 A_l+\tfrac12 I\big)$。
# - **梯度 × 输入**：$\big|\nabla_{e_j}\log p(y)\cdot e_j\big|$，$e_j$ 是第 $j$ 个字的词嵌入。它看的是输出，不只是注意力。
#
# rollout 只有两行，手写一遍，和课程的核对：

# %%
from utils.analysis import attribute, compare_attributions, fact_questions, rollout

flow = torch.eye(weights.size(-1))
for A in weights.mean(1):                                                 # (L, T, T)，各头平均
    flow = (0.5 * A + 0.5 * torch.eye(len(A))) @ flow                     # (T, T)
torch.testing.assert_close(flow, rollout(weights))

# %% [markdown]
# 题目：盖住正文里某件事实的一个字，那件事实导语里也写了。先看一道题，每种说法各自认为哪几个字最要紧（「导」是导语，「正」是正文）：

# %%
questions = fact_questions(corpus["validation"], tokenizer, shipped.config.max_position_embeddings, N_QUESTIONS)
q = questions[0]
edge = q.ids.tolist().index(tokenizer.sep_token_id)
tokens = tokenizer.convert_ids_to_tokens(q.ids.tolist())
print("".join(tokens[edge + 1: -1]).replace("[MASK]", "□"))
print(f"答案：{tokenizer.convert_ids_to_tokens(q.answer)}，在正文第 {q.position - edge} 个字")
for name, values in attribute(shipped, q, tokenizer.mask_token_id).items():
    top = q.others[values[q.others].topk(6).indices].tolist()
    print(f"{name:　<7}", "　".join(f"{tokens[j]}（{'导' if j < edge else '正'}{j if j < edge else j - edge}）" for j in top))

# %% [markdown]
# 一道题不算数。每道题算一个与遮挡的等级相关，再看许多道题的平均和区间。还有第二把尺子：把每种说法最看重的 5 个字**一起**遮住，
# 答案掉多少。掉得多，说明它真找到了要紧的字；随便遮 5 个，是对照。

# %%
table = compare_attributions(shipped, questions, tokenizer.mask_token_id)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for ax, key, title in zip(axes, ("相关", "掉了"), ("与遮挡的等级相关", "遮住它最看重的 5 个字")):
    for n, name in enumerate(table):
        mean, half = mean_interval(table[name][key])
        ax.scatter(table[name][key], [n] * len(questions), s=8, color=COLORS[4], alpha=0.7)
        ax.errorbar(mean, n, xerr=half, fmt="o", color=COLORS[1], capsize=3)
    ax.set(title=title, xlabel="等级相关（每点一道题）" if key == "相关" else "答案的对数概率掉多少（奈特）")
axes[0].set_yticks(range(len(table)), list(table))
_ = axes[0].axvline(0, color="#555555", linestyle=":")

# %% [markdown]
# 左图里「遮挡」自己是 1，那是定义；「随机」该在 0 附近。其余的谁高谁低，同一批题成对地比：

# %%
from utils.analysis import METHODS

for name in METHODS:
    mean, half = mean_interval(table[name]["相关"])
    gain, wide = mean_interval([a - b for a, b in zip(table[name]["掉了"], table["随机"]["掉了"])])
    print(f"{name:　<7}相关 {mean:+.2f} ± {half:.2f}（{'与随便猜分不开' if abs(mean) <= half else '弱' if abs(mean) < 0.5 else '强'}）；"
          f"比随便遮多掉 {gain:+.2f} ± {wide:.2f} 奈特（{'可信' if gain > wide else '分不开'}）")
    lesson.record(f"与遮挡的等级相关：{name}", mean)
assert abs(mean_interval(table["随机"]["相关"])[0]) < 0.2

# %% [markdown]
# 两把尺子可以不一致：等级相关把一百多个字从头排到尾，大多数字本来就没什么影响，排名多半是噪声；「遮住前几个」只问最要紧的找对了没有。
# 该信哪一把，看你要回答什么问题。
#
# 也别把遮挡当真理。换成 `[MASK]` 的句子，模型在训练里见过（它是填空练出来的），可是一次只遮一个，两处互为备份的字，
# 遮哪个都不掉。所以「遮一个」和「一起遮五个」的次序会不同。
#
# 注意力图能说的是：**信息从哪里可以流到哪里，这一步分了多少**。不能说的是：流过去的是什么（那是 $v$），后来用没用（后面还有许多层），
# 换一个输入还会不会这样。要说「因为」，就得动手改一改，再看结果变没变。
#
# ## 小结
#
# - 图用来提出猜想；定义、基线、留出集，用来检验猜想。
# - 角色得分要和均匀地看比，也要和没练过的模型比；摆好的起点不能算训练的发现。
# - 看得专不等于用得多：关掉头，和同层随机的头成对地比，才知道模型靠不靠它。
# - 十几道题的区间很宽，盖住 50% 就不下结论；挑头和量头要用不同的题；位置的功劳不能算给搭配。
# - 注意力是信息的一段路，不是原因；说「因为」之前，先遮一遍。
#
# **下一本**：[[clm_finetuning]]，把这个会填空的模型改成会写正文的。
#
# ## 练习
#
# 每道题下面有一格留了空（`...`），写上你的答案，运行它，再运行紧跟着的 `check`：它用新抽的输入考你，
# 不对的话会告诉你错在哪里。做过的题记在 `outputs/progress.jsonl`，只在你的机器上，可以删。

# %%
from utils.checks import attention_visualization as check

# %% [markdown] tags=["exercise"]
# **练习 1 · 前一个字**（★，5 分钟）第 3 节用循环算过。不用循环再写一遍：`queries` 是参加打分的位置（都大于 0），
# 返回每个头分给「前一个字」的权重，在这些位置上取平均。

# %% tags=["stub"]
def previous_score(weights, queries):                                     # (L, H, T, T)，编号的列表
    ...                                                                   # ← 换成你的代码，返回 (L, H)

# %% tags=["check"]
check.previous_score(previous_score)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def previous_score(weights, queries):
#     i = torch.tensor(queries)
#     return weights[:, :, i, i - 1].mean(-1)                             # 行是在看的，列是被看的
# ```
#
# 两个下标张量一一配对，取出来的是 (L, H, 查询数)。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 2 · 均匀地看是多少**（★★，8 分钟）写出第 3 节的基线 $b$：`goal[i, j]` 为真表示 j 在 $S(i)$ 里，
# `visible[i, j]` 为真表示 i 看得见 j（因果的模型只看得见左边）。只在 $S(i)$ 不空的位置上平均。

# %% tags=["stub"]
def uniform_baseline(goal, visible):                                      # 布尔 (T, T)
    ...                                                                   # ← 换成你的代码，返回一个标量

# %% tags=["check"]
check.uniform_baseline(uniform_baseline)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def uniform_baseline(goal, visible):
#     at = goal.any(-1)                                                   # (T,)
#     return (goal.sum(-1) / visible.sum(-1))[at].mean()
# ```
#
# 得分在哪些位置上平均，基线就在同样的位置上平均，两者才可比。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 3 · 加一个角色**（★★，10 分钟）定义「同一个词里的另一个字」：`words` 是每个位置属于第几个词，特殊词元是 −1。
# 返回目标集的布尔矩阵。通过以后，对附带的模型打分，不要忘了基线。

# %% tags=["stub"]
def same_word(words):                                                     # (T,)，整数
    ...                                                                   # ← 换成你的代码，返回布尔 (T, T)

# %% tags=["check"]
check.same_word(same_word)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def same_word(words):
#     same = words[:, None] == words[None, :]                             # (T, T)
#     return same & ~torch.eye(len(words), dtype=torch.bool) & (words >= 0)
# ```
#
# 打分：
#
# ```python
# from utils.training import word_index
# first = word_index(doc["intro"])
# words = torch.tensor([-1, *first, -1, *(first[-1] + 1 + w for w in word_index(doc["body"])), -1])    # (T,)
# goal = same_word(words)
# at = goal.any(-1)
# print((weights * goal).sum(-1)[:, :, at].mean(-1), uniform_baseline(goal, torch.ones_like(goal)))
# ```
#
# 词里的另一个字多半就是左邻或右邻，所以看邻居的头在这个角色上也会得高分。想分开两者，
# 只取词首字的左邻（不同词）作对照：看邻居的头两边一样高，真认词的头只在词内高。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 4 · 挑头不作弊**（★★，8 分钟）`scores` 是每篇文档上每个头的得分 (N, 头数)。用前一半文档挑平均得分最高的头，
# 返回它在后一半文档上的平均得分。（N 是偶数。）

# %% tags=["stub"]
def held_out_score(scores):                                               # (N, 头数)
    ...                                                                   # ← 换成你的代码，返回一个标量

# %% tags=["check"]
check.held_out_score(held_out_score)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def held_out_score(scores):
#     half = len(scores) // 2
#     head = scores[:half].mean(0).argmax()
#     return scores[half:, head].mean()
# ```
#
# 拿一张随机数的表试试：在同一半上挑又量，最高的头总是「高于平均」；换一半来量，优势就没有了。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 5 · 成对地比**（★★，8 分钟）`a`、`b` 是同样几个种子下两种做法的损失（等长的列表）。返回 `(差的平均, 它的标准误)`，
# 差是 a 减 b，标准误是标准差（除以 n − 1 的那种）除以 $\sqrt{n}$。

# %% tags=["stub"]
def paired_gap(a, b):
    ...                                                                   # ← 换成你的代码，返回两个数

# %% tags=["check"]
check.paired_gap(paired_gap)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# def paired_gap(a, b):
#     d = torch.tensor(a) - torch.tensor(b)                               # (n,)
#     return d.mean(), d.std() / len(d) ** 0.5
# ```
#
# 先相减，每个种子自己的难易就抵消了，剩下的才是两种做法的差别。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 6 · 找错**（★★，5 分钟）「我看了 24 个头，挑出得分最高的，它比均匀高出两倍，所以模型学会了指代。」哪两处不对？（选两个字母）
#
# - A　用同一批题挑头又量头，最大值天然偏高。
# - B　24 个头太少了，要多看一些才挑得准。
# - C　只和均匀比，没有排除「总看固定距离」的可能。
# - D　注意力的权重毫无意义，根本不该看。

# %% tags=["stub"]
my_faults = ...                               # ← 换成两个字母，例如 "BD"

# %% tags=["check"]
check.best_of_many(my_faults)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_faults = "AC"
# ```
#
# 其一，应当换一批题去量（`held_out_head`）。其二，先行词若总在前面固定的距离，看那个距离的头也会得高分；
# 要读一遍换了字的句子，看权重变不变。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 7 · 两种关法**（★★，5 分钟）第 4 节里，若有一个头，「换成 0」的代价很大，「换成平均」却几乎不要代价，说明什么？
#
# - A　这个头没有用，关掉也无妨。
# - B　它的输出有一大块固定的成分，后面的层拿它当底子；随句子而变的那部分不值多少。
# - C　值钱的是随句子而变的那部分。
# - D　两种关法本该一样，是计算误差。

# %% tags=["stub"]
my_choice = ...                               # ← 换成 "A"、"B"、"C"、"D" 之一

# %% tags=["check"]
check.two_ways(my_choice)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_choice = "B"
# ```
#
# 「换成平均」保住了固定的成分，只抹去随句子而变的信息。想看哪些角色是这样，把 `costs[role, "换成 0"]` 和
# `costs[role, "换成平均"]` 成对相减，用 `mean_interval` 看区间。两者一样贵，说明值钱的就是随句子而变的那部分。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 8 · 一起关掉**（★★★，20 分钟）两个头各自关掉，代价是 $c_1$、$c_2$；一起关掉，代价是 $c_{12}$。
# 若 $c_{12}-(c_1+c_2)$ 明显是正的，说明什么？先答，再对担任同一角色的两个头量一量。
#
# - A　两个头互为备份：少一个，另一个顶上；两个都没了才疼。
# - B　两个头是一条链上的两环：断了一环，另一环也白做。
# - C　两个头互不相干。
# - D　两个头都没有用。

# %% tags=["stub"]
my_reading = ...                              # ← 换成 "A"、"B"、"C"、"D" 之一

# %% tags=["check"]
check.backup(my_reading)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_reading = "A"
# ```
#
# 量一量：
#
# ```python
# a, b = scores["附带的"].best("same", 2)
# for paper, full in zip(papers, whole):
#     c1, c2, c12 = (ablation_cost(shipped, paper, heads, full=full) for heads in ([a], [b], [a, b]))
#     print(c12 - c1 - c2)
# ```
#
# 正的：互为备份，只做单个消融就会低估它们。负的：一条链上的两环，断了一环，另一环也白做，损失不会再翻倍。
#
# </details>

# %% [markdown] tags=["exercise"]
# **练习 9 · 一共几个权重**（★，3 分钟）一个 4 层、每层 6 个头的编码器，读一句 20 个词元的话，一共算出几个注意力权重？
# 先猜一个数填上，再想想第 1 节取出来的那一摞矩阵是什么形状。

# %% tags=["stub"]
my_weights = ...                              # ← 换成一个整数

# %% tags=["check"]
check.count_weights(my_weights)

# %% [markdown] tags=["answer"]
# <details><summary>参考答案</summary>
#
# ```python
# my_weights = 4 * 6 * 20 * 20
# ```
#
# 每层每头一个 20 × 20 的矩阵。句子长一倍，数目就是四倍，所以图上的词元要有个上限。
#
# </details>

# %% [markdown]
# **想一想 · 换一句话**（★，5 分钟）把第 2 节的 `pair` 改成不再提「青禾市」的句子。原来那条离开对角线的短斜线还在吗？先猜，再看。
#
# <details><summary>参考答案</summary>
#
# 它的目标没有了，权重却总要加起来等于 1，所以这个头必须看点别的：常常是标点或 `[SEP]`。
# 一个头「现在在看什么」不等于「它是干什么的」；找不到目标时，它看的地方往往没有意义。
#
# </details>
#
# ## 延伸阅读
#
# - Vig（2019）A Multiscale Visualization of Attention in the Transformer Model.
# - Clark, Khandelwal, Levy, Manning（2019）What Does BERT Look At? An Analysis of BERT's Attention.
# - Voita, Talbot, Moiseev, Sennrich, Titov（2019）Analyzing Multi-Head Self-Attention: Specialized Heads Do the
#   Heavy Lifting, the Rest Can Be Pruned.
# - Michel, Levy, Neubig（2019）Are Sixteen Heads Really Better than One?
# - Olsson, Elhage, Nanda 等（2022）In-context Learning and Induction Heads.
# - Jain, Wallace（2019）Attention is not Explanation；Wiegreffe, Pinter（2019）Attention is not not Explanation.
# - Abnar, Zuidema（2020）Quantifying Attention Flow in Transformers.
# - Salazar, Liang, Nguyen, Kirchhoff（2020）Masked Language Model Scoring.
# - Xiang, Yang, Li, Warstadt, Kann（2021）CLiMP: A Benchmark for Chinese Language Model Evaluation.
