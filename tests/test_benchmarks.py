"""The benchmark runner, its statistics and files, the peer's settings, and what each benchmark asks for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from saccade.benchmarks import (
    BenchOptions,
    breakout,
    cartpole,
    exploration,
    list_benchmarks,
    pendulum,
    pong,
    replay,
    run_benchmark,
    throughput,
)
from saccade.benchmarks.parts import interleave, ours, peer_sb3, runner
from saccade.benchmarks.parts import report as reports
from saccade.benchmarks.parts.interleave import Elsewhere, alternate, timed
from saccade.benchmarks.parts.plan import Outcome, Run, chosen, chosen_runs, needed
from saccade.benchmarks.parts.processes import execute, log_file
from saccade.benchmarks.parts.report import BINS, Report, Table, curve_figure, interquartile_mean, training_curve, write
from saccade.encoders.base import count_parameters
from saccade.envs.errors import UnknownNameError, UserError
from saccade.training.arguments import Request, parse_train
from saccade.training.device import keep_freed_memory
from saccade.training.plan import default_plan
from saccade.training.trackers import read_lines

ROOT = Path(__file__).parent.parent
SUITES = {
    "cartpole": cartpole,
    "pendulum": pendulum,
    "exploration": exploration,
    "breakout": breakout,
    "pong": pong,
}
TINY = ("saccade", "train", "dqn", "--env", "CartPole-v1", "--steps", "300", "--evaluate-episodes", "2")

# Stands in for a training program where only the runner is tested: it leaves a checkpoint, then does as it is told.
STAND_IN = """
import json, pathlib, signal, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
(out / "checkpoint" / "step-000000000001").mkdir(parents=True, exist_ok="--resume" in sys.argv)
if "--stay" in sys.argv:
    signal.signal(signal.SIGINT, lambda *_: ((out / "saved").touch(), sys.exit(130)))
    (out / "started").touch()
    time.sleep(60)
if "--fail" in sys.argv:
    print("first line"); sys.exit("what went wrong")
score = {"mean": float(sys.argv[sys.argv.index("--seed") + 1])}
(out / "result.json").write_text(json.dumps({"score": score, "steps": 1, "seconds": 1, "argv": sys.argv[1:]}))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "stand_in_for_training.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    return "stand_in_for_training"


def test_a_failing_run_does_not_lose_the_others(stand_in, tmp_path):
    runs = [Run("a", 0, (stand_in,)), Run("b", 0, (stand_in, "--fail")), Run("a", 1, (stand_in,))]
    outcomes = execute(runs, tmp_path / "runs", jobs=2, threads=4)
    assert [outcome.run.name for outcome in outcomes] == ["a-seed0", "b-seed0", "a-seed1"]
    assert [outcome.result and outcome.result["score"]["mean"] for outcome in outcomes] == [0, None, 1]
    assert outcomes[1].error == "first line\nwhat went wrong\nexit status 1"
    assert outcomes[2].result["argv"] == ["--seed", "1", "--threads", "2", "--out", str(tmp_path / "runs" / "a-seed1")]


def test_what_is_done_is_kept_and_what_was_begun_is_continued(stand_in, tmp_path):
    runs = [Run("a", seed, (stand_in,)) for seed in range(3)]
    folder = tmp_path / "runs"
    first = execute(runs, folder, jobs=3, threads=1)
    assert all("--resume" not in outcome.result["argv"] for outcome in first)
    (folder / "a-seed0" / "result.json").write_text('{"score": {"mean": 7}}')  # would be overwritten if it ran again
    (folder / "a-seed1" / "result.json").unlink()  # has a checkpoint
    (folder / "a-seed2" / "result.json").unlink()
    (folder / "a-seed2" / "checkpoint" / "step-000000000001").rmdir()  # stopped before it saved
    (folder / "a-seed2" / "stale").touch()
    kept, continued, restarted = execute(runs, folder, jobs=3, threads=1)
    assert kept.result == {"score": {"mean": 7}}
    assert "--resume" in continued.result["argv"]
    assert "--resume" not in restarted.result["argv"]
    assert not (folder / "a-seed2" / "stale").exists()


