"""Convolutional restricted Boltzmann machines with probabilistic max pooling, one or a greedy stack of them.

Lee, Grosse, Ranganath & Ng 2009 (ICML, "Convolutional deep belief networks"): weights are shared over the image, at
most one unit of each pooling block is on, and hidden biases are drawn to a sparse activity (sections 3.2 to 3.4, 4.1).

Contrastive divergence is a mean over the places of a map, where the paper sums, and what trains it chooses the rule,
Adam by default. Layers above the first read the means of pooling units. There is no hierarchical inference (section
3.6): means go up only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.images import require_image
from .parts.pooled import pooled_draw, pooled_log_partition, pooled_means
from .parts.units import UNITS

kind = "convolutional restricted Boltzmann machines, probabilistic max pooling; stacked"

Visible = Literal["bernoulli", "gaussian"]
Features = Literal["top", "all"]
SAMPLING_STEPS = 500  # of Gibbs from noise
SMOOTHING = 0.01  # of a mean whose log odds are taken


@dataclass(frozen=True)
class Config:
    maps: tuple[int, ...] = (40, 40)  # hidden maps of each layer, from the lowest
    kernels: tuple[int, ...] = (7, 5)  # pixels a side
    pool: int = 2  # units a side of a pooling block
    visible: Visible = "bernoulli"  # pixels; gaussian, of unit variance, for images like whitened ones
    deviation: float = 1.0  # gaussian: the standard deviation of pixels in 0..1
    steps: int = 1  # of Gibbs, the k of CD-k
    sparsity: float = 1.0  # strength with which the maps' mean activity is drawn to `target`, by their biases
    target: float = 0.02  # mean activity of a hidden unit
    l2: float = 0.0  # weight decay by half the sum of squared weights
    initial: float = 0.1  # standard deviation of the weights at the start
    features: Features = "top"  # means of the highest pooling maps, or flat, those of all layers


class Layer(nn.Module):
    """One convolutional machine. In its first training batch `base` is set to that batch's log odds, as visible biases
    should begin (Hinton 2010, UTML TR 2010-003, section 8): on black images nothing else is learned for long."""

    base: Tensor  # [C], added to the visible biases
    begun: Tensor  # bool []

    def __init__(self, config: Config, channels: int, number: int):
        super().__init__()
        self.pool, self.config = config.pool, config
        self.visible: Visible = "bernoulli" if number else config.visible
        kernel = config.kernels[number]
        self.weight = nn.Parameter(torch.randn(config.maps[number], channels, kernel, kernel) * config.initial)
        self.visible_bias = nn.Parameter(torch.zeros(channels))
        self.hidden_bias = nn.Parameter(torch.zeros(config.maps[number]))
        self.register_buffer("base", torch.zeros(channels))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def hidden_input(self, v: Tensor) -> Tensor:
        """Total input of the hidden units, `[N, C, H, W]` to `[N, K, H - kernel + 1, W - kernel + 1]`."""
        return F.conv2d(v, self.weight, self.hidden_bias)

    def visible_input(self, h: Tensor) -> Tensor:
        """Total input of the visible units (of Gaussian ones the mean), `[N, K, ...]` to `[N, C, H, W]`."""
        return F.conv_transpose2d(h, self.weight, self.visible_bias + self.base)

    def pooled(self, v: Tensor) -> Tensor:
        """Chances of the pooling units, `[N, C, H, W]` to `[N, K, rows, columns]`."""
        return pooled_means(self.hidden_input(v), self.pool)[1]

    def restored(self, v: Tensor) -> Tensor:
        """E[v | means of the hidden units given v], `[N, C, H, W]`."""
        return UNITS[self.visible].mean(self.visible_input(pooled_means(self.hidden_input(v), self.pool)[0]))

    def free_energy(self, v: Tensor) -> Tensor:
        """-log of the sum of exp(-E(v, h)) over the states of h that are allowed, `[N]`."""
        bias = (self.visible_bias + self.base).view(-1, 1, 1)
        own = 0.5 * (v - bias).square() if self.visible == "gaussian" else -v * bias
        return own.flatten(1).sum(1) - pooled_log_partition(self.hidden_input(v), self.pool)

    @torch.no_grad()
    def gibbs(self, v: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The next v's mean and a draw of it, `[N, C, H, W]`."""
        h = pooled_draw(self.hidden_input(v), self.pool, generator)
        return UNITS[self.visible].mean_and_sample(self.visible_input(h), generator)

    def loss(self, v: Tensor) -> Tensor:
        """A scalar whose value is the squared error after one step, mean over the rows, and whose gradient is that of
        F(v of the data) - F(v of the model) by the place, with decay and sparsity."""
        with torch.autocast(v.device.type, enabled=False):
            v = v.to(self.weight.dtype)
            if self.training:
                self._begin(v)
            error, fantasy = v.new_zeros(()), v
            for step in range(self.config.steps):
                mean, fantasy = self.gibbs(fantasy)
                if not step:
                    error = (mean - v).square().sum() / max(len(v), 1)
            kernel = self.weight.shape[-1]
            places = (v.shape[2] - kernel + 1) * (v.shape[3] - kernel + 1) * max(len(v), 1)
            descended = (self.free_energy(v) - self.free_energy(fantasy)).sum() / places
            if self.config.sparsity:
                with torch.no_grad():
                    activity = pooled_means(self.hidden_input(v), self.pool)[0].mean((0, 2, 3))
                    slope = self.config.sparsity * (activity - self.config.target)
                descended = descended + slope @ self.hidden_bias
            if self.config.l2:
                descended = descended + self.config.l2 / 2 * self.weight.square().sum()
            return descended + (error - descended).detach()

    @torch.no_grad()
    def _begin(self, v: Tensor) -> None:
        mean = v.mean((0, 2, 3)) if len(v) else self.base
        start = mean if self.visible == "gaussian" else torch.logit(mean, SMOOTHING)
        self.base.copy_(torch.where(self.begun, self.base, start))
        self.begun.fill_(True)


