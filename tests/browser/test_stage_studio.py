"""写作台，真的浏览器、断网，不经过 Jupyter：写下的字、候选、事实的颜色都和 Python 的一样；怪字只当文字；重画够快；不出方框。

模型是假的：照着写好的一篇一个字一个字地交，所以每一样都能逐个核对。
"""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import lab  # noqa: E402
import stage  # noqa: E402
from test_studio import make  # noqa: E402
from test_widgets import COMMON, HOSTILE  # noqa: E402

from utils.corpus.facts import check_facts  # noqa: E402
from utils.corpus.news import generate  # noqa: E402
from utils.generation.writing import Candidate, Step  # noqa: E402
from utils.views.figures.fact_marks import fact_marks  # noqa: E402
from utils.views.widgets import studio as S  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")
INTRO, BODY = (generate("test", 1)[0][name] for name in ("intro", "body"))
KEPT = [BODY[mark.start:mark.end] for mark in fact_marks(BODY, check_facts(INTRO, BODY))]
OTHERS = ("甲", "乙", "丙")
CHANCES = (0.6, 0.25, 0.1, 0.05)                                             # 第一名是写下的字，其余是 OTHERS


browser, scene = stage.pages(1000, 800, chinese=False)                  # 没有中文字体的机器


@pytest.fixture(scope="module")
def made():
    return make(positions=512)


@pytest.fixture()
def written(monkeypatch):
    """让写作台照着给的正文写：written(正文)。第 n 步是正文的第 n 个字，改写之后接着写下一个字。"""

    def script(body: str, others=OTHERS):
        def stream(model, tokenizer, text, max_new_tokens, **how):
            for char in [*body[len(text.partition("\n")[2]):], S.SEP][:max_new_tokens]:
                found = tuple(Candidate(name, p, p / 2) for name, p in zip((char, *others), CHANCES, strict=False))
                yield Step(char, "body", 0.6, 0.3, found)

        monkeypatch.setattr(S, "stream", stream)

    return script


def show(scene, made, tmp_path, prefix: str = INTRO + "\n", dark: bool = False, **settings):
    root = scene.show(S.Studio(*made, prefix=prefix, length=240, **settings), tmp_path, dark)
    root.locator('[data-do="write"]').wait_for()
    return root


def write(root) -> None:
    """按「写」，等它写完。"""
    root.locator('[data-do="write"]').click()
    done(root)


def done(root) -> None:
    """等它写完或停下。"""
    root.locator(".hz-live").filter(has_text="一共").wait_for(state="attached")


def article(root) -> str:
    return "".join(root.locator(".hz-char:not(.hz-end)").all_text_contents())


def test_the_article_and_the_candidates_are_those_of_the_model(scene, made, written, tmp_path):
    written(BODY[:30])
    root = show(scene, made, tmp_path)
    write(root)
    assert article(root) == BODY[:30] and root.locator(".hz-end").all_text_contents() == ["完"]
    assert [said["do"] for said in scene.said] == ["hello", "write", *["next"] * 31]
    assert root.locator(".hz-given").all_text_contents() == [INTRO]
    root.locator('.hz-char[data-step="7"]').click()
    rows = root.locator(".hz-candidate")
    names = [BODY[7], *OTHERS]
    assert root.locator(".hz-title").inner_text() == "第 8 步的候选" and rows.locator(".hz-name").all_text_contents() == names
    assert rows.locator(".hz-fill").evaluate_all("all => all.map(x => x.style.width)") == ["60%", "25%", "10%", "5%"]
    assert rows.locator(".hz-chance").evaluate_all("all => all.map(x => x.style.left)") == ["30%", "12.5%", "5%", "2.5%"]
    assert rows.locator(".hz-numbers").all_text_contents() == ["60% 抽中 30%", "25% 抽中 13%", "10% 抽中 5.0%", "5.0% 抽中 2.5%"]
    assert [row.split("，写下的字")[0] != row for row in rows.evaluate_all("all => all.map(x => x.getAttribute('aria-label'))")] == [
        True, False, False, False]
    assert rows.evaluate_all("all => all.map(x => x.classList.contains('hz-written'))") == [True, False, False, False]
    assert root.locator(".hz-tick").all_text_contents() == ["◀ 写下", "", "", ""]
    assert root.locator(".hz-now").get_attribute("data-step") == "7"
    assert root.locator(".hz-live").text_content() == f"第 8 步「{BODY[7]}」。候选：{BODY[7]} 60%，甲 25%，乙 10%，丙 5.0%"
    assert "0.160" in root.locator('.hz-char[data-step="7"]').get_attribute("style")       # 拿不准的程度：0.4 × (1 − 0.6)


