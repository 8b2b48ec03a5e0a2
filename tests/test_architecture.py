"""docs/architecture.md 里的规矩：谁可以导入谁，门面是什么样子，导入门面不载入什么；图没有过期。"""

import ast
import subprocess
import sys

import pytest

from tools.architecture import PICTURE, facts, outdated
from tools.imports import arrows, circles, imports, labels, modules, order, room_arrows, rooms, tree
from utils.paths import ROOT

LIGHT = ("paths", "road", "display", "sources", "corpus")        # 这几间不载入 torch
LAZY = {"bertviz", "datasketch", "jieba", "sacrebleu"}           # 用到才导入


def upward(root):
    """不合 order 那一行的导入；那一行与 utils/ 里的名字对不上，也算。"""
    rank = {room: height for height, row in enumerate(order(root)) for room in row}
    wrong = [f"{user} → {used}" for user, used in room_arrows(root) if rank.get(user, 0) <= rank.get(used, -1) and used]
    wrong += [f"{module} → {item.module}" for module, path in modules(root, "utils").items() for item in imports(path)
              if item.module.split(".")[0] == "tools" or item.module.startswith(".")]
    return wrong + [f"只在一边有：{name}" for name in rank.keys() ^ rooms(root).keys()]


def circles_of(root):
    """utils 的、tools 的模块之间的圈。"""
    return circles(arrows(root, "utils", "tools"))


