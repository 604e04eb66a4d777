"""Command line words to the plan of a pretraining run; `arguments` says how words are read."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..encoders import find_encoder, list_encoders
from ..envs.errors import UserError
from . import checkpoint
from .arguments import PREFIXES, free_directory, parse, refuse_changes
from .pretrain_plan import CHANGEABLE, PretrainConfig, PretrainPlan, check
from .pretrain_presets import pretrain_preset

DEFAULT_DATA, NO_PRESET = "mnist", "none"
SECTIONS = ("run", "learner_config", "env_options")


@dataclass(frozen=True)
class PretrainRequest:
    """What `saccade pretrain` was asked to do."""

    plan: PretrainPlan
    out: Path
    resume: bool
    learner: str | None  # the user's own, which must be named at every resumption


def parse_pretrain(learner: str | None, words: list[str]) -> PretrainRequest:
    """The request in the words behind `saccade pretrain LEARNER`; prints the help and exits if they ask for it.

    Args:
        learner: None where the words do not begin with one; a run that is resumed knows its own.

    Raises:
        UserError: an unknown learner, data set, preset or option, a bad value, or a run that cannot be resumed so.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--data", "--preset", "--out"):
        first.add_argument(option, nargs="?")  # the second reading complains about a missing value
    first.add_argument("--resume", action="store_true")
    given, _ = first.parse_known_args(words)
    users = learner if learner not in list_encoders() else None
    if given.resume:
        base = _plan_to_resume(learner, given.out, given.data, users)
    else:
        base = default_plan(learner, given.data, given.preset)
    options = _parse_options(base, given, words)
    plan = dataclasses.replace(base, **{section: getattr(options, section) for section in SECTIONS})
    if plan.run.policy is not None:
        plan = dataclasses.replace(plan, run=dataclasses.replace(plan.run, policy=str(Path(plan.run.policy).resolve())))
    check(plan)
    if given.resume:
        refuse_changes(base, plan, {section: PREFIXES[section] for section in SECTIONS}, CHANGEABLE)
    return PretrainRequest(plan, options.out or _free_directory(plan), given.resume, users)


def default_plan(learner: str | None, data: str | None = None, preset: str | None = None) -> PretrainPlan:
    """The settings before the user's own: the defaults, or those of a preset, which may name the learner too.

    Raises:
        UserError: no learner, or an unknown learner or preset.
    """
    chosen = pretrain_preset(preset, learner) if preset and preset != NO_PRESET else None
    learner = learner or (chosen.learner if chosen else None)
    if learner is None:
        raise UserError("name the learner first, as in `saccade pretrain autoencoder`; see `saccade list learners`")
    config = find_encoder(learner).Config(**(chosen.learner_config if chosen else {}))
    data = data or (chosen.data if chosen else DEFAULT_DATA)
    return PretrainPlan(learner, data, PretrainConfig(**(chosen.run if chosen else {})), config)


def _parse_options(base: PretrainPlan, given: argparse.Namespace, words: list[str]) -> Any:
    data = tyro.conf.arg(metavar="NAME", help="what to learn from: mnist, cifar10, env:ID, PATH.npy")
    preset = tyro.conf.arg(metavar="NAME", help="a recipe to begin from: `saccade list presets`")
    out = tyro.conf.arg(metavar="DIR", help="run directory to make; runs/... by default")
    resume = tyro.conf.arg(help="go on with the run in --out")
    fields: list[tuple[str, Any]] = [
        ("data", Annotated[str, data]),
        ("preset", Annotated[str, preset]),
        ("out", Annotated[Path | None, out]),
        ("resume", tyro.conf.FlagCreatePairsOff[Annotated[bool, resume]]),
        *(
            (name, Annotated[type(getattr(base, name)), tyro.conf.arg(name=PREFIXES.get(name, ""))])
            for name in SECTIONS
        ),
    ]
    cls = dataclasses.make_dataclass("PretrainOptions", fields, frozen=True)
    sections = {section: getattr(base, section) for section in SECTIONS}
    preset_name = given.preset or NO_PRESET
    default = cls(
        data=base.data, preset=preset_name, out=Path(given.out) if given.out else None, resume=False, **sections
    )
    description = f"Train encoder {base.learner} on {base.data}, by its own loss."
    return parse(cls, words, prog=f"saccade pretrain {base.learner}", description=description, default=default)


def _plan_to_resume(learner: str | None, out: str | None, data: str | None, users: str | None) -> PretrainPlan:
    if not out:
        raise UserError("--resume needs --out DIR, the run directory to go on with")
    directory = Path(out)
    if not directory.is_dir():
        raise UserError(f"nothing to resume: there is no run directory {directory}")
    plan = PretrainPlan.load(directory, users)
    if checkpoint.latest(directory / "checkpoint") is None:
        raise UserError(f"nothing to resume: there is no checkpoint in {directory}; remove it and start anew")
    for what, now, then in (("learner", learner, plan.learner), ("data", data, plan.data)):
        if now not in (None, then):
            raise UserError(
                f"the run in {directory} has {what} {then!r}, not {now!r}; start another with another --out"
            )
    return plan


def _free_directory(plan: PretrainPlan) -> Path:
    """Where a run goes that was told no --out."""
    parts = (Path(plan.learner).stem, Path(plan.data.split("/")[-1]).stem, f"seed{plan.run.seed}")
    return free_directory(*(part.replace(":", "-") for part in parts))
