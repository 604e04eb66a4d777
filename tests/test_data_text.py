"""Vocabularies, running text, analogies, names and downloads, from small files of the publishers' formats."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.data import DOWNLOADS, analogies, characters, corpus, list_datasets, load, load_corpus, load_examples, penn
from saccade.data.download import download
from saccade.data.files import Source, read_text
from saccade.data.tokens import number
from saccade.data.vocabulary import UNKNOWN, Vocabulary, most_frequent
from saccade.envs.errors import UnknownNameError, UserError
from test_data import SHARED
from test_data_download import Server, server, source  # noqa: F401  a fixture


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What SACCADE_DATA names; the cache is empty."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(folder: Path, names: dict[str, str]) -> None:
    for name, text in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


# Vocabularies


def test_frequent_words_have_small_ids():
    counts = {"b": 3, "a": 3, "c": 9, "rare": 1}
    vocabulary = most_frequent(counts, least=2)
    assert vocabulary.words == (UNKNOWN, "c", "a", "b")
    assert vocabulary.counts == (1, 9, 3, 3)
    assert vocabulary.encode(["b", "c", "rare", "never"]).tolist() == [3, 1, 0, 0]
    assert vocabulary.decode(np.array([3, 0])) == ["b", UNKNOWN]
    assert most_frequent(counts, size=2).words == (UNKNOWN, "c")
    closed = most_frequent(counts, unknown=False)
    assert closed.words == ("c", "a", "b", "rare")
    assert closed.unknown is None
    with pytest.raises(UserError, match="'never' is not among the 4"):
        closed.encode(["c", "never"])
    with pytest.raises(UserError, match="each word once"):
        Vocabulary(("a", "a"), (1, 2))


def test_a_vocabulary_is_saved_and_loaded(tmp_path: Path):
    vocabulary = most_frequent({"naïve": 2, "\n": 5, '"': 1})
    vocabulary.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == vocabulary
    for damaged in ("[", "[1, 2]", '["a"]'):
        (tmp_path / "words.json").write_text(damaged)
        with pytest.raises(UserError, match=r"words\.json is no saved vocabulary"):
            Vocabulary.load(tmp_path / "words.json")
    with pytest.raises(UserError, match=r"cannot read .*absent"):
        Vocabulary.load(tmp_path / "absent")


def test_texts_become_numbers():
    numbered = number([["a", "b", "a"], ["c", "a"], ["new", "b", UNKNOWN]], counted=2)
    assert numbered.vocabulary.words == (UNKNOWN, "a", "b", "c")
    assert numbered.vocabulary.counts == (0, 3, 1, 1)
    assert numbered.ids.tolist() == [1, 2, 1, 3, 1, 0, 2, 0]
    assert numbered.start.tolist() == [0, 3, 5, 8]


# Running text


def test_letters_are_lower_case_and_nothing_else():
    assert corpus.letters("Café<br />don't stop 2day; NAÏVE") == "cafe don t stop day naive".split()  # noqa: SIM905


def test_words_of_a_users_own_text(tmp_path: Path):
    (tmp_path / "own.txt").write_text("To be or not to be! " * 10 + "rare")
    data = corpus.load_text(tmp_path / "own.txt")
    assert set(data.words) == {"to", "be", "or", "not"}
    assert [len(part) for part in (data.train, data.validation, data.test)] == [54, 3, 3]
    with pytest.raises(UserError, match="no word occurs 50 times"):
        corpus.load_text(tmp_path / "own.txt", least=50)


PENN = {
    "ptb/ptb.train.txt": " the <unk> fell N points \n the end \n",
    "ptb/ptb.valid.txt": " points fell \n",
    "ptb/ptb.test.txt": " the <unk> \n",
}


def test_penn_treebank_is_three_streams(folder: Path):
    write(folder, PENN)
    data = load_corpus("penn")
    assert data.words[:2] == (UNKNOWN, "<eos>")
    assert data.spec.vocabulary == len(data.words) == 7
    text = [" ".join(data.words[place] for place in part.ids) for part in (data.train, data.validation, data.test)]
    assert text == ["the <unk> fell N points <eos> the end <eos>", "points fell <eos>", "the <unk> <eos>"]
    assert data.train.ids.dtype == torch.int64
    write(folder, {"ptb/ptb.train.txt": "the points fell\n", "ptb/ptb.test.txt": "the\n"})
    assert load_corpus("penn").words == ("<eos>", "fell", "points", "the")
    write(folder, {"ptb/ptb.test.txt": "the stranger\n"})
    with pytest.raises(UserError, match=r"ptb\.test\.txt has the word 'stranger', which .*ptb\.train\.txt has not"):
        load_corpus("penn")
    (folder / "ptb/ptb.valid.txt").unlink()
    with pytest.raises(UserError, match=r"ptb\.valid\.txt is missing beside the rest of penn"):
        load_corpus("penn")


def test_text_by_characters(folder: Path, tmp_path: Path):
    text = "".join(chr(97 + i % 20) for i in range(199)) + "é"
    write(folder, {"tinyshakespeare.txt": text})
    data = load_corpus("shakespeare")
    assert data.words == (*(chr(97 + i) for i in range(20)), "é")
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [180, 10, 10]
    assert "".join(data.words[place] for part in parts for place in part.ids) == text
    (tmp_path / "own.txt").write_text("ab\r\nab")
    own = load_corpus(str(tmp_path / "own.txt"))
    assert own.words == ("\n", "\r", "a", "b")
    (tmp_path / "own.txt").write_bytes(b"abc\xff")
    with pytest.raises(UserError, match=r"own\.txt is not UTF-8 .* at byte 3"):
        load_corpus(str(tmp_path / "own.txt"))
    (tmp_path / "own.txt").write_bytes(b"\n")
    with pytest.raises(UserError, match=r"own\.txt is empty"):
        read_text(tmp_path / "own.txt")


# Analogies

QUESTIONS = ": capitals\nAthens Greece Oslo Norway\nOslo Norway Athens Greece\n: family\nking queen man woman\n"


def test_analogies_are_read_and_numbered(folder: Path):
    write(folder, {"questions-words.txt": QUESTIONS})
    sections = analogies.load()
    assert sections["family"] == [("king", "queen", "man", "woman")]
    assert len(sections["capitals"]) == 2
    assert analogies.load(lower=False)["capitals"][0] == ("Athens", "Greece", "Oslo", "Norway")
    ids = {word: place for place, word in enumerate(["athens", "greece", "oslo", "norway", "king", "queen", "man"])}
    numbered = analogies.number(sections, ids)
    assert numbered["capitals"].tolist() == [[0, 1, 2, 3], [2, 3, 0, 1]]
    assert numbered["family"].shape == (0, 4)
    for damaged in ("king queen man woman\n", ": family\nking queen man\n"):
        write(folder, {"questions-words.txt": damaged})
        with pytest.raises(UserError, match=r"questions-words\.txt, line [12], is no question of four words"):
            analogies.load()


# Names and downloads


def test_text_is_found_by_the_names_that_are_listed():
    known = list_datasets()
    assert {"babi", "imdb", "pos", "chunks", "copy", "pixel-mnist", "penn", "shakespeare", "imdb-words"} <= set(known)
    with pytest.raises(UserError, match="penn is running text"):
        load("penn")
    with pytest.raises(UserError, match="pos holds sequences"):
        load_examples("pos")
    with pytest.raises(UnknownNameError, match="'shakespeare'"):
        load_corpus("shakespear")


def test_download_plain_files(server: type[Server], folder: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    server.files |= {name.removeprefix("ptb/"): text.encode() for name, text in PENN.items()}
    sources = [
        source(f"{server.address}/good/{name.removeprefix('ptb/')}", content=text.encode(), name=name)
        for name, text in PENN.items()
    ]
    monkeypatch.setattr(penn, "SOURCES", sources)
    assert len(download("penn")) == 3
    assert len(load_corpus("penn").train) == 9


@pytest.mark.parametrize("name", sorted(DOWNLOADS))
def test_the_publishers_checksums_are_whole(name: str):
    for one in DOWNLOADS[name].SOURCES:
        kind, _, digits = one.checksum.partition(":")
        assert (kind, len(bytes.fromhex(digits))) == ("sha256", 32)
        assert all(address.startswith(("https://", "http://www.thespermwhale.com/")) for address in one.addresses)


# The real files


def unpack(name: str, folder: Path) -> None:
    if not (SHARED / name).is_file():
        pytest.skip("the real files are not here")
    if name.endswith(".tar.xz"):
        with tarfile.open(SHARED / name) as archive:
            archive.extractall(folder, filter="data")
    else:
        (folder / name.removesuffix(".xz")).write_bytes(lzma.decompress((SHARED / name).read_bytes()))


def is_published(folder: Path, published: Source) -> bool:
    content = (folder / published.name).read_bytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}" == published.checksum


def test_the_real_penn_treebank(folder: Path):
    unpack("ptb.tar.xz", folder)
    assert all(is_published(folder, one) for one in penn.SOURCES)
    data = load_corpus("penn")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [929_589, 73_760, 82_430]
    assert len(data.words) == 10_000


def test_the_real_plays_and_analogies(folder: Path):
    unpack("tinyshakespeare.txt.xz", folder)
    unpack("questions-words.txt.xz", folder)
    assert is_published(folder, characters.SOURCES[0])
    assert is_published(folder, analogies.SOURCES[0])
    assert len(load_corpus("shakespeare").words) == 65
    sections = analogies.load()
    assert len(sections) == 14
    assert sum(map(len, sections.values())) == 19_544
