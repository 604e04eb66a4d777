"""Recordings hold what environments showed, frame by frame, whatever interrupts them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from saccade.envs import EnvOptions, UserError, make_env
from saccade.envs import recorder as recording_module
from saccade.envs.recorder import Policy, Recipe, Recording, open_recording, random_policy, record
from saccade.envs.recording import ACTED, FIRST, TERMINATED

EVERY_ENV = ["CartPole-v1", "pixels/CartPole-v1", "diagnostic/endless", "diagnostic/box"]
SMALL = EnvOptions(image_size=20, max_frames=80, noop_max=2, threads=1)  # Atari episodes of 20 steps


class Seen(NamedTuple):
    """An observation as the environment itself showed it."""

    obs: np.ndarray
    begins: bool
    action: np.ndarray | None  # None: the last observation of an episode
    reward: float = 0.0
    terminated: bool = False


def play(recipe: Recipe, steps: int) -> list[list[Seen]]:
    """What each environment shows to random actions, in order: the plain loop that a recording must agree with."""
    env = make_env(recipe.env, recipe.num_envs, recipe.options)
    policy, columns = random_policy(env.spec, recipe.seed), [[] for _ in range(recipe.num_envs)]
    obs, begins = env.reset(recipe.seed), [True] * recipe.num_envs
    for _ in range(steps):
        action = policy.act(obs)
        env.send(action)
        outcome = env.recv()
        for row, e in enumerate(outcome.env_index):
            ended = bool(outcome.terminated[row] or outcome.truncated[row])
            if outcome.valid[row]:
                done = bool(outcome.terminated[row])
                columns[e].append(Seen(obs[row], begins[row], action[row], float(outcome.reward[row]), done))
                if ended:
                    columns[e].append(Seen(outcome.next_obs[row], False, None))
            begins[row] = ended or not outcome.valid[row]
        obs = outcome.obs
    env.close()
    return columns


def run_to(directory: Path, recipe: Recipe, frames: int) -> Recording:
    for _ in record(directory, recipe, frames):
        pass
    return open_recording(directory)


@pytest.mark.parametrize(("env", "num_envs"), [*product(EVERY_ENV, [1, 7]), ("ALE/Breakout-v5", 2)])
def test_a_recording_holds_what_the_environment_showed(tmp_path: Path, env: str, num_envs: int):
    """7 CartPoles reset on the step after an end, whose action is ignored; single ones in the same step."""
    recipe = Recipe(env, SMALL, seed=3, num_envs=num_envs)
    found = run_to(tmp_path, recipe, 60 * num_envs)
    expected = play(recipe, 80)
    assert found.rows == 60
    channels = found.observation.frame_shape[0]
    for e, column in enumerate(expected):
        for row, seen in enumerate(column[: found.rows]):
            np.testing.assert_array_equal(found.frames[row, e], seen.obs[-channels:])
            flags = found.flags[row, e]
            assert bool(flags & FIRST) == seen.begins
            assert bool(flags & ACTED) == (seen.action is not None)
            assert bool(flags & TERMINATED) == seen.terminated
            if seen.action is not None:
                np.testing.assert_array_equal(found.action[row, e], seen.action)
                assert found.reward[row, e] == np.float32(seen.reward)


def check_episodes(found: Recording) -> int:
    """That each column is a row of episodes of `diagnostic/endless`-like worlds; returns how many were cut short."""
    flags = found.flags
    assert (flags[0] & FIRST).all()
    closing = flags & ACTED == 0
    assert (flags[1:][closing[:-1]] & FIRST).all()  # after an episode's last observation begins another
    assert not (flags[1:][~closing[:-1]] & FIRST).any()  # and nowhere else
    lengths = [np.diff(np.flatnonzero(column & FIRST)) - 1 for column in flags.T]
    assert all((length <= 5).all() for length in lengths)
    return sum(int((length < 5).sum()) for length in lengths)


ENDLESS = Recipe("diagnostic/endless", num_envs=2)  # episodes of 5 steps: 6 slots


def test_a_stopped_recording_goes_on(tmp_path: Path):
    going = record(tmp_path, ENDLESS, 60)
    while next(going) < 26:
        pass
    going.close()  # after 13 rows: two episodes and one slot, whose action and closing frame are kept
    before = open_recording(tmp_path)
    assert before.rows == 13
    frames = before.frames.copy()
    assert next(record(tmp_path, ENDLESS, 60)) > 26
    after = run_to(tmp_path, ENDLESS, 60)
    assert after.rows == 30
    np.testing.assert_array_equal(after.frames[:13], frames)
    assert check_episodes(after) > 0


def test_more_frames_can_be_recorded_later(tmp_path: Path):
    first = run_to(tmp_path, ENDLESS, 24)
    flags, action = first.flags.copy(), first.action.copy()
    more = run_to(tmp_path, ENDLESS, 60)
    assert (first.rows, more.rows) == (12, 30)
    np.testing.assert_array_equal(more.flags[:12], flags)
    np.testing.assert_array_equal(more.action[:12], action)
    assert check_episodes(more) == 0  # it stopped between two episodes
    again = run_to(tmp_path, ENDLESS, 10)  # nothing to do, nothing is lost
    assert again.rows == 30


def test_the_first_frames_do_not_depend_on_how_many_are_asked_for(tmp_path: Path):
    recipe = Recipe("CartPole-v1", num_envs=3)
    few, many = run_to(tmp_path / "few", recipe, 90), run_to(tmp_path / "many", recipe, 300)
    np.testing.assert_array_equal(many.frames[:30], few.frames)
    np.testing.assert_array_equal(many.action[:30], few.action)


def snapshots(directory: Path, copies: Path, frames: int) -> Iterator[Path]:
    """Copies of the files after every step: what a kill at that time would leave."""
    for done in record(directory, ENDLESS, frames):
        yield Path(shutil.copytree(directory, copies / str(done)))


@pytest.mark.parametrize("flush_seconds", [0, 1e9])
def test_what_is_not_yet_counted_is_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_seconds: float
):
    """With or without flushes, files that run ahead of `recording.json` never leave a broken episode behind."""
    monkeypatch.setattr(recording_module, "FLUSH_SECONDS", flush_seconds)
    for copy in snapshots(tmp_path / "whole", tmp_path / "copies", 24):
        counted = json.loads((copy / "recording.json").read_text())["done"]
        assert counted == open_recording(copy).rows * 2
        assert (counted > 0) == (flush_seconds == 0)
        check_episodes(run_to(copy, ENDLESS, 24))


def test_a_killed_process_loses_little(tmp_path: Path):
    script = f"""
