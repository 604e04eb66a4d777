"""The benchmark of the DNC's speed, tiny, with a stand-in where the other package is not installed."""

from __future__ import annotations

import importlib.util

import pytest
from saccade.benchmarks import BenchOptions, dnc_speed
from saccade.benchmarks.parts.interleave import Speed
from saccade.envs.errors import UserError

TINY = dnc_speed.Sizes(words=5, hidden=8, slots=6, width=4, heads=2, batch=2, length=3)


def test_our_side_trains():
    advance = dnc_speed.our_side(TINY, threads=1)
    assert advance(1) == 6
    assert advance(14) == 12


@pytest.mark.skipif(importlib.util.find_spec("dnc") is None, reason=dnc_speed.MISSING)
def test_both_sides_by_turns():
    speeds = dnc_speed.compare(TINY, 1, rounds=2, seconds=0.05)
    assert speeds.keys() == {"saccade", "dnc"}
    assert all(speed.low > 0 for speed in speeds.values())


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps dnc"):
        dnc_speed.measure(BenchOptions(rounds=2, slice_seconds=0.01))


def test_report():
    speeds = {"saccade": Speed.of([900.0, 1000.0, 1100.0]), "dnc": Speed.of([190.0, 200.0, 210.0])}
    report = dnc_speed.report_on(speeds, dnc_speed.Sizes(), 2)
    assert report.data["ratio"] == 5
    assert [row[1] for row in report.tables[0].rows] == ["1,000", "200.0"]
