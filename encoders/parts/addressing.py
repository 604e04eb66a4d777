"""Where a memory reads and writes: pure functions of tensors, for the NTM and the DNC.

Memory is `[B, N, W]`: N slots of W numbers. Weightings are `[B, N]` or, for R heads, `[B, R, N]`. All in float32 or
float64. "NTM" is Graves et al. 2014 (arXiv:1410.5401), "DNC" Graves et al. 2016 (Nature 538, Methods).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NORM_FLOOR = 1e-6  # added to squared lengths, so that empty slots and keys have a gradient
USAGE_FLOOR = 1e-6  # products of usages stay positive
USAGE_RANKS = 65536  # usages are put in order in steps of 1 / this
LINK_FLOOR = 1e-6  # distributions whose largest weight is smaller fade out instead of being normalised
_FEW_SHIFTS = 2  # slots to either side; for more of them, Fourier transforms are faster


def oneplus(x: Tensor) -> Tensor:
    """1 + log(1 + exp(x)): strengths, at least 1 (DNC, "Interface parameters")."""
    return 1 + F.softplus(x)


def by_content(memory: Tensor, keys: Tensor, strengths: Tensor, masks: Tensor | None = None) -> Tensor:
    """Softmax over slots of strength times cosine likeness (NTM eq. 5-6, DNC "Content-based addressing").

    Args:
        memory: `[B, N, W]`.
        keys: `[B, R, W]`.
        strengths: `[B, R]`, not negative.
        masks: `[B, R, W]` in 0..1, or None. Key and slots are multiplied by them before they are compared (Csordás and
            Schmidhuber 2019, arXiv:1904.10278, section 3.1); no copy of the memory per head is made.

    Returns:
        `[B, R, N]`.
    """
    if masks is None:
        products = keys @ memory.mT
        slots = (memory.square().sum(2) + NORM_FLOOR).rsqrt().unsqueeze(1)
        lengths = keys.square().sum(2)
    else:
        squares = masks.square()
        products = (keys * squares) @ memory.mT
        slots = (squares @ memory.square().mT + NORM_FLOOR).rsqrt()
        lengths = (keys.square() * squares).sum(2)
    scale = strengths * (lengths + NORM_FLOOR).rsqrt()
    return (products * slots * scale.unsqueeze(2)).softmax(2)


def erase_and_add(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """The memory `[B, N, W]` after H heads wrote: all erase, then all add (NTM eq. 3-4, DNC "Reading and writing").

    Args:
        memory: `[B, N, W]`, before.
        weights: `[B, H, N]`.
        erase: `[B, H, W]`, in 0..1.
        add: `[B, H, W]`.
    """
    for head in range(weights.shape[1]):
        memory = memory * (1 - weights[:, head].unsqueeze(2) * erase[:, head].unsqueeze(1))
    return torch.baddbmm(memory, weights.mT, add)


def retention(free: Tensor, read_weights: Tensor) -> Tensor:
    """How much of each slot no read head frees, `[B, N]` (DNC, psi); free gates `[B, R]`, weights `[B, R, N]`."""
    kept = 1 - free.unsqueeze(2) * read_weights
    result = kept[:, 0]
    for head in kept.unbind(1)[1:]:  # `prod` has a gradient that takes far longer
        result = result * head
    return result


def update_usage(usage: Tensor, write_weights: Tensor, kept: Tensor) -> Tensor:
    """Usage `[B, N]` before this step's write: after the last one, less what was freed (DNC eq. for u)."""
    return (usage + write_weights - usage * write_weights) * kept


