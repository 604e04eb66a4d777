"""Tagged sentences from small files, damaged ones too, and scores of chunks by the official rules."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.data import SequenceDataset, conll2000, load
from saccade.data.sequences import LengthBatches
from saccade.data.vocabulary import UNKNOWN
from saccade.envs.errors import UserError
from test_data_text import unpack, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What SACCADE_DATA names; the cache is empty."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "data"


TRAIN = """Rockwell NNP B-NP
said VBD B-VP
the DT B-NP
1990s NNS I-NP
. . O

the DT B-NP
NASA-mk2 NNP I-NP
said VBD B-VP
counterrevolutionary JJ O

"""
TEST = "The DT B-NP\n1234s NNS I-NP\n§ SYM O\n"


def write_conll(folder: Path, dev: bool = True) -> None:
    write(folder, {"conll2000/train.txt": TRAIN * 10, "conll2000/test.txt": TEST})
    if dev:
        write(folder, {"conll2000/dev.txt": TEST + "\n" + TRAIN})


def test_sentences_have_words_characters_capitals_and_tags(folder: Path):
    write_conll(folder)
    pos, chunks = conll2000.load("pos"), conll2000.load("chunks")
    assert [len(part) for part in (pos.train, pos.validation, pos.test)] == [20, 3, 1]
    batch = pos.train.take(torch.tensor([0, 1]))
    assert [pos.words[word] for word in batch["x"][0]] == ["rockwell", "said", "the", "0000s", "."]
    assert [pos.classes[tag] for tag in batch["target"][0]] == ["NNP", "VBD", "DT", "NNS", "."]
    assert batch["target"][1].tolist()[4] == -1
    told = [chunks.classes[tag] for tag in chunks.train.target[:5]]
    assert told == ["B-NP", "B-VP", "B-NP", "I-NP", "O"]
    assert pos.outputs == len(pos.classes) == 7
    spelled = [["".join(pos.characters[letter] for letter in word) for word in row] for row in batch["characters"]]
    assert spelled[0] == ["Rockwell", "said", "the", "1990s", "."]
    assert spelled[1] == ["the", "NASA-mk2", "said", "counterrutionary", ""]  # the first and the last eight letters
    assert [conll2000.CAPITALS[kind] for kind in batch["capital"][0]] == [
        "first capital",
        "lower case",
        "lower case",
        "lower case",
        "no letters",
    ]
    assert batch["capital"][1].tolist()[4] == 0
    tested = pos.test.take(torch.tensor([0]))
    assert [pos.words[word] for word in tested["x"][0]] == ["the", "0000s", UNKNOWN]
    assert tested["characters"][0, 2].tolist() == [conll2000.STRANGE] + [conll2000.NOTHING] * 15
    assert pos.train.to("cpu").take(torch.tensor([1]))["characters"].shape == (1, 4, 16)
    batches = list(LengthBatches(pos.train, 8, seed=0).epoch())
    assert sum(len(batch["capital"]) for batch in batches) == 20


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("1,000", "no letters"),
        ("word", "lower case"),
        ("A", "first capital"),
        ("Word-by-word", "first capital"),
        ("U.S.", "all capitals"),
        ("McDonald", "mixed"),
        ("iPod", "mixed"),
    ],
)
def test_capitals(word: str, kind: str):
    assert conll2000.CAPITALS[conll2000.capital_of(word)] == kind


def test_without_a_validation_file_the_last_tenth_is_held_out(folder: Path):
    write_conll(folder, dev=False)
    data = load("chunks")
    assert isinstance(data, SequenceDataset)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [18, 2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), (TRAIN + "said VBD\n", "line 12, is not WORD TAG CHUNK"), ("a DT NP\n", "line 1, is not WORD")],
)
def test_damaged_sentences_are_named(folder: Path, text: str, message: str):
    write_conll(folder)
    write(folder, {"conll2000/test.txt": text})
    with pytest.raises(UserError, match=f"test.txt.*{message}"):
        load("pos")
    (folder / "conll2000/test.txt").unlink()
    with pytest.raises(UserError, match=r"conll2000/test\.txt is missing"):
        load("pos")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", set()),
        ("O O", set()),
        ("B-NP I-NP O", {(0, 2, "NP")}),
        ("B-NP B-NP", {(0, 1, "NP"), (1, 2, "NP")}),
        ("I-NP I-NP", {(0, 2, "NP")}),  # without B- at its beginning
        ("O I-NP", {(1, 2, "NP")}),
        ("B-NP I-VP I-VP", {(0, 1, "NP"), (1, 3, "VP")}),  # another type inside
        ("I-NP B-NP I-NP", {(0, 1, "NP"), (1, 3, "NP")}),
        ("B-VP I-VP B-NP", {(0, 2, "VP"), (2, 3, "NP")}),
    ],
)
def test_chunks_begin_and_end(tags: str, expected: set):
    assert conll2000.chunks(tags.split()) == expected


def test_chunk_scores_by_hand():
    gold = [["B-NP", "I-NP", "O", "B-VP"], ["B-NP"]]
    guess = [["B-NP", "I-NP", "O", "B-NP"], ["O"]]  # 1 of 2 is right, of 3 that there are
    assert conll2000.chunk_scores(gold, guess) == pytest.approx((1 / 2, 1 / 3, 0.4))
    assert conll2000.chunk_scores(gold, gold) == (1, 1, 1)
    assert conll2000.chunk_scores([["O"]], [["O"]]) == (0, 0, 0)
    # a chunk does not go on in the next sentence
    assert conll2000.chunk_scores([["B-NP"], ["I-NP"]], [["B-NP"], ["B-NP"]]) == (1, 1, 1)
    with pytest.raises(UserError, match="one predicted tag for each"):
        conll2000.chunk_scores([["O"]], [["O", "O"]])


def streamed(gold: list[str], guess: list[str]) -> tuple[int, int, int]:
    """Right, found and there, counted word by word as `conlleval` does: it asks at each word whether a chunk has just
    ended and whether one begins, and holds a flag for a chunk that both began together."""

    def ended(before: str, now: str) -> bool:
        kind, name = before[0], before[2:]
        return kind != "O" and (now[0] in "BO" or name != now[2:])

    def begun(before: str, now: str) -> bool:
        return now[0] == "B" or (now[0] == "I" and (before[0] == "O" or before[2:] != now[2:]))

    right = found = there = 0
    together = False
    last = ("O", "O")
    for now in [*zip(gold, guess, strict=True), ("O", "O")]:
        ends, begins = ([test(*pair) for pair in zip(last, now, strict=True)] for test in (ended, begun))
        if together and (ends[0] or ends[1]):
            right += ends[0] and ends[1]
            together = False
        if begins[0] and begins[1] and now[0][2:] == now[1][2:]:
            together = True
        there, found, last = there + begins[0], found + begins[1], now
    return right, found, there


def test_chunk_scores_are_those_of_the_official_rules():
    random = np.random.default_rng(0)
    tags = np.array(["O", "B-NP", "I-NP", "B-VP", "I-VP"])
    gold = [tags[random.integers(5, size=size)].tolist() for size in random.integers(1, 12, 300)]
    guess = [[tag if random.random() < 0.7 else str(random.choice(tags)) for tag in sentence] for sentence in gold]
    right, found, there = np.sum([streamed(*pair) for pair in zip(gold, guess, strict=True)], axis=0)
    precision, recall = right / found, right / there
    expected = (precision, recall, 2 * precision * recall / (precision + recall))
    assert conll2000.chunk_scores(gold, guess) == pytest.approx(expected)


def test_the_real_sentences(folder: Path):
    """23,852 chunks are what `conlleval` finds in the test set."""
    unpack("conll2000.tar.xz", folder)
    data = conll2000.load("chunks")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [8_936, 1_844, 2_012]
    assert [len(part.x) for part in (data.train, data.test)] == [211_727, 47_377]
    assert len(data.classes) == 23
    tags = [data.classes[tag] for tag in data.test.target]
    bounds = data.test.start.tolist()
    sentences = [tags[begin:end] for begin, end in pairwise(bounds)]
    assert sum(len(conll2000.chunks(sentence)) for sentence in sentences) == 23_852
