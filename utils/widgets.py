"""课程自己的交互图：注意力图（AttentionWidget）与步进图（AttentionStepper）。

都是 anywidget：脚本和样式随 Python 包走，断网、JupyterLab 里「全部运行」都能用；
学习者写的字在网页里一律当作文本，不会变成 HTML。每张交互图旁边都配一张静态图（utils.attention_figures）。
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anywidget
import matplotlib.pyplot as plt
import torch
import traitlets as t
from IPython.display import display
from matplotlib.figure import Figure

from utils.attention import (
    Attentions,
    HeadVectors,
    attention_steps,
    get_attentions,
    get_head_vectors,
    merge_subwords,
    word_groups,
)
from utils.attention_figures import PICK, attention_figure, attention_grid, printable, stepper_figure, visible
from utils.plotting import heatmap
from utils.progress import TRANSIENT

__all__ = ["AttentionStepper", "AttentionWidget", "attention_figure", "comparison_figure", "show_attention",
           "show_stepper", "stepper_figure"]

STATIC = Path(__file__).parent / "static"
MAX_TOKENS = 64  # 交互图的上限
GRID_TOKENS = 256  # 缩略图的上限；画不下的由 attention_grid 说明
BERTVIZ = ("head", "model", "neuron")
VIEWS = ("lines", "matrix", "grid", *BERTVIZ)


def _static(*names: str) -> str:
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)


def to_uint8(weights: torch.Tensor) -> bytes:
    """0 到 1 的权重 -> 每个一字节（误差不超过 1/510），比 JSON 小数小一个数量级。"""
    return (weights * 255).round().clamp(0, 255).to(torch.uint8).contiguous().numpy().tobytes()


@dataclass(frozen=True)
class _Reader:
    """读一句话得到 Attentions 的办法：哪个模型、哪个分词器、合不合并子词。"""

    model: object
    tokenizer: object
    pair: str | None
    max_tokens: int
    merge: bool

    def __call__(self, text: str) -> Attentions:
        found = get_attentions(self.model, self.tokenizer, text, self.pair, self.max_tokens)
        return merge_subwords(found, word_groups(self.tokenizer, text, self.pair)) if self.merge else found


def _second(compare, first: _Reader | None) -> tuple[_Reader | None, str | None]:
    """compare 参数 -> (怎样读第二栏，第二栏自己的句子)；None 表示不用读或与第一栏同一句。"""
    if compare is None or isinstance(compare, Attentions):
        return None, None
    if first is None:
        raise ValueError("第一栏是算好的 attentions，没有模型：compare 也只能是算好的 Attentions。")
    if isinstance(compare, str):
        return first, compare
    if isinstance(compare, tuple) and len(compare) == 2:
        return replace(first, model=compare[0], tokenizer=compare[1]), None
    if isinstance(compare, torch.nn.Module):
        return replace(first, model=compare), None
    raise TypeError("compare 可以是第二个模型、(模型, 分词器)、第二句话，或算好的 Attentions，"
                    f"收到的是 {type(compare).__name__}。")


@dataclass(frozen=True)
class _Sides:
    """一栏或两栏注意力，以及以后改了句子怎样重读。"""

    readers: tuple[_Reader | None, _Reader | None]
    own_text: str | None
    first: Attentions
    second: Attentions | None


def _read_sides(model, tokenizer, text: str, pair: str | None, attentions: Attentions | None, max_tokens: int,
                subwords: str, compare) -> _Sides:
    if attentions is None and (model is None or tokenizer is None):
        raise ValueError("请给出 model 和 tokenizer，或者给出算好的 attentions。")
    if subwords not in ("keep", "merge"):
        raise ValueError(f"subwords 只能是 keep（保留子词）或 merge（合并成词），收到的是 {subwords!r}。")
    given = merge_subwords if subwords == "merge" else lambda found: found
    reader = None if attentions is not None else _Reader(model, tokenizer, pair, max_tokens, subwords == "merge")
    other_reader, own_text = _second(compare, reader)
    first = reader(text) if reader else given(attentions)
    if other_reader is not None:
        second = other_reader(text if own_text is None else own_text)
    else:
        second = None if compare is None else given(compare)
    return _Sides((reader, other_reader), own_text, first, second)


def _names(names, compare) -> list[str]:
    if compare is None:
        return []
    if names is None:
        return {str: ["第一句", "第二句"], Attentions: ["左图", "右图"]}.get(type(compare), ["第一个模型", "第二个模型"])
    if isinstance(names, str) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise ValueError('names 要给两个名字，例如 ("随机", "练过的")。')
    return [visible(name) for name in names]


class AttentionWidget(anywidget.AnyWidget):
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
    属性：attentions、other：两栏现在的 Attentions（没有第二栏时 other 是 None）。
    错误：ValueError：句子为空、太长，没有这一层、这个头，或不认得 subwords、names;TypeError：不认得 compare。
        之后在图上写错的句子只在图里提示，不会抛出。
    首次使用：03_self_attention。
    """

    _esm = _static("common.js", "scale.js", "views.js", "panel.js", "export.js", "attention.js")
    _css = _static("widgets.css")
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
    error = t.Unicode("").tag(sync=True)
    version = t.Int(0).tag(sync=True)  # 每算完一次加一，网页据此重画

    def __init__(self, model=None, tokenizer=None, text: str = "", pair: str | None = None, *,
                 attentions: Attentions | None = None, layer: int = 0, head: int = 0, token: int = -1,
                 view: str = "lines", max_tokens: int = MAX_TOKENS, subwords: str = "keep", compare=None,
                 names: Sequence[str] | None = None):
        read = _read_sides(model, tokenizer, text, pair, attentions, max_tokens, subwords, compare)
        self._source, self._other_source = read.readers
        own_text, found, other = read.own_text, read.first, read.second
        sides = [side for side in (found, other) if side is not None]
        layers, heads = max(side.layers for side in sides), max(side.heads for side in sides)
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(f"模型有 {layers} 层、每层 {heads} 个头（都从 0 数起），没有第 {layer} 层第 {head} 个头。")
        self._shared = self._other_source is not None and own_text is None  # 两个模型读同一句话
        longest = max(len(side.tokens) for side in sides)
        super().__init__(layer=layer, head=head, view=view, text=text, live=self._source is not None,
                         other_text=own_text or "", other_live=own_text is not None, names=_names(names, compare),
                         token=token if token < longest else -1, **self._state(found, other))
        self.attentions, self.other = found, other
        self.observe(self._sentence_changed, names=["text", "other_text"])

    def _compute(self, text: str) -> Attentions:
        return self._source(text)

    @staticmethod
    def _state(found: Attentions, other: Attentions | None) -> dict:
        state = {"tokens": [visible(token) for token in found.tokens], "weights": to_uint8(found.weights),
                 "n_layers": found.layers, "n_heads": found.heads}
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
            except UnicodeError:
                self.error = "句子里有分词器读不了的字符：请删掉它再试。"
            except (ValueError, TypeError) as problem:
                self.error = str(problem)
            except Exception as problem:  # 别的错也要让人看见，否则网页上只是没有反应
                self.error = f"算不出来（{type(problem).__name__}）：{problem}"
            else:
                self.attentions, self.other, self.error, self.token = found, other, "", -1
                for name, value in self._state(found, other).items():
                    setattr(self, name, value)
            self.version += 1


