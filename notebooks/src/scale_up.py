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
# # 走向真实
#
# **这一本只回答一个问题：怎样走向真数据、大模型、多卡？**
#
# 前面十本用的是虚构的语料、几百万个参数、一个进程。换成真的，要改多少代码？答案是：几乎不改。
# 难的不是代码，是三件事要先想清楚：数据脏不脏，机器装不装得下、要练多久，多花的钱能换来多少。这三件都算得出来。
#
# **学习目标**
#
# 1. 把自己的文件（或 hub 上的数据集）接进同样的函数，读懂清洗报告，十行代码练出自己领域的模型。
# 2. 用公式估出任何一个模型要多少参数、内存、时间，再量一量，知道公式在哪里不准。
# 3. 说清数据并行（DDP）与参数分片（FSDP）的差别；亲手杀掉一个进程，看训练接着练下去。
# 4. 拟合一条规模定律，拿它预测一个更大的模型，并用附带的模型核对。
# 5. 把 hub 上的公开模型接进同样的函数，用公平的单位比较。
#
# **先修**：[[tokenization]]（每字比特数）、[[mlm_pretraining]]（训练）、[[clm_finetuning]]（下限）。
#
# **用时**：两核 CPU 约 1 分半，整本在 GPU 上尚未实测。要联网的格子默认跳过。

# %%
import sys; sys.path.insert(0, "..")          # 让 notebook 找到上一级的 utils
from utils.environment import start
lesson = start("scale_up")                 # 换预设：start("scale_up", preset="smoke")

# %% [markdown]
# ## 1 真数据
#
# ### 1.1 一份脏文件
#
# 真实的文件是什么样？我们照着造一份：拿课程的手写文章，掺进从网上抓文字时最常见的几种毛病，
# 存成一个 GB18030 编码的 CSV（中文 Windows 上的表格软件导出的常是它）。

# %%
import csv
import random
from utils.corpus import load_corpus

rng = random.Random(lesson.seed)
articles = [row for part in load_corpus("articles").values() for row in part]
rows = [(a["title"], a["intro"] + "\n" + a["body"]) for a in articles]
rows += rng.sample(rows, 12)                                                        # 原样转载
rows += [(t, x.replace("的", "地", 2) + "（本站转发）") for t, x in rng.sample(rows, 24)]             # 改几个字的转载
rows += [(t, x.translate(str.maketrans("0123456789", "０１２３４５６７８９"))) for t, x in rng.sample(rows, 6)]   # 全角的数字
rows += [(t, "\u200b".join(x[i:i + 9] for i in range(0, len(x), 9))) for t, x in rng.sample(rows, 6)]       # 看不见的字符
rows += [("点击查看", "更多精彩"), ("Notice", "This page has moved. " * 8), ("空的", "")] * 3
path = lesson.outputs / "dirty.csv"
path.parent.mkdir(parents=True, exist_ok=True)
with open(path, "w", encoding="gb18030", newline="") as f:
    csv.writer(f).writerows([("标题", "内容"), *rows, ("只有一格",)])

# %% [markdown]
# ### 1.2 同样的函数
#
# 前面一直写的是 `load_corpus("bundled")`。换数据只换这一个参数；列名对不上，用 `columns=` 说明。最后那一行故意少了一格，
# 默认会停下来告诉你是第几行；`on_error="skip"` 则跳过并记账。

# %%
try:
    load_corpus(f"files:{path}", columns={"title": "标题", "text": "内容"})
except ValueError as error:
    print("停下：", error)
corpus = load_corpus(f"files:{path}", columns={"title": "标题", "text": "内容"}, on_error="skip")

# %% [markdown]
# 编码是自动认的，认出的是哪一种也说了。训练、验证、测试三部分按内容的哈希来分，所以**一字不差的转载一定在同一部分**，
# 不会一篇拿来练、一篇拿来考。可是改了几个字的转载，哈希就不同了。这样的泄题有多少？

# %%
from utils.sources import near_duplicates

def leaked(corpus):
    learn, exam = ([row["intro"] + row["body"] for row in corpus[part]] for part in ("train", "test"))
    both = near_duplicates([*learn, *exam], threshold=0.7)
    return sum(i >= len(learn) and first < len(learn) for i, first in both.items()), len(exam)

found, of = leaked(corpus)
print(f"测试集 {of} 篇，其中 {found} 篇在训练集里有一篇几乎相同的")

# %% [markdown]
# ### 1.3 清洗报告
#
# 清洗是一串小步骤，一步只做一件事，并且记账：改写了几篇、删去几篇、少了几个字，还各举几个例子。
# **没有账的清洗不可信**：一个写错的步骤可以悄悄删掉一半的数据。

# %%
from datasets import concatenate_datasets
from utils.sources import clean

everything = concatenate_datasets([corpus[part] for part in ("train", "validation", "test")])
tidy, report = clean(everything)
print(report)
assert report.docs_out < report.docs_in and {"exact_duplicates", "near_duplicates"} <= {s.name for s in report.steps}

# %% [markdown]
# 看账要看三处：哪一步删得最多（是该删的吗），例子对不对，少了的字和删的篇数配不配。
# 清洗之后再分三部分，泄题就没有了：

# %%
from utils.sources import split_documents

clean_corpus = split_documents([{k: row[k] for k in corpus["train"].column_names} for row in tidy], lesson.seed)
found, of = leaked(clean_corpus)
print(f"清洗以后：测试集 {of} 篇，其中 {found} 篇在训练集里有一篇几乎相同的")
lesson.record("清洗后留下的篇数", report.docs_out, f"篇，原来 {report.docs_in} 篇")
assert found == 0

