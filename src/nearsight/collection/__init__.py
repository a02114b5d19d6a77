"""Collections: the pictures' rows for one model, in a directory."""

from nearsight.collection.collection import Collection, Match
from nearsight.collection.indexing import AddReport
from nearsight.collection.rows import Item

__all__ = ["AddReport", "Collection", "Item", "Match"]
