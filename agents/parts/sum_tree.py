"""Sampling in proportion to priorities, in a few vectorised operations whatever the batch."""

from __future__ import annotations

import numpy as np

BRANCHES = 64


class SumTree:
    """A tree of sums with 64 branches a node: a million leaves are four levels, not twenty.

    Sums are recomputed from the children, never adjusted, so rounding errors do not pile up.
    """

    def __init__(self, leaves: int):
        self.count = leaves
        sizes = [-(-leaves // BRANCHES)]
        while sizes[-1] > 1:
            sizes.append(-(-sizes[-1] // BRANCHES))
        self.levels = [np.zeros((size, BRANCHES)) for size in sizes]  # leaves first, root last

    def total(self) -> float:
        return float(self.levels[-1].sum())

    def leaves(self) -> np.ndarray:
        """float64 [leaves], a view."""
        return self.levels[0].reshape(-1)[: self.count]

    def get(self, index: np.ndarray) -> np.ndarray:
        return self.levels[0].reshape(-1)[index]

    def set(self, index: np.ndarray, value: np.ndarray) -> None:
        """Set leaves `index` (int64 [N]) to `value` (float64 [N], not negative); the last of equal indices wins."""
        self.levels[0].reshape(-1)[index] = value
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            index = index // BRANCHES
            if len(index) > 1 and (index[0] == index).all():
                index = index[:1]
            above.reshape(-1)[index] = below[index].sum(1)

    def sample(self, uniform: np.ndarray) -> np.ndarray:
        """Leaves at the fractions `uniform` (float64 [N] in [0, 1)) of the total, as the caller draws them."""
        node = np.zeros(len(uniform), np.int64)
        mass = uniform * self.total()
        for level in reversed(self.levels):
            sums = np.cumsum(level[node], 1)  # [N, BRANCHES]
            mass = np.minimum(mass, np.nextafter(sums[:, -1], 0))  # rounding must not run past the last branch
            branch = (sums <= mass[:, None]).sum(1)
            rows = np.arange(len(node))
            mass -= np.where(branch > 0, sums[rows, branch - 1], 0)
            node = node * BRANCHES + branch
        return node