# %% [markdown]
# ### 1.4 十行，你自己的领域
#
# 下面这一格就是全部：读文件、清洗、切词元、建模型、训练、量成绩。把 `path` 换成你的文件，它就是你的领域。
# 真文章只有一百来篇，练几十步学不到多少，这里看的是整条路走不走得通：损失应当降到均匀猜测以下。

# %%
from dataclasses import replace
from transformers import BertForMaskedLM
from utils.tokenization import build_tokenizer, name_unknown
from utils.training import bert_config, encode_docs, evaluate, fixed_batches, mlm_collator, train, training_arguments

preset, device = lesson.preset, lesson.device
steps = 12 if preset.name == "smoke" else 80
docs, _ = clean(load_corpus(f"files:{path}", columns={"title": "标题", "text": "内容"}, on_error="skip")["train"])
docs = docs.filter(lambda row: row["body"] and len(row["intro"] + row["body"]) <= 450)
tokenizer = build_tokenizer("char", docs["intro"][:] + docs["body"][:], model_max_length=512)
model = BertForMaskedLM(bert_config(preset, tokenizer, max_position_embeddings=512)).to(device)
rows = encode_docs(docs, tokenizer, 512)
held = fixed_batches(rows.select(range(8)), mlm_collator(tokenizer, seed=0), 8)
args = training_arguments(lesson.outputs / "trainer", steps, replace(preset, batch_size=4), device, lesson.seed)
history = train(model, rows.select(range(8, len(rows))), mlm_collator(tokenizer, 0.3), args,
                lambda m: evaluate(m, held, shift=False), evaluations=2)

# %% [markdown]
# 量一量。再用同样的函数走命令行也行：`python -m utils.train mlm --data files:我的文件.csv --out outputs/mine`。

# %%
import math

print(f"留出集损失 {history.eval_loss[0]:.2f} → {history.eval_loss[-1]:.2f}，均匀猜测是 {math.log(len(tokenizer)):.2f}（奈特/目标词元）")
assert history.eval_loss[-1] < math.log(len(tokenizer))

# %% [markdown]
# ### 1.5 hub 上的数据集（要联网，默认跳过）
#
# 写上数据集的名字就能读。`streaming=True` 边下边读，只取要用的前面一段；列名用 `columns=` 对应。连不上时换镜像：
# 在启动 JupyterLab **之前**设环境变量 `HF_ENDPOINT`。用之前请先在它的网页上看清许可。

# %%
import os

DATASET = os.environ.get("COURSE_HUB_DATASET")          # ← 也可以直接写上 "用户名/数据集名"
if DATASET is None:
    print("没有写数据集的名字，跳过。")
else:
    from_hub = load_corpus(f"hub:{DATASET}", n_docs=200, streaming=True, on_error="skip")
    print(clean(from_hub["train"])[1])

# %% [markdown]
# ## 2 真大小
#
# ### 2.1 参数：数得出来
#
# 这一本里 $D$ 是模型的宽度（前面写作 $C$），$C$ 让给计算量。
# 一层 Transformer 有四个 $D\times D$ 的注意力矩阵、两个 $D\times4D$ 的前馈矩阵，共 $12D^2$，再加 $13D$ 的偏置和 LayerNorm：
#
# $$N=\underbrace{(V+P+2)D+2D}_{\text{嵌入}}+\underbrace{L(12D^2+13D)}_{\text{各层}}+\underbrace{D^2+3D+V}_{\text{词表头}}$$
#
# 三个预设都照公式数一遍，与真的模型对上（`meta` 设备只算形状，不占内存）：

# %%
import torch
from utils.models import load_checkpoint
from utils.scaling import count_parameters
from utils.presets import PRESETS

_, tokenizer, _ = load_checkpoint("mlm", BertForMaskedLM, preset=preset, prefer="shipped")
V = len(tokenizer)
for p in PRESETS.values():
    parts = count_parameters(p, V)
    with torch.device("meta"):
        real = BertForMaskedLM(bert_config(p, tokenizer)).num_parameters()
    shown = "，".join(f"{k} {n / 1e6:.2f}" for k, n in parts.items())
    print(f"{p.name:<6} {p.layers} 层 × {p.hidden} 维：{shown}，共 {real / 1e6:.2f} 百万")
    assert sum(parts.values()) == real

# %% [markdown]
# 预设 `gpu` 就是常见配方的大小：6 层 × 768 维 × 12 个头，512 个位置。词表换成 21,128，就是那份配方的参数个数。
#
# ### 2.2 内存：大头不是权重
#
# 训练时要放四样东西。权重、梯度、Adam 的两个动量（给每个参数记着的两个滑动平均），都是 32 位，
# 每个参数 $4+4+8=16$ 字节。第四样是**激活（activation）**：
# 前向算出来、反向还要用的中间结果。Korthikanti 等（2022）数过，16 位时每层约
#
# $$\text{激活}=B\,T\,(34D+5HT)\ \text{字节}$$
#
# $5HT$ 是注意力矩阵：它随 $T^2$ 长，句子一长就是它最大（FlashAttention、SDPA 不存整个矩阵，就省掉了这一项）。32 位时加倍。

# %%
from utils.scaling import training_bytes