def test_a_sharper_model_leaves_a_lighter_ground(scene, made, written, tmp_path, monkeypatch):
    """底色越深，模型当时越拿不准：不是反过来。"""
    written(BODY[:6])
    root = show(scene, made, tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "CHANCES", (0.99, 0.01))
    write(root)
    sure = root.locator(".hz-char").first.evaluate("x => getComputedStyle(x).getPropertyValue('--hz-doubt')")
    monkeypatch.setattr(sys.modules[__name__], "CHANCES", (0.2, 0.1))
    write(root)
    unsure = root.locator(".hz-char").first.evaluate("x => getComputedStyle(x).getPropertyValue('--hz-doubt')")
    assert float(sure) < 0.01 < 0.3 < float(unsure)


def test_branching_sends_the_step_and_the_token_and_keeps_what_came_before(scene, made, written, tmp_path):
    written(BODY[:20])
    root = show(scene, made, tmp_path)
    write(root)
    root.locator('.hz-char[data-step="5"]').click()
    root.locator(".hz-candidate").nth(2).click()
    done(root)
    assert [(said["at"], said["token"]) for said in scene.said if said["do"] == "branch"] == [(5, "乙")]
    assert article(root) == BODY[:5] + "乙" + BODY[6:20] == scene.widget.text.partition("\n")[2]
    assert root.locator(".hz-mine").evaluate_all("all => all.map(x => x.dataset.step)") == ["5"]
    root.locator('.hz-char[data-step="5"]').click()
    assert root.locator(".hz-written").get_attribute("data-token") == "乙"     # 写下的不是第一名


def begun(scene, root, more: int = 6) -> None:
    """按「写」，等它写了几个字，还在写。"""
    root.locator('[data-do="write"]').click()
    root.locator(".hz-char").nth(more).wait_for()
    assert root.locator(".hz-article").get_attribute("aria-busy") == "true"


def test_stop_and_escape_stop_and_going_on_finishes_the_article(scene, made, written, tmp_path):
    body = BODY[:60]
    written(body)
    root = show(scene, made, tmp_path)
    for how in ("button", "Escape"):
        begun(scene, root)
        if how == "button":
            root.locator('[data-do="stop"]').click()
        else:
            root.locator(".hz-article").press("Escape")
        done(root)
        kept = article(root)
        scene.page.wait_for_timeout(200)
        assert article(root) == kept and body.startswith(kept) and len(kept) < len(body)
        assert root.locator(".hz-article").get_attribute("aria-busy") == "false" and "停下了" in root.locator(".hz-live").text_content()
        assert root.locator('[data-do="stop"]').inner_text() == "接着写"
        writes = sum(said["do"] == "write" for said in scene.said)
        root.locator('[data-do="stop"]').click()
        root.locator(".hz-end").wait_for()
        done(root)
        assert article(root) == body and sum(said["do"] == "write" for said in scene.said) == writes   # 接着写，不是重写
    report = check_facts(INTRO, body)
    assert root.locator(".hz-verdict").inner_text() == S.verdict(report) and S.verdict(report) in root.locator(".hz-live").text_content()
    assert root.locator(".hz-live").text_content().startswith(f"写完了，一共 {len(body) + 1} 步")
    assert root.locator(".hz-article").get_attribute("aria-label") == f"{INTRO}。正文：{body}"


