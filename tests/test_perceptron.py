"""The perceptron: its rule by hand, the convergence bound, many classes, and the loss that is the rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import make_encoder, perceptron
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor


def make(size: int = 2, **settings) -> perceptron.Perceptron:
    encoder = make_encoder("perceptron", ObservationSpec((size,)), perceptron.Config(**{"spread": 0.0, **settings}))
    assert isinstance(encoder, perceptron.Perceptron)
    return encoder


def separable(classes: int, size: int, count: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Examples that unit weights `[classes, size + 1]` separate by .1 or more; these weights."""
    generator = np.random.default_rng(seed)
    teacher = generator.normal(size=(classes, size + 1))
    teacher /= np.linalg.norm(teacher)
    x = generator.uniform(-1, 1, size=(40 * count, size))
    scores = np.sort(np.hstack([x, np.ones((len(x), 1))]) @ teacher.T, axis=1)
    x = x[scores[:, -1] - scores[:, -2] > 0.1][:count]
    label = (np.hstack([x, np.ones((len(x), 1))]) @ teacher.T).argmax(1)
    assert len(x) == count
    return torch.from_numpy(x).float(), torch.from_numpy(label), teacher


def test_three_examples_by_hand():
    encoder = make(classes=2)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert encoder.fit(x, torch.tensor([0, 1, -1]), epochs=1) == [2]
    # w_0 = (1, 0), b 1 after the first, a tie; (0, 1) scores 1 against -1 and is wrong
    torch.testing.assert_close(encoder.weight.detach(), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    torch.testing.assert_close(encoder.bias.detach(), torch.zeros(2))
    assert encoder.fit(x, torch.tensor([0, 1, -1])) == [0]
    assert encoder.predict(x[:2]).tolist() == [0, 1]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_mistakes_stay_below_the_bound(classes: int, seed: int):
    x, label, teacher = separable(classes, 3, 120, seed)
    encoder = make(3, classes=classes)
    mistakes = encoder.fit(x, label, epochs=1000)
    assert mistakes[-1] == 0
    wide = np.hstack([x.numpy(), np.ones((len(x), 1))])
    scores = wide @ teacher.T
    own = scores[np.arange(len(x)), label.numpy()]
    scores[np.arange(len(x)), label.numpy()] = -np.inf
    margin, radius = float((own - scores.max(1)).min()), float(np.linalg.norm(wide, axis=1).max())
    assert 0 < sum(mistakes) <= 2 * radius**2 / margin**2
    assert torch.equal(encoder.predict(x), label)


def test_what_no_line_separates_is_never_learned():
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    mistakes = make(classes=2).fit(x, torch.tensor([0, 1, 1, 0]), epochs=50)
    assert len(mistakes) == 50
    assert min(mistakes) > 0


def test_descent_example_by_example_is_the_rule():
    x, label, _ = separable(4, 5, 80, 0)
    fitted, trained = make(5, classes=4), make(5, classes=4).train()
    fitted.fit(x, label, epochs=1)
    optimisers = Optimisers([], trained, learning_rate=1e-3)
    for row, own in zip(x, label, strict=True):
        optimisers.step(trained.loss({"x": row[None], "label": own[None]})["perceptron"].mean())
    torch.testing.assert_close(trained.weight, fitted.weight)
    torch.testing.assert_close(trained.bias, fitted.bias)


def test_a_batch_takes_the_mean_of_the_steps_and_skips_what_has_no_label():
    encoder = make(classes=3, spread=1.0)
    x, label = torch.randn(20, 2), torch.randint(-1, 3, (20,))
    loss = encoder.loss({"x": x, "label": label})["perceptron"]
    assert loss.shape == (20,)
    loss.mean().backward()
    weight, bias = (p.detach().numpy() for p in (encoder.weight, encoder.bias))
    step, values = np.zeros_like(weight), []
    for row, own in zip(x.numpy(), label.tolist(), strict=True):
        scores = weight @ row + bias
        rivals = [c for c in range(3) if c != own]
        rival = max(rivals, key=lambda c: scores[c])
        is_wrong = own >= 0 and scores[own] <= scores[rival]
        values.append(scores[rival] - scores[own] if is_wrong else 0.0)
        if is_wrong:
            step[own] += row
            step[rival] -= row
    np.testing.assert_allclose(loss.detach().numpy(), values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(-encoder.weight.grad.numpy(), step / 20, rtol=1e-4, atol=1e-6)


def test_bad_settings_and_labels_are_refused():
    for settings in ({"classes": 1}, {"gain": 0.0}, {"spread": -1.0}):
        with pytest.raises(UserError, match="perceptron"):
            make(**settings)
    with pytest.raises(UserError, match="label 7"):
        make(classes=3).loss({"x": torch.zeros(2, 2), "label": torch.tensor([1, 7])})
    with pytest.raises(SpecError, match="perceptron"):
        make_encoder("perceptron", ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20))
