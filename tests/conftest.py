"""What all tests share: one thread, and the same random numbers in each test whatever ran before it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # tests compare arithmetic bit by bit, and run beside each other


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries that read the old global generator
    torch.manual_seed(0)
