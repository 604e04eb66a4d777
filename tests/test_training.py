"""The loop, evaluation and exact resume."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.agents.base import Action
from saccade.envs import make_env
from saccade.envs.base import Outcome, VectorEnv
from saccade.envs.errors import UserError
from saccade.envs.spec import ActionSpec, EnvSpec, ObservationSpec
from saccade.training import checkpoint
from saccade.training.evaluate import Score, evaluate, evaluate_run
from saccade.training.loop import NonFiniteError, Position, run
from saccade.training.plan import Plan, default_plan, load_memory
from saccade.training.presets import PRESETS
from saccade.training.tables import score_rows
from saccade.training.train import resume, train


class Scripted(VectorEnv):
    """Two environments whose outcomes are given; observations count the steps."""

    def __init__(self, script: list[dict]):
        self.spec = EnvSpec("scripted", 2, ObservationSpec((1,)), ActionSpec(count=2))
        self.script, self.time = script, 0

    def reset(self, seed: int) -> np.ndarray:
        return np.zeros((2, 1), np.float32)

    def send(self, action: np.ndarray) -> None:
        pass

    def recv(self) -> Outcome:
        now = self.script[self.time]
        self.time += 1
        obs = np.full((2, 1), self.time, np.float32)
        no = np.zeros(2, bool)
        outcome = Outcome(np.arange(2), obs, obs, np.ones(2, np.float32), no, no, np.ones(2, np.float32), ~no)
        return outcome._replace(**now)


class Watcher:
    """Acts with the time it is and keeps what it was shown."""

    device = "cpu"

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def initial_state(self, batch_size: int) -> tuple:
        return (torch.zeros(batch_size, 1),)

    def act(self, inputs, state, reset, *, explore) -> Action:
        self.seen.append((inputs.last_action[0].tolist(), inputs.last_reward[0].tolist(), reset[0].tolist()))
        return Action(np.array([1, 1]), tuple(leaf + 1 for leaf in state), {})

    def observe(self, step) -> None: ...

    def update(self) -> dict:
        return {}


def play(script: list[dict]) -> Watcher:
    env, agent = Scripted(script), Watcher()
    loop = run(env, agent, Position.begin(env, agent, env.reset(0)))
    for _ in script:
        next(loop)
    return agent


def test_reset_and_last_action_follow_ends_and_ignored_steps() -> None:
    ends, ignored = np.array([True, False]), np.array([False, True])
    agent = play([{}, {"terminated": ends}, {}, {"valid": ignored}, {}])
    begun = [reset for _, _, reset in agent.seen]
    assert begun == [[True, True], [False, False], [True, False], [False, False], [True, False]]
    assert agent.seen[1][:2] == ([1, 1], [1, 1])
    assert agent.seen[2][:2] == ([0, 1], [0, 1])


@pytest.mark.parametrize(("field", "what"), [("reward", "reward"), ("next_obs", "observation")])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stops_the_run_with_the_step_named(field: str, what: str, bad: float) -> None:
    poison = np.array([1, bad], np.float32)
    value = poison[:, None] if field == "next_obs" else poison
    with pytest.raises(NonFiniteError, match=rf"scripted .* {what} that is not finite at step 6"):
        play([{}, {}, {field: value}])


def tiny_plan(steps: int, agent: str = "dqn", env: str = "CartPole-v1") -> Plan:
    plan = default_plan(agent, env)
    run_config = dataclasses.replace(plan.run, steps=steps, num_envs=3, evaluate_episodes=4, threads=1)
    small = {"learning_starts": 50, "update_interval": 8, "updates_per_interval": 2, "replay_capacity": 400}
    changes = small | {"prioritised": True, "n_step": 2} if agent == "dqn" else {"episodes_per_update": 2}
    return dataclasses.replace(plan, run=run_config, agent_config=dataclasses.replace(plan.agent_config, **changes))


def same(ours: object, theirs: object) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, (torch.Tensor, np.ndarray)):
        return np.array_equal(np.asarray(ours), np.asarray(theirs), equal_nan=np.asarray(ours).dtype.kind == "f")
    return ours == theirs


@pytest.mark.parametrize("agent", ["dqn", "reinforce"])
def test_train_2n_equals_train_n_save_resume_train_n(tmp_path: Path, agent: str) -> None:
    train(tiny_plan(1200, agent), tmp_path / "whole", trackers=[])
    train(tiny_plan(600, agent), tmp_path / "parts", trackers=[])
    resume(tmp_path / "parts", steps=1200, trackers=[])
    whole, parts = (checkpoint.load(tmp_path / name / "checkpoint") for name in ("whole", "parts"))
    whole.pop("seconds"), parts.pop("seconds")
    assert same(whole, parts)
    scores = [json.loads((tmp_path / name / "result.json").read_text())["score"] for name in ("whole", "parts")]
    assert scores[0] == scores[1]
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert json.loads(lines[0][-1])["step"] == json.loads(lines[1][-1])["step"] == 1200


def test_same_seed_same_parameters_and_other_seed_others(tmp_path: Path) -> None:
    networks = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        plan = tiny_plan(300)
        train(dataclasses.replace(plan, run=dataclasses.replace(plan.run, seed=seed)), tmp_path / name, trackers=[])
        networks.append(checkpoint.load(tmp_path / name / "checkpoint")["agent"]["network"])
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])


def test_a_world_that_cannot_be_cloned_goes_on_with_new_episodes(tmp_path: Path) -> None:
    plan = tiny_plan(200, env="Acrobot-v1")
    train(plan, tmp_path / "run", trackers=[])
    result = resume(tmp_path / "run", steps=400, trackers=[])
    assert result["steps"] >= 400
    state = checkpoint.load(tmp_path / "run" / "checkpoint")
    assert state["agent"]["replay"]["count"] == state["position"]["steps"]


def test_a_run_directory_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    with pytest.raises(UserError, match="--resume"):
        train(tiny_plan(100), tmp_path / "run", trackers=[])
    assert (tmp_path / "run" / "precious").read_text() == "x"


def test_a_rate_that_reaches_zero_before_the_end_is_refused(tmp_path: Path) -> None:
    plan = tiny_plan(300)
    short = dataclasses.replace(plan.agent_config, learning_rate_decay_steps=200)
    with pytest.raises(UserError, match="--learning-rate-decay-steps 300"):
        train(dataclasses.replace(plan, agent_config=short), tmp_path / "run", trackers=[])


def test_a_checkpoint_of_another_agent_is_refused(tmp_path: Path) -> None:
    train(tiny_plan(200), tmp_path / "dqn", trackers=[])
    config = json.loads((tmp_path / "dqn" / "config.json").read_text())
    config["encoder_config"]["hidden"] = [7]
    (tmp_path / "dqn" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not of the run"):
        resume(tmp_path / "dqn", trackers=[])
    with pytest.raises(UserError, match="not of the agent"):
        evaluate_run(tmp_path / "dqn", 4)


def test_evaluation_counts_whole_episodes_evenly() -> None:
    """Constantly pushing one way: each episode lasts some ten steps, and each environment plays as many."""

    class Constant(Watcher):
        def initial_state(self, batch_size: int) -> tuple:
            return ()

        def act(self, inputs, state, reset, *, explore) -> Action:
            return Action(np.ones(inputs.obs.shape[1], np.int64), state, {})

    score = evaluate(Constant(), lambda count: make_env("CartPole-v1", count), 50, seed=0)
    assert score.episodes == len(score.scores) == 50
    assert all(8 <= one <= 11 for one in score.scores)
    assert score.scores == [float(length) for length in score.lengths]
    assert score.low < score.mean < score.high


def test_interval_of_the_mean_by_hand() -> None:
    score = Score.of([1.0, 2.0, 3.0, 4.0], [1] * 4)
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2  # t(.975, 3) times the standard error
    assert (score.low, score.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert Score.of([5.0, 5.0], [1, 1]).low == 5


def test_a_memory_without_its_settings_is_damage() -> None:
    assert load_memory({"memory": None}) == (None, None)
    assert load_memory({"memory": "gru", "memory_config": {"hidden": 7}})[1].hidden == 7
    with pytest.raises(UserError, match="'memory_config' must be a dictionary"):
        load_memory({"memory": "gru"})


def test_one_episode_gives_no_interval(tmp_path: Path) -> None:
    """Neither in what is printed, nor in a result that other programs read."""
    plan = tiny_plan(50)
    once = dataclasses.replace(plan.run, evaluate_episodes=1)
    result = train(dataclasses.replace(plan, run=once), tmp_path / "run", [])
    assert json.loads((tmp_path / "run" / "result.json").read_text(), parse_constant=pytest.fail) == result
    assert (result["score"]["low"], result["score"]["high"]) == (None, None)
    assert score_rows(result["score"], 0.0) == {
        "score": f"{result['score']['mean']:.1f} in one episode, greedy",
        "95 % interval": "one episode gives none",
    }
    assert score_rows(vars(Score.of([1.0, 2.0, 3.0, 4.0], [1] * 4)), 0.1) == {
        "score": "2.5, mean of 4 episodes, random actions 10%",
        "95 % interval": "0.4 to 4.6",
    }


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_fields_that_exist(name: str) -> None:
    preset = PRESETS[name]
    env = preset.env.replace("-v*", "-v1").replace("*", "Breakout-v5")
    plan = default_plan(preset.agent, env, preset=name)
    for key, value in preset.agent_config.items():
        assert getattr(plan.agent_config, key) == value
    for key, value in preset.run.items():
        assert getattr(plan.run, key) == value
