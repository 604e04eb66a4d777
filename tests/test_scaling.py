"""The benchmark of workers: its runs can be started, and what its report says of runs whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from saccade.benchmarks import scaling
from saccade.benchmarks.parts.plan import BenchOptions, Outcome
from saccade.training.arguments import parse_train


@pytest.mark.parametrize("env", ["CartPole-v1", "ALE/Breakout-v5"])
def test_all_sides_have_the_same_settings(env: str):
    plans = {}
    for run in scaling.runs(BenchOptions(env=env, seeds=1, threads=2)):
        words = run.command(Path("unused"), 2)[2:]
        assert words[:2] == ["saccade", "train"]
        plans[run.group] = parse_train(words[2], words[3:]).plan
    assert {name: plan.run.workers for name, plan in plans.items()} == {
        "a2c-1": 0,
        "a2c-2": 0,
        "a3c-1": 1,
        "a3c-2": 2,
        "a3c-4": 4,
    }
    assert [plans[f"a2c-{threads}"].run.threads for threads in (1, 2)] == [1, 2]
    one, *others = plans.values()
    for plan in others:
        for name in vars(plan.agent_config).keys() & vars(one.agent_config).keys():
            assert getattr(plan.agent_config, name) == getattr(one.agent_config, name), name
        assert plan.run.num_envs == one.run.num_envs
        assert plan.encoder_config == one.encoder_config


def test_speeds_and_lags_are_reported(tmp_path: Path):
    """1,000 steps in the first second, which is no part of the speed; then each side's own."""
    options = BenchOptions(seeds=2, steps=10_000)
    rates = {"a2c-1": 500, "a2c-2": 800, "a3c-1": 400, "a3c-2": 760, "a3c-4": 1000}
    outcomes = []
    for run in scaling.runs(options):
        folder = tmp_path / run.name
        folder.mkdir()
        lines = [
            {"step": s, "seconds": 9.0 + s / rates[run.group], "episode/score": 5.0} for s in range(500, 10_001, 500)
        ]
        lines[0]["seconds"] = 0.0
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = {"score": {"mean": 20.0 + run.seed}, "steps_per_second": 1.0}
        if run.group == "a3c-2":
            result["lag"] = {"mean": 1.0 + run.seed, "most": 3 + run.seed}
        outcomes.append(Outcome(run, folder, result, ""))
    report = scaling.report(outcomes, options)
    rows = {row[0]: row[1:] for row in report.tables[0].rows}
    assert rows["A3C, 2 workers"][:4] == ("760.0", "1.9", "0.95", "1.50, 4")
    assert rows["A2C, one process, 2 threads"][:4] == ("800.0", "2", "1", "–")
    assert report.data["steps_per_second"]["a3c-4"] == pytest.approx(1000)
    assert set(report.figures) == {"scaling-speed", "scaling-curves"}


def test_a_side_whose_runs_all_failed_is_left_out(tmp_path: Path):
    runs = scaling.runs(BenchOptions(seeds=1, steps=1000))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 500, "seconds": 1.0}\n{"step": 1000, "seconds": 2.0}\n')
    done = Outcome(runs[-1], folder, {"score": {"mean": 1.0}, "steps_per_second": 1.0}, "")
    report = scaling.report([*(Outcome(run, folder, None, "no") for run in runs[:-1]), done], BenchOptions(seeds=1))
    assert [row[:2] for row in report.tables[0].rows] == [("A3C, 4 workers", "500.0")]
    assert report.tables[0].rows[0][2:4] == ("–", "–")
