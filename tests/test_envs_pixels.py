"""Classic control in pixels against Gymnasium's own pictures, and its stacks against the numbers underneath."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from saccade.envs import EnvOptions, make_env
from saccade.envs.base import VectorEnv
from saccade.envs.pixels import SCENES, Capsule, Rasteriser, Scene

# states over which pictures are compared: low, high
STATES: dict[str, tuple[list[float], list[float]]] = {
    "Acrobot-v1": ([-3, -3, 0, 0], [3, 3, 0, 0]),
    "CartPole-v1": ([-2.2, 0, -0.21, 0], [2.2, 0, 0.21, 0]),
    "MountainCar-v0": ([-1.1, 0], [0.5, 0]),
    "MountainCarContinuous-v0": ([-1.1, 0], [0.4, 0]),
    "Pendulum-v1": ([-3, 0], [3, 0]),
}


def observe(name: str, state: np.ndarray) -> np.ndarray:
    if name == "Pendulum-v1":
        return np.array([[np.cos(state[0]), np.sin(state[0]), state[1]]], np.float32)
    if name == "Acrobot-v1":
        angles = [f(angle) for angle in state[:2] for f in (np.cos, np.sin)]
        return np.array([[*angles, *state[2:]]], np.float32)
    return state[None].astype(np.float32)


def shrink(picture: np.ndarray, size: int) -> np.ndarray:
    """Mean over boxes, of a picture whose sides need not be multiples of `size`."""
    for axis in (0, 1):
        picture = np.repeat(picture, size, axis=axis)
        picture = np.stack(np.split(picture, size, axis=axis)).mean(axis=1 + axis)
        picture = np.moveaxis(picture, 0, axis)
    return picture


@pytest.mark.parametrize("name", list(SCENES))
def test_pictures_show_what_gymnasium_draws(name):
    world: Any = gymnasium.make(name, render_mode="rgb_array")
    world.reset(seed=0)
    low, high = STATES[name]
    generator = np.random.default_rng(0)
    left, right, bottom, top = (int(edge) for edge in SCENES[name].window)
    rasteriser = Rasteriser(SCENES[name], 64)
    theirs, mine = [], []
    for _ in range(12):
        state = generator.uniform(low, high)
        world.unwrapped.state = state
        picture = 255 - world.render().min(axis=2).astype(np.float32)  # what is dark there is light here
        height = picture.shape[0]
        theirs.append(shrink(picture[height - top : height - bottom, left:right], 64))
        mine.append(rasteriser.draw(observe(name, state))[0].astype(np.float32))
    moving_theirs = np.array(theirs) - np.median(theirs, axis=0)
    moving_mine = np.array(mine) - np.median(mine, axis=0)
    for a, b in zip(moving_theirs, moving_mine, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.75
    # no other state fits better than the own one
    similarity = np.corrcoef(moving_theirs.reshape(12, -1), moving_mine.reshape(12, -1))[:12, 12:]
    assert (similarity.argmax(axis=1) == np.arange(12)).all()
    world.close()


def test_a_capsule_covers_its_area():
    # a horizontal, an upright and a slanted bar, in pixels of 1.5 x 1: the summed light is their area
    for x1, y1 in ((35.0, 20.0), (20.0, 30.0), (32.0, 29.0)):
        scene = Scene((0, 60, 0, 40), lambda obs, x1=x1, y1=y1: [Capsule(20, 20, x1, y1, 6, 250)])
        picture = Rasteriser(scene, 40).draw(np.zeros((1, 1), np.float32))[0]
        area = np.pi * 36 + 12 * np.hypot(x1 - 20, y1 - 20)
        assert picture.sum() / 250 * 1.5 == pytest.approx(area, rel=0.03)
        assert picture[-20, 13] == 250  # inside
        assert picture[-5, 5] == 0  # outside


def test_pictures_of_a_batch_are_those_of_each():
    rasteriser = Rasteriser(SCENES["CartPole-v1"], 48)
    obs = np.random.default_rng(0).uniform(-0.2, 0.2, (5, 4)).astype(np.float32) * [8, 1, 1, 1]
    together = rasteriser.draw(obs)
    assert together.shape == (5, 48, 48)
    for i in range(5):
        np.testing.assert_array_equal(together[i], rasteriser.draw(obs[i : i + 1])[0])


def test_what_leaves_the_picture_is_cut_off():
    rasteriser = Rasteriser(SCENES["CartPole-v1"], 64)
    far = rasteriser.draw(np.array([[50, 0, 0, 0]], np.float32))[0]
    scene = SCENES["CartPole-v1"]
    empty = Rasteriser(Scene(scene.window, lambda obs: [], scene.still), 64).draw(np.zeros((1, 4)))[0]
    np.testing.assert_array_equal(far, empty)


def test_movement_by_less_than_a_pixel_shows():
    rasteriser = Rasteriser(SCENES["CartPole-v1"], 64)
    here, there = rasteriser.draw(np.array([[0, 0, 0, 0], [0.02, 0, 0, 0]], np.float32))
    assert (here != there).sum() > 20


@pytest.mark.parametrize("count", [2, 8])
def test_stacks_hold_the_last_pictures_of_one_episode(count):
    """Against a plain loop over the world in numbers, with same-step (2) and next-step (8) resets."""
    options = EnvOptions(stack=3, image_size=32)
    env, numbers = make_env("pixels/CartPole-v1", count, options), make_env("CartPole-v1", count)
    draw = Rasteriser(SCENES["CartPole-v1"], 32).draw
    assert env.spec.observation.frame_shape == (1, 32, 32)
    obs, state = env.reset(4), numbers.reset(4)
    empty = np.zeros((32, 32), np.uint8)
    frames = [[empty, empty, draw(state[i : i + 1])[0]] for i in range(count)]
    np.testing.assert_array_equal(obs, frames)
    generator = np.random.default_rng(0)
    ends = 0
    for _ in range(60):
        action = generator.integers(0, 2, count)
        env.send(action)
        numbers.send(action)
        seen, known = env.recv(), numbers.recv()
        for i in range(count):
            last = draw(known.next_obs[i : i + 1])[0]
            frames[i] = [*frames[i][1:], last] if known.valid[i] else [empty, empty, last]
            np.testing.assert_array_equal(seen.next_obs[i], frames[i])
            if known.terminated[i] and count == 2:
                frames[i] = [empty, empty, draw(known.obs[i : i + 1])[0]]
            np.testing.assert_array_equal(seen.obs[i], frames[i])
        for mine, theirs in zip(seen[3:], known[3:], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        ends += known.terminated.sum()
    assert ends


@pytest.mark.parametrize("name", list(SCENES))
def test_a_clone_goes_on_bit_for_bit(name):
    def act(env: VectorEnv, generator: np.random.Generator) -> Any:
        action = env.spec.action
        if action.is_discrete:
            env.send(generator.integers(0, action.count, 2))
        else:
            env.send(generator.uniform(-1, 1, (2, 1)).astype(np.float32))
        return env.recv()

    env, clone = (make_env(f"pixels/{name}", 2, EnvOptions(image_size=24)) for _ in range(2))
    env.reset(0)
    generator = np.random.default_rng(0)
    last = [act(env, generator) for _ in range(190)][-1]
    saved = env.state_dict()
    expected = [act(env, np.random.default_rng(1)) for _ in range(20)]
    np.testing.assert_array_equal(clone.load_state_dict(saved), last.obs)
    for outcome in expected:
        for mine, theirs in zip(act(clone, np.random.default_rng(1)), outcome, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_spec_says_what_is_shown():
    env = make_env("pixels/Pendulum-v1", 2)
    assert env.spec.id == "pixels/Pendulum-v1"
    assert env.spec.observation.shape == env.reset(0).shape[1:] == (2, 64, 64)
    assert env.spec.observation.stack == 2
    assert env.spec.observation.is_image
    assert env.spec.action.high == (2.0,)
    assert env.render().shape == (500, 500, 3)
