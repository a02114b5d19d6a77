"""Labels by image, and the vectors of labeled images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.image_conditions import MAX_MEASURED, ImageConditions
from nearsight.collection import Collection
from nearsight.collection.arrays import image_lookup, items_by_id
from nearsight.embedder import Embedded, Embedder
from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.images import Limits, find
from nearsight.images.path_encoding import is_url
from nearsight.parameters import require_whole
from nearsight.text_format import nfc

#: What folders of a split are called, and what is meant.
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "dev": "validation",
    "validation": "validation", "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
#: What to do with an image that has two labels under two names.
Contradictions = Literal["raise", "drop"]
_MAX_SHOWN = 5
_ID_DIGITS = 32


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images with their vectors; each content once.

    Attributes
    ----------
    ids, paths : list of str, length n
    X : ndarray of shape (n, dim), float32
    y : ndarray of shape (n,), str
    failed : list of ImageFailure
        Labeled images that could not be used.
    embedded : mapping of str to (int, int, bytes)
        Width, height and thumbnail, by id, of the images that were embedded for this.
    """

    ids: list[str]
    paths: list[str]
    X: NDArray[np.float32]
    y: NDArray[np.str_]
    failed: list[ImageFailure] = field(default_factory=list)
    embedded: Mapping[str, tuple[int, int, bytes]] = field(default_factory=dict)

    def conditions(self, collection: Collection | None = None) -> ImageConditions | None:
        """Return what the images are like, by at most `MAX_MEASURED` of them; None where that is unknown."""
        step = max(1, -(-len(self.ids) // MAX_MEASURED))
        ids = self.ids[::step]
        measured = [self.embedded[id] for id in ids if id in self.embedded]
        stored = [id for id in ids if id not in self.embedded]
        if collection is not None and stored:
            items = items_by_id(collection, stored)
            thumbnails = collection.thumbnails(list(items))
            measured += [(items[i].width, items[i].height, jpeg) for i, jpeg in thumbnails.items()]
        return ImageConditions.of(measured)


def labels_by_folder(collection: Collection, where: str | None = None) -> dict[str, str]:
    """Return the name of each image's folder, by id."""
    folders = {item.id: Path(item.path).parent.name for item in collection.items(where)}
    return {id: folder for id, folder in folders.items() if folder}


def folders_by_path(collection: Collection, where: str | None = None) -> dict[str, str]:
    """Return the name of each file's folder, by path; one content may lie in several folders."""
    folders = {path: Path(path).parent.name for item in collection.items(where) for path in item.paths}
    return {path: folder for path, folder in folders.items() if folder}


def labels_by_key(collection: Collection, key: str, where: str | None = None) -> dict[str, str]:
    """Return the metadata under a key, as text, of each image that has it, by id.

    Raises
    ------
    InvalidParameterError
        There is no such key.
    """
    labels: dict[str, str] = {}
    for batch in collection.iter_batches(["id", key], where):
        for id, value in zip(batch.column("id").to_pylist(), batch.column(key).to_pylist(), strict=True):
            if value is not None:
                labels[id] = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return labels


def read_labeled(
    collection: Collection,
    labels: Mapping[str, str],
    *,
    contradictions: Contradictions = "raise",
    limits: Limits | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> LabeledImages:
    """Read the vectors of images of the collection, and embed those that are not in it.

    Parameters
    ----------
    labels : mapping of str to str
        Labels by the id, path or name of the image; see `images.image_lookup`.
    contradictions : {"raise", "drop"}
        Whether an image with two labels is refused or left out.
    limits, n_threads, progress
        See `nearsight.Embedder`; for images that are not in the collection.

    Raises
    ------
    InvalidParameterError
        An image has two labels.
    """
    labels = {name: nfc(label) for name, label in labels.items()}
    ids = _ids_by_name(collection, labels)
    outside = {name: label for name, label in labels.items() if name not in ids}
    embedded: list[tuple[str, Embedded]] = []
    failed: list[ImageFailure] = []
    if outside:
        embedder = collection.embedder(limits=limits, n_threads=n_threads, progress=progress)
        embedded, failed = _embed(embedder, list(outside))
    names = {**{name: ids[name] for name in labels if name in ids}, **{name: e.id for name, e in embedded}}
    label_by_id = _by_id(names, labels, contradictions)
    vectors = {e.id: e.vector for _, e in embedded}
    stored = [id for id in label_by_id if id not in vectors]
    vectors |= dict(zip(stored, collection.vectors(stored), strict=True))
    paths = {id: item.path for id, item in items_by_id(collection, stored).items()}
    paths |= {e.id: e.source.path for _, e in embedded}
    return _labeled(label_by_id, vectors, paths, collection.spec.dim, failed, embedded)


def embed_labeled(
    embedder: Embedder, labels: Mapping[str, str], *, contradictions: Contradictions = "raise"
) -> LabeledImages:
    """Embed labeled files; see `read_labeled`."""
    labels = {name: nfc(label) for name, label in labels.items()}
    embedded, failed = _embed(embedder, list(labels))
    label_by_id = _by_id({name: e.id for name, e in embedded}, labels, contradictions)
    vectors = {e.id: e.vector for _, e in embedded}
    paths = {e.id: e.source.path for _, e in embedded}
    return _labeled(label_by_id, vectors, paths, embedder.backend.spec.dim, failed, embedded)


def _labeled(
    labels: Mapping[str, str],
    vectors: Mapping[str, NDArray[np.float32] | None],
    paths: Mapping[str, str],
    dim: int,
    failed: list[ImageFailure],
    embedded: Sequence[tuple[str, Embedded]],
) -> LabeledImages:
    X = np.array([vectors[id] for id in labels], np.float32).reshape(len(labels), dim)
    y = np.array(list(labels.values()), dtype=str)
    facts = {e.id: (e.width, e.height, e.thumbnail) for _, e in embedded if e.thumbnail is not None}
    return LabeledImages(list(labels), [paths.get(id, "") for id in labels], X, y, failed, facts)


def _embed(embedder: Embedder, names: list[str]) -> tuple[list[tuple[str, Embedded]], list[ImageFailure]]:
    """Return the embedded images with their names, and those that failed."""
    embedded: list[tuple[str, Embedded]] = []
    failed: list[ImageFailure] = []
    with embedder.bar(len(names)) as bar:
        for result in embedder.stream(find(names), thumbnails=True):
            bar.update()
            if isinstance(result, ImageFailure):
                failed.append(result)
            else:
                embedded.append((names[result.position], result))
    return embedded, failed


def _by_id(
    ids: Mapping[str, str], labels: Mapping[str, str], contradictions: Contradictions
) -> dict[str, str]:
    """Return labels by the ids of the images, which names give."""
    first_names: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, id in ids.items():
        first = first_names.setdefault(id, name)
        if labels[first] != labels[name]:
            refused.setdefault(id, f"{first} is {labels[first]!r}, and {name} {labels[name]!r}")
    if refused and contradictions == "raise":
        shown = "; ".join(list(refused.values())[:_MAX_SHOWN])
        more = f"; and {len(refused) - _MAX_SHOWN} more" if len(refused) > _MAX_SHOWN else ""
        raise InvalidParameterError(
            f"{len(refused)} images have two labels, under two names of the very same image: {shown}{more}."
            " Keep one label of each, or leave these images out (--doubtful-labels drop)"
        )
    return {id: labels[name] for id, name in first_names.items() if id not in refused}


def _ids_by_name(collection: Collection, names: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of those names that stand for images of the collection."""
    whole = [name for name in names if len(name) == _ID_DIGITS]
    ids = {id: id for id in items_by_id(collection, whole)} if whole else {}
    if len(ids) == len(names):
        return ids
    lookup = image_lookup(collection)
    for name in names:
        if name in ids:
            continue
        matches = lookup.find_file(name)
        # A file that exists comes before another of its name in the collection.
        if not matches and not is_url(name) and not Path(name).exists():
            matches = lookup.find(name)
        if len(matches) == 1:
            ids[name] = matches.pop()
    return ids


def examples_of(labels: Mapping[str, str], examples_per_class: int | None, random_state: int) -> list[str]:
    """Return the names of all labeled images, or of some of each class."""
    if examples_per_class is None:
        return list(labels)
    require_whole("examples_per_class", examples_per_class)
    rng = np.random.default_rng(random_state)
    names_by_label: dict[str, list[str]] = {}
    for name in sorted(labels):
        names_by_label.setdefault(labels[name], []).append(name)
    return [
        names[i]
        for names in names_by_label.values()
        for i in sorted(rng.choice(len(names), min(examples_per_class, len(names)), replace=False))
    ]
