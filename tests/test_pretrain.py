"""Training alone: exact resumption, stages, early stopping, and what a run leaves behind."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from saccade import data
from saccade.__main__ import main
from saccade.benchmarks import autoencoders, features, generative
from saccade.data import PUBLISHED, Dataset, Split
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import Stage
from saccade.envs.errors import UserError
from saccade.envs.options import EnvOptions
from saccade.envs.spec import ObservationSpec
from saccade.training import checkpoint, pretrain, reports
from saccade.training.bundle import load_bundle
from saccade.training.matrix import list_learners, try_encoder
from saccade.training.plan import default_plan as agent_plan
from saccade.training.pretrain_arguments import default_plan, parse_pretrain
from saccade.training.pretrain_plan import PretrainConfig, PretrainPlan, check
from saccade.training.pretrain_presets import PRESETS
from saccade.training.sources import trained_policy
from saccade.training.stages import share_epochs
from saccade.training.trackers import read_lines
from saccade.training.train import train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TWO_STAGES = """
from dataclasses import dataclass
import torch
from torch import nn
from saccade.encoders.base import FeedForward, Stage

kind = "two levels, with noise, batch statistics, a clock, and a count of updates"

@dataclass(frozen=True)
class Config:
    code: int = 3

class Two(FeedForward):
    def __init__(self, code, size):
        super().__init__()
        self.low, self.low_back = nn.Linear(size, 4), nn.Linear(4, size)
        self.norm = nn.BatchNorm1d(4)
        self.high, self.high_back = nn.Linear(4, code), nn.Linear(code, 4)
        self.feature_shape = (code,)
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("finished", torch.zeros((), dtype=torch.int64))

    def first(self, x):
        return torch.tanh(self.low(x))

    def encode(self, x):
        return self.high(self.norm(self.first(x)))

    def first_loss(self, batch):
        x = batch["x"]
        noisy = x + 0.1 * torch.randn_like(x)
        return {"error": (self.low_back(self.first(noisy)) - x).square().sum(1)}

    def second_loss(self, batch):
        assert not (self.training and self.low.weight.requires_grad)
        h = batch["x"]
        code = self.high(self.norm(h))
        return {"error": (self.high_back(code) - h).square().sum(1), "size": 0.01 * code.abs().mean()}

    def loss(self, batch):
        return self.first_loss(batch)

    def finish(self):
        self.finished += 1

    def stages(self):
        low = [*self.low.parameters(), *self.low_back.parameters()]
        high = [*self.norm.parameters(), *self.high.parameters(), *self.high_back.parameters()]
        return [
            Stage("low", low, self.first_loss, 1.0, finish=self.finish),
            Stage("high", high, self.second_loss, 2.0, input=self.first, finish=self.finish),
        ]

    def after_update(self):
        self.updates += 1

def build(config, spec):
    return Two(config.code, spec.size)
"""

CLIMBER = """
from dataclasses import dataclass
import torch
from torch import nn
from saccade.encoders.base import FeedForward, Group, Stage

kind = "one number that grows by the rate with each update, and is best at 3"

@dataclass(frozen=True)
class Config:
    pass

class Climber(FeedForward):
    feature_shape = (1,)

    def __init__(self):
        super().__init__()
        self.height = nn.Parameter(torch.zeros(()))

    def encode(self, x):
        return x[:, :1] + self.height

    def loss(self, batch):
        height = -self.height if self.training else (self.height - 3).square()
        return {"height": height.expand(len(batch["x"]))}

    def stages(self):
        return [Stage("climb", list(self.parameters()), self.loss)]

    def parameter_groups(self):
        return [Group("height", [self.height], optimizer="sgd")]

def build(config, spec):
    return Climber()
