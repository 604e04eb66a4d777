"""Word vectors that were learned on one text, for an encoder of another: words are found again by their letters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..data.vocabulary import Vocabulary
from ..encoders.base import Encoder
from ..envs.errors import SpecError

VOCABULARY_FILE = "vocabulary.json"  # beside an encoder in its bundle: the words of its tokens


def find_table(encoder: Encoder, words: int) -> nn.Embedding:
    """The learned vectors of tokens inside `encoder`. Raises SpecError where there is none of so many words, or two."""
    tables = [part for part in encoder.modules() if isinstance(part, nn.Embedding) and part.num_embeddings == words]
    if len(tables) != 1:
        raise SpecError(
            f"one table of the vectors of {words:,} words is needed, and this encoder has {len(tables) or 'none'}; "
            "take --encoder embedding"
        )
    return tables[0]


@torch.no_grad()
def take_words(encoder: Encoder, words: Sequence[str], trained: Encoder, folder: Path) -> int:
    """Give `encoder` all that `trained` has learned; rows of its table go to the same words.

    Words that `trained` does not know get random vectors, as large as those that were learned.

    Args:
        encoder: of the same kind and settings as `trained`.
        words: what the tokens of `encoder` stand for.
        folder: the bundle of `trained`, with a vocabulary.

    Returns:
        how many of `words` were found.

    Raises:
        SpecError: an encoder has not exactly one table of vectors.
        UserError: the vocabulary cannot be read.
        RuntimeError: other weights have other shapes.
    """
    known = Vocabulary.load(folder / VOCABULARY_FILE)
    own, learned = find_table(encoder, len(words)).weight, find_table(trained, len(known)).weight
    table = next(name for name, parameter in trained.named_parameters() if parameter is learned)
    encoder.load_state_dict({**trained.state_dict(), table: own})
    found = [(place, known.ids[word]) for place, word in enumerate(words) if word in known.ids]
    nn.init.normal_(own, std=float(learned.std()))
    if found:
        rows, places = torch.tensor(found, device=own.device).T
        own[rows] = learned[places.to(learned.device)].to(own)
    return len(found)
