"""把 bertviz 的页面变成断网也能画的：脚本写进页面，参数改短、转义，界面换成中文。

d3 取自软件包 mpld3，jQuery 取自 XStatic-jQuery（都按随包的原文，保留版权声明），require.js 换成几行替身。
每一处替换都要求恰好一次：bertviz 换了写法，就说清楚是哪一处，而不是画出一片空白。
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

from utils.display.plotting import COLORS
from utils.display.web_fonts import STACK, font_script

MAX_BYTES = 1_500_000  # 一个视图（连同 iframe 的外壳）最多这么大，再大就拖慢整本 notebook
HOW = {
    "head": "把鼠标移到左边的词元上，看它关注谁；移到右边的词元上，看谁在关注它。彩色方块各是一个头：点一下开或关，双击只留这一个。",
    "model": "一格是一个头，行是层，列是头；点一格放大，再点一下收起。",
    "neuron": "把鼠标移到左边的词元上，再点它旁边的加号，就展开查询 q 与键 k 的每一维：蓝色是正，橙色是负，越深绝对值越大。",
}
# bertviz 页面上的英文 -> 中文。少了哪一条都不影响画图，所以不要求恰好一次
WORDING = {
    '<select id="layer">': '<select id="layer" aria-label="层">', "Layer: ": "层：", "Head: ": "头：",
    '<select id="att_head">': '<select id="att_head" aria-label="头">', "Attention: ": "看哪一部分：",
    '<select id="filter">': '<select id="filter" aria-label="看哪一部分">', ">All<": ">全部<",
    "Sentence A": "第一段", "Sentence B": "第二段", "段 -> 第": "段 → 第",
    '.text("Heads")': '.text("头")', '.text("Layers")': '.text("层")', "'Layer ' +": "'层 ' +", '", Head "': '"，头 "',
    "No token selected": "还没有选词元", "'Query '": "'查询 '", "'Key '": "'键 '", "q \\u00D7 k (elementwise)": "逐维 q × k",
}
# bertviz 用 d3.schemeCategory10 给头和层上色，换成色盲友好的；model 视图按「层 % 10」取色，所以要十种
PALETTE = [*COLORS, "#DDCC77", "#882255", "#999933"]
REQUIRE = """window.requirejs = (names, run) => {
  const d3 = Object.assign({}, window.d3, {schemeCategory10: COLORS});
  run(...names.map(name => ({jquery: window.jQuery, d3})[name]));
};""".replace("COLORS", json.dumps(PALETTE))
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"  # 浏览器替我们守着：什么也不许取
STYLE = """html{color-scheme:light} body{margin:8px;background:#fff;color:#111;font-size:14px;line-height:1.5}
body,body *{font-family:STACK!important}
p{margin:0 0 6px} .note{border-left:4px solid #D55E00;padding-left:8px} select{font-size:14px}
.neuron svg{min-width:1020px}""".replace("STACK", STACK)
ADDRESS = re.compile(r"https?://(?!www\.w3\.org/)[^\s\"'<>]*")  # w3.org 的是 SVG 等的名字空间，不会被访问
REQUIRE_TAG = re.compile(r'<script src="https://[^"]*/require\.min\.js"></script>')
REQUIRE_CONFIG = re.compile(r"^require\.config\(\{.*?^\}\);$", re.MULTILINE | re.DOTALL)
NEURON_OPTION = re.compile(r'(?<=layerSelect\.append\()\$\("<option />"\)\.val\(i\)\.text\(i\)')


def offline_page(page: str, view: str, notes: list[str], change: Callable[[dict], None]) -> str:
    """bertviz 返回的 HTML 片段 -> 完整的、不含外部地址的网页。

    参数：
        page: html_action="return" 得到的 HTML;view："head"、"model" 或 "neuron"。
        notes：写在开头的提醒，每条一段；change：就地修改 bertviz 的参数（一个字典）。
    返回：HTML 文档，权重等小数保留四位。
    错误：RuntimeError：缺少软件包，bertviz 的写法变了，或者结果太大。
    """
    page = once(page, REQUIRE_TAG, f"<script>{libraries()}</script>\n<script>{REQUIRE}</script>")
    page = once(page, REQUIRE_CONFIG, "")
    page = re.sub(r"(?<=Based on)(:?) https://", r"\1 ", page, count=1)  # 注释里的出处，去掉协议名
    if view == "neuron":  # 只画几层时，下拉框里也要写真正的层号
        page = once(page, NEURON_OPTION, '$("<option />").val(i).text(params.course_layers[i])')
    start = once(page, re.compile(r"window\.bertviz_params = " if view == "neuron" else "const params = "), None)
    params, end = json.JSONDecoder(parse_float=lambda number: round(float(number), 4)).raw_decode(page, start)
    change(params)
    before, after = page[:start], page[page.index("\n", end):]  # 同一行的注释里还有一份参数，连注释一起去掉
    for english, chinese in WORDING.items():
        before, after = before.replace(english, chinese), after.replace(english, chinese)
    written = json.dumps(params, ensure_ascii=False)  # 写进页面的是 \\uXXXX，这里要真的字
    page = _document(f"{before}{script_json(params)};{after}", view, notes, written)
    if found := ADDRESS.search(page):
        raise RuntimeError(mismatch(f"还留着外部地址 {found[0]}"))
    if (size := len(html.escape(page).encode())) > MAX_BYTES:
        raise RuntimeError(mismatch(f"页面有 {size} 字节，上限是 {MAX_BYTES}"))
    return page


def script_json(value) -> str:
    """能安全写进 <script> 的 JSON：只有 ASCII，< > & / 写成 \\uXXXX，里面的 </script> 就不会提前结束脚本。"""
    text = json.dumps(value, separators=(",", ":"))  # 这四个字符在 JSON 里只会出现在字符串里
    return re.sub("[<>&/]", lambda found: f"\\u{ord(found[0]):04x}", text)


def once(page: str, pattern: re.Pattern, new: str | None) -> str | int:
    """pattern 在页面里应当恰好出现一次：换成 new；new 是 None 时不换，返回它的末尾位置。"""
    places = list(pattern.finditer(page))
    if len(places) != 1:
        raise RuntimeError(mismatch(f"{pattern.pattern!r} 应当恰好出现一次，却出现了 {len(places)} 次"))
    return places[0].end() if new is None else page[: places[0].start()] + new + page[places[0].end():]


def mismatch(what: str) -> str:
    """bertviz 与预料不合时的错误信息，写明装的是哪一版。"""
    return (f"bertviz {metadata.version('bertviz')} 的页面和这里预料的（1.4.1）不同：{what}。"
            "请安装 constraints.txt 里写明的版本。")


@cache
def libraries() -> str:
    """d3 与 jQuery 的源码，可以直接写进一个 <script>。错误：RuntimeError：缺少软件包，或版本不对。"""
    sources = (("mpld3", "mpld3/js/d3.v5.min.js", "d3js.org v5.7.0"),
               ("XStatic-jQuery", "xstatic/pkg/jquery/data/jquery.slim.min.js", "jQuery v3."))
    return "\n".join(_script(*source) for source in sources)


def _script(package: str, path: str, banner: str) -> str:
    try:  # 只读文件，不导入：mpld3 一导入就会带上 matplotlib 的一大串
        source = Path(metadata.distribution(package).locate_file(path)).read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, FileNotFoundError):
        raise RuntimeError(f"画 bertviz 的图要用软件包 {package} 里的脚本，现在没有找到：请运行 "
                           "pip install -r requirements.txt -c constraints.txt，再重启内核。") from None
    if banner not in source[:200] or re.search("</script|<!--", source, re.IGNORECASE):
        raise RuntimeError(f"{package} {metadata.version(package)} 里的脚本不是需要的那一版（{banner}）："
                           "请安装 constraints.txt 里写明的版本。")
    return source.replace("// https://", "// ", 1)  # 版权声明里的网址，去掉协议名


def _document(body: str, view: str, notes: list[str], written: str) -> str:
    reminders = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in notes)
    return (f'<!DOCTYPE html>\n<html lang="zh-CN">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<title>bertviz 的 {view} 视图</title>\n'
            f'<style>{STYLE}</style>\n<script>{font_script(body + HOW[view] + reminders + written)}</script>\n</head>\n'
            f'<body class="{view}">\n'
            f'<p>{HOW[view]}</p>\n{reminders}{body}\n</body>\n</html>\n')
