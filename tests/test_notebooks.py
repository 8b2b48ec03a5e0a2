"""notebook：每一本都能从头运行（smoke），.ipynb 与 .py 一致；运行、清理、检查的工具本身也要可靠。"""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chain
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_source import stop_text
from PIL import Image

from tools.notebooks import cleaning
from tools.notebooks import colab as bootstrap
from tools.notebooks import lint as checks
from tools.notebooks import manage as notebooks
from tools.notebooks.execution import Failure, Result, execute
from tools.notebooks.fingerprint import fingerprint
from tools.notebooks.links import read_cells
from utils.road import stop_of

ROOT = Path(__file__).resolve().parents[1]
SOURCES = checks.source_files(ROOT / "notebooks")
START = 'import sys; sys.path.insert(0, "..")\nfrom utils.environment import start\nlesson = start("{name}")'

# ---------------------------------------------------------------- 课程的 notebook


def test_built_notebooks_match_their_sources():
    """快：每本 .ipynb 与 .py 一致、输出干净、大小合适，RESULTS.md 是最新的。"""
    assert SOURCES, "notebooks/src 里一本也没有"
    problems = checks.check(ROOT / "notebooks")
    assert not problems, "\n".join(problems)


@pytest.mark.notebooks
@pytest.mark.parametrize("notebook", SOURCES, ids=lambda p: p.stem)
def test_notebook_runs(notebook, request):
    """按路的次序依次运行；共用一个产物文件夹，所以后面的会用到前面练出来的模型。有浏览器时由 browser/test_run_all.py 代替。"""
    preset = os.environ["COURSE_PRESET"]
    result = execute(notebook, preset, bar=False)
    print(f"{notebook.stem}：{result.seconds:.1f} 秒，峰值 {result.peak_mb:.0f} MB")
    assert result.ok, f"{result.failure}\n{traceback_of(result.notebook)}"
    said = chain.printed(result.notebook)
    assert chain.broken_links(notebook.stem, chain.came_before(request.node), said, Path(os.environ["COURSE_OUTPUTS"]) / preset) == []


INTERACTIVE = re.compile(r"\b(show_attention|show_stepper|AttentionWidget|AttentionStepper|token_playground|figure_playground|Studio)\(")


def pictures(one) -> int:
    """一格的输出里有几张真的画了东西的 PNG。"""
    found = [output.data["image/png"] for output in one.outputs if "image/png" in output.get("data", {})]
    images = [Image.open(io.BytesIO(base64.b64decode(data))).convert("L") for data in found]
    return sum(image.width > 200 and image.height > 80 and len(image.getcolors()) > 10 for image in images)


def test_every_interactive_picture_has_a_static_one_beside_it():
    """没有内核、没有信任的页面上也有图：每个能动的小部件，同一格或紧挨着的一格代码里有静态图；小部件自己不写进成品。"""
    bare, seen = [], {}
    for source in SOURCES:
        codes = [c for c in nbformat.read(ROOT / "notebooks" / f"{stop_of(source).name}.ipynb", 4).cells if c.cell_type == "code"]
        for n, one in enumerate(codes):
            if not INTERACTIVE.search(one.source):
                continue
            seen[source.stem] = seen.get(source.stem, 0) + 1
            if not sum(map(pictures, codes[max(n - 1, 0):n + 2])):
                bare.append(f"{source.stem} 第 {n} 格代码")
    assert bare == []
    least = {"start": 1, "tokenization": 1, "self_attention": 2, "mlm_pretraining": 1, "attention_visualization": 7, "generation": 1}
    assert least.items() <= seen.items()


def traceback_of(nb) -> str:
    """出错的那一格的报错全文，去掉颜色。"""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
    return ""


# ---------------------------------------------------------------- 小 notebook


def cell(kind: str, text: str) -> str:
    if kind == "code":
        return f"# %%\n{text}\n"
    return "# %% [markdown]\n" + "\n".join(f"# {line}" for line in text.splitlines()) + "\n"