gpu = PRESETS["gpu"]
for B, T in ((1, 512), (8, 512), (128, 160), (128, 512)):
    parts = training_bytes(gpu, V, B, T, targets=int(0.4 * B * T), half=True)
    shown = "，".join(f"{k} {x / 1e9:.2f}" for k, x in parts.items())
    print(f"每步 {B:>3} 条 × {T} 个词元：{shown}，共 {sum(parts.values()) / 1e9:.1f} GB")

# %% [markdown]
# 参数那一项不变，激活随每步的词元数长。所以显存不够时，先减每步的条数，再减长度，最后才减模型。
#
# ### 2.3 时间：6 乘参数乘词元
#
# 一个参数、一个词元，前向做一次乘、一次加，反向的工作量是前向的两倍，合起来 $6$ 次浮点运算（Kaplan 等，2020）：
#
# $$C\approx 6\,N\,M$$
#
# $N$ 是参数个数，$M$ 是练过的词元数。
#
# 这台设备一秒能做多少次？量一个前馈层大小的矩阵乘法，就是它的上限：

# %%
from utils.scaling import matmul_speed, step_flops

half = device.type == "cuda" or preset.bf16
speed = matmul_speed(device, gpu.hidden, half)
lesson.record("矩阵乘法的速度", speed / 1e9, "十亿次浮点运算/秒")

# %% [markdown]
# ### 2.4 公式对不对，量一量
#
# 真的建一个 `gpu` 预设的模型，练几步。CPU 上每步只放很少几条；有 GPU 就多放一些。

# %%
from utils.scaling import measure_step

B, T = (64, 512) if device.type == "cuda" else (1, 128) if preset.name == "smoke" else (2, 512)
targets = int(0.4 * B * T)
trial = replace(gpu, bf16=preset.bf16)
expected_bytes = sum(training_bytes(trial, V, B, T, targets, half).values())
expected_seconds = step_flops(trial, V, B, T, targets) / speed
real = measure_step(trial, tokenizer, device, B, T, targets, steps=2)
print(f"内存：公式 {expected_bytes / 1e9:.2f} GB，实测 {real.peak / 1e9:.2f} GB，相差 {real.peak / expected_bytes - 1:+.0%}")
print(f"一步：公式（矩阵乘法全速）{expected_seconds:.2f} 秒，实测 {real.seconds:.2f} 秒，效率 {expected_seconds / real.seconds:.0%}")
lesson.record("内存：实测 ÷ 公式", real.peak / expected_bytes, "倍")
lesson.record("计算效率（公式的时间 ÷ 实测的时间）", expected_seconds / real.seconds)
if device.type == "cuda":                     # 换成不存注意力矩阵的 SDPA，内存和时间都省一大截
    lean = measure_step(trial, tokenizer, device, B, T, targets, steps=5, attention="sdpa")
    formula = sum(training_bytes(trial, V, B, T, targets, half, attention="sdpa").values())
    print(f"SDPA：内存公式 {formula / 1e9:.2f} GB，实测 {lean.peak / 1e9:.2f} GB；"
          f"一步 {lean.seconds:.3f} 秒，效率 {expected_seconds / lean.seconds:.0%}")

# %% [markdown]
# 内存的公式准到几成，看上面的「相差」。时间的公式是下限：实际还有 LayerNorm、softmax、dropout、优化器和数据搬运，
# 这个比值叫**计算效率**（英文常写作 MFU），大模型练得好的能到四五成。现在可以估任何一次训练了。
# 拿这台机器的速度，算一算几个有名的模型要多久（表里的词元数是论文写的）：

# %%
efficiency = expected_seconds / real.seconds
own = sum(count_parameters(gpu, V).values())
plans = {"预设 gpu，每个参数 20 个词元": (own, 20 * own), "BERT-base（Devlin 等，2019；33 亿词，40 遍）": (110e6, 40 * 3.3e9),
         "LLaMA-7B（Touvron 等，2023）": (6.7e9, 1.0e12), "GPT-3（Brown 等，2020）": (175e9, 300e9)}
for name, (n, tokens) in plans.items():
    days = 6 * n * tokens / (speed * efficiency) / 86400
    print(f"{name}：{6 * n * tokens:.1e} 次浮点运算，这台机器要 " + (f"{days:,.1f} 天" if days < 700 else f"{days / 365:,.0f} 年"))

# %% [markdown]
# ## 3 几个进程
#
# ### 3.1 数据并行：把梯度平均
#
# **数据并行**（distributed data parallel，DDP）：每个进程一份完整的模型，各看一部分文档，每步把梯度加起来平均，再各自更新。
# 它对不对？一句话就能验：两半各算各的梯度，平均起来，应当等于整批一起算的梯度。

# %%
from transformers import BertLMHeadModel
from utils.corpus import generate

small = BertForMaskedLM(bert_config(replace(PRESETS["smoke"], dropout=0.0), tokenizer))
ids = torch.tensor([row[:64] for row in tokenizer(generate("train", 8)["body"][:])["input_ids"]])      # (B, T)，都截成一样长
labels = torch.full_like(ids, -100)
labels[:, 5::7] = ids[:, 5::7]

def gradient(part):
    small.zero_grad()
    small(input_ids=ids[part], labels=labels[part]).loss.backward()
    return torch.cat([p.grad.flatten() for p in small.parameters()])

whole, halves = gradient(slice(0, 8)), [gradient(slice(0, 4)), gradient(slice(4, 8))]
torch.testing.assert_close(sum(halves) / 2, whole, rtol=1e-4, atol=1e-6)
print(f"最大相差 {(sum(halves) / 2 - whole).abs().max():.1e}")

