"""log Z of restricted Boltzmann machines, exactly or estimated from either side, and with it how likely data are.

Annealed importance sampling (Neal 2001; for these machines Salakhutdinov & Murray 2008, ICML, section 4) walks from
independent visible units to the machine. The mean of its weights is an unbiased estimate of Z / Z_0, so its log is too
low on average, and likelihoods computed from it are flattered. The walk backwards is unbiased for Z_0 / Z when it
begins at samples of the machine, so that its log Z is too high on average (Grosse et al. 2015, arXiv:1511.02543);
when it begins at an example, its weight is a likelihood that is too low on average (RAISE; Burda et al. 2015,
arXiv:1412.8566, algorithm 2). A number that both sides agree on can be trusted.

Give machines in float64 (`Machine.to`) where the last digits count. A step of either walk costs two matrix products.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...envs.errors import UserError
from .gibbs import Machine, free_energy, hidden_free_energy, hidden_input, sample_visible
from .tempering import Path

MOST_UNITS = 24  # that are enumerated: 2^24 states take minutes
PIECES = ((0.5, 500), (0.9, 4000), (1.0, 10_000))  # where the schedule ends a piece, and its steps of 14,500


class Estimate(NamedTuple):
    """A log partition function in nats, with an interval of three standard errors of the weights to either side."""

    value: float
    low: float  # -inf where three standard errors reach below 0
    high: float  # inf likewise, of walks backwards
    standard_error: float  # of the mean weight, as a share of it; while small also that of `value`
    effective: float  # chains that the weights are worth: (sum w)^2 / sum w^2
    seconds: float


def temperatures(steps: int) -> list[float]:
    """`steps` + 1 inverse temperatures from 0 to 1, dense near 1 in the shares that Salakhutdinov & Murray chose.

    Raises:
        UserError: fewer than 3 steps.
    """
    if steps < len(PIECES):
        raise UserError(f"annealing needs at least {len(PIECES)} steps, not {steps}")
    total, begin, done, betas = sum(share for _, share in PIECES), 0.0, 0, [0.0]
    shares = list(itertools.accumulate(share for _, share in PIECES))
    for number, (end, _) in enumerate(PIECES):
        count = max(round(steps * shares[number] / total), number + 1) - done
        betas += [begin + (end - begin) * (n + 1) / count for n in range(count)]
        begin, done = end, done + count
    return betas


@torch.no_grad()
def exact_log_partition(machine: Machine, total: int | None = None, block: int = 1 << 14) -> float:
    """log Z by enumeration of the smaller layer of bits, `block` states at once.

    Args:
        total: with "softmax", the number of words of the texts that are summed over.

    Raises:
        UserError: no layer of bits is small enough.
    """
    terms = [-energies for _, energies in _enumerated(machine, total, block)]
    return float(torch.stack([term.logsumexp(0) for term in terms]).logsumexp(0))


@torch.no_grad()
def exact_samples(
    machine: Machine, count: int, generator: torch.Generator | None = None, total: int | None = None
) -> Tensor:
    """Independent samples of the machine itself, v `[count, V]`, by enumeration; UserError where it is too large.

    Args:
        total: with "softmax", the number of words of each.
    """
    states, energies = (torch.cat(parts) for parts in zip(*_enumerated(machine, total, 1 << 14), strict=True))
    chosen = states[torch.multinomial((-energies).softmax(0), count, replacement=True, generator=generator)]
    of_visible = chosen.shape[1] == machine.weight.shape[1] and _sums_hidden(machine)
    if of_visible:
        return chosen
    totals = None if total is None else chosen.new_full((count,), total)
    return sample_visible(machine, chosen, totals, generator)


def _sums_hidden(machine: Machine) -> bool:
    """Whether the visible units are enumerated, and the hidden ones summed out."""
    hidden, visible = machine.weight.shape
    return machine.visible == "bernoulli" and (machine.hidden != "bernoulli" or visible < hidden)


def _enumerated(machine: Machine, total: int | None, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All states of a layer, `[n, units]` at a time, with their free energies `[n]`."""
    hidden, visible = machine.weight.shape
    of_visible = _sums_hidden(machine)
    units = visible if of_visible else hidden
    if units > MOST_UNITS or not (of_visible or machine.hidden == "bernoulli"):
        raise UserError(
            f"a machine of {visible} {machine.visible} and {hidden} {machine.hidden} units cannot be enumerated: one "
            f"layer must be at most {MOST_UNITS} bits; use annealed importance sampling"
        )
    places = torch.arange(units, device=machine.weight.device)
    for begin in range(0, 1 << units, block):
        numbers = torch.arange(begin, min(begin + block, 1 << units), device=places.device)
        states = ((numbers.unsqueeze(1) >> places) & 1).to(machine.weight.dtype)
        yield states, free_energy(machine, states) if of_visible else hidden_free_energy(machine, states, total)


