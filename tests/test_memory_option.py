"""A memory behind any encoder, from the command line: what it reads, how it is saved, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from saccade.encoders import make_encoder
from saccade.encoders.base import Inputs, WithMemory, remembered
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ActionSpec, ObservationSpec
from saccade.training.arguments import parse_train
from saccade.training.bundle import load_bundle
from saccade.training.encoder_use import seen_with
from saccade.training.fit import fit
from saccade.training.fit_arguments import parse_fit
from saccade.training.fit_plan import FitPlan
from saccade.training.matrix import list_memories
from saccade.training.plan import Plan, build, default_plan
from saccade.training.train import resume, train

RECALL = ["--env", "diagnostic/recall", "--memory", "lstm", "--memory.hidden", "8", "--encoder.hidden", "16"]
SHORT = ["--steps", "400", "--evaluate-episodes", "10", "--save-interval-seconds", "1000"]


def plan_of(*words: str, agent: str = "reinforce") -> Plan:
    return parse_train(agent, [*RECALL, *SHORT, *words]).plan


def test_a_memory_reads_the_last_action_and_reward_but_not_across_episodes():
    torch.manual_seed(0)
    action = ActionSpec(count=3)
    perception = make_encoder("flat", ObservationSpec((2,)))
    encoder = WithMemory(perception, make_encoder("flat", remembered(perception, action)), action)
    inputs = Inputs(
        torch.tensor([[[0.5, 1.0]], [[2.0, 3.0]]]), torch.tensor([[1], [2]]), torch.tensor([[-1.0], [torch.e - 1]])
    )
    reset = torch.tensor([[False], [True]])
    both, _ = encoder(inputs, (), None)
    torch.testing.assert_close(both[0, 0], torch.tensor([0.5, 1.0, 0.0, 1.0, 0.0, -0.6931472]))
    torch.testing.assert_close(both[1, 0], torch.tensor([2.0, 3.0, 0.0, 0.0, 1.0, 1.0]))
    begun, _ = encoder(inputs, (), reset)
    torch.testing.assert_close(begun[1, 0], torch.tensor([2.0, 3.0, 0.0, 0.0, 0.0, 0.0]))
    alone, _ = encoder(Inputs(inputs.obs), (), None)
    assert not alone[..., 2:].any()


def test_continuous_actions_are_read_as_they_are():
    action = ActionSpec(shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))
    perception = make_encoder("flat", ObservationSpec((1,)))
    assert remembered(perception, action).shape == (4,)
    encoder = WithMemory(perception, make_encoder("flat", remembered(perception, action)), action)
    features, _ = encoder(Inputs(torch.zeros(1, 1, 1), torch.tensor([[[0.25, -0.5]]]), torch.zeros(1, 1)))
    torch.testing.assert_close(features[0, 0], torch.tensor([0.0, 0.25, -0.5, 0.0]))


@pytest.mark.parametrize("extra", [(), ("--memory-reads-last",), ("--encoder-mode", "frozen")])
def test_a_run_with_memory_goes_on_exactly_and_its_encoder_becomes_a_bundle(extra, tmp_path):
    whole = train(plan_of(*extra), tmp_path / "whole", [])
    train(plan_of(*extra, "--steps", "200"), tmp_path / "parts", [])
    parts = resume(tmp_path / "parts", 400, trackers=[])
    assert whole["memory"] == "lstm"
    assert whole["score"] == parts["score"]
    assert load_bundle(tmp_path / "whole").name == "mlp"
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["memory_config"]["hidden"] == 8


def test_which_parts_train_is_told(tmp_path):
    lines: list[str] = []
    train(plan_of("--memory-reads-last", "--steps", "8"), tmp_path / "run", [], lines.append)
    assert "memory lstm behind it, which also reads the last action and reward" in lines[0]
    assert "memory.encoder" in lines[0]


def test_the_encoder_alone_is_found_behind_the_memory():
    env, agent, _ = build(plan_of())
    env.close()
    assert isinstance(agent.network.encoder, WithMemory)
    assert seen_with(agent) is agent.network.encoder.perception


def test_memories_are_listed():
    found = list_memories()
    assert {"lstm", "gru", "ntm", "dnc", "transformer"} <= set(found)
    assert not {"mlp", "flat", "vae"} & set(found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "mlp"], "remembers nothing"),
        (["--memory", "lstn"], "did you mean 'lstm'"),
        (["--encoder", "gru"], "is a memory itself"),
        (["--memory", "none", "--memory-reads-last"], "is for a memory"),
        (["--memory", "lstm", "--memory.hiden", "3"], "did you mean '--memory.hidden'"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        build(parse_train("reinforce", ["--env", "diagnostic/recall", "--memory", "lstm", *words]).plan)


def test_a_preset_may_bring_a_memory():
    plan = default_plan("unreal", "maze/5")
    assert (plan.memory, plan.memory_config.hidden, plan.encoder_use.memory_reads_last) == ("lstm", 256, True)
    assert default_plan("unreal", "maze/5", memory="gru").memory == "gru"
    assert not default_plan("unreal", "maze/5", memory="none").encoder_use.memory_reads_last


def test_a_run_does_not_go_on_with_another_memory(tmp_path: Path):
    train(plan_of("--steps", "8", "--evaluate-episodes", "0"), tmp_path / "run", [])
    with pytest.raises(UserError, match="has memory 'lstm', not 'gru'"):
        parse_train("reinforce", ["--resume", "--out", str(tmp_path / "run"), "--memory", "gru"])
    with pytest.raises(UserError, match=r"--memory\.hidden 8"):
        parse_train("reinforce", ["--resume", "--out", str(tmp_path / "run"), "--memory.hidden", "9"])


def test_a_memory_that_is_the_users_own_stands_alone():
    with pytest.raises(UserError, match="comes from outside"):
        default_plan("reinforce", "diagnostic/recall", memory="doubles.py")


def test_agents_refuse_what_reads_the_future():
    plan = parse_train("reinforce", [*RECALL, "--memory.bidirectional"]).plan
    with pytest.raises(SpecError, match="comes later"):
        build(plan)


def test_a_supervised_run_takes_a_memory_too(tmp_path: Path):
    words = ["--encoder", "mlp", "--encoder.hidden", "8", "--memory", "gru", "--memory.hidden", "12"]
    words += ["--epochs", "1", "--epoch-batches", "2", "--batch-size", "4", "--threads", "1"]
    request = parse_fit("copy", [*words, "--out", str(tmp_path / "run")])
    result = fit(request.plan, request.out, [])
    assert result["memory"] == "gru"
    assert FitPlan.load(tmp_path / "run").memory_config.hidden == 12
    assert load_bundle(tmp_path / "run").encoder.feature_shape == (8,)
    with pytest.raises(UserError, match="cannot go on with 9"):
        parse_fit(None, ["--resume", "--out", str(tmp_path / "run"), "--memory.hidden", "9"])
    with pytest.raises(UserError, match="would freeze the memory"):
        parse_fit("copy", [*words, "--encoder-mode", "frozen"])
    with pytest.raises(UserError, match="is a memory itself"):
        fit(parse_fit("copy", ["--encoder", "lstm", "--memory", "gru"]).plan, tmp_path / "other", [])
