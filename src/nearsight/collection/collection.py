"""A collection: images with their vectors of one model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nearsight import images
from nearsight.collection import manifest, removal, schema
from nearsight.collection.analysis_methods import AnalysisMethods
from nearsight.collection.create import create_collection, create_projected, load_if_needed, spec_of
from nearsight.collection.ingest import Ingest
from nearsight.collection.reader import CollectionReader
from nearsight.collection.results import AddReport, Match, Matches, Metadata
from nearsight.collection.search import embed_query, search
from nearsight.collection.write_lock import WriteLock
from nearsight.collection.writer import Writer
from nearsight.embedder import Embedder, OnError
from nearsight.errors import InvalidParameterError
from nearsight.images import Limits
from nearsight.models import DEFAULT_MODEL, Backend, Fingerprint, TextEncoder, load_model, load_text_encoder
from nearsight.store import Filter, Location, MemoryStore, VectorStore, locate

if TYPE_CHECKING:
    from nearsight.models.pca import Projection


class Collection(AnalysisMethods, CollectionReader):
    """Images with their vectors of one model, in a directory or a database. Use `create` or `open`.

    Several processes may read and write one collection at once. When a method that writes returns, its result
    is on disk: a killed process loses none of it.

    Examples
    --------
    >>> import tempfile; from PIL import Image
    >>> from nearsight import Collection
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for color in ("red", "green", "navy"):
    ...         Image.new("RGB", (320, 240), color).save(f"{folder}/{color}.png")
    ...     collection = Collection.create(f"{folder}/collection")
    ...     report = collection.add(folder)
    ...     [best, *_] = collection.search(f"{folder}/navy.png", k=2)
    >>> report.added, best.path.endswith("navy.png"), round(best.similarity, 3)
    (3, True, 1.0)
    """

    def __init__(
        self,
        location: Location,
        facts: manifest.CollectionManifest,
        store: VectorStore,
        *,
        device: str = "auto",
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__(location, facts, store)
        self._device = device
        self.cache_dir = cache_dir

    @classmethod
    def create(
        cls,
        directory: str | Path,
        *,
        model: str | Backend = DEFAULT_MODEL,
        storage: str | None = None,
        device: str = "auto",
        exist_ok: bool = True,
        cache_dir: Path | None = None,
    ) -> "Collection":
        """Create a collection, or open the existing one.

        Parameters
        ----------
        directory : path or URI
            A directory is made if it is missing. It must be empty, or a collection of the same model. A URI
            is ``postgres://user@host/database?collection=NAME``, or what a plugin adds.
        model : str or Backend
            The model whose vectors it holds.
        storage : {"float32", "float16"}, optional
            The type of a stored number; float16 takes half the space. Vectors are always read as float32. An
            existing collection keeps its own type. By default float32 in a directory, float16 in Postgres.
        device : str, default "auto"
            Where a model given by name runs; see `load_model`.
        exist_ok : bool, default True
            Whether the collection may exist already.
        cache_dir : Path, optional
            For converted models.

        Raises
        ------
        NotACollectionError
            The directory holds something else.
        FingerprintMismatchError
            It is a collection of another model.
        """
        location = locate(directory)
        model = load_if_needed(model, device, cache_dir)
        storage = storage or location.default_storage
        create_collection(location, spec_of(model), storage=storage, exist_ok=exist_ok)
        return cls.open(location, model=model, device=device, cache_dir=cache_dir)

    @classmethod
    def open(
        cls,
        directory: str | Path | Location,
        *,
        model: str | Backend | None = None,
        device: str = "auto",
        cache_dir: Path | None = None,
        in_memory: bool | None = None,
    ) -> "Collection":
        """Open a collection that exists.

        Parameters
        ----------
        directory : path, URI or URL
            Of the collection; see `create`. ``http://HOST:PORT/NAME`` is one of a service, and gives a
            `nearsight.client.RemoteCollection`.
        model : str or Backend, optional
            The model it must be of; by default the one it was created with, loaded when needed.
        device : str, default "auto"
            Where the model runs; see `load_model`.
        cache_dir : Path, optional
            For converted models.
        in_memory : bool, optional
            Whether the second search loads the rows, see `load_into_memory`; by default not on a server.

        Raises
        ------
        CollectionNotFoundError, NotACollectionError, NewerFormatError
            There is no collection at `directory` that this version can read.
        FingerprintMismatchError
            It holds vectors of another model or preprocessing.
        """
        if str(directory).startswith(("http://", "https://")):
            # The client stands above the collection, so it is named here, not imported.
            return cast("Collection", import_module("nearsight.client").open_collection(str(directory)))
        location = locate(directory)
        facts = manifest.CollectionManifest.read(location)
        in_memory = location.is_searched_in_memory if in_memory is None else in_memory
        rows, cache = location.open_store(facts.store), location.files / manifest.CACHE
        store = MemoryStore(rows, cache, columns=schema.columns_in_memory, enabled=in_memory)
        collection = cls(location, facts, store, device=device, cache_dir=cache_dir)
        if model is not None:
            model = load_if_needed(model, device, cache_dir)
            collection._require(spec_of(model).fingerprint)
            if not isinstance(model, str):
                collection.__dict__["_backend"] = model
        return collection

    def add(
        self,
        inputs: Any,
        *,
        metadata: Metadata | Callable[[str], Metadata] | None = None,
        prune: bool = False,
        exclude: Sequence[str] = (),
        include_hidden: bool = False,
        allow_remote: bool = False,
        on_error: OnError = "record",
        limits: Limits | None = None,
        n_threads: int | None = None,
        n_processes: int | None = None,
        progress: bool | None = None,
        embedder: Embedder | None = None,
    ) -> AddReport:
        """Add new and changed images.

        An unchanged file costs a stat call, a moved, duplicated or touched file a hash. A changed file is
        embedded again and keeps its metadata. Images are saved every 512 images or five seconds; after an
        interruption, the same call goes on from there.

        Parameters
        ----------
        inputs : path, URL, PIL image, uint8 array, bytes, or iterable of those
            Folders, globs and tar shards are walked.
        metadata : mapping, or callable from path to mapping, optional
            Attached to every image of the inputs: text, numbers, and true or false by key.
        prune : bool, default False
            Whether to remove files below the inputs that are gone from disk. Nothing is removed if the inputs
            have no image at all, because an unmounted disk looks like that.
        exclude : sequence of str
            Patterns in the syntax of gitignore for what to pass over; see `images.Exclusions`. Images of the
            collection that lie below the inputs and are excluded now are removed. Those below other folders
            stay until these are added again.
        include_hidden : bool, default False
            Whether names that begin with a dot are walked. Hidden images that were added once stay.
        allow_remote : bool, default False
            Whether http and https URLs may be fetched.
        on_error : {"record", "raise"}
            Whether an image that cannot be used is listed in the report or raises `ImageError`.
        limits, n_threads, n_processes, progress
            See `Embedder`; of no effect with `embedder`, an Embedder of the collection's model.

        Returns
        -------
        AddReport
            Counts, and the images that failed with the reasons.

        Raises
        ------
        StorageError
            The disk is full or gone. Saved images stay; the same call goes on from there.
        MetadataError
            `metadata` has an invalid key or value. If it is callable, the image is reported as failed.
        InvalidParameterError
            A pattern of `exclude` is not valid.
        FingerprintMismatchError
            `embedder` has another model than the collection.
        """
        if metadata is None or not callable(metadata):
            fixed = dict(metadata or {})
            self.check_metadata(fixed)
        chosen = embedder or self.embedder(
            limits=limits, n_threads=n_threads, n_processes=n_processes, progress=progress
        )
        self._require(chosen.spec.fingerprint)
        of_image = metadata if callable(metadata) else lambda _: fixed
        job = Ingest(self._store, self._lock, lambda: chosen, of_image)
        exclusions = images.Exclusions(tuple(exclude), include_hidden=include_hidden)
        walk: dict[str, Any] = {"allow_remote": allow_remote, "exclusions": exclusions}
        total = images.count(inputs, **walk) if chosen.can_count(inputs) else None
        with chosen.bar(total) as bar:
            report = job.run(inputs, prune=prune, **walk, on_error=on_error, bar=bar)
        self._store.maintain()
        return report

    def search(
        self,
        query: Any = None,
        *,
        id: str | Sequence[str] | None = None,
        text: str | None = None,
        vector: ArrayLike | None = None,
        not_query: Any = None,
        not_id: str | Sequence[str] | None = None,
        not_text: str | Sequence[str] | None = None,
        not_vector: ArrayLike | None = None,
        k: int = 10,
        where: str | Filter | None = None,
        exact: bool = False,
        expand: bool = False,
        allow_remote: bool = False,
    ) -> list[Match]:
        """Return the `k` most similar images, the most similar first.

        Parameters
        ----------
        query : path, URL, PIL image, uint8 array or bytes, or a list of those
            Images to look for.
        id : str or sequence of str
            Images of the collection to look for; a unique start of at least 4 digits will do.
        text : str
            A description of the images. See `load_text_encoder` for the models that can be searched by text,
            and for the meaning of the similarities.
        vector : array of shape (dim,) or (m, dim)
            One or several vectors of this collection's fingerprint.
        not_query, not_id, not_text, not_vector
            What is not wanted, in the same forms. Images of `id` and `not_id` are left out of the result.
        k : int, default 10
            At least 1.
        where : str, optional
            Search only among the rows that match, such as ``"width >= 640 AND path LIKE '%beach%'"``.
        exact : bool, default False
            Compare with every row instead of using the index.
        expand : bool, default False
            Widen a search by images with the three nearest, to find more of the same kind; similarities are
            then with the widened query.
        allow_remote : bool, default False
            Whether an http or https URL may be fetched.

        Notes
        -----
        Several images stand for the mean of their vectors, less a quarter of that of unwanted images (Rocchio
        1971). With texts beside images, or unwanted ones, the similarity is a sum in standard deviations: the
        mean over image and text, less what unwanted texts, and a quarter of unwanted images, have above
        their means.

        Raises
        ------
        ImageError
            A query image cannot be used.
        UnknownIdError, FilterError
            There is no such image; `where` is not understood.
        InvalidParameterError
            There is no image, id, text or vector; a text is empty, or `k` is less than 1.
        """
        matches = search(
            self,
            query,
            id=id,
            text=text,
            vector=vector,
            not_query=not_query,
            not_id=not_id,
            not_text=not_text,
            not_vector=not_vector,
            k=k,
            where=where,
            exact=exact,
            expand=expand,
            allow_remote=allow_remote,
        )
        return Matches(matches, self.thumbnails)

    def embed_query(self, query: Any, *, allow_remote: bool = False) -> NDArray[np.float32]:
        """Return the (dim,) vector of one image by the collection's model."""
        return embed_query(self, query, allow_remote=allow_remote)

    def add_vectors(
        self,
        vectors: ArrayLike,
        *,
        ids: Sequence[str],
        fingerprint: Fingerprint,
        metadata: Sequence[Metadata] | None = None,
    ) -> int:
        """Add vectors that were computed elsewhere; return how many were new.

        Parameters
        ----------
        vectors : array of shape (n, dim), float32, unit length
        ids : sequence of str, length n
            32 lower-case hex digits each. Images that the collection has are left as they are.
        fingerprint : Fingerprint
            Of the model and the preprocessing that computed the vectors.
        metadata : sequence of mapping, length n, optional

        Raises
        ------
        FingerprintMismatchError
            The vectors are of another model or preprocessing, and cannot be compared.
        """
        self._require(fingerprint)
        X = np.asarray(vectors, np.float32)
        if X.shape != (len(ids), self.spec.dim):
            raise InvalidParameterError(
                f"vectors have shape {X.shape}; {(len(ids), self.spec.dim)} is needed"
            )
        n_new = self._writer().write_vectors(X, ids, metadata or [{}] * len(ids))
        self._store.maintain()
        return n_new

    def update_metadata(
        self,
        ids: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata],
        *,
        missing_ok: bool = False,
    ) -> int:
        """Attach metadata to one or many images, in one write; None removes a key.

        Parameters
        ----------
        ids : str or sequence of str
            Unique starts of at least 4 digits will do.
        metadata : mapping, or sequence of mapping as long as `ids`
            For all of the images, or for each.
        missing_ok : bool, default False
            Whether ids that are not in the collection are left out instead of refused.

        Returns
        -------
        int
            Images whose metadata changed.

        Raises
        ------
        UnknownIdError
            No such image; then nothing is written.
        MetadataError
            A bad key, or a value of another type than the collection holds under that key.
        """
        names = [ids] if isinstance(ids, str) else list(ids)
        values = [metadata] * len(names) if isinstance(metadata, Mapping) else list(metadata)
        if len(values) != len(names):
            raise InvalidParameterError(
                f"there are {len(names)} ids and {len(values)} mappings of metadata; give one for each image"
            )
        by_id: dict[str, Metadata] = {}
        for name, value in zip(names, values, strict=True):
            id = name if len(name) == 32 else self.get(name).id
            by_id[id] = {**by_id.get(id, {}), **value}
        return self._writer().update_metadata(by_id, missing_ok=missing_ok)

    def remove(self, ids: Iterable[str] = (), *, where: str | None = None) -> int:
        """Remove images by id or by filter; return how many. The files stay where they are.

        Raises
        ------
        UnknownIdError
            One of the ids is not there; then nothing is removed.
        """
        doomed = [self.get(id).id for id in ids]
        if where is not None:
            doomed += [item.id for item in self.items(where)]
        with self._lock:
            return self._store.delete(list(dict.fromkeys(doomed)))

    def remove_files(self, keys: Mapping[str, Sequence[str]]) -> int:
        """Take files from images; one that keeps none is removed. Return how many were. Files stay on disk.

        Parameters
        ----------
        keys : mapping of str to sequence of str
            By whole id: the column ``keys`` of `rows`.
        """
        return removal.remove_files(self._store, self._lock, keys)

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Return all that is stored of images of these whole ids, vectors and thumbnails too."""
        return removal.whole_rows(self._store, ids, self.fingerprint.digest)

    def restore_rows(self, rows: pa.Table) -> int:
        """Put back what `rows` returned; of an image that is there, only its files. Return how many are new.

        Raises
        ------
        FingerprintMismatchError
            The vectors are of another model.
        """
        return removal.restore_rows(self._store, self._lock, rows, self.fingerprint.digest)

    def maintain(self) -> None:
        """Merge files and build the search index where that is due: after `restore_rows`, which does not."""
        self._store.maintain()

    def compact(self) -> None:
        """Compact the files and bring the index up to date now; both also happen by themselves.

        The search index is built anew only if it lacks some thousand rows; fewer are compared one by one.

        Raises
        ------
        StorageError
            The next step needs more memory or room on the disk than there is; the message says how much. The
            steps before it are done.
        """
        self._store.optimize()

    def copy_projected(
        self, directory: str | Path | Location, projection: "Projection", *, storage: str | None = None
    ) -> None:
        """Create a collection of the same images with projected vectors; it keeps the projection itself.

        Parameters
        ----------
        directory : path or URI
            Of the new collection: missing or empty.
        projection : Projection
            From this collection's model to shorter vectors; see `reduce_dim`, which fits one.
        storage : {"float32", "float16"}, optional
            The type of a stored number; by default as here.

        Raises
        ------
        NotACollectionError
            The directory holds something.
        """
        create_projected(directory, self._store, projection, storage or self.storage)

    def embedder(self, **options: Any) -> Embedder:
        """Return an `Embedder` of the collection's model; `options` are those of `Embedder`."""
        options.setdefault("cache_dir", self.cache_dir)
        return Embedder(self._backend, **options)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """What turns texts into vectors that can be compared with the images'.

        Raises
        ------
        UnknownModelError
            The collection's model has no text encoder; see `load_text_encoder`.
        """
        encoder = load_text_encoder(self.model_name, cache_dir=self.cache_dir)
        self._require_of_own_model(encoder.spec.fingerprint)
        return encoder

    @cached_property
    def _backend(self) -> Backend:
        backend = load_model(self.model_name, device=self._device, cache_dir=self.cache_dir)
        self._require_of_own_model(backend.spec.fingerprint)
        return backend

    @property
    def _lock(self) -> WriteLock:
        return WriteLock(self.location, self._manifest)

    def _writer(self) -> Writer:
        return Writer(self._store, self._lock)
