""".ci/run：安装、走完全程、测试，各做一次，说清用时；哪样失败、超时，都算失败，也不留下还在跑的进程。"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not (shutil.which("bash") and shutil.which("timeout")), reason=".ci/run 要有 bash 和 timeout")
# 替身：记下自己怎样被叫到，照 STAND_IN_* 睡一会儿、以某个退出码退出
COURSE = """
import os, sys, time
command = sys.argv[1]
with open("called", "a", encoding="utf-8") as file:
    names = ("COURSE_BROWSER", "COURSE_OUTPUTS", "OMP_NUM_THREADS")
    file.write(" ".join(sys.argv[1:]) + "|" + "|".join(os.environ.get(name, "") for name in names) + "\\n")
print("这里是", *sys.argv[1:], flush=True)
if "--version" not in sys.argv:
    if command == "run":
        assert not os.path.exists(os.environ["COURSE_OUTPUTS"]), "产物文件夹不是空的"
        print("03_x 第 7 格「1 / 0」：ZeroDivisionError", flush=True)
    time.sleep(float(os.environ.get("STAND_IN_SLEEP_" + command, "0")))
    sys.exit(int(os.environ.get("STAND_IN_EXIT_" + command, "0")))
"""


@pytest.fixture
def clone(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "course.py").write_text(COURSE, encoding="utf-8")
    return tmp_path


def start(clone: Path, **environment: str) -> subprocess.Popen:
    temporary = clone / "tmp"
    temporary.mkdir()
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "COURSE_OUTPUTS", "COURSE_CI_LIMIT")}
    env |= {"CHROMIUM": shutil.which("bash"), "TMPDIR": str(temporary)} | environment
    return subprocess.Popen(["bash", str(clone / ".ci" / "run")], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, encoding="utf-8")


def finish(clone: Path, **environment: str) -> tuple[int, str]:
    child = start(clone, **environment)
    text = child.communicate(timeout=120)[0]
    assert not list((clone / "tmp").iterdir())                              # 临时文件夹收拾干净了
    return child.returncode, text


def test_it_sets_up_then_walks_the_road_beside_the_tests(clone):
    status, text = finish(clone, STAND_IN_SLEEP_run="1")
    assert status == 0, text
    setup, packages, *both = (clone / "called").read_text(encoding="utf-8").splitlines()
    assert setup.startswith("setup|required") and packages.startswith("test -- --version|required")
    tests, road = sorted(both, reverse=True)
    assert tests == "test -- -n 1|required||"
    assert road.startswith(f"run --preset cpu|required|{clone}/tmp/") and road.endswith("/outputs|1")
    assert text.index("这里是 test -- -n 1") < text.index("这里是 run") < text.index("用时")    # 测试的输出直接写出来，路的最后才写
    for line in ("安装：0.0 分钟", "走完全程（预设 cpu，从空的产物文件夹开始）：0.0 分钟，成功", "测试（course.py test）：0.0 分钟，成功",
                 "合计：0.0 分钟（上限 "):
        assert line in text


@pytest.mark.parametrize("flags, limit, environment", [
    ("fma avx2", 88, {}), ("avx2 avx512_bf16", 75, {}), ("avx2 amx_bf16 amx_tile", 75, {}), ("avx2", 60, {"COURSE_CI_LIMIT": "60"})])
def test_the_limit_allows_for_a_cpu_without_bf16(clone, flags, limit, environment):
    cpu = clone / "cpuinfo"
    cpu.write_text(f"flags\t\t: {flags}\n", encoding="utf-8")
    status, text = finish(clone, COURSE_CI_CPUINFO=str(cpu), **environment)
    assert status == 0 and f"（上限 {limit} 分钟）" in text


@pytest.mark.parametrize("which, line", [("run", "开始）：0.0 分钟，失败，退出码 3"), ("test", "test）：0.0 分钟，失败，退出码 3")])
def test_either_failure_fails_and_both_are_reported(clone, which, line):
    status, text = finish(clone, **{f"STAND_IN_EXIT_{which}": "3"})
    assert status == 1 and line in text and text.count("成功") == 1
    assert "03_x 第 7 格「1 / 0」：ZeroDivisionError" in text


def test_a_failed_installation_stops_at_once(clone):
    status, _ = finish(clone, STAND_IN_EXIT_setup="4")
    assert status == 4 and (clone / "called").read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.parametrize("which", ["run", "test"])
def test_what_hangs_is_stopped_at_the_limit(clone, which):
    began = time.monotonic()
    status, text = finish(clone, COURSE_CI_LIMIT="0", **{f"STAND_IN_SLEEP_{which}": "600"})
    assert status == 1 and time.monotonic() - began < 60
    assert "没有做完（时限到了，或被强行结束），退出码 124" in text and "超过了上限" in text


def test_being_told_to_stop_leaves_nothing_running(clone):
    child = start(clone, STAND_IN_SLEEP_run="600", STAND_IN_SLEEP_test="600")
    deadline = time.monotonic() + 60
    while (clone / "called").read_text(encoding="utf-8").count("\n") < 4 if (clone / "called").exists() else True:
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.1)
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) >= 4
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 143 and not psutil.wait_procs(family, timeout=20)[1]
    assert not list((clone / "tmp").iterdir())