# %% [markdown]
# 相等，因为两半的目标一样多。若一半目标多、一半少，平均的平均就不等于总的平均，会有一点偏差；每步条数多时可以忽略。
#
# ### 3.2 同样的函数，前面加一个 torchrun
#
# `python -m utils.train` 用的就是 [[mlm_pretraining]]、[[clm_finetuning]] 里的那些函数。在一个进程里，直接调用它：

# %%
import contextlib
import io
from utils.train import main as train_command

out, N = lesson.outputs / "processes", 12 if preset.name == "smoke" else 30
common = ["mlm", "--preset", "smoke", "--docs", "200", "--steps", str(N), "--fresh"]
with contextlib.redirect_stdout(io.StringIO()):                   # 进度条略去
    alone = train_command([*common, "--out", str(out / "one")])
print(f"一个进程：每步 {alone['documents_per_step']} 篇，{N} 步之后损失 {alone['eval_loss'][-1]:.4f}")

# %% [markdown]
# 两个进程，只是前面加上 `torchrun --nproc_per_node 2`（或者 `accelerate launch --multi_gpu --num_processes 2`，都行）。每步的总篇数不变，
# 每个进程分一半。几张卡、几台机器，也是这一条命令，只是多写几个参数。

# %%
from utils.training import torchrun

arguments = [*common[:-1], "--save-every", "4", "--out", str(out / "ddp")]
command = torchrun(2, arguments)
print("torchrun", *command[3:5], *command[command.index("-m", 3):])

# %% [markdown]
# ### 3.3 杀掉一个
#
# 真正的训练要几天几周，机器一定会出事。下面启动两个进程，等它存下第一次进度，就**强行结束其中一个**。
# torchrun 发现死了人，会把全组都停下；再运行一次同一条命令，我们的训练自己会找到上次的进度，从那里接着练。
# （加上 `--max_restarts 3`，torchrun 就自己重来，不用人守着。）

# %%
import signal
import threading
import time
import shutil
from utils.training import launch, saved_steps, workers

def run(command, folder, kill=False, fresh=True):
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    child, lines, victim = launch(command, cpu_only=True), [], None    # 只是演示：多半没有两块 GPU
    reader = threading.Thread(target=lambda: lines.extend(child.stdout), daemon=True)
    reader.start()
    while child.poll() is None:
        if kill and victim is None and saved_steps(folder) and workers(child):
            victim = workers(child)[-1]
            os.kill(victim, getattr(signal, "SIGKILL", signal.SIGTERM))
            print(f"存下了第 {saved_steps(folder)[-1]} 步，结束其中一个进程")
        time.sleep(0.05)
    reader.join()
    return child.returncode, lines

code, _ = run(command, out / "ddp", kill=True)
print(f"torchrun 停下了全组，退出码 {code}。同一条命令再来一次：")
code, lines = run(torchrun(2, arguments), out / "ddp", fresh=False)
print(*[line.strip() for line in lines if line.startswith(("上次练到", "练完"))], sep="\n")
assert code == 0 and sum(line.startswith("上次练到") for line in lines) == 1, "".join(lines)[-2000:]

# %% [markdown]
# 死过一次，还是练完了。结果与一个进程的比一比：

# %%
import json

ddp = json.loads((out / "ddp" / "history.json").read_text(encoding="utf-8"))
print(f"一个进程 {alone['eval_loss'][-1]:.4f}，两个进程（中途死过一次）{ddp['eval_loss'][-1]:.4f}")
assert ddp["processes"] == 2 and abs(ddp["eval_loss"][-1] / alone["eval_loss"][-1] - 1) < 0.05

# %% [markdown]
# 差的那一点，来自随机遮盖：两个进程各用各的随机数，盖住的字不同。
#
# ### 3.4 参数分片：一张卡放不下时
#
# DDP 每个进程都要放下整个模型的 16 字节 × $N$。**参数分片**（fully sharded data parallel，FSDP）把参数、梯度、优化器状态切成几份，
# 每个进程只存一份，用到哪一层才向别人要来凑齐，用完就扔：每个进程约 $16N/\text{进程数}$ 字节，代价是多一些通信。
# 我们的命令只多一个 `--shard`：

# %%
if preset.name == "smoke":
    print("smoke 预设跳过这一步（它要再启动两个进程，约十几秒）。")
else:
    code, lines = run(torchrun(2, [*common, "--shard", "--out", str(out / "fsdp")]), out / "fsdp")
    assert code == 0, "".join(lines)[-2000:]
    fsdp = json.loads((out / "fsdp" / "history.json").read_text(encoding="utf-8"))
    shares = [f"{h['parameters_per_process']:,}" for h in (alone, ddp, fsdp)]
    print("每个进程存的参数：一个进程 {}，DDP {}，FSDP {}".format(*shares))
    print(f"损失：DDP {ddp['eval_loss'][-1]:.4f}，FSDP {fsdp['eval_loss'][-1]:.4f}")
    lesson.record("FSDP 每个进程存的参数 ÷ DDP 的", fsdp["parameters_per_process"] / ddp["parameters_per_process"])
    assert fsdp["parameters_per_process"] < 0.6 * ddp["parameters_per_process"]
    assert abs(fsdp["eval_loss"][-1] / ddp["eval_loss"][-1] - 1) < 0.02

