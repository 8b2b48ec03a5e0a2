"""教师手册：一本一页，两课时各 45 分钟，提到的节和练习都真的有。"""

import re

import pytest

from tools.notebooks.exercises import find_exercises
from tools.notebooks.links import read_cells
from utils.paths import ROOT
from utils.road import road

GUIDE = ROOT / "docs" / "teacher"
ROAD = road()
PARTS = ("要问的问题", "常见的误解", "投影", "讨论")


@pytest.mark.parametrize("stop", ROAD, ids=lambda s: s.topic)
def test_page(stop):
    text = (GUIDE / f"{stop.topic}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {stop.number} ") and stop.asks in text.splitlines()[0]
    titles = re.findall(r"^## (.+)$", text, re.M)
    assert [t.split("：")[0] for t in titles] == ["第一课时", "第二课时", *PARTS]
    for lesson in re.findall(r"^## 第.课时.*?(?=^## )", text, re.M | re.S):
        assert sum(map(int, re.findall(r"^- (\d+) 分钟", lesson, re.M))) == 45, lesson.splitlines()[0]
    for part in PARTS[:2]:
        assert len(re.findall(r"^- ", re.search(rf"^## {part}$(.*?)(?=^## )", text, re.M | re.S)[1], re.M)) >= 3
    assert len(text.splitlines()) <= 60, "超过一页了"


@pytest.mark.parametrize("stop", ROAD, ids=lambda s: s.topic)
def test_sections_and_exercises_it_mentions_exist(stop):
    source = ROOT / "notebooks" / "src" / f"{stop.topic}.py"
    if not source.exists():
        pytest.skip("这一本还没有")
    text = (GUIDE / f"{stop.topic}.md").read_text(encoding="utf-8")
    cells = read_cells(source)
    sections = set(re.findall(r"^## (\d+) ", "\n".join(c.source for c in cells if c.cell_type == "markdown"), re.M))
    mentioned = {n for group in re.findall(r"第 ([\d、 ]+) 节", text) for n in re.findall(r"\d+", group)}
    assert mentioned and mentioned <= sections, sorted(mentioned - sections)
    items = find_exercises(cells)
    if items:
        asked = {int(n) for n in re.findall(r"练习 (\d+)", text)}
        assert asked <= {item.number for item in items}


def test_index_lists_every_page():
    text = (GUIDE / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\[(\d\d)\]\((\w+)\.md\)", text)) == {(stop.number, stop.topic) for stop in ROAD}
    assert {path.stem for path in GUIDE.glob("[a-z]*.md")} == {stop.topic for stop in ROAD}
