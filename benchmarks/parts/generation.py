"""How good samples of digits are: Parzen windows, and the Fréchet distance in a feature net of our own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ...data import Batches, Dataset, Split
from ...encoders.parts.divergences import frechet_distance
from ...encoders.parts.likelihoods import parzen_log_likelihood

SAMPLES = 10_000
DEVIATIONS = np.logspace(-1, 0, 10)  # of the windows, tried on the validation images
EPOCHS, BATCH, SEED = 3, 100, 20_000  # of the feature net
CHUNK = 1000


class FeatureNet(nn.Module):
    """A conv net for digits; what it is compared by are the 64 numbers before the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
        )
        self.classes = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images in 0..1 `[N, 1, 28, 28]` to logits `[N, 10]`."""
        return self.classes(self.features(x))


class Judge(NamedTuple):
    """The feature net, and what it sees in the test images."""

    net: FeatureNet
    features: Tensor  # [10000, 64]
    accuracy: float  # on the test images


def make_judge(dataset: Dataset, folder: Path) -> Judge:
    """The feature net trained on MNIST from its fixed seed, or as it was left in `folder`."""
    file = folder / "feature-net.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = FeatureNet()
        if file.is_file():
            net.load_state_dict(safetensors.torch.load_file(file))
        else:
            _train(net, dataset.train)
            folder.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(net.state_dict(), file)
    features = features_of(net, unit(dataset.test.x))
    with torch.no_grad():
        right = net.classes(features).argmax(1) == dataset.test.label
    return Judge(net.eval(), features, right.float().mean().item())


def _train(net: FeatureNet, split: Split) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = Batches(split, BATCH, SEED)
    for _ in range(EPOCHS):
        for batch in batches.epoch():
            loss = nn.functional.cross_entropy(net(unit(batch["x"])), batch["label"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def unit(x: Tensor) -> Tensor:
    """Bytes to float32 in 0..1."""
    return x.float() / 255


@torch.no_grad()
def features_of(net: FeatureNet, x: Tensor) -> Tensor:
    """`[N, 64]` of images in 0..1 `[N, 1, 28, 28]`."""
    return torch.cat([net.features(part) for part in x.split(CHUNK)])


class Quality(NamedTuple):
    """Of `SAMPLES` samples."""

    parzen: float  # mean log-likelihood of the test images, nats
    parzen_error: float  # its standard error over the test images
    deviation: float  # of the windows, chosen on the validation images
    frechet: float  # distance to the test images


def judge_samples(samples: Tensor, dataset: Dataset, judge: Judge) -> Quality:
    """`samples` `[SAMPLES, 1, 28, 28]` in 0..1, by the protocol of Goodfellow et al. (2014, section 5)."""
    flat, validation = samples.flatten(1), unit(dataset.validation.x[:CHUNK]).flatten(1)
    means = [parzen_log_likelihood(validation, flat, float(s)).mean().item() for s in DEVIATIONS]
    deviation = float(DEVIATIONS[int(np.argmax(means))])
    test = parzen_log_likelihood(unit(dataset.test.x).flatten(1), flat, deviation)
    frechet = frechet_distance(features_of(judge.net, samples), judge.features)
    return Quality(test.mean().item(), (test.std() / len(test) ** 0.5).item(), deviation, frechet)
