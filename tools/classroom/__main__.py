"""`python -m tools.classroom release 文件夹`、`grade 文件夹`、`slides [名字 …]`。"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def release_to(words: list[str]) -> None:
    from tools.classroom.release import release

    print("\n".join(release(Path(words[0]))))
    print(f"写好了：{words[0]}。先读里面的「说明.txt」。")


def grade(words: list[str]) -> None:
    from tools.classroom.child import isolation
    from tools.classroom.grading import grade_folder
    from tools.classroom.landlock import version
    from tools.classroom.table import write_tables

    folder = Path(words[0])
    print("没有网络：" + ("用 unshare 断开" if isolation() else "这台机器上没有可用的 unshare，改为拦住 Python 的套接字"))
    print("读写文件：" + ("用 Landlock 关在临时文件夹里" if version() else
                     "这台机器上没有 Landlock，答案能读写你的文件；来历不明的作业，请换一个系统账号批改"))
    rows, broken = grade_folder(folder)
    for student, file, problem in broken:
        print(f"没有批改：{student}　{file}：{problem}")
    print("写好了：" + "、".join(map(str, write_tables(folder, rows, broken))))


def slides(words: list[str]) -> None:
    from tools.classroom.slides import has_outputs, write_slides
    from tools.notebooks.manage import choose, outputs
    from utils.road import stop_of

    for source in choose(words):
        print(f"写好了：{write_slides(source, outputs() / 'slides')}")
        if not has_outputs(source):
            print(f"　　里面没有图和输出：notebooks/{stop_of(source).name}.ipynb 与源不一致。"
                  f"先运行 python3 course.py run {stop_of(source).number}，再做一遍。")


COMMANDS = {"release": release_to, "grade": grade, "slides": slides}


def main(argv: list[str] | None = None) -> int:
    """命令行入口，返回退出码。"""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="python -m tools.classroom", description="发布、批改、投影片")
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("words", nargs="*", help="release：要写的空文件夹；grade：作业所在的文件夹；slides：编号或题目，不写就是全部")
    arguments = parser.parse_args(argv)
    if arguments.command != "slides" and len(arguments.words) != 1:
        parser.error(f"{arguments.command} 后面要写一个文件夹")
    try:
        COMMANDS[arguments.command](arguments.words)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
