"""A trained encoder as a directory that anyone may load: what it is, its weights, and a card that says where from.

`bundle.json` holds the encoder's name, configuration and observations, the card, and the checksum of
`encoder.safetensors` (parameters and persistent buffers); `card.md` is the card for people. Nothing is unpickled, and a
bundle names built-in encoders only: the user's own must be named again by whoever loads it. `bundle/` inside a run
directory counts as the run directory's bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch

from ..encoders import find_encoder
from ..encoders.base import Encoder
from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .serial import from_json, to_json

FORMAT = "saccade-bundle"
VERSION = 1
FOLDER = "bundle"  # inside a run directory
DESCRIPTION_FILE, WEIGHTS_FILE, CARD_FILE = "bundle.json", "encoder.safetensors", "card.md"


class Bundle(NamedTuple):
    """A trained encoder, in eval mode on the CPU."""

    name: str
    config: Any
    spec: ObservationSpec  # what it was trained to read
    encoder: Encoder
    card: dict[str, Any]


@dataclass(frozen=True)
class _Weights:
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class _Description:
    """`bundle.json`."""

    format: str
    version: int
    encoder: str
    config: dict[str, Any]
    spec: ObservationSpec
    weights: _Weights
    card: dict[str, Any] = field(default_factory=dict)


def save_bundle(
    directory: Path,
    encoder_name: str,
    encoder_config: Any,
    spec: ObservationSpec,
    encoder: Encoder,
    card: Mapping[str, Any],
) -> None:
    """Write a bundle, all of it or nothing; one that is there already is replaced.

    Args:
        card: plain values by title, in the order people read them; nested dictionaries become sections.

    Raises:
        UserError: it cannot be written, or `directory` holds something else.
    """
    directory = Path(directory).resolve()
    if directory.exists() and not (directory / DESCRIPTION_FILE).is_file():
        raise UserError(f"{directory} exists and is no bundle; choose another place")
    # clones: tied weights share memory, which the format does not know
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.state_dict().items()}
    data = safetensors.torch.save(tensors)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": encoder_name,
        "config": to_json(encoder_config),
        "spec": to_json(spec),
        "weights": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "card": dict(card),
    }
    temporary = directory.with_name(f".saving-{directory.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        (temporary / WEIGHTS_FILE).write_bytes(data)
        (temporary / CARD_FILE).write_text(_markdown(encoder_name, spec, card), encoding="utf-8")
        (temporary / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        _replace(temporary, directory)
    except OSError as error:
        raise UserError(f"cannot write bundle {directory}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_bundle(directory: Path | str) -> bool:
    """Whether `directory` is a bundle, damaged or not, or a run directory that holds one."""
    return any((path / DESCRIPTION_FILE).is_file() for path in _places(Path(directory)))


def load_bundle(directory: Path | str, user_encoder: str | None = None) -> Bundle:
    """The bundle in `directory`, or in `bundle/` inside it. torch's generator is left as it was.

    Args:
        user_encoder: the user's own encoder, a file or module, if the bundle was made with one.

    Raises:
        UserError: no bundle there, or it is damaged, foreign, of a newer format, or of a user's encoder that was not
            named.
    """
    given, directory = Path(directory), locate(Path(directory))
    try:
        description = _describe(directory)
        weights = _weights(directory, description)
        entry = find_encoder(user_encoder or description.encoder, user=user_encoder is not None)
        config = from_json(entry.Config, description.config, "config")
        with torch.random.fork_rng(devices=[]):
            encoder = entry.build(config, description.spec)
        encoder.load_state_dict(weights)
    except UserError as error:
        raise UserError(f"bundle {given}: {error}") from error
    except (KeyError, RuntimeError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"bundle {given} does not fit its encoder: {error}") from error
    return Bundle(user_encoder or description.encoder, config, description.spec, encoder.eval(), description.card)


def read_card(directory: Path | str) -> dict[str, Any]:
    """The card alone, without its weights. Raises UserError as `load_bundle`."""
    return _describe(locate(Path(directory))).card


def _places(directory: Path) -> tuple[Path, Path]:
    return directory, directory / FOLDER


def locate(directory: Path | str) -> Path:
    """The folder of the bundle itself: `directory`, or `bundle/` inside it. Raises UserError where there is none."""
    directory = Path(directory)
    for path in _places(directory):
        if (path / DESCRIPTION_FILE).is_file():
            return path
    if not directory.exists():
        raise UserError(f"there is no bundle {directory}: no such directory")
    raise UserError(
        f"{directory} is no bundle: it has no {DESCRIPTION_FILE}; `saccade pretrain` makes one when it is through"
    )


def _describe(directory: Path) -> _Description:
    path = directory / DESCRIPTION_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"it is damaged: {DESCRIPTION_FILE} cannot be read ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or type(data.get("version")) is not int:
        raise UserError(f"its {DESCRIPTION_FILE} is not saccade's")
    if data["version"] > VERSION:
        raise UserError(
            f"it is of format {data['version']}, written by a newer saccade; this one reads up to {VERSION}: "
            "upgrade saccade"
        )
    return from_json(_Description, data)


def _weights(directory: Path, description: _Description) -> dict[str, torch.Tensor]:
    try:
        data = (directory / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise UserError(f"it is damaged: {WEIGHTS_FILE} cannot be read ({error.strerror})") from error
    if len(data) != description.weights.size:
        raise UserError(
            f"it is damaged: {WEIGHTS_FILE} has {len(data):,} bytes instead of {description.weights.size:,}"
        )
    if hashlib.sha256(data).hexdigest() != description.weights.sha256:
        raise UserError(f"it is damaged: the checksum of {WEIGHTS_FILE} is wrong")
    return safetensors.torch.load(data)


def _replace(source: Path, target: Path) -> None:
    """Rename a directory over another one, which is moved aside first and removed last."""
    old = target.with_name(f".old-{target.name}-{os.getpid()}")
    if target.exists():
        target.rename(old)
    try:
        source.rename(target)
    except OSError:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _markdown(name: str, spec: ObservationSpec, card: Mapping[str, Any]) -> str:
    lines = [f"# {name}", "", f"A trained encoder for observations `{spec.describe()}`.", ""]
    plain = {title: value for title, value in card.items() if not isinstance(value, Mapping)}
    lines += _rows(plain)
    for title, value in card.items():
        if isinstance(value, Mapping):
            lines += [f"## {title}", "", *_rows(value)]
    return "\n".join(lines)


def _rows(values: Mapping[str, Any]) -> list[str]:
    rows = [f"- {title}: {_text(value)}" for title, value in values.items() if value is not None]
    return [*rows, ""] if rows else []


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{title} {_text(item)}" for title, item in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
