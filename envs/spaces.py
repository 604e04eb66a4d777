"""Gymnasium's spaces in this project's words: what is shown becomes float32 numbers or uint8 images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gymnasium import Space, spaces

from .errors import SpecError, UserError
from .spec import ActionSpec, ObservationSpec

Convert = Callable[[np.ndarray], np.ndarray]  # raw observations [B, ...] of the space to those of the spec


def read_observations(space: Space, env_id: str) -> tuple[ObservationSpec, Convert]:
    """What a world with this observation space shows, and how to convert a batch of its raw observations.

    Images (uint8 with three axes, or two) become `[C, H, W]`; other boxes float32; `Discrete` and `MultiDiscrete`
    one-hot float32; `MultiBinary` float32.

    Raises:
        SpecError: a composite space, or one without numbers.
    """
    if isinstance(space, spaces.Box):
        return _read_box(space)
    if isinstance(space, spaces.Discrete):
        return _one_hots(np.array([space.n]), int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hots(space.nvec.ravel(), space.start.ravel())
    if isinstance(space, spaces.MultiBinary):
        return ObservationSpec(space.shape, "float32", 0.0, 1.0), _as_float32
    raise SpecError(
        f"{env_id} shows a {type(space).__name__} space, but agents read a Box, Discrete, MultiBinary or MultiDiscrete;"
        " register it behind gymnasium.wrappers.FlattenObservation"
    )


def read_actions(space: Space, env_id: str) -> tuple[ActionSpec, Convert]:
    """What a world with this action space accepts, and how to convert a checked batch of actions to its own.

    Raises:
        SpecError: neither `Discrete` nor a `Box` of floats.
    """
    if isinstance(space, spaces.Discrete):
        return _read_discrete_actions(int(space.n), int(space.start))
    if isinstance(space, spaces.Box) and space.dtype is not None and np.issubdtype(space.dtype, np.floating):
        return _read_box_actions(space)
    raise SpecError(
        f"{env_id} takes actions from {space}, but agents here choose from a Discrete space or a Box of floats"
    )


def _read_box(space: spaces.Box) -> tuple[ObservationSpec, Convert]:
    shape = space.shape
    if space.dtype == np.uint8 and len(shape) == 3:
        if shape[-1] < shape[0]:
            spec = ObservationSpec((shape[2], shape[0], shape[1]), "uint8", 0, 255)
            return spec, lambda raw: np.ascontiguousarray(raw.transpose(0, 3, 1, 2))
        return ObservationSpec(shape, "uint8", 0, 255), lambda raw: raw
    if space.dtype == np.uint8 and len(shape) == 2:
        return ObservationSpec((1, *shape), "uint8", 0, 255), lambda raw: raw[:, None]
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    if len(shape) == 1:
        return ObservationSpec(shape, "float32", tuple(low.tolist()), tuple(high.tolist())), _as_float32
    return ObservationSpec(shape, "float32", float(low.min()), float(high.max())), _as_float32


def _as_float32(raw: np.ndarray) -> np.ndarray:
    return raw.astype(np.float32, copy=False)


def _one_hots(counts: np.ndarray, start: int | np.ndarray) -> tuple[ObservationSpec, Convert]:
    """One-hot codes side by side, one for each of `counts`."""
    total = int(counts.sum())
    offset = np.cumsum(counts) - counts - start

    def convert(raw: np.ndarray) -> np.ndarray:
        codes = np.zeros((len(raw), total), np.float32)
        np.put_along_axis(codes, raw.reshape(len(raw), -1) + offset, 1.0, axis=1)
        return codes

    return ObservationSpec((total,), "float32", 0.0, 1.0), convert


def _read_discrete_actions(count: int, start: int) -> tuple[ActionSpec, Convert]:
    def convert(action: np.ndarray) -> np.ndarray:
        # negative numbers are huge ones when read without a sign
        if (action.view(np.uint64) >= count).any():
            raise UserError(f"actions must be 0 to {count - 1}, not {action.tolist()}")
        return action + start if start else action

    return ActionSpec(count=count), convert


def _read_box_actions(space: spaces.Box) -> tuple[ActionSpec, Convert]:
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    largest = np.finfo(np.float32).max
    floor, ceiling = np.maximum(low, -largest), np.minimum(high, largest)  # an infinite action is no action

    def convert(action: np.ndarray) -> np.ndarray:
        # false for NaN too
        if not ((floor <= action) & (action <= ceiling)).all():
            raise UserError(
                f"actions must be finite and within {low.tolist()} to {high.tolist()}, not {action.tolist()}"
            )
        return action.astype(space.dtype, copy=False)

    return ActionSpec(shape=space.shape, low=tuple(low.ravel().tolist()), high=tuple(high.ravel().tolist())), convert
