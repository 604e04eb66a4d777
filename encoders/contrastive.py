"""Contrastive learning: two random views of an observation are told from those of all others in the batch.

With a momentum copy and bilinear similarity it is CURL (Laskin et al. 2020, arXiv:2004.04136, section 4); without the
copy and with cosines, SimCLR (Chen et al. 2020, arXiv:2002.05709, section 2.1). Deviations: the other observations in
the same view, SimCLR's second half of negatives, are left out, and so are its colour distortions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.augment import random_shift
from .parts.coders import observed_losses
from .parts.divergences import cosine_logits, info_nce
from .parts.views import Perception, Seeing, follow, head, momentum_copy

kind = "contrast between random views (CURL, SimCLR), for images, vectors and flattened images"

Similarity = Literal["cosine", "bilinear"]


@dataclass(frozen=True)
class Config(Perception):
    projection: int = 64  # width of what is compared (SimCLR 128, CURL 50)
    projection_hidden: int = 128  # units of the projection's rectified layer; 0 = a linear projection
    similarity: Similarity = "cosine"  # bilinear: a learned matrix between the two views (CURL, section 4.3)
    temperature: float = 0.1  # of cosines (SimCLR, table 5)
    momentum: float = 0.99  # of the copy that sees the second view (CURL .95, MoCo .999); 0 = no copy
    augment_agent: int = 0  # pixels by which images are shifted for the agent's own learning too; 0 = off


class Contrastive(FeedForward):
    """Its features are what the projection reads. The copy is a buffer: it moves in `after_update` only."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.perception = Seeing(config, spec, "contrastive")
        self.feature_shape = (config.features,)
        self.projection = head(config.features, config.projection_hidden, config.projection)
        self.similarity: nn.Parameter | None = None
        if config.similarity == "bilinear":
            self.similarity = nn.Parameter(torch.eye(config.projection) / config.projection**0.5)
        self.key = momentum_copy(nn.Sequential(self.perception, self.projection)) if config.momentum else None

    def encode(self, x: Tensor) -> Tensor:
        return self.perception(x)

    def augment(self, obs: Tensor) -> Tensor:
        return random_shift(obs, self.config.augment_agent) if self.config.augment_agent else obs

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`contrast` `[N]`, in nats: log N where the views tell nothing, 0 where each finds its partner."""
        first, second = (self.perception.view(batch["x"]) for _ in range(2))
        query = self.projection(self.perception(first))
        if self.key is not None:
            with torch.no_grad():
                key = self.key(second)
            return {"contrast": info_nce(self._logits(query, key))}
        logits = self._logits(query, self.projection(self.perception(second)))
        return {"contrast": (info_nce(logits) + info_nce(logits.T)) / 2}

    def _logits(self, query: Tensor, key: Tensor) -> Tensor:
        if self.similarity is None:
            return cosine_logits(query, key, self.config.temperature)
        return query.float() @ self.similarity @ key.float().T

    def stages(self) -> Sequence[Stage]:
        return [Stage("contrast", [p for p in self.parameters() if p.requires_grad], self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def after_update(self) -> None:
        if self.key is not None:
            follow(self.key, nn.Sequential(self.perception, self.projection), self.config.momentum)


def build(config: Config, spec: ObservationSpec) -> Contrastive:
    """Raises SpecError for tokens and for images too small for a conv net, UserError for settings without sense."""
    if config.similarity not in get_args(Similarity):
        raise UserError(f"contrastive: unknown similarity {config.similarity!r}; known: cosine, bilinear")
    if config.projection < 1 or config.projection_hidden < 0 or config.temperature <= 0:
        raise UserError("contrastive: projection and temperature must be positive, projection_hidden not negative")
    if not 0 <= config.momentum < 1:
        raise UserError(f"contrastive: momentum must lie in 0..1, 1 excluded, not {config.momentum}")
    if config.augment_agent < 0 or (config.augment_agent and not spec.is_image):
        raise UserError("contrastive: augment_agent is a number of pixels, for images")
    return Contrastive(config, spec)
