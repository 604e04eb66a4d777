"""Word vectors of one text in the encoder of another."""

from __future__ import annotations

import pytest
import torch
from saccade.data.vocabulary import Vocabulary
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import Encoder
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.known_words import VOCABULARY_FILE, find_table, take_words


def encoder_of(words: int, name: str = "embedding", **config: object) -> Encoder:
    spec = ObservationSpec((), "int64", 0, words - 1, vocabulary=words)
    return make_encoder(name, spec, find_encoder(name).Config(**config))


def test_rows_go_to_the_same_words_and_all_else_is_copied(tmp_path):
    Vocabulary(("the", "film", "bad", "good"), (4, 3, 2, 1)).save(tmp_path / VOCABULARY_FILE)
    trained = encoder_of(4, "lstm", embedding=200, hidden=3)
    table = find_table(trained, 4).weight
    with torch.no_grad():
        table.mul_(0.01)
    ours = encoder_of(3, "lstm", embedding=200, hidden=3)
    assert take_words(ours, ("good", "unheard", "the"), trained, tmp_path) == 2
    own = find_table(ours, 3).weight
    torch.testing.assert_close(own[[0, 2]], table[[3, 0]])
    assert own[1].std().item() == pytest.approx(table.std().item(), rel=0.3)  # as large as those that were learned
    others = [[p for p in one.parameters() if p.shape[-1] != 200 or p.dim() != 2] for one in (ours, trained)]
    assert others[0]
    torch.testing.assert_close(*others)


def test_what_does_not_fit_is_refused(tmp_path):
    words = ("a", "b")
    with pytest.raises(UserError, match="cannot read"):
        take_words(encoder_of(2), words, encoder_of(2), tmp_path)
    Vocabulary(words, (1, 1)).save(tmp_path / VOCABULARY_FILE)
    with pytest.raises(SpecError, match="one table of the vectors of 2 words is needed"):
        take_words(encoder_of(2, "lstm"), words, encoder_of(2), tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        take_words(encoder_of(2, width=3), words, encoder_of(2, width=4), tmp_path)
