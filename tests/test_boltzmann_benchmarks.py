"""The benchmarks of Boltzmann machines: their commands, their judges against exact numbers, both sides of the race."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade import data
from saccade.benchmarks import BenchOptions, boltzmann, deep_belief, rbm_speed
from saccade.benchmarks.parts import machine_figures
from saccade.benchmarks.parts.plan import Outcome, Run, chosen_runs, needed
from saccade.data import Dataset, Split
from saccade.encoders import make_encoder, rbm
from saccade.encoders.parts.deep import Deep, bound, folded, mean_field
from saccade.encoders.parts.gibbs import Machine
from saccade.encoders.parts.likelihood import exact_log_partition, exact_samples, log_likelihood
from saccade.envs.spec import ObservationSpec
from saccade.training.bundle import save_bundle
from saccade.training.fit_arguments import parse_fit
from saccade.training.fit_plan import check
from saccade.training.pretrain_arguments import parse_pretrain
from saccade.training.pretrain_presets import PRESETS
from saccade.training.probing import likelihood
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
    found = likelihood.judge(model, train, test, steps=200, chains=60, reversed=50)
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


def stand_in(outcome_of: Run, folder: Path, spec: ObservationSpec, settings: dict) -> None:
    """A bundle of an untrained learner, of the run's settings but for `settings`, where the run would leave its own."""
    plan = parse_pretrain(outcome_of.arguments[2], list(outcome_of.command(folder, 1)[5:])).plan
    config = dataclasses.replace(plan.learner_config, **settings)
    save_bundle(folder, plan.learner, config, spec, make_encoder(plan.learner, spec, config), {})
    (folder / "result.json").write_text(json.dumps({"seconds": 7.0, "compute": "nothing"}))


def test_every_command_of_the_deep_ones_can_be_parsed(tmp_path: Path):
    options = BenchOptions(seeds=2, out=tmp_path)
    before, runs = deep_belief.preparations(options), deep_belief.runs(options)
    assert {run.group for run in runs} == deep_belief.ROWS.keys()
    assert len({run.name for run in [*before, *runs]}) == len(before) + len(runs) == 2 * (len(deep_belief.ROWS) + 2)
    folder = tmp_path / "runs" / "deep_belief"
    for run in before:
        stand_in(run, folder / run.name, DIGIT, {})
    for run in runs:
        program, command, name, *words = run.command(Path("out"), 2)[2:]
        assert program == "saccade"
        if command == "pretrain":
            assert parse_pretrain(name, words).plan.data == "mnist"
            assert needed(before, [run]) == []
            continue
        plan = parse_fit(name, words).plan
        check(plan)
        assert (command, plan.task, plan.run.encoder_mode) == ("fit", "mnist", "finetune")
        assert plan.encoder_config.rule == "trainer"
        assert [each.name for each in needed(before, [run])] == [f"pretrain-{run.name}"]
    assert {run.group for run in needed(before, chosen_runs(("drbm", "dbm"), runs))} == {"pretrain-dbm"}


SMALL = {
    "dbn-2000": {"hidden": (5, 6)},
    "dbn-labels": {"hidden": (5, 6)},
    "dbn-30": {"hidden": (5, 3)},
    "drbm": {"hidden": 5},
    "drbm-hybrid": {"hidden": 5},
    "dbm": {"hidden": (5, 6)},
    "convrbm": {"maps": (3, 2)},
}


