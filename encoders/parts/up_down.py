"""Up-down fine-tuning of a deep belief net: wake-sleep with a restricted machine on top (Hinton, Osindero & Teh 2006,
Neural Computation 18, 1527, section 5 and appendix B).

Below the highest two layers, weights that recognise and weights that generate go their own ways. Wake: bits are drawn
on the way up, and what generates learns to restore each layer from the one above. Sleep: from what a few Gibbs steps
of the top make of these bits, layers are drawn on the way down, and what recognises learns to find them again.

As in the appendix, the observations of the sleep phase are means, not bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..drbm import Drbm
from ..rbm import Rbm
from .gibbs import gibbs
from .labelled import draw_class, joint_walk, log_posterior
from .units import UNITS

Affine = tuple[Tensor, Tensor]  # weights [units, inputs] and biases [units], on the way up
Draw = Callable[[Tensor], Tensor]  # bits below the highest layer to others, [N, H] to [N, H]


class Generative(nn.Module):
    """Weights on the way down from each layer that has one above it."""

    def __init__(self, sizes: Sequence[int]):
        """`sizes`: of the observation and of all layers but the highest."""
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList(torch.zeros(above, below) for below, above in pairs)
        self.biases = nn.ParameterList(torch.zeros(below) for below, _ in pairs)

    def below(self, number: int, h: Tensor) -> Tensor:
        """Total inputs of what lies below layer `number` (0 is the lowest), `[N, H]` to `[N, units below]`."""
        return torch.addmm(self.biases[number], h, self.weights[number])


def up_down_losses(recognition: Sequence[Affine], generative: Generative, v: Tensor, draw: Draw) -> dict[str, Tensor]:
    """`generative` and `recognition`, `[N]`: -log p of the layers below given those above as the wake phase drew them,
    and of those above given those below as the sleep phase did; and `top` `[N, H]`, the wake phase's highest bits.

    Args:
        recognition: of all layers but the highest, from the lowest.
        v: observations of 0..1, `[N, V]`.
        draw: some steps of the machine on top.
    """
    bits = UNITS["bernoulli"]
    with torch.no_grad():
        wake = [v]
        for weight, bias in recognition:
            wake.append(bits.sample(torch.addmm(bias, wake[-1], weight.T), None))
        sleep = [draw(wake[-1])]
        for number in reversed(range(len(recognition))):
            a = generative.below(number, sleep[0])
            sleep.insert(0, bits.sample(a, None) if number else a.sigmoid())
    downward = [_surprise(generative.below(n, wake[n + 1]), wake[n]) for n in range(len(recognition))]
    upward = [
        _surprise(torch.addmm(bias, sleep[n], weight.T), sleep[n + 1]) for n, (weight, bias) in enumerate(recognition)
    ]
    return {"generative": torch.stack(downward).sum(0), "recognition": torch.stack(upward).sum(0), "top": wake[-1]}


def _surprise(a: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(a, target, reduction="none").sum(1)


@torch.no_grad()
def draw_below(top: Rbm | Drbm, v: Tensor, label: Tensor | None, steps: int) -> Tensor:
    """Bits below the highest layer after Gibbs steps from v `[N, H]` and the labels int64 `[N]`, -1 = none, which are
    drawn given v."""
    if isinstance(top, Rbm):
        return gibbs(top.machine(), v, steps)
    model = top.labelled()
    y = draw_class(log_posterior(model, v))
    if label is not None:
        known = (label >= 0).to(v.device).unsqueeze(1)
        y = torch.where(known, F.one_hot(label.clamp(min=0), y.shape[1]).to(y), y)
    return joint_walk(model, v, y, steps).v