class AttentionStepper(anywidget.AnyWidget):
    """步进图：选一个词元，看它怎样一步步从 q·k 走到新向量。

    参数：vectors：一个头的 HeadVectors(q、k、v 各 (T, D)，mask (T, T));
        token：先看哪个词元；step：先停在第几步，0 到 4。
    属性：scores、scaled、masked、weights 都是 (T, T)，output 是 (T, D)，全是 float32 的字节。
    首次使用：03_self_attention。
    """

    _esm = _static("common.js", "stepper.js")
    _css = _static("widgets.css")
    tokens = t.List(t.Unicode()).tag(sync=True)
    dim = t.Int().tag(sync=True)
    q = t.Bytes().tag(sync=True)
    k = t.Bytes().tag(sync=True)
    v = t.Bytes().tag(sync=True)
    scores = t.Bytes().tag(sync=True)
    scaled = t.Bytes().tag(sync=True)
    masked = t.Bytes().tag(sync=True)
    weights = t.Bytes().tag(sync=True)
    output = t.Bytes().tag(sync=True)
    token = t.Int(0).tag(sync=True)
    step = t.Int(0).tag(sync=True)

    def __init__(self, vectors: HeadVectors, token: int = 0, step: int = 0):
        if not (0 <= token < len(vectors.tokens) and 0 <= step <= 4):
            raise ValueError(f"token 要在 0 到 {len(vectors.tokens) - 1} 之间，step 要在 0 到 4 之间。")
        self.vectors = vectors
        state = {name: x.detach().float().contiguous().numpy().tobytes()
                 for name, x in attention_steps(vectors).items()}
        super().__init__(tokens=[visible(name) for name in vectors.tokens], dim=vectors.q.size(-1),
                         token=token, step=step, **state)


