"""自己的文件：五种格式、三种编码、各种坏文件，分三部分的规则，以及大文件只占一点内存。"""

import json
import os
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from utils.corpus.news import generate, load_corpus
from utils.paths import ROOT
from utils.sources import store
from utils.sources.documents import COLUMNS, split_text
from utils.sources.encodings import detect_encoding
from utils.sources.store import HeldOut, content_key

ROWS = [{k: row[k] for k in COLUMNS} for row in generate("train", 60)]
TRADITIONAL = "昨日上午，臺北的圖書館舉辦讀書會，許多學生與老師參加，大家談論歷史與詩歌，氣氛熱烈。"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(store.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(path, **options):
    return load_corpus(f"files:{path}", **options)


def rows_of(corpus):
    return sorted((row for docs in corpus.values() for row in docs), key=lambda row: row["id"])


def put(path, text, encoding="utf-8", newline="\n"):
    path.write_bytes(text.replace("\n", newline).encode(encoding))
    return path


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def separated(rows, comma):
    names = ("编号", "类", "标题", "导", "文")
    return "".join(comma.join(f'"{cell}"' for cell in line) + "\n" for line in [names, *(row.values() for row in rows)])


NAMED = {"id": "编号", "category": "类", "title": "标题", "intro": "导", "body": "文"}


@pytest.mark.parametrize("encoding, name", [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8（带 BOM）"), ("gb18030", "GB18030")])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_tables_in_every_encoding(tmp_path, capsys, suffix, encoding, name):
    text = jsonl(ROWS) if suffix == "jsonl" else separated(ROWS, {"csv": ",", "tsv": "\t"}[suffix])
    path = put(tmp_path / f"新闻.{suffix}", text, encoding, newline="\r\n")
    corpus = load(path, columns=None if suffix == "jsonl" else NAMED)
    assert rows_of(corpus) == ROWS
    assert all(tuple(docs.column_names) == COLUMNS for docs in corpus.values())
    assert f"编码是 {name}（" in capsys.readouterr().out                    # 绝不悄悄地猜


def test_parquet(tmp_path):
    table = pa.table({"标题": [r["title"] for r in ROWS], "正文": [r["body"] for r in ROWS], "点击": list(range(60)),
                      "向量": [[1.0]] * 60})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    found = rows_of(load(tmp_path / "a.parquet", columns={"title": "标题", "body": "正文", "category": "点击"}))
    assert [(r["title"], r["body"]) for r in found] == [(r["title"], r["body"]) for r in ROWS]
    assert found[3]["category"] == "3" and found[3]["intro"] == "" and found[3]["id"] == "a-000003"


def test_big5_is_recognized_and_announced(tmp_path, capsys):
    path = put(tmp_path / "繁.txt", "\n".join(f"第{i}篇：{TRADITIONAL}" for i in range(40)), "big5")
    found = rows_of(load(path, split_by="line"))
    assert found[7]["intro"] == f"第7篇：{TRADITIONAL}" and len(found) == 40
    out = capsys.readouterr().out
    assert "编码是 Big5（由 charset-normalizer 判断）" in out and "共 40 篇" in out


def test_encoding_is_found_after_a_long_ascii_head(tmp_path):
    path = put(tmp_path / "a.txt", "plain english line\n" * 40000 + ROWS[0]["body"] + "\n" + ROWS[1]["body"], "gb18030")
    assert detect_encoding(path).codec == "gb18030"


def test_a_long_file_without_newlines_is_cut_between_characters(tmp_path):
    text = "".join(row["body"] for row in ROWS) * 30
    for lead in ("", "a", "ab"):                                           # 让样本的末尾落在一个字的不同位置上
        for encoding in ("gb18030", "utf-8"):
            assert detect_encoding(put(tmp_path / "a.txt", lead + text, encoding)).codec == encoding


def test_blank_lines_or_lines_make_documents(tmp_path):
    blocks = [f"　　第{i}段导语。\n正文甲{i}。\n  正文乙{i}。" for i in range(5)]
    path = put(tmp_path / "a.txt", "\n\n" + "\n \n\n".join(blocks) + "\n\n")
    found = rows_of(load(path))
    assert [(r["intro"], r["body"]) for r in found] == [(f"第{i}段导语。", f"正文甲{i}。\n正文乙{i}。") for i in range(5)]
    assert all(r["title"] == r["category"] == "" for r in found)
    assert len(rows_of(load(path, split_by="line"))) == 15


@pytest.mark.parametrize("text, parts", [
    ("甲说：“好！”乙走了。丙来了。", ("甲说：“好！”", "乙走了。丙来了。")),
    ("　第一段。还在第一段。\n\n 第二段。\n第三段。", ("第一段。还在第一段。", "第二段。\n第三段。")),
    ("只有一句，没有句号", ("只有一句，没有句号", "")),
    ("真的吗？！……他想。", ("真的吗？！……", "他想。")),
    (" \n　", ("", "")),
])
def test_where_the_intro_ends(text, parts):
    assert split_text(text) == parts


def test_text_column_is_split_and_body_column_is_not(tmp_path):
    path = put(tmp_path / "a.jsonl", jsonl({"t": f"题{i}", "c": f"首句{i}。次句。"} for i in range(4)))
    split = rows_of(load(path, columns={"title": "t", "text": "c"}))
    whole = rows_of(load(path, columns={"title": "t", "body": "c"}))
    same = rows_of(load(put(tmp_path / "b.jsonl", jsonl({"title": f"题{i}", "text": f"首句{i}。次句。"} for i in range(4)))))
    assert [r | {"id": ""} for r in same] == [r | {"id": ""} for r in split]      # 不写 columns 时，title、text 照名字认
    assert (split[1]["intro"], split[1]["body"]) == ("首句1。", "次句。")
    assert (whole[1]["intro"], whole[1]["body"]) == ("", "首句1。次句。")


def test_a_csv_cell_may_hold_newlines_and_errors_name_the_true_line(tmp_path):
    good = "".join(f'题{i},"第一行{i}\n第二行，""引文"""\n' for i in range(5))
    path = put(tmp_path / "a.csv", "title,body\n" + good + "题,多,出\n" + "末题,末文\n")
    with pytest.raises(ValueError, match="第 12 行：有 3 格，而列名有 2 个"):
        load(path)
    found = rows_of(load(path, on_error="skip"))
    assert len(found) == 6 and found[0]["body"] == '第一行0\n第二行，"引文"'


def test_broken_jsonl_lines_are_named_and_the_rest_kept_on_request(tmp_path, capsys):
    lines = jsonl(ROWS).splitlines()
    lines[4], lines[9], lines[19] = lines[4][:-9], "[1, 2]", '{"title": ["不是文字"], "body": "文"}'
    path = put(tmp_path / "a.jsonl", "\n\n".join(lines))                   # 行与行之间有空行：第 5 个对象在第 9 行
    with pytest.raises(ValueError, match="第 9 行：不是完整的 JSON.*skip"):
        load(path)
    found = rows_of(load(path, on_error="skip"))
    assert [r["id"] for r in found] == [r["id"] for i, r in enumerate(ROWS) if i not in (4, 9, 19)]
    assert "跳过 3 个坏行：第 9、19、39 行" in capsys.readouterr().out


def test_undecodable_lines_are_named_and_skipped_on_request(tmp_path):
    raw = [row["body"].encode("gb18030") for row in ROWS]
    raw[30] = raw[30][:20] + b"\xff\xff" + raw[30][20:]
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n".join(raw))
    with pytest.raises(ValueError, match="认不准.*第 31 .*encoding="):
        load(path, split_by="line")
    with pytest.raises(ValueError, match="第 31 行：按 GB18030 解不开.*第 21 个字节是 0xFF"):
        load(path, split_by="line", encoding="gbk")
    assert len(rows_of(load(path, split_by="line", encoding="gbk", on_error="skip"))) == 59


@pytest.mark.parametrize("name, content, options, words", [
    ("a.txt", b"", {}, ["空文件"]),
    ("a.jsonl", b"\xef\xbb\xbf \n\n", {}, ["空文件"]),
    ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(99), {}, ["PNG", "不是文本"]),
    ("a.txt", b"PK\x03\x04" + bytes(99), {}, ["ZIP", "不是文本"]),
    ("a.csv", b"abc\x00\x01\x02" * 99, {}, ["NUL", "二进制"]),
    ("a.txt", random.Random(0).randbytes(4000).replace(b"\0", b"\1"), {}, ["认不准", "encoding="]),
    ("a.txt", "你好".encode("gb18030"), {}, ["认不准", "文字太少"]),
    ("a.txt", ("서울의 날씨는 맑습니다. 내일은 비가 옵니다." * 5).encode("cp949"), {}, ["认不准", "encoding="]),
    ("a.jsonl", b"[1, 2]", {}, ["第 1 行", "JSON 对象", "list"]),
    ("a.txt", "正文".encode("utf-16"), {}, ["UTF-16", "另存为 UTF-8"]),
    ("a.txt", TRADITIONAL.encode("utf-8"), {"encoding": "gb18030"}, ["不符", "UTF-8", "乱码"]),
    ("a.txt", ROWS[0]["body"].encode("gb18030"), {"encoding": "utf-8"}, ["不符", "GB18030"]),
    ("a.txt", b"x", {"encoding": "shift_jis"}, ["shift_jis", "big5"]),
    ("a.txt", b"x", {"encoding": "nope"}, ["nope", "gb18030"]),
    ("a.parquet", b"PAR1 not really", {}, ["parquet", "重新"]),
    ("a.jsonl", jsonl(ROWS).encode(), {"columns": {"title": "标题"}}, ["第 1 行", "缺少", "标题", "title"]),
    ("a.csv", b"x,y\n1,2\n", {}, ["没有 title", "x、y", "columns="]),
    ("a.csv", b"x,y\n1,2\n", {"columns": {"body": "z"}, "on_error": "skip"}, ["缺少", "z", "x、y"]),
    ("a.csv", b"x,x\n1,2\n", {"columns": {"body": "x"}}, ["列名", "重复"]),
    ("a.csv", b'title,body\n1,"2\n3,4\n', {}, ["第 2 行", "引号"]),
    ("a.jsonl", b'{"body": "\\ud83d"}\n', {}, ["第 1 行", "代理"]),
    ("a.json", b"[]", {}, ["扩展名", "jsonl"]),
    ("a.jsonl", jsonl(ROWS[:2]).encode(), {}, ["只有 2 篇", "至少要 3 篇"]),
    ("a.jsonl", b"{\n" * 9, {"on_error": "skip"}, ["只有 0 篇", "跳过 9 个坏行", "第 1、2、3、4、5 行等"]),
    ("a.txt", b"x" * 5_000_000, {}, ["第 1 行", "4,000,000"]),
    ("a.txt", b"x\n" * 600_000, {}, ["第 1 行", "没有空行", "split_by"]),
    ("a.txt", b"x", {"split_by": "page"}, ["split_by", "blank"]),
    ("a.jsonl", b"{}", {"split_by": "line"}, ["split_by", "txt"]),
    ("a.jsonl", b"{}", {"on_error": "ignore"}, ["on_error", "skip"]),
    ("a.jsonl", b"{}", {"columns": {"标题": "title"}}, ["columns", "标题"]),
    ("a.jsonl", b"{}", {"columns": ["title"]}, ["columns", "title"]),
    ("a.jsonl", b"{}", {"columns": {"text": "a", "body": "b"}}, ["text", "body"]),
    ("a.jsonl", b"{}", {"columns": {"id": "a"}}, ["至少"]),
    ("a.txt", b"x", {"columns": {"text": "a"}}, ["txt", "columns"]),
    ("a.parquet", b"x", {"encoding": "utf-8"}, ["parquet", "encoding"]),
    ("a.jsonl", b"{}", {"streaming": True}, ["files", "streaming", "on_error"]),
    ("a.jsonl", b"{}", {"n_docs": 0}, ["n_docs", "0"]),
])
def test_each_bad_file_or_option_gets_one_clear_sentence(tmp_path, name, content, options, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        load(tmp_path / name, **options)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith("。")
    assert not list((tmp_path / "cache").rglob("*.arrow"))                 # 出了错，不留下半成品


def test_missing_path_directory_and_unreadable(tmp_path, monkeypatch):
    put(tmp_path / "news.jsonl", "{}")
    with pytest.raises(ValueError, match="找不到文件.*是不是「news.jsonl」"):
        load(tmp_path / "new.jsonl")
    with pytest.raises(ValueError, match="找不到文件.*检查路径"):
        load(tmp_path / "没有" / "x.jsonl")
    with pytest.raises(ValueError, match="是一个文件夹.*news.jsonl"):
        load(tmp_path)
    with pytest.raises(ValueError, match="后面没有写路径"):
        load_corpus("files:")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match="打不开.*权限"):
        load(tmp_path / "news.jsonl")


def test_a_named_encoding_that_looks_wrong_warns(tmp_path):
    path = put(tmp_path / "a.txt", "\n".join([TRADITIONAL] * 9 + ["甲", "乙", "丙"]), "big5")
    with pytest.warns(UserWarning, match="看上去是 Big5"):
        load(path, encoding="gb18030", split_by="line", on_error="skip")


def test_the_same_content_never_falls_into_two_parts(tmp_path):
    rows = [{"title": f"题{i}", "intro": r["intro"], "body": r["body"]} for i in range(3) for r in ROWS]
    rows += [{"title": "加了空白", "intro": "　" + r["intro"], "body": r["body"].replace("。", "。 ")} for r in ROWS]
    corpus = load(put(tmp_path / "a.jsonl", jsonl(rows)))
    seen = {}
    for split, docs in corpus.items():
        for row in docs:
            key = "".join((row["intro"] + row["body"]).split())
            assert seen.setdefault(key, split) == split
    assert len(seen) == 60 and set(seen.values()) == {"train", "validation", "test"}


def test_the_split_depends_on_content_and_seed_only(tmp_path):
    def held(rows, seed=2026):
        corpus = load(put(tmp_path / "a.jsonl", jsonl(rows)), seed=seed)
        return {split: sorted(docs["body"]) for split, docs in corpus.items()}
    first = held(ROWS)
    assert first == held(ROWS[::-1]) and {s: len(b) for s, b in first.items()} == {"train": 54, "validation": 3, "test": 3}
    assert first["test"] != held(ROWS, seed=7)["test"]


def test_held_out_sizes():
    for count, expected in ((3, 1), (100, 5), (2500, 125), (50_000, 1000)):
        held, rng = HeldOut(), random.Random(count)
        keys = [rng.getrandbits(64) for _ in range(count)]
        for key in keys + keys[:count // 3] * 50:                          # 重复的不另算
            held.add(key)
        a, b = held.edges()
        assert sum(k <= a for k in keys) == sum(a < k <= b for k in keys) == expected
    assert content_key(ROWS[0], 1) != content_key(ROWS[0], 2)


def test_n_docs_takes_the_first(tmp_path):
    path = put(tmp_path / "a.jsonl", jsonl(ROWS))
    assert [r["id"] for r in rows_of(load(path, n_docs=10))] == [r["id"] for r in ROWS[:10]]
    assert len(rows_of(load(path, n_docs=10_000))) == 60


def test_cache_is_reused_until_the_file_or_the_options_change(tmp_path, capsys):
    path = put(tmp_path / "a.jsonl", jsonl(ROWS))
    load(path)
    before = rows_of(load(path))
    assert "上次读好的缓存" in capsys.readouterr().out and before == ROWS
    changed = put(path, jsonl(ROWS).replace("。", "！"))
    os.utime(changed, ns=(1, 1))
    assert rows_of(load(path))[0]["body"] == ROWS[0]["body"].replace("。", "！")
    load(path, seed=1)
    assert "缓存" not in capsys.readouterr().out


# ---- 大文件：子进程里读 6 MB 与 60 MB，比较峰值内存 ----
MEASURE = """
import pathlib, sys, threading, time
import psutil
from datasets import config
import utils.sources.files
from utils.corpus import load_corpus
config.HF_DATASETS_CACHE = sys.argv[2]
process, peak, done = psutil.Process(), 0, False
def own():                                                # 自己真正占用的，不含内存映射的文件页（系统随时可以收回）
    memory = process.memory_info()
    return memory.rss - memory.shared if hasattr(memory, "shared") else process.memory_full_info().uss
def watch():
    global peak
    while not done:
        peak = max(peak, own())
        time.sleep(0.02)
start = own()
thread = threading.Thread(target=watch); thread.start()
corpus = load_corpus("files:" + sys.argv[1], **eval(sys.argv[3]))
done = True; thread.join()
stored = sum(f.stat().st_size for f in pathlib.Path(sys.argv[2]).rglob("*.arrow"))
print(sum(map(len, corpus.values())), (peak - start) / 2**20, stored)
"""


def measure(path, cache, **options):
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    out = subprocess.run([sys.executable, "-c", MEASURE, str(path), str(cache), repr(options)], env=env, cwd=ROOT, check=True,
                         capture_output=True, encoding="utf-8").stdout
    count, peak, stored = out.splitlines()[-1].split()
    return int(count), float(peak), int(stored)


@pytest.mark.parametrize("suffix, options", [("jsonl", {}), ("txt", {"split_by": "line"})])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix, options):
    """按比例缩小的 1 GB：文件大 10 倍（6 MB → 60 MB，多 54 MB），峰值内存至多多 20 MB。

    若整个文件进了内存，至少要多 54 MB（Python 的 str 里一个汉字 2 字节，加上对象本身，实际更多）。内存只随「留出的哈希」与一批
    文档增长，两者都有上限，6 MB 时已经到顶，所以 60 MB 到 1 GB 再大 17 倍，增量仍是这个数量级。
    """
    peaks = {}
    for size in (6, 60):
        path, written, i = tmp_path / f"{size}.{suffix}", 0, 0
        with open(path, "w", encoding="utf-8", newline="\n") as f:
            while written < size * 1_000_000:
                row = ROWS[i % 60]
                line = f"{i}号：{row['intro']}{row['body']}"
                line = json.dumps({"title": row["title"], "text": line}, ensure_ascii=False) if suffix == "jsonl" else line
                written, i = written + len(line.encode("utf-8")) + 1, i + 1
                f.write(line + "\n")
        count, peaks[size], stored = measure(path, tmp_path / str(size), **options)
        assert count == i and stored > 0.8 * written                       # 文字真的都读进来、写下来了
        path.unlink()
    assert peaks[60] < peaks[6] + 20, peaks
