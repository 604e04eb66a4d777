"""The command line: `saccade train | evaluate | bench | list`. Bad input is one line on stderr and exit status 2."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .training.arguments import Request

# Torch and the worlds take seconds to import, so each command imports what it needs.

OVERVIEW = """\
saccade: reinforcement learning in which what an agent sees with is a part you can swap

  saccade train AGENT [--env ID] [--encoder NAME] [OPTIONS]   train into a run directory
  saccade train --resume --out DIR                            go on with a run that was stopped
  saccade evaluate DIR [--episodes N] [OPTIONS]               play with a trained agent
  saccade pretrain LEARNER [--data NAME] [OPTIONS]            train an encoder on its own
  saccade fit TASK [--encoder NAME|BUNDLE] [OPTIONS]          learn labels through any encoder
  saccade download NAME                                       fetch a published data set
  saccade bench NAME [--seeds N] [OPTIONS]                    run a benchmark
  saccade list [agents|encoders|envs|datasets|benchmarks]     what there is

Begin with `saccade train dqn`, which solves CartPole in about a minute.
`saccade train dqn --help` lists all the options and their defaults.
"""
BAD_INPUT, INTERRUPTED = 2, 130
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def main(words: list[str] | None = None) -> int:
    """Do what `words` (by default those of the command line) say; returns the exit status."""
    from .envs.errors import UnknownNameError, UserError

    words = sys.argv[1:] if words is None else words
    try:
        if not words or words[0] in ("-h", "--help"):
            print(OVERVIEW, end="")
            return 0
        if words[0] not in COMMANDS:
            raise UnknownNameError("command", words[0], COMMANDS)
        status = COMMANDS[words[0]](words[1:])
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"saccade: {' '.join(str(error).split())}", file=sys.stderr)  # torch's reasons have several lines
        return BAD_INPUT
    except KeyboardInterrupt:
        print("saccade: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        print(f"saccade: cannot write {error.filename or 'to the disk'}: {error.strerror}", file=sys.stderr)
        return BAD_INPUT


def _train(words: list[str]) -> int:
    from .envs.errors import UserError
    from .training import train as training
    from .training.arguments import parse_train

    agent = words[0] if words and not words[0].startswith("-") else None
    if agent is None and words and words[0] in ("-h", "--help"):
        return _explain_train()
    request = parse_train(agent, words if agent is None else words[1:])
    plan, is_new = request.plan, not request.out.exists()
    print(f"{'going on with' if request.resume else 'training'} {plan.agent} on {plan.env} through {plan.encoder}")
    print(
        f"{plan.run.steps:,} steps, {plan.run.num_envs} at a time, seed {plan.run.seed}, into {request.out}", flush=True
    )
    try:
        if request.resume:
            plan.save(request.out)  # what may change did, such as the number of steps
            result = training.resume(request.out, encoder=request.encoder)
        else:
            result = training.train(plan, request.out, say=print)
    except training.Stopped as stopped:
        print(f"saccade: {stopped}; go on with: {_resume_command(request)}", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        if not (is_new and (request.out / "checkpoint").is_dir()):
            raise
        raise UserError(f"{error} (a checkpoint is kept; go on with: {_resume_command(request)})") from error
    _show_result(result, request.out)
    return 0


def _explain_train() -> int:
    from .agents import list_agents

    print("usage: saccade train AGENT [OPTIONS]\n")
    print(f"agents: {', '.join(list_agents())}")
    print("The options depend on the agent: see `saccade train dqn --help`.")
    return 0


def _resume_command(request: Request) -> str:
    words = ["saccade", "train", request.plan.agent, "--resume", "--out", str(request.out)]
    return shlex.join([*words, *(["--encoder", request.encoder] if request.encoder else [])])


def _show_result(result: dict[str, Any], out: Path) -> None:
    rows = {
        "steps": f"{result['steps']:,} in {result['seconds']:,.0f} s ({result['steps_per_second']:,.0f} per second)",
        "computed on": result["compute"],
        "parameters": "{training:,} training, {frozen:,} frozen".format(**result["parameters"]),
    }
    if score := result["score"]:
        rows |= _score_rows(score, result["evaluate_epsilon"])
    if (out / "curve.png").is_file():  # some episode was finished
        rows["learning curve"] = str(out / "curve.png")
    rows |= {
        "watch it": shlex.join(["tensorboard", "--logdir", str(out)]),
        "play again": shlex.join(["saccade", "evaluate", str(out)]),
    }
    _table(f"{result['agent']} on {result['env']} through {result['encoder']}", rows)


def _score_rows(score: dict[str, Any], epsilon: float) -> dict[str, str]:
    how = f"random actions {epsilon:.0%}" if epsilon else "greedy"
    return {
        "score": f"{score['mean']:,.1f}, mean of {score['episodes']} episodes, {how}",
        "95 % interval": f"{score['low']:,.1f} to {score['high']:,.1f}",
    }


def _table(title: str, rows: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left", min_width=len(title))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


def _evaluate(words: list[str]) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from .training.arguments import EvaluateOptions, parse
    from .training.evaluate import FRESH_SEEDS, evaluate_run, load_agent
    from .training.plan import Plan
    from .training.video import default_suffix, record

    options = parse(EvaluateOptions, words, prog="saccade evaluate", description="Play with a trained agent.")
    plan = Plan.load(options.directory, options.encoder)
    epsilon = plan.run.evaluate_epsilon if options.epsilon is None else options.epsilon
    screen = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("episodes", total=options.episodes)
        score = evaluate_run(
            options.directory,
            options.episodes,
            epsilon,
            options.seed,
            options.encoder,
            lambda done: progress.update(task, completed=done),
        )
    title = f"{plan.agent} on {plan.env} through {plan.encoder}, from {options.directory}"
    rows = _score_rows(vars(score), epsilon)
    if options.video:
        path = options.directory / f"video{default_suffix()}"
        seed = FRESH_SEEDS + plan.run.seed if options.seed is None else options.seed
        player = load_agent(options.directory, options.encoder)
        shown, frames = record(player.agent, plan, path, seed, epsilon, player.make_world)
        rows["video"] = f"{path}, {frames:,} frames, score {shown:,.1f}"
    _table(title, rows)
    return 0


def _pretrain(words: list[str]) -> int:
    from .envs.errors import UserError
    from .training import pretrain as pretraining
    from .training.pretrain_arguments import parse_pretrain

    learner = words[0] if words and not words[0].startswith("-") else None
    if learner is None and words and words[0] in ("-h", "--help"):
        return _explain_pretrain()
    request = parse_pretrain(learner, words if learner is None else words[1:])
    plan, is_new = request.plan, not request.out.exists()
    print(f"{'going on with' if request.resume else 'training'} {plan.learner} on {plan.data}")
    print(f"{plan.run.epochs:,} epochs, seed {plan.run.seed}, into {request.out}", flush=True)
    again = ["saccade", "pretrain", *([request.learner] if request.learner else [])]
    command = shlex.join([*again, "--resume", "--out", str(request.out)])
    try:
        if request.resume:
            plan.save(request.out)  # what may change did, such as the number of epochs
            result = pretraining.resume(request.out, learner=request.learner)
        else:
            result = pretraining.pretrain(plan, request.out)
    except pretraining.Stopped as stopped:
        print(f"saccade: {stopped}; go on with: {command}", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        if not (is_new and (request.out / "checkpoint").is_dir()):
            raise
        raise UserError(f"{error} (a checkpoint is kept; go on with: {command})") from error
    _show_pretrained(result, request.out)
    return 0


def _explain_pretrain() -> int:
    from .encoders import list_encoders

    print("usage: saccade pretrain LEARNER [--data NAME] [OPTIONS]\n")
    print(f"encoders: {', '.join(list_encoders())}; `saccade list learners` names those that can learn alone")
    print("The options depend on the learner: see `saccade pretrain autoencoder --help`.")
    return 0


def _show_pretrained(result: dict[str, Any], out: Path) -> None:
    speed = f"{result['seconds']:,.0f} s ({result['images_per_second']:,.0f} images per second)"
    rows = {
        "epochs": f"{result['epochs']:,} in {speed}",
        "computed on": result["compute"],
        "parameters": "{training:,} training, {frozen:,} frozen".format(**result["parameters"]),
    }
    for name, losses in result["losses"].items():
        parts = ", ".join(f"{part} {value:,.5g}" for part, value in losses.items() if part != "loss")
        rows[f"{name} loss"] = f"{losses['loss']:,.5g}" + (f" ({parts})" if len(losses) > 2 else "")
    rows |= {
        "watch it": shlex.join(["tensorboard", "--logdir", str(out)]),
        "judge it": shlex.join(["saccade", "probe", str(out)]),
        "use it": shlex.join(["saccade", "train", "dqn", "--encoder", str(out)]),
    }
    _table(f"{result['learner']} on {result['data']}", rows)


def _download(words: list[str]) -> int:
    from .data import PUBLISHED
    from .data.download import download

    if not words or words[0] in ("-h", "--help"):
        print("usage: saccade download NAME, into the folder that SACCADE_DATA names, or else into the cache\n")
        _print_names({name: module.kind for name, module in PUBLISHED.items()})
        return 0
    for name in words:
        paths = download(name)
        print("\n".join(map(str, paths)) if paths else f"{name} is there already")
    return 0


def _download(words: list[str]) -> int:
    from .data import PUBLISHED
    from .data.download import download
    from .envs.errors import UserError

    if not words or words[0] in ("-h", "--help"):
        print("usage: saccade download NAME\n")
        _print_names({name: module.kind for name, module in PUBLISHED.items()})
        return 0
    if len(words) > 1:
        raise UserError(f"one data set at a time: {', '.join(PUBLISHED)}")
    paths = download(words[0])
    for path in paths:
        print(path)
    if not paths:
        print(f"{words[0]} is there already, and whole")
    return 0


def _bench(words: list[str]) -> int:
    from .benchmarks import BenchOptions, list_benchmarks, run_benchmark
    from .envs.errors import UnknownNameError
    from .training.arguments import parse

    known = list_benchmarks()
    if not words or words[0] in ("-h", "--help"):
        print("usage: saccade bench NAME [OPTIONS]\n")
        _print_names(known)
        return 0
    name = words[0]
    if name not in known:
        raise UnknownNameError("benchmark", name, known)
    options = parse(BenchOptions, words[1:], prog=f"saccade bench {name}", description=known[name])
    return run_benchmark(name, options)


def _list(words: list[str]) -> int:
    from .agents import find_agent, list_agents
    from .benchmarks import list_benchmarks
    from .data import list_datasets
    from .encoders import find_encoder, list_encoders
    from .envs import list_envs
    from .envs.errors import UnknownNameError, UserError

    topics: dict[str, Callable[[], dict[str, str]]] = {
        "agents": lambda: {name: find_agent(name).kind for name in list_agents()},
        "encoders": lambda: {name: find_encoder(name).kind for name in list_encoders()},
        "envs": lambda: dict.fromkeys(list_envs(), ""),
        "datasets": list_datasets,
        "benchmarks": list_benchmarks,
    }
    if len(words) > 1:
        raise UserError(f"one topic at a time: {', '.join(topics)}")
    if words and words[0] in topics:
        _print_names(topics[words[0]]())
    elif words and words[0] not in ("-h", "--help"):
        raise UnknownNameError("topic", words[0], topics)
    else:
        for topic in ("agents", "encoders", "datasets", "benchmarks"):
            print(f"{topic}:")
            _print_names(topics[topic](), indent="  ")
        print("envs: see `saccade list envs`; any other id that Gymnasium knows works, too")
    return 0


def _print_names(names: dict[str, str], indent: str = "") -> None:
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{indent}{name:{width}}  {text}".rstrip())


def _fit(words: list[str]) -> int:
    from .envs.errors import UserError
    from .training import fit as fitting
    from .training.fit_arguments import parse_fit

    task = words[0] if words and not words[0].startswith("-") else None
    if task is None and words and words[0] in ("-h", "--help"):
        print("usage: saccade fit TASK [--encoder NAME|BUNDLE] [OPTIONS]\n")
        print("tasks: mnist, cifar10, PATH.npy with PATH.labels.npy beside it")
        print("The options depend on the encoder: see `saccade fit mnist --encoder convnet --help`.")
        return 0
    request = parse_fit(task, words if task is None else words[1:])
    plan, is_new = request.plan, not request.out.exists()
    print(f"{'going on with' if request.resume else 'learning'} {plan.task} through {plan.bundle or plan.encoder}")
    print(f"{plan.run.epochs:,} epochs, seed {plan.run.seed}, into {request.out}", flush=True)
    own = ["--encoder", request.encoder] if request.encoder else []
    command = shlex.join(["saccade", "fit", plan.task, "--resume", "--out", str(request.out), *own])
    try:
        if request.resume:
            plan.save(request.out)  # what may change did, such as the number of threads
            result = fitting.resume(request.out, request.encoder)
        else:
            result = fitting.fit(plan, request.out)
    except fitting.Stopped as stopped:
        print(f"saccade: {stopped}; go on with: {command}", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        if not (is_new and (request.out / "checkpoint").is_dir()):
            raise
        raise UserError(f"{error} (a checkpoint is kept; go on with: {command})") from error
    _show_fitted(result, request.out)
    return 0


def _show_fitted(result: dict[str, Any], out: Path) -> None:
    test = result["test"]
    rows = {
        "epochs": f"{result['epochs']:,} in {result['seconds']:,.0f} s "
        f"({result['examples_per_second']:,.0f} examples per second)",
        "computed on": result["compute"],
        "parameters": "{training:,} training, {frozen:,} frozen".format(**result["parameters"]),
        "validation accuracy": f"{result['validation']['accuracy']:.2%}",
        "test accuracy": f"{test['accuracy']:.2%}, error {test['error']:.2%} "
        f"({test['mistakes']:,} mistakes of {test['examples']:,})",
        "95 % interval": f"error {test['low']:.2%} to {test['high']:.2%}",
        "pictures": str(out / "confusion.png"),
        "watch it": shlex.join(["tensorboard", "--logdir", str(out)]),
        "judge its encoder": shlex.join(["saccade", "probe", str(out)]),
    }
    _table(f"{result['task']} through {result['encoder']}", rows)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "pretrain": _pretrain,
    "fit": _fit,
    "download": _download,
    "bench": _bench,
    "list": _list,
}

if __name__ == "__main__":
    sys.exit(main())
