"""Codes that follow a prior: the discrepancy against naive loops, who learns from which loss, and that codes obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from saccade.encoders import adversarial, make_encoder, wasserstein
from saccade.encoders.parts.divergences import SCALES, Adversary, frechet_distance, maximum_mean_discrepancy
from saccade.encoders.parts.matched import Matched
from saccade.encoders.parts.priors import MODES, Prior, draw
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor
from torch.nn import functional as F

VECTOR = ObservationSpec((6,))
IMAGE = ObservationSpec((1, 16, 18), "uint8", 0.0, 255.0)
NETS = {"hidden": (32,), "adversary_hidden": (64, 64)}


def make(name: str, spec: ObservationSpec = VECTOR, **settings: object) -> Matched:
    module = {"adversarial": adversarial, "wasserstein": wasserstein}[name]
    encoder = make_encoder(name, spec, module.Config(**NETS | settings))  # type: ignore[arg-type]
    assert isinstance(encoder, Matched)
    return encoder


def naive_discrepancy(codes: np.ndarray, draws: np.ndarray, width: float) -> float:
    """Algorithm 2 of the WAE paper, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return sum(c * width / (c * width + ((a - b) ** 2).sum()) for c in SCALES)

    n = len(codes)
    within = sum(
        kernel(codes[i], codes[j]) + kernel(draws[i], draws[j]) for i in range(n) for j in range(n) if i != j
    ) / (n * (n - 1))
    return within - 2 * sum(kernel(a, b) for a in codes for b in draws) / n**2


def test_discrepancy_is_the_naive_double_loop():
    generator = np.random.default_rng(0)
    codes, draws = generator.normal(size=(7, 3)), generator.normal(size=(7, 3)) + 1
    ours = maximum_mean_discrepancy(torch.tensor(codes), torch.tensor(draws), 6.0).item()
    assert ours == pytest.approx(naive_discrepancy(codes, draws, 6.0), rel=1e-4)


def test_discrepancy_is_zero_on_average_for_equal_distributions_only():
    same = torch.stack([maximum_mean_discrepancy(*torch.randn(2, 50, 4), 8.0) for _ in range(300)])
    assert abs(same.mean().item()) < 3.5 * same.std().item() / math.sqrt(300)
    assert (same < 0).any()
    for other in (torch.randn(50, 4) + 0.5, 2 * torch.randn(50, 4), torch.randn(50, 1).expand(-1, 4)):
        apart = maximum_mean_discrepancy(other, torch.randn(50, 4), 8.0).item()
        assert apart > same.mean().item() + 4 * same.std().item()


def test_discrepancy_of_equal_or_single_codes_has_a_finite_gradient():
    for count in (5, 1, 0):
        codes = torch.zeros(count, 3, requires_grad=True)
        value = maximum_mean_discrepancy(codes, torch.zeros(count, 3), 6.0)
        value.backward()
        assert value.isfinite()
        assert codes.grad is not None
        assert codes.grad.isfinite().all()


def test_frechet_distance_is_scipys():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(50, 4)), generator.normal(size=(60, 4)) @ generator.normal(size=(4, 4)) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(torch.tensor(a), torch.tensor(a)) == pytest.approx(0, abs=1e-6)


