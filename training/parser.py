"""A transition system that builds dependency trees from left to right, and the search for the best of its sequences.

Arc-standard (Nivre 2004, "Incrementality in Deterministic Dependency Parsing"): words move from a buffer to a stack;
an arc joins the two on top and removes the dependent. A sentence of n words takes 2n transitions. All of it works on R
parses at once. Number 0 is the root, words are counted from 1; N is the longest sentence's number of words.

Transitions: 0 shifts; 1 + l makes the top the head of the word below it (left arc) with relation l; 1 + L + l makes the
word below the head of the top (right arc). NOTHING leaves a parse as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SHIFT, NOTHING = 0, -1
SLOTS = ("top", "second", "third", "next", "top's left", "top's right", "second's left", "second's right")

Score = Callable[[Tensor], Tensor]  # places of SLOTS, int64 [B, K, 8] -> scores of all transitions [B, K, A]


class States(NamedTuple):
    """R unfinished parses. What is written to the last column of a table is never read."""

    stack: Tensor  # int64 [R, N + 2], from the root upwards
    depth: Tensor  # int64 [R]: how many lie on the stack
    front: Tensor  # int64 [R]: the next word of the buffer
    length: Tensor  # int64 [R]: words
    head: Tensor  # int64 [R, N + 2]; -1 = none yet
    relation: Tensor  # int64 [R, N + 2]; -1 = none yet
    left: Tensor  # int64 [R, N + 2]: a word's leftmost dependent on its left; 0 = none
    right: Tensor  # int64 [R, N + 2]: its rightmost dependent on its right; 0 = none

    @property
    def over(self) -> Tensor:
        """Bool `[R]`: only the root is left."""
        return (self.front > self.length) & (self.depth == 1)

    def take(self, rows: Tensor) -> States:
        """The parses at `rows`, int64."""
        return States(*(part[rows] for part in self))


def begin(lengths: Tensor) -> States:
    """The root alone on the stack, all words in the buffer; `lengths` int64 `[R]`."""
    table = lengths.new_zeros(len(lengths), int(lengths.max()) + 2)
    one = torch.ones_like(lengths)
    return States(table, one, one, lengths, table - 1, table - 1, table, table)


def allowed(states: States, relations: int) -> Tensor:
    """Bool `[R, 1 + 2 * relations]`. The root gets its one dependent last, and is nobody's."""
    shift = states.front <= states.length
    left = states.depth >= 3
    right = left | ((states.depth == 2) & ~shift)
    arcs = [flag.unsqueeze(1).expand(-1, relations) for flag in (left, right)]
    return torch.cat([shift.unsqueeze(1), *arcs], 1)


def apply(states: States, transition: Tensor, relations: int) -> States:
    """The parses after one transition each, int64 `[R]`, which must be allowed, or NOTHING."""
    shift = transition == SHIFT
    left, right = (transition > SHIFT) & (transition <= relations), transition > relations
    arc = left | right
    top, second = _at(states, 1), _at(states, 2)
    nowhere = states.stack.shape[1] - 1
    dependent = torch.where(arc, torch.where(left, second, top), nowhere)
    governor = torch.where(left, top, second)
    place = torch.where(shift, states.depth, torch.where(left, states.depth - 2, nowhere))
    return States(
        _write(states.stack, place, torch.where(shift, states.front, top)),
        states.depth + shift.long() - arc.long(),
        states.front + shift.long(),
        states.length,
        _write(states.head, dependent, governor),
        _write(states.relation, dependent, (transition - 1) % relations),
        _write(states.left, torch.where(left, top, nowhere), second),
        _write(states.right, torch.where(right, second, nowhere), top),
    )


def places(states: States) -> Tensor:
    """Where the words of `SLOTS` stand, int64 `[R, 8]`; N + 1 where there is none."""
    none = states.stack.shape[1] - 1
    top, second, third = (torch.where(states.depth >= n, _at(states, n), none) for n in (1, 2, 3))
    front = torch.where(states.front <= states.length, states.front, none)
    around = [_read(table, word) for word in (top, second) for table in (states.left, states.right)]
    known = [word < none for word in (top, top, second, second)]
    children = [torch.where(k & (child > 0), child, none) for k, child in zip(known, around, strict=True)]
    return torch.stack([top, second, third, front, *children], 1)


def oracle(states: States, head: Tensor, relation: Tensor, relations: int) -> Tensor:
    """The transition towards a projective tree, int64 `[R]`, from states on the way to it.

    An arc is made as soon as it can be: a word that is removed has all of its dependents. NOTHING where it is over.

    Args:
        head, relation: int64 `[R, N]`, of the words; heads are counted from 1, 0 is the root, -1 padding.
    """
    top, second = _at(states, 1), _at(states, 2)
    wanted, made = _read(head, top - 1), (states.head[:, 1:-1] == top.unsqueeze(1)).sum(1)
    has_all = made == (head == top.unsqueeze(1)).sum(1)
    two = states.depth >= 2
    left = two & (second > 0) & (_read(head, second - 1) == top)
    right = two & (wanted == second) & has_all & ((second > 0) | (states.front > states.length))
    action = torch.where(right, 1 + relations + _read(relation, top - 1), SHIFT)
    action = torch.where(left, 1 + _read(relation, second - 1), action)
    return torch.where(states.over, NOTHING, action)