def test_the_report_of_the_deep_ones(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deep_belief, "deep_bound", functools.partial(likelihood.deep_bound, steps=20, chains=5))
    monkeypatch.setattr(deep_belief, "one_of_each", lambda dataset: dataset.test.x[:20])
    options = BenchOptions(out=tmp_path)
    folder = tmp_path / "runs" / "deep_belief"
    outcomes = []
    for run in deep_belief.preparations(options):
        stand_in(run, folder / run.name, DIGIT, SMALL[run.group.removeprefix("pretrain-")])
    for run in deep_belief.runs(options):
        result = {"seconds": 3.0, "compute": "nothing", "score": {"mean": 98.75}}
        if not deep_belief.ROWS[run.group].tuning:
            stand_in(run, folder / run.name, DIGIT, SMALL[run.group])
        outcomes.append(Outcome(run, folder / run.name, result, ""))
    report = deep_belief.report(outcomes, options)
    rows = {row[0]: row[1:] for row in report.tables[0].rows}
    assert len(rows) == len(deep_belief.ROWS)
    tuned = rows["DBN 500-500-2000, fine-tuned"]
    assert tuned[0] == "1.25 [0.29, 8.86]"  # of 60 images the nearest is one mistake
    assert tuned[2:] == ("<= 1.35 %", "1.25; 1.2", "7", "3")
    assert rows["DBN 1000-500-250-30, unrolled"][0] == "–"
    assert float(rows["DBN 1000-500-250-30, unrolled"][1]) > 10
    assert rows["discriminative RBM 500"][1] == "–"  # it has never learned what images are like
    assert report.data["dbn-2000"]["met"]
    assert not report.data["dbn-30"]["met"]
    assert report.data["dbm"]["bound"]["bound"] < 0
    stems = ("filters", "samples", "reconstructions", "convrbm")
    assert report.figures.keys() == {f"deep_belief-{stem}" for stem in stems}

    few = [outcome for outcome in outcomes if outcome.run.group == "drbm"]
    report = deep_belief.report([*few, outcomes[-1]._replace(result=None)], options)
    assert [row[0] for row in report.tables[0].rows] == ["discriminative RBM 500"]
    assert len(report.tables) == 1
    assert "deep_belief-samples" not in report.figures


def test_the_bound_of_a_deep_machine_by_enumeration():
    generator = torch.Generator().manual_seed(0)
    sizes = (6, 5, 4)
    deep = Deep(
        tuple(0.5 * torch.randn(b, a, generator=generator).double() for a, b in itertools.pairwise(sizes)),
        tuple(0.5 * torch.randn(size, generator=generator).double() for size in sizes),
    )
    v = torch.rand(200, 6, generator=generator).round().double()
    found = likelihood.deep_bound(deep, v, v, steps=300, chains=100)
    log_z = exact_log_partition(folded(deep))
    expected = float(bound(deep, v, mean_field(deep, v, likelihood.ROUNDS)).mean()) - log_z
    assert found.log_partition.value == pytest.approx(log_z, abs=0.1)
    assert found.bound == pytest.approx(expected, abs=0.1)
    assert found.low <= expected <= found.high
    tops = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    whole = torch.cat([v.repeat_interleave(16, 0), tops.repeat(200, 1)], 1)  # the top summed out is log p itself
    exact = log_likelihood(folded(deep), whole, log_z).view(200, 16).logsumexp(1).mean()
    assert expected <= float(exact) < expected + 1


def test_errors_of_a_machines_own_classes(digits: Dataset):
    class Left(torch.nn.Module):
        def classify(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.9, 0.1]]).expand(len(x), 2)

    assert deep_belief.own_error(Left(), digits) == 50  # type: ignore[arg-type]
    assert deep_belief.with_interval([1.0, 3.0], 10_000).startswith("2.00 (1.00 to 3.00) [1.7")


def test_what_is_drawn_is_of_the_class_that_is_asked_for():
    hybrid = make_encoder("drbm", DIGIT, None)
    with torch.no_grad():
        hybrid.weight.fill_(0.02)  # of 500 units, which together light everything
        hybrid.visible_bias.fill_(-6)
        hybrid.hidden_bias.fill_(-25)
        hybrid.label_weight.zero_()
        hybrid.label_weight[:, 3] = 50  # class 3 turns them on, and nothing else does
    images = machine_figures.samples(hybrid, 10)
    assert images is not None
    assert (images.flatten(1).mean(1) > 0.5).nonzero().flatten().tolist() == [3, 13]
    assert machine_figures.samples(make_encoder("perceptron", DIGIT, None), 10) is None


def test_the_report_of_likelihoods(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boltzmann, "judge", functools.partial(likelihood.judge, steps=20, chains=5, reversed=4))
    runs = [run for run in boltzmann.runs(BenchOptions()) if run.group in ("rbm-cd1", "rbm-pcd")]
    for run in runs:
        stand_in(run, tmp_path / run.name, DIGIT, {"hidden": 20})
    result = {"seconds": 3.0, "compute": "nothing"}
    outcomes = [Outcome(run, tmp_path / run.name, result, "") for run in runs]
    report = boltzmann.report(outcomes, BenchOptions())
    assert [row[0] for row in report.tables[0].rows] == ["RBM 500, CD-1", "RBM 500, PCD-1"]
    assert report.figures.keys() == {"boltzmann-filters", "boltzmann-rbm-cd1", "boltzmann-rbm-pcd"}
