"""Where an agent looks: the shares of its attention, drawn over the frames it is shown."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ..agents.base import Agent
from ..encoders.base import WithMemory
from .loop import Position

DIM = 0.35  # what is left of the brightness where nothing is looked at
GLOW, COLOUR = 0.5, (255, 210, 90)  # so much of the colour at most, where more is looked at than elsewhere


@torch.no_grad()
def shares(agent: Agent, position: Position) -> np.ndarray | None:
    """The shares float32 `[H, W]` of the places of the map that is looked at next in the first environment, or None
    for an agent whose memory has no `look`."""
    encoder = agent.network.encoder
    look = getattr(encoder.memory, "look", None) if isinstance(encoder, WithMemory) else None
    if look is None:
        return None
    assert isinstance(encoder, WithMemory)
    was_training = encoder.training
    encoder.eval()
    try:
        maps = encoder.perceive(torch.from_numpy(position.obs[None, :1]).to(agent.device))[0]
        state = agent.initial_state(1) if position.reset[0] else tuple(leaf[:1] for leaf in position.state)
        return look(maps, state)[0].float().cpu().numpy()
    finally:
        encoder.train(was_training)


def draw(frame: np.ndarray, found: np.ndarray | None) -> np.ndarray:
    """`frame` uint8 `[H, W, 3]`, dark where shares `found` are below an even one, glowing where they are above; None:
    as it is. A glance that is spread evenly changes nothing."""
    if found is None:
        return frame
    height, width = frame.shape[:2]
    even = Image.fromarray((found * found.size).astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    times = np.asarray(even)[:, :, None]  # an even share
    light = DIM + (1 - DIM) * times.clip(0, 1)
    glow = GLOW * (1 - 1 / times.clip(1))
    return ((1 - glow) * light * frame + glow * np.array(COLOUR)).round().astype(np.uint8)
