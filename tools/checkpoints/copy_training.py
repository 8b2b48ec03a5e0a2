"""给附带的 clm 加上照抄层，练好：`torchrun --nproc_per_node 2 -m tools.checkpoints.copy_training`。

分四步：新层先学会什么也不做；再只教引路，让照抄的头看到该抄的字；然后把全部损失合在一起，练新层；最后连它上面的层一起，
用小的学习率，把引路时碰坏的套话修好。后两步的文档，一部分自然地抽，一部分专挑写得最糟的几处，哪几处边练边重新量。
最后一步还有一部分是它自己写的：贪心地写，一直考到写错的那个字。到用的时候，前文就是它自己写的；它走的路，语料里的文档未必走得到。
出发的检查点要是已经有照抄层，就只练最后一步。
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from time import perf_counter

import torch
import torch.distributed as dist
from torch import nn
from transformers import BertLMHeadModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from tools.checkpoints.copy_layer import CopyLayer, copying_head, grow
from tools.checkpoints.make import HELD, describe, score
from utils.analysis.practice import TEXT, Batch, Exercise, Focus, Place, by_place, collate, documents, exercise
from utils.corpus.facts import check_facts
from utils.corpus.grammar import Grammar
from utils.corpus.news import generate as generate_docs
from utils.corpus.news import news_grammar
from utils.generation.metrics import fidelity
from utils.generation.writing import generate
from utils.models.checkpoints import load_folder, save_checkpoint, stages
from utils.paths import SHIPPED
from utils.presets import PRESETS, fast_bf16, pick_device, set_seed

PHASES = {"identity": 0.02, "routing": 0.12, "copying": 0.44, "whole": 0.42}     # 四步各占多少时间
FALL = {"identity": 0.4, "routing": 0.4, "copying": 0.35, "whole": 1.0}          # 各步最后这么大一份时间里，学习率线性降到 0
WHOLE = 0.2                                               # 第四步的学习率是前三步的多少倍
NATURAL = {"copying": 0.3, "whole": 0.35}                 # 后两步里，自然抽取的文档占多少
OWN = 0.3                                                 # 最后一步里，它自己写的正文占多少；其余专练最糟的几处
SLIPS = 0.05                                              # 一个模式还没有看它写过，当它有多大机会写错
FORGET = 0.8                                              # 写错的机会按滑动平均记，旧的占多少
SCHEMAS = 40                                              # 专练多少个模式
BATCHES = 8                                               # 一次抽够几批的文档，按长度排好再切，少补一些填充
SURVEY = 1500                                             # 后两步之前，每个进程用多少篇自然的文档量各处
WARMUP = 50                                               # 学习率升温多少步
SAMPLE = 96                                               # 用多少篇文档找照抄的头、量新层的输入
SAY = 60                                                  # 每隔多少秒说一次进展


def everyone(items: list) -> list:
    """各个进程的列表接在一起；只有一个进程就原样返回。"""
    if not dist.is_initialized():
        return items
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, items)
    return [item for one in gathered for item in one]


class Practice:
    """四步练法。几个进程时各抽各的文档，每一步各看 batch_size 篇，梯度取平均。

    参数：
        layer: CopyLayer，已在设备上。
        tokenizer, grammar: 字符级分词器、语法。
        lr: 学习率。
        batch_size: 每个进程每步几篇。
        seed: 文档的随机种子。
        say: 每隔一阵叫它一次，给它一句话的进展。
        survey: 后两步之前，每个进程用多少篇自然的文档量各处；不写是 SURVEY。
    """

    def __init__(self, layer: CopyLayer, tokenizer: PreTrainedTokenizerFast, grammar: Grammar, lr: float, batch_size: int, seed: int,
                 say: Callable[[str], None] = lambda text: None, survey: int | None = None):
        self.surveyed = SURVEY if survey is None else survey
        self.layer, self.grammar, self.lr, self.batch_size, self.say = layer, grammar, lr, batch_size, say
        self.tokenizer, self.vocabulary = tokenizer, tokenizer.get_vocab()
        self.rng = Random(f"{seed}-{dist.get_rank() if dist.is_initialized() else 0}")
        self.focus, self.max_len, self.text = Focus(), layer.model.config.max_position_embeddings, TEXT
        self.slips = {schema.name: SLIPS for schema in grammar.schemas}

    def exercises(self, places: Sequence[Place] = ()) -> Iterator[Exercise]:
        """没有尽头的练习题；places 同 documents。"""
        return (exercise(self.grammar, d, self.vocabulary) for d in documents(self.grammar, self.rng, self.max_len, list(places)))

    def own(self, n: int, natural: bool = False) -> list[Exercise]:
        """它自己写的 n 篇，越常写错的模式抽得越多（natural 是 True 就自然地抽）；顺便重新记下各模式写错的机会。"""
        names = list(self.slips)
        places = [] if natural else [(name, None) for name in self.rng.choices(names, [self.slips[name] for name in names], k=n)]
        drafts = list(islice(documents(self.grammar, self.rng, self.max_len, places), n))
        bodies = generate(self.layer.model, self.tokenizer, [draft.texts["intro"] for draft in drafts])
        some = [exercise(self.grammar, draft, self.vocabulary, body) for draft, body in zip(drafts, bodies, strict=True)]
        wrong = [(d.schema.name, not check_facts(d.texts["intro"], body).faithful) for d, body in zip(drafts, bodies, strict=True)]
        for name, slipped in everyone(wrong):
            self.slips[name] = FORGET * self.slips[name] + (1 - FORGET) * slipped
        return some

    def groups(self, name: str) -> Iterator[list[Exercise]]:
        """四步里这一步的批，没有尽头，一批之内长短相近；推算出来的数和它自己写的正文，到最后一步才练。"""
        natural, n, last = self.exercises(), BATCHES * self.batch_size, name == "whole"
        share, own = round(NATURAL.get(name, 1.0) * n), round(OWN * n) if last else 0
        while True:
            some = list(islice(natural, share)) + (self.own(own) if own else [])
            if share + own < n:
                some += islice(self.exercises(self.focus.costliest(self.grammar, SCHEMAS, last)), n - share - own)
            some.sort(key=lambda e: len(e.ids))
            groups = [some[start:start + self.batch_size] for start in range(0, n, self.batch_size)]
            self.rng.shuffle(groups)
            yield from groups

    def batch(self, group: Sequence[Exercise]) -> Batch:
        return collate(group, self.layer.pad, self.rng, self.layer.model.device, self.text)

    def survey(self) -> None:
        """用自然的文档量各处写得怎样。"""
        results, some = [], sorted(islice(self.exercises(), self.surveyed), key=lambda e: len(e.ids))
        with torch.no_grad():
            for start in range(0, len(some), self.batch_size):
                group = some[start:start + self.batch_size]
                batch = self.batch(group)
                results += by_place(group, batch, self.layer(batch)[2])
        self.focus.measure(everyone(results))

    def run(self, minutes: float, only_last: bool = False) -> int:
        """四步练完（就地更新），返回后两步（接龙的损失都算上的）一共练了多少步。

        参数：
            minutes: 一共几分钟，不含中间量各处的时间。
            only_last: 新层是练好了的，只练第四步。
        异常：
            FloatingPointError: 损失不再是数，训练发散了。
        """
        new, layer, results = list(self.layer.new.parameters()), self.layer, []

        def everything(batch: Batch, group: list[Exercise]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, parts, nats = layer(batch)
            results.extend(by_place(group, batch, nats))
            if len(results) >= BATCHES * self.batch_size:
                self.focus.update(everyone(results))
                results.clear()
            return loss, parts

        steps, share = 0, {"whole": 1.0} if only_last else PHASES
        if not only_last:
            self.phase("identity", share["identity"] * minutes, new, lambda batch, group: (layer.identity(batch), {}))
            self.phase("routing", share["routing"] * minutes, new, lambda batch, group: (layer.routing(batch), {}))
            self.survey()
            steps = self.phase("copying", share["copying"] * minutes, layer.trained(), everything)
        layer.thaw()
        self.text = 1.0                                   # 最后要修的就有套话：一处不漏
        self.survey()
        self.own(self.surveyed // 3, natural=True)
        return steps + self.phase("whole", share["whole"] * minutes, layer.trained(), everything)

    def phase(self, name: str, minutes: float, params: list[nn.Parameter], losses: Callable) -> int:
        """四步里的一步，练 minutes 分钟；losses(batch, group) 给出（损失，{各项}）。返回练了多少步。"""
        device, rate = self.layer.model.device, self.lr * (WHOLE if name == "whole" else 1.0)
        optimizer = torch.optim.AdamW(params, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        clock, steps, said, told, sums, began = torch.zeros(1, device=device), 0, 0.0, 0, {}, perf_counter()
        for group in self.groups(name):
            clock.fill_(perf_counter() - began)
            if dist.is_initialized():
                dist.broadcast(clock, 0)                  # 都听第一个进程的钟，停在同一步
            now = clock.item()
            done = now / (60 * minutes)
            if done >= 1:
                break
            for settings in optimizer.param_groups:
                settings["lr"] = rate * min(steps / WARMUP, 1.0, (1 - done) / FALL[name])
            loss, parts = losses(self.batch(group), group)
            if not loss.isfinite():
                raise FloatingPointError(f"第 {steps} 步的损失是 {loss.item()}：训练发散了。请把学习率（现在 {rate}）减半再来。")
            loss.backward()
            if dist.is_initialized():
                for p in params:
                    dist.all_reduce(p.grad)
                    p.grad /= dist.get_world_size()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
            for part, x in {"合计": loss, **parts}.items():
                sums[part] = sums.get(part, 0.0) + x.item()
            if now > said + SAY:
                hard = f"；还有 {sum(nats > 1 for nats in self.focus.nats.values())} 处平均丢 1 奈特以上" if self.focus.nats else ""
                if name == "whole":
                    hard += f"；自己写的，各模式平均 {sum(self.slips.values()) / len(self.slips):.1%} 写错"
                self.say(f"{name} {now / 60:.0f} 分钟，{steps} 步，每篇：" +
                         "，".join(f"{part} {x / (steps - told):.3f}" for part, x in sums.items()) + hard)
                said, told, sums = now, steps, {}
        return steps


def faithful(model: BertLMHeadModel, tokenizer: PreTrainedTokenizerFast, n_docs: int = HELD) -> float:
    """测试集的前 n_docs 篇，贪心写正文，与导语的事实全都相符的占多大一份。"""
    intros = generate_docs("test", n_docs)["intro"][:]
    return fidelity(intros, generate(model, tokenizer, intros)).faithful


def main(arguments: list[str] | None = None) -> None:
    """命令行入口。"""
    parser = argparse.ArgumentParser(prog="python -m tools.checkpoints.copy_training",
                                     description="给附带的 clm 加上照抄层；torchrun 之下就是多进程",
                                     epilog="出发的检查点已经有照抄层的，只接着练最后一步。")
    parser.add_argument("--from", dest="start", type=Path, default=SHIPPED / "clm", help="从哪个检查点出发")
    parser.add_argument("--out", type=Path, default=SHIPPED / "clm", help="存到哪里")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=24, help="每个进程每步几篇")
    parser.add_argument("--seed", type=int, default=2026, help="文档的随机种子")
    parser.add_argument("--survey", type=int, default=SURVEY, help=f"每个进程用多少篇量各处；写正文考事实的篇数也不超过它（至多 {HELD}）")
    options = parser.parse_args(arguments)
    disable_progress_bar()
    processes, device, grammar = int(os.environ.get("WORLD_SIZE", 1)), pick_device(), news_grammar()
    if processes > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    first = not dist.is_initialized() or dist.get_rank() == 0
    set_seed(options.seed)
    model, tokenizer = load_folder(options.start, BertLMHeadModel)
    vocabulary, before = tokenizer.get_vocab(), stages(options.start)[0]
    some = [exercise(grammar, d, vocabulary) for d in islice(documents(grammar, Random(0), PRESETS["cpu"].max_len), SAMPLE)]
    fresh = "copy_layer" not in before
    if fresh:
        at, head = copying_head(model, some)
        model = grow(model, collate(some, tokenizer.pad_token_id, Random(0), torch.device("cpu")).ids, tokenizer.pad_token_id, at)
    else:
        at = before["copy_layer"]
        head = copying_head(model, some, only=at + 1)[1]
    layer = CopyLayer(model.to(device), at, head, device.type == "cuda" or fast_bf16(), fresh)
    if dist.is_initialized():
        for p in layer.trained():
            dist.broadcast(p.data, 0)

    def say(text: str) -> None:
        if first:
            print(text, flush=True)

    say(f"照抄的头：层 {at + 1}（插进的新层是层 {at}）· 头 {head}" + ("" if fresh else "；照抄层早已加过，只练最后一步"))
    practice = Practice(layer, tokenizer, grammar, options.lr, options.batch_size, options.seed, say, options.survey)
    steps = practice.run(options.minutes, not fresh)
    if first:
        lr = options.lr if fresh else round(WHOLE * options.lr, 10)
        preset = replace(PRESETS["cpu"], lr=lr, batch_size=options.batch_size * processes)
        info = describe("clm", preset, steps * preset.batch_size, steps, options.seed, device) | {
            "objective": "copy" if fresh else "above", "copy_layer": at}
        info |= score("clm", model.eval(), tokenizer, PRESETS["cpu"]) | {
            "test_faithful": faithful(model, tokenizer, min(HELD, options.survey))}
        save_checkpoint(model, tokenizer, options.out, info | {"before": before}, half=True)
        print(json.dumps(info, ensure_ascii=False))
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
