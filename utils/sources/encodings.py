"""编码：一个文本文件是 UTF-8、GB18030 还是 Big5。认出了就说是哪一种，认不准就报错，绝不悄悄地猜。

UTF-8 靠字节的规律就能判定；GB18030 与 Big5 常常互相也「解得开」，要看解出来像不像文字，这件事交给 charset-normalizer。
本模块是铺路石（plumbing）：编码与汉字的关系在 tokenization 里讲。
"""

from __future__ import annotations

import codecs
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from charset_normalizer import from_bytes

SAMPLE = 1 << 18                                           # 从第一个非 ASCII 字节起，看 256 KB
ENOUGH = 40                                                # 非 ASCII 的字节（约 20 个汉字）不到这么多，就不在 GB18030 与 Big5 之间下结论
ASCII = "全是 ASCII 字符"
NAMES = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8（带 BOM）", "gb18030": "GB18030", "big5": "Big5", "big5hkscs": "Big5（香港增补）"}
_SAME = {"ascii": "utf-8", "utf-8": "utf-8", "utf-8-sig": "utf-8-sig", "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030",
         "big5": "big5", "cp950": "big5", "big5hkscs": "big5hkscs"}
_MAGIC = {b"\x89PNG": "PNG 图片", b"\xff\xd8\xff": "JPEG 图片", b"%PDF": "PDF", b"PK\x03\x04": "ZIP 压缩包（docx、xlsx 也是）",
          b"\x1f\x8b": "gzip 压缩文件", b"PAR1": "parquet", b"\xd0\xcf\x11\xe0": "旧版 Office 文件（doc、xls）", b"7z\xbc\xaf": "7z 压缩包",
          b"Rar!": "RAR 压缩包", b"SQLite": "SQLite 数据库"}


@dataclass(frozen=True)
class Encoding:
    """认出的编码。

    属性：
        codec: Python 的编解码器名，例如 "gb18030"。
        name: 给人看的名字，例如 "GB18030"。
        how: 凭什么认出来的。
    """

    codec: str
    name: str
    how: str


class Unsure(ValueError):
    """认不准编码。"""


def named_encoding(encoding: str, path: Path) -> Encoding:
    """把写明的编码名变成 Encoding，并与文件对一对；gb2312、gbk 按 GB18030 解（它包含前两者），cp950 按 Big5 解。

    参数：
        encoding: 编码名。
        path: 要读的文件。
    返回：
        Encoding。charset-normalizer 另有看法时发一条警告，仍照写明的办。
    异常：
        ValueError: 不是 UTF-8、GB18030、Big5 之一；或者文件是合法的 UTF-8，写的却不是（硬解会得到乱码），或者反过来。
    """
    try:
        codec = _SAME[codecs.lookup(encoding).name.replace("_", "-")]
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"encoding={encoding!r} 不在支持之列。可以写 \"utf-8\"、\"gb18030\"（含 gbk、gb2312）或 \"big5\"；"
                         "别的编码请先用编辑器另存为 UTF-8。") from None
    try:
        found = detect_encoding(path)
    except Unsure:                                         # 正因为认不准，才要你写明
        return Encoding(codec, NAMES[codec], "由 encoding= 写明")
    groups = ("utf-8", "utf-8-sig"), ("gb18030",), ("big5", "big5hkscs")
    group = next(g for g in groups if codec in g)
    if found.how != ASCII and found.codec not in group:
        said = f"encoding={encoding!r} 与文件「{path.name}」不符：看上去是 {found.name}（{found.how}）"
        if "utf-8" in found.codec or "utf-8" in codec:
            raise ValueError(f"{said}，硬解只会得到乱码或报错。请改成 encoding=\"{found.codec}\"，或去掉 encoding=。")
        warnings.warn(f"{said}。仍按你写的 {NAMES[codec]} 解，请看看读出来的是不是乱码。", stacklevel=4)
    return Encoding(codec, NAMES[codec], "由 encoding= 写明")


