"""Collections: images with their vectors of one model, in a directory or a database."""

from nearsight.collection.collection import Collection
from nearsight.collection.collection_copy import CopyReport, copy_collection
from nearsight.collection.results import AddReport, Item, Match

__all__ = ["AddReport", "Collection", "CopyReport", "Item", "Match", "copy_collection"]
