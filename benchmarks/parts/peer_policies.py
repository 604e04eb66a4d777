"""Stable-Baselines3's A2C and PPO on our terms: equal hyper-parameters and worlds, a constant learning rate."""

from __future__ import annotations

from typing import Any

from ...agents import a2c, ppo
from ...envs.errors import UserError
from ...training.plan import Plan
from .peer_sb3 import make_worlds, require_sb3


def hyper_parameters(plan: Plan) -> dict[str, Any]:
    """Arguments of SB3's A2C or PPO that mean what `plan` means; `optimizer` is not theirs, but says what A2C takes.

    Raises:
        UserError: a setting that they have no counterpart of.
    """
    config: a2c.Config | ppo.Config = plan.agent_config
    if config.scale_values:
        raise UserError("SB3 learns values in their own units: compare with --no-scale-values")
    common = {
        "policy": "MlpPolicy" if plan.encoder == "mlp" else "CnnPolicy",
        "learning_rate": config.learning_rate,
        "gamma": config.discount,
        "n_steps": config.rollout_steps,
        "gae_lambda": config.gae_lambda,
        "normalize_advantage": config.normalise_advantages,
        "ent_coef": config.entropy_weight,
        "vf_coef": config.value_weight / 2,  # theirs weighs the squared error, ours half of it
        "max_grad_norm": float("inf") if config.max_gradient_norm is None else config.max_gradient_norm,
    }
    if isinstance(config, a2c.Config):
        if config.optimizer != "rmsprop":
            raise UserError("SB3's A2C is compared with RMSProp: give --optimizer rmsprop")
        return common | {"optimizer": {"alpha": config.rmsprop_decay, "eps": config.optimizer_epsilon}}
    return common | {
        "batch_size": config.rollout_steps * plan.run.num_envs // config.minibatches,
        "n_epochs": config.epochs,
        "clip_range": config.clip,
        "clip_range_vf": config.value_clip,
        "target_kl": config.target_kl,
        "policy_kwargs": {"optimizer_kwargs": {"eps": config.adam_epsilon}},
    }


def make_model(plan: Plan) -> Any:
    """SB3's A2C or PPO for `plan`; A2C with the RMSProp whose constant stands inside the root, as ours."""
    require_sb3()
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

    settings = hyper_parameters(plan)
    if optimizer := settings.pop("optimizer", None):
        settings["policy_kwargs"] = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": optimizer}
    model = A2C if plan.agent == "a2c" else PPO
    return model(env=make_worlds(plan), seed=plan.run.seed, device="cpu", verbose=0, **settings)
