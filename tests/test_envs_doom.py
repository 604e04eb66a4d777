"""ViZDoom's worlds against its own engine; needs the extra `[doom]`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from saccade.envs import EnvOptions, UnknownNameError, UserError, VectorEnv, list_envs, make_env
from saccade.envs.steppers import spread_seed

needed = pytest.mark.skipif(importlib.util.find_spec("vizdoom") is None, reason="needs vizdoom")


def step(env: VectorEnv, action) -> Any:
    env.send(np.asarray(action))
    return env.recv()


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'saccade\[doom\]'"):
        make_env("doom/basic", 1)


def test_unknown_scenarios_name_the_nearest():
    assert {"doom/my-way-home", "doom/basic", "doom/deadly-corridor"} <= set(list_envs())
    with pytest.raises(UnknownNameError, match="did you mean 'doom/my-way-home'"):
        make_env("doom/my_way_home", 1)


@needed
def test_a_frame_skip_must_be_positive():
    with pytest.raises(UserError, match="frame_skip"):
        make_env("doom/basic", 1, EnvOptions(frame_skip=0))


@needed
def test_the_engine_is_played_as_told(tmp_path, monkeypatch):
    """Side by side with a game of the same seed that is played by hand, through ends."""
    import vizdoom

    monkeypatch.chdir(tmp_path)
    env = make_env("doom/simpler-basic", 1, EnvOptions(image_size=48))
    assert list(tmp_path.iterdir()) == []  # the engine left nothing here
    assert env.spec.observation.shape == (3, 48, 48)
    assert env.spec.frames_per_step == 4
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / "simpler_basic.cfg"))
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_window_visible(False)
    assert env.spec.action.count == 1 + game.get_available_buttons_size() == 4
    limit = game.get_episode_timeout()
    game.init()
    game.set_seed(spread_seed(3, 1)[0])
    game.new_episode()

    def look() -> np.ndarray:
        picture = Image.fromarray(game.get_state().screen_buffer)
        return np.asarray(picture.resize((48, 48), Image.Resampling.BOX)).transpose(2, 0, 1)

    obs = env.reset(3)
    np.testing.assert_array_equal(obs[0], look())
    generator, kills, cuts = np.random.default_rng(0), 0, 0
    for number in range(160):
        action = int(generator.choice(4, p=[0, 0.45, 0.45, 0.1])) if number < 80 else 0
        outcome = step(env, [action])
        reward = game.make_action([float(action == button) for button in (1, 2, 3)], 4)
        assert outcome.reward[0] == np.float32(reward)
        finished = game.is_episode_finished()
        killed = finished and not game.is_episode_timeout_reached()
        assert (bool(outcome.terminated[0]), bool(outcome.truncated[0])) == (killed, finished and not killed)
        assert outcome.discount[0] == (not killed)
        kills, cuts = kills + killed, cuts + (finished and not killed)
        if finished:
            if killed:
                np.testing.assert_array_equal(outcome.next_obs, obs)  # the last picture there was
            else:
                assert not np.array_equal(outcome.next_obs, outcome.obs)
            game.new_episode()
        else:
            np.testing.assert_array_equal(outcome.next_obs[0], look())
        np.testing.assert_array_equal(outcome.obs[0], look())
        obs = outcome.obs
    assert limit > 0
    assert kills
    assert cuts
    game.close()
    env.close()
    env.close()


@needed
def test_grey_stacks_in_workers_and_the_same_seed():
    options = EnvOptions(image_size=40, grey=True, stack=2, workers=2)
    env = make_env("doom/my-way-home", 2, options)
    assert env.spec.observation.shape == (2, 40, 40)
    assert env.spec.observation.frame_shape == (1, 40, 40)
    runs = []
    for seed in (1, 1, 2):
        last = env.reset(seed)
        assert not last[:, 0].any()
        generator, seen = np.random.default_rng(0), [last]
        for _ in range(12):
            outcome = step(env, generator.integers(0, env.spec.action.count, 2))
            np.testing.assert_array_equal(outcome.next_obs[:, 0], last[:, 1])
            last = outcome.obs
            seen.append(last)
        runs.append(np.array(seen))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0][:, 0], runs[0][:, 1])  # copies differ
    env.watch(0)
    picture = env.render()
    assert picture.shape == (120, 160, 3)
    assert picture.std() > 5
    assert env.state_dict() is None
    env.close()
