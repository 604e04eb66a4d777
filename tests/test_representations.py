"""The benchmark `representations`: equal agents in every cell, commands that work, and what is made of the runs."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.agents.dqn import DQN
from saccade.benchmarks import BenchOptions, representations
from saccade.benchmarks.parts import report as reports
from saccade.benchmarks.parts.intervals import Line, estimate, interval_figure
from saccade.benchmarks.parts.plan import Outcome, Run
from saccade.encoders import make_encoder
from saccade.envs import EnvOptions, make_env
from saccade.envs.errors import UserError
from saccade.training.arguments import Request, parse_train
from saccade.training.bundle import save_bundle
from saccade.training.encoded import EncodedEnv
from saccade.training.encoder_use import count, trains
from saccade.training.plan import build
from saccade.training.pretrain_arguments import parse_pretrain


def request_of(run: Run) -> Request:
    program, command, agent, *words = run.command(Path("out"), 1)[2:]
    assert (program, command) == ("saccade", "train")
    return parse_train(agent, words)


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> BenchOptions:
    """Of a benchmark whose pretraining is done: bundles of untrained encoders stand in for it."""
    options = BenchOptions(seeds=1, steps=500, out=tmp_path_factory.mktemp("bench"))
    assert options.out is not None
    spec = make_env(representations.ENV, 1, EnvOptions(image_size=40)).spec.observation
    for run in representations.preparations(options):
        plan = parse_pretrain(run.arguments[2], list(run.command(Path("out"), 1)[5:])).plan
        assert plan.env_options.image_size == 40
        assert plan.run.frames == 10_000
        encoder = make_encoder(plan.learner, spec, plan.learner_config)
        folder = options.out / "runs" / "representations" / run.name
        save_bundle(folder, plan.learner, plan.learner_config, spec, encoder, {})
        (folder / "result.json").write_text(json.dumps({"seconds": 10.0}))
    return options


def test_every_cell_has_the_same_agent_and_head(options: BenchOptions):
    found = {}
    for run in representations.runs(options):
        plan = dataclasses.replace(request_of(run).plan, agent_config=None, encoder_config=None)
        config = request_of(run).plan.agent_config
        env, agent, _ = build(request_of(run).plan)
        assert isinstance(agent, DQN)
        head = [tuple(parameter.shape) for parameter in agent.network.head.parameters()]
        found[run.group] = (plan.run, config, plan.env_options, head)
        assert head[0] == (256, 50)
        frozen = run.group.endswith("frozen")
        assert isinstance(env, EncodedEnv) == frozen
        trained = count(trains(env, agent))["training"] - sum(math.prod(shape) for shape in head)
        assert (trained == 0) == frozen
        env.close()
    assert len(found) == 3 + 7 * 3
    assert all(cell == found["scratch"] for cell in found.values())


def test_conv_nets_are_the_same_but_for_the_code(options: BenchOptions):
    shapes = {}
    for run in representations.runs(options):
        if run.group in ("scratch", "autoencoder-finetune", "vae-finetune", "contrastive-finetune"):
            _, agent, _ = build(request_of(run).plan)
            encoder = agent.network.encoder
            assert isinstance(encoder, torch.nn.Module)
            trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
            shapes[run.group] = [tuple(parameter.shape) for parameter in trained if parameter.dim() == 4]
    assert shapes["scratch"] == [(16, 2, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3)]
    assert all(shape == shapes["scratch"] for shape in shapes.values())


def test_other_worlds():
    atari = representations.runs(BenchOptions(seeds=2, env="ALE/Pong-v5"))
    assert {run.steps for run in atari} == {400_000}
    assert "ALE/Pong-v5" in atari[0].arguments
    with pytest.raises(UserError, match=r"CartPole-v1 shows float32 \[4\]"):
        representations.runs(BenchOptions(env="CartPole-v1"))


def test_scores_after_some_time_by_hand(tmp_path: Path):
    lines = [(1, 5.0), (2, None), (8, 10.0), (9, 20.0), (10, 30.0), (20, 99.0)]
    text = [json.dumps({"step": 1, "seconds": t} | ({} if s is None else {"episode/score": s})) for t, s in lines]
    (tmp_path / "metrics.jsonl").write_text("\n".join(text) + "\n")
    assert representations.score_at(tmp_path, 10) == 20  # those of seconds 8 to 10
    assert representations.score_at(tmp_path, 1000) == 99  # it was through before
    assert representations.score_at(tmp_path, 5) == 5
    assert math.isnan(representations.score_at(tmp_path, 0.5))


def test_pretraining_counts_at_equal_wall_time(options: BenchOptions, tmp_path: Path, monkeypatch):
    """Of 12 seconds of learning from scratch, 10 go into pretraining: two are left to learn in."""
    monkeypatch.setattr(reports, "REPETITIONS", 50)
    outcomes = []
    assert options.out is not None
    for run in representations.runs(options):
        folder = options.out / "runs" / "representations" / run.name
        folder.mkdir(exist_ok=True)
        lines = [{"step": 250, "seconds": 1.0, "episode/score": 3.0}, {"step": 500, "seconds": 12.0}]
        lines[1]["episode/score"] = 7.0
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = {"score": {"mean": 8.0}, "seconds": 12.0, "parameters": {"training": 1, "frozen": 2}}
        outcomes.append(Outcome(run, folder, result, ""))
    lost = next(i for i, outcome in enumerate(outcomes) if outcome.run.group == "vae-cotrain")
    outcomes[lost] = outcomes[lost]._replace(result=None, error="lost")
    report = representations.report(outcomes, options)
    rows = {row[0]: row for row in report.tables[0].rows}
    assert len(rows) == 23
    assert rows["from scratch"][2:6] == ("8 [8, 8]", "4 [4, 4]", "7 [7, 7]", "0 + 12.0")
    assert rows["vae, frozen"][4:6] == ("3 [3, 3]", "10.0 + 12.0")
    assert report.data["cells"]["scratch"][0]["in_time"] == 7
    figure = report.figures["representations"]
    assert figure.axes[0].get_xlabel().startswith("score after")
    (commands,) = (note for note in report.notes if note.startswith("Commands"))
    typed = [shlex.split(line) for line in commands.splitlines() if line.startswith("saccade ")]
    assert len(typed) == 7 + 24
    assert all(word[:2] in (["saccade", "train"], ["saccade", "pretrain"]) for word in typed)

    few = representations.report([one for one in outcomes if one.run.group == "vae-frozen"], options)  # by --only
    assert [row[4] for row in few.tables[0].rows] == ["– [–, –]"]
    assert any("Nothing is known at equal wall time" in note for note in few.notes)
    (commands,) = (note for note in few.notes if note.startswith("Commands"))
    assert [line.split()[:3] for line in commands.splitlines() if line.startswith("saccade ")] == [
        ["saccade", "pretrain", "vae"],
        ["saccade", "train", "dqn"],
    ]


def test_what_is_missing_is_drawn_as_missing():
    assert np.isnan(estimate([float("nan")]).value)
    assert estimate([1.0, float("nan"), 1.0]).value == 1
    lines = [Line("a", "black", {"x": [1.0, 2.0]}, is_reference=True), Line("b", "C0", {"x": [float("nan")]})]
    figure = interval_figure("title", {"x": "label"}, lines)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b"]
