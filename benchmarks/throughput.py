"""Environment steps per second with learning included, beside a peer by turns, and where the time goes."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.throughput, or saccade bench throughput")

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..envs.errors import UserError
from ..training import device
from ..training.plan import Plan, default_plan
from .parts import peer_policies, peer_sb3
from .parts.interleave import Advance, Elsewhere, Speed, alternate
from .parts.ours import Ours, breakdown
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number

kind = "DQN's steps per second with learning, against a peer by turns, and where the time goes"

SLOWER = 0.10  # a build that has lost more than this share of its speed is flagged
BREAKDOWN_SECONDS = 8.0

# what both sides have
_PLAIN = {"double": False, "dueling": False, "n_step": 1, "prioritised": False, "learning_rate_decay_steps": 0}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "cartpole": ("CartPole-v1", {"epsilon_initial": 0.04, "epsilon_final": 0.04}),
    "breakout": (
        "ALE/Breakout-v5",
        {
            "learning_rate": 1e-4,
            "batch_size": 32,
            "replay_capacity": 20_000,
            "learning_starts": 1_000,
            "update_interval": 4,
            "updates_per_interval": 1,
            "target_interval": 8_000,
            "clip_rewards": True,
            "epsilon_initial": 0.05,
            "epsilon_final": 0.05,
        },
    ),
}
POLICIES = ("a2c", "ppo")  # on Breakout with their presets, but a constant rate
COLLECT = {"breakout": 4}  # SB3's train_freq: 4 steps of 8 environments, then 8 gradient steps


def task_plan(task: str, threads: int) -> Plan:
    """The settings that both sides share; exploration is constant, so that every slice is alike."""
    if task in POLICIES:
        plan = default_plan(task, TASKS["breakout"][0])
        constant = dataclasses.replace(plan.agent_config, learning_rate_decay_steps=0)
        return dataclasses.replace(plan, agent_config=constant, run=dataclasses.replace(plan.run, threads=threads))
    env, settings = TASKS[task]
    plan = default_plan("dqn", env)
    if task == "cartpole":
        run = dataclasses.replace(plan.run, threads=1)  # networks this small only lose by sharing, on either side
    else:
        run = dataclasses.replace(plan.run, threads=threads, num_envs=8)
    return dataclasses.replace(
        plan,
        run=run,
        agent_config=dataclasses.replace(plan.agent_config, **_PLAIN | settings),
    )


def _ours(task: str, threads: int) -> Callable[[int], Any]:
    """Our side: goes on for so many steps; asked for 0, it says where the time goes and how it computes."""
    ours = Ours(task_plan(task, threads))

    def answer(steps: int) -> Any:
        if steps:
            return ours.advance(steps)
        parts = breakdown(ours, BREAKDOWN_SECONDS) if task == "breakout" else None
        return parts, device.describe(ours.compute)

    return answer


def _peer(task: str, threads: int) -> Advance:
    """SB3 as its users run it."""
    plan = task_plan(task, threads)
    torch.set_num_threads(plan.run.threads)
    if task in POLICIES:
        model = peer_policies.make_model(plan)
    else:
        model = peer_sb3.make_model(plan, steps=1, collect=COLLECT.get(task))
    model.learn(1)

    def advance(steps: int) -> int:
        begin = model.num_timesteps
        model.learn(steps, reset_num_timesteps=False)
        return model.num_timesteps - begin

    return advance


def measure(options: BenchOptions) -> Report:
    """Time DQN on the chosen tasks; with `--against sb3` both sides take turns."""
    return time_tasks(options, tuple(TASKS) if options.which == "both" else (options.which,))


def time_tasks(options: BenchOptions, tasks: Sequence[str]) -> Report:
    """Time `tasks`, keys of `TASKS` or of `POLICIES`, one after another."""
    if options.against == "sb3":
        peer_sb3.require_sb3()
    before = _read_earlier(options.compare) if options.compare is not None else None
    threads = options.threads or os.cpu_count() or 1
    data: dict[str, Any] = {"tasks": {}}
    tables: list[Table] = []
    for task in tasks:
        plan = task_plan(task, threads)
        sides = {"saccade": Elsewhere(_ours, task, threads)}
        if options.against == "sb3":
            sides["sb3"] = Elsewhere(_peer, task, threads)
        for advance in sides.values():
            advance(_first_update(plan))
        speeds = alternate(sides, rounds=options.rounds, seconds=options.slice_seconds, title=task)
        parts, compute = sides["saccade"](0)
        data["tasks"][task] = _task_json(task, plan, compute, speeds)
        tables.append(_speed_table(plan, speeds))
        if parts is not None:
            data["breakdown"] = parts
            tables.append(_breakdown_table(parts, plan.run.num_envs))
        for side in sides.values():
            side.close()
    problems = compare(before, data, device_name()) if before is not None else []
    return Report(tables, [*_notes(options), *problems], data | {"machine": device_name()}, problems=problems)


def _first_update(plan: Plan) -> int:
    """Environment steps after which both sides learn."""
    config = plan.agent_config
    if plan.agent in POLICIES:
        return config.rollout_steps * plan.run.num_envs
    return config.learning_starts + config.update_interval


def compare(before: dict[str, Any], now: dict[str, Any], machine: str) -> list[str]:
    """What is slower than in an earlier result: speeds on the same machine, otherwise ratios to the peer."""
    problems = []
    for task in before["tasks"].keys() & now["tasks"].keys():
        old, new = before["tasks"][task], now["tasks"][task]
        if before.get("machine") == machine:
            was, is_now, what = old["saccade"]["median"], new["saccade"]["median"], "steps/s"
        elif "ratio" in old and "ratio" in new:
            was, is_now, what = old["ratio"], new["ratio"], "times the peer"
        else:
            problems.append(f"{task}: the earlier result is of another machine and has no peer to compare by")
            continue
        if is_now < (1 - SLOWER) * was:
            loss = 100 * (1 - is_now / was)
            problems.append(
                f"SLOWER: {task} runs at {number(is_now)} {what}, earlier {number(was)} ({loss:.0f} % less)"
            )
    return problems


def device_name() -> str:
    """Processor and cores: what must be equal for speeds to be compared."""
    machine = device.machine()
    return f"{machine['processor']}, {machine['cores']} cores"


def _read_earlier(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {"tasks": data["tasks"], "machine": data["machine"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--compare {path}: not a throughput.json that this benchmark has written") from None


def _task_json(task: str, plan: Plan, compute: str, speeds: dict[str, Speed]) -> dict[str, Any]:
    sides: dict[str, Any] = {name: speed._asdict() for name, speed in speeds.items()}
    if "sb3" in speeds:
        sides["ratio"] = speeds["saccade"].median / speeds["sb3"].median
        sides["sb3_settings"] = (
            peer_policies.hyper_parameters(plan)
            if plan.agent in POLICIES
            else peer_sb3.hyper_parameters(plan, 1, COLLECT.get(task))
        )
    settings = dataclasses.asdict(plan.agent_config)
    return sides | {"settings": settings, "num_envs": plan.run.num_envs, "compute": compute}


def _speed_table(plan: Plan, speeds: dict[str, Speed]) -> Table:
    rows = []
    for name, speed in speeds.items():
        ratio = number(speed.median / speeds["sb3"].median) if "sb3" in speeds else "–"
        rows.append((name, number(speed.median), f"{number(speed.low)} to {number(speed.high)}", ratio))
    threads = f"{plan.run.threads} torch thread{'s' * (plan.run.threads > 1)}"
    envs = f"{plan.run.num_envs} environment{'s' * (plan.run.num_envs > 1)}"
    slices = len(next(iter(speeds.values())).slices)
    title = f"{plan.agent.upper()} on {plan.env}: {envs}, {threads}, {slices} slice{'s' * (slices > 1)} each by turns"
    return Table(title, ("", "steps/s (median)", "slices from to", "times SB3"), rows)


def _breakdown_table(parts: dict[str, dict[str, float]], envs: int) -> Table:
    loop, alone = parts["loop"], parts["alone"]
    names = ("learning", "sampling", "inference", "emulation", "storing", "the rest", "all")
    rows = [
        (
            name + (" (waiting for it)" if name == "emulation" else ""),
            f"{loop[name]:.2f}",
            f"{100 * loop[name] / loop['all']:.0f} %",
            f"{alone[name]:.2f}" if name in alone else "–",
        )
        for name in names
    ]
    title = f"Where the time of a Breakout step goes, in ms per step of {envs} environments"
    return Table(title, ("part", "in the loop", "share", "by itself"), rows)


def _notes(options: BenchOptions) -> list[str]:
    notes = [
        "Both sides learn while they are timed. DQN is plain (no double, dueling, n-step or prioritised replay) and "
        "explores at a constant rate; A2C and PPO have their presets at a constant learning rate. The first round is a "
        "warm-up and not counted; the ratio is one of medians.",
        "Each side has a process of its own, with its own allocator and settings, and waits while the other runs.",
        "In the loop the emulators run while the agent learns, so only the waiting for them counts there.",
    ]
    if options.against == "sb3":
        notes.append(
            "What differs. CartPole: SB3 steps Gymnasium's environment in Python; networks, bursts and batches are "
            "equal. Breakout: SB3 runs as its users run it, with make_atari_env (wrappers in Python, one process), "
            "float32, and a replay that stores whole stacks twice; ours has native emulator threads, a replay of "
            "single frames, and bfloat16 where the processor multiplies it in hardware. Both hold 20,000 transitions "
            "and take one gradient step of 32 per 4 steps (SB3: train_freq=4, gradient_steps=8, 8 environments). A2C "
            "and PPO: the same worlds on either side, and no replay; head and encoder are clipped apart in ours."
        )
    return notes


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("throughput")
