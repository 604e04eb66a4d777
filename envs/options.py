"""Settings of a world, as the command line and run directories hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["standard", "dopamine", "machado"]


@dataclass(frozen=True)
class EnvOptions:
    """What can be set about an environment. None takes the protocol's value."""

    protocol: Protocol = "standard"  # Atari: which published settings to start from, see `envs.atari.PROTOCOLS`
    sticky_actions: float | None = None  # Atari: probability that the last action is repeated instead
    noop_max: int | None = None  # Atari: up to so many idle frames begin an episode
    fire_reset: bool | None = None  # Atari: press FIRE to begin where the game waits for it
    life_loss: bool | None = None  # Atari: losing a life zeroes the discount; never resets, scores stay whole games
    full_actions: bool | None = None  # Atari: all 18 actions instead of those that the game uses
    frame_skip: int | None = None  # Atari, doom: emulator frames per step
    max_frames: int | None = None  # Atari: an episode is truncated after so many emulator frames
    stack: int | None = None  # images: frames in one observation; None: 4 for Atari, 2 for pixels, else 1
    image_size: int | None = None  # images: height and width in pixels; None: 84, 64 for pixels, symbols for minigrid
    grey: bool = False  # doom: shades of grey instead of colours
    flicker: float = 0.0  # probability that a frame is black (Hausknecht and Stone 2015: 0.5, with --env.stack 1)
    threads: int = 0  # emulator threads; 0: as many as there are processors, at most one per environment
    workers: int = 0  # processes for other Gymnasium worlds that step slowly; 0: step them in this process
