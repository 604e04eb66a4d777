"""All settings of a run as one value that can be saved, loaded and built from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..agents import find_agent, make_agent
from ..agents.base import Agent
from ..agents.parts.actor_learner import among_others
from ..agents.parts.compute import Compute
from ..encoders import find_encoder
from ..envs import make_env
from ..envs.base import VectorEnv
from ..envs.errors import UnknownNameError, UserError
from ..envs.options import EnvOptions
from . import device as devices
from . import encoder_use
from .bundle import load_bundle
from .encoded import EncodedEnv
from .encoder_use import EncoderUse
from .presets import PRESETS, default_encoder, find_preset
from .serial import from_json, to_json

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class RunConfig:
    """What a run does, whichever agent it trains."""

    steps: int = 100_000  # environment steps, over all environments
    seed: int = 0  # of parameters, exploration and worlds
    num_envs: int = 8  # copies of the world that are stepped together
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: devices.Precision = "auto"  # auto: bfloat16 for images where it is fast
    threads: int = 0  # of torch on the processor; 0 = choose
    workers: int = 0  # asynchronous actor-learners, processes with num_envs worlds and one thread each; 0 = none
    cluster: str | None = None  # a Ray cluster for the workers: auto, or its address
    wire: Literal["float32", "bfloat16"] = "float32"  # how gradients and parameters cross the cluster's network
    compile: bool = False  # torch.compile the update, of dqn
    save_interval_seconds: float = 300.0  # between checkpoints
    save_replay: bool = True  # keep the replay in checkpoints; without it a resumed run fills it again
    evaluate_episodes: int = 100  # after training, on fresh seeds; 0 = none
    evaluate_epsilon: float = 0.0  # share of random actions in that evaluation


@dataclass(frozen=True)
class Plan:
    """A run's settings; `config.json` of a run directory holds one."""

    agent: str
    env: str
    encoder: str
    run: RunConfig
    agent_config: Any
    encoder_config: Any
    env_options: EnvOptions
    encoder_use: EncoderUse = field(default_factory=EncoderUse)
    bundle: str | None = None  # where `encoder`, its settings and its weights came from; a run keeps a copy of its own
    memory: str | None = None  # the built-in memory behind `encoder`
    memory_config: Any = None  # its settings

    def save(self, directory: Path) -> None:
        (directory / CONFIG_FILE).write_text(json.dumps(to_json(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path, encoder: str | None = None) -> Plan:
        """The plan of a run directory. A user's own encoder must be named again as `encoder`.

        Raises:
            UserError: no run there, or its settings are damaged or unknown.
        """
        path, data = directory / CONFIG_FILE, read_config(directory)
        later = {"encoder_use", "bundle", "memory", "memory_config"}  # than the first runs
        needed = {field.name for field in dataclasses.fields(cls)} - later
        missing = needed - set(data if isinstance(data, dict) else ())
        if missing:
            others = {"task": "fit", "learner": "pretrain"}
            for kind in (command for name, command in others.items() if isinstance(data, dict) and name in data):
                raise UserError(f"{path} is of a run of `saccade {kind}`, where nobody acts; its result.json judges it")
            raise UserError(f"{path} lacks {', '.join(sorted(missing))}; it is damaged or not saccade's")
        if unknown := set(data) - {field.name for field in dataclasses.fields(cls)}:
            raise UnknownNameError(
                f"setting in {path}", min(unknown), [field.name for field in dataclasses.fields(cls)]
            )
        if encoder is not None:
            data["encoder"] = encoder
        encoder_entry = find_encoder(data["encoder"], user=encoder is not None)
        return cls(
            data["agent"],
            data["env"],
            data["encoder"],
            from_json(RunConfig, data["run"], "run"),
            from_json(find_agent(data["agent"], user=False).Config, data["agent_config"], "agent_config"),
            from_json(encoder_entry.Config, data["encoder_config"], "encoder_config"),
            from_json(EnvOptions, data["env_options"], "env_options"),
            from_json(EncoderUse, data.get("encoder_use", {}), "encoder_use"),
            data.get("bundle"),
            *load_memory(data),
        )


def read_config(directory: Path) -> Any:
    """What `config.json` of a run directory holds, whatever kind of run it is of.

    Raises:
        UserError: no run there, or it cannot be read.
    """
    path = directory / CONFIG_FILE
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{directory} is not a run directory: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def load_memory(data: dict[str, Any]) -> tuple[str | None, Any]:
    """(the memory behind the encoder, its settings) of what `config.json` holds; (None, None) where there is none.

    Raises:
        UserError: they are damaged or unknown.
    """
    name = data.get("memory")
    if not name:
        return None, None
    return name, from_json(find_encoder(name, user=False).Config, data.get("memory_config"), "memory_config")


def default_plan(
    agent: str, env: str, encoder: str | None = None, preset: str = "auto", memory: str | None = None
) -> Plan:
    """The settings before the user's own: a preset's, or the defaults.

    Args:
        encoder: its name, or the directory of a bundle.
        preset: "auto" takes the first that fits, "none" the plain defaults, otherwise its name.
        memory: behind the encoder; "none" where the preset's is not wanted.

    Raises:
        UnknownNameError: no such agent, encoder, memory or preset.
        UserError: no such bundle, or it is damaged.
    """
    if preset not in ("auto", "none", *PRESETS):
        raise UnknownNameError("preset", preset, PRESETS)
    agent_entry = find_agent(agent)
    name = find_preset(agent, env) if preset == "auto" else preset
    chosen = PRESETS.get(name or "none")
    if chosen is not None and chosen.agent != agent:
        raise UserError(f"preset {name!r} is for agent {chosen.agent!r}, not {agent!r}")
    encoder = encoder or (chosen and chosen.encoder) or default_encoder(env)
    use, encoder_config, bundle = EncoderUse(), None, encoder_use.find_bundle(encoder)
    if bundle is not None:
        encoder, encoder_config = load_bundle(bundle)[:2]
        use = EncoderUse("finetune")
    elif chosen is not None and chosen.encoder == encoder:
        encoder_config = find_encoder(encoder).Config(**chosen.encoder_config)
    if memory is None and chosen is not None:
        memory = chosen.memory
    memory_config = None
    if memory == "none":
        memory = None
    elif memory is not None:
        use = replace(use, memory_reads_last=chosen is not None and chosen.memory_reads_last)
        settings = chosen.memory_config if chosen is not None and chosen.memory == memory else {}
        memory_config = find_encoder(memory, user=False).Config(**settings)
    return Plan(
        agent,
        env,
        encoder,
        RunConfig(**(chosen.run if chosen else {})),
        agent_entry.Config(**(chosen.agent_config if chosen else {})),
        encoder_config or find_encoder(encoder).Config(),
        EnvOptions(),
        use,
        bundle,
        memory,
        memory_config,
    )


def check(plan: Plan) -> None:
    """Raises UserError for numbers that make no sense."""
    run = plan.run
    for name in ("steps", "num_envs", "save_interval_seconds"):
        if getattr(run, name) <= 0:
            raise UserError(f"{name} must be positive, not {getattr(run, name)}")
    for name in ("threads", "workers", "evaluate_episodes", "seed"):
        if getattr(run, name) < 0:
            raise UserError(f"{name} must not be negative, but is {getattr(run, name)}")
    if run.cluster is not None and not run.workers:
        raise UserError("--cluster is where workers are: say how many, such as --workers 8")
    decay_steps = getattr(plan.agent_config, "learning_rate_decay_steps", 0)
    if 0 < decay_steps < run.steps:
        raise UserError(
            f"the learning rate would be 0 after {decay_steps:,} of {run.steps:,} steps; "
            f"give --learning-rate-decay-steps {run.steps}, or 0 to keep it constant"
        )
    if not 0 <= run.evaluate_epsilon <= 1:
        raise UserError(f"evaluate_epsilon must lie between 0 and 1, not {run.evaluate_epsilon}")
    encoder_use.check(plan)


def build(
    plan: Plan, *, num_envs: int | None = None, directory: Path | None = None
) -> tuple[VectorEnv, Agent, Compute]:
    """The world as the agent sees it, the agent, and how its encoder computes; parameters are drawn from the seed.

    Args:
        num_envs: copies of the world; None: the plan's.
        directory: of the run, where it has begun already, so that its encoder's first weights lie there.

    Raises:
        UserError: a part does not exist, does not fit, or is set to what makes no sense.
    """
    check(plan)
    env = make_env(plan.env, num_envs or plan.run.num_envs, plan.env_options)
    compute = devices.choose(
        env.spec.observation,
        device=plan.run.device,
        precision=plan.run.precision,
        threads=plan.run.threads,
        compile=plan.run.compile,
    )
    torch.manual_seed(plan.run.seed)
    encoder = encoder_use.first_encoder(plan, env.spec.observation, directory)
    env, encoder, agents_compute = encoder_use.place(plan, encoder, env, compute)
    agent = make_agent(plan.agent, env.spec, encoder, plan.agent_config, agents_compute, plan.run.seed)
    return env, among_others(agent, plan.agent) if plan.run.workers else agent, compute


def make_world(plan: Plan, num_envs: int, like: VectorEnv) -> VectorEnv:
    """New copies of the plan's world, seen as `like` is, which `build` made of it."""
    env = make_env(plan.env, num_envs, plan.env_options)
    return like.around(env) if isinstance(like, EncodedEnv) else env
