"""语料：课程自带的虚构地方新闻，下限（floor）精确可知；同一个 load_corpus 也装载手写文章、自己的文件和 hub 上的数据集。

语料的统计和样例：`python -m tools.corpus.show`。
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from random import Random
from statistics import fmean, stdev

from datasets import Dataset, DatasetDict

from utils.corpus.grammar import Derivation, Grammar
from utils.paths import DATA

COLUMNS = ("id", "category", "schema", "title", "intro", "body", "nats_title", "nats_intro", "nats_body", "facts")


@lru_cache(maxsize=2)
def _read_grammar(new_names: bool) -> Grammar:
    return Grammar(DATA / "news", new_names)


def news_grammar(new_names: bool = False) -> Grammar:
    """课程自带的新闻语法（读一次就记住）。new_names 为真时，地点、人名等专名全换成平时抽不到的新名字。"""
    return _read_grammar(new_names)


def _row(identity: str, d: Derivation, grammar: Grammar) -> dict:
    facts = [{"name": name, "value": value, "type": grammar.kind_of(d.schema, name),
              "forms": grammar.forms_of(d.schema, name, value),
              "in": [part for part in ("intro", "body", "title") if name in d.seen[part]]}
             for name, value in d.values.items()]
    return {"id": identity, "category": d.schema.category, "schema": d.schema.name, **d.texts,
            **{f"nats_{part}": -d.log_p[part] for part in d.texts}, "facts": json.dumps(facts, ensure_ascii=False)}


def generate(split: str, n_docs: int, seed: int = 2026) -> Dataset:
    """生成一个部分（split）的前 n_docs 篇。同样的 seed 和 split，前面的文档总是一样。

    参数：
        split: "train"、"validation"、"test" 或 "test_new_names"；各用自己的随机数流。最后一个里的专名（地点、人名、
            机构、队伍、作品）在其余三个里从不出现。
        n_docs: 篇数。
        seed: 随机种子。
    返回：
        Dataset，列见 COLUMNS；nats_* 是各段的精确 −log p（奈特）。
    """
    rng = Random(f"{seed}/{split}")
    grammar = news_grammar(new_names=split == "test_new_names")
    rows = [_row(f"{split}-{i:05d}", grammar.sample(rng), grammar) for i in range(n_docs)]
    return Dataset.from_list(rows).select_columns(list(COLUMNS))


_OPTIONS = {"bundled": (), "articles": (), "files": ("columns", "encoding", "split_by", "on_error"),
            "hub": ("columns", "subset", "revision", "split", "streaming", "on_error")}


def load_corpus(source: str = "bundled", n_docs: int | None = None, seed: int = 2026, **options) -> DatasetDict:
    """载入语料，分成 train、validation、test；"bundled" 另有 test_new_names，篇数与 test 相同，专名全是训练时没见过的。

    参数：
        source: 四选一。
            "bundled"：课程自带的虚构新闻，现场生成；
            "articles"：课程自带的手写文章（utils/sources/articles.py）；
            "files:路径"：自己的文件，txt、jsonl、csv、tsv、parquet（utils/sources/files.py）；
            "hub:名字"：hub 上的数据集，要联网（utils/sources/hub.py）。
        n_docs: 三部分合计的篇数（test_new_names 不算在内）。"bundled" 至少 100，不写是 20,000；其余来源是最多读多少篇，不写是全部
            （hub 用 streaming=True 时不写是 20,000）。
        seed: 随机种子；对真数据，它决定怎样分三部分。
        **options: 各来源自己的选项。files：columns、encoding、split_by、on_error；
            hub：columns、subset、revision、split、streaming、on_error。意思见 load_files、load_hub 的说明。
    返回：
        DatasetDict；每篇至少有 id、category、title、intro、body，缺的是空串。"bundled" 另有 schema、nats_title、nats_intro、
        nats_body、facts(JSON)，"articles" 另有 style。验证与测试各占 1/20，最多各 1,000 篇；真数据按内容的哈希分，
        内容相同的文档必在同一部分。
    异常：
        ValueError: 不认识的 source 或选项、n_docs 不对，或数据有问题；说明里写着怎么办。
    """
    kind, colon, name = source.partition(":") if isinstance(source, str) else ("", "", "")
    if kind not in _OPTIONS or bool(colon) != (kind in ("files", "hub")):
        raise ValueError(f"不认识的语料来源「{source}」。可以写 \"bundled\"、\"articles\"、\"files:路径\" 或 \"hub:名字\"。")
    unknown = [o for o in options if o not in _OPTIONS[kind]]
    if unknown:
        usable = f"可以用的有：{'、'.join(_OPTIONS[kind])}" if _OPTIONS[kind] else "它没有别的选项"
        raise ValueError(f"来源「{kind}」没有这样的选项：{'、'.join(unknown)}。{usable}。")
    if n_docs is not None and (type(n_docs) is not int or n_docs < 1):
        raise ValueError(f"n_docs 要是正整数，得到的是 {n_docs!r}。")
    if kind == "bundled":
        return _bundled(20000 if n_docs is None else n_docs, seed)
    if kind == "articles":
        from utils.sources.articles import load_articles
        return load_articles(n_docs, seed)
    if kind == "files":
        from utils.sources.files import load_files
        return load_files(name, n_docs, seed, **options)
    from utils.sources.hub import load_hub
    return load_hub(name, n_docs, seed, **options)


def _bundled(n_docs: int, seed: int) -> DatasetDict:
    if n_docs < 100:
        raise ValueError(f"n_docs={n_docs} 太小，三个部分分不开。请至少用 100。")
    held = min(1000, n_docs // 20)
    sizes = {"train": n_docs - 2 * held, "validation": held, "test": held}
    return DatasetDict({split: generate(split, n, seed) for split, n in (sizes | {"test_new_names": held}).items()})


def floor(docs: Dataset, part: str = "body") -> dict[str, float]:
    """语料的下限：任何模型在这批文档上的平均损失，期望都不会低于它。

    按字符级词元计：每段末尾的 [SEP] 也是一个要预测的词元，所以词元数 = 字符数 + 1。

    参数：
        docs: load_corpus 的一个部分。
        part: "body" 表示「已知导语，写正文」；"all" 表示从头写导语和正文。
    返回：
        nats_per_token（奈特/词元）、bits_per_char（比特/字符）、nats_per_doc（奈特/篇），以及后两者 95% 置信区间的半宽
        ci95_bits_per_char、ci95_per_doc。
    异常：
        ValueError: part 不是 "body" 或 "all"。
    """
    if part not in ("body", "all"):
        raise ValueError(f"part 只能是 \"body\" 或 \"all\"，得到的是「{part}」。")
    pieces = ["body"] if part == "body" else ["intro", "body"]
    nats = [sum(row) for row in zip(*(docs[f"nats_{p}"] for p in pieces), strict=True)]
    chars = [sum(map(len, texts)) for texts in zip(*(docs[p] for p in pieces), strict=True)]
    tokens = sum(chars) + len(pieces) * len(nats)
    ratio = sum(nats) / sum(chars)
    off = [n - ratio * c for n, c in zip(nats, chars, strict=True)]              # 比值的误差，用 delta 法估计
    return {"nats_per_token": sum(nats) / tokens, "bits_per_char": ratio / math.log(2),
            "nats_per_doc": fmean(nats), "ci95_per_doc": _half_width(nats),
            "ci95_bits_per_char": _half_width(off) / fmean(chars) / math.log(2)}


def _half_width(values: list[float]) -> float:
    return 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


@lru_cache(maxsize=1)
def held_out() -> set[tuple[str, str]]:
    """课程的验证集、测试集里的（导语，正文），训练时不许见到。"""
    return {pair for split in ("validation", "test") for docs in [generate(split, 1000)]
            for pair in zip(docs["intro"], docs["body"], strict=True)}
