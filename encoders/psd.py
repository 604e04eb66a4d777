"""Predictive sparse decomposition: sparse codes over a dictionary, and a net that guesses them at once.

Kavukcuoglu, Ranzato & LeCun 2008 (arXiv:1010.3467): with a dictionary D of unit-norm columns, the code of x minimises

    |x - D z|^2 + sparsity |z|_1 + agreement |z - F(x)|^2        (their equation 5)

and D and F descend the same energy at that z. The predictor F is g tanh(W x + b) or with a sigmoid, as there, or the
unrolled iterations of Gregor & LeCun 2010 (ICML, "Learning fast approximations of sparse coding", equation 4), whose
codes have exact zeros. Beyond the papers, both may also descend the energy at the predicted codes (`direct`): a small
error of a code can be a large one of the reconstruction, and a dictionary can meet its predictor halfway. Inference is
FISTA (Beck & Teboulle 2009, SIAM J. Imaging Sciences 2, 183, equations 4.1-4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import UnitScale, observed_losses, require_numbers
from .parts.sparse_coding import fista, largest_curvature, momenta, shrink

kind = "predictive sparse decomposition: a dictionary, and a net that predicts its sparse codes"

PredictorName = Literal["tanh", "sigmoid", "lista"]
Inference = Literal["predict", "fista"]


@dataclass(frozen=True)
class Config:
    code: int = 256  # columns of the dictionary
    sparsity: float = 0.5  # weight of the sum of absolute values of a code
    agreement: float = 1.0  # weight of the predictor's opinion while codes are inferred
    direct: float = 0.0  # weight of the energy at the predicted codes, which both then descend too
    predictor: PredictorName = "lista"  # tanh and sigmoid: one scaled layer; lista: unrolled shrinkage
    depth: int = 3  # lista: shrinkages after the first
    inference: Inference = "predict"  # how `encode` codes; fista: by minimising the energy without the predictor
    iterations: int = 30  # of FISTA in training, from the prediction on; more are taken to encode
    encode_iterations: int = 100  # of FISTA from zero, where it encodes


class SquashPredictor(nn.Module):
    """g times a squashed affine map."""

    def __init__(self, size: int, code: int, name: PredictorName):
        super().__init__()
        self.affine = nn.Linear(size, code)
        self.gain = nn.Parameter(torch.ones(code))
        self.squash = nn.Tanh() if name == "tanh" else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.squash(self.affine(x))


class ShrinkPredictor(nn.Module):
    """z <- shrink(W x + S y, threshold) from z = shrink(W x, threshold) on, where y = z + momentum (z - the z before).

    It begins as `depth` + 1 iterations of FISTA from zero. Beyond Gregor & LeCun, whose y is z, each iteration has a
    matrix S, thresholds and a momentum of its own: it costs no more time, and fewer iterations reach as far.
    """

    def __init__(self, dictionary: Tensor, sparsity: float, depth: int):
        """`dictionary`: `[D, K]`; the weights start as those of FISTA for it."""
        super().__init__()
        size, code = dictionary.shape
        curvature = largest_curvature(dictionary)
        lateral = torch.eye(code) - 2 / curvature * dictionary.T @ dictionary
        self.inputs = nn.Linear(size, code, bias=False)
        self.laterals = nn.Parameter(lateral.expand(depth, -1, -1).clone())
        self.thresholds = nn.Parameter(torch.full((depth + 1, code), sparsity) / curvature)
        self.momenta = nn.Parameter(torch.tensor(list(islice(momenta(), depth))))
        with torch.no_grad():
            self.inputs.weight.copy_(2 / curvature * dictionary.T)

    def forward(self, x: Tensor) -> Tensor:
        drive = self.inputs(x)
        code = before = shrink(drive, self.thresholds[0])
        for lateral, threshold, momentum in zip(self.laterals, self.thresholds[1:], self.momenta, strict=True):
            ahead = torch.lerp(before, code, 1 + momentum)
            before, code = code, shrink(torch.addmm(drive, ahead, lateral), threshold)
        return code


class PredictiveSparse(FeedForward):
    """Dictionary and predictor, learned together."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.feature_shape = (config.code,)
        self.scale = UnitScale(spec)
        self.dictionary = nn.Parameter(F.normalize(torch.randn(spec.size, config.code), dim=0))  # [D, K]
        self.predictor: nn.Module
        if config.predictor == "lista":
            self.predictor = ShrinkPredictor(self.dictionary.detach(), config.sparsity, config.depth)
        else:
            self.predictor = SquashPredictor(spec.size, config.code, config.predictor)

    def encode(self, x: Tensor) -> Tensor:
        flat = self.scale(x).flatten(1)
        if self.config.inference == "fista":
            return self.infer(flat, self.config.encode_iterations)
        return self.predictor(flat)

    def infer(self, flat: Tensor, iterations: int) -> Tensor:
        """Sparse codes `[N, K]` of flat observations in unit scale `[N, D]`, without the predictor's opinion."""
        with torch.autocast(flat.device.type, enabled=False):
            return fista(flat.float(), self.dictionary, self.config.sparsity, iterations)

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, K]` to observations in unit scale, float32 `[N, *shape]`."""
        return (code @ self.dictionary.T).float().unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """At the inferred codes, each `[N]`: error and sparsity as `energy`, and `prediction`. And `direct`."""
        config = self.config
        x = self.scale(batch["x"]).flatten(1)
        predicted = self.predictor(x).float()
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            code = fista(
                x,
                self.dictionary,
                config.sparsity,
                config.iterations,
                start=predicted,
                target=predicted,
                agreement=config.agreement,
            )
        error = (x - (code @ self.dictionary.T).float()).square().sum(1)
        losses = {
            "energy": error + config.sparsity * code.abs().sum(1),
            "prediction": (code - predicted).square().sum(1),
        }
        if config.direct:
            restored = (predicted @ self.dictionary.T).float()
            own = (x - restored).square().sum(1) + config.sparsity * predicted.abs().sum(1)
            losses["direct"] = config.direct * own
        return losses

    def stages(self) -> Sequence[Stage]:
        return [Stage("psd", list(self.parameters()), self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    @torch.no_grad()
    def after_update(self) -> None:
        """Columns of the dictionary keep norm 1: else codes would shrink to nothing."""
        self.dictionary.copy_(F.normalize(self.dictionary, dim=0))


def build(config: Config, spec: ObservationSpec) -> PredictiveSparse:
    """Raises SpecError for tokens, UserError for settings that make no sense."""
    require_numbers(spec, "psd")
    for name, known in (("predictor", get_args(PredictorName)), ("inference", get_args(Inference))):
        if getattr(config, name) not in known:
            raise UserError(f"psd: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    if config.code < 1 or config.depth < 0:
        raise UserError("psd: code must be positive and depth not negative")
    if min(config.sparsity, config.agreement, config.direct) < 0:
        raise UserError("psd: sparsity, agreement and direct must not be negative")
    if config.iterations < 1 or config.encode_iterations < 1:
        raise UserError("psd: iterations and encode_iterations must be positive")
    return PredictiveSparse(config, spec)
