"""An episode as people see it: MP4 where ffmpeg is at hand (extra `[video]`), else GIF.

Where an agent with attention looks glows, and the rest is dark.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..agents.base import Agent
from ..envs import make_env
from ..envs.base import VectorEnv
from ..envs.errors import UserError
from . import gaze
from .evaluate import with_epsilon
from .loop import Position, run
from .plan import Plan

FRAMES_PER_SECOND = 30
MOST_FRAMES = 9_000  # five minutes at 30 a second
GIF_FRAMES = 1_800  # a GIF of more grows past what viewers take


def default_suffix() -> str:
    """`.mp4` if imageio-ffmpeg is installed, else `.gif`."""
    return ".mp4" if importlib.util.find_spec("imageio_ffmpeg") else ".gif"


def record(
    agent: Agent,
    plan: Plan,
    path: Path,
    seed: int,
    epsilon: float = 0.0,
    make_world: Callable[[int], VectorEnv] | None = None,
) -> tuple[float, int]:
    """Play one episode and write what it looks like to `path` (`.mp4` or `.gif`); returns its score and frames.

    `make_world` gives so many copies of the world as the agent sees it; None: as it is.

    Raises:
        SpecError: the world has no picture.
        UserError: another suffix, `.mp4` without imageio-ffmpeg, or the file cannot be written.
    """
    if path.suffix not in (".mp4", ".gif"):
        raise UserError(f"a video ends in .mp4 or .gif, not {path.name!r}")
    if path.suffix == ".mp4" and default_suffix() == ".gif":
        raise UserError("an .mp4 needs imageio-ffmpeg: pip install 'saccade[video]', or write a .gif")
    env = make_world(1) if make_world else make_env(plan.env, 1, plan.env_options)
    score = [0.0, 0.0]
    try:
        frames = _frames(env, agent, seed, epsilon, score)
        path.parent.mkdir(parents=True, exist_ok=True)
        (_write_mp4 if path.suffix == ".mp4" else _write_gif)(frames, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        env.close()
    return score[0], int(score[1])


def _frames(env: VectorEnv, agent: Agent, seed: int, epsilon: float, score: list[float]) -> Iterator[np.ndarray]:
    """uint8 `[H, W, 3]` of one episode, enlarged while small; score and number of frames add up in `score`."""
    actor = with_epsilon(agent, env.spec, epsilon, seed)
    position = Position.begin(env, actor, env.watch(seed))
    for step, _ in run(env, actor, position, explore=False, learn=False):
        if step.valid[0]:
            score[0] += float(step.reward[0])
        if step.terminated[0] or step.truncated[0]:
            return  # the world has begun its next episode already
        score[1] += 1
        frame = gaze.draw(env.render(), gaze.shares(agent, position))
        scale = max(1, 320 // frame.shape[1])
        yield np.ascontiguousarray(frame.repeat(scale, 0).repeat(scale, 1))
        if score[1] >= MOST_FRAMES:
            return


def _write_mp4(frames: Iterator[np.ndarray], path: Path) -> None:
    import imageio_ffmpeg

    first = next(frames)
    height, width = (side - side % 2 for side in first.shape[:2])  # the codec takes even sides only
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=FRAMES_PER_SECOND, macro_block_size=1)
    writer.send(None)
    try:
        for frame in itertools.chain([first], frames):
            writer.send(np.ascontiguousarray(frame[:height, :width]))
    finally:
        writer.close()


def _write_gif(frames: Iterator[np.ndarray], path: Path) -> None:
    pictures = [Image.fromarray(frame).quantize(64) for frame, _ in zip(frames, range(GIF_FRAMES), strict=False)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=1000 // FRAMES_PER_SECOND, loop=0)
