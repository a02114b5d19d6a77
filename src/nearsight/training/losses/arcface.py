"""ArcFace: normalized softmax with a margin between classes."""

import math

import torch
from torch import nn
from torch.nn import functional

_INITIAL_DEVIATION = 0.01
# The angle's derivative has no limit where the cosine is 1.
_MAX_COSINE = 1 - 1e-6


class ArcFace(nn.Module):
    """Softmax over cosines, the angle to the own class enlarged (Deng et al. 2019, arXiv 1801.07698).

    Parameters
    ----------
    n_classes, dim : int
    margin : float
        Added to the angle between a vector and its own proxy, in radians.
    scale : float
        Cosines are multiplied by it.

    Attributes
    ----------
    proxies : Parameter of shape (n_classes, dim)

    Notes
    -----
    The authors' margin and scale, 0.5 and 64, are for faces of a million people; these are milder.
    """

    def __init__(self, n_classes: int, dim: int, margin: float = 0.3, scale: float = 20.0) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(n_classes, dim) * _INITIAL_DEVIATION)
        self.margin, self.scale = margin, scale

    def forward(self, vectors: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of (n, dim) vectors with classes y of shape (n,)."""
        cosines = functional.normalize(vectors) @ functional.normalize(self.proxies).T
        own = cosines.gather(1, y[:, None]).clamp(-_MAX_COSINE, _MAX_COSINE)
        angles = torch.acos(own)
        # Beyond 180 degrees the cosine would rise again; from there on the loss goes on as a line.
        enlarged = torch.where(
            angles <= math.pi - self.margin,
            torch.cos(angles + self.margin),
            own - self.margin * math.sin(self.margin),
        )
        return functional.cross_entropy(cosines.scatter(1, y[:, None], enlarged) * self.scale, y)
