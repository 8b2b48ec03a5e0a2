"""清洗：一步只做一件事，按顺序做完，并记下每一步改了什么、删了什么。

改写的步骤是 str → str 的函数，在 utils/sources/characters.py；筛选的步骤是 str → bool 的函数，在这里；查重看整个数据集，在
utils/sources/dedup.py。给步骤换参数用标准库的 partial，例如 partial(length_ok, min_chars=50)。
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from os.path import commonprefix

from datasets import Dataset

from utils.display.tables import pad, width
from utils.sources.characters import HAN, KANA, normalize_width, require_text, reveal, squeeze_space, strip_invisible, to_simplified
from utils.sources.dedup import exact_duplicates, near_duplicates

COLUMNS = ("title", "intro", "body")

# ---------------------------------------------------------------- 筛选


def length_ok(text: str, min_chars: int = 10, max_chars: int = 100_000) -> bool:
    """长度合适吗：非空白字符数在 [min_chars, max_chars] 里。

    异常：
        ValueError: text 不是 str；界限不是整数，或不满足 0 ≤ min_chars ≤ max_chars。
    """
    if not (type(min_chars) is type(max_chars) is int and 0 <= min_chars <= max_chars):
        raise ValueError(f"长度的界限要是整数，且 0 ≤ min_chars ≤ max_chars，得到的是 {min_chars!r} 和 {max_chars!r}。")
    return min_chars <= len("".join(require_text(text, "length_ok").split())) <= max_chars


_LANGUAGE_UNIT = re.compile(f"(?P<han>[{HAN}])|(?P<kana>[{KANA}])|[^\\W\\d_{HAN}{KANA}]+")


def is_chinese(text: str, min_han: float = 0.5, max_kana: float = 0.1) -> bool:
    """主要是中文吗：只数文字，不数标点、数字、符号；一个汉字、一个假名、一串别的字母（一个英文词）各算一个单位。

    单看汉字的比例分不开日文（東京は日本の首都です：10 个单位里 6 个汉字），所以另看假名。几乎没有假名的日文标题认不出来；
    中文里偶尔一个「の」不要紧。

    参数：
        text: 一段文字。
        min_han: 汉字至少占几成，0 到 1。
        max_kana: 假名最多占几成，0 到 1。
    返回：
        True 或 False；一个单位也没有时是 False。
    异常：
        ValueError: text 不是 str，或比例不在 0 到 1 之间。
    """
    for name, share in (("min_han", min_han), ("max_kana", max_kana)):
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share <= 1:
            raise ValueError(f"比例 {name} 要在 0 到 1 之间，得到的是 {share!r}。")
    kinds = Counter(m.lastgroup for m in _LANGUAGE_UNIT.finditer(require_text(text, "is_chinese")))
    total = sum(kinds.values())
    return total > 0 and kinds["han"] >= min_han * total and kinds["kana"] <= max_kana * total


# ---------------------------------------------------------------- 报告

LABELS = {normalize_width: "统一全角半角", strip_invisible: "删去看不见的字符", to_simplified: "繁体转简体",
          squeeze_space: "整理空白", length_ok: "按长度筛选", is_chinese: "按语言筛选",
          exact_duplicates: "去掉完全重复", near_duplicates: "去掉近似重复"}
DEFAULT_STEPS = tuple(LABELS)
_EXAMPLES = 3


@dataclass
class StepReport:
    """一步的账。chars_removed 是这一步之后少了几个字符（改写与删篇都算；变多时是负数）；examples 是至多三对（前，后）。"""

    name: str
    label: str
    docs_in: int
    docs_rewritten: int = 0
    docs_removed: int = 0
    chars_removed: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def rewrote(self, before: dict[str, str], after: dict[str, str]) -> None:
        """记一篇改写：before、after 是 {列名: 文字}。"""
        self.docs_rewritten += 1
        for column, old in before.items():
            new = after[column]
            self.chars_removed += len(old) - len(new)
            if old != new and len(self.examples) < _EXAMPLES:
                start = max(0, len(commonprefix([old, new])) - 6)              # 从第一处不同的前面几个字起
                self.examples.append((old[start:start + 20], new[start:start + 20]))

    def removed(self, row: dict[str, str], shown: str, why: str) -> None:
        """记一篇删去：shown 是给人看的文字，why 是缘由。"""
        self.docs_removed += 1
        self.chars_removed += sum(map(len, row.values()))
        if len(self.examples) < _EXAMPLES:
            self.examples.append((shown[:20], why))


@dataclass
class Report:
    """clean 的账：steps 里一步一条，按执行的顺序。print(report) 打印成表。"""

    docs_in: int
    docs_out: int
    steps: list[StepReport]

    def __str__(self) -> str:
        """终端里对齐的表，下面附各步的例子，看不见的字符写成 ‹U+200B›。没有转义，放进网页要先用 html.escape。"""
        rows = [("步骤", "做什么", "进入篇数", "改写篇数", "删去篇数", "少了几个字符")]
        rows += [(reveal(s.name), s.label, f"{s.docs_in:,}", f"{s.docs_rewritten:,}", f"{s.docs_removed:,}", f"{s.chars_removed:,}")
                 for s in self.steps]
        columns = [max(map(width, column)) for column in zip(*rows, strict=True)]
        lines = [f"清洗：进入 {self.docs_in:,} 篇，留下 {self.docs_out:,} 篇。"]
        lines += ["  ".join(pad(cell, columns[i], right=i >= 2) for i, cell in enumerate(row)).rstrip() for row in rows]
        examples = [f"  {s.label}：{reveal(old)} → {reveal(new)}" for s in self.steps for old, new in s.examples]
        return "\n".join(lines + (["例子（前 → 后）："] + examples if examples else []))


# ---------------------------------------------------------------- 整个数据集


def _describe(step: Callable) -> tuple[str, str, str]:
    """一个步骤 →（名字，中文的说明，种类）；种类是 rewrite、keep、duplicates 之一，由试做一次的返回值决定。"""
    if not callable(step):
        raise ValueError(f"清洗的步骤要是函数，得到的是 {step!r}。现有的步骤：{'、'.join(f.__name__ for f in LABELS)}；"
                         "换参数请写 partial(length_ok, min_chars=50)。")
    function = step.func if isinstance(step, partial) else step
    name = getattr(function, "__name__", type(function).__name__)
    duplicates = function in (exact_duplicates, near_duplicates)
    try:
        result = step([] if duplicates else "中文")
    except TypeError as error:
        raise ValueError(f"步骤 {name} 试做「中文」时出错：{error}。请检查它的参数。") from error
    kind = "duplicates" if duplicates else {str: "rewrite", bool: "keep"}.get(type(result))
    if kind is None:
        raise ValueError(f"步骤 {name} 要返回 str（改写）或 True/False（筛选），得到的是 {type(result).__name__}。")
    options = ", ".join(f"{k}={v!r}" for k, v in step.keywords.items()) if isinstance(step, partial) else ""
    return name + (f"({options})" if options else ""), LABELS.get(function, "自定义"), kind


def _columns(docs: Dataset, columns: Sequence[str] | None) -> list[str]:
    """要清洗哪些列；顺便检查 docs。"""
    if not isinstance(docs, Dataset):
        raise ValueError(f"clean 要的是一个 Dataset，得到的是 {type(docs).__name__}。请一次传一个部分，例如 corpus['train']。")
    have = "、".join(docs.column_names)
    if columns is None:
        columns = [c for c in COLUMNS if c in docs.column_names]
    columns = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns))
    if not columns:
        raise ValueError(f"没有要清洗的列：{'、'.join(COLUMNS)} 一列也没有，有的是「{have}」。请写明，例如 columns=['text']。")
    missing = [c for c in columns if c not in docs.column_names]
    if missing:
        raise ValueError(f"数据集里没有「{'、'.join(missing)}」这一列，它有的是「{have}」。请检查 columns。")
    if len(docs) == 0:
        raise ValueError("数据集是空的，一篇也没有。请检查文件的路径，或前面的筛选是否太严。")
    return columns


@dataclass
class Doc:
    """清洗途中的一篇：index 是在原数据集里的下标（从 0 起），texts 是 {列名: 文字}。"""

    index: int
    texts: dict[str, str]

    @property
    def main(self) -> str:
        """筛选和查重看的文字：标题以外的各列，一列一行；只有标题时看标题。"""
        return "\n".join(text for column, text in self.texts.items() if column != "title" or len(self.texts) == 1)


def clean(docs: Dataset, steps: Sequence[Callable] = DEFAULT_STEPS, columns: Sequence[str] | None = None) -> tuple[Dataset, Report]:
    """按顺序做各步清洗。改写用到每个要清洗的列；筛选和查重看标题以外的各列（连起来），只有标题时看标题。

    参数：
        docs: 一个部分，例如 load_corpus()["train"]；要清洗的列会全部读进内存。
        steps: 一串函数：str → str 是改写，str → bool 是筛选（False 就删去），或者 dedup 里的两个查重函数。
        columns: 要清洗的列；None 表示 title、intro、body 中有的。其余的列不动（自带语料的 nats_* 说的仍是原文）。
    返回：
        （清洗后的 Dataset，Report）；列的名字、顺序和类型不变。
    异常：
        ValueError: docs 不是 Dataset 或是空的、没有要清洗的列、有一格不是 str，或步骤写错。
    """
    if callable(steps) or isinstance(steps, str):
        raise ValueError("steps 要是一串步骤，只有一步时也请写成 [步骤]。")
    plan = [(step, *_describe(step)) for step in steps]
    columns = _columns(docs, columns)
    rows = enumerate(docs.select_columns(columns))
    kept = [Doc(i, {c: require_text(row[c], f"下标 {i} 的 {c}") for c in columns}) for i, row in rows]
    report = Report(len(docs), len(docs), [])
    for step, name, label, kind in plan:
        account = StepReport(name, label, docs_in=len(kept))
        report.steps.append(account)
        if kind == "rewrite":
            for doc in kept:
                before, doc.texts = doc.texts, {c: require_text(step(t), f"步骤 {name} 的返回值") for c, t in doc.texts.items()}
                if doc.texts != before:
                    account.rewrote(before, doc.texts)
            continue
        mains = [doc.main for doc in kept]
        if kind == "keep":
            gone = {n: "（删去）" for n, text in enumerate(mains) if not step(text)}
        else:
            gone = {n: f"（删去，与下标 {kept[first].index} 的那篇重复）" for n, first in step(mains).items()}
        for n, why in gone.items():
            account.removed(kept[n].texts, mains[n], why)
        kept = [doc for n, doc in enumerate(kept) if n not in gone]
    report.docs_out = len(kept)
    left = {doc.index: doc.texts for doc in kept}
    new = {f"{c}（新）": c for c in columns}                # 先加后删：删光了列，datasets 就忘了有几行
    out = docs
    for name, c in new.items():
        out = out.add_column(name, [left[i][c] if i in left else "" for i in range(len(docs))], feature=docs.features[c])
    out = out.remove_columns(columns).rename_columns(new).select_columns(docs.column_names)
    return out.select(list(left)), report
