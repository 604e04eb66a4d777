"""What word vectors learn from: words that stand near each other, told apart from words drawn as noise.

Negative sampling is eq. 4 of Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their
Compositionality" (arXiv:1310.4546). Noise-contrastive estimation (Gutmann and Hyvarinen 2010; Mnih and Teh 2012,
section 3) is the same sum over scores less log(k P_noise(word)); those are the `shift` here.

All pairs of a batch share their noise words, so that everything is a product of matrices: K shared words count k/K each
(the `share`), which in the mean is k words of its own for every pair. A shared word that happens to be a pair's target
counts as noise all the same. Losses are sums over pairs, not means: a step is that of word2vec's update per pair.
The gradients are written out; a test compares them with automatic ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Shift(NamedTuple):
    """What is added to scores before the sigmoid, by the word that is told: a bias, less log(k P_noise)."""

    target: Tensor  # float32, as the targets without their last axis
    noise: Tensor  # float32 [K]


class Gradients(NamedTuple):
    """Of a loss, each in the shape of what it is the gradient by."""

    inputs: Tensor
    targets: Tensor
    noise: Tensor
    shift: Shift | None


def skip_gram_loss(
    inputs: Tensor, targets: Tensor, noise: Tensor, pair: Tensor, share: float, shift: Shift | None = None
) -> Tensor:
    """The sum over all pairs of a word and a word of its context, which the first is to tell from noise.

    Args:
        inputs: float32 `[N, L, D]`, input vectors of L consecutive words.
        targets: float32 `[N, L + 2W, D]`, output vectors of these words with W more on each side.
        noise: float32 `[K, D]`, output vectors.
        pair: float32 `[N, L, L + 2W]`, 1 where the second word counts as context of the first, else 0.
        share: noise words per pair k, divided by K.

    Returns:
        a scalar.
    """
    near, far = _skip_gram_scores(inputs, targets, noise, shift)
    return (F.softplus(-near) * pair).sum() + share * (F.softplus(far) * pair.sum(-1, keepdim=True)).sum()


def skip_gram_gradients(
    inputs: Tensor, targets: Tensor, noise: Tensor, pair: Tensor, share: float, shift: Shift | None = None
) -> Gradients:
    """Of `skip_gram_loss`: with s a score, sigmoid(s) - 1 times `pair`, and sigmoid(s) times share and pairs."""
    near, far = _skip_gram_scores(inputs, targets, noise, shift)
    near = near.sigmoid_().sub_(1).mul_(pair)
    far = far.sigmoid_().mul_(pair.sum(-1, keepdim=True).mul_(share))
    by_inputs = torch.baddbmm(torch.matmul(far, noise), near, targets)
    by_noise = far.flatten(0, 1).t() @ inputs.flatten(0, 1)
    by_targets = torch.bmm(near.transpose(1, 2), inputs)
    by_shift = None if shift is None else Shift(near.sum(1), far.sum((0, 1)))
    return Gradients(by_inputs, by_targets, by_noise, by_shift)


def bag_loss(
    inputs: Tensor, targets: Tensor, noise: Tensor, pair: Tensor, share: float, shift: Shift | None = None
) -> Tensor:
    """CBOW: the mean of a context's input vectors is to tell the word in its middle from noise; summed over words.

    Args:
        inputs: float32 `[N, L + 2W, D]`, input vectors of L consecutive words with W more on each side.
        targets: float32 `[N, L, D]`, output vectors of the L words.
        noise, pair, share: as in `skip_gram_loss`; words without any context do not count.

    Returns:
        a scalar.
    """
    mean, is_there = _weights(pair)
    near, far = _bag_scores(torch.bmm(mean, inputs), targets, noise, shift)
    return (F.softplus(-near) * is_there).sum() + share * (F.softplus(far) * is_there.unsqueeze(-1)).sum()


def bag_gradients(
    inputs: Tensor, targets: Tensor, noise: Tensor, pair: Tensor, share: float, shift: Shift | None = None
) -> Gradients:
    """Of `bag_loss`. Every input vector gets its part of the mean's gradient (word2vec's own program gives it all)."""
    mean, is_there = _weights(pair)
    bag = torch.bmm(mean, inputs)
    near, far = _bag_scores(bag, targets, noise, shift)
    near = near.sigmoid_().sub_(1).mul_(is_there)
    far = far.sigmoid_().mul_(is_there.unsqueeze(-1) * share)
    by_bag = torch.matmul(far, noise).addcmul_(near.unsqueeze(-1), targets)
    by_noise = far.flatten(0, 1).t() @ bag.flatten(0, 1)
    by_inputs = torch.bmm(mean.transpose(1, 2), by_bag)
    by_shift = None if shift is None else Shift(near, far.sum((0, 1)))
    return Gradients(by_inputs, near.unsqueeze(-1) * bag, by_noise, by_shift)


def _skip_gram_scores(inputs: Tensor, targets: Tensor, noise: Tensor, shift: Shift | None) -> tuple[Tensor, Tensor]:
    """`[N, L, L + 2W]` and `[N, L, K]`."""
    near, far = torch.bmm(inputs, targets.transpose(1, 2)), torch.matmul(inputs, noise.t())
    return (near, far) if shift is None else (near + shift.target.unsqueeze(1), far + shift.noise)


def _bag_scores(bag: Tensor, targets: Tensor, noise: Tensor, shift: Shift | None) -> tuple[Tensor, Tensor]:
    """`[N, L]` and `[N, L, K]`."""
    near, far = (bag * targets).sum(-1), torch.matmul(bag, noise.t())
    return (near, far) if shift is None else (near + shift.target, far + shift.noise)


def _weights(pair: Tensor) -> tuple[Tensor, Tensor]:
    """The weights `[N, L, L + 2W]` of a mean over the context, and which words have one, 0 or 1 `[N, L]`."""
    count = pair.sum(-1)
    return pair / count.clamp(min=1).unsqueeze(-1), count.clamp(max=1)
