"""How good is a representation? Numbers and pictures of a bundle's codes, beside PCA and the raw observations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from .. import data as datasets
from ..data.base import Dataset
from ..encoders.base import count_parameters
from ..envs.errors import UserError
from . import device
from .bundle import load_bundle, read_card
from .plan import Plan
from .pretrain_plan import FRAMES, PretrainPlan
from .probing import figures, report
from .probing.code_statistics import code_statistics
from .probing.likelihood import likelihood_of
from .probing.logistic import MOST_PRECONDITIONED, Preconditioner, Scale, choose_logistic, few_labels
from .probing.neighbours import neighbour_accuracies
from .probing.subject import SPLITS, Splits, Subject, check_fit
from .sources import load_data

FOLDER = "probe"  # inside the bundle's or run's directory
Step = tuple[str, Callable[[], None]]  # a part of the work: its name, and what does it


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What is measured, and where."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None  # for what is found; None: probe/ inside DIR
    seed: int = 0  # of draws of few labels, pictures and data
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    threads: int = 0  # of torch on the processor; 0 = choose
    baselines: bool = True  # the same accuracies of PCA codes and of raw observations
    pictures: bool = True  # draw pictures
    annealing: int = 3000  # steps, where a Boltzmann machine's likelihood is measured; 0 = it is not
    embedding: int = 2000  # test examples in the t-SNE (and UMAP, where installed); 0 = none
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None  # the user's own, if the bundle was made so


@dataclass(frozen=True, kw_only=True)
class ProbeRequest(ProbeOptions):
    """Options of `saccade probe`."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]  # bundle, or run that holds one
    data: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None  # mnist, env:ID, ...; None: as it was trained on


def probe(
    directory: Path | str, data: Dataset | str | None = None, options: ProbeOptions | None = None
) -> dict[str, Any]:
    """Judge the bundle in `directory` on `data`; writes tables, pictures and TensorBoard events, and returns what
    `probe.json` holds.

    Args:
        data: a data set or its name; None: the one that it was trained on.

    Raises:
        UserError: no bundle, no such data, or `out` holds something else.
        SpecError: the encoder cannot read such observations.
    """
    directory, options = Path(directory), options or ProbeOptions()
    bundle = load_bundle(directory, options.encoder)
    dataset = data if isinstance(data, Dataset) else find_data(directory, data, options)
    check_fit(bundle.name, bundle.spec, dataset)
    compute = device.choose(dataset.spec, device=options.device, precision="float32", threads=options.threads)
    torch.manual_seed(options.seed)
    subject = Subject(bundle.name, bundle.encoder, dataset, compute.device, options.seed)
    subject.report |= {
        "encoder": bundle.name,
        "data": dataset.name,
        "observation": dataset.spec.describe(),
        "size": dataset.spec.size,
        "examples": {name: len(subject.rows[name]) for name in SPLITS},
        "seed": options.seed,
    }
    pictures: dict[str, bytes] = {}
    seconds = _work(_steps(subject, options, pictures))
    found = subject.report | {
        "pictures": {name: figures.TITLES[name] for name in pictures},
        "seconds": seconds,
        "parameters": sum(count_parameters(subject.encoder)),
        "compute": device.describe(compute),
        "versions": device.versions(),
        "commit": device.commit(),
        "machine": device.machine(),
    }
    report.write(output_of(directory, options), found, pictures)
    return found


def output_of(directory: Path, options: ProbeOptions) -> Path:
    """Where the probe of `directory` writes."""
    return options.out or directory / FOLDER


def find_data(directory: Path, name: str | None, options: ProbeOptions) -> Dataset:
    """The data set called `name`, or the one that the bundle in `directory` was trained on.

    Where the run that made the bundle is still around it, its recorded frames and split are found again; for an agent,
    frames of its world in random play are recorded.

    Raises:
        UserError: no such data, or `name` is None and nothing says what it was trained on.
    """
    for run in (directory, directory.parent):
        plan = None
        with suppress(UserError):  # it is no run of `saccade pretrain`
            plan = PretrainPlan.load(run, options.encoder)
        if plan is not None and name in (None, plan.data):
            return load_data(plan)
        with suppress(UserError):  # it is no run of `saccade train`
            played = Plan.load(run, options.encoder)
            if name in (None, FRAMES + played.env):
                return datasets.load_examples(FRAMES + played.env, seed=options.seed, options=played.env_options)
    if name is None:
        card = read_card(directory)
        found = card.get("data", card.get("task"))
        name = found.get("name") if isinstance(found, dict) else found
    if not isinstance(name, str):
        raise UserError(f"{directory} does not say what it was trained on; give --data NAME")
    return datasets.load_examples(name, seed=options.seed)


def _work(steps: list[Step]) -> dict[str, float]:
    """Do all the steps under a progress bar; returns the seconds of each."""
    screen, seconds = Console(stderr=True), {}
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("", total=len(steps))
        for name, do in steps:
            progress.update(task, description=name)
            began = time.perf_counter()
            do()
            seconds[name] = round(time.perf_counter() - began, 2)
            progress.advance(task)
    return seconds


