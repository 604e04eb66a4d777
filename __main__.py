"""The command line. Bad input is one line on stderr and exit status 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

# Torch and the worlds take seconds to import, so each command imports what it needs.

OVERVIEW = """\
saccade: reinforcement learning in which what an agent sees with is a part you can swap

  saccade train AGENT [--env ID] [--encoder NAME] [OPTIONS]   train into a run directory
  saccade train --resume --out DIR                            go on with a run that was stopped
  saccade evaluate DIR [--episodes N] [OPTIONS]               play with a trained agent
  saccade pretrain LEARNER [--data NAME] [OPTIONS]            train an encoder on its own
  saccade probe DIR [--data NAME] [OPTIONS]                   judge a trained encoder's representation
  saccade fit TASK [--encoder NAME|BUNDLE] [OPTIONS]          learn labels through any encoder
  saccade download NAME                                       fetch a published data set
  saccade bench NAME [--seeds N] [OPTIONS]                    run a benchmark
  saccade list [TOPIC]                                        what there is; `list matrix`: which encoder reads what

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


def _evaluate(words: list[str]) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from .training.arguments import EvaluateOptions, parse
    from .training.evaluate import FRESH_SEEDS, evaluate_run, load_agent
    from .training.plan import Plan
    from .training.tables import score_rows, show_table
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
    rows = score_rows(vars(score), epsilon)
    if options.video:
        path = options.directory / f"video{default_suffix()}"
        seed = FRESH_SEEDS + plan.run.seed if options.seed is None else options.seed
        player = load_agent(options.directory, options.encoder)
        shown, frames = record(player.agent, plan, path, seed, epsilon, player.make_world)
        rows["video"] = f"{path}, {frames:,} frames, score {shown:,.1f}"
    show_table(title, rows)
    return 0


def _bench(words: list[str]) -> int:
    from .benchmarks import BenchOptions, list_benchmarks, run_benchmark
    from .envs.errors import UnknownNameError
    from .training.arguments import parse
    from .training.tables import print_names

    known = list_benchmarks()
    if not words or words[0] in ("-h", "--help"):
        print("usage: saccade bench NAME [OPTIONS]\n")
        print_names(known)
        return 0
    name = words[0].replace("-", "_")
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
    from .training.matrix import list_learners, list_memories, matrix
    from .training.pretrain_presets import PRESETS
    from .training.tables import print_matrix, print_names

    topics: dict[str, Callable[[], dict[str, str]]] = {
        "agents": lambda: {name: find_agent(name).kind for name in list_agents()},
        "encoders": lambda: {name: find_encoder(name).kind for name in list_encoders()},
        "memories": lambda: {name: find_encoder(name).kind for name in list_memories()},
        "learners": lambda: {name: find_encoder(name).kind for name in list_learners()},
        "datasets": list_datasets,
        "presets": lambda: {name: f"{p.learner} on {p.data}: {p.source}" for name, p in PRESETS.items()},
        "envs": lambda: dict.fromkeys(list_envs(), ""),
        "benchmarks": list_benchmarks,
    }
    if len(words) > 1:
        raise UserError(f"one topic at a time: {', '.join([*topics, 'matrix'])}")
    if words and words[0] in topics:
        print_names(topics[words[0]]())
    elif words == ["matrix"]:
        print_matrix(matrix())
    elif words and words[0] not in ("-h", "--help"):
        raise UnknownNameError("topic", words[0], [*topics, "matrix"])
    else:
        for topic in ("agents", "encoders", "datasets", "benchmarks"):
            print(f"{topic}:")
            print_names(topics[topic](), indent="  ")
        print("envs: see `saccade list envs`; any other id that Gymnasium knows works, too")
        print("memories, learners, presets, matrix: see `saccade list TOPIC`; the matrix says which encoder reads what")
    return 0


def _command(name: str) -> Callable[[list[str]], int]:
    def run(words: list[str]) -> int:
        from .training import commands

        return getattr(commands, name)(words)

    return run


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    **{name: _command(name) for name in ("train", "pretrain", "fit", "probe", "download")},
    "evaluate": _evaluate,
    "bench": _bench,
    "list": _list,
}

if __name__ == "__main__":
    sys.exit(main())
