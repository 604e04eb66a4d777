"""Pictures of classical nets, and the shares of patterns they are drawn from."""

from __future__ import annotations

import pytest
import torch
from saccade.benchmarks.parts import classical_pictures
from saccade.data.base import Dataset, Split
from saccade.encoders import hopfield, som
from saccade.encoders.parts.capacity import damaged, fixed, found_again, overlap, random_patterns
from saccade.envs.spec import ObservationSpec
from saccade.training.pictures import png
from saccade.training.probing import classical_figures, figures
from saccade.training.probing.subject import Subject
from torch import Tensor

SMALL = ObservationSpec((1, 6, 6), "uint8", 0.0, 255.0)
SIGNS = ObservationSpec((100,), low=-1.0, high=1.0)


def subject(encoder: hopfield.Hopfield | som.Som, count: int = 40) -> Subject:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (count, 1, 6, 6), generator=generator).mul(255).byte()
    split = Split(x, torch.arange(count) % 3)
    found = Subject("net", encoder, Dataset("small", SMALL, split, split, split, classes=("a", "b", "c")))
    found.encode(("test",))
    return found


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_shares_by_hand():
    patterns = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1]])

    def moved(state: Tensor) -> Tensor:  # the second pattern's last unit turns
        return state * torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1]])

    assert fixed(moved, patterns) == 0.5
    torch.testing.assert_close(overlap(moved(patterns), patterns), torch.tensor([1.0, 0.5]))
    assert found_again(moved, patterns, 0.0, 0.5, generator()) == 1.0
    assert found_again(moved, patterns, 0.0, 0.6, generator()) == 0.5
    assert found_again(lambda state: state, patterns, 1.0, 0.6, generator()) == 0.0  # all units are flipped


def test_damage_flips_the_share_that_is_asked_for():
    patterns = random_patterns(50, 200, generator())
    assert set(patterns.unique().tolist()) == {-1.0, 1.0}
    assert (damaged(patterns, 0.3, generator()) != patterns).float().mean() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(damaged(patterns, 0.0, generator()), patterns)


def test_capacity_breaks_by_the_form():
    """Hebb's rule loses fixed points first (all of them are lost near .14), then what is found; the others hold half as
    many patterns as units, and the pseudo-inverse does not find them from damaged copies by then."""
    patterns, found = random_patterns(50, 100, generator()), {}
    for storage in ("hebbian", "pseudo-inverse", "dense"):
        net = hopfield.build(hopfield.Config(storage=storage), SIGNS)
        loads, found[storage] = classical_figures.capacity_of(net, patterns, generator())
        assert loads == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.14, 0.2, 0.3, 0.5])
        assert found[storage][:3].min() == 1.0
        assert not int(net.count)  # it was another one that stored
    assert found["hebbian"][5, 0] < 0.5
    assert found["hebbian"][-1].max() < 0.05
    assert found["pseudo-inverse"][:, 0].min() == 1.0
    assert found["pseudo-inverse"][-1, 1] < 0.5
    assert found["dense"].min() == 1.0


@pytest.mark.parametrize("storage", ["hebbian", "dense"])
def test_a_memory_is_drawn_with_what_it_holds(storage: hopfield.Storage):
    net = hopfield.build(hopfield.Config(storage=storage, patterns=4), SMALL)
    one = subject(net)
    assert {"memory"} == {"memory", "retrieval", "map"} & set(figures.wanted(one, 0))
    x = one.dataset.train.x[:3]
    net.fit(x)
    assert torch.equal(net.held(), net.read_state(x))
    assert torch.equal(net.observation(net.held()), x / 255)
    assert "retrieval" in figures.wanted(one, 0)
    for name in ("memory", "retrieval"):
        assert figures.draw(name, one, 0)
    shown = classical_figures.memory(one)
    assert shown is not None
    basin = shown.axes[0].lines[0].get_ydata()
    assert basin[0] == 1.0
    assert basin[-1] < 1.0


@pytest.mark.parametrize("layout", ["rectangular", "hexagonal"])
def test_a_map_shows_its_relief_and_who_won(layout: som.Layout):
    net = som.build(som.Config(rows=4, columns=5, layout=layout), SMALL)
    one = subject(net)
    net.weight.data[7] = one.dataset.test.x[1].flatten() / 255
    assert "map" in figures.wanted(one, 0)
    shown = classical_figures.som_map(one)
    assert shown is not None
    relief = shown.axes[1]
    torch.testing.assert_close(torch.as_tensor(relief.collections[0].get_array()), net.relief().flatten())
    texts = {tuple(text.get_position()): text.get_text() for text in relief.texts}
    x, y = net.place[7].tolist()
    won = one.dataset.test.label[net.winners(one.dataset.test.x) == 7]
    assert texts[x, y] == "abc"[int(won.bincount().argmax())]
    assert len(texts) == len(net.winners(one.dataset.test.x).unique())
    assert png(shown)


def test_forms_of_memory_are_compared_at_the_same_loads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classical_pictures, "FORM_UNITS", 60)
    monkeypatch.setattr(classical_pictures, "FORM_LOADS", (0.02, 0.5, 0.95, 2.0))
    monkeypatch.setitem(classical_pictures.HIGHEST, "dense", 2.0)
    found = classical_pictures.forms(seeds=1)
    assert {name: curve[0].tolist() for name, curve in found.items()} == {
        "hebbian": [0.02, 0.5],
        "pseudo-inverse": [0.02, 0.5, 0.95],
        "dense": [0.02, 0.5, 0.95, 2.0],
    }
    assert all(curve[1, 0] == curve[2, 0] == 1 for curve in found.values())
    assert found["hebbian"][1:, 1].max() < 0.2
    assert found["pseudo-inverse"][1, 2] == 1.0
    assert found["dense"][1:].min() == 1.0
    assert png(classical_pictures.forms_figure(found))


def test_decay_makes_weights_small_or_zero():
    """L1 leaves more weights near 0, and L2 makes all of them smaller."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (400, 1, 6, 6), generator=generator)
    x[:, :, :3] = x[:, :, :1]  # the upper half hangs together; the lower one is noise
    machines = classical_pictures.decayed(x.mul(255).byte(), SMALL, epochs=40)
    assert len({tuple(machine.config.__dict__.items()) for machine in machines.values()}) == 3
    none, lasso, ridge = (machine.weight.detach().abs() for machine in machines.values())
    assert (lasso < 0.01).float().mean() > 0.2 + (none < 0.01).float().mean()
    assert ridge.square().mean() < 0.9 * none.square().mean()
    assert png(classical_pictures.decay_figure(machines, x[:50].mul(255).byte()))
