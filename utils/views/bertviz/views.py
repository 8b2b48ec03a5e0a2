"""bertviz 的三种视图，断网也能画：页面里什么都有，装进一个 iframe。

bertviz 自己的页面要从 CDN 取 require.js、d3 和 jQuery：断网时一片空白，联网时在 JupyterLab 里「全部运行」也画不出来。
这里只借它的 html_action="return"，其余由 utils.views.bertviz.page 补齐。词元写进脚本之前逐字转义，学习者写什么都只当成文字。
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from IPython.display import HTML

from utils.analysis.reading import Attentions, encode_text, get_attentions
from utils.display.fonts import visible
from utils.views.bertviz.neuron import Prepared, neuron_layers
from utils.views.bertviz.page import MAX_BYTES, libraries, offline_page
from utils.views.figures.attention import chosen, spread
from utils.views.widgets.parts import drawn

MAX_LINES = 60_000  # model 视图一次画出全部连线，再多浏览器要卡好几秒
MAX_READ = 512  # 模型最多读这么多个词元；画出来的还要少
TOKEN_CAPS = {"head": 40, "model": 32, "neuron": 24}


@dataclass(frozen=True)
class Plan:
    """一个视图画什么。tokens：画前多少个词元；layers：画哪些层；notes：没画的东西，每条一句中文。"""

    tokens: int
    layers: list[int]
    notes: list[str]


def bertviz_html(model, tokenizer, text: str, pair: str | None = None, view: str = "head",
                 layers: Sequence[int] | None = None, max_tokens: int | None = None,
                 attentions: Attentions | None = None) -> str:
    """一个 bertviz 视图的完整网页：不含任何外部地址，存成文件也能打开。首次使用：attention_visualization。

    参数：
        model, tokenizer: Hugging Face 模型与分词器；text：句子；pair：第二段文字，可省。
        view："head"（一层里的各个头）、"model"（所有层、所有头）或 "neuron"（q、k 的每一维，只限 BERT 编码器）。
        layers：画哪些层（从 0 数起）；None 表示尽量全画，装不下时均匀地挑几层。
        max_tokens：最多画多少个词元；None 取 TOKEN_CAPS。超出的不画，权重仍按整句计算。
        attentions：get_attentions 读同一句话的结果，有了就不再读一遍；None 时自己读。
    返回：
        HTML 文档。权重保留四位小数；不认识的字、没有画出的层和词元，在页面开头用中文写明。
    错误：
        ValueError：视图名不对、句子为空或太长、没有这一层、模型不适合这个视图；TypeError：句子不是字符串。
        RuntimeError：缺少软件包，或 bertviz 的版本与这里的写法不合。
    来源：Vig 2019, A Multiscale Visualization of Attention in the Transformer Model（bertviz）。
    """
    return _build(model, tokenizer, text, pair, view, layers, max_tokens, attentions)[0]


def bertviz_frame(model, tokenizer, text: str, pair: str | None = None, view: str = "head",
                  layers: Sequence[int] | None = None, max_tokens: int | None = None, height: int | None = None,
                  attentions: Attentions | None = None) -> HTML:
    """同 bertviz_html，装进 iframe，写在单元格最后一行就能看。首次使用：attention_visualization。

    参数：height：框的高度（像素），None 按内容定，最高 900；其余同 bertviz_html。
    返回：IPython 的 HTML 对象。框里的脚本碰不到 notebook（sandbox）；底色总是白的，深色主题下也看得清。
    错误：同 bertviz_html。
    """
    page, needed = _build(model, tokenizer, text, pair, view, layers, max_tokens, attentions)
    label = html.escape(f"bertviz 的 {view} 视图：「{visible(text[:30])}」的注意力")
    style = f"display:block;width:100%;height:{height or min(needed, 900)}px;border:1px solid #bbb;background:#fff"
    return HTML(f'<div><iframe sandbox="allow-scripts" title="{label}" style="{style}" srcdoc="{html.escape(page)}"></iframe></div>')


def plan_view(view: str, attentions: Attentions, second: int | None = None, width: int = 0,
              layers: Sequence[int] | None = None, max_tokens: int = 40) -> Plan:
    """在大小和连线数的上限之内，决定画多少词元、哪些层。

    参数：view：视图名；attentions：整句的注意力；second：第二段从第几个词元开始，没有是 None；
        width：neuron 视图里 q、k 的维数 D，别的视图是 0;layers：指定的层或 None；max_tokens：词元数上限。
    返回：Plan。错误：ValueError：没有这一层，或者怎样也装不下。
    """
    total, H = len(attentions.tokens), attentions.heads
    room = MAX_BYTES - len(html.escape(libraries())) - 140_000  # 后一项留给 bertviz 的脚本、外壳和字体

    def fits(n: int, count: int) -> bool:
        paired = second is not None and second < n  # 有两段时，bertviz 把各部分再存一遍
        weights = 7 * H * n * n * (2 if paired else 1)  # 「0.1234,」是 7 个字节
        vectors = 9 * 2 * H * n * width * (3 if paired else 1)
        return count * (weights + vectors) <= room and (view != "model" or count * H * n * n <= MAX_LINES)

    picked = None if layers is None else chosen(layers, attentions.layers, "层")
    sizes = [n for n in range(2, min(total, max_tokens) + 1) if fits(n, len(picked or [0]))]
    if not sizes:
        raise ValueError(f"一个视图装不下 {len(picked or [0])} 层、每层 {H} 个头：请用 layers= 少选几层。")
    n, notes = sizes[-1], []
    if n < total:
        notes.append(f"这句话有 {total} 个词元，只画前 {n} 个，后面 {total - n} 个没有画；"
                     "权重仍按整句计算，所以画出来的一行加起来可能不到 1。")
    if picked is None:
        picked = spread(attentions.layers, max(k for k in range(1, attentions.layers + 1) if fits(n, k)))
        if len(picked) < attentions.layers:
            notes.append(f"模型有 {attentions.layers} 层，全画会太大，这里只画第 {'、'.join(map(str, picked))} 层；"
                         "想看别的层，用 layers= 指定。")
    return Plan(n, picked, notes)


def _build(model, tokenizer, text, pair, view, layers, max_tokens, attentions) -> tuple[str, int]:
    """返回（网页，内容的高度：像素）。"""
    if view not in TOKEN_CAPS:
        raise ValueError(f"没有 {view!r} 这种视图，可以用的有：{'、'.join(TOKEN_CAPS)}。")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError("这里只画单独的编码器或解码器；编码器–解码器有三种注意力，请分别取出来再画。")
    cap = TOKEN_CAPS[view] if max_tokens is None else max_tokens
    if cap < 2:
        raise ValueError(f"max_tokens 至少是 2，收到的是 {cap}。")
    inputs = encode_text(model, tokenizer, text, pair, MAX_READ)
    data = neuron_layers(model, inputs) if view == "neuron" else []
    attentions = attentions or get_attentions(model, tokenizer, text, pair, MAX_READ)
    T = inputs["input_ids"].size(1)
    if len(attentions.tokens) != T:
        raise ValueError(f"attentions 有 {len(attentions.tokens)} 个词元，这句话却切成 {T} 个：它读的不是这句话。")
    second = _second_start(tokenizer, text, pair, inputs["input_ids"][0].tolist())
    width = data[0]["queries"].size(-1) if data else 0
    plan = plan_view(view, attentions, second, width, layers, cap)
    second = second if second is not None and second < plan.tokens else None
    if attentions.note:
        plan.notes.insert(0, drawn(attentions.note))
    page, change = _draw(view, attentions, plan, second, data)
    return offline_page(page, view, plan.notes, change), _height(view, plan, attentions.heads)


def _draw(view: str, attentions: Attentions, plan: Plan, second: int | None, data: list) -> tuple[str, Callable[[dict], None]]:
    """让 bertviz 画，返回（它的 HTML，写回之前怎样改它的参数）。"""
    from bertviz import head_view, model_view  # 用到才导入：它连带着不少旧模块
    from bertviz.neuron_view import show

    n, labels = plan.tokens, [_label(token) for token in attentions.tokens[: plan.tokens]]
    if view == "neuron":
        ready = Prepared([data[i] for i in plan.layers], n, second)
        page = show(ready, "bert", ready, "a", "b" if second else None, display_mode="light", html_action="return")

        def change(params: dict) -> None:
            params["course_layers"] = plan.layers
            sides = {"a": labels[:second], "b": labels[second:], "al": labels}
            for key, part in params["attention"].items():  # all、aa、ab、ba、bb
                left, right = ("al", "al") if key == "all" else key
                part["left_text"], part["right_text"] = sides[left], sides[right]

        return page.data, change
    weights = [layer[None, :, :n, :n] for layer in attentions.weights]  # L x (1, H, n, n)
    options = {"sentence_b_start": second, "prettify_tokens": False, "include_layers": plan.layers, "html_action": "return"}
    if view == "head":
        return head_view(weights, labels, **options).data, lambda params: None
    page = model_view(weights, labels, display_mode="light", **options)
    return page.data, lambda params: params.update(total_heads=_columns(attentions.heads))


def _second_start(tokenizer, text: str, pair: str | None, ids: list[int]) -> int | None:
    """第二段从第几个词元开始；没有第二段，或者分词器不是按「第一段在前」拼的，就是 None。"""
    first = tokenizer(text)["input_ids"] if pair is not None else []
    return len(first) if first and len(first) < len(ids) and ids[: len(first)] == first else None


def _label(token: str, columns: int = 12) -> str:
    """词元在图上的写法：看不见的字符写成码点，太宽的截短（一个汉字算两列）。"""
    shown, used = "", 0
    for char in visible(token):
        used += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used > columns:
            return shown + "…"
        shown += char
    return shown


def _columns(heads: int) -> int:
    return max(heads, 8)  # 头少时 bertviz 会把格子撑得很大，按八列的宽度画正好


def _height(view: str, plan: Plan, heads: int) -> int:
    """照 bertviz 脚本里的尺寸估计内容的高度（像素）。"""
    n, cell = plan.tokens, 84 / _columns(heads)
    content = {"head": 30 + 22.5 * n, "neuron": 130 + 26 * n,
               "model": max(45 + len(plan.layers) * (n * cell + 10), 60 + 18 * n)}[view]
    return int(content) + 90 + 45 * len(plan.notes)
