"""What learners that encode and decode share: the unit scale, dense and convolutional nets that mirror each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...envs.errors import SpecError, UserError
from ...envs.spec import ObservationSpec
from ..base import Learner, Trajectory
from .images import ScaledConv2d, require_image
from .initialise import Initialisation, initialise

Architecture = Literal["dense", "conv"]
Activation = Literal["relu", "elu", "selu", "silu", "tanh", "sigmoid"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# They keep the scale of the activations; ELU is taken as ReLU, SiLU's is of a normal, a sigmoid's slope at 0 is 1/4.
GAINS = {"relu": 2**0.5, "elu": 2**0.5, "selu": 1.0, "silu": 1.68, "tanh": 5 / 3, "sigmoid": 4.0}
SMALLEST_IMAGE = 16  # pixels a side


@dataclass(frozen=True)
class Coder:
    """The form of an encoder net and of the decoder that mirrors it."""

    architecture: Architecture = "dense"
    hidden: tuple[int, ...] = ()  # units of the dense layers, from the observation (or the last map) to the code
    channels: tuple[int, ...] = (32, 64)  # conv: of the convolutions, each of which halves the image
    activation: Activation = "relu"  # after every layer but the last
    batch_norm: bool = False  # before every activation (Ioffe & Szegedy 2015, arXiv:1502.03167)
    initialisation: Initialisation = "he"  # of the weights; biases start at 0


class UnitScale(nn.Module):
    """Observations as float32 in 0..1 where they are bounded, unchanged where they are not."""

    offset: Tensor
    factor: Tensor

    def __init__(self, spec: ObservationSpec):
        super().__init__()
        offset: np.ndarray
        factor: np.ndarray
        if spec.dtype == "uint8":
            offset, factor, self.bounded = np.zeros(1), np.full(1, 1 / 255), True
        else:
            low, high = (np.broadcast_to(np.asarray(b, np.float64), spec.size) for b in (spec.low, spec.high))
            # Gymnasium writes "unbounded" as the largest float32 too, whose scale would erase the rest.
            finite = (np.abs(low) < 1e18) & (np.abs(high) < 1e18) & (high > low)
            offset, factor = np.where(finite, low, 0.0), 1 / np.where(finite, high - low, 1.0)
            self.bounded = bool(finite.all())  # every element: what is scaled lies in 0..1
            offset, factor = (a.reshape(spec.shape) if a.any() else np.zeros(1) for a in (offset, factor))
        # Constants of the world, not of the learning: they come from the spec again, so checkpoints do not hold them.
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32), persistent=False)
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, *shape]` as stored to float32 `[N, *shape]`."""
        x = x.to(self.factor.dtype)
        return x * self.factor if x.dim() == 4 and self.offset.numel() == 1 else (x - self.offset) * self.factor

    def lazily(self, x: Tensor) -> Tensor:
        """As `forward`, but bytes stay as they are: the encoder nets of this module scale them on their own."""
        return x if x.dtype == torch.uint8 else self(x)


class UnitConv2d(ScaledConv2d):
    """A first convolution that reads `uint8` images as they are stored, or floats already in 0..1."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.dtype == torch.uint8 else nn.Conv2d.forward(self, x)


class Flat(nn.Module):
    """`[N, ...]` to `[N, D]`; bytes become floats in 0..1, floats stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).float() / 255 if x.dtype == torch.uint8 else x.flatten(1)


