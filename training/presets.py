"""Settings that work, by agent and world. What the command line gives goes before them.

Only data: a preset names fields of the agent's `Config`, the encoder's `Config` and `RunConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any


@dataclass(frozen=True)
class Preset:
    agent: str
    env: str  # a pattern, such as "ALE/*"
    source: str  # where the numbers come from
    agent_config: dict[str, Any] = field(default_factory=dict)
    encoder_config: dict[str, Any] = field(default_factory=dict)  # used with `encoder` only
    run: dict[str, Any] = field(default_factory=dict)
    encoder: str | None = None
    memory: str | None = None
    memory_config: dict[str, Any] = field(default_factory=dict)  # used with `memory` only
    memory_reads_last: bool = False  # the last action and reward


_Q_ATARI: dict[str, Any] = {  # of Q-learners, with a memory and without
    "learning_rate": 1e-4,
    "learning_rate_decay_steps": 2_000_000,
    "adam_epsilon": 1e-5,
    "replay_capacity": 1_000_000,
    "learning_starts": 20_000,
    "target_interval": 2_000,
    "double": True,
    "dueling": True,
    "n_step": 3,
    "prioritised": True,
    "importance_steps": 1_500_000,
    "clip_rewards": True,
    "epsilon_final": 0.01,
    "epsilon_decay_steps": 150_000,
}

# the first that fits is taken
PRESETS: dict[str, Preset] = {
    "cartpole": Preset(
        "dqn",
        "CartPole-v*",
        "the tuned settings of rl-baselines3-zoo, with 3-step returns and a lower, falling rate, which steady it",
        agent_config={
            "learning_rate": 1e-3,
            "learning_rate_decay_steps": 50_000,
            "n_step": 3,
            "batch_size": 64,
            "replay_capacity": 100_000,
            "learning_starts": 1_000,
            "update_interval": 256,
            "updates_per_interval": 128,
            "target_interval": 10,
            "epsilon_final": 0.04,
            "epsilon_decay_steps": 8_000,
        },
        encoder_config={"hidden": (256, 256)},
        run={"num_envs": 1, "steps": 50_000},
        encoder="mlp",
    ),
    "reinforce-cartpole": Preset(
        "reinforce",
        "CartPole-v*",
        "our own trials: at least 475 on 10 of 10 seeds",
        agent_config={"learning_rate": 3e-3, "learning_rate_decay_steps": 300_000},
        run={"num_envs": 8, "steps": 300_000},
    ),
    "cartpole-pixels": Preset(
        "dqn",
        "pixels/CartPole-v*",
        "our own trials with small conv nets from scratch on frames of 40x40: 500 within 15,000 steps",
        agent_config={
            "learning_rate": 5e-4,
            "n_step": 3,
            "batch_size": 64,
            "update_interval": 16,
            "updates_per_interval": 8,
            "target_interval": 100,
            "epsilon_final": 0.04,
            "epsilon_decay_steps": 8_000,
            "hidden": (256,),
        },
        run={"num_envs": 4, "steps": 20_000},
    ),
    "pendulum": Preset(
        "reinforce",
        "Pendulum-v*",
        "our own trials",
        agent_config={"learning_rate": 3e-3, "learning_rate_decay_steps": 4_000_000, "discount": 0.9},
        run={"num_envs": 8, "steps": 4_000_000},
    ),
    "atari": Preset(
        "dqn",
        "ALE/*",
        "Hessel et al. 2018 table 1, hurried for short runs: faster, falling rate, faster target and exploration",
        agent_config=_Q_ATARI,
        run={"num_envs": 8, "steps": 2_000_000, "evaluate_episodes": 30, "evaluate_epsilon": 0.05},
    ),
    "a2c-cartpole": Preset(
        "a2c",
        "CartPole-v*",
        "the settings of rl-baselines3-zoo, with values in units of the returns: policy and values share a net",
        agent_config={"learning_rate_decay_steps": 500_000, "entropy_weight": 0.0, "scale_values": True},
        run={"num_envs": 8, "steps": 500_000},
    ),
    "ppo-cartpole": Preset(
        "ppo",
        "CartPole-v*",
        "the tuned settings of rl-baselines3-zoo, with values in units of the returns: policy and values share a net",
        agent_config={
            "learning_rate": 1e-3,
            "learning_rate_decay_steps": 100_000,
            "discount": 0.98,
            "rollout_steps": 32,
            "epochs": 20,
            "minibatches": 1,
            "gae_lambda": 0.8,
            "entropy_weight": 0.0,
            "scale_values": True,
        },
        run={"num_envs": 8, "steps": 100_000},
    ),
    "ppo-masked-cartpole": Preset(
        "ppo",
        "masked/CartPole-v*",
        "our own trials: short rollouts of few environments learn to 200 and get worse again",
        agent_config={
            "learning_rate": 1e-3,
            "learning_rate_decay_steps": 400_000,
            "rollout_steps": 128,
            "epochs": 10,
            "minibatches": 4,
            "entropy_weight": 0.0,
            "scale_values": True,
        },
        encoder_config={"hidden": (64,)},
        run={"num_envs": 16, "steps": 400_000},
        encoder="mlp",
        memory="lstm",
        memory_config={"hidden": 64},
    ),
    "a2c-atari": Preset(
        "a2c",
        "ALE/*",
        "Mnih et al. 2016, synchronous: the settings of rl-baselines3-zoo, and a falling rate as in the paper",
        agent_config={"learning_rate_decay_steps": 10_000_000, "value_weight": 0.5, "clip_rewards": True},
        run={"num_envs": 16, "steps": 10_000_000, "evaluate_episodes": 30, "evaluate_epsilon": 0.01},
    ),
    "a3c-atari": Preset(
        "a3c",
        "ALE/*",
        "a2c's, in two processes; not tuned",
        agent_config={"learning_rate_decay_steps": 10_000_000, "value_weight": 0.5, "clip_rewards": True},
        run={"workers": 2, "num_envs": 8, "steps": 10_000_000, "evaluate_episodes": 30, "evaluate_epsilon": 0.01},
    ),
    "ppo-atari": Preset(
        "ppo",
        "ALE/*",
        "Schulman et al. 2017, table 5, but the squared error of values weighs 0.5, as in published code",
        agent_config={"learning_rate_decay_steps": 10_000_000, "clip": 0.1, "clip_rewards": True},
        run={"num_envs": 8, "steps": 10_000_000, "evaluate_episodes": 30, "evaluate_epsilon": 0.01},
    ),
    "pqn-cartpole": Preset(
        "pqn",
        "CartPole-v*",
        "our own trials",
        agent_config={
            "learning_rate": 1e-3,
            "learning_rate_decay_steps": 300_000,
            "epochs": 4,
            "minibatches": 4,
            "trace_lambda": 0.9,
            "epsilon_final": 0.05,
            "epsilon_decay_steps": 50_000,
        },
        encoder_config={"hidden": (128, 128), "layer_norm": True},
        run={"num_envs": 16, "steps": 300_000},
        encoder="mlp",
    ),
    "pqn-atari": Preset(
        "pqn",
        "ALE/*",
        "Gallici et al. 2024 and their code, but a falling rate",
        agent_config={"learning_rate_decay_steps": 10_000_000, "epsilon_decay_steps": 1_000_000, "clip_rewards": True},
        encoder_config={"layer_norm": True},
        run={"num_envs": 128, "steps": 10_000_000, "evaluate_episodes": 30, "evaluate_epsilon": 0.01},
        encoder="conv",
    ),
    "unreal-maze": Preset(
        "unreal",
        "maze/*",
        "Jaderberg et al. 2016, with a smaller share for pixel control, which drowned the rest in our own trials",
        run={"num_envs": 16, "steps": 600_000},
        memory="lstm",
        memory_config={"hidden": 256},
        memory_reads_last=True,
    ),
    "unreal-atari": Preset(
        "unreal",
        "ALE/*",
        "a2c's, beside the tasks of Jaderberg et al. 2016; not tuned",
        agent_config={"pixel_control": 0.001, "learning_rate_decay_steps": 10_000_000, "clip_rewards": True},
        run={"num_envs": 16, "steps": 10_000_000, "evaluate_episodes": 30, "evaluate_epsilon": 0.01},
        memory="lstm",
        memory_config={"hidden": 256},
        memory_reads_last=True,
    ),
    "drqn-recall": Preset(
        "drqn",
        "diagnostic/recall*",
        "our own trials: all of 50 steps within 10,000; sequences as long as the recall, from the cue to the answer",
        agent_config={
            "learning_rate": 1e-3,
            "sequence_length": 50,
            "burn_in": 0,
            "sequence_interval": 50,
            "n_step": 5,
            "replay_capacity": 50_000,
            "learning_starts": 3_200,
            "update_interval": 64,
            "epsilon_final": 0.1,
            "epsilon_decay_steps": 20_000,
        },
        run={"num_envs": 16, "steps": 40_000},
        memory="lstm",
        memory_config={"hidden": 64},
    ),
    "drqn-masked-cartpole": Preset(
        "drqn",
        "masked/CartPole-v*",
        "our own trials; values are rescaled, because an LSTM's outputs of at most 1 take long to add up to 100",
        agent_config={
            "learning_rate": 1e-3,
            "learning_rate_decay_steps": 80_000,
            "sequence_length": 20,
            "burn_in": 10,
            "sequence_interval": 10,
            "n_step": 3,
            "rescale": True,
            "hidden": (128,),
            "replay_capacity": 50_000,
            "learning_starts": 2_000,
            "update_interval": 16,
            "target_interval": 500,
            "epsilon_final": 0.02,
        },
        encoder_config={"hidden": (128,)},
        run={"num_envs": 8, "steps": 80_000},
        encoder="mlp",
        memory="lstm",
        memory_config={"hidden": 64},
    ),
    "drqn-atari": Preset(
        "drqn",
        "ALE/*",
        "dqn's, with about as many transitions learned from per step, in sequences of 20 after 10 of burn-in",
        agent_config=_Q_ATARI | {"batch_size": 16, "sequence_length": 20, "burn_in": 10, "update_interval": 32},
        run={"num_envs": 8, "steps": 1_500_000, "evaluate_episodes": 30, "evaluate_epsilon": 0.05},
        memory="lstm",
        memory_config={"hidden": 256},
    ),
}


def find_preset(agent: str, env_id: str) -> str | None:
    """The name of the first preset for `agent` in the world `env_id`."""
    return next((name for name, p in PRESETS.items() if p.agent == agent and fnmatch(env_id, p.env)), None)


def default_encoder(env_id: str) -> str:
    """An encoder that can read what the world shows, judged by its id: convolutions for pictures."""
    return "conv" if env_id.startswith(("ALE/", "pixels/", "maze/", "doom/")) else "mlp"
