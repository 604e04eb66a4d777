"""The replay of sequences against a naive list of all that happened, states included."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from saccade.agents.parts.sequence_replay import SequenceReplay, Span
from saccade.envs.base import Step
from saccade.envs.errors import UserError
from saccade.envs.spec import ActionSpec, EnvSpec, ObservationSpec
from test_replay import ENVS, FakeWorld, image_spec, key

Leaves = tuple[np.ndarray, ...]
STATE = (torch.zeros(1, 2), torch.zeros(1, 1, 3))
BLANK = (torch.full((1, 2), -7.0), torch.full((1, 1, 3), -7.0))  # the state before an episode


@dataclass
class Slot:
    """One observation of one environment, and what was done there."""

    obs: np.ndarray
    offset: int  # steps since its episode began
    last_action: int = 0
    last_reward: float = 0.0
    acted: bool = False
    action: int = 0
    reward: float = 0.0
    discount: float = 0.0
    state: tuple[np.ndarray, ...] = ()


@dataclass
class NaiveLog:
    """All slots of one environment from the first; `cursor` is where the next transition goes."""

    slots: list[Slot] = field(default_factory=list)
    cursor: int = 0

    def add(self, step: Step, row: int, state: Leaves) -> None:
        if step.reset[row]:
            self.slots.append(Slot(step.obs[row], 0))
        slot = self.slots[-1]
        slot.acted, slot.action, slot.reward = True, int(step.action[row]), float(step.reward[row])
        slot.discount, slot.state = float(step.discount[row]), tuple(leaf[row] for leaf in state)
        self.slots.append(Slot(step.next_obs[row], slot.offset + 1, slot.action, slot.reward))
        self.cursor = len(self.slots) - 1 + int(step.ended[row])

    def cut(self) -> None:
        self.cursor = len(self.slots)

    def starts(self, span: Span, size: int, margin: int) -> set[int]:
        """Slots with which a sequence begins that is whole, still there, and whose state is known."""
        kept = [i for i, s in enumerate(self.slots) if s.acted and s.offset and s.offset % span.interval == 0]
        found = set()
        for first in range(max(0, self.cursor + 1 - size + margin), len(self.slots) - span.total + 1):
            offset = self.slots[first + span.burn_in].offset
            begins = offset == 0
            goes_on = offset >= span.burn_in and (offset - span.burn_in) % span.interval == 0
            if not self.slots[first + span.burn_in].acted or not (begins or goes_on):
                continue
            place = first % size // span.interval
            newer = any(i > first and i % size // span.interval == place and i % size < first % size for i in kept)
            if begins or offset == span.burn_in or not newer:
                found.add(first)
        return found


class Recorder:
    """A world whose steps go into a replay and into naive logs; states are numbers that differ everywhere."""

    def __init__(self, replay: SequenceReplay, world: FakeWorld):
        self.replay, self.world = replay, world
        self.logs = [NaiveLog() for _ in range(ENVS)]
        self.count = 0

    def state(self, rows: int) -> Leaves:
        self.count += 1
        return tuple(
            np.random.default_rng([self.count, i]).normal(size=(rows, *leaf.shape[1:])).astype(np.float32)
            for i, leaf in enumerate(STATE)
        )

    def play(self, steps: int, *, partial: bool = False) -> None:
        for _ in range(steps):
            step = self.world.step(partial=partial)
            state = self.state(len(step.env_index))
            self.replay.add(step, state if self.replay.states else ())
            for row, env in enumerate(step.env_index):
                self.logs[env].add(step, row, state)

    def cut(self, seed: int) -> None:
        self.replay.cut()
        for log in self.logs:
            log.cut()
        frames, self.world = self.world.frames, FakeWorld(seed)
        self.world.frames = frames + 1000
        self.world.stacks = [self.world._begin() for _ in range(ENVS)]

    def expected(self) -> set[tuple[int, int]]:
        size, margin = self.replay.size, self.replay.margin
        return {(env, i) for env, log in enumerate(self.logs) for i in log.starts(self.replay.span, size, margin)}

    def active(self) -> set[tuple[int, int]]:
        """(environment, index in its log) of the slots that the replay would sample."""
        found = set()
        for slot in np.flatnonzero(self.replay.tree.leaves()):
            env, position = divmod(int(slot), self.replay.size)
            newest = (self.logs[env].cursor - 1) // self.replay.size * self.replay.size + position
            found.add((env, newest if newest < self.logs[env].cursor else newest - self.replay.size))
        return found

    def check(self, count: int = 24) -> set[tuple[int, int]]:
        """Every entry of `count` sampled sequences against the logs."""
        replay, span = self.replay, self.replay.span
        batch = replay.sample(count, tuple(leaf.expand(count, *leaf.shape[1:]) for leaf in BLANK))
        where = {key(slot.obs): (env, i) for env, log in enumerate(self.logs) for i, slot in enumerate(log.slots)}
        starts = set()
        for b in range(count):
            env, first = where[key(batch.inputs.obs[0, b].numpy())]
            starts.add((env, first))
            slots = self.logs[env].slots[first : first + span.total]
            assert len(slots) == span.total
            for t, slot in enumerate(slots):
                assert np.array_equal(batch.inputs.obs[t, b].numpy(), slot.obs)
                assert bool(batch.reset[t, b]) == (slot.offset == 0)
                assert bool(batch.acted[t, b]) == slot.acted
                got = [x[t, b].item() for x in (batch.action, batch.reward, batch.discount)]
                assert got == [slot.action, slot.reward, slot.discount]
                last = batch.inputs.last_action[t, b].item(), batch.inputs.last_reward[t, b].item()
                assert last == (slot.last_action, slot.last_reward)
            fresh = any(slot.offset == 0 for slot in slots[: span.burn_in + 1])
            known = replay.states and not fresh
            for leaf, kept, blank in zip(batch.state, slots[0].state or BLANK, BLANK, strict=True):
                assert np.array_equal(leaf[b].numpy(), kept if known else blank[0].numpy())
        return starts


SPANS = {
    "overlapping": Span(burn_in=4, length=6, ahead=2, interval=3),
    "no burn-in": Span(burn_in=0, length=5, ahead=1, interval=2),
    "anywhere": Span(burn_in=3, length=4, ahead=3, interval=1),
    "apart": Span(burn_in=2, length=3, ahead=1, interval=7),
}
every_span = pytest.mark.parametrize("span", SPANS.values(), ids=SPANS.keys())


@every_span
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("partial", [False, True])
def test_sequences_equal_the_naive_log(span: Span, stored: bool, partial: bool):
    replay = SequenceReplay(ENVS * 41, image_spec(), span, STATE if stored else (), seed=0)
    recorder, seen = Recorder(replay, FakeWorld(1, end=0.08)), set()
    for number in range(14):
        recorder.play(9, partial=partial)
        if number == 7:
            recorder.cut(seed=2)
            continue
        expected = recorder.expected()
        assert recorder.active() == expected if stored else recorder.active() >= expected
        assert replay.is_ready == bool(recorder.active())
        if replay.is_ready:
            seen |= recorder.check()
    assert len(seen) > 30


def test_nothing_is_sampled_before_a_sequence_is_whole():
    replay = SequenceReplay(300, image_spec(), SPANS["overlapping"])
    assert not replay.is_ready
    with pytest.raises(ValueError, match="no whole sequence"):
        replay.sample(1, ())
    recorder = Recorder(replay, FakeWorld(0, end=0.0))
    recorder.play(SPANS["overlapping"].total + 1)
    assert replay.is_ready


def test_a_loaded_replay_goes_on_exactly():
    span = SPANS["overlapping"]
    replays = [SequenceReplay(ENVS * 60, image_spec(), span, STATE, seed=s, priority_exponent=0.7) for s in (0, 1)]
    original, restored = replays
    for replay in replays:  # several pieces, none of which cuts a state's steps apart
        replay.chunk = 4 * span.interval
        replay._versions = np.zeros(-(-replay.size // replay.chunk), np.int64)
    recorder = Recorder(original, FakeWorld(3, end=0.05))
    recorder.play(100)
    original.update_priorities(original.sample(9, BLANK_ROWS).start, np.linspace(0.5, 3, 9))
    restored.load_state_dict(original.state_dict())
    pieces = list(original.chunks())
    assert len(pieces) == 5
    for name, _, content in pieces:
        restored.load_chunk(name, {k: tensor.clone() for k, tensor in content.items()})
    for _ in range(40):
        step = recorder.world.step()
        state = recorder.state(len(step.env_index))
        for replay in replays:
            replay.add(step, state)
    ours, theirs = (replay.sample(9, BLANK_ROWS, beta=0.4) for replay in replays)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        for x, y in zip(a if isinstance(a, tuple) else (a,), b if isinstance(b, tuple) else (b,), strict=True):
            assert np.array_equal(np.asarray(x), np.asarray(y))
    assert torch.equal(ours.inputs.obs, theirs.inputs.obs)


BLANK_ROWS = tuple(leaf.expand(9, *leaf.shape[1:]) for leaf in BLANK)


def test_a_cleared_replay_is_as_good_as_new():
    replay = SequenceReplay(ENVS * 60, image_spec(), SPANS["overlapping"], STATE)
    Recorder(replay, FakeWorld(3)).play(100)
    replay.clear()
    assert not replay.is_ready
    recorder = Recorder(replay, FakeWorld(4))
    recorder.play(50)
    recorder.check()


def test_sequences_are_drawn_by_priority_and_weighed_against_it():
    replay = SequenceReplay(ENVS * 400, image_spec(), SPANS["apart"], priority_exponent=0.5)
    Recorder(replay, FakeWorld(5, end=0.0)).play(100)
    starts = np.flatnonzero(replay.tree.leaves())
    priority = 1.0 + np.arange(len(starts))
    replay.update_priorities(starts, priority)
    batch = replay.sample(50_000, (), beta=0.5)
    share = np.array([(batch.start == start).mean() for start in starts])
    assert share == pytest.approx(np.sqrt(priority) / np.sqrt(priority).sum(), abs=0.005)
    weight = np.sqrt(priority[np.searchsorted(starts, batch.start)]) ** -0.5
    assert batch.weight.numpy() == pytest.approx(weight / weight.max(), rel=1e-4)


def test_a_new_sequence_has_the_greatest_priority_there_was():
    replay = SequenceReplay(ENVS * 400, image_spec(), SPANS["apart"], priority_exponent=0.5)
    recorder = Recorder(replay, FakeWorld(5, end=0.0))
    recorder.play(30)
    old = np.flatnonzero(replay.tree.leaves())
    replay.update_priorities(old, np.full(len(old), 9.0))
    recorder.play(30)
    assert set(replay.tree.leaves()[replay.tree.leaves() > 0]) == {3.0}


def test_states_are_kept_every_interval_only_and_count_in_the_size():
    span = Span(burn_in=20, length=40, ahead=1, interval=20)
    state = (torch.zeros(1, 256, 64), torch.zeros(1, 256, 256), torch.zeros(1, 2816))  # 338 kB
    spec = EnvSpec("fake", 1, ObservationSpec((2,)), ActionSpec(count=2))
    replay = SequenceReplay(10_000, spec, span, state)  # taken from the system only when it is written to
    assert sum(leaf.numel() for leaf in replay.states) * 4 == 500 * 338_944
    with pytest.raises(UserError, match=r"needs 16955\.\d GB .*16947\.2 GB of them are states of 339 kB"):
        SequenceReplay(10**9, spec, span, state)


def test_a_replay_that_holds_no_sequence_is_refused():
    with pytest.raises(UserError, match="no sequence of 12 observations"):
        SequenceReplay(ENVS * 13, image_spec(), SPANS["overlapping"])
