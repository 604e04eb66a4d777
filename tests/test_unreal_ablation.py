"""The benchmark that takes UNREAL apart: its commands, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from saccade.benchmarks import unreal_ablation
from saccade.benchmarks.parts.plan import BenchOptions, Outcome
from saccade.training.arguments import parse_train
from saccade.training.trackers import SCORE


def test_the_ablation_switches_one_task_at_a_time():
    groups = unreal_ablation.groups_of("maze/3", 1000)
    weights = {}
    for name, group in groups.items():
        plan = parse_train(group.arguments[2], [*group.arguments[3:], "--out", "out"]).plan
        assert plan.env_options.image_size == 42
        assert plan.encoder_use.memory_reads_last
        config = plan.agent_config
        assert config.rollout_steps == 20
        if name == "base":
            assert plan.agent == "a2c"
        else:
            weights[name] = [config.pixel_control, config.reward_prediction, config.value_replay]
    on = {name: [weight > 0 for weight in each] for name, each in weights.items()}
    yes, no = True, False
    assert on == {
        "pixel-control": [yes, no, no],
        "reward-prediction": [no, yes, no],
        "value-replay": [no, no, yes],
        "all": [yes, yes, yes],
    }


def test_the_ablation_counts_the_steps_to_the_base_agents_final_score(tmp_path: Path):
    """All tasks bring the score at once, one brings a half of that, one nothing; one group fails."""
    options, outcomes = BenchOptions(seeds=2, steps=1000), []
    heights = {"base": [0, 1], "all": [1, 1], "pixel-control": [0.5, 1], "reward-prediction": [0, 1]}
    for run in unreal_ablation.runs(options):
        folder = tmp_path / run.name
        folder.mkdir()
        if run.group not in heights:
            outcomes.append(Outcome(run, folder, None, "broken"))
            continue
        scores = np.repeat(heights[run.group], 25)
        lines = [json.dumps({"step": 20 * i + 10, SCORE: float(score)}) for i, score in enumerate(scores)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        outcomes.append(Outcome(run, folder, {"score": {"mean": 2.0, "scores": [2.0]}, "steps_per_second": 100.0}, ""))
    report = unreal_ablation.report(outcomes, options)
    rows = {row[0]: row[1:] for row in report.tables[0].rows}
    assert report.data["target"] == 1
    # five parts of 20 steps must have the mean
    assert rows["A2C"][2:4] == ("600 (60%), 2 of 2", "–")
    assert rows["UNREAL: all three"][2:4] == ("100 (10%), 2 of 2", "100%")
    assert rows["A2C + pixel control"][2:4] == ("600 (60%), 2 of 2", "50%")
    assert rows["A2C + reward prediction"][3] == "0%"
    assert rows["A2C + value replay"][0] == "all runs failed"
    assert list(report.figures) == ["unreal_ablation"]


def test_steps_to_a_score_that_is_never_reached():
    assert unreal_ablation.steps_to(np.zeros(50), 1.0, 1000) is None
    assert unreal_ablation.when([None, 100, None], 1000) == "never, 1 of 3"
    assert unreal_ablation.when([None, 100, 500], 1000) == "500 (50%), 2 of 3"
