"""What is seen in a maze: rays are cast to the walls of many mazes at once, then pictures are painted column by column.

Walls stand on the lines between square cells of side 1; the eye is at half their height. A maze's walls are two tables
of colours, 0 where a line is open: `upright[row, line]` on the lines x = 0, 1, ... and `level[column, line]` on the
lines y = 0, 1, ...; y grows downwards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

HEADINGS = 12  # directions to look in, clockwise from east
WALL_HEIGHT = 0.6
_HALF_WIDTH = math.tan(math.radians(45.0))  # of what is seen, at distance 1
# colours of walls, from 1 on; none resembles what is to be found
WALL_COLOURS = np.array(
    [(0, 0, 0), (165, 115, 75), (85, 105, 185), (150, 150, 150), (160, 85, 160), (75, 150, 165), (190, 165, 85)],
    np.float32,
)
_CEILING, _FLOOR = np.array([70, 80, 105]), np.array([105, 95, 85])


class Thing(NamedTuple):
    """How something to be found looks: an upright rectangle that turns its face to whoever looks."""

    colour: tuple[int, int, int]
    radius: float  # half its width
    bottom: float  # heights above the floor
    top: float


GOAL, APPLE = Thing((40, 240, 60), 0.25, 0.0, 0.5), Thing((240, 40, 40), 0.12, 0.08, 0.32)


class Walls(NamedTuple):
    """Walls of many mazes; uint8 `[B, N, N + 1]`, see above."""

    upright: np.ndarray
    level: np.ndarray


def directions() -> np.ndarray:
    """float64 `[HEADINGS, 2]`: unit vectors (x, y)."""
    angle = np.arange(HEADINGS) * (2 * np.pi / HEADINGS)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).round(12)


class MazeView:
    """Draws what is seen from a place in a maze, in `pixels` × `pixels`."""

    def __init__(self, pixels: int):
        self._pixels = pixels
        across = (2 * np.arange(pixels) + 1) / pixels - 1  # -1 to 1, from left to right
        ahead = directions()
        right = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
        self._across = (_HALF_WIDTH * across).astype(np.float32)
        self._ahead, self._right = ahead.astype(np.float32), right.astype(np.float32)
        rays = ahead[:, None] + _HALF_WIDTH * across[None, :, None] * right[:, None]  # of length 1 straight ahead
        self._rays = np.where(np.abs(rays) < 1e-6, 1e-6, rays).astype(np.float32)  # [HEADINGS, pixels, 2]
        self._scale = pixels / 2 / _HALF_WIDTH  # pixels that length 1 takes at distance 1
        self._rows = np.arange(pixels, dtype=np.float32) + 0.5 - pixels / 2  # below the horizon
        near = np.abs(self._rows) / (pixels / 2)  # what is farther is darker
        ground = np.where(self._rows < 0, _CEILING[:, None], _FLOOR[:, None]) * (0.35 + 0.65 * near)
        self._background = ground.astype(np.uint8)[None, :, :, None]  # [1, 3, pixels, 1]

    def draw(self, walls: Walls, place: np.ndarray, heading: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 `[B, 3, pixels, pixels]` of the walls, and their distance float32 `[B, pixels]` by column.

        Args:
            place: float `[B, 2]` (x, y) within the maze.
            heading: int `[B]`.
        """
        x, y = place.astype(np.float32).T[:, :, None, None]
        rays = self._rays[heading]
        ray_x, ray_y = rays[:, :, 0, None], rays[:, :, 1, None]
        far, colour, part = _meet(walls.upright, x, ray_x, y, ray_y)
        far_level, colour_level, part_level = _meet(walls.level, y, ray_y, x, ray_x)
        is_level = far_level < far
        far = np.where(is_level, far_level, far)
        colour, part = np.where(is_level, colour_level, colour), np.where(is_level, part_level, part)
        light = np.where(is_level, np.float32(0.8), np.float32(1)) / (1 + 0.12 * far)
        light[np.abs(part - 0.5) > 0.46] *= 0.5  # a seam where walls meet
        shades = (WALL_COLOURS[colour] * light[:, :, None]).astype(np.uint8)  # [B, pixels, 3]
        half = (0.5 * WALL_HEIGHT * self._scale / far)[:, None, :]
        is_wall = np.abs(self._rows)[:, None] <= half
        # columns where there is wall, else the background: with bits, which takes half the time of np.where
        mask = np.negative(is_wall.view(np.uint8))[:, None]
        pictures = np.ascontiguousarray(shades.transpose(0, 2, 1))[:, :, None] ^ self._background
        pictures &= mask
        pictures ^= self._background
        return pictures, far

    def add(
        self, pictures: np.ndarray, far: np.ndarray, offset: np.ndarray, heading: np.ndarray, kinds: np.ndarray
    ) -> None:
        """Paint one thing into each of `pictures` where no wall hides it.

        Args:
            pictures, far: from `draw`; the former is changed.
            offset: float `[B, 2]` from the place looked from to the thing.
            heading: int `[B]`.
            kinds: int `[B]`: 0 nothing, 1 the goal, 2 an apple.
        """
        offset = offset.astype(np.float32)
        depth = (offset * self._ahead[heading]).sum(axis=1)
        side = (offset * self._right[heading]).sum(axis=1)
        look = _THINGS[kinds]
        seen = np.abs(side[:, None] - depth[:, None] * self._across) < look[:, :1]  # [B, pixels]
        seen &= (depth[:, None] > 0.1) & (depth[:, None] < far)
        which = np.flatnonzero(seen.any(axis=1))
        if not len(which):
            return
        scale = (self._scale / depth[which])[:, None]
        top, bottom = ((0.5 * WALL_HEIGHT - look[which, row, None]) * scale for row in (2, 1))
        rows = (self._rows >= top) & (self._rows <= bottom)
        covered = rows[:, None, :, None] & seen[which][:, None, None, :]
        light = 1 / (1 + 0.05 * depth[which])
        colour = (look[which, 3:] * light[:, None]).astype(np.uint8)[:, :, None, None]
        pictures[which] = np.where(covered, colour, pictures[which])


