"""终端里的表：汉字占两列，补空格时要算进去。只是铺路石（plumbing）。"""

import unicodedata


def width(text: str) -> int:
    """终端里占几列：汉字和全角标点占两列。"""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int, right: bool = False) -> str:
    """补空格到 columns 列；right 为 True 时靠右。"""
    gap = " " * max(0, columns - width(text))
    return gap + text if right else text + gap
