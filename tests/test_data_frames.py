"""Recorded frames as a data set: stacks as the environment showed them, pairs of one episode, splits that are apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.data import Batches, Dataset, Policy, frames, list_datasets, load
from saccade.data.frames import Frames
from saccade.envs import EnvOptions, UnknownNameError, UserError, make_env
from saccade.envs.recorder import Recipe, random_policy

SMALL = EnvOptions(image_size=20, max_frames=80, noop_max=2, threads=1)  # Atari episodes of 20 steps
EVERY_ENV = [("CartPole-v1", 8), ("pixels/CartPole-v1", 8), ("Pendulum-v1", 8), ("ALE/Breakout-v5", 2)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What SACCADE_DATA names; the cache is beside it."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "data"


def shown(env_id: str, num_envs: int, steps: int, ahead: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(observation, first action, observation `ahead` steps later), whole as the environment itself stacked them."""
    env = make_env(env_id, num_envs, SMALL)
    policy = random_policy(env.spec, seed=0)
    obs, triples = env.reset(0), []
    episodes: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(num_envs)]
    for _ in range(steps):
        action = policy.act(obs)
        env.send(action)
        outcome = env.recv()
        for row, e in enumerate(outcome.env_index):
            if not outcome.valid[row]:
                continue
            episodes[e].append((obs[row], action[row]))
            if len(episodes[e]) >= ahead:
                triples.append((*episodes[e][-ahead], outcome.next_obs[row]))
            if outcome.terminated[row] or outcome.truncated[row]:
                episodes[e] = []
        obs = outcome.obs
    env.close()
    return triples


def everything(part: Frames) -> dict[str, torch.Tensor]:
    return part.take(torch.arange(len(part)))


def key(*arrays: np.ndarray | torch.Tensor) -> bytes:
    return b"|".join(np.ascontiguousarray(array).tobytes() for array in arrays)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize(("env", "num_envs"), EVERY_ENV)
def test_examples_are_what_the_environment_showed(env: str, num_envs: int, step: int):
    """Stacks with their zeros at the start of an episode, the action, and the stack `step` steps later."""
    data = frames.load(Recipe(env, SMALL, num_envs=num_envs), 60 * num_envs, step, policy=None)
    known = {key(*triple) for triple in shown(env, num_envs, 80, step)}
    batches = [everything(part) for part in (data.train, data.validation, data.test)]
    for batch in batches:
        assert tuple(batch["x"].shape[1:]) == data.spec.shape == tuple(batch["next_x"].shape[1:])
        assert str(batch["x"].dtype) == f"torch.{data.spec.dtype}"
        assert all(key(*triple) in known for triple in zip(batch["x"], batch["action"], batch["next_x"], strict=True))
        assert (batch["label"] == -1).all()
    if data.spec.stack > 1:  # the zeros were put to the test
        assert (batches[0]["x"][:, 0] == 0).flatten(1).all(1).any()


def test_nothing_is_missing_from_the_training_split():
    """Its rows are the first 52 of 60: every transition of the first 40 steps is in it."""
    data = load("env:pixels/CartPole-v1", frames=480, options=SMALL)
    batch = everything(data.train)
    recorded = [key(*triple) for triple in zip(batch["x"], batch["action"], batch["next_x"], strict=True)]
    expected = [key(*triple) for triple in shown("pixels/CartPole-v1", 8, 40, 1)]
    assert set(expected) <= set(recorded)


def test_a_step_of_0_takes_every_observation_alone():
    data = load("env:pixels/CartPole-v1", frames=480, step=0, options=SMALL)
    batch = everything(data.train)
    assert set(batch) == {"x", "label"}
    rows = len(data.train) // 8
    assert len(data.train) == rows * 8
    pairs = everything(load("env:pixels/CartPole-v1", frames=480, step=1, options=SMALL).train)
    shown_last = {key(x) for x in pairs["next_x"]} - {key(x) for x in pairs["x"]}
    assert shown_last <= {key(x) for x in batch["x"]}  # last observations of episodes are examples, too