# radius, bottom, top, red, green, blue of each kind
_THINGS = np.array(
    [(0, 0, 0, 0, 0, 0), *((t.radius, t.bottom, t.top, *t.colour) for t in (GOAL, APPLE))], dtype=np.float32
)


def _meet(
    walls: np.ndarray, a: np.ndarray, ray_a: np.ndarray, b: np.ndarray, ray_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays from (a, b) first meet a wall on the lines a = 0, 1, ...

    Args:
        walls: uint8 `[B, N, N + 1]`, by cell along b and by line.
        a, b: float32 `[B, 1, 1]`.
        ray_a, ray_b: float32 `[B, pixels, 1]`.

    Returns:
        distance in lengths of the ray, colour, and the place along the wall; `[B, pixels]` each.
    """
    size = walls.shape[1]
    ahead, further = np.floor(a), np.arange(size, dtype=np.float32)
    lines = np.where(ray_a > 0, ahead + 1 + further, ahead - further)  # [B, pixels, N], nearest first
    far = (lines - a) / ray_a
    along = b + far * ray_b
    # what lies outside is met behind the outer wall only, so it does not matter what is read there
    cell = np.clip(along.astype(np.int32), 0, size - 1)
    line = np.clip(lines.astype(np.int32), 0, size)
    start = np.arange(len(walls), dtype=np.int32)[:, None, None] * (size * (size + 1))
    colour = walls.ravel()[start + cell * (size + 1) + line]
    first = (colour > 0).argmax(axis=2)[:, :, None]
    met, painted, where = (np.take_along_axis(each, first, axis=2)[:, :, 0] for each in (far, colour, along))
    return met, painted, where - np.floor(where)