def _steps(subject: Subject, options: ProbeOptions, pictures: dict[str, bytes]) -> list[Step]:
    """The parts of the work, in an order in which each finds what it needs."""
    labelled = subject.classes >= 2
    steps: list[Step] = [("codes", lambda: _encode(subject, labelled)), ("statistics", lambda: _describe(subject))]
    steps.append(("principal components", lambda: _fit_pca(subject)))
    if subject.has("reconstruct"):
        steps.append(("reconstruction", lambda: _reconstruct(subject)))
    steps.append(("likelihood", lambda: _weigh(subject, options.annealing)))
    if labelled:
        steps += _accuracy_steps(subject, options)
    if options.pictures:
        for name in figures.wanted(subject, options.embedding):
            steps.append((f"picture: {name}", lambda name=name: _draw(subject, options, name, pictures)))  # type: ignore[misc]
    return steps


def _draw(subject: Subject, options: ProbeOptions, name: str, pictures: dict[str, bytes]) -> None:
    content = figures.draw(name, subject, options.embedding)
    if content is not None:
        pictures[name] = content


def _encode(subject: Subject, labelled: bool) -> None:
    subject.encode(SPLITS if labelled else ("test",))
    subject.report["width"] = subject.width


def _describe(subject: Subject) -> None:
    subject.report["statistics"] = asdict(code_statistics(subject.codes["test"].x))


def _fit_pca(subject: Subject) -> None:
    subject.fit_pca(subject.width)
    assert subject.pca is not None
    subject.report |= {"pca_width": subject.pca.width, "pca_examples": subject.pca.examples}


@torch.no_grad()
def _reconstruct(subject: Subject) -> None:
    """Squared error per test example, summed over its numbers in unit scale, of the learner and of PCA, and its root.

    Raises:
        UserError: a reconstruction is not finite.
    """
    pca, encoder = subject.pca, subject.encoder
    assert pca is not None
    totals = torch.zeros(2, 2, dtype=torch.float64)  # of the learner and of PCA: squared, root
    for x, _ in subject.stored("test"):
        unit = subject.unit(x)
        restored: Tensor = encoder.reconstruct(x).float().flatten(1)  # type: ignore[operator]
        for number, guess in enumerate((restored, pca.reconstruct(unit))):
            squared = (guess - unit).square().sum(1, dtype=torch.float64)
            totals[number] += torch.stack([squared.sum(), squared.sqrt().sum()]).cpu()
    if not totals.isfinite().all():
        raise UserError(f"encoder {subject.name!r} gives reconstructions that are not finite; train it again")
    learner, principal = (totals / len(subject.rows["test"])).tolist()
    subject.report["reconstruction"] = {"learner": learner[0], "pca": principal[0]}
    subject.report["root_error"] = {"learner": learner[1], "pca": principal[1]}


def _weigh(subject: Subject, annealing: int) -> None:
    """The likelihood of what is a density; of others nothing.

    Raises:
        UserError: it is not finite, or annealing has too few steps.
    """
    found = likelihood_of(subject, annealing)
    if found is None:
        return
    if not math.isfinite(found["nats"]):
        raise UserError(f"encoder {subject.name!r} gives likelihoods that are not finite; train it again")
    finite = {
        name: value if not isinstance(value, float) or math.isfinite(value) else None for name, value in found.items()
    }
    subject.report["likelihood"] = finite


def _accuracy_steps(subject: Subject, options: ProbeOptions) -> list[Step]:
    subject.report["accuracy"] = {}
    held: dict[str, Splits] = {}  # raw observations, while they are needed
    steps = [*_judge("codes", lambda: subject.codes, subject)]
    if options.baselines:

        def gather() -> None:
            held["raw"] = subject.raw()

        def project() -> Splits:
            assert subject.pca is not None
            return {name: part._replace(x=subject.pca.encode(part.x)) for name, part in held["raw"].items()}

        steps.append(("raw observations", gather))
        steps += _judge("pca", project, subject)
        steps += _judge("raw", lambda: held["raw"], subject)
    return steps


def _judge(name: str, get: Callable[[], Splits], subject: Subject) -> Iterator[Step]:
    """Linear, neighbour and few-label accuracy of one kind of features."""
    title, found = report.TITLES[name], dict[str, Any]()
    held: dict[str, Splits] = {}

    def linear() -> None:
        features = {split: part.known() for split, part in get().items()}
        _require_labels(features, subject)
        scale = Scale.of(features["train"].x)
        held["plain"] = features
        held["scaled"] = {split: part._replace(x=scale(part.x)) for split, part in features.items()}
        train = held["scaled"]["train"]
        helper = Preconditioner.of(train.x) if train.x.shape[1] <= MOST_PRECONDITIONED else None
        chosen = choose_logistic(*train, held["scaled"]["validation"], subject.classes, helper)
        accuracy = chosen.model.accuracy(*held["scaled"]["test"])
        found["linear"] = {"accuracy": accuracy, "penalty": chosen.penalty, "validation": chosen.validation}
        subject.report["accuracy"][name] = found
        subject.report["sampling_error"] = 196 * 0.5 / len(features["test"].label) ** 0.5

    def few() -> None:
        parts = held.pop("scaled")
        draws = few_labels(parts["train"], parts["validation"], parts["test"], subject.classes, subject.seed)
        found["few_labels"] = [draw._asdict() for draw in draws]

    def neighbours() -> None:
        parts = held.pop("plain")
        judged = neighbour_accuracies(parts["train"], parts["validation"], parts["test"], subject.classes)
        found.update({metric: voters._asdict() for metric, voters in judged.items()})

    yield f"linear accuracy, {title}", linear
    yield f"few labels, {title}", few
    yield f"neighbours, {title}", neighbours


def _require_labels(features: Splits, subject: Subject) -> None:
    for split, part in features.items():
        if not len(part.label):
            raise UserError(f"{subject.dataset.name} has no labelled {split} examples; remove its labels, or add some")
