"""Parameters and RMSProp statistics that many actor-learners share without locks (Mnih et al. 2016, section 4 and
algorithm S3; Recht et al. 2011, Hogwild).

Everything is one flat float32 vector: reading the parameters is one copy, and a gradient is one array, on one machine
or over a network. Two processes that write the same number at once may lose one of the two changes to it; no number is
ever half written. Whoever is killed in mid-write leaves a gradient that is applied in part, which is no worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .schedules import Linear

STEPS, UPDATES, LAG_SUM, LAG_MOST = range(4)  # columns of a tally, one row per worker


class Piece(NamedTuple):
    """A stretch of the flat vector under one rule."""

    start: int
    stop: int
    rule: str  # "rmsprop" or "sgd"
    rate: float  # learning rate at the start


class Rules(NamedTuple):
    """How a gradient changes parameters. Plain values: it travels to wherever the parameters are."""

    pieces: tuple[Piece, ...]
    decay: float  # of the mean square of gradients
    epsilon: float  # inside the root
    decay_steps: int  # environment steps of all workers in which rates fall linearly to 0; 0: constant

    @property
    def size(self) -> int:
        return self.pieces[-1].stop if self.pieces else 0

    @torch.no_grad()
    def apply(self, parameters: Tensor, squares: Tensor, gradient: Tensor, steps: int) -> None:
        """One update in place, all float32 `[P]`; `steps`: environment steps of all workers so far."""
        factor = Linear(1.0, 0.0, self.decay_steps)(steps) if self.decay_steps else 1.0
        for start, stop, rule, rate in self.pieces:
            values, slope = parameters[start:stop], gradient[start:stop]
            if rule == "sgd":
                values.add_(slope, alpha=-rate * factor)
                continue
            square = squares[start:stop]
            square.mul_(self.decay).addcmul_(slope, slope, value=1 - self.decay)
            values.addcdiv_(slope, (square + self.epsilon).sqrt_(), value=-rate * factor)


class Flat:
    """A network's trained parameters, made views of one vector, `values` float32 `[P]`."""

    def __init__(self, groups: Sequence[tuple[str, float, list[nn.Parameter]]]):
        """`groups`: (rule, rate, parameters), as `Optimisers.groups` gives them."""
        self.parameters = [parameter for _, _, parameters in groups for parameter in parameters]
        size, device = sum(p.numel() for p in self.parameters), self.parameters[0].device
        self.values, self.gradient = torch.zeros(size, device=device), torch.zeros(size, device=device)
        slopes, pieces, start = [], [], 0
        for rule, rate, parameters in groups:
            begin = start
            for parameter in parameters:
                stop, layout = start + parameter.numel(), (parameter.shape, parameter.stride())
                view = self.values[start:stop].as_strided(*layout, start)
                view.copy_(parameter.detach())
                parameter.data = view
                slopes.append(self.gradient.as_strided(*layout, start))
                start = stop
            pieces.append(Piece(begin, start, rule, rate))
        self.pieces, self._slopes = tuple(pieces), slopes

    def changed(self) -> None:
        """Say so after `values` were written to: torch counts versions of parameters apart from those of the vector."""
        torch.autograd.graph.increment_version(self.parameters)

    def gather(self) -> Tensor:
        """The gradients that `backward` has left as one vector, 0 where there is none; the next call overwrites it."""
        reached = [
            (slope, p.grad) for slope, p in zip(self._slopes, self.parameters, strict=True) if p.grad is not None
        ]
        if len(reached) < len(self._slopes):
            self.gradient.zero_()
        torch._foreach_copy_([slope for slope, _ in reached], [gradient for _, gradient in reached])
        return self.gradient

    def views(self, vector: Tensor) -> list[Tensor]:
        """A vector `[P]` as tensors shaped like the parameters that are under RMSProp."""
        found, start = [], 0
        under = [piece for piece in self.pieces if piece.rule == "rmsprop"]
        for parameter in self.parameters:
            if any(piece.start <= start < piece.stop for piece in under):
                found.append(vector.as_strided(parameter.shape, parameter.stride(), start))
            start += parameter.numel()
        return found


class Receipt(NamedTuple):
    """What became of a gradient."""

    lag: int  # updates by others, between the reading of the parameters it was computed at and its application
    steps: int  # environment steps of all workers so far
    is_last: bool  # the run is over


class Seat(Protocol):
    """One worker's way to the parameters."""

    def take(self, into: Tensor) -> None:
        """Copy the parameters, float32 `[P]`."""
        ...

    def bring(self, gradient: Tensor, steps: int, into: Tensor) -> Receipt:
        """Apply a gradient `[P]` that `steps` new environment steps gave, and `take`."""
        ...

    def shift(self, change: Tensor) -> None:
        """Add `change` `[P]` to the parameters: what an encoder's own rule made of them."""
        ...


class SharedParameters:
    """Parameters, statistics, and the tally of who did what; after `share`, in memory that processes can share."""

    def __init__(self, values: Tensor, rules: Rules, workers: int = 1):
        """`values` float32 `[P]` are copied."""
        self.rules = rules
        self.values = values.detach().cpu().clone()
        self.squares = torch.zeros_like(self.values)
        self.tally = torch.zeros(workers, 4, dtype=torch.int64)  # a row is written by its worker alone
        self.base = 0  # environment steps before this sitting
        self.total = 0  # environment steps after which the run is over; 0: it has no end
        self.stop = torch.zeros(1, dtype=torch.int64)  # not 0: the run is over now

    def share(self, workers: int) -> SharedParameters:
        """Move into shared memory, with a tally for so many workers."""
        self.tally = torch.zeros(workers, 4, dtype=torch.int64)
        for tensor in (self.values, self.squares, self.tally, self.stop):
            tensor.share_memory_()
        return self

    def seat(self, worker: int) -> LocalSeat:
        return LocalSeat(self, worker)


class LocalSeat:
    """A seat at parameters in this machine's memory."""

    def __init__(self, shared: SharedParameters, worker: int):
        self.shared, self._tally, self._stop = shared, shared.tally.numpy(), shared.stop.numpy()
        self._row = self._tally[worker]
        self._seen = 0  # updates of all workers when the parameters were read

    def take(self, into: Tensor) -> None:
        self._seen = int(self._tally[:, UPDATES].sum())
        into.copy_(self.shared.values)

    def bring(self, gradient: Tensor, steps: int, into: Tensor) -> Receipt:
        shared = self.shared
        self._row[STEPS] += steps
        total = shared.base + int(self._tally[:, STEPS].sum())
        lag = int(self._tally[:, UPDATES].sum()) - self._seen
        shared.rules.apply(shared.values, shared.squares, gradient.to("cpu"), total)
        note_update(self._row, lag)
        self.take(into)
        is_last = bool(self._stop[0]) or 0 < shared.total <= total
        return Receipt(lag, total, is_last)

    def shift(self, change: Tensor) -> None:
        self.shared.values.add_(change.to("cpu"))


def note_update(row: np.ndarray, lag: int) -> None:
    """Count an update in a worker's row of the tally."""
    row[UPDATES] += 1
    row[LAG_SUM] += lag
    row[LAG_MOST] = max(row[LAG_MOST], lag)
