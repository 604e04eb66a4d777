"""Convolutional machines: pooling blocks, energies and gradients against sums over all states that are allowed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from encoder_cases import SPECS
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import convrbm
from saccade.encoders.convrbm import Config, ConvRbm, Layer
from saccade.encoders.parts import pooled
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor
from torch.nn.functional import softplus

SMALL = ObservationSpec((1, 12, 12), "uint8", 0.0, 255.0)
ROWS, COLUMNS, MAPS = 3, 4, 2  # an image whose 2x3 hidden maps have a block of 2x2 and one of 2x1


def tiny(visible: convrbm.Visible = "bernoulli", **settings: object) -> Layer:
    torch.manual_seed(0)
    config = Config(maps=(MAPS,), kernels=(2,), visible=visible, **settings)  # type: ignore[arg-type]
    layer = Layer(config, channels=2, number=0).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


def allowed() -> Iterator[np.ndarray]:
    """All states `[MAPS, 2, 3]` with at most one unit on in each block."""
    blocks = [(k, cells) for k in range(MAPS) for cells in ([(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 2), (1, 2)])]
    for chosen in itertools.product(*[[None, *cells] for _, cells in blocks]):
        h = np.zeros((MAPS, 2, 3))
        for (k, _), cell in zip(blocks, chosen, strict=True):
            if cell is not None:
                h[k][cell] = 1
        yield h


def energy(layer: Layer, v: np.ndarray, h: np.ndarray) -> float:
    """By its definition (Lee et al. 2009, section 3.2), place by place."""
    w, b, c = (p.detach().numpy() for p in (layer.weight, layer.visible_bias, layer.hidden_bias))
    own = 0.5 * (v - b[:, None, None]) ** 2 if layer.visible == "gaussian" else -v * b[:, None, None]
    total = own.sum()
    for k, i, j in np.ndindex(*h.shape):
        total -= h[k, i, j] * ((w[k] * v[:, i : i + 2, j : j + 2]).sum() + c[k])
    return float(total)


def image(visible: str, rows: int = 1) -> Tensor:
    x = torch.rand(rows, 2, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.round() if visible == "bernoulli" else 2 * x - 1


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_means_pooling_and_free_energy_are_sums_over_allowed_states(visible: convrbm.Visible):
    layer, v = tiny(visible), image(visible)
    every = list(allowed())
    assert len(every) == (5 * 3) ** MAPS
    weights = np.exp([-energy(layer, v[0].numpy(), h) for h in every])
    assert layer.free_energy(v).item() == pytest.approx(-np.log(weights.sum()), abs=1e-10)
    chances = weights / weights.sum()
    hidden, pool = pooled.pooled_means(layer.hidden_input(v), 2)
    np.testing.assert_allclose(hidden[0].detach().numpy(), np.tensordot(chances, every, 1), atol=1e-12)
    on = [[[h[k, :, :2].any(), h[k, :, 2:].any()] for k in range(MAPS)] for h in every]
    np.testing.assert_allclose(
        pool[0, :, 0].detach().numpy(), np.tensordot(chances, np.array(on, float), 1), atol=1e-12
    )


def test_draws_are_as_frequent_as_their_chances_and_one_to_a_block():
    a = tiny().hidden_input(image("bernoulli")).detach()
    h = pooled.pooled_draw(a.expand(20_000, -1, -1, -1), 2, torch.Generator().manual_seed(0))
    assert set(h.unique().tolist()) == {0.0, 1.0}
    assert pooled.blocks_of(h, 2, fill=0.0).sum(4).max() == 1
    torch.testing.assert_close(h.mean(0), pooled.pooled_means(a, 2)[0][0], rtol=0, atol=0.02)


def test_blocks_are_taken_apart_and_put_together():
    a = torch.arange(2 * 3 * 5 * 7.0).view(2, 3, 5, 7)
    blocks = pooled.blocks_of(a, 3)
    assert blocks.shape == (2, 3, 2, 3, 9)
    assert blocks[1, 2, 0, 1].tolist() == a[1, 2, :3, 3:6].flatten().tolist()
    assert blocks[0, 0, 1, 2].isfinite().sum() == 2
    assert torch.equal(pooled.map_of(blocks, 3, 5, 7), a)


def test_the_gradient_is_model_less_data_statistics_and_the_pull_to_sparseness():
    """By loops over examples and places, from the same draws."""
    layer, v = tiny(steps=2, sparsity=0.5, target=0.1, l2=0.2), image("bernoulli", rows=4)
    torch.manual_seed(3)
    loss = layer.loss(v)
    loss.backward()
    torch.manual_seed(3)
    first, fantasy = layer.gibbs(v)
    fantasy = layer.gibbs(fantasy)[1]
    assert loss.item() == pytest.approx((first - v).square().sum().item() / 4)
    weight, bias, visible = np.zeros(layer.weight.shape), np.zeros(MAPS), np.zeros(2)
    for sign, part in ((1, fantasy), (-1, v)):
        h = pooled.pooled_means(layer.hidden_input(part), 2)[0].detach().numpy()
        for n, k, i, j in np.ndindex(4, MAPS, 2, 3):
            weight[k] += sign * h[n, k, i, j] * part[n, :, i : i + 2, j : j + 2].numpy()
        bias += sign * h.sum((0, 2, 3))
        visible += sign * part.sum((0, 2, 3)).numpy()
    activity = pooled.pooled_means(layer.hidden_input(v), 2)[0].mean((0, 2, 3)).detach().numpy()
    found = [parameter.grad for parameter in (layer.weight, layer.hidden_bias, layer.visible_bias)]
    pull = 0.5 * (activity - 0.1)
    for ours, expected in zip(
        found, (weight / 24 + 0.2 * layer.weight.detach().numpy(), bias / 24 + pull, visible / 24), strict=True
    ):
        assert ours is not None
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


# the learner


def make(spec: ObservationSpec = SMALL, **settings: object) -> ConvRbm:
    torch.manual_seed(0)
    return convrbm.build(Config(**{"maps": (6, 4), "kernels": (3, 3), **settings}), spec).train()  # type: ignore[arg-type]


def strokes(rows: int) -> Tensor:
    """A vertical or a horizontal stroke of six pixels, anywhere."""
    generator = torch.Generator().manual_seed(2)
    x = torch.zeros(rows, 1, 12, 12, dtype=torch.uint8)
    for n in range(rows):
        i, j = torch.randint(6, (2,), generator=generator).tolist()
        if n % 2:
            x[n, 0, i : i + 6, j] = 255
        else:
            x[n, 0, i, j : j + 6] = 255
    return x


def test_it_learns_to_restore_and_sparsity_makes_maps_sparse():
    x, activity = strokes(32), []
    for sparsity in (0.0, 5.0):
        learner = make(maps=(6,), kernels=(3,), target=0.01, sparsity=sparsity)
        optimisers = Optimisers([], learner, learning_rate=2e-2)
        for _ in range(150):
            optimisers.step(learner.loss({"x": x})["layer_1"])
        error = (learner.reconstruct(x) - x / 255).square().flatten(1).sum(1).mean()
        assert error < 1  # the mean image leaves 5.7
        activity.append(pooled.pooled_means(learner.layers[0].hidden_input(x / 255), 2)[0].mean())
    assert activity[1] < 0.7 * activity[0]


def test_chains_from_noise_come_to_the_models_means():
    """Of 4,000 chains against the sum over the 225 states of the hidden units."""
    torch.manual_seed(0)
    spec = ObservationSpec((2, ROWS, COLUMNS), "uint8", 0.0, 255.0)
    learner = convrbm.build(Config(maps=(MAPS,), kernels=(2,), initial=0.7), spec).eval()
    layer = learner.layers[0]
    with torch.no_grad():
        layer.visible_bias.copy_(torch.tensor([0.5, -0.5]))
        layer.hidden_bias.copy_(torch.tensor([0.3, -0.2]))
        states = torch.stack([torch.from_numpy(h) for h in allowed()]).float()
        inputs = layer.visible_input(states)
        weights = (states.sum((2, 3)) @ layer.hidden_bias + softplus(inputs).flatten(1).sum(1)).softmax(0)
        expected = torch.einsum("s,scij->cij", weights, inputs.sigmoid())
    generator = torch.Generator().manual_seed(1)
    walked = learner.chain(learner.noise(4000, generator), [1, 60], generator)
    assert walked.shape == (2, 4000, 2, ROWS, COLUMNS)
    assert (walked[1].mean(0) - expected).abs().max() < 0.02
    assert learner.sample(3, generator, steps=2).shape == (3, 2, ROWS, COLUMNS)


def test_visible_biases_begin_at_the_log_odds_of_the_first_training_batch():
    learner = make()
    learner.eval().loss({"x": strokes(8)})
    assert not learner.layers[0].base.any()
    learner.train().loss({"x": strokes(8)})
    mean = 6 / 144
    assert learner.layers[0].base.item() == pytest.approx(np.log(mean / (1 - mean)), abs=1e-4)
    learner.loss({"x": torch.zeros(8, 1, 12, 12, dtype=torch.uint8)})
    assert learner.layers[0].base.item() == pytest.approx(np.log(mean / (1 - mean)), abs=1e-4)


def test_a_layer_reads_the_pooling_maps_below_and_keeps_its_gradient():
    learner, x = make(features="all"), strokes(5)
    below = learner.layers[0].pooled(x / 255)
    assert below.shape == (5, 6, 5, 5)
    stage = learner.stages()[1]
    assert stage.input is not None
    torch.testing.assert_close(stage.input(x), below)
    above = learner.layers[1].pooled(below)
    assert above.shape == (5, 4, 2, 2)
    torch.testing.assert_close(learner.read(x), torch.cat([below.flatten(1), above.flatten(1)], 1))
    torch.testing.assert_close(make().read(x), above)
    learner.loss({"x": x})["layer_2"].backward()
    assert learner.layers[0].weight.grad is None
    assert learner.layers[1].weight.grad is not None


def test_the_smallest_image_has_one_unit():
    config = Config(maps=(2, 3), kernels=(4, 3), pool=2)
    side = convrbm.smallest_side(config)
    assert convrbm.shapes_of(config, (1, side, side))[-1] == (3, 1, 1)
    assert min(convrbm.shapes_of(config, (1, side - 1, side - 1))[-1]) < 1


def refusals() -> list[tuple[Callable[[], object], type[Exception], str]]:
    def built(spec: ObservationSpec = SMALL, **settings: object) -> Callable[[], object]:
        return lambda: convrbm.build(Config(**settings), spec)  # type: ignore[arg-type]

    return [
        (built(SPECS["tokens"]), SpecError, "tokens"),
        (built(SPECS["vector"]), SpecError, "images"),
        (built(kernels=(11, 5)), SpecError, "at least"),
        (built(kernels=(3,)), UserError, "one of each"),
        (built(visible="poisson"), UserError, "unknown visible"),
        (built(pool=0), UserError, "pool"),
        (built(l2=-1.0), UserError, "l2"),
    ]


@pytest.mark.parametrize(("action", "error", "word"), refusals())
def test_what_makes_no_sense_is_refused(action: Callable[[], object], error: type[Exception], word: str):
    with pytest.raises(error, match=word):
        action()