def test_a_directory_with_other_settings_is_refused(stand_in, tmp_path):
    execute([Run("a", 0, (stand_in,))], tmp_path / "runs", jobs=1, threads=1)
    with pytest.raises(UserError, match="a-seed0 holds a run with other settings: delete it, or choose another --out"):
        execute([Run("a", 0, (stand_in, "--fail"))], tmp_path / "runs", jobs=1, threads=1)
    with pytest.raises(UserError, match="share a name"):
        execute([Run("a", 0, (stand_in,))] * 2, tmp_path / "other", jobs=1, threads=1)


def test_files_bear_the_world_where_it_is_not_the_benchmarks_own():
    assert runner.labelled("representations", None) == "representations"
    assert runner.labelled("representations", "pixels/CartPole-v1") == "representations"
    assert runner.labelled("representations", "ALE/Breakout-v5") == "representations-ale-breakout-v5"
    assert runner.labelled("memory", "diagnostic/recall-50") == "memory"  # one report of all its worlds


def test_a_report_of_several_calls_says_where_each_run_comes_from():
    def outcome(group: str, commit: str, threads: int) -> Outcome:
        result = {"commit": commit, "machine": {"processor": "P"}, "threads": threads}
        return Outcome(Run(group, 0, ()), Path(), result, "")

    one, two, three = outcome("a", "1", 1), outcome("b", "2", 2), outcome("c", "1", 1)
    again = one._replace(run=Run("a", 1, ()), result=two.result)
    assert reports.origins([one, three], "1") == []
    assert reports.origins([one, three], "2") == ["Where the runs are from: a, c at `1` on P, 1 thread."]
    assert reports.origins([one, two, three, again], "1") == [
        "Where the runs are from: a (seeds 0), c at `1` on P, 1 thread; b, a (seeds 1) at `2` on P, 2 threads."
    ]
    assert reports.origins([one, Outcome(Run("d", 0, ()), Path(), None, "failed")], "1") == []


