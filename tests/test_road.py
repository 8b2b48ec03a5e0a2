"""road.toml 是唯一的一份单子：添一本、换次序，编号、链接、成绩、地图、README 都跟着走；每一本也都能单独打开（smoke）。

照着 road.toml，只有用得上自己模型的几本，单独跑和跟着跑才不一样；跟着跑的在 test_notebooks.py 和 browser/test_run_all.py。
"""

import re

import nbformat
import pytest
from chain import printed
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_source import stop_text

from tools.notebooks import links, lint, manage, pages
from tools.notebooks.course_map import write_map
from tools.notebooks.execution import Result, execute
from utils.paths import NOTEBOOKS, ROOT
from utils.road import KINDS, choose, find, lenders, maker, road, stop_of
from utils.views.figures.course_map import fingerprint as map_fingerprint

LONG = "clm_finetuning"                                   # 从附带的 MLM 练起，smoke 也要六分钟；手工试过，不放进每次的测试
OWN_COURSES = ("test_course.py", "test_bootstrap.py", "test_offline_pack.py")    # 自己搭一个小课程，要用成品的名字
OWN = [stop.topic for stop in road() if stop.takes_own and stop.topic != LONG]


# ---------------------------------------------------------------- 真的课程


def test_the_road_names_every_notebook():
    topics = [stop.topic for stop in road()]
    assert LONG in topics and sorted(topics) == sorted(path.stem for path in (NOTEBOOKS / "src").glob("*.py"))
    assert [stop.makes for stop in road() if stop.makes] == list(KINDS)
    assert [stop.number for stop in road()] == [f"{n:02d}" for n in range(len(topics))]
    assert all(min(stop.read, stop.run, stop.practise) > 0 and stop.title and stop.english for stop in road())


def test_no_number_is_written_by_hand():
    """编号只由次序而来：代码、源、说明里没有「编号_题目」，没有按编号叫的模块；说明里有的，由 refresh 改写。"""
    topics = "|".join(stop.topic for stop in road())
    wrong = []
    for pattern in ("utils/**/*.*", "tools/**/*.py", "tests/**/*.py", "notebooks/src/*.py", "notebooks/terms.tsv"):
        for path in ROOT.glob(pattern):
            if path.suffix not in (".py", ".js", ".css", ".tsv") or path.name in OWN_COURSES:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                known = path.name in ("pages.py", "links.py", "test_road.py")                  # 它们正是讲怎样改写编号的
                if not known and re.search(rf"\b\d\d_({topics})\b|\bnb\d\d\b|\]\(\d\d_\w+\.ipynb\)", line):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}")
    assert wrong == []
    assert [path.name for path in (ROOT / "docs" / "teacher").glob("[0-9]*")] == []
    assert pages.outdated(NOTEBOOKS) == []


@pytest.mark.notebooks
@pytest.mark.parametrize("topic", OWN)
def test_alone_with_the_shipped_models(topic, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))
    result = execute(NOTEBOOKS / "src" / f"{topic}.py", "smoke", bar=False)
    said = printed(result.notebook)
    assert result.ok, result.failure
    assert "附带的检查点" in said and "你自己在" not in said


# ---------------------------------------------------------------- 记号


STOPS = road()


def markdown(text: str) -> str:
    return links.resolve([new_markdown_cell(text)], STOPS)[0].source


def code(text: str) -> str:
    return links.resolve([new_code_cell(text)], STOPS)[0].source


def test_links_become_numbers_in_prose_and_in_comments():
    stop = find("self_attention")
    link = f"[{stop.number}]({stop.name}.ipynb)"
    assert markdown("见 [[self_attention]]，[[self_attention|那一本]]。") == f"见 {link}，[那一本]({stop.name}.ipynb)。"
    assert code("x[[i]] = '[[self_attention]]'    # 同 [[self_attention]]，[[self_attention|那里]]") == (
        f"x[[i]] = '[[self_attention]]'    # 同 {stop.number}，那里")
    assert code("%time x\n# 同 [[self_attention]]") == f"%time x\n# 同 {stop.number}"           # 有魔法命令的，认整行的注释
    fenced = "```python\nx[[start]]  # [[start]]\n```"
    assert markdown(f"{fenced}\n`[[start]]` $[[start]]$ [[start]]") == (
        "```python\nx[[start]]  # 00\n```\n`[[start]]` $[[start]]$ [00](00_start.ipynb)")


def test_an_unknown_topic_stays_and_is_reported():
    cells = links.resolve([new_markdown_cell("见 [[nowhere]]，`[[code]]`"), new_code_cell("y[[i]]  # [[elsewhere]]\nx[[mask]]")], STOPS)
    assert links.unknown(cells) == ["nowhere", "elsewhere"]
    assert "[[nowhere]]：road.toml 里没有这个题目" in lint.lint(cells, "start")


def test_bad_roads_are_refused(tmp_path):
    def say(text: str) -> str:
        (tmp_path / "road.toml").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError) as error:
            road(tmp_path)
        return str(error.value)

    assert road(tmp_path) == ()
    assert "title" in say('[[notebook]]\ntopic = "a"\n')
    assert "colour" in say(stop_text("a", colour="红")) and "不能重复" in say(stop_text("a") * 2) and "不能重复" in say(stop_text("1a"))
    assert "只能写" in say(stop_text("a", mlm="mine")) and "只能写" in say(stop_text("a", kind="other"))
    with pytest.raises(ValueError, match="没有「nowhere」.*现有：start"):
        find("nowhere")
    assert [stop.topic for stop in choose(["3", "start", find("objectives").name])] == ["self_attention", "start", "objectives"]


