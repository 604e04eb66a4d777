"""The loss of a language model's output layer, beside torch's own."""

from __future__ import annotations

import pytest
import torch
from saccade.training import next_token
from saccade.training.next_token import mean_nats
from torch.nn import functional as F


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    leaves = (torch.randn(11, 5, dtype=dtype), torch.randn(7, 5, dtype=dtype), torch.randn(7, dtype=dtype))
    return *(leaf.requires_grad_() for leaf in leaves), torch.randint(0, 7, (11,))


@pytest.mark.parametrize("at_once", [1, 28, 10_000])
def test_loss_and_gradients_are_torchs_however_many_rows_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(next_token, "LOGITS_AT_ONCE", at_once)
    features, weight, bias, target = inputs()
    loss = mean_nats(features, weight, bias, target)
    expected = F.cross_entropy(features @ weight.T + bias, target)
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(3 * loss, (features, weight, bias))
    torch.testing.assert_close(ours, torch.autograd.grad(3 * expected, (features, weight, bias)))


def test_extreme_logits_stay_finite():
    features, weight, bias, target = inputs(torch.float32)
    loss = mean_nats(features * 1e4, weight, bias, target)
    torch.testing.assert_close(loss, F.cross_entropy(features * 1e4 @ weight.T + bias, target))
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (features, weight, bias)))


def test_products_are_in_autocasts_type_and_a_tied_table_gets_both_gradients():
    features, weight, bias, target = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_nats(features.bfloat16(), weight, bias, target)
    assert loss.dtype == torch.float32
    exact = F.cross_entropy(features @ weight.T + bias, target)
    assert 0 < abs(loss.item() - exact.item()) < 0.05
    ours = torch.autograd.grad(loss, (features, weight, bias))
    for found, expected in zip(ours, torch.autograd.grad(exact, (features, weight, bias)), strict=True):
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0.1)
    table = weight.detach().requires_grad_()
    mean_nats(table[target], table, bias, target).backward()
    other = weight.detach().requires_grad_()
    F.cross_entropy(other[target] @ other.T + bias, target).backward()
    torch.testing.assert_close(table.grad, other.grad)


def test_nothing_is_kept_without_gradients():
    features, weight, bias, target = inputs()
    with torch.no_grad():
        assert not mean_nats(features, weight, bias, target).requires_grad
