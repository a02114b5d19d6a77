"""Conformance suites for plugins: subclass one in your own tests, and pytest runs it.

They need ``pip install 'nearsight[testing]'``. See `StoreTests` and `EstimatorTests` for
examples.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Suites are loaded on first use: they import pytest and hypothesis.
_HOMES = {
    "BackendTests": "backends",
    "EstimatorTests": "estimators",
    "LocationTests": "locations",
    "StoreTests": "stores",
}

__all__ = ["BackendTests", "EstimatorTests", "LocationTests", "StoreTests"]

if TYPE_CHECKING:
    from nearsight.testing.backends import BackendTests
    from nearsight.testing.estimators import EstimatorTests
    from nearsight.testing.locations import LocationTests
    from nearsight.testing.stores import StoreTests


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nearsight.testing' has no attribute {name!r}")
    module = f"nearsight.testing.{_HOMES[name]}"
    if module not in sys.modules:
        # A failed assertion then shows its values, as in a test module.
        import_module("pytest").register_assert_rewrite(module)
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
