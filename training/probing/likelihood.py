"""How likely test examples are: Boltzmann machines by annealed importance sampling, VAEs by importance weights."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...encoders.deep_boltzmann import Dbm
from ...encoders.parts.deep import Deep, bound, folded, mean_field
from ...encoders.parts.gibbs import Machine
from ...encoders.parts.likelihood import (
    Estimate,
    annealed_log_partition,
    exact_log_partition,
    log_likelihood,
    reverse_log_likelihood,
    temperatures,
)
from ...encoders.parts.tempering import Path, base_rates
from ...encoders.rbm import Rbm
from ...encoders.vae import Vae
from .subject import BLOCK, Subject

STEPS, CHAINS = 14_500, 100  # of annealing, as Salakhutdinov & Murray (2008)
REVERSED = 100  # test examples whose likelihood is also found backwards, one walk each
ROUNDS = 30  # of mean field, where a deep machine's bound is measured
EXACT_UNITS = 20  # of a layer of bits, at most, for log Z by enumeration
WEIGHED, IMPORTANCE_SAMPLES = 1000, 500  # test examples of a VAE, and draws of the code for each


def likelihood_of(subject: Subject, steps: int) -> dict[str, Any] | None:
    """What the probe says of its encoder, in nats, means over the test examples; None: it is no such density.

    "nats" with "low" and "high" (the interval of log Z, or of the examples) and "how"; for annealing also "backwards",
    an estimate from below of the first examples, beside "forwards", that of the same ones by log Z; and "seconds".

    Args:
        steps: of annealing; 0: whatever needs it is left out.
    """
    encoder, began = subject.encoder, time.perf_counter()
    found = None
    if isinstance(encoder, Vae):
        found = _of_vae(encoder, subject)
    elif isinstance(encoder, Rbm) and encoder.config.hidden_units != "relu" and encoder.visible != "softmax":
        found = _of_rbm(encoder, subject, steps)
    elif isinstance(encoder, Dbm) and not encoder.config.labels and steps:
        train, test = (_bits(encoder, subject, split) for split in ("train", "test"))
        deep = Deep(*(tuple(part.detach().double() for part in parts) for parts in encoder.deep()))
        limits = deep_bound(deep, train, test, steps=steps)
        how = f"a lower bound by mean field, log Z by annealing, {steps:,} steps"
        found = {"nats": limits.bound, "low": limits.low, "high": limits.high, "how": how}
    return None if found is None else found | {"seconds": round(time.perf_counter() - began, 2)}


def _of_rbm(encoder: Rbm, subject: Subject, steps: int) -> dict[str, Any] | None:
    machine = encoder.machine().to(torch.float64)
    bits = [machine.weight.shape[0]] if machine.hidden == "bernoulli" else []
    bits += [machine.weight.shape[1]] if machine.visible == "bernoulli" else []
    if bits and min(bits) <= EXACT_UNITS:
        every = log_likelihood(machine, _bits(encoder, subject, "test"), exact_log_partition(machine))
        return {"nats": float(every.mean()), **_spread(every), "how": "exactly, log Z by enumeration"}
    if not steps:
        return None
    found = judge(machine, _bits(encoder, subject, "train"), _bits(encoder, subject, "test"), steps=steps)
    how = f"annealed importance sampling, {CHAINS} chains of {steps:,} steps"
    limits = {"nats": found.mean, "low": found.low, "high": found.high}
    return limits | {"how": how, "backwards": found.reverse, "forwards": found.forward}


def _of_vae(encoder: Vae, subject: Subject) -> dict[str, Any]:
    x = subject.take("test", subject.rows["test"][:WEIGHED])["x"]
    generator = torch.Generator(subject.device).manual_seed(subject.seed)
    every = encoder.log_likelihood(x, IMPORTANCE_SAMPLES, generator).double()
    how = f"a lower bound of {len(x):,} examples, {IMPORTANCE_SAMPLES} importance samples"
    return {"nats": float(every.mean()), **_spread(every), "how": how}


def _spread(every: Tensor) -> dict[str, float]:
    """The 95 % interval of the mean over examples."""
    half = 1.96 * float(every.std()) / len(every) ** 0.5 if len(every) > 1 else 0.0
    return {"low": float(every.mean()) - half, "high": float(every.mean()) + half}


@torch.no_grad()
def _bits(encoder: Rbm | Dbm, subject: Subject, split: str) -> Tensor:
    """As many examples of a split as are tested, as the visible units read them, float64 `[N, V]`; what is drawn
    follows from the subject's seed."""
    rows = subject.rows[split][: len(subject.rows["test"])]
    devices = [subject.device] if torch.device(subject.device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(subject.seed)
        return torch.cat([encoder.read_visible(subject.take(split, part)["x"]) for part in rows.split(BLOCK)]).double()


class Likelihood(NamedTuple):
    """Mean over the test images, nats."""

    mean: float
    low: float  # by the interval of log Z
    high: float
    standard_error: float  # over the images
    reverse: float  # of the first images, from below (RAISE)
    forward: float  # of the same images, by log Z
    train: float  # of as many training images, by log Z
    log_partition: Estimate


def judge(
    machine: Machine, train: Tensor, test: Tensor, *, steps: int = STEPS, chains: int = CHAINS, reversed: int = REVERSED
) -> Likelihood:
    """Of bits `[N, V]`, in the machine's own floating-point type; the base rates are those of `train`."""
    generator = torch.Generator(test.device).manual_seed(0)
    path, betas = Path(machine, base_rates(machine, train)), temperatures(steps)
    found = annealed_log_partition(path, betas, chains, None, generator)
    every = log_likelihood(machine, test, found.value)
    mean, few = float(every.mean()), test[:reversed]
    return Likelihood(
        mean,
        mean + found.value - found.high,
        mean + found.value - found.low,
        float(every.std() / len(every) ** 0.5),
        float(reverse_log_likelihood(path, few, betas, 1, generator).mean()),
        float(every[:reversed].mean()),
        float(log_likelihood(machine, train[: len(test)], found.value).mean()),
        found,
    )


class Bounded(NamedTuple):
    """What log p(x) is at least, mean over the test images, nats."""

    bound: float
    low: float  # by the interval of log Z
    high: float
    log_partition: Estimate


@torch.no_grad()
def deep_bound(deep: Deep, train: Tensor, test: Tensor, *, steps: int = STEPS, chains: int = CHAINS) -> Bounded:
    """Of bits `[N, V]` in the machine's own floating-point type, by mean field and annealing (Salakhutdinov & Hinton
    2009, section 2.3); annealing begins at the rates of `train` and of its top's means."""
    machine = folded(deep)
    even = torch.cat([train, *mean_field(deep, train, ROUNDS)[1::2]], 1)
    generator = torch.Generator(test.device).manual_seed(0)
    path = Path(machine, base_rates(machine, even))
    found = annealed_log_partition(path, temperatures(steps), chains, None, generator)
    parts = [bound(deep, x, mean_field(deep, x, ROUNDS)) for x in test.split(BLOCK)]
    mean = float(torch.cat(parts).mean())
    return Bounded(mean - found.value, mean - found.high, mean - found.low, found)
