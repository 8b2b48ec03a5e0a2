"""课程自己的交互图：注意力图（AttentionWidget），和画注意力的唯一入口 show_attention。步进图在 utils.views.widgets.stepper。

都是 anywidget：脚本和样式随 Python 包走，断网、JupyterLab 里「全部运行」都能用；
学习者写的字在网页里一律当作文本，不会变成 HTML。每张交互图旁边都配一张静态图（utils.views.figures.attention）。
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import traitlets as t
from IPython.display import display

from utils.analysis.reading import Attentions
from utils.display.fonts import printable, visible
from utils.training.progress import TRANSIENT
from utils.views.figures.attention import attention_figure, attention_grid, comparison_figure
from utils.views.widgets.parts import MAX_SENT, CourseWidget, show_figure
from utils.views.widgets.parts import static as _static
from utils.views.widgets.sides import read_sides, side_names, unknown_notes
from utils.views.widgets.stepper import show_stepper

__all__ = ["AttentionWidget", "show_attention", "show_stepper"]

MAX_TOKENS = 64  # 交互图的上限
MAX_WEIGHTS = MAX_SENT - 150_000  # 一张交互图的权重至多这么多字节；其余留给脚本、样式和字体
MAX_READ = 256  # 静态的缩略图最多读这么长的句子；画不下的由 attention_grid 说明
BERTVIZ = ("head", "model", "neuron")
VIEWS = ("lines", "matrix", "grid", *BERTVIZ)


def to_uint8(weights: torch.Tensor) -> bytes:
    """0 到 1 的权重 -> 每个一字节（误差不超过 1/510），比 JSON 小数小一个数量级。"""
    return (weights * 255).round().clamp(0, 255).to(torch.uint8).contiguous().numpy().tobytes()


class AttentionWidget(CourseWidget):
    """注意力图：连线或矩阵，选层、选头、选词元，存成 PNG、SVG、CSV；给了模型，还能在图上改句子，马上重算。

    参数：
        model, tokenizer：模型与分词器；text：句子；pair：第二段文字（可省，不能在图上改）。
        attentions：已经算好的 Attentions；给了它就不需要模型，图上也不能改句子。
        layer, head：先看哪一层、哪一个头（从 0 数起）；token：先选哪个词元，-1 是不选。
        view: "lines" 连线或 "matrix" 矩阵；max_tokens：最多画多少个词元（合并子词之前数）。
        subwords: "keep" 保留子词，"merge" 合并成词（见 merge_subwords）。
        compare：并排比较的第二栏：第二个模型、(模型, 分词器)、第二句话（pair 不变），或算好的 Attentions。
            两栏共用层、头、视图、选中的位置和颜色标尺；层数或头数较少的一栏停在自己的最后一个。
        names：两栏的名字，例如 ("随机", "练过的")。
    属性：attentions、other：两栏现在的 Attentions（没有第二栏时 other 是 None）；note：哪些字不在词表里，写在图上方。
    错误：ValueError：句子为空、太长，没有这一层、这个头，或不认得 subwords、names;TypeError：不认得 compare。
        之后在图上写错的句子只在图里提示，不会抛出。
    首次使用：self_attention。
    """

    _esm = _static("common.js", "scale.js", "views.js", "panel.js", "export.js", "attention.js")
    tokens = t.List(t.Unicode()).tag(sync=True)
    weights = t.Bytes().tag(sync=True)  # (L, H, T, T)，每个一字节
    n_layers = t.Int().tag(sync=True)
    n_heads = t.Int().tag(sync=True)
    other_tokens = t.List(t.Unicode()).tag(sync=True)  # 第二栏；没有时是空列表
    other_weights = t.Bytes(b"").tag(sync=True)
    other_layers = t.Int(0).tag(sync=True)
    other_heads = t.Int(0).tag(sync=True)
    names = t.List(t.Unicode()).tag(sync=True)
    layer = t.Int(0).tag(sync=True)
    head = t.Int(0).tag(sync=True)
    token = t.Int(-1).tag(sync=True)
    view = t.Enum(["lines", "matrix"], "lines").tag(sync=True)
    text = t.Unicode("").tag(sync=True)
    live = t.Bool(False).tag(sync=True)
    other_text = t.Unicode("").tag(sync=True)
    other_live = t.Bool(False).tag(sync=True)
    note = t.Unicode("").tag(sync=True)
    error = t.Unicode("").tag(sync=True)
    version = t.Int(0).tag(sync=True)  # 每算完一次加一，网页据此重画

    def __init__(self, model=None, tokenizer=None, text: str = "", pair: str | None = None, *,
                 attentions: Attentions | None = None, layer: int = 0, head: int = 0, token: int = -1,
                 view: str = "lines", max_tokens: int = MAX_TOKENS, subwords: str = "keep", compare=None,
                 names: Sequence[str] | None = None):
        read = read_sides(model, tokenizer, text, pair, attentions, max_tokens, subwords, compare)
        self._source, self._other_source = read.readers
        own_text, found, other = read.own_text, read.first, read.second
        sides = [side for side in (found, other) if side is not None]
        layers, heads = max(side.layers for side in sides), max(side.heads for side in sides)
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(f"模型有 {layers} 层、每层 {heads} 个头（都从 0 数起），没有第 {layer} 层第 {head} 个头。")
        self._shared = self._other_source is not None and own_text is None  # 两个模型读同一句话
        longest = max(len(side.tokens) for side in sides)
        super().__init__(layer=layer, head=head, view=view, text=text, live=self._source is not None,
                         other_text=own_text or "", other_live=own_text is not None, names=side_names(names, compare),
                         token=token if token < longest else -1, **self._state(found, other))
        self.attentions, self.other = found, other
        self._carry_all()
        self.observe(self._sentence_changed, names=["text", "other_text"])

    def _compute(self, text: str) -> Attentions:
        return self._source(text)

    def _carry_all(self) -> None:
        self.carry_font(*self.tokens, *self.other_tokens, *self.names, self.text, self.other_text, self.note, self.error)

    @staticmethod
    def _state(found: Attentions, other: Attentions | None) -> dict:
        sides = [side for side in (found, other) if side is not None]
        if sum(side.weights.numel() for side in sides) > MAX_WEIGHTS:
            heads = sum(side.layers * side.heads for side in sides)
            raise ValueError(f"这张图要画{'两栏共' if other else ''} {heads} 个头，最多画 {math.isqrt(MAX_WEIGHTS // heads)} 个词元，"
                             f"这里有 {max(len(side.tokens) for side in sides)} 个：请写短一些，或者只给几层的注意力。")
        state = {"tokens": [visible(token) for token in found.tokens], "weights": to_uint8(found.weights),
                 "n_layers": found.layers, "n_heads": found.heads, "note": unknown_notes(found, other)}
        if other is not None:
            state |= {"other_tokens": [visible(token) for token in other.tokens],
                      "other_weights": to_uint8(other.weights), "other_layers": other.layers,
                      "other_heads": other.heads}
        return state

    def _sentence_changed(self, change) -> None:
        second = change["name"] == "other_text"
        if self._source is None or (second and not self.other_live):
            return
        with self.hold_sync():  # 词元、权重、版本一次送到，网页不会看到半新半旧的状态
            try:
                found = self.attentions if second else self._compute(change["new"])
                other = self._other_source(change["new"]) if second or self._shared else self.other
                state = self._state(found, other)
            except UnicodeError:
                self.error = "句子里有分词器读不了的字符：请删掉它再试。"
            except (ValueError, TypeError) as problem:
                self.error = str(problem)
            except Exception as problem:  # 别的错也要让人看见，否则网页上只是没有反应
                self.error = f"算不出来（{type(problem).__name__}）：{problem}"
            else:
                self.attentions, self.other, self.error, self.token = found, other, "", -1
                for name, value in state.items():
                    setattr(self, name, value)
            self._carry_all()
            self.version += 1


def _show_grid(sides: Sequence[Attentions], names: Sequence[str]) -> None:
    for number, side in enumerate(sides):
        figure = attention_grid(side)
        if names:
            figure.axes[0].set_title(f"{printable(names[number])}：{figure.axes[0].get_title()}", parse_math=False)
        show_figure(figure)


def show_attention(model, tokenizer, text: str, pair: str | None = None, *, view: str = "lines", layer: int = 0,
                   head: int = 0, token: int = -1, subwords: str = "keep", compare=None,
                   names: Sequence[str] | None = None, max_tokens: int | None = None) -> None:
    """画一句话的注意力，只用这一个入口：先一张静态图（不运行也看得到），再一张能操作的交互图。不认识的字先点名。

    参数：
        view："lines" 连线、"matrix" 矩阵：课程自己的交互图，能在图上改句子；"grid"：各层各头排成一张静态图；
            "head"、"model"、"neuron"：bertviz 的三种视图，断网也能用。
        max_tokens：词元数上限；None 时用各视图自己的上限（交互图 64 个，grid 256 个）。
        其余参数与错误同 AttentionWidget；要拿到小部件本身，请直接用 AttentionWidget。
    错误：ValueError：没有这种视图，或 bertviz 的视图用了 compare、subwords="merge"（它自己读模型，做不到）。
    首次使用：self_attention。
    """
    if view not in VIEWS:
        raise ValueError(f"没有 {view!r} 这种视图，可以用的是：{'、'.join(VIEWS)}。")
    if view in BERTVIZ and (compare is not None or subwords == "merge"):
        raise ValueError(f"{view} 是 bertviz 的视图，不能并排比较，也不能合并子词：请改用 lines、matrix 或 grid。")
    picked = token if token >= 0 else None
    if view in ("lines", "matrix"):
        interactive = AttentionWidget(model, tokenizer, text, pair, layer=layer, head=head, token=token, view=view,
                                      subwords=subwords, compare=compare, names=names,
                                      max_tokens=max_tokens or MAX_TOKENS)
        first, second, names = interactive.attentions, interactive.other, interactive.names
    else:
        cap = MAX_TOKENS if view in BERTVIZ else max_tokens or MAX_READ  # bertviz 那边另有自己的上限
        read = read_sides(model, tokenizer, text, pair, None, cap, subwords, compare)
        first, second, names = read.first, read.second, side_names(names, compare)
    if note := unknown_notes(first, second):
        print(note)
    if view == "grid":
        return _show_grid([side for side in (first, second) if side is not None], names)
    if view in BERTVIZ:
        from utils.views.bertviz.views import bertviz_frame

        interactive = bertviz_frame(model, tokenizer, text, pair, view=view, max_tokens=max_tokens, attentions=first)
    show_figure(attention_figure(first, layer, head, picked) if second is None
                 else comparison_figure(first, second, names, layer, head, picked))
    # bertviz 的一张网页有半 MB：打开着看得到，不写进成品 notebook，那里留静态图
    display(interactive, metadata=TRANSIENT if view in BERTVIZ else {})
