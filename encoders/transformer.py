"""A small decoder-only transformer with rotary positions, which remembers the keys and values of the last steps.

Vaswani et al. 2017 (arXiv:1706.03762), with normalisation before each part (Xiong et al. 2020, arXiv:2002.04745) and
rotary positions (Su et al. 2021, arXiv:2104.09864, eq. 34). A step sees itself and the `context` real steps of its
episode before it, in every layer, whether steps come one by one or many at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import Encoder, Inputs, State
from .parts.reading import Reader

kind = "small causal transformer with a cache, for sequences of vectors, images or tokens"


@dataclass(frozen=True)
class Config:
    width: int = 128  # numbers per step in every layer, and features
    heads: int = 4
    layers: int = 2
    context: int = 64  # steps seen before the present one; the state holds 2 * layers * context * width numbers
    feedforward: int = 4  # units of the dense part, times the width
    embedding: int = 0  # width of a token's learned vector before the first layer; 0 = one-hot
    dropout: float = 0.0  # of attention weights, of what each part adds, and of the input


class Window(NamedTuple):
    """Who sees whom: N keys are those of the cache, where one is looked at, and of the T steps."""

    query: Tensor  # complex [B or 1, T, head width / 2]: how far a step is turned, the first real one at 0
    key: Tensor  # complex [B or 1, N, head width / 2]
    visible: Tensor | None  # bool [B or 1, 1, T, N]; None: the steps before, and itself


class Block(nn.Module):
    """Attention and a dense part, each added to what it reads normalised."""

    def __init__(self, config: Config):
        super().__init__()
        width, units = config.width, config.feedforward * config.width
        self.heads, self.rate = config.heads, config.dropout
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.project = nn.Linear(width, 3 * width, bias=False)  # queries, keys, values
        self.out = nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, units), nn.GELU(), nn.Linear(units, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, cache: tuple[Tensor, Tensor] | None, window: Window
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Steps `[B, T, W]` and the cache, keys and values `[B, C, W]`, to steps, and their own keys (not yet rotated)
        and values."""
        query, key, value = self.project(self.norms[0](x)).chunk(3, 2)
        all_keys, all_values = key, value
        if cache is not None:
            both = zip(cache, (key, value), strict=True)
            all_keys, all_values = (torch.cat([old.to(own.dtype), own], 1) for old, own in both)
        query = rotate(self._split(query), window.query)
        all_keys = rotate(self._split(all_keys), window.key)
        seen = attend(query, all_keys, self._split(all_values), window, self.rate if self.training else 0.0)
        x = x + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.dense(self.norms[1](x))), (key, value)

    def _split(self, x: Tensor) -> Tensor:
        """`[B, N, W]` to `[B, heads, N, W / heads]`."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Transformer(Encoder):
    """Features `[width]`. State, of the last `context` real steps, the latest at the end: keys and values
    `[B, layers, context, width]`, and whether there was such a step in this episode, bool `[B, context]`."""

    frequencies: Tensor

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.reader = Reader(spec, config.embedding, "transformer")
        self.feature_shape = (config.width,)
        self.first = nn.Sequential(nn.Linear(self.reader.size, config.width), nn.Dropout(config.dropout))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        half = config.width // config.heads // 2
        self.register_buffer("frequencies", 10_000 ** (-torch.arange(half) / half), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Glorot's; divided by the root of their number where parts add up (Radford et al. 2019, section 2.3)."""
        for block in self.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
            with torch.no_grad():
                block.get_parameter("out.weight").div_((2 * len(self.blocks)) ** 0.5)
                block.get_parameter("dense.2.weight").div_((2 * len(self.blocks)) ** 0.5)

    def initial_state(self, batch_size: int) -> State:
        c, device = self.config, self.frequencies.device
        cache = torch.zeros(2, batch_size, c.layers, c.context, c.width, device=device)
        return cache[0], cache[1], torch.zeros(batch_size, c.context, dtype=torch.bool, device=device)

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        keys, values, valid = state[0], state[1], state[2].bool()
        reset, mask = _by_row(reset), _marked(inputs.mask)
        # on a CPU it is looked whether less can be done
        cached = valid.device.type != "cpu" or bool(valid.any())
        features, new = self._read(inputs.obs, (keys, values, valid) if cached else None, reset, mask)
        new_keys, new_values = (torch.stack(leaf, 1).to(keys.dtype) for leaf in zip(*new, strict=True))
        return features, self._after((keys, values, valid), (new_keys, new_values), reset, mask)

    def read_sequences(self, inputs: Inputs, reset: Tensor | None = None) -> Tensor:
        """Without the cache, of which most is empty after short sequences."""
        return self._read(inputs.obs, None, _by_row(reset), _marked(inputs.mask))[0]

    def _read(
        self, obs: Tensor, state: State | None, reset: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Features `[T, B, width]`, and keys and values `[B, T, width]` of each layer; None: there is no cache."""
        x = self.first(self.reader(obs)).transpose(0, 1)
        window = self._window(None if state is None else state[2], reset, mask, x.shape[1])
        new = []
        for i, block in enumerate(self.blocks):
            cache = None if state is None else (state[0][:, i], state[1][:, i])
            x, latest = block(x, cache, window)
            new.append(latest)
        return self.norm(x).transpose(0, 1), new

    def _window(self, valid: Tensor | None, reset: Tensor | None, mask: Tensor | None, steps: int) -> Window:
        """`valid` `[B, C]` where there is a cache, `reset` and `mask` `[B, T]`."""
        device, context = self.frequencies.device, self.config.context
        if device.type == "cpu":  # it is looked whether less can be done
            if mask is not None and not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
                mask = None  # padding at the end is after every step that counts
            if reset is not None and valid is None and not bool(reset[:, 1:].any()):
                reset = None
        here = torch.arange(steps, device=device)
        rank = here.unsqueeze(0) if mask is None else mask.cumsum(1) - 1  # [B or 1, T], counting real steps
        past = torch.arange(-context, 0, device=device)
        position = rank if valid is None else torch.cat([past.expand(len(rank), -1), rank], 1)
        visible: Tensor | None = None
        if valid is not None or mask is not None or reset is not None or steps > context + 1:
            visible = here.unsqueeze(1) >= here
            visible = visible & (rank.unsqueeze(2) - rank.unsqueeze(1) <= context)
            if mask is not None:  # padding sees itself: what it gives is finite, and nobody reads it
                visible = visible & mask.unsqueeze(1) | torch.eye(steps, dtype=torch.bool, device=device)
            if reset is not None:
                episode = reset.cumsum(1)  # the cache's is 0
                visible = visible & (episode.unsqueeze(2) == episode.unsqueeze(1))
            if valid is not None:
                old = valid.unsqueeze(1) & (rank.unsqueeze(2) - past <= context)
                old = old if reset is None else old & (episode == 0).unsqueeze(2)
                visible = torch.cat([old, visible.expand(len(old), -1, -1)], 2)
            visible = visible.unsqueeze(1)
        return Window(self._turns(rank), self._turns(position), visible)

    def _turns(self, position: Tensor) -> Tensor:
        angle = position.unsqueeze(2) * self.frequencies
        return torch.polar(torch.ones_like(angle), angle)

    def _after(self, state: State, new: tuple[Tensor, Tensor], reset: Tensor | None, mask: Tensor | None) -> State:
        """The last `context` of the cache and the real steps, blank where they are of another episode."""
        (*cache, valid), context = state, self.config.context
        batch, steps = len(valid), new[0].shape[2]
        fresh = torch.ones(batch, steps, dtype=torch.bool, device=valid.device) if reset is None else _last(reset)
        if reset is not None:
            valid = valid & ~reset.any(1, keepdim=True)
        valid = torch.cat([valid, fresh], 1)
        if mask is None:
            valid, last = valid[:, -context:], None
        else:
            real = torch.cat([torch.ones_like(state[2]), mask], 1)
            order = (~real).long().argsort(dim=1, stable=True)  # the real ones first, as they came
            last = order.gather(1, mask.sum(1, keepdim=True) + torch.arange(context, device=mask.device))
            valid = valid.gather(1, last)
        kept = []
        for old, step in zip(cache, new, strict=True):
            if last is None:
                leaf = torch.cat([old[:, :, steps:], step[:, :, -context:]], 2)
            else:
                leaf = torch.cat([old, step], 2)
                leaf = leaf.gather(2, last[:, None, :, None].expand(-1, leaf.shape[1], -1, leaf.shape[3]))
            kept.append(leaf if reset is None else leaf.masked_fill(~valid[:, None, :, None], 0))
        return kept[0], kept[1], valid


def _by_row(steps: Tensor | None) -> Tensor | None:
    """`[T, B]` to `[B, T]`."""
    return None if steps is None else steps.T


def _marked(mask: Tensor | None) -> Tensor | None:
    """Likewise, and None where all steps are marked and it is cheap to find out."""
    return None if mask is None or (mask.device.type == "cpu" and bool(mask.all())) else mask.T


def _last(reset: Tensor) -> Tensor:
    """Steps `[B, T]` of the last episode."""
    episode = reset.cumsum(1)
    return episode == episode[:, -1:]


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """`[B, heads, N, D]` with the pairs `(2 i, 2 i + 1)` times complex numbers of length 1, `[B or 1, N, D / 2]`;
    float32."""
    pairs = torch.view_as_complex(x.float().unflatten(3, (-1, 2)))
    return torch.view_as_real(pairs * turn.unsqueeze(1)).flatten(3)


def attend(query: Tensor, key: Tensor, value: Tensor, window: Window, dropout: float) -> Tensor:
    """Scaled dot-product attention `[B, heads, T, D]`."""
    device = query.device.type
    if device == "cpu":  # its kernel takes 3 times as long backward in bfloat16
        query, key, value = query.float(), key.float(), value.float()
    else:
        query, key = query.to(value.dtype), key.to(value.dtype)
    with torch.autocast(device, enabled=False):
        return F.scaled_dot_product_attention(
            query, key, value, window.visible, dropout, is_causal=window.visible is None
        )


def build(config: Config, spec: ObservationSpec) -> Transformer:
    """Raises SpecError for observations that hold neither numbers nor tokens, UserError for settings that make no
    sense."""
    if min(config.width, config.heads, config.layers, config.context, config.feedforward) < 1:
        raise UserError("transformer: width, heads, layers, context and feedforward must be positive")
    if config.width % (2 * config.heads):
        raise UserError(f"transformer: width must be a multiple of 2 * heads = {2 * config.heads}, not {config.width}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"transformer: dropout must be at least 0 and below 1, not {config.dropout}")
    return Transformer(config, spec)
