"""课程的工具包：各间屋子里有什么、谁可以用谁，见 docs/architecture.md。"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")     # 线程没活干就让出 CPU；机器忙时差别很大。须在 import torch 之前