# %% [markdown]
# 每个进程只存约一半，损失却几乎一样：分片只改变「放在哪里」，不改变算什么。
#
# ## 4 规模定律：多花的钱，换来多少
#
# ### 4.1 形式
#
# 练之前就想知道结果，靠的是一条经验规律，叫**规模定律（scaling law）**：损失随参数个数 $N$ 和词元数 $M$ 按幂次下降，
# 直到一个降不下去的底 $E$（Hoffmann 等，2022；论文里词元数写作 $D$，这里让给隐藏维度）：
#
# $$\mathcal{L}(N,M)=E+\frac{a}{N^{\alpha}}+\frac{b}{M^{\beta}}$$
#
# 别人只能连 $E$ 一起拟合；我们的语料由语法写成，**$E$ 算得出来**，就是 [[clm_finetuning]] 里的下限。这让我们能做一件别处做不了的事：
# 检查「拟合出来的底」准不准。
#
# ### 4.2 数据：一批从头练的小模型
#
# 完整量一遍，一个核心要两个小时，十几个核心同时量要十来分钟（`python -m tools.scaling_runs`），所以结果随课程附带；
# 每一行写着设备、用时和版本。不过别人给的数不能白信：从中抽一次，当场重练，对得上才用。

# %%
from utils.scaling import SIZES, fit_law, held_out, read_runs, train_run

measured = read_runs()
held, E = held_out(tokenizer)
size, few = SIZES[0], min(r.docs for r in measured)
with contextlib.redirect_stdout(io.StringIO()):
    again = train_run(size, few, tokenizer, held)
(before,) = [r for r in measured if (r.layers, r.hidden, r.heads, r.docs) == (*size, few)]
print(f"{size[0]} 层 × {size[1]} 维，{few:,} 篇：附带的 {before.nats:.3f}，当场重练 {again.nats:.3f}（奈特/词元）")
assert abs(again.nats / before.nats - 1) < 0.05, "和附带的数对不上：语料或分词器变了？请重新运行 python -m tools.scaling_runs"

# %% [markdown]
# 训练的开头有一段平台：模型只学会了哪些字常见，损失停在一元模型附近，过了它才开始下坡。幂律说的是下坡以后的事，
# 所以还没有明显离开平台的训练不拿来拟合。怎样算明显离开，先定一条线：比一元模型低 1 奈特以上。

# %%
from utils.tokenization import unigram_nats

learn, exam = generate("train", 2000), generate("test", 500)
bodies = [[ids + [tokenizer.sep_token_id] for ids in tokenizer(docs["body"][:], add_special_tokens=False)["input_ids"]]
          for docs in (learn, exam)]
plateau = unigram_nats(*bodies, len(tokenizer))
runs = [r for r in measured if r.nats < plateau - 1]
print(f"一元模型 {plateau:.2f}；{len(measured)} 次训练里，{len(runs)} 次已经下坡，{len(measured) - len(runs)} 次不用")

# %% [markdown]
# ### 4.3 先藏起最大的，再预测
#
# 拟合得好不算本事，预测得准才算。把数据最多的那一列藏起来，用其余的拟合，看它预测得怎样：

# %%
most = max(r.docs for r in runs)
seen, hidden = [r for r in runs if r.docs < most], [r for r in runs if r.docs == most]
law = fit_law(seen, E)
print(f"a={law.a:.3f}，α={law.alpha:.2f}，b={law.b:.3f}，β={law.beta:.2f}（N、M 以百万计），ln(ℒ−E) 的残差 {law.residual:.2f}")
for r in hidden:
    guess = float(law(r.parameters, r.tokens))
    print(f"N={r.parameters:>9,}，M={r.tokens / 1e6:.2f} 百万：预测 {guess:.3f}，实测 {r.nats:.3f}，相差 {guess / r.nats - 1:+.0%}")

# %% [markdown]
# 画出来：一条曲线是一个大小，点是实测，线是拟合，最右边空心的点没有参加拟合，叉是还在平台上的。最下面的虚线是下限 $E$。

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from utils.display import COLORS

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
span = np.geomspace(min(r.tokens for r in runs), 4 * max(r.tokens for r in runs), 60)
for color, n in zip(COLORS, sorted({r.parameters for r in runs}), strict=False):
    for group, face in ((seen, color), (hidden, "white")):
        rows = [r for r in group if r.parameters == n]
        left.plot([r.tokens / 1e6 for r in rows], [r.nats for r in rows], "o", color=color, markerfacecolor=face)
    left.plot(span / 1e6, law(n, span), color=color, label=f"{n / 1e3:,.0f} 千参数")
flat = [r for r in measured if r not in runs]
left.plot([r.tokens / 1e6 for r in flat], [r.nats for r in flat], "x", color="#555555")
left.axhline(E, color="#555555", linestyle="--", label=f"下限 {E:.3f}")
left.set(xscale="log", yscale="log", title="损失随数据下降", xlabel="词元数 M（百万）", ylabel="正文的损失（奈特/词元）")
left.legend(fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(0, 0.06))
right.plot([r.nats for r in runs], [float(law(r.parameters, r.tokens)) for r in runs], "o", color=COLORS[0])
ends = [min(r.nats for r in runs) * 0.9, max(r.nats for r in runs) * 1.1]
right.plot(ends, ends, color="#555555", linestyle="--")
right.set(xscale="log", yscale="log", title="预测与实测", xlabel="实测（奈特/词元）", ylabel="预测（奈特/词元）")
for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())

# %% [markdown]
# ### 4.4 预测附带的模型
#
# 附带的续写模型（`clm`）大得多，数据也多得多。它的成绩写在它自己的 `course.json` 里。它有一层是后来插进去的，专帮照抄
# （[[clm_finetuning]] 第 12 节），那不是这条律说的练法，所以拿加这一层之前的那一段来考。用全部下了坡的小模型拟合一次，外推过去：

