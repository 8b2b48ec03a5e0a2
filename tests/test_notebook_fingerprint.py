"""notebook 的指纹：该算的都算，不该算的不算；build 运行之后才记，refresh 不改，check 说得出哪里旧；road.toml 与各本的源一致。"""

import ast
import json
from pathlib import Path

import nbformat
import pytest
from notebook_source import stop_text

from tools.notebooks import lint as checks
from tools.notebooks import manage as notebooks
from tools.notebooks.code_facts import name_of, same_program, study, text_of
from tools.notebooks.execution import Failure, Result
from tools.notebooks.fingerprint import fingerprint, outdated, stored_fingerprint, study_cells
from tools.notebooks.links import read_cells
from utils.models import checkpoints
from utils.road import KINDS, maker, road, stop_of

ROOT = Path(__file__).resolve().parents[1]
SOURCES = checks.source_files(ROOT / "notebooks")
PLAIN, MAKER, USER = "plain", "maker", "user"
BUILT = {PLAIN: "00_plain.ipynb", MAKER: "01_maker.ipynb", USER: "02_user.ipynb"}

TREE = {
    "utils/__init__.py": '"""小助手包。"""\n',
    "utils/paths.py": 'from pathlib import Path\nROOT = Path(".")\nDATA = ROOT / "data"\nSHIPPED = DATA / "checkpoints"\n',
    "utils/models/checkpoints.py": "from utils.paths import SHIPPED\n\n\ndef load_checkpoint(kind, cls, preset=None, prefer='own'):\n"
                            "    return SHIPPED / kind\n\n\ndef save_checkpoint(*what):\n    pass\n",
    "utils/near.py": '"""近处的。"""\nfrom .inner import base\nfrom utils.paths import DATA\nLIMIT = 3                 # 上限\n\n\n'
                     'def used():\n    """用到的。"""\n    from utils import lazy\n    return lazy\n\n\n'
                     'def unused():\n    from utils import never\n    return DATA / "unused.txt"\n\n\n'
                     'def words():\n    return DATA / "words"\n\n\nif __name__ == "__main__":\n    unused()\n',
    "utils/inner/__init__.py": "BASE = 1\n",
    "utils/inner/base.py": "VALUE = 1\n",
    "utils/lazy.py": 'import importlib\nNAME = importlib.import_module("utils.named")\n',
    "utils/named.py": "X = 1\n",
    "utils/never.py": "X = 1\n",
    "utils/run.py": 'if __name__ == "__main__":\n    from utils import ran\n',
    "utils/ran.py": "X = 1\n",
    "utils/parts/part1.py": "X = 1\n",
    "utils/pictures.py": 'from pathlib import Path\nSTATIC = Path(__file__).parent / "static"\n',
    "utils/static/a.js": "a\n",
    "data/words/a.txt": "甲\n",
    "data/unused.txt": "乙\n",
    "data/words/README.md": "说明\n",
    "data/checkpoints/mlm/weights": "1",
    "data/checkpoints/clm/weights": "1",
    "notebooks/road.toml": stop_text(PLAIN) + stop_text(MAKER, makes="mlm") + stop_text(USER, mlm="own"),
    f"notebooks/src/{PLAIN}.py": "# %% [markdown]\n# # 题目\n\n# %%\nfrom utils.near import used, words\n\n# %% [markdown]\n# 说明\n\n"
                                 '# %%\ndef f():\n    """说明。"""\n    return 1      # 注释\n',
    f"notebooks/src/{MAKER}.py": "# %% [markdown]\n# # 题目\n\n# %%\nfrom utils.models.checkpoints import save_checkpoint\n"
                                 "import importlib\n"
                                 'part = importlib.import_module(f"utils.parts.part{1}")\n',
    f"notebooks/src/{USER}.py": "# %% [markdown]\n# # 题目\n\n# %%\n%matplotlib inline\n"
                                "from utils.models.checkpoints import load_checkpoint\n"
                                "import utils.pictures as p\nmodel = load_checkpoint('mlm', None)\n"
                                'command = ["python", "-m", "utils.run"]\n',
}


@pytest.fixture
def tree(tmp_path):
    """一个小课程，三本 notebook；返回它的文件夹。"""
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return tmp_path


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text(encoding="utf-8") if (root / name).exists() else ""
    assert old in text, f"{name} 里没有 {old!r}"
    (root / name).write_text(text.replace(old, new, 1) if old else new + text, encoding="utf-8", newline="\n")


def prints(root: Path) -> dict[str, dict]:
    return {source.stem: fingerprint(source) for source in checks.source_files(root / "notebooks")}


