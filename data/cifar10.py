"""CIFAR-10: 60,000 colour photographs, 32 × 32, of ten things (Krizhevsky 2009, "Learning Multiple Layers of Features
from Tiny Images"), in the binary format: nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from . import files
from .base import Dataset, hold_out

kind = "photographs of ten things: 45,000 + 5,000 + 10,000 colour images, 32 × 32, 10 classes"
SPEC = ObservationSpec((3, 32, 32), "uint8", 0, 255)
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"{FOLDER}/data_batch_{number}.bin" for number in range(1, 6))
FILES = (*TRAIN_FILES, f"{FOLDER}/test_batch.bin")
SOURCES = (
    files.Source(
        "cifar-10-binary.tar.gz",
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        FILES,
    ),
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # a byte of label, then red, green and blue, each row by row
VALIDATION_SHARE = 10  # the last tenth of the training files, 5,000 of 50,000 images, is for validation


def load() -> Dataset:
    """Images uint8 `[N, 3, 32, 32]` (red, green, blue; 0 to 255) and labels 0 to 9, in the order of the files.

    Whatever has the format is read, whoever packed it; only downloads are held against the publisher's checksum.

    Raises:
        UserError: a file is absent, truncated or damaged; the message names it.
    """
    *train_paths, test_path = files.locate("cifar10", FILES)
    parts = [read_records(path) for path in train_paths]
    for path, part in zip(train_paths, parts, strict=True):
        if len(part) != len(parts[0]):
            raise UserError(
                f"{path} holds {len(part):,} records, but {train_paths[0].name} {len(parts[0]):,}; fetch them again"
            )
    train, validation = hold_out(*_unpack(np.concatenate(parts)), sum(map(len, parts)) // VALIDATION_SHARE)
    test, _ = hold_out(*_unpack(read_records(test_path)), 0)
    return Dataset("cifar10", SPEC, train, validation, test, CLASSES)


def read_records(path: Path) -> np.ndarray:
    """uint8 `[N, 3073]`.

    Raises:
        UserError: the file is no whole number of records, or a label is unknown.
    """
    content = files.read(path)
    if not content or len(content) % RECORD:
        raise UserError(
            f"{path} has {len(content):,} bytes, not a whole number of records of {RECORD:,}; "
            "it is truncated or damaged: fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise UserError(f"{path} holds the label {records[:, 0].max()}, where 0 to 9 are known; it is damaged")
    return records


def _unpack(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0]
