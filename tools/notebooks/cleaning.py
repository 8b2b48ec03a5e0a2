"""把执行后的 notebook 清理成可以放进版本库的样子：没有执行次数、进度条、内存地址和本机路径。"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

WIDGET = "application/vnd.jupyter.widget-view+json"
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
PROGRESS = re.compile(r"\r|\d+%\||\bit/s\b|\bs/it\b|[▏▎▍▌▋▊▉█]{2,}|^\s*$")
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python",
            "nbconvert_exporter": "python", "pygments_lexer": "ipython3"}


def cell_id(topic: str, number: int) -> str:
    """第 number 格（从 1 数起）的编号，例如 "tokenization-001"。"""
    return f"{topic}-{number:03d}"


def clean(nb: NotebookNode, topic: str, root: Path) -> tuple[NotebookNode, list[str]]:
    """清理一本执行后的 notebook。

    参数：
        nb: 执行后的 notebook（不会被改动）。
        topic: 题目，例如 "tokenization"；单元的编号是 tokenization-001、tokenization-002……
        root: 课程文件夹；输出里它的绝对路径改成相对路径。
    返回：
        （新的 notebook, 标准错误里不是进度条的行——给维护者看，不进 notebook）。
    """
    warnings: list[str] = []
    cells = []
    for number, cell in enumerate(nb.cells, 1):
        new = NotebookNode(cell_type=cell.cell_type, id=cell_id(topic, number), source=cell.source)
        tags = cell.metadata.get("tags")
        new.metadata = NotebookNode({"tags": list(tags)} if tags else {})
        if cell.cell_type == "code":
            new.execution_count = None
            new.outputs = clean_outputs(cell.outputs, root, warnings)
        cells.append(new)
    result = nbformat.v4.new_notebook(cells=cells)
    result.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE})
    result.nbformat_minor = 5
    return result, warnings


def clean_outputs(outputs: list[NotebookNode], root: Path, warnings: list[str]) -> list[NotebookNode]:
    """清理一格的全部输出；标准错误不留，其中不像进度条的行加进 warnings。"""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            text = clean_text("".join(output.text), root)
            if output.name == "stderr":
                lines = (x.rstrip() for x in "".join(output.text).split("\n"))
                warnings += [f"标准错误：{tidy(x, root)}" for x in lines if not PROGRESS.search(x)]
            elif kept and kept[-1].output_type == "stream":
                kept[-1].text += text
            elif text:
                kept.append(nbformat.v4.new_output("stream", name="stdout", text=text))
        elif output.output_type == "error":
            kept.append(nbformat.from_dict(dict(output)))
        else:
            kept += clean_display(output, root)
    return kept


def clean_display(output: NotebookNode, root: Path) -> list[NotebookNode]:
    """清理一个 display_data 或 execute_result；过渡性的（进度、控件）返回空列表。"""
    html = "".join(output.data.get("text/html", ""))
    if output.metadata.get("course") == "transient" or "<progress" in html:
        return []
    data = {}
    for mime, value in output.data.items():
        if mime == WIDGET:
            continue
        if mime == "image/png":
            value = shrink_png(value)
        elif isinstance(value, str | list) and mime.startswith(("text/", "image/svg")):
            value = clean_text("".join(value), root)
        data[mime] = value
    if not data or (WIDGET in output.data and set(data) <= {"text/plain", "text/html"}):
        return []
    metadata = {k: v for k, v in output.metadata.items() if k != "course"}
    new = nbformat.v4.new_output(output.output_type, data=data, metadata=metadata)
    if output.output_type == "execute_result":
        new.execution_count = None
    return [new]


def clean_text(text: str, root: Path) -> str:
    """去掉内存地址和本机路径；被 \\r 覆盖掉的字也去掉。"""
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    return tidy("\n".join(lines), root)


def tidy(text: str, root: Path) -> str:
    """去掉内存地址；课程文件夹的绝对路径改成相对的，家目录改成 ~。"""
    text = ADDRESS.sub("", text)
    for folder, short in ((root, ""), (Path.home(), "~")):
        for form in dict.fromkeys((str(folder), folder.as_posix(), str(folder).replace("\\", "\\\\"))):
            tail = r"[\\/]+" if not short else ""
            text = re.sub(re.escape(form) + tail, short, text) if tail else text
            text = re.sub(re.escape(form) + r"(?![\w.-])", short or ".", text)
    return text


def shrink_png(encoded: str) -> str:
    """PNG(base64)改成不超过 256 色的调色板；变小了才换，元数据一律去掉。"""
    raw = base64.b64decode("".join(encoded))
    image = Image.open(io.BytesIO(raw))
    best = raw
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    if image.mode == "RGB":
        buffer = io.BytesIO()
        image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            buffer, "PNG", optimize=True)
        best = min(best, buffer.getvalue(), key=len)
    return base64.b64encode(best).decode("ascii")
