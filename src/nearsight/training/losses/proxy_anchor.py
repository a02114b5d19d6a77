"""Proxy-anchor: each proxy attracts the images of its class and repels the others."""

import torch
from torch import nn
from torch.nn import functional


class ProxyAnchor(nn.Module):
    """Proxies as anchors, the hardest images of a batch weighted most (Kim et al. 2020, arXiv 2003.13911).

    Parameters
    ----------
    n_classes, dim : int
    margin : float
        In cosines.
    alpha : float
        The larger, the more the hardest images count.

    Attributes
    ----------
    proxies : Parameter of shape (n_classes, dim)
    """

    def __init__(self, n_classes: int, dim: int, margin: float = 0.1, alpha: float = 32.0) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.empty(n_classes, dim))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")
        self.margin, self.alpha = margin, alpha

    def forward(self, vectors: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss of (n, dim) vectors with classes y of shape (n,)."""
        cosines = functional.normalize(vectors) @ functional.normalize(self.proxies).T
        is_own = functional.one_hot(y, len(self.proxies)).bool()
        attraction = _soft_sum(-self.alpha * (cosines - self.margin), is_own)
        repulsion = _soft_sum(self.alpha * (cosines + self.margin), ~is_own)
        return attraction.sum() / is_own.any(dim=0).sum() + repulsion.mean()


def _soft_sum(values: torch.Tensor, is_kept: torch.Tensor) -> torch.Tensor:
    """Return log(1 + sum of exp) of the kept values of each column."""
    kept = values.masked_fill(~is_kept, float("-inf"))
    return torch.cat([kept, kept.new_zeros(1, kept.shape[1])]).logsumexp(dim=0)
