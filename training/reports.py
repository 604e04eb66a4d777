"""Where the numbers and pictures of a pretraining run go: files after every epoch, and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from ..data import Dataset
from ..encoders.base import Encoder
from .epochs import TOTAL
from .grids import grid, shown, to_png
from .trackers import Console, JsonLines, TensorBoard, Tracker

VALIDATION = f"validation/{TOTAL}"
BAR_SECONDS = 0.25  # between drawings of the progress bar
COLUMNS, SAMPLE_ROWS = 12, 6  # of pictures


class Reports:
    """Trackers of files, and those of the screen, which hear more often."""

    def __init__(self, directory: Path, total_examples: int, resume_step: int | None, screens: list[Tracker] | None):
        """`screens`: beside those that write files; None: a progress bar. `resume_step`: see `JsonLines`."""
        if screens is None:
            screens = [Console(total_examples, unit="images", shown=(VALIDATION, "validation loss {:,.5g}"))]
        self._screens, self._board = screens, TensorBoard(directory, resume_step)
        self._all: list[Tracker] = [JsonLines(directory / "metrics.jsonl", resume_step), self._board, *screens]
        self._drawn = 0.0

    def tick(self, examples: int, seconds: float) -> None:
        """Move the progress bar on, if it is time."""
        if (now := time.perf_counter()) - self._drawn > BAR_SECONDS:
            self._drawn = now
            for tracker in self._screens:
                tracker.log(examples, seconds, {})

    def epoch(self, examples: int, seconds: float, values: Mapping[str, float]) -> None:
        for tracker in self._all:
            tracker.log(examples, seconds, values)

    def pictures(self, examples: int, encoder: Encoder, dataset: Dataset) -> None:
        for name, png in pictures(encoder, dataset):
            self._board.picture(examples, name, png)

    def close(self) -> None:
        for tracker in self._all:
            tracker.close()


@torch.no_grad()
def pictures(encoder: Encoder, dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    """PNG files by name, of a learner of images: validation examples above their reconstructions, and samples.

    What is drawn is the same each time, no generator is moved, and the encoder is back in its mode afterwards.
    """
    if not dataset.spec.is_image:
        return
    was_training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    try:
        if callable(reconstruct := getattr(encoder, "reconstruct", None)):
            count = len(dataset.validation)  # spread out: neighbours in a recording are alike
            index = torch.linspace(0, count - 1, min(COLUMNS, count), device=dataset.validation.label.device).long()
            x = dataset.validation.take(index)["x"].to(device)
            rows = (x / 255, reconstruct(x))
            yield "reconstructions", to_png(grid([shown(row, dataset.spec) for row in rows]))
        if callable(sample := getattr(encoder, "sample", None)):
            drawn = sample(COLUMNS * SAMPLE_ROWS, torch.Generator(device).manual_seed(0))
            yield "samples", to_png(grid(np.split(shown(drawn, dataset.spec), SAMPLE_ROWS)))
    finally:
        encoder.train(was_training)
