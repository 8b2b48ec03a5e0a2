#!/usr/bin/env python3
# -*- coding: utf-8 -*-
"""课程的唯一入口：看懂命令，备好环境，再交给 JupyterLab、pytest 或课程自己的工具。

要能被很旧的 Python(2.7、3.6)读懂，这样旧 Python 也能得到一句明白话；所以这里不用 f-string，也不写类型标注。
安装的事在 tools/install 里，那里要新的 Python 才读得懂。都只用标准库，Linux、macOS、Windows 都能用。
"""

from __future__ import print_function, unicode_literals

import difflib
import os
import re
import signal
import subprocess
import sys

MIN_PYTHON = (3, 11)
TESTED_PYTHON = (3, 13)
SUPPORTED = "%d.%d 到 %d.%d" % (MIN_PYTHON + TESTED_PYTHON)
PRESETS = ("smoke", "cpu", "gpu")
COMMANDS = ("lab", "run", "build", "test", "setup", "pack", "release", "grade", "slides")
# 学生版里没有的文件夹：要用到它们的命令
NEEDS = {"run": "tools/notebooks", "build": "tools/notebooks", "test": "tests", "pack": "tools/pack.py",
         "release": "tools/classroom", "grade": "tools/classroom", "slides": "tools/classroom"}

if sys.version_info >= MIN_PYTHON:                # 更旧的读不懂它们；main 会说明白，然后停下
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))      # 设了 PYTHONSAFEPATH 时，Python 自己不加
    from pathlib import Path

    from tools.install import base, browser, here, offline, venv
    from utils import road  # 只用标准库
    base.MIN_PYTHON, base.SUPPORTED = MIN_PYTHON, SUPPORTED

HELP = """\
《从零开始大模型开发与微调：汉字的文本处理》

用法：{me} 命令 [NN …] [选项] [-- 其他参数]

命令
  lab            打开 JupyterLab，从第一本 notebook 学起（第一次会先安装，约几分钟）
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
  {me} run 02 self_attention --preset smoke     （NN 写编号或题目）
  {me} test -- -m "not notebooks"
  {me} pack windows-3.12 macos-3.12
  {me} lab --offline
  {me} release 发给学生
  {me} grade 收回来的作业
"""


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


# ---------------------------------------------------------------- Python 够不够新


def python_problem():
    """这个 Python 不能用（太旧，或是 32 位）时，返回要说的话；能用就返回空串。"""
    have = sys.version_info[:2]
    if have < MIN_PYTHON:
        text = "Python 太旧：这里是 %d.%d，课程需要 %s。\n" % (have + (SUPPORTED,))
        try:
            found = newer_python()
        except UnicodeError:              # Python 2 遇到含汉字的 PATH
            found = ""
        if found:
            return text + "这台机器上已有够新的 Python，请用它：\n    %s course.py lab" % found
        return text + "请安装 Python 3.12（Python 官网、系统的软件包管理器或 conda 都可以），然后再来一次。"
    if sys.maxsize <= 2 ** 32:
        return "这是 32 位的 Python，PyTorch 只有 64 位的安装包。请安装 64 位的 Python 3.12。"
    return ""


def newer_python():
    """在 PATH 上找一个够新的 Python（确实能运行的才算），返回路径；没有就返回空串。"""
    minors = range(TESTED_PYTHON[1], MIN_PYTHON[1] - 1, -1)
    names = ["python3.%d" % minor for minor in minors] + ["python3", "python"]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in names:
            path = os.path.join(folder, name + (".exe" if os.name == "nt" else ""))
            if os.path.isfile(path) and is_new_enough(path):
                return path
    return ""


