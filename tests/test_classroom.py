"""给老师用的两个命令：发布的学生版里没有答案；批改时，崩溃、死循环、刷屏、改检查的作业都只算它自己的。"""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from tools.classroom import landlock
from tools.classroom.child import isolation
from tools.classroom.grading import Course, Limits, Row, grade_folder
from tools.classroom.release import FOLDED, release
from tools.classroom.slides import STYLE, Slide, _slide, gist, has_outputs, make_slides, render, write_slides
from tools.classroom.submissions import find_files
from tools.classroom.table import to_csv, to_html
from tools.notebooks import colab as bootstrap
from tools.notebooks.exercises import find_exercises
from tools.notebooks.links import read_cells
from tools.notebooks.lint import source_files
from utils.checks.framework.verdict import OPEN, PASS, WRONG
from utils.paths import ROOT
from utils.road import find, stop_of

BOOK = "objectives"
NAME = find(BOOK).name
COURSE = Course.read()
ITEMS = {item.name: item for item in COURSE.items[BOOK]}
GOOD = {name: item.answer for name, item in ITEMS.items()}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("发布") / "out"
    release(folder, whole=False)
    return folder


# ---------------------------------------------------------------- 发布


def test_release_has_no_answers_and_keeps_everything_else(released):
    for source in source_files(ROOT / "notebooks"):
        text = (released / "student" / "notebooks" / f"{stop_of(source).name}.ipynb").read_text(encoding="utf-8")
        assert "<summary>参考答案" not in text
        nb, cells = nbformat.reads(text, 4), read_cells(source)
        nb.cells = bootstrap.without(nb.cells)
        items = find_exercises(cells)
        for item in items:
            longest = json.dumps(max(map(str.strip, item.answer.splitlines()), key=len), ensure_ascii=False)[1:-1]
            assert len(longest) < 12 or longest not in text, f"{source.stem} 的「{item.title}」漏出了答案：{longest}"
        kept = [FOLDED.sub("\n\n", c.source).strip("\n") if c.cell_type == "markdown" else c.source
                for c in cells if "answer" not in c.metadata.get("tags", [])]
        assert [c.source for c in nb.cells] == kept
        marked = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader for c in nb.cells if "nbgrader" in c.metadata}
        assert len(marked) == 2 * len(items) and all(m.schema_version == 3 for m in marked.values())
        assert sum(m.get("points", 0) for m in marked.values()) == sum(item.stars for item in items)


def test_teachers_version_holds_the_answers_between_marks(released):
    text = (released / "nbgrader" / "source" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    nb = nbformat.reads(text, 4)
    stubs = {c.metadata.nbgrader.grade_id: c.source for c in nb.cells if c.metadata.get("nbgrader", {}).get("solution")}
    for name in ITEMS:
        source = stubs[f"{BOOK}-{name}"]
        assert source.count("### BEGIN SOLUTION") == source.count("### END SOLUTION") == 1
        names: dict = {}
        exec(source, {"torch": None}, names)
        assert names, name
    assert "参考答案" not in text
    compile((released / "nbgrader" / "nbgrader_config.py").read_text(encoding="utf-8"), "config", "exec")


def test_release_refuses_a_folder_with_things_in_it(tmp_path):
    (tmp_path / "x").write_text("重要")
    with pytest.raises(ValueError, match="不是空文件夹"):
        release(tmp_path)
    assert (tmp_path / "x").read_text() == "重要"


def test_released_course_runs(tmp_path):
    """学生版里有 course.py 要的一切：真的运行它。"""
    place = tmp_path / "notebooks" / "src"
    place.mkdir(parents=True)
    first = source_files(ROOT / "notebooks")[0]
    (place / first.name).write_bytes(first.read_bytes())
    shutil.copy(ROOT / "notebooks" / "road.toml", place.parent)
    release(tmp_path / "发布", tmp_path / "notebooks")
    student = tmp_path / "发布" / "student"

    def course(*words):
        return subprocess.run([sys.executable, "course.py", *words], cwd=student, capture_output=True,
                              env=dict(os.environ, PYTHONUTF8="1"), text=True, encoding="utf-8")

    done = course("--help")
    assert done.returncode == 0 and "用法" in done.stdout, done.stderr
    for words in (["run"], ["build"], ["test"], ["pack"], ["grade", "作业"], ["release", "作业"], ["slides"]):
        done = course(*words)
        assert done.returncode == 2 and "发给学生的那种" in done.stderr, (words, done.stderr)
    assert {p.name for p in (student / "tools").iterdir()} == {"__init__.py", "install"}            # 没有批改的程序


# ---------------------------------------------------------------- 批改


def hand_in(released, folder, student: str, answers: dict[str, str], edit=None) -> None:
    """一个学生交作业：把答案填进学生版里。"""
    nb = nbformat.read(released / "student" / "notebooks" / f"{NAME}.ipynb", 4)
    for cell in nb.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "").removeprefix(f"{BOOK}-")
        if name in answers:
            cell.source = answers[name]
    if edit:
        edit(nb)
    (folder / student).mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, folder / student / f"{NAME}.ipynb")


