"""From the name of a benchmark to its files in `benchmarks/results`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib
import importlib.metadata
import os
import pkgutil
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from rich.console import Console

from ...envs.errors import UnknownNameError, UserError
from ...training import device
from . import processes
from . import report as reports
from .plan import BenchOptions, Outcome, Run, chosen, chosen_runs, needed

PACKAGE = "saccade.benchmarks"


class Places(NamedTuple):
    """Where a benchmark writes."""

    runs: Path  # one directory per run
    results: Path


def list_benchmarks() -> dict[str, str]:
    """Names and what they measure. Every file of the package is one."""
    names = (module.name for module in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__))
    return {name: str(_load(name).kind) for name in sorted(names) if name != "parts"}


def run_benchmark(name: str, options: BenchOptions) -> int:
    """Run a benchmark, show its tables and write its files; returns the exit status: 1 if a run failed
    or a build is slower.

    Raises:
        UnknownNameError: there is no such benchmark.
        UserError: the options make no sense for it, something it needs is not installed, or all of its runs failed.
    """
    known = list_benchmarks()
    if name not in known:
        raise UnknownNameError("benchmark", name, known)
    module, console = _load(name), Console()
    if options.env is not None and not hasattr(module, "takes_env"):
        raise UserError(f"{name} has a world of its own, or none: leave --env out")
    if options.threads:  # what is computed here, too: spinning threads would slow whatever runs beside them
        torch.set_num_threads(options.threads)
    label = labelled(name, options.env)
    where = places(label, options.out)
    console.print(f"[bold]{name}[/]: {module.kind}", highlight=False)
    failed: list[Outcome] = []
    if hasattr(module, "measure"):
        _check_choice(name, module, options)
        report = module.measure(options)
    else:
        # where --env picks one of many worlds, the report still has all that earlier calls finished
        whole = options if hasattr(module, "ENV") else dataclasses.replace(options, env=None)
        outcomes = _run_all(name, module, options, module.runs(whole), where, console)
        failed = [outcome for outcome in outcomes if outcome.result is None]
        if len(failed) == len(outcomes):
            raise UserError(f"all runs of {name} failed; the first: {failed[0].error.splitlines()[-2:]}")
        report = module.report(outcomes, whole)
        report.data.update(reports.runs_json(outcomes))
        report.notes.extend(reports.origins(outcomes, device.commit()))
    for table in report.tables:
        table.show(console)
    for note in report.notes:
        console.print(note, markup=False, highlight=False)
    figures = {stem.replace(name, label, 1): figure for stem, figure in report.figures.items()}
    written = reports.write(label, where.results, dataclasses.replace(report, figures=figures), provenance(name))
    console.print("written: " + ", ".join(str(path) for path in written), markup=False, highlight=False)
    for outcome in failed:
        console.print(f"FAILED: {outcome.run.name}\n{outcome.error}", markup=False, highlight=False)
    return 1 if failed or report.problems else 0


def command_line(name: str) -> None:
    """`python -m saccade.benchmarks.NAME OPTIONS`, which is `saccade bench NAME OPTIONS`."""
    import tyro

    try:
        raise SystemExit(run_benchmark(name, tyro.cli(BenchOptions, prog=f"python -m {PACKAGE}.{name}")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def labelled(name: str, env: str | None) -> str:
    """What a benchmark's files are called: its name, and the world where `env` is another than its own `ENV`."""
    return name if env in (None, getattr(_load(name), "ENV", env)) else f"{name}-{env.lower().replace('/', '-')}"


def places(name: str, out: Path | None) -> Places:
    """Where runs and results called `name` go: into `out`, else the checkout that this package runs from, else
    `runs/bench`."""
    root = Path(__file__).resolve().parents[2]
    if out is not None:
        return Places(out / "runs" / name, out)
    if (root / "pyproject.toml").exists():
        return Places(root / "runs" / "bench" / name, root / "benchmarks" / "results")
    return Places(Path("runs") / "bench" / name, Path("runs") / "bench")


def provenance(name: str) -> dict[str, Any]:
    """What a result must be told apart by: command, date, commit, machine, versions."""
    arguments = sys.argv[1:] if sys.argv[1:2] == ["bench"] else ["bench", name, *sys.argv[1:]]
    versions = device.versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it is an extra
        versions["stable-baselines3"] = importlib.metadata.version("stable-baselines3")
    machine = device.machine()
    return {
        "benchmark": name,
        "command": shlex.join(["saccade", *arguments]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": device.commit(),
        "machine": f"{machine['processor']}, {machine['cores']} cores",
        "hardware": machine,
        "versions": versions,
    }


def _run_all(
    name: str, module: ModuleType, options: BenchOptions, known: list[Run], where: Places, console: Console
) -> list[Outcome]:
    """What became of the runs that the options choose, and of others of `known` that earlier calls finished."""
    threads = options.threads or processors()

    def execute(runs: list[Run]) -> list[Outcome]:
        if options.cluster is None:
            return processes.execute(runs, where.runs, jobs=options.jobs, threads=threads, console=console)
        from .cluster_runs import execute_on_cluster

        return execute_on_cluster(
            runs, where.runs, address=options.cluster, threads=options.threads or 1, console=console
        )

    runs = chosen_runs(options.only, module.runs(options))
    if hasattr(module, "preparations"):
        first = module.preparations(options)
        first = execute(needed(first, runs) if options.only else first)
        if failed := [outcome for outcome in first if outcome.result is None]:
            raise UserError(f"{failed[0].run.name}, which runs of {name} begin with, failed: {failed[0].error}")
    place = f"{options.jobs} at once" if options.cluster is None else f"on the Ray cluster {options.cluster}"
    console.print(f"{len(runs)} runs, {place}, in {where.runs}", markup=False, highlight=False)
    try:
        return processes.and_finished(execute(runs), known, where.runs)
    except KeyboardInterrupt:
        console.print("stopped; what is done is kept. To go on, type the same command again", markup=False)
        raise


def _check_choice(name: str, module: ModuleType, options: BenchOptions) -> None:
    """Of a benchmark that measures by itself: only one that lists its `choices` heeds `--only`."""
    if options.only and not hasattr(module, "choices"):
        raise UserError(f"{name} has no settings to choose from: leave --only out")
    chosen(options.only, getattr(module, "choices", ()))


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")
