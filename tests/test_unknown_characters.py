"""词表之外的字：学习者在哪里写，就在哪里点名，不悄悄变成 [UNK]；都认识时一句不多说。模型和分词器不是一对，处处都说清楚。"""

import html
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from test_web_fonts import carried
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel

from utils.analysis import minimal_pairs as P
from utils.analysis import reading
from utils.analysis import roles as R
from utils.display.fonts import printable
from utils.display.plotting import use_chinese_font
from utils.generation import metrics as M
from utils.generation import writing as G
from utils.tokenization.tokenizer import build_tokenizer, name_unknown, unknown_note
from utils.views.bertviz.views import bertviz_html
from utils.views.figures.tokens import draw_tokens, token_playground
from utils.views.widgets import attention as W
from utils.views.widgets import parts as widget_parts
from utils.views.widgets import stepper
from utils.views.widgets.playground import figure_playground
from utils.views.widgets.studio import Studio

KNOWN, STRANGE = "今天是个好日子", "今天鲁迅是个臺日子"
NOTE = "词表里没有「鲁」「迅」「臺」：模型把它们都看成 [UNK]，认不出是哪个字。"
SENTENCE = [pytest.param(STRANGE, NOTE, id="strange"), pytest.param(KNOWN, "", id="known")]


@pytest.fixture(scope="module", autouse=True)
def chinese_font():
    use_chinese_font()


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("char", [KNOWN])


def tiny(kind, tokenizer, size: int | None = None, **options):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=size or len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, max_position_embeddings=40, **options)
    return kind(config).eval()


@pytest.fixture(scope="module")
def reader(tokenizer):
    return tiny(BertForMaskedLM, tokenizer)


@pytest.fixture(scope="module")
def writer(tokenizer):
    return tiny(BertLMHeadModel, tokenizer, is_decoder=True)


@pytest.fixture()
def shown(monkeypatch):
    """显示出来的东西，依次排着。"""
    things = []
    for module in (W, stepper, widget_parts):
        monkeypatch.setattr(module, "display", lambda thing, **about: things.append(thing))
    return things


# ---- 写
WRITING = {
    "complete": lambda model, tok, text: G.complete(model, tok, text, max_new_tokens=2),
    "complete 的正文": lambda model, tok, text: G.complete(model, tok, f"今天\n{text}", max_new_tokens=2),
    "generate": lambda model, tok, text: G.generate(model, tok, [text], max_new_tokens=2),
    "generate 一批": lambda model, tok, text: G.generate(model, tok, [text, KNOWN, text], max_new_tokens=2),
}


@pytest.mark.parametrize("place", WRITING)
@pytest.mark.parametrize("text, note", SENTENCE)
def test_what_the_writer_cannot_read_is_printed_once(writer, tokenizer, capsys, place, text, note):
    WRITING[place](writer, tokenizer, text)
    assert capsys.readouterr().out == (f"{note}\n" if note else "")


def test_special_words_in_an_opening_are_read_letter_by_letter(writer, tokenizer, capsys):
    G.complete(writer, tokenizer, "今天[MASK]", max_new_tokens=2)               # 写作时它只是六个普通的字符
    assert "「[」「M」「A」「S」「K」「]」" in capsys.readouterr().out


def told(studio, **content) -> dict:
    """假装网页送来一条消息，返回写作台的回话。"""
    sent = []
    studio.send = lambda message, buffers=None: sent.append(message)
    studio._heard(studio, content, [])
    return sent[-1]


def lettered(text: str, *fonts: str) -> bool:
    """这些字体里有 text 的每个汉字。"""
    return {c for c in text if "一" <= c <= "龥"} <= {chr(code) for css in fonts if css for code in carried(css).getBestCmap()}


SETTINGS = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "length": 5, "seed": 1}


@pytest.mark.parametrize("text, note", SENTENCE)
def test_the_studio_names_them_while_they_are_typed_and_while_it_writes(writer, tokenizer, text, note, capsys):
    studio = Studio(writer, tokenizer, KNOWN)
    first = told(studio, do="hello")
    assert first["note"] == ""
    answer = told(studio, do="check", prefix=text)
    assert (answer["kind"], answer["note"]) == ("note", note) and lettered(note, first["font"], answer["font"])
    assert studio.prefix == KNOWN and studio.steps == []                        # 只是问一声，没有动手写
    state = told(studio, do="write", prefix=text, **SETTINGS)
    assert (state["note"], state["error"], state["running"]) == (note, "", True)
    told(studio, do="check", prefix=f"今天\n{text}")                             # 写着的时候又改了开头：说的是框里的字
    assert told(studio, do="stop", run=studio._run)["note"] == note
    assert capsys.readouterr().out == ""                                       # 在网页上说，不打印
    assert Studio(writer, tokenizer, text).note == note


