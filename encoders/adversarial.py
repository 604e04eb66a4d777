"""Adversarial autoencoder (Makhzani et al. 2016, arXiv:1511.05644): an adversary makes the codes follow a prior.

The encoder is deterministic, as the paper chose for its experiments (section 2). Deviation: reconstruction, adversary
and deceit are one loss and one step, not three phases.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .parts.matched import Matched, Matching, check_matching

kind = "adversarial autoencoder: codes follow a Gaussian, a mixture or a swiss roll"


@dataclass(frozen=True)
class Config(Matching):
    labels: int = 0  # kinds of labels that the adversary is told (section 2.3); 0 = none, labels are not read


class Adversarial(Matched):
    """Where labels are known and the prior has modes, each label gets a mode of its own."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__(config, spec, config.labels)
        self.needs_labels = bool(config.labels)

    def divergences(self, code: Tensor, label: Tensor) -> dict[str, Tensor]:
        return self.deceive(code, label if self.labels else label.new_full(label.shape, -1))


def build(config: Config, spec: ObservationSpec) -> Adversarial:
    """Raises SpecError for tokens and what the nets or the error cannot read, UserError for settings without sense."""
    check_matching(config, spec, "adversarial")
    if config.labels < 0:
        raise UserError(f"adversarial: labels must not be negative, but is {config.labels}")
    return Adversarial(config, spec)
