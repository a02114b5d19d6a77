"""Search in memory over the rows of any store.

- `plan` chooses how a search is answered: exactly, by partitions or a graph, or by the store.
- `accelerators` imports usearch and numkong, which may be missing.
- `codes` holds vectors as bytes, with a bound of their error; `rows` holds rows and searches them.
- `vectors` reads what is too large to be held.
- `partitions` groups rows, so that a search compares a few groups.
- `build` reads rows from a store, and `cache` keeps what took long on disk.
- `store` wraps a store, follows its changes, and decides when rows are loaded.
"""
