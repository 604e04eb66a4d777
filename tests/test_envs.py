"""Registered worlds, stepped in every way there is, against plain Gymnasium."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from saccade.envs import (
    EnvOptions,
    SpecError,
    UnknownNameError,
    UserError,
    VectorEnv,
    list_envs,
    make_env,
)
from saccade.envs.spaces import read_observations
from saccade.envs.steppers import spread_seed

CLASSIC = ["CartPole-v1", "MountainCar-v0", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"]


class Counter(gymnasium.Env):
    """Observations say the copy's own step, doubled; ends at `end` or fails at `fail`. Actions are 3 and 4."""

    action_space: Any = spaces.Discrete(2, start=3)
    observation_space: Any = spaces.Box(0, 100, (2, 1), np.float64)

    def __init__(self, end: int = 3, fail: int = 100, space: Any = None, actions: Any = None):
        self.end, self.fail = end, fail
        self.action_space = actions or self.action_space
        self.observation_space = space or self.observation_space

    def _see(self) -> Any:
        if isinstance(self.observation_space, spaces.Box):
            return np.full(self.observation_space.shape, 2 * self.time, self.observation_space.dtype)
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        if self.time == self.fail:
            raise ArithmeticError("the counter broke")
        return self._see(), float(np.sum(action)), self.time == self.end, False, {}


@pytest.fixture
def register():
    """Registers a `Counter` with the given settings under an id of its own; afterwards it is unknown again."""
    ids = []

    def add(limit: int | None = None, **settings: Any) -> str:
        ids.append(f"saccade-test/Counter{len(ids)}-v0")
        gymnasium.register(ids[-1], Counter, max_episode_steps=limit, kwargs=settings)
        return ids[-1]

    yield add
    for env_id in ids:
        del gymnasium.registry[env_id]


def step(env: VectorEnv, action: Any) -> Any:
    env.send(np.asarray(action))
    return env.recv()


def draw_actions(env: VectorEnv, generator: np.random.Generator) -> np.ndarray:
    spec = env.spec.action
    if spec.is_discrete:
        return generator.integers(0, spec.count, env.spec.num_envs)
    return generator.uniform(spec.low, spec.high, (env.spec.num_envs, *spec.shape)).astype(np.float32)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_observation_is_the_episodes_own(register, workers):
    env = make_env(register(end=3), 3, EnvOptions(workers=workers))
    assert env.reset(0).tolist() == [[[0], [0]]] * 3
    actions = np.array([0, 1, 0])
    step(env, actions)
    middle = step(env, actions)
    last = step(env, actions)
    env.close()
    assert middle.next_obs[:, 0, 0].tolist() == middle.obs[:, 0, 0].tolist() == [4, 4, 4]
    assert last.next_obs[:, 0, 0].tolist() == [6, 6, 6]
    assert last.obs[:, 0, 0].tolist() == [0, 0, 0]
    assert last.obs.dtype == np.float32
    assert last.reward.tolist() == [3, 4, 3]  # Gymnasium's actions begin at `start`
    assert last.terminated.all()
    assert not last.truncated.any()
    assert last.discount.tolist() == [0, 0, 0]
    assert last.valid.all()
    assert last.env_index.tolist() == [0, 1, 2]


def test_a_time_limit_truncates_and_keeps_the_discount(register):
    env = make_env(register(limit=2, end=5), 1)
    env.reset(0)
    assert not step(env, [0]).truncated[0]
    last = step(env, [0])
    assert (last.terminated[0], last.truncated[0], last.discount[0]) == (False, True, 1)
    assert last.next_obs[0, 0, 0] == 4
    assert last.obs[0, 0, 0] == 0
    assert not step(env, [0]).truncated[0]  # the count begins anew


