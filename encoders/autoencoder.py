"""Autoencoders: dense or convolutional, tied, denoising, trained whole or level by level.

Hinton & Salakhutdinov 2006 (Science 313) for deep ones, Vincent et al. 2010 (JMLR 11) for stacked denoising ones. Where
they pre-train by contrastive divergence or plain descent, any optimiser serves here; batch normalisation is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import (
    Activation,
    Architecture,
    Coder,
    UnitScale,
    check_coder,
    make_decoder_net,
    make_encoder_net,
    map_shapes,
    observed_losses,
)
from .parts.corruptions import Corruption, check_corruption, corrupt
from .parts.initialise import Initialisation
from .parts.stacks import (
    Error,
    Level,
    Stack,
    UnitActivation,
    activation_named,
    activations_between,
    check_error,
    greedy_stages,
    reconstruction_error,
    weight_decay,
)

kind = "autoencoder: deep, dense or convolutional, tied, denoising, greedy"

Output = Literal["auto", "sigmoid", "linear"]


@dataclass(frozen=True)
class Config:
    architecture: Architecture = "dense"
    hidden: tuple[int, ...] | None = None  # units between observation and code; None: 1000 500 250, with conv none
    channels: tuple[int, ...] = (32, 64)  # conv: of the convolutions, each of which halves the image
    code: int = 30  # numbers in the code; 0 with conv: the last map
    activation: Activation = "relu"  # of the hidden layers
    code_activation: UnitActivation = "linear"
    output: Output = "auto"  # of the decoder; auto: sigmoid where all elements are bounded
    loss: Error = "squared"  # of an example; bernoulli sees small things on black, where the slope of squared vanishes
    corruption: Corruption = "none"  # of the input; what is reconstructed is the input before it
    strength: float = 0.25  # share of damaged elements, or the standard deviation of Gaussian noise
    tied: bool = False  # dense: the decoder uses the encoder's weights, transposed
    greedy: bool = False  # dense: train level by level before the whole
    fine_tune: float = 1.0  # greedy: epochs of the whole for each epoch of a level; 0: the levels only
    batch_norm: bool = False  # before every hidden activation
    weight_decay: float = 0.0  # times half the sum of squared weights
    initialisation: Initialisation = "he"  # of the weights; biases start at 0


class ConvolutionalPair(nn.Module):
    """A convolutional encoder and its mirror."""

    def __init__(self, spec: ObservationSpec, coder: Coder, code: int):
        super().__init__()
        self.up, self.down = make_encoder_net(spec, coder, code), make_decoder_net(spec, coder, code)

    def encode(self, x: Tensor) -> Tensor:
        return self.up(x)

    def decode(self, code: Tensor) -> Tensor:
        return self.down(code)


class Autoencoder(FeedForward):
    """A narrow code from which the observation can be restored."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.scale = UnitScale(spec)
        self.sigmoid = config.output == "sigmoid" or (config.output == "auto" and self.scale.bounded)
        self.feature_shape: tuple[int, ...] = (config.code,)
        coder = _coder(config)
        self.net: Stack | ConvolutionalPair
        if config.architecture == "conv":
            self.net = ConvolutionalPair(spec, coder, config.code)
            self.code_activation = activation_named(config.code_activation if config.code else "linear")
            self.feature_shape = (config.code,) if config.code else map_shapes(spec, config.channels)[-1]
        else:
            self.net = Stack(_levels(config, (spec.size, *coder.hidden, config.code)), config.batch_norm)
            self.code_activation = nn.Identity()  # the highest level has its own

    def encode(self, x: Tensor) -> Tensor:
        return self.code_activation(self.net.encode(self._read(x)))

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, *feature_shape]` to observations in unit scale, float32 `[N, *shape]`."""
        logits = self.net.decode(code).float().reshape(len(code), *self.shape)
        return logits.sigmoid() if self.sigmoid else logits

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def restore(self, damaged: Tensor) -> Tensor:
        """As `reconstruct`, from damaged observations that are in unit scale already."""
        return self.decode(self.code_activation(self.net.encode(self._flat(damaged))))

    def corrupted(self, x: Tensor) -> Tensor:
        """Observations as stored to damaged ones in unit scale, float32 `[N, *shape]`."""
        return corrupt(self.scale(x), self.config.corruption, self.config.strength)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` `[N]`, of the clean input from the damaged one, and `weight_decay`."""
        config, target = self.config, self.scale(batch["x"])
        damaged = target if config.corruption == "none" else corrupt(target, config.corruption, config.strength)
        logits = self.net.decode(self.code_activation(self.net.encode(self._flat(damaged))))
        losses = {"reconstruction": reconstruction_error(logits, target, config.loss, self.sigmoid)}
        return losses | weight_decay([w for w in self.net.parameters() if w.dim() > 1], config.weight_decay)

    def stages(self) -> Sequence[Stage]:
        whole = Stage("autoencoder", list(self.parameters()), self.loss)
        if not (self.config.greedy and isinstance(self.net, Stack)):
            return [whole]
        levels = greedy_stages(self.net, self._read_flat, self._level_loss)
        fine_tuning = whole._replace(name="fine-tuning", epochs=self.config.fine_tune)
        return [*levels, fine_tuning] if self.config.fine_tune else levels

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def _level_loss(self, number: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One level as an autoencoder of its own input (Vincent et al. 2010, section 3.4): sigmoid units below are
        restored by cross-entropy, others by squared error; the lowest level by the whole's own loss."""
        assert isinstance(self.net, Stack)
        config, level = self.config, self.net.levels[number]
        target = batch["x"] if number else self._read_flat(batch["x"])
        error, sigmoid = config.loss, self.sigmoid
        if number:
            sigmoid = config.activation == "sigmoid"
            error = "bernoulli" if sigmoid else "squared"
        logits = level.decode(level.encode(corrupt(target, config.corruption, config.strength)))
        if number and not sigmoid:
            logits = self.net.levels[number - 1].activation(logits)
        losses = {"reconstruction": reconstruction_error(logits, target, error, sigmoid)}
        return losses | weight_decay(level.weights(), config.weight_decay)

    def _read(self, x: Tensor) -> Tensor:
        """As the net wants it: flat numbers, or images, whose bytes the first convolution scales by itself."""
        return self._read_flat(x) if isinstance(self.net, Stack) else self.scale.lazily(x)

    def _read_flat(self, x: Tensor) -> Tensor:
        return self.scale(x).flatten(1)

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(1) if isinstance(self.net, Stack) else x


