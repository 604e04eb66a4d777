"""What an encoder does in an agent: scratch, frozen, fine-tuned, co-trained; for every agent, and from the shell."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agent_cases
import numpy as np
import pytest
import test_agents_contract as contract
import torch
from agent_cases import DISCRETE, ENVS, Case, changed, first_update, snapshot
from doubles import BatchNormAutoencoder, MomentumContrast, PersistentRBM, TinyDNC
from playing import begin, steps_of
from saccade.__main__ import main
from saccade.agents import find_agent, list_agents, make_agent
from saccade.agents.parts.compute import Compute
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import Encoder, FeedForward, Inputs
from saccade.encoders.parts.modes import Adapted, Mode, adapt, augments, shares, unreached
from saccade.envs import make_env
from saccade.envs.diagnostics import MIXING
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training import checkpoint
from saccade.training.bundle import load_bundle, save_bundle
from saccade.training.encoded import EncodedEnv
from saccade.training.encoder_use import FOLDER, EncoderUse
from saccade.training.evaluate import evaluate, evaluate_run, load_agent
from saccade.training.plan import Plan, build, default_plan
from saccade.training.probe import ProbeOptions, find_data
from saccade.training.train import resume, train
from test_learning import QUICK, learn, score
from test_training import same

SPEC = ObservationSpec((6,), low=-1.0, high=1.0)
LEARNERS = {"autoencoder": BatchNormAutoencoder, "rbm": PersistentRBM, "contrast": MomentumContrast}
every_agent = pytest.mark.parametrize("agent", list_agents())
NEEDS_MEMORY = {"drqn"}
agents_without_memory = pytest.mark.parametrize("agent", sorted({*list_agents()} - NEEDS_MEMORY))
WITHOUT_EFFECT = {"inner.encoder.1.bias"}  # batch normalisation follows: its gradient is rounding, which Adam takes up


# --- the wrapper


def test_co_training_adds_the_encoders_own_losses_with_their_weight():
    torch.manual_seed(0)
    learner = BatchNormAutoencoder(SPEC).eval()
    env = make_env(DISCRETE, ENVS)
    batch = agent_cases.trajectory(env)._replace(obs=torch.rand(3, ENVS, 6))
    adapted = adapt(learner, SPEC, "cotrain", weight=0.25)
    assert adapted.window == learner.window
    own = learner.auxiliary_losses(batch, None)
    weighed = adapted.auxiliary_losses(batch, None)
    assert weighed.keys() == own.keys()
    for name, loss in own.items():
        torch.testing.assert_close(weighed[name], 0.25 * loss)


def test_rates_multiply_and_the_rules_optimiser_stays_while_it_learns_by_the_rule():
    (group,) = adapt(PersistentRBM(SPEC), SPEC, "cotrain", rate=0.5).parameter_groups()
    assert (group.learning_rate_factor, group.optimizer) == (5.0, "sgd")
    (group,) = adapt(PersistentRBM(SPEC), SPEC, "finetune", rate=0.5).parameter_groups()
    assert (group.learning_rate_factor, group.optimizer) == (0.5, None)
    query, similarity = adapt(MomentumContrast(SPEC), SPEC, "cotrain", rate=0.5).parameter_groups()
    assert (query.learning_rate_factor, similarity.learning_rate_factor) == (0.5, 0.05)
    assert similarity.max_gradient_norm == 1.0


def test_without_its_own_losses_what_only_they_train_is_left_out():
    learner = BatchNormAutoencoder(SPEC)
    adapted = adapt(learner, SPEC, "finetune")
    assert adapted.window == 0
    assert not adapted.auxiliary_losses(None, None)  # type: ignore[arg-type]  it looks at nothing
    assert all(parameter.requires_grad for parameter in learner.encoder.parameters())
    assert not any(parameter.requires_grad for parameter in learner.decoder.parameters())
    head = torch.nn.Linear(6, 2)
    found = {s.name: (s.parameters, s.rate) for s in shares(torch.nn.Sequential(adapted, head), adapted)}
    counts = [sum(p.numel() for p in part.parameters()) for part in (learner.encoder, learner.decoder)]
    assert found == {"head": (14, 1.0), "encoder": (counts[0], 1.0), "encoder, the rest": (counts[1], None)}


@pytest.mark.parametrize("make", [BatchNormAutoencoder, MomentumContrast, TinyDNC])
def test_looking_for_what_is_reached_changes_nothing(make: Callable[[ObservationSpec], Encoder]):
    encoder = make(SPEC).train()
    next(encoder.children()).eval()
    before, modes = snapshot(encoder), [module.training for module in encoder.modules()]
    state = torch.get_rng_state()
    unreached(encoder, SPEC)
    assert not changed(encoder, before)
    assert [module.training for module in encoder.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_memory_is_reached_as_a_whole_and_keeps_its_state():
    torch.manual_seed(0)
    memory = TinyDNC(SPEC)
    adapted = adapt(memory, SPEC, "finetune", rate=0.1)
    assert all(parameter.requires_grad for parameter in memory.parameters())
    inputs, state = Inputs(torch.rand(3, 2, 6)), memory.initial_state(2)
    for ours, theirs in zip(adapted(inputs, state)[1], memory(inputs, state)[1], strict=True):
        assert torch.equal(ours, theirs)
    assert [leaf.shape for leaf in adapted.initial_state(2)] == [leaf.shape for leaf in state]


def test_what_has_nothing_of_its_own_is_itself_from_scratch_and_cannot_be_co_trained():
    encoder = make_encoder("mlp", SPEC)
    assert adapt(encoder, SPEC, "scratch") is encoder
    assert isinstance(adapt(encoder, SPEC, "scratch", rate=0.5), Adapted)
    with pytest.raises(UserError, match="no losses of its own"):
        adapt(encoder, SPEC, "cotrain")
    with pytest.raises(UserError, match="no gradient of the agent reaches"):
        adapt(make_encoder("flat", SPEC), SPEC, "finetune")


# --- agents


ADAPTED: dict[str, Callable[[ObservationSpec], Encoder]] = {
    **{f"{name}, co-trained": lambda s, make=make: adapt(make(s), s, "cotrain") for name, make in LEARNERS.items()},
}
CASES = {
    f"{agent}: {name}": case
    for agent in list_agents()
    for name, make in ADAPTED.items()
    if agent_cases.takes(case := Case(agent, make, DISCRETE))
}
adapted_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@adapted_case
def test_the_agents_contract_holds_with_an_adapted_encoder(case: Case, tmp_path: Path):
    contract.test_acting_changes_no_parameter_and_no_buffer(case)
    contract.test_an_update_trains_the_whole_encoder(case)
    contract.test_a_loaded_agent_goes_on_exactly(case, tmp_path)


@every_agent
def test_agents_carry_the_state_of_an_adapted_memory(agent: str):
    case = Case(agent, lambda spec: adapt(TinyDNC(spec), spec, "finetune", rate=0.5), DISCRETE)
    if agent_cases.takes(case):
        contract.test_between_actions_the_encoders_state_is_carried(case)


@agents_without_memory
@pytest.mark.parametrize("learner", LEARNERS)
def test_fine_tuning_moves_what_the_agent_sees_with_and_nothing_else(agent: str, learner: str):
    """One update: the features' parameters move, a decoder and the statistics of own losses do not."""
    case = Case(agent, lambda spec: adapt(LEARNERS[learner](spec), spec, "finetune"), DISCRETE)
    going, env = case.build()
    encoder = going.network.encoder
    assert isinstance(encoder, Adapted)
    reached = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    before = snapshot(encoder)
    metrics = first_update(going, env)
    moved = changed(encoder, before) & {name for name, _ in encoder.named_parameters()}
    assert reached - WITHOUT_EFFECT <= moved
    assert not {name for name in moved if "decoder" in name or "similarity" in name or "visible_bias" in name}
    assert not {"loss/reconstruction", "loss/free_energy", "loss/contrast"} & metrics.keys()


