"""Checkpoints come back exactly, survive being killed, and say clearly what is wrong with a bad one."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.envs.errors import UserError
from saccade.training import checkpoint

STATE = {
    "tensor": torch.arange(6.0).view(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "array": np.arange(4, dtype=np.uint8).reshape(2, 2),
    "big": np.array([2**63 + 1], dtype=np.uint64),
    "flags": np.array([True, False]),
    "scalar": np.float32(0.1),
    "plain": (1, -0.1, None, True, "text", b"\x00\xff", [2**200, {"a": ()}]),
    7: "a key that is a number",
}


def same(a, b) -> bool:
    """Equal to the bit, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def chunk(version: int, name: str = "frames-0") -> checkpoint.Chunk:
    return name, version, {"x": torch.full((5,), version)}


def test_state_comes_back_exactly(tmp_path):
    path = checkpoint.save(tmp_path / "new", 50_000, STATE)
    assert path.name == "step-000000050000"
    assert same(checkpoint.load(tmp_path / "new"), STATE)
    assert list(checkpoint.load_chunks(tmp_path / "new")) == []


def test_channels_last_weights_and_optimiser_states_come_back_exactly(tmp_path):
    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimiser.step()
    saved = {"model": dict(model.state_dict()), "optimiser": optimiser.state_dict()}
    checkpoint.save(tmp_path, 1, saved)
    assert same(checkpoint.load(tmp_path), saved)


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_generators_go_on_where_they_were(tmp_path, kind):
    source = kind(3)
    np.random.Generator(source).random(5)
    checkpoint.save(tmp_path, 1, {"random": source.state, "torch": torch.get_rng_state()})
    saved, copy = checkpoint.load(tmp_path), kind(99)
    copy.state = saved["random"]
    assert np.array_equal(np.random.Generator(copy).random(9), np.random.Generator(source).random(9))
    expected = torch.rand(3)
    torch.set_rng_state(saved["torch"])
    assert torch.equal(torch.rand(3), expected)


def test_a_view_does_not_bring_the_storage_it_looks_at(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"x": torch.zeros(1_000_000)[10:12]})
    assert (path / "state.pt").stat().st_size < 10_000


def test_what_could_not_be_loaded_safely_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"state\.a\[1\] is a set"):
        checkpoint.save(tmp_path, 1, {"a": [0, {1}]})
    assert checkpoint.latest(tmp_path) is None


def test_only_the_newest_is_kept(tmp_path):
    for step in (1, 20, 3):  # not in order: a name decides, not the time
        checkpoint.save(tmp_path, step, {"step": step})
        assert [path.name for path in tmp_path.iterdir()] == [f"step-{step:012d}"]


def test_the_same_step_can_be_saved_again(tmp_path):
    for value in range(3):
        checkpoint.save(tmp_path, 5, {"value": value})
        assert checkpoint.load(tmp_path) == {"value": value}
        assert len(list(tmp_path.iterdir())) == 1


def test_only_changed_chunks_are_written(tmp_path):
    checkpoint.save(tmp_path, 1, {}, [chunk(1), chunk(1, "b")])
    (unchanged,) = (tmp_path / "replay").glob("b.*")
    before = unchanged.stat().st_mtime_ns, unchanged.stat().st_ino
    checkpoint.save(tmp_path, 2, {}, [chunk(4), chunk(1, "b")])
    assert (unchanged.stat().st_mtime_ns, unchanged.stat().st_ino) == before
    assert sorted(path.name for path in (tmp_path / "replay").iterdir()) == [
        "b.1.safetensors",
        "frames-0.4.safetensors",
    ]
    loaded = {name: (version, content["x"].tolist()) for name, version, content in checkpoint.load_chunks(tmp_path)}
    assert loaded == {"frames-0": (4, [4] * 5), "b": (1, [1] * 5)}
    checkpoint.save(tmp_path, 3, {})
    assert not list((tmp_path / "replay").iterdir())


