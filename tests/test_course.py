"""course.py：安装、修复、报错。真的建虚拟环境、真的运行 pip，只是软件包换成几个小小的假 wheel，不需要网络。"""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.install import base, browser, explain, here, lock, run_pip, stamp, venv

ROOT = Path(__file__).resolve().parents[1]
POSIX = os.name == "posix"
IPYKERNEL = """
import argparse, json, pathlib, sys
if __name__ == "__main__":
    p = argparse.ArgumentParser(); p.add_argument("install"); p.add_argument("--env", nargs=2)
    for name in ("--prefix", "--name", "--display-name"): p.add_argument(name)
    a = p.parse_args()
    d = pathlib.Path(a.prefix, "share/jupyter/kernels", a.name); d.mkdir(parents=True, exist_ok=True)
    spec = {"argv": [sys.executable], "display_name": a.display_name, "env": dict([a.env])}
    (d / "kernel.json").write_text(json.dumps(spec))
"""
TELL = """
import json, os, sys
if __name__ == "__main__":
    keep = ("COURSE_PRESET", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "PYTHONUTF8", "OMP_NUM_THREADS")
    print("TELL" + json.dumps({"argv": sys.argv[1:], "env": {k: os.environ.get(k) for k in keep}}))
    sys.exit(int(os.environ.get("TELL_EXIT", "0")))
"""