def test_what_the_sliders_and_the_opening_say_is_what_is_sent(scene, made, written, tmp_path):
    written(BODY[:3])
    root = show(scene, made, tmp_path)
    wanted = {"temperature": 1.3, "top_k": 7, "top_p": 0.6, "length": 35, "seed": 42}
    for name, value in wanted.items():
        bar = root.locator(f'[data-name="{name}"]')
        bar.evaluate("(bar, value) => { bar.value = value; bar.dispatchEvent(new Event('input')); }", value)
        assert bar.get_attribute("aria-valuetext") == root.locator(".hz-value").nth([*wanted].index(name)).inner_text() != ""
    root.locator("textarea").evaluate("(box) => { box.value = '好\\ud83d天\\n'; }")
    write(root)
    told = next(said for said in scene.said if said["do"] == "write")
    assert {name: told[name] for name in wanted} == pytest.approx(wanted) and told["prefix"] == "好\ufffd天\n"     # 半个字符送不到内核
    bar = root.locator('[data-name="seed"]')
    bar.focus()
    bar.press("ArrowRight")
    scene.settle()
    assert scene.widget.seed == 43                                            # 键盘拨过的，Python 也知道


def test_every_key_does_what_the_hint_says(scene, made, written, tmp_path):
    written(BODY[:12])
    root = show(scene, made, tmp_path)
    write(root)
    page, focused = scene.page, "document.activeElement.dataset.token ?? document.activeElement.className"
    root.locator(".hz-article").focus()
    for key, step in [("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 12), ("ArrowRight", 12),
                      ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1)]:
        page.keyboard.press(key)
        assert root.locator(".hz-now").get_attribute("data-step") == str(step), key
        assert root.locator(".hz-live").text_content().startswith(f"第 {step + 1} 步")
    for key, expected in [("ArrowDown", BODY[1]), ("ArrowDown", "甲"), ("ArrowDown", "乙"), ("ArrowUp", "甲"), ("End", "丙"),
                          ("ArrowDown", "丙"), ("Home", BODY[1]), ("ArrowUp", "hz-article"), ("Enter", BODY[1]), ("Escape", "hz-article"),
                          ("ArrowDown", BODY[1]), ("ArrowDown", "甲")]:
        page.keyboard.press(key)
        assert page.evaluate(focused) == expected, key
    page.keyboard.press("Enter")
    done(root)
    assert article(root) == BODY[0] + "甲" + BODY[2:12] and page.evaluate(focused) == "hz-article"


def test_looking_back_while_it_writes_is_not_disturbed_and_late_words_are_ignored(scene, made, written, tmp_path):
    body = BODY[:60]
    written(body)
    root = show(scene, made, tmp_path)
    begun(scene, root)
    root.locator('.hz-char[data-step="2"]').click()
    count = root.locator(".hz-char").count()
    root.locator(".hz-char").nth(count + 4).wait_for()
    assert root.locator(".hz-title").inner_text() == "第 3 步的候选"            # 还在写，看的仍是第 3 步
    done(root)
    for change in ({"run": 0}, {"at": 3}, {"at": 999}):
        late = scene.widget._step_message(5) | {"at": len(scene.widget.steps)} | change
        scene.page.evaluate("message => stageHear([{}, [message]])", late)
    assert article(root) == body
    root.locator("textarea").fill("  ")
    root.locator('[data-do="write"]').click()
    root.locator(".hz-error").filter(has_text="提示是空的").wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_each_fact_has_its_colour_its_sign_and_enough_contrast(scene, made, written, tmp_path, monkeypatch, dark):
    real = S.fact_marks
    monkeypatch.setattr(S, "fact_marks", lambda body, report: [  # 第一处当作写错了
        m if n else type(m)(m.start, m.end, "应当的值") for n, m in enumerate(real(body, report))])
    written(BODY)
    root = show(scene, made, tmp_path, dark=dark)
    write(root)
    kept, wrong = root.locator(".hz-article .hz-kept"), root.locator(".hz-article .hz-wrong")
    assert len(KEPT) > 2 and kept.all_text_contents() == KEPT[1:] and wrong.all_text_contents() == KEPT[:1]
    after = ".hz-article .{} + .hz-sign"
    assert root.locator(after.format("hz-kept")).all_text_contents() == ["✓"] * (len(KEPT) - 1)
    assert root.locator(after.format("hz-wrong")).all_text_contents() == ["✗"]
    assert root.locator(".hz-should").all_text_contents() == ["（应为 应当的值）"]
    assert "应为 应当的值" in root.locator(".hz-live").text_content()
    signs = root.locator(".hz-caption .hz-sign").evaluate_all("all => all.map(x => [x.previousSibling.textContent, x.textContent])")
    assert signs == [["守住的事实", "✓"], ["写错的事实", "✗"]]
    green, red = (part.first.evaluate(COLOUR) for part in (kept, wrong))
    assert green[1] > green[0] and red[0] > red[1]                           # 绿的是守住，红的是写错
    ground = root.locator(".hz-article").evaluate("x => getComputedStyle(x.closest('.hz')).backgroundColor.match(/\\d+/g).map(Number)")
    small = [root.locator(name).first.evaluate(COLOUR) for name in (".hz-given", ".hz-part", ".hz-numbers small", ".hz-hint", ".hz-char")]
    assert min(contrast(ink, ground[:3]) for ink in (green, red, *small)) >= 4.5, (green, red, small, ground)


