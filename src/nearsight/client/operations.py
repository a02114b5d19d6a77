"""What a client can ask for, apart from how it waits.

See `nearsight.client.requests` for what an operation is.
"""

import base64
import csv
import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nearsight import images
from nearsight.artifacts import exported
from nearsight.client.requests import Answer, Named, Operation, Request
from nearsight.collection import schema
from nearsight.collection.results import AddReport, Item, Match, Metadata
from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.images import InMemoryImage, Limits
from nearsight.parameters import require_whole
from nearsight.text_format import printable

# What goes into one request at most; services accept 32 images and 64 MB unless they are told otherwise.
_MAX_IMAGES, _MAX_BYTES = 32, 48 * 2**20
_MAX_TEXTS = 1024
_MAX_COPIED = 1000
_PAGE = 1000
# Thumbnails in an answer: some megabytes.
_THUMBNAILS = 250
_ALL = "path LIKE '%'"  # lets every image through
_TIMES = ("modified", "added", "taken")


def embed(
    client: object, inputs: Any, *, model: str | None = None, dimensions: int | None = None
) -> Operation[NDArray[np.float32]]:
    """Return the vectors of images: (n, dim) float32, in order.

    Parameters
    ----------
    inputs : path, PIL image, uint8 array, bytes, or iterable of those
        Folders are walked.
    model : str, optional
        An alias of the service.
    dimensions : int, optional
        Length of the vectors, for models that were trained for shorter ones.

    Raises
    ------
    ImageError
        One cannot be used; then there is no result at all.
    """
    options = {"encoding_format": "base64", "model": model, "dimensions": dimensions}
    vectors: list[NDArray[np.float32]] = []
    for batch in _batches(_files(inputs)):
        files = [("image", (name, data)) for name, data, _ in batch]
        data = {key: str(value) for key, value in options.items() if value is not None}
        vectors += _vectors((yield Request("POST", "/v1/embeddings", files=files, data=data)))
    return np.array(vectors, np.float32)


def embed_texts(
    client: object, texts: str | Sequence[str], *, model: str | None = None
) -> Operation[NDArray[np.float32]]:
    """Return the vectors of texts in the space of the model's images: (n, dim) float32, unit length."""
    words = [texts] if isinstance(texts, str) else list(texts)
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(words), _MAX_TEXTS):
        body = {"input": words[start : start + _MAX_TEXTS], "encoding_format": "base64", "model": model}
        vectors += _vectors((yield Request("POST", "/v1/embeddings", json=body)))
    return np.array(vectors, np.float32)


def models(client: object) -> Operation[list[dict[str, Any]]]:
    """Return the models of the service."""
    answer = yield Request("GET", "/v1/models")
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def collections(client: object) -> Operation[list[dict[str, Any]]]:
    """Return the collections of the service: name, number of images, model; or the name and a problem."""
    answer = yield Request("GET", "/v1/collections")
    listed: list[dict[str, Any]] = answer.json()["collections"]
    return listed


def create(
    client: object,
    name: str,
    *,
    model: str | None = None,
    storage: str = "float32",
    like: str | None = None,
) -> Operation[dict[str, Any]]:
    """Create a collection, and return what it is."""
    body = {"name": name, "model": model, "storage": storage, "like": like}
    answer = yield Request("POST", "/v1/collections", json=body)
    facts: dict[str, Any] = answer.json()
    return facts


def delete(client: object, name: str) -> Operation[None]:
    """Delete a collection that the service created, with its uploads."""
    yield Request("DELETE", f"/v1/collections/{quote(name, safe='')}")


def info(collection: Named) -> Operation[dict[str, Any]]:
    """Return what the collection is and holds."""
    facts: dict[str, Any] = (yield Request("GET", collection_path(collection))).json()
    return facts


def metadata_types(collection: Named) -> Operation[dict[str, str]]:
    """Return the keys that metadata has or had, and the type of each: "string", "double" or "bool"."""
    types: dict[str, str] = (yield from info(collection))["metadata_types"]
    return types


def count(collection: Named, where: str | None = None) -> Operation[int]:
    """Return the number of images, or of those that match."""
    return int((yield _page_request(collection, where, 0, 1)).json()["total"])


