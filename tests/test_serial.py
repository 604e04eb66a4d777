"""Configurations survive JSON, and what does not fit is named."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Literal

import pytest
from saccade.envs.errors import UserError
from saccade.envs.options import EnvOptions
from saccade.training.serial import from_json, to_json


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    sizes: tuple[int, ...] = (64, 64)
    pair: tuple[int, str] = (1, "a")


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner = Inner()
    norm: float | None = 10.0
    flag: bool = False
    mode: Literal["frozen", "finetune"] = "frozen"
    name: str = ""
    either: int | str = 0
    factors: dict[str, float] | None = None
    names: list[str] | None = None
    other: Inner | None = None


def there_and_back(value):
    text = json.dumps(to_json(value), allow_nan=False)  # strict JSON: what other readers take
    return from_json(type(value), json.loads(text))


@pytest.mark.parametrize(
    "value",
    [
        Outer(5),
        Outer(5, Inner(math.inf, (), (2, "b")), None, True, "finetune", "inf", "x", {"a": 1.5}, ["b"], Inner(0.1)),
        EnvOptions(sticky_actions=0.25, frame_skip=4, protocol="machado"),
    ],
)
def test_round_trip_is_exact(value):
    assert there_and_back(value) == value


def test_nan_and_minus_infinity_come_back():
    assert math.isnan(there_and_back(Inner(math.nan)).rate)
    assert there_and_back(Inner(-math.inf)).rate == -math.inf


def test_missing_fields_take_defaults_and_whole_numbers_serve_as_floats():
    outer = from_json(Outer, {"steps": 3, "norm": 1, "inner": {"rate": 2}})
    assert outer == Outer(3, Inner(2.0), 1.0)
    assert type(outer.inner.rate) is float
    assert type(outer.norm) is float


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stepz": 1}, "unknown setting 'stepz'; did you mean 'steps'?"),
        ({"steps": 1, "inner": {"ratte": 1}}, "unknown setting 'inner.ratte'; did you mean 'inner.rate'?"),
        ({}, "setting 'steps' is missing"),
        ({"steps": "1"}, "setting 'steps' must be a whole number, not '1'"),
        ({"steps": 1.0}, "setting 'steps' must be a whole number, not 1.0"),
        ({"steps": True}, "setting 'steps' must be a whole number, not True"),
        ({"steps": None}, "setting 'steps' must be a whole number, not None"),
        ({"steps": 1, "flag": 1}, "setting 'flag' must be true or false, not 1"),
        ({"steps": 1, "norm": "big"}, "setting 'norm' must be a number, not 'big'"),
        ({"steps": 1, "norm": True}, "setting 'norm' must be a number, not True"),
        ({"steps": 1, "name": 5}, "setting 'name' must be text, not 5"),
        ({"steps": 1, "either": 1.5}, "setting 'either' must be a whole number or text, not 1.5"),
        ({"steps": 1, "inner": 3}, "setting 'inner' must be a dictionary, not 3"),
        ({"steps": 1, "other": {"rate": "x"}}, "setting 'other.rate' must be a number, not 'x'"),
        ({"steps": 1, "inner": {"sizes": [1, "2"]}}, "setting 'inner.sizes[1]' must be a whole number, not '2'"),
        ({"steps": 1, "inner": {"sizes": 64}}, "setting 'inner.sizes' must be a list, not 64"),
        ({"steps": 1, "inner": {"pair": [1]}}, "setting 'inner.pair' must hold 2 values, not 1"),
        ({"steps": 1, "factors": {"a": "b"}}, "setting 'factors.a' must be a number, not 'b'"),
        ({"steps": 1, "names": [1]}, "setting 'names[0]' must be text, not 1"),
        ({"steps": 1, "mode": "frozzen"}, "unknown value of setting 'mode': 'frozzen'; did you mean 'frozen'?"),
        ([], "setting 'Outer' must be a dictionary, not []"),
    ],
)
def test_what_does_not_fit_is_named(data, message):
    with pytest.raises(UserError) as caught:
        from_json(Outer, data)
    assert str(caught.value) == message


def test_what_is_no_json_is_refused():
    with pytest.raises(TypeError):
        to_json(Outer(1, name=object()))  # type: ignore[arg-type]
