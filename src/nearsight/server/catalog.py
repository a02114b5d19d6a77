"""The collections that clients may name, and where their files lie."""

import contextlib
import json
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.artifacts import exported
from nearsight.collection import Collection, Item, manifest
from nearsight.collection.create import create_like
from nearsight.errors import CollectionNotFoundError, NearsightError
from nearsight.models import Backend, load_model, load_text_encoder
from nearsight.server.collection_folders import CollectionFolders, identity
from nearsight.server.errors import Problem
from nearsight.server.model_pool import LoadedModel, ModelPool, ModelSource
from nearsight.server.shared_uploads import SharedUploads
from nearsight.server.uploads import remove_unlisted
from nearsight.services.server_settings import ServerSettings
from nearsight.services.shown_path import shown_path
from nearsight.services.trash import Trash
from nearsight.store import Filter, is_directory, locate, shown_uri
from nearsight.text_format import plain

# Those that keep a result here, in a file each.
_ANALYSES = (
    "audit",
    "clusters",
    "dimension",
    "duplicates",
    "map",
    "monitor",
    "outliers",
    "recommendations",
    "segments",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Orders of ids that are remembered; of a million images each takes 32 MB.
_MOST_ORDERS = 8
_ORDER_S = 60.0
# How long a request waits for another one that opens its collection.
_OPENING_S = 2.0
# How long the manifest of a collection that is not in a directory counts as read.
_CHECKED_S = 1.0


@dataclass(frozen=True, slots=True)
class _Order:
    """The ids of a filtered collection in the order they came in, and when that was true."""

    count: int
    since: float
    ids: NDArray[Any]


class CollectionCatalog:
    """Collections by name: those that the settings mount, and those in the data directory.

    Parameters
    ----------
    settings : ServerSettings
    models : ModelPool
        A collection's model is registered there.
    device, cache_dir
        For models that only a collection names.
    """

    def __init__(
        self,
        settings: ServerSettings,
        models: ModelPool,
        *,
        device: str = "auto",
        cache_dir: Path | None = None,
    ) -> None:
        self._own = Path(settings.data) / "collections"
        self._uploads, self._results, self._detectors = (
            CollectionFolders(Path(settings.data) / kind) for kind in ("uploads", "results", "detectors")
        )
        self.shared_uploads = SharedUploads(self._uploads.base, self._own)
        self._mounts = settings.pairs("mount")
        self.roots = {name: Path(place).resolve() for name, place in settings.pairs("root").items()}
        self._models = models
        self._device, self._cache_dir = device, cache_dir
        # By name: when the manifest had changed, or, where that is not known, when it was read last.
        self._open: dict[str, tuple[float, Collection]] = {}
        self._orders: OrderedDict[tuple[str, str, str | Filter | None], _Order] = OrderedDict()
        self._opening: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Return the names of all collections."""
        own = [each.parent.name for each in self._own.glob(f"*/{manifest.FILENAME}")]
        return sorted({*self._mounts, *(name for name in own if _NAME.fullmatch(name))})

    def directory(self, name: str) -> Path:
        """Return where the files of a collection of this name lie, or would lie; also of one in a database.

        Raises
        ------
        Problem
            400: it is not a name.
        """
        if name in self._mounts:
            return locate(self._mounts[name]).files
        if not _NAME.fullmatch(name):
            raise Problem(
                400,
                f"{name!r} cannot be the name of a collection: it has up to 64 letters, digits, - and _, "
                "and no - or _ in front",
                param="name",
            )
        return self._own / name

    def place(self, name: str) -> str:
        """Return the absolute directory of a collection, or its URI; not for clients."""
        mount = self._mounts.get(name)
        return mount if mount and not is_directory(mount) else str(self.directory(name).absolute())

    def is_elsewhere(self, name: str) -> bool:
        """Whether a collection of this name lies in a database or a bucket, which may be away."""
        return name in self._mounts and not is_directory(self._mounts[name])

    def is_mounted(self, name: str) -> bool:
        """Whether the settings name a collection, so that it is not the service's to delete."""
        return name in self._mounts

    def shown_place(self, name: str) -> str:
        """Return the place of a collection as it may be written down: without the password of a URI."""
        return shown_uri(self.place(name))

    def real_place(self, shown: str) -> str:
        """Return the place that was written down by `shown_place`, with its password."""
        return next((place for place in self._mounts.values() if shown_uri(place) == shown), shown)

    def open(self, name: str) -> Collection:
        """Return a collection, to read and to search by vectors.

        Raises
        ------
        Problem
            404: there is none of that name. 503: it takes long to open, such as a database that is away.
        """
        place = self.place(name)
        if (opened := self._opened(name, place)) is not None:
            return opened
        with self._lock:
            opening = self._opening.setdefault(name, threading.Lock())
        # A database that is away keeps those waiting who want it, for a while, and nobody else.
        if not opening.acquire(timeout=-1 if is_directory(place) else _OPENING_S):
            raise Problem(
                503, f"the collection {name!r} is being opened; try again", retry_after_s=_OPENING_S
            )
        try:
            if (opened := self._opened(name, place)) is not None:
                return opened
            changed = _changed(place)
            try:
                collection = Collection.open(place, device=self._device, cache_dir=self._cache_dir)
            except CollectionNotFoundError:
                with self._lock:  # names that mean nothing are without number
                    self._opening.pop(name, None)
                raise Problem(
                    404,
                    f"there is no collection {name!r}; GET /v1/collections lists those that there are, and "
                    "POST creates one",
                    code="collection_not_found",
                ) from None
            self.trash(name, collection).recover()
            with self._lock:
                self._open[name] = (changed or time.monotonic(), collection)
            return collection
        finally:
            opening.release()

    def _opened(self, name: str, place: str) -> Collection | None:
        """Return a collection that is open, and the same as when it was opened."""
        with self._lock:
            changed = _changed(place)
            since, collection = self._open.get(name, (0, None))
            if collection is None:
                return None
            # An upgrade replaces the file: the collection has another model then.
            if is_directory(place):
                if changed and changed == since:
                    return collection
                del self._open[name]
                return None
            if time.monotonic() - since < _CHECKED_S:
                return collection
            # Whoever comes meanwhile need not ask, too.
            self._open[name] = (time.monotonic(), collection)
        try:
            if not collection.was_upgraded():
                return collection
        except CollectionNotFoundError:
            pass
        except NearsightError:
            # A server that is away is what the next call on the collection reports.
            return collection
        with self._lock:
            self._open.pop(name, None)
        return None

    def trash(self, name: str, collection: Collection) -> Trash:
        """Return the trash of a collection: files below a root, and uploads, may go there."""
        uploads = self._uploads.of(name, collection)
        shared = [uploads] if self.shared_uploads.is_shared(uploads) else []
        return Trash(collection, [*self.roots.values(), uploads], shared=shared)

    def open_with(self, name: str, backend: Backend) -> Collection:
        """Return a collection that embeds with a loaded model."""
        self.open(name)
        return Collection.open(self.place(name), model=backend, cache_dir=self._cache_dir, in_memory=False)

    def create(self, name: str, backend: Backend, *, storage: str) -> None:
        """Create a collection.

        Raises
        ------
        Problem
            409: there is one of that name.
        """
        Collection.create(self._free(name), model=backend, storage=storage, exist_ok=False)

    def create_like(self, name: str, other: str) -> None:
        """Create a collection of the same model and storage as another one.

        Raises
        ------
        Problem
            409: there is one of that name. 404: there is no other one.
        """
        create_like(self._free(name), self.open(other))

    def _free(self, name: str) -> Path:
        directory = self.directory(name)
        if name in self.names():
            raise Problem(409, f"there is a collection {name!r} already", code="exists", param="name")
        if (directory / manifest.COPY).exists():
            raise Problem(
                409,
                f"{name!r} is an unfinished copy; copy to it again, delete it, or choose another name",
                code="unfinished_copy",
                param="name",
            )
        return directory

    def target(self, name: str, *, is_copy: bool = False, may_exist: bool = False) -> str:
        """Return where a job may make a collection of this name, as it may be written down.

        Parameters
        ----------
        is_copy : bool
            Whether an unfinished copy may be there, which goes on.
        may_exist : bool
            Whether the collection may be there.

        Raises
        ------
        Problem
            400: it is not a name. 409: there is one.
        """
        directory = self.directory(name)
        is_there = name in self.names()
        if name in self._mounts:
            try:
                self.open(name)
            except Problem as problem:
                if problem.code != "collection_not_found":
                    raise
                is_there = False
        if is_there and not may_exist:
            raise Problem(409, f"there is a collection {name!r} already", code="exists", param="to")
        if not is_there and not is_copy and directory.is_dir():
            self._free(name)
        return self.shown_place(name)

    def delete(self, name: str) -> None:
        """Delete a collection that the service created, with its uploads that no copy shows.

        Raises
        ------
        Problem
            403: the collection is mounted; only whoever mounted it may delete it.
        """
        if self.is_mounted(name):
            raise Problem(403, "this collection is mounted; delete its directory on the machine itself")
        directory = self.directory(name)
        if (directory / manifest.COPY).exists() and not (directory / manifest.FILENAME).exists():
            shutil.rmtree(directory)
            self.shared_uploads.release(name)
            return
        collection = self.open(name)
        with self._lock:
            self._open.pop(name, None)
        # The manifest first: a crash in between leaves no half collection that opens.
        (directory / manifest.FILENAME).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        for folders in (self._results, self._detectors):
            folders.remove(name, collection)
        self.shared_uploads.release(name, self._uploads.of(name, collection))

    def uploads(self, name: str) -> Path:
        """Return where the uploaded files of a collection lie, which must exist."""
        return self._uploads.of(name, self.open(name))

    @property
    def all_uploads(self) -> Path:
        """The directory above those of `uploads`."""
        return self._uploads.base

    def table_file(self, name: str, title: str) -> Path:
        """Return where an uploaded table waits for its job; its directory exists."""
        folder = self._results.of(name, self.open(name)) / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{title}.csv"

    def detectors(self, name: str) -> Path:
        """Return where the detectors of a collection lie, which must exist."""
        return self._detectors.of(name, self.open(name)).absolute()

    def names_of_uploads(self) -> list[str]:
        """Return the names under which files were uploaded."""
        return self._uploads.names()

    def remove_unlisted_uploads(self, name: str, before_s: float) -> None:
        """Remove uploaded files that were never acknowledged; see `uploads.remove_unlisted`."""
        with contextlib.suppress(Problem):  # no collection has that name
            collection = self.open(name)
            self.shared_uploads.forget_gone(self.uploads(name))
            if self.shared_uploads.is_shared(self.uploads(name)):
                return
            # Read before the rows are: what is put back meanwhile is in one of the two.
            entries = self.trash(name, collection).entries()
            trashed = [file.path for entry in entries for file in entry.files]
            remove_unlisted(collection, self.uploads(name), before_s=before_s, but=trashed)

    def result_file(self, name: str, kind: str) -> Path:
        """Return where the latest result of an analysis of a collection lies; its directory exists."""
        ending = {"map": "bin", "recommendations": "csv"}.get(kind, "json")
        folder = self._results.of(name, self.open(name))
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{kind}.{ending}"

    def finished_file(self, name: str, kind: str) -> Path:
        """Return where the latest result of an analysis lies.

        Raises
        ------
        Problem
            404: there is no such collection, or no result yet.
        """
        file = self.result_file(name, kind)
        if not file.exists():
            raise Problem(
                404, f"there is no result yet; POST to /v1/collections/{name}/{kind}", code="no_result"
            )
        return file

    def finished_kinds(self, name: str) -> list[str]:
        """Return the analyses of which there is a result, by the names of their routes."""
        return [kind for kind in _ANALYSES if self.result_file(name, kind).exists()]

    def write_result(self, name: str, kind: str, document: Mapping[str, Any]) -> None:
        """Replace the latest result of an analysis."""
        with exported(self.result_file(name, kind)) as file:
            file.write(json.dumps(plain(document)).encode())

    async def model(self, name: str, in_thread: Callable[..., Any]) -> LoadedModel:
        """Return the model of a collection, loading it if needed."""
        collection = await in_thread(self.open, name)
        return await self._models.get(await in_thread(self.model_alias, name, collection))

    def model_alias(self, name: str, collection: Collection) -> str:
        """Return the alias of a collection's model; one that nobody registered gets the collection's name."""
        for alias, source in self._models.sources.items():
            if source.spec().fingerprint == collection.fingerprint:
                return alias
        alias = f"collection:{name}"
        own = collection.model_name
        self._models.sources[alias] = ModelSource(
            own,
            lambda: collection.spec,
            partial(load_model, own, device=self._device, cache_dir=self._cache_dir),
            partial(load_text_encoder, own, cache_dir=self._cache_dir),
        )
        return alias

    def page(self, name: str, where: str | Filter | None, offset: int, limit: int) -> tuple[list[Item], int]:
        """Return a page of images in the order they came in, and how many there are in all.

        The order is remembered for a while, so that a page costs the same wherever it is. A write through
        this service forgets it at once; of another process, a changed number of images is noticed.
        """
        collection = self.open(name)
        count = collection.count(where)
        key = (name, identity(collection), where)
        order = self._orders.get(key)
        now = time.monotonic()
        if order is None or order.count != count or now - order.since > _ORDER_S:
            order = _Order(count, now, _ordered_ids(collection, where))
            with self._lock:
                self._orders[key] = order
                while len(self._orders) > _MOST_ORDERS:
                    self._orders.popitem(last=False)
        ids = [id.decode() for id in order.ids[offset : offset + limit].tolist()]
        items = {item.id: item for item in collection.items(ids=ids)} if ids else {}
        return [items[id] for id in ids if id in items], len(order.ids)

    def forget_order(self, name: str) -> None:
        """Forget the order of a collection's images: it has changed."""
        with self._lock:
            for key in [key for key in self._orders if key[0] == name]:
                del self._orders[key]

    def shown_path(self, path: str) -> str:
        """Return the path of an image as clients see it: below its root, or only the name of the file.

        A name that is not valid UTF-8 has escapes, because JSON cannot hold it.
        """
        return shown_path(path, self.roots)

    def folder(self, named: str) -> Path:
        """Return the folder that ``ROOT/below/it`` names.

        Raises
        ------
        Problem
            403: it is not below a root, also after links are followed. 404: it is not a folder.
        """
        place = self._below_root(named, "folder")
        if not place.is_dir():
            raise Problem(404, f"there is no folder {named!r}", param="folder")
        return place

    def file(self, named: str) -> Path:
        """Return the file that ``ROOT/below/it`` names; see `folder`."""
        place = self._below_root(named, "file")
        if not place.is_file():
            raise Problem(404, f"there is no file {named!r}", param="file")
        return place

    def _below_root(self, named: str, param: str) -> Path:
        alias, _, rest = named.partition("/")
        root = self.roots.get(alias)
        if root is None:
            known = ", ".join(self.roots) or "none (start with --root ALIAS=DIR)"
            raise Problem(
                403,
                f"the {param} {named!r} must begin with the alias of a root; there are: {known}",
                param=param,
            )
        try:
            place = (root / rest).resolve()
        except (OSError, ValueError, RuntimeError):
            raise Problem(404, f"there is no {param} {named!r}", param=param) from None
        if not place.is_relative_to(root):
            raise Problem(403, f"the {param} {named!r} is not below its root", param=param)
        return place


def _changed(place: str) -> int:
    """Return when the manifest of a collection changed; 0 if there is none, or if it is in a database."""
    if not is_directory(place):
        return 0
    try:
        return (Path(place) / manifest.FILENAME).stat().st_mtime_ns
    except OSError:
        return 0


def _ordered_ids(collection: Collection, where: str | Filter | None) -> NDArray[Any]:
    ids, added = [], []
    for batch in collection.iter_batches(["id", "added"], where):
        ids.append(np.array(batch.column("id").to_pylist(), "S32"))
        added.append(batch.column("added").to_numpy(zero_copy_only=False).astype("datetime64[us]"))
    if not ids:
        return np.array([], "S32")
    order = np.argsort(np.concatenate(added), kind="stable")
    return np.concatenate(ids)[order]
