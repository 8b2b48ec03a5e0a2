"""会诊断的练习的底座：各种坏答案都说得清，死循环停得下来，进度记得住，显示时转义。"""

import json
import random
import subprocess
import sys
import threading
import time

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from tools.notebooks import exercises as C
from tools.notebooks.execution import ThisPython
from utils.checks import progress
from utils.checks.framework import Choice, Function, Mistake, Value, ledger
from utils.checks.framework.compare import difference, show, size
from utils.checks.framework.limits import TimeUp, run_limited
from utils.checks.framework.runner import load_module, run_answer
from utils.checks.framework.verdict import OPEN, PASS, WRONG, CheckFailed
from utils.paths import ROOT


@pytest.fixture(autouse=True)
def own_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path / "产物"))


def make(**changes):
    """一道小题：按行 softmax。"""
    settings = dict(
        reference=lambda x: x.softmax(-1), ask="哪一维加起来是 1？", seconds=1.0,
        cases=lambda rng: [(torch.tensor([[rng.random(), 2.0, 3.0], [1.0, rng.random(), 0.5]]),), (torch.zeros(1, 2),)],
        mistakes=(Mistake("方向错了", lambda x: x.softmax(0), "它沿着行之间归一。", "加一加看？"),
                  Mistake("没有归一", lambda x: x.exp(), "它只取了指数。", "加起来是几？"),
                  Mistake("正负反了", lambda x: (-x).softmax(-1), "大的得到小的。", "谁的权重大？")))
    return Function("99.softmax", **settings | changes)


def boom(x):
    y = x[0, 0] * 2
    return y / missing_name                               # noqa: F821


def forever(x):
    while True:
        pass


def stubborn(x):
    while True:
        try:
            x = x + 1
        except BaseException:                             # noqa: BLE001
            pass


def leave(x):
    raise SystemExit(3)


def deep(x):
    return deep(x)


def in_place(x):
    x -= x.max()
    return x.softmax(-1)


# ---------------------------------------------------------------- 坏答案


@pytest.mark.parametrize("answer, kind, words", [
    (boom, "异常", ["NameError", "return y / missing_name", "boom 第"]),
    (leave, "异常", ["SystemExit", "raise SystemExit(3)"]),
    (deep, "异常", ["RecursionError"]),
    (forever, "超时", ["1 秒", "x = 张量"]),
    (stubborn, "超时", ["循环"]),
    (in_place, "改动输入", ["改动了传进来的 x"]),
    (lambda x: x.softmax(-1).tolist(), "类型", ["应当是张量，得到的是列表"]),
    (lambda x: x.softmax(-1)[0], "形状", ["形状应当是"]),
    (lambda x: x.softmax(-1).double(), "dtype", ["torch.float64"]),
    (lambda x: x.softmax(-1).to("meta"), "设备", ["meta"]),
    (lambda x: x.softmax(-1).sum() and None, "类型", ["return"]),
    (lambda: 1, "参数", ["1 个参数"]),
    (lambda x: torch.full_like(x, 7.0), "每行之和不是 1", ["应当得到", "你的得到"]),
    (lambda x: (0.5 * x).softmax(-1), "其他", ["2 个输入里有 1 个", "应当得到", "你的得到", "哪里不同"]),
    (torch.ones(2), "类型", ["函数"]),
    (lambda x: x.softmax(0), "方向错了", ["加一加看", "最小的反例"]),
])
def test_bad_answers_are_explained(answer, kind, words):
    began = time.perf_counter()
    verdict = make()(answer)
    assert verdict.status == WRONG and verdict.kind == kind, str(verdict)
    assert all(word in str(verdict) for word in words), str(verdict)
    assert time.perf_counter() - began < 8


def stub_with_words(x):
    """写一写。"""
    ...


def later(x):
    raise NotImplementedError


@pytest.mark.parametrize("answer", [..., None, stub_with_words, later, lambda x: ...])
def test_undone_is_open_and_not_recorded(answer):
    assert make()(answer).status == OPEN
    assert not ledger.progress_file().exists()


def test_smallest_failing_example_is_shown():
    def only_large(x):
        return x.softmax(-1) if x.numel() < 6 else x.softmax(0)

    text = str(make(mistakes=())(only_large))
    assert "2×3" in text
    assert "1×2" in str(make(mistakes=())(lambda x: x * 0 + 9))


