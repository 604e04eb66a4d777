"""Atari 2600 games through ale-py's native vector environment: emulation and preprocessing in C++ threads."""

from __future__ import annotations

import os
from dataclasses import dataclass

import ale_py
import gymnasium
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from .base import Outcome, VectorEnv
from .errors import UnknownNameError, UserError
from .options import EnvOptions
from .spec import ActionSpec, EnvSpec, ObservationSpec

gymnasium.register_envs(ale_py)


@dataclass(frozen=True)
class AtariProtocol:
    """Settings that decide what a score means; state them beside it."""

    sticky_actions: float
    noop_max: int
    fire_reset: bool
    life_loss: bool
    full_actions: bool
    frame_skip: int = 4
    max_frames: int = 108_000  # 30 minutes of play


PROTOCOLS = {
    # what Stable-Baselines3 and CleanRL run: no-op starts, FIRE at the start, a lost life ends what can be earned
    "standard": AtariProtocol(0.0, 30, fire_reset=True, life_loss=True, full_actions=False),
    # Mnih et al. 2015, Methods: no-op starts, five minutes of play, the agent presses FIRE itself
    "nature": AtariProtocol(0.0, 30, fire_reset=False, life_loss=True, full_actions=False, max_frames=18_000),
    # Castro et al. 2018: sticky actions, a life lost is not the learner's to know
    "dopamine": AtariProtocol(0.25, 0, fire_reset=False, life_loss=False, full_actions=False),
    # Machado et al. 2018, table 6: sticky actions, all 18 actions, five minutes of play
    "machado": AtariProtocol(
        0.25, 0, fire_reset=False, life_loss=False, full_actions=True, frame_skip=5, max_frames=18_000
    ),
}


def list_games() -> list[str]:
    """Ids of all games, such as `ALE/Breakout-v5`; their ROMs come with ale-py."""
    return sorted(name for name in gymnasium.registry if name.startswith("ALE/"))


def resolve_protocol(options: EnvOptions) -> AtariProtocol:
    """The protocol that `options` names, with what they set otherwise."""
    preset = PROTOCOLS[options.protocol]
    chosen = {name: getattr(options, name) for name in AtariProtocol.__dataclass_fields__}
    protocol = AtariProtocol(**{name: getattr(preset, name) if v is None else v for name, v in chosen.items()})
    if not 0 <= protocol.sticky_actions < 1:
        raise UserError(f"sticky_actions is a probability in [0, 1), not {protocol.sticky_actions}")
    if protocol.frame_skip < 1 or protocol.max_frames < protocol.frame_skip or protocol.noop_max < 0:
        raise UserError("frame_skip and max_frames must be positive and noop_max not negative")
    return protocol


class AtariEnv(VectorEnv):
    """Grey `uint8 [stack, size, size]` frames, max-pooled over the last two; rewards and scores are never clipped.

    Same-step autoreset: the step that ends an episode already returns the next one's first observation. At the start of
    an episode the stack holds zeros and one frame. An emulator cannot be cloned here, so a resumed run begins new
    episodes.
    """

    def __init__(self, env_id: str, num_envs: int, options: EnvOptions, *, picture: bool = False):
        if env_id not in gymnasium.registry:
            raise UnknownNameError("Atari game", env_id, list_games())
        self.protocol = protocol = resolve_protocol(options)
        stack, size = options.stack or 4, options.image_size or 84
        self._options, self._seed = options, 0
        self._env = AtariVectorEnv(
            gymnasium.spec(env_id).kwargs["game"],
            num_envs,
            num_threads=options.threads or min(os.cpu_count() or 1, num_envs),
            max_num_frames_per_episode=protocol.max_frames,
            repeat_action_probability=protocol.sticky_actions,
            full_action_space=protocol.full_actions,
            autoreset_mode=AutoresetMode.SAME_STEP,
            img_height=210 if picture else size,
            img_width=160 if picture else size,
            grayscale=not picture,
            stack_num=1 if picture else stack,
            frameskip=protocol.frame_skip,
            noop_max=protocol.noop_max,
            use_fire_reset=protocol.fire_reset,
            reward_clipping=False,
        )
        self.spec = EnvSpec(
            env_id,
            num_envs,
            ObservationSpec((stack, size, size), "uint8", 0, 255, stack=stack),
            ActionSpec(count=len(self._env.ale.get_action_set())),
            frames_per_step=protocol.frame_skip,
        )
        self._lives = np.zeros(num_envs, np.int32)
        self._picture: AtariEnv | None = None
        self._frame: np.ndarray | None = None

    def reset(self, seed: int) -> np.ndarray:
        self._seed = seed
        obs, info = self._env.reset(seed=seed)
        self._lives = info["lives"]
        self._frame = obs[0] if obs.ndim == 5 else None
        if self._picture is not None:
            self._picture.reset(seed)
        return obs

    def send(self, action: np.ndarray) -> None:
        self._env.send(action)
        if self._picture is not None:
            self._picture.send(action[:1])

    def recv(self) -> Outcome:
        obs, reward, terminated, truncated, info = self._env.recv()
        ended = terminated | truncated
        # final_obs is filled for every environment but holds the last observation only where an episode ended
        next_obs = np.where(ended[:, None, None, None], info["final_obs"], obs) if ended.any() else obs
        lost = terminated
        if self.protocol.life_loss:
            lost = terminated | ((info["lives"] < self._lives) & ~ended)
        self._lives = info["lives"]
        if self._picture is not None:
            self._frame = self._picture._env.recv()[0][0, 0]
        discount = 1.0 - lost.astype(np.float32)
        valid = np.ones(len(reward), bool)
        index = info["env_id"].astype(np.int64)
        return Outcome(index, next_obs, obs, reward.astype(np.float32), terminated, truncated, discount, valid)

    def watch(self, seed: int) -> np.ndarray:
        """`reset`, and from then on `render` shows the first environment in colour.

        A second emulator with the same seed takes the same actions; emulators are deterministic, so it shows the same
        game.
        """
        self._picture = AtariEnv(self.spec.id, 1, self._options, picture=True)
        obs = self.reset(seed)
        self._frame = self._picture._frame
        return obs

    def render(self) -> np.ndarray:
        if self._picture is None or self._frame is None:
            raise UserError("call watch(seed) instead of reset(seed) to see the game in colour")
        return self._frame[0] if self._frame.ndim == 4 else self._frame

    def close(self) -> None:
        if self._picture is not None:
            self._picture.close()
            self._picture = None
