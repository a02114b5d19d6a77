"""Normalized softmax: a vector for each class, compared by cosine."""

import torch
from torch import nn
from torch.nn import functional

# Only the direction counts.
_INITIAL_DEVIATION = 0.01


class NormalizedSoftmax(nn.Module):
    """Cross-entropy of the cosines to one proxy a class (Zhai and Wu 2019, arXiv 1811.12649).

    Parameters
    ----------
    n_classes, dim : int
    temperature : float
        Cosines are divided by it.

    Attributes
    ----------
    proxies : Parameter of shape (n_classes, dim)
    """

    def __init__(self, n_classes: int, dim: int, temperature: float = 0.05) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(n_classes, dim) * _INITIAL_DEVIATION)
        self.temperature = temperature

    def forward(self, vectors: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of (n, dim) vectors with classes y of shape (n,)."""
        cosines = functional.normalize(vectors) @ functional.normalize(self.proxies).T
        return functional.cross_entropy(cosines / self.temperature, y)
