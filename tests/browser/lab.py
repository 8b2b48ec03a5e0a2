"""在真的 JupyterLab（或 Notebook 7）和无头 Chromium 里打开 notebook：全部运行、截图、查报错与外部请求。

当脚本用（在副本上运行，不改动 notebook 本身）：

    python tests/browser/lab.py notebooks/编号_题目.ipynb --shots 截图文件夹 [--preset smoke] [--dark] [--app notebook]

需要系统里的 Chromium（环境变量 CHROMIUM 可以指定它的路径），和 tests/browser/requirements.txt 里的包：
有 Chromium 时 course.py test 会装好它们；缺了哪样，浏览器测试就跳过并说明原因。
设了环境变量 COURSE_BROWSER=required（.ci/run 里就是），缺了就算失败：不会因为跳过而看上去一切都好。
除了本机回环地址，浏览器访问不了任何地方；想访问而被拦下的都记在 external 里。
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "apputils-extension/themes": {"theme": "JupyterLab Light"},
}


def find_chromium() -> str | None:
    """Chromium 可执行文件的路径；没有就是 None。"""
    named = os.environ.get("CHROMIUM")
    return named if named and Path(named).exists() else next(filter(None, map(shutil.which, NAMES)), None)


# 应用名 → (启动用的模块，配置项的类名，notebook 的网址前缀)
APPS = {"lab": ("jupyterlab", "LabApp", "doc/tree"), "notebook": ("notebook", "JupyterNotebookApp", "notebooks")}


def why_not(app: str = "lab") -> str | None:
    """不能做浏览器测试的原因；能做就是 None。app: "lab" 或 "notebook"（Notebook 7）。

    错误：RuntimeError：环境变量 COURSE_BROWSER 是 required，却做不了。
    """
    reason = _lacking(app)
    if reason and os.environ.get("COURSE_BROWSER") == "required":
        raise RuntimeError(f"COURSE_BROWSER=required，却不能做浏览器测试：{reason}")
    return reason


def _lacking(app: str) -> str | None:
    if app == "notebook" and importlib.util.find_spec("notebook") is None:
        return "没有安装 Notebook 7(pip install notebook)"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "没有安装 playwright(pip install playwright)"
    return None if find_chromium() else "找不到 Chromium(可用环境变量 CHROMIUM 指定)"


def workplace(notebooks: list[Path], folder: Path) -> None:
    """在 folder 里摆一份课程的副本：notebook 是副本，utils 和 data 指向原处。"""
    (folder / "notebooks").mkdir()
    for notebook in notebooks:
        shutil.copy(notebook, folder / "notebooks" / notebook.name)
    for name in ("utils", "data"):
        if (ROOT / name).exists():
            try:
                (folder / name).symlink_to(ROOT / name, target_is_directory=True)
            except OSError:  # 没有权限建符号链接的 Windows
                shutil.copytree(ROOT / name, folder / name)


@contextmanager
def serve(folder: Path, dark: bool = False, app: str = "lab", settings: dict | None = None,
          **environment: str) -> Iterator[str]:
    """在 folder 上启动 JupyterLab 或 Notebook 7(不读用户自己的设置)，给出带令牌的网址前缀，离开时关掉。"""
    module, settings_class, prefix = APPS[app]
    config = folder / ".config"
    for name, values in (SETTINGS | (settings or {})).items():
        if dark and "theme" in values:
            values = {"theme": "JupyterLab Dark"}
        target = config / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
              "IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings",
              "JUPYTERLAB_WORKSPACES_DIR": "spaces", "COURSE_OUTPUTS": "outputs"}
    outside = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}  # 图要画进 notebook
    env = outside | {key: str(config / name) for key, name in places.items()} | environment
    command = [sys.executable, "-m", module, "--no-browser", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}",
               f"--IdentityProvider.token={token}",
               f"--{settings_class}.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    if app == "notebook":  # Notebook 7 也会启动 LabApp 的服务，它的默认值会盖掉上面那一项
        command.append("--LabApp.expose_app_in_browser=True")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with open(folder / "lab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, folder / "lab.log")
            yield f"http://127.0.0.1:{port}/{prefix}|{token}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            with urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError("JupyterLab 没有启动：\n" + log.read_text(encoding="utf-8")[-2000:])


IDLE = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = """() => {
  window.courseDone = false;
  window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.courseDone = true; });
}"""


class Lab:
    """一个开着 JupyterLab 或 Notebook 7 的浏览器页面。

    属性：page: playwright 的页面；outputs：内核共用的产物文件夹；errors：网页控制台的报错；external：想访问本机以外而被拦下的地址。
    """

    def __init__(self, page, address: str, outputs: Path):
        self.page, self.outputs, self.errors, self.external = page, outputs, [], []
        self.url, self.token = address.split("|")
        page.set_default_timeout(120_000)  # 机器忙的时候，打开一页可能要一分钟
        page.context.route("**/*", self._gate)
        page.on("websocket", lambda socket: self._note(socket.url))
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda problem: self.errors.append(str(problem)))

    def _note(self, url: str) -> bool:
        inside = urlparse(url).scheme in ("data", "blob", "about") or urlparse(url).hostname in LOOPBACK
        if not inside:
            self.external.append(url)
        return inside

    def _gate(self, route) -> None:
        if self._note(route.request.url):
            route.continue_()
        else:
            route.abort()

    def open(self, name: str, timeout: float = 120) -> None:
        """打开 notebooks/name，等到内核空闲。"""
        self.page.goto(f"{self.url}/notebooks/{name}?token={self.token}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=1000 * timeout)
        self.page.wait_for_function(IDLE, timeout=1000 * timeout)

    def run_all(self, timeout: float = 1800) -> None:
        """全部运行，等到跑完；最多等 timeout 秒。"""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function("() => window.courseDone", timeout=1000 * timeout, polling=200)
        self.page.wait_for_timeout(1500)

    def shut_down(self) -> None:
        """关掉这个服务器上的全部内核，把内存还回去。"""
        self.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")

    def cell_errors(self) -> list[str]:
        """出错的单元格的错误信息。"""
        return self.page.evaluate("""() => {
          const found = [], cells = window.jupyterapp.shell.currentWidget.content.model.cells;
          for (let i = 0; i < cells.length; i++) for (const output of cells.get(i).toJSON().outputs ?? [])
            if (output.output_type === 'error') found.push(`[${i}] ${output.ename}: ${output.evalue}`);
          return found;
        }""")

    def said(self) -> str:
        """各个单元格打印的全部文字。"""
        return self.page.evaluate("""() => {
          const texts = [], cells = window.jupyterapp.shell.currentWidget.content.model.cells;
          for (let i = 0; i < cells.length; i++) for (const output of cells.get(i).toJSON().outputs ?? [])
            if (output.output_type === 'stream') texts.push([output.text].flat().join(''));
          return texts.join('');
        }""")

    def scroll_shots(self, folder: Path, prefix: str = "") -> list[Path]:
        """从头滚到尾，一屏一张截图。"""
        folder.mkdir(parents=True, exist_ok=True)
        frame, shots, number = self.page.locator(".jp-WindowedPanel-outer").first, [], 0
        frame.evaluate("box => { box.scrollTop = 0; }")
        while number < 200:
            self.page.wait_for_timeout(500)
            shots.append(folder / f"{prefix}{number:02d}.png")
            self.page.screenshot(path=shots[-1])
            before = frame.evaluate("box => box.scrollTop")
            frame.evaluate("box => { box.scrollTop += box.clientHeight * 0.9; }")
            self.page.wait_for_timeout(200)
            if frame.evaluate("box => box.scrollTop") <= before + 1:
                return shots
            number += 1
        return shots


@contextmanager
def lab(notebooks: list[Path], dark: bool = False, width: int = 1280, height: int = 900, app: str = "lab",
        settings: dict | None = None, **environment: str) -> Iterator[Lab]:
    """摆好副本、启动 app(lab 或 notebook)和 Chromium，给出 Lab。

    settings：另外的 JupyterLab 设置，{扩展名：{项：值}}；environment：给内核的环境变量。
    """
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, sync_playwright() as playwright:
        folder = Path(place)
        workplace(notebooks, folder)
        with serve(folder, dark, app, settings, **environment) as address:
            blocked = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
            browser = playwright.chromium.launch(executable_path=find_chromium(),
                                                 args=["--no-sandbox", blocked])
            try:
                page = browser.new_page(viewport={"width": width, "height": height}, locale="zh-CN")
                yield Lab(page, address, folder / ".config" / "outputs")
            finally:
                browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="在真的 JupyterLab 里全部运行一本 notebook，并截图。")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--shots", type=Path, required=True, help="截图放在哪个文件夹")
    parser.add_argument("--preset", help="smoke、cpu 或 gpu")
    parser.add_argument("--dark", action="store_true", help="用深色主题")
    parser.add_argument("--app", choices=APPS, default="lab", help="用 JupyterLab 还是 Notebook 7")
    options = parser.parse_args()
    if reason := why_not(options.app):
        print(reason, file=sys.stderr)
        return 2
    bad = 0
    environment = {"COURSE_PRESET": options.preset} if options.preset else {}
    with lab(options.notebooks, options.dark, app=options.app, **environment) as opened:
        for notebook in options.notebooks:
            opened.errors.clear()
            opened.external.clear()
            started = time.monotonic()
            opened.open(notebook.name)
            opened.run_all()
            seconds = time.monotonic() - started
            shots = opened.scroll_shots(options.shots, f"{notebook.stem}-")
            failed = opened.cell_errors()
            print(f"{notebook.name}:{seconds:.0f} 秒，{len(shots)} 张截图")
            for title, lines in {"单元格出错": failed, "控制台报错": opened.errors,
                                 "外部请求": opened.external}.items():
                print(f"  {title}:{len(lines)}")
                for line in lines:
                    print(f"    {line[:300]}")
                bad += len(lines)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
