"""Episodes are summed up right, and what is logged can be read back."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.console import Console as Screen
from saccade.envs.base import Step
from saccade.envs.errors import UserError
from saccade.training.plots import learning_curve, smooth
from saccade.training.trackers import (
    Console,
    Episode,
    EpisodeStatistics,
    JsonLines,
    Meter,
    TensorBoard,
    format_seconds,
    read_lines,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def make_step(env_index, reward, terminated=None, truncated=None, valid=None) -> Step:
    count = len(env_index)
    no, yes = np.zeros(count, bool), np.ones(count, bool)
    zeros = np.zeros(count, np.float32)
    flags = [no if flag is None else np.array(flag, bool) for flag in (terminated, truncated)]
    obs = np.zeros((count, 1), np.float32)
    return Step(
        env_index=np.array(env_index),
        obs=obs,
        action=np.zeros(count, np.int64),
        extras={},
        reward=np.array(reward, np.float32),
        terminated=flags[0],
        truncated=flags[1],
        discount=zeros,
        next_obs=obs,
        reset=no,
        valid=yes if valid is None else np.array(valid, bool),
    )


def test_episodes_by_hand():
    statistics = EpisodeStatistics(3)
    assert statistics.update(make_step([0, 1, 2], [1, 2, 3])) == []
    assert statistics.update(make_step([2, 0], [10, 0.5], truncated=[1, 0])) == [Episode(2, 13.0, 2)]
    # rows that are not valid count neither as steps nor as rewards nor as ends
    ends = make_step([0, 1, 2], [1, 5, 100], terminated=[1, 1, 1], valid=[1, 1, 0])
    assert statistics.update(ends) == [Episode(0, 2.5, 3), Episode(1, 7.0, 2)]
    assert statistics.update(make_step([1, 2], [4, 6], terminated=[1, 1])) == [Episode(1, 4.0, 1), Episode(2, 6.0, 1)]


def test_long_scores_do_not_lose_small_rewards():
    statistics = EpisodeStatistics(1)
    statistics.update(make_step([0], [2.0**25]))  # beyond this float32 cannot count by ones
    for _ in range(9):
        statistics.update(make_step([0], [1]))
    assert statistics.update(make_step([0], [1], terminated=[1])) == [Episode(0, 2.0**25 + 10, 11)]


def test_statistics_go_on_or_begin_anew():
    first, second = EpisodeStatistics(2), EpisodeStatistics(2)
    first.update(make_step([0, 1], [1, 2]))
    saved = json.loads(json.dumps(first.state_dict()))
    first.update(make_step([0, 1], [100, 100]))
    second.load_state_dict(saved)
    last = make_step([0, 1], [1, 1], terminated=[1, 1])
    assert second.update(last) == [Episode(0, 2.0, 2), Episode(1, 3.0, 2)]
    first.interrupt()
    assert first.update(last) == [Episode(0, 1.0, 1), Episode(1, 1.0, 1)]


def test_meter_means_what_came_since_the_last_reading():
    meter = Meter(most=3)
    for value in (1.0, 2.0, 3.0, 7.0):  # the first falls out
        meter.add({"loss/q": torch.tensor(value), "number": value})
    meter.add({"number": torch.tensor(14, dtype=torch.int64), "other": torch.tensor([2.0], dtype=torch.bfloat16)[0]})
    assert meter.read() == {"loss/q": 4.0, "number": 8.0, "other": 2.0}
    assert meter.read() == {}
    meter.add({"other": math.inf})
    assert math.isnan(meter.read()["other"])


def test_lines_are_readable_at_once_and_strict_json(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.log(10, 0.12345, {"loss/q": 0.5, "broken": math.nan})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 10, "seconds": 0.123, "loss/q": 0.5, "broken": null}\n'
    lines.close()


def test_resuming_drops_what_was_logged_beyond(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    for step in (10, 20, 30):
        lines.log(step, step / 10, {"x": step})
    lines.close()
    with path.open("a") as file:
        file.write('{"step": 15, "unfin')  # killed in mid-line
    lines = JsonLines(path, resume_step=20)
    lines.log(25, 2.5, {"x": 1})
    lines.close()
    assert [line["step"] for line in read_lines(path)] == [10, 20, 25]
    assert path.read_text().count("\n") == 3
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_new_run_begins_a_new_file(tmp_path):
    for _ in range(2):
        lines = JsonLines(tmp_path / "metrics.jsonl")
        lines.log(1, 0, {})
        lines.close()
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 1
    JsonLines(tmp_path / "other.jsonl", resume_step=5).close()
    assert read_lines(tmp_path / "other.jsonl") == []


@pytest.mark.parametrize("kind", ["JsonLines", "TensorBoard"])
def test_a_full_disk_is_the_users_to_mend(tmp_path, kind):
    code = (
        "import resource, sys; from pathlib import Path; from saccade.envs.errors import UserError;"
        f"from saccade.training.trackers import {kind} as Kind;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000));"
        "tracker = Kind(Path(sys.argv[1]))\n"
        "try:\n"
        "    while True: tracker.log(1, 1.0, {'x' * 100: 2.0})\n"
        "except UserError as error: print(error)\n"
        "tracker.close()"
    )
    place = tmp_path / "metrics.jsonl" if kind == "JsonLines" else tmp_path
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith(f"cannot write {tmp_path}")
    assert done.stdout.endswith(": File too large\n")


def test_tensorboard_shows_no_point_twice_after_resuming(tmp_path):
    for resume, steps in ((None, (1, 2, 3)), (2, (3, 4))):
        board = TensorBoard(tmp_path, resume)
        for step in steps:
            board.log(step, 0.0, {"episode/score": step * 10 + (resume or 0)})
        board.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    points = [(event.step, event.value) for event in read.Scalars("episode/score")]
    assert points == [(1, 10), (2, 20), (3, 32), (4, 42)]


def console(terminal: bool, **settings) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    screen = Screen(file=out, force_terminal=terminal, width=100, _environ={})
    return Console(10_000, screen, **settings), out


def test_console_without_a_terminal_prints_a_line_now_and_then():
    tracker, out = console(False, interval_seconds=30)
    tracker.log(0, 0.0, {})
    for second in range(1, 62):
        tracker.log(100 * second, second, {"episode/score": second})
    tracker.close()
    lines = out.getvalue().splitlines()
    assert lines[:2] == [
        "3,000 of 10,000 steps  100 steps/s  1:10 left  score 30.0",
        "6,000 of 10,000 steps  100 steps/s  0:40 left  score 60.0",
    ]
    assert lines[2].startswith("6,100 of 10,000")  # the last one is always there
    assert len(lines) == 3


def test_console_measures_a_resumed_run_from_where_it_began():
    tracker, out = console(False)
    tracker.log(5_000, 100.0, {})
    tracker.log(5_100, 101.0, {})
    tracker.close()
    assert "5,100 of 10,000 steps  100 steps/s  0:49 left" in out.getvalue()


def test_console_draws_a_bar_in_a_terminal():
    tracker, out = console(True)
    tracker.log(0, 0.0, {})
    tracker.log(5_000, 10.0, {"episode/score": 7.25})
    tracker.close()
    assert "5,000 of 10,000 steps  500 steps/s  0:10 left  score 7.2" in out.getvalue()
    assert "━" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (360000, "100:00:00"), (-3, "0:00"), (math.inf, "-:--")],
)
def test_time_left(seconds, text):
    assert format_seconds(seconds) == text


def test_smoothing_is_the_mean_of_the_last_few():
    values = np.random.default_rng(0).normal(size=50)
    naive = [values[max(0, i - 6) : i + 1].mean() for i in range(50)]
    np.testing.assert_allclose(smooth(values, 7), naive, atol=1e-12)


def test_learning_curve_is_a_small_picture(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for i, noise in enumerate(np.random.default_rng(0).normal(size=5_000)):
        lines.log(i * 300, i, {"episode/score": 100 * math.tanh(i / 2_000) + 20 * noise})
        lines.log(i * 300 + 1, i, {"loss/q": math.nan})
    lines.close()
    (tmp_path / "config.json").write_text('{"agent": "dqn", "env": "CartPole-v1", "encoder": "mlp"}')
    path = learning_curve(tmp_path)
    data = path.read_bytes()
    assert path == tmp_path / "curve.png"
    assert data.startswith(b"\x89PNG")
    assert 10_000 < len(data) < 100_000
    assert int.from_bytes(data[16:20]) == 700  # width in pixels


def test_a_curve_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        learning_curve(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds": 0}\n')
    with pytest.raises(UserError, match="no episode was finished"):
        learning_curve(tmp_path)