# %%
from utils.models import find_checkpoint, stages
from utils.scaling import layer_parameters

past = stages(find_checkpoint("clm", preset, prefer="shipped")[0])
plain = [stage for stage in past if "copy_layer" not in stage]                    # 加层之前的各段，最后练的在前
clm, _, _ = load_checkpoint("clm", BertLMHeadModel, preset=preset, prefer="shipped", is_decoder=True)
L = clm.config.num_hidden_layers
n = layer_parameters(clm) * (L - ("copy_layer" in past[0])) / L                   # 去掉插进去的层
docs_seen = sum(stage["causal_docs"] for stage in plain)
tokens = docs_seen * np.mean([r.tokens / r.docs for r in runs])                   # 练过的篇次 × 一篇有几个计损失的词元
law = fit_law(runs, E)
guess, truth = float(law(n, tokens)), plain[0]["test_body_nats"]
print(f"参数是小模型里最大的 {n / max(r.parameters for r in runs):.1f} 倍，词元是 {tokens / max(r.tokens for r in runs):.0f} 倍")
print(f"预测 {guess:.3f}，实测 {truth:.3f}，下限 {E:.3f}：高出下限的部分，预测是实测的 {(guess - E) / (truth - E):.2f} 倍")
lesson.record("附带的续写模型：预测的损失", guess, "奈特/词元")
lesson.record("附带的续写模型：实测的损失", truth, "奈特/词元")

# %% [markdown]
# 外推得越远越没把握。量一量这份没把握有多大：把各次训练有放回地重抽 60 次，每次都重新拟合、重新预测：

# %%
rng, guesses = np.random.default_rng(lesson.seed), []
while len(guesses) < 60:
    picked = [runs[i] for i in rng.integers(0, len(runs), len(runs))]
    if len({r.parameters for r in picked}) >= 3 and len({r.docs for r in picked}) >= 3:
        guesses.append(float(fit_law(picked, E)(n, tokens)))
low, high = np.quantile(guesses, [0.05, 0.95])
inside = low <= truth <= high
print(f"预测的 90% 区间：{low:.3f} 到 {high:.3f}；实测 {truth:.3f} {'在' if inside else '不在'}区间里")
if truth < low:
    print("模型比公式说的好得多：重抽只量得出数据的起伏，量不出公式的错。")

# %% [markdown]
# 预测和实测差的这些，是偶然，还是公式有偏？只用更小的模型拟合，去预测更大的，一个大小一个大小地看偏向哪边：

# %%
sizes, leaning = sorted({r.parameters for r in runs}), []
for larger in sizes[3:]:
    smaller = fit_law([r for r in runs if r.parameters < larger], E)
    ratios = [float(smaller(r.parameters, r.tokens)) / r.nats for r in runs if r.parameters == larger]
    leaning.append(np.mean(ratios))
    print(f"{larger / 1e3:>4,.0f} 千参数：预测 ÷ 实测，平均 {leaning[-1]:.2f}（{len(ratios)} 次）")
print("每个大小都说高了：公式偏悲观" if min(leaning) > 1 else
      "每个大小都说低了：公式偏乐观" if max(leaning) < 1 else "有高有低，看不出偏向")

# %% [markdown]
# 幂律是在真文字上总结出来的：真文字里总有更少见的东西可学，学得再多也还有一截尾巴。我们的语料由有限的规则写成，模型够大、看得够多，
# 就把规则差不多学全了，离下限只剩一点点，不再沿着幂律慢慢磨。所以往前走一两倍，公式说得差不多；走出几百倍，就不能信了。

# %% [markdown]
# 现在做那件别处做不了的事：假装不知道 $E$，连它一起拟合，看拟合出来的底与真的差多少。

# %%
free = fit_law(runs)
print(f"拟合出来的底 {free.E:.3f}，真的下限 {E:.3f}，相差 {free.E / E - 1:+.0%}；附带的模型会被预测成 {float(free(n, tokens)):.3f}")
lesson.record("拟合出来的 E ÷ 真的下限", free.E / E)

# %% [markdown]
# 读论文里的规模定律时，记着这个差：$E$ 要靠离它很近的点才定得准，小模型离它太远。
#
# ### 4.5 一笔预算，怎么花
#
# 计算量定了，$C=6NM$，该练大模型还是多练数据？沿着 $M=C/(6N)$ 找损失最低的 $N$：

# %%
for C in (1e13, 1e14, 1e15):
    tried = np.geomspace(1e4, 1e8, 400)
    best = tried[np.argmin(law(tried, C / (6 * tried)))]
    each, edge = C / (6 * best), best in (tried[0], tried[-1])
    print(f"C = {C:.0e}：" + ("最低点落在搜索范围的边上，这条拟合给不出建议（数据太少，还没下坡）" if edge else
          f"最好练 {best / 1e6:.2f} 百万参数，{each / 1e6:,.1f} 百万词元，每个参数 {each / best:.0f} 个词元"))

# %% [markdown]
# 若上面说「给不出建议」，就是这些训练离那么大的计算量还太远：先多量几档。
# Hoffmann 等（2022）在真文字上得到的是约 20 个词元配一个参数，而且随规模几乎不变。我们的语料规律、重复，数不会相同；
# 能搬走的是办法：**先练一批小的，拟合，再决定大的怎么练。**
#
# ## 5 hub 上的公开模型（要联网，默认跳过）
#
# `bert-base-chinese` 这样的公开模型，结构和我们的一样，只是大。所以同样的函数都能用。先把要做的事写成函数，
# 拿附带的模型跑一遍；写上名字，就换成 hub 上的。
#
# ### 5.1 填空

