"""Stable-Baselines3's DQN on our terms: equal hyper-parameters, worlds, threads, evaluation and result files.

`python -m saccade.benchmarks.parts.peer_sb3 --env CartPole-v1 --steps 50000 --seed 0 --threads 1 --out DIR`

What SB3 cannot do is left out and said by `differences`: double and dueling networks, n-step and prioritised replay.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ale_py
import gymnasium
import numpy as np
import torch

from ...agents.base import Action
from ...agents.dqn import Config
from ...encoders.base import Inputs, State
from ...envs import make_env
from ...envs.errors import UserError
from ...training import device
from ...training.evaluate import FRESH_SEEDS, evaluate
from ...training.plan import Plan, default_plan
from ...training.trackers import LENGTH, SCORE, JsonLines

MISSING = "--against sb3 needs Stable-Baselines3: pip install 'saccade[sb3]'"


@dataclass(frozen=True)
class Options:
    env: str  # the world's id
    steps: int  # environment steps
    out: Path  # run directory
    seed: int = 0
    threads: int = 1  # of torch


def require_sb3() -> None:
    """Raises UserError where Stable-Baselines3, or what its Atari wrappers need, is not installed."""
    try:
        import cv2  # noqa: F401
        import stable_baselines3  # noqa: F401
    except ImportError as error:
        raise UserError(f"{MISSING} ({error})") from None


def differences(config: Config) -> list[str]:
    """Switches of ours that SB3's DQN does not have."""
    switches = {"double": config.double, "dueling": config.dueling, "prioritised": config.prioritised}
    return [name for name, is_on in switches.items() if is_on]


def hyper_parameters(plan: Plan, steps: int, collect: int | None = None) -> dict[str, Any]:
    """Arguments of SB3's DQN that mean what `plan` means.

    Args:
        steps: of the whole run, of which SB3's exploration schedule is a fraction.
        collect: vector steps between bursts of gradient steps; None: as many as the plan says, at least one.

    Raises:
        UserError: a setting that SB3's DQN has no counterpart of.
    """
    config: Config = plan.agent_config
    envs = plan.run.num_envs
    if not config.huber:
        raise UserError("SB3's DQN always uses the Huber loss: compare with --huber")
    collect = collect or max(config.update_interval // envs, 1)
    optimizer = {"optimizer_kwargs": {"eps": config.adam_epsilon}}
    if plan.encoder == "mlp":
        network: dict[str, Any] = {"net_arch": [*plan.encoder_config.hidden, *config.hidden]}
    else:  # CnnPolicy is Nature's network, with its 512 units among the features
        network = {"net_arch": list(config.hidden)}
    return {
        "policy": "MlpPolicy" if plan.encoder == "mlp" else "CnnPolicy",
        "learning_rate": config.learning_rate,
        "buffer_size": config.replay_capacity,
        "learning_starts": config.learning_starts,
        "batch_size": config.batch_size,
        "gamma": config.discount,
        "n_steps": config.n_step,
        "tau": config.target_rate,
        "train_freq": collect,
        "gradient_steps": max(collect * envs * config.updates_per_interval // config.update_interval, 1),
        "target_update_interval": config.target_interval,
        "exploration_initial_eps": config.epsilon_initial,
        "exploration_final_eps": config.epsilon_final,
        "exploration_fraction": max(min(config.epsilon_decay_steps / steps, 1.0), 1e-9),
        "max_grad_norm": float("inf") if config.max_gradient_norm is None else config.max_gradient_norm,
        "policy_kwargs": network | optimizer,
    }


def make_worlds(plan: Plan) -> Any:
    """SB3's vector environment of the plan's worlds, as its users would make them of the same ids."""
    require_sb3()
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    count, seed = plan.run.num_envs, plan.run.seed
    if plan.env.startswith("ALE/"):
        gymnasium.register_envs(ale_py)
        # its AtariWrapper skips frames itself; sticky actions are off, as in our "standard" protocol
        kwargs = {"frameskip": 1, "repeat_action_probability": 0.0}
        return VecFrameStack(make_atari_env(plan.env, n_envs=count, seed=seed, env_kwargs=kwargs), n_stack=4)
    return make_vec_env(plan.env, n_envs=count, seed=seed)


def make_model(plan: Plan, steps: int, collect: int | None = None) -> Any:
    """SB3's DQN for `plan`, in the worlds that its users would make of the same ids."""
    require_sb3()
    from stable_baselines3 import DQN

    settings = hyper_parameters(plan, steps, collect)
    if decay_steps := plan.agent_config.learning_rate_decay_steps:
        rate = settings["learning_rate"]
        settings["learning_rate"] = lambda remaining: rate * max(0.0, 1 - (1 - remaining) * steps / decay_steps)
    return DQN(env=make_worlds(plan), seed=plan.run.seed, device="cpu", verbose=0, **settings)


class _Actor:
    """An SB3 model where `evaluate` expects an agent."""

    device = "cpu"

    def __init__(self, model: Any):
        self.model = model
        model.policy.set_training_mode(False)

    def initial_state(self, batch_size: int) -> State:
        return ()

    @torch.inference_mode()
    def act(self, inputs: Inputs, state: State, reset: Any, *, explore: bool) -> Action:
        return Action(self.model.q_net(inputs.obs[0]).argmax(-1).numpy(), state, {})


def train(options: Options) -> dict[str, Any]:
    """Train, evaluate as ours is evaluated, and leave `metrics.jsonl` and `result.json` in `options.out`."""
    torch.set_num_threads(options.threads)
    plan = default_plan("dqn", options.env)
    plan = Plan(**{**vars(plan), "run": type(plan.run)(**{**vars(plan.run), "seed": options.seed})})
    model = make_model(plan, options.steps)
    options.out.mkdir(parents=True)
    begin = time.perf_counter()
    model.learn(options.steps)
    seconds = time.perf_counter() - begin
    _write_episodes(model, options.out, seconds)
    episodes = plan.run.evaluate_episodes
    score = evaluate(
        _Actor(model),  # type: ignore[arg-type]
        lambda count: make_env(plan.env, count, plan.env_options),
        episodes,
        FRESH_SEEDS + options.seed,
        plan.run.evaluate_epsilon,
    )
    result = {
        "agent": "sb3 dqn",
        "env": options.env,
        "encoder": plan.encoder,
        "steps": model.num_timesteps,
        "seconds": round(seconds, 2),
        "steps_per_second": round(model.num_timesteps / seconds, 1),
        "score": asdict(score),
        "seed": options.seed,
        "settings": hyper_parameters(plan, options.steps),
        "threads": torch.get_num_threads(),
        "versions": device.versions(),
        "commit": device.commit(),
        "machine": device.machine(),
    }
    temporary = options.out / "result.tmp"
    temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    temporary.rename(options.out / "result.json")
    return result


def _write_episodes(model: Any, folder: Path, seconds: float) -> None:
    """The episodes that SB3's monitors recorded, in the order in which they ended."""
    returns, lengths = model.env.env_method("get_episode_rewards"), model.env.env_method("get_episode_lengths")
    count = len(returns)
    episodes = []
    for scores, steps in zip(returns, lengths, strict=True):
        ends = np.cumsum(steps) * count  # environments take their steps together
        episodes += list(zip(ends.tolist(), scores, steps, strict=True))
    lines = JsonLines(folder / "metrics.jsonl")
    for end, score, length in sorted(episodes):
        lines.log(end, seconds * end / model.num_timesteps, {SCORE: float(score), LENGTH: float(length)})
    lines.close()


if __name__ == "__main__":
    import tyro

    try:
        train(tyro.cli(Options))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
