"""文档：把外来的一行行数据变成课程的五列（id、category、title、intro、body），坏行怎么办也在这里。

文件（utils/sources/files.py）与 hub（utils/sources/hub.py）共用这里的规则；变成文档以后怎样分成三部分，见 utils/sources/store.py。
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

COLUMNS = ("id", "category", "title", "intro", "body")
MAX_CHARS = 1_000_000                                      # 一篇文档最多多少字；再长多半是切分的方式不对
_SENTENCE = re.compile(r"[^。！？!?…]*[。！？!?…]+[”’」』）】》]*")


class BadRow(Exception):
    """一行数据坏了；说明里写着坏在哪里。由 on_error 决定是停下还是跳过。"""


def split_text(text: str) -> tuple[str, str]:
    """没有分出导语和正文的文字，怎样切。

    有两段以上：第一段是导语，其余各段是正文，段与段之间留一个换行。只有一段：第一句（到句号、问号、叹号或省略号，
    连同后面的引号）是导语，其余是正文。只有一句：全是导语，正文为空。每段首尾的空白（含全角空格）都去掉。

    返回：
        （导语，正文）。
    """
    paragraphs = [p for p in (line.strip() for line in text.splitlines()) if p]
    if len(paragraphs) > 1:
        return paragraphs[0], "\n".join(paragraphs[1:])
    only = paragraphs[0] if paragraphs else ""
    first = _SENTENCE.match(only)
    cut = first.end() if first else len(only)
    return only[:cut].strip(), only[cut:].strip()


def column_map(columns: dict[str, str] | None, present: Iterable[str]) -> dict[str, str]:
    """课程的列 → 数据里的列。不给 columns 时取同名的列（没有 intro、body 时另认 text）；给了就只用给出的。

    参数：
        columns: 例如 {"title": "标题", "body": "内容"}；{"text": "内容"} 表示这一列还没分导语和正文，按 split_text 来切。
        present: 数据里有哪些列。
    返回：
        同样形式的字典。
    异常：
        BadRow: 缺列，或没有一列认得。
    """
    names = list(present)
    shown = "、".join(map(str, names[:20])) or "（一列也没有）"
    if columns is None:
        found = {c: c for c in COLUMNS if c in names}
        if "intro" not in found and "body" not in found and "text" in names:
            found["text"] = "text"
        if not set(found) - {"id", "category"}:
            raise BadRow(f"没有 title、intro、body、text 中的任何一列，有的是：{shown}。请用 columns= 说明怎样对应，"
                         "例如 columns={\"title\": \"标题\", \"text\": \"内容\"}")
        return found
    missing = [c for c in columns.values() if c not in names]
    if missing:
        raise BadRow(f"缺少 columns= 里写的列：{'、'.join(missing)}。有的是：{shown}")
    return columns


def column_map_or_stop(source: str, columns: dict[str, str] | None, names: Iterable[str]) -> dict[str, str]:
    """整个文件共用一份列名时用：同 column_map，但缺列就报 ValueError（跳过坏行也救不了）。source 是报错时的名字。"""
    try:
        return column_map(columns, names)
    except BadRow as error:
        raise ValueError(f"「{source}」{error}。") from error


def check_columns(columns: dict[str, str] | None) -> None:
    """columns= 写得对不对；不对时报 ValueError。"""
    allowed = (*COLUMNS, "text")
    fine = isinstance(columns, dict) and columns and all(isinstance(v, str) for v in columns.values())
    if columns is not None and not fine:
        raise ValueError(f"columns 要写成 {{\"课程的列\": \"数据里的列\"}}，例如 {{\"title\": \"标题\"}}，得到的是 {columns!r}。")
    unknown = [str(c) for c in columns or () if c not in allowed]
    if unknown:
        raise ValueError(f"columns 的键只能是 {'、'.join(allowed)}，不认识：{'、'.join(unknown)}。")
    if columns and "text" in columns and {"intro", "body"} & set(columns):
        raise ValueError("columns 里写了 text（由程序切成导语和正文），就不要再写 intro 或 body。")
    if columns and not set(columns) - {"id", "category"}:
        raise ValueError("columns 里至少要有 title、intro、body、text 中的一个，光有 id、category 没有文字可用。")


def check_choice(name: str, value, choices: tuple) -> None:
    """选项的值是不是几个里的一个；不是就报 ValueError。"""
    if value not in choices:
        raise ValueError(f"{name} 只能是 {' 或 '.join(map(repr, choices))}，得到的是 {value!r}。")


def _cell(value, column: str) -> str:
    if value is None or isinstance(value, float) and value != value:       # NaN 是表格里的空格
        return ""
    if not isinstance(value, (str, int, float)):
        raise BadRow(f"「{column}」不是文字，是 {type(value).__name__}")
    text = str(value).strip()
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"「{column}」里有半个代理字符（例如孤立的 \\ud83d），写不成 UTF-8") from None
    return text


def to_document(row: dict, mapping: dict[str, str]) -> dict[str, str] | None:
    """一行数据 → 五列都是 str 的文档，缺的填空串；标题、导语、正文全空时返回 None。"""
    cells = {c: _cell(row.get(name), name) for c, name in mapping.items()}
    if "text" in cells:
        cells["intro"], cells["body"] = split_text(cells.pop("text"))
    if sum(map(len, cells.values())) > MAX_CHARS:
        raise BadRow(f"一篇超过 {MAX_CHARS:,} 个字，多半不是一篇文章")
    document = {c: cells.get(c, "") for c in COLUMNS}
    return document if document["title"] or document["intro"] or document["body"] else None


class Ledger:
    """一次读取的账：坏行按 on_error 停下，或跳过并记下是哪几行；空文档也记数。

    属性：
        report: 可以存成 JSON 的字典，键是 skipped（坏行数）、first_skipped（前 5 个的号码）、empty（空文档数）。
    """

    def __init__(self, name: str, on_error: str, unit: str = "行") -> None:
        check_choice("on_error", on_error, ("stop", "skip"))
        self.name, self.on_error, self.unit = name, on_error, unit
        self.report = {"unit": unit, "skipped": 0, "first_skipped": [], "empty": 0}

    def bad(self, number: int, why: str) -> None:
        """第 number 行坏了。on_error 是 "stop" 时报 ValueError。"""
        if self.on_error == "stop":
            raise ValueError(f"「{self.name}」第 {number} {self.unit}：{why}。"
                             f"请改好这一{self.unit}，或用 on_error=\"skip\" 跳过坏{self.unit}、留下其余的。")
        self.report["skipped"] += 1
        self.report["first_skipped"] = (self.report["first_skipped"] + [number])[:5]

    def documents(self, rows: Iterable[tuple[int, dict]], columns: dict[str, str] | None, prefix: str) -> Iterator[dict[str, str]]:
        """（号码，一行数据）→ 逐篇文档；id 缺的用「prefix-序号」。"""
        order = 0
        for number, row in rows:
            try:
                document = to_document(row, column_map(columns, row))
            except BadRow as error:
                self.bad(number, str(error))
                continue
            if document is None:
                self.report["empty"] += 1
                continue
            document["id"] = document["id"] or f"{prefix}-{order:06d}"
            order += 1
            yield document


def skipped_text(report: dict) -> str:
    """「跳过 3 个坏行：第 9、19、39 行」。"""
    unit, shown = report["unit"], report["first_skipped"]
    return (f"跳过 {report['skipped']:,} 个坏{unit}：第 {'、'.join(map(str, shown))} {unit}"
            + ("等" if report["skipped"] > len(shown) else ""))


def summary(said: list[str], sizes: dict[str, int], report: dict, cached: bool) -> str:
    """读完以后打印的一行：来源的说明、篇数、跳过了什么。"""
    parts = [*said, f"共 {sum(sizes.values()):,} 篇（{'，'.join(f'{s} {n:,}' for s, n in sizes.items())}）"]
    parts += [skipped_text(report)] if report["skipped"] else []
    parts += [f"丢掉 {report['empty']:,} 篇空的"] if report["empty"] else []
    return "；".join(parts) + ("；用的是上次读好的缓存。" if cached else "。")
