"""Generated English sentences with their dependency trees, which can only be parsed by looking at what comes later.

A context-free grammar with heads. Two kinds of attachment are decided by words that come after the place where a
parser that reads from left to right must choose:
- "sees the girl with the old telescope": a phrase with "with" belongs to the verb where the thing is one of the
  verb's instruments, and else to the noun;
- "the friends of the girl that often smile": the clause belongs to the nearer noun if its verb agrees with that in
  number, and else to the farther.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..envs.spec import ObservationSpec
from .sequences import NOT_ASKED, Batch, SequenceDataset, Sequences, join

kind = "generated: 7,000 English sentences, words and tags, with dependency trees to be told"

TRAINED, VALIDATED, TESTED = 5_000, 1_000, 1_000  # sentences; no two are the same
SEED = 2004
ROOT = 0  # the head of a sentence's main verb; words are counted from 1

Noun = tuple[str, str]  # singular, plural
_T = TypeVar("_T")


def _words(text: str) -> list[str]:
    return text.split()


def _nouns(text: str) -> list[Noun]:
    return [(word, f"{word}s") for word in _words(text)]


PEOPLE = [*_nouns("girl boy teacher doctor farmer singer friend owner neighbour"), ("man", "men"), ("woman", "women")]
ANIMALS = _nouns("dog cat horse bird")
CARRIED = [*_nouns("hat beard ribbon coat basket"), ("scarf", "scarves")]  # never an instrument
PLACES = _nouns("park garden kitchen market station")
INSTRUMENTS = {  # of each verb that takes an object
    "see": _nouns("telescope mirror camera"),
    "find": _nouns("telescope lantern map"),
    "film": _nouns("camera drone mirror"),
    "hit": _nouns("hammer stick bottle"),
    "chase": _nouns("stick broom drone"),
    "clean": _nouns("broom sponge bottle"),
    "draw": _nouns("pencil ruler map"),
    "measure": _nouns("ruler hammer telescope"),
}
TOOLS = sorted({noun for nouns in INSTRUMENTS.values() for noun in nouns})
ALONE = _words("sleep wait smile sing run dance")  # verbs without an object
ADJECTIVES = _words("old young tall small red quiet")
ADVERBS = _words("often always rarely quietly")
DETERMINERS = (("the", "a", "every", "this"), ("the", "some", "many", "these"))  # by number

RELATIONS = ("root", "det", "amod", "nsubj", "obj", "prep", "pobj", "acl", "advmod")
TAGS = ("DT", "JJ", "NN", "NNS", "VBZ", "VBP", "IN", "WDT", "RB")
GROUPS = ("plain", "with: the verb's", "with: the noun's", "that: the nearer", "that: the farther", "several")


@dataclass
class Word:
    """A word with all that depends on it, in order."""

    text: str
    tag: str
    relation: str
    before: list[Word] = field(default_factory=list)
    after: list[Word] = field(default_factory=list)

    def __iter__(self) -> Iterator[Word]:
        """This word and all below, from left to right."""
        for word in self.before:
            yield from word
        yield self
        for word in self.after:
            yield from word


class Grammar:
    """Draws sentences; `seen` gathers which of `GROUPS` the last one belongs to."""

    def __init__(self, generator: np.random.Generator):
        self.generator = generator
        self.seen: set[str] = set()

    def sentence(self) -> tuple[Word, int]:
        """The main verb, with all that depends on it, and the number of the sentence's group."""
        self.seen = set()
        plural = self.chance(0.5)
        subject = self.noun([*PEOPLE, *ANIMALS], plural, "nsubj")
        self.modify(subject, plural, (0.55, 0.25, 0.2))
        verb = self.clause(plural, "root")
        verb.before = [subject, *([self.adverb()] if self.chance(0.2) else [])]
        if not self.seen:
            return verb, 0
        return verb, GROUPS.index(self.seen.pop()) if len(self.seen) == 1 else len(GROUPS) - 1

    def clause(self, plural: bool, relation: str) -> Word:
        """A verb and what follows it."""
        way = self.choose(4, (0.2, 0.15, 0.4, 0.25))
        if way == 0:
            verb = self.verb(self.pick(ALONE), plural, relation)
            if self.chance(0.5):
                verb.after.append(self.phrase("in", self.noun(PLACES, self.chance(0.3), "pobj")))
            return verb
        stem = self.pick(list(INSTRUMENTS))
        many = self.chance(0.5)
        thing = self.noun([*PEOPLE, *ANIMALS], many, "obj")
        verb = self.verb(stem, plural, relation)
        verb.after.append(thing)
        if way == 2:
            self.attach_with(verb, thing, stem)
        elif way == 3:
            self.modify(thing, many, (0, 0.3, 0.7))
        return verb

    def attach_with(self, verb: Word, thing: Word, stem: str) -> None:
        """A phrase with "with" behind `thing`, the object of `verb`."""
        is_tool = self.chance(0.5)
        others = [*CARRIED, *(tool for tool in TOOLS if tool not in INSTRUMENTS[stem])]
        noun = self.noun(INSTRUMENTS[stem] if is_tool else others, self.chance(0.2), "pobj")
        (verb if is_tool else thing).after.append(self.phrase("with", noun))
        self.seen.add(GROUPS[1] if is_tool else GROUPS[2])

    def modify(self, noun: Word, plural: bool, shares: tuple[float, float, float]) -> None:
        """Behind `noun` comes nothing, "of" and another noun, or that and a relative clause."""
        way = self.choose(3, shares)
        if way == 0:
            return
        other_plural = self.chance(0.5)
        other = self.noun([*PEOPLE, *ANIMALS], other_plural, "pobj")
        noun.after.append(self.phrase("of", other))
        if way == 2:
            is_far = plural != other_plural and self.chance(0.6)
            verb = self.verb(self.pick([*ALONE, *INSTRUMENTS]), plural if is_far else other_plural, "acl")
            verb.before = [Word("that", "WDT", "nsubj"), *([self.adverb()] if self.chance(0.6) else [])]
            if any(verb.text in (stem, f"{stem}s") for stem in INSTRUMENTS):
                verb.after.append(self.noun([*PEOPLE, *ANIMALS], self.chance(0.5), "obj"))
            (noun if is_far else other).after.append(verb)
            self.seen.add(GROUPS[4] if is_far else GROUPS[3])

    def noun(self, nouns: Sequence[Noun], plural: bool, relation: str) -> Word:
        """With a determiner and perhaps an adjective."""
        word = Word(self.pick(nouns)[plural], "NNS" if plural else "NN", relation)
        word.before.append(Word(self.pick(DETERMINERS[plural]), "DT", "det"))
        if self.chance(0.3):
            word.before.append(Word(self.pick(ADJECTIVES), "JJ", "amod"))
        return word

    def verb(self, stem: str, plural: bool, relation: str) -> Word:
        return Word(stem if plural else f"{stem}s", "VBP" if plural else "VBZ", relation)

    def phrase(self, preposition: str, noun: Word) -> Word:
        return Word(preposition, "IN", "prep", after=[noun])

    def adverb(self) -> Word:
        return Word(self.pick(ADVERBS), "RB", "advmod")

    def chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self.generator.integers(len(options)))]

    def choose(self, count: int, shares: Sequence[float]) -> int:
        return int(self.generator.choice(count, p=shares))


