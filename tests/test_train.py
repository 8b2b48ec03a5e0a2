"""命令行训练：一个进程与 torchrun 的两个进程，曲线相同；能从 MLM 接着练 CLM；写错的参数有中文说明。"""

import json
import os
import subprocess
import sys

import pytest
from transformers import BertForMaskedLM, BertLMHeadModel

from utils import train
from utils.paths import ROOT
from utils.presets import PRESETS

COMMON = ["--preset", "smoke", "--docs", "600", "--steps", "80"]


def launch(arguments, processes=None):
    command = [sys.executable, "-m", *(["torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", "29617", "-m"]
                                       if processes else []), "utils.train", *arguments]
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    out = launch(["mlm", *COMMON, "--out", str(folder)])
    assert out.count("练完 80 步") == 1
    return folder


def test_two_processes_give_the_single_process_curve(single, tmp_path):
    out = launch(["mlm", *COMMON, "--out", str(tmp_path)], processes=2)
    assert out.count("练完 80 步") == 1                                    # 只有第一个进程说话
    one, two = (json.loads((folder / "history.json").read_text(encoding="utf-8")) for folder in (single, tmp_path))
    assert (one["processes"], two["processes"]) == (1, 2) and one["documents_per_step"] == two["documents_per_step"] == 8
    assert one["eval_steps"] == two["eval_steps"] and one["eval_loss"][0] == pytest.approx(two["eval_loss"][0], rel=1e-4)
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=0.03)
    assert one["eval_loss"][-1] < one["eval_loss"][0] - 1
    assert not list(tmp_path.glob("trainer/*")) and BertForMaskedLM.from_pretrained(tmp_path)


def test_clm_starts_from_a_checkpoint(single, tmp_path, capsys):
    result = train.main(["clm", "--preset", "smoke", "--docs", "300", "--steps", "6", "--from", str(single), "--out", str(tmp_path)])
    assert result["kind"] == "clm" and len(result["eval_steps"]) >= 2 and "练完 6 步" in capsys.readouterr().out
    assert BertLMHeadModel.from_pretrained(tmp_path).config.is_decoder


def test_own_files_can_be_trained_on(tmp_path):
    rows = [{"intro": f"今天是个好日子，第{i}届菜市场开门了。", "body": "大家高高兴兴地买菜，一直忙到天黑才回家。"} for i in range(60)]
    (tmp_path / "我的.jsonl").write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    result = train.main(["mlm", "--preset", "smoke", "--steps", "3", "--data", f"files:{tmp_path / '我的.jsonl'}",
                         "--out", str(tmp_path / "out"), "--batch-size", "4"])
    assert result["documents_per_step"] == 4 and (tmp_path / "out" / "model.safetensors").exists()


def test_share_batch():
    assert train.share_batch(PRESETS["cpu"], 2).batch_size == PRESETS["cpu"].batch_size // 2
    with pytest.raises(ValueError, match="分不给 3 个进程"):
        train.share_batch(PRESETS["cpu"], 3)


@pytest.mark.parametrize("arguments, words", [
    (["clm", "--from", "没有这个文件夹"], "里没有完整的检查点（缺 config.json"), (["mlm", "--data", "网上的"], "不认识的语料来源"),
    (["mlm", "--docs", "10"], "至少用 100")])
def test_errors_are_in_chinese(arguments, words, tmp_path):
    with pytest.raises(SystemExit, match=words):
        train.main([*arguments, "--preset", "smoke", "--out", str(tmp_path)])
