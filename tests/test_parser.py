"""The transition system: trees and their transitions, search against enumeration, losses by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from saccade.data import treebank
from saccade.encoders import make_encoder
from saccade.training.parse_task import Parser, Table
from saccade.training.parser import NOTHING, SHIFT, allowed, apply, begin, follow, places, search
from saccade.training.task_options import ParseOptions
from torch import Tensor

RELATIONS = 2


def spans(words: range, generator: np.random.Generator, head: list[int], above: int) -> None:
    """Draw a projective tree over `words`, whose topmost word depends on `above`."""
    if not words:
        return
    top = int(generator.choice(words))
    head[top - 1] = above
    for side in (range(words.start, top), range(top + 1, words.stop)):
        rest = side
        while rest:  # cut into pieces, each with a top of its own
            cut = int(generator.integers(rest.start, rest.stop)) + 1
            spans(range(rest.start, cut), generator, head, top)
            rest = range(cut, rest.stop)


def random_trees(count: int, longest: int) -> tuple[Tensor, Tensor]:
    """Heads and relations, int64 `[count, longest]` with -1 in the padding; the first tree has all words."""
    generator = np.random.default_rng(5)
    head = torch.full((count, longest), -1)
    for number in range(count):
        length = longest if number == 0 else int(generator.integers(1, longest + 1))
        tree = [0] * length
        spans(range(1, length + 1), generator, tree, 0)
        head[number, :length] = torch.tensor(tree)
    relation = torch.from_numpy(generator.integers(0, RELATIONS, head.shape)).masked_fill(head < 0, -1)
    return head, relation


def replay(head: Tensor, relation: Tensor, relations: int) -> None:
    """The oracle's transitions are allowed and lead to the tree, in 2 n steps."""
    path = follow(head, relation, relations)
    lengths = (head >= 0).sum(1)
    assert ((path.transition != NOTHING).sum(1) == 2 * lengths).all()
    states = begin(lengths)
    for step in range(path.transition.shape[1]):
        transition = path.transition[:, step]
        going = transition != NOTHING
        assert allowed(states, relations)[going].gather(1, transition[going].unsqueeze(1)).all()
        assert torch.equal(path.places[:, step], places(states))
        states = apply(states, transition, relations)
    assert states.over.all()
    real = head >= 0
    assert torch.equal(states.head[:, 1:-1][real], head[real])
    assert torch.equal(states.relation[:, 1:-1][real], relation[real])


def test_the_oracle_reaches_every_projective_tree():
    replay(*random_trees(300, 9), RELATIONS)


def test_the_oracle_reaches_every_tree_of_the_treebank():
    bank = treebank.load()
    batch = bank.train.take(torch.arange(1000))
    replay(batch["head"], batch["target"], len(bank.classes))


def test_whatever_is_allowed_ends_after_two_steps_a_word():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.arange(1, 9).repeat(20)
    states = begin(lengths)
    for step in range(2 * 8):
        may = allowed(states, RELATIONS)
        assert torch.equal(states.over, lengths * 2 <= step)
        assert (may.any(1) | states.over).all()
        drawn = torch.multinomial(may.float() + states.over.unsqueeze(1), 1, generator=generator).squeeze(1)
        states = apply(states, torch.where(states.over, NOTHING, drawn), RELATIONS)
    words = states.head[:, 1:-1]
    for length, heads in zip(lengths.tolist(), words.tolist(), strict=True):
        assert heads[:length].count(0) == 1
        assert all(0 <= head <= length for head in heads[:length])


def test_the_root_stays_and_gets_its_dependent_last():
    states = begin(torch.tensor([2]))
    assert allowed(states, 1).tolist() == [[True, False, False]]
    states = apply(states, torch.tensor([SHIFT]), 1)
    assert allowed(states, 1).tolist() == [[True, False, False]]
    states = apply(states, torch.tensor([SHIFT]), 1)
    assert allowed(states, 1).tolist() == [[False, True, True]]
    states = apply(states, torch.tensor([1]), 1)  # word 2 is the head of word 1
    assert places(states).tolist() == [[2, 0, 3, 3, 1, 3, 3, 3]]
    assert allowed(states, 1).tolist() == [[False, False, True]]
    states = apply(states, torch.tensor([2]), 1)
    assert states.head[:, 1:3].tolist() == [[2, 0]]