"""


class Recorder:
    """A tracker that remembers, and may send a signal when so many examples were read."""

    def __init__(self, stop_at: int | None = None):
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.stop_at = stop_at

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))
        if self.stop_at == step:
            os.kill(os.getpid(), signal.SIGINT)

    def close(self) -> None: ...


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    """200 examples of 6 numbers; 180 of them for training, 10 for validation."""
    random = np.random.default_rng(0)
    path = tmp_path / "vectors.npy"
    np.save(path, (random.normal(size=(200, 2)) @ random.normal(size=(2, 6))).astype(np.float32))
    return str(path)


def plan_for(learner: str, vectors: str, **settings) -> PretrainPlan:
    run = PretrainConfig(**{"epochs": 6, "batch_size": 20, "threads": 1, "picture_interval": 0} | settings)
    return PretrainPlan(learner, vectors, run, find_encoder(learner).Config())


@pytest.fixture
def two(tmp_path: Path) -> str:
    (tmp_path / "two.py").write_text(TWO_STAGES)
    return str(tmp_path / "two.py")


@pytest.fixture
def climber(tmp_path: Path) -> str:
    (tmp_path / "climber.py").write_text(CLIMBER)
    return str(tmp_path / "climber.py")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_sense(name):
    preset, spec = PRESETS[name], ObservationSpec((2, 64, 64), "uint8", 0, 255, stack=2)
    plan = default_plan(None, preset=name)
    check(plan)
    if plan.data in PUBLISHED:
        spec = PUBLISHED[plan.data].SPEC
    encoder = make_encoder(plan.learner, spec, plan.learner_config)
    assert sum(share_epochs(encoder.stages(), plan.run.epochs)) == plan.run.epochs
    assert default_plan(preset.learner, "cifar10", name).data == "cifar10"


BENCHMARKED = autoencoders.SETTINGS | features.LEARNERS | generative.SETTINGS


@pytest.mark.parametrize("name", sorted(set(PRESETS) & set(BENCHMARKED)))
def test_presets_are_what_the_benchmarks_measure(name):
    """Where this fails after a benchmark's setting has changed, change the preset too."""
    setting = BENCHMARKED[name]
    words = ["--epochs", str(setting.epochs), *setting.options, "--picture-interval", "5"]
    assert parse_pretrain(setting.learner, words).plan == default_plan(None, preset=name)


def state_of(directory: Path) -> dict:
    state = checkpoint.load(directory / "checkpoint")
    state["losses"].pop("images_per_second")
    return {name: value for name, value in state.items() if name != "seconds"}


