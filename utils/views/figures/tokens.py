"""看词元：同一段文字在各种粒度下切成的小方块，网页版和静态图两种画法。

首次实现：tokenization。学习者输入的文字一律转义，不联网，也不依赖任何脚本库。
"""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.patches import FancyBboxPatch

from utils.display.fonts import visible
from utils.tokenization.names import unknown_name
from utils.tokenization.tokenizer import GRANULARITY_NAMES, encode_texts
from utils.tokenization.vocabularies import bytes_to_symbols

MAX_CHARS = 200  # 演示用，再长的文字看不过来
_TINTS = ("#D6E8F5", "#FBE3CC", "#D3EFE4")  # 浅蓝、浅橙、浅绿：色盲也能分开，且每块都有边框
_EDGES = ("#0072B2", "#B34E00", "#00704F")
_SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\u3000": "□"}
_BYTE_OF = {symbol: byte for byte, symbol in enumerate(bytes_to_symbols())}
_STYLE = """<style>
.course-tok{display:inline-block;margin:2px;padding:1px 5px;border:1.5px solid;border-radius:5px;color:#111;
 text-align:center;line-height:1.25;position:relative;white-space:pre}
.course-tok small{display:block;font-size:10px;color:#333}
.course-tok:focus{outline:3px solid #111}
.course-tok:focus::after{content:attr(data-tip);position:absolute;left:0;top:100%;z-index:9;background:#111;
 color:#fff;padding:2px 6px;border-radius:4px;font-size:12px;white-space:nowrap}
</style>"""


@dataclass(frozen=True)
class TokenPiece:
    """一个词元：编号、词表里的写法、给人看的标签、对应的 UTF-8 字节，以及它在某批文字里出现的次数（不知道就是 None）。"""

    id: int
    token: str
    label: str
    data: bytes
    count: int | None = None

    @property
    def tip(self) -> str:
        """悬停时看到的说明。"""
        spelled = " ".join(f"{byte:02X}" for byte in self.data)
        seen = "" if self.count is None else f" · 训练文本里出现 {self.count:,} 次"
        return f"编号 {self.id} · 词表写法 {self.token} · 字节 {spelled}（{len(self.data)} 个）{seen}"


def count_tokens(tokenizers: Mapping[str, object], texts: Sequence[str]) -> dict[str, Counter]:
    """每种粒度的每个编号在 texts 里出现几次：粒度名 → Counter（编号 → 次数），给 ``token_playground`` 用。"""
    return {name: Counter(i for ids in encode_texts(tok, texts, special=False) for i in ids) for name, tok in tokenizers.items()}


def token_pieces(tokenizer, text: str, counts: Mapping[int, int] | None = None) -> list[TokenPiece]:
    """把文字切成 ``TokenPiece`` 的列表，不加 [CLS] 与 [SEP]，文字里的 ``[MASK]`` 等只当普通文字。

    counts 是编号 → 次数；给了，每个词元就带上它的次数（没有的算 0）。不认识的一段，标签是「[UNK]鲁」，看得出原来是什么字。
    """
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    kind = tokenizer.backend_tokenizer.decoder.__class__.__name__
    pieces = []
    for i, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        token, count = tokenizer.convert_ids_to_tokens(i), None if counts is None else counts.get(i, 0)
        if i == tokenizer.unk_token_id:
            pieces.append(TokenPiece(i, token, visible(unknown_name(text[start:stop])), text[start:stop].encode(), count))
            continue
        if kind == "ByteLevel":
            data = bytes(_BYTE_OF[symbol] for symbol in token)
        elif len(token) == 6 and token.startswith("<0x"):
            data = bytes([int(token[3:5], 16)])
        else:
            data = text[start:stop].encode()
        pieces.append(TokenPiece(i, token, _label(data), data, count))
    return pieces


def _label(data: bytes) -> str:
    try:
        return "".join(_SHOWN.get(char, char) for char in data.decode())
    except UnicodeDecodeError:
        return " ".join(f"{byte:02X}" for byte in data)  # 半个汉字没有字形，只好写十六进制