def write(folder: Path, topic: str, *codes: str) -> Path:
    """写一个小小的源文件，在路上添一站：起始单元（不真的导入 utils）之后是 codes，之间夹着文字。"""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "road.toml", "a", encoding="utf-8") as file:
        file.write(stop_text(topic))
    parts = [cell("markdown", f"# {topic}"), cell("code", START.format(name=topic)) if not codes else ""]
    for code in codes:
        parts += [cell("code", code), cell("markdown", "说明")]
    path = folder / "src" / f"{topic}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path / "产物"))
    return tmp_path / "产物"


def test_run_continues_after_a_failure_and_names_the_cell(tmp_path, outputs, capsys):
    write(tmp_path, "bad", "import time; x = bytearray(200_000_000); time.sleep(1)",
          "# 注释\nx = [1, 2]\nx[5]")
    write(tmp_path, "good", "import os\nprint(os.environ['COURSE_PRESET'], os.path.basename(os.getcwd()))")
    assert notebooks.run([], "smoke", tmp_path) == 1
    text = capsys.readouterr().out
    assert "第 4 格「x = [1, 2]」：IndexError: list index out of range" in text and "1/2 通过" in text
    peak = float(re.search(r"00_bad\s+[\d.]+\s+(\d+)", text)[1])
    assert 200 < peak < 700                                   # 分配的 200 MB 算在里面
    saved = nbformat.read(outputs / "run" / "01_good.ipynb", 4)
    assert saved.cells[1].outputs[0].text == f"smoke {tmp_path.name}\n"
    assert notebooks.run(["1"], "smoke", tmp_path) == 0


def test_timeout_and_dead_kernel_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CELL_TIMEOUT", "2")
    slow = execute(write(tmp_path, "slow", "import time; time.sleep(600)"), bar=False)
    assert slow.failure.error == "超时" and slow.seconds < 200
    dead = execute(write(tmp_path, "dead", "import os; os._exit(9)"), bar=False)
    assert dead.failure.error == "内核退出" and dead.failure.cell == 2


def test_unknown_number_lists_what_there_is(tmp_path):
    write(tmp_path, "a")
    with pytest.raises(ValueError, match="没有「9」这一本 notebook。现有：00_a"):
        notebooks.choose(["9"], tmp_path)
    assert [p.stem for p in notebooks.choose(["0", "a", "00", "00_a"], tmp_path)] == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="Windows 上没法只给一个进程发 Ctrl-C")
def test_interrupt_prints_the_table_so_far(tmp_path):
    write(tmp_path, "quick", "1")
    write(tmp_path, "slow", "open('started', 'w').close()\nimport time; time.sleep(100)")
    code = ("import sys; from pathlib import Path; from tools.notebooks import manage as notebooks;"
            f"sys.exit(notebooks.run([], 'smoke', Path({str(tmp_path)!r})))")
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, env=dict(os.environ, COURSE_OUTPUTS=str(tmp_path)))
    deadline = time.time() + 180
    while not (tmp_path / "started").exists() and time.time() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    text = child.communicate(timeout=120)[0].decode("utf-8")
    assert child.returncode == 130 and "Traceback" not in text, text
    assert re.search(r"00_quick .* ok", text) and re.search(r"01_slow .* 已中断", text)


def test_table_is_aligned_despite_double_width():
    failure = Failure(3, "x", "ValueError", "坏了")
    rows = [Result("start", 1.0, 100, None, None), Result("03_名字有汉字", 100.0, 1000, failure, None)]
    lines = notebooks.table(rows).splitlines()
    ends = [notebooks.width(line[:line.index(word)]) for line, word in zip(
        [lines[0], *lines[2:]], ("结果", "ok", "第 3 格", "1/2 通过"), strict=True)]
    assert len(set(ends)) == 1, ends


# ---------------------------------------------------------------- 构建