def test_the_limit_and_the_end_at_once_are_both_said(register):
    env = make_env(register(limit=2, end=2), 1)
    env.reset(0)
    step(env, [0])
    last = step(env, [0])
    assert (last.terminated[0], last.truncated[0], last.discount[0]) == (True, True, 0)


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_control_steps_as_gymnasium_does(name):
    env = make_env(name, 2)
    peers = [gymnasium.make(name) for _ in range(2)]
    obs = env.reset(7)
    first = [peer.reset(seed=seed)[0] for peer, seed in zip(peers, spread_seed(7, 2), strict=True)]
    np.testing.assert_array_equal(obs, first)
    generator = np.random.default_rng(0)
    ends = 0
    for _ in range(450):
        actions = draw_actions(env, generator)
        outcome = step(env, actions)
        for i, peer in enumerate(peers):
            seen, reward, terminated, truncated, _ = peer.step(actions[i])
            np.testing.assert_array_equal(outcome.next_obs[i], seen)
            assert outcome.reward[i] == np.float32(reward)
            assert (outcome.terminated[i], outcome.truncated[i]) == (terminated, truncated)
            if terminated or truncated:
                ends += 1
                seen, _ = peer.reset()
            np.testing.assert_array_equal(outcome.obs[i], seen)
    assert ends or name in ("Acrobot-v1", "MountainCarContinuous-v0")


def test_many_cartpoles_step_as_one_does_and_ignore_the_step_after_an_end():
    count = 8
    env = make_env("CartPole-v1", count)
    peer: Any = gymnasium.make("CartPole-v1")
    peer.reset(seed=0)
    obs = env.reset(0)
    ended = np.zeros(count, bool)
    generator = np.random.default_rng(0)
    state = np.array(env._env._env.state)
    for _ in range(60):
        actions = generator.integers(0, 2, count)
        outcome = step(env, actions)
        assert outcome.valid.tolist() == (~ended).tolist()
        np.testing.assert_array_equal(outcome.obs, outcome.next_obs)
        for i in np.flatnonzero(~ended):
            peer.reset()
            peer.unwrapped.state = state[:, i]
            seen, reward, terminated, _, _ = peer.step(int(actions[i]))
            np.testing.assert_allclose(outcome.next_obs[i], seen, rtol=1e-6, atol=1e-7)
            assert (outcome.reward[i], outcome.terminated[i]) == (reward, terminated)
        assert (outcome.reward[ended] == 0).all()
        assert not (outcome.terminated | outcome.truncated)[ended].any()
        assert (np.abs(outcome.next_obs[ended]) <= 0.05).all()
        state = np.array(env._env._env.state)
        ended = outcome.terminated | outcome.truncated
        obs = outcome.obs
    assert obs.dtype == np.float32


def test_many_cartpoles_are_cut_off_after_their_limit():
    env = make_env("CartPole-v1", 8)
    obs = env.reset(0)
    for _ in range(500):  # pushing against the pole's fall keeps it up
        outcome = step(env, (obs[:, 2] + 0.5 * obs[:, 3] + 0.03 * obs[:, 0] + 0.1 * obs[:, 1] > 0).astype(np.int64))
        obs = outcome.obs
    assert outcome.truncated.all()
    assert not outcome.terminated.any()
    assert outcome.discount.tolist() == [1] * 8


