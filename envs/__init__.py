"""Worlds: vector environments behind one `Step`, made from an id."""

from __future__ import annotations

from collections.abc import Iterable

from .base import Outcome, Step, VectorEnv
from .errors import SpecError, UnknownNameError, UserError
from .flicker import flicker
from .options import EnvOptions
from .spec import ActionSpec, EnvSpec, ObservationSpec
from .stacked import StackedEnv, stacked

__all__ = [
    "ActionSpec",
    "EnvOptions",
    "EnvSpec",
    "ObservationSpec",
    "Outcome",
    "SpecError",
    "Step",
    "UnknownNameError",
    "UserError",
    "VectorEnv",
    "list_envs",
    "make_env",
]

_DEFAULTS = EnvOptions()


def make_env(env_id: str, num_envs: int, options: EnvOptions = _DEFAULTS) -> VectorEnv:
    """`num_envs` copies of the world that `env_id` names.

    Args:
        env_id: `ALE/Breakout-v5` (any Atari game), `pixels/CartPole-v1` (classic control seen as pictures),
            `masked/CartPole-v1` (the same without velocities), `diagnostic/recall-10`, `diagnostic/t-maze-10`,
            `maze/5` (seen from within), `minigrid/MiniGrid-FourRooms-v0`, `doom/my-way-home`, any other id that
            Gymnasium knows, or `package:Id-v0`, which imports the package first, so that it can register its worlds.
        num_envs: copies that are stepped together.
        options: what can be set about worlds; each takes what concerns it.

    Raises:
        UnknownNameError: nothing is called `env_id`; names the nearest that is.
        SpecError: the world shows or accepts something that agents here cannot use.
        UserError: a size that is not positive, or a package that is missing.
    """
    _check(num_envs, options)
    return flicker(_make(env_id, num_envs, options), options.flicker)


def _make(env_id: str, num_envs: int, options: EnvOptions) -> VectorEnv:
    # each kind of world imports what it needs when it is asked for
    match env_id.split("/")[0]:
        case "ALE":
            from .atari import AtariEnv

            return AtariEnv(env_id, num_envs, options)
        case "pixels":
            from .pixels import PixelEnv

            return StackedEnv(PixelEnv(env_id, num_envs, options), options.stack or 2)
        case "maze":
            from .maze import MazeEnv

            return stacked(MazeEnv(env_id, num_envs, options), options.stack)
        case "minigrid":
            from .gridworlds import make_gridworld

            return make_gridworld(env_id, num_envs, options)
        case "doom":
            from .doom import make_doom

            return make_doom(env_id, num_envs, options)
        case "masked":
            from .masked import MaskedEnv

            return MaskedEnv(env_id, num_envs, options)
        case "diagnostic":
            from .diagnostics import DiagnosticEnv
            from .t_maze import TMazeEnv, is_t_maze

            return TMazeEnv(env_id, num_envs) if is_t_maze(env_id) else DiagnosticEnv(env_id, num_envs)
    from .registered import RegisteredEnv, import_package, is_registered

    name = import_package(env_id)
    if not is_registered(name):
        raise UnknownNameError("environment", env_id, list_envs())
    return RegisteredEnv(name, num_envs, options)


def list_envs() -> list[str]:
    """Ids that `make_env` takes. Worlds of other packages join once they are imported; recall, t-maze and maze take
    any length.
    """
    from .atari import list_games
    from .diagnostics import DIAGNOSTICS
    from .doom import SCENARIOS
    from .gridworlds import list_gridworlds
    from .masked import VISIBLE
    from .maze import EXAMPLES
    from .pixels import SCENES
    from .registered import list_registered

    families: dict[str, Iterable[str]] = {
        "pixels": SCENES,
        "masked": VISIBLE,
        "doom": SCENARIOS,
        "diagnostic": [*DIAGNOSTICS, "t-maze"],
    }
    ours = [f"{family}/{name}" for family, names in families.items() for name in names]
    return [*list_registered(), *sorted([*ours, *EXAMPLES]), *list_gridworlds(), *list_games()]


def _check(num_envs: int, options: EnvOptions) -> None:
    sizes = {"stack": options.stack, "image_size": options.image_size, "number of environments": num_envs}
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise UserError(f"the {name} must be at least 1, not {size}")
    for name, size in {"threads": options.threads, "workers": options.workers}.items():
        if size < 0:
            raise UserError(f"{name} must be 0 or more, not {size}")
