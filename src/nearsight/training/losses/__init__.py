"""Losses that bring images of one class together, one file each; they need PyTorch.

`loss` imports it; this module does not.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from nearsight.errors import InvalidParameterError


@dataclass(frozen=True, slots=True)
class LossFacts:
    """What a training must know of a loss before it is made.

    Attributes
    ----------
    module, name : str
        Where the class is.
    has_proxies : bool
        Whether it learns a vector for each class. Without, it compares the images of a batch, which must then
        hold several of each class.
    """

    module: str
    name: str
    has_proxies: bool


#: By the name that `train` takes.
LOSSES = {
    "softmax": LossFacts("normalized_softmax", "NormalizedSoftmax", True),
    "supcon": LossFacts("supervised_contrastive", "SupervisedContrastive", False),
    "arcface": LossFacts("arcface", "ArcFace", True),
    "proxy-anchor": LossFacts("proxy_anchor", "ProxyAnchor", True),
}


def loss_facts(name: str) -> LossFacts:
    """Return the facts of a loss.

    Raises
    ------
    InvalidParameterError
        No loss has this name.

    Examples
    --------
    >>> loss_facts("supcon").has_proxies
    False
    """
    if name not in LOSSES:
        raise InvalidParameterError(f"the loss is {name!r}; it must be one of {', '.join(LOSSES)}")
    return LOSSES[name]


def loss(name: str, n_classes: int, dim: int) -> Any:
    """Return a loss, a `torch.nn.Module` that takes (n, dim) vectors of any length and (n,) classes.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    n_classes, dim : int

    Raises
    ------
    InvalidParameterError
        No loss has this name.
    ImportError
        PyTorch is missing.
    """
    facts = loss_facts(name)
    module = importlib.import_module(f"nearsight.training.losses.{facts.module}")
    kind = getattr(module, facts.name)
    return kind(n_classes, dim) if facts.has_proxies else kind()
