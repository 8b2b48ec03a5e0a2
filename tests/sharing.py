"""测试怎样分给几个进程（pytest-xdist）：一个文件一组，从最久的组分起；同一本 notebook 不跑两遍。

一本接一本的 notebook 在一个文件里，所以留在一个进程里按次序跑：后面的要用前面练出来的模型。
不用 xdist 的 xdist_group 标记：它把组名写进 item._nodeid，pytest 9.2 起不再读那里，标了也不起作用。
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from utils.road import road  # 不导入 torch 和 transformers：conftest.py 还没有设好环境变量

BROWSER = "tests/browser/"


def topic_of(path: Path) -> str:
    """一本的题目：path 是它的源，或构建好的 .ipynb。"""
    return {stop.name: stop.topic for stop in road()}.get(path.stem, path.stem)


def by_file(config: pytest.Config, log):
    """一个文件一组的调度器，按收集的次序分发；模块的 fixture 因此不会在几个进程里各建一遍。"""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False             # 不按测试的个数排：跑一本 notebook 比一百个小测试还久
    return LoadFileScheduling(config, log)


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """最久的排在最前面，结尾就不会只剩一个进程在忙：先是成串的 notebook，再是浏览器的，其余照旧。"""
    def rank(item: pytest.Item) -> int:
        if item.get_closest_marker("notebooks") or item.get_closest_marker("browser_notebooks"):
            return 0
        return 1 if item.nodeid.startswith(BROWSER) else 2
    return sorted(items, key=rank)


def _notebooks(items: Sequence[pytest.Item], test: str, **wanted: str) -> dict[str, pytest.Item]:
    """测试 test 要跑的 notebook：{题目：测试}；wanted 是别的参数要取的值。"""
    found = {}
    for item in items:
        if getattr(item, "originalname", "") == test and all(item.callspec.params[key] == value for key, value in wanted.items()):
            found[topic_of(item.callspec.params["notebook"])] = item
    return found


def run_in_a_browser_too(items: Sequence[pytest.Item], browser_works: Callable[[], bool]) -> list[pytest.Item]:
    """这次在浏览器里也要全部运行的 notebook，它们在内核里运行的测试。

    浏览器里用的是新的内核、同样的预设、同样的次序，运行的 .ipynb 又与源逐格相同
    （test_built_notebooks_match_their_sources），所以内核里的那一遍什么也不多查。
    """
    drawn = _notebooks(items, "test_run_all_draws_everything_without_the_network", app="lab")
    kernel = _notebooks(items, "test_notebook_runs")
    twice = [item for topic, item in kernel.items() if topic in drawn]
    return twice if twice and browser_works() else []
