"""语料：课程自带的虚构地方新闻，下限（floor）精确可知；同一个 load_corpus 也装载手写文章、自己的文件和 hub 上的数据集。

`python -m utils.corpus stats` 打印语料的统计（JSON）；`python -m utils.corpus show 5` 打印几篇样例。
"""

from __future__ import annotations

import argparse
import json
import math
from functools import lru_cache
from random import Random
from statistics import fmean, stdev

from datasets import Dataset, DatasetDict

from utils.environment import DATA
from utils.grammar import Derivation, Grammar

COLUMNS = ("id", "category", "schema", "title", "intro", "body", "nats_title", "nats_intro", "nats_body", "facts")


@lru_cache(maxsize=1)
def news_grammar() -> Grammar:
    """课程自带的新闻语法（读一次就记住）。"""
    return Grammar(DATA / "news")


def _type(variable) -> str:
    return variable.spec if variable.kind == "lex" else variable.kind


def _row(identity: str, d: Derivation) -> dict:
    facts = [{"name": name, "value": value, "type": _type(d.schema.variables[name]),
              "in": [part for part in ("intro", "body", "title") if name in d.seen[part]]}
             for name, value in d.values.items()]
    return {"id": identity, "category": d.schema.category, "schema": d.schema.name, **d.texts,
            **{f"nats_{part}": -d.log_p[part] for part in d.texts}, "facts": json.dumps(facts, ensure_ascii=False)}


def generate(split: str, n_docs: int, seed: int = 2026) -> Dataset:
    """生成一个部分（split）的前 n_docs 篇。同样的 seed 和 split，前面的文档总是一样。

    参数：
        split: "train"、"validation" 或 "test"；各用自己的随机数流。
        n_docs: 篇数。
        seed: 随机种子。
    返回：
        Dataset，列见 COLUMNS；nats_* 是各段的精确 −log p（奈特）。
    """
    rng = Random(f"{seed}/{split}")
    grammar = news_grammar()
    rows = [_row(f"{split}-{i:05d}", grammar.sample(rng)) for i in range(n_docs)]
    return Dataset.from_list(rows).select_columns(list(COLUMNS))


_OPTIONS = {"bundled": (), "articles": (), "files": ("columns", "encoding", "split_by", "on_error"),
            "hub": ("columns", "subset", "revision", "split", "streaming", "on_error")}


def load_corpus(source: str = "bundled", n_docs: int | None = None, seed: int = 2026, **options) -> DatasetDict:
    """载入语料，分成 train、validation、test。

    参数：
        source: 四选一。
            "bundled"：课程自带的虚构新闻，现场生成；
            "articles"：课程自带的手写文章（utils/articles.py）；
            "files:路径"：自己的文件，txt、jsonl、csv、tsv、parquet（utils/files.py）；
            "hub:名字"：hub 上的数据集，要联网（utils/hub.py）。
        n_docs: 三部分合计的篇数。"bundled" 至少 100，不写是 20,000；其余来源是最多读多少篇，不写是全部
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
        from utils.articles import load_articles
        return load_articles(n_docs, seed)
    if kind == "files":
        from utils.files import load_files
        return load_files(name, n_docs, seed, **options)
    from utils.hub import load_hub
    return load_hub(name, n_docs, seed, **options)


def _bundled(n_docs: int, seed: int) -> DatasetDict:
    if n_docs < 100:
        raise ValueError(f"n_docs={n_docs} 太小，三个部分分不开。请至少用 100。")
    held = min(1000, n_docs // 20)
    sizes = {"train": n_docs - 2 * held, "validation": held, "test": held}
    return DatasetDict({split: generate(split, n, seed) for split, n in sizes.items()})


def floor(docs: Dataset, part: str = "body") -> dict[str, float]:
    """语料的下限：任何模型在这批文档上的平均损失，期望都不会低于它。

    按字符级词元计：每段末尾的 [SEP] 也是一个要预测的词元，所以词元数 = 字符数 + 1。

    参数：
        docs: load_corpus 的一个部分。
        part: "body" 表示「已知导语，写正文」；"all" 表示从头写导语和正文。
    返回：
        nats_per_token（奈特/词元）、bits_per_char（比特/字符）、nats_per_doc 及其 95% 置信区间半宽 ci95_per_doc。
    异常：
        ValueError: part 不是 "body" 或 "all"。
    """
    if part not in ("body", "all"):
        raise ValueError(f"part 只能是 \"body\" 或 \"all\"，得到的是「{part}」。")
    pieces = ["body"] if part == "body" else ["intro", "body"]
    nats = [sum(row) for row in zip(*(docs[f"nats_{p}"] for p in pieces), strict=True)]
    chars = sum(len(text) for p in pieces for text in docs[p])
    tokens = chars + len(pieces) * len(nats)
    spread = stdev(nats) if len(nats) > 1 else math.nan
    return {"nats_per_token": sum(nats) / tokens, "bits_per_char": sum(nats) / math.log(2) / chars,
            "nats_per_doc": fmean(nats), "ci95_per_doc": 1.96 * spread / math.sqrt(len(nats))}


def stats(n_docs: int = 20000) -> dict:
    """语料的统计：数据卡里的每个数都由这里算出。"""
    corpus, grammar = load_corpus(n_docs=n_docs), news_grammar()
    rows = [row for split in corpus.values() for row in split]
    keys = [(row["intro"], row["body"]) for row in rows]
    text = "".join(row["title"] + row["intro"] + row["body"] for row in rows)
    words = {w for s in grammar.schemas for v in s.variables.values() if v.kind == "lex"
             for w in grammar.lexicons[v.spec].words}
    return {"documents": len(rows), "characters": len(text), "distinct_characters": len(set(text)),
            "categories": len({s.category for s in grammar.schemas}), "schemas": len(grammar.schemas),
            "lexicon": len(words), "entropy_bits_per_char": floor(corpus["train"], "all")["bits_per_char"],
            "body_given_intro_bits_per_char": floor(corpus["train"], "body")["bits_per_char"],
            "mean_intro_chars": fmean(len(r["intro"]) for r in rows),
            "mean_body_chars": fmean(len(r["body"]) for r in rows),
            "max_pair_chars": max(len(r["intro"] + r["body"]) for r in rows), "duplicates": len(keys) - len(set(keys))}


def main() -> None:
    """命令行入口。"""
    parser = argparse.ArgumentParser(description="课程自带的语料")
    parser.add_argument("command", choices=["stats", "show"])
    parser.add_argument("n", nargs="?", type=int, default=None, help="stats：篇数；show：样例数")
    args = parser.parse_args()
    if args.command == "stats":
        print(json.dumps(stats(args.n or 20000), ensure_ascii=False, indent=2))
        return
    for row in generate("train", args.n or 5):
        print(f"【{row['category']} · {row['schema']}】{row['title']}\n导语：{row['intro']}\n正文：{row['body']}\n"
              f"−log p：导语 {row['nats_intro']:.2f}，正文 {row['nats_body']:.2f} 奈特\n")


if __name__ == "__main__":
    main()
