"""Recipes for pretraining, by name. What the command line gives goes before them.

Only data: a preset names a learner, a data set, and fields of the learner's `Config` and of `PretrainConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..envs.errors import UnknownNameError, UserError


@dataclass(frozen=True)
class PretrainPreset:
    learner: str
    data: str
    source: str  # where the numbers come from
    learner_config: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


_GUESS = "the learner's defaults with a falling rate: a first guess, not tuned"
_FALLING = {"schedule": "cosine", "warmup": 0.02}

PRESETS: dict[str, PretrainPreset] = {
    "deep-autoencoder-2d": PretrainPreset(
        "autoencoder",
        "mnist",
        "Hinton & Salakhutdinov 2006 (784-1000-500-250-2), with batch normalisation for their pre-training",
        {"hidden": (1000, 500, 250), "code": 2, "activation": "sigmoid", "batch_norm": True, "loss": "l2_norm"},
        {"epochs": 200, "patience": 20},
    ),
    "deep-autoencoder-30d": PretrainPreset(
        "autoencoder",
        "mnist",
        "Hinton & Salakhutdinov 2006 (784-1000-500-250-30), trained whole with a falling rate",
        {"hidden": (1000, 500, 250), "code": 30, "activation": "elu"},
        {"epochs": 200, "batch_size": 250, "learning_rate": 2e-3, **_FALLING},
    ),
    "stacked-autoencoder": PretrainPreset(
        "autoencoder",
        "mnist",
        "784-300-150-300-784, tied, level by level, ELU, He, L2 1e-4, Adam 0.01, batch 150: a textbook's recipe",
        {
            "hidden": (300,),
            "code": 150,
            "activation": "elu",
            "code_activation": "elu",
            "output": "linear",
            "tied": True,
            "greedy": True,
            "weight_decay": 1e-4,
        },
        {"epochs": 15, "batch_size": 150, "learning_rate": 0.01},
    ),
    "denoising-stack": PretrainPreset(
        "autoencoder",
        "mnist",
        "SdA-3 of Vincent et al. 2010 (JMLR 11): three levels of 1000 sigmoid units, masking noise 25 %, cross-entropy",
        {
            "hidden": (1000, 1000),
            "code": 1000,
            "activation": "sigmoid",
            "code_activation": "sigmoid",
            "loss": "bernoulli",
            "corruption": "masking",
            "strength": 0.25,
            "tied": True,
            "greedy": True,
            "fine_tune": 0.0,
        },
        {"epochs": 90},
    ),
    "k-sparse": PretrainPreset("sparse", "mnist", _GUESS, {"code": 1000, "k": 25}, {"epochs": 50, **_FALLING}),
    "contractive": PretrainPreset("contractive", "mnist", _GUESS, {}, {"epochs": 50, **_FALLING}),
    "sparse-coding": PretrainPreset("psd", "mnist", _GUESS, {}, {"epochs": 30, **_FALLING}),
    "vae-20": PretrainPreset(
        "vae",
        "mnist",
        "784-500-500-20, ELU, Adam 0.001, batch 150, 50 epochs: a textbook's recipe",
        {"hidden": (500, 500), "latents": 20, "activation": "elu"},
        {"epochs": 50, "batch_size": 150},
    ),
    "vae-50": PretrainPreset(
        "vae",
        "mnist",
        "50 latents and bits drawn anew, as Burda et al. 2016 (arXiv:1509.00519), to be judged by their bound",
        {"latents": 50, "binarise": "dynamic"},
        {"epochs": 200, **_FALLING},
    ),
    "vae-2d": PretrainPreset(
        "vae",
        "mnist",
        "convolutions and two latents, for pictures of the manifold",
        {"architecture": "conv", "channels": (32, 64), "hidden": (32,), "latents": 2},
        {"epochs": 30},
    ),
    "adversarial-mixture": PretrainPreset(
        "adversarial", "mnist", _GUESS, {"prior": "mixture", "latents": 2}, {"epochs": 50}
    ),
    "wasserstein": PretrainPreset("wasserstein", "mnist", _GUESS, {}, {"epochs": 50, **_FALLING}),
    "contrastive-digits": PretrainPreset("contrastive", "mnist", _GUESS, {}, {"epochs": 20, "batch_size": 256}),
    "autoencoder-cartpole": PretrainPreset(
        "autoencoder",
        "env:pixels/CartPole-v1",
        "for agents that see pixels/CartPole-v1",
        {"architecture": "conv", "channels": (32, 64, 64), "code": 50},
        {"epochs": 20},
    ),
    "vae-cartpole": PretrainPreset(
        "vae",
        "env:pixels/CartPole-v1",
        "for agents that see pixels/CartPole-v1",
        {"architecture": "conv", "channels": (32, 64, 64), "hidden": (256,), "latents": 32},
        {"epochs": 20},
    ),
    "temporal-cartpole": PretrainPreset(
        "temporal",
        "env:pixels/CartPole-v1",
        "for agents that see pixels/CartPole-v1; three steps ahead as ATC (Stooke et al. 2021, arXiv:2009.08319)",
        {},
        {"epochs": 20, "batch_size": 256, "step": 3},
    ),
}


def pretrain_preset(name: str, learner: str | None) -> PretrainPreset:
    """The preset called `name`.

    Raises:
        UnknownNameError: nothing is called so.
        UserError: it is for another learner.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    if learner not in (None, PRESETS[name].learner):
        raise UserError(f"preset {name!r} is for learner {PRESETS[name].learner!r}, not {learner!r}")
    return PRESETS[name]
