"""写作台：拉滑块、看模型一个字一个字地写，以及把守住和写错的事实标出来。

首次使用：09_generation。全部在本机运行，不联网；学习者写的字和模型写的字进入网页之前都经过转义。
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import ipywidgets as w
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from utils.facts import FactReport, check_facts
from utils.generation import Step, stream

GREEN = "color:#00664b;font-weight:700;border-bottom:2px solid #009e73"
PAGE = "max-width:46em;line-height:1.9;"
RED = "color:#a33c00;font-weight:700;border-bottom:2px wavy #d55e00"


# ---- 事实着色
def mark_facts(body: str, report: FactReport) -> str:
    """把正文变成 HTML：守住的事实标绿带 ✓，写错的标红带 ✗ 和应有的值。不靠颜色也看得懂。

    参数：body: 正文；report: check_facts（导语， 正文） 的结果。返回：转义过的 HTML。
    局限：按值找位置。写错的值若在别处恰好又出现（例如「10 个」写错，文中还有「10 时」），那一处也会标红。
    首次使用：09_generation。
    """
    wrong = {written: expected for _, expected, written in report.contradicted}
    kept = {value for _, value in report.kept} - set(wrong)
    spans = [value for value in sorted(kept | set(wrong), key=len, reverse=True) if value]
    if not spans:
        return html.escape(body)
    pattern = "|".join(rf"(?<!\d){value}(?!\d)" if value.isdigit() else re.escape(value) for value in spans)
    parts, last = [], 0
    for found in re.finditer(pattern, body):
        text = html.escape(found.group())
        parts.append(html.escape(body[last: found.start()]))
        if found.group() in wrong:
            expected = html.escape(wrong[found.group()])
            parts.append(f'<span style="{RED}">{text}</span>✗<small>（应为 {expected}）</small>')
        else:
            parts.append(f'<span style="{GREEN}">{text}</span>✓')
        last = found.end()
    return "".join(parts) + html.escape(body[last:])


def article_html(intro: str, body: str) -> str:
    """一篇文章的 HTML：导语、着色的正文、一行结论。导语不合自带语料的写法时，只按字面核对，并照实说明。"""
    report = check_facts(intro, body)
    marked = mark_facts(body, report)
    counts = len(report.kept), len(report.contradicted), len(report.missing)
    verdict = "守住 {} 处，写错 {} 处，遗漏 {} 处".format(*counts)
    if report.missing:
        verdict += "（遗漏：" + "、".join(value for _, value in report.missing) + "）"
    verdict += "。" if report.well_formed else "；正文不合语料的写法。"
    if not report.intro_known:
        verdict = f"这条导语不在自带语料的写法之内，只按字面核对：{verdict}" if sum(counts) else \
            "这条导语不在自带语料的写法之内，里面也没有认得出的日期、数量和专名，没有可核对的事实。"
    return (f'<div style="{PAGE}margin:0 0 14px"><div><b>导语</b> {html.escape(intro)}</div>'
            f"<div><b>正文</b> {marked}</div><div><small>{html.escape(verdict)}</small></div></div>")


# ---- 静态图：每一步的候选
def candidates_figure(steps: Sequence[Step], title: str = "每一步的候选字", rows: int = 5,
                      columns: int = 16) -> Figure:
    """每列是一步，从上到下是概率最高的几个候选，越深概率越大；粗框是真正写下的字。

    参数：steps: stream 交出的各步；title: 标题；rows, columns: 最多画几名候选、几步。
    返回：Figure。异常：ValueError: 一步也没有。
    首次使用：09_generation。
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
            ax.text(x, y - 0.12, _name(c.text), fontsize=12, **style)
            ax.text(x, y + 0.29, f"{100 * c.probability:.0f}%", fontsize=6.5, **style)
    ax.set(xlim=(-0.6, len(steps) - 0.4), ylim=(rows - 0.4, -0.6), title=title, ylabel="候选的名次",
           xlabel="第几个字（粗框是写下的字，「完」是 [SEP]）", xticks=range(len(steps)), yticks=range(rows))
    ax.set_xticklabels(range(1, len(steps) + 1), fontsize=8)
    ax.set_yticklabels(range(1, rows + 1), fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


# ---- 写作台
def _name(token: str) -> str:
    return "完" if token == "[SEP]" else token


def _bars(step: Step) -> str:
    rows = ["<tr><th>候选</th><th></th><th>模型的概率</th><th>抽中的机会</th><th></th></tr>"]
    for c in step.candidates:
        width = max(1, round(200 * c.probability))
        bar = f'<div style="background:#0072b2;height:10px;width:{width}px"></div>'
        cells = [html.escape(_name(c.text)), bar, f"{100 * c.probability:.1f}%", f"{100 * c.chance:.1f}%",
                 "← 写下" if c.text == step.text else ""]
        rows.append("<tr>" + "".join(f'<td style="padding:0 8px">{cell}</td>' for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


class Studio:
    """写作台：导语框、滑块、逐字显示、候选条；写完以后可以回到任意一步，换一个候选重写。

    参数：model, tokenizer: 同 utils.generation.generate;prefix: 开头，换行之后算正文。
    属性：box: 要显示的小部件；steps: 最近一次写下的各步；text: 最近一次的全文。
    键盘：Tab 在控件之间移动，方向键调滑块，在按钮上按空格或回车开始写。
    首次使用：09_generation。
    """

    def __init__(self, model, tokenizer, prefix: str = "今天是个"):
        self.model, self.tokenizer = model, tokenizer
        self.steps: list[Step] = []
        self.prefix, self.text = "", ""
        wide = {"description_width": "7em"}
        page = w.Layout(width="46em")
        self.prompt = w.Textarea(prefix, description="开头", rows=3, layout=page, style=wide)
        self.temperature = w.FloatSlider(0.8, min=0, max=2, step=0.1, description="温度（0 贪心）", style=wide)
        self.top_k = w.IntSlider(0, min=0, max=50, description="top-k（0 不限）", style=wide)
        self.top_p = w.FloatSlider(0.95, min=0.05, max=1.0, step=0.05, description="top-p", style=wide)
        self.length = w.IntSlider(120, min=5, max=240, description="最多几个字", style=wide)
        self.seed = w.BoundedIntText(1, min=0, max=10**6, description="种子", style=wide)
        self.write = w.Button(description="写", button_style="primary", tooltip="按空格或回车开始写")
        self.at = w.IntSlider(1, min=1, max=1, description="回看第几个字", style=wide, disabled=True)
        self.other = w.Dropdown(options=[], description="换成", style=wide, disabled=True)
        self.branch = w.Button(description="从这里改写", disabled=True)
        self.page, self.bars = w.HTML(), w.HTML()
        self.write.on_click(lambda _: self.run())
        self.branch.on_click(lambda _: self.rewrite())
        self.at.observe(lambda _: self._look(), names="value")
        rows = [[self.temperature, self.top_k], [self.top_p, self.length], [self.seed, self.write]]
        self.box = w.VBox([self.prompt, *map(w.HBox, rows), self.page,
                           w.HBox([self.at, self.other, self.branch]), self.bars])

    def _settings(self) -> dict:
        if self.temperature.value == 0:
            return {"strategy": "greedy"}
        return {"temperature": self.temperature.value, "top_k": self.top_k.value or None,
                "top_p": self.top_p.value, "seed": self.seed.value}

    def run(self, prefix: str | None = None) -> str:
        """从开头写起，逐字显示；出错时把原因显示在页面上。返回全文（导语与正文之间是换行）。"""
        self.prefix = self.prompt.value if prefix is None else prefix
        self.steps, self.text, self.write.disabled = [], self.prefix, True
        try:
            room = self.model.config.max_position_embeddings - len(self.prefix) - 1
            limit = max(1, min(self.length.value, room))
            settings = {"max_new_tokens": limit, **self._settings()}
            for step in stream(self.model, self.tokenizer, self.prefix, **settings):
                self.steps.append(step)
                self.text = self._upto(len(self.steps))
                self.page.value, self.bars.value = self._page(), _bars(step)
        except (ValueError, TypeError) as problem:
            self.page.value, self.bars.value = f'<p style="{RED}">✗ {html.escape(str(problem))}</p>', ""
        else:
            self._finish()
        finally:
            self.write.disabled = False
            done = len(self.steps)
            self.at.disabled = self.other.disabled = self.branch.disabled = not done
            self.at.max = max(1, done)
            self.at.value = max(1, done)
            self._look()
        return self.text

    def rewrite(self) -> str:
        """回到「回看第几个字」那一步，换成选中的候选，再往下写。返回全文。"""
        if not self.steps or self.other.value is None:
            return self.text
        index, token = self.at.value - 1, self.other.value
        if token != "[SEP]":
            return self.run(self._upto(index) + token)
        if self.steps[index].part == "intro":
            return self.run(self._upto(index) + "\n")
        self.text = self._upto(index)                                      # 在正文里选「完」，就是到此为止
        self._finish()
        return self.text

    def _finish(self) -> None:
        intro, newline, body = self.text.partition("\n")
        self.page.value = article_html(intro, body) if newline else self._page()

    def _upto(self, n: int) -> str:
        text = self.prefix
        for step in self.steps[:n]:
            text += step.text if step.text != "[SEP]" else "\n" if step.part == "intro" else ""
        return text

    def _page(self) -> str:
        return f'<div style="{PAGE}white-space:pre-wrap">{html.escape(self.text)}▌</div>'

    def _look(self) -> None:
        if not self.steps:
            return
        step = self.steps[min(self.at.value, len(self.steps)) - 1]
        self.bars.value = _bars(step)
        self.other.options = [(_name(c.text), c.text) for c in step.candidates]
