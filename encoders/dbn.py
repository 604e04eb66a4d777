"""Deep belief network: restricted Boltzmann machines, each trained on the means of the one below it.

Hinton, Osindero & Teh 2006 (Neural Computation 18, 1527) for the stack, its top that sees labels, and drawing from it;
Hinton & Salakhutdinov 2006 (Science 313, 504) for its unrolling into a deep autoencoder. Layers learn as `rbm` does.

Where the papers draw bits, the layers above the first read means, as Hinton's own programs do. Fine-tuned
they are by labels (`saccade fit`), by reconstructions, or up and down (`parts.up_down`) by the paper's rule. With
`labels` the highest layer is a `drbm`, whose label units stand beside the layer below it; features have them all off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from . import rbm
from .base import FeedForward, Group, Stage, Trajectory
from .drbm import Drbm
from .parts.belief import make_layers, unrolled
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.stacks import Error, Stack, check_error, reconstruction_error
from .parts.up_down import Generative, draw_below, up_down_losses
from .rbm import Rbm

kind = "deep belief network: greedy machines; unrolled into an autoencoder; draws"

Rule = Literal["sgd", "trainer"]
Code = Literal["bernoulli", "gaussian"]
Visible = Literal["auto", "bernoulli", "gaussian"]
SAMPLING_STEPS = 200  # of Gibbs between the two highest layers
BITS_GAIN = 20.0  # of a highest layer with labels, as `rbm`


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (500, 500)  # units of each layer, from the lowest
    visible: Visible = "auto"  # auto: bernoulli where all elements are bounded, else gaussian
    code: Code = "bernoulli"  # units of the highest layer; gaussian codes are linear
    binarise: rbm.Binarise = "none"  # what the lowest layer reads of values in 0..1, as with `rbm`
    method: Literal["cd", "pcd"] = "cd"
    steps: int = 1  # of Gibbs per update
    chains: int = 100  # pcd: fantasy particles of each layer
    momentum: float = 0.0  # of the layers' gradients
    l2: float = 0.0  # weight decay of the layers, by half the sum of W^2
    gain: float | None = None  # times the trainer's rate, in layers between bits; None: as `rbm`
    linear_gain: float | None = None  # the same in layers with Gaussian units
    labels: int = 0  # classes, whose units join what the highest layer reads; 0: none
    discriminative: float = 0.0  # labels: weight of -log p(label | x) beside the joint density's 1, in that layer alone
    unroll: float = 0.0  # epochs of the unrolled autoencoder for each epoch of a layer; 0: there is none
    up_down: float = 0.0  # epochs of up-down fine-tuning for each epoch of a layer; 0: weights stay the same both ways
    loss: Error = "squared"  # of the unrolled autoencoder
    rule: Rule = "sgd"  # trainer: no gains and plain steps, but what trains it chooses, as to fine-tune with Adam


class Dbn(FeedForward):
    """Several layers of features; the highest two are a density, which those below turn into observations."""

    window = 1
    untied: Tensor  # bool [], with up_down: `generative` holds the weights on the way down
    unrolled: Tensor  # bool []: the autoencoder has been made of the layers, and is what observations pass through

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.layer_list = nn.ModuleList(make_layers(config, spec))
        self.scale = self.layers[0].scale
        self.sigmoid = self.layers[0].sigmoid
        self.feature_shape, self.needs_labels = (config.hidden[-1],), bool(config.labels)
        self.net: Stack | None = unrolled(config, spec) if config.unroll else None
        self.register_buffer("unrolled", torch.zeros((), dtype=torch.bool))
        self.generative: Generative | None = None
        if config.up_down:
            self.generative = Generative((spec.size, *config.hidden[:-1]))
            self.register_buffer("untied", torch.zeros((), dtype=torch.bool))

    @property
    def layers(self) -> list[Rbm | Drbm]:
        """From the lowest to the highest."""
        return [cast("Rbm | Drbm", layer) for layer in self.layer_list]

    @property
    def top(self) -> Rbm | Drbm:
        """The highest layer."""
        return self.layers[-1]

    def encode(self, x: Tensor) -> Tensor:
        if self.net is not None and self.unrolled:
            return self.net.encode(self.layers[0].read_visible(x, draws=False))
        return self.means(x, len(self.layers))

    def means(self, x: Tensor, layers: int) -> Tensor:
        """Observations `[N, ...]` to means of the units of the highest of so many layers, float32 `[N, H]`."""
        for layer in self.layers[:layers]:
            x = layer.encode(x)
        return x

    def decode(self, code: Tensor) -> Tensor:
        """Features `[N, H]` to means of observations in unit scale, float32 `[N, *shape]`."""
        if self.net is not None and self.unrolled:
            return self._output(self.net.decode(code))
        for number in reversed(range(len(self.layers))):
            code = self._down(number, code)
        return code

    def reconstruct(self, x: Tensor) -> Tensor:
        """Means all the way up and down: unit scale, float32 `[N, *shape]`."""
        return self.decode(self.encode(x))

    def classify(self, x: Tensor) -> Tensor:
        """log p(label | means of the layer below the highest), float32 `[N, labels]`, exact by the highest layer.

        Raises:
            UserError: it was made without labels.
        """
        return self._labelled_top().classify(self.means(x, len(self.layers) - 1))

    @torch.no_grad()
    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        steps: int = SAMPLING_STEPS,
        label: Tensor | None = None,
    ) -> Tensor:
        """Means of observations, float32 `[count, *shape]` in unit scale, after Gibbs steps between the two highest
        layers and one pass down that draws the bits of the others (Hinton et al. 2006, section 5).

        Args:
            label: int64 `[count]`, clamped in the highest layer; UserError where it was made without labels.
        """
        if label is None:
            mean = self.top.sample(count, generator, steps)
        else:
            mean = self._labelled_top().sample(count, generator, steps, label)
        for number in reversed(range(len(self.layers) - 1)):
            mean = self._down(number, _drawn(mean, generator))
        return mean

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """All layers at once, each on the means of the one below: `layer_1_reconstruction`, ... as `Rbm.loss`, whose
        gradients stay within their layer; once it is there, the autoencoder's `reconstruction` `[N]`, too. Where ways
        up and down are no longer the same: `up_down_loss`."""
        if self.generative is not None and self.untied:
            return self.up_down_loss(batch)
        x, losses = batch["x"], dict[str, Tensor]()
        for number, layer in enumerate(self.layers):
            for name, value in layer.loss(batch | {"x": x}).items():
                losses[f"layer_{number + 1}_{name}"] = value
            if number + 1 < len(self.layers):
                with torch.no_grad():
                    x = layer.encode(x)
        return losses | (self.unrolled_loss(batch) if self.net is not None and self.unrolled else {})

    def unrolled_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` `[N]` of the unrolled autoencoder."""
        assert self.net is not None
        target = self.layers[0].read_visible(batch["x"], draws=False)
        logits = self.net.decode(self.net.encode(target))
        return {"reconstruction": reconstruction_error(logits, target, self.config.loss, self.sigmoid)}

    def up_down_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`generative` and `recognition` `[N]` of all layers but the highest, and the highest one's own losses. What
        the sleep phase begins with has gone as many Gibbs steps as CD goes, in a chain of its own."""
        assert self.generative is not None
        top, label = self.top, batch.get("label")
        draw = partial(draw_below, top, label=label, steps=self.config.steps)
        ways = [(layer.weight, layer.hidden_bias) for layer in self.layers[:-1]]
        losses = up_down_losses(ways, self.generative, self.layers[0].read_visible(batch["x"]), draw)
        above = losses.pop("top")
        return losses | {f"top_{name}": value for name, value in top.loss(batch | {"x": above}).items()}

    @torch.no_grad()
    def untie(self) -> None:
        """Give the way down the layers' weights to begin with; without up_down, nothing."""
        if self.generative is not None:
            for number, layer in enumerate(self.layers[:-1]):
                self.generative.weights[number].copy_(layer.weight)
                self.generative.biases[number].copy_(layer.visible_bias)
            self.untied.fill_(True)

    def stages(self) -> Sequence[Stage]:
        stages = [
            Stage(
                f"layer {number + 1}",
                list(layer.parameters()),
                layer.loss,
                input=partial(self.means, layers=number) if number else None,
                monitor=layer.monitor if isinstance(layer, Rbm) else None,
            )
            for number, layer in enumerate(self.layers)
        ]
        if self.generative is not None:
            stages[-1] = stages[-1]._replace(finish=self.untie)
            trained = [p for layer in self.layers[:-1] for p in (layer.weight, layer.hidden_bias)]
            trained += [*self.generative.parameters(), *self.top.parameters()]
            return [*stages, Stage("up and down", trained, self.up_down_loss, epochs=self.config.up_down)]
        if self.net is None:
            return stages
        stages[-1] = stages[-1]._replace(finish=self.unroll)
        fine_tuning = Stage("unrolled", list(self.net.parameters()), self.unrolled_loss, epochs=self.config.unroll)
        return [*stages, fine_tuning]

    @torch.no_grad()
    def unroll(self) -> None:
        """Give the autoencoder the layers' weights, the same on the way up and down; observations pass through it from
        now on. Without one, nothing."""
        if self.net is None:
            return
        for level, layer in zip(self.net.levels, self.layers, strict=True):
            assert level.down is not None
            level.up.weight.copy_(layer.weight)
            level.up.bias.copy_(layer.hidden_bias)
            level.down.weight.copy_(layer.weight.T)
            level.down.bias.copy_(layer.visible_bias)
        self.unrolled.fill_(True)

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        x = observed(batch)
        if len(x):
            return mean_losses(self.loss({"x": x}))
        return mean_losses({f"layer_{n + 1}": 0 * layer.hidden_bias for n, layer in enumerate(self.layers)})

    def parameter_groups(self) -> list[Group]:
        if self.config.rule == "trainer":
            return [Group("dbn", list(self.parameters()))]
        groups = []
        for number, layer in enumerate(self.layers):
            (group,) = layer.parameter_groups()
            if isinstance(layer, Drbm):
                gain = BITS_GAIN if self.config.gain is None else self.config.gain
                group = group._replace(learning_rate_factor=gain, optimizer="sgd")
            groups.append(group._replace(name=f"layer {number + 1}"))
        if self.generative is not None:
            gain = BITS_GAIN if self.config.gain is None else self.config.gain
            groups.append(Group("generative", list(self.generative.parameters()), gain, optimizer="sgd"))
        return groups if self.net is None else [*groups, Group("unrolled", list(self.net.parameters()))]

    def _down(self, number: int, h: Tensor) -> Tensor:
        """Means of what lies below a layer (0 is the lowest), float32."""
        if self.generative is None or not self.untied or number + 1 == len(self.layers):
            return self.layers[number].decode(h)
        return self.generative.below(number, h).sigmoid().float().unflatten(1, self.layers[number].shape)

    def _labelled_top(self) -> Drbm:
        if isinstance(self.top, Drbm):
            return self.top
        raise UserError("dbn: this one has no label units; pre-train it with --encoder.labels")

    def _output(self, logits: Tensor) -> Tensor:
        mean = logits.sigmoid() if self.sigmoid else logits
        return mean.float().unflatten(1, self.shape)


