"""Bundles come back exactly, and say clearly what is wrong with a bad one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from saccade.encoders import find_encoder, make_encoder
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from saccade.training import bundle
from saccade.training.bundle import is_bundle, load_bundle, read_card, save_bundle

SPEC = ObservationSpec((6,), low=-2.0, high=(1.0, np.inf, 3.0, 1.0, 2.0, 3.0))
CARD = {"data": {"name": "numbers", "examples": 1234}, "loss": 0.12345678, "nothing": None}
TIED = """
from dataclasses import dataclass
from torch import nn
from saccade.encoders.base import FeedForward

kind = "one layer under two names"

@dataclass(frozen=True)
class Config:
    units: int = 5

class Tied(FeedForward):
    def __init__(self, units, size):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(size, units), nn.BatchNorm1d(units))
        self.again = self.layer[0]
        self.feature_shape = (units,)

    def encode(self, x):
        return self.layer(x)

def build(config, spec):
    return Tied(config.units, spec.size)
"""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run directory with an mlp in it."""
    config = find_encoder("mlp").Config(hidden=(5,), scale=True)
    save_bundle(tmp_path / "run" / "bundle", "mlp", config, SPEC, make_encoder("mlp", SPEC, config), CARD)
    return tmp_path / "run"


@pytest.fixture
def users(tmp_path: Path) -> tuple[Path, str]:
    """A bundle of the user's own encoder, and its file."""
    (tmp_path / "tied.py").write_text(TIED)
    name = str(tmp_path / "tied.py")
    config = find_encoder(name).Config(units=3)
    encoder = make_encoder(name, SPEC, config)
    encoder.read(torch.arange(24.0).view(4, 6))  # in training mode: moves the batch statistics
    save_bundle(tmp_path / "mine", name, config, SPEC, encoder, {})
    return tmp_path / "mine", name


def edit(directory: Path, change) -> None:
    path = directory / "bundle.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("inside", ["", "bundle"])
def test_it_comes_back_exactly_from_the_run_or_the_bundle_directory(saved, inside):
    loaded = load_bundle(saved / inside)
    assert loaded.name == "mlp"
    assert loaded.config == find_encoder("mlp").Config(hidden=(5,), scale=True)
    assert loaded.spec == SPEC
    assert loaded.card == CARD
    assert read_card(saved / inside) == CARD
    assert not loaded.encoder.training
    assert is_bundle(saved / inside)
    torch.manual_seed(0)
    original = make_encoder("mlp", SPEC, loaded.config)  # the same draw of weights as in `saved`
    x = torch.randn(7, 6)
    assert torch.equal(loaded.encoder.read(x), original.read(x))


def test_the_directory_holds_three_files_and_the_card_is_for_people(saved):
    assert {path.name for path in saved.iterdir()} == {"bundle"}
    assert {path.name for path in (saved / "bundle").iterdir()} == {"bundle.json", "encoder.safetensors", "card.md"}
    text = (saved / "bundle" / "card.md").read_text()
    assert text.startswith("# mlp\n")
    assert "float32 [6]" in text
    assert "- loss: 0.123457\n" in text
    assert "## data\n\n- name: numbers\n- examples: 1,234\n" in text
    assert "nothing" not in text


def test_loading_moves_no_generator(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_bundle(saved)
    assert torch.equal(torch.rand(3), expected)


def test_shared_weights_and_buffers_come_back(users):
    directory, name = users
    loaded = load_bundle(directory, user_encoder=name)
    assert loaded.encoder.again.weight is loaded.encoder.layer[0].weight
    assert loaded.encoder.layer[1].num_batches_tracked == 1
    assert loaded.encoder.layer[1].running_mean.any()


def test_a_users_encoder_must_be_named_again(users):
    directory, name = users
    with pytest.raises(UserError, match=r"name it again on the command line"):
        load_bundle(directory)
    edit(directory, lambda data: data.update(encoder="mlp"))
    with pytest.raises(UserError, match=r"units"):  # another encoder's configuration
        load_bundle(directory)
    assert load_bundle(directory, user_encoder=name).name == name


def test_a_bundle_is_replaced_whole_and_nothing_else_is(saved):
    config = find_encoder("mlp").Config(hidden=(2,))
    save_bundle(saved / "bundle", "mlp", config, SPEC, make_encoder("mlp", SPEC, config), {})
    assert load_bundle(saved).config == config
    assert {path.name for path in saved.iterdir()} == {"bundle"}
    (saved / "other").mkdir()
    with pytest.raises(UserError, match="is no bundle"):
        save_bundle(saved / "other", "mlp", config, SPEC, make_encoder("mlp", SPEC, config), {})


def test_a_failed_save_leaves_the_old_one(saved, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_markdown", fail)
    config = find_encoder("mlp").Config(hidden=(2,))
    with pytest.raises(UserError, match=r"cannot write bundle .*: No space left"):
        save_bundle(saved / "bundle", "mlp", config, SPEC, make_encoder("mlp", SPEC, config), {})
    assert load_bundle(saved).config.hidden == (5,)
    assert {path.name for path in saved.iterdir()} == {"bundle"}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped": (lambda d: flip(d / "encoder.safetensors"), "checksum of encoder.safetensors"),
    "cut": (lambda d: (d / "encoder.safetensors").write_bytes(b"abc"), "3 bytes instead of"),
    "no weights": (lambda d: (d / "encoder.safetensors").unlink(), "encoder.safetensors cannot be read"),
    "no JSON": (lambda d: (d / "bundle.json").write_text("{"), "bundle.json cannot be read"),
    "a list": (lambda d: (d / "bundle.json").write_text("[]"), "bundle.json is not saccade's"),
    "foreign": (lambda d: edit(d, lambda data: data.update(format="other")), "bundle.json is not saccade's"),
    "newer": (lambda d: edit(d, lambda data: data.update(version=2)), "upgrade saccade"),
    "unknown encoder": (lambda d: edit(d, lambda data: data.update(encoder="mlpp")), "did you mean 'mlp'"),
    "unknown setting": (lambda d: edit(d, lambda data: data["config"].update(hiden=3)), "did you mean"),
    "other size": (lambda d: edit(d, lambda data: data["config"].update(hidden=[4])), "does not fit its encoder"),
    "other spec": (lambda d: edit(d, lambda data: data["spec"].update(shape=[7])), "bundle"),
    "no spec": (lambda d: edit(d, lambda data: data.pop("spec")), "'spec' is missing"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_wrong_with_a_bad_one(saved, damage, message):
    damage(saved / "bundle")
    with pytest.raises(UserError, match=message) as caught:
        load_bundle(saved)
    assert str(saved) in str(caught.value)


def test_where_there_is_none(tmp_path):
    assert not is_bundle(tmp_path)
    assert not is_bundle(tmp_path / "nothing")
    with pytest.raises(UserError, match="is no bundle"):
        load_bundle(tmp_path)
    with pytest.raises(UserError, match="no such directory"):
        load_bundle(tmp_path / "nothing")


def test_weights_of_other_shapes_do_not_pass_for_checked(saved):
    """A checksum says that a file is whole, not that it belongs to the description."""
    data = safetensors.torch.save({"layers.0.weight": torch.zeros(5, 6)})
    (saved / "bundle" / "encoder.safetensors").write_bytes(data)
    weights = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(saved / "bundle", lambda description: description.update(weights=weights))
    with pytest.raises(UserError, match="does not fit its encoder"):
        load_bundle(saved)
