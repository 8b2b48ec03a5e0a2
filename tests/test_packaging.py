"""依赖清单：下限、约束、conda 环境三者说的是同一批软件包。"""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.imports import imports
from tools.pack import PYTHONS as PACKED
from utils.machine import check_python

sys.path.insert(0, str(Path(__file__).parent))
from lowest import requirements  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
BOUNDS = requirements((ROOT / "requirements.txt").read_text(encoding="utf-8"))
BROWSER = requirements((ROOT / "tests" / "browser" / "requirements.txt").read_text(encoding="utf-8"))
PYTHONS = ("3.11.0", "3.11.7", "3.12.1", "3.13.0")
PLATFORMS = (
    {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64", "platform_system": "Linux"},
    {"sys_platform": "darwin", "os_name": "posix", "platform_machine": "arm64", "platform_system": "Darwin"},
    {"sys_platform": "win32", "os_name": "nt", "platform_machine": "AMD64", "platform_system": "Windows"},
)


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def pinned(python: str, platform: dict) -> dict[str, Version]:
    """一种 Python 和平台上的 {包名：版本}；同一个包钉了两次就报错。"""
    environment = {"python_version": python.rsplit(".", 1)[0], "python_full_version": python,
                   "implementation_name": "cpython", "platform_python_implementation": "CPython", **platform}
    found = {}
    for line in constraints():
        if line.marker is None or line.marker.evaluate(environment):
            name = canonicalize_name(line.name)
            assert name not in found, f"{name} 在 {python} {platform['sys_platform']} 上钉了两次"
            (spec,) = line.specifier
            assert spec.operator == "==", line
            found[name] = Version(spec.version)
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: p["sys_platform"])
def test_constraints_cover_every_requirement(python, platform):
    found = pinned(python, platform)
    for name, bound in {**BOUNDS, **BROWSER}.items():
        assert name in found, f"constraints.txt 里没有 {name}"
        assert found[name] >= Version(bound), f"{name} {found[name]} 低于下限 {bound}"


def test_torch_is_pinned_exactly_the_same_everywhere():
    pins = {pinned(python, platform)["torch"] for python in PYTHONS for platform in PLATFORMS}
    assert pins == {Version("2.13.0")}          # 准确的版本才能取到 CPU 版


def test_no_index_address():
    for name in ("requirements.txt", "constraints.txt", "environment.yml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text and "--index" not in text and "--find-links" not in text, name


def test_constraints_say_how_they_are_made():
    head = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[:3]
    assert any("uv pip compile --universal --python-version 3.11" in line for line in head)


def test_every_place_names_the_same_python_versions():
    """course.py 说的是哪几版，别处说的就是哪几版。"""
    text = {name: (ROOT / name).read_text(encoding="utf-8") for name in
            ("course.py", "README.md", "README.en.md", "environment.yml", "pyproject.toml")}
    low, high = (int(re.search(rf"^{name} = \(3, (\d+)\)", text["course.py"], re.M)[1]) for name in ("MIN_PYTHON", "TESTED_PYTHON"))
    assert set(re.findall(r"3\.(\d+) 到 3\.(\d+)", text["README.md"])) == {(str(low), str(high))}
    assert set(re.findall(r"3\.(\d+) to 3\.(\d+)", text["README.en.md"])) == {(str(low), str(high))}
    assert f"python >=3.{low},<3.{high + 1}\n" in text["environment.yml"]
    assert f'target-version = "py3{low}"' in text["pyproject.toml"]
    assert PACKED == tuple(f"3.{minor}" for minor in range(low, high + 1))
    states = {minor: check_python((3, minor, 0), 64).state for minor in range(low - 1, high + 2)}
    assert states == {low - 1: "fail", **dict.fromkeys(range(low, high + 1), "ok"), high + 1: "warn"}
    assert f"3.{low} 到 3.{high}" in check_python((3, high + 1, 0), 64).remedy
    assert {int(python.split(".")[1]) for python in PYTHONS} == set(range(low, high + 1))
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"--python-version 3.{low} " in lines and f"python_full_version < '3.{low}'" not in lines


def test_conda_environment_names_the_same_packages():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    entries = [e.split("#")[0].strip() for e in re.findall(r"^\s*-\s+(.*)$", text, re.M)]
    assert "-r requirements.txt" in entries and "-c constraints.txt" in entries
    names = {re.split(r"[ <>=]", e)[0] for e in entries if not e.startswith("-") and not e.endswith(":")}
    assert names == {"conda-forge", "python", "pip"}, "软件包只在 requirements.txt 里列一遍"


def test_installed_versions_respect_the_bounds():
    for name, bound in BOUNDS.items():
        assert Version(metadata.version(name)) >= Version(bound), name


def third_party(root: Path, *folders: str) -> dict[str, set[str]]:
    """这几个文件夹里（连同里面各层）导入的第三方包：包名 → 在哪些文件里。课程自己的模块不算。"""
    names = {"pil": "pillow", "xdist": "pytest-xdist"}           # 导入的名字与包名不同的
    own = {"utils", "tools", "course", *(path.stem for path in (root / "tests").rglob("*.py"))}
    found: dict[str, set[str]] = {}
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        for item in imports(path):
            name = item.module.split(".")[0]
            if name and name not in sys.stdlib_module_names and name not in own:
                found.setdefault(canonicalize_name(names.get(name.lower(), name)), set()).add(path.relative_to(root).as_posix())
    return found


def test_every_third_party_import_is_required():
    """utils、tools、notebooks、tests 里导入的第三方包，都在 requirements.txt 里（反过来允许只装不导入）。"""
    found = third_party(ROOT, "utils", "tools", "notebooks/src", "tests")
    missing = {name: files for name, files in found.items() if name not in BOUNDS
               and not (name in BROWSER and all(file.startswith("tests/browser/") for file in files))}
    assert not missing
    assert {"mistune", "nbclient", "bertviz", "playwright", "pytest"} <= found.keys() and not set(BOUNDS) & set(BROWSER)


def test_imports_are_found_in_every_folder(tmp_path):
    deep = tmp_path / "utils" / "room" / "inner"
    deep.mkdir(parents=True)
    (deep / "a.py").write_text("import os\nfrom utils.room import b\n\n\ndef f():\n    import far.away\n    from PIL import Image\n",
                               encoding="utf-8")
    assert third_party(tmp_path, "utils") == {"far": {"utils/room/inner/a.py"}, "pillow": {"utils/room/inner/a.py"}}


def test_requirement_lines_are_understood():
    assert requirements("# 注释\na-b>=1.2  # 用处\n\n") == {"a-b": "1.2"}
    with pytest.raises(ValueError, match="第 1 行"):
        requirements("a<2")


def test_licence_names_the_three_parts():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for word in ("MIT License", "CC BY 4.0", "SIL Open Font License 1.1", "data/fonts/OFL.txt"):
        assert word in text
    assert (ROOT / "data" / "fonts" / "OFL.txt").exists()


def test_kernel_files_are_ignored_by_git():
    rules = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for rule in (".venv", "outputs/", ".ipynb_checkpoints/", "__pycache__/", ".venv.lock"):
        assert rule in rules