@pytest.mark.parametrize("text, error", [("今\ud83d鲁", "半个字符"), ("鲁" * 100, "个位置"), ("鲁\u202e\0", "")],
                         ids=["half", "long", "invisible"])
def test_the_studios_note_hides_nothing_and_shows_what_is_invisible(writer, tokenizer, text, error):
    state = told(Studio(writer, tokenizer, KNOWN), do="write", prefix=text, **SETTINGS)
    assert state["note"].startswith("词表里没有「鲁」") and error in state["error"] and bool(error) == bool(state["error"])
    assert not {"\u202e", "\0"} & set(state["note"]) and ("U+202E" in state["note"]) == ("\u202e" in text)


# ---- 看
LOOKING = {
    **{view: lambda model, tok, text, view=view: W.show_attention(model, tok, text, view=view) for view in W.VIEWS},
    "第二段": lambda model, tok, text: W.show_attention(model, tok, KNOWN, text),
    "第二句": lambda model, tok, text: W.show_attention(model, tok, KNOWN, compare=text),
    "两个模型": lambda model, tok, text: W.show_attention(model, tok, text, compare=model),
    "合并子词": lambda model, tok, text: W.show_attention(model, tok, text, subwords="merge"),
    "步进图": lambda model, tok, text: W.show_stepper(model, tok, text),
}


@pytest.mark.parametrize("place", LOOKING)
@pytest.mark.parametrize("text, note", SENTENCE)
def test_every_picture_names_them_and_shows_which_they_were(reader, tokenizer, shown, capsys, place, text, note):
    LOOKING[place](reader, tokenizer, text)
    assert capsys.readouterr().out == (f"{note}\n" if note else "")
    for thing in shown:
        if isinstance(thing, W.AttentionWidget):
            assert thing.note == note and lettered(note, thing.font)
        elif isinstance(thing, plt.Figure) and place != "grid":
            labels = {label.get_text() for ax in thing.axes for label in (*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts)}
            assert any(printable("[UNK]鲁") in label for label in labels) == bool(note) and "[UNK]" not in labels
        elif hasattr(thing, "data"):
            assert note in html.unescape(thing.data) and ("词表里没有" in thing.data) == bool(note)


@pytest.mark.parametrize("view", W.BERTVIZ)
def test_the_bertviz_page_itself_names_them(reader, tokenizer, view):
    page = bertviz_html(reader, tokenizer, STRANGE, view=view)
    assert page.count(f'<p class="note">{NOTE}</p>') == 1 and r"\u9c81" in page   # 图里的词元是 [UNK]鲁
    assert "词表里没有" not in bertviz_html(reader, tokenizer, KNOWN, view=view)


def test_a_live_sentence_is_named_on_the_picture_and_forgotten_with_it(reader, tokenizer):
    widget = W.AttentionWidget(reader, tokenizer, KNOWN, compare="好日子")
    assert widget.note == ""
    widget.text = STRANGE
    assert widget.note == NOTE and widget.tokens[3:5] == ["[UNK]鲁", "[UNK]迅"] and lettered(NOTE, widget.font)
    widget.other_text = "媽"
    assert widget.note == f"{NOTE}\n词表里没有「媽」：模型把它看成 [UNK]，认不出是哪个字。"
    widget.text = ""
    assert widget.error and "「媽」" in widget.note                              # 图没有变，两样都说
    widget.text, widget.other_text = KNOWN, KNOWN
    assert (widget.note, widget.error) == ("", "")


def test_given_weights_keep_their_note(reader, tokenizer):
    found = reading.get_attentions(reader, tokenizer, STRANGE)
    assert found.note == NOTE == reading.get_head_vectors(reader, tokenizer, STRANGE).note
    assert reading.merge_subwords(found).note == W.AttentionWidget(attentions=found).note == NOTE


def test_the_names_of_the_two_parts_are_told_apart(reader, tokenizer):
    tokens = reading.get_attentions(reader, tokenizer, "鲁[UNK]天", "臺[MASK]").tokens
    assert tokens == ["[CLS]", "[UNK]鲁", "[UNK]", "天", "[SEP]", "[UNK]臺", "[MASK]", "[SEP]"]


# ---- 小操场
def figure(text: str) -> plt.Figure:
    return plt.subplots(figsize=(1, 1))[0]


@pytest.mark.parametrize("text, note", SENTENCE)
@pytest.mark.parametrize("fails", [False, True], ids=["draws", "raises"])
def test_what_a_playgrounds_function_prints_is_shown_beside_it(tokenizer, capsys, text, note, fails):
    def draw(words: str) -> plt.Figure:
        name_unknown(tokenizer, words)
        if fails:
            raise ValueError("画不了。")
        return figure(words)

    box = figure_playground(draw, KNOWN, "填空：")
    box.children[0].value = text
    assert box.children[1].value == "<br>".join([note] * bool(note) + ["画不了。"] * fails)
    assert lettered(note, box.children[-1].font) and capsys.readouterr().out == ""


