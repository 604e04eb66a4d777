"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114), and what has been made of it.

The posterior is a Gaussian with diagonal covariance, the prior is standard. The weight of the divergence may be other
than 1 (beta; Higgins et al. 2017), rise at the start (Bowman et al. 2016), or spare each latent some nats (free bits;
Kingma et al. 2016, arXiv:1606.04934, appendix C.8). With several importance samples the bound is the tighter one of
Burda et al. (2016, arXiv:1509.00519, eq. 8). Bits may be drawn anew from grey values each time an image is seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import (
    Activation,
    Architecture,
    Coder,
    UnitScale,
    check_coder,
    make_decoder_net,
    make_encoder_net,
    mean_losses,
    observed,
)
from .parts.initialise import Initialisation
from .parts.likelihoods import (
    bernoulli_log_likelihood,
    binarise,
    gaussian_divergence,
    gaussian_log_likelihood,
    importance_weighted,
)

kind = "variational autoencoder: Bernoulli or Gaussian, beta, free bits, importance weighting"

Likelihood = Literal["auto", "bernoulli", "gaussian"]
Binarise = Literal["none", "dynamic"]
LOG_VARIANCES = (-15.0, 15.0)  # limits of a posterior's, so that no observation makes it infinite


@dataclass(frozen=True)
class Config:
    architecture: Architecture = "dense"
    hidden: tuple[int, ...] = (500, 500)  # units of the dense layers, from the observation (or the last map) on
    channels: tuple[int, ...] = (32, 64)  # conv: of the convolutions, each of which halves the image
    latents: int = 20  # numbers in the code
    activation: Activation = "silu"
    batch_norm: bool = False  # before every hidden activation
    initialisation: Initialisation = "he"  # of the weights; biases start at 0
    likelihood: Likelihood = "auto"  # of the data given the code; auto: bernoulli where all elements are bounded
    binarise: Binarise = "none"  # bernoulli: dynamic draws bits from the values in 0..1 each time they are seen
    deviation: float = 1.0  # gaussian: standard deviation in unit scale, or where it starts
    learn_deviation: bool = False  # gaussian: one standard deviation, learned
    beta: float = 1.0  # weight of the divergence from the prior
    warm_up: float = 0.0  # share of training alone over which that weight rises from 0
    free_bits: float = 0.0  # nats that each latent's divergence costs at least, so that it need not vanish
    importance_samples: int = 1  # draws of the code per example; more than 1: the importance-weighted bound


