"""Views, contrast and what follows slowly, against naive loops and hand numbers; the learners find what views share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saccade.encoders import contrastive, make_encoder, temporal
from saccade.encoders.base import Trajectory
from saccade.encoders.parts.augment import add_noise, random_resized_crop, stretch, swap_elements
from saccade.encoders.parts.divergences import cosine_logits, info_nce
from saccade.encoders.parts.views import follow, momentum_copy
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = ObservationSpec((2, 20, 24), "uint8", 0.0, 255.0)
VECTOR = ObservationSpec((8,))


def naive_stretch(line: np.ndarray, start: float, length: float) -> list[float]:
    """Linear interpolation of a row of pixels whose middles lie at .5, 1.5, ..."""
    middles = np.arange(len(line)) + 0.5
    wanted = start + (np.arange(len(line)) + 0.5) * length / len(line)
    return list(np.interp(wanted, middles, line))


def test_stretch_is_linear_interpolation():
    line = np.random.default_rng(0).normal(size=11)
    starts, lengths = [0.0, 2.3, 5.5, 0.0], [11.0, 6.1, 5.5, 3.7]
    weights = stretch(torch.tensor(starts), torch.tensor(lengths), 11)
    ours = weights @ torch.tensor(line, dtype=torch.float32)
    theirs = [naive_stretch(line, start, length) for start, length in zip(starts, lengths, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    torch.testing.assert_close(weights[0], torch.eye(11))


def test_stretch_is_what_torch_makes_of_a_crop():
    """Away from the crop's border, where torch repeats its pixels and we see beyond it."""
    image = torch.rand(1, 1, 12, 12)
    weights = stretch(torch.tensor([3.0]), torch.tensor([6.0]), 12)[0]
    theirs = F.interpolate(image[..., 3:9, 3:9], size=(12, 12), mode="bilinear")
    torch.testing.assert_close((weights @ image @ weights.T)[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])


def test_crops_are_parts_of_the_image():
    """Of a ramp, a crop is a ramp: its slope says the share of the side, its ends lie inside; both are spread out."""
    ramp = (torch.arange(20.0)).view(1, 1, 1, 20).expand(2000, 1, 20, 20)
    crops = random_resized_crop(ramp, 0.4)
    share = (crops[:, 0, 0, 12] - crops[:, 0, 0, 7]) / 5
    assert 0.4 <= share.min() < 0.42
    assert 0.98 < share.max() <= 1
    assert share.mean().item() == pytest.approx(0.7, abs=0.02)
    start = crops[:, 0, 0, 7] + 0.5 - 7.5 * share
    assert start.min() > -1e-3
    assert (start + 20 * share).max() < 20 + 1e-3
    flipped = random_resized_crop(ramp, 0.4, flip=True)
    rising = (flipped[:, 0, 0, 12] > flipped[:, 0, 0, 7]).float().mean().item()
    assert rising == pytest.approx(0.5, abs=0.05)


def test_crops_follow_their_generator_and_keep_bytes():
    images = torch.randint(0, 256, (6, 3, 16, 20), dtype=torch.uint8)
    first, again, other = (random_resized_crop(images, 0.5, True, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(random_resized_crop(images, 1.0), images)


def test_noise_is_measured_in_deviations_of_each_element():
    x = torch.randn(20_000, 3) * torch.tensor([0.0, 1.0, 10.0]) + 5
    moved = (add_noise(x, 0.3) - x).std(0) / x.std(0).clamp(min=1e-9)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.3, 0.3]), atol=0.01, rtol=0)


def test_swapped_elements_come_from_their_own_column():
    x = torch.arange(1000).view(-1, 1) * 10 + torch.arange(4)
    swapped = swap_elements(x, 0.25)
    assert (swapped % 10 == torch.arange(4)).all()
    assert (swapped != x).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_contrast_is_the_naive_sum():
    logits = np.random.default_rng(0).normal(size=(5, 5)) * 3
    naive = [-math.log(math.exp(row[n]) / sum(math.exp(v) for v in row)) for n, row in enumerate(logits)]
    np.testing.assert_allclose(info_nce(torch.tensor(logits)), naive, rtol=1e-5)
    torch.testing.assert_close(info_nce(torch.zeros(7, 7)), torch.full((7,), math.log(7)))
    assert info_nce(torch.zeros(0, 0)).shape == (0,)