def sequences(length: int) -> Iterator[tuple[list[int], list[list[int]]]]:
    """All sequences of transitions of a sentence, with the places before each: plain lists, step by step."""

    def go(stack: list[int], front: int, arcs: dict[int, int], done: list[int], seen: list[list[int]]) -> Iterator:
        if front > length and stack == [0]:
            yield done, seen
            return
        none = length + 1
        left = {h: min([d for d, g in arcs.items() if g == h and d < h], default=none) for h in range(length + 2)}
        right = {h: max([d for d, g in arcs.items() if g == h and d > h], default=none) for h in range(length + 2)}
        top, second, third = ([none] * 3 + stack)[-1], ([none] * 3 + stack)[-2], ([none] * 3 + stack)[-3]
        around = [left[top], right[top], left[second], right[second]]
        here = [*seen, [top, second, third, front if front <= length else none, *around]]
        if front <= length:
            yield from go([*stack, front], front + 1, arcs, [*done, SHIFT], here)
        for relation in range(RELATIONS):
            if len(stack) >= 3:
                yield from go([*stack[:-2], top], front, {**arcs, second: top}, [*done, 1 + relation], here)
            if len(stack) >= 3 or (len(stack) == 2 and front > length):
                after = {**arcs, top: second}
                yield from go(stack[:-1], front, after, [*done, 1 + RELATIONS + relation], here)

    yield from go([0], 1, {}, [], [])


def scorer(words: int, rows: int = 1) -> tuple[Table, Tensor]:
    torch.manual_seed(7)
    table = Table(6, 12, 1 + 2 * RELATIONS)
    with torch.no_grad():
        table.output.weight.mul_(4)
        table.special.mul_(10)
    return table, table.read(torch.randn(rows, words, 6))


@torch.no_grad()
def enumerate_scores(table: Table, read: Tensor, words: int, normalised: bool) -> dict[tuple[int, ...], float]:
    found = {}
    for transitions, seen in sequences(words):
        scores = table.score(read, torch.tensor([seen])).double()[0]
        if normalised:
            states = begin(torch.tensor([words]))
            for step, transition in enumerate(transitions):
                scores[step].masked_fill_(~allowed(states, RELATIONS)[0], -torch.inf)
                states = apply(states, torch.tensor([transition]), RELATIONS)
            scores = scores.log_softmax(1)
        found[tuple(transitions)] = float(scores[range(2 * words), transitions].sum())
    return found


@torch.no_grad()
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("words", [1, 2, 3])
def test_a_beam_that_keeps_everything_finds_what_enumeration_finds(words: int, normalised: bool):
    table, read = scorer(words)
    wanted = enumerate_scores(table, read, words, normalised)
    width = len(wanted) + 3
    found = search(lambda here: table.score(read, here), torch.tensor([words]), RELATIONS, width, normalised=normalised)
    assert found.score[0, len(wanted) :].isneginf().all()
    said = {tuple(row): float(score) for row, score in zip(found.transition[0].tolist(), found.score[0], strict=True)}
    best = sorted(wanted.values(), reverse=True)
    np.testing.assert_allclose(found.score[0, : len(wanted)].numpy(), best, rtol=1e-4, atol=1e-5)
    assert all(said[transitions] == pytest.approx(score, rel=1e-4, abs=1e-5) for transitions, score in wanted.items())
    if normalised:
        assert np.exp(best).sum() == pytest.approx(1)


