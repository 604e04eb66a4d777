"""Mazes drawn by chance: every cell can be reached, and some of the walls are missing, so that there are loops."""

from __future__ import annotations

import numpy as np

from .maze_view import WALL_COLOURS

_LOOPS = 0.15  # share of the inner walls that are taken out of a maze without loops


def draw_maze(size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Walls of a maze of `size` × `size` cells: `upright[row, line]`, `level[column, line]`, uint8 `[N, N + 1]`.

    A depth-first walk opens one wall for each new cell; then loops are made. Colours are drawn for each wall apart:
    they are what places are known by.
    """
    shape = (2, size, size + 1)
    walls = generator.integers(1, len(WALL_COLOURS), shape, dtype=np.uint8)
    walls[:, :, 1:-1][generator.random((2, size, size - 1)) < _LOOPS] = 0
    column, row = (int(each) for each in generator.integers(0, size, 2))
    seen, way = {(column, row)}, [(column, row)]
    while way:
        column, row = way[-1]
        steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
        open_to = [(dx, dy) for dx, dy in steps if _is_new(column + dx, row + dy, size, seen)]
        if not open_to:
            way.pop()
            continue
        dx, dy = open_to[int(generator.integers(len(open_to)))]
        if dx:
            walls[0, row, max(column, column + dx)] = 0
        else:
            walls[1, column, max(row, row + dy)] = 0
        way.append((column + dx, row + dy))
        seen.add(way[-1])
    return walls[0], walls[1]


def _is_new(column: int, row: int, size: int, seen: set[tuple[int, int]]) -> bool:
    return 0 <= column < size and 0 <= row < size and (column, row) not in seen