# %%
@torch.no_grad()
def fill(model, tokenizer, text, k=3):
    text = text.replace("□", tokenizer.mask_token)
    name_unknown(tokenizer, text)                       # 词表里没有的字，先说出来
    inputs = tokenizer(text, return_tensors="pt")
    at = inputs["input_ids"][0] == tokenizer.mask_token_id
    for p in model(**inputs).logits[0, at].softmax(-1):
        print("　", "  ".join(f"{tokenizer.convert_ids_to_tokens(int(i))} {p[i]:.0%}" for i in p.topk(k).indices))

mlm, own_tokenizer, source = load_checkpoint("mlm", BertForMaskedLM, preset=preset, prefer="shipped")
print(source)
for text in ("今天是个□天气。", "我们去图书馆借□。"):
    print(text)
    fill(mlm, own_tokenizer, text)

# %% [markdown]
# 附带的模型只读过虚构的地方新闻：第一句像它读过的，第二句不像，看看各填得怎样。写上 `google-bert/bert-base-chinese` 再看
# （第一次要下载约 400 MB）：

# %%
BERT = os.environ.get("COURSE_HUB_BERT")                # ← 也可以直接写上 "google-bert/bert-base-chinese"
if BERT is None:
    print("没有写模型的名字，跳过。")
else:
    from transformers import AutoModelForMaskedLM
    from utils.sources import load_hub_model

    bert, bert_tokenizer, source = load_hub_model(BERT, AutoModelForMaskedLM)
    print(source)
    for text in ("今天是个□天气。", "我们去图书馆借□。"):
        print(text)
        fill(bert, bert_tokenizer, text)

# %% [markdown]
# [[attention_visualization]] 的注意力图、[[mlm_pretraining]] 的训练，也一样接得上：
# 换的只是 `model` 和 `tokenizer` 两个名字。下面先看一眼注意力，再练两步，证明接得上。

# %%
if BERT is not None:
    from utils.analysis import get_attentions

    print("注意力的形状：", tuple(get_attentions(bert, bert_tokenizer, "今天是个好日子").weights.shape))       # (L, H, T, T)
    rows = encode_docs(generate("train", 16), bert_tokenizer, 512)
    held_rows = fixed_batches(rows, mlm_collator(bert_tokenizer, seed=0), 8)
    args = training_arguments(lesson.outputs / "trainer", 2, replace(PRESETS["smoke"], batch_size=4, lr=1e-5), device, lesson.seed)
    tuned = train(bert.to(device), rows, mlm_collator(bert_tokenizer), args, lambda m: evaluate(m, held_rows, shift=False), evaluations=1)
    print(f"接着练两步：损失 {tuned.eval_loss[0]:.3f} → {tuned.eval_loss[-1]:.3f}")

# %% [markdown]
# ### 5.2 续写模型，用公平的单位比
#
# 不同的分词器，每词元的损失不能直接比（[[tokenization]] 讲过）。公平的单位是**每字比特数（BPC）**：整段文字的总损失，除以字数。

# %%
@torch.no_grad()
def bits_per_char(model, tokenizer, texts):
    first = next(i for i in (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id) if i is not None)
    nats = chars = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            continue                                     # 有不认识的字：算不出公平的分，这一句不计
        x = torch.tensor([[first, *ids]], device=model.device)                                     # (1, T)
        log_p = model(input_ids=x).logits[0, :-1].log_softmax(-1)                                  # (T-1, V)
        nats, chars = nats - log_p.gather(-1, x[0, 1:, None]).sum().item(), chars + len(text)
    return nats / math.log(2) / chars

exam = {"课程的新闻（导语）": generate("test", 30)["intro"], "手写文章（首句）": [a["intro"].split("。")[0] + "。" for a in articles[:60]]}
for name, texts in exam.items():
    lesson.record(f"附带的续写模型：{name}", bits_per_char(clm, own_tokenizer, texts), "比特/字")

# %% [markdown]
# 附带的续写模型在课程的新闻上好，在手写文章上差得多：它只见过一种文字。写上一个公开的中文续写模型的名字
# （任何有 safetensors 权重的因果模型），两边比一比：

# %%
CAUSAL = os.environ.get("COURSE_HUB_CAUSAL")            # ← 也可以直接写上 "用户名/模型名"
if CAUSAL is None:
    print("没有写模型的名字，跳过。")
else:
    from transformers import AutoModelForCausalLM
    from utils.sources import load_hub_model

    public, public_tokenizer, source = load_hub_model(CAUSAL, AutoModelForCausalLM)
    print(source)
    for name, texts in exam.items():
        print(f"{name}：{bits_per_char(public, public_tokenizer, texts):.2f} 比特/字")
    start_ids = public_tokenizer("今天是个", return_tensors="pt", add_special_tokens=False)
    written = public.generate(**start_ids, max_new_tokens=20, do_sample=False, pad_token_id=public_tokenizer.eos_token_id)
    print(public_tokenizer.decode(written[0], skip_special_tokens=True))

