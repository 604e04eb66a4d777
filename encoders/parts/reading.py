"""How a memory reads what is observed at one step: numbers, bytes or tokens to one float vector."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.errors import SpecError, UserError
from ...envs.spec import ObservationSpec

ONE_HOT_LIMIT = 8192  # numbers per step: 64 sequences of 200 steps fill 420 MB at this width


class Reader(nn.Module):
    """Observations `[..., *spec.shape]` to float32 vectors `[..., size]`.

    Numbers are flattened, and uint8 is divided by 255. Tokens become one-hot vectors, or learned ones of `embedding`
    numbers each; a window of n tokens becomes n of them, end to end.
    """

    size: int

    def __init__(self, spec: ObservationSpec, embedding: int = 0, name: str = "memory"):
        """`embedding`: width of a token's learned vector; 0 = one-hot, and numbers are read as they are anyway.
        `name`: of the encoder, for messages.

        Raises:
            SpecError: it is neither numbers nor tokens, there is nothing to read, or the one-hot vector were too long.
            UserError: `embedding` is negative.
        """
        super().__init__()
        if embedding < 0:
            raise UserError(f"{name}: embedding must be 0 (one-hot) or the width of a token's vector, not {embedding}")
        _require_readable(spec, embedding, name)
        self.spec = spec
        self.factor = 1 / 255 if spec.dtype == "uint8" and not spec.vocabulary else 1.0
        self.table: nn.Embedding | None = None
        if spec.vocabulary and embedding:
            self.table = nn.Embedding(spec.vocabulary, embedding)
        self.size = spec.size * ((embedding or spec.vocabulary) if spec.vocabulary else 1)

    def forward(self, obs: Tensor) -> Tensor:
        """Raises SpecError where `obs` does not end in the shape of the spec."""
        rank = len(self.spec.shape)
        lead = obs.shape[: obs.dim() - rank]
        if obs.shape[obs.dim() - rank :] != self.spec.shape:
            raise SpecError(f"observations of shape {list(self.spec.shape)} were promised, not {list(obs.shape)}")
        if self.table is not None:
            return self.table(obs.long()).reshape(*lead, self.size)
        if self.spec.vocabulary:
            return one_hot(obs.long(), self.spec.vocabulary).reshape(*lead, self.size)
        x = obs.reshape(*lead, self.size).float()
        return x if self.factor == 1 else x * self.factor


def one_hot(tokens: Tensor, vocabulary: int) -> Tensor:
    """Tokens, int64 `[...]`, to float32 `[..., vocabulary]`; by no detour over integers."""
    blank = torch.zeros(*tokens.shape, vocabulary, device=tokens.device)
    return blank.scatter_(-1, tokens.unsqueeze(-1), 1.0)


def _require_readable(spec: ObservationSpec, embedding: int, name: str) -> None:
    if spec.size < 1:
        raise SpecError(f"encoder {name!r} needs at least one number, not {spec.describe()}")
    if spec.vocabulary:
        if not np.issubdtype(spec.dtype, np.integer):
            raise SpecError(f"encoder {name!r} reads tokens as integers, not as {spec.describe()}")
        if not embedding and spec.size * spec.vocabulary > ONE_HOT_LIMIT:
            raise SpecError(
                f"encoder {name!r} would read {spec.size * spec.vocabulary} numbers a step one-hot; "
                f"give tokens learned vectors instead (embedding = 128, say)"
            )
    elif not (np.issubdtype(spec.dtype, np.floating) or spec.dtype in ("uint8", "bool")):
        raise SpecError(f"encoder {name!r} reads floating-point numbers, uint8, bool or tokens, not {spec.describe()}")