def _vocabulary() -> tuple[str, ...]:
    nouns = [*PEOPLE, *ANIMALS, *CARRIED, *PLACES, *TOOLS]
    verbs = [form for stem in (*ALONE, *INSTRUMENTS) for form in (stem, f"{stem}s")]
    closed = {"that", "of", "with", "in", *DETERMINERS[0], *DETERMINERS[1], *ADJECTIVES, *ADVERBS}
    return (*sorted({*closed, *verbs, *(form for noun in nouns for form in noun)}), *TAGS)


WORDS = _vocabulary()  # words, then tags
SPEC = ObservationSpec((2,), "int64", 0, len(WORDS) - 1, vocabulary=len(WORDS))  # a word and its tag


@dataclass(frozen=True, kw_only=True)
class Trees(Sequences):
    """Sentences: `x` int64 `[S, 2]`, words and tags; `target` is each word's relation to its head."""

    head: Tensor  # int64 [S]: which word of its sentence, counted from 1, a word depends on; 0 = none, it is the root's

    def take(self, index: Tensor) -> Batch:
        """As `Sequences.take`, and "head" `[B, L]`, -1 in the padding."""
        batch = super().take(index)
        place = self.start[index].unsqueeze(1) + torch.arange(batch["mask"].shape[1], device=self.start.device)
        head = self.head[place.clamp(max=len(self.head) - 1)]
        return batch | {"head": head.masked_fill(~batch["mask"], NOT_ASKED)}

    def to(self, device: str) -> Trees:
        group = None if self.group is None else self.group.to(device)
        parts = {name: getattr(self, name).to(device) for name in ("x", "target", "start", "head")}
        return replace(self, group=group, **parts)


@dataclass(frozen=True, kw_only=True)
class TreeDataset(SequenceDataset):
    """Sentences to learn parsing from; `classes` are the relations."""

    train: Trees
    validation: Trees
    test: Trees


def load() -> TreeDataset:
    """The same sentences in every run; none occurs twice."""
    grammar, found = Grammar(np.random.default_rng(SEED)), dict[str, tuple[list[Word], list[int], int]]()
    while len(found) < TRAINED + VALIDATED + TESTED:
        verb, group = grammar.sentence()
        words, heads = flatten(verb)
        found.setdefault(" ".join(word.text for word in words), (words, heads, group))
    sentences = list(found.values())
    splits = (sentences[:TRAINED], sentences[TRAINED : TRAINED + VALIDATED], sentences[TRAINED + VALIDATED :])
    train, validation, test = (trees(split) for split in splits)
    return TreeDataset(
        name="treebank",
        spec=SPEC,
        outputs=len(RELATIONS),
        train=train,
        validation=validation,
        test=test,
        classes=RELATIONS,
        groups=GROUPS,
        words=WORDS,
    )


def flatten(top: Word) -> tuple[list[Word], list[int]]:
    """The words of a tree from left to right, and the head of each, counted from 1."""
    words = list(top)
    place = {id(word): number for number, word in enumerate(words, 1)}
    head = {id(child): place[id(word)] for word in words for child in (*word.before, *word.after)}
    return words, [head.get(id(word), ROOT) for word in words]


def trees(sentences: Sequence[tuple[list[Word], list[int], int]]) -> Trees:
    """Words, heads and group of each sentence, as numbers."""
    number = {word: place for place, word in enumerate(WORDS)}
    relation = {name: place for place, name in enumerate(RELATIONS)}
    x = [np.array([[number[word.text], number[word.tag]] for word in words], np.int64) for words, _, _ in sentences]
    target = [np.array([relation[word.relation] for word in words], np.int64) for words, _, _ in sentences]
    plain = join(x, target, [group for _, _, group in sentences])
    head = torch.from_numpy(np.concatenate([np.array(heads, np.int64) for _, heads, _ in sentences]))
    return Trees(plain.x, plain.target, plain.start, plain.group, head=head)
