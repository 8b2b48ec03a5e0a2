"""会诊断的练习：每本 notebook 的参考答案都通过，留空的都报未做，每种误解得到自己的提示。"""

import pytest

from tools.notebooks import exercises as C
from tools.notebooks.links import read_cells
from tools.notebooks.lint import source_files
from utils.checks.framework import Exercise, runner
from utils.checks.framework.verdict import OPEN, PASS, WRONG
from utils.paths import ROOT

SEEDS = range(3)
SOURCES = {p.stem: p for p in source_files(ROOT / "notebooks")}
CELLS = {topic: read_cells(path) for topic, path in SOURCES.items()}
ITEMS = {(topic, item.name): item for topic, cells in CELLS.items() for item in C.find_exercises(cells)}
MODULES = {topic: runner.load_module(topic) for topic in sorted({topic for topic, _ in ITEMS})}
LEAST = {"start": 1}                                         # 有练习的 notebook 至少几道；其余的 5 道


def run(topic: str, item: C.Item, code: str):
    """在只有用得到的那几条定义的名字空间里，运行一段答案和它的检查。"""
    parts = C.needed(C.definitions(CELLS[topic]), code + "\n" + item.check)
    return runner.run_answer(code, item.check, runner.namespace(parts, MODULES[topic]), f"{topic}.{item.name}")


@pytest.fixture(autouse=True)
def own_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))


def exercise(topic: str, name: str) -> Exercise:
    return getattr(MODULES[topic], name)


def ids(key):
    return ".".join(key)


def test_each_notebook_has_enough_and_declares_what_it_uses():
    for topic, module in MODULES.items():
        used = [name for n, name in ITEMS if n == topic]
        assert len(used) >= LEAST.get(topic, 5), f"{topic} 只有 {len(used)} 道练习"
        assert sorted(used) == sorted(runner.exercises(module)), f"{topic}：notebook 与 utils/checks/{topic}.py 的练习不一致"
        assert {e.key for e in runner.exercises(module).values()} == {f"{topic}.{name}" for name in used}


@pytest.mark.parametrize("key", ITEMS, ids=ids)
def test_reference_answer_passes_and_stub_is_open(key):
    item = ITEMS[key]
    stub = run(key[0], item, item.stub)
    assert stub.status == OPEN, str(stub)
    for _ in SEEDS:
        answer = run(key[0], item, item.answer)
        assert answer.status == PASS, str(answer)


@pytest.mark.parametrize("key", ITEMS, ids=ids)
def test_each_misconception_gets_its_own_hint(key):
    task = exercise(*key)
    mistakes = task.mistakes
    assert len(mistakes) >= 3 and task.ask
    assert len({m.name for m in mistakes}) == len({m.hint for m in mistakes}) == len({m.ask for m in mistakes}) == len(mistakes)
    for mistake in mistakes:
        for seed in SEEDS:
            verdict = task(mistake.wrong, seed=seed)
            assert verdict.status == WRONG and verdict.kind == mistake.name, f"{mistake.name} 被认成：{verdict}"
            assert verdict.hint == mistake.hint and verdict.ask == mistake.ask
