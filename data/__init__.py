"""Data sets to train encoders on, and to judge them by: `load` finds one by its name."""

from __future__ import annotations

from pathlib import Path

from ..envs.errors import UnknownNameError
from ..envs.options import EnvOptions
from ..envs.recorder import Policy, Recipe
from . import arrays, cifar10, mnist
from .base import Dataset, Split
from .batches import Batches

__all__ = ["PUBLISHED", "Batches", "Dataset", "Policy", "Split", "list_datasets", "load"]

PUBLISHED = {"cifar10": cifar10, "mnist": mnist}  # modules with `kind`, `SOURCES` and `load()`
FRAMES = "what an environment shows, recorded on first use: env:ALE/Breakout-v5, env:pixels/CartPole-v1, any other id"
_DEFAULTS = EnvOptions()


def list_datasets() -> dict[str, str]:
    """Name (or the form of a name) -> one line."""
    published = {name: module.kind for name, module in PUBLISHED.items()}
    return published | {"env:ID": FRAMES, "PATH.npy": arrays.kind}


def load(
    name: str,
    *,
    seed: int = 0,
    frames: int = 50_000,
    step: int = 1,
    policy: Policy | None = None,
    options: EnvOptions = _DEFAULTS,
) -> Dataset:
    """The data set called `name`, from files under $SACCADE_DATA or in the cache. Nothing is downloaded.

    Args:
        name: one of `list_datasets()`, a `.npy` file, or `env:` and an environment's id.
        seed: of the split of a `.npy` file, or of a recording; the published sets are split once and for all.
        frames: of a recording: observations, which are recorded now (with progress) where they are not there yet.
        step: of a recording: "next_x" is so many steps later, and "action" what was done first; 0 leaves both out.
        policy: of a recording: who acts; None: random actions.
        options: of a recording: the environment's.

    Raises:
        UnknownNameError: nothing is called so; names the nearest that is.
        UserError: its files are absent, or damaged; says which and what to do.
    """
    if name in PUBLISHED:
        return PUBLISHED[name].load()
    if name.endswith(".npy"):
        return arrays.load(Path(name), seed)
    if name.startswith("env:"):
        from . import frames as recorded

        recipe = Recipe(name.removeprefix("env:"), options, policy.name if policy else "random", seed)
        return recorded.load(recipe, frames, step, policy)
    raise UnknownNameError("data set", name, list_datasets())
