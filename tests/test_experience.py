"""The experience that auxiliary tasks replay: histories against a naive log, and how often they earn something."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from rollouts import SPEC, random_steps
from saccade.agents.parts.experience import Experience


def earning_steps(count: int, seed: int = 0):
    """Random steps of which one in four earns something; observations name the step, and whether it is the first."""
    rng = np.random.default_rng(seed)
    for number, step in enumerate(random_steps(count, seed=seed)):
        obs, next_obs = (np.tile(np.float32([number, k]), (3, 1)) for k in (0, 1))
        earned = step.reward * (rng.random(3) < 0.25)
        yield step._replace(obs=obs, next_obs=next_obs, reward=earned.astype(np.float32))


def naive_histories(steps, history: int) -> dict[tuple, int]:
    """Every history by what is seen in it, with how often it was: [(obs, ...), reward] for each step taken."""
    found, seen = Counter(), {env: [] for env in range(3)}
    for step in steps:
        for env in np.flatnonzero(step.valid):
            if step.reset[env]:
                seen[env] = [tuple(step.obs[env])]
            found[(*seen[env][-history:], float(step.reward[env]))] += 1
            seen[env].append(tuple(step.next_obs[env]))
    return found


@pytest.mark.parametrize("count", [60, 400])  # before and after the rings have gone round
def test_histories_are_those_that_were_seen(count: int):
    steps, replay = list(earning_steps(count)), Experience(300, SPEC, 5)
    for step in steps:
        replay.add(step)
    naive, kinds = naive_histories(steps, 3), set()
    batch = replay.histories(2000, 3)
    assert batch.obs.shape == (4, 2000, 2)
    assert batch.mask[-1].all()
    for b in range(2000):
        seen = [tuple(x) for x in batch.obs[:3, b][batch.mask[:, b]].tolist()]
        kinds.add((*seen, float(batch.reward[-1, b])))
        assert (batch.reset[:3, b] & batch.mask[:, b]).any() == (seen[0][1] == 0)  # it begins with a first observation
        assert (batch.obs[:3, b][~batch.mask[:, b]] == batch.obs[:3, b][batch.mask[:, b]][0]).all()
    assert kinds <= naive.keys()
    assert {len(kind) for kind in kinds} == {2, 3, 4}
    newest = {kind for kind in naive if kind[-2][0] > count - 70 and len(kind) == 4}
    assert len(kinds & newest) > 0.9 * len(newest)


def test_half_of_the_histories_earn_something():
    replay = Experience(3000, SPEC, 5)
    for step in earning_steps(200):
        replay.add(step)
    drawn = replay.histories(4000, 3).reward[-1] != 0
    assert float(drawn.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))
    plain = replay.histories(4000, 3, is_skewed=False).reward[-1] != 0
    assert float(plain.float().mean()) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("reward", [0.0, -1.0])
def test_where_all_steps_earn_the_same_kind_all_are_of_it(reward: float):
    replay = Experience(300, SPEC, 5)
    for step in random_steps(50):
        replay.add(step._replace(reward=np.full(3, reward, np.float32)))
    assert (replay.histories(50, 3).reward[-1] == reward).all()


def test_no_history_yet():
    with pytest.raises(ValueError, match="no history"):
        Experience(300, SPEC, 5).histories(1, 3)