def load_course():
    """重新导入一遍 course.py。"""
    spec = importlib.util.spec_from_file_location("course_under_test", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def course(tmp_path, monkeypatch):
    """导入的 course 模块；安装用的路径都指到临时文件夹。"""
    module = load_course()
    for name in ("requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    folder = tmp_path / ".venv"
    for owner, name, value in ((base, "ROOT", tmp_path), (base, "VENV", folder), (lock, "LOCK", tmp_path / ".venv.lock"),
                               (stamp, "STAMP", folder / "course-stamp.json")):
        monkeypatch.setattr(owner, name, str(value))
    return module


def copy_door(folder: Path) -> None:
    """把 course.py 和它要的 tools/install 复制到 folder。"""
    shutil.copy(ROOT / "course.py", folder)
    shutil.copytree(ROOT / "tools" / "install", folder / "tools" / "install", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tools" / "__init__.py", folder / "tools")
    (folder / "utils").mkdir()
    for name in ("__init__.py", "paths.py", "road.py"):
        shutil.copy(ROOT / "utils" / name, folder / "utils")


def write_road(folder: Path, *topics: str) -> None:
    """在 folder（notebooks/）里写一份 road.toml，依次是这几本。"""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (f'[[notebook]]\ntopic = "{topic}"\ntitle = "题"\nseal = "字"\nquestion = ["问？"]\nenglish = "?"\nread = 1\nrun = 1\n'
            "practise = 1\n" for topic in topics)
    (folder / "road.toml").write_text("".join(rows), encoding="utf-8")


# ---------------------------------------------------------------- 旧 Python


def test_source_parses_on_old_python():
    """语法不超出 3.7;2.7 和 3.6 由下面的测试在真的解释器上试。"""
    ast.parse((ROOT / "course.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    assert "\nimport typing" not in (ROOT / "course.py").read_text(encoding="utf-8")


def old_pythons() -> list[str]:
    """这台机器上找得到的 3.11 以前的解释器。"""
    names = [*Path.home().glob(".pyenv/versions/*/bin/python")]
    words = ("python2", "python2.7", "python3.6", "python3.8", "python3.9", "python3.10")
    names += [Path(p) for p in map(shutil.which, words) if p]
    found = {}
    for path in names:
        ask = [path, "-c", "import sys; print(sys.version_info[:2])"]
        run = subprocess.run(ask, capture_output=True, text=True)
        if run.returncode == 0 and run.stdout.strip() and ast.literal_eval(run.stdout) < (3, 11):
            found.setdefault(run.stdout, str(path))
    return [found[k] for k in sorted(found)]


OLD = old_pythons()


@pytest.mark.skipif(not OLD, reason="这台机器上没有比 3.11 旧的 Python")
@pytest.mark.parametrize("python", OLD or [""])
def test_old_python_gets_a_clear_message(python):
    run = subprocess.run([python, str(ROOT / "course.py"), "lab"], capture_output=True,
                         env=dict(os.environ, PYTHONIOENCODING="utf-8"))
    text = run.stderr.decode("utf-8")
    assert run.returncode == 1 and "Python 太旧" in text and "3.11 到 3.13" in text and "Traceback" not in text


def test_newer_python_is_named(course, monkeypatch):
    """真能运行的新 Python 会被点名；PATH 上没有，就说去哪里装。"""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setattr(course.sys, "version_info", (3, 10, 20))
    assert re.search(r"已有够新的 Python.*\n.*python.* course.py lab", course.python_problem())
    monkeypatch.setenv("PATH", "")
    assert "请安装 Python 3.12" in course.python_problem()


def test_installer_is_told_which_pythons_will_do(monkeypatch):
    """支持哪几版只写在 course.py 里，由它交给 tools/install。"""
    monkeypatch.setattr(base, "MIN_PYTHON", (0, 0))
    monkeypatch.setattr(base, "SUPPORTED", "")
    course = load_course()
    assert base.MIN_PYTHON == course.MIN_PYTHON == (3, 11)
    assert "请换一个 Python（3.11 到 3.13）" in explain.explain_venv("说不清的错")


def test_installer_needs_only_the_standard_library():
    """安装之前什么包都没有；它也不回头导入 course.py 和 utils。"""
    files = sorted((ROOT / "tools" / "install").glob("*.py"))
    assert len(files) > 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names or name.startswith("tools.install"), f"{path.name}: {name}"


# ---------------------------------------------------------------- 命令行


def call(*words, cwd=ROOT, python=sys.executable, check=None, **env):
    """运行 course.py，返回 （退出码，输出）。"""
    run = subprocess.run([python, "course.py", *words], cwd=cwd, timeout=300, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         env={**os.environ, "PYTHONIOENCODING": "utf-8", **env})
    text = run.stdout.decode("utf-8", "replace")
    if check is not None:
        assert run.returncode == check, text
    assert "Traceback" not in text
    return run.returncode, text


def test_help_is_friendly():
    for words in ([], ["--help"], ["help"], ["lab", "-h"]):
        _, text = call(*words, check=0)
        for word in ("lab", "run", "build", "test", "release", "grade", "slides", "--here", "--preset", "用法"):
            assert word in text


@pytest.mark.parametrize("words, expected", [
    (["labb"], "你是不是想写 lab?"),
    (["xyz"], "可以用：lab、run、build、test、setup、pack、release、grade、slides"),
    (["release"], "release 后面要写一个文件夹"),
    (["grade", "甲", "乙"], "grade 后面要写一个文件夹"),
    (["grade", "甲", "--", "-x"], "grade 不接受"),
    (["run", "--presett", "cpu"], "你是不是想写 --preset?"),
    (["run", "--preset", "big"], "smoke、cpu、gpu 之一"),
    (["lab", "02"], "写在 -- 之后"),
    (["run", "--", "-x"], "run 不接受"),
])
def test_wrong_words_get_a_hint(words, expected):
    _, text = call(*words, check=2)
    assert expected in text


def test_wrong_notebook_lists_what_there_is(course):
    write_road(Path(base.ROOT, "notebooks"), "start", "background", "tokenization")
    assert course.choose_notebooks(["2", "00", "02_tokenization", "notebooks/src/start.py", "notebooks/00_start.ipynb"]) == [
        "02_tokenization", "00_start"]
    with pytest.raises(base.Stop, match="没有「7」这一本 notebook") as stop:
        course.choose_notebooks(["7"])
    assert "00_start" in stop.value.text and "02_tokenization" in stop.value.text and stop.value.code == 2


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "cp1252"])
def test_any_console_encoding_is_survived(encoding):
    code, _ = call("--help", check=0, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert code == 0


def test_safe_path_does_not_hide_the_installer():
    call("--help", check=0, PYTHONSAFEPATH="1")


@pytest.mark.parametrize("cores, extra, options, shared", [
    (2, [], "", True),
    (16, ["-k", "甲", "-x", "--no-header", "-p", "no:cacheprovider"], "", True),
    (1, [], "", False),
    (None, [], "", False),                                     # 系统说不出有几个核心
    (2, ["-n", "4"], "", False),
    (2, ["-n0"], "", False),
    (2, ["--numprocesses=4"], "", False),
    (2, ["-p", "no:xdist"], "", False),
    (2, ["--pdb"], "", False),
    (2, ["-s"], "", False),
    (2, ["-x"], "-q -n 3", False),
])
def test_tests_are_shared_by_two_workers_unless_told_otherwise(course, monkeypatch, cores, extra, options, shared):
    monkeypatch.setattr(course.os, "cpu_count", lambda: cores)
    monkeypatch.setenv("PYTEST_ADDOPTS", options)
    line = course.command_line("test", [], extra, "python")
    assert line == ["python", "-m", "pytest"] + ["-n", "2", "--dist", "loadfile"] * shared + extra
    assert "-n" not in course.command_line("run", ["02_tokenization"], [], "python")


WHO = """
import os, pathlib
def test_who():
    pathlib.Path(__file__).with_suffix(".txt").write_text(os.environ.get("PYTEST_XDIST_WORKER", "没有分"), encoding="utf-8")
"""


def test_real_pytest_takes_the_arguments(course, monkeypatch, tmp_path):
    """真的运行 pytest：分的时候两个进程都有活干，一个文件在一个进程里；不用 xdist 时也行。"""
    for name in ("test_a", "test_b"):
        (tmp_path / f"{name}.py").write_text(WHO, encoding="utf-8")
    monkeypatch.setattr(course.os, "cpu_count", lambda: 2)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}

    def who(*extra):
        line = course.command_line("test", [], ["-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", *extra, "."], sys.executable)
        run = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, encoding="utf-8", timeout=120)
        assert run.returncode == 0, run.stdout + run.stderr
        return {path.read_text(encoding="utf-8") for path in tmp_path.glob("test_*.txt")}

    assert who() == {"gw0", "gw1"}
    assert who("-p", "no:xdist") == {"没有分"}


def test_tests_use_one_thread_each_unless_the_user_says_more(course, monkeypatch):
    options = {"here": False, "offline": False, "preset": None}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert course.environment("test", options)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in course.environment("run", options)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert course.environment("test", options)["OMP_NUM_THREADS"] == "3"


def test_windows_paths_and_words(course, monkeypatch):
    monkeypatch.setattr(base, "WINDOWS", True)
    assert Path(base.venv_python()).parts[-3:] == (".venv", "Scripts", "python.exe")
    assert base.me() == "python course.py"


# ---------------------------------------------------------------- 报错


@pytest.mark.parametrize("log, expected", [
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "磁盘空间"),
    ("OSError: [WinError 112] 磁盘空间不足。", "磁盘空间不够"),
    ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'", "没有写文件"),
    ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError('<pip._vendor>: "
     "Failed to establish a new connection: [Errno -2] Name or service not known')'\n"
     "ERROR: No matching distribution found for torch", "连不上软件包的下载地址"),
    ("ERROR: HTTP error 403 while getting x\nERROR: 403 Client Error: Forbidden for url", "PIP_INDEX_URL"),
    ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))",
     "代理、证书"),
    ("ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: 2.2.2)\n"
     "ERROR: No matching distribution found for torch==2.13.0", "没有适合这台机器的 torch"),
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "不完整"),
    ("ERROR: something else", "pip 安装失败"),
], ids=["磁盘", "磁盘-windows", "权限", "断网", "屏蔽", "证书", "平台", "校验", "其他"])
def test_pip_errors_are_explained(course, log, expected):
    assert expected in explain.explain(log)


