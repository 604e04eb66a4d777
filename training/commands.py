"""The verbs of the command line that train: `train`, `pretrain`, `fit`; and `probe` and `download` beside them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..envs.errors import UserError
from .tables import print_names, show_fitted, show_pretrained, show_result

# Torch and the worlds take seconds to import, so each command imports what it needs.

INTERRUPTED = 130
Result = dict[str, Any]


def train(words: list[str]) -> int:
    from ..agents import list_agents
    from . import train as training
    from .arguments import parse_train

    agent, words = _split(words)
    if agent is None and _asks_for_help(words):
        print("usage: saccade train AGENT [OPTIONS]\n")
        print(f"agents: {', '.join(list_agents())}")
        print("The options depend on the agent: see `saccade train dqn --help`.")
        return 0
    request = parse_train(agent, words)
    plan, out = request.plan, request.out
    print(f"{'going on with' if request.resume else 'training'} {plan.agent} on {plan.env} through {plan.encoder}")
    workers = f" in each of {plan.run.workers} workers" if plan.run.workers else ""
    print(
        f"{plan.run.steps:,} steps, {plan.run.num_envs} at a time{workers}, seed {plan.run.seed}, into {out}",
        flush=True,
    )

    def run() -> Result:
        if not request.resume:
            return training.train(plan, out, say=print)
        plan.save(out)  # what may change did, such as the number of steps
        return training.resume(out, encoder=request.encoder)

    own = ["--encoder", request.encoder] if request.encoder else []
    again = ["saccade", "train", plan.agent, "--resume", "--out", str(out), *own]
    return _sit(run, training.Stopped, out, again, show_result)


def pretrain(words: list[str]) -> int:
    from ..encoders import list_encoders
    from . import pretrain as pretraining
    from .pretrain_arguments import parse_pretrain

    learner, words = _split(words)
    if learner is None and _asks_for_help(words):
        print("usage: saccade pretrain LEARNER [--data NAME] [--preset NAME] [OPTIONS]\n")
        print(f"encoders: {', '.join(list_encoders())}; `saccade list learners` names those that can learn alone,")
        print("`saccade list presets` recipes that work")
        print("The options depend on the learner: see `saccade pretrain autoencoder --help`.")
        return 0
    request = parse_pretrain(learner, words)
    plan, out = request.plan, request.out
    print(f"{'going on with' if request.resume else 'training'} {plan.learner} on {plan.data}")
    print(f"{plan.run.epochs:,} epochs, seed {plan.run.seed}, into {out}", flush=True)

    def run() -> Result:
        if not request.resume:
            return pretraining.pretrain(plan, out)
        plan.save(out)  # what may change did, such as the number of epochs
        return pretraining.resume(out, learner=request.learner)

    own = [request.learner] if request.learner else []
    again = ["saccade", "pretrain", *own, "--resume", "--out", str(out)]
    return _sit(run, pretraining.Stopped, out, again, show_pretrained)


def fit(words: list[str]) -> int:
    from . import fit as fitting
    from .fit_arguments import parse_fit

    task, words = _split(words)
    if task is None and _asks_for_help(words):
        print("usage: saccade fit TASK [--encoder NAME|BUNDLE] [OPTIONS]\n")
        print("classes: mnist, cifar10, imdb (or sentiment), imdb-bags, imdb-bags-all,")
        print("  imdb-counts, letters, PATH.npy with PATH.labels.npy beside it")
        print("sequences: copy, repeat-copy, associative-recall, priority-sort, copy-slots, sequential-mnist,")
        print("  pixel-mnist, babi, babi-3, pos, chunks (or tagging), dates (or translate), treebank (or parse)")
        print("text: penn (or language-model), shakespeare, PATH.txt, word2vec")
        print("The options depend on the encoder: see `saccade fit mnist --encoder convnet --help`.")
        return 0
    request = parse_fit(task, words)
    plan, out = request.plan, request.out
    print(f"{'going on with' if request.resume else 'learning'} {plan.task} through {plan.bundle or plan.encoder}")
    print(f"{plan.run.epochs:,} epochs, seed {plan.run.seed}, into {out}", flush=True)

    def run() -> Result:
        if not request.resume:
            return fitting.fit(plan, out)
        plan.save(out)  # what may change did, such as the number of threads
        return fitting.resume(out, request.encoder)

    own = ["--encoder", request.encoder] if request.encoder else []
    again = ["saccade", "fit", plan.task, "--resume", "--out", str(out), *own]
    return _sit(run, fitting.Stopped, out, again, show_fitted)


def probe(words: list[str]) -> int:
    from .arguments import parse
    from .probe import ProbeRequest, output_of
    from .probe import probe as judge
    from .probing.report import show

    request = parse(ProbeRequest, words, prog="saccade probe", description="How good is a bundle's representation?")
    show(judge(request.directory, request.data, request), output_of(request.directory, request))
    return 0


def download(words: list[str]) -> int:
    from ..data import DOWNLOADS
    from ..data import download as downloads

    if not words or _asks_for_help(words):
        print("usage: saccade download NAME, into the folder that SACCADE_DATA names, or else into the cache\n")
        print_names({name: module.kind for name, module in DOWNLOADS.items()})
        return 0
    for name in words:
        paths = downloads.download(name)
        print("\n".join(map(str, paths)) if paths else f"{name} is there already")
    return 0


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """What is trained, where the words begin with it, and the words behind it."""
    return (words[0], words[1:]) if words and not words[0].startswith("-") else (None, words)


def _asks_for_help(words: list[str]) -> bool:
    return bool(words) and words[0] in ("-h", "--help")


def _sit(
    run: Callable[[], Result],
    stopped: type[Exception],
    out: Path,
    again: Sequence[str],
    show: Callable[[Result, Path], None],
) -> int:
    """Run to the end and show the result; or say how to go on. Returns the exit status."""
    is_new, command = not out.exists(), shlex.join(again)
    try:
        result = run()
    except stopped as reason:
        print(f"saccade: {reason}; go on with: {command}", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        if not (is_new and (out / "checkpoint").is_dir()):
            raise
        raise UserError(f"{error} (a checkpoint is kept; go on with: {command})") from error
    show(result, out)
    return 0
