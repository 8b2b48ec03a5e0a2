"""语法体检：写好一个类别之后跑一遍，逐条指出哪里不合规矩。

    python -m tools.corpus.grammar_check                          # 全部类别
    python -m tools.corpus.grammar_check --category 天气 --show 3    # 只查一个类别，每个模式另印 3 篇

查四件事：能不能读、有没有歧义（tools/corpus/ambiguity.py）、篇幅与标点（每个模式抽 200 篇）、正文有没有照抄导语的事实。
"""

from __future__ import annotations

import argparse
import re
import sys
from itertools import product
from pathlib import Path
from random import Random

from tools.corpus.ambiguity import AmbiguityChecker
from utils.corpus.grammar import Derivation, Grammar, always_mentioned
from utils.corpus.lexicon import GrammarError
from utils.paths import DATA

SENTENCE_END = re.compile(r"[。！？](?!”)|[。！？]”")
BODY_CHARS, BODY_SENTENCES, PAIR_CHARS, TITLE_CHARS = (60, 200), (2, 5), 253, 30


def sentences(text: str) -> int:
    """一段文字有几句：数句末的句号、叹号、问号；引语里句中的叹号与问号不单算一句。"""
    outside = re.sub(r"“[^”]*”", lambda m: "“" + m[0][-2:] if m[0][-2] in "。！？" else "“”", text)
    return len(SENTENCE_END.findall(outside))


def _in_gb2312(char: str) -> bool:
    try:
        return bool(char.encode("gb2312"))
    except UnicodeEncodeError:
        return False


def document_problems(d: Derivation) -> list[str]:
    """一篇文档有哪些不合规矩的地方：篇幅、句数、标点、没填上的记号、重复的事实。"""
    found, intro, body = [], d.texts["intro"], d.texts["body"]
    if not BODY_CHARS[0] <= len(body) <= BODY_CHARS[1]:
        found.append(f"正文 {len(body)} 字，要在 {BODY_CHARS[0]} 到 {BODY_CHARS[1]} 之间")
    if not BODY_SENTENCES[0] <= sentences(body) <= BODY_SENTENCES[1]:
        found.append(f"正文 {sentences(body)} 句，要在 {BODY_SENTENCES[0]} 到 {BODY_SENTENCES[1]} 之间")
    if len(intro) + len(body) > PAIR_CHARS:
        found.append(f"导语加正文 {len(intro) + len(body)} 字，超过 {PAIR_CHARS}")
    if len(d.texts["title"]) > TITLE_CHARS:
        found.append(f"标题 {len(d.texts['title'])} 字，超过 {TITLE_CHARS}")
    if not d.seen["intro"] & d.seen["body"]:
        found.append("正文没有提到导语里的任何一件事实")
    for part, text in d.texts.items():
        if half := re.findall(r"[,;?!()'\"\[\]{}|<>]|(?<!\d)[.:]|[.:](?!\d)", text):
            found.append(f"{part} 里有半角标点或漏出来的记号 {''.join(half)}")
        if part != "title" and " " in text:
            found.append(f"{part} 里有空格")
        if doubled := ["".join(p) for p in product("，。：；、！？", repeat=2) if "".join(p) in text]:
            found.append(f"{part} 里标点连着写：{'、'.join(doubled)}")
        if re.search(r"[：；、]”|[，。：；、][）》]|“[，。：；、]|^[，。：；、]", text):
            found.append(f"{part} 里标点与引号的次序不对")
        if text.count("“") != text.count("”") or text.count("《") != text.count("》"):
            found.append(f"{part} 里引号或书名号不成对")
        if rare := [c for c in dict.fromkeys(text) if "\u4e00" <= c <= "\u9fff" and not _in_gb2312(c)]:
            found.append(f"{part} 里有 GB 2312 之外的字，自带的字体画不出：{''.join(rare)}")
        if part != "title" and text[-1] not in "。！？”）":
            found.append(f"{part} 没有收尾的标点")
    return found


def problems(grammar: Grammar, category: str | None = None, n_docs: int = 200) -> list[str]:
    """查一套语法。

    参数：
        grammar: 语法。
        category: 只查这个类别；不写就全查。
        n_docs: 每个模式抽多少篇。
    返回：
        每个问题一句中文；没有问题是空列表。
    """
    chosen = [s for s in grammar.schemas if category in (None, s.category)]
    found = AmbiguityChecker(grammar).problems(chosen)
    for schema in chosen:
        where = f"{schema.category}/{schema.name}"
        if not always_mentioned(schema.parts["body"]) & always_mentioned(schema.parts["intro"]):
            found.append(f"{where}：没有一件事实是导语和正文必定都提到的。")
        seen = set()
        rng = Random(f"体检/{where}")
        for _ in range(n_docs):
            try:
                d = grammar.sample(rng, schema)
            except GrammarError as error:
                found.append(str(error))
                break
            for problem in document_problems(d):
                kind = re.sub(r"\d+", "", problem)
                if kind not in seen:                  # 同一种毛病只报一次，附上那一篇
                    seen.add(kind)
                    found.append(f"{where}：{problem}。\n    导语：{d.texts['intro']}\n    正文：{d.texts['body']}")
    return found


def main() -> None:
    """命令行入口。"""
    parser = argparse.ArgumentParser(description="语法体检")
    parser.add_argument("folder", nargs="?", type=Path, default=DATA / "news", help="语法的文件夹")
    parser.add_argument("--category", help="只查这个类别")
    parser.add_argument("--show", type=int, default=0, help="每个模式另印几篇")
    parser.add_argument("--seed", type=int, default=0, help="印样例用的随机种子")
    args = parser.parse_args()
    try:
        grammar = Grammar(args.folder)
    except GrammarError as error:
        sys.exit(f"读不了：{error}")
    chosen = [s for s in grammar.schemas if args.category in (None, s.category)]
    if not chosen:
        sys.exit(f"没有「{args.category}」这个类别。有的是：{'、'.join(sorted({s.category for s in grammar.schemas}))}。")
    found = problems(grammar, args.category)
    print("\n".join(found))
    print(f"{len(chosen)} 个模式，{len(found)} 个问题。")
    for schema in chosen:
        rng = Random(f"{args.seed}/{schema.name}")
        for _ in range(args.show):
            d = grammar.sample(rng, schema)
            print(f"【{schema.category} · {schema.name}】{d.texts['title']}\n导语：{d.texts['intro']}\n正文：{d.texts['body']}\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