def test_ordinary_log_lines_are_not_mistaken_for_errors(course):
    log = "\n".join(["  timed out is a word in a file name", *["x"] * 20, "ERROR: ResolutionImpossible"])
    assert "pip 安装失败" in explain.explain(run_pip.complaints(log))


def test_disk_filling_up_while_installing_is_noticed(course):
    assert "磁盘空间不够" in explain.explain("ERROR: 乱七八糟", free=0.01)


def test_full_disk_is_told_before_starting(course, monkeypatch):
    monkeypatch.setattr(run_pip.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 ** 9))
    with pytest.raises(base.Stop, match="只剩 1.0 GB，安装至少需要 3 GB"):
        venv.set_up()
    assert not Path(base.VENV).exists()


@pytest.mark.parametrize("output", [
    "The virtual environment was not created successfully because ensurepip is not",
    "/usr/bin/python3: No module named venv",
    "Error: Command '[\"/x/.venv/bin/python3\", \"-Im\", \"ensurepip\"]' returned non-zero exit status 1.",
])
def test_missing_venv_module_is_explained(course, monkeypatch, output):
    monkeypatch.setattr(base, "capture", lambda command: (1, output))
    with pytest.raises(base.Stop, match="apt install python3-venv"):
        venv.set_up()


def test_unwritable_folder_is_explained(course, monkeypatch):
    monkeypatch.setattr(lock, "LOCK", str(Path(base.ROOT, "没有这个文件夹", "lock")))
    with pytest.raises(base.Stop, match="课程文件夹不可写"):
        venv.set_up()


