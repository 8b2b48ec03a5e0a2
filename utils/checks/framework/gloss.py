"""把常见的英文报错说成一句中文。只是铺路石（plumbing）。"""

from __future__ import annotations

import re

GLOSSES = (
    (r"name '(\w+)' is not defined", "名字 {0} 还没有定义：拼写对吗？定义它的那一格运行过吗？"),
    (r"cannot access local variable '(\w+)'", "{0} 还没有赋值就用了。"),
    (r"must match the size of tensor|shapes? .*cannot be (?:multiplied|broadcast)|could not be broadcast|size mismatch|"
     r"must match the existing size",
     "两个张量的形状对不上，没法逐个相乘（相加）。把两边的 .shape 打印出来。"),
    (r"Expected target size|Expected input batch_size",
    "cross_entropy 收到的 logits 与标签形状配不上：类别那一维应当在第 1 维，或者先摊平。"),
    (r"view size is not compatible", "换过维的张量在内存里不连续，view 用不了：reshape 可以。"),
    (r"index -?\d+ is out of bounds|index out of range", "下标（或编号）超出了范围。有没有 −100 之类的记号混了进去？循环多走了一步没有？"),
    (r"could not infer output dtype|only floating point", "整数或布尔的张量不能这样求平均：先转成浮点数。"),
    (r"unsupported operand type\(s\) for (\S+): '(\w+)' and '(\w+)'", "{1} 和 {2} 之间不能用 {0}：先换成张量、数组，或者逐个算。"),
    (r"'(\w+)' object has no attribute '(\w+)'", "{0} 没有 {1} 这个属性或方法。"),
    (r"'(\w+)' object is not (callable|iterable|subscriptable)", "{0} 不能当函数叫、不能一个个取、或不能用下标：它是你以为的那样东西吗？"),
    (r"maximum recursion depth", "函数一直在叫自己，停不下来。"),
    (r"CUDA", "答案里不要指定 GPU：输入在哪个设备上，就在哪里算。"),
    (r"allocate memory|not enough memory", "要的内存太多了：是不是建了一个很大的张量？"),
    (r"division by zero", "除以了 0。"),
    (r"raw_input was called|reading from stdin|EOF when reading|does not support input", "答案里不要用 input()：要的东西都在参数里。"),
    (r"takes \d+ positional arguments?|missing \d+ required", "调用某个函数时，参数的个数不对。"),
)


def gloss(error: BaseException) -> str:
    """一句中文；认不得的是空的。"""
    if isinstance(error, SystemExit):
        return "答案里不要用 exit()：把结果 return 出来就行。"
    if isinstance(error, MemoryError):
        return "要的内存太多了。"
    if isinstance(error, KeyError):
        return f"字典里没有 {str(error)[:60]} 这个键。"
    for pattern, text in GLOSSES:
        if found := re.search(pattern, str(error)):
            return text.format(*found.groups())
    return ""
