"""每一本都能单独打开：没有自己练的模型，就用附带的，并说出来（smoke）。

照着 road.toml，只有用得上自己模型的几本，单独跑和跟着跑才不一样；跟着跑的在 test_notebooks.py 和 browser/test_run_all.py。
"""

import pytest
from chain import printed

from tools.notebooks.execution import execute
from tools.notebooks.manage import NOTEBOOKS
from utils.road import KINDS, road

LONG = "clm_finetuning"                                # 从附带的 MLM 练起，smoke 也要六分钟；手工试过，不放进每次的测试
OWN = [row["name"] for row in road(NOTEBOOKS) if {row.get(kind) for kind in KINDS} & {"own", "both"} and row["name"] != LONG]


def test_the_road_names_every_notebook_in_order():
    names = [row["name"] for row in road(NOTEBOOKS)]
    assert LONG in names
    assert names == sorted(path.stem for path in (NOTEBOOKS / "src").glob("[0-9]*.py"))
    assert [row["makes"] for row in road(NOTEBOOKS) if "makes" in row] == list(KINDS)


@pytest.mark.notebooks
@pytest.mark.parametrize("name", OWN)
def test_alone_with_the_shipped_models(name, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_OUTPUTS", str(tmp_path))
    result = execute(NOTEBOOKS / "src" / f"{name}.py", "smoke", bar=False)
    said = printed(result.notebook)
    assert result.ok, result.failure
    assert "附带的检查点" in said and "你自己在" not in said
