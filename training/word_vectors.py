"""Word vectors as such: which words are thinned out or drawn as noise, which are alike, and analogies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..envs.errors import UserError

NOISE_POWER = 0.75  # of counts (Mikolov et al. 2013, arXiv:1310.4546, section 2.2)
_LOT = 1024  # questions that are answered at once


class Answers(NamedTuple):
    """How many questions of a section there were, and how many were answered right."""

    asked: int
    right: int


def noise_distribution(counts: Tensor, power: float = NOISE_POWER) -> Tensor:
    """How probable each word is as noise: float64 `[V]`, in proportion to counts `[V]` to the `power`."""
    weights = counts.double() ** power
    return weights / weights.sum()


def keep_probability(counts: Tensor, sample: float) -> Tensor:
    """With which probability an occurrence of each word is kept, so that frequent words are read less often.

    Where f is the word's share of the text, sqrt(sample / f) + sample / f: not the formula of Mikolov et al. 2013,
    section 2.3, but that of their program and of gensim.

    Args:
        counts: `[V]`.
        sample: the share above which words are thinned; 0 = all are kept.

    Returns:
        float32 `[V]`.
    """
    if not sample:
        return torch.ones(len(counts))
    ratio = sample * counts.sum() / counts.double().clamp(min=1)
    return (ratio.sqrt() + ratio).clamp(max=1).float()


def neighbours(vectors: Tensor, words: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The words most alike, nearest first, by the cosine of their vectors.

    Args:
        vectors: `[V, D]`.
        words: int64 `[N]`, whose neighbours are looked for; none is a neighbour of itself.
        count: at most; there are V - 1.

    Returns:
        ids, int64 `[N, count]`, and cosines `[N, count]`.
    """
    directions = F.normalize(vectors, dim=1)
    alike = directions[words] @ directions.t()
    alike.scatter_(1, words.unsqueeze(1), -torch.inf)
    found = alike.topk(min(count, len(vectors) - 1), dim=1)
    return found.indices, found.values


def analogies(vectors: Tensor, questions: Tensor) -> Tensor:
    """What is to the third word as the second to the first: the word nearest to b - a + c, none of these three.

    3CosAdd (Mikolov, Yih and Zweig 2013, section 4): all vectors of length 1, nearest by the cosine.

    Args:
        vectors: `[V, D]`, V at least 4.
        questions: int64 `[Q, 3]` or more columns, of which the first three are read.

    Returns:
        int64 `[Q]`.
    """
    if len(vectors) < 4:
        raise UserError(f"an analogy needs four words at least, and there are {len(vectors)}")
    directions = F.normalize(vectors, dim=1)
    answers = []
    for lot in questions[:, :3].split(_LOT):
        a, b, c = lot.unbind(1)
        nearness = (directions[b] - directions[a] + directions[c]) @ directions.t()
        answers.append(nearness.scatter_(1, lot, -torch.inf).argmax(1))
    return torch.cat(answers) if answers else questions[:, 0]


def answer_sections(vectors: Tensor, sections: Mapping[str, Tensor]) -> dict[str, Answers]:
    """How many questions int64 `[Q, 4]` of each section, those without any left out, are answered by their fourth."""
    return {
        name: Answers(len(questions), int((analogies(vectors, questions) == questions[:, 3]).sum()))
        for name, questions in sections.items()
        if len(questions)
    }


def accuracy(answers: Mapping[str, Answers]) -> float:
    """The share of all questions that were answered right; 0 where there were none."""
    return sum(section.right for section in answers.values()) / max(
        sum(section.asked for section in answers.values()), 1
    )
