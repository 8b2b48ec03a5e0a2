#!/usr/bin/env python3
# -*- coding: utf-8 -*-
"""课程的唯一入口：安装、打开、运行、构建、测试。

只用标准库，Linux、macOS、Windows 都能用。要能被很旧的 Python(2.7、3.6)读懂，
这样旧 Python 也能得到一句明白话；所以这里不用 f-string，也不写类型标注。
"""

from __future__ import print_function, unicode_literals

import difflib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
LOCK = os.path.join(ROOT, ".venv.lock")
STAMP = os.path.join(VENV, "course-stamp.json")
WINDOWS = os.name == "nt"
MIN_PYTHON = (3, 11)
TESTED_PYTHON = (3, 13)
SUPPORTED = "%d.%d 到 %d.%d" % (MIN_PYTHON + TESTED_PYTHON)
KERNEL_NAME = "从零开始大模型：汉字的文本处理"
PRESETS = ("smoke", "cpu", "gpu")
COMMANDS = ("lab", "run", "build", "test", "setup", "pack", "release", "grade", "slides")
WHEELS = os.path.join(ROOT, "wheels")          # 离线包里的软件包，由 pack 备好
NEED_GB = 3.0          # .venv 约 2 GB，再加下载时的临时文件
LOW_GB = 0.1           # 安装途中剩余空间低于它，就当作磁盘已满
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")

HELP = """\
《从零开始大模型开发与微调：汉字的文本处理》

用法：{me} 命令 [NN …] [选项] [-- 其他参数]

命令
  lab            打开 JupyterLab，从 00_start 学起（第一次会先安装，约几分钟）
  run [NN …]     在命令行里运行 notebook，最后给出一张用时和内存的表
  build [NN …]   运行 notebooks/src/*.py，重新生成 notebooks/*.ipynb（维护者用）
  test           跑全部测试，并以 smoke 预设运行每一本 notebook；有两个核心就分两份同时跑，
                 不要分就写 test -- -n 0
  setup          只安装，不打开（Colab 上由 notebook 的引导单元调用）
  pack [平台 …]  备一个离线包：课程、小模型和软件包都在一个 zip 里。平台：windows、macos、linux，
                 可带 Python 版本，例如 windows-3.12；不写就是这台机器
  release 文件夹  写出发给学生的课程（没有参考答案），和给 nbgrader 用的教师版（老师用）
  grade 文件夹    批改收回来的作业：每份在自己的进程里，限时、断网，写出 csv 和网页两张表（老师用）
  slides [NN …]  由 notebook 做成投影片，一本一个网页文件，断网也能放（老师用）

选项
  --preset 名字  大小：smoke（几秒）、cpu（默认）、gpu
  --here         用当前的 Python，不建 .venv(conda、Colab)
  --offline      不联网：软件包取自课程文件夹里的 wheels（由 pack 备好）
  -h, --help     显示这段说明

-- 之后的参数原样交给 JupyterLab(lab)或 pytest(test)。

例子
  {me} lab
  {me} lab -- --no-browser --port 8899
  {me} run 02 03 --preset smoke
  {me} test -- -m "not notebooks"
  {me} pack windows-3.12 macos-3.12
  {me} lab --offline
  {me} release 发给学生
  {me} grade 收回来的作业
"""


class Stop(Exception):
    """要停下来时抛出：text 是给人看的话，code 是退出码。"""

    def __init__(self, text, code=1):
        Exception.__init__(self, text)
        self.text = text
        self.code = code


# ---------------------------------------------------------------- 说话


def say(text="", stream=None):
    """打印一行；控制台不认得的字换成问号，绝不因为编码出错。"""
    stream = stream or sys.stdout
    try:
        stream.write(text + "\n")
    except UnicodeError:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        safe = (text + "\n").encode(encoding, "replace")
        getattr(stream, "buffer", stream).write(safe)
    stream.flush()


def python_word():
    """当前系统上人们怎么叫 Python。"""
    return "python" if WINDOWS else "python3"


def me():
    return python_word() + " course.py"


# ---------------------------------------------------------------- 解释器


def newer_python():
    """在 PATH 上找一个够新的 Python（确实能运行的才算），返回路径；没有就返回空串。"""
    minors = range(TESTED_PYTHON[1], MIN_PYTHON[1] - 1, -1)
    names = ["python3.%d" % minor for minor in minors] + ["python3", "python"]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in names:
            path = os.path.join(folder, name + (".exe" if WINDOWS else ""))
            if os.path.isfile(path) and ask_version(path) >= MIN_PYTHON:
                return path
    return ""


