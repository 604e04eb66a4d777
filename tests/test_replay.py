"""The replay against a naive list of whole transitions, and the sum tree against NumPy."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from saccade.agents.parts.replay import Replay
from saccade.agents.parts.sum_tree import SumTree
from saccade.envs.base import Step
from saccade.envs.errors import UserError
from saccade.envs.spec import ActionSpec, EnvSpec, ObservationSpec

STACK, SIDE, ENVS = 3, 2, 3


def image_spec(num_envs: int = ENVS, stack: int = STACK) -> EnvSpec:
    observation = ObservationSpec((stack, SIDE, SIDE), "uint8", 0, 255, stack=stack)
    return EnvSpec("fake", num_envs, observation, ActionSpec(count=5))


class FakeWorld:
    """Episodes of random length whose every frame is different; some truncated, some lives lost, some rows missing."""

    def __init__(self, seed: int, num_envs: int = ENVS, end: float = 0.15):
        self.random, self.num_envs, self.end = np.random.default_rng(seed), num_envs, end
        self.frames = 0
        self.stacks = [self._begin() for _ in range(num_envs)]
        self.reset = np.ones(num_envs, bool)

    def _frame(self) -> np.ndarray:
        self.frames += 1
        digits = [self.frames // 256**k % 256 for k in range(SIDE * SIDE)]
        return np.array(digits, np.uint8).reshape(SIDE, SIDE)

    def _begin(self) -> deque[np.ndarray]:
        empty = [np.zeros((SIDE, SIDE), np.uint8)] * (STACK - 1)
        return deque([*empty, self._frame()], maxlen=STACK)

    def step(self, *, partial: bool = False) -> Step:
        some = self.random.random(self.num_envs) < 0.7 if partial else np.ones(self.num_envs, bool)
        index = np.flatnonzero(some)
        count = len(index)
        obs = (
            np.stack([np.stack(self.stacks[e]) for e in index]) if count else np.zeros((0, STACK, SIDE, SIDE), np.uint8)
        )
        for e in index:
            self.stacks[e].append(self._frame())
        next_obs = np.stack([np.stack(self.stacks[e]) for e in index]) if count else obs
        ended = self.random.random(count) < self.end
        truncated = ended & (self.random.random(count) < 0.5)
        terminated = ended & ~truncated
        lost = terminated | (self.random.random(count) < 0.05)
        step = Step(
            index,
            obs,
            self.random.integers(5, size=count),
            {},
            self.random.normal(size=count).astype(np.float32),
            terminated,
            truncated,
            1 - lost.astype(np.float32),
            next_obs,
            self.reset[index],
            np.ones(count, bool),
        )
        self.reset[index] = ended
        for e in index[ended]:
            self.stacks[e] = self._begin()
        return step


def rows(step: Step) -> list[dict]:
    names = ("obs", "action", "reward", "terminated", "truncated", "discount", "next_obs", "reset")
    return [{name: getattr(step, name)[i] for name in names} | {"env": int(e)} for i, e in enumerate(step.env_index)]


def naive_transition(history: list[dict], start: int, n_step: int, gamma: float) -> tuple:
    """n-step transition out of `history[start]`, where `history` is one environment's, in order."""
    reward, discount = 0.0, 1.0
    for row in history[start : start + n_step]:
        reward += discount * row["reward"]
        discount *= gamma * row["discount"]
        last = row
        if row["discount"] == 0 or row["terminated"] or row["truncated"]:
            break
    return history[start]["obs"], history[start]["action"], reward, discount, last["next_obs"]


def key(obs: np.ndarray) -> bytes:
    return np.ascontiguousarray(obs).tobytes()


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("capacity", [60, 1000])
@pytest.mark.parametrize("exponent", [0.0, 0.6])
@pytest.mark.parametrize("partial", [False, True])
def test_samples_equal_the_naive_replay(n_step: int, capacity: int, exponent: float, partial: bool) -> None:
    world, replay = FakeWorld(1), Replay(capacity, image_spec(), seed=2, priority_exponent=exponent)
    history: dict[int, list[dict]] = {e: [] for e in range(ENVS)}
    gamma, seen = 0.9, set()
    for number in range(150):
        step = world.step(partial=partial)
        replay.add(step)
        for row in rows(step):
            history[row["env"]].append(row)
        if number < 5 or number % 5:
            continue
        expected = {}
        for e in range(ENVS):
            for start, row in enumerate(history[e]):
                expected[key(row["obs"])] = naive_transition(history[e], start, n_step, gamma)
        batch = replay.sample(64, n_step, gamma, beta=0.5)
        for i in range(64):
            obs, action, reward, discount, next_obs = expected[key(batch.obs[i].numpy())]
            seen.add(key(obs))
            assert batch.action[i] == action
            assert batch.reward[i].item() == pytest.approx(reward, abs=1e-5)
            assert batch.discount[i].item() == pytest.approx(discount, abs=1e-6)
            if discount:  # what follows the end is multiplied with nothing
                assert np.array_equal(batch.next_obs[i].numpy(), next_obs)
    assert len(seen) > 100


