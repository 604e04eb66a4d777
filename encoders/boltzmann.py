"""Boltzmann machine of few units, each joined to every other (Ackley, Hinton & Sejnowski 1985, Cognitive Science 9).

Visible and hidden units s of 0 and 1 have the energy E(s) = -s W s / 2 - b s; a weight follows what its two units do
together with the data clamped, less what they do when the net runs freely (their equation 8). With few units both are
summed over all states; with more they are drawn, by Gibbs sweeps at temperatures that fall to 1.

Deviation: visible units are 1 where an observation is in the upper half of its range, without their noise on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage, Trajectory
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.given import with_gradient

kind = "Boltzmann machine of few units, all joined: exact by enumeration, or by annealed Gibbs sampling"

Method = Literal["auto", "exact", "gibbs"]
LARGEST, LARGEST_EXACT, LARGEST_HIDDEN = 64, 16, 12  # visible units; units whose states are enumerated; hidden ones
MEAN_FIELD_STEPS, DAMPING = 30, 0.5


@dataclass(frozen=True)
class Config:
    hidden: int = 6  # units
    method: Method = "auto"  # exact: sums over all states, up to 16 units; auto: that where it can be, else gibbs
    chains: int = 100  # gibbs: free-running, drawn anew for every batch
    first_temperature: float = 10.0  # gibbs: where annealing begins
    annealing: int = 20  # gibbs: sweeps in which the temperature falls to 1, by equal factors
    sweeps: int = 10  # gibbs: at temperature 1, over which products are averaged
    initial: float = 0.1  # standard deviation of the weights at the start
    gain: float = 100.0  # times the trainer's rate


class Boltzmann(FeedForward):
    """The features are the hidden units' means given the observation: exact up to 12 of them, else of mean field."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape, self.visible = config, spec.shape, spec.size
        self.unit = UnitScale(spec)
        self.feature_shape = (config.hidden,)
        units = spec.size + config.hidden
        self.exact = config.method == "exact" or (config.method == "auto" and units <= LARGEST_EXACT)
        self.upper = nn.Parameter(config.initial * torch.randn(units, units))  # what is above its diagonal counts
        self.bias = nn.Parameter(torch.zeros(units))

    def weight(self) -> Tensor:
        """Symmetric, 0 on the diagonal, `[K, K]`; the visible units come first."""
        upper = self.upper.triu(1)
        return upper + upper.T

    def read_visible(self, x: Tensor) -> Tensor:
        """Observations `[N, ...]` to bits in float32, `[N, V]`."""
        return (self.unit(x).flatten(1) >= 0.5).float()

    def encode(self, x: Tensor) -> Tensor:
        v, weight = self.read_visible(x), self.weight()
        if self.config.hidden > LARGEST_HIDDEN:
            return self._mean_field(v, weight)
        table = all_states(self.config.hidden, v)
        return self._hidden_scores(v, weight, table).softmax(1) @ table

    def energy(self, state: Tensor) -> Tensor:
        """Of all units' states `[N, K]`: `[N]`."""
        return -0.5 * (state @ self.weight() * state).sum(1) - state @ self.bias

    def log_partition(self) -> Tensor:
        """log of the sum of exp(-E) over all states, a scalar with a gradient. For at most 20 units or so."""
        return torch.logsumexp(-self.energy(all_states(len(self.bias), self.bias)), 0)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Exact log p of observations in nats, `[N]`, with a gradient. For at most 20 units or so."""
        v = self.read_visible(x)
        scores = self._hidden_scores(v, self.weight(), all_states(self.config.hidden, v))
        return torch.logsumexp(scores, 1) - self.log_partition()

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`surprise` `[N]`, minus the log-likelihood, where states are enumerated; else `pseudo`, a scalar: minus the
        mean log p of each visible unit given all others, whose gradient is that of the learning rule."""
        if self.exact:
            return {"surprise": -self.log_likelihood(batch["x"])}
        v = self.read_visible(batch["x"])
        with torch.no_grad():
            weight = self.weight()
            noise = torch.rand(len(v), self.config.hidden, device=v.device).round()
            clamped, (products, means) = self._run(torch.cat([v, noise], 1), weight, self.visible)
            free = torch.rand(self.config.chains, len(self.bias), device=v.device).round()
            _, (free_products, free_means) = self._run(free, weight, 0)
            fields = (clamped @ weight + self.bias)[:, : self.visible]
            value = (softplus(fields) - fields * v).sum() / max(len(v), 1)
            gradients = [(free_products - products).triu(1), free_means - means]
        return {"pseudo": with_gradient(value, [self.upper, self.bias], gradients)}

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of the visible units: float32 `[count, *shape]` of 0 and 1. Exact where states are enumerated."""
        if self.exact:
            table = all_states(len(self.bias), self.bias)
            share = (-self.energy(table)).softmax(0).cpu()
            drawn = table[torch.multinomial(share, count, replacement=True, generator=generator).to(table.device)]
        else:
            start = torch.rand(count, len(self.bias), generator=generator).round().to(self.bias.device)
            drawn, _ = self._run(start, self.weight(), 0, generator)
        return drawn[:, : self.visible].unflatten(1, self.shape)

    def stages(self) -> Sequence[Stage]:
        return [Stage("boltzmann", list(self.parameters()), self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return mean_losses(self.loss({"x": observed(batch)}))

    def parameter_groups(self) -> list[Group]:
        return [Group("boltzmann", list(self.parameters()), self.config.gain, optimizer="sgd")]

    def temperatures(self) -> list[float]:
        """Of all sweeps, one after the other."""
        first, count = self.config.first_temperature, self.config.annealing
        return [first ** (1 - number / count) for number in range(count)] + [1.0] * self.config.sweeps

    def _run(
        self, state: Tensor, weight: Tensor, clamped: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States `[N, K]` after annealing, whose first `clamped` units stay; and, over the sweeps at temperature 1, the
        mean products of any two units `[K, K]` and their means `[K]`."""
        products, means = torch.zeros_like(weight), torch.zeros_like(self.bias)
        for number, temperature in enumerate(self.temperatures()):
            state = gibbs_sweep(state, weight, self.bias, clamped, temperature, generator)
            if number >= self.config.annealing:
                products += state.T @ state
                means += state.sum(0)
        total = max(len(state), 1) * self.config.sweeps
        return state, (products / total, means / total)

    def _hidden_scores(self, v: Tensor, weight: Tensor, table: Tensor) -> Tensor:
        """-E of visible bits `[N, V]` with each of the hidden states `[S, H]`: `[N, S]`."""
        count = self.visible
        own = 0.5 * (v @ weight[:count, :count] * v).sum(1) + v @ self.bias[:count]
        among = 0.5 * (table @ weight[count:, count:] * table).sum(1) + table @ self.bias[count:]
        return own.unsqueeze(1) + among + v @ weight[:count, count:] @ table.T

    def _mean_field(self, v: Tensor, weight: Tensor) -> Tensor:
        """Hidden means that agree with each other, nearly: `[N, H]`."""
        fixed = v @ weight[: self.visible, self.visible :] + self.bias[self.visible :]
        means = fixed.sigmoid()
        for _ in range(MEAN_FIELD_STEPS):
            means = torch.lerp(means, (fixed + means @ weight[self.visible :, self.visible :]).sigmoid(), DAMPING)
        return means


