"""Command line words to the plan of a supervised run; `arguments` says how words are read."""

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
from .arguments import free_directory, parse, refuse_changes, sections_of
from .bundle import load_bundle
from .encoder_use import bundle_path, find_bundle
from .fit_plan import CHANGEABLE, FitPlan, check, default_plan

DEFAULT_ENCODER = "convnet"
ALIASES = {  # what a task is about, for the data set that it is learned from here
    "sentiment": "imdb",
    "tagging": "pos",
    "translate": "dates",
    "parse": "treebank",
    "language-model": "penn",
}
SECTIONS = {  # of a plan, with the prefix of their options
    "run": "",
    "augment": "augment",
    "encoder_config": "encoder",
    "task_options": "task",
}


@dataclass(frozen=True)
class FitRequest:
    """What `saccade fit` was asked to do."""

    plan: FitPlan
    out: Path
    resume: bool
    encoder: str | None  # the user's own, which must be named at every resumption


def parse_fit(task: str | None, words: list[str]) -> FitRequest:
    """The request in the words behind `saccade fit TASK`; prints the help and exits if they ask for it.

    Args:
        task: None where the words do not begin with one; a run that is resumed knows its own.

    Raises:
        UserError: an unknown task, encoder or option, a bad value, or a run that cannot be resumed so.
    """
    task = ALIASES.get(task, task) if task else task
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--encoder", "--encoder-mode", "--memory", "--out"):
        first.add_argument(option, nargs="?")  # the second reading complains about a missing value
    first.add_argument("--resume", action="store_true")
    given, _ = first.parse_known_args(words)
    word = given.encoder
    is_own = word is not None and word not in list_encoders() and bundle_path(word) is None
    if given.resume:
        base = _plan_to_resume(task, given.out, word if is_own else None)
    elif task is None:
        raise UserError("name the task first, as in `saccade fit mnist`; `saccade list datasets` lists them")
    else:
        base = _fresh_plan(task, word or DEFAULT_ENCODER, given.memory)
    options = _parse_options(base, given, words)
    plan = dataclasses.replace(base, **{section: getattr(options, section) for section in sections_of(base, SECTIONS)})
    check(plan)
    if given.resume:
        refuse_changes(base, plan, sections_of(base, SECTIONS), CHANGEABLE)
    return FitRequest(plan, options.out or _free_directory(plan), given.resume, word if is_own else None)


def _fresh_plan(task: str, word: str, memory: str | None) -> FitPlan:
    bundle = find_bundle(word)
    if bundle is None:
        plan = default_plan(task, word)
    else:
        name, config = load_bundle(bundle)[:2]
        plan = default_plan(task, name)
        run = dataclasses.replace(plan.run, encoder_mode="finetune")
        plan = dataclasses.replace(plan, run=run, encoder_config=config, bundle=bundle)
    if memory in (None, "none"):
        return plan
    return dataclasses.replace(plan, memory=memory, memory_config=find_encoder(memory, user=False).Config())


def _parse_options(base: FitPlan, given: argparse.Namespace, words: list[str]) -> Any:
    encoder = tyro.conf.arg(
        metavar="NAME", help="an encoder's name, a bundle's directory, path/to/mine.py, package.module"
    )
    memory = tyro.conf.arg(metavar="NAME", help="a memory behind the encoder: lstm, gru, ntm, dnc, transformer; none")
    out = tyro.conf.arg(metavar="DIR", help="run directory to make; runs/... by default")
    resume = tyro.conf.arg(help="go on with the run in --out")
    fields: list[tuple[str, Any]] = [
        ("encoder", Annotated[str, encoder]),
        ("memory", Annotated[str, memory]),
        ("out", Annotated[Path | None, out]),
        ("resume", tyro.conf.FlagCreatePairsOff[Annotated[bool, resume]]),
        *(
            (name, Annotated[type(getattr(base, name)), tyro.conf.arg(name=prefix)])
            for name, prefix in sections_of(base, SECTIONS).items()
        ),
    ]
    cls = dataclasses.make_dataclass("FitOptions", fields, frozen=True)
    sections = {section: getattr(base, section) for section in sections_of(base, SECTIONS)}
    out_path = Path(given.out) if given.out else None
    names = {"encoder": given.encoder or base.bundle or base.encoder, "memory": base.memory or "none"}
    default = cls(**names, out=out_path, resume=False, **sections)
    description = f"Learn the labels of {base.task} through {base.encoder}. Defaults are those for this combination."
    return parse(cls, words, prog=f"saccade fit {base.task}", description=description, default=default)


def _plan_to_resume(task: str | None, out: str | None, own: str | None) -> FitPlan:
    if not out:
        raise UserError("--resume needs --out DIR, the run directory to go on with")
    directory = Path(out)
    if not directory.is_dir():
        raise UserError(f"nothing to resume: there is no run directory {directory}")
    plan = FitPlan.load(directory, own)
    if checkpoint.latest(directory / "checkpoint") is None:
        raise UserError(f"nothing to resume: there is no checkpoint in {directory}; remove it and start anew")
    if task not in (None, plan.task):
        raise UserError(
            f"the run in {directory} has task {plan.task!r}, not {task!r}; start another with another --out"
        )
    return plan


def _free_directory(plan: FitPlan) -> Path:
    """Where a run goes that was told no --out."""
    return free_directory("fit", Path(plan.task).stem, Path(plan.bundle or plan.encoder).stem, f"seed{plan.run.seed}")
