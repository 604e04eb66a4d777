"""The linear autoencoder and the Hebbian rules, against loops written from the papers and against the SVD."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saccade.agents.parts.optimisers import Optimisers
from saccade.benchmarks import autoencoders as autoencoders_benchmark
from saccade.benchmarks import features as features_benchmark
from saccade.benchmarks import linear as linear_benchmark
from saccade.benchmarks.parts import learners
from saccade.benchmarks.parts.plan import BenchOptions, Outcome, Run
from saccade.data import Dataset, Split
from saccade.encoders import hebbian, linear, make_encoder, psd
from saccade.encoders.parts.moments import Moments
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.bundle import save_bundle
from saccade.training.pretrain_arguments import parse_pretrain
from sklearn.decomposition import PCA
from torch import Tensor

SIZE, SPEC = 12, ObservationSpec((12,))
DIGITS = ObservationSpec((1, 28, 28), "uint8", 0.0, 255.0)


def examples(count: int = 2000) -> Tensor:
    """Correlated Gaussian vectors whose leading variances 9, 5.3, 3.1, ... are well apart, with a mean of 2."""
    generator = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(generator.normal(size=(SIZE, SIZE)))
    scales = 3 * 0.77 ** np.arange(SIZE)
    return torch.from_numpy((generator.normal(size=(count, SIZE)) * scales) @ rotation.T + 2.0).float()


def components(x: Tensor, number: int) -> np.ndarray:
    return PCA(number).fit(x.numpy()).components_


def largest_angle(rows: Tensor, others: np.ndarray) -> float:
    """In degrees, between the spaces that the rows span."""
    first, second = (np.linalg.qr(np.asarray(a, np.float64).T)[0] for a in (rows.detach().numpy(), others))
    return math.degrees(math.acos(min(1.0, np.linalg.svd(first.T @ second, compute_uv=False).min())))


def naive_update(weight: np.ndarray, x: np.ndarray, rule: str, activation: str) -> np.ndarray:
    """The mean over the batch of y_i e_i + [f'(u_i) (w_i e_i) x]; the bracket for non-linear units only."""
    f = {"linear": lambda u: u, "tanh": math.tanh, "sigmoid": lambda u: 1 / (1 + math.exp(-u))}[activation]
    total = np.zeros_like(weight)
    for row in x:
        u = [float(w @ row) for w in weight]
        y = [f(value) for value in u]
        for i in range(len(weight)):
            last = i + 1 if rule == "sanger" else len(weight)
            left = row - sum(y[j] * weight[j] for j in range(last))
            total[i] += y[i] * left
            if activation != "linear":
                slope = (f(u[i] + 1e-6) - f(u[i] - 1e-6)) / 2e-6
                total[i] += slope * float(weight[i] @ left) * row
    return total / len(x)


@pytest.mark.parametrize("rule", ["oja", "sanger"])
@pytest.mark.parametrize("activation", ["linear", "tanh", "sigmoid"])
def test_the_gradient_is_minus_the_rule(rule: str, activation: str):
    config = hebbian.Config(code=4, rule=rule, activation=activation, gain=7.0)  # type: ignore[arg-type]
    encoder = make_encoder("hebbian", SPEC, config).train()
    x = examples(32)
    loss = encoder.loss({"x": x})["reconstruction"]
    assert loss.shape == (32,)
    loss.mean().backward()
    centred = (x - x.mean(0)).numpy().astype(np.float64)  # the first batch is all that the running mean has seen
    expected = naive_update(encoder.weight.detach().numpy().astype(np.float64), centred, rule, activation)
    power = (centred**2).sum(1).mean()
    np.testing.assert_allclose(-encoder.weight.grad.numpy(), 7.0 / power * expected, rtol=2e-4, atol=2e-5)
    if activation == "linear":
        error = (encoder.reconstruct(x) - x).square().sum(1)
        torch.testing.assert_close(loss, error)


def test_the_whole_nonlinear_oja_rule_is_the_gradient_of_the_squared_error():
    x = examples(16) - 2
    weight = torch.randn(3, SIZE, requires_grad=True)
    (0.5 * (x - (x @ weight.T).tanh() @ weight).square().sum(1).mean()).backward()
    step, _ = hebbian.update(weight.detach(), x, "oja", "tanh")
    assert weight.grad is not None
    torch.testing.assert_close(step, -weight.grad, rtol=1e-4, atol=1e-4)


def train(encoder, x: Tensor, updates: int, rate: float) -> None:
    optimisers = Optimisers([], encoder.train(), learning_rate=rate)
    for number in range(updates):
        optimisers.scale_learning_rate(1 - number / updates)
        batch = x[torch.randint(len(x), (100,))]
        optimisers.step(sum(loss.mean() for loss in encoder.loss({"x": batch}).values()))
        encoder.after_update()
    encoder.eval()


@pytest.mark.parametrize("rule", ["oja", "sanger"])
def test_the_rules_find_the_principal_subspace(rule: str):
    x = examples()
    encoder = make_encoder("hebbian", SPEC, hebbian.Config(code=3, rule=rule))  # type: ignore[arg-type]
    train(encoder, x, 1500, 1e-3)
    assert largest_angle(encoder.weight, components(x, 3)) < 1.0
    if rule == "sanger":  # the components themselves, in order
        agreement = np.abs(encoder.weight.detach().numpy() @ components(x, 3).T)
        np.testing.assert_allclose(agreement, np.eye(3), atol=0.05)


def test_a_trained_linear_autoencoder_spans_the_principal_subspace():
    x = examples()
    encoder = make_encoder("linear", SPEC, linear.Config(code=3))
    train(encoder, x, 3000, 3e-2)
    best = PCA(3).fit(x.numpy())
    optimum = float(((best.inverse_transform(best.transform(x.numpy())) - x.numpy()) ** 2).sum(1).mean())
    assert encoder.loss({"x": x})["reconstruction"].mean().item() == pytest.approx(optimum, rel=0.01)
    assert largest_angle(encoder.down.weight.T, best.components_) < 1.0


@pytest.mark.parametrize("how", ["fit", "stage"])
def test_closed_form(how: str):
    x = examples(500)
    encoder = make_encoder("linear", SPEC, linear.Config(code=4, solver="pca")).train()
    if how == "fit":
        encoder.fit(x)
    else:
        (stage,) = encoder.stages()
        for batch in x.split(70):
            stage.loss({"x": batch})
        stage.finish()
    best = PCA(4).fit(x.numpy())
    theirs = torch.from_numpy(best.transform(x.numpy()))
    ours = encoder.eval().encode(x)
    torch.testing.assert_close(ours * (ours[0] * theirs[0]).sign(), theirs, rtol=1e-3, atol=1e-3)
    expected = torch.from_numpy(best.inverse_transform(best.transform(x.numpy())))
    torch.testing.assert_close(encoder.reconstruct(x), expected, rtol=1e-3, atol=1e-3)


def test_moments_of_batches_are_those_of_the_whole():
    x = examples(101) + 1000  # sums of squares would cancel
    moments = Moments(SIZE)
    for batch in x.split(25):
        moments.add(batch)
    exact = x.double()
    torch.testing.assert_close(moments.mean.double(), exact.mean(0), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(moments.covariance().double(), exact.T.cov(correction=0), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "config", "complaint"),
    [
        ("linear", linear.Config(code=0), "code must be a positive size"),
        ("linear", linear.Config(code=13, solver="pca"), "needs observations of 13"),
        ("linear", linear.Config(solver="svd"), "unknown solver 'svd'"),  # type: ignore[arg-type]
        ("hebbian", hebbian.Config(code=0), "positive number of units"),
        ("hebbian", hebbian.Config(rule="hebb"), "unknown rule 'hebb'"),  # type: ignore[arg-type]
        ("hebbian", hebbian.Config(activation="relu"), "unknown activation 'relu'"),  # type: ignore[arg-type]
        ("hebbian", hebbian.Config(gain=0), "gain must be positive"),
    ],
)
def test_settings_that_make_no_sense(name: str, config: object, complaint: str):
    with pytest.raises(UserError, match=complaint):
        make_encoder(name, SPEC, config)


@pytest.mark.parametrize("name", ["linear", "hebbian"])
def test_tokens_are_refused(name: str):
    with pytest.raises(SpecError, match="not tokens"):
        make_encoder(name, ObservationSpec((5,), "int64", 0.0, 9.0, vocabulary=10))


# the benchmarks of learners


def test_the_angle_between_two_planes():
    plane = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    slope = math.radians(30)
    tilted = torch.tensor([[2.0, 0.0, 0.0], [5.0, 3 * math.cos(slope), 3 * math.sin(slope)]])
    assert linear_benchmark.largest_angle(plane, tilted) == pytest.approx(30, abs=1e-4)
    assert linear_benchmark.largest_angle(plane, plane.flip(0)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("benchmark", [linear_benchmark, autoencoders_benchmark, features_benchmark])
def test_what_benchmarks_type_is_understood(benchmark):
    options = BenchOptions(seeds=1)
    if benchmark is features_benchmark:
        runs = learners.pretraining(features_benchmark.LEARNERS, options, 1)
    else:
        runs = benchmark.runs(options)
    for run in runs:
        program, verb, name, *rest = run.arguments
        assert (program, verb) == ("saccade", "pretrain")
        plan = parse_pretrain(name, [*rest, "--seed", "3", "--threads", "1", "--out", "nowhere"]).plan
        assert run.steps == plan.run.epochs * 55_000
        encoder = make_encoder(name, DIGITS, plan.learner_config)
        assert len(encoder.stages()) <= plan.run.epochs


def finished(folder, runs) -> list[Outcome]:
    """Outcomes with bundles of encoders that have learned nothing."""
    outcomes = []
    for run in runs:
        plan = parse_pretrain(run.arguments[2], [*run.arguments[3:], "--out", "nowhere"]).plan
        encoder = make_encoder(plan.learner, DIGITS, plan.learner_config)
        save_bundle(folder / run.name / "bundle", plan.learner, plan.learner_config, DIGITS, encoder, {})
        result = {"seconds": 1.5, "compute": "cpu, 1 thread", "score": {"mean": 98.0}, "steps": 1}
        outcomes.append(Outcome(run, folder / run.name, result, ""))
    return outcomes


def noise() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (120, 1, 28, 28), dtype=torch.uint8, generator=generator)
    split = Split(x, torch.arange(120) % 10)
    return Dataset("noise", DIGITS, split, split, split, tuple("0123456789"))


@pytest.mark.parametrize("benchmark", [linear_benchmark, autoencoders_benchmark])
def test_reports_of_learners(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "mnist", noise)
    options = BenchOptions(seeds=1)
    outcomes = finished(tmp_path, benchmark.runs(options))
    outcomes[0] = outcomes[0]._replace(result=None, error="it failed")
    report = benchmark.report(outcomes, options)
    text = "".join(table.markdown() for table in report.tables)
    assert all(setting.label in text for setting in list(benchmark.SETTINGS.values())[1:] if hasattr(setting, "label"))
    assert len(report.data["measured"]) >= len(outcomes) - 1
    for name, figure in report.figures.items():
        figure.savefig(tmp_path / f"{name}.png")


def test_the_report_of_features(tmp_path, monkeypatch):
    """Both rounds of runs are stood in for; logistic regression and sparse codes are real, on noise."""
    monkeypatch.setattr(features_benchmark, "mnist", noise)
    rounds: list[list[Run]] = []

    def execute(runs, *_: object, **__: object) -> list[Outcome]:
        rounds.append(list(runs))
        result = {"seconds": 2.0, "compute": "cpu", "score": {"mean": 98.5}, "steps": 1}
        if len(rounds) == 1:
            return finished(tmp_path, runs)
        return [Outcome(run, tmp_path / run.name, result, "") for run in runs]

    monkeypatch.setattr(features_benchmark, "execute", execute)
    report = features_benchmark.measure(BenchOptions(seeds=1, threads=1, out=tmp_path))
    assert [run.name for run in rounds[1]] == ["sda-3-tuned-seed0", "cae-2-tuned-seed0"]
    words = list(rounds[1][0].arguments)
    assert not words[words.index("--encoder") + 1].startswith("/")  # results name no machine's folders
    assert report.data["test_error_percent"]["sda-3"] == [1.5]
    assert 0 <= report.data["test_error_percent"]["k-sparse"][0] <= 100
    assert all(found["speedup"] > 0 for found in report.data["sparse_coding"].values())
    assert "features-psd" in report.figures


def test_predicted_codes_are_judged_at_equal_sparsity():
    """With the dictionary's own inverse as the predictor, codes are exact and as sparse as FISTA's."""
    torch.manual_seed(0)
    encoder = make_encoder("psd", DIGITS, psd.Config(code=12, sparsity=0.5, depth=30)).eval()
    tables, found = features_benchmark.sparse_coding(encoder, noise())
    assert len(tables) == len(found) == 2
    assert all(one["excess_error"] == pytest.approx(0, abs=0.02) for one in found.values())
    assert 0 < found["elements that are not 0"]["sparsity"] <= 12
    assert found["sum of absolute values"]["weight"] == pytest.approx(0.5, rel=0.1)  # that of training
