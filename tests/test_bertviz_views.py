"""utils.views.bertviz.views：页面自带一切、词元只当文字、大小有上限、没画的写明白、neuron 视图的注意力就是模型的。"""

import html
import json
import re
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel, PreTrainedTokenizerFast

from utils.analysis.reading import Attentions, encode_text, get_attentions
from utils.tokenization.tokenizer import build_tokenizer
from utils.views.bertviz import page as P
from utils.views.bertviz import views as V
from utils.views.bertviz.neuron import neuron_layers, old_bert

TEXT, PAIR = "昨天北京队赢了。", "今天是个好日子"
VIEWS = ("head", "model", "neuron")
HOSTILE = ["</script>", "<script>", "<b>粗</b>", "<!--", "{{}}", "\"'`", "\\u003c", "${1}", "\u202e", "👍🏽", "\0", "##子", "https://a.b"]


def tiny(tokenizer, kind=BertForMaskedLM, layers=2, heads=2, hidden=16, **options):
    torch.manual_seed(0)
    return kind(BertConfig(vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                           intermediate_size=32, max_position_embeddings=64, initializer_range=0.3, **options)).train()


def words(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """按空格切的分词器：一个怪字符串就是一个词元。"""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("char", [TEXT + PAIR])


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny(tokenizer)


def params(page: str) -> dict:
    """页面里交给 bertviz 的参数。"""
    (marker,) = re.finditer(r"const params = (?=\{)|window\.bertviz_params = ", page)
    return json.JSONDecoder().raw_decode(page, marker.end())[0]


def parts(page: str) -> list[dict]:
    data = params(page)["attention"]
    return data if isinstance(data, list) else list(data.values())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("pair", [None, PAIR], ids=["one", "pair"])
def test_the_page_holds_everything_and_the_models_own_numbers(model, tokenizer, view, pair):
    page = V.bertviz_html(model, tokenizer, TEXT, pair, view)
    rest = page.replace(P.libraries(), "")  # jQuery 的源码里有 "<script" 这样的字样，另算
    assert page.startswith("<!DOCTYPE html>") and page.count(P.libraries()) == 1
    assert page.count("</script>") == rest.count("<script") == 4 + (view == "neuron")
    assert set(re.findall(r"https?://[^/\"' ]+", page)) == {"http://www.w3.org"}
    assert not re.findall(r"<(?:link|img|iframe|object|embed)\b|\bsrc=|@import|url\(|cdnjs|//\w+\.\w+", rest)
    assert "default-src 'none'" in re.search("Content-Security-Policy.*", page)[0]
    assert "d3js.org v5.7.0 Copyright" in page and "jQuery v3." in page and "require.config" not in page
    found, drawn = get_attentions(model, tokenizer, TEXT, pair), parts(page)
    assert drawn[0]["left_text"] == drawn[0]["right_text"] == found.tokens
    torch.testing.assert_close(torch.tensor(drawn[0]["attn"]), found.weights, atol=0.51e-4, rtol=0)
    assert len(drawn) == (1 if pair is None else 5)
    if pair is not None:
        texts = {(tuple(part["left_text"]), tuple(part["right_text"])) for part in drawn[1:]}
        first, second = tuple(["[CLS]", *TEXT, "[SEP]"]), tuple([*PAIR, "[SEP]"])
        assert texts == {(a, b) for a in (first, second) for b in (first, second)}
        for part in drawn:
            assert len(part["attn"][0][0]) == len(part["left_text"]) and len(part["attn"][0][0][0]) == len(part["right_text"])


@pytest.mark.parametrize("view", VIEWS)
def test_the_interface_is_chinese(model, tokenizer, view):
    page = V.bertviz_html(model, tokenizer, TEXT, PAIR, view)
    body = page.replace(P.libraries(), "")
    english = ("Layer:", "Head:", "Attention:", ">All<", "Sentence A", "No token selected", '"Heads"', '"Layers"', "'Layer '")
    assert not [word for word in english if re.sub(r"//.*", "", body).count(word) and word in re.sub(r"params = .*", "", body)]
    assert P.HOW[view] in page and "第一段 → 第二段" in page and 'lang="zh-CN"' in page


def test_the_frame_is_sandboxed_named_and_holds_the_page(model, tokenizer):
    frame = V.bertviz_frame(model, tokenizer, TEXT, view="model", height=321).data
    (attributes,) = re.findall(r"<iframe ([^>]*)>", frame)
    assert 'sandbox="allow-scripts"' in attributes and "height:321px" in attributes and "background:#fff" in attributes
    assert f"「{TEXT}」" in re.search('title="([^"]*)"', attributes)[1]
    (source,) = re.findall('srcdoc="([^"]*)"', attributes)
    assert html.unescape(source).startswith("<!DOCTYPE html>") and html.unescape(source).endswith("</html>\n")
    heights = [int(re.search(r"height:(\d+)px", V.bertviz_frame(model, tokenizer, "今" * n).data)[1]) for n in (2, 12, 38)]
    assert heights[0] < heights[1] < heights[2] <= 900


@pytest.mark.parametrize("pair", [None, PAIR], ids=["one", "pair"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_neuron_views_own_bert_gives_the_models_attention(tokenizer, pair, activation):
    model = tiny(tokenizer, layers=3, hidden=24, heads=3, hidden_act=activation, hidden_dropout_prob=0.5)
    expected = get_attentions(model, tokenizer, TEXT, pair).weights
    layers = neuron_layers(model, encode_text(model, tokenizer, TEXT, pair))
    torch.testing.assert_close(torch.cat([layer["attn"] for layer in layers]), expected, atol=1e-5, rtol=0)
    scores = layers[2]["queries"] @ layers[2]["keys"].transpose(-2, -1) / 8 ** 0.5  # (1, H, T, T)
    torch.testing.assert_close(scores.softmax(-1)[0], expected[2], atol=1e-5, rtol=0)
    assert model.training  # 借走权重，不改动模型


def test_the_neuron_view_refuses_what_it_cannot_draw(tokenizer, model, monkeypatch):
    with pytest.raises(ValueError, match="只能画编码器.*view=\"head\""):
        V.bertviz_html(tiny(tokenizer, BertLMHeadModel, is_decoder=True), tokenizer, TEXT, view="neuron")
    with pytest.raises(ValueError, match="只认得 BERT.*gpt2"):
        old_bert(SimpleNamespace(config=SimpleNamespace(model_type="gpt2")))
    broken = {name: x for name, x in model.base_model.state_dict().items() if "1.attention.self.key" not in name}
    monkeypatch.setattr(model.base_model, "state_dict", lambda: broken)
    with pytest.raises(ValueError, match="对不上.*layer.1.attention.self.key"):
        old_bert(model)


def test_a_decoder_draws_in_the_other_views(tokenizer):
    decoder = tiny(tokenizer, BertLMHeadModel, is_decoder=True)
    for view in ("head", "model"):
        weights = torch.tensor(parts(V.bertviz_html(decoder, tokenizer, TEXT, view=view))[0]["attn"])
        assert weights.triu(1).eq(0).all() and weights.tril().sum() > 1


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("pair", [None, "字 </script>"], ids=["one", "pair"])
def test_hostile_tokens_stay_inside_their_strings(view, pair):
    tokenizer = words([*HOSTILE, "字"])
    model = tiny(tokenizer)
    page = V.bertviz_html(model, tokenizer, " ".join(HOSTILE), pair, view)
    assert len(re.findall("</script", page, re.IGNORECASE)) == 4 + (view == "neuron") and "<!--" not in page
    assert not re.search("[\0\u202e]", page) and "https://a" not in page
    drawn = parts(page)[0]["left_text"]
    assert drawn[1:14] == ["</script>", "<script>", "<b>粗</b>", "<!--", "{{}}", "\"'`", "\\u003c", "${1}", "U+202E", "👍🏽",
                           "U+0000", "##子", "https://a.b"]
    frame = V.bertviz_frame(model, tokenizer, " ".join(HOSTILE), pair, view).data
    assert frame.count("<iframe") == frame.count("</iframe>") == 1 and "<script" not in frame and "\0" not in frame


def test_script_json_is_inert_and_says_the_same():
    value = {"t": ["</script><!--", "a&b", "\u2028", "汉"], "n": [0.5, 1e-3]}
    text = P.script_json(value)
    assert json.loads(text) == value and text.isascii() and not set("<>&/") & set(text)


def test_long_tokens_are_shortened():
    assert V._label("</script>") == "</script>" and V._label("字" * 6) == "字" * 6
    assert V._label("字" * 7) == "字" * 6 + "…" and V._label("a" * 10_000) == "a" * 12 + "…"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("text, pair, error, message", [
    ("", None, ValueError, "空"), ("今" * 10_000, None, ValueError, "10002.*64 个位置"), ("今\ud83d", None, ValueError, "代理"),
    (TEXT, "\udc00", ValueError, "代理"), (7, None, TypeError, "字符串")], ids=["empty", "long", "surrogate", "pair", "type"])
def test_bad_text_is_refused_in_chinese(model, tokenizer, view, text, pair, error, message):
    with pytest.raises(error, match=message):
        V.bertviz_html(model, tokenizer, text, pair, view)


def test_bad_arguments_are_refused_in_chinese(model, tokenizer):
    for options, message in (({"view": "neurons"}, "head、model、neuron"), ({"layers": [2]}, "选的层是 \\[2\\].*0 到 1"),
                             ({"layers": []}, "至少一个"), ({"layers": [0, 0]}, "不要重复"), ({"max_tokens": 1}, "至少是 2")):
        with pytest.raises(ValueError, match=message):
            V.bertviz_html(model, tokenizer, TEXT, **options)
    with pytest.raises(ValueError, match="编码器–解码器"):
        V.bertviz_html(SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=True)), tokenizer, TEXT)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("pair", [None, PAIR], ids=["one", "pair"])
def test_what_is_left_out_is_said_and_the_rest_is_untouched(model, tokenizer, view, pair):
    page = V.bertviz_html(model, tokenizer, TEXT, pair, view, layers=[1], max_tokens=6)
    total = 10 if pair is None else 18
    assert f"有 {total} 个词元，只画前 6 个，后面 {total - 6} 个没有画" in page
    (drawn,) = parts(page)  # 只剩第一段，就不再分段
    expected = get_attentions(model, tokenizer, TEXT, pair)
    assert drawn["left_text"] == expected.tokens[:6]
    torch.testing.assert_close(torch.tensor(drawn["attn"]), expected.weights[1:, :, :6, :6], atol=0.51e-4, rtol=0)
    assert params(page)["course_layers" if view == "neuron" else "include_layers"] == [1]
    assert "只画" not in V.bertviz_html(model, tokenizer, TEXT, view=view)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("pair", [None, "今天" * 14], ids=["one", "pair"])
def test_a_model_of_twelve_layers_stays_under_the_limit(tokenizer, view, pair):
    big = tiny(tokenizer, layers=12, heads=12, hidden=12 * 64)
    text = "昨天" * (28 if pair is None else 14)
    frame = V.bertviz_frame(big, tokenizer, text, pair, view).data
    assert 600_000 < len(frame.encode()) <= 1_500_000  # 用足了，又没有超过
    page = html.unescape(re.search('srcdoc="([^"]*)"', frame)[1])
    layers = params(page)["course_layers" if view == "neuron" else "include_layers"]
    assert layers[0] == 0 and f"只画第 {'、'.join(map(str, layers))} 层" in page and len(layers) < 12
    (T,) = {len(part["left_text"]) for part in parts(page)[:1]}
    assert T <= V.TOKEN_CAPS[view] and f"只画前 {T} 个" in page
    if view == "model":
        assert len(layers) * 12 * T * T <= V.MAX_LINES


def test_layers_asked_for_are_kept_and_tokens_given_up():
    found = Attentions(["字"] * 60, torch.full((24, 16, 60, 60), 1 / 60))
    plan = V.plan_view("head", found, layers=range(24), max_tokens=60)
    assert plan.layers == list(range(24)) and 10 < plan.tokens < 60 and f"只画前 {plan.tokens} 个" in plan.notes[0]
    with pytest.raises(ValueError, match="装不下 24 层"):
        V.plan_view("neuron", found, width=1024, layers=range(24))


def test_another_bertviz_or_another_script_is_named(model, tokenizer, monkeypatch):
    page = '<script src="https://cdn/require.min.js"></script>'
    with pytest.raises(RuntimeError, match=r"bertviz 1\.4\.\d.*恰好出现一次，却出现了 2 次"):
        P.offline_page(page * 2, "head", [], lambda params: None)
    with pytest.raises(RuntimeError, match="require.*出现了 0 次"):
        P.offline_page(page, "head", [], lambda params: None)
    for change in (lambda params: params.update(root_div_id="https:"), lambda params: params.update(big="x" * 1_500_000)):
        monkeypatch.setattr(P, "script_json", json.dumps)  # 不转义的话，外部地址会被认出来
        monkeypatch.setattr(V, "_draw", lambda *args, change=change, draw=V._draw: (draw(*args)[0], change))
        if "https:" in str(change.__code__.co_consts):
            monkeypatch.setattr(P, "ADDRESS", re.compile("https:"))
        with pytest.raises(RuntimeError, match="外部地址|字节"):
            V.bertviz_html(model, tokenizer, TEXT)
        monkeypatch.undo()
    with pytest.raises(RuntimeError, match="没有找到.*pip install"):
        P._script("no-such-package", "a.js", "")
    with pytest.raises(RuntimeError, match="没有找到"):
        P._script("mpld3", "mpld3/js/none.js", "")
    with pytest.raises(RuntimeError, match="mpld3 0.*不是需要的那一版.*v5.7.0"):
        P._script("mpld3", "mpld3/js/d3.v3.min.js", "d3js.org v5.7.0")
