"""NTM and DNC on generated tasks: learning curves, longer sequences than in training, and what the heads do."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.copying, or saccade bench copying")

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from .. import data
from ..data.sequences import SequenceDataset
from ..encoders import make_encoder
from ..encoders.base import Inputs
from ..encoders.dnc import DNC
from ..encoders.ntm import NTM
from ..training.bundle import Bundle, load_bundle
from ..training.fit import load_judged
from ..training.sequence_model import SequenceModel, answer
from ..training.trackers import read_lines
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number
from .parts.supervised import FitGroup, fit_runs

kind = "NTM and DNC: copying, associative recall, priority sort; longer sequences, more slots, and what the heads do"

SEEDS = 1
BOUND_20, BOUND_80, SEEDS_OF_80 = 0.01, 0.05, 3  # bit errors of copying, and how many of five seeds need the second
MORE_SLOTS = (1, 2, 4)  # times those of training
WITH_MORE_SLOTS = ("copy-ntm", "copy-dnc", "slots-dnc")
GROUPS = {
    "copy-ntm": FitGroup("NTM, copy", ("copy", "--encoder", "ntm"), seeds=5, most_threads=1),
    "copy-dnc": FitGroup("DNC, copy", ("copy", "--encoder", "dnc"), most_threads=1),
    "slots-dnc": FitGroup("DNC, 4 x 5 vectors through 10 slots", ("copy-slots", "--encoder", "dnc"), most_threads=1),
    **{
        f"{task}-{encoder}": FitGroup(f"{encoder.upper()}, {task}", (task, "--encoder", encoder), most_threads=1)
        for task in ("associative-recall", "priority-sort")
        for encoder in ("ntm", "dnc")
    },
    **{
        f"{task}-lstm": FitGroup(f"LSTM, {task}", (task, "--encoder", "lstm"), most_threads=1)
        for task in ("copy", "associative-recall", "priority-sort")
    },
}
# the longest of these runs; compiled, a step takes less time
GROUPS["priority-sort-ntm"] = GROUPS["priority-sort-ntm"]._replace(
    arguments=("priority-sort", "--encoder", "ntm", "--compile")
)


def runs(options: BenchOptions) -> list[Run]:
    return fit_runs(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    rows, found, figures = [], {}, {}
    for name, done in by_group(outcomes).items():
        if not done:
            continue
        results = [outcome.result for outcome in done if outcome.result is not None]
        errors = {group: [r["test"]["groups"][group] for r in results] for group in results[0]["test"]["groups"]}
        errors = {group: values for group, values in errors.items() if not group.startswith("as trained")}
        found[name] = {"test_bit_errors": errors, "validation": [r["validation"]["error"] for r in results]}
        by_size = "; ".join(f"{group}: {', '.join(f'{v:.2%}' for v in values)}" for group, values in errors.items())
        trained = ", ".join(f"{value:.2%}" for value in found[name]["validation"])
        minutes = statistics.median(r["seconds"] for r in results) / 60
        rows.append((GROUPS[name].label, trained, by_size, f"{results[0]['steps']:,}", number(minutes)))
        task, _, encoder = GROUPS[name].arguments[:3]
        if encoder != "lstm":
            figures[f"copying-{task}-{encoder}"] = heads_figure(done[0], task)
    title = "Wrong bits of held-out sequences, by size; several numbers are several seeds"
    columns = ("", "as trained", "by size", "sequences of training", "minutes")
    tables = [Table(title, columns, rows)]
    slots = {name: more_slots(done[0]) for name, done in by_group(outcomes).items() if name in WITH_MORE_SLOTS and done}
    if slots:
        tables.append(_slots_table(slots))
        figures["copying-slots"] = slots_figure(slots)
    figures = {"copying": curves_figure(outcomes), **figures}
    notes = [
        "Every training sequence is new. Sizes are those of NTM's paper (section 4) and DNC's (figure 1 and Methods).",
        *_verdicts(found),
    ]
    return Report(tables, notes, {"measured": found}, figures)


def curves_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Wrong bits of the validation set against sequences seen, every seed a line."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for number_, (name, done) in enumerate(by_group(outcomes).items()):
        for outcome in done:
            records = [r for r in read_lines(outcome.folder / "metrics.jsonl") if "validation/error" in r]
            x, y = [r["step"] for r in records], [max(r["validation/error"], 1e-5) for r in records]
            label = GROUPS[name].label if outcome is done[0] else None
            axes.plot(x, y, label=label, color=f"C{number_}", linewidth=1.2)
    axes.set(
        yscale="log", xlabel="sequences", ylabel="wrong bits (1e-5: none)", title="validation, sizes as in training"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def heads_figure(outcome: Outcome, task: str) -> Figure:
    """What is shown and where the heads write and read, of a test sequence; of a DNC its gates and usage, too."""
    encoder, dataset = load_bundle(outcome.folder).encoder, data.load(task)
    assert isinstance(encoder, NTM | DNC)
    assert isinstance(dataset, SequenceDataset)
    first = dataset.test.take(torch.tensor([0]))
    record: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        encoder(Inputs(first["x"].transpose(0, 1)), encoder.initial_state(1), record=record)
    seen = {name: torch.stack(values)[:, 0].flatten(1).T.numpy() for name, values in record.items()}
    heads = {"shown": first["x"][0].T.numpy()}
    for name in ("write_weights", "read_weights", "usage"):
        if name in seen:  # heads one above the other
            heads[name.replace("_", " ")] = seen[name]
    gates = {name: seen[name] for name in ("allocation_gate", "write_gate", "free_gates") if name in seen}
    count = len(heads) + bool(gates)
    figure = Figure(figsize=(8, 1.7 * count), dpi=90, layout="constrained")
    panels = figure.subplots(count, 1, sharex=True)
    for axes, (name, values) in zip(panels, heads.items(), strict=False):
        used = values.max(1) > 0.05
        shown = values if name == "shown" else values[used] if used.any() else values[:1]
        axes.imshow(shown, aspect="auto", cmap="magma", vmin=0, vmax=max(1.0, float(values.max())))
        axes.set_ylabel(name if name == "shown" else f"{name}\n(slots in use)", fontsize=8)
        axes.set_yticks([])
    if gates:
        for name, values in gates.items():
            panels[-1].plot(values.mean(0), label=name.replace("_", " "), linewidth=1)
        panels[-1].set_ylim(-0.05, 1.05)
        panels[-1].legend(fontsize=7, loc="upper right")
    panels[-1].set_xlabel("step")
    panels[0].set_title(f"{GROUPS[outcome.run.group].label}: a sequence of the test set", fontsize=9)
    return figure


class MoreSlots(NamedTuple):
    """Wrong bits of a trained net with so many times its slots, without any further training."""

    trained: float  # at sizes as in training
    groups: dict[str, float]  # by size of the test


def more_slots(outcome: Outcome) -> dict[int, MoreSlots]:
    """By the factor of the slots."""
    dataset = data.load(GROUPS[outcome.run.group].arguments[0])
    assert isinstance(dataset, SequenceDataset)
    found = {}
    for factor in MORE_SLOTS:
        model = model_with_slots(load_bundle(outcome.folder), dataset, factor)
        load_judged(outcome.folder, model)
        report = answer(model, dataset.test).report(dataset.test, dataset.groups)
        trained = answer(model, dataset.validation)
        groups = {name: error for name, error in report["groups"].items() if not name.startswith("as trained")}
        found[factor] = MoreSlots(float(trained.wrong.sum() / trained.asked.sum()), groups)
    return found


def _slots_table(slots: dict[str, dict[int, MoreSlots]]) -> Table:
    rows = [
        (GROUPS[name].label, *(f"{one.trained:.2%}" for one in by_factor.values())) for name, by_factor in slots.items()
    ]
    columns = ("", *(f"{factor} x the slots" for factor in MORE_SLOTS))
    return Table("Wrong bits at sizes as in training, with more slots and no further training", columns, rows)


def slots_figure(slots: dict[str, dict[int, MoreSlots]]) -> Figure:
    """Wrong bits by size of the test, a line for each number of slots."""
    figure = Figure(figsize=(4 * len(slots), 3.6), layout="constrained")
    for axes, (name, by_factor) in zip(figure.subplots(1, len(slots), squeeze=False)[0], slots.items(), strict=True):
        for factor, one in by_factor.items():
            label = "as trained" if factor == 1 else f"{factor} x the slots"
            axes.plot(list(map(int, one.groups)), [100 * e for e in one.groups.values()], marker="o", label=label)
        axes.set(title=GROUPS[name].label, ylabel="wrong bits, %", ylim=(-2, 52))
        axes.set_xlabel("episodes" if name == "slots-dnc" else "vectors to copy")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle("more slots, no further training")
    return figure


def model_with_slots(bundle: Bundle, dataset: SequenceDataset, factor: int) -> SequenceModel:
    """A new model around the bundle's kind of encoder with `factor` times its slots."""
    config: Any = dataclasses.replace(bundle.config, slots=bundle.config.slots * factor)
    encoder = make_encoder(bundle.name, dataset.spec, config)
    return SequenceModel(encoder, dataset.outputs, asks_bits=dataset.asks_bits)


def _verdicts(found: dict[str, Any]) -> list[str]:
    if "copy-ntm" not in found:
        return []
    errors = found["copy-ntm"]["test_bit_errors"]
    at_20, at_80 = np.array(errors["20"]), np.array(errors["80"])
    good, far = int((at_20 <= BOUND_20).sum()), int((at_80 <= BOUND_80).sum())
    return [
        f"NTM's copying: {good} of {len(at_20)} seeds within {BOUND_20:.0%} wrong bits at length 20 (bound: all); "
        f"{far} within {BOUND_80:.0%} at 80 (bound: {SEEDS_OF_80} of 5)."
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("copying")
