"""Frames recorded from an environment, as a data set: `env:ID`. Stacks are rebuilt when they are asked for."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from torch import Tensor

from ..envs.errors import UserError
from ..envs.recorder import Policy, Recipe, Recording, open_recording, record
from ..envs.recording import FIRST
from . import files
from .base import Dataset, Split

HELD_OUT_SHARE = 20  # the last tenth of the rows: a twentieth each for validation and for testing
GAP_SHARE = 200  # so large a part of the rows is left out between two splits: frames resemble their neighbours


@dataclass(frozen=True)
class Frames(Split):
    """Observations of recorded episodes, and what they led to."""

    # x: single frames [M, *frame_shape]: the slots of a recording, row by row
    # label: -1
    slot: Tensor  # int64 [N] where the newest frame of each example lies in `x`
    age: Tensor  # int64 [M] steps since the episode began
    action: Tensor  # int64 [M], or float32 [M, *shape]
    columns: int  # environments: the frame before slot s is in slot s - columns
    stack: int = 1  # frames in one observation
    step: int = 0  # "next_x" is so many steps later; 0: there is none

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """As `Split.take`. With a step, also "next_x" `[B, ...]`, of the same episode, and "action" `[B, ...]`, which
        was taken on "x"."""
        slot = self.slot.index_select(0, index)
        batch = {"x": self._observe(slot), "label": self.label.index_select(0, index)}
        if self.step:
            batch["next_x"] = self._observe(slot + self.step * self.columns)
            batch["action"] = self.action.index_select(0, slot)
        return batch

    def _observe(self, slot: Tensor) -> Tensor:
        """Observations `[B, ...]`: the stacks that end at `slot` `[B]`, with zeros for what lies before the episode."""
        if self.stack == 1:
            return self.x.index_select(0, slot)
        back = torch.arange(self.stack - 1, -1, -1, device=slot.device)
        missing = (back > self.age.index_select(0, slot)[:, None]).flatten()  # [B * stack]
        source = (slot[:, None] - back * self.columns).flatten().masked_fill_(missing, 0)
        stacks = self.x.index_select(0, source)
        if stacks.device.type == "cpu":
            stacks.index_fill_(0, missing.nonzero().flatten(), 0)
        else:  # without asking the device how many are missing
            stacks.masked_fill_(missing.view(-1, *[1] * (stacks.dim() - 1)), 0)
        return stacks.view(len(slot), -1, *stacks.shape[2:])

    def to(self, device: str) -> Frames:
        tensors = {name: getattr(self, name).to(device) for name in ("x", "label", "slot", "age", "action")}
        return replace(self, **tensors)


def load(recipe: Recipe, frames: int, step: int, policy: Policy | None) -> Dataset:
    """The first `frames` observations of the recording by `recipe`, which is made, or gone on with, where they are not
    there. See `saccade.data.load`.

    The splits are consecutive parts of it, with a gap between them, so that no frame is in two of them.

    Raises:
        UserError: too few frames to be split, or what `record` raises.
    """
    if step < 0:
        raise UserError(f"the step must be 0 or more, not {step}")
    if frames < 1:
        raise UserError(f"the number of frames must be positive, not {frames}")
    recording = _find(recipe, frames, policy)
    rows, stack = recipe.rows(frames), recording.observation.stack
    gap = max(stack, rows // GAP_SHARE)
    held_out = max(rows // HELD_OUT_SHARE, gap + step + 1)
    first, second = rows - 2 * held_out, rows - held_out
    if first < held_out:
        needed = 3 * (gap + step + 1) * recipe.num_envs
        raise UserError(f"{frames} frames are too few to be split; record {needed:,} or more")
    episode = np.cumsum(recording.flags[:rows] & FIRST, axis=0, dtype=np.int64)
    train, validation, test = (
        _part(recording, episode, slice(*ends), skip, step)
        for ends, skip in (((0, first), 0), ((first, second), gap), ((second, rows), gap))
    )
    if not all(map(len, (train, validation, test))):
        raise UserError(f"the episodes of {recipe.env} are too short for a step of {step}, or too few were recorded")
    return Dataset(f"env:{recipe.env}", recording.observation, train, validation, test)


def _part(recording: Recording, episode: np.ndarray, rows: slice, skip: int, step: int) -> Frames:
    """The examples within `rows`, but for the first `skip` of these. `episode` `[rows, num_envs]` counts episodes."""
    frames, columns = recording.frames[rows], recording.flags.shape[1]
    # Rows run through all slots of a column, so an episode's first row is the last FIRST at or before a row.
    row = np.arange(len(episode))[:, None]
    began = np.maximum.accumulate(np.where(recording.flags[: len(episode)] & FIRST, row, 0), axis=0)
    age, episode = (row - began)[rows], episode[rows]
    complete = np.zeros(age.shape, bool)
    complete[skip : len(age) - step] = (episode[: len(age) - step] == episode[step:])[skip:]
    slot = np.flatnonzero(complete)
    return Frames(
        torch.from_numpy(frames).flatten(0, 1),
        torch.full((len(slot),), -1),
        torch.from_numpy(slot),
        torch.from_numpy(age.reshape(-1)),
        torch.from_numpy(recording.action[rows]).flatten(0, 1),
        columns,
        recording.observation.stack,
        step,
    )


def _find(recipe: Recipe, frames: int, policy: Policy | None) -> Recording:
    """A recording of at least `frames` observations: one that is there, or made now."""
    name = _name(recipe)
    for folder in files.folders():
        with suppress(UserError):  # a damaged one is named when it is recorded into
            recording = open_recording(folder / "frames" / name)
            if recording.rows >= recipe.rows(frames) and recording.recipe == recipe.as_json():
                return recording
    directory = files.home() / "frames" / name
    _record(directory, recipe, frames, policy)
    return open_recording(directory)


def _record(directory: Path, recipe: Recipe, frames: int, policy: Policy | None) -> None:
    screen = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(f"recording {recipe.env}", total=recipe.rows(frames) * recipe.num_envs)
        for done in record(directory, recipe, frames, policy):
            progress.update(task, completed=done)


def _name(recipe: Recipe) -> str:
    """Of the recording's folder: readable, and different for different recipes."""
    readable = re.sub(r"[^\w.-]+", "-", f"{recipe.env}-{recipe.policy}-seed{recipe.seed}")
    digest = hashlib.sha256(json.dumps(recipe.as_json(), sort_keys=True).encode()).hexdigest()
    return f"{readable}-{digest[:8]}"
