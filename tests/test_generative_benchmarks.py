"""The benchmarks of generating learners: their commands, their judge, their report on small nets and few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.benchmarks import BenchOptions, generative, vae_speed
from saccade.benchmarks.parts import generation
from saccade.benchmarks.parts.plan import Outcome
from saccade.data import Dataset, Split
from saccade.encoders import adversarial, make_encoder, vae, wasserstein
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.bundle import save_bundle
from saccade.training.pretrain_arguments import parse_pretrain

DIGIT = ObservationSpec((1, 28, 28), "uint8", 0.0, 255.0)


@pytest.fixture
def digits() -> Dataset:
    """Three hundred images, bright on the left or on the right."""

    def split(count: int) -> Split:
        label = torch.arange(count) % 10
        x = torch.randint(0, 60, (count, *DIGIT.shape), dtype=torch.uint8)
        x[label < 5, :, :, :14] += 180
        x[label >= 5, :, :, 14:] += 180
        return Split(x, label)

    return Dataset("digits", DIGIT, split(200), split(40), split(100), tuple("0123456789"))


def test_every_command_can_be_parsed():
    runs = generative.runs(BenchOptions(seeds=2))
    assert len({run.name for run in runs}) == len(runs) == 2 * len(generative.SETTINGS)
    for run in runs:
        program, command, learner, *words = run.command(Path("out"), 2)[2:]
        assert (program, command) == ("saccade", "pretrain")
        plan = parse_pretrain(learner, words).plan
        assert (plan.data, plan.run.seed) == ("mnist", run.seed)
    plans = {run.group: parse_pretrain(run.arguments[2], list(run.arguments[3:])).plan for run in runs}
    config = plans["vae-50"].learner_config
    assert (config.latents, config.binarise, config.importance_samples) == (50, "dynamic", 1)
    assert plans["aae"].learner_config.latents == plans["wae"].learner_config.latents == 8


def test_the_judge_tells_alike_from_unlike(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generation, "BATCH", 20)
    judge = generation.make_judge(digits, tmp_path)
    again = generation.make_judge(digits, tmp_path)  # as it was left there
    assert torch.equal(judge.features, again.features)
    samples = (digits.train.x / 255, torch.rand(200, *DIGIT.shape))
    near, far = (generation.judge_samples(x, digits, judge) for x in samples)
    assert near.frechet < 0.2 * far.frechet
    assert near.parzen > far.parzen + 100
    assert near.parzen_error > 0
    assert near.deviation in generation.DEVIATIONS


def test_the_report(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = {"hidden": (16,)}
    configs = {
        "vae-50": vae.Config(latents=5, binarise="dynamic", **small),
        "vae-2": vae.Config(latents=2, **small),
        "aae-labels": adversarial.Config(latents=2, prior="mixture", labels=10, **small),
        "wae": wasserstein.Config(latents=3, **small),
    }
    monkeypatch.setattr(generative, "mnist", lambda: digits)
    monkeypatch.setattr(generation, "BATCH", 20)
    monkeypatch.setattr(generative, "SAMPLES", 50)
    monkeypatch.setattr(generative, "IMPORTANCE_SAMPLES", 20)
    outcomes = []
    for run in generative.runs(BenchOptions(seeds=1)):
        folder = tmp_path / run.name
        done = run.group in configs
        if done:
            learner, config = run.arguments[2], configs[run.group]
            folder.mkdir()
            save_bundle(folder / "bundle", learner, config, DIGIT, make_encoder(learner, DIGIT, config), {})
        result = {"seconds": 1.0, "compute": "cpu"} if done else None
        outcomes.append(Outcome(run, folder, result, "" if done else "lost"))
    report = generative.report(outcomes, BenchOptions())
    likelihood = report.data["likelihood"][0]
    encoder = make_encoder("vae", DIGIT, configs["vae-50"])
    assert isinstance(encoder, vae.Vae)
    assert 200 < likelihood["nats"] < 1500  # near 784 log 2, as random nets know nothing
    assert abs(likelihood["bfloat16_minus_float32"]) < 1
    assert [row[0] for row in report.tables[1].rows] == [
        "training images",
        *(generative.SETTINGS[name].label for name in generative.SETTINGS if name in configs),
    ]
    assert set(report.figures) == {"generative", "generative-manifold", "generative-codes"}
    kept = sorted((tmp_path / "vae-50-seed0" / "likelihood").iterdir())
    assert len(np.concatenate([np.load(file) for file in kept])) == len(digits.test)
    assert generative.report(outcomes, BenchOptions()).data["likelihood"][0]["nats"] == likelihood["nats"]


def test_both_sides_of_the_speed_are_the_same_net(tmp_path: Path, digits: Dataset):
    """784-512-16-512-784: weights and biases, twice the code for mean and variance."""
    learner = make_encoder("vae", DIGIT, vae.Config(hidden=(vae_speed.UNITS,), latents=vae_speed.LATENTS))
    sizes = [785 * 512, 513 * 32, 17 * 512, 513 * 784]
    assert sum(p.numel() for p in learner.parameters()) == sum(sizes)
    try:
        import pythae  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install --no-deps pythae"):
            vae_speed.their_side(digits.train, str(tmp_path))
