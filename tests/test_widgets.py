"""utils.views.widgets.attention 与 utils.views.figures.attention：数值不失真、改句子会重算、错误说得清楚、文字只当文字。"""

import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from test_attention import SENTENCE, char_tokenizer, tiny_bert
from test_web_fonts import carried
from transformers import BertConfig, BertForMaskedLM

from utils.analysis.reading import Attentions, HeadVectors, get_attentions, get_head_vectors
from utils.display.fonts import printable, visible
from utils.display.plotting import use_chinese_font
from utils.tokenization.tokenizer import build_tokenizer
from utils.views.bertviz import views as bertviz_views
from utils.views.figures.attention import attention_figure, stepper_figure
from utils.views.widgets import attention as W
from utils.views.widgets import parts as P
from utils.views.widgets import sides
from utils.views.widgets import stepper as S


@pytest.fixture(scope="module", autouse=True)
def chinese_font():
    use_chinese_font()


@pytest.fixture()
def shown(monkeypatch):
    """显示出来的东西，依次排着。"""
    things = []
    for module in (W, S, P):
        monkeypatch.setattr(module, "display", lambda thing, **about: things.append(thing))
    return things


@pytest.fixture(scope="module")
def tokenizer():
    return char_tokenizer()


@pytest.fixture()
def widget(tokenizer):
    return W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE, layer=1, head=3, token=2)


def sent(widget) -> np.ndarray:
    T = len(widget.tokens)
    return np.frombuffer(widget.weights, np.uint8).reshape(widget.n_layers, widget.n_heads, T, T) / 255


def test_what_is_sent_is_the_models_attention_in_bytes(widget, tokenizer):
    expected = get_attentions(tiny_bert(), tokenizer, SENTENCE)
    assert widget.tokens == expected.tokens and (widget.layer, widget.head, widget.token) == (1, 3, 2)
    np.testing.assert_allclose(sent(widget), expected.weights.numpy(), atol=0.5 / 255 + 1e-6)


def test_a_new_sentence_is_computed_at_once_with_the_kernels_model(widget, tokenizer):
    widget.text = "今天晴"
    assert widget.tokens == ["[CLS]", "今", "天", "晴", "[SEP]"]
    assert (widget.version, widget.error, widget.token) == (1, "", -1)
    expected = get_attentions(tiny_bert(), tokenizer, "今天晴").weights.numpy()
    np.testing.assert_allclose(sent(widget), expected, atol=0.5 / 255 + 1e-6)


def test_a_bad_sentence_keeps_the_picture_and_says_why(widget):
    before = widget.weights
    for text, reason in (("", "空"), ("好" * 70, "位置"), ("好" * 10000, "10002")):
        widget.text = text
        assert reason in widget.error and widget.weights == before and len(widget.tokens) == 9
    assert widget.version == 3
    widget.text = SENTENCE
    assert widget.error == "" and widget.version == 4


def test_an_unforeseen_error_also_reaches_the_picture(widget, monkeypatch):
    monkeypatch.setattr(widget, "_compute", lambda text: 1 / 0)
    widget.text = "今天"
    assert "ZeroDivisionError" in widget.error and widget.version == 1


def test_wrong_arguments_are_refused(tokenizer):
    with pytest.raises(ValueError, match="没有第 2 层"):
        W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE, layer=2)
    with pytest.raises(ValueError, match="最多画 5 个"):
        W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE, max_tokens=5)
    with pytest.raises(ValueError, match="attentions"):
        W.AttentionWidget(text=SENTENCE)
    vectors = get_head_vectors(tiny_bert(), tokenizer, SENTENCE)
    with pytest.raises(ValueError, match="token"):
        S.AttentionStepper(vectors, token=9)


def test_a_picture_of_given_weights_cannot_be_edited():
    found = Attentions(["a", "b"], torch.full((1, 1, 2, 2), 0.5))
    widget = W.AttentionWidget(attentions=found)
    assert widget.live is False
    widget.text = "别的句子"
    assert widget.tokens == ["a", "b"] and widget.version == 0


COMMON = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经济"
assert len(COMMON) == 64


