"""课程自己的交互图：注意力图（AttentionWidget）与步进图（AttentionStepper）。

都是 anywidget：脚本和样式随 Python 包走，断网、JupyterLab 里「全部运行」都能用；
学习者写的字在网页里一律当作文本，不会变成 HTML。每张交互图旁边都配一张静态图（utils.attention_figures）。
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import matplotlib.pyplot as plt
import torch
import traitlets as t
from IPython.display import display

from utils.attention import Attentions, HeadVectors, attention_steps, get_attentions, get_head_vectors
from utils.attention_figures import attention_figure, stepper_figure, visible

__all__ = ["AttentionStepper", "AttentionWidget", "attention_figure", "show_attention", "show_stepper",
           "stepper_figure"]

STATIC = Path(__file__).parent / "static"
MAX_TOKENS = 64


def _static(*names: str) -> str:
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)


def to_uint8(weights: torch.Tensor) -> bytes:
    """0 到 1 的权重 -> 每个一字节（误差不超过 1/510），比 JSON 小数小一个数量级。"""
    return (weights * 255).round().clamp(0, 255).to(torch.uint8).contiguous().numpy().tobytes()


class AttentionWidget(anywidget.AnyWidget):
    """注意力图：连线或矩阵，选层、选头、选词元；给了模型，还能在图上改句子，马上重算。

    参数：
        model, tokenizer：模型与分词器；text：句子；pair：第二段文字（可省，不能在图上改）。
        attentions：已经算好的 Attentions；给了它就不需要模型，图上也不能改句子。
        layer, head：先看哪一层、哪一个头（从 0 数起）；token：先选哪个词元，-1 是不选。
        view: "lines" 连线或 "matrix" 矩阵；max_tokens：最多画多少个词元。
    错误：ValueError：句子为空、太长，或没有这一层、这个头。之后在图上写错的句子只在图里提示，不会抛出。
    首次使用：03_self_attention。
    """

    _esm = _static("common.js", "attention.js")
    _css = _static("widgets.css")
    tokens = t.List(t.Unicode()).tag(sync=True)
    weights = t.Bytes().tag(sync=True)  # (L, H, T, T)，每个一字节
    n_layers = t.Int().tag(sync=True)
    n_heads = t.Int().tag(sync=True)
    layer = t.Int(0).tag(sync=True)
    head = t.Int(0).tag(sync=True)
    token = t.Int(-1).tag(sync=True)
    view = t.Enum(["lines", "matrix"], "lines").tag(sync=True)
    text = t.Unicode("").tag(sync=True)
    live = t.Bool(False).tag(sync=True)
    error = t.Unicode("").tag(sync=True)
    version = t.Int(0).tag(sync=True)  # 每算完一次加一，网页据此重画

    def __init__(self, model=None, tokenizer=None, text: str = "", pair: str | None = None, *,
                 attentions: Attentions | None = None, layer: int = 0, head: int = 0, token: int = -1,
                 view: str = "lines", max_tokens: int = MAX_TOKENS):
        if attentions is None and (model is None or tokenizer is None):
            raise ValueError("请给出 model 和 tokenizer，或者给出算好的 attentions。")
        self._source = None if attentions is not None else (model, tokenizer, pair, max_tokens)
        found = attentions if attentions is not None else self._compute(text)
        if not (0 <= layer < found.layers and 0 <= head < found.heads):
            raise ValueError(f"模型有 {found.layers} 层、每层 {found.heads} 个头（都从 0 数起），"
                             f"没有第 {layer} 层第 {head} 个头。")
        super().__init__(layer=layer, head=head, view=view, text=text, live=self._source is not None,
                         **self._state(found), token=token if token < len(found.tokens) else -1)
        self.attentions = found
        self.observe(self._sentence_changed, names="text")

    def _compute(self, text: str) -> Attentions:
        model, tokenizer, pair, max_tokens = self._source
        return get_attentions(model, tokenizer, text, pair, max_tokens)

    @staticmethod
    def _state(found: Attentions) -> dict:
        return {"tokens": [visible(token) for token in found.tokens], "weights": to_uint8(found.weights),
                "n_layers": found.layers, "n_heads": found.heads}

    def _sentence_changed(self, change) -> None:
        if self._source is None:
            return
        with self.hold_sync():  # 词元、权重、版本一次送到，网页不会看到半新半旧的状态
            try:
                found = self._compute(change["new"])
            except (ValueError, TypeError) as problem:
                self.error = str(problem)
            except Exception as problem:  # 别的错也要让人看见，否则网页上只是没有反应
                self.error = f"算不出来（{type(problem).__name__}）:{problem}"
            else:
                self.attentions, self.error, self.token = found, "", -1
                for name, value in self._state(found).items():
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


def show_attention(model, tokenizer, text: str, pair: str | None = None, *, layer: int = 0, head: int = 0,
                   token: int = -1, view: str = "lines", max_tokens: int = MAX_TOKENS) -> None:
    """一句话画出注意力：先一张静态图（不运行也看得到），再一张能点、能改句子的交互图。

    参数与错误同 AttentionWidget；要拿到小部件本身，请直接用 AttentionWidget。首次使用：03_self_attention。
    """
    widget = AttentionWidget(model, tokenizer, text, pair, layer=layer, head=head, token=token, view=view,
                             max_tokens=max_tokens)
    figure = attention_figure(widget.attentions, layer, head, token if token >= 0 else None)
    display(figure)
    plt.close(figure)
    display(widget)


def show_stepper(model, tokenizer, text: str, *, layer: int = 0, head: int = 0, token: int = 1) -> None:
    """取出一个头的 q、k、v，先画五步的静态图，再放能一步步走的交互图。首次使用：03_self_attention。"""
    vectors = get_head_vectors(model, tokenizer, text, layer, head, max_tokens=MAX_TOKENS)
    widget = AttentionStepper(vectors, token=token)
    figure = stepper_figure(vectors, token)
    display(figure)
    plt.close(figure)
    display(widget)
