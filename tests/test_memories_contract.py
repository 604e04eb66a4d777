"""What every built-in encoder with a state promises beyond the encoders' contract; new ones are found by themselves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from encoder_cases import CASES, Case, assert_same, observations
from saccade.encoders import list_encoders
from saccade.encoders.base import Encoder, Inputs, State
from torch import Tensor

T, B = 8, 3
MEMORIES = {
    name: case
    for name, case in CASES.items()
    if name.rsplit("-", 1)[0] in list_encoders()
    and name.endswith(("-vector", "-tokens", "-map"))
    and case.build().initial_state(1)
}
every_memory = pytest.mark.parametrize("case", MEMORIES.values(), ids=MEMORIES.keys())


def chance(share: float, seed: int, rows: int = B) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((T, rows)) < share)


def row_of(state: State, row: int) -> State:
    return tuple(leaf[row : row + 1] for leaf in state)


def used_state(encoder: Encoder, case: Case, rows: int = B) -> State:
    with torch.no_grad():
        return encoder(Inputs(observations(case.spec, 3, rows, seed=9)), encoder.initial_state(rows))[1]


def step_by_step(encoder: Encoder, inputs: Inputs, state: State, reset: Tensor) -> tuple[Tensor, State]:
    features = []
    for t in range(len(inputs.obs)):
        mask = None if inputs.mask is None else inputs.mask[t : t + 1]
        y, state = encoder(Inputs(inputs.obs[t : t + 1], mask=mask), state, reset[t : t + 1])
        features.append(y)
    return torch.cat(features), state


def assert_same_state(encoder: Encoder, case: Case, ours: State, theirs: State) -> None:
    """What follows is the same. Slots of a memory may have changed places: which of several unused ones is written
    first hangs on rounding, which hangs on the size of the batch."""
    obs = observations(case.spec, 3, len(ours[0]), seed=8)
    assert_same(encoder(Inputs(obs), ours)[0], encoder(Inputs(obs), theirs)[0])


def test_there_are_memories():
    assert MEMORIES


@every_memory
@pytest.mark.parametrize("seed", [0, 1])
def test_many_steps_are_single_steps_with_resets_and_padding_anywhere(case: Case, seed: int):
    encoder = case.build().eval()
    obs, reset, mask = observations(case.spec, T, B, seed=seed), chance(0.25, seed), chance(0.7, seed + 2)
    start = used_state(encoder, case)
    together, last = encoder(Inputs(obs, mask=mask), start, reset)
    alone, after = step_by_step(encoder, Inputs(obs, mask=mask), start, reset)
    assert_same(together[mask], alone[mask])
    assert_same_state(encoder, case, last, after)


@every_memory
@pytest.mark.parametrize("is_padded", [False, True])
def test_sequences_are_read_as_from_the_initial_state(case: Case, is_padded: bool):
    encoder, obs = case.build().eval(), observations(case.spec, T, B)
    reset, mask = chance(0.2, 4), chance(0.7, 5)
    inputs = Inputs(obs, mask=mask if is_padded else None)
    counts = mask if is_padded else torch.ones_like(mask)
    for given in (reset, None):
        features, _ = encoder(inputs, encoder.initial_state(B), given)
        assert_same(encoder.read_sequences(inputs, given)[counts], features[counts])


@every_memory
def test_a_reset_inside_begins_a_sequence_of_its_own(case: Case):
    encoder = case.build().eval()
    obs = observations(case.spec, T, B)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[3, 0] = reset[6, 0] = reset[5, 2] = True
    start = used_state(encoder, case)
    together, last = encoder(Inputs(obs), start, reset)
    for row, bounds in ((0, (0, 3, 6, T)), (1, (0, T)), (2, (0, 5, T))):
        for first, end in pairwise(bounds):
            state = encoder.initial_state(1) if first else row_of(start, row)
            alone, state = encoder(Inputs(obs[first:end, row : row + 1]), state)
            assert_same(together[first:end, row], alone[:, 0])
        assert_same_state(encoder, case, row_of(last, row), state)


@every_memory
def test_no_row_hears_of_another(case: Case):
    """In features, in the state, and in what they leave of gradients at the other rows' starting states."""
    encoder = case.build().eval()
    obs, mask = observations(case.spec, T, B), chance(0.8, 1)
    start = tuple(
        leaf.clone().requires_grad_() if leaf.is_floating_point() else leaf for leaf in used_state(encoder, case)
    )
    features, state = encoder(Inputs(obs, mask=mask), start, chance(0.1, 4))
    reached = [leaf[1].float().sum() for leaf in state if leaf.is_floating_point()]
    ((features[:, 1] * torch.rand_like(features[:, 1])).sum() + sum(reached)).backward()
    gradients = [leaf.grad for leaf in start if leaf.is_floating_point()]
    assert all(gradient is None or not gradient[[0, 2]].any() for gradient in gradients)
    features_alone, state_alone = encoder(
        Inputs(obs[:, 1:2], mask=mask[:, 1:2]), row_of(start, 1), chance(0.1, 4)[:, 1:2]
    )
    assert_same(features_alone[:, 0], features[:, 1])
    assert_same_state(encoder, case, state_alone, row_of(state, 1))


