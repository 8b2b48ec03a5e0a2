"""检查点（checkpoint）：学习者自己练出来的优先，没有就用课程附带的。

附带的检查点在 data/checkpoints/(safetensors、fp16)，由 `python -m tools.checkpoints.make` 制作（tools/checkpoints/make.py）。
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, BertLMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from utils.paths import SHIPPED
from utils.presets import Preset, choose_preset, outputs_dir, versions
from utils.road import maker
from utils.tokenization.tokenizer import check_vocabulary, course_tokenizer, vocabulary_id

KINDS = {"mlm": "会填空的 BERT", "clm": "会写正文的解码器"}         # 哪一本练出它，写在 notebooks/road.toml
COMPLETE = ("config.json", "model.safetensors", "tokenizer.json", "course.json")     # 少了哪样，都不算存完


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, info: dict,
                    half: bool = False, weights: dict[str, torch.Tensor] | None = None) -> Path:
    """把模型、分词器和说明存进一个文件夹（safetensors，不含 pickle）。

    先存在旁边的临时文件夹里，存完了才换上去：半路停了，原来的检查点还在。

    参数：
        model, tokenizer: 要存的东西；要是一对。
        folder: 存到哪里；已有的检查点会被整个换掉，里面别的东西留着。
        info: 说明（步数、损失等），写进 course.json。
        half: 是否以 fp16 存盘（体积减半）。
        weights: 权重；None 表示 model 自己的。模型被 FSDP 切开时，传 whole_weights 的结果。
    返回：
        folder。
    异常：
        ValueError: 模型和分词器不是一对。
    """
    check_vocabulary(model, tokenizer)
    model.config.vocabulary_id = vocabulary_id(tokenizer)
    weights = model.state_dict() if weights is None else weights
    if half:
        halves = {w.data_ptr(): w.half() for w in weights.values()}                       # 共享的词表头仍共享，只存一份
        weights = {name: halves[w.data_ptr()] for name, w in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        fresh = Path(place)
        model.save_pretrained(fresh, state_dict=weights)
        tokenizer.save_pretrained(fresh)
        text = json.dumps(info | {"versions": versions()}, ensure_ascii=False, indent=1)
        (fresh / "course.json").write_text(text + "\n", encoding="utf-8", newline="\n")
        (folder / "course.json").unlink(missing_ok=True)                                  # 没有说明就不算存完：换到一半停了，认得出来
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == "course.json"):  # 所以说明最后换上
            os.replace(path, folder / path.name)
    return folder


def missing_files(folder: Path) -> list[str]:
    """一个检查点的文件夹里少了哪些文件；齐全时是空列表。"""
    return [name for name in COMPLETE if not (folder / name).is_file() or not (folder / name).stat().st_size]


def _unusable(folder: Path) -> str:
    """学习者自己的检查点为什么用不得；可以用，或根本没有，就是空串。"""
    if not folder.is_dir() or not any(folder.glob("*.json")) and not any(folder.glob("*.safetensors")):
        return ""
    if missing := missing_files(folder):
        return f"没有存完（缺 {'、'.join(missing)}）"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        with safe_open(folder / "model.safetensors", "pt"):                              # 只读开头的目录，断了一截的会在这里报错
            pass
    except Exception as error:
        return f"读不出来（{type(error).__name__}）"
    if vocabulary_id(tokenizer) != vocabulary_id(course_tokenizer()) or config["vocab_size"] < len(tokenizer):
        return "用的是另一张字表（课程换过字表，它是换之前练的）"
    return ""


def find_checkpoint(kind: str, preset: Preset | None = None, prefer: str = "own") -> tuple[Path, str]:
    """找检查点：返回 （文件夹，一句话的来历）。

    学习者自己的那个没有存完，或者用的不是课程的字表，就不用它，改用附带的，并说明原因。

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
    what, made_in = KINDS[kind], maker(kind)
    notebook = made_in.name if made_in else "练它的那一本"
    own = outputs_dir(preset or choose_preset()) / kind
    problem = _unusable(own) if prefer == "own" else ""
    if prefer == "own" and (own / "config.json").exists() and not problem:
        return own, f"{what}：用的是你自己在 {notebook} 里练出来的。"
    shipped = SHIPPED / kind
    if missing_files(shipped):
        raise FileNotFoundError(f"课程附带的检查点 data/checkpoints/{kind} 不见了，或者不全。请用 git checkout data/checkpoints 恢复，"
                                f"或者先运行 {notebook}。")
    if problem:
        return shipped, f"{what}：你自己的那个{problem}，这次用课程附带的检查点；再运行一遍 {notebook}，就会换上你自己的。"
    return shipped, f"{what}：用的是课程附带的检查点" + (f"（运行 {notebook} 可以换成你自己的）。" if prefer == "own" else "。")


def load_checkpoint(kind: str, model_class: type[PreTrainedModel], preset: Preset | None = None, prefer: str = "own",
                    **changes) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, str]:
    """载入检查点，权重转成 float32，处于评估模式。课程的检查点用的是同一张字表，一个可以替另一个。

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
        FileNotFoundError: 文件夹里没有检查点，或者没有存完。
        ValueError: 里面的模型和分词器不是一对。
    """
    if missing := missing_files(folder):
        raise FileNotFoundError(f"{folder} 里没有完整的检查点（缺 {'、'.join(missing)}）。请检查路径；"
                                "检查点由 python -m utils.train 或各本 notebook 存下。")
    model = model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True, **changes)
    if model_class is BertLMHeadModel:
        model.loss_type = "ForCausalLM"                  # 库认不出这个类该用哪种损失，不写明会有警告
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    check_vocabulary(model, tokenizer)
    model.config.vocabulary_id = vocabulary_id(tokenizer)    # 别处存的检查点没有写，从此记着
    return model.eval(), tokenizer


def stages(folder: Path) -> list[dict]:
    """这个检查点是分几段练出来的：course.json 里的这一段，再往前是它的 before，一直到头。

    返回：
        各段的说明，最后练的在最前面；各段的项目见 tools.checkpoints.make.describe。
    """
    found, info = [], json.loads((folder / "course.json").read_text(encoding="utf-8"))
    while info:
        found.append(info)
        info = info.get("before")
    return found
