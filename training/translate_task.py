"""The task of translating a sequence of tokens into another, symbol by symbol, with attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..agents.parts.compute import Compute
from ..data.dates import Pairs, PairsDataset
from ..data.sequences import NOT_ASKED, Batch, LengthBatches
from ..encoders.base import Encoder
from ..envs.errors import UnknownNameError, UserError
from .attention import Attention, Decoder, Memory, Told, beam_search, character_nats, greedy
from .classifier import interval
from .epochs import Trainer
from .fit_encoder import first_encoder
from .fit_plan import FitPlan
from .sequence_model import by_length
from .task import Judged, SplitName, Task, TaskModel, plain_trainer, refuse_image_settings
from .task_options import TranslateOptions

SHOWN = 6  # pairs on the map


class Translator(TaskModel):
    """An encoder, and a decoder that looks at its features."""

    def __init__(self, encoder: Encoder, outputs: int, options: TranslateOptions, frozen: bool = False):
        super().__init__(encoder, frozen)
        features = math.prod(encoder.feature_shape)
        self.decoder = Decoder(features, outputs, options.hidden, options.embedding, options.attention)
        self.train()

    def read(self, batch: Batch) -> Memory:
        """What the decoder looks at, of a batch with "x" and "mask"."""
        x, mask = batch["x"].transpose(0, 1), batch["mask"].transpose(0, 1)
        return self.decoder.read(self.sequence_features(x, mask), batch["mask"])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per symbol, the end among them; the symbols before it are the right ones."""
        logits, _ = self.decoder(self.read(batch), batch["written"])
        asked = batch["written"] != NOT_ASKED
        return {"cross_entropy": character_nats(logits, batch["written"])[asked]}


@torch.no_grad()
def translate(model: Translator, split: Pairs, compute: Compute, width: int = 1) -> np.ndarray:
    """Translations of all of `split`, int64 `[N, L]`, -1 behind the end, as long as the longest in `split`.

    The model is back in the mode it was in afterwards. `width`: of the beam; 1: greedy.
    """
    was_training, most = model.training, split.written.shape[1]
    told = np.full(split.written.shape, NOT_ASKED, np.int64)
    model.eval()
    try:
        for rows in by_length(split):
            for index in rows.split(-(-len(rows) // width)):
                batch = {name: value.to(compute.device) for name, value in split.take(index).items()}
                with compute.autocast():
                    found = search(model, batch, width, most)
                told[index.cpu().numpy(), : found.symbols.shape[1]] = found.symbols.cpu().numpy()
    finally:
        model.train(was_training)
    return told


def search(model: Translator, batch: Batch, width: int, most: int) -> Told:
    """Greedy where the beam is 1 wide."""
    memory = model.read(batch)
    return greedy(model.decoder, memory, most) if width == 1 else beam_search(model.decoder, memory, width, most)


def compare(told: np.ndarray, written: np.ndarray) -> dict[str, Any]:
    """How translations `[N, L]` agree with what was to be written `[N, L]`, for result.json."""
    wrong = int((told != written).any(1).sum())
    asked = written != NOT_ASKED
    low, high = interval(wrong, len(written))
    return {
        "error": wrong / len(written),
        "low": low,
        "high": high,
        "mistakes": wrong,
        "examples": len(written),
        "exact": 1 - wrong / len(written),
        "wrong_symbols": float((told != written)[asked].mean()),
    }


class TranslateTask(Task):
    """Pairs of sequences. What a run is judged by is the share that is translated without any mistake."""

    unit = "pairs"

    def __init__(self, plan: FitPlan, dataset: PairsDataset):
        """Raises UserError where the plan asks of pairs what only images or labels have."""
        run = plan.run
        refuse_image_settings(plan)
        if run.label_smoothing or run.head_scale != 1:
            raise UserError(f"{plan.task}: --label-smoothing and --head-scale are for images only")
        if run.hidden:
            raise UserError(f"{plan.task}: leave out --hidden; the decoder's width is --task.hidden")
        options = plan.task_options
        assert isinstance(options, TranslateOptions)
        if min(options.hidden, options.embedding, options.beam) < 1:
            raise UserError(f"{plan.task}: --task.hidden, --task.embedding and --task.beam must be at least 1")
        if options.attention not in get_args(Attention):
            raise UnknownNameError("attention", options.attention, get_args(Attention))
        self.dataset, self.spec, self.options = dataset, dataset.spec, options

    def make_model(self, plan: FitPlan, *, weights: bool) -> Translator:
        run = plan.run
        torch.manual_seed(run.seed)
        encoder = first_encoder(plan, self.spec, weights=weights)
        return Translator(encoder, self.dataset.outputs, self.options, run.encoder_mode == "frozen")

    def make_trainer(self, plan: FitPlan, model: TaskModel, compute: Compute) -> Trainer:
        assert isinstance(model, Translator)
        run, train = plan.run, self.dataset.train
        batches = LengthBatches(train, min(run.batch_size, len(train)), run.seed, compute.device)
        return plain_trainer(plan, model, model.loss, batches, compute)

    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        assert isinstance(model, Translator)
        pairs = self._split(split)
        written, told = pairs.written.cpu().numpy(), translate(model, pairs, compute)
        report = compare(told, written)
        values = {name: report[name] for name in ("error", "wrong_symbols")}
        if is_final:
            width = self.options.beam
            report["beam"] = {"width": width} | compare(translate(model, pairs, compute, width), written)
        return Judged(report["error"], values, report, told)

    def score(self, judged: Judged) -> dict[str, Any]:
        return {"mean": round(100 * judged.report["exact"], 4), "what": "exact test translations in per cent"}

    def facts(self, plan: FitPlan) -> dict[str, Any]:
        return {"training_sequences": len(self.dataset.train)}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        assert isinstance(model, Translator)
        return {"attention": attention_figure(model, self.dataset, range(SHOWN), compute)}

    def _split(self, name: SplitName) -> Pairs:
        return self.dataset.validation if name == "validation" else self.dataset.test


@torch.no_grad()
def attention_figure(model: Translator, dataset: PairsDataset, numbers: Sequence[int], compute: Compute) -> Figure:
    """Where the decoder looked (across) when it told each symbol (down) of some test pairs."""
    figure = Figure(figsize=(10, 2.1 * -(-len(numbers) // 2)), dpi=100, layout="constrained")
    pages = figure.subplots(-(-len(numbers) // 2), 2, squeeze=False).flatten()
    was_training = model.training
    model.eval()
    for axes, number in zip(pages, numbers, strict=False):
        batch = dataset.test.take(torch.tensor([number], device=dataset.test.start.device))
        batch = {name: value.to(compute.device) for name, value in batch.items()}
        with compute.autocast():
            told = search(model, batch, 1, dataset.test.written.shape[1])
        assert told.weights is not None
        weights = told.weights[0].float().cpu().numpy()
        axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(batch["x"].shape[1]), [dataset.words[letter] for letter in batch["x"][0]], fontsize=7)
        symbols = [*dataset.symbols, "end"]
        axes.set_yticks(range(told.symbols.shape[1]), [symbols[place] for place in told.symbols[0]], fontsize=7)
        right = bool((told.symbols[0].cpu() == dataset.test.written[number, : told.symbols.shape[1]].cpu()).all())
        axes.set_title("" if right else "wrong", fontsize=8, color="tab:red")
    for axes in pages[len(numbers) :]:
        axes.axis("off")
    model.train(was_training)
    return figure
