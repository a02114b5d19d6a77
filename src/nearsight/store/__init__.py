"""Where rows and vectors are kept: the protocol, the filters, and the engines behind them."""

from nearsight.errors import VectorError
from nearsight.store.base import NUMBER_TYPES, Hit, VectorStore
from nearsight.store.factory import check_machine, create_store, local_directory, open_store
from nearsight.store.filters.parser import Field, Filter, parse

__all__ = [
    "NUMBER_TYPES",
    "Field",
    "Filter",
    "Hit",
    "VectorError",
    "VectorStore",
    "check_machine",
    "create_store",
    "local_directory",
    "open_store",
    "parse",
]
