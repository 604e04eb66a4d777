"""What every encoder promises of its features and its state, in eval mode."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from encoder_cases import (
    CASES,
    MAP,
    SPECS,
    B,
    Case,
    T,
    advanced_state,
    assert_same,
    copied,
    every_case,
    observations,
)
from saccade.encoders import find_encoder, list_encoders, make_encoder
from saccade.encoders.base import Encoder, Inputs
from saccade.envs.errors import SpecError


@pytest.mark.parametrize("name", list_encoders())
def test_every_encoder_reads_something_and_refuses_the_rest_by_name(name: str):
    accepted = 0
    for spec in (*SPECS.values(), MAP):
        try:
            encoder = make_encoder(name, spec)
        except SpecError as error:
            assert name in str(error)  # noqa: PT017  what is accepted does not raise
        else:
            accepted += 1
            assert isinstance(encoder, Encoder)
    assert accepted


@pytest.mark.parametrize("name", list_encoders())
def test_every_encoder_describes_itself(name: str):
    entry = find_encoder(name)
    assert entry.kind
    assert "\n" not in entry.kind
    assert entry.Config.__dataclass_params__.frozen
    assert all(
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        for field in dataclasses.fields(entry.Config)
    )


@every_case
def test_features_and_state_have_the_promised_shapes(case: Case):
    encoder = case.build().eval()
    obs = observations(case.spec, T, B)
    features, state = encoder(Inputs(obs), encoder.initial_state(B))
    assert features.shape == (T, B, *encoder.feature_shape)
    assert features.dtype == torch.float32
    assert [leaf.shape for leaf in state] == [leaf.shape for leaf in encoder.initial_state(B)]
    assert all(len(leaf) == B for leaf in state)
    torch.testing.assert_close(obs, observations(case.spec, T, B), rtol=0, atol=0)  # read, not written


@every_case
def test_many_steps_at_once_are_single_steps(case: Case):
    encoder = case.build().eval()
    obs = observations(case.spec, T, B)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[0], reset[2, 1], reset[3, 2] = True, True, True
    together, last = encoder(Inputs(obs), encoder.initial_state(B), reset)
    state, pieces = encoder.initial_state(B), []
    for t in range(T):
        features, state = encoder(Inputs(obs[t : t + 1]), state, reset[t : t + 1])
        pieces.append(features)
    assert_same(torch.cat(pieces), together)
    assert_same(state, last)


@every_case
def test_reset_is_the_initial_state(case: Case):
    encoder = case.build().eval()
    obs = observations(case.spec, T, B)
    reset = torch.zeros(T, B, dtype=torch.bool)
    fresh = encoder(Inputs(obs), encoder.initial_state(B))
    assert_same(encoder(Inputs(obs), encoder.initial_state(B), reset), fresh)
    reset[0] = True
    used = advanced_state(encoder, case.spec)
    assert_same(encoder(Inputs(obs), used, reset), fresh)
    if used:
        assert not torch.allclose(encoder(Inputs(obs), used)[0], fresh[0], atol=1e-5)


REMEMBERING = {
    name: case for name, case in CASES.items() if case.build().initial_state(1) and case.spec.dtype == "float32"
}


@pytest.mark.parametrize("case", REMEMBERING.values(), ids=REMEMBERING.keys())
def test_gradients_do_not_cross_a_reset(case: Case):
    encoder = case.build().eval()
    obs = observations(case.spec, T, B).requires_grad_()
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[2, 0] = True
    features, _ = encoder(Inputs(obs), encoder.initial_state(B), reset)
    (features[-1] * torch.rand_like(features[-1])).sum().backward()  # a plain sum is constant behind a layer norm
    assert obs.grad is not None
    assert not obs.grad[:2, 0].any()
    assert obs.grad[2:, 0].any()
    assert obs.grad[:2, 1:].any()


@every_case
def test_rows_of_the_batch_do_not_mix(case: Case):
    encoder = case.build().eval()
    obs, other = observations(case.spec, T, B), observations(case.spec, T, B, seed=1)
    reset = torch.zeros(T, B, dtype=torch.bool)
    features, state = encoder(Inputs(obs), advanced_state(encoder, case.spec), reset)
    changed = torch.cat([other[:, :1], obs[:, 1:]], 1)
    reset[2, 0] = True
    features_too, state_too = encoder(Inputs(changed), advanced_state(encoder, case.spec), reset)
    assert_same(features_too[:, 1:], features[:, 1:])
    assert_same([leaf[1:] for leaf in state_too], [leaf[1:] for leaf in state])
    assert not torch.allclose(features_too[:, 0], features[:, 0], atol=1e-5)


@every_case
def test_padding_changes_nothing(case: Case):
    """A sequence with padding in its middle and at its end is the sequence without."""
    encoder = case.build().eval()
    obs, mask = observations(case.spec, T, B), torch.ones(T, B, dtype=torch.bool)
    mask[2], mask[4] = False, False
    start = advanced_state(encoder, case.spec)
    padded, padded_state = encoder(Inputs(obs, mask=mask), start)
    plain, state = encoder(Inputs(obs[[0, 1, 3]]), start)
    assert_same(padded[[0, 1, 3]], plain)
    assert_same(padded_state, state)
    mask[:] = True
    mask[1:, 0] = False
    _, uneven = encoder(Inputs(obs, mask=mask), start)
    _, one = encoder(Inputs(obs[:1]), start)
    assert_same([leaf[0] for leaf in uneven], [leaf[0] for leaf in one])


@every_case
def test_finite_whatever_comes_in(case: Case):
    encoder = case.build().eval()
    low, high = (np.broadcast_to(np.clip(b, -1e6, 1e6), case.spec.shape) for b in (case.spec.low, case.spec.high))
    for extreme in (low, high, np.zeros(case.spec.shape)):
        x = torch.from_numpy(extreme.astype(case.spec.dtype)).expand(T, B, *case.spec.shape)
        features, state = encoder(Inputs(x), encoder.initial_state(B))
        assert all(tensor.isfinite().all() for tensor in (features, *state))


@every_case
def test_acting_changes_nothing(case: Case):
    encoder = case.build().eval()
    before = copied(encoder.state_dict())
    state = encoder.initial_state(B)
    for obs in observations(case.spec, T, 1, B):
        _, state = encoder(Inputs(obs), state, torch.ones(1, B, dtype=torch.bool))
    assert_same(copied(encoder.state_dict()), before, rtol=0, atol=0)
