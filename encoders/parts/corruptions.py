"""Ways to damage an input that a denoising learner must undo (Vincent et al. 2010, JMLR 11, section 3.3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ...envs.errors import UserError

Corruption = Literal["none", "masking", "gaussian", "salt_and_pepper", "dropout"]


def corrupt(
    x: Tensor,
    corruption: Corruption,
    strength: float,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """A damaged copy of `x` (float, any shape); every element is drawn by itself.

    "masking" sets a share `strength` of the elements to 0. "dropout" does so too and divides the others by
    1 - `strength`, so that the mean stays. "gaussian" adds noise of standard deviation `strength`. "salt_and_pepper"
    sets a share `strength` to one of `bounds`, each with probability 1/2.
    """
    if corruption == "none" or strength == 0:
        return x
    if corruption == "gaussian":
        return x + strength * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    draw = torch.rand(x.shape, generator=generator, device=x.device)
    if corruption == "salt_and_pepper":
        low, high = bounds
        return torch.where(draw < strength / 2, low, torch.where(draw < strength, high, x))
    kept = x * (draw >= strength).to(x.dtype)
    return kept / (1 - strength) if corruption == "dropout" else kept


def check_corruption(corruption: str, strength: float, encoder: str) -> None:
    """Raise UserError for an unknown name, or a strength outside what the corruption understands."""
    if corruption not in get_args(Corruption):
        raise UserError(f"{encoder}: unknown corruption {corruption!r}; known: {', '.join(get_args(Corruption))}")
    if corruption == "gaussian":
        if not 0 <= strength < float("inf"):
            raise UserError(f"{encoder}: the strength of Gaussian noise is its standard deviation, not {strength}")
    elif not 0 <= strength < 1:
        raise UserError(f"{encoder}: strength is the share of damaged elements, at least 0 and below 1, not {strength}")
