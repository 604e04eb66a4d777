"""Imports point one way: envs, data <- encoders <- agents <- training <- benchmarks <- __main__."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from saccade.encoders import list_encoders

ROOT = Path(__file__).parent.parent
LAYERS = ["envs", "data", "encoders", "agents", "training", "benchmarks", "__main__"]  # each may import those before it
MODULES = sorted([*ROOT.glob("*.py"), *(path for layer in LAYERS for path in (ROOT / layer).glob("**/*.py"))])
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
AGENTS = [path for path in MODULES if path.relative_to(ROOT).parts[0] == "agents"]


def imports(source: str, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What `source`, a module of `package`, imports of saccade: dotted parts, without saccade's own name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - (node.level - 1)]
            elif module[0] == "saccade":
                base, module = (), module[1:]
            else:
                continue
            yield from ((*base, *module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "saccade")


def imported(path: Path) -> list[tuple[str, ...]]:
    return list(imports(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parent.parts))


def test_every_way_to_import_is_seen():
    source = """
from ...envs.base import Step, Outcome
from . import returns
from ..base import Agent
from saccade.training import loop
import saccade.data.mnist, os
def f():
    from ... import encoders
"""
    assert set(imports(source, ("agents", "parts"))) == {
        ("envs", "base", "Step"),
        ("envs", "base", "Outcome"),
        ("agents", "parts", "returns"),
        ("agents", "base", "Agent"),
        ("training", "loop"),
        ("data", "mnist"),
        ("encoders",),
    }


@every_module
def test_imports_point_one_way(path: Path):
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = LAYERS[: LAYERS.index(layer) + 1] if layer in LAYERS else []  # the root itself imports nothing
    for target in imported(path):
        if target == ("__version__",):
            continue
        assert target[0] in allowed, f"{path.relative_to(ROOT)} may not import {'.'.join(target)}"


@every_module
def test_code_inside_imports_relatively(path: Path):
    """So that it works, and means itself, under any name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert not [name for name in names if name.split(".")[0] in ("saccade", *LAYERS)]


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_agents_name_no_encoder(path: Path):
    """Neither in an import, nor as a string that could be compared with a name."""
    for target in imported(path):
        if target[0] == "encoders":
            assert target[1] in ("base", "parts"), f"{path.relative_to(ROOT)} imports {'.'.join(target)}"
    strings = {n.value for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Constant)}
    assert not strings & set(list_encoders())


@every_module
def test_no_file_bears_a_name_of_the_standard_library(path: Path):
    """Running such a file by its path would hide the standard module from everything that it imports."""
    names = {part.removesuffix(".py") for part in path.relative_to(ROOT).parts} - {"__init__", "__main__"}
    assert not names & set(sys.stdlib_module_names)
