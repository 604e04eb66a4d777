"""The benchmarks of memories: their commands, and their tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from saccade.benchmarks import flicker, masked_cartpole, memory, memory_cost
from saccade.benchmarks.parts.plan import BenchOptions, Outcome, Run
from saccade.envs.errors import UserError
from saccade.training.arguments import parse_train
from saccade.training.plan import build
from saccade.training.trackers import SCORE


def outcome(run: Run, folder: Path, score: float) -> Outcome:
    folder.mkdir()
    record = {"step": run.steps // 2, SCORE: score}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return Outcome(run, folder, {"score": {"mean": score, "scores": [score]}, "steps_per_second": 100.0}, "")


SUITES = {"memory": memory, "flicker": flicker, "masked_cartpole": masked_cartpole, "memory_cost": memory_cost}


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_command_can_be_parsed(suite: Any):
    runs = suite.runs(BenchOptions(seeds=2, steps=1000))
    assert len({run.name for run in runs}) == len(runs)
    for run in runs[:: 7 if len(runs) > 10 else 1]:  # of so many, all agents and memories
        program, command, agent, *words = run.command(Path("out"), 2)[2:]
        assert (program, command) == ("saccade", "train")
        plan = parse_train(agent, words).plan
        assert plan.run.seed == run.seed
        assert plan.run.steps == 1000


@pytest.mark.parametrize("agent", list(memory.STEPS))
@pytest.mark.parametrize("name", memory.MEMORIES)
def test_every_memory_is_built_into_every_agent(agent: str, name: str):
    group = memory.groups(BenchOptions())[f"{agent}-t-maze-10-{name}"]
    env, built, _ = build(parse_train(group.arguments[2], [*group.arguments[3:], "--out", "out"]).plan)
    env.close()
    assert bool(built.network.encoder.initial_state(1)) == (name != "none")


def test_all_memories_agents_worlds_and_lengths_are_there_and_one_world_can_be_chosen():
    assert len(memory.groups(BenchOptions())) == 5 * 2 * 2 * 3
    chosen = memory.groups(BenchOptions(env="diagnostic/recall-50"))
    assert len(chosen) == 5 * 2
    assert all("diagnostic/recall-50" in group.arguments for group in chosen.values())
    with pytest.raises(UserError, match=r"no world 'diagnostic/recall-51'.*diagnostic/t-maze-200"):
        memory.groups(BenchOptions(env="diagnostic/recall-51"))


def test_the_table_counts_the_seeds_that_solve_it(tmp_path: Path):
    options = BenchOptions(seeds=3, env="diagnostic/recall-10")
    outcomes = []
    for run in memory.runs(options):
        if run.group.endswith("gru"):
            outcomes.append(Outcome(run, tmp_path, None, "broken"))
            continue
        solves = run.group.endswith("lstm") and run.seed != 1
        outcomes.append(outcome(run, tmp_path / run.name, 1.0 if solves else 0.1))
    report = memory.report(outcomes, options)
    (table,) = report.tables
    rows = {row[:2]: row[2:] for row in table.rows}
    assert rows["lstm", "drqn"][:3] == ("50,000", "2 of 3", "1, 0.1, 1")
    assert rows["feed-forward", "a2c"][:2] == ("100,000", "0 of 3")
    assert rows["gru", "a2c"] == ("–", "0 of 3", "all runs failed", "–")
    assert report.data["solved"]["drqn-recall-10-lstm"] == pytest.approx(2 / 3)
    assert set(report.figures) == {"memory-recall-10-drqn", "memory-recall-10-a2c"}


def test_flickering_games_are_seen_alike_at_equal_frames(tmp_path: Path):
    options = BenchOptions(steps=2000)
    runs = flicker.runs(options)
    plans = {run.group: parse_train(run.arguments[2], [*run.arguments[3:], "--out", "out"]).plan for run in runs}
    assert {name: plan.env_options.stack for name, plan in plans.items()} == {"drqn": 1, "dqn": 1, "dqn-stacked": 4}
    assert {plan.env_options.flicker for plan in plans.values()} == {0.5}
    assert {plan.run.steps for plan in plans.values()} == {2000}
    assert len({plan.run.num_envs for plan in plans.values()}) == 1
    report = flicker.report([outcome(run, tmp_path / run.name, 3.0) for run in runs], options)
    assert len(report.tables[0].rows) == 3
    assert "8,000" in report.notes[0]


def test_masked_cartpole_with_a_memory_and_without(tmp_path: Path):
    runs = masked_cartpole.runs(BenchOptions(seeds=1))
    plans = {run.group: parse_train(run.arguments[2], [*run.arguments[3:], "--out", "out"]).plan for run in runs}
    assert {name: plan.memory for name, plan in plans.items()} == {
        "ppo-lstm": "lstm",
        "drqn-lstm": "lstm",
        "ppo-none": None,
        "dqn-none": None,
    }
    for one, other in (("ppo-lstm", "ppo-none"), ("drqn-lstm", "dqn-none")):
        assert plans[one].run.steps == plans[other].run.steps == plans[other].agent_config.learning_rate_decay_steps
    assert plans["ppo-lstm"].agent_config == plans["ppo-none"].agent_config
    report = masked_cartpole.report([outcome(run, tmp_path / run.name, 480.0) for run in runs], BenchOptions())
    assert [row[3] for row in report.tables[0].rows] == ["1 of 1"] * 4
    assert report.figures.keys() == {"masked_cartpole-ppo", "masked_cartpole-drqn"}


def test_the_cost_of_a_memory_is_against_an_lstm_in_the_same_agent(tmp_path: Path):
    outcomes = []
    for run in memory_cost.runs(BenchOptions()):
        done = outcome(run, tmp_path / run.name, 1.0)
        assert done.result is not None
        speed = {"drqn-lstm": 400.0, "drqn-dnc": 100.0, "a3c-lstm": 900.0, "a3c-dnc": 300.0}[run.group]
        outcomes.append(done._replace(result=done.result | {"steps_per_second": speed, "steps": 200_000}))
    with (outcomes[-1].folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "loss/value": NaN}\n')
    rows = memory_cost.report(outcomes, BenchOptions()).tables[0].rows
    assert {row[0]: row[3:] for row in rows} == {
        "drqn-lstm": ("yes", "400.0", "1.0"),
        "drqn-dnc": ("yes", "100.0", "4.0"),
        "a3c-lstm": ("yes", "900.0", "1.0"),
        "a3c-dnc": ("NO", "300.0", "3.0"),
    }
