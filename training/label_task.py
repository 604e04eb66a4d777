"""The task of naming an observation's class: any data set with labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..agents.parts.compute import Compute
from ..data import Batches, Dataset, redivide
from ..encoders.parts.augment_images import check_augmentation
from ..envs.errors import UserError
from . import fit_figures
from .classifier import Classifier, judge
from .epochs import Trainer
from .fit_model import Alternating, make_classifier, make_trainer
from .fit_plan import FitPlan
from .task import Judged, SplitName, Task, TaskModel


class LabelTask(Task):
    """Images or vectors and their classes."""

    def __init__(self, plan: FitPlan, dataset: Dataset):
        """Raises UserError where there are no labels, or the plan treats as images what are none."""
        if not dataset.classes:
            raise UserError(f"{plan.task} has no labels, so there is nothing to fit; `saccade pretrain` learns without")
        check_augmentation(plan.augment, dataset.spec.shape)
        if (plan.run.alternate_flip or plan.run.views != "one") and not dataset.spec.is_image:
            raise UserError("only images can be mirrored or moved: leave out --alternate-flip and --views")
        if plan.run.held_out:
            dataset = redivide(dataset, plan.run.held_out)
        self.dataset, self.spec = dataset, dataset.spec

    def make_model(self, plan: FitPlan, *, weights: bool) -> Classifier:
        return make_classifier(plan, self.dataset, weights=weights)

    def make_trainer(self, plan: FitPlan, model: TaskModel, compute: Compute) -> Trainer:
        assert isinstance(model, Classifier)
        return make_trainer(plan, self.dataset, model, compute)

    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        assert isinstance(model, Classifier)
        examples = self.dataset.validation if split == "validation" else self.dataset.test
        found = judge(model, examples, len(self.dataset.classes), compute, plan.run.views if is_final else "one")
        error = found.mistakes / found.examples
        values = {"error": error, "cross_entropy": found.cross_entropy}
        return Judged(error, values, found.to_json(), found.confusion)

    def score(self, judged: Judged) -> dict[str, Any]:
        return {"mean": round(100 * judged.report["accuracy"], 4), "what": "test accuracy in per cent"}

    def facts(self, plan: FitPlan) -> dict[str, Any]:
        return {"labels": plan.run.labels or len(self.dataset.train), "views": plan.run.views}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        assert isinstance(judged.detail, np.ndarray)
        figures = {"confusion": fit_figures.confusion_figure(judged.detail, self.dataset.classes)}
        filters = fit_figures.first_filters(model, self.spec)
        return figures if filters is None else figures | {"filters": fit_figures.filter_figure(filters)}

    def begin_epoch(self, trainer: Trainer) -> None:
        if isinstance(trainer.batches, Batches) and isinstance(trainer.batches.split, Alternating):
            trainer.batches.split.epoch.fill_(trainer.epoch)