def ask_version(python):
    """运行一个解释器，返回 （主版本，次版本）；不能运行就返回 (0, 0)。"""
    code = "import sys; print('%d %d' % sys.version_info[:2])"
    try:
        child = subprocess.Popen([python, "-c", code], env=clean_environ(),
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        parts = child.communicate()[0].split()
        return (int(parts[0]), int(parts[1])) if child.returncode == 0 else (0, 0)
    except (OSError, ValueError, IndexError):
        return (0, 0)


def check_python():
    """Python 太旧或是 32 位就停下。"""
    have = sys.version_info[:2]
    if have < MIN_PYTHON:
        text = "Python 太旧：这里是 %d.%d，课程需要 %s。\n" % (have + (SUPPORTED,))
        try:
            found = newer_python()
        except UnicodeError:              # Python 2 遇到含汉字的 PATH
            found = ""
        if found:
            text += "这台机器上已有够新的 Python，请用它：\n    %s course.py lab" % found
        else:
            text += "请安装 Python 3.12（Python 官网、系统的软件包管理器或 conda 都可以），然后再来一次。"
        raise Stop(text)
    if sys.maxsize <= 2 ** 32:
        raise Stop("这是 32 位的 Python，PyTorch 只有 64 位的安装包。请安装 64 位的 Python 3.12。")
    if have > TESTED_PYTHON:
        say("提醒：课程在 Python %s 上测试过，这里是 %d.%d。若安装失败，请换 3.12。" % ((SUPPORTED,) + have))


def venv_python(venv=None):
    """虚拟环境里的解释器路径。"""
    parts = ("Scripts", "python.exe") if WINDOWS else ("bin", "python")
    return os.path.join(venv or VENV, *parts)


def clean_environ():
    """给 .venv 用的环境变量：去掉会把别的 Python 混进来的几个。"""
    env = dict(os.environ)
    for name in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"):
        env.pop(name, None)
    return env


def capture(command):
    """运行一个命令，返回 （退出码，输出文字）。"""
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 stdin=subprocess.DEVNULL, env=clean_environ(), cwd=ROOT)
        output = child.communicate()[0]
    except OSError as error:
        return 127, str(error)
    return child.returncode, output.decode("utf-8", "replace")


# ---------------------------------------------------------------- 出错时说什么

NO_SPACE = r"no space left on device|errno 28\b|winerror 112|disk quota exceeded|not enough space"
NO_RIGHT = r"permission denied|errno 13\b|winerror 5\b|access is denied|read-only file system"
NO_NETWORK = "|".join((
    r"failed to establish a new connection|newconnectionerror|max retries exceeded|retrying \(",
    r"name or service not known|temporary failure in name resolution|getaddrinfo failed",
    r"nodename nor servname|network is unreachable|no route to host|connection refused",
    r"timed out|connecttimeout",
    r"proxyerror|cannot connect to proxy|connection (reset|aborted|broken)|remotedisconnected|incompleteread",
    r"certificate verify failed|ssleoferror|sslerror|40[37] client error|5\d\d server error",
))
NO_MATCH = r"no matching distribution found for ([A-Za-z0-9_.\-]+)"
BAD_HASH = r"do not match the hashes|hash mismatch"


def need_disk(where, free):
    return ("磁盘空间不够：%s 所在的磁盘只剩 %.1f GB，安装至少需要 %.0f GB"
            "（Linux 上若取到带 CUDA 的 PyTorch，约需 10 GB）。\n"
            "请腾出空间，或把课程文件夹移到大一些的磁盘上；"
            "临时文件可用环境变量 TMPDIR 改到别处。然后再运行一次刚才的命令。" % (where, free, NEED_GB))


