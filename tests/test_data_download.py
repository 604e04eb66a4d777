"""Downloads, from a real server on this machine: what arrives is whole and right, or leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from saccade.__main__ import main
from saccade.data import cifar10, load, mnist
from saccade.data.download import download, fetch
from saccade.data.files import Source
from saccade.envs.errors import UnknownNameError, UserError
from test_data import write_cifar10, write_mnist

CONTENT = np.random.default_rng(0).bytes(200_000)


class Server(BaseHTTPRequestHandler):
    """Serves `files` by the last part of the path; the first part says how: good, truncated, wrong or missing."""

    files: ClassVar[dict[str, bytes]]
    asked: ClassVar[list[str]]
    address: ClassVar[str]

    def do_GET(self) -> None:
        _, how, name = self.path.split("/", 2)
        self.asked.append(self.path)
        if how == "missing":
            self.send_error(404)
            return
        content = self.files[name] if how != "wrong" else bytes(len(self.files[name]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if how == "truncated" else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[Server]]:
    class Handler(Server):
        pass

    Handler.files, Handler.asked = {"file": CONTENT}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Handler.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Handler
        running.shutdown()
        thread.join()


def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def source(*addresses: str, content: bytes = CONTENT, name: str = "set/file", members: tuple[str, ...] = ()) -> Source:
    return Source(name, f"sha256:{hashlib.sha256(content).hexdigest()}", addresses, members)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or "." in path.name)


def test_a_good_file_arrives(server: type[Server], tmp_path: Path):
    [path] = fetch("set", [source(f"{server.address}/good/file")], tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert listing(tmp_path) == ["new/set/file"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [("truncated", "broke before the end"), ("wrong", "another checksum"), ("missing", "the server answers 404")],
)
def test_a_bad_answer_is_said_and_leaves_nothing(server: type[Server], tmp_path: Path, how: str, reason: str):
    address = f"{server.address}/{how}/file"
    with pytest.raises(UserError, match=f"{address}: .*{reason}"):
        fetch("set", [source(address)], tmp_path)
    assert listing(tmp_path) == []


def test_a_refused_connection_is_said_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(UserError, match="no connection; try again later"):
        fetch("set", [source(f"{refused()}/good/file")], tmp_path)
    assert listing(tmp_path) == []


def test_the_next_address_is_tried(server: type[Server], tmp_path: Path):
    addresses = [
        f"{refused()}/good/file",
        *(f"{server.address}/{how}/file" for how in ("missing", "truncated", "good")),
    ]
    [path] = fetch("set", [source(*addresses)], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["/missing/file", "/truncated/file", "/good/file"]


def test_after_a_failure_it_can_be_done_again(server: type[Server], tmp_path: Path):
    """Nothing of the first attempt is taken for the whole, neither after an error nor after a kill."""
    with pytest.raises(UserError):
        fetch("set", [source(f"{server.address}/truncated/file")], tmp_path)
    killed = tmp_path / ".incomplete-set" / "set"
    killed.mkdir(parents=True)
    (killed / "file").write_bytes(CONTENT[:1000])
    [path] = fetch("set", [source(f"{server.address}/good/file")], tmp_path)
    assert path.read_bytes() == CONTENT
    assert listing(tmp_path) == ["set/file"]


def test_one_bad_file_keeps_the_others_away(server: type[Server], tmp_path: Path):
    """A set is there whole or not at all, and what was there before stays."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one").write_bytes(b"old")
    good = source(f"{server.address}/good/file", name="set/one")
    bad = source(f"{server.address}/wrong/file", name="set/two")
    with pytest.raises(UserError, match="wrong"):
        fetch("set", [good, bad], tmp_path)
    assert listing(tmp_path) == ["set/one"]
    assert (tmp_path / "set" / "one").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_named(server: type[Server], tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/file"):
        fetch("set", [source(f"{server.address}/good/file")], tmp_path / "file")


def pack(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_only_named_members_leave_an_archive(server: type[Server], tmp_path: Path):
    server.files["file"] = packed = pack({"set/a": b"A", "../evil": b"E", "set/b": b"B"})
    archive = source(f"{server.address}/good/file", content=packed, name="set.tar.gz", members=("set/a", "set/b"))
    assert fetch("set", [archive], tmp_path / "in") == [tmp_path / "in/set/a", tmp_path / "in/set/b"]
    assert (tmp_path / "in/set/a").read_bytes() == b"A"
    assert listing(tmp_path) == ["in/set/a", "in/set/b"]


@pytest.mark.parametrize("content", [b"no archive at all", pack({"set/a": b"A"})], ids=["no-archive", "lacks-a-member"])
def test_an_archive_that_is_none_or_lacks_a_member(server: type[Server], tmp_path: Path, content: bytes):
    server.files["file"] = content
    archive = source(f"{server.address}/good/file", content=content, name="set.tar.gz", members=("set/a", "set/b"))
    with pytest.raises(UserError, match=r"set\.tar\.gz"):
        fetch("set", [archive], tmp_path)
    assert listing(tmp_path) == []


def test_download_mnist(server: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_mnist(tmp_path / "published", count=24)
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "published" / "mnist").iterdir()}
    sources = [
        source(f"{server.address}/good/{Path(name).name}", content=server.files[Path(name).name], name=name)
        for name in mnist.FILES
    ]
    monkeypatch.setattr(mnist, "SOURCES", sources)
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "here"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    with pytest.raises(UserError, match=r"SACCADE_DATA.*saccade download mnist"):
        load("mnist")
    assert len(download("mnist")) == 4
    assert len(load("mnist").train) == 22
    assert download("mnist") == []  # there already
    path = tmp_path / "here" / mnist.FILES[0]
    path.write_bytes(path.read_bytes()[:-10])
    assert len(download("mnist")) == 4  # a damaged file is replaced
    assert len(load("mnist").train) == 22


def test_the_command_line_says_what_it_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "SOURCES", [source(f"{refused()}/file", name=name) for name in mnist.FILES])
    assert main(["download", "mnist"]) == 2
    assert "cannot download mnist; http://127.0.0.1" in capsys.readouterr().err
    assert listing(tmp_path) == []
    write_mnist(tmp_path, count=24)
    assert main(["download", "mnist"]) == 0
    assert capsys.readouterr().out == "mnist is there already\n"
    assert main(["download"]) == 0
    assert "cifar10" in capsys.readouterr().out
    assert main(["list", "datasets"]) == 0
    assert "env:ID" in capsys.readouterr().out


def test_download_cifar10(server: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_cifar10(tmp_path / "published", count=4)
    names = {name: (tmp_path / "published" / name).read_bytes() for name in cifar10.FILES}
    server.files["file"] = packed = pack({**names, "cifar-10-batches-bin/readme.html": b"hello"})
    sources = [source(f"{server.address}/good/file", content=packed, name="c.tar.gz", members=cifar10.FILES)]
    monkeypatch.setattr(cifar10, "SOURCES", sources)
    monkeypatch.delenv("SACCADE_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    assert len(download("cifar10")) == 6
    assert listing(tmp_path / "cache" / "saccade") == sorted(cifar10.FILES)
    assert len(load("cifar10").train) == 18


def test_what_cannot_be_downloaded_is_named():
    with pytest.raises(UnknownNameError, match="'mnist'"):
        download("mnst")


def test_the_publishers_checksums_are_whole():
    """64 hexadecimal digits and https, each; a slip of the pen would refuse every download."""
    for one in (*mnist.SOURCES, *cifar10.SOURCES):
        kind, _, digits = one.checksum.partition(":")
        assert (kind, len(bytes.fromhex(digits))) == ("sha256", 32)
        assert all(address.startswith("https://") for address in one.addresses)
