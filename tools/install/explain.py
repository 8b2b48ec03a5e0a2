"""出错时说什么：看 pip 和 venv 的输出，说出哪里不对、该怎么办。"""

from __future__ import annotations

import platform
import re
import shutil
import sys

from tools.install import base
from tools.install.offline import is_offline

NEED_GB = 3.0          # .venv 约 2 GB，再加下载时的临时文件
LOW_GB = 0.1           # 安装途中剩余空间低于它，就当作磁盘已满
NO_SPACE = r"no space left on device|errno 28\b|winerror 112|disk quota exceeded|not enough space"
NO_RIGHT = r"permission denied|errno 13\b|winerror 5\b|access is denied|read-only file system"
NO_NETWORK = "|".join((
    r"failed to establish a new connection|newconnectionerror|max retries exceeded|retrying \(",
    r"name or service not known|temporary failure in name resolution|getaddrinfo failed",
    r"nodename nor servname|network is unreachable|no route to host|connection refused",
    r"timed out|connecttimeout",
    r"proxyerror|cannot connect to proxy|connection (reset|aborted|broken)|remotedisconnected|incompleteread",
    r"certificate verify failed|ssleoferror|sslerror|40[37] client error|5\d\d server error",
))
NO_MATCH = r"no matching distribution found for ([A-Za-z0-9_.\-]+)"
NO_MATCH_PINNED = r"cannot install ([a-z0-9_.\-]+)"                   # 有约束时，pip 是这样说的
BAD_HASH = r"do not match the hashes|hash mismatch"


def need_disk(where: str, free: float) -> str:
    """where 所在的磁盘只剩 free（GB）。"""
    return (f"磁盘空间不够：{where} 所在的磁盘只剩 {free:.1f} GB，安装至少需要 {NEED_GB:.0f} GB"
            "（Linux 上若取到带 CUDA 的 PyTorch，约需 10 GB）。\n"
            "请腾出空间，或把课程文件夹移到大一些的磁盘上；"
            "临时文件可用环境变量 TMPDIR 改到别处。然后再运行一次刚才的命令。")


def _python() -> str:
    return "{}.{}".format(*sys.version_info[:2])


def _machine() -> str:
    return f"系统 {platform.system()} {platform.machine()}，Python {_python()}"


def explain(log: str, free: float | None = None) -> str:
    """看 pip 的输出，说出哪里不对、该怎么办。free 是安装途中最少的剩余空间（GB）。"""
    text = log.lower()
    if re.search(NO_SPACE, text) or (free is not None and free < LOW_GB):
        return need_disk(base.VENV, shutil.disk_usage(base.existing(base.VENV)).free / 1e9 if free is None else free)
    if re.search(NO_RIGHT, text):
        return ("没有写文件的权限，pip 写不进去。\n请把课程文件夹放到你自己的目录里（不要用 sudo）,"
                "关掉占用 .venv 的程序（例如还开着的 JupyterLab、杀毒软件），再运行一次。")
    match = re.search(NO_MATCH, text)
    absent = match or re.search(NO_MATCH_PINNED, text)
    if absent and is_offline():
        system = {"Windows": "windows", "Darwin": "macos"}.get(platform.system(), "linux")
        return (f"离线包里没有适合这台机器的 {absent[1]}（{_machine()}）。\n"
                "请换成备包时写的 Python 版本；或在能上网的机器上重新备一个，写明平台，例如：\n"
                f"    {base.me()} pack {system}-{_python()}")
    if re.search(NO_NETWORK, text):
        return ("连不上软件包的下载地址（没有网络、被屏蔽，或代理、证书有问题）。可以：\n"
                "  1. 连上网络再运行一次，已下载的会接着用；\n"
                "  2. 换成你那里的镜像：设环境变量 PIP_INDEX_URL=镜像地址；有代理则设 HTTPS_PROXY;\n"
                "  3. 完全离线：在能上网的机器上运行 course.py pack 备一个离线包，"
                "在解开的文件夹里加 --offline；\n"
                "  4. 已有装好这些包的 Python：加 --here。\n详见 README.md「网络慢或被屏蔽」。")
    if match:
        return (f"下载地址里没有适合这台机器的 {match[1]}（{_machine()}）。\n"
                "课程用的 PyTorch 支持 64 位的 Windows 10、macOS 14 以上的 Apple 芯片、"
                f"较新的 Linux（glibc 2.28 以上），Python {base.SUPPORTED}。\n"
                "若你在用镜像，它可能还没同步，换一个试试；"
                "不在支持之列的机器（如 Intel Mac）请用 Colab，见 README.md。")
    if re.search(BAD_HASH, text):
        return "下载的文件不完整。请再运行一次；若还不行，先运行 pip cache purge 清空缓存。"
    return "pip 安装失败，原因见上面的输出。修好后再运行一次同样的命令；想从头来，删掉 .venv 文件夹即可。"


def explain_venv(output: str) -> str:
    """建虚拟环境失败时，看输出说话。"""
    text = output.lower()
    if re.search(NO_SPACE, text):
        return explain(text)
    if "ensurepip" in text or "no module named venv" in text or "no module named pip" in text:
        return ("这个 Python 缺少建虚拟环境的 venv 或 ensurepip 模块。\n"
                f"  Debian / Ubuntu:sudo apt install python3-venv（或 python{_python()}-venv）\n"
                "  其他系统：从 Python 官网安装完整的 Python，或用 conda 并加 --here。\n"
                "装好后再运行一次。")
    if re.search(NO_RIGHT, text):
        return explain(text)
    return f"建不了虚拟环境 .venv:\n{output.strip()[-800:]}\n请换一个 Python（{base.SUPPORTED}）再试。"
