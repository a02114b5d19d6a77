"""Duplicate files that can be deleted, and groups of which something has gone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearsight.analyses.duplicate_groups import Duplicates
from nearsight.collection import Collection, Item

_FILES = ("paths", "redundant", "review", "hard_links")
_FACTS = ("verified_against", "doubts")


@dataclass(frozen=True, slots=True)
class RedundantFiles:
    """Local files that can be deleted, since a duplicate of each is kept.

    Attributes
    ----------
    paths : list of str
    n_review : int
        Files that are not in `paths`, since somebody should look at them first.
    n_hard_links : int
        Names of kept files that are not in `paths`, since deleting them frees no space.
    n_remote : int
        Redundant files that are not in `paths`, since they lie in shards or at URLs.
    n_without_kept : int
        Groups that are not in `paths`, since the file to keep is missing or has changed.
    """

    paths: list[str]
    n_review: int
    n_hard_links: int
    n_remote: int
    n_without_kept: int


def redundant_files(duplicates: Duplicates, *, include_review: bool = False) -> RedundantFiles:
    """Return the files that can be deleted.

    Parameters
    ----------
    duplicates : Duplicates
        From `Collection.find_duplicates`.
    include_review : bool
        Also return files that need a look first; but none of a result that is doubtful as a whole.
    """
    groups = [group for group in duplicates.groups if _is_unchanged(group.keep)]
    include_review = include_review and not duplicates.is_doubtful
    listed = [path for group in groups for path in group.redundant]
    review = [path for group in groups for path in group.review]
    if include_review:
        listed += review
    local = [path for path in listed if "://" not in path]
    return RedundantFiles(
        local,
        n_review=0 if include_review else len(review),
        n_hard_links=sum(len(group.hard_links) for group in groups),
        n_remote=len(listed) - len(local),
        n_without_kept=len(duplicates.groups) - len(groups),
    )


def present_groups(collection: Collection, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return groups of `duplicates_document` without images and files that have left the collection since.

    A group is gone if nothing of it is left to decide. If its kept image has left, nothing of it is certain.
    """
    items = collection.items(ids=list({id for group in groups for id in group["ids"]}))
    paths = {item.id: item.paths for item in items}
    remaining = []
    for group in groups:
        ids = [id for id in group["ids"] if id in paths]
        files = {path for id in ids for path in paths[id]}
        left = {name: [path for path in group[name] if path in files] for name in _FILES}
        if len(ids) < 2 and not left["redundant"]:
            continue
        if ids[0] != group["keep"]:
            if len(ids) < 2:
                continue
            left |= {"redundant": [], "review": []}
        places = [i for i, id in enumerate(group["ids"][1:]) if id in ids[1:]]
        facts = {name: [group[name][i] for i in places if i < len(group[name])] for name in _FACTS}
        is_certain = group["certain"] and ids[0] == group["keep"]
        remaining.append({**group, **left, **facts, "keep": ids[0], "ids": ids, "certain": is_certain})
    return remaining


def _is_unchanged(item: Item) -> bool:
    """Whether the file of an image has the size that it had when it was indexed; True for URLs."""
    if "://" in item.path:
        return True
    try:
        return Path(item.path).stat().st_size == item.size_bytes
    except OSError:
        return False
