"""bAbI from small files of the publisher's format, damaged ones too, and the real ones where they are at hand."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch
from saccade.data import SequenceDataset, babi, load
from saccade.data.download import download
from saccade.data.sequences import Sequences
from saccade.envs.errors import UserError
from test_data import SHARED
from test_data_download import Server, listing, pack, server, source  # noqa: F401  a fixture

STORY = """1 Mary moved to the bathroom.
2 Where is Mary? \tbathroom\t1
3 Mary got the football there.
4 What is Mary carrying? \tfootball,apple\t3
"""
PATH = """1 The office is east of the hallway.
2 How do you go from the hallway to the office?\te,n\t1
"""
SHOWN = "mary moved to the bathroom . where is mary ? - mary got the football there . what is mary carrying ? - -"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What SACCADE_DATA names; the cache is empty."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "data"


def write(folder: Path) -> None:
    """Ten training stories and one for testing in each task; task 19 has paths, the others Mary."""
    (folder / babi.FOLDER).mkdir(parents=True)
    for name in babi.FILES:
        text = PATH if "/qa19_" in name else STORY
        (folder / name).write_text(text * (10 if name.endswith("_train.txt") else 1))


def tell(data: SequenceDataset, part: Sequences, index: int) -> tuple[str, list[str]]:
    """The words of one story, and what is to be told where."""
    batch = part.take(torch.tensor([index]))
    told = [data.words[word] if word >= 0 else "" for word in batch["target"][0]]
    return " ".join(data.words[word] for word in batch["x"][0]), told


def test_stories_are_shown_with_their_answers_masked(folder: Path):
    write(folder)
    data = load("babi")
    assert isinstance(data, SequenceDataset)
    shown, told = tell(data, data.train, 0)
    assert shown == SHOWN
    expected = [""] * len(SHOWN.split())
    expected[10], expected[-2], expected[-1] = "bathroom", "football", "apple"
    assert told == expected
    assert tell(data, data.train, 18 * 9) == (
        "the office is east of the hallway . how do you go from the hallway to the office ? - -",
        [""] * 19 + ["e", "n"],
    )


def test_all_tasks_share_one_vocabulary_and_are_groups(folder: Path):
    write(folder)
    data = load("babi")
    assert isinstance(data, SequenceDataset)
    words = set(f"{SHOWN} office is east of hallway how do you go from e n apple".split())
    assert set(data.words) == words
    assert data.words == data.classes
    assert data.outputs == data.spec.vocabulary == len(words)
    assert data.spec.shape == ()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [180, 20, 20]
    assert data.validation.group is not None
    assert data.validation.group.tolist() == list(range(20))
    assert data.groups[18] == "19 path-finding"
    assert not data.asks_bits


def test_the_last_tenth_of_a_training_file_is_for_validation(folder: Path):
    write(folder)
    for part, count in (("train", 20), ("test", 3)):
        stories = [f"1 Mary moved to place{number}.\n2 Where is Mary?\tplace{number}\t1\n" for number in range(count)]
        (folder / babi.FOLDER / f"qa3_three-supporting-facts_{part}.txt").write_text("".join(stories))
    data = load("babi-3")
    assert isinstance(data, SequenceDataset)
    places = [
        [tell(data, part, index)[1][-1] for index in range(len(part))]
        for part in (data.train, data.validation, data.test)
    ]
    assert places == [[f"place{i}" for i in range(18)], ["place18", "place19"], ["place0", "place1", "place2"]]
    assert data.groups == ("3 three-supporting-facts",)
    assert data.name == "babi-3"
    assert "east" not in data.words  # nor anything else of other tasks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; fetch it again"),
        ("2 Mary moved to the bathroom.\n", "line 1, is no line of a bAbI story"),
        (STORY + "Mary went away.\n", "line 5, is no line"),
        (STORY + "5 Where is\n", "line 5, is no line"),
        (STORY + "5 Where is Mary?\n", "line 5, is no line"),
        (STORY + "5 Where is Mary?\t\t3\n", "line 5, is no line"),
        ("<html>not found</html>", "line 1, is no line"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, text: str, message: str):
    write(folder)
    (folder / babi.FILES[0]).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load("babi")
    assert str(folder / babi.FILES[0]) in str(error.value)


def test_what_is_absent_is_named(folder: Path):
    with pytest.raises(UserError, match=r"'babi' is not in .* or run: saccade download babi"):
        load("babi-1")
    write(folder)
    (folder / babi.FILES[5]).unlink()
    with pytest.raises(UserError, match=f"{babi.FILES[5]} is missing beside the rest of babi"):
        load("babi")
    assert load("babi-1").name == "babi-1"
    with pytest.raises(UserError, match="tasks are babi-1 to babi-20, not babi-21"):
        load("babi-21")


def test_download(server: type[Server], folder: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    write(folder / "published")
    names = {name: (folder / "published" / name).read_bytes() for name in babi.FILES}
    server.files["file"] = packed = pack({**names, "tasks_1-20_v1-2/en/more.txt": b"not asked for"})
    archive = source(f"{server.address}/good/file", content=packed, name="b.tar.gz", members=babi.FILES)
    monkeypatch.setattr(babi, "SOURCES", [archive])
    assert len(download("babi")) == 40
    assert download("babi") == []
    assert {name for name in listing(folder) if not name.startswith("published")} == set(babi.FILES)


@pytest.mark.slow  # 900,000 lines
@pytest.mark.skipif(not (SHARED / "babi-en-10k.tar.xz").is_file(), reason="the real files are not here")
def test_the_real_files(folder: Path):
    """Graves et al. 2016, Methods: 159 words, "-", "." and "?" among them; and 10,000 + 1,000 questions a task."""
    with tarfile.open(SHARED / "babi-en-10k.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    data = load("babi")
    assert isinstance(data, SequenceDataset)
    assert len(data.words) == 159
    assert sorted(word for word in data.words if not word.isalpha()) == ["-", ".", "?"]
    assert [len(part) for part in (data.train, data.validation, data.test)] == [56_396, 6_265, 6_267]
    assert float(data.train.lengths.float().mean()) == pytest.approx(83.2, abs=0.1)
    word = data.test.x.tolist()
    assert word.count(data.words.index("?")) == 20_000
