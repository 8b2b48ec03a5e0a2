"""会诊断的练习：一本 notebook 一个模块，`from utils.checks import nb05 as check`，再写 `check.名字(你的答案)`。

本包是铺路石（plumbing）：exercise.py 汇总三种练习与常见误解（base.py、function.py、value.py），verdict.py 是检查的结果，
compare.py 比较与显示，limits.py 限时，inputs.py 抽随机输入，ledger.py 记进度，cells.py 从 notebook 的源里取出题目、留空的格子和
参考答案，runner.py 运行一段答案。
"""
