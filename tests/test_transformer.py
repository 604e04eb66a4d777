"""The transformer against attention written in NumPy, step after step, for one row after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saccade.encoders import make_encoder
from saccade.encoders.base import Inputs, State
from saccade.encoders.transformer import Config, Transformer, Window, rotate
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

T, B, D = 9, 3, 4
SPEC = ObservationSpec((D,))
SMALL = Config(width=8, heads=2, layers=2, context=3, feedforward=2)


def make(config: Config = SMALL) -> Transformer:
    torch.manual_seed(0)
    encoder = make_encoder("transformer", SPEC, config)
    assert isinstance(encoder, Transformer)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder.eval()


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(ours: object, theirs: object) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def some(share: float, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((T, B)) < share)


def normalised(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def turned(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary positions (Su et al. 2021, eq. 34), pair after pair."""
    after = np.empty_like(x)
    for i in range(0, len(x), 2):
        angle = position * 10_000.0 ** (-i / len(x))
        after[i] = x[i] * math.cos(angle) - x[i + 1] * math.sin(angle)
        after[i + 1] = x[i + 1] * math.cos(angle) + x[i] * math.sin(angle)
    return after


def naive_episode(x: np.ndarray, weights: dict[str, np.ndarray], config: Config) -> np.ndarray:
    """Features `[T, W]` of one episode without padding, `[T, D]`; every step looks at the last `context` and itself."""

    def dense(v: np.ndarray, name: str) -> np.ndarray:
        return v @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    stream, d = [dense(step, "first.0") for step in x], config.width // config.heads
    for layer in range(config.layers):
        block = f"blocks.{layer}"
        projected = [dense(normalised(h, weights, f"{block}.norms.0"), f"{block}.project") for h in stream]
        after = []
        for t, h in enumerate(stream):
            seen = range(max(0, t - config.context), t + 1)
            heads = []
            for first in range(0, config.width, d):
                q, k, v = (np.arange(first, first + d) + part * config.width for part in range(3))
                scores = [turned(projected[t][q], t) @ turned(projected[s][k], s) / math.sqrt(d) for s in seen]
                weight = np.exp(scores) / np.exp(scores).sum()
                heads.append(sum(w * projected[s][v] for w, s in zip(weight, seen, strict=True)))
            h = h + dense(np.concatenate(heads), f"{block}.out")
            units = gelu(dense(normalised(h, weights, f"{block}.norms.1"), f"{block}.dense.0"))
            after.append(h + dense(units, f"{block}.dense.2"))
        stream = after
    return np.stack([normalised(h, weights, "norm") for h in stream])


def naive(encoder: Transformer, x: Tensor) -> np.ndarray:
    weights = {name: value.double().numpy() for name, value in encoder.state_dict().items()}
    return naive_episode(x.double().numpy(), weights, encoder.config)


def single_steps(
    encoder: Transformer, x: Tensor, state: State, reset: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, State]:
    features = []
    for t in range(len(x)):
        inputs = Inputs(x[t : t + 1], mask=None if mask is None else mask[t : t + 1])
        y, state = encoder(inputs, state, None if reset is None else reset[t : t + 1])
        features.append(y)
    return torch.cat(features), state


@pytest.mark.parametrize("context", [1, 3, 20])
def test_attention_is_what_numpy_says(context: int):
    encoder = make(Config(width=8, heads=2, layers=2, context=context, feedforward=2))
    x = data(T, B, D)
    with torch.no_grad():
        features, _ = encoder(Inputs(x), encoder.initial_state(B))
    for row in range(B):
        np.testing.assert_allclose(features[:, row].numpy(), naive(encoder, x[:, row]), atol=1e-5)


def test_episodes_and_padding_are_what_numpy_says_of_the_real_steps_of_each():
    encoder = make()
    x, reset, mask = data(T, B, D), some(0.2, 1), some(0.7, 2)
    with torch.no_grad():
        features, _ = encoder(Inputs(x, mask=mask), encoder.initial_state(B), reset)
    episode = reset.cumsum(0)
    for row in range(B):
        for number in range(int(episode[-1, row]) + 1):
            steps = ((episode[:, row] == number) & mask[:, row]).nonzero().squeeze(1)
            if len(steps):
                np.testing.assert_allclose(features[steps, row].numpy(), naive(encoder, x[steps, row]), atol=1e-5)


