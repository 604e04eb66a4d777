"""The benchmarks over sequences: their commands, their tables, and the pictures of trained memories."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from saccade import data
from saccade.benchmarks import BenchOptions, babi, copying, language, sequential_mnist
from saccade.benchmarks.parts.plan import Outcome, Run
from saccade.data.sequences import Sequences, join
from saccade.encoders import find_encoder
from saccade.encoders.parts.augment_images import Augmentation
from saccade.training import fit as fitting
from saccade.training.bundle import load_bundle
from saccade.training.fit_arguments import parse_fit
from saccade.training.fit_plan import FitConfig, FitPlan, check

SUITES = {"babi": babi, "copying": copying, "language": language, "sequential_mnist": sequential_mnist}


@pytest.mark.parametrize("name", SUITES)
def test_every_command_can_be_parsed(name: str):
    runs = SUITES[name].runs(BenchOptions(seeds=2))
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        program, command, task, *words = run.command(Path("out"), 2)[2:]
        assert (program, command) == ("saccade", "fit")
        plan = parse_fit(task, words).plan
        check(plan)
        assert plan.run.seed == run.seed


def outcome(run: Run, folder: Path, test: dict[str, Any], records: list[dict[str, Any]]) -> Outcome:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    result = {
        "validation": {"error": 0.3 - 0.1 * run.seed, "mean_of_groups": 0.3 - 0.1 * run.seed},
        "test": test,
        "seconds": 7200.0,
        "steps": 1000,
        "steps_per_second": 500.0,
        "epochs": 3,
        "parameters": {"training": 12_000, "frozen": 0},
    }
    return Outcome(run, folder, result, "")


def test_babi_counts_failed_tasks_of_the_best_seed(tmp_path: Path):
    outcomes = []
    for run in babi.runs(BenchOptions(seeds=2)):
        errors = {"1 fact": 0.0, "2 facts": 0.2 - 0.1 * run.seed, "3 facts": 0.04}
        test = {"groups": errors, "mean_of_groups": sum(errors.values()) / 3}
        records = [{"step": n, "seconds": n, "validation/error": 0.5 / n} for n in (1, 2)]
        outcomes.append(outcome(run, tmp_path / run.name, test, records))
    report = babi.report(outcomes, BenchOptions())
    rows = {row[0]: row[1] for row in report.tables[0].rows}
    assert rows["2 facts"] == "10.0"  # seed 1 has the lower validation error
    assert rows["tasks with more than 5"] == "1"
    assert rows["mean of the tasks"] == "4.67"
    assert rows["hours"] == "2"
    assert next(row[-2:] for row in report.tables[0].rows if row[0] == "2 facts") == ("39.2", "6.9")  # published
    assert [round(sum(errors) / 20, 1) for errors in (babi.GRAVES, babi.MASKED)] == [16.7, 9.5]  # as the papers say
    assert report.data["mean_errors"]["dnc"] == [pytest.approx(0.08), pytest.approx(0.14 / 3)]


def test_language_shows_what_was_written(tmp_path: Path):
    outcomes = [
        outcome(
            run,
            tmp_path / run.name,
            {"perplexity": 90.0, "bits_per_token": 6.5, "sample": "to be or"},
            [{"step": n, "seconds": n, "validation/perplexity": 100 / n} for n in (1, 2)],
        )
        for run in language.runs(BenchOptions(seeds=1))
    ]
    report = language.report(outcomes, BenchOptions())
    assert report.tables[0].rows[0][1:3] == ("90.00", "6.500")
    assert "to be or" in report.notes[0]


def test_sequential_mnist_tells_accuracy(tmp_path: Path):
    runs = sequential_mnist.runs(BenchOptions(seeds=1))
    records = [{"step": n, "seconds": n, "validation/error": 0.5 / n} for n in (1, 2)]
    outcomes = [outcome(run, tmp_path / run.name, {"error": 0.015}, records) for run in runs]
    assert sequential_mnist.report(outcomes, BenchOptions()).tables[0].rows[0][1] == "98.50"


def trained(task: str, encoder: str, folder: Path) -> Outcome:
    """A very small memory, hardly trained."""
    settings: dict[str, Any] = {"slots": 6, "width": 4, "hidden": 8}
    run = FitConfig(epochs=1, epoch_batches=2, batch_size=2, threads=1)
    config = find_encoder(encoder).Config(**settings)
    result = fitting.fit(FitPlan(task, encoder, run, Augmentation(), config), folder, [])
    group = {"copy": "copy", "copy-slots": "slots"}[task]
    return Outcome(Run(f"{group}-{encoder}", 0, ("saccade", "fit", task, "--encoder", encoder)), folder, result, "")


def first_of_each(split: Sequences) -> Sequences:
    """The first sequence of each group."""
    assert split.group is not None
    groups = split.group.unique().tolist()
    firsts = [int((split.group == group).nonzero()[0]) for group in groups]
    parts = [slice(int(split.start[n]), int(split.start[n + 1])) for n in firsts]
    return join([split.x[part].numpy() for part in parts], [split.target[part].numpy() for part in parts], groups)


@pytest.fixture
def _few_sequences(monkeypatch: pytest.MonkeyPatch):
    real = data.load

    def load(name: str, **rest: Any) -> Any:
        found = real(name, **rest)
        return dataclasses.replace(found, validation=first_of_each(found.validation), test=first_of_each(found.test))

    monkeypatch.setattr(data, "load", load)
    yield
    torch.set_flush_denormal(False)


def test_copying_takes_five_seeds_of_the_turing_machine_alone():
    names = [run.name for run in copying.runs(BenchOptions())]
    assert [f"copy-ntm-seed{seed}" for seed in range(5)] == [name for name in names if name.startswith("copy-ntm")]
    assert len(names) == 5 + len(copying.GROUPS) - 1
    assert len(copying.runs(BenchOptions(seeds=2))) == 2 * len(copying.GROUPS)


@pytest.mark.usefixtures("_few_sequences")
def test_copying_draws_heads_and_runs_with_more_slots(tmp_path: Path):
    outcomes = [trained("copy", "ntm", tmp_path / "a"), trained("copy-slots", "dnc", tmp_path / "b")]
    report = copying.report(outcomes, BenchOptions())
    assert [row[0] for row in report.tables[1].rows] == ["NTM, copy", "DNC, 4 x 5 vectors through 10 slots"]
    assert set(report.figures) == {"copying", "copying-slots", "copying-copy-ntm", "copying-copy-slots-dnc"}
    # with as many slots as in training it answers exactly as the run that was judged
    assert outcomes[0].result is not None
    same = f"{outcomes[0].result['validation']['error']:.2%}"
    assert report.tables[1].rows[0][1] == same
    model = copying.model_with_slots(load_bundle(tmp_path / "b"), data.load("copy-slots"), 3)  # type: ignore[arg-type]
    assert model.encoder.slots == 18
    assert "at length 20" in report.notes[-1]
