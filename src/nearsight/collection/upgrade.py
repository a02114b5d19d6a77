"""Moves a collection to another model, step by step, while it goes on answering.

``upgrade.json``, a document of the collection's location, says which step was reached. The rows of the new
model are written to a store of their own beside the old one; the collection changes when its manifest, one
document, is replaced. A process that is killed at any moment leaves a collection that works, and the same
call goes on. That is so in a directory, a bucket or a database, and from whatever machine.
"""

import json
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nearsight import images
from nearsight.collection import bridge, manifest
from nearsight.collection.arrays import batch_vectors
from nearsight.collection.collection import Collection
from nearsight.collection.schema import ESTIMATED_KEY, PREFIX
from nearsight.collection.shadow_rows import (
    ShadowRows,
    append_new,
    carry_columns,
    chunks,
    ids_of,
    vectors_by_id,
    vectors_of,
)
from nearsight.collection.upgrade_state import STATE, Phase, UpgradeState
from nearsight.collection.write_lock import WriteLock
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, StorageError
from nearsight.models import Backend
from nearsight.progress import bar
from nearsight.store import Location, VectorStore, locate

__all__ = [
    "STATE",
    "Missing",
    "MissingFilesError",
    "Phase",
    "Upgrade",
    "UpgradeState",
    "abandon",
    "commit",
    "rollback",
]

Missing = Literal["refuse", "keep", "drop"]

_N_COMPARED = 200
_MIN_COSINE = 0.9999


