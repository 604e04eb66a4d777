"""What all tests share: the same arithmetic and the same random numbers in each, whatever ran before it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _same_arithmetic() -> None:
    """Runs choose these for the whole process; tests compare bit by bit, and run beside each other."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries that read the old global generator
    torch.manual_seed(0)
