"""Fills a cache again and again until it is killed: python cache_writer.py STORE CACHE."""

import sys
import threading
from pathlib import Path

from nearsight.store import open_store
from nearsight.store.memory import build
from nearsight.store.memory.cache import MemoryCache
from nearsight.store.memory.store import _all_columns


def main(store_directory: str, cache_directory: str) -> None:
    build.MIN_GRAPH_NUMBERS, build._EXPANSIONS = 1, (500,)
    store, cache = open_store(Path(store_directory)), MemoryCache(Path(cache_directory))
    print("ready", flush=True)
    while True:
        loader = build.Loader(store, _all_columns, cache, threading.Event(), 1)
        loader._load_anew(loader._read_columns(), store.version, store.revision, lambda loaded: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