def frames_read(part: Frames) -> set[bytes]:
    """The single frames that the examples are made of, by their content."""
    batch = everything(part)
    return {key(frame) for name in ("x", "next_x") for obs in batch[name] for frame in obs.view(part.stack, -1)}


def test_no_frame_is_in_two_splits():
    """Pendulums hardly ever look the same twice; and each split has rows of its own, of which it skips the first."""
    data = load("env:pixels/Pendulum-v1", frames=1600, options=SMALL)
    train, validation, test = (frames_read(part) for part in (data.train, data.validation, data.test))
    assert len(train & validation) < 0.01 * len(train)
    assert len(validation & test) < 0.02 * len(validation)
    assert len(data.train.x) + len(data.validation.x) + len(data.test.x) == 1600
    assert all(part.slot.min() // part.columns >= data.spec.stack for part in (data.validation, data.test))


def test_what_is_recorded_is_found_again(folder: Path, tmp_path: Path):
    one = load("env:CartPole-v1", frames=400)
    [directory] = (folder / "frames").iterdir()
    stamp = (directory / "frames.bin").stat().st_mtime_ns
    two = load("env:CartPole-v1", frames=400)
    fewer = load("env:CartPole-v1", frames=320)
    assert (directory / "frames.bin").stat().st_mtime_ns == stamp
    assert torch.equal(one.train.x, two.train.x)
    assert len(fewer.train) < len(one.train)
    assert torch.equal(fewer.train.x, one.train.x[: len(fewer.train.x)])
    load("env:CartPole-v1", frames=800)  # goes on in the same place
    load("env:CartPole-v1", frames=400, seed=1)
    assert len(list((folder / "frames").iterdir())) == 2
    (folder / "frames").rename(tmp_path / "frames")
    (tmp_path / "cache" / "saccade").mkdir(parents=True)
    (tmp_path / "frames").rename(tmp_path / "cache" / "saccade" / "frames")
    assert torch.equal(load("env:CartPole-v1", frames=400).train.x, one.train.x)
    assert not (folder / "frames").exists()


def test_speed_options_do_not_make_another_recording(folder: Path):
    for threads in (1, 2):
        load("env:CartPole-v1", frames=400, options=EnvOptions(threads=threads))
    assert len(list((folder / "frames").iterdir())) == 1


def test_a_policy_has_a_recording_of_its_own(folder: Path):
    policy = Policy("left/always", lambda obs: np.zeros(len(obs), np.int64))
    left = load("env:CartPole-v1", frames=400, policy=policy)
    assert (everything(left.train)["action"] == 0).all()
    assert (everything(load("env:CartPole-v1", frames=400).train)["action"] == 1).any()
    assert len(list((folder / "frames").iterdir())) == 2


def test_a_damaged_recording_is_named(folder: Path):
    load("env:CartPole-v1", frames=400)
    [directory] = (folder / "frames").iterdir()
    (directory / "frames.bin").write_bytes(b"short")
    with pytest.raises(UserError, match=f"{directory} is damaged"):
        load("env:CartPole-v1", frames=400)


@pytest.mark.parametrize(
    ("count", "step", "message"),
    [(16, 1, "too few to be split; record 96 or more"), (0, 1, "must be positive"), (400, -1, "0 or more, not -1")],
)
def test_sizes_that_make_no_sense_are_refused(count: int, step: int, message: str):
    with pytest.raises(UserError, match=message):
        load("env:pixels/CartPole-v1", frames=count, step=step, options=SMALL)


def test_episodes_shorter_than_the_step_are_refused():
    with pytest.raises(UserError, match="too short for a step of 3"):
        load("env:diagnostic/one-step", frames=400, step=3)


def test_unknown_environments_are_named():
    with pytest.raises(UnknownNameError, match=r"ALE/Breakout-v5"):
        load("env:ALE/Breakot-v5")
    assert "env:ID" in list_datasets()


def stream(data: Dataset, count: int) -> list[torch.Tensor]:
    batches = iter(Batches(data.train, 32, seed=1))
    return [next(batches)["next_x"] for _ in range(count)]


def test_batches_come_from_recordings_like_from_any_data():
    one, two = (stream(load("env:pixels/CartPole-v1", frames=400, options=SMALL), 3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
