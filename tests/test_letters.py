"""The data set of letters against its fonts, and the founding experiment with tiny nets and made-up numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade import data
from saccade.benchmarks import BenchOptions
from saccade.benchmarks import letters as bench
from saccade.data import Dataset, Split, letters
from saccade.data.letters import CLEAN, COPIES, FINE, FONTS, JUDGING, SIDE, TRAINING, Noise, disturb, outline
from saccade.envs.errors import UserError
from saccade.training.bundle import load_bundle
from saccade.training.fit_model import make_classifier
from saccade.training.fit_plan import check


def test_splits_hold_what_they_say():
    found = data.load("letters")
    assert found.spec.shape == (1, 29, 29)
    assert found.spec.size == 841
    assert found.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    sizes = {"train": 26 * 3 * COPIES["train"], "validation": 26 * 4 * COPIES["validation"], "test": 2600}
    for name, size in sizes.items():
        split = getattr(found, name)
        assert split.x.shape == (size, 1, 29, 29)
        assert split.x.dtype == torch.uint8
        assert split.label.bincount().tolist() == [size // 26] * 26
    short = found.test.label[: letters.SHORT_TEST]
    assert len(short) == 312
    assert short.bincount().tolist() == [12] * 26
    assert "letters" in data.list_datasets()


def test_letters_are_the_same_every_time():
    first = letters.load.__wrapped__()
    assert torch.equal(first.test.x, letters.load().test.x)
    assert torch.equal(first.train.x, letters.load().train.x)
    assert len({image.numpy().tobytes() for image in torch.cat([first.train.x, first.test.x])}) == 3120 + 2600


@pytest.mark.parametrize("font", FONTS)
def test_outlines_lie_in_the_middle_and_are_as_high_as_each_other(font: str):
    images = outline(font).squeeze(1)
    assert images.shape == (26, SIDE * FINE, SIDE * FINE)
    for letter, image in zip(letters.LETTERS, images, strict=True):
        rows, columns = (torch.nonzero(image.sum(axis) > 0).flatten() for axis in (1, 0))
        assert abs(float(rows[0] + rows[-1]) - (SIDE * FINE - 1)) <= 1
        assert abs(float(columns[0] + columns[-1]) - (SIDE * FINE - 1)) <= 1
        if letter == "H":
            assert abs(len(rows) - letters.HEIGHT * FINE) <= 1
    assert len({image.numpy().tobytes() for image in images}) == 26


def test_fonts_differ_and_the_last_is_held_out():
    """The mean image of each letter in each place of a split is nearest to that of the font that belongs there."""
    fonts = torch.stack([outline(font) for font in FONTS])
    assert all(not torch.equal(fonts[a], fonts[b]) for a in range(4) for b in range(a))
    found, rng = data.load("letters"), np.random.default_rng(1)
    for name, noise in (("train", TRAINING), ("test", JUDGING)):
        x = getattr(found, name).x.float().view(COPIES[name], -1, 26, 841).mean(0)
        known = torch.stack([disturb(fonts.flatten(0, 1), noise, rng).float() for _ in range(40)]).mean(0)
        nearest = (x.unsqueeze(1) - known.view(4, 26, 841)).square().sum(3).argmin(1)  # [places, 26]
        assert nearest.mode(1).values.tolist() == list(range(3 if name == "train" else 4))


def square() -> torch.Tensor:
    """A full square of 9 pixels a side in the middle of an image."""
    image = torch.zeros(1, 1, SIDE * FINE, SIDE * FINE)
    image[..., 10 * FINE : 19 * FINE, 10 * FINE : 19 * FINE] = 1
    return image


def test_noise_does_what_it_says():
    rng = np.random.default_rng(0)
    plain = disturb(square(), CLEAN, rng)
    assert torch.equal(plain[0, 0, 10:19, 10:19], torch.full((9, 9), 255, dtype=torch.uint8))
    assert int(plain.long().sum()) == 81 * 255

    many = square().expand(300, -1, -1, -1)
    moved = disturb(many, Noise(0, 0, 2, 0), rng).float().squeeze(1)
    mass = moved.sum((1, 2))
    torch.testing.assert_close(mass, torch.full((300,), 81 * 255.0), rtol=0.01, atol=0)
    places = torch.arange(SIDE, dtype=torch.float32)
    for axis in (1, 2):
        centre = (moved.sum(3 - axis) * places).sum(1) / mass
        assert abs(float(centre.mean()) - 14) < 0.35
        assert float(centre.std()) == pytest.approx(2, rel=0.15)

    larger = disturb(many, Noise(0, 0.1, 0, 0), rng).float().flatten(1).sum(1) / 255
    assert float((larger / 81).log().std()) == pytest.approx(0.2, rel=0.15)  # area goes with the square of the scale

    turned = disturb(many, Noise(20, 0, 0, 0), rng).float().squeeze(1)
    torch.testing.assert_close(turned.flatten(1).sum(1), mass, rtol=0.02, atol=0)
    assert float(turned[:, 10, 10].mean()) < 200  # a corner that has turned away

    grain = disturb(torch.full_like(many, 0.5), Noise(0, 0, 0, 0.1), rng).float() / 255
    assert float(grain.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(grain.std()) == pytest.approx(0.1, rel=0.03)


def test_a_missing_font_is_said():
    with pytest.raises(UserError, match=r"NoSuchFont\.ttf does not exist"):
        outline("NoSuchFont")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to no training, on a few images."""
    whole = letters.load()
    parts = [Split(split.x[:104], split.label[:104]) for split in (whole.train, whole.validation)]
    few = dataclasses.replace(whole, train=parts[0], validation=parts[1])
    monkeypatch.setattr(data, "load", lambda name, **_: few)
    monkeypatch.setattr(bench, "RATES", {"sgd": (0.1,), "adam": (1e-3, 1e-2)})
    monkeypatch.setattr(bench, "EPOCHS", 2)
    monkeypatch.setattr(bench, "PRETRAINING", dataclasses.replace(bench.PRETRAINING, epochs=4, batch_size=26))