def test_the_token_playground_shows_which_they_were(tokenizer):
    box = token_playground({"char": tokenizer}, KNOWN)
    assert "[UNK]" not in box.children[1].value
    box.children[0].value = STRANGE
    assert "[UNK]鲁<small>" in box.children[1].value and "[UNK]臺<small>" in box.children[1].value
    drawn = draw_tokens({"char": tokenizer}, STRANGE)
    assert printable("[UNK]鲁") in {text.get_text() for text in drawn.axes[0].texts}
    plt.close(drawn)


# ---- 怪文字：点名的话里就有学习者写的字
@pytest.mark.parametrize("view", [*W.VIEWS, "步进图"])
def test_a_hostile_text_is_named_as_text(reader, tokenizer, shown, capsys, view):
    LOOKING[view](reader, tokenizer, "<script>\u202e\0今天")
    out = capsys.readouterr().out
    assert "「<」「s」" in out and "「U+202E」「U+0000」" in out and not {"\u202e", "\0"} & set(out)
    for thing in shown:
        if isinstance(thing, plt.Figure):
            thing.canvas.draw()                                                # 少一个字形就会报错
        elif hasattr(thing, "data"):
            page = html.unescape(re.search('srcdoc="([^"]*)"', thing.data)[1])
            assert "「&lt;」" in page and "「<" not in page and "<script" not in thing.data and not {"\u202e", "\0"} & set(page)
        else:
            assert not {"\u202e", "\0"} & set("".join(thing.tokens))


def test_a_hostile_text_in_the_playground_is_named_as_text(tokenizer):
    box = figure_playground(lambda words: name_unknown(tokenizer, words) or figure(words), KNOWN, "填空：")
    box.children[0].value = "<b>\u202e&"
    assert re.sub("<br>", "", box.children[1].value).startswith("词表里没有「&lt;」「b」「&gt;」「U+202E」「&amp;」")


# ---- 模型和分词器不是一对
FACTS = '[{"name": "day", "value": "今天"}]'
DOC = {"intro": KNOWN, "body": KNOWN, "facts": FACTS}
READERS = {
    "注意力": lambda model, tok: reading.get_attentions(model, tok, KNOWN),
    "q、k、v": lambda model, tok: reading.get_head_vectors(model, tok, KNOWN),
    "bertviz": lambda model, tok: bertviz_html(model, tok, KNOWN), "角色": lambda model, tok: R.score_roles(model, tok, [DOC]),
    "伪对数似然": lambda model, tok: P.pseudo_log_likelihood(model, tok, [KNOWN]),
}
WRITERS = {
    "complete": lambda model, tok: G.complete(model, tok, KNOWN, max_new_tokens=2),
    "generate": lambda model, tok: G.generate(model, tok, [KNOWN], max_new_tokens=2),
    "束搜索": lambda model, tok: G.complete(model, tok, KNOWN, max_new_tokens=2, strategy="beam"),
    "stream": lambda model, tok: next(G.stream(model, tok, KNOWN, max_new_tokens=2)),
    "损失": lambda model, tok: M.body_loss(model, tok, [KNOWN], [KNOWN]),
    "回看": lambda model, tok: R.look_back(model, tok, KNOWN, KNOWN, FACTS),
}


@pytest.mark.parametrize("place", [*READERS, *WRITERS])
@pytest.mark.parametrize("changes", [{"size": 11}, {"vocabulary_id": "别的表"}], ids=["smaller", "another"])
def test_a_model_with_another_ones_tokenizer_is_refused_everywhere(tokenizer, reader, writer, place, changes):
    act, right = (READERS[place], reader) if place in READERS else (WRITERS[place], writer)
    act(right, tokenizer)
    with pytest.raises(ValueError, match="不是一对"):
        act(tiny(type(right), tokenizer, is_decoder=right.config.is_decoder, **changes), tokenizer)


def test_the_studio_says_that_they_are_no_pair(tokenizer):
    studio = Studio(tiny(BertLMHeadModel, tokenizer, size=11, is_decoder=True), tokenizer, KNOWN)
    studio.begin()
    assert "不是一对" in studio.error and not studio.running


def test_a_score_without_meaning_says_which_character_is_to_blame(reader, tokenizer):
    with pytest.raises(ValueError, match="「今天鲁日」里有模型不认识的字.*词表里没有「鲁」.*known_pairs"):
        P.pseudo_log_likelihood(reader, tokenizer, [KNOWN, "今天鲁日"])
    assert unknown_note(tokenizer, KNOWN) == ""