def _sample(path: Path) -> tuple[bytes, bytes]:
    """（文件开头 4 KB，从第一个非 ASCII 字节所在的行起约 256 KB）；纯 ASCII 的文件第二项为空。"""
    with open(path, "rb") as f:
        head = f.read(4096)
        f.seek(0)
        while block := f.read(SAMPLE):
            found = re.search(rb"[\x80-\xff]", block)
            if found:
                start = block.rfind(b"\n", 0, found.start()) + 1
                block = block[start:] + f.read(start)
                cut = block.rfind(b"\n") + 1
                return head, block if len(block) < SAMPLE or not cut else block[:cut]
            if b"\x00" in block:
                return block, b""
    return head, b""


def _family(sample: bytes, only: list[str] | None) -> str | None:
    best = from_bytes(sample, cp_isolation=only, enable_fallback=False).best()
    return best and _SAME.get(best.encoding.replace("_", "-"), best.encoding)


def _first_bad_line(sample: bytes, codec: str) -> int | None:
    for number, line in enumerate(sample.split(b"\n"), 1):
        try:
            line.decode(codec)
        except UnicodeDecodeError:
            return number
    return None


def _is_utf8(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)             # 末尾可能切断了一个字，所以不用 final=True
    except UnicodeDecodeError:
        return False
    return True


def detect_encoding(path: Path) -> Encoding:
    """认出一个文本文件的编码；只读文件的一部分。

    先看 BOM，再看是不是合法的 UTF-8，最后请 charset-normalizer 在 GB18030 与 Big5 之间判断：只比这几种编码得出的结果，
    与放开所有编码得出的结果一致，才算认出。

    参数：
        path: 一个存在的文件。
    返回：
        Encoding。
    异常：
        ValueError: 是二进制文件、UTF-16/32，或者认不准（请用 encoding= 写明）。
    """
    head, sample = _sample(path)
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if kind:
        raise ValueError(f"「{path.name}」不是文本，它是 {kind}。请先转成 txt、jsonl、csv、tsv 或 parquet。")
    if head.startswith(codecs.BOM_UTF8):
        return Encoding("utf-8-sig", NAMES["utf-8-sig"], "开头有 BOM")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\x00\x00\xfe\xff")):
        raise ValueError(f"「{path.name}」的编码是 UTF-16 或 UTF-32（开头的 BOM 说明了这一点）。请用编辑器另存为 UTF-8 再读。")
    if b"\x00" in head or b"\x00" in sample:
        raise ValueError(f"「{path.name}」里有 NUL 字节，是二进制文件，或者是没有 BOM 的 UTF-16。请换成文本文件，或另存为 UTF-8。")
    if not sample:
        return Encoding("utf-8", NAMES["utf-8"], ASCII)
    if _is_utf8(sample):
        return Encoding("utf-8", NAMES["utf-8"], "字节合乎 UTF-8 的规律")
    enough = len(re.findall(rb"[\x80-\xff]", sample)) >= ENOUGH
    for end in range(len(sample), len(sample) - 4 if enough else len(sample), -1):     # 没有换行的长文件，末尾可能切断了一个字
        among, free = (_family(sample[:end], only) for only in (["gb18030", "big5", "big5hkscs"], None))
        if among and among == free:
            return Encoding(among, NAMES[among], "由 charset-normalizer 判断")
        if among or sample.endswith(b"\n"):
            break
    bad = {codec: _first_bad_line(sample, codec) for codec in ("utf-8", "gb18030", "big5")}
    said = "；".join(f"按 {NAMES[c]}，" + (f"第 {n} 个有汉字的行附近解不开" if n else "处处解得开") for c, n in bad.items())
    raise Unsure(f"认不准「{path.name}」的编码：文字太少，或者混有损坏的字节。{said}。"
                     "请用 encoding= 写明，例如 encoding=\"gb18030\"；有坏行时再加 on_error=\"skip\"。")
