"""What learners by contrast share: a perception net for any observations, random views of them, a momentum copy."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ...envs.errors import UserError
from ...envs.spec import ObservationSpec
from .augment import add_noise, random_resized_crop, random_shift, swap_elements
from .coders import SMALLEST_IMAGE, Architecture, Coder, UnitScale, check_coder, make_encoder_net

Form = Literal["auto", "dense", "conv"]
Module = TypeVar("Module", bound=nn.Module)
View = Literal["auto", "shift", "crop", "noise", "swap", "none"]

# What a strength means, and the usual one. shift: pixels (Kostrikov et al. 2020); crop: the least share of a side;
# noise: standard deviations of each element; swap: share of the elements (Bahri et al. 2022).
USUAL_STRENGTH: dict[str, float] = {"shift": 4.0, "crop": 0.5, "noise": 0.3, "swap": 0.6, "none": 0.0}


@dataclass(frozen=True)
class Perception:
    """The net that sees, and how it is shown each observation while it learns; such learners' settings begin so."""

    architecture: Form = "auto"  # auto: conv for images of at least 16x16 pixels, dense for everything else
    channels: tuple[int, ...] = (32, 64, 64)  # conv: of the convolutions, each of which halves the image
    hidden: tuple[int, ...] = (256,)  # units of the dense layers before the features
    features: int = 128  # width of the features
    batch_norm: bool = False  # before every activation
    view: View = "auto"  # auto: shift for images, noise for the rest
    strength: float | None = None  # shift: pixels; crop: least share of a side; noise: deviations; swap: share


class Seeing(nn.Module):
    """Observations `[N, ...]` to rectified features `[N, D]`, and random views of observations."""

    def __init__(self, config: Perception, spec: ObservationSpec, name: str):
        """Raises SpecError and UserError as `check_coder`, and UserError for views that make no sense."""
        super().__init__()
        convolves = spec.is_image and min(spec.shape[1:]) >= SMALLEST_IMAGE
        form: Architecture = (
            ("conv" if convolves else "dense") if config.architecture == "auto" else config.architecture
        )
        coder = Coder(form, config.hidden, config.channels, batch_norm=config.batch_norm)
        check_coder(spec, coder, name)
        if config.features < 1:
            raise UserError(f"{name}: features must be positive, not {config.features}")
        self.how, self.strength = _check_view(config, spec, name)
        self.scale = UnitScale(spec)
        self.net = nn.Sequential(make_encoder_net(spec, coder, config.features), nn.ReLU())
        self.width = config.features

    def forward(self, x: Tensor) -> Tensor:
        """Features of observations as they are stored, or of what `view` returned."""
        return self.net(x if x.dtype == torch.uint8 else self.scale(x))

    def view(self, x: Tensor) -> Tensor:
        """A random view of each observation `[N, ...]`: of its shape, bytes for bytes or float32."""
        if self.how == "shift":
            return random_shift(x.unsqueeze(0), int(self.strength)).squeeze(0)
        if self.how == "crop":
            return random_resized_crop(x, self.strength)
        if self.how == "swap":
            return swap_elements(x, self.strength)
        if self.how == "none":
            return x
        noisy = add_noise(x.float(), self.strength)
        return noisy.round().clamp(0, 255).to(x.dtype) if x.dtype == torch.uint8 else noisy


def _check_view(config: Perception, spec: ObservationSpec, name: str) -> tuple[str, float]:
    """The view and its strength; raises UserError."""
    if config.view not in get_args(View):
        raise UserError(f"{name}: unknown view {config.view!r}; known: {', '.join(get_args(View))}")
    how = ("shift" if spec.is_image else "noise") if config.view == "auto" else config.view
    if how in ("shift", "crop") and not spec.is_image:
        raise UserError(f"{name}: view {how!r} is for images, not {spec.describe()}; try noise or swap")
    strength = USUAL_STRENGTH[how] if config.strength is None else config.strength
    if strength < 0 or (how in ("crop", "swap") and strength > 1) or (how == "crop" and strength == 0):
        raise UserError(f"{name}: strength {strength} makes no sense for view {how!r}")
    return how, strength


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A small perceptron behind the features: one rectified layer, or none where `hidden` is 0."""
    if not hidden:
        return nn.Sequential(nn.Linear(inputs, outputs))
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def momentum_copy(module: Module) -> Module:
    """A copy that `follow` moves and no gradient does."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """`slow` becomes `momentum` slow + (1 - `momentum`) fast; batch statistics and counts are copied."""
    pairs = list(zip(slow.parameters(), fast.parameters(), strict=True))
    torch._foreach_lerp_([old for old, _ in pairs], [new for _, new in pairs], 1 - momentum)
    for old, new in zip(slow.buffers(), fast.buffers(), strict=True):
        old.copy_(new)
