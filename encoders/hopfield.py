"""Hopfield net: a memory of patterns that are found again from a part or a damaged copy of them.

Hopfield (1982, PNAS 79, 2554): W = sum of x x' / D over patterns of -1 and 1; units take the sign of what they feel,
one after the other. It holds about .138 D random patterns (Amit, Gutfreund & Sompolinsky 1985, PRL 55, 1530). The
pseudo-inverse (Personnaz, Guyon & Dreyfus 1985) holds correlated ones, too; the dense form (Ramsauer et al. 2021,
arXiv:2008.02217) real numbers, by one softmax over the stored patterns.

`fit` stores at once. As a stage of training: the first patterns seen are kept, and stored at its end. Beside an agent,
rules run on: under plain descent, the loss's gradient is minus Hebb's step, or for the pseudo-inverse Diederich &
Opper's (1987, PRL 58, 949), (x - W x) x', or for the dense form that of the squared error of what is retrieved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage, Trajectory
from .parts import associative
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.given import with_gradient

kind = "Hopfield net: patterns stored by Hebb's rule or the pseudo-inverse, or dense by attention"

Storage = Literal["hebbian", "pseudo-inverse", "dense"]
Retrieval = Literal["asynchronous", "synchronous"]
LARGEST = 4096  # units between which there are weights


@dataclass(frozen=True)
class Config:
    storage: Storage = "hebbian"
    retrieval: Retrieval = "asynchronous"  # one unit after the other, in order; synchronous: all at once; dense: none
    sweeps: int = 20  # over all units at most, until nothing moves; dense: steps
    patterns: int = 50  # how many of those seen in training are stored; dense: how many rows there are
    beta: float = 1.0  # dense: inverse temperature of the softmax over products with the patterns
    gain: float = 1.0  # times the trainer's rate


class Hopfield(FeedForward):
    """The features are the pattern that is found: -1 and 1, or real numbers with the dense form."""

    window = 1
    kept: Tensor  # [P, D]: what training alone has seen and will store
    seen: Tensor  # how many of them
    count: Tensor  # patterns that are stored; 0: none yet

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.unit = UnitScale(spec)
        self.feature_shape = (spec.size,)
        self.dense = config.storage == "dense"
        start = 0.1 * torch.randn(config.patterns, spec.size) if self.dense else torch.zeros(spec.size, spec.size)
        self.weight = nn.Parameter(start)  # the patterns themselves with the dense form, else symmetric
        self.register_buffer("kept", torch.zeros(config.patterns, spec.size))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def read_state(self, x: Tensor) -> Tensor:
        """Observations `[N, ...]` to states float32 `[N, D]`: -1 and 1, which they are above the middle of their range
        (or 0); with the dense form -1..1, or what they are."""
        unit = self.unit(x).flatten(1)
        middled = 2 * unit - 1 if self.unit.bounded else unit
        return middled if self.dense else torch.where(middled > 0, 1.0, -1.0)

    def encode(self, x: Tensor) -> Tensor:
        return self.retrieve(self.read_state(x))

    def retrieve(self, state: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Where states `[N, D]` settle; `generator`: asynchronously, in an order drawn for each sweep."""
        if self.dense:
            for _ in range(self.config.sweeps):
                state = associative.attend(self.stored(), state, self.config.beta)
            return state
        with torch.no_grad():
            if self.config.retrieval == "synchronous":
                return associative.synchronous(self.weight, state, self.config.sweeps)
            return associative.asynchronous(self.weight, state, self.config.sweeps, generator)

    @torch.no_grad()
    def step(self, state: Tensor) -> Tensor:
        """All units of states `[N, D]` moved once, at the same time."""
        if self.dense:
            return associative.attend(self.stored(), state, self.config.beta)
        return associative.synchronous(self.weight, state, 1)

    def energy(self, state: Tensor) -> Tensor:
        """Of states `[N, D]`: `[N]`."""
        if self.dense:
            return associative.dense_energy(self.stored(), state, self.config.beta)
        return associative.energy(self.weight, state)

    def stored(self) -> Tensor:
        """Dense form: the patterns, `[P, D]`; before any are stored, rows of chance that descent may move."""
        number = int(self.count)
        return self.weight[:number] if number else self.weight

    def held(self) -> Tensor:
        """The stored patterns that it still has as such, `[P, D]`; pairwise weights remember at most `patterns`."""
        return self.stored()[: int(self.count)] if self.dense else self.kept[: int(self.count)]

    def observation(self, state: Tensor) -> Tensor:
        """States `[N, D]` in unit scale, float32 `[N, *shape]`."""
        return ((state + 1) / 2 if self.unit.bounded else state).float().unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """What is found, in unit scale, float32 `[N, *shape]`."""
        return self.observation(self.encode(x))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Store the observations `[P, ...]`, and nothing else.

        Raises:
            UserError: there are none, or more than the dense form has rows.
        """
        patterns = self.read_state(x)
        if not len(patterns) or (self.dense and len(patterns) > self.config.patterns):
            raise UserError(f"hopfield: fit stores 1 to {self.config.patterns} patterns, not {len(x)}; set patterns")
        self.store(patterns)

    @torch.no_grad()
    def store(self, patterns: Tensor) -> None:
        """These states `[P, D]` and nothing else; with the dense form at most as many as there are rows."""
        if self.dense:
            self.weight.zero_()
            self.weight[: len(patterns)] = patterns
        else:
            rule = associative.hebbian if self.config.storage == "hebbian" else associative.pseudo_inverse
            self.weight.copy_(rule(patterns))
            kept = patterns[: len(self.kept)]
            self.kept[: len(kept)] = kept
        self.count.fill_(len(patterns))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A scalar: the mean `energy` per unit (hebbian), or the `retrieval` error per unit of one step."""
        state, size = self.read_state(batch["x"]), self.weight.shape[1]
        rows = max(len(state), 1)
        if self.dense:
            error = (associative.attend(self.stored(), state, self.config.beta) - state).square().sum()
            return {"retrieval": error / (rows * size)}
        with torch.no_grad():
            if self.config.storage == "hebbian":
                name, value = "energy", associative.energy(self.weight, state).sum()
                step = associative.hebbian(state) / rows
            else:
                left = state - state @ self.weight
                name, value = "retrieval", left.square().sum()
                step = left.T @ state / (rows * size)
                step = (0.5 * (step + step.T)).fill_diagonal_(0)
        return {name: with_gradient(value / (rows * size), [self.weight], [-step])}

    def stages(self) -> Sequence[Stage]:
        return [Stage("storage", [self.weight], self._gathering_loss, finish=self._store_kept)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return mean_losses(self.loss({"x": observed(batch)}))

    def parameter_groups(self) -> list[Group]:
        return [Group("hopfield", [self.weight], learning_rate_factor=self.config.gain, optimizer="sgd")]

    def _gathering_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.training:
            begin = int(self.seen)
            new = self.read_state(batch["x"])[: len(self.kept) - begin]
            self.kept[begin : begin + len(new)] = new
            self.seen += len(new)
        return self.loss(batch)

    @torch.no_grad()
    def _store_kept(self) -> None:
        if int(self.seen):
            self.store(self.kept[: int(self.seen)])
            self.seen.zero_()


def build(config: Config, spec: ObservationSpec) -> Hopfield:
    """Raises SpecError for tokens and for more than 4,096 numbers without the dense form, UserError for settings that
    make no sense."""
    require_numbers(spec, "hopfield")
    for name, known in (("storage", get_args(Storage)), ("retrieval", get_args(Retrieval))):
        if getattr(config, name) not in known:
            raise UserError(f"hopfield: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    for name in ("sweeps", "patterns", "beta", "gain"):
        if not getattr(config, name) > 0:
            raise UserError(f"hopfield: {name} must be positive, not {getattr(config, name)}")
    if spec.size > LARGEST and config.storage != "dense":
        raise SpecError(
            f"encoder 'hopfield' has a weight between any two of at most {LARGEST:,} numbers, not {spec.size:,}; "
            "use --encoder.storage dense"
        )
    return Hopfield(config, spec)
