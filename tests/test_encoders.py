"""The built-in encoders against hand numbers, and random shift against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.encoders import conv, make_encoder, mlp, resnet
from saccade.encoders.base import Encoder, Inputs, count_parameters
from saccade.encoders.parts.augment import random_shift, shift_images
from saccade.encoders.parts.images import ScaledConv2d
from saccade.encoders.parts.initialise import initialise
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn

ATARI = ObservationSpec((4, 84, 84), "uint8", 0.0, 255.0, stack=4)
SMALL = ObservationSpec((3, 36, 50), "uint8", 0.0, 255.0)


def encode(encoder: Encoder, obs: Tensor) -> Tensor:
    """Features `[N, ...]` of `obs` `[N, ...]`."""
    return encoder.eval()(Inputs(obs.unsqueeze(0)))[0].squeeze(0)


def images(spec: ObservationSpec, count: int) -> Tensor:
    return torch.randint(0, 256, (count, *spec.shape), dtype=torch.uint8)


def naive_shift(obs: np.ndarray, down: list[int], right: list[int]) -> np.ndarray:
    """Pixel by pixel."""
    out = np.empty_like(obs)
    _, batch, _, height, width = obs.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                source_y, source_x = min(max(y + down[b], 0), height - 1), min(max(x + right[b], 0), width - 1)
                out[:, b, :, y, x] = obs[:, b, :, source_y, source_x]
    return out


@pytest.mark.parametrize("pad", [0, 1, 3, 9])
def test_shift_is_the_naive_loop(pad: int):
    obs = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 7, 6), np.uint8)
    down, right = [-pad, pad, 0, pad // 2], [pad, 0, -pad, pad]
    ours = shift_images(torch.from_numpy(obs), torch.tensor(down), torch.tensor(right), pad)
    np.testing.assert_array_equal(ours.numpy(), naive_shift(obs, down, right))


def test_shift_takes_strided_images():
    obs = torch.randint(0, 256, (2, 3, 6, 6, 4), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    down, right = torch.tensor([1, -1, 2]), torch.tensor([0, 2, -2])
    ours = shift_images(obs, down, right, 2)
    np.testing.assert_array_equal(ours.numpy(), naive_shift(obs.numpy(), down.tolist(), right.tolist()))


def test_random_shift_draws_one_of_all_shifts_per_sequence():
    """Every shift comes, about equally often; the same for all times and channels of a sequence."""
    pad, rows = 2, 5000
    size = 4 * pad + 1
    image = torch.arange(size * size).view(1, 1, 1, size, size).expand(2, rows, 2, size, size)
    centre = random_shift(image, pad, torch.Generator().manual_seed(0))[
        ..., 2 * pad, 2 * pad
    ]  # its value says where from
    assert (centre == centre[:1, :, :1]).all()
    down, right = centre[0, :, 0] // size - 2 * pad, centre[0, :, 0] % size - 2 * pad
    counts = torch.bincount((down + pad) * (2 * pad + 1) + right + pad, minlength=25)
    assert len(counts) == 25
    assert ((counts - rows / 25).square() / (rows / 25)).sum() < 52.6  # chi-squared, 24 degrees of freedom, p = 0.0006


def test_random_shift_follows_its_generator():
    obs = images(SMALL, 8).unsqueeze(0)
    first, again, other = (random_shift(obs, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_image_encoders_shift_batches_when_asked(name: str):
    obs = images(SMALL, 4).unsqueeze(0)
    module = {"conv": conv, "resnet": resnet}[name]
    assert torch.equal(make_encoder(name, SMALL).augment(obs), obs)
    shifting = make_encoder(name, SMALL, module.Config(shift=3))
    torch.manual_seed(5)
    augmented = shifting.augment(obs)
    torch.manual_seed(5)
    assert torch.equal(augmented, random_shift(obs, 3))
    assert not torch.equal(augmented, obs)


def test_sizes_of_the_papers():
    """Numbers of parameters, layer by layer: (inputs x area + 1) x outputs."""
    nature = (4 * 64 + 1) * 32 + (32 * 16 + 1) * 64 + (64 * 9 + 1) * 64 + (64 * 7 * 7 + 1) * 512
    assert count_parameters(make_encoder("conv", ATARI)) == (nature, 0)
    layers = [(4, 16), *[(16, 16)] * 4, (16, 32), *[(32, 32)] * 4, (32, 32), *[(32, 32)] * 4]
    impala = sum((inputs * 9 + 1) * outputs for inputs, outputs in layers) + (32 * 11 * 11 + 1) * 256
    assert count_parameters(make_encoder("resnet", ATARI)) == (impala, 0)
    assert count_parameters(make_encoder("mlp", ObservationSpec((4,)))) == (5 * 64 + 65 * 64, 0)


@pytest.mark.parametrize(
    ("name", "config", "shape"),
    [
        ("conv", conv.Config(), (512,)),
        ("conv", conv.Config(hidden=0), (64, 1, 2)),
        ("conv", conv.Config(width=2, hidden=0), (128, 1, 2)),
        ("resnet", resnet.Config(), (256,)),
        ("resnet", resnet.Config(hidden=0), (32, 5, 7)),
        ("resnet", resnet.Config(width=2, hidden=0), (64, 5, 7)),
        ("mlp", mlp.Config(hidden=(7, 3)), (3,)),
    ],
)
def test_feature_shapes(name: str, config: object, shape: tuple[int, ...]):
    encoder = make_encoder(name, SMALL, config)
    assert encoder.feature_shape == shape
    assert encode(encoder, images(SMALL, 2)).shape == (2, *shape)


def test_a_folded_scale_is_a_scaled_image():
    layer, x = ScaledConv2d(3, 5, 3, padding=1), images(SMALL, 2)
    plain = nn.functional.conv2d(x.float() / 255, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)


def test_residual_network_by_hand():
    """One section after another, in NumPy terms: convolve, pool, two blocks."""
    encoder = make_encoder("resnet", SMALL, resnet.Config(hidden=0)).eval()
    x = images(SMALL, 2)
    weights = iter([tuple(m.parameters()) for m in encoder.modules() if isinstance(m, nn.Conv2d)])

    def convolve(h: Tensor) -> Tensor:
        weight, bias = next(weights)
        patches = nn.functional.unfold(h, 3, padding=1)
        return (weight.flatten(1) @ patches).view(len(h), -1, *h.shape[2:]) + bias.reshape(-1, 1, 1)

    h = x / 255
    for _ in range(3):
        h = convolve(h)
        padded = nn.functional.pad(h, (1, 1, 1, 1), value=-torch.inf)
        h = padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))
        for _ in range(2):
            h = h + convolve(convolve(h.clamp(min=0)).clamp(min=0))
    torch.testing.assert_close(encode(encoder, x), h.clamp(min=0), rtol=1e-4, atol=1e-4)


def test_perceptron_by_hand():
    spec = ObservationSpec((2, 3))
    config = mlp.Config(hidden=(4, 5), activation="tanh", layer_norm=True)
    encoder = make_encoder("mlp", spec, config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_()
    x = torch.randn(7, 2, 3)
    w1, b1, g1, c1, w2, b2, g2, c2 = (parameter.detach().numpy() for parameter in encoder.parameters())

    def layer(h: np.ndarray, w: np.ndarray, b: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
        h = h @ w.T + b
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
        return np.tanh(h * gain + shift)

    expected = layer(layer(x.reshape(7, 6).numpy(), w1, b1, g1, c1), w2, b2, g2, c2)
    np.testing.assert_allclose(encode(encoder, x).detach().numpy(), expected, atol=1e-5)


def reads_as(spec: ObservationSpec, config: mlp.Config, obs: Tensor) -> list[float]:
    """What the first layer of a perceptron is given."""
    encoder = make_encoder("mlp", spec, config)
    seen: list[Tensor] = []
    encoder.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encode(encoder, obs.unsqueeze(0))
    return seen[0].flatten().tolist()


def test_observations_are_scaled_by_finite_bounds_when_asked():
    biggest = float(np.finfo(np.float32).max)  # what CartPole calls unbounded
    spec = ObservationSpec((4,), low=(-2.0, 0.0, -biggest, 1.0), high=(2.0, 10.0, biggest, np.inf))
    obs = torch.tensor([1.0, 7.5, 3.0, 4.0])
    assert reads_as(spec, mlp.Config(scale=True), obs) == pytest.approx([0.5, 0.5, 3.0, 4.0])
    assert reads_as(spec, mlp.Config(), obs) == [1.0, 7.5, 3.0, 4.0]


def test_bytes_are_scaled():
    spec = ObservationSpec((3,), "uint8", 0.0, 255.0)
    obs = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert reads_as(spec, mlp.Config(), obs) == pytest.approx([0.0, 0.2, 1.0])
    assert reads_as(spec, mlp.Config(scale=True), obs) == pytest.approx([-1.0, -0.6, 1.0])


def test_initial_weights():
    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    initialise(layer, "orthogonal", gain=2.0)
    torch.testing.assert_close(layer.weight @ layer.weight.T, 4 * torch.eye(200), atol=1e-4, rtol=0)
    assert not layer.bias.any()
    convolution = nn.Conv2d(30, 200, 3)
    initialise(convolution, "he")
    assert convolution.weight.std().item() == pytest.approx((2 / 270) ** 0.5, rel=0.02)
    with pytest.raises(UserError, match="unknown initialisation 'xavier'; known: orthogonal, he"):
        initialise(layer, "xavier")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["conv", "resnet"])
@pytest.mark.parametrize("initialisation", ["orthogonal", "he"])
def test_image_features_are_neither_dead_nor_huge_at_first(name: str, initialisation: str):
    module = {"conv": conv, "resnet": resnet}[name]
    features = encode(make_encoder(name, ATARI, module.Config(initialisation=initialisation)), images(ATARI, 8))
    assert 0.05 < features.std().item() < 5
    assert (features > 0).any(0).float().mean() > 0.5  # of the units say something


@pytest.mark.parametrize(
    ("name", "config", "complaint"),
    [
        ("mlp", mlp.Config(hidden=()), "hidden must be one or more positive sizes"),
        ("mlp", mlp.Config(hidden=(4, 0)), "hidden must be one or more positive sizes"),
        ("mlp", mlp.Config(hidden=(-1,)), "hidden must be one or more positive sizes"),
        ("mlp", mlp.Config(activation="gelu"), "unknown activation 'gelu'; known: relu, tanh, elu"),  # type: ignore[arg-type]
        ("conv", conv.Config(width=0), "width must be positive"),
        ("conv", conv.Config(hidden=-1), "hidden and shift not negative"),
        ("conv", conv.Config(shift=-1), "hidden and shift not negative"),
        ("resnet", resnet.Config(width=-2), "width must be positive"),
        ("resnet", resnet.Config(hidden=-1), "hidden and shift not negative"),
        ("resnet", resnet.Config(shift=-1), "hidden and shift not negative"),
    ],
)
def test_sizes_that_make_no_sense(name: str, config: object, complaint: str):
    with pytest.raises(UserError, match=complaint):
        make_encoder(name, SMALL, config)


@pytest.mark.parametrize(
    ("name", "spec", "complaint"),
    [
        ("mlp", ObservationSpec((5,), "int64", 0.0, 9.0, vocabulary=10), "not tokens"),
        ("mlp", ObservationSpec((5,), "int32"), r"not int32 \[5\]"),
        ("mlp", ObservationSpec((0,)), "at least one number"),
        ("conv", ObservationSpec((4,)), r"not float32 \[4\]; try mlp"),
        ("conv", ObservationSpec((3, 84, 84)), "uint8 images"),
        ("conv", ObservationSpec((1, 35, 84), "uint8"), "at least 36x36"),
        ("resnet", ObservationSpec((4,)), r"not float32 \[4\]; try mlp"),
        ("resnet", ObservationSpec((1, 7, 84), "uint8"), "at least 8x8"),
    ],
)
def test_observations_that_cannot_be_read(name: str, spec: ObservationSpec, complaint: str):
    with pytest.raises(SpecError, match=complaint):
        make_encoder(name, spec)