# ---------------------------------------------------------------- 一个小课程：添一本，换次序

SOURCE = """# %% [markdown]
# # 题目 {topic}
#
# 见 [[one]]。

# %%
import sys; sys.path.insert(0, "..")
from utils.environment import start
lesson = start("{topic}")                # 与 [[one]] 相同
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """三本的小课程，第三本用第二本练的模型；已经构建好，README、教师手册、术语、地图都有。不起内核。"""
    folder = tmp_path / "notebooks"
    (folder / "src").mkdir(parents=True)
    (tmp_path / "docs" / "teacher").mkdir(parents=True)
    (folder / "road.toml").write_text(stop_text("one") + stop_text("two", makes="mlm") + stop_text("three", mlm="own"), encoding="utf-8")
    for topic in ("one", "two", "three"):
        (folder / "src" / f"{topic}.py").write_text(SOURCE.format(topic=topic), encoding="utf-8")
    (tmp_path / "README.md").write_text("见 [02](notebooks/02_three.ipynb) 和 02_three。\n<!-- road:table -->\n<!-- /road -->\n",
                                        encoding="utf-8")
    (tmp_path / "docs" / "teacher" / "three.md").write_text("# 02 三：[01](two.md)\n", encoding="utf-8")
    terms = "种类\t写法\t英文\t意思\t首见\n术语\t三\tthree\t三\tthree\n术语\t一\tone\t一\tone\n"
    (folder / "terms.tsv").write_text(terms, encoding="utf-8")
    write_map(folder / "figures" / "course_map.png", folder=folder)
    monkeypatch.setattr(manage, "execute", lambda source, preset, records=None: Result(
        stop_of(source).name, 1, 1, None, new_notebook(cells=links.read_cells(source))))
    assert manage.build([], "smoke", folder) == 0 and manage.refresh([], folder) == 0
    assert lint.check(folder) == []
    return folder


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.M)


def test_a_new_notebook_is_one_entry_and_one_file(small):
    text = (small / "road.toml").read_text(encoding="utf-8")
    (small / "road.toml").write_text(stop_text("zero") + text, encoding="utf-8")
    (small / "src" / "zero.py").write_text(SOURCE.format(topic="zero"), encoding="utf-8")
    assert any("01_two.ipynb：编号旧了" in problem for problem in lint.check(small))
    assert manage.build(["zero"], "smoke", small) == 0 and manage.refresh([], small) == 0
    assert lint.check(small) == []
    names = ["00_zero", "01_one", "02_two", "03_three"]
    assert sorted(path.stem for path in small.glob("*.ipynb")) == names
    assert headings((small / "RESULTS.md").read_text(encoding="utf-8")) == names
    cells = nbformat.read(small / "03_three.ipynb", 4).cells
    assert cells[0].source.startswith("# 03 题目 three") and "见 [01](01_one.ipynb)。" in cells[0].source
    assert cells[2].source.endswith("# 与 01 相同") and cells[2].id == "three-002"
    readme = (small.parent / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("见 [03](notebooks/03_three.ipynb) 和 03_three。") and "| [00_zero](notebooks/00_zero.ipynb) |" in readme
    assert (small.parent / "docs" / "teacher" / "three.md").read_text(encoding="utf-8") == "# 03 三：[02](two.md)\n"
    assert "[03](03_three.ipynb)" in (small / "TERMS.md").read_text(encoding="utf-8")
    assert pages._old_map(small) is None and "00_zero" in map_fingerprint(folder=small)


def test_a_new_order_renumbers_and_leaves_outputs_fresh(small):
    """挪动第一本：全部换号，输出一本也不算旧；只有借谁的模型变了，才算旧。"""
    one, two, three = (small / "road.toml").read_text(encoding="utf-8").split("[[notebook]]")[1:]
    (small / "road.toml").write_text("".join("[[notebook]]" + part for part in (two, three, one)), encoding="utf-8")
    assert manage.refresh([], small) == 0 and lint.check(small) == []
    assert sorted(path.stem for path in small.glob("*.ipynb")) == ["00_two", "01_three", "02_one"]
    assert "见 [02](02_one.ipynb)。" in nbformat.read(small / "01_three.ipynb", 4).cells[0].source
    assert headings((small / "RESULTS.md").read_text(encoding="utf-8")) == ["00_two", "01_three", "02_one"]
    (small / "road.toml").write_text("".join("[[notebook]]" + part for part in (one, three, two)), encoding="utf-8")
    assert lenders("three", small) == [] and maker("mlm", small).name == "02_two"
    manage.refresh([], small)
    assert [p for p in lint.check(small) if "输出" in p] == [
        "01_three.ipynb：输出比代码旧：它用到的 two 变了（构建之后），请运行 course.py build 01"]


def test_what_check_says_of_the_road(small):
    (small / "src" / "stray.py").write_text(SOURCE.format(topic="stray"), encoding="utf-8")
    (small / "src" / "two.py").unlink()
    source = small / "src" / "one.py"
    text = source.read_text(encoding="utf-8").replace("# # 题目", "# # 00 题目").replace("见 [[one]]", "**下一本**：[[three]]，[[four]]")
    source.write_text(text, encoding="utf-8")
    problems = "\n".join(lint.check(small))
    for said in ("src/stray.py：road.toml 里没有它", "road.toml：src 里没有 two.py", "大标题里不要写编号",
                 "[[four]]：road.toml 里没有这个题目",
                 "「下一本」写的是 02_three，路上的下一本是 01_two"):
        assert said in problems, problems