def explain(log, free=None):
    """看 pip 的输出，说出哪里不对、该怎么办。free 是安装途中最少的剩余空间（GB）。"""
    text = log.lower()
    if re.search(NO_SPACE, text) or (free is not None and free < LOW_GB):
        return need_disk(VENV, shutil.disk_usage(existing(VENV)).free / 1e9 if free is None else free)
    if re.search(NO_RIGHT, text):
        return ("没有写文件的权限，pip 写不进去。\n请把课程文件夹放到你自己的目录里（不要用 sudo）,"
                "关掉占用 .venv 的程序（例如还开着的 JupyterLab、杀毒软件），再运行一次。")
    match = re.search(NO_MATCH, text)
    absent = match or re.search(r"cannot install ([a-z0-9_.\-]+)", text)        # 有约束时，pip 是这样说的
    if absent and os.environ.get("PIP_FIND_LINKS") == WHEELS:
        return ("离线包里没有适合这台机器的 %s（系统 %s %s，Python %d.%d）。\n"
                "请换成备包时写的 Python 版本；或在能上网的机器上重新备一个，写明平台，例如：\n"
                "    %s pack %s-%d.%d"
                % ((absent.group(1), platform.system(), platform.machine()) + sys.version_info[:2]
                   + (me(), {"Windows": "windows", "Darwin": "macos"}.get(platform.system(), "linux")) + sys.version_info[:2]))
    if re.search(NO_NETWORK, text):
        return ("连不上软件包的下载地址（没有网络、被屏蔽，或代理、证书有问题）。可以：\n"
                "  1. 连上网络再运行一次，已下载的会接着用；\n"
                "  2. 换成你那里的镜像：设环境变量 PIP_INDEX_URL=镜像地址；有代理则设 HTTPS_PROXY;\n"
                "  3. 完全离线：在能上网的机器上运行 course.py pack 备一个离线包，"
                "在解开的文件夹里加 --offline；\n"
                "  4. 已有装好这些包的 Python：加 --here。\n详见 README.md「网络慢或被屏蔽」。")
    if match:
        return ("下载地址里没有适合这台机器的 %s（系统 %s %s，Python %d.%d）。\n"
                "课程用的 PyTorch 支持 64 位的 Windows 10、macOS 14 以上的 Apple 芯片、"
                "较新的 Linux（glibc 2.28 以上），Python %s。\n"
                "若你在用镜像，它可能还没同步，换一个试试；"
                "不在支持之列的机器（如 Intel Mac）请用 Colab，见 README.md。"
                % ((match.group(1), platform.system(), platform.machine()) + sys.version_info[:2] + (SUPPORTED,)))
    if re.search(BAD_HASH, text):
        return "下载的文件不完整。请再运行一次；若还不行，先运行 pip cache purge 清空缓存。"
    return "pip 安装失败，原因见上面的输出。修好后再运行一次同样的命令；想从头来，删掉 .venv 文件夹即可。"


def explain_venv(output):
    """建虚拟环境失败时，看输出说话。"""
    text = output.lower()
    if re.search(NO_SPACE, text):
        return explain(text)
    if "ensurepip" in text or "no module named venv" in text or "no module named pip" in text:
        version = "%d.%d" % sys.version_info[:2]
        return ("这个 Python 缺少建虚拟环境的 venv 或 ensurepip 模块。\n"
                "  Debian / Ubuntu:sudo apt install python3-venv（或 python%s-venv）\n"
                "  其他系统：从 Python 官网安装完整的 Python，或用 conda 并加 --here。\n"
                "装好后再运行一次。" % version)
    if re.search(NO_RIGHT, text):
        return explain(text)
    return "建不了虚拟环境 .venv:\n%s\n请换一个 Python（%s）再试。" % (output.strip()[-800:], SUPPORTED)


# ---------------------------------------------------------------- 安装


def existing(path):
    """path 本身或最近的已存在的上级。"""
    while not os.path.exists(path):
        path = os.path.dirname(path) or os.curdir
    return path


def read(path):
    with io.open(path, encoding="utf-8") as file:
        return file.read()


def install_key(version):
    """安装内容的指纹：依赖、约束、Python 版本和平台，任何一样变了就重装。"""
    parts = [read(os.path.join(ROOT, name)) for name in ("requirements.txt", "constraints.txt")]
    parts += [version, platform.system(), platform.machine()]
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()


def site_packages():
    """.venv 的 site-packages 文件夹；没有就返回 None。"""
    if WINDOWS:
        found = os.path.join(VENV, "Lib", "site-packages")
        return found if os.path.isdir(found) else None
    lib = os.path.join(VENV, "lib")
    for name in sorted(os.listdir(lib)) if os.path.isdir(lib) else []:
        found = os.path.join(lib, name, "site-packages")
        if os.path.isdir(found):
            return found
    return None


def snapshot():
    """site-packages 的第一层：{名字：里面有几个文件或文件夹}。__pycache__ 会自己变，不算。"""
    site, seen = site_packages(), {}
    for name in os.listdir(site) if site else []:
        path = os.path.join(site, name)
        if name != "__pycache__" and not name.startswith("~"):
            inside = os.listdir(path) if os.path.isdir(path) else ["file"]
            seen[name] = len([n for n in inside if n != "__pycache__"])
    return seen


def read_stamp():
    try:
        return json.loads(read(STAMP))
    except (OSError, ValueError):
        return {}


def same_folder(path):
    """path 是不是现在的 .venv（经过符号链接也算）。"""
    return os.path.realpath(path) == os.path.realpath(VENV)


def venv_version():
    """.venv 里的 Python 版本，例如 "3.11"；不能运行就返回空串。"""
    have = ask_version(venv_python())
    return "%d.%d" % have if have != (0, 0) else ""