def test_inputs_are_fresh_and_the_learners_random_state_is_kept():
    seen = []
    exercise = make()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = random.random(), np.random.rand(), torch.rand(1)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    for _ in range(2):
        def answer(x):
            seen.append(x[0, 0].item())
            random.random(), np.random.rand(), torch.rand(3)
            return x.softmax(-1)

        assert exercise(answer).status == PASS
    assert (random.random(), np.random.rand(), torch.rand(1)) == before
    assert seen[0] != seen[2], "两次检查用了同样的输入"


def test_a_mistake_that_raises_is_recognised():
    mistakes = (Mistake("除以零", lambda n: 1 // (n - n), "它除以了 0。", "分母是几？"),)
    task = Function("99.divide", reference=lambda n: n, cases=lambda rng: [(3,), (4,)], mistakes=mistakes, ask="？")
    assert task(lambda n: n // 0).kind == "除以零"
    expected = Function("99.raise", reference=lambda n: 1 // n, cases=lambda rng: [(0,), (2,)], mistakes=(), ask="？")
    assert expected(lambda n: 1 // n).status == PASS
    assert "应当报错" in str(expected(lambda n: 0))


def test_values_and_choices():
    value = Value("99.value", expected=lambda: 0.42, ask="再想想", atol=0.01, rtol=0,
                  mistakes=(Mistake("一半", 0.21, "只有一半。", "另一半呢？"),
                            Mistake("大于一", 2.0, "超过了 1。", "概率？", sign=lambda a: a > 1)))
    assert value(0.421).passed and value(torch.tensor(0.42)).passed and value(...).status == OPEN
    assert value(0.21).kind == "一半" and value(7).kind == "大于一" and value("四成").kind == "类型" and value(0.3).kind == "其他"
    assert "0.42" not in str(value(0.3)), "不该说出答案"
    many = Value("99.many", accept=lambda s: s.endswith("。"), form="一句话", ask="？", mistakes=())
    assert many("好。").passed and many("好").kind == "其他" and many(3).kind == "类型"
    assert Value("99.list", expected=[1, 2], ask="？", mistakes=())([1, ...]).status == OPEN
    choice = Choice("99.choice", right="AC", ask="？", mistakes=(Mistake("少一个", "A", "只有一个。", "还有呢？"),))
    assert choice("ca").passed and choice(["A", "C"]).passed and choice("a").kind == "少一个" and choice("AD").kind == "其他"
    assert choice("E").kind == "类型" and choice(3).kind == "类型" and choice("...").status == OPEN


def test_strict_mode_raises(monkeypatch):
    monkeypatch.setenv("COURSE_CHECK_STRICT", "1")
    for answer in (..., forever, lambda x: x):
        with pytest.raises(CheckFailed):
            make(seconds=0.3)(answer)
    assert make()(lambda x: x.softmax(-1)).passed


def test_cell_that_cannot_run_is_explained():
    verdict = run_answer("a = 1\nb = a +", "check.x(a)", {}, "99.x")
    assert verdict.kind == "异常" and "SyntaxError" in str(verdict)
    verdict = run_answer("a = 1\nb = a / 0", "check.x(a)", {}, "99.x")
    assert "b = a / 0" in str(verdict)


# ---------------------------------------------------------------- 限时


def test_time_limit_never_leaks_an_exception():
    """恰好在时限附近结束的，也不会有一个迟到的异常冒出来。"""
    began, late, calls = time.perf_counter(), 0, 0
    while time.perf_counter() - began < (4 if late else 60):                # 机器忙的时候，多试一会儿
        calls += 1
        until = time.perf_counter() + random.uniform(0.001, 0.012)
        try:
            run_limited(lambda until=until: [0 for _ in iter(lambda: time.perf_counter() < until, False)], 0.006)
        except TimeUp:
            late += 1
        sum(range(500))
    assert late and late < calls and threading.active_count() < 20


def test_time_limit_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(make(seconds=0.3)(forever).kind))
    thread.start()
    thread.join(20)
    assert found == ["超时"]


def test_endless_loop_is_stopped_in_a_real_kernel(tmp_path):
    """在 Jupyter 内核里：死循环被停下，报错的那一行看得见，下一格照常运行。"""
    sources = [f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport dataclasses\nfrom utils.checks import objectives as check",
               "def answer(logits, labels):\n    while True:\n        pass",
               "dataclasses.replace(check.mlm_loss, seconds=1.0)(answer)",
               "def broken(logits, labels):\n    wanted = labels + 1\n    return logits.nothing_here",
               "check.mlm_loss(broken)", "print('还活着')"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    client = NotebookClient(nb, timeout=120, kernel_name="python3")
    manager = client.create_kernel_manager()
    manager.kernel_spec_manager = ThisPython()
    client.execute(cwd=str(tmp_path))
    late, broken, alive = nb.cells[2].outputs[0].data, nb.cells[4].outputs[0].data, nb.cells[5].outputs[0]
    assert "超时" in late["text/plain"] and "超时" in late["text/html"]
    assert "broken 第 3 行：return logits.nothing_here" in broken["text/plain"] and "AttributeError" in broken["text/html"]
    assert alive.text == "还活着\n"


# ---------------------------------------------------------------- 显示


def test_what_a_learner_types_is_escaped():
    def evil(x):
        raise ValueError("<script>alert(1)</script>")

    verdict = make()(evil)
    assert "<script>" in str(verdict) and "<script>" not in verdict._repr_html_() and "&lt;script&gt;" in verdict._repr_html_()
    assert "\x1b[" not in repr(verdict)                   # 不是终端就不上色


def test_show_survives_anything():
    class Broken:
        def __repr__(self):
            raise RuntimeError("坏的")

    assert "Broken" in show(Broken()) and "meta" in show(torch.zeros(2, device="meta"))
    assert len(show("字" * 10_000)) < 400 and len(show(list(range(10_000)))) < 400 and len(show(torch.zeros(99, 99))) < 300
    assert show(True) == "真" and show(torch.tensor([[True, False]])) == "张量 1×2 [[真, 假]]"


@pytest.mark.parametrize("a, b, kind", [
    (1.0, 1.0000001, None), (1, torch.tensor(1), None), (float("nan"), float("nan"), None), (float("inf"), 3.0, "值"),
    (True, 1, "类型"), (1, True, "类型"), (True, np.bool_(True), None), ([1, 2], (1, 2), None), ([1, 2], "12", "类型"),
    ({"a": 1}, {"a": 2}, "值"), ({"a": 1}, {"b": 1}, "值"), ({1, 2}, {2, 1}, None), ([1], [1, 2], "长度"), ("a", b"a", "类型"),
    (torch.zeros(2), np.zeros(2), "类型"), (np.zeros(2), [0.0, 0.0], None), (None, None, None), (None, 0, "类型"),
    ([torch.zeros(2)], [torch.ones(2)], "值"), (torch.tensor([float("nan")]), torch.tensor([float("nan")]), None),
    (torch.tensor([-float("inf")]), torch.tensor([-float("inf")]), None), ((1, "x"), (1, "y"), "值")])
def test_difference(a, b, kind):
    found = difference(a, b)
    assert (found and found.kind) == kind


def test_size_counts_elements():
    assert size(torch.zeros(2, 3)) == 6 and size("四个汉字") == 4 and size(((1, 2), "ab")) == 1 + 3 + 2


# ---------------------------------------------------------------- 进度


def test_progress_is_one_readable_file_and_a_pass_stays():
    task = make()
    task(lambda x: x.softmax(0))
    task(lambda x: x.softmax(0))
    assert ledger.read_progress()["99.softmax"]["提示"] == "方向错了"
    task(lambda x: x.softmax(-1))
    task(lambda x: x.exp())
    lines = ledger.progress_file().read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["状态"] for line in lines] == ["还不对", "通过"]
    assert ledger.read_progress()["99.softmax"]["状态"] == "通过"
    with open(ledger.progress_file(), "a", encoding="utf-8") as file:       # 两台机器的文件拼在一起也一样
        file.write(lines[0] + "\n")
    assert ledger.read_progress()["99.softmax"]["状态"] == "通过"
    ledger.progress_file().unlink()
    assert ledger.read_progress() == {}


def test_course_progress_counts_passes():
    nothing = progress.course_progress()
    assert {"start", "objectives"} <= set(nothing) and all(done == 0 < total for done, total in nothing.values())
    module = load_module("start")
    module.warm_up(12)
    assert progress.course_progress() == nothing
    module.warm_up(4)
    assert progress.course_progress()["start"] == (1, nothing["start"][1])


def test_torn_and_foreign_lines_are_skipped():
    path = ledger.progress_file()
    path.parent.mkdir(parents=True)
    path.write_bytes(b'\xff\xfe\n[1]\n{"x": 1}\n{"' + "练习".encode() + b'": "99.so')
    ledger.record("99.softmax", True)
    assert ledger.read_progress() == {"99.softmax": ledger.read_progress()["99.softmax"]}
    assert ledger.read_progress()["99.softmax"]["状态"] == "通过"


def test_unwritable_progress_does_not_disturb(monkeypatch, tmp_path):
    (tmp_path / "文件").write_text("")
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path / "文件"))
    assert make()(lambda x: x.softmax(-1)).passed


WRITE_MANY = """
import sys
from utils.checks.framework import ledger
for n in range(60):
    ledger.record(f"99.{sys.argv[1]}{n}", n % 2 == 0, "提示" * 40)
"""


def test_several_notebooks_can_write_at_once():
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_MANY, name], cwd=ROOT) for name in "甲乙丙"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert len(ledger.read_progress()) == 180


