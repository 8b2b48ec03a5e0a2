"""分三部分与落盘：外来的文档按内容的哈希分成 train、validation、test，边读边写进磁盘上的 Arrow 文件。

分法只看内容，所以内容相同的文档必在同一部分（近似重复的不管，那要靠 utils/sources/dedup.py）。文件多大，内存都只要一点点。
本模块是铺路石（plumbing）。
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from heapq import heappush, heapreplace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, config

from utils.sources.documents import COLUMNS, skipped_text

SPLITS = ("train", "validation", "test")
_TRACKED = 3000                                            # 记住哈希最小的这么多篇：验证、测试最多各 1,000，训练总还有剩
_BATCH_DOCS, _BATCH_CHARS = 1000, 2_000_000                # 攒够这么多就写一次盘


def content_key(document: dict[str, str], seed: int) -> int:
    """内容的 64 位哈希：看导语加正文（都空时看标题），不计空白；seed 换了，哈希也换。"""
    text = "".join((document["intro"] + document["body"] or document["title"]).split())
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, salt=str(seed).encode()[:16])
    return int.from_bytes(digest.digest(), "big")


class HeldOut:
    """边读边记哪些文档该留出：哈希最小的 1/20 给验证，其次的 1/20 给测试，各至少 1、至多 1,000 篇（重复的只算一篇），其余训练。

    看的是内容，所以与文件里的次序无关，内容相同的文档也必在同一部分。只记 3,000 个哈希。
    """

    def __init__(self) -> None:
        self.count, self._heap, self._seen = 0, [], set()

    def add(self, key: int) -> None:
        """记下一篇的哈希。"""
        self.count += 1
        if key in self._seen:
            return
        if len(self._heap) < _TRACKED:
            heappush(self._heap, -key)
        elif key < -self._heap[0]:
            self._seen.discard(-heapreplace(self._heap, -key))
        else:
            return
        self._seen.add(key)

    def edges(self, report: dict | None = None) -> tuple[int, int]:
        """（a，b）：哈希 ≤ a 的是验证，a 到 b 的是测试，其余训练。不同的文档不足 3 篇时报 ValueError，连同 report 里的坏行。"""
        keys = sorted(self._seen)
        if len(keys) < 3:
            why = f"另外{skipped_text(report)}。" if report and report["skipped"] else "若是 txt 一行一篇，请写 split_by=\"line\"。"
            raise ValueError(f"只有 {len(keys)} 篇内容不同的文档，训练、验证、测试三个部分分不开，至少要 3 篇。{why}")
        distinct = self.count if len(keys) == _TRACKED else len(keys)      # 不到 3,000 种时，恰有几种是知道的
        held = max(1, min(1000, distinct // 20))
        return keys[held - 1], keys[2 * held - 1]


def _parts(keys: np.ndarray, edges: tuple[int, int]) -> dict[str, np.ndarray]:
    first, second = (np.uint64(e) for e in edges)
    return {"train": keys > second, "validation": keys <= first, "test": (keys > first) & (keys <= second)}


def _schema(columns: Iterable[str]) -> pa.Schema:
    return pa.schema([(c, pa.string()) for c in columns])


def split_documents(documents: list[dict[str, str]], seed: int) -> DatasetDict:
    """已经全在内存里的文档 → DatasetDict。列以第一篇为准。"""
    held, keys = HeldOut(), [content_key(d, seed) for d in documents]
    for key in keys:
        held.add(key)
    table = pa.Table.from_pylist(documents, schema=_schema(documents[0] if documents else COLUMNS))
    masks = _parts(np.array(keys, dtype=np.uint64), held.edges())
    return DatasetDict({s: Dataset(table.filter(pa.array(masks[s]))) for s in SPLITS})


def store_folder(kind: str, parts: dict) -> Path:
    """读好的文档放在 datasets 的缓存文件夹里的哪个子文件夹；parts（来源与选项）变了，就换一个。"""
    name = hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()[:24]
    return Path(config.HF_DATASETS_CACHE) / "course" / f"{kind}-{name}"


def _batches(documents: Iterable[dict]) -> Iterator[list[dict]]:
    batch, chars = [], 0
    for document in documents:
        batch.append(document)
        chars += sum(map(len, document.values()))
        if len(batch) >= _BATCH_DOCS or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def open_store(folder: Path) -> tuple[DatasetDict, dict] | None:
    """打开 write_store 写好的文件夹（内存映射，不占内存）；没有就返回 None。"""
    if not (folder / "report.json").is_file():
        return None
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return DatasetDict({s: Dataset.from_file(str(folder / f"{s}.arrow")) for s in SPLITS}), report


def write_store(folder: Path, documents: Iterable[dict], n_docs: int | None, seed: int, report: dict) -> tuple[DatasetDict, dict]:
    """边读边写：第一遍写下全部文档和它们的哈希，第二遍按哈希分成三个 Arrow 文件。中途出错不留下半成品。

    参数：
        folder: store_folder 给的位置。
        documents: 文档的迭代器。
        n_docs: 最多读多少篇；None 表示全部。
        seed: 决定怎样分三部分。
        report: 要一并记下的账（Ledger.report），读的时候一边改。
    返回：
        （DatasetDict，report）。
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    work, held = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent)), HeldOut()
    try:
        schema, whole = _schema(COLUMNS), work / "all.arrow"
        keyed = schema.append(pa.field("_key", pa.uint64()))
        with pa.OSFile(str(whole), "wb") as sink, pa.ipc.new_stream(sink, keyed) as writer:
            for batch in _batches(islice(documents, n_docs)):
                for document in batch:
                    document["_key"] = content_key(document, seed)
                    held.add(document["_key"])
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=keyed))
        edges = held.edges(report)
        with ExitStack() as stack:
            out = {s: stack.enter_context(pa.ipc.new_stream(str(work / f"{s}.arrow"), schema)) for s in SPLITS}
            for batch in pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(whole), "rb"))):
                for split, mask in _parts(batch.column("_key").to_numpy(), edges).items():
                    if mask.any():
                        out[split].write_batch(batch.filter(pa.array(mask)).select(list(COLUMNS)))
        whole.unlink()
        (work / "report.json").write_text(json.dumps(report, ensure_ascii=False), encoding="utf-8")
        try:
            os.replace(work, folder)
        except OSError:
            if open_store(folder) is None:                 # 不是「别的进程刚好先写成了同一份」，那就是真的出错了
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_store(folder)
