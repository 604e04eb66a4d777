"""Our learner as something that can be stepped and timed, and where the time of its steps goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...agents.base import Metrics
from ...agents.dqn import DQN
from ...encoders.base import Inputs
from ...envs.base import Step
from ...training.loop import Position, run
from ...training.plan import Plan, build
from ...training.trackers import LENGTH, SCORE, EpisodeStatistics, Meter
from .interleave import timed

LOG_INTERVAL = 500  # steps between readings of the metrics, as in training


class Ours:
    """Our agent in its loop, with the statistics that training keeps; `advance` goes on where it stopped."""

    def __init__(self, plan: Plan):
        self.env, agent, self.compute = build(plan)
        self.agent: Any = agent
        self.position = Position.begin(self.env, agent, self.env.reset(plan.run.seed))
        self._stream = run(self.env, agent, self.position)
        self._statistics, self._meter = EpisodeStatistics(self.env.spec.num_envs), Meter()
        self._next_log = 0

    def advance(self, steps: int) -> int:
        """Go on for `steps` environment steps or a few more; returns how many."""
        begin = self.position.steps
        while self.position.steps - begin < steps:
            self.step()
        return self.position.steps - begin

    def step(self) -> tuple[Step, Metrics]:
        """One step of all environments."""
        step, metrics = next(self._stream)
        self._meter.add(metrics)
        for episode in self._statistics.update(step):
            self._meter.add({SCORE: episode.score, LENGTH: float(episode.length)})
        if self.position.steps >= self._next_log:
            self._meter.read()
            self._next_log = self.position.steps + LOG_INTERVAL
        return step, metrics


def breakdown(ours: Ours, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds per step of all environments, by part: in the running loop, and each part by itself.

    In the loop the emulators run while the agent learns, so what they take there is only the waiting for them.
    """
    spent: dict[str, float] = {}
    agent, env = ours.agent, ours.env
    assert isinstance(agent, DQN)
    parts = {
        "inference": (agent, "act"),
        "update": (agent, "update"),
        "sampling": (agent.replay, "sample"),
        "storing": (agent, "observe"),
        "send": (env, "send"),
        "receive": (env, "recv"),
    }
    begin, steps = time.perf_counter(), 0
    with timed(parts, spent):
        while time.perf_counter() - begin < seconds / 2:
            step, _ = ours.step()
            steps += 1
    loop = {name: 1e3 * value / steps for name, value in spent.items()}
    whole = 1e3 * (time.perf_counter() - begin) / steps
    loop["learning"] = loop.pop("update") - loop["sampling"]
    loop["emulation"] = loop.pop("send") + loop.pop("receive")
    loop["the rest"] = whole - sum(loop.values())
    return {"loop": loop | {"all": whole}, "alone": _alone(ours, step, seconds / 2)}


def _alone(ours: Ours, step: Step, seconds: float) -> dict[str, float]:
    """Each part repeated by itself, in milliseconds per step of all environments."""
    agent, env, config = ours.agent, ours.env, ours.agent.config
    inputs, share = Inputs(torch.from_numpy(step.next_obs)[None]), seconds / 4
    action = np.zeros(env.spec.num_envs, np.int64)
    updates = env.spec.num_envs * config.updates_per_interval // config.update_interval

    def emulate() -> None:
        env.send(action)
        env.recv()

    def sample() -> None:
        agent.replay.sample(updates * config.batch_size, config.n_step, config.discount)

    def learn() -> None:
        agent.observe(step)
        agent.update()

    milliseconds = {
        "emulation": _milliseconds(emulate, share),
        "inference": _milliseconds(lambda: agent.act(inputs, (), None, explore=True), share),
        "sampling": _milliseconds(sample, share),
        "learning": _milliseconds(learn, share),
    }
    milliseconds["storing"] = _milliseconds(lambda: agent.replay.add(step), share / 4)
    milliseconds["learning"] -= milliseconds["sampling"] + milliseconds["storing"]
    return milliseconds


def _milliseconds(function: Callable[[], Any], seconds: float) -> float:
    function()
    begin, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < seconds:
        function()
        count += 1
    return 1e3 * elapsed / count
