"""会诊断的练习：一本 notebook 一个模块，`from utils.checks import objectives as check`，再写 `check.名字(你的答案)`。

本包是铺路石（plumbing）。怎样检查，在 framework：练习的三种（base.py、function.py、value.py），检查的结果（verdict.py），比较与显示
（compare.py），限时（limits.py），抽随机输入（inputs.py），记进度（ledger.py），运行一段答案（runner.py）。
"""

from utils.checks.progress import course_progress

__all__ = ["course_progress"]
