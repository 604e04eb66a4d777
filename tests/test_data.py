"""Published data sets from small files of the same formats, damaged ones too; and batches."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.data import Batches, Split, cifar10, files, list_datasets, load, mnist
from saccade.envs.errors import UnknownNameError, UserError

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def pack_idx(array: np.ndarray) -> bytes:
    """Written by the format's description, with `struct` and loops, unlike the reader."""
    packed = struct.pack(">BBBB", 0, 0, 8, array.ndim) + b"".join(struct.pack(">I", size) for size in array.shape)
    return gzip.compress(packed + bytes(array.astype(np.uint8).flatten().tolist()), 1, mtime=0)


def write_mnist(folder: Path, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`count` random training images and half as many for testing; returns the arrays by the names of the files."""
    random = np.random.default_rng(seed)
    arrays = {}
    for part, size in (("train", count), ("t10k", count // 2)):
        arrays[f"mnist/{part}-images-idx3-ubyte.gz"] = random.integers(256, size=(size, 28, 28))
        arrays[f"mnist/{part}-labels-idx1-ubyte.gz"] = np.arange(size) % 10
    (folder / "mnist").mkdir(parents=True)
    for name, array in arrays.items():
        (folder / name).write_bytes(pack_idx(array))
    return arrays


def write_cifar10(folder: Path, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`count` random records in each file; returns them, `[count, 3073]`, by the names of the files."""
    random = np.random.default_rng(seed)
    (folder / cifar10.FOLDER).mkdir(parents=True)
    records = {}
    for name in cifar10.FILES:
        records[name] = random.integers(256, size=(count, 3073)).astype(np.uint8)
        records[name][:, 0] = random.integers(10, size=count)
        (folder / name).write_bytes(records[name].tobytes())
    return records


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What SACCADE_DATA names; the cache is empty."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "data"


def test_mnist_is_read_and_split(folder: Path):
    arrays = list(write_mnist(folder, count=36).values())
    data = load("mnist")
    assert data.spec.shape == (1, 28, 28)
    assert (data.spec.dtype, data.spec.low, data.spec.high) == ("uint8", 0, 255)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [33, 3, 18]
    x = torch.cat([data.train.x, data.validation.x])
    assert x.dtype == torch.uint8
    np.testing.assert_array_equal(x[:, 0].numpy(), arrays[0])
    assert torch.cat([data.train.label, data.validation.label]).tolist() == arrays[1].tolist()
    np.testing.assert_array_equal(data.test.x[:, 0].numpy(), arrays[2])
    assert data.test.label.dtype == torch.int64
    assert data.test.label.tolist() == arrays[3].tolist()
    assert data.classes == tuple("0123456789")


def test_the_cache_is_read_where_the_named_folder_lacks_the_set(folder: Path, tmp_path: Path):
    write_mnist(tmp_path / "cache" / "saccade", count=12)
    assert len(load("mnist").test) == 6


IMAGES, LABELS = "mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz"


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, cut, "is truncated; fetch it again"),
        (LABELS, lambda content: b"", "is truncated|begins with nothing"),
        (IMAGES, lambda content: content[:40] + bytes(100) + content[140:], "is damaged"),
        (LABELS, lambda content: b"<html>not found</html>", "is damaged"),
        (LABELS, lambda content: pack_idx(np.zeros((2, 28, 28))), "begins with 00000803, not 00000801"),
        (IMAGES, lambda content: gzip.compress(gzip.decompress(content)[:-1]), "where its header promises 18,816"),
        (IMAGES, lambda content: gzip.compress(gzip.decompress(content) + b"1"), "where its header promises 18,816"),
        (IMAGES, lambda content: gzip.compress(b"\0\0\x08"), "begins with 000008, not"),
        (IMAGES, lambda content: gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12), "where its header promises"),
        (IMAGES, lambda content: pack_idx(np.zeros((24, 8, 8))), "8 × 8, not 28 × 28"),
        (LABELS, lambda content: pack_idx(np.zeros(23)), "24 images, but .* 23 labels"),
        (LABELS, lambda content: pack_idx(np.full(24, 10)), "the label 10"),
    ],
)
def test_a_damaged_mnist_file_is_named(folder: Path, name: str, damage, message: str):
    write_mnist(folder, count=24)
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        load("mnist")
    assert str(folder / name) in str(error.value)


def test_an_absent_file_is_named(folder: Path):
    with pytest.raises(UserError, match=r"not in .*data/mnist and .*cache/saccade/mnist; set SACCADE_DATA .* download"):
        load("mnist")
    write_mnist(folder, count=24)
    (folder / LABELS).unlink()
    with pytest.raises(UserError, match=f"{LABELS} is missing beside the rest of mnist"):
        load("mnist")


