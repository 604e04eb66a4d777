"""The restricted Boltzmann machine as a learner: its rule by hand, what it learns, its features and pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from encoder_cases import SPECS, observations
from saccade.agents.parts.optimisers import Optimisers
from saccade.data import Dataset, Split
from saccade.encoders import rbm
from saccade.encoders.parts import gibbs
from saccade.encoders.parts.given import with_gradient
from saccade.encoders.parts.likelihood import exact_log_partition, log_likelihood
from saccade.encoders.rbm import Config, Rbm
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.probing import chain_figures
from saccade.training.probing.figures import wanted
from saccade.training.probing.subject import Subject
from torch import Tensor

BITS = ObservationSpec((6,), low=0.0, high=1.0)
SMALL = ObservationSpec((1, 4, 4), "uint8", 0.0, 255.0)


# the rule


def make(spec: ObservationSpec = BITS, seed: int = 0, **settings: object) -> Rbm:
    torch.manual_seed(seed)
    return rbm.build(Config(**{"hidden": 4, "initial": 0.5, **settings}), spec).train()  # type: ignore[arg-type]


def gradients_of(learner: Rbm, x: Tensor, seed: int = 3) -> dict[str, Tensor]:
    learner.zero_grad()
    torch.manual_seed(seed)
    learner.loss({"x": x})["reconstruction"].backward()
    return {
        name: parameter.grad.clone() for name, parameter in learner.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("steps", [1, 3])
def test_the_losss_gradient_is_model_less_data_statistics(steps: int):
    """As NumPy writes contrastive divergence, from the same draws."""
    learner, x = make(steps=steps), torch.rand(8, 6).round()
    found = gradients_of(learner, x)
    model = learner.machine().to(torch.float32)
    torch.manual_seed(3)
    fantasy = gibbs.walk(model, x, steps).fantasy
    w, _, c = (part.numpy().astype(np.float64) for part in model[:3])
    up = [1 / (1 + np.exp(-(v.numpy() @ w.T + c))) for v in (x, fantasy)]
    v_data, v_model = x.numpy(), fantasy.numpy()
    by_hand = np.zeros((4, 6))
    for n, j, i in np.ndindex(8, 4, 6):
        by_hand[j, i] += (up[1][n, j] * v_model[n, i] - up[0][n, j] * v_data[n, i]) / 8
    np.testing.assert_allclose(found["weight"].numpy(), by_hand, atol=1e-6)
    np.testing.assert_allclose(found["visible_bias"].numpy(), v_model.mean(0) - v_data.mean(0), atol=1e-6)
    np.testing.assert_allclose(found["hidden_bias"].numpy(), up[1].mean(0) - up[0].mean(0), atol=1e-6)


def test_persistent_chains_go_on_where_they_were_in_training_only():
    learner, x = make(method="pcd", chains=7, steps=2), torch.rand(8, 6).round()
    before = learner.chains.clone()
    torch.manual_seed(3)
    expected = gibbs.gibbs(learner.machine().to(torch.float32), before[0], 2)
    found = gradients_of(learner, x)
    assert torch.equal(learner.chains[0], expected)
    v, c = expected.numpy(), learner.hidden_bias.detach().numpy()
    up = 1 / (1 + np.exp(-(v @ learner.weight.detach().numpy().T + c)))
    data = learner.read(x).detach().numpy()
    by_hand = up.T @ v / 7 - data.T @ x.numpy() / 8
    np.testing.assert_allclose(found["weight"].numpy(), by_hand, atol=1e-6)
    learner.eval()
    learner.loss({"x": x})
    assert torch.equal(learner.chains[0], expected)


def test_decay_sparsity_and_momentum_join_the_gradient():
    x = torch.rand(8, 6).round()
    plain = gradients_of(make(), x)
    learner = make(l1=0.3, l2=0.2)
    weight = learner.weight.detach()
    decayed = gradients_of(learner, x)
    torch.testing.assert_close(decayed["weight"], plain["weight"] + 0.2 * weight + 0.3 * weight.sign())
    assert torch.equal(decayed["hidden_bias"], plain["hidden_bias"])
    learner = make(sparsity=2.0, target=0.2)
    sparse = gradients_of(learner, x)
    activity = 0.95 * 0.2 + 0.05 * learner.read(x).detach().mean(0)
    slope = 2.0 * (activity - 0.2)
    torch.testing.assert_close(learner.activity, activity)
    torch.testing.assert_close(sparse["hidden_bias"], plain["hidden_bias"] + slope)
    torch.testing.assert_close(sparse["weight"], plain["weight"] + torch.outer(slope, x.mean(0)))
    learner = make(momentum=0.5)
    assert torch.equal(gradients_of(learner, x)["weight"], plain["weight"])
    torch.testing.assert_close(gradients_of(learner, x)["weight"], 1.5 * plain["weight"])


@pytest.mark.parametrize("settings", [{"visible": "gaussian", "deviation": 0.5}, {"visible": "softmax"}])
def test_sparsity_moves_what_the_hidden_units_read(settings: dict[str, object]):
    """Its gradient is that of the slope times the total inputs, whatever the units."""
    x = torch.randint(5, (8, 6)).float()
    spec = ObservationSpec((6,), low=0.0)
    plain = gradients_of(make(spec, **settings), x)
    learner = make(spec, sparsity=2.0, target=0.2, **settings)
    sparse = gradients_of(learner, x)
    slope = 2.0 * (learner.activity - 0.2)
    learner.zero_grad()
    (gibbs.hidden_input(learner.machine(), x).mean(0) * slope).sum().backward()
    for name in ("weight", "hidden_bias"):
        torch.testing.assert_close(sparse[name], plain[name] + learner.get_parameter(name).grad)


def test_a_fixed_deviation_is_the_variance_of_what_is_drawn():
    learner = make(ObservationSpec((6,)), visible="gaussian", deviation=0.5)
    fixed = learner.machine().log_variance
    assert fixed is not None
    torch.testing.assert_close(fixed, torch.full((6,), 0.25).log())
    assert "log_variance" not in dict(learner.named_parameters())
    free = make(ObservationSpec((6,)), visible="gaussian", deviation=0.5, learn_deviation=True)
    x = torch.randn(8, 6)
    found = gradients_of(free, x)
    assert "log_variance" in found
    for name, gradient in gradients_of(learner, x).items():
        torch.testing.assert_close(gradient, found[name])


def test_k_rises_with_progress():
    learner = make(steps=1, last_steps=5)
    assert learner._steps() == 1
    learner.progress.fill_(0.5)
    assert learner._steps() == 3
    learner.progress.fill_(1.0)
    assert learner._steps() == 5


def test_a_given_gradient_is_scaled_by_what_follows():
    w = torch.ones(2, requires_grad=True)
    value = with_gradient(torch.tensor(3.0), [w], [torch.tensor([1.0, 2.0])])
    assert value == 3
    (2 * value).backward()
    assert w.grad is not None
    assert w.grad.tolist() == [2, 4]


# the learner


def patterns() -> Tensor:
    """Bars in 4x4 pixels, rows or columns: 8 of 65,536 images, so a good density gives each nearly 1/8."""
    rows = torch.zeros(4, 4, 4)
    rows[range(4), range(4)] = 1
    return torch.cat([rows, rows.mT]).unsqueeze(1).mul(255).to(torch.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "cd", "steps": 5},
        {"method": "pcd", "chains": 50},
        {"method": "tempering", "chains": 10, "temperatures": 4},
    ],
)
def test_it_learns_a_distribution(settings: dict[str, object]):
    """Exact mean log-likelihood; log 1/8 = -2.1 is the best, fair bits have -11.1."""
    learner, x = make(SMALL, hidden=16, initial=0.01, gain=300.0, **settings), patterns()
    optimisers, updates = Optimisers([], learner, learning_rate=1e-3), 700
    for number in range(updates):
        optimisers.scale_learning_rate(1 - number / updates)
        optimisers.step(learner.loss({"x": x})["reconstruction"])
    model = learner.machine().to(torch.float64)
    v = learner.read_visible(x).double()
    assert log_likelihood(model, v, exact_log_partition(model)).mean() > -3.3


def test_a_learned_deviation_finds_the_datas():
    learner = make(ObservationSpec((3,)), hidden=2, initial=0.01, visible="gaussian", learn_deviation=True, gain=100.0)
    optimisers = Optimisers([], learner, learning_rate=1e-3)
    deviations = torch.tensor([0.3, 1.0, 2.0])
    for _ in range(600):
        optimisers.step(learner.loss({"x": 1.0 + torch.randn(64, 3) * deviations})["reconstruction"])
        learner.after_update()
    assert learner.log_variance is not None
    torch.testing.assert_close((0.5 * learner.log_variance).exp().detach(), deviations, rtol=0.2, atol=0)
    assert (learner.reconstruct(torch.ones(1, 3)) - 1).abs().max() < 0.4


def test_features_are_means_draws_or_inputs():
    x = torch.rand(5, 6)
    inputs = make(features="inputs").read(x)
    means = make().read(x)
    torch.testing.assert_close(inputs.sigmoid(), means)
    learner = make(features="samples")
    draws = torch.stack([learner.read(x) for _ in range(2000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(draws.mean(0), means, rtol=0, atol=0.06)
    learner.read(x).sum().backward()  # the gradient of the means
    assert learner.weight.grad is not None
    assert learner.weight.grad.any()


def test_bytes_become_probabilities_or_bits():
    x = torch.tensor([0, 51, 127, 128, 255], dtype=torch.uint8).view(1, 1, 1, 5).expand(4000, 1, 5, 5)
    spec = ObservationSpec((1, 5, 5), "uint8", 0.0, 255.0)
    torch.testing.assert_close(make(spec).read_visible(x)[0, :5], torch.tensor([0, 51, 127, 128, 255]) / 255)
    assert make(spec, binarise="threshold").read_visible(x)[0, :5].tolist() == [0, 0, 0, 1, 1]
    torch.manual_seed(0)
    drawn = make(spec, binarise="dynamic").read_visible(x)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0)[:5], torch.tensor([0, 51, 127, 128, 255]) / 255, rtol=0, atol=0.03)


def test_the_free_energy_gap_compares_validation_with_training():
    learner = make()
    train, validation = torch.ones(9, 6), torch.zeros(5, 6)
    gap = learner.monitor(train, validation)["free_energy_gap"]
    expected = learner.free_energy(validation)[0] - learner.free_energy(train)[0]
    torch.testing.assert_close(gap, expected.detach())


def test_weights_begin_small():
    torch.manual_seed(0)
    assert 0.009 < rbm.build(Config(), SPECS["image"]).weight.std() < 0.011


def test_samples_come_from_the_density():
    """Two visible units that are nearly always on, one that is nearly always off."""
    learner = make(ObservationSpec((3,), low=0.0, high=1.0), hidden=2, initial=0.01)
    with torch.no_grad():
        learner.visible_bias.copy_(torch.tensor([4.0, 4.0, -4.0]))
    drawn = learner.sample(50, torch.Generator().manual_seed(0), steps=5)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([4.0, 4.0, -4.0]).sigmoid(), rtol=0, atol=0.02)


@pytest.mark.parametrize("settings", [{"visible": "poisson"}, {"visible": "softmax"}, {"hidden_units": "relu"}])
def test_counts_and_rectified_units_learn(settings: dict[str, object]):
    spec = ObservationSpec((6,), low=0.0)
    rates = torch.tensor([[4.0, 4, 4, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 4, 4, 4]])
    torch.manual_seed(1)
    x = torch.poisson(rates.repeat(100, 1))
    learner = make(spec, hidden=6, initial=0.01, gain=10.0, **settings)
    optimisers = Optimisers([], learner, learning_rate=1e-3)
    before = (learner.reconstruct(x) - x).square().sum(1).mean()
    for _ in range(500):
        optimisers.step(learner.loss({"x": x})["reconstruction"])
    after = (learner.reconstruct(x) - x).square().sum(1).mean()
    assert after < 0.6 * before


def test_a_chain_is_shown_on_its_way():
    """Where units hardly depend on each other every mean is the exact one; and later means go on from earlier draws."""
    learner = make(ObservationSpec((3,), low=0.0, high=1.0), hidden=2, initial=0.01)
    means = learner.chain(learner.noise(20, torch.Generator().manual_seed(0)), [1, 2, 30])
    assert means.shape == (3, 20, 3)
    torch.testing.assert_close(means, torch.full_like(means, 0.5), rtol=0, atol=0.05)
    with torch.no_grad():  # two patterns that exclude each other: a chain stays with its own
        learner.weight.copy_(torch.tensor([[20.0, 20, -20], [-20, -20, 20]]))
        learner.visible_bias.zero_()
        learner.hidden_bias.copy_(torch.tensor([-10.0, 10]))
    start = torch.tensor([[1.0, 1, 0], [0, 0, 1]])
    for mean in learner.chain(start, [1, 5, 9]):
        torch.testing.assert_close(mean, start, rtol=0, atol=0.01)


def test_probing_draws_chains_and_histograms():
    torch.manual_seed(0)
    x = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8)
    split = Split(x, torch.zeros(20).long())
    subject = Subject("rbm", make(SMALL), Dataset("small", SMALL, split, split, split))
    subject.encode(("test",))
    assert {"chains", "histograms", "filters"} <= set(wanted(subject, 0))
    shown = chain_figures.chains(subject)
    assert "Gibbs" in shown.get_suptitle() or "Gibbs" in "".join(axes.get_title() for axes in shown.axes)
    panels = chain_figures.histograms(subject).axes
    heights = [sum(bar.get_height() for bar in axes.patches) for axes in panels]
    assert heights == [4 * 16, 20 * 4, 4]


def refusals() -> list[tuple[Callable[[], object], type[Exception], str]]:
    def built(spec: ObservationSpec = BITS, **settings: object) -> Callable[[], object]:
        return lambda: rbm.build(Config(**settings), spec)  # type: ignore[arg-type]

    return [
        (built(SPECS["tokens"]), SpecError, "tokens"),
        (built(SPECS["vector"], visible="bernoulli"), SpecError, "bounded"),
        (built(SPECS["vector"], binarise="dynamic"), SpecError, "bits"),
        (built(visible="binary"), UserError, "unknown visible"),
        (built(method="CD"), UserError, "unknown method"),
        (built(features="all"), UserError, "unknown features"),
        (built(visible="softmax", method="pcd"), UserError, "method cd"),
        (built(hidden=0), UserError, "hidden"),
        (built(l2=-1.0), UserError, "l2"),
        (built(momentum=1.0), UserError, "momentum"),
        (built(gain=0.0), UserError, "gain"),
    ]


@pytest.mark.parametrize(("action", "error", "word"), refusals())
def test_what_makes_no_sense_is_refused(action: Callable[[], object], error: type[Exception], word: str):
    with pytest.raises(error, match=word):
        action()


def test_an_empty_batch_is_no_error():
    learner = make()
    loss = learner.auxiliary_losses(empty(), None)["reconstruction"]
    assert loss == 0
    loss.backward()


def empty():
    from saccade.encoders.base import Trajectory

    obs = observations(BITS, 3, 2)
    zeros = torch.zeros(2, 2)
    return Trajectory(obs, zeros.long(), zeros, zeros, torch.zeros(3, 2).bool(), torch.zeros(2, 2).bool())
