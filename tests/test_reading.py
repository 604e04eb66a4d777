"""What a memory reads at one step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.encoders import make_encoder
from saccade.encoders.base import Inputs, WithMemory
from saccade.encoders.embedding import Config, Embedding, Pool
from saccade.encoders.parts.reading import Reader, one_hot
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec


def tokens(*shape: int, vocabulary: int = 5) -> ObservationSpec:
    return ObservationSpec(shape, "int64", 0.0, vocabulary - 1.0, vocabulary=vocabulary)


def test_numbers_are_flattened_and_bytes_scaled():
    reader = Reader(ObservationSpec((2, 3)))
    x = torch.randn(4, 7, 2, 3)
    assert reader.size == 6
    torch.testing.assert_close(reader(x), x.flatten(2), rtol=0, atol=0)
    reader = Reader(ObservationSpec((2,), "uint8", 0.0, 255.0), embedding=9)  # says nothing about numbers
    read = reader(torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8))
    torch.testing.assert_close(read, torch.tensor([[0.0, 1.0], [0.2, 0.4]]))
    assert Reader(ObservationSpec((3,), "bool"))(torch.tensor([True, False, True])).tolist() == [1, 0, 1]


def test_one_token_is_one_hot_or_a_row_of_the_table():
    plain, learned = Reader(tokens()), Reader(tokens(), embedding=3)
    x = torch.tensor([[0, 4, 2], [1, 1, 3]])
    assert (plain.size, learned.size) == (5, 3)
    np.testing.assert_array_equal(plain(x).numpy(), np.eye(5, dtype=np.float32)[x.numpy()])
    assert learned.table is not None
    torch.testing.assert_close(learned(x), learned.table.weight[x], rtol=0, atol=0)


def test_a_window_of_tokens_is_read_end_to_end():
    plain, learned = Reader(tokens(2)), Reader(tokens(2), embedding=3)
    x = torch.tensor([[0, 4], [1, 3]])
    assert (plain.size, learned.size) == (10, 6)
    np.testing.assert_array_equal(plain(x).numpy(), np.eye(5, dtype=np.float32)[x.numpy()].reshape(2, 10))
    assert learned.table is not None
    torch.testing.assert_close(learned(x)[1], torch.cat([learned.table.weight[1], learned.table.weight[3]]))


def test_one_hot_followed_by_a_layer_is_a_look_up():
    layer, x = torch.nn.Linear(5, 4, bias=False), torch.tensor([3, 0, 3])
    torch.testing.assert_close(layer(one_hot(x, 5)), layer.weight.T[x])


@pytest.mark.parametrize(
    ("spec", "embedding", "says"),
    [
        (ObservationSpec((3,), "int64"), 0, "tokens"),
        (ObservationSpec((0,)), 0, "at least one number"),
        (ObservationSpec((3,), "float32", vocabulary=4), 0, "integers"),
        (tokens(vocabulary=20_000), 0, "embedding"),
    ],
)
def test_refuses_what_it_cannot_read_and_says_who(spec: ObservationSpec, embedding: int, says: str):
    with pytest.raises(SpecError, match=says) as error:
        Reader(spec, embedding, "ntm")
    assert "'ntm'" in str(error.value)


def test_refuses_a_negative_embedding_and_other_shapes_than_promised():
    with pytest.raises(UserError, match="embedding"):
        Reader(tokens(), -1)
    with pytest.raises(SpecError, match="promised"):
        Reader(ObservationSpec((3,)))(torch.zeros(5, 4))


@pytest.mark.parametrize("pool", ["concat", "mean", "sum", "max"])
def test_an_embedding_pools_the_vectors_of_a_window(pool: Pool):
    encoder = make_encoder("embedding", tokens(3), Config(width=2, pool=pool))
    assert isinstance(encoder, Embedding)
    with torch.no_grad():
        encoder.vectors.copy_(torch.tensor([[0.0, 1.0], [2.0, -3.0], [4.0, 5.0], [-6.0, 7.0], [8.0, 9.0]]))
    expected = {
        "concat": [[2, -3, 8, 9, -6, 7]],
        "mean": [[4 / 3, 13 / 3]],
        "sum": [[4, 13]],
        "max": [[8, 9]],
    }[pool]
    features = encoder.read(torch.tensor([[1, 4, 3]]))
    assert features.shape == (1, *encoder.feature_shape)
    torch.testing.assert_close(features, torch.tensor(expected, dtype=torch.float32))


def test_an_embedding_of_single_tokens_is_read_by_a_memory():
    perception = make_encoder("embedding", tokens(vocabulary=50_000), Config(width=8))
    encoder = WithMemory(perception, make_encoder("gru", ObservationSpec(perception.feature_shape)))
    features, _ = encoder(Inputs(torch.randint(50_000, (4, 2))), encoder.initial_state(2))
    assert features.shape == (4, 2, 256)


def test_an_embedding_refuses_numbers_and_settings_that_make_no_sense():
    with pytest.raises(SpecError, match="'embedding' reads tokens"):
        make_encoder("embedding", ObservationSpec((3,)))
    for config in (Config(width=0), Config(pool="median"), Config(scale=0.0), Config(dropout=1.0)):  # type: ignore[arg-type]
        with pytest.raises(UserError, match="embedding"):
            make_encoder("embedding", tokens(3), config)