def test_all_arms_are_the_same_net_but_for_their_weights():
    dataset = data.load("letters")
    assert isinstance(dataset, Dataset)
    nets = {}
    for arm, wanted in (("shallow", [100]), ("deep", [100, 300, 100, 50]), ("pretrained", [100, 300, 100, 50])):
        plan = bench.plan_of(arm, "adam", 1e-3, 0, None)
        net = make_classifier(plan, dataset)
        x = dataset.test.x[:3]
        features = net.encode(x)
        assert features.shape == (3, wanted[-1])
        assert ((features > 0) & (features < 1)).all()
        assert net.head[-1].weight.shape == (26, wanted[-1])  # type: ignore[index]
        net(x).sum().backward()  # what is read the other way gets no gradient
        shapes = [tuple(p.shape) for p in net.encoder.parameters() if p.grad is not None and p.dim() == 2]
        assert shapes == list(zip(wanted, [841, *wanted[:-1]], strict=True))
        nets[arm] = plan.run
    assert nets["shallow"] == nets["deep"] == nets["pretrained"]
    random = make_classifier(bench.plan_of("deep", "adam", 1e-3, 0, None), dataset)
    first = next(p for p in random.encoder.parameters() if p.shape == (100, 841))
    assert float(first.detach().std()) == pytest.approx(4 / 29, rel=0.05)


def test_machines_become_the_net_that_is_fine_tuned(small: None, tmp_path: Path):
    dataset = data.load("letters")
    assert isinstance(dataset, Dataset)
    folder = bench.bundle_of(tmp_path, 1, 1)
    assert bench.bundle_of(tmp_path, 1, 1) == folder  # it is not trained again
    assert json.loads((folder / "result.json").read_text())["epochs"] == 4
    plan = bench.plan_of("pretrained", "adam", 1e-3, 1, folder)
    check(plan)
    net, trained = make_classifier(plan, dataset), load_bundle(folder).encoder
    x = dataset.test.x[:5]
    with torch.no_grad():
        torch.testing.assert_close(net.encode(x), trained.read(x).flatten(1))
    (group,) = net.encoder.parameter_groups()
    assert (group.learning_rate_factor, group.optimizer) == (1.0, None)  # Adam or whatever the plan names


def test_the_whole_experiment_and_what_is_kept(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = BenchOptions(seeds=2, out=tmp_path, threads=1)
    report = bench.measure(dataclasses.replace(options, only=("pretrained", "shallow")))
    assert [row[0] for row in report.tables[0].rows] == [
        bench.ARMS[arm].label for arm in ("shallow", "pretrained") for _ in range(2)
    ]
    assert [len(cell["tuning"]) for cell in report.data["cells"]] == [1, 2, 1, 2]
    assert {"letters", "letters-sheet"} == report.figures.keys()
    assert not any("ahead" in note for note in report.notes)  # one arm is missing
    monkeypatch.setattr(bench, "trained", None)  # nothing is trained again
    again = bench.measure(dataclasses.replace(options, only=("shallow",)))
    assert again.data["cells"] == report.data["cells"][:2]
    with pytest.raises(UserError, match="unknown setting 'shalow'; did you mean 'shallow'"):
        bench.measure(dataclasses.replace(options, only=("shalow",)))


def test_the_verdict_by_hand():
    cells = [
        bench.Cell("shallow", "sgd", 0.1, {"0.1": 0.2}, [0.30, 0.32], [0.3, 0.3]),
        bench.Cell("shallow", "adam", 1e-3, {"0.001": 0.1, "0.01": 0.5}, [0.20, 0.20], [0.2, 0.2]),
        bench.Cell("deep", "sgd", 0.1, {"0.1": 0.9}, [0.96, 0.96], [0.96, 0.96]),
        bench.Cell("deep", "adam", 1e-3, {"0.001": 0.3}, [0.25, 0.27], [0.25, 0.27]),
        bench.Cell("pretrained", "sgd", 0.1, {"0.1": 0.1}, [0.11, 0.11], [0.1, 0.12]),
        bench.Cell("pretrained", "adam", 1e-3, {"0.001": 0.15}, [0.21, 0.21], [0.2, 0.2]),
    ]
    by_sgd, by_adam, by_both = bench._verdict(cells)
    assert "is ahead of both: +20.0 points against the shallow net, +85.0 against" in by_sgd
    assert "is not ahead of both: -1.0 points against the shallow net, +5.0 against" in by_adam
    assert "is ahead of both: +9.0 points against the shallow net, +15.0 against" in by_both
    assert {arm: cell.rule for arm, cell in bench.best_cells(cells).items()} == {
        "shallow": "adam",
        "deep": "adam",
        "pretrained": "sgd",
    }
    row = bench._table(cells).rows[0]
    assert row[3:5] == ("80.0", "69.0 [56.3, 81.7]")  # 1.0 * 12.706: one degree of freedom
    assert row[5:] == ("70.0 [70.0, 70.0]", "74.0")
    assert bench.bars(cells).axes