def allocation(usage: Tensor) -> Tensor:
    """How much each slot is to be written as a new one, `[B, N]` (DNC eq. 1): `1 - usage` times the product of the
    usages of all slots that are less used, which leaves the slot's own out.

    The product is the exponential of a sum of logarithms, whose gradient needs no special case for zeros. Slots that
    nothing tells apart have usages that differ by rounding alone; of such the first is taken, on whatever processor.
    """
    order = (usage.detach() * USAGE_RANKS).round().argsort(dim=1, stable=True)
    ascending = (USAGE_FLOOR + (1 - USAGE_FLOOR) * usage).gather(1, order)
    logarithms = ascending.log()
    before = (logarithms.cumsum(1) - logarithms).exp()
    return torch.zeros_like(usage).scatter(1, order, (1 - ascending) * before)


def update_precedence(precedence: Tensor, write_weights: Tensor) -> Tensor:
    """How much each slot was the last one written, `[B, N]` (DNC, "Temporal memory linkage")."""
    return (1 - write_weights.sum(1, keepdim=True)) * precedence + write_weights


def update_links(links: Tensor, write_weights: Tensor, precedence: Tensor) -> Tensor:
    """`links[b, i, j]`: how much slot i was written right after slot j, `[B, N, N]` (DNC eq. for L).

    `precedence` is that of before this write. The diagonal is zero. `links.link_step` computes the same faster.
    """
    row, column = write_weights.unsqueeze(2), write_weights.unsqueeze(1)
    links = (1 - row - column) * links + row * precedence.unsqueeze(1)
    return links * (1 - torch.eye(links.shape[1], dtype=links.dtype, device=links.device))


def follow(links: Tensor, read_weights: Tensor) -> tuple[Tensor, Tensor]:
    """(forward, backward) `[B, R, N]`: what was written after, and before, what was read last (DNC eq. for f, b)."""
    return read_weights @ links.mT, read_weights @ links


def sharpen(weights: Tensor, powers: Tensor) -> Tensor:
    """`weights ** powers`, normalised over the slots (NTM eq. 9; links: 2019, section 3.3).

    Args:
        weights: `[B, R, N]`, not negative.
        powers: `[B, R]`, at least 1.

    Rows whose largest weight is below `LINK_FLOOR`, such as links when nothing was written yet, stay near zero.
    """
    largest = weights.detach().amax(2, keepdim=True).clamp_min(LINK_FLOOR)  # cancels out; keeps powers from vanishing
    powered = (weights / largest).pow(powers.unsqueeze(2))
    return powered / powered.sum(2, keepdim=True).clamp_min(1e-3)


def shift(weights: Tensor, shifts: Tensor) -> Tensor:
    """Circular convolution of each head's weights with its distribution over shifts (NTM eq. 8).

    Args:
        weights: `[B, R, N]`.
        shifts: `[B, R, 2S + 1]`, for shifts of -S, ..., 0, ..., S slots; more than N of them wrap round.
    """
    slots, reach = weights.shape[2], shifts.shape[2] // 2
    if reach > _FEW_SHIFTS:
        return _shift_far(weights, shifts)
    if not reach:
        return weights * shifts
    round_ = weights if reach <= slots else weights.repeat(1, 1, -(-reach // slots))
    wide = torch.cat([round_[:, :, round_.shape[2] - reach :], weights, round_[:, :, :reach]], 2)
    moved = wide[:, :, :slots] * shifts[:, :, 2 * reach :]  # from the left, by `reach`
    for step in range(1, 2 * reach + 1):
        at = 2 * reach - step
        moved = torch.addcmul(moved, wide[:, :, step : step + slots], shifts[:, :, at : at + 1])
    return moved


def _shift_far(weights: Tensor, shifts: Tensor) -> Tensor:
    """`shift` through Fourier transforms, whose cost does not depend on S. Rounding must not leave weights below 0."""
    slots, reach = weights.shape[2], shifts.shape[2] // 2
    to = torch.arange(-reach, reach + 1, device=weights.device) % slots
    by = torch.zeros_like(weights).index_add(2, to, shifts)
    return torch.fft.irfft(torch.fft.rfft(weights) * torch.fft.rfft(by), n=slots).clamp(min=0)
