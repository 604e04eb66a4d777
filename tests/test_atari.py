"""Atari through the native vector environment: protocols, true ends, lives, and what people see."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from saccade.agents.base import Action
from saccade.envs import EnvOptions, make_env
from saccade.envs.atari import PROTOCOLS, AtariEnv, list_games, resolve_protocol
from saccade.envs.errors import UnknownNameError, UserError
from saccade.training.plan import default_plan
from saccade.training.video import record


def play(env: AtariEnv, steps: int, seed: int = 0) -> list:
    """Outcomes of random actions."""
    random, outcomes = np.random.default_rng(seed), []
    for _ in range(steps):
        env.send(random.integers(env.spec.action.count, size=env.spec.num_envs))
        outcomes.append(env.recv())
    return outcomes


@pytest.fixture(scope="module")
def breakout() -> tuple[np.ndarray, list]:
    env = make_env("ALE/Breakout-v5", 4, EnvOptions(threads=1))
    return env.reset(3), play(env, 400)


def test_every_game_is_listed() -> None:
    games = list_games()
    assert len(games) > 60
    assert {"ALE/Breakout-v5", "ALE/Pong-v5", "ALE/MsPacman-v5"} <= set(games)


def test_an_unknown_game_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="ALE/Breakout-v5"):
        make_env("ALE/Brekout-v5", 1)


def test_observations_are_stacks_that_begin_with_zeros(breakout: tuple[np.ndarray, list]) -> None:
    first, outcomes = breakout
    assert first.shape == (4, 4, 84, 84)
    assert first.dtype == np.uint8
    assert not first[:, :3].any()
    assert first[:, 3].any(axis=(1, 2)).all()
    previous = first
    for outcome in outcomes:
        assert np.array_equal(outcome.next_obs[:, :3], previous[:, 1:])  # one new frame each step, true ends too
        previous = outcome.obs


def test_the_last_observation_is_not_the_next_games_first(breakout: tuple[np.ndarray, list]) -> None:
    ends = 0
    for outcome in breakout[1]:
        ended = outcome.terminated | outcome.truncated
        for e in np.flatnonzero(ended):
            ends += 1
            assert not outcome.obs[e, :3].any()
            assert outcome.next_obs[e, :3].any()
        assert np.array_equal(outcome.obs[~ended], outcome.next_obs[~ended])
    assert ends >= 4


def test_a_lost_life_zeroes_the_discount_and_does_not_reset(breakout: tuple[np.ndarray, list]) -> None:
    outcomes = breakout[1]
    lost = sum(int((outcome.discount == 0).sum()) for outcome in outcomes)
    ended = sum(int(outcome.terminated.sum()) for outcome in outcomes)
    assert lost == pytest.approx(5 * ended, abs=4 * 5)  # five lives a game, games in progress aside
    assert lost > 2 * ended
    assert all((outcome.discount[outcome.terminated] == 0).all() for outcome in outcomes)


def test_without_life_loss_only_an_end_zeroes_the_discount() -> None:
    env = make_env("ALE/Breakout-v5", 4, EnvOptions(threads=1, life_loss=False))
    env.reset(3)
    for outcome in play(env, 300):
        assert np.array_equal(outcome.discount == 0, outcome.terminated)


def test_an_episode_that_is_cut_off_is_truncated_and_keeps_its_discount() -> None:
    env = make_env("ALE/Pong-v5", 2, EnvOptions(threads=1, max_frames=200))
    env.reset(0)
    outcomes = play(env, 60)
    cut = [outcome for outcome in outcomes if outcome.truncated.any()]
    assert cut
    for outcome in cut:
        assert not outcome.terminated[outcome.truncated].any()
        assert (outcome.discount[outcome.truncated] == 1).all()


def test_rewards_are_not_clipped() -> None:
    env = make_env("ALE/MsPacman-v5", 4, EnvOptions(threads=1))
    env.reset(0)
    assert max(outcome.reward.max() for outcome in play(env, 150)) >= 10


def test_the_same_seed_gives_the_same_game_and_another_another() -> None:
    runs = []
    for seed in (5, 5, 6):
        env = make_env("ALE/Breakout-v5", 2, EnvOptions(threads=1))
        runs.append([env.reset(seed), *(outcome.next_obs for outcome in play(env, 60))])
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_protocols_and_what_overrides_them() -> None:
    assert resolve_protocol(EnvOptions()) == PROTOCOLS["standard"]
    assert PROTOCOLS["standard"].sticky_actions == 0
    dopamine = resolve_protocol(EnvOptions(protocol="dopamine", noop_max=7))
    assert (dopamine.sticky_actions, dopamine.noop_max, dopamine.life_loss) == (0.25, 7, False)
    machado = make_env("ALE/Breakout-v5", 1, EnvOptions(protocol="machado"))
    assert machado.spec.action.count == 18
    assert make_env("ALE/Breakout-v5", 1).spec.action.count == 4


@pytest.mark.parametrize(
    "bad", [{"sticky_actions": 1.0}, {"sticky_actions": -0.1}, {"frame_skip": 0}, {"noop_max": -1}]
)
def test_options_that_make_no_sense(bad: dict) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        make_env("ALE/Breakout-v5", 1, EnvOptions(**bad))


def test_sticky_actions_stick() -> None:
    """With the same seed, games under other stickiness part ways though the actions are the same."""
    seen = []
    for sticky in (0.0, 0.25):
        env = make_env("ALE/Breakout-v5", 1, EnvOptions(threads=1, sticky_actions=sticky, noop_max=0))
        env.reset(0)
        seen.append([outcome.next_obs for outcome in play(env, 80)])
    assert not all(np.array_equal(a, b) for a, b in zip(*seen, strict=True))


def test_watching_shows_the_same_game_in_colour() -> None:
    env = make_env("ALE/Breakout-v5", 1, EnvOptions(threads=1))
    assert isinstance(env, AtariEnv)
    env.watch(4)
    random = np.random.default_rng(1)
    for _ in range(250):  # beyond the end of a game
        env.send(random.integers(4, size=1))
        outcome = env.recv()
        picture = env.render()
        assert picture.shape == (210, 160, 3)
        grey = np.asarray(Image.fromarray(picture).convert("L").resize((84, 84), Image.Resampling.BOX), np.float64)
        assert np.corrcoef(grey.ravel(), outcome.obs[0, -1].ravel())[0, 1] > 0.95
    assert (picture.std(axis=2) > 10).any()  # colours, not shades of grey


# imageio-ffmpeg leaves the pipes to its ffmpeg for the garbage collector to close
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_video_plays(tmp_path: Path, suffix: str) -> None:
    class Idle:
        device = "cpu"
        network = SimpleNamespace(encoder=None)

        def initial_state(self, batch_size: int) -> tuple:
            return ()

        def act(self, inputs, state, reset, *, explore) -> Action:
            return Action(np.zeros(1, np.int64), state, {})

    path = tmp_path / f"episode{suffix}"
    score, frames = record(Idle(), default_plan("dqn", "CartPole-v1"), path, seed=0)
    assert score == frames + 1  # the step that ends the episode has no picture: the world has begun its next
    if suffix == ".gif":
        with Image.open(path) as picture:
            shown = []
            for number in range(picture.n_frames):
                picture.seek(number)
                shown.append(picture.info["duration"])
            assert sum(shown) == 30 * frames  # milliseconds; equal pictures are one that lasts longer
            assert picture.convert("RGB").size == (600, 400)
    else:
        import imageio_ffmpeg

        reader = imageio_ffmpeg.read_frames(str(path))
        assert next(reader)["size"] == (600, 400)
        assert sum(1 for _ in reader) == frames
        del reader
        gc.collect()  # here, where its warnings are expected


def test_other_kinds_of_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.mp4 or \.gif"):
        record(None, default_plan("dqn", "CartPole-v1"), tmp_path / "episode.avi", seed=0)  # type: ignore[arg-type]
