"""注释、文档字符串和说明里提到的模块，都还在：搬了家，提到它的话也要跟着改。"""

import ast
import io
import re
import tokenize

import pytest

from utils.paths import ROOT

PLACES = ("utils/**/*.py", "notebooks/src/*.py", "tools/**/*.py", "docs/**/*.md", "data/**/*.md", "*.md")
FILES = [path for place in PLACES for path in sorted(ROOT.glob(place))]
NAMES = {path.name for folder in ("utils", "tools", "tests", "notebooks/src") for path in (ROOT / folder).rglob("*.py")} | {"course.py"}
WRITTEN = {"NN_name.py", "nbgrader_config.py"}                   # 前者代表任何一本，后者是发布时写出来的
FILE = re.compile(r"(?<![\w./{}*-])((?:\w+/)*\w+\.py)(?!\w)", re.A)
DOTTED = re.compile(r"(?<![\w./])((?:utils|tools)(?:\.[A-Za-z_]\w*)+)(?![\w{]|\.py)", re.A)


def words(path):
    """一个文件里给人看的话：.md 的全部，.py 的注释和文档字符串。"""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text.replace("\\_", "_")
    comments = [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT]
    holders = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    return "\n".join([*comments, *(ast.get_docstring(node) or "" for node in holders)])


def there(dotted, root):
    """dotted 是一个模块，或写在一个模块里的名字。"""
    parts = dotted.split(".")
    for length in range(len(parts), 1, -1):
        base = root.joinpath(*parts[:length])
        path = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if path.is_file():
            return length == len(parts) or re.search(rf"\b{parts[length]}\b", path.read_text(encoding="utf-8")) is not None
    return False


def lost(text, root=ROOT, names=frozenset(NAMES | WRITTEN)):
    """text 里提到而找不到的模块：带文件夹的要真有这个文件（从课程文件夹或 utils 里数起），只写文件名的要有哪里叫这个名字。"""
    files = [name for name in FILE.findall(text) if not (
        name in names or name.split("/")[-1] in WRITTEN or "/" in name and any((root / top / name).is_file() for top in ("", "utils")))]
    return files + [name for name in DOTTED.findall(text) if not there(name, root)]


def test_every_module_mentioned_is_there():
    assert len(FILES) > 100
    assert not {path.relative_to(ROOT).as_posix(): gone for path in FILES if (gone := lost(words(path)))}


@pytest.mark.parametrize("text", [
    "见 utils/paths.py", "（paths.py）", "`python -m tools.notebooks`", "utils.paths.ROOT", "utils.corpus.floor", "utils.屋子"])
def test_true_mentions_pass(text):
    assert lost(text) == []


@pytest.mark.parametrize("text", [
    "utils/code_facts.py", "（notebook_fingerprint.py）", "utils.bootstrap", "utils.paths.NOWHERE", "tools.gone.f"])
def test_lost_modules_are_found(text):
    assert lost(f"见 {text}。") == [text.strip("（）")]
