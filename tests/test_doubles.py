"""The four test doubles are real learners: their rules against hand numbers, and each learns something."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from doubles import BatchNormAutoencoder, MomentumContrast, PersistentRBM, TinyDNC, allocation
from saccade.encoders.base import FeedForward, Inputs
from saccade.envs.spec import ObservationSpec
from torch.nn import functional as F

SPEC = ObservationSpec((8,), low=0.0, high=1.0)


def low_rank_data(count: int) -> torch.Tensor:
    """Eight numbers in 0..1 that are made of two."""
    causes = torch.rand(count, 2)
    return torch.sigmoid(6 * (causes - 0.5) @ torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]))


def train(learner: FeedForward, steps: int, rate: float, binary: bool = False) -> None:
    optimizer = torch.optim.SGD if isinstance(learner, PersistentRBM) else torch.optim.Adam
    [stage] = learner.stages()
    optimiser = optimizer(stage.parameters, lr=rate)
    for _ in range(steps):
        x = low_rank_data(64)
        optimiser.zero_grad()
        sum(loss.mean() for loss in stage.loss({"x": x.round() if binary else x}).values()).backward()
        optimiser.step()
        learner.after_update()


def test_autoencoder_beats_the_mean():
    torch.manual_seed(0)
    learner = BatchNormAutoencoder(SPEC, code=2)
    train(learner, 400, 0.01)
    x = low_rank_data(500)
    error = (learner.eval().reconstruct(x) - x).square().sum(1).mean()
    assert error < 0.1 * (x - x.mean(0)).square().sum(1).mean()


def test_rbm_gradient_is_minus_the_contrastive_divergence():
    torch.manual_seed(0)
    learner = PersistentRBM(SPEC, hidden=3, chains=5)
    x = low_rank_data(7)
    learner.loss({"x": x})["free_energy"].backward()
    chains, weight, bias = (t.detach().numpy() for t in (learner.chains, learner.weight, learner.hidden_bias))

    def statistics(v: np.ndarray) -> np.ndarray:
        return np.mean([np.outer(row, 1 / (1 + np.exp(-(row @ weight + bias)))) for row in v], axis=0)

    expected = statistics(chains) - statistics(x.numpy())
    np.testing.assert_allclose(learner.weight.grad.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(learner.visible_bias.grad.numpy(), chains.mean(0) - x.numpy().mean(0), atol=1e-6)


def test_rbm_chains_come_to_look_like_the_data():
    torch.manual_seed(0)
    learner = PersistentRBM(SPEC, chains=64)
    train(learner, 600, 0.1, binary=True)
    samples = []
    for _ in range(50):
        learner.loss({"x": low_rank_data(2)})
        samples.append(learner.chains.clone())
    correlation = np.corrcoef(torch.cat(samples).numpy().T)
    together, apart = correlation[:4, :4][~np.eye(4, dtype=bool)], correlation[:4, 4:]
    assert together.mean() > 0.2 + abs(apart.mean())


def test_contrast_tells_observations_apart_and_its_copy_follows():
    torch.manual_seed(0)
    learner = MomentumContrast(SPEC)
    x = low_rank_data(32)
    before = learner.loss({"x": x})["contrast"].item()
    train(learner, 200, 0.01)
    assert learner.loss({"x": x})["contrast"].item() < 0.7 * before
    fast, slow = next(learner.query.parameters()), next(learner.key.parameters())
    gap = (fast - slow).detach().clone()
    learner.after_update()
    torch.testing.assert_close(fast - slow, gap * learner.momentum)


def test_allocation_by_hand():
    weights = allocation(torch.tensor([[1, 0.7, 0.2, 0.4]]))
    torch.testing.assert_close(weights, torch.tensor([[0, 0.024, 0.8, 0.12]]))


def test_link_remembers_the_order_of_writes():
    """Entry [i, j] of the link is near 1 when slot i was written right after slot j."""
    memory = TinyDNC(ObservationSpec((2,)))
    free, modes = 2 * memory.width + memory.heads + 3 * memory.width + 1, 3 * memory.heads
    with torch.no_grad():
        memory.interface.weight.zero_()
        memory.interface.bias.zero_()
        memory.interface.bias[free : free + memory.heads] = -20  # never free
        memory.interface.bias[free + memory.heads : -modes] = 20  # always write, always where nothing is written
    state = memory.initial_state(1)
    slots = []
    for _ in range(4):
        _, state = memory(Inputs(torch.zeros(1, 1, 2)), state)
        slots.append(int(state[3].argmax()))
        assert state[3].max() > 0.99
    assert len(set(slots)) == 4
    expected = torch.zeros(6, 6)
    expected[slots[1:], slots[:-1]] = 1
    torch.testing.assert_close(state[4][0], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("recurrent", [False, True])
def test_memory_recalls_what_forgetting_cannot(recurrent: bool):
    """A sign seen four steps earlier: the memory names it, and cannot when it is reset in between."""
    torch.manual_seed(0)
    memory, head = TinyDNC(ObservationSpec((1,))), torch.nn.Linear(12, 2)
    optimiser = torch.optim.Adam([*memory.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(150):
        sign = torch.randint(2, (32,))
        obs = torch.zeros(5, 32, 1)
        obs[0, :, 0] = 2 * sign - 1.0
        reset = torch.zeros(5, 32, dtype=torch.bool)
        reset[3] = not recurrent
        features, _ = memory(Inputs(obs), memory.initial_state(32), reset)
        loss = F.cross_entropy(head(features[-1]), sign)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.05 if recurrent else np.mean(losses[-10:]) > 0.6
