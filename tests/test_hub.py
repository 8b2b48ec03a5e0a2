"""hub 上的数据：真的 datasets、transformers 客户端，对着本机的替身（tests/hub_standin.py）跑，不出网。

HF_ENDPOINT 在导入时就被读走，所以每个场景都在自己的子进程里跑；同一种环境的场景放进同一个子进程，省去重复的导入。
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import traceback

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_standin import Repo, StandIn

from utils.corpus.news import generate, load_corpus
from utils.paths import ROOT
from utils.sources.documents import COLUMNS

TOKEN = "hf_" + "standinSecret" * 2
ROWS = [{k: row[k] for k in COLUMNS} for row in generate("train", 80)]
CARD = """---
configs:
- config_name: 消息
  data_files:
  - {split: train, path: short/train.jsonl}
  - {split: test, path: short/test.jsonl}
- config_name: long
  data_files:
  - {split: train, path: "long/*.jsonl"}
---
"""
TWO_SPLITS = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: a, path: a.jsonl}\n  - {split: b, path: b.jsonl}\n---\n"


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"标题": [r["title"] for r in rows], "全文": [r["intro"] + r["body"] for r in rows],
                             "热度": list(range(len(rows)))}), sink)
    return sink.getvalue().to_pybytes()


PARTS = [parquet(ROWS[:40]), parquet(ROWS[40:])]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """随机初始化的小 BERT 和一个字级分词器：（仓库文件，词表大小）。"""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast
    folder = tmp_path_factory.mktemp("model")
    characters = sorted({c for row in ROWS for c in row["body"]})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    BertTokenizerFast(vocab={t: i for i, t in enumerate(tokens)}).save_pretrained(folder)
    config = BertConfig(vocab_size=len(tokens), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertForMaskedLM(config).save_pretrained(folder)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert "model.safetensors" in files and not any(n.endswith((".bin", ".pt", ".pkl")) for n in files)
    return files, len(tokens)


@pytest.fixture(scope="module")
def hub(tiny_bert):
    main = {"README.md": CARD.encode(), "short/train.jsonl": jsonl(ROWS), "short/test.jsonl": jsonl(ROWS[:5]),
            "long/0.jsonl": jsonl({"标题": r["title"], "全文": r["body"]} for r in ROWS)}
    plain = {"main": {"data.jsonl": jsonl(ROWS)}, "v1": {"data.jsonl": jsonl(ROWS[:30])}}
    repos = {("datasets", "course/news"): Repo({"main": main}), ("datasets", "course/plain"): Repo(plain),
             ("datasets", "course/tables"): Repo({"main": {"data/train-0.parquet": parquet(ROWS)}}),
             ("datasets", "course/parts"): Repo({"main": {"0.parquet": PARTS[0], "1.parquet": PARTS[1]}}),
             ("datasets", "course/splits"): Repo({"main": {"README.md": TWO_SPLITS.encode(), "a.jsonl": jsonl(ROWS[:9]),
                                                           "b.jsonl": jsonl(ROWS)}}),
             ("datasets", "course/broken"): Repo({"main": {"data.jsonl": b'{"title": "x", "body": "y"}\n{"title": \n'}}),
             ("datasets", "course/script"): Repo({"main": {"README.md": b"", "script.py": b"raise SystemExit('ran')"}}),
             ("datasets", "course/nothing"): Repo({"main": {"README.md": b"# no data"}}),
             ("datasets", "course/private"): Repo({"main": {"data.jsonl": jsonl(ROWS)}}, token=TOKEN),
             ("datasets", "course/gated"): Repo({"main": {"data.jsonl": jsonl(ROWS)}}, token=TOKEN, gated=True),
             ("models", "course/tiny-bert"): Repo({"main": tiny_bert[0]})}
    with StandIn(repos, renamed={"course/old-news": "course/plain"}) as standin:
        yield standin


HEAD = """
import json, sys
from utils.corpus import load_corpus
def call(*args, **options):
    try:
        corpus = load_corpus(*args, **options)
    except ValueError as error:
        import traceback
        traceback.print_exc()
        return {"error": str(error)}
    rows = sorted((row for docs in corpus.values() for row in docs), key=lambda row: row["id"])
    return {"rows": rows, "sizes": corpus.num_rows, "columns": corpus["train"].column_names}