@torch.no_grad()
def annealed_log_partition(
    path: Path,
    betas: Sequence[float],
    chains: int = 100,
    total: int | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """log Z by annealed importance sampling.

    Args:
        path: from independent units to the machine.
        betas: rising from 0 to 1, as from `temperatures`.
        chains: independent walks, all at once.
        total: with "softmax", the number of words.

    Raises:
        UserError: rectified hidden units, whose steps are only nearly those of their energy.
    """
    began = time.perf_counter()
    weights = annealed_weights(path, betas, chains, total, generator)
    return _estimate(weights, path.start_log_partition(total), 1, time.perf_counter() - began)


@torch.no_grad()
def annealed_weights(
    path: Path, betas: Sequence[float], chains: int, total: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Log weights `[chains]` in float64 of walks from beta 0 to beta 1; the mean of exp is Z / Z_0."""
    _require_exact_steps(path.machine)
    totals = None if total is None else path.base.new_full((chains,), total)
    v = path.start(chains, totals, generator)
    weights = torch.zeros(chains, dtype=torch.float64, device=v.device)
    for before, beta in itertools.pairwise(betas):
        a = hidden_input(path.machine, v)
        weights += path.log_density(v, a, beta) - path.log_density(v, a, before)
        if beta < 1:
            v = path.step(a, beta, totals, generator)
    return weights


@torch.no_grad()
def reverse_log_partition(
    path: Path, samples: Tensor, betas: Sequence[float], generator: torch.Generator | None = None
) -> Estimate:
    """log Z by the walk backwards from `samples` `[N, V]` of the machine, exact ones or of chains that have mixed.

    Where they are not quite samples of the machine, the estimate is too low by what they are more likely than those.

    Raises:
        UserError: rectified hidden units, or texts that differ in how many words they have.
    """
    began, total = time.perf_counter(), _total(path.machine, samples)
    weights = reverse_weights(path, samples, betas, generator)
    return _estimate(weights, path.start_log_partition(total), -1, time.perf_counter() - began)


@torch.no_grad()
def reverse_weights(
    path: Path, start: Tensor, betas: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """Log weights `[N]` in float64 of walks from `start` `[N, V]` at beta 1 down to beta 0 (`betas` as they rise)."""
    _require_exact_steps(path.machine)
    totals = start.sum(1) if path.machine.visible == "softmax" else None
    a = hidden_input(path.machine, start)
    weights = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    for after, beta in itertools.pairwise(reversed(betas)):
        v = path.step(a, after, totals, generator)
        a = hidden_input(path.machine, v)
        weights += path.log_density(v, a, beta) - path.log_density(v, a, after)
    return weights


@torch.no_grad()
def reverse_log_likelihood(
    path: Path, x: Tensor, betas: Sequence[float], chains: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """log p(x) of examples `[N, V]`, too low on average, `[N]` in float64 (RAISE); `chains` walks for each.

    All N times `chains` walks are taken at once. Raises as `reverse_log_partition`.
    """
    total = _total(path.machine, x)
    weights = reverse_weights(path, x.repeat(chains, 1), betas, generator).view(chains, len(x))
    mean = weights.logsumexp(0) - math.log(chains)
    return mean - free_energy(path.machine, x).double() - path.start_log_partition(total)


@torch.no_grad()
def log_likelihood(machine: Machine, x: Tensor, log_partition: float, rows: int = 1000) -> Tensor:
    """log p(x) of examples `[N, V]`, `[N]` in float64; UserError for texts of different lengths, which have different
    partition functions."""
    _total(machine, x)
    return torch.cat([-free_energy(machine, part).double() for part in x.split(rows)]) - log_partition


@torch.no_grad()
def pseudo_log_likelihood(
    machine: Machine, v: Tensor, generator: torch.Generator | None = None, rows: int = 1000
) -> Tensor:
    """V times log p(v_i | the other elements) of one element i drawn for each row of bits v `[N, V]`, `[N]`; a measure
    that needs no log Z (Besag 1975), as scikit-learn scores its machines."""
    found = []
    for part in v.split(rows):
        places = torch.randint(part.shape[1], (len(part), 1), generator=generator, device=part.device)
        flipped = part.scatter(1, places, 1 - part.gather(1, places))
        gain = free_energy(machine, flipped) - free_energy(machine, part)
        found.append(part.shape[1] * torch.nn.functional.logsigmoid(gain))
    return torch.cat(found)


def _total(machine: Machine, x: Tensor) -> int | None:
    """How many words each of these texts `[N, V]` has; None for other units than "softmax"."""
    if machine.visible != "softmax":
        return None
    totals = x.sum(1)
    if (totals != totals[0]).any():
        raise UserError("texts of unequal length have different partition functions: give those of one length")
    return int(totals[0])


def _estimate(weights: Tensor, start: float, sign: int, seconds: float) -> Estimate:
    """log Z = start + sign * log of the mean weight."""
    count = len(weights)
    mean = float(weights.logsumexp(0)) - math.log(count)
    relative = (weights - mean).exp()
    error = float(relative.std() / count**0.5) if count > 1 else math.inf
    effective = float(relative.sum() ** 2 / relative.square().sum())
    below = math.log1p(-3 * error) if 3 * error < 1 else -math.inf
    low, high = sorted(start + sign * (mean + part) for part in (below, math.log1p(3 * error)))
    return Estimate(start + sign * mean, low, high, error, effective, seconds)


def _require_exact_steps(machine: Machine) -> None:
    if machine.hidden == "relu":
        raise UserError("annealed importance sampling needs exact Gibbs steps, which rectified units do not have")
