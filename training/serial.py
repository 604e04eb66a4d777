"""Configurations to JSON and back: frozen dataclasses, nested, checked field by field when they come back."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ..envs.errors import UnknownNameError, UserError

T = TypeVar("T")
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # JSON has no words for them


def to_json(obj: Any) -> dict[str, Any]:
    """A dataclass instance as a dictionary that any JSON reader takes; tuples become lists, infinity "inf"."""
    return {field.name: _plain(getattr(obj, field.name)) for field in dataclasses.fields(obj)}


def from_json(cls: type[T], data: Any, name: str = "") -> T:
    """The instance of dataclass `cls` that `to_json` made `data` of. Fields that are missing take their defaults.

    Args:
        name: where `data` lies in a larger configuration, for messages.

    Raises:
        UserError: an unknown key (the nearest known one is named), or a value that does not fit its field.
    """
    if not isinstance(data, dict):
        raise UserError(f"setting {name or cls.__name__!r} must be a dictionary, not {data!r}")
    prefix = f"{name}." if name else ""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise UnknownNameError("setting", f"{prefix}{key}", [prefix + known for known in fields])
    hints = typing.get_type_hints(cls)
    values = {key: _typed(hints[key], value, prefix + key) for key, value in data.items()}
    for key, field in fields.items():
        absent = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if absent and key not in values:
            raise UserError(f"setting {prefix + key!r} is missing")
    return cls(**values)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} cannot be written as JSON")


def _typed(hint: Any, value: Any, name: str) -> Any:
    """`value` as `hint` wants it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, name)
    if origin is Literal:
        # 1 == True and 1 == 1.0, so the type counts too
        if not any(value == allowed and type(value) is type(allowed) for allowed in arguments):
            raise UnknownNameError(f"value of setting {name!r}:", str(value), map(str, arguments))
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return _tuple(arguments, value, name)
    if origin is list and isinstance(value, list):
        return [_typed(arguments[0], item, f"{name}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _typed(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type, hint), value, name)
    if hint is float and type(value) is str and value in _NON_FINITE:
        return _NON_FINITE[value]
    if hint is float and type(value) is int:
        return float(value)
    if hint is Any or type(value) is hint:  # NoneType for None; a bool is no int
        return value
    raise UserError(f"setting {name!r} must be {_words(hint)}, not {value!r}")


def _one_of(arguments: tuple[Any, ...], value: Any, name: str) -> Any:
    """The first member of a union that takes `value`."""
    errors = []
    for argument in arguments:
        try:
            return _typed(argument, value, name)
        except UserError as error:
            errors.append(error)
    if len(arguments) == 2 and type(None) in arguments:
        raise errors[arguments[0] is type(None)]  # the message of the member that is not None says more
    raise UserError(f"setting {name!r} must be {' or '.join(map(_words, arguments))}, not {value!r}")


def _tuple(arguments: tuple[Any, ...], value: list[Any] | tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise UserError(f"setting {name!r} must hold {len(arguments)} values, not {len(value)}")
    return tuple(
        _typed(hint, item, f"{name}[{i}]") for i, (hint, item) in enumerate(zip(arguments, value, strict=True))
    )


def _words(hint: Any) -> str:
    """A type as the user thinks of it."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    words |= {tuple: "a list", list: "a list", dict: "a dictionary"}
    return words.get(get_origin(hint) or hint, str(hint))
