"""Duplicate files that can be deleted."""

from dataclasses import dataclass
from pathlib import Path

from nearsight.analyses.duplicates import Duplicates
from nearsight.collection import Item


@dataclass(frozen=True, slots=True)
class RedundantFiles:
    """Local files that can be deleted, since a duplicate of each is kept.

    Attributes
    ----------
    paths : list of str
    n_remote : int
        Redundant files that are not in `paths`, since they lie in shards or at URLs.
    n_without_kept : int
        Groups that are not in `paths`, since the file to keep is missing or has changed.
    """

    paths: list[str]
    n_remote: int
    n_without_kept: int


def redundant_files(duplicates: Duplicates) -> RedundantFiles:
    """Return the files that can be deleted.

    Parameters
    ----------
    duplicates : Duplicates
        From `Collection.find_duplicates`.
    """
    groups = [group for group in duplicates.groups if _is_unchanged(group.keep)]
    redundant = [path for group in groups for path in group.redundant]
    local = [path for path in redundant if "://" not in path]
    return RedundantFiles(local, len(redundant) - len(local), len(duplicates.groups) - len(groups))


def _is_unchanged(item: Item) -> bool:
    """Whether the file of an image has the size that it had when it was indexed; True for URLs."""
    if "://" in item.path:
        return True
    try:
        return Path(item.path).stat().st_size == item.size_bytes
    except OSError:
        return False
