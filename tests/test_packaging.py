"""The root of the repository is the package: what a wheel holds, and checkouts under another name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import saccade
from saccade.encoders import list_encoders

ROOT = Path(__file__).parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
NOT_PACKAGED = ("tests",)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources in a directory whose name is no Python name."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "saccade-main", ignore=NOT_SOURCE))


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    succeed("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(checkout), cwd=folder)
    [path] = folder.glob("*.whl")
    return path


def succeed(*arguments: str, cwd: Path, pythonpath: Path | None = None) -> str:
    """Output of `python ARGUMENTS`, which must exit with 0."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    if pythonpath:
        environment["PYTHONPATH"] = str(pythonpath)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_under_its_own_name(checkout: Path, wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(checkout) for kind in ("py", "cpp") for path in checkout.glob(f"**/*.{kind}")}
    expected = {f"saccade/{path.as_posix()}" for path in modules if path.parts[0] not in (*NOT_PACKAGED, "build")}
    assert {"saccade/__init__.py", "saccade/envs/base.py", "saccade/encoders/parts/bits.cpp"} <= expected
    metadata = f"saccade-{saccade.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(metadata)} == expected


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = "import saccade, saccade.encoders as e; print(saccade.__file__); print(*e.list_encoders())"
    file, names = succeed("-c", script, cwd=tmp_path, pythonpath=tmp_path / "site").splitlines()
    assert Path(file) == tmp_path / "site" / "saccade" / "__init__.py"
    assert names.split() == list_encoders()


def test_tools_import_no_part_of_a_checkout_under_the_name_of_its_directory(checkout: Path):
    """pytest itself loads the root's `__init__`, as a nameless one: it must bring nothing with it."""
    script = """
import pathlib, sys, pytest
status = pytest.main(["tests/test_imports.py", "-k", "every_way", "-p", "no:cacheprovider"])
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
here = pathlib.Path.cwd()
print("loaded:", sorted(n for n, f in files.items() if f.startswith(str(here)) and "tests" not in f[len(str(here)) :]))
sys.exit(status)
"""
    output = succeed("-c", script, cwd=checkout)
    assert "1 passed" in output
    assert output.splitlines()[-1] in ("loaded: ['__init__']", "loaded: []")


def test_the_root_imports_nothing_until_it_is_asked():
    script = "import sys, saccade; print(sorted(n for n in sys.modules if n.startswith(('saccade.', 'torch'))))"
    assert succeed("-c", script, cwd=ROOT.parent).strip() == "[]"
    assert {"make_env", "make_encoder", "make_agent", "run"} <= set(dir(saccade))
    assert saccade.make_encoder is sys.modules["saccade.encoders"].make_encoder
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = saccade.nothing


def test_pins_are_exact_and_hold_here():
    """Every requirement is pinned, and PyTorch without a build's suffix, which no public index bears."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and "+" not in line and "@" not in line for line in lines)
    assert "torch==2.13.0" in lines