@agents_without_memory
def test_agents_learn_while_their_encoder_is_co_trained(agent: str):
    torch.manual_seed(0)
    spec = make_env("diagnostic/noisy", 1).spec.observation
    encoder = adapt(BatchNormAutoencoder(spec), spec, "cotrain", weight=0.1)
    going = learn(agent, "noisy", 600, encoder)
    assert score(going, "noisy") > 0.8


class Picked(FeedForward):
    """Features are some of the numbers that `noisy` was mixed of."""

    def __init__(self, rows: slice):
        super().__init__()
        self.mixing = torch.nn.Parameter(10 * torch.from_numpy(MIXING)[rows])
        self.feature_shape = (len(self.mixing),)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.mixing.T


@agents_without_memory
def test_frozen_features_are_as_good_as_they_are(agent: str):
    """In `noisy`, the faintest direction is worth everything: a code of it alone solves it, one of the rest cannot."""
    for rows, low, high in ((slice(0, 1), 0.95, 1.0), (slice(1, 8), -0.25, 0.25)):
        env = EncodedEnv(make_env("diagnostic/noisy", 8), Picked(rows), Compute())
        config = find_agent(agent).Config(**QUICK.get(agent, {}))
        going = make_agent(agent, env.spec, make_encoder("flat", env.spec.observation), config)
        for _ in steps_of(env, going, begin(going, env), 400):
            pass
        worlds = lambda count, env=env: env.around(make_env("diagnostic/noisy", count))  # noqa: E731
        assert low <= evaluate(going, worlds, 400, seed=1000).mean <= high


