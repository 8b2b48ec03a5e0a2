"""几个进程一起练：数据并行（DDP）、参数分片（FSDP），以及在 notebook 里启动它们。

DDP：每个进程一份完整的模型，各看一部分文档，每步把梯度平均。FSDP：参数、梯度、优化器状态也各存一份的一部分，
用到哪一层才临时凑齐，模型大到一张卡放不下时用它。首次使用：scale_up。
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer

from utils.paths import ROOT
from utils.training.resume import complete_checkpoints

LAYERS = ("BertLayer",)                                   # FSDP 以它为单位切


def together(device: torch.device, shard: bool = False) -> dict:
    """TrainingArguments 里与多进程有关的几项；只有一个进程时是空的。

    参数：
        device: 设备；CPU 的进程之间用 gloo 通信。
        shard: True 用 FSDP（参数分片），False 用 DDP。
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:         # 没有用 torchrun，或只起了一个进程
        return {}
    gloo = {"ddp_backend": "gloo"} if device.type == "cpu" else {}
    if shard:
        return gloo | {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": list(LAYERS)}}
    return gloo | {"ddp_find_unused_parameters": False}


def prepare_sharding(trainer: Trainer) -> None:
    """让 FSDP 用得了 BERT，也用得了 CPU；没有要求分片或只有一个进程时，什么也不做。须在 trainer.train() 之前调用。

    两处补丁。一、BERT 的词表头与词嵌入共用权重，偏置也有两个名字；accelerate 会把嵌入和词表头单独分成一组，偏置便落进两组，
    torch 2.13 起不许，所以这里不让它找到嵌入和词表头，都留在最外面的一组。二、PyTorch 的 FSDP 在 CPU（gloo）上能跑，
    accelerate 却只在 GPU 上登记它，这里补上同样的登记。
    """
    args = trainer.args
    if not args.fsdp or args.world_size == 1:
        return
    trainer.model.get_input_embeddings = trainer.model.get_output_embeddings = lambda: None
    if args.use_cpu and not trainer.is_fsdp_enabled:
        state = trainer.accelerator.state
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        trainer.is_fsdp_enabled = True


def finish_sharding(trainer: Trainer) -> None:
    """练完以后，去掉 prepare_sharding 在模型上留下的记号。"""
    for name in ("get_input_embeddings", "get_output_embeddings"):
        vars(trainer.model).pop(name, None)


def is_sharded(model: torch.nn.Module) -> bool:
    """模型的参数是不是被 FSDP 切开了。"""
    return any(isinstance(p, DTensor) for p in model.parameters())


def parameters_here(model: torch.nn.Module) -> int:
    """这个进程自己存着多少个参数；被 FSDP 切开时只数自己的那一份。"""
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in model.parameters())


def whole_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """完整的权重，名字 → 张量；被切开的先凑齐，所以**每个进程都要调用**（第一个进程以外得到的可能是空的）。"""
    if not is_sharded(model):
        return model.state_dict()
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    first = {}                                            # 凑齐以后，共用的权重成了两份；让两个名字重新指着同一份
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared = first.setdefault(parameter, name)
        if name in weights and shared in weights:
            weights[name] = weights[shared]
    return weights


def torchrun(processes: int, arguments: Sequence[str], restarts: int = 0, module: str = "utils.train") -> list[str]:
    """启动几个进程的命令行：`torchrun --nproc_per_node 进程数 -m 模块 …`，用的是当前的 Python。

    参数：
        processes: 进程数。
        arguments: 交给模块的参数。
        restarts: 有进程死了，最多重新启动几次。
        module: 运行哪个模块。
    """
    with socket.socket() as free:                         # 找一个空着的端口，好让两次启动不打架
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port),
            "--max_restarts", str(restarts), "-m", module, *map(str, arguments)]


def launch(command: Sequence[str], threads: int = 1, cpu_only: bool = False) -> subprocess.Popen:
    """在课程文件夹里启动一条命令，输出（标准错误并进标准输出）可以一行一行地读。

    参数：
        command: 命令行，例如 torchrun 的结果。
        threads: 每个进程用几个线程；进程数 × 线程数不要超过核心数。
        cpu_only: True 表示有 GPU 也不用：几个进程抢一块 GPU 是不行的。
    """
    env = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "COURSE_RECORDS")}
    env |= {"OMP_NUM_THREADS": str(threads), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    env |= {"COURSE_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""} if cpu_only else {}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
                            errors="replace")


def workers(child: subprocess.Popen, module: str = "utils.train") -> list[int]:
    """launch 起来的工作进程的编号（pid），从小到大；还没起来就是空的。"""
    import psutil

    try:
        family = psutil.Process(child.pid).children(recursive=True)
        return sorted(p.pid for p in family if module in p.cmdline() and "torch.distributed.run" not in p.cmdline())
    except psutil.Error:
        return []


def saved_steps(folder: Path) -> list[int]:
    """folder（--out 指的文件夹）里存下的进度是哪几步。"""
    return sorted(int(p.name.rpartition("-")[2]) for run in folder.glob("trainer/run-*") for p in complete_checkpoints(run))
