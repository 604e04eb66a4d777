"""What every learner promises, on each kind of observation that it reads. A new one is found by itself."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from encoder_cases import MAKERS, SPECS, Case, observations, reads
from playing import begin, steps_of
from saccade.agents import make_agent
from saccade.agents.dqn import Config as DqnConfig
from saccade.agents.parts.optimisers import Optimisers
from saccade.agents.reinforce import Config as ReinforceConfig
from saccade.encoders import list_encoders
from saccade.encoders.base import Encoder, Learner, Stage
from saccade.envs import make_env
from saccade.envs.spec import ObservationSpec
from torch import Tensor

SPECS_HERE = {  # a learner meets the first of each kind that it can read
    "vector": [SPECS["vector"]],
    "bounded": [SPECS["bounded"]],
    "image": [ObservationSpec((2, 16, 16), "uint8", 0.0, 255.0), SPECS["image"]],
}
LEARNERS = {
    f"{name}-{kind}": Case(MAKERS[name], readable[0])
    for name in list_encoders()
    for kind, specs in SPECS_HERE.items()
    if (readable := [spec for spec in specs if reads(MAKERS[name], spec)])
    and isinstance(MAKERS[name](readable[0]), Learner)
}
every_learner = pytest.mark.parametrize("case", LEARNERS.values(), ids=LEARNERS.keys())
vector_learners = pytest.mark.parametrize(
    "name", [name.removesuffix("-vector") for name in LEARNERS if name.endswith("-vector")]
)
RATE, UPDATES = 1e-3, 20
EXACT = 1e-6  # squared error of a code that holds everything; it cannot fall


def batch_of(x: Tensor) -> dict[str, Tensor]:
    return {"x": x, "label": torch.full((len(x),), -1)}


def clusters(case: Case, count: int = 64) -> Tensor:
    """Observations around four centres, so that there is something to learn."""
    centres = observations(case.spec, 4, seed=1).double()
    noise = observations(case.spec, count, seed=2).double()
    x = 0.9 * centres[torch.arange(count) % 4] + 0.1 * noise
    return x.round().to(torch.uint8) if case.spec.dtype == "uint8" else x.to(noise.dtype).float()


def extremes(case: Case) -> Iterator[tuple[str, Tensor]]:
    spec = case.spec
    low, high = (
        np.broadcast_to(np.clip(bound, -1e3, 1e3), spec.shape).astype(spec.dtype) for bound in (spec.low, spec.high)
    )
    low, high = torch.from_numpy(low.copy()), torch.from_numpy(high.copy())
    where = torch.rand(8, *spec.shape) < 0.5
    yield "constant", ((low.double() + high.double()) / 2).to(low.dtype).expand(8, *spec.shape)
    yield "lowest", low.expand(8, *spec.shape)
    yield "highest", high.expand(8, *spec.shape)
    yield "saturated", torch.where(where, low, high)
    yield "single row", observations(spec, 1)


def total(learner: Learner, stage: Stage, x: Tensor) -> Tensor:
    return torch.stack([loss.float().mean() for loss in stage.loss(batch_of(x)).values()]).sum()


def inputs(stage: Stage, x: Tensor) -> Tensor:
    """What the trainer gives a stage."""
    if stage.input is None:
        return x
    with torch.no_grad():
        return stage.input(x).detach()


def train(encoder: Encoder, x: Tensor, updates: int) -> None:
    """Every stage for `updates` steps, the others' parameters at rest, as the trainer does it."""
    assert isinstance(encoder, Learner)
    for stage in encoder.stages():
        encoder.eval()
        data = inputs(stage, x)
        wanted = {id(p) for p in stage.parameters}
        resting = [p for p in encoder.parameters() if p.requires_grad and id(p) not in wanted]
        for parameter in resting:
            parameter.requires_grad_(False)
        optimisers = Optimisers([], encoder.train(), learning_rate=RATE)
        for _ in range(updates):
            optimisers.step(total(encoder, stage, data))
            encoder.after_update()
        for parameter in resting:
            parameter.requires_grad_(True)
        if stage.finish is not None:
            stage.finish()


def judged(encoder: Encoder, x: Tensor) -> float:
    """The error of its reconstructions, or its own losses where it makes none; noise is the same each time."""
    encoder.eval()
    torch.manual_seed(7)
    with torch.no_grad():
        if hasattr(encoder, "reconstruct") and hasattr(encoder, "scale"):
            return float((encoder.reconstruct(x) - encoder.scale(x)).square().flatten(1).sum(1).mean())
        assert isinstance(encoder, Learner)
        stage = encoder.stages()[-1]
        return float(total(encoder, stage, inputs(stage, x)))


@every_learner
@pytest.mark.parametrize("training", [True, False])
def test_losses_and_gradients_are_finite_whatever_comes_in(case: Case, training: bool):
    for what, x in extremes(case):
        encoder = case.build().train(training)
        assert isinstance(encoder, Learner)
        for stage in encoder.stages():
            loss = total(encoder, stage, inputs(stage, x))
            assert loss.isfinite(), (what, stage.name)
            if loss.requires_grad:
                loss.backward()
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients), what


@every_learner
def test_it_learns(case: Case):
    encoder, x = case.build(), clusters(case)
    before = judged(encoder, x)
    torch.manual_seed(1)
    for _ in range(4):
        train(encoder, x, UPDATES)
        if (after := judged(encoder, x)) < before:
            break
    assert after < before or before < EXACT


@every_learner
def test_a_trained_learner_is_saved_whole(case: Case):
    trained, fresh, x = case.build(), case.build(seed=1), clusters(case)
    train(trained, x, updates=2)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for encoder in (trained, fresh):
        encoder.eval()
    assert torch.equal(fresh.read(x), trained.read(x))
    if hasattr(fresh, "reconstruct"):
        torch.manual_seed(3)
        ours = fresh.reconstruct(x)
        torch.manual_seed(3)
        assert torch.equal(ours, trained.reconstruct(x))


@every_learner
def test_pictures_have_the_shape_of_what_was_seen(case: Case):
    encoder, x = case.build().eval(), observations(case.spec, 3)
    pictures: list[Tensor] = []
    if hasattr(encoder, "reconstruct"):
        pictures.append(encoder.reconstruct(x))
    if hasattr(encoder, "sample"):
        first, again = (encoder.sample(3, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, encoder.sample(3, torch.Generator().manual_seed(6)))
        pictures.append(first)
    for picture in pictures:
        assert picture.shape == (3, *case.spec.shape)
        assert picture.dtype == torch.float32
        assert picture.isfinite().all()
        if getattr(encoder, "sigmoid", False):
            assert picture.min() >= 0
            assert picture.max() <= 1


@vector_learners
@pytest.mark.parametrize("agent", ["dqn", "reinforce"])
def test_agents_train_it_along(name: str, agent: str):
    """A few updates beside the agent's own loss."""
    env = make_env("diagnostic/recall-3", 4)
    torch.manual_seed(0)
    encoder = MAKERS[name](env.spec.observation)
    config = DqnConfig(learning_starts=64) if agent == "dqn" else ReinforceConfig()
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    trained = make_agent(agent, env.spec, encoder, config)
    updates = sum(bool(metrics) for _, metrics in steps_of(env, trained, begin(trained, env), rounds=60))
    assert updates > 0
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.isfinite().all(), parameter_name
    assert any(not torch.equal(p, before[n]) for n, p in encoder.named_parameters())


def test_there_are_learners_for_every_kind_of_numbers():
    kinds = {name.rpartition("-")[2] for name in LEARNERS}
    assert kinds == {"vector", "bounded", "image"}