results = {}
"""


def run(code, endpoint, home, **extra):
    """在子进程里跑一段代码。返回（它的 results，全部输出）。"""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_")) and "proxy" not in k.lower()}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUTF8": "1"} | extra
    done = subprocess.run([sys.executable, "-c", HEAD + code + "\nprint('@@' + json.dumps(results))"], env=env, cwd=home, timeout=300,
                          capture_output=True, encoding="utf-8")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return json.loads(done.stdout.split("@@")[-1]), output


PUBLIC = """
results["plain"] = call("hub:course/plain")
results["again"] = call("hub:course/plain")
results["v1"] = call("hub:course/plain", revision="v1")
results["renamed"] = call("hub:course/old-news")
results["news"] = call("hub:course/news", subset="消息")
results["test"] = call("hub:course/news", subset="消息", split="test")
results["long"] = call("hub:course/news", subset="long", columns={"title": "标题", "body": "全文"})
results["stream"] = call("hub:course/parts", columns={"title": "标题", "text": "全文"}, streaming=True, n_docs=30)
results["tables"] = call("hub:course/tables", columns={"title": "标题", "text": "全文", "category": "热度"})
results["split"] = call("hub:course/splits", split="b")
for name, args, options in [
    ("missing", ["hub:course/nowhere"], {}), ("no_revision", ["hub:course/plain"], {"revision": "v9"}),
    ("which_subset", ["hub:course/news"], {}), ("no_subset", ["hub:course/news"], {"subset": "短讯"}),
    ("which_split", ["hub:course/splits"], {}), ("no_split", ["hub:course/plain"], {"split": "dev"}),
    ("no_column", ["hub:course/plain"], {"columns": {"title": "标题"}}), ("no_known_column", ["hub:course/news"], {"subset": "long"}),
    ("script", ["hub:course/script"], {}), ("nothing", ["hub:course/nothing"], {}), ("broken", ["hub:course/broken"], {}),
    ("private", ["hub:course/private"], {}), ("gated", ["hub:course/gated"], {})]:
    results[name] = call(*args, **options)
"""


@pytest.fixture(scope="module")
def public(hub, tmp_path_factory):
    hub.seen.clear()
    results, output = run(PUBLIC, hub.endpoint, tmp_path_factory.mktemp("home"))
    return results, output, list(hub.seen)


def test_jsonl_repository(public):
    results, output, _ = public
    assert results["plain"]["rows"] == ROWS and results["plain"]["columns"] == list(COLUMNS)
    assert results["plain"]["sizes"] == {"train": 72, "validation": 4, "test": 4}
    assert results["again"] == results["plain"] and output.count("用的是上次读好的缓存") == 1


def test_revision_subset_split_and_rename(public):
    results, _, seen = public
    assert results["v1"]["rows"] == ROWS[:30]
    assert results["renamed"]["rows"] == ROWS
    assert ("hub", "GET", "/api/datasets/course/old-news", "") in seen                            # 307 转到了新名字
    assert results["news"]["rows"] == ROWS and results["test"]["rows"] == ROWS[:5]
    assert [r["body"] for r in results["long"]["rows"]] == [r["body"] for r in ROWS]
    assert len(results["split"]["rows"]) == 80


def test_parquet_repository_through_the_cdn(public):
    results, _, seen = public
    rows = results["tables"]["rows"]
    assert [r["title"] for r in rows] == [r["title"] for r in ROWS]
    assert [r["intro"] + r["body"] for r in rows] == [r["intro"] + r["body"] for r in ROWS]
    assert rows[7]["category"] == "7" and rows[7]["id"] == "tables-000007"
    assert any(place == "cdn" and method == "GET" for place, method, *_ in seen)


def test_streaming_fetches_only_what_it_needs(public):
    results, _, seen = public
    assert [r["title"] for r in results["stream"]["rows"]] == [r["title"] for r in ROWS[:30]]
    asked = [any(path == "/" + hashlib.sha256(part).hexdigest() for _, _, path, _ in seen) for part in PARTS]
    assert asked == [True, False]                                      # 后一个文件没有碰过


@pytest.mark.parametrize("name, words", [
    ("missing", ["course/nowhere", "找不到", "127.0.0.1", "hf auth login"]),
    ("no_revision", ["v9", "版本"]),
    ("which_subset", ["不止一个子集", "消息、long", "subset="]),
    ("no_subset", ["没有名为「短讯」的子集", "消息、long"]),
    ("which_split", ["不止一个部分", "a、b", "split="]),
    ("no_split", ["没有名为「dev」的部分", "train"]),
    ("no_column", ["缺少", "标题", "title"]),
    ("no_known_column", ["没有 title", "全文", "columns="]),
    ("script", ["脚本", "不再支持"]),
    ("nothing", ["course/nothing", "没有能直接读的数据文件"]),
    ("broken", ["course/broken", "损坏"]),
    ("private", ["course/private", "私有", "hf auth login"]),
    ("gated", ["course/gated", "同意条款"]),
])
def test_each_problem_gets_one_clear_sentence(public, name, words):
    message = public[0][name]["error"]
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith("。")


PRIVATE = """
results["private"] = call("hub:course/private")
results["gated"] = call("hub:course/gated", streaming=True)
results["missing"] = call("hub:course/nowhere")
"""


def test_private_repository_with_a_token_that_is_never_printed(hub, tmp_path):
    hub.seen.clear()
    loud = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "DATASETS_VERBOSITY": "debug"}
    results, output = run(PRIVATE, hub.endpoint, tmp_path, HF_TOKEN=TOKEN, **loud)
    assert results["private"]["rows"] == results["gated"]["rows"] == ROWS and "找不到" in results["missing"]["error"]
    assert any(token == TOKEN for place, *_, token in hub.seen if place == "hub")
    assert TOKEN not in output and TOKEN not in json.dumps(results)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    assert not written


@pytest.mark.parametrize("token", ["hf_" + "wrongSecret" * 3, "hf_令牌" + "wrongSecret"])
def test_a_wrong_token_is_explained_and_never_printed(hub, tmp_path, token):
    results, output = run('results["x"] = call("hub:course/plain")', hub.endpoint, tmp_path, HF_TOKEN=token)
    assert "令牌" in results["x"]["error"] and "hf auth login" in results["x"]["error"], results
    assert "wrongSecret" not in output


def test_an_unreachable_mirror(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results, output = run('results["x"] = call("hub:course/plain")', f"http://user:mirrorSecret@127.0.0.1:{port}", tmp_path)
    assert all(word in results["x"]["error"] for word in (f"连不上 127.0.0.1:{port}", "HF_ENDPOINT")), results
    assert "mirrorSecret" not in output


def test_an_endpoint_that_is_not_a_hub(hub, tmp_path):
    code = 'results["x"] = call("hub:course/plain")'
    assert "127.0.0.1" in run(code, hub.cdn, tmp_path)[0]["x"]["error"]


def test_endpoint_set_after_the_import(hub, tmp_path):
    code = 'import utils.sources.hub, os; os.environ["HF_ENDPOINT"] = "https://mirror.example"; results["x"] = call("hub:course/plain")'
    assert "导入库之后才设" in run(code, hub.endpoint, tmp_path)[0]["x"]["error"]


MODEL = """
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("course/tiny-bert")
model, info = AutoModelForMaskedLM.from_pretrained("course/tiny-bert", output_loading_info=True)
body = AutoModel.from_pretrained("course/tiny-bert")
ids = tokenizer(%r, return_tensors="pt")
results = {"size": len(tokenizer), "tokens": tokenizer.convert_ids_to_tokens(ids["input_ids"][0]), "missing": sorted(info["missing_keys"]),
           "shape": list(model(**ids).logits.shape), "sum": sum(p.double().sum().item() for p in model.parameters()),
           "hidden": list(body(**ids).last_hidden_state.shape)}