def comparison_figure(first: Attentions, second: Attentions, names: Sequence[str], layer: int = 0, head: int = 0,
                      token: int | None = None) -> Figure:
    """两张注意力矩阵并排，同一层、同一个头、同一把颜色标尺。首次使用：07_attention_visualization。

    参数：first, second：两个 Attentions；names：两个名字；layer, head：从 0 数起，超出时停在最后一个；
        token：框出这个词元的一行，None 不框。
    返回：matplotlib 图。
    """
    sides = [(side, min(layer, side.layers - 1), min(head, side.heads - 1)) for side in (first, second)]
    matrices = [side.weights[at, h].numpy() for side, at, h in sides]
    top = max(float(matrix.max()) for matrix in matrices)
    longest = max(len(matrix) for matrix in matrices)
    size = 11 if longest <= 18 else 9 if longest <= 30 else 6
    figure, axes = plt.subplots(1, 2, figsize=(10, min(8.0, 2.2 + 0.17 * max(longest, 10))))
    for ax, (side, at, h), matrix, name in zip(axes, sides, matrices, names, strict=True):
        labels = [printable(label) for label in side.tokens]
        heatmap(matrix, labels, labels, f"{printable(name)}：层 {at} · 头 {h}", ax=ax, xlabel="看向谁（键）",
                ylabel="谁在看（查询）", vmin=0, vmax=top)
        ax.tick_params(labelsize=size)
        ax.tick_params(axis="x", rotation=0 if len(labels) <= 12 else 90)
        if token is not None and token < len(labels):
            ax.add_patch(plt.Rectangle((-0.5, token - 0.5), len(labels), 1, fill=False, edgecolor=PICK, linewidth=1.8))
        for label in (ax.title, *ax.get_xticklabels(), *ax.get_yticklabels()):
            label.set_parse_math(False)  # 句子里的 $ 是美元，不是公式
    figure.colorbar(axes[1].images[0], ax=list(axes), label="权重（两张图同一标尺）", fraction=0.03, pad=0.02)
    return figure


def _show_figure(figure: Figure) -> None:
    display(figure)
    plt.close(figure)


def _show_grid(sides: Sequence[Attentions], names: Sequence[str]) -> None:
    for number, side in enumerate(sides):
        figure = attention_grid(side)
        if names:
            figure.axes[0].set_title(f"{printable(names[number])}：{figure.axes[0].get_title()}", parse_math=False)
        _show_figure(figure)


def show_attention(model, tokenizer, text: str, pair: str | None = None, *, view: str = "lines", layer: int = 0,
                   head: int = 0, token: int = -1, subwords: str = "keep", compare=None,
                   names: Sequence[str] | None = None, max_tokens: int | None = None) -> None:
    """画一句话的注意力，只用这一个入口：先一张静态图（不运行也看得到），再一张能操作的交互图。

    参数：
        view："lines" 连线、"matrix" 矩阵：课程自己的交互图，能在图上改句子；"grid"：各层各头排成一张静态图；
            "head"、"model"、"neuron"：bertviz 的三种视图，断网也能用。
        max_tokens：词元数上限；None 时用各视图自己的上限（交互图 64 个，grid 256 个）。
        其余参数与错误同 AttentionWidget；要拿到小部件本身，请直接用 AttentionWidget。
    错误：ValueError：没有这种视图，或 bertviz 的视图用了 compare、subwords="merge"（它自己读模型，做不到）。
    首次使用：03_self_attention。
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
        cap = MAX_TOKENS if view in BERTVIZ else max_tokens or GRID_TOKENS  # bertviz 那边另有自己的上限
        read = _read_sides(model, tokenizer, text, pair, None, cap, subwords, compare)
        first, second, names = read.first, read.second, _names(names, compare)
    if view == "grid":
        return _show_grid([side for side in (first, second) if side is not None], names)
    if view in BERTVIZ:
        from utils.bertviz_views import bertviz_frame

        interactive = bertviz_frame(model, tokenizer, text, pair, view=view, max_tokens=max_tokens)
    _show_figure(attention_figure(first, layer, head, picked) if second is None
                 else comparison_figure(first, second, names, layer, head, picked))
    # bertviz 的一张网页有半 MB：打开着看得到，不写进成品 notebook，那里留静态图
    display(interactive, metadata=TRANSIENT if view in BERTVIZ else {})


def show_stepper(model, tokenizer, text: str, *, layer: int = 0, head: int = 0, token: int = 1) -> None:
    """取出一个头的 q、k、v，先画五步的静态图，再放能一步步走的交互图。首次使用：03_self_attention。"""
    vectors = get_head_vectors(model, tokenizer, text, layer, head, max_tokens=MAX_TOKENS)
    widget = AttentionStepper(vectors, token=token)
    _show_figure(stepper_figure(vectors, token))
    display(widget)
