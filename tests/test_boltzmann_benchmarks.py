"""The benchmarks of Boltzmann machines: their commands, their judges against exact numbers, both sides of the race."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from saccade import data
from saccade.benchmarks import BenchOptions, boltzmann, rbm_speed
from saccade.data import Dataset, Split
from saccade.encoders import rbm
from saccade.encoders.parts.gibbs import Machine
from saccade.encoders.parts.likelihood import exact_log_partition, exact_samples, log_likelihood
from saccade.envs.spec import ObservationSpec
from saccade.training.pretrain_arguments import parse_pretrain
from saccade.training.pretrain_presets import PRESETS
from saccade.training.stages import monitored

DIGIT = ObservationSpec((1, 28, 28), "uint8", 0.0, 255.0)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Three hundred images, bright on the left or on the right, in MNIST's place."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        x = torch.randint(0, 60, (count, *DIGIT.shape), dtype=torch.uint8, generator=generator)
        x[::2, :, :, :14] += 180
        x[1::2, :, :, 14:] += 180
        return Split(x, torch.arange(count) % 2)

    found = Dataset("digits", DIGIT, split(200), split(40), split(60), ("left", "right"))
    monkeypatch.setattr(data, "load", lambda name: found)
    return found


def test_every_command_can_be_parsed():
    runs = boltzmann.runs(BenchOptions(seeds=2))
    assert len({run.name for run in runs}) == len(runs) == 2 * len(boltzmann.SETTINGS)
    for run in runs:
        program, command, learner, *words = run.command(Path("out"), 2)[2:]
        assert (program, command) == ("saccade", "pretrain")
        plan = parse_pretrain(learner, words).plan
        assert (plan.data, plan.run.seed, plan.learner_config.hidden) == ("mnist", run.seed, 500)
    assert boltzmann.PUBLISHED.keys() <= boltzmann.SETTINGS.keys()
    assert boltzmann.WANTED.keys() <= boltzmann.SETTINGS.keys()


@pytest.mark.parametrize("name", ["rbm-500", "rbm-pcd"])
def test_presets_are_the_benchmarks_settings(name: str):
    of_benchmark = boltzmann.SETTINGS["rbm-cd1" if name == "rbm-500" else name]
    words = ["--data", "mnist", "--epochs", str(of_benchmark.epochs), *of_benchmark.options]
    theirs, ours = parse_pretrain("rbm", words).plan, PRESETS[name]
    for field, value in ours.learner_config.items():
        assert getattr(theirs.learner_config, field) == value, field
    for field, value in ours.run.items():
        assert getattr(theirs.run, field) == value, field


def test_the_judge_finds_exact_likelihoods():
    generator = torch.Generator().manual_seed(0)
    sizes = ((9, 12), (12,), (9,))
    model = Machine(*(0.6 * torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes))
    train, test = (exact_samples(model, 300, generator) for _ in range(2))
    exact = log_likelihood(model, test, exact_log_partition(model))
    found = boltzmann.judge(model, train, test, steps=200, chains=60, reversed=50)
    assert abs(found.mean - exact.mean()) < 0.1
    assert found.low <= exact.mean() <= found.high
    assert abs(found.forward - exact[:50].mean()) < 0.1
    assert abs(found.reverse - exact[:50].mean()) < 0.25
    assert found.standard_error == pytest.approx(float(exact.std()) / 300**0.5)


def test_bits_are_drawn_once():
    x = torch.tensor([[0, 128, 255]], dtype=torch.uint8).expand(2000, 3)
    found = boltzmann.bits(x, 0)
    assert torch.equal(found, boltzmann.bits(x, 0))
    torch.testing.assert_close(found.mean(0), torch.tensor([0, 0.5, 1], dtype=torch.float64), rtol=0, atol=0.05)


def test_both_sides_of_the_race_learn_the_same(digits: Dataset):
    """As many images each; then either reconstructs what it saw better than the mean image does."""
    x = digits.test.x.flatten(1).float() / 255
    deviation = float((x - x.mean(0)).square().sum(1).mean())
    ours, _ = rbm_speed.our_side(digits.train, 1)
    assert ours.advance(250) == 200
    ours.advance(6000)
    theirs = rbm_speed.their_side(digits.train, np.float32, 1)
    assert theirs.advance(6200) == 6200
    for side in (ours, theirs):
        assert rbm_speed.judge(side.parameters(), x).error < 0.6 * deviation
    assert side.parameters().weight.shape == (rbm_speed.HIDDEN, 784)


def test_a_stage_is_watched_without_moving_anything(digits: Dataset):
    torch.manual_seed(0)
    learner = rbm.build(rbm.Config(hidden=5, binarise="dynamic"), DIGIT).train()
    stage, state = learner.stages()[0], torch.get_rng_state()
    found = monitored(learner, stage, digits.train, digits.validation, "cpu")
    assert found.keys() == {"monitor/free_energy_gap"}
    assert found == monitored(learner, stage, digits.train, digits.validation, "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert learner.training
    assert monitored(learner, stage._replace(monitor=None), digits.train, digits.validation, "cpu") == {}
