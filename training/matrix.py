"""Which encoder reads which data set and which kind of world: found out by building each for each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..data import PUBLISHED
from ..encoders import list_encoders, make_encoder
from ..encoders.base import Encoder, Learner
from ..envs import make_env
from ..envs.errors import SpecError
from ..envs.spec import ObservationSpec

WORLDS = ("CartPole-v1", "pixels/CartPole-v1", "ALE/Breakout-v5")  # one of each kind
VECTORS = ObservationSpec((16,))  # as a .npy file holds them; their number makes no difference
MAPS = ObservationSpec((8, 4, 4))  # what an encoder may give to a memory behind it
STEPS = {  # one step of sequences; as little does the number of words
    "sequential-mnist": ObservationSpec((28,), "uint8", 0, 255),
    "copy": ObservationSpec((10,), "float32", 0, 1),
    "text": ObservationSpec((), "int64", 0, 99, vocabulary=100),
}


@dataclass(frozen=True)
class Cell:
    """What becomes of one encoder before one kind of observation."""

    reads: bool
    learns: bool  # by itself, so that `saccade pretrain` trains it there, and agents co-train it
    reason: str = ""  # why it cannot read them

    @property
    def word(self) -> str:
        return "learns" if self.learns else "reads" if self.reads else "-"


def sources() -> dict[str, ObservationSpec]:
    """What is read: data sets, and one world of each kind. Nothing is downloaded or opened for that."""
    published = {name: module.SPEC for name, module in PUBLISHED.items()}
    return published | {"PATH.npy": VECTORS} | STEPS | {name: _spec_of(name) for name in WORLDS}


def try_encoder(name: str, spec: ObservationSpec) -> Cell:
    """Whether the encoder called `name`, with its default settings, reads observations of `spec`."""
    try:
        encoder = _skeleton(name, spec)
    except SpecError as error:
        return Cell(reads=False, learns=False, reason=str(error))
    return Cell(reads=True, learns=isinstance(encoder, Learner))


def matrix(specs: dict[str, ObservationSpec] | None = None) -> dict[str, dict[str, Cell]]:
    """Cells by encoder and source."""
    specs = sources() if specs is None else specs
    return {name: {source: try_encoder(name, spec) for source, spec in specs.items()} for name in list_encoders()}


def list_learners() -> list[str]:
    """Names of the encoders that can be trained on their own."""
    specs = [VECTORS, *(module.SPEC for module in PUBLISHED.values())]
    return [name for name in list_encoders() if any(try_encoder(name, spec).learns for spec in specs)]


def list_memories() -> list[str]:
    """Names of the encoders that remember, so that they may stand behind another in an agent."""
    readable = {name: [spec for spec in (VECTORS, MAPS) if try_encoder(name, spec).reads] for name in list_encoders()}
    found = [(name, _skeleton(name, specs[0])) for name, specs in readable.items() if specs]
    return [name for name, encoder in found if encoder.causal and encoder.initial_state(1)]


def _skeleton(name: str, spec: ObservationSpec) -> Encoder:
    """The encoder without numbers, where that is possible: drawing millions of weights takes seconds."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make_encoder(name, spec)
        except (RuntimeError, NotImplementedError):  # it looks at its numbers while it is built
            return make_encoder(name, spec)


def _spec_of(env_id: str) -> ObservationSpec:
    env = make_env(env_id, 1)
    try:
        return env.spec.observation
    finally:
        env.close()