@pytest.mark.parametrize(("name", "count"), [("CartPole-v1", 8), ("Pendulum-v1", 8), *((name, 2) for name in CLASSIC)])
def test_a_clone_goes_on_bit_for_bit(name, count):
    env, clone = make_env(name, count), make_env(name, count)
    env.reset(3)
    generator = np.random.default_rng(1)
    last = [step(env, draw_actions(env, generator)) for _ in range(130)][-1]
    saved = env.state_dict()
    actions = [draw_actions(env, generator) for _ in range(150)]
    expected = [step(env, action) for action in actions]  # what was saved must not change with the original
    np.testing.assert_array_equal(clone.load_state_dict(saved), last.obs)
    for action, outcome in zip(actions, expected, strict=True):
        for mine, theirs in zip(step(clone, action), outcome, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert name == "Acrobot-v1" or "Continuous" in name or any((o.terminated | o.truncated).any() for o in expected)


def test_a_clone_keeps_the_type_of_each_copys_state():
    """MountainCarContinuous computes in double precision in the first step of an episode, then in single."""
    env, clone = make_env("MountainCarContinuous-v0", 16), make_env("MountainCarContinuous-v0", 16)
    obs, ended = env.reset(0), 0
    while not ended:
        outcome = step(env, np.sign(obs[:, 1:]))  # swings up within about a hundred steps
        obs, ended = outcome.obs, outcome.terminated.sum()
    assert ended < 16
    clone.load_state_dict(env.state_dict())
    for _ in range(20):
        actions = draw_actions(env, np.random.default_rng(0))
        np.testing.assert_array_equal(step(env, actions).next_obs, step(clone, actions).next_obs)


@pytest.mark.parametrize(
    ("name", "count"),
    [("CartPole-v1", 2), ("CartPole-v1", 8), ("Pendulum-v1", 2), ("Pendulum-v1", 8)],
)
def test_a_seed_decides_everything_and_copies_differ(name, count):
    env = make_env(name, count)

    def play(seed: int) -> np.ndarray:
        generator = np.random.default_rng(0)
        return np.stack([env.reset(seed), *(step(env, draw_actions(env, generator)).obs for _ in range(40))])

    first = play(5)
    np.testing.assert_array_equal(first, play(5))
    assert not np.array_equal(first, play(6))
    assert len(np.unique(first[0], axis=0)) == count


def test_many_pendulums_swing_as_one_does():
    count = 8
    env = make_env("Pendulum-v1", count)
    peer: Any = gymnasium.make("Pendulum-v1", max_episode_steps=-1)
    peer.reset(seed=0)
    env.reset(0)
    generator = np.random.default_rng(0)
    for time in range(1, 402):
        state = env.state_dict()["state"]
        actions = draw_actions(env, generator)
        outcome = step(env, actions)
        for i in range(count):
            peer.unwrapped.state = state[:, i]
            seen, reward, *_ = peer.step(actions[i])
            np.testing.assert_allclose(outcome.next_obs[i], seen, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(outcome.reward[i], reward, rtol=1e-6)
        assert (outcome.truncated == (time % 200 == 0)).all()
        assert not outcome.terminated.any()
        if time % 200:
            np.testing.assert_array_equal(outcome.obs, outcome.next_obs)
        else:
            start = env.state_dict()["state"]
            assert (np.abs(start) <= [[np.pi], [1]]).all()
            assert len(np.unique(start)) == 2 * count
            np.testing.assert_allclose(outcome.obs, np.stack([*map(np.cos, start[:1]), np.sin(start[0]), start[1]], 1))
            assert not np.array_equal(outcome.obs, outcome.next_obs)


def test_outcomes_are_the_callers_to_keep():
    for name, count in (("CartPole-v1", 2), ("CartPole-v1", 8), ("Pendulum-v1", 8)):
        env = make_env(name, count)
        env.reset(0)
        actions = draw_actions(env, np.random.default_rng(0))
        kept = step(env, actions)
        copies = [np.copy(array) for array in kept]
        for _ in range(30):
            step(env, actions)
        for array, copy in zip(kept, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_workers_change_nothing():
    here, there = make_env("MountainCar-v0", 3), make_env("MountainCar-v0", 3, EnvOptions(workers=2))
    np.testing.assert_array_equal(here.reset(1), there.reset(1))
    generator = np.random.default_rng(0)
    for _ in range(201):
        actions = draw_actions(here, generator)
        for mine, theirs in zip(step(here, actions), step(there, actions), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert there.render().shape == (400, 600, 3)
    there.close()
    there.close()


def test_a_worker_that_fails_says_why(register, capfd):
    env = make_env(register(fail=2), 2, EnvOptions(workers=1))
    env.reset(0)
    step(env, [0, 0])
    with pytest.raises(UserError, match="the counter broke"):
        step(env, [0, 0])
    assert "ArithmeticError" in capfd.readouterr().err


def test_a_worker_that_dies_is_missed():
    env = make_env("MountainCar-v0", 2, EnvOptions(workers=2))
    env.reset(0)
    env._env._processes[0].kill()
    env._env._processes[0].join()
    with pytest.raises(UserError, match="worker process died"):
        step(env, [0, 0])
    env.close()


def test_a_discrete_observation_becomes_one_hot():
    env = make_env("FrozenLake-v1", 2)
    assert env.spec.observation.shape == (16,)
    np.testing.assert_array_equal(env.reset(0), np.eye(16, dtype=np.float32)[[0, 0]])


@pytest.mark.parametrize(
    ("space", "raw", "converted"),
    [
        (spaces.Discrete(3, start=5), [6, 5], [[0, 1, 0], [1, 0, 0]]),
        (spaces.MultiDiscrete([2, 3]), [[1, 2]], [[0, 1, 0, 0, 1]]),
        (spaces.MultiDiscrete([2, 2], start=[1, 4]), [[1, 5]], [[1, 0, 0, 1]]),
        (spaces.MultiBinary(3), [[1, 0, 1]], [[1, 0, 1]]),
        (spaces.Box(-1, 1, (2,), np.float64), [[0.5, 1]], [[0.5, 1]]),
        (spaces.Box(0, 255, (2,), np.uint8), [[7, 255]], [[7, 255]]),
    ],
)
def test_spaces_become_numbers(space, raw, converted):
    spec, convert = read_observations(space, "x")
    result = convert(np.array(raw, space.dtype))
    assert result.dtype == np.float32
    assert spec.dtype == "float32"
    assert result.shape[1:] == spec.shape
    assert result.tolist() == converted


@pytest.mark.parametrize(
    ("shape", "channels_first"), [((4, 5, 3), (3, 4, 5)), ((3, 4, 5), (3, 4, 5)), ((4, 5), (1, 4, 5))]
)
def test_images_become_channels_first(shape, channels_first):
    spec, convert = read_observations(spaces.Box(0, 255, shape, np.uint8), "x")
    raw = np.arange(2 * np.prod(shape), dtype=np.uint8).reshape(2, *shape)
    result = convert(raw)
    assert spec.is_image
    assert spec.shape == result.shape[1:] == channels_first
    assert result.dtype == np.uint8
    pixel = raw[1, 2, 3, 1] if shape == (4, 5, 3) else raw.reshape(2, *channels_first)[1, 0, 2, 3]
    assert result[1, 1 if shape == (4, 5, 3) else 0, 2, 3] == pixel


def test_bounds_are_known():
    spec = make_env("MountainCar-v0", 1).spec.observation
    assert spec.low == tuple(np.float32([-1.2, -0.07]).tolist())
    assert make_env("Pendulum-v1", 1).spec.action.high == (2.0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.5])
def test_actions_that_are_none_are_refused(bad):
    env = make_env("Pendulum-v1", 2)
    env.reset(0)
    with pytest.raises(UserError, match="finite"):
        step(env, np.array([[0], [bad]], np.float32))


@pytest.mark.parametrize(("count", "bad"), [(1, 2), (8, -1)])
def test_discrete_actions_out_of_range_are_refused(count, bad):
    env = make_env("CartPole-v1", count)
    env.reset(0)
    with pytest.raises(UserError, match="0 to 1"):
        step(env, np.full(count, bad))


def test_infinite_bounds_still_ask_for_finite_actions(register):
    env = make_env(register(actions=spaces.Box(-np.inf, np.inf, (2,), np.float64)), 1)
    env.reset(0)
    assert step(env, np.array([[1e6, 1]], np.float32)).reward[0] == np.float32(1e6 + 1)
    with pytest.raises(UserError, match="finite"):
        step(env, np.array([[np.inf, 0]], np.float32))


@pytest.mark.parametrize(
    "space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Tuple([spaces.Discrete(2)]), spaces.Text(3)]
)
def test_composite_observations_are_refused(register, space):
    with pytest.raises(SpecError, match=type(space).__name__):
        make_env(register(space=space), 1)


@pytest.mark.parametrize("actions", [spaces.MultiDiscrete([2, 2]), spaces.Box(0, 5, (1,), np.int64)])
def test_other_actions_are_refused(register, actions):
    with pytest.raises(SpecError, match="takes actions"):
        make_env(register(actions=actions), 1)


def test_a_world_that_breaks_its_promise_is_refused(register):
    env_id = register()
    gymnasium.registry[env_id].entry_point = lambda end=3: _Liar()
    with pytest.raises(SpecError, match="promises"):
        make_env(env_id, 1).reset(0)


class _Liar(Counter):
    def _see(self) -> Any:
        return np.zeros(1)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("CartPole", "CartPole-v1"),
        ("Breakout-v5", "ALE/Breakout-v5"),
        ("BreakoutNoFrameskip-v4", "ALE/Breakout-v5"),
        ("ALE/Breakot-v5", "ALE/Breakout-v5"),
        ("pixels/CartPol-v1", "pixels/CartPole-v1"),
        ("diagnostic/one-stop", "diagnostic/one-step"),
    ],
)
def test_unknown_worlds_name_the_nearest(wrong, nearest):
    with pytest.raises(UnknownNameError, match=f"did you mean '{nearest}'"):
        make_env(wrong, 1)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (0, EnvOptions(), "environments"),
        (-1, EnvOptions(), "environments"),
        (1, EnvOptions(image_size=0), "image_size"),
        (1, EnvOptions(stack=-2), "stack"),
        (1, EnvOptions(workers=-1), "workers"),
        (1, EnvOptions(threads=-1), "threads"),
    ],
)
def test_sizes_must_be_positive(count, options, message):
    with pytest.raises(UserError, match=message):
        make_env("pixels/CartPole-v1", count, options)


