"""The task of word vectors: words that stand near each other are told apart from noise, analogies are the judge.

Skip-gram and CBOW of Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space"
(arXiv:1301.3781, section 3). What is learned is the table of an encoder's vectors of tokens, whichever encoder that is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from matplotlib.figure import Figure

from ..agents.parts.compute import Compute
from ..data import analogies, corpus
from ..data.vocabulary import Vocabulary
from ..envs.errors import UnknownNameError, UserError
from . import word_figures
from .epochs import Trainer
from .fit_encoder import first_encoder, takes_weights
from .fit_plan import FitPlan
from .known_words import VOCABULARY_FILE
from .task import Judged, SplitName, Task, TaskModel, refuse_image_settings
from .task_options import Word2VecOptions
from .word_batches import WordBatches
from .word_model import WordModel, WordTrainer
from .word_vectors import accuracy, answer_sections, neighbours

NEIGHBOURS = 6  # of a word, in the table


class Word2VecTask(Task):
    """Running text, and questions about its words."""

    unit = "words"
    watched = ("validation/error", "analogies, error {:.2%}")

    def __init__(self, plan: FitPlan):
        """Raises UserError where the text or the questions are absent, or an option makes no sense."""
        assert isinstance(plan.task_options, Word2VecOptions)
        self.options = options = plan.task_options
        check_options(plan)
        self.corpus = (
            corpus.load_text(Path(options.text), options.least, options.vocabulary)
            if options.text
            else corpus.load_imdb(options.least, options.vocabulary)
        )
        self.spec = self.corpus.spec
        self.ids = self.corpus.train.ids[: options.words or None]
        self.counts = self.ids.bincount(minlength=len(self.corpus.words))
        self.vocabulary = Vocabulary(self.corpus.words, tuple(self.counts.tolist()))
        self.questions = analogies.number(analogies.load(), self.vocabulary.ids)

    def make_model(self, plan: FitPlan, *, weights: bool) -> WordModel:
        torch.manual_seed(plan.run.seed)
        encoder = first_encoder(plan, self.spec, weights=weights)
        model = WordModel(encoder, self.counts, self.options)
        if not takes_weights(plan):
            model.restart(torch.Generator().manual_seed(plan.run.seed))
        return model

    def make_trainer(self, plan: FitPlan, model: TaskModel, compute: Compute) -> Trainer:
        assert isinstance(model, WordModel)
        run, options = plan.run, self.options
        batches = WordBatches(
            self.ids,
            self.counts,
            window=options.window,
            noise=options.noise,
            sample=options.sample,
            batch_size=run.batch_size,
            seed=run.seed,
            device=compute.device,
        )
        return WordTrainer(
            model,
            batches,
            epochs=run.epochs,
            learning_rate=run.learning_rate * run.encoder_rate,
            schedule=run.schedule,
            warmup=run.warmup,
            compute=compute,
        )

    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        """There is one set of questions: it serves as both splits, and nothing is chosen by it."""
        assert isinstance(model, WordModel)
        vectors = model.vectors.float().cpu()
        sections = answer_sections(vectors, self.questions)
        share = accuracy(sections)
        report: dict[str, Any] = {
            "accuracy": share,
            "error": 1 - share,
            "asked": sum(section.asked for section in sections.values()),
            "sections": {name: section._asdict() for name, section in sections.items()},
        }
        if is_final:
            report["neighbours"] = self._neighbours(vectors)
        return Judged(1 - share, {"error": 1 - share, "accuracy": share}, report)

    def score(self, judged: Judged) -> dict[str, Any]:
        what = f"of {judged.report['asked']:,} analogies answered in per cent"
        return {"mean": round(100 * judged.report["accuracy"], 4), "what": what}

    def facts(self, plan: FitPlan) -> dict[str, Any]:
        return {"words": len(self.ids), "vocabulary": len(self.vocabulary)}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        assert isinstance(model, WordModel)
        figures = {}
        if len(self.vocabulary) >= 5:
            figures["map"] = word_figures.map_figure(model.vectors, self.vocabulary.words)
        if judged.report["neighbours"]:
            figures["neighbours"] = word_figures.neighbours_figure(judged.report["neighbours"])
        if sections := judged.report["sections"]:
            shares = {name: (section["asked"], section["right"]) for name, section in sections.items()}
            figures["analogies"] = word_figures.sections_figure(shares)
        return figures

    def save_beside(self, bundle: Path) -> None:
        self.vocabulary.save(bundle / VOCABULARY_FILE)

    def _neighbours(self, vectors: torch.Tensor) -> dict[str, list[tuple[str, float]]]:
        known = [word for word in self.options.shown if word in self.vocabulary.ids]
        if not known or len(self.vocabulary) < 2:
            return {}
        ids, cosines = neighbours(vectors, torch.from_numpy(self.vocabulary.encode(known)), NEIGHBOURS)
        return {
            word: [(self.vocabulary.words[place], round(cosine, 4)) for place, cosine in zip(*row, strict=True)]
            for word, *row in zip(known, ids.tolist(), cosines.tolist(), strict=True)
        }


def check_options(plan: FitPlan) -> None:
    """Raises UserError for settings that make no sense, or that word vectors have no use for."""
    run, options = plan.run, plan.task_options
    refuse_image_settings(plan)
    if run.hidden:
        raise UserError("word2vec learns vectors of words, with no layers above: leave out --hidden")
    if run.optimizer != "sgd" or run.momentum or run.weight_decay or run.max_gradient_norm or run.label_smoothing:
        raise UserError(
            "word2vec takes plain steps, of the vectors of the words in a batch alone: give --optimizer sgd --momentum "
            "0, and leave out --weight-decay, --max-gradient-norm and --label-smoothing"
        )
    if run.encoder_mode == "frozen":
        raise UserError("word2vec learns the encoder's own vectors; --encoder-mode frozen leaves nothing to learn")
    if run.patience:
        raise UserError("word2vec has no validation set to stop by: its only judge is the test; leave out --patience")
    for name in ("model", "loss"):
        known = get_args(get_type_hints(Word2VecOptions)[name])
        if getattr(options, name) not in known:
            raise UnknownNameError(name, getattr(options, name), known)
    for name in ("window", "negatives", "noise"):
        if getattr(options, name) < 1:
            raise UserError(f"--task.{name} must be at least 1, not {getattr(options, name)}")
    for name in ("sample", "vocabulary", "least", "words"):
        if getattr(options, name) < 0:
            raise UserError(f"--task.{name} must not be negative, but is {getattr(options, name)}")
