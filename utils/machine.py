"""看看这台机器：逐项检查，每一项要么通过，要么说出怎么办。

只是铺路石（plumbing），不含模型知识。在 start 里使用。
"""

from __future__ import annotations

import html
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from utils.paths import ROOT, SHIPPED, outputs

MARKS = {"ok": "✅", "warn": "⚠️", "fail": "❌"}
INSTALL = ("python3 course.py setup（Windows 上写 python；打开时加了 --here 的，改为运行 "
           "pip install -r requirements.txt -c constraints.txt）")

RESTORE = "请恢复 {0} 文件夹：课程是用 git 取来的，就在课程文件夹里运行 git checkout {0}；是解压来的，就重新解压一次。"


@dataclass(frozen=True)
class Check:
    """一项检查。

    属性：
        name: 查什么。
        state: "ok"（通过）、"warn"（提醒）或 "fail"（不通过）。
        detail: 查到什么。
        remedy: 该怎么办；通过时为空。
    """

    name: str
    state: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """一份检查报告。放在单元的最后一行就显示成一张表。"""

    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        """没有一项不通过（提醒不算）。"""
        return all(check.state != "fail" for check in self.checks)

    def __str__(self) -> str:
        rows = [f"{MARKS[c.state]} {c.name}：{c.detail}" + (f"\n     → {c.remedy}" if c.remedy else "")
                for c in self.checks]
        return "\n".join(rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def cells(check: Check) -> str:
            texts = (MARKS[check.state], check.name, check.detail, check.remedy)
            return "".join(f'<td style="text-align:left">{html.escape(text)}</td>' for text in texts)

        rows = "".join(f"<tr>{cells(check)}</tr>" for check in self.checks)
        return f"<table><tr><th></th><th>项目</th><th>这台机器</th><th>怎么办</th></tr>{rows}</table>"


def check_python(version: tuple[int, ...] | None = None, bits: int | None = None) -> Check:
    """Python 3.11 到 3.13、64 位。"""
    version = tuple(sys.version_info[:3]) if version is None else version
    bits = (64 if sys.maxsize > 2**32 else 32) if bits is None else bits
    detail = ".".join(map(str, version)) + f"，{bits} 位"
    if version[:2] < (3, 11) or bits < 64:
        return Check("Python", "fail", detail,
                     "请装 64 位的 Python 3.12，再运行 python3 course.py lab（Windows 上写 python）。")
    if version[:2] > (3, 13):
        return Check("Python", "warn", detail, "课程在 3.11 到 3.13 上测试过；遇到怪事时，请换 3.12 再试。")
    return Check("Python", "ok", detail)


def installed_versions() -> dict[str, str]:
    """这个 Python 里装了哪些软件包：规范化的名字 → 版本。"""
    from packaging.utils import canonicalize_name

    found = ((dist.metadata["Name"], dist.version) for dist in metadata.distributions())
    return {canonicalize_name(name): version for name, version in found if name}


def check_packages(have: Mapping[str, str] | None = None, root: Path = ROOT) -> Check:
    """直接依赖：缺少或低于 requirements.txt 的下限就不通过，与 constraints.txt 里测试过的版本不同只提醒。"""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    have = installed_versions() if have is None else have
    wanted, tested = ({canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)
                       if r.marker is None or r.marker.evaluate()}
                      for lines in (_lines(root / "requirements.txt"), _lines(root / "constraints.txt")))
    bad = [f"{n}（现在是 {have[n]}，需要 {s}）" if n in have else f"{n}（没有装）" for n, s in wanted.items()
           if n not in have or not s.contains(have[n], prereleases=True)]
    if bad:
        return Check("软件包", "fail", "、".join(bad), f"在课程文件夹里运行 {INSTALL}，然后重启内核。")
    other = [f"{n} {have[n]}（测试过的是 {str(tested[n])[2:]}）" for n in wanted
             if n in tested and not tested[n].contains(have[n], prereleases=True)]
    if other:
        return Check("软件包", "warn", "、".join(other),
                     f"多半能用；出了怪事，就在课程文件夹里运行 {INSTALL}。")
    return Check("软件包", "ok", f"{len(wanted)} 个直接依赖，都是测试过的版本")


