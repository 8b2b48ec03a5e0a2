"""会诊断的练习：各 nbNN 模块从这里取用。

三种练习：Function 写一个函数（function.py），Value 填一个值，Choice 选一个或几个选项（value.py）；Mistake 是一种常见误解（base.py）。
"""

from utils.checks.framework.base import Exercise, Mistake
from utils.checks.framework.function import Function, Outcome, Trial, trace
from utils.checks.framework.value import Choice, Value

__all__ = ["Choice", "Exercise", "Function", "Mistake", "Outcome", "Trial", "Value", "trace"]
