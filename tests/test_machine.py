"""utils.machine 与 utils.scaling.speed：每项检查都既会通过也会不通过，不通过时说得出办法；速度的折算对得上手算。"""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from utils import machine
from utils.machine import Check, check_machine
from utils.paths import ROOT
from utils.presets import PRESETS
from utils.scaling.speed import EVALUATIONS, FORWARD, Speed, measure_speed, minutes_text
from utils.tokenization.tokenizer import build_tokenizer

TINY = replace(PRESETS["smoke"], layers=1, hidden=16, heads=2, batch_size=8)


def packages(folder, requirements, constraints):
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    (folder / "constraints.txt").write_text(constraints, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("state", "check"), [
    ("ok", lambda: machine.check_python((3, 12, 4), 64)),
    ("ok", lambda: machine.check_python((3, 11, 0), 64)),
    ("fail", lambda: machine.check_python((3, 10, 20), 64)),
    ("fail", lambda: machine.check_python((3, 12, 4), 32)),
    ("warn", lambda: machine.check_python((3, 14, 0), 64)),
    ("ok", lambda: machine.check_cores(2)),
    ("warn", lambda: machine.check_cores(1)),
    ("ok", lambda: machine.check_memory(8.0, 4.0)),
    ("warn", lambda: machine.check_memory(4.0, 1.2)),
    ("fail", lambda: machine.check_memory(2.0, 0.3)),
    ("ok", lambda: machine.check_disk(20.0)),
    ("warn", lambda: machine.check_disk(0.5)),
    ("fail", lambda: machine.check_disk(0.05)),
    ("ok", lambda: machine.check_gpu("cpu", nvidia=False)),
    ("ok", lambda: machine.check_gpu("mps", nvidia=False)),
    ("warn", lambda: machine.check_gpu("cpu", nvidia=True)),
    ("fail", lambda: machine.check_font("汉字", ["DejaVu Sans"])),
    ("fail", lambda: machine.check_font("汉字", ["no-such-font"])),                            # 名字里有短横，也要查得了
])
def test_each_check_has_its_verdict_and_its_remedy(state, check):
    result = check()
    assert result.state == state
    assert bool(result.remedy) == (state != "ok")


def test_the_real_machine_passes_what_the_course_ships():
    from utils.display.plotting import use_chinese_font

    use_chinese_font()
    assert machine.check_font().state == "ok"
    assert machine.check_packages().state in ("ok", "warn")
    assert machine.check_cores().state in ("ok", "warn")


def test_packages_missing_old_and_merely_different(tmp_path):
    root = packages(tmp_path, "# 说明\nAlpha-Lib>=2.0   # 用处\nbeta>=1.0\n",
                    "# 注释\nalpha_lib==2.1\nbeta==1.5 ; python_version >= '3'\nbeta==9 ; python_version < '3'\n")
    good = machine.check_packages({"alpha-lib": "2.1+cpu", "beta": "1.5"}, root)
    assert good.state == "ok", good
    missing = machine.check_packages({"beta": "1.5"}, root)
    assert missing.state == "fail" and "alpha-lib（没有装）" in missing.detail and "pip install" in missing.remedy
    old = machine.check_packages({"alpha-lib": "1.9", "beta": "1.5"}, root)
    assert old.state == "fail" and "1.9" in old.detail and "beta" not in old.detail
    other = machine.check_packages({"alpha-lib": "2.4", "beta": "1.5"}, root)
    assert other.state == "warn" and "2.4" in other.detail and "2.1" in other.detail and "beta" not in other.detail


def test_write_permission_is_really_tried(tmp_path):
    assert machine.check_writable(tmp_path / "new").state == "ok"
    assert list((tmp_path / "new").iterdir()) == []
    file = tmp_path / "file"
    file.write_text("占着位置", encoding="utf-8")
    blocked = machine.check_writable(file / "inside")
    assert blocked.state == "fail" and "COURSE_OUTPUTS" in blocked.remedy
    assert str(tmp_path) not in blocked.detail


