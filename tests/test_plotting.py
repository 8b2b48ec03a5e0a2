"""画图：没有中文字体的机器上也不出方框；字体子集改了名、带着许可证。"""

import warnings

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from tools.fonts import wanted_characters
from utils.display import plotting
from utils.display.fonts import FAMILY, FONT_FILE
from utils.paths import DATA, ROOT

# 只在文字里讲、不画进图的：emoji、零宽连接符、替换符
TEXT_ONLY = set("✅❌😂👩😀👧👨\u200d\ufe0f\ufffd")


def course_characters():
    files = [*ROOT.glob("data/news/**/*.txt"), *ROOT.glob("notebooks/src/*.py")]
    assert len(files) > 20
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    return {c for c in text if ord(c) > 32 and ord(c) < 0x1F000} - TEXT_ONLY


@pytest.fixture
def bare_machine(monkeypatch):
    """一台没有中文字体的机器：系统字体只剩 DejaVu。"""
    kept = [f for f in font_manager.fontManager.ttflist if f.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", kept)
    font_manager.fontManager._findfont_cached.cache_clear()
    with plt.rc_context(), warnings.catch_warnings():
        yield
    font_manager.fontManager._findfont_cached.cache_clear()
    plt.close("all")


def test_subset_is_chosen_without_a_system_font(bare_machine):
    assert plotting.use_chinese_font() == FAMILY
    assert plt.rcParams["font.family"] == [FAMILY, "DejaVu Sans"]


def test_system_font_comes_first(bare_machine, monkeypatch):
    mine = font_manager.FontEntry(fname=str(FONT_FILE), name="Noto Sans CJK SC")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist, mine])
    assert plotting.use_chinese_font() == "Noto Sans CJK SC"
    assert plt.rcParams["font.family"] == ["Noto Sans CJK SC", FAMILY, "DejaVu Sans"]


def test_missing_font_file_is_an_error_in_chinese(bare_machine, monkeypatch, tmp_path):
    monkeypatch.setattr(plotting, "FONT_FILE", tmp_path / "gone.otf")
    with pytest.raises(FileNotFoundError, match="找不到中文字体文件 gone.otf"):
        plotting.use_chinese_font()


def test_every_course_character_is_drawn(bare_machine):
    plotting.use_chinese_font()
    chars = sorted(course_characters())
    assert len(chars) > 1500
    fig = plt.figure(figsize=(8, len(chars) / 60 * 0.25), layout="none")
    for row, start in enumerate(range(0, len(chars), 60)):
        text = "".join(chars[start:start + 60]).replace("$", r"\$")
        fig.text(0, 1 - 15 * row / len(chars) * 4, text, parse_math=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fig.canvas.draw()
    assert [str(w.message) for w in caught if "Glyph" in str(w.message)] == []


def test_a_missing_glyph_is_an_error(bare_machine):
    plotting.use_chinese_font()
    fig = plt.figure(layout="none")
    fig.text(0, 0, "\U0001f600 \uac00")                                # emoji 与谚文，字体里没有
    with pytest.raises(UserWarning, match="Glyph"):
        fig.canvas.draw()


def test_corpus_and_lessons_are_in_the_font_file():
    have = set(FT2Font(str(FONT_FILE)).get_charmap())
    dejavu = set(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())
    lost = {c for c in course_characters() if ord(c) not in have | dejavu}
    lost |= {c for c in course_characters() if 0x3000 <= ord(c) < 0xA000 and ord(c) not in have}
    assert not lost, f"字体子集缺「{''.join(sorted(lost))}」。请重做：python -m tools.fonts NotoSansCJK-Regular.ttc"
    assert {ord(c) for c in course_characters()} <= wanted_characters()


def test_font_is_renamed_and_licensed():
    font = FT2Font(str(FONT_FILE))
    assert font.family_name == FAMILY == "CourseSansSC"
    assert "Noto" not in font.postscript_name and "Source" not in font.postscript_name
    names = [v.replace(b"\0", b"") for (_, _, _, kind), v in font.get_sfnt().items() if kind in (1, 3, 4, 6, 16)]
    assert len(names) >= 4 and all(name.startswith(b"CourseSansSC") for name in names)
    licence = (FONT_FILE.parent / "OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence and "Copyright" in licence
    assert FONT_FILE.stat().st_size < 3e6 and FONT_FILE.is_relative_to(DATA)


@pytest.mark.parametrize("make", [lambda x: x, torch.Tensor.numpy, lambda x: x.requires_grad_()])
def test_heatmap(make):
    matrix = make(torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.125, 0.0]]))
    ax = plotting.heatmap(matrix, list("甲乙丙"), list("天地"), "标题", xlabel="列", ylabel="行", annotate=True)
    assert [t.get_text() for t in ax.get_xticklabels()] == list("甲乙丙")
    assert [t.get_text() for t in ax.get_yticklabels()] == list("天地")
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("标题", "列", "行")
    cells = {t.get_position(): (t.get_text(), t.get_color()) for t in ax.texts}
    assert len(cells) == 6 and cells[1, 0] == ("1.00", "white") and cells[0, 0] == ("0.00", "black")
    plt.close("all")


def test_heatmap_label_mismatch():
    with pytest.raises(ValueError, match=r"\(2, 3\).*3 行 2 列"):
        plotting.heatmap(torch.zeros(2, 3), list("甲乙"), list("天地玄"), "标题")


def test_loss_curve():
    ax = plotting.loss_curve({"训练": ([1, 2], [3.0, 2.0])}, {"下限": 0.5}, "损失")
    assert ax.get_ylim()[0] == 0 and list(ax.lines[0].get_ydata()) == [3.0, 2.0]
    assert ax.lines[1].get_ydata()[0] == 0.5 and ax.lines[1].get_linestyle() == "--"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["训练", "下限 0.50"]
    plt.close("all")


def test_heatmap_sizes_its_labels_and_stands_long_ones_up():
    ax = plotting.heatmap([[0.1, 0.9]], ["[CLS]", "字"], ["行"], "标题", size=12)
    assert [t.get_rotation() for t in ax.get_xticklabels()] == [90, 0]
    assert {t.get_fontsize() for t in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label)} == {12}
    plain = plotting.heatmap([[0.1, 0.9]], ["[CLS]", "字"], ["行"], "标题")
    assert [t.get_rotation() for t in plain.get_xticklabels()] == [0, 0]
    plt.close("all")
