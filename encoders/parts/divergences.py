"""How far two distributions are apart, told by samples of them; and contrast, which bounds what two views share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(logits: Tensor) -> Tensor:
    """Contrastive loss `[N]` of logits `[N, N]`: how surprising it is that query n belongs to key n among all keys.

    log N minus its mean bounds the mutual information of queries and keys from below (van den Oord et al. 2018,
    arXiv:1807.03748, eq. 4 and appendix A.1).
    """
    return F.cross_entropy(logits.float(), torch.arange(len(logits), device=logits.device), reduction="none")


def cosine_logits(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """Cosines of all pairs of rows of `[N, D]` and `[M, D]`, over the temperature: `[N, M]`."""
    return F.normalize(query.float(), dim=1) @ F.normalize(key.float(), dim=1).T / temperature
