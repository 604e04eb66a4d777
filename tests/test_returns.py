"""Returns against hand numbers and a step-by-step second implementation."""

import numpy as np
import pytest
import torch
from saccade.agents.parts.returns import lambda_returns, n_step_returns


def naive_lambda(r, d, v, lam):
    """Backwards, one step at a time; after the last step the value."""
    out = np.zeros_like(r)
    following = v[-1]
    for t in reversed(range(len(r))):
        mixing = 0.0 if t == len(r) - 1 else lam[t]
        out[t] = r[t] + d[t] * ((1 - mixing) * v[t] + mixing * following)
        following = out[t]
    return out


def naive_n_step(r, d, v, n):
    out = np.zeros_like(r)
    for t in range(len(r)):
        weight, steps = np.ones_like(r[0]), min(n, len(r) - t)
        for k in range(steps):
            out[t] += weight * r[t + k]
            weight = weight * d[t + k]
        out[t] += weight * v[t + steps - 1]
    return out


def random_sequences(length, seed=0):
    rng = np.random.default_rng(seed)
    r, v = rng.normal(size=(2, length, 3))
    d = 0.9 * (rng.random((length, 3)) > 0.15)
    return r, d, v, rng.random((length, 3))


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_monte_carlo_by_hand():
    # 3 + .5 (2 + .5 (1 + .5 * 8)) = 5.25: cut off, so the last observation's value of 8 counts
    r, d, v = torch.tensor([3.0, 2.0, 1.0]), torch.full((3,), 0.5), torch.tensor([100.0, 100.0, 8.0])
    assert lambda_returns(r, d, v, 1.0).tolist() == [5.25, 4.5, 5.0]
    # terminated instead: the value does not matter
    d = torch.tensor([0.5, 0.5, 0.0])
    assert lambda_returns(r, d, v, 1.0).tolist() == [4.25, 2.5, 1.0]


def test_a_life_lost_cuts_the_return_and_the_episode_goes_on():
    r, d = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert lambda_returns(r, d, torch.zeros(4), 1.0).tolist() == [2.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 65])
def test_lambda_returns_match_the_recursion(length):
    r, d, v, lam = random_sequences(length)
    np.testing.assert_allclose(lambda_returns(*tensors(r, d, v, lam)), naive_lambda(r, d, v, lam), atol=1e-12)


def test_zero_lambda_bootstraps_at_the_end_of_a_padded_episode():
    r, d, v, _ = random_sequences(9)
    lam = np.ones_like(r)
    lam[4] = 0  # each column is an episode of five steps, then padding
    r[5:], d[5:] = 0, 0
    returns = lambda_returns(*tensors(r, d, v, lam)).numpy()
    np.testing.assert_allclose(returns[:5], naive_lambda(r[:5], d[:5], v[:5], np.ones((5, 3))), atol=1e-12)
    assert (returns[5:] == 0).all()


def test_a_long_undiscounted_return_is_exact():
    assert lambda_returns(torch.ones(1000), torch.ones(1000), torch.zeros(1000), 1.0)[0] == 1000


@pytest.mark.parametrize("n", [1, 2, 5, 12, 50])
def test_n_step_returns_match_the_sum(n):
    r, d, v, _ = random_sequences(12, seed=1)
    np.testing.assert_allclose(n_step_returns(*tensors(r, d, v), n), naive_n_step(r, d, v, n), atol=1e-12)


def test_n_step_returns_reach_between_one_step_and_monte_carlo():
    r, d, v, _ = random_sequences(12, seed=2)
    r, d, v = tensors(r, d, v)
    torch.testing.assert_close(n_step_returns(r, d, v, 1), lambda_returns(r, d, v, 0.0))
    torch.testing.assert_close(n_step_returns(r, d, v, 12), lambda_returns(r, d, v, 1.0))


def test_no_steps_to_sum_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        n_step_returns(torch.zeros(3), torch.zeros(3), torch.zeros(3), 0)
