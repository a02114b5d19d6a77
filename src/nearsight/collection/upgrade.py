"""Moves a collection to another model, step by step, while it goes on answering.

``upgrade.json`` says which step was reached. The rows of the new model are written to a store of their own
beside the old one; the collection changes when its manifest, one file, is replaced. A process that is killed
at any moment leaves a collection that works, and the same call goes on.
"""

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from nearsight import images
from nearsight.artifacts import replacing
from nearsight.collection import manifest
from nearsight.collection import schema as row_schema
from nearsight.collection.arrays import batch_vectors
from nearsight.collection.collection import Collection
from nearsight.collection.write_lock import WriteLock
from nearsight.embedder import Embedded, Embedder
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, StorageError
from nearsight.models import Backend
from nearsight.progress import bar
from nearsight.store import VectorStore, create_store, open_store

STATE = "upgrade.json"
Phase = Literal["shadow", "verifying", "ready", "switched"]
Missing = Literal["refuse", "drop"]

_ROWS_AT_ONCE = 256
_N_COMPARED = 200
_MIN_COSINE = 0.9999


@dataclass(frozen=True, slots=True)
class UpgradeState:
    """How far an upgrade came.

    Attributes
    ----------
    phase : {"shadow", "verifying", "ready", "switched"}
        Rows are being written; they are being compared; the collection can change; it did.
    model : str
        The name that loads the new model.
    fingerprint : str
        Digest of its fingerprint.
    store, previous_store : str
        Folders of the new and of the old rows.
    previous : mapping
        The old manifest's file.
    dropped : int
        Images whose files are gone and that were left out.
    """

    phase: Phase
    model: str
    fingerprint: str
    store: str
    previous_store: str
    previous: Mapping[str, Any]
    dropped: int = 0

    def write(self, directory: Path) -> None:
        """Write it atomically."""
        with replacing(directory / STATE) as file:
            file.write(json.dumps(asdict(self), indent=1).encode() + b"\n")

    @classmethod
    def read(cls, directory: Path) -> "UpgradeState | None":
        """Return the state of a collection's upgrade; None if there is none.

        Raises
        ------
        StorageError
            The file is damaged.
        """
        try:
            state = cls(**json.loads((directory / STATE).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, OSError) as error:
            raise StorageError(
                f"{directory / STATE} is damaged; restore it, or delete it to begin the upgrade again"
            ) from error
        if state.phase not in get_args(Phase):
            raise StorageError(f"{directory / STATE} has the unknown step {state.phase!r}; update nearsight")
        # The manifest is what changes the collection; a crash may have come before the state was written.
        if manifest.CollectionManifest.read(directory).store == state.store:
            return replace(state, phase="switched")
        return replace(state, phase="ready") if state.phase == "switched" else state


class MissingFilesError(StorageError):
    """Files of the collection are gone or changed, so that their images cannot be embedded again."""

    def __init__(self, paths: Sequence[str]) -> None:
        shown = ", ".join(paths[:3])
        super().__init__(
            f"{len(paths):,} images cannot be embedded again, because their files are gone, changed or"
            f" unreadable: {shown}{', …' if len(paths) > 3 else ''}. Bring them back, index the folder again"
            " with --prune, or leave them out with --missing drop"
        )
        self.paths = list(paths)


class Upgrade:
    """The upgrade of one collection to one model; every method goes on where a crash left off.

    Parameters
    ----------
    collection : Collection
        As it is now.
    backend : Backend
        The new model.
    model : str, optional
        The name that loads it; by default its id.
    missing : {"refuse", "drop"}
        What to do with images whose files are gone: raise, or leave them out.

    Raises
    ------
    FingerprintMismatchError
        The collection has that model already, or an upgrade to another one has begun.
    InvalidParameterError
        `missing` is unknown.
    """

    def __init__(
        self,
        collection: Collection,
        backend: Backend,
        *,
        model: str | None = None,
        missing: Missing = "refuse",
    ) -> None:
        if missing not in get_args(Missing):
            raise InvalidParameterError(
                f"missing is {missing!r}; it must be {' or '.join(get_args(Missing))}"
            )
        self._collection = collection
        self._directory = collection.directory
        self._backend = backend
        self._missing = missing
        self._facts = manifest.CollectionManifest.read(self._directory)
        digest = backend.spec.fingerprint.digest
        if backend.spec.fingerprint == self._facts.fingerprint:
            raise FingerprintMismatchError(f"{self._directory} holds vectors of {backend.spec.id} already")
        state = UpgradeState.read(self._directory)
        if state is not None and state.fingerprint != digest:
            remedy = "nearsight rollback" if state.phase == "switched" else "nearsight upgrade --abandon"
            raise FingerprintMismatchError(
                f"an upgrade of {self._directory} to {state.model} has begun (step: {state.phase}); finish"
                f" it, or end it with {remedy}"
            )
        self.state = state or UpgradeState(
            "shadow",
            model or backend.spec.id,
            digest,
            f"store-{secrets.token_hex(4)}",
            self._facts.store,
            json.loads((self._directory / manifest.FILENAME).read_bytes()),
        )

    def shadow(self, limit: int | None = None, *, progress: bool | None = None) -> int:
        """Embed images that have no row of the new model yet; return how many were embedded.

        Parameters
        ----------
        limit : int, optional
            At most so many, chosen at random: a sample, after which the step stays the same.
        progress : bool, optional
            See `nearsight.progress.bar`.

        Raises
        ------
        MissingFilesError
            Files are gone, and `missing` is "refuse". What was embedded is kept.
        """
        self.state.write(self._directory)
        old, new = open_store(self._directory / self._facts.store), self._new_store()
        embedder = Embedder(self._backend, cache_dir=self._collection.cache_dir, progress=False)
        missing: list[str] = []
        n_embedded, ids = 0, sorted(_ids(old) - _ids(new))
        if limit is not None:
            ids = np.random.default_rng(0).permutation(ids)[:limit].tolist()
        with bar("embedding images", len(ids), unit="images", progress=progress) as shown:
            for rows in _chunks(old, ids):
                vectors = _embedded(embedder, rows)
                kept = [row for row, id in enumerate(rows.column("id").to_pylist()) if id in vectors]
                missing += [
                    images.decode_path(path) or id
                    for id, path in zip(
                        rows.column("id").to_pylist(), rows.column("path").to_pylist(), strict=True
                    )
                    if id not in vectors
                ]
                if kept:
                    _append(new, rows.take(pa.array(kept)), vectors)
                n_embedded += len(kept)
                shown.update(len(rows))
        if limit is not None:
            return n_embedded
        if missing and self._missing == "refuse":
            raise MissingFilesError(missing)
        self._step(replace(self.state, phase="verifying", dropped=len(missing)))
        return n_embedded

    def paired_vectors(
        self, n: int, *, random_state: int = 0
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
        """Return ids of at most `n` random images that have rows of both models, and both models' vectors.

        Parameters
        ----------
        n : int
        random_state : int
        """
        old, new = open_store(self._directory / self._facts.store), self._new_store()
        both = sorted(_ids(old) & _ids(new))
        ids = sorted(np.random.default_rng(random_state).permutation(both)[:n].tolist())
        return ids, _vectors_of(old, ids), _vectors_of(new, ids)

    def verify(self, *, random_state: int = 0) -> None:
        """Check that every image has one row, and that stored vectors are what the model computes.

        Raises
        ------
        StorageError
            They are not; the collection stays as it is.
        """
        old, new = open_store(self._directory / self._facts.store), self._new_store()
        ids = [id for batch in new.scan(["id"]) for id in batch.column("id").to_pylist()]
        lacking = _ids(old) - set(ids)
        if len(ids) != len(set(ids)) or len(lacking) > self.state.dropped:
            raise StorageError(
                f"the new rows are {len(ids):,}, {len(ids) - len(set(ids)):,} of them twice, and"
                f" {len(lacking):,} images lack one; run nearsight upgrade again"
            )
        rng = np.random.default_rng(random_state)
        some = [ids[row] for row in rng.permutation(len(ids))[:_N_COMPARED]]
        embedder = Embedder(self._backend, cache_dir=self._collection.cache_dir, progress=False)
        for rows in _chunks(new, set(some)):
            stored = dict(zip(rows.column("id").to_pylist(), batch_vectors(rows), strict=True))
            for id, vector in _embedded(embedder, rows).items():
                lengths = np.linalg.norm(vector) * np.linalg.norm(stored[id])
                if lengths and float(vector @ stored[id]) / lengths < _MIN_COSINE:
                    raise StorageError(
                        f"the image {id} gives another vector than the one stored a moment ago; the model is"
                        " not deterministic, or the disk is damaged"
                    )
        self._step(replace(self.state, phase="ready"))

    def switch(self) -> Collection:
        """Change the collection to the new rows, and return it as it is then.

        Changes that others made since are carried over first, so nothing that was acknowledged is lost.

        Raises
        ------
        MissingFilesError
            Files of images that were added meanwhile are gone, and `missing` is "refuse".
        """
        with WriteLock(self._directory, self._facts):
            old, new = open_store(self._directory / self._facts.store), self._new_store()
            self._carry_over(old, new)
            self.state = replace(self.state, phase="switched")
            self.state.write(self._directory)
            facts = manifest.CollectionManifest.of(self._backend.spec, self._facts.storage)
            replace(facts, created=self._facts.created, store=self.state.store).write(self._directory)
            shutil.rmtree(self._directory / manifest.CACHE, ignore_errors=True)
        new.maintain()
        return Collection.open(self._directory, model=self._backend, cache_dir=self._collection.cache_dir)

    def _carry_over(self, old: VectorStore, new: VectorStore) -> None:
        """Bring the new rows up to what others wrote since they were copied."""
        new.delete(sorted(_ids(new) - _ids(old)))
        embedder = Embedder(self._backend, cache_dir=self._collection.cache_dir, progress=False)
        late = _ids(old) - _ids(new)
        missing = 0
        for rows in _chunks(old, late):
            vectors = _embedded(embedder, rows)
            kept = [row for row, id in enumerate(rows.column("id").to_pylist()) if id in vectors]
            if kept:
                _append(new, rows.take(pa.array(kept)), vectors)
            missing += len(rows) - len(kept)
        if missing > self.state.dropped and self._missing == "refuse":
            raise MissingFilesError([f"{missing} images added meanwhile"])
        columns = [name for name in old.schema.names if name not in ("vector", "thumbnail")]
        if added := [old.schema.field(name) for name in columns if name not in new.schema.names]:
            new.add_columns(added)
        before = {row["id"]: row for batch in new.scan(columns) for row in batch.to_pylist()}
        for batch in old.scan(columns):
            changed = [row for row in batch.to_pylist() if before.get(row["id"], row) != row]
            if changed:
                fields = [new.schema.field(name) for name in columns]
                new.update(pa.Table.from_pylist(changed, schema=pa.schema(fields)))

    def _new_store(self) -> VectorStore:
        old = open_store(self._directory / self._facts.store)
        vector = row_schema.schema(self._backend.spec.dim, self._facts.storage).field("vector")
        schema = old.schema.set(old.schema.get_field_index("vector"), vector)
        folder = self._directory / self.state.store
        # Others may have added columns since it was created.
        return open_store(folder) if folder.exists() else create_store(folder, schema)

    def _step(self, state: UpgradeState) -> None:
        self.state = state
        state.write(self._directory)


def rollback(directory: Path) -> int:
    """Change a collection back to the rows of the model it was upgraded from.

    Parameters
    ----------
    directory : Path

    Returns
    -------
    int
        Images that were added after the upgrade, and that the old rows lack; index their folders again.

    Raises
    ------
    InvalidParameterError
        The collection was not upgraded, or the old rows were deleted.
    """
    state = _switched(directory)
    with FileLock(directory / manifest.LOCK):
        old = open_store(directory / state.previous_store)
        n_lacking = len(_ids(open_store(directory / state.store)) - _ids(old))
        with replacing(directory / manifest.FILENAME) as file:
            file.write(json.dumps(dict(state.previous), indent=2).encode() + b"\n")
        replace(state, phase="ready").write(directory)
        shutil.rmtree(directory / manifest.CACHE, ignore_errors=True)
    return n_lacking


def commit(directory: Path) -> None:
    """Delete the rows of the model that a collection was upgraded from.

    Parameters
    ----------
    directory : Path

    Raises
    ------
    InvalidParameterError
        The collection was not upgraded.
    """
    state = _switched(directory)
    with FileLock(directory / manifest.LOCK):
        # First the rows: what is left of them after a crash is deleted by the same call.
        shutil.rmtree(directory / state.previous_store, ignore_errors=True)
        (directory / STATE).unlink()


def abandon(directory: Path) -> None:
    """End an upgrade that has not changed the collection yet, and delete the new rows.

    Parameters
    ----------
    directory : Path

    Raises
    ------
    InvalidParameterError
        No upgrade has begun, or it has changed the collection.
    """
    state = UpgradeState.read(directory)
    if state is None or state.phase == "switched":
        raise InvalidParameterError(
            f"{directory} was upgraded already; nearsight rollback brings the old model back"
            if state
            else f"no upgrade of {directory} has begun; nearsight upgrade --to MODEL begins one"
        )
    shutil.rmtree(directory / state.store, ignore_errors=True)
    (directory / STATE).unlink()


def _switched(directory: Path) -> UpgradeState:
    state = UpgradeState.read(directory)
    if state is None or state.phase != "switched":
        raise InvalidParameterError(
            f"{directory} was not upgraded, or its old rows were deleted; nearsight upgrade --to MODEL"
            " upgrades it"
        )
    return state


def _ids(store: VectorStore) -> set[str]:
    return {id for batch in store.scan(["id"]) for id in batch.column("id").to_pylist()}


def _vectors_of(store: VectorStore, ids: Sequence[str]) -> NDArray[np.float32]:
    found: dict[str, NDArray[np.float32]] = {}
    for batch in store.scan(["id", "vector"], ids=ids):
        found |= dict(zip(batch.column("id").to_pylist(), batch_vectors(batch), strict=True))
    dim = store.schema.field("vector").type.list_size
    return np.stack([found[id] for id in ids]) if ids else np.empty((0, dim), np.float32)


def _chunks(store: VectorStore, ids: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """Yield some rows whole, a few hundred at a time."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), _ROWS_AT_ONCE):
        yield from store.scan(store.schema.names, ids=ordered[start : start + _ROWS_AT_ONCE])


def _embedded(embedder: Embedder, rows: pa.RecordBatch) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of rows by id, of those whose file still has that content."""
    columns = (rows.column(name).to_pylist() for name in ("id", "paths"))
    left = {
        id: [images.decode_path(path) for path in paths or ()] for id, paths in zip(*columns, strict=True)
    }
    vectors: dict[str, NDArray[np.float32]] = {}
    # Usually the first file of an image is there; of the others, the next is tried.
    while left := {id: paths for id, paths in left.items() if paths and id not in vectors}:
        firsts = [paths.pop(0) for paths in left.values()]
        there = [path for path in firsts if images.exists(path)]
        for result in embedder.stream(images.find(there)) if there else ():
            if isinstance(result, Embedded) and result.id in left and result.vector is not None:
                vectors[result.id] = result.vector
    return vectors


def _append(store: VectorStore, rows: pa.RecordBatch, vectors: Mapping[str, NDArray[np.float32]]) -> None:
    X = np.stack([vectors[id] for id in rows.column("id").to_pylist()])
    kind = store.schema.field("vector").type
    numbers = pa.array(X.ravel().astype(np.float16 if kind.value_type == pa.float16() else np.float32))
    column = pa.FixedSizeListArray.from_arrays(numbers, type=kind)
    columns = [column if name == "vector" else rows.column(name) for name in store.schema.names]
    store.append(pa.Table.from_arrays(columns, schema=store.schema))
