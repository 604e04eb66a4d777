"""The judges in the benchmarks of classical nets and of semantic hashing, against numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saccade.benchmarks import classical, hashing
from saccade.encoders import som
from saccade.envs.spec import ObservationSpec


def test_the_break_is_where_half_of_the_patterns_are_held():
    assert classical.break_down([0.1, 0.14, 0.2], [1.0, 0.75, 0.25]) == pytest.approx(0.17)
    assert math.isnan(classical.break_down([0.1, 0.2], [1.0, 0.9]))


def test_few_patterns_are_held_and_many_are_not():
    overlap, held = classical.capacity(200, 0.05, seed=0)
    assert overlap > 0.99
    assert held == 1.0
    overlap, held = classical.capacity(200, 0.3, seed=0)
    assert overlap < 0.8
    assert held < 0.3
    basin = classical.basins(200, [0.05], 0)[0]
    assert basin[:4].min() == 1.0  # up to 15 per cent
    assert basin[-1] < 0.8  # ten patterns, nearly half of the units flipped


class Stored:
    """In place of a MiniSom."""

    def __init__(self, weights: np.ndarray):
        self.weights = weights

    def get_weights(self) -> np.ndarray:
        return self.weights


def test_both_sides_are_judged_by_the_same_functions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classical, "GRID", 3)
    spec, x = ObservationSpec((4,), low=0.0, high=1.0), torch.rand(50, 4)
    ours = som.build(som.Config(rows=3, columns=3), spec)
    theirs = Stored(ours.weight.detach().double().numpy().reshape(3, 3, 4))
    assert classical.judged(theirs, x, spec) == classical.judged(ours, x, spec)


@pytest.mark.parametrize("train", [classical.train_online, classical.train_fit])
def test_our_sides_train(train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classical, "GRID", 4)
    spec, x = ObservationSpec((2,), low=0.0, high=1.0), torch.rand(200, 2)
    learner, advance = train(x, spec, 0.6)
    before = classical.judged(learner, x, spec)
    assert advance(1000) == 1000
    after = classical.judged(learner, x, spec)
    assert after["topographic_error"] < before["topographic_error"]


def test_precision_and_recall_by_hand():
    """Of three others with the same label, found at places 1, 3 and 6 of 7."""
    label = np.array([1, 1, 0, 1, 0, 0, 1, 0])
    alike = np.array([[9.0, 8, 7, 6, 5, 4, 3, 2]])
    found = hashing.precision_at(lambda part: alike, label, 1)
    # of 3 hits the recalls ask for 1, 1, 1, 1, 1, 1 (.3 of 3 is .9) and 3
    assert found == pytest.approx([1.0] * 6 + [3 / 6])
