"""批改用的子进程：运行一个学生的答案。限内存、断网络、关在自己的文件夹里、输出丢弃；结果一行一行地写回父进程。只是铺路石（plumbing）。

`python -I sandbox.py 课程文件夹`，标准输入是一个 JSON：
{"notebook": "objectives", "parts": [{"code", "trusted"}], "answers": [{"name", "code", "check"}],
"memory_mb": 2000, "seconds": 48, "socket_guard": false}。
"""

import dataclasses
import json
import os
import sys


def guard_sockets() -> None:
    """没有 unshare 的系统上：让 Python 的套接字连不出去。"""
    import socket

    def refuse(*_, **__):
        raise OSError("批改时没有网络。")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        setattr(socket.socket, name, refuse)
    socket.create_connection = socket.getaddrinfo = refuse


def limit_memory(megabytes: int) -> None:
    """在已经用掉的之外，最多再要 megabytes MB 的地址空间；写的文件最多 50 MB。只在 Linux 上有效，别处由父进程盯着。"""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 1_000_000,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fingerprint() -> dict:
    """检查程序里每个函数的字节码：答案若动了它们，前后就不一样。"""
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.startswith("utils.checks") and module is not None:
            for key, value in list(vars(module).items()):
                own = isinstance(value, type) and value.__module__.startswith("utils.checks")         # 库里的类会自己添东西
                inside = vars(value).items() if own else [("", value)]
                found[name, key] = id(value)
                for part, function in inside:
                    found[name, key, part] = getattr(function, "__code__", None) or id(function)
    return found


def main() -> None:
    root, task = sys.argv[1], json.loads(sys.stdin.buffer.read().decode("utf-8"))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)                                 # 答案打印多少都不占地方
    sys.path.insert(0, root)
    import torch

    from tools.classroom.landlock import lock, needed_to_read
    from utils.checks.framework.runner import exercises, load_module, namespace, run_answer

    torch.set_num_threads(1)
    module = load_module(task["notebook"])
    for name, exercise in exercises(module).items():
        if hasattr(exercise, "seconds"):                  # 死循环先由检查自己停下，停不下的才由父进程来
            setattr(module, name, dataclasses.replace(exercise, seconds=min(exercise.seconds, task["seconds"])))
    names = namespace([p["code"] for p in task["parts"] if p["trusted"]], module)
    if task["socket_guard"]:
        guard_sockets()
    lock(needed_to_read(root), [os.getcwd()])             # 当前文件夹就是给这份作业的临时文件夹
    limit_memory(task["memory_mb"])
    before = fingerprint()

    token = task.pop("token", "")

    def say(**row) -> None:
        out.write(json.dumps({**row, "token": token}, ensure_ascii=False) + "\n")

    say(ready=True)
    for item in task["answers"]:
        say(start=item["name"])
        scope = {**namespace([p["code"] for p in task["parts"] if not p["trusted"]], module, dict(names)), **names}
        verdict = run_answer(item["code"], item["check"], scope, f"{task['notebook']}.{item['name']}")
        if fingerprint() != before:
            say(name=item["name"], tampered=True)
            os._exit(0)
        evidence = [list(pair) for pair in verdict.evidence]
        say(name=item["name"], status=verdict.status, kind=verdict.kind, hint=verdict.hint, ask=verdict.ask, evidence=evidence)
    os._exit(0)                                           # 答案留下的线程不拖住进程


if __name__ == "__main__":
    main()