def page(
    collection: Named, where: str | None = None, *, offset: int = 0, limit: int = _PAGE
) -> Operation[list[Item]]:
    """Return images in the order they came in, from `offset` on, at most 1,000."""
    require_whole("offset", offset, least=0)
    require_whole("limit", limit)
    answer = yield _page_request(collection, where, offset, limit)
    return [item_of(facts) for facts in answer.json()["items"]]


def to_arrow(
    collection: Named, columns: Sequence[str] | None = None, where: str | None = None
) -> Operation[pa.Table]:
    """Return columns of the images as one table, in the order they came in; see `Collection.to_arrow`."""
    facts = yield from info(collection)
    keys = facts["metadata_types"]
    metadata = [pa.field(schema.PREFIX + key, pa.type_for_alias(keys[key])) for key in keys]
    stored = pa.schema([*schema.schema(facts["dim"]), *metadata])
    named = schema.table_columns(columns, stored, keys)
    items: list[Item] = []
    while part := (yield from page(collection, where, offset=len(items), limit=_PAGE)):
        items += part
    ids = [item.id for item in items]
    rows = [asdict(item) | {schema.PREFIX + key: item.metadata.get(key) for key in keys} for item in items]
    if "vector" in named.values():
        for row, vector in zip(rows, (yield from vectors(collection, ids)), strict=True):
            row["vector"] = vector
    if "thumbnail" in named.values():
        by_id = yield from thumbnails(collection, ids)
        for row in rows:
            row["thumbnail"] = by_id.get(row["id"])
    table = schema.table(rows, pa.schema([stored.field(name) for name in dict.fromkeys(named.values())]))
    return table.select(list(named.values())).rename_columns(list(named))


def get(collection: Named, id: str) -> Operation[Item]:
    """Return one image by its id, or by a unique start of it of at least 4 digits."""
    return item_of((yield Request("GET", collection_path(collection, "items", id))).json())


def search(
    collection: Named,
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
    where: str | None = None,
    cluster: str | int | Sequence[str | int] | None = None,
    exact: bool = False,
    verify: bool = False,
) -> Operation[list[Match]]:
    """Return the `k` most similar images, the most similar first; see `Collection.search`.

    Parameters
    ----------
    cluster : str, int or sequence of these, optional
        Search only in these of the latest clusters, by name or number.
    verify : bool, default False
        Put images of the very same object first, by SIFT keypoints and RANSAC; for one image or id.
    """
    require_whole("k", k)
    body: dict[str, Any] = {
        "id": id,
        "text": text,
        "not_id": not_id,
        "not_text": not_text,
        "k": k,
        "where": where,
        "cluster": cluster,
        "exact": exact,
        "verify": verify,
    }
    for field, vectors in (("vector", vector), ("not_vector", not_vector)):
        if vectors is not None:
            body[field] = np.asarray(vectors, np.float64).tolist()
    for field, inputs in (("image", query), ("not_image", not_query)):
        if inputs is not None:
            body[field] = [base64.b64encode(data).decode() for _, data, _ in _files(inputs)]
    body = {key: value for key, value in body.items() if value is not None}
    answer = yield Request("POST", collection_path(collection, "search"), json=body)
    return [Match(**hit) for hit in answer.json()["hits"]]


def add(
    collection: Named,
    inputs: Any,
    *,
    metadata: Metadata | Callable[[str], Metadata] | None = None,
    exclude: Sequence[str] = (),
    on_error: str = "record",
) -> Operation[AddReport]:
    """Send images to the collection. What is reported as added is on the service's disk.

    Parameters
    ----------
    inputs : path, PIL image, uint8 array, bytes, or iterable of those
        Folders of this machine are walked. For a folder of the server, see `index`.
    metadata : mapping, or callable from path to mapping, optional
        Attached to every image.
    exclude : sequence of str
        Patterns in the syntax of gitignore.
    on_error : {"record", "raise"}
        Whether an image that cannot be used is listed in the report or raises `ImageError`.
    """
    if on_error not in ("record", "raise"):
        raise InvalidParameterError(f"on_error is {on_error!r}; it must be 'record' or 'raise'")
    added = unchanged = 0
    failed: list[ImageFailure] = []
    for batch in _batches(_files(inputs, exclude=exclude, failed=failed)):
        facts = [dict((metadata(path) if callable(metadata) else metadata) or {}) for _, _, path in batch]
        answer = yield Request(
            "POST",
            collection_path(collection, "items"),
            files=[("image", (name, data)) for name, data, _ in batch],
            data={"metadata": json.dumps(facts)},
        )
        report = answer.json()
        added += report["added"]
        unchanged += report["exists"]
        failed += [
            ImageFailure(batch[each["index"]][2], each["reason"])
            for each in report["items"]
            if each["status"] == "failed"
        ]
    if not added + unchanged + len(failed):
        warnings.warn(images.no_image_text(inputs, {}), stacklevel=2)
    if failed and on_error == "raise":
        raise ImageError(failed[0].path, failed[0].reason)
    return AddReport(added, 0, unchanged, 0, added, failed=failed)


