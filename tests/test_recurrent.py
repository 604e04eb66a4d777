"""LSTM and GRU against one step written in NumPy, and sequences cut, padded and reversed against separate runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from saccade.encoders import make_encoder
from saccade.encoders.base import Inputs, State, WithMemory
from saccade.encoders.gru import Config as GruConfig
from saccade.encoders.lstm import Config as LstmConfig
from saccade.encoders.parts.pieces import cuts
from saccade.encoders.parts.recurrent import Recurrent
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

T, B, D, H = 7, 3, 4, 5
SPEC = ObservationSpec((D,))
NAMES = ("lstm", "gru")
CONFIGS = {"lstm": LstmConfig(hidden=H), "gru": GruConfig(hidden=H)}
both = pytest.mark.parametrize("name", NAMES)


def make(name: str, spec: ObservationSpec = SPEC, seed: int = 0, **changes: object) -> Recurrent:
    torch.manual_seed(seed)
    encoder = make_encoder(name, spec, dataclasses.replace(CONFIGS[name], **changes))  # type: ignore[arg-type]
    assert isinstance(encoder, Recurrent)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # no bias is 0
    return encoder.eval()


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def used(encoder: Recurrent, batch: int = B) -> State:
    return tuple(data(*leaf.shape, seed=3).tanh() for leaf in encoder.initial_state(batch))


def close(ours: object, theirs: object) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_step(name: str, x: np.ndarray, state: list[np.ndarray], weights: list[np.ndarray]) -> list[np.ndarray]:
    """One step of one layer, from the papers' equations; gates in PyTorch's order."""
    w, u, b, d = weights
    if name == "lstm":
        h, c = state
        i, f, g, o = np.split(x @ w.T + b + h @ u.T + d, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    (h,) = state
    (xr, xz, xn), (hr, hz, hn) = np.split(x @ w.T + b, 3, axis=1), np.split(h @ u.T + d, 3, axis=1)
    z = sigmoid(xz + hz)
    return [(1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h]


@both
@pytest.mark.parametrize("steps", [1, T])
def test_two_layers_are_the_papers_equations(name: str, steps: int):
    encoder = make(name, layers=2)
    x, start = data(steps, B, D), used(encoder)
    features, state = encoder(Inputs(x), start)
    weights = [[w.detach().double().numpy() for w in layer.parameters()] for layer in encoder.ahead]
    leaves = [[leaf[:, i].double().numpy() for leaf in start] for i in range(2)]
    for t in range(steps):
        leaves[0] = numpy_step(name, x[t].double().numpy(), leaves[0], weights[0])
        leaves[1] = numpy_step(name, leaves[0][0], leaves[1], weights[1])
        np.testing.assert_allclose(features[t].detach().numpy(), leaves[1][0], atol=1e-5)
    for j, leaf in enumerate(state):
        assert leaf.shape == (B, 2, H)
        np.testing.assert_allclose(leaf.detach().numpy(), np.stack([leaves[0][j], leaves[1][j]], 1), atol=1e-5)


@both
@pytest.mark.parametrize("learned", [False, True])
def test_resets_inside_are_separate_runs(name: str, learned: bool):
    encoder = make(name, layers=2, learned_state=learned)
    x, start, fresh = data(T, B, D), used(encoder), encoder.initial_state(B)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[2, 0] = reset[3, 0] = reset[5, 1] = True
    together, last = encoder(Inputs(x), start, reset)
    for row, bounds in enumerate([(0, 2, 3, T), (0, 5, T), (0, T)]):
        for i in range(len(bounds) - 1):
            first = tuple(leaf[row : row + 1] for leaf in (start if i == 0 else fresh))
            alone, state = encoder(Inputs(x[bounds[i] : bounds[i + 1], row : row + 1]), first)
            close(together[bounds[i] : bounds[i + 1], row : row + 1], alone)
        close([leaf[row : row + 1] for leaf in last], list(state))


@both
@pytest.mark.parametrize("way", ["padded", "packed"])
def test_rows_of_different_lengths_are_separate_runs(name: str, way: str, monkeypatch: pytest.MonkeyPatch):
    """By either way of reading padding: that of the CPU, and that of an accelerator, which runs here as well."""
    encoder = make(name, layers=2)
    if way == "packed":
        layers = {id(layer.all_weights[0][0]): layer for layer in encoder.ahead}
        monkeypatch.setattr(
            encoder, "_padded", lambda x, state, w, mask: encoder._packed(layers[id(w[0])], x, state, mask)
        )
    x, start, lengths = data(T, B, D), used(encoder), (T, 4, 0)
    mask = torch.arange(T).unsqueeze(1) < torch.tensor(lengths)
    together, last = encoder(Inputs(x, mask=mask), start)
    gradients = torch.autograd.grad(together[mask].sum() + sum(leaf.sum() for leaf in last), list(encoder.parameters()))
    total: Tensor | float = 0.0
    for row, length in enumerate(lengths):
        state = tuple(leaf[row : row + 1] for leaf in start)
        for t in range(length):
            alone, state = encoder(Inputs(x[t : t + 1, row : row + 1]), state)
            close(together[t : t + 1, row : row + 1], alone)
            total = total + alone.sum()
        close([leaf[row : row + 1] for leaf in last], list(state))
        total = total + sum(leaf.sum() for leaf in state)
    assert isinstance(total, Tensor)
    for ours, theirs in zip(gradients, torch.autograd.grad(total, list(encoder.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@both
def test_a_thousand_steps_of_padding_leave_the_state_exactly(name: str):
    encoder = make(name)
    x, mask = 100 * data(1002, B, D), torch.zeros(1002, B, dtype=torch.bool)
    mask[:2] = True
    _, padded = encoder(Inputs(x, mask=mask), used(encoder))
    _, plain = encoder(Inputs(x[:2]), used(encoder))
    torch.testing.assert_close(padded, plain, rtol=0, atol=1e-6)


@both
def test_gaps_and_resets_at_once(name: str):
    encoder = make(name, layers=2)
    generator = np.random.default_rng(0)
    x, start = data(T, B, D), used(encoder)
    for _ in range(5):
        mask, reset = (torch.from_numpy(generator.random((T, B)) < share) for share in (0.6, 0.2))
        together, last = encoder(Inputs(x, mask=mask), start, reset)
        state = start
        for t in range(T):
            alone, state = encoder(Inputs(x[t : t + 1], mask=mask[t : t + 1]), state, reset[t : t + 1])
            close(together[t][mask[t]], alone[0][mask[t]])
        close(last, state)


@both
def test_read_in_both_directions(name: str):
    """The backward layers over each episode's real steps, last first, as a unidirectional encoder would."""
    encoder = make(name, layers=2, bidirectional=True)
    assert not encoder.causal
    assert encoder.feature_shape == (2 * H,)
    assert encoder.initial_state(B) == ()
    x = data(T, B, D)
    mask, reset = torch.ones(T, B, dtype=torch.bool), torch.zeros(T, B, dtype=torch.bool)
    mask[5:, 0], mask[2, 1], reset[4, 1] = False, False, True  # row 0 ends early, row 1 has a gap and two episodes
    features, state = encoder(Inputs(x, mask=mask), (), reset)
    assert state == ()
    for row, steps in ((0, [0, 1, 2, 3, 4]), (1, [0, 1, 3]), (1, [4, 5, 6]), (2, list(range(T)))):
        y = x[steps, row : row + 1]
        for layer in range(2):
            ahead, back = one_layer(name, encoder.ahead[layer]), one_layer(name, encoder.back[layer])
            y = torch.cat([run(ahead, y), run(back, y.flip(0)).flip(0)], 2)
        close(features[steps, row : row + 1], y)
    close(encoder(Inputs(x))[0][:, 2], features[:, 2])