@pytest.mark.parametrize("start", [0, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_many_steps_at_once_are_single_steps_whatever_is_remembered(start: int, seed: int):
    """From an empty, a partly filled and a full cache, with resets and gaps: features and state."""
    encoder = make()
    state = encoder.initial_state(B)
    if start:
        _, state = encoder(Inputs(data(start, B, D, seed=7)), state)
    x, reset, mask = data(T, B, D, seed=seed), some(0.2, seed), some(0.7, seed + 9)
    for resets, masks in ((None, None), (reset, None), (None, mask), (reset, mask)):
        together, last = encoder(Inputs(x, mask=masks), state, resets)
        alone, after = single_steps(encoder, x, state, resets, masks)
        real = torch.ones_like(mask) if masks is None else masks
        close(together[real], alone[real])
        close(last, after)


def test_a_sequence_in_two_parts_is_the_sequence():
    encoder = make()
    x = data(T, B, D)
    whole, last = encoder(Inputs(x), encoder.initial_state(B))
    for cut in (1, 2, 4, 8):
        first, state = encoder(Inputs(x[:cut]), encoder.initial_state(B))
        second, state = encoder(Inputs(x[cut:]), state)
        close(torch.cat([first, second]), whole)
        close(state, last)


def test_padding_at_the_end_costs_nothing_and_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    """The quick way, without a mask for the attention, is the slow one."""
    encoder = make(Config(width=8, heads=2, context=20))
    x, lengths = data(T, B, D), torch.tensor([T, 4, 0])
    mask = torch.arange(T).unsqueeze(1) < lengths
    windows, make_window = list[Window](), encoder._window
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "_window", lambda *given: windows.append(make_window(*given)) or windows[-1])
        together, last = encoder(Inputs(x, mask=mask), encoder.initial_state(B))
    assert [window.visible for window in windows] == [None]
    alone, after = single_steps(encoder, x, encoder.initial_state(B), mask=mask)
    close(together[mask], alone[mask])
    close(last, after)
    assert together.isfinite().all()


def test_a_step_sees_so_far_and_no_further():
    """With L layers the present step hears of L * context steps before it, and of none after it."""
    encoder = make()
    x = data(T, 1, D).requires_grad_()
    encoder(Inputs(x), encoder.initial_state(1))[0][7].sum().backward()
    assert x.grad is not None
    heard = x.grad.abs().sum((1, 2)) > 0
    assert heard.tolist() == [False] + [True] * 7 + [False]


def test_a_rotation_knows_distances_only():
    a, b, frequency = data(1, 1, 1, 6), data(1, 1, 1, 6, seed=1), torch.tensor([1.0, 0.1, 0.01])

    def product(i: int, j: int) -> Tensor:
        turns = (torch.polar(torch.ones(3), p * frequency).view(1, 1, 3) for p in (i, j))
        return (rotate(a, next(turns)) * rotate(b, next(turns))).sum()

    close(product(7, 3), product(104, 100))
    close(product(0, 0), (a * b).sum())
    assert abs(product(7, 3) - product(7, 4)) > 1e-3


def test_dropout_is_for_training():
    encoder = make(Config(width=8, heads=2, dropout=0.5))
    x, state = data(T, B, D), encoder.initial_state(B)
    close(encoder(Inputs(x), state)[0], encoder(Inputs(x), state)[0])
    encoder.train()
    assert not torch.allclose(encoder(Inputs(x), state)[0], encoder(Inputs(x), state)[0])


def test_bfloat16_is_near_float32_and_its_state_stays_float32():
    encoder = make()
    x, reset, mask = data(T, B, D), some(0.2, 1), some(0.7, 2)
    plain, _ = encoder(Inputs(x, mask=mask), encoder.initial_state(B), reset)
    with torch.autocast("cpu", torch.bfloat16):
        rough, state = encoder(Inputs(x, mask=mask), encoder.initial_state(B), reset)
        rough.float().square().sum().backward()
    torch.testing.assert_close(rough.float()[mask], plain[mask], rtol=0.05, atol=0.1)
    assert [leaf.dtype for leaf in state] == [torch.float32, torch.float32, torch.bool]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    "config", [Config(width=0), Config(heads=0), Config(context=0), Config(width=12, heads=4), Config(dropout=1.0)]
)
def test_refuses_settings_that_make_no_sense(config: Config):
    with pytest.raises(UserError, match="transformer"):
        make_encoder("transformer", SPEC, config)
