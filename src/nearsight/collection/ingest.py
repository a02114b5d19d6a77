"""The job behind `Collection.add`: find what is new, embed that, write it, and account for the rest."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from typing import Any

from filelock import BaseFileLock

from nearsight import images
from nearsight.collection import schema
from nearsight.collection.file_index import Entry, Ledger
from nearsight.collection.results import AddReport
from nearsight.collection.writer import Batch, Counts, File, Note, Writer, exists
from nearsight.embedder import Embedded, Embedder, OnError
from nearsight.errors import ImageError, ImageFailure, MetadataError, StorageError
from nearsight.images import ImageSource, Stat
from nearsight.store import VectorStore

MetadataGiver = Callable[[str], Mapping[str, Any]]

# Vanished files are unlinked so many at a time.
_PRUNE_ROWS = 4096

_GONE = Stat(size_bytes=0, stamp=0, modified_s=0.0)


class Ingest:
    """One run over some inputs.

    Parameters
    ----------
    store : VectorStore
    lock : BaseFileLock
        Held while writing.
    embedder : callable
        Returns the embedder; called only if there is something to embed.
    metadata : callable
        From an image's path to what to attach to it.
    """

    def __init__(
        self,
        store: VectorStore,
        lock: BaseFileLock,
        embedder: Callable[[], Embedder],
        metadata: MetadataGiver,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._metadata = metadata
        self._writer = Writer(store, lock)
        self._ledger = Ledger(store.scan(list(Ledger.COLUMNS)))
        self._counts = Counts()
        self._batch = Batch()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nearsight-write")
        self._writing: Future[None] | None = None
        # What the ledger knew of files that are being looked at now.
        self._before: dict[str, list[Entry]] = {}
        self._types = {f.name: f.type for f in store.schema}
        self._n_found = 0

    def run(
        self,
        inputs: Any,
        *,
        prune: bool,
        allow_remote: bool,
        on_error: OnError,
        bar: Any,
    ) -> AddReport:
        """Bring the collection up to date with the inputs."""
        started = time.monotonic()
        sources = self._changed(images.find(inputs, allow_remote=allow_remote), bar)
        with self._pool:
            self._embed(sources, on_error, bar)
        vanished = self._vanished(inputs)
        removed = self._prune(vanished) if prune and self._n_found else 0
        counts, seconds = self._counts + self._writer.counts, time.monotonic() - started
        n_files = counts.added + counts.updated + counts.unchanged + len(counts.failed)
        return AddReport(
            added=counts.added,
            updated=counts.updated,
            unchanged=counts.unchanged,
            removed=removed,
            embedded=counts.embedded,
            vanished=[images.decode_path(file.path) for _, file in vanished],
            failed=counts.failed,
            seconds=round(seconds, 3),
            images_per_second=round(n_files / seconds, 1) if seconds else 0.0,
        )

    def _embed(self, sources: Iterator[ImageSource | ImageFailure], on_error: OnError, bar: Any) -> None:
        try:
            # No model is loaded where nothing is new.
            for first in sources:
                embedded = self._embedder().stream(
                    chain([first], sources), known=self._ledger.has_id, thumbnails=True, on_error=on_error
                )
                with closing(embedded):
                    for result in embedded:
                        self._take(result)
                        bar.update()
                        self._flush_if_due()
            self._flush()
        except StorageError as error:
            # What is in the batch cannot be saved; what was written before is.
            raise StorageError(
                f"{error} {self._writer.counts.embedded} images of this run are saved;"
                " the same command goes on from there"
            ) from error
        except BaseException:
            # Stopped by a bad image, a bug or a person: what is finished is kept.
            self._flush()
            raise

    def _flush_if_due(self) -> None:
        if self._batch.is_due():
            self._submit()

    def _submit(self) -> None:
        """Hand the batch to the writing thread, once it has finished the one before."""
        if self._writing is not None:
            self._writing.result()
        batch, self._batch = self._batch, Batch()
        # From here on, images of the same content become links to these rows.
        self._ledger.add_ids(batch.new)
        self._writing = self._pool.submit(self._writer.write, batch)

    def _flush(self) -> None:
        """Write what there is, and wait for it."""
        if len(self._batch):
            self._submit()
        if self._writing is not None:
            self._writing.result()

    def _changed(
        self, found: Iterator[ImageSource | ImageFailure], bar: Any
    ) -> Iterator[ImageSource | ImageFailure]:
        """Pass on what must be read: files that the ledger does not know just so."""
        for source in found:
            if not isinstance(source, ImageFailure):
                self._n_found += 1
                try:
                    if source.key and not self._is_changed(source):
                        bar.update()
                        continue
                except ImageError as error:
                    yield ImageFailure(error.path, error.reason)
                    continue
            yield source

    def _is_changed(self, source: ImageSource) -> bool:
        key = images.encode_path(source.key)
        entries = self._ledger.visit(key)
        if entries is None:
            return False
        stat = source.stat()
        same = next((e for e in entries if (e.size_bytes, e.stamp) == (stat.size_bytes, stat.stamp)), None)
        if same is None:
            self._before[key] = entries
            return True
        self._counts.unchanged += 1
        self._batch.unlinks += [(e.id, key) for e in entries if e.id != same.id]
        if metadata := self._metadata_of(source.path):
            self._batch.notes.append(Note(same.id, metadata, was_unchanged=True))
        self._flush_if_due()
        return False

    def _take(self, result: Embedded | ImageFailure) -> None:
        """Put one result into the batch."""
        if isinstance(result, ImageFailure):
            self._counts.failed.append(result)
            return
        try:
            metadata = self._metadata_of(result.source.path)
        except ImageError as error:
            self._counts.failed.append(ImageFailure(error.path, error.reason))
            return
        file = File.of(result.source, result.stat)
        before = self._before.pop(file.key, [])
        self._batch.unlinks += [(e.id, file.key) for e in before if e.id != result.id]
        if result.id in self._batch.new:
            self._batch.put_copy(result.id, file)
        elif result.vector is None or self._ledger.has_id(result.id):
            self._put_known(result.id, file, metadata)
        else:
            self._batch.put(result, metadata)
            if before:
                self._batch.heirs[result.id] = before[0].id

    def _put_known(self, id: str, file: File, metadata: Mapping[str, Any]) -> None:
        if file.key:
            self._batch.links.append((id, file))
        else:
            self._counts.unchanged += 1
        if metadata:
            self._batch.notes.append(Note(id, metadata, was_unchanged=not file.key))

    def _metadata_of(self, path: str) -> Mapping[str, Any]:
        metadata = self._metadata(path)
        try:
            self._types |= schema.metadata_types(metadata, self._types)
        except MetadataError as error:
            raise ImageError(path, str(error)) from error
        return metadata

    def _vanished(self, inputs: Any) -> list[tuple[str, File]]:
        """Return the known files below the inputs that this run has not met and the disk has not."""
        if not self._ledger.any_unseen():
            return []
        roots = images.roots(inputs)
        return [
            (id, File(path, key, _GONE))
            for found in self._store.scan(["id", "paths", "keys"])
            for id, paths, keys in zip(
                *(found.column(c).to_pylist() for c in ("id", "paths", "keys")), strict=True
            )
            for path, key in zip(paths, keys, strict=True)
            if self._ledger.is_unseen(key)
            and images.covers(roots, images.decode_path(key))
            and not exists(key)
        ]

    def _prune(self, vanished: list[tuple[str, File]]) -> int:
        for at in range(0, len(vanished), _PRUNE_ROWS):
            unlinks = [(id, file.key) for id, file in vanished[at : at + _PRUNE_ROWS]]
            self._writer.write(Batch(unlinks=unlinks))
        return len(vanished)