"""


def test_tokenizer_and_model_through_the_unmodified_clients(hub, tiny_bert, tmp_path):
    from safetensors.torch import load
    text = re.search("[一-龥]{10}", "，".join(row["body"] for row in ROWS))[0]        # 全是汉字：BERT 一个字一个词元
    hub.seen.clear()
    found, _ = run(MODEL % text, hub.endpoint, tmp_path)
    assert found["size"] == tiny_bert[1] and found["tokens"] == ["[CLS]", *text, "[SEP]"] and found["missing"] == []
    assert found["shape"] == [1, 12, tiny_bert[1]] and found["hidden"] == [1, 12, 16]
    weights = load(tiny_bert[0]["model.safetensors"])
    assert found["sum"] == pytest.approx(sum(w.double().sum().item() for w in weights.values()), abs=1e-6)
    asked = {(place, method) for place, method, *_ in hub.seen}
    assert {("hub", "HEAD"), ("hub", "GET"), ("cdn", "GET")} <= asked


@pytest.mark.parametrize("call, words", [
    (lambda: load_corpus("hub:course/plain"), ["离线模式", "HF_HUB_OFFLINE"]),             # tests/conftest.py 设了离线
    (lambda: load_corpus("hub:"), ["hub: 后面要写", "用户名/数据集名"]),
    (lambda: load_corpus("hub:a/b/c"), ["a/b/c"]),
    (lambda: load_corpus("hub:../etc"), ["../etc"]),
    (lambda: load_corpus("hub:a/b", streaming="yes"), ["streaming", "yes"]),
    (lambda: load_corpus("hub:a/b", on_error="x"), ["on_error", "skip"]),
    (lambda: load_corpus("hub:a/b", token=TOKEN), ["没有这样的选项：token", "subset"]),
    (lambda: load_corpus("hub:a/b", encoding="gbk"), ["encoding"]),
    (lambda: load_corpus("hub:a/b", columns={"标题": "a"}), ["columns", "标题"]),
])
def test_options_are_checked_before_anything_is_fetched(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words), error.value
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("error", [RuntimeError, ConnectionError, KeyError, ValueError])
def test_what_the_library_says_never_reaches_the_traceback(error):
    """库的报错里若带着请求头，令牌也不能随「During handling…」一起打印出来。"""
    from utils.sources.hub import in_chinese
    try:
        with in_chinese("a/b", None):
            raise error(f"Illegal header value b'Bearer {TOKEN}'")
    except ValueError as ours:
        assert "a/b" in str(ours) or "连不上" in str(ours)
        assert TOKEN not in "".join(traceback.format_exception(ours))
    else:
        pytest.fail("错误被吞掉了")


def test_datasets_offline_alone_is_enough(monkeypatch):
    """只设了 HF_DATASETS_OFFLINE 时也说是离线，不去连。"""
    from utils.sources import hub
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="离线模式"):
        load_corpus("hub:course/plain")


def test_a_folder_of_the_same_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="也叫「a/b」"):
        load_corpus("hub:a/b")
