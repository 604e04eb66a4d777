"""Every agent with every encoder that it takes, a perceptron and the test doubles: what the contract is tested on.

A new file in `agents/` is found here by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from doubles import BatchNormAutoencoder, MomentumContrast, PersistentRBM, TinyDNC
from playing import begin, steps_of
from saccade.agents import list_agents, make_agent
from saccade.agents.base import Agent, Metrics
from saccade.encoders import make_encoder
from saccade.encoders.base import Encoder, FeedForward, Group, Inputs, Trajectory, WithMemory
from saccade.envs import make_env
from saccade.envs.base import VectorEnv
from saccade.envs.errors import SpecError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn

ENVS = 4
DISCRETE, BOX = "diagnostic/recall-3", "diagnostic/box"
MakeEncoder = Callable[[ObservationSpec], Encoder]


def remembering(spec: ObservationSpec) -> Encoder:
    perception = BatchNormAutoencoder(spec)
    return WithMemory(perception, TinyDNC(ObservationSpec(perception.feature_shape)))


ENCODERS: dict[str, MakeEncoder] = {
    "mlp": lambda spec: make_encoder("mlp", spec),
    "autoencoder": BatchNormAutoencoder,
    "rbm": PersistentRBM,
    "contrast": MomentumContrast,
    "dnc": TinyDNC,
    "autoencoder+dnc": remembering,
}


class Case(NamedTuple):
    """One agent, one encoder, one world."""

    agent: str
    encoder: MakeEncoder
    world: str

    def build(self, seed: int = 0, encoder: Encoder | None = None) -> tuple[Agent, VectorEnv]:
        torch.manual_seed(seed)
        env = make_env(self.world, ENVS)
        encoder = encoder or self.encoder(env.spec.observation)
        return make_agent(self.agent, env.spec, encoder, seed=seed), env


def plain_encoder(agent: str, spec: ObservationSpec) -> Encoder:
    """The first encoder that `agent` takes."""
    return next(case for case in PLAIN.values() if case.agent == agent).encoder(spec)


def takes(case: Case) -> bool:
    try:
        case.build()
    except SpecError:
        return False
    return True


CASES = {
    f"{agent}-{encoder}-{world.removeprefix('diagnostic/')}": case
    for agent in list_agents()
    for encoder, make in ENCODERS.items()
    for world in (DISCRETE, BOX)
    if takes(case := Case(agent, make, world))
}
# of each agent and world the first: with a perceptron, or with a memory where the agent takes nothing else
PLAIN = dict({(case.agent, case.world): (name, case) for name, case in reversed(CASES.items())}.values())
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
plain_case = pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN.keys())


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def inputs_for(env: VectorEnv, seed: int = 0) -> Inputs:
    """`[1, ENVS, ...]`, as the loop gives them."""
    action = env.spec.action
    return Inputs(
        torch.from_numpy(env.reset(seed))[None],
        torch.zeros(1, ENVS, *action.shape, dtype=torch.int64 if action.is_discrete else torch.float32),
        torch.zeros(1, ENVS),
    )


def first_update(agent: Agent, env: VectorEnv) -> Metrics:
    for _, metrics in steps_of(env, agent, begin(agent, env), rounds=2000):
        if metrics:
            return metrics
    raise AssertionError("no update in 2000 rounds")


class Watched(FeedForward):
    """A layer that counts what is done to it; its groups are a still one, a quick one and a frozen one."""

    window = 1

    def __init__(self, size: int):
        super().__init__()
        self.feature_shape = (8,)
        self.still, self.quick, self.frozen = nn.Linear(size, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.counts = {"augment": 0, "auxiliary": 0, "after_update": 0, "updates": 0}
        self._last = [parameter.detach().clone() for parameter in self.parameters()]
        self.learned: list[Tensor] = []

    def encode(self, x: Tensor) -> Tensor:
        return self.frozen(torch.tanh(self.quick(torch.tanh(self.still(x.flatten(1))))))

    def augment(self, obs: Tensor) -> Tensor:
        self.counts["augment"] += 1
        return obs + 5

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        self.counts["auxiliary"] += 1
        assert len(batch.obs) == len(batch.reset) == len(batch.action) + 1
        assert len(batch.action) >= self.window
        assert len(batch.action) == len(batch.reward) == len(batch.discount) == len(batch.mask)
        self.learned.append(batch.obs[:-1][batch.mask])
        return {"zero": 0 * self.quick.weight.sum()}

    def parameter_groups(self) -> list[Group]:
        return [
            Group("still", list(self.still.parameters()), learning_rate_factor=0.0),
            Group("quick", list(self.quick.parameters())),
            Group("frozen", list(self.frozen.parameters())),
        ]

    def after_update(self) -> None:
        self.counts["after_update"] += 1
        now = [parameter.detach().clone() for parameter in self.parameters()]
        self.counts["updates"] += any(not torch.equal(a, b) for a, b in zip(now, self._last, strict=True))
        self._last = now


def watched(case: Case) -> tuple[Watched, Encoder]:
    """The layer, and an encoder with it that the agent of `case` takes."""
    spec = make_env(case.world, ENVS).spec.observation
    layer = Watched(spec.size)
    if not case.encoder(spec).initial_state(1):
        return layer, layer
    return layer, WithMemory(layer, TinyDNC(ObservationSpec(layer.feature_shape)))


def trajectory(env: VectorEnv) -> Trajectory:
    obs = torch.from_numpy(env.reset(0)).expand(3, *env.reset(0).shape)
    action = torch.zeros(2, ENVS, *env.spec.action.shape, dtype=torch.int64 if env.spec.action.is_discrete else None)
    no = torch.zeros(3, ENVS, dtype=torch.bool)
    return Trajectory(obs, action, torch.zeros(2, ENVS), torch.ones(2, ENVS), no, ~no[:2])
