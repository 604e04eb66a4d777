"""The conv nets for small images against hand numbers, and the whitening against its definition."""

from __future__ import annotations

import pytest
import torch
from saccade.encoders import convnet, fastconv, make_encoder
from saccade.encoders.base import count_parameters
from saccade.encoders.fastconv import FastConv, Whitening
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import nn
from torch.nn import functional as F

DIGIT = ObservationSpec((1, 28, 28), "uint8", 0.0, 255.0)
COLOUR = ObservationSpec((3, 32, 32), "uint8", 0.0, 255.0)


def images(spec: ObservationSpec, count: int, seed: int = 0) -> torch.Tensor:
    """Smooth random images: neighbouring pixels are correlated, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, spec.shape[0], 8, 8, generator=generator)
    x = F.interpolate(coarse, spec.shape[1:], mode="bilinear") * 200 + 20 * torch.rand(
        count, *spec.shape, generator=generator
    )
    return x.to(torch.uint8)


def test_the_mnist_net_has_the_sizes_of_its_description():
    net = make_encoder("convnet", DIGIT)
    # conv 5x5x1x32, conv 5x5x32x64, dense 7*7*64 x 1024, with biases
    assert count_parameters(net)[0] == (25 * 32 + 32) + (25 * 32 * 64 + 64) + (3136 * 1024 + 1024)
    assert net.feature_shape == (1024,)


def test_the_cifar_nets_have_the_sizes_of_their_description():
    config = convnet.Config(channels=(64, 64), dense=(384, 192), dropout=0.0, crop=24)
    plain = (75 * 64 + 64) + (25 * 64 * 64 + 64) + (36 * 64 * 384 + 384) + (384 * 192 + 192)
    assert count_parameters(make_encoder("convnet", COLOUR, config))[0] == plain
    normed = convnet.Config(**vars(config) | {"batch_norm": True})
    # every layer has a scale and a shift in place of its bias
    assert count_parameters(make_encoder("convnet", COLOUR, normed))[0] == plain + 64 + 64 + 384 + 192


@pytest.mark.parametrize("batch_norm", [False, True])
def test_convnet_is_its_description(batch_norm: bool):
    """Convolution, normalisation, ReLU, pooling in the order of the book, with PyTorch's own operations."""
    config = convnet.Config(channels=(3, 4), dense=(5, 6), crop=8, batch_norm=batch_norm)
    net = convnet.build(config, ObservationSpec((1, 12, 10), "uint8", 0.0, 255.0))
    for module in net.modules():  # statistics and biases that show
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias)
    net.eval()
    x = torch.randint(0, 256, (3, 1, 12, 10), dtype=torch.uint8)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)] or [nn.Identity()] * 4
    y = x[:, :, 2:10, 1:9].float() / 255
    for layer, norm in zip(layers[:2], norms[:2], strict=True):
        assert isinstance(layer, nn.Conv2d)
        y = F.max_pool2d(F.relu(norm(F.conv2d(y, layer.weight, layer.bias, padding=2))), 2)
    y = y.permute(0, 2, 3, 1).flatten(1)
    for layer, norm in zip(layers[2:], norms[2:], strict=True):
        y = F.relu(norm(F.linear(y, layer.weight, layer.bias)))
    torch.testing.assert_close(net.read(x), y)


def test_images_may_come_cropped():
    config = convnet.Config(channels=(4, 4), dense=(8,), crop=24)
    net = convnet.build(config, COLOUR).eval()
    x = images(COLOUR, 2)
    torch.testing.assert_close(net.read(x[:, :, 4:28, 4:28]), net.read(x))


def test_dropout_is_off_in_evaluation():
    net = make_encoder("convnet", DIGIT)
    x = images(DIGIT, 4)
    assert not torch.equal(net.train().read(x), net.read(x))
    assert torch.equal(net.eval().read(x), net.read(x))
    dropped = (net.train().read(x) == 0).float().mean() - (net.eval().read(x) == 0).float().mean()
    assert dropped > 0.15  # half of those that are not 0 anyway


