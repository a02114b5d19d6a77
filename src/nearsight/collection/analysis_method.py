"""Analyses as methods of `Collection`, without loading them before they are used."""

from collections.abc import Callable
from importlib import import_module
from types import MethodType
from typing import Any


class AnalysisMethod:
    """A function of `nearsight.analyses` as a method; its module is imported at the first use.

    Analyses import scikit-learn and SciPy, and stand above the collection: so they are named here, not
    imported.

    Parameters
    ----------
    module : str
        The module in `nearsight.analyses`; the function has the name of the attribute.
    """

    def __init__(self, module: str) -> None:
        self._module = f"nearsight.analyses.{module}"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, collection: object, owner: type | None = None) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(self._module), self._name)
        return function if collection is None else MethodType(function, collection)