class ConvRbm(FeedForward):
    """Layers of shared filters, each a density of the maps below it."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape, self.scale = config, spec.shape, UnitScale(spec)
        self.sigmoid = config.visible == "bernoulli"
        self.layer_list = nn.ModuleList()
        shapes = shapes_of(config, spec.shape)
        for number, below in enumerate((spec.shape, *shapes[:-1])):
            self.layer_list.append(Layer(config, below[0], number))
        flat = sum(maps * rows * columns for maps, rows, columns in shapes)
        self.feature_shape = shapes[-1] if config.features == "top" else (flat,)

    @property
    def layers(self) -> list[Layer]:
        """From the lowest to the highest."""
        return [cast(Layer, layer) for layer in self.layer_list]

    def read_visible(self, x: Tensor) -> Tensor:
        """Images as stored to values of the visible units, float32 `[N, C, H, W]`."""
        v = self.scale(x)
        return v / self.config.deviation if self.config.visible == "gaussian" else v

    def maps(self, x: Tensor, layers: int) -> Tensor:
        """Chances of the pooling units of the highest of so many layers, `[N, K, rows, columns]`; of none, what the
        lowest reads."""
        v = self.read_visible(x)
        for layer in self.layers[:layers]:
            v = layer.pooled(v)
        return v

    def encode(self, x: Tensor) -> Tensor:
        if self.config.features == "top":
            return self.maps(x, len(self.layers))
        v, found = self.read_visible(x), []
        for layer in self.layers:
            v = layer.pooled(v)
            found.append(v.flatten(1))
        return torch.cat(found, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Means after the lowest layer's hidden means: unit scale, float32 `[N, *shape]`."""
        mean = self.layers[0].restored(self.read_visible(x)).float()
        return mean * self.config.deviation if self.config.visible == "gaussian" else mean

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None, steps: int = SAMPLING_STEPS) -> Tensor:
        """Means of the lowest layer's visible units after Gibbs steps from noise: float32 `[count, *shape]`, unit
        scale. Layers above it are no part of that density."""
        return self.chain(self.noise(count, generator), [steps], generator)[0]

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Where chains begin that know nothing, `[count, C, H, W]`: fair bits, or draws of deviation 1."""
        drawn_on = self.layers[0].weight.device if generator is None else generator.device
        draw = torch.rand if self.config.visible == "bernoulli" else torch.randn
        values = draw(count, *self.shape, generator=generator, device=drawn_on).to(self.layers[0].weight.device)
        return values.round() if self.config.visible == "bernoulli" else values

    @torch.no_grad()
    def chain(self, v: Tensor, steps: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Means of the lowest layer after each of these rising numbers of Gibbs steps, at least 1, from visible values
        `[N, C, H, W]`: float32 `[len(steps), N, *shape]`, unit scale."""
        generator = generator if generator is None or generator.device == v.device else None
        done, means = 0, []
        for step in steps:
            for _ in range(step - done):
                mean, v = self.layers[0].gibbs(v, generator)
            done = step
            means.append(mean.float())
        scale = self.config.deviation if self.config.visible == "gaussian" else 1.0
        return scale * torch.stack(means)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """All layers at once, each on the pooling maps of the one below, whose gradients stay within their layer:
        `layer_1`, ... as `Layer.loss`."""
        v, losses = self.read_visible(batch["x"]), dict[str, Tensor]()
        for number, layer in enumerate(self.layers):
            losses[f"layer_{number + 1}"] = layer.loss(v)
            with torch.no_grad():
                v = layer.pooled(v)
        return losses

    def layer_loss(self, batch: dict[str, Tensor], number: int) -> dict[str, Tensor]:
        """`reconstruction` of a layer, 0 the lowest; "x" is what it reads, of the lowest the observations."""
        v = batch["x"] if number else self.read_visible(batch["x"])
        return {"reconstruction": self.layers[number].loss(v)}

    def stages(self) -> Sequence[Stage]:
        return [
            Stage(
                f"layer {number + 1}",
                list(layer.parameters()),
                partial(self.layer_loss, number=number),
                input=partial(self.maps, layers=number) if number else None,
            )
            for number, layer in enumerate(self.layers)
        ]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return mean_losses(self.loss({"x": observed(batch)}))


