"""Four little learners that between them use everything an encoder may do; the contract is proved on them.

A batch-norm autoencoder (buffers that change in training mode), an RBM with persistent chains (buffers that change in
`loss`, plain gradient descent), a contrastive learner with a momentum copy (`after_update`, `augment`), and a tiny
differentiable neural computer (a state with seven parts, one of them learned at its start).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from saccade.encoders.base import Encoder, FeedForward, Group, Inputs, Stage, State, Trajectory, keep_state, reset_state
from saccade.envs.errors import SpecError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn
from torch.nn import functional as F


def real_observations(batch: Trajectory) -> Tensor:
    """Those of `batch.obs[:-1]` that are no padding, `[N, ...]`."""
    return batch.obs[:-1][batch.mask]


def require_numbers(spec: ObservationSpec, name: str) -> None:
    if spec.dtype != "float32" or spec.vocabulary:
        raise SpecError(f"encoder {name!r} reads float32 numbers, not {spec.describe()}")


class BatchNormAutoencoder(FeedForward):
    """Its batch statistics are buffers that change in training mode only."""

    window = 1

    def __init__(self, spec: ObservationSpec, units: int = 16, code: int = 6):
        super().__init__()
        require_numbers(spec, "autoencoder")
        self.feature_shape = (code,)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(spec.size, units), nn.BatchNorm1d(units), nn.ELU(), nn.Linear(units, code)
        )
        self.decoder = nn.Sequential(nn.ELU(), nn.Linear(code, spec.size))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"reconstruction": self._error(batch["x"], self.encode(batch["x"]))}

    def stages(self) -> Sequence[Stage]:
        return [Stage("autoencoder", list(self.parameters()), self.loss)]

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decoder(self.encode(x)).view_as(x)

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        x = real_observations(batch)
        codes = self.encode(x) if features is None else features[batch.mask]
        return {"reconstruction": self._error(x, codes).mean()}

    def _error(self, x: Tensor, codes: Tensor) -> Tensor:
        return (self.decoder(codes) - x.flatten(1)).square().sum(1)


class PersistentRBM(FeedForward):
    """Bernoulli units; its chains are a buffer that changes in `loss` only (PCD; Tieleman 2008)."""

    window = 1

    def __init__(self, spec: ObservationSpec, hidden: int = 8, chains: int = 16):
        super().__init__()
        require_numbers(spec, "rbm")
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), spec.size) for bound in (spec.low, spec.high))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise SpecError(f"encoder 'rbm' needs bounded observations, not {spec.describe()} without bounds")
        self.feature_shape = (hidden,)
        self.low: Tensor
        self.register_buffer("low", torch.tensor(low), persistent=False)
        self.range: Tensor
        self.register_buffer("range", torch.tensor(high - low), persistent=False)
        self.chains: Tensor
        self.register_buffer("chains", torch.rand(chains, spec.size).round())
        self.weight = nn.Parameter(torch.randn(spec.size, hidden) * 0.1)
        self.visible_bias = nn.Parameter(torch.zeros(spec.size))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def probabilities(self, x: Tensor) -> Tensor:
        """Observations `[N, ...]` as probabilities of the visible units `[N, V]`."""
        return (x.flatten(1) - self.low) / self.range

    def encode(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.probabilities(x) @ self.weight + self.hidden_bias)

    def free_energy(self, v: Tensor) -> Tensor:
        return -v @ self.visible_bias - F.softplus(v @ self.weight + self.hidden_bias).sum(1)

    @torch.no_grad()
    def _gibbs_step(self) -> None:
        hidden = torch.bernoulli(torch.sigmoid(self.chains @ self.weight + self.hidden_bias))
        self.chains.copy_(torch.bernoulli(torch.sigmoid(hidden @ self.weight.T + self.visible_bias)))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A scalar whose gradient is minus the contrastive divergence."""
        if self.training:
            self._gibbs_step()
        data, model = self.free_energy(self.probabilities(batch["x"])), self.free_energy(self.chains.clone())
        return {"free_energy": data.mean() - model.mean()}

    def stages(self) -> Sequence[Stage]:
        return [Stage("rbm", list(self.parameters()), self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return self.loss({"x": real_observations(batch)})

    def parameter_groups(self) -> list[Group]:
        return [Group("rbm", list(self.parameters()), learning_rate_factor=10.0, optimizer="sgd")]


class MomentumContrast(FeedForward):
    """Two views of an observation have like codes, by InfoNCE against a slowly following copy (He et al. 2020)."""

    window = 1
    momentum = 0.9

    def __init__(self, spec: ObservationSpec, units: int = 16, code: int = 6):
        super().__init__()
        require_numbers(spec, "contrast")
        self.feature_shape = (code,)
        self.query = nn.Sequential(nn.Flatten(), nn.Linear(spec.size, units), nn.ELU(), nn.Linear(units, code))
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.similarity = nn.Parameter(torch.eye(code))

    def encode(self, x: Tensor) -> Tensor:
        return self.query(x)

    def augment(self, obs: Tensor) -> Tensor:
        """Moved by one draw per sequence."""
        return obs + 0.1 * torch.randn_like(obs[:1])

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        first, second = (self.augment(batch["x"].unsqueeze(0)).squeeze(0) for _ in range(2))
        logits = F.normalize(self.query(first), dim=1) @ self.similarity @ F.normalize(self.key(second), dim=1).T
        return {"contrast": F.cross_entropy(10 * logits, torch.arange(len(logits)))}

    def stages(self) -> Sequence[Stage]:
        return [Stage("contrast", [p for p in self.parameters() if p.requires_grad], self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return self.loss({"x": real_observations(batch)})

    def parameter_groups(self) -> list[Group]:
        return [
            Group("query", list(self.query.parameters())),
            Group("similarity", [self.similarity], learning_rate_factor=0.1, max_gradient_norm=1.0),
        ]

    @torch.no_grad()
    def after_update(self) -> None:
        for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)


class TinyDNC(Encoder):
    """A differentiable neural computer (Graves et al. 2016, Methods) with N slots of W numbers and R read heads.

    Its state: memory `[B, N, W]`, usage, precedence and write weights `[B, N]`, link `[B, N, N]`, read weights
    `[B, R, N]`, read vectors `[B, R, W]`, and the controller's `[B, H]`, which begins at a learned vector.
    """

    def __init__(self, spec: ObservationSpec, slots: int = 6, width: int = 4, heads: int = 2, units: int = 12):
        super().__init__()
        require_numbers(spec, "dnc")
        self.feature_shape = (units,)
        self.slots, self.width, self.heads = slots, width, heads
        self.controller = nn.GRUCell(spec.size + heads * width, units)
        self.start = nn.Parameter(torch.randn(units) * 0.1)
        self._sizes = [heads * width, heads, width, 1, width, width, heads, 1, 1, 3 * heads]
        self.interface = nn.Linear(units, sum(self._sizes))
        self.output = nn.Linear(units + heads * width, units)

    def initial_state(self, batch_size: int) -> State:
        n, w, r = self.slots, self.width, self.heads
        shapes = ((n,), (n,), (n,), (n, n), (r, n), (r, w))
        zeros = [self.start.new_zeros(batch_size, *shape) for shape in shapes]
        return (self.start.new_full((batch_size, n, w), 1e-6), *zeros, self.start.expand(batch_size, -1))

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        obs = inputs.obs.flatten(2)
        initial = self.initial_state(obs.shape[1])
        features = []
        for t, x in enumerate(obs):
            state = reset_state(state, initial, None if reset is None else reset[t])
            y, new = self._step(x, state)
            state = keep_state(state, new, None if inputs.mask is None else inputs.mask[t])
            features.append(y)
        return torch.stack(features), state

    def _step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        memory, usage, precedence, last_write, link, last_read, vectors, hidden = state
        hidden = self.controller(torch.cat([x, vectors.flatten(1)], 1), hidden)
        parts = self.interface(hidden).split(self._sizes, 1)
        read_key, read_strength, write_key, write_strength, erase, value, free, allocate, write, mode = parts
        free, allocate, write = free.sigmoid(), allocate.sigmoid(), write.sigmoid()
        retention = (1 - free.unsqueeze(2) * last_read).prod(1)
        usage = (usage + last_write - usage * last_write) * retention
        content = address(memory, write_key.unsqueeze(1), write_strength).squeeze(1)
        write_weights = write * (allocate * allocation(usage) + (1 - allocate) * content)  # [B, N]
        column = write_weights.unsqueeze(2)
        memory = memory * (1 - column * erase.sigmoid().unsqueeze(1)) + column * value.unsqueeze(1)
        link = (1 - column - write_weights.unsqueeze(1)) * link + column * precedence.unsqueeze(1)
        link = link * (1 - torch.eye(self.slots, device=link.device))
        precedence = (1 - write_weights.sum(1, keepdim=True)) * precedence + write_weights
        content = address(memory, read_key.view(-1, self.heads, self.width), read_strength)
        ways = torch.stack([last_read @ link, content, last_read @ link.mT], 3)  # backward, by content, forward
        read_weights = (ways @ mode.view(-1, self.heads, 3, 1).softmax(2)).squeeze(3)
        vectors = read_weights @ memory
        features = self.output(torch.cat([hidden, vectors.flatten(1)], 1))
        return features, (memory, usage, precedence, write_weights, link, read_weights, vectors, hidden)


def address(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """Slots by likeness: memory `[B, N, W]`, keys `[B, R, W]`, strengths `[B, R]` (before oneplus) to `[B, R, N]`."""
    likeness = F.normalize(key, dim=2, eps=1e-3) @ F.normalize(memory, dim=2, eps=1e-3).mT
    return (likeness * (1 + F.softplus(strength)).unsqueeze(2)).softmax(2)


def allocation(usage: Tensor) -> Tensor:
    """How much each slot may be written as new, `[B, N]`: free slots first, by the exclusive product."""
    ascending, order = usage.sort(1)
    used_before = torch.cat([torch.ones_like(ascending[:, :1]), ascending[:, :-1].cumprod(1)], 1)
    return torch.zeros_like(usage).scatter(1, order, (1 - ascending) * used_before)