class Path(NamedTuple):
    """The sequences of transitions that lead to known trees, of B sentences, T = 2N steps."""

    places: Tensor  # int64 [B, T, 8]: before each transition
    transition: Tensor  # int64 [B, T]; NOTHING behind the end
    allowed: Tensor  # bool [B, T, A]


def follow(head: Tensor, relation: Tensor, relations: int) -> Path:
    """What the oracle does with trees, int64 `[B, N]` with -1 in the padding."""
    states, steps = begin((head >= 0).sum(1)), []
    for _ in range(2 * head.shape[1]):
        transition = oracle(states, head, relation, relations)
        steps.append((places(states), transition, allowed(states, relations)))
        states = apply(states, transition, relations)
    return Path(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))


class Beam(NamedTuple):
    """The k best sequences of each of B sentences, best first; those with a score of -inf do not exist."""

    score: Tensor  # [B, k]
    places: Tensor  # int64 [B, k, T, 8]
    transition: Tensor  # int64 [B, k, T]; NOTHING behind the end
    is_gold: Tensor  # bool [B, k]: it is what the given path says; False where none was given
    stop: Tensor  # int64 [B]: steps until the gold path was lost, or until all was over
    head: Tensor  # int64 [B, k, N]
    relation: Tensor  # int64 [B, k, N]


@torch.no_grad()
def search(
    score: Score, lengths: Tensor, relations: int, width: int, *, normalised: bool, gold: Tensor | None = None
) -> Beam:
    """Follow the `width` best sequences of transitions at a time.

    Args:
        score: of the transitions at places `[B, K, 8]`, not normalised.
        lengths: words of each sentence, int64 `[B]`.
        normalised: a sequence's score is the sum of log-probabilities among the transitions that are allowed; False:
            the sum of the scores themselves (Andor et al. 2016, arXiv:1603.06042, section 2.2).
        gold: int64 `[B, T]`, the transitions that are right: a sentence is followed only until they leave the beam
            (early update, Collins and Roark 2004).
    """
    count, total_steps = len(lengths), 2 * int(lengths.max())
    states = begin(lengths.repeat_interleave(width))
    found = torch.full((count, width), -torch.inf, device=lengths.device)
    found[:, 0] = 0  # they are all alike at first
    is_gold = (found == 0) & (gold is not None)
    offset = torch.arange(count, device=lengths.device).unsqueeze(1) * width
    seen = lengths.new_empty(count, width, 0, len(SLOTS))
    done = lengths.new_empty(count, width, 0)
    stop = 2 * lengths
    frozen = torch.zeros_like(lengths, dtype=torch.bool)
    for step in range(total_steps):
        here = places(states).view(count, width, -1)
        value = score(here).float()
        may = allowed(states, relations).view_as(value)
        value = value.masked_fill(~may, -torch.inf)
        if normalised:
            value = value.log_softmax(2)
        rests = states.over.view(count, width) | frozen.unsqueeze(1) | found.isneginf()
        value = torch.where(rests.unsqueeze(2), _only_first(value), value)
        found, chosen = (found.unsqueeze(2) + value).flatten(1).topk(width, 1)
        parent, transition = chosen // value.shape[2], chosen % value.shape[2]
        transition = torch.where(rests.gather(1, parent) | found.isneginf(), NOTHING, transition)
        seen = torch.cat([_rearrange(seen, parent), _rearrange(here, parent).unsqueeze(2)], 2)
        done = torch.cat([_rearrange(done, parent), transition.unsqueeze(2)], 2)
        states = apply(states.take((parent + offset).flatten()), transition.flatten(), relations)
        if gold is not None:
            is_gold = is_gold.gather(1, parent) & (frozen.unsqueeze(1) | (transition == gold[:, step : step + 1]))
            lost = ~is_gold.any(1) & ~frozen
            stop = torch.where(lost, step + 1, stop)
            frozen = frozen | lost
            if bool(frozen.all()):
                break
    head, relation = (table[:, 1:-1].unflatten(0, (count, width)) for table in (states.head, states.relation))
    return Beam(found, seen, done, is_gold, stop, head, relation)


def _only_first(value: Tensor) -> Tensor:
    """Scores of a parse that rests: one way to go on, at no cost."""
    blank = torch.full_like(value, -torch.inf)
    blank[..., 0] = 0
    return blank


def _rearrange(values: Tensor, parent: Tensor) -> Tensor:
    """`values` `[B, k, ...]` in the order of `parent`, int64 `[B, k]`."""
    index = parent.view(*parent.shape, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def _at(states: States, depth: int) -> Tensor:
    """What lies on the stack, 1 = on top; the root where it is not so high."""
    return _read(states.stack, states.depth - depth)


def _read(table: Tensor, place: Tensor) -> Tensor:
    """One number of each row; of the nearest place where there is no such one."""
    return table.gather(1, place.clamp(0, table.shape[1] - 1).unsqueeze(1)).squeeze(1)


def _write(table: Tensor, place: Tensor, value: Tensor) -> Tensor:
    return table.scatter(1, place.unsqueeze(1), value.unsqueeze(1))
