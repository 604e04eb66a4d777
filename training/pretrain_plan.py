"""All settings of a pretraining run as one value that can be saved and loaded."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..encoders import find_encoder
from ..envs.errors import UserError
from ..envs.options import EnvOptions
from . import device as devices
from .optimise import Rule, Schedule
from .plan import CONFIG_FILE, read_config
from .serial import from_json, to_json

FRAMES = "env:"  # data sets that begin so are recorded from a world


@dataclass(frozen=True)
class PretrainConfig:
    """What a pretraining run does, whichever learner it trains."""

    epochs: int = 20  # times that every training example is read, over all stages of the learner
    batch_size: int = 100  # examples per update
    learning_rate: float = 1e-3  # at its highest
    optimizer: Rule = "adam"  # where the learner does not ask for another
    momentum: float = 0.9  # of sgd and nesterov
    schedule: Schedule = "constant"  # of the rate over each stage; linear, cosine and onecycle end at 0
    warmup: float = 0.0  # share of each stage over which the rate rises; onecycle takes 0.3 for 0
    weight_decay: float = 0.0  # L2 penalty; apart from the gradient with adamw
    max_gradient_norm: float | None = None  # longer gradients are shortened to it; None = no clipping
    patience: int = 0  # epochs without a lower validation loss before a stage ends; its best weights are kept; 0 = off
    seed: int = 0  # of parameters, order, noise and recorded frames
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: devices.Precision = "auto"  # auto: bfloat16 for images where it is fast
    threads: int = 0  # of torch on the processor; 0 = choose
    compile: bool = False  # torch.compile the loss
    save_interval_seconds: float = 300.0  # between checkpoints within an epoch; there is one after every epoch, too
    picture_interval: int = 5  # epochs between pictures in TensorBoard; 0 = none
    frames: int = 50_000  # recorded for data env:ID
    step: int = 1  # of recorded frames: learners of what comes next see the frame so many steps later
    policy: str | None = None  # run directory of the agent that plays while frames are recorded; None: random actions


CHANGEABLE = (  # when a run is resumed
    "epochs",
    "patience",
    "device",
    "precision",
    "threads",
    "compile",
    "save_interval_seconds",
    "picture_interval",
)


@dataclass(frozen=True)
class PretrainPlan:
    """A pretraining run's settings; `config.json` of its run directory holds one."""

    learner: str  # an encoder
    data: str
    run: PretrainConfig
    learner_config: Any
    env_options: EnvOptions = field(default_factory=EnvOptions)  # of data env:ID

    def save(self, directory: Path) -> None:
        (directory / CONFIG_FILE).write_text(json.dumps(to_json(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path, learner: str | None = None) -> PretrainPlan:
        """The plan of a run directory. A user's own learner must be named again as `learner`.

        Raises:
            UserError: no such run there, or its settings are damaged or unknown.
        """
        path, data = directory / CONFIG_FILE, read_config(directory)
        names = {item.name for item in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise UserError(f"{path} is not of a run of `saccade pretrain`, which has {', '.join(sorted(names))}")
        entry = find_encoder(learner or data["learner"], user=learner is not None)
        return cls(
            learner or data["learner"],
            data["data"],
            from_json(PretrainConfig, data["run"], "run"),
            from_json(entry.Config, data["learner_config"], "learner_config"),
            from_json(EnvOptions, data["env_options"], "env_options"),
        )


def check(plan: PretrainPlan) -> None:
    """Raises UserError for numbers that make no sense."""
    run = plan.run
    for name in ("epochs", "batch_size", "learning_rate", "save_interval_seconds", "frames", "step"):
        if not getattr(run, name) > 0:
            raise UserError(f"{name} must be positive, not {getattr(run, name)}")
    for name in ("threads", "seed", "weight_decay", "patience", "picture_interval"):
        if not getattr(run, name) >= 0:
            raise UserError(f"{name} must not be negative, but is {getattr(run, name)}")
    for name in ("momentum", "warmup"):
        if not 0 <= getattr(run, name) < 1:
            raise UserError(f"{name} must be at least 0 and below 1, not {getattr(run, name)}")
    if run.max_gradient_norm is not None and not run.max_gradient_norm > 0:
        raise UserError(f"max_gradient_norm must be positive, or None for no clipping, not {run.max_gradient_norm}")
    if run.policy is not None and not plan.data.startswith(FRAMES):
        raise UserError(f"--policy is for data env:ID, not {plan.data}")
