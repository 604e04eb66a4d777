"""The choice of device, precision and threads, and what is said about the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import saccade
import torch
from saccade.agents import make_agent
from saccade.agents.dqn import DQN
from saccade.agents.parts.compute import Compute
from saccade.encoders import make_encoder
from saccade.envs import make_env
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from saccade.training import device

IMAGE = ObservationSpec((4, 84, 84), "uint8", 0, 255, stack=4)
VECTOR = ObservationSpec((4,))


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("amx", "avx"), [(True, False), (False, True), (True, True), (False, False)])
def test_bfloat16_is_for_images_on_processors_that_multiply_it(monkeypatch, amx, avx):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert device.choose(IMAGE, device="cpu").bfloat16 is (amx or avx)
    assert device.choose(VECTOR, device="cpu").bfloat16 is False
    assert device.choose(VECTOR, device="cpu", precision="bfloat16").bfloat16 is True
    assert device.choose(IMAGE, device="cpu", precision="float32").bfloat16 is False


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_taken_if_there(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    chosen = device.choose(IMAGE)
    assert (chosen.device, chosen.bfloat16, chosen.fused) == ("cuda", fast, True)
    with pytest.raises(UserError, match="finds 1 CUDA"):
        device.choose(IMAGE, device="cuda:1")


def test_channels_last_is_for_images():
    assert device.choose(IMAGE, device="cpu").channels_last
    assert not device.choose(VECTOR, device="cpu").channels_last


def test_threads_are_set_as_asked():
    device.choose(IMAGE, device="cpu", threads=3)
    assert torch.get_num_threads() == 3
    device.choose(VECTOR, device="cpu")
    assert torch.get_num_threads() == 1
    device.choose(IMAGE, device="cpu")
    assert torch.get_num_threads() == device._CORES_GIVEN


def test_threads_never_exceed_what_the_environment_gives():
    code = (
        "import torch; from saccade.training import device; from saccade.envs.spec import ObservationSpec;"
        "device.choose(ObservationSpec((3, 8, 8), 'uint8'), device='cpu'); print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "torch finds no CUDA GPUs"),
        ("gpu", "unknown device 'gpu'"),
        ("mps", "no Apple GPU"),
        ("meta", "not supported"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, name, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        device.choose(VECTOR, device=name)


def test_negative_threads_are_refused():
    with pytest.raises(UserError, match="--threads"):
        device.choose(VECTOR, threads=-1)


def test_description_names_what_was_chosen():
    chosen = device.choose(IMAGE, device="cpu", precision="bfloat16", threads=2)
    assert device.describe(chosen) == "cpu, 2 threads, bfloat16, channels last"
    chosen = device.choose(VECTOR, device="cpu", precision="float32", compile=True)
    assert device.describe(chosen) == "cpu, 1 thread, float32, compiled"


def test_machine_and_versions_are_this_machine():
    machine, versions = device.machine(), device.versions()
    assert machine["cores"] >= 1
    assert machine["memory_gb"] > 0.1
    assert machine["processor"]
    assert versions["saccade"] == saccade.__version__
    assert torch.__version__.startswith(versions["torch"].split("+")[0])


def test_commit_is_that_of_the_packages_own_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    module = tmp_path / "training" / "device.py"
    module.parent.mkdir()
    module.write_text("")
    monkeypatch.setattr(device, "__file__", str(module))
    assert device.commit() is None  # no checkout
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert device.commit() == git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert device.commit() == git("rev-parse", "HEAD")
    module.write_text("changed")
    assert device.commit() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setattr(device, "__file__", str(tmp_path / "a" / "b" / "device.py"))
    Path(tmp_path / "a" / "b").mkdir(parents=True)
    assert device.commit() is None  # below another project's checkout


def test_glibc_keeps_what_is_freed():
    assert device.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("amx", [True, False])
def test_dense_nets_round_inside_their_products(monkeypatch, amx):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    dense, convolutional = torch.nn.Sequential(torch.nn.Linear(3, 2)), torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    try:
        chosen = device.choose(IMAGE, device="cpu", threads=1)
        for net in (convolutional, make_encoder("dnc", VECTOR), make_encoder("ntm", VECTOR)):
            assert device.settle(chosen, net) == chosen
        assert torch.get_float32_matmul_precision() == "highest"
        settled = device.settle(chosen, dense)
        assert (settled.bfloat16, settled.rounded_products) == (False, amx)
        assert torch.get_float32_matmul_precision() == ("medium" if amx else "highest")
        assert device.describe(settled).split(", ")[2] == ("bfloat16 products" if amx else "float32")
        assert (
            device.settle(device.choose(IMAGE, device="cpu", precision="float32", threads=1), dense).bfloat16 is False
        )
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_agents_that_torch_cannot_compile_refuse_to_be():
    env = make_env("CartPole-v1", 2)
    encoder = make_encoder("mlp", env.spec.observation)
    with pytest.raises(UserError, match="a2c has nothing that torch would compile"):
        make_agent("a2c", env.spec, encoder, compute=Compute(compile=True))
    assert DQN.compiles