def test_cosines_by_hand():
    query, key = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    torch.testing.assert_close(cosine_logits(query, key, 0.5), torch.tensor([[1.2, 1.6, -1.2], [2.0, 0.0, -2.0]]))


def test_a_copy_follows_by_its_momentum():
    fast = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    slow = momentum_copy(fast)
    before = [p.clone() for p in slow.parameters()]
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter += 1
    fast(torch.randn(5, 3))
    follow(slow, fast, 0.9)
    for old, new in zip(before, slow.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
        assert not new.requires_grad
    assert torch.equal(slow[1].running_mean, fast[1].running_mean)


def train(learner: contrastive.Contrastive, x: Tensor, steps: int) -> tuple[float, float]:
    """Mean loss of the first and of the last tenth of `steps`."""
    optimizer = torch.optim.Adam(learner.stages()[0].parameters, lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = learner.loss({"x": x})["contrast"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.after_update()
        losses.append(loss.item())
    tenth = max(steps // 10, 1)
    return float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))


@pytest.mark.parametrize("similarity", ["cosine", "bilinear"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_views_of_images_are_found_again(similarity: contrastive.Similarity, momentum: float):
    config = contrastive.Config(channels=(8, 16), hidden=(), strength=1.0, similarity=similarity, momentum=momentum)
    learner = make_encoder("contrastive", ObservationSpec((1, 20, 20), "uint8", 0.0, 255.0), config)
    assert isinstance(learner, contrastive.Contrastive)
    x = (F.interpolate(torch.rand(64, 1, 5, 5), size=(20, 20)) * 255).to(torch.uint8)
    first, last = train(learner, x, 60)
    assert first < math.log(64) + 1.5
    assert last < 0.5 * first
    assert last < 0.6 * math.log(64)


def test_gradients_reach_the_query_only():
    learner = make_encoder("contrastive", VECTOR, contrastive.Config(similarity="bilinear")).train()
    assert isinstance(learner, contrastive.Contrastive)
    assert learner.key is not None
    learner.loss({"x": torch.randn(16, 8)})["contrast"].mean().backward()
    assert all(p.grad is None for p in learner.key.parameters())
    assert learner.similarity is not None
    assert learner.similarity.grad is not None
    without = make_encoder("contrastive", VECTOR, contrastive.Config(momentum=0.0))
    assert not any("key" in name for name in without.state_dict())


def test_features_are_those_before_the_projection():
    learner = make_encoder("contrastive", IMAGE, contrastive.Config(features=10)).eval()
    x = torch.randint(0, 256, (3, *IMAGE.shape), dtype=torch.uint8)
    assert isinstance(learner, contrastive.Contrastive)
    torch.testing.assert_close(learner.read(x), learner.perception.net(x))
    assert learner.read(x).shape == (3, 10)


def walk(steps: int, rows: int) -> Trajectory:
    """Row b shows 100 b + t at time t; episodes end and padding lies here and there."""
    obs = 100 * torch.arange(rows).view(1, -1, 1) + torch.arange(steps + 1).view(-1, 1, 1)
    reset, mask = torch.rand(steps + 1, rows) < 0.15, torch.rand(steps, rows) > 0.15
    action = torch.randint(5, (steps, rows))
    ones = torch.ones(steps, rows)
    return Trajectory(obs.float(), action, ones, ones, reset, mask)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_pairs_cross_neither_resets_nor_padding(steps: int):
    batch = walk(7, 40)
    naive = []
    for t in range(7 - steps + 1):
        for b in range(40):
            if batch.mask[t : t + steps, b].all() and not batch.reset[t + 1 : t + steps + 1, b].any():
                naive.append((batch.obs[t, b, 0].item(), batch.action[t : t + steps, b].tolist()))
    ours = temporal.pairs(batch, steps)
    assert naive
    assert list(zip(ours.x[:, 0].tolist(), ours.action.tolist(), strict=True)) == naive
    assert torch.equal(ours.next_x, ours.x + steps)


def test_no_pairs_no_loss():
    learner = make_encoder("temporal", ObservationSpec((1,)), temporal.Config(steps=5, actions=5))
    batch = walk(4, 3)
    assert temporal.pairs(batch, 5).action.shape == (0, 5)
    assert learner.auxiliary_losses(batch, None)["prediction"].item() == 0
    batch = walk(6, 3)
    nothing = learner.auxiliary_losses(batch._replace(mask=torch.zeros_like(batch.mask)), None)
    assert nothing["prediction"].item() == 0


def explained(features: Tensor, signal: Tensor) -> float:
    """Share of the variance of `signal` that a linear map of `features` explains."""
    design = torch.cat([features, torch.ones(len(features), 1)], 1)
    rest = signal - design @ torch.linalg.lstsq(design, signal).solution
    return 1 - (rest.var(0) / signal.var(0)).mean().item()


@pytest.mark.parametrize("loss", ["contrast", "cosine"])
def test_what_lasts_is_kept_and_noise_is_not(loss: temporal.Loss):
    """Two of eight numbers stay from one step to the next; the others are drawn anew."""
    config = temporal.Config(hidden=(32,), features=16, loss=loss, view="none", similarity="cosine", momentum=0.9)
    learner = make_encoder("temporal", VECTOR, config)
    assert isinstance(learner, temporal.Temporal)
    optimizer = torch.optim.Adam(learner.stages()[0].parameters, lr=3e-3)

    def see(lasting: Tensor) -> Tensor:
        return torch.cat([lasting, torch.randn(len(lasting), 6)], 1)

    for _ in range(300):
        lasting = torch.randn(128, 2)
        loss_now = learner.loss({"x": see(lasting), "next_x": see(lasting)})["prediction"].mean()
        optimizer.zero_grad()
        loss_now.backward()
        optimizer.step()
        learner.after_update()
    lasting = torch.randn(2000, 2)
    x = see(lasting)
    with torch.no_grad():
        features = learner.eval().read(x)
    assert explained(features, lasting) > explained(features, x[:, 2:]) + 0.3


def test_actions_tell_what_comes():
    """The action says whether all turns round or stays: who reads it predicts better."""
    last = {}
    for actions in (0, 2):
        torch.manual_seed(0)
        config = temporal.Config(hidden=(32,), actions=actions, view="none", similarity="cosine", momentum=0.5)
        learner = make_encoder("temporal", VECTOR, config)
        assert isinstance(learner, temporal.Temporal)
        optimizer = torch.optim.Adam(learner.stages()[0].parameters, lr=3e-3)
        for _ in range(100):
            x, action = torch.randn(64, 8), torch.randint(2, (64,))
            next_x = torch.where(action[:, None] == 1, x, -x)
            loss = learner.loss({"x": x, "next_x": next_x, "action": action})["prediction"].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            learner.after_update()
        last[actions] = loss.item()
    assert last[2] < 0.8 * last[0]


def test_continuous_actions_are_read_as_numbers():
    learner = make_encoder("temporal", VECTOR, temporal.Config(steps=2, actions=3)).train()
    batch = walk(4, 6)
    batch = batch._replace(obs=torch.randn(5, 6, 8), action=torch.randn(4, 6, 3), mask=torch.ones(4, 6) > 0)
    assert learner.auxiliary_losses(batch, None)["prediction"].item() > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (temporal.Config(loss="mse"), "unknown loss 'mse'"),  # type: ignore[arg-type]
        (temporal.Config(steps=0), "must be positive"),
        (temporal.Config(actions=-1), "must not be negative"),
        (temporal.Config(view="shift"), "is for images"),
    ],
)
def test_temporal_settings_that_make_no_sense_are_refused(config: temporal.Config, message: str):
    with pytest.raises(UserError, match=message):
        make_encoder("temporal", VECTOR, config)


@pytest.mark.parametrize(
    ("spec", "config", "message"),
    [
        (ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20), contrastive.Config(), "embed them first"),
        (VECTOR, contrastive.Config(architecture="conv"), "reads uint8 images"),
        (VECTOR, contrastive.Config(view="crop"), "view 'crop' is for images"),
        (IMAGE, contrastive.Config(view="crop", strength=0.0), "strength 0.0 makes no sense"),
        (IMAGE, contrastive.Config(view="blur"), "unknown view 'blur'"),  # type: ignore[arg-type]
        (IMAGE, contrastive.Config(temperature=0.0), "temperature must be positive"),
        (IMAGE, contrastive.Config(momentum=1.0), "momentum must lie"),
        (IMAGE, contrastive.Config(similarity="dot"), "unknown similarity"),  # type: ignore[arg-type]
        (VECTOR, contrastive.Config(augment_agent=2), "for images"),
        (VECTOR, contrastive.Config(features=0), "features must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: ObservationSpec, config: contrastive.Config, message: str):
    with pytest.raises((SpecError, UserError), match=message):
        make_encoder("contrastive", spec, config)
