"""What was learned from baskets, stored beside a collection under names."""

import re
import threading
from collections import OrderedDict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nearsight.analyses.recommendations import FittedRecommender, RecommenderFacts
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, StorageError
from nearsight.images.image_lookup import Resolution
from nearsight.services.collections import resolve_names
from nearsight.services.csv_tables import read_baskets

FOLDER = "baskets"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Recommenders that stay in memory, each with the vectors of its collection.
_MAX_LOADED = 2
_MAX_UNKNOWN = 100


def fit_from_table(
    collection: Collection, table: Path, *, progress: bool | None = None
) -> tuple[FittedRecommender, Resolution]:
    """Learn from a table with the columns ``basket`` and ``item``; return also what its names stand for.

    Raises
    ------
    MetadataError
        It is not such a table.
    InvalidParameterError
        More than half of the rows name no image of the collection, or several.
    """
    items = read_baskets(table)
    resolution = resolve_names(collection, [name for names in items.values() for name in names], table)
    ids = {basket: [resolution.ids.get(name, name) for name in names] for basket, names in items.items()}
    return collection.fit_recommender(ids, progress=progress), resolution


class StoredRecommenders:
    """The recommenders of a collection, in its directory.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._folder = collection.directory / FOLDER

    def names(self) -> list[str]:
        """Return the names of all."""
        return sorted(file.stem for file in self._folder.glob("*.npz") if _NAME.fullmatch(file.stem))

    def file(self, name: str) -> Path:
        """Return where a recommender of this name lies, or would lie.

        Raises
        ------
        InvalidParameterError
            It is not a name.
        """
        if not _NAME.fullmatch(name):
            raise InvalidParameterError(
                f"baskets {name!r}: a name has up to 64 letters, digits, - and _, and no - or _ in front"
            )
        return self._folder / f"{name}.npz"

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a recommender is based on, as plain data.

        Raises
        ------
        InvalidParameterError
            There is none of that name, or its file is damaged.
        """
        file = self.file(name)
        facts = RecommenderFacts.read(file)
        unknown = sorted(facts.unmatched.items(), key=lambda pair: -pair[1])
        return {
            "name": name,
            "baskets": facts.n_baskets,
            "images": facts.n_images,
            "learned": facts.learned,
            "similar_lift": facts.similar_lift,
            "n_unknown": len(unknown),
            "unknown": dict(unknown[:_MAX_UNKNOWN]),
            "fitted": datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).isoformat(),
        }

    def fit(self, name: str, table: Path, *, progress: bool | None = None) -> dict[str, Any]:
        """Learn from a table of baskets, replace what has the name, and return its facts.

        Raises
        ------
        MetadataError, InvalidParameterError
            See `fit_from_table`.
        StorageError
            The file cannot be written.
        """
        file = self.file(name)
        recommender, _ = fit_from_table(self._collection, table, progress=progress)
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self._folder} cannot be created: {error.strerror}") from error
        recommender.save(file)
        return self.facts(name)

    def delete(self, name: str) -> None:
        """Delete a recommender; nothing happens if there is none."""
        self.file(name).unlink(missing_ok=True)


class RecommenderCache:
    """Recommenders in memory; one whose file or collection has changed is read again."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[Path, tuple[Any, FittedRecommender]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, collection: Collection, name: str) -> FittedRecommender:
        """Return a stored recommender.

        Raises
        ------
        InvalidParameterError
            There is none of that name, or its file is damaged.
        """
        file = StoredRecommenders(collection).file(name)
        with self._lock:
            state = (file.stat().st_mtime_ns, file.stat().st_size, len(collection)) if file.exists() else None
            loaded = self._loaded.pop(file, None)
            if loaded is None or loaded[0] != state:
                loaded = (state, collection.load_recommender(file))
            self._loaded[file] = loaded
            while len(self._loaded) > _MAX_LOADED:
                self._loaded.popitem(last=False)
            return loaded[1]
