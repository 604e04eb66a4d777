"""How far two distributions are apart, told by samples of them; and contrast, which bounds what two views share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .coders import GAINS, DenseCoder
from .initialise import initialise


def info_nce(logits: Tensor) -> Tensor:
    """Contrastive loss `[N]` of logits `[N, N]`: how surprising it is that query n belongs to key n among all keys.

    log N minus its mean bounds the mutual information of queries and keys from below (van den Oord et al. 2018,
    arXiv:1807.03748, eq. 4 and appendix A.1).
    """
    return F.cross_entropy(logits.float(), torch.arange(len(logits), device=logits.device), reduction="none")


def cosine_logits(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """Cosines of all pairs of rows of `[N, D]` and `[M, D]`, over the temperature: `[N, M]`."""
    return F.normalize(query.float(), dim=1) @ F.normalize(key.float(), dim=1).T / temperature


# Scales of the kernel, times the width of the prior (as WAE's authors add them up).
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def inverse_multiquadratics(a: Tensor, b: Tensor, width: float) -> Tensor:
    """sum over c of c / (c + |a_i - b_j|^2) with c in SCALES times `width`: `[N, M]` of `[N, D]` and `[M, D]`.

    (Tolstikhin et al. 2018, arXiv:1711.01558, section 4: a heavy-tailed kernel, so that far codes feel it too.)
    """
    # not torch.cdist, whose gradient is not finite where codes are equal
    square = (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
    return torch.stack([scale * width / (scale * width + square) for scale in SCALES]).sum(0)


def maximum_mean_discrepancy(codes: Tensor, draws: Tensor, width: float) -> Tensor:
    """The unbiased estimate (a scalar, maybe below 0) of the squared distance of the means of `codes` `[N, D]` and
    `draws` `[N, D]` in the kernel's space (Gretton et al. 2012, eq. 3; Tolstikhin et al. 2018, algorithm 2).

    0 where there are fewer than two codes.
    """
    count = len(codes)
    if count < 2:
        return codes.sum() * 0
    codes, draws = codes.float(), draws.float()
    within = inverse_multiquadratics(codes, codes, width) + inverse_multiquadratics(draws, draws, width)
    across = inverse_multiquadratics(codes, draws, width)
    return (within.sum() - within.diagonal().sum()) / (count * (count - 1)) - 2 * across.mean()


class Adversary(nn.Module):
    """A net that tells codes from draws of the prior, and the losses of both sides (Goodfellow et al. 2014).

    Both are trained by one optimiser step: the net learns from detached codes, the encoder through the net's detached
    weights, so neither's loss moves the other.
    """

    def __init__(self, inputs: int, hidden: Sequence[int]):
        super().__init__()
        self.net = DenseCoder([inputs, *hidden, 1])
        initialise(self.net, "he", GAINS["relu"])

    def forward(self, codes: Tensor) -> Tensor:
        """Logits `[N]` that a code is drawn from the prior."""
        return self.net(codes).squeeze(1).float()

    def losses(self, codes: Tensor, draws: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """`adversary`, its own cross-entropy, and `deceit`, the encoder's (not saturating), both `[N]`.

        `codes` and `draws` are `[N, D]`; `condition` `[N, K]` is told beside each of both, K may be 0.
        """
        real = self(torch.cat([draws, condition], 1))
        false = self(torch.cat([codes.detach(), condition], 1))
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        judged = functional_call(self, weights, (torch.cat([codes, condition], 1),))
        return {"adversary": F.softplus(-real) + F.softplus(false), "deceit": F.softplus(-judged)}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to features `[N, D]` and `[M, D]`.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al. 2017, arXiv:1706.08500, eq. 6), in float64.
    """
    a, b = a.double(), b.double()
    mean = a.mean(0) - b.mean(0)
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # C_a C_b and the symmetric C_a^(1/2) C_b C_a^(1/2) have the same eigenvalues
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float(mean @ mean + cov_a.trace() + cov_b.trace() - 2 * cross)