def test_a_package_is_imported_first(tmp_path, monkeypatch):
    (tmp_path / "saccade_test_worlds.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Borrowed-v0', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_env("saccade_test_worlds:Borrowed-v0", 1)
    assert env.spec.observation.shape == (3,)
    assert env.spec.id == "Borrowed-v0"
    del gymnasium.registry["Borrowed-v0"], sys.modules["saccade_test_worlds"]
    with pytest.raises(UserError, match="cannot import 'saccade_no_such_package'"):
        make_env("saccade_no_such_package:Borrowed-v0", 1)


def test_missing_dependencies_are_named(register):
    env_id = register()
    gymnasium.registry[env_id].entry_point = "saccade_no_such_package:World"
    with pytest.raises(UserError, match="saccade_no_such_package"):
        make_env(env_id, 1)


def test_worlds_are_listed_once_each_and_can_be_made():
    names = list_envs()
    assert len(names) == len(set(names))
    assert {"CartPole-v1", "pixels/Acrobot-v1", "diagnostic/recall", "ALE/Pong-v5"} <= set(names)
    assert "CartPole-v0" not in names  # only the newest version
    for name in names:
        if name.startswith(("diagnostic/", "pixels/")):
            assert make_env(name, 1).spec.id == name


def test_pictures_of_many_pendulums_show_the_first():
    one, many = make_env("Pendulum-v1", 1), make_env("Pendulum-v1", 8)
    for env in (one, many):
        env.reset(0)
    saved = many.state_dict()
    one._env._envs[0].unwrapped.state = saved["state"][:, 0]
    np.testing.assert_array_equal(one.render(), many.render())
    action = np.ones((8, 1), np.float32)
    np.testing.assert_array_equal(step(one, action[:1]).next_obs[0], step(many, action).next_obs[0])
    np.testing.assert_array_equal(one.render(), many.render())  # with the arrow of the torque


@pytest.mark.parametrize("count", [1, 8])
def test_pictures_show_the_first_copy(count):
    env = make_env("CartPole-v1", count)
    obs = env.reset(0)
    frame = env.render()
    assert frame.shape == (400, 600, 3)
    assert frame.dtype == np.uint8
    cart = np.flatnonzero((frame[310] == 0).all(axis=1)).mean()  # the row below the axle is black on the cart only
    assert cart == pytest.approx(300 + 125 * obs[0, 0], abs=1.5)
    env.close()
    with pytest.raises(SpecError, match="no picture"):
        make_env("diagnostic/one-step", 1).render()