def shapes_of(config: Config, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """`(maps, rows, columns)` of the pooling units of each layer; 0 or less where the image is too small."""
    shapes, (rows, columns) = [], shape[1:]
    for maps, kernel in zip(config.maps, config.kernels, strict=True):
        rows, columns = (-(-(size - kernel + 1) // config.pool) for size in (rows, columns))
        shapes.append((maps, rows, columns))
    return shapes


def smallest_side(config: Config) -> int:
    """Pixels that an image must have so that every layer has units."""
    side = 1
    for kernel in reversed(config.kernels):
        side = (side - 1) * config.pool + kernel
    return side


def build(config: Config, spec: ObservationSpec) -> ConvRbm:
    """Raises SpecError for what are no images, or too small ones, UserError for settings that make no sense."""
    require_numbers(spec, "convrbm")
    for name, known in (("visible", get_args(Visible)), ("features", get_args(Features))):
        if getattr(config, name) not in known:
            raise UserError(f"convrbm: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    if not config.maps or len(config.maps) != len(config.kernels) or min(*config.maps, *config.kernels) < 1:
        raise UserError(
            f"convrbm: maps and kernels must be positive, one of each for every layer, not {config.maps} and "
            f"{config.kernels}"
        )
    for name in ("pool", "deviation", "steps", "initial", "target"):
        if not getattr(config, name) > 0:
            raise UserError(f"convrbm: {name} must be positive, not {getattr(config, name)}")
    for name in ("sparsity", "l2"):
        if getattr(config, name) < 0:
            raise UserError(f"convrbm: {name} must not be negative, but is {getattr(config, name)}")
    require_image(spec, "convrbm", smallest_side(config))
    return ConvRbm(config, spec)
