"""The discriminative machine: p(y | x), the joint density and every gradient against sums over all hidden states."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from encoder_cases import SPECS
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import drbm
from saccade.encoders.drbm import Config, Drbm
from saccade.encoders.parts import labelled
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

BITS = ObservationSpec((5,), low=0.0, high=1.0)
CLASSES, HIDDEN = 3, 4


def make(spec: ObservationSpec = BITS, seed: int = 0, **settings: object) -> Drbm:
    """Small, in float64, with parameters that are all away from 0."""
    torch.manual_seed(seed)
    learner = drbm.build(Config(**{"hidden": HIDDEN, "classes": CLASSES, **settings}), spec).train()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return learner.double()


def states(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


def boltzmann(learner: Drbm, v: Tensor) -> Tensor:
    """exp(-E(v, y, h)) by the energy's definition: `[N, C, 2^H]`."""
    w, u, c, d, b = (
        getattr(learner, name).detach()
        for name in ("weight", "label_weight", "hidden_bias", "label_bias", "visible_bias")
    )
    h = states(HIDDEN)
    own = (v @ b if learner.visible == "bernoulli" else -0.5 * (v - b).square().sum(1)).view(-1, 1, 1)
    return (own + d.view(1, -1, 1) + (v @ w.T @ h.T).unsqueeze(1) + (h @ c).view(1, 1, -1) + (h @ u).T).exp()