@pytest.mark.parametrize("name, old, new, hit", [
    ("utils/near.py", "# 上限", "# 最多几个", ""),                                   # 注释
    ("utils/near.py", "近处的", "改过的说明", ""),                                    # 模块的文档字符串
    ("utils/near.py", "用到的", "改过的说明", ""),                                    # 函数的文档字符串
    ("utils/near.py", "LIMIT = 3", "LIMIT = (\n    3)", ""),                         # 排版
    ("utils/near.py", "LIMIT = 3", "LIMIT = 4", PLAIN),
    ("utils/near.py", 'return DATA / "words"', "pass", PLAIN),                       # 读什么数据，也是代码
    ("utils/inner/base.py", "1", "2", PLAIN),                                        # 相对导入
    ("utils/inner/__init__.py", "1", "2", PLAIN),
    ("utils/lazy.py", "", "Y = 1\n", PLAIN),                                         # 函数里才导入
    ("utils/named.py", "1", "2", PLAIN),                                             # 写成字符串的
    ("utils/parts/part1.py", "1", "2", f"{MAKER} {USER}"),                           # 拼出来的名字；后面那一本用它练的模型
    ("utils/never.py", "1", "2", ""),                                                # 导入它的函数没有人用
    ("utils/ran.py", "1", "2", USER),                                                # `python -m` 才运行的
    ("utils/new.py", "", "X = 1\n", ""),                                             # 没有人导入
    ("utils/__init__.py", "", "X = 1\n", f"{PLAIN} {MAKER} {USER}"),
    ("utils/static/a.js", "a", "b", USER),
    ("utils/pictures.py", "", "X = 1\n", USER),                                      # 有 % 命令的一格里导入的
    ("data/words/a.txt", "甲", "丙", PLAIN),
    ("data/words/b.txt", "", "丁", PLAIN),
    ("data/words/README.md", "说明", "改过", ""),
    ("data/words/.DS_Store", "", "x", ""),
    ("data/unused.txt", "乙", "丙", ""),
    ("data/checkpoints/mlm/weights", "1", "2", USER),                                # 只存模型的那一本不算用了它
    ("data/checkpoints/clm/weights", "1", "2", ""),
    (f"notebooks/src/{PLAIN}.py", "# # 题目", "# # 新题目", ""),
    (f"notebooks/src/{PLAIN}.py", "# 注释", "# 改过", ""),
    (f"notebooks/src/{PLAIN}.py", '"""说明。"""', '"""改过。"""', ""),
    (f"notebooks/src/{PLAIN}.py", "return 1", "return 2", PLAIN),
    (f"notebooks/src/{PLAIN}.py", "def f", '"显示"\ndef f', PLAIN),                   # 一格开头的字符串不是文档字符串
    (f"notebooks/src/{MAKER}.py", "{1}", "{2}", f"{MAKER} {USER}"),
    (f"notebooks/src/{USER}.py", "%matplotlib inline", "%matplotlib widget", USER),
])
def test_what_counts(tree, name, old, new, hit):
    """改一处，只有真用到它的 notebook 变了指纹。"""
    before = prints(tree)
    edit(tree, name, old, new)
    after = prints(tree)
    assert {stem for stem in before if before[stem] != after[stem]} == set(hit.split())


def test_written_alike_by_every_python():
    """指纹不随 Python 的版本变：这几句的指纹是钉住的，在哪个版本上都要一样。"""
    code = ('class A:\n    def f(self, x=None, /, *a: int) -> str:\n        return f"𮯰{x!r:>{3}}" + "\\t𰻝" + str(1e-3)\n\n'
            'print(A, [], {**{}})\n')
    assert study(code).digest == "46be9da60322"


@pytest.mark.parametrize("old, new, same", [
    ("x = 1  # 甲", "x = (1)", True), ("def f():\n    '甲'\n    return 1", "def f():\n    return 1", True),
    ("x = 1", "x = 2", False), ("'甲'", "'乙'", False), ("%time x", "%time x", True), ("%time x", "%time y", False)])
def test_same_program(old, new, same):
    assert same_program(old, new) is same


# ---------------------------------------------------------------- 构建、检查、更新


@pytest.fixture
def fake(tree, monkeypatch):
    """不起内核的 execute：运行时照 fake["during"] 做一件事；fake["fail"] 为真就算出错。"""
    script = {"during": lambda source: None, "fail": False}

    def execute(source, preset=None, records=None, bar=True):
        script["during"](source)
        failure = Failure(1, "x", "坏了", "") if script["fail"] else None
        return Result(stop_of(source).name, 1, 1, failure, nbformat.v4.new_notebook(cells=read_cells(source)))

    monkeypatch.setattr(notebooks, "execute", execute)
    return script


