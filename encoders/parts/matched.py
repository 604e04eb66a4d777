"""What autoencoders share whose codes, taken together, are made to follow a prior (adversarial, Wasserstein)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...envs.errors import SpecError, UserError
from ...envs.spec import ObservationSpec
from ..base import FeedForward, Group, Stage, Trajectory
from .coders import (
    Activation,
    Architecture,
    Coder,
    UnitScale,
    check_coder,
    make_decoder_net,
    make_encoder_net,
    observed_losses,
)
from .divergences import Adversary
from .initialise import Initialisation
from .priors import Prior, check_prior, draw
from .stacks import Error, check_error, reconstruction_error


@dataclass(frozen=True)
class Matching:
    """The nets, what is restored and what the codes follow; the settings of such learners begin so."""

    architecture: Architecture = "dense"
    hidden: tuple[int, ...] = (500, 500)  # units of the dense layers, from the observation (or the last map) on
    channels: tuple[int, ...] = (32, 64)  # conv: of the convolutions, each of which halves the image
    latents: int = 8  # numbers in the code
    activation: Activation = "relu"
    batch_norm: bool = False  # before every hidden activation
    initialisation: Initialisation = "he"  # of the weights; biases start at 0
    error: Error = "squared"  # per example: squared error, its root, or Bernoulli cross-entropy
    prior: Prior = "gaussian"  # of the code; mixture (ten Gaussians on a circle) and swiss_roll have 2 latents
    weight: float = 1.0  # of the divergence from the prior; an adversary drives codes away where it is 10 (digits)
    adversary_hidden: tuple[int, ...] = (500, 500)  # units of the adversary's layers
    adversary_rate: float = 0.5  # its learning rate, times the trainer's


class Matched(FeedForward):
    """A deterministic autoencoder; subclasses say how far codes are from the prior. The features are the codes."""

    window = 1

    def __init__(self, config: Matching, spec: ObservationSpec, labels: int = 0, adversary: bool = True):
        """`labels`: kinds of labels the adversary is told, 0 = none; `adversary`: whether there is one."""
        super().__init__()
        self.matching, self.shape, self.labels = config, spec.shape, labels
        self.scale = UnitScale(spec)
        coder = _coder(config)
        self.encoder = make_encoder_net(spec, coder, config.latents)
        self.decoder = make_decoder_net(spec, coder, config.latents)
        self.feature_shape = (config.latents,)
        self.adversary: Adversary | None = None
        if adversary:
            self.adversary = Adversary(config.latents + (labels + 1 if labels else 0), config.adversary_hidden)
        self.here: Tensor
        self.register_buffer("here", torch.zeros(()), persistent=False)  # tells the device

    @abstractmethod
    def divergences(self, code: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Losses by name, `[N]` or scalars, of codes float32 `[N, latents]` with labels int64 `[N]`, -1 = none."""

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(self.scale.lazily(x))

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, latents]` to observations in unit scale, float32 `[N, *shape]`."""
        logits = self.decoder(code).float()
        return logits.sigmoid() if self.scale.bounded else logits

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """What codes drawn from the prior decode to: unit scale, float32 `[count, *shape]`."""
        label = torch.full((count,), -1, device=self.here.device)
        return self.decode(draw(self.matching.prior, label, self.matching.latents, generator))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` `[N]`, and the losses that hold codes to the prior."""
        x, label = batch["x"], batch.get("label")
        code = self.encode(x).float()
        restored = reconstruction_error(
            self.decoder(code), self.scale(x), self.matching.error, sigmoid=self.scale.bounded
        )
        if label is None:
            label = torch.full((len(x),), -1, device=code.device)
        return {"reconstruction": restored, **self.divergences(code, label)}

    def deceive(self, code: Tensor, label: Tensor) -> dict[str, Tensor]:
        """The losses of the adversary and of the encoder against it, `[N]` each."""
        assert self.adversary is not None
        draws = draw(self.matching.prior, label, self.matching.latents)
        losses = self.adversary.losses(code, draws, self.condition(label))
        return {"adversary": losses["adversary"], "deceit": self.matching.weight * losses["deceit"]}

    def condition(self, label: Tensor) -> Tensor:
        """What the adversary is told of labels int64 `[N]`: one-hot, the last place for none; `[N, 0]` without."""
        if not self.labels:
            return label.new_zeros(len(label), 0, dtype=torch.float32)
        known = torch.where((label >= 0) & (label < self.labels), label, self.labels)
        return nn.functional.one_hot(known, self.labels + 1).float()

    def stages(self) -> Sequence[Stage]:
        return [Stage("autoencoder", list(self.parameters()), self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def parameter_groups(self) -> list[Group]:
        own = [*self.encoder.parameters(), *self.decoder.parameters()]
        if self.adversary is None:
            return [Group("autoencoder", own)]
        rival = Group("adversary", list(self.adversary.parameters()), self.matching.adversary_rate)
        return [Group("autoencoder", own), rival]


def _coder(config: Matching) -> Coder:
    return Coder(
        config.architecture,
        config.hidden,
        config.channels,
        config.activation,
        config.batch_norm,
        config.initialisation,
    )


def check_matching(config: Matching, spec: ObservationSpec, encoder: str) -> None:
    """Raise SpecError for what the nets or the error cannot read, UserError for settings that make no sense."""
    check_coder(spec, _coder(config), encoder)
    check_prior(config.prior, config.latents, encoder)
    check_error(config.error, encoder)
    if config.error == "bernoulli" and not UnitScale(spec).bounded:
        raise SpecError(f"encoder {encoder!r} needs bounded observations for the Bernoulli loss, not {spec.describe()}")
    if config.weight < 0 or config.adversary_rate <= 0:
        raise UserError(f"{encoder}: weight must not be negative, adversary_rate must be positive")
    if any(units < 1 for units in config.adversary_hidden):
        raise UserError(f"{encoder}: adversary_hidden must be positive sizes, not {config.adversary_hidden}")