def why_not_ready():
    """.venv 可用就返回空串，否则返回要修的原因。只看，不写。"""
    if not os.path.isdir(VENV):
        return "第一次运行，先建好环境"
    stamp = read_stamp()
    if not stamp:
        return ".venv 还没装完，接着装"
    version = venv_version()
    if not version:
        return ".venv 里的 Python 不能运行了，重新建"
    if stamp.get("key") != install_key(version):
        return "requirements.txt、constraints.txt 或 Python 变了，更新 .venv"
    if not same_folder(stamp.get("venv", "")):
        return "课程文件夹换了地方，修好 .venv"
    now = snapshot()
    lost = sorted(n for n, count in stamp.get("packages", {}).items() if now.get(n, -1) < count)
    if lost:
        return ".venv 里少了 %s，补装" % "、".join(lost[:5])
    return ""


class Lock(object):
    """一把文件锁：两个 course.py 同时安装时，后来的等先来的。进程一死，锁自动打开。"""

    def __enter__(self):
        try:
            self.file = open(LOCK, "a+")
        except OSError as error:
            raise Stop("课程文件夹不可写：%s\n请把课程放到你自己的目录里再运行一次。" % error)
        waiting = False
        while not self.take():
            if not waiting:
                say("另一个 course.py 正在安装，等它完成……")
                waiting = True
            time.sleep(0.3)
        return self

    def take(self):
        try:
            if WINDOWS:
                import msvcrt
                self.file.seek(0)
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl
                fcntl.flock(self.file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (IOError, OSError):
            return False

    def __exit__(self, *_):
        self.file.close()


def make_venv():
    """建 .venv，或修好它：能留的都留，修不好或版本不对才清空重建。"""
    if venv_works():
        if not same_folder(read_stamp().get("venv", VENV)):
            move_scripts(read_stamp()["venv"])
        return
    say("建虚拟环境 .venv(Python %d.%d)……" % sys.version_info[:2])
    if cfg_version() == "%d.%d" % sys.version_info[:2] and ask_version(venv_python()) == (0, 0):
        folder = os.path.dirname(venv_python())
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.startswith("python"):     # 断掉的链接，venv 自己不会换
                os.remove(os.path.join(folder, name))
        capture([sys.executable, "-m", "venv", VENV])
        if venv_works():
            return
    code, output = capture([sys.executable, "-m", "venv", "--clear", VENV])
    if code != 0 or not venv_works():
        raise Stop(explain_venv(output))


def venv_works():
    """.venv 的解释器够新、能运行，也有 pip（没有就试着补上）。"""
    if not os.path.isdir(VENV) or ask_version(venv_python()) < MIN_PYTHON:
        return False
    pip = [venv_python(), "-m", "pip", "--version"]
    if capture(pip)[0] == 0:
        return True
    site = site_packages()
    for name in os.listdir(site) if site else []:
        if name == "pip" or name.startswith("pip-"):
            shutil.rmtree(os.path.join(site, name), ignore_errors=True)
    return add_pip() and capture(pip)[0] == 0


def add_pip():
    """用 Python 自带的 ensurepip 装上 pip。"""
    return capture([venv_python(), "-m", "ensurepip", "--upgrade", "--default-pip"])[0] == 0


def cfg_version():
    """pyvenv.cfg 里写的 Python 版本，例如 "3.11"；没有就返回空串。"""
    try:
        text = read(os.path.join(VENV, "pyvenv.cfg"))
        match = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", text, re.M)
    except (OSError, ValueError):
        match = None
    return match.group(1) if match else ""


def move_scripts(old):
    """文件夹搬过家：.venv/bin 里的命令和激活脚本写着旧路径，改成新的。"""
    capture([sys.executable if ask_version(sys.executable) == ask_version(venv_python()) else venv_python(),
             "-m", "venv", "--without-pip", VENV])
    folder = os.path.dirname(venv_python())
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            data = file.read()
        header = re.match(br"#!/bin/sh\n'''exec' .*\n' '''\n|#!.*\n", data)
        if header and old.encode("utf-8") in header.group():
            with open(path, "wb") as file:
                file.write(shebang(venv_python()).encode("utf-8") + data[header.end():])


def shebang(python):
    """脚本的头一行；路径里有空格或太长时，系统不认普通写法，借 /bin/sh 转一道（pip 也这样写）。"""
    if " " in python or len(python.encode("utf-8")) > 120:
        return "#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n" % python
    return "#!%s\n" % python


def record_files(info):
    """一个 .dist-info 的 RECORD 里列出的、应当存在的文件（相对 site-packages）。没有 RECORD 返回 None。"""
    try:
        lines = read(os.path.join(info, "RECORD")).splitlines()
    except (OSError, ValueError):
        return None
    names = [line.rsplit(",", 2)[0].strip('"') for line in lines if line.strip()]
    return [n for n in names if not n.endswith(".pyc") and not n.startswith("..")]


def heal():
    """文件不全的软件包：去掉它的登记，pip 才会重新装它。返回这些包的名字。"""
    site, broken = site_packages(), []
    for name in sorted(os.listdir(site)) if site else []:
        path = os.path.join(site, name)
        if name.startswith("~"):
            shutil.rmtree(path, ignore_errors=True)
        elif name.endswith(".dist-info"):
            files = record_files(path)
            if not files or not all(os.path.exists(os.path.join(site, f)) for f in files):
                shutil.rmtree(path, ignore_errors=True)
                broken.append(name[:-len(".dist-info")])
    return broken


def have_all():
    """直接依赖是否大多已装过（只看名字）：是的话不会有大的下载，pip 也就不必满屏报「已满足」。"""
    site = site_packages()
    names = os.listdir(site) if site else []
    have = set(canonical(n.split("-")[0]) for n in names if n.endswith(".dist-info"))
    return "torch" in have and len(set(bounds()) - have) <= 3


def check_disk():
    """开始之前看剩余空间；装过一部分的，需要的少一些。"""
    site = site_packages()
    need = 0.5 if site and os.path.isdir(os.path.join(site, "torch")) else NEED_GB
    for where in (VENV, tempfile.gettempdir()):
        free = shutil.disk_usage(existing(where)).free / 1e9
        if free < (need if where == VENV else min(need, 1.0)):
            raise Stop(need_disk(where, free))


def pip_install(python, arguments, env, keep=()):
    """运行 pip（进度条直接显示在终端），同时看日志和磁盘；失败就抛出 Stop。

    pip 的临时文件放在一个会被删掉的文件夹里，所以随时停得下来。keep 是要留给 pip 的文件描述符：
    本程序被强行结束而 pip 还在跑时，锁仍然是锁上的。
    """
    folder = tempfile.mkdtemp(prefix="course-")
    try:
        temp = dict((name, folder) for name in ("TMPDIR", "TEMP", "TMP"))
        watch_pip(python, arguments, os.path.join(folder, "pip.log"), dict(env, **temp), keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watch_pip(python, arguments, log, env, keep):
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
               "--no-warn-script-location", "--log", log] + list(arguments)
    env = dict(env, PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PYTHONUTF8="1")
    # 自成一组：Ctrl-C 只到本程序，由我们安静地停下 pip，屏幕上不会有它的一大段报错
    extra = {"creationflags": 0x200} if WINDOWS else {"pass_fds": tuple(keep), "start_new_session": True}
    child = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, **extra)
    lowest, told = 1e9, False
    before = catch_termination()
    try:
        while child.poll() is None:
            time.sleep(0.2)
            for where in (VENV, tempfile.gettempdir()):
                lowest = min(lowest, shutil.disk_usage(existing(where)).free / 1e9)
            if not told and "Retrying (" in read_log(log, 20000):
                say("网络不太通，pip 正在重试；可以等，也可以按 Ctrl-C 停下，换镜像再来（见 README.md）。")
                told = True
    finally:
        if child.poll() is None:
            stop_child(child)
        for number, handler in before.items():
            signal.signal(number, handler)
    if child.returncode != 0:
        raise Stop("\n" + explain(complaints(read_log(log)), lowest))