class Vae(FeedForward):
    """Its features are the posterior's mean."""

    window = 1
    progress: Tensor  # 0..1, how much of training alone is done; filled by the trainer

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.scale = UnitScale(spec)
        self.bernoulli = config.likelihood == "bernoulli" or (config.likelihood == "auto" and self.scale.bounded)
        self.feature_shape = (config.latents,)
        coder = _coder(config)
        self.encoder = make_encoder_net(spec, coder, 2 * config.latents)
        self.decoder = make_decoder_net(spec, coder, config.latents)
        log_variance = torch.tensor(config.deviation).log() * 2
        if config.learn_deviation and not self.bernoulli:
            self.log_variance: Tensor = nn.Parameter(log_variance)
        else:
            self.register_buffer("log_variance", log_variance, persistent=False)
        self.register_buffer("progress", torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(self.scale.lazily(x))[:, : self.config.latents]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log of the variance, float32 `[N, latents]`, of what `target` returned."""
        mean, log_variance = self.encoder(x).float().chunk(2, 1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, latents]` to the mean of the data, in unit scale, float32 `[N, *shape]`."""
        mean = self.decoder(code).float()
        return mean.sigmoid() if self.bernoulli else mean

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Means of the data for codes drawn from the prior: unit scale, float32 `[count, *shape]`."""
        device = self.progress.device
        drawn_on = device if generator is None else generator.device
        return self.decode(torch.randn(count, self.config.latents, generator=generator, device=drawn_on).to(device))

    def target(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What is learned of observations: they in unit scale, float32 `[N, *shape]`, or bits drawn from them."""
        if self.config.binarise == "dynamic":
            return binarise(x if x.dtype == torch.uint8 else self.scale(x), generator)
        return self.scale(x)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` and `divergence` `[N]`, whose sum is minus the evidence bound where beta is 1; with several
        importance samples their bound alone, `bound` `[N]`."""
        return self._losses(batch["x"], self._weight())

    def stages(self) -> Sequence[Stage]:
        return [Stage("vae", list(self.parameters()), self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return mean_losses(self._losses(observed(batch), self.config.beta))  # agents know of no progress

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, samples: int, generator: torch.Generator | None = None, rows: int = 1000
    ) -> Tensor:
        """log p(x) in nats `[N]`, estimated from below with `samples` draws of each posterior.

        With dynamic binarisation it is that of one draw of bits for each image. 5,000 samples of 10,000 digits through
        500-500 units are 70 TFLOP. `rows` draws are computed at once. `generator` is on the model's device.
        """
        return importance_weighted(
            lambda part, count: self.log_weights(part, count, 1.0, generator), self.target(x, generator), samples, rows
        )

    def log_weights(
        self, target: Tensor, count: int, beta: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """log p(x | z) + beta (log p(z) - log q(z | x)) of `count` draws of z, `[count, N]`."""
        mean, log_variance = self.posterior(target)
        noise = torch.randn(count, *mean.shape, generator=generator, device=mean.device)
        code = mean + noise * (0.5 * log_variance).exp()
        # the constants of both Gaussians cancel
        prior, posterior = code.square(), noise.square() + log_variance
        return self._likelihood(code, target) + beta * 0.5 * (posterior - prior).sum(-1)

    def _losses(self, x: Tensor, beta: Tensor | float) -> dict[str, Tensor]:
        config, target = self.config, self.target(x)
        if config.importance_samples > 1:
            weights = self.log_weights(target, config.importance_samples, beta)
            return {"bound": math.log(config.importance_samples) - weights.logsumexp(0)}
        mean, log_variance = self.posterior(target)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = gaussian_divergence(mean, log_variance)  # [N, latents]
        if config.free_bits:
            enough = divergence.mean(0) > config.free_bits
            divergence = torch.where(enough, divergence, config.free_bits)
        return {"reconstruction": -self._likelihood(code, target), "divergence": beta * divergence.sum(1)}

    def _likelihood(self, code: Tensor, target: Tensor) -> Tensor:
        """log p(x | z): codes `[..., N, latents]`, targets `[N, *shape]`, to `[..., N]`."""
        mean = self.decoder(code.flatten(0, -2)).flatten(1).unflatten(0, code.shape[:-1])
        flat = target.flatten(1)
        if self.bernoulli:
            return bernoulli_log_likelihood(mean, flat)
        return gaussian_log_likelihood(flat, mean, self.log_variance)

    def _weight(self) -> Tensor | float:
        config = self.config
        return config.beta * (self.progress / config.warm_up).clamp(max=1) if config.warm_up else config.beta


def _coder(config: Config) -> Coder:
    return Coder(
        config.architecture,
        config.hidden,
        config.channels,
        config.activation,
        config.batch_norm,
        config.initialisation,
    )


def build(config: Config, spec: ObservationSpec) -> Vae:
    """Raises SpecError for tokens and what the nets or the likelihood cannot read, UserError for settings without
    sense."""
    check_coder(spec, _coder(config), "vae")
    for name, known in (("likelihood", get_args(Likelihood)), ("binarise", get_args(Binarise))):
        if getattr(config, name) not in known:
            raise UserError(f"vae: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    bounded = UnitScale(spec).bounded
    if config.likelihood == "bernoulli" and not bounded:
        raise SpecError(f"encoder 'vae' needs bounded observations for the Bernoulli likelihood, not {spec.describe()}")
    if config.binarise == "dynamic" and (config.likelihood == "gaussian" or not bounded):
        raise SpecError("encoder 'vae' draws bits only from bounded observations, for the Bernoulli likelihood")
    if config.latents < 1 or config.importance_samples < 1 or config.deviation <= 0:
        raise UserError("vae: latents, importance_samples and deviation must be positive")
    if config.beta < 0 or config.free_bits < 0 or not 0 <= config.warm_up <= 1:
        raise UserError("vae: beta and free_bits must not be negative, warm_up must lie in 0..1")
    if config.free_bits and config.importance_samples > 1:
        raise UserError("vae: free_bits are of the plain bound; leave them out with several importance_samples")
    return Vae(config, spec)
