"""Initial weights."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from ...envs.errors import UserError

Initialisation = Literal["orthogonal", "he"]


def initialise(module: nn.Module, how: Initialisation, gain: float = 2**0.5) -> None:
    """Draw the weights of every linear and convolutional layer inside `module` anew; their biases become 0.

    "orthogonal": rows (or columns) orthonormal times `gain` (Saxe et al. 2014, arXiv:1312.6120); sqrt(2) keeps the
    scale through ReLU. "he": normal with standard deviation `gain / sqrt(inputs)` (He et al. 2015,
    arXiv:1502.01852, eq. 10).

    Raises:
        UserError: no such initialisation.
    """
    if how not in get_args(Initialisation):
        raise UserError(f"unknown initialisation {how!r}; known: {', '.join(get_args(Initialisation))}")
    for layer in module.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        if how == "orthogonal":
            nn.init.orthogonal_(layer.weight, gain)
        else:
            nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
        if layer.bias is not None:
            with torch.no_grad():
                layer.bias.zero_()
