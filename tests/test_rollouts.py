"""Rollouts: what goes in comes out, as the encoder read it; minibatches; exact resume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rollouts import BOX, SPEC, random_steps
from saccade.agents.parts.rollouts import RolloutStore, minibatches

T = 12


def filled(steps, spec=SPEC, length=T, state=()):
    store = RolloutStore(length, spec)
    store.begin(state)
    for step in steps:
        store.append(step, step.next_obs[:, 0] if step.truncated.any() else None)
    return store


def marked(steps):
    """`steps` whose agent has remembered something."""
    return [s._replace(extras=s.extras | {"noted": s.reward * 2}) for s in steps]


@pytest.mark.parametrize("spec", [SPEC, BOX])
def test_what_goes_in_comes_out(spec):
    steps = marked(random_steps(T, spec=spec))
    rollout = filled(steps, spec).take()
    assert rollout.obs.shape == (T + 1, 3, 2)
    for t, step in enumerate(steps):
        for name in ("obs", "action", "reward", "discount", "ended", "reset"):
            np.testing.assert_array_equal(getattr(rollout, name)[t], getattr(step, name), name)
        np.testing.assert_array_equal(rollout.choice[t], step.extras.get("choice", step.action))
        np.testing.assert_array_equal(rollout.extras["noted"][t], 2 * step.reward)
        np.testing.assert_array_equal(rollout.cut[t], step.truncated)
    np.testing.assert_array_equal(rollout.obs[-1], steps[-1].next_obs)
    assert not rollout.reset[-1].any()


def naive_last(steps):
    """What the loop gives a memory beside each observation, row by row."""
    action, reward = np.zeros((T + 1, 3), np.int64), np.zeros((T + 1, 3), np.float32)
    for t, step in enumerate(steps):
        for i in range(3):
            if not (step.ended[i] or not step.valid[i]):
                action[t + 1, i], reward[t + 1, i] = step.action[i], step.reward[i]
    return action, reward


def test_what_a_memory_reads_goes_on_from_the_rollout_before():
    steps = list(random_steps(2 * T, seed=3))
    store = filled(steps[:T], state=(torch.ones(3, 1),))
    first = store.take()
    action, reward = naive_last(steps[:T])
    np.testing.assert_array_equal(first.last_action, action)
    np.testing.assert_array_equal(first.last_reward, reward)
    assert (~first.ended[-1]).any()
    end = first.last_action[-1].clone()
    for step in steps[T:]:
        store.append(step)
    second = store.take()
    assert torch.equal(second.last_action[0], end)
    np.testing.assert_array_equal(second.last_action[1:], naive_last(steps[T:])[0][1:])
    store.drop()
    for step in steps[:T]:
        store.append(step)
    assert not store.take().last_action[0].any()


def test_ignored_steps_weigh_nothing():
    steps = list(random_steps(T, seed=1))
    rollout = filled(steps).take()
    valid = np.stack([step.valid for step in steps])
    assert not valid.all()
    np.testing.assert_array_equal(rollout.valid, valid)
    np.testing.assert_allclose(rollout.weight, valid / valid.sum(), rtol=1e-6)
    assert rollout.mask is not None
    assert rollout.mask[-1].all()
    whole = filled([s._replace(valid=np.ones(3, bool)) for s in steps]).take()
    assert whole.mask is None
    assert whole.weight.unique().tolist() == pytest.approx([1 / (3 * T)])


def test_the_value_that_follows_a_step():
    steps = list(random_steps(T, seed=2))
    rollout = filled(steps).take()._replace(next_value=torch.tensor([7.0, 8.0, 9.0]))
    value = torch.randn(T, 3)
    following = rollout.following(value)
    for t, step in enumerate(steps):
        for i in range(3):
            later = value[t + 1, i] if t + 1 < T else rollout.next_value[i]
            assert following[t, i] == (step.next_obs[i, 0] if step.truncated[i] else later)
    assert any(step.truncated.any() for step in steps)


def test_a_rollout_is_taken_when_it_is_full():
    steps = list(random_steps(T + 1))
    store = filled(steps[:-1])
    assert store.is_full
    with pytest.raises(ValueError, match="12 steps of 3"):
        store.append(steps[-1])
    partial = next(s for s in random_steps(50, partial=True) if len(s.env_index) < 3)
    store.take()
    with pytest.raises(ValueError, match="3 environments"):
        store.append(partial)


def test_shuffled_transitions_are_every_step_that_counts_once():
    rollout = filled(random_steps(T, seed=1)).take()
    parts = list(minibatches(rollout, 4, 1, torch.Generator().manual_seed(0)))
    sizes = [part.reward.shape[1] for part in parts]
    assert len(sizes) == 4
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == int(rollout.valid.sum()) < 3 * T
    reward = torch.cat([part.reward[0] for part in parts])
    assert torch.equal(reward.sort().values, rollout.reward[rollout.valid].sort().values)
    assert not torch.equal(reward, rollout.reward[rollout.valid])
    for part in parts:  # with its own successor
        for n, r in enumerate(part.reward[0]):
            t, i = (rollout.reward == r).nonzero()[0]
            assert torch.equal(part.obs[:, n], rollout.obs[t : t + 2, i])
            assert part.action[0, n] == rollout.action[t, i]
            assert torch.equal(part.reset[:, n], rollout.reset[t : t + 2, i])
    alone = next(minibatches(rollout, 4, 0, torch.Generator().manual_seed(0)))
    assert torch.equal(alone.obs[0], parts[0].obs[0])
    assert len(alone.obs) == 1


def test_environments_stay_whole_where_steps_belong_together():
    spec = replace(SPEC, num_envs=5)
    state = (torch.arange(5.0)[:, None],)
    rollout = filled(marked(random_steps(T, 5, seed=1, spec=spec)), spec, state=state).take()
    rollout = rollout._replace(next_value=torch.arange(5.0))
    parts = list(minibatches(rollout, 2, 0, torch.Generator().manual_seed(0)))
    assert [part.reward.shape[1] for part in parts] == [3, 2]
    seen = torch.cat([part.state[0][:, 0] for part in parts])
    assert seen.sort().values.tolist() == [0, 1, 2, 3, 4]
    for part in parts:
        index = part.state[0][:, 0].long()
        assert torch.equal(part.obs, rollout.obs[:, index])
        assert torch.equal(part.extras["noted"], rollout.extras["noted"][:, index])
        assert torch.equal(part.next_value, index.float())
        assert torch.equal(part.mask, rollout.mask[:, index])
    without_memory = rollout._replace(state=())
    assert [p.reward.shape for p in minibatches(without_memory, 9, 2, torch.Generator())] == [(T, 1)] * 5


@pytest.mark.parametrize("stop", [0, 5, T])
def test_a_store_goes_on_from_what_was_saved(stop):
    steps = marked(random_steps(2 * T))
    state = (torch.randn(3, 2),)
    store = filled(steps[:T], state=state)
    store.take()
    for step in steps[T : T + stop]:
        store.append(step)
    other = RolloutStore(T, SPEC)
    other.load_state_dict(store.state_dict())
    assert other.count == stop
    for each in (store, other):
        for step in steps[T + stop :]:
            each.append(step)
    ours, theirs = store.take(), other.take()
    assert torch.equal(ours.state[0], theirs.state[0])
    assert torch.equal(ours.extras["noted"], theirs.extras["noted"])
    for name, values in ours._asdict().items():
        if isinstance(values, torch.Tensor):
            assert torch.equal(values, getattr(theirs, name)), name
