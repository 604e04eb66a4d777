"""How a value-based agent explores, as objects. Each chooses from greedy actions, given the step it is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from .schedules import Linear


class Exploration(ABC):
    """Replaces some greedy actions by random ones."""

    @abstractmethod
    def epsilon(self, step: int) -> float:
        """Probability of a random action at environment step `step`."""

    def __call__(self, greedy: np.ndarray, actions: int, step: int, random: np.random.Generator) -> np.ndarray:
        """Actions int64 `[B]`: `greedy`, each replaced by one of `actions` with probability `epsilon(step)`."""
        epsilon = self.epsilon(step)
        if epsilon <= 0:
            return greedy
        explores = random.random(len(greedy)) < epsilon
        if explores.any():
            greedy = np.where(explores, random.integers(actions, size=len(greedy)), greedy)
        return greedy


class Greedy(Exploration):
    """Never explores."""

    def epsilon(self, step: int) -> float:
        return 0.0


class EpsilonGreedy(Exploration):
    """A constant share of random actions."""

    def __init__(self, epsilon: float):
        self._epsilon = epsilon

    def epsilon(self, step: int) -> float:
        return self._epsilon


class AnnealedEpsilonGreedy(Exploration):
    """A share of random actions that falls linearly."""

    def __init__(self, schedule: Linear):
        self.schedule = schedule

    def epsilon(self, step: int) -> float:
        return self.schedule(step)


def make_exploration(initial: float, final: float, decay_steps: int) -> Exploration:
    """The object that settings describe: greedy when both are 0, constant when they are equal, else annealed."""
    if initial == final:
        return Greedy() if initial == 0 else EpsilonGreedy(initial)
    return AnnealedEpsilonGreedy(Linear(initial, final, decay_steps))
