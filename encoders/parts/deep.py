"""Deep Boltzmann machines: layers of bits, each joined to the next (Salakhutdinov & Hinton 2009, AISTATS).

    E(v, h_1, ..., h_L) = -b . v - sum_l c_l . h_l - h_1 . W_1 v - sum_l h_l . W_l h_(l-1)

Layers of odd number touch only those of even number, and the other way round. So this is a restricted machine, whose
visible units are all even layers (0, what is observed, first) and whose hidden units all odd ones: its Gibbs steps, its
log Z by enumeration or annealing and its gradients are those of `gibbs` and `likelihood`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .gibbs import Machine, energy


class Deep(NamedTuple):
    """The parameters of a deep machine of layers of sizes V, H_1, ..., H_L."""

    weights: tuple[Tensor, ...]  # [H_1, V], [H_2, H_1], ...
    biases: tuple[Tensor, ...]  # [V], [H_1], ..., [H_L]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(bias) for bias in self.biases)


def folded(deep: Deep) -> Machine:
    """The same as a restricted machine: visible layers 0, 2, ... and hidden layers 1, 3, ..., side by side."""
    rows = []
    for odd in range(1, len(deep.biases), 2):
        blocks = []
        for even in range(0, len(deep.biases), 2):
            if even == odd - 1:
                blocks.append(deep.weights[odd - 1])
            elif even == odd + 1:
                blocks.append(deep.weights[odd].T)
            else:
                blocks.append(deep.biases[0].new_zeros(len(deep.biases[odd]), len(deep.biases[even])))
        rows.append(torch.cat(blocks, 1))
    return Machine(torch.cat(rows), torch.cat(deep.biases[::2]), torch.cat(deep.biases[1::2]))


def split_weight(weight: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """What a weight of the folded machine `[odd units, even units]`, or its gradient, is of each layer's weight."""
    rows = weight.split(list(sizes[1::2]))
    blocks = [row.split(list(sizes[::2]), 1) for row in rows]
    return [
        blocks[upper // 2][upper // 2] if upper % 2 else blocks[upper // 2 - 1][upper // 2].T
        for upper in range(1, len(sizes))
    ]


def fold(layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Values of all layers `[N, size]` to those of the folded machine's visible and hidden units."""
    return torch.cat(list(layers[::2]), 1), torch.cat(list(layers[1::2]), 1)


def unfold(even: Tensor, odd: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The other way round."""
    pairs = itertools.zip_longest(even.split(list(sizes[::2]), 1), odd.split(list(sizes[1::2]), 1))
    return [layer for pair in pairs for layer in pair if layer is not None]


def mean_field(deep: Deep, v: Tensor, iterations: int) -> list[Tensor]:
    """Means of all hidden layers `[N, H_l]` given v `[N, V]`, after so many rounds (equation 5 there; for two layers,
    equations 7 and 8). Each round sets the odd layers, then the even ones, and raises the bound, or leaves it.

    They begin at one pass up in which each layer but the highest counts what it reads twice (section 3.1).
    """
    machine, size = folded(deep), v.shape[1]
    layers, last = [v], len(deep.weights) - 1
    for number, (weight, bias) in enumerate(zip(deep.weights, deep.biases[1:], strict=True)):
        layers.append(torch.addmm(bias, layers[-1], weight.T, alpha=1 if number == last else 2).sigmoid())
    even, odd = fold(layers)
    hidden = even[:, size:]
    from_data = torch.addmm(machine.hidden_bias, v, machine.weight[:, :size].T)
    among, bias = machine.weight[:, size:], machine.visible_bias[size:]
    for _ in range(iterations):
        odd = torch.addmm(from_data, hidden, among.T).sigmoid()
        hidden = torch.addmm(bias, odd, among).sigmoid()
    return unfold(torch.cat([v, hidden], 1), odd, deep.sizes)[1:]


def bound(deep: Deep, v: Tensor, means: Sequence[Tensor]) -> Tensor:
    """What log p(v) + log Z is at least, `[N]`: the mean of -E under independent units of these `means`, and their
    entropy (section 2.1, equation 3)."""
    even, odd = fold([v, *means])
    return entropy(torch.cat(list(means), 1)) - energy(folded(deep), even, odd)


def entropy(means: Tensor) -> Tensor:
    """Of independent bits of these means `[N, D]`, in nats, `[N]`."""
    return -(torch.special.xlogy(means, means) + torch.special.xlogy(1 - means, 1 - means)).sum(1)


def centred(gradient: Deep, offsets: Sequence[Tensor]) -> Deep:
    """The step that moves this machine as `gradient` moves the same machine written with units less their `offsets`,
    one `[size]` for each layer (Montavon & Müller 2012; Melchior, Fischer & Wiskott 2016, JMLR 17, no. 99).

    As the gradient is, a weight between two units changes whenever the mean of one of them does, though they tell
    nothing of each other: high layers come to hold still, and to be no more than biases of the ones below.
    """
    weights, biases = list[Tensor](), list(gradient.biases)
    for number, weight in enumerate(gradient.weights):
        below, above = offsets[number : number + 2]
        weight = weight - torch.outer(gradient.biases[number + 1], below) - torch.outer(above, gradient.biases[number])
        weights.append(weight)
        biases[number] = biases[number] - above @ weight
        biases[number + 1] = biases[number + 1] - weight @ below
    return Deep(tuple(weights), tuple(biases))