def function(body: str, name: str = "mlm_loss") -> dict[str, str]:
    """只交一道题（别的题是对的两道），函数体是 body。"""
    return {name: f"import os, time, sys\ndef {name}(logits, labels):\n" + "\n".join("    " + x for x in body.splitlines()),
            "half_words": GOOD["half_words"], "leak": GOOD["leak"]}


RIGHT = "at = labels != -100\nreturn -logits[at].log_softmax(-1).gather(-1, labels[at][:, None]).mean()"
PATCH = ("import utils.checks.framework.function as e\nfrom utils.checks.framework.verdict import Verdict\n"
         "e.Function._conclude = lambda self, *_: Verdict(self.key, '通过')\nreturn logits.sum()")
BAD = {
    "崩溃": ("os._exit(7)", "结束"),
    "段错误": ("import ctypes\nctypes.string_at(0)", "结束"),
    "睡着": ("time.sleep(10 ** 6)", "超时"),
    "死循环": ("while True:\n    pass", "超时"),
    "刷屏": ("for _ in range(1000):\n    print('x' * 10 ** 6)\n    sys.stderr.write('y' * 10 ** 5)\nreturn logits.sum()", "参数没有用上"),
    "吃内存": ("return [bytearray(10 ** 8) for _ in range(10 ** 6)]", "异常 超时 内存"),
    "改检查": (PATCH, "改动检查"),
    "停掉批改": ("os.kill(os.getppid(), 15)\nreturn logits.sum()", "异常" if landlock.version() >= 6 else "异常 结束 参数没有用上"),
    "写大文件": ("with open('x', 'wb') as f:\n    f.write(bytes(200_000_000))\n" + RIGHT, "异常"),
    "没有错": (RIGHT, ""),
}


@pytest.fixture(scope="module")
def graded(released, tmp_path_factory):
    folder = tmp_path_factory.mktemp("作业")
    hand_in(released, folder, "全对", GOOD)
    hand_in(released, folder, "没做", {})
    for student, (body, _) in BAD.items():
        hand_in(released, folder, student, function(body))

    def forge(nb):
        for cell in nb.cells:
            if cell.source.startswith("check."):
                cell.source = "print('通过')"

    hand_in(released, folder, "改了检查格", function("return logits.sum() * 0"), forge)
    fake = ("class check:\n    mlm_loss = staticmethod(lambda f: type('V', (), dict("
            "status='通过', kind='', hint='', ask='', evidence=()))())\n")
    hand_in(released, folder, "换了 check", {"mlm_loss": fake + "def mlm_loss(logits, labels):\n    return logits.sum()"})
    rows = [{"start": "mlm_loss"}, {"name": "mlm_loss", "status": "通过"}]
    forged = repr("".join(json.dumps(r) + "\n" for r in rows).encode())
    pipe = f"import os\nfor fd in range(3, 50):\n    try:\n        os.write(fd, {forged}"
    hand_in(released, folder, "伪造结果", {"mlm_loss": pipe + ")\n    except OSError:\n        pass\n" + (
        "def mlm_loss(logits, labels):\n    return logits.sum()")})
    precious = folder / "别人的东西.txt"
    precious.write_text("不该读到，不该删掉", encoding="utf-8")
    answers = str(ROOT / "notebooks" / "src" / f"{BOOK}.py")
    nosy = (f"import os\nfor act in (lambda: open({answers!r}).read(), lambda: open({str(precious)!r}).read(), "
            f"lambda: os.remove({str(precious)!r}), "
            f"lambda: os.listdir({str(folder)!r}), lambda: open({str(precious)!r}, 'w')):\n"
            "    try:\n        act()\n    except PermissionError:\n        continue\n    return logits.sum()\n" + RIGHT)
    hand_in(released, folder, "翻别人的东西", function(nosy))

    def helper(nb):
        nb.cells.insert(3, nbformat.v4.new_code_cell(
            "def my_helper(x):\n    return torch.nn.functional.cross_entropy(*x)\n\nclass Bomb:\n    1 / 0"))

    hand_in(released, folder, "用了自己的函数", function("return my_helper((logits.flatten(0, 1), labels.flatten()))"), helper)
    online = ("import socket\ntry:\n    socket.create_connection(('127.0.0.1', PORT), timeout=3)\n"
              "except OSError:\n" + "\n".join("    " + x for x in RIGHT.splitlines()) + "\nreturn logits.sum()")
    server = __import__("socket").create_server(("127.0.0.1", 0))
    hand_in(released, folder, "上网", function(online.replace("PORT", str(server.getsockname()[1]))))
    (folder / "坏文件").mkdir()
    (folder / "坏文件" / f"{NAME}.ipynb").write_text("{不是 JSON")
    (folder / "深坑").mkdir()
    (folder / "深坑" / f"{NAME}.ipynb").write_text("[" * 200_000)
    (folder / "无名").mkdir()
    (folder / "无名" / "作业.ipynb").write_text(json.dumps({"cells": [], "metadata": {}}))
    said = []
    rows, broken = grade_folder(folder, Limits(seconds=10.0, memory_mb=1500), COURSE, said.append)
    server.close()
    assert len(said) == len(BAD) + 8
    assert precious.exists() or not landlock.version(), "作业删掉了别人的文件"
    return {(r.student, r.name): r for r in rows}, broken