COLOUR = "x => getComputedStyle(x).color.match(/\\d+/g).map(Number).slice(0, 3)"


def contrast(one, other) -> float:
    """WCAG 的对比度，4.5 以上看得清小字。"""
    bright = sorted(sum(part * ((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else part * c / 255 / 12.92
                        for c, part in zip(color, (0.2126, 0.7152, 0.0722), strict=True)) for color in (one, other))
    return (bright[1] + 0.05) / (bright[0] + 0.05)


@pytest.mark.parametrize("text", [*HOSTILE, "<img src=x onerror=alert(1)>", "</textarea></style>", "好😀👩‍👩‍👧"])
def test_hostile_text_in_opening_and_candidates_is_text(scene, made, written, tmp_path, text):
    written(BODY[:4], (text, "好", "坏"))
    root = show(scene, made, tmp_path, prefix=f"{text}\n{text}")
    write(root)
    shown = S.drawn(text)
    assert root.locator(".hz-given").all_text_contents() == [shown, *map(S.drawn, text)]
    assert root.locator("script, img, iframe, style, svg").count() == 0
    assert root.locator(".hz-name").all_text_contents()[1] == shown
    root.locator(".hz-candidate").nth(1).click()                             # 写下它，也还是文字
    done(root)
    assert shown in root.locator(".hz-article").text_content() and article(root).count(shown) == 1
    assert not {"\u202e", "\0"} & set(root.locator(".hz-article").inner_text())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_character_outside_the_table_is_named_while_it_is_typed_and_while_it_writes(scene, made, written, tmp_path, dark):
    written("今天晴")
    root = show(scene, made, tmp_path, prefix="今天\n", dark=dark)
    note, prompt = root.locator(".hz-note"), root.locator("textarea")
    assert note.text_content() == "" and not note.is_visible()
    prompt.press_sequentially("鲁<i>")                                          # 还没有按「写」
    note.filter(has_text="「鲁」").wait_for()
    said = "词表里没有「鲁」「i」：模型把它们都看成 [UNK]，认不出是哪个字。"               # make 的词表里有 < 和 >
    assert note.text_content() == said and root.locator(".hz-char").count() == 0 and scene.boxes() == []
    assert root.locator("i").count() == 0 and sum(said["do"] == "check" for said in scene.said) == 1      # 停手才问，不是一键一问
    write(root)
    assert note.text_content() == said and root.locator(".hz-char").count() > 0 and root.locator(".hz-error").text_content() == ""
    prompt.fill("  \n鲁")                                                      # 写不了的开头：两样都说
    root.locator('[data-do="write"]').click()
    root.locator(".hz-error").filter(has_text="提示是空的").wait_for()
    assert "「鲁」" in note.text_content()
    prompt.fill("今天")
    note.filter(has_not_text="「鲁」").wait_for(state="attached")
    assert not note.is_visible() and root.locator(".hz-error").is_visible()
    scene.page.evaluate("() => { document.activeElement.blur(); stageModel.set('prefix', '今天迅'); }")     # 内核那边换了开头
    note.filter(has_text="「迅」").wait_for()


def test_the_studio_shows_no_boxes(scene, made, written, tmp_path):
    written(BODY)
    root = show(scene, made, tmp_path)
    root.locator(".hz-paragraph").first.wait_for()
    assert scene.boxes() == []
    write(root)
    root.locator('.hz-char[data-step="5"]').click()
    assert scene.boxes() == []
    root.locator("textarea").fill("鑫淼\n焱磊")
    root.locator('[data-do="write"]').click()
    done(root)
    assert "鑫" in root.locator(".hz-article").inner_text()
    assert scene.boxes() == []
    root.locator("textarea").fill("")
    root.locator('[data-do="write"]').click()
    root.locator(".hz-error").filter(has_text="空").wait_for()
    assert scene.boxes() == []


def test_without_its_font_the_studio_would_show_boxes(scene, made, written, tmp_path, monkeypatch):
    monkeypatch.setattr(S, "font_face", lambda text: "")
    written(BODY[:5])
    write(show(scene, made, tmp_path))
    assert len(scene.boxes()) > 10


@pytest.mark.parametrize("width", [1000, 700, 480])
def test_nothing_is_clipped_at_any_width(scene, made, written, tmp_path, width):
    """投影仪、分屏的窄窗口：控件、文章、候选都不越出边框，也没有一个叠在另一个上面。"""
    scene.page.set_viewport_size({"width": width, "height": 800})
    written(BODY)
    root = show(scene, made, tmp_path)
    write(root)
    whole = root.bounding_box()
    for part in ("textarea", ".hz-slider", "button", ".hz-article", ".hz-numbers", ".hz-tick", ".hz-hint"):
        for box in root.locator(part).evaluate_all("all => all.map(x => x.getBoundingClientRect()).map(r => [r.left, r.right])"):
            assert box[0] >= whole["x"] and box[1] <= whole["x"] + whole["width"], (part, box)
    numbers, ticks = (root.locator(part).first.bounding_box() for part in (".hz-numbers", ".hz-tick"))
    assert numbers["x"] + numbers["width"] <= ticks["x"] + 1
    assert root.locator(".hz-numbers").first.evaluate("x => x.scrollWidth <= x.clientWidth + 1")


REDRAW = """(messages) => messages.map((message) => {
  const root = document.querySelector('.hz-studio'), article = root.querySelector('.hz-article');
  const chars = root.querySelectorAll('.hz-char').length, before = article.innerHTML + root.querySelector('.hz-candidates').innerHTML;
  const begun = performance.now();
  if (message.click !== undefined) root.querySelector(`.hz-char[data-step="${message.click}"]`).click();
  else window.stageHear([{}, [message]]);
  for (const part of [article, root.querySelector('.hz-candidates'), root]) part.getBoundingClientRect();
  const spent = performance.now() - begun;
  if (article.innerHTML + root.querySelector('.hz-candidates').innerHTML === before) throw new Error('没有重画，量到的时间不算数');
  return spent;
})"""


def test_a_240_character_article_is_redrawn_within_100_ms(scene, made, written, tmp_path):
    """来一个新字、点一个字、整篇重画（写完、改写），都在 100 毫秒之内；字是各不相同的，每一步都带着自己的字体。"""
    body = "".join(COMMON[(n * n + n // 64) % 64] for n in range(239))
    others = tuple("甲乙丙")
    written(body, others)
    root = show(scene, made, tmp_path)
    write(root)
    assert root.locator(".hz-char").count() == 240
    studio, run, fresh = scene.widget, scene.widget._run, "鑫淼焱磊犇骉羴猋"
    whole = studio._state()
    shorter = whole | {"running": True, "steps": whole["steps"][:231], "marks": [], "font": ""}
    last = [whole["steps"][231] | {"run": run, "at": 231 + n, "text": char, "name": char, "font": S.font_face(char)}
            for n, char in enumerate(fresh)]
    kinds = {"整篇": [shorter, whole | {"font": ""}, shorter, whole | {"font": ""}, shorter], "新字": last,
             "点一个字": [{"click": n} for n in (3, 50, 120, 200, 231)]}
    for kind, messages in kinds.items():
        stage.within_100_ms(scene.page, f"写作台重画，{kind}", lambda messages=messages: scene.page.evaluate(REDRAW, messages))
