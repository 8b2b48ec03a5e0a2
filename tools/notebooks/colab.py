"""Colab 的引导单元：每本 .ipynb 最上面（标题之后）的一格，别处什么也不做。

构建时由 tools/notebooks/manage.py 插进 .ipynb；notebooks/src 里没有它。课程从哪里取，只写在 ADDRESS 一处：改了它，
运行 `python -m tools.notebooks refresh`，各本就都换了。
"""

from __future__ import annotations

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

ADDRESS = "本仓库的地址"                                  # 发布课程的人把它换成自己的，例如 https://…/hanzi-llm.git
FOLDER = "/content/hanzi-llm"                             # 在 Colab 上放到哪里
AT = 1                                                    # 插在标题之后
TEMPLATE = '''\
#@title 只在 Colab 上有用：取来课程，补装缺的软件包；在别处运行它，什么也不做
import importlib.util, os, subprocess, sys
if importlib.util.find_spec("google") and importlib.util.find_spec("google.colab"):
    home = ".." if os.path.exists("../course.py") else {folder!r}
    if not os.path.exists(home):
        subprocess.run(["git", "clone", "--depth", "1", {address!r}, home])
    if not os.path.exists(home + "/course.py"):
        raise SystemExit("取不到课程。请检查网络，以及这一格里的地址：" + {address!r})
    os.chdir(home + "/notebooks")
    if subprocess.run([sys.executable, "../course.py", "setup", "--here"]).returncode:
        raise SystemExit("软件包没有装好，原因见上面。修好以后再运行这一格。")'''


def cell_source(address: str = ADDRESS, folder: str = FOLDER) -> str:
    """引导单元的代码。address 是课程的地址（git clone 认得的），folder 是在 Colab 上放到哪里。"""
    return TEMPLATE.format(address=address, folder=folder)


def is_bootstrap(cell: NotebookNode) -> bool:
    """这一格是不是引导单元（新的旧的都算）。"""
    return str(cell.get("id", "")).endswith("-colab")


def without(cells: list[NotebookNode]) -> list[NotebookNode]:
    """去掉引导单元，剩下的与 notebooks/src 里的一一对应。"""
    return [cell for cell in cells if not is_bootstrap(cell)]


def insert(nb: NotebookNode, topic: str) -> NotebookNode:
    """把引导单元插进一本 .ipynb（就地修改）；已经有的先去掉，所以可以反复做。topic 是题目。"""
    cell = new_code_cell(cell_source(), id=f"{topic}-colab", metadata={"cellView": "form", "jupyter": {"source_hidden": True}})
    rest = without(nb.cells)
    nb.cells = [*rest[:AT], cell, *rest[AT:]]
    return nb
