"""utils.studio：转义、事实着色、写作台的写与改写。"""

import matplotlib.pyplot as plt
import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

from utils import studio as S
from utils.corpus import generate
from utils.facts import FactReport
from utils.generation import complete, stream
from utils.plotting import use_chinese_font
from utils.tokenization import build_tokenizer

TEXT = "今天是个大晴天，鹤鸣市最低气温8摄氏度。<b>&"


@pytest.fixture(scope="module")
def made():
    tokenizer = build_tokenizer("char", [TEXT])
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=40, is_decoder=True,
                        initializer_range=0.4)
    return BertLMHeadModel(config).eval(), tokenizer


def test_facts_are_marked_by_text_as_well_as_colour_and_escaped():
    report = FactReport([("city", "鹤鸣市"), ("low", "8")], [("high", "<17>", "9")], [], True)
    marked = S.mark_facts("鹤鸣市<script>8度，18度，9度", report)
    assert "<script>" not in marked and "&lt;script&gt;" in marked and "应为 &lt;17&gt;" in marked
    assert "鹤鸣市</span>✓" in marked and ">8</span>✓" in marked and "9</span>✗" in marked
    assert "18度" in marked                                          # 18 里的 8 不算


def test_article_html_on_the_corpus():
    row = generate("test", 1)[0]
    good = S.article_html(row["intro"], row["body"])
    assert "✓" in good and "✗" not in good and "写错 0 处，遗漏 0 处" in good
    strange = S.article_html("<i>随便写的一句</i>", "正文")
    assert "没有可核对的事实" in strange and "<i>" not in strange
    literal = S.article_html("<i>3月5日</i>的事", "3月5日下雨")
    assert "只按字面核对：守住 1 处" in literal and "<i>" not in literal


def test_studio_writes_the_same_as_complete(made):
    studio = S.Studio(*made, prefix="今天是个")
    studio.length.value, studio.seed.value, studio.temperature.value = 20, 5, 1.0
    text = studio.run()
    same = complete(*made, "今天是个", max_new_tokens=20, temperature=1.0, top_p=studio.top_p.value, seed=5)
    assert text.rstrip("\n") == str(same)
    assert studio.at.max == len(studio.steps) and not studio.branch.disabled and not studio.write.disabled
    studio.temperature.value = 0
    assert studio.run().startswith("今天是个")


def test_studio_rewrites_from_a_step(made):
    studio = S.Studio(*made, prefix="今天")
    studio.length.value, studio.temperature.value = 12, 0
    before = studio.run()
    studio.at.value = 3
    other = next(value for _, value in studio.other.options if value not in (studio.steps[2].text, "[SEP]"))
    studio.other.value = other
    after = studio.rewrite()
    assert after[:4] == before[:4] and after[4] == other != before[4]


def test_studio_shows_errors_and_escapes(made):
    studio = S.Studio(*made, prefix="  ")
    studio.run()
    assert "提示是空的" in studio.page.value and studio.branch.disabled and not studio.write.disabled
    studio.prompt.value = "晴" * 60
    studio.run()
    assert "个位置" in studio.page.value
    studio.prompt.value, studio.length.value = "<b>今天", 5
    studio.run()
    assert "<b>今" not in studio.page.value and "&lt;b&gt;今天" in studio.page.value


def test_candidates_figure(made):
    steps = list(stream(*made, "今天", max_new_tokens=6))
    use_chinese_font()
    figure = S.candidates_figure(steps)
    figure.canvas.draw()
    chosen = [patch for patch in figure.axes[0].patches if patch.get_linewidth() > 2]
    assert len(chosen) == len(steps)
    plt.close(figure)
    with pytest.raises(ValueError, match="一步也没有"):
        S.candidates_figure([])