def one_layer(name: str, layer: torch.nn.Module) -> Recurrent:
    encoder = make(name, ObservationSpec((layer.get_parameter("weight_ih_l0").shape[1],)))
    encoder.ahead[0].load_state_dict(layer.state_dict())
    return encoder


def run(encoder: Recurrent, x: Tensor) -> Tensor:
    return torch.cat([encoder(Inputs(x[: t + 1]), encoder.initial_state(1))[0][-1:] for t in range(len(x))])


@both
def test_a_bidirectional_row_does_not_read_its_padding(name: str):
    encoder = make(name, bidirectional=True)
    x, mask = data(T, B, D), torch.ones(T, B, dtype=torch.bool)
    mask[4:, 1] = False
    features, _ = encoder(Inputs(x, mask=mask))
    x[4:, 1] = 9.0
    close(encoder(Inputs(x, mask=mask))[0][mask], features[mask])


def test_cuts_fall_before_resets_and_the_ends_of_gaps():
    reset, mask = torch.zeros(6, 2, dtype=torch.bool), torch.ones(6, 2, dtype=torch.bool)
    assert cuts(None, None, 6) == cuts(reset, mask, 6) == [0, 6]
    reset[0], reset[2, 1], mask[3:5, 0], mask[5, 1] = True, True, False, False
    assert cuts(reset, mask, 6) == [0, 2, 5, 6]
    assert cuts(reset, None, 6) == [0, 2, 6]
    assert cuts(reset[2:3], None, 1) == [0, 1]


