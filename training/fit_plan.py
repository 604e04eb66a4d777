"""All settings of a supervised run as one value, and the recipes that are their defaults."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..encoders import find_encoder
from ..encoders.parts.augment_images import Augmentation
from ..envs.errors import UnknownNameError, UserError
from . import device as devices
from .fit_recipes import RECIPES, Recipe
from .optimise import Rule, Schedule
from .plan import CONFIG_FILE, load_memory, read_config
from .serial import from_json, to_json
from .task_options import NoOptions, options_of

FitMode = Literal["scratch", "frozen", "finetune"]
Views = Literal["one", "flip", "shift", "flip+shift"]


@dataclass(frozen=True)
class FitConfig:
    """What a supervised run does, whichever encoder it trains."""

    epochs: int = 10  # times that every training example is read
    batch_size: int = 100  # examples per update
    epoch_batches: int = 500  # what counts as an epoch where examples are generated as they are needed
    learning_rate: float = 1e-3  # at its highest
    optimizer: Rule = "adam"  # where the encoder does not ask for another
    momentum: float = 0.9  # of sgd and nesterov
    beta2: float = 0.999  # of adam and adamw: decay of mean squared gradients; memories learn sooner with 0.95
    schedule: Schedule = "constant"  # of the rate; linear, cosine and onecycle end at 0
    warmup: float = 0.0  # share of the updates over which the rate rises; onecycle takes 0.3 for 0
    weight_decay: float = 0.0  # L2 penalty; apart from the gradient with adamw
    max_gradient_norm: float | None = None  # longer gradients are shortened to it; None = no clipping
    label_smoothing: float = 0.0  # share of the target spread over all classes (Szegedy et al. 2016)
    hidden: tuple[int, ...] = ()  # dense layers with ReLU between the features and the classes
    head_scale: float = 1.0  # the logits are multiplied with it
    average: float = 0.0  # decay, every 5 updates, of the averaged weights that are judged and kept; 0 = the last ones
    alternate_flip: bool = (
        False  # mirror a random half of the images, and in every second epoch the others (Jordan 2024)
    )
    views: Views = "one"  # test images are judged as they are, with their mirror image, moved by a pixel, or both
    encoder_mode: FitMode = "scratch"  # who trains the encoder; finetune by default where --encoder names a bundle
    encoder_rate: float = 1.0  # learning rate of the encoder, times the head's
    held_out: int = 0  # last training examples kept for validation; 0 = as many as the data set holds out
    labels: int = 0  # train on so many labelled examples, equally many of each class; 0 = all
    patience: int = 0  # epochs without a lower validation error before it ends; the best weights are kept; 0 = off
    validate_interval: int = 1  # epochs between judgements on the validation set; the last is always judged
    seed: int = 0  # of parameters, order, augmentation and the choice of labels
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: devices.Precision = "auto"  # auto: bfloat16 for images where it is fast
    threads: int = 0  # of torch on the processor; 0 = choose
    compile: bool = False  # torch.compile the loss
    save_interval_seconds: float = 300.0  # between checkpoints


CHANGEABLE = ("device", "precision", "threads", "compile", "save_interval_seconds")  # when a run is resumed


@dataclass(frozen=True)
class FitPlan:
    """A supervised run's settings; `config.json` of its run directory holds one."""

    task: str  # a data set with labels, or another of `tasks`
    encoder: str
    run: FitConfig
    augment: Augmentation
    encoder_config: Any
    bundle: str | None = None  # where the encoder, its settings and its first weights came from
    task_options: Any = field(default_factory=NoOptions)  # of the class that `options_of(task)` names
    memory: str | None = None  # the built-in memory behind `encoder`
    memory_config: Any = None  # its settings

    def save(self, directory: Path) -> None:
        (directory / CONFIG_FILE).write_text(json.dumps(to_json(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path, encoder: str | None = None) -> FitPlan:
        """The plan of a run directory. A user's own encoder must be named again as `encoder`.

        Raises:
            UserError: no such run there, or its settings are damaged or unknown.
        """
        path, data = directory / CONFIG_FILE, read_config(directory)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) | {"memory", "memory_config"} != names:
            raise UserError(f"{path} is not of a run of `saccade fit`, which has {', '.join(sorted(names))}")
        entry = find_encoder(encoder or data["encoder"], user=encoder is not None)
        return cls(
            data["task"],
            encoder or data["encoder"],
            from_json(FitConfig, data["run"], "run"),
            from_json(Augmentation, data["augment"], "augment"),
            from_json(entry.Config, data["encoder_config"], "encoder_config"),
            data["bundle"],
            from_json(options_of(data["task"]), data["task_options"], "task_options"),
            *load_memory(data),
        )


def recipe_of(task: str) -> str:
    """The task whose recipes it takes: a text of one's own those of Shakespeare, one bAbI task those of all twenty."""
    if task.endswith(".txt"):
        return "shakespeare"
    return "babi" if task.startswith("babi-") else task


def default_plan(task: str, encoder: str) -> FitPlan:
    """The recipe for this pair, or the plain defaults.

    Raises:
        UnknownNameError: no such encoder.
    """
    recipe = RECIPES.get((recipe_of(task), encoder), Recipe())
    config = find_encoder(encoder).Config(**recipe.encoder_config)
    own = options_of(task)(**recipe.task_options)
    return FitPlan(task, encoder, FitConfig(**recipe.run), Augmentation(**recipe.augment), config, task_options=own)


def check(plan: FitPlan) -> None:
    """Raises UserError for numbers that make no sense."""
    run = plan.run
    for name in (
        "epochs",
        "batch_size",
        "epoch_batches",
        "learning_rate",
        "save_interval_seconds",
        "validate_interval",
        "head_scale",
    ):
        if not getattr(run, name) > 0:
            raise UserError(f"{name} must be positive, not {getattr(run, name)}")
    for name in ("threads", "seed", "weight_decay", "patience", "labels", "held_out"):
        if not getattr(run, name) >= 0:
            raise UserError(f"{name} must not be negative, but is {getattr(run, name)}")
    for name in ("momentum", "beta2", "warmup", "label_smoothing", "average"):
        if not 0 <= getattr(run, name) < 1:
            raise UserError(f"{name} must be at least 0 and below 1, not {getattr(run, name)}")
    if run.max_gradient_norm is not None and not run.max_gradient_norm > 0:
        raise UserError(f"max_gradient_norm must be positive, or None for no clipping, not {run.max_gradient_norm}")
    if run.hidden and min(run.hidden) < 1:
        raise UserError(f"hidden must be positive sizes, not {run.hidden}")
    if run.encoder_mode not in get_args(FitMode):
        raise UnknownNameError("encoder mode", run.encoder_mode, get_args(FitMode))
    if run.encoder_mode == "finetune" and plan.bundle is None:
        raise UserError(
            f"--encoder-mode finetune goes on from trained weights, but {plan.encoder!r} begins with random ones: name "
            "a bundle that `saccade pretrain` made, or leave the mode out"
        )
    if not run.encoder_rate > 0 or (run.encoder_mode == "frozen" and run.encoder_rate != 1):
        raise UserError(
            f"--encoder-rate {run.encoder_rate} makes no sense: it must be above 0, and a frozen encoder has none"
        )
    if run.encoder_mode == "frozen" and plan.memory:
        raise UserError("--encoder-mode frozen would freeze the memory, too: leave out the mode, or --memory")
    if run.alternate_flip and plan.augment.flip:
        raise UserError("--alternate-flip mirrors images already: leave out --augment.flip")
