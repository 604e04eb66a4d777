"""What is judged: an encoder, its codes of a data set, and the same examples as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...data.base import Dataset, Split
from ...encoders.base import Encoder
from ...encoders.parts.coders import UnitScale
from ...envs.errors import SpecError, UserError
from ...envs.spec import ObservationSpec
from .pca import MOST_EXAMPLES, MOST_NUMBERS, PCA, fit_pca

BLOCK = 1000  # examples at a time
MOST_TESTED = 10_000  # test examples, so many at most
SPLITS = ("train", "validation", "test")


class Labelled(NamedTuple):
    """Features of examples, float32 `[N, D]`, and their labels, int64 `[N]`, -1 = none."""

    x: Tensor
    label: Tensor

    def known(self) -> Labelled:
        """Those that have a label."""
        rows = self.label >= 0
        return self if bool(rows.all()) else Labelled(self.x[rows], self.label[rows])


Splits = dict[str, Labelled]


@dataclass
class Subject:
    """An encoder in eval mode and the data it is judged on; `codes` and `pca` are filled in as they are computed."""

    name: str  # of the encoder
    encoder: Encoder
    dataset: Dataset
    device: str = "cpu"
    seed: int = 0
    rows: dict[str, Tensor] = field(default_factory=dict)  # of each split, which examples are read
    codes: Splits = field(default_factory=dict)
    pca: PCA | None = None  # as wide as the codes, or as the observation if that is narrower
    report: dict[str, Any] = field(default_factory=dict)  # what is known so far

    def __post_init__(self) -> None:
        self.encoder = self.encoder.to(self.device).eval()
        self.scale = UnitScale(self.spec).to(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        for name in SPLITS:
            count = len(getattr(self.dataset, name))
            rows = torch.arange(count)
            if name == "test" and count > MOST_TESTED:
                rows = torch.randperm(count, generator=generator)[:MOST_TESTED].sort().values
            self.rows.setdefault(name, rows)

    @property
    def spec(self) -> ObservationSpec:
        return self.dataset.spec

    @property
    def width(self) -> int:
        return self.codes["test"].x.shape[1]

    @property
    def classes(self) -> int:
        """Number of classes; below 2 there is nothing to tell apart."""
        return len(self.dataset.classes)

    def has(self, ability: str) -> bool:
        """Whether the encoder can "reconstruct", "decode" (a code), "sample", or show what it "corrupted"."""
        return callable(getattr(self.encoder, ability, None))

    def stored(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Observations as stored `[n, ...]`, on the device, and labels `[n]`, block by block."""
        for rows in self.rows[split].split(BLOCK):
            batch = self.take(split, rows)
            yield batch["x"], batch["label"]

    def take(self, split: str, rows: Tensor) -> dict[str, Tensor]:
        part: Split = getattr(self.dataset, split)
        return {name: value.to(self.device) for name, value in part.take(rows.to(part.label.device)).items()}

    def unit(self, x: Tensor) -> Tensor:
        """Observations as stored to float32 `[N, S]` in unit scale."""
        return self.scale(x).flatten(1)

    def raw(self) -> Splits:
        """All the examples in unit scale."""
        return {name: self._gather(name, self.unit) for name in SPLITS}

    def encode(self, splits: tuple[str, ...]) -> None:
        """Fill `codes` of these splits.

        Raises:
            UserError: a code is not finite.
        """
        for name in splits:
            self.codes[name] = self._gather(name, self.encode_block)
            if not self.codes[name].x.isfinite().all():
                raise UserError(
                    f"encoder {self.name!r} gives codes that are not finite for {self.dataset.name}; train it again, "
                    "with a lower rate"
                )

    @torch.no_grad()
    def encode_block(self, x: Tensor) -> Tensor:
        """Observations as stored to codes float32 `[N, D]`."""
        return self.encoder.read(x).float().flatten(1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes `[N, D]` to observations in unit scale, float32 `[N, *shape]`."""
        decode: Any = self.encoder.decode
        return decode(codes.view(-1, *self.encoder.feature_shape)).float()

    def fit_pca(self, width: int) -> None:
        rows = torch.arange(len(self.dataset.train))
        if self.spec.size > MOST_NUMBERS:
            generator = torch.Generator().manual_seed(self.seed)
            rows = torch.randperm(len(rows), generator=generator)[:MOST_EXAMPLES].sort().values

        def blocks() -> Iterator[Tensor]:
            for some in rows.split(BLOCK):
                yield self.unit(self.take("train", some)["x"])

        self.pca = fit_pca(blocks, min(width, self.spec.size))

    def _gather(self, split: str, compute: Callable[[Tensor], Tensor]) -> Labelled:
        x, labels = None, []
        begin, count = 0, len(self.rows[split])
        for block, label in self.stored(split):
            values = compute(block)
            if x is None:
                x = values.new_empty(count, values.shape[1])
            x[begin : begin + len(values)] = values
            begin += len(values)
            labels.append(label)
        if x is None:
            raise UserError(f"{self.dataset.name} has no {split} examples to judge by")
        return Labelled(x, torch.cat(labels))


def check_fit(name: str, trained: ObservationSpec, dataset: Dataset) -> None:
    """Raises SpecError where an encoder of `trained` observations cannot be judged on `dataset`."""
    spec = dataset.spec
    if spec.vocabulary:
        raise SpecError(f"{dataset.name} shows tokens; probe judges encoders of numbers and images")
    if (spec.shape, spec.dtype) != (trained.shape, trained.dtype):
        raise SpecError(
            f"encoder {name!r} reads {trained.describe()}, but {dataset.name} shows {spec.describe()}; "
            "give the --data that it was trained on"
        )