def index(
    collection: Named,
    folder: str,
    *,
    exclude: Sequence[str] = (),
    include_hidden: bool = False,
    prune: bool = False,
    metadata: Metadata | None = None,
) -> Operation[dict[str, Any]]:
    """Add a folder of the server, as a job; return the job.

    Parameters
    ----------
    folder : str
        ``ROOT/below/it``, where the service knows the root.
    """
    body = {
        "folder": folder,
        "exclude": list(exclude),
        "include_hidden": include_hidden,
        "prune": prune,
        "metadata": None if metadata is None else dict(metadata),
    }
    job: dict[str, Any] = (yield Request("POST", collection_path(collection, "index"), json=body)).json()
    return job


def update_metadata(collection: Named, ids: str | Sequence[str], metadata: Metadata) -> Operation[int]:
    """Attach metadata to one or many images; None removes a key. Return how many changed."""
    names = [ids] if isinstance(ids, str) else list(ids)
    body = {"ids": names, "metadata": dict(metadata)}
    return int((yield Request("PATCH", collection_path(collection, "items"), json=body)).json()["changed"])


def change_metadata(
    collection: Named, metadata: Metadata, ids: Iterable[str] | None = None, *, where: str | None = None
) -> Operation[dict[str, int | None]]:
    """Attach metadata to images, named by ids or by a filter; None removes a key.

    Returns
    -------
    dict
        ``changed``, the images that changed, and ``change``, a number for `undo_metadata`.
    """
    body = {"metadata": dict(metadata), **_named(ids, where)}
    answer = yield Request("PATCH", collection_path(collection, "items"), json=body)
    facts: dict[str, int | None] = answer.json()
    return facts


def undo_metadata(collection: Named, change: int | None = None) -> Operation[dict[str, int | None]]:
    """Take back a change of metadata, by default the last one.

    Returns
    -------
    dict
        ``change``, its number; ``changed``, the images that have their values of before again; ``kept``,
        images that got others since.
    """
    answer = yield Request("POST", collection_path(collection, "items", "undo"), json={"change": change})
    facts: dict[str, int | None] = answer.json()
    return facts


def remove(
    collection: Named, ids: Iterable[str] | None = None, *, where: str | None = None
) -> Operation[int]:
    """Remove images by id or by filter; return how many."""
    place = collection_path(collection, "items", "delete")
    return int((yield Request("POST", place, json=_named(ids, where))).json()["removed"])


def copy_from(collection: Named, source: str, ids: Iterable[str]) -> Operation[int]:
    """Add images of another collection of the same model, by their ids; return how many are new.

    Vectors, thumbnails and metadata come with them; uploaded files are copied, files in folders are not.
    """
    named, n_added = list(ids), 0
    for start in range(0, len(named), _MAX_COPIED):
        body = {"source": source, "ids": named[start : start + _MAX_COPIED]}
        answer = yield Request("POST", collection_path(collection, "items", "copy"), json=body)
        n_added += answer.json()["added"]
    return n_added


def export(
    collection: Named, file: str | Path, *, where: str | None = None, ids: Iterable[str] | None = None
) -> Operation[int]:
    """Write images to a ``.csv`` file, with their ids and metadata; return the number of rows.

    Parameters
    ----------
    where : str, optional
        A filter; without it and `ids`, all images are written.
    ids : iterable of str, optional
        Only these images, in place of `where`.
    """
    if Path(file).suffix.lower() != ".csv":
        raise InvalidParameterError(f"cannot export to {file}: a service writes .csv files only")
    body = _named(ids, _ALL if ids is None and where is None else where)
    table = (yield Request("POST", collection_path(collection, "items", "export"), json=body)).content
    with exported(Path(file)) as handle:
        handle.write(table)
    return sum(1 for _ in csv.reader(io.StringIO(table.decode(), newline=""))) - 1