import sys
from pathlib import Path
from saccade.envs import recorder
recorder.FLUSH_SECONDS = 0
for done in recorder.record(Path({str(tmp_path)!r}), recorder.Recipe("diagnostic/endless", num_envs=2), 10**6):
    if done > 30:
        print("go", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGKILL)
    found = open_recording(tmp_path)
    assert found.rows >= 14  # 30 observations, but for those of the last step
    check_episodes(found)
    check_episodes(run_to(tmp_path, ENDLESS, found.rows * 2 + 40))


def test_a_policy_acts_on_what_is_recorded(tmp_path: Path):
    act = Policy("copycat", lambda obs: (obs[:, 0] > 0).astype(np.int64))
    recipe = Recipe("diagnostic/observation-action", policy="copycat", num_envs=4)
    list(record(tmp_path, recipe, 80, act))
    found = open_recording(tmp_path)
    acted = found.flags & ACTED > 0
    np.testing.assert_array_equal(found.action[acted], found.frames[acted][:, 0] > 0)
    assert (found.reward[acted] == 1).all()


@pytest.mark.parametrize("action", [np.zeros(3, np.int64), np.zeros((2, 1), np.int64), np.full(2, np.nan)])
def test_actions_that_do_not_fit_are_refused(tmp_path: Path, action: np.ndarray):
    with pytest.raises(UserError, match=r"not \(2,\) finite ones"):
        list(record(tmp_path, Recipe("CartPole-v1", policy="odd", num_envs=2), 20, Policy("odd", lambda obs: action)))


def test_policy_and_recipe_must_agree(tmp_path: Path):
    with pytest.raises(UserError, match="give both the same name"):
        next(record(tmp_path, ENDLESS, 20, Policy("other", lambda obs: obs)))
    with pytest.raises(UserError, match="needs that policy"):
        next(record(tmp_path, Recipe("CartPole-v1", policy="dqn"), 20))


def test_random_actions_cover_the_action_space():
    discrete = random_policy(make_env("ALE/Breakout-v5", 1, SMALL).spec, seed=0)
    chosen = np.concatenate([discrete.act(np.zeros(1)) for _ in range(400)])
    assert set(chosen.tolist()) == {0, 1, 2, 3}
    spec = make_env("Pendulum-v1", 500).spec  # -2 to 2: the mean of 500 lies within 4 standard errors of 0
    torque = random_policy(spec, seed=0).act(np.zeros(500))
    assert torque.dtype == np.float32
    assert torque.shape == (500, 1)
    assert np.abs(torque).max() <= 2
    assert abs(torque.mean()) < 4 * (4 / 12**0.5) / 500**0.5
    assert torque.std() == pytest.approx(4 / 12**0.5, rel=0.1)


def test_another_recording_in_the_same_place_is_not_touched(tmp_path: Path):
    run_to(tmp_path, ENDLESS, 20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="holds another recording"):
        run_to(tmp_path, Recipe("diagnostic/endless", num_envs=2, seed=1), 20)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("recording.json", lambda content: content[:50]),
        ("recording.json", lambda content: b"[]"),
        ("recording.json", lambda content: content.replace(b'"cursor"', b'"cursors"')),
        ("recording.json", lambda content: content.replace(b'"rows": 10', b'"rows": 100')),
        ("frames.bin", lambda content: content[:-4]),
        ("flags.bin", lambda content: b""),
    ],
)
def test_damaged_recordings_are_named(tmp_path: Path, file: str, damage):
    run_to(tmp_path, ENDLESS, 20)
    (tmp_path / file).write_bytes(damage((tmp_path / file).read_bytes()))
    for attempt in (lambda: open_recording(tmp_path), lambda: run_to(tmp_path, ENDLESS, 30)):
        with pytest.raises(UserError, match=rf"{tmp_path}.*(damaged|another)"):
            attempt()


def test_an_absent_recording_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="holds no recording"):
        open_recording(tmp_path)


def test_a_full_disk_is_said_before_anything_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_to(tmp_path, ENDLESS, 20)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"0\.00 GB are free; make room"):
        run_to(tmp_path, ENDLESS, 2000)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == sizes


def test_a_file_that_may_not_grow_is_said(tmp_path: Path):
    """The system itself refuses: files are limited to less than what is asked for. What was there stays."""
    run_to(tmp_path, ENDLESS, 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match=f"cannot record into {tmp_path}: {os.strerror(27)}"):
            run_to(tmp_path, ENDLESS, 20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_recording(tmp_path).rows == 10
    check_episodes(run_to(tmp_path, ENDLESS, 40))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot record into"):
        run_to(tmp_path / "file" / "recording", ENDLESS, 20)
