"""The VAE's densities against torch's, and its bounds against a linear-Gaussian model whose likelihood is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saccade.encoders import make_encoder, vae
from saccade.encoders.base import Trajectory
from saccade.encoders.parts.likelihoods import (
    bernoulli_log_likelihood,
    binarise,
    gaussian_divergence,
    gaussian_log_likelihood,
    importance_weighted,
    parzen_log_likelihood,
)
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, distributions, nn

DIGIT = ObservationSpec((1, 16, 18), "uint8", 0.0, 255.0)
VECTOR = ObservationSpec((6,))
BITS = ObservationSpec((9,), low=0.0, high=1.0)


def make(spec: ObservationSpec, **settings: object) -> vae.Vae:
    encoder = make_encoder("vae", spec, vae.Config(**{"hidden": (24,), "latents": 3} | settings))  # type: ignore[arg-type]
    assert isinstance(encoder, vae.Vae)
    return encoder


def test_densities_are_torchs():
    mean, log_variance, x = torch.randn(4, 5, 7), torch.randn(7), torch.randn(5, 7)
    normal = distributions.Normal(mean, (log_variance / 2).exp())
    ours = gaussian_log_likelihood(x, mean, log_variance)
    torch.testing.assert_close(ours, normal.log_prob(x).sum(-1))
    logits, bits = torch.randn(4, 5, 7) * 4, torch.randint(2, (5, 7)).float()
    bernoulli = distributions.Bernoulli(logits=logits)
    torch.testing.assert_close(
        bernoulli_log_likelihood(logits, bits), bernoulli.log_prob(bits.expand(4, -1, -1)).sum(-1)
    )
    assert bernoulli_log_likelihood(torch.full((1, 2), 500.0), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(-500)


def test_divergence_is_torchs_and_monte_carlos():
    mean, log_variance = torch.randn(3, 4), torch.randn(3, 4)
    posterior, prior = distributions.Normal(mean, (log_variance / 2).exp()), distributions.Normal(0.0, 1.0)
    ours = gaussian_divergence(mean, log_variance)
    torch.testing.assert_close(ours, distributions.kl_divergence(posterior, prior))
    z = posterior.sample((40_000,))
    drawn = posterior.log_prob(z) - prior.log_prob(z)
    assert ((drawn.mean(0) - ours).abs() < 4 * drawn.std(0) / 200).all()


def test_divergence_by_hand():
    """log sigma^2, not log sigma: a posterior of deviation 2 around 1 is (1 + 4 - 1 - log 4) / 2 nats off."""
    value = gaussian_divergence(torch.tensor([1.0]), torch.tensor([math.log(4.0)]))
    assert value.item() == pytest.approx(2 - math.log(2), rel=1e-6)
    learner = make(VECTOR).train()
    with torch.no_grad():
        last = learner.encoder[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, 1.0, 1.0] + [math.log(4.0)] * 3))
    losses = learner.loss({"x": torch.randn(5, 6)})
    torch.testing.assert_close(losses["divergence"], torch.full((5,), 3 * (2 - math.log(2))))
    mean, log_variance = learner.posterior(torch.randn(5, 6))
    weights = learner.log_weights(torch.zeros(20_000, 6), 1, 1.0)
    assert mean.unique().tolist() == [1.0]
    assert log_variance.unique().tolist() == [pytest.approx(math.log(4.0))]
    # the code's own deviation is 2: with a decoder that adds it up, the data's is
    with torch.no_grad():
        for parameter in learner.decoder.parameters():
            parameter.zero_()
    weights = learner.log_weights(torch.zeros(20_000, 6), 1, 1.0) + 3 * math.log(2 * math.pi)
    assert weights.mean().item() == pytest.approx(-3 * (2 - math.log(2)), abs=0.15)


def test_bits_come_with_their_probability():
    bytes_ = torch.arange(256, dtype=torch.uint8).repeat(4001, 1)[:, :-1]  # an odd number: the last word is cut
    share = binarise(bytes_).mean(0)
    expected = torch.arange(255) / 255
    assert ((share - expected).abs() <= 4.5 * (expected * (1 - expected) / 4001).sqrt() + 1e-6).all()
    assert set(binarise(bytes_).unique().tolist()) == {0.0, 1.0}
    drawn = binarise(torch.full((10_000,), 0.3))
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.02)
    white = binarise(torch.full((1000, 1000), 255, dtype=torch.uint8))
    assert white.mean() > 0.9999
    first, again, other = (binarise(bytes_, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def linear_gaussian(noise: float = 0.5) -> tuple[vae.Vae, np.ndarray]:
    """x = W z + b + noise, with a posterior that is near the true one but not it; and the covariance of x."""
    learner = make(VECTOR, hidden=(), latents=2, likelihood="gaussian", deviation=noise).eval()
    weight, offset = np.random.default_rng(0).normal(size=(6, 2)), np.linspace(-1, 1, 6)
    decoder, encoder = learner.decoder[0], learner.encoder[-1]
    assert isinstance(decoder, nn.Linear)
    assert isinstance(encoder, nn.Linear)
    precision = np.eye(2) + weight.T @ weight / noise**2  # of the true posterior (Tipping & Bishop 1999, eq. 6)
    read = np.linalg.inv(precision) @ weight.T / noise**2
    variance = 1.4 * np.diag(np.linalg.inv(precision))
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor(weight))
        decoder.bias.copy_(torch.tensor(offset))
        encoder.weight.copy_(torch.tensor(np.concatenate([0.9 * read, np.zeros((2, 6))])))
        encoder.bias.copy_(torch.tensor(np.concatenate([-0.9 * read @ offset, np.log(variance)])))
    return learner, weight @ weight.T + noise**2 * np.eye(6)


def test_importance_weighted_bounds_close_in_on_the_exact_likelihood():
    """Probabilistic PCA (Tipping & Bishop 1999, section 3.1): x is N(b, W W^T + s^2 I)."""
    learner, covariance = linear_gaussian()
    model = distributions.MultivariateNormal(torch.linspace(-1, 1, 6), torch.tensor(covariance, dtype=torch.float32))
    x = model.sample((300,))
    exact = model.log_prob(x).mean().item()
    generator = torch.Generator().manual_seed(0)
    bounds = [learner.log_likelihood(x, k, generator).mean().item() for k in (1, 5, 50)]
    assert bounds[0] < bounds[1] - 0.1
    assert bounds[1] < bounds[2] - 0.01
    assert bounds[2] < exact
    many = learner.log_likelihood(x, 5000, generator)
    torch.testing.assert_close(many, model.log_prob(x), atol=0.15, rtol=0)
    assert many.mean().item() == pytest.approx(exact, abs=0.02)


def test_the_loss_is_the_bound():
    learner, _ = linear_gaussian()
    x = torch.randn(200, 6)
    elbo = -sum(loss.mean() for loss in (torch.stack([*learner.loss({"x": x.repeat(50, 1)}).values()])))
    drawn = torch.stack([learner.log_likelihood(x, 1) for _ in range(50)])
    assert elbo.item() == pytest.approx(drawn.mean().item(), abs=0.15)
    several = make(VECTOR, hidden=(), latents=2, likelihood="gaussian", deviation=0.5, importance_samples=5)
    several.load_state_dict(learner.state_dict())
    bound = -several.loss({"x": x.repeat(50, 1)})["bound"].mean().item()
    drawn = torch.stack([learner.log_likelihood(x, 5) for _ in range(50)])
    assert bound == pytest.approx(drawn.mean().item(), abs=0.15)


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_chunks_make_no_difference(rows: int):
    """Weights 1, 2, ... 7, whose mean is 4, for the first of two examples; ten times these for the second."""
    draws = [iter(range(1, 8)), iter(range(10, 80, 10))]

    def log_weights(x: Tensor, count: int) -> Tensor:
        columns = [[next(draws[int(row)]) for _ in range(count)] for row in x[:, 0]]
        return torch.tensor(columns, dtype=torch.float32).log().T

    ours = importance_weighted(log_weights, torch.tensor([[0.0], [1.0]]), 7, rows)
    torch.testing.assert_close(ours.exp(), torch.tensor([4.0, 40.0]))


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (DIGIT, {}),
        (DIGIT, {"binarise": "dynamic", "importance_samples": 5}),
        (DIGIT, {"architecture": "conv", "channels": (8, 16), "binarise": "dynamic"}),
        (DIGIT, {"likelihood": "gaussian", "learn_deviation": True}),
        (VECTOR, {"batch_norm": True, "deviation": 0.2}),
        (BITS, {"activation": "tanh"}),
    ],
)
def test_training_raises_the_bound(spec: ObservationSpec, settings: dict[str, object]):
    """Data of two kinds; sampled codes decode to shapes and scales like theirs."""
    learner = make(spec, **settings).train()
    kinds = torch.rand(2, *spec.shape).round()
    x = kinds[torch.arange(64) % 2]
    x = (x * 255).to(torch.uint8) if spec.dtype == "uint8" else x
    optimizer = torch.optim.Adam(learner.stages()[0].parameters, lr=1e-2)
    losses = []
    for _ in range(60):
        loss = torch.stack([*learner.loss({"x": x}).values()]).sum(0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < losses[0] - 0.1 * spec.size
    learner.eval()
    restored = learner.reconstruct(x)
    assert restored.shape == x.shape
    assert (restored - learner.scale(x)).square().mean() < 0.1
    samples = learner.sample(5, torch.Generator().manual_seed(1))
    assert samples.shape == (5, *spec.shape)
    assert torch.equal(samples, learner.sample(5, torch.Generator().manual_seed(1)))
    if learner.bernoulli:
        assert 0 <= samples.min() <= samples.max() <= 1


def test_beta_rises_with_progress_when_trained_alone():
    learner = make(VECTOR, beta=4.0, warm_up=0.5)
    x = torch.randn(8, 6)
    for progress, factor in ((0.0, 0.0), (0.25, 2.0), (0.5, 4.0), (1.0, 4.0)):
        learner.progress.fill_(progress)
        mean, log_variance = learner.posterior(x)
        expected = factor * gaussian_divergence(mean, log_variance).sum(1)
        torch.testing.assert_close(learner.loss({"x": x})["divergence"], expected)
    learner.progress.fill_(0.0)
    ones = torch.ones(1, 8)
    batch = Trajectory(torch.stack([x, x]), ones.long(), ones, ones, ones.expand(2, 8) > 1, ones > 0)
    assert learner.auxiliary_losses(batch, None)["divergence"] > 0


def test_free_bits_cost_what_they_spare():
    learner = make(VECTOR, free_bits=0.7)
    mean, log_variance = learner.posterior(torch.randn(50, 6))
    with torch.no_grad():
        last = learner.encoder[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(1e-3)
    divergence = learner.loss({"x": torch.randn(50, 6)})["divergence"]
    torch.testing.assert_close(divergence, torch.full((50,), 3 * 0.7))
    assert not divergence.requires_grad or not torch.autograd.grad(divergence.sum(), last.weight)[0].any()
    assert mean.shape == log_variance.shape == (50, 3)


def test_parzen_windows_are_the_naive_sum():
    generator = np.random.default_rng(0)
    x, samples = generator.normal(size=(7, 5)), generator.normal(size=(11, 5))
    height = (0.3 * math.sqrt(2 * math.pi)) ** -5
    squares = [[((a - b) ** 2).sum() for b in samples] for a in x]
    naive = [math.log(np.mean([height * math.exp(-square / 0.18) for square in row])) for row in squares]
    ours = parzen_log_likelihood(torch.tensor(x), torch.tensor(samples), 0.3, rows=3)
    np.testing.assert_allclose(ours, naive, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        (ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20), {}, "embed them first"),
        (VECTOR, {"likelihood": "bernoulli"}, "needs bounded observations"),
        (VECTOR, {"binarise": "dynamic"}, "draws bits only"),
        (VECTOR, {"architecture": "conv"}, "reads uint8 images"),
        (BITS, {"likelihood": "poisson"}, "unknown likelihood 'poisson'"),
        (BITS, {"latents": 0}, "must be positive"),
        (BITS, {"warm_up": 2.0}, "warm_up must lie in"),
        (BITS, {"free_bits": 0.1, "importance_samples": 2}, "free_bits are of the plain bound"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: ObservationSpec, settings: dict[str, object], message: str):
    with pytest.raises((SpecError, UserError), match=message):
        make(spec, **settings)
