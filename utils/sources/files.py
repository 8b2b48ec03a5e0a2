"""自己的文件：`load_corpus("files:路径")`。支持 txt、jsonl、csv、tsv、parquet；一行一行地读，多大的文件都只占一点内存。

读好的文档存在 datasets 的缓存文件夹里；文件或选项没变，再读就直接打开。切导语、坏行的规则见 utils/sources/documents.py，
分三部分的规则见 utils/sources/store.py。
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetDict

from utils.sources.documents import MAX_CHARS, Ledger, check_choice, check_columns, column_map_or_stop, summary
from utils.sources.encodings import Encoding, detect_encoding, named_encoding
from utils.sources.store import open_store, store_folder, write_store

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
_MAX_BYTES = 4 * MAX_CHARS                                 # 一行最多多少字节


def _check_path(text: str) -> Path:
    """路径能不能读；不能时报一句说清楚的 ValueError。"""
    if not text.strip():
        raise ValueError("files: 后面没有写路径。请写成 load_corpus(\"files:文件夹/文件.jsonl\")。")
    path = Path(text).expanduser()
    try:
        return _check_existing(path, text)
    except OSError as error:
        raise ValueError(f"打不开「{text}」：{error.strerror}。请检查权限，或者它是不是正被别的程序占用。") from error


def _check_existing(path: Path, text: str) -> Path:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        shown = f"里面可以读的有：{'、'.join(inside[:5])}{'……' if len(inside) > 5 else ''}" if inside else "里面没有可以读的文件。"
        raise ValueError(f"「{text}」是一个文件夹，files: 一次读一个文件。{shown}")
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        raise ValueError(f"找不到文件「{text}」（现在的文件夹是 {Path.cwd()}）。" + (f"是不是「{near[0]}」？" if near else "请检查路径。"))
    if path.suffix.lower() not in SUFFIXES:
        hint = {".json": "一个 JSON 数组请改存成 jsonl：一行一个对象。", ".gz": "请先解压。", ".xlsx": "请在表格软件里另存为 CSV UTF-8。",
                ".docx": "请另存为纯文本。"}.get(path.suffix.lower(), "")
        raise ValueError(f"不认识「{path.name}」的扩展名。可以读的有：{'、'.join(s[1:] for s in SUFFIXES)}。{hint}")
    if not path.is_file():
        raise ValueError(f"「{text}」不是普通文件（也许是管道或设备）。请先存成文件。")
    with open(path, "rb") as f:
        if not f.read(64).removeprefix(b"\xef\xbb\xbf").strip() and not any(map(bytes.strip, f)):
            raise ValueError(f"「{path.name}」是空文件，没有可读的文字。")
    return path


class _Reader:
    """读一个文件：给出（行号，一行数据）；坏行交给 ledger。"""

    def __init__(self, path: Path, encoding: Encoding | None, columns, split_by: str, on_error: str) -> None:
        self.path, self.encoding, self.columns, self.split_by = path, encoding, columns, split_by
        self.ledger = Ledger(path.name, on_error, "条" if encoding is None else "行")
        self._first = None                                 # csv 的一条可以占几行：它从哪一行起

    def lines(self) -> Iterator[tuple[int, str]]:
        """（行号，这一行的文字，带换行符）。换行字节不会出现在这几种编码的汉字里面，所以可以先切行、再解码。"""
        codec = self.encoding.codec.removesuffix("-sig")
        with open(self.path, "rb") as f:
            number, raw = 0, f.readline(_MAX_BYTES)
            if raw.startswith(b"\xef\xbb\xbf") and codec == "utf-8":
                raw = raw[3:]
            while raw:
                number += 1
                if len(raw) >= _MAX_BYTES - 3 and not raw.endswith(b"\n"):
                    raise ValueError(f"「{self.path.name}」第 {number} 行超过 {_MAX_BYTES:,} 字节，不像是文章。请检查换行，或先把它切开。")
                self._first = self._first or number
                try:
                    yield number, raw.decode(codec)
                except UnicodeDecodeError as error:
                    self.ledger.bad(number, f"按 {self.encoding.name} 解不开（第 {error.start + 1} 个字节是 0x{raw[error.start]:02X}）")
                raw = f.readline(_MAX_BYTES)

    def texts(self) -> Iterator[tuple[int, dict]]:
        """txt：（起始行号，{"text": 一篇}）。split_by="blank" 以空行分篇，"line" 一行一篇。"""
        start, block, size = 0, [], 0
        for number, line in self.lines():
            if line.strip():
                start, size = start if block else number, size + len(line)
                block.append(line.strip() + "\n")
                if size > MAX_CHARS:
                    raise ValueError(f"「{self.path.name}」从第 {start} 行起的一篇超过 {MAX_CHARS:,} 个字：中间没有空行。"
                                     "若是一行一篇，请写 split_by=\"line\"。")
            if block and (self.split_by == "line" or not line.strip()):
                yield start, {"text": "".join(block)}
                block, size = [], 0
        if block:
            yield start, {"text": "".join(block)}

    def objects(self) -> Iterator[tuple[int, dict]]:
        """jsonl：（行号，对象）。"""
        for number, line in self.lines():
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                where = f"第 {error.colno} 个字符附近" if isinstance(error, json.JSONDecodeError) else "数字太长或嵌套太深"
                self.ledger.bad(number, f"不是完整的 JSON（{where}）")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                self.ledger.bad(number, f"应当是一个 JSON 对象 {{…}}，得到的是 {type(row).__name__}")

    def table(self) -> Iterator[tuple[int, dict]]:
        """csv、tsv：（行号，{列名: 格}），第一行是列名。"""
        csv.field_size_limit(MAX_CHARS)                    # 引号没配对时，至多吞下这么多就停
        reader = csv.reader((line for _, line in self.lines()), delimiter="," if self.path.suffix.lower() == ".csv" else "\t", strict=True)
        header = None
        while True:
            self._first = None
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.ledger.bad(self._first, f"起的一条读不通，多半是引号没有配对（{error}）")
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                twice = sorted({c for c in header if header.count(c) > 1})
                if twice:
                    raise ValueError(f"「{self.path.name}」的列名有重复：{'、'.join(map(repr, twice))}。请先改名。")
                column_map_or_stop(self.path.name, self.columns, header)
            elif len(cells) != len(header):
                self.ledger.bad(self._first, f"有 {len(cells)} 格，而列名有 {len(header)} 个")
            else:
                yield self._first, dict(zip(header, cells, strict=True))

    def parquet(self) -> Iterator[tuple[int, dict]]:
        """parquet：（第几条，{列名: 值}）；只读用得到的列。"""
        try:
            with pq.ParquetFile(self.path, buffer_size=1 << 20) as file:
                wanted = list(column_map_or_stop(self.path.name, self.columns, file.schema_arrow.names).values())
                number = 0
                for batch in file.iter_batches(batch_size=256, columns=wanted):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
        except (pa.ArrowException, OSError) as error:
            said = str(error).splitlines()[0][:120]
            raise ValueError(f"「{self.path.name}」不是完好的 parquet 文件：{said}。请重新下载或重新导出。") from error

    def documents(self) -> Iterator[dict]:
        """逐篇给出五列的文档。"""
        rows = {".txt": self.texts, ".jsonl": self.objects, ".csv": self.table, ".tsv": self.table, ".parquet": self.parquet}
        return self.ledger.documents(rows[self.path.suffix.lower()](), self.columns, self.path.stem)


def load_files(path: str, n_docs: int | None = None, seed: int = 2026, columns: dict[str, str] | None = None,
               encoding: str | None = None, split_by: str = "blank", on_error: str = "stop") -> DatasetDict:
    """读一个自己的文件，分成 train、validation、test。读完打印一行：认出的编码、篇数、跳过了什么。

    参数：
        path: 文件路径，扩展名是 txt、jsonl、csv、tsv 或 parquet。
        n_docs: 最多读多少篇；None 表示全部。
        seed: 决定怎样分三部分。
        columns: 列的对应，例如 {"title": "标题", "text": "内容"}；见 utils/sources/documents.py 的 column_map。txt 不用写。
        encoding: "utf-8"、"gb18030" 或 "big5"；None 表示自动认，认不准就报错。parquet 不用写。
        split_by: txt 怎样分篇："blank" 以空行，"line" 一行一篇。
        on_error: 遇到坏行 "stop" 停下，"skip" 跳过并说明跳过了哪几行。
    返回：
        DatasetDict；列是 id、category、title、intro、body，都是 str，缺的填空串，id 缺的用序号。
    异常：
        ValueError: 文件、编码、列或选项有问题；说明里写着怎么办。
    """
    check_columns(columns)
    check_choice("split_by", split_by, ("blank", "line"))
    check_choice("on_error", on_error, ("stop", "skip"))
    file = _check_path(path)
    kind = file.suffix.lower()
    if kind == ".txt" and columns is not None:
        raise ValueError("txt 没有列，不用写 columns。")
    if kind != ".txt" and split_by != "blank":
        raise ValueError(f"split_by 只用于 txt；{kind[1:]} 一行（一条）就是一篇。")
    if kind == ".parquet" and encoding is not None:
        raise ValueError("parquet 自己记着编码，不用写 encoding。")
    found = None if kind == ".parquet" else detect_encoding(file) if encoding is None else named_encoding(encoding, file)
    about = file.stat()
    folder = store_folder(file.stem[:40], {"path": str(file.resolve()), "size": about.st_size, "time": about.st_mtime_ns, "n_docs": n_docs,
                                           "seed": seed, "columns": columns, "encoding": found and found.codec, "split_by": split_by,
                                           "on_error": on_error})
    stored, reader = open_store(folder), _Reader(file, found, columns, split_by, on_error)
    corpus, report = stored or write_store(folder, reader.documents(), n_docs, seed, reader.ledger.report)
    said = [f"编码是 {found.name}（{found.how}）"] if found else ["parquet"]
    print(f"{file.name}：" + summary(said, corpus.num_rows, report, stored is not None))
    return corpus