def test_cifar10_is_read_and_split(folder: Path):
    records = write_cifar10(folder, count=8)
    data = load("cifar10")
    assert data.spec.shape == (3, 32, 32)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [36, 4, 8]
    every = np.concatenate([records[name] for name in cifar10.TRAIN_FILES])
    x, label = torch.cat([data.train.x, data.validation.x]), torch.cat([data.train.label, data.validation.label])
    assert label.tolist() == every[:, 0].tolist()
    # the green value of image 11 at row 5, column 7, counted by hand: label, 1,024 reds, 5 rows of 32, 7 more
    assert x[11, 1, 5, 7] == every[11, 1 + 1024 + 5 * 32 + 7]
    np.testing.assert_array_equal(x.flatten(1).numpy(), every[:, 1:])
    assert data.classes[data.test.label[3]] == cifar10.CLASSES[records[cifar10.FILES[-1]][3, 0]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "has 24,583 bytes, not a whole number of records of 3,073"),
        (lambda content: b"", "has 0 bytes"),
        (lambda content: content[:3073], "holds 1 records, but data_batch_1.bin 8"),
        (lambda content: b"\x0a" + content[1:], "the label 10"),
    ],
)
def test_a_damaged_cifar10_file_is_named(folder: Path, damage, message: str):
    write_cifar10(folder, count=8)
    path = folder / cifar10.FILES[2]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        load("cifar10")
    assert str(path) in str(error.value)


def test_unknown_names_get_a_hint(folder: Path):
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        load("cifar-10")
    assert {"mnist", "cifar10"} <= set(list_datasets())


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="the canonical files are not here")
def test_the_canonical_mnist(monkeypatch: pytest.MonkeyPatch):
    """The publisher's files: checksums as written in `mnist`, and counts and pixel statistics known of this set."""
    for name, checksum in mnist.CHECKSUMS.items():
        assert hashlib.sha256((SHARED / "mnist" / name).read_bytes()).hexdigest() == checksum
    monkeypatch.setenv("SACCADE_DATA", str(SHARED))
    data = load("mnist")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    every = torch.cat([data.train.x, data.validation.x])
    counts = torch.cat([data.train.label, data.validation.label]).bincount().tolist()
    assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert float(every.float().mean() / 255) == pytest.approx(0.1307, abs=5e-5)
    assert data.test.label[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def numbered(count: int) -> Split:
    return Split(torch.arange(count)[:, None].float(), torch.arange(count))


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [4, 4]), (False, [4, 4, 3])])
def test_every_example_comes_once_per_epoch(drop_last: bool, sizes: list[int]):
    batches = Batches(numbered(11), 4, seed=0, drop_last=drop_last)
    assert len(batches) == len(sizes)
    orders = []
    for _ in range(3):
        epoch = list(batches.epoch())
        assert [len(batch["label"]) for batch in epoch] == sizes
        assert all((batch["x"][:, 0] == batch["label"]).all() for batch in epoch)
        orders.append(torch.cat([batch["label"] for batch in epoch]).tolist())
        assert max(Counter(orders[-1]).values()) == 1
    assert orders[0] != orders[1] != orders[2]


def test_orders_are_uniform():
    """Each of 4 examples comes first in about a quarter of 800 epochs: chi-squared below its 0.1 % quantile, 16.3."""
    batches = Batches(numbered(4), 4, seed=3)
    first = Counter(int(next(iter(list(batches.epoch())))["label"][0]) for _ in range(800))
    assert sum((first[k] - 200) ** 2 / 200 for k in range(4)) < 16.3


def take(batches: Batches, count: int) -> list[list[int]]:
    stream = iter(batches)
    return [next(stream)["label"].tolist() for _ in range(count)]


def test_a_seed_gives_an_order():
    one, two, other = (take(Batches(numbered(11), 4, seed), 7) for seed in (5, 5, 6))
    assert one == two != other


@pytest.mark.parametrize("before", [0, 1, 2, 3, 5])
def test_saved_batches_go_on_exactly(before: int):
    whole = take(Batches(numbered(11), 4, seed=5), before + 6)
    batches = Batches(numbered(11), 4, seed=5)
    assert take(batches, before) == whole[:before]
    resumed = Batches(numbered(11), 4, seed=5)
    resumed.load_state_dict(batches.state_dict())
    assert take(resumed, 6) == whole[before:]


def test_batches_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="3 examples are too few for a batch of 4"):
        Batches(numbered(3), 4, seed=0)
    with pytest.raises(UserError, match="at least 1, not 0"):
        Batches(numbered(3), 0, seed=0)
    assert len(Batches(numbered(3), 4, seed=0, drop_last=False)) == 1


def test_new_files_go_where_they_can_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert files.home() == folder
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as for a shared disk that is only read
    assert files.home() == tmp_path / "cache" / "saccade"
    monkeypatch.delenv("SACCADE_DATA")
    assert files.folders() == [tmp_path / "cache" / "saccade"]