def _lines(path: Path) -> list[str]:
    lines = (line.split(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def check_cores(cores: int | None = None) -> Check:
    """可用的 CPU 核心数。"""
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Check("处理器", "warn", f"{cores} 个核心",
                     "能跑，但训练大约要两倍的时间；上课时可改用 smoke 预设。")
    return Check("处理器", "ok", f"{cores} 个核心，PyTorch 用 {torch.get_num_threads()} 个线程")


def check_memory(total: float | None = None, free: float | None = None) -> Check:
    """内存，单位 GB（十亿字节）；训练约要 1.5 GB 空闲。"""
    if total is None or free is None:
        import psutil

        memory = psutil.virtual_memory()
        total, free = memory.total / 1e9, memory.available / 1e9
    detail = f"共 {total:.1f} GB，空闲 {free:.1f} GB"
    if free < 0.8:
        return Check("内存", "fail", detail,
                     "请关掉别的 notebook（菜单 Kernel → Shut Down All Kernels，再回到这一本）和浏览器标签页，重新运行。")
    if free < 1.6:
        return Check("内存", "warn", detail, "一次只开一本 notebook；仍然不够，就用 smoke 预设。")
    return Check("内存", "ok", detail)


def check_disk(free: float | None = None, folder: Path | None = None) -> Check:
    """放产物的磁盘的剩余空间，单位 GB。"""
    if free is None:
        free = shutil.disk_usage(_existing(folder or outputs())).free / 1e9
    if free < 0.2:
        return Check("磁盘", "fail", f"剩余 {free:.2f} GB",
                     "存不下模型：请腾出 1 GB，或用环境变量 COURSE_OUTPUTS 把产物放到别处。")
    if free < 1.0:
        return Check("磁盘", "warn", f"剩余 {free:.2f} GB",
                     "够跑完课程，但很紧；outputs/ 里的旧产物可以随时删掉。")
    return Check("磁盘", "ok", f"剩余 {free:.1f} GB")


def check_gpu(kind: str | None = None, nvidia: bool | None = None) -> Check:
    """GPU：有就用，没有也行。kind 是 "cuda"、"mps" 或 "cpu";nvidia 表示机器上装着 NVIDIA 驱动。"""
    from utils.presets import pick_device

    kind = pick_device().type if kind is None else kind
    nvidia = shutil.which("nvidia-smi") is not None if nvidia is None else nvidia
    if kind == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else 0.0
        name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "NVIDIA GPU"
        return Check("GPU", "ok", f"{name}，显存 {memory:.0f} GB")
    if kind == "mps":
        return Check("GPU", "ok", "苹果芯片（mps）")
    if nvidia:
        return Check("GPU", "warn", "有 NVIDIA 显卡，但这个 PyTorch 用不了它",
                     "想用 GPU，请按 README.md 的「GPU」一节装 CUDA 版的 PyTorch；不想用，不必理会。")
    return Check("GPU", "ok", "没有，也不需要：这门课按没有 GPU 的笔记本电脑设计")


def check_font(sample: str = "汉字", families: list[str] | None = None) -> Check:
    """图里的汉字画不画得出来：真的去查字体里有没有这几个字。"""
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    families = list(plt.rcParams["font.family"]) if families is None else families
    for family in families:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=True)
        if all(font_manager.get_font(path).get_char_index(ord(c)) for c in sample):
            return Check("中文字体", "ok", family)
    return Check("中文字体", "fail", "图里的汉字会变成方框",
                 f"{RESTORE.format('data/fonts')}然后重启内核。")


def check_widgets(folders: list[Path] | None = None) -> Check:
    """滑块和交互图：Python 包要在，JupyterLab 的前端扩展也要在。"""
    for name in ("ipywidgets", "anywidget"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return Check("交互图", "fail", f"没有装 {name}",
                         f"在课程文件夹里运行 {INSTALL}，然后重启 JupyterLab。")
    if folders is None:
        from jupyter_core.paths import jupyter_path

        folders = [Path(p) for p in jupyter_path("labextensions")]
    lost = [name for name in ("anywidget", "@jupyter-widgets/jupyterlab-manager")
            if not any((folder / name).is_dir() for folder in folders)]
    if lost:
        return Check("交互图", "warn", f"找不到前端扩展 {'、'.join(lost)}",
                     "若下面的图不能点，请在启动 JupyterLab 的那个环境里也装 ipywidgets 和 anywidget。")
    return Check("交互图", "ok", "ipywidgets、anywidget 和它们的前端扩展都在")


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_writable(folder: Path | None = None) -> Check:
    """产物文件夹能不能写：真的写一个小文件再删掉。"""
    folder = folder or outputs()
    name = "outputs/" if folder == ROOT / "outputs" else "COURSE_OUTPUTS 指定的文件夹"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="check-") as file:
            file.write("汉字".encode())
    except OSError as error:
        return Check("写权限", "fail", f"{name} 写不进去（{type(error).__name__}）",
                     "请把课程文件夹移到你自己的目录里，或用环境变量 COURSE_OUTPUTS 指定一个能写的文件夹。")
    return Check("写权限", "ok", f"{name} 可以写")


def check_models(folder: Path | None = None) -> Check:
    """随课程附带的两个小模型在不在。"""
    folder = folder or SHIPPED
    parts = ("config.json", "model.safetensors", "tokenizer.json")
    files = [f"{kind}/{part}" for kind in ("mlm", "clm") for part in parts]
    lost = [name for name in files if not (folder / name).is_file()]
    if lost:
        return Check("附带的模型", "fail", f"少了 {'、'.join(lost)}",
                     RESTORE.format("data/checkpoints"))
    size = sum((folder / name).stat().st_size for name in files) / 1e6
    return Check("附带的模型", "ok", f"两个，共 {size:.1f} MB")


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python, check_packages, check_cores, check_memory, check_disk, check_gpu, check_font, check_widgets,
    check_writable, check_models)


def check_machine(checks: tuple[Callable[[], Check], ...] = CHECKS) -> Report:
    """做完全部检查。某一项检查自己出错，也只算那一项不通过，不会停下。"""
    results = []
    for check in checks:
        try:
            results.append(check())
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            results.append(Check(name, "fail", f"查不了：{type(error).__name__}：{error}",
                                 "请把这一行告诉课程的维护者。"))
    return Report(tuple(results))