# ---------------------------------------------------------------- --here


def test_here_names_what_is_missing(course, monkeypatch):
    have = here.installed()
    del have["jieba"]
    have["torch"] = "2.1.0"
    monkeypatch.setattr(here, "installed", lambda: have)
    monkeypatch.setattr(here, "on_colab", lambda: False)
    with pytest.raises(base.Stop, match="torch、jieba") as stop:
        here.set_up_here()
    assert "pip install -r requirements.txt -c constraints.txt" in stop.value.text


def test_here_uses_this_interpreter_when_all_is_there(course):
    assert here.set_up_here() == sys.executable


def test_colab_keeps_torch_numpy_and_all_that_is_there(course, monkeypatch):
    have = {"torch": "2.9.0+cu126", "numpy": "2.0.2", "transformers": "4.57.0", "pandas": "2.2.2"}
    seen = {}

    def fake_install(python, arguments, env, keep=()):
        seen["r"], seen["c"] = (Path(arguments[i]).read_text(encoding="utf-8").split("\n") for i in (1, 3))

    monkeypatch.setattr(here, "installed", lambda: have)
    monkeypatch.setattr(here, "on_colab", lambda: True)
    monkeypatch.setattr(here, "pip_install", fake_install)
    assert here.set_up_here() == sys.executable
    wanted = {line.split(">=")[0] for line in seen["r"] if line}
    assert {"transformers", "jieba"} <= wanted and not wanted & {"torch", "numpy"}
    pins = {line.split("==")[0]: line for line in seen["c"] if line}
    assert pins["torch"] == "torch==2.9.0+cu126" and pins["numpy"] == "numpy==2.0.2"
    assert "pandas" not in pins and any(line.startswith("transformers==5") for line in seen["c"])


# ---------------------------------------------------------------- 浏览器测试


@pytest.fixture
def browser_lab(monkeypatch):
    """tests/browser/lab.py 这个模块。"""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "browser"))
    return importlib.import_module("lab")


@pytest.mark.skipif(not POSIX, reason="假的 Chromium 是一个 shell 脚本")
def test_course_and_browser_tests_find_the_same_chromium(course, browser_lab, tmp_path, monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert browser.CHROMIUM_NAMES == browser_lab.NAMES
    assert all(name in (ROOT / ".ci" / "run").read_text(encoding="utf-8").split("for name in")[1].split("; do")[0].split()
               for name in browser_lab.NAMES)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser.find_chromium() is browser_lab.find_chromium() is None
    fake = tmp_path / "google-chrome"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    assert browser.find_chromium() == browser_lab.find_chromium() == str(fake)
    named = tmp_path / "我的 chromium"
    named.write_text("")
    monkeypatch.setenv("CHROMIUM", str(named))
    assert browser.find_chromium() == browser_lab.find_chromium() == str(named)
    monkeypatch.setenv("CHROMIUM", "/没有/这个")
    assert browser.find_chromium() == browser_lab.find_chromium() == str(fake)


def test_a_missing_browser_skips_with_the_reason_or_fails_when_required(browser_lab, monkeypatch):
    monkeypatch.delenv("COURSE_BROWSER", raising=False)
    monkeypatch.setattr(browser_lab, "find_chromium", lambda: None)
    monkeypatch.setitem(sys.modules, "playwright.sync_api", SimpleNamespace())
    assert "找不到 Chromium" in browser_lab.why_not()
    monkeypatch.setenv("COURSE_BROWSER", "required")
    with pytest.raises(RuntimeError, match="COURSE_BROWSER=required.*找不到 Chromium"):
        browser_lab.why_not()
    monkeypatch.setattr(browser_lab, "find_chromium", lambda: "/usr/bin/chromium")
    assert browser_lab.why_not() is None
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)            # 没有安装
    with pytest.raises(RuntimeError, match="没有安装 playwright"):
        browser_lab.why_not()
    monkeypatch.delenv("COURSE_BROWSER")
    assert "没有安装 playwright" in browser_lab.why_not()


