"""hub 上的模型：`load_hub_model("google-bert/bert-base-chinese", AutoModelForMaskedLM)`。要联网，所以课程里从不默认用它。

只收 safetensors 的权重，从不运行仓库自带的代码；镜像与令牌的用法同 utils/sources/hub.py。首次使用：scale_up。
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import OfflineModeIsEnabled

from utils.sources.hub import check_endpoint, in_chinese

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_hub_model(name: str, model_class, revision: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """下载一个模型和它的分词器（float32，评估模式；下次用缓存）。

    参数：
        name: 模型名，例如 "google-bert/bert-base-chinese"。
        model_class: 例如 AutoModelForMaskedLM、AutoModelForCausalLM。
        revision: 分支、标签或提交号；None 表示 main。先换成提交号，中途更新也不会读串。
    返回：
        （模型，分词器，一句话的来历）。
    异常：
        ValueError: 名字、版本不对，连不上，没有权限，没有 safetensors 的权重，或要运行自带的代码；说明里写着怎么办。
    """
    import torch  # 读语料的人也要经过 utils.sources，不让他们等 torch
    from transformers import AutoTokenizer

    check_endpoint()
    with in_chinese(name, revision, "模型"):
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        info = HfApi().model_info(name, revision=revision, timeout=30)
    if not any(f.rfilename.endswith(".safetensors") for f in info.siblings or ()):
        raise ValueError(f"「{name}」没有 safetensors 的权重，课程不载入别的格式（pickle 里可以藏代码）。请换一个有 safetensors 的模型。")
    options = dict(revision=info.sha, trust_remote_code=False)
    with in_chinese(name, revision, "模型"):
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model = model_class.from_pretrained(name, use_safetensors=True, dtype=torch.float32, attn_implementation="eager", **options)
    return model.eval(), tokenizer, f"hub 上的 {name}，版本 {info.sha[:8]}，{model.num_parameters():,} 个参数"
