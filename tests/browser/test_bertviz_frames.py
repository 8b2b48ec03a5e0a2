"""真的浏览器、断网：bertviz 的三种视图在 iframe 里画得出、动得了，怪词元只当文字。"""

import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import lab  # noqa: E402
from test_bertviz_views import HOSTILE, PAIR, TEXT, words  # noqa: E402

from utils.tokenization.tokenizer import build_tokenizer  # noqa: E402
from utils.views.bertviz.views import bertviz_frame  # noqa: E402

pytestmark = pytest.mark.skipif(lab.why_not() is not None, reason=f"跳过浏览器测试：{lab.why_not()}")
L, H, T = 3, 4, 10  # TEXT 有 8 个字，加上 [CLS] 和 [SEP]


def tiny(tokenizer) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=L, num_attention_heads=H,
                                      intermediate_size=32, max_position_embeddings=64, initializer_range=0.3))


@pytest.fixture(scope="module")
def char():
    tokenizer = build_tokenizer("char", [TEXT + PAIR])
    return tiny(tokenizer), tokenizer


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=lab.find_chromium(), args=["--no-sandbox",
                                                                                       "--host-resolver-rules=MAP * ~NOTFOUND"])
        yield opened
        opened.close()


@pytest.fixture()
def show(browser, tmp_path):
    """把 bertviz_frame 的结果放进一个深色的本地网页打开，给出 iframe；最后查报错与外部请求。"""
    page = browser.new_page(viewport={"width": 1100, "height": 950})
    problems = []
    page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda problem: problems.append(str(problem)))
    page.on("request", lambda request: None if request.url.startswith("file:") else problems.append(request.url))

    def shown(frame):
        file = tmp_path / "page.html"
        file.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body style="background:#111">{frame.data}', encoding="utf-8")
        page.goto(file.as_uri())
        inside = page.frame_locator("iframe")
        inside.locator("svg").first.wait_for(timeout=60_000)
        return inside

    shown.problems = problems
    yield shown
    page.close()
    assert problems == []


def texts(inside, where: str) -> list[str]:
    return inside.locator(where).all_text_contents()


TOKENS = ["[CLS]", *TEXT, "[SEP]"]


def test_head_view_draws_and_answers_the_mouse(char, show):
    inside = show(bertviz_frame(*char, TEXT))
    assert inside.locator("svg").count() == 1 and inside.locator("#attention line").count() == H * T * T
    assert texts(inside, "#left text") == texts(inside, "#right text") == TOKENS
    inside.locator("#left text").nth(3).hover()
    assert inside.locator("#attention line[visibility=visible]").count() == H * T
    before = inside.locator("#attention line").first.get_attribute("stroke-opacity")
    inside.locator("#layer").select_option("2")
    assert inside.locator("#attention line").count() == H * T * T
    assert inside.locator("#attention line").first.get_attribute("stroke-opacity") != before
    square = inside.locator("svg > g").last.locator("rect").first
    square.click()  # 关掉头 0
    lines = inside.locator("#attention .headAttention").first.locator("line")
    assert set(lines.evaluate_all("x => x.map(e => +e.getAttribute('stroke-opacity'))")) == {0}
    background = inside.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert background == "rgb(255, 255, 255)"


def test_model_view_draws_every_head_and_opens_one(char, show):
    inside = show(bertviz_frame(*char, TEXT, view="model"))
    assert inside.locator("svg line").count() == L * H * T * T and inside.locator(".attn_background").count() == L * H
    inside.locator("svg > g").nth(H + 2).locator("rect").last.click()
    assert texts(inside, "text.token") == TOKENS * 2
    assert "层 1，头 2" in texts(inside, "text.detail")
    assert inside.locator("svg line").count() == (L * H + 1) * T * T


def test_neuron_view_expands_to_queries_and_keys(char, show):
    inside = show(bertviz_frame(*char, TEXT, view="neuron", layers=[0, 2]))
    assert texts(inside, "#collapsed #leftText text") == texts(inside, "#collapsed #rightText text") == TOKENS
    assert texts(inside, "#layer option") == ["0", "2"]  # 只画两层，写的仍是真正的层号
    inside.locator("#collapsed #leftText text").nth(4).hover()
    inside.locator("#collapsed #leftText > g").nth(4).locator("rect").last.click()
    assert inside.locator("#expanded").get_attribute("visibility") == "visible"
    for part in ("queries", "keys", "product"):
        assert inside.locator(f"#{part} .element").count() == T * 8
    inside.locator("#expanded #leftText text").nth(4).hover()
    numbers = inside.locator(".dotproduct").evaluate_all("x => x.map(e => +e.getAttribute('data-value'))")
    expected = inside.locator("#expanded #rightText .highlight").evaluate_all("x => x.map(e => +e.style.opacity)")
    torch.testing.assert_close(torch.tensor(numbers).softmax(-1), torch.tensor(expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize("view", ["head", "model", "neuron"])
def test_a_pair_can_be_seen_part_by_part(char, show, view):
    inside = show(bertviz_frame(*char, TEXT, PAIR, view))
    before = inside.locator("svg line").count()
    options = texts(inside, "#filter option")
    assert options[0] == "全部" and sorted(options[1:]) == sorted(f"第{a}段 → 第{b}段" for a in "一二" for b in "一二")
    inside.locator("#filter").select_option(label="第一段 → 第二段")
    assert 0 < inside.locator("svg line").count() < before
    if view == "head":
        assert texts(inside, "#left text") == TOKENS and texts(inside, "#right text") == [*PAIR, "[SEP]"]


@pytest.mark.parametrize("view", ["head", "model", "neuron"])
def test_hostile_tokens_are_drawn_as_text(show, view):
    tokenizer = words([*HOSTILE, "<img/onerror=alert(1)/src=x>"])
    inside = show(bertviz_frame(tiny(tokenizer), tokenizer, " ".join([*HOSTILE, "<img/onerror=alert(1)/src=x>"]), view=view))
    if view == "model":
        inside.locator("svg > g").first.locator("rect").last.click()
    where = {"head": "#left text", "model": "text.token", "neuron": "#collapsed #leftText text"}[view]
    drawn = texts(inside, where)
    assert drawn[1:14] == [{"\u202e": "U+202E", "\0": "U+0000"}.get(token, token) for token in HOSTILE]
    assert drawn[14] == "<img/onerror…" and inside.locator("img, b").count() == 0
    assert inside.locator("script").count() == 4 + (view == "neuron")


def test_nothing_may_be_fetched_even_if_a_script_tries(char, show):
    inside = show(bertviz_frame(*char, TEXT))
    blocked = inside.locator("body").evaluate("""() => new Promise(done => {
      document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
      const picture = new Image(); picture.onload = () => done('loaded'); picture.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw=';
      setTimeout(() => done('nothing'), 3000);
    })""")
    assert blocked == "img-src"
    assert len(show.problems) == 1 and "Content Security Policy" in show.problems.pop()  # 浏览器拦下来时会说一声