# %% [markdown]
# 比的时候要留心：公开模型的训练数据里可能有考题（**污染**），我们的新闻是新造的，没有这个问题；字数的算法、开头给不给起始符，也要一致。
#
# ## 6 接下来去哪里
#
# | 想做的事 | 从这里出发 | 要多知道的一件事 |
# |---|---|---|
# | 练自己领域的小模型 | 1.4 节的十行，换文件 | 数据清洗值得花一半的时间 |
# | 微调公开的大模型 | 5 节的接法，加 LoRA（Hu 等，2022） | 只练很小的旁路矩阵，16 字节 × $N$ 就不再是门槛 |
# | 让它听懂指令 | [[clm_finetuning]] 的「提示不计损失」就是指令微调的标签 | 数据的质量比数量要紧 |
# | 让它更合人意 | DPO（Rafailov 等，2023） | 先有一个好的微调模型，再谈偏好 |
# | 长文章 | 位置编码换成 RoPE，注意力换成 FlashAttention | 2.2 节的 $5HT$ 那一项 |
# | 放到手机上 | 量化到 8 位、4 位 | 先量 BPC 掉了多少 |
# | 让它查资料 | 检索增强（RAG） | 编码器（BERT 那一支）在这里最有用 |
#
# ## 小结
#
# - 换数据只换 `load_corpus` 的一个参数；清洗要有账，近似重复会泄题，先查重再分三部分。
# - 参数、内存、时间都有公式：$12LD^2$、每个参数 16 字节加激活、$6NM$。内存的公式大体够用，时间的公式是下限。
# - DDP 平均梯度，FSDP 切开参数；两者算的是同一件事。训练一定会断，断了能接着练才算数。
# - 规模定律让你先用小钱估大钱；离得远就不准，所以要报误差，藏起一部分来检验。
# - 公开模型用同样的函数接进来，用每字比特数来比。
#
# 走到这里，你已经把一个大模型从一段汉字开始，亲手造过一遍了。
#
# ## 练习
#
# **1. 读账（★，3 分钟）** 看第 1 节的清洗报告：哪一步删的篇数最多？若把 `near_duplicates` 的门槛从 0.8 改成 0.3，会误删什么样的文章？
#
# <details><summary>参考答案</summary>
#
# 报告里「删去篇数」一列最大的那一步。门槛 0.3 时，写同一件事的两篇独立报道、同一个栏目的固定开头都可能被当成重复。
# 用 `clean(everything, [partial(near_duplicates, threshold=0.3)])` 试一次，看例子（`from functools import partial`）。
#
# </details>
#
# **2. 先算再看（★★，6 分钟）** 一张 24 GB 的显卡，bf16，`gpu` 预设，长度 512，每步最多放几条？长度减半，能放几条？为什么不止两倍？
#
# <details><summary>参考答案</summary>
#
# ```python
# for T in (512, 256):
#     fits = [B for B in range(1, 2000) if sum(training_bytes(gpu, V, B, T, int(0.4 * B * T), half=True).values()) < 24e9]
#     print(T, fits[-1])
# ```
# 激活里的 $5HT$ 一项随 $T^2$ 长，长度减半，它变成四分之一，所以能放的条数不止翻倍。真用时留一两成余地。
#
# </details>
#
# **3. 梯度累积（★★，8 分钟）** 显存只放得下 4 条，却想每步看 8 条：分两次前向、反向，梯度相加，再更新一次。
# 用 3.1 节的 `gradient` 说明它和 DDP 是同一个算式。
#
# <details><summary>参考答案</summary>
#
# `sum(halves) / 2` 就是：第一次反向的梯度加上第二次的，再除以 2。DDP 是两个进程同时做，梯度累积是一个进程先后做。
# Trainer 里写 `gradient_accumulation_steps=2`。
#
# </details>
#
# **4. 换一条曲线（★★，10 分钟）** 只用数据最少的两列拟合（`fit_law` 会拒绝，至少要三种数据量），再加一列，
# 看预测附带模型的误差怎样变。
#
# <details><summary>参考答案</summary>
#
# ```python
# for upto in sorted({r.docs for r in runs})[2:]:
#     part = [r for r in runs if r.docs <= upto]
#     print(upto, float(fit_law(part, E)(n, tokens)), "实测", truth)
# ```
# 一般说来，离目标越近的点越有用。
#
# </details>
#
# **5. 自己的规模定律（★★★，一个晚上）** 把第 1 节的文件换成你的，改 `utils/scaling/law.py` 里的语料，量 3 个大小 × 3 个数据量。
# 你的 $E$ 只能拟合，它可信吗？
#
# <details><summary>参考答案</summary>
#
# 用 4.4 节的重抽看 $E$ 的区间。区间很宽，就别把它当真；可以用更大的公开模型的 BPC 当作 $E$ 的上界来核对。
#
# </details>
#
# ## 延伸阅读
#
# - Kaplan, McCandlish, Henighan 等（2020）Scaling Laws for Neural Language Models.
# - Hoffmann, Borgeaud, Mensch 等（2022）Training Compute-Optimal Large Language Models.
# - Korthikanti, Casper, Lym 等（2022）Reducing Activation Recomputation in Large Transformer Models.
# - Rajbhandari, Rasley, Ruwase, He（2020）ZeRO: Memory Optimizations Toward Training Trillion Parameter Models.
# - Zhao, Gu, Varma 等（2023）PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel.
# - Lee, Ippolito, Nystrom 等（2022）Deduplicating Training Data Makes Language Models Better.
# - Hu, Shen, Wallis 等（2022）LoRA: Low-Rank Adaptation of Large Language Models.
# - Rafailov, Sharma, Mitchell 等（2023）Direct Preference Optimization.
