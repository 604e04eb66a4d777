"""A decoder that looks at every step of an encoder's features: recurrent, with attention; greedy and beam search.

The model is that of Bahdanau, Cho and Bengio (2015, arXiv:1409.0473, section 3.1 and appendix A.1.2). Deviations: the
first state is made of the mean of the features instead of the first of the backward ones, and what is told is a linear
function of state, context and last symbol, without maxout. `dot` attention is Luong, Pham and Manning's
(2015, arXiv:1508.04025, section 3.1, "general").
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.sequences import NOT_ASKED

Attention = Literal["additive", "dot"]


class Memory(NamedTuple):
    """What the decoder looks at, of R rows."""

    values: Tensor  # [R, T, D]: the features
    keys: Tensor  # [R, T, A]: what a query is compared with
    mask: Tensor  # bool [R, T]: False = padding

    def repeat(self, count: int) -> Memory:
        """Every row `count` times, one after the other."""
        return Memory(*(part.repeat_interleave(count, 0) for part in self))


class Told(NamedTuple):
    """What the decoder says to N rows."""

    symbols: Tensor  # int64 [N, L]: symbols and the end, then -1
    score: Tensor  # float32 [N]: log-probability of all of it
    weights: Tensor | None  # [N, L, T]: where it looked, in greedy search


class Decoder(nn.Module):
    """A GRU over what it has told so far and what it looks at."""

    def __init__(
        self, features: int, outputs: int, hidden: int = 128, embedding: int = 32, attention: Attention = "additive"
    ):
        """`outputs`: symbols and the end, which has the last number."""
        super().__init__()
        self.end, self.start = outputs - 1, outputs
        self.symbols = nn.Embedding(outputs + 1, embedding)
        self.first = nn.Linear(features, hidden)
        self.key = nn.Linear(features, hidden)
        self.query = nn.Linear(hidden, hidden, bias=False) if attention == "additive" else None
        self.energy = nn.Linear(hidden, 1, bias=False) if attention == "additive" else None
        self.cell = nn.GRUCell(embedding + features, hidden)
        self.output = nn.Linear(embedding + features + hidden, outputs)

    def read(self, features: Tensor, mask: Tensor) -> Memory:
        """The memory of features `[T, B, D]` and their mask, bool `[B, T]`."""
        values = features.transpose(0, 1)
        return Memory(values, self.key(values), mask)

    def begin(self, memory: Memory) -> Tensor:
        """The state `[R, H]` before anything is told."""
        real = memory.mask.unsqueeze(2).to(memory.values.dtype)
        mean = (memory.values * real).sum(1) / real.sum(1).clamp(min=1)
        return torch.tanh(self.first(mean))

    def attend(self, memory: Memory, state: Tensor) -> Tensor:
        """Weights `[R, T]` that sum to 1, 0 in the padding."""
        if self.query is not None and self.energy is not None:
            seen = torch.tanh(self.query(state).unsqueeze(1) + memory.keys)
            energy = self.energy(seen).squeeze(2)
        else:
            energy = torch.bmm(memory.keys, state.unsqueeze(2)).squeeze(2)
        return energy.float().masked_fill(~memory.mask, -torch.inf).softmax(1)

    def step(self, memory: Memory, state: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tell one more symbol after `last`, int64 `[R]`.

        Returns:
            logits `[R, outputs]`, the next state `[R, H]` and the weights `[R, T]`.
        """
        weights = self.attend(memory, state)
        context = torch.bmm(weights.to(memory.values.dtype).unsqueeze(1), memory.values).squeeze(1)
        seen = torch.cat([self.symbols(last), context], 1)
        state = self.cell(seen, state)
        return self.output(torch.cat([seen, state], 1)).float(), state, weights

    def forward(self, memory: Memory, written: Tensor) -> tuple[Tensor, Tensor]:
        """Every symbol of `written`, int64 `[R, L]`, told after the right ones before it.

        Returns:
            logits `[R, L, outputs]`, those behind the end without meaning, and weights `[R, L, T]`.
        """
        state, last = self.begin(memory), torch.full_like(written[:, 0], self.start)
        logits, weights = [], []
        for symbol in written.unbind(1):
            said, state, looked = self.step(memory, state, last)
            logits.append(said)
            weights.append(looked)
            last = symbol.clamp(min=0)
        return torch.stack(logits, 1), torch.stack(weights, 1)


def greedy(decoder: Decoder, memory: Memory, most: int) -> Told:
    """The likeliest symbol at every step, `most` at most."""
    state = decoder.begin(memory)
    last = torch.full((len(state),), decoder.start, device=state.device)
    score, over = torch.zeros(len(state), device=state.device), torch.zeros_like(last, dtype=torch.bool)
    symbols, weights = [], []
    for _ in range(most):
        logits, state, looked = decoder.step(memory, state, last)
        value, last = logits.log_softmax(1).max(1)
        score = score + value.masked_fill(over, 0)
        symbols.append(last.masked_fill(over, NOT_ASKED))
        weights.append(looked)
        over = over | (last == decoder.end)
        if bool(over.all()):
            break
    return Told(torch.stack(symbols, 1), score, torch.stack(weights, 1))


def beam_search(decoder: Decoder, memory: Memory, width: int, most: int) -> Told:
    """The likeliest of the sequences that `width` of them at a time lead to, `most` symbols at most.

    There is no bonus for length: scores are log-probabilities. A search that keeps everything finds the likeliest.
    """
    rows = len(memory.mask)
    state, wide = decoder.begin(memory).repeat_interleave(width, 0), memory.repeat(width)
    device = state.device
    last = torch.full((rows * width,), decoder.start, device=device)
    score = torch.full((rows, width), -torch.inf, device=device)
    score[:, 0] = 0  # they are all alike at first
    told = torch.empty(rows, width, 0, dtype=torch.int64, device=device)
    over = torch.zeros(rows, width, dtype=torch.bool, device=device)
    nothing = torch.full((decoder.end + 1,), -torch.inf, device=device)
    nothing[decoder.end] = 0  # what is over stays as it is
    offset = torch.arange(rows, device=device).unsqueeze(1) * width
    for _ in range(most):
        logits, state, _ = decoder.step(wide, state, last)
        value = logits.log_softmax(1).view(rows, width, -1)
        total = score.unsqueeze(2) + torch.where(over.unsqueeze(2), nothing, value)
        score, place = total.flatten(1).topk(width, 1)
        parent, symbol = place // total.shape[2], place % total.shape[2]
        was_over = over.gather(1, parent)
        told = told.gather(1, parent.unsqueeze(2).expand(-1, -1, told.shape[2]))
        told = torch.cat([told, symbol.masked_fill(was_over, NOT_ASKED).unsqueeze(2)], 2)
        over = was_over | (symbol == decoder.end)
        state, last = state[(parent + offset).flatten()], symbol.flatten()
        if bool(over[:, 0].all()):  # the others can only become less likely
            break
    return Told(told[:, 0], score[:, 0], None)


def character_nats(logits: Tensor, written: Tensor) -> Tensor:
    """Cross-entropy of logits `[R, L, outputs]` and symbols `[R, L]`: nats `[R, L]`, 0 behind the end."""
    nats = F.cross_entropy(logits.flatten(0, 1), written.flatten(), ignore_index=NOT_ASKED, reduction="none")
    return nats.view(written.shape)