def catch_termination():
    """关终端、被要求结束时，当作 Ctrl-C 处理，好把 pip 也停下。返回原来的处理办法。"""
    def stop(*_):
        raise KeyboardInterrupt
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return dict((number, signal.signal(number, stop)) for number in numbers
                if signal.getsignal(number) == signal.SIG_DFL)


def read_log(path, tail=2000000):
    """日志的最后 tail 个字节；还没有日志就返回空串。"""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - tail))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def complaints(log):
    """pip 的详细日志里只留警告、错误和最后几行，免得把普通的一行误认成错误。"""
    lines = log.splitlines()
    return "\n".join([x for x in lines[:-8] if re.search(r"(ERROR|WARNING|error): ", x)] + lines[-8:])


def stop_child(child):
    """停下子进程：先好好说，5 秒不退再强行结束。pip 的进度条会藏起光标，停下后放回来。"""
    for action in (child.terminate, child.kill):
        action()
        for _ in range(50):
            if child.poll() is not None:
                if sys.stdout.isatty() and not WINDOWS:
                    sys.stdout.write("\033[?25h")
                return
            time.sleep(0.1)


def set_up():
    """准备好 .venv，返回它的解释器。已经好了的，一秒之内返回。"""
    if not why_not_ready():
        return venv_python()
    with Lock() as lock:
        reason = why_not_ready()          # 等锁的时候别人可能已经装好了
        if not reason:
            return venv_python()
        say(reason + "。")
        began = time.time()
        check_disk()
        try:
            make_venv()
            if os.path.exists(STAMP):
                os.remove(STAMP)
            broken = heal()
        except OSError as error:
            raise Stop(explain(str(error)))
        if broken:
            say("文件不全，重新安装：" + "、".join(broken[:8]))
            if any(name.startswith("pip-") for name in broken):
                add_pip()
        python = venv_python()
        quiet = have_all()
        offline = os.environ.get("PIP_FIND_LINKS") == WHEELS
        source = "取自 wheels 文件夹，不联网，要几分钟" if offline else "第一次要下载几百 MB 到几 GB，请耐心等"
        say("核对软件包……" if quiet else "安装软件包（%s）……" % source)
        files = [os.path.join(ROOT, name) for name in ("requirements.txt", "constraints.txt")]
        arguments = ["-r", files[0], "-c", files[1]] + (["--quiet"] if quiet else [])
        pip_install(python, arguments, clean_environ(), keep=[lock.file.fileno()])
        register_kernel(python)
        stamp = {"key": install_key(venv_version()), "venv": VENV, "packages": snapshot()}
        with io.open(STAMP + ".part", "w", encoding="utf-8") as file:
            file.write(json.dumps(stamp, indent=0, sort_keys=True))
        os.replace(STAMP + ".part", STAMP)
        say("环境已备好，用时 %d 秒。" % (time.time() - began))
        return python


