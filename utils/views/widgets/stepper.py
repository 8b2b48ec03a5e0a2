"""步进图：选一个词元，一步步看它怎样从 q·k 走到新向量。旁边的静态图在 utils.views.figures.attention。"""

from __future__ import annotations

import traitlets as t
from IPython.display import display

from utils.analysis.reading import HeadVectors, attention_steps, get_head_vectors
from utils.display.fonts import visible
from utils.views.figures.attention import stepper_figure
from utils.views.widgets.parts import CourseWidget, drawn, show_figure, static

MAX_TOKENS = 64


class AttentionStepper(CourseWidget):
    """步进图：选一个词元，看它怎样一步步从 q·k 走到新向量。

    参数：vectors：一个头的 HeadVectors(q、k、v 各 (T, D)，mask (T, T));
        token：先看哪个词元；step：先停在第几步，0 到 4。
    属性：scores、scaled、masked、weights 都是 (T, T)，output 是 (T, D)，全是 float32 的字节。
    首次使用：self_attention。
    """

    _esm = static("common.js", "stepper.js")
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
        self.carry_font(*self.tokens)


def show_stepper(model, tokenizer, text: str, *, layer: int = 0, head: int = 0, token: int = 1) -> None:
    """取出一个头的 q、k、v，先画五步的静态图，再放能一步步走的交互图；不认识的字先点名。首次使用：self_attention。"""
    vectors = get_head_vectors(model, tokenizer, text, layer, head, max_tokens=MAX_TOKENS)
    widget = AttentionStepper(vectors, token=token)
    if vectors.note:
        print(drawn(vectors.note))
    show_figure(stepper_figure(vectors, token))
    display(widget)
