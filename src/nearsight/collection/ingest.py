"""The work of `Collection.add`: finds new and changed images, embeds and writes them, counts the rest."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from itertools import chain
from typing import Any, TypeAlias

from nearsight import images
from nearsight.collection import schema
from nearsight.collection.file_index import FileEntry, FileIndex
from nearsight.collection.results import AddReport
from nearsight.collection.writer import AddCounts, IndexedFile, MetadataUpdate, WriteBatch, Writer, exists
from nearsight.embedder import Embedded, Embedder, OnError
from nearsight.errors import ImageError, ImageFailure, MetadataError, StorageError
from nearsight.images import Exclusions, FileSource, ImageSource, Stat
from nearsight.store import VectorStore

MetadataFunction = Callable[[str], Mapping[str, Any]]

# The id of a row, and one of its files.
_IndexedFileOf: TypeAlias = tuple[str, IndexedFile]

_FILES_PER_PRUNE = 4096

_NO_STAT = Stat(size_bytes=0, stamp=0, modified_s=0.0)


class Ingest:
    """Brings a store up to date with some inputs; for one run.

    Parameters
    ----------
    store : VectorStore
    lock : context manager
        Held while writing.
    embedder : callable
        Returns the embedder; called only if there is something to embed.
    metadata : callable
        From the path of an image to its metadata.
    """

    def __init__(
        self,
        store: VectorStore,
        lock: AbstractContextManager[object],
        embedder: Callable[[], Embedder],
        metadata: MetadataFunction,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._metadata = metadata
        self._writer = Writer(store, lock)
        self._writer.add_exif_columns()
        self._file_index = FileIndex(store.scan(FileIndex.columns(store.schema)))
        self._counts = AddCounts()
        self._batch = WriteBatch()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nearsight-write")
        self._writing: Future[None] | None = None
        # The entries of changed files, until these are embedded.
        self._old_entries: dict[str, list[FileEntry]] = {}
        self._types = {f.name: f.type for f in store.schema}
        self._n_sources = 0
        self._notes: Counter[str] = Counter()

    def run(
        self,
        inputs: Any,
        *,
        prune: bool,
        exclusions: Exclusions,
        allow_remote: bool,
        on_error: OnError,
        bar: Any,
    ) -> AddReport:
        """Bring the collection up to date with the inputs."""
        started = time.monotonic()
        skipped: Counter[str] = Counter()
        found = images.find(inputs, allow_remote=allow_remote, exclusions=exclusions, skipped=skipped)
        sources = self._changed(found, bar)
        with self._pool:
            self._embed(sources, on_error, bar)
        vanished, excluded = self._unvisited(inputs, exclusions)
        removed = self._remove(excluded) if self._n_sources else 0
        removed += self._remove(vanished) if prune and self._n_sources else 0
        counts, seconds = self._counts + self._writer.counts, time.monotonic() - started
        n_files = counts.added + counts.updated + counts.unchanged + len(counts.failed)
        if not n_files:
            warnings.warn(images.no_image_text(inputs, skipped), stacklevel=3)
        return AddReport(
            added=counts.added,
            updated=counts.updated,
            unchanged=counts.unchanged,
            removed=removed,
            embedded=counts.embedded,
            same_content=counts.same_content,
            vanished=[images.decode_path(file.path) for _, file in vanished],
            excluded=[images.decode_path(file.path) for _, file in excluded],
            failed=counts.failed,
            skipped=dict(skipped.most_common()),
            seconds=round(seconds, 3),
            images_per_second=round(n_files / seconds, 1) if seconds else 0.0,
            notes=dict(self._notes),
        )

    def _embed(self, sources: Iterator[ImageSource | ImageFailure], on_error: OnError, bar: Any) -> None:
        try:
            # No model is loaded where nothing is new.
            for first in sources:
                embedded = self._embedder().stream(
                    chain([first], sources),
                    known=self._file_index.has_vector,
                    is_outdated=self._file_index.is_outdated,
                    thumbnails=True,
                    on_error=on_error,
                )
                with closing(embedded):
                    for result in embedded:
                        self._take(result)
                        bar.update()
                        self._flush_if_due()
            self._flush()
        except StorageError as error:
            # The batch cannot be saved; what was written before it is.
            raise StorageError(
                f"{error} {self._writer.counts.embedded} images of this run are saved;"
                " the same command goes on from there"
            ) from error
        except BaseException:
            # Stopped by an image, a bug or a person: save what is finished.
            self._flush()
            raise

    def _flush_if_due(self) -> None:
        if self._batch.is_due():
            self._submit()

    def _submit(self) -> None:
        """Give the batch to the writing thread, once that has finished the one before."""
        if self._writing is not None:
            self._writing.result()
        batch, self._batch = self._batch, WriteBatch()
        # From here on, images of the same content become links to these rows.
        self._file_index.add_ids(batch.rows)
        self._writing = self._pool.submit(self._writer.write, batch)

    def _flush(self) -> None:
        """Write the batch, and wait for it."""
        if len(self._batch):
            self._submit()
        if self._writing is not None:
            self._writing.result()

    def _changed(
        self, sources: Iterator[ImageSource | ImageFailure], bar: Any
    ) -> Iterator[ImageSource | ImageFailure]:
        """Yield what must be read: files that are not in the index with the same size and time stamp."""
        for source in sources:
            if not isinstance(source, ImageFailure):
                self._n_sources += 1
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
        entries = self._file_index.visit(key)
        if entries is None:
            return False
        stat = source.stat()
        same = next((e for e in entries if (e.size_bytes, e.stamp) == (stat.size_bytes, stat.stamp)), None)
        is_outdated = same is not None and self._file_index.is_outdated(same.id)
        is_estimated = same is not None and self._file_index.is_estimated(same.id)
        # Reading a local file again is cheap; downloading it is not.
        if same is None or is_estimated or (is_outdated and isinstance(source, FileSource)):
            self._old_entries[key] = entries
            return True
        self._counts.unchanged += 1
        self._batch.unlinks += [(e.id, key) for e in entries if e.id != same.id]
        if metadata := self._metadata_of(source.path):
            self._batch.metadata.append(MetadataUpdate(same.id, metadata, was_unchanged=True))
        self._flush_if_due()
        return False

    def _take(self, result: Embedded | ImageFailure) -> None:
        """Add one result to the batch."""
        if isinstance(result, ImageFailure):
            self._counts.failed.append(result)
            return
        self._notes.update(result.notes)
        try:
            metadata = self._metadata_of(result.source.path)
        except ImageError as error:
            self._counts.failed.append(ImageFailure(error.path, error.reason))
            return
        file = IndexedFile.of(result.source, result.stat)
        old_entries = self._old_entries.pop(file.key, [])
        self._batch.unlinks += [(e.id, file.key) for e in old_entries if e.id != result.id]
        if result.id in self._batch.rows:
            self._batch.add_file(result.id, file)
        elif result.vector is None or self._file_index.has_id(result.id):
            self._take_known(result, file, metadata)
        else:
            self._batch.add_row(result, metadata)
            if old_entries:
                self._batch.replaced[result.id] = old_entries[0].id

    def _take_known(self, result: Embedded, file: IndexedFile, metadata: Mapping[str, Any]) -> None:
        id = result.id
        is_embedded_again = result.vector is not None and self._file_index.is_estimated(id)
        if is_embedded_again or (result.exif is not None and self._file_index.is_outdated(id)):
            self._batch.refreshed[id] = result
        if file.key:
            self._batch.links.append((id, file))
        else:
            self._counts.unchanged += 1
        if metadata:
            self._batch.metadata.append(MetadataUpdate(id, metadata, was_unchanged=not file.key))

    def _metadata_of(self, path: str) -> Mapping[str, Any]:
        metadata = self._metadata(path)
        try:
            self._types |= schema.metadata_types(metadata, self._types)
        except MetadataError as error:
            raise ImageError(path, str(error)) from error
        return metadata

    def _unvisited(
        self, inputs: Any, exclusions: Exclusions
    ) -> tuple[list[_IndexedFileOf], list[_IndexedFileOf]]:
        """Return the files of the index below the inputs that are gone from disk, and that are excluded."""
        vanished: list[_IndexedFileOf] = []
        excluded: list[_IndexedFileOf] = []
        if not self._file_index.any_unvisited():
            return vanished, excluded
        roots = images.roots(inputs)
        is_excluded = images.excluded_from(roots, exclusions)
        for batch in self._store.scan(["id", "paths", "keys"]):
            columns = (batch.column(name).to_pylist() for name in ("id", "paths", "keys"))
            for id, paths, keys in zip(*columns, strict=True):
                for path, key in zip(paths, keys, strict=True):
                    place = images.decode_path(key)
                    if not self._file_index.is_unvisited(key) or not images.covers(roots, place):
                        continue
                    if not exists(key):
                        vanished.append((id, IndexedFile(path, key, _NO_STAT)))
                    elif is_excluded(place):
                        excluded.append((id, IndexedFile(path, key, _NO_STAT)))
        return vanished, excluded

    def _remove(self, files: list[_IndexedFileOf]) -> int:
        for start in range(0, len(files), _FILES_PER_PRUNE):
            unlinks = [(id, file.key) for id, file in files[start : start + _FILES_PER_PRUNE]]
            self._writer.write(WriteBatch(unlinks=unlinks))
        return len(files)