def go_offline():
    """--offline：让 pip 只看 wheels 文件夹，一次网络也不碰。"""
    found = [name for name in os.listdir(WHEELS) if name.endswith(".whl")] if os.path.isdir(WHEELS) else []
    if not found:
        raise Stop("--offline 要用课程文件夹里的 wheels，这里没有（或里面没有 .whl 文件）。\n"
                   "请在能上网的机器上运行 %s pack，把得到的 zip 拷过来解开，再在解开的文件夹里运行。" % me())
    os.environ.update({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS})
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        os.environ.pop(name, None)


def register_kernel(python):
    """登记 Jupyter 内核。PYTHONUTF8 让中文 Windows 上读写文件也用 UTF-8。"""
    code, output = capture([python, "-m", "ipykernel", "install", "--prefix", VENV, "--name", "python3",
                            "--display-name", KERNEL_NAME, "--env", "PYTHONUTF8", "1"])
    if code != 0:
        raise Stop("登记 Jupyter 内核失败：\n%s\n请删掉 .venv 文件夹，再运行一次。" % output.strip()[-800:])


# ---------------------------------------------------------------- 浏览器测试


def find_chromium():
    """Chromium 可执行文件的路径；没有就返回 None。tests/browser/lab.py 里是同样的找法。"""
    named = os.environ.get("CHROMIUM")
    if named and os.path.exists(named):
        return named
    return next((path for path in map(shutil.which, CHROMIUM_NAMES) if path), None)


def set_up_browser(python):
    """机器上有 Chromium，就把浏览器测试要的包也装进 .venv。装不上只说原因：那些测试会跳过。"""
    path = os.path.join(ROOT, "tests", "browser", "requirements.txt")
    if not os.path.exists(path) or not find_chromium():
        return
    site = site_packages()
    have = dict(n[:-len(".dist-info")].split("-", 1) for n in os.listdir(site) if re.match(r"[^-]+-.*\.dist-info$", n))
    have = dict((canonical(name), version) for name, version in have.items())
    if not missing_here(have, bounds(path)):
        return
    say("有 Chromium：安装浏览器测试要的包……")
    try:
        with Lock() as lock:
            pip_install(python, ["-r", path, "-c", os.path.join(ROOT, "constraints.txt"), "--quiet"], clean_environ(),
                        keep=[lock.file.fileno()])
    except Stop as stop:
        say(stop.text.strip() + "\n浏览器测试要的包没有装上，那些测试这次会跳过；其余的照常进行。")


# ---------------------------------------------------------------- --here


def bounds(path=None):
    """requirements.txt（或 path）里的 {包名：下限}。"""
    text = read(path or os.path.join(ROOT, "requirements.txt"))
    pairs = re.findall(r"^([A-Za-z0-9_.-]+)>=([0-9.]+)", text, re.M)
    return dict((canonical(name), bound) for name, bound in pairs)


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version):
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])


def installed():
    """当前解释器里装了哪些包：{名字：版本}。"""
    from importlib import metadata
    have = {}
    for dist in metadata.distributions():
        name = dist.metadata["Name"]
        if name:
            have.setdefault(canonical(name), dist.version)
    return have


