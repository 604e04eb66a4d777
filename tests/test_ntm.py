"""The neural Turing machine: its equations and its safety."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles_memory as oracles
import pytest
import torch
from saccade.encoders import ntm
from saccade.encoders.base import Inputs
from saccade.encoders.parts import addressing
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

VECTOR = ObservationSpec((5,))
LEAVES = ("memory", "weights", "vectors", "hidden", "cell")
B = 3


def random_state(net: ntm.NTM) -> tuple[Tensor, ...]:
    memory, weights, *rest = net.initial_state(B)
    return (torch.randn_like(memory), torch.rand_like(weights).softmax(2), *(torch.randn_like(leaf) for leaf in rest))


def arrays(state: tuple[Tensor, ...], row: int) -> dict[str, np.ndarray]:
    return {name: leaf[row].detach().numpy() for name, leaf in zip(LEAVES, state, strict=False)}


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("heads", [(1, 1), (3, 1), (2, 3)])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_steps_are_those_of_the_equations(controller: str, heads: tuple[int, int], shift: int):
    config = ntm.Config(6, 4, *heads, shift=shift, controller=controller, hidden=7)
    for seed in range(3):
        torch.manual_seed(seed)
        net = ntm.build(config, VECTOR).double().eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_(0, 0.7)
        weights = {name: parameter.detach().numpy() for name, parameter in net.named_parameters()}
        x = torch.randn(4, B, 5, dtype=torch.float64)
        state = random_state(net)
        theirs = [arrays(state, row) for row in range(B)]
        for t in range(len(x)):
            projected = net.controller.project(x[t])  # the reader would round to float32
            features, state = net.step(projected, state, net.products(1))
            for row in range(B):
                expected, theirs[row] = oracles.ntm_step(weights, x[t, row].numpy(), theirs[row], *heads)
                np.testing.assert_allclose(features[row].detach(), expected, rtol=1e-9, atol=1e-12)
                ours = arrays(state, row)
                assert ours.keys() == theirs[row].keys()
                for name, value in ours.items():
                    np.testing.assert_allclose(value, theirs[row][name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("slots", "reach"), [(7, 3), (3, 2), (2, 5), (1, 1)])
def test_a_shift_is_a_circular_convolution_however_far(slots: int, reach: int):
    torch.manual_seed(0)
    weights, shifts = torch.rand(2, 3, slots), torch.rand(2, 3, 2 * reach + 1)
    expected = torch.zeros(2, 3, slots)
    for place in range(slots):
        for number in range(2 * reach + 1):
            expected[:, :, (place + number - reach) % slots] += weights[:, :, place] * shifts[:, :, number]
    torch.testing.assert_close(addressing.shift(weights, shifts), expected)


def test_a_shift_moves_round_the_circle():
    weights = torch.eye(5)[None, [0, 4]]
    on = torch.tensor([0.0, 0.0, 1.0]).expand(1, 2, 3)
    torch.testing.assert_close(addressing.shift(weights, on), torch.eye(5)[None, [1, 0]])
    torch.testing.assert_close(addressing.shift(weights, on.flip(2)), torch.eye(5)[None, [4, 3]])
    half = torch.tensor([[[0.0, 0.5, 0.5]]])
    torch.testing.assert_close(addressing.shift(weights[:, :1], half), torch.tensor([[[0.5, 0.5, 0, 0, 0]]]))


def test_sharpening_by_hand():
    """.6 and .3 squared are .36 and .09, with .1 squared .01: shares 36/46, 9/46, 1/46."""
    sharp = addressing.sharpen(torch.tensor([[[0.6, 0.3, 0.1]]]), torch.tensor([[2.0]]))
    torch.testing.assert_close(sharp, torch.tensor([[[36 / 46, 9 / 46, 1 / 46]]]))
    nothing = torch.zeros(1, 1, 3, requires_grad=True)
    powers = torch.tensor([[1.5]], requires_grad=True)
    addressing.sharpen(nothing, powers).sum().backward()
    assert nothing.grad is not None
    assert powers.grad is not None
    assert nothing.grad.isfinite().all()
    assert powers.grad.isfinite().all()


def test_gradients_of_writing_and_moving():
    torch.manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64).requires_grad_()

    assert torch.autograd.gradcheck(addressing.shift, (leaf(2, 2, 5), leaf(2, 2, 3)))
    assert torch.autograd.gradcheck(addressing.shift, (leaf(2, 2, 9), leaf(2, 2, 7)))
    assert torch.autograd.gradcheck(
        addressing.erase_and_add, (leaf(2, 4, 3), leaf(2, 2, 4), leaf(2, 2, 3), leaf(2, 2, 3))
    )


def test_finite_after_many_steps_of_extreme_input():
    torch.manual_seed(0)
    net = ntm.build(ntm.Config(slots=4, width=3, hidden=4), VECTOR).eval()
    with torch.no_grad():
        net.interface.weight.mul_(1000)
        state = net.initial_state(2)
        for scale in (1e6, -1e6, 1e-30, 1e30):
            features, state = net(Inputs(torch.randn(250, 2, 5) * scale), state)
            assert all(tensor.isfinite().all() for tensor in (features, *state))
    torch.testing.assert_close(state[1].sum(2), torch.ones(2, 2))


def test_more_slots_without_training_anew():
    few = ntm.build(ntm.Config(), VECTOR).eval()
    more = ntm.build(ntm.Config(slots=100), VECTOR).eval()
    more.load_state_dict(few.state_dict())
    features, state = more(Inputs(torch.randn(20, B, 5)), more.initial_state(B))
    assert features.isfinite().all()
    assert state[0].shape == (B, 100, 16)


def test_memory_stays_float32_under_autocast():
    net = ntm.build(ntm.Config(), VECTOR)
    with torch.autocast("cpu", torch.bfloat16):
        features, state = net(Inputs(torch.randn(3, B, 5)), net.initial_state(B))
    assert {tensor.dtype for tensor in (features, *state)} == {torch.float32}
    features.sum().backward()


def test_record_holds_what_the_heads_did():
    net, record = ntm.build(ntm.Config(read_heads=2, slots=6), VECTOR), {}
    _, state = net(Inputs(torch.randn(7, B, 5)), net.initial_state(B), record=record)
    shapes = {name: tuple(torch.stack(steps).shape) for name, steps in record.items()}
    assert shapes == {
        "write_weights": (7, B, 1, 6),
        "read_weights": (7, B, 2, 6),
        "gates": (7, B, 3),
        "shifts": (7, B, 3, 3),
        "powers": (7, B, 3),
    }
    torch.testing.assert_close(record["write_weights"][-1], state[1][:, 2:].detach())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"write_heads": 0}, "write_heads"),
        ({"shift": -1}, "shift"),
        ({"clip": -1.0}, "clip"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        ntm.build(dataclasses.replace(ntm.Config(), **settings), VECTOR)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(SpecError, match="ntm"):
        ntm.build(ntm.Config(), ObservationSpec((3,), "int64"))
