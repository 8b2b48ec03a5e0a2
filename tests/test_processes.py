"""utils.training.processes：DDP 与 FSDP 算的是同一件事；杀掉一个进程，重新拉起来接着练；存下的检查点完整。"""

import json
import os
import shutil
import signal
import sys
import time

import pytest
import torch
from safetensors import safe_open
from transformers import BertForMaskedLM

from utils.presets import PRESETS
from utils.training import processes as P
from utils.training.loop import training_arguments

COMMON = ["mlm", "--preset", "smoke", "--docs", "200"]
CPU = torch.device("cpu")


def finish(child):
    lines = child.communicate(timeout=400)[0].splitlines()
    assert child.returncode == 0, "\n".join(lines[-40:])
    return lines


def history(folder):
    return json.loads((folder / "history.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """同样 12 步，DDP 与 FSDP 各练一次。"""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("ddp", "fsdp")}
    for name, more in {"ddp": [], "fsdp": ["--shard"]}.items():
        lines = finish(P.launch(P.torchrun(2, [*COMMON, "--steps", "12", "--out", str(folders[name]), *more])))
        assert sum(line.startswith("练完 12 步") for line in lines) == 1
    return folders


def test_sharding_changes_where_not_what(both):
    ddp, fsdp = history(both["ddp"]), history(both["fsdp"])
    assert fsdp["eval_loss"] == pytest.approx(ddp["eval_loss"], rel=1e-4)
    assert fsdp["parameters_per_process"] == pytest.approx(ddp["parameters_per_process"] / 2, rel=0.05)


def test_the_saved_weights_are_whole_and_not_doubled(both):
    models, sizes = {}, {}
    for name, folder in both.items():
        model, info = BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        models[name], sizes[name] = model.state_dict(), (folder / "model.safetensors").stat().st_size
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert "bert.embeddings.word_embeddings.weight" in file.keys()
    assert sizes["fsdp"] == pytest.approx(sizes["ddp"], rel=0.01)
    for name, weight in models["ddp"].items():
        if name.endswith("key.bias"):                 # 它的梯度理论上是零（softmax 不理会整行加一个数），AdamW 放大的只是舍入误差
            continue
        torch.testing.assert_close(models["fsdp"][name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(os.name != "posix", reason="用到 SIGKILL")
def test_after_a_killed_process_the_same_command_goes_on(tmp_path):
    """参数分片的；不分片的，scale_up 每次运行都杀一遍。"""
    arguments = [*COMMON, "--steps", "30", "--save-every", "5", "--out", str(tmp_path), "--shard"]
    child = P.launch(P.torchrun(2, arguments))
    deadline = time.time() + 300
    while not (P.saved_steps(tmp_path) and len(P.workers(child)) == 2):
        assert child.poll() is None and time.time() < deadline, child.stdout.read()[-3000:]
        time.sleep(0.05)
    os.kill(P.workers(child)[-1], signal.SIGKILL)
    child.communicate(timeout=120)
    assert child.returncode != 0                          # torchrun 发现死了人，停下全组；同一条命令再来一次，就接着练
    lines = finish(P.launch(P.torchrun(2, arguments)))
    assert sum("上次练到第" in line for line in lines) == 1 and sum(line.startswith("练完 30 步") for line in lines) == 1
    done = history(tmp_path)
    assert done["eval_steps"] == sorted(set(done["eval_steps"])) and done["eval_steps"][-1] == 30
    assert done["eval_loss"][-1] < done["eval_loss"][0] - 0.5 and not list(tmp_path.glob("trainer/*"))


def test_accelerate_launch_is_the_same_command(tmp_path):
    """--multi_gpu 是「几个进程」的意思，没有 GPU 也用它；写 --cpu 的话，accelerate 要靠 mpirun 才起得了几个进程。"""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no",
               "--dynamo_backend", "no", "-m", "utils.train", *COMMON, "--steps", "4", "--out", str(tmp_path)]
    finish(P.launch(command))
    assert history(tmp_path)["processes"] == 2


def test_one_process_needs_no_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert P.together(CPU) == P.together(CPU, shard=True) == {}
    assert training_arguments(tmp_path, 1, PRESETS["smoke"], CPU, 0, shard=True).fsdp in (None, False, "", [])


def test_settings_for_several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert P.together(CPU) == {"ddp_backend": "gloo", "ddp_find_unused_parameters": False}
    assert P.together(torch.device("cuda")) == {"ddp_find_unused_parameters": False}
    assert P.together(torch.device("cuda"), shard=True) == {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": ["BertLayer"]}}


def test_launch_can_be_kept_off_the_gpu(monkeypatch):
    from utils.presets import pick_device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device().type == "cuda"
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert pick_device().type == "cpu"
    names = "COURSE_DEVICE", "WORLD_SIZE", "OMP_NUM_THREADS"
    tell = [sys.executable, "-c", f"import os; print(*map(os.environ.get, {names!r}))"]
    monkeypatch.delenv("COURSE_DEVICE")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert [finish(P.launch(tell, 2, cpu_only=only)) for only in (True, False)] == [["cpu None 2"], ["None None 2"]]


def test_saved_steps_ignores_half_written_progress(tmp_path):
    for step, whole in ((5, True), (10, True), (15, False)):
        folder = tmp_path / "trainer" / "run-x" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if whole:
            for name in ("trainer_state.json", "history.json"):
                (folder / name).write_text("{}")
    assert P.saved_steps(tmp_path) == [5, 10]
    shutil.rmtree(tmp_path / "trainer")
    assert P.saved_steps(tmp_path) == []


def test_half_written_progress_is_never_resumed_from(tmp_path):
    """先写 trainer_state.json、后写 history.json：只有前者，说明存到一半。"""
    from utils.training.resume import complete_checkpoints
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("{}")
    assert complete_checkpoints(tmp_path) == []
    (tmp_path / "checkpoint-5" / "history.json").write_text("{}")
    (tmp_path / "checkpoint-40").mkdir()
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["checkpoint-5"]


def test_plain_models_have_their_own_weights():
    model = torch.nn.Linear(2, 3)
    assert not P.is_sharded(model) and P.parameters_here(model) == 9 and set(P.whole_weights(model)) == {"weight", "bias"}