def test_right_answers_get_full_marks_and_stubs_are_open(graded):
    rows, _ = graded
    assert [rows["全对", name].status for name in ITEMS] == [PASS] * len(ITEMS), [str(rows["全对", n]) for n in ITEMS]
    assert [rows["没做", name].status for name in ITEMS] == [OPEN] * len(ITEMS)


@pytest.mark.parametrize("student", BAD)
def test_a_bad_submission_costs_only_itself(graded, student):
    rows, _ = graded
    kind = BAD[student][1]
    mine = rows[student, "mlm_loss"]
    assert mine.status == (WRONG if kind else PASS) and (not kind or mine.kind in kind.split()), mine
    assert rows[student, "half_words"].status == rows[student, "leak"].status == PASS      # 它自己的别的题照样有分
    assert rows[student, "padded_clm_loss"].status == OPEN


def test_forged_check_cells_and_network_do_not_help(graded):
    rows, _ = graded
    assert rows["改了检查格", "mlm_loss"].status == WRONG
    assert rows["换了 check", "mlm_loss"].status == rows["伪造结果", "mlm_loss"].status == WRONG
    if landlock.version():
        assert rows["翻别人的东西", "mlm_loss"].status == PASS, "作业读得到、删得掉别人的文件"
    assert rows["上网", "mlm_loss"].status == PASS, "批改时竟然连得上网"
    assert rows["用了自己的函数", "mlm_loss"].status == PASS


def test_unreadable_files_are_listed(graded):
    _, broken = graded
    problems = {student: problem for student, _, problem in broken}
    assert "不是完好的 notebook" in problems["坏文件"] and "不是完好的 notebook" in problems["深坑"]
    assert "认不出" in problems["无名"] and len(problems) == 3


def test_socket_guard_refuses_where_there_is_no_unshare():
    code = ("import sys, socket; sys.path.insert(0, sys.argv[1]); from tools.classroom.sandbox import guard_sockets; guard_sockets()\n"
            "for f in (lambda: socket.create_connection(('127.0.0.1', 9)), lambda: socket.getaddrinfo('a.example', 1),\n"
            "          lambda: socket.socket().connect(('127.0.0.1', 9))):\n"
            "    try:\n        f()\n    except OSError as e:\n        assert '没有网络' in str(e)\n"
            "    else:\n        raise SystemExit('连上了')")
    assert subprocess.run([sys.executable, "-c", code, str(ROOT)]).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="unshare 只在 Linux 上有")
def test_isolation_prefix_really_cuts_the_network():
    if not isolation():
        pytest.skip("这台机器上 unshare 不可用")
    listing = subprocess.run([*isolation(), "cat", "/proc/net/dev"], capture_output=True, text=True).stdout
    assert [x.split(":")[0].strip() for x in listing.splitlines()[2:]] == ["lo"]


# ---------------------------------------------------------------- 找文件与表