def missing_here(have, wanted=None):
    """缺少或太旧的软件包的名字；wanted 是 {包名：下限}，省略时取 requirements.txt 里的。"""
    return [n for n, bound in (wanted or bounds()).items() if n not in have or numbers(have[n]) < numbers(bound)]


def on_colab():
    import importlib.util
    try:
        return importlib.util.find_spec("google.colab") is not None
    except (ImportError, ValueError):
        return False


def set_up_here():
    """用当前解释器：Colab 上只补缺的（已有的 torch、numpy 等一律不动），别处缺了就说清楚。"""
    have = installed()
    missing = missing_here(have)
    if not missing:
        return sys.executable
    if not on_colab():
        raise Stop("当前的 Python 里缺少（或太旧）:%s\n请先安装：\n"
                   "    %s -m pip install -r requirements.txt -c constraints.txt\n"
                   "conda 用户：conda env create -f environment.yml，再激活它。\n"
                   "或者去掉 --here，让课程自己建 .venv。"
                   % ("、".join(missing), sys.executable))
    say("Colab：补装 %s；已有的包都不动。" % "、".join(missing))
    folder = tempfile.mkdtemp(prefix="course-")
    try:
        paths = colab_files(folder, have, missing)
        pip_install(sys.executable, ["-r", paths[0], "-c", paths[1]], dict(os.environ))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sys.executable


def colab_files(folder, have, missing):
    """写出 Colab 用的依赖和约束：缺的按测试过的版本装，已有的钉在现在的版本上。"""
    keep = dict((n, v) for n, v in have.items() if n not in missing)
    lines = []
    for line in read(os.path.join(ROOT, "constraints.txt")).splitlines():
        name = canonical(re.split(r"[=; ]", line, maxsplit=1)[0])
        if line.strip() and not line.startswith("#") and name not in keep and name not in ("torch", "numpy"):
            lines.append(line)
    lines += ["%s==%s" % (n, keep[n]) for n in ("torch", "numpy") if n in keep]
    paths = [os.path.join(folder, n) for n in ("requirements.txt", "constraints.txt")]
    wanted = ["%s>=%s" % (n, bounds()[n]) for n in missing]
    for path, content in ((paths[0], wanted), (paths[1], lines)):
        with io.open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(content) + "\n")
    return paths


# ---------------------------------------------------------------- 命令


def notebook_names():
    """notebooks/src 里有哪些 notebook，例如 ["00_start", …]。"""
    folder = os.path.join(ROOT, "notebooks", "src")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(n[:-3] for n in names if re.match(r"\d\d_\w+\.py$", n))


def choose_notebooks(words):
    """把「2」「02」「02_tokenization」或路径都认成 notebook 的名字。"""
    names, chosen = notebook_names(), []
    for word in words:
        stem = re.split(r"[\\/]", word)[-1].rsplit(".", 1)[0]
        number = "%02d" % int(stem) if stem.isdigit() else None
        hits = [n for n in names if n == stem or n[:2] == number]
        if not hits:
            raise Stop("没有编号为「%s」的 notebook。现有：\n%s"
                       % (word, "\n".join("    " + n for n in names) or "    （一本也没有）"), 2)
        chosen += [n for n in hits if n not in chosen]
    return chosen


def did_you_mean(word, options):
    close = difflib.get_close_matches(word, options, 1, 0.5)
    return "你是不是想写 %s?" % close[0] if close else "可以用：%s。" % "、".join(options)


def parse(argv):
    """解析命令行，返回 （命令，[NN …], 选项字典，-- 之后的参数）。"""
    argv = list(argv)
    extra = []
    if "--" in argv:
        cut = argv.index("--")
        argv, extra = argv[:cut], argv[cut + 1:]
    options, words = {"here": False, "preset": None, "help": False, "offline": False}, []
    while argv:
        word = argv.pop(0)
        if word == "--here":
            options["here"] = True
        elif word == "--offline":
            options["offline"] = True
        elif word in ("-h", "--help"):
            options["help"] = True
        elif word == "--preset" or word.startswith("--preset="):
            value = word[9:] if word != "--preset" else (argv.pop(0) if argv else "")
            if value not in PRESETS:
                raise Stop("--preset 后面要写 smoke、cpu、gpu 之一，这里是「%s」。" % value, 2)
            options["preset"] = value
        elif word.startswith("-"):
            raise Stop("不认识的选项「%s」。%s\n要交给 JupyterLab 或 pytest 的参数，请写在 -- 之后。"
                       % (word, did_you_mean(word, ["--here", "--offline", "--preset", "--help"])), 2)
        else:
            words.append(word)
    if not words or words[0] == "help" or options["help"]:
        return "help", [], options, extra
    command = words[0]
    if command not in COMMANDS:
        raise Stop("没有「%s」这个命令。%s\n看全部用法：%s --help"
                   % (command, did_you_mean(command, list(COMMANDS)), me()), 2)
    if words[1:] and command in ("lab", "test"):
        raise Stop("%s 后面不接「%s」；要交给 %s 的参数请写在 -- 之后。"
                   % (command, words[1], "JupyterLab" if command == "lab" else "pytest"), 2)
    if words[1:] and command == "setup":
        raise Stop("setup 后面不接「%s」。" % words[1], 2)
    if options["offline"] and command == "pack":
        raise Stop("pack 要联网下载软件包，不能加 --offline。", 2)
    if extra and command not in ("lab", "test"):
        raise Stop("%s 不接受 -- 之后的参数。" % command, 2)
    if command in ("release", "grade") and len(words) != 2:
        raise Stop("%s 后面要写一个文件夹，例如：%s %s 作业" % (command, me(), command), 2)
    return command, words[1:], options, extra


