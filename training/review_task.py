"""The task of naming the class of a whole sequence, such as whether a review liked its film."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import torch
from torch import Tensor

from ..agents.parts.compute import Compute
from ..data.sequences import Batch, SequenceDataset
from ..encoders.base import Encoder
from ..envs.errors import UnknownNameError
from .fit_encoder import first_encoder
from .fit_plan import FitPlan
from .sequence_model import SequenceModel
from .sequence_task import SequenceTask
from .task import Judged, SplitName, TaskModel
from .task_options import Pool, ReviewOptions


class Pooled(SequenceModel):
    """One answer for each sequence, from the features of all its steps."""

    def __init__(
        self,
        encoder: Encoder,
        outputs: int,
        hidden: tuple[int, ...] = (),
        *,
        pool: Pool = "mean",
        frozen: bool = False,
    ):
        super().__init__(encoder, outputs, hidden, frozen=frozen)
        self.pool = pool

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `SequenceModel`'s, for sequences that are asked for one answer each."""
        x, mask, target = (batch[name].transpose(0, 1) for name in ("x", "mask", "target"))
        features = self.sequence_features(x, mask)
        asked = self.asked(batch)
        row = asked.nonzero()[:, 1]
        return self.head(pooled(features, mask, self.pool)[row]), target[asked]


def pooled(features: Tensor, mask: Tensor, pool: Pool) -> Tensor:
    """Features `[L, B, D]` of the steps where `mask` `[L, B]` is True to one vector for each sequence, `[B, D]`."""
    if pool == "last":
        last = (mask.sum(0) - 1).view(1, -1, 1).expand(1, -1, features.shape[2])
        return features.gather(0, last).squeeze(0)
    if pool == "max":
        return features.masked_fill(~mask.unsqueeze(2), -torch.inf).amax(0)
    return (features * mask.unsqueeze(2)).sum(0) / mask.sum(0).unsqueeze(1)


class ReviewTask(SequenceTask):
    """Reviews and what they say of their film; a run is known by its accuracy."""

    unit = "reviews"

    def __init__(self, plan: FitPlan, dataset: SequenceDataset):
        """Raises UserError as `SequenceTask`, UnknownNameError for an unknown way to pool."""
        super().__init__(plan, dataset)
        assert isinstance(plan.task_options, ReviewOptions)
        if plan.task_options.pool not in get_args(Pool):
            raise UnknownNameError("way to pool", plan.task_options.pool, get_args(Pool))

    def make_model(self, plan: FitPlan, *, weights: bool) -> Pooled:
        run = plan.run
        torch.manual_seed(run.seed)
        encoder = first_encoder(plan, self.spec, weights=weights, words=self.dataset.words)
        frozen = run.encoder_mode == "frozen"
        return Pooled(encoder, self.dataset.outputs, run.hidden, pool=plan.task_options.pool, frozen=frozen)

    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        found = super().judge(plan, model, split, compute, is_final=is_final)
        report = found.report | {"accuracy": 1 - found.error}
        values = {name: found.values[name] for name in ("error", "cross_entropy")}
        return dataclasses.replace(found, values=values, report=report)

    def score(self, judged: Judged) -> dict[str, Any]:
        return {"mean": round(100 * judged.report["accuracy"], 4), "what": "test accuracy in per cent"}
