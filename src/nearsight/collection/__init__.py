"""Collections: the images' rows for one model, in a directory."""

from nearsight.collection.collection import Collection
from nearsight.collection.ingest import AddReport
from nearsight.collection.results import Match
from nearsight.collection.schema import Item

__all__ = ["AddReport", "Collection", "Item", "Match"]
