"""What the command line prints when something is done: small tables for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .matrix import Cell


def show_result(result: dict[str, Any], out: Path) -> None:
    rows = {
        "steps": f"{result['steps']:,} in {result['seconds']:,.0f} s ({result['steps_per_second']:,.0f} per second)",
        "computed on": result["compute"],
        "parameters": "{training:,} training, {frozen:,} frozen".format(**result["parameters"]),
    }
    if score := result["score"]:
        rows |= score_rows(score, result["evaluate_epsilon"])
    if (out / "curve.png").is_file():  # some episode was finished
        rows["learning curve"] = str(out / "curve.png")
    rows |= {
        "watch it": shlex.join(["tensorboard", "--logdir", str(out)]),
        "play again": shlex.join(["saccade", "evaluate", str(out)]),
    }
    show_table(f"{result['agent']} on {result['env']} through {result['encoder']}", rows)


def score_rows(score: dict[str, Any], epsilon: float) -> dict[str, str]:
    how = f"random actions {epsilon:.0%}" if epsilon else "greedy"
    mean = f"{score['mean']:,.1f}"
    if score["low"] is None:
        return {"score": f"{mean} in one episode, {how}", "95 % interval": "one episode gives none"}
    return {
        "score": f"{mean}, mean of {score['episodes']} episodes, {how}",
        "95 % interval": f"{score['low']:,.1f} to {score['high']:,.1f}",
    }


def show_table(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, show_header=False, title_justify="left", min_width=len(title))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


def show_pretrained(result: dict[str, Any], out: Path) -> None:
    speed = f"{result['seconds']:,.0f} s ({result['steps_per_second']:,.0f} examples per second)"
    rows = {
        "epochs": f"{result['epochs']:,} in {speed}",
        "computed on": result["compute"],
        "parameters": "{training:,} training, {frozen:,} frozen".format(**result["parameters"]),
    }
    for name, losses in result["losses"].items():
        parts = ", ".join(f"{part} {value:,.5g}" for part, value in losses.items() if part != "loss")
        rows[f"{name} loss"] = f"{losses['loss']:,.5g}" + (f" ({parts})" if len(losses) > 2 else "")
    data = result["data"]
    use = ["train", "dqn", "--env", data.removeprefix("env:")] if data.startswith("env:") else ["fit", data]
    rows |= {
        "watch it": shlex.join(["tensorboard", "--logdir", str(out)]),
        "judge it": shlex.join(["saccade", "probe", str(out)]),
        "use it": shlex.join(["saccade", *use, "--encoder", str(out), "--encoder-mode", "finetune"]),
    }
    show_table(f"{result['learner']} on {result['data']}", rows)


def show_fitted(result: dict[str, Any], out: Path) -> None:
    test, score = result["test"], result["score"]
    rows = {
        "epochs": f"{result['epochs']:,} in {result['seconds']:,.0f} s "
        f"({result['steps_per_second']:,.0f} examples per second)",
        "computed on": result["compute"],
        "parameters": "{training:,} training, {frozen:,} frozen".format(**result["parameters"]),
        score["what"]: f"{score['mean']:.2f}",
    }
    if "low" in test:
        asked = test.get("examples", test.get("asked"))
        rows |= {
            "validation error": f"{result['validation']['error']:.2%}",
            "test error": f"{test['error']:.2%} ({test['mistakes']:,} mistakes of {asked:,})",
            "95 % interval": f"{test['low']:.2%} to {test['high']:.2%}",
        }
    if "groups" in test:
        rows |= {f"error, {name}": f"{error:.2%}" for name, error in test["groups"].items()}
        rows["mean of these"] = f"{test['mean_of_groups']:.2%}"
    rows |= {
        "pictures": f"{out}/*.png",
        "watch it": shlex.join(["tensorboard", "--logdir", str(out)]),
    }
    show_table(f"{result['task']} through {result['encoder']}", rows)


def print_names(names: dict[str, str], indent: str = "") -> None:
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{indent}{name:{width}}  {text}".rstrip())


def print_matrix(cells: Mapping[str, Mapping[str, Cell]]) -> None:
    """Encoders down, what they read across, and the reasons why they do not."""
    rows = [["encoder", *next(iter(cells.values()))]]
    rows += [[name, *(cell.word for cell in row.values())] for name, row in cells.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    print("\nlearns: `saccade pretrain` trains it there, on recorded frames of worlds, and agents may co-train it")
    print("reads: `saccade fit` or an agent trains it; sequences step by step, so memories are what they are for")
    print("copy: other generated tasks, and pos and chunks, which are numbers too; text: babi, imdb, penn, dates,")
    print("  shakespeare, treebank, a .txt file of yours")
    for reason in dict.fromkeys(cell.reason for row in cells.values() for cell in row.values() if cell.reason):
        print(f"-: {reason}")
