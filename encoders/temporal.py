"""Temporal prediction: from what is seen now, what will be seen is predicted in the space of codes.

With `loss="contrast"` it is ATC (Stooke et al. 2021, arXiv:2009.08319, section 3.1): the code some steps later is told
from those of all others in the batch. With `loss="cosine"` and `actions` it is near to SPR (Schwarzer et al. 2021,
arXiv:2007.05929, section 2): a transition model is unrolled over the actions, nothing is contrasted. Deviations: SPR
sums over all steps up to the last and shares heads with the agent; here the last step counts, and there is no head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.augment import random_shift
from .parts.coders import mean_losses
from .parts.divergences import cosine_logits, info_nce
from .parts.views import Perception, Seeing, follow, head, momentum_copy

kind = "prediction of what is seen next, in code space (ATC, SPR), for recorded frames and agents"

Loss = Literal["contrast", "cosine"]
Similarity = Literal["bilinear", "cosine"]


@dataclass(frozen=True)
class Config(Perception):
    loss: Loss = "contrast"  # contrast: InfoNCE (ATC); cosine: no negatives (SPR, BYOL)
    steps: int = 3  # how far an agent's batches look ahead (ATC 3, SPR 5); recorded frames say it themselves
    actions: int = 0  # kinds of discrete actions, or numbers in a continuous one, that prediction reads; 0 = none
    projection: int = 64  # width of the codes (ATC 128)
    predictor_hidden: int = 256  # units of the predictor's rectified layer
    similarity: Similarity = "bilinear"  # contrast: a learned matrix between the two codes (ATC), or cosines
    temperature: float = 0.1  # of cosines
    momentum: float = 0.99  # of the copy that sees what comes (ATC, SPR)
    augment_agent: int = 0  # pixels by which images are shifted for the agent's own learning too; 0 = off


class Pairs(NamedTuple):
    """Observations and what was seen some steps later in the same episode."""

    x: Tensor  # [N, ...]
    next_x: Tensor  # [N, ...]
    action: Tensor  # [N, steps] or [N, steps, *shape]


class Temporal(FeedForward):
    """Its features are what the codes are made of, rectified. The copy is a buffer: `after_update` moves it.

    Data without time (no "next_x") are learned as if nothing changed: from two views of the same observation.
    """

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.window = config.steps
        self.perception = Seeing(config, spec, "temporal")
        self.feature_shape = (config.features,)
        self.projection = head(config.features, 0, config.projection)
        self.predictor = head(config.projection + config.actions, config.predictor_hidden, config.projection)
        self.similarity: nn.Parameter | None = None
        if config.loss == "contrast" and config.similarity == "bilinear":
            self.similarity = nn.Parameter(torch.eye(config.projection) / config.projection**0.5)
        self.target = momentum_copy(nn.Sequential(self.perception, self.projection))

    def encode(self, x: Tensor) -> Tensor:
        return self.perception(x)

    def augment(self, obs: Tensor) -> Tensor:
        return random_shift(obs, self.config.augment_agent) if self.config.augment_agent else obs

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`prediction` `[N]`: of "next_x" from "x" and, where there is one, "action" `[N]` or `[N, *shape]`."""
        action = batch.get("action")
        return self._losses(batch["x"], batch.get("next_x", batch["x"]), None if action is None else action[:, None])

    def stages(self) -> Sequence[Stage]:
        return [Stage("temporal", [p for p in self.parameters() if p.requires_grad], self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return mean_losses(self._losses(*pairs(batch, self.config.steps)))

    def after_update(self) -> None:
        follow(self.target, nn.Sequential(self.perception, self.projection), self.config.momentum)

    def _losses(self, x: Tensor, next_x: Tensor, action: Tensor | None) -> dict[str, Tensor]:
        code = self._predict(self.projection(self.perception(self.perception.view(x))), action)
        with torch.no_grad():
            target = self.target(self.perception.view(next_x))
        if self.config.loss == "cosine":  # the squared distance of unit vectors (BYOL; Grill et al. 2020, eq. 2)
            return {"prediction": 2 - 2 * F.cosine_similarity(code.float(), target.float(), dim=1)}
        if self.similarity is None:
            return {"prediction": info_nce(cosine_logits(code, target, self.config.temperature))}
        return {"prediction": info_nce(code.float() @ self.similarity @ target.float().T)}

    def _predict(self, code: Tensor, action: Tensor | None) -> Tensor:
        """The code `[N, D]` that is expected after `action` `[N, steps, ...]`; a residual for each step (ATC, eq. 2).

        Without actions there is one residual, whatever the number of steps.
        """
        if not self.config.actions:
            return code + self.predictor(code)
        if action is None:
            return code + self.predictor(F.pad(code, (0, self.config.actions)))
        for a in action.unbind(1):
            code = code + self.predictor(torch.cat([code, self._numbers(a)], 1))
        return code

    def _numbers(self, action: Tensor) -> Tensor:
        """Actions of one step as `[N, actions]`; an identity beyond them is none at all."""
        if action.is_floating_point():
            return action.flatten(1)
        return (action.view(-1, 1) == torch.arange(self.config.actions, device=action.device)).float()


def pairs(batch: Trajectory, steps: int) -> Pairs:
    """What of `batch` lies `steps` apart without a reset or padding between, and the actions on the way."""
    count = len(batch.mask) - steps + 1  # places to begin
    if count < 1:
        none = batch.obs[:0].flatten(0, 1)
        return Pairs(none, none, batch.action[:0].flatten(0, 1).unsqueeze(1).expand(-1, steps, *batch.action.shape[2:]))
    joined = batch.mask & ~batch.reset[1:]
    real = joined.unfold(0, steps, 1).all(-1)  # [count, B]
    action = batch.action.unfold(0, steps, 1)[real].movedim(-1, 1)
    return Pairs(batch.obs[:count][real], batch.obs[steps:][real], action)


def build(config: Config, spec: ObservationSpec) -> Temporal:
    """Raises SpecError for tokens and for images too small for a conv net, UserError for settings without sense."""
    for name, known in (("loss", get_args(Loss)), ("similarity", get_args(Similarity))):
        if getattr(config, name) not in known:
            raise UserError(f"temporal: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    if min(config.steps, config.projection, config.predictor_hidden) < 1 or config.temperature <= 0:
        raise UserError("temporal: steps, projection, predictor_hidden and temperature must be positive")
    if config.actions < 0 or not 0 <= config.momentum < 1:
        raise UserError("temporal: actions must not be negative, momentum must lie in 0..1, 1 excluded")
    if config.augment_agent < 0 or (config.augment_agent and not spec.is_image):
        raise UserError("temporal: augment_agent is a number of pixels, for images")
    return Temporal(config, spec)
