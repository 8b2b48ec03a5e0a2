"""语料的统计（JSON）：`python -m tools.corpus.show stats`；几篇样例：`python -m tools.corpus.show show 5`。"""

from __future__ import annotations

import argparse
import json
from statistics import fmean

from utils.corpus.news import floor, generate, load_corpus, news_grammar


def stats(n_docs: int = 60000) -> dict:
    """语料的统计：数据卡里的每个数都由这里算出。

    参数：
        n_docs: 训练、验证、测试合计的篇数；test_new_names 也统计在 duplicates 里。
    """
    corpus, grammar = load_corpus(n_docs=n_docs), news_grammar()
    rows = [row for split, docs in corpus.items() if split != "test_new_names" for row in docs]
    keys = [pair for docs in corpus.values() for pair in zip(docs["intro"], docs["body"], strict=True)]
    seen = {split: set(zip(docs["intro"], docs["body"], strict=True)) for split, docs in corpus.items()}
    text = "".join(row["title"] + row["intro"] + row["body"] for row in rows)
    lexicons = [grammar.lexicons[name] for name in sorted({v.spec for s in grammar.schemas for v in s.variables.values()
                                                           if v.kind == "lex"})]
    words = {w for table in lexicons for w in table.words}
    new = {w for table in lexicons for w, _, _ in table.new}
    written = {w for table in grammar.lexicons.values() if table.written for w in table.words}
    whole, body = floor(corpus["train"], "all"), floor(corpus["train"], "body")
    return {"documents": len(rows), "characters": len(text), "distinct_characters": len(set(text)),
            "distinct_han": sum("\u4e00" <= c <= "\u9fff" for c in set(text)),
            "categories": len({s.category for s in grammar.schemas}), "schemas": len(grammar.schemas),
            "lexicon": len(words), "lexicon_written": len(written), "lexicon_new_names": len(new), "lexicon_files": len(lexicons),
            "entropy_nats_per_doc": whole["nats_per_doc"], "entropy_nats_per_doc_ci95": whole["ci95_per_doc"],
            "entropy_bits_per_char": whole["bits_per_char"], "entropy_bits_per_char_ci95": whole["ci95_bits_per_char"],
            "body_given_intro_bits_per_char": body["bits_per_char"],
            "body_given_intro_bits_per_char_ci95": body["ci95_bits_per_char"],
            "mean_intro_chars": fmean(len(r["intro"]) for r in rows),
            "mean_body_chars": fmean(len(r["body"]) for r in rows),
            "max_pair_chars": max(len(r["intro"] + r["body"]) for r in rows),
            "duplicates": len(keys) - len(set(keys)),
            "duplicates_between_splits": sum(map(len, seen.values())) - len(set().union(*seen.values()))}


def main() -> None:
    """命令行入口。"""
    parser = argparse.ArgumentParser(description="课程自带的语料")
    parser.add_argument("command", choices=["stats", "show"])
    parser.add_argument("n", nargs="?", type=int, default=None, help="stats：篇数；show：样例数")
    args = parser.parse_args()
    if args.command == "stats":
        print(json.dumps(stats(args.n or 60000), ensure_ascii=False, indent=2))
        return
    for row in generate("train", args.n or 5):
        print(f"【{row['category']} · {row['schema']}】{row['title']}\n导语：{row['intro']}\n正文：{row['body']}\n"
              f"−log p：导语 {row['nats_intro']:.2f}，正文 {row['nats_body']:.2f} 奈特\n")


if __name__ == "__main__":
    main()
