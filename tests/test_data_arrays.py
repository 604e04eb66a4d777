"""A user's own vectors from .npy files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.data import Dataset, load
from saccade.encoders import find_encoder, make_encoder
from saccade.envs.errors import SpecError, UserError


def write(folder: Path, count: int = 100, labels: bool = True) -> Path:
    """Example i holds (i, i / 2) and, where there are labels, has label i % 3."""
    path = folder / "mine.npy"
    np.save(path, np.arange(count, dtype=np.float32)[:, None] * np.array([1, 0.5], np.float32))
    if labels:
        np.save(folder / "mine.labels.npy", (np.arange(count) % 3).astype(np.uint8))
    return path


def parts(data: Dataset) -> list[list[int]]:
    return [part.x[:, 0].long().tolist() for part in (data.train, data.validation, data.test)]


def test_vectors_are_split_without_overlap_or_loss(tmp_path: Path):
    data = load(str(write(tmp_path)), seed=1)
    assert [len(part) for part in parts(data)] == [90, 5, 5]
    assert sorted(number for part in parts(data) for number in part) == list(range(100))
    assert data.spec.shape == (2,)
    assert data.spec.dtype == "float32"
    assert data.classes == ("0", "1", "2")
    batch = data.train.take(torch.tensor([3, 80]))
    assert (batch["x"][:, 1] == batch["x"][:, 0] / 2).all()
    assert (batch["label"] == batch["x"][:, 0].long() % 3).all()


def test_counts_are_known_as_such(tmp_path: Path):
    path = write(tmp_path)
    assert load(str(path)).spec.low == 0
    make_encoder("rbm", load(str(path)).spec, find_encoder("rbm").Config(visible="poisson"))
    np.save(path, -np.load(path))
    assert load(str(path)).spec.low == -np.inf
    with pytest.raises(SpecError, match="reads counts, 0 or more"):
        make_encoder("rbm", load(str(path)).spec, find_encoder("rbm").Config(visible="poisson"))


def test_the_split_follows_from_the_seed(tmp_path: Path):
    path = str(write(tmp_path, labels=False))
    one, two, other = (parts(load(path, seed=seed)) for seed in (1, 1, 2))
    assert one == two != other
    data = load(path)
    assert data.classes == ()
    assert data.train.label.tolist() == [-1] * 90


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((30, 1, 8, 8), np.uint8), "uint8 .*images come from mnist, cifar10 or env:ID"),
        (np.zeros((30, 4)), r"float64 \[30, 4\], not float32"),
        (np.zeros(30, np.float32), r"float32 \[30\], not float32 \[examples, numbers\]"),
        (np.zeros((19, 4), np.float32), "20 examples or more"),
        (np.zeros((30, 0), np.float32), "of some numbers"),
        (np.array([[0.0, np.nan]] * 30, np.float32), "not finite"),
        (np.array([[0.0, -np.inf]] * 30, np.float32), "not finite"),
    ],
)
def test_arrays_that_are_no_vectors_are_refused(tmp_path: Path, array: np.ndarray, message: str):
    np.save(tmp_path / "mine.npy", array)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "mine.npy"))


def test_damaged_files_are_named_and_nothing_is_unpickled(tmp_path: Path):
    path = write(tmp_path)
    with pytest.raises(UserError, match=r"other\.npy does not exist"):
        load(str(tmp_path / "other.npy"))
    whole = path.read_bytes()
    for content in (whole[:-8], whole[:20], b"", pickle.dumps([1, 2]), b"hello"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"mine\.npy cannot be read"):
            load(str(path))
    np.save(path, np.array([{}] * 30, dtype=object))
    with pytest.raises(UserError, match=r"mine\.npy cannot be read"):
        load(str(path))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(99, np.int64), "not 100 integers"),
        (np.zeros(100), "not 100 integers"),
        (np.full(100, -2), "the label -2"),
        (np.full(100, 10**12), "the label 1000000000000"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: np.ndarray, message: str):
    path = write(tmp_path)
    np.save(tmp_path / "mine.labels.npy", labels)
    with pytest.raises(UserError, match=message):
        load(str(path))