def listed(path):
    """一个门面的 __all__。"""
    found = [ast.literal_eval(node.value) for node in tree(path).body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"]
    return found[0] if found else []


def sideways(root):
    """notebook 里不合 `from utils.屋子 import 名字` 的导入。"""
    inside, wrong = rooms(root), []
    for path in sorted((root / "notebooks" / "src").glob("*.py")):
        for module, name, asname in (item for item in imports(path) if item.module.split(".")[0] in ("utils", "tools")):
            top, _, room = module.partition(".")
            face = root / "utils" / room / "__init__.py"
            exercise = (room, asname) == ("checks", "check") and face.with_name(f"{name}.py").is_file()
            if top != "utils" or not name or room not in inside or (face.is_file() and not exercise and name not in listed(face)):
                wrong.append(f"{path.name}: {module} {name}".strip())
    return wrong


def defined(path):
    """一个模块最上面一层的名字。"""
    names = {node.name for node in tree(path).body if hasattr(node, "name")} | {item.asname or item.name for item in imports(path)}
    return names | {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def unlike_faces(root):
    """不像门面的 __init__.py：有别的语句，从别处转手，列了没有的名字，或与子模块同名。"""
    known, wrong = modules(root, "utils"), []
    for face, path in known.items():
        if path.name != "__init__.py" or face == "utils":
            continue
        for node in tree(path).body[ast.get_docstring(tree(path)) is not None:]:
            own = isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{face}.")
            if not own and not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"):
                wrong.append(f"{face}: {ast.unparse(node)}")
        handed = {item.asname or item.name: item for item in imports(path)}
        real = {name for name, (module, old, _) in handed.items() if module in known and old in defined(known[module])}
        wrong += [f"{face}.{name}" for name in [*listed(path), *handed] if name not in real or name not in listed(path)]
        wrong += [f"{face}.{name} 是子模块" for name in listed(path) if f"{face}.{name}" in known]
    return wrong


def loads(root, light, faces):
    """在一个新进程里依次导入门面，先 light 后其余；返回不该载入而载入了的。"""
    code = f"""
import importlib, sys
for room in {[*light, *faces]!r}:
    importlib.import_module(f"utils.{{room}}")
    heavy = {LAZY!r} | ({{"torch"}} if room in {light!r} else set()) | ({{"ipywidgets", "anywidget"}} if room != "views" else set())
    if heavy & sys.modules.keys(): sys.exit(f"{{room}} {{sorted(heavy & sys.modules.keys())}}")
"""
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stderr.strip()


def test_the_course_keeps_the_law():
    assert not upward(ROOT) and not circles_of(ROOT)
    assert not sideways(ROOT) and not unlike_faces(ROOT)
    assert sum(1 for _ in (ROOT / "notebooks" / "src").glob("*.py")) and len(rooms(ROOT)) > 10 and len(room_arrows(ROOT)) > 20


def test_faces_are_light():
    rest = [room for row in order(ROOT) for room in row if room not in (*LIGHT, "views")]
    assert loads(ROOT, LIGHT, [*rest, "views"]) == ""


def test_the_page_and_the_picture_are_up_to_date():
    assert list(labels(ROOT)) == [room for row in order(ROOT) for room in row]
    folders = {name for name, files in rooms(ROOT, "tools").items() if len(files) > 1}
    assert folders <= set(labels(ROOT, "tools")) <= rooms(ROOT, "tools").keys()
    assert not outdated(ROOT), f"{PICTURE} 旧了：请运行 python -m tools.architecture"


def test_an_old_picture_is_noticed(monkeypatch):
    now = facts(ROOT)
    monkeypatch.setattr("tools.architecture.facts", lambda root: now | {"arrows": now["arrows"][1:]})
    assert outdated(ROOT)
    monkeypatch.setattr("tools.architecture.facts", lambda root: now | {"lines": now["lines"] | {"checks": 9}})
    assert outdated(ROOT)


PAGE, FACE, B, N = "docs/architecture.md", "utils/low/__init__.py", "utils/low/b.py", "notebooks/src/n.py"
LOW = '"""低。"""\nfrom utils.low.a import f\n'
WORLD = {
    PAGE: "low < high, beside < checks\n", "utils/__init__.py": "", "utils/beside.py": "", "utils/high.py": "from utils.low.a import f",
    FACE: LOW + "__all__ = ['f']", "utils/low/a.py": "def f(): ...", B: "from utils.low.a import f", "utils/low/c.py": "c = 1",
    "utils/checks/__init__.py": "", "utils/checks/topic.py": "from utils.high import f",
    N: "from utils.low import f\nfrom utils.high import f\nfrom utils.checks import topic as check",
    "tools/x.py": "import tools.y", "tools/y.py": "", "jieba.py": "", "torch.py": "",
}
CASES = [                                                        # 哪条规矩、哪个文件、改成什么、该说出什么
    (upward, B, "def g():\n    from utils.high import f", "low → high"), (upward, "utils/beside.py", "import utils.high", "beside → high"),
    (upward, B, "import tools.x", "low.b → tools.x"), (upward, B, "from .a import f", "low.b → .a"),
    (upward, "utils/new.py", "", "只在一边有：new"), (upward, PAGE, "low < high < beside < gone < checks", "只在一边有：gone"),
    (sideways, N, "import utils.low", "utils.low"), (sideways, N, "from utils.low.a import f", "utils.low.a f"),
    (sideways, N, "from utils import low", "utils low"), (sideways, N, "from utils.low import g", "utils.low g"),
    (sideways, N, "from utils.checks import topic", "topic"), (sideways, N, "from utils.gone import f", "gone"),
    (sideways, N, "def f():\n    from tools.x import g", "tools.x g"),
    (unlike_faces, FACE, LOW + "__all__ = ['f']\nX = 1", "X = 1"), (unlike_faces, FACE, LOW, "utils.low.f"),
    (unlike_faces, FACE, "from utils.high import f\n__all__ = ['f']", "from utils.high"),
    (unlike_faces, FACE, LOW + "__all__ = ['f', 'gone']", "utils.low.gone"),
    (unlike_faces, FACE, "from utils.low.a import g\n__all__ = ['g']", "utils.low.g"),
    (unlike_faces, FACE, "from utils.low.c import c\n__all__ = ['c']", "c 是子模块"),
    (circles_of, "utils/low/a.py", "def f():\n    from utils.low.b import f", "utils.low.a"),
    (circles_of, "tools/y.py", "import tools.x", "tools.x"),
    (loads, "utils/low/a.py", "import jieba\ndef f(): ...", "low ['jieba']"),
    (loads, "utils/low/a.py", "import torch\ndef f(): ...", "low ['torch']"),
]


@pytest.mark.parametrize(("rule", "file", "text", "found"), CASES, ids=lambda value: value.__name__ if callable(value) else None)
def test_each_rule_can_fail(rule, file, text, found, tmp_path):
    inside = (tmp_path, ("low",), ["high"]) if rule is loads else (tmp_path,)
    for name, content in WORLD.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert not rule(*inside)
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert found in str(rule(*inside))
