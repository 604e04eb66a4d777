"""Deep Boltzmann machine: layers of bits that all see the one below and the one above.

Salakhutdinov & Hinton 2009 (AISTATS): greedy machines in which what will be read from two sides is counted twice
(section 3.1), then all layers together by mean field for the data and persistent chains for the model (section 2).

The file is not called dbm, as the machine is: the standard library has a module of that name.

The paper takes mean-field rounds until they settle; here their number is fixed. Its classifier reads the observation
beside the means; here all layers' means may be the features, and `saccade fit` trains through the rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage, Trajectory
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.deep import Deep, bound, fold, folded, mean_field, split_weight
from .parts.gibbs import contrast, gibbs, hidden_mean, means_along
from .parts.given import with_gradient
from .parts.likelihoods import binarise
from .parts.units import UNITS

kind = "deep Boltzmann machine: greedy, mean field, persistent chains, a bound of log p"

Binarise = Literal["none", "dynamic", "threshold"]
Features = Literal["top", "all"]
Rule = Literal["sgd", "trainer"]
SAMPLING_STEPS = 200  # of Gibbs from the chains
BITS = UNITS["bernoulli"]


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (500, 500)  # units of each layer, from the lowest; at least two layers
    binarise: Binarise = "none"  # of values in 0..1: probabilities as they are, bits drawn each time, or at 1/2
    iterations: int = 10  # rounds of mean field
    steps: int = 1  # of Gibbs per update, of a greedy layer and of the chains
    chains: int = 100  # fantasy particles
    joint: float = 1.0  # epochs of all layers together for each epoch of one; 0: the greedy layers only
    l2: float = 0.0  # weight decay by half the sum of W^2
    initial: float = 0.01  # standard deviation of the weights at the start
    features: Features = "top"  # means of the highest layer, or of all of them side by side
    gain: float = 20.0  # times the trainer's rate
    rule: Rule = "sgd"  # trainer: no gain and no plain steps, but what trains it chooses, as to fine-tune with Adam


class Dbm(FeedForward):
    """Several layers of features that agree on what they see, and a density."""

    window = 1
    chains: Tensor  # [N, units of layers 0, 2, ...]

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.scale, self.sigmoid = UnitScale(spec), True
        sizes = (spec.size, *config.hidden)
        self.weights = nn.ParameterList(
            torch.randn(above, below) * config.initial for below, above in itertools.pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.feature_shape = (config.hidden[-1] if config.features == "top" else sum(config.hidden),)
        self.register_buffer("chains", torch.rand(config.chains, sum(sizes[::2])).round())

    def deep(self) -> Deep:
        """The parameters as they are; what is computed from them has gradients. `parts.deep.folded` makes of it a
        machine whose log Z `parts.likelihood` estimates."""
        return Deep(tuple(self.weights), tuple(self.biases))

    def read_visible(self, x: Tensor, draws: bool = True) -> Tensor:
        """Observations to values of the visible units, float32 `[N, V]`; bits drawn anew where the config says so."""
        if draws and self.config.binarise == "dynamic":
            return binarise(x if x.dtype == torch.uint8 else self.scale(x)).flatten(1)
        v = self.scale(x).flatten(1)
        return (v >= 0.5).to(v.dtype) if self.config.binarise == "threshold" else v

    def means(self, x: Tensor) -> list[Tensor]:
        """Mean-field means of all hidden layers, `[N, H_l]`, lowest first."""
        return mean_field(self.deep(), self.read_visible(x, draws=False), self.config.iterations)

    def encode(self, x: Tensor) -> Tensor:
        means = self.means(x)
        return means[-1] if self.config.features == "top" else torch.cat(means, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Means of the observation given those of the lowest layer: unit scale, float32 `[N, *shape]`."""
        mean = torch.addmm(self.biases[0], self.means(x)[0], self.weights[0]).sigmoid()
        return mean.float().unflatten(1, self.shape)

    def bound(self, x: Tensor) -> Tensor:
        """What log p(x) + log Z is at least, `[N]`."""
        deep, v = self.deep(), self.read_visible(x)
        return bound(deep, v, mean_field(deep, v, self.config.iterations))

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None, steps: int = SAMPLING_STEPS) -> Tensor:
        """Means after Gibbs steps from the persistent chains: float32 `[count, *shape]`, unit scale."""
        device = self.chains.device
        drawn_on = device if generator is None else generator.device
        rows = torch.randint(len(self.chains), (count,), generator=generator, device=drawn_on).to(device)
        generator = generator if drawn_on == device else None
        mean = means_along(folded(self.deep()), self.chains[rows], [steps], generator)[0]
        return mean[:, : len(self.biases[0])].float().unflatten(1, self.shape)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction`, a scalar: its value is the squared error given the mean-field means, its gradient that of
        minus the bound, <s s'>_chains - <s s'>_data. The chains move in training mode only."""
        with torch.no_grad(), torch.autocast(self.chains.device.type, enabled=False):
            deep, v = self.deep(), self.read_visible(batch["x"])
            machine = folded(deep)
            means = mean_field(deep, v, self.config.iterations)
            error = (torch.addmm(deep.biases[0], means[0], deep.weights[0]).sigmoid() - v).square().sum()
            if self.training:
                self.chains.copy_(gibbs(machine, self.chains, self.config.steps))
            fantasy = (self.chains, hidden_mean(machine, self.chains))
            gradient = contrast(machine, fold([v, *means]), fantasy)
            weights = [part.contiguous() for part in split_weight(gradient.weight, deep.sizes)]
            even = gradient.visible_bias.split(list(deep.sizes[::2]))
            odd = gradient.hidden_bias.split(list(deep.sizes[1::2]))
            biases = [(odd if number % 2 else even)[number // 2].clone() for number in range(len(deep.sizes))]
            weights = [found + self.config.l2 * weight for found, weight in zip(weights, deep.weights, strict=True)]
        parameters = [*self.weights, *self.biases]
        return {"reconstruction": with_gradient(error / max(len(v), 1), parameters, [*weights, *biases])}

    def layer_loss(self, batch: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
        """`reconstruction` of one greedy layer (1 is the lowest), by CD-k on what it reads, `[N, units below]` or the
        observation: given the layer below, inputs count twice but in the highest layer; given this one, twice but in
        the lowest (Salakhutdinov & Hinton 2009, equations 12 to 17)."""
        with torch.no_grad(), torch.autocast(self.chains.device.type, enabled=False):
            v = self.read_visible(batch["x"]) if layer == 1 else batch["x"]
            weight, below, above = self.weights[layer - 1], self.biases[layer - 1], self.biases[layer]
            up, down = 1 + (layer < len(self.weights)), 1 + (layer > 1)
            hidden, h = BITS.mean_and_sample(torch.addmm(above, v, weight.T, alpha=up))
            error, fantasy = v.new_zeros(()), v
            for step in range(self.config.steps):
                if step:
                    h = BITS.sample(torch.addmm(above, fantasy, weight.T, alpha=up), None)
                mean, fantasy = BITS.mean_and_sample(torch.addmm(below, h, weight, alpha=down))
                if not step:
                    error = (mean - v).square().sum() / max(len(v), 1)
            after = torch.addmm(above, fantasy, weight.T, alpha=up).sigmoid()
            count = max(len(v), 1)
            gradient = (after.T @ fantasy - hidden.T @ v) / count + self.config.l2 * weight
            biases = (fantasy - v).sum(0) / count, (after - hidden).sum(0) / count
        return {"reconstruction": with_gradient(error, [weight, below, above], [gradient, *biases])}

    def stages(self) -> Sequence[Stage]:
        stages = [
            Stage(
                f"layer {number}",
                [self.weights[number - 1], self.biases[number - 1], self.biases[number]],
                partial(self.layer_loss, layer=number),
                input=partial(self._pass_up, layers=number - 1) if number > 1 else None,
            )
            for number in range(1, len(self.biases))
        ]
        if not self.config.joint:
            return stages
        return [*stages, Stage("all layers", list(self.parameters()), self.loss, epochs=self.config.joint)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        x = observed(batch)
        return mean_losses(self.loss({"x": x}) if len(x) else {"reconstruction": 0 * self.biases[0]})

    def parameter_groups(self) -> list[Group]:
        if self.config.rule == "trainer":
            return [Group("deep_boltzmann", list(self.parameters()))]
        return [
            Group("deep_boltzmann", list(self.parameters()), learning_rate_factor=self.config.gain, optimizer="sgd")
        ]

    def _pass_up(self, x: Tensor, layers: int) -> Tensor:
        """Means of a layer while there is none above it: each reads the one below, twice."""
        x = self.read_visible(x, draws=False)
        for weight, bias in list(zip(self.weights, list(self.biases)[1:], strict=True))[:layers]:
            x = torch.addmm(bias, x, weight.T, alpha=2).sigmoid()
        return x


def build(config: Config, spec: ObservationSpec) -> Dbm:
    """Raises SpecError for tokens and unbounded numbers, UserError for settings that make no sense."""
    require_numbers(spec, "deep_boltzmann")
    if not UnitScale(spec).bounded:
        raise SpecError(
            f"encoder 'deep_boltzmann' makes bits only of bounded observations, not of {spec.describe()}; try dbn"
        )
    choices = {"binarise": get_args(Binarise), "features": get_args(Features), "rule": get_args(Rule)}
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise UserError(f"deep_boltzmann: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    if len(config.hidden) < 2 or min(config.hidden) < 1:
        raise UserError(
            f"deep_boltzmann: hidden must be two or more positive sizes, not {config.hidden}; one layer is an rbm"
        )
    for name in ("iterations", "steps", "chains", "initial", "gain"):
        if not getattr(config, name) > 0:
            raise UserError(f"deep_boltzmann: {name} must be positive, not {getattr(config, name)}")
    for name in ("joint", "l2"):
        if getattr(config, name) < 0:
            raise UserError(f"deep_boltzmann: {name} must not be negative, but is {getattr(config, name)}")
    return Dbm(config, spec)
