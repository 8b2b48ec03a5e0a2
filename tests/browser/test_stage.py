"""真的浏览器、断网，不经过 Jupyter：没有中文字体的机器上不出方框；步进图和两个小操场里怪文字只当文字；重画够快。"""

import base64
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import lab  # noqa: E402
import stage  # noqa: E402
from test_attention import SENTENCE, tiny_bert  # noqa: E402
from test_bertviz_views import PAIR, TEXT  # noqa: E402
from test_widgets import COMMON, HOSTILE, uniform  # noqa: E402

from utils.analysis.reading import HeadVectors  # noqa: E402
from utils.display.plotting import figure_png, use_chinese_font  # noqa: E402
from utils.display.web_fonts import font_face, font_style  # noqa: E402
from utils.tokenization.tokenizer import GRANULARITIES, build_tokenizer  # noqa: E402
from utils.views.bertviz.views import bertviz_html  # noqa: E402
from utils.views.figures.tokens import tokens_html  # noqa: E402
from utils.views.widgets.attention import AttentionWidget  # noqa: E402
from utils.views.widgets.stepper import AttentionStepper  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")
NEW = "今天是个好日子鑫淼"


browser, scene = stage.pages(1200, 1500, chinese=False)                  # 没有中文字体的机器


def vectors(tokens, dim: int = 12, causal: bool = False) -> HeadVectors:
    torch.manual_seed(0)
    T = len(tokens)
    mask = torch.ones(T, T, dtype=torch.bool)
    return HeadVectors(list(tokens), *torch.randn(3, T, dim), mask.tril() if causal else mask)


# ---------------------------------------------------------------- 字体


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_attention_widget_shows_no_boxes_even_after_a_new_sentence(scene, tmp_path, dark):
    tokenizer = build_tokenizer("char", [SENTENCE + NEW])
    widget = AttentionWidget(tiny_bert(), tokenizer, SENTENCE, layer=1, compare=tiny_bert(), names=("随机", "练过的"))
    root = scene.show(widget, tmp_path, dark)
    assert scene.boxes() == []
    box = root.locator("input").first
    box.fill(NEW)                                                            # 先打字，字体随新的结果才来
    scene.page.wait_for_timeout(50)
    box.press("Enter")
    root.locator(".hz-query").filter(has_text="鑫").first.wait_for()
    assert scene.boxes() == []
    root.locator('[data-view="matrix"]').click()
    root.get_by_role("button", name="显示数值表").click()
    assert scene.boxes() == []
    box.fill("")
    box.press("Enter")
    root.locator(".hz-error").filter(has_text="空").wait_for()
    assert scene.boxes() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_character_outside_the_table_is_named_above_the_picture(scene, tmp_path, dark):
    tokenizer = build_tokenizer("char", [SENTENCE])
    root = scene.show(AttentionWidget(tiny_bert(), tokenizer, SENTENCE, layer=1), tmp_path, dark)
    note, box = root.locator(".hz-note"), root.locator("input").first
    assert note.text_content() == "" and not note.is_visible()
    box.fill("今天<b>鲁\u202e")                                               # 写完不用按什么，停手就说
    note.filter(has_text="「鲁」").wait_for()
    assert note.text_content() == "词表里没有「<」「b」「>」「鲁」「U+202E」：模型把它们都看成 [UNK]，认不出是哪个字。"
    assert root.locator("b").count() == 0 and "[UNK]鲁" in root.locator(".hz-query").all_text_contents()
    assert root.locator(".hz-error").text_content() == "" and scene.boxes() == []
    box.fill("")
    root.locator(".hz-error").filter(has_text="空").wait_for()
    assert "「鲁」" in note.text_content()                                      # 出错时画着的还是原来那句，两样都看得见
    box.fill(SENTENCE)
    note.filter(has_not_text="「鲁」").wait_for(state="attached")
    assert note.text_content() == "" and not note.is_visible()


@pytest.mark.parametrize("step", range(5))
def test_the_stepper_shows_no_boxes(scene, tmp_path, step):
    scene.show(AttentionStepper(vectors(SENTENCE, causal=True), token=3, step=step), tmp_path)
    scene.page.locator("summary").click()
    assert scene.boxes() == []


def test_without_the_course_font_the_check_finds_boxes(scene, tmp_path):
    widget = AttentionStepper(vectors(SENTENCE), token=3)
    widget.font = ""
    scene.show(widget, tmp_path)
    assert any(text.startswith("词元：") for text in scene.boxes()) and any(text.startswith("今：") for text in scene.boxes())


@pytest.mark.parametrize("view", ["head", "model", "neuron"])
def test_bertviz_shows_no_boxes(scene, tmp_path, view):
    tokenizer = build_tokenizer("char", [TEXT + PAIR])
    scene.open(bertviz_html(tiny_bert(), tokenizer, TEXT, PAIR, view, max_tokens=12), tmp_path)
    scene.page.locator("svg").first.wait_for()
    if view == "model":
        scene.page.locator("svg > g").first.locator("rect").last.click()
    assert scene.boxes() == []


def test_html_output_shows_no_boxes(scene, tmp_path):
    page = tokens_html({"char": build_tokenizer("char", [TEXT])}, TEXT)
    scene.open(f'<meta charset="utf-8">{font_style(page)}<div class="course-font">{page}</div>', tmp_path)
    scene.page.wait_for_timeout(500)
    assert scene.boxes() == []


