"""What people decided about near-duplicates; it holds for every later search."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from nearsight.artifacts import replacing
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, StorageError

FILENAME = "duplicate_decisions.json"
DECISIONS = ("different", "keep_both", "undecided")


class DuplicateDecisions:
    """Decisions about pairs of images of a collection, in its directory.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self._path = collection.directory / FILENAME

    def all(self) -> dict[tuple[str, str], str]:
        """Return the decision about each pair; the smaller id comes first.

        Raises
        ------
        StorageError
            The file is damaged. Restore it or delete it.
        """
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))["pairs"]
            return {(first, second): decision for first, second, decision in rows}
        except FileNotFoundError:
            return {}
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise StorageError(f"{self._path} is damaged; restore it or delete it") from error

    def decide(self, ids: Iterable[str], decision: str) -> int:
        """Note a decision about every pair of `ids`; return how many pairs.

        Parameters
        ----------
        decision : {"different", "keep_both", "undecided"}
            They show different things; they show the same and both stay; forget what was decided.

        Raises
        ------
        InvalidParameterError
            There are fewer than two images, or the decision is unknown.
        """
        names = sorted(set(ids))
        if len(names) < 2 or decision not in DECISIONS:
            raise InvalidParameterError(
                f"a decision about {len(names)} images is {decision!r}; it must be about two or more, "
                f"and one of "
                f"{', '.join(DECISIONS)}"
            )
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        with FileLock(self._path.with_suffix(".lock")):
            decisions = self.all()
            for pair in pairs:
                decisions.pop(pair, None)
                if decision != "undecided":
                    decisions[pair] = decision
            _write(self._path, decisions)
        return len(pairs)

    def undecided_groups(self, groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return groups of `duplicates_document` without what was decided: nothing comes back.

        An image leaves a group if a decision was made about it and the image to keep. If that leaves one
        image, the group is gone.
        """
        decided = self.all()
        remaining = []
        for group in groups:
            keep = group["keep"]
            ids = [id for id in group["ids"] if id == keep or (min(id, keep), max(id, keep)) not in decided]
            if len(ids) == len(group["ids"]):
                remaining.append(dict(group))
            elif len(ids) > 1:
                # Which files can go was said of the whole group.
                places = [i for i, id in enumerate(group["ids"][1:]) if id in ids]
                chosen = {
                    name: [group[name][i] for i in places if i < len(group[name])]
                    for name in ("verified_against", "doubts")
                }
                remaining.append(
                    {**group, **chosen, "ids": ids, "certain": False, "redundant": [], "review": []}
                )
        return remaining


def _write(path: Path, decisions: Mapping[tuple[str, str], str]) -> None:
    rows = [[first, second, decision] for (first, second), decision in decisions.items()]
    try:
        with replacing(path) as file:
            file.write(json.dumps({"format": 1, "pairs": rows}).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error