@pytest.mark.parametrize("spec", [DIGIT, COLOUR], ids=["digit", "colour"])
@pytest.mark.parametrize("patch", [2, 3])
def test_whitened_patches_have_the_identity_for_covariance(spec: ObservationSpec, patch: int):
    layer, x = Whitening(spec.shape[0], patch), images(spec, 200)
    layer.fit(x, epsilon=1e-9)
    size = spec.shape[0] * patch**2
    y = layer(x)
    assert y.shape == (200, 2 * size, spec.shape[1] - patch + 1, spec.shape[2] - patch + 1)
    torch.testing.assert_close(y[:, :size], -y[:, size:], atol=1e-3, rtol=1e-3)  # each direction with both signs
    flat = y[:, :size].transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(flat.mean(1), torch.zeros(size).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(flat), torch.eye(size).double(), atol=5e-3, rtol=0)


def test_whitening_bears_pixels_that_never_change():
    layer = Whitening(1, 3)
    layer.fit(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), epsilon=1e-3)
    assert layer.weight.isfinite().all()
    x = images(DIGIT, 20)
    x[:, :, :, :14] = 0
    layer.fit(x, epsilon=1e-3)
    assert layer(x).abs().max() < 100


def test_the_largest_variance_comes_first():
    layer, x = Whitening(1, 2), images(DIGIT, 50)
    layer.fit(x, epsilon=1e-9)
    gains = layer.weight[:4].flatten(1).norm(dim=1)
    assert (gains.diff() > 0).all()  # the larger the variance, the smaller the gain


def test_fastconv_fixes_the_whitening_and_trains_the_rest():
    net = fastconv.build(fastconv.Config(widths=(8, 16)), COLOUR)
    assert isinstance(net, FastConv)
    net.fit_to(images(COLOUR, 50))
    before = net.whitening.weight.clone()
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    net.read(images(COLOUR, 4)).square().mean().backward()
    optimiser.step()
    assert torch.equal(net.whitening.weight, before)
    saved = net.state_dict()
    other = fastconv.build(fastconv.Config(widths=(8, 16)), COLOUR)
    other.load_state_dict(saved)
    torch.testing.assert_close(other.eval().read(images(COLOUR, 3)), net.eval().read(images(COLOUR, 3)))


def test_fastconvs_biases_learn_faster():
    net = fastconv.build(fastconv.Config(widths=(8, 16), bias_rate=7.0), COLOUR)
    groups = {group.name: group for group in net.parameter_groups()}
    assert groups["biases"].learning_rate_factor == 7
    assert {parameter.dim() for parameter in groups["biases"].parameters} == {1}
    assert len(groups["biases"].parameters) == 1 + 4


def test_convolutions_begin_as_the_identity():
    convolution = fastconv._identity_convolution(3, 5)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(convolution(x)[:, :3], x)
    assert convolution(x)[:, 3:].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("convnet", {"kernel": 4}),
        ("convnet", {"channels": ()}),
        ("convnet", {"dropout": 1.0}),
        ("convnet", {"crop": 40}),
        ("fastconv", {"widths": ()}),
        ("fastconv", {"activation": "tan"}),
        ("fastconv", {"norm_momentum": 0.0}),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict):
    config = {"convnet": convnet.Config, "fastconv": fastconv.Config}[name](**settings)
    with pytest.raises(UserError, match=name):
        make_encoder(name, COLOUR, config)


@pytest.mark.parametrize("name", ["convnet", "fastconv"])
def test_small_images_and_vectors_are_refused(name: str):
    for spec in (ObservationSpec((3, 2, 2), "uint8", 0.0, 255.0), ObservationSpec((6,))):
        with pytest.raises(SpecError, match=name):
            make_encoder(name, spec)