@both
def test_dropout_is_for_training_and_may_hold_for_a_whole_sequence(name: str):
    encoder = make(name, layers=2, dropout=0.5, input_dropout=0.3, output_dropout=0.5, locked_dropout=True)
    x = data(T, B, D)
    close(encoder(Inputs(x), used(encoder))[0], encoder(Inputs(x), used(encoder))[0])
    features, _ = encoder.train()(Inputs(x), used(encoder))
    blank = features == 0
    assert blank.any()
    assert (blank == blank[:1]).all()  # the same units at every step
    free = make(name, output_dropout=0.5).train()(Inputs(x), used(make(name)))[0] == 0
    assert not (free == free[:1]).all()


def test_a_forget_gate_is_open_at_first():
    torch.manual_seed(0)
    encoder = make_encoder("lstm", SPEC, LstmConfig(hidden=H, layers=2, forget_bias=1.5))
    assert isinstance(encoder, Recurrent)
    for layer in encoder.ahead:
        bias = sum(layer.get_parameter(f"bias_{which}_l0") for which in ("ih", "hh"))
        assert bias.tolist() == [0.0] * H + [1.5] * H + [0.0] * 2 * H  # type: ignore[union-attr]
        for gate in layer.get_parameter("weight_hh_l0").chunk(4):
            close(gate @ gate.T, torch.eye(H))


@both
def test_bfloat16_is_near_float32_and_its_state_stays_float32(name: str):
    encoder = make(name, layers=2, hidden=16)
    x = data(20, B, D)
    mask, reset = torch.ones(20, B, dtype=torch.bool), torch.zeros(20, B, dtype=torch.bool)
    mask[15:, 0], reset[7, 1] = False, True
    plain, state = encoder(Inputs(x, mask=mask), used(encoder), reset)
    with torch.autocast("cpu", torch.bfloat16):
        rough, rough_state = encoder(Inputs(x, mask=mask), used(encoder), reset)
        rough.float().sum().backward()
    torch.testing.assert_close(rough.float()[mask], plain[mask], rtol=0, atol=0.03)
    assert all(leaf.dtype == torch.float32 for leaf in rough_state)
    torch.testing.assert_close(rough_state, state, rtol=0, atol=0.06)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in encoder.parameters())


@both
def test_sits_behind_any_perception(name: str):
    perception = make_encoder("mlp", SPEC)
    encoder = WithMemory(perception, make(name, ObservationSpec(perception.feature_shape)))
    assert encoder(Inputs(data(T, B, D)), encoder.initial_state(B))[0].shape == (T, B, H)


@both
@torch.no_grad()
def test_gates_keep_over_the_horizon_at_first(name: str):
    torch.manual_seed(0)
    encoder = make_encoder(name, SPEC, dataclasses.replace(CONFIGS[name], hidden=2000, horizon=50))
    layer = encoder.ahead[0]
    layer.weight_ih_l0.zero_()
    layer.weight_hh_l0.zero_()
    start = tuple(torch.full_like(leaf, 0.5) for leaf in encoder.initial_state(1))
    _, after = encoder(Inputs(torch.zeros(1, 1, D)), start)
    kept = (after[-1] / 0.5).flatten()  # of the cell, or of the output: the gate itself
    steps = kept / (1 - kept) + 1
    assert 1.9 < steps.min() < 2.2
    assert 49 < steps.max() < 50.1
    assert abs(float(steps.mean()) - 26) < 1  # uniform over 2..50
    layer.bias_ih_l0[2 * 2000 : 3 * 2000] = 20  # a candidate of 1, of which as much comes in as is not kept
    _, after = encoder(Inputs(torch.zeros(1, 1, D)), start)
    torch.testing.assert_close(after[-1].flatten(), 1 - kept / 2)


@both
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 0},
        {"layers": 0},
        {"horizon": 1},
        {"dropout": 1.0, "layers": 2},
        {"dropout": 0.5},
        {"input_dropout": -0.1},
    ],
)
def test_refuses_settings_that_make_no_sense(name: str, changes: dict[str, float]):
    with pytest.raises(UserError, match=name):
        make_encoder(name, SPEC, dataclasses.replace(CONFIGS[name], **changes))  # type: ignore[arg-type]
