"""utils.views.widgets.studio、utils.views.figures.fact_marks、utils.views.figures.studio：写、停、改写、事实着色、转义，以及送出多少字节。"""

import json

import matplotlib.pyplot as plt
import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

from utils.corpus.facts import FactReport
from utils.corpus.news import generate
from utils.display.plotting import use_chinese_font
from utils.generation.writing import complete, stream
from utils.tokenization.tokenizer import build_tokenizer
from utils.views.figures.fact_marks import Mark, article_html, fact_marks, mark_facts
from utils.views.figures.studio import candidates_figure, studio_figure
from utils.views.widgets import studio as S

TEXT = "今天是个大晴天，鹤鸣市最低气温8摄氏度。<b>&"


def make(positions: int = 40, sep: float = 0.0):
    tokenizer = build_tokenizer("char", [TEXT])
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=positions, is_decoder=True,
                        initializer_range=0.4)
    model = BertLMHeadModel(config).eval()
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.sep_token_id] = sep
    return model, tokenizer


@pytest.fixture(scope="module")
def made():
    return make()


def listened(studio):
    """记下写作台送给网页的每一条消息。"""
    sent = []
    studio.send = lambda content, buffers=None: sent.append(json.loads(json.dumps(content)))
    return sent


def told(studio, **content):
    """假装网页送来一条消息。"""
    studio._heard(studio, {"run": studio._run} | content, [])


SETTINGS = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "length": 20, "seed": 5}


# ---- 事实着色
def test_facts_are_marked_by_text_as_well_as_colour_and_escaped():
    report = FactReport([("city", "鹤鸣市"), ("low", "8")], [("high", "<17>", "9")], [], True)
    marked = mark_facts("鹤鸣市<script>8度，18度，9度", report)
    assert "<script>" not in marked and "&lt;script&gt;" in marked and "应为 &lt;17&gt;" in marked
    assert "鹤鸣市</span>✓" in marked and ">8</span>✓" in marked and "9</span>✗" in marked
    assert "18度" in marked                                          # 18 里的 8 不算
    assert fact_marks("鹤鸣市，9度", report) == [Mark(0, 3, None), Mark(4, 5, "<17>")]


def test_article_html_on_the_corpus():
    row = generate("test", 1)[0]
    good = article_html(row["intro"], row["body"])
    assert "✓" in good and "✗" not in good and "写错 0 处，遗漏 0 处" in good
    strange = article_html("<i>随便写的一句</i>", "正文")
    assert "没有可核对的事实" in strange and "<i>" not in strange
    literal = article_html("<i>3月5日</i>的事", "3月5日下雨")
    assert "只按字面核对：守住 1 处" in literal and "<i>" not in literal


# ---- 写、停、接着写、改写
def test_studio_writes_the_same_as_complete(made):
    studio = S.Studio(*made, **SETTINGS)
    text = studio.run()
    same = complete(*made, "今天是个", max_new_tokens=20, temperature=1.0, top_p=0.9, seed=5)
    assert text.rstrip("\n") == str(same) and not studio.running
    studio.temperature = 0.0
    greedy = complete(*made, "今天是个", max_new_tokens=20)
    assert studio.run().rstrip("\n") == str(greedy)
    studio.top_k, studio.temperature = 1, 1.5
    assert studio.run().rstrip("\n") == str(greedy)                  # top-k = 1 就是贪心：滑块真的起作用


def test_one_message_writes_one_character(made):
    studio = S.Studio(*made)
    sent = listened(studio)
    told(studio, do="hello")
    assert sent[-1]["kind"] == "state" and sent[-1]["steps"] == []
    told(studio, do="write", prefix="今天是个", **SETTINGS)
    assert sent[-1]["kind"] == "state" and sent[-1]["running"] and (studio.top_p, studio.seed) == (0.9, 5)
    for at in range(3):
        told(studio, do="next", at=at)
        assert sent[-1]["kind"] == "step" and sent[-1]["at"] == at and len(studio.steps) == at + 1
        assert sum(p for _, p, _, _ in sent[-1]["candidates"]) <= 1.001
    told(studio, do="next", at=1)                                    # 迟到的：不写
    studio._heard(studio, {"do": "next", "run": -1, "at": 3}, [])    # 别的一次：不写
    assert len(studio.steps) == 3