def observed(learner: Drbm, rows: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(rows, *learner.shape, generator=generator, dtype=torch.float64)
    return x.round() if learner.visible == "bernoulli" else 3 * x - 1


@pytest.mark.parametrize("spec", [BITS, ObservationSpec((5,))])
def test_everything_given_x_is_the_sum_over_hidden_states(spec: ObservationSpec):
    learner = make(spec)
    x = observed(learner)
    weights = boltzmann(learner, x)
    posterior = weights.sum(2) / weights.sum((1, 2)).unsqueeze(1)
    torch.testing.assert_close(learner.classify(x).exp().double(), posterior, rtol=1e-5, atol=1e-7)
    model = learner.labelled()
    torch.testing.assert_close(labelled.joint_free_energy(model, x).detach(), -weights.sum(2).log())
    hidden = (weights.sum(1) @ states(HIDDEN)) / weights.sum((1, 2)).unsqueeze(1)
    torch.testing.assert_close(learner.read(x).detach(), hidden)
    torch.testing.assert_close(
        make(spec, features="input").read(x).detach(),
        (x @ learner.weight.detach().T + learner.hidden_bias.detach()).sigmoid(),
    )


def gradients_of(learner: Drbm, batch: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    learner.zero_grad()
    torch.manual_seed(3)
    learner.loss(batch)[name].mean().backward()
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def test_the_discriminative_gradient_is_that_of_the_enumerated_posterior():
    """d -log p(y | x) / dU = sum over classes of (p - 1 [y]) E[h | x, y] (Larochelle & Bengio 2008, equation 4), and
    rows without a label count as 0."""
    learner = make(discriminative=0.5, generative=0.0, unlabelled=0.0)
    x, label = observed(learner), torch.tensor([0, 2, 1, -1, 0, 2, -1])
    assert set(learner.loss({"x": x, "label": label})) == {"classification"}
    found = gradients_of(learner, {"x": x, "label": label}, "classification")
    weights = boltzmann(learner, x)
    posterior = weights.sum(2) / weights.sum((1, 2)).unsqueeze(1)
    hidden = (weights @ states(HIDDEN)) / weights.sum(2).unsqueeze(2)  # [N, C, H]
    slope = torch.zeros(7, CLASSES, dtype=torch.float64)
    for n, y in enumerate(label.tolist()):
        if y >= 0:
            slope[n] = posterior[n] / 7 * 0.5
            slope[n, y] -= 1 / 7 * 0.5
    torch.testing.assert_close(found["label_bias"], slope.sum(0))
    torch.testing.assert_close(found["label_weight"], torch.einsum("nc,nch->hc", slope, hidden))
    torch.testing.assert_close(found["hidden_bias"], torch.einsum("nc,nch->h", slope, hidden))
    torch.testing.assert_close(found["weight"], torch.einsum("nc,nch,nv->hv", slope, hidden, x))
    assert "visible_bias" not in found
    assert not learner.visible_bias.requires_grad


def test_the_generative_gradient_is_model_less_data_statistics():
    """By NumPy's loops, from the same draws; a row without a label has its class drawn from p(y | x), and its own
    weight."""
    learner = make(discriminative=0.0, generative=0.3, unlabelled=0.7, steps=2)
    x, label = observed(learner), torch.tensor([0, 2, 1, -1, 0, 2, -1])
    found = gradients_of(learner, {"x": x, "label": label}, "reconstruction")
    model = labelled.Labelled(learner.machine(), learner.label_weight, learner.label_bias)
    torch.manual_seed(3)
    with torch.no_grad():
        drawn = labelled.draw_class(labelled.log_posterior(model, x))
        y = torch.stack([torch.eye(CLASSES).double()[k] if k >= 0 else drawn[n] for n, k in enumerate(label.tolist())])
        went = labelled.joint_walk(model, x, y, 2)
    w, u, c = (getattr(learner, n).detach().numpy() for n in ("weight", "label_weight", "hidden_bias"))
    expected = {name: np.zeros(value.shape) for name, value in found.items()}
    for n, k in enumerate(label.tolist()):
        share = (0.3 if k >= 0 else 0.7) / 7
        for sign, v, z in ((-1, x[n], y[n]), (1, went.v[n], went.y[n])):
            h = 1 / (1 + np.exp(-(w @ v.numpy() + u @ z.numpy() + c)))
            expected["weight"] += sign * share * np.outer(h, v.numpy())
            expected["label_weight"] += sign * share * np.outer(h, z.numpy())
            expected["hidden_bias"] += sign * share * h
            expected["visible_bias"] += sign * share * v.numpy()
            expected["label_bias"] += sign * share * z.numpy()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, atol=1e-12, err_msg=name)


def test_the_chain_draws_from_the_joint_density():
    """Classes after many steps are as frequent as in the sum over all states; a clamped one stays."""
    learner = make(seed=2)
    with torch.no_grad():
        learner.weight.mul_(0.5)
    weights = boltzmann(learner, states(5)).sum(2)  # [2^V, C]
    expected = weights.sum(0) / weights.sum()
    start, y = torch.rand(4000, 5, dtype=torch.float64).round(), torch.eye(CLASSES).double()[torch.arange(4000) % 3]
    went = labelled.joint_walk(learner.labelled(), start, y, 30)
    torch.testing.assert_close(went.y.mean(0), expected, rtol=0, atol=0.04)
    given = labelled.joint_walk(learner.labelled(), start, y, 30, clamped=True)
    assert torch.equal(given.y, y)
    for k in range(CLASSES):
        of_class = weights[:, k] / weights[:, k].sum()
        torch.testing.assert_close(given.v[y[:, k] == 1].mean(0), of_class @ states(5), rtol=0, atol=0.07)


# the learner


def two_bits(rows: int, seed: int) -> dict[str, Tensor]:
    """The class is an exclusive or of two bits, so no linear rule finds it; the others are noise."""
    x = torch.rand(rows, 5, generator=torch.Generator().manual_seed(seed)).round()
    return {"x": x, "label": (x[:, 0] != x[:, 1]).long()}


@pytest.mark.parametrize("settings", [{"generative": 0.0, "unlabelled": 0.0}, {"generative": 0.01}])
def test_it_learns_to_classify(settings: dict[str, object]):
    torch.manual_seed(0)
    learner = drbm.build(Config(hidden=16, classes=2, **settings), BITS).train()  # type: ignore[arg-type]
    optimisers = Optimisers([], learner, learning_rate=3e-2)
    for number in range(300):
        losses = learner.loss(two_bits(64, number))
        optimisers.step(torch.stack([loss.mean() for loss in losses.values()]).sum())
    test = two_bits(500, seed=1000)
    assert (learner.classify(test["x"]).argmax(1) == test["label"]).float().mean() > 0.98


def test_a_generative_one_draws_what_its_label_says():
    """Two classes, each with its own pattern; and the class is found again by p(y | x)."""
    torch.manual_seed(0)
    learner = drbm.build(Config(hidden=8, classes=2, discriminative=0.0, generative=1.0, steps=3), BITS).train()
    patterns = torch.tensor([[1.0, 1, 0, 0, 1], [0, 0, 1, 1, 0]])
    optimisers, label = Optimisers([], learner, learning_rate=2e-2), torch.arange(64) % 2
    for _ in range(300):
        x = (patterns[label] - (torch.rand(64, 5) < 0.1).float()).abs()
        optimisers.step(learner.loss({"x": x, "label": label})["reconstruction"])
    drawn = learner.sample(100, torch.Generator().manual_seed(0), steps=50, label=torch.arange(100) % 2)
    assert (drawn - patterns.repeat(50, 1)).abs().mean() < 0.2  # 0.1 of it is what is flipped, 0.5 would be chance
    assert learner.classify(patterns).argmax(1).tolist() == [0, 1]


def refusals() -> list[tuple[Callable[[], object], type[Exception], str]]:
    def built(spec: ObservationSpec = BITS, **settings: object) -> Callable[[], object]:
        return lambda: drbm.build(Config(**settings), spec)  # type: ignore[arg-type]

    batch = {"x": torch.zeros(2, 5), "label": torch.tensor([0, 4])}
    return [
        (built(SPECS["tokens"]), SpecError, "tokens"),
        (built(SPECS["vector"], visible="bernoulli"), SpecError, "bounded"),
        (built(classes=1), UserError, "classes"),
        (built(features="all"), UserError, "unknown features"),
        (built(unlabelled=-1.0), UserError, "unlabelled"),
        (built(discriminative=0.0, generative=0.0, unlabelled=0.0), UserError, "nothing to learn"),
        (lambda: drbm.build(Config(classes=4), BITS).loss(batch), UserError, "--encoder.classes 5"),
    ]


@pytest.mark.parametrize(("action", "error", "word"), refusals())
def test_what_makes_no_sense_is_refused(action: Callable[[], object], error: type[Exception], word: str):
    with pytest.raises(error, match=word):
        action()
