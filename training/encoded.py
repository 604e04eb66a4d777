"""A world seen through a frozen encoder: observations are features, so every agent works and replays hold vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..agents.parts.compute import Compute
from ..encoders.base import Encoder
from ..encoders.parts.modes import freeze
from ..envs.base import Outcome, VectorEnv
from ..envs.errors import SpecError
from ..envs.spec import ObservationSpec


class EncodedEnv(VectorEnv):
    """`env`, whose observations are replaced by flattened features, float32 `[D]`, of the frozen `encoder`.

    Each observation is encoded once, stacks of frames as a whole, and an episode's true last one too. Features are
    computed in eval mode without gradient; `compute` says where and in which precision.
    """

    def __init__(self, env: VectorEnv, encoder: Encoder, compute: Compute):
        """Raises SpecError for an encoder with memory: it is no function of one observation."""
        if encoder.initial_state(1) or not encoder.causal:
            raise SpecError(f"{type(encoder).__name__} remembers, so it cannot be frozen into a view of the world")
        self.env, self.compute = env, compute
        self.encoder: Encoder = freeze(encoder)
        compute.place(self.encoder)
        size = int(np.prod(encoder.feature_shape))
        self.spec = replace(env.spec, observation=ObservationSpec((size,)))

    def around(self, env: VectorEnv) -> EncodedEnv:
        """Another world seen through the same encoder."""
        return EncodedEnv(env, self.encoder, self.compute)

    def reset(self, seed: int) -> np.ndarray:
        return self._features(self.env.reset(seed))

    def watch(self, seed: int) -> np.ndarray:
        return self._features(self.env.watch(seed))

    def send(self, action: np.ndarray) -> None:
        self.env.send(action)

    def recv(self) -> Outcome:
        outcome = self.env.recv()
        next_obs = obs = self._features(outcome.next_obs)
        if outcome.obs is not outcome.next_obs:
            obs = next_obs.copy()
            # where no episode ended, both are the same observation
            if (began := outcome.terminated | outcome.truncated).any():
                obs[began] = self._features(outcome.obs[began])
        return outcome._replace(next_obs=next_obs, obs=obs)

    @torch.inference_mode()
    def _features(self, obs: np.ndarray) -> np.ndarray:
        """Observations `[N, ...]` to features, float32 `[N, D]`."""
        with self.compute.autocast():
            features = self.encoder.read(torch.from_numpy(obs).to(self.compute.device))
        return features.flatten(1).float().cpu().numpy()

    def render(self) -> np.ndarray:
        return self.env.render()

    def state_dict(self) -> dict[str, Any] | None:
        return self.env.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        return self._features(self.env.load_state_dict(saved))

    def close(self) -> None:
        self.env.close()