def uniform(tokens: int, layers: int = 12, heads: int = 12) -> Attentions:
    """每个词元都是不同的常用字，看谁都一样多。"""
    return Attentions(list(COMMON[:tokens]), torch.full((layers, heads, tokens, tokens), 1 / tokens))


def sent_bytes(widget) -> int:
    """一个小部件送给网页的字节数：权重、字体、脚本、样式和其余属性。"""
    parts = [value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass") for value in widget.get_state().values()]
    return sum(map(len, parts))


def test_twelve_layers_of_twelve_heads_on_64_tokens_stay_under_a_megabyte():
    widget = W.AttentionWidget(attentions=uniform(64))
    assert len(widget.weights) == 12 * 12 * 64 * 64 and "_esm" in widget.get_state()
    assert 680_000 < sent_bytes(widget) < P.MAX_SENT                        # 也确实算上了脚本和字体


def test_comparing_two_large_models_stays_under_a_megabyte_or_says_how_short():
    with pytest.raises(ValueError, match="两栏共 288 个头，最多画 54 个词元，这里有 64 个：请写短一些"):
        W.AttentionWidget(attentions=uniform(64), compare=uniform(64))
    widget = W.AttentionWidget(attentions=uniform(54), compare=uniform(54), names=("随机的模型", "练过的模型"))
    assert 950_000 < sent_bytes(widget) < P.MAX_SENT
    with pytest.raises(ValueError, match="要画 1000 个头，最多画 29 个词元，这里有 30 个"):
        W.AttentionWidget(attentions=uniform(30, 1, 1000))


def test_a_longer_live_sentence_that_would_not_fit_is_refused_in_the_picture(tokenizer, monkeypatch):
    monkeypatch.setattr(W, "MAX_WEIGHTS", 2 * 4 * 10 ** 2)
    widget = W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE)
    before = widget.weights
    widget.text = SENTENCE * 2
    assert "最多画 10 个词元" in widget.error and widget.weights == before and widget.attentions.tokens == widget.tokens


def test_the_stepper_stays_under_a_megabyte():
    vectors = HeadVectors(list(COMMON), *torch.randn(3, 64, 64), torch.ones(64, 64, dtype=torch.bool))
    assert 150_000 < sent_bytes(S.AttentionStepper(vectors)) < P.MAX_SENT


