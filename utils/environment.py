"""每本 notebook 的第一格：选预设和设备，定随机种子，备好中文字体；以及记录测量结果的小函数。

本模块只是铺路石（plumbing）：没有任何要学的模型知识，所以从第一本 notebook 起就直接导入。
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from utils.display.plotting import use_chinese_font
from utils.presets import Preset, choose_preset, fast_bf16, outputs_dir, pick_device, set_seed, versions


def _chosen_seed() -> int:
    text = os.environ.get("COURSE_SEED") or "2026"
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"环境变量 COURSE_SEED 要是一个整数，例如 7；现在是「{text}」。") from None


@dataclass(frozen=True)
class Lesson:
    """一本 notebook 的环境：`start()` 的返回值。

    属性：
        notebook: notebook 的题目，例如 "mlm_pretraining"。
        preset: 成套的大小（Preset）。
        device: 张量放在哪里（torch.device）。
        seed: 随机种子。
        outputs: 本预设的产物文件夹（Path）。
    """

    notebook: str
    preset: Preset
    device: torch.device
    seed: int
    outputs: Path

    def record(self, name: str, value: float, unit: str = "") -> None:
        """记下一个测量值：打印出来；构建课程时还会写进 notebooks/RESULTS.md。

        参数：
            name: 量的名字，例如 "留出集损失"。
            value: 数值。
            unit: 单位，例如 "奈特/词元"。
        """
        value = float(value)
        print(f"记录：{name} = {value:.4g}{' ' if unit else ''}{unit}")
        target = os.environ.get("COURSE_RECORDS")
        if not target:
            return
        row = {
            "name": name, "value": value, "unit": unit, "notebook": self.notebook,
            "preset": self.preset.name, "device": self.device.type, "versions": versions(),
        }
        with open(target, "a", encoding="utf-8") as f:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def start(notebook: str, preset: str | None = None, seed: int | None = None, **changes) -> Lesson:
    """每本 notebook 的第一格：选预设和设备，定随机种子，备好中文字体。

    参数：
        notebook: notebook 的题目。
        preset: 预设名；None 表示自动选。
        seed: 随机种子；None 表示看环境变量 COURSE_SEED，没有设就是 2026。
        **changes: 想改预设里的哪一项就写哪一项，例如 mlm_steps=1000。CPU 的 bf16 快时（fast_bf16），
            预设 cpu 会用 bf16 并把两个步数加倍；不想要就写 bf16=False。
    返回：
        Lesson。
    异常：
        ValueError: 预设名不对，COURSE_SEED 不是整数，或 changes 里有预设没有的项。
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    chosen = choose_preset(preset)
    unknown = sorted(set(changes) - set(Preset.__dataclass_fields__))
    if unknown:
        raise ValueError(f"预设里没有这些项：{'、'.join(unknown)}。可以改的有：{'、'.join(Preset.__dataclass_fields__)}。")
    device = pick_device()
    if chosen.name == "cpu" and device.type == "cpu" and changes.get("bf16", True) and fast_bf16():
        chosen = replace(chosen, bf16=True, mlm_steps=2 * chosen.mlm_steps, clm_steps=2 * chosen.clm_steps)
    chosen = replace(chosen, **changes)
    seed = _chosen_seed() if seed is None else seed
    font = use_chinese_font()
    disable_progress_bar()                               # 读写权重的进度条只会刷屏
    set_seed(seed)
    lesson = Lesson(notebook, chosen, device, seed, outputs_dir(chosen))
    v, precision = versions(), "（bf16）" if chosen.bf16 else ""
    print(f"预设 {chosen.name} · 设备 {device.type}{precision} · torch {v['torch']} · "
          f"transformers {v['transformers']} · 中文字体 {font}")
    return lesson
