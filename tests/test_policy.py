"""Policy heads, their distributions, and the losses of policies."""

import math

import numpy as np
import pytest
import torch
from saccade.agents.parts.distributions import Categorical, CategoricalHead, Gaussian, GaussianHead
from saccade.agents.parts.policy_losses import entropy_loss, normalise, policy_gradient_loss, value_loss
from saccade.agents.parts.scaled_value import ScaledValue
from saccade.envs.spec import ActionSpec
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_categorical_by_hand():
    policy = Categorical(torch.tensor([1.0, 2.0, 1.0]).log().expand(4, 3))  # probabilities 1/4, 1/2, 1/4
    assert policy.mode().tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(policy.log_prob(torch.tensor([0, 1, 2, 1])).exp(), torch.tensor([0.25, 0.5, 0.25, 0.5]))
    torch.testing.assert_close(policy.entropy(), torch.full((4,), 1.5 * math.log(2)))


def test_categorical_samples_in_proportion():
    policy = Categorical(torch.tensor([0.1, 0.2, 0.7]).log().expand(100_000, 3))
    shares = torch.bincount(policy.sample(generator()), minlength=3) / 100_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.006, rtol=0)  # four standard errors


def test_categorical_matches_the_library():
    logits, choice = torch.randn(5, 3, 4, generator=generator()), torch.randint(4, (5, 3), generator=generator())
    ours, theirs = Categorical(logits), TorchCategorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(choice), theirs.log_prob(choice))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


def test_gaussian_matches_the_library():
    mean, log_std, choice = torch.randn(3, 5, 2, generator=generator())
    ours, theirs = Gaussian(mean, log_std), Normal(mean, log_std.exp())
    torch.testing.assert_close(ours.log_prob(choice), theirs.log_prob(choice).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    assert torch.equal(ours.mode(), mean)


def test_gaussian_samples_have_its_moments():
    policy = Gaussian(torch.full((100_000, 2), 3.0), torch.tensor([0.0, -1.0]).expand(100_000, 2))
    choice = policy.sample(generator())
    torch.testing.assert_close(choice.mean(0), torch.tensor([3.0, 3.0]), atol=0.013, rtol=0)
    torch.testing.assert_close(choice.std(0), torch.tensor([1.0, math.exp(-1)]), atol=0.01, rtol=0)


def test_sampling_repeats_from_the_generator_state():
    policy, source = Categorical(torch.zeros(50, 6)), generator()
    state = source.get_state()
    first = policy.sample(source)
    assert not torch.equal(first, policy.sample(source))
    source.set_state(state)
    assert torch.equal(first, policy.sample(source))


def gaussian_head(state_dependent_std=False, log_std=-0.5, action=None):
    action = action or ActionSpec(shape=(2,), low=(-2.0, 0.0), high=(2.0, 10.0))
    return GaussianHead(3, action, log_std, state_dependent_std, generator())


def test_choices_are_scaled_to_the_box_and_clipped_there():
    choice = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [-9.0, 9.0]])
    actions = gaussian_head().to_action(choice)
    assert actions.tolist() == [[-2, 0], [0, 5], [2, 10], [1, 7.5], [-2, 10]]


def test_a_side_without_bound_is_left_as_it_is():
    box = ActionSpec(shape=(3,), low=(-math.inf, -math.inf, 0.0), high=(math.inf, 4.0, math.inf))
    actions = gaussian_head(action=box).to_action(torch.tensor([[70.0, 70.0, 70.0], [-7.0, -7.0, -7.0]]))
    assert actions.tolist() == [[70, 4, 70], [-7, -7, 0]]


def test_actions_take_the_shape_of_the_box():
    box = ActionSpec(shape=(2, 3), low=(-1.0,) * 6, high=(1.0,) * 6)
    assert gaussian_head(action=box).to_action(torch.zeros(7, 6)).shape == (7, 2, 3)


@pytest.mark.parametrize("state_dependent_std", [False, True])
def test_first_policy_is_nearly_the_same_everywhere(state_dependent_std):
    policy = gaussian_head(state_dependent_std)(torch.randn(4, 5, 3, generator=generator()))
    torch.testing.assert_close(policy.mean, torch.zeros(4, 5, 2), atol=0.05, rtol=0)
    torch.testing.assert_close(policy.log_std, torch.full((4, 5, 2), -0.5), atol=0.06, rtol=0)
    logits = CategoricalHead(3, 4, generator())(torch.randn(5, 3, generator=generator())).logits
    torch.testing.assert_close(logits, torch.zeros(5, 4), atol=0.05, rtol=0)