def build(tree, *words) -> int:
    return notebooks.build(list(words), "smoke", tree / "notebooks")


def stale(tree) -> str:
    """check 的话里，与指纹有关的。"""
    return "\n".join(p for p in checks.check(tree / "notebooks") if "输出" in p)


def test_build_stores_it_after_running_and_check_names_what_changed(tree, fake, capsys):
    path = tree / "notebooks" / BUILT[PLAIN]
    seen = []
    fake["during"] = lambda source: seen.append(path.exists() and stored_fingerprint(path))
    assert build(tree, PLAIN) == 0 and seen == [False]
    assert stored_fingerprint(path) == fingerprint(tree / "notebooks" / "src" / f"{PLAIN}.py") and stale(tree) == ""
    first = path.read_bytes()
    edit(tree, "utils/near.py", "LIMIT = 3", "LIMIT = 4")
    assert stale(tree) == f"{BUILT[PLAIN]}：输出比代码旧：utils/near.py 变了（构建之后），请运行 course.py build 00"
    fake["fail"] = True
    assert build(tree, PLAIN) == 1 and path.read_bytes() == first              # 没有运行完，旧的指纹不动
    fake["fail"] = False
    assert build(tree, PLAIN) == 0 and stale(tree) == ""
    edit(tree, f"notebooks/src/{PLAIN}.py", "return 1", "return 2")
    edit(tree, "data/words/a.txt", "甲", "乙")
    assert "它的代码、data/words 变了" in stale(tree)
    for n in range(6):
        edit(tree, f"utils/parts/part{n}.py", "", "Y = 1\n")
    edit(tree, f"notebooks/src/{PLAIN}.py", "from utils.near", 'f"utils.parts.{1}"\nfrom utils.near')
    assert "、utils/parts/part2.py 等 8 处 变了" in stale(tree)


def test_a_notebook_without_one_is_reported(tree, fake):
    assert build(tree, PLAIN) == 0
    path = tree / "notebooks" / BUILT[PLAIN]
    nb = nbformat.read(path, 4)
    del nb.metadata["course"]["fingerprint"]
    notebooks.save(nb, path)
    assert stale(tree) == f"{BUILT[PLAIN]}：输出没有指纹，请运行 course.py build 00"


@pytest.mark.parametrize("name, new", [("utils/near.py", "LIMIT = 4"), ("utils/near.py", "LIMIT = = ")])
def test_edited_while_building_is_refused(tree, fake, capsys, name, new):
    """构建期间有人改了用到的模块（哪怕正改到一半，语法都不对）：不写，说出是哪一个。"""
    fake["during"] = lambda source: edit(tree, name, "LIMIT = 3", new)
    assert build(tree, PLAIN) == 1
    assert not (tree / "notebooks" / BUILT[PLAIN]).exists()
    assert f"没有写出：构建期间有改动: {name}" in capsys.readouterr().out
    fake["during"] = lambda source: edit(tree, "utils/never.py", "1", "2")     # 用不到的可以改
    assert build(tree, PLAIN) == 0


def test_refresh_keeps_it_and_never_renews_it(tree, fake):
    """只改文字、注释、文档字符串：指纹留着，还作数；模块变了以后 refresh，也不能把旧输出说成新的。"""
    assert build(tree, PLAIN) == 0
    path, source = tree / "notebooks" / BUILT[PLAIN], f"notebooks/src/{PLAIN}.py"
    first = stored_fingerprint(path)
    edit(tree, source, "# # 题目", "# # 新题目")
    edit(tree, source, '"""说明。"""', '"""改过。"""')
    assert notebooks.refresh([PLAIN], tree / "notebooks") == 0
    assert "新题目" in path.read_text("utf-8") and "改过" in path.read_text("utf-8")
    assert stored_fingerprint(path) == first and stale(tree) == ""
    edit(tree, "utils/near.py", "LIMIT = 3", "LIMIT = 4")
    edit(tree, source, "# # 新题目", "# # 又一个题目")
    assert notebooks.refresh([PLAIN], tree / "notebooks") == 0 and "又一个" in path.read_text("utf-8")
    assert stored_fingerprint(path) == first and "utils/near.py 变了" in stale(tree)


def test_the_model_of_an_earlier_notebook(tree, fake, capsys):
    """一本用前一本练的模型：前一本变了它就旧；前一本还旧着，它不能构建；次序写反了也一样；前一本原样再构建，它不旧。"""
    assert build(tree, USER) == 1 and "01_maker：输出没有指纹，请运行 course.py build 01" in capsys.readouterr().out
    assert build(tree, "2", "1") == 0 and stale(tree) == ""
    assert build(tree, "1") == 0 and stale(tree) == ""
    edit(tree, f"notebooks/src/{MAKER}.py", "{1}", "{2}")
    assert f"{BUILT[USER]}：输出比代码旧：它用到的 {MAKER} 变了（构建之后），请运行 course.py build 02" in stale(tree)
    assert build(tree, USER) == 1 and build(tree, MAKER, USER) == 0 and stale(tree) == ""