NOISY = """
import json, os, sys
from IPython.display import HTML, display
print("甲"); print(object(), os.getcwd(), os.path.expanduser("~"), sep="|")
print("警告", file=sys.stderr); print("\\r 50%|█████     | 1/2", end="", file=sys.stderr)
display(HTML("进度"), metadata={"course": "transient"})
display({"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "W()"}, raw=True)
row = {"name": "损失", "value": 1.23456789, "unit": "奈特", "notebook": "noisy", "preset": "smoke",
       "device": "cpu", "versions": {"torch": "2.13.0"}}
with open(os.environ["COURSE_RECORDS"], "a", encoding="utf-8") as f:
    f.write(json.dumps(row, ensure_ascii=False) + "\\n")
row
"""


def test_build_writes_a_clean_deterministic_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    folder = tmp_path / "notebooks"
    write(folder, "noisy", NOISY)
    assert notebooks.build([], "smoke", folder) == 0
    first = (folder / "00_noisy.ipynb").read_bytes()
    text = capsys.readouterr().out
    assert "标准错误：警告" in text and "50%" not in text
    nb = nbformat.reads(first.decode("utf-8"), 4)
    assert [c.id for c in nb.cells] == ["noisy-001", "noisy-colab", "noisy-002", "noisy-003"]
    stream, value = nb.cells[2].outputs
    assert stream.text == "甲\n<object object>|notebooks|~\n"
    assert value.output_type == "execute_result" and value.execution_count is None
    assert nb.metadata.course.records == [
        {"name": "损失", "value": 1.23457, "unit": "奈特", "preset": "smoke", "device": "cpu"}]
    assert nb.metadata.course.fingerprint == fingerprint(folder / "src" / "noisy.py")
    assert "jupytext" not in nb.metadata and "甲".encode() in first and b"\r" not in first
    results = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "| 损失 | 1.235 | 奈特 | smoke | cpu |" in results and "torch 2.13.0" in results
    assert notebooks.build(["noisy"], "smoke", folder) == 0
    assert (folder / "00_noisy.ipynb").read_bytes() == first
    assert [p for p in checks.check(folder) if "起始单元" not in p] == []


def test_refresh_updates_the_prose_without_running(built, capsys):
    """只改文字：更新，输出留着；改了代码：不动，说要重新构建。"""
    add({"output_type": "stream", "name": "stdout", "text": "留着"})(data := json.loads((built / "00_demo.ipynb").read_text("utf-8")))
    data["cells"][2]["outputs"], data["cells"][1]["outputs"] = data["cells"][1]["outputs"], []
    (built / "00_demo.ipynb").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    source = built / "src" / "demo.py"
    source.write_text(source.read_text(encoding="utf-8").replace("# demo", "# 新的标题"), encoding="utf-8")
    assert notebooks.refresh([], built) == 0 and "00_demo：已更新" in capsys.readouterr().out
    nb = nbformat.read(built / "00_demo.ipynb", 4)
    assert nb.cells[0].source == "# 00 新的标题" and nb.cells[2].outputs[0].text == "留着" and checks.check(built) == []
    assert notebooks.refresh([], built) == 0 and "没有变" in capsys.readouterr().out
    source.write_text(source.read_text(encoding="utf-8").replace("from utils.environment", "# 只添一句注释\nfrom utils.environment"),
                      encoding="utf-8")
    assert notebooks.refresh([], built) == 0 and "已更新" in capsys.readouterr().out
    nb = nbformat.read(built / "00_demo.ipynb", 4)
    assert any("# 只添一句注释" in c.source for c in nb.cells) and nb.cells[2].outputs[0].text == "留着"
    source.write_text(source.read_text(encoding="utf-8").replace("from utils.environment", "import os\nfrom utils.environment"),
                      encoding="utf-8")
    before = (built / "00_demo.ipynb").read_bytes()
    assert notebooks.refresh(["demo"], built) == 1 and "请运行 course.py build 00" in capsys.readouterr().out
    assert (built / "00_demo.ipynb").read_bytes() == before