@pytest.mark.parametrize("decoder", [False, True])
def test_the_stepper_sends_every_step_exactly(tokenizer, decoder):
    model = tiny_bert(is_decoder=decoder)
    stepper = S.AttentionStepper(get_head_vectors(model, tokenizer, SENTENCE, 1, 2), token=4, step=1)
    T, D = len(stepper.tokens), stepper.dim
    numbers = {name: np.frombuffer(getattr(stepper, name), np.float32)
               for name in ("q", "k", "v", "scores", "scaled", "masked", "weights", "output")}
    q, k, v = (numbers[name].reshape(T, D) for name in "qkv")
    np.testing.assert_allclose(numbers["scores"].reshape(T, T), q @ k.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(numbers["scaled"] * D ** 0.5, numbers["scores"], rtol=1e-4, atol=1e-5)
    hidden = np.isneginf(numbers["masked"].reshape(T, T))
    np.testing.assert_array_equal(hidden, np.triu(np.full((T, T), decoder), 1))
    weights = numbers["weights"].reshape(T, T)
    expected = get_attentions(model, tokenizer, SENTENCE).weights[1, 2].numpy()
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(numbers["output"].reshape(T, D), weights @ v, rtol=1e-4, atol=1e-5)


def test_invisible_characters_become_visible():
    assert visible("a b\n\u200f\0") == "a␣b⏎U+200FU+0000"
    assert visible("<script>") == "<script>"


HOSTILE = ["<script>", "</script>", "$x$", "$", "{}", "\\frac", "\u202e", "\0", "\U0010ffff", "\U00013000"]


def test_figures_draw_hostile_text_as_text():
    T = len(HOSTILE)
    found = Attentions(HOSTILE, torch.softmax(torch.randn(1, 1, T, T), -1))
    figure = attention_figure(found, token=2)
    figure.canvas.draw()  # 少一个字形就会报错
    drawn = {text.get_text() for ax in figure.axes for text in ax.texts}
    labels = [text for ax in figure.axes[:2] for text in (*ax.texts, *ax.get_xticklabels(), ax.title)]
    assert not any(text.get_parse_math() for text in labels if "$" in text.get_text())
    assert {"<script>", "$x$", "U+0000", "U+202E", "U+13000"} <= drawn
    assert printable("汉") == "汉"
    plt.close(figure)


def test_figures_show_the_numbers_and_refuse_what_is_not_there(tokenizer):
    model = tiny_bert()
    found = get_attentions(model, tokenizer, SENTENCE)
    figure = attention_figure(found, 1, 2)
    np.testing.assert_allclose(np.asarray(figure.axes[1].images[0].get_array()), found.weights[1, 2].numpy())
    for wrong in ((2, 0, None), (0, 4, None), (0, 0, 9)):
        with pytest.raises(IndexError):
            attention_figure(found, *wrong)
    vectors = get_head_vectors(model, tokenizer, SENTENCE, 1, 2)
    steps = stepper_figure(vectors, 3)
    widths = [bar.get_width() for bar in steps.axes[3].patches]
    np.testing.assert_allclose(widths, found.weights[1, 2, 3].numpy(), atol=1e-5)
    plt.close("all")


@pytest.mark.parametrize("show", [W.show_attention, W.show_stepper])
def test_a_static_picture_stands_before_the_interactive_one(tokenizer, shown, show):
    assert show(tiny_bert(), tokenizer, SENTENCE, layer=1, head=1, token=3) is None
    assert [type(thing).__name__ for thing in shown][0] == "Figure" and len(shown) == 2
    assert isinstance(shown[1], (W.AttentionWidget, S.AttentionStepper)) and shown[1].token == 3
    assert not plt.get_fignums()  # 关掉了，notebook 不会再画一遍


def test_scripts_write_text_only_and_fetch_nothing():
    for kind in (W.AttentionWidget, S.AttentionStepper):
        script = str(kind._esm)
        assert "export default" in script
        banned = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch(", "import(")
        assert not [name for name in banned if name in script]
        addresses = set(re.findall(r"https?://[^\"' )]+", script + str(kind._css)))
        assert addresses <= {"http://www.w3.org/2000/svg"}  # 只是 SVG 的名字空间，不会被访问


LIVE_TEXTS = ["<script>alert(1)</script>", "</script>", "\"'`{{}}${1}\\", "今天\u202e好日子", "好日子😀👩‍👩‍👧", "今\0天", "\ud83d日",
              "好" * 10_000]


@pytest.mark.parametrize("text", LIVE_TEXTS, ids=["script", "end", "quotes", "rtl", "emoji", "nul", "half", "long"])
def test_a_hostile_live_sentence_is_drawn_or_refused_in_chinese(tokenizer, text):
    model = tiny_bert()
    widget = W.AttentionWidget(model, tokenizer, SENTENCE, max_tokens=40)
    widget.text = text
    assert widget.version == 1
    if widget.error:
        assert re.search("[一-龥]", widget.error) and len(widget.tokens) == 9
    else:
        assert len(widget.tokens) > 2 and len(widget.weights) == 2 * 4 * len(widget.tokens) ** 2
    assert not re.search("[\x00-\x1f\u202a-\u202e\ud800-\udfff]", "".join(widget.tokens))
    assert bool(widget.error) == (text in LIVE_TEXTS[-2:] or len(text) > 22)


@pytest.mark.parametrize("text", LIVE_TEXTS, ids=["script", "end", "quotes", "rtl", "emoji", "nul", "half", "long"])
@pytest.mark.parametrize("view", [*W.VIEWS, "stepper"])
def test_a_hostile_sentence_is_drawn_as_text_or_refused_in_every_view(shown, view, text):
    """从唯一的入口进去：每个视图要么把它画成文字（静态图不缺字形，网页里没有它的标签），要么用中文说清楚为什么不行。"""
    tokenizer = build_tokenizer("char", [SENTENCE + "".join(LIVE_TEXTS[:6])])    # 认得这些字，画的就不是 [UNK]
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                                       intermediate_size=16, max_position_embeddings=80))
    show = W.show_stepper if view == "stepper" else lambda *about: W.show_attention(*about, view=view)
    try:
        show(model, tokenizer, text)
    except ValueError as problem:
        assert text in LIVE_TEXTS[-2:] and re.search("[一-龥]{4}", str(problem)) and not shown
        return
    assert text in LIVE_TEXTS[:6]
    for thing in shown:
        if isinstance(thing, plt.Figure):
            thing.canvas.draw()
            drawn = "".join(label.get_text() for ax in thing.axes for label in (*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels()))
            assert not {"\u202e", "\0", "\u200d"} & set(drawn)
        elif view in W.BERTVIZ:
            assert thing.data.count("<iframe") == 1 and "<script" not in thing.data and text not in thing.data
        else:
            assert not {"\u202e", "\0", "\u200d"} & set("".join(thing.tokens)) and len(thing.tokens) > 2
    assert shown


def test_the_first_tokens_are_made_visible_too():
    """词表里就有看不见的字符时，送出去的也是看得见的写法；两栏都是。"""
    found = Attentions(["好", "\u202e", "\0", " "], torch.full((1, 1, 4, 4), 0.25))
    widget = W.AttentionWidget(attentions=found, compare=found)
    assert widget.tokens == widget.other_tokens == ["好", "U+202E", "U+0000", "␣"]


def test_a_second_model_reads_the_same_sentence(tokenizer):
    other = tiny_bert(layers=3, heads=2)
    widget = W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE, compare=other, names=("甲", "\u202e乙"), layer=2)
    assert (widget.other_layers, widget.other_heads, widget.names) == (3, 2, ["甲", "U+202E乙"])
    widget.text = "今天晴"
    expected = get_attentions(other, tokenizer, "今天晴")
    assert widget.tokens == widget.other_tokens == expected.tokens and not widget.other_live
    assert widget.other_weights == W.to_uint8(expected.weights)


