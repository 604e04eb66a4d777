"""The diagnostic worlds against the values that their table promises, found by brute force over all policies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from saccade.envs import Outcome, UserError, make_env
from saccade.envs.diagnostics import DIAGNOSTICS

DISCRETE = [name for name, world in DIAGNOSTICS.items() if not world.continuous]


def step(env, action) -> Outcome:
    env.send(np.asarray(action))
    return env.recv()


def returns(name: str, plan: tuple[int, ...], discount: float, copies: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """First observations and discounted returns of one episode of each copy, whatever `plan` says being done."""
    env = make_env(f"diagnostic/{name}", copies)
    first = env.reset(0)
    total = np.zeros(copies)
    for time, action in enumerate(plan):
        outcome = step(env, np.full(copies, action))
        total += discount**time * outcome.reward
        assert (outcome.terminated | outcome.truncated).all() == (time == len(plan) - 1)
    return first, total


def best(name: str, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """First observations, and the best return that any plan gets for each."""
    plans = list(itertools.product((0, 1), repeat=DIAGNOSTICS[name].length))
    results = [returns(name, plan, discount) for plan in plans]
    return results[0][0], np.max([total for _, total in results], axis=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("one-step", 1), ("delayed", 0.9), ("action", 1), ("observation-action", 1), ("recall", 0.9**4)],
)
def test_the_best_policy_earns_what_the_table_says(name, value):
    np.testing.assert_allclose(best(name, 0.9)[1], value, rtol=1e-6)


def test_the_value_of_an_observation_is_itself():
    first, value = best("observation", 0.9)
    assert set(first[:, 0]) == {-1, 1}
    np.testing.assert_array_equal(value, first[:, 0])


def test_every_action_earns_its_own():
    assert (returns("action", (0,), 0.9)[1] == -1).all()
    assert (returns("action", (1,), 0.9)[1] == 1).all()
    first, value = returns("observation-action", (0,), 0.9)
    np.testing.assert_array_equal(value, -first[:, 0])


def test_endless_is_cut_off_and_keeps_its_value():
    env = make_env("diagnostic/endless", 2)
    env.reset(0)
    outcomes = [step(env, [0, 1]) for _ in range(10)]
    assert [o.truncated.all() for o in outcomes] == [False] * 4 + [True] + [False] * 4 + [True]
    for outcome in outcomes:
        assert not outcome.terminated.any()
        assert outcome.discount.tolist() == [1, 1]
        assert outcome.reward.tolist() == [1, 1]
        assert outcome.next_obs.tolist() == outcome.obs.tolist() == [[1], [1]]  # so V = 1 + γ V


def test_box_pays_for_half_the_cue():
    env = make_env("diagnostic/box", 32)
    cue = env.reset(0)
    assert (step(env, cue / 2).reward == 0).all()
    cue = env.reset(0)
    np.testing.assert_allclose(step(env, cue / 2 - 0.25).reward, -0.0625, rtol=1e-6)
    assert env.spec.action.shape == (1,)


@pytest.mark.parametrize("length", [2, 3, 10])
def test_recall_shows_the_cue_once_and_asks_at_the_end(length):
    env = make_env(f"diagnostic/recall-{length}", 64)
    seen = [env.reset(0)]
    for time in range(length):
        outcome = step(env, np.ones(64, np.int64))
        if time < length - 1:
            seen.append(outcome.obs)
            assert (outcome.reward == 0).all()
            assert not outcome.terminated.any()
    cue = seen[0][:, 0]
    assert set(cue) == {-1, 1}
    for time, obs in enumerate(seen):
        np.testing.assert_array_equal(obs[:, 0], cue if time == 0 else 0 * cue)
        assert (obs[:, 1] == (time == length - 1)).all()
    np.testing.assert_array_equal(outcome.reward, cue)
    assert outcome.terminated.all()
    assert outcome.discount.tolist() == [0] * 64
    assert set(outcome.obs[:, 0]) == {-1, 1}  # the next episodes' cues
    assert not np.array_equal(outcome.obs[:, 0], cue)


@pytest.mark.parametrize("actions", [(0, 0), (1, 1), (0, 1), (1, 0)])
def test_without_memory_recall_earns_nothing(actions):
    """A memoryless policy knows only whether it is asked; each of them earns 0 on average."""
    idle, asked = actions
    count = 4000
    _, total = returns("recall", (idle,) * 4 + (asked,), 1.0, copies=count)
    assert abs(total.mean()) < 4 / np.sqrt(count)


@pytest.mark.parametrize("name", list(DIAGNOSTICS))
def test_a_clone_goes_on_bit_for_bit(name):
    def act(env, generator: np.random.Generator) -> Outcome:
        actions = generator.uniform(-1, 1, (3, 1)) if DIAGNOSTICS[name].continuous else generator.integers(0, 2, 3)
        return step(env, actions)

    env, clone = (make_env(f"diagnostic/{name}", 3) for _ in range(2))
    env.reset(9)
    generator = np.random.default_rng(0)
    last = [act(env, generator) for _ in range(7)][-1]
    saved = env.state_dict()
    expected = [act(env, np.random.default_rng(i)) for i in range(12)]
    np.testing.assert_array_equal(clone.load_state_dict(saved), last.obs)
    for i, outcome in enumerate(expected):
        for mine, theirs in zip(act(clone, np.random.default_rng(i)), outcome, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", list(DIAGNOSTICS))
def test_what_is_seen_and_earned_is_as_specified(name):
    env = make_env(f"diagnostic/{name}", 4)
    spec = env.spec
    generator = np.random.default_rng(0)
    obs = env.reset(0)
    low, high = np.inf, -np.inf
    score = np.zeros(4)
    for _ in range(60):
        assert obs.shape == (4, *spec.observation.shape)
        assert obs.dtype == np.float32
        assert (np.abs(obs) <= 1).all()
        outcome = step(env, generator.uniform(-1, 1, (4, 1)) if not spec.action.is_discrete else [0, 1, 0, 1])
        assert outcome.reward.dtype == np.float32
        score += outcome.reward
        ended = outcome.terminated | outcome.truncated
        if ended.any():
            low, high = min(low, score[ended].min()), max(high, score[ended].max())
        score[ended] = 0
        obs = outcome.obs
    assert spec.score_range is not None
    assert spec.score_range[0] <= low <= high <= spec.score_range[1]


def test_episodes_differ_with_the_seed():
    env = make_env("diagnostic/box", 4)
    first = env.reset(1)
    np.testing.assert_array_equal(first, env.reset(1))
    assert not np.array_equal(first, env.reset(2))


@pytest.mark.parametrize(("name", "bad"), [("box", [[1.5]]), ("box", [[np.nan]]), ("action", [2]), ("action", [-1])])
def test_actions_out_of_range_are_refused(name, bad):
    env = make_env(f"diagnostic/{name}", 1)
    env.reset(0)
    with pytest.raises(UserError, match="actions must be"):
        env.send(np.array(bad))


def test_recall_needs_two_steps():
    with pytest.raises(UserError, match="at least 2"):
        make_env("diagnostic/recall-1", 1)
