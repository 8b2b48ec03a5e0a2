"""--offline：软件包取自课程文件夹里的 wheels，由 course.py pack 备好。"""

from __future__ import annotations

import os

from tools.install import base

WHEELS = os.path.join(base.ROOT, "wheels")


def go_offline() -> None:
    """让 pip 只看 wheels 文件夹，一次网络也不碰。"""
    if not os.path.isdir(WHEELS) or not any(name.endswith(".whl") for name in os.listdir(WHEELS)):
        raise base.Stop("--offline 要用课程文件夹里的 wheels，这里没有（或里面没有 .whl 文件）。\n"
                        f"请在能上网的机器上运行 {base.me()} pack，把得到的 zip 拷过来解开，再在解开的文件夹里运行。")
    os.environ.update({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS})
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        os.environ.pop(name, None)


def is_offline() -> bool:
    """是不是已经说好了只用 wheels 文件夹。"""
    return os.environ.get("PIP_FIND_LINKS") == WHEELS
