"""What the tests of rollouts and of the agents that use them share: random steps, their episodes, two encoders, and
who acts in given steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from saccade.agents.parts.episodes import Episode
from saccade.encoders.base import Encoder, FeedForward, Inputs, keep_state, reset_state
from saccade.envs.base import Step
from saccade.envs.spec import ActionSpec, EnvSpec, ObservationSpec
from torch import nn

SPEC = EnvSpec("test", 3, ObservationSpec((2,), low=-1.0, high=1.0), ActionSpec(count=3))
BOX = replace(SPEC, action=ActionSpec(shape=(2,), low=(-2.0, 0.0), high=(2.0, 1.0)))


class Dense(FeedForward):
    """One hidden layer."""

    def __init__(self, size: int, units: int = 16):
        super().__init__()
        self.feature_shape = (units,)
        self.layer = nn.Linear(size, units)

    def encode(self, x):
        return torch.tanh(self.layer(x))


class Recurrent(Encoder):
    """A GRU that also reads the last action and reward, with a learned first state."""

    def __init__(self, size: int, units: int = 16):
        super().__init__()
        self.feature_shape = (units,)
        self.cell = nn.GRUCell(size + 2, units)
        self.start = nn.Parameter(torch.randn(units) * 0.1)

    def initial_state(self, batch_size):
        return (self.start.expand(batch_size, -1),)

    def forward(self, inputs, state=(), reset=None):
        features = []
        initial = self.initial_state(inputs.obs.shape[1])
        for t, x in enumerate(inputs.obs):
            state = reset_state(state, initial, None if reset is None else reset[t])
            read = torch.cat([x, inputs.last_action[t, :, None].float(), inputs.last_reward[t, :, None]], 1)
            new = (self.cell(read, *state),)
            features.append(new[0])
            state = keep_state(state, new, None if inputs.mask is None else inputs.mask[t])
        return torch.stack(features), state


def random_steps(
    count: int, num_envs: int = 3, seed: int = 0, spec: EnvSpec = SPEC, partial: bool = False
) -> Iterator[Step]:
    """Steps of environments whose episodes end at random; an ignored step follows some ends (next-step autoreset)."""
    rng = np.random.default_rng(seed)
    begins, ignored = np.ones(num_envs, bool), np.zeros(num_envs, bool)
    for _ in range(count):
        index = np.sort(rng.choice(num_envs, rng.integers(1, num_envs + 1), replace=False))
        index = index if partial else np.arange(num_envs)
        size = len(index)
        valid = ~ignored[index]
        terminated, truncated = (valid & (rng.random(size) < 0.1) for _ in range(2))
        if spec.action.is_discrete:
            action, extras = rng.integers(0, spec.action.count, size), {}
        else:
            action = rng.random((size, *spec.action.shape)).astype(np.float32)
            extras = {"choice": rng.normal(size=action.shape).astype(np.float32)}
        obs, next_obs = rng.normal(size=(2, size, 2)).astype(np.float32)
        reward = rng.normal(size=size).astype(np.float32)
        discount = 1 - terminated.astype(np.float32)
        reset = begins[index]
        yield Step(index, obs, action, extras, reward, terminated, truncated, discount, next_obs, reset, valid)
        ended = terminated | truncated
        begins[index] = ~valid | ended
        ignored[index] = ended & (rng.random(size) < 0.5)


def connected(count, seed=0, spec=SPEC):
    """Random steps whose observations follow from one another."""
    steps = list(random_steps(count, seed=seed, spec=spec))
    for before, after in itertools.pairwise(steps):
        after.obs[~after.reset] = before.next_obs[~after.reset]
    return steps


class Player:
    """Lets an agent act in given steps, as the loop does, and keeps what a memory would read."""

    def __init__(self, agent):
        self.agent, self.state = agent, agent.initial_state(3)
        self.last = np.zeros((3, *agent.spec.action.shape), np.float32), np.zeros(3, np.float32)

    def act(self, step):
        action, reward = (torch.from_numpy(x)[None] for x in self.last)
        inputs = Inputs(torch.from_numpy(step.obs)[None], action, reward)
        return self.agent.act(inputs, self.state, torch.from_numpy(step.reset)[None], explore=True)

    def play(self, steps):
        """The steps as they were observed: with the agent's own actions."""
        observed = []
        for step in steps:
            acted = self.act(step)
            step = step._replace(action=acted.action, extras=acted.extras)
            self.agent.observe(step)
            self.state = acted.state
            goes_on = ~(step.ended | ~step.valid)
            self.last = (step.action.T * goes_on).T.astype(np.float32), step.reward * goes_on
            observed.append(step)
        return observed


def naive_episodes(steps: Iterable[Step]) -> list[Episode]:
    """Episodes one by one, row by row; in the order of their beginnings."""
    rows, done, number = {}, [], itertools.count()
    for step in steps:
        for j, env in enumerate(step.env_index):
            if not step.valid[j]:
                continue
            _, parts = rows.setdefault(env, (next(number), []))
            choice = step.extras.get("choice", step.action)
            parts.append((step.obs[j], step.action[j], choice[j], step.reward[j], step.discount[j]))
            if step.ended[j]:
                begun, parts = rows.pop(env)
                obs, *others = (np.stack(column) for column in zip(*parts, strict=True))
                done.append((begun, Episode(np.concatenate([obs, step.next_obs[j][None]]), *others)))
    return [episode for _, episode in done]
