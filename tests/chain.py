"""一本接一本地跑：前面练出来的模型，后面的真的用上了。"""

from __future__ import annotations

from pathlib import Path

import pytest
from sharing import topic_of

from utils.models.checkpoints import KINDS
from utils.road import maker, road

MAKES = {stop.topic: stop.makes for stop in road() if stop.makes}
USES = {stop.topic: kind for stop in road() for kind in KINDS if getattr(stop, kind) in ("own", "both")}


def came_before(item: pytest.Item) -> set[str]:
    """同一个测试、同一个应用，排在 item 前面的 notebook 的题目。"""
    def key(one):
        return getattr(one, "originalname", None), one.callspec.params.get("app") if hasattr(one, "callspec") else None
    earlier = item.session.items[:item.session.items.index(item)]
    return {topic_of(one.callspec.params["notebook"]) for one in earlier if key(one) == key(item)}


def printed(notebook) -> str:
    """执行过的 notebook 打印的全部文字。"""
    return "".join(o.text for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream")


def broken_links(topic: str, before: set[str], said: str, outputs: Path) -> list[str]:
    """跑完一本之后，接不上的地方；都接得上就是空的。

    参数：
        topic: 刚跑完的 notebook 的题目。
        before: 在它之前跑过的。
        said: 它打印的全部文字。
        outputs: 这一串共用的产物文件夹（某一个预设的）。
    """
    wrong = []
    if topic in MAKES and not (outputs / MAKES[topic] / "config.json").exists():
        wrong.append(f"{topic} 没有把练好的模型存进 {outputs / MAKES[topic]}")
    lender = maker(USES[topic]) if topic in USES else None
    if lender and lender.topic in before and f"{KINDS[USES[topic]]}：用的是你自己在 {lender.name} 里练出来的" not in said:
        wrong.append(f"{topic} 没有用上 {lender.topic} 练出来的模型")
    return wrong
