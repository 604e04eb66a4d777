"""Worlds of ViZDoom (Kempka et al. 2016; Wydmuch et al. 2019; extra `[doom]`): 3-D labyrinths and fights, as pictures.

`doom/my-way-home` is a labyrinth to be searched, `doom/basic`, `doom/defend-the-center` and so on are fights; scenarios
and free graphics come with the package. Pictures of 160 x 120 pixels, without status bar where the scenario hides it,
are shrunk to uint8 `[3, size, size]`, or `[1, size, size]` with `--env.grey`. Action 0 does nothing, each other presses
one of the scenario's buttons, for `frame_skip` (4) tics. Each copy is an engine, which is a process of its own; with
`--env.workers N` they are also stepped at the same time.

The engine shows nothing of the moment at which an episode ends: the last observation of one that terminates is the last
picture there was, of the step before. Time limits are kept here instead, so that an episode that is cut off has a true
last observation. An engine cannot be cloned: a resumed run begins new episodes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as Registered
from PIL import Image

from .base import VectorEnv
from .errors import UnknownNameError, UserError
from .options import EnvOptions
from .registered import RegisteredEnv
from .stacked import stacked

SCENARIOS = (
    "basic",
    "deadly-corridor",
    "defend-the-center",
    "defend-the-line",
    "health-gathering",
    "health-gathering-supreme",
    "my-way-home",
    "predict-position",
    "rocket-basic",
    "simpler-basic",
    "take-cover",
)


def make_doom(env_id: str, num_envs: int, options: EnvOptions) -> VectorEnv:
    """
    Raises:
        UnknownNameError: there is no such scenario; names the nearest.
        UserError: the package is missing, or the frame skip is not positive.
    """
    if env_id not in (known := [f"doom/{name}" for name in SCENARIOS]):
        raise UnknownNameError("environment", env_id, known)
    if importlib.util.find_spec("vizdoom") is None:
        raise UserError(f"{env_id} needs ViZDoom: pip install 'saccade[doom]'")
    skip = 4 if options.frame_skip is None else options.frame_skip
    if skip < 1:
        raise UserError(f"frame_skip must be positive, not {skip}")
    scenario = env_id.removeprefix("doom/").replace("-", "_")
    settings = {"scenario": scenario, "pixels": options.image_size or 84, "grey": options.grey, "skip": skip}
    spec = Registered(f"{env_id}-v0", entry_point=cast(Any, DoomWorld), kwargs=settings)
    env = RegisteredEnv(env_id, num_envs, options, spec)
    env.spec = replace(env.spec, frames_per_step=skip)
    return stacked(env, options.stack)


class DoomWorld(gymnasium.Env):
    """One engine with one scenario."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  Gymnasium's declaration

    def __init__(self, scenario: str, pixels: int, grey: bool, skip: int, render_mode: str | None = None):
        import vizdoom

        self.render_mode, self._pixels, self._grey, self._skip = render_mode, pixels, grey, skip
        self._game = game = vizdoom.DoomGame()
        game.load_config(str(Path(vizdoom.scenarios_path) / f"{scenario}.cfg"))
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        self._end, self._limit = 0, game.get_episode_timeout()  # tics; 0 = none
        game.set_episode_timeout(0)  # kept here: an engine that cuts off shows no last picture
        buttons = game.get_available_buttons_size()
        self._actions = [[float(pressed == button) for button in range(buttons)] for pressed in (-1, *range(buttons))]
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        self.observation_space = gymnasium.spaces.Box(0, 255, (1 if grey else 3, pixels, pixels), np.uint8)
        self._screen = np.zeros((120, 160, 3), np.uint8)
        game.set_doom_config_path(os.devnull)
        # the engine makes a folder wherever it is started
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.chdir(folder):
            game.init()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self._game.set_seed(seed % 2**32)
        self._game.new_episode()
        self._end = self._game.get_episode_time() + self._limit  # episodes begin a few tics late
        return self._see(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        left = self._end - self._game.get_episode_time() if self._limit else self._skip
        reward = self._game.make_action(self._actions[action], min(self._skip, left))
        terminated = self._game.is_episode_finished()
        truncated = bool(self._limit) and not terminated and self._game.get_episode_time() >= self._end
        return self._see(), float(reward), terminated, truncated, {}

    def _see(self) -> np.ndarray:
        if (state := self._game.get_state()) is not None:
            self._screen = state.screen_buffer.copy()
        picture = Image.fromarray(self._screen).convert("L" if self._grey else "RGB")
        small = np.asarray(picture.resize((self._pixels, self._pixels), Image.Resampling.BOX))
        return small[None] if self._grey else small.transpose(2, 0, 1)

    def render(self) -> Any:
        return self._screen

    def close(self) -> None:
        self._game.close()
