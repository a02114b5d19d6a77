"""Collections: the pictures' rows for one model, in a directory."""

from nearsight.collection.collection import Collection
from nearsight.collection.indexing import AddReport
from nearsight.collection.match import Match
from nearsight.collection.rows import Item

__all__ = ["AddReport", "Collection", "Item", "Match"]
