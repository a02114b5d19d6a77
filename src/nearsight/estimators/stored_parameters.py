"""Constructor parameters in artifacts of earlier versions, under their present names."""

from collections.abc import Mapping
from typing import Any

_PRESENT_NAMES = {
    "neighbourhood": "neighborhood",
    "normalisation": "normalization",
    "most_places": "max_side",
    "most_regressed": "max_regressed_items",
    "top": "top_share",
}
_PRESENT_VALUES = {("method", "neighbours"): "neighbors"}


def present_parameters(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored constructor parameters under the names and values that constructors take now.

    Examples
    --------
    >>> present_parameters({"neighbourhood": 3, "random_state": 0})
    {'neighborhood': 3, 'random_state': 0}
    """
    names = ((_PRESENT_NAMES.get(name, name), value) for name, value in stored.items())
    return {
        name: _PRESENT_VALUES.get((name, value), value) if isinstance(value, str) else value
        for name, value in names
    }
