"""写作台的静态图：不运行也看得到。每一步的候选，以及一篇文章连同它的事实和某一步的候选。

首次使用：generation。
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from utils.corpus.facts import check_facts
from utils.display.fonts import printable
from utils.generation.writing import Step
from utils.views.figures.fact_marks import fact_marks, verdict

GOOD, BAD, MUTED = "#00664b", "#a33c00", "#6b7280"
SEP = "[SEP]"


def _name(token: str) -> str:
    return "完" if token == SEP else token


def candidates_figure(steps: Sequence[Step], title: str = "每一步的候选字", rows: int = 5,
                      columns: int = 16) -> Figure:
    """每列是一步，从上到下是概率最高的几个候选，越深概率越大；粗框是真正写下的字。

    参数：steps: stream 交出的各步；title: 标题；rows, columns: 最多画几名候选、几步。
    返回：Figure。异常：ValueError: 一步也没有。
    首次使用：generation。
    """
    steps = list(steps)[:columns]
    if not steps:
        raise ValueError("一步也没有，画不出候选图。")
    fig, ax = plt.subplots(figsize=(min(9.0, 1.6 + 0.47 * len(steps)), 0.9 + 0.5 * rows))
    for x, step in enumerate(steps):
        for y, c in enumerate(step.candidates[:rows]):
            chosen = c.text == step.text
            color, width = ("#D55E00", 2.2) if chosen else ("#cccccc", 0.6)
            shade = plt.cm.Blues(c.probability * 0.8)
            ax.add_patch(plt.Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, edgecolor=color, lw=width,
                                       facecolor=shade, zorder=2 if chosen else 1))
            ink = "white" if c.probability > 0.65 else "black"
            style = {"ha": "center", "va": "center", "color": ink, "zorder": 3}
            ax.text(x, y - 0.12, printable(_name(c.text)), fontsize=12, **style)
            ax.text(x, y + 0.29, f"{100 * c.probability:.0f}%", fontsize=6.5, **style)
    ax.set(xlim=(-0.6, len(steps) - 0.4), ylim=(rows - 0.4, -0.6), title=title, ylabel="候选的名次",
           xlabel="第几个字（粗框是写下的字，「完」是 [SEP]）", xticks=range(len(steps)), yticks=range(rows))
    ax.set_xticklabels(range(1, len(steps) + 1), fontsize=8)
    ax.set_yticklabels(range(1, rows + 1), fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


def _cells(prefix: str, steps: Sequence[Step]) -> tuple[list[list[tuple]], str]:
    """文章排成格子：[导语的格子，正文的格子]，每格 （字，颜色，底色深浅，第几步或 None）；以及事实的结论。"""
    intro, newline, given = prefix.partition("\n")
    lines = [[(c, MUTED, 0.0, None) for c in intro], [(c, MUTED, 0.0, None) for c in given]]
    for n, step in enumerate(steps):
        doubt = 0.5 * (1 - step.candidates[0].probability)
        lines[step.part == "body"].append((_name(step.text), "black" if step.text != SEP else MUTED, doubt, n))
    written = {part: "".join(s.text for s in steps if s.part == part and s.text != SEP) for part in ("intro", "body")}
    body, marked = given + written["body"], list(lines[1])
    if not body:
        return lines, "还没有写到正文，没有事实可核对。"
    report = check_facts(intro + written["intro"], body)
    for mark in reversed(fact_marks(body, report)):
        good = mark.expected is None
        for i in range(mark.start, mark.end):
            marked[i] = (marked[i][0], GOOD if good else BAD, *marked[i][2:])
        marked.insert(mark.end, ("✓" if good else "✗", GOOD if good else BAD, 0.0, None))
    return [lines[0], marked], verdict(report)


def studio_figure(prefix: str, steps: Sequence[Step], at: int | None = None, title: str = "写作台", columns: int = 26) -> Figure:
    """左边是文章：灰字是给定的开头，底色越深模型当时越拿不准，绿字带 ✓ 是守住的事实，红字带 ✗ 是写错的；
    右边是第 at 步（从 0 数起，左边框出的那个字）的候选，None 表示挑模型最拿不准的一步。

    参数：prefix: 开头，换行之后算正文；steps: stream 交出的各步；columns: 一行几个字。
    返回：Figure。异常：ValueError: 一步也没有。
    首次使用：generation。
    """
    steps = list(steps)
    if not steps:
        raise ValueError("一步也没有，画不出写作台的图。")
    at = min(range(len(steps)), key=lambda n: steps[n].candidates[0].probability) if at is None else at
    lines, found = _cells(prefix, steps)
    rows = sum(max(1, -(-len(line) // columns)) for line in lines if line) + 2
    fig, (page, bars) = plt.subplots(1, 2, figsize=(9, max(3.0, 0.3 * rows + 0.8)), width_ratios=[2.2, 1])
    y = 0.0
    for name, line in zip(("导语", "正文"), lines, strict=True):
        if not line:
            continue
        page.text(-0.6, y, name, ha="right", va="center", fontsize=9, color=MUTED)
        for i, (char, color, doubt, n) in enumerate(line):
            x, below = i % columns, y + i // columns
            if doubt > 0.02 or n == at:
                page.add_patch(plt.Rectangle((x - 0.5, below - 0.46), 1, 0.92, facecolor=plt.cm.Blues(doubt), zorder=2 if n == at else 1,
                                             edgecolor="#D55E00" if n == at else "none", lw=1.8))
            seen = printable(char)                                        # 看不见的字符写成 U+XXXX，要小一号
            page.text(x, below, seen, ha="center", va="center", fontsize=10.5 if len(seen) == 1 else 4, color=color, zorder=3,
                      parse_math=False)
            if color in (GOOD, BAD):
                page.plot([x - 0.5, x + 0.5], [below + 0.44] * 2, color=color, lw=1.4, ls="-" if color == GOOD else ":", zorder=3)
        y += -(-len(line) // columns) + 0.6
    page.set(xlim=(-2.6, columns), ylim=(y + 0.2, -0.8), title=title)
    page.text(-2.4, y, found, fontsize=8.5, color=MUTED, va="center", parse_math=False, wrap=True)
    page.axis("off")
    shown = steps[at].candidates[::-1]                                    # 概率大的在上面
    bars.barh([printable(_name(c.text)) for c in shown], [c.probability for c in shown],
              color=["#D55E00" if c.text == steps[at].text else "#0072B2" for c in shown])
    bars.set(title=f"第 {at + 1} 步的候选（橙色是写下的）", xlabel="模型的概率", xlim=(0, 1.1 * shown[-1].probability))
    return fig
