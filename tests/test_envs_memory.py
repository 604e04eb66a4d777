"""Worlds that need a memory: no velocities, the T-maze, flickering frames."""

from __future__ import annotations

import numpy as np
import pytest
from saccade.envs import EnvOptions, Outcome, UnknownNameError, UserError, VectorEnv, make_env
from saccade.envs.masked import VISIBLE
from saccade.envs.recording import Recipe
from saccade.envs.t_maze import EAST, NORTH, SOUTH, WEST


def step(env: VectorEnv, action) -> Outcome:
    env.send(np.asarray(action))
    return env.recv()


def draw(env: VectorEnv, generator: np.random.Generator) -> np.ndarray:
    spec, count = env.spec.action, env.spec.num_envs
    if spec.is_discrete:
        return generator.integers(0, spec.count, count)
    return generator.uniform(-1, 1, (count, *spec.shape)).astype(np.float32)


def assert_clone_goes_on(env: VectorEnv, clone: VectorEnv, steps: int) -> None:
    """`clone` loads the state of `env` after `steps` and then shows the same for as many again."""
    env.reset(5)
    generator = np.random.default_rng(1)
    last = [step(env, draw(env, generator)) for _ in range(steps)][-1]
    saved = env.state_dict()
    actions = [draw(env, generator) for _ in range(steps)]
    expected = [step(env, action) for action in actions]
    np.testing.assert_array_equal(clone.load_state_dict(saved), last.obs)
    for action, outcome in zip(actions, expected, strict=True):
        for mine, theirs in zip(step(clone, action), outcome, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("name", list(VISIBLE))
def test_what_is_left_are_positions(name, count):
    full, masked = make_env(name, count), make_env(f"masked/{name}", count)
    assert masked.spec.id == f"masked/{name}"
    keep = {"CartPole": [0, 2], "Acrobot": [0, 1, 2, 3], "Pendulum": [0, 1]}.get(name.split("-")[0], [0])
    np.testing.assert_array_equal(masked.reset(3), full.reset(3)[:, keep])
    assert masked.spec.observation.shape == (len(keep),)
    assert masked.spec.observation.low == tuple(np.array(full.spec.observation.low)[keep].tolist())
    generator, ends = np.random.default_rng(0), 0
    for _ in range(230):
        action = draw(full, generator)
        mine, theirs = step(masked, action), step(full, action)
        np.testing.assert_array_equal(mine.next_obs, theirs.next_obs[:, keep])
        np.testing.assert_array_equal(mine.obs, theirs.obs[:, keep])
        for a, b in zip(mine[3:], theirs[3:], strict=True):
            np.testing.assert_array_equal(a, b)
        ends += (mine.terminated | mine.truncated).sum()
    assert ends or name in ("Acrobot-v1", "MountainCarContinuous-v0")
    full.close()
    masked.close()


@pytest.mark.parametrize("count", [2, 8])
def test_a_masked_clone_goes_on_bit_for_bit(count):
    assert_clone_goes_on(make_env("masked/CartPole-v1", count), make_env("masked/CartPole-v1", count), 80)


def test_a_masked_world_can_be_seen_by_people():
    env = make_env("masked/CartPole-v1", 1)
    env.watch(0)
    assert env.render().shape == (400, 600, 3)
    env.close()


def walk(env: VectorEnv, actions: list[int]) -> list[Outcome]:
    return [step(env, np.full(env.spec.num_envs, action)) for action in actions]


def test_the_t_maze_by_hand():
    env = make_env("diagnostic/t-maze-3", 32)
    first = env.reset(0)
    north = (first == [1, 1, 0]).all(axis=1)
    assert north.any()
    assert not north.all()
    assert (first[~north] == [0, 1, 1]).all()
    way = walk(env, [EAST, EAST, EAST])
    assert [np.unique(outcome.obs, axis=0).tolist() for outcome in way] == [[[1, 0, 1]], [[1, 0, 1]], [[0, 1, 0]]]
    assert all((outcome.reward == 0).all() and not outcome.terminated.any() for outcome in way)
    last = step(env, np.where(north, NORTH, SOUTH))
    assert (last.reward == 4).all()
    assert last.terminated.all()
    assert (last.discount == 0).all()
    assert (last.next_obs == [0, 1, 0]).all()
    assert set(map(tuple, last.obs)) == {(1, 1, 0), (0, 1, 1)}  # the next episodes' cues


def test_the_wrong_turn_of_a_t_maze():
    env = make_env("diagnostic/t-maze-1", 64)
    north = env.reset(1)[:, 0] == 1
    step(env, np.full(64, EAST))
    last = step(env, np.where(north, SOUTH, NORTH))
    np.testing.assert_allclose(last.reward, -0.1, rtol=1e-6)
    assert last.terminated.all()


def test_standing_still_and_going_back_cost():
    env = make_env("diagnostic/t-maze-2", 1)
    cue = env.reset(0)
    outcomes = walk(env, [NORTH, SOUTH, WEST, EAST, NORTH, WEST, EAST, EAST, EAST, WEST])
    np.testing.assert_allclose([o.reward[0] for o in outcomes], [-0.1, -0.1, -0.1, 0, -0.1, -0.1, 0, 0, -0.1, -0.1])
    looks = [o.obs[0].tolist() for o in outcomes]
    start, corridor, junction = cue[0].tolist(), [1, 0, 1], [0, 1, 0]
    assert looks == [start] * 3 + [corridor] * 2 + [start, corridor, junction, junction, corridor]
    assert not any(o.terminated[0] for o in outcomes)


def test_a_t_maze_is_cut_off_and_keeps_its_discount():
    env = make_env("diagnostic/t-maze-1", 2)
    env.reset(0)
    outcomes = walk(env, [EAST] * 16)
    assert [o.truncated.all() for o in outcomes] == ([False] * 7 + [True]) * 2
    assert not any(o.terminated.any() for o in outcomes)
    assert (outcomes[7].discount == 1).all()
    assert outcomes[7].next_obs.tolist() == [[0, 1, 0]] * 2
    assert (outcomes[7].obs[:, 1] == 1).all()
    assert (outcomes[7].obs.sum(axis=1) == 2).all()
    np.testing.assert_allclose(env.spec.score_range, (-0.8, 4))


@pytest.mark.parametrize("turn", [NORTH, SOUTH])
def test_without_memory_a_t_maze_is_a_coin(turn):
    count = 4000
    env = make_env("diagnostic/t-maze-5", count)
    env.reset(0)
    total = sum(outcome.reward for outcome in walk(env, [EAST] * 5 + [turn]))
    assert abs(total.mean() - 1.95) < 4 * 2.05 / np.sqrt(count)


def test_a_t_maze_clone_goes_on_bit_for_bit():
    assert_clone_goes_on(make_env("diagnostic/t-maze-2", 5), make_env("diagnostic/t-maze-2", 5), 60)


def test_t_mazes_have_any_length_but_none():
    assert make_env("diagnostic/t-maze", 1).length == 10
    assert make_env("diagnostic/t-maze-200", 1).length == 200
    with pytest.raises(UserError, match="at least 1 step"):
        make_env("diagnostic/t-maze-0", 1)
    for bad in ("diagnostic/t-mase-5", "diagnostic/t-maze-x"):
        with pytest.raises(UnknownNameError, match="did you mean 'diagnostic/t-maze'"):
            make_env(bad, 1)
    with pytest.raises(UserError, match="0 to 3"):
        step(make_env("diagnostic/t-maze", 1), [4])


def check_flicker(env: VectorEnv, steady: VectorEnv, steps: int) -> tuple[int, int]:
    """Against the same world without it: each frame is whole or black, and stays so. Returns (black, all) frames."""
    stack, count = env.spec.observation.stack, env.spec.num_envs

    def frames(obs: np.ndarray) -> np.ndarray:
        return obs.reshape(count, stack, -1)

    seen, known = frames(env.reset(2)), frames(steady.reset(2))
    shown = [[True] * (stack - 1) + [bool(seen[i, -1].any())] for i in range(count)]
    generator = np.random.default_rng(0)
    black = drawn = 0
    for _ in range(steps):
        action = draw(env, generator)
        mine, theirs = step(env, action), step(steady, action)
        seen, known = frames(mine.next_obs), frames(theirs.next_obs)
        ended = mine.terminated | mine.truncated
        for i in range(count):
            shown[i] = [*shown[i][1:], bool(seen[i, -1].any())]
            drawn, black = drawn + 1, black + (not shown[i][-1])
            np.testing.assert_array_equal(seen[i], known[i] * np.array(shown[i])[:, None])
            if ended[i]:
                shown[i][-1] = bool(frames(mine.obs)[i, -1].any()) or not frames(theirs.obs)[i, -1].any()
            np.testing.assert_array_equal(frames(mine.obs)[i], frames(theirs.obs)[i] * np.array(shown[i])[:, None])
        for a, b in zip(mine[3:], theirs[3:], strict=True):
            np.testing.assert_array_equal(a, b)
    return black, drawn


@pytest.mark.parametrize(("stack", "probability"), [(1, 0.5), (4, 0.5), (2, 0.1)])
def test_atari_flickers_frame_by_frame(stack, probability):
    env, steady = (
        make_env("ALE/Breakout-v5", 2, EnvOptions(threads=1, stack=stack, flicker=p)) for p in (probability, 0.0)
    )
    assert env.spec.observation.stack == stack
    black, drawn = check_flicker(env, steady, 250)
    assert abs(black / drawn - probability) < 4 * np.sqrt(probability * (1 - probability) / drawn)


@pytest.mark.parametrize("count", [2, 8])  # same-step and next-step resets
def test_small_pictures_flicker_frame_by_frame(count):
    env, steady = (
        make_env("pixels/CartPole-v1", count, EnvOptions(image_size=24, stack=3, flicker=p)) for p in (0.5, 0.0)
    )
    black, drawn = check_flicker(env, steady, 100)
    assert abs(black / drawn - 0.5) < 2 / np.sqrt(drawn)


def test_copies_flicker_apart_and_by_the_seed():
    def play(seed: int) -> np.ndarray:
        env = make_env("pixels/CartPole-v1", 4, EnvOptions(image_size=24, stack=1, flicker=0.5))
        frames = [env.reset(seed), *(step(env, [0, 1, 0, 1]).obs for _ in range(30))]
        return np.array(frames).any(axis=(2, 3, 4))

    first = play(3)
    np.testing.assert_array_equal(first, play(3))
    assert not np.array_equal(first, play(4))
    assert len(np.unique(first, axis=1).T) == 4


def test_a_flickering_clone_goes_on_bit_for_bit():
    options = EnvOptions(image_size=24, stack=3, flicker=0.5)
    assert_clone_goes_on(*(make_env("pixels/CartPole-v1", 3, options) for _ in range(2)), 60)
    assert make_env("ALE/Pong-v5", 1, EnvOptions(flicker=0.5)).state_dict() is None


def test_people_see_no_flicker():
    env = make_env("ALE/Pong-v5", 1, EnvOptions(threads=1, flicker=1.0, stack=1))
    assert not env.watch(0).any()
    assert not step(env, [0]).obs.any()
    assert env.render().any()
    env.close()


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_flicker_is_a_probability(bad):
    with pytest.raises(UserError, match="flicker is a probability"):
        make_env("pixels/CartPole-v1", 1, EnvOptions(flicker=bad))


def test_recordings_from_before_flicker_stay_valid():
    assert "flicker" not in Recipe("x").as_json()["options"]
    assert Recipe("x", EnvOptions(flicker=0.5)).as_json()["options"]["flicker"] == 0.5