def test_every_stored_transition_is_sampled_and_no_overwritten_one() -> None:
    world, replay = FakeWorld(3), Replay(90, image_spec(), seed=0)
    history: list[dict] = []
    for _ in range(200):
        step = world.step()
        replay.add(step)
        history += rows(step)
    batch = replay.sample(20_000)
    newest = {key(obs) for obs in batch.obs.numpy()}
    positions = [i for i, row in enumerate(history) if key(row["obs"]) in newest]
    assert min(positions) >= len(history) - 90
    # all but the slots that hold final observations and those whose stacks reach into what was overwritten
    assert len(newest) >= 90 * 0.7


def test_sequences_are_consecutive_and_marked() -> None:
    world, replay = FakeWorld(4), Replay(300, image_spec(), seed=0)
    history: dict[int, list[dict]] = {e: [] for e in range(ENVS)}
    for _ in range(250):
        step = world.step()
        replay.add(step)
        for row in rows(step):
            history[row["env"]].append(row)
    where = {key(row["obs"]): (e, i) for e in range(ENVS) for i, row in enumerate(history[e])}
    batch = replay.sample_sequences(40, 12)
    assert batch.obs.shape == (13, 40, STACK, SIDE, SIDE)
    crossed = 0
    for b in range(40):
        e, i = where[key(batch.obs[0, b].numpy())]
        for t in range(12):
            if not batch.mask[t, b]:
                crossed += 1  # a final observation: nothing was done there
                assert np.array_equal(batch.obs[t, b].numpy(), history[e][i - 1]["next_obs"])
                continue
            row = history[e][i]
            assert np.array_equal(batch.obs[t, b].numpy(), row["obs"])
            assert batch.action[t, b] == row["action"]
            assert batch.reward[t, b] == row["reward"]
            assert bool(batch.reset[t, b]) == bool(row["reset"])
            i += 1
    assert crossed > 10


def test_cut_keeps_what_was_seen_and_never_bridges_a_gap() -> None:
    world, replay = FakeWorld(5, end=0.0), Replay(300, image_spec(), seed=0)
    first = [world.step() for _ in range(10)]
    for step in first:
        replay.add(step)
    replay.cut()
    fresh = FakeWorld(6, end=0.0)
    fresh.frames = 5000
    fresh.stacks = [fresh._begin() for _ in range(ENVS)]
    second = [fresh.step() for _ in range(10)]
    for step in second:
        replay.add(step)
    expected = {key(row["obs"]): key(row["next_obs"]) for step in first + second for row in rows(step)}
    batch = replay.sample(2000)
    assert {key(o) for o in batch.obs.numpy()} == set(expected)
    for obs, next_obs in zip(batch.obs.numpy(), batch.next_obs.numpy(), strict=True):
        assert expected[key(obs)] == key(next_obs)


def test_prioritised_sampling_follows_priorities() -> None:
    replay = Replay(400, image_spec(1), seed=0, priority_exponent=1.0)
    world = FakeWorld(7, num_envs=1, end=0.0)
    for _ in range(100):
        replay.add(world.step())
    slots = np.arange(100)
    priority = 1.0 + np.arange(100)
    replay.update_priorities(slots, priority)
    batch = replay.sample(50_000, beta=1.0)
    share = np.bincount(batch.slot, minlength=100)[:100] / 50_000
    assert share == pytest.approx(priority / priority.sum(), abs=0.004)
    weight = 1 / (100 * priority[batch.slot] / priority.sum())
    assert batch.weight.numpy() == pytest.approx(weight / weight.max(), rel=1e-4)


def test_invalid_rows_are_not_stored() -> None:
    world, replay = FakeWorld(8), Replay(300, image_spec())
    step = world.step()
    replay.add(step._replace(valid=np.array([True, False, True])))
    assert len(replay) == 2
    replay.add(world.step()._replace(valid=np.zeros(ENVS, bool)))
    assert len(replay) == 2


