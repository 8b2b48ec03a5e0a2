"""`python -m utils.classroom release 文件夹`、`python -m utils.classroom grade 文件夹`。"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """命令行入口，返回退出码。"""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="python -m utils.classroom", description="发布与批改")
    parser.add_argument("command", choices=["release", "grade"])
    parser.add_argument("folder", help="release：要写的空文件夹；grade：收回来的作业所在的文件夹")
    arguments = parser.parse_args(argv)
    folder = Path(arguments.folder)
    try:
        if arguments.command == "release":
            from utils.classroom.release import release

            print("\n".join(release(folder)))
            print(f"写好了：{folder}。先读里面的「说明.txt」。")
        else:
            from utils.classroom.grading import grade_folder, isolation
            from utils.classroom.table import write_tables

            print("没有网络：" + ("用 unshare 断开" if isolation() else "这台机器上没有可用的 unshare，改为拦住 Python 的套接字"))
            rows, broken = grade_folder(folder)
            for student, file, problem in broken:
                print(f"没有批改：{student}　{file}：{problem}")
            print("写好了：" + "、".join(map(str, write_tables(folder, rows, broken))))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
