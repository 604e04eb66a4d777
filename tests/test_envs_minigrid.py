"""MiniGrid's mazes against MiniGrid itself; needs the extra `[minigrid]`."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest
from saccade.envs import EnvOptions, UnknownNameError, UserError, VectorEnv, list_envs, make_env
from saccade.envs.steppers import spread_seed

needed = pytest.mark.skipif(importlib.util.find_spec("minigrid") is None, reason="needs minigrid")
MULTI_ROOM = "minigrid/MiniGrid-MultiRoom-N2-S4-v0"


def step(env: VectorEnv, action) -> Any:
    env.send(np.asarray(action))
    return env.recv()


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'saccade\[minigrid\]'"):
        make_env(MULTI_ROOM, 1)
    assert not [name for name in list_envs() if name.startswith("minigrid/")]


@needed
@pytest.mark.parametrize("pixels", [None, 56])
@pytest.mark.parametrize("name", ["MultiRoom-N2-S4-v0", "FourRooms-v0", "MemoryS9-v0"])
def test_worlds_step_as_minigrid_does(name, pixels):
    env = make_env(f"minigrid/MiniGrid-{name}", 2, EnvOptions(image_size=pixels))
    peers: list[Any] = [gymnasium.make(f"MiniGrid-{name}") for _ in range(2)]

    def look(peer: Any, seen: dict[str, Any]) -> np.ndarray:
        if pixels:
            return peer.unwrapped.get_pov_render(8).transpose(2, 0, 1)
        codes = seen["image"].astype(int)
        picture = np.zeros((3, 7, 7), int)
        for x in range(7):
            for y in range(7):
                kind, colour, state = codes[x, y]
                picture[:, y, x] = kind * 25, colour * 51, state * 85
        assert picture.max() <= 255
        return picture

    obs = env.reset(7)
    assert obs.dtype == np.uint8
    assert env.spec.observation.shape == obs.shape[1:] == ((3, 7, 7) if pixels is None else (3, 56, 56))
    for i, seed in enumerate(spread_seed(7, 2)):
        np.testing.assert_array_equal(obs[i], look(peers[i], peers[i].reset(seed=seed)[0]))
    generator, ends = np.random.default_rng(0), [0, 0]
    for _ in range(130 if pixels is None else 50):
        action = generator.choice(7, 2, p=[0.2, 0.2, 0.4, 0, 0, 0.2, 0])
        outcome = step(env, action)
        for i, peer in enumerate(peers):
            seen, reward, terminated, truncated, _ = peer.step(action[i])
            np.testing.assert_array_equal(outcome.next_obs[i], look(peer, seen))
            assert outcome.reward[i] == np.float32(reward)
            assert (outcome.terminated[i], outcome.truncated[i]) == (terminated, truncated)
            assert outcome.discount[i] == (not terminated)
            if terminated or truncated:
                ends[int(truncated)] += 1
                seen, _ = peer.reset()
            np.testing.assert_array_equal(outcome.obs[i], look(peer, seen))
    if pixels is None and "Memory" not in name:
        assert ends[1]  # cut off


@needed
def test_reaching_the_goal_ends_the_episode():
    env = make_env("minigrid/MiniGrid-Empty-5x5-v0", 1)
    env.reset(0)
    outcomes = [step(env, [action]) for action in (2, 2, 1, 2, 2)]
    assert [bool(outcome.terminated[0]) for outcome in outcomes] == [False] * 4 + [True]
    last = outcomes[-1]
    assert not last.truncated[0]
    assert last.discount[0] == 0
    assert last.reward[0] == pytest.approx(1 - 0.9 * 5 / 100)  # of at most 100 steps
    assert not np.array_equal(last.next_obs, last.obs)


@needed
def test_workers_change_nothing():
    here, there = (make_env(MULTI_ROOM, 3, EnvOptions(workers=workers, image_size=56)) for workers in (0, 2))
    np.testing.assert_array_equal(here.reset(1), there.reset(1))
    generator = np.random.default_rng(0)
    for _ in range(45):
        action = generator.integers(0, 7, 3)
        for mine, theirs in zip(step(here, action), step(there, action), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    there.watch(0)
    assert there.render().shape[2] == 3
    there.close()


@needed
def test_views_can_be_stacked_and_flicker():
    env = make_env(MULTI_ROOM, 2, EnvOptions(stack=2, flicker=0.5))
    assert env.spec.observation.shape == (6, 7, 7)
    assert env.reset(0).shape == (2, 6, 7, 7)


@needed
def test_all_worlds_are_listed_and_the_nearest_is_named():
    names = [name for name in list_envs() if name.startswith("minigrid/")]
    assert {MULTI_ROOM, "minigrid/MiniGrid-MemoryS9-v0", "minigrid/MiniGrid-FourRooms-v0"} <= set(names)
    assert not [name for name in list_envs() if name.startswith("MiniGrid")]
    for wrong, nearest in (
        ("minigrid/MiniGrid-MultiRoom-N2-S4", MULTI_ROOM),
        ("minigrid/FourRooms-v0", "minigrid/MiniGrid-FourRooms-v0"),
        ("MiniGrid-FourRooms-v0", "minigrid/MiniGrid-FourRooms-v0"),
        ("minigrid:MiniGrid-FourRooms-v0", "minigrid/MiniGrid-FourRooms-v0"),
    ):
        with pytest.raises(UnknownNameError, match=f"did you mean '{nearest}'"):
            make_env(wrong, 1)


@needed
def test_sizes_that_do_not_fit_name_one_that_does():
    with pytest.raises(UserError, match=r"multiples of 7 pixels; try --env.image-size 63"):
        make_env(MULTI_ROOM, 1, EnvOptions(image_size=64))
