"""检查点：存进去再读出来，输出不变；先找学习者自己的，再找附带的；没有 pickle。"""

import json

import pytest
import torch
from datasets import Dataset
from transformers import BertForMaskedLM, BertLMHeadModel

from utils.models import checkpoints as C
from utils.paths import DATA, SHIPPED
from utils.presets import PRESETS, set_seed
from utils.tokenization.tokenizer import build_tokenizer, check_vocabulary, course_tokenizer, vocabulary_id
from utils.training.batches import bert_config, clm_collator, encode_docs, fixed_batches
from utils.training.loop import train, training_arguments
from utils.training.losses import evaluate

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
    return course_tokenizer(SMOKE.max_len)


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
    with pytest.raises(FileNotFoundError, match="data/checkpoints/mlm 不见了.*mlm_pretraining"):
        C.find_checkpoint("mlm", SMOKE)
    C.save_checkpoint(new_model(tokenizer, 1), tokenizer, shipped / "mlm", {})
    folder, source = C.find_checkpoint("mlm", SMOKE)
    assert folder == shipped / "mlm" and "附带" in source and "mlm_pretraining" in source
    C.save_checkpoint(new_model(tokenizer, 2), tokenizer, own / "mlm", {})
    assert C.find_checkpoint("mlm", SMOKE)[0] == own / "mlm"
    assert C.find_checkpoint("mlm", SMOKE, prefer="shipped")[0] == shipped / "mlm"
    assert C.find_checkpoint("mlm", PRESETS["cpu"])[0] == shipped / "mlm"             # 别的预设的产物不算
    with pytest.raises(FileNotFoundError, match="clm_finetuning"):
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


# ---------------------------------------------------------------- 一张字表


def test_every_shipped_checkpoint_has_the_course_table():
    course = course_tokenizer()
    for kind in C.KINDS:
        model, tokenizer, _ = C.load_checkpoint(kind, BertForMaskedLM if kind == "mlm" else BertLMHeadModel, prefer="shipped")
        assert tokenizer.get_vocab() == course.get_vocab() and model.config.vocabulary_id == vocabulary_id(course)
        config = json.loads((SHIPPED / kind / "config.json").read_text(encoding="utf-8"))
        assert config["vocabulary_id"] == vocabulary_id(course)            # 写在文件里，不只是载入时补上的
    assert (DATA / "vocabulary" / "tokenizer.json").read_bytes() == (SHIPPED / "mlm" / "tokenizer.json").read_bytes()


@pytest.fixture
def shipped(places, tokenizer):
    C.save_checkpoint(new_model(tokenizer, 1), tokenizer, places[1] / "mlm", {})
    return places


@pytest.mark.parametrize("lost", C.COMPLETE)
def test_a_half_written_checkpoint_is_not_used(shipped, tokenizer, lost):
    own = C.save_checkpoint(new_model(tokenizer, 2), tokenizer, shipped[0] / "mlm", {})
    (own / lost).unlink()
    folder, source = C.find_checkpoint("mlm", SMOKE)
    assert folder == shipped[1] / "mlm" and f"没有存完（缺 {lost}）" in source and "mlm_pretraining" in source
    with pytest.raises(FileNotFoundError, match="没有完整的检查点"):
        C.load_folder(own, BertForMaskedLM)


def test_cut_off_weights_are_not_used(shipped, tokenizer):
    own = C.save_checkpoint(new_model(tokenizer, 2), tokenizer, shipped[0] / "mlm", {})
    weights = (own / "model.safetensors").read_bytes()
    (own / "model.safetensors").write_bytes(weights[:len(weights) // 2])
    folder, source = C.find_checkpoint("mlm", SMOKE)
    assert folder == shipped[1] / "mlm" and "读不出来" in source


def test_an_interrupted_save_leaves_the_old_one(places, tokenizer, monkeypatch):
    own = C.save_checkpoint(new_model(tokenizer, 1), tokenizer, places[0] / "mlm", {"steps": 1})
    before = {path.name: path.read_bytes() for path in own.iterdir()}

    def stop(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr(type(tokenizer), "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        C.save_checkpoint(new_model(tokenizer, 2), tokenizer, own, {"steps": 2})
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before and len(list(own.parent.iterdir())) == 1
    assert C.find_checkpoint("mlm", SMOKE)[0] == own


def test_an_own_checkpoint_with_another_table_is_not_mixed_in(shipped):
    old = build_tokenizer("char", TEXTS, model_max_length=SMOKE.max_len)
    C.save_checkpoint(new_model(old), old, shipped[0] / "mlm", {})
    folder, source = C.find_checkpoint("mlm", SMOKE)
    assert folder == shipped[1] / "mlm" and "另一张字表" in source
    model, tokenizer, _ = C.load_checkpoint("mlm", BertForMaskedLM, SMOKE)
    check_vocabulary(model, tokenizer)
    mine, its = C.load_folder(shipped[0] / "mlm", BertForMaskedLM)                    # 指名要它，它自己的分词器就跟着来
    assert its.get_vocab() == old.get_vocab() and len(its) == mine.config.vocab_size


ORDER = ["".join(sorted(t for t in course_tokenizer().get_vocab() if len(t) == 1))]   # 同样多的字，只是次序不同


@pytest.mark.parametrize("texts", [ORDER, TEXTS], ids=["次序不同", "字少"])
def test_a_model_with_anothers_tokenizer_is_an_error(places, tokenizer, tmp_path, texts):
    """编号对不上，模型自己不会报错，只会读错；所以处处先查。"""
    model, other = new_model(tokenizer), build_tokenizer("char", texts)
    rows = encode_docs(Dataset.from_dict({"intro": [TEXTS[0]], "body": [TEXTS[1]]}), other, 256)
    args = training_arguments(tmp_path, 1, SMOKE, torch.device("cpu"), 0)
    for attempt in (lambda: check_vocabulary(model, other), lambda: C.save_checkpoint(model, other, tmp_path / "x", {}),
                    lambda: evaluate(model, fixed_batches(rows, clm_collator(other), 1), shift=True),
                    lambda: train(model, rows, clm_collator(other), args, lambda m: (0.0, 0.0))):
        with pytest.raises(ValueError, match="模型和分词器不是一对"):
            attempt()


def test_added_tokens_need_room_in_the_model(tokenizer):
    model, bigger = new_model(tokenizer), course_tokenizer()
    bigger.add_special_tokens({"extra_special_tokens": ["<0>"]})
    with pytest.raises(ValueError, match="不是一对"):
        check_vocabulary(model, bigger)
    model.resize_token_embeddings(len(bigger), mean_resizing=False)
    check_vocabulary(model, bigger)
