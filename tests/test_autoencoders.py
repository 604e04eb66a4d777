"""Autoencoders and their kin against closed forms, autograd's Jacobian, and coordinate descent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saccade.encoders import autoencoder, contractive, make_encoder, psd, sparse
from saccade.encoders.parts import coders, sparse_coding, stacks
from saccade.encoders.parts.corruptions import corrupt
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from sklearn.linear_model import Lasso
from torch import Tensor

DIGITS = ObservationSpec((1, 28, 28), "uint8", 0.0, 255.0)
VECTOR = ObservationSpec((6,))
SMALL = {"hidden": (20, 10), "code": 4}


def images(spec: ObservationSpec, count: int) -> Tensor:
    return torch.randint(0, 256, (count, *spec.shape), dtype=torch.uint8)


# the nets


@pytest.mark.parametrize("shape", [(1, 28, 28), (4, 84, 84), (3, 64, 64), (2, 17, 23), (3, 16, 16)])
@pytest.mark.parametrize("architecture", ["dense", "conv"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_nets_mirror_each_other_and_read_bytes_as_the_unit_scale(shape, architecture, batch_norm):
    spec = ObservationSpec(shape, "uint8", 0.0, 255.0)
    coder = coders.Coder(architecture, (9,), (4, 6, 5), "elu", batch_norm)
    down, up = coders.make_decoder_net(spec, coder, 7), coders.make_encoder_net(spec, coder, 7).eval()
    x = images(spec, 3)
    torch.testing.assert_close(up(x), up(x.float() / 255), rtol=1e-3, atol=1e-4)
    assert up(x).shape == (3, 7)
    assert down(up(x)).shape == x.shape
    sizes = [[p.numel() for p in net.parameters() if p.dim() == 2] for net in (up, down)]
    assert sizes[0] == sizes[1][::-1]


def test_a_map_as_code_halves_rounding_up():
    spec = ObservationSpec((1, 28, 28), "uint8")
    encoder = make_encoder("autoencoder", spec, autoencoder.Config(architecture="conv", channels=(16, 8, 8), code=0))
    assert encoder.feature_shape == (8, 4, 4)
    assert encoder.encode(images(spec, 2)).shape == (2, 8, 4, 4)
    assert encoder.reconstruct(images(spec, 2)).shape == (2, 1, 28, 28)


def test_unit_scale():
    spec = ObservationSpec((3,), low=(-2.0, 0.0, -math.inf), high=(2.0, 10.0, 3.4e38))
    x = torch.tensor([[-2.0, 5.0, 7.0]])
    assert coders.UnitScale(spec)(x).tolist() == [[0.0, 0.5, 7.0]]
    assert not coders.UnitScale(spec).bounded
    assert coders.UnitScale(DIGITS).bounded
    assert coders.UnitScale(DIGITS)(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)).max() == 1


@pytest.mark.parametrize("activation", list(coders.ACTIVATIONS))
def test_deep_nets_keep_the_scale_of_their_activations(activation):
    coder = coders.Coder("dense", (300,) * 4, activation=activation)
    net = coders.make_encoder_net(ObservationSpec((300,)), coder, 100)
    assert 0.1 < net(torch.randn(200, 300)).std().item() < 5


# the corruptions


def test_corruptions():
    x, generator = torch.rand(200, 500) * 0.8 + 0.1, torch.Generator().manual_seed(0)
    masked = corrupt(x, "masking", 0.3, generator=generator)
    assert ((masked == 0) | (masked == x)).all()
    assert (masked == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    peppered = corrupt(x, "salt_and_pepper", 0.4, generator=generator)
    assert (peppered == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (peppered == 1).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert ((peppered == x) | (peppered == 0) | (peppered == 1)).all()
    noisy = corrupt(x, "gaussian", 0.5, generator=generator) - x
    assert noisy.std().item() == pytest.approx(0.5, rel=0.02)
    dropped = corrupt(x, "dropout", 0.25, generator=generator)
    torch.testing.assert_close(dropped[dropped != 0], x[dropped != 0] / 0.75)
    assert dropped.mean().item() == pytest.approx(x.mean().item(), rel=0.02)
    assert corrupt(x, "none", 0.9) is x


def test_what_is_restored_is_the_clean_input():
    config = autoencoder.Config(**SMALL, corruption="masking", strength=0.999, output="linear")
    encoder = make_encoder("autoencoder", DIGITS, config)
    x = images(DIGITS, 4)
    torch.manual_seed(1)
    loss = encoder.loss({"x": x})["reconstruction"]
    torch.manual_seed(1)
    blind = encoder.decode(encoder.net.encode(encoder.corrupted(x).flatten(1)))
    torch.testing.assert_close(loss, (blind - x / 255).square().flatten(1).sum(1), rtol=1e-4, atol=1e-3)


# autoencoder


@pytest.mark.parametrize("architecture", ["dense", "conv"])
@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_losses_are_sums_over_the_pixels(architecture, output):
    x = images(DIGITS, 5)
    for loss in ("squared", "l2_norm", "bernoulli")[: 3 if output == "sigmoid" else 2]:
        config = autoencoder.Config(architecture, (), (4, 4), 3, output=output, loss=loss)
        encoder = make_encoder("autoencoder", DIGITS, config)
        target = (x.numpy() / 255.0).reshape(5, -1)
        restored = encoder.reconstruct(x).detach().numpy().reshape(5, -1).astype(np.float64)
        squared = ((restored - target) ** 2).sum(1)
        if loss == "bernoulli":
            expected = -(target * np.log(restored) + (1 - target) * np.log(1 - restored)).sum(1)
        else:
            expected = squared if loss == "squared" else np.sqrt(squared)
        ours = encoder.loss({"x": x})["reconstruction"].detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=2e-4)


def test_weight_decay_is_half_the_sum_of_squares():
    encoder = make_encoder("autoencoder", VECTOR, autoencoder.Config(**SMALL, weight_decay=0.3))
    squares = sum(p.square().sum() for p in encoder.parameters() if p.dim() == 2)
    torch.testing.assert_close(encoder.loss({"x": torch.randn(2, 6)})["weight_decay"], 0.15 * squares)


def test_tied_weights_are_one_matrix():
    tied = make_encoder("autoencoder", VECTOR, autoencoder.Config(**SMALL, tied=True))
    free = make_encoder("autoencoder", VECTOR, autoencoder.Config(**SMALL))
    matrices = [sum(p.numel() for p in e.parameters() if p.dim() == 2) for e in (tied, free)]
    assert 2 * matrices[0] == matrices[1]
    level, code = tied.net.levels[1], torch.randn(3, 10)
    torch.testing.assert_close(level.decode(code), code @ level.up.weight + level.down_bias)


def test_greedy_stages_train_one_level_each_on_the_codes_below():
    config = autoencoder.Config(**SMALL, greedy=True, tied=True, activation="sigmoid", fine_tune=2.0)
    encoder = make_encoder("autoencoder", DIGITS, config)
    x, stages = images(DIGITS, 6), encoder.stages()
    assert [stage.name for stage in stages] == ["level 1", "level 2", "level 3", "fine-tuning"]
    assert stages[-1].epochs == 2.0
    assert stages[0].input is None
    first = encoder.net.levels[0].encode((x / 255).flatten(1))
    torch.testing.assert_close(stages[1].input(x), first, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stages[2].input(x), encoder.net.levels[1].encode(first), rtol=1e-4, atol=1e-5)
    for stage in stages[:3]:
        encoder.zero_grad()
        losses = stage.loss({"x": stage.input(x) if stage.input else x})
        sum(loss.mean() for loss in losses.values()).backward()
        touched = {id(p) for p in encoder.parameters() if p.grad is not None and p.grad.any()}
        assert touched == {id(p) for p in stage.parameters}
    without = make_encoder("autoencoder", DIGITS, autoencoder.Config(**SMALL, greedy=True, fine_tune=0.0))
    assert len(without.stages()) == 3


def test_a_lower_level_restored_by_cross_entropy():
    """Level 2 over sigmoid units, by hand."""
    encoder = make_encoder("autoencoder", VECTOR, autoencoder.Config(**SMALL, greedy=True, activation="sigmoid"))
    codes, level = torch.rand(3, 20), encoder.net.levels[1]
    p = torch.sigmoid(level.down(torch.sigmoid(level.up(codes))))
    expected = -(codes * p.log() + (1 - codes) * (1 - p).log()).sum(1)
    ours = encoder.stages()[1].loss({"x": codes})["reconstruction"]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


# sparse


def test_k_sparse_codes_keep_the_largest():
    code = torch.tensor([[1.0, -5.0, 3.0, 2.0], [0.1, 0.2, -0.3, -0.4]])
    kept = [[0.0, 0.0, 3.0, 2.0], [0.1, 0.2, 0.0, 0.0]]
    assert sparse.keep_largest(code, 2).tolist() == torch.tensor(kept).tolist()
    assert sparse.keep_largest(code, 9) is code


def test_k_falls_in_training_and_codes_in_use_have_a_wider_support():
    encoder = make_encoder("sparse", VECTOR, sparse.Config(code=60, k=10, k_start=50, support=1.55))
    assert ((encoder.encode(torch.randn(5, 6)) != 0).sum(1) == 16).all()
    encoder.train()
    expected = {0.0: 50, 0.25: 30, 0.5: 10, 1.0: 10}
    for progress, active in expected.items():
        encoder.progress.fill_(progress)
        assert encoder._active() == active
    assert encoder.eval()._active() == 10


def test_the_divergence_of_mean_activities():
    rho, activity = 0.1, np.array([0.1, 0.5, 0.02])
    expected = rho * np.log(rho / activity) + (1 - rho) * np.log((1 - rho) / (1 - activity))
    ours = sparse.bernoulli_divergence(rho, torch.from_numpy(activity))
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-12)
    encoder = make_encoder("sparse", VECTOR, sparse.Config(method="kl", code=5, rho=rho, penalty=2.0))
    x = torch.randn(7, 6)
    total = 2.0 * sparse.bernoulli_divergence(rho, encoder.encode(x).mean(0)).sum()
    torch.testing.assert_close(encoder.loss({"x": x})["sparsity"], total)


# contractive


@pytest.mark.parametrize("activation", list(coders.ACTIVATIONS))
def test_the_penalty_is_the_jacobian_of_autograd(activation):
    level = stacks.Level(7, 5, activation)
    x = torch.randn(4, 7)
    before = level.up(x)
    exact = torch.stack([torch.autograd.functional.jacobian(level.encode, row).square().sum() for row in x])
    ours = contractive.squared_jacobian(level.up.weight, before, level.activation(before), activation)
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-5)


def test_contractive_levels_are_trained_apart():
    encoder = make_encoder("contractive", VECTOR, contractive.Config(hidden=(8,), code=5, penalty=0.5))
    x = torch.randn(3, 6)
    first, second = encoder.stages()
    lower = encoder.stack.levels[0].encode(x)
    torch.testing.assert_close(second.input(x), lower)
    whole = encoder.loss({"x": x})
    assert set(whole) == {"reconstruction_1", "contraction_1", "reconstruction_2", "contraction_2"}
    torch.testing.assert_close(whole["contraction_2"], second.loss({"x": lower})["contraction"])
    torch.testing.assert_close(whole["reconstruction_1"], first.loss({"x": x})["reconstruction"])
    (whole["reconstruction_2"] + whole["contraction_2"]).sum().backward()
    assert encoder.stack.levels[0].up.weight.grad is None


# predictive sparse decomposition


def overcomplete() -> tuple[Tensor, Tensor]:
    """Signals `[10, 20]` and a dictionary `[20, 30]` of unit columns."""
    return torch.randn(10, 20), torch.nn.functional.normalize(torch.randn(20, 30), dim=0)


@pytest.mark.parametrize(("solver", "iterations"), [(sparse_coding.fista, 500), (sparse_coding.ista, 4000)])
def test_inference_reaches_the_optimum_of_coordinate_descent(solver, iterations):
    x, dictionary = overcomplete()
    sparsity = 0.6
    # scikit-learn minimises |x - D z|^2 / (2 n) + alpha |z|_1 with n numbers in x
    lasso = Lasso(alpha=sparsity / (2 * x.shape[1]), fit_intercept=False, tol=1e-10, max_iter=100_000)
    best = np.stack([lasso.fit(dictionary.double().numpy(), row).coef_ for row in x.double().numpy()])
    ours = solver(x, dictionary, sparsity, iterations)
    optimum = sparse_coding.energy(x, dictionary, torch.from_numpy(best).float(), sparsity)
    torch.testing.assert_close(sparse_coding.energy(x, dictionary, ours, sparsity), optimum, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.numpy(), best, atol=5e-3)
    assert (ours == 0).float().mean() > 0.3  # exact zeros


def test_agreement_draws_codes_to_the_prediction():
    x, dictionary = overcomplete()
    target = torch.randn(10, 30)
    code = sparse_coding.fista(x, dictionary, 0.6, 500, target=target, agreement=2.0)
    # one more regression row per code element says sqrt(2) z = sqrt(2) target
    wide = torch.cat([dictionary, 2.0**0.5 * torch.eye(30)])
    both = torch.cat([x, 2.0**0.5 * target], 1)
    torch.testing.assert_close(code, sparse_coding.fista(both, wide, 0.6, 500), rtol=1e-3, atol=1e-3)


def test_unrolled_shrinkage_begins_as_fista():
    x, dictionary = overcomplete()
    guess = psd.ShrinkPredictor(dictionary, 0.6, depth=4)(x)
    torch.testing.assert_close(guess, sparse_coding.fista(x, dictionary, 0.6, 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("predictor", ["tanh", "sigmoid", "lista"])
def test_the_dictionary_keeps_unit_columns_and_the_energy_is_the_papers(predictor):
    encoder = make_encoder("psd", VECTOR, psd.Config(code=9, predictor=predictor, iterations=300))
    x = torch.randn(4, 6)
    losses = encoder.loss({"x": x})
    guess = encoder.encode(x)
    code = sparse_coding.fista(x, encoder.dictionary.detach(), 0.5, 2000, target=guess.detach(), agreement=1.0)
    torch.testing.assert_close(losses["prediction"], (code - guess).square().sum(1), rtol=1e-3, atol=1e-3)
    expected = sparse_coding.energy(x, encoder.dictionary, code, 0.5)
    torch.testing.assert_close(losses["energy"], expected, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        encoder.dictionary *= 3
    encoder.after_update()
    torch.testing.assert_close(encoder.dictionary.norm(dim=0), torch.ones(9))


def test_predictor_and_dictionary_can_descend_the_energy_of_predicted_codes():
    encoder = make_encoder("psd", VECTOR, psd.Config(code=9, direct=2.0))
    x = torch.randn(4, 6)
    expected = 2 * sparse_coding.energy(x, encoder.dictionary, encoder.encode(x), 0.5)
    direct = encoder.loss({"x": x})["direct"]
    torch.testing.assert_close(direct, expected)
    direct.sum().backward()
    assert encoder.dictionary.grad.any()
    assert encoder.predictor.inputs.weight.grad.any()


def test_psd_can_encode_by_inference():
    config = psd.Config(code=9, inference="fista", encode_iterations=400)
    encoder = make_encoder("psd", VECTOR, config).eval()
    x = torch.randn(4, 6)
    torch.testing.assert_close(encoder.encode(x), sparse_coding.fista(x, encoder.dictionary, 0.5, 400))


# settings


@pytest.mark.parametrize(
    ("name", "config", "complaint"),
    [
        ("autoencoder", autoencoder.Config(code=0), "code must be a positive size"),
        ("autoencoder", autoencoder.Config(hidden=(0,)), "hidden must be positive sizes"),
        ("autoencoder", autoencoder.Config(architecture="conv", channels=()), "channels must be one or more"),
        ("autoencoder", autoencoder.Config(architecture="conv", tied=True), "leave them out with conv"),
        ("autoencoder", autoencoder.Config(architecture="conv", code=0, hidden=(5,)), "need a code behind them"),
        ("autoencoder", autoencoder.Config(architecture="vit"), "unknown architecture 'vit'"),  # type: ignore[arg-type]
        ("autoencoder", autoencoder.Config(activation="gelu"), "unknown activation 'gelu'"),  # type: ignore[arg-type]
        ("autoencoder", autoencoder.Config(output="tanh"), "unknown output 'tanh'"),  # type: ignore[arg-type]
        ("autoencoder", autoencoder.Config(loss="l1"), "unknown loss 'l1'"),  # type: ignore[arg-type]
        ("autoencoder", autoencoder.Config(corruption="blur"), "unknown corruption 'blur'"),  # type: ignore[arg-type]
        ("autoencoder", autoencoder.Config(corruption="masking", strength=1.0), "at least 0 and below 1"),
        ("autoencoder", autoencoder.Config(corruption="gaussian", strength=-1.0), "standard deviation"),
        ("autoencoder", autoencoder.Config(weight_decay=-1.0), "must not be negative"),
        ("sparse", sparse.Config(code=5, k=6), "between 1 and the 5 units"),
        ("sparse", sparse.Config(method="kl", rho=1.0), "rho is a mean activity"),
        ("sparse", sparse.Config(method="l1"), "unknown method 'l1'"),  # type: ignore[arg-type]
        ("sparse", sparse.Config(support=0.5), "support at least 1"),
        ("contractive", contractive.Config(hidden=(0,)), "units must be positive"),
        ("contractive", contractive.Config(penalty=-0.1), "penalty must not be negative"),
        ("contractive", contractive.Config(activation="gelu"), "unknown activation 'gelu'"),  # type: ignore[arg-type]
        ("psd", psd.Config(code=0), "code must be positive"),
        ("psd", psd.Config(iterations=0), "must be positive"),
        ("psd", psd.Config(sparsity=-1.0), "must not be negative"),
        ("psd", psd.Config(predictor="mlp"), "unknown predictor 'mlp'"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_make_no_sense(name: str, config: object, complaint: str):
    with pytest.raises(UserError, match=complaint):
        make_encoder(name, DIGITS, config)


def test_cross_entropy_needs_bounds():
    for name, config in (
        ("autoencoder", autoencoder.Config(loss="bernoulli")),
        ("sparse", sparse.Config(loss="bernoulli")),
    ):
        with pytest.raises(SpecError, match=f"{name}.*bounded"):
            make_encoder(name, VECTOR, config)
