"""Where rows and vectors are kept: the protocol, the filters, and the engines behind them."""

from typing import TYPE_CHECKING, Any

from nearsight.errors import VectorError
from nearsight.store.base import NUMBER_TYPES, Hit, VectorStore, append_accepted, require_accepted
from nearsight.store.factory import (
    check_machine,
    create_store,
    is_directory,
    is_store,
    is_unfinished_store,
    local_directory,
    locate,
    open_store,
    shown_uri,
)
from nearsight.store.filters.ast import Field, Filter
from nearsight.store.location import CheckedLocation, Location, StoreCheck
from nearsight.store.memory.store import MemoryStore, Snapshot

if TYPE_CHECKING:
    from nearsight.store.filters.parser import parse

__all__ = [
    "NUMBER_TYPES",
    "CheckedLocation",
    "Field",
    "Filter",
    "Hit",
    "Location",
    "MemoryStore",
    "Snapshot",
    "StoreCheck",
    "VectorError",
    "VectorStore",
    "append_accepted",
    "check_machine",
    "create_store",
    "is_directory",
    "is_store",
    "is_unfinished_store",
    "local_directory",
    "locate",
    "open_store",
    "parse",
    "require_accepted",
    "shown_uri",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use: sqlglot takes a tenth of a second that a command without --where does not need.
    if name != "parse":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nearsight.store.filters.parser import parse

    return parse