@pytest.mark.parametrize("kind", ["PNG", "SVG"])
def test_saved_pictures_carry_the_font(scene, browser, tmp_path, kind):
    """权重一样、字不一样：存下的图应当不一样；都是方框的话就一样了。"""
    saved = []
    for tokens in ("天地玄黄", "宇宙洪荒"):
        found = uniform(4, 1, 1)
        root = scene.show(AttentionWidget(attentions=type(found)(list(tokens), found.weights)), tmp_path)
        with scene.page.expect_download() as download:
            root.locator(f'[data-export="{kind}"]').click()
        saved.append(tmp_path / f"{tokens}.{kind.lower()}")
        download.value.save_as(saved[-1])
    if kind == "PNG":
        assert saved[0].read_bytes() != saved[1].read_bytes()
        return
    shots = []
    for path in saved:                                                       # 离开这个页面，单独打开
        context = browser.new_context()
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_timeout(500)
        shots.append(page.screenshot())
        context.close()
    assert shots[0] != shots[1]


# ---------------------------------------------------------------- 怪文字


def test_hostile_tokens_in_the_stepper_are_text(scene, tmp_path):
    nasty = [*HOSTILE, "</style><img src=x onerror=alert(1)>", "好"]
    root = scene.show(AttentionStepper(vectors(nasty), token=0, step=4), tmp_path)
    for n in range(len(nasty)):
        scene.page.evaluate("n => stageModel.set('token', n)", n)
        assert root.locator("script, img, iframe, b:not(.hz-tab b)").count() == 0
    drawn = root.locator(".hz-token").all_text_contents()
    assert {"<script>", "</scrip…", "</style…", "{}", "$x$", "U+202E", "U+0000"} <= set(drawn)       # 长的截短
    options = root.locator("option").all_text_contents()
    assert options[1] == "1 </script>" and options[-2].endswith("</style><img␣src=x␣onerror=alert(1)>") and len(options) == len(nasty)
    assert "\u202e" not in root.inner_text() and "\0" not in root.inner_text()


def test_hostile_text_in_the_token_page_is_text(scene, tmp_path):
    text = "".join(HOSTILE) + "<img src=x onerror=alert(1)></div></style><script>alert(2)</script>好"
    page = tokens_html({"char": build_tokenizer("char", [text])}, text)
    scene.open(f'<meta charset="utf-8"><div id="a" class="course-font">{page}</div><p id="b">完</p>', tmp_path)
    assert scene.page.locator("#a img, #a script, #a iframe").count() == 0 and scene.page.locator("body > #b").count() == 1
    assert "".join(scene.page.locator(".course-tok").evaluate_all("all => all.map(x => x.textContent)")).count("<") >= 6


# ---------------------------------------------------------------- 快慢

PLAY = """([pages, fonts]) => {
  const box = document.getElementById('play'), times = [];
  for (const [n, page] of pages.entries()) {               // ipywidgets 的 HTML 就是这样换内容的；字体随后换
    const begun = performance.now();
    box.innerHTML = page;
    document.fonts.add(new FontFace('CourseSansSC', Uint8Array.from(atob(fonts[n]), (c) => c.charCodeAt(0))));
    box.getBoundingClientRect();
    times.push(performance.now() - begun);
  }
  return times;
}"""

SHOW = """async (pictures) => {
  const image = document.getElementById('picture'), times = [];
  for (const data of pictures) {
    const begun = performance.now();
    image.src = URL.createObjectURL(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], { type: 'image/png' }));
    await image.decode();
    image.getBoundingClientRect();
    times.push(performance.now() - begun);
    if (!image.naturalWidth) throw new Error('没有画出来');
  }
  return times;
}"""


def test_both_playgrounds_redraw_within_100_ms(scene, tmp_path):
    """tokenization：最长的 200 个字，八种粒度；mlm_pretraining：一张图。从网页收到新内容，到排好版，在 100 毫秒之内。"""
    text = (COMMON * 4)[:200]
    tokenizers = {name: build_tokenizer(name, [text]) for name in GRANULARITIES}
    pages = [tokens_html(tokenizers, text[n:] + text[:n]) for n in range(5)]
    fonts = [re.search(r"base64,([^)]*)", font_face(text[n:n + 60]))[1] for n in range(5)]
    use_chinese_font()
    pictures = []
    for n in range(5):
        figure, ax = plt.subplots(figsize=(8, 3))
        ax.barh(list(text[n:n + 8]), range(1, 9))
        pictures.append(base64.b64encode(figure_png(figure)).decode())
    scene.open('<meta charset="utf-8"><div id="play" class="course-font"></div><img id="picture">', tmp_path)
    stage.within_100_ms(scene.page, "02 的操场重画", lambda: scene.page.evaluate(PLAY, [pages, fonts]))
    assert scene.page.locator("#play .course-tok").count() > 1200
    stage.within_100_ms(scene.page, "06 的操场重画", lambda: scene.page.evaluate(SHOW, pictures))


REDRAW = """(steps) => steps.map(([name, value]) => {
  const old = document.querySelector('.hz-picture').firstChild, begun = performance.now();
  stageModel.set(name, value);
  document.querySelector('.hz-picture').getBoundingClientRect();
  if (document.querySelector('.hz-picture').firstChild === old) throw new Error('没有重画，量到的时间不算数');
  return performance.now() - begun;
})"""


def test_the_stepper_redraws_64_tokens_of_64_dimensions_within_100_ms(scene, tmp_path):
    scene.show(AttentionStepper(vectors(COMMON, 64, causal=True), token=60, step=4), tmp_path)
    steps = [["token", 7 * n % 60] for n in range(1, 12)] + [["step", n] for n in (0, 2, 4, 1, 3)]
    stage.within_100_ms(scene.page, "步进图重画", lambda: scene.page.evaluate(REDRAW, steps))
    assert scene.page.locator(".hz-picture *").count() < 1500