def test_chunks_that_a_killed_save_left_are_not_trusted(tmp_path):
    checkpoint.save(tmp_path, 1, {}, [chunk(1)])
    left = tmp_path / "replay" / "frames-0.2.safetensors"
    left.write_bytes((tmp_path / "replay" / "frames-0.1.safetensors").read_bytes())  # same size, other content
    checkpoint.save(tmp_path, 2, {}, [chunk(2)])
    assert next(checkpoint.load_chunks(tmp_path))[2]["x"].tolist() == [2] * 5


def test_leftovers_are_ignored_then_cleaned(tmp_path):
    checkpoint.save(tmp_path, 1, {"good": 1})
    leftover = tmp_path / ".saving-1"
    shutil.copytree(tmp_path / "step-000000000001", leftover)
    assert checkpoint.load(tmp_path) == {"good": 1}
    assert leftover.exists()  # it may be another process that is saving: only the one that saves may clean
    checkpoint.save(tmp_path, 2, {"good": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000002"]


@pytest.mark.parametrize("where", ["missing", "empty", "file"])
def test_nothing_to_load(tmp_path, where):
    directory = tmp_path / where
    if where == "empty":
        directory.mkdir()
    elif where == "file":
        directory.write_text("")
    with pytest.raises(UserError, match="there is no checkpoint in"):
        checkpoint.load(directory)


@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
def test_truncated_or_missing_files(tmp_path, name):
    path = checkpoint.save(tmp_path, 1, STATE) / name
    data = path.read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        checkpoint.load(tmp_path)


def test_flipped_bits_never_pass_for_the_truth(tmp_path):
    """Wherever a bit flips, in a state or a manifest, the checkpoint is refused or comes back as it was."""
    folder = checkpoint.save(tmp_path, 1, STATE)
    generator = random.Random(0)
    refused = 0
    for path in (folder / "state.pt", folder / "manifest.json"):
        data = path.read_bytes()
        for _ in range(150):
            position = generator.randrange(len(data))
            flipped = bytes([data[position] ^ 1 << generator.randrange(8)])
            path.write_bytes(data[:position] + flipped + data[position + 1 :])
            try:
                assert same(checkpoint.load(tmp_path), STATE)
            except UserError:
                refused += 1
        path.write_bytes(data)
    assert refused >= 150 + 100  # every one in the state, most in the manifest (some are in blanks)


def test_damaged_chunks(tmp_path):
    checkpoint.save(tmp_path, 1, {"small": 1}, [chunk(1), chunk(1, "b")])
    path = tmp_path / "replay" / "b.1.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert checkpoint.load(tmp_path) == {"small": 1}  # evaluating needs no replay
    with pytest.raises(UserError, match=r"b\.1\.safetensors is damaged.*checksum"):
        list(checkpoint.load_chunks(tmp_path))
    path.unlink()
    with pytest.raises(UserError, match=r"b\.1\.safetensors is missing"):
        list(checkpoint.load_chunks(tmp_path))


def rewrite_manifest(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_newer_and_foreign_formats(tmp_path):
    folder = checkpoint.save(tmp_path, 1, STATE)
    rewrite_manifest(folder, version=2)
    with pytest.raises(UserError, match=r"is of format 2, written by a newer saccade.*upgrade"):
        checkpoint.load(tmp_path)
    rewrite_manifest(folder, version=1, format="other")
    with pytest.raises(UserError, match=r"manifest\.json is not saccade's"):
        checkpoint.load(tmp_path)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match=r"manifest\.json is not saccade's"):
        checkpoint.load(tmp_path)


def test_a_strangers_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    folder = checkpoint.save(tmp_path / "run", 1, {})
    data = pickle.dumps({"x": Evil()})
    torch.save({"x": Evil()}, folder / "state.pt")
    for content in (data, (folder / "state.pt").read_bytes()):
        (folder / "state.pt").write_bytes(content)
        entry = {"file": "state.pt", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        rewrite_manifest(folder, files=[entry])
        with pytest.raises(UserError, match="other than tensors and plain values"):
            checkpoint.load(tmp_path / "run")
    assert not (tmp_path / "owned").exists()


def test_a_manifest_cannot_point_elsewhere(tmp_path):
    folder = checkpoint.save(tmp_path / "run", 1, {}, [chunk(1)])
    entry = json.loads((folder / "manifest.json").read_text())["chunks"][0]
    shutil.copy(tmp_path / "run" / "replay" / entry["file"], tmp_path / "a.1.safetensors")
    rewrite_manifest(folder, chunks=[entry | {"file": "../../a.1.safetensors"}])
    with pytest.raises(UserError, match="strange file"):
        list(checkpoint.load_chunks(tmp_path / "run"))


def test_saving_goes_on_over_a_damaged_checkpoint(tmp_path):
    folder = checkpoint.save(tmp_path, 1, {}, [chunk(1)])
    (folder / "manifest.json").write_text("")
    checkpoint.save(tmp_path, 2, {"a": 1}, [chunk(1)])
    assert checkpoint.load(tmp_path) == {"a": 1}
    assert len(list(checkpoint.load_chunks(tmp_path))) == 1


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


FULL = """
import resource, sys, torch
from pathlib import Path
from saccade.envs.errors import UserError
from saccade.training import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # no file may grow beyond
state = {"x": torch.zeros(int(sys.argv[2]))}
chunks = [("small", 2, {"x": torch.zeros(9)}), ("a", 2, {"x": torch.zeros(int(sys.argv[3]))})]
try:
    checkpoint.save(Path(sys.argv[1]), 2, state, chunks)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(("state_size", "chunk_size"), [(1_000_000, 1), (1, 1_000_000)])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, state_size, chunk_size):
    checkpoint.save(tmp_path, 1, STATE, [chunk(1)])
    before = files(tmp_path)
    done = run_python(FULL, tmp_path, state_size, chunk_size)
    assert done.stdout.startswith(f"cannot write checkpoint {tmp_path}: File too large"), done.stderr
    assert done.stdout.count("\n") == 1
    assert files(tmp_path) == before
    assert not list(tmp_path.glob(".saving*"))
    assert same(checkpoint.load(tmp_path), STATE)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write checkpoint"):
        checkpoint.save(tmp_path / "file" / "checkpoint", 1, {})


SAVE_FOR_EVER = """
import os, random, signal, sys, time, torch
from itertools import count
from pathlib import Path
from saccade.training import checkpoint

def save_for_ever(directory):
    start = checkpoint.load(directory)["step"] if checkpoint.latest(directory) else 0
    for step in count(start + 1):
        chunks = ((f"c{i}", v, {"x": torch.full((2000,), v)}) for i in range(3) for v in [(step + i) // 3])
        checkpoint.save(directory, step, {"step": step, "x": torch.full((5000,), step)}, chunks)
"""

KILL_AGAIN_AND_AGAIN = """
directory, chance, reached = Path(sys.argv[1]), random.Random(1), 0
torch.set_num_threads(1)
for _ in range(30):
    if (child := os.fork()) == 0:  # as a process of its own, without the seconds of importing torch
        save_for_ever(directory)
    time.sleep(chance.uniform(0.01, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if checkpoint.latest(directory) is None:
        continue
    state = checkpoint.load(directory)
    step = state["step"]
    assert step >= reached and (state["x"] == step).all()
    chunks = {name: (version, content["x"]) for name, version, content in checkpoint.load_chunks(directory)}
    for i in range(3):
        version, content = chunks[f"c{i}"]
        assert version == (step + i) // 3 and (content == version).all()
    reached = step
print(reached)
"""


def test_killed_at_any_instant_the_last_complete_checkpoint_loads(tmp_path):
    done = run_python(SAVE_FOR_EVER + KILL_AGAIN_AND_AGAIN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_reading_while_another_process_saves(tmp_path):
    code = SAVE_FOR_EVER + "save_for_ever(Path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        while checkpoint.latest(tmp_path) is None:
            time.sleep(0.01)
        steps = []
        end = time.monotonic() + 1
        while time.monotonic() < end:
            state = checkpoint.load(tmp_path)
            assert (state["x"] == state["step"]).all()
            steps.append(state["step"])
        assert steps == sorted(steps)
        assert len(set(steps)) > 1
    finally:
        process.kill()
        process.wait()