def test_vectors_and_state_round_trip() -> None:
    spec = EnvSpec("fake", 2, ObservationSpec((3,)), ActionSpec(count=2))
    random = np.random.default_rng(0)

    def step(first: bool) -> Step:
        obs, following = random.normal(size=(2, 2, 3)).astype(np.float32)
        no, yes = np.zeros(2, bool), np.ones(2, bool)
        reward = random.normal(size=2).astype(np.float32)
        action = np.zeros(2, np.int64)
        return Step(np.arange(2), obs, action, {}, reward, no, no, np.ones(2, np.float32), following, yes & first, yes)

    original = Replay(20, spec, seed=1, priority_exponent=0.5)
    for number in range(37):
        original.add(step(number == 0))
    original.update_priorities(np.arange(5), np.linspace(1, 3, 5))
    restored = Replay(20, spec, seed=9, priority_exponent=0.5)
    restored.load_state_dict(original.state_dict())
    for name, _, content in original.chunks():
        restored.load_chunk(name, {key: value.clone() for key, value in content.items()})
    for ours, theirs in zip(original.sample(16, 2, 0.9, 0.4), restored.sample(16, 2, 0.9, 0.4), strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_only_touched_chunks_change_their_version() -> None:
    replay = Replay(ENVS * 40, image_spec())
    replay.chunk = 10
    replay._versions = np.zeros(4, np.int64)
    world = FakeWorld(9, end=0.0)
    for _ in range(12):
        replay.add(world.step())
    before = {name: version for name, version, _ in replay.chunks()}
    replay.add(world.step())
    after = {name: version for name, version, _ in replay.chunks()}
    assert list(before) == ["000000", "000001"]
    assert before["000000"] == after["000000"]
    assert before["000001"] < after["000001"]


def test_memory_of_a_million_atari_transitions() -> None:
    spec = EnvSpec("atari", 8, ObservationSpec((4, 84, 84), "uint8", 0, 255, stack=4), ActionSpec(count=4))
    replay = Replay(1_000_000, spec, priority_exponent=0.5)  # taken from the system only when it is written to
    arrays = [replay.action, replay.reward, replay.discount, replay.flags, *replay.tree.levels]
    total = replay.frames.numel() + sum(array.nbytes for array in arrays)
    assert total <= 7.3e9


def test_impossible_replay_is_refused_with_its_size() -> None:
    spec = EnvSpec("huge", 1, ObservationSpec((4, 84, 84), "uint8", 0, 255, stack=4), ActionSpec(count=4))
    with pytest.raises(UserError, match=r"7056\.0 GB"):
        Replay(10**9, spec)


def test_stacks_that_begin_full_are_refused() -> None:
    replay, world = Replay(300, image_spec()), FakeWorld(0)
    step = world.step()
    with pytest.raises(ValueError, match="zeros and one frame"):
        replay.add(step._replace(obs=step.next_obs + 1))


def test_sum_tree_against_numpy() -> None:
    random = np.random.default_rng(0)
    for leaves in (1, 63, 64, 65, 5000):
        tree, naive = SumTree(leaves), np.zeros(leaves)
        for _ in range(50):
            index = random.integers(leaves, size=7)
            value = random.random(7) * (random.random(7) < 0.8)
            tree.set(index, value)
            naive[index] = value
            assert np.array_equal(tree.leaves(), naive)
            assert tree.total() == pytest.approx(naive.sum())
        if naive.sum():
            uniform = random.random(2000)
            expected = np.searchsorted(np.cumsum(naive), uniform * naive.sum(), side="right")
            found = tree.sample(uniform)
            assert (found == expected).mean() > 0.999  # rounding may move a draw across a border
            assert (naive[found] > 0).all()


def test_no_version_of_a_chunk_names_two_contents() -> None:
    replay, world = Replay(200, image_spec(1)), FakeWorld(11, num_envs=1, end=0.5)
    seen: dict[tuple[str, int], bytes] = {}
    for _ in range(60):
        replay.add(world.step())
        for name, version, content in replay.chunks():
            whole = b"".join(
                tensor.contiguous().numpy().tobytes() for key, tensor in content.items() if key != "frames"
            )
            assert seen.setdefault((name, version), whole) == whole


def test_a_cleared_replay_is_as_good_as_new() -> None:
    replay, world = Replay(200, image_spec(), seed=0, priority_exponent=0.5), FakeWorld(12)
    for _ in range(100):
        replay.add(world.step())
    replay.clear()
    assert len(replay) == 0
    with pytest.raises(ValueError, match="empty"):
        replay.sample(1)
    fresh = FakeWorld(13)
    steps = [fresh.step() for _ in range(10)]
    for step in steps:
        replay.add(step)
    known = {key(row["obs"]) for step in steps for row in rows(step)}
    assert {key(obs) for obs in replay.sample(500).obs.numpy()} == known
