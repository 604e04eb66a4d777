"""The switch `--encoder-mode`: which weights an agent's encoder begins with, who trains it, and what is kept of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..agents.base import Agent
from ..agents.parts.compute import Compute
from ..encoders import list_encoders, make_encoder, with_memory
from ..encoders.base import Encoder, WithMemory
from ..encoders.parts.modes import Adapted, Mode, Share, adapt, augments, shares
from ..envs.base import VectorEnv
from ..envs.errors import SpecError, UnknownNameError, UserError
from ..envs.spec import ObservationSpec
from .bundle import FOLDER as BUNDLE_FOLDER
from .bundle import Bundle, is_bundle, load_bundle, read_card, save_bundle
from .encoded import EncodedEnv

if TYPE_CHECKING:
    from .plan import Plan

FOLDER = "encoder"  # in a run directory: the weights that its encoder began with, as a bundle
READER = "flat"  # the encoder through which agents read ready-made features
MODES: tuple[str, ...] = get_args(Mode)
WHAT = {
    "scratch": "trained by the agent's gradient",
    "frozen": "frozen",
    "finetune": "trained on by the agent's gradient",
    "cotrain": "trained by the agent's gradient and by its own losses",
}


@dataclass(frozen=True)
class EncoderUse:
    """How the encoder takes part in the agent's learning; see `encoders.parts.modes`."""

    encoder_mode: Mode = "scratch"  # who trains the encoder; finetune by default where --encoder names a bundle
    encoder_rate: float = 1.0  # learning rate of the encoder, times the agent's
    encoder_weight: float = 1.0  # cotrain: of the encoder's own losses, beside the agent's
    memory_reads_last: bool = False  # the memory also reads the last action and reward


def check(plan: Plan) -> None:
    """Raises UserError for settings that make no sense, such as going on from weights that are not there."""
    use, encoder, bundle = plan.encoder_use, plan.encoder, plan.bundle
    mode, rate, weight = use.encoder_mode, use.encoder_rate, use.encoder_weight
    if mode not in MODES:
        raise UnknownNameError("encoder mode", mode, MODES)
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(f"--encoder-rate must be above 0, not {rate}; an encoder that does not train is frozen")
    if not (math.isfinite(weight) and weight > 0):
        raise UserError(f"--encoder-weight must be above 0, not {weight}; --encoder-mode finetune has no such losses")
    if mode == "finetune" and bundle is None:
        raise UserError(
            f"--encoder-mode finetune goes on from trained weights, but {encoder!r} begins with random ones: name a "
            "bundle that `saccade pretrain` made, or leave the mode out"
        )
    if mode == "frozen" and rate != 1:
        raise UserError("a frozen encoder has no learning rate: leave --encoder-rate out")
    if mode != "cotrain" and weight != 1:
        raise UserError(f"--encoder-weight is for --encoder-mode cotrain, not {mode}")
    if use.memory_reads_last and plan.memory is None:
        raise UserError("--memory-reads-last is for a memory: name one with --memory, such as lstm")


def bundle_path(word: str) -> str | None:
    """The absolute path of the bundle that the word behind `--encoder` means; None where it names an encoder."""
    path = Path(word).expanduser()
    if word in list_encoders() or word.endswith(".py") or not (path.is_dir() or "/" in word):
        return None
    return str(path.resolve())


def find_bundle(word: str) -> str | None:
    """`bundle_path`, where there is one.

    Raises:
        UserError: it is a path, but no bundle lies there.
    """
    path = bundle_path(word)
    if path is not None and not is_bundle(path):
        raise UserError(
            f"there is no bundle in {word}: `saccade pretrain NAME --data DATA --out {word}` makes one; built-in "
            f"encoders: {', '.join(list_encoders())}"
        )
    return path


def first_encoder(plan: Plan, spec: ObservationSpec, kept: Path | None) -> Encoder:
    """The plan's encoder, for observations of `spec`, with the weights it begins with: of a bundle, or random ones.

    Args:
        kept: directory of the run, where it has begun already: its own copy of the weights counts.

    Raises:
        SpecError: it cannot read such observations, or was trained on others.
        UserError: the bundle is missing or damaged, or does not fit the encoder's settings.
    """
    mode = plan.encoder_use.encoder_mode
    if mode == "scratch" or (plan.bundle is None and (mode != "frozen" or kept is None)):
        return make_encoder(plan.encoder, spec, plan.encoder_config)
    bundle = str(kept / FOLDER) if kept is not None else str(plan.bundle)
    trained = _load(plan, bundle)
    if (trained.spec.shape, trained.spec.dtype, trained.spec.vocabulary) != (spec.shape, spec.dtype, spec.vocabulary):
        raise SpecError(
            f"the encoder in {bundle} was trained on {trained.spec.describe()}, but {plan.env} shows "
            f"{spec.describe()}; set --env.image-size and --env.stack, or pretrain on frames of this world"
        )
    encoder = make_encoder(plan.encoder, trained.spec, plan.encoder_config)  # scaled as when it was trained
    try:
        encoder.load_state_dict(trained.encoder.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"the weights in {bundle} do not fit the options --encoder.*, leave them out: {error}"
        ) from None
    return encoder


