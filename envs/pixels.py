"""Classic control seen as pictures: Gymnasium's physics, drawn from the state for all copies at once.

Gymnasium's own pictures take about a millisecond each; these are small, grey and anti-aliased, so that movement by less
than a pixel shows, and are drawn on black, so that an empty frame is zero. One frame hides velocities: `stacked` makes
stacks of two or more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .base import Outcome, VectorEnv
from .errors import UnknownNameError
from .options import EnvOptions
from .registered import RegisteredEnv
from .spec import ObservationSpec

Number = np.ndarray | float  # [N], or the same for all


class Capsule(NamedTuple):
    """All points within `radius` of a segment of some length, in the units of Gymnasium's pictures, y upwards."""

    x0: Number
    y0: Number
    x1: Number
    y1: Number
    radius: float
    grey: float  # 0 to 255


@dataclass(frozen=True)
class Scene:
    """How one world is drawn."""

    window: tuple[float, float, float, float]  # left, right, bottom, top: the part of Gymnasium's picture that is shown
    moving: Callable[[np.ndarray], list[Capsule]]  # observations [N, ...] -> what moves
    still: tuple[Capsule, ...] = ()


def _draw_cartpole(obs: np.ndarray) -> list[Capsule]:
    x, angle = obs[:, 0] * 125 + 300, obs[:, 2]
    across, up = np.sin(angle), np.cos(angle)
    pole = Capsule(x, 107.5, x + 120 * across, 107.5 + 120 * up, 7, 255)
    return [Capsule(x - 11, 100, x + 11, 100, 15, 140), pole]


def _hill(position: np.ndarray) -> np.ndarray:
    return (np.sin(3 * position) * 0.45 + 0.55) * (600 / 1.8)


def _draw_car(obs: np.ndarray) -> list[Capsule]:
    position = obs[:, 0]
    slope = np.cos(3 * position)  # Gymnasium's angle; the hill's own would be atan(1.35 cos)
    across, up = np.cos(slope), np.sin(slope)
    x = (position + 1.2) * (600 / 1.8) - 8 * up
    y = _hill(position) + 10 + 8 * across
    return [Capsule(x - 11 * across, y - 11 * up, x + 11 * across, y + 11 * up, 12, 255)]


def _mountain(goal: float) -> Scene:
    positions = np.linspace(-1.2, 0.6, 25)
    x, y = (positions + 1.2) * (600 / 1.8), _hill(positions)
    hill = [Capsule(*ends, 2, 110) for ends in zip(x[:-1], y[:-1], x[1:], y[1:], strict=True)]
    foot, height = (goal + 1.2) * (600 / 1.8), float(_hill(np.array(goal)))
    top = height + 45
    flag = [Capsule(foot, height, foot, top + 5, 2, 110), Capsule(foot, top, foot + 20, top, 5, 110)]
    return Scene((0, 600, 0, 400), _draw_car, (*hill, *flag))


def _draw_acrobot(obs: np.ndarray) -> list[Capsule]:
    (cos1, sin1, cos2, sin2), length = obs[:, :4].T, 500 / 4.4
    x, y = 250 + length * sin1, 250 - length * cos1
    tip_x, tip_y = x + length * (sin1 * cos2 + cos1 * sin2), y - length * (cos1 * cos2 - sin1 * sin2)
    return [Capsule(250, 250, x, y, 11, 150), Capsule(x, y, tip_x, tip_y, 11, 255)]


def _draw_pendulum(obs: np.ndarray) -> list[Capsule]:
    length = 500 / 4.4
    return [Capsule(250, 250, 250 - length * obs[:, 1], 250 + length * obs[:, 0], 11, 255)]


SCENES = {
    "Acrobot-v1": Scene((0, 500, 0, 500), _draw_acrobot, (Capsule(0, 363.6, 500, 363.6, 2, 110),)),
    "CartPole-v1": Scene((0, 600, 75, 245), _draw_cartpole, (Capsule(0, 100, 600, 100, 1, 80),)),
    "MountainCar-v0": _mountain(0.5),
    "MountainCarContinuous-v0": _mountain(0.45),
    "Pendulum-v1": Scene((120, 380, 120, 380), _draw_pendulum),
}