def test_stopping_in_the_middle_and_going_on_gives_the_same_article(made):
    whole = S.Studio(*made, **SETTINGS)
    whole.run()
    studio = S.Studio(*made, **SETTINGS)
    sent = listened(studio)
    studio.begin()
    for _ in range(5):
        studio.advance()
    told(studio, do="stop")
    assert not studio.running and len(studio.steps) == 5 and sent[-1]["kind"] == "state" and not sent[-1]["running"]
    assert not studio.advance()
    told(studio, do="resume")
    while studio.advance():
        pass
    assert studio.text == whole.text and len(whole.steps) > 5


def test_branching_keeps_what_came_before_and_the_random_numbers(made):
    studio = S.Studio(*made, **SETTINGS)
    before = studio.run()
    steps = list(studio.steps)
    studio.branch(3, steps[3].text)                                  # 选原来的字：得到原来的文章
    while studio.advance():
        pass
    assert studio.text == before
    other = next(c.text for c in steps[3].candidates if c.text not in (steps[3].text, S.SEP))
    told(studio, do="branch", at=3, token=other)
    assert studio.running and len(studio.steps) == 4 and studio.picked == {3}
    while studio.advance():
        pass
    assert [s.text for s in studio.steps[:4]] == [*(s.text for s in steps[:3]), other]
    assert len(studio.steps) == SETTINGS["length"] or studio.finished
    studio.branch(1, studio.steps[1].candidates[0].text)             # 还能再往前改
    assert studio.picked == {1}
    with pytest.raises(ValueError, match="没有第 99 步"):
        studio.branch(99, "天")
    with pytest.raises(ValueError, match="不在第 0 步的候选里"):
        studio.branch(0, "不")
    told(studio, do="branch", at=0, token="不")
    assert "不在第 0 步的候选里" in studio.error


def test_choosing_the_end_goes_to_the_body_and_then_finishes():
    studio = S.Studio(*make(sep=3.0), prefix="今天", temperature=0.0, length=12)
    studio.run()
    at = next(i for i, step in enumerate(studio.steps) if S.SEP in [c.text for c in step.candidates])
    studio.branch(at, S.SEP)
    assert studio.text.count("\n") == 1 and studio.running
    studio.advance()
    assert studio.steps[-1].part == "body"
    studio.begin()
    studio.prefix = "今天\n是"
    sent = listened(studio)
    studio.begin()
    while S.SEP not in [c.text for c in studio.steps[-1].candidates] if studio.steps else True:
        assert studio.advance()
    studio.branch(len(studio.steps) - 1, S.SEP)
    assert studio.finished and not studio.running and sent[-1]["finished"] and not studio.advance()
    studio.resume()
    assert not studio.running                                        # 写完了就没有什么可接着写的


def test_facts_reach_the_page_with_their_places(monkeypatch, made):
    row = generate("test", 1)[0]
    studio = S.Studio(*made, prefix=f"{row['intro']}\n{row['body']}")
    studio._begun = studio.prefix
    facts = studio._facts()
    assert facts["marks"] and all(expected is None for _, _, expected in facts["marks"])
    start, end, _ = facts["marks"][0]
    assert row["body"][start:end] in row["intro"] and "写错 0 处" in facts["verdict"]
    monkeypatch.setattr(S, "check_facts", lambda intro, body: FactReport([], [("low", "9", "8")], [], True))
    studio._begun = "气温9度\n今天8度"
    assert studio._facts()["marks"] == [[2, 3, "9"]]


# ---- 写不了的开头说得清楚，怪字送得过去
@pytest.mark.parametrize(("prefix", "reason"), [("  ", "提示是空的"), ("", "提示是空的"), ("\n今天", "提示是空的"), ("晴" * 60, "个位置"),
                                                ("晴" * 10_000, "个位置"), ("今\ud83d天", "半个字符")])
