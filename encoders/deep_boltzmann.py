"""Deep Boltzmann machine: layers of bits that all see the one below and the one above.

Salakhutdinov & Hinton 2009 (AISTATS): greedy machines in which what will be read from two sides is counted twice
(section 3.1), then all layers together by mean field for the data and persistent chains for the model (section 2).

The latter with centred units (Montavon & Müller 2012; Melchior, Fischer & Wiskott 2016, JMLR 17): without, the highest
layer soon holds still whatever is shown. Their offsets are moving averages of the means given data.

The file is not called dbm, as the machine is: the standard library has a module of that name.

With `labels` the highest layer also sees label units, as in Srivastava & Salakhutdinov's multimodal machine (2012,
NIPS): images can be drawn given a label, and labels given an image. Unknown labels are inferred with the rest.

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
from torch.nn.functional import one_hot

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage, Trajectory
from .parts import greedy, multimodal
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.deep import Deep, bound, centred, fold, folded, mean_field, split_weight
from .parts.gibbs import Machine, contrast, gibbs, hidden_mean, means_along
from .parts.given import with_gradient
from .parts.labelled import Labelled, draw_class
from .parts.likelihoods import binarise
from .parts.multimodal import Joint

kind = "deep Boltzmann machine: greedy, mean field, persistent chains, a bound of log p"

Binarise = Literal["none", "dynamic", "threshold"]
Features = Literal["top", "all"]
Rule = Literal["sgd", "trainer"]
OFFSET_MEMORY = 0.99  # of the means that units are centred by, per batch
SAMPLING_STEPS = 200  # of Gibbs from the chains, and from data before there are chains


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (500, 500)  # units of each layer, from the lowest; at least two layers
    binarise: Binarise = "none"  # of values in 0..1: probabilities as they are, bits drawn each time, or at 1/2
    iterations: int = 10  # rounds of mean field
    steps: int = 1  # of Gibbs per update, of a greedy layer and of the chains
    chains: int = 100  # fantasy particles
    joint: float = 1.0  # epochs of all layers together for each epoch of one; 0: the greedy layers only
    centred: bool = True  # gradients of all layers together as of units less their means
    l2: float = 0.0  # weight decay by half the sum of W^2
    initial: float = 0.01  # standard deviation of the weights at the start
    features: Features = "top"  # means of the highest layer, or of all of them side by side
    gain: float = 20.0  # times the trainer's rate
    labels: int = 0  # classes, whose units stand beside the highest layer; 0: none
    rule: Rule = "sgd"  # trainer: no gain and no plain steps, but what trains it chooses, as to fine-tune with Adam


class Dbm(FeedForward):
    """Several layers of features that agree on what they see, and a density."""

    window = 1
    chains: Tensor  # [N, units of layers 0, 2, ...]
    chains_began: Tensor  # bool, []: the chains have left the noise that they are made of
    label_chains: Tensor  # with labels: [N, classes]
    offsets: Tensor  # [units of all layers, and classes]: what units are centred by

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
        self.needs_labels = bool(config.labels)
        self.register_buffer("chains", torch.rand(config.chains, sum(sizes[::2])).round())
        self.register_buffer("chains_began", torch.tensor(False))
        self.register_buffer("offsets", torch.zeros(sum(sizes) + config.labels))
        if config.labels:
            self.label_weight = nn.Parameter(torch.randn(config.hidden[-1], config.labels) * config.initial)
            self.label_bias = nn.Parameter(torch.zeros(config.labels))
            self.register_buffer(
                "label_chains", one_hot(torch.arange(config.chains) % config.labels, config.labels).float()
            )

    def deep(self) -> Deep:
        """The parameters as they are; what is computed from them has gradients. `parts.deep.folded` makes of it a
        machine whose log Z `parts.likelihood` estimates."""
        return Deep(tuple(self.weights), tuple(self.biases))

    def joint(self) -> Joint:
        """The same with label units. Raises UserError where there are none."""
        if not self.config.labels:
            raise UserError("deep_boltzmann: this one has no label units; pre-train it with --encoder.labels")
        return Joint(self.deep(), self.label_weight, self.label_bias)

    def read_visible(self, x: Tensor, draws: bool = True) -> Tensor:
        """Observations to values of the visible units, float32 `[N, V]`; bits drawn anew where the config says so."""
        if draws and self.config.binarise == "dynamic":
            return binarise(x if x.dtype == torch.uint8 else self.scale(x)).flatten(1)
        v = self.scale(x).flatten(1)
        return (v >= 0.5).to(v.dtype) if self.config.binarise == "threshold" else v

    def means(self, x: Tensor) -> list[Tensor]:
        """Mean-field means of all hidden layers, `[N, H_l]`, lowest first."""
        return self._settled(self.read_visible(x, draws=False))[0][1:]

    def encode(self, x: Tensor) -> Tensor:
        means = self.means(x)
        return means[-1] if self.config.features == "top" else torch.cat(means, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Means of the observation given those of the lowest layer: unit scale, float32 `[N, *shape]`."""
        mean = torch.addmm(self.biases[0], self.means(x)[0], self.weights[0]).sigmoid()
        return mean.float().unflatten(1, self.shape)

    def bound(self, x: Tensor) -> Tensor:
        """What log p(x) + log Z is at least, `[N]`."""
        v = self.read_visible(x)
        layers, y = self._settled(v)
        return multimodal.bound(self.joint(), layers, y) if self.config.labels else bound(self.deep(), v, layers[1:])

    def classify(self, x: Tensor) -> Tensor:
        """log p(label | x), float32 `[N, labels]`, by the bounds of log p(x, label) in place of the latter.
        Raises UserError where it was made without labels."""
        v = self.read_visible(x, draws=False)
        return multimodal.class_bounds(self.joint(), v, self.config.iterations).log_softmax(1).float()

    @torch.no_grad()
    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        steps: int = SAMPLING_STEPS,
        label: Tensor | None = None,
    ) -> Tensor:
        """Means after Gibbs steps from the persistent chains: float32 `[count, *shape]`, unit scale. `label`: int64
        `[count]`, clamped, in chains that begin at such as had it; UserError where it was made without labels."""
        device = self.chains.device
        drawn_on = device if generator is None else generator.device
        rows = torch.randint(len(self.chains), (count,), generator=generator, device=drawn_on).to(device)
        generator = generator if drawn_on == device else None
        if not self.config.labels and label is None:
            mean = means_along(folded(self.deep()), self.chains[rows], [steps], generator)[0]
            return mean[:, : len(self.biases[0])].float().unflatten(1, self.shape)
        joint, y = self.joint(), self.label_chains[rows]
        if label is not None:
            y = one_hot(label.to(device), self.config.labels).to(y)
            rows = multimodal.alike(self.label_chains, y, generator)
        state = multimodal.from_even(joint, self.chains[rows]), y
        layers, y = multimodal.gibbs(joint, state, steps, generator, () if label is None else ("y",))
        return multimodal.layer_input(joint, layers, y, 0).sigmoid().float().unflatten(1, self.shape)

    @torch.no_grad()
    def sample_labels(self, x: Tensor, generator: torch.Generator | None = None, steps: int = SAMPLING_STEPS) -> Tensor:
        """Labels drawn given observations `[N, ...]`, which are clamped, by Gibbs steps from the mean-field means:
        int64 `[N]`. Raises UserError where it was made without labels."""
        state = self._settled(self.read_visible(x))
        return multimodal.gibbs(self.joint(), state, steps, generator, ("v",))[1].argmax(1)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction`, a scalar: its value is the squared error given the mean-field means, its gradient that of
        minus the bound, <s s'>_chains - <s s'>_data. The chains move in training mode only. With label units, labels
        in the batch are given, and those that are not known (-1) inferred."""
        if self.config.labels:
            return self._labelled_loss(batch)
        with torch.no_grad(), torch.autocast(self.chains.device.type, enabled=False):
            deep, v = self.deep(), self.read_visible(batch["x"])
            machine = folded(deep)
            means = mean_field(deep, v, self.config.iterations)
            self._begin([v, *means], v[:, :0])
            error = (torch.addmm(deep.biases[0], means[0], deep.weights[0]).sigmoid() - v).square().sum()
            if self.training:
                self.chains.copy_(gibbs(machine, self.chains, self.config.steps))
            fantasy = (self.chains, hidden_mean(machine, self.chains))
            gradient = contrast(machine, fold([v, *means]), fantasy)
            weights = [part.contiguous() for part in split_weight(gradient.weight, deep.sizes)]
            even = gradient.visible_bias.split(list(deep.sizes[::2]))
            odd = gradient.hidden_bias.split(list(deep.sizes[1::2]))
            biases = [(odd if number % 2 else even)[number // 2].clone() for number in range(len(deep.sizes))]
            moved = self._centred(Deep(tuple(weights), tuple(biases)))
        parameters = [*self.weights, *self.biases]
        gradients = self._decayed(parameters, [*moved.weights, *moved.biases])
        return {"reconstruction": with_gradient(error / max(len(v), 1), parameters, gradients)}

    def layer_loss(self, batch: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
        """`reconstruction` of one greedy layer (1 is the lowest), by CD-k on what it reads, `[N, units below]` or the
        observation: given the layer below, inputs count twice but in the highest layer; given this one, twice but in
        the lowest (Salakhutdinov & Hinton 2009, equations 12 to 17)."""
        with torch.no_grad(), torch.autocast(self.chains.device.type, enabled=False):
            v = self.read_visible(batch["x"]) if layer == 1 else batch["x"]
            weight, below, above = self.weights[layer - 1], self.biases[layer - 1], self.biases[layer]
            up, down = 1 + (layer < len(self.weights)), 1 + (layer > 1)
            error, gradient = greedy.doubled_walk(Machine(weight, below, above), v, self.config.steps, up, down)
        parameters = [weight, below, above]
        return {"reconstruction": with_gradient(error, parameters, self._decayed(parameters, gradient[:3]))}

    def labelled_layer_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`layer_loss` of the highest layer with its label units, by CD-k; unknown labels are drawn given the rest."""
        with torch.no_grad(), torch.autocast(self.chains.device.type, enabled=False):
            v = batch["x"]
            machine = Machine(self.weights[-1], self.biases[-2], self.biases[-1])
            model = Labelled(machine, *self._label_parameters())
            error, gradient = greedy.labelled_walk(model, v, *self._units(batch, v), self.config.steps)
        parameters = [*machine[:3], *self._label_parameters()]
        return {"reconstruction": with_gradient(error, parameters, self._decayed(parameters, gradient))}

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
        if self.config.labels:
            parameters = [*stages[-1].parameters, *self._label_parameters()]
            stages[-1] = stages[-1]._replace(parameters=parameters, loss=self.labelled_layer_loss)
        if not self.config.joint:
            return stages
        return [*stages, Stage("all layers", list(self.parameters()), self.loss, epochs=self.config.joint)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        x = observed(batch)
        return mean_losses(self.loss({"x": x}) if len(x) else {"reconstruction": 0 * self.biases[0]})

    def parameter_groups(self) -> list[Group]:
        if self.config.rule == "trainer":
            return [Group("deep_boltzmann", list(self.parameters()))]
        return [Group("deep_boltzmann", list(self.parameters()), self.config.gain, optimizer="sgd")]

    def _labelled_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(self.chains.device.type, enabled=False):
            joint, v = self.joint(), self.read_visible(batch["x"])
            data = self._settled(v, batch)
            self._begin(*data)
            mean = torch.addmm(self.biases[0], data[0][1], self.weights[0]).sigmoid()
            error = (mean - v).square().sum() / max(len(v), 1)
            model = multimodal.from_even(joint, self.chains), self.label_chains
            if self.training:
                model = multimodal.gibbs(joint, model, self.config.steps)
                self.chains.copy_(torch.cat(model[0][::2], 1))
                self.label_chains.copy_(model[1])
            deep, label_weight, label_bias = multimodal.contrast(data, multimodal.expected(joint, model))
            # label units are a layer above the highest
            moved = self._centred(Deep((*deep.weights, label_weight.T), (*deep.biases, label_bias)))
            parameters = [*self.weights, self.label_weight, *self.biases, self.label_bias]
            gradients = self._decayed(parameters, [*moved.weights[:-1], moved.weights[-1].T, *moved.biases])
        return {"reconstruction": with_gradient(error, parameters, gradients)}

    def _begin(self, layers: list[Tensor], y: Tensor) -> None:
        """Follow the means given data; and when training of all layers begins, move the chains from noise to draws
        given data, `SAMPLING_STEPS` on.

        Greedy layers make a machine that knows noise as well as data, and hardly ever goes from one to the other:
        chains that stayed there would be unlearned by units that are always on or always off.
        """
        if not self.training or not len(y):
            return
        means = torch.cat([*layers, y], 1).mean(0)
        if self.chains_began:
            self.offsets.lerp_(means, 1 - OFFSET_MEMORY)
            return
        self.offsets.copy_(means)
        rows = torch.arange(len(self.chains), device=y.device) % len(y)
        even = torch.cat(layers[::2], 1)[rows].bernoulli()
        if self.config.labels:
            joint, y = self.joint(), draw_class(y[rows].log())
            state = multimodal.gibbs(joint, (multimodal.from_even(joint, even), y), SAMPLING_STEPS)
            even = torch.cat(state[0][::2], 1)
            self.label_chains.copy_(state[1])
        else:
            even = gibbs(folded(self.deep()), even, SAMPLING_STEPS)
        self.chains.copy_(even)
        self.chains_began.fill_(True)

    def _centred(self, gradient: Deep) -> Deep:
        if not self.config.centred:
            return gradient
        return centred(gradient, self.offsets.split(list(gradient.sizes)))

    def _decayed(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """With what weights, but not biases, decay by."""
        pairs = zip(parameters, gradients, strict=True)
        return [found + self.config.l2 * p.detach() if p.dim() > 1 else found for p, found in pairs]

    def _label_parameters(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.label_weight, self.label_bias

    def _settled(self, v: Tensor, batch: dict[str, Tensor] | None = None) -> tuple[list[Tensor], Tensor]:
        """All layers, v first, by mean field; and the label units, or their means where labels are unknown."""
        if not self.config.labels:
            return [v, *mean_field(self.deep(), v, self.config.iterations)], v[:, :0]
        return multimodal.mean_field(self.joint(), v, *self._units(batch or {}, v), self.config.iterations)

    def _units(self, batch: dict[str, Tensor], v: Tensor) -> tuple[Tensor, Tensor]:
        """Label units `[N, classes]`, and which rows are known, bool `[N, 1]`."""
        return multimodal.label_units(batch.get("label"), self.config.labels, v)

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
    for name in ("joint", "l2", "labels"):
        if getattr(config, name) < 0:
            raise UserError(f"deep_boltzmann: {name} must not be negative, but is {getattr(config, name)}")
    return Dbm(config, spec)
