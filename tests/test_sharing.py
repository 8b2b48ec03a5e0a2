"""测试分给几个进程：一个文件一组，成串的 notebook 最先开始；同一本不跑两遍；前面练出来的，后面要用上。"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chain
import pytest
import sharing

from utils.models.checkpoints import KINDS
from utils.road import find, maker

TESTS = Path(__file__).resolve().parent


def item(test: str, name: str, **params):
    return SimpleNamespace(originalname=test, nodeid=f"{test}[{name}]", callspec=SimpleNamespace(params={"notebook": Path(name), **params}))


# 每个测试写下自己在哪个进程里、产物写到哪里
WRITES = """
import json, os, pathlib, time, pytest
def note(name):
    time.sleep(0.05)
    line = [name, os.environ["PYTEST_XDIST_WORKER"], os.environ["COURSE_OUTPUTS"], os.environ["OMP_NUM_THREADS"]]
    with open({log!r}, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\\n")
"""
PLAIN = "@pytest.mark.parametrize('n', range(4))\ndef test_plain(n):\n    note('{name}')\n"
CHAIN = "@pytest.mark.notebooks\n@pytest.mark.parametrize('n', range(3))\ndef test_link(n):\n    note(f'串{n}')\n"


def test_files_and_chains_stay_together_on_two_processes(tmp_path):
    """真的 pytest -n 2，--dist 写的是别的也一样：一个文件的测试在一个进程里，成串的 notebook 最先开始、次序不变；两个进程各写各的产物。"""
    pytest.importorskip("xdist")
    log = tmp_path / "log.jsonl"
    head = WRITES.format(log=str(log))
    for name in "abcdef":
        (tmp_path / f"test_{name}.py").write_text(head + PLAIN.format(name=name), encoding="utf-8")
    (tmp_path / "test_z.py").write_text(head + CHAIN, encoding="utf-8")
    conftest = f"import sys; sys.path[:0] = {[str(TESTS), str(TESTS.parent)]!r}\n" + (TESTS / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest.replace('str(Path(__file__).parent / "browser")', repr(str(TESTS / "browser"))),
                                          encoding="utf-8")
    own = ("COURSE_OUTPUTS", "OMP_NUM_THREADS")
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_") and key not in own}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "load", "-c", os.devnull,
               f"--rootdir={tmp_path}", str(tmp_path)]
    child = subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert child.returncode == 0 and "27 passed" in child.stdout, child.stdout + child.stderr
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    workers = {}
    for name, worker, *_ in lines:
        workers.setdefault(name[0], set()).add(worker)
    assert all(len(found) == 1 for found in workers.values()) and len(set().union(*workers.values())) == 2, workers
    links = [name for name, *_ in lines if name[0] == "串"]
    assert links == [f"串{n}" for n in range(3)] and "串0" in [name for name, *_ in lines[:2]]
    assert len({outputs for _, _, outputs, _ in lines}) == 2 and {threads for *_, threads in lines} == {"1"}
    assert not any(Path(outputs).exists() for _, _, outputs, _ in lines)           # 最后都删掉了


def test_a_notebook_run_in_a_browser_is_not_run_again_in_a_kernel():
    browser = "test_run_all_draws_everything_without_the_network"
    kernel = [item("test_notebook_runs", name) for name in ("start.py", "background.py", "new.py")]
    drawn = [item(browser, f"{find(topic).name}.ipynb", app=app) for topic, app in (("start", "lab"), ("background", "notebook"))]
    other = SimpleNamespace(nodeid="tests/test_x.py::test_x")
    assert sharing.run_in_a_browser_too([other, *drawn, *kernel], lambda: True) == kernel[:1]      # 只有 JupyterLab 里跑过的才算
    assert sharing.run_in_a_browser_too([other, *drawn, *kernel], lambda: False) == []             # 没有浏览器
    assert sharing.run_in_a_browser_too(kernel, lambda: True) == []                                # -m notebooks


def test_the_names_are_still_those_of_the_tests():
    """run_in_a_browser_too 按名字和参数认测试；改了名，内核里的那一遍就会悄悄地又跑起来。"""
    for file, line in (("test_notebooks.py", "def test_notebook_runs(notebook,"),
                       ("browser/test_run_all.py", "def test_run_all_draws_everything_without_the_network(open_app, app, notebook,")):
        assert line in (TESTS / file).read_text(encoding="utf-8")


def test_what_came_before_is_the_same_test_in_the_same_app():
    items = [item("a", "1.py", app="lab"), item("a", "2.py", app="lab"), item("b", "3.py", app="lab"),
             item("a", "4.py", app="notebook"), SimpleNamespace(), item("a", "5.py", app="lab"), item("a", "6.py", app="lab")]
    for one in items:
        one.session = SimpleNamespace(items=items)
    assert chain.came_before(items[5]) == {"1", "2"}


def test_broken_links_are_named(tmp_path):
    lender, what = maker("mlm"), KINDS["mlm"]
    assert "没有把练好的模型存进" in chain.broken_links(lender.topic, set(), "", tmp_path)[0]
    (tmp_path / "mlm").mkdir()
    (tmp_path / "mlm" / "config.json").write_text("{}")
    assert chain.broken_links(lender.topic, set(), "", tmp_path) == []
    own, shipped = f"{what}：用的是你自己在 {lender.name} 里练出来的。", f"{what}：用的是课程附带的检查点。"
    user = next(name for name, kind in chain.USES.items() if kind == "mlm" and name not in chain.MAKES)
    assert chain.broken_links(user, {lender.topic}, own, tmp_path) == []
    assert "没有用上" in chain.broken_links(user, {lender.topic}, shipped, tmp_path)[0]
    assert chain.broken_links(user, set(), shipped, tmp_path) == []                                # 单独运行，用附带的就对
    assert chain.broken_links("start", {lender.topic}, "", tmp_path) == []


def test_the_chain_names_notebooks_that_exist():
    sources = {path.stem for path in (TESTS.parent / "notebooks" / "src").glob("*.py")}
    assert set(chain.MAKES) | set(chain.USES) <= sources
