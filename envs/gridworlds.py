"""MiniGrid's mazes (Chevalier-Boisvert et al. 2023; extra `[minigrid]`), seen as images from where the agent stands.

`minigrid/MiniGrid-MultiRoom-N4-S5-v0` and so on. An observation is the agent's partial view, with himself in the middle
of the last row, looking up: by default its symbols, uint8 `[3, 7, 7]`: the object, its colour and its state, each code
multiplied (`CODE_STEPS`) so that the codes fill 0 to 255; with `--env.image-size`, the view drawn in colour, uint8
`[3, size, size]`, for a size that is a multiple of 7. Missions, which most of these mazes do not vary, are not shown.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as Registered

from .base import VectorEnv
from .errors import UnknownNameError, UserError
from .options import EnvOptions
from .registered import RegisteredEnv
from .stacked import stacked

# between codes: there are 11 kinds of objects, 6 colours and 4 states
CODE_STEPS = np.array([25, 51, 85], np.uint8)


def list_gridworlds() -> list[str]:
    """Ids that begin with `minigrid/`; none without the package."""
    if importlib.util.find_spec("minigrid") is None:
        return []
    import minigrid  # noqa: F401  which registers its worlds

    worlds = (name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("minigrid"))
    return sorted(f"minigrid/{name}" for name in worlds)


def make_gridworld(env_id: str, num_envs: int, options: EnvOptions) -> VectorEnv:
    """
    Raises:
        UnknownNameError: MiniGrid has no such world; names the nearest.
        UserError: the package is missing, or the size of images is no multiple of the view's.
    """
    if importlib.util.find_spec("minigrid") is None:
        raise UserError(f"{env_id} needs MiniGrid: pip install 'saccade[minigrid]'")
    if env_id not in (known := list_gridworlds()):
        raise UnknownNameError("environment", env_id, known)
    settings = {"name": env_id.removeprefix("minigrid/"), "pixels": options.image_size or 0}
    env = RegisteredEnv(
        env_id, num_envs, options, Registered(env_id, entry_point=cast(Any, GridWorld), kwargs=settings)
    )
    return stacked(env, options.stack)


class GridWorld(gymnasium.Env):
    """One world of MiniGrid's, which terminates and cuts its episodes off by itself."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  Gymnasium's declaration

    def __init__(self, name: str, pixels: int, render_mode: str | None = None):
        import minigrid  # noqa: F401  a worker process has yet to register the worlds

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are newer versions: whoever names one means it
            made = gymnasium.make(name, render_mode=render_mode, disable_env_checker=True)
        self._world = cast(Any, made.unwrapped)
        self.render_mode, self.action_space = render_mode, self._world.action_space
        cells = self._world.agent_view_size
        if pixels % cells:
            nearest = cells * max(1, round(pixels / cells))
            raise UserError(f"{name} is drawn in multiples of {cells} pixels; try --env.image-size {nearest}")
        self._tile = pixels // cells
        size = pixels or cells
        self.observation_space = gymnasium.spaces.Box(0, 255, (3, size, size), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self._see(self._world.reset(seed=seed)[0]), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, _ = self._world.step(action)
        return self._see(seen), float(reward), terminated, truncated, {}

    def _see(self, seen: dict[str, Any]) -> np.ndarray:
        if self._tile:
            return self._world.get_pov_render(self._tile).transpose(2, 0, 1)
        return (seen["image"] * CODE_STEPS).transpose(2, 1, 0)  # MiniGrid's first axis goes to the right

    def render(self) -> Any:
        return self._world.render()

    def close(self) -> None:
        self._world.close()