# --- the view of the world


def test_a_world_seen_through_an_encoder_shows_features_and_the_true_last_ones():
    torch.manual_seed(0)
    encoder = make_encoder("mlp", ObservationSpec((4,)))
    raw, seen = make_env("CartPole-v1", 3), EncodedEnv(make_env("CartPole-v1", 3), encoder, Compute())
    assert seen.spec.observation == ObservationSpec((64,))
    assert not any(parameter.requires_grad for parameter in encoder.parameters())

    def features(obs: np.ndarray) -> np.ndarray:
        return encoder.read(torch.from_numpy(obs)).detach().numpy()

    np.testing.assert_allclose(seen.reset(5), features(raw.reset(5)), rtol=1e-5, atol=1e-6)
    ends = 0
    for _ in range(60):
        for env in (raw, seen):
            env.send(np.ones(3, np.int64))
        plain, ours = raw.recv(), seen.recv()
        np.testing.assert_allclose(ours.obs, features(plain.obs), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.next_obs, features(plain.next_obs), rtol=1e-5, atol=1e-6)
        for name in ("env_index", "reward", "terminated", "truncated", "discount", "valid"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name))
        ends += int(plain.terminated.sum())
    assert ends


def test_each_observation_is_encoded_once_and_statistics_stay():
    class Counting(BatchNormAutoencoder):
        rows = 0

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            Counting.rows += len(x)
            return super().encode(x)

    env = EncodedEnv(make_env("diagnostic/recall-3", 5), Counting(ObservationSpec((2,))), Compute())
    before = snapshot(env.encoder)
    env.reset(0)
    for _ in range(3):
        env.send(np.zeros(5, np.int64))
        env.recv()
    assert Counting.rows == 4 * 5 + 5  # one of each step, and where the episode ended the next one's first
    assert not changed(env.encoder, before)


def test_a_view_goes_on_as_its_world_does():
    torch.manual_seed(0)
    env = EncodedEnv(make_env("diagnostic/noisy", 4), Picked(slice(0, 3)), Compute())
    env.reset(3)
    env.send(np.zeros(4, np.int64))
    obs, saved = env.recv().obs, env.state_dict()
    other = env.around(make_env("diagnostic/noisy", 4))
    assert saved is not None
    np.testing.assert_array_equal(other.load_state_dict(saved), obs)


def test_a_memory_cannot_be_a_view():
    with pytest.raises(SpecError, match="TinyDNC remembers"):
        EncodedEnv(make_env(DISCRETE, 2), TinyDNC(ObservationSpec((2,))), Compute())


# --- runs


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """An autoencoder for CartPole, with weights that no seed of a run draws."""
    path = tmp_path_factory.mktemp("bundles") / "trained"
    spec = make_env("CartPole-v1", 1).spec.observation
    config = find_encoder("autoencoder").Config(hidden=(16,), code=5)
    torch.manual_seed(1234)
    save_bundle(path, "autoencoder", config, spec, make_encoder("autoencoder", spec, config), {"data": "none"})
    return path


def tiny(encoder: Path | str, mode: Mode, steps: int = 400, agent: str = "dqn", **use: float) -> Plan:
    plan = default_plan(agent, "CartPole-v1", str(encoder), "none", "gru" if agent in NEEDS_MEMORY else None)
    small: dict[str, Any] = {
        "learning_starts": 50,
        "update_interval": 8,
        "replay_capacity": 400,
        "episodes_per_update": 2,
        "rollout_steps": 8,
        "sequence_length": 8,
        "burn_in": 2,
        "sequence_interval": 4,
    }
    small = {name: value for name, value in small.items() if hasattr(plan.agent_config, name)}
    return dataclasses.replace(
        plan,
        run=dataclasses.replace(plan.run, steps=steps, num_envs=3, evaluate_episodes=4, threads=1),
        agent_config=dataclasses.replace(plan.agent_config, **small),
        encoder_use=EncoderUse(mode, **use),
    )


