"""Wasserstein autoencoder (Tolstikhin et al. 2018, arXiv:1711.01558): the cost of moving the data onto samples.

That cost is the reconstruction error, under the constraint that the codes, taken together, follow the prior; the
constraint is a penalty (eq. 4): the maximum mean discrepancy (algorithm 2) or an adversary (algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .parts.divergences import maximum_mean_discrepancy
from .parts.matched import Matched, Matching, check_matching
from .parts.priors import draw

kind = "Wasserstein autoencoder: codes follow a prior by maximum mean discrepancy or an adversary"

Penalty = Literal["mmd", "adversary"]


@dataclass(frozen=True)
class Config(Matching):
    penalty: Penalty = "mmd"  # or an adversary, which wants a smaller weight
    weight: float = 10.0  # of the divergence from the prior (section 4)


class Wasserstein(Matched):
    """The discrepancy is of the whole batch; the kernel's width is twice the prior's expected squared length."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__(config, spec, adversary=config.penalty == "adversary")
        length = {"gaussian": float(config.latents), "mixture": 16.7, "swiss_roll": 8.0}[config.prior]
        self.width = 2 * length  # 2 D sigma^2 of a Gaussian (section 4)

    def divergences(self, code: Tensor, label: Tensor) -> dict[str, Tensor]:
        none = torch.full_like(label, -1)
        if self.adversary is not None:
            return self.deceive(code, none)
        draws = draw(self.matching.prior, none, self.matching.latents)
        return {"discrepancy": self.matching.weight * maximum_mean_discrepancy(code, draws, self.width)}


def build(config: Config, spec: ObservationSpec) -> Wasserstein:
    """Raises SpecError for tokens and what the nets or the error cannot read, UserError for settings without sense."""
    check_matching(config, spec, "wasserstein")
    if config.penalty not in get_args(Penalty):
        raise UserError(f"wasserstein: unknown penalty {config.penalty!r}; known: mmd, adversary")
    return Wasserstein(config, spec)