def test_continuous_integration_requires_the_browser():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    before = script[:script.index("python3 course.py test")]
    assert "export COURSE_BROWSER=required" in before and "apt-get install" in before and "sudo" in before


# ---------------------------------------------------------------- 真的安装


def wheel(folder: Path, name: str, files: dict[str, str]) -> None:
    """写一个只有几个 .py 文件的 wheel，版本 1.0。"""
    info = f"{name}-1.0.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


class Project:
    """一个小小的课程文件夹，路径里有空格和汉字。"""

    def __init__(self, base: Path):
        self.root = base / "我的 课程"
        self.wheels = base / "wheels"
        (self.root / "notebooks" / "src").mkdir(parents=True)
        self.wheels.mkdir()
        copy_door(self.root)
        (self.root / "tools" / "notebooks").mkdir()
        (self.root / "tools" / "notebooks" / "__main__.py").write_text(TELL, encoding="utf-8")
        (self.root / "tests").mkdir()
        write_road(self.root / "notebooks", "start", "background", "tokenization")
        (self.root / "notebooks" / "00_start.ipynb").write_text("{}")
        self.require("ipykernel>=1.0", "jupyterlab>=1.0", "pytest>=1.0", "alpha>=1.0")
        (self.root / "constraints.txt").write_text("alpha==1.0\n")
        wheel(self.wheels, "ipykernel", {"ipykernel/__init__.py": "", "ipykernel/__main__.py": IPYKERNEL})
        for name in ("jupyterlab", "pytest"):
            wheel(self.wheels, name, {f"{name}/__init__.py": "", f"{name}/__main__.py": TELL})
        for name in ("alpha", "beta"):
            wheel(self.wheels, name, {f"{name}/__init__.py": "", f"{name}/data.py": "x = 1\n"})

    def require(self, *lines: str) -> None:
        (self.root / "requirements.txt").write_text("\n".join(lines) + "\n")

    def environ(self, **more: str) -> dict[str, str]:
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull,
                **more}

    def call(self, *words: str, check: int | None = 0, **more: str) -> str:
        return call(*words, cwd=self.root, check=check, **self.environ(**more))[1]

    @property
    def site(self) -> Path:
        return next((self.root / ".venv").glob("[Ll]ib/**/site-packages"))

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / "course-stamp.json"


def told(text: str) -> dict:
    """假的 jupyterlab、pytest 打印的内容。"""
    return json.loads(next(line for line in text.splitlines() if line.startswith("TELL"))[4:])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """装好一次，后面的测试各自弄坏再看它修好。"""
    made = Project(tmp_path_factory.mktemp("course"))
    made.first = made.call("test", "--", "-k", "甲")
    return made


def test_first_call_sets_up_everything(project):
    assert "第一次运行" in project.first and "环境已备好" in project.first
    assert "Successfully installed" in project.first            # pip 的输出看得见
    assert json.loads(project.stamp.read_text(encoding="utf-8"))["venv"] == str(project.root / ".venv")
    kernel = json.loads((project.root / ".venv/share/jupyter/kernels/python3/kernel.json").read_text())
    assert kernel["env"] == {"PYTHONUTF8": "1"} and "汉字" in kernel["display_name"]


