"""Names that are file names, and the user's own files and modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from saccade.agents import find_agent, list_agents, make_agent
from saccade.encoders import find_encoder, list_encoders, make_encoder
from saccade.encoders import mlp as builtin_mlp
from saccade.encoders.base import Inputs
from saccade.envs.errors import SpecError, UnknownNameError, UserError
from saccade.envs.spec import ActionSpec, EnvSpec, ObservationSpec

SPEC = ObservationSpec((3,))
WORLD = EnvSpec("world", 1, SPEC, ActionSpec(count=2))
MINE = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn
from saccade.encoders.base import FeedForward

kind = "my own"

@dataclass(frozen=True)
class Config:
    units: int = 5  # of my layer

class Mine(FeedForward):
    def __init__(self, units, size):
        super().__init__()
        self.layer = nn.Linear(size, units)
        self.feature_shape = (units,)

    def encode(self, x):
        return self.layer(x)

def build(config, spec):
    return Mine(config.units, spec.size)
"""


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_names_are_files():
    folder = Path(builtin_mlp.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"base", "__init__"}
    assert set(list_encoders()) == files
    assert {"mlp", "conv", "resnet"} <= files
    assert {"dqn", "reinforce"} <= set(list_agents())
    assert "base" not in list_agents()


def test_a_built_in_name():
    entry = find_encoder("mlp")
    assert (entry.name, entry.Config, entry.build) == ("mlp", builtin_mlp.Config, builtin_mlp.build)
    assert not entry.user
    assert make_encoder("mlp", SPEC, entry.Config(hidden=(7, 9))).feature_shape == (9,)


def test_a_built_in_name_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, MINE, "mlp")
    monkeypatch.chdir(tmp_path)
    assert not find_encoder("mlp").user


@pytest.mark.parametrize("find", [find_encoder, find_agent])
@pytest.mark.parametrize("name", ["base", "parts", "__init__", "nothing-like-it", "", "torch", "."])
def test_unknown_names(find, name: str):
    with pytest.raises(UnknownNameError, match=r"known:|did you mean"):
        find(name)


def test_the_nearest_name_is_offered():
    with pytest.raises(UnknownNameError, match="did you mean 'resnet'"):
        find_encoder("restnet")
    with pytest.raises(UnknownNameError, match="did you mean 'dqn'"):
        find_agent("dqnn")


def test_a_file_of_the_user(tmp_path: Path):
    path = write(tmp_path, MINE)
    entry = find_encoder(path)
    assert entry.user
    assert entry.kind == "my own"
    assert find_encoder(path).Config is entry.Config  # loaded once, so that isinstance holds
    encoder = make_encoder(path, SPEC, entry.Config(units=4))
    assert encoder(Inputs(torch.zeros(2, 3, 3)))[0].shape == (2, 3, 4)


def test_two_files_of_one_name_are_two(tmp_path: Path):
    (tmp_path / "other").mkdir()
    ours = write(tmp_path, MINE)
    theirs = write(tmp_path / "other", MINE.replace("units: int = 5", "units: int = 6"))
    assert make_encoder(ours, SPEC).feature_shape == (5,)
    assert make_encoder(theirs, SPEC).feature_shape == (6,)


def test_a_module_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "package_of_mine"
    package.mkdir()
    write(package, "", "__init__.py")
    write(package, MINE, "eyes.py")
    write(package, "import nothing_like_this", "broken.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert make_encoder("package_of_mine.eyes", SPEC).feature_shape == (5,)
    with pytest.raises(UserError, match=r"unknown encoder 'package_of_mine\.ears'.*built-in: .*mlp"):
        find_encoder("package_of_mine.ears")
    with pytest.raises(UserError, match=r"ModuleNotFoundError: .*nothing_like_this.*broken\.py:1"):
        find_encoder("package_of_mine.broken")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "does not define kind and Config and build"),
        ("kind = 'x'\nclass Config: pass\ndef build(): pass", "Config must be a dataclass"),
        (MINE.replace("def build", "def make"), "does not define build"),
        (MINE + "\nbuild = 3", "build must be a function"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(.*mine\.py:1\)"),
        ("x = 1\ndef (", r"SyntaxError: .*mine\.py:2\)"),
        (MINE.replace("return Mine", "return lambda *_: Mine"), "build must return a saccade Encoder, not function"),
        (MINE.replace("= 5", ""), "every field of Config needs a default"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, complaint: str):
    path = write(tmp_path, text)
    before = set(sys.modules)
    with pytest.raises(UserError, match=complaint) as raised:
        make_encoder(path, SPEC)
    assert "\n" not in str(raised.value)
    if "Error" in complaint:
        assert not [name for name in set(sys.modules) - before if "mine" in name]  # mended, it can be tried again


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        find_encoder(str(tmp_path / "none.py"))


def test_a_loaded_config_names_built_in_parts_only(tmp_path: Path):
    path = write(tmp_path, "raise SystemExit('this file must not run')")
    for name in (path, "package.module"):
        with pytest.raises(UserError, match="name it again on the command line"):
            find_encoder(name, user=False)
    assert find_encoder("mlp", user=False).name == "mlp"


def test_a_foreign_config_is_refused():
    with pytest.raises(UserError, match=r"'mlp' wants its own Config, not saccade\.encoders\.conv\.Config"):
        make_encoder("mlp", SPEC, find_encoder("conv").Config())


def test_agents_by_name():
    agent = make_agent("reinforce", WORLD, make_encoder("mlp", SPEC), seed=1)
    assert type(agent).__name__ == "Reinforce"
    box = EnvSpec("box", 1, SPEC, ActionSpec(shape=(1,), low=(-1.0,), high=(1.0,)))
    with pytest.raises(SpecError, match="discrete"):
        make_agent("dqn", box, make_encoder("mlp", SPEC))
