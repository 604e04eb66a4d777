"""The task of tagging every word of a sentence: parts of speech, judged by accuracy, and chunks, judged by F1."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import data
from ..agents.parts.compute import Compute
from ..data.conll2000 import TaggedDataset, TaggedSequences, chunk_scores
from ..data.sequences import Batch, Sequences
from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from . import tagging_figures
from .classifier import interval
from .conditional_field import ConditionalField
from .fit_encoder import first_encoder
from .fit_plan import FitPlan
from .sequence_task import SequenceTask
from .tagging_model import UNKNOWN, Tagger, WordReader, tag
from .task import Judged, SplitName, TaskModel
from .task_options import TaggingOptions

WORDS_FILE = "words.json"  # beside the encoder: what the ids of words, characters and tags stand for


@dataclass(frozen=True, kw_only=True)
class GivenTags(TaggedSequences):
    """Sentences whose parts of speech are given; `take` gives them as "tag" `[B, L]`, 0 in the padding."""

    given: Tensor  # int64 [S]

    def take(self, index: Tensor) -> Batch:
        return super().take(index) | {"tag": Sequences(self.given, self.target, self.start).take(index)["x"]}

    def to(self, device: str) -> GivenTags:
        moved = super().to(device)
        assert isinstance(moved, GivenTags)
        return dataclasses.replace(moved, given=self.given.to(device))


class TaggingTask(SequenceTask):
    """Sentences, all of whose words get a tag. Encoders read the vectors that a `WordReader` makes of words."""

    unit = "sentences"

    def __init__(self, plan: FitPlan, dataset: TaggedDataset):
        """Raises UserError where the plan asks what sentences have not, or settings make no sense."""
        options = plan.task_options
        assert isinstance(options, TaggingOptions)
        _check(plan, options)
        self.parts: tuple[str, ...] = ()  # of speech, where they are read
        if options.tags:
            known = data.load("pos")
            assert isinstance(known, TaggedDataset)
            dataset, self.parts = _given(dataset, known), known.classes
        super().__init__(plan, dataset)
        self.options, self.sentences = options, dataset
        width = self._reader().size  # without words and letters, a reader costs nothing
        self.spec = ObservationSpec((width,))
        self.is_chunks = plan.task == "chunks"
        measure = "F1 {:.2%}" if self.is_chunks else "accuracy {:.2%}"
        self.watched = ("validation/f1" if self.is_chunks else "validation/accuracy", f"validation {measure}")

    def _reader(self) -> WordReader:
        found = self.sentences
        return WordReader(self.options, len(found.words), len(found.characters), len(self.parts))

    def make_model(self, plan: FitPlan, *, weights: bool) -> Tagger:
        run, outputs = plan.run, self.dataset.outputs
        torch.manual_seed(run.seed)
        reader = self._reader()
        encoder = first_encoder(plan, self.spec, weights=weights)
        field = ConditionalField(outputs) if self.options.crf else None
        return Tagger(reader, encoder, outputs, run.hidden, field)

    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        assert isinstance(model, Tagger)
        sentences = self._split(split)
        assert isinstance(sentences, TaggedSequences)
        said, nats = tag(model, sentences, compute)
        report = compare(said, sentences, self.dataset.classes, chunks=self.is_chunks)
        report["cross_entropy"] = float(nats.sum() / len(said))
        names = ("error", "accuracy", "unknown_accuracy", "f1", "cross_entropy", "without_mistake")
        return Judged(report["error"], {name: report[name] for name in names if name in report}, report, said)

    def score(self, judged: Judged) -> dict[str, Any]:
        name, what = ("f1", "test chunk F1") if self.is_chunks else ("accuracy", "test POS accuracy")
        return {"mean": round(100 * judged.report[name], 4), "what": f"{what} in per cent"}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        found, said, right = self.dataset, judged.detail.numpy(), self.dataset.test.target.cpu().numpy()
        return {
            "confusion": tagging_figures.confusion_of_tags(said, right, found.classes),
            "sentences": tagging_figures.sentences_figure(said, found),
        }

    def save_beside(self, bundle: Path) -> None:
        found = self.sentences
        held = {"words": found.words, "characters": found.characters, "tags": found.classes, "parts": self.parts}
        (bundle / WORDS_FILE).write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def compare(said: Tensor, split: Sequences, classes: tuple[str, ...], *, chunks: bool) -> dict[str, Any]:
    """How tags, int64 `[S]`, agree with those of `split`, for result.json: of words, and of whole chunks.

    The error is the share of wrong words; with `chunks` it is 1 - F1 by the rules of `conlleval`. The interval, low and
    high, is Wilson's for the share of wrong words.
    """
    right = split.target.cpu()
    wrong, start = (said != right).numpy(), split.start.cpu()
    low, high = interval(int(wrong.sum()), len(wrong))
    found: dict[str, Any] = {
        "error": float(wrong.mean()),
        "low": low,
        "high": high,
        "accuracy": float(1 - wrong.mean()),
        "mistakes": int(wrong.sum()),
        "examples": len(wrong),
        "sequences": len(split),
        "without_mistake": float((np.add.reduceat(wrong, start[:-1].numpy()) == 0).mean()),
    }
    unknown = (split.x == UNKNOWN).cpu().numpy()
    if unknown.any():
        found |= {"unknown_words": int(unknown.sum()), "unknown_accuracy": float(1 - wrong[unknown].mean())}
    if chunks:
        precision, recall, f1 = chunk_scores(_named(right, start, classes), _named(said, start, classes))
        found |= {"error": 1 - f1, "precision": precision, "recall": recall, "f1": f1}
    return found


def _named(tags: Tensor, start: Tensor, classes: Sequence[str]) -> list[list[str]]:
    """The names of tags, by sentence."""
    return [[classes[place] for place in sentence.tolist()] for sentence in tags.split(start.diff().tolist())]


def _given(dataset: TaggedDataset, known: TaggedDataset) -> TaggedDataset:
    """`dataset` with the tags of `known`, which holds the same sentences."""

    def joined(one: Sequences, other: Sequences) -> GivenTags:
        if not torch.equal(one.start, other.start):
            raise UserError(f"{dataset.name} and {known.name} do not hold the same sentences: leave out --task.tags")
        fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
        return GivenTags(**fields, given=other.target)

    return dataclasses.replace(
        dataset,
        train=joined(dataset.train, known.train),
        validation=joined(dataset.validation, known.validation),
        test=joined(dataset.test, known.test),
    )


def _check(plan: FitPlan, options: TaggingOptions) -> None:
    for name in ("words", "characters", "tags", "window"):
        if getattr(options, name) < 0:
            raise UserError(f"--task.{name} must not be negative, but is {getattr(options, name)}")
    for name in ("dropout", "word_dropout"):
        if not 0 <= getattr(options, name) < 1:
            raise UserError(f"--task.{name.replace('_', '-')} must be at least 0 and below 1")
    if not options.words and not options.characters:
        raise UserError(f"{plan.task}: --task.words and --task.characters are both 0, so there is nothing to read")
    if options.tags and plan.task == "pos":
        raise UserError("pos: --task.tags would give away what is asked for; it is for chunks")
    if plan.run.encoder_mode == "frozen":
        raise UserError(
            f"{plan.task}: the vectors of words are learned along with the encoder, so it cannot be frozen; "
            "take --encoder-mode finetune"
        )
