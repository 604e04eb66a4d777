"""The differentiable neural computer: its equations, its switches, its safety."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import oracles_memory as oracles
import pytest
import torch
import torch.nn.functional as F
from saccade.data import algorithmic
from saccade.encoders import dnc
from saccade.encoders.base import Inputs
from saccade.encoders.parts import addressing, links, memory_step, native
from saccade.encoders.parts.repeated import Repeated
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn

VECTOR = ObservationSpec((5,))
LEAVES = ("memory", "usage", "precedence", "write", "links", "read", "vectors", "hidden", "cell")
B = 3


def small(heads: int = 2, controller: str = "lstm", **switches: bool) -> dnc.DNC:
    config = dnc.Config(slots=6, width=4, read_heads=heads, controller=controller, hidden=7, **switches)
    return dnc.build(config, VECTOR).double().eval()


def lively(net: dnc.DNC, seed: int) -> dnc.DNC:
    """`net` with larger weights, so that gates and keys are far from indifferent."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.7)
    return net


def random_state(net: dnc.DNC) -> tuple[Tensor, ...]:
    """One such as training meets; in the initial one all slots are equal, and rounding says which comes first."""
    memory, usage, precedence, write, links, read, *rest = net.initial_state(B)
    weightings = [torch.rand_like(leaf).div(leaf.shape[-1]) for leaf in (precedence, write, links, read)]
    weightings[2] = weightings[2] * (1 - torch.eye(net.slots))
    return (torch.randn_like(memory), torch.rand_like(usage), *weightings, *(torch.randn_like(leaf) for leaf in rest))


def arrays(state: tuple[Tensor, ...], row: int) -> dict[str, np.ndarray]:
    return {name: leaf[row].detach().numpy() for name, leaf in zip(LEAVES, state, strict=False)}


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("switch", ["", "masked", "deallocate", "sharpen", "layer_norm", "all"])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
def test_steps_are_those_of_the_equations(
    controller: str, heads: int, switch: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
):
    if not compiled:
        monkeypatch.setattr(dnc, "native_step", lambda *tensors: None)
    names = ("masked", "deallocate", "sharpen", "layer_norm")
    switches = {name: switch in (name, "all") for name in names}
    for seed in range(3):
        net = lively(small(heads, controller, **switches), seed)
        x = torch.randn(4, B, 5, dtype=torch.float64)
        state = random_state(net)
        theirs = [arrays(state, row) for row in range(B)]
        weights = {name: parameter.detach().numpy() for name, parameter in net.named_parameters()}
        for t in range(len(x)):
            features, state = step(net, x[t], state)
            for row in range(B):
                expected, theirs[row] = oracles.dnc_step(weights, x[t, row].numpy(), theirs[row], switches)
                np.testing.assert_allclose(features[row].detach(), expected, rtol=1e-9, atol=1e-12)
                ours = arrays(state, row)
                assert ours.keys() == theirs[row].keys()
                for name, value in ours.items():
                    np.testing.assert_allclose(value, theirs[row][name], rtol=1e-9, atol=1e-12, err_msg=name)


