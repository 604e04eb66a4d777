"""Restricted Boltzmann machine: bits, Gaussian units or counts below, bits, Gaussian or rectified units above.

Contrastive divergence CD-k (Hinton 2002, Neural Computation 14, 1771), persistent chains (Tieleman 2008, ICML) or
chains at several temperatures (Desjardins et al. 2010, AISTATS); momentum, weight decay and sparsity as in Hinton's
practical guide (2010, UTML TR 2010-003, sections 9 to 11). Gaussian variances after Cho, Ilin & Raiko (2011, ICANN),
rectified units after Nair & Hinton (2010, ICML), words after Salakhutdinov & Hinton (2009, NIPS).

The k steps of CD-k are one chain that goes on from step to step. The learning rate counts for mean gradients over the
batch; `gain` brings the trainers' usual rate to the guide's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage, Trajectory
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.gibbs import (
    Gradient,
    Hidden,
    Machine,
    Visible,
    contrast,
    free_energy,
    gibbs,
    hidden_input,
    hidden_mean,
    means_along,
    scaled,
    visible_mean,
    walk,
)
from .parts.given import with_gradient
from .parts.likelihoods import binarise
from .parts.tempering import Path, no_rates, tempered_step
from .parts.units import UNITS

kind = "restricted Boltzmann machine: bits, Gaussian, counts; CD, persistent CD, tempering"

Method = Literal["cd", "pcd", "tempering"]
Binarise = Literal["none", "dynamic", "threshold"]
Features = Literal["probabilities", "samples", "inputs"]
SHOWN = 16  # rows whose reconstruction is looked at while persistent chains learn, which need none
SAMPLING_STEPS = 1000  # of Gibbs from noise, and a fifth of them from persistent chains
WORDS = 100  # in a text that is sampled
LOG_VARIANCES = (-10.0, 10.0)
ACTIVITY_MEMORY = 0.95  # of the mean that the sparsity target is held against, per batch


@dataclass(frozen=True)
class Config:
    hidden: int = 500  # units
    visible: Literal["auto", Visible] = "auto"  # auto: bernoulli where all elements are bounded, else gaussian
    hidden_units: Hidden = "bernoulli"
    binarise: Binarise = "none"  # of values in 0..1: probabilities as they are, bits drawn each time, or at 1/2
    method: Method = "cd"  # where the chains of the model begin: at the data, or where they were; at one or many betas
    steps: int = 1  # of Gibbs per update, the k of CD-k
    last_steps: int = 0  # k at the end of training alone, towards which it rises; 0: as `steps`
    chains: int = 100  # pcd, tempering: fantasy particles (at each temperature)
    temperatures: int = 10  # tempering: inverse ones from 1 evenly to 0
    draw_visible: bool = True  # cd: reconstructions are drawn; False: their means (Hinton 2010, section 3.2)
    momentum: float = 0.0  # of the gradient
    l1: float = 0.0  # weight decay by the sum of |W|
    l2: float = 0.0  # weight decay by half the sum of W^2
    sparsity: float = 0.0  # strength with which the units' mean activity is drawn to `target`
    target: float = 0.1  # mean activity of a hidden unit
    deviation: float = 1.0  # gaussian: standard deviation in unit scale, or where it starts
    learn_deviation: bool = False  # gaussian: one deviation for each element, learned
    initial: float = 0.01  # standard deviation of the weights at the start (Hinton 2010, section 8)
    features: Features = "probabilities"  # means of the hidden units, draws, or total inputs
    gain: float | None = None  # times the trainer's rate; None: 20 between bits, else 5


class Rbm(FeedForward):
    """One layer of features that is also a density."""

    window = 1
    log_variance: Tensor | None  # [V], of Gaussian visible units; None: variance 1
    chains: Tensor  # [R, N, V]: of persistent methods
    activity: Tensor  # [H]
    progress: Tensor  # 0..1, how much of training alone is done; filled by the trainer

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        scale = UnitScale(spec)
        auto: Visible = "bernoulli" if scale.bounded else "gaussian"
        self.visible: Visible = auto if config.visible == "auto" else config.visible
        self.scale: nn.Module = scale if self.visible in ("bernoulli", "gaussian") else Counts()
        self.sigmoid = self.visible == "bernoulli"
        self.feature_shape = (config.hidden,)
        self.weight = nn.Parameter(torch.randn(config.hidden, spec.size) * config.initial)
        self.visible_bias = nn.Parameter(torch.zeros(spec.size))
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden))
        variance = torch.full((spec.size,), config.deviation).log() * 2
        if self.visible == "gaussian" and config.learn_deviation:
            self.log_variance = nn.Parameter(variance)
        else:
            is_one = self.visible != "gaussian" or config.deviation == 1
            self.register_buffer("log_variance", None if is_one else variance, persistent=False)
        if config.method != "cd":
            count = config.temperatures if config.method == "tempering" else 1
            self.register_buffer("chains", torch.rand(count, config.chains, spec.size).round())
        if config.momentum:
            for name, parameter in self.named_parameters():
                self.register_buffer(f"{name}_velocity", torch.zeros_like(parameter))
        if config.sparsity:
            self.register_buffer("activity", torch.full((config.hidden,), config.target))
        self.register_buffer("progress", torch.zeros(()))

    def machine(self) -> Machine:
        """The parameters as they are; what is computed from them has gradients."""
        hidden = self.config.hidden_units
        return Machine(self.weight, self.visible_bias, self.hidden_bias, self.visible, hidden, self.log_variance)

    def read_visible(self, x: Tensor, draws: bool = True) -> Tensor:
        """Observations to values of the visible units, float32 `[N, V]`; bits drawn anew where the config says so."""
        if draws and self.config.binarise == "dynamic":
            return binarise(x if x.dtype == torch.uint8 else self.scale(x)).flatten(1)
        v = self.scale(x).flatten(1)
        return (v >= 0.5).to(v.dtype) if self.config.binarise == "threshold" else v

    def encode(self, x: Tensor) -> Tensor:
        machine = self.machine()
        a = hidden_input(machine, self.read_visible(x, draws=False))
        units = UNITS[machine.hidden]
        if self.config.features == "samples":  # the gradient is the mean's
            return units.mean(a) + (units.sample(a.detach(), None) - units.mean(a)).detach()
        return a if self.config.features == "inputs" else units.mean(a)

    def decode(self, code: Tensor) -> Tensor:
        """Features `[N, H]` to means of observations in unit scale, float32 `[N, *shape]`; of words, to shares."""
        machine = self.machine()
        h = UNITS[machine.hidden].mean(code) if self.config.features == "inputs" else code
        return visible_mean(machine, h, h.new_ones(len(h))).float().unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The means after one mean-field step up and down: unit scale, float32 `[N, *shape]`."""
        machine, v = self.machine(), self.read_visible(x, draws=False)
        return visible_mean(machine, hidden_mean(machine, v), v.sum(1)).float().unflatten(1, self.shape)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None, steps: int | None = None) -> Tensor:
        """Means after Gibbs steps from persistent chains, or noise: float32 `[count, *shape]`, unit scale."""
        if self.config.method == "cd":
            return self.chain(self.noise(count, generator), [steps or SAMPLING_STEPS], generator)[0]
        drawn_on = self.weight.device if generator is None else generator.device
        rows = torch.randint(self.config.chains, (count,), generator=generator, device=drawn_on)
        start = self.chains[0, rows.to(self.weight.device)]
        return self.chain(start, [steps or SAMPLING_STEPS // 5], generator)[0]

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Where chains begin that know nothing, `[count, V]`: fair bits, and texts of one word."""
        drawn_on = self.weight.device if generator is None else generator.device
        bits = torch.rand(count, self.weight.shape[1], generator=generator, device=drawn_on).round()
        if self.visible == "softmax":
            bits = torch.zeros_like(bits)
            bits[:, 0] = WORDS
        return bits.to(self.weight.device)

    @torch.no_grad()
    def chain(self, v: Tensor, steps: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Means after each of these rising numbers of Gibbs steps, at least 1, from visible values `[N, V]`: float32
        `[len(steps), N, *shape]`, unit scale."""
        generator = generator if generator is None or generator.device == v.device else None
        return means_along(self.machine(), v, steps, generator).float().unflatten(2, self.shape)

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) in nats, `[N]`, with a gradient: log p(x) = -F(x) - log Z. Any loss may be made of it."""
        return free_energy(self.machine(), self.read_visible(x))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction`, a scalar: its value is the squared error after one step, its gradient that of
        F(v of the data) - F(v of the model), the latter cut off from gradients, with decay, sparsity and momentum.

        Chains, velocities and mean activities move in training mode only.
        """
        with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
            machine, v = self.machine(), self.read_visible(batch["x"])
            if self.config.method == "cd":
                h, fantasy, error = walk(machine, v, self._steps(), self.config.draw_visible)
            else:
                h = hidden_mean(machine, v)
                fantasy, error = self._persist(machine, v, h)
            gradient = contrast(machine, (v, h), (fantasy, hidden_mean(machine, fantasy)))
            gradient = self._regularised(gradient, v, h)
        parameters, gradients = self._pairs(gradient)
        return {"reconstruction": with_gradient(error, parameters, gradients)}

    def stages(self) -> Sequence[Stage]:
        return [Stage("rbm", list(self.parameters()), self.loss, monitor=self.monitor)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        x = observed(batch)
        return mean_losses(self.loss({"x": x}) if len(x) else {"reconstruction": 0 * self.hidden_bias})

    def parameter_groups(self) -> list[Group]:
        gain = self.config.gain
        if gain is None:
            gain = 20.0 if (self.visible, self.config.hidden_units) == ("bernoulli", "bernoulli") else 5.0
        return [Group("rbm", list(self.parameters()), learning_rate_factor=gain, optimizer="sgd")]

    @torch.no_grad()
    def after_update(self) -> None:
        if self.log_variance is not None:
            self.log_variance.clamp_(*LOG_VARIANCES)

    @torch.no_grad()
    def monitor(self, train: Tensor, validation: Tensor) -> dict[str, Tensor]:
        """`free_energy_gap`: mean F of validation examples less that of training ones. It rises when the
        machine begins to overfit (Hinton 2010, section 6)."""
        means = [self.free_energy(x).mean() for x in (train, validation)]
        return {"free_energy_gap": means[1] - means[0]}

    def _persist(self, machine: Machine, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """v of the chains, which go on in training mode; and the squared error of the data's reconstruction."""
        rows = slice(SHOWN if self.training else None)
        error = (visible_mean(machine, h[rows]) - v[rows]).square().sum(1).mean()
        if self.training:
            path, count = Path(machine, no_rates(machine)), len(self.chains)
            chains, betas = self.chains, torch.linspace(1, 0, max(count, 2), device=v.device)[:count]
            for _ in range(self._steps()):
                chains = gibbs(machine, chains[0], 1)[None] if count == 1 else tempered_step(path, chains, betas)
            self.chains.copy_(chains)
        return self.chains[0], error

    def _steps(self) -> int:
        first, last = self.config.steps, self.config.last_steps
        return first if last <= first else first + round(float(self.progress) * (last - first))

    def _regularised(self, gradient: Gradient, v: Tensor, h: Tensor) -> Gradient:
        config = self.config
        if config.l2:
            gradient.weight.add_(self.weight, alpha=config.l2)
        if config.l1:
            gradient.weight.add_(self.weight.sign(), alpha=config.l1)
        if config.sparsity:  # the slope of a cross-entropy by the total inputs is activity - target
            mean = h.mean(0)
            activity = torch.lerp(mean, self.activity, ACTIVITY_MEMORY)
            if self.training:
                self.activity.copy_(activity)
            slope = config.sparsity * (activity - config.target)
            gradient.weight.addr_(slope, scaled(self.machine(), v).mean(0))
            gradient.hidden_bias.add_(slope * v.sum(1).mean() if self.visible == "softmax" else slope)
        return gradient

    def _pairs(self, gradient: Gradient) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters and, in the same order, what they shall descend."""
        names = [name for name, _ in self.named_parameters()]
        found = [getattr(gradient, name) for name in names]
        if self.config.momentum and self.training:
            for number, name in enumerate(names):
                velocity = getattr(self, f"{name}_velocity").mul_(self.config.momentum).add_(found[number])
                found[number] = velocity.clone()
        return [getattr(self, name) for name in names], found


class Counts(nn.Module):
    """Counts as they are, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def build(config: Config, spec: ObservationSpec) -> Rbm:
    """Raises SpecError for tokens and for bits from unbounded numbers, UserError for settings that make no sense."""
    require_numbers(spec, "rbm")
    choices = {
        "visible": ("auto", *get_args(Visible)),
        "hidden_units": get_args(Hidden),
        "binarise": get_args(Binarise),
        "method": get_args(Method),
        "features": get_args(Features),
    }
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise UserError(f"rbm: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    for name in ("hidden", "steps", "chains", "temperatures", "deviation", "initial"):
        if not getattr(config, name) > 0:
            raise UserError(f"rbm: {name} must be positive, not {getattr(config, name)}")
    for name in ("l1", "l2", "sparsity", "last_steps"):
        if getattr(config, name) < 0:
            raise UserError(f"rbm: {name} must not be negative, but is {getattr(config, name)}")
    if not 0 <= config.momentum < 1 or not 0 < config.target < 1:
        raise UserError("rbm: momentum must lie in 0..1 and below 1, target between 0 and 1")
    if config.gain is not None and not config.gain > 0:
        raise UserError(f"rbm: gain must be positive, not {config.gain}")
    bounded = UnitScale(spec).bounded
    if config.visible == "bernoulli" and not bounded:
        raise SpecError(f"encoder 'rbm' reads bits from bounded observations, not {spec.describe()}; use gaussian")
    if config.binarise != "none" and not (bounded and config.visible in ("auto", "bernoulli")):
        raise SpecError("encoder 'rbm' makes bits only of bounded observations, for bernoulli units")
    if config.visible in ("poisson", "softmax") and spec.dtype != "uint8" and float(np.min(spec.low)) < 0:
        raise SpecError(f"encoder 'rbm' with {config.visible} units reads counts, 0 or more, not {spec.describe()}")
    if config.visible == "softmax" and config.method != "cd":
        raise UserError("rbm: chains of words have no lengths of their own; use --encoder.method cd with softmax")
    return Rbm(config, spec)
