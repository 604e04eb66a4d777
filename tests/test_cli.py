"""The command line as a user meets it: real processes, their exit status, and what they print."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
SMALL = ["--preset", "none", "--num-envs", "4", "--learning-starts", "200", "--encoder.hidden", "16", "--threads", "1"]
SHORT = [*SMALL, "--steps", "3000", "--evaluate-episodes", "4"]

NAN_WORLD = """
import gymnasium, numpy

class Nan(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)
    count = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return numpy.zeros(2, numpy.float32), {}

    def step(self, action):
        self.count += 1
        bad = self.count == self.when
        obs = numpy.full(2, numpy.nan if bad and self.what == "obs" else 0, numpy.float32)
        return obs, float("nan") if bad and self.what == "reward" else 1.0, self.count % 20 == 0, False, {}

for what in ("obs", "reward"):
    kind = type("Nan" + what, (Nan,), {"what": what, "when": 350})
    gymnasium.register(f"Nan-{what}-v0", kind, disable_env_checker=True)
"""

# Imports cost seconds, so the processes of many cases are forked from one that has done them.
MANY = """
import gc, json, os, resource, sys
from saccade.__main__ import main
import saccade.training.arguments, saccade.training.train, saccade.training.evaluate, saccade.benchmarks
import gymnasium, torch, torch._dynamo  # the optimisers import the last
torch.set_num_threads(1)
gc.freeze()
for case in json.load(sys.stdin):
    if (child := os.fork()) == 0:
        for stream, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(case["name"] + "." + stream, os.O_WRONLY | os.O_CREAT), number)
        if case["file_limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case["file_limit"],) * 2)
        status = main(case["words"])
        sys.stdout.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([case["name"], status]))
