"""What every encoder promises of training: gradients, groups, losses, copies, saving."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from encoder_cases import (
    CASES,
    B,
    Case,
    T,
    advance,
    assert_same,
    copied,
    every_case,
    head_for,
    observations,
    total_loss,
    trajectory,
)
from saccade.encoders.base import Inputs, Learner


@every_case
def test_save_and_load(case: Case):
    trained, fresh = case.build(), case.build(seed=1)
    advance(trained, case.spec)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    inputs = Inputs(observations(case.spec, T, B))
    ours, theirs = (e.eval()(inputs, e.initial_state(B)) for e in (fresh, trained))
    assert_same(ours, theirs, rtol=0, atol=0)


@every_case
def test_same_seed_same_numbers(case: Case):
    """Parameters, and what a step of training makes of them."""
    pair = [case.build(seed=3), case.build(seed=3)]
    for encoder in pair:
        torch.manual_seed(4)
        advance(encoder, case.spec)
    ours, theirs = (encoder.state_dict() for encoder in pair)
    assert_same(ours, theirs, rtol=0, atol=0)
    different = case.build(seed=5).state_dict()
    assert not ours or any(not torch.equal(different[name], value) for name, value in ours.items())


@every_case
def test_a_copy_is_independent(case: Case):
    """Target networks are deep copies that must not move along."""
    encoder = case.build().eval()
    target, inputs = copy.deepcopy(encoder), Inputs(observations(case.spec, T, B))
    before = target(inputs, target.initial_state(B))[0].detach()
    advance(encoder, case.spec)
    assert_same(target(inputs, target.initial_state(B))[0], before, rtol=0, atol=0)
    learns = any(True for _ in encoder.parameters())
    assert torch.equal(encoder.eval()(inputs, encoder.initial_state(B))[0], before) != learns


@every_case
def test_every_parameter_gets_a_gradient(case: Case):
    encoder = case.build().train()
    total_loss(encoder, head_for(encoder), case.spec).backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@every_case
def test_parameter_groups_hold_each_parameter_once(case: Case):
    encoder = case.build()
    groups = encoder.parameter_groups()
    grouped = [id(p) for group in groups for p in group.parameters if p.requires_grad]
    assert sorted(grouped) == sorted(id(p) for p in encoder.parameters() if p.requires_grad)
    assert len({group.name for group in groups}) == len(groups)


@every_case
def test_augmentation_keeps_shape_and_type_and_moves_whole_sequences(case: Case):
    encoder = case.build()
    obs = observations(case.spec, 1, B).expand(T, B, *case.spec.shape)
    augmented = encoder.augment(obs)
    assert (augmented.shape, augmented.dtype) == (obs.shape, obs.dtype)
    assert_same(augmented, augmented[:1].expand_as(obs), rtol=0, atol=0)


@every_case
def test_auxiliary_losses_are_scalars_of_its_window(case: Case):
    encoder = case.build().train()
    batch = trajectory(case.spec, encoder)
    losses = encoder.auxiliary_losses(batch, None)
    assert bool(losses) == (encoder.window > 0)
    for loss in losses.values():
        assert loss.shape == ()
        assert loss.isfinite()
    # padding is not learned from: what it holds makes no difference
    if not losses:
        return
    batch.mask[:, ::2] = False
    results = []
    for number in range(2):
        padded = batch._replace(obs=batch.obs.clone())
        padded.obs[:, ::2] = observations(case.spec, *padded.obs[:, ::2].shape[:2], seed=number)
        torch.manual_seed(0)
        results.append(copy.deepcopy(encoder).auxiliary_losses(padded, None))
    assert_same(*results)


LEARNERS = {name: case for name, case in CASES.items() if isinstance(case.build(), Learner)}


@pytest.mark.parametrize("case", LEARNERS.values(), ids=LEARNERS.keys())
def test_learners_losses_are_per_example_or_scalar(case: Case):
    learner = case.build().train()
    assert isinstance(learner, Learner)
    x = observations(case.spec, 8)
    losses = learner.loss({"x": x, "label": torch.full((8,), -1)})
    assert losses
    assert all(loss.shape in ((), (8,)) and loss.isfinite().all() for loss in losses.values())
    learner.eval()
    before = copied(learner.state_dict())
    learner.loss({"x": x})
    assert_same(copied(learner.state_dict()), before, rtol=0, atol=0)  # statistics and chains rest outside training
    stages = learner.stages()
    assert {id(p) for stage in stages for p in stage.parameters} <= {id(p) for p in learner.parameters()}
    for stage in stages:
        assert stage.loss({"x": stage.input(x) if stage.input else x})


@every_case
def test_training_moves_every_parameter_and_only_then(case: Case):
    encoder = case.build()
    before = copied(dict(encoder.named_parameters()))
    advance(encoder, case.spec, updates=1)
    for name, parameter in encoder.named_parameters():
        assert not torch.equal(parameter, before[name]), name