def moved(module: Matched, loss: Tensor) -> set[str]:
    """Which of encoder, decoder and adversary get a gradient from `loss`."""
    module.zero_grad(set_to_none=True)
    loss.mean().backward(retain_graph=True)
    return {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize(("name", "settings"), [("adversarial", {}), ("wasserstein", {"penalty": "adversary"})])
def test_neither_sides_loss_moves_the_other(name: str, settings: dict[str, object]):
    learner = make(name, **settings).train()
    losses = learner.loss({"x": torch.randn(16, 6)})
    assert moved(learner, losses["adversary"]) == {"adversary"}
    assert moved(learner, losses["deceit"]) == {"encoder"}
    assert moved(learner, losses["reconstruction"]) == {"encoder", "decoder"}


def test_deceits_gradient_is_that_through_a_frozen_adversary():
    torch.manual_seed(1)
    adversary, codes, none = Adversary(3, (8,)), torch.randn(5, 3, requires_grad=True), torch.zeros(5, 0)
    losses = adversary.losses(codes, torch.randn(5, 3), none)
    (ours,) = torch.autograd.grad(losses["deceit"].sum(), codes)
    adversary.requires_grad_(False)
    loss = F.binary_cross_entropy_with_logits(adversary(codes), torch.ones(5), reduction="sum")
    (theirs,) = torch.autograd.grad(loss, codes)
    torch.testing.assert_close(ours, theirs)


def test_adversarys_loss_is_the_cross_entropy_of_telling_them_apart():
    adversary, codes, draws, none = Adversary(3, (8,)), torch.randn(5, 3), torch.randn(5, 3), torch.zeros(5, 0)
    logits, answer = torch.stack([adversary(codes), adversary(draws)]), torch.tensor([[0.0], [1.0]]).expand(2, 5)
    theirs = F.binary_cross_entropy_with_logits(logits, answer, reduction="none").sum(0)
    torch.testing.assert_close(adversary.losses(codes, draws, none)["adversary"], theirs)


def test_mixture_has_ten_petals():
    label = torch.arange(MODES).repeat(2000)
    z = draw("mixture", label, 2)
    for mode in range(MODES):
        own, angle = z[label == mode], mode * 2 * math.pi / MODES
        turned = own @ torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        torch.testing.assert_close(turned.mean(0), torch.tensor([4.0, 0.0]), atol=0.08, rtol=0)
        torch.testing.assert_close(turned.std(0), torch.tensor([0.8, 0.25]), atol=0.05, rtol=0)
    anywhere = draw("mixture", torch.full((20_000,), -1), 2)
    places = ((torch.atan2(anywhere[:, 1], anywhere[:, 0]) / (2 * math.pi) * MODES).round() % MODES).long()
    assert torch.bincount(places, minlength=MODES).min() > 1700


def test_roll_winds_outwards_by_label():
    radii = [draw("swiss_roll", torch.full((500,), label), 2).norm(dim=1).mean().item() for label in range(MODES)]
    assert radii == sorted(radii)
    assert radii[0] < 1.2
    assert radii[-1] == pytest.approx(4 * (2 / 3) * (1 - 0.9**1.5) / 0.1, abs=0.05)  # the mean root of .9..1


@pytest.mark.parametrize("prior", ["gaussian", "mixture", "swiss_roll"])
def test_draws_follow_their_generator_and_have_the_width_the_kernel_is_told(prior: Prior):
    label = torch.full((20_000,), -1)
    first, again, other = (draw(prior, label, 2, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    learner = make("wasserstein", latents=2, prior=prior)
    assert isinstance(learner, wasserstein.Wasserstein)
    assert 2 * first.square().sum(1).mean().item() == pytest.approx(learner.width, rel=0.03)


def test_the_adversary_is_told_labels():
    learner = make("adversarial", labels=3, latents=2, prior="mixture")
    told = learner.condition(torch.tensor([0, 2, -1, 7]))
    assert told.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert make("adversarial").condition(torch.tensor([0, 1])).shape == (2, 0)


def train(learner: Matched, x: Tensor, label: Tensor | None, steps: int, rate: float = 4e-3) -> None:
    groups = [{"params": g.parameters, "lr": rate * g.learning_rate_factor} for g in learner.parameter_groups()]
    optimizer = torch.optim.Adam(groups, betas=(0.5, 0.99))
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        batch = {"x": x[rows]} | ({} if label is None else {"label": label[rows]})
        loss = sum(value.mean() for value in learner.loss(batch).values())
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "settings", "steps"),
    [
        ("adversarial", {"weight": 1.0, "adversary_rate": 1.0}, 600),
        ("wasserstein", {"penalty": "mmd", "weight": 3.0}, 400),
    ],
)
def test_codes_follow_the_prior_and_still_tell_the_data(name: str, settings: dict[str, object], steps: int):
    """Data on a plane, far from the origin and uneven: codes become standard normal, and restore it."""
    learner = make(name, latents=2, **settings).train()
    x = torch.rand(2000, 2) @ torch.randn(2, 6) * 2 + 3
    before = maximum_mean_discrepancy(learner.encode(x[:500]).detach(), torch.randn(500, 2), 4.0).item()
    train(learner, x, None, steps)
    with torch.no_grad():
        codes, restored = learner.eval().encode(x), learner.reconstruct(x)
    after = maximum_mean_discrepancy(codes[:500], torch.randn(500, 2), 4.0).item()
    assert after < 0.1 * before
    assert after < 0.15
    assert (restored - x).square().sum(1).mean() < 0.2 * (x - x.mean(0)).square().sum(1).mean()
    assert learner.sample(7, torch.Generator().manual_seed(0)).shape == (7, 6)


def test_labels_find_their_modes():
    """Three kinds of data, a fifth of the labels unknown: codes lie nearest to the mode of their label."""
    learner = make("adversarial", latents=2, prior="mixture", labels=3, weight=1.0).train()
    label = torch.randint(3, (2000,))
    x = 2 * torch.eye(6)[label] + 0.2 * torch.randn(2000, 6)
    train(learner, x, torch.where(torch.rand(2000) < 0.8, label, -1), 300, rate=3e-3)
    with torch.no_grad():
        codes = learner.eval().encode(x)
    angle = torch.arange(MODES) * 2 * math.pi / MODES
    nearest = torch.cdist(codes, 4 * torch.stack([angle.cos(), angle.sin()], 1)).argmin(1)
    assert (nearest == label).float().mean() > 0.8


@pytest.mark.parametrize("settings", [{}, {"architecture": "conv", "channels": (8,)}])
def test_images_are_restored_in_unit_scale(settings: dict[str, object]):
    learner = make("wasserstein", IMAGE, **settings).eval()
    x = torch.randint(0, 256, (4, *IMAGE.shape), dtype=torch.uint8)
    for images in (learner.reconstruct(x), learner.sample(4)):
        assert images.shape == x.shape
        assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adversarial", {"prior": "mixture"}, "give --encoder.latents 2"),
        ("adversarial", {"prior": "cauchy"}, "unknown prior 'cauchy'"),
        ("adversarial", {"labels": -1}, "labels must not be negative"),
        ("adversarial", {"error": "bernoulli"}, "needs bounded observations"),
        ("wasserstein", {"penalty": "sinkhorn"}, "unknown penalty 'sinkhorn'"),
        ("wasserstein", {"weight": -1.0}, "weight must not be negative"),
        ("wasserstein", {"adversary_hidden": (0,)}, "adversary_hidden must be positive"),
        ("wasserstein", {"architecture": "conv"}, "reads uint8 images"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, settings: dict[str, object], message: str):
    with pytest.raises((SpecError, UserError), match=message):
        make(name, **settings)