def test_test_command_is_offline_and_smoke(project):
    said = told(project.first)
    assert said["argv"][-2:] == ["-k", "甲"]
    assert said["env"] == {"COURSE_PRESET": "smoke", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
                           "HF_DATASETS_OFFLINE": "1", "PYTHONUTF8": "1",
                           "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    assert told(project.call("test", "--preset", "cpu"))["env"]["COURSE_PRESET"] == "cpu"


def test_second_call_is_fast_and_quiet(project):
    began = time.perf_counter()
    text = project.call("lab", "--", "--no-browser", "--port", "8899")
    assert time.perf_counter() - began < 10 and text.startswith("TELL")
    argv = told(text)["argv"]
    assert argv[-3:] == ["--no-browser", "--port", "8899"]
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start.ipynb" in argv
    assert f"--ServerApp.root_dir={project.root}" in argv and "--LabApp.news_url=None" in argv
    assert ("--allow-root" in argv) == (POSIX and os.geteuid() == 0)


def test_run_and_build_pass_on_names_preset_and_exit_code(project):
    said = told(project.call("run", "2", "0", "--preset=smoke"))
    assert said["argv"] == ["run", "02_tokenization", "00_start"] and said["env"]["COURSE_PRESET"] == "smoke"
    assert told(project.call("build"))["argv"] == ["build"]
    project.call("run", check=7, TELL_EXIT="7")


def test_release_and_grade_pass_on_the_folder(course):
    for command in ("release", "grade"):
        line = course.command_line(command, ["/某处/作业"], [], "python")
        assert line == ["python", "-m", "tools.classroom", command, "/某处/作业"]
        assert course.parse([command, "作业"])[:2] == (command, ["作业"])
    assert course.command_line("slides", ["02_tokenization"], [], "python")[-2:] == ["slides", "02_tokenization"]


def test_changed_requirements_are_installed(project):
    project.require("ipykernel>=1.0", "jupyterlab>=1.0", "pytest>=1.0", "alpha>=1.0", "beta>=1.0")
    assert "变了，更新 .venv" in project.call("run")
    assert (project.site / "beta" / "data.py").exists()


def test_deleted_package_is_repaired(project):
    shutil.rmtree(project.site / "alpha")
    assert "少了 alpha" in project.call("run")
    assert (project.site / "alpha" / "data.py").exists()
    (project.site / "alpha" / "data.py").unlink()
    project.call("run")
    assert (project.site / "alpha" / "data.py").exists()


def test_half_installed_venv_is_finished(project):
    """pip 中途被杀：没有印记，一个包只解开一半，还留下 ~ 开头的文件夹。"""
    project.stamp.unlink(missing_ok=True)
    (project.site / "alpha-1.0.dist-info" / "RECORD").unlink()
    (project.site / "alpha" / "data.py").unlink()
    (project.site / "~lpha").mkdir()
    assert "还没装完" in project.call("run")
    assert (project.site / "alpha" / "data.py").exists() and not (project.site / "~lpha").exists()
    assert project.stamp.exists()


def test_missing_pip_is_repaired(project):
    shutil.rmtree(project.site / "pip")
    project.call("run")
    assert (project.site / "pip" / "__main__.py").exists()


def test_browser_packages_are_installed_once_when_there_is_a_chromium(project):
    """有 Chromium 才装；装不上也不耽误别的测试，装好之后不再装。"""
    wanted = project.root / "tests" / "browser" / "requirements.txt"
    wanted.parent.mkdir(parents=True, exist_ok=True)
    wanted.write_text("gamma>=1.0   # 还没有这个包\n", encoding="utf-8")
    nowhere = {"PATH": os.path.dirname(sys.executable)} if not shutil.which("chromium", path=os.path.dirname(sys.executable)) else {}
    chromium = {"CHROMIUM": sys.executable}                                  # 有这个文件就算
    assert "浏览器" not in project.call("run", **chromium)                    # 只有 test 才装
    assert "浏览器" not in project.call("test", CHROMIUM="", **nowhere)
    text = project.call("test", "--", "-n", "0", **chromium)
    assert "那些测试这次会跳过" in text and told(text)["argv"] == ["-n", "0"]
    wheel(project.wheels, "gamma", {"gamma/__init__.py": ""})
    text = project.call("test", **chromium)
    assert "安装浏览器测试要的包" in text and "跳过" not in text and (project.site / "gamma").exists()
    assert project.call("test", **chromium).startswith("TELL")
    wanted.write_text("gamma>=2.0\n", encoding="utf-8")                     # 版本不够，也要装
    assert "那些测试这次会跳过" in project.call("test", **chromium)


@pytest.mark.skipif(not POSIX, reason="Windows 上的解释器不是符号链接")
def test_broken_interpreter_is_rebuilt(project):
    python = project.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/没有/这个/python")
    text = project.call("run")
    assert "不能运行了" in text and "建虚拟环境" in text
    assert told(text)["argv"] == ["run"] and "核对" not in text
    assert "Successfully installed" not in text                  # 已装的包留着，不重新下载
    assert (project.site / "alpha" / "data.py").exists()


def test_moved_folder_is_repaired(project):
    script = project.root / ".venv" / "bin" / "demo"
    if POSIX:
        script.write_text(f"#!{project.root}/.venv/bin/python\nprint('好')\n", encoding="utf-8")
        script.chmod(0o755)
    project.root = project.root.rename(project.root.with_name("搬过的 课程"))
    assert "换了地方" in project.call("run")
    kernel = json.loads((project.root / ".venv/share/jupyter/kernels/python3/kernel.json").read_text())
    assert "搬过的" in kernel["argv"][0]
    if POSIX:
        script = project.root / ".venv" / "bin" / "demo"
        assert subprocess.run([str(script)], capture_output=True, text=True, check=True).stdout == "好\n"


def test_two_calls_at_once_do_not_fight(project):
    project.stamp.unlink(missing_ok=True)
    command = [sys.executable, "course.py", "run"]
    env = {**os.environ, **project.environ(), "PYTHONIOENCODING": "utf-8"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    calls = [subprocess.Popen(command, cwd=project.root, env=env, **pipes) for _ in range(2)]
    texts = [c.communicate(timeout=300)[0].decode("utf-8") for c in calls]
    assert [c.returncode for c in calls] == [0, 0], texts
    assert sum("环境已备好" in t for t in texts) == 1, texts
    assert all(told(t)["argv"] == ["run"] for t in texts)


def test_no_network_is_explained_and_the_next_call_finishes(project):
    project.stamp.unlink(missing_ok=True)
    shutil.rmtree(project.site / "alpha")
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_TIMEOUT": "1"}
    text = project.call("run", check=1, PIP_NO_INDEX="0", PIP_FIND_LINKS="", **offline)
    assert "连不上软件包的下载地址" in text and "PIP_INDEX_URL" in text and "--here" in text
    assert "环境已备好" in project.call("run")


@pytest.mark.skipif(not POSIX, reason="Windows 上没法只给一个进程发 Ctrl-C")
def test_ctrl_c_says_how_to_resume(project):
    """下载地址接了电话却不说话，pip 一直等；按 Ctrl-C，只说一句话。"""
    project.stamp.unlink(missing_ok=True)
    shutil.rmtree(project.site / "alpha", ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        env = {**os.environ, **project.environ(PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL=address),
               "PIP_TIMEOUT": "60", "PIP_RETRIES": "0", "PYTHONIOENCODING": "utf-8"}
        child = subprocess.Popen([sys.executable, "course.py", "run"], cwd=project.root, env=env,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        server.settimeout(120)
        server.accept()
        os.killpg(child.pid, signal.SIGINT)
        text = child.communicate(timeout=120)[0].decode("utf-8")
    assert child.returncode == 130 and "Traceback" not in text, text
    assert "已停下。再运行一次" in text and "course.py run" in text
    assert "环境已备好" in project.call("run")


@pytest.mark.skipif(not POSIX, reason="用到 SIGKILL")
def test_killed_set_up_is_finished_by_the_next_call(project):
    project.stamp.unlink(missing_ok=True)
    shutil.rmtree(project.site / "alpha", ignore_errors=True)
    env = {**os.environ, **project.environ(), "PYTHONIOENCODING": "utf-8"}
    child = subprocess.Popen([sys.executable, "course.py", "run"], cwd=project.root, start_new_session=True,
                             env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while "安装软件包" not in child.stdout.readline().decode("utf-8"):
        assert child.poll() is None
    time.sleep(0.3)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert "环境已备好" in project.call("run") and (project.site / "alpha" / "data.py").exists()
