"""Command line words to the plan of a run.

Which options there are depends on the agent and the encoder, and their defaults on the world and the preset. So the
words are read twice: first for those few, then, against all the options that follow from them, in full.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ..encoders import list_encoders
from ..envs.errors import UnknownNameError, UserError
from ..envs.options import EnvOptions
from . import checkpoint
from .encoder_use import MODES, bundle_path
from .plan import Plan, check, default_plan

T = TypeVar("T")
DEFAULT_ENV = "CartPole-v1"
SECTIONS = {  # of a plan, with the prefix of their options
    "run": "",
    "agent_config": "",
    "encoder_use": "",
    "encoder_config": "encoder",
    "env_options": "env",
}
MEMORY = {"memory_config": "memory"}  # where there is one
PREFIXES = SECTIONS | MEMORY | {"learner_config": "encoder"}  # of all commands
CHANGEABLE = (  # when a run is resumed
    "steps",
    "device",
    "precision",
    "threads",
    "workers",
    "cluster",
    "wire",
    "compile",
    "save_interval_seconds",
    "evaluate_episodes",
    "evaluate_epsilon",
)
_BOX = "╭╮╰╯│─ \n"


@dataclass(frozen=True)
class Request:
    """What `saccade train` was asked to do."""

    plan: Plan
    out: Path
    resume: bool
    encoder: str | None  # as named on the command line now: a user's own must be named at every resumption


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `saccade evaluate`."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]  # run directory
    episodes: int = 100  # whole episodes, on seeds that training never saw
    epsilon: float | None = None  # share of random actions; None: as after training
    seed: int | None = None  # of the worlds; None: as after training
    encoder: str | None = None  # the user's own encoder, if the run was made with one
    video: bool = False  # also write one episode as DIR/video.mp4, or .gif without the extra `[video]`


def parse_train(agent: str | None, words: list[str]) -> Request:
    """The request in the words behind `saccade train AGENT`; prints the help and exits if they ask for it.

    Args:
        agent: None where the words do not begin with one; a run that is resumed knows its own.

    Raises:
        UserError: an unknown agent, encoder, preset or option, a bad value, or a run that cannot be resumed so.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--env", "--encoder", "--encoder-mode", "--memory", "--preset", "--out"):
        first.add_argument(option, nargs="?")  # the second reading complains about a missing value
    first.add_argument("--resume", action="store_true")
    given, _ = first.parse_known_args(words)
    preset = given.preset or "auto"
    if given.encoder_mode not in (None, *MODES):
        raise UnknownNameError("encoder mode", given.encoder_mode, MODES)
    if given.resume:
        base = _plan_to_resume(agent, given)
    elif agent is None:
        raise UserError("name the agent first, as in `saccade train dqn`; `saccade list agents` lists them")
    else:
        base = default_plan(agent, given.env or DEFAULT_ENV, given.encoder, preset, given.memory)
    options = _parse_options(base, preset, given, words)
    plan = dataclasses.replace(base, **{section: getattr(options, section) for section in sections_of(base, SECTIONS)})
    check(plan)
    if given.resume:
        refuse_changes(base, plan, sections_of(base, SECTIONS), CHANGEABLE)
    encoder = None if plan.bundle else given.encoder
    return Request(plan, options.out or _free_directory(plan), given.resume, encoder)


def parse(cls: type[T], words: list[str], *, prog: str, description: str | None = None, default: Any = None) -> T:
    """`words` as dataclass `cls`; prints the help and exits if they ask for it.

    Raises:
        UserError: an unknown option (the nearest is named) or a bad value.
    """
    complaint = io.StringIO()
    settings: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            value, unknown = tyro.cli(
                cls, args=words, prog=prog, description=description, return_unknown_args=True, **settings
            )
    except SystemExit as stop:
        if not stop.code:  # the help
            raise
        raise UserError(f"{_unbox(complaint.getvalue())}; see `{prog} --help`") from None
    if unknown:
        option = unknown[0].split("=")[0]
        if option.startswith("--"):
            raise UnknownNameError("option", option, _options(cls, default))
        raise UserError(f"{option!r} belongs to no option; see `{prog} --help`")
    return value


def sections_of(plan: Any, sections: Mapping[str, str]) -> dict[str, str]:
    """`sections`, and those of the plan's memory, if it has one."""
    return dict(sections) if plan.memory is None else {**sections, **MEMORY}


