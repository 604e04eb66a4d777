"""What a trainer needs to know of a learner's stages: which there are, how long each takes, what it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..data import Split
from ..encoders.base import Encoder, Learner, Stage
from ..envs.errors import UserError
from .epochs import in_order

MONITORED = 1000  # examples of each split that are watched
INPUT_CHUNK = 1000  # examples at a time, when a stage computes what it reads


def learner_stages(encoder: Encoder, name: str) -> Sequence[Stage]:
    """The stages in which `encoder` trains by itself. Raises UserError if it cannot."""
    if not isinstance(encoder, Learner):
        raise UserError(
            f"encoder {name!r} has no loss of its own, so it cannot be pre-trained; "
            "`saccade list learners` names those that can"
        )
    stages = encoder.stages()
    if not stages:
        raise UserError(f"encoder {name!r} has no stage to train")
    return stages


def share_epochs(stages: Sequence[Stage], epochs: int) -> list[int]:
    """So many epochs for each stage: in proportion to its share, whole ones, at least one, `epochs` in all.

    Raises:
        UserError: fewer epochs than stages.
    """
    if epochs < len(stages):
        names = ", ".join(stage.name for stage in stages)
        raise UserError(f"{epochs} epochs are too few for {len(stages)} stages ({names}); give --epochs {len(stages)}")
    total, shares = sum(stage.epochs for stage in stages), list[int]()
    for number in range(len(stages)):
        wanted = round(sum(stage.epochs for stage in stages[: number + 1]) / total * epochs) - sum(shares)
        most = epochs - sum(shares) - (len(stages) - number - 1)  # every later stage needs one
        shares.append(max(1, min(wanted, most)))
    return shares


def stage_inputs(encoder: Encoder, stage: Stage, split: Split, device: str) -> Split:
    """What `stage` reads of `split`: the data, or what earlier stages make of them, computed once in eval mode."""
    if stage.input is None:
        return split
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        parts = [stage.input(batch["x"]).float() for batch in in_order(split, INPUT_CHUNK, device)]
    encoder.train(was_training)
    return Split(torch.cat(parts), split.label.to(device))


def monitored(encoder: Encoder, stage: Stage, train: Split, validation: Split, device: str) -> dict[str, float]:
    """What `stage` watches besides its losses, of the first examples of both splits, in eval mode; the same draws each
    time, and no generator is moved."""
    if stage.monitor is None:
        return {}
    was_training = encoder.training
    encoder.eval()
    splits = [(split, min(MONITORED, len(split))) for split in (train, validation)]
    parts = [split.take(torch.arange(count, device=split.label.device)) for split, count in splits]
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        found = stage.monitor(*(part["x"].to(device) for part in parts))
    encoder.train(was_training)
    return {f"monitor/{name}": float(value) for name, value in found.items()}


@contextmanager
def only_these(encoder: Encoder, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for `parameters` alone, as far as they have any: those of other stages cost time and serve nobody."""
    wanted = {id(parameter) for parameter in parameters}
    others = [p for p in encoder.parameters() if p.requires_grad and id(p) not in wanted]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
