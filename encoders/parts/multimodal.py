"""Deep Boltzmann machines with a second pathway: label units, exactly one of which is on, beside the highest layer.

    E(v, h, y) = E(v, h) - d . y - h_L . U y

Srivastava & Salakhutdinov (2012, NIPS, "Multimodal learning with deep Boltzmann machines", section 3) join two deep
machines by a layer above both; here the one of the labels has no hidden layers of its own.

As labels touch the highest layer L alone, they move when L - 1, L - 3, ... do: all layers of odd number given the even
ones, then the other way round. Layers are lists that begin with v, `[N, units]` each; y is `[N, C]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...envs.errors import UserError
from . import deep as deeps
from .deep import Deep
from .labelled import draw_class
from .units import UNITS

Layers = list[Tensor]


class Joint(NamedTuple):
    """The parameters of a deep machine with label units."""

    deep: Deep
    label_weight: Tensor  # [H_L, C]
    label_bias: Tensor  # [C]


def layer_input(joint: Joint, layers: Sequence[Tensor], y: Tensor, number: int) -> Tensor:
    """Total input of a layer from the ones below and above it, `[N, units]`."""
    weights, a = joint.deep.weights, joint.deep.biases[number]
    if number:
        a = a + layers[number - 1] @ weights[number - 1].T
    return a + (layers[number + 1] @ weights[number] if number < len(weights) else y @ joint.label_weight.T)


def label_input(joint: Joint, layers: Sequence[Tensor]) -> Tensor:
    """Total input of the label units, `[N, C]`."""
    return joint.label_bias + layers[-1] @ joint.label_weight


def sweep(
    joint: Joint,
    state: tuple[Layers, Tensor],
    unit: Callable[[int, Tensor], Tensor],
    label: Callable[[Tensor], Tensor],
    parities: Sequence[int] = (1, 0),
) -> tuple[Layers, Tensor]:
    """Layers and labels anew, first those of odd number: what `unit` makes of a layer's number and total input, and
    `label` of the labels'."""
    layers, y = list(state[0]), state[1]
    top = len(layers) - 1
    for parity in parities:
        for number in range(parity, top + 1, 2):
            layers[number] = unit(number, layer_input(joint, layers, y, number))
        if (top + 1) % 2 == parity:
            y = label(label_input(joint, layers))
    return layers, y


def mean_field(joint: Joint, v: Tensor, y: Tensor | None, known: Tensor, iterations: int) -> tuple[Layers, Tensor]:
    """Means of all layers (v first) and of the labels given v, and y `[N, C]` in rows that are `known` (bool `[N, 1]`),
    after so many rounds; each raises `bound` or leaves it. They begin as those of `deep.mean_field` do."""
    chance = joint.label_bias.softmax(0).expand(len(v), -1)
    given = chance if y is None else y
    layers, q = [v], torch.where(known, given, chance)
    for number, (weight, bias) in enumerate(zip(joint.deep.weights, joint.deep.biases[1:], strict=True), 1):
        is_top = number == len(joint.deep.weights)
        a = torch.addmm(bias, layers[-1], weight.T, alpha=1 if is_top else 2)
        layers.append((a + q @ joint.label_weight.T if is_top else a).sigmoid())
    state = layers, q
    for _ in range(iterations):
        state = sweep(
            joint,
            state,
            lambda number, a: a.sigmoid() if number else v,
            lambda a: torch.where(known, given, a.softmax(1)),
        )
    return state


def bound(joint: Joint, layers: Sequence[Tensor], y: Tensor) -> Tensor:
    """What log p(v, y) + log Z is at least, `[N]`, or log p(v) + log Z where y are the means of unknown labels."""
    v, *means = layers
    of_labels = y @ joint.label_bias + (means[-1] * (y @ joint.label_weight.T)).sum(1)
    return deeps.bound(joint.deep, v, means) + of_labels + torch.special.entr(y).sum(1)


def gibbs(
    joint: Joint,
    state: tuple[Layers, Tensor],
    steps: int,
    generator: torch.Generator | None = None,
    clamped: Sequence[str] = (),
) -> tuple[Layers, Tensor]:
    """The state after so many draws of all layers, odd ones first; only the even ones (and y, if it moves with them) of
    the state before are read. `clamped`: "v" or "y", which stay what they are."""
    v, y = state[0][0], state[1]

    def unit(number: int, a: Tensor) -> Tensor:
        return v if number == 0 and "v" in clamped else UNITS["bernoulli"].sample(a, generator)

    def label(a: Tensor) -> Tensor:
        return y if "y" in clamped else draw_class(a, generator)

    for _ in range(steps):
        state = sweep(joint, state, unit, label)
    return state


def from_even(joint: Joint, even: Tensor) -> Layers:
    """Layers whose even ones have these values, side by side `[N, units]`, and the others zeros."""
    sizes = joint.deep.sizes
    return deeps.unfold(even, even.new_zeros(len(even), sum(sizes[1::2])), sizes)


def alike(chains: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """For each of the labels y `[N, C]` a row of label units `[K, C]` that is the same, drawn by chance, int64 `[N]`;
    any row where there is none."""
    return torch.multinomial((y @ chains.T + 1e-9).clamp(min=0), 1, generator=generator).squeeze(1)


def expected(joint: Joint, state: tuple[Layers, Tensor]) -> tuple[Layers, Tensor]:
    """The state with means in place of draws in layers of odd number, and of labels where they move with these."""
    return sweep(joint, state, lambda _, a: a.sigmoid(), lambda a: a.softmax(1), parities=(1,))


def contrast(data: tuple[Layers, Tensor], model: tuple[Layers, Tensor]) -> Joint:
    """The gradient of minus the bound: statistics of the model less those of the data, in the parameters' places."""
    weights, biases = list[list[Tensor]](), list[list[Tensor]]()
    for layers, y in (data, model):
        pairs = zip([*layers[:-1], y], [*layers[1:], layers[-1]], strict=True)
        weights.append([above.T @ below / max(len(y), 1) for below, above in pairs])
        biases.append([values.mean(0) for values in (*layers, y)])
    *weight, label_weight = (theirs - ours for ours, theirs in zip(*weights, strict=True))
    *bias, label_bias = (theirs - ours for ours, theirs in zip(*biases, strict=True))
    return Joint(Deep(tuple(weight), tuple(bias)), label_weight, label_bias)


def class_bounds(joint: Joint, v: Tensor, iterations: int) -> Tensor:
    """`bound` of log p(v, y) + log Z for each class y, `[N, C]`."""
    known = torch.ones(len(v), 1, dtype=torch.bool, device=v.device)
    units = torch.eye(len(joint.label_bias), dtype=v.dtype, device=v.device)
    clamped = (y.expand(len(v), -1) for y in units)
    return torch.stack([bound(joint, *mean_field(joint, v, y, known, iterations)) for y in clamped], 1)


def label_units(label: Tensor | None, classes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Label units `[N, C]` of labels int64 `[N]`, -1 = none, and which rows are known, bool `[N, 1]`, beside `like`
    `[N, ...]`. Raises UserError for a label beyond the classes."""
    label = torch.full((len(like),), -1) if label is None else label
    if len(label) and not label.is_cuda and int(label.max()) >= classes:
        most = int(label.max())
        raise UserError(f"deep_boltzmann: there is a label {most}; give --encoder.labels {most + 1}")
    label = label.to(like.device)
    return F.one_hot(label.clamp(min=0), classes).to(like.dtype), (label >= 0).unsqueeze(1)
