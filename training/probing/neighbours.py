"""k nearest neighbours by blocks of exact distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Metric = Literal["euclidean", "cosine"]
METRICS: tuple[Metric, ...] = ("euclidean", "cosine")
COUNTS = (1, 5, 15)
BLOCK = 500  # queries at a time: [500, 55,000] likenesses are 110 MB
GROUP = 128  # columns of which only the best is looked at first


class Neighbours(NamedTuple):
    """Test accuracy of a vote, with the number of voters that was best on validation."""

    accuracy: float
    voters: int
    validation: float


def nearest(queries: Tensor, examples: Tensor, count: int) -> dict[Metric, Tensor]:
    """The `count` nearest of `examples` `[N, D]` to each of `queries` `[Q, D]`, as indices int64 `[Q, count]`.

    Nearest first, by Euclidean distance and by cosine; both follow from the same inner products, which are taken of
    centred numbers so that a large common mean costs no digits. Zero vectors are like nothing (cosine 0).
    """
    mean = examples.mean(0)
    centred = examples - mean
    half_square = centred.square().sum(1) / 2
    along_mean = examples @ mean  # x·m
    length = examples.norm(dim=1).clamp(min=1e-12)
    found: dict[Metric, list[Tensor]] = {metric: [] for metric in METRICS}
    for block in queries.split(BLOCK):
        inner = (block - mean) @ centred.T  # (q - m)·(x - m), [B, N]
        # |q - x|²/2 = |q - m|²/2 - (q - m)·(x - m) + |x - m|²/2, whose first term is the same for all x
        found["euclidean"].append(top(inner - half_square, count))
        inner += along_mean
        inner += ((block - mean) @ mean).unsqueeze(1)  # q·x = (q - m)·(x - m) + m·x + (q - m)·m
        inner /= length
        found["cosine"].append(top(inner, count))
    return {metric: torch.cat(rows) for metric, rows in found.items()}


def top(scores: Tensor, count: int) -> Tensor:
    """Columns (int64 `[B, count]`) of the largest `scores` `[B, N]`, largest first.

    Exact: the `count` largest lie in the `count` groups with the largest maxima, or among the last columns that fill no
    group. Several times faster than sorting out all the columns.
    """
    rows, columns = scores.shape
    groups = columns // GROUP
    if groups <= count:
        return scores.topk(count, 1).indices
    whole = scores[:, : groups * GROUP].unflatten(1, (groups, GROUP))
    best = whole.amax(2).topk(count, 1).indices  # [B, count]
    offsets = torch.arange(GROUP, device=scores.device)
    candidates = (best.unsqueeze(2) * GROUP + offsets).flatten(1)
    rest = torch.arange(groups * GROUP, columns, device=scores.device).expand(rows, -1)
    candidates = torch.cat([candidates, rest], 1)
    return candidates.gather(1, scores.gather(1, candidates).topk(count, 1).indices)


def vote(labels: Tensor, classes: int) -> Tensor:
    """The commonest of `labels` (int64 `[Q, k]`, nearest first) in each row; of tied ones, whose first is nearest."""
    votes = torch.zeros(len(labels), classes, dtype=torch.int64, device=labels.device)
    votes.scatter_add_(1, labels, torch.ones_like(labels))
    leads = (votes == votes.amax(1, keepdim=True)).gather(1, labels)
    return labels.gather(1, leads.int().argmax(1, keepdim=True)).squeeze(1)


def neighbour_accuracies(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    counts: Sequence[int] = COUNTS,
) -> dict[Metric, Neighbours]:
    """Test accuracy by metric; `count` is the best of `counts` on validation, the smaller of equal ones.

    Args:
        train, validation, test: features float32 `[N, D]` and labels int64 `[N]`.
    """
    counts = [count for count in counts if count <= len(train[1])]
    features = torch.cat([validation[0], test[0]])
    result: dict[Metric, Neighbours] = {}
    for metric, rows in nearest(features, train[0], max(counts)).items():
        labels = train[1][rows]
        chosen = Neighbours(-1, 0, -1)
        for count in counts:
            right = vote(labels[:, :count], classes) == torch.cat([validation[1], test[1]])
            on_validation = int(right[: len(validation[1])].sum()) / len(validation[1])
            if on_validation > chosen.validation:
                on_test = int(right[len(validation[1]) :].sum()) / len(test[1])
                chosen = Neighbours(on_test, count, on_validation)
        result[metric] = chosen
    return result
