"""The mean of what was read and the convolutions over time, against what NumPy says of each text by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.encoders import make_encoder
from saccade.encoders.bag import HASH, Bag
from saccade.encoders.bag import Config as BagConfig
from saccade.encoders.base import Inputs
from saccade.encoders.textconv import Config as ConvConfig
from saccade.encoders.textconv import TextConv
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

T, B, VOCABULARY = 9, 3, 11
TOKENS = ObservationSpec((), "int64", 0.0, VOCABULARY - 1.0, vocabulary=VOCABULARY)
LENGTHS = (9, 5, 1)


def texts(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens and mask of texts of different lengths."""
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(0, VOCABULARY, (T, B)))
    return tokens, torch.arange(T).unsqueeze(1) < torch.tensor(LENGTHS)


def build(name: str, config: object) -> Bag | TextConv:
    torch.manual_seed(0)
    encoder = make_encoder(name, TOKENS, config)
    assert isinstance(encoder, Bag | TextConv)
    return encoder.eval()


def kims(words: np.ndarray, encoder: TextConv) -> np.ndarray:
    """Every filter over every window of a text, `[T, D]` behind zeros, through ReLU; the largest answers `[F]`."""
    features = []
    for width, layer in zip(encoder.config.widths, encoder.filters, strict=True):
        weight, bias = (layer.get_parameter(name).detach().numpy() for name in ("weight", "bias"))  # [F, D, width]
        padded = np.concatenate([np.zeros((width - 1, words.shape[1])), words])
        windows = [padded[t : t + width].T for t in range(len(words))]
        features.append(np.maximum([(weight * window).sum((1, 2)) + bias for window in windows], 0).max(0))
    return np.concatenate(features)


def test_convolutions_and_the_largest_answers_are_what_numpy_says():
    encoder = build("textconv", ConvConfig(widths=(1, 3, 4), filters=5, embedding=6))
    assert isinstance(encoder, TextConv)
    assert encoder.reader.table is not None
    tokens, mask = texts()
    features, _ = encoder(Inputs(tokens, mask=mask), encoder.initial_state(B))
    assert features.shape == (T, B, 15)
    for row, length in enumerate(LENGTHS):
        words = encoder.reader.table(tokens[:length, row]).detach().numpy()
        for end in range(1, length + 1):
            np.testing.assert_allclose(features[end - 1, row].detach(), kims(words[:end], encoder), atol=1e-5)


def test_a_text_is_read_in_parts_and_episodes_apart():
    encoder = build("textconv", ConvConfig(filters=5, embedding=6))
    tokens, _ = texts()
    whole, last = encoder(Inputs(tokens), encoder.initial_state(B))
    first, state = encoder(Inputs(tokens[:2]), encoder.initial_state(B))
    second, state = encoder(Inputs(tokens[2:]), state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(state, last)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[4, 1] = True
    apart, _ = encoder(Inputs(tokens), encoder.initial_state(B), reset)
    torch.testing.assert_close(apart[4:, 1:2], encoder(Inputs(tokens[4:, 1:2]), encoder.initial_state(1))[0])


@pytest.mark.parametrize("pairs", [0, 50])
def test_a_bag_is_the_mean_of_words_and_pairs(pairs: int):
    encoder = build("bag", BagConfig(embedding=4, pairs=pairs))
    assert isinstance(encoder, Bag)
    assert encoder.reader.table is not None
    tokens, mask = texts()
    features, (total, count, last) = encoder(Inputs(tokens, mask=mask), encoder.initial_state(B))
    word = encoder.reader.table.weight.detach().double().numpy()
    pair = np.zeros((1, 4)) if encoder.pairs is None else encoder.pairs.weight.detach().double().numpy()
    for row, length in enumerate(LENGTHS):
        read = tokens[:length, row].tolist()
        for end in range(1, length + 1):
            vectors = [word[i] for i in read[:end]]
            if pairs:
                vectors += [pair[(read[i - 1] * HASH + read[i]) % pairs] for i in range(1, end)]
            np.testing.assert_allclose(features[end - 1, row].detach(), np.mean(vectors, 0), atol=1e-6)
        assert count[row] == (2 * length - 1 if pairs else length)
        assert last[row] == (read[-1] if pairs else -1)
        np.testing.assert_allclose((total / count.unsqueeze(1))[row].detach(), features[length - 1, row].detach())


def test_pairs_do_not_reach_over_the_beginning_of_an_episode():
    encoder = build("bag", BagConfig(embedding=4, pairs=50))
    tokens, _ = texts()
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[4, 1] = True
    apart, _ = encoder(Inputs(tokens), encoder.initial_state(B), reset)
    torch.testing.assert_close(apart[4:, 1:2], encoder(Inputs(tokens[4:, 1:2]), encoder.initial_state(1))[0])


def test_a_bag_without_embedding_counts_words():
    encoder = build("bag", BagConfig(embedding=0))
    tokens, _ = texts()
    features, _ = encoder(Inputs(tokens), encoder.initial_state(B))
    np.testing.assert_allclose(features[-1, 0], np.bincount(tokens[:, 0], minlength=VOCABULARY) / T, atol=1e-6)


def test_words_left_out_while_training_are_left_out_of_the_count_too():
    torch.manual_seed(0)
    encoder = build("bag", BagConfig(embedding=0, input_dropout=0.5)).train()
    features, (_, count, _) = encoder(Inputs(texts()[0]), encoder.initial_state(B))
    assert (count < T).any()
    torch.testing.assert_close(features[-1].sum(1), torch.ones(B))


def test_they_refuse_what_makes_no_sense():
    with pytest.raises(SpecError, match="'bag' pairs"):
        make_encoder("bag", ObservationSpec((3,)), BagConfig(pairs=10))
    for config in (BagConfig(pairs=-1), BagConfig(scale=0.0), BagConfig(output_dropout=1.0)):
        with pytest.raises(UserError, match="bag"):
            make_encoder("bag", TOKENS, config)
    for conv in (
        ConvConfig(widths=()),
        ConvConfig(widths=(0,)),
        ConvConfig(filters=0),
        ConvConfig(scale=0.0),
        ConvConfig(input_dropout=1.0),
    ):
        with pytest.raises(UserError, match="textconv"):
            make_encoder("textconv", TOKENS, conv)
