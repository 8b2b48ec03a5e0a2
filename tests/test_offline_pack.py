"""离线包：pack 写出一个 zip，解开之后 lab --offline 不碰网络就装好。真的建虚拟环境、真的运行 pip，软件包是几个小小的 wheel。"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import packaging
import pytest
from test_course import Project, copy_door, told, wheel

from tools import pack as P
from utils.paths import ROOT

DEAD = "http://127.0.0.1:9/simple"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """（课程文件夹，pack 的输出，离线包）。"""
    project = Project(tmp_path_factory.mktemp("pack"))
    for name in ("tools/pack.py",):
        shutil.copy(ROOT / name, project.root / name)
    source = Path(packaging.__file__).parent
    wheel(project.wheels, "packaging", {f"packaging/{p.relative_to(source).as_posix()}": p.read_text(encoding="utf-8")
                                        for p in source.rglob("*.py")})
    project.require("ipykernel>=1.0", "jupyterlab>=1.0", "pytest>=1.0", "alpha>=1.0", "packaging>=1.0")
    (project.root / "data").mkdir()
    (project.root / "data" / "模型.bin").write_bytes(b"\x00\x01")
    text = project.call("pack")
    return project, text, project.root / "outputs" / "hanzi-llm-offline.zip"


def call_without_network(folder: Path, *words: str) -> tuple[int, str]:
    """在没有网络的命名空间里运行 course.py（系统不许建命名空间时，下载地址也是打不通的）。"""
    cut = ["unshare", "-rn"]
    if not shutil.which("unshare") or subprocess.run([*cut, "true"], capture_output=True).returncode:
        cut = []
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    env |= {"PIP_INDEX_URL": DEAD, "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_TIMEOUT": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*cut, sys.executable, "course.py", *words], cwd=folder, env=env, stdin=subprocess.DEVNULL, timeout=300,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    return done.returncode, done.stdout


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    (home,) = folder.iterdir()                            # 里面只有一个文件夹
    return home


def test_archive_has_the_course_the_models_and_the_wheels(packed):
    project, text, archive = packed
    assert "离线包：outputs" in text and "lab --offline" in text
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
    files = ("course.py", "tools/install/venv.py", "data/模型.bin", "requirements.txt", "notebooks/00_start.ipynb")
    assert {f"hanzi-llm/{n}" for n in files} <= names
    assert {f"hanzi-llm/wheels/{n}-1.0-py3-none-any.whl" for n in ("alpha", "ipykernel", "jupyterlab", "pytest", "packaging")} <= names
    assert not any(part in name for name in names for part in (".venv", "outputs", "beta"))     # 用不着的 beta 不收
    assert not archive.with_name(archive.name + ".part").exists()


def test_offline_set_up_touches_no_network(packed, tmp_path):
    home = unpack(packed[2], tmp_path)
    code, text = call_without_network(home, "lab", "--offline", "--", "--port", "1")
    assert code == 0 and "环境已备好" in text, text
    assert told(text)["argv"][-2:] == ["--port", "1"] and told(text)["env"]["HF_HUB_OFFLINE"] == "1"
    assert next(home.glob(".venv/**/alpha/data.py"))
    code, text = call_without_network(home, "lab", "--offline")
    assert code == 0 and text.startswith("TELL")                                               # 第二次什么也不装
    shutil.rmtree(next(home.glob(".venv/**/alpha")))
    (home / "wheels" / "alpha-1.0-py3-none-any.whl").unlink()
    code, text = call_without_network(home, "run", "--offline")
    assert code == 1 and "离线包里没有适合这台机器的 alpha" in text and "course.py pack" in text, text


def test_without_offline_the_same_folder_needs_the_network(packed, tmp_path):
    code, text = call_without_network(unpack(packed[2], tmp_path), "lab")
    assert code == 1 and "环境已备好" not in text and "连不上软件包的下载地址" in text


def test_offline_without_wheels_says_how_to_make_them(tmp_path):
    copy_door(tmp_path)
    code, text = call_without_network(tmp_path, "lab", "--offline")
    assert code == 1 and "这里没有" in text and "course.py pack" in text and "Traceback" not in text


@pytest.mark.parametrize("words, expected", [(["pack", "--offline"], "不能加 --offline"), (["setup", "02"], "setup 后面不接"),
                                             (["lab", "--ofline"], "你是不是想写 --offline")])
def test_wrong_words(words, expected, tmp_path):
    copy_door(tmp_path)
    code, text = call_without_network(tmp_path, *words)
    assert code == 2 and expected in text


@pytest.mark.parametrize("word", ["beos", "windows-3.10", "windows-", "linux_3.12", ""])
def test_unknown_platforms_are_refused(word):
    if word == "windows-":
        assert P.parse_target(word)[0] == "windows"
        return
    with pytest.raises(ValueError, match="不认识的平台"):
        P.parse_target(word)


def test_each_platform_gets_its_own_packages():
    lists = {system: {line.split("==")[0]: line for line in P.pinned(system, "3.12")} for system in P.SYSTEMS}
    assert "appnope" in lists["macos"] and "appnope" not in lists["windows"] and "appnope" not in lists["linux"]
    assert "pywinpty" in lists["windows"] and "pywinpty" not in lists["linux"]
    assert "cuda-toolkit" in lists["linux"] and "cuda-toolkit" not in lists["macos"]
    for lines in lists.values():
        assert lines["torch"] == "torch==2.13.0" and lines["contourpy"] == "contourpy==1.4.0" and "overrides" not in lines
    assert "overrides" in {line.split("==")[0] for line in P.pinned("linux", "3.11")}              # 只有 3.11 才要


def test_other_platforms_are_fetched_with_their_tags(monkeypatch, tmp_path):
    """不联网：只看 pip 收到的参数。与平台无关的包已经有了，就不再取。"""
    seen = []

    def pip(*words):
        seen.append(list(words))
        if words[0] == "wheel":
            (tmp_path / "jieba-0.42.1-py3-none-any.whl").write_bytes(b"")
        else:
            seen[-1].append(Path(words[words.index("-r") + 1]).read_text(encoding="utf-8").split())

    monkeypatch.setattr(P, "_pip", pip)
    monkeypatch.setattr(P, "this_machine", lambda: ("linux", "3.11"))
    P.fetch([("linux", "3.11"), ("windows", "3.12")], tmp_path)
    assert [words[0] for words in seen] == ["wheel", "download"]
    lines = seen[1].pop()
    assert "win_amd64" in seen[1] and "3.12" in seen[1] and "--only-binary=:all:" in seen[1]
    assert "torch==2.13.0" in lines and not any(line.startswith("jieba") for line in lines)


@pytest.mark.parametrize("build, wants_cuda", [("2.13.0+cpu", False), ("2.13.0", True)])
def test_linux_is_spared_cuda_when_torch_is_the_cpu_build(build, wants_cuda, monkeypatch, tmp_path):
    seen = []

    def pip(*words):
        if words[0] == "download":
            seen.append(Path(words[words.index("-r") + 1]).read_text(encoding="utf-8").split())
            (tmp_path / f"torch-{build}-cp312-cp312-manylinux_2_28_x86_64.whl").write_bytes(b"")

    monkeypatch.setattr(P, "_pip", pip)
    monkeypatch.setattr(P, "this_machine", lambda: ("windows", "3.12"))
    P.fetch([("linux", "3.12")], tmp_path)
    first, rest = seen
    assert first == ["torch==2.13.0"] and "torch==2.13.0" in rest
    assert any(line.startswith(("nvidia-", "cuda-toolkit", "triton")) for line in rest) == wants_cuda


def test_files_of_the_course_are_those_git_knows():
    names = {p.relative_to(ROOT).as_posix() for p in P.course_files()}
    assert {"course.py", "tools/install/venv.py", "data/checkpoints/mlm/model.safetensors", "tools/pack.py"} <= names
    assert not any(name.startswith((".venv", "outputs", ".git/")) for name in names)
    assert json.dumps(sorted(names))                                                            # 名字都是正常的文字
