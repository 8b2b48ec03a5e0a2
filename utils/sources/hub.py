"""hub 上的数据集：`load_corpus("hub:名字")`。要联网，所以课程里从不默认用它。

镜像：在启动 JupyterLab 之前设环境变量 HF_ENDPOINT（库在导入时就读它）。私有或要登记的数据集：先在终端运行 `hf auth login`，
或设 HF_TOKEN；本模块从不接收、也从不打印令牌（token）。数据集自带的脚本一律不跑（datasets 4 起已不支持）。
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from datasets import DatasetDict, config, get_dataset_config_names, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from utils.sources.documents import Ledger, check_choice, check_columns, column_map_or_stop, summary
from utils.sources.store import open_store, store_folder, write_store

STREAM_DOCS = 20000                                        # streaming=True 而没写 n_docs 时读这么多篇
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "aiohttp")      # 这些库报的错，都是网络不通
_LOGIN = "请先在终端运行 hf auth login，或设环境变量 HF_TOKEN"


def _host() -> str:
    """现在连的是哪里：只说主机和端口，网址里若写了账号密码也不会露出来。"""
    parts = urlsplit(constants.ENDPOINT)
    return (parts.hostname or constants.ENDPOINT) + (f":{parts.port}" if parts.port else "")


def _explain(error: BaseException, name: str, revision: str | None, what: str = "数据集") -> str:
    """把库报的错换成一句中文。原来的报错可能很长，也可能带着请求头，所以只留类型名。"""
    kind = type(error)
    if isinstance(error, GatedRepoError) or isinstance(error, DatasetNotFoundError) and "gated dataset" in str(error):
        return f"「{name}」要先在它的网页上同意条款才能用。同意之后{_LOGIN}。"
    if isinstance(error, RevisionNotFoundError):
        return f"「{name}」没有名为「{revision}」的版本（revision）。请在它的网页上看看有哪些分支、标签。"
    if isinstance(error, (RepositoryNotFoundError, DatasetNotFoundError)):
        return f"在 {_host()} 上找不到{what}「{name}」：名字写错了，或者它是私有的。请检查名字（用户名/{what}名）；若是私有的，{_LOGIN}。"
    if isinstance(error, OfflineModeIsEnabled):
        return "现在是离线模式（设了 HF_HUB_OFFLINE 等环境变量），不能用 hub:。请去掉这个环境变量，重启内核再试。"
    if isinstance(error, HFValidationError):
        return f"{what}的名字「{name}」或版本写得不合规矩。请写成「用户名/{what}名」。"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else "未知"
        advice = {401: f"令牌无效或已过期，{_LOGIN}。", 403: "你的令牌没有读它的权限。", 429: "请求太频繁，请过几分钟再试。"}.get(
            status, "服务器出了问题，请稍后再试，或换一个镜像（HF_ENDPOINT）。")
        return f"{_host()} 拒绝了对「{name}」的请求（状态码 {status}）：{advice}"
    if isinstance(error, UnicodeEncodeError) or kind.__name__ == "LocalProtocolError":     # 请求头写不出来
        return f"令牌里有不该有的字符（例如汉字、换行）。{_LOGIN}。"
    if isinstance(error, FileMetadataError):
        return f"{_host()} 的回答不像是 Hugging Face Hub。请检查 HF_ENDPOINT 是不是写对了。"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"磁盘满了，「{name}」没有读完。请腾出空间，或设 n_docs= 少读一些。"
    if isinstance(error, (ConnectionError, TimeoutError)) or kind.__module__.split(".")[0] in _CLIENTS:
        return f"连不上 {_host()}（{kind.__name__}）。请检查网络；也可以在启动 JupyterLab 之前设 HF_ENDPOINT，换一个镜像。"
    if "scripts are no longer supported" in str(error):
        return f"「{name}」靠自带的脚本装载，这样的数据集不再支持，课程也从不运行别人的脚本。请换一个直接存着数据文件的数据集。"
    files = "数据文件" if what == "数据集" else "权重文件"
    return f"读不了{what}「{name}」（{kind.__name__}）。它可能没有能直接读的{files}，或文件已损坏。请在它的网页上看看，或换一个{what}。"


@contextmanager
def in_chinese(name: str, revision: str | None, what: str = "数据集") -> Iterator[None]:
    """with 里出的错，换成一句中文的 ValueError；what 是「数据集」或「模型」。"""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and type(error) is ValueError and "。" in str(error):
            raise                                          # 已经是我们自己的中文说明
        said = _explain(error, name, revision, what)
    else:
        return
    raise ValueError(said) from None                       # 在 except 之外：令牌若在原来的报错里，也不会随回溯打印出来


def check_endpoint() -> None:
    """HF_ENDPOINT 是导入之后才设的，就报 ValueError：库在导入时就读走了它。"""
    wanted = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
    if wanted != constants.ENDPOINT:
        raise ValueError("HF_ENDPOINT 是在导入库之后才设的，不起作用。请重启内核，在第一格的最前面（或启动 JupyterLab 之前）设它。")


def _check(name: str, streaming) -> None:
    check_choice("streaming", streaming, (True, False))
    if not _NAME.fullmatch(name):
        raise ValueError(f"hub: 后面要写数据集的名字，例如 \"hub:用户名/数据集名\"，得到的是「{name}」。")
    if Path(name).exists():
        raise ValueError(f"现在的文件夹里有一个也叫「{name}」的文件或文件夹，datasets 会先读它。请换一个文件夹运行。")
    check_endpoint()


def _missing(what: str, option: str, wanted: str | None, names: list[str]) -> ValueError:
    """选不定子集（或部分）：列出有哪些，请人写明。"""
    shown = "、".join(names[:20]) + ("……" if len(names) > 20 else "")
    why = f"没有名为「{wanted}」的{what}" if wanted is not None else f"有不止一个{what}，不知道要哪一个"
    return ValueError(f"这个数据集{why}。有的是：{shown}。请写明 {option}=。")


def _choose(name: str, subset: str | None, sha: str, split: str | None) -> tuple[str, str]:
    """定下子集和部分。返回两者的名字。"""
    try:
        builder = load_dataset_builder(name, subset, revision=sha)
    except ValueError:                                     # 没有这个子集，或要从几个里选：列出名字
        names = get_dataset_config_names(name, revision=sha)
        if subset in names:
            raise
        raise _missing("子集", "subset", subset, names) from None
    subset = builder.config.name
    names = [str(s) for s in builder.config.data_files or builder.info.splits or ()]
    if split is None:
        split = "train" if "train" in names else names[0] if len(names) == 1 else None
    if split not in names:
        raise _missing("部分", "split", split, names)
    return subset, split


def load_hub(name: str, n_docs: int | None = None, seed: int = 2026, columns: dict[str, str] | None = None, subset: str | None = None,
             revision: str | None = None, split: str | None = None, streaming: bool = False, on_error: str = "stop") -> DatasetDict:
    """读 hub 上数据集的一个部分，照课程的规则重新分成 train、validation、test。读完打印一行：版本、篇数、跳过了什么。

    参数：
        name: 数据集名，例如 "用户名/数据集名"。
        n_docs: 最多读多少篇；None 表示全部（streaming=True 时是 20,000）。
        seed: 决定怎样分三部分。
        columns: 列的对应，例如 {"title": "headline", "text": "content"}；见 utils/sources/documents.py 的 column_map。
        subset: 子集（config）的名字；None 表示默认的或唯一的那个。
        revision: 分支、标签或提交号；None 表示 main。不论写什么，都先换成提交号，所以中途更新也不会读串。
        split: 读原来的哪一部分；None 表示 train，没有 train 时是唯一的那个。
        streaming: True 时边下边读，只下载用得到的前面一段；False 时先整个下载（下次不用再下）。
        on_error: 某一条坏了（例如不是文字）"stop" 停下，"skip" 跳过。
    返回：
        DatasetDict；列是 id、category、title、intro、body，都是 str，缺的填空串。
    异常：
        ValueError: 名字、版本、子集、列有问题，连不上，或没有权限；说明里写着怎么办。
    """
    check_columns(columns)
    _check(name, streaming)
    ledger = Ledger(name, on_error, "条")
    n_docs = STREAM_DOCS if streaming and n_docs is None else n_docs
    with in_chinese(name, revision):
        if constants.HF_HUB_OFFLINE or config.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        sha = HfApi().dataset_info(name, revision=revision, timeout=30).sha
        subset, split = _choose(name, subset, sha, split)
    folder = store_folder("hub-" + name.replace("/", "--")[:40], {
        "endpoint": constants.ENDPOINT, "name": name, "sha": sha, "subset": subset, "split": split, "n_docs": n_docs, "seed": seed,
        "columns": columns, "on_error": on_error})
    stored = open_store(folder)
    with in_chinese(name, revision):
        corpus, report = stored or write_store(
            folder, ledger.documents(_rows(name, subset, sha, split, streaming, columns), columns, name.split("/")[-1]),
            n_docs, seed, ledger.report)
    print(summary([f"hub:{name}：子集 {subset}，原来的 {split} 部分，版本 {sha[:8]}"], corpus.num_rows, report, stored is not None))
    return corpus


def _rows(name: str, subset: str, sha: str, split: str, streaming: bool, columns) -> Iterator[tuple[int, dict]]:
    """（第几条，一行数据），只取用得到的列。"""
    docs = load_dataset(name, subset, revision=sha, split=split, streaming=streaming)
    names = docs.column_names or list(next(iter(docs), {}))
    docs = docs.select_columns(list(column_map_or_stop(name, columns, names).values()))
    yield from enumerate(docs, 1)
