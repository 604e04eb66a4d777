"""Eight small images whose density tiny machines can learn, and parameters by which every sum shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bars() -> Tensor:
    """Bars in 4x4 pixels, four rows and then four columns: uint8 `[8, 1, 4, 4]`, 8 of 65,536 images."""
    rows = torch.zeros(4, 4, 4)
    rows[range(4), range(4)] = 1
    return torch.cat([rows, rows.mT]).unsqueeze(1).mul(255).to(torch.uint8)


def scrambled(learner: nn.Module) -> None:
    """Parameters all away from 0."""
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(torch.randn_like(parameter))