def all_states(units: int, like: Tensor) -> Tensor:
    """Each combination of 0 and 1, `[2 ** units, units]`, of the type of `like`."""
    number = torch.arange(2**units, device=like.device).unsqueeze(1)
    return ((number >> torch.arange(units, device=like.device)) & 1).to(like.dtype)


def gibbs_sweep(
    state: Tensor, weight: Tensor, bias: Tensor, clamped: int, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """Each unit from `clamped` on is drawn once, in order, given all others: `[N, K]` to `[N, K]`."""
    columns = state.T.contiguous()  # a unit's states lie together
    drawn = torch.rand(columns.shape, generator=generator).to(state.device)
    for unit in range(clamped, len(bias)):
        field = (weight[unit] @ columns + bias[unit]) / temperature
        columns[unit] = (drawn[unit] < field.sigmoid()).to(state.dtype)
    return columns.T.contiguous()


def build(config: Config, spec: ObservationSpec) -> Boltzmann:
    """Raises SpecError for tokens, unbounded numbers and more than 64 of them, UserError for settings that make no
    sense."""
    require_numbers(spec, "boltzmann")
    if not UnitScale(spec).bounded:
        raise SpecError(f"encoder 'boltzmann' makes bits of bounded observations, not {spec.describe()}; use rbm")
    if spec.size > LARGEST:
        raise SpecError(
            f"encoder 'boltzmann' joins all units, of at most {LARGEST} numbers, not {spec.size:,}; use rbm"
        )
    if config.method not in get_args(Method):
        raise UserError(f"boltzmann: unknown method {config.method!r}; known: {', '.join(get_args(Method))}")
    for name in ("hidden", "chains", "annealing", "sweeps", "initial", "gain"):
        if not getattr(config, name) > 0:
            raise UserError(f"boltzmann: {name} must be positive, not {getattr(config, name)}")
    if config.first_temperature < 1:
        raise UserError(f"boltzmann: first_temperature must be 1 or more, not {config.first_temperature}")
    units = spec.size + config.hidden
    if config.method == "exact" and units > LARGEST_EXACT:
        raise UserError(f"boltzmann: exact sums need {LARGEST_EXACT} units at most, not {units}; use gibbs")
    return Boltzmann(config, spec)
