"""Stable-Baselines3 agents that see through an encoder of ours.

    from stable_baselines3 import PPO
    from saccade.training.sb3 import features_extractor

    model = PPO("CnnPolicy", env, policy_kwargs=features_extractor("runs/vae", frozen=True))

Any feed-forward encoder will do, by name or as a bundle that `saccade pretrain` made. What SB3 saves holds the weights,
so loading it needs neither the bundle nor anything said again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor

from ..encoders import find_encoder, list_encoders, make_encoder
from ..encoders.base import Encoder
from ..encoders.parts.modes import freeze, unreached
from ..encoders.parts.registry import make_config
from ..envs.errors import SpecError, UserError
from ..envs.spaces import read_observations
from ..envs.spec import ObservationSpec
from .bundle import is_bundle, load_bundle
from .encoder_use import find_bundle
from .serial import from_json, to_json

try:
    from stable_baselines3.common.preprocessing import is_image_space
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError as error:
    raise UserError(f"this needs Stable-Baselines3: pip install 'saccade[sb3]' ({error})") from error


def features_extractor(
    encoder: str, config: object | None = None, *, frozen: bool = False, scaled_images: bool = True
) -> dict[str, Any]:
    """`policy_kwargs` for any of SB3's agents; add your own entries, such as `net_arch`.

    Args:
        encoder: a name, `path/to/mine.py`, `package.module`, or the directory of a bundle.
        config: the encoder's `Config`; None takes its defaults, or the bundle's.
        frozen: it is not trained: its features are computed in eval mode and without gradient.
        scaled_images: what the policy's `normalize_images` says: SB3 has divided images by 255.

    Raises:
        UserError: no such encoder or bundle, or it is damaged.
    """
    bundle, spec = find_bundle(encoder), None
    if bundle is not None:
        trained = load_bundle(bundle)
        encoder, spec = trained.name, to_json(trained.spec)
        config = config or trained.config
    settings = to_json(make_config(find_encoder(encoder), "encoder", config))
    arguments = {
        "encoder": encoder,
        "config": settings,
        "spec": spec,
        "weights": bundle,
        "frozen": frozen,
        "scaled_images": scaled_images,
    }
    return {"features_extractor_class": EncoderExtractor, "features_extractor_kwargs": arguments}


class EncoderExtractor(BaseFeaturesExtractor):
    """An encoder as SB3 wants it. `features_extractor` says how to make one."""

    def __init__(
        self,
        observation_space: Space,
        encoder: str,
        config: dict[str, Any],
        spec: dict[str, Any] | None = None,
        weights: str | None = None,
        frozen: bool = False,
        scaled_images: bool = True,
    ):
        """Plain values only, so that SB3 can save them.

        Args:
            observation_space: as SB3 gives it, images channels first.
            config: settings of the encoder, as in a bundle.
            spec: what its weights were trained on; None: what the space says.
            weights: bundle to begin with; where it is gone, as when SB3 loads a model, the caller puts weights in.

        Raises:
            SpecError: the encoder cannot read such observations, or remembers.
        """
        seen, _ = read_observations(observation_space, "the environment")
        trained_on = from_json(ObservationSpec, spec, "spec") if spec is not None else seen
        if (trained_on.shape, trained_on.dtype) != (seen.shape, seen.dtype):
            raise SpecError(
                f"encoder {encoder!r} was trained on {trained_on.describe()}, but the environment shows "
                f"{seen.describe()}"
            )
        built = _build(encoder, config, trained_on, weights)
        super().__init__(observation_space, int(np.prod(built.feature_shape)))
        self.frozen = frozen
        self.seen = seen
        # SB3 transposes and scales what it takes for images; spaces with other bounds reach us as they are
        self.factor = 255.0 if scaled_images and is_image_space(observation_space) else 1.0
        self.is_transposed = len(observation_space.shape or ()) == 3 and seen.shape != observation_space.shape
        for parameter in unreached(built, trained_on):  # what only its own losses train
            parameter.requires_grad_(False)
        self.encoder: Encoder = freeze(built) if frozen else built

    def forward(self, observations: Tensor) -> Tensor:
        """Observations `[N, ...]`, float32 as SB3 prepares them, to features, float32 `[N, D]`."""
        x = observations.permute(0, 3, 1, 2) if self.is_transposed else observations
        x = x.reshape(len(x), *self.seen.shape)
        if self.seen.dtype == "uint8":  # exact: n / 255 times 255 rounds to n
            x = (x * self.factor).round().to(torch.uint8)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder.read(x).flatten(1).float()

    def train(self, mode: bool = True) -> EncoderExtractor:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def apply(self, fn: Any) -> EncoderExtractor:
        """Nothing: SB3's policies draw their layers' weights anew through this, those of a trained encoder too."""
        return self


def _build(name: str, config: dict[str, Any], spec: ObservationSpec, weights: str | None) -> Encoder:
    settings = from_json(find_encoder(name).Config, config, "config")
    encoder = make_encoder(name, spec, settings)
    if encoder.initial_state(1) or not encoder.causal:
        raise SpecError(f"encoder {name!r} remembers, and SB3's features extractors cannot; use a feed-forward one")
    if weights is not None and is_bundle(weights):
        trained = load_bundle(weights, None if name in list_encoders() else name)
        encoder.load_state_dict(trained.encoder.state_dict())
    return encoder
