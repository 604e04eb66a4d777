"""What every encoder promises: each built-in one with every kind of observation it reads, and the test doubles.

A new file in `encoders/` is found here by itself.
"""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from doubles import BatchNormAutoencoder, MomentumContrast, PersistentRBM, TinyDNC
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import find_encoder, list_encoders, make_encoder
from saccade.encoders.base import Encoder, Inputs, Learner, Trajectory, WithMemory
from saccade.envs.errors import SpecError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn

SPECS = {
    "vector": ObservationSpec((6,)),
    "bounded": ObservationSpec((6,), low=-2.0, high=(1.0, 2.0, 3.0, 1.0, 2.0, 3.0)),
    "image": ObservationSpec((4, 36, 36), "uint8", 0.0, 255.0, stack=2),
    "oblong": ObservationSpec((3, 40, 52), "uint8", 0.0, 255.0),
    "tokens": ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20),
}
DOUBLES: dict[str, Callable[[ObservationSpec], Encoder]] = {
    "autoencoder": BatchNormAutoencoder,
    "rbm": PersistentRBM,
    "contrast": MomentumContrast,
    "dnc": TinyDNC,
}
T, B = 5, 3


class Case(NamedTuple):
    """One encoder with one kind of observation."""

    make: Callable[[ObservationSpec], Encoder]
    spec: ObservationSpec

    def build(self, seed: int = 0) -> Encoder:
        torch.manual_seed(seed)
        return self.make(self.spec)


def remembering(perception: Callable[[ObservationSpec], Encoder]) -> Callable[[ObservationSpec], Encoder]:
    def make(spec: ObservationSpec) -> Encoder:
        perceiving = perception(spec)
        return WithMemory(perceiving, TinyDNC(ObservationSpec(perceiving.feature_shape)))

    return make


def built_in(name: str) -> Callable[[ObservationSpec], Encoder]:
    return lambda spec: make_encoder(name, spec)


def reads(make: Callable[[ObservationSpec], Encoder], spec: ObservationSpec) -> bool:
    try:
        make(spec)
    except SpecError:
        return False
    return True


MAKERS = {
    **{name: built_in(name) for name in list_encoders()},
    **DOUBLES,
    "conv+dnc": remembering(built_in("conv")),
    "autoencoder+dnc": remembering(BatchNormAutoencoder),
}
CASES = {
    f"{name}-{kind}": Case(make, spec)
    for name, make in MAKERS.items()
    for kind, spec in SPECS.items()
    if reads(make, spec)
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def observations(spec: ObservationSpec, *shape: int, seed: int = 0) -> Tensor:
    """Random observations `[*shape, ...]` within the bounds of `spec`."""
    generator = np.random.default_rng(seed)
    if np.issubdtype(spec.dtype, np.integer):
        return torch.from_numpy(generator.integers(0, int(np.max(spec.high)) + 1, (*shape, *spec.shape), spec.dtype))
    low, high = (np.clip(bound, -3, 3) for bound in (spec.low, spec.high))
    return torch.from_numpy(generator.uniform(low, high, (*shape, *spec.shape)).astype(spec.dtype))


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def assert_same(ours: object, theirs: object, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


def advanced_state(encoder: Encoder, spec: ObservationSpec) -> tuple[Tensor, ...]:
    """A state that is not the initial one, where there is a state."""
    return encoder(Inputs(observations(spec, 2, B, seed=9)), encoder.initial_state(B))[1]


def trajectory(spec: ObservationSpec, encoder: Encoder) -> Trajectory:
    """`window` transitions of 8 sequences, all real."""
    steps, rows = max(encoder.window, 2), 8
    return Trajectory(
        observations(spec, steps + 1, rows),
        torch.randint(2, (steps, rows)),
        torch.randn(steps, rows),
        torch.ones(steps, rows),
        torch.zeros(steps + 1, rows, dtype=torch.bool),
        torch.ones(steps, rows, dtype=torch.bool),
    )


@pytest.mark.parametrize("name", list_encoders())
def test_every_encoder_reads_something_and_refuses_the_rest_by_name(name: str):
    accepted = 0
    for spec in SPECS.values():
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
    features[-1].sum().backward()
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
def test_finite_whatever_comes_in(case: Case):
    encoder = case.build().eval()
    low, high = (np.broadcast_to(np.clip(b, -1e6, 1e6), case.spec.shape) for b in (case.spec.low, case.spec.high))
    for extreme in (low, high, np.zeros(case.spec.shape)):
        x = torch.from_numpy(extreme.astype(case.spec.dtype)).expand(T, B, *case.spec.shape)
        features, state = encoder(Inputs(x), encoder.initial_state(B))
        assert all(tensor.isfinite().all() for tensor in (features, *state))


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
    assert any(not torch.equal(different[name], value) for name, value in ours.items())


@every_case
def test_acting_changes_nothing(case: Case):
    encoder = case.build().eval()
    before = copied(encoder.state_dict())
    state = encoder.initial_state(B)
    for obs in observations(case.spec, T, 1, B):
        _, state = encoder(Inputs(obs), state, torch.ones(1, B, dtype=torch.bool))
    assert_same(copied(encoder.state_dict()), before, rtol=0, atol=0)


@every_case
def test_a_copy_is_independent(case: Case):
    """Target networks are deep copies that must not move along."""
    encoder = case.build().eval()
    target, inputs = copy.deepcopy(encoder), Inputs(observations(case.spec, T, B))
    before = target(inputs, target.initial_state(B))[0].detach()
    advance(encoder, case.spec)
    assert_same(target(inputs, target.initial_state(B))[0], before, rtol=0, atol=0)
    assert not torch.equal(encoder.eval()(inputs, encoder.initial_state(B))[0], before)


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


def head_for(encoder: Encoder) -> nn.Linear:
    return nn.Linear(int(np.prod(encoder.feature_shape)), 3)


def total_loss(encoder: Encoder, head: nn.Linear, spec: ObservationSpec) -> Tensor:
    """A policy gradient through `head`, over two episodes per row, and all that the encoder says it learns from."""
    batch = trajectory(spec, encoder)
    steps, rows = batch.action.shape
    reset = torch.zeros(steps, rows, dtype=torch.bool)
    reset[0], reset[1, ::2] = True, True
    features, _ = encoder(Inputs(batch.obs[:-1]), encoder.initial_state(rows), reset)
    log_prob = head(features.flatten(2)).log_softmax(-1).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    loss = -(log_prob * batch.reward).mean()
    losses = list(encoder.auxiliary_losses(batch, features).values())
    for part in encoder.modules():
        if isinstance(part, Learner):
            for stage in part.stages():
                x = batch.obs[:-1].flatten(0, 1)
                losses += stage.loss({"x": stage.input(x) if stage.input else x}).values()
    return loss + sum(auxiliary.mean() for auxiliary in losses)


def advance(encoder: Encoder, spec: ObservationSpec, updates: int = 2) -> None:
    """Train `encoder` a little, by a small test agent."""
    head = head_for(encoder.train())
    optimisers = Optimisers(head.parameters(), encoder, learning_rate=1e-2)
    for _ in range(updates):
        optimisers.step(total_loss(encoder, head, spec))
        encoder.after_update()


@every_case
def test_training_moves_every_parameter_and_only_then(case: Case):
    encoder = case.build()
    before = copied(dict(encoder.named_parameters()))
    advance(encoder, case.spec, updates=1)
    for name, parameter in encoder.named_parameters():
        assert not torch.equal(parameter, before[name]), name
