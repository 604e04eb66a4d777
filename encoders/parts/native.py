"""Loops in C++ for what torch can only do in several passes over memory: compiled once, where there is a compiler.

Nothing depends on it: whoever uses it has a form in torch as well, which is also what it is tested against.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pooch
import torch
from torch import Tensor

FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fPIC", "-shared", "-std=c++17")
WIDE = ("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()  # a tenth faster where there are such
SWITCH = "SACCADE_NATIVE"  # environment variable; 0: never compile


@functools.cache
def load(source: str) -> ctypes.CDLL | None:
    """The library compiled from `source`, or None where that is not possible or not wanted.

    It is kept in the user's cache folder. Its OpenMP loops run on the threads of torch, which has loaded such a library
    already.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if os.environ.get(SWITCH) == "0" or compiler is None or platform.system() != "Linux":
        return None
    key = hashlib.sha256(
        "\n".join((source, compiler, *FLAGS, *WIDE, _processor(), torch.__version__)).encode()
    ).hexdigest()
    folder = Path(pooch.os_cache("saccade")) / "native"
    library = folder / f"{key[:32]}.so"
    try:
        if not library.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                code, result = Path(scratch, "source.cpp"), Path(scratch, "result.so")
                code.write_text(source)
                words = [compiler, *FLAGS, *WIDE, str(code), "-o", str(result)]
                subprocess.run(words, check=True, capture_output=True, timeout=120)
                result.replace(library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError):
        return None


def read(*names: str) -> str:
    """The sources of these files of this folder, one behind the other."""
    return "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)


def pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Of the first elements of contiguous tensors; null for None."""
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def serves(*tensors: Tensor) -> bool:
    """Whether the loops can read these: on the processor, all float32 or all float64."""
    first = tensors[0].dtype
    known = first in (torch.float32, torch.float64)
    return known and all(tensor.device.type == "cpu" and tensor.dtype == first for tensor in tensors)


def _processor() -> str:
    """What -march=native depends on: a cache folder may be shared among machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