def assert_equal(ours, theirs, where: str = "state") -> None:
    """To the bit, all the way down."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), where
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{where}[{number}]")
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("optimizer", ["adam", "nesterov"])
def test_stopped_anywhere_and_resumed_is_never_stopped(tmp_path, monkeypatch, vectors, two, optimizer):
    """In the middle of an epoch of either stage, and in the last update of the first."""
    monkeypatch.setattr(reports, "BAR_SECONDS", 0.0)  # so that trackers hear of every update
    plan = plan_for(two, vectors, schedule="cosine", max_gradient_norm=1.0, optimizer=optimizer, weight_decay=0.01)
    pretrain.pretrain(plan, tmp_path / "whole", [])
    expected = state_of(tmp_path / "whole")
    assert expected["examples"] == 6 * 180
    for stop_at in (180 + 60, 360, 4 * 180 + 20):
        directory = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(pretrain.Stopped):
            pretrain.pretrain(plan, directory, [Recorder(stop_at)])
        assert not (directory / "result.json").exists()
        result = pretrain.resume(directory, learner=two, trackers=[])
        assert result["epochs"] == 6
        assert_equal(state_of(directory), expected)
        steps = [line["step"] for line in read_lines(directory / "metrics.jsonl")]
        assert steps == [180 * epoch for epoch in range(1, 7)]


SMALLER = {"hidden": (8,), "code": 4, "latents": 3, "features": 4, "k": 2, "k_start": 4}


def is_like(value: object, given: object) -> bool:
    return type(value) is type(given)


@pytest.mark.parametrize("learner", [n for n in list_learners() if try_encoder(n, ObservationSpec((6,))).learns])
def test_every_learner_resumes_exactly_and_leaves_a_bundle(tmp_path, monkeypatch, vectors, learner):
    monkeypatch.setattr(reports, "BAR_SECONDS", 0.0)
    np.save(Path(vectors).with_suffix(".labels.npy"), np.arange(len(np.load(vectors))) % 3)
    plan = plan_for(learner, vectors, epochs=2)
    config = plan.learner_config
    plan = replace(
        plan,
        learner_config=replace(config, **{k: v for k, v in SMALLER.items() if is_like(getattr(config, k, None), v)}),
    )
    pretrain.pretrain(plan, tmp_path / "whole", [])
    with pytest.raises(pretrain.Stopped):
        pretrain.pretrain(plan, tmp_path / "halves", [Recorder(180 + 60)])
    pretrain.resume(tmp_path / "halves", trackers=[])
    assert_equal(state_of(tmp_path / "halves"), state_of(tmp_path / "whole"))
    x = data.load(vectors).test.x
    codes = [load_bundle(tmp_path / name).encoder.read(x) for name in ("halves", "whole")]
    assert torch.equal(*codes)
    assert codes[0].isfinite().all()


@pytest.mark.parametrize("learner", ["drbm", "perceptron"])
def test_what_learns_from_labels_is_not_trained_without(tmp_path, vectors, learner):
    with pytest.raises(UserError, match=f"{learner} with these settings learns from labels, and .* has none"):
        pretrain.pretrain(plan_for(learner, vectors, epochs=1), tmp_path / "run", [])


def test_a_longer_run_is_a_short_one_resumed(tmp_path, vectors):
    """Train 2N = train N, save, resume, train N; patience keeps the best apart from what training goes on with."""
    plan = plan_for("autoencoder", vectors, patience=100)
    plan = replace(plan, learner_config=replace(plan.learner_config, hidden=(5,), code=2, batch_norm=True))
    pretrain.pretrain(plan, tmp_path / "whole", [])
    pretrain.pretrain(replace(plan, run=replace(plan.run, epochs=3)), tmp_path / "halves", [])
    assert json.loads((tmp_path / "halves" / "config.json").read_text())["run"]["epochs"] == 3
    pretrain.resume(tmp_path / "halves", epochs=6, trackers=[])
    assert_equal(state_of(tmp_path / "halves"), state_of(tmp_path / "whole"))
    assert json.loads((tmp_path / "halves" / "config.json").read_text())["run"]["epochs"] == 6
    ours, theirs = (load_bundle(tmp_path / name).encoder.state_dict() for name in ("halves", "whole"))
    assert_equal(dict(ours), dict(theirs))


def test_stages_follow_each_other_and_the_clock_runs_through_them(tmp_path, vectors, two):
    result = pretrain.pretrain(plan_for(two, vectors), tmp_path / "run", [])
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["stage"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    encoder = load_bundle(tmp_path / "run", two).encoder
    assert encoder.updates == 6 * 9
    assert encoder.finished == 2
    assert encoder.progress == pytest.approx(1 - 1 / 54)
    assert set(result["losses"]["test"]) == {"error", "size", "loss"}
    assert result["losses"]["test"]["loss"] == pytest.approx(
        result["losses"]["test"]["error"] + result["losses"]["test"]["size"], rel=1e-5
    )


def test_shares_of_epochs():
    def stages(*shares: float) -> list[Stage]:
        return [Stage(str(number), [], lambda batch: {}, share) for number, share in enumerate(shares)]

    assert share_epochs(stages(1), 7) == [7]
    assert share_epochs(stages(1, 2), 6) == [2, 4]
    assert share_epochs(stages(1, 1, 1), 5) == [2, 1, 2]
    assert share_epochs(stages(1, 100), 3) == [1, 2]
    assert share_epochs(stages(100, 1, 1), 4) == [2, 1, 1]
    assert share_epochs(stages(0.1, 0.1), 2) == [1, 1]
    with pytest.raises(UserError, match=r"1 epochs are too few for 2 stages \(0, 1\)"):
        share_epochs(stages(1, 1), 1)


def test_the_best_epoch_is_kept_when_patience_ends(tmp_path, vectors, climber):
    """Each epoch of 9 updates adds 9 · 0.1: 0.9, 1.8, 2.7, 3.6, 4.5; nearest to 3 is 2.7."""
    plan = plan_for(climber, vectors, epochs=50, patience=2, learning_rate=0.1)
    result = pretrain.pretrain(plan, tmp_path / "run", [])
    assert result["epochs"] == 5
    assert result["losses"]["validation"]["loss"] == pytest.approx(0.09, rel=1e-4)
    assert load_bundle(tmp_path / "run", climber).encoder.height.item() == pytest.approx(2.7)
    losses = [line["validation/loss"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert losses == pytest.approx([4.41, 1.44, 0.09, 0.36, 2.25], rel=1e-4)
    # resumed, it has nothing more to do; with more patience it goes on from the last epoch, not from the best
    again = pretrain.resume(tmp_path / "run", learner=climber, trackers=[])
    assert again["epochs"] == 5
    assert again["losses"] == result["losses"]
    plan = replace(plan, run=replace(plan.run, patience=3))
    plan.save(tmp_path / "run")
    assert pretrain.resume(tmp_path / "run", learner=climber, trackers=[])["epochs"] == 6
    assert checkpoint.load(tmp_path / "run" / "checkpoint")["encoder"]["height"].item() == pytest.approx(5.4)


def test_without_patience_the_last_epoch_counts(tmp_path, vectors, climber):
    plan = plan_for(climber, vectors, epochs=5, learning_rate=0.1)
    pretrain.pretrain(plan, tmp_path / "run", [])
    assert load_bundle(tmp_path / "run", climber).encoder.height.item() == pytest.approx(4.5)


def test_other_data_are_noticed(tmp_path, vectors):
    plan = plan_for("autoencoder", vectors, epochs=1)
    plan = replace(plan, learner_config=replace(plan.learner_config, hidden=(5,), code=2))
    pretrain.pretrain(plan, tmp_path / "run", [])
    np.save(vectors, np.load(vectors) + 1)
    with pytest.raises(UserError, match="holds other data than when the run"):
        pretrain.resume(tmp_path / "run", epochs=2, trackers=[])


def test_what_a_run_leaves_behind(tmp_path, vectors):
    plan = plan_for("autoencoder", vectors, epochs=2)
    plan = replace(plan, learner_config=replace(plan.learner_config, hidden=(5,), code=2))
    recorder = Recorder()
    result = pretrain.pretrain(plan, tmp_path / "run", [recorder])
    assert PretrainPlan.load(tmp_path / "run") == plan
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert result["parameters"] == {"training": 6 * 5 + 5 + 5 * 2 + 2 + 2 * 5 + 5 + 5 * 6 + 6, "frozen": 0}
    assert result["steps"] == 360
    assert result["score"] == {"mean": result["losses"]["test"]["loss"], "what": "test loss"}
    bundle = load_bundle(tmp_path / "run")
    splits = data.load(vectors)
    with torch.no_grad():
        error = (bundle.encoder.reconstruct(splits.test.x) - splits.test.x).square().sum(1).mean().item()
    assert result["losses"]["test"]["loss"] == pytest.approx(error, rel=1e-5)
    assert bundle.spec == splits.spec
    assert bundle.card["data"] == {"name": vectors, "training examples": 180, "seed": 0}
    assert bundle.card["test loss"] == result["losses"]["test"]
    [last] = [values for step, values in recorder.lines if step == 360 and values]
    assert last["validation/loss"] == pytest.approx(result["losses"]["validation"]["loss"])
    assert {path.name.split(".")[0] for path in (tmp_path / "run").iterdir()} == {
        *("bundle", "checkpoint", "config", "events", "metrics", "result")
    }


def test_divergence_is_said_and_the_last_good_checkpoint_stays(tmp_path, vectors):
    plan = plan_for("autoencoder", vectors, optimizer="sgd", learning_rate=1e6)
    with pytest.raises(UserError, match="in epoch 1: training diverged; lower --learning-rate"):
        pretrain.pretrain(plan, tmp_path / "run", [])
    assert checkpoint.latest(tmp_path / "run" / "checkpoint") is None


def images(count: int, channels: int, size: int) -> Split:
    x = torch.arange(count * channels * size * size).view(count, channels, size, size)
    return Split((x % 251).to(torch.uint8), torch.full((count,), -1))


@pytest.mark.parametrize(("channels", "stack"), [(1, 1), (3, 1), (4, 4), (2, 1)])
def test_pictures_show_examples_above_reconstructions(tmp_path, channels, stack):
    class Echo(torch.nn.Linear):
        def reconstruct(self, x):
            assert not self.training
            return 1 - x / 255

        def sample(self, count, generator):
            return torch.arange(count).view(-1, 1, 1, 1).expand(count, channels, 20, 20) / (count - 1)

    spec = ObservationSpec((channels, 20, 20), "uint8", 0, 255, stack=stack)
    dataset = Dataset("some", spec, *(images(3, channels, 20) for _ in range(3)))
    encoder = Echo(1, 1)
    (name, png), (other, samples) = reports.pictures(encoder, dataset)
    assert encoder.training
    assert (name, other) == ("reconstructions", "samples")
    (tmp_path / "a.png").write_bytes(png)
    picture = imread(tmp_path / "a.png")[..., :3]
    times = math.ceil(200 / 42)
    assert picture.shape == (42 * times, 64 * times, 3)  # 2 rows of 3 images of 20 pixels, gaps of 2
    picture = picture[::times, ::times]
    x = dataset.validation.x[1].numpy() / 255
    seen = x if channels == 3 else (x[-1:] if stack > 1 else x.mean(0, keepdims=True)).repeat(3, 0)
    np.testing.assert_allclose(picture[:20, 22:42], seen.transpose(1, 2, 0), atol=1 / 255)
    np.testing.assert_allclose(picture[22:, 22:42], 1 - seen.transpose(1, 2, 0), atol=1 / 255)
    np.testing.assert_allclose(picture[20:22], 0.5, atol=1 / 255)
    (tmp_path / "b.png").write_bytes(samples)
    picture = imread(tmp_path / "b.png")[::2, ::2]  # 6 rows of 12, each pixel twice
    np.testing.assert_allclose(picture[22 * 3 + 5, 22 * 7 + 5, :3], (3 * 12 + 7) / 71, atol=1 / 255)


def test_a_run_on_images_draws_every_few_epochs(tmp_path, monkeypatch):
    """Every second epoch, and after the last."""
    splits = (images(count, 1, 20) for count in (40, 10, 10))
    dataset = Dataset("some", ObservationSpec((1, 20, 20), "uint8", 0, 255), *splits)
    monkeypatch.setattr(pretrain, "load_data", lambda plan: dataset)
    plan = plan_for("vae", "some", epochs=5, picture_interval=2, precision="float32")
    plan = replace(plan, learner_config=replace(plan.learner_config, hidden=(5,), latents=2))
    screen = Recorder()
    pretrain.pretrain(plan, tmp_path / "run", [screen])
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    for name in ("reconstructions", "samples"):
        assert [event.step // 40 for event in events.Images(name)] == [2, 4, 5]
        last = events.Images(name)[-1].encoded_image_string
        assert last == (tmp_path / "run" / f"{name}.png").read_bytes()
    assert [event.step // 40 for event in events.Scalars("validation/loss")] == [1, 2, 3, 4, 5]
    encoder = load_bundle(tmp_path / "run").encoder
    assert dict(reports.pictures(encoder, dataset))["samples"] == last  # the same each time


def test_vectors_have_no_pictures(vectors):
    dataset = data.load(vectors)
    assert list(reports.pictures(make_encoder("autoencoder", dataset.spec), dataset)) == []


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an agent that has learned next to nothing."""
    directory = tmp_path_factory.mktemp("player") / "run"
    base = agent_plan("reinforce", "CartPole-v1", preset="none")
    run = replace(base.run, steps=40, num_envs=2, evaluate_episodes=0, threads=1)
    train(replace(base, run=run), directory, [])
    return directory