def test_a_folder_that_exists_but_refuses_files_is_noticed(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "只读")

    monkeypatch.setattr(machine.tempfile, "NamedTemporaryFile", refuse)
    assert machine.check_writable(tmp_path).state == "fail"


def test_widgets_need_their_front_end_too(tmp_path):
    assert machine.check_widgets([tmp_path]).state == "warn"
    (tmp_path / "anywidget").mkdir()
    half = machine.check_widgets([tmp_path])
    assert half.state == "warn" and "anywidget" not in half.detail
    (tmp_path / "@jupyter-widgets" / "jupyterlab-manager").mkdir(parents=True)
    assert machine.check_widgets([tmp_path]).state == "ok"


def test_shipped_models_are_missed_when_they_are_gone(tmp_path):
    for kind in ("mlm", "clm"):
        (tmp_path / kind).mkdir()
        for part in ("config.json", "model.safetensors", "tokenizer.json"):
            (tmp_path / kind / part).write_bytes(b"x" * 500_000)
    full = machine.check_models(tmp_path)
    assert full.state == "ok" and "3.0 MB" in full.detail
    (tmp_path / "clm" / "model.safetensors").unlink()
    lost = machine.check_models(tmp_path)
    assert "clm/model.safetensors" in lost.detail and "git checkout data/checkpoints" in lost.remedy and "重新解压" in lost.remedy


def test_a_check_that_breaks_costs_only_itself():
    def check_broken():
        raise RuntimeError("<b>坏了</b>")

    report = check_machine((lambda: Check("甲", "ok", "好"), check_broken, lambda: Check("乙", "warn", "一般", "看看")))
    assert [c.state for c in report.checks] == ["ok", "fail", "warn"]
    assert not report.ready and "坏了" in str(report) and "→ 看看" in str(report)
    page = report._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;" in page and page.count("<tr>") == 4
    assert check_machine((lambda: Check("乙", "warn", "一般", "看看"),)).ready


def test_report_covers_everything_and_hides_the_folder():
    report = check_machine()
    assert len(report.checks) == len(machine.CHECKS) == 10
    assert str(ROOT) not in str(report)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("char", ["今天是个大晴天，气温12摄氏度。", "第3轮比分停在1比0。"], model_max_length=256)


def test_speed_is_tokens_over_seconds(tokenizer):
    ticks = itertools.count()                                 # 每看一次表，过去 1 秒：每一步都是 1 秒
    speed = measure_speed(TINY, tokenizer, torch.device("cpu"), budget=3.0, clock=lambda: next(ticks))
    assert speed.steps == 3
    seen = speed.tokens_per_second                            # 每步 2 篇、1 秒
    assert 2 * 40 < seen < 2 * 256
    whole = speed.step_seconds * seen / TINY.batch_size        # 一篇平均多少词元
    assert 40 < whole < 256


def test_speed_leaves_the_random_state_alone(tokenizer):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    speed = measure_speed(TINY, tokenizer, torch.device("cpu"), budget=0.05)
    assert torch.equal(torch.rand(3), expected)
    assert speed.steps >= 2 and speed.tokens_per_second > 0 and 0 < speed.share <= 1
    with pytest.raises(ValueError, match="budget"):
        measure_speed(TINY, tokenizer, torch.device("cpu"), budget=0)


def test_minutes_count_training_and_evaluation():
    preset = replace(TINY, batch_size=10, eval_docs=30)
    expected = (600 + EVALUATIONS * 3 * FORWARD) * 0.5 / 60
    assert math.isclose(Speed(3, 1000.0, 0.5).minutes(600, preset), expected)


@pytest.mark.parametrize(("minutes", "text"), [(0.0, "约 1 秒"), (0.5, "约 30 秒"), (3.46, "约 3.5 分钟"), (90, "约 1.5 小时")])
def test_minutes_are_written_for_people(minutes, text):
    assert minutes_text(minutes) == text


def test_minutes_refuse_nonsense():
    with pytest.raises(ValueError, match="有限"):
        minutes_text(math.nan)
