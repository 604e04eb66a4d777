"""A linear-chain conditional random field (Lafferty, McCallum and Pereira 2001): tags of a sentence, scored together.

The score of tags y is begin[y_1] + sum_t scores[t, y_t] + sum_t transition[y_(t-1), y_t] + end[y_n], as in Lample et
al. 2016 (arXiv:1603.01360, section 2.2). Scores are `[L, B, K]`: steps, sentences, tags; `mask` is bool `[L, B]`,
False = padding, which follows a sentence of one word or more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOTHING = -1  # the tag of padding


class ConditionalField(nn.Module):
    """What the scores of words do not say: which tag follows which, begins and ends a sentence. In float32 at least."""

    def __init__(self, tags: int):
        """They begin small and random: uniform within 0.1."""
        super().__init__()
        self.transition = nn.Parameter(torch.empty(tags, tags).uniform_(-0.1, 0.1))  # [from, to]
        self.begin = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))

    def nats(self, scores: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Minus the log-probability of tags, int64 `[L, B]` (any number in the padding): `[B]`."""
        return self.log_partition(scores, mask) - self.path_score(scores, tags, mask)

    def log_partition(self, scores: Tensor, mask: Tensor) -> Tensor:
        """The logarithm of the sum of exp(score) over all sequences of tags, `[B]`, by the forward algorithm."""
        return log_partition(_wide(scores), mask, self.transition, self.begin, self.end)

    def path_score(self, scores: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """The score of tags, int64 `[L, B]`: `[B]`."""
        return path_score(_wide(scores), tags, mask, self.transition, self.begin, self.end)

    def best_path(self, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The tags with the highest score, int64 `[L, B]`, -1 in the padding; and that score, `[B]`."""
        return best_path(_wide(scores), mask, self.transition, self.begin, self.end)


def _wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def log_partition(scores: Tensor, mask: Tensor, transition: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """`[B]`; see `ConditionalField.log_partition`. Its gradient by `scores` is each tag's probability."""
    total = begin + scores[0]  # [B, K]: over all beginnings that end in this tag
    for here, real in zip(scores[1:].unbind(), mask[1:].unbind(), strict=True):
        longer = torch.logsumexp(total.unsqueeze(2) + transition, 1) + here
        total = torch.where(real.unsqueeze(1), longer, total)
    return torch.logsumexp(total + end, 1)


def path_score(scores: Tensor, tags: Tensor, mask: Tensor, transition: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """`[B]`; see `ConditionalField.path_score`."""
    tags = tags.masked_fill(~mask, 0)
    own = scores.gather(2, tags.unsqueeze(2)).squeeze(2).masked_fill(~mask, 0).sum(0)
    moves = transition[tags[:-1], tags[1:]].masked_fill(~mask[1:], 0).sum(0)
    last = tags.gather(0, mask.sum(0, keepdim=True) - 1).squeeze(0)
    return begin[tags[0]] + own + moves + end[last]


@torch.no_grad()
def best_path(scores: Tensor, mask: Tensor, transition: Tensor, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Int64 `[L, B]` and `[B]`; see `ConditionalField.best_path`. By dynamic programming (Viterbi 1967)."""
    total, before = begin + scores[0], []
    keep = torch.arange(scores.shape[2], device=scores.device)
    for here, real in zip(scores[1:].unbind(), mask[1:].unbind(), strict=True):
        best, origin = (total.unsqueeze(2) + transition).max(1)
        total = torch.where(real.unsqueeze(1), best + here, total)
        before.append(torch.where(real.unsqueeze(1), origin, keep))  # padding leads back to the last word
    score, tag = (total + end).max(1)
    tags = [tag]
    for origin in reversed(before):
        tag = origin.gather(1, tag.unsqueeze(1)).squeeze(1)
        tags.append(tag)
    return torch.stack(tags[::-1]).masked_fill(~mask, NOTHING), score
