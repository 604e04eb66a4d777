"""The data set of a pretraining run, and who plays where it is recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import data
from ..data import Dataset, Policy
from ..encoders.base import Inputs
from ..envs import make_env
from ..envs.errors import UserError
from ..envs.options import EnvOptions
from . import checkpoint
from .evaluate import load_agent, with_epsilon
from .pretrain_plan import FRAMES, PretrainPlan
from .serial import to_json

RANDOM_SHARE = 0.05  # of the actions, where they are discrete: what is always the same teaches little


def load_data(plan: PretrainPlan) -> Dataset:
    """The data set that a plan names, as the run sees it."""
    run = plan.run
    if not plan.data.startswith(FRAMES):
        return data.load_examples(plan.data, seed=run.seed)
    world = plan.data.removeprefix(FRAMES)
    policy = trained_policy(Path(run.policy), world, plan.env_options, run.seed) if run.policy else None
    return data.load_examples(
        plan.data, seed=run.seed, frames=run.frames, step=run.step, policy=policy, options=plan.env_options
    )


def fingerprint(dataset: Dataset) -> str:
    """Tells data sets apart by their sizes and by 64 examples, so that a resumed run notices other data."""
    digest = hashlib.sha256(repr([dataset.spec, *map(len, (dataset.train, dataset.validation, dataset.test))]).encode())
    index = torch.linspace(0, len(dataset.train) - 1, 64, device=dataset.train.label.device).long()
    digest.update(dataset.train.take(index)["x"].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def provenance(plan: PretrainPlan) -> dict[str, Any]:
    """What a card says of the data, beside their name: of which draw they are, and how frames were recorded."""
    run = plan.run
    found: dict[str, Any] = {"seed": run.seed}
    if plan.data.startswith(FRAMES):
        found |= {"frames": run.frames, "step": run.step, "policy": run.policy or "random"}
        found |= {f"env.{name}": value for name, value in to_json(plan.env_options).items() if value is not None}
    return found


def trained_policy(directory: Path, env_id: str, options: EnvOptions, seed: int) -> Policy:
    """The agent of run directory `directory`, greedy but for a share of random actions.

    Args:
        options: of the world in the recording.

    Raises:
        UserError: no trained agent there, or one of another world, with a memory, or behind a frozen encoder.
    """
    player = load_agent(directory)
    plan, agent = player.plan, player.agent
    if plan.env != env_id:
        raise UserError(f"the agent in {directory} plays {plan.env}, not {env_id}; take data env:{plan.env}")
    if agent.initial_state(1):
        raise UserError(f"the agent in {directory} has a memory, and recordings need one without")
    shown, seen = make_env(env_id, 1, options), player.make_world(1)
    spec, expected = shown.spec, seen.spec.observation
    shown.close()
    seen.close()
    if plan.encoder_use.encoder_mode == "frozen":
        raise UserError(f"the agent in {directory} sees through a frozen encoder, so it cannot play for a recording")
    if spec.observation != expected:
        raise UserError(
            f"the agent in {directory} sees {expected.describe()}, and the recording would show "
            f"{spec.observation.describe()}; give the --env options of its run"
        )
    actor = with_epsilon(agent, spec, RANDOM_SHARE if spec.action.is_discrete else 0.0, seed)

    def act(obs: np.ndarray) -> np.ndarray:
        seen = torch.from_numpy(obs).unsqueeze(0).to(agent.device)
        return actor.act(Inputs(seen), (), None, explore=False).action

    newest = checkpoint.latest(directory / "checkpoint")
    assert newest is not None  # it was loaded
    # another state of the same agent is another policy
    digest = hashlib.sha256((newest / "manifest.json").read_bytes()).hexdigest()[:12]
    return Policy(f"{plan.agent}-{digest}", act)