def command_line(command, names, extra, python):
    """要运行的子命令。"""
    if command in ("run", "build"):
        return [python, "-m", "utils.notebooks", command] + names
    if command in ("release", "grade", "slides"):
        return [python, "-m", "utils.classroom", command] + names
    if command == "test":
        return [python, "-m", "pytest"] + two_workers(extra) + extra
    if command == "pack":
        return [python, "-m", "utils.offline_pack"] + names
    line = [python, "-m", "jupyterlab"]
    if os.path.exists(os.path.join(ROOT, "notebooks", "00_start.ipynb")):
        line.append("--LabApp.default_url=/lab/tree/notebooks/00_start.ipynb")
    # root_dir 让文件栏显示整个课程；后两项关掉新闻和更新检查，离线时就没有等待和弹窗
    line += ["--ServerApp.root_dir=" + ROOT, "--LabApp.news_url=None",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line.append("--allow-root")       # 容器、Colab 里就是 root，不加它 JupyterLab 不肯启动
    return line + extra


def two_workers(extra):
    """让 pytest 分两份同时跑的参数；只有一个核心，或用户对进程另有安排，就是空的。

    只分两份：每个进程都装着模型；notebook 接着前面的跑，一串都在同一个进程里，再多分也不更快。
    """
    words = extra + os.environ.get("PYTEST_ADDOPTS", "").split()
    # 调试器和 -s 要用眼前的终端，分了就用不成
    own = any(re.match(r"-n|--numprocesses\b|(-p)?no:xdist$|(-s|--pdb|--trace)$", word) for word in words)
    return [] if own or (os.cpu_count() or 1) < 2 else ["-n", "2", "--dist", "loadfile"]


def environment(command, options):
    """子命令的环境变量。"""
    env = dict(os.environ) if options["here"] else clean_environ()
    env["PYTHONUTF8"] = "1"
    env["JUPYTER_PREFER_ENV_PATH"] = "1"  # 先用 .venv 里的内核，再看用户目录里的
    if command == "test" or options["offline"]:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
            env[name] = "1"
    if command == "test":
        env["COURSE_PRESET"] = "smoke"
        env.setdefault("OMP_NUM_THREADS", "1")    # 两份同时跑，各用一个核心；小模型多用线程也不更快
    if options["preset"]:
        env["COURSE_PRESET"] = options["preset"]
    return env


def run_child(line, env):
    """运行子命令；Ctrl-C 交给它自己处理，等它退出。返回退出码。"""
    child = subprocess.Popen(line, env=env, cwd=ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def main(argv=None):
    """入口。返回退出码。"""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    argv = sys.argv[1:] if argv is None else argv
    command = "lab"
    try:
        check_python()
        command, words, options, extra = parse(argv)
        if command == "help":
            say(HELP.format(me=me()))
            return 0
        # release、grade 在课程文件夹里运行，所以文件夹先换成绝对路径
        if command in ("release", "grade"):
            names = [os.path.abspath(word) for word in words]
        else:
            names = words if command == "pack" else choose_notebooks(words)
        if options["offline"]:
            go_offline()
        python = set_up_here() if options["here"] else set_up()
        if command == "setup":
            say("环境已备好。")
            return 0
        if command == "test" and not options["here"]:
            set_up_browser(python)
        return run_child(command_line(command, names, extra, python), environment(command, options))
    except Stop as stop:
        say(stop.text, sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        words = " ".join(argv) or command
        say("\n已停下。再运行一次 %s %s，会从停下的地方接着来。" % (me(), words), sys.stderr)
        return 130


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
