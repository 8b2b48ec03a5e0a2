"""课程的路：notebooks/road.toml 里写着有哪些 notebook、什么次序、各用谁的模型。只是铺路石（plumbing）。"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

KINDS = ("mlm", "clm")                                    # 同 utils.models.checkpoints.KINDS；那个模块要先导入 torch，这里只读一个小文件


def road(folder: Path) -> list[dict]:
    """folder（notebooks/）里的 road.toml，按次序一本一项；没有这个文件就是空的。

    返回：
        每项至少有 name；"mlm"、"clm" 是它用谁的模型（"shipped"、"own"、"both"），不用就没有；makes 是它练出并存下哪一个。
    """
    path = folder / "road.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["notebook"] if path.exists() else []


def lenders(folder: Path, name: str) -> list[str]:
    """name 那一本载入的模型，是前面哪几本练出来的：只用附带的，就一本也没有。"""
    rows = road(folder)
    at = next((i for i, row in enumerate(rows) if row["name"] == name), 0)
    wanted = [kind for kind in KINDS if rows and rows[at].get(kind) in ("own", "both")]
    return [row["name"] for row in rows[:at] if row.get("makes") in wanted]


@dataclass(frozen=True)
class Stop:
    """路上的一站：一本 notebook。

    属性：
        name: notebook 的名字，前两位是编号。
        seal: 印章上的一个汉字。
        title: 短标题。
        lines: 它回答的问题，画在图上的一行或两行。
    """

    name: str
    seal: str
    title: str
    lines: tuple[str, ...]

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def question(self) -> str:
        return "".join(self.lines)


ROAD = (
    Stop("start", "始", "出发", ("我的机器能跑吗？",)),
    Stop("background", "难", "背景", ("大模型遇到汉字，", "难在哪？")),
    Stop("tokenization", "切", "分词", ("一个汉字", "该切成什么？")),
    Stop("self_attention", "看", "自注意力", ("注意力", "到底在算什么？")),
    Stop("transformer", "搭", "Transformer", ("怎样搭成", "编码器和解码器？")),
    Stop("objectives", "学", "训练目标", ("预训练在学什么？",)),
    Stop("mlm_pretraining", "填", "预训练", ("怎样预训练一个", "中文 BERT？")),
    Stop("attention_visualization", "照", "可视化", ("模型在看哪里？",)),
    Stop("clm_finetuning", "续", "微调", ("怎样教它", "从导语写正文？")),
    Stop("generation", "写", "生成", ("怎样把概率", "变成文章？")),
    Stop("scale_up", "远", "走向真实", ("怎样走向真数据、", "大模型、多卡？")),
)
