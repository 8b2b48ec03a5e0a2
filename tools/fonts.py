"""重做中文字体子集：`python -m tools.fonts NotoSansCJK-Regular.ttc`（需要 fonttools；Debian 的 fonts-noto-cjk 里有这个文件）。"""

from __future__ import annotations

import argparse
from pathlib import Path

from utils.display.fonts import FAMILY, FONT_FILE
from utils.paths import DATA


def wanted_characters() -> set[int]:
    """子集里的字符：ASCII、拉丁补充、希腊字母、GB 2312 全部字符、常用符号，以及课程文件里出现过的一切。"""
    chars = {*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x370, 0x400), *range(0x2010, 0x2040)}
    chars |= {*range(0x2190, 0x2200), *range(0x2200, 0x2270), *range(0x2460, 0x2474), *range(0x2500, 0x2580),
              *range(0x25A0, 0x2600), *range(0x3000, 0x3020), *range(0xFF01, 0xFF5F), 0x2713, 0x2717, 0x2605, 0x2606}
    for high in range(0xA1, 0xF8):                       # GB 2312 的区位码
        for low in range(0xA1, 0xFF):
            try:
                chars.add(ord(bytes([high, low]).decode("gb2312")))
            except UnicodeDecodeError:
                pass
    for pattern in ("data/**/*.txt", "notebooks/src/*.py", "utils/**/*.py", "tools/**/*.py"):
        for path in DATA.parent.glob(pattern):
            chars |= {ord(c) for c in path.read_text(encoding="utf-8")}
    return chars


def build(source: str | Path, number: int = 2) -> Path:
    """从 Noto Sans CJK 的字体集取出简体中文，裁成子集，改名存到 data/fonts/。

    参数：
        source: NotoSansCJK-Regular.ttc 的路径。
        number: 字体集里简体中文的编号（SC 是 2）。
    返回：
        写好的 OTF 文件路径。
    异常：
        ValueError: 编号处的字体不是简体中文。
    """
    from fontTools import subset
    from fontTools.ttLib import TTFont

    font = TTFont(source, fontNumber=number)
    if "SC" not in (font["name"].getDebugName(1) or ""):
        raise ValueError(f"第 {number} 号字体不是简体中文：{font['name'].getDebugName(1)}。换一个 number 再试。")
    options = subset.Options(layout_features=[], hinting=False, desubroutinize=False, name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14])
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=wanted_characters())
    subsetter.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 3, 4, 6, 16):
            record.string = FAMILY + ("-Regular" if record.nameID in (3, 6) else "")
    cff = font["CFF "].cff                               # CFF 表里另有一份名字
    cff.fontNames = [FAMILY + "-Regular"]
    cff.topDictIndex[0].FullName = cff.topDictIndex[0].FamilyName = FAMILY
    FONT_FILE.parent.mkdir(parents=True, exist_ok=True)
    font.save(FONT_FILE)
    return FONT_FILE

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="重做课程的中文字体子集")
    parser.add_argument("source", help="NotoSansCJK-Regular.ttc 的路径")
    path = build(parser.parse_args().source)
    print(f"已写好 {path}({path.stat().st_size / 1e6:.2f} MB)")
