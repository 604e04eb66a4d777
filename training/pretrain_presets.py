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


_FALLING = {"batch_size": 250, "schedule": "cosine"}
_AUTOENCODERS, _FEATURES, _GENERATIVE = (
    f"as measured by `saccade bench {name}`" for name in ("autoencoders", "features", "generative")
)
_LINEAR_FALL = {"batch_size": 250, "learning_rate": 2e-3, "schedule": "linear", "warmup": 0.02}

PRESETS: dict[str, PretrainPreset] = {
    "deep-2": PretrainPreset(
        "autoencoder",
        "mnist",
        _AUTOENCODERS,
        {"code": 2, "loss": "l2_norm", "activation": "relu", "batch_norm": True},
        {"epochs": 100, "learning_rate": 2e-3, "warmup": 0.05, **_FALLING},
    ),
    "deep-30": PretrainPreset(
        "autoencoder",
        "mnist",
        _AUTOENCODERS,
        {"code": 30, "activation": "elu"},
        {"epochs": 100, "warmup": 0.05, **_FALLING},
    ),
    "tied-300-150": PretrainPreset(
        "autoencoder",
        "mnist",
        f"{_AUTOENCODERS}; level by level",
        {
            "hidden": (300,),
            "code": 150,
            "activation": "elu",
            "code_activation": "elu",
            "tied": True,
            "greedy": True,
            "weight_decay": 1e-4,
            "output": "linear",
        },
        {"epochs": 15, "batch_size": 150, "learning_rate": 2e-3, "schedule": "cosine"},
    ),
    "sda-3": PretrainPreset(
        "autoencoder",
        "mnist",
        f"{_FEATURES}; three denoising levels of Vincent et al. 2010 (JMLR 11)",
        {
            "hidden": (1000, 1000),
            "code": 1000,
            "activation": "sigmoid",
            "code_activation": "sigmoid",
            "tied": True,
            "greedy": True,
            "fine_tune": 0.0,
            "loss": "bernoulli",
            "corruption": "masking",
            "strength": 0.25,
        },
        {"epochs": 30, **_FALLING},
    ),
    "cae-2": PretrainPreset(
        "contractive",
        "mnist",
        f"{_FEATURES}; two contractive levels of Rifai et al. 2011",
        {"hidden": (1000,), "code": 1000, "penalty": 0.1},
        {"epochs": 20, **_FALLING},
    ),
    "k-sparse": PretrainPreset(
        "sparse", "mnist", _FEATURES, {"code": 1000, "k": 40, "k_start": 120}, {"epochs": 30, **_FALLING}
    ),
    "psd": PretrainPreset(
        "psd",
        "mnist",
        _FEATURES,
        {"code": 256, "sparsity": 0.5, "depth": 2, "direct": 5.0, "iterations": 15},
        {"epochs": 25, "learning_rate": 3e-3, **_FALLING},
    ),
    "vae-20": PretrainPreset(
        "vae",
        "mnist",
        "784-500-500-20, ELU, Adam 0.001, batch 150: a textbook's recipe, not tuned",
        {"hidden": (500, 500), "latents": 20, "activation": "elu"},
        {"epochs": 50, "batch_size": 150},
    ),
    "vae-50": PretrainPreset(
        "vae",
        "mnist",
        f"{_GENERATIVE}; bits drawn anew",
        {"latents": 50, "binarise": "dynamic"},
        {"epochs": 120, **_LINEAR_FALL, "batch_size": 500, "learning_rate": 4e-3},
    ),
    "vae-8": PretrainPreset("vae", "mnist", _GENERATIVE, {"latents": 8}, {"epochs": 30, **_LINEAR_FALL}),
    "vae-2": PretrainPreset("vae", "mnist", _GENERATIVE, {"latents": 2}, {"epochs": 20, **_LINEAR_FALL}),
    "aae": PretrainPreset(
        "adversarial", "mnist", _GENERATIVE, {}, {"epochs": 30, **_LINEAR_FALL, "learning_rate": 1e-3}
    ),
    "aae-labels": PretrainPreset(
        "adversarial",
        "mnist",
        f"{_GENERATIVE}; a mixture of ten, told the labels",
        {"prior": "mixture", "latents": 2, "labels": 10},
        {"epochs": 20, **_LINEAR_FALL, "learning_rate": 1e-3},
    ),
    "wae": PretrainPreset("wasserstein", "mnist", _GENERATIVE, {}, {"epochs": 30, **_LINEAR_FALL}),
    "rbm-500": PretrainPreset(
        "rbm",
        "mnist",
        "CD-1 at a falling rate, chosen by the likelihood of validation images; as in `saccade bench boltzmann`",
        {"hidden": 500, "binarise": "dynamic", "gain": 1.0},
        {"epochs": 50, "batch_size": 100, "learning_rate": 0.01, "schedule": "linear"},
    ),
    "rbm-pcd": PretrainPreset(
        "rbm",
        "mnist",
        "persistent chains (Tieleman 2008), bits drawn anew; as in `saccade bench boltzmann`",
        {"hidden": 500, "binarise": "dynamic", "gain": 1.0, "method": "pcd", "chains": 100},
        {"epochs": 200, "batch_size": 100, "learning_rate": 0.05, "schedule": "linear"},
    ),
    "temporal-cartpole": PretrainPreset(
        "temporal",
        "env:pixels/CartPole-v1",
        "three steps ahead as ATC (Stooke et al. 2021, arXiv:2009.08319); not tuned",
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
