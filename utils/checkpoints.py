"""检查点（checkpoint）：学习者自己练出来的优先，没有就用课程附带的。

附带的检查点在 data/checkpoints/(safetensors、fp16)，由 `python -m utils.shipped` 制作（utils/shipped.py）。
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertLMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from utils.environment import SHIPPED, Preset, choose_preset, outputs_dir, versions

KINDS = {"mlm": ("06_mlm_pretraining", "会填空的 BERT"), "clm": ("08_clm_finetuning", "会写正文的解码器")}


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, info: dict,
                    half: bool = False, weights: dict[str, torch.Tensor] | None = None) -> Path:
    """把模型、分词器和说明存进一个文件夹（safetensors，不含 pickle）。

    参数：
        model, tokenizer: 要存的东西。
        folder: 存到哪里；已有的同名文件会被换掉。
        info: 说明（步数、损失等），写进 course.json。
        half: 是否以 fp16 存盘（体积减半）。
        weights: 权重；None 表示 model 自己的。模型被 FSDP 切开时，传 whole_weights 的结果。
    返回：
        folder。
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict() if weights is None else weights
    if half:
        halves = {w.data_ptr(): w.half() for w in weights.values()}                       # 共享的词表头仍共享，只存一份
        weights = {name: halves[w.data_ptr()] for name, w in weights.items()}
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    text = json.dumps(info | {"versions": versions()}, ensure_ascii=False, indent=1)
    (folder / "course.json").write_text(text + "\n", encoding="utf-8", newline="\n")
    return folder


def find_checkpoint(kind: str, preset: Preset | None = None, prefer: str = "own") -> tuple[Path, str]:
    """找检查点：返回 （文件夹，一句话的来历）。

    参数：
        kind: "mlm" 或 "clm"。
        preset: 预设；None 表示自动选。
        prefer: "own" 先找学习者自己的，"shipped" 只用附带的。
    异常：
        ValueError: kind 或 prefer 不对。
        FileNotFoundError: 两处都没有。
    """
    if kind not in KINDS or prefer not in ("own", "shipped"):
        raise ValueError(f"kind 只能是 {'、'.join(KINDS)}，prefer 只能是 own 或 shipped；得到的是 {kind}、{prefer}。")
    notebook, what = KINDS[kind]
    own = outputs_dir(preset or choose_preset()) / kind
    if prefer == "own" and (own / "config.json").exists():
        return own, f"{what}：用的是你自己在 {notebook} 里练出来的。"
    shipped = SHIPPED / kind
    if not (shipped / "config.json").exists():
        raise FileNotFoundError(f"课程附带的检查点 data/checkpoints/{kind} 不见了。请用 git checkout data/checkpoints 恢复，"
                                f"或者先运行 {notebook}。")
    return shipped, f"{what}：用的是课程附带的检查点" + (f"（运行 {notebook} 可以换成你自己的）。" if prefer == "own" else "。")


def load_checkpoint(kind: str, model_class: type[PreTrainedModel], preset: Preset | None = None, prefer: str = "own",
                    **changes) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, str]:
    """载入检查点，权重转成 float32，处于评估模式。

    参数：
        kind: "mlm"（BertForMaskedLM 的权重）或 "clm"（因果解码器的权重）。
        model_class: 例如 BertForMaskedLM、BertLMHeadModel。
        preset, prefer: 同 find_checkpoint。
        **changes: 交给 from_pretrained 的改动，例如 is_decoder=True。
    返回：
        （模型，分词器，一句话的来历）。
    """
    folder, source = find_checkpoint(kind, preset, prefer)
    return *load_folder(folder, model_class, **changes), source


def load_folder(folder: Path, model_class: type[PreTrainedModel],
                **changes) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """从一个文件夹载入模型（float32，评估模式）和分词器；model_class 与 **changes 同 load_checkpoint。

    异常：
        FileNotFoundError: 文件夹里没有检查点。
    """
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} 里没有检查点（config.json）。请检查路径；检查点由 python -m utils.train 或各本 notebook 存下。")
    model = model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True, **changes)
    if model_class is BertLMHeadModel:
        model.loss_type = "ForCausalLM"                  # 库认不出这个类该用哪种损失，不写明会有警告
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def stages(folder: Path) -> list[dict]:
    """这个检查点是分几段练出来的：course.json 里的这一段，再往前是它的 before，一直到头。

    返回：
        各段的说明，最后练的在最前面；各段的项目见 utils.shipped.describe。
    """
    found, info = [], json.loads((folder / "course.json").read_text(encoding="utf-8"))
    while info:
        found.append(info)
        info = info.get("before")
    return found