def _parse_options(base: Plan, preset: str, given: argparse.Namespace, words: list[str]) -> Any:
    """An object with the sections of a plan and `out`."""
    texts = {
        "env": ("ID", "world: CartPole-v1, ALE/Breakout-v5, pixels/CartPole-v1, any other id that Gymnasium knows"),
        "encoder": (
            "NAME",
            "what the agent sees with: a name, a bundle's directory, path/to/mine.py, package.module",
        ),
        "memory": ("NAME", "remembers what the encoder saw: lstm, gru, ntm, dnc, transformer; none"),
        "preset": ("NAME", "where defaults come from: auto takes the first preset that fits, none the plain ones"),
    }
    fields: list[tuple[str, Any]] = [
        (name, Annotated[str, tyro.conf.arg(metavar=metavar, help=text)]) for name, (metavar, text) in texts.items()
    ]
    out = tyro.conf.arg(metavar="DIR", help="run directory to make; runs/... by default")
    resume = tyro.conf.arg(help="go on with the run in --out")
    fields += [("out", Annotated[Path | None, out]), ("resume", tyro.conf.FlagCreatePairsOff[Annotated[bool, resume]])]
    for section, prefix in sections_of(base, SECTIONS).items():
        kind = EnvOptions if section == "env_options" else type(getattr(base, section))
        fields.append((section, Annotated[kind, tyro.conf.arg(name=prefix)]))
    cls = dataclasses.make_dataclass("TrainOptions", fields, frozen=True)
    sections = {section: getattr(base, section) for section in sections_of(base, SECTIONS)}
    out_path = Path(given.out) if given.out else None
    names = {"env": base.env, "encoder": base.bundle or base.encoder, "memory": base.memory or "none"}
    default = cls(**names, preset=preset, out=out_path, resume=False, **sections)
    through = base.encoder + (f" and {base.memory}" if base.memory else "")
    description = f"Train {base.agent} on {base.env} through {through}. Defaults are those for this combination."
    return parse(cls, words, prog=f"saccade train {base.agent}", description=description, default=default)


def _options(cls: type[Any], default: Any) -> list[str]:
    """All options that set a field of `cls`, as they are typed."""
    found = ["--help"]
    for field in dataclasses.fields(cls):
        value = getattr(default, field.name, field.default)
        if dataclasses.is_dataclass(value):
            section = PREFIXES.get(field.name, field.name)
            prefix = f"{section}." if section else ""
            names = {inner.name: getattr(value, inner.name) for inner in dataclasses.fields(value)}
        else:
            prefix, names = "", {field.name: value}
        for name, current in names.items():
            found.append(f"--{prefix}{name}".replace("_", "-"))
            if isinstance(current, bool):
                found.append(f"--{prefix}no-{name}".replace("_", "-"))
    return found


def _unbox(text: str) -> str:
    """The message in a box of tyro's, as one line: what stands between its title and its first rule."""
    lines = [line.strip(_BOX) for line in text.splitlines()[1:]]
    rule = lines.index("") if "" in lines else len(lines)
    return (" ".join(lines[:rule]) or " ".join(text.split())).rstrip(".")


def _plan_to_resume(agent: str | None, given: argparse.Namespace) -> Plan:
    out, encoder = given.out, given.encoder
    if not out:
        raise UserError("--resume needs --out DIR, the run directory to go on with")
    directory = Path(out)
    if not directory.is_dir():
        raise UserError(f"nothing to resume: there is no run directory {directory}")
    encoder = encoder and (bundle_path(encoder) or encoder)  # the bundle itself may be gone: the run has its own copy
    is_users_own = encoder not in list_encoders() and not (encoder and bundle_path(encoder))
    plan = Plan.load(directory, encoder if is_users_own else None)
    if checkpoint.latest(directory / "checkpoint") is None:
        raise UserError(f"nothing to resume: there is no checkpoint in {directory}; remove it and start anew")
    for what, now, then in (
        ("agent", agent, plan.agent),
        ("env", given.env, plan.env),
        ("encoder", encoder, plan.bundle or plan.encoder),
        ("memory", given.memory, plan.memory or "none"),
    ):
        if now not in (None, then):
            raise UserError(
                f"the run in {directory} has {what} {then!r}, not {now!r}; start another with another --out"
            )
    return plan


def refuse_changes(base: Any, plan: Any, sections: Mapping[str, str], changeable: Sequence[str]) -> None:
    """A resumed run may be longer, or run on another machine; it learns what it learned, as it did.

    Args:
        sections: fields of the plans, with the prefix of their options.
        changeable: fields of the section `run` that may differ.

    Raises:
        UserError: an option says otherwise than `base`, the plan of the run that is there.
    """
    for section, prefix in sections.items():
        before, after = getattr(base, section), getattr(plan, section)
        for field in dataclasses.fields(before):
            old, new = getattr(before, field.name), getattr(after, field.name)
            if old != new and not (section == "run" and field.name in changeable):
                option = f"--{prefix}.{field.name}" if prefix else f"--{field.name}"
                raise UserError(
                    f"the run was made with {option.replace('_', '-')} {old} and cannot go on with {new}; "
                    "leave the option out, or start another run with another --out"
                )


def free_directory(*parts: str) -> Path:
    """Where a run goes that was told no --out: `runs/PART-PART...`, with a number behind it if that is there."""
    wanted = Path("runs") / "-".join(parts)
    found, number = wanted, 2
    while found.exists():
        found, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return found


def _free_directory(plan: Plan) -> Path:
    through = [Path(plan.encoder).stem, *([plan.memory] if plan.memory else [])]
    return free_directory(plan.agent, plan.env.split("/")[-1], *through, f"seed{plan.run.seed}")
