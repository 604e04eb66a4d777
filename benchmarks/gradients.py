"""How fast gradients vanish or explode through time: a plain recurrent net beside its bound, and LSTM's escape."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.gradients, or saccade bench gradients")

import math
import statistics
from collections.abc import Callable, Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..encoders import find_encoder, make_encoder
from ..encoders.base import Inputs
from ..envs.spec import ObservationSpec
from ..training import device
from .parts.plan import BenchOptions
from .parts.report import Report, Table

kind = "vanishing gradients: |dh_T/dh_t| of a tanh net under its bound, and of LSTM with forget bias 0, 1 and 3"

SEEDS, STEPS, HIDDEN, INPUTS = 3, 100, 64, 16
SPECTRAL_NORMS = (0.5, 0.9, 1.0, 1.1, 1.5)
FORGET_BIASES = (0.0, 1.0, 3.0)
SHOWN = (1, 10, 50, STEPS)  # distances in the table

Step = Callable[[Tensor, Tensor], Tensor]  # states [R, H] and inputs [R, D] to the next states, row by row


def norms(step: Step, state: Tensor, x: Tensor, block: slice) -> np.ndarray:
    """Spectral norms of the derivative of the last state by the earlier ones, for distances 1 to T.

    Args:
        step: the recurrence; its rows do not see one another.
        state: float64 `[H]`, before the first step.
        x: float64 `[T, D]`.
        block: which part of the state is derived, and by which part.

    Returns:
        float64 `[T]`: element k is of the distance k + 1.
    """
    jacobians = []
    for now in x:
        jacobian, state = one_jacobian(step, state, now)
        jacobians.append(jacobian)
    product, found = torch.eye(len(state), dtype=torch.float64), []
    for jacobian in reversed(jacobians):
        product = product @ jacobian
        found.append(float(torch.linalg.matrix_norm(product[block, block], 2)))
    return np.array(found)


def one_jacobian(step: Step, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """`[H, H]`, the derivative of the next state by `state` `[H]`, and the next state. Row i of a batch gives row i."""
    rows = state.expand(len(state), -1).clone().requires_grad_()
    after = step(rows, x.expand(len(state), -1))
    (jacobian,) = torch.autograd.grad(after.diagonal().sum(), rows)
    return jacobian, after[0].detach()


def plain_net(spectral_norm: float, generator: torch.Generator) -> Step:
    """h_t = tanh(W h_tm1 + U x_t): W a random rotation times `spectral_norm`, so that every direction has that norm."""
    draw = torch.randn(HIDDEN, HIDDEN + INPUTS, generator=generator, dtype=torch.float64)
    w = spectral_norm * torch.linalg.qr(draw[:, :HIDDEN])[0]
    u = draw[:, HIDDEN:] * math.sqrt(2 / (HIDDEN + INPUTS))  # Glorot and Bengio 2010
    return lambda h, x: torch.tanh(h @ w.T + x @ u.T)


def lstm_net(forget_bias: float, seed: int) -> Step:
    """The encoder `lstm` as it begins; states hold output and cell, `[R, 2 * HIDDEN]`."""
    torch.manual_seed(seed)
    config = find_encoder("lstm").Config(hidden=HIDDEN, forget_bias=forget_bias)
    encoder = make_encoder("lstm", ObservationSpec((INPUTS,)), config)

    def step(state: Tensor, x: Tensor) -> Tensor:
        h, c = (part.float().unsqueeze(1) for part in state.chunk(2, 1))  # the encoder computes in float32
        _, (h, c) = encoder(Inputs(x.float().unsqueeze(0)), (h, c))
        return torch.cat([h.squeeze(1), c.squeeze(1)], 1).double()

    return step


def measure(options: BenchOptions) -> Report:
    """All nets on the same inputs, seed by seed. `--steps` is the length of the sequence."""
    device.choose(ObservationSpec((INPUTS,)), threads=options.threads or 1)
    seeds, steps = options.seeds or SEEDS, options.steps or STEPS
    plain: dict[float, list[np.ndarray]] = {norm: [] for norm in SPECTRAL_NORMS}
    lstm: dict[float, list[np.ndarray]] = {bias: [] for bias in FORGET_BIASES}
    for seed in range(seeds):
        x = torch.randn(steps, INPUTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for norm, found in plain.items():
            net = plain_net(norm, torch.Generator().manual_seed(1000 + seed))
            found.append(norms(net, torch.zeros(HIDDEN, dtype=torch.float64), x, slice(None)))
        for bias, found in lstm.items():
            start = torch.zeros(2 * HIDDEN, dtype=torch.float64)
            found.append(norms(lstm_net(bias, seed), start, x, slice(HIDDEN, None)))
    distance = np.arange(1, steps + 1)
    bounds = {norm: norm**distance for norm in SPECTRAL_NORMS}
    broken = [norm for norm, found in plain.items() if (np.array(found) > bounds[norm] * (1 + 1e-9)).any()]
    measured = {"tanh": _by_text(plain), "lstm": _by_text(lstm), "bound": _by_text(bounds)}
    return Report(
        [_table(plain, lstm, steps)],
        _notes(seeds),
        {"distance": distance, "measured": measured},
        {"gradients": _figure(plain, lstm)},
        [f"the bound does not hold at spectral norms {broken}"] if broken else [],
    )


def _by_text(found: Mapping[float, object]) -> dict[str, object]:
    return {f"{key:g}": value for key, value in found.items()}


def _median(curves: list[np.ndarray], place: int) -> float:
    return statistics.median(float(curve[place]) for curve in curves)


def _table(plain: dict[float, list[np.ndarray]], lstm: dict[float, list[np.ndarray]], steps: int) -> Table:
    shown = [distance for distance in SHOWN if distance <= steps]
    rows = []
    for norm, curves in plain.items():
        cells = (f"{_median(curves, d - 1):.2g} (≤ {norm**d:.2g})" for d in shown)
        rows.append((f"tanh, |W| = {norm:g}", *cells))
    for bias, curves in lstm.items():
        cells = (f"{_median(curves, d - 1):.2g}" for d in shown)
        rows.append((f"LSTM, forget bias {bias:g}", *cells))
    columns = ("", *(f"T - t = {distance}" for distance in shown))
    return Table("Spectral norm of dh_T/dh_t (tanh; in brackets its bound) and dc_T/dc_t (LSTM)", columns, rows)


def _figure(plain: dict[float, list[np.ndarray]], lstm: dict[float, list[np.ndarray]]) -> Figure:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, (norm, curves) in enumerate(plain.items()):
        distance = np.arange(1, len(curves[0]) + 1)
        left.plot(distance, norm**distance, color=f"C{index}", linestyle=":", linewidth=1.2)
        _draw(left, curves, f"C{index}", f"|W| = {norm:g}")
    for index, (bias, curves) in enumerate(lstm.items()):
        distance, gate = np.arange(1, len(curves[0]) + 1), 1 / (1 + math.exp(-bias))
        right.plot(distance, gate**distance, color=f"C{index}", linestyle=":", linewidth=1.2)
        _draw(right, curves, f"C{index}", f"forget bias {bias:g}")
    left.set(title="tanh net: dh_T/dh_t; dotted: the bound |W|^(T-t)", ylabel="spectral norm")
    right.set(title="LSTM: dc_T/dc_t; dotted: sigmoid(forget bias)^(T-t)")
    for axes in (left, right):
        axes.set(xlabel="T - t, steps", yscale="log", ylim=(1e-30, 1e10))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _draw(axes: Axes, curves: list[np.ndarray], colour: str, label: str) -> None:
    for number, curve in enumerate(curves):
        name = None if number else label
        axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, linewidth=1.4, label=name, alpha=0.9)


def _notes(seeds: int) -> list[str]:
    return [
        "The bound: |dh_T/dh_t| <= (|W| max f')^(T-t) with max tanh' = 1 (Bengio, Simard and Frasconi 1994; Pascanu, "
        "Mikolov and Bengio 2013, section 2.1). Below |W| = 1 a gradient must vanish; above 1 it may explode, and "
        "whether it does depends on how far the units are saturated.",
        f"{HIDDEN} units at their first weights, {INPUTS} standard normal inputs a step; the whole product of "
        f"the steps' derivatives, no estimate. {seeds} seeds, one line each; medians in the table. W is a random "
        "rotation times |W|; the LSTM is the encoder `lstm`, with all ways through gates and outputs counted.",
        "The straight way through an LSTM's cell is multiplied by the forget gate only (dotted: the gate at its bias). "
        "With a bias of 3, .95, what was seen 100 steps ago still has a gradient that can be learned from; that it is "
        "above the dotted line, and even above 1, is the work of the ways through outputs and gates.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("gradients")
