"""A maze from above, for people."""

from __future__ import annotations

import numpy as np

from .maze_view import APPLE, GOAL, WALL_COLOURS, Walls, directions

_SIDE = 240  # pixels


def draw_map(walls: Walls, things: np.ndarray, place: np.ndarray, heading: int) -> np.ndarray:
    """uint8 `[240, 240, 3]`.

    Args:
        walls: of one maze.
        things: float `[K, 2]` middles of cells; the first is the goal.
        place: float `[2]` of the agent, who is drawn white with a line to where he looks.
    """
    size = walls.upright.shape[0]
    picture = np.full((_SIDE, _SIDE, 3), 30, np.uint8)
    scale = (_SIDE - 4) / size

    def block(x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...] | np.ndarray) -> None:
        left, top, right, bottom = (2 + scale * np.clip([x0, y0, x1, y1], 0, size)).round().astype(int)
        picture[top - 1 : bottom + 1, left - 1 : right + 1] = colour

    for along in range(size):
        for line in range(size + 1):
            if colour := walls.upright[along, line]:
                block(line, along, line, along + 1, WALL_COLOURS[colour])
            if colour := walls.level[along, line]:
                block(along, line, along + 1, line, WALL_COLOURS[colour])
    for number, (x, y) in enumerate(things):
        look = APPLE if number else GOAL
        block(x - look.radius, y - look.radius, x + look.radius, y + look.radius, look.colour)
    for far in np.linspace(0, 0.4, 20):
        x, y = place + far * directions()[heading]
        block(x, y, x, y, (255, 255, 255))
    x, y = place
    block(x - 0.1, y - 0.1, x + 0.1, y + 0.1, (255, 255, 255))
    return picture
