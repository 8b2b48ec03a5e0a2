"""测试的公共设置：离线、smoke 预设、产物写到临时文件夹（不碰学习者的 outputs/）；怎样分给几个进程。

环境变量要在 utils 和 transformers 被导入之前设好，所以写在最外层。
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "browser"))

import lab  # noqa: E402
import sharing  # noqa: E402

OUTPUTS = tempfile.mkdtemp(prefix="course-test-")       # pytest-xdist 的每个进程各有一个
atexit.register(shutil.rmtree, OUTPUTS, ignore_errors=True)

os.environ["COURSE_OUTPUTS"] = OUTPUTS
os.environ.pop("COURSE_RECORDS", None)
os.environ.setdefault("COURSE_PRESET", "smoke")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[name] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")      # 几个进程各开满线程，会互相等；小模型一个线程也不慢


def pytest_report_header():
    reason = lab.why_not() if os.environ.get("COURSE_BROWSER") != "required" else None
    if reason:
        return f"notebook：在内核里各运行一遍（浏览器里的不跑：{reason}）"
    return "notebook：在浏览器里各「全部运行」一遍，内核里就不再重复；只要内核里的，用 -m notebooks"


@pytest.hookimpl(trylast=True)                         # 等 -m、-k 挑过之后
def pytest_collection_modifyitems(config, items):
    twice = sharing.run_in_a_browser_too(items, lambda: lab.why_not() is None)
    if twice:
        config.hook.pytest_deselected(items=twice)
    items[:] = [item for item in items if item not in twice]
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = sharing.longest_first(items)


@pytest.hookimpl(optionalhook=True)                    # 没有装 pytest-xdist 也行
def pytest_xdist_make_scheduler(config, log):
    return sharing.by_file(config, log)                # 不管 --dist 写的是什么
