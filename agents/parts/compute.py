"""Where and how fast an agent or trainer computes: device, precision, memory format, threads."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Compute:
    """How tensors are computed. `training.device` chooses one for the machine; tests use the default."""

    device: str = "cpu"
    bfloat16: bool = False  # autocast forward passes to bfloat16; parameters stay float32
    channels_last: bool = False  # convolution weights and images in NHWC order
    fused: bool = True  # fused optimiser kernels
    compile: bool = False  # torch.compile the update or the loss
    rounded_products: bool = False  # matrix products round their inputs to bfloat16; all between them is float32

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which forward passes run in bfloat16, if that was chosen."""
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    def place(self, module: nn.Module) -> nn.Module:
        """`module` on the device, in the chosen memory format."""
        module = module.to(self.device)
        return module.to(memory_format=torch.channels_last) if self.channels_last else module  # type: ignore[call-overload]