def test_build_refuses_errors_large_notebooks_and_nan(tmp_path, capsys):
    write(tmp_path, "bad", "1 / 0")
    write(tmp_path, "large", "print('大' * 110_000)")
    write(tmp_path, "nan", NOISY.replace("1.23456789", "float('nan')"))
    assert notebooks.build([], "smoke", tmp_path) == 1
    text = capsys.readouterr().out
    assert not list(tmp_path.glob("*.ipynb"))
    assert "ZeroDivisionError" in text and "记录的不是有限的数: 损失" in text
    assert re.search(r"太大: 33\d KB，上限 300 KB", text)
    assert checks.size_limit("attention_visualization") == 500


# ---------------------------------------------------------------- 清理


def png(colors: int) -> str:
    image = Image.new("RGB", (64, 64))
    image.putdata([(i % colors, (i * 7) % 256, 100) for i in range(64 * 64)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return base64.b64encode(buffer.getvalue()).decode()


def test_png_gets_a_palette_only_when_smaller():
    before = png(8)
    after = cleaning.shrink_png(before)
    assert len(after) < len(before) / 2
    assert Image.open(io.BytesIO(base64.b64decode(after))).mode == "P"
    assert cleaning.shrink_png(after) == after               # 已经是调色板的，不再动


def cleaned(*outputs, root=ROOT):
    source = new_notebook(cells=[new_code_cell("1", outputs=list(outputs))])
    nb, warnings = cleaning.clean(source, "x", root)
    return nb.cells[0].outputs, warnings


def test_streams_are_merged_and_overwritten_text_is_dropped():
    out, warnings = cleaned(new_output("stream", name="stdout", text="a\n"),
                            new_output("stream", name="stderr", text="\r 10%|█ | 1/9\nUserWarning: 小心\n"),
                            new_output("stream", name="stdout", text="1/2\r2/2\nb at 0x7f00aa\r\n"))
    assert [o.text for o in out] == ["a\n2/2\nb\n"] and warnings == ["标准错误：UserWarning: 小心"]


def test_paths_become_relative():
    home = str(Path.home())
    assert cleaning.tidy(f"{ROOT}/data/news {ROOT} {home}/x", ROOT) == "data/news . ~/x"
    sibling = f"{ROOT}-other/x".replace(home, "~")
    assert cleaning.tidy(f"{ROOT}-other/x", ROOT) == sibling


def test_widgets_and_progress_are_dropped_but_pictures_stay():
    widget = {cleaning.WIDGET: {"model_id": "1"}, "text/plain": "W()"}
    out, _ = cleaned(new_output("display_data", data=widget),
                     new_output("display_data", data={"text/html": "<progress value=1>"}),
                     new_output("display_data", data={**widget, "image/png": png(8)}))
    assert len(out) == 1 and cleaning.WIDGET not in out[0].data and "image/png" in out[0].data


# ---------------------------------------------------------------- 检查


@pytest.fixture
def built(tmp_path):
    """一个合乎规矩的小 notebook：源、.ipynb、RESULTS.md 都在。"""
    source = write(tmp_path, "demo")
    nb, _ = cleaning.clean(new_notebook(cells=read_cells(source)), "demo", ROOT)
    nb.metadata["course"] = {"fingerprint": fingerprint(source)}
    notebooks.save(bootstrap.insert(nb, "demo"), tmp_path / "00_demo.ipynb")
    notebooks.write_results(tmp_path)
    assert checks.check(tmp_path) == []
    return tmp_path


def change(folder: Path, edit) -> list[str]:
    """改动 .ipynb 的 JSON，再检查。"""
    path = folder / "00_demo.ipynb"
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return checks.check(folder)


def add(output: dict):
    """给代码格加一个输出。"""
    return lambda data: data["cells"][1]["outputs"].append(output)


def said(name: str, text: str):
    return add({"output_type": "stream", "name": name, "text": text})


def shown(text: str):
    return add({"output_type": "display_data", "metadata": {}, "data": {"text/html": text}})


RECORD = {"name": "a", "value": 1, "unit": "", "preset": "cpu", "device": "cpu"}


@pytest.mark.parametrize("edit, expected", [
    (lambda d: d["cells"][0].update(source=["# 改过"]), "与 .py 的源不一致"),
    (lambda d: d["cells"].reverse(), "与 .py 的源不一致"),
    (lambda d: d["cells"].pop(1), "没有引导单元"),
    (lambda d: d["cells"].append(d["cells"].pop(1)), "没有引导单元"),
    (lambda d: d["cells"][1].update(source=["git clone 旧地址"]), "没有引导单元"),
    (lambda d: d["cells"][1].update(execution_count=3), "有执行次数"),
    (add({"output_type": "error", "ename": "E", "evalue": "", "traceback": []}), "有错误输出 E"),
    (said("stderr", "x"), "有标准错误输出"),
    (said("stdout", "/home/a/b"), "输出里有本机路径"),
    (said("stdout", "C:\\Users\\a"), "输出里有本机路径"),
    (shown('<script src="https://cdn.example/d3.js"></script>'), "输出引用了外部地址"),
    (shown('<iframe srcdoc="&lt;img src=//a.example/x&gt;">'), "输出引用了外部地址"),
    (shown("<style>@import url(http://a.example/x.css)</style>"), "输出引用了外部地址"),
    (lambda d: d["metadata"].update(widgets={}), "widgets"),
    (lambda d: d["metadata"]["course"].pop("fingerprint"), "00_demo.ipynb：输出没有指纹，请运行 course.py build 00"),
    (lambda d: d["metadata"]["course"]["fingerprint"].update(code="旧的"), "输出比代码旧：它的代码 变了"),
    (lambda d: d["cells"][1].pop("outputs"), "不是合法的 notebook"),
    (lambda d: d["metadata"].update(x="大" * 150_000), "太大"),
    (lambda d: d["metadata"].update(course={"records": [RECORD], "versions": {}}), "RESULTS.md"),
])
def test_check_finds(built, edit, expected):
    problems = change(built, edit)
    assert any(expected in p for p in problems), problems


def test_check_allows_links_and_plain_addresses(built):
    link = '<a href="https://arxiv.org/abs/1706.03762">论文</a><svg xmlns="http://www.w3.org/2000/svg"/>'
    assert change(built, shown(link)) == []


def test_check_finds_missing_and_orphan_notebooks(built):
    shutil.copy(built / "00_demo.ipynb", built / "03_orphan.ipynb")
    (built / "00_demo.ipynb").unlink()
    problems = "\n".join(checks.check(built))
    assert "00_demo.ipynb：还没有构建" in problems and "03_orphan.ipynb：notebooks/src 里没有它的源" in problems


def test_lint_finds_style_faults(tmp_path):
    source = write(tmp_path, "long", "a = 1\n" * 41)
    text = source.read_text(encoding="utf-8")
    source.write_text(text + cell("code", "x = 1") + cell("code", "y = 2"), encoding="utf-8")
    problems = "\n".join(checks.check(tmp_path))
    assert "有 41 行代码，上限 40" in problems and "之间没有文字" in problems and "起始单元" in problems
    assert "最长 41 行" in checks.medians(tmp_path)


@pytest.mark.parametrize("value, text", [
    (1.23456, "1.235"), (0.000012345, "1.23e-05"), (12345.6, "12,346"), (7.0, "7"), (0.0, "0"),
    (-0.5, "-0.5"), (1234567.0, "1,234,567"), (float("inf"), "inf"), (float("nan"), "nan")])
def test_numbers_have_sensible_digits(value, text):
    assert checks.number(value) == text