def test_a_second_sentence_is_edited_apart_from_the_first(tokenizer):
    model = tiny_bert()
    widget = W.AttentionWidget(model, tokenizer, SENTENCE, compare="今天晴")
    assert widget.other_live and widget.other_tokens == ["[CLS]", *"今天晴", "[SEP]"]
    widget.other_text = "雨"
    assert widget.other_tokens == ["[CLS]", "雨", "[SEP]"] and widget.tokens == ["[CLS]", *SENTENCE, "[SEP]"]
    widget.text = "晴"
    assert widget.other_tokens == ["[CLS]", "雨", "[SEP]"] and widget.tokens == ["[CLS]", "晴", "[SEP]"]
    widget.other_text = ""
    assert "空" in widget.error and widget.other_tokens == ["[CLS]", "雨", "[SEP]"]


def test_given_weights_compare_and_merge(tokenizer):
    first = Attentions(["a", "##b"], torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]]))
    widget = W.AttentionWidget(attentions=first, compare=first, subwords="merge")
    assert widget.tokens == widget.other_tokens == ["ab"] and widget.weights == widget.other_weights == b"\xff"
    with pytest.raises(ValueError, match="没有模型"):
        W.AttentionWidget(attentions=first, compare="别的句子")
    for wrong, kind, match in (({"compare": 3}, TypeError, "int"), ({"subwords": "glue"}, ValueError, "merge"),
                               ({"compare": "雨", "names": ("甲",)}, ValueError, "两个名字")):
        with pytest.raises(kind, match=match):
            W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE, **wrong)


@pytest.mark.parametrize("view, kinds", [
    ("lines", ["Figure", "AttentionWidget"]), ("matrix", ["Figure", "AttentionWidget"]), ("grid", ["Figure"]),
    ("head", ["Figure", "HTML"]), ("model", ["Figure", "HTML"]), ("neuron", ["Figure", "HTML"])])
def test_every_view_leaves_a_static_picture(shown, view, kinds):
    tokenizer = build_tokenizer("char", [SENTENCE])
    W.show_attention(tiny_bert(), tokenizer, SENTENCE, view=view)
    assert [type(thing).__name__ for thing in shown] == kinds and not plt.get_fignums()


