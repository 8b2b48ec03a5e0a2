"""手写文章：`load_corpus("articles")`。课程专门写的自然文章，默认不拿来训练，用来对照「真正的文章」是什么样。

文章在 data/articles/*.jsonl，一行一篇。
"""

from __future__ import annotations

import json
from pathlib import Path

from datasets import DatasetDict

from utils.paths import DATA
from utils.sources.store import split_documents

KEYS = ("id", "category", "style", "title", "intro", "body")


def read_articles(folder: Path = DATA / "articles") -> list[dict[str, str]]:
    """读文件夹里所有的 *.jsonl，按文件名、行号的次序。

    返回：
        一列字典，键是 id、category、style、title、intro、body，值都是非空的 str。
    异常：
        ValueError: 没有文章，某一行写坏了，或 id 有重复；说明里有文件名和行号。
    """
    rows, seen = [], {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
            if not line.strip():
                continue
            where = f"{path.name} 第 {number} 行"
            try:
                row = json.loads(line)
            except ValueError:
                raise ValueError(f"{where}不是完整的 JSON。请改好这一行。") from None
            bad = [k for k in KEYS if not (isinstance(row, dict) and isinstance(row.get(k), str) and row[k].strip())]
            if bad:
                raise ValueError(f"{where}缺少这些键，或者值不是文字：{'、'.join(bad)}。每一行都要有：{'、'.join(KEYS)}。")
            if row["id"] in seen:
                raise ValueError(f"{where}的 id「{row['id']}」与 {seen[row['id']]}重复。请改成没有用过的 id。")
            seen[row["id"]] = where
            rows.append({k: row[k] for k in KEYS})
    if not rows:
        raise ValueError(f"{folder} 里还没有文章（*.jsonl）。请检查 data/articles 是不是完整。")
    return rows


def load_articles(n_docs: int | None = None, seed: int = 2026) -> DatasetDict:
    """手写文章，按内容的哈希分成 train、validation、test；篇数少，验证与测试各约 1/20，各至少一篇。

    参数：
        n_docs: 最多取多少篇；None 表示全部。
        seed: 决定怎样分三部分。
    返回：
        DatasetDict；列是 id、category、style、title、intro、body。
    异常：
        ValueError: 没有文章，或文章写坏了。
    """
    return split_documents(read_articles()[:n_docs], seed)