# ---------------------------------------------------------------- 从 notebook 里取


def source(*parts: tuple[str, str, str]) -> list:
    make_cell = {"md": nbformat.v4.new_markdown_cell, "py": nbformat.v4.new_code_cell}
    return [make_cell[kind](text, metadata={"tags": [name]} if name else {}) for kind, name, text in parts]


GOOD = [("md", "exercise", "**练习 1 · 加法**（★★，5 分钟）加。"), ("py", "stub", "answer = ..."), ("py", "check", "check.add(answer)"),
        ("md", "answer", "<details>\n\n```python\nanswer = 2\n```\n\n```python\n1 / 0\n```\n\n</details>")]


def test_exercise_is_read():
    item, = C.find_exercises(source(("py", "", "import math"), *GOOD))
    assert (item.number, item.title, item.stars, item.minutes, item.name) == (1, "加法", 2, 5, "add")
    assert item.stub == "answer = ..." and item.answer == "answer = 2\n"


@pytest.mark.parametrize("change, words", [
    (lambda c: [c[0], c[1], c[2]], "依次"), (lambda c: [c[0], c[2], c[1], c[3]], "依次"), (lambda c: c[1:], "不在一道练习里"),
    (lambda c: [("md", "exercise", "**练习 2 · 加法**（★★，5 分钟）"), *c[1:]], "编号"),
    (lambda c: [("md", "exercise", "**1. 加法**（★★，5 分钟）"), *c[1:]], "标题"),
    (lambda c: [c[0], c[1], ("py", "check", "x = 1\ncheck.add(answer)"), c[3]], "只有 check"),
    (lambda c: [*c[:3], ("md", "answer", "<details>没有代码</details>")], "折叠"),
    (lambda c: [*c[:3], ("md", "answer", "```python\nanswer = 2\n```")], "折叠")])
def test_bad_layout_is_told(change, words):
    with pytest.raises(C.BadExercise, match=words):
        C.find_exercises(source(*change(GOOD)))


def test_definitions_are_quick_and_survive_drafts():
    parts = C.definitions(source(("py", "", "import math\nN = 3\nx = train()\ndef f():\n    return N"), ("py", "", "%time 1"),
                                 ("py", "stub", "y = 1"), ("py", "", "class A: pass")))
    assert parts == ["import math", "N = 3", "def f():\n    return N", "class A:\n    pass"]


def test_only_the_definitions_an_answer_needs_are_run():
    parts = ["import math", "import torch as t", "N = 3", "def f(x):\n    return g(x) + N", "def g(x):\n    return t.exp(x)",
             "def h():\n    return math.pi"]
    assert C.needed(parts, "answer = f(1)") == [parts[1], parts[2], parts[3], parts[4]]
    assert C.needed(parts, "answer = 1") == [] and C.needed(parts, "坏的 (") == parts