@every_agent
@pytest.mark.parametrize("mode", ["scratch", "frozen", "finetune", "cotrain"])
def test_every_mode_goes_on_exactly_without_the_bundle_it_came_from(
    bundle: Path, tmp_path: Path, agent: str, mode: Mode
):
    shutil.copytree(bundle, tmp_path / "trained")
    said: list[str] = []
    plan = tiny(tmp_path / "trained", mode, 240, agent)
    train(plan, tmp_path / "parts", trackers=[], say=said.append)
    train(dataclasses.replace(plan, run=dataclasses.replace(plan.run, steps=480)), tmp_path / "whole", trackers=[])
    shutil.rmtree(tmp_path / "trained")
    result = resume(tmp_path / "parts", steps=480, trackers=[])
    whole, parts = (checkpoint.load(tmp_path / name / "checkpoint") for name in ("whole", "parts"))
    whole.pop("seconds"), parts.pop("seconds")
    assert same(whole, parts)
    scores = [json.loads((tmp_path / name / "result.json").read_text())["score"] for name in ("whole", "parts")]
    assert scores[0] == scores[1]
    assert evaluate_run(tmp_path / "parts", 4).mean == result["score"]["mean"]
    assert (tmp_path / "parts" / FOLDER).exists() == (mode != "scratch")
    assert said[0].startswith("encoder autoencoder: " + ("random" if mode == "scratch" else "weights from"))


def test_who_trains_is_counted_and_said(bundle: Path, tmp_path: Path):
    """The autoencoder is 4-16-5-16-4: 165 parameters up, 164 down; the head of two actions has 12."""
    expected = {
        "frozen": (12, 329, "the agent sees 5 features instead of float32 [4]"),
        "finetune": (12 + 165, 164, "trains at 0.1 times the agent's rate"),
        "cotrain": (12 + 329, 0, "its own losses times 0.5"),
    }
    for mode, (training, frozen, words) in expected.items():
        use = {"finetune": {"encoder_rate": 0.1}, "cotrain": {"encoder_weight": 0.5}}.get(mode, {})
        said: list[str] = []
        result = train(tiny(bundle, mode, 20, **use), tmp_path / mode, trackers=[], say=said.append)  # type: ignore[arg-type]
        assert result["parameters"] == {"training": training, "frozen": frozen}
        assert words in said[0]
        assert result["encoder_use"]["encoder_mode"] == mode
        assert result["encoder_use"]["bundle"] == bundle.name


def test_weights_begin_where_the_mode_says(bundle: Path, tmp_path: Path):
    trained = load_bundle(bundle).encoder.state_dict()
    env, agent, _ = build(tiny(bundle, "finetune"))
    assert same({name.removeprefix("inner."): v for name, v in agent.network.encoder.state_dict().items()}, trained)
    env, agent, _ = build(tiny(bundle, "frozen"))
    assert isinstance(env, EncodedEnv)
    assert same(dict(env.encoder.state_dict()), trained)
    env, agent, _ = build(tiny(bundle, "scratch"))
    assert not same({n.removeprefix("inner."): v for n, v in agent.network.encoder.state_dict().items()}, trained)


def test_random_features_are_kept_with_the_run(tmp_path: Path):
    plan = tiny("autoencoder", "frozen", 100)
    train(plan, tmp_path / "run", trackers=[])
    kept = load_bundle(tmp_path / "run" / FOLDER)
    assert kept.card["weights"] == "random, of seed 0"
    env, _, _ = build(plan)
    assert isinstance(env, EncodedEnv)
    assert same(dict(env.encoder.state_dict()), dict(kept.encoder.state_dict()))
    seen = load_agent(tmp_path / "run").make_world(2)
    assert seen.spec.observation == env.spec.observation


def test_pixels_are_seen_through_a_frozen_net_and_can_be_watched(tmp_path: Path):
    options = ["--env", "pixels/CartPole-v1", "--env.image-size", "36", "--encoder", "conv", "--encoder.hidden", "8"]
    small = [
        "--preset",
        "none",
        "--steps",
        "60",
        "--learning-starts",
        "20",
        "--threads",
        "1",
        "--evaluate-episodes",
        "1",
    ]
    out = str(tmp_path / "run")
    assert main(["train", "dqn", *options, "--encoder-mode", "frozen", *small, "--out", out]) == 0
    assert main(["evaluate", out, "--episodes", "1", "--video"]) == 0
    assert list((tmp_path / "run").glob("video.*"))
    assert main(["train", "--resume", "--out", out, "--steps", "80"]) == 0


def test_a_bundle_named_again_at_resumption_is_the_one_the_run_knows(bundle: Path, tmp_path: Path, capsys):
    words = ["--encoder", str(bundle), "--preset", "none", "--learning-starts", "50", "--evaluate-episodes", "0"]
    out = str(tmp_path / "run")
    assert main(["train", "dqn", *words, "--steps", "100", "--threads", "1", "--out", out]) == 0
    again = ["train", "dqn", "--resume", "--out", out, "--steps", "150", "--threads", "1"]
    assert main([*again, "--encoder", str(bundle)]) == 0
    assert main([*again, "--encoder", str(tmp_path / "other")]) == 2
    assert "has encoder" in capsys.readouterr().err


