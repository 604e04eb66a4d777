"""A tagger: what a word looks like, an encoder over the sentence, and tags told one by one or all together.

Words are read as Ma and Hovy (2016, arXiv:1603.01354, sections 2.1 and 3) do: a learned vector and the largest answers
of a convolution over the word's characters; capitals are a feature of their own (Collobert et al. 2011, section 3.5),
because the words themselves are in lower case. With a window, the vectors of the neighbours are put end to end
(section 3.3.1 there). Tags are told by a softmax each, or by a conditional random field.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.parts.compute import Compute
from ..data.conll2000 import CAPITALS, NOTHING, TaggedSequences
from ..data.sequences import NOT_ASKED, Batch
from ..encoders.base import Encoder
from .conditional_field import ConditionalField
from .sequence_model import SequenceModel, by_length
from .task_options import TaggingOptions

LETTER, FILTER = 25, 3  # width of a character's vector, and characters that a filter reads
UNKNOWN = 0  # the word id that stands for all others


class WordReader(nn.Module):
    """Words of a batch to float32 vectors `[L, B, size]`; zeros in the padding."""

    def __init__(self, options: TaggingOptions, words: int, letters: int, tags: int):
        """`words`, `letters`, `tags`: how many there are of each; tags are parts of speech that are read."""
        super().__init__()
        self.options = options
        self.words = _table(words, options.words) if options.words else None
        self.letters = _table(letters, LETTER, blank=NOTHING) if options.characters else None
        self.filters = (
            nn.Conv1d(LETTER, options.characters, FILTER, padding=FILTER // 2) if options.characters else None
        )
        self.tags = _table(tags, options.tags) if options.tags else None
        self.width = options.words + options.characters + options.tags + len(CAPITALS)
        self.size = self.width * (1 + 2 * options.window)

    def forward(self, batch: Batch) -> Tensor:
        mask = batch["mask"].transpose(0, 1)
        parts = [F.one_hot(batch["capital"], len(CAPITALS)).float()]
        if self.words is not None:
            parts.append(self.words(self._forget(batch["x"])))
        if self.letters is not None:
            parts.append(self.spell(batch["characters"]))
        if self.tags is not None:
            parts.append(self.tags(batch["tag"]))
        x = F.dropout(torch.cat(parts, 2).transpose(0, 1), self.options.dropout, self.training)
        return windows(x * mask.unsqueeze(2), self.options.window)

    def _forget(self, words: Tensor) -> Tensor:
        """Some words become the unknown one while training, so that it is known how to do without them."""
        if not (self.training and self.options.word_dropout):
            return words
        return words.masked_fill(torch.rand(words.shape, device=words.device) < self.options.word_dropout, UNKNOWN)

    def spell(self, characters: Tensor) -> Tensor:
        """Ids int64 `[B, L, C]` to the largest answer of each filter, `[B, L, filters]`."""
        assert self.letters is not None
        assert self.filters is not None
        letters = self.letters(characters.flatten(0, 1)).transpose(1, 2)
        return self.filters(letters).amax(2).unflatten(0, characters.shape[:2])


def windows(x: Tensor, reach: int) -> Tensor:
    """Vectors `[L, B, D]` to those of the neighbours on both sides, from the left: `[L, B, (2 * reach + 1) * D]`."""
    if not reach:
        return x
    wide = F.pad(x, (0, 0, 0, 0, reach, reach))
    return torch.cat([wide[place : place + len(x)] for place in range(2 * reach + 1)], 2)


def _table(rows: int, width: int, blank: int | None = None) -> nn.Embedding:
    """Uniform within sqrt(3 / width), so that each number's variance is 1 / width (Ma and Hovy 2016, section 3.1)."""
    table, reach = nn.Embedding(rows, width, padding_idx=blank), math.sqrt(3 / width)
    with torch.no_grad():
        table.weight.uniform_(-reach, reach)
        if blank is not None:
            table.weight[blank] = 0
    return table


class Tagger(SequenceModel):
    """A word reader, an encoder, dense layers, and a score for every tag of every word."""

    def __init__(
        self,
        reader: WordReader,
        encoder: Encoder,
        outputs: int,
        hidden: tuple[int, ...] = (),
        field: ConditionalField | None = None,
    ):
        """`field`: tells the tags of a sentence together; None: each is told by itself."""
        super().__init__(encoder, outputs, hidden)
        self.reader, self.field = reader, field

    def scores(self, batch: Batch) -> Tensor:
        """`[L, B, outputs]`."""
        mask = batch["mask"].transpose(0, 1)
        features = self.sequence_features(self.reader(batch), mask)
        return self.head(F.dropout(features, self.reader.options.dropout, self.training))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        asked = self.asked(batch)
        return self.scores(batch)[asked], batch["target"].transpose(0, 1)[asked]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats; of each word, or of each sentence with a field: then their mean is that of a word, too."""
        if self.field is None:
            return super().loss(batch)
        nats, words = self.nats(self.scores(batch), batch), batch["mask"].sum()
        return {"cross_entropy": nats * (len(nats) / words)}

    def nats(self, scores: Tensor, batch: Batch) -> Tensor:
        """Of the right tags of each sentence, `[B]`."""
        target, mask = batch["target"].transpose(0, 1), batch["mask"].transpose(0, 1)
        if self.field is not None:
            return self.field.nats(scores, target, mask)
        flat = scores.float().flatten(0, 1), target.flatten()
        return F.cross_entropy(*flat, ignore_index=NOT_ASKED, reduction="none").view(target.shape).sum(0)

    def decode(self, scores: Tensor, batch: Batch) -> Tensor:
        """The best tags, int64 `[L, B]`; -1 in the padding."""
        mask = batch["mask"].transpose(0, 1)
        if self.field is not None:
            return self.field.best_path(scores, mask)[0]
        return scores.argmax(2).masked_fill(~mask, NOT_ASKED)


@torch.no_grad()
def tag(model: Tagger, split: TaggedSequences, compute: Compute) -> tuple[Tensor, Tensor]:
    """Tags of all words of `split`, int64 `[S]`, and nats of its sentences, float64 `[N]`; both on the processor.

    The model is in eval mode meanwhile, and back in its mode afterwards.
    """
    was_training = model.training
    said = torch.full((len(split.x),), NOT_ASKED)
    nats = torch.zeros(len(split), dtype=torch.float64)
    model.eval()
    try:
        for index in by_length(split):
            batch = {name: value.to(compute.device) for name, value in split.take(index).items()}
            with compute.autocast():
                scores = model.scores(batch)
                tags, lost = model.decode(scores, batch), model.nats(scores, batch)
            mask, index = batch["mask"].cpu(), index.cpu()
            place = split.start.cpu()[index].unsqueeze(1) + torch.arange(mask.shape[1])
            said[place[mask]] = tags.transpose(0, 1).cpu()[mask]
            nats[index] = lost.double().cpu()
    finally:
        model.train(was_training)
    return said, nats
