"""SupCon: images of one class attract each other, without a vector for each class."""

import torch
from torch import nn
from torch.nn import functional


class SupervisedContrastive(nn.Module):
    """Cross-entropy of finding images of the own class in the batch (Khosla et al. 2020, arXiv 2004.11362).

    The variant that the authors call L_out: logarithms are averaged over the images of the class.

    Parameters
    ----------
    temperature : float
        Cosines are divided by it.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, vectors: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of the vectors, of shape (n, dim), that share their class with another.

        Parameters
        ----------
        vectors : Tensor of shape (n, dim)
        y : Tensor of shape (n,), int

        Returns
        -------
        Tensor
            One number; 0 where no class has two vectors.
        """
        units = functional.normalize(vectors)
        is_self = torch.eye(len(y), dtype=torch.bool, device=y.device)
        cosines = (units @ units.T / self.temperature).masked_fill(is_self, float("-inf"))
        logarithms = functional.log_softmax(cosines, dim=1).masked_fill(is_self, 0.0)
        is_alike = (y[:, None] == y[None, :]) & ~is_self
        n_alike = is_alike.sum(dim=1)
        of_anchor = -(logarithms * is_alike).sum(dim=1) / n_alike.clamp(min=1)
        return of_anchor.sum() / (n_alike > 0).sum().clamp(min=1)
