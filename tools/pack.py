"""离线包：把课程、小模型和软件包收进一个 zip，拿到没有网络的教室里用。`python3 course.py pack [平台 …]` 调用它。

只用标准库和 packaging。解开之后 `python3 course.py lab --offline` 就从里面的 wheels 安装，一次网络也不碰。
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from utils.paths import ROOT

HOME = "hanzi-llm"                                        # 解开以后的文件夹
SKIP = {".git", ".venv", ".venv.lock", "outputs", "wheels", "__pycache__", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", ".cache"}
SYSTEMS = {
    "windows": ({"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows", "platform_machine": "AMD64"}, ["win_amd64"]),
    "macos": ({"sys_platform": "darwin", "os_name": "posix", "platform_system": "Darwin", "platform_machine": "arm64"},
              ["macosx_14_0_arm64"]),
    "linux": ({"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64"},
              [f"manylinux_2_{n}_x86_64" for n in (28, 27, 26, 24, 17)] + ["manylinux2014_x86_64"]),
}
PYTHONS = ("3.11", "3.12", "3.13")
CUDA = ("nvidia-", "cuda-", "triton==")                    # 只有 CUDA 版的 PyTorch 才要的包


def parse_target(word: str) -> tuple[str, str]:
    """「windows」「windows-3.12」→ （系统，Python 版本）；不写版本就是当前的。

    异常：
        ValueError: 系统或版本不在支持之列。
    """
    system, _, version = word.partition("-")
    version = version or f"{sys.version_info[0]}.{sys.version_info[1]}"
    if system not in SYSTEMS or version not in PYTHONS:
        raise ValueError(f"不认识的平台「{word}」。系统只能是 {'、'.join(SYSTEMS)}，Python 只能是 {'、'.join(PYTHONS)}，"
                         "例如 windows-3.12。")
    return system, version


def this_machine() -> tuple[str, str]:
    """这台机器的（系统，Python 版本）；系统是 windows、macos 或 linux。"""
    system = {"Windows": "windows", "Darwin": "macos"}.get(platform.system(), "linux")
    return system, f"{sys.version_info[0]}.{sys.version_info[1]}"


def pinned(system: str, version: str, root: Path = ROOT) -> list[str]:
    """constraints.txt 里适用于这个平台的各行，写成 "名字==版本"。"""
    environment = {**SYSTEMS[system][0], "python_version": version, "python_full_version": f"{version}.1",
                   "implementation_name": "cpython", "platform_python_implementation": "CPython"}
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return [f"{canonicalize_name(r.name)}{r.specifier}" for r in wanted if r.marker is None or r.marker.evaluate(environment)]


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"], check=True)


def pure_wheels(folder: Path) -> set[str]:
    """folder 里与平台无关的 wheel，写成 "名字==版本"。"""
    found = set()
    for path in folder.glob("*-none-any.whl"):
        name, version, *_ = parse_wheel_filename(path.name)
        found.add(f"{canonicalize_name(name)}=={version}")
    return found


def fetch(targets: list[tuple[str, str]], wheels: Path, root: Path = ROOT) -> None:
    """把各平台的软件包下载到 wheels。

    先备这台机器的：只有源码的包（例如 jieba）在这里做成 wheel，与平台无关，别的平台也用它；
    再按 constraints.txt 给别的平台补上与平台有关的。

    异常：
        subprocess.CalledProcessError: pip 失败。
    """
    _pip("wheel", "-r", str(root / "requirements.txt"), "-c", str(root / "constraints.txt"), "-w", str(wheels))
    for system, version in targets:
        if (system, version) == this_machine():
            continue
        have = pure_wheels(wheels)
        lines = [line for line in pinned(system, version, root) if line not in have]
        if system == "linux":                                  # 先取 PyTorch：取到的是 CPU 版，就不必取几个 GB 的 CUDA
            _download([line for line in lines if line.startswith("torch==")], system, version, wheels)
            if list(wheels.glob(f"torch-*+cpu-cp{version.replace('.', '')}-*linux*.whl")):
                lines = [line for line in lines if not line.startswith(CUDA)]
        print(f"{system}，Python {version}：另取 {len(lines)} 个软件包", flush=True)
        _download(lines, system, version, wheels)


def _download(lines: list[str], system: str, version: str, wheels: Path) -> None:
    """按平台取 lines 里的各个 "名字==版本"，放进 wheels。"""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "wanted.txt")
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        tags = [part for tag in SYSTEMS[system][1] for part in ("--platform", tag)]
        _pip("download", "--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", version, *tags,
             "-r", str(listed), "-d", str(wheels))


def course_files(root: Path = ROOT) -> list[Path]:
    """课程的文件：有 git 就按版本库里的清单（取现在的内容），没有就收全部，去掉环境、产物和缓存。"""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True) if (root / ".git").exists() else None
    if listed and listed.returncode == 0 and listed.stdout:
        paths = [root / name for name in listed.stdout.decode("utf-8").split("\0") if name]
        return sorted(p for p in paths if p.is_file() and not p.is_symlink())
    return sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink() and not SKIP & set(p.relative_to(root).parts))


def write_archive(target: Path, wheels: Path, root: Path = ROOT) -> Path:
    """把课程和 wheels 写进一个 zip：里面只有一个文件夹 hanzi-llm。写完才换上去，中途停了不留半个。"""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for path in course_files(root):
            archive.write(path, f"{HOME}/{path.relative_to(root).as_posix()}")
        for path in sorted(wheels.glob("*.whl")):
            archive.write(path, f"{HOME}/wheels/{path.name}", compress_type=zipfile.ZIP_STORED)      # 已经压过了
    part.replace(target)
    return target


def main(words: list[str] | None = None) -> int:
    """命令行入口，返回退出码。"""
    words = sys.argv[1:] if words is None else words
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    try:
        targets = [parse_target(word) for word in words] or [this_machine()]
        wheels = ROOT / "outputs" / "wheels"
        wheels.mkdir(parents=True, exist_ok=True)
        fetch(targets, wheels)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError:
        print("下载软件包没有成功，原因见上面 pip 的输出。连不上时换镜像（PIP_INDEX_URL）；\n"
              "已下载的都留着，再运行一次就接着来。", file=sys.stderr)
        return 1
    path = write_archive(ROOT / "outputs" / f"{HOME}-offline.zip", wheels)
    names = "、".join(f"{system}（Python {version}）" for system, version in targets)
    count = len(list(wheels.glob("*.whl")))
    print(f"离线包：{path.relative_to(ROOT)}，{path.stat().st_size / 1e6:,.0f} MB，{count} 个软件包，适用于 {names}。\n"
          f"拷到目标机器上解开，在 {HOME} 文件夹里运行 python3 course.py lab --offline（Windows 上写 python）。")
    return 0


if __name__ == "__main__":
    sys.exit(main())