def vectors(collection: Named, ids: Sequence[str]) -> Operation[NDArray[np.float32]]:
    """Return the (n, dim) vectors of images, in the order of `ids`."""
    named = list(ids)
    if not named:
        return np.empty((0, (yield from info(collection))["dim"]), np.float32)
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(named), _PAGE):
        body = {"ids": named[start : start + _PAGE], "encoding_format": "base64"}
        answer = yield Request("POST", collection_path(collection, "items", "vectors"), json=body)
        rows += [_vector(each["vector"]) for each in answer.json()["items"]]
    return np.array(rows, np.float32)


def thumbnails(collection: Named, ids: Sequence[str]) -> Operation[dict[str, bytes]]:
    """Return the JPEG thumbnails of images by id; images without one are left out."""
    found: dict[str, bytes] = {}
    for start in range(0, len(ids), _THUMBNAILS):
        some = list(ids[start : start + _THUMBNAILS])
        path = collection_path(collection, "items", "thumbnails")
        answer = yield Request("POST", path, json={"ids": some})
        for id, each in zip(some, answer.json()["items"], strict=True):
            if each["thumbnail"] is not None:
                found[id] = base64.b64decode(each["thumbnail"])
    return found


def original(collection: Named, id: str) -> Operation[bytes]:
    """Return the file of an image without its EXIF and other metadata."""
    return (yield Request("GET", collection_path(collection, "items", id, "original"))).content


def image_files(inputs: Any) -> list[tuple[str, tuple[str, bytes]]]:
    """Return images as parts of a form.

    Raises
    ------
    ImageError
        One cannot be read.
    """
    return [("image", (name, data)) for name, data, _ in _files(inputs)]


def item_of(facts: Mapping[str, Any]) -> Item:
    """Return an image from its JSON."""
    values = dict(facts)
    for name in _TIMES:
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name].replace("Z", "+00:00"))
    return Item(**values)


def collection_path(collection: Named, *parts: str) -> str:
    """Return the address of a collection, or of a part of it."""
    return "/".join(["/v1/collections", *(quote(part, safe="") for part in (collection.name, *parts))])


def _named(ids: Iterable[str] | None, where: str | None) -> dict[str, Any]:
    return {"ids": None if ids is None else list(ids), "where": where}


def _page_request(collection: Named, where: str | None, offset: int, limit: int) -> Request:
    params = {"offset": offset, "limit": limit, **({} if where is None else {"where": where})}
    return Request("GET", collection_path(collection, "items"), params=params)


def _vectors(answer: Answer) -> list[NDArray[np.float32]]:
    return [_vector(each["embedding"]) for each in answer.json()["data"]]


def _vector(encoded: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(encoded), "<f4")


def _files(
    inputs: Any, *, exclude: Sequence[str] = (), failed: list[ImageFailure] | None = None
) -> Iterator[tuple[str, bytes, str]]:
    """Yield the file name, the content and the path of each image.

    Without `failed`, an image that cannot be read raises `ImageError`.
    """
    limits = Limits()
    for source in images.find(inputs, exclusions=images.Exclusions(tuple(exclude))):
        try:
            if isinstance(source, ImageFailure):
                raise ImageError(source.path, source.reason)
            data = source.read(limits)
        except ImageError as error:
            if failed is None:
                raise
            failed.append(ImageFailure(error.path, error.reason))
            continue
        name = printable(Path(source.path).name) or "image"
        if isinstance(data, InMemoryImage):
            file = io.BytesIO()
            data.image().save(file, "PNG")
            name, data = "image.png", file.getvalue()
        yield name, data, source.path


def _batches(files: Iterable[tuple[str, bytes, str]]) -> Iterator[list[tuple[str, bytes, str]]]:
    batch: list[tuple[str, bytes, str]] = []
    n_bytes = 0
    for file in files:
        if batch and (len(batch) == _MAX_IMAGES or n_bytes + len(file[1]) > _MAX_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(file)
        n_bytes += len(file[1])
    if batch:
        yield batch