class MissingFilesError(StorageError):
    """Files of the collection are gone or changed, so that their images cannot be embedded again."""

    def __init__(self, paths: Sequence[str]) -> None:
        shown = ", ".join(paths[:3])
        super().__init__(
            f"{len(paths):,} images cannot be embedded again, because their files are gone, changed or"
            f" unreadable: {shown}{', …' if len(paths) > 3 else ''}. Bring them back, index the folder again"
            " with --prune, leave them out with --missing drop, or keep estimates of their vectors with"
            " --missing keep"
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
    missing : {"refuse", "keep", "drop"}
        What to do with images whose files are gone: raise, keep an estimate of their vector by the bridge and
        mark them in their metadata (`ESTIMATED_KEY`), or leave them out.

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
            raise InvalidParameterError(f"missing is {missing!r}; it must be {', '.join(get_args(Missing))}")
        self._collection = collection
        self._location = collection.location
        self._backend = backend
        self._missing = missing
        self._facts = manifest.CollectionManifest.read(self._location)
        digest = backend.spec.fingerprint.digest
        if backend.spec.fingerprint == self._facts.fingerprint:
            raise FingerprintMismatchError(f"{self._location.uri} holds vectors of {backend.spec.id} already")
        self.state = self._begun() or UpgradeState(
            "sampling",
            model or backend.spec.id,
            digest,
            # No hyphen: not every database allows one in the name of a table.
            f"store_{secrets.token_hex(4)}",
            self._facts.store,
            json.loads(self._location.read_document(manifest.FILENAME) or b"{}"),
        )

    def _begun(self) -> UpgradeState | None:
        """Return the state of an upgrade to this model; None if there is none.

        Raises
        ------
        FingerprintMismatchError
            An upgrade to another model has begun.
        InvalidParameterError
            Rows of an upgrade are half deleted.
        """
        state = UpgradeState.read(self._location)
        _require_whole(self._location, state)
        if state is not None and state.fingerprint != self._backend.spec.fingerprint.digest:
            if state.phase == "switched":
                raise FingerprintMismatchError(
                    f"{self._location.uri} was upgraded to {state.model} and keeps the rows of the model"
                    " before; delete them with nearsight upgrade --commit, or bring that model back with"
                    " nearsight rollback, and then upgrade"
                )
            began = "was rolled back" if state.was_rolled_back else f"has begun (step: {state.phase})"
            raise FingerprintMismatchError(
                f"an upgrade of {self._location.uri} to {state.model} {began}, and its rows are kept; go on"
                f" with it, or delete them with {state.ending}"
            )
        return state

    def _begin(self) -> None:
        """Write the state, unless another process has written one since; then go on with that."""
        with WriteLock(self._location, self._facts):
            self.state = self._begun() or self.state
            self.state.write(self._location)

    def sample(self, n: int, *, progress: bool | None = None) -> int:
        """Embed `n` random images, and learn the bridge from them; return how many were embedded.

        From then on the collection can be searched by the new model, too: `BridgedSearch`.

        Parameters
        ----------
        n : int
        progress : bool, optional
            See `nearsight.progress.bar`.
        """
        self._begin()
        rows = self._rows()
        # Drawn from all, so that a call after a crash draws the same.
        ids = np.random.default_rng(0).permutation(sorted(ids_of(rows.old)))[:n].tolist()
        started = time.perf_counter()
        n_embedded, _ = self._embed(rows, set(ids) - ids_of(rows.new), progress)
        seconds = (time.perf_counter() - started) / n_embedded if n_embedded else self.state.image_seconds
        if bridge.has_pairs(rows.new):
            bridge.current_bridge(rows, self._fingerprints)
        phase: Phase = "shadow" if self.state.phase == "sampling" else self.state.phase
        self._step(replace(self.state, phase=phase, image_seconds=seconds))
        return n_embedded

    def shadow(self, *, progress: bool | None = None) -> int:
        """Embed images that have no row of the new model yet; return how many were embedded.

        Parameters
        ----------
        progress : bool, optional
            See `nearsight.progress.bar`.

        Raises
        ------
        MissingFilesError
            Files are gone, and `missing` is "refuse". What was embedded is kept.
        InvalidParameterError
            Files are gone, `missing` is "keep", and fewer than 50 images could be embedded to learn from.
        """
        self._begin()
        if self.state.phase == "sampling":
            self._step(replace(self.state, phase="shadow"))
        rows, n_embedded, missing = self._rows(), 0, dict[str, str]()
        # Others may add images as long as this takes; each round has fewer.
        while ids := ids_of(rows.old) - ids_of(rows.new) - missing.keys():
            n, without_file = self._embed(rows, ids, progress)
            n_embedded, missing = n_embedded + n, missing | without_file
        if missing and self._missing == "refuse":
            raise MissingFilesError(list(missing.values()))
        n_estimated = self._estimate(rows, list(missing)) if self._missing == "keep" else 0
        n_estimated += self.state.estimated
        dropped = len(missing) if self._missing == "drop" else 0
        self._step(replace(self.state, phase="verifying", dropped=dropped, estimated=n_estimated))
        return n_embedded

    def _embed(self, rows: ShadowRows, ids: set[str], progress: bool | None) -> tuple[int, dict[str, str]]:
        """Write new rows; return how many, and the paths of images whose files are gone, by id."""
        missing: dict[str, str] = {}
        n_embedded = 0
        with bar("embedding images", len(ids), unit="images", progress=progress) as shown:
            for batch, vectors in rows.embed(ids):
                n_embedded += rows.keep(batch, vectors)
                for id, path in zip(
                    batch.column("id").to_pylist(), batch.column("path").to_pylist(), strict=True
                ):
                    if id not in vectors:
                        missing[id] = images.decode_path(path) or id
                shown.update(len(batch))
        return n_embedded, missing

    def _estimate(self, rows: ShadowRows, ids: list[str], *, has_lock: bool = False) -> int:
        """Write marked rows with estimated vectors; return how many."""
        if not ids:
            return 0
        found = bridge.current_bridge(rows, self._fingerprints, has_lock=has_lock)
        n = 0
        for batch in chunks(rows.old, ids):
            estimates = found.map.transform(batch_vectors(batch))
            by_id = dict(zip(batch.column("id").to_pylist(), estimates, strict=True))
            if has_lock:
                n += append_new(rows.new, batch, by_id, estimated=True)
            else:
                n += rows.keep(batch, by_id, estimated=True)
        return n

    def paired_vectors(
        self, n: int, *, random_state: int = 0
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
        """Return ids of at most `n` random images that have rows of both models, and both models' vectors.

        Parameters
        ----------
        n : int
        random_state : int
        """
        rows = self._rows()
        both = sorted((ids_of(rows.old) & ids_of(rows.new)) - _estimated(rows.new))
        ids = sorted(np.random.default_rng(random_state).permutation(both)[:n].tolist())
        return ids, vectors_of(rows.old, ids), vectors_of(rows.new, ids)

    def n_left(self) -> int:
        """Return how many images have no row of the new model yet."""
        rows = self._rows()
        return len(ids_of(rows.old) - ids_of(rows.new))

    def expected_recall(self) -> tuple[float, float, float] | None:
        """Return the expected recall of searches by the bridge, with its interval; None without a bridge."""
        found = bridge.Bridge.read(self._location.files, self._fingerprints)
        return None if found is None else (found.recall, found.low, found.high)

    def verify(self, *, random_state: int = 0) -> None:
        """Check that every image has one row, and that stored vectors are what the model computes.

        Images that came since the shadow was complete are embedded first.

        Raises
        ------
        StorageError
            They are not; the collection stays as it is.
        MissingFilesError
            Files of images that came since are gone, and `missing` is "refuse".
        """
        rows = self._rows()
        # What comes even later is taken in by the switch, under the lock.
        wanted = ids_of(rows.old)
        if len(wanted - ids_of(rows.new)) > self.state.dropped:
            self.shadow(progress=False)
        ids = [id for batch in rows.new.scan(["id"]) for id in batch.column("id").to_pylist()]
        lacking = (wanted & ids_of(rows.old)) - set(ids)
        if len(ids) != len(set(ids)) or len(lacking) > self.state.dropped:
            raise StorageError(
                f"the new rows are {len(ids):,}, {len(ids) - len(set(ids)):,} of them twice, and"
                f" {len(lacking):,} images lack one; run nearsight upgrade again"
            )
        drawn = np.random.default_rng(random_state).permutation(sorted(set(ids) - _estimated(rows.new)))
        drawn_ids = drawn[:_N_COMPARED].tolist()
        stored = vectors_by_id(rows.new, drawn_ids)
        for _, vectors in rows.embed(drawn_ids, rows.new):
            for id, vector in vectors.items():
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
        rows = self._rows()
        with rows.locked():
            self._carry_over(rows)
            left_out = sorted(ids_of(rows.old) - ids_of(rows.new))
            self.state = replace(self.state, phase="switched", rolled_back=False, left_out=left_out)
            self.state.write(self._location)
            facts = manifest.CollectionManifest.of(self._backend.spec, self._facts.storage)
            replace(facts, created=self._facts.created, store=self.state.store).write(self._location)
            shutil.rmtree(self._location.files / manifest.CACHE, ignore_errors=True)
        rows.new.maintain()
        return Collection.open(self._location, model=self._backend, cache_dir=self._collection.cache_dir)

    def _carry_over(self, rows: ShadowRows) -> None:
        """Bring the new rows up to what others wrote since they were copied; the caller holds the lock."""
        old, new = rows.old, rows.new
        new.delete(sorted(ids_of(new) - ids_of(old)))
        missing: list[str] = []
        for batch, vectors in rows.embed(ids_of(old) - ids_of(new)):
            append_new(new, batch, vectors)
            missing += [id for id in batch.column("id").to_pylist() if id not in vectors]
        if len(missing) > self.state.dropped and self._missing == "refuse":
            raise MissingFilesError([f"{len(missing)} images added meanwhile"])
        if self._missing == "keep":
            self._estimate(rows, missing, has_lock=True)
        carry_columns(old, new)

    @property
    def _fingerprints(self) -> tuple[str, str]:
        return self._facts.fingerprint.digest, self._backend.spec.fingerprint.digest

    def _rows(self) -> ShadowRows:
        cache_dir = self._collection.cache_dir
        return ShadowRows(self._location, self._facts, self.state.store, self._backend, cache_dir)

    def _step(self, state: UpgradeState) -> None:
        with WriteLock(self._location, self._facts):
            now = UpgradeState.read(self._location)
            if now is None or now.store != state.store or now.deleting:
                raise StorageError(f"the upgrade of {self._location.uri} was ended meanwhile")
            self.state = state
            state.write(self._location)


def rollback(place: Path | Location) -> int:
    """Change a collection back to the rows of the model it was upgraded from.

    Metadata and files that were noted since are carried back, and images that were removed since leave the
    old rows, too. Called again, as after a crash, it finishes what is left, and changes nothing else.

    Parameters
    ----------
    place : Path or Location
        Of the collection.

    Returns
    -------
    int
        Images that were added after the upgrade, and that the old rows lack; index their folders again.

    Raises
    ------
    InvalidParameterError
        The collection was not upgraded, or the old rows were deleted, at least some of them.
    """
    location = locate(place)
    with location.lock():
        state = UpgradeState.read(location)
        _require_whole(location, state)
        if state is None or not state.was_rolled_back:
            state = _switched(location)
        old, new = location.open_store(state.previous_store), location.open_store(state.store)
        n_lacking = len(ids_of(new) - ids_of(old))
        if state.phase == "switched":
            # The mark comes first: after a crash it tells an upgrade that was undone from one not yet done.
            state = replace(state, rolled_back=True)
            state.write(location)
            # Earlier versions noted how many images were left out, and not which.
            if state.left_out or not state.dropped:
                old.delete(_removed_since(old, new, state.left_out))
            carry_columns(new, old)
            previous = json.dumps(dict(state.previous), indent=2).encode() + b"\n"
            location.write_document(manifest.FILENAME, previous)
            replace(state, phase="ready").write(location)
        shutil.rmtree(location.files / manifest.CACHE, ignore_errors=True)
    return n_lacking


def commit(place: Path | Location) -> None:
    """Delete the rows of the model that a collection was upgraded from.

    Parameters
    ----------
    place : Path or Location
        Of the collection.

    Raises
    ------
    InvalidParameterError
        The collection was not upgraded.
    """
    location = locate(place)
    with location.lock():
        state = _switched(location)
        _delete(location, state, state.previous_store)


def abandon(place: Path | Location) -> None:
    """End an upgrade that has not changed the collection yet, and delete the new rows.

    Parameters
    ----------
    place : Path or Location
        Of the collection.

    Raises
    ------
    InvalidParameterError
        No upgrade has begun, or it has changed the collection.
    """
    location = locate(place)
    # Searches by the bridge write under the same lock, and only while the state names their rows.
    with location.lock():
        state = UpgradeState.read(location)
        if state is None or state.phase == "switched":
            raise InvalidParameterError(
                f"{location.uri} was upgraded already; nearsight rollback brings the old model back"
                if state
                else f"no upgrade of {location.uri} has begun; nearsight upgrade --to MODEL begins one"
            )
        _delete(location, state, state.store)


def _delete(location: Location, state: UpgradeState, store: str) -> None:
    """Delete a store, and forget the upgrade; after a crash, the same call goes on."""
    # The mark comes first: rows that are half deleted open as if they were whole.
    replace(state, deleting=True).write(location)
    location.delete_store(store)
    (location.files / bridge.FILENAME).unlink(missing_ok=True)
    location.delete_document(STATE)


def _require_whole(location: Location, state: UpgradeState | None) -> None:
    """Raise if the rows of an upgrade are being deleted, or were when a process ended."""
    if state is not None and state.deleting:
        whose = "before the upgrade" if state.phase == "switched" else f"of the upgrade to {state.model}"
        raise InvalidParameterError(
            f"the rows {whose} are being deleted from {location.uri}, or were when a command was interrupted;"
            f" {state.ending} finishes that"
        )


def _switched(location: Location) -> UpgradeState:
    state = UpgradeState.read(location)
    if state is None or state.phase != "switched":
        raise InvalidParameterError(
            f"{location.uri} was not upgraded, or its old rows were deleted; nearsight upgrade --to MODEL"
            " upgrades it"
        )
    return state


def _removed_since(old: VectorStore, new: VectorStore, left_out: Sequence[str]) -> list[str]:
    """Return the images that left the collection after its rows became the new ones."""
    before, now = ids_of(old), ids_of(new)

    def keys(store: VectorStore, ids: set[str]) -> dict[str, set[str]]:
        batches = store.scan(["id", "keys"], ids=sorted(ids)) if ids else ()
        return {row["id"]: set(row["keys"] or ()) for batch in batches for row in batch.to_pylist()}

    # A file that changed is another image now. Indexing it again takes its metadata from the old row.
    changed = set[str]().union(*keys(new, now - before).values())
    gone = keys(old, before - now - set(left_out))
    return sorted(id for id, files in gone.items() if not files & changed)


def _estimated(store: VectorStore) -> set[str]:
    """Return the ids of rows whose vector is an estimate."""
    mark = PREFIX + ESTIMATED_KEY
    if mark not in store.schema.names:
        return set()
    batches = store.scan(["id", mark])
    return {row["id"] for batch in batches for row in batch.to_pylist() if row[mark]}