def test_a_run_is_a_bundle_of_the_encoder_that_it_trained(bundle: Path, tmp_path: Path, monkeypatch):
    """The next run goes on from what the first has learned; a frozen encoder is passed on as it is."""
    train(tiny(bundle, "finetune", 300), tmp_path / "first", trackers=[])
    _, agent, _ = build(tiny(bundle, "finetune"), directory=tmp_path / "first")
    agent.load_policy(checkpoint.load(tmp_path / "first" / "checkpoint")["agent"])
    learned = {name.removeprefix("inner."): value for name, value in agent.network.encoder.state_dict().items()}
    published = load_bundle(tmp_path / "first")
    assert same(learned, dict(published.encoder.state_dict()))
    assert not same(learned, dict(load_bundle(bundle).encoder.state_dict()))
    assert published.card["trained in an agent"]["steps"] >= 300
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path))
    world = find_data(tmp_path / "first", None, ProbeOptions())  # what a probe judges it by
    assert world.spec.shape == published.spec.shape
    train(tiny(tmp_path / "first", "frozen", 100), tmp_path / "second", trackers=[])
    assert same(learned, dict(load_bundle(tmp_path / "second").encoder.state_dict()))


# --- bad input


def test_noise_tells_who_augments():
    image = ObservationSpec((2, 36, 36), "uint8", 0, 255)
    conv = find_encoder("conv").Config
    assert augments(make_encoder("conv", image, conv(shift=2)), image)
    assert not augments(make_encoder("conv", image), image)


BAD = {
    "unknown mode": (["--encoder-mode", "frozne"], "unknown encoder mode 'frozne'; did you mean 'frozen'?"),
    "nothing to fine-tune": (["--encoder", "mlp", "--encoder-mode", "finetune"], "'mlp' begins with random ones"),
    "nothing to co-train": (["--encoder", "mlp", "--encoder-mode", "cotrain"], "no losses of its own"),
    "negative weight": (["--encoder-mode", "cotrain", "--encoder-weight", "-1"], "--encoder-weight must be above 0"),
    "weight of nothing": (["--encoder-weight", "2"], "--encoder-weight is for --encoder-mode cotrain, not scratch"),
    "zero rate": (["--encoder-rate", "0"], "--encoder-rate must be above 0, not 0.0"),
    "frozen rate": (["--encoder-mode", "frozen", "--encoder-rate", "2"], "a frozen encoder has no learning rate"),
    "no bundle": (["--encoder", "some/where"], "there is no bundle in some/where"),
    "empty folder": (["--encoder", "empty"], "there is no bundle in empty"),
    "other shape": (
        ["--encoder", "bundle", "--env", "Acrobot-v1"],
        "was trained on float32 [4], but Acrobot-v1 shows float32 [6]",
    ),
    "damaged": (["--encoder", "damaged"], "the checksum of encoder.safetensors is wrong"),
    "other size": (["--encoder", "bundle", "--encoder.code", "7"], "do not fit the options --encoder.*"),
    "shifted and frozen": (
        ["--env", "pixels/CartPole-v1", "--encoder", "conv", "--encoder.shift", "4", "--encoder-mode", "frozen"],
        "frozen features cannot be augmented",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line(bundle: Path, tmp_path: Path, monkeypatch, capsys, name: str):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle, "bundle")
    shutil.copytree(bundle, "damaged")
    Path("empty").mkdir()
    weights = bytearray(Path("damaged/encoder.safetensors").read_bytes())
    weights[-1] ^= 1
    Path("damaged/encoder.safetensors").write_bytes(weights)
    words, message = BAD[name]
    assert main(["train", "dqn", *words, "--out", "new"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("saccade: ")
    assert message in line
    assert not Path("new").exists()


def test_a_users_encoder_in_a_run_must_be_named_again(tmp_path: Path):
    source = Path(find_encoder.__code__.co_filename).parent / "autoencoder.py"
    mine = tmp_path / "mine.py"
    mine.write_text(source.read_text().replace("from ..", "from saccade.").replace("from .", "from saccade.encoders."))
    plan = tiny(str(mine), "frozen", 60)
    train(plan, tmp_path / "run", trackers=[])
    with pytest.raises(UserError, match="name it again on the command line"):
        evaluate_run(tmp_path / "run", 2)
    assert evaluate_run(tmp_path / "run", 2, encoder=str(mine)).episodes == 2