def test_ending_the_runner_lets_its_runs_save(stand_in, tmp_path):
    folder = tmp_path / "runs" / "a-seed0"

    def terminate() -> None:
        while not (folder / "started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        execute([Run("a", 0, (stand_in, "--stay"))], tmp_path / "runs", jobs=1, threads=1)
    assert (folder / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_real_runs_good_bad_and_continued(tmp_path):
    bad = Run("bad", 0, ("saccade", "train", "dqn", "--env", "CartPool-v1"))
    good = Run("good", 3, TINY, steps=300, most_threads=1)
    done, failed = execute([good, bad], tmp_path, jobs=2, threads=2)
    assert "did you mean 'CartPole-v1'" in failed.error
    assert (done.result["steps"], done.result["seed"], done.result["threads"]) == (300, 3, 1)
    assert len(done.result["score"]["scores"]) == 2
    (done.folder / "result.json").unlink()
    (again,) = execute([good], tmp_path, jobs=1, threads=1)
    assert again.result["score"] == done.result["score"]
    assert "going on with" in log_file(again.folder).read_text()


def test_interquartile_mean_by_hand():
    assert interquartile_mean([0, 1, 2, 3, 1000]).value == 2  # one of five is cut at each end
    assert interquartile_mean([8, 1, 7, 2, 6, 3, 5, 4]).value == 4.5
    assert interquartile_mean([5.0] * 4) == (5, 5, 5)
    assert interquartile_mean([3.0]) == (3, 3, 3)


def test_intervals_against_every_possible_resample():
    scores = [10.0, 20.0, 30.0, 40.0, 70.0]
    resampled = np.sort(list(itertools.product(scores, repeat=5)), axis=1)[:, 1:4].mean(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    estimate = interquartile_mean(scores)
    assert estimate.low == pytest.approx(low, abs=10 / 3)  # resampled means lie 10/3 apart or less
    assert estimate.high == pytest.approx(high, abs=10 / 3)


def test_curves_are_estimated_point_by_point_and_repeatably():
    curves = np.random.default_rng(0).normal(size=(5, 3))
    np.random.seed(3)  # noqa: NPY002 what a user of the global generator has set must not change
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    estimate = interquartile_mean(curves)
    assert np.random.random() == expected  # noqa: NPY002
    np.testing.assert_allclose(estimate.value, np.sort(curves, 0)[1:4].mean(0))
    assert estimate.low.shape == (3,)
    assert (estimate.low < estimate.value).all()
    assert (estimate.value < estimate.high).all()
    np.testing.assert_array_equal(interquartile_mean(curves).high, estimate.high)


def test_training_curve_by_hand(tmp_path):
    lines = [
        {"step": 0, "episode/score": 2},
        {"step": 1, "episode/score": 4},  # the same fiftieth of 100 steps: their mean
        {"step": 30, "loss/q": 1.0},
        {"step": 40, "episode/score": None},
        {"step": 80, "episode/score": 43},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 90, "episode/sc'
    (tmp_path / "metrics.jsonl").write_text(text)
    curve = training_curve(tmp_path, 100)
    assert curve.shape == (BINS,) == (50,)
    assert (curve[0], curve[20], curve[40], curve[49]) == (3, 23, 43, 43)


def test_files_of_a_report(tmp_path):
    table = Table("A | title", ("name", "value"), [("a|b", "1"), ("c", "2")])
    curves = {"one": np.random.default_rng(0).normal(size=(5, BINS)), "two": np.zeros((5, BINS))}
    data = {"runs": [{"x": np.float32(1.5)}, {"x": float("nan")}], "array": np.arange(2), "path": Path("p")}
    report = Report([table], ["A note."], data, {"curve": curve_figure(curves, 1000, "title")})
    provenance = {
        "command": "saccade bench x",
        "date": "today",
        "commit": "abc",
        "machine": "m",
        "versions": {"v": "1"},
    }
    written = write("x", tmp_path, report, provenance)
    assert [path.name for path in written] == ["x.md", "x.json", "curve.png"]
    loaded = json.loads((tmp_path / "x.json").read_text())
    assert loaded == provenance | {"runs": [{"x": 1.5}, {"x": None}], "array": [0, 1], "path": "p"}
    text = (tmp_path / "x.md").read_text()
    assert "| name | value |\n| --- | --- |\n| a\\|b | 1 |\n| c | 2 |\n" in text
    for part in ("`saccade bench x`", "![curve](curve.png)", "A note.", "commit `abc` on m; v 1."):
        assert part in text
    png = (tmp_path / "curve.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) < 300_000


def request_of(run: Run) -> Request:
    """What `saccade train` understands of the command of `run`."""
    program, command, agent, *words = run.command(Path("out"), 2)[2:]
    assert (program, command) == ("saccade", "train")
    return parse_train(agent, words)


@pytest.mark.parametrize("name", SUITES)
def test_every_command_of_a_suite_can_be_parsed(name):
    runs = SUITES[name].runs(BenchOptions(seeds=2, steps=1234, against="sb3"))
    assert len({run.name for run in runs}) == len(runs)
    ours_alone = [run for run in runs if run.arguments[0] == "saccade"]
    assert len(ours_alone) == len(runs) - 2 * (name == "cartpole")
    for run in ours_alone:
        request = request_of(run)
        assert (request.plan.run.steps, request.plan.run.seed, request.out) == (1234, run.seed, Path("out"))


def test_settings_of_the_suites():
    plans = {run.group: request_of(run).plan for s in (cartpole, exploration) for run in s.runs(BenchOptions(seeds=1))}
    assert plans["dqn"].run.steps == 50_000
    assert plans["reinforce"].run.steps == 300_000
    assert plans["reinforce"].agent_config.baseline != "none"
    book = plans["reinforce-book"]
    assert (book.encoder_config.hidden, book.agent_config.baseline) == ((16, 16), "none")
    assert (book.agent_config.learning_rate, book.agent_config.discount) == (1e-3, 0.98)
    assert (book.agent_config.episodes_per_update, book.agent_config.normalise_returns) == (8, False)
    configs = [plans[name].agent_config for name in exploration.SETTINGS]
    epsilons = [(config.epsilon_initial, config.epsilon_final) for config in configs]
    constant, annealed = [(e, e) for e in (0, 0.05, 0.25, 0.5, 0.9)], [(e, 0.001) for e in (1, 0.5, 0.25)]
    assert epsilons == constant + annealed


@pytest.mark.parametrize("name", SUITES)
def test_reports_of_the_suites(name, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "REPETITIONS", 200)
    options = BenchOptions(seeds=3, steps=100, against="sb3" if name == "cartpole" else "none")
    outcomes = []
    for run in SUITES[name].runs(options):
        folder = tmp_path / run.name
        folder.mkdir()
        lines = [{"step": 50, "seconds": 30, "episode/score": 10.0}, {"step": 80, "seconds": 90, "episode/score": 18.5}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        mean = [-10000.0, 480.0, 500.0][run.seed]
        score = {"mean": mean, "low": None, "high": None, "scores": [mean]}  # of one episode
        result = {"score": score, "steps_per_second": 100.0 + run.seed, "steps": 100, "seconds": 120.0, "threads": 1}
        outcomes.append(Outcome(run, folder, result, ""))
    outcomes[-1] = outcomes[-1]._replace(result=None, error="lost")
    first, last = outcomes[0].run.group, outcomes[-1].run.group
    report = SUITES[name].report(outcomes, options)
    cells = report.tables[0].rows
    if first != last:
        assert "-3,007 [-10,000, 500.0]" in cells[0]  # of three values none is cut
    if name == "cartpole":
        assert cells[0][3:] == ("2 of 3", "101.0")
        assert cells[-1][3:] == ("1 of 3", "100.5")  # a lost run has not reached it
        assert report.tables[1].rows == [("saccade", "101.0", "1"), ("SB3", "100.5", "1")]
    assert report.figures
    if name == "pong":
        assert report.tables[1].rows[0] == ("ppo-seed0", "80", "1.5", "2", "1")
        assert len(report.tables[1].rows) == 2  # the lost run is left out
        assert pong.first_reached(outcomes[0].folder, 19) is None
    if name == "breakout":
        stated = report.data["protocol"]["dqn"]
        assert (stated["sticky_actions"], stated["training_frames"], stated["games"]) == (0, 400, 30)
        assert report.notes[0] == "dqn, seed 0: mean -10000.0, from -10000 to -10000."
        ppo = breakout.report([outcome for outcome in outcomes if outcome.run.group == "ppo"], options)
        assert ppo.data["protocol"].keys() == {"ppo"}  # nothing is said of what was not run
        several = {"mean": 2.0, "low": 0.7, "high": 3.3, "scores": [1.0, 3.0, 2.0]}
        assert breakout.in_words(several) == "mean 2.0, 95 % interval over games 0.7 to 3.3, from 1 to 3."


def test_hyper_parameters_of_the_peer_by_hand():
    plan = throughput.task_plan("breakout", threads=2)
    kwargs = peer_sb3.hyper_parameters(plan, steps=1_000_000, collect=4)
    assert (kwargs["train_freq"], kwargs["gradient_steps"]) == (4, 8)  # 32 transitions, one update per 4
    kwargs = peer_sb3.hyper_parameters(plan, steps=1_000_000)
    assert (kwargs["train_freq"], kwargs["gradient_steps"]) == (1, 2)
    assert (kwargs["batch_size"], kwargs["buffer_size"], kwargs["policy"]) == (32, 20_000, "CnnPolicy")
    plan = default_plan("dqn", "CartPole-v1")
    config = dataclasses.replace(plan.agent_config, epsilon_decay_steps=5_000, max_gradient_norm=None)
    kwargs = peer_sb3.hyper_parameters(dataclasses.replace(plan, agent_config=config), steps=50_000)
    assert kwargs["exploration_fraction"] == 0.1
    assert kwargs["gradient_steps"] * config.update_interval == kwargs["train_freq"] * config.updates_per_interval
    assert kwargs["policy_kwargs"]["net_arch"] == list(plan.encoder_config.hidden)
    assert kwargs["max_grad_norm"] == float("inf")
    squared = dataclasses.replace(plan, agent_config=dataclasses.replace(config, huber=False))
    with pytest.raises(UserError, match="--huber"):
        peer_sb3.hyper_parameters(squared, steps=50_000)


@pytest.mark.parametrize("task", ["cartpole", "breakout"])
def test_both_sides_of_throughput_learn_alike(task):
    plan = throughput.task_plan(task, threads=1)
    smaller = {"batch_size": 2, "replay_capacity": 600, "learning_starts": 64}
    plan = dataclasses.replace(
        plan,
        run=dataclasses.replace(plan.run, num_envs=min(plan.run.num_envs, 4)),
        agent_config=dataclasses.replace(plan.agent_config, **smaller),
    )
    mine, theirs = ours.Ours(plan), peer_sb3.make_model(plan, steps=1)
    assert count_parameters(mine.agent.network)[0] == sum(p.numel() for p in theirs.q_net.parameters())
    config = plan.agent_config
    steps = 512 if task == "cartpole" else 128
    mine.advance(config.learning_starts + config.update_interval)
    before = mine.agent.updates
    assert mine.advance(steps) == steps
    assert mine.agent.updates - before == steps * config.updates_per_interval // config.update_interval
    theirs.learn(config.learning_starts + config.update_interval)
    began, before = theirs.num_timesteps, theirs._n_updates
    theirs.learn(steps, reset_num_timesteps=False)
    took = theirs.num_timesteps - began
    assert theirs._n_updates - before == took * config.updates_per_interval // config.update_interval
    mine.env.close()
    theirs.env.close()


def test_the_peer_leaves_the_same_files(tmp_path):
    result = peer_sb3.train(peer_sb3.Options("CartPole-v1", 300, tmp_path / "peer", seed=1, threads=1))
    assert json.loads((tmp_path / "peer" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert result["score"]["episodes"] == len(result["score"]["scores"]) == 100
    lines = read_lines(tmp_path / "peer" / "metrics.jsonl")
    assert [line["step"] for line in lines] == np.cumsum([line["episode/length"] for line in lines]).tolist()
    assert all(line["episode/score"] == line["episode/length"] for line in lines)  # CartPole pays 1 per step
    assert 0 <= result["steps"] - lines[-1]["step"] < 500


def test_a_missing_peer_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UserError, match=r"pip install 'saccade\[sb3\]'"):
        cartpole.runs(BenchOptions(against="sb3"))
    with pytest.raises(UserError, match=r"pip install 'saccade\[sb3\]'"):
        throughput.measure(BenchOptions(against="sb3"))


class Clock:
    """Time that only passes when something takes it."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-9
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_sides_take_turns_and_speeds_are_exact(monkeypatch):
    clock, calls = Clock(), []
    monkeypatch.setattr(interleave, "time", clock)
    monkeypatch.setattr(interleave, "_steps_per_second", lambda advance, seconds: 100.0)  # the warm-up's finding
    rates = {"a": [200.0, 400.0, 100.0], "b": [50.0, 10.0, 40.0]}  # steps per second in each counted round

    def side(name: str):
        def advance(steps: int) -> int:
            clock.now += steps / rates[name][sum(each == name for each, _ in calls)]
            calls.append((name, steps))
            return steps

        return advance

    speeds = alternate({"a": side("a"), "b": side("b")}, rounds=4, seconds=10.0, title="test")
    assert calls == [(name, 1000) for name in "abbaab"]
    assert speeds["a"].slices == pytest.approx(rates["a"])
    assert speeds["b"][:3] == pytest.approx((40, 10, 50))


def test_the_warm_up_measures_the_pieces_after_a_slow_start(monkeypatch):
    clock, done = Clock(), []
    monkeypatch.setattr(interleave, "time", clock)

    def advance(steps: int) -> int:
        clock.now += steps / (10 if sum(done) < 100 else 500)
        done.append(steps)
        return steps

    assert interleave._steps_per_second(advance, 30.0) == pytest.approx(500)
    assert 30 <= clock.now < 60


def test_time_is_counted_where_it_is_spent(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(interleave, "time", clock)

    class Part:
        def work(self, seconds: float) -> float:
            clock.now += seconds
            return seconds

    one, other, seconds = Part(), Part(), {}
    with timed({"one": (one, "work"), "other": (other, "work")}, seconds):
        assert one.work(2.0) + one.work(3.0) + other.work(7.0) == 12
    one.work(50.0)
    assert seconds == pytest.approx({"one": 5, "other": 7})


def test_the_parts_of_a_step_add_up():
    plan = throughput.task_plan("breakout", threads=1)
    smaller = {"batch_size": 2, "replay_capacity": 600, "learning_starts": 64}
    side = ours.Ours(dataclasses.replace(plan, agent_config=dataclasses.replace(plan.agent_config, **smaller)))
    side.advance(80)
    parts = ours.breakdown(side, seconds=0.6)
    side.env.close()
    loop = parts["loop"]
    assert sum(value for name, value in loop.items() if name != "all") == pytest.approx(loop["all"])
    assert all(loop[name] > 0 for name in ("learning", "sampling", "inference", "emulation", "storing", "the rest"))
    assert parts["alone"].keys() == loop.keys() - {"all", "the rest"}


def result_of(speed: float, ratio: float | None = None, machine: str = "m") -> dict:
    task = {"saccade": {"median": speed}} | ({"ratio": ratio} if ratio else {})
    return {"tasks": {"cartpole": task}, "machine": machine}


def test_a_slower_build_is_flagged(tmp_path):
    now = result_of(900, ratio=2.0)
    assert throughput.compare(result_of(990), now, "m") == []
    (problem,) = throughput.compare(result_of(1200), now, "m")
    assert problem == "SLOWER: cartpole runs at 900.0 steps/s, earlier 1,200 (25 % less)"
    assert throughput.compare(result_of(9000, 2.1, "other"), now, "m") == []
    assert "times the peer" in throughput.compare(result_of(900, 3.0, "other"), now, "m")[0]
    assert "another machine" in throughput.compare(result_of(900, None, "other"), now, "m")[0]
    (tmp_path / "cartpole.json").write_text('{"groups": {}}')
    with pytest.raises(UserError, match=r"not a throughput\.json"):
        throughput.measure(BenchOptions(compare=tmp_path / "cartpole.json"))


def test_a_side_elsewhere_answers_until_it_dies():
    side = Elsewhere(functools.partial, max, 3)
    assert [side(4), side(2)] == [4, 3]
    side.close()
    dying = Elsewhere(functools.partial, os._exit)
    with pytest.raises(RuntimeError, match="status 5"):
        dying(5)


def test_throughput_writes_its_files(tmp_path):
    options = BenchOptions(which="cartpole", rounds=2, slice_seconds=0.3, out=tmp_path, against="sb3")
    assert run_benchmark("throughput", options) == 0
    path = tmp_path / "throughput.json"
    data = json.loads(path.read_text())
    task = data["tasks"]["cartpole"]
    assert task["ratio"] == pytest.approx(task["saccade"]["median"] / task["sb3"]["median"])
    data["tasks"]["cartpole"]["saccade"]["median"] *= 1000
    path.write_text(json.dumps(data))
    options = BenchOptions(which="cartpole", rounds=2, slice_seconds=0.3, out=tmp_path / "again", compare=path)
    assert run_benchmark("throughput", options) == 1
    assert "SLOWER" in (tmp_path / "again" / "throughput.md").read_text()


def test_memory_and_steps_of_the_replay_benchmark(monkeypatch, tmp_path):
    keep_freed_memory()
    freed = [np.ones(1_000_000) for _ in range(16)]  # 128 MB in pieces, which the C library will keep for itself
    assert len(freed) == 16
    del freed
    before = replay.resident_bytes()
    held = np.ones(8_000_000)
    assert replay.resident_bytes() - before == pytest.approx(held.nbytes, rel=0.05)
    stored = replay.Replay(4000, replay.SPEC)
    for step in replay.steps(500):
        stored.add(step)  # checks that stacks begin empty
    assert len(stored) == 4000
    monkeypatch.setattr(replay, "DRAWS", 20)
    report = replay.measure(BenchOptions(steps=16_000, threads=1))
    assert report.data["uniform"]["gigabytes"] == pytest.approx(16_000 * 84 * 84 / 1e9, rel=0.2)
    assert [row[0] for row in report.tables[0].rows][2] == "prioritised, 1-step"


def test_options_and_names_that_make_no_sense():
    for bad in ({"seeds": 0}, {"jobs": -1}, {"steps": 0}, {"rounds": 1}, {"slice_seconds": 0.0}):
        with pytest.raises(UserError, match=next(iter(bad)).replace("_", "-")):
            BenchOptions(**bad)
    with pytest.raises(UnknownNameError, match="did you mean 'breakout'"):
        run_benchmark("breakut", BenchOptions())


@pytest.mark.parametrize("name", list_benchmarks())
def test_running_a_file_says_what_to_type(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run([sys.executable, path.name], cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"type instead: python -m saccade.benchmarks.{name}, or saccade bench {name}\n"


def test_only_chooses_runs_and_what_they_read():
    first = [Run("pretrain-a", seed, ("x",)) for seed in (1, 10)] + [Run("pretrain-b", 1, ("x",))]
    runs = [
        Run("plain", 1, ("fit", "mnist")),
        Run("tuned", 1, ("fit", "--encoder", "../runs/pretrain-a-seed10/encoder")),
        Run("tuned", 2, ("fit", "--encoder", "runs/pretrain-a-seed10")),
    ]
    assert chosen_runs((), runs) == runs
    assert chosen_runs(("tuned",), runs) == runs[1:]
    assert needed(first, runs[1:]) == [first[1]]  # seed 1 begins as seed 10 does, and is not meant
    assert needed(first, chosen_runs(("plain",), runs)) == []
    assert chosen(("c", "a"), "abc") == ["a", "c"]
    with pytest.raises(UnknownNameError, match="unknown setting 'tunned'; did you mean 'tuned'"):
        chosen_runs(("tuned", "tunned"), runs)


def test_a_report_computes_with_the_threads_that_were_asked_for(tmp_path, monkeypatch):
    before, found = torch.get_num_threads(), []
    module = SimpleNamespace(
        kind="made up", measure=lambda _: found.append(torch.get_num_threads()) or Report([], [], {})
    )
    monkeypatch.setattr(runner, "list_benchmarks", lambda: {"made_up": "made up"})
    monkeypatch.setattr(runner, "_load", lambda _: module)
    try:
        for threads in (before + 1, None):
            run_benchmark("made_up", BenchOptions(threads=threads, out=tmp_path))
    finally:
        torch.set_num_threads(before)
    assert found == [before + 1] * 2  # without the option they stay as they are


def test_the_runner_starts_only_what_is_asked_for(stand_in, tmp_path, monkeypatch):
    where = tmp_path / "runs" / "made_up"
    prepared = [Run(f"before-{name}", 0, (stand_in,)) for name in "ab"]
    main = [Run(name, 0, (stand_in, str(where / f"before-{name}-seed0"))) for name in "ab"]

    def report(outcomes, _):
        return Report([], [outcome.run.group for outcome in outcomes], {})

    def reported() -> list[str]:
        return [run["group"] for run in json.loads((tmp_path / "made_up.json").read_text())["runs"]]

    module = SimpleNamespace(kind="made up", preparations=lambda _: prepared, runs=lambda _: main, report=report)
    monkeypatch.setattr(runner, "list_benchmarks", lambda: {"made_up": "made up"})
    monkeypatch.setattr(runner, "_load", lambda _: module)
    assert run_benchmark("made_up", BenchOptions(only=("b",), out=tmp_path)) == 0
    assert {path.name for path in where.iterdir() if path.is_dir()} == {"before-b-seed0", "b-seed0"}
    assert reported() == ["b"]
    assert run_benchmark("made_up", BenchOptions(only=("a",), out=tmp_path)) == 0
    assert reported() == ["a", "b"]  # what an earlier call has finished is not lost from the results
    (where / "b-seed0.arguments.json").write_text('["other settings"]')
    assert run_benchmark("made_up", BenchOptions(only=("a",), out=tmp_path)) == 0
    assert reported() == ["a"]
    with pytest.raises(UserError, match="unknown setting"):
        run_benchmark("made_up", BenchOptions(only=("before-b",), out=tmp_path))
    module.measure = lambda _: Report([], [], {})
    with pytest.raises(UserError, match="made_up has no settings to choose from"):
        run_benchmark("made_up", BenchOptions(only=("b",), out=tmp_path))
    module.choices = ("b",)
    assert run_benchmark("made_up", BenchOptions(only=("b",), out=tmp_path)) == 0


def test_a_suite_from_the_command_line(tmp_path):
    words = ["--steps", "2000", "--seeds", "2", "--jobs", "2", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "saccade.benchmarks.pendulum", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "pendulum.json").read_text())
    scores = [run["result"]["score"]["mean"] for run in data["runs"]]
    assert data["groups"]["reinforce"]["means"] == scores
    assert data["groups"]["reinforce"]["score"]["interquartile_mean"] == pytest.approx(sum(scores) / 2)
    assert data["command"] == f"saccade bench pendulum {' '.join(words)}"
    assert "pendulum.png" in (tmp_path / "pendulum.md").read_text()
