"""浏览器测试要的：找 Chromium，装另外几个软件包。"""

from __future__ import annotations

import os
import shutil

from tools.install import base
from tools.install.lock import Lock
from tools.install.packages import bounds, in_venv, missing
from tools.install.run_pip import pip_install

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def find_chromium() -> str | None:
    """Chromium 可执行文件的路径；没有就返回 None。tests/browser/lab.py 里是同样的找法。"""
    named = os.environ.get("CHROMIUM")
    if named and os.path.exists(named):
        return named
    return next((path for path in map(shutil.which, CHROMIUM_NAMES) if path), None)


def set_up_browser() -> None:
    """机器上有 Chromium，就把浏览器测试要的包也装进 .venv。装不上只说原因：那些测试会跳过。"""
    requirements = os.path.join(base.ROOT, "tests", "browser", "requirements.txt")
    if not os.path.exists(requirements) or not find_chromium() or not missing(in_venv(), bounds(requirements)):
        return
    print("有 Chromium：安装浏览器测试要的包……", flush=True)
    arguments = ["-r", requirements, "-c", os.path.join(base.ROOT, "constraints.txt"), "--quiet"]
    try:
        with Lock() as lock:
            pip_install(base.venv_python(), arguments, base.clean_environ(), keep=[lock.file.fileno()])
    except base.Stop as stop:
        print(stop.text.strip() + "\n浏览器测试要的包没有装上，那些测试这次会跳过；其余的照常进行。", flush=True)