def test_frames_are_recorded_by_a_trained_agent(tmp_path, monkeypatch, player):
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path))
    plan = plan_for("autoencoder", "env:CartPole-v1", epochs=1, frames=200, policy=str(player), step=2)
    plan = replace(plan, learner_config=replace(plan.learner_config, hidden=(5,), code=2))
    pretrain.pretrain(plan, tmp_path / "run", [])
    card = load_bundle(tmp_path / "run").card["data"]
    assert (card["frames"], card["policy"], card["step"]) == (200, str(player), 2)
    policy = trained_policy(player, "CartPole-v1", EnvOptions(), 0)
    again = trained_policy(player, "CartPole-v1", EnvOptions(), 0)
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    actions = policy.act(obs)
    assert policy.name == again.name
    assert policy.name.startswith("reinforce-")
    np.testing.assert_array_equal(actions, again.act(obs))
    assert actions.shape == (50,)


def test_who_cannot_play_for_a_recording(tmp_path, player):
    with pytest.raises(UserError, match="plays CartPole-v1, not Acrobot-v1; take data env:CartPole-v1"):
        trained_policy(player, "Acrobot-v1", EnvOptions(), 0)
    with pytest.raises(UserError, match="is not a run directory"):
        trained_policy(tmp_path, "CartPole-v1", EnvOptions(), 0)


