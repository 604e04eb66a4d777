"""The one loop over a data set: `pretrain` and `fit` both iterate over a `Trainer`.

It is a generator over updates, so that whoever iterates decides when to log, save and stop; there are no callbacks.
Nothing in it waits for the device: losses stay tensors until an epoch is over.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..agents.parts.compute import Compute
from ..data import Split
from ..encoders.base import Encoder
from ..envs.errors import UserError
from .optimise import Optimiser, Schedule, rate_factor

Batch = dict[str, Tensor]
Loss = Callable[[Batch], dict[str, Tensor]]
TOTAL = "loss"  # the name of the sum of all losses


class BatchSource(Protocol):
    """Where batches come from: `Batches` and its kin."""

    batch_size: int  # what a whole batch counts as

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def epoch(self) -> Iterator[Batch]:
        """What is left of the current epoch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, saved: dict[str, Any]) -> None: ...


class Means:
    """Means of losses, weighted by the examples they are of. Tensors are read only by `read`."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._weights: list[int] = []

    def add(self, values: Mapping[str, Tensor], weight: int) -> None:
        """`values` are scalars; every call bears the same names."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value.detach())
        self._weights.append(weight)

    def read(self) -> dict[str, float]:
        """The means of what was added since the last reading; forgets it."""
        if not self._weights:
            return {}
        names, weights = list(self._values), torch.tensor(self._weights, dtype=torch.float64)
        # one transfer from the device
        table = torch.stack([torch.stack(self._values[name]).float() for name in names]).cpu().double()
        self._values, self._weights = {}, []
        return dict(zip(names, (table @ weights / weights.sum()).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"values": {n: torch.stack(v) for n, v in self._values.items()}, "weights": list(self._weights)}

    def load_state_dict(self, saved: dict[str, Any], device: str = "cpu") -> None:
        self._values = {name: list(values.to(device).unbind()) for name, values in saved["values"].items()}
        self._weights = list(saved["weights"])


class Best:
    """The parameters and buffers of the epoch with the lowest validation loss, and how many epochs ago that was."""

    def __init__(self, patience: int):
        """`patience`: epochs without a better one before training stops; 0 = never stop, and keep nothing."""
        self.patience = patience
        self.value, self.epochs_ago = math.inf, 0
        self._tensors: dict[str, Tensor] = {}

    @property
    def is_over(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.epochs_ago

    def update(self, value: float, module: nn.Module) -> None:
        """Take note of an epoch."""
        if not self.patience:
            return
        if value < self.value:
            self.value, self.epochs_ago = value, 0
            self._tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        else:
            self.epochs_ago += 1

    def restore(self, module: nn.Module) -> None:
        """Give `module` the best state, if one was kept."""
        if self._tensors:
            module.load_state_dict(self._tensors)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "epochs_ago": self.epochs_ago, "tensors": dict(self._tensors)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.value, self.epochs_ago, self._tensors = saved["value"], saved["epochs_ago"], dict(saved["tensors"])


class Trainer:
    """Some epochs of updates of `module`; iterate over it.

    Iterating yields after every update, True when it was the last of an epoch. A trainer that has loaded a
    `state_dict` goes on exactly where it was, if whoever iterates has restored the module and torch's generator too.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        optimiser: Optimiser,
        batches: BatchSource,
        *,
        epochs: int,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        compute: Compute | None = None,
        after_update: Callable[[], None] = lambda: None,
        progress: tuple[float, float] = (0.0, 1.0),
    ):
        """
        Args:
            module: put into training mode; its buffers called `progress` are filled.
            loss: of a batch; values `[N]` or scalars, whose means are summed.
            schedule: of the rate, see `rate_factor`.
            progress: how much of the whole training is done at the beginning and at the end of these epochs.
        """
        self.module, self.optimiser, self.batches = module, optimiser, batches
        self.epochs, self.schedule, self.warmup, self.progress = epochs, schedule, warmup, progress
        self.compute = compute or Compute()
        self.after_update = after_update
        self.updates = 0  # done so far
        self.losses = Means()
        whole = self.compute.compile and not _compile_steps(module)
        self._loss = torch.compile(loss) if whole else loss
        self._clocks = clocks(module)

    @property
    def total_updates(self) -> int:
        return self.epochs * len(self.batches)

    @property
    def epoch(self) -> int:
        """Complete epochs."""
        return self.updates // len(self.batches)

    @property
    def is_over(self) -> bool:
        return self.updates >= self.total_updates

    def __iter__(self) -> Iterator[bool]:
        per_epoch = len(self.batches)
        while not self.is_over:
            for batch in self.batches.epoch():
                self._update(batch)
                self.updates += 1
                yield self.updates % per_epoch == 0

    def _update(self, batch: Batch) -> None:
        done = self.updates / self.total_updates
        if self.schedule != "constant" or self.warmup:
            self.optimiser.scale_rates(rate_factor(self.schedule, done, self.warmup))
        for clock in self._clocks:
            clock.fill_(self.progress[0] + (self.progress[1] - self.progress[0]) * done)
        if not self.module.training:  # whoever iterates may have evaluated it
            self.module.train()
        with self.compute.autocast():
            losses = means_of(self._loss(batch))
        self.optimiser.step(losses[TOTAL])
        self.after_update()
        self.losses.add(losses, len(batch["x"]))

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimiser": self.optimiser.state_dict(),
            "batches": self.batches.state_dict(),
            "losses": self.losses.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(saved["optimiser"])
        self.batches.load_state_dict(saved["batches"])
        self.losses.load_state_dict(saved["losses"], self.compute.device)
        self.updates = saved["updates"]


def _compile_steps(module: nn.Module) -> bool:
    """Have the encoders in `module` compile their steps; whether one of them has such."""
    return any([part.compile_step() for part in module.modules() if isinstance(part, Encoder)])


def clocks(module: nn.Module) -> list[Tensor]:
    """The buffers by which an encoder reads how much of the training is done."""
    return [buffer for name, buffer in module.named_buffers() if name.rpartition(".")[2] == "progress"]


def means_of(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each loss, float32 scalars, and their sum as "loss"."""
    means = {name: value.float().mean() for name, value in losses.items()}
    return means | {TOTAL: functools.reduce(torch.add, means.values())}


@torch.no_grad()
def evaluate_losses(
    module: nn.Module, loss: Loss, split: Split, batch_size: int, compute: Compute | None = None, seed: int = 0
) -> dict[str, float]:
    """Mean losses over `split`, in order, in eval mode; what is drawn follows from `seed`, and no generator is moved.

    The module is back in the mode it was in afterwards.
    """
    compute = compute or Compute()
    was_training, means = module.training, Means()
    module.eval()
    devices = [compute.device] if torch.device(compute.device).type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), compute.autocast():
            torch.manual_seed(seed)
            for batch in in_order(split, batch_size, compute.device):
                means.add(means_of(loss(batch)), len(batch["x"]))
    finally:
        module.train(was_training)
    return means.read()


def in_order(split: Split, batch_size: int, device: str) -> Iterator[Batch]:
    """All examples of `split` once, the last batch perhaps smaller."""
    for start in range(0, len(split), batch_size):
        index = torch.arange(start, min(start + batch_size, len(split)), device=split.label.device)
        yield {name: value.to(device) for name, value in split.take(index).items()}


def require_finite(losses: Mapping[str, float], epoch: int) -> None:
    """Raises UserError for a loss that is not a number, which no later epoch would mend."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise UserError(f"{name} is {value} in epoch {epoch}: training diverged; lower --learning-rate")