# ---------------------------------------------------------------- road.toml 与真的课程


@pytest.mark.parametrize("code, found", [
    ("load_checkpoint('mlm', M)", {("mlm", "own")}),
    ("load_checkpoint('mlm', M, prefer='shipped')", {("mlm", "shipped")}),
    ("c.load_checkpoint('clm', M, p, 'shipped')", {("clm", "shipped")}),
    ("find_checkpoint('clm', p, 'shipped')", {("clm", "shipped")}),
    ("find_checkpoint(kind='clm')", {("clm", "own")}),
    ("def f(kind='mlm'):\n    load_checkpoint(kind, M, prefer='shipped')", {("mlm", "shipped"), ("clm", "shipped")}),
    ("load_checkpoint('mlm', M, prefer=which)", {("mlm", "shipped"), ("mlm", "own")}),
    ("load_checkpoint(*a)", {(k, s) for k in KINDS for s in ("shipped", "own")}),
    ("g = load_checkpoint", {(k, s) for k in KINDS for s in ("shipped", "own")}),
    ("from utils.models.checkpoints import load_checkpoint as g", {(k, s) for k in KINDS for s in ("shipped", "own")}),
    ("from utils.models.checkpoints import load_checkpoint, save_checkpoint", set()),
])
def test_which_checkpoints_a_cell_finds(code, found):
    assert study(code, cell=True).units[""].models == found


def models_in(source: Path) -> dict[str, str]:
    """一本的源里载入了谁的模型，照 road.toml 的写法。"""
    used: dict[str, set[str]] = {}
    for facts in study_cells(source):
        for kind, whose in facts.units[""].models:
            used.setdefault(kind, set()).add(whose)
    return {kind: "both" if len(whose) == 2 else whose.pop() for kind, whose in used.items()}


def made_in(source: Path) -> dict[str, str]:
    """一本的源里，用 save_checkpoint 存到 lesson.outputs / "mlm"、"clm" 的是哪一个。"""
    folders = [node.args[2] for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
               if isinstance(node, ast.Call) and name_of(node.func) == "save_checkpoint"]
    kinds = [text_of(f.right) for f in folders if isinstance(f, ast.BinOp) and name_of(f.left) == "outputs"]
    return {"makes": kinds[0]} if kinds else {}


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_the_road_says_what_the_source_does(source):
    stop = stop_of(source)
    said = {key: getattr(stop, key) for key in (*KINDS, "makes") if getattr(stop, key)}
    assert said == models_in(source) | made_in(source)


def test_the_road_is_whole():
    assert [stop.topic for stop in road()] == [source.stem for source in SOURCES]
    assert set(KINDS) == set(checkpoints.KINDS) and all(maker(kind) for kind in KINDS)


def test_the_real_course():
    """真的课程里几处要紧的：谁用检查点，谁用前面练的模型，`python -m` 才运行的、拼出名字导入的也看得见。"""
    topics = ("start", "tokenization", "mlm_pretraining", "clm_finetuning", "generation", "scale_up")
    of = {topic: fingerprint(ROOT / "notebooks" / "src" / f"{topic}.py") for topic in topics}
    models = {topic: [name[-3:] for name in made["files"] if name.startswith("data/checkpoints")] for topic, made in of.items()}
    assert models["tokenization"] == models["mlm_pretraining"] == [] and models["clm_finetuning"] == models["scale_up"] == ["clm", "mlm"]
    assert list(of["clm_finetuning"]["notebooks"]) == ["mlm_pretraining"] and list(of["generation"]["notebooks"]) == ["clm_finetuning"]
    assert of["scale_up"]["notebooks"] == {}
    assert "utils/train.py" in of["scale_up"]["files"] and "utils/train.py" not in of["tokenization"]["files"]
    assert "utils/checks/generation.py" in of["start"]["files"] and "utils/checks/generation.py" not in of["tokenization"]["files"]
    used = {"utils/training/loop.py", "data/news", "data/fonts", "utils/views/widgets/widgets.css"}
    assert used <= of["mlm_pretraining"]["files"].keys()
    assert len(json.dumps(of["start"], indent=1)) < 8000                          # .ipynb 有大小的上限
    assert outdated(ROOT / "notebooks" / "没有.ipynb", SOURCES[0]) == "输出没有指纹，请运行 course.py build 00"
