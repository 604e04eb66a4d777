"""Soft attention over a map: one step against NumPy, where it learns to look, and how that is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.agents import make_agent
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.attention import Attention, Config
from saccade.encoders.base import Inputs, WithMemory, remembered
from saccade.envs import make_env
from saccade.envs.errors import SpecError, UserError
from saccade.envs.options import EnvOptions
from saccade.envs.spec import ObservationSpec
from saccade.training import gaze
from saccade.training.loop import Position

MAP = ObservationSpec((3, 2, 4))


def make(spec: ObservationSpec = MAP, **settings: int) -> Attention:
    torch.manual_seed(0)
    encoder = make_encoder("attention", spec, Config(**{"hidden": 5, "attention": 6} | settings))
    assert isinstance(encoder, Attention)
    return encoder


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("where", [False, True])
def test_one_step_is_the_papers(where: bool):
    encoder = make(where=where)
    p = {name: tensor.detach().double().numpy() for name, tensor in encoder.named_parameters()}
    maps, output, cell = torch.randn(1, 1, *MAP.shape), torch.randn(1, 5), torch.randn(1, 5)
    features, state = encoder(Inputs(maps), (output, cell))
    x, h, c = maps[0, 0].double().numpy(), output[0].double().numpy(), cell[0].double().numpy()
    places = [x[:, i, j] for i in range(2) for j in range(4)]
    energy = [
        p["energy.weight"][0] @ np.tanh(p["key.weight"] @ v + p["key.bias"] + p["query.weight"] @ h) for v in places
    ]
    shares = np.exp(energy) / np.exp(energy).sum()
    read = sum(share * v for share, v in zip(shares, places, strict=True))
    read = np.concatenate([read, shares]) if where else read
    gates = p["cell.weight_ih"] @ read + p["cell.bias_ih"] + p["cell.weight_hh"] @ h + p["cell.bias_hh"]
    allow, forget, candidate, out = np.split(gates, 4)
    c = sigmoid(forget) * c + sigmoid(allow) * np.tanh(candidate)
    h = sigmoid(out) * np.tanh(c)
    np.testing.assert_allclose(features[0, 0].detach(), h, atol=1e-5)
    np.testing.assert_allclose(state[0][0].detach(), h, atol=1e-5)
    np.testing.assert_allclose(state[1][0].detach(), c, atol=1e-5)
    np.testing.assert_allclose(encoder.look(maps[0], (output, cell))[0].detach().flatten(), shares, atol=1e-5)


def test_it_learns_to_look_where_the_answer_lies():
    """One place of eight is marked by its first channel; the number in its second is asked for."""
    encoder = make(hidden=8, attention=8)
    head, generator = torch.nn.Linear(8, 1), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.02)

    def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = torch.rand(64, 3, 8, generator=generator) * 2 - 1
        place = torch.randint(8, (64,), generator=generator)
        maps[:, 0] = torch.nn.functional.one_hot(place, 8)
        return maps.unflatten(2, (2, 4)), place, maps[torch.arange(64), 1, place]

    for _ in range(200):
        maps, place, answer = draw()
        told = head(encoder(Inputs(maps[None]), encoder.initial_state(64))[0])[0, :, 0]
        optimiser.zero_grad()
        (told - answer).square().mean().backward()
        optimiser.step()
    maps, place, _ = draw()
    shares = encoder.look(maps, encoder.initial_state(64)).flatten(1)
    assert shares[torch.arange(64), place].mean() > 0.9


@pytest.mark.parametrize("spec", [ObservationSpec((6,)), ObservationSpec((1, 84, 84), "uint8", 0, 255)])
def test_what_is_no_map_is_refused(spec: ObservationSpec):
    with pytest.raises(SpecError, match=r"--encoder conv --encoder\.hidden 0 --memory attention"):
        make(spec)


def test_sizes_that_make_no_sense():
    with pytest.raises(UserError, match="attention must be at least 1"):
        make(attention=0)


def test_what_is_looked_at_glows_and_the_rest_is_dark():
    frame = np.full((40, 80, 3), 200, np.uint8)
    drawn = gaze.draw(frame, np.array([[0.6, 0.4], [0.0, 0.0]], np.float32))
    assert drawn.shape == frame.shape
    assert drawn.dtype == np.uint8
    # 0.6 of four places is 2.4 times an even share
    glow = gaze.GLOW * (1 - 1 / 2.4)
    assert drawn[0, 0].tolist() == pytest.approx([(1 - glow) * 200 + glow * c for c in gaze.COLOUR], abs=1)
    assert drawn[-1, -1].tolist() == [int(200 * gaze.DIM)] * 3
    assert np.array_equal(gaze.draw(frame, np.full((2, 2), 0.25, np.float32)), frame)
    assert gaze.draw(frame, None) is frame


def test_an_agents_shares_are_those_of_its_memory_before_it_reads():
    torch.manual_seed(0)
    env = make_env("ALE/Breakout-v5", 2, EnvOptions(stack=1))
    conv = make_encoder("conv", env.spec.observation, find_encoder("conv").Config(hidden=0))
    encoder = WithMemory(conv, make_encoder("attention", remembered(conv), Config(hidden=8, attention=8)))
    agent = make_agent("drqn", env.spec, encoder)
    position = Position.begin(env, agent, env.reset(0))
    position.reset[:] = False
    position.state = tuple(torch.randn_like(leaf) for leaf in position.state)
    found = gaze.shares(agent, position)
    assert found is not None
    assert found.shape == (7, 7)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    maps = conv(Inputs(torch.from_numpy(position.obs[None])))[0][0]
    expected = encoder.memory.look(maps, position.state)[0].detach()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    env.close()
    world = make_env("diagnostic/recall", 2)
    plain = make_agent("drqn", world.spec, make_encoder("lstm", world.spec.observation))
    assert gaze.shares(plain, Position.begin(world, plain, world.reset(0))) is None
