"""备好课程自己的环境 .venv：没有就建，坏了就修，旧了就更新；好的，一秒之内放行。"""

from __future__ import annotations

import os
import time

from tools.install import base
from tools.install.explain import explain
from tools.install.lock import Lock
from tools.install.offline import is_offline
from tools.install.packages import bounds, in_venv
from tools.install.repair import add_pip, heal, make_venv
from tools.install.run_pip import check_disk, pip_install
from tools.install.stamp import remove_stamp, why_not_ready, write_stamp

KERNEL_NAME = "从零开始大模型：汉字的文本处理"


def set_up() -> str:
    """准备好 .venv，返回它的解释器。"""
    if why_not_ready():
        with Lock() as lock:
            reason = why_not_ready()          # 等锁的时候别人可能已经装好了
            if reason:
                print(reason + "。", flush=True)
                began = time.time()
                _install([lock.file.fileno()])
                print(f"环境已备好，用时 {int(time.time() - began)} 秒。", flush=True)
    return base.venv_python()


def _install(keep: list[int]) -> None:
    """建好或修好 .venv，装上 requirements.txt 里的软件包。keep 见 pip_install。"""
    check_disk()
    try:
        make_venv()
        remove_stamp()
        broken = heal()
    except OSError as error:
        raise base.Stop(explain(str(error))) from error
    if broken:
        print("文件不全，重新安装：" + "、".join(broken[:8]), flush=True)
        if any(name.startswith("pip-") for name in broken):
            add_pip()
    quiet = _have_most()
    source = "取自 wheels 文件夹，不联网，要几分钟" if is_offline() else "第一次要下载几百 MB 到几 GB，请耐心等"
    print("核对软件包……" if quiet else f"安装软件包（{source}）……", flush=True)
    requirements, constraints = (os.path.join(base.ROOT, name) for name in ("requirements.txt", "constraints.txt"))
    arguments = ["-r", requirements, "-c", constraints, *(["--quiet"] if quiet else [])]
    pip_install(base.venv_python(), arguments, base.clean_environ(), keep)
    _register_kernel()
    write_stamp()


def _have_most() -> bool:
    """直接依赖是否大多已装过（只看名字）：是的话不会有大的下载，pip 也就不必满屏报「已满足」。"""
    have = in_venv().keys()
    return "torch" in have and len(bounds().keys() - have) <= 3


def _register_kernel() -> None:
    """登记 Jupyter 内核。PYTHONUTF8 让中文 Windows 上读写文件也用 UTF-8。"""
    code, output = base.capture([base.venv_python(), "-m", "ipykernel", "install", "--prefix", base.VENV, "--name", "python3",
                                 "--display-name", KERNEL_NAME, "--env", "PYTHONUTF8", "1"])
    if code != 0:
        raise base.Stop(f"登记 Jupyter 内核失败：\n{output.strip()[-800:]}\n请删掉 .venv 文件夹，再运行一次。")
