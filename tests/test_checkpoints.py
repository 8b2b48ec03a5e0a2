"""检查点：存进去再读出来，输出不变；先找学习者自己的，再找附带的；没有 pickle。"""

import json

import pytest
import torch
from transformers import BertForMaskedLM, BertLMHeadModel

from utils import checkpoints as C
from utils.environment import PRESETS, set_seed
from utils.tokenization import build_tokenizer
from utils.training import bert_config

SMOKE = PRESETS["smoke"]
TEXTS = ["今天是个大晴天", "青禾市昨天下了一场雨"]


@pytest.fixture
def places(monkeypatch, tmp_path):
    """自己的产物与附带的检查点，都放到临时文件夹里。"""
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path / "own"))
    monkeypatch.setattr(C, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "own" / "smoke", tmp_path / "shipped"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("char", TEXTS, model_max_length=SMOKE.max_len)


def new_model(tokenizer, seed=0):
    set_seed(seed)
    return BertForMaskedLM(bert_config(SMOKE, tokenizer)).eval()


@torch.no_grad()
def logits(model, tokenizer):
    return model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits       # (2, T, V)


def test_round_trip_is_exact(places, tokenizer):
    model = new_model(tokenizer)
    before = logits(model, tokenizer)
    C.save_checkpoint(model, tokenizer, places[0] / "mlm", {"steps": 3, "名字": "试"})
    loaded, other, source = C.load_checkpoint("mlm", BertForMaskedLM, SMOKE)
    assert torch.equal(logits(loaded, other), before)
    assert other.get_vocab() == tokenizer.get_vocab() and other.model_max_length == SMOKE.max_len
    assert other(*TEXTS)["input_ids"] == tokenizer(*TEXTS)["input_ids"]               # 句对的写法也存下来了
    assert not loaded.training and loaded.dtype == torch.float32 and "你自己" in source
    info = json.loads((places[0] / "mlm" / "course.json").read_text(encoding="utf-8"))
    assert info["steps"] == 3 and info["名字"] == "试" and "torch" in info["versions"]


def test_half_precision_halves_the_file(places, tokenizer):
    model = new_model(tokenizer)
    before = logits(model, tokenizer)
    C.save_checkpoint(model, tokenizer, places[0] / "mlm", {})
    full = (places[0] / "mlm" / "model.safetensors").stat().st_size
    C.save_checkpoint(model, tokenizer, places[1] / "mlm", {}, half=True)
    assert (places[1] / "mlm" / "model.safetensors").stat().st_size < 0.55 * full
    assert model.dtype == torch.float32                                               # 手里的模型还是 float32
    loaded, other, source = C.load_checkpoint("mlm", BertForMaskedLM, SMOKE, prefer="shipped")
    assert loaded.dtype == torch.float32 and "附带" in source
    torch.testing.assert_close(logits(loaded, other), before, atol=5e-3, rtol=0)


def test_no_pickle_is_written(places, tokenizer):
    folder = C.save_checkpoint(new_model(tokenizer), tokenizer, places[0] / "mlm", {})
    files = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "course.json"} <= files
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json"}, files
    for path in folder.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
        assert str(folder) not in path.read_text(encoding="utf-8")                    # 不泄露本机的路径


def test_own_comes_before_shipped(places, tokenizer):
    own, shipped = places
    with pytest.raises(FileNotFoundError, match="data/checkpoints/mlm 不见了.*06_mlm_pretraining"):
        C.find_checkpoint("mlm", SMOKE)
    C.save_checkpoint(new_model(tokenizer, 1), tokenizer, shipped / "mlm", {})
    folder, source = C.find_checkpoint("mlm", SMOKE)
    assert folder == shipped / "mlm" and "附带" in source and "06_mlm_pretraining" in source
    C.save_checkpoint(new_model(tokenizer, 2), tokenizer, own / "mlm", {})
    assert C.find_checkpoint("mlm", SMOKE)[0] == own / "mlm"
    assert C.find_checkpoint("mlm", SMOKE, prefer="shipped")[0] == shipped / "mlm"
    assert C.find_checkpoint("mlm", PRESETS["cpu"])[0] == shipped / "mlm"             # 别的预设的产物不算
    with pytest.raises(FileNotFoundError, match="08_clm_finetuning"):
        C.find_checkpoint("clm", SMOKE)


@pytest.mark.parametrize("kind, prefer", [("gpt", "own"), ("mlm", "mine")])
def test_wrong_names_are_refused(kind, prefer):
    with pytest.raises(ValueError, match="mlm、clm.*own 或 shipped"):
        C.find_checkpoint(kind, SMOKE, prefer)


def test_mlm_weights_become_a_decoder(places, tokenizer):
    model = new_model(tokenizer)
    C.save_checkpoint(model, tokenizer, places[0] / "mlm", {})
    decoder, _, _ = C.load_checkpoint("mlm", BertLMHeadModel, SMOKE, is_decoder=True)
    assert decoder.config.is_decoder
    mine, theirs = model.state_dict(), decoder.state_dict()
    shared = mine.keys() & theirs.keys()
    assert len(shared) >= len(mine) - 1 and all(torch.equal(mine[k], theirs[k]) for k in shared)
    assert not torch.equal(logits(decoder, tokenizer), logits(model, tokenizer))      # 有了因果掩码，输出不同


def test_saving_again_replaces(places, tokenizer):
    folder = places[0] / "mlm"
    C.save_checkpoint(new_model(tokenizer, 1), tokenizer, folder, {"steps": 1})
    second = new_model(tokenizer, 2)
    C.save_checkpoint(second, tokenizer, folder, {"steps": 2})
    loaded, _, _ = C.load_checkpoint("mlm", BertForMaskedLM, SMOKE)
    assert torch.equal(logits(loaded, tokenizer), logits(second, tokenizer))
    assert json.loads((folder / "course.json").read_text(encoding="utf-8"))["steps"] == 2