def _coder(config: Config) -> Coder:
    hidden = config.hidden
    if hidden is None:
        hidden = (1000, 500, 250) if config.architecture == "dense" else ()
    return Coder(
        config.architecture, hidden, config.channels, config.activation, config.batch_norm, config.initialisation
    )


def _levels(config: Config, sizes: Sequence[int]) -> list[Level]:
    activations = activations_between(config.activation, config.code_activation, len(sizes) - 1)
    return [
        Level(
            inputs,
            units,
            activation,
            tied=config.tied,
            batch_norm=config.batch_norm and number < len(activations) - 1,
            initialisation=config.initialisation,
        )
        for number, (inputs, units, activation) in enumerate(zip(sizes[:-1], sizes[1:], activations, strict=True))
    ]


def build(config: Config, spec: ObservationSpec) -> Autoencoder:
    """Raises SpecError for tokens and what convolutions cannot read, UserError for settings that make no sense."""
    check_coder(spec, _coder(config), "autoencoder")
    check_corruption(config.corruption, config.strength, "autoencoder")
    check_error(config.loss, "autoencoder")
    if config.code < (config.architecture == "dense"):
        raise UserError(f"autoencoder: code must be a positive size (conv: or 0, the last map), not {config.code}")
    if config.architecture == "conv" and (config.tied or config.greedy):
        raise UserError("autoencoder: tied and greedy are for dense layers; leave them out with conv")
    if config.architecture == "conv" and not config.code and config.hidden:
        raise UserError("autoencoder: hidden layers need a code behind them; give --encoder.code")
    for name, known in (("code_activation", get_args(UnitActivation)), ("output", get_args(Output))):
        if getattr(config, name) not in known:
            raise UserError(f"autoencoder: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    if config.weight_decay < 0 or config.fine_tune < 0:
        raise UserError("autoencoder: weight_decay and fine_tune must not be negative")
    bounded = UnitScale(spec).bounded
    if config.loss == "bernoulli" and (config.output == "linear" or not bounded):
        raise SpecError("encoder 'autoencoder' needs bounded observations and a sigmoid output for the Bernoulli loss")
    return Autoencoder(config, spec)
