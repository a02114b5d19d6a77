"""Finds images by the names that people use in tables."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath

from nearsight.collection import Item


class ImageLookup:
    """Finds images by id, path, end of a path, file name, or file name without its ending.

    Parameters
    ----------
    items : iterable of Item
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._id_by_path: dict[str, str] = {}
        self._by_name: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.ids: set[str] = set()
        for item in items:
            self.ids.add(item.id)
            for path in item.paths:
                self._id_by_path[path] = item.id
                name = PurePath(path).name
                for key in {name, PurePath(name).stem}:
                    self._by_name[key].add((path, item.id))

    def find(self, name: str) -> set[str]:
        """Return the ids of the images with a name, by the first of the five ways that finds any."""
        if name in self.ids:
            return {name}
        if name in self._id_by_path:
            return {self._id_by_path[name]}
        parts = PurePath(name).parts
        candidates = self._by_name.get(PurePath(name).name, set())
        if len(parts) > 1:
            return {id for path, id in candidates if PurePath(path).parts[-len(parts) :] == parts}
        by_file_name = {id for path, id in candidates if PurePath(path).name == name}
        return by_file_name or {id for _, id in candidates}