def _drawn(mean: Tensor, generator: torch.Generator | None) -> Tensor:
    """Bits of these probabilities."""
    fits = generator is None or generator.device == mean.device
    return torch.bernoulli(mean, generator=generator if fits else None)


def build(config: Config, spec: ObservationSpec) -> Dbn:
    """Raises SpecError for tokens and for bits from unbounded numbers, UserError for settings that make no sense."""
    require_numbers(spec, "dbn")
    choices = {"visible": get_args(Visible), "code": get_args(Code), "method": ("cd", "pcd"), "rule": get_args(Rule)}
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise UserError(f"dbn: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    check_error(config.loss, "dbn")
    if not config.hidden or min(config.hidden) < 1:
        raise UserError(f"dbn: hidden must be one or more positive sizes, not {config.hidden}")
    for name in ("unroll", "labels", "up_down"):
        if getattr(config, name) < 0:
            raise UserError(f"dbn: {name} must not be negative, but is {getattr(config, name)}")
    if config.up_down and (config.unroll or config.code != "bernoulli" or len(config.hidden) < 2):
        raise UserError("dbn: up_down is for two or more layers of bits that are not unrolled; leave it or these out")
    if config.labels and (config.code != "bernoulli" or config.method != "cd" or config.momentum):
        raise UserError("dbn: a highest layer with labels is of bits, by cd and without momentum; leave labels out")
    bits = UnitScale(spec).bounded and config.visible != "gaussian"
    if not bits and (config.visible == "bernoulli" or config.binarise != "none" or config.up_down):
        raise SpecError(f"encoder 'dbn' makes bits only of bounded observations, not of {spec.describe()}")
    if config.loss == "bernoulli" and config.unroll and not bits:
        raise SpecError("encoder 'dbn' needs bits below for the Bernoulli loss; take squared")
    return Dbn(config, spec)