def test_deviation_depends_on_the_state_only_if_asked():
    features = torch.randn(6, 3, generator=generator())
    assert gaussian_head(False)(features).log_std.std(0).max() == 0
    assert gaussian_head(True)(features).log_std.std(0).min() > 0


def test_deviations_stay_within_bounds_and_keep_a_gradient():
    for log_std, bound in ((9.0, 2.0), (-16.0, -5.0)):
        head = gaussian_head(log_std=log_std)
        spread = head(torch.zeros(1, 3)).log_std
        torch.testing.assert_close(spread, torch.full((1, 2), bound), atol=0.02, rtol=0)
        spread.sum().backward()
        assert (head.log_std.grad > 0).all()


def test_policy_gradient_is_onehot_minus_probabilities():
    # d log softmax(x)_a / dx = onehot(a) - p, so the loss's gradient is -w A (onehot - p)
    logits = torch.tensor([[[0.0, math.log(3)]], [[0.0, 0.0]]], requires_grad=True)
    advantage = torch.tensor([[2.0], [-1.0]], requires_grad=True)
    log_prob = Categorical(logits).log_prob(torch.tensor([[1], [0]]))
    policy_gradient_loss(log_prob, advantage, torch.tensor([[0.5], [1.0]])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[[0.25, -0.25]], [[0.5, -0.5]]]))
    assert advantage.grad is None


def test_losses_by_hand():
    weight = torch.tensor([[0.5, 0.5, 0.0]])
    value, target = (
        torch.tensor([[1.0, 2.0, 7.0]], requires_grad=True),
        torch.tensor([[3.0, 2.0, 0.0]], requires_grad=True),
    )
    loss = value_loss(value, target, weight)
    loss.backward()
    assert loss.item() == 1.0  # half of half of (3 - 1) squared
    assert value.grad.tolist() == [[-1.0, 0.0, 0.0]]
    assert target.grad is None
    assert entropy_loss(torch.tensor([[1.0, 3.0, 100.0]]), weight).item() == -2.0


def test_normalise_counts_real_steps_only():
    values = torch.tensor([[1.0, 5.0], [3.0, 1000.0]])
    mask = torch.tensor([[True, True], [True, False]])
    expected = (np.array([1.0, 5.0, 3.0]) - 3) / np.std([1.0, 5.0, 3.0])
    result = normalise(values, mask)
    np.testing.assert_allclose(result[mask], expected, rtol=1e-6)
    assert result[1, 1] == 0


def test_normalising_equal_values_says_nothing():
    assert normalise(torch.full((3, 2), 4.0), torch.ones(3, 2, dtype=torch.bool)).abs().max() == 0
    assert normalise(torch.full((1, 1), 4.0), torch.ones(1, 1, dtype=torch.bool)).item() == 0


def test_values_keep_while_their_scale_follows_the_returns():
    head, features = ScaledValue(3, generator(), memory=2), torch.randn(5, 3, generator=generator())
    with torch.no_grad():
        head.layer.bias.fill_(4.0)
    before = head(features)
    head.rescale(torch.tensor([3.0, -4.0, 5.0, 0.0]))  # mean square 12.5
    assert head.scale.item() == pytest.approx(12.5**0.5)
    head.rescale(torch.full((2,), 10.0))  # the mean of two: (12.5 + 100) / 2
    assert head.scale.item() == pytest.approx(56.25**0.5)
    head.rescale(torch.full((7,), -2.0))  # beyond its memory, half of what there was: (56.25 + 4) / 2
    assert head.scale.item() == pytest.approx(30.125**0.5)
    torch.testing.assert_close(head(features), before)
    assert head.layer.bias.item() == pytest.approx(4 / 30.125**0.5)


def test_returns_of_nothing_leave_the_scale_as_it_was():
    head = ScaledValue(3, generator())
    head.rescale(torch.zeros(4))
    assert head.scale == 1
    head.rescale(torch.tensor([6.0]))  # the mean of 0 and 36
    assert head.scale.item() == pytest.approx(18**0.5)
