"""术语与符号的表，以及全课程的链接：术语先讲后用，表是最新的，课程里的每一个链接都指得到东西。"""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from tools.notebooks import glossary as G
from utils.paths import ROOT
from utils.road import road

TERMS = G.read_terms()
ORDER = [stop.topic for stop in road()]
PROSE = {topic: G.prose(path) for topic in ORDER if (path := ROOT / "notebooks" / "src" / f"{topic}.py").exists()}
EVERYDAY = {"键", "值", "头", "目标", "参数", "提示", "温度"}           # 也是日常的字眼，单凭字面看不出是不是术语
EXPLAINED = {("下限", "tokenization")}                                          # 用的时候当场就解释了，只是没有写英文


@pytest.mark.parametrize("term", [t for t in TERMS if t.kind == "术语"], ids=lambda t: t.name)
def test_a_term_is_given_with_its_english_where_the_table_says(term):
    if term.first in PROSE:
        assert G.introduced(term, PROSE[term.first]), f"{term.first} 里没有把「{term.name}」和 {term.english} 写在一起"


@pytest.mark.parametrize("term", [t for t in TERMS if t.kind == "术语" and t.name not in EVERYDAY], ids=lambda t: t.name)
def test_no_earlier_notebook_uses_a_term_unannounced(term):
    for topic, cells in PROSE.items():
        earlier = ORDER.index(topic) < ORDER.index(term.first)
        if earlier and (term.name, topic) not in EXPLAINED and any(term.name in cell for cell in cells):
            assert G.introduced(term, cells), f"{topic} 用了「{term.name}」，却到 {term.first} 才讲；请写上英文，或改表里的首见"


def test_the_page_is_up_to_date():
    assert G.PAGE.read_text(encoding="utf-8") == G.render(TERMS, road()), "请运行 python -m tools.notebooks.glossary"


def test_a_topic_that_is_not_on_the_road_is_refused():
    with pytest.raises(ValueError, match="没有：nowhere"):
        G.render([G.Term("术语", "词元", "token", "意思", "nowhere")], road())


def test_english_may_stand_on_either_side_but_near():
    term = G.Term("术语", "词元", "token", "", "start")
    assert G.introduced(term, ["一个**词元（token）**是"]) and G.introduced(term, ["Token 就是词元"])
    assert not G.introduced(term, ["词元", "token"]) and not G.introduced(term, ["词元" + "字" * 50 + "token"])


@pytest.mark.parametrize("text, words", [
    ("种类\t写法", "第一行应当是"), (G.HEAD + "\n术语\t甲\t\t意思\tstart", "没有写英文"), (G.HEAD + "\n术语\t甲\ta\t意思\t00", "第 2 行"),
    (G.HEAD + "\n别的\t甲\ta\t意思\tstart", "第 2 行"), (G.HEAD + "\n符号\tB\t\t批\tstart\n符号\tB\t\t批\tstart", "写了两遍")])
def test_a_bad_table_is_refused(text, words, tmp_path):
    (tmp_path / "terms.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        G.read_terms(tmp_path / "terms.tsv")


# ---------------------------------------------------------------- 链接

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)|<(?:a|img)\b[^>]*?(?:href|src)\s*=\s*[\"']([^\"']+)", re.I)
CODE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.S)                    # 代码和公式里的方括号不是链接


def anchors(text: str) -> set[str]:
    """一份 Markdown 的各个标题，按 GitHub 和 JupyterLab 的规则变成锚点。"""
    heads = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.M)
    github = {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}
    return github | {head.strip().replace(" ", "-") for head in heads}


def texts(path: Path) -> str:
    """一个文件里的 Markdown：.ipynb 取文字单元。"""
    if path.suffix == ".ipynb":
        return "\n\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    return path.read_text(encoding="utf-8")


def broken(path: Path) -> list[str]:
    """path 里指不到东西的相对链接。"""
    found = []
    for match in LINK.finditer(CODE.sub("", texts(path))):
        target = unquote(match[1] or match[2])
        if re.match(r"[a-z][a-z0-9+.-]*:", target, re.I):
            continue                                      # 课程之外的地址
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or anchor and to.suffix in (".md", ".ipynb") and anchor not in anchors(texts(to)):
            found.append(target)
    return found


FOLDERS = ("*.md", "data/**/*.md", "docs/**/*.md", "notebooks/*.md", "notebooks/*.ipynb", "benchmarks/*.md")
PAGES = sorted(p for pattern in FOLDERS for p in ROOT.glob(pattern))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_inside_the_course_resolve(path):
    assert broken(path) == []


def test_the_course_has_links_and_broken_ones_are_found(tmp_path):
    count = sum(len(LINK.findall(CODE.sub("", texts(path)))) for path in PAGES)
    assert count > 40
    (tmp_path / "有.md").write_text("# 一 个标题\n", encoding="utf-8")
    (tmp_path / "页.md").write_text("[好](有.md) [好](有.md#一-个标题) [外](https://a.example/x) `[码](没有.md)` $[0](1)$\n"
                                    "[坏](没有.md) [坏](有.md#没有) ![坏](图.png) <img src='也没有.png'>", encoding="utf-8")
    assert broken(tmp_path / "页.md") == ["没有.md", "有.md#没有", "图.png", "也没有.png"]
