"""The task of parsing: transitions scored by a small net over what an encoder says of a few words.

The features are those of Chen and Manning (2014, "A Fast and Accurate Dependency Parser using Neural Networks",
section 3.1), without relations and grandchildren, and with ReLU for the cube; words are seen through an encoder of the
project. Training is that of Andor et al. (2016, arXiv:1603.06042, section 2.3): first single transitions, normalised
one by one; then whole sequences, normalised over the beam (equations 6 to 8), stopped where the right one is lost.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.parts.compute import Compute
from ..data.sequences import Batch, LengthBatches
from ..data.treebank import TreeDataset, Trees
from ..encoders.base import Encoder
from ..envs.errors import UserError
from . import sequence_figures
from .classifier import interval
from .epochs import Trainer
from .fit_encoder import first_encoder
from .fit_plan import FitPlan
from .parser import NOTHING, SLOTS, Beam, follow, search
from .sequence_model import by_length
from .task import Judged, SplitName, Task, TaskModel, plain_trainer, refuse_image_settings
from .task_options import ParseOptions

SHOWN = 3  # sentences whose trees are drawn


class Table(nn.Module):
    """What each word adds to the hidden units in each slot; with ReLU and a linear layer, scores of transitions."""

    def __init__(self, features: int, hidden: int, transitions: int):
        super().__init__()
        self.hidden = hidden
        self.special = nn.Parameter(0.1 * torch.randn(2, features))  # the root, and no word
        self.project = nn.Linear(features, len(SLOTS) * hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.output = nn.Linear(hidden, transitions)

    def read(self, features: Tensor) -> Tensor:
        """Features `[B, N, D]` of the words to `[B, N + 2, 8, hidden]`: the root, the words, no word."""
        root, none = self.special.to(features.dtype).unsqueeze(1).expand(-1, len(features), -1)
        whole = torch.cat([root.unsqueeze(1), features, none.unsqueeze(1)], 1)
        return self.project(whole).unflatten(2, (len(SLOTS), self.hidden))

    def score(self, read: Tensor, places: Tensor) -> Tensor:
        """Scores `[B, K, transitions]` at places `[B, K, 8]`."""
        rows, words, slots, hidden = read.shape
        row = torch.arange(rows, device=read.device).view(-1, 1, 1) * words
        index = (row + places) * slots + torch.arange(slots, device=read.device)
        summed = F.embedding_bag(index.flatten(0, 1), read.reshape(-1, hidden), mode="sum")
        return self.output(F.relu(summed + self.bias)).view(*places.shape[:2], -1)


class Parser(TaskModel):
    """An encoder, and the table that scores transitions by its features."""

    progress: Tensor

    def __init__(self, encoder: Encoder, relations: int, options: ParseOptions, frozen: bool = False):
        super().__init__(encoder, frozen)
        self.relations, self.options = relations, options
        self.table = Table(math.prod(encoder.feature_shape), options.hidden, 1 + 2 * relations)
        self.register_buffer("progress", torch.zeros(()))  # of the training, from 0 to 1; the trainer writes it
        self.train()

    @property
    def is_local(self) -> bool:
        """Whether single transitions are learned, and scores are normalised one by one."""
        return self.options.local_share == 1 or float(self.progress) < self.options.local_share

    def read(self, batch: Batch) -> Tensor:
        """What words add to hidden units, `[B, N + 2, 8, hidden]`."""
        x, mask = batch["x"].transpose(0, 1), batch["mask"].transpose(0, 1)
        return self.table.read(self.sequence_features(x, mask).transpose(0, 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats of the right sequence of transitions of each sentence, or of as much of it as stays in the beam."""
        read = self.read(batch)
        return {"nats": self.local_nats(read, batch) if self.is_local else self.global_nats(read, batch)}

    def local_nats(self, read: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the right transitions among those that are allowed, summed over a sentence: `[B]`."""
        gold = follow(batch["head"], batch["target"], self.relations)
        scores = self.table.score(read, gold.places).float().masked_fill(~gold.allowed, -torch.inf)
        nats = F.cross_entropy(scores.flatten(0, 1), gold.transition.flatten(), ignore_index=NOTHING, reduction="none")
        return nats.view(gold.transition.shape).sum(1)

    def global_nats(self, read: Tensor, batch: Batch) -> Tensor:
        """Minus the log-probability of the right sequence among those of the beam and itself, `[B]`."""
        gold = follow(batch["head"], batch["target"], self.relations)
        beam = self.search(read, batch, self.options.beam, gold=gold.transition)
        steps = beam.transition.shape[2]
        right = torch.where(
            torch.arange(steps, device=read.device) < beam.stop.unsqueeze(1), gold.transition[:, :steps], NOTHING
        )
        paths = torch.cat([right.unsqueeze(1), beam.transition], 1)
        seen = torch.cat([gold.places[:, :steps].unsqueeze(1), beam.places], 1)
        scores = self.table.score(read, seen.flatten(1, 2)).float().unflatten(1, paths.shape[1:])
        chosen = scores.gather(3, paths.clamp(min=0).unsqueeze(3)).squeeze(3)
        total = chosen.masked_fill(paths == NOTHING, 0).sum(2)
        is_other = ~beam.is_gold & ~beam.score.isneginf()
        others = total[:, 1:].masked_fill(~is_other, -torch.inf)
        return torch.cat([total[:, :1], others], 1).logsumexp(1) - total[:, 0]

    def search(self, read: Tensor, batch: Batch, width: int, gold: Tensor | None = None) -> Beam:
        """The best sequences of transitions of a batch, by what `read` gave."""
        return search(
            lambda places: self.table.score(read, places),
            batch["mask"].sum(1),
            self.relations,
            width,
            normalised=self.is_local,
            gold=gold,
        )


@torch.no_grad()
def parse(model: Parser, split: Trees, compute: Compute, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Heads and relations of all words of `split`, int64 `[S]` each. The model is back in its mode afterwards."""
    was_training = model.training
    said = torch.full((2, len(split.x)), -1)
    model.eval()
    try:
        for rows in by_length(split):
            for index in rows.split(-(-len(rows) // width)):
                batch = {name: value.to(compute.device) for name, value in split.take(index).items()}
                with compute.autocast():
                    found = model.search(model.read(batch), batch, width)
                mask = batch["mask"].cpu()
                place = (split.start[index].cpu().unsqueeze(1) + torch.arange(mask.shape[1]))[mask]
                for table, values in zip(said, (found.head, found.relation), strict=True):
                    table[place] = values[:, 0].cpu()[mask]
    finally:
        model.train(was_training)
    return said[0].numpy(), said[1].numpy()


def compare(head: np.ndarray, relation: np.ndarray, split: Trees, groups: tuple[str, ...] = ()) -> dict[str, Any]:
    """How parses agree with the trees of `split`, for result.json: attachment without and with relations."""
    attached = head == split.head.cpu().numpy()
    right = attached & (relation == split.target.cpu().numpy())
    low, high = interval(int((~right).sum()), len(right))
    start = split.start.cpu().numpy()
    whole = np.add.reduceat(~right, start[:-1]) == 0
    found: dict[str, Any] = {
        "error": float(1 - right.mean()),
        "low": low,
        "high": high,
        "mistakes": int((~right).sum()),
        "examples": len(right),
        "uas": float(attached.mean()),
        "las": float(right.mean()),
        "exact": float(whole.mean()),
    }
    if split.group is not None and groups:
        group = np.repeat(split.group.cpu().numpy(), np.diff(start))
        errors = {name: float(1 - right[group == n].mean()) for n, name in enumerate(groups) if (group == n).any()}
        found |= {"groups": errors, "mean_of_groups": float(np.mean(list(errors.values())))}
    return found


class ParseTask(Task):
    """Sentences and their trees. What a run is judged by is the share of words with the right head and relation."""

    unit = "sentences"

    def __init__(self, plan: FitPlan, dataset: TreeDataset):
        """Raises UserError where the plan asks what only images have, or settings make no sense."""
        run, options = plan.run, plan.task_options
        refuse_image_settings(plan)
        if run.label_smoothing or run.head_scale != 1 or run.hidden:
            raise UserError(f"{plan.task}: leave out --label-smoothing, --head-scale and --hidden")
        assert isinstance(options, ParseOptions)
        if min(options.hidden, options.beam) < 1 or not 0 <= options.local_share <= 1:
            raise UserError(
                f"{plan.task}: --task.hidden and --task.beam must be at least 1, --task.local-share from 0 to 1"
            )
        self.dataset, self.spec, self.options = dataset, dataset.spec, options

    def make_model(self, plan: FitPlan, *, weights: bool) -> Parser:
        run = plan.run
        torch.manual_seed(run.seed)
        encoder = first_encoder(plan, self.spec, weights=weights)
        return Parser(encoder, len(self.dataset.classes), self.options, run.encoder_mode == "frozen")

    def make_trainer(self, plan: FitPlan, model: TaskModel, compute: Compute) -> Trainer:
        assert isinstance(model, Parser)
        run, train = plan.run, self.dataset.train
        batches = LengthBatches(train, min(run.batch_size, len(train)), run.seed, compute.device)
        return plain_trainer(plan, model, model.loss, batches, compute)

    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        assert isinstance(model, Parser)
        sentences = self.dataset.validation if split == "validation" else self.dataset.test
        width = self.options.beam if is_final or not model.is_local else 1
        said = parse(model, sentences, compute, width)
        report = {"beam": width} | compare(*said, sentences, self.dataset.groups)
        values = {name: report[name] for name in ("error", "uas", "las", "exact")}
        if is_final:
            report["greedy"] = compare(*parse(model, sentences, compute, 1), sentences, self.dataset.groups)
        return Judged(report["error"], values, report, said)

    def score(self, judged: Judged) -> dict[str, Any]:
        what = "test words with the right head and relation in per cent"
        return {"mean": round(100 * judged.report["las"], 4), "what": what}

    def facts(self, plan: FitPlan) -> dict[str, Any]:
        return {"training_sequences": len(self.dataset.train)}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        groups = sequence_figures.groups_figure(judged.report["groups"], judged.report["mean_of_groups"])
        return {"groups": groups, "parses": trees_figure(self.dataset, *judged.detail)}


def trees_figure(dataset: TreeDataset, head: np.ndarray, relation: np.ndarray) -> Figure:
    """Parses of some test sentences, one of each group: arcs from head to dependent, red where the tree has another."""
    split = dataset.test
    assert split.group is not None
    start, right, labels = split.start.tolist(), split.head.cpu().numpy(), split.target.cpu().numpy()
    group = split.group.cpu().numpy()
    chosen = [int(np.flatnonzero(group == n)[0]) for n in range(1, len(dataset.groups)) if (group == n).any()][:SHOWN]
    figure = Figure(figsize=(10, 2.4 * len(chosen)), dpi=100, layout="constrained")
    for axes, number in zip(figure.subplots(len(chosen), 1, squeeze=False)[:, 0], chosen, strict=True):
        words = slice(start[number], start[number + 1])
        texts = [dataset.words[word] for word in split.x[words, 0]]
        for place, (governor, kind) in enumerate(zip(head[words], relation[words], strict=True), 1):
            at = words.start + place - 1
            is_right = governor == right[at] and kind == labels[at]
            colour = "tab:gray" if is_right else "tab:red"
            far = place - governor if governor else 0
            across = np.linspace(0, 1, 30)
            height = 0.3 + 0.25 * abs(far)
            axes.plot(place - far * across, height * 4 * across * (1 - across), color=colour, linewidth=1)
            axes.text(place - far / 2, height, dataset.classes[kind], ha="center", fontsize=6, color=colour)
        for place, text in enumerate(texts, 1):
            axes.text(place, -0.1, text, ha="center", va="top", fontsize=8)
        axes.set(xlim=(0.4, len(texts) + 0.6), ylim=(-0.6, None), title=dataset.groups[group[number]])
        axes.title.set_fontsize(8)
        axes.axis("off")
    return figure
