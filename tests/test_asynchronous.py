"""Actor-learners on shared parameters: the rule, what one of them does, and runs whose processes are killed."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from doubles import BatchNormAutoencoder, TinyDNC
from playing import begin, steps_of
from saccade.agents import a2c, a3c, make_agent, unreal
from saccade.agents.parts.actor_learner import ActorLearner, among_others
from saccade.agents.parts.shared_rmsprop import LAG_MOST, LAG_SUM, STEPS, UPDATES, Flat, Piece, Rules, SharedParameters
from saccade.encoders import make_encoder
from saccade.encoders.base import Encoder, FeedForward
from saccade.envs import make_env
from saccade.envs.base import VectorEnv
from saccade.envs.errors import UserError
from saccade.training.arguments import parse_train
from saccade.training.asynchronous import Foreman
from saccade.training.evaluate import evaluate_run
from saccade.training.plan import Plan, default_plan
from saccade.training.trackers import SCORE, read_lines
from saccade.training.train import Stopped, resume, train
from saccade.training.workers import Crew, Ended, Job, Report, derive_seed
from torch import nn

WORLD = "diagnostic/observation-action"
PATIENCE = 120.0  # seconds, for what takes one
LONG = 400_000  # steps of a run that is stopped; the first 800 are logged


def test_the_rule_is_rmsprop_with_its_constant_inside_the_root():
    rng = np.random.default_rng(0)
    decay, epsilon, rates = 0.9, 0.01, (0.1, 0.02, 0.5)
    pieces = tuple(
        Piece(*each) for each in zip((0, 4, 6), (4, 6, 9), ("rmsprop", "rmsprop", "sgd"), rates, strict=True)
    )
    rules = Rules(pieces, decay, epsilon, decay_steps=100)
    values, squares = torch.randn(9), torch.zeros(9)
    expected, mean = values.double().numpy().copy(), np.zeros(9)
    for steps in (0, 10, 50, 90, 120):
        gradient = rng.normal(size=9)
        rules.apply(values, squares, torch.from_numpy(gradient).float(), steps)
        left = max(1 - steps / 100, 0)
        for piece in pieces:
            for i in range(piece.start, piece.stop):
                if piece.rule == "sgd":
                    expected[i] -= left * piece.rate * gradient[i]
                    continue
                mean[i] = decay * mean[i] + (1 - decay) * gradient[i] ** 2
                expected[i] -= left * piece.rate * gradient[i] / np.sqrt(mean[i] + epsilon)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(squares, mean, rtol=1e-5)


def test_parameters_become_views_of_one_vector_and_keep_their_layout():
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=torch.channels_last)
    x = torch.randn(5, 3, 3, 3)
    before, strides = net(x), [p.stride() for p in net.parameters()]
    first, last = list(net[0].parameters()), list(net[2].parameters())
    flat = Flat([("rmsprop", 0.1, first), ("sgd", 0.2, last)])
    assert flat.pieces == (Piece(0, 52, "rmsprop", 0.1), Piece(52, 86, "sgd", 0.2))
    torch.testing.assert_close(net(x), before, rtol=0, atol=0)
    assert [p.stride() for p in net.parameters()] == strides
    flat.values.mul_(2)
    torch.testing.assert_close(first[0], flat.views(flat.values)[0])
    assert len(flat.views(flat.values)) == len(first)
    net(x).square().sum().backward()
    expected = [(p - p.grad).detach().clone() for p in net.parameters() if p.grad is not None]
    flat.values.sub_(flat.gather())
    for parameter, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)
    first[0].grad = None
    assert not flat.gather()[:48].any()
    assert flat.gather()[52:].any()


def test_the_lag_is_the_number_of_updates_by_others_between_reading_and_writing():
    shared = SharedParameters(torch.zeros(3), Rules((Piece(0, 3, "sgd", 1.0),), 0.9, 0.01, 0)).share(2)
    shared.base, shared.total = 100, 150
    one, two = shared.seat(0), shared.seat(1)
    mine, theirs = torch.empty(3), torch.empty(3)
    one.take(mine)
    two.take(theirs)
    assert two.bring(torch.tensor([1.0, 0, 0]), 10, theirs) == (0, 110, False)
    assert two.bring(torch.tensor([1.0, 0, 0]), 10, theirs) == (0, 120, False)
    assert mine.tolist() == [0, 0, 0]
    assert one.bring(torch.tensor([0, 1.0, 0]), 20, mine) == (2, 140, False)
    assert mine.tolist() == [-2, -1, 0]
    assert theirs.tolist() == [-2, 0, 0]
    assert two.bring(torch.zeros(3), 10, theirs) == (1, 150, True)
    assert shared.tally[:, STEPS].tolist() == [20, 30]
    assert shared.tally[:, UPDATES].tolist() == [1, 3]
    assert shared.tally[:, LAG_SUM].tolist() == [2, 1]
    assert shared.tally[:, LAG_MOST].tolist() == [2, 1]


def test_told_to_stop_every_seat_says_so():
    shared = SharedParameters(torch.zeros(1), Rules((Piece(0, 1, "sgd", 1.0),), 0.9, 0.01, 0)).share(1)
    shared.stop.fill_(1)
    assert shared.seat(0).bring(torch.zeros(1), 1, torch.zeros(1)).is_last


SETTINGS = {"learning_rate": 0.01, "learning_rate_decay_steps": 2000, "clip_rewards": True, "max_gradient_norm": 0.2}


def pair(encoder: Callable[[VectorEnv], Encoder]) -> tuple[Any, ActorLearner, VectorEnv, VectorEnv]:
    """A2C and A3C that begin alike, each with a world of its own."""
    found = []
    for name, module in (("a2c", a2c), ("a3c", a3c)):
        torch.manual_seed(1)
        env = make_env("CartPole-v1", 3)
        found.append((make_agent(name, env.spec, encoder(env), module.Config(**SETTINGS), seed=2), env))
    (ours, world), (theirs, other_world) = found
    assert isinstance(theirs, ActorLearner)
    return ours, theirs, world, other_world


@pytest.mark.parametrize(
    "encoder",
    [lambda env: make_encoder("mlp", env.spec.observation), lambda env: TinyDNC(env.spec.observation)],
    ids=["mlp", "memory"],
)
def test_alone_it_is_a2c_step_for_step(encoder: Callable[[VectorEnv], Encoder]):
    synchronous, alone, world, other_world = pair(encoder)
    rounds = 150
    played = [
        [(step.action.tolist(), metrics) for step, metrics in steps_of(env, agent, begin(agent, env), rounds)]
        for agent, env in ((synchronous, world), (alone, other_world))
    ]
    assert [action for action, _ in played[0]] == [action for action, _ in played[1]]
    for (_, ours), (_, theirs) in zip(*played, strict=True):
        assert {**ours, "lag": 0.0}.keys() == theirs.keys() if ours else not theirs
    for ours, theirs in zip(synchronous.network.parameters(), alone.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert alone.total_steps == 3 * 145  # the last rollout waits for the next step
    squares = alone.state_dict()["optimisers"]["rmsprop"]["state"]
    for ours, theirs in zip(
        synchronous.state_dict()["optimisers"]["rmsprop"]["state"].values(), squares.values(), strict=True
    ):
        torch.testing.assert_close(ours["square"], theirs["square"], atol=1e-8, rtol=1e-5)
        assert ours["square"].any()


def test_a_checkpoint_of_a2c_goes_on_as_a3c():
    synchronous, alone, world, other_world = pair(lambda env: make_encoder("mlp", env.spec.observation))
    position = begin(synchronous, world)
    list(steps_of(world, synchronous, position, 51))
    alone.load_state_dict(synchronous.state_dict())
    place = begin(alone, other_world)
    other_world.load_state_dict(world.state_dict())
    place.load_state_dict(position.state_dict())
    for agent, env, where in ((synchronous, world, position), (alone, other_world, place)):
        list(steps_of(env, agent, where, 50))
    for ours, theirs in zip(synchronous.network.parameters(), alone.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_unreal_does_as_it_did_when_it_can_share():
    found = []
    for wrap in (lambda agent: agent, lambda agent: among_others(agent, "unreal")):
        torch.manual_seed(1)
        env = make_env("CartPole-v1", 2)
        settings = unreal.Config(replay_capacity=200, learning_rate=0.01, max_gradient_norm=0.2)
        agent = wrap(make_agent("unreal", env.spec, make_encoder("mlp", env.spec.observation), settings, seed=2))
        torch.manual_seed(1)
        played = list(steps_of(env, agent, begin(agent, env), 80))
        assert any("loss/value_replay" in metrics for _, metrics in played)
        found.append(agent.network.state_dict())
    for ours, theirs in zip(found[0].values(), found[1].values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


class UnitNorm(FeedForward):
    """Its own rule keeps the rows of its weight at length 1."""

    feature_shape = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x))

    @torch.no_grad()
    def after_update(self) -> None:
        self.layer.weight.div_(self.layer.weight.norm(dim=1, keepdim=True))


def test_what_the_encoders_own_rule_changes_reaches_the_others():
    env = make_env("CartPole-v1", 3)
    agent = make_agent("a3c", env.spec, UnitNorm())
    assert isinstance(agent, ActorLearner)
    other = make_agent("a3c", env.spec, UnitNorm(), seed=1)
    assert isinstance(other, ActorLearner)
    list(steps_of(env, agent, begin(agent, env), 60))
    other.sit(agent.shared.seat(0))
    torch.testing.assert_close(other.network.encoder.layer.weight.norm(dim=1), torch.ones(4))


def test_buffers_are_each_ones_own():
    env = make_env("CartPole-v1", 3)
    agents = [make_agent("a3c", env.spec, BatchNormAutoencoder(env.spec.observation), seed=seed) for seed in (0, 1)]
    one, other = agents
    assert isinstance(one, ActorLearner)
    assert isinstance(other, ActorLearner)
    list(steps_of(env, one, begin(one, env), 30))
    other.sit(one.shared.seat(0))
    means = [name for name in one.own() if name.endswith("running_mean")]
    assert means
    assert not one.own().keys() & {name for name, p in one.network.named_parameters() if p.requires_grad}
    assert any(not torch.equal(one.own()[name], other.own()[name]) for name in means)
    other.set_own(one.own())
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(other.network.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_reaches_nobody():
    env = make_env("CartPole-v1", 2)
    agent = make_agent("a3c", env.spec, make_encoder("mlp", env.spec.observation))
    assert isinstance(agent, ActorLearner)
    before = agent.shared.values.clone()
    next(iter(agent.network.value.parameters())).data.fill_(1e38)
    with pytest.raises(UserError, match="not finite after 0 steps"):
        list(steps_of(env, agent, begin(agent, env), 20))
    assert torch.equal(agent.shared.values, before)


def test_who_can_learn_with_others():
    env = make_env("CartPole-v1", 2)

    def made(name: str, config: Any = None) -> Any:
        return make_agent(name, env.spec, make_encoder("mlp", env.spec.observation), config)

    assert isinstance(among_others(made("a2c"), "a2c"), ActorLearner)
    for name, config, word in (
        ("dqn", None, "one process"),
        ("a2c", a2c.Config(optimizer="adam"), "--optimizer must be rmsprop"),
        ("a2c", a2c.Config(scale_values=True), "--scale-values must be False"),
    ):
        with pytest.raises(UserError, match=word):
            among_others(made(name, config), name)


def test_workers_on_the_command_line(tmp_path: Path):
    plan = parse_train("a3c", ["--env", "CartPole-v1", "--workers", "2", "--num-envs", "4", "--memory", "lstm"]).plan
    assert (plan.run.workers, plan.run.num_envs, plan.memory) == (2, 4, "lstm")
    assert parse_train("a3c", []).plan.run.workers == 0
    for words, message in (
        (["--workers", "-1"], "workers must not be negative"),
        (["--cluster", "auto"], "--workers 8"),
        (["--wire", "float16"], "wire"),
    ):
        with pytest.raises(UserError, match=message):
            parse_train("a3c", words)
    plan = default_plan("dqn", "CartPole-v1")
    with pytest.raises(UserError, match="dqn learns in one process: --workers is for a3c"):
        train(dataclasses.replace(plan, run=dataclasses.replace(plan.run, workers=2)), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


# The main process, with workers that only say that they are there.


class Scripted(Crew):
    """Workers whose messages are given."""

    def __init__(self, workers: int, script: list[list[Any]]):
        self.counts, self.script = np.zeros((workers, 4), np.int64), script
        self.jobs: list[Job] = []
        self.stopped = False

    def start(self, job: Job) -> None:
        self.jobs.append(job)

    def listen(self, seconds: float) -> list[Any]:
        found = self.script.pop(0) if self.script else []
        return [message() if callable(message) else message for message in found]

    def tally(self) -> np.ndarray:
        return self.counts

    def fetch(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None: ...


def foreman(tmp_path: Path, script: list[list[Any]], workers: int = 2) -> tuple[Foreman, Scripted, list[str]]:
    env = make_env(WORLD, 2)
    agent = make_agent("a3c", env.spec, make_encoder("mlp", env.spec.observation))
    run = SimpleNamespace(workers=workers, seed=3, steps=1000)
    plan, position = SimpleNamespace(run=run), SimpleNamespace(steps=40)
    going: Any = SimpleNamespace(agent=agent, plan=plan, position=position, directory=tmp_path)
    crew, notes = Scripted(workers, script), list[str]()
    found = Foreman(going, crew, notes.append)
    for index in range(workers):
        found.start(index)
    return found, crew, notes


def test_a_worker_that_dies_is_replaced_with_another_seed(tmp_path: Path):
    boss, crew, notes = foreman(tmp_path, [[Ended(1, "killed by SIGKILL")]])
    crew.counts[1] = [60, 5, 0, 0]
    boss.attend(0)
    assert [job.index for job in crew.jobs] == [0, 1, 1]
    assert len({job.seed for job in crew.jobs}) == 3
    assert notes == ["worker 1 died at step 100 (killed by SIGKILL); another begins"]
    assert boss.alive == {0, 1}
    assert boss.read()["workers/replaced"] == 1


def test_workers_that_die_as_soon_as_they_begin_end_the_run(tmp_path: Path):
    boss, crew, _ = foreman(tmp_path, [[Ended(0, "killed by SIGKILL")]] * Crew.most_stillborn)
    for _ in range(Crew.most_stillborn - 1):
        boss.attend(0)
    with pytest.raises(UserError, match=r"worker 0 died 3 times before its first update \(killed by SIGKILL\)"):
        boss.attend(0)
    assert len(crew.jobs) == 2 + Crew.most_stillborn - 1


def test_a_workers_mistake_is_one_line_and_a_file(tmp_path: Path):
    boss, _, _ = foreman(tmp_path, [[Ended(0, "ValueError: no", is_error=True, trace="Traceback: here")]])
    with pytest.raises(UserError, match=r"worker 0 failed: ValueError: no \(see .*worker-0.txt\)"):
        boss.attend(0)
    assert (tmp_path / "worker-0.txt").read_text() == "Traceback: here"


def test_reports_and_lags_become_numbers(tmp_path: Path):
    script = [[Report(0, {"loss/value": 1.0, "lag": 9.0}, {}), Report(1, {"loss/value": 3.0}, {})]]
    boss, crew, _ = foreman(tmp_path, script)
    crew.counts[:] = [[10, 2, 4, 3], [20, 3, 1, 1]]
    boss.attend(0)
    assert boss.read() == {
        "loss/value": 2.0,
        "lag/mean": 1.0,
        "lag/most": 3.0,
        "workers/alive": 2.0,
        "workers/replaced": 0.0,
    }
    crew.counts[0] = [15, 4, 8, 3]
    assert boss.read()["lag/mean"] == 2.0
    assert boss.steps() == 40 + 15 + 20


def test_at_the_end_all_are_told_and_none_is_replaced(tmp_path: Path):
    boss, crew, notes = foreman(tmp_path, [[Ended(0, "")], [Ended(1, "killed by SIGTERM")]])
    crew.counts[1] = [60, 5, 0, 0]
    boss.finish()
    assert crew.stopped
    assert not boss.alive
    assert len(crew.jobs) == 2
    assert "another" not in notes[0]


def test_seeds_of_workers_differ():
    seeds = {derive_seed(s, i, g, n) for s in range(3) for i in range(3) for g in range(3) for n in (0, 10)}
    assert len(seeds) == 54


# Real processes.


def small_plan(agent: str = "a3c", steps: int = 6000, **run: Any) -> Plan:
    plan = default_plan(agent, WORLD)
    settings = {"workers": 2, "num_envs": 4, "steps": steps, "evaluate_episodes": 50} | run
    return dataclasses.replace(
        plan,
        run=dataclasses.replace(plan.run, **settings),
        agent_config=dataclasses.replace(plan.agent_config, learning_rate=3e-3, discount=0.5),
    )


class At:
    """A tracker that does something once, when workers have begun to learn."""

    def __init__(self, action: Callable[[], None]):
        self.action, self.done = action, False

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        if not self.done and "lag/mean" in values:
            self.done = True
            self.action()

    def close(self) -> None: ...


def workers_alive() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid and child.name.startswith("worker")]


def test_two_workers_learn_and_nothing_is_left_of_them(tmp_path: Path):
    out = tmp_path / "run"
    result = train(small_plan(), out, [])
    assert result["score"]["mean"] == 1.0
    assert result["steps"] >= 6000
    assert result["workers"] == 2
    assert result["updates"] * 20 <= result["steps"] + 40
    assert result["lag"]["most"] >= 0
    assert not workers_alive()
    lines = read_lines(out / "metrics.jsonl")
    assert any(SCORE in line and "lag/mean" in line for line in lines)
    assert json.loads((out / "result.json").read_text())["lag"] == result["lag"]
    assert evaluate_run(out, 20).mean == 1.0


def test_a_worker_killed_in_mid_run_is_replaced(tmp_path: Path):
    killed: list[int] = []

    def kill() -> None:
        killed.append(workers_alive()[0])
        os.kill(killed[0], signal.SIGKILL)

    out = tmp_path / "run"
    result = train(small_plan(), out, [At(kill)])
    assert result["workers_replaced"] == 1
    assert result["steps"] >= 6000
    assert "killed by SIGKILL" in (out / "workers.log").read_text()
    assert not workers_alive()


def test_ctrl_c_saves_and_the_run_goes_on(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(Stopped) as stopped:
        train(small_plan(steps=LONG), out, [At(lambda: signal.raise_signal(signal.SIGINT))])
    assert not workers_alive()
    assert 0 < stopped.value.step < LONG
    result = resume(out, stopped.value.step + 3000, trackers=[])
    assert result["steps"] >= stopped.value.step + 3000
    assert result["updates"] * 20 <= 3000 + 200  # of this sitting


FAILING = """
from saccade.encoders.flat import Config, build as build_flat
kind = "breaks"
def build(config, spec):
    encoder = build_flat(config, spec)
    def encode(x):
        raise RuntimeError("boom")
    encoder.encode = encode
    return encoder
"""


def test_a_mistake_in_a_worker_ends_the_run_in_one_line(tmp_path: Path):
    path, out = tmp_path / "mine.py", tmp_path / "run"
    path.write_text(FAILING)
    plan = default_plan("a3c", WORLD, str(path))
    plan = dataclasses.replace(plan, run=dataclasses.replace(plan.run, workers=2, num_envs=2, steps=1000))
    with pytest.raises(UserError, match=r"worker . failed: RuntimeError: boom"):
        train(plan, out, [])
    assert not workers_alive()
    assert "raise RuntimeError" in next(out.glob("worker-?.txt")).read_text()


MAIN = """
import multiprocessing, sys
from test_asynchronous import LONG, At, small_plan, workers_alive
from saccade.training.train import train
from pathlib import Path
if __name__ == "__main__":
    train(small_plan(steps=LONG), Path(sys.argv[1]), [At(lambda: print(*workers_alive(), flush=True))])
"""


def test_when_the_main_process_is_killed_workers_end_by_themselves(tmp_path: Path):
    script = tmp_path / "main.py"
    script.write_text(MAIN)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    main = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert main.stdout is not None
    with main:
        pids = [int(word) for word in main.stdout.readline().split()]
        main.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + PATIENCE
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"
