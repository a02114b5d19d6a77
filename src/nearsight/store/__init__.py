"""Where rows and vectors are kept: the protocol, the filters, and the engines behind them."""

from nearsight.errors import VectorError
from nearsight.store.base import Hit, VectorStore
from nearsight.store.filters.parser import Field, Filter, parse

__all__ = ["Field", "Filter", "Hit", "VectorError", "VectorStore", "parse"]