def place(plan: Plan, encoder: Encoder, env: VectorEnv, compute: Compute) -> tuple[VectorEnv, Encoder, Compute]:
    """The world, the encoder and the computing that the agent gets.

    A frozen encoder becomes a view of the world, and the agent reads the features that it shows, by default in float32.
    """
    use, spec = plan.encoder_use, env.spec.observation
    if use.encoder_mode != "frozen":
        adapted = adapt(encoder, spec, use.encoder_mode, use.encoder_rate, use.encoder_weight)
        return env, _with_memory(plan, adapted, env), compute
    if augments(encoder, spec):
        raise UserError(
            "frozen features cannot be augmented: agents and replay see no image to shift; leave out the option that "
            f"makes encoder {plan.encoder!r} augment (--encoder.shift), or choose another --encoder-mode"
        )
    env = EncodedEnv(env, encoder, compute)
    plain = replace(compute, bfloat16=plan.run.precision == "bfloat16", channels_last=False)
    return env, _with_memory(plan, make_encoder(READER, env.spec.observation), env), plain


def _with_memory(plan: Plan, perception: Encoder, env: VectorEnv) -> Encoder:
    """`perception` in front of the plan's memory, if it has one; see `encoders.with_memory` for errors."""
    if plan.memory is None:
        return perception
    action = env.spec.action if plan.encoder_use.memory_reads_last else None
    return with_memory(perception, plan.memory, plan.memory_config, action)


def seen_with(agent: Agent) -> Encoder:
    """The agent's encoder as it is adapted, without the memory behind it."""
    encoder = agent.network.encoder
    assert isinstance(encoder, Encoder)
    return encoder.perception if isinstance(encoder, WithMemory) else encoder


def keep(plan: Plan, env: VectorEnv, directory: Path) -> None:
    """Copy the weights that the encoder began with into a run directory, so that it needs no other.

    Random weights that train are not kept: checkpoints hold them.
    """
    if isinstance(env, EncodedEnv):
        card = read_card(plan.bundle) if plan.bundle else {"weights": f"random, of seed {plan.run.seed}"}
        spec = env.env.spec.observation if plan.bundle is None else _load(plan, plan.bundle).spec
        save_bundle(directory / FOLDER, plan.encoder, plan.encoder_config, spec, env.encoder, card)
    elif plan.bundle and plan.encoder_use.encoder_mode != "scratch":
        save_bundle(directory / FOLDER, *_load(plan, plan.bundle))


def publish(plan: Plan, env: VectorEnv, agent: Agent, directory: Path, card: dict[str, Any]) -> None:
    """Save the encoder as it is at the end of a run, so that the run directory counts as a bundle."""
    encoder, spec = seen_with(agent), env.spec.observation
    if isinstance(env, EncodedEnv):
        encoder, spec = env.encoder, env.env.spec.observation
    elif isinstance(encoder, Adapted):
        encoder = encoder.inner
    kept = directory / FOLDER
    if is_bundle(kept):  # what it was trained to read first scales what it reads
        spec = _load(plan, str(kept)).spec
    save_bundle(directory / BUNDLE_FOLDER, plan.encoder, plan.encoder_config, spec, encoder, card)


def _load(plan: Plan, bundle: str) -> Bundle:
    return load_bundle(bundle, None if plan.encoder in list_encoders() else plan.encoder)


def trains(env: VectorEnv, agent: Agent) -> list[Share]:
    """What trains how fast, and what does not."""
    encoder = agent.network.encoder
    assert isinstance(encoder, Encoder)
    found = shares(agent.network, encoder)
    if isinstance(env, EncodedEnv):
        found.append(Share("encoder", sum(p.numel() for p in env.encoder.parameters()), None))
    return found


def count(found: list[Share]) -> dict[str, int]:
    """Numbers of parameters, `training` and `frozen`."""
    return {
        "training": sum(share.parameters for share in found if share.rate is not None),
        "frozen": sum(share.parameters for share in found if share.rate is None),
    }


def explain(plan: Plan, env: VectorEnv, agent: Agent) -> str:
    """What the encoder does, and exactly what trains, in lines for people."""
    use, weights = plan.encoder_use, "random weights"
    if plan.bundle and use.encoder_mode != "scratch":
        weights = f"weights from {plan.bundle}"
    what = WHAT[use.encoder_mode] + (f" times {use.encoder_weight:g}" if use.encoder_mode == "cotrain" else "")
    lines = [f"encoder {plan.encoder}: {weights}, {what}"]
    encoder = seen_with(agent)
    if isinstance(encoder, Adapted) and not encoder.weight and encoder.inner.window:
        lines[0] += "; its own losses are off"
    if isinstance(env, EncodedEnv):
        seen = env.env.spec.observation.describe()
        lines.append(f"  the agent sees {env.spec.observation.size} features instead of {seen}")
    if plan.memory:
        lines.append(
            f"  memory {plan.memory} behind it"
            + (", which also reads the last action and reward" * use.memory_reads_last)
        )
    for share in trains(env, agent):
        rate = f"trains at {share.rate:g} times the agent's rate" if share.rate is not None else "does not train"
        lines.append(f"  {share.name:24} {share.parameters:>12,} parameters, {rate}")
    return "\n".join(lines)