class Rasteriser:
    """Draws a scene for many states at once, in `size` × `size` pixels."""

    def __init__(self, scene: Scene, size: int):
        left, right, bottom, top = scene.window
        self._scene = scene
        self._pixel = np.float32((right - left) / size), np.float32((top - bottom) / size)  # width, height
        self._x = (left + self._pixel[0] * (np.arange(size) + 0.5)).astype(np.float32)
        self._y = (top - self._pixel[1] * (np.arange(size) + 0.5)).astype(np.float32)  # the first row is the top
        self._background = np.zeros((1, size, size), np.float32)
        for capsule in scene.still:
            self._paint(self._background, capsule)

    def draw(self, obs: np.ndarray) -> np.ndarray:
        """Grey pictures, uint8 `[N, size, size]`, of the states that the world's own observations `[N, ...]` show."""
        canvas = np.repeat(self._background, len(obs), axis=0)
        for capsule in self._scene.moving(obs):
            self._paint(canvas, capsule)
        return canvas.astype(np.uint8)

    def _paint(self, canvas: np.ndarray, capsule: Capsule) -> None:
        """Lighten `canvas` float32 `[N, H, W]` where the capsule covers it; pixels on its edge in part."""
        ends = np.empty((4, len(canvas)), np.float32)
        for row, end in zip(ends, capsule[:4], strict=True):
            row[:] = end
        x0, y0, x1, y1 = ends
        length = np.hypot(x1 - x0, y1 - y0)
        across, up = (x1 - x0) / length, (y1 - y0) / length
        # what a pixel measures at right angles to the segment: the width over which the edge is smoothed
        edge = np.abs(up) * self._pixel[0] + np.abs(across) * self._pixel[1]
        margin = capsule.radius + edge.max()
        columns = _span(self._x, min(x0.min(), x1.min()) - margin, max(x0.max(), x1.max()) + margin)
        rows = _span(-self._y, -max(y0.max(), y1.max()) - margin, -min(y0.min(), y1.min()) + margin)
        dx, dy = self._x[None, columns] - x0[:, None], self._y[None, rows] - y0[:, None]

        along = (dx * across[:, None])[:, None, :] + (dy * up[:, None])[:, :, None]
        beyond = np.clip(along, 0, length[:, None, None])
        along -= beyond  # 0 beside the segment, else how far before or behind it
        distance = (dx * up[:, None])[:, None, :] - (dy * across[:, None])[:, :, None]
        distance *= distance
        along *= along
        distance += along
        np.sqrt(distance, out=distance)
        distance *= (-capsule.grey / edge)[:, None, None]
        distance += (capsule.grey * (0.5 + capsule.radius / edge))[:, None, None]
        np.clip(distance, 0, capsule.grey, out=distance)
        np.maximum(canvas[:, rows, columns], distance, out=canvas[:, rows, columns])


def _span(rising: np.ndarray, low: float, high: float) -> slice:
    """Where the numbers lie within `low` to `high`."""
    return slice(int(np.searchsorted(rising, low)), int(np.searchsorted(rising, high)))


class PixelEnv(VectorEnv):
    """Copies of a classic-control world, each seen as one grey picture, uint8 `[1, size, size]`."""

    def __init__(self, env_id: str, num_envs: int, options: EnvOptions):
        name = env_id.removeprefix("pixels/")
        if name not in SCENES:
            raise UnknownNameError("environment", env_id, [f"pixels/{known}" for known in SCENES])
        size = options.image_size or 64
        self._env = RegisteredEnv(name, num_envs, options)
        self._rasteriser = Rasteriser(SCENES[name], size)
        self.spec = replace(self._env.spec, id=env_id, observation=ObservationSpec((1, size, size), "uint8", 0, 255))

    def _draw(self, obs: np.ndarray) -> np.ndarray:
        return self._rasteriser.draw(obs)[:, None]

    def reset(self, seed: int) -> np.ndarray:
        return self._draw(self._env.reset(seed))

    def send(self, action: np.ndarray) -> None:
        self._env.send(action)

    def recv(self) -> Outcome:
        outcome = self._env.recv()
        next_obs = obs = self._draw(outcome.next_obs)
        if outcome.obs is not outcome.next_obs:
            ended = outcome.terminated | outcome.truncated
            obs = next_obs.copy()
            obs[ended] = self._draw(outcome.obs[ended])
        return outcome._replace(next_obs=next_obs, obs=obs)

    def render(self) -> np.ndarray:
        return self._env.render()

    def state_dict(self) -> dict[str, Any] | None:
        return self._env.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        return self._draw(self._env.load_state_dict(saved))

    def close(self) -> None:
        self._env.close()
