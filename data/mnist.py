"""MNIST: 70,000 handwritten digits, grey, 28 × 28 (LeCun, Cortes and Burges; the format is described with the data)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from . import files
from .base import Dataset, hold_out

kind = "handwritten digits: 55,000 + 5,000 + 10,000 grey images, 28 × 28, 10 classes"
CHECKSUMS = {  # SHA-256
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
SOURCES = tuple(
    files.Source(f"mnist/{name}", f"sha256:{checksum}", tuple(mirror + name for mirror in MIRRORS))
    for name, checksum in CHECKSUMS.items()
)
FILES = tuple(source.name for source in SOURCES)
VALIDATION_SHARE = 12  # the last twelfth of the training files, 5,000 of 60,000 images, is for validation
SPEC = ObservationSpec((1, 28, 28), "uint8", 0, 255)
BYTES = 0x08  # IDX's code for elements of one unsigned byte


def load() -> Dataset:
    """Images uint8 `[N, 1, 28, 28]`, 0 (paper) to 255 (ink), and labels 0 to 9.

    Raises:
        UserError: a file is absent, truncated or damaged; the message names it.
    """
    paths = files.locate("mnist", FILES)
    x, label = _read_pair(*paths[:2])
    train, validation = hold_out(x, label, len(label) // VALIDATION_SHARE)
    test, _ = hold_out(*_read_pair(*paths[2:]), 0)
    return Dataset("mnist", SPEC, train, validation, test, tuple("0123456789"))


def _read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `[N, 1, 28, 28]` and their labels `[N]`, both uint8."""
    x, label = read_idx(images, dimensions=3), read_idx(labels, dimensions=1)
    if x.shape[1:] != (28, 28):
        raise UserError(f"{images} holds images of {x.shape[1]} × {x.shape[2]}, not 28 × 28; it is not MNIST's")
    if len(x) != len(label):
        raise UserError(f"{images} holds {len(x):,} images, but {labels} {len(label):,} labels; one is damaged")
    if not len(x):
        raise UserError(f"{images} holds no images; fetch it again")
    if label.max() > 9:
        raise UserError(f"{labels} holds the label {label.max()}, where 0 to 9 are known; it is damaged")
    return x[:, None], label


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A gzipped IDX file of unsigned bytes: two zero bytes, the type's code, the number of dimensions, each dimension
    as a big-endian 32-bit number, then the elements, the last dimension fastest.

    Returns:
        uint8, writable, with `dimensions` axes.

    Raises:
        UserError: the file is no such file, or a part of one.
    """
    try:
        content = gzip.decompress(files.read(path))
    except EOFError:
        raise UserError(f"{path} is truncated; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, BYTES, dimensions]):
        expected = bytes([0, 0, BYTES, dimensions]).hex()
        raise UserError(f"{path} begins with {content[:4].hex() or 'nothing'}, not {expected}; it is no such IDX file")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, 4).tolist())
    found, promised = len(content) - header, int(np.prod(shape, dtype=object))
    if found != promised:
        raise UserError(f"{path} holds {found:,} bytes where its header promises {promised:,}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
