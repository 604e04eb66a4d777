"""Semantic hashing: a deep autoencoder whose code is a few bits, so that alike things differ in few of them.

Salakhutdinov & Hinton (2009, International Journal of Approximate Reasoning 50, 969): noise on what the code units
receive drives them to 0 or 1; codes are then cut at 1/2 and searched by Hamming distance. With labels, neighbourhood
components on the same net: in codes, an example's neighbours by softmax(-|c_i - c_j|^2) shall be of its class
(Goldberger et al. 2005, NIPS; Salakhutdinov & Hinton 2007, AISTATS).

Deviations: no RBMs before it, so that noise begins at 0; it is drawn anew each time, not once per example. Squared
distances of neighbours are divided by `reach`, since hundreds of noisy bits are never near each other.
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
from .parts.coders import (
    Activation,
    Coder,
    UnitScale,
    check_coder,
    make_decoder_net,
    make_encoder_net,
    observed_losses,
)
from .parts.hamming import Packed, pack
from .parts.stacks import reconstruction_error

kind = "semantic hashing: a deep autoencoder with binary codes, and neighbourhood components where there are labels"

Output = Literal["auto", "words"]
Features = Literal["bits", "means"]


@dataclass(frozen=True)
class Config:
    bits: int = 128  # in the code
    hidden: tuple[int, ...] = (500, 500)  # units between observation and code
    activation: Activation = "relu"  # of the hidden layers
    batch_norm: bool = True  # before every hidden activation: learning how frequent words are kills no units
    noise: float = 4.0  # standard deviation of noise on code units' inputs; rises over half of training alone
    output: Output = "auto"  # words: counts, told by one softmax; auto: Bernoulli if bounded, else squared error
    neighbours: float = 0.0  # weight of the neighbourhood components; needs labels
    reach: float = 8.0  # squared distance of codes that counts as 1 there
    reconstruction: float = 1.0  # weight of the reconstruction
    dropout: float = 0.0  # share of the observation's numbers hidden from the encoder in training
    features: Features = "bits"  # 0 and 1, whose gradient is that of the means; or means of the code units


class Hashing(FeedForward):
    """The features are codes of 0 and 1, unless the config says otherwise."""

    window = 1
    progress: Tensor  # 0..1, how much of training alone is done; filled by the trainer

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.feature_shape, self.needs_labels = (config.bits,), bool(config.neighbours)
        self.scale = UnitScale(spec)
        self.sigmoid = config.output == "auto" and self.scale.bounded
        coder = _coder(config)
        self.up, self.down = make_encoder_net(spec, coder, config.bits), make_decoder_net(spec, coder, config.bits)
        self.register_buffer("progress", torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        means = self.up(self.scale(x)).sigmoid()
        if self.config.features == "means":
            return means
        return means + ((means > 0.5).to(means.dtype) - means).detach()  # the gradient is the means'

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, bits]` to observations in unit scale, float32 `[N, *shape]`; of words, to shares."""
        logits = self.down(code).float()
        if self.config.output == "words":
            return logits.flatten(1).softmax(1).unflatten(1, self.shape)
        return logits.sigmoid() if self.sigmoid else logits

    def reconstruct(self, x: Tensor) -> Tensor:
        """From bits; of words, as many as there were."""
        x = self.scale(x)
        restored = self.decode((self.up(x) > 0).to(x.dtype))
        if self.config.output == "words":
            restored = restored * x.flatten(1).sum(1).view(-1, *[1] * len(self.shape))
        return restored

    @torch.no_grad()
    def codes(self, x: Tensor) -> Packed:
        """The packed codes of observations `[N, ...]`, for `parts.hamming.search`: uint64 `[N, bits / 64]`."""
        return pack(self.up(self.scale(x)) > 0)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` `[N]` in nats (squared error where observations are not bounded), and `neighbours`, a
        scalar: minus the mean chance that a labelled example's neighbour in the batch is of its class."""
        config, x = self.config, self.scale(batch["x"])
        received = self.up(nn.functional.dropout(x, config.dropout, self.training))
        if self.training:
            noise = config.noise * (2 * self.progress).clamp(max=1)
            received = received + noise * torch.randn_like(received)
        code, losses = received.sigmoid(), {}
        if config.reconstruction:
            losses["reconstruction"] = config.reconstruction * self._error(self.down(code), x)
        label = batch.get("label")
        if config.neighbours and label is not None:
            losses["neighbours"] = config.neighbours * neighbourhood(code.float(), label, config.reach)
        return losses or {"neighbours": 0 * code.float().mean()}

    def stages(self) -> Sequence[Stage]:
        return [Stage("hashing", list(self.parameters()), self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def parameter_groups(self) -> list[Group]:
        return [Group("hashing", list(self.parameters()))]

    def _error(self, logits: Tensor, x: Tensor) -> Tensor:
        if self.config.output == "words":
            return -(x * logits.float().flatten(1).log_softmax(1).view_as(x)).flatten(1).sum(1)
        return reconstruction_error(logits, x, "bernoulli" if self.sigmoid else "squared", self.sigmoid)


def neighbourhood(code: Tensor, label: Tensor, reach: float) -> Tensor:
    """Minus the mean over examples of the chance that their neighbour is of their class (Goldberger et al. 2005,
    equation 3), a scalar: codes `[N, D]`, labels int64 `[N]`, of which -1 are left out. 0 where none have company."""
    code, label = code[label >= 0], label[label >= 0]
    if len(code) < 2:
        return 0 * code.sum()
    squares = code.square().sum(1)
    apart = squares.unsqueeze(1) + squares - 2 * code @ code.T
    alone = torch.eye(len(code), dtype=torch.bool, device=code.device)
    chance = (apart / -reach).masked_fill(alone, -torch.inf).softmax(1)
    return -(chance * (label.unsqueeze(1) == label)).sum(1).mean()


def _coder(config: Config) -> Coder:
    return Coder("dense", config.hidden, activation=config.activation, batch_norm=config.batch_norm)


def build(config: Config, spec: ObservationSpec) -> Hashing:
    """Raises SpecError for tokens and for words that may be negative, UserError for settings that make no sense."""
    check_coder(spec, _coder(config), "hashing")
    for name, known in (("output", get_args(Output)), ("features", get_args(Features))):
        if getattr(config, name) not in known:
            raise UserError(f"hashing: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    if config.output == "words" and spec.dtype != "uint8" and float(torch.as_tensor(spec.low).min()) < 0:
        raise SpecError(f"encoder 'hashing' reads words as counts, 0 or more, not {spec.describe()}")
    if config.bits < 1 or not config.reach > 0:
        raise UserError("hashing: bits and reach must be positive")
    if min(config.noise, config.neighbours, config.reconstruction) < 0 or not 0 <= config.dropout < 1:
        raise UserError("hashing: noise and weights must not be negative, dropout must lie in 0..1 and below 1")
    if not (config.neighbours or config.reconstruction):
        raise UserError("hashing: nothing to learn; set reconstruction or neighbours above 0")
    return Hashing(config, spec)