SMALL = ["--threads", "1", "--epochs", "1", "--batch-size", "20", "--encoder.hidden", "4", "--encoder.code", "2"]
BAD = {
    "learner": (["autoencodr"], "did you mean 'autoencoder'"),
    "preset": (["autoencoder", "--preset", "vae50"], "unknown preset 'vae50'; did you mean 'vae-50'"),
    "other preset": (["autoencoder", "--preset", "vae-50"], "preset 'vae-50' is for learner 'vae', not 'autoencoder'"),
    "no learner": ([], "name the learner first"),
    "no loss": (["mlp"], "encoder 'mlp' has no loss of its own"),
    "data": (["autoencoder", "--data", "mnits"], "did you mean 'mnist'"),
    "no file": (["autoencoder", "--data", "nothing.npy"], "nothing.npy does not exist"),
    "option": (["autoencoder", "--epoch", "3"], "did you mean '--epochs'"),
    "encoder option": (["autoencoder", "--encoder.cod", "3"], "did you mean '--encoder.code'"),
    "value": (["autoencoder", "--epochs", "many"], "see `saccade pretrain autoencoder --help`"),
    "no epochs": (["autoencoder", "--epochs", "0"], "epochs must be positive, not 0"),
    "rate": (["autoencoder", "--learning-rate", "nan"], "learning_rate must be positive, not nan"),
    "warmup": (["autoencoder", "--warmup", "1"], "warmup must be at least 0 and below 1"),
    "batch": (["autoencoder", "--batch-size", "1000"], "180 examples are too few for --batch-size 1000"),
    "policy": (["autoencoder", "--policy", "x"], "--policy is for data env:ID"),
    "spec": (["conv"], "encoder 'conv' reads uint8 images"),
    "resume nothing": (["--resume"], "--resume needs --out DIR"),
    "resume nowhere": (["--resume", "--out", "nowhere"], "nothing to resume: there is no run directory nowhere"),
    "exists": (["autoencoder", "--out", "full"], "full exists; choose another --out"),
    "resume what is no run": (["--resume", "--out", "full"], "full is not a run directory"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, vectors, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    wanted = words if "--data" in words or not words or words[0] == "--resume" else [*words, "--data", vectors]
    assert main(["pretrain", *wanted]) == 2
    error = capsys.readouterr().err
    assert error.startswith("saccade: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_absent_data_say_how_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "autoencoder", "--data", "mnist"]) == 2
    assert "saccade download mnist" in capsys.readouterr().err


def test_the_command_trains_and_resumes(tmp_path, monkeypatch, capsys, vectors):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "autoencoder", "--data", vectors, *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "saccade probe runs/autoencoder-vectors-seed0" in shown
    assert load_bundle(tmp_path / "runs/autoencoder-vectors-seed0").config.code == 2
    again = ["pretrain", "--resume", "--out", "runs/autoencoder-vectors-seed0"]
    assert main([*again, "--epochs", "3"]) == 0
    assert "3 in" in capsys.readouterr().out
    assert main([*again, "--learning-rate", "1"]) == 2
    assert "the run was made with --learning-rate 0.001" in capsys.readouterr().err
    assert main([*again, "--encoder.code", "3"]) == 2
    assert "the run was made with --encoder.code 2" in capsys.readouterr().err
    assert main(["pretrain", "linear", *again[1:]]) == 2
    assert "has learner 'autoencoder', not 'linear'" in capsys.readouterr().err
