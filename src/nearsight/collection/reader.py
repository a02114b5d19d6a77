"""The side of a collection that only reads rows, and needs no model."""

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nearsight import store
from nearsight.collection import manifest, schema
from nearsight.collection.export import export
from nearsight.collection.results import Item, Match, Metadata
from nearsight.collection.search import search_vectors
from nearsight.errors import FilterError, FingerprintMismatchError, UnknownIdError
from nearsight.models import Fingerprint, ModelSpec
from nearsight.store import NUMBER_TYPES, Filter, Location, MemoryStore, Snapshot, VectorStore
from nearsight.store.filters.unicode_forms import in_both_forms

# The shortest start of an id that stands for the whole.
PREFIX_DIGITS = 4
_ROWS_PER_BATCH = 4096
_N_FILTERS = 64


class CollectionReader:
    """Reads the rows of a collection; see `Collection`.

    Parameters
    ----------
    location : Location
        Of the collection.
    facts : CollectionManifest
    store : VectorStore
        The rows.
    """

    def __init__(self, location: Location, facts: manifest.CollectionManifest, store: VectorStore) -> None:
        self.location = location
        self._manifest = facts
        self._store = store
        # By text: the columns it was read with, and what it means.
        self._filters: dict[str, tuple[pa.Schema, Filter]] = {}

    @property
    def uri(self) -> str:
        """Where the collection is, as people are shown it: without a password."""
        return self.location.uri

    @property
    def directory(self) -> Path:
        """The directory of the collection; of one elsewhere, the directory on this machine for its files.

        Caches, and what analyses save (a map, clusters, classifiers, labels), are there.
        """
        return self.location.files

    @property
    def spec(self) -> ModelSpec:
        """The model whose vectors these are."""
        return self._manifest.spec

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the model and the preprocessing; only vectors of the same fingerprint can be added."""
        return self._manifest.fingerprint

    @property
    def decode(self) -> str:
        """How far JPEGs are decoded: "draft" at reduced size where that leaves enough pixels, or "full"."""
        return _decode(self.fingerprint)

    @property
    def storage(self) -> str:
        """The type of a stored number, "float32" or "float16"."""
        return self._manifest.storage

    @property
    def created(self) -> datetime:
        """When the collection was created; UTC."""
        return self._manifest.created

    @property
    def written_by(self) -> str:
        """The version of nearsight that created the collection."""
        return self._manifest.written_by

    def was_upgraded(self) -> bool:
        """Whether the collection has vectors of another model since it was opened; then open it again."""
        return not manifest.CollectionManifest.read(self.location).has_rows_of(self._manifest)

    def __len__(self) -> int:
        return self._store.count()

    def __repr__(self) -> str:
        return f"Collection({self.uri!r}, model={self.spec.id!r}, {len(self)} images)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} holds an open store and cannot be pickled or copied;"
            f" pass on its place, and open it there: Collection.open({self.uri!r})"
        )

    @property
    def model_name(self) -> str:
        """The name that loads the collection's model.

        Raises
        ------
        FingerprintMismatchError
            The model is the collection's own projection, and its file is gone.
        """
        return manifest.model_name(self.location, self.spec.id)

    def items(self, where: str | None = None, *, ids: Sequence[str] | None = None) -> Iterator[Item]:
        """Stream the images, or those that match, in the order they came in; or those of whole ids.

        Ids that are not in the collection are left out; their order is the store's.
        """
        columns, condition = schema.item_columns(self._store.schema), self._filter(where)
        batches = self._store.scan(columns, condition, ids=ids)
        if ids is None and not self._is_in_order(condition):
            # The store moves rows when they are updated. Their facts fit into memory: no vectors, no images.
            rows = pa.Table.from_batches(list(batches)).sort_by("added")
            batches = iter(rows.to_batches(_ROWS_PER_BATCH))
        for batch in batches:
            yield from map(schema.item_of, batch.to_pylist())

    def _is_in_order(self, condition: Filter | None) -> bool:
        """Return whether the store yields rows in the order they came in."""
        latest = np.datetime64("0001-01-01", "us")
        for batch in self._store.scan(["added"], condition):
            added = batch.column("added").to_numpy(zero_copy_only=False).astype("datetime64[us]")
            if len(added) and (added[0] < latest or (added[1:] < added[:-1]).any()):
                return False
            latest = added[-1] if len(added) else latest
        return True

    def iter_batches(
        self, columns: Sequence[str], where: str | Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream columns of the images, a few thousand rows at a time.

        Parameters
        ----------
        columns : sequence of str
            ``vector``, ``thumbnail``, and what may be named in `where`, metadata keys included.
        where : str, optional
            Only the images that match.
        ids : sequence of str, optional
            Only the images of these whole ids; those that are not in the collection are left out.
        """
        stored = schema.columns_named(columns, self._store.schema)
        for batch in self._store.scan(stored, self._filter(where), ids=ids):
            yield pa.RecordBatch.from_arrays([batch.column(name) for name in stored], names=list(columns))

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | Filter | None = None) -> pa.Table:
        """Return columns of the images as one table, in the order they came in.

        ``collection.to_arrow().to_pandas()`` is a DataFrame. `iter_batches` streams what memory cannot hold.

        Parameters
        ----------
        columns : sequence of str, optional
            See `iter_batches`; ``paths`` are all files of an image. By default all but the vector and the
            thumbnail; metadata is named ``metadata.KEY`` then.
        where : str, optional
            Only the images that match.

        Returns
        -------
        pyarrow.Table
            Metadata that an image lacks is null; its numbers are float64.

        Raises
        ------
        InvalidParameterError, FilterError
            There is no such column; `where` is not understood.
        """
        stored = self._store.schema
        named = schema.table_columns(columns, stored, self._keys_in_use() if columns is None else ())
        scanned = list(dict.fromkeys([*named.values(), "added"]))
        batches = list(self._store.scan(scanned, self._filter(where)))
        fields = pa.schema([stored.field(name) for name in scanned])
        rows = pa.Table.from_batches(batches) if batches else fields.empty_table()
        order = np.argsort(rows.column("added").to_numpy(), kind="stable")
        # The store moves rows when they are updated.
        if (order[1:] < order[:-1]).any():
            rows = rows.take(order)
        return rows.select(list(named.values())).rename_columns(list(named))

    def count(self, where: str | Filter | None = None) -> int:
        """Return the number of images, or of those that match."""
        return self._store.count(self._filter(where))

    def get(self, id: str) -> Item:
        """Return one image by its id, or by a unique start of it of at least 4 digits.

        Raises
        ------
        UnknownIdError
            No image's id starts so, or more than one does.
        """
        if not set(id) <= set("0123456789abcdef") or not PREFIX_DIGITS <= len(id) <= 32:
            raise UnknownIdError(
                f"{id!r} is not an id: an id is 32 hex digits, of which at least the first"
                f" {PREFIX_DIGITS} are needed; nearsight ls shows them"
            )
        items = list(self.items(ids=[id]) if len(id) == 32 else self.items(f"id LIKE '{id}%'"))
        if len(items) != 1:
            n = len(items) or "no"
            raise UnknownIdError(f"{n} images have ids that start with {id!r}; nearsight ls shows them")
        return items[0]

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of images, in the order of `ids`."""
        vectors = self._column("vector", ids)
        return np.array([vectors[id] for id in ids], np.float32).reshape(len(ids), self.spec.dim)

    def search_vectors(
        self, vectors: ArrayLike, *, k: int = 10, where: str | None = None, exact: bool = False
    ) -> list[list[Match]]:
        """Return the `k` most similar images of each vector, the most similar first.

        Parameters
        ----------
        vectors : array of shape (n, dim)
            Of this collection's fingerprint. Many at once are faster than one after another.
        k : int, default 10
        where : str, optional
            Search only among the rows that match.
        exact : bool, default False
            Compare with every row instead of using an index.

        Raises
        ------
        VectorError
            A vector has another length, or no direction; `k` is less than 1.
        FilterError
            `where` is not understood.
        """
        return search_vectors(self, np.asarray(vectors, np.float32), k, where, exact)

    def load_into_memory(self) -> bool:
        """Load what searches need into memory now, and return whether it is there.

        The second search starts this in the background. From 10 million numbers on (20,000 vectors of 512),
        rows are grouped if ``nearsight[fast]`` is installed, or a graph is built, and saved in ``DIR/cache``.
        Beyond 64 million numbers, searches stay with the store without these.
        """
        return isinstance(self._store, MemoryStore) and self._store.load()

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the JPEG thumbnails of images by id; rows without one are left out."""
        return {id: value for id, value in self._column("thumbnail", ids).items() if value is not None}

    def check_metadata(self, metadata: Metadata) -> None:
        """Raise `MetadataError` if an image could not have this metadata."""
        schema.metadata_types(metadata, {f.name: f.type for f in self._store.schema})

    def metadata_types(self) -> dict[str, str]:
        """Return the keys that metadata has or had, and the type of each: "string", "double" or "bool"."""
        stored = self._store.schema
        return {
            name.removeprefix(schema.PREFIX): str(stored.field(name).type)
            for name in schema.metadata_columns(stored)
        }

    def _keys_in_use(self) -> dict[str, str]:
        """Return the metadata keys that an image has: a key that was taken from all keeps its column."""
        types, stored = self.metadata_types(), self._store.schema
        return {key: types[key] for key in types if self.count(schema.with_key(key, stored))}

    def info(self) -> dict[str, Any]:
        """Return what the collection is and holds.

        Returns
        -------
        dict
            ``bytes_per_vector`` counts the numbers of one vector; ``bytes_per_image`` is everything on disk
            (thumbnails, index and old versions included) divided by the number of images. ``metadata`` has
            the keys that an image has.
        """
        n = self.count()
        size_bytes = self.location.size_bytes()
        return {
            "directory": self.uri,
            "images": n,
            "model": self.spec.id,
            "dim": self.spec.dim,
            "storage": self.storage,
            "fingerprint": self.fingerprint.digest,
            "decode": self.decode,
            "license": self.spec.license,
            "size_bytes": size_bytes,
            "bytes_per_image": round(size_bytes / n) if n else 0,
            "bytes_per_vector": self.spec.dim * NUMBER_TYPES[self.storage].bit_width // 8,
            "metadata": self._keys_in_use(),
            "created": self.created.isoformat(),
            "written_by": self.written_by,
        }

    def export(self, file: str | Path, *, where: str | None = None) -> int:
        """Write images to a ``.parquet``, ``.npz`` or ``.csv`` file; return the number of rows."""
        facts = {"model": self.spec.id, "fingerprint": self.fingerprint.digest}
        return export(self._store, Path(file), self._filter(where), facts)

    def condition(self, where: str | Filter | None, *, ids: Sequence[str] | None = None) -> Filter | None:
        """Return what `where` means to a store; None for no condition.

        Parameters
        ----------
        where : str or Filter, optional
        ids : sequence of str, optional
            Only these images, any number of them; their whole ids.

        Raises
        ------
        FilterError
            It is not understood.
        """
        condition = self._filter(where)
        return condition if ids is None else schema.among(ids, condition)

    def _snapshot(self) -> VectorStore | Snapshot:
        """Return what answers the next search, and has the schema to ask with."""
        return self._store.snapshot() if isinstance(self._store, MemoryStore) else self._store

    def _filter(self, where: str | Filter | None, stored: pa.Schema | None = None) -> Filter | None:
        """Return what `where` means to a store, whose schema a caller may have."""
        if where is None or isinstance(where, Filter):
            return where
        stored = self._store.schema if stored is None else stored
        parsed_with, condition = self._filters.get(where, (None, None))
        if condition is None or parsed_with is not stored:
            condition = self._parsed(where, stored)
            if len(self._filters) >= _N_FILTERS:
                self._filters.clear()
            self._filters[where] = (stored, condition)
        return condition

    @staticmethod
    def _parsed(where: str, stored: pa.Schema) -> Filter:
        try:
            return in_both_forms(store.parse(where, schema.filter_fields(stored)))
        except FilterError as error:
            if not schema.lacks_exif(stored):
                raise
            raise FilterError(
                f"{error} Fields of EXIF (taken, camera, ...) are there after the next nearsight index PATH"
            ) from error

    def _column(self, name: str, ids: Sequence[str]) -> dict[str, Any]:
        values = {
            id: value
            for batch in self._store.scan(["id", name], ids=ids)
            for id, value in zip(batch.column("id").to_pylist(), batch.column(name).to_pylist(), strict=True)
        }
        if missing := [id for id in ids if id not in values]:
            raise UnknownIdError(f"no image has the id {missing[0]!r}; nearsight ls shows the ids")
        return values

    def _require(self, fingerprint: Fingerprint) -> None:
        """Refuse vectors that cannot be compared with those of the collection."""
        if fingerprint != self.fingerprint:
            differences = self.fingerprint.differences(fingerprint)
            only_decode = len(differences) == 1 and _decode(fingerprint) != self.decode
            remedy = f"Decode as it does (--decode {self.decode}), or index" if only_decode else "Index"
            raise FingerprintMismatchError(
                f"{self.uri} holds vectors of {self.spec.id} (fingerprint {self.fingerprint.digest});"
                f" these are of {fingerprint.model} ({fingerprint.digest}). They differ in:"
                f" {'; '.join(differences)}. {remedy} the images into another collection with -c DIR, or move"
                f" this one: nearsight upgrade -c {shlex.quote(self.uri)} --to MODEL"
            )

    def _require_of_own_model(self, fingerprint: Fingerprint) -> None:
        """Refuse what the collection's model has become, if it computes other vectors by now."""
        differences = self.fingerprint.differences(fingerprint)
        if not any(difference.startswith("weights_sha256") for difference in differences):
            # The same model, on another device or with other settings.
            self._require(fingerprint)
            return
        raise FingerprintMismatchError(
            f"{self.model_name} computes other vectors ({fingerprint.digest}) than {self.uri} holds"
            f" ({self.fingerprint.digest}): the model was replaced since, and has another weights_sha256."
            " Bring the earlier one back, or embed the images again: nearsight upgrade"
            f" -c {shlex.quote(self.uri)} --to {shlex.quote(self.model_name)}"
        )


def _decode(fingerprint: Fingerprint) -> str:
    return "full" if fingerprint.decoder.get("draft_factor") is None else "draft"
