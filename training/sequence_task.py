"""The task of answering at the steps of a sequence: copying, questions about stories, tags, classes of reviews."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

from ..agents.parts.compute import Compute
from ..data.sequences import DrawnBatches, LengthBatches, SequenceDataset, Sequences, pack
from ..envs.errors import UserError
from . import sequence_figures
from .epochs import Trainer
from .fit_encoder import first_encoder
from .fit_plan import FitPlan
from .sequence_model import SequenceModel, answer
from .task import Judged, SplitName, Task, TaskModel, plain_trainer, refuse_image_settings
from .task_options import StoryOptions


class SequenceTask(Task):
    """Sequences that lie in memory, or are drawn as they are needed."""

    unit = "sequences"
    is_heavy = True

    def __init__(self, plan: FitPlan, dataset: SequenceDataset):
        """Raises UserError where the plan asks of sequences what only images or labels have."""
        run = plan.run
        refuse_image_settings(plan)
        if run.label_smoothing or run.head_scale != 1:
            raise UserError(f"{plan.task}: --label-smoothing and --head-scale are for images only")
        self.dataset, self.spec = dataset, dataset.spec
        self.train = dataset.train
        if isinstance(plan.task_options, StoryOptions) and plan.task_options.row_steps:
            if plan.task_options.row_steps < 0:
                raise UserError(f"--task.row-steps must not be negative, but is {plan.task_options.row_steps}")
            self.train, self.unit = pack(dataset.train, plan.task_options.row_steps, run.seed), "rows"

    def make_model(self, plan: FitPlan, *, weights: bool) -> SequenceModel:
        run, data = plan.run, self.dataset
        torch.manual_seed(run.seed)
        encoder = first_encoder(plan, self.spec, weights=weights, words=self.dataset.words)
        frozen = run.encoder_mode == "frozen"
        answers = self.train.answers() if data.draw is None else None
        return SequenceModel(
            encoder, data.outputs, run.hidden, asks_bits=data.asks_bits, answers=answers, frozen=frozen
        )

    def make_trainer(self, plan: FitPlan, model: TaskModel, compute: Compute) -> Trainer:
        assert isinstance(model, SequenceModel)
        run, data = plan.run, self.dataset
        batches = (
            LengthBatches(self.train, min(run.batch_size, len(self.train)), run.seed, compute.device)
            if data.draw is None
            else DrawnBatches(data.draw, run.batch_size, run.epoch_batches, run.seed, compute.device)
        )
        return plain_trainer(plan, model, model.loss, batches, compute)

    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        assert isinstance(model, SequenceModel)
        found = answer(model, self._split(split), compute).report(self._split(split), self.dataset.groups)
        values = {name: found[name] for name in ("error", "cross_entropy", "without_mistake")}
        values |= {f"error/{name}": error for name, error in found.get("groups", {}).items()}
        return Judged(found["error"], values, found)

    def score(self, judged: Judged) -> dict[str, Any]:
        what = "bits" if self.dataset.asks_bits else "answers"
        return {"mean": round(100 * judged.error, 4), "what": f"wrong {what} of the test set in per cent"}

    def facts(self, plan: FitPlan) -> dict[str, Any]:
        drawn = self.dataset.draw is not None
        return {"training_sequences": "drawn anew for every batch" if drawn else len(self.dataset.train)}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        assert isinstance(model, SequenceModel)
        figures = {}
        if "groups" in judged.report:
            figures["groups"] = sequence_figures.groups_figure(judged.report["groups"], judged.report["mean_of_groups"])
        if self.dataset.asks_bits:
            figures["answers"] = sequence_figures.bits_figure(model, self.dataset.test, self.dataset.groups, compute)
        return figures

    def _split(self, name: SplitName) -> Sequences:
        return self.dataset.validation if name == "validation" else self.dataset.test