class UpConv2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2, cropped to `size`: what undoes a halving of that size."""

    def __init__(self, channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__(channels, out_channels, 4, 2, 1)
        self.size = size

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x)[..., : self.size[0], : self.size[1]]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of vectors or maps; a single vector, which has no variance, is read as in eval mode."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any number of dimensions

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class DenseCoder(nn.Sequential):
    """Dense layers of the given sizes; each but the last with an optional batch normalisation and an activation."""

    def __init__(self, sizes: Sequence[int], activation: Activation = "relu", batch_norm: bool = False):
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(inputs, outputs), *between(outputs, activation, batch_norm)]
        super().__init__(*layers, nn.Linear(sizes[-2], sizes[-1]))


def between(units: int, activation: Activation, batch_norm: bool) -> list[nn.Module]:
    """What stands between two layers: an optional batch normalisation and the activation."""
    return [*[BatchNorm(units)] * batch_norm, ACTIVATIONS[activation]()]


def map_shapes(spec: ObservationSpec, channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """`(C, H, W)` of the image and of every map after it; each convolution halves, rounding up."""
    shapes = [(spec.shape[0], spec.shape[1], spec.shape[2])]
    for count in channels:
        shapes.append((count, (shapes[-1][1] + 1) // 2, (shapes[-1][2] + 1) // 2))
    return shapes


def make_encoder_net(spec: ObservationSpec, coder: Coder, outputs: int) -> nn.Sequential:
    """A net from observations `[N, *shape]`, in unit scale or as bytes, to `[N, outputs]`.

    3x3 convolutions of stride 2 (conv), then dense layers, the last without activation. With `outputs` 0 and no hidden
    layers a convolutional net ends with its last map `[N, C, H, W]`, after its activation.
    """
    layers: list[nn.Module] = [Flat()]
    size = spec.size
    if coder.architecture == "conv":
        shapes = map_shapes(spec, coder.channels)
        layers = []
        for number, (before, after) in enumerate(itertools.pairwise(shapes)):
            layers.append((UnitConv2d if number == 0 else nn.Conv2d)(before[0], after[0], 3, 2, 1))
            layers += between(after[0], coder.activation, coder.batch_norm)
        layers += [nn.Flatten()] * bool(outputs or coder.hidden)
        size = int(np.prod(shapes[-1]))
    if outputs or coder.hidden:
        sizes = [size, *coder.hidden, *[outputs] * bool(outputs)]
        layers += DenseCoder(sizes, coder.activation, coder.batch_norm)
    return _initialised(nn.Sequential(*layers), coder)


def make_decoder_net(spec: ObservationSpec, coder: Coder, inputs: int) -> nn.Sequential:
    """The mirror of `make_encoder_net`: codes `[N, inputs]` (0: the map) to `[N, *shape]`, no activation at last."""
    if coder.architecture == "dense":
        dense = DenseCoder([inputs, *reversed(coder.hidden), spec.size], coder.activation, coder.batch_norm)
        return _initialised(nn.Sequential(*dense, nn.Unflatten(1, spec.shape)), coder)
    shapes = map_shapes(spec, coder.channels)
    layers: list[nn.Module] = []
    if inputs or coder.hidden:
        sizes = [*[inputs] * bool(inputs), *reversed(coder.hidden), int(np.prod(shapes[-1]))]
        layers += [*DenseCoder(sizes, coder.activation, coder.batch_norm), nn.Unflatten(1, shapes[-1])]
        layers += between(shapes[-1][0], coder.activation, coder.batch_norm)
    for before, after in itertools.pairwise(reversed(shapes)):
        layers.append(UpConv2d(before[0], after[0], (after[1], after[2])))
        layers += between(after[0], coder.activation, coder.batch_norm)
    while not isinstance(layers[-1], UpConv2d):
        layers.pop()  # the image itself is neither normalised nor activated here
    return _initialised(nn.Sequential(*layers), coder)


def _initialised(net: nn.Sequential, coder: Coder) -> nn.Sequential:
    gain = GAINS[coder.activation]
    initialise(net, coder.initialisation, gain)
    for layer in net:
        if isinstance(layer, UpConv2d):  # a quarter of the kernel meets each pixel
            nn.init.normal_(layer.weight, std=gain / (layer.in_channels * 4) ** 0.5)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
    last = next(layer for layer in reversed(net) if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d))
    if not isinstance(net[-1], tuple(ACTIVATIONS.values())):
        with torch.no_grad():
            last.weight /= gain  # nothing follows whose scale must be kept
    return net


def require_numbers(spec: ObservationSpec, encoder: str) -> None:
    """Raise SpecError unless observations are floating-point numbers, bytes or bools, at least one, and no tokens."""
    if spec.vocabulary:
        raise SpecError(
            f"encoder {encoder!r} reads numbers, not tokens (vocabulary {spec.vocabulary}); embed them first"
        )
    if not (np.issubdtype(spec.dtype, np.floating) or spec.dtype in ("uint8", "bool")):
        raise SpecError(f"encoder {encoder!r} reads floating-point numbers, uint8 or bool, not {spec.describe()}")
    if spec.size < 1:
        raise SpecError(f"encoder {encoder!r} needs at least one number, not {spec.describe()}")


def check_coder(spec: ObservationSpec, coder: Coder, encoder: str) -> None:
    """Raise SpecError where the nets cannot read the observations, UserError for sizes and names that make no sense."""
    require_numbers(spec, encoder)
    if coder.architecture not in get_args(Architecture):
        raise UserError(f"{encoder}: unknown architecture {coder.architecture!r}; known: dense, conv")
    if coder.activation not in ACTIVATIONS:
        raise UserError(f"{encoder}: unknown activation {coder.activation!r}; known: {', '.join(ACTIVATIONS)}")
    if any(units < 1 for units in coder.hidden):
        raise UserError(f"{encoder}: hidden must be positive sizes, not {coder.hidden}")
    if coder.architecture == "conv":
        require_image(spec, encoder, SMALLEST_IMAGE)
        if not coder.channels or min(coder.channels) < 1:
            raise UserError(f"{encoder}: channels must be one or more positive numbers, not {coder.channels}")


def observed(batch: Trajectory) -> Tensor:
    """Those of `batch.obs[:-1]` that are no padding, `[N, ...]`."""
    return batch.obs[:-1][batch.mask]


def mean_losses(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses `[N]` or scalars to scalars: the mean over the examples."""
    return {name: loss.sum() / max(loss.numel(), 1) for name, loss in losses.items()}


def observed_losses(learner: Learner, batch: Trajectory) -> dict[str, Tensor]:
    """The mean of a learner's own losses over the real observations: `auxiliary_losses` of `window` 1."""
    return mean_losses(learner.loss({"x": observed(batch)}))
