"""The rollout store and padding, against a row-by-row second implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from doubles import BatchNormAutoencoder
from rollouts import BOX, SPEC, naive_episodes, random_steps
from saccade.agents.parts.episodes import Episode, EpisodeStore, encode_padded, group_by_length, pad
from saccade.encoders.base import Inputs


def assert_same_episodes(ours, theirs):
    def key(episode):
        return episode.obs.tobytes()

    assert len(ours) == len(theirs)
    for one, other in zip(sorted(ours, key=key), sorted(theirs, key=key), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("spec", "partial"), [(SPEC, False), (BOX, False), (SPEC, True)])
def test_store_cuts_out_the_episodes(spec, partial):
    steps = list(random_steps(600, spec=spec, partial=partial))
    store, taken = EpisodeStore(3), []
    for number, step in enumerate(steps):
        store.append(step)
        if number % 37 == 0:
            taken += store.take()
    taken += store.take()
    assert len(taken) > 50
    assert store.finished == 0
    assert_same_episodes(taken, naive_episodes(steps))


def test_store_goes_on_from_its_state():
    steps = list(random_steps(200))
    whole, first, second = EpisodeStore(3), EpisodeStore(3), EpisodeStore(3)
    for step in steps[:100]:
        whole.append(step)
        first.append(step)
    second.load_state_dict(first.state_dict())
    for step in steps[100:]:
        whole.append(step)
        second.append(step)
    assert_same_episodes(second.take(), whole.take())


def test_interrupted_episodes_are_forgotten():
    first, second = list(random_steps(50, seed=1)), list(random_steps(50, seed=2))
    store = EpisodeStore(3)
    for step in first:
        store.append(step)
    store.drop_open()
    for step in second:
        store.append(step)
    assert_same_episodes(store.take(), naive_episodes(first) + naive_episodes(second))


def episode(length, seed=0, terminated=True):
    rng = np.random.default_rng(seed)
    discount = np.ones(length, np.float32)
    discount[-1] = 0 if terminated else 1
    action = rng.integers(0, 3, length)
    obs = rng.normal(size=(length + 1, 2)).astype(np.float32)
    return Episode(obs, action, action, rng.normal(size=length).astype(np.float32), discount)


def test_padding_keeps_each_episode_and_what_was_read_before_it():
    long, short = episode(5), episode(2, seed=1)
    sequences = pad([long, short], "cpu", least=7)
    assert sequences.obs.shape == (8, 2, 2)
    np.testing.assert_array_equal(sequences.obs[:6, 0], long.obs)
    np.testing.assert_array_equal(sequences.obs[:3, 1], short.obs)
    assert sequences.mask.sum(0).tolist() == [6, 3]
    assert sequences.real.sum(0).tolist() == [5, 2]
    assert sequences.last.nonzero().tolist() == [[1, 1], [4, 0]]
    inputs = sequences.inputs(1, 4)
    np.testing.assert_array_equal(inputs.last_action[:, 0], long.action[:3])
    np.testing.assert_array_equal(inputs.last_reward[:, 0], long.reward[:3])
    first = sequences.inputs(0, 1)
    assert first.last_action.abs().max() == first.last_reward.abs().max() == 0
    assert sequences.reset(0, 3).tolist() == [[True, True], [False, False], [False, False]]
    assert not sequences.reset(3, 6).any()


def test_groups_fit_the_limit_and_lose_nothing():
    episodes = [episode(length) for length in (3, 50, 9, 9, 1, 30, 2)]
    groups = list(group_by_length(episodes, 40))
    assert sorted(e.length for group in groups for e in group) == [1, 2, 3, 9, 9, 30, 50]
    assert all(len(group) == 1 or len(group) * (max(e.length for e in group) + 1) <= 40 for group in groups)
    assert [len(group) for group in groups] == [1, 1, 4, 1]


def test_an_encoder_without_memory_does_not_see_padding():
    encoder = BatchNormAutoencoder(SPEC.observation)
    x = torch.rand(4, 3, 2)
    mask = torch.rand(4, 3) < 0.6
    expected = encoder.encode(x[mask])
    features, _ = encode_padded(encoder, Inputs(x, mask=mask), (), torch.zeros(4, 3, dtype=torch.bool))
    torch.testing.assert_close(features[mask], expected)
    assert features[~mask].abs().max() == 0