def tokens_html(tokenizers: Mapping[str, object], text: str, counts: Mapping[str, Mapping[int, int]] | None = None) -> str:
    """各粒度一行的 HTML 片段。

    参数：
        tokenizers: 粒度名 → 分词器。
        text: 任意文字；超过 ``MAX_CHARS`` 个字符的部分不画，并写明。不成对的代理码（半个字符）画成 �。
        counts: ``count_tokens`` 的返回值；给了，悬停时还显示这个词元在训练文本里的次数。
    返回：
        HTML 字符串。学习者的文字全部转义；每块可用 Tab 键走到，鼠标悬停或获得焦点时显示编号、字节与次数。
    """
    shown = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text[:MAX_CHARS])
    rows = [_STYLE]
    if len(text) > MAX_CHARS:
        rows.append(f"<p>只画前 {MAX_CHARS} 个字符（一共 {len(text)} 个）。</p>")
    for name, tokenizer in tokenizers.items():
        pieces = token_pieces(tokenizer, shown, None if counts is None else counts[name])
        title = html.escape(GRANULARITY_NAMES.get(name, name))
        boxes = "".join(_box(piece, i) for i, piece in enumerate(pieces))
        rows.append(
            f'<div role="group" aria-label="{title}" style="margin:6px 0"><b>{title}</b>'
            f"（{len(pieces)} 个词元，{len(shown)} 个字符，{len(shown.encode())} 个字节）<br>{boxes}</div>"
        )
    return "\n".join(rows)


def _box(piece: TokenPiece, index: int) -> str:
    tip = html.escape(piece.tip, quote=True)
    color = f"background:{_TINTS[index % 3]};border-color:{_EDGES[index % 3]}"
    label = html.escape(piece.label, quote=True)
    return (
        f'<span class="course-tok" tabindex="0" style="{color}" title="{tip}" data-tip="{tip}">'
        f"{label}<small>{piece.id}</small></span>"
    )


def token_playground(tokenizers: Mapping[str, object], text: str, counts: Mapping[str, Mapping[int, int]] | None = None):
    """文本框加各粒度的方块，边输入边更新；counts 同 ``tokens_html``。返回一个 ipywidgets 的 ``VBox``。"""
    from ipywidgets import HTML, Layout, Text, VBox

    from utils.display.web_fonts import CLASS
    from utils.views.widgets.parts import ChineseFont

    box = Text(value=text, description="文字：", layout=Layout(width="95%"), continuous_update=True)
    view = HTML(tokens_html(tokenizers, text, counts))

    font = ChineseFont(box.description, text, view.value)

    def update(change):
        page = tokens_html(tokenizers, change["new"], counts)
        font.carry_font(box.description, change["new"], page)
        view.value = page

    box.observe(update, names="value")
    whole = VBox([box, view, font])
    whole.add_class(CLASS)
    return whole


def draw_tokens(tokenizers: Mapping[str, object], text: str, width: float = 46.0):
    """与 ``tokens_html`` 同样内容的静态图。返回 matplotlib 的 Figure。

    参数：
        width: 一行的宽度，单位大约是一个汉字；排不下就换行。
    字体里没有的字（emoji、生僻字）写成码点，例如 U+20BB7。
    """
    rows, place = [], 0.0
    for name, tokenizer in tokenizers.items():
        pieces = token_pieces(tokenizer, text[:MAX_CHARS])
        rows.append(("title", 0.0, place, f"{GRANULARITY_NAMES.get(name, name)}：{len(pieces)} 个词元", 0))
        x, place = 0.0, place + 1.5
        for i, piece in enumerate(pieces):
            label = "".join(map(_drawable, piece.label))
            size = sum(1.05 if ord(char) > 0x2E7F else 0.62 for char in label) + 0.7
            if x and x + size > width:
                x, place = 0.0, place + 1.9
            rows.append((label, x, place, size, i))
            x += size + 0.25
        place += 2.1
    figure, axes = plt.subplots(figsize=(8.5, place * 0.185 + 0.3))
    for label, x, y, extra, i in rows:
        if label == "title":
            axes.text(x, y + 0.6, extra, va="center", fontsize=10.5, color="#444")
            continue
        axes.add_patch(
            FancyBboxPatch(
                (x, y), extra, 1.5, boxstyle="round,pad=0,rounding_size=0.25",
                facecolor=_TINTS[i % 3], edgecolor=_EDGES[i % 3], linewidth=1,
            )  # fmt: skip
        )
        center = x + extra / 2
        axes.text(center, y + 0.75, label, ha="center", va="center", fontsize=9, parse_math=False)
    axes.set(xlim=(-0.2, width + 0.2), ylim=(place, -0.4))
    axes.axis("off")
    axes.set_title("同一段文字，各种粒度的词元", fontsize=11)
    return figure


def _drawable(char: str) -> str:
    fonts = font_manager.fontManager._find_fonts_by_props(font_manager.FontProperties())
    if any(font_manager.get_font(font).get_char_index(ord(char)) for font in fonts):
        return char
    return f"U+{ord(char):04X}"
