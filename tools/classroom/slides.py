"""投影片：由一本 notebook 的源和输出，做成一个 HTML 文件（reveal.js，脚本都装在里面，断网也能放）。只是铺路石（plumbing）。

一节（## 标题）一列，向右走；一格代码连同它前面的话和后面的输出一页，向下走。话太长时，页上只留要点，全文放进讲稿（按 S 看）。
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import mistune
from latex2mathml.converter import convert as to_mathml
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from tools.classroom.release import FOLDED, notebook
from tools.notebooks.exercises import tag
from tools.notebooks.manage import outputs
from utils.display.web_fonts import font_face
from utils.road import stop_of

LONG = 130                                                # 一页上的话超过这么多字，就只留要点
LINES = 14                                                # 文字输出最多几行
CODE_LINES = 16                                           # 代码超过这么多行，只留开头

STYLE = """
.reveal{font-family:system-ui,"Noto Sans CJK SC","Microsoft YaHei","PingFang SC",CourseSansSC,sans-serif;font-size:27px;color:#1f2328}
.reveal-viewport{background:#fffdf7}
.reveal .slides{text-align:left}
.reveal h1,.reveal h2,.reveal h3{font-weight:600}
.reveal h1{font-size:1.9em;margin:.2em 0}.reveal h2{font-size:1.35em;margin:0 0 .4em;color:#0072b2}.reveal h3{font-size:1.1em;margin:.2em 0}
.reveal .where{font-size:.62em;color:#6e7781;margin-bottom:.3em}
.reveal p,.reveal li{line-height:1.5;margin:.25em 0}.reveal ul,.reveal ol{margin:.2em 0 .2em 1.1em}
.reveal table{border-collapse:collapse;font-size:.72em}.reveal th,.reveal td{border:1px solid #c9c2b0;padding:.15em .5em}
.reveal .columns{display:flex;gap:1em;align-items:flex-start}.reveal .columns>*{flex:1 1 0;min-width:0}
.reveal pre{box-shadow:none;width:100%;margin:.3em 0;font-size:.64em;line-height:1.4;background:#f6f3ea;padding:.5em .7em;border-radius:6px;
white-space:pre-wrap;overflow:hidden;font-family:Consolas,Menlo,"DejaVu Sans Mono","Noto Sans Mono CJK SC",CourseSansSC,monospace}
.reveal .picture>:first-child{flex:0 0 30%}.reveal section.title h2{padding-top:270px;font-size:1.9em}
.reveal pre,.reveal .columns>*{box-sizing:border-box}
.reveal code{font-family:Consolas,Menlo,"DejaVu Sans Mono","Noto Sans Mono CJK SC",CourseSansSC,monospace}
.reveal pre.out{background:#fff;border:1px solid #d8d2c4}.reveal code{font-size:.9em;background:#f1ecdf;padding:0 .2em;border-radius:3px}
.reveal pre code{background:none;padding:0;font-size:1em}
.reveal img{display:block;max-width:100%;max-height:600px;margin:.2em auto;background:#fff}
.reveal math{font-family:math,"Noto Sans CJK SC","Microsoft YaHei","PingFang SC",CourseSansSC}
.reveal .ask{border-left:6px solid #d55e00;padding:.1em .8em;background:#fff4ec}.reveal math{font-size:1.05em}
.reveal section{height:100%;overflow:hidden}
"""

FIT = """
function fit(page){                                  // 放不下的一页，把字缩小一点
  if(!page||page.dataset.fitted)return; page.dataset.fitted=1;
  for(let size=95; page.scrollHeight>722&&size>=55; size-=5) page.style.fontSize=size+'%';
}
function show(settings){                             // 字体装好了再显示，否则头一页会是方框
  const start=()=>{document.body.hidden=false; Reveal.initialize(settings)};
  document.fonts.load('1em CourseSansSC','汉').then(start,start);
}
Reveal.on('ready',e=>fit(e.currentSlide)); Reveal.on('slidechanged',e=>fit(e.currentSlide));
"""


@dataclass
class Slide:
    """一页：text 是话（Markdown），code 是代码，outputs 是输出的 HTML，exercise 为真的是练习。"""

    text: str = ""
    code: str = ""
    outputs: list[str] = field(default_factory=list)
    exercise: bool = False


def read_slides(nb: NotebookNode) -> list[tuple[str, list[Slide]]]:
    """把一本 notebook 切成 [（节的标题，[页])]；第一节是封面。起始单元、检查的一格和参考答案不要。"""
    sections: list[tuple[str, list[Slide]]] = [("", [])]
    waiting = ""                                          # 还没有配到代码的话
    for cell in nb.cells:
        kind = tag(cell)
        if kind in ("answer", "check") or "from utils.environment import start" in cell.source:
            continue
        if cell.cell_type == "markdown":
            for n, piece in enumerate(re.split(r"^## ", FOLDED.sub("\n\n", cell.source), flags=re.M)):
                if n:
                    _flush(sections, waiting)
                    title, _, waiting = piece.partition("\n")
                    sections.append((title.strip(), []))
                else:
                    _flush(sections, waiting)
                    waiting = piece
            if kind == "exercise":
                sections[-1][1].append(Slide(waiting.strip(), exercise=True))
                waiting = ""
        elif "from utils.checks import" in cell.source:
            waiting = ""                                  # 练习的开场白
        elif kind == "stub":
            sections[-1][1][-1].code = cell.source
        else:
            sections[-1][1].append(Slide(waiting.strip(), cell.source, outputs_html(cell)))
            waiting = ""
    _flush(sections, waiting)
    return [(title, slides) for title, slides in sections if slides and title != "延伸阅读"]


def _flush(sections: list[tuple[str, list[Slide]]], text: str) -> None:
    if text.strip():
        sections[-1][1].append(Slide(text.strip()))


def outputs_html(cell: NotebookNode) -> list[str]:
    """一格的输出：图是 PNG，其余是文字（太长就截短）。控件和网页不要。"""
    found = []
    for output in cell.get("outputs", []):
        if output.get("metadata", {}).get("course") == "transient":            # 训练时会动的进度
            continue
        data = output.get("data", {})
        if "image/png" in data:
            picture = "".join(data["image/png"]).replace("\n", "")
            found.append(f'<img src="data:image/png;base64,{picture}" alt="{escape(cell.source.splitlines()[-1][:60])}">')
            continue
        text = "".join(output.get("text", "") or ("" if "text/html" in data else data.get("text/plain", "")))
        if text.strip():
            found.append(f'<pre class="out">{escape("".join(_shorten(text, LINES)))}</pre>')
    return found


def _shorten(text: str, limit: int) -> tuple[str, str]:
    """（留下的行，去掉了一些时添的一句，没有去掉就是空的）。"""
    lines = text.rstrip().splitlines()
    return ("\n".join(lines), "") if len(lines) <= limit else ("\n".join(lines[:limit - 1]), f"\n……（共 {len(lines)} 行）")


def gist(text: str) -> str:
    """话太长时留下要点：公式、列表、表格、小标题原样，其余每段只留第一句。"""
    if len(re.sub(r"\s", "", text)) <= LONG:
        return text
    kept = []
    for block in re.split(r"\n\s*\n", text):
        if re.match(r"\s*(\$\$|[-*|#>]|\d+\.|```|!\[)", block):
            kept.append(block)
        else:
            kept.append(re.split(r"(?<=[。？！])(?![」』）*])", join_lines(block), maxsplit=1)[0])
    return "\n\n".join(kept)


def join_lines(text: str) -> str:
    """汉字与汉字之间的换行去掉：网页会把它变成一个空格。"""
    return re.sub(r"(?<=[^\x00-\x7f|])\n(?=[^\x00-\x7f|])", "", text)


class _WithoutLinks(mistune.HTMLRenderer):
    """链接只留字：投影片离开了课程文件夹，指向别的 notebook 的链接点不开。"""

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return text


def render(text: str) -> str:
    """Markdown 变成 HTML：公式变成 MathML（浏览器自己会画，不用脚本），写在源里的 HTML 一律转义。"""
    formulas: list[str] = []

    def keep(match: re.Match) -> str:
        block = match[1] is not None
        formulas.append(_formula(match[1] if block else match[2], block))
        return f"\x02{len(formulas) - 1}\x03"

    pieces = re.split(r"(```.*?```|`[^`\n]+`)", text, flags=re.S)           # 代码里的 $ 不是公式
    text = "".join(p if n % 2 else re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", keep, join_lines(p), flags=re.S) for n, p in enumerate(pieces))
    html = mistune.create_markdown(renderer=_WithoutLinks(escape=True), plugins=["table", "strikethrough"])(text)
    return re.sub("\x02(\\d+)\x03", lambda m: formulas[int(m[1])], html)


def _formula(latex: str, block: bool) -> str:
    try:
        return to_mathml(latex.strip(), display="block" if block else "inline")
    except Exception:                                     # noqa: BLE001 认不得的写法就照原样显示
        return f"<code>{escape(latex)}</code>"


def _slide(slide: Slide, where: str) -> str:
    text, code = render(gist(slide.text)), ""
    if slide.code.strip():
        kept, more = _shorten(slide.code, CODE_LINES)
        code = highlight(kept, PythonLexer(), HtmlFormatter(nowrap=True, noclasses=True))      # 以换行收尾
        code = f"<pre><code>{code}{more.lstrip()}</code></pre>"                # more 不交给着色的：它不是 Python
    outputs = "".join(slide.outputs)
    if slide.exercise:
        text = f'<div class="ask">{text}</div>'
    body, hidden = text + code + outputs, ""
    if "<img" in outputs:                                 # 有图的一页，图要大：代码放进讲稿
        body, hidden = f'<div class="columns picture"><div>{text}</div><div>{outputs}</div></div>', code
    elif len((slide.code + outputs).splitlines()) > 18 and outputs and text + code:
        body = f'<div class="columns"><div>{text}{code}</div><div>{outputs}</div></div>'
    whole = render(slide.text) if gist(slide.text) != slide.text else ""
    note = f'<aside class="notes">{whole}{hidden}</aside>' if whole or hidden else ""
    return f'<section><div class="where">{where}</div>{body}{note}</section>'


def assets() -> tuple[str, str, str]:
    """pyreveal 这个包里带的 reveal.js：（样式，脚本，讲稿插件）。"""
    import pyreveal

    dist = Path(pyreveal.__file__).parent / "revealjs" / "dist"
    return tuple((dist / name).read_text(encoding="utf-8") for name in ("reveal.css", "reveal.js", "plugin/notes.js"))


def built(source: Path) -> NotebookNode:
    """notebooks/ 或 outputs/run/ 里与源一致的一本，连输出；都不一致就是没有输出的源。"""
    return notebook(source, outputs() / "run" / f"{stop_of(source).name}.ipynb")


def has_outputs(source: Path) -> bool:
    """投影片里会不会有输出和图。"""
    return any(cell.get("outputs") for cell in built(source).cells)


def make_slides(source: Path) -> str:
    """一本 notebook 的投影片。

    参数：
        source: notebooks/src/题目.py；notebooks/ 或 outputs/run/ 里有与它一致的 .ipynb，就连输出一起用。
    返回：
        一页完整的 HTML，不引用任何外部文件。
    """
    css, js, notes = assets()
    nb = built(source)
    stop, columns = stop_of(source), []
    for title, slides in read_slides(nb):
        title = re.sub(r"^<p>|</p>\s*$", "", render(title).strip())
        head = f"<section class='title'><h2>{title}</h2></section>" if title and len(slides) > 3 else ""
        where = f"{stop.number} · {title}" if title else stop.number
        columns.append("<section>" + head + "".join(_slide(s, where) for s in slides) + "</section>")
    body = "".join(columns)
    script = "".join("<script>" + x.replace("</script", r"<\/script") + "</script>" for x in (js, notes))
    settings = "{width:1280,height:720,margin:.05,center:false,hash:true,slideNumber:'c/t',transition:'none',plugins:[RevealNotes]}"
    return (f'<!doctype html><html lang="zh"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(stop.name)}</title><style>{css}</style><style>{font_face(body)}{STYLE}</style></head><body hidden>"
            f'<div class="reveal"><div class="slides">{body}</div></div>{script}'
            f"<script>{FIT}show({settings});</script></body></html>")


def write_slides(source: Path, folder: Path) -> Path:
    """写 folder/编号_题目.html，返回路径。"""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stop_of(source).name}.html"
    path.write_bytes(make_slides(source).encode("utf-8"))
    return path
