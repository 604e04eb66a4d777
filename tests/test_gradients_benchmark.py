"""Norms of derivatives through time: against autograd through the whole sequence, closed forms and the bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.benchmarks import BenchOptions, gradients
from torch import Tensor


def test_the_product_of_steps_is_the_derivative_through_all_of_them():
    net = gradients.plain_net(1.1, torch.Generator().manual_seed(0))
    x = torch.randn(6, gradients.INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = torch.zeros(gradients.HIDDEN, dtype=torch.float64)
    found = gradients.norms(net, start, x, slice(None))

    def last(h: Tensor, first: int) -> Tensor:
        for now in x[first:]:
            h = net(h.unsqueeze(0), now.unsqueeze(0))[0]
        return h

    h = start
    for first in range(6):
        whole = torch.autograd.functional.jacobian(lambda h, first=first: last(h, first), h)
        assert found[5 - first] == pytest.approx(float(torch.linalg.matrix_norm(whole, 2)), rel=1e-9)
        h = net(h.unsqueeze(0), x[first].unsqueeze(0))[0]


def test_without_input_a_rotation_is_as_large_as_its_bound():
    """At h = 0 the derivative of tanh is 1, so nothing is lost: the norm is |W|^(T-t)."""
    for norm in (0.5, 1.5):
        net = gradients.plain_net(norm, torch.Generator().manual_seed(3))
        zeros = torch.zeros(5, gradients.INPUTS, dtype=torch.float64)
        found = gradients.norms(net, torch.zeros(gradients.HIDDEN, dtype=torch.float64), zeros, slice(None))
        np.testing.assert_allclose(found, norm ** np.arange(1, 6))


def test_a_cell_that_only_forgets_keeps_what_its_gate_lets_through():
    """With nothing read and nothing told, dc_T/dc_t of gates that see nothing is sigmoid(bias)^(T-t)."""

    def step(state: Tensor, x: Tensor) -> Tensor:
        h, c = state.chunk(2, 1)
        return torch.cat([h * 0, c * torch.sigmoid(torch.tensor(3.0, dtype=torch.float64))], 1)

    found = gradients.norms(step, torch.ones(8, dtype=torch.float64), torch.zeros(4, 1).double(), slice(4, None))
    np.testing.assert_allclose(found, (1 / (1 + np.exp(-3.0))) ** np.arange(1, 5))


def test_the_report():
    report = gradients.measure(BenchOptions(seeds=1, steps=20))
    assert not report.problems
    assert len(report.tables[0].rows) == len(gradients.SPECTRAL_NORMS) + len(gradients.FORGET_BIASES)
    assert list(report.figures) == ["gradients"]
    measured = report.data["measured"]
    for norm, (curve,) in measured["tanh"].items():
        assert (curve <= measured["bound"][norm] * (1 + 1e-9)).all()
    last = {bias: float(curves[0][-1]) for bias, curves in measured["lstm"].items()}
    assert last["0"] < last["1"] < last["3"]
    assert last["3"] > 100 * measured["bound"]["0.5"][-1]
