"""课程的路：notebooks/road.toml 里写着有哪些 notebook、什么次序、各问什么、各用谁的模型；别处都从这里取。只是铺路石（plumbing）。"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from utils.paths import NOTEBOOKS

KINDS = ("mlm", "clm")                                    # 同 utils.models.checkpoints.KINDS；那个模块要先导入 torch，这里只读一个小文件
WHOSE = ("", "shipped", "own", "both")


@dataclass(frozen=True)
class Stop:
    """路上的一站：一本 notebook。各项怎样写，见 notebooks/road.toml 的开头。

    属性：
        number: 编号，例如 "03"；由次序而来。
        topic: 题目，例如 "self_attention"：源、练习模块、教师手册都用它作名字。
        title: 短标题。
        seal: 印章上的一个汉字。
        question: 它回答的问题，画在图上的一行或两行。
        english: 同一个问题的英文。
        read, run, practise: 读、全部运行、做练习各要几分钟。
        kind: "main" 主路，"side" 选读。
        part: 在路的哪一段。
        mlm, clm: 载入谁的模型，"shipped"、"own"、"both"；不载入是空串。
        makes: 练出并存下哪一个模型；没有是空串。
    """

    number: str
    topic: str
    title: str
    seal: str
    question: tuple[str, ...]
    english: str
    read: float
    run: float
    practise: float
    kind: str = "main"
    part: str = ""
    mlm: str = ""
    clm: str = ""
    makes: str = ""

    @property
    def name(self) -> str:
        """编号_题目：成品（.ipynb）的名字，也是给人看的名字。"""
        return f"{self.number}_{self.topic}"

    @property
    def asks(self) -> str:
        """问题，连成一行。"""
        return "".join(self.question)

    @property
    def takes_own(self) -> bool:
        """会不会用上学习者自己练的模型。"""
        return bool({self.mlm, self.clm} & {"own", "both"})


KEYS = {field.name for field in fields(Stop)} - {"number"}
NEEDED = ("topic", "title", "seal", "question", "english", "read", "run", "practise")


def road(folder: Path = NOTEBOOKS) -> tuple[Stop, ...]:
    """folder（notebooks/）里的 road.toml，按次序一本一站；没有这个文件，或者（批改时）不许读它，就是空的。

    异常：
        ValueError: 写得不对，说出是哪一项。
    """
    try:
        text = (folder / "road.toml").read_text(encoding="utf-8")
    except OSError:
        return ()
    return _parse(text)


@cache
def _parse(text: str) -> tuple[Stop, ...]:
    stops: list[Stop] = []
    for row in tomllib.loads(text).get("notebook", []):
        topic = row.get("topic")
        where = f"road.toml 第 {len(stops) + 1} 项（{topic}）"
        if wrong := [key for key in NEEDED if key not in row] + sorted(row.keys() - KEYS):
            raise ValueError(f"{where}：这几样没有写，或者不认识：{'、'.join(wrong)}。")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", topic) or topic in {stop.topic for stop in stops}:
            raise ValueError(f"{where}：题目要由小写字母、数字、下划线组成，不能重复。")
        part = row.get("part", stops[-1].part if stops else "")
        stop = Stop(f"{len(stops):02d}", **row | {"question": tuple(row["question"]), "part": part})
        if stop.kind not in ("main", "side") or stop.mlm not in WHOSE or stop.clm not in WHOSE or stop.makes not in ("", *KINDS):
            raise ValueError(f"{where}：kind、mlm、clm、makes 只能写文件开头说的那几种。")
        stops.append(stop)
    return tuple(stops)


def find(topic: str, folder: Path = NOTEBOOKS) -> Stop:
    """题目是 topic 的一站。异常：ValueError: 路上没有它。"""
    for stop in road(folder):
        if stop.topic == topic:
            return stop
    raise ValueError(f"road.toml 里没有「{topic}」。现有：{'、'.join(stop.topic for stop in road(folder)) or '（无）'}")


def stop_of(source: Path) -> Stop:
    """一本的源（notebooks/src/题目.py）是路上的哪一站。异常：ValueError: 路上没有它。"""
    return find(source.stem, source.parent.parent)


def choose(words: list[str], folder: Path = NOTEBOOKS) -> list[Stop]:
    """按编号（"02"、"2"）、题目或「编号_题目」挑，次序同 words；words 为空就是全部。找不到时报 ValueError。"""
    every, chosen = road(folder), []
    for word in words:
        hits = [stop for stop in every if word in (stop.topic, stop.name) or stop.number == word.zfill(2)]
        if not hits:
            raise ValueError(f"没有「{word}」这一本 notebook。现有：{'、'.join(stop.name for stop in every) or '（无）'}")
        chosen += [stop for stop in hits if stop not in chosen]
    return chosen if words else list(every)


def maker(kind: str, folder: Path = NOTEBOOKS) -> Stop | None:
    """哪一本练出并存下 kind（"mlm" 或 "clm"）；路上没有就是 None。"""
    return next((stop for stop in road(folder) if stop.makes == kind), None)


def lenders(topic: str, folder: Path = NOTEBOOKS) -> list[Stop]:
    """题目是 topic 的那一本载入的模型，是前面哪几本练出来的：只用附带的，就一本也没有。"""
    stops = road(folder)
    at = next((i for i, stop in enumerate(stops) if stop.topic == topic), 0)
    wanted = [kind for kind in KINDS if stops and getattr(stops[at], kind) in ("own", "both")]
    return [stop for stop in stops[:at] if stop.makes in wanted]
