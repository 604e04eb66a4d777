"""Where and how to compute on this machine, and what this machine is."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd as _Convolution

from .. import __version__
from ..agents.parts.compute import Compute
from ..encoders.parts.controllers import Controller
from ..envs.errors import UserError
from ..envs.spec import ObservationSpec

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
Precision = Literal["auto", "float32", "bfloat16"]

_CORES_GIVEN = (
    torch.get_num_threads()
)  # physical cores, or OMP_NUM_THREADS where that is set; read before it is changed


def choose(
    observation: ObservationSpec,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    threads: int = 0,
    compile: bool = False,
    is_heavy: bool = False,
) -> Compute:
    """What is fast for encoders of `observation` on this machine; also sets the process's number of torch threads, and
    float32 to float32.

    Args:
        device: "auto" takes the first GPU if there is one; else as torch names devices: "cpu", "cuda", "cuda:1", "mps".
        precision: "auto" takes bfloat16 for images where the processor or GPU multiplies it in hardware.
        threads: of torch on the processor; 0 takes all cores for images and one for small vectors, whose operations are
            too short to share.
        compile: torch.compile the update.
        is_heavy: as much is computed as for images, such as over long sequences: "auto" and 0 mean the same as there.

    Raises:
        UserError: the device is not there.
    """
    if threads < 0:
        raise UserError(f"--threads must be 0 (choose) or more, not {threads}")
    place = _device(device)
    torch.set_float32_matmul_precision("highest")
    is_heavy = is_heavy or observation.is_image
    torch.set_num_threads(threads or (_CORES_GIVEN if is_heavy else 1))
    # the gradients of rare rewards underflow, and processors take many times longer over denormal numbers
    torch.set_flush_denormal(True)
    keep_freed_memory()
    bfloat16 = is_heavy and _fast_bfloat16(place) if precision == "auto" else precision == "bfloat16"
    fused = place.type in ("cpu", "cuda", "mps")  # where torch has such kernels
    return Compute(str(place), bfloat16, channels_last=observation.is_image, fused=fused, compile=compile)


def settle(compute: Compute, module: nn.Module) -> Compute:
    """`compute`, once the network is known: how bfloat16 is used, where it was chosen.

    On a processor a net without convolutions and recurrent layers keeps float32 between products, which round their
    inputs themselves. The products are the same, and weights, activations and gradients need no casting: an update of a
    784-500-20-500-784 autoencoder at batch 100 takes 3.4 ms instead of 3.9 (float32: 4.9). This is a setting of the
    process. It is not for external memories, whose steps are float32: they must find what they wrote.
    """
    has_kernels = any(isinstance(part, _Convolution | nn.RNNBase | Controller) for part in module.modules())
    rounds = compute.bfloat16 and compute.device == "cpu" and not has_kernels
    torch.set_float32_matmul_precision("medium" if rounds else "highest")
    return replace(compute, bfloat16=False, rounded_products=True) if rounds else compute


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, instead of giving it back to the system after every update.

    Gradients of some megabytes are otherwise fresh pages each time, and faulting them in takes a third of an update of
    Nature's network. Returns whether it was possible (with glibc).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    most = 32 << 20  # bytes; glibc takes no larger threshold for mapping blocks apart
    return all(mallopt(option, value) == 1 for option, value in ((_MMAP_THRESHOLD, most), (_TRIM_THRESHOLD, 2**31 - 1)))


def describe(compute: Compute) -> str:
    """What was chosen, in one line for people."""
    parts = [compute.device]
    if compute.device == "cpu":
        count = torch.get_num_threads()
        parts.append(f"{count} thread{'s' * (count > 1)}")
    parts.append("bfloat16" if compute.bfloat16 else "bfloat16 products" if compute.rounded_products else "float32")
    parts += [name for name in ("channels_last", "compile") if getattr(compute, name)]
    return ", ".join(parts).replace("channels_last", "channels last").replace("compile", "compiled")


def machine() -> dict[str, Any]:
    """The machine: processor model, cores that this process may use, memory in GB, GPU model or None."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of all that bears on a result."""
    found = {"saccade": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "gymnasium", "ale-py"):
        found[name] = importlib.metadata.version(name)
    return found


def commit() -> str | None:
    """The git commit of the code that runs, "-dirty" behind it if tracked files differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:  # installed, perhaps below some other project's checkout
        return None
    head, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
    return head and head + ("-dirty" if changes else "")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device {name!r} is not there: torch finds {count or 'no'} CUDA GPUs; use --device cpu")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("device 'mps' is not there: torch finds no Apple GPU; use --device cpu")
    elif device.type != "cpu":
        raise UserError(f"device {name!r} is not supported; use auto, cpu, cuda or mps")
    return device


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether matrices of bfloat16 are multiplied in hardware: by AMX tiles, AVX-512's products of pairs (on a Zen 5
    processor four times as many products a second as in float32), or tensor cores since Ampere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