@pytest.mark.parametrize("view", ["head", "model", "neuron"])
def test_the_bertviz_views_read_the_sentence_once(monkeypatch, shown, view):
    """静态图与 bertviz 用的是同一次读出的注意力。"""
    read, real = [], get_attentions
    monkeypatch.setattr(sides, "get_attentions", lambda *rest: read.append(1) or real(*rest))
    monkeypatch.setattr(bertviz_views, "get_attentions", lambda *rest: read.append(1) or real(*rest))
    W.show_attention(tiny_bert(), build_tokenizer("char", [SENTENCE]), SENTENCE, view=view)
    assert len(read) == 1 and len(shown) == 2


def test_attentions_of_another_sentence_are_refused():
    tokenizer = build_tokenizer("char", [SENTENCE])
    found = get_attentions(tiny_bert(), tokenizer, SENTENCE)
    with pytest.raises(ValueError, match="读的不是这句话"):
        bertviz_views.bertviz_html(tiny_bert(), tokenizer, SENTENCE[:3], attentions=found)


def test_subwords_are_merged_at_first_and_in_every_new_sentence(tokenizer, monkeypatch):
    monkeypatch.setattr(sides, "word_groups", lambda tok, text, pair: [None, 0, 0, *range(1, len(text) - 1), None])   # 头两个字是一个词
    widget = W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE, subwords="merge")
    assert widget.tokens == ["[CLS]", SENTENCE[:2], *SENTENCE[2:], "[SEP]"]
    widget.text = "今天晴"
    assert widget.tokens == ["[CLS]", "今天", "晴", "[SEP]"] and len(widget.weights) == 2 * 4 * 4 ** 2


def letters(widget) -> set[str]:
    return {chr(code) for code in carried(widget.font).getBestCmap()}


def test_the_font_follows_everything_that_is_shown():
    tokenizer = build_tokenizer("char", [SENTENCE + "雨雪"])
    widget = W.AttentionWidget(tiny_bert(), tokenizer, SENTENCE, compare="雪", names=("甲", "乙"))
    assert letters(widget) >= set(SENTENCE) | set("雪甲乙层头矩阵连线谁在看")
    widget.text, widget.other_text = "雨", "日"
    assert letters(widget) >= set("雨日甲乙层") and "雪" not in letters(widget)
    widget.text = ""
    assert letters(widget) >= {char for char in widget.error if "一" <= char <= "龥"} and "雨" in letters(widget)
    assert letters(S.AttentionStepper(get_head_vectors(tiny_bert(), tokenizer, SENTENCE))) >= set(SENTENCE) | set("掩码点积权重")


def test_the_entry_refuses_what_a_view_cannot_do(tokenizer):
    with pytest.raises(ValueError, match="lines、matrix、grid、head、model、neuron"):
        W.show_attention(tiny_bert(), tokenizer, SENTENCE, view="heads")
    for wrong in ({"compare": "雨"}, {"subwords": "merge"}):
        with pytest.raises(ValueError, match="bertviz"):
            W.show_attention(tiny_bert(), tokenizer, SENTENCE, view="head", **wrong)


def test_the_comparison_figure_shares_its_scale_and_names_each(tokenizer, shown):
    model, other = tiny_bert(), tiny_bert(layers=1)
    W.show_attention(model, tokenizer, SENTENCE, layer=1, head=2, token=1, compare=other, names=("随机", "$练过$"))
    left, right = shown[0].axes[:2]
    assert (left.get_title(), right.get_title()) == ("随机：层 1 · 头 2", "$练过$：层 0 · 头 2")
    assert left.images[0].get_clim() == right.images[0].get_clim()
    for ax, net, layer in ((left, model, 1), (right, other, 0)):
        expected = get_attentions(net, tokenizer, SENTENCE).weights[layer, 2].numpy()
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), expected)
    W.show_attention(model, tokenizer, SENTENCE, view="grid", compare=other, names=("随机", "练过的"))
    assert [figure.axes[0].get_title()[:2] for figure in shown[2:]] == ["随机", "练过"]
