"""Steps per second of A2C and PPO on Breakout with learning included, beside a peer by turns."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.policy_throughput, or saccade bench policy_throughput")

from .parts.plan import BenchOptions
from .parts.report import Report
from .throughput import POLICIES, time_tasks

kind = "steps per second of A2C and PPO on Breakout with learning, against a peer by turns"


def measure(options: BenchOptions) -> Report:
    """Time both; with `--against sb3` both sides take turns."""
    return time_tasks(options, POLICIES)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("policy_throughput")