@torch.no_grad()
def test_a_beam_of_one_is_greedy():
    table, read = scorer(7, rows=4)
    lengths = torch.tensor([7, 3, 5, 1])
    found = search(lambda here: table.score(read, here), lengths, RELATIONS, 1, normalised=True)
    states = begin(lengths)
    for step in range(14):
        value = table.score(read, places(states).unsqueeze(1))[:, 0]
        best = value.masked_fill(~allowed(states, RELATIONS), -torch.inf).argmax(1)
        best = torch.where(states.over, NOTHING, best)
        assert torch.equal(found.transition[:, 0, step], best)
        states = apply(states, best, RELATIONS)
    assert torch.equal(found.head[:, 0], states.head[:, 1:-1])


@torch.no_grad()
def test_sentences_of_a_batch_do_not_see_one_another():
    table, read = scorer(6, rows=3)
    lengths = torch.tensor([4, 6, 2])
    together = search(lambda here: table.score(read, here), lengths, RELATIONS, 4, normalised=False)
    for row, length in enumerate(lengths.tolist()):
        own = read[row : row + 1, [*range(length + 1), 7]]  # the root, its words, no word

        def score(here: Tensor, own: Tensor = own) -> Tensor:
            return table.score(own, here)

        alone = search(score, lengths[row : row + 1], RELATIONS, 4, normalised=False)
        torch.testing.assert_close(alone.score[0], together.score[row])
        assert torch.equal(alone.head[0], together.head[row, :, :length])


class _Fixed(Parser):
    """A parser whose features are given."""

    def __init__(self, table: Table, options: ParseOptions):
        super().__init__(make_encoder("embedding", treebank.SPEC), RELATIONS, options)
        self.table = table


def gold_batch(words: int, rows: int) -> dict[str, Tensor]:
    head, relation = random_trees(40, words)
    full = (head >= 0).all(1).nonzero().flatten()[:rows]
    return {"head": head[full], "target": relation[full], "mask": head[full] >= 0, "x": head[full]}


@pytest.mark.parametrize("local_share", [0.0, 1.0])
def test_losses_of_whole_sequences(local_share: float):
    """With everything in the beam, the global loss is that of all sequences; the local one of single transitions."""
    table, read = scorer(3, rows=2)
    batch = gold_batch(3, 2)
    model = _Fixed(table, ParseOptions(beam=200, local_share=local_share))
    nats = model.local_nats(read, batch) if local_share else model.global_nats(read, batch)
    gold = follow(batch["head"], batch["target"], RELATIONS).transition
    for row in range(2):
        scores = enumerate_scores(table, read[row : row + 1].detach(), 3, normalised=bool(local_share))
        wanted = np.logaddexp.reduce(list(scores.values())) - scores[tuple(gold[row].tolist())]
        assert float(nats[row].detach()) == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert torch.autograd.grad(nats.sum(), table.output.weight)[0].abs().sum() > 0


def test_a_sequence_is_learned_from_until_the_right_one_is_lost():
    """Against a search written out: two are kept; where neither is the right prefix, it ends there."""
    table, read = scorer(3, rows=6)
    batch = gold_batch(3, 6)
    gold = follow(batch["head"], batch["target"], RELATIONS).transition
    nats = _Fixed(table, ParseOptions(beam=2, local_share=0)).global_nats(read, batch)
    stops = set()
    for row in range(len(gold)):
        right = tuple(gold[row].tolist())
        prefixes: dict[tuple[int, ...], float] = {}
        for transitions, seen in sequences(3):
            scores = table.score(read[row : row + 1], torch.tensor([seen])).detach()[0]
            for end in range(1, 7):
                prefixes[tuple(transitions[:end])] = float(scores[range(end), transitions[:end]].sum())
        kept: list[tuple[int, ...]] = [()]
        for end in range(1, 7):
            longer = [p for p in prefixes if len(p) == end and p[:-1] in kept]
            kept = sorted(longer, key=lambda p: -prefixes[p])[:2]
            if right[:end] not in kept:
                break
        stops.add(end)
        rivals = [prefixes[p] for p in {*kept, right[:end]}]
        assert float(nats[row].detach()) == pytest.approx(
            np.logaddexp.reduce(rivals) - prefixes[right[:end]], rel=1e-3, abs=1e-4
        )
    assert len(stops) > 1
