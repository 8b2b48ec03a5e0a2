"""真的浏览器、断网：每一本 notebook 用新的内核全部运行，不报错、不联网，图和小部件都真的画出来，拨一下控件，图就变。

notebooks/ 里的每一本都在内，新添的自己会加进来。按路的次序依次运行，内核共用一个产物文件夹，后面的会用到前面练出来的模型，
所以这里跑过的，test_notebooks.py 不在内核里再跑一遍（见 sharing.py）。不想跑：-m 'not browser_notebooks'。
"""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import chain  # noqa: E402
import lab  # noqa: E402
import sharing  # noqa: E402

from utils.road import road  # noqa: E402

NOTEBOOKS = [path for stop in road() if (path := lab.ROOT / "notebooks" / f"{stop.name}.ipynb").exists()]
IN_NOTEBOOK7 = [book for book in NOTEBOOKS if sharing.topic_of(book) in ("start", "self_attention")]   # 有小部件、跑得快的两本
CASES = [*(("lab", book) for book in NOTEBOOKS), *(("notebook", book) for book in IN_NOTEBOOK7)]
WHOLE = {"notebook-extension/tracker": {"windowingMode": "none"}}              # 屏幕外的单元格也留在页面里，才数得全
pytestmark = [pytest.mark.browser_notebooks,
              pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")]

# 每一个输出：模型里有什么，页面上画了什么
SURVEY = """() => {
  const found = [], book = window.jupyterapp.shell.currentWidget.content;
  const kindOf = (data) => 'application/vnd.jupyter.widget-view+json' in data ? 'widget'
    : String(data['text/html'] ?? '').includes('<iframe') ? 'frame' : 'image/png' in data ? 'png' : null;
  const least = (image) => Math.min(image.naturalWidth, image.clientWidth, image.clientHeight);
  book.widgets.forEach((cell, i) => {
    if (cell.model.type !== 'code') return;
    const outputs = cell.model.toJSON().outputs, parts = cell.outputArea.layout.widgets;
    outputs.forEach((output, j) => {
      const kind = kindOf(output.data ?? {}), node = parts[j]?.node;
      if (!kind) return;
      const all = (what) => (node ? Array.from(node.querySelectorAll(what)) : []), box = node?.getBoundingClientRect();
      found.push({ where: `[${i}] 第 ${j} 个输出`, cell: i, output: j, kind, text: node?.textContent ?? '',
        shown: Boolean(box?.width && box?.height), graphics: all('svg, canvas, img').length, sizes: all('img').map(least),
        controls: all('input, select, textarea, button').length, anywidget: all('.hz').length,
        views: all('.jupyter-widgets, .hz').length, frames: all('iframe').length,
        panels: all('.hz-panel, .hz-stepper').length, pictures: all('.hz-picture svg').length,
        heads: all('.hz-thumb').length, canvases: all('.hz-thumb canvas').length });
    });
  });
  return found;
}"""
NODE = "([i, j]) => window.jupyterapp.shell.currentWidget.content.widgets[i].outputArea.layout.widgets[j].node"
PICTURES = ".hz-picture, .hz-article, .widget-html-content"
LOOKS = """(node, pictures) => [...Array.from(node.querySelectorAll('canvas'), (canvas) => canvas.toDataURL()),
  ...Array.from(node.querySelectorAll('img'), (image) => image.src),
  ...Array.from(node.querySelectorAll(pictures), (part) => part.innerHTML)].join()"""


@pytest.fixture(scope="module")
def open_app():
    """按需启动 JupyterLab 或 Notebook 7，各启动一次，一次只留一个。"""
    running = {}

    def close():
        for context in running.values():
            context.__exit__(None, None, None)
        running.clear()

    def start(app: str):
        if app not in running:
            close()
            context = lab.lab(NOTEBOOKS, app=app, settings=WHOLE, COURSE_PRESET="smoke", OMP_NUM_THREADS="1")
            start.opened = context.__enter__()
            running[app] = context
        return start.opened

    yield start
    close()


def settled(opened) -> list[dict]:
    """等小部件和图片都画好（最多 60 秒），给出每个输出的情况。"""
    for _ in range(120):
        survey = opened.page.evaluate(SURVEY)
        if not any(problems(one) for one in survey):
            break
        opened.page.wait_for_timeout(500)
    return survey


def problems(one: dict) -> list[str]:
    """一个输出没画好的地方。"""
    if not one["shown"]:
        return ["没有显示出来"]
    if one["kind"] == "png":
        return [] if one["sizes"] and min(one["sizes"]) > 0 else ["图片没有大小"]
    if one["kind"] == "frame":
        return [] if one["frames"] else ["没有 iframe"]
    wrong = [text for text in ("Loading widget", "Error displaying widget", "Error creating widget") if text in one["text"]]
    if not one["views"]:
        wrong.append("小部件没有画出来")
    elif one["anywidget"] and not one["controls"]:
        wrong.append("课程的小部件里没有控件")
    if one["pictures"] != one["panels"] or one["canvases"] != one["heads"]:
        wrong.append("每一栏应当有一张 SVG，每个头应当有一张画布")
    return wrong + ([] if one["graphics"] or one["controls"] or one["text"].strip() else ["小部件里什么也没有"])


def move_a_control(node) -> bool:
    """拨一下输出里的控件（下拉框、文本框或主要的按钮），看图变没变；没有控件就返回 True。"""
    before = node.evaluate(LOOKS, PICTURES)
    if node.query_selector(".hz select:has(option:nth-child(2))"):
        box = node.query_selector(".hz select:has(option:nth-child(2))")
        box.select_option(index=1 if box.evaluate("box => box.selectedIndex") == 0 else 0)
    elif node.query_selector(".hz button.hz-primary, button.mod-primary"):
        node.query_selector(".hz button.hz-primary, button.mod-primary").click()
    elif node.query_selector("input[type=text]"):
        box = node.query_selector("input[type=text]")
        box.fill("明天是个[MASK]日子。")
        box.press("Enter")
    else:
        return True
    for _ in range(600):
        if node.evaluate(LOOKS, PICTURES) != before:
            return True
        time.sleep(0.1)
    return False


def move_in_a_frame(inside) -> bool:
    """拨一下 bertviz 框里的下拉框（没有就点最后一格），看图变没变。"""
    look = "() => Array.from(document.querySelectorAll('svg'), (picture) => picture.outerHTML).join()"
    inside.wait_for_selector("svg line", state="attached", timeout=60_000)
    before, box = inside.evaluate(look), inside.query_selector("select:has(option:nth-child(2))")
    if box:
        box.select_option(index=1)
    else:
        inside.query_selector_all("svg > g rect")[-1].click()
    for _ in range(100):
        if inside.evaluate(look) != before:
            return True
        time.sleep(0.1)
    return False


# 每本里至少有几个能动的：小部件、bertviz 的框；少了就是没画出来
LIVELY = {"start": (1, 0), "tokenization": (1, 0), "self_attention": (2, 0), "mlm_pretraining": (1, 0), "attention_visualization": (2, 3),
          "generation": (1, 0)}


@pytest.mark.parametrize("app, notebook", CASES, ids=[f"{app}-{book.stem}" for app, book in CASES])
def test_run_all_draws_everything_without_the_network(open_app, app, notebook, request):
    if reason := lab.why_not(app):
        pytest.skip(f"跳过浏览器测试：{reason}")
    began, opened = time.monotonic(), open_app(app)
    opened.errors.clear()
    opened.external.clear()
    opened.open(notebook.name)
    if app == "notebook":                      # Notebook 7 打开时会报一个自己的错（读设置的 schema），与课程无关
        opened.page.wait_for_timeout(3000)
        opened.errors.clear()
    opened.run_all()
    try:
        assert opened.cell_errors() == []
        links = chain.broken_links(sharing.topic_of(notebook), chain.came_before(request.node), opened.said(), opened.outputs / "smoke")
        assert links == []
        print(f"{app} {notebook.stem}：全部运行 {time.monotonic() - began:.0f} 秒")
        survey = settled(opened)
        assert [f"{one['where']}：{wrong}" for one in survey for wrong in problems(one)] == []
        frames = opened.page.query_selector_all("iframe[srcdoc]")
        still = [f"第 {n} 个框" for n, handle in enumerate(frames) if not move_in_a_frame(handle.content_frame())]
        widgets = [one for one in survey if one["kind"] == "widget"]
        least = LIVELY.get(sharing.topic_of(notebook), (0, 0))
        assert len([one for one in widgets if one["controls"]]) >= least[0] and len(frames) >= least[1]
        for one in widgets:
            node = opened.page.evaluate_handle(NODE, [one["cell"], one["output"]]).as_element()
            node.scroll_into_view_if_needed()
            if not move_a_control(node):
                still.append(one["where"])
        assert still == [], f"拨了控件，图没有变：{still}"
        kinds = {kind: sum(one["kind"] == kind for one in survey) for kind in ("png", "widget", "frame")}
        print(f"{app} {notebook.stem}：连同检查 {time.monotonic() - began:.0f} 秒，{kinds}")
        assert opened.errors == [] and opened.external == []
    finally:
        opened.shut_down()


def test_every_notebook_is_covered():
    written = {stop.name for stop in road() if (lab.ROOT / "notebooks" / "src" / f"{stop.topic}.py").exists()}
    covered = {book.stem for app, book in CASES if app == "lab"}
    assert covered == written & {book.stem for book in NOTEBOOKS} and len(covered) >= 8
    assert len(IN_NOTEBOOK7) == 2
