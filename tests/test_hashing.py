"""Semantic hashing: packed codes against bit strings, neighbourhood components against loops, codes with a meaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import hashing, make_encoder
from saccade.encoders.parts import hamming
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

WORDS = 40
BAGS = ObservationSpec((WORDS,), "float32", 0.0, 1.0)


def make(spec: ObservationSpec = BAGS, **settings) -> hashing.Hashing:
    torch.manual_seed(0)
    small = {"bits": 12, "hidden": (30,)}
    encoder = make_encoder("hashing", spec, hashing.Config(**(small | settings)))
    assert isinstance(encoder, hashing.Hashing)
    return encoder


def texts(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Bags of words on one of four topics, of which each has ten words of its own, and their topics."""
    generator = np.random.default_rng(seed)
    topic = generator.integers(4, size=count)
    chance = np.where(np.arange(WORDS) // 10 == topic[:, None], 0.5, 0.05)
    return torch.from_numpy(generator.random((count, WORDS)) < chance).float(), torch.from_numpy(topic)


def train(encoder: hashing.Hashing, x: Tensor, label: Tensor, updates: int = 200) -> None:
    optimisers = Optimisers([], encoder.train(), learning_rate=3e-3)
    for number in range(updates):
        encoder.progress.fill_(number / updates)
        rows = torch.randint(len(x), (100,))
        losses = encoder.loss({"x": x[rows], "label": label[rows]})
        optimisers.step(sum(loss.mean() for loss in losses.values()))
    encoder.eval()


def neighbours_of_same(encoder: hashing.Hashing, x: Tensor, label: Tensor, number: int = 10) -> float:
    """The share of the nearest codes, itself left out, that are of the same topic."""
    codes = encoder.codes(x)
    places, _ = hamming.search(codes, codes, number + 1)
    same = label.numpy()[places] == label.numpy()[:, None]
    return float((same.sum(1) - 1).mean() / number)


@pytest.mark.parametrize("width", [1, 12, 64, 130])
def test_distances_are_those_of_bit_strings(width: int):
    generator = np.random.default_rng(0)
    first, second = (generator.integers(2, size=(count, width)) for count in (7, 9))
    packed = [hamming.pack(torch.from_numpy(bits).float()) for bits in (first, second)]
    assert packed[0].shape == (7, -(-width // 64))
    expected = (first[:, None] != second[None]).sum(2)
    np.testing.assert_array_equal(hamming.distances(*packed), expected)
    places, apart = hamming.search(*packed, 4)
    for row in range(7):
        ranked = sorted(range(9), key=lambda n: (expected[row, n], n))[:4]
        assert places[row].tolist() == ranked
        assert apart[row].tolist() == [expected[row, n] for n in ranked]


def test_the_search_goes_on_in_parts(monkeypatch: pytest.MonkeyPatch):
    codes = hamming.pack(torch.randint(0, 2, (20, 70)).float())
    whole = hamming.distances(codes, codes)
    monkeypatch.setattr(hamming, "PART", 100)
    np.testing.assert_array_equal(hamming.distances(codes, codes), whole)


def test_neighbourhood_components_against_loops():
    generator = np.random.default_rng(1)
    code, label = generator.random((9, 5)), np.array([0, 1, 1, -1, 2, 0, 1, 2, 3])
    known = [n for n in range(9) if label[n] >= 0]
    total = 0.0
    for i in known:
        weights = {j: np.exp(-((code[i] - code[j]) ** 2).sum() / 3.0) for j in known if j != i}
        total += sum(w for j, w in weights.items() if label[j] == label[i]) / sum(weights.values())
    found = hashing.neighbourhood(torch.from_numpy(code), torch.from_numpy(label), 3.0)
    assert found.item() == pytest.approx(-total / len(known))
    assert hashing.neighbourhood(torch.from_numpy(code), torch.full((9,), -1), 3.0).item() == 0


def test_words_are_told_by_one_softmax():
    encoder = make(output="words", noise=0.0).eval()
    x = torch.tensor([[2.0, 0.0, 1.0] + [0.0] * 37])
    share = encoder.down(encoder.up(x).sigmoid()).softmax(1)[0]
    expected = -(2 * share[0].log() + share[2].log())
    torch.testing.assert_close(encoder.loss({"x": x})["reconstruction"], expected.unsqueeze(0))
    assert encoder.reconstruct(x).sum().item() == pytest.approx(3, rel=1e-4)


def test_features_are_bits_with_the_gradient_of_the_means():
    x, _ = texts(20)
    encoder = make()
    bits, means = encoder.encode(x), make(features="means").encode(x)
    assert set(bits.detach().unique().tolist()) == {0.0, 1.0}
    assert torch.equal(bits.detach(), (means > 0.5).float())
    np.testing.assert_array_equal(encoder.codes(x), hamming.pack(bits.detach()))
    weights = torch.randn(12)
    (bits * weights).sum().backward()
    ours = encoder.up[1].weight.grad
    other = make(features="means")
    (other.encode(x) * weights).sum().backward()
    torch.testing.assert_close(ours, other.up[1].weight.grad)


@pytest.mark.parametrize("output", ["auto", "words"])
def test_alike_texts_have_alike_codes(output: str):
    x, topic = texts(600)
    encoder = make(output=output)
    before = neighbours_of_same(encoder.eval(), *texts(200, seed=1))
    train(encoder, x, torch.full_like(topic, -1))  # no labels
    assert neighbours_of_same(encoder, *texts(200, seed=1)) > max(0.85, before)


def test_noise_drives_code_units_to_their_ends():
    x, topic = texts(600)
    away = {}
    for noise in (0.0, 4.0):
        encoder = make(noise=noise, features="means")
        train(encoder, x, topic, updates=300)
        means = encoder.encode(x).detach()
        away[noise] = float(torch.minimum(means, 1 - means).mean())
    assert away[4.0] < 0.6 * away[0.0]


def test_labels_teach_what_to_look_at():
    """The class is a single word among forty, which reconstruction has no eye for."""
    x = (torch.rand(1200, WORDS, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    label, found = x[:, 7].long(), {}
    for weight in (0.0, 100.0):
        encoder = make(neighbours=weight)
        train(encoder, x[:1000], label[:1000], updates=300)
        found[weight] = neighbours_of_same(encoder, x[1000:], label[1000:])
    assert found[100.0] > 0.9
    assert found[0.0] < 0.7


def test_bad_settings_and_observations_are_refused():
    wrong = [
        {"bits": 0},
        {"output": "letters"},
        {"features": "all"},
        {"noise": -1.0},
        {"dropout": 1.0},
        {"reconstruction": 0.0},
    ]
    for settings in wrong:
        with pytest.raises(UserError, match="hashing"):
            make(**settings)
    with pytest.raises(SpecError, match="counts"):
        make(ObservationSpec((3,)), output="words")
    with pytest.raises(SpecError, match="hashing"):
        make(ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20))
