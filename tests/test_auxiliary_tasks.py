"""Auxiliary tasks: targets and samples against slow ones; heads learn what can be known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rollouts import BOX, SPEC, random_steps
from saccade.agents.parts.auxiliary_tasks import AuxiliaryTasks, ValueReplay, Window, bootstrapped, known_transitions
from saccade.agents.parts.experience import Experience
from saccade.agents.parts.pixel_control import (
    DenseQ,
    FeatureControl,
    GridQ,
    PixelControl,
    control_loss,
)
from saccade.agents.parts.reward_prediction import RewardPrediction, accuracy, reward_class
from saccade.encoders.base import Trajectory
from saccade.envs.errors import SpecError
from saccade.envs.spec import ActionSpec, EnvSpec, ObservationSpec

IMAGES = EnvSpec("pictures", 3, ObservationSpec((2, 8, 8), "uint8", 0, 255, stack=2), ActionSpec(count=2))


def random_trajectory(steps: int = 6, batch: int = 5, actions: int = 3, seed: int = 0) -> Trajectory:
    """With ends, cuts, unknown transitions and first observations in all orders."""
    generator = torch.Generator().manual_seed(seed)

    def chance(share: float, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) < share

    return Trajectory(
        torch.randint(0, 256, (steps + 1, batch, 2, 8, 8), generator=generator, dtype=torch.uint8),
        torch.randint(0, actions, (steps, batch), generator=generator),
        torch.randn(steps, batch, generator=generator),
        (~chance(0.2, steps, batch)).float(),
        chance(0.2, steps + 1, batch),
        ~chance(0.2, steps, batch),
    )


# targets


def naive_return(reward, discount, value, known, t, b):
    """Follow one sequence step by step."""
    total, factor = 0.0, 1.0
    while True:
        total += factor * reward[t, b]
        factor *= discount[t, b]
        if t + 1 == len(reward) or not known[t + 1, b]:
            return total + factor * value[t, b]
        t += 1


def test_returns_end_with_what_is_known():
    batch = random_trajectory()
    known = known_transitions(batch)
    assert 0 < known.sum() < known.numel()
    value = torch.randn(6, 5)
    found = bootstrapped(batch.reward, 0.9 * batch.discount, value, known)
    for t, b in np.ndindex(6, 5):
        expected = naive_return(batch.reward, 0.9 * batch.discount, value, known, t, b)
        assert float(found[t, b]) == pytest.approx(float(expected), 1e-5)


@pytest.mark.parametrize("cells", [(2, 3), (4,)])
def test_control_learns_from_n_step_q_targets_of_every_cell(cells: tuple[int, ...]):
    batch = random_trajectory()
    known, discount = known_transitions(batch), 0.9 * batch.discount
    q, reward = torch.randn(7, 5, 3, *cells, requires_grad=True), torch.rand(6, 5, *cells)
    expected, gradient = 0.0, torch.zeros_like(q)
    for t, b in np.argwhere(known.numpy()):
        for cell in np.ndindex(cells):
            best = q.detach()[1:].amax(2)[(slice(None), slice(None), *cell)]
            target = naive_return(reward[(slice(None), slice(None), *cell)], discount, best, known, t, b)
            error = target - q.detach()[(t, b, batch.action[t, b], *cell)]
            expected += 0.5 * error**2 / known.sum()
            gradient[(t, b, batch.action[t, b], *cell)] -= error / known.sum()
    loss = control_loss(q, batch.action, reward, discount, known)
    loss.backward()
    torch.testing.assert_close(loss, torch.as_tensor(expected))
    torch.testing.assert_close(q.grad, gradient)


def test_value_replay_is_half_the_squared_error_in_units_of_the_values():
    batch = random_trajectory()
    known, scale = known_transitions(batch), torch.tensor(2.0)
    features = torch.randn(7, 5, 1, requires_grad=True)
    task = ValueReplay(lambda x: x.squeeze(-1), 6, 0.9, unit=lambda: scale, clip_rewards=True)
    (loss,) = task.losses(batch, features).values()
    value = features.detach().squeeze(-1)
    reward = batch.reward.clamp(-1, 1)
    errors = [
        naive_return(reward, 0.9 * batch.discount, value[1:], known, t, b) - value[t, b]
        for t, b in np.argwhere(known.numpy())
    ]
    assert loss.item() == pytest.approx(0.5 * float(torch.stack(errors).square().mean()) / 4, 1e-5)
    loss.backward()
    assert not features.grad[-1].any()  # what only bootstraps is no prediction


def test_without_known_transitions_there_is_nothing_to_learn():
    batch = random_trajectory(actions=2)._replace(mask=torch.zeros(6, 5, dtype=torch.bool))
    features = torch.randn(7, 5, 4)
    for task in (PixelControl(4, IMAGES, 6), ValueReplay(lambda x: x.mean(-1), 6, 0.9)):
        assert [loss.item() for loss in task.losses(batch, features).values()] == [0.0]


# heads


@pytest.mark.parametrize("cells", [(1, 1), (2, 2), (4, 1), (5, 3), (20, 20)])
def test_grids_of_every_size_are_dueling(cells: tuple[int, int]):
    head = GridQ(6, 3, cells)
    features = torch.randn(2, 4, 6)
    q = head(features)
    assert q.shape == (2, 4, 3, *cells)
    value = head.decode(head.map(features.flatten(0, 1)))[:, 0, : cells[0], : cells[1]].unflatten(0, (2, 4))
    torch.testing.assert_close(q.mean(2), value)
    torch.testing.assert_close(q[1, 2], head(features[1, 2]))


def test_dense_values_are_dueling():
    head = DenseQ(6, 3, 5)
    features = torch.randn(2, 4, 6)
    q = head(features)
    assert q.shape == (2, 4, 3, 5)
    torch.testing.assert_close(q.mean(2), head.layer(features)[..., :5])


def test_gradients_reach_every_parameter_and_the_features():
    perception = torch.nn.Conv2d(2, 4, 3)

    def perceive(obs: torch.Tensor) -> torch.Tensor:
        return perception(obs.flatten(0, 1).float()).unflatten(0, obs.shape[:2])

    tasks = {
        "pixel": PixelControl(7, IMAGES, 6),
        "map": FeatureControl(7, IMAGES, 6, perceive, (4, 6, 6)),
        "flat": FeatureControl(7, IMAGES, 6, lambda obs: perceive(obs).flatten(2), (144,)),
        "reward": RewardPrediction(7, history=6),
    }
    batch = random_trajectory(actions=2)
    for name, task in tasks.items():
        features = torch.randn(6 + task.window.remembers, 5, 7, requires_grad=True)
        (loss,) = task.losses(batch, features).values()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in task.parameters()), name
        assert features.grad.any(), name
    assert all(p.grad is None for p in perception.parameters())  # what is controlled is no means to it


def test_feature_control_is_paid_by_what_is_active_afterwards():
    """With a head that says 0: half the squared activation, summed over units."""
    task = FeatureControl(7, SPEC, 1, lambda obs: obs * 2, (2,))
    torch.nn.init.zeros_(task.q.layer.weight)
    torch.nn.init.zeros_(task.q.layer.bias)
    obs = torch.tensor([[[5.0, 5.0]], [[1.0, -3.0]]])
    no = torch.zeros(2, 1, dtype=torch.bool)
    batch = Trajectory(obs, torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1), torch.ones(1, 1), no, ~no[:1])
    assert task.losses(batch, torch.randn(2, 1, 7))["feature_control"].item() == 0.5 * (2**2 + 6**2)


def test_tasks_that_cannot_be_done():
    with pytest.raises(SpecError, match="needs images"):
        PixelControl(7, SPEC, 6)
    with pytest.raises(SpecError, match="discrete actions"):
        FeatureControl(7, BOX, 6, lambda obs: obs, (2,))


def test_equal_windows_are_shared_and_losses_weighted():
    tasks = AuxiliaryTasks(
        {"pixel_control": PixelControl(7, IMAGES, 6), "value_replay": ValueReplay(lambda x: x.mean(-1), 6, 0.9)},
        {"pixel_control": 0.5, "value_replay": 2.0, "of another": 1.0},
    )
    assert tasks.windows() == [Window(6)]
    total, losses = tasks.losses(Window(6), random_trajectory(actions=2), torch.randn(7, 5, 7))
    assert list(losses) == ["pixel_control", "value_replay"]
    torch.testing.assert_close(total, 0.5 * losses["pixel_control"] + 2 * losses["value_replay"])
    assert tasks.losses(Window(3), random_trajectory(3), torch.randn(4, 5, 7))[1] == {}


def test_classes_of_rewards():
    assert reward_class(torch.tensor([-2.0, -0.0, 0.0, 1e-3])).tolist() == [0, 1, 1, 2]


# learning


def train(task: torch.nn.Module, rounds: int, rate: float, losses) -> None:
    optimizer = torch.optim.Adam(task.parameters(), rate)
    for _ in range(rounds):
        optimizer.zero_grad()
        (loss,) = losses().values()
        loss.backward()
        optimizer.step()


def test_rewards_are_predicted_from_three_observations():
    """The reward is that of the first and the last of three random signs, where they agree: neither says it alone."""
    rng = np.random.default_rng(0)
    replay, task = Experience(6000, SPEC, 5), RewardPrediction(2)
    signs = rng.choice(np.float32([-1, 1]), (2001, 3, 2))
    for t, step in zip(range(2000), random_steps(2000), strict=True):
        first, last = signs[t - 2, :, 0], signs[t, :, 0]
        reward = np.where((t >= 2) & (first == last), last, 0).astype(np.float32)
        replay.add(
            step._replace(
                obs=signs[t],
                next_obs=signs[t + 1],
                reward=reward,
                reset=np.full(3, t == 0),
                terminated=np.zeros(3, bool),
                truncated=np.zeros(3, bool),
                valid=np.ones(3, bool),
            )
        )

    def losses() -> dict[str, torch.Tensor]:
        batch = replay.histories(64, 3)
        return task.losses(batch, batch.obs[:-1])

    train(task, 150, 1e-2, losses)
    test = replay.histories(1000, 3)
    with torch.no_grad():
        assert float(accuracy(task.logits(test, test.obs[:-1]), test.reward[-1])) > 0.95


@pytest.mark.parametrize("steps", [1, 4])
def test_control_learns_the_value_of_moving_a_pixel(steps: int):
    """Action 1 switches one pixel, action 0 does nothing, features tell nothing, others acted at random.

    The values are the fixed point of n-step Q-learning: with r for a switch, targets k steps from the end of a sequence
    are r_a + (γ + ... + γ^(k-1)) r / 2 + γ^k max q. With sequences of one step that is q* = r / (1 - γ) for action 1.
    """
    gamma, batch = 0.5, 64
    spec = replace(IMAGES, observation=ObservationSpec((1, 8, 8), "uint8", 0, 255))
    task = PixelControl(2, spec, steps, discount=gamma)
    generator = torch.Generator().manual_seed(0)
    features = torch.ones(steps + 1, batch, 2)

    def losses() -> dict[str, torch.Tensor]:
        action = torch.randint(0, 2, (steps, batch), generator=generator)
        obs = torch.zeros(steps + 1, batch, 1, 8, 8, dtype=torch.uint8)
        obs[1:, :, 0, 1, 6] = 255 * (action.cumsum(0) % 2)
        no = torch.zeros(steps + 1, batch, dtype=torch.bool)
        zeros = torch.zeros(steps, batch)
        return task.losses(Trajectory(obs, action, zeros, zeros + 1, no, ~no[1:]), features)

    train(task, 400, 3e-3, losses)
    r = 1 / 16
    more = np.mean([sum(gamma**j for j in range(1, k)) * r / 2 for k in range(1, steps + 1)])
    last = np.mean([gamma**k for k in range(1, steps + 1)])
    moving = (r + more) / (1 - last)
    expected = torch.zeros(2, 2, 2)  # [A, h, w]
    expected[:, 0, 1] = torch.tensor([moving - r, moving])
    if steps == 1:
        assert moving == pytest.approx(r / (1 - gamma))
    with torch.no_grad():
        torch.testing.assert_close(task.q(features[0, 0]), expected, atol=0.1 * r, rtol=0)
