"""Encoders inside Stable-Baselines3's PPO and DQN: what they read, what trains, what is saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from saccade.encoders import find_encoder, make_encoder
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.bundle import save_bundle
from torch import nn

stable_baselines3 = pytest.importorskip("stable_baselines3")

from saccade.training.sb3 import EncoderExtractor, features_extractor  # noqa: E402

IMAGE = (3, 36, 40)  # C, H, W: no two alike


class Pictures(gymnasium.Env):
    """Noise as RGB pictures, channels last, as Gymnasium's worlds show them; two actions."""

    observation_space = spaces.Box(0, 255, (IMAGE[1], IMAGE[2], IMAGE[0]), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.time = 0
        return self._look(), {}

    def step(self, action: int):
        self.time += 1
        return self._look(), float(action), self.time == 10, False, {}

    def _look(self) -> np.ndarray:
        return self.np_random.integers(0, 256, self.observation_space.shape, np.uint8)


WORLDS = {"vector": lambda: gymnasium.make("CartPole-v1"), "image": Pictures}
SPECS = {"vector": ObservationSpec((4,)), "image": ObservationSpec(IMAGE, "uint8", 0, 255)}
CONFIGS = {
    "vector": find_encoder("autoencoder").Config(hidden=(8,), code=5),
    "image": find_encoder("autoencoder").Config(architecture="conv", channels=(4, 8), code=5),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """Autoencoders for both worlds, with weights that nothing else draws."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, spec in SPECS.items():
        torch.manual_seed(1234)
        encoder = make_encoder("autoencoder", spec, CONFIGS[name])
        save_bundle(folder / name, "autoencoder", CONFIGS[name], spec, encoder, {})
    return folder


def make_model(algorithm: str, world: str, policy_kwargs: dict[str, Any], **settings: Any) -> Any:
    policy = "MlpPolicy" if world == "vector" else "CnnPolicy"
    small: dict[str, Any] = {"n_steps": 16, "batch_size": 8, "n_epochs": 1}
    if algorithm == "DQN":
        small = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100, "train_freq": 4}
    kind = getattr(stable_baselines3, algorithm)
    return kind(policy, WORLDS[world](), policy_kwargs=policy_kwargs, seed=0, device="cpu", **small | settings)


def extractor_of(model: Any) -> EncoderExtractor:
    policy = model.policy
    return policy.q_net.features_extractor if hasattr(policy, "q_net") else policy.features_extractor


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
@pytest.mark.parametrize("world", ["vector", "image"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_bundle_inside_sb3(bundles: Path, tmp_path: Path, algorithm: str, world: str, frozen: bool):
    shutil.copytree(bundles / world, tmp_path / "bundle")
    model = make_model(algorithm, world, features_extractor(str(tmp_path / "bundle"), frozen=frozen))
    encoder = extractor_of(model).encoder
    torch.manual_seed(1234)
    trained = make_encoder("autoencoder", SPECS[world], CONFIGS[world])
    before = weights(encoder)
    for name, tensor in trained.state_dict().items():  # SB3's own initialisation has not touched it
        assert torch.equal(before[name], tensor), name
    model.learn(32)
    moved = {name for name, tensor in weights(encoder).items() if not torch.equal(tensor, before[name])}
    seen_with = {name for name in before if ".down." not in name and "decoder" not in name}
    if frozen:
        assert not moved
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
    else:
        assert moved
        assert moved == {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
        assert moved <= seen_with
    observation = model.get_env().reset()
    expected = model.predict(observation, deterministic=True)[0]
    model.save(tmp_path / "model")
    shutil.rmtree(tmp_path / "bundle")
    loaded = type(model).load(tmp_path / "model", device="cpu")
    assert extractor_of(loaded).frozen == frozen
    for name, tensor in weights(extractor_of(loaded)).items():
        assert torch.equal(tensor, extractor_of(model).state_dict()[name])
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)


def test_images_reach_the_encoder_as_they_were(bundles: Path):
    """Through SB3's transposition and scaling, every byte comes out as it went in."""

    model = make_model("PPO", "image", features_extractor("conv", find_encoder("conv").Config(hidden=6)))
    extractor, seen = extractor_of(model), []
    read = extractor.encoder.read
    extractor.encoder.read = lambda x: seen.append(x) or read(x)  # type: ignore[method-assign, func-returns-value]
    raw = np.random.default_rng(0).integers(0, 256, (1, *Pictures.observation_space.shape), np.uint8)
    model.predict(raw)
    assert seen[0].dtype == torch.uint8
    np.testing.assert_array_equal(seen[0].numpy(), raw.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("scaled", [True, False])
def test_every_byte_survives_the_scaling(scaled: bool):
    space = spaces.Box(0, 255, (1, 16, 16), np.uint8)
    extractor = EncoderExtractor(space, "flat", {}, scaled_images=scaled)
    every = torch.arange(256, dtype=torch.float32).view(1, 1, 16, 16)
    torch.testing.assert_close(extractor(every / 255 if scaled else every), every.flatten(1) / 255)


@pytest.mark.parametrize(
    ("space", "order"),
    [
        (spaces.Box(0, 255, (5, 6), np.uint8), None),  # grey, without an axis of channels
        (spaces.Box(0, 100, (5, 6, 3), np.uint8), (0, 3, 1, 2)),  # not what SB3 takes for an image
        (spaces.Box(0, 255, (7,), np.uint8), None),
    ],
)
def test_observations_that_sb3_leaves_as_they_are(space: spaces.Box, order: tuple[int, ...] | None):
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 101, (2, *space.shape))).float()
    expected = raw.permute(order) if order else raw
    scale = 1.0 if len(space.shape) == 1 else 255.0
    torch.testing.assert_close(EncoderExtractor(space, "flat", {})(raw), expected.flatten(1) / scale)


def test_gradients_and_modes():
    space = spaces.Box(-1, 1, (4,), np.float32)
    for frozen in (False, True):
        extractor = EncoderExtractor(space, "mlp", {"hidden": [8]}, frozen=frozen)
        assert extractor.features_dim == 8
        extractor.train()
        assert extractor.encoder.training != frozen
        features = extractor(torch.rand(3, 4, requires_grad=True))
        assert features.requires_grad != frozen


def test_a_memory_is_refused(tmp_path: Path):
    (tmp_path / "remembering.py").write_text(
        "from dataclasses import dataclass\n"
        "from doubles import TinyDNC\n"
        "kind = 'a memory'\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n    pass\n"
        "def build(config, spec):\n    return TinyDNC(spec)\n"
    )
    kwargs = features_extractor(str(tmp_path / "remembering.py"))
    with pytest.raises(SpecError, match="remembers"):
        make_model("DQN", "vector", kwargs)


def test_bad_input(bundles: Path):
    with pytest.raises(UserError, match="did you mean 'conv'"):
        features_extractor("cnov")
    with pytest.raises(UserError, match="there is no bundle"):
        features_extractor(str(bundles / "nowhere"))
    with pytest.raises(SpecError, match=r"was trained on uint8 \[3, 36, 40\], but the environment shows float32 \[4\]"):
        make_model("PPO", "vector", features_extractor(str(bundles / "image")))
    with pytest.raises(UserError, match="wants its own Config"):
        features_extractor("mlp", find_encoder("conv").Config())