def is_new_enough(python):
    """一个解释器能运行，也够新：问它自己。"""
    code = "import sys; sys.exit(sys.version_info < (%d, %d))" % MIN_PYTHON
    try:
        # -E：不理 PYTHONHOME 和 PYTHONPATH，它们是给现在这个旧 Python 的
        child = subprocess.Popen([python, "-E", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.communicate()
    except (OSError, ValueError):
        return False
    return child.returncode == 0


# ---------------------------------------------------------------- 命令


def choose_notebooks(words):
    """把「2」「02」「tokenization」「02_tokenization」或路径都认成 notebook 的名字。"""
    stems = [re.split(r"[\\/]", word)[-1].rsplit(".", 1)[0] for word in words]
    try:
        return [stop.name for stop in road.choose(stems, Path(base.ROOT, "notebooks"))] if words else []
    except ValueError as error:
        raise base.Stop(str(error), 2)


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
                raise base.Stop("--preset 后面要写 smoke、cpu、gpu 之一，这里是「%s」。" % value, 2)
            options["preset"] = value
        elif word.startswith("-"):
            raise base.Stop("不认识的选项「%s」。%s\n要交给 JupyterLab 或 pytest 的参数，请写在 -- 之后。"
                       % (word, did_you_mean(word, ["--here", "--offline", "--preset", "--help"])), 2)
        else:
            words.append(word)
    if not words or words[0] == "help" or options["help"]:
        return "help", [], options, extra
    command = words[0]
    if command not in COMMANDS:
        raise base.Stop("没有「%s」这个命令。%s\n看全部用法：%s --help"
                   % (command, did_you_mean(command, list(COMMANDS)), base.me()), 2)
    if words[1:] and command in ("lab", "test"):
        raise base.Stop("%s 后面不接「%s」；要交给 %s 的参数请写在 -- 之后。"
                   % (command, words[1], "JupyterLab" if command == "lab" else "pytest"), 2)
    if words[1:] and command == "setup":
        raise base.Stop("setup 后面不接「%s」。" % words[1], 2)
    if options["offline"] and command == "pack":
        raise base.Stop("pack 要联网下载软件包，不能加 --offline。", 2)
    if extra and command not in ("lab", "test"):
        raise base.Stop("%s 不接受 -- 之后的参数。" % command, 2)
    if command in ("release", "grade") and len(words) != 2:
        raise base.Stop("%s 后面要写一个文件夹，例如：%s %s 作业" % (command, base.me(), command), 2)
    return command, words[1:], options, extra


def command_line(command, names, extra, python):
    """要运行的子命令。"""
    if command in ("run", "build"):
        return [python, "-m", "tools.notebooks", command] + names
    if command in ("release", "grade", "slides"):
        return [python, "-m", "tools.classroom", command] + names
    if command == "test":
        return [python, "-m", "pytest"] + two_workers(extra) + extra
    if command == "pack":
        return [python, "-m", "tools.pack"] + names
    line = [python, "-m", "jupyterlab"]
    first = "notebooks/%s.ipynb" % next((stop.name for stop in road.road(Path(base.ROOT, "notebooks"))), "")
    if os.path.exists(os.path.join(base.ROOT, first)):
        line.append("--LabApp.default_url=/lab/tree/" + first)
    # root_dir 让文件栏显示整个课程；后两项关掉新闻和更新检查，离线时就没有等待和弹窗
    line += ["--ServerApp.root_dir=" + base.ROOT, "--LabApp.news_url=None",
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
    env = dict(os.environ) if options["here"] else base.clean_environ()
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
    child = subprocess.Popen(line, env=env, cwd=base.ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def carry_out(argv):
    """看懂命令，备好环境，做事。返回退出码。"""
    command, words, options, extra = parse(argv)
    if command == "help":
        say(HELP.format(me=base.me()))
        return 0
    if not os.path.exists(os.path.join(base.ROOT, NEEDS.get(command, ""))):
        raise base.Stop("这份课程（发给学生的那种）里没有 %s 要用的 %s。学习只要：%s lab" % (command, NEEDS[command], base.me()), 2)
    # release、grade 在课程文件夹里运行，所以文件夹先换成绝对路径
    if command in ("release", "grade"):
        names = [os.path.abspath(word) for word in words]
    else:
        names = words if command == "pack" else choose_notebooks(words)
    if options["offline"]:
        offline.go_offline()
    python = here.set_up_here() if options["here"] else venv.set_up()
    if command == "setup":
        say("环境已备好。")
        return 0
    if command == "test" and not options["here"]:
        browser.set_up_browser()
    return run_child(command_line(command, names, extra, python), environment(command, options))


def main(argv=None):
    """入口。返回退出码。"""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    problem = python_problem()
    if problem:
        say(problem, sys.stderr)
        return 1
    if sys.version_info[:2] > TESTED_PYTHON:
        say("提醒：课程在 Python %s 上测试过，这里是 %d.%d。若安装失败，请换 3.12。" % ((SUPPORTED,) + sys.version_info[:2]))
    argv = sys.argv[1:] if argv is None else argv
    try:
        return carry_out(argv)
    except base.Stop as stop:
        say(stop.text, sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        say("\n已停下。再运行一次 %s %s，会从停下的地方接着来。" % (base.me(), " ".join(argv) or "lab"), sys.stderr)
        return 130


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
