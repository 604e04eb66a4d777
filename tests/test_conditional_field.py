"""The conditional random field against the enumeration of all sequences of tags, and its gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from saccade.training.conditional_field import ConditionalField, best_path, log_partition, path_score
from torch import Tensor

TAGS = 3
LENGTHS = (4, 1, 3, 2)


def case(scale: float = 1.0) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Scores float64 `[4, 4, 3]` with noise in the padding, mask, and (transition, begin, end)."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = torch.arange(max(LENGTHS)).unsqueeze(1) < torch.tensor(LENGTHS)
    return draw(max(LENGTHS), len(LENGTHS), TAGS), mask, (draw(TAGS, TAGS), draw(TAGS), draw(TAGS))


def enumerate_scores(scores: Tensor, field: tuple[Tensor, Tensor, Tensor], row: int) -> dict[tuple[int, ...], float]:
    """The score of every sequence of tags of a sentence, word by word."""
    transition, begin, end = (part.numpy() for part in field)
    words = scores[: LENGTHS[row], row].numpy()
    found = {}
    for tags in itertools.product(range(TAGS), repeat=len(words)):
        total = begin[tags[0]] + end[tags[-1]]
        total += sum(words[place, tag] for place, tag in enumerate(tags))
        found[tags] = float(total + sum(transition[pair] for pair in itertools.pairwise(tags)))
    return found


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_partition_paths_and_the_best_of_them(scale: float):
    scores, mask, field = case(scale)
    partition = log_partition(scores, mask, *field)
    tags, best = best_path(scores, mask, *field)
    for row, length in enumerate(LENGTHS):
        every = enumerate_scores(scores, field, row)
        assert float(partition[row]) == pytest.approx(np.logaddexp.reduce(list(every.values())), rel=1e-12)
        wanted = max(every, key=lambda path: every[path])
        assert tags[:, row].tolist() == [*wanted, *[-1] * (max(LENGTHS) - length)]
        assert float(best[row]) == pytest.approx(every[wanted], rel=1e-12)
    one = torch.tensor([[0, 2, 1, 0], [1, -1, 2, 2], [2, -1, 0, 7], [2, -1, -1, 7]])  # whatever is in the padding
    found = path_score(scores, one, mask, *field)
    for row, length in enumerate(LENGTHS):
        path = tuple(one[:length, row].tolist())
        assert float(found[row]) == pytest.approx(enumerate_scores(scores, field, row)[path], rel=1e-12)


def test_gradients_are_the_probabilities_of_tags_and_pairs():
    scores, mask, (transition, begin, end) = case()
    scores, transition = scores.requires_grad_(), transition.requires_grad_()
    log_partition(scores, mask, transition, begin, end).sum().backward()
    singles, pairs = torch.zeros_like(scores), torch.zeros_like(transition)
    for row, length in enumerate(LENGTHS):
        every = enumerate_scores(scores.detach(), (transition.detach(), begin, end), row)
        total = np.logaddexp.reduce(list(every.values()))
        for tags, score in every.items():
            share = math.exp(score - total)
            singles[range(length), row, tags] += share
            for first, second in itertools.pairwise(tags):
                pairs[first, second] += share
    assert scores.grad is not None
    assert transition.grad is not None
    torch.testing.assert_close(scores.grad, singles.detach())
    torch.testing.assert_close(transition.grad, pairs.detach())
    assert not scores.grad[~mask].any()


def test_gradients_of_the_loss_by_differences():
    scores, mask, field = case()
    tags = torch.randint(TAGS, scores.shape[:2], generator=torch.Generator().manual_seed(1))

    def nats(*parts: Tensor) -> Tensor:
        scores, *field = parts
        return log_partition(scores, mask, *field) - path_score(scores, tags, mask, *field)

    inputs = tuple(part.clone().requires_grad_() for part in (scores, *field))
    assert torch.autograd.gradcheck(nats, inputs)


def test_sentences_do_not_see_one_another_nor_their_padding():
    torch.manual_seed(0)
    field = ConditionalField(TAGS)
    scores, mask, _ = case()
    target = torch.ones_like(mask, dtype=torch.int64)
    together, (tags, _) = field.nats(scores, target, mask), field.best_path(scores, mask)
    for row, length in enumerate(LENGTHS):
        own = scores[:length, row : row + 1], mask[:length, row : row + 1]
        alone = field.nats(own[0], target[:length, row : row + 1], own[1])
        torch.testing.assert_close(alone[0], together[row])
        assert torch.equal(field.best_path(*own)[0][:, 0], tags[:length, row])


def test_half_precision_is_computed_in_float32():
    field = ConditionalField(TAGS)
    scores, mask, _ = case()
    low = scores.bfloat16()
    assert field.log_partition(low, mask).dtype == torch.float32
    torch.testing.assert_close(field.log_partition(low, mask), field.log_partition(low.float(), mask))


def test_a_rule_of_succession_is_learned():
    """Words say nothing; tags go round: the field alone must find out, up to where a sentence begins."""
    torch.manual_seed(0)
    field = ConditionalField(TAGS)
    optimiser = torch.optim.Adam(field.parameters(), 0.3)
    tags = (torch.arange(6).unsqueeze(1) + torch.arange(TAGS)) % TAGS
    scores, mask = torch.zeros(6, TAGS, TAGS), torch.ones(6, TAGS, dtype=torch.bool)
    for _ in range(60):
        optimiser.zero_grad()
        field.nats(scores, tags, mask).mean().backward()
        optimiser.step()
    assert float(field.nats(scores, tags, mask).mean().detach()) == pytest.approx(math.log(TAGS), abs=0.05)
    scores[0, 0, 1] = 1  # a word of the first sentence says where it begins
    assert field.best_path(scores, mask)[0][:, 0].tolist() == [1, 2, 0, 1, 2, 0]