def test_students_are_named_by_folder_or_file(tmp_path):
    for name in (f"张三/{NAME}.ipynb", "李四/deep/别的.ipynb", f"{NAME}_王五.ipynb", ".x/a.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert sorted(student for student, _ in find_files(tmp_path, [BOOK])) == ["张三", "李四", "王五"]


EVIL = Row("=HYPERLINK(1)<script>", BOOK, 1, "mlm_loss", "<b>标题", 2, WRONG, "<i>错", "@提示", (("<u>", "<script>x</script>"),))


def test_tables_are_safe_and_complete():
    rows = [EVIL, Row("乙", BOOK, 1, "mlm_loss", "<b>标题", 2, PASS), Row("丙", BOOK, 1, "mlm_loss", "<b>标题", 2, WRONG, "<i>错", "x")]
    table = list(csv.reader(io.StringIO(to_csv(rows, [("丁", "a.ipynb", "坏了")]).decode("utf-8-sig"))))
    assert table[1][0].startswith("'=") and table[1][9] == "'@提示" and [r[6] for r in table[1:4]] == ["0", "2", "0"]
    assert table[4][0] == "丁" and "坏了" in table[4]
    page = to_html(rows, [("丁", "a.ipynb", "<坏了>")])
    assert "<script>" not in page and "<b>标题" not in page and "<i>错" not in page and "<坏了>" not in page
    assert "2 人" in page and "2/2" in page and "http" not in page


def test_command_line(tmp_path):
    environment = dict(os.environ, PYTHONUTF8="1")
    call = [sys.executable, "-m", "tools.classroom"]
    missing = subprocess.run([*call, "grade", str(tmp_path / "没有")], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert missing.returncode == 2 and "没有" in missing.stderr and "Traceback" not in missing.stderr
    empty = subprocess.run([*call, "grade", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert empty.returncode == 2 and "没有 .ipynb" in empty.stderr


# ---------------------------------------------------------------- 投影片


def test_slides_are_one_offline_file_without_answers(tmp_path):
    source = next(p for p in source_files(ROOT / "notebooks") if p.stem == BOOK)
    page = write_slides(source, tmp_path).read_text(encoding="utf-8")
    body = page[page.index("<body hidden>"):page.index("<script>")]
    assert not re.search(r"(?:src|href)\s*=(?!\s*[\"']?data:)", body) and "url(" not in body
    assert not re.search(r"url\((?!data:)|@import", page[page.index("<style>"):page.index("<body hidden>")])
    assert "参考答案" not in body and body.count('class="ask"') == len(ITEMS) and "check.mlm_loss" not in body
    assert "<math" in body and "$" not in re.sub(r"<pre.*?</pre>|<code.*?</code>", "", body, flags=re.S)
    for item in ITEMS.values():
        last = item.answer.strip().splitlines()[-1].strip()
        assert len(last) < 12 or last not in body


def test_slides_escape_html_and_keep_formulas():
    html = render("一行\n两行 <script>x</script> $a_b$ 和 `$PATH`\n\n$$\\frac{1}{2}$$\n\n| 甲 | 乙 |\n|---|---|\n| 1 | 2 |")
    assert "一行两行" in html and "<script>" not in html and "&lt;script&gt;" in html and "$PATH" in html
    assert html.count("<math") == 2 and "<mfrac>" in html and "<table>" in html
    assert "见 06 的第 2 节" in render("见 [06](b.ipynb) 的第 2 节") and "<a" not in render("[甲](b.html)")


def test_long_text_is_cut_to_its_gist():
    long = "第一句。" + "很长的第二句，" * 30 + "。\n\n- 要点\n\n$$x$$\n\n" + "下一段的头一句。还有一句。"
    assert gist("短的。两句。") == "短的。两句。"
    assert gist(long) == "第一句。\n\n- 要点\n\n$$x$$\n\n下一段的头一句。"


def test_slides_and_release_use_the_built_notebook_with_its_colab_cell(tmp_path):
    """notebooks/ 里的 .ipynb 比源多一格 Colab 的引导：不能因此认成「与源不一致」，丢了全部的输出和图。"""
    place = tmp_path / "notebooks" / "src"
    place.mkdir(parents=True)
    origin = next(p for p in source_files(ROOT / "notebooks") if p.stem == BOOK)
    source = place / origin.name
    source.write_bytes(origin.read_bytes())
    shutil.copy(ROOT / "notebooks" / "road.toml", place.parent)
    nb = nbformat.v4.new_notebook(cells=read_cells(source))
    shown = next(c for c in nb.cells if c.cell_type == "code" and "start(" not in c.source and not c.metadata.get("tags"))
    shown.outputs = [nbformat.v4.new_output("stream", text="这是运行出来的")]
    nbformat.write(bootstrap.insert(nb, source.stem), place.parent / f"{NAME}.ipynb")
    assert has_outputs(source) and "这是运行出来的" in make_slides(source)
    release(tmp_path / "发布", tmp_path / "notebooks", whole=False)
    student = nbformat.read(tmp_path / "发布" / "student" / "notebooks" / f"{NAME}.ipynb", 4)
    assert any("这是运行出来的" in str(c.get("outputs")) for c in student.cells)
    assert sum(map(bootstrap.is_bootstrap, student.cells)) == 1
    source.write_text(source.read_text(encoding="utf-8").replace("\n# %%", "\n# 改过\n\n# %%", 1), encoding="utf-8")
    assert not has_outputs(source) and "这是运行出来的" not in make_slides(source)


def test_long_code_is_cut_outside_the_coloured_part_and_chinese_in_formulas_has_a_font(tmp_path):
    page = _slide(Slide(code="\n".join(f"x{i} = {i}" for i in range(40))), "")
    assert "border" not in page and "……（共 40 行）</code>" in page
    assert re.search(r"\.reveal math\{[^}]*CourseSansSC", STYLE)