def test_bad_openings_are_refused_clearly(made, prefix, reason):
    studio = S.Studio(*made)
    sent = listened(studio)
    told(studio, do="write", prefix=prefix, **SETTINGS)
    assert reason in sent[-1]["error"] and not studio.running and studio.steps == []
    json.dumps(sent[-1], ensure_ascii=False).encode()                # 送得出去
    assert len(json.dumps(sent[-1] | {"font": ""})) < 20_000 and len(sent[-1]["font"]) < 60_000
    told(studio, do="write", prefix="今天", **SETTINGS)
    assert sent[-1]["error"] == "" and sent[-1]["running"]


@pytest.mark.parametrize(("settings", "reason"), [({"temperature": -1.0}, "温度"), ({"top_p": 0.0}, "top_p"),
                                                  ({"length": 0}, "max_new_tokens"),
                                                  ({"top_k": -3}, "top_k")])
def test_bad_settings_are_refused_clearly(made, settings, reason):
    studio = S.Studio(*made)
    told(studio, do="write", prefix="今天", **(SETTINGS | settings))
    assert reason in studio.error and not studio.running


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"'`{}\\", "今天\u202e好", "今\0天", "好😀👩‍👧"])
def test_hostile_openings_are_shown_as_text(made, text):
    studio = S.Studio(*made, prefix=text, temperature=0.0, length=5)
    sent = listened(studio)
    studio.run()
    assert len(studio.steps) >= 1 and studio.error == ""
    assert not {"\u202e", "\0"} & set(sent[0]["intro"])
    assert text[0] in sent[0]["intro"]


def test_a_fault_while_writing_is_shown(made, monkeypatch):
    def broken(*_, **__):
        yield from ()
        raise RuntimeError("坏了")

    monkeypatch.setattr(S, "stream", broken)
    studio = S.Studio(*made)
    studio.run()
    assert "坏了" in studio.error and not studio.running


# ---- 大小
def test_all_that_is_sent_stays_under_one_megabyte():
    """最长的一篇、改写十次，连脚本和样式在内，送给网页的一共不到 1 MB。"""
    studio = S.Studio(*make(positions=256, sep=-1e4), length=240, temperature=1.5, top_p=1.0)
    sent = listened(studio)
    studio.run()
    assert len(studio.steps) == 240
    once = sum(len(json.dumps(message).encode()) for message in sent)
    code = len(S.Studio._esm.encode()) + len(S.Studio._css.encode())
    print(f"脚本和样式 {code / 1000:.0f} KB，写一篇 240 字送 {once / 1000:.0f} KB")
    assert once < 300_000 and code + once < 1_000_000
    assert len(sent) == 242                                          # 开始、每个字、结束各一条：不会越写越多


# ---- 静态图
def test_candidates_figure(made):
    steps = list(stream(*made, "今天", max_new_tokens=6))
    use_chinese_font()
    figure = candidates_figure(steps)
    figure.canvas.draw()
    chosen = [patch for patch in figure.axes[0].patches if patch.get_linewidth() > 2]
    assert len(chosen) == len(steps)
    plt.close(figure)
    with pytest.raises(ValueError, match="一步也没有"):
        candidates_figure([])


def test_studio_figure_shows_the_text_the_signs_and_the_candidates(monkeypatch, made):
    from utils.views.figures import studio as F

    use_chinese_font()
    monkeypatch.setattr(F, "check_facts", lambda intro, body: FactReport([("a", "今")], [("b", "9", "天")], [], True))
    steps = list(stream(*made, "今天$<b>\u202e\n今天", max_new_tokens=6))
    figure = studio_figure("今天$<b>\u202e\n今天", steps, at=2)
    figure.canvas.draw()                                             # 画不出的字会是错误
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn.count("✓") >= 1 and drawn.count("✗") >= 1 and "U+202E" in drawn and "$" in drawn
    names = {"完" if c.text == S.SEP else c.text for c in steps[2].candidates}
    assert {label.get_text() for label in figure.axes[1].get_yticklabels()} == names
    plt.close(figure)
    with pytest.raises(ValueError, match="一步也没有"):
        studio_figure("今天", [])
