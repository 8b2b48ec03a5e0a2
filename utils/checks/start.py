"""start 的热身题。"""

from __future__ import annotations

from utils.checks.framework import Mistake, Value

warm_up = Value(
    "start.warm_up",
    expected=len("今天是个"), form="一个整数", rtol=0,
    ask="第 3 节里「词元」那句话是怎样说的？照着它再数一数。",
    mistakes=(
        Mistake("数成了字节", len("今天是个".encode()), "你数的是字节：UTF-8 里一个常用汉字占三个字节。",
                "这里的模型也是按字节切的吗？回头看第 3 节。"),
        Mistake("数成了词", 2, "你数的是词：「今天」「是个」。", "这门课的模型，一个词元是一个词，还是一个字？"),
        Mistake("把首尾也数上了", 6, "你把 [CLS] 和 [SEP] 也数上了，它们是分词器另外加在首尾的。",
                "题目问的是这四个汉字本身。加上去的记号算汉字吗？"),
    ),
)