"""


class Case(NamedTuple):
    words: list[str]
    message: str  # in the one line on stderr
    file_limit: int = 0  # bytes; 0 = none


def saccade(words: list[str], cwd: Path, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "saccade", *words]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)


DQN = ["train", "dqn"]
LARGE = [*SHORT, "--encoder.hidden", "256", "--steps", "400"]
TRAIN = [*DQN, *SHORT, "--out", "new"]
RESUME = ["train", "--resume", "--out"]
NAN_OBS, NAN_REWARD = (["--env", f"nanworld:Nan-{what}-v0", "--out", f"nan-{what}"] for what in ("obs", "reward"))
BAD_INPUT = {
    "command": Case(["trian"], "unknown command 'trian'; did you mean 'train'?"),
    "no agent": Case(["train"], "name the agent first"),
    "agent": Case(["train", "dqnn"], "unknown agent 'dqnn'; did you mean 'dqn'?"),
    "encoder": Case([*DQN, "--encoder", "cnov"], "unknown encoder 'cnov'; did you mean 'conv'?"),
    "encoder file": Case([*DQN, "--encoder", "mine.py"], "encoder 'mine.py': there is no such file"),
    "env": Case([*DQN, "--env", "CartPol-v1"], "environment 'CartPol-v1'; did you mean 'CartPole-v1'?"),
    "game": Case([*DQN, "--env", "ALE/Breakot-v5"], "did you mean 'ALE/Breakout-v5'?"),
    "preset": Case([*DQN, "--preset", "cartpol"], "unknown preset 'cartpol'; did you mean 'cartpole'?"),
    "option": Case([*DQN, "--learning-rat", "1"], "unknown option '--learning-rat'; did you mean '--learning-rate'?"),
    "part option": Case([*DQN, "--encoder.hiden", "3"], "'--encoder.hiden'; did you mean '--encoder.hidden'?"),
    "env option": Case([*DQN, "--env.sticky-action", "1"], "did you mean '--env.sticky-actions'?"),
    "word": Case([*DQN, "CartPole-v1"], "'CartPole-v1' belongs to no option; see `saccade train dqn --help`"),
    "no number": Case([*DQN, "--steps", "many"], "Error parsing --steps"),
    "no value": Case([*DQN, "--steps"], "Missing value for argument '--steps'"),
    "no choice": Case([*DQN, "--env.protocol", "old"], "invalid choice 'old'"),
    "zero steps": Case([*TRAIN, "--steps", "0"], "steps must be positive, not 0"),
    "negative envs": Case([*TRAIN, "--num-envs", "-2"], "num_envs must be positive, not -2"),
    "negative episodes": Case([*TRAIN, "--evaluate-episodes", "-1"], "evaluate_episodes must not be negative"),
    "zero interval": Case([*TRAIN, "--save-interval-seconds", "0"], "save_interval_seconds must be positive"),
    "zero batch": Case([*TRAIN, "--batch-size", "0"], "batch_size"),
    "negative replay": Case([*TRAIN, "--replay-capacity", "-5"], "replay_capacity"),
    "zero layer": Case([*TRAIN, "--encoder.hidden", "0"], "hidden"),
    "negative threads": Case([*TRAIN, "--threads", "-1"], "threads must not be negative"),
    "huge replay": Case([*TRAIN, "--replay-capacity", "1000000000000"], "lower --replay-capacity"),
    "no gpu": Case([*TRAIN, "--device", "cuda:77"], "device 'cuda:77' is not there"),
    "unfit encoder": Case([*DQN, "--env", "CartPole-v1", "--encoder", "conv", "--out", "new"], "image"),
    "box": Case([*DQN, "--env", "Pendulum-v1", "--out", "new"], "discrete"),
    "existing": Case([*DQN, *SHORT, "--out", "finished"], "finished exists; choose another --out"),
    "resume what": Case([*DQN, "--resume"], "--resume needs --out DIR"),
    "resume nothing": Case([*RESUME, "nowhere"], "there is no run directory nowhere"),
    "resume empty": Case([*RESUME, "empty"], "empty is not a run directory"),
    "resume unsaved": Case([*RESUME, "unsaved"], "there is no checkpoint in unsaved"),
    "resume other agent": Case(
        ["train", "reinforce", "--resume", "--out", "finished"], "has agent 'dqn', not 'reinforce'"
    ),
    "resume other rate": Case(
        [*DQN, "--resume", "--out", "finished", "--learning-rate", "0.5"],
        "was made with --learning-rate 0.0001",
    ),
    "resume damaged": Case([*RESUME, "damaged"], "damaged or not saccade's: the checksum of state.pt is wrong"),
    "resume foreign": Case([*RESUME, "foreign"], "is not of the run in its config.json"),
    "damaged settings": Case([*RESUME, "edited"], "did you mean 'agent_config.learning_rate'?"),
    "evaluate nothing": Case(["evaluate", "nowhere"], "nowhere is not a run directory"),
    "evaluate what": Case(["evaluate"], "DIR"),
    "evaluate damaged": Case(["evaluate", "damaged"], "damaged or not saccade's: the checksum of state.pt is wrong"),
    "evaluate foreign": Case(["evaluate", "foreign"], "is not of the agent in its config.json"),
    "evaluate zero": Case(["evaluate", "finished", "--episodes", "0"], "episodes must be positive, not 0"),
    "evaluate epsilon": Case(["evaluate", "finished", "--epsilon", "2"], "epsilon must lie between 0 and 1"),
    "benchmark, dashes": Case(["bench", "few-labels", "--rounds", "1"], "--rounds is 1"),
    "benchmark, its world": Case(["bench", "breakout", "--env", "ALE/Pong-v5"], "breakout has a world of its own"),
    "benchmark": Case(["bench", "troughput"], "unknown benchmark 'troughput'; did you mean 'throughput'?"),
    "topic": Case(["list", "agent"], "unknown topic 'agent'; did you mean 'agents'?"),
    "disk full of numbers": Case([*DQN, *SHORT, "--out", "full1"], "cannot write full1/metrics.jsonl", 20_000),
    "disk full of weights": Case([*DQN, *LARGE, "--out", "full2"], "cannot write checkpoint full2/checkpoint", 90_000),
    "no place": Case([*DQN, *SHORT, "--out", "empty-file/run"], "cannot write empty-file/run"),
    "nan observation": Case([*DQN, *SHORT, *NAN_OBS], "not finite at step"),
    "nan reward": Case([*DQN, *SHORT, *NAN_REWARD], "not finite at step"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which one run, `finished`, was trained from the command line."""
    folder = tmp_path_factory.mktemp("cli")
    done = saccade([*DQN, *SHORT, "--out", "finished"], folder)
    assert done.returncode == 0, done.stderr
    (folder / "printed").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def bad_input(finished, tmp_path_factory):
    """(exit status, stdout, stderr) of each case, in a folder with runs in every state."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(finished / "finished", folder / "finished")
    for name in ("damaged", "foreign", "unsaved", "edited"):
        shutil.copytree(finished / "finished", folder / name)
    state = next((folder / "damaged" / "checkpoint").glob("step-*/state.pt"))
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    config = json.loads((folder / "foreign" / "config.json").read_text())
    config["encoder_config"]["hidden"] = [17]  # settings of another run than the checkpoint's
    (folder / "foreign" / "config.json").write_text(json.dumps(config))
    shutil.rmtree(folder / "unsaved" / "checkpoint")
    text = (folder / "edited" / "config.json").read_text()
    (folder / "edited" / "config.json").write_text(text.replace('"learning_rate"', '"learning_rat"'))
    (folder / "empty").mkdir()
    (folder / "empty-file").write_text("")
    (folder / "nanworld.py").write_text(NAN_WORLD)
    cases = [{"name": name, "words": case.words, "file_limit": case.file_limit} for name, case in BAD_INPUT.items()]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps(cases),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    statuses = dict(json.loads(line) for line in done.stdout.splitlines())
    texts = {name: [(folder / f"{name}.{stream}").read_text() for stream in ("out", "err")] for name in statuses}
    return folder, {name: (statuses[name], *texts[name]) for name in statuses}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gets_one_line_that_says_what_to_do(bad_input, name):
    status, _, errors = bad_input[1][name]
    assert status == 2, errors
    complaints = [line for line in errors.splitlines() if "steps/s" not in line]  # progress may come before
    assert len(complaints) == 1, errors
    assert complaints[0].startswith("saccade: ")
    assert BAD_INPUT[name].message in complaints[0]


def test_bad_input_makes_no_run_directory(bad_input):
    assert not (bad_input[0] / "new").exists()
    assert not (bad_input[0] / "runs").exists()


def test_a_full_disk_leaves_nothing_half_written(bad_input):
    assert (bad_input[0] / "full2").is_dir()
    assert not list((bad_input[0] / "full2").rglob(".saving*"))
    assert not list((bad_input[0] / "full2").rglob("step-*"))


def test_a_run_writes_its_directory_and_tells_what_came_out(finished):
    directory, printed = finished / "finished", (finished / "printed").read_text()
    result = json.loads((directory / "result.json").read_text())
    assert (result["agent"], result["env"], result["encoder"]) == ("dqn", "CartPole-v1", "mlp")
    assert (result["steps"], result["seed"], result["threads"]) == (3000, 0, 1)
    assert result["score"]["episodes"] == len(result["score"]["scores"]) == 4
    assert result["score"]["mean"] == pytest.approx(sum(result["score"]["scores"]) / 4)
    assert result["versions"]["torch"]
    config = json.loads((directory / "config.json").read_text())
    assert config["run"]["steps"] == 3000
    assert config["encoder_config"]["hidden"] == [16]
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 3000
    assert any("episode/score" in line for line in lines)
    assert (directory / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list(directory.glob("events.out.tfevents.*"))
    assert "training dqn on CartPole-v1 through mlp" in printed
    assert f"{result['score']['mean']:,.1f}, mean of 4 episodes, greedy" in printed
    assert "tensorboard --logdir finished" in printed


def test_evaluating_a_run_repeats_its_own_evaluation(finished):
    done = saccade(["evaluate", "finished", "--episodes", "4", "--video"], finished)
    assert done.returncode == 0, done.stderr
    mean = json.loads((finished / "finished" / "result.json").read_text())["score"]["mean"]
    assert f"{mean:,.1f}, mean of 4 episodes, greedy" in done.stdout
    (video,) = (finished / "finished").glob("video.*")
    assert str(video.relative_to(finished)) in done.stdout
    assert video.stat().st_size > 1_000


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not path.exists() or not path.stat().st_size:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_that_was_interrupted_says_how_it_goes_on_and_does(tmp_path):
    words = [*DQN, *SMALL, "--steps", "10000000", "--evaluate-episodes", "0", "--out", "a run"]
    command = [sys.executable, "-m", "saccade", *words, "--replay-capacity", "2000"]
    settings = {"cwd": tmp_path, "env": ENVIRONMENT, "text": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)  # type: ignore[call-overload]
    wait_for(tmp_path / "a run" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    last = errors.splitlines()[-1]
    assert last.startswith("saccade: stopped at step ")
    assert last.endswith("saccade train dqn --resume --out 'a run'")
    assert "Traceback" not in errors
    step = max(json.loads(path.read_text())["step"] for path in tmp_path.rglob("manifest.json"))
    assert step > 0
    done = saccade([*RESUME, "a run", "--steps", str(step + 1000)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a run" / "result.json").read_text())["steps"] == step + 1000
    assert json.loads((tmp_path / "a run" / "config.json").read_text())["run"]["steps"] == step + 1000


def test_the_overview_and_the_lists(tmp_path):
    done = saccade([], tmp_path)
    assert done.returncode == 0
    for command in ("train", "evaluate", "bench", "list"):
        assert f"saccade {command}" in done.stdout
    done = saccade(["list"], tmp_path)
    assert done.returncode == 0
    assert "dqn " in done.stdout
    assert "mlp " in done.stdout
    done = saccade(["list", "envs"], tmp_path)
    assert {"CartPole-v1", "ALE/Breakout-v5"} <= set(done.stdout.split())


def test_help_shows_the_presets_defaults(tmp_path):
    done = saccade([*DQN, "--env", "CartPole-v1", "--help"], tmp_path)
    assert done.returncode == 0
    assert "(default: 0.001)" in done.stdout
    done = saccade([*DQN, "--env", "CartPole-v1", "--preset", "none", "--help"], tmp_path)
    assert "(default: 0.001)" not in done.stdout
    assert "--encoder.hidden" in done.stdout
    assert "--env.sticky-actions" in done.stdout
