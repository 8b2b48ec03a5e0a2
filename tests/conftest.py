"""测试的公共设置：离线、smoke 预设、产物写到临时文件夹（不碰学习者的 outputs/）。

这些要在 utils 和 transformers 被导入之前设好，所以写在最外层。
"""

import atexit
import os
import shutil
import tempfile

OUTPUTS = tempfile.mkdtemp(prefix="course-test-")
atexit.register(shutil.rmtree, OUTPUTS, ignore_errors=True)

os.environ["COURSE_OUTPUTS"] = OUTPUTS
os.environ.pop("COURSE_RECORDS", None)
os.environ.setdefault("COURSE_PRESET", "smoke")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[name] = "1"
