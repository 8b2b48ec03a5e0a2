"""hub 上的模型：真的 transformers 客户端，对着本机的替身跑；scale_up 里要联网的格子原样拿来运行。"""

import json

import jupytext
import pytest
from hub_standin import Repo, StandIn
from test_hub import ROWS, TOKEN, jsonl, run

from utils.paths import ROOT

CELLS = [c.source for c in jupytext.read(ROOT / "notebooks" / "src" / "scale_up.py", fmt="py:percent").cells if c.cell_type == "code"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """一个数据集、一个小 BERT、一个小 GPT-2（字节级 BPE）、一个只有 pickle 的模型、一个要登录的模型。"""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    folder = tmp_path_factory.mktemp("models")
    characters = sorted({c for row in ROWS for c in row["body"] + "今天是个好气日子我们去图书馆借"})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    BertTokenizerFast(vocab={t: i for i, t in enumerate(tokens)}).save_pretrained(folder / "bert")
    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertForMaskedLM(BertConfig(vocab_size=len(tokens), **small)).save_pretrained(folder / "bert")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([row["body"] for row in ROWS], vocab_size=600, special_tokens=["<|endoftext|>"])
    ends = dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **ends).save_pretrained(folder / "gpt")
    GPT2LMHeadModel(GPT2Config(vocab_size=bpe.get_vocab_size(), n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
                    ).save_pretrained(folder / "gpt")
    bert, gpt = ({p.name: p.read_bytes() for p in (folder / name).iterdir()} for name in ("bert", "gpt"))
    pickled = {name: body for name, body in bert.items() if name != "model.safetensors"} | {"pytorch_model.bin": b"x"}
    code = {"config.json": json.dumps({"model_type": "evil", "auto_map": {"AutoModelForMaskedLM": "evil.Evil"}}).encode(),
            "evil.py": b"raise SystemExit('ran')", "model.safetensors": bert["model.safetensors"]}
    repos = {("datasets", "course/news"): Repo({"main": {"data.jsonl": jsonl(ROWS)}}), ("models", "course/bert"): Repo({"main": bert}),
             ("models", "course/gpt"): Repo({"main": gpt}), ("models", "course/pickled"): Repo({"main": pickled}),
             ("models", "course/private"): Repo({"main": bert}, token=TOKEN), ("models", "course/code"): Repo({"main": code})}
    with StandIn(repos) as standin:
        yield standin


BEFORE = """
import math, os, pathlib, torch
from dataclasses import replace
import sys; sys.argv = ["x"]
from utils.environment import start
from utils.presets import PRESETS
from utils.models.checkpoints import load_checkpoint
from utils.sources.cleaning import clean
from utils.corpus import generate, load_corpus
from utils.tokenization import name_unknown
from utils.training import encode_docs, evaluate, fixed_batches, mlm_collator, train, training_arguments
from transformers import BertForMaskedLM, BertLMHeadModel
lesson = start("scale_up", preset="smoke")
preset, device = lesson.preset, lesson.device
articles = [row for part in load_corpus("articles").values() for row in part]
clm = load_checkpoint("clm", BertLMHeadModel, preset=preset, prefer="shipped", is_decoder=True)[0]
"""


def network_cells() -> list[str]:
    """scale_up 里要联网的格子，以及它们用到的两个函数，按次序。"""
    words = ("COURSE_HUB_DATASET", "def fill(", "COURSE_HUB_BERT", "if BERT is not None", "def bits_per_char(", "COURSE_HUB_CAUSAL")
    chosen = [cell for cell in CELLS if any(word in cell for word in words)]
    assert len(chosen) == len(words)
    return chosen


def test_the_cells_of_the_notebook_run_against_the_stand_in(hub, tmp_path):
    code = BEFORE + "".join(f"exec({cell!r})\n" for cell in network_cells())
    code += "results = {'steps': tuned.eval_steps, 'bits': bits_per_char(public, public_tokenizer, exam['课程的新闻（导语）'])}"
    found, output = run(code, hub.endpoint, tmp_path, COURSE_HUB_DATASET="course/news", COURSE_HUB_BERT="course/bert",
                        COURSE_HUB_CAUSAL="course/gpt", COURSE_OUTPUTS=str(tmp_path / "out"), MPLBACKEND="Agg")
    assert "清洗：进入" in output and "hub 上的 course/bert，版本" in output and "hub 上的 course/gpt，版本" in output
    assert "注意力的形状： (2, 2," in output and "接着练两步" in output and "跳过" not in output
    assert found["steps"] == [0, 2] and 5 < found["bits"] < 30                                 # 随机权重：一个字 3 字节，每字节约 ln 600


def test_without_names_the_cells_do_nothing(hub, tmp_path):
    hub.seen.clear()
    code = BEFORE + "".join(f"exec({cell!r})\n" for cell in network_cells())
    _, output = run(code, hub.endpoint, tmp_path, COURSE_OUTPUTS=str(tmp_path / "out"), MPLBACKEND="Agg")
    assert output.count("跳过") == 3 and not hub.seen


PROBLEMS = """
from transformers import AutoModelForMaskedLM
from utils.sources.hub_models import load_hub_model
for name in ("course/nowhere", "course/pickled", "course/private", "course/code", "../etc"):
    try:
        load_hub_model(name, AutoModelForMaskedLM)
        results[name] = ""
    except ValueError as error:
        results[name] = str(error)
try:
    load_hub_model("course/bert", AutoModelForMaskedLM, revision="v9")
except ValueError as error:
    results["v9"] = str(error)
"""


def test_each_problem_gets_one_clear_sentence(hub, tmp_path):
    found, output = run(PROBLEMS, hub.endpoint, tmp_path)
    for name, words in {"course/nowhere": ["找不到模型", "course/nowhere"], "course/pickled": ["safetensors", "pickle"],
                        "course/private": ["找不到模型", "hf auth login"], "course/code": ["course/code"], "../etc": ["../etc"],
                        "v9": ["没有名为「v9」的版本"]}.items():
        assert found[name] and all(word in found[name] for word in words), (name, found[name])
    assert "ran" not in output.split()


def test_offline_is_said_at_once():
    from transformers import AutoModelForMaskedLM

    from utils.sources.hub_models import load_hub_model
    with pytest.raises(ValueError, match="离线模式"):
        load_hub_model("course/bert", AutoModelForMaskedLM)
