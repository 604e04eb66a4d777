"""Control tasks: a policy for every cell of an image that changes its pixels most, learned by n-step Q-learning, and
one for every feature that activates it most (Jaderberg et al. 2016, sections 3.1 and 4.1).

The heads are the paper's, but for the map: it says 7x7, from which its deconvolution makes 16x16 values; its 20x20 ask
for 9x9. Targets come from the same parameters, not from older ones. Errors are halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...encoders.base import Trajectory
from ...envs.errors import SpecError, UserError
from ...envs.spec import EnvSpec
from .auxiliary_tasks import AuxiliaryTask, Window, bootstrapped, known_transitions, mean_over
from .q_losses import dueling

KERNEL, STRIDE = 4, 2  # of the deconvolution


def grid_shape(height: int, width: int, cell: int) -> tuple[int, int]:
    """(rows, columns) of cells of `cell` x `cell` pixels in the middle of an image: even numbers where there are two or
    more, as the deconvolution makes them. 84x84 pixels in cells of 4 have 20x20.

    Raises:
        UserError: a cell is larger than the image.
    """
    if not 1 <= cell <= min(height, width):
        raise UserError(f"cells of {cell}x{cell} pixels do not fit into images of {height}x{width}; lower pixel_cell")
    rows, columns = (side // cell for side in (height, width))
    return rows - rows % 2 if rows > 1 else 1, columns - columns % 2 if columns > 1 else 1


def pixel_changes(frames: Tensor, cell: int) -> Tensor:
    """Mean absolute change of each cell from frame to frame, over its pixels and channels, as a share of 255.

    Args:
        frames: uint8 `[T + 1, B, C, H, W]`.
        cell: pixels, see `grid_shape`.

    Returns:
        float32 `[T, B, rows, columns]`, 0 to 1.
    """
    height, width = frames.shape[-2:]
    rows, columns = grid_shape(height, width, cell)
    top, left = (height - rows * cell) // 2, (width - columns * cell) // 2
    frames = frames[..., top : top + rows * cell, left : left + columns * cell]
    before, after = frames[:-1], frames[1:]
    change = torch.maximum(before, after) - torch.minimum(before, after)  # no difference of uint8 is below 0 so
    return F.avg_pool2d(change.float().mean(2), cell) / 255


def control_loss(q: Tensor, action: Tensor, r_t: Tensor, discount_t: Tensor, known: Tensor) -> Tensor:
    """Half the squared error of n-step Q-learning, summed over cells, its mean over transitions (section 3.1, eq. 1).

    G_t = r_t + discount_t (r_{t+1} + ... + max_a q), to the end of the sequence or the episode.

    Args:
        q: `[T + 1, B, A, *cells]` of all observations.
        action: int64 `[T, B]`.
        r_t: `[T, B, *cells]`.
        discount_t: `[T, B]`, 0 after the end.
        known: bool `[T, B]`: the transition counts.
    """
    target = bootstrapped(r_t, discount_t, q[1:].detach().amax(2), known)
    index = action.reshape(*action.shape, 1, *[1] * (q.dim() - 3)).expand(-1, -1, 1, *q.shape[3:])
    error = target - q[:-1].gather(2, index).squeeze(2)
    return 0.5 * (mean_over(known) * error.square().flatten(2).sum(2)).sum()


class GridQ(nn.Module):
    """Features `[..., D]` to values float32 `[..., A, rows, columns]`: a map, decoded into a dueling pair."""

    def __init__(self, features: int, actions: int, cells: tuple[int, int], channels: int = 32):
        super().__init__()
        self.cells = cells
        # the smallest map whose deconvolution covers all cells; what is too much is cut off
        height, width = (max(1, math.ceil((side - KERNEL) / STRIDE) + 1) for side in cells)
        self.map = nn.Sequential(
            nn.Linear(features, channels * height * width), nn.ReLU(), nn.Unflatten(1, (channels, height, width))
        )
        self.decode = nn.ConvTranspose2d(channels, 1 + actions, KERNEL, STRIDE)

    def forward(self, features: Tensor) -> Tensor:
        rows, columns = self.cells
        decoded = self.decode(self.map(features.reshape(-1, features.shape[-1])))[..., :rows, :columns].float()
        return _duel(decoded).reshape(*features.shape[:-1], -1, rows, columns)


class DenseQ(nn.Module):
    """Features `[..., D]` to values float32 `[..., A, units]`, dueling."""

    def __init__(self, features: int, actions: int, units: int):
        super().__init__()
        self.layer = nn.Linear(features, (1 + actions) * units)
        self.units = units

    def forward(self, features: Tensor) -> Tensor:
        decoded = self.layer(features.reshape(-1, features.shape[-1])).float().unflatten(1, (-1, self.units))
        return _duel(decoded).reshape(*features.shape[:-1], -1, self.units)


def _duel(decoded: Tensor) -> Tensor:
    """`[N, 1 + A, *cells]`, values first, to `[N, A, *cells]`."""
    value, advantage = decoded[:, :1].movedim(1, -1), decoded[:, 1:].movedim(1, -1)
    return dueling(value, advantage).movedim(-1, 1)


class PixelControl(AuxiliaryTask):
    """Learns to change each cell of what is seen."""

    def __init__(self, features: int, spec: EnvSpec, steps: int, *, cell: int = 4, discount: float = 0.9):
        """`features` as the agent's heads read them.

        Raises:
            SpecError: the world shows no images, or actions are not discrete.
            UserError: a cell is larger than the image.
        """
        super().__init__()
        require_choices(spec)
        if not spec.observation.is_image:
            raise SpecError(
                f"pixel control needs images; {spec.id} shows {spec.observation.describe()}. Give --pixel-control 0"
            )
        self.window, self.cell, self.discount = Window(steps), cell, discount
        self.channels = spec.observation.frame_shape[0]  # of the newest frame of a stack
        _, height, width = spec.observation.shape
        self.q = GridQ(features, spec.action.count, grid_shape(height, width, cell))

    def losses(self, batch: Trajectory, features: Tensor) -> dict[str, Tensor]:
        reward = pixel_changes(batch.obs[:, :, -self.channels :], self.cell)
        known, discount = known_transitions(batch), self.discount * batch.discount
        q = self.q(features.flatten(2))
        return {"pixel_control": control_loss(q, batch.action, reward, discount, known)}


class FeatureControl(AuxiliaryTask):
    """Learns to activate each feature of the perception; of a map, each place, over all its channels.

    The paper takes the units of the second hidden layer.
    """

    def __init__(
        self,
        features: int,
        spec: EnvSpec,
        steps: int,
        perceive: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        *,
        discount: float = 0.9,
    ):
        """`perceive` maps observations `[T, B, ...]` to what is to be activated, `[T, B, *shape]`.

        Raises:
            SpecError: actions are not discrete.
        """
        super().__init__()
        require_choices(spec)
        self.window, self.perceive, self.discount = Window(steps), perceive, discount
        actions = spec.action.count
        self.q: nn.Module = (
            GridQ(features, actions, (shape[1], shape[2]))
            if len(shape) == 3
            else DenseQ(features, actions, math.prod(shape))
        )

    def losses(self, batch: Trajectory, features: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            active = self.perceive(batch.obs[1:]).float()
        active = active.mean(2) if active.dim() == 5 else active.flatten(2)
        known, discount = known_transitions(batch), self.discount * batch.discount
        q = self.q(features.flatten(2))
        return {"feature_control": control_loss(q, batch.action, active, discount, known)}


def require_choices(spec: EnvSpec) -> None:
    """Raises SpecError where actions are not discrete."""
    if not spec.action.is_discrete:
        raise SpecError(f"control tasks need discrete actions; {spec.id} has {spec.action.describe()}")
