"""The import of LanceDB: with its settings, and without what takes long and no collection uses."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pyarrow as pa

from nearsight.store.lance.platform_checks import check_machine, check_process

# The modules of this package check every argument with pydantic, and building these checks takes half of the
# time of `import lancedb`. A collection in a directory never calls them.
_CLIENT = "lance_namespace_urllib3_client"
_API = f"{_CLIENT}.api"

# Searches of a million rows take as long as with a gigabyte.
_METADATA_BYTES = 128 * 2**20

# Before Python 3.12, LanceDB takes `override` from this package, which reads byte code to find the class of
# each method: a third of the time of the import. From 3.12 on it takes that of `typing`, without checks.
_OVERRIDES = "overrides"


def import_lancedb() -> Any:
    """Import LanceDB.

    Raises
    ------
    UnsupportedMachineError
        The processor cannot run it.
    """
    check_machine()
    # Rust's own log would otherwise print harmless warnings on the user's terminal.
    os.environ.setdefault("LANCEDB_LOG", "error")
    # It reads two gigabytes ahead of a slow reader; this much is as fast.
    os.environ.setdefault("LANCE_DEFAULT_IO_BUFFER_SIZE", str(32 * 2**20))
    check_process()
    if "lancedb" not in sys.modules:
        with _unchecked_overrides():
            if _CLIENT in sys.modules:
                importlib.import_module("lancedb")
            else:
                _import_without_rest_client()
    import lancedb

    return lancedb


def new_session() -> Any:
    """Return a session of LanceDB that keeps less in memory of what it read from files.

    By itself it keeps up to a gigabyte of where the columns of fragments lie.
    """
    return import_lancedb().Session(metadata_cache_size_bytes=_METADATA_BYTES)


def found_by(query: Any) -> pa.Table:
    """Run an asynchronous query of LanceDB.

    A synchronous query does the same; before, it checks and converts the numbers of a vector one by one,
    which takes as long as looking through the index.
    """
    from lancedb.background_loop import LOOP

    async def run() -> pa.Table:
        reader = await query.to_batches()
        return pa.Table.from_batches(await reader.read_all(), reader.schema)

    return LOOP.run(run())


@contextmanager
def _unchecked_overrides() -> Iterator[None]:
    """Let `override` return the method as it is, during the import."""
    if _OVERRIDES in sys.modules:
        yield
        return
    placeholder = ModuleType(_OVERRIDES)
    vars(placeholder).update(
        EnforceOverrides=type("EnforceOverrides", (), {}), override=lambda method: method
    )
    sys.modules[_OVERRIDES] = placeholder
    try:
        yield
    finally:
        del sys.modules[_OVERRIDES]


def _import_without_rest_client() -> None:
    """Import LanceDB with placeholders for the REST client, which load it when they are first used."""
    finder = _PlaceholderFinder()
    sys.meta_path.insert(0, finder)
    try:
        import lancedb  # noqa: F401 - for its effect on sys.modules
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name == _API or name.startswith(f"{_API}.")]:
            del sys.modules[name]
        client = sys.modules.get(_CLIENT)
        if client is not None:
            for name in [name for name, value in vars(client).items() if isinstance(value, _Placeholder)]:
                delattr(client, name)
            vars(client).pop("api", None)
            vars(client)["__getattr__"] = _real_client


def _real_client(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {_CLIENT!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_API), name)


class _Placeholder:
    """Stands for a class of the REST client during the import."""


class _PlaceholderModule(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _Placeholder()


class _PlaceholderFinder:
    """Finds a placeholder for each module of the REST client."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        is_api = name == _API or name.startswith(f"{_API}.")
        return ModuleSpec(name, self, is_package=name == _API) if is_api else None  # type: ignore[arg-type] # a finder need not be a Loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PlaceholderModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
