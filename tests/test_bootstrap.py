"""Colab 的引导单元：别处什么也不做；在（假的）Colab 上取来课程，只装缺的，torch 不动。

Colab 是假的：一个空的 google.colab 包。git、pip、虚拟环境都是真的，只是地址是本机的文件夹，软件包是几个小小的 wheel。
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from test_course import copy_door, write_road

from tools.notebooks import colab as bootstrap
from utils.paths import ROOT

TELL = "\nimport os\nprint('现在在', os.getcwd(), flush=True)"


def wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """一个空的 wheel；needs 是它的依赖。"""
    info = f"{name}-{version}.dist-info"
    files = {f"{name}/__init__.py": f"__version__ = {version!r}\n",
             f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}",
                                           *([f"Requires-Dist: {needs}"] if needs else []), ""]),
             f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


class Colab:
    """一台假的 Colab：自己的 Python（装着旧的 torch 1.0），以及放在本机的课程仓库。"""

    def __init__(self, base: Path):
        self.base, self.content, self.wheels, self.repo = base, base / "content", base / "wheels", base / "仓库"
        for folder in (self.content, self.wheels, self.repo / "notebooks", base / "fake" / "google" / "colab"):
            folder.mkdir(parents=True)
        (base / "fake" / "google" / "colab" / "__init__.py").write_text("")
        wheel(self.wheels, "torch", "1.0")
        wheel(self.wheels, "torch", "2.0")
        wheel(self.wheels, "alpha", "1.0", "torch>=0.5")
        copy_door(self.repo)
        (self.repo / "requirements.txt").write_text("torch>=0.5\nalpha>=1.0\n")
        (self.repo / "constraints.txt").write_text("torch==2.0\nalpha==1.0\n")
        write_road(self.repo / "notebooks", "start")
        (self.repo / "notebooks" / "00_start.ipynb").write_text("{}")
        for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
            subprocess.run(["git", *command], cwd=self.repo, check=True)
        subprocess.run([sys.executable, "-m", "venv", base / "venv"], check=True)
        self.python = base / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.pip("install", "torch==1.0")

    def environ(self):
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
        return keep | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull, "PYTHONUTF8": "1"}

    def pip(self, *words):
        done = subprocess.run([self.python, "-m", "pip", *words], env=self.environ(), capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, cell, cwd=None, colab=True):
        """在假的 Colab 上运行一格，返回（退出码，输出）。"""
        env = self.environ() | ({"PYTHONPATH": str(self.base / "fake")} if colab else {})
        done = subprocess.run([self.python, "-c", cell + TELL], cwd=cwd or self.content, env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, encoding="utf-8", timeout=300)
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    made = Colab(tmp_path_factory.mktemp("colab"))
    made.cell = bootstrap.cell_source(str(made.repo), str(made.content / "hanzi-llm"))
    return made


def test_elsewhere_it_does_nothing(colab):
    before = sorted(colab.base.rglob("*"))
    code, text = colab.run(colab.cell, colab=False)
    assert (code, text.strip()) == (0, f"现在在 {colab.content}")
    assert sorted(colab.base.rglob("*")) == before


def test_on_colab_it_fetches_the_course_and_installs_only_what_is_missing(colab):
    code, text = colab.run(colab.cell)
    assert code == 0 and "补装 alpha" in text and text.strip().endswith(f"现在在 {colab.content / 'hanzi-llm' / 'notebooks'}"), text
    listed = colab.pip("list")
    assert re.search(r"alpha +1\.0", listed) and re.search(r"torch +1\.0", listed), listed      # torch 还是原来的
    (colab.content / "hanzi-llm" / "mine.txt").write_text("我写的")
    code, text = colab.run(colab.cell)                                                          # 再运行一次：不重新取，也不装
    assert code == 0 and "补装" not in text and "Cloning" not in text
    assert (colab.content / "hanzi-llm" / "mine.txt").exists()


def test_a_course_cloned_by_hand_is_used_where_it_is(colab):
    shutil.copytree(colab.repo, colab.base / "mine")
    code, text = colab.run(colab.cell.replace(str(colab.content / "hanzi-llm"), "/没有这里"), cwd=colab.base / "mine" / "notebooks")
    assert code == 0 and text.strip().endswith(f"现在在 {colab.base / 'mine' / 'notebooks'}"), text


def test_a_wrong_address_is_explained(colab):
    code, text = colab.run(bootstrap.cell_source(str(colab.base / "没有这个仓库"), str(colab.content / "别处")))
    assert code == 1 and "取不到课程" in text and "没有这个仓库" in text and "Traceback" not in text


def test_every_notebook_has_the_cell_once_and_the_address_is_in_one_place():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, 4).cells
        assert [i for i, cell in enumerate(cells) if bootstrap.is_bootstrap(cell)] == [bootstrap.AT], path.name
        assert cells[bootstrap.AT].source == bootstrap.cell_source() and not cells[bootstrap.AT].outputs, path.name
    assert bootstrap.cell_source("甲", "乙").count("甲") == 2 and "甲" not in bootstrap.TEMPLATE


def test_insert_is_idempotent():
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 题"), nbformat.v4.new_code_cell("1")])
    once = [c.source for c in bootstrap.insert(nb, "02_x").cells]
    assert [c.source for c in bootstrap.insert(nb, "02_x").cells] == once == ["# 题", bootstrap.cell_source(), "1"]
    assert [c.source for c in bootstrap.without(nb.cells)] == ["# 题", "1"]
