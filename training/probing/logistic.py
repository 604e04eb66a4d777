"""Multinomial logistic regression on frozen codes: the linear probe, and the same with few labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # strong to weak; each fit starts where the one before it ended
TOLERANCE, SEARCHING = 1e-7, 1e-5  # share of the loss that an iteration must gain: at last, and on the path
PATIENCE = 2  # penalties in a row that are no better on validation before the search ends
MOST_PRECONDITIONED = 2048  # features; beyond, decomposing their covariance costs more than it saves
STEEPNESS = 0.1  # s of `Preconditioner`: below the bound of 1/2, as most examples are told apart with confidence
LABEL_COUNTS = (10, 100, 1000)
DRAWS = 5


class Logistic(NamedTuple):
    """p(class | x) = softmax(x·weight + bias)."""

    weight: Tensor  # float32 [D, C]
    bias: Tensor  # float32 [C]

    def logits(self, x: Tensor) -> Tensor:
        """`[N, D]` to `[N, C]`."""
        return torch.addmm(self.bias, x, self.weight)

    def accuracy(self, x: Tensor, label: Tensor) -> float:
        """The share of `x` `[N, D]` whose likeliest class is `label` (int64 `[N]`)."""
        return int((self.logits(x).argmax(1) == label).sum()) / len(label)


class Chosen(NamedTuple):
    """The model whose penalty was best on validation."""

    model: Logistic
    penalty: float
    validation: float  # accuracy there


class FewLabels(NamedTuple):
    """Test accuracies with `labels` labels; `low` and `high` are the 95 % interval of the mean (Student's t)."""

    labels: int
    mean: float
    low: float
    high: float
    draws: list[float]


class Scale(NamedTuple):
    """Standardises features by the training set's mean and deviation; what never varies becomes 0."""

    mean: Tensor  # [D]
    factor: Tensor  # [D]

    @classmethod
    def of(cls, x: Tensor) -> Scale:
        deviation, mean = torch.std_mean(x, 0, correction=0)
        varies = deviation > 1e-6 * mean.abs() + 1e-30  # float32's rounding of a constant is no deviation
        return cls(mean, torch.where(varies, 1 / deviation.clamp(min=1e-30), 0))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.factor


def loss_of(model: Logistic, x: Tensor, label: Tensor, penalty: float) -> float:
    """What `fit_logistic` makes small: mean cross-entropy in nats + penalty/2 · the sum of squared weights."""
    return float(F.cross_entropy(model.logits(x), label) + penalty / 2 * model.weight.square().sum())


class Preconditioner(NamedTuple):
    """Coordinates in which the loss is about as steep in every direction.

    The Hessian is at most (1/2) cov(x) ⊗ (I - 11ᵀ/C) (Böhning 1992, "Multinomial logistic regression algorithm"), plus
    the penalty. With the covariance's eigenvectors V and values e, weights are V (s·e + penalty)^(-1/2) times what
    L-BFGS moves. It changes the way to the minimum, not the minimum.
    """

    vectors: Tensor  # [D, D]
    values: Tensor  # [D]

    @classmethod
    def of(cls, x: Tensor) -> Preconditioner:
        """For standardised features `x` `[N, D]`."""
        values, vectors = torch.linalg.eigh((x.T @ x).double() / len(x))
        return cls(vectors.float(), values.clamp(min=0).float())

    def matrix(self, penalty: float) -> Tensor:
        return self.vectors * (STEEPNESS * self.values + penalty + 1e-7).rsqrt()


def fit_logistic(
    x: Tensor,
    label: Tensor,
    classes: int,
    penalty: float,
    start: Logistic | None = None,
    preconditioner: Preconditioner | None = None,
    tolerance: float = TOLERANCE,
) -> Logistic:
    """Minimise `loss_of` over weights and bias by full-batch L-BFGS (at most 200 iterations).

    Args:
        x: features, float32 `[N, D]`, standardised.
        label: int64 `[N]`, 0 to classes - 1.
        start: where to begin; None: at zero.
        tolerance: it ends when one iteration gains a smaller share of the loss.
    """
    width, count = x.shape[1], len(x)
    target = F.one_hot(label, classes).to(x.dtype)
    matrix = preconditioner.matrix(penalty) if preconditioner else None

    def unpack(flat: np.ndarray) -> Logistic:
        values = torch.from_numpy(flat).to(x).view(width + 1, classes)
        return Logistic(values[:-1] if matrix is None else matrix @ values[:-1], values[-1])

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        model = unpack(flat)
        logp = model.logits(x).log_softmax(1)
        residual = (logp.exp() - target) / count
        value = -(logp * target).sum(dtype=torch.float64) / count + penalty / 2 * model.weight.square().sum()
        weight = x.T @ residual + penalty * model.weight
        gradient = torch.cat([weight if matrix is None else matrix.T @ weight, residual.sum(0, keepdim=True)])
        return float(value), gradient.flatten().double().cpu().numpy()

    origin = torch.zeros(width + 1, classes)
    if start is not None:
        weight = start.weight if matrix is None else torch.linalg.solve(matrix, start.weight)
        origin = torch.cat([weight, start.bias.unsqueeze(0)])
    found = optimize.minimize(
        value_and_gradient,
        origin.flatten().double().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 200, "ftol": tolerance, "gtol": 1e-5},
    )
    return unpack(found.x)


