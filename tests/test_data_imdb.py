"""Film reviews from small folders in the publisher's layout, broken ones too, and their text as one stream."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saccade.data import SequenceDataset, corpus, imdb, load, load_corpus, tokens
from saccade.data.download import download
from saccade.data.sequences import Sequences
from saccade.data.vocabulary import UNKNOWN
from saccade.envs.errors import UserError
from test_data_download import Server, listing, pack, server, source  # noqa: F401  a fixture
from test_data_text import write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What SACCADE_DATA names; the cache is empty."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "data"


def write_imdb(folder: Path, count: int = 10) -> None:
    """`count` reviews of each kind: review 3 of the good training ones has 3 good words and ends with "end3"."""
    for name in imdb.FOLDERS:
        shown = f"It's! {name.split('/')[2]}"
        write(folder, {f"{name}/{i}_{7 + i % 4}.txt": f"{shown}{' good' * i}, END{i}" for i in range(count)})


def spell(data: SequenceDataset, part: Sequences, index: int) -> str:
    return " ".join(data.words[word] for word in part.take(torch.tensor([index]))["x"][0])


def test_reviews_are_words_and_marks():
    text = "It's NOT<br /><br />a 'great' film -- don't see it!! Café_2, 10/10?"
    expected = ["it's", "not", "a", "great", "film", "don't", "see", "it", "!", "!", "café", "2", "10", "10", "?"]
    assert imdb.tokenize(text) == expected


def test_reviews_are_split_and_judged_at_the_last_word(folder: Path):
    write_imdb(folder)
    data = load("imdb")
    assert isinstance(data, SequenceDataset)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [18, 2, 20]
    seen = [spell(data, part, index) for part in (data.train, data.validation) for index in range(len(part))]
    assert sorted(seen) == sorted(
        f"it's ! {word}{' good' * i} end{i}" for i in range(10) for word in ("neg", "pos")
    )  # every training review once
    for part in (data.train, data.validation, data.test):
        for index in range(len(part)):
            target = part.take(torch.tensor([index]))["target"][0]
            assert data.classes[target[-1]].startswith("pos" if "pos" in spell(data, part, index) else "neg")
            assert (target[:-1] == -1).all()
    assert data.outputs == 2
    assert data.spec.vocabulary == len(data.words) == 16  # <unk>, it's, !, neg, pos, good, end0 to end9


def test_reviews_are_cut_and_rare_words_unknown(folder: Path):
    write_imdb(folder)
    write(folder, {f"{imdb.FOLDERS[2]}/0_1.txt": "it's ! good never1 good good never2"})
    (folder / imdb.FOLDERS[2] / "0_7.txt").unlink()
    last, first = imdb.load(length=3), imdb.load(length=3, keep="first")
    assert spell(last, last.test, 0) == "good good <unk>"
    assert spell(first, first.test, 0) == "it's ! good"
    assert spell(last, last.test, 9) == "good good end9"
    assert last.test.target[last.test.start[1:] - 1].tolist() == [0] * 10 + [1] * 10
    few = imdb.load(words=4)
    assert few.words == (UNKNOWN, "good", "!", "it's")
    assert few.spec.vocabulary == 4
    assert spell(few, few.test, 12) == "it's ! <unk> good good <unk>"


def test_numbered_reviews_are_kept_until_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    write_imdb(folder)
    made = []
    really = imdb._number
    monkeypatch.setattr(imdb, "_number", lambda paths: made.append(1) or really(paths))
    one, two = imdb.load(), imdb.load()
    assert len(made) == 1
    assert torch.equal(one.train.x, two.train.x)
    [kept] = (folder / tokens.FOLDER).iterdir()
    (kept / "ids.npy").write_bytes(b"")  # damaged: made again
    assert torch.equal(imdb.load().test.x, one.test.x)
    assert len(made) == 2
    write(folder, {f"{imdb.FOLDERS[3]}/9_10.txt": "now it is another one"})
    (folder / imdb.FOLDERS[3] / "9_8.txt").unlink()
    assert not torch.equal(imdb.load().test.x, one.test.x)
    assert len(made) == 3
    assert not [path for path in (folder / tokens.FOLDER).iterdir() if "." in path.name]


def test_what_is_missing_of_the_reviews_is_named(folder: Path):
    with pytest.raises(UserError, match=r"no aclImdb in .* or run: saccade download imdb"):
        load("imdb")
    write_imdb(folder)
    (folder / imdb.FOLDERS[1] / "4_7.txt").unlink()
    with pytest.raises(UserError, match="train/pos lacks review 4"):
        load("imdb")
    for path in (folder / imdb.FOLDERS[1]).iterdir():
        path.unlink()
    with pytest.raises(UserError, match="train/pos lacks review 0"):
        load("imdb")
    (folder / imdb.FOLDERS[1]).rmdir()
    with pytest.raises(UserError, match="train/pos is missing beside the rest"):
        load("imdb")
    write_imdb(folder, count=11)
    (folder / imdb.FOLDERS[3] / "10_9.txt").unlink()
    with pytest.raises(UserError, match="not as many of each"):
        load("imdb")


def test_the_words_of_all_reviews_are_one_stream(folder: Path):
    write_imdb(folder, count=3)
    with pytest.raises(UserError, match="neither aclImdb/train/unsup nor imdb-unlabelled"):
        load_corpus("imdb-words")
    write(folder, {"imdb-unlabelled.txt": "Good, bad\u0085and worse!\ngood\n"})
    data = corpus.load_imdb(least=4)
    # it s WORD good* end, for each kind of labelled review; then the line by line ones
    once = "it s it s good it s good good"
    known = f"{once} end " * 4
    expected = [word for word in (known + "good good").split() if word != "end"]
    labelled = [data.words[place] for place in data.train.ids if data.words[place] not in ("end", "neg", "pos")]
    assert labelled == expected
    assert set(data.words) == {"it", "s", "good", "end", "neg", "pos"}
    assert data.counts.tolist() == sorted(data.counts.tolist(), reverse=True)
    assert data.counts[data.words.index("good")] == 14
    assert len(data.validation) == len(data.test) == 0
    assert corpus.load_imdb(least=1, size=2).words == ("good", "end")
    (folder / "imdb-unlabelled.txt").unlink()
    write(folder, {f"{imdb.UNLABELLED}/0_0.txt": "Good, bad\u0085and worse!", f"{imdb.UNLABELLED}/1_0.txt": "good"})
    assert torch.equal(corpus.load_imdb(least=4).train.ids, data.train.ids)


def test_download_a_folder_of_an_archive(server: type[Server], folder: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    write_imdb(folder / "published", count=2)
    write(folder / "published", {f"{imdb.UNLABELLED}/0_0.txt": "what", "aclImdb/train/urls.txt": "not asked for"})
    names = sorted(listing(folder / "published"))
    server.files["file"] = packed = pack({name: (folder / "published" / name).read_bytes() for name in names})
    members = imdb.SOURCES[0].members
    archive = source(f"{server.address}/good/file", content=packed, name="a.tar.gz", members=members)
    monkeypatch.setattr(imdb, "SOURCES", [archive])
    write(folder, {f"{imdb.FOLDERS[0]}/9_9.txt": "left from a broken attempt"})
    assert download("imdb") == [folder / name for name in (*imdb.FOLDERS, imdb.UNLABELLED)]
    assert [name for name in names if "urls" not in name] == [
        name for name in sorted(listing(folder)) if name.startswith("aclImdb")
    ]
    assert len(load("imdb").test) == 4
    assert download("imdb") == []
    missing = source(f"{server.address}/good/file", content=packed, name="a.tar.gz", members=("aclImdb/else/",))
    monkeypatch.setattr(imdb, "SOURCES", [missing])
    (folder / imdb.FOLDERS[0] / "0_7.txt").unlink()
    with pytest.raises(UserError, match=r"has changed at its publisher's: .*aclImdb/else/ is not in it"):
        download("imdb")