def step(net: dnc.DNC, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    return net.step(net.controller.project(x), state, net.products(1))


def test_interface_size_of_the_paper():
    r, w = 4, 64
    assert sum(dnc.interface_sizes(dnc.Config(width=w, read_heads=r))) == r * w + 3 * w + 5 * r + 3 == 471
    masked = dnc.Config(width=w, read_heads=r, masked=True)
    assert sum(dnc.interface_sizes(masked)) == 471 + r * w + w
    sharp = dnc.Config(width=w, read_heads=r, sharpen=True)
    assert sum(dnc.interface_sizes(sharp)) == 471 + 2 * r


def test_the_worked_example_of_allocation():
    """Ascending: .2, .4, .7, 1. Slot 2: 1 - .2 = .8. Slot 3: .6 * .2 = .12. Slot 1: .3 * .2 * .4 = .024. Slot 0: 0."""
    usage = torch.tensor([[1.0, 0.7, 0.2, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(
        addressing.allocation(usage), torch.tensor([[0, 0.024, 0.8, 0.12]], dtype=torch.float64), atol=2e-6, rtol=0
    )
    np.testing.assert_allclose(oracles.allocation(usage[0].numpy(), floor=0), [0, 0.024, 0.8, 0.12], atol=1e-15)


def test_allocation_of_full_and_of_empty_memory():
    full = addressing.allocation(torch.ones(1, 5))
    torch.testing.assert_close(full, torch.zeros(1, 5))
    empty = addressing.allocation(torch.zeros(1, 5))
    torch.testing.assert_close(empty, torch.tensor([[1.0, 0, 0, 0, 0]]), atol=2e-6, rtol=0)


def test_gradient_of_allocation():
    torch.manual_seed(0)
    usage = torch.rand(2, 6, dtype=torch.float64).mul(0.9).add(0.05).requires_grad_()
    assert torch.autograd.gradcheck(addressing.allocation, usage)
    zero = torch.zeros(2, 6, requires_grad=True)
    addressing.allocation(zero).square().sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


def test_gradients_of_links_and_look_up():
    torch.manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64).div(4).requires_grad_()

    assert torch.autograd.gradcheck(links.link_step, (leaf(2, 5, 5), leaf(2, 5), leaf(2, 5), leaf(2, 3, 5)))
    assert torch.autograd.gradcheck(addressing.by_content, (leaf(2, 5, 3), leaf(2, 2, 3), leaf(2, 2), leaf(2, 2, 3)))
    assert torch.autograd.gradcheck(addressing.sharpen, (leaf(2, 2, 5), leaf(2, 2) + 1.5))


@pytest.mark.parametrize("heads", [1, 3])
def test_step_of_the_links_is_the_plain_one(heads: int):
    torch.manual_seed(heads)
    shapes = ((2, 5, 5), (2, 5), (2, 5), (2, heads, 5))
    leaves = [torch.rand(*shape, dtype=torch.float64).div(4).requires_grad_() for shape in shapes]
    new = addressing.update_links(*leaves[:3])
    expected = (new, *addressing.follow(new, leaves[3]))
    ours = links.link_step(*leaves)
    torch.testing.assert_close(ours, expected)
    slopes = [torch.randn_like(tensor) for tensor in ours]
    torch.testing.assert_close(torch.autograd.grad(ours, leaves, slopes), torch.autograd.grad(expected, leaves, slopes))


COMPILED = pytest.mark.skipif(native.load(memory_step.SOURCE) is None, reason="there is no C++ compiler")


@COMPILED
@pytest.mark.parametrize("heads", [1, 2, 7])
@pytest.mark.parametrize("switches", range(8))
def test_compiled_step_is_that_of_torch(heads: int, switches: int):
    """Values and gradients by everything, for every combination of the switches of 2019."""
    names = ("masked", "deallocate", "sharpen")
    net = small(heads, **{name: bool(switches & 1 << k) for k, name in enumerate(names)})
    torch.manual_seed(heads)
    state = random_state(net)[:6]
    leaves = [leaf.requires_grad_() for leaf in (torch.randn(B, sum(net.sizes), dtype=torch.float64), *state)]
    expected = net.remember(leaves[0], *state[:6])
    library = memory_step.native_step(*leaves)
    ours = memory_step.memory_step(library, leaves[0], state, switches)
    torch.testing.assert_close(ours, expected)
    slopes = [torch.randn_like(tensor) for tensor in ours]
    torch.testing.assert_close(
        *(torch.autograd.grad(out, leaves, slopes, retain_graph=True) for out in (ours, expected))
    )
    for used in range(7):  # of some outputs nothing may be asked, and the first links need no gradient
        some, others = ([tensors[used].square().sum()] for tensors in (ours, expected))
        kept = [leaf for k, leaf in enumerate(leaves) if k != 5]
        pairs = (torch.autograd.grad(loss, kept, retain_graph=True, allow_unused=True) for loss in (some, others))
        for our, their in zip(*pairs, strict=True):
            torch.testing.assert_close(our, torch.zeros_like(our) if their is None else their)


@COMPILED
@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_step_at_the_size_of_the_paper(threads: int):
    torch.manual_seed(0)
    net = dnc.build(dnc.Config(slots=256, width=64, read_heads=4, hidden=8), VECTOR)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        state = random_state(net)[:6]
        vector = torch.randn(B, sum(net.sizes), requires_grad=True)
        results = memory_step.memory_step(memory_step.native_step(vector), vector, state, 0)
        expected = net.remember(vector, *state[:6])
        torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-5)
        gradients = [torch.autograd.grad(out[6].square().sum(), vector)[0] for out in (results, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    finally:
        torch.set_num_threads(before)


def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert native.load("int nothing;") is None
    monkeypatch.undo()
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.load("int nothing_either;") is None


def test_gradient_of_a_matrix_used_at_every_step():
    """Of all steps; of some of them after others were asked for alone; and of the last ones only."""
    torch.manual_seed(0)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(product: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        results = [torch.zeros(2, 3, dtype=torch.float64)]
        for step in x:
            results.append(product(bias, product(step, results[-1]).tanh()))
        return results[1:]

    ours, theirs = run(Repeated(weight, 8)), run(lambda addend, y: addend + y @ weight.t())
    for wanted, leaves in ((3, [weight, bias, x]), (3, [x]), (1, [weight, bias]), (3, [weight])):
        pair = (torch.autograd.grad(out[wanted].sum(), leaves, retain_graph=True) for out in (ours, theirs))
        torch.testing.assert_close(*pair)
    some = (torch.autograd.grad(out[3].square().sum(), [weight], retain_graph=True) for out in (ours, theirs))
    torch.testing.assert_close(*some)


def test_links_follow_the_order_of_writing():
    """Slots 0, 2, 1 written one after the other, each wholly: forward from 0 is 2, backward from 1 is 2."""
    order, precedence = torch.zeros(1, 4, 4), torch.zeros(1, 4)
    for slot in (0, 2, 1):
        write = torch.eye(4)[[slot]]
        order = addressing.update_links(order, write, precedence)
        precedence = addressing.update_precedence(precedence, write)
    forward, backward = addressing.follow(order, torch.eye(4)[None, [0, 1]])
    torch.testing.assert_close(forward[0, 0], torch.eye(4)[2])
    torch.testing.assert_close(backward[0, 1], torch.eye(4)[2])
    torch.testing.assert_close(backward[0, 0], torch.zeros(4))


def test_masks_leave_numbers_out_of_the_comparison():
    memory = torch.tensor([[[1.0, 0, 9], [0, 1.0, -9]]])
    key, strength = torch.tensor([[[1.0, 0, -9]]]), torch.tensor([[100.0]])
    plain = addressing.by_content(memory, key, strength)
    masked = addressing.by_content(memory, key, strength, torch.tensor([[[1.0, 1, 0]]]))
    assert plain.argmax() == 1
    torch.testing.assert_close(masked, torch.tensor([[[1.0, 0]]]))


def test_more_slots_without_training_anew():
    few = small()
    more = dnc.build(dataclasses.replace(few.config, slots=50), VECTOR).double().eval()
    more.load_state_dict(few.state_dict())
    x = torch.randn(20, B, 5, dtype=torch.float64)
    features, state = more(Inputs(x), more.initial_state(B))
    assert features.isfinite().all()
    assert state[0].shape == (B, 50, 4)
    few.slots = 50  # and so does the very same net
    torch.testing.assert_close(few(Inputs(x), few.initial_state(B)), (features, state))


def test_a_trained_net_answers_through_more_slots_and_remembers_more():
    """Copying 1 to 4 vectors through 12 slots is learned in some seconds; with 24, untrained, it copies 16."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    spec = ObservationSpec((9,), "float32", 0, 1)
    config = dnc.Config(slots=12, width=10, hidden=32, controller="feedforward")
    few, head = dnc.build(config, spec), nn.Linear(32 + 10, 8)
    parameters = [*few.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 3e-3, betas=(0.9, 0.95))

    def answer(net: dnc.DNC, count: int, length: int) -> tuple[Tensor, Tensor]:
        """Logits and bits `[length, count, 8]` of what is to be told."""
        made = algorithmic.copy(random, np.full(count, length))
        x, target = (part.unflatten(0, (count, -1)).transpose(0, 1).float() for part in (made.x, made.target))
        features, _ = net(Inputs(x), net.initial_state(count))
        return head(features)[length + 1 :], target[length + 1 :]

    for _ in range(1500):
        loss = F.binary_cross_entropy_with_logits(*answer(few, 16, int(random.integers(1, 5))))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    more = dnc.build(dataclasses.replace(config, slots=24), spec)
    more.load_state_dict(few.state_dict())

    @torch.no_grad()
    def wrong(net: dnc.DNC, length: int) -> float:
        logits, bits = answer(net, 200, length)
        return ((logits > 0) != (bits > 0)).float().mean().item()

    assert wrong(few, 4) < 0.01
    assert wrong(few, 16) > 0.15
    assert max(wrong(more, length) for length in (4, 8, 16)) < 0.05  # three seeds: .007, .016, .002


ALL = {"masked": True, "deallocate": True, "sharpen": True, "layer_norm": True}


@pytest.mark.parametrize(("switches", "steps"), [({}, 10_000), (ALL, 2_000)])
def test_finite_after_ten_thousand_steps_of_extreme_input(switches: dict[str, bool], steps: int):
    torch.manual_seed(0)
    config = dnc.Config(slots=4, width=3, read_heads=1, hidden=4, **switches)
    net = dnc.build(config, VECTOR).eval()
    with torch.no_grad():
        net.interface.weight.mul_(1000)
        state = net.initial_state(2)
        for scale in (1e6, -1e6, 1e-30, 1e30):
            x = torch.randn(steps // 4, 2, 5) * scale
            features, state = net(Inputs(x), state)
            assert all(tensor.isfinite().all() for tensor in (features, *state))
    usage, order = state[1], state[4]
    assert usage.min() >= 0
    assert usage.max() <= 1.0001
    assert order.sum(1).max() <= 1.001
    assert order.sum(2).max() <= 1.001


def test_gradients_are_finite_after_extreme_input():
    torch.manual_seed(0)
    net = dnc.build(dnc.Config(slots=4, width=3, hidden=4, masked=True, sharpen=True), VECTOR)
    x = torch.randn(30, 2, 5) * torch.tensor([1e6, 0.0]).view(1, 2, 1)
    net(Inputs(x), net.initial_state(2))[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_memory_stays_float32_under_autocast():
    net = dnc.build(dnc.Config(), VECTOR)
    with torch.autocast("cpu", torch.bfloat16):
        features, state = net(Inputs(torch.randn(3, B, 5)), net.initial_state(B))
    assert {tensor.dtype for tensor in (features, *state)} == {torch.float32}
    features.sum().backward()


def test_bypass_dropout_touches_the_controller_only():
    net = dnc.build(dnc.Config(bypass_dropout=0.5, width=3, hidden=40), VECTOR)
    x = Inputs(torch.randn(6, B, 5))
    dropped, kept = net.train()(x, net.initial_state(B))[0], net.eval()(x, net.initial_state(B))[0]
    torch.testing.assert_close(dropped[..., 40:], kept[..., 40:])
    zero = dropped[..., :40] == 0
    assert 0.3 < zero.float().mean() < 0.7
    torch.testing.assert_close(dropped[..., :40][~zero], 2 * kept[..., :40][~zero])


def test_record_holds_what_the_heads_did():
    net, record = small(heads=2), {}
    x = torch.randn(7, B, 5, dtype=torch.float64)
    _, state = net(Inputs(x), net.initial_state(B), record=record)
    shapes = {name: tuple(torch.stack(steps).shape) for name, steps in record.items()}
    assert shapes == {
        "write_weights": (7, B, 6),
        "read_weights": (7, B, 2, 6),
        "usage": (7, B, 6),
        "modes": (7, B, 2, 3),
        "allocation_gate": (7, B, 1),
        "write_gate": (7, B, 1),
        "free_gates": (7, B, 2),
    }
    torch.testing.assert_close(record["write_weights"][-1], state[3])
    assert not any(step.requires_grad for steps in record.values() for step in steps)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slots": 0}, "slots"),
        ({"controller": "gru"}, "known: lstm, feedforward"),
        ({"bypass_dropout": 1.0}, "bypass_dropout"),
        ({"clip": -1.0}, "clip"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        dnc.build(dataclasses.replace(dnc.Config(), **settings), VECTOR)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(SpecError, match="dnc"):
        dnc.build(dnc.Config(), ObservationSpec((3,), "int64"))