@every_memory
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_any_number_of_rows(case: Case, rows: int):
    encoder = case.build().eval()
    start = encoder.initial_state(rows)
    assert all(len(leaf) == rows for leaf in start)
    obs = observations(case.spec, T, 17)[:, :rows]
    features, state = encoder(Inputs(obs), start)
    assert features.shape == (T, rows, *encoder.feature_shape)
    few, few_state = encoder(Inputs(obs[:, :1]), encoder.initial_state(1))
    assert_same(few, features[:, :1])
    assert_same_state(encoder, case, few_state, row_of(state, 0))
    for leaf, alone in zip(start, encoder.initial_state(1), strict=True):
        assert_same(leaf, alone.expand_as(leaf))  # every episode begins alike


@every_memory
def test_bfloat16_reads_learns_and_stays_near_float32(case: Case):
    encoder = case.build().train()
    obs, reset, mask = observations(case.spec, T, B), chance(0.2, 0), chance(0.7, 1)
    start = encoder.initial_state(B)
    types = [leaf.dtype for leaf in start]
    with torch.autocast("cpu", torch.bfloat16):
        features, state = encoder(Inputs(obs, mask=mask), start, reset)
        alone, one = encoder(Inputs(obs[:1]), start)
        loss = features.float()[mask].square().mean()
    assert features.dtype in (torch.float32, torch.bfloat16)
    assert [leaf.dtype for leaf in state] == types  # a state may be stored and handed on
    assert [leaf.dtype for leaf in one] == types
    if loss.requires_grad:  # a running mean of numbers learns nothing
        loss.backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients or not list(encoder.parameters())
    assert all(tensor.isfinite().all() for tensor in (features, alone, *state, *gradients))
    plain, _ = encoder.eval()(Inputs(obs[:1]), start)
    torch.testing.assert_close(alone.float(), plain, rtol=0.05, atol=0.05)


@every_memory
def test_padding_before_anything_real_leaves_the_beginning(case: Case):
    """A row may be padding altogether: its state is what it was, whatever is written there."""
    encoder = case.build().eval()
    obs, mask = observations(case.spec, T, B), torch.ones(T, B, dtype=torch.bool)
    mask[:, 1] = False
    start = used_state(encoder, case)
    features, state = encoder(Inputs(obs, mask=mask), start)
    assert_same(row_of(state, 1), row_of(start, 1))
    assert features.isfinite().all()


@every_memory
def test_it_remembers(case: Case):
    """What was seen first still shows at the end."""
    encoder = case.build().eval()
    obs, other = observations(case.spec, T, B), observations(case.spec, T, B, seed=1)
    features, _ = encoder(Inputs(obs), encoder.initial_state(B))
    changed, _ = encoder(Inputs(torch.cat([other[:1], obs[1:]])), encoder.initial_state(B))
    assert not torch.allclose(features[-1], changed[-1], rtol=0, atol=1e-7)
