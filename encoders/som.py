"""Self-organising map: units on a grid that divide the observations among them, near ones alike.

Kohonen (1982, Biological Cybernetics 43, 59): the unit c whose weights are nearest to x wins, and all follow,

    dw_i = alpha h(i, c) (x - w_i),    h = exp(-|r_i - r_c|^2 / 2 sigma^2),

with r the places on the grid; alpha and the radius sigma fall. Batch rule (Kohonen 2001, Self-Organizing Maps, section
3.6): w_i is the mean of the observations, weighted by h.

Deviation: the steps of a batch are taken from the same weights and added up; where a unit's h add up to more than 1, it
goes to their weighted mean instead, so that no batch is too large. With one example it is Kohonen's step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage, Trajectory
from .parts import grids
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.given import with_gradient
from .parts.grids import Layout, Neighbourhood
from .parts.moments import Moments

kind = "self-organising map (Kohonen): rectangular or hexagonal grid, online or batch rule"

Rule = Literal["online", "batch"]
Features = Literal["distances", "soft", "position"]
LARGEST_COVARIANCE = 1024  # numbers in an observation up to which `fit` begins with principal components
PART = 8192  # rows that are compared with the units at once


@dataclass(frozen=True)
class Config:
    rows: int = 10  # of the grid
    columns: int = 10
    layout: Layout = "rectangular"
    wrap: bool = False  # each edge of the grid touches the opposite one
    rule: Rule = "online"  # batch: the exact mean of the last batches, whatever the trainer's rate
    neighbourhood: Neighbourhood = "gaussian"  # bubble: all within the radius, alike
    radius: float | None = None  # at first, in units of the grid; None: a third of its longer side, at least 1
    last_radius: float = 0.7  # at the end of training alone
    last_rate: float = 0.02  # online: of the first rate, at the end
    gain: float = 500.0  # online: times the trainer's rate is alpha at first
    memory: float = 1.0  # batch: batches over which the means go, older ones fading; 1: the last alone
    features: Features = "distances"  # to all units; soft assignments; or the winner's place (x, y)
    temperature: float = 1.0  # soft: in units of the mean squared distance to the winner


class Som(FeedForward):
    """A map; `weight` are the prototypes in unit scale, row by row."""

    window = 1
    squared: Tensor  # [K, K] between units on the grid
    place: Tensor  # [K, 2]
    progress: Tensor  # 0..1, how much of training alone is done; filled by the trainer
    spread: Tensor  # running mean of the squared distance to the winner
    sums: Tensor  # batch rule: of the observations that each unit won, fading, [K, D]
    wins: Tensor  # batch rule: how many, fading, [K]

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.scale = UnitScale(spec)
        units, shape = config.rows * config.columns, (config.rows, config.columns)
        self.feature_shape = (2,) if config.features == "position" else (units,)
        start = torch.rand(units, spec.size) if self.scale.bounded else 0.1 * torch.randn(units, spec.size)
        self.weight = nn.Parameter(start)
        squared = grids.squared_distances(*shape, config.layout, config.wrap)
        self.register_buffer("squared", squared, persistent=False)
        self.register_buffer("place", grids.positions(*shape, config.layout), persistent=False)
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        if config.rule == "batch":
            self.register_buffer("sums", torch.zeros(units, spec.size))
            self.register_buffer("wins", torch.zeros(units))
        self.target: Tensor | None = None  # batch rule: where the weights go after this update

    def encode(self, x: Tensor) -> Tensor:
        squared = self._squared(self._flat(x))
        if self.config.features == "position":
            return self.place[squared.argmin(1)]
        if self.config.features == "soft":
            return (squared / (-self.config.temperature * self.spread)).softmax(1)
        return (squared + 1e-12).sqrt()  # a distance of 0 has a gradient, too

    def reconstruct(self, x: Tensor) -> Tensor:
        """The winners' weights: unit scale, float32 `[N, *shape]`."""
        return self.weight[self.winners(x)].float().unflatten(1, self.shape)

    @torch.no_grad()
    def winners(self, x: Tensor) -> Tensor:
        """The nearest unit of each observation `[N, ...]`, int64 `[N]`."""
        return torch.cat([self._squared(self._flat(part)).argmin(1) for part in x.split(PART)])

    @torch.no_grad()
    def errors(self, x: Tensor) -> dict[str, Tensor]:
        """Of observations `[N, ...]`: `quantisation_error`, the mean distance to the winner; `topographic_error`, the
        share of those whose nearest two units do not touch on the grid (Kiviluoto 1996, ICNN)."""
        touch = grids.neighbours(self.squared, self.config.layout)
        distance, apart = x.new_zeros((), dtype=torch.float32), x.new_zeros((), dtype=torch.float32)
        for part in x.split(PART):
            flat = self._flat(part)
            _, nearest = self._squared(flat).topk(2, dim=1, largest=False)
            distance = distance + (flat - self.weight[nearest[:, 0]]).square().sum(1).sqrt().sum()
            apart = apart + (~touch[nearest[:, 0], nearest[:, 1]]).sum()
        return {"quantisation_error": distance / len(x), "topographic_error": apart / len(x)}

    @torch.no_grad()
    def relief(self) -> Tensor:
        """Mean distance of each unit's weights from those of the units it touches, `[rows, columns]`: high where the
        map is torn between clusters (Ultsch's U-matrix)."""
        touch = grids.neighbours(self.squared, self.config.layout).float()
        mean = (self._squared(self.weight).sqrt() * touch).sum(1) / touch.sum(1).clamp(min=1)
        return mean.unflatten(0, (self.config.rows, self.config.columns))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`quantisation`, a scalar: the mean squared distance to the winner; its gradient is minus the rule's step."""
        with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
            x = self._flat(batch["x"])
            nearest, winner = self._squared(x).min(1)
            error = nearest.sum() / max(len(x), 1)
            if self.training and len(x):
                self.spread.lerp_(error, 0.01).clamp_(min=1e-12)
            step = self._step(x, winner) if self.config.rule == "online" else self._mean_step(x, winner)
        return {"quantisation": with_gradient(error, [self.weight], [-step])}

    def stages(self) -> Sequence[Stage]:
        return [Stage("map", [self.weight], self.loss, monitor=lambda _, validation: self.errors(validation))]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return mean_losses(self.loss({"x": observed(batch)}))

    def parameter_groups(self) -> list[Group]:
        return [Group("som", [self.weight], optimizer="sgd")]

    @torch.no_grad()
    def after_update(self) -> None:
        """Batch rule: the weights are the means, exactly."""
        if self.target is not None and self.weight.requires_grad:
            self.weight.copy_(self.target)
        self.target = None

    @torch.no_grad()
    def fit(self, x: Tensor, epochs: int = 10) -> None:
        """The batch rule on all of `x` `[N, ...]`, `epochs` times, which may replace all training.

        It begins on the plane of the first two principal components, where observations are not too large for that.
        """
        flat = self._flat(x)
        if 2 <= flat.shape[1] <= LARGEST_COVARIANCE and len(flat) > 1:
            self.weight.copy_(self._plane(flat))
        for epoch in range(epochs):
            sums, wins = self._won(flat, torch.cat([self._squared(part).argmin(1) for part in flat.split(PART)]))
            self.weight.copy_(self._smoothed(sums, wins, epoch / max(epochs - 1, 1)))
        self.spread.copy_(torch.stack([self._squared(p).amin(1).sum() for p in flat.split(PART)]).sum() / len(x))

    def radius(self, progress: float) -> float:
        """Of the neighbourhood, which falls by the same factor in equal times."""
        config = self.config
        first = max(max(config.rows, config.columns) / 3, 1.0) if config.radius is None else config.radius
        return first * (config.last_radius / first) ** progress

    def _flat(self, x: Tensor) -> Tensor:
        return self.scale(x).flatten(1)

    def _squared(self, x: Tensor) -> Tensor:
        """Squared distances of `[N, D]` from all units, `[N, K]`."""
        own = self.weight.square().sum(1)
        return (torch.addmm(own, x, self.weight.T, alpha=-2) + x.square().sum(1, keepdim=True)).clamp(min=0)

    def _step(self, x: Tensor, winner: Tensor) -> Tensor:
        """Kohonen's, `[K, D]`, of `x` `[N, D]` whose winners are int64 `[N]`."""
        progress = float(self.progress)
        followed = grids.weights(self.squared[winner], self.radius(progress), self.config.neighbourhood)  # [N, K]
        total = followed.sum(0)
        step = followed.T @ x - total.unsqueeze(1) * self.weight
        return step * (self.config.gain * self.config.last_rate**progress / total.clamp(min=1)).unsqueeze(1)

    def _mean_step(self, x: Tensor, winner: Tensor) -> Tensor:
        """The way to the means; where it ends is kept for `after_update`."""
        sums, wins = self._won(x, winner)
        kept = 1 - 1 / self.config.memory
        sums, wins = self.sums * kept + sums, self.wins * kept + wins
        target = self._smoothed(sums, wins, float(self.progress))
        if self.training:
            self.sums.copy_(sums)
            self.wins.copy_(wins)
            self.target = target
        return target - self.weight

    def _won(self, x: Tensor, winner: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of what each unit won, `[K, D]`, and how many they were, `[K]`."""
        wins = torch.bincount(winner, minlength=len(self.weight)).to(x.dtype)
        return torch.zeros_like(self.weight).index_add_(0, winner, x), wins

    def _smoothed(self, sums: Tensor, wins: Tensor, progress: float) -> Tensor:
        """Means weighted by the neighbourhood; units that nothing reaches stay where they are."""
        followed = grids.weights(self.squared, self.radius(progress), self.config.neighbourhood)
        total = (followed @ wins).unsqueeze(1)
        return torch.where(total > 1e-12, followed @ sums / total.clamp(min=1e-12), self.weight)

    def _plane(self, x: Tensor) -> Tensor:
        """Units spread over the first two principal components, the grid's longer side along the first, `[K, D]`."""
        moments = Moments(x.shape[1]).to(x.device)
        moments.add(x)
        axes = moments.components(2)
        if self.config.rows > self.config.columns:
            axes = axes.flip(0)
        place = (self.place - self.place.mean(0)) / self.place.std(0).clamp(min=1e-6)
        return moments.mean + (place * ((x - moments.mean) @ axes.T).std(0)) @ axes


def build(config: Config, spec: ObservationSpec) -> Som:
    """Raises SpecError for tokens, UserError for settings that make no sense."""
    require_numbers(spec, "som")
    choices = {"layout": Layout, "rule": Rule, "neighbourhood": Neighbourhood, "features": Features}
    for name, known in choices.items():
        if getattr(config, name) not in get_args(known):
            raise UserError(f"som: unknown {name} {getattr(config, name)!r}; known: {', '.join(get_args(known))}")
    if min(config.rows, config.columns) < 1 or config.rows * config.columns < 2:
        raise UserError(f"som: the grid needs two units at least, not {config.rows} x {config.columns}")
    if config.wrap and config.layout == "hexagonal" and config.rows % 2:
        raise UserError(f"som: a hexagonal grid that wraps needs an even number of rows, not {config.rows}")
    for name in ("last_radius", "last_rate", "gain", "temperature"):
        if not getattr(config, name) > 0:
            raise UserError(f"som: {name} must be positive, not {getattr(config, name)}")
    if config.radius is not None and not config.radius > 0:
        raise UserError(f"som: radius must be positive, not {config.radius}")
    if config.memory < 1:
        raise UserError(f"som: memory must be 1 batch or more, not {config.memory}")
    return Som(config, spec)