def choose_logistic(
    x: Tensor,
    label: Tensor,
    validation: tuple[Tensor, Tensor],
    classes: int,
    preconditioner: Preconditioner | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> Chosen:
    """The fit to `x` `[N, D]` whose penalty, of a path from strong to weak, tells most of `validation` right."""
    best: Chosen | None = None
    model, worse = None, 0
    for penalty in penalties:
        model = fit_logistic(x, label, classes, penalty, model, preconditioner, SEARCHING)
        accuracy = model.accuracy(*validation)
        if best is None or accuracy > best.validation:
            best, worse = Chosen(model, penalty, accuracy), 0
        elif (worse := worse + 1) == PATIENCE:
            break
    assert best is not None
    model = fit_logistic(x, label, classes, best.penalty, best.model, preconditioner)
    return Chosen(model, best.penalty, model.accuracy(*validation))


def draw_balanced(label: Tensor, classes: int, count: int, generator: torch.Generator) -> Tensor | None:
    """Indices (int64 `[count]`) of as many examples of each class, at random; None where there are too few."""
    each = count // classes
    by_class = [(label == number).nonzero().squeeze(1) for number in range(classes)]
    if each < 1 or min(map(len, by_class)) < each:
        return None
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)[:each]] for rows in by_class])


def few_labels(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    seed: int = 0,
    counts: Sequence[int] = LABEL_COUNTS,
) -> list[FewLabels]:
    """Test accuracy of `choose_logistic` on few labelled examples, over DRAWS draws that depend on `seed` alone.

    Args:
        train, validation, test: standardised features `[N, D]` and labels int64 `[N]`.
    """
    found = []
    for count in counts:
        accuracies = []
        for draw in range(DRAWS):
            generator = torch.Generator().manual_seed(1000 * seed + draw)
            rows = draw_balanced(train[1].cpu(), classes, count, generator)
            if rows is None:
                break
            rows = rows.to(train[1].device)
            chosen = choose_logistic(train[0][rows], train[1][rows], validation, classes)
            accuracies.append(chosen.model.accuracy(*test))
        if len(accuracies) == DRAWS:
            mean, half = float(np.mean(accuracies)), half_width(accuracies)
            found.append(FewLabels(count // classes * classes, mean, mean - half, mean + half, accuracies))
    return found


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean of `values` (Student's t)."""
    error = float(stats.sem(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * error if error > 0 else 0.0
